# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the list and the runner of scripts/bundle, and of scripts/compare."""
import os
import re
import shutil

import rows
from test_boot import WithImage
from world import VerbTest, read, run, write

RESULTS = """KTAP version 1
# kernel: 7.9
1..3
ok 1 a # 3 s
ok 2 b npt=0 # SKIP kvm_amd has no parameter npt
not ok 3 c # status 254, 2 s
#   a message
"""


class Compare(VerbTest):
    def compare(self, *texts):
        paths = [os.path.join(self.dir, f"{i}.ktap") for i in range(len(texts))]
        for path, text in zip(paths, texts):
            write(path, text)
        return self.verb("compare", *paths)

    def test_the_same(self):
        done = self.compare(RESULTS, RESULTS)
        self.assert_ok(done, "kernel: 7.9")
        self.assertIn("\na        pass  pass\nb npt=0  skip  skip\nc        FAIL  FAIL\n", done.out)

    def test_fails_where_the_first_one_passes(self):
        done = self.compare(RESULTS, RESULTS.replace("ok 1 a # 3 s", "not ok 1 a # status 1, 3 s"))
        self.assertEqual(done.status, 1)
        self.assertIn("\nFAIL: a: B: status 1, 3 s\n", done.out)

    def test_one_that_ended_early(self):
        done = self.compare(RESULTS, RESULTS.partition("ok 2")[0])
        self.assert_ok(done, "incomplete: 1 of 3 tests")
        self.assertIn("\nc        FAIL  -\n", done.out)

    def test_no_ktap(self):
        self.assert_refuses(self.compare(RESULTS, "text\n"), "compare", "1.ktap is not a KTAP file", "scripts/bundle")
        self.assert_refuses(self.verb("compare", "nowhere", "nowhere"), "compare", "nowhere: No such file", "scripts/bundle")


class Bundle(VerbTest):
    def test_list(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 01 12/1 60\nx86/a 0 2 90 npt=0 vnmi=0 seed:3 -- -t x\nx86/a 0 2 60 cpu:x-svm-asids=4\n"
              "svm-tlb asids 1 ./b 0 2 60\nx86/a 0 2 60 kvm.x=1\nc 0 2 60\n".replace("svm-tlb asids 1 ./b 0 2 60\n", ""))
        write(self.path("selftests-dir/x86/a"), "")
        done = run([self.path("ci/bundle/tests.py"), self.path("selftests-dir")], self.env)
        self.assertEqual(done.out.splitlines()[1:], [
            "x86/a 60 -", "x86/a 90 npt=0,vnmi=0 -t x",
            "skip a cpu:x-svm-asids=4: needs the TLB model, to set the number of ASIDs",
            "skip a kvm.x=1: changes parameters of kvm, which other guests share", "skip c: these selftests do not include it"])

    def test_real_list_has_a_reason_for_each_row_that_is_left_out(self):
        for t in rows.read_list(self.path("ci/tests/selftests.list")):
            write(os.path.join(self.dir, "all", t.command.split()[-1 if "svm-tlb" not in t.command else 0].removeprefix("./")), "")
        done = run([self.path("ci/bundle/tests.py"), os.path.join(self.dir, "all")], self.env)
        self.assertEqual(done.status, 0, done)
        self.assertEqual(len(done.out.splitlines()) - 1, len(rows.read_list(self.path("ci/tests/selftests.list"))))

    def test_splat(self):
        """What dmesg prints before a message depends on the kernel's options and parameters."""
        for prefix in ("", "[    1.234567] ", "<4>[    1.234567] ", "[    1.234567][  T123] ", "[Tue Dec  1 05:00:00 2026] "):
            with self.subTest(prefix):
                write(self.path("log"), f"{prefix}nothing to see\n{prefix}WARNING: a.c:1\n{prefix}no WARNING: at the beginning\n")
                done = run(["sh", "-c", '"$0" - <"$1"', self.path("ci/guest/splat"), self.path("log")], self.env)
                self.assertEqual((done.status, done.out), (1, f"{prefix}WARNING: a.c:1\n"))

    def runner(self, *args, **env):
        return run([self.path("ci/bundle/run"), *args], {**self.env, **env})

    def test_runner_refuses(self):
        write(self.path("ci/bundle/tests"), "x86/a 60 -\n")
        for args, words in ((["--bogus"], "--bogus"), (["--timeout", "soon"], "--timeout"), (["--list", "nowhere"], "nowhere"), (["--list"], "--list")):
            with self.subTest(args):
                self.assert_refuses(self.runner(*args), "run", words)
        if "svm" not in read("/proc/cpuinfo").split():
            self.assert_refuses(self.runner(), "run", "no SVM")
        self.assertEqual([f for f in os.listdir(self.path("ci/bundle")) if "results" in f or f.endswith(".new")], [])


class BundleInL0(WithImage):
    """The runner on a machine with SVM, which is L0 here."""

    TESTS = {
        "passes": "true",
        "warns": "echo 'WARNING: of this test' >/dev/kmsg",
        "after": "echo 'Warned, but not here' >/dev/kmsg",
        # More lines than there are in the kernel log.
        "fills": "i=0; while [ $i -lt 6000 ]; do echo 'a line without a meaning, of which there are very many, so that the log is full' >/dev/kmsg; i=$((i + 1)); done",
        # The log drops at least one line for this one.
        "late": "echo 'BUG: a line that is longer than those lines, so that the log does not have more lines than it had before this test' >/dev/kmsg",
        "fails": "echo why; exit 3",
        "skips": "echo 'skip: has no reason'; exit 4",
    }

    def test_kernel_log(self):
        share = os.path.join(self.dir, "share")
        for name, text in self.TESTS.items():
            write(os.path.join(share, "selftests/x86", name), f"#!/bin/sh\n{text}\n")
            os.chmod(os.path.join(share, "selftests/x86", name), 0o755)
        write(os.path.join(share, "tests"), "".join(f"x86/{name} 60 -\n" for name in self.TESTS) + "skip other: needs another machine\n")
        write(os.path.join(share, "version"), "none\n")
        for path in ("ci/bundle/run", "ci/guest/splat"):
            shutil.copy(self.path(path), share)
        done = self.verb("boot", "--cpus", "1", "--share", share, "--", "sh", "-c", "cp -r /share /tmp/b; cd /tmp/b; ./run", timeout=180)
        self.assertEqual(done.status, 1, done)
        self.assertNotIn("not checked", done.out)
        results = [(name.partition(" #")[0], "kernel log: " in name, outcome) for outcome, name in re.findall(r"(?m)^((?:not )?ok) \d+ (.*)$", done.out)]
        self.assertEqual(results, [("passes", False, "ok"), ("warns", True, "not ok"), ("after", False, "ok"), ("fills", False, "ok"), ("late", True, "not ok"),
                                   ("fails", False, "not ok"), ("skips", False, "ok"), ("other", False, "ok")], done.out)
        self.assertRegex(done.out, "(?m)^# Totals: pass:3 fail:3 skip:2$")
