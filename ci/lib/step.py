#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""step.py [-v] LOGDIR LABEL CMD...: run CMD with its output in a log, and print how long it takes.

Prints one line at the end, a line every minute before that, and the last 20 relevant lines of the log if CMD fails.
CMD and all processes that it starts end when this process or its parent ends.  Exit status: that of CMD.
"""
import ctypes
import os
import re
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def say(text):
    print(text, flush=True)


def last_lines(path, n):
    """Return the lines of a log about a failure: those of failed tests with the indented ones below them, or n around an error, or the last n."""
    with open(path, "rb") as f:
        f.seek(0, os.SEEK_END)
        f.seek(max(0, f.tell() - (1 << 20)))
        lines = [l for l in f.read().decode(errors="replace").splitlines() if l.strip()]
    tests, on = [], False
    for l in lines:
        on = bool(re.match("(FAIL|not ok)\\b", l)) or on and l.startswith("    ")
        if on:
            tests.append(l)
    if tests:
        return tests[:3 * n]
    lines = lines[-200:]
    # A parallel make continues for a while after an error: show the lines around the error if there is one.
    errors = [i for i, l in enumerate(lines) if re.search(r"\berror: |\*\*\* |FAILED|fatal:", l)]
    if errors and errors[0] < len(lines) - n:
        return lines[max(0, errors[0] - n // 2):][:n]
    return lines[-n:]


def guard(group):
    """Start a process that kills the group if this process dies without writing to the returned pipe, for example of SIGKILL."""
    ours, told = os.pipe()
    if os.fork():
        os.close(ours)
        return told
    os.setsid()
    os.close(told)
    # Close these, so that readers of our output do not wait for the guard.
    for fd in range(3):
        os.close(fd)
    if not os.read(ours, 1):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os._exit(0)


def main():
    args = sys.argv[1:]
    verbose = args[0] == "-v"
    if verbose:
        args = args[1:]
    logdir, label, cmd = args[0], args[1], args[2:]
    parent = os.getppid()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 143
    os.makedirs(logdir, exist_ok=True)
    log = os.path.join(logdir, re.sub(r"[^A-Za-z0-9.+-]+", "-", label).strip("-") + ".log")
    start = time.monotonic()
    # Block signals until their handlers are installed.
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def before_exec():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    with open(log, "wb") as out:
        # Give CMD its own process group, so that all of its processes can be killed at once.
        try:
            child = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=None if verbose else out,
                                     stderr=subprocess.STDOUT if not verbose else None, start_new_session=True,
                                     preexec_fn=before_exec)
        except OSError as e:
            say(f"{label}: cannot run {cmd[0]}: {e.strerror}")
            return 127
    told_guard = guard(child.pid)

    def end(signum, _frame):
        try:
            os.killpg(child.pid, signal.SIGTERM)
            time.sleep(0.5)
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.write(told_guard, b"x")
        say(f"{label}: interrupted after {time.monotonic() - start:.0f} s; rerun to continue")
        # Die of the signal: a shell that has seen the same Ctrl-C then stops, but it continues after a child that exits.
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    for s in signals:
        signal.signal(s, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    told = 0
    tty = sys.stdout.isatty()
    while True:
        try:
            status = child.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            now = int(time.monotonic() - start)
            if tty and not verbose:
                print(f"\r{label} ... {now} s ", end="", flush=True)
            elif now - told >= 60:
                told = now
                say(f"{label} ... {now} s")
    if tty and not verbose:
        print("\r\033[K", end="")
    took = time.monotonic() - start
    if status == 0:
        os.write(told_guard, b"x")
        say(f"{label}: done in {took:.0f} s")
        return 0
    say(f"{label}: FAILED after {took:.0f} s (status {status}), from {log}:")
    if not verbose:
        for line in last_lines(log, 20):
            say("    " + line)
    # Kill processes that CMD left running, because they hold locks and files.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return status if status > 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
