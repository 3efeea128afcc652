#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""run.py [PATTERN...]: test the commands with bad input and interruptions; called by scripts/test.

After bad input, a command must print one line that says what to do, exit with a status other than 0, leave nothing half-made, and lose
nothing.  Most tests run the commands of a copy of this project, on a kernel of a few files with a series of its own; only the boots need
products of scripts/build.  Prints one line per test, and writes build/results/verbs.ktap.  Exit status 0: no test failed.
"""
import fnmatch
import glob
import importlib
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
from world import TOP, World, end_ours, make_world    # pylint: disable=wrong-import-position


class Lines(unittest.TestResult):
    """Print one line per test, and the reason below a failure."""

    def __init__(self):
        super().__init__()
        self.failed = 0
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
        self.failed += bool(why)
        self.results.append((name, "fail" if why else "pass", why))
        print(f"{'FAIL' if why else 'ok':4} {name}{more}")
        for text in why:
            print("".join(f"    {l}\n" for l in text.splitlines()[-12:]), end="")
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
    """Yield all tests of test_*.py, file by file, or those whose Class or Class.test matches a pattern."""
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        module = importlib.import_module(os.path.basename(path).removesuffix(".py"))
        for cls in vars(module).values():
            if not isinstance(cls, type) or not issubclass(cls, unittest.TestCase) or cls.__module__ != module.__name__:
                continue
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(cls):
                name = ".".join(test.id().split(".")[-2:])
                if not patterns or any(p == cls.__name__ or fnmatch.fnmatch(name, p) for p in patterns):
                    yield test


def main():
    # Raise KeyboardInterrupt: unittest treats any other exception as the failure of one test, and continues.  This also restores SIGINT,
    # which a process in the background ignores, and so would the commands that it starts.
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, signal.default_int_handler)
    tests = unittest.TestSuite(chosen(sys.argv[1:]))
    if not tests.countTestCases():
        raise SystemExit(f"run.py: no test matches {' '.join(sys.argv[1:])}: name a class or a test of ci/selftest")
    start, lines = time.monotonic(), Lines()
    try:
        make_world()
        tests.run(lines)
    except KeyboardInterrupt:
        print("run.py: interrupted; rerun to start again", file=sys.stderr)
        sys.exit(130)
    finally:
        end_ours()
        shutil.rmtree(World.tmp or "", ignore_errors=True)
    skipped = len(lines.skipped)
    passed = max(0, lines.testsRun - lines.failed - skipped)
    os.makedirs(os.path.join(TOP, "build/results"), exist_ok=True)
    tap.write(os.path.join(TOP, "build/results/verbs.ktap"), lines.results + [(t.id(), "skip", [why]) for t, why in lines.skipped])
    print(f"verbs: {passed} passed, {lines.failed} failed, {skipped} skipped in {time.monotonic() - start:.0f} s")
    return 1 if lines.failed else 0


if __name__ == "__main__":
    sys.exit(main())
