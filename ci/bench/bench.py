#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""bench.py [--quick] [--record] [--machine tcg|vmx] [--variants IMAGE] [--kernel NAME=IMAGE]... BASE-IMAGE SERIES-IMAGE OUT [SCENARIO...]: called
by scripts/bench.

Measures what one turn of a vCPU costs on both kernels, with the TLB model, in a machine whose clock counts instructions:
- VMRUNs
- flushes of one ASID, and flushes of all ASIDs
- page walks
- groups of VMCB fields that were reloaded because they were not clean
- L0's instructions: the median of all turns, because a timer tick takes as many instructions as two turns
- IPIs that L0's processors send to each other
- bytes of kernel memory per VM at the end of the workload

On the machine with VMX, VM entries, INVVPIDs and INVEPTs take the place of VMRUNs, flushes of one ASID and flushes of all ASIDs, nothing is
reloaded, memory is not measured, and the instructions are those of L0, L1 and L2.

Each workload runs with two numbers of turns; the additional turns alone cause the difference.  Writes OUT.tsv, OUT.html and OUT.ktap, or
OUT-partial.tsv if the run ends early.  Exit status 0: the series is not worse than worse() allows, and the counts match ci/bench/expected,
which --record writes; with --machine, for the scenarios of that machine only.
bench.py --names: print the names of the scenarios.
bench.py --kernels [SCENARIO...]: print which kernels of ci/bench/kernels these, or all, scenarios need.
bench.py --machines [SCENARIO...]: print on which machines they run.
"""
import argparse
import collections
import csv
import os
import re
import sys
import threading
import time
import tomllib

import figures as docs
import page
import machine
import tap
from bochs import BochsGuest
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

# ci/bench/scenarios.toml explains the fields.
Scenario = collections.namedtuple("Scenario", "name title command params asids cpus cpu must at_most more slow few variants kernels than reloads_of like tolerance "
                                              "l2 turns l2s l3 l1 config machine remote",
                                  defaults=("", "", 64, 1, "", {}, None, False, False, False, (), (), (), "", "", INSTRUCTIONS, "", (1, 3), 1, False, "", "rig", "tcg",
                                            False))
# The emulators of the machines, by the names that scripts/run has for these.
EMULATORS = {"tcg": "qemu", "vmx": "bochs"}
# L1 and its guests boot once.  What has to do the turns then reads their number from L0, here, and says when it has done them.  The second number
# repeats the first, and the third is greater: the additional turns alone cause the difference.  The time is CPU time of L1's QEMU, which
# includes L0's work for it, or what the turns have measured themselves.
LINUX = """
cat >/tmp/l1.sh <<'END-sh'
L1
END-sh
mkfifo /tmp/l1.in /tmp/l1.out
sh /tmp/l1.sh </tmp/l1.in >/tmp/l1.out 2>&1 & l1=$!
exec 3>/tmp/l1.in 4</tmp/l1.out
expect() {
	while read -r line <&4; do
		case $line in *"$1"*) return ;; esac
		echo "$line"
	done
	echo "L1 never printed \"$1\""
	exit 1
}
turns() {
	begin=$(svm-tlb cputime "$(cat /tmp/l1.pid)") || exit 1
	echo "$1" >&3
	expect "did $1"
	took=$(($(svm-tlb cputime "$(cat /tmp/l1.pid)") - begin)) || exit 1
	per_turn=$(((took - ${few:-0}) / $2))
	case $line in *' cycles='*) per_turn=${line##* cycles=} ;; esac
	echo "$1 turns, ${per_turn%% *} TSC cycles per turn"
	echo "NUMBER $(svm-tlb) ${line#*did "$1"}"
}
expect ready
turns FEW 1
turns FEW 1
few=$took
turns MANY $((MANY - FEW))
few=
echo 0 >&3
while read -r line <&4; do echo "$line"; done
wait $l1 || exit 1
rm /tmp/l1.in /tmp/l1.out
"""
# In L1: boots of an L2 as turns
L2_BOOTS = """
echo ready
while read -r n && [ "$n" != 0 ]; do
	for i in $(seq "$n"); do
		{{ {0}
		}} </dev/null || exit 1
	done
	echo "did $n"
