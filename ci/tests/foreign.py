#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""ci/tests/foreign.py [OPTION...] BASE,SERIES FOREIGN [PATTERN...]: run L1 hypervisors that are not of this project.

BASE,SERIES: the directories that ci/build/image prints.  FOREIGN: the directory that ci/build/foreign prints.  PATTERN: run only the
cases whose name matches; --list prints the names.  --short: leave out all but a few cases.  --jobs N: run so many machines at a time.
--out DIR: write the results there.  --kept DIR: keep there what each case that passes has counted, and do not run a case that has passed
before; --again: run it.

Each case is one machine: the rig's kernel as L0, one L1, and two L2s with three processes each that check their memory
(ci/guest/stress-memory.c) in --rounds N rounds each, while L0 and a KVM in L1 move pages (ci/guest/stress-move.c).  Base and series do the
same work, so that their counts can be compared: foreign.tsv in the directory of --out has the counts from the start of L1 until both L2s are
done.  --record: write them to docs/l1-hypervisors.md, too, for all cases of --kept that passed on both kernels.  The machines' clocks count
instructions.
Exit status 0: in each case all L2s booted, read no wrong word, and ended, pages of L1 moved, no kernel logged a warning, and the TLB model's
oracle found nothing.  A case that fails or does not end is reported with its reason, and the other cases run.
"""
import argparse
import collections
import fnmatch
import json
import os
import re
import shlex
import sys
import threading
import time

import machine
import stress
import tap
from guest import BUILD, TOP, Guest, GuestError, below, die, say_where

L2S = ("g1", "g2")
# Limits in seconds of ci/lib/clock.py: until all L2s have begun, and until everything has ended after that.  The oracle compares all that is
# cached at each VMRUN, which takes most of the time on the series.
BOOT = 900
LATE = 1800
# What an L1, or QEMU in L1, prints that does not end by itself.
PANIC = re.compile(r"Panic on CPU|Kernel panic|Hardware Dom0 (crashed|shutdown)|Domain 0 crashed|FATAL|KVM: entry failed|KVM internal error|"
                   "error: kvm run failed")
Case = collections.namedtuple("Case", "l1 asids flushbyasid npt cpus kernel")

# L0's command.  It moves pages of L1, whose only big process is QEMU, from when the first L2 has begun: it may be done before the other one
# begins.  It prints the counts when both are done: what L1 does afterwards, such as powering off, takes as long as it likes.  KVM's own counters
# are gone when L1 is.  The CPU time of L1's QEMU is in hundredths of a second.  That of all of L0 would include how long L0 waits for the host to
# take what it prints.
COMMAND = """
mkswap /dev/vdc >/dev/null && swapon /dev/vdc || exit 1
counts() {{
	for f in exits nested_run; do printf '%s=%s ' $f "$(cat /sys/kernel/debug/kvm/$f)"; done
	set -- $(cat /proc/$(cat /tmp/l1.pid)/stat)
	printf 'ticks=%s ' $((${{14}} + ${{15}}))
	svm-tlb
}}
stress-move 7 /tmp/begun >/tmp/moved & mover=$!
mkfifo /tmp/l1.in /tmp/l1.out
{{ {vm}
echo $? >/tmp/l1.rc; }} <>/tmp/l1.in >/tmp/l1.out 2>&1 &
while read -r line; do
	echo "$line"
	for n in {names}; do
		case $line in *"$n begun:"*) : >/tmp/begun ;; esac
		case $line in *"$n done:"*) : >/tmp/$n.done ;; esac
	done
	if [ ! -e /tmp/counted ] && {done}; then
		: >/tmp/counted
		echo "L0 counts: $(counts)"
	fi
	{also}
done </tmp/l1.out
until [ -s /tmp/l1.rc ]; do sleep 0.1; done
status=$(cat /tmp/l1.rc)
kill $mover
wait $mover || {{ echo "FAIL: no pages of L1 moved"; status=1; }}
cat /tmp/moved
{splat}
exit $status
"""
# Xen polls the real-time clock for up to a second before it powers off, see docs/l1-hypervisors.md, so QEMU is killed when dom0 has printed
# its last line.
XEN_ENDS = """case $line in *"dom0 ends"*)
		echo exit 0 >/tmp/l1.status
		kill $(cat /tmp/l1.pid) ;;
	esac"""


def command(vm, also=":"):
    """Return L0's command that runs L1, whose command is vm, and also this for each line of L1."""
    return COMMAND.format(vm=vm, also=also, names=" ".join(L2S), done=" && ".join(f"[ -e /tmp/{n}.done ]" for n in L2S), splat=stress.CHECK)


