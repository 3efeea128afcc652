#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""figures.py: check that the tables in docs/cover-letters have the figures of docs/numbers.md; scripts/bench --record writes both.

A table in a cover letter begins below the command that measures it, "  scripts/bench SCENARIO...", and ends at the next empty line.
A sentence about the L1s of scripts/test foreign must have the figures of docs/l1-hypervisors.md, and one about instructions those of docs/numbers.md.
"""
import glob
import itertools
import os
import re
import sys

from guest import TOP, die

NUMBERS = os.path.join(TOP, "docs/numbers.md")
README = os.path.join(TOP, "README.md")
README_TITLES = ("L2, 16 pages", "2 L2s, 16 pages", "4 L2s, 16 pages", "8 L2s, 16 pages", "16 L2s, 16 pages")
LETTERS = os.path.join(TOP, "docs/cover-letters/*.txt")
L1S = os.path.join(TOP, "docs/l1-hypervisors.md")
# The sentence about L1s: how many cases there are, and between which ratios to the base their page walks are.
L1S_SENTENCE = re.compile(r"as L1, in (\S+) settings.*?no wrong word, and (\S+) to (\S+) of the base's page walks")
L1S_ROWS = re.compile(r"^(\S[^\n]*)\n  base +(\d[\d ]*)\n  series +(\d[\d ]*?)  x", re.M)
# The sentences about the instructions of flushes, series to base, and what they are about.
REMOTE_SENTENCES = {"remote flush, 8 vCPUs run": re.compile(r"With 8 running vCPUs, it takes (\S+) of the instructions"),
                    "a Linux guest with 4 vCPUs flushes their TLBs": re.compile(r"shootdown by a Linux guest with 4 vCPUs,.*? takes (\S+) of them")}
TABLE = re.compile(r"^  scripts/bench ((?:[^\n]*\\\n)*[^\n]*)\n((?:  [^\n]*\n)*)", re.M)
HEADER = """\
                        TLB flushes     page    VMCB       L0's
                        ASID    all    walks reloads     instr.
"""
# Where Linux runs in L2, how often it exits says more than how VMCBs are loaded.
LINUX_HEADER = """\
                        TLB flushes     page              all
                        ASID    all    walks  VMRUNs     instr.
"""
# A flush of other processors' TLBs: who has to be interrupted for it
REMOTE_HEADER = """\
                                 IPIs of     page
                      VMRUNs     L0  guest  walks     instr.
"""
# The machine with VMX has no VMCBs.
VMX_HEADER = """\
                     INVVPID INVEPT     page        all
                                       walks     instr.
"""
INTRO = """\
# What a turn costs, base against series

Written by `scripts/bench --record`; each of the two tables is from one run. `scripts/bench SCENARIO` measures a scenario again. A turn is one turn of
a vCPU on a pCPU or, in scenarios with an L2, one round trip from L1 to L2 and back.

- TLB flushes, of one ASID and of all of them, and page walks are exact counts of the TLB model, which keeps each entry as long as the
  architecture allows. Real TLBs are smaller, so the base loses less by flushing.
- VMCB reloads are groups of VMCB fields that the CPU has to load because KVM does not mark them clean.
- Instructions are L0's, counted by QEMU's icount. x is their ratio to the base's.
- Where Linux runs in L2 or L3, instructions are those of all levels, a turn is what the title says, and no count is exact: timer interrupts are
  among them, and no two boots are the same. VMRUNs are L0's, as often as L1 and its guests exit.
- A remote flush, or a Linux guest's flush of its TLBs, is what one processor asks the others for. VMRUNs and IPIs are those of all processors: how often
  vCPUs have to exit and to enter again for it, how many interrupts L0 sends, and how many the guest sends. Instructions are those of all processors until
  the flush is complete, the guest's included if it is the guest that flushes.
- `part-nested` is the series up to the end of part nested, without contexts. `one-vmcb12` has the patches of part contexts up to the one that
  leaves out chunks of the MSR bitmap, and a single context per vCPU. `private-lru` has all patches before the table of contexts, so each vCPU has
  up to eight contexts and roots that are its own (`ci/bench/kernels`).
- `switch` is the series in a kernel that also contains the variants below it, which costs some instructions: compare variants with it.
- `nested_tlb_max_age` is an hour unless the title says otherwise, so that the counts are the same in each run. The default is 10 ms.

"""
VMX_INTRO = """\

# The same on VMX

Measured on the machine with VMX (`docs/bochs.md`). The instructions are those of L0, L1 and L2. With more than one L2, L1 executes VMPTRLD before
each VM-Enter, and each L2 has an EPT and a VPID of its own. Each of L1's VMCSs has an MSR bitmap.

