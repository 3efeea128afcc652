#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""matrix.py [options] BASE-IMAGE SERIES-IMAGE OUTDIR [PATTERN...]: called by scripts/run; "-" in place of an image leaves that kernel out.

Runs ci/tests/selftests.list on both kernels, in L0 and in L1, with one and two pCPUs, and, with --vmx, the tests of another list on the machine
with VMX; prints the tables and writes selftests.tsv.
Exit status 0: the series fails no test that the base passes, and each failure of the base is listed in ci/tests/known-failures.  An unlisted
failure of the base is retried once; flakes are reported.
"""
import argparse
import contextlib
import itertools
import os
import re
import subprocess
import sys
import threading
import time

import machine
import tap
from bochs import BochsGuest
from guest import TOP, Guest, GuestError, die, host_kvm, say_where
from report import FIRST, PASSED, Key, Result, report, write_tsv
from rows import LEVELS, VMX, called, of_builtin, of_kvm, of_tree, of_vmx, one_of_each, read_known, read_list, runs_on

# Limits are in seconds of ci/lib/clock.py.  These are the limits for booting L0, L1 in it, and the machine with VMX.
BOOT = {0: 120, 1: 240, VMX: 120}
# A test that passes, but takes longer than its limit in the list, is reported as slow; one that takes PATIENCE times as long hangs.
PATIENCE = 3
# The guest gets this much time to end a test that hangs; after that, the guest itself hangs.
GRACE = 60


class Limits(threading.Thread):
    """A thread that ends a test, or the guest, after its time limit, and tells the guest how slow it is."""

    def __init__(self, guest, seconds):
        super().__init__(daemon=True)
        self.guest, self.over = guest, threading.Event()
        self.deadline, self.word = seconds, None
        self.told = False       # whether the guest was told to end the test
        self.why = None         # seconds after which the guest was stopped
        self.slow = None
        self.start()

    def begin(self, deadline, word=None):
        """Set the limit for what begins now.  word: the line that the guest gets after the deadline."""
        self.deadline, self.word, self.told = deadline, word, False

    def tell(self, text):
        with contextlib.suppress(OSError):
            self.guest.process.stdin.write(text.encode() + b"\n")
            self.guest.process.stdin.flush()

    def run(self):
        while not self.over.wait(1):
            now = self.guest.clock.now()
            slow, listens = self.guest.clock.slow, self.word
            if listens and not 0.8 < slow / (self.slow or 0.1) < 1.25:
                self.slow = slow
                self.tell(f"slow {slow:.2f}")
            if now > self.deadline and self.word:
                self.told = True
                self.tell(self.word)
            if now > self.deadline + (GRACE if self.word else 0):
                self.why = f"{now:.0f}"
                self.guest.end()
                return


class Machine(machine.Machine):
    """One kernel at one level, with one number of pCPUs of one kind.  Boots as often as needed to run every test once.

    emulator: the directory of QEMU, or, at the level VMX, of Bochs."""

    patience = PATIENCE
    vmx_oracle = True

    def __init__(self, slots, results, known, kernel, image, level, pcpus, hardware, tests, emulator, model):
        super().__init__(f"{kernel} {LEVELS[level]} {pcpus} pCPU{'s' if pcpus > 1 else ''}", slots)
        # The oracle is exact on one processor; on two, it would mostly report the legal window between zap and flush.  It doubles the time
        # of L1, so the base runs with it in L0 only.
        oracle = pcpus == 1 and (self.vmx_oracle if level == VMX else not (kernel == "base" and level == 1))
        self.model = "strict" if model == "on" and oracle else model
        self.results, self.known, self.emulator = results, known, emulator
        self.kernel, self.image, self.level, self.pcpus, self.hardware, self.tests = kernel, image, level, pcpus, hardware, tests
        self.again = set()

    def done(self, test, outcome, seconds, note, tlb=None, failed=()):
        stale = tlb and tlb["stale"] + tlb["stale_rights"]
        if stale and outcome == "pass":
            outcome, note = "fail", f"the oracle found {stale} stale translations at VMRUN"
            if self.level == VMX:
                note = f"the machine found {tlb['stale']} stale translations at VM entry, and {tlb['stale_rights']} VMCSs that two pCPUs had"
        elif outcome == "pass" and seconds > test.limit:
            outcome, note = "slow", f"took {seconds:.0f} s with a limit of {test.limit} s"
        self.results[self.key(test)] = Result(outcome, seconds, note, tlb, failed)

    def work(self):
        self.run_all(self.tests)
        if self.kernel == "base":
            self.confirm()

    def run_all(self, tests):
        todo, boots = list(tests), 0
        while todo:
            before = len(todo)
            tried = len(self.again)
            todo = self.boot(todo)
            boots = boots + 1 if len(todo) == before and len(self.again) == tried else 0
            if boots == 1:
                self.did_not_come_up(self.error)
            elif boots:
                for t in todo:
                    self.done(t, "fail", 0, "not run: " + self.error)
                break

    def confirm(self):
        """Retry the base's unlisted failures once: they may be flakes, and say nothing about the series.

        A test that fails again must be listed.  If it passes, its note keeps the message of the failure, and the report names it.
        """
        first = [(t, self.results[self.key(t)]) for t in self.tests if (self.level, t.name) not in self.known]
        first = [(t, was) for t, was in first if was.outcome == "fail" and not was.note.startswith("not run")]
        self.run_all([t for t, _ in first])
        for t, was in first:
            now = self.results[self.key(t)]
            self.results[self.key(t)] = now._replace(note=FIRST + was.note if now.outcome in PASSED else now.note + ", twice")

    def key(self, test):
        return Key(self.kernel, self.level, self.pcpus, test.name)

    def new_guest(self, command):
        if self.level == VMX:
            return BochsGuest(self.image, self.pcpus, command, bochs=self.emulator, model=self.model, append=self.hardware.append)
        arguments = self.hardware._asdict()
        return Guest(self.image, self.level, f"{self.pcpus}/{arguments.pop('vcpus')}", command, qemu=self.emulator, model=self.model,
                     stdin=subprocess.PIPE, **arguments)

    def boot(self, todo):
        """Run todo in one boot; return the tests that could not run because the guest died before them."""
        lines = "".join(f"{i} {t.params} {t.command}\n" for i, t in enumerate(todo))
        command = f"cat >/tmp/list <<'END'\n{lines}END\nexec run-tests /tmp/list\n"
        self.guest = guest = self.new_guest(command)
        clock = guest.clock
        current, start, reached, case = None, 0, 0, ""
        before = tlb = None
        # Buffer only lines, so that the log of an interrupted run is complete.
        log = open(os.path.join(OUT, "log", self.label.replace(" ", "-") + ".txt"), "a", buffering=1, encoding="utf-8")
        # This thread ends tests, and the guest, that hang.
        limits = Limits(guest, BOOT[self.level])
        died = None
        try:
            failed, said = None, []

            def end_of_output():
                """Store the result of a failed test after its output has ended."""
                nonlocal failed, said
                if failed:
                    test, seconds, note, counts = failed
                    cases = tap.failed_cases(said)
                    text = tap.one_line(cases)
                    for line in said:
                        if line.startswith("RIG_SEED="):
                            cases[-1][1].append(f"to repeat its random numbers, add seed:{line[9:]} to its row")
                    if not cases[0][0]:
                        note += ": " * bool(text) + text
                    elif note.startswith("status "):
                        note = text
                    else:
                        note = f"{text} ({note})"
                    self.done(test, "fail", seconds, note, counts, cases)
                failed, said = None, []

            for raw in guest.process.stdout:
                line = raw.decode(errors="replace").rstrip("\r\n")
                if line.startswith("#   ") and failed:
                    said.append(line[4:])
                    log.write(f"{failed[0].name}: {line[4:]}\n")
                    continue
                end_of_output()
                m = re.match(r"# start (\d+)$", line)
                if m:
                    current, start, case = int(m[1]), clock.now(), ""
                    # If the base is known to fail, then a hang is no news.
                    patience = 1 if self.kernel == "base" and (self.level, todo[current].name) in self.known else self.patience
                    # A machine without input ends with its test.
                    limits.begin(start + patience * todo[current].limit, f"end {current}" if guest.process.stdin else None)
                    continue
                if line.startswith("# tlb "):
                    now = {k: int(v) for k, v in (w.split("=") for w in line.split()[2:])}
                    tlb = before and {k: now[k] - before[k] for k in now}
                    before = now
                    continue
                if line.startswith("# case "):
                    case = line[7:] + ": "
                    continue
                m = re.match(r"(ok|not ok) \d+ - (\d+) # (?:SKIP ?(.*?) ?# )?time=([\d.]+) ?(.*)$", line)
                if m:
                    current = int(m[2])
                    test, seconds = todo[current], clock.now() - start
                    outcome = "fail" if m[1] != "ok" else "pass" if m[3] is None else "skip"
                    log.write(f"{outcome} {m[4]} s, {seconds:.1f} s undisturbed: {test.name}\n")
                    if outcome == "fail":
                        failed = test, seconds, f"hangs: no end after {seconds:.0f} s" if limits.told and m[5] == "killed" else m[5], tlb
                    else:
                        self.done(test, outcome, seconds, m[3] or m[5], tlb)
                    reached, current = current + 1, None
                    limits.begin(clock.now() + GRACE)
                    continue
                if not line.startswith(("TAP version", "1..")):
                    log.write(line + "\n")
            end_of_output()
            guest.process.wait()
            status = guest.result(limits.why)
            if status and current is None and reached < len(todo):
                died = f"run-tests ended with status {status}"
        except GuestError as e:
            end_of_output()
            died = str(e)
        finally:
            limits.over.set()
            counters = guest.counters()
            if ",x-sev=on" in self.hardware.cpu:
                with open(os.path.join(OUT, "log", self.label.replace(" ", "-") + "-psp.txt"), "a", encoding="utf-8") as f:
                    f.writelines(l + "\n" for l in guest.psp_log())
            guest.close()
        stale = counters.get("audit", 0) + counters.get("audit_rights", 0)
        if self.level == 1 and stale:
            # The counters do not show which test in L1 caused it.
            self.results[Key(self.kernel, self.level, self.pcpus, "oracle")] = Result("fail", 0, f"{stale} stale translations at VMRUN")
        if died:
            log.write(died + "\n")
        log.close()
        if current is not None:
            self.error = died or "the guest ended"
            if self.kernel == "base" and todo[current].name not in self.again:
                # Stale translations let a guest write to memory that it no longer owns, and that may belong to L0.
                print(f"{self.label}: {todo[current].name}: the guest died, so the test is retried: " + self.error.split("\n")[0], flush=True)
                self.again.add(todo[current].name)
                return todo[current:]
            why, *rest = ("the guest died: " + self.error).splitlines()
            self.done(todo[current], "fail", clock.now() - start, case + why, None, [(case.rstrip(": "), [why] + rest)])
            reached = current + 1
        elif reached < len(todo):
            self.error = (died or "the guest ended early").split("\n")[0]
        return todo[reached:]


def main():
    global OUT
    parser = argparse.ArgumentParser()
    parser.add_argument("--levels", default="01")
    parser.add_argument("--pcpus", default="123")
    parser.add_argument("--model", default="on", choices=("on", "off", "kvm"), help="the TLB model; with one pCPU, its oracle is on as well; kvm: see guest.py")
    parser.add_argument("--slow", type=int, default=1, help="factor for all time limits, for kernels with debug options")
    parser.add_argument("--patience", type=int, default=PATIENCE, help="a test hangs if it takes this many times its limit")
    parser.add_argument("--list", default=os.path.join(TOP, "ci/tests/selftests.list"))
    parser.add_argument("--vmx", help="a list of tests to run on the machine with VMX")
    parser.add_argument("--no-vmx-oracle", action="store_true", help="the oracle of the machine with VMX removes what it reports; keep it, for the tests to notice")
    parser.add_argument("--builtin", action="store_true", help="KVM is built into the kernels")
    parser.add_argument("--own", help="run a short list for these programs, separated by commas; see one_of_each()")
    parser.add_argument("--other", default="", help="with --own: more programs, of which one row each is enough")
    parser.add_argument("--parameters", default="", help="with --own: the parameters of kvm_amd and kvm_intel")
    parser.add_argument("--check", action="store_true", help="only refuse patterns that match no test")
    parser.add_argument("--tree", help="SERIES-IMAGE was made from a --tree kernel, which is in this directory")
    parser.add_argument("base")
    parser.add_argument("series")
    parser.add_argument("out")
    parser.add_argument("patterns", nargs="*")
    args = parser.parse_args()
    images = {k: i for k, i in (("base", args.base), ("tree" if args.tree else "series", args.series)) if i != "-"}
    OUT, patterns, Machine.patience, Machine.vmx_oracle = args.out, args.patterns, args.patience, not args.no_vmx_oracle
    known = read_known(os.path.join(TOP, "ci/tests/known-failures"))
    tests = read_list(args.list) if args.levels else []
    missing = of_tree(tests, args.tree, patterns) if args.tree and tests else {}
    if args.model == "kvm":
        module = host_kvm()
        missing = {**of_kvm(tests, module), **missing}
    missing = {(False, name): why for name, why in missing.items()}
    if args.vmx:
        vmx = of_vmx(read_list(args.vmx))
        missing.update({(True, name): why for name, why in (of_tree(vmx, args.tree, patterns, "kvm_intel") if args.tree else {}).items()})
        tests += vmx

    def why_not(t):
        return missing.get((VMX in t.levels, t.name))
    lists = " and ".join(["ci/tests/selftests.list"] * bool(args.levels) + ["ci/tests/selftests-vmx.list"] * bool(args.vmx))
    tests = [t for t in tests if not patterns or any(called(t, p) for p in patterns)]
    for p in patterns:
        if not any(called(t, p) for t in tests):
            die(f"no test in {lists} is called {p}" + (", and this tree has no such selftest" if args.tree else "") + ": see scripts/run --list")
    if args.check:
        return 0
    os.makedirs(os.path.join(OUT, "log"), exist_ok=True)
    tests = [t._replace(levels=[l for l in t.levels if str(l) in args.levels or l == VMX], limit=t.limit * args.slow,
                        pcpus={l: [p for p in ps if str(p) in args.pcpus] for l, ps in t.pcpus.items()}) for t in tests]
    tests = [t for t in tests if any(t.pcpus[l] for l in t.levels) and any(runs_on(t, k) for k in images)]
    if args.own is not None:
        tests = one_of_each(tests, *(list(filter(None, a.split(","))) for a in (args.own, args.other, args.parameters)))
    if args.builtin:
        tests = [of_builtin(t) for t in tests]
    if not tests:
        die(f"no test in {lists} runs at this level, on this kernel, with that number of pCPUs: change the options")
    if args.model == "kvm":
        print(f"L0 is a guest of this machine's KVM ({module})", flush=True)
    emulators = {name: say_where(name) for name in {"bochs" if l == VMX else "qemu" for t in tests for l in t.levels}}
    results, machines = {}, []
    results.update({Key(k, l, p, t.name): Result("skip", 0, why_not(t)) for t in tests if why_not(t)
                    for k in images if runs_on(t, k) for l in t.levels for p in t.pcpus[l]})
    at_once = machine.at_once()
    slots = threading.Semaphore(at_once)
    # Start the machines that take longest first, so that no core idles at the end.  Those with VMX cannot be divided.
    hardware = sorted({t.hardware for t in tests})
    kinds = []
    for level, pcpus, needed in itertools.product((VMX, 1, 0), (3, 2, 1), hardware):
        for kernel, image in images.items():
            mine = [t for t in tests if not why_not(t) and runs_on(t, kernel) and level in t.levels and pcpus in t.pcpus[level]
                    and needed == t.hardware]
            # KVM is loaded again wherever its parameters change.
            order = {}
            mine.sort(key=lambda t: order.setdefault(t.params, len(order)))
            if mine:
                kinds.append((mine, (kernel, image, level, pcpus, needed)))
    total = len(results) + sum(len(mine) for mine, _ in kinds)
    for mine, kind in kinds:
        level = kind[2]
        # One kind must not keep one core busy while others idle.  The tests for VMX take about as long as a boot and the reloads of KVM.
        n = 1 if level == VMX else -(-len(mine) * at_once // total)
        machines += [Machine(slots, results, known, *kind, mine[i::n], emulators["bochs" if level == VMX else "qemu"], args.model) for i in range(n)]
    start = time.monotonic()
    machine.run_all(machines, lambda: f"selftests: {len(results)} of {total} after {time.monotonic() - start:.0f} s",
                    lambda: f"interrupted after {time.monotonic() - start:.0f} s with {len(results)} of {total} run")
    for m in machines:
        for t in m.tests:
            if Key(m.kernel, m.level, m.pcpus, t.name) not in results:
                m.done(t, "fail", 0, f"no result: {m.error}")

    write_tsv(OUT, tests, results)
    return report(OUT, tests, images, results, known, time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