def xen(name, case, cpu, rounds):
    """Return L0's command that runs Xen with a PV dom0 and PVH guests; see ci/foreign/dom0."""
    return command(shlex.join([
        "vm", "l1", "-L", "/share/firmware", "-accel", "kvm", "-cpu", cpu, "-machine", "q35", "-nodefaults", "-display", "none",
        "-no-reboot", "-smp", str(case.cpus), "-serial", "stdio", "-m", "1024", "-kernel", f"/share/{name}/xen",
        # Without HAP, Xen uses shadow page tables: it has no other use for nested paging.
        "-append", "console=com1 com1=115200,8n1 dom0_mem=400M,max:400M loglvl=warning guest_loglvl=warning noreboot=1" + " hap=0" * (not case.npt),
        "-initrd", f"/share/{name}/vmlinux console=hvc0 loglevel=5 nokaslr tsc=reliable rdinit=/init panic=-1 "
                   f"guests={len(L2S)} rounds={rounds},/share/{name}/initrd"]), XEN_ENDS)


def kvm(name, case, cpu, rounds):
    """Return L0's command that runs a distribution's kernel with guests of the rig, whose pages it moves; see ci/foreign/kvm."""
    inner = "[ -e /dev/kvm ] || { echo 'FAIL: L1 has no /dev/kvm'; exit 1; }\n"
    inner += "".join(stress.start(2, n, f"stress-memory {i} {stress.WORKERS} {rounds}\nstatus=$?\n{stress.CHECK}\nexit $status",
                                  f"/tmp/{n}.console") for i, n in enumerate(L2S, 1))
    inner = stress.LEVEL.format(starts=inner, names=" ".join(L2S), seed=1, also="", splat=stress.CHECK)
    return command(below(1, "l1", inner, "/dev/ttyS1", stress.MEMORY[1], ("/dev/vdb",), cpu=cpu, cpus=case.cpus,
                         **stress.distribution(name, case.npt)))


# The L1s: their names in ci/build/foreign, and their commands.
COMMANDS = {"xen-4.17": xen, "xen-4.20": xen, "kvm-6.1": kvm, "kvm-6.12": kvm}
# What each L1 runs with: the number of ASIDs, whether it has FLUSHBYASID, whether it uses NPT, and the number of its CPUs.  Each pair of
# values of the first three occurs.  The first three settings have each value once, so that they come first: a run of all cases takes long.
SETTINGS = ((8, True, True, 1), (64, False, False, 1), (16, True, False, 1), (16, False, True, 1), (16, True, True, 2), (8, False, False, 1),
            (64, True, True, 1))
# L1s that always use NPT: Debian has built this Xen without shadow page tables.
HAP = ("xen-4.20",)
# The few cases of --short.  Xen with eight ASIDs and FLUSHBYASID relies on a flush that it does not ask for, see docs/l1-hypervisors.md.
SHORT = (("kvm-6.12", (16, True, False, 1)), ("xen-4.17", (8, True, True, 1)), ("kvm-6.1", (16, False, True, 1)), ("xen-4.20", (16, False, True, 1)))


def cases(short=False):
    """Return all cases, setting by setting; those that --short leaves come first."""
    every = [(name, (asids, flushbyasid, npt or name in HAP, cpus)) for asids, flushbyasid, npt, cpus in SETTINGS for name in COMMANDS]
    chosen = list(SHORT) if short else [*SHORT, *(c for c in every if c not in SHORT)]
    return [Case(name, *setting, kernel) for name, setting in chosen for kernel in ("base", "series")]


def label(case):
    return (f"{case.l1} asids={case.asids}{'' if case.flushbyasid else ' flushbyasid=off'}{'' if case.npt else ' npt=0'}"
            f"{'' if case.cpus == 1 else f' cpus={case.cpus}'} {case.kernel}")


