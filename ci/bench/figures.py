#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""figures.py: check that the tables in docs/cover-letters have the figures of docs/numbers.md; scripts/bench --record writes both.

A table in a cover letter begins below the command that measures it, "  scripts/bench SCENARIO...", and ends at the next empty line.
"""
import glob
import os
import re
import sys

from guest import TOP, die

NUMBERS = os.path.join(TOP, "docs/numbers.md")
README = os.path.join(TOP, "README.md")
README_TITLES = ("L2, 16 pages", "2 L2s, 16 pages", "4 L2s, 16 pages", "8 L2s, 16 pages", "16 L2s, 16 pages")
LETTERS = os.path.join(TOP, "docs/cover-letters/*.txt")
TABLE = re.compile(r"^  scripts/bench ((?:[^\n]*\\\n)*[^\n]*)\n((?:  [^\n]*\n)*)", re.M)
HEADER = """\
                        TLB flushes     page    VMCB       L0's
                        ASID    all    walks reloads     instr.
"""
INTRO = """\
# What a turn costs, base against series

Written by `scripts/bench --record`, all from one run. `scripts/bench SCENARIO` measures a scenario again. A turn is one turn of a vCPU on a pCPU or,
in scenarios with an L2, one round trip from L1 to L2 and back.

- TLB flushes, of one ASID and of all of them, and page walks are exact counts of the TLB model, which keeps each entry as long as the
  architecture allows. Real TLBs are smaller, so the base loses less by flushing.
- VMCB reloads are groups of VMCB fields that the CPU has to load because KVM does not mark them clean.
- Instructions are L0's, counted by QEMU's icount. x is their ratio to the base's. Where an L2 Linux boots, they include those of L1 and L2, and
  page walks are not exact.
- `part-nested` is the series up to the end of part nested, without contexts. `one-vmcb12` has the patches of part contexts up to the one that
  leaves out chunks of the MSR bitmap, and a single context per vCPU. `private-lru` has all patches before the table of contexts, so each vCPU has
  up to eight contexts and roots that are its own (`ci/bench/kernels`).
- `switch` is the series in a kernel that also contains the variants below it, which costs some instructions: compare variants with it.
- `nested_tlb_max_age` is an hour unless the title says otherwise, so that the counts are the same in each run. The default is 10 ms.

"""


def count(value, digits):
    """Format a count: a negative one is noise and becomes zero, a large one gets no decimals."""
    return f"{max(0, value):.{digits if value < 10000 else 0}f}"


def rows(scenario, got):
    """Return a scenario's title and figures, with one line for each kernel."""
    text = scenario.title + "\n"
    for kernel, f in got.items():
        ratio = "" if kernel == "base" else f"  x {f['instructions'] / got['base']['instructions']:.3f}"
        text += (f"  {kernel:19}{count(f['flush_asid'], 2):>7}{count(f['flush_all'], 3):>7}{count(f['walks'], 2):>9}{count(f['reloads'], 2):>8}"
                 f"{f['instructions']:11.0f}{ratio}\n")
        if scenario.linux:
            text += f"    VMRUNs {count(f['vmrun'], 2)}, IPIs of L0 {count(f['ipis'], 2)}, of its guest to flush TLBs {count(f['guest_ipis'], 2)}\n"
    return text


def indented(text):
    return "".join("  " + l for l in text.splitlines(True))


def scenarios_of(command):
    return command.replace("\\\n", " ").split()


def readme_rows(recorded):
    """Return the rows of README's table, for docs/numbers.md's rows of each title; none if scenarios are missing."""
    if not all(t in recorded for t in README_TITLES):
        return {}
    got = [{l.split()[0]: l.split() for l in recorded[t].splitlines()} for t in README_TITLES]
    row = {"base": [g["base"][3] for g in got], "series": [g["series"][3] for g in got],
           "L0's instructions, series : base": [f"{float(g['series'][-1]):.2f}" for g in got]}
    return {name: f"| {name} | {' | '.join(values)} |" for name, values in row.items()}


def read_recorded():
    with open(NUMBERS, encoding="utf-8") as f:
        return dict(ROWS.findall(f.read().partition("```\n")[2].removeprefix(HEADER)))


def write(scenarios, figures):
    """Write docs/numbers.md and the tables in the cover letters and in README.md."""
    by_name = {s.name: rows(s, figures[s.name]) for s in scenarios}
    with open(NUMBERS, "w", encoding="utf-8") as f:
        f.write(INTRO + "```\n" + HEADER + "".join(by_name.values()) + "```\n")
    for letter, names, _ in tables():
        for n in names:
            if n not in by_name:
                die(f"{letter}: there is no scenario {n}: correct the line scripts/bench {names[0]}")
    for path in glob.glob(LETTERS):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        new = TABLE.sub(lambda m: f"  scripts/bench {m[1]}\n" + indented(HEADER + "".join(by_name[n] for n in scenarios_of(m[1]))), text)
        if new != text:
            with open(path, "w", encoding="utf-8") as f:
                f.write(new)
    with open(README, encoding="utf-8") as f:
        text = f.read()
    for name, row in readme_rows(read_recorded()).items():
        text = re.sub(rf"(?m)^\| {re.escape(name)} \|.*", lambda m, row=row: row, text)
    with open(README, "w", encoding="utf-8") as f:
        f.write(text)


ROWS = re.compile(r"^(\S[^\n]*)\n((?:  [^\n]*\n)+)", re.M)


def tables():
    """Yield the cover letter, the scenarios and the text of each table."""
    for path in sorted(glob.glob(LETTERS)):
        with open(path, encoding="utf-8") as f:
            for command, table in TABLE.findall(f.read()):
                yield os.path.relpath(path, TOP), scenarios_of(command), re.sub(r"^  ", "", table, flags=re.M).removeprefix(HEADER)


def main():
    bad, recorded = [], None
    if os.path.exists(NUMBERS):
        with open(README, encoding="utf-8") as f:
            text = f.read()
        bad += [f"README.md: the row \"{name}\" differs from docs/numbers.md" for name, row in readme_rows(read_recorded()).items() if row + "\n" not in text]
    for letter, scenarios, table in tables():
        if recorded is None:
            recorded = read_recorded()
        shown = dict(ROWS.findall(table))
        bad += [f"{letter}: \"{title}\" differs from docs/numbers.md" for title, got in shown.items() if recorded.get(title) != got]
        if len(shown) != len(scenarios):
            bad.append(f"{letter}: the table below scripts/bench {scenarios[0]} has {len(shown)} scenarios of {len(scenarios)}")
    print("".join(b + ": run scripts/bench --record\n" for b in bad), end="")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as e:
        die(f"{e.filename}: {e.strerror}: run scripts/bench --record")
