#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""ci/tests/foreign.py [--list] [--seconds N] [--out DIR] BASE,SERIES FOREIGN [PATTERN...]: run L1 hypervisors that are not of this project.

BASE,SERIES: the directories that ci/build/image prints.  FOREIGN: the directory that ci/build/foreign prints.  PATTERN: run only the
cases whose name matches; --list prints the names.  Each case is one machine: the rig's kernel as L0, one L1 with one CPU, and two L2s that
check their memory (ci/guest/stress-memory.c) for N seconds of their clocks, which count instructions.
Exit status 0: in each case all L2s booted, read no wrong word, and ended, no kernel logged a warning, and the TLB model's oracle found
nothing.  A case that fails or does not end is reported with its reason, and the other cases run.
"""
import argparse
import collections
import fnmatch
import os
import re
import shlex
import sys
import threading
import time

import machine
import stress
import tap
from guest import BUILD, Guest, GuestError, below, die, say_where

L2S = ("g1", "g2")
# Limits in seconds of ci/lib/clock.py: until all L2s have begun, and until everything has ended after that.
BOOT = 900
LATE = 600
# What an L1 prints that does not end by itself.
PANIC = re.compile(r"Panic on CPU|Kernel panic|Hardware Dom0 (crashed|shutdown)|Domain 0 crashed|FATAL")
COUNTERS = ("vmrun", "ctl_asid", "ctl_all", "fill", "nfill", "stale", "stale_rights", "audit", "audit_rights", "window")
Case = collections.namedtuple("Case", "l1 asids flushbyasid kernel")

# Xen does not end QEMU: it is killed when dom0 has printed its last line.
XEN = """
mkfifo /tmp/l1.out
{vm} </dev/null >/tmp/l1.out 2>&1 &
while read -r line; do
	echo "$line"
	case $line in *"dom0 ends"*)
		echo exit 0 >/tmp/l1.status
		kill $(cat /tmp/l1.pid) ;;
	esac
done </tmp/l1.out
wait $!
status=$?
{splat}
exit $status
"""


def qemu_below(cpu, *args):
    """Return shell text for an L1 without the rig's devices; its serial port is the output."""
    return shlex.join(["vm", "l1", "-L", "/share/firmware", "-accel", "kvm", "-cpu", cpu, "-machine", "q35", "-nodefaults", "-display", "none",
                       "-no-reboot", "-smp", "1", "-serial", "stdio", *args])


def xen(name, cpu, seconds):
    """Return L0's command that runs Xen with a PV dom0 and PVH guests; see ci/foreign/dom0."""
    return XEN.format(splat=stress.CHECK, vm=qemu_below(
        cpu, "-m", "1024", "-kernel", f"/share/{name}/xen",
        "-append", "console=com1 com1=115200,8n1 dom0_mem=400M,max:400M loglvl=warning guest_loglvl=warning noreboot=1",
        "-initrd", f"/share/{name}/vmlinux console=hvc0 loglevel=5 nokaslr tsc=reliable rdinit=/init panic=-1 "
                   f"guests={len(L2S)} seconds={seconds},/share/{name}/initrd"))


def kvm(name, cpu, seconds):
    """Return L0's command that runs a distribution's kernel with guests of the rig, whose pages it moves; see ci/foreign/kvm."""
    inner = "".join(stress.start(2, n, f"stress-memory {i} {stress.WORKERS} </dev/hvc0\nstatus=$?\n{stress.CHECK}\nexit $status",
                                 f"/tmp/{n}.console") for i, n in enumerate(L2S, 1))
    begun = " && ".join(f"[ -e /tmp/{n}.begun ]" for n in L2S)
    # The L2s end by L1's clock, as those of Xen do by theirs.
    end = f"{{ until {begun}; do sleep 0.2; done; sleep {seconds}; for n in {' '.join(L2S)}; do echo end >/tmp/$n.in; done; }} &"
    inner = stress.LEVEL.format(starts=inner, names=" ".join(L2S), seed=1, also=end, splat=stress.CHECK)
    vm = below(1, "l1", inner, "/dev/ttyS1", stress.MEMORY[1], ("/dev/vdb",), cpu=cpu, modules="", kernel=f"/share/{name}/vmlinuz",
               initrd=f"/share/{name}/initrd")
    # Hold the input open, because the L2s end when it ends.
    return f"mkfifo /tmp/l1.in\n{vm} <>/tmp/l1.in\nstatus=$?\n{stress.CHECK}\nexit $status\n"