# What is kept of a case that passed.
KEPT = ("counts", "counters", "took", "end")


class Machine(machine.Machine):
    """One case."""

    def __init__(self, case, images, foreign, rounds, qemu, out, slots, finished=None, kept=None):
        super().__init__(label(case), slots)
        self.missing = stress.missing(foreign).get(case.l1)
        self.finished, self.when = finished, None
        self.kept = kept and os.path.join(kept, self.label.replace(" ", ",") + ".json")
        self.case, self.image, self.foreign, self.rounds, self.qemu = case, images[case.kernel], foreign, rounds, qemu
        self.log = os.path.join(out, self.label.replace(" ", ",") + ".log")
        # When each L2 began, its rounds, what is wrong, the oracle's messages, and the last lines of output.
        self.begun, self.ran, self.bad, self.oracle, self.last = {}, {}, [], [], collections.deque(maxlen=8)
        # The counts when both L2s were done, those of the TLB model at the end, and the seconds that all of it took, and L1 from both L2s' end on.
        self.counts, self.counters, self.took, self.end, self.panic, self.late = {}, {}, 0, 0, None, None

    def run(self):
        if self.missing:
            self.bad.append(self.missing)
        elif not self.when:
            # What was kept is no longer true if the case fails now.
            if self.kept and os.path.exists(self.kept):
                os.remove(self.kept)
            super().run()
        if self.finished:
            self.finished(self)

    def keep(self):
        """Write what a case that passed has counted."""
        with open(self.kept + ".new", "w", encoding="utf-8") as f:
            json.dump({"rounds": self.rounds, "when": time.strftime("%F %H:%M"), **{name: getattr(self, name) for name in KEPT}}, f)
        os.replace(self.kept + ".new", self.kept)

    def recall(self):
        """Take over what this case has counted if it has passed before, with as many rounds."""
        try:
            with open(self.kept, encoding="utf-8") as f:
                was = json.load(f)
            if was["rounds"] == self.rounds:
                self.counts, self.counters, self.took, self.end, self.when = (was[name] for name in (*KEPT, "when"))
        except (OSError, ValueError, KeyError):
            pass

    def work(self):
        case = self.case
        cpu = f"host,-xsave,x-svm-asids={case.asids}" + ("" if case.flushbyasid else ",flushbyasid=off")
        over = threading.Event()
        start = time.monotonic()
        with open(self.log, "w", buffering=1, encoding="utf-8") as log:
            self.guest = Guest(self.image, 0, 1, COMMANDS[case.l1](case.l1, case, cpu, self.rounds), qemu=self.qemu, model="strict", icount=True,
                               disks=(512, 512), ports=1, share=self.foreign)
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
                self.end = self.guest.clock.now() - self.end if self.end else 0
                self.counters = self.guest.counters()
                # L1's console, if it is not L0's output: it has KVM's messages.
                words = self.guest.last_lines()
                log.write(f"{self.counters}\n{words}")
                if self.panic:
                    self.panic += "\n" + words
                self.guest.close()
        self.judge()
        if self.kept and not self.bad:
            self.keep()

    def judge(self):
        """Add what is wrong to self.bad, after all lines have been read."""
        if self.panic:
            self.bad.insert(0, f"L1 or an L2 died: {self.panic}")
        for name, seen in (("begun", self.begun), ("done", self.ran)):
            missing = [n for n in L2S if n not in seen]
            if missing:
                self.bad.append(f"L2 {' and '.join(missing)} never printed \"{name}\"")
                break
        for n, rounds in self.ran.items():
            if rounds != stress.WORKERS * self.rounds:
                self.bad.append(f"L2 {n} ended after {rounds} rounds, not {stress.WORKERS * self.rounds}")
        if not self.bad and not self.counts:
            self.bad.append("L0 printed no counts")
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
        for name, what, rounds in re.findall(rf"({'|'.join(L2S)}) (begun|done): (?:[0-9.]* s, (\d+) rounds)?", line):
            if what == "begun":
                self.begun[name] = self.guest.clock.now()
            else:
                self.ran[name] = int(rounds or 0)
        if "L0 counts: " in line:
            self.counts = {k: float(v) for k, v in re.findall(r"(\w+)=([0-9.]+)", line)}
            self.end = self.guest.clock.now()
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


