#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""run.py [PATTERN...]: test the commands with bad input and interruptions; called by scripts/test.

After bad input, a command must print one line that says what to do, exit with a status other than 0, leave nothing half-made, and lose
nothing.  Most tests run the commands of a copy of this project, on a kernel of a few files with a series of its own; only the boots need
products of scripts/build.  Two processes share the classes of tests.  Prints one line per test, and writes build/results/verbs.ktap.
Exit status 0: no test failed.
"""
import fnmatch
import glob
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path += [os.path.join(HERE, "..", d) for d in ("lib", "tests", "bench", "series")]
# ci/tests/mutants.py needs this variable, which ci/lib/common.sh sets.
os.environ.setdefault("CACHE", "")
import tap      # pylint: disable=wrong-import-position
from world import TOP, World, die_with_us, end_ours, make_world, own_world    # pylint: disable=wrong-import-position

PROCESSES = 2


class Lines(unittest.TestResult):
    """Print one line per test, and the reason below a failure."""

    def __init__(self):
        super().__init__()
        self.why = self.began = None
        self.results = []

    def startTest(self, test):      # pylint: disable=invalid-name
        super().startTest(test)
        self.why, self.began = [], time.monotonic()

    def stopTest(self, test):       # pylint: disable=invalid-name
        super().stopTest(test)
        name = f"{type(test).__name__}.{test.id().rpartition('.')[2]}"
        self.line(name, self.why, f" ({time.monotonic() - self.began:.1f} s)")
        self.why = None

    def line(self, name, why, more=""):
        self.results.append((name, "fail" if why else "pass", why))
        # Write all of it at once: the other process prints, too.
        sys.stdout.write(f"{'FAIL' if why else 'ok':4} {name}{more}\n" + "".join(f"    {l}\n" for text in why for l in text.splitlines()[-12:]))
        sys.stdout.flush()

    def bad(self, test, text):
        if self.why is None:
            # The failure is in the set-up of a class.
            self.line(str(test), [text])
        else:
            self.why.append(text)

    def addError(self, test, err):      # pylint: disable=invalid-name
        super().addError(test, err)
        self.bad(test, self.errors[-1][1])

    def addFailure(self, test, err):    # pylint: disable=invalid-name
        super().addFailure(test, err)
        self.bad(test, self.failures[-1][1])

    def addSubTest(self, test, subtest, err):   # pylint: disable=invalid-name
        super().addSubTest(test, subtest, err)
        if err:
            self.bad(test, (self.failures + self.errors)[-1][1] + str(subtest))


def chosen(patterns):
    """Return the classes of test_*.py, each as a list of those of its tests whose Class or Class.test matches a pattern (default: all)."""
    classes = []
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        module = importlib.import_module(os.path.basename(path).removesuffix(".py"))
        for cls in vars(module).values():
            if not isinstance(cls, type) or not issubclass(cls, unittest.TestCase) or cls.__module__ != module.__name__:
                continue
            tests = [t for t in unittest.defaultTestLoader.loadTestsFromTestCase(cls)
                     if not patterns or any(p == cls.__name__ or fnmatch.fnmatch(".".join(t.id().split(".")[-2:]), p) for p in patterns)]
            if tests:
                classes.append(tests)
    # Start with the classes that take longest, so that no process idles at the end.
    return sorted(classes, key=lambda tests: not getattr(tests[0], "takes_long", False))


def on_signals(handler):
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, handler)


def work(classes, following, pipe):
    """Run classes that no other process has taken.  following: the index of the first of these.  Send the results to pipe."""
    die_with_us()
    own_world()
    lines = Lines()
    try:
        while True:
            with following:
                index, following.value = following.value, following.value + 1
            if index >= len(classes):
                break
            unittest.TestSuite(classes[index]).run(lines)
        pipe.send((lines.results + [(t.id(), "skip", [why]) for t, why in lines.skipped], lines.testsRun))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        on_signals(signal.SIG_IGN)
        end_ours()


def main():
    # Raise KeyboardInterrupt: unittest treats any other exception as the failure of one test, and continues.  This also restores SIGINT,
    # which a process in the background ignores, and so would the commands that it starts.
    on_signals(signal.default_int_handler)
    classes = chosen(sys.argv[1:])
    if not classes:
        raise SystemExit(f"run.py: no test matches {' '.join(sys.argv[1:])}: name a class or a test of ci/selftest")
    start, results, run, workers = time.monotonic(), [], 0, []
    context = multiprocessing.get_context("fork")
    following = context.Value("i", 0)
    try:
        make_world()
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe(duplex=False)
            workers.append((context.Process(target=work, args=(classes, following, theirs), daemon=True), ours))
            workers[-1][0].start()
            theirs.close()
        for number, (_, pipe) in enumerate(workers):
            try:
                more, n = pipe.recv()
            except EOFError:
                more, n = [(f"process {number}", "fail", ["it ended before its tests"])], 1
            results += more
            run += n
    except KeyboardInterrupt:
        print("run.py: interrupted; rerun to start again", file=sys.stderr)
        sys.exit(130)
    finally:
        for process, _ in workers:
            process.terminate()
            process.join()
        shutil.rmtree(World.tmp or "", ignore_errors=True)
    failed, skipped = (sum(verdict == v for _, verdict, _ in results) for v in ("fail", "skip"))
    passed = max(0, run - failed - skipped)
    os.makedirs(os.path.join(TOP, "build/results"), exist_ok=True)
    tap.write(os.path.join(TOP, "build/results/verbs.ktap"), results)
    print(f"verbs: {passed} passed, {failed} failed, {skipped} skipped in {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
