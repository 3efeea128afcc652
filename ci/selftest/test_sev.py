# SPDX-License-Identifier: GPL-2.0-only
"""Tests of what ci/tests/sev.py compares."""
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