COLUMNS = ("vmruns", "exits", "asid_flushes", "all_flushes", "walks", "instructions", "stale", "audit", "end", "seconds")


def figures(m):
    """Return the values of COLUMNS for a case: L1's VMRUNs, L0's exits, its flushes, page walks, the instructions of L0, L1 and L2, in millions,
    stale hits, what the oracle found, the seconds from the end of both L2s to that of L1, and those of the host for all of it."""
    c = m.counts
    return {"vmruns": int(c.get("nested_run", 0)), "exits": int(c.get("vmrun", 0)), "asid_flushes": int(c.get("flush_asid", 0) + c.get("flush_local", 0)),
            "all_flushes": int(c.get("flush_all", 0)), "walks": int(c.get("walks", 0)), "instructions": int(c.get("ticks", 0) * 10),
            "stale": int(c.get("stale", 0) + c.get("stale_rights", 0)), "audit": m.counters.get("audit", 0) + m.counters.get("audit_rights", 0),
            "end": round(m.end), "seconds": round(m.took)}


def failures(m):
    return m.bad + ([m.error] if m.error else [])


def write_tsv(machines, path):
    """Write the counts of all cases that have ended."""
    with open(path + ".new", "w", encoding="utf-8") as tsv:
        tsv.write("\t".join(("case", "kernel", "outcome", *COLUMNS)) + "\n")
        for m in machines:
            tsv.write("\t".join([m.label.rpartition(" ")[0], m.case.kernel, "fail" if failures(m) else "pass", *(str(v) for v in figures(m).values())]) + "\n")
    os.replace(path + ".new", path)


HEADER = """\
                            L1's     L0's    TLB flushes      page  million
                          VMRUNs    exits    ASID    all     walks   instr.
"""
TABLE = re.compile(r"(<!-- Written by scripts/test foreign[^\n]*-->\n```\n).*?(```\n)", re.S)


def table(machines):
    """Return the rows of docs/l1-hypervisors.md: the cases that passed on both kernels."""
    text, by_case = HEADER, collections.defaultdict(dict)
    for m in sorted(machines, key=lambda m: cases().index(m.case)):
        if not failures(m):
            by_case[m.label.rpartition(" ")[0]][m.case.kernel] = figures(m)
    for name, got in by_case.items():
        if len(got) == 2:
            text += name + "\n"
            for kernel in ("base", "series"):
                f = got[kernel]
                ratio = "" if kernel == "base" else f"  x {f['instructions'] / max(1, got['base']['instructions']):.2f}"
                text += (f"  {kernel:21}{f['vmruns']:>9}{f['exits']:>9}{f['asid_flushes']:>8}{f['all_flushes']:>7}{f['walks']:>10}"
                         f"{f['instructions']:>9}{ratio}\n")
    return text


