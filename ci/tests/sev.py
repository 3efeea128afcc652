#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""sev.py BASE-IMAGE SERIES-IMAGE OUTDIR [CASE...]: what base and series do with L0's security processor.

Each case boots both kernels, runs some selftests, unloads kvm_amd, and reads the security processor's log.  The commands in it, and their
answers, must be the same on both kernels and in the same order, except for DF_FLUSH, whose number is printed, and for the numbers of ASIDs.
In some cases, the security processor answers with an error, or not at all; then each test must end as listed, on both kernels, the kernel must
not log a warning, and kvm_amd must unload.  Writes OUTDIR.ktap and OUTDIR/CASE.KERNEL.txt.  Exit status 0: nothing failed.
"""
import collections
import os
import re
import sys
import threading

import machine
import tap
from guest import Guest, GuestError, die, say_where

# Seconds of ci/lib/clock.py for one boot with all its tests.
TIMEOUT = 400
# How many commands of the security processor are kept in OUTDIR.
LOGGED = 20000
KERNELS = ("base", "series")

# tests: commands with the exit status that each must have, or a pair of these for base and series; a status of None stands for any but 0.
# asids: the number of ASIDs for SEV, with more properties of the processor.  fail: what the security processor does on purpose, see ci/qemu/sev.  timeout: of the driver, in seconds.  module: what L0 loads.  pcpus: of L0.
Case = collections.namedtuple("Case", "tests asids fail timeout module pcpus", defaults=(15, "", 0, "kvm_amd", 2))
SMOKE = "sev_smoke_test"
ONE = "svm_tlb_perf_test -S -w 0 -t 1"
# Compares the memory that is there after 500 SEV VMs with that after 1000 more, or 1500 if more is free then.  On one pCPU, since free pages in
# the lists of each pCPU do not count as free.  Up to 300 KB of free memory come and go; a page for each VM would be 4000 KB, a word of per-CPU
# memory 8 KB.
LEAKS = """for i in 1 2 3 4; do svm_tlb_perf_test -S -n -w 0 -t 500 >/dev/null || echo failed; sleep 3; echo 3 >/proc/sys/vm/drop_caches
awk '/^(MemFree|Percpu):/ { print $2 }' /proc/meminfo | xargs; done |
awk '/failed/ { failed = 1 } NR == 1 { free = $1; percpu = $2 } NR > 2 && $1 > now { now = $1 } { more = $2 - percpu }
	END { if (failed || NR != 4) print "rig: svm_tlb_perf_test failed"
		else if (free - now >= 1024 || more >= 8) print "rig: " free - now " KB of free memory are gone, " more " KB are per-CPU memory"
		else print "leaks:", free - now, more }'"""
