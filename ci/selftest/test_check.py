# SPDX-License-Identifier: GPL-2.0-only
"""Tests of scripts/check, and of the checks of docs/hazards.md and of the figures in cover letters."""
import os
import re
import shutil
import signal
import sys

import tap
from world import HAZARDS, TOP, VerbTest, World, finish, listed, ours, read, run, started, wait_until, write

# Patches that add a selftest and a KUnit test, with only the lines that ci/checks/hazards.py reads.
CASES = {
    "selftests/0009-small.patch": """Subject: [PATCH] KVM: selftests: Add a test

diff --git a/tools/testing/selftests/kvm/x86/small_test.c b/tools/testing/selftests/kvm/x86/small_test.c
--- /dev/null
+++ b/tools/testing/selftests/kvm/x86/small_test.c
@@ -0,0 +1,2 @@
+KVM_ONE_VCPU_TEST(small, first_case, guest_code)
+TEST_F(small, other_case)
""",
    "patches/0009-small.patch": """Subject: [PATCH] KVM: x86: Add a KUnit test

diff --git a/arch/x86/kvm/small_test.c b/arch/x86/kvm/small_test.c
--- /dev/null
+++ b/arch/x86/kvm/small_test.c
@@ -0,0 +1,2 @@
+	KUNIT_CASE(small_kunit_case),
+	.name = "small_suite",
"""}


class Check(VerbTest):
    def test_good_series(self):
        # The refusals that BadSeries tests mean something only if the small series passes.
        self.set_hazards()
        write(self.path("docs/hazards.md"), re.sub(r"(?m)^- Tests: .*", "- Tests: `state_test`", HAZARDS))
        with self.unchanged():
            done = self.verb("check", "--quick")
        self.assertEqual(done.status, 0, done)
        self.assertRegex(done.out, r"(?m)^check: \d+ passed, 0 failed$")
        self.assertEqual(tap.count(read(self.path("build/results/check.ktap")).splitlines())[1:], [0, 0])

    def test_part_without_a_cover_letter(self):
        os.remove(self.path("docs/cover-letters/two.txt"))
        done = self.verb("check", "--quick")
        self.assertEqual(done.status, 1, done)
        self.assertIn("part two has no cover letter: write docs/cover-letters/two.txt", done.out)

    def test_cover_letter_that_nobody_reads(self):
        letter = self.path("docs/cover-letters/two.txt")
        text = read(letter)
        write(letter, text + "x" * 75 + "\n" + "y " * 38 + "\n" + "line\n" * 300)
        done = self.verb("check", "--quick")
        for words in (r"two.txt:\d+: more than 75 columns", "two.txt: more than 300 lines"):
            self.assertEqual((done.status, len(re.findall(words, done.out))), (1, 1), done)

    def builds(self, part="exit 0", *options):
        """Run scripts/check with builds that do nothing, and with this script in place of ci/checks/part."""
        self.set_hazards()
        write(self.path("docs/hazards.md"), re.sub(r"(?m)^- Tests: .*", "- Tests: `state_test`", HAZARDS))
        for name, text in {"ci/checks/patch": 'echo "$1" >>build/built', "ci/checks/part": part, "ci/checks/variant": 'echo "$@" >>build/variants',
                           "scripts/build": "exit 0"}.items():
            write(self.path(name), f"#!/bin/bash\ncd {self.project}\n{text}\n")
        return self.verb("check", *options)

    def test_variants(self):
        done = self.builds()
        self.assertEqual(done.status, 0, done)
        both = ["no-hyperv no-sev no-smm no-xen", "builtin on-hyperv"]
        self.assertEqual(read(self.path("build/variants")).splitlines(), both)
        os.remove(self.path("build/variants"))
        done = self.builds("exit 0", "--all")
        self.assertEqual(done.status, 0, done)
        self.assertEqual(read(self.path("build/variants")).splitlines(), both + sorted(" ".join(both).split()))

    def test_tests_come_after_the_last_patch_of_each_part_but_the_last(self):
        # Put one of the patches after the selftest of the first part.
        names = listed(World.series["series"])
        write(self.path("series"), "".join(l + "\n" for l in ("# part one", names[0], names[3], "# part two", *names[1:3])))
        done = self.builds('echo part "$1" >>build/built')
        self.assertEqual(done.status, 0, done)
        self.assertEqual(read(self.path("build/built")).split("\n"), ["0", "1", "part one", "3", "4", ""])
        self.assertIn("tests of part one: done", done.out)

    def test_skipped_tests_are_no_passed_ones(self):
        done = self.builds('mkdir -p build/results; echo "a_test (1 pCPU): no reason" >"build/results/part-$1.skipped"')
        self.assertEqual(done.status, 0, done)
        self.assertIn("    skipped: a_test (1 pCPU): no reason\n", done.out)
        self.assertRegex(done.out, r"(?m)^check: \d+ passed, 0 failed, 1 skipped$")
        self.assertEqual(tap.count(read(self.path("build/results/check.ktap")).splitlines())[1:], [0, 1])

    def test_tests_of_a_part_fail(self):
        done = self.builds('echo "FAIL: series L0 1 pCPU a_test: why"; exit 1')
        self.assertEqual(done.status, 1, done)
        self.assertRegex(done.out, r"tests of part one: FAILED(.*\n)+    FAIL: series L0 1 pCPU a_test: why")

    def skipped(self, own, *rows):
        path = os.path.join(self.dir, "selftests.tsv")
        write(path, "test\tpcpus\toutcome\tnote\n" + "".join("\t".join(r) + "\n" for r in rows))
        return run([self.path("ci/checks/skipped.py"), path, own], self.env)

    def test_a_part_of_which_all_is_skipped(self):
        old, new, skip = ("old npt=0", "2", "pass", ""), ("new npt=0", "2", "pass", ""), ("new", "1", "skip", "no NPT")
        self.assertEqual(self.skipped("x86/new,x86/other", old, skip, new), (0, "new (1 pCPU): no NPT\n", ""))
        self.assertEqual(self.skipped("", old, skip)[0], 0)
        for rows in ([old, skip], [old], []):
            done = self.skipped("x86/new", *rows)
            self.assertEqual(done.status, 1)
            self.assertIn("FAIL: no test of new passed", done.err)

    def test_ctrl_c_ends_all_of_it(self):
        script = self.path("ci/checks/export")
        write(script, "#!/bin/sh\nsleep 1000\n")
        with started(self.command("check", "--quick"), self.env) as p:
            self.assertTrue(wait_until(lambda: "sleep 1000" in ours().values(), 30))
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
        self.assertNotEqual(done.status, 0)
        self.assertIn("interrupted", done.out)
        self.assertNotIn("checkpatch", done.out, "it went on with the next step")


