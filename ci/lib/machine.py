# SPDX-License-Identifier: GPL-2.0-only
"""Run several emulated machines at a time: how many the host can run, their threads, and progress messages.

machine.py: print the number of processors that this process may use, for make -j.
"""
import os
import signal
import sys
import threading
import time

from guest import MEMORY, die

# Megabytes that QEMU needs in addition to L0's memory.
OVERHEAD = 512


def read(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read()
    except OSError:
        return ""


def cgroups(root):
    """Yield the directories of this process's cgroup (version 2) and of its ancestors."""
    path = next((l[3:] for l in read(root + "/proc/self/cgroup").splitlines() if l.startswith("0::")), "/")
    while True:
        yield root + "/sys/fs/cgroup" + path.rstrip("/")
        if path in ("", "/"):
            return
        path = os.path.dirname(path)


def processors(cpus=None, root=""):
    """Return the number of processors that this process may use, within the limits of its cgroups; it may be a fraction.  root: a directory
    with another /proc and /sys, for tests."""
    cpus = float(cpus or len(os.sched_getaffinity(0)))
    for directory in cgroups(root):
        quota, _, period = read(directory + "/cpu.max").partition(" ")
        if quota.isdigit():
            cpus = min(cpus, int(quota) / int(period))
    return cpus


def at_once(cpus=None, root=""):
    """Return how many machines may run at a time: one per processor that this process may use, within the memory limits of its cgroups and
    the available memory."""
    cpus = processors(cpus, root)
    memory = next((int(l.split()[1]) / 1024 for l in read(root + "/proc/meminfo").splitlines() if l.startswith("MemAvailable:")), None)
    for directory in cgroups(root):
        limit, used = read(directory + "/memory.max").strip(), read(directory + "/memory.current").strip()
        if limit.isdigit() and used.isdigit() and memory is not None:
            memory = min(memory, (int(limit) - int(used)) / 2**20)
    each = MEMORY[0] + OVERHEAD
    if memory is not None and memory < each:
        die(f"{memory:.0f} MB of memory are available, and a machine needs {each} MB: free some memory")
    return max(1, int(min(cpus, cpus if memory is None else memory / each)))


class Machine(threading.Thread):
    """The thread of one machine, or of several that run one after the other.  It runs work(), and stores an exception of work() in error."""
    # The number of boots of all machines that hung and were retried: nested guests on TCG sometimes hang at boot, on any kernel.
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
        print(f"{self.label}: did not boot, so it is booted once more: {why}", flush=True)


def hung():
    """Return text about hung boots for the last line of a report."""
    return f", {Machine.hung} boot{'s' * (Machine.hung > 1)} hung and had to be retried" if Machine.hung else ""


def run_all(machines, progress, interrupted, every=60):
    """Run all machines.  Print progress() every `every` seconds, or every five on a terminal.  After a signal, print interrupted() and die of it."""
    def stop(signum, _frame):
        # A second signal must not call close() while close() runs: both would wait for the same lock.
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
        for m in machines:
            if m.guest:
                m.guest.close()
        print(f"{interrupted()}; rerun to start again", flush=True)
        # Die of the signal, so that the calling shell does not continue; see ci/lib/step.py.
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


if __name__ == "__main__":
    print(max(1, int(processors())))
