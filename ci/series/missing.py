#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""missing.py KDIR [PART]: print the patches of the parts that KDIR lacks, up to PART; called by scripts/apply, with the output of in_parts as input.

Prints a line "# ..." for each part that KDIR has: all of its patches are among the last COMMITS commits, with the same subject and patch-id.
"""
import collections
import os
import subprocess
import sys

from guest import TOP
from parts import HEADING, subject_of

COMMITS = 10000


def git(*args, **more):
    return subprocess.run(["git", *args], stdout=subprocess.PIPE, check=True, **more).stdout


def patch_id(diff):
    return git("patch-id", "--stable", input=diff).split()[:1]


def main():
    kdir, to = sys.argv[1], sys.argv[2]
    patches_of, part = collections.defaultdict(list), None
    for line in sys.stdin.read().splitlines():
        heading = HEADING.match(line)
        if heading and part and part == to:
            break
        if heading:
            part = heading[1]
        else:
            patches_of[part].append(line)

    commits = collections.defaultdict(list)
    log = git("-C", kdir, "-c", "log.showSignature=false", "-c", "i18n.logOutputEncoding=UTF-8", "log", f"-n{COMMITS}", "--no-color",
              "--format=%H %s").decode(errors="replace")
    for line in log.splitlines():
        commit, _, subject = line.partition(" ")
        commits[subject].append(commit)

    def is_there(patch):
        path = os.path.join(TOP, patch)
        same = commits.get(subject_of(path))
        if not same:
            return False
        with open(path, "rb") as f:
            want = patch_id(f.read())
        return any(patch_id(git("-C", kdir, "diff-tree", "-p", "-M", c)) == want for c in same)

    for part, patches in patches_of.items():
        if all(is_there(p) for p in patches):
            print(f"# {kdir} has part {part}: {len(patches)} patches")
        else:
            print("\n".join(patches))


if __name__ == "__main__":
    main()
