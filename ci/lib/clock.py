# SPDX-License-Identifier: GPL-2.0-only
"""A clock for time limits that do not depend on the speed or the load of the machine."""
import os
import threading
import time

# The seconds that spin() takes on the idle machine for which the limits in ci/tests/selftests.list were chosen.
SPIN = 0.0045


def spin():
    """Return the processor seconds of a fixed amount of work: a loop of an interpreter, similar to TCG."""
    start, x = time.thread_time(), 0
    for i in range(30000):
        x = (x * 1103515245 + i) & 0xffffffff
    return time.thread_time() - start


def threads(pid):
    """Map each thread to the seconds for which it ran, and for which it waited for a processor."""
    found = {}
    try:
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
                found[tid] = [int(n) / 1e9 for n in f.read().split()[:2]]
    except OSError:
        # The process or a thread has ended, or this kernel does not have the file.
        pass
    return found


def crowded():
    """Return the number of threads per processor that are ready to run, at least 1."""
    with open("/proc/loadavg", encoding="ascii") as f:
        ready = int(f.read().split()[3].partition("/")[0])
    return max(1.0, ready / len(os.sched_getaffinity(0)))


class Clock:
    """Count the seconds that a process would have taken on an idle machine as fast as the one for which the limits were chosen.

    Time for which threads of the process wait for a processor does not count, and time for which they run counts less if the processor
    is slower.  Time for which they sleep counts fully.  Without a process, the clock assumes one that never sleeps, and estimates its
    waiting time from the number of threads that are ready to run.
    """

    def __init__(self, pid=None):
        self.pid, self.seconds, self.slow = pid, 0.0, 1.0
        self.last, self.threads = time.monotonic(), threads(pid)
        self.lock = threading.Lock()

    def now(self):
        with self.lock:
            now = time.monotonic()
            if now - self.last < 0.2:
                # This interval is too short to measure: extrapolate, and measure it with the next one.
                return self.seconds + (now - self.last) / self.slow
            took, seen = now - self.last, threads(self.pid)
            ran, waited = (sum(max(0, t[i] - self.threads.get(tid, (0, 0))[i]) for tid, t in seen.items()) for i in (0, 1))
            if seen:
                busy = min(took, ran + waited)
                passed = took - busy * waited / (ran + waited or 1)
            else:
                passed = took / crowded()
            passed /= max(1.0, spin() / SPIN)
            # Limit the factor: an interval in which next to nothing ran says little about the next one.
            passed = max(passed, took / 20)
            self.slow = took / passed
            self.seconds += passed
            self.last, self.threads = now, seen
            return self.seconds
