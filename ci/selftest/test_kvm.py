# SPDX-License-Identifier: GPL-2.0-only
"""Tests of --machine kvm, with a QEMU that only writes down its arguments."""
import os
import stat
from unittest import mock

import guest
import rows
import tap
from world import VerbTest, read, run, write

# Writes its arguments, and the modules of L0 and L1, to files next to itself.  Passes all tests of a list for run-tests.
QEMU = r"""#!/usr/bin/python3
import os, re, sys
here, args = os.path.dirname(__file__), sys.argv[1:]
def files(start):
    return [a.partition(start)[2] for a in args if a.startswith(start)]
command = "".join(open(f).read() for l in ("", "l1.") for f in files(f"name=opt/rig/{l}cmd,file="))
with open(here + "/arguments", "a") as f:
    f.write(" ".join(args) + "\n")
with open(here + "/modules", "a") as f:
    f.writelines(open(n).read() for l in ("", "l1.") for n in files(f"name=opt/rig/{l}modules,file="))
for n, line in enumerate(re.findall("(?m)^[0-9]+ .*", command)):
    print(f"# start {n}\nok {n + 1} - {n} # time=1.0", flush=True)
with open(files("file,id=status,path=")[0], "w") as f:
    f.write("exit 7\n" if "end with 7" in command else "exit 0\n")
"""
AMD, INTEL = "flags : fpu svm npt\n", "flags : fpu vmx ept\n"


