#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""tests.py SELFTESTS: print the list for ci/bundle/run, from the rows of ci/tests/selftests.list and the programs in the directory SELFTESTS.

A line has a program, seconds, parameters of kvm_amd (separated by commas, or -), and arguments; or "skip", a test, a colon, and the reason.
"""
import os
import sys

import rows
from guest import TOP


def why_not(test):
    if "kvm." in test.params:
        return "changes parameters of kvm, which other guests share"
    return rows.needs_model(test)


def main():
    print("# program seconds parameters-of-kvm_amd arguments")
    for t in rows.read_list(os.path.join(TOP, "ci/tests/selftests.list")):
        program, _, arguments = t.command.partition(" ")
        if program == "env":
            # Drop the seed: a line of the list has no place for it.
            seed, program, *rest = arguments.split()
            assert seed.startswith("RIG_SEED="), t
            arguments = " ".join(rest)
        program = program.removeprefix("./")
        reason = why_not(t) or (None if os.path.exists(os.path.join(sys.argv[1], program)) else "these selftests do not include it")
        print(f"skip {t.name}: {reason}" if reason else f"{program} {t.limit} {t.params} {arguments}".rstrip())


if __name__ == "__main__":
    main()
