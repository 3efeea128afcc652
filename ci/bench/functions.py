#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""functions.py PLUGIN BASE-IMAGE SERIES-IMAGE OUT.tsv SCENARIO: called by scripts/profile.

Runs a scenario of scripts/bench with two numbers of turns on both kernels.  A QEMU plugin (ci/bench/blocks.c) counts how often L0 executes
each block of instructions.  The difference between both runs, divided by the additional turns, is what a turn costs, including its share of
timer ticks.  functions.py --names: print the names of the scenarios.
"""
import bisect
import collections
import os
import sys
import tempfile
import threading
import time

import bench
import machine
from guest import BUILD, TOP, Guest, GuestError, die, say_where

# Addresses from here on are the kernel's.  Below are programs of L0, and guests: the plugin cannot tell them apart.
KERNEL = 0xffff800000000000
OTHER = "(programs and guests)"
# L0 executes these until the host has taken what it prints; how long that takes depends on the host.
WAITS = ("__send_to_port", "virtqueue_get_buf", "virtqueue_get_buf_ctx", "virtqueue_is_broken")
# Functions are printed if they have at least this share of the instructions of one of the kernels.
SHOWN = 0.002
Cost = collections.namedtuple("Cost", "calls instructions")


def read_blocks(path):
    """Return address -> (instructions of all runs, runs) from a file that the plugin has written."""
    blocks = collections.defaultdict(lambda: [0, 0])
    try:
        with open(path, encoding="ascii") as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        lines = []
    if lines[-1:] != ["end"]:
        raise GuestError(f"QEMU has not written all counts to {path}: is the disk full?")
    for line in lines[:-1]:
        address, instructions, runs = line.split()
        block = blocks[int(address, 16)]
        block[0] += int(instructions) * int(runs)
        block[1] += int(runs)
    return blocks


def read_symbols(text):
    """Return the sorted addresses of the functions in /proc/kallsyms, and their names; that of a module's function ends with the module's."""
    found = {}
    for line in text.splitlines():
        address, kind, name = line.split(maxsplit=2)
        if kind in "tTwW" and int(address, 16) >= KERNEL:
            found.setdefault(int(address, 16), name.replace("\t", " "))
    if not found:
        raise GuestError("/proc/kallsyms shows no addresses of functions: is kptr_restrict set?")
    addresses = sorted(found)
    return addresses, [found[a] for a in addresses]


def by_function(blocks, symbols):
    """Return function -> [calls, instructions].  A function is called when the block at its address runs."""
    addresses, names = symbols
    costs = collections.defaultdict(lambda: [0, 0])
    for address, (instructions, runs) in blocks.items():
        at = bisect.bisect_right(addresses, address) - 1
        kernel = address >= KERNEL and at >= 0
        if kernel and names[at] in WAITS:
            continue
        cost = costs[names[at] if kernel else OTHER]
        cost[0] += runs if kernel and addresses[at] == address else 0
        cost[1] += instructions
    return costs


class Machine(machine.Machine):
    """The boots of one kernel, one after the other: one for the addresses of its functions, and one for each number of turns."""

    def __init__(self, slots, kernel, image, scenario, plugin, qemu, directory):
        super().__init__(f"{scenario.name} on the {kernel} kernel", slots)
        self.bench = bench.Machine(None, kernel, image, [scenario], (), qemu)
        self.kernel, self.scenario, self.plugin, self.directory = kernel, scenario, plugin, directory
        self.costs = {}

    def boot(self, command, *qemu_args):
        self.guest = guest = Guest(command=command, qemu_args=qemu_args, **self.bench.options)
        try:
            out = guest.process.stdout.read().decode(errors="replace").replace("\r", "")
            guest.process.wait()
            if guest.result():
                raise GuestError(f"{self.label}: the workload failed:\n{out}")
            return out
        finally:
            guest.close()

    def work(self):
        # Reading /proc/kallsyms takes more instructions than the workload, so do that in a boot of its own.  Modules must be where they were.
        modules = "cat /proc/modules; echo\n"
        loaded, _, symbols = self.boot(modules + "cat /proc/kallsyms").partition("\n\n")
        symbols = read_symbols(symbols)
        few, many = bench.FEW_TURNS if self.scenario.few else bench.TURNS
        runs = []
        for turns in (few, many):
            path = os.path.join(self.directory, f"{self.kernel}.{turns}")
            command = f"{modules}cd /selftests && ./x86/{self.scenario.command} -t {turns} >/tmp/out 2>&1 || {{ cat /tmp/out; exit 1; }}"
            if self.boot(command, "-plugin", f"{self.plugin},out={path}").rstrip() != loaded.rstrip():
                raise GuestError(f"{self.label}: the kernel has put its modules elsewhere than in its first boot")
            runs.append(by_function(read_blocks(path), symbols))
        self.costs = {name: Cost(*((runs[1][name][i] - runs[0][name][i]) / (many - few) for i in (0, 1))) for name in {*runs[0], *runs[1]}}


def write(path, base, series):
    """Write and print the costs of all functions; those with most instructions come first."""
    none = Cost(0, 0)
    names = sorted({*base, *series}, key=lambda n: (-max(base.get(n, none).instructions, series.get(n, none).instructions), n))
    rows = [(n, base.get(n, none), series.get(n, none)) for n in names]
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write("function\tbase_calls\tbase_instructions\tseries_calls\tseries_instructions\n")
        for name, b, s in rows:
            if any(abs(x) >= 0.0005 for x in b + s):
                f.write(f"{name}\t{b.calls:.3f}\t{b.instructions:.3f}\t{s.calls:.3f}\t{s.instructions:.3f}\n")
    os.replace(path + ".new", path)
    total = [sum(c.instructions for c in costs.values()) for costs in (base, series)]
    shown = [r for r in rows if any(c.instructions >= SHOWN * t for c, t in zip(r[1:], total))]
    print(f"{'':40} {'base':>18} {'series':>18}\n{'function':40} {'calls':>8} {'instr.':>9} {'calls':>8} {'instr.':>9} {'difference':>11}")
    for name, b, s in shown:
        print(f"{name[:40]:40} {b.calls:8.2f} {b.instructions:9.1f} {s.calls:8.2f} {s.instructions:9.1f} {s.instructions - b.instructions:+11.1f}")
    rest = [t - sum(r[i].instructions for r in shown) for i, t in enumerate(total, 1)]
    for name, (b, s) in (("(the rest)", rest), ("(all)", total)):
        print(f"{name:40} {'':8} {b:9.1f} {'':8} {s:9.1f} {s - b:+11.1f}")


def main():
    scenarios = {s.name: s for s in bench.SCENARIOS if s.command and s.machine == "tcg"}
    if sys.argv[1:] == ["--names"]:
        print("\n".join(scenarios))
        return
    plugin, base, series, out, name = sys.argv[1:]
    qemu, start = say_where("qemu"), time.monotonic()
    slots = threading.Semaphore(machine.at_once())
    os.makedirs(os.path.join(BUILD, "tmp"), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="profile.", dir=os.path.join(BUILD, "tmp")) as directory:
        machines = [Machine(slots, k, i, scenarios[name], plugin, qemu, directory) for k, i in (("base", base), ("series", series))]
        machine.run_all(machines, lambda: f"profile: {time.monotonic() - start:.0f} s", lambda: f"interrupted after {time.monotonic() - start:.0f} s")
        for m in machines:
            if m.error:
                die(m.error)
    write(out, *(m.costs for m in machines))
    print(f"profile: {os.path.relpath(out, TOP)}")


if __name__ == "__main__":
    main()