class Hazards(VerbTest):
    """ci/checks/hazards.py must report each mistake in one line that says where it is, and what to do."""

    def setUp(self):
        super().setUp()
        self.set_hazards()
        for name, text in CASES.items():
            write(self.path(name), text)

    def hazards(self):
        with self.unchanged():
            return run([sys.executable, self.path("ci/checks/hazards.py")], self.env)

    def edited(self, old, new, *fragments, path="docs/hazards.md"):
        text = read(self.path(path))
        self.assertIn(old, text)
        write(self.path(path), text.replace(old, new, 1))
        self.assert_refuses(self.hazards(), "hazards", *fragments, status=1)

    def test_good_page(self):
        self.assert_ok(self.hazards(), "3 hazards, 2 mutants")

    def test_cases_of_a_mutant(self):
        write(self.path("ci/mutants/010-first.patch"), "Rule: one\nHazard: H1\nTests: state_test\nCases: nosuch\n\n")
        self.assert_refuses(self.hazards(), "hazards", "010-first.patch: the patches have no case nosuch of state_test: correct Cases:", status=1)

    def test_of_the_project(self):
        self.assert_ok(run([sys.executable, os.path.join(TOP, "ci/checks/hazards.py")], self.env))

    def test_mutant_that_is_not_there(self):
        self.edited("`first`, `both`", "`first`, `both`, `last`", "H1", "no mutant last")

    def test_mutant_without_a_hazard(self):
        write(self.path("ci/mutants/030-idle.patch"), "Rule: none\nTests: state_test\n\n")
        self.assert_refuses(self.hazards(), "hazards", "030-idle.patch", "add a line Hazard: H1", status=1)

    def test_mutant_with_a_hazard_in_its_diff_only(self):
        write(self.path("ci/mutants/030-idle.patch"), "Rule: none\n\ndiff --git a/a b/a\nHazard: H1\n")
        self.assert_refuses(self.hazards(), "hazards", "030-idle.patch", "add a line Hazard: H1", status=1)

    def test_mutant_of_an_unknown_hazard(self):
        self.edited("Hazard: H1, C1", "Hazard: H1, C1, H7", "020-both.patch", "H7", path="ci/mutants/020-both.patch")

    def test_mutant_that_its_hazard_does_not_name(self):
        self.edited("`first`, `both`", "`first`", "020-both.patch", "add `both`", "H1")

    def test_mutant_that_does_not_name_its_hazard(self):
        self.edited("Hazard: H1, C1", "Hazard: H1", "C1", "add C1", "020-both.patch", path="ci/mutants/020-both.patch")

    def test_mutant_that_another_test_has_to_notice(self):
        self.edited("Tests: state_test", "Tests: state_tes[t]@1 smm_test*npt=0*@1", "010-first.patch", "smm_test", "not a test of H1",
                    path="ci/mutants/010-first.patch")

    def test_malformed_identifier(self):
        self.edited("Hazard: H1, C1", "Hazard: H1, C1, none", "020-both.patch", "Hazard: H1", path="ci/mutants/020-both.patch")

    def test_subject_that_no_patch_has(self):
        self.edited("the first number", "the zeroth number", "H1", "KVM: SVM: Name the zeroth number")

    def test_test_that_is_not_there(self):
        self.edited("- No test: nothing to see.", "- Tests: `no_test`", "C2", "no test no_test")

    def test_case_that_is_not_there(self):
        self.edited("other_case", "no_case", "H1", "no case no_case of small_test")
        write(self.path("docs/hazards.md"), HAZARDS)
        self.edited("small_kunit_case", "no_case", "H1", "no case no_case of small_suite")
        write(self.path("docs/hazards.md"), HAZARDS)
        # The cases of a test that the series does not add are not known.
        self.edited("`state_test`", "`state_test: no_case`", "H1", "no case no_case of state_test")

    def test_kunit_case_that_a_later_patch_adds(self):
        later = CASES["patches/0009-small.patch"].replace("small_kunit_case", "later_case").replace('+\t.name = "small_suite",\n', "")
        self.assertNotIn("small_suite", later)
        write(self.path("patches/0010-later.patch"), later)
        write(self.path("docs/hazards.md"), HAZARDS.replace("small_kunit_case", "small_kunit_case, later_case"))
        self.assert_ok(self.hazards(), "3 hazards, 2 mutants")

    def test_scenario_that_is_not_there(self):
        self.edited("nested-w16", "no-scenario", "H1", "no scenario no-scenario")

    def test_no_reason(self):
        self.edited("- No test: nothing to see.", "- No test:", "C2", '"No test" with a reason')
        write(self.path("docs/hazards.md"), HAZARDS)
        self.edited("- No patch: nothing to do.\n", "", "C1", "No patch")
        write(self.path("docs/hazards.md"), HAZARDS)
        self.edited("- No mutant: nothing to break.\n", "", "C2", "No mutant")

    def test_names_nothing(self):
        self.edited("- No test: nothing to see.", "- Tests: state_test", "C2", '"Tests" names nothing')

    def test_tests_and_no_test(self):
        self.edited("- No test: nothing to see.", "- No test: nothing to see.\n- Tests: `state_test`", "C2", "remove one")

    def test_does_not_say_what_goes_wrong(self):
        self.edited("Nothing happens.\n", "", "C1", "what goes wrong")

    def test_no_rule(self):
        self.edited("- Rule: none.\n", "", "C1", "no rule")

    def test_unknown_field(self):
        self.edited("- Rule: none.\n", "- Rule: none.\n- Test: `state_test`\n", "hazards.md:", "Test", "not a field")

    def test_field_twice(self):
        self.edited("- Rule: none.\n", "- Rule: none.\n- Rule: none.\n", "hazards.md:", "Rule appears twice")

    def test_heading_without_an_identifier(self):
        self.edited("# Hazards\n", "# Hazards\n\n### Something\nText.\n", "hazards.md:3", "### H1: what goes wrong")

    def test_identifier_twice(self):
        self.edited("# Hazards\n", "# Hazards\n\n### C1: the same\nText.\n- Rule: none.\n- No patch: no.\n- Tests: `state_test`\n- Mutants: `both`\n",
                    "hazards.md:", "C1 appears twice")

    def test_no_page(self):
        os.remove(self.path("docs/hazards.md"))
        self.assert_refuses(self.hazards(), "hazards", "docs/hazards.md", "git checkout", status=1)

    def test_empty_page(self):
        write(self.path("docs/hazards.md"), "")
        self.assert_refuses(self.hazards(), "hazards", "docs/hazards.md", "no hazard", status=1)

    def test_several_mistakes(self):
        write(self.path("docs/hazards.md"), HAZARDS.replace("first_case", "no_case").replace("Name the first", "Name no"))
        done = self.hazards()
        self.assertEqual((done.status, done.out, len(done.err.splitlines())), (1, "", 2), done)


