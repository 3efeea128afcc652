#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""compare.py FILE FILE...: print KTAP files of ci/bundle/run as one table; called by scripts/compare."""
import os
import re
import sys

import tap
from guest import die


def read(path):
    """Return the lines about the machine, and a map from test to (outcome, reason)."""
    about, got = [], {}
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
    except OSError as e:
        die(f"{path}: {e.strerror}: name files that ./run of scripts/bundle wrote")
    if not lines or lines[0] != "KTAP version 1":
        die(f"{path} is not a KTAP file: name files that ./run of scripts/bundle wrote")
    for line in lines[1:]:
        r = tap.result(line)
        if r:
            got[r[2]] = ("FAIL" if r[1] == "fail" else r[1], r[3] or "")
        elif re.match("# (kernel|cpu|bundle): ", line):
            about.append(line[2:])
    plan = next((int(l[3:]) for l in lines if re.fullmatch(r"1\.\.\d+", l)), 0)
    if len(got) < plan:
        about.append(f"incomplete: {len(got)} of {plan} tests")
    return about, got


def main():
    files = [(chr(ord("A") + i), path, *read(path)) for i, path in enumerate(sys.argv[1:])]
    for letter, path, about, _ in files:
        print(f"{letter}: {os.path.basename(path)}" + "".join(f"\n   {a}" for a in about))
    tests = list(dict.fromkeys(t for *_, got in files for t in got))
    width = max(map(len, tests), default=4)
    print(f"\n{'test':{width}}  " + "  ".join(f"{letter:4}" for letter, *_ in files).rstrip())
    worse = []
    for t in tests:
        print(f"{t:{width}}  " + "  ".join(f"{got.get(t, ('-',))[0]:4}" for *_, got in files).rstrip())
        worse += [f"FAIL: {t}: {letter}: {got[t][1]}" for letter, _, _, got in files[1:]
                  if got.get(t, ("",))[0] == "FAIL" and files[0][3].get(t, ("",))[0] == "pass"]
    for line in worse:
        print(line)
    for letter, _, _, got in files:
        outcomes = [o for o, _ in got.values()]
        print(f"{letter}: " + ", ".join(f"{outcomes.count(o)} {o.lower()}" for o in ("pass", "FAIL", "skip")))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
