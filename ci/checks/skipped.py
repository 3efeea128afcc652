#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""skipped.py TSV PROGRAMS: print each row that was skipped, with its reason; called by ci/checks/part.

Exit status 1: PROGRAMS is not empty, and no row of them passed.
"""
import csv
import os
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    own = {os.path.basename(p) for p in sys.argv[2].split(",") if p}
    passed = [r for r in rows if r["outcome"] == "pass" and own & {os.path.basename(w) for w in r["test"].split()}]
    for r in rows:
        if r["outcome"] == "skip":
            print(f"{r['test']} ({r['pcpus']} pCPU): {r['note'] or 'no reason given'}")
    if own and not passed:
        print(f"FAIL: no test of {', '.join(sorted(own))} passed: all were skipped, or ci/tests/selftests.list has no row of them for this kernel", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
