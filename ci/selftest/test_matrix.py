# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the table of selftests, and of parsing the output of tests."""
import contextlib
import io
import os
import threading

import matrix
import report
import rows
import tap
from world import Done, VerbTest, read, run, write


class Matrix(VerbTest):
    """ci/tests/matrix.py: the list of tests, and the exit status of the table."""

    def refused(self, *patterns, **files):
        for name, text in files.items():
            write(self.path("ci/tests", name.replace("_", "-") if "known" in name else "selftests.list"), text)
        done = run([self.path("ci/tests/matrix.py"), "-", "-", self.path("build/results/run"), *patterns], {**self.env, "KVM_TLB_VERB": "run"})
        self.assertFalse(os.path.exists(self.path("build/results/run/selftests.tsv")))
        return done

    def test_malformed_lines(self):
        good = "x86/state_test 01 12 60\n"
        for bad in ("x86/smm_test", "x86/smm_test 01 12", "x86/smm_test 2 12 60", "x86/smm_test 01 4 60", "x86/smm_test 01 12 soon", "x86/smm_test 01 12/ 60"):
            with self.subTest(bad):
                self.assert_refuses(self.refused(list=good + bad + "\n"), "run", "ci/tests/selftests.list:2:", bad)

    def test_a_name_twice(self):
        self.assert_refuses(self.refused(list="x86/state_test 0 2 60\nx86/state_test 1 2 60\n"), "run", "ci/tests/selftests.list", "state_test",
                            "twice")

    def test_parameters_make_another_name(self):
        self.assertNotIn("twice", self.refused("nosuch", list="x86/state_test 0 2 60\nx86/state_test 0 2 60 npt=0\n").err)

    def test_a_property_of_the_cpu_makes_another_machine(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60\nx86/a 0 2 60 npt=0 cpu:x-svm-asids=4 cpu:x=y -- -v\n")
        plain, other = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((plain.hardware.cpu, plain.params, plain.name), ("", "-", "a"))
        self.assertEqual((other.hardware.cpu, other.params, other.command), (",x-svm-asids=4,x=y", "npt=0", "./x86/a -v"))
        self.assertEqual(other.name, "a npt=0 cpu:x-svm-asids=4 cpu:x=y -v")

    def test_pcpus_of_each_level(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 01 12/1 60\nx86/b 01 2 60\nx86/c 1 12/1 60\n")
        self.assertEqual([t.pcpus for t in rows.read_list(self.path("ci/tests/selftests.list"))],
                         [{0: [1, 2], 1: [1]}, {0: [2], 1: [2]}, {1: [1]}])

    def test_rows_of_the_series_alone(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 only:series npt=0\nx86/b 0 2 60\n")
        a, b = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((a.name, a.params, a.kernels, b.kernels), ("a npt=0", "npt=0", ("series",), ("base", "series")))
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 only:series\nx86/a 0 2 60\n")
        with self.assertRaises(SystemExit) as refused:
            rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertIn("a is listed twice", str(refused.exception))

    def test_rows_of_the_mutants_kernel_alone(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 only:mutants few=1\nx86/a 0 2 60\n")
        few, plain = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((few.name, few.params), ("a few=1", "few=1"))
        self.assertEqual([rows.runs_on(few, k) for k in ("base", "series", "tree")], [False] * 3)
        self.assertEqual([rows.runs_on(plain, k) for k in ("base", "series", "tree")], [True] * 3)
        self.assertEqual(rows.one_of_each([few], ["x86/a"], [], ["few"]), [])
        self.assertNotIn("few", self.verb("run", "--list").out)

    def test_short_list(self):
        write(self.path("ci/tests/selftests.list"), "".join(l + "\n" for l in (
            "x86/old 01 12 60", "x86/old 0 2 60 npt=0", "x86/new 0 1 60 cpu:x-svm-asids=4", "x86/new 0 1 60 nosuch=1", "x86/new 0 2 60 npt=0", "x86/new 0 2 60 only:series npt=0 -- -v",
            "x86/new 1 1 60", "x86/asids 0 2 60 cpu:x-svm-asids=16", "x86/asids 0 2 60 cpu:x-svm-asids=4", "../bin/svm-tlb 0 2 60 -- asids 2 ./x86/new -m 2",
            "x86/other 0 2 60", "x86/late 0 2 60 only:series", "x86/late 0 2 60 only:series npt=0")))
        tests = rows.read_list(self.path("ci/tests/selftests.list"))

        def names(*args):
            return [t.name for t in rows.one_of_each(tests, *args)]
        self.assertEqual(names(["x86/new"], ["x86/old"], ["npt"]), ["old", "new npt=0", "svm-tlb asids 2 ./x86/new -m 2"])
        self.assertEqual(names(["x86/old"], [], ["npt"]), ["old", "old npt=0"])
        self.assertEqual(names(["x86/asids", "x86/nowhere"], [], []), ["asids cpu:x-svm-asids=16"])
        self.assertEqual(names([], ["x86/old"], []), ["old"])
        self.assertEqual(names(["x86/late"], [], ["npt"]), ["late"])
        # An empty list must fail.
        done = run([self.path("ci/tests/matrix.py"), "--own", "x86/nowhere", "-", "image", self.path("build/results/run")], {**self.env, "KVM_TLB_VERB": "check"})
        self.assert_refuses(done, "check", "no test in ci/tests/selftests.list runs")

    def tree(self, *programs, parameters="npt:Nested (bool)"):
        """Make a directory like that of ci/build/kernel, and a modinfo that prints these parameters."""
        for p in programs:
            write(self.path("kernel/selftests", p), "")
        write(self.path("bin/modinfo"), f"#!/bin/sh\necho '{parameters}'\n")
        os.chmod(self.path("bin/modinfo"), 0o755)
        before = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", before)
        os.environ["PATH"] = self.path("bin") + ":" + before
        return self.path("kernel")

    def test_rows_of_a_tree(self):
        directory = self.tree("x86/a", "x86/mine")
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60\nx86/a 0 2 60 npt=0\nx86/a 0 2 60 avic=1\nx86/b 0 2 60 only:series\n"
              "x86/a 0 2 60 only:series kvm.b=1\n")
        tests = rows.read_list(self.path("ci/tests/selftests.list"))
        missing = rows.of_tree(tests, directory, ["x86/mine", "x86/other", "a"])
        self.assertEqual(missing, {"a avic=1": "kvm_amd of this tree has no parameter avic", "b": "this tree has no such selftest"})
        self.assertEqual(tests[-1], rows.Test("x86/mine", [0, 1], {0: [1, 2], 1: [1, 2]}, rows.UNLISTED, command="./x86/mine"))
        self.assertEqual(len(tests), 6)
        self.assertTrue(all(rows.runs_on(t, "tree") for t in tests))
        self.assertFalse(any(rows.runs_on(t, "base") for t in tests if t.name == "b"))

    def test_a_tree_that_has_no_such_selftest(self):
        directory = self.tree("x86/a")
        done = run([self.path("ci/tests/matrix.py"), "--tree", directory, "-", "image", self.path("build/results/tree"), "x86/c"],
                   {**self.env, "KVM_TLB_VERB": "run", "PATH": os.environ["PATH"]})
        self.assert_refuses(done, "run", "x86/c", "this tree has no such selftest")

    def test_malformed_known_failure(self):
        self.assert_refuses(self.refused(known_failures="state_test fails\n"), "run", "ci/tests/known-failures:1:")

    def test_seeds(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 seed:7 npt=0 -- -v\n")
        test, = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((test.command, test.params, test.name), ("env RIG_SEED=7 ./x86/a -v", "npt=0", "a seed:7 npt=0 -v"))
        for bad in ("x86/a 0 2 60 seed:", "x86/a 0 2 60 seed:many", "x86/a 0 2 60 seed:1 seed:2"):
            with self.subTest(bad):
                self.assert_refuses(self.refused(list=bad + "\n"), "run", "ci/tests/selftests.list:1:", "a seed is a number", bad)

    def test_security_processor(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 cpu:x-sev=on psp:max-guests=3 psp:fail=INIT:1:NONE\nx86/a 0 2 60 cpu:x-sev=on\n")
        a, b = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((a.hardware.cpu, a.hardware.psp, a.params, a.command), (",x-sev=on", ",max-guests=3,fail=INIT:1:NONE", "-", "./x86/a"))
        self.assertEqual((b.hardware.cpu, b.hardware.psp), (",x-sev=on", ""))
        self.assert_refuses(self.refused(list="x86/a 0 2 60 psp:max-guests=3\n"), "run", "ci/tests/selftests.list:1:", "psp: needs cpu:x-sev=on")
        self.assert_refuses(self.refused(list="x86/a 01 2 60 cpu:x-sev=on\n"), "run", "ci/tests/selftests.list:1:", "L1 has no SEV")

    def test_clocks_that_count_instructions(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 01 1 60 icount npt=0\nx86/a 0 1 60 npt=0\n")
        a, b = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((a.hardware.icount, a.params, b.hardware.icount), (True, "npt=0", False))
        self.assert_refuses(self.refused(list="x86/a 0 12 60 icount\n"), "run", "ci/tests/selftests.list:1:", "icount is for one pCPU")

    def test_cpus_of_l1(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 1 2 60 vcpus:2 npt=0\nx86/a 1 2 60 npt=0\n")
        a, b = rows.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((a.hardware.vcpus, a.params, a.name, b.hardware.vcpus), (2, "npt=0", "a vcpus:2 npt=0", 1))
        for bad in ("x86/a 01 2 60 vcpus:2", "x86/a 0 2 60 vcpus:2", "x86/a 1 2 60 vcpus:3", "x86/a 1 2 60 vcpus:", "x86/a 1 2 60 vcpus:2 vcpus:2"):
            with self.subTest(bad):
                self.assert_refuses(self.refused(list=bad + "\n"), "run", "ci/tests/selftests.list:1:", "vcpus:2 is for level 1", bad)

    def test_pattern_that_matches_nothing(self):
        self.assert_refuses(self.refused("nosuch*"), "run", "ci/tests/selftests.list", "nosuch*")
        self.assert_refuses(self.refused("state_test", "nosuch*"), "run", "ci/tests/selftests.list", "nosuch*")

    def verdict(self, base, series, known=None, images=("base", "series")):
        """Return status and text of the report for one test with these outcomes."""
        tests = [rows.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")]
        results = {}
        for kernel, outcome in (("base", base), ("series", series)):
            if outcome:
                results[report.Key(kernel, 0, 2, "state_test")] = report.Result(outcome, 1.0, "a reason")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = report.report(self.dir, tests, {k: k for k in images}, results, known or {}, 1.0)
        counts = tap.count(read(self.dir + ".ktap").splitlines())
        self.assertEqual(sum(counts), len(results))
        self.assertEqual(counts[1] > 0, status != 0)
        return status, out.getvalue()

    LISTED = {(0, "state_test"): "why"}

    def test_both_pass(self):
        self.assertEqual(self.verdict("pass", "pass")[0], 0)

    def test_series_fails_where_the_base_passes(self):
        for known in ({}, self.LISTED):
            status, text = self.verdict("pass", "fail", known)
            self.assertEqual(status, 1)
            self.assertRegex(text, r"(?m)^FAIL: series L0 2 pCPU state_test: a reason \(the base passes\)$")

    def test_both_fail_and_listed(self):
        status, text = self.verdict("fail", "fail", self.LISTED)
        self.assertEqual(status, 0)
        self.assertIn("L0 state_test: why", text)
        self.assertNotIn("FAIL: ", text)

    def test_both_fail_and_not_listed(self):
        status, text = self.verdict("fail", "fail")
        self.assertEqual(status, 1)
        self.assertIn("not in ci/tests/known-failures", text)

    def test_listed_for_the_other_level(self):
        self.assertEqual(self.verdict("fail", "fail", {(1, "state_test"): "why"})[0], 1)

    def test_fixed_and_fails(self):
        status, text = self.verdict("fail", "fail", {(0, "state_test"): "fixed: why"})
        self.assertEqual(status, 1)
        self.assertIn("fixed by the series", text)

    def test_fixed_and_passes(self):
        self.assertEqual(self.verdict("fail", "pass", {(0, "state_test"): "fixed: why"})[0], 0)

    def test_series_cures(self):
        self.assertEqual(self.verdict("fail", "pass", self.LISTED)[0], 0)

    def test_base_fails_and_not_listed(self):
        self.assertEqual(self.verdict("fail", "pass")[0], 1)

    def test_series_fails_where_the_base_skips(self):
        self.assertEqual(self.verdict("skip", "fail")[0], 1)
        self.assertEqual(self.verdict("skip", "fail", self.LISTED)[0], 1)

    def test_listed_but_the_base_passes(self):
        status, text = self.verdict("pass", "pass", self.LISTED)
        self.assertEqual(status, 0)
        self.assertIn("in ci/tests/known-failures, but the base passes: L0 state_test", text)

    def test_skips_are_named_with_their_reason(self):
        status, text = self.verdict("skip", "skip")
        self.assertEqual(status, 0)
        self.assertIn("state_test (L0): a reason", text)

    def test_too_slow(self):
        for base, series in (("pass", "slow"), ("slow", "pass"), ("fail", "slow")):
            status, text = self.verdict(base, series, self.LISTED)
            self.assertEqual(status, 0)
            self.assertRegex(text, r"(?m)^passed, but slower than the limit .*:\n  (base|series) L0 2 pCPU state_test: a reason$")
            self.assertNotIn("FAIL: ", text)

    def test_passes_after_its_limit(self):
        results = {}
        test = rows.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")
        machine = matrix.Machine(None, results, {}, "series", None, 0, 2, "", [test], None, "off")
        for seconds, outcome in ((59.0, "pass"), (61.0, "slow")):
            machine.done(test, "pass", seconds, "")
            self.assertEqual(results[machine.key(test)].outcome, outcome)
        machine.done(test, "fail", 61.0, "why")
        self.assertEqual(results[machine.key(test)].outcome, "fail")

    def test_says_which_cases_failed(self):
        cases = [("suite.one", ["a.c:1: x == y", "2 != 3"]), ("suite.two", ["it did not end"])]
        key = report.Key("series", 0, 2, "state_test")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            report.report(self.dir, [rows.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")], {"series": ""},
                          {key: report.Result("fail", 1.0, tap.one_line(cases), None, cases)}, {}, 1.0)
        self.assertIn("FAIL: series L0 2 pCPU state_test: suite.one: a.c:1: x == y: 2 != 3 (and suite.two) (not in ci/tests/known-failures)\n"
                      "    suite.one:\n    a.c:1: x == y\n    2 != 3\n    suite.two:\n    it did not end\n", out.getvalue())

    def run_again(self, kernel, *outcomes, known=None):
        """Return the result of one test whose runs have these outcomes, and the number of its runs."""
        tests = [rows.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")]
        results, ran = {}, []
        machine = matrix.Machine(threading.Semaphore(1), results, known or {}, kernel, None, 0, 2, "", tests, None, "off")

        def boot(todo):
            for t in todo:
                machine.done(t, outcomes[len(ran)], 1.0, f"reason {len(ran)}")
                ran.append(t)
            return []
        machine.boot = boot
        machine.run()
        self.assertIsNone(machine.error)
        return results[machine.key(tests[0])], len(ran)

    def test_base_fails_once_of_two_times(self):
        result, ran = self.run_again("base", "fail", "pass")
        self.assertEqual((result.outcome, result.note, ran), ("pass", report.FIRST + "reason 0", 2))
        slow, _ = self.run_again("base", "fail", "slow")
        self.assertEqual((slow.outcome, slow.note), ("slow", report.FIRST + "reason 0"))
        out = io.StringIO()
        tests = [rows.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")]
        for r in (result, slow):
            with contextlib.redirect_stdout(out):
                self.assertEqual(report.report(self.dir, tests, {"base": ""}, {report.Key("base", 0, 2, "state_test"): r}, {}, 1.0), 0)
        self.assertEqual(out.getvalue().count("flakes of the base (failed, then passed when retried):\n  L0 2 pCPU state_test: reason 0\n"), 2)

    def test_base_fails_twice(self):
        result, ran = self.run_again("base", "fail", "fail")
        self.assertEqual((result.outcome, result.note, ran), ("fail", "reason 1, twice", 2))

    def test_base_fails_as_listed(self):
        self.assertEqual(self.run_again("base", "fail", known=self.LISTED)[1], 1)

    def test_series_has_one_chance(self):
        result, ran = self.run_again("series", "fail", "pass")
        self.assertEqual((result.outcome, ran), ("fail", 1))

    def test_series_alone(self):
        self.assertEqual(self.verdict(None, "fail", images=("series",))[0], 1)
        self.assertEqual(self.verdict(None, "fail", self.LISTED, images=("series",))[0], 0)

    def test_machine_with_vmx(self):
        write(self.path("ci/list"), "x86/state_test 0 1 60\nx86/state_test 0 1 60 vpid=0\n")
        write(self.path("ci/known"), "VMX state_test vpid=0 : why\nL* state_test : another reason\n")
        tests = [rows.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")] + rows.of_vmx(rows.read_list(self.path("ci/list")))
        known = rows.read_known(self.path("ci/known"))
        self.assertEqual(known, {(rows.VMX, "state_test vpid=0"): "why", (0, "state_test"): "another reason", (1, "state_test"): "another reason"})
        results = {report.Key(kernel, level, pcpus, t.name): report.Result("fail" if t.name in ("state_test", "state_test vpid=0")[level == rows.VMX:] else "pass", 1.0, "")
                   for kernel in ("base", "series") for t in tests for level in t.levels for pcpus in t.pcpus[level]}
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(report.report(self.dir, tests, {"base": "", "series": ""}, results, known, 1.0), 0)
        # A table of its own, and a known failure of one machine says nothing about the other.
        self.assertEqual([l.split() for l in out.getvalue().splitlines()[:5]], [
            ["test", "pCPUs", "L0", "base", "L0", "series"], ["state_test", "2", "FAIL", "FAIL"],
            ["test", "pCPUs", "VMX", "base", "VMX", "series"], ["state_test", "1", "pass", "pass"], ["state_test", "vpid=0", "1", "FAIL", "FAIL"]])
        self.assertIn("  VMX state_test vpid=0: why\n", out.getvalue())
        self.assertIn("series VMX 1 pCPU state_test\n", read(self.dir + ".ktap"))
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(report.report(self.dir, tests, {"base": "", "series": ""}, results, {(0, "state_test"): "another reason"}, 1.0), 1)

    def test_kvm_is_built_in(self):
        write(self.path("ci/list"), "x86/a 0 12 60 kvm.b=1 c=0 cpu:x=y\nx86/a 0 1 60\n")
        tests = rows.read_list(self.path("ci/list"))
        self.assertEqual([rows.of_builtin(t).hardware for t in tests], [rows.Hardware(",x=y", append=" kvm.b=1 kvm_amd.c=0"), rows.Hardware()])
        self.assertEqual([(rows.of_builtin(t).hardware.append, t.pcpus) for t in rows.of_vmx(tests)],
                         [(" kvm.b=1 kvm_intel.c=0", {rows.VMX: [1, 2]}), ("", {rows.VMX: [1]})])

    def test_rows_for_vmx_of_a_tree(self):
        directory = self.tree("x86/a", parameters="vpid:VPID (bool)")
        write(self.path("ci/list"), "x86/a 0 1 60 vpid=0\nx86/a 0 1 60 npt=0\n")
        tests = rows.of_vmx(rows.read_list(self.path("ci/list")))
        self.assertEqual(rows.of_tree(tests, directory, [], "kvm_intel"), {"a npt=0": "kvm_intel of this tree has no parameter npt"})


class Tap(VerbTest):
    """ci/lib/tap.py: failures in the output of programs."""

    HARNESS = """Random seed: 0x12
TAP version 13
1..4
# Starting 4 tests from 1 test cases.
#  RUN           suite.good ...
#            OK  suite.good
ok 1 suite.good
#  RUN           suite.guest ...
==== Test Assertion Failure ====
  x86/a_test.c:33: value == want
  pid=71 tid=71 errno=4 - Interrupted system call
     1	0x0000000000401b2c: ?? ??:0
  0x5 != 0x6 (value != want)
# guest: Test failed
#          FAIL  suite.guest
not ok 2 suite.guest
#  RUN           suite.other ...
# a_test.c:40:other:Expected 1 (1) == x (2)
# other: Test terminated by assertion
#          FAIL  suite.other
not ok 3 suite.other
#  RUN           suite.hangs ...
"""

    def test_cases_of_the_harness(self):
        got = tap.failed_cases(self.HARNESS.splitlines())
        self.assertEqual(got, [("suite.guest", ["x86/a_test.c:33: value == want", "0x5 != 0x6 (value != want)"]),
                               ("suite.other", ["# a_test.c:40:other:Expected 1 (1) == x (2)"]), ("suite.hangs", ["it did not end"])])
        self.assertEqual(tap.one_line(got), "suite.guest: x86/a_test.c:33: value == want: 0x5 != 0x6 (value != want) (and suite.other, suite.hangs)")

    def test_program_without_cases(self):
        text = "Testing guest mode: 1\nIter 0\n==== Test Assertion Failure ====\n  a.c:7: ret == 0\n  pid=1 tid=1 errno=0 - Success\n  it was 3\n"
        self.assertEqual(tap.failed_cases(text.splitlines()), [("", ["a.c:7: ret == 0", "it was 3"])])
        self.assertEqual(tap.failed_cases(["a", "", "b"]), [("", ["a", "b"])])
        self.assertEqual(tap.one_line(tap.failed_cases([])), "")

    def test_kunit(self):
        text = """KTAP version 1
1..2
    KTAP version 1
    # Subtest: asid
    # module: kvm_asid_test
    1..2
    ok 1 good
    # bad: EXPECTATION FAILED at asid_test.c:12
    Expected a == 1, but
        a == 2 (0x2)
    not ok 2 bad
# asid: pass:1 fail:1 skip:0 total:2
not ok 1 asid
"""
        path = os.path.join(self.dir, "kunit.tap")
        write(path, text)
        done = run([self.path("ci/lib/tap.py"), path])
        self.assertEqual((done.status, done.out), (1, "FAIL: bad\n    bad: EXPECTATION FAILED at asid_test.c:12\n    Expected a == 1, but\n    a == 2 (0x2)\n"))
        write(path, text.replace("not ok", "ok"))
        self.assertEqual(run([self.path("ci/lib/tap.py"), path]), Done(0, "", ""))

    def test_step_shows_the_test_that_failed(self):
        done = run([self.path("ci/lib/step.py"), os.path.join(self.dir, "log"), "a step", "sh", "-c",
                    "echo ok; echo 'FAIL: one'; echo '    why'; for i in $(seq 100); do echo error $i; done; exit 1"])
        self.assertEqual(done.out.splitlines()[1:], ["    FAIL: one", "        why"])

    def test_step_shows_what_make_says(self):
        """Files may be called error.c, and a parallel make goes on for a while."""
        done = run([self.path("ci/lib/step.py"), os.path.join(self.dir, "log"), "a step", "sh", "-c",
                    "for i in $(seq 50); do echo CC error.o $i; done; echo 'make: *** No rule'; for i in $(seq 50); do echo CC $i; done; exit 2"])
        self.assertIn("    make: *** No rule", done.out.splitlines())

    def test_what_is_written_can_be_read(self):
        path = os.path.join(self.dir, "r.ktap")
        tap.write(path, [("a b", "pass", []), ("c", "fail", ["why:\nbecause", "more"]), ("d", "skip", ["no c"]), ("e #1", "pass", ["it took long"])])
        self.assertEqual(read(path), "KTAP version 1\n1..4\nok 1 a b\n# why:\n# because\n# more\nnot ok 2 c\nok 3 d # SKIP no c\n"
                                     "# it took long\nok 4 e 1\n")
        self.assertEqual(tap.count(read(path).splitlines()), [2, 1, 1])

    def test_subtests_are_counted_once(self):
        text = "KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n    1..2\n    ok 1 a\n    not ok 2 b\n  not ok 1 s\n  ok 2 t # SKIP no t\nnot ok 1 x\nok 2 y\n"
        self.assertEqual(tap.count(text.splitlines()), [2, 1, 1])

    def test_join(self):
        good, bad, out = (os.path.join(self.dir, n) for n in ("good", "bad", "out"))
        tap.write(good, [("a", "pass", [])])
        tap.write(bad, [("b", "fail", ["why"])])
        run([self.path("ci/lib/tap.py"), "--join", out, "one=" + good, "two=" + bad, "three", "four=!"])
        self.assertEqual([l for l in read(out).splitlines() if "ok" in l], ["  ok 1 a", "ok 1 one", "  not ok 1 b", "not ok 2 two", "ok 3 three", "not ok 4 four"])
        self.assertEqual(tap.count(read(out).splitlines()), [2, 2, 0])
