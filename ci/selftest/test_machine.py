# SPDX-License-Identifier: GPL-2.0-only
"""Tests of ci/lib/machine.py: the number of machines at a time, and their threads."""
import os
import shutil
import signal
import sys
import tempfile
import unittest

import machine
from world import TOP, World, run, write

MANY = 64 << 20     # kB


class AtOnce(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(dir=World.tmp)
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.write("proc/self/cgroup", "0::/a/b\n")
        self.write("proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {MANY} kB\n")

    def write(self, path, text):
        os.makedirs(os.path.dirname(os.path.join(self.root, path)), exist_ok=True)
        write(os.path.join(self.root, path), text)

    def test_processors(self):
        self.assertEqual(machine.at_once(3, self.root), 3)
        self.assertEqual(machine.at_once(), machine.at_once(len(os.sched_getaffinity(0))))

    def test_quota_of_a_cgroup_above(self):
        self.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
        self.write("sys/fs/cgroup/a/cpu.max", "250000 100000\n")
        self.write("sys/fs/cgroup/cpu.max", "400000 100000\n")
        self.assertEqual(machine.at_once(64, self.root), 2)
        self.assertEqual(machine.processors(64, self.root), 2.5)
        self.write("sys/fs/cgroup/a/cpu.max", "50000 100000\n")
        self.assertEqual(machine.at_once(64, self.root), 1)

    def test_memory(self):
        self.write("proc/meminfo", f"MemAvailable: {10 << 20} kB\n")
        self.assertEqual(machine.at_once(64, self.root), 2)

    def test_memory_of_a_cgroup(self):
        self.write("sys/fs/cgroup/a/b/memory.max", f"{16 << 30}\n")
        self.write("sys/fs/cgroup/a/b/memory.current", f"{1 << 30}\n")
        self.assertEqual(machine.at_once(64, self.root), 3)
        self.write("sys/fs/cgroup/a/b/memory.max", "max\n")
        self.assertEqual(machine.at_once(13, self.root), 13)

    def test_too_little_memory(self):
        self.write("proc/meminfo", f"MemAvailable: {1 << 20} kB\n")
        with self.assertRaisesRegex(SystemExit, "1024 MB of memory are available, and a machine needs 4608 MB"):
            machine.at_once(2, self.root)

    def test_neither_proc_nor_cgroups(self):
        self.assertEqual(machine.at_once(5, os.path.join(self.root, "nowhere")), 5)


class Threads(unittest.TestCase):
    def test_what_work_raises(self):
        class Bad(machine.Machine):
            def work(self):
                raise OSError("no disk")
        bad = Bad("a machine")
        bad.start()
        bad.join()
        self.assertEqual(bad.error, "OSError('no disk')")

    def test_two_signals(self):
        # timeout(1), for example, sends its signal to the process and then to its group.
        program = """if True:
            import os, signal, threading, time, machine
            class Guest:
                lock = threading.Lock()
                def close(self):
                    with self.lock:
                        os.kill(os.getpid(), signal.SIGTERM)
                        time.sleep(0.1)
            class Long(machine.Machine):
                def work(self):
                    self.guest = Guest()
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(1000)
            machine.run_all([Long("a machine")], str, lambda: "interrupted")
        """
        done = run([sys.executable, "-c", program], {**World.env, "PYTHONPATH": os.path.join(TOP, "ci/lib")}, timeout=30)
        self.assertEqual((done.status, done.out), (-signal.SIGTERM, "interrupted; rerun to start again\n"), done)

    def test_hung_boots_are_counted(self):
        self.addCleanup(setattr, machine.Machine, "hung", machine.Machine.hung)
        machine.Machine.hung = 0
        self.assertEqual(machine.hung(), "")
        machine.Machine("a machine").did_not_come_up("no end")
        self.assertEqual(machine.hung(), ", 1 boot hung and had to be retried")
        machine.Machine("a machine").did_not_come_up("no end")
        self.assertEqual(machine.hung(), ", 2 boots hung and had to be retried")