# One entry for each L1: its name in ci/build/foreign, its command, numbers of ASIDs, and whether it has FLUSHBYASID.
L1S = (
    ("xen-4.17", xen, (8, 16, 64), (True, False)),
    ("kvm-6.1", kvm, (16,), (True,)),
)
COMMANDS = {name: command for name, command, _, _ in L1S}


def cases():
    return [Case(name, asids, flushbyasid, kernel) for name, _, all_asids, all_flushbyasid in L1S for flushbyasid in all_flushbyasid
            for asids in all_asids for kernel in ("base", "series")]


def label(case):
    return f"{case.l1} asids={case.asids}{'' if case.flushbyasid else ' flushbyasid=off'} {case.kernel}"


class Machine(machine.Machine):
    """One case."""

    def __init__(self, case, images, foreign, seconds, qemu, out, slots):
        super().__init__(label(case), slots)
        self.case, self.image, self.foreign, self.seconds, self.qemu = case, images[case.kernel], foreign, seconds, qemu
        self.log = os.path.join(out, self.label.replace(" ", ",") + ".log")
        # When each L2 began, for how many of its seconds it ran, what is wrong, the oracle's messages, and the last lines of output.
        self.begun, self.ran, self.bad, self.oracle, self.last = {}, {}, [], [], collections.deque(maxlen=8)
        self.counters, self.took, self.panic, self.late = {}, 0, None, None

    def work(self):
        case = self.case
        cpu = f"host,-xsave,x-svm-asids={case.asids}" + ("" if case.flushbyasid else ",flushbyasid=off")
        over = threading.Event()
        start = time.monotonic()
        with open(self.log, "w", buffering=1, encoding="utf-8") as log:
            self.guest = Guest(self.image, 0, 1, COMMANDS[case.l1](case.l1, cpu, self.seconds), qemu=self.qemu, model="strict", icount=True,
                               disks=(512,), ports=1, share=self.foreign)
            threading.Thread(target=self.watch, args=(over,), daemon=True).start()
            try:
                for raw in self.guest.process.stdout:
                    self.line(raw.decode(errors="replace").strip(), log)
                self.guest.process.wait()
                status = self.guest.result(self.late)
                if status and not self.bad:
                    # 125 is that of an L1 that left no status; its console says why.
                    self.bad.append("\n".join([f"status {status}; the last lines were:", *self.last] +
                                              ([self.guest.last_lines()] if status == 125 else [])))
            except GuestError as e:
                log.write(f"{e}\n")
                if not self.panic:
                    self.bad.append(str(e).rstrip("\n"))
            finally:
                over.set()
                self.took = time.monotonic() - start
                self.counters = self.guest.counters()
                log.write(f"{self.counters}\n")
                self.guest.close()
        self.judge()

    def judge(self):
        """Add what is wrong to self.bad, after all lines have been read."""
        if self.panic:
            self.bad.insert(0, f"L1 died: {self.panic}")
        for name, seen in (("begun", self.begun), ("done", self.ran)):
            missing = [n for n in L2S if n not in seen]
            if missing:
                self.bad.append(f"L2 {' and '.join(missing)} never printed \"{name}\"")
                break
        for n, seconds in self.ran.items():
            if seconds < self.seconds / 2:
                self.bad.append(f"L2 {n} ended after {seconds} s, before it was told to")
        stale = self.counters.get("audit", 0) + self.counters.get("audit_rights", 0)
        if stale:
            self.bad.append("\n".join([f"the oracle found {stale} stale translations at VMRUN"] + self.oracle[:12]))
        if not self.counters.get("vmrun"):
            self.bad.append("QEMU wrote no counters of the TLB model")

    def line(self, line, log):
        """Handle a line of output; "g1 TEXT" is a line from that L2."""
        log.write(f"{self.guest.clock.now():7.1f} {line}\n")
        self.last.append(line)
        # Two consoles may share a line, without anything between their texts.
        for name, what, seconds in re.findall(rf"({'|'.join(L2S)}) (begun|done): ([0-9.]*)", line):
            if what == "begun":
                self.begun[name] = self.guest.clock.now()
            else:
                self.ran[name] = float(seconds or 0)
        if "FAIL: " in line or "MISMATCH" in line:
            self.bad.append(line)
        if "svm-tlb: " in line:
            self.oracle.append("    " + line[line.index("svm-tlb: "):])
        if PANIC.search(line) and not self.panic:
            self.panic = line

    def watch(self, over):
        """Stop the machine if L1 is dead, or if the L2s do not begin or do not end."""
        died = None
        while not over.wait(1):
            now = self.guest.clock.now()
            died = died or self.panic and now
            # Wait for the rest of the message.
            if died and now > died + 5:
                break
            limit = max(self.begun.values()) + LATE if len(self.begun) == len(L2S) else BOOT
            if now > limit:
                self.late = f"{now:.0f}"
                break
        else:
            return
        # Send SIGTERM, so that QEMU still writes the model's counters.
        self.guest.process.terminate()
        if not over.wait(10):
            self.guest.end()

    def progress(self):
        return f"{self.label}: {len(self.begun)} of {len(L2S)} L2s have begun"


