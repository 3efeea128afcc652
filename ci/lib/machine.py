# SPDX-License-Identifier: GPL-2.0-only
"""Emulated machines, several at a time: how many this host can take, their threads, and what is printed while they run."""
import os
import signal
import sys
import threading
import time

from guest import MEMORY, die

# Megabytes.  What QEMU takes besides L0's memory.
OVERHEAD = 512


def read(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read()
    except OSError:
        return ""


def cgroups(root):
    """The directories of this process's cgroup (version 2) and of those above it."""
    path = next((l[3:] for l in read(root + "/proc/self/cgroup").splitlines() if l.startswith("0::")), "/")
    while True:
        yield root + "/sys/fs/cgroup" + path.rstrip("/")
        if path in ("", "/"):
            return
        path = os.path.dirname(path)


def at_once(cpus=None, root=""):
    """How many machines run at a time: one per processor that this process may use, its cgroups' quota taken into account, and as many as there
    is memory for.  root: of another /proc and /sys, for tests."""
    cpus = float(cpus or len(os.sched_getaffinity(0)))
    memory = next((int(l.split()[1]) / 1024 for l in read(root + "/proc/meminfo").splitlines() if l.startswith("MemAvailable:")), None)
    for directory in cgroups(root):
        quota, _, period = read(directory + "/cpu.max").partition(" ")
        if quota.isdigit():
            cpus = min(cpus, int(quota) / int(period))
        limit, used = read(directory + "/memory.max").strip(), read(directory + "/memory.current").strip()
        if limit.isdigit() and used.isdigit() and memory is not None:
            memory = min(memory, (int(limit) - int(used)) / 2**20)
    each = MEMORY[0] + OVERHEAD
    if memory is not None and memory < each:
        die(f"{memory:.0f} MB of memory are available, and a machine takes {each}: free some")
    return max(1, int(min(cpus, cpus if memory is None else memory / each)))


class Machine(threading.Thread):
    """A machine, or several of them one after the other; work() is its thread, and what work() raises stands in error."""
    # Boots that did not come up and were tried again, of all machines: nested guests on TCG hang at boot now and then, on any kernel.
    hung = 0

    def __init__(self, label, slots=None):
        super().__init__(daemon=True)
        self.label, self.slots = label, slots or threading.Semaphore(1)
        self.guest = self.error = None

    def work(self):
        raise NotImplementedError

    def run(self):
        with self.slots:
            try:
                self.work()
            except Exception as e:      # pylint: disable=broad-except
                self.error = repr(e)

    def did_not_come_up(self, why):
        Machine.hung += 1
        print(f"{self.label}: did not come up, booting it again: {why}", flush=True)


def hung():
    """For the last line of a report."""
    return f", {Machine.hung} boot{'s' * (Machine.hung > 1)} hung and had to be tried again" if Machine.hung else ""


def run_all(machines, progress, interrupted, every=60):
    """Run them all; print progress() every so many seconds, on a terminal every five; interrupted(): what is printed after a signal."""
    def stop(signum, _frame):
        for m in machines:
            if m.guest:
                m.guest.close()
        print(f"{interrupted()}; rerun to start again", flush=True)
        # As with ci/lib/step.py, the shell above must not go on.
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, stop)
    told = time.monotonic()
    for m in machines:
        m.start()
    tty = sys.stdout.isatty()
    while any(m.is_alive() for m in machines):
        time.sleep(0.2)
        if time.monotonic() - told >= (5 if tty else every):
            told = time.monotonic()
            print(progress(), end="\r" if tty else "\n", flush=True)
