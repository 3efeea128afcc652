#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""bench.py [--quick] [--record] [--variants IMAGE] [--kernel NAME=IMAGE]... BASE-IMAGE SERIES-IMAGE OUT [SCENARIO...]: called by scripts/bench.

Measures what one turn of a vCPU costs on both kernels, with the TLB model, in a machine whose clock counts instructions:
- VMRUNs
- flushes of one ASID, and flushes of all ASIDs
- page walks
- groups of VMCB fields that were reloaded because they were not clean
- L0's instructions: the median of all turns, because a timer tick takes as many instructions as two turns
- bytes of kernel memory per VM at the end of the workload

Each workload runs with two numbers of turns; the additional turns alone cause the difference.  Writes OUT.tsv, OUT.html and OUT.ktap, or
OUT-partial.tsv if the run ends early.  Exit status 0: the series is not worse than worse() allows, and the counts match ci/bench/expected,
which --record writes.  bench.py --names: print the names of the scenarios.
"""
import argparse
import collections
import csv
import os
import re
import sys
import threading
import time

import figures as docs
import page
import machine
import tap
from guest import TOP, Guest, GuestError, below, die, say_where

# How much more than the base the series may cost: a factor for L0's instructions (a turn has thousands of them), and a number of flushes
# and walks per turn, because timer interrupts cause some.
INSTRUCTIONS = 1.02
QUICK_INSTRUCTIONS = 0.01
NOISE = 0.02
QUICK_NOISE = 0.05
TURNS = (200, 1200)
QUICK_TURNS = (50, 300)
FEW_TURNS = (4, 20)
FEW_NOISE = 0.1

# must: counts of the series that are known in advance.
# faster: the series must not take more than this share of the base's instructions; True stands for 1.
# more: --quick leaves the scenario out.  slow: the same, and the scenario gets a machine of its own.
# cpus: L0's processors.  cpu: more properties of these processors.
# variants: alternative designs (ci/alternatives) that run as well.
# few: use few turns, because a turn takes long; the counts are less exact then.
# kernels: those of ci/bench/kernels that run as well.
# than: some of these; the series must not take more instructions (times INSTRUCTIONS) than they do.
# reloads_of: a scenario; the series must not reload more groups of VMCB fields than it does there.
# like: a scenario; the series must not take more instructions (times INSTRUCTIONS) than it does there.
Scenario = collections.namedtuple("Scenario", "name asids params command title must faster slow cpus cpu variants more few kernels than "
                                  "reloads_of like", defaults=({}, False, False, 1, "", (), False, False, (), (), "", ""))
# L1 boots twice, and a third time with an L2 that boots to its init and powers off: the additional time of the third boot is one turn.  It
# is measured as CPU time of L1's QEMU, which includes L0's work for it, because L0 idles in between.
L2_BOOT = """
boots() {
	svm-tlb cputime /tmp/took sh "$1" || exit 1
	took=$(cat /tmp/took)
	echo "$2 turns, $((took - ${alone:-0})) TSC cycles per turn"
	echo "NUMBER $(svm-tlb)"
}
cat >/tmp/without <<'END-without'
WITHOUT
END-without
cat >/tmp/with <<'END-with'
WITH
END-with
boots /tmp/without 0
boots /tmp/without 0
alone=$took
boots /tmp/with 1
"""
# Simpler designs of contexts.
DESIGNS = ("one-vmcb12", "private-lru")
# No flushes, and no page walks.
STEADY = {"flush_asid": 0, "flush_all": 0, "walks": 0}
SCENARIOS = [
    Scenario("pinned", 64, "", "svm_tlb_perf_test -w 16", "one vCPU, 16 pages"),
    Scenario("pinned-npt0", 64, "npt=0", "svm_tlb_perf_test -w 16", "one vCPU, 16 pages, npt=0"),
    Scenario("siblings-2", 64, "", "svm_tlb_perf_test -w 16 -v 2", "2 vCPUs of a VM on one pCPU"),
    Scenario("siblings-4", 64, "", "svm_tlb_perf_test -w 16 -v 4", "4 vCPUs of a VM on one pCPU", variants=("no-private-asids",)),
    Scenario("siblings-8", 64, "", "svm_tlb_perf_test -w 16 -v 8", "8 vCPUs of a VM on one pCPU", more=True),
    Scenario("siblings-16", 64, "", "svm_tlb_perf_test -w 16 -v 16", "16 vCPUs of a VM on one pCPU", more=True),
    # Three of four turns begin with an ASID that another vCPU used last, which takes 90 instructions more than flushing all every third time.
    Scenario("siblings-4-asids-4", 4, "", "svm_tlb_perf_test -w 16 -v 4", "4 vCPUs of a VM on one pCPU, 4 ASIDs"),
    Scenario("vms-4", 16, "", "svm_tlb_perf_test -w 16 -m 4", "4 VMs, 16 ASIDs"),
    Scenario("vms-8", 16, "", "svm_tlb_perf_test -w 16 -m 8", "8 VMs, 16 ASIDs", more=True),
    Scenario("vms-16", 16, "", "svm_tlb_perf_test -w 16 -m 16", "16 VMs, 16 ASIDs", more=True),
    Scenario("vms-20", 16, "", "svm_tlb_perf_test -w 16 -m 20", "20 VMs, 16 ASIDs"),
    Scenario("idle-60", 16, "", "svm_tlb_perf_test -w 16 -m 4 -i 60", "4 VMs beside 60 idle ones, 16 ASIDs"),
    # KVM has to flush, because its MMU notifier runs.
    Scenario("discard", 64, "", "svm_tlb_perf_test -w 16 -d", "one vCPU, userspace discards its 16 pages"),
    Scenario("discard-4", 64, "", "svm_tlb_perf_test -w 16 -d -v 4", "4 vCPUs of a VM, userspace discards 16 pages", more=True),
    Scenario("new-vm", 64, "", "svm_tlb_perf_test -w 16 -n", "a VM is created, runs, and is freed", more=True, few=True),
    # A turn is a round trip from L1 to L2 and back.
    Scenario("nested-w0", 64, "", "svm_nested_tlb_perf_test -w 0", "L2, no pages", STEADY, True),
    Scenario("nested-w16", 64, "", "svm_nested_tlb_perf_test -w 16", "L2, 16 pages", STEADY, True),
    Scenario("nested-w64", 64, "", "svm_nested_tlb_perf_test -w 64", "L2, 64 pages", STEADY, True),
    Scenario("nested-w256", 64, "", "svm_nested_tlb_perf_test -w 256", "L2, 256 pages", STEADY, True),
    Scenario("nested-w1024", 64, "", "svm_nested_tlb_perf_test -w 1024", "L2, 1024 pages", STEADY, True, more=True),
    Scenario("nested-2m", 64, "", "svm_nested_tlb_perf_test -w 16 -2", "L2, 16 pages of 2M", STEADY, True, more=True),
    Scenario("nested-cpuid", 64, "", "svm_nested_tlb_perf_test -w 16 -e", "L2, 16 pages, exits with CPUID", STEADY, True, more=True),
    Scenario("nested-shadow", 64, "", "svm_nested_tlb_perf_test -w 16 -s", "L2, 16 pages, L1 doesn't use NPT", STEADY, True),
    Scenario("nested-npt0", 64, "npt=0", "svm_nested_tlb_perf_test -w 16 -s", "L2, 16 pages, npt=0", STEADY, True),
    Scenario("nested-l2s-2", 64, "", "svm_nested_tlb_perf_test -w 16 -l 2", "2 L2s, 16 pages", STEADY),
    Scenario("nested-l2s-4", 64, "", "svm_nested_tlb_perf_test -w 16 -l 4", "4 L2s, 16 pages", STEADY),
    Scenario("nested-l2s-8", 64, "", "svm_nested_tlb_perf_test -w 16 -l 8", "8 L2s, 16 pages", STEADY, variants=("one-l2-asid",)),
    # KVM keeps eight domains per vCPU.
    Scenario("nested-l2s-16", 64, "", "svm_nested_tlb_perf_test -w 16 -l 16", "16 L2s, 16 pages", more=True),
    # Each L2 has its own NPT, as under a real hypervisor, and KVM needs a root for each.
    Scenario("nested-roots-1", 64, "", "svm_nested_tlb_perf_test -w 16 -r -l 1", "L2, 16 pages, NPT of its own", STEADY, True),
    Scenario("nested-roots-2", 64, "", "svm_nested_tlb_perf_test -w 16 -r -l 2", "2 L2s, 16 pages, NPTs of their own", STEADY, more=True, like="nested-roots-1"),
    Scenario("nested-roots-4", 64, "", "svm_nested_tlb_perf_test -w 16 -r -l 4", "4 L2s, 16 pages, NPTs of their own", STEADY, more=True, like="nested-roots-1"),
    Scenario("nested-roots-5", 64, "", "svm_nested_tlb_perf_test -w 16 -r -l 5", "5 L2s, 16 pages, NPTs of their own", STEADY, like="nested-roots-1"),
    Scenario("nested-roots-8", 64, "", "svm_nested_tlb_perf_test -w 16 -r -l 8", "8 L2s, 16 pages, NPTs of their own", STEADY, like="nested-roots-1",
             variants=("four-roots",), kernels=DESIGNS),
    Scenario("nested-roots-9", 64, "", "svm_nested_tlb_perf_test -w 16 -r -l 9", "9 L2s, 16 pages, NPTs of their own", more=True),
    # Without NPT in L0, KVM visits each root when it emulates INVLPG, so more roots save nothing here.
    Scenario("npt0-roots-8", 64, "npt=0", "svm_nested_tlb_perf_test -w 16 -s -r -l 8 -i", "8 L2s with CR3s of their own, INVLPG, npt=0", more=True,
             variants=("eight-shadow-roots",)),
    # A hypervisor that gives several L2s the same ASID has to flush it when they take turns, unless their translations are equal, as here.
    Scenario("nested-l2s-8-asid-1", 64, "", "svm_nested_tlb_perf_test -w 16 -l 8 -a 1", "8 L2s with one ASID, 16 pages", STEADY, more=True),
    Scenario("nested-move", 64, "", "svm_nested_tlb_perf_test -w 16 -l 4 -v 2 -m", "4 L2s move between 2 vCPUs", STEADY,
             kernels=DESIGNS),
    # The vCPUs run no L2 any more, but KVM may still keep track of all their VMCBs.
    Scenario("nested-discard", 64, "", "svm_nested_tlb_perf_test -w 0 -l 8 -v 4 -d", "4 vCPUs ran 8 L2s each, userspace discards a page",
             STEADY, variants=("caches-do-not-expire",)),
    # The case that contexts are for: L1 intercepts MSRs, and its clean bits say that it does not change its VMCBs.
    Scenario("nested-clean", 64, "", "svm_nested_tlb_perf_test -w 16 -b -k", "L2, MSR bitmap, clean VMCB", STEADY, 0.9),
    Scenario("nested-clean-8", 64, "", "svm_nested_tlb_perf_test -w 16 -b -k -l 8", "8 L2s, MSR bitmaps, clean VMCBs", STEADY, 0.9,
             kernels=DESIGNS, reloads_of="nested-clean"),
    # Each turn recycles a context, so that one context takes 2 % less than all others.
    Scenario("nested-clean-16", 64, "", "svm_nested_tlb_perf_test -w 16 -b -k -l 16", "16 L2s, MSR bitmaps, clean VMCBs",
             more=True, kernels=DESIGNS, than=("private-lru",)),
    # More L2s than one vCPU has contexts for, but not more than two vCPUs have.
    Scenario("nested-move-12", 64, "", "svm_nested_tlb_perf_test -w 16 -l 12 -v 2 -m -b", "12 L2s, MSR bitmaps, move between 2 vCPUs",
             more=True, kernels=DESIGNS, than=DESIGNS),
    # L2 flushes its own translations, as it does for each munmap(): one walk for each page, and no flushes.
    Scenario("nested-invlpg", 64, "", "svm_nested_tlb_perf_test -w 16 -i", "L2 maps 16 pages anew and uses INVLPG",
             {"flush_asid": 0, "flush_all": 0, "walks": 16}, True),
    # AVIC is inhibited while L2 runs, so KVM switches it on whenever the vCPU returns to L1.  The emulated CPU ignores AVIC.
    Scenario("nested-avic", 64, "avic=1 force_avic=1", "svm_nested_tlb_perf_test -w 16", "L2, 16 pages, AVIC", STEADY, True),
    # Flush on each transition, as the base does, for L1s that do not flush when they have to.
    Scenario("nested-age-0", 64, "nested_tlb_max_age=0", "svm_nested_tlb_perf_test -w 16", "L2, 16 pages, nested_tlb_max_age=0"),
    # With 1 ms, L2 is flushed and synced on each tick, every 4 ms.  The default is 10 ms.
    Scenario("nested-age-1", 64, "nested_tlb_max_age=1", "svm_nested_tlb_perf_test -w 256", "L2, 256 pages, nested_tlb_max_age=1", slow=True),
    # As many entries as a Zen core has, 4K pages, LRU.
    Scenario("nested-w256-tlb", 64, "", "svm_nested_tlb_perf_test -w 256", "L2, 256 pages, TLB of 3072", STEADY, True, cpu=",x-svm-tlb-entries=3072"),
    Scenario("nested-l2s-8-tlb", 64, "", "svm_nested_tlb_perf_test -w 16 -l 8", "8 L2s, 16 pages, TLB of 3072", STEADY, cpu=",x-svm-tlb-entries=3072"),
    # VMRUN flushes only L2's translations.
    Scenario("nested-flush", 64, "", "svm_nested_tlb_perf_test -w 16 -1 16 -c 3", "L2, 16 pages, L1 flushes it on each VMRUN", {"flush_asid": 1, "flush_all": 0}),
    # L1's vCPUs share an NPT, and all change it and flush at the same time.  The instructions are those of all processors.
    Scenario("nested-flush-8", 64, "", "svm_nested_tlb_perf_test -w 16 -c 3 -p -v 8", "8 vCPUs on 8 pCPUs write to NPT and flush L2", {}, cpus=8,
             slow=True),
    # One turn is a whole boot.
    Scenario("l2-boot", 64, "", "", "an L2 Linux boots to init", {}, True, True),
]
# The kernel that contains all variants, with none switched on: checking for variants takes instructions, too.
SWITCH = "switch"
COUNTERS = ("vmrun", "flush_asid", "flush_all", "walks", "reloads")
COLUMNS = COUNTERS + ("instructions", "bytes")
# Counts that are the same on any host, within QUICK_NOISE plus EXPECTED_NOISE times the count (less than one walk in four hundred).
EXACT = ("flush_asid", "flush_all", "walks", "reloads")
EXPECTED = os.path.join(TOP, "ci/bench/expected")
EXPECTED_NOISE = 0.002
# The curves of the page: title, label of the x axis, counter, and a map from x to the scenario.
CURVES = [
    ("Page walks per round trip, by the pages that L2 touches", "4K pages", "walks",
     {n: f"nested-w{n}" for n in (0, 16, 64, 256, 1024)}),
    ("Page walks per round trip, by the number of L2s that take turns", "L2s, 16 pages each", "walks",
     {1: "nested-w16", **{n: f"nested-l2s-{n}" for n in (2, 4, 8, 16)}}),
    ("L0's instructions per round trip, by the number of L2s that take turns", "L2s, 16 pages each", "instructions",
     {1: "nested-w16", **{n: f"nested-l2s-{n}" for n in (2, 4, 8, 16)}}),
    ("Page walks per round trip, by the number of L2s that take turns, each with an NPT of its own", "L2s, 16 pages each", "walks",
     {n: f"nested-roots-{n}" for n in (1, 2, 4, 5, 8, 9)}),
    ("L0's instructions per turn, by the vCPUs of a VM on one pCPU", "vCPUs", "instructions",
     {1: "pinned", **{n: f"siblings-{n}" for n in (2, 4, 8, 16)}}),
    ("Page walks per turn, by the VMs that take turns on 16 ASIDs", "VMs, 16 pages each", "walks",
     {1: "pinned", **{n: f"vms-{n}" for n in (4, 8, 16, 20)}}),
]


class Machine(machine.Machine):
    """One boot of one kernel, for all scenarios that need the same processors and module parameters, one after the other."""

    def __init__(self, slots, kernel, image, scenarios, turns, qemu):
        super().__init__(f"{' '.join(s.name for s in scenarios)} on the {kernel} kernel", slots)
        self.kernel, self.scenarios, self.turns = kernel, scenarios, turns
        s = scenarios[0]
        # Disable flushes by age: only some of the runs would see one.  The scenarios nested-age-* measure them.
        params = s.params if kernel == "base" or "nested_tlb_max_age" in s.params else s.params + " nested_tlb_max_age=3600000"
        self.options = {"image": image, "level": 0, "cpus": s.cpus, "modules": (f"kvm_amd {params}",), "qemu": qemu,
                        "cpu": f",x-svm-asids={s.asids}{s.cpu}", "icount": True}
        self.got = {}

    def work(self):
        command = "cd /selftests\n"
        for i, s in enumerate(self.scenarios):
            if not s.command:
                with_l2 = below(2, "l2", "true", "/tmp/l2.console", 256)
                command += L2_BOOT.replace("NUMBER", str(i)).replace("WITHOUT", below(1, "l1", "true", "/dev/null", 640)) \
                    .replace("WITH", below(1, "l1", with_l2, "/dev/null", 640))
                continue
            for v in self.variants(s):
                if self.kernel == SWITCH:
                    command += f"printf %s {v or 'none'} >/sys/module/kvm/parameters/mutant || exit 1\n"
                # The first run warms up KVM and L0's caches.
                for t in (1, *(FEW_TURNS if s.few else self.turns)):
                    command += f"svm-tlb memory /tmp/bytes ./x86/{s.command} -t {t} || exit 1\necho \"{i}{v} $(svm-tlb) bytes=$(cat /tmp/bytes)\"\n"
        self.guest = guest = Guest(command=command, **self.options)
        try:
            out = guest.qemu.stdout.read().decode(errors="replace")
            guest.qemu.wait()
            if guest.result():
                raise GuestError(f"the workload failed:\n{out}")
            for i, s in enumerate(self.scenarios):
                for v in self.variants(s):
                    self.got[s.name, v or self.kernel] = self.per_turn(s, f"{i}{v}", out)
        except GuestError as e:
            self.error = str(e)
        finally:
            guest.close()

    def variants(self, scenario):
        return ("", *scenario.variants) if self.kernel == SWITCH else ("",)

    def per_turn(self, scenario, number, out):
        """Return the cost of one of the additional turns, from the output of the guest."""
        runs = re.findall(rf"^(\d+) turns, (\d+) TSC cycles per turn\r?\n{number} (vmrun=.*)$", out, re.M)
        if len(runs) != 3:
            raise GuestError(f"the guest printed no figures of {scenario.name}:\n{out}")
        counts = [dict((k, int(v)) for k, v in re.findall(r"(\w+)=(\d+)", line)) for _, _, line in runs]
        turns = [int(t) for t, _, _ in runs]
        more = turns[2] - turns[1]
        per_turn = {c: ((counts[2][c] - counts[1][c]) - (counts[1][c] - counts[0][c])) / more for c in COUNTERS}
        per_turn["instructions"] = int(runs[2][1])
        # Ignore the first run: it also allocates memory that the kernel keeps for later runs.  For l2-boot there is no VM left to measure.
        per_turn["bytes"] = min(counts[1]["bytes"], counts[2]["bytes"]) / vms(scenario) if "bytes" in counts[2] else 0
        return per_turn


def vms(scenario):
    """Return the number of VMs at the end of the workload."""
    options = dict(re.findall(r" -([mi]) (\d+)", scenario.command))
    return int(options.get("m", 1)) + int(options.get("i", 0))


def worse(scenario, base, series, noise):
    """Return a message for each count of the series that is worse than on the base, or than the scenario allows."""
    bad = [f"{c} {series[c]:.3f} per turn, must be {n}" for c, n in scenario.must.items() if abs(series[c] - n) > noise]
    # If the base does full flushes, the series may flush more single ASIDs instead: a full flush costs all vCPUs of all VMs their
    # translations, and flushes of single ASIDs that cost too much show up as walks.
    for c in ("flush_all", "walks") + (() if base["flush_all"] > noise else ("flush_asid",)):
        if series[c] > base[c] + noise:
            bad.append(f"{c} {series[c]:.3f} per turn, {base[c]:.3f} on the base")
    # The turns of --quick are not enough to tell 1 %: what a timer tick takes is in one of the runs and not in the other.
    most = (scenario.faster or INSTRUCTIONS) + (QUICK_INSTRUCTIONS if noise > NOISE else 0)
    if series["instructions"] > most * base["instructions"]:
        bad.append(f"{series['instructions']:.0f} instructions per turn, {base['instructions']:.0f} on the base, must be at most {most:.2f} times that")
    return bad


def worse_than_kernels(scenario, got):
    """The same for kernels that the series must not be worse than."""
    for k in scenario.than:
        if k in got and got["series"]["instructions"] > INSTRUCTIONS * got[k]["instructions"]:
            yield f"{got['series']['instructions']:.0f} instructions per turn, {got[k]['instructions']:.0f} with {k}"


def worse_than_scenarios(scenario, figures, noise):
    """The same for other scenarios of this run."""
    mine, most, like = (figures.get(name, {}).get("series") for name in (scenario.name, scenario.reloads_of, scenario.like))
    if most and mine["reloads"] > most["reloads"] + noise:
        yield f"{mine['reloads']:.3f} groups of VMCB fields reloaded per turn, {most['reloads']:.3f} in {scenario.reloads_of}"
    if like and mine["instructions"] > INSTRUCTIONS * like["instructions"]:
        yield f"{mine['instructions']:.0f} instructions per turn, {like['instructions']:.0f} in {scenario.like}"


def read_expected():
    with open(EXPECTED, encoding="utf-8") as f:
        return {(r["scenario"], r["kernel"]): r for r in csv.DictReader(f, delimiter="\t")}


def unexpected(scenario, got, expected):
    """Yield a message for each count that differs from ci/bench/expected."""
    for kernel, f in got.items():
        was = expected.get((scenario.name, kernel))
        if not was:
            yield f"ci/bench/expected has no counts for {kernel}: run scripts/bench --record"
            continue
        for c in EXACT:
            if abs(f[c] - float(was[c])) > QUICK_NOISE + EXPECTED_NOISE * float(was[c]):
                yield f"{kernel}: {c} {f[c]:.3f} per turn, {was[c]} in ci/bench/expected; if the change is intended, run scripts/bench --record"


def write_tsv(path, scenarios, machines):
    """Write all figures that were measured; return scenario -> kernel -> counter -> count per turn."""
    figures = {s.name: {kernel: f for m in machines for (name, kernel), f in m.got.items() if name == s.name} for s in scenarios}
    with open(path + ".new", "w", encoding="utf-8") as tsv:
        tsv.write("\t".join(("scenario", "kernel") + COLUMNS) + "\n")
        for name, got in figures.items():
            for kernel, f in got.items():
                tsv.write("\t".join([name, kernel] + [f"{f[c]:.3f}" for c in COLUMNS]) + "\n")
    os.replace(path + ".new", path)
    return figures


def main():
    if sys.argv[1:] == ["--names"]:
        print("\n".join(s.name for s in SCENARIOS))
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--variants")
    parser.add_argument("--kernel", action="append", default=[])
    parser.add_argument("base")
    parser.add_argument("series")
    parser.add_argument("out")
    parser.add_argument("scenarios", nargs="*")
    args = parser.parse_args()
    todo = [s for s in SCENARIOS if (s.name in args.scenarios if args.scenarios else not (args.quick and (s.slow or s.more)))]
    turns = QUICK_TURNS if args.quick else TURNS
    qemu = say_where("qemu")
    start, results = time.monotonic(), []
    slots = threading.Semaphore(machine.at_once())
    images = {"base": args.base, "series": args.series}
    machines = []
    # A slow scenario gets a machine of its own.
    kinds = collections.defaultdict(list)
    for s in todo:
        kinds[s.asids, s.params, s.cpus, s.cpu, s.slow and s.name].append(s)
    for mine in kinds.values():
        machines += [Machine(slots, k, i, mine, turns, qemu) for k, i in images.items()]
        for kernel in args.kernel:
            name, _, image = kernel.partition("=")
            # The part-nested kernel, which is the series without part contexts, runs all scenarios with an L2.
            with_l2 = [s for s in mine if name in s.kernels or name == "part-nested" and "nested" in s.command and not s.slow]
            if with_l2:
                machines.append(Machine(slots, name, image, with_l2, turns, qemu))
        mine = [s for s in mine if s.variants]
        if args.variants and mine:
            machines.append(Machine(slots, SWITCH, args.variants, mine, turns, qemu))

    def partial():
        """Write what was measured before the run ended early, and return a note about it."""
        if not any(m.got for m in machines):
            return ""
        write_tsv(args.out + "-partial.tsv", todo, machines)
        return f", what was measured is in {os.path.relpath(args.out, TOP)}-partial.tsv"

    machine.run_all(machines,
                    lambda: f"bench: {sum(not m.is_alive() for m in machines)} of {len(machines)} machines done after {time.monotonic() - start:.0f} s",
                    lambda: f"interrupted after {time.monotonic() - start:.0f} s{partial()}")
    for m in machines:
        if m.error:
            die(f"{m.label}{partial()}: {m.error}")

    figures = write_tsv(args.out + ".tsv", todo, machines)
    if os.path.exists(args.out + "-partial.tsv"):
        os.remove(args.out + "-partial.tsv")
    page.write(args.out + ".html", todo, figures, CURVES, os.environ.get("KVM_TLB_ABOUT", ""))
    # The expected counts hold for Debian's base only.
    expected = None if os.environ.get("KDIR") else read_expected() if os.path.exists(EXPECTED) else {}
    print(f"{'per turn of a vCPU':48} {'':16}  {'VMRUNs':>8} {'ASID flushes':>12} {'full flushes':>12} {'page walks':>10} {'reloads':>8} {'KiB per VM':>10} {'instructions':>12}")
    for s in todo:
        got = figures[s.name]
        for kernel, f in got.items():
            ratio = "" if kernel == "base" else f" x {f['instructions'] / got['base']['instructions']:.3f}"
            print(f"{s.title if kernel == 'base' else '':48} {kernel:16}  {f['vmrun']:8.3f} {f['flush_asid']:12.3f} {f['flush_all']:12.3f} "
                  f"{f['walks']:10.3f} {f['reloads']:8.3f} {f['bytes'] / 1024:10.0f} {f['instructions']:12.0f}{ratio}")
        noise = FEW_NOISE if s.few else QUICK_NOISE if args.quick else NOISE
        bad = worse(s, got["base"], got["series"], noise) + list(worse_than_kernels(s, got))
        bad += worse_than_scenarios(s, figures, noise)
        # Slow scenarios have no expected counts, because many threads run in them.
        if expected is not None and not s.slow and not s.few and not args.record:
            bad += unexpected(s, got, expected)
        for b in bad:
            print(f"FAIL: {s.name}: {b}")
        results.append((s.name, "fail" if bad else "pass", bad))
    if args.record:
        with open(EXPECTED, "w", encoding="utf-8") as f:
            f.write("\t".join(("scenario", "kernel") + EXACT) + "\n")
            for s in todo:
                for kernel, got in figures[s.name].items():
                    if not s.slow and not s.few:
                        f.write("\t".join([s.name, kernel] + [f"{got[c]:.3f}" for c in EXACT]) + "\n")
        docs.write(todo, figures)
    tap.write(args.out + ".ktap", results)
    print(f"bench: {len(todo)} scenarios in {time.monotonic() - start:.0f} s; {os.path.relpath(args.out, TOP)}.tsv and .html")
    return 1 if any(outcome == "fail" for _, outcome, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
