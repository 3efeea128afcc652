#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""tests.py SELFTESTS: the list for ci/bundle/run, from ci/tests/selftests.list, as far as the directory SELFTESTS has the programs.

Lines: program, seconds, parameters of kvm_amd with commas between them or -, arguments; or skip, what is not to be run, a colon, and why.
"""
import os
import sys

import matrix
from guest import TOP


def why_not(test):
    if test.cpu:
        return "needs the TLB model, whose processor has another number of ASIDs there"
    if "svm-tlb" in test.command:
        return "needs the TLB model, which counts"
    if "kvm." in test.params:
        return "changes parameters of kvm, which other guests share"
    return None


def main():
    print("# program seconds parameters-of-kvm_amd arguments")
    for t in matrix.read_list(os.path.join(TOP, "ci/tests/selftests.list")):
        program, _, arguments = t.command.partition(" ")
        if program == "env":
            # A seed is for the rig's programs, which are the same here.
            seed, program, *rest = arguments.split()
            assert seed.startswith("RIG_SEED="), t
            arguments = " ".join(rest)
        program = program.removeprefix("./")
        reason = why_not(t) or (None if os.path.exists(os.path.join(sys.argv[1], program)) else "is not among these selftests")
        print(f"skip {t.name}: {reason}" if reason else f"{program} {t.limit} {t.params} {arguments}".rstrip())


if __name__ == "__main__":
    main()
