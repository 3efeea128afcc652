# SPDX-License-Identifier: GPL-2.0-only
"""Time limits that do not depend on the speed of the machine, nor on what else it runs."""
import os
import threading
import time

# How long spin() takes on an idle machine like the one that the limits of ci/tests/selftests.list were made on.
SPIN = 0.0045


def spin():
    """Processor seconds of a fixed amount of work: a loop of an interpreter, as TCG is one."""
    start, x = time.thread_time(), 0
    for i in range(30000):
        x = (x * 1103515245 + i) & 0xffffffff
    return time.thread_time() - start


def threads(pid):
    """Thread -> seconds that it ran, and that it was ready and waited for a processor."""
    found = {}
    try:
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
                found[tid] = [int(n) / 1e9 for n in f.read().split()[:2]]
    except OSError:
        # It has ended, or a thread of it has, or this kernel doesn't say.
        pass
    return found


def crowded():
    """Threads that are ready to run for each processor, 1 at least."""
    with open("/proc/loadavg", encoding="ascii") as f:
        ready = int(f.read().split()[3].partition("/")[0])
    return max(1.0, ready / len(os.sched_getaffinity(0)))


class Clock:
    """Seconds that pass for a process: as many as it would take on an idle machine that isn't slower than the one the limits were made on.

    Between two looks at it, of the time that its threads were ready for a processor only the part passes in which they had one, and less
    if the processor is slower at the moment.  While they sleep, all of it passes.  Without a process: the same for any that doesn't
    sleep, going by how many threads want to run.
    """

    def __init__(self, pid=None):
        self.pid, self.seconds, self.slow = pid, 0.0, 1.0
        self.last, self.threads = time.monotonic(), threads(pid)
        self.lock = threading.Lock()

    def now(self):
        with self.lock:
            now = time.monotonic()
            if now - self.last < 0.2:
                # Too short to tell; it will be part of the next look.
                return self.seconds + (now - self.last) / self.slow
            took, seen = now - self.last, threads(self.pid)
            ran, waited = (sum(max(0, t[i] - self.threads.get(tid, (0, 0))[i]) for tid, t in seen.items()) for i in (0, 1))
            if seen:
                busy = min(took, ran + waited)
                passed = took - busy * waited / (ran + waited or 1)
            else:
                passed = took / crowded()
            passed /= max(1.0, spin() / SPIN)
            # A moment in which next to nothing ran says little about the next one.
            passed = max(passed, took / 20)
            self.slow = took / passed
            self.seconds += passed
            self.last, self.threads = now, seen
            return self.seconds
