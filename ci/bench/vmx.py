#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""vmx.py BASE-IMAGE SERIES-IMAGE [OPTIONS-OF-vmx_nested_perf_test]...: print what a round trip from L1 to L2 and back costs on the machine
with VMX, per kernel and options.  The images are those of "ci/build/image base rig" and "ci/build/image series rig".

Instructions are those of L0, L1 and L2, the median of all turns of one run; Bochs' TSC counts them.  INVVPIDs, INVEPTs and page walks are exact
counts of the TLB model, which Bochs prints when it ends, so each kernel runs the options twice, with two numbers of turns: the additional turns
alone cause the difference.
"""
import re
import sys

from bochs import BochsGuest
from guest import GuestError

OPTIONS = tuple(f"-b -r -l {n}" for n in (1, 2, 4, 8, 12))
TURNS = (20, 120)
# Disable what the series does after some time: only some of the runs would see it.
MODULES = {"base": ("kvm_intel",), "series": ("kvm_intel nested_tlb_max_age=3600000",)}
COUNTERS = ("invvpid", "invept", "misses")


def run(kernel, image, options, turns):
    """Return the number of turns, the instructions of a turn, and the TLB's counters."""
    guest = BochsGuest(image, command=f"/selftests/x86/vmx_nested_perf_test {options} -t {turns}", modules=MODULES[kernel])
    try:
        out = guest.process.stdout.read().decode(errors="replace")
        guest.process.wait()
        if guest.result():
            raise GuestError(f"vmx_nested_perf_test {options} failed:\n{out}")
        found = re.search(r"^(\d+) turns, (\d+) TSC cycles per turn", out, re.M)
        return int(found[1]), int(found[2]), guest.counters()
    finally:
        guest.close()


def main():
    images = dict(zip(("base", "series"), sys.argv[1:3]))
    if len(images) < 2:
        sys.exit(__doc__)
    print(f"{'vmx_nested_perf_test':24} INVVPIDs INVEPTs page walks instructions")
    for options in sys.argv[3:] or OPTIONS:
        print(options)
        base = None
        for kernel, image in images.items():
            few, many = (run(kernel, image, options, t) for t in TURNS)
            per_turn = [(many[2][c] - few[2][c]) / (many[0] - few[0]) for c in COUNTERS]
            base = base or many[1]
            print(f"  {kernel:22} {per_turn[0]:8.2f} {per_turn[1]:7.2f} {per_turn[2]:10.2f} {many[1]:12} x {many[1] / base:.3f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except GuestError as e:
        sys.exit(str(e))
