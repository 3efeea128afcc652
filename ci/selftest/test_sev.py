# SPDX-License-Identifier: GPL-2.0-only
"""Tests of what ci/tests/sev.py compares."""
import os
import subprocess

import sev
from world import VerbTest, run


class Sev(VerbTest):
    """ci/tests/sev.py: which differences between two logs of the security processor count."""
    LOG = ["INIT flags=1 -> SUCCESS", "DF_FLUSH dirty=3 -> SUCCESS", "LAUNCH_START policy=0 new=1 -> SUCCESS", "ACTIVATE handle=1 asid=1 -> SUCCESS",
           "LAUNCH_UPDATE_DATA handle=1 len=4096 -> SUCCESS", "LAUNCH_UPDATE_DATA handle=1 len=8192 -> SUCCESS", "DEACTIVATE handle=1 asid=1 -> SUCCESS"]

    def same(self, old, new):
        log = [new if l == old else l for l in self.LOG]
        self.assertNotEqual(log, self.LOG)
        return sev.normalized([l for l in log if l]) == sev.normalized(self.LOG)

    def test_what_may_differ(self):
        self.assertTrue(self.same("DF_FLUSH dirty=3 -> SUCCESS", None))
        self.assertTrue(self.same("ACTIVATE handle=1 asid=1 -> SUCCESS", "ACTIVATE handle=1 asid=2 -> SUCCESS"))
        self.assertTrue(self.same("LAUNCH_UPDATE_DATA handle=1 len=8192 -> SUCCESS", None))
        self.assertTrue(self.same("DEACTIVATE handle=1 asid=1 -> SUCCESS", "DEACTIVATE handle=2 asid=1 -> SUCCESS"))

    def test_what_may_not_differ(self):
        self.assertFalse(self.same("ACTIVATE handle=1 asid=1 -> SUCCESS", "ACTIVATE handle=1 asid=1 -> DFFLUSH_REQUIRED"))
        self.assertFalse(self.same("ACTIVATE handle=1 asid=1 -> SUCCESS", "ACTIVATE handle=2 asid=1 -> SUCCESS"))
        self.assertFalse(self.same("DEACTIVATE handle=1 asid=1 -> SUCCESS", None))
        self.assertFalse(self.same("LAUNCH_START policy=0 new=1 -> SUCCESS", "LAUNCH_START policy=0x4 new=1 -> SUCCESS"))
        self.assertFalse(self.same("LAUNCH_UPDATE_DATA handle=1 len=8192 -> SUCCESS", "LAUNCH_UPDATE_DATA handle=1 len=8192 -> INACTIVE"))

    def test_module_that_refuses_to_load(self):
        attempt = ["INIT flags=1 -> SUCCESS", "DF_FLUSH dirty=3 -> SUCCESS", "SHUTDOWN guests=0 -> SUCCESS"]
        self.assertEqual(sev.normalized(attempt * 2), sev.normalized(attempt))
        self.assertNotEqual(sev.normalized(self.LOG + attempt[2:] + attempt), sev.normalized(self.LOG + attempt[2:]))

    def test_a_case_that_does_not_exist(self):
        done = run([self.path("ci/tests/sev.py"), "base", "series", self.path("build/results/sev"), "nosuch"], {**self.env, "KVM_TLB_VERB": "test"})
        self.assert_refuses(done, "test", "there is no case nosuch", "smoke")

    def leaks(self, *memory, fails=0):
        """Return what LEAKS prints if free and per-CPU memory are these after each run, and the run with the number fails fails."""
        work = self.path("build/leaks")
        os.makedirs(work, exist_ok=True)
        shell = sev.LEAKS.replace("sleep 3", ":").replace("/proc/sys/vm/drop_caches", "/dev/null").replace("/proc/meminfo", f"{work}/meminfo.$i")
        for i, (free, percpu) in enumerate(memory, 1):
            with open(f"{work}/meminfo.{i}", "w", encoding="utf-8") as f:
                f.write(f"MemTotal: 900000 kB\nMemFree: {free} kB\nMemAvailable: 900000 kB\nPercpu: {percpu} kB\n")
        stub = f"svm_tlb_perf_test() {{ [ $i != {fails} ]; }}\n"
        return subprocess.run(["sh", "-c", stub + shell], check=True, capture_output=True, text=True).stdout.strip()

    def test_memory_that_comes_and_goes(self):
        self.assertEqual(self.leaks((70000, 800), (69000, 800), (69700, 804), (69600, 800)), "leaks: 300 0")

    def test_a_page_of_each_vm_leaks(self):
        self.assertRegex(self.leaks((70000, 800), (68000, 800), (66000, 800), (64000, 800)), "^rig: 4000 KB of free memory are gone")

    def test_a_word_of_each_vm_on_each_pcpu_leaks(self):
        self.assertRegex(self.leaks((70000, 800), (70000, 804), (70000, 808), (70000, 812)), "^rig: 0 KB .* 12 KB are per-CPU")

    def test_vms_that_fail_are_no_leak(self):
        for i in range(1, 5):
            self.assertEqual(self.leaks(*[(70000, 800)] * 4, fails=i), "rig: svm_tlb_perf_test failed")