class Fixes(VerbTest):
    """ci/checks/fixes.py must report each mistake in one line that says where it is, and what to do."""
    PAGE, PATCH = "docs/qemu-fixes.md", "ci/qemu/fixes/0002-second.patch"
    SECTION = """
## {0}: svm: do the {1} thing

The guest is wrong.

- Rule: volume 2.
- Test: `{1}-test`. It needs `-cpu max`.
- Since: {2}

```
Title: {1}
Expected: good
Observed: bad
Analysis: none
```
"""

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.path("ci/qemu/fixes"))
        os.mkdir(self.path("ci/qemu/fixes"))
        write(self.path("ci/qemu/fixes/0001-first.patch"), "Subject: [PATCH] target/i386: svm: do the\n first thing\n\nText.\n---\n")
        write(self.path(self.PATCH), 'Subject: [PATCH] target/i386: svm: do the second thing\n\nFixes: 0123456789ab ("target/i386: break it")\n---\n')
        write(self.path("ci/qemu/rules/fixes.c"), '\t\t{ "first-test", first_test, NPT_OFF },\n\t\t{ "second-test", second_test, 0 },\n')
        write(self.path(self.PAGE), "# Fixes\n\n## What all reports share\n\n```\nqemu OPTIONS test=TEST\n```\n" +
              self.SECTION.format("0001", "first", "not known") + self.SECTION.format("0002", "second", "0123456789ab"))

    def fixes(self, *args):
        with self.unchanged():
            return run([sys.executable, self.path("ci/checks/fixes.py"), *args], self.env)

    def edited(self, old, new, *fragments, path=PAGE):
        text = read(self.path(path))
        self.assertIn(old, text)
        write(self.path(path), text.replace(old, new, 1))
        self.assert_refuses(self.fixes(), "fixes", *fragments, status=1)

    def test_good_page(self):
        self.assert_ok(self.fixes(), "2 patches")

    def test_of_the_project(self):
        self.assert_ok(run([sys.executable, os.path.join(TOP, "ci/checks/fixes.py")], self.env))

    def test_report(self):
        write(self.path(self.PAGE), read(self.path(self.PAGE)).replace("- Since: 01", "- Options: `-accel one`\n- Since: 01"))
        self.assertEqual(self.fixes("--report", "2"), (0, "Title: second\n\nqemu -accel one test=second-test\n\nExpected: good\nObserved: bad\nAnalysis: none\n", ""))
        self.assertIn("qemu -accel tcg test=first-test\n", self.fixes("--report", "0001").out)
        self.assert_refuses(self.fixes("--report", "3"), "fixes", "no fix 0003", status=1)

    def test_patch_without_a_section(self):
        write(self.path("ci/qemu/fixes/0003-third.patch"), "Subject: [PATCH] target/i386: third\n---\n")
        self.assert_refuses(self.fixes(), "fixes", "0003-third.patch", 'add "## 0003: third"', status=1)

    def test_section_without_a_patch(self):
        write(self.path(self.PAGE), read(self.path(self.PAGE)) + self.SECTION.format("0003", "third", "not known"))
        self.assert_refuses(self.fixes(), "fixes", "no patch", "0003: svm: do the third thing", status=1)

    def test_order(self):
        write(self.path(self.PAGE), re.sub(r"(?s)(\n## 0001.*)(\n## 0002.*)", r"\2\1", read(self.path(self.PAGE))))
        self.assert_refuses(self.fixes(), "fixes", "order", status=1)

    def test_section_twice(self):
        write(self.path(self.PAGE), read(self.path(self.PAGE)) + self.SECTION.format("0002", "second", "0123456789ab"))
        self.assert_refuses(self.fixes(), "fixes", "appears twice", status=1)

    def test_test_that_is_not_there(self):
        self.edited("`first-test`", "`first-test`, `no-test`", "no test no-test")

    def test_no_test(self):
        self.edited("- Test: `first-test`. It needs `-cpu max`.\n- Since: not known", "- Test: `second-test`\n- Since: not known", "first-test", "no section")
        write(self.path("ci/qemu/rules/fixes.c"), '\t\t{ "second-test", second_test, 0 },\n')
        self.edited("- Test: `second-test`\n", "", "names no test")

    def test_another_commit(self):
        self.edited("Since: 0123456789ab", "Since: not known", "0123456789ab", "make them the same")

    def test_malformed_commit(self):
        self.edited('Fixes: 0123456789ab ("target/i386: break it")\n', "Fixes: 0123\n", "malformed", path=self.PATCH)

    def test_incomplete_section(self):
        text = read(self.path(self.PAGE))
        for old, fragment in (("The guest is wrong.\n", "what a guest sees"), ("- Rule: volume 2.\n", "no field Rule"), ("- Since: not known\n", "no field Since"),
                              ("Expected: good\n", "no line Expected"), ("- Rule: volume 2.\n", "- Role: volume 2.\n")):
            write(self.path(self.PAGE), text)
            if fragment.startswith("- "):
                write(self.path(self.PAGE), text.replace(old, old + fragment, 1))
                self.assert_refuses(self.fixes(), "fixes", '"Role" is not a field', status=1)
            else:
                self.edited(old, "", fragment)

    def test_no_shared_part(self):
        self.edited("qemu OPTIONS test=TEST\n", "", "What all reports share")

    def test_no_page(self):
        os.remove(self.path(self.PAGE))
        self.assert_refuses(self.fixes(), "fixes", self.PAGE, "git checkout", status=1)