"""


def count(value, digits):
    """Format a count: a negative one is noise and becomes zero, a large one gets no decimals."""
    return f"{max(0, value):.{digits if value < 10000 else 0}f}"


def kind(scenario):
    """Return what sort of rows a scenario has."""
    return "remote" if scenario.remote else scenario.machine if scenario.command else "linux"


def rows(scenario, got):
    """Return a scenario's title and figures, with one line for each kernel."""
    text = scenario.title + "\n"
    for kernel, f in got.items():
        ratio = "" if kernel == "base" else f"  x {f['instructions'] / got['base']['instructions']:.3f}"
        if scenario.remote:
            guest = "" if scenario.command else count(f["guest_ipis"], 2)
            text += f"  {kernel:19}{count(f['vmrun'], 2):>7}{count(f['ipis'], 2):>7}{guest:>7}{count(f['walks'], 2):>7}{f['instructions']:11.0f}{ratio}\n"
            continue
        last = {"vmx": None, "linux": "vmrun", "tcg": "reloads"}[kind(scenario)]
        text += (f"  {kernel:19}{count(f['flush_asid'], 2):>7}{count(f['flush_all'], 3 if last else 2):>7}{count(f['walks'], 2):>9}"
                 f"{count(f[last], 2).rjust(8) if last else ''}{f['instructions']:11.0f}{ratio}\n")
    return text


HEADERS = {"vmx": VMX_HEADER, "linux": LINUX_HEADER, "tcg": HEADER, "remote": REMOTE_HEADER}


def without_headers(text):
    for h in HEADERS.values():
        text = text.replace(h, "")
    return text


def table(scenarios, by_name):
    """Return the rows of these scenarios, in that order, with a header for each kind."""
    return "".join(HEADERS[k] + "".join(by_name[s.name] for s in mine) for k, mine in itertools.groupby(scenarios, kind))


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
        return dict(ROWS.findall(without_headers("".join(f.read().split("```\n")[1::2]))))


def write(scenarios, figures):
    """Write docs/numbers.md and the tables in the cover letters and in README.md.  Scenarios without figures keep the rows that they have."""
    old = read_recorded() if os.path.exists(NUMBERS) else {}
    by_name = {s.name: rows(s, figures[s.name]) if s.name in figures else s.title + "\n" + old[s.title] for s in scenarios
               if s.name in figures or s.title in old}
    shown = {s.name: s for s in scenarios if s.name in by_name}
    by_machine = {m: [s for s in shown.values() if s.machine == m] for m in ("tcg", "vmx")}
    with open(NUMBERS, "w", encoding="utf-8") as f:
        for m, intro in (("tcg", INTRO), ("vmx", VMX_INTRO)):
            if by_machine[m]:
                f.write(intro + "```\n" + table(by_machine[m], by_name) + "```\n")
    for letter, names, _ in tables():
        for n in names:
            if n not in by_name:
                die(f"{letter}: there is no scenario {n}: correct the line scripts/bench {names[0]}")
    for path in glob.glob(LETTERS):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        new = TABLE.sub(lambda m: f"  scripts/bench {m[1]}\n" + indented(table([shown[n] for n in scenarios_of(m[1])], by_name)), text)
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
            for command, text in TABLE.findall(f.read()):
                yield os.path.relpath(path, TOP), scenarios_of(command), without_headers(re.sub(r"^  ", "", text, flags=re.M))


def l1s():
    """Return the number of cases in the table of docs/l1-hypervisors.md, and the least and the greatest ratio of page walks, series to base."""
    with open(L1S, encoding="utf-8") as f:
        rows = [[int(r.split()[4]) for r in kernels] for _, *kernels in L1S_ROWS.findall(f.read())]
    ratios = [series / max(1, base) for base, series in rows] or [0]
    return str(len(rows)), f"{min(ratios):.2f}", f"{max(ratios):.2f}"


def ratio(title):
    """Return the ratio of instructions, series to base, in docs/numbers.md, with two digits; empty without one."""
    words = read_recorded().get(title, "").split()
    return f"{float(words[-1]):.2f}" if words else ""


def wrong_sentences():
    """Yield a message for each sentence of a cover letter that has other figures than docs/l1-hypervisors.md or docs/numbers.md."""
    for path in sorted(glob.glob(LETTERS)):
        letter = os.path.relpath(path, TOP)
        with open(path, encoding="utf-8") as f:
            text = " ".join(f.read().split())
        said = L1S_SENTENCE.search(text)
        if said and said.groups() != l1s():
            yield (f"{letter}: in {said[1]} settings, {said[2]} to {said[3]} of the page walks: docs/l1-hypervisors.md has "
                   "{} settings, {} to {}: correct the sentence\n".format(*l1s()))
        for title, sentence in REMOTE_SENTENCES.items():
            said = sentence.search(text)
            if said and said[1] != ratio(title):
                yield f"{letter}: {said[0]}: docs/numbers.md has {ratio(title)}: correct the sentence\n"


def main():
    bad, recorded = [], None
    if os.path.exists(NUMBERS):
        with open(README, encoding="utf-8") as f:
            text = f.read()
        bad += [f"README.md: the row \"{name}\" differs from docs/numbers.md" for name, row in readme_rows(read_recorded()).items() if row + "\n" not in text]
    for letter, scenarios, text in tables():
        if recorded is None:
            recorded = read_recorded()
        shown = dict(ROWS.findall(text))
        bad += [f"{letter}: \"{title}\" differs from docs/numbers.md" for title, got in shown.items() if recorded.get(title) != got]
        if len(shown) != len(scenarios):
            bad.append(f"{letter}: the table below scripts/bench {scenarios[0]} has {len(shown)} scenarios of {len(scenarios)}")
    bad = [b + ": run scripts/bench --record\n" for b in bad] + list(wrong_sentences())
    print("".join(bad), end="")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as e:
        die(f"{e.filename}: {e.strerror}: run scripts/bench --record")
