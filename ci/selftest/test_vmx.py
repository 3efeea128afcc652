# SPDX-License-Identifier: GPL-2.0-only
"""Tests that boot the machine with VMX; they need products of scripts/build."""
import csv
import os
import re
import signal
import subprocess

from test_boot import WithImage
from world import finish, ours, read, run, started, wait_until, write


class Vmx(WithImage):
    """scripts/boot --machine vmx, and rows of scripts/run on that machine."""
    BUSY = "while :; do :; done"

    def boot(self, *args, **more):
        return self.verb("boot", "--machine", "vmx", *args, timeout=180, **more)

    def broken(self, **files):
        """Use an image with these files in place of its own; None stands for a file that is missing."""
        image = os.path.join(self.dir, "image")
        os.mkdir(image)
        for name in os.listdir(self.image):
            if name not in files:
                os.symlink(os.path.join(self.image, name), os.path.join(image, name))
        for name, data in files.items():
            if data is not None:
                with open(os.path.join(image, name), "wb") as f:
                    f.write(data)
        self.use_image(image)

    def test_status_output_and_module(self):
        # There is no window, so neither a display nor a terminal is needed, and one that does not exist is no problem.
        done = self.boot("--", "sh", "-c", "echo 'out  put'; echo err >&2; cat /sys/module/kvm_intel/parameters/vpid; exit 7", DISPLAY=":99", TERM="none")
        self.assertEqual((done.status, done.out), (7, "out  put\nerr\nY\n"), done.err)
        self.assertEqual(ours(), {})

    def test_two_processors(self):
        done = self.boot("--cpus", "2", "--", "taskset", "2", "nproc", "--all")
        self.assertEqual((done.status, done.out), (0, "2\n"), done.err)

    def test_long_output_and_share(self):
        share = os.path.join(self.dir, "share")
        text = "".join(f"line {i}\n" for i in range(2000))
        write(os.path.join(share, "sub/text"), text)
        done = self.boot("--share", share, "--", "cat", "/share/sub/text")
        self.assertEqual((done.status, done.out), (0, text), done.err)

    def test_shell(self):
        # The shell reads what follows its prompt, and ends with its input.
        for last, status in (("exit 5", 5), ("true", 0)):
            with started(["sh", "-c", f"""printf '%s\\n' 'echo a$((40 + 2))b' '{last}' | "$0" --machine vmx --timeout 120""", self.path("scripts/boot")], self.env) as p:
                done = finish(p, 180)
            self.assertEqual(done.status, status, done)
            self.assertIn("a42b", done.out)

    def test_no_init(self):
        # An archive without files.
        empty = subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], input=b"", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        self.broken(initrd=empty)
        done = self.boot("--timeout", "120", "--", "true")
        self.assert_died(done, "VMX: it ended without an exit status")
        self.assertRegex(done.err, r"(?m)^VMX: it ended .*; VMX: .*Kernel panic")

    def test_truncated_initrd(self):
        with open(os.path.join(self.image, "initrd"), "rb") as whole:
            self.broken(initrd=whole.read(1 << 20))
        self.assert_died(self.boot("--timeout", "120", "--", "true"), "Kernel panic")

    def test_truncated_kernel(self):
        with open(os.path.join(self.image, "bzImage"), "rb") as whole:
            self.broken(bzImage=whole.read(1 << 20))
        self.assert_died(self.boot("--timeout", "20", "--", "true"))

    def test_files_that_are_missing_or_wrong(self):
        for files, word in (({"bzImage": None}, "bzImage is missing"), ({"initrd": None}, "initrd is missing"), ({"bzImage": b"text"}, "is not a kernel")):
            with self.subTest(word):
                self.broken(**files)
                done = self.boot("--", "true")
                self.assertEqual((done.status, done.out, len(done.err.splitlines())), (125, "", 1), done)
                self.assertRegex(done.err, f"^VMX: .*{word}: remove .*, and rerun$")
                os.rename(os.path.join(self.dir, "image"), os.path.join(self.dir, word.replace(" ", "-")))

    def bochs(self):
        """Return a copy of Bochs' directory, which the project then uses."""
        where = run([self.path("ci/build/bochs")], self.env).out.strip()
        self.assertTrue(where)
        copy = os.path.join(self.dir, "bochs")
        subprocess.run(["cp", "-r", where, copy], check=True)
        write(self.path("ci/build/bochs"), f"#!/bin/sh\necho '{copy}'\n")
        return copy

    def test_no_bochs(self):
        self.env["KVM_TLB_CACHE"] = os.path.join(self.dir, "empty")
        self.assert_refuses(self.boot("--", "true"), "boot", "Bochs source", "scripts/setup")

    def test_roms_that_are_missing_or_wrong(self):
        bochs = self.bochs()
        for name in ("BIOS-bochs-latest", "boot.rom", "bochs"):
            path = os.path.join(bochs, name)
            with self.subTest(name):
                os.rename(path, path + ".old")
                done = self.boot("--", "true")
                self.assertEqual((done.status, len(done.err.splitlines())), (125, 1), done)
                self.assertIn(f"{name} is missing", done.err)
                os.rename(path + ".old", path)
        with open(os.path.join(bochs, "boot.rom"), "r+b") as f:
            f.seek(100)
            f.write(b"x")
        self.assert_died(self.boot("--", "true"), "Bochs: ", "ROM: checksum error")

    def ignoring(self, *masks):
        """For each mask, let Bochs ignore these operations, as if KVM had forgotten them; see cpu/vmx_tlb.h in ci/bochs/model."""
        bochs = self.bochs()
        os.rename(os.path.join(bochs, "bochs"), os.path.join(bochs, "real"))
        for mask in masks:
            write(os.path.join(bochs, "bochs"), "#!/bin/sh\n"
                  f"""sed -i 's/vmx_tlb=1/&, vmx_tlb_ignore={mask:#x}/' "$3" && grep -q vmx_tlb_ignore "$3" && exec {bochs}/real "$@"\n""")
            os.chmod(os.path.join(bochs, "bochs"), 0o755)
            yield mask

    def test_flushes_that_do_nothing(self):
        of_vpid, of_ept = {"no_vpid", "new_vpid", "failed_entry", "invvpid", "pv_tlb_flush"}, {"invept", "mmu_notifier"}
        # INVVPID of all types, then INVEPT of all types.
        wanted = {0: (of_vpid | of_ept, set()), 0x00f: (of_vpid, of_vpid), 0x030: (of_ept, of_ept)}
        for mask in self.ignoring(*wanted):
            cases, expected = wanted[mask]
            with self.subTest(f"{mask:#x}"):
                done = self.boot("--", "/selftests/x86/vmx_tlb_flush_test", *[w for c in sorted(cases) for w in ("-t", c)])
                failed = set(re.findall(r"(?m)^not ok \d+ \w+\.\w+\.(\w+)", done.out))
                self.assertEqual((failed, done.status), (expected, int(bool(expected))), done)

    def test_vmclear_that_does_nothing(self):
        for mask in self.ignoring(0, 0x1000):
            with self.subTest(f"{mask:#x}"):
                done = self.boot("--cpus", "2", "--", "sh", "-c", "/selftests/x86/vmx_nested_contexts_test -t moves_to_pcpu && svm-tlb")
                # The counter of VMCSs that two processors have, see ci/guest/svm-tlb.h.
                found = re.search(r"stale_rights=(\d+)", done.out)
                self.assertTrue(found and done.status == 0, done)
                self.assertEqual(found[1] != "0", mask != 0, done.out)

    def test_command_that_never_returns(self):
        done = self.boot("--timeout", "12", "--", "sh", "-c", "echo begun; " + self.BUSY)
        self.assert_died(done, "VMX: no end within 12 s")

    def test_power_off(self):
        self.assert_died(self.boot("--", "poweroff", "-f"), "VMX: it ended without an exit status")

    def test_terminated_and_killed(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(number), started(self.command("boot", "--machine", "vmx", "--", "sleep", "1000"), self.env) as p:
                self.assertTrue(wait_until(lambda: any("/bochs -q" in l for l in ours().values()), 20))
                os.kill(p.pid, number)
                self.assertTrue(wait_until(lambda: not ours(), 5), ours())
                finish(p, 10)

    def test_a_selftest_that_hangs(self):
        # The machine cannot be told to end one test, so it ends, and the rest runs on another one.
        write(self.path("ci/list"), "../bin/true 0 1 20\n../bin/sh 0 1 2 -- -c yes>/dev/null\n../bin/nowhere 0 1 20\n../bin/true 0 1 20 ept=0\n")
        done = run([self.path("ci/tests/matrix.py"), "--levels", "", "--vmx", self.path("ci/list"), "-", self.image, self.path("build/results/run")],
                   {**self.env, "KVM_TLB_VERB": "run"}, timeout=300)
        with open(self.path("build/results/run/selftests.tsv"), encoding="utf-8") as f:
            got = {r["test"].split()[0] + r["test"].partition("ept")[2]: r for r in csv.DictReader(f, delimiter="\t")}
        self.assertEqual({k: r["outcome"] for k, r in got.items()}, {"true": "pass", "sh": "fail", "nowhere": "fail", "true=0": "pass"}, done)
        self.assertEqual({r["level"] for r in got.values()}, {"VMX"})
        self.assertRegex(got["sh"]["note"], r"the guest died: VMX: no end within \d+ s")
        self.assertIn("status 127", got["nowhere"]["note"])
        self.assertRegex(done.out, r"(?m)^true ept=0 +1 +pass$")
        self.assertIn("series VMX 1 pCPU true", read(self.path("build/results/run.ktap")))
        self.assertTrue(re.search(r"(?m)^FAIL: series VMX 1 pCPU sh ", done.out), done.out)