# A smoke test has two guests at a time.  There are two ASIDs, so the next smoke test fails if an ASID was lost.
CASES = {
    "init2": Case([("sev_init2_tests", 0)]),
    "smoke": Case([(SMOKE, 0)] * 3, 3),
    # The base cannot run a guest that was migrated, which comes last.
    "migrate": Case([("sev_migrate_tests", (None, 0))], 3),
    "dbg": Case([("sev_dbg_test", 0)]),
    # Three ASIDs: DF_FLUSH whenever they have been used up
    "asids": Case([("sev_asid_test -T migrate -T migrate_beside_normal", 0)], "5,x-sev-min-asid=3"),
    "leaks": Case([(LEAKS, 0)], pcpus=1),
    # KVM cannot be unloaded while a guest is there.  It has been launched if it exits.
    "unload": Case([("svm_tlb_perf_test -S -w 0 -t 1000000 & until grep -q '[1-9]' /sys/kernel/debug/kvm/$!-*/exits 2>/dev/null; do sleep 0.1; done; "
                     "rmmod kvm_amd 2>/dev/null; busy=$?; kill -9 $!; wait $! 2>/dev/null; [ $busy != 0 ]", 0)]),
    # No ASID at all, or none without SEV-ES, which the processor lacks
    "no-asids": Case([("sev_init2_tests", None), ("svm_vmcall_test", 0)], 0),
    "no-asids-without-es": Case([("sev_init2_tests", None), ("svm_vmcall_test", 0)], "5,x-sev-min-asid=6"),
    # No ASID for guests without SEV.  The base loads all the same, and no guest can run, as it gets an ASID that the processor does not have.
    "all-asids": Case([("insmod /lib/modules/*/kvm-amd.ko", (0, None)), ("svm_vmcall_test", None), ("! dmesg | grep 'All ASIDs (1 - 15) are reserved for SEV (1 - 15)'", (0, None)),
                       ("rmmod kvm_amd", (0, None)), ("modprobe kvm_amd sev=0", 0), ("svm_vmcall_test", 0)], "15,x-svm-asids=16", module="kvm"),
    # Without INIT or its DF_FLUSH, kvm_amd has no SEV, and the tests skip.
    "init-fails": Case([(SMOKE, None), (SMOKE, None)], 2, "INIT:1:RESOURCE_LIMIT"),
    "first-df-flush-fails": Case([(SMOKE, None), (SMOKE, None)], 2, "DF_FLUSH:1:RESOURCE_LIMIT"),
    "launch-start-fails": Case([(SMOKE, None), (SMOKE, 0)], 2, "LAUNCH_START:1:RESOURCE_LIMIT"),
    "activate-fails": Case([(SMOKE, None), (SMOKE, 0)], 2, "ACTIVATE:1:INVALID_ASID"),
    "update-fails": Case([(SMOKE, None), (SMOKE, 0)], 2, "LAUNCH_UPDATE_DATA:1:INVALID_ADDRESS"),
    "df-flush-fails": Case([(SMOKE, 0), (SMOKE, None), (SMOKE, 0)], 2, "DF_FLUSH:2:WBINVD_REQUIRED"),
    # KVM cannot know that the security processor keeps the guest, and its ASID in use.  One guest at a time: two end in any order.
    "deactivate-fails": Case([(ONE, 0), (ONE, None)], 1, "DEACTIVATE:1:INVALID_PLATFORM_STATE"),
    "decommission-fails": Case([(SMOKE, 0), (SMOKE, 0)], 2, "DECOMMISSION:1:INVALID_PLATFORM_STATE"),
    # The driver no longer uses a security processor that did not answer once.
    "no-answer": Case([(SMOKE, None), (SMOKE, None)], 2, "ACTIVATE:1:NONE", 2),
}

COMMAND = """
[ {timeout} = 0 ] || echo {timeout} >/sys/module/ccp/parameters/psp_cmd_timeout
dmesg -c >/dev/null
cd /selftests/x86
PATH=$PATH:.
{tests}
for _ in 1 2 3 4 5 6 7 8 9 10; do
	! rmmod kvm_amd 2>/dev/null || break
	sleep 1
done
[ ! -d /sys/module/kvm_amd ] || echo "rig: kvm_amd cannot be unloaded"
splat >/tmp/splat || {{ echo "rig: $(head -n 1 /tmp/splat)"; dmesg | tail -n 40; }}
"""


def normalized(log):
    """Return the log's commands, without DF_FLUSHes and the numbers of ASIDs.

    How many LAUNCH_UPDATE_DATAs there are depends on which pages are contiguous, so those of a guest are one.  A process that ends destroys its
    VMs in any order, so the guests of DEACTIVATE and DECOMMISSION are left out.  If kvm_amd refuses to load, busybox tries once more, so INIT
    and SHUTDOWN without a guest in between count once.
    """
    lines = []
    for l in log:
        if l.startswith("DF_FLUSH"):
            continue
        l = re.sub(r" asid=\d+", " asid=N", l)
        l = re.sub(r"^(LAUNCH_UPDATE_DATA handle=\d+) len=\d+", r"\1", l)
        l = re.sub(r"^(DEACTIVATE|DECOMMISSION) handle=\d+", r"\1", l)
        if not (lines and lines[-1] == l and l.startswith("LAUNCH_UPDATE_DATA")):
            lines.append(l)
        if l.startswith("SHUTDOWN") and lines[-2:] == lines[-4:-2]:
            del lines[-2:]
    return lines


