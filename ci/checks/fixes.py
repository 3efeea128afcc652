#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""fixes.py [--report NUMBER]: verify that docs/qemu-fixes.md and ci/qemu/fixes name each other correctly; called by scripts/check.

Each patch must have a section, in order, with its number and subject.  Each section must name a rule of the manual, the tests in
ci/qemu/rules/fixes.c that show the bug, the commit that introduced it (the same as in the patch's Fixes: line), and have the text of a
report.  Each of these tests must belong to a section.  Prints one line for each mistake.  Exit status 0: there are no mistakes.
--report NUMBER: print the report of a patch, with the steps.
"""
import glob
import os
import re
import sys

from names import TOP, give_up, mistake, mistakes, read, subject

PAGE = "docs/qemu-fixes.md"
TESTS = "ci/qemu/rules/fixes.c"
SHARED = "What all reports share"
PARTS = ("Title", "Expected", "Observed", "Analysis")


def patches():
    """Map the number of each patch to its path, its subject, and the commit of its Fixes: line, or "not known"."""
    found = {}
    for path in sorted(glob.glob(os.path.join(TOP, "ci/qemu/fixes/*.patch"))):
        path = os.path.relpath(path, TOP)
        header = read(path).partition("\n---\n")[0]
        fixes = re.search(r'^Fixes: ([0-9a-f]{12}) \(".+"\)$', header, re.M)
        commit = fixes[1] if fixes else "not known"
        if re.search("^Fixes:", header, re.M) and not fixes:
            mistake(path, 'its Fixes: line is malformed: write Fixes: and 12 digits of the commit, and ("its subject")')
            commit = None
        found[os.path.basename(path)[:4]] = (path, subject(header).removeprefix("target/i386: "), commit)
    return found


def sections():
    """Map the title of each section to its line number, its fields, and its report."""
    found, fields, name, report = {}, None, None, None
    for n, line in enumerate(read(PAGE).splitlines(), 1):
        if line.startswith("```"):
            report = None if report is not None or fields is None else fields.setdefault("report", [])
        elif report is not None:
            report.append(line)
        elif line.startswith("## "):
            fields, name = {}, None
            if line[3:] in found:
                mistake(f"{PAGE}:{n}", f'the section "{line[3:]}" appears twice: remove one')
            found[line[3:]] = (n, fields)
        elif fields is not None and line.startswith("- "):
            name, _, text = line[2:].partition(":")
            fields[name] = text
        elif fields is not None and line.strip():
            name = name or "symptom"
            fields[name] = fields.get(name, "") + " " + line
    return found


def names(text):
    return re.findall(r"`([^`]*)`", text)


def tests_of(fields):
    """The first sentence of the field names the tests."""
    return names(fields.get("Test", "").partition(". ")[0])


def report(number, found):
    for title, (_, fields) in found.items():
        if title.startswith(number + ": "):
            break
    else:
        give_up(f"there is no fix {number}: use a number from 0001 on, see {PAGE}")
    title, *text = fields.get("report", [""])
    shared = "\n".join(found.get(SHARED, (0, {}))[1].get("report", []))
    shared = shared.replace("TEST", (tests_of(fields) or ["TEST"])[0])
    print(title, "", shared.replace("OPTIONS", (names(fields.get("Options", "")) or ["-accel tcg"])[0]), "", *text, sep="\n")


def check(known, found):
    tests = set(re.findall(r'^\t\t\{ "([\w-]+)", \w+, \w+ \},$', read(TESTS), re.M))
    shown = set()
    if not found.get(SHARED, (0, {}))[1].get("report"):
        mistake(PAGE, f'has no section "## {SHARED}" with a block of text: git checkout {PAGE}')
    expected = [f"{number}: {subject}" for number, (_, subject, _) in known.items()]
    for title in expected:
        if title not in found:
            mistake(known[title[:4]][0], f'has no section in {PAGE}: add "## {title}", with what shows the bug')
    order = [t for t in found if t in expected]
    if order != sorted(order):
        mistake(PAGE, "the sections are not in the order of the patches: sort them")
    for title, (n, fields) in found.items():
        where = f"{PAGE}:{n}"
        if title == SHARED:
            continue
        if title not in expected:
            mistake(where, f'no patch in ci/qemu/fixes has the number and subject "{title}": write those of the patch, or remove the section')
            continue
        for field in ("symptom", "Rule", "Since"):
            if not fields.get(field, "").strip():
                mistake(where, "does not say what a guest sees: add a paragraph" if field == "symptom" else f"has no field {field}: add a line - {field}:")
        for name in fields:
            if name not in ("symptom", "Rule", "Test", "Options", "Since", "report"):
                mistake(where, f'"{name}" is not a field: use Rule, Test, Options or Since')
        named = tests_of(fields)
        if not named:
            mistake(where, f"names no test: add - Test: and the name of a test of {TESTS} in backquotes")
        for test in named:
            if test not in tests:
                mistake(where, f"there is no test {test} in {TESTS}: correct its name")
        shown.update(named)
        since = known[title[:4]][2]
        if since and fields.get("Since", "").strip() not in ("", since):
            mistake(where, f'Since: is not "{since}", as the Fixes: line of {known[title[:4]][0]} says: make them the same')
        text = "\n".join(fields.get("report", []))
        for part in PARTS:
            if not re.search(rf"(?m)^{part}\b.*:", text):
                mistake(where, f"the report has no line {part}: add it")
    for test in sorted(tests - shown):
        mistake(TESTS, f"no section of {PAGE} names the test {test}: name it where the patch is described, or remove it")


def main():
    arguments = sys.argv[1:]
    if arguments and (len(arguments) != 2 or arguments[0] != "--report"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    known, found = patches(), sections()
    if arguments:
        report(arguments[1].zfill(4), found)
        return 0
    if not known:
        give_up("ci/qemu/fixes has no patches: git checkout ci/qemu/fixes")
    check(known, found)
    if mistakes:
        sys.exit("\n".join(mistakes))
    print(f"fixes: {len(known)} patches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
