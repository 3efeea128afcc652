#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Read failures from KTAP and from the output of selftests, and write the results of this project as KTAP.

tap.py FILE: print each failed case in a KTAP file with its messages.
tap.py --count FILE: print the numbers of passed, failed and skipped tests.
tap.py --join OUT NAME=FILE...: join the files, each as a test with subtests; NAME without FILE is a test that passed, NAME=! one that failed.
tap.py --write OUT: write results from standard input, one a line: pass, fail or skip, a tab, the name, and, after a tab, the reason.
"""
import os
import re
import sys

# Lines that a selftest prints besides the reason of a failure.
NOISE = re.compile(r"\s*(pid=\d+ tid=\d+ .*|\d+\t0x.*|\?\? .*|.*addr2line.*|\(stack trace empty\)|Random seed: .*|RIG_SEED=.*|(K?TAP) version \d+|\d+\.\.\d+|"
                   r"# Starting \d+ tests.*|# \S+: Test (failed|terminated by assertion)|# Totals: .*|(not )?ok \d+ .*|# (FAILED|PASSED): .*)?\s*")
ASSERT = "==== Test Assertion Failure ===="


def result(line):
    """Parse the result of a test, as TAP and KTAP have it.  Returns (indentation, outcome, name, text after # or None), or None; outcome is
    pass, fail or skip."""
    m = re.match(r"(\s*)(not )?ok \d+ (?:- )?(.*?)(?:\s*# ?(SKIP ?)?(.*))?$", line)
    return m and (len(m[1]), "fail" if m[2] else "skip" if m[4] else "pass", m[3], m[5])


def message(said):
    """Return the lines with the reason: the first failed assertion, of the guest or the program, or else the last lines."""
    first = next((i for i, l in enumerate(said) if ASSERT in l), None)
    lines = [l.strip() for l in said[first or 0:] if ASSERT not in l and not NOISE.fullmatch(l)]
    return lines[:12] if first is not None else lines[-8:]


def failed_cases(lines):
    """Return (case, lines of its message) for each case in a selftest's output that failed or did not end.  If there is none, return the whole
    program as a case named ""."""
    failed, case, said = [], "", []
    for line in lines:
        begin = re.match(r"#\s+RUN\s+(\S+) \.\.\.", line)
        end = re.match(r"#\s+(OK|FAIL)\s+(\S+)\s*$", line)
        if begin:
            # Drop the output before the first case.
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
    """The same for KTAP with subtests, as KUnit writes it: the messages of a case are the comments before its result."""
    failed, said = [], []
    for line in lines:
        got = result(line)
        if got and got[0] and got[1] == "fail":
            failed.append((got[2], [re.sub(r"^# ?", "", l.strip()) for l in said]))
        if got or re.match(r"\s*1\.\.\d", line):
            said = []
        elif re.match(r"\s*#", line):
            said.append(line)
        elif said and line.strip():
            said.append(line)
    return failed


def write(path, results):
    """results: (name, outcome, lines with the reason); outcome is pass, fail or skip."""
    text = f"KTAP version 1\n1..{len(results)}\n"
    for n, (name, outcome, why) in enumerate(results, 1):
        why = [l for line in why for l in str(line).splitlines()]
        name = name.replace("#", "")
        if outcome == "skip":
            text += f"ok {n} {name} # SKIP {' '.join(why)}\n"
        else:
            text += "".join(f"# {l}\n" for l in why) + f"{'not ' * (outcome != 'pass')}ok {n} {name}\n"
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".new", path)


def count(lines):
    """Return the numbers of passed, failed and skipped results, without those that have subtests."""
    outcomes, deeper = {"pass": 0, "fail": 0, "skip": 0}, 0
    for line in lines:
        got = result(line)
        if got and got[0] >= deeper:
            outcomes[got[1]] += 1
        if got:
            deeper = got[0]
    return list(outcomes.values())


def join(out, parts):
    text = f"KTAP version 1\n1..{len(parts)}\n"
    for n, part in enumerate(parts, 1):
        name, _, path = part.partition("=")
        bad = path == "!"
        if path and not bad:
            with open(path, encoding="utf-8", errors="replace") as f:
                lines = f.read().splitlines()
            bad = any(result(l) and result(l)[:2] == (0, "fail") for l in lines)
            text += "".join(f"  {l}\n" for l in lines)
        text += f"{'not ' * bad}ok {n} {name}\n"
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)


def one_line(failed, most=300):
    """Return the first failed case with its message and the names of the other ones, as one line."""
    case, said = failed[0]
    text = (f"{case}: " if case else "") + ": ".join(said)
    others = [c for c, _ in failed[1:]]
    if len(text) > most:
        text = text[:most - 3] + "..."
    return text + (f" (and {', '.join(others)})" if others else "")


def main():
    if sys.argv[1] == "--join":
        return join(sys.argv[2], sys.argv[3:])
    if sys.argv[1] == "--write":
        results = [l.rstrip("\n").split("\t") for l in sys.stdin]
        return write(sys.argv[2], [(name, outcome, why) for outcome, name, *why in results])
    if sys.argv[1] == "--count":
        with open(sys.argv[2], encoding="utf-8", errors="replace") as f:
            print(*count(f.read().splitlines()))
        return 0
    with open(sys.argv[1], encoding="utf-8", errors="replace") as f:
        failed = failed_ktap(f.read().splitlines())
    for case, said in failed:
        print(f"FAIL: {case}")
        for line in said:
            print(f"    {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
