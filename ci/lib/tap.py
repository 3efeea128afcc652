#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""tap.py FILE: print what failed in a KTAP file, case by case, each with its messages; ci/tests/matrix.py does so with the output of selftests."""
import re
import sys

# What a selftest prints besides the reason.
NOISE = re.compile(r"\s*(pid=\d+ tid=\d+ .*|\d+\t0x.*|\?\? .*|.*addr2line.*|\(stack trace empty\)|Random seed: .*|RIG_SEED=.*|(K?TAP) version \d+|\d+\.\.\d+|"
                   r"# Starting \d+ tests.*|# \S+: Test (failed|terminated by assertion)|# Totals: .*|(not )?ok \d+ .*|# (FAILED|PASSED): .*)?\s*")
ASSERT = "==== Test Assertion Failure ===="


def message(said):
    """The lines that say why: the first assertion that failed, as the guest or the program reports it, or else the last lines."""
    first = next((i for i, l in enumerate(said) if ASSERT in l), None)
    lines = [l.strip() for l in said[first or 0:] if ASSERT not in l and not NOISE.fullmatch(l)]
    return lines[:12] if first is not None else lines[-8:]


def failed_cases(lines):
    """(case, lines of its message) of each that failed, or did not end, in a selftest's output; without cases, the program is one, ""."""
    failed, case, said = [], "", []
    for line in lines:
        begin = re.match(r"#\s+RUN\s+(\S+) \.\.\.", line)
        end = re.match(r"#\s+(OK|FAIL)\s+(\S+)\s*$", line)
        if begin:
            # What a program says before its first case is no case's.
            case, said = begin[1], []
        elif end and end[2] == case:
            if end[1] == "FAIL":
                failed.append((case, message(said)))
            case, said = "", []
        else:
            said.append(line)
    if case:
        failed.append((case, message(said) + ["it did not end"]))
    return failed or [("", message(said))]


def failed_ktap(lines):
    """The same for KTAP with subtests, as KUnit writes it: a case's messages are the comments before its result."""
    failed, said = [], []
    for line in lines:
        m = re.match(r"(\s*)(not )?ok \d+ (?:- )?(\S+)", line)
        if m and m[2] and m[1]:
            failed.append((m[3], [re.sub(r"^# ?", "", l.strip()) for l in said]))
        if m or re.match(r"\s*1\.\.\d", line):
            said = []
        elif re.match(r"\s*#", line):
            said.append(line)
        elif said and line.strip():
            said.append(line)
    return failed


def one_line(failed, most=300):
    """What failed, for a note: the first case with its message, and the names of the others."""
    case, said = failed[0]
    text = (f"{case}: " if case else "") + ": ".join(said)
    others = [c for c, _ in failed[1:]]
    if len(text) > most:
        text = text[:most - 3] + "..."
    return text + (f" (and {', '.join(others)})" if others else "")


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as f:
        failed = failed_ktap(f.read().splitlines())
    for case, said in failed:
        print(f"FAIL: {case}")
        for line in said:
            print(f"    {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
