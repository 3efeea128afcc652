#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""hazards.py: verify that docs/hazards.md and the rest of the project name each other correctly; called by scripts/check.

Each hazard lists the patches (by subject) that prevent it, the tests that show it, and the mutants that reintroduce it, or says why there
are none.  All these names must exist, and a hazard must name a mutant if and only if the "Hazard:" line of the mutant names the hazard.
Prints one line for each mistake.  Exit status 0: there are no mistakes.
"""
import glob
import os
import re
import sys

from names import TOP, give_up, mistake, mistakes, read, subject

PAGE = "docs/hazards.md"
FIELDS = {"Patches": "No patch", "Tests": "No test", "Mutants": "No mutant"}
# The macros with which KVM's selftests and KUnit define their cases.
CASE = re.compile(r"^\+\s*(?:KVM_ONE_VCPU_TEST|TEST|TEST_F|TEST_F_TIMEOUT|KUNIT_CASE|KUNIT_CASE_PARAM|KUNIT_CASE_SLOW)\(([^)]*)\)?", re.M)
FIXTURE = re.compile(r"^\+FIXTURE\((\w+)\)", re.M)


def paths(pattern):
    return sorted(os.path.relpath(p, TOP) for p in glob.glob(os.path.join(TOP, pattern)))


def subjects():
    """Subjects of the kernel patches."""
    return {subject(read(p)) for p in paths("patches/*.patch")} - {""}


def cases():
    """Map each selftest (named by its file) and each KUnit suite that the patches add to its cases."""
    found, fixtures_of, suites = {}, {}, {}
    for path in paths("selftests/*.patch") + paths("patches/*.patch"):
        for part in re.split(r"(?m)^diff --git .*\n", read(path))[1:]:
            m = re.search(r"^\+\+\+ b/(\S+)\.c$", part, re.M)
            if not m:
                continue
            name = os.path.basename(m[1])
            if path.startswith("patches/"):
                suite = re.search(r'^\+\t\.name = "([\w-]+)",$', part, re.M)
                if suite:
                    suites[name] = suite[1]
                if name not in suites or "KUNIT_CASE" not in part:
                    continue
                name = suites[name]
            mine = found.setdefault(name, set())
            # A patch may add cases to a program of an earlier patch.
            fixtures = fixtures_of.setdefault(name, set())
            fixtures.update(FIXTURE.findall(part))
            for words in CASE.findall(part):
                fixture, *case = [w.strip() for w in words.split(",")]
                # Leave out the fixture's name if the program has only one fixture.
                if path.startswith("patches/") or not case:
                    mine.add(fixture)
                elif len(fixtures) > 1:
                    mine.add(f"{fixture}.{case[0]}")
                else:
                    mine.add(case[0])
    return found


def programs():
    """The programs in the lists of scripts/run and of part l1, which include selftests that the series does not add."""
    return {os.path.basename(l.split()[0]) for part in ("", "-l1") for l in read(f"ci/tests/selftests{part}.list").splitlines()
            if l.strip() and not l.startswith("#")}


def scenarios():
    return set(re.findall(r"^\[([\w-]+)\]$", read("ci/bench/scenarios.toml"), re.M))


def mutants():
    """Map the name of each mutant to its path, its hazards, the programs that must detect it, and the cases.  The first patch is the switch."""
    found = {}
    for path in paths("ci/mutants/*.patch")[1:]:
        header = read(path).partition("\ndiff ")[0]
        m = re.search(r"^Hazard: *(.*)$", header, re.M)
        name = re.sub(r"^\d+-", "", os.path.basename(path)[:-len(".patch")])
        ids = [i.strip() for i in m[1].split(",")] if m else []
        if not ids or not all(re.fullmatch(r"[HC][1-9]\d*", i) for i in ids):
            mistake(path, f"names no hazard: add a line Hazard: H1 with an identifier of {PAGE}, or with several, separated by commas")
            ids = [i for i in ids if re.fullmatch(r"[HC][1-9]\d*", i)]
        tests = re.search(r"^Tests: *(.*)$", header, re.M)
        # These are patterns, such as svm_asid_tes[t]@1 or svm_nested_tlb_test*npt=0*@1.
        programs_of = {re.split(r"[*?@]", t.replace("[", "").replace("]", ""))[0] for t in (tests[1].split() if tests else ())}
        named = re.search(r"^Cases: *(.*)$", header, re.M)
        found[name] = (path, ids, programs_of, named[1].split() if named else [])
    return found


def hazards():
    """Map the identifier of each hazard to its line number and its fields."""
    found, fields, name = {}, None, None
    for n, line in enumerate(read(PAGE).splitlines(), 1):
        if line.startswith("#"):
            fields = name = None
        if line.startswith("### "):
            m = re.fullmatch(r"### ([HC][1-9]\d*): \S.*", line)
            if not m:
                mistake(f"{PAGE}:{n}", f'"{line}" is not a heading of a hazard: write ### H1: what goes wrong')
            elif m[1] in found:
                mistake(f"{PAGE}:{n}", f"{m[1]} appears twice: give one of them another number")
            else:
                fields = {}
                found[m[1]] = (n, fields)
        elif fields is None:
            continue
        elif line.startswith("- "):
            name, colon, text = line[2:].partition(":")
            if not colon or name not in {"Rule", *FIELDS, *FIELDS.values()}:
                mistake(f"{PAGE}:{n}", f'"{line[:40]}" is not a field of a hazard: use Rule, {", ".join(FIELDS)}, or {", ".join(FIELDS.values())}')
                name = "unknown"
            elif name in fields:
                mistake(f"{PAGE}:{n}", f"{name} appears twice: merge the two fields")
            fields[name] = fields.get(name, "") + " " + text
        elif line.strip():
            # This line continues the field above, or, before the first field, the description.
            name = name or "prose"
            fields[name] = fields.get(name, "") + " " + line
    if not found:
        give_up(f"{PAGE} has no hazards: begin each with a line ### H1: what goes wrong")
    return found


def names(text):
    return [" ".join(n.split()) for n in re.findall(r"`([^`]*)`", text)]


def check_tests(where, text, known, listed, benched):
    for item in names(text):
        program, _, some = item.partition(":")
        some = some.replace(",", " ").split()
        if program == "bench":
            for s in some:
                if s not in benched:
                    mistake(where, f"there is no scenario {s} in ci/bench/scenarios.toml: correct its name")
        elif program not in known and program not in listed:
            mistake(where, f"there is no test {program}: use the name of a program in ci/tests/selftests*.list or of a KUnit suite")
        for case in some if program != "bench" else ():
            if case not in known.get(program, ()):
                mistake(where, f"the patches have no case {case} of {program}: correct its name")


def main():
    entries, broken = hazards(), mutants()
    known_subjects, known, listed, benched = subjects(), cases(), programs(), scenarios()
    for ident, (n, fields) in entries.items():
        where = f"{PAGE}:{n}: {ident}"
        if not fields.get("prose", "").strip():
            mistake(where, "has no description of what goes wrong: add a paragraph before the first field")
        if not fields.get("Rule", "").strip():
            mistake(where, "has no rule: add a line - Rule: what KVM does")
        for some, none in FIELDS.items():
            if some in fields and none in fields:
                mistake(where, f'has both "{some}" and "{none}": remove one')
            elif some in fields and not names(fields[some]):
                mistake(where, f'"{some}" names nothing: put names in `...`, or write - {none}: why')
            elif some not in fields and not fields.get(none, "").strip():
                mistake(where, f'has neither "{some}" nor "{none}" with a reason: add a line - {some}: `NAME`, or - {none}: why')
        for s in names(fields.get("Patches", "")):
            if s not in known_subjects:
                mistake(where, f'no patch in patches/ has the subject "{s}": write the current subject of the patch')
        check_tests(where, fields.get("Tests", ""), known, listed, benched)
        for name in names(fields.get("Mutants", "")):
            if name not in broken:
                mistake(where, f"there is no mutant {name} in ci/mutants: correct its name")
            elif ident not in broken[name][1]:
                mistake(where, f"names the mutant {name}, which does not name {ident}: add {ident} to Hazard: in {broken[name][0]}")
    for name, (path, ids, programs_of, named) in broken.items():
        # Of the hazards' tests, with or without the fixture; a program without cases stands for all of its cases.
        expected = set()
        for item in [n for i in ids if i in entries for n in names(entries[i][1].get("Tests", ""))]:
            program, _, some = item.partition(":")
            expected |= {c.rpartition(".")[2] for c in some.replace(",", " ").split() or known.get(program, ())}
        for case in named:
            if not any(case in {c.rpartition(".")[2] for c in known.get(p, ())} for p in programs_of):
                mistake(path, f"the patches have no case {case} of {' or '.join(sorted(programs_of))}: correct Cases:")
            elif case not in expected:
                mistake(path, f"has to fail in the case {case}, which is no test of {', '.join(ids)}: add it there, or correct Cases: or Hazard:")
        for ident in ids:
            tests = {n.partition(":")[0] for n in names(entries[ident][1].get("Tests", ""))} if ident in entries else programs_of
            for missing in sorted(programs_of - tests):
                mistake(path, f"must be detected by {missing}, which is not a test of {ident}: add it there, or correct Tests: or Hazard:")
            if ident not in entries:
                mistake(path, f"names {ident}, which {PAGE} does not have: correct it, or describe {ident} there")
            elif name not in names(entries[ident][1].get("Mutants", "")):
                mistake(path, f"names {ident}, which does not name this mutant: add `{name}` to the mutants of {ident} in {PAGE}")
    if mistakes:
        sys.exit("\n".join(mistakes))
    print(f"hazards: {len(entries)} hazards, {len(broken)} mutants")


if __name__ == "__main__":
    main()