def record(machines, path=os.path.join(TOP, "docs/l1-hypervisors.md")):
    """Write the table of docs/l1-hypervisors.md."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if len(TABLE.findall(text)) != 1:
        die(f"{path} has no place for the table: restore the comment above it, and the block below that")
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(TABLE.sub(lambda m: m[1] + table(machines) + m[2], text))
    os.replace(path + ".new", path)


def report(machines, path):
    """Print the outcome of each case, and write it to path; return the number of failures."""
    results = []
    for m in machines:
        bad, f = failures(m), figures(m)
        if bad:
            first, *more = "\n".join(bad).splitlines()
            print(f"FAIL: {m.label}: {first}")
            print("".join(f"    {l.strip()}\n" for l in more), end="")
        numbers = (f"{f['seconds']} s, {f['vmruns']} VMRUNs, {f['exits']} exits, {f['asid_flushes']} flushes of an ASID, {f['all_flushes']} of all, "
                   f"{f['walks']} page walks, {f['instructions']} million instructions, {f['stale']} stale hits, {f['audit']} stale at VMRUN, "
                   f"{f['end']} s from the end of L2 to that of L1")
        print(f"{m.label}: {'FAILED' if bad else 'passed'}{f' on {m.when}' if m.when else ''}, {numbers}{'' if m.when else f'; {m.log}'}")
        results.append((m.label, "fail" if bad else "pass", bad + [numbers]))
    tap.write(path, results)
    return sum(outcome == "fail" for _, outcome, _ in results)


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s [--short] [--list] [--jobs N] [--rounds N] [--kept DIR [--again] [--record]] [--out DIR] "
                                           "BASE,SERIES FOREIGN [PATTERN...]")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--rounds", default="1000")
    parser.add_argument("--jobs")
    parser.add_argument("--kept")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--out", default=os.path.join(BUILD, "results"))
    parser.add_argument("images", nargs="?")
    parser.add_argument("foreign", nargs="?")
    parser.add_argument("patterns", nargs="*")
    args = parser.parse_args()
    if args.list:
        print("\n".join(label(c) for c in cases(args.short)))
        return 0
    if not args.foreign:
        die("name the images of base and series, with a comma, and the directory that ci/build/foreign prints")
    for option, value in (("rounds", args.rounds), ("jobs", args.jobs or "1")):
        if not re.fullmatch("[1-9][0-9]*", value):
            die(f"--{option} must be a number, at least 1, not {value}")
    for option in ("again", "record"):
        if getattr(args, option) and not args.kept:
            die(f"--{option} needs --kept: name the directory that has what was counted")
    images = dict(zip(("base", "series"), args.images.split(",")))
    if len(images) != 2 or args.images.count(",") != 1:
        die(f"{args.images} is not two images with a comma: run ci/build/image base rig and ci/build/image series rig")
    for path in images.values():
        if not os.path.exists(os.path.join(path, "root.img")):
            die(f"{path} is not an image: run ci/build/image series rig, which prints the path of one")
    for name in COMMANDS:
        if name not in stress.missing(args.foreign) and not os.path.exists(os.path.join(args.foreign, name, "initrd")):
            die(f"{args.foreign} has no {name}: run ci/build/foreign, which prints the path of what has it")
    for p in args.patterns:
        if not any(fnmatch.fnmatchcase(label(c), p) for c in cases(args.short)):
            die(f"no case matches {p}: a case is '{', '.join(COMMANDS)}', with asids=8, 16 or 64, flushbyasid=off, npt=0, cpus=2, and base or series, "
                f"as in '{label(cases()[0])}'; try '*'")
    chosen = [c for c in cases(args.short) if not args.patterns or any(fnmatch.fnmatchcase(label(c), p) for p in args.patterns)]
    out = os.path.join(args.out, "foreign")
    os.makedirs(out, exist_ok=True)
    qemu = say_where("qemu")
    slots = threading.Semaphore(int(args.jobs) if args.jobs else machine.at_once())
    lock, ended, tsv = threading.Lock(), set(), os.path.join(args.out, "foreign.tsv")

    def finished(m):
        # A run of all cases takes long, so what it has found so far is written at once.
        with lock:
            ended.add(m)
            done = [o for o in machines if o in ended]
            write_tsv(done, tsv)
            if args.record:
                record(done + [o for o in others if o.when])
            print(f"{m.label}: " + (f"passed on {m.when} with these kernels, QEMU, guests and packages" if m.when else
                                    f"{'FAILED' if failures(m) else 'passed'} after {m.took:.0f} s"), flush=True)

    if args.kept:
        os.makedirs(args.kept, exist_ok=True)
    everything = {c: Machine(c, images, args.foreign, int(args.rounds), qemu, out, slots, finished, args.kept) for c in cases()}
    machines = [everything.pop(c) for c in chosen]
    others = list(everything.values())
    for m in ([] if args.again else machines) + others:
        if m.kept:
            m.recall()
    start = time.monotonic()
    machine.run_all(machines, lambda: f"{time.monotonic() - start:.0f} s; " + "; ".join(m.progress() for m in machines if m.guest and m.is_alive()),
                    lambda: f"interrupted after {time.monotonic() - start:.0f} s")
    failed = report(machines, os.path.join(args.out, "foreign.ktap"))
    print(f"foreign: {time.monotonic() - start:.0f} s, {len(machines) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