class MachineKvm(VerbTest):
    def setUp(self):
        super().setUp()
        # Everything is built, and the kernels have no parameters to look at.
        write(self.path("fake/qemu-system-x86_64"), QEMU)
        write(self.path("ci/build/qemu"), f"#!/bin/sh\necho '{self.path('fake')}'\n")
        write(self.path("ci/build/image"), "#!/bin/sh\necho /nowhere/image\n")
        write(self.path("scripts/build"), "#!/bin/sh\n")
        os.chmod(self.path("fake/qemu-system-x86_64"), 0o755)

    def host(self, cpuinfo=AMD, **nested):
        """Pretend that this machine has /dev/kvm, these flags, and these modules with their values of nested."""
        host = os.path.join(self.dir, "host")
        self.env["KVM_TLB_HOST"] = host
        write(host + "/dev/kvm", "")
        write(host + "/proc/cpuinfo", cpuinfo)
        for module, value in nested.items():
            write(f"{host}/sys/module/{module}/parameters/nested", value + "\n")
        return host

    def refuses(self, *fragments):
        for verb, args in (("run", ()), ("boot", ("--", "true"))):
            with self.subTest(verb), self.unchanged():
                done = self.verb(verb, "--machine", "kvm", *args)
                self.assert_refuses(done, verb, *fragments)
                self.assertEqual(done.out, "")
                self.assertFalse(os.path.exists(self.path("build")), "it began to build")

    def test_no_kvm(self):
        device = self.host(kvm_amd="1") + "/dev/kvm"
        os.remove(device)
        self.refuses("no /dev/kvm", "load kvm_amd", "leave out --machine kvm")
        # A device that no module has registered cannot be opened, and neither can a socket, for the same reason.
        os.mknod(device, stat.S_IFSOCK | 0o600)
        self.refuses("no /dev/kvm", "load kvm_amd")

    def test_no_permission(self):
        # Root may open every file, so pretend.
        with mock.patch.dict(os.environ, KVM_TLB_HOST=self.host(kvm_amd="1")), mock.patch("os.open", side_effect=PermissionError), \
                self.assertRaises(SystemExit) as refused:
            guest.host_kvm()
        self.assertRegex(str(refused.exception), r": this user may not open /dev/kvm: join its group \(\w+\) and log in again, run as root, or leave out --machine kvm$")

    def test_not_a_device(self):
        device = self.host(kvm_amd="1") + "/dev/kvm"
        os.remove(device)
        os.mkdir(device)
        self.refuses("cannot open /dev/kvm (Is a directory)", "leave out --machine kvm")

    def test_no_nested_guests(self):
        for cpuinfo, module, value in ((AMD, "kvm_amd", "0"), (AMD, "kvm_amd", "N"), (INTEL, "kvm_intel", "N")):
            self.host(cpuinfo, kvm_amd="1", kvm_intel="Y")
            self.host(cpuinfo, **{module: value})
            self.refuses(f"{module} has nested={value}", f"modprobe {module} nested=1", "leave out --machine kvm")

    def test_no_virtualization(self):
        self.host("flags : fpu\n", kvm_amd="1")
        self.refuses("neither SVM nor VMX", "firmware")

    def test_both_modules(self):
        # A module that is built in has parameters on any processor.
        for cpuinfo, module, nested in ((AMD, "kvm_amd", {"kvm_amd": "1", "kvm_intel": "N"}), (INTEL, "kvm_intel", {"kvm_amd": "0", "kvm_intel": "Y"})):
            with mock.patch.dict(os.environ, KVM_TLB_HOST=self.host(cpuinfo, **nested)):
                self.assertEqual(guest.host_kvm(), module)

    def test_the_model_was_asked_for(self):
        self.host(kvm_amd="1")
        for verb, model in (("run", "on"), ("boot", "on"), ("boot", "strict")):
            self.assert_refuses(self.verb(verb, "--machine", "kvm", "--model", model), verb, f"leave out --model {model}")

    def test_boot(self):
        for cpuinfo, module in ((AMD, "kvm_amd"), (INTEL, "kvm_intel")):
            self.host(cpuinfo, **{module: "Y"})
            for level in "01":
                done = self.verb("boot", "--machine", "kvm", "--model", "off", "--level", level, "--", "sh", "-c", "end with 7")
                self.assertEqual((done.status, done.err), (7, ""))
                args = read(self.path("fake/arguments")).splitlines()[-1]
                self.assertIn(" -accel kvm -cpu host -machine ", args)
                self.assertNotRegex(args, "x-svm|tcg")
                self.assertEqual(read(self.path("fake/modules")).splitlines(), [module] * (1 + int(level)))
                os.remove(self.path("fake/modules"))

    def test_emulated_machine_by_default(self):
        self.host(kvm_amd="1")
        for args in ((), ("--machine", "tcg")):
            self.assert_ok(self.verb("boot", *args, "--", "true"))
            self.assertIn(f" -accel tcg,thread=multi -cpu {guest.MODELS['on']},", read(self.path("fake/arguments")).splitlines()[-1])

    def test_table(self):
        self.host(kvm_amd="1")
        write(self.path("ci/tests/selftests.list"), "x86/a 01 12/1 60\nx86/b 0 2 60 npt=0\nx86/smm_test 0 2 60 avic=1 npt=0\nx86/c 0 12 60 only:series cpu:x-svm-asids=4\n"
              "../bin/svm-tlb 0 2 60 -- asids 1 ./x86/a\n")
        done = self.verb("run", "--machine", "kvm")
        self.assert_ok(done)
        lines = done.out.splitlines()
        self.assertEqual(lines[0], "L0 is a guest of this machine's KVM (kvm_amd)")
        self.assertEqual([l.split()[-4:] for l in lines[2:7]], [["pass"] * 4, ["pass", "pass", "-", "-"], ["skip", "skip", "-", "-"], ["-", "skip", "-", "-"], ["skip", "skip", "-", "-"]])
        self.assertIn("  c cpu:x-svm-asids=4 (L0): needs the TLB model, to set the number of ASIDs: run it with --machine tcg\n", done.out)
        self.assertIn("  svm-tlb asids 1 ./x86/a (L0): needs the counters of the TLB model: run it with --machine tcg\n", done.out)
        self.assertIn("  smm_test avic=1 npt=0 (L0): with npt=0, a guest of KVM cannot enter SMM: run it with --machine tcg\n", done.out)
        self.assertIn("\nbase: 4 pass, 0 fail, 2 skip\nseries: 4 pass, 0 fail, 4 skip\n", done.out)
        self.assertEqual(tap.count(read(self.path("build/results/run.ktap")).splitlines()), [8, 0, 6])
        self.assertNotRegex(read(self.path("fake/arguments")), "x-svm|tcg")
        # A table that has only skipped tests boots nothing.
        os.remove(self.path("fake/arguments"))
        self.assert_ok(self.verb("run", "--machine", "kvm", "svm-tlb"), "series: 0 pass, 0 fail, 1 skip")
        self.assertFalse(os.path.exists(self.path("fake/arguments")))

    def test_rows_on_intel(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60\nx86/a 0 2 60 npt=0\nx86/a 0 2 60 kvm.b=1\n")
        self.assertEqual(rows.of_kvm(rows.read_list(self.path("ci/tests/selftests.list")), "kvm_intel"),
                         {"a npt=0": "sets parameters of kvm_amd, and this machine has kvm_intel"})

    def test_a_tree_that_lacks_the_selftest(self):
        write(self.path("kernel/selftests/x86/a"), "")
        write(self.path("bin/modinfo"), "#!/bin/sh\n")
        os.chmod(self.path("bin/modinfo"), 0o755)
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60\nx86/b 0 2 60 cpu:x-svm-asids=4\n")
        self.host(kvm_amd="1")
        done = run([self.path("ci/tests/matrix.py"), "--model", "kvm", "--tree", self.path("kernel"), "-", "image", self.path("build/results/tree")],
                   {**self.env, "PATH": self.path("bin") + ":" + os.environ["PATH"]})
        self.assert_ok(done, "b cpu:x-svm-asids=4 (L0): this tree has no such selftest", "tree: 1 pass, 0 fail, 1 skip")