class Posting(VerbTest):
    """ci/checks/posting.py must report each patch of part fixes that docs/posting.md does not describe as it is."""
    PAGE = "docs/posting.md"
    TEXT = """# Posting

### 1. KVM: First thing
- Since: 0123456789ab.

### 2. KVM: Second thing
- Since: 0123456789ab, and 123456789abc.

## Hashes

| hash | verified |
| --- | --- |
| 0123456789ab (1, 2), 123456789abc (2) | yes |
"""

    def setUp(self):
        super().setUp()
        write(self.path("series"), "# part fixes\npatches/1.patch\npatches/2.patch\nselftests/1.patch\n# part two\npatches/3.patch\n")
        write(self.path("patches/1.patch"), 'Subject: [PATCH] KVM: First\n thing\n\nFixes: 0123456789ab ("KVM: Break")\n---\n')
        write(self.path("patches/2.patch"), 'Subject: [PATCH] KVM: Second thing\n\nFixes: 0123456789ab ("KVM: Break")\nFixes: 123456789abc ("KVM: Err")\n---\n')
        write(self.path(self.PAGE), self.TEXT)

    def posting(self):
        with self.unchanged():
            return run([sys.executable, self.path("ci/checks/posting.py")], self.env)

    def edited(self, old, new, *fragments):
        self.assertIn(old, self.TEXT)
        write(self.path(self.PAGE), self.TEXT.replace(old, new, 1))
        self.assert_refuses(self.posting(), "posting", *fragments, status=1)

    def test_good_page(self):
        self.assert_ok(self.posting(), "2 patches")

    def test_of_the_project(self):
        self.assert_ok(run([sys.executable, os.path.join(TOP, "ci/checks/posting.py")], self.env))

    def test_sections(self):
        self.edited("### 2. KVM: Second thing", "### 2. KVM: Another thing", '"### 2. KVM: Second thing"', "patches/2.patch")
        self.edited("### 2. KVM: Second thing\n", "", '"### 2. KVM: Second thing"')
        self.edited("## Hashes", "### 3. KVM: Third thing\n\n## Hashes", "no patch 3", "3. KVM: Third thing")

    def test_hashes(self):
        self.edited(", and 123456789abc", "", "section 2 does not name 123456789abc", "patches/2.patch")
        self.edited(", 123456789abc (2)", "", '"123456789abc (2)"')
        self.edited("(1, 2)", "(1)", '"0123456789ab (2)"')
        self.edited("(1, 2)", "(12, 2)", '"0123456789ab (1)"')

    def test_no_page(self):
        os.remove(self.path(self.PAGE))
        self.assert_refuses(self.posting(), "posting", self.PAGE, "git checkout", status=1)