class Run(machine.Machine):
    """One boot: a case on a kernel."""

    def __init__(self, slots, name, kernel, image, qemu):
        super().__init__(f"{name} {kernel}", slots)
        self.name_of_case, self.case, self.kernel, self.image, self.qemu = name, CASES[name], kernel, image, qemu
        self.log, self.problems = [], []

    def work(self):
        tests = "".join(f"{t}; echo rig: {i} $?\n" for i, (t, _) in enumerate(self.case.tests))
        self.guest = guest = Guest(self.image, 0, self.case.pcpus, COMMAND.format(tests=tests, timeout=self.case.timeout), [self.case.module], qemu=self.qemu,
                                   cpu=f",x-sev=on,x-sev-asids={self.case.asids}", psp=",fail=" + self.case.fail if self.case.fail else "")
        over, late = threading.Event(), []

        def watch():
            while not over.wait(1):
                if guest.clock.now() > TIMEOUT:
                    late.append(TIMEOUT)
                    guest.end()
                    return

        threading.Thread(target=watch, daemon=True).start()
        text = []
        try:
            text = [raw.decode(errors="replace").rstrip("\r\n") for raw in guest.process.stdout]
            guest.process.wait()
            guest.result(late[0] if late else None)
        except GuestError as e:
            self.problems.append(str(e).split("\n", maxsplit=1)[0])
        finally:
            over.set()
            self.log = guest.psp_log()
            stale = guest.counters().get("audit", 0)
            guest.close()
        said = [l[5:] for l in text if l.startswith("rig: ")]
        status = dict(l.split() for l in said if re.fullmatch(r"\d+ \d+", l))
        self.problems += [l for l in said if not re.fullmatch(r"\d+ \d+", l)]
        for i, (test, want) in enumerate(self.case.tests):
            got = status.get(str(i), "nothing")
            if isinstance(want, tuple):
                want = want[KERNELS.index(self.kernel)]
            if got == "nothing" or (got == "0") != (want == 0):
                self.problems.append(f"test {i + 1}, {test.splitlines()[0]}: exit status {got}, not {'an error' if want is None else want}")
        if stale:
            self.problems.append(f"QEMU reported {stale} pages or translations of other guests")
        with open(os.path.join(OUT, f"{self.name_of_case}.{self.kernel}.txt"), "w", encoding="utf-8") as f:
            f.writelines(l + "\n" for l in text + ["", f"The security processor's last commands, of {len(self.log)}:"] + self.log[-LOGGED:])


def main():
    global OUT
    base, series, OUT = sys.argv[1:4]
    os.makedirs(OUT, exist_ok=True)
    names = sys.argv[4:] or list(CASES)
    for n in names:
        if n not in CASES:
            die(f"there is no case {n}: choose from {' '.join(CASES)}")
    qemu, slots = say_where("qemu"), threading.Semaphore(machine.at_once())
    runs = {(n, k): Run(slots, n, k, image, qemu) for n in names for k, image in zip(KERNELS, (base, series))}
    ended = lambda: sum(not r.is_alive() for r in runs.values())
    machine.run_all(runs.values(), lambda: f"sev: {ended()} of {len(runs)} boots have ended", lambda: "sev: interrupted")
    results = []
    for n in names:
        mine = [runs[n, k] for k in KERNELS]
        problems = [f"{r.kernel}: {p}" for r in mine for p in r.problems + ([r.error] if r.error else [])]
        logs = [normalized(r.log) for r in mine]
        if not all(logs):
            problems.append("the security processor has no log")
        elif logs[0] != logs[1]:
            i = next((i for i, (a, b) in enumerate(zip(*logs)) if a != b), min(map(len, logs)))
            ends = [l[i] if i < len(l) else "no more commands" for l in logs]
            problems.append(f"command {i + 1} differs: base: {ends[0]}, series: {ends[1]}")
        flushes = [sum(l.startswith("DF_FLUSH") for l in r.log) for r in mine]
        print(f"{'not ok' if problems else 'ok'}  {n}: {len(logs[1])} commands, and DF_FLUSH: base {flushes[0]}, series {flushes[1]}", flush=True)
        for p in problems:
            print(f"    {p}")
        results.append((n, "fail" if problems else "pass", problems))
    tap.write(OUT.rstrip("/") + ".ktap", results)
    return 1 if any(outcome == "fail" for _, outcome, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
