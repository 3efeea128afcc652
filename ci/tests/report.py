# SPDX-License-Identifier: GPL-2.0-only
"""The results of ci/tests/matrix.py: the tables that it prints, selftests.tsv, and KTAP."""
import collections
import os

import machine
import tap
from guest import TOP
from rows import LEVELS, VMX

Key = collections.namedtuple("Key", "kernel level pcpus name")
PASSED = ("pass", "slow")
# outcome: one of PASSED, skip or fail; slow: passed, but not within its limit.  failed: the failed cases with their messages, as returned by failed_cases() of ci/lib/tap.py.
Result = collections.namedtuple("Result", "outcome seconds note tlb failed", defaults=(None, ()))
# Counters of the TLB model that go into the TSV, with the names of ci/guest/svm-tlb.c.  walks: page walks of an unbounded TLB.
COUNTERS = ("vmrun", "walks", "flush_all", "flush_asid", "flush_local", "invlpga", "stale", "stale_rights")
# The note of a test that passed only when it was retried begins with this.
FIRST = "failed before: "


def write_tsv(out, tests, results):
    with open(os.path.join(out, "selftests.tsv.new"), "w", encoding="utf-8") as f:
        f.write("\t".join(("test", "level", "pcpus", "kernel", "outcome", "seconds") + COUNTERS + ("cases", "note")) + "\n")
        for t in tests:
            for k in sorted(k for k in results if k.name == t.name and k.level in t.levels):
                r = results[k]
                counts = [str(r.tlb[c]) if r.tlb else "" for c in COUNTERS]
                f.write("\t".join([t.name, LEVELS[k.level].lstrip("L"), str(k.pcpus), k.kernel, r.outcome, f"{r.seconds:.1f}"] + counts +
                                  [", ".join(c for c, _ in r.failed if c), r.note.replace("\t", " ")]) + "\n")
    os.rename(os.path.join(out, "selftests.tsv.new"), os.path.join(out, "selftests.tsv"))


CELL = {"pass": "pass", "skip": "skip", "fail": "FAIL", "slow": "slow"}


def cell(results, kernel, level, name, all_pcpus):
    """Return the outcome of a test, with the number of pCPUs if outcomes differ."""
    got = {p: results.get(Key(kernel, level, p, name)) for p in all_pcpus}
    got = {p: r for p, r in got.items() if r}
    if not got:
        return "-"
    kinds = {r.outcome for r in got.values()}
    if len(kinds) == 1:
        return CELL[kinds.pop()]
    return " ".join(f"{CELL[r.outcome]}@{p}" for p, r in sorted(got.items()))


def table(tests, levels, images, results):
    if not tests:
        return
    width = max(len(t.name) for t in tests)
    columns = [(k, l) for l in levels for k in images if any(l in t.levels for t in tests)]
    print(f"{'test':{width}}  {'pCPUs':7}" + "".join(f"  {LEVELS[l] + ' ' + k:13}" for k, l in columns).rstrip())
    for t in tests:
        cells = [cell(results, k, l, t.name, t.pcpus.get(l, ())) for k, l in columns]
        print(f"{t.name:{width}}  {' '.join(','.join(map(str, p)) for p in t.pcpus.values()):7}" + "".join(f"  {c:13}" for c in cells).rstrip())


def report(out, tests, images, results, known, seconds):
    """Print the tables and what is wrong, and write out.ktap.  Returns the exit status.  seconds: how long the run took."""
    for levels in ((0, 1), (VMX,)):
        table([t for t in tests if set(levels) & set(t.levels)], levels, images, results)

    bad, expected, skips, cured = [], [], collections.defaultdict(set), set()
    for k, r in sorted(results.items()):
        if r.outcome == "skip":
            skips[k.name, r.note].add(LEVELS[k.level])
        elif r.outcome == "fail":
            listed = known.get((k.level, k.name))
            base = results.get(k._replace(kernel="base"))
            if k.kernel == "base" and listed:
                expected.append((k, listed))
            elif k.kernel == "series" and listed and not listed.startswith("fixed:") and \
                    (base is None or base.outcome == "fail") or k.kernel == "tree" and listed:
                expected.append((k, listed))
            else:
                bad.append((k, r, "the base passes" if k.kernel == "series" and base and base.outcome != "fail" else
                            "fixed by the series according to ci/tests/known-failures" if listed else "not in ci/tests/known-failures"))
        elif k.kernel == "base" and r.outcome in PASSED and (k.level, k.name) in known:
            cured.add((k.level, k.name))
    if skips:
        print("skipped:")
        for (name, note), levels in sorted(skips.items()):
            print(f"  {name} ({' '.join(sorted(levels))}): {note or 'no reason given'}")
    if expected:
        print("known failures of the base (ci/tests/known-failures):")
        for level, name in sorted({(k.level, k.name) for k, _ in expected}):
            print(f"  {LEVELS[level]} {name}: {known[level, name]}")
    again = [(k, r) for k, r in sorted(results.items()) if r.outcome in PASSED and r.note.startswith(FIRST)]
    if again:
        print("flakes of the base (failed, then passed when retried):")
        for k, r in again:
            print(f"  {LEVELS[k.level]} {k.pcpus} pCPU {k.name}: {r.note[len(FIRST):]}")
    for level, name in sorted(cured):
        print(f"listed in ci/tests/known-failures, but the base passes: {LEVELS[level]} {name}")
    for k, r, why in bad:
        print(f"FAIL: {k.kernel} {LEVELS[k.level]} {k.pcpus} pCPU {k.name}: {r.note} ({why})")
        for case, said in r.failed:
            for line in [case + ":"] * bool(case) + said:
                print("    " + line)
    slow = [(k, r) for k, r in sorted(results.items()) if r.outcome == "slow" and not r.note.startswith(FIRST)]
    if slow:
        print("passed, but slower than the limit in the list, even allowing for this machine's speed and load:")
        for k, r in slow:
            print(f"  {k.kernel} {LEVELS[k.level]} {k.pcpus} pCPU {k.name}: {r.note}")
    print(f"logs: {os.path.relpath(os.path.join(out, 'log'), TOP)}")
    for kernel in images:
        got = collections.Counter(r.outcome for k, r in results.items() if k.kernel == kernel)
        print(f"{kernel}: {got['pass'] + got['slow']} pass, {got['fail']} fail, {got['skip']} skip")
    print(f"selftests: {len(results)} runs in {seconds:.0f} s{machine.hung()}, {os.path.relpath(out, TOP)}/selftests.tsv")
    failed = {k: (r, why) for k, r, why in bad}
    listed = dict(expected)

    def line(key, r):
        name = f"{key.kernel} {LEVELS[key.level]} {key.pcpus} pCPU {key.name}"
        if key in listed:
            return name, "skip", [f"known failure: {listed[key]}"]
        return name, "pass" if r.outcome in PASSED else r.outcome, [r.note, *(l for case, said in r.failed for l in [case, *said] if l)] if key in failed else [r.note] if r.note else []
    tap.write(out.rstrip("/") + ".ktap", [line(k, r) for k, r in sorted(results.items())])
    return 1 if bad else 0
