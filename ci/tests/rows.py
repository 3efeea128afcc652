# SPDX-License-Identifier: GPL-2.0-only
"""The rows of ci/tests/selftests*.list and of ci/tests/known-failures: what a line says, and which rows a kernel and a machine can run."""
import collections
import fnmatch
import os
import re
import subprocess

from guest import die

# Stands for the level of tests that run on the machine with VMX, which runs no L1.
VMX = 2
LEVELS = {0: "L0", 1: "L1", VMX: "VMX"}
# The limit of a test that is not in the list (--tree only).
UNLISTED = 60

KERNELS = ("base", "series")
# A row with only:mutants is for scripts/mutants: it sets parameters that only that kernel has (ci/alternatives).
MUTANTS = "mutants"
# What a test needs of L0's machine: arguments of Guest (ci/lib/guest.py); and the number of L1's CPUs.
Hardware = collections.namedtuple("Hardware", "cpu psp icount vcpus append", defaults=("", "", False, 1, ""))
Test = collections.namedtuple("Test", "name levels pcpus limit params command kernels hardware", defaults=("-", "", KERNELS, Hardware()))
# Tests that enter SMM.  With npt=0, a guest of KVM cannot do that: KVM_RUN returns KVM_EXIT_FAIL_ENTRY, on the base as well.
SMM = ("smm_test", "svm_nested_context_test", "svm_nested_tlb_test", "svm_rsm_shutdown_test")


def read_list(path):
    """Parse lines "command levels pCPUs seconds [only:series] [seed:N] [parameter=value ...] [cpu:property=value ...] [psp:property=value ...]
    [icount] [vcpus:2] [-- arguments]".

    levels: "01" means 0 and 1.  pCPUs: "12/2" means one and two in L0, and two under L1.  only:series: do not run on the base; this is not a
    part of the test's name.  only:mutants: see MUTANTS.  seed:N: use the same random numbers in each run.  Parameters are those of kvm_amd, or, with the prefix "kvm.",
    those of kvm.  cpu: a property of L0's processor.  psp: a property of L0's security processor, which it has with cpu:x-sev=on.
    icount: the machine's time is the number of executed instructions, for tests that compare clocks; with one pCPU only, since QEMU runs only one
    pCPU at a time then.  vcpus:2: L1 has two CPUs; without it, L1 has one.
    """
    tests = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.split("#")[0].strip()
            if not line:
                continue
            head, _, arguments = line.partition(" -- ")
            fields = head.split()
            if len(fields) < 4 or not re.fullmatch("[01]+ [123]+(/[12]+)? [0-9]+", " ".join(fields[1:4])):
                die(f"{path}:{number}: not a test, which is PROGRAM LEVELS PCPUS SECONDS ...: {line}")
            kernels = tuple(k for k in (*KERNELS, MUTANTS) if f"only:{k}" in fields[4:]) or KERNELS
            fields = [f for f in fields if f not in [f"only:{k}" for k in (*KERNELS, MUTANTS)]]
            params = [f for f in fields[4:] if f != "icount" and not f.startswith(("cpu:", "psp:", "seed:", "vcpus:"))]
            seed = "".join(f"env RIG_SEED={f[5:]} " for f in fields[4:] if f.startswith("seed:"))
            if not re.fullmatch("(env RIG_SEED=[0-9]+ )?", seed):
                die(f"{path}:{number}: a seed is a number, and a test has at most one: {line}")
            cpu, psp = ("".join("," + f[4:] for f in fields[4:] if f.startswith(p)) for p in ("cpu:", "psp:"))
            if psp and "cpu:x-sev=on" not in fields:
                die(f"{path}:{number}: psp: needs cpu:x-sev=on: {line}")
            if "cpu:x-sev=on" in fields and "1" in fields[1]:
                die(f"{path}:{number}: L1 has no SEV: write level 0: {line}")
            name = " ".join([os.path.basename(fields[0])] + fields[4:] + ([arguments] if arguments else []))
            if "icount" in fields and set("23") & set(fields[2]):
                die(f"{path}:{number}: icount is for one pCPU: {line}")
            vcpus = [f[6:] for f in fields[4:] if f.startswith("vcpus:")]
            if vcpus and (vcpus != ["2"] or fields[1] != "1"):
                die(f"{path}:{number}: vcpus:2 is for level 1, and there is no other number: {line}")
            pcpus = fields[2].split("/")
            pcpus = {int(c): [int(p) for p in pcpus[0 if c == "0" else -1]] for c in fields[1]}
            tests.append(Test(name, [int(c) for c in fields[1]], pcpus, int(fields[3]),
                              ",".join(params) or "-", " ".join([seed + "./" + fields[0], arguments]).strip(), kernels,
                              Hardware(cpu, psp, "icount" in fields, int(*vcpus or [1]))))
    names = [t.name for t in tests]
    for n in names:
        if names.count(n) > 1:
            die(f"{path}: {n} is listed twice: remove one")
    return tests


def called(test, pattern):
    return fnmatch.fnmatch(test.name, pattern) or test.name.split()[0] == pattern