done
"""
# In L1: two L2s side by side, as one
SIDE_BY_SIDE = """
mkfifo /tmp/a.in /tmp/a.out /tmp/b.in /tmp/b.out
{{ {0}
}} </tmp/a.in >/tmp/a.out 2>&1 & a=$!
{{ {1}
}} </tmp/b.in >/tmp/b.out 2>&1 & b=$!
exec 3>/tmp/a.in 4</tmp/a.out 5>/tmp/b.in 6</tmp/b.out
expect() {{
	while read -r line <&"$1"; do
		case $line in *"$2"*) return ;; esac
		echo "$line"
	done
	exit 1
}}
expect 4 ready
expect 6 ready
echo ready
while read -r n; do
	echo "$n" >&3
	echo "$n" >&5
	[ "$n" != 0 ] || break
	expect 4 "did $n"
	expect 6 "did $n"
	echo "did $n"
done
wait $a && wait $b
"""
# In L1: what L2 writes to its console goes to a program, whose answers are the console's input.
ANSWERED = """
set -o pipefail
mkfifo /tmp/answers
exec 3<&0
{{ {0}
}} </tmp/answers | workload answer >/tmp/answers
"""
# vCPUs of an L1 that does something without an L2
L1_CPUS = 4
# L2's network: each frame is a datagram for "workload answer-frames" in L1.
FRAMES = ["-netdev", "dgram,id=net,local.type=unix,local.path=/tmp/net.l2,remote.type=unix,remote.path=/tmp/net.l1",
          "-device", "virtio-net-pci,netdev=net,romfile="]
# The kernel that contains all variants, with none switched on: checking for variants takes instructions, too.
SWITCH = "switch"
COUNTERS = ("vmrun", "flush_asid", "flush_all", "walks", "reloads")
# L0's processors send IPIs to each other, and those of its Linux guest do so to flush TLBs.
IPIS = ("ipis", "guest_ipis")
COLUMNS = COUNTERS + ("instructions", "bytes") + IPIS
# Counts that are the same on any host, within QUICK_NOISE plus EXPECTED_NOISE times the count (less than one walk in four hundred).
EXACT = ("flush_asid", "flush_all", "walks", "reloads")
EXPECTED = os.path.join(TOP, "ci/bench/expected")
EXPECTED_NOISE = 0.002


def read_scenarios(path):
    """Return the scenarios of a TOML file.  Ends the program if a scenario has an unknown key, or no title."""
    with open(path, "rb") as f:
        try:
            tables = tomllib.load(f)
        except tomllib.TOMLDecodeError as e:
            die(f"{path}: {e}")
    scenarios = []
    for name, keys in tables.items():
        # No flushes, and no page walks.
        steady = {"flush_asid": 0, "flush_all": 0, "walks": 0} if keys.pop("steady", False) else {}
        unknown = sorted(set(keys) - set(Scenario._fields) | {"title"} - set(keys))
        if unknown:
            die(f"{path}: {name}: {', '.join(unknown)}: unknown or missing, see the top of the file")
        scenarios.append(Scenario(name, **{**keys, "must": {**steady, **keys.get("must", {})}}))
    for s in scenarios:
        for other in (s.like, s.reloads_of):
            if other and other not in tables:
                die(f"{path}: {s.name}: there is no scenario {other}")
        if not os.path.exists(os.path.join(TOP, f"ci/config/{s.config}.config")):
            die(f"{path}: {s.name}: there is no configuration {s.config} in ci/config")
        if s.machine not in EMULATORS:
            die(f"{path}: {s.name}: there is no machine {s.machine} (choose from: {' '.join(EMULATORS)})")
        if s.machine == "vmx" and (not s.command or s.variants or s.kernels or s.cpus != 1 or s.cpu):
            die(f"{path}: {s.name}: the machine with VMX has one CPU, runs a command, and base and series only")
    return scenarios


def read_curves(path):
    """Return (title, label of the x axis, counter, map from x to the name of a scenario) for each curve of a TOML file."""
    with open(path, "rb") as f:
        try:
            return [(c["title"], c["x"], c["counter"], {int(x): name for x, name in c["scenarios"].items()}) for c in tomllib.load(f)["curve"]]
        except (tomllib.TOMLDecodeError, KeyError, ValueError) as e:
            die(f"{path}: {e}: not a list of curves with title, x, counter and scenarios")


def kernels_of(s):
    """Return the names of the kernels of ci/bench/kernels that run a scenario: part-nested, the series without part contexts, runs each with an L2."""
    return {*s.kernels, *(["part-nested"] if "nested" in s.command and not s.slow and s.machine == "tcg" else [])}


def configs_of(s):
    """Return the configurations of ci/config, besides rig, whose kernels a scenario needs."""
    return {s.config} - {"rig"}


def machines_of(s):
    return {s.machine}


def boot_l1(s):
    """Return shell text that boots L1, which does turns, or in which L2s boot and do turns; see LINUX.  Without anything to do, a turn is a boot of L2."""
    def l2(name, extra=()):
        if s.l3:
            return below(2, name, below(3, "l3", s.l2, "/tmp/l3.console", 192), f"/tmp/{name}.console", 448, modules="kvm_amd")
        return below(2, name, s.l2 or "true", f"/tmp/{name}.console", 256, extra=extra)

    if s.l1:
        return below(1, "l1", s.l1, "/dev/null", 512, cpus=L1_CPUS)
    if not s.l2:
        inner = L2_BOOTS.format(l2("l2"))
    elif s.l2s == 2:
        inner = SIDE_BY_SIDE.format(l2("l2a"), l2("l2b"))
    elif s.l2 == "workload request":
        inner = ANSWERED.format(l2("l2"))
    elif s.l2 == "workload frame":
        inner = f"workload answer-frames &\n{l2('l2', FRAMES)}"
    else:
        inner = l2("l2")
    return below(1, "l1", inner, "/dev/null", 640 + 256 * (s.l2s - 1) + 192 * s.l3)


SCENARIOS = read_scenarios(os.path.join(TOP, "ci/bench/scenarios.toml"))
CURVES = read_curves(os.path.join(TOP, "ci/bench/curves.toml"))


class Machine(machine.Machine):
    """One boot of one kernel, for all scenarios that need the same processors and module parameters, one after the other."""

    def __init__(self, slots, kernel, image, scenarios, turns, emulator):
        super().__init__(f"{' '.join(s.name for s in scenarios)} on the {kernel} kernel", slots)
        self.kernel, self.scenarios, self.turns = kernel, scenarios, turns
        s = scenarios[0]
        # Disable flushes by age: only some of the runs would see one.  The scenarios nested-age-* measure them.
        params = s.params if kernel == "base" or "nested_tlb_max_age" in s.params else s.params + " nested_tlb_max_age=3600000"
        if s.machine == "vmx":
            self.new_guest, self.options = BochsGuest, {"image": image, "modules": (f"kvm_intel {params}",), "bochs": emulator}
        else:
            self.new_guest = Guest
            self.options = {"image": image, "level": 0, "cpus": s.cpus, "modules": (f"kvm_amd {params}",), "qemu": emulator,
                            "cpu": f",x-svm-asids={s.asids}" + (f",{s.cpu}" if s.cpu else ""), "icount": True}
        self.got = {}

    def work(self):
        command = "cd /selftests\n"
        for i, s in enumerate(self.scenarios):
            if not s.command:
                few, many = s.turns
                command += LINUX.replace("NUMBER", str(i)).replace("L1", boot_l1(s), 1).replace("FEW", str(few)).replace("MANY", str(many))
                continue
            for v in self.variants(s):
                if self.kernel == SWITCH:
                    command += f"printf %s {v or 'none'} >/sys/module/kvm/parameters/mutant || exit 1\n"
                # The first run warms up KVM and L0's caches.
                for t in (1, *(FEW_TURNS if s.few else QUICK_TURNS if s.machine == "vmx" else self.turns)):
                    if s.machine == "vmx":
                        # Before it measures memory, the kernel has to be idle for a second, which takes Bochs longer than the workload.
                        command += f"./x86/{s.command} -t {t} || exit 1\necho \"{i}{v} $(svm-tlb)\"\n"
                    else:
                        command += f"svm-tlb memory /tmp/bytes ./x86/{s.command} -t {t} || exit 1\necho \"{i}{v} $(svm-tlb) bytes=$(cat /tmp/bytes)\"\n"
        self.guest = guest = self.new_guest(command=command, **self.options)
        try:
            out = guest.process.stdout.read().decode(errors="replace")
            guest.process.wait()
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
        counts = [dict((k, int(v)) for k, v in re.findall(r"(\w+)=(-?\d+)", line)) for _, _, line in runs]
        turns = [int(t) for t, _, _ in runs]
        more = turns[2] - turns[1]
        per_turn = {c: (counts[2].get(c, 0) - 2 * counts[1].get(c, 0) + counts[0].get(c, 0)) / more for c in COUNTERS + IPIS}
        per_turn["instructions"] = int(runs[2][1])
        # Ignore the first run: it also allocates memory that the kernel keeps for later runs.  Where L1 boots, no VM is left to measure, and on
        # VMX nothing is measured.
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
    for c in ("flush_all",) + (() if scenario.l2 else ("walks",)) + (() if base["flush_all"] > noise else ("flush_asid",)):
        if c not in scenario.must and series[c] > base[c] + noise:
            bad.append(f"{c} {series[c]:.3f} per turn, {base[c]:.3f} on the base")
    # The turns of --quick are not enough to tell 1 %: what a timer tick takes is in one of the runs and not in the other.
    most = (scenario.at_most or INSTRUCTIONS) + (QUICK_INSTRUCTIONS if noise > NOISE else 0)
    if series["instructions"] > most * base["instructions"]:
        bad.append(f"{series['instructions']:.0f} instructions per turn, {base['instructions']:.0f} on the base, must be at most {most:.2f} times that")
    return bad


def worse_than_kernels(scenario, got):
    """The same for kernels that the series must not be worse than."""
    for k in scenario.than:
        if k in got and got["series"]["instructions"] > scenario.tolerance * got[k]["instructions"]:
            yield f"{got['series']['instructions']:.0f} instructions per turn, {got[k]['instructions']:.0f} with {k}"


def worse_than_scenarios(scenario, figures, noise):
    """The same for other scenarios of this run."""
    mine, most, like = (figures.get(name, {}).get("series") for name in (scenario.name, scenario.reloads_of, scenario.like))
    if most and mine["reloads"] > most["reloads"] + noise:
        yield f"{mine['reloads']:.3f} groups of VMCB fields reloaded per turn, {most['reloads']:.3f} in {scenario.reloads_of}"
    if like and mine["instructions"] > scenario.tolerance * like["instructions"]:
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


def write_expected(scenarios, figures):
    """Write ci/bench/expected; keep the lines of the other machine if only one was measured."""
    kept = collections.defaultdict(list)
    for (name, kernel), r in read_expected().items() if os.path.exists(EXPECTED) else ():
        kept[name].append([kernel] + [r[c] for c in EXACT])
    for s in scenarios:
        kept[s.name] = [] if s.slow or s.few else [[kernel] + [f"{got[c]:.3f}" for c in EXACT] for kernel, got in figures[s.name].items()]
    with open(EXPECTED, "w", encoding="utf-8") as f:
        f.write("\t".join(("scenario", "kernel") + EXACT) + "\n")
        f.writelines("\t".join([s.name, *words]) + "\n" for s in SCENARIOS for words in kept[s.name])


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
    if sys.argv[1:2] in (["--kernels"], ["--configs"], ["--machines"]):
        of = {"--kernels": kernels_of, "--configs": configs_of, "--machines": machines_of}[sys.argv[1]]
        print("\n".join(sorted({k for s in SCENARIOS if s.name in sys.argv[2:] or not sys.argv[2:] for k in of(s)})))
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--machine", choices=EMULATORS)
    parser.add_argument("--variants")
    parser.add_argument("--kernel", action="append", default=[])
    parser.add_argument("--config", action="append", default=[], nargs=3, help="a configuration, and the images of base and series with it")
    parser.add_argument("base")
    parser.add_argument("series")
    parser.add_argument("out")
    parser.add_argument("scenarios", nargs="*")
    args = parser.parse_args()
    todo = [s for s in SCENARIOS if (s.name in args.scenarios if args.scenarios else not (args.quick and (s.slow or s.more)))
            and args.machine in (None, s.machine)]
    turns = QUICK_TURNS if args.quick else TURNS
    emulators = {m: say_where(EMULATORS[m]) for m in sorted({s.machine for s in todo})}
    start, results = time.monotonic(), []
    slots = threading.Semaphore(machine.at_once())
    images = {config: {"base": base, "series": series} for config, base, series in (["rig", args.base, args.series], *args.config)}
    machines = []
    # A slow scenario gets a machine of its own.
    kinds = collections.defaultdict(list)
    for s in todo:
        kinds[s.machine, s.asids, s.params, s.cpus, s.cpu, s.config, s.slow and s.name].append(s)
    for mine in kinds.values():
        emulator = emulators[mine[0].machine]
        machines += [Machine(slots, k, i, mine, turns, emulator) for k, i in images[mine[0].config].items()]
        for kernel in args.kernel:
            name, _, image = kernel.partition("=")
            theirs = [s for s in mine if name in kernels_of(s)]
            if theirs:
                machines.append(Machine(slots, name, image, theirs, turns, emulator))
        mine = [s for s in mine if s.variants]
        if args.variants and mine:
            machines.append(Machine(slots, SWITCH, args.variants, mine, turns, emulator))

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
                  f"{f['walks']:10.3f} {f['reloads']:8.3f} {f['bytes'] / 1024:10.0f} {f['instructions']:12.0f}{ratio}"
                  + (f", {f['ipis']:.3f} IPIs of L0, {f['guest_ipis']:.3f} of its guest" if s.remote else ""))
        # Threads that start on several processors send some IPIs, not always the same number.
        noise = FEW_NOISE if s.few or s.remote else QUICK_NOISE if args.quick else NOISE
        bad = worse(s, got["base"], got["series"], noise) + list(worse_than_kernels(s, got))
        bad += worse_than_scenarios(s, figures, noise)
        # Slow scenarios have no expected counts, because many threads run in them.
        if expected is not None and not s.slow and not s.few and not args.record:
            bad += unexpected(s, got, expected)
        for b in bad:
            print(f"FAIL: {s.name}: {b}")
        results.append((s.name, "fail" if bad else "pass", bad))
    if args.record:
        write_expected(todo, figures)
        docs.write(SCENARIOS, figures)
    tap.write(args.out + ".ktap", results)
    print(f"bench: {len(todo)} scenarios in {time.monotonic() - start:.0f} s; {os.path.relpath(args.out, TOP)}.tsv and .html")
    return 1 if any(outcome == "fail" for _, outcome, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
