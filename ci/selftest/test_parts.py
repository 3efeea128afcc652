# SPDX-License-Identifier: GPL-2.0-only
"""Tests of scripts/test: its parts, and its summary of failures."""
import os
import re
import signal

import tap
from world import VerbTest, finish, ours, read, started, wait_until, write


class Test(VerbTest):
    """scripts/test, with fake parts."""

    def parts(self, *arguments, **broken):
        for name in ("build", "run", "mutants", "bench", "check", "ci/tests/sev", "ci/tests/l1", "ci/tests/lockdep", "ci/tests/builtin", "ci/tests/stress", "ci/tests/foreign", "ci/build/qemu", "ci/qemu/rules/run", "ci/build/image",
                     "ci/tests/kunit"):
            write(self.path(name if "/" in name else f"scripts/{name}"), "#!/bin/sh\n" + broken.get(name.replace("/", "_"), "echo fine\n"))
        write(self.path("ci/selftest/run.py"), "print('fine')\n")
        return self.verb("test", *arguments)

    def results(self, passed, failed, skipped):
        """Return shell text that writes these results for the part run."""
        lines = ["pass\\tit"] * passed + ["fail\\tit\\twhy"] * failed + ["skip\\tit\\twhy"] * skipped
        return f"printf '{''.join(l + chr(92) + 'n' for l in lines)}' | {self.path('ci/lib/tap.py')} --write {self.path('build/results/run.ktap')}\n"

    def test_all_pass(self):
        done = self.parts(run=self.results(5, 0, 2))
        self.assert_ok(done)
        self.assertTrue(done.out.endswith("\n13 passed, 0 failed, 2 skipped\n"), done.out)
        self.assertNotIn("failed in", done.out)
        lines = read(self.path("build/results/test.ktap")).splitlines()
        self.assertEqual(lines[:3] + lines[-1:], ["KTAP version 1", "1..9", "  KTAP version 1", "ok 9 check"])
        self.assertEqual(tap.count(lines), [13, 0, 2])
        page = read(self.path("build/results/index.html"))
        self.assertIn("<h1 class=good>13 passed, 0 failed, 2 skipped</h1>", page)
        self.assertIn("<tr><td>run</td><td class=good>passed</td><td class=n>5</td><td class=n>0</td><td class=n>2</td>", page)
        self.assertIn('<a href="run.out">log</a> <a href="run.ktap">KTAP</a>', page)
        self.assertNotIn("What failed", page)

    def test_all_has_five_parts_more(self):
        done = self.parts("--all", run=self.results(5, 0, 2))
        self.assert_ok(done)
        self.assertTrue(done.out.endswith("\n18 passed, 0 failed, 2 skipped\n"), done.out)

    def test_all_has_all_l1s(self):
        got = 'echo "got ($*)"\n'
        self.assertIn("\ngot (--all)\n", self.parts("--all", ci_tests_foreign=got).out)
        self.assertIn("\ngot ()\n", self.parts("foreign", ci_tests_foreign=got).out)

    def test_all_has_an_hour_of_stress(self):
        got = 'echo "got (${KVM_TLB_STRESS-})"\n'
        self.assertIn("\ngot (3600)\n", self.parts("--all", ci_tests_stress=got).out)
        self.assertIn("\ngot ()\n", self.parts("stress", ci_tests_stress=got).out)

    def test_some_parts_in_their_order(self):
        done = self.parts("check", "kunit")
        self.assert_ok(done)
        self.assertEqual(re.findall(r"^== (\w+) \(", done.out, re.M), ["kunit", "check"])
        self.assertTrue(done.out.endswith("\n2 passed, 0 failed, 0 skipped\n"), done.out)

    def test_list_names_all_parts(self):
        listed_parts = [l.split()[0] for l in self.verb("test", "--list").out.splitlines()]
        done = self.parts("--all")
        self.assertEqual(re.findall(r"^== (\w+) \(", done.out, re.M), listed_parts)

    def test_list_of_a_part(self):
        self.assertIn("\nxen-4.20 asids=8 series\n", self.verb("test", "--list", "foreign").out)
        done = self.verb("test", "--list", "sev")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertIn("--list takes no part but foreign", done.err)

    def test_a_failed_build_ends_it(self):
        done = self.parts(build="echo no compiler >&2; exit 1\n")
        self.assertEqual(done.status, 1)
        self.assertIn("the kernels cannot be built: nothing was tested", done.err)
        self.assertNotIn("== run", done.out)

    def test_no_results_of_an_earlier_run(self):
        for name in ("index.html", "junit.xml", "test.ktap"):
            write(self.path("build/results/" + name), "an old one\n")
        self.parts(build="exit 1\n")
        self.assertEqual([f for f in os.listdir(self.path("build/results")) if f != "check.out"], [])

    def test_links_to_what_ran(self):
        write(self.path("build/results/bench.html"), "an old one\n")
        self.assert_ok(self.parts("kunit"))
        self.assertNotIn("bench.html", read(self.path("build/results/index.html")))
        self.assert_ok(self.parts("bench"))
        self.assertIn("bench.html", read(self.path("build/results/index.html")))

    def test_junit(self):
        kunit = self.path("build/src/tools/testing/kunit/kunit.py")
        # Its status is that of the tests.
        write(kunit, "import sys\nopen(sys.argv[2].partition('=')[2], 'w').write('<xml>')\nsys.exit(1)\n")
        self.assert_ok(self.parts("kunit"))
        self.assertEqual(read(self.path("build/results/junit.xml")), "<xml>")
        write(kunit, "no Python\n")
        done = self.parts("kunit")
        self.assertEqual(done.status, 1)
        self.assertIn("FAIL: kunit.py wrote no junit.xml: see ", done.out)
        self.assertTrue(done.out.endswith("\n1 passed, 1 failed, 0 skipped\n"), done.out)
        self.assertIn("<h1 class=bad>1 passed, 1 failed, 0 skipped</h1>", read(self.path("build/results/index.html")))

    def test_says_again_what_failed(self):
        done = self.parts(run="echo ok; echo 'FAIL: one'; echo '    its reason'; echo more\n" + self.results(7, 1, 0) + "exit 1",
                          bench="echo cannot >&2; exit 3", check="echo 'a: FAILED after 3 s'; exit 1")
        self.assertEqual(done.status, 1)
        page = read(self.path("build/results/index.html"))
        self.assertIn("<h1 class=bad>13 passed, 3 failed, 0 skipped</h1>", page)
        self.assertIn("<h2>What failed</h2>\n<h3>run: it</h3>\n<pre>why</pre>", page)
        _, _, end = done.out.partition("== done")
        self.assertEqual(end.splitlines()[1:], ["failed in run:", "FAIL: one", "    its reason", "failed in bench:", "cannot",
                                                "failed in check:", "a: FAILED after 3 s", "13 passed, 3 failed, 0 skipped"])

    def test_ctrl_c_ends_all_of_it(self):
        write(self.path("scripts/build"), "#!/bin/sh\n")
        write(self.path("scripts/run"), "#!/bin/sh\nsleep 1000\n")
        with started(self.command("test"), self.env) as p:
            self.assertTrue(wait_until(lambda: "sleep 1000" in ours().values(), 30))
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
        self.assertNotEqual(done.status, 0)
        self.assertNotIn("== verbs", done.out, "it went on with the next part")