def report(machines, path):
    """Print the outcome of each case, and write it to path; return the number of failures."""
    results = []
    for m in machines:
        bad = m.bad + ([m.error] if m.error else [])
        if bad:
            first, *more = "\n".join(bad).splitlines()
            print(f"FAIL: {m.label}: {first}")
            print("".join(f"    {l.strip()}\n" for l in more), end="")
        walks = m.counters.get("fill", 0) + m.counters.get("nfill", 0)
        numbers = (f"{m.took:.0f} s, {m.counters.get('vmrun', 0)} VMRUNs, {m.counters.get('ctl_asid', 0)} flushes of an ASID, "
                   f"{m.counters.get('ctl_all', 0)} of all, {walks} page walks, {m.counters.get('stale', 0)} stale hits, "
                   f"{m.counters.get('audit', 0) + m.counters.get('audit_rights', 0)} stale at VMRUN")
        print(f"{m.label}: {'FAILED' if bad else 'passed'}, {numbers}; {m.log}")
        results.append((m.label, "fail" if bad else "pass", bad + [numbers]))
    tap.write(path, results)
    return sum(outcome == "fail" for _, outcome, _ in results)


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s [--list] [--seconds N] [--out DIR] BASE,SERIES FOREIGN [PATTERN...]")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seconds", default="4")
    parser.add_argument("--out", default=os.path.join(BUILD, "results"))
    parser.add_argument("images", nargs="?")
    parser.add_argument("foreign", nargs="?")
    parser.add_argument("patterns", nargs="*")
    args = parser.parse_args()
    if args.list:
        print("\n".join(label(c) for c in cases()))
        return 0
    if not args.foreign:
        die("name the images of base and series, with a comma, and the directory that ci/build/foreign prints")
    if not re.fullmatch("[1-9][0-9]*", args.seconds):
        die(f"--seconds must be a number, at least 1, not {args.seconds}")
    images = dict(zip(("base", "series"), args.images.split(",")))
    if len(images) != 2 or args.images.count(",") != 1:
        die(f"{args.images} is not two images with a comma: run ci/build/image base rig and ci/build/image series rig")
    for path in images.values():
        if not os.path.exists(os.path.join(path, "root.img")):
            die(f"{path} is not an image: run ci/build/image series rig, which prints the path of one")
    for name in COMMANDS:
        if not os.path.exists(os.path.join(args.foreign, name, "initrd")):
            die(f"{args.foreign} has no {name}: run ci/build/foreign, which prints the path of what has it")
    for p in args.patterns:
        if not any(fnmatch.fnmatchcase(label(c), p) for c in cases()):
            die(f"no case matches {p}: choose from what --list prints")
    chosen = [c for c in cases() if not args.patterns or any(fnmatch.fnmatchcase(label(c), p) for p in args.patterns)]
    out = os.path.join(args.out, "foreign")
    os.makedirs(out, exist_ok=True)
    qemu = say_where("qemu")
    slots = threading.Semaphore(machine.at_once())
    machines = [Machine(c, images, args.foreign, int(args.seconds), qemu, out, slots) for c in chosen]
    start = time.monotonic()
    machine.run_all(machines, lambda: f"{time.monotonic() - start:.0f} s; " + "; ".join(m.progress() for m in machines if m.guest and m.is_alive()),
                    lambda: f"interrupted after {time.monotonic() - start:.0f} s")
    failed = report(machines, os.path.join(args.out, "foreign.ktap"))
    print(f"foreign: {time.monotonic() - start:.0f} s, {len(machines) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
