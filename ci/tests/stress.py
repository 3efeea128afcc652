#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""ci/tests/stress.py [--foreign DIR] [--pcpus 12] [--seed N] [--out DIR] [--mutant NAME] IMAGE SECONDS: run a randomised stress test of nested guests.

Runs two L1 Linux guests: a has one CPU and one L2 Linux guest, and b has two of each, so that L2s move between b's vCPUs.  L0 and the L1s
constantly take pages from their guests (ci/guest/stress-move.c), while the L2s map and unmap memory and check its contents
(ci/guest/stress-memory.c).  One machine with one pCPU and one with two run at the same time, for SECONDS after the last L2 has begun.  With
two pCPUs, a is pinned to the second one, and b is moved between both.  SECONDS are those of ci/lib/clock.py, so that a busy host does the
same work in more time.  The machines' clocks count instructions; in host time, three levels of timer ticks would take all of it.
Exit status 0: no L2 read a wrong word, no kernel logged a warning, pages moved in each L0 and L1, and the TLB model's oracle found nothing.
--foreign: the kernel of L1 a is Debian's KVM in DIR, which ci/build/foreign prints, and that of L1 b is the rig's own.
--mutant: switch on this mutant of ci/mutants in L0; IMAGE must be the image that ci/build/image mutants rig prints.
"""
import argparse
import glob
import os
import re
import subprocess
import sys
import threading
import time

import machine
import tap
from guest import BUILD, TOP, Guest, GuestError, below, die, say_where

# Megabytes of L1 and L2; each L0 and L1 has a disk to swap to.
MEMORY = {1: 704, 2: 208}
DISKS = (1024, 512, 512)
WORKERS = 3
# Limits in seconds of ci/lib/clock.py: until all L2s have begun, and until everything has ended after the L2s were told to end.
BOOT = 1200
LATE = 300
COUNTERS = ("vmrun", "fill", "ctl_asid", "ctl_all", "window", "audit", "audit_rights")
GUESTS = {"a": ["1"], "b": ["1", "2"]}
CPUS = {"a": 1, "b": 2}
# The distribution's kernel with --foreign.
FOREIGN = "kvm-6.12"
NAMES = [f"{l1} {l2}" for l1, l2s in GUESTS.items() for l2 in l2s]
# The command of a level: start its guests, and move their pages until all have ended or one has failed.
LEVEL = """
mkswap /dev/vdb >/dev/null && swapon /dev/vdb || exit 1
{starts}
stress-move {seed} $(printf '/tmp/%s.begun ' {names}) >/tmp/moved & mover=$!
{{ read -r _; for name in {names}; do echo end >/tmp/$name.in; done; }} </dev/hvc0 &
{also}
status=0
for name in {names}; do
	while [ $status = 0 ] && [ ! -s /tmp/$name.rc ]; do
		sleep 1
		! grep -qv '^0$' /tmp/*.rc 2>/dev/null || status=1
	done
done
! grep -qv '^0$' /tmp/*.rc || status=1
kill $mover
wait $mover || {{ echo "FAIL: pages did not move"; status=1; }}
cat /tmp/moved
{splat}
exit $status
"""
CHECK = "if ! splat 'Out of memory'; then echo 'FAIL: warnings in the kernel log'; dmesg | tail -n 40; status=1; fi"
START = """
mkfifo /tmp/{name}.in
{{ {vm} <>/tmp/{name}.in; echo $? >/tmp/{name}.rc.new; mv /tmp/{name}.rc.new /tmp/{name}.rc; }} 2>&1 | while read -r l; do
	echo "{name} $l"
	case $l in *begun:*) touch /tmp/{name}.begun ;; esac
done &
"""


def start(level, name, command, console, disks=(), prefix="", **more):
    """Return shell text that starts a guest of this level in the background."""
    return START.format(name=name, vm=below(level, name, command, console, MEMORY[level], disks, prefix, **more))


def distribution(name, npt=True):
    """Return the arguments of below() for an L1 with the kernel of this name in /share, see ci/foreign/kvm."""
    return {"modules": "", "kernel": f"/share/{name}/vmlinuz", "initrd": f"/share/{name}/initrd", "append": f" npt={int(npt)}"}


def missing(foreign):
    """Return what is wrong with each L1 that ci/build/foreign could not make."""
    try:
        with open(os.path.join(foreign, "missing"), encoding="utf-8") as f:
            return {name: f"there is no {name}: no mirror has {packages.strip()} (ci/inputs/foreign): see build/log/other-hypervisors.log"
                    for name, _, packages in (l.partition(":") for l in f)}
    except FileNotFoundError:
        return {}


def command(pcpus, seed, mutant, foreign=None):
    """Return the command of L0."""
    starts = f"printf %s {mutant} >/sys/module/kvm/parameters/mutant || exit 1\n" if mutant else ""
    for i, (l1, l2s) in enumerate(GUESTS.items()):
        inner = "".join(start(2, l2, f"stress-memory {seed + 10 * i + int(l2)} {WORKERS} </dev/hvc0\nstatus=$?\n{CHECK}\nexit $status",
                              f"/tmp/{l2}.console") for l2 in l2s)
        inner = LEVEL.format(starts=inner, names=" ".join(l2s), seed=seed + i, also="", splat=CHECK)
        starts += start(1, l1, inner, f"/dev/ttyS{i + 1}", (f"/dev/vd{'cd'[i]}",), "taskset 2" if pcpus == 2 and l1 == "a" else "",
                        cpus=CPUS[l1], **(distribution(FOREIGN) if foreign and l1 == "a" else {}))
    # Move all threads of b: to one pCPU, to the other one, to both.
    also = "while sleep 0.1; do for m in 1 2 3; do taskset -ap $m $(cat /tmp/b.pid); sleep 0.1; done; done >/dev/null 2>&1 &" if pcpus == 2 else ""
    return LEVEL.format(starts=starts, names=" ".join(GUESTS), seed=seed + 7, also=also, splat=CHECK)


class Machine(machine.Machine):
    """One L0 with all of its guests, on one or two pCPUs; booted once more if not all guests boot."""

    def __init__(self, image, pcpus, seconds, seed, mutant, qemu, log, foreign=None):
        super().__init__(f"stress, {pcpus} pCPU{'s' if pcpus > 1 else ''}")
        self.foreign = foreign
        self.image, self.pcpus, self.seconds, self.seed, self.mutant, self.qemu, self.log = image, pcpus, seconds, seed, mutant, qemu, log
        self.begun, self.last, self.told, self.late = {}, {}, None, None
        self.bad, self.oracle, self.counters = [], [], {}

    def work(self):
        with open(self.log, "w", buffering=1, encoding="utf-8") as log:
            if self.once(log):
                return
            self.did_not_come_up(f"only {len(self.begun)} of {len(NAMES)} L2s booted in {BOOT} s")
            if not self.once(log):
                self.bad.append(f"only {len(self.begun)} of {len(NAMES)} L2s booted in {BOOT} s, for the second time")

    def once(self, log):
        """Run once; return whether all guests booted.  Adds failures to self.bad."""
        self.begun, self.last, self.told, self.late = {}, {}, None, None
        self.guest = Guest(self.image, 0, self.pcpus, command(self.pcpus, self.seed, self.mutant, self.foreign), qemu=self.qemu, model="strict",
                           icount=True, disks=DISKS, ports=len(GUESTS), stdin=subprocess.PIPE, share=self.foreign)
        over = threading.Event()
        threading.Thread(target=self.watch, args=(over,), daemon=True).start()
        try:
            for raw in self.guest.process.stdout:
                self.line(raw.decode(errors="replace").strip(), log)
            self.guest.process.wait()
            status = self.guest.result(self.late)
            if status and not self.bad:
                self.bad.append(f"status {status}")
        except GuestError as e:
            log.write(f"{e}\n")
            if self.late and len(self.begun) < len(NAMES) and not self.bad and not self.oracle:
                return False
            self.bad.append(str(e).rstrip("\n"))
        finally:
            over.set()
            self.counters = self.guest.counters()
            log.write(f"{self.counters}\n")
            self.guest.close()
        if not self.bad and not self.told:
            self.bad.append("the L2s ended before they were told to")
        stale = self.counters.get("audit", 0) + self.counters.get("audit_rights", 0)
        if stale:
            self.bad.append("\n".join([f"the oracle found {stale} stale translations at VMRUN"] + self.oracle))
        if not self.counters.get("vmrun"):
            self.bad.append("QEMU wrote no counters of the TLB model")
        return True

    def line(self, line, log):
        """Handle a line of L0's output; "b 2 TEXT" is a line from L2 number 2 in b."""
        log.write(f"{self.guest.clock.now():7.1f} {line}\n")
        m = re.match(rf"({'|'.join(NAMES)}) (begun|at|done): (.*)", line)
        if m and m[2] == "begun":
            self.begun[m[1]] = self.guest.clock.now()
        elif m:
            self.last[m[1]] = re.sub(r".* (\d+ pages) checked.*", r"\1", m[3])
        if "FAIL: " in line or "MISMATCH" in line:
            self.bad.append(line)
        # Keep the TLB model's message, which has the ASID, address and page.
        if "svm-tlb: " in line:
            self.oracle.append("    " + line[line.index("svm-tlb: "):])

    def watch(self, over):
        """Tell the L2s to end after self.seconds, and stop the machine if they do not end."""
        while not over.wait(1):
            now = self.guest.clock.now()
            if len(self.begun) == len(NAMES) and not self.told and now > max(self.begun.values()) + self.seconds:
                self.told = now
                self.guest.process.stdin.write(b"end\n")
                self.guest.process.stdin.flush()
            if now > (self.told + LATE if self.told else BOOT if len(self.begun) < len(NAMES) else now):
                self.late = f"{now:.0f}"
                # Send SIGTERM, so that QEMU still writes the model's counters.
                self.guest.process.terminate()
                if over.wait(10):
                    return
                self.guest.end()
                return

    def progress(self):
        if len(self.begun) < len(NAMES):
            return f"{self.label}: {len(self.begun)} of {len(NAMES)} L2s have begun"
        return f"{self.label}: " + ", ".join(f"{n}: {self.last.get(n, 'begun')}" for n in NAMES)


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s [--foreign DIR] [--pcpus 12] [--seed N] [--out DIR] [--mutant NAME] IMAGE SECONDS")
    parser.add_argument("--foreign")
    parser.add_argument("--pcpus", default="12")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=os.path.join(BUILD, "results"))
    parser.add_argument("--mutant", default="")
    parser.add_argument("image")
    parser.add_argument("seconds")
    args = parser.parse_args()
    if args.pcpus not in ("1", "2", "12"):
        die(f"--pcpus must be 1, 2 or 12, not {args.pcpus}")
    if not re.fullmatch("[1-9][0-9]*", args.seconds):
        die(f"SECONDS must be a number, at least 1, not {args.seconds}")
    if args.mutant and not glob.glob(os.path.join(TOP, f"ci/mutants/*-{glob.escape(args.mutant)}.patch")):
        die(f"there is no mutant {args.mutant}: choose one from ci/mutants")
    if not os.path.exists(os.path.join(args.image, "root.img")):
        die(f"{args.image} is not an image: run ci/build/image series rig, which prints the path of one")
    gone = args.foreign and missing(args.foreign).get(FOREIGN)
    if gone:
        # The L1s with the rig's own kernel run all the same.
        args.foreign = None
    if args.foreign and not os.path.exists(os.path.join(args.foreign, FOREIGN, "initrd")):
        die(f"{args.foreign} has no {FOREIGN}: run ci/build/foreign, which prints the path of what has it")
    out = os.path.join(args.out, "stress")
    os.makedirs(out, exist_ok=True)
    qemu = say_where("qemu")
    machines = [Machine(args.image, int(p), int(args.seconds), args.seed, args.mutant, qemu, os.path.join(out, f"{p}.log"), args.foreign) for p in args.pcpus]
    start = time.monotonic()
    machine.run_all(machines, lambda: f"{time.monotonic() - start:.0f} s; " + "; ".join(m.progress() for m in machines),
                    lambda: f"interrupted after {time.monotonic() - start:.0f} s")
    for m in machines:
        m.bad += [m.error] if m.error else []
        for b in m.bad:
            print(f"FAIL: {m.label}, seed {args.seed}: {b}")
        print(f"{m.progress()}; " + " ".join(f"{k}={m.counters.get(k)}" for k in COUNTERS) + f"; {m.log}")
    results = [(m.label, "fail" if m.bad else "pass", m.bad) for m in machines]
    if gone:
        print(f"FAIL: stress, {FOREIGN} as L1: {gone}")
        results.append((f"stress, {FOREIGN} as L1", "fail", [gone]))
    failed = sum(outcome == "fail" for _, outcome, _ in results)
    tap.write(os.path.join(args.out, "stress.ktap"), results)
    print(f"stress: {time.monotonic() - start:.0f} s, {len(results) - failed} passed, {failed} failed{machine.hung()}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
