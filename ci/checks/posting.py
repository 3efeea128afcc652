#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""posting.py: verify that docs/posting.md has a section for each kernel patch of part fixes; called by scripts/check.

The sections must have the patches' numbers and subjects, be in their order, and name each commit of their Fixes: lines, as must the table
of hashes.  Prints one line for each mistake.  Exit status 0: there are no mistakes.
"""
import itertools
import re
import sys

from names import mistake, mistakes, read, subject

PAGE = "docs/posting.md"


def main():
    if sys.argv[1:]:
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    part = re.search(r"^# part fixes\n((?:(?!# part ).*\n)*)", read("series"), re.M)
    patches = [p for p in (part[1].split() if part else []) if p.startswith("patches/")]
    page = read(PAGE)
    # The number, the subject and the text of each section.
    sections = re.findall(r"^### (\d+)\. (.*)\n((?:(?!##).*\n?)*)", page, re.M)
    table = " ".join(re.findall(r"^\| (.*?) \|", page, re.M))
    for n, (patch, section) in enumerate(itertools.zip_longest(patches, sections), 1):
        if not patch:
            mistake(PAGE, f'part fixes has no patch {n}: remove the section "{section[0]}. {section[1]}"')
            continue
        text = read(patch).partition("\n---\n")[0]
        title = f"{n}. {subject(text)}"
        if not section or f"{section[0]}. {section[1]}" != title:
            mistake(PAGE, f'section {n} is not "### {title}": part fixes has {patch} there')
            continue
        for commit in re.findall(r"^Fixes: (\w+) ", text, re.M):
            if commit not in section[2]:
                mistake(PAGE, f"section {n} does not name {commit}, which {patch} fixes: add it")
            if not re.search(rf"{commit} \((?:\d+, )*{n}[,)]", table):
                mistake(PAGE, f'the table of hashes has no "{commit} ({n})": add it')
    if mistakes:
        sys.exit("\n".join(mistakes))
    print(f"posting: {len(patches)} patches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