def programs(test):
    """Return the programs that a test runs, as their Makefile names them: the program of the row, and one that this program starts."""
    return {w[2:] for w in test.command.split() if w.startswith("./")}


def one_of_each(tests, own, other, parameters):
    """Return a short list of tests for L0, and for the machine with VMX, of a kernel whose kvm_amd and kvm_intel have these parameters.

    For each program in own, the list has all rows that the base runs as well, or else the first row; for each program in other, it has one
    row.  Rows without cpu: are preferred.
    """
    tests = [t for t in tests if {0, VMX} & set(t.levels) and MUTANTS not in t.kernels and
             all(p.startswith("kvm.") or p.partition("=")[0] in parameters for p in t.params.split(",") if p != "-")]
    chosen = []
    for program in own + other:
        mine = [t for t in tests if program in programs(t)]
        mine = [t for t in mine if t.hardware == Hardware()] or mine[:1]
        mine = [t for t in mine if t.kernels == KERNELS] or mine[:1]
        chosen += [t for t in (mine if program in own else mine[:1]) if t not in chosen]
    return [t for t in tests if t in chosen]


def runs_on(test, kernel):
    """Return whether the test runs on the kernel.  A --tree kernel runs all tests: it may have what a test needs, or the test skips."""
    return kernel in test.kernels or kernel == "tree" and MUTANTS not in test.kernels


def of_vmx(tests):
    """Return the tests of a list for the machine with VMX, with that level."""
    return [t._replace(levels=[VMX], pcpus={VMX: t.pcpus[0]}) for t in tests]


def of_tree(tests, directory, patterns, module="kvm_amd"):
    """Return a map from the names of the tests that this tree cannot run to the reasons.  Adds selftests that are not in the list to tests.

    directory: contains the kernel, selftests and modules of the tree.  A pattern that matches no test may be a selftest that is not in the list.
    module: the one whose parameters the tests have.
    """
    path = os.path.join(directory, module.replace("_", "-") + ".ko")
    out = subprocess.run(["modinfo", "-F", "parm", path], stdout=subprocess.PIPE, check=True).stdout
    parameters = {l.partition(":")[0] for l in out.decode().splitlines()}
    missing = {}
    for t in tests:
        for p in programs(t):
            if not os.path.exists(os.path.join(directory, "selftests", p)):
                missing[t.name] = "this tree has no such selftest"
        for p in t.params.split(","):
            name = p.partition("=")[0]
            if p != "-" and not p.startswith("kvm.") and name not in parameters:
                missing.setdefault(t.name, f"{module} of this tree has no parameter {name}")
    for p in patterns:
        if not any(called(t, p) for t in tests) and os.path.exists(os.path.join(directory, "selftests", p)):
            test = Test(p, [0, 1], {0: [1, 2], 1: [1, 2]}, UNLISTED, command="./" + p)
            tests += [test] if module == "kvm_amd" else of_vmx([test])
    return missing


def of_builtin(test):
    """Return the test for a kernel with KVM built in, which has a machine for each set of parameters, with these on the kernel's command line."""
    module = "kvm_intel." if VMX in test.levels else "kvm_amd."
    append = "".join(" " + (p if p.startswith("kvm.") else module + p) for p in test.params.split(",") if p != "-")
    return test._replace(hardware=test.hardware._replace(append=append))


def needs_model(test):
    """Return why a test needs the TLB model, or None."""
    if "x-sev=" in test.hardware.cpu:
        return "needs the security processor of the TLB model"
    if test.hardware.cpu:
        return "needs the TLB model, to set the number of ASIDs"
    if "svm-tlb" in test.command:
        return "needs the counters of the TLB model"
    return None


def of_kvm(tests, module):
    """Return a map from the names of the tests that cannot run in a guest of this machine's KVM to the reasons.  module: see host_kvm()."""
    missing = {}
    for t in tests:
        if needs_model(t):
            missing[t.name] = needs_model(t) + ": run it with --machine tcg"
        elif module != "kvm_amd" and any(p != "-" and not p.startswith("kvm.") for p in t.params.split(",")):
            missing[t.name] = f"sets parameters of kvm_amd, and this machine has {module}"
        elif "npt=0" in t.params.split(",") and t.name.split()[0] in SMM:
            missing[t.name] = "with npt=0, a guest of KVM cannot enter SMM: run it with --machine tcg"
    return missing


def read_known(path):
    """Parse lines "L<level> test name : reason".  L* stands for L0 and L1; VMX is a level as well.  "fixed:" before a reason means that only the
    base may fail."""
    known = {}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if not line.strip() or line.startswith("#"):
                continue
            m = re.match(r"(L[01*]|VMX) (.+?) : (.+)", line)
            if not m:
                die(f"{path}:{number}: not a known failure: write 'L<level> name : reason', or 'VMX name : reason'")
            for level, name in LEVELS.items():
                if name == m[1] or m[1] == "L*" and name.startswith("L"):
                    known[level, m[2]] = m[3].strip()
    return known