class Figures(VerbTest):
    """The tables in cover letters."""

    LETTER = "KVM: Part two\n\nNumbers:\n\n  scripts/bench pinned \\\n    vms-4\n\nThat is all.\n"

    def setUp(self):
        super().setUp()
        os.remove(self.path("docs/numbers.md"))
        write(self.path("docs/cover-letters/two.txt"), self.LETTER)

    SCENARIOS = {"pinned": ("one vCPU", "tcg"), "vms-4": ("4 VMs", "tcg"), "vmx-l2s": ("VMX: L2", "vmx"), "l2-x": ("L2 Linux", "tcg")}

    def record(self, walks=9, machine="tcg"):
        """Write the figures as scripts/bench --record --machine does."""
        counts = {"flush_asid": 1, "flush_all": 0.25, "walks": walks, "reloads": 2, "vmrun": 3, "instructions": 1000}
        measured = [n for n, (_, m) in self.SCENARIOS.items() if m == machine]
        program = f"""import sys, types
sys.path[:0] = {[self.path("ci/bench"), self.path("ci/lib")]!r}
import figures
figures.write([types.SimpleNamespace(name=n, title=t, machine=m, remote=False, command="" if n == "l2-x" else "c") for n, (t, m) in {self.SCENARIOS!r}.items()],
              dict.fromkeys({measured!r}, dict.fromkeys(("base", "series"), {counts!r})))"""
        done = run([sys.executable, "-c", program], self.env)
        self.assertEqual(done.status, 0, done)

    def check(self):
        with self.unchanged():
            return run([sys.executable, self.path("ci/bench/figures.py")], self.env)

    def test_table_of_the_readme(self):
        names = {f"l2s-{n}": f"{n} L2s, 16 pages" if n > 1 else "L2, 16 pages" for n in (1, 2, 4, 8, 16)}
        write(self.path("README.md"), "| base | 1 |\n| series | 2 |\n| L0's instructions, series : base | 3 |\n")
        program = f"""import sys, types
sys.path[:0] = {[self.path("ci/bench"), self.path("ci/lib")]!r}
import figures
f = lambda w, i: {{"flush_asid": 1, "flush_all": 0, "walks": w, "reloads": 2, "instructions": i}}
figures.write([types.SimpleNamespace(name=n, title=t, machine="tcg", remote=False, command="c") for n, t in {names!r}.items()], {{n: {{"base": f(25, 1000), "series": f(0.5, 880)}} for n in {list(names)!r}}})"""
        write(self.path("docs/cover-letters/two.txt"), "KVM: Part two\n")
        done = run([sys.executable, "-c", program], self.env)
        self.assertEqual(done.status, 0, done)
        self.assertEqual(read(self.path("README.md")), "| base |" + " 25.00 |" * 5 + "\n| series |" + " 0.50 |" * 5 +
                         "\n| L0's instructions, series : base |" + " 0.88 |" * 5 + "\n")
        self.assert_ok(self.check())
        write(self.path("README.md"), read(self.path("README.md")).replace("0.88", "0.50", 1))
        done = self.check()
        self.assertEqual((done.status, done.out), (1, "README.md: the row \"L0's instructions, series : base\" differs from docs/numbers.md: run scripts/bench --record\n"))

    def test_recorded(self):
        for walks in (9, 10):
            self.record(walks)
            letter = read(self.path("docs/cover-letters/two.txt"))
            self.assertIn("  4 VMs\n    base                  1.00  0.250", letter)
            self.assertEqual(letter.count(f"{walks}.00    2.00       1000\n"), 2)
            self.assertTrue(letter.endswith("x 1.000\n\nThat is all.\n"), letter)
            self.assertEqual(self.check(), (0, "", ""))

    def test_linux_in_l2(self):
        self.record()
        self.assertIn("  VMRUNs     instr.\nL2 Linux\n  base                  1.00  0.250     9.00    3.00       1000\n", read(self.path("docs/numbers.md")))

    def test_machines_are_recorded_one_by_one(self):
        self.record()
        write(self.path("docs/cover-letters/vmx.txt"), "KVM: Part vmx\n\nNumbers:\n\n  scripts/bench vmx-l2s\n\nThat is all.\n")
        self.record(7, "vmx")
        vmx = """\
                       INVVPID INVEPT     page        all
                                         walks     instr.
  VMX: L2
    base                  1.00   0.25     7.00       1000
    series                1.00   0.25     7.00       1000  x 1.000

"""
        self.assertIn("  scripts/bench vmx-l2s\n" + vmx, read(self.path("docs/cover-letters/vmx.txt")))
        self.assertEqual(self.check(), (0, "", ""))
        self.record(8)
        for path, walks in (("docs/cover-letters/two.txt", 8), ("docs/cover-letters/vmx.txt", 7)):
            self.assertEqual(read(self.path(path)).count(f" {walks}.00  "), 4 if walks == 8 else 2)
        self.assertEqual(self.check(), (0, "", ""))
        numbers = read(self.path("docs/numbers.md"))
        write(self.path("docs/numbers.md"), numbers.replace("    7.00  ", "    6.00  ", 1))
        self.assertEqual(self.check(), (1, 'docs/cover-letters/vmx.txt: "VMX: L2" differs from docs/numbers.md: run scripts/bench --record\n', ""))

    def test_another_figure(self):
        self.record()
        letter = self.path("docs/cover-letters/two.txt")
        write(letter, read(letter).replace("9.00", "8.00", 1))
        self.assertEqual(self.check(), (1, 'docs/cover-letters/two.txt: "one vCPU" differs from docs/numbers.md: run scripts/bench --record\n', ""))

    def test_a_scenario_is_missing(self):
        self.record()
        letter = self.path("docs/cover-letters/two.txt")
        write(letter, read(letter).replace("    vms-4\n", "    vms-4 vms-8\n"))
        self.assertEqual(self.check()[:2], (1, "docs/cover-letters/two.txt: the table below scripts/bench pinned has 2 scenarios of 3: run scripts/bench --record\n"))

    def test_sentence_about_l1s(self):
        self.record()
        head = "                            L1's     L0's    TLB flushes      page  million\n                          VMRUNs    exits    ASID    all     walks   instr.\n"
        row = "  {:21}      100      300     {}      1   {}    19070{}\n"
        page = "".join(f"xen asids={n}\n" + row.format("base", 200, 1000, "") + row.format("series", 20, walks, "  x 0.98") for n, walks in ((8, 480), (16, 30)))
        write(self.path("docs/l1-hypervisors.md"), "text\n```\n" + head + page + "```\n")
        sentence = "  - Xen and KVM as\n    L1, in {} settings that differ: no wrong word, and\n    0.03 to {} of the base's page\n    walks (scripts/test foreign).\n"
        letter = self.path("docs/cover-letters/two.txt")
        text = read(letter)
        write(letter, text + sentence.format(2, "0.48"))
        self.assert_ok(self.check())
        for settings, most in ((3, "0.48"), (2, "0.50")):
            write(letter, text + sentence.format(settings, most))
            self.assertEqual(self.check()[:2], (1, f"docs/cover-letters/two.txt: in {settings} settings, 0.03 to {most} of the page walks: docs/l1-hypervisors.md has "
                                                   "2 settings, 0.03 to 0.48: correct the sentence\n"))

    def test_never_recorded(self):
        done = self.check()
        self.assertEqual(done.status, 1)
        self.assertRegex(done.err, r"^\S*rig: .*docs/numbers.md: No such file or directory: run scripts/bench --record\n$")
