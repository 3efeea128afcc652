# SPDX-License-Identifier: GPL-2.0-only
"""Tests of scripts/test foreign: its packages, arguments and verdicts.  Those that boot machines are in test_boot.py."""
import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import foreign
import stress
import tap
from world import VerbTest, World, digest, read, run, write


class ForeignPackages(VerbTest):
    """ci/inputs/foreign and what becomes of it."""

    def archive(self, data, pinned=b"a package"):
        """Pin one package, make a mirror that has it with this content, or not if data is None, and return a new cache."""
        for name in os.listdir(self.path("ci/inputs/foreign")):
            os.remove(self.path("ci/inputs/foreign", name))
        write(self.path("ci/inputs/foreign/one"), "package=one\nsuite=bookworm\naccept='1.*'\nversion=1.0\npath=pool/one_1.0.deb\n"
              f"sha256={hashlib.sha256(pinned).hexdigest()}\n")
        mirror, cache = os.path.join(self.dir, "mirror"), os.path.join(self.dir, "new")
        os.makedirs(os.path.join(mirror, "pool"))
        os.makedirs(cache)
        if data is not None:
            with open(os.path.join(mirror, "pool/one_1.0.deb"), "wb") as f:
                f.write(data)
        self.env.update(KVM_TLB_CACHE=cache, KVM_TLB_MIRROR="copy:" + mirror)
        write(self.path("ci/build/image"), "#!/bin/sh\nexit 3\n")
        return cache

    def fetch(self):
        return run([self.path("ci/inputs/fetch"), "--foreign"], self.env)

    def test_fetched_once(self):
        cache = self.archive(b"a package")
        self.assert_ok(self.fetch())
        kept = os.path.join(cache, "foreign", hashlib.sha256(b"a package").hexdigest() + ".deb")
        self.assertEqual(read(kept), "a package")
        os.remove(os.path.join(self.dir, "mirror/pool/one_1.0.deb"))
        self.assert_ok(self.fetch())

    def refused(self, data):
        cache = self.archive(data)
        with self.unchanged():
            done = run([self.path("ci/tests/foreign")], self.env)
        self.assert_refuses(done, "foreign", "pool/one_1.0.deb (ci/inputs/foreign/one)", "scripts/setup --update", "KVM_TLB_MIRROR")
        self.assertEqual([f for f in digest(cache) if "foreign" in f], [])
        self.assertEqual(os.listdir(self.path("build/foreign")) if os.path.exists(self.path("build/foreign")) else [], [])
        self.assertFalse(os.path.exists(self.path("build/results/foreign.ktap")))

    def test_package_is_gone(self):
        self.refused(None)

    def test_another_package_than_is_pinned(self):
        self.refused(b"another")

    def test_not_a_package(self):
        self.archive(b"a package")
        done = run([self.path("ci/tests/foreign")], self.env)
        self.assertEqual(done.status, 1, done)
        self.assertEqual(done.err.splitlines(), [l for l in done.err.splitlines() if l.startswith("foreign: ") and "other-hypervisors.log" in l])
        self.assertEqual(os.listdir(self.path("build/foreign")), [], "half of a directory is left")

    def test_one_of_two_packages_is_gone(self):
        tree = os.path.join(self.dir, "tree")
        write(os.path.join(tree, "boot/vmlinuz-6.1"), "a kernel")
        write(os.path.join(tree, "DEBIAN/control"), "Package: one\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody\nDescription: a kernel\n")
        package = os.path.join(self.dir, "one.deb")
        subprocess.run(["dpkg-deb", "-b", tree, package], check=True, stdout=subprocess.DEVNULL)
        with open(package, "rb") as f:
            data = f.read()
        cache = self.archive(data, data)
        write(os.path.join(cache, "tools/usr/share/qemu/multiboot_dma.bin"), "a ROM")
        pin = read(self.path("ci/inputs/foreign/one"))
        os.rename(self.path("ci/inputs/foreign/one"), self.path("ci/inputs/foreign/linux-6.1"))
        write(self.path("ci/inputs/foreign/linux-6.12"), pin.replace("one_1.0", "two_1.0").replace("sha256=", "sha256=0")[:-2] + "\n")
        write(self.path("ci/inputs/foreign/trixie-libc6"), read(self.path("ci/inputs/foreign/linux-6.12")))
        done = run([self.path("ci/build/foreign"), "--build"], self.env)
        self.assertEqual(done.status, 0, done)
        made = done.out.splitlines()[-1]
        self.assertTrue(made.endswith(".partial"), made)
        self.assertEqual(run([self.path("ci/build/foreign"), "--partial"], self.env).out, made + "\n")
        self.assertEqual(read(os.path.join(made, "kvm-6.1/vmlinuz")), "a kernel")
        self.assertEqual(read(os.path.join(made, "missing")), "xen-4.17: lib* xen-*\nxen-4.20: trixie-libc6\nkvm-6.12: linux-6.12\n")
        # The next run tries again.
        self.assertEqual(run([self.path("ci/build/foreign")], self.env).status, 1)

    def test_pins(self):
        for name in os.listdir(self.path("ci/inputs/foreign")):
            with self.subTest(name):
                text = read(self.path("ci/inputs/foreign", name))
                self.assertEqual(re.findall("(?m)^([a-z0-9]+)=", text), ["package", "suite", "accept", "version", "path", "sha256"])
                # accept is a pattern of the shell, and package is a regular expression of awk.
                check = '. "$0"; [[ $version == $accept ]] && [[ ${path##*/} =~ ^($package)_ ]] && [[ $sha256 =~ ^[0-9a-f]{64}$ ]]'
                self.assertEqual(run(["bash", "-c", check, self.path("ci/inputs/foreign", name)]).status, 0, text)


class ForeignArguments(VerbTest):
    """ci/tests/foreign.py with bad arguments."""

    def setUp(self):
        super().setUp()
        self.env["KVM_TLB_VERB"] = "foreign"
        self.base, self.series, self.made = (os.path.join(self.dir, n) for n in ("base", "series", "made"))
        for d in (self.base, self.series):
            write(os.path.join(d, "root.img"), "")
        for name in foreign.COMMANDS:
            write(os.path.join(self.made, name, "initrd"), "")

    def refused(self, *args):
        done = run([self.path("ci/tests/foreign.py"), *args], self.env)
        self.assertEqual((done.status, len(done.err.splitlines())), (1, 1), done)
        self.assertFalse(os.path.exists(self.path("build")))
        return done.err

    def test_arguments(self):
        images = f"{self.base},{self.series}"
        for args, words in (((), "ci/build/foreign"), ((images,), "ci/build/foreign"), ((self.base, self.made), "is not two images"),
                            ((f"{images},{self.base}", self.made), "is not two images"), ((f"{self.base},{self.made}", self.made), "is not an image"),
                            ((images, self.base), "has no " + list(foreign.COMMANDS)[0]), (("--rounds", "many", images, self.made), "--rounds must be a number"),
                            (("--rounds", "0", images, self.made), "--rounds must be a number"), (("--record", images, self.made), "--record needs --kept"),
                            (("--again", images, self.made), "--again needs --kept"), (("--jobs", "0", images, self.made), "--jobs must be a number"),
                            ((images, self.made, "xen-3*"), "no case matches xen-3*"), ((images, self.made, "xen*", "nosuch"), "no case matches nosuch"),
                            (("--short", images, self.made, "*cpus=2*"), "no case matches *cpus=2*")):
            with self.subTest(args):
                error = self.refused(*args)
                self.assertTrue(error.startswith("foreign: "), error)
                self.assertIn(words, error)

    def test_list(self):
        done = run([self.path("ci/tests/foreign.py"), "--list"], self.env)
        names = done.out.splitlines()
        self.assertEqual(len(set(names)), len(names))
        short = run([self.path("ci/tests/foreign.py"), "--list", "--short"], self.env).out.splitlines()
        self.assertEqual(names[:len(short)], short)
        for l1 in foreign.COMMANDS:
            with self.subTest(l1):
                self.assertTrue(any(n.startswith(l1 + " ") for n in short))
                # Each number of ASIDs occurs with and without FLUSHBYASID, and with and without NPT.
                for asids in (8, 16, 64):
                    for word in ("flushbyasid=off", "npt=0"):
                        for there in (True, False):
                            for kernel in ("base", "series"):
                                self.assertEqual(any(n.startswith(f"{l1} asids={asids} ") and (word in n) == there and n.endswith(" " + kernel) for n in names),
                                                 not (l1 in foreign.HAP and word == "npt=0" and there))
                self.assertTrue(any(n.startswith(l1 + " ") and "cpus=2" in n for n in names))


class FakeGuest:
    """A process that prints lines instead of a machine; the clock goes on by a minute each time that it is read."""
    text, counted, status, endless = "", {}, 0, False

    def __init__(self, *_args, **_more):
        self.process = subprocess.Popen(["sh", "-c", 'printf "%s" "$0"; ' + "exec sleep 1000" * self.endless, self.text], stdout=subprocess.PIPE)
        self.clock, self.time = self, 0

    def now(self):
        self.time += 60
        return self.time

    def result(self, late):
        if late or self.status is None:
            raise foreign.GuestError(f"L0: no end within {late} s; end of the console:\n    L0: last words\n" if late else "L0: it ended\n")
        return self.status

    def last_lines(self):
        return "    L1: Kernel panic\n"

    def counters(self):
        return self.counted

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class ForeignVerdicts(unittest.TestCase):
    """What foreign.py makes of the output of a machine."""
    GOOD = ("(XEN) hello\ng1 begun: seed 1\ng1 at: 0 s, 78 movesg2 begun: seed 2\ng1 at: 1 s\ng2 done: 4.1 s, 30 rounds, 5g1 done: 4 s, 30 rounds\n"
            "L0 counts: exits=9 nested_run=8 ticks=300 vmrun=7 walks=6 flush_all=5 flush_asid=4 flush_local=1 stale=0 stale_rights=2\ndom0 ends\n")

    def setUp(self):
        self.out = tempfile.mkdtemp(dir=World.tmp)

    def cases(self, *fakes):
        """Run one machine for each (text, status, counters, endless); return the outcomes, the printed text and the KTAP file."""
        machines = []
        for i, (text, status, counted, endless) in enumerate(fakes):
            case = foreign.cases()[i]
            m = foreign.Machine(case, {"base": "", "series": ""}, "", 10, "", self.out, threading.Semaphore(1))
            fake = type("Fake", (FakeGuest,), {"text": text, "status": status, "counted": counted, "endless": endless})
            with mock.patch.object(foreign, "Guest", fake):
                m.run()
            machines.append(m)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            failed = foreign.report(machines, os.path.join(self.out, "foreign.ktap"))
        ktap = read(os.path.join(self.out, "foreign.ktap"))
        self.assertEqual(tap.count(ktap.splitlines()), [len(fakes) - failed, failed, 0])
        return failed, printed.getvalue(), ktap

    COUNTED = {"vmrun": 5, "ctl_asid": 2, "fill": 3, "nfill": 4}

    def one(self, text=GOOD, status=0, counted=None, endless=False):
        failed, printed, _ = self.cases((text, status, self.COUNTED if counted is None else counted, endless))
        return failed, printed

    def test_passes(self):
        failed, printed = self.one()
        self.assertEqual(failed, 0, printed)
        self.assertIn(foreign.label(foreign.cases()[0]) + ": passed, ", printed)
        self.assertIn("8 VMRUNs, 7 exits, 5 flushes of an ASID, 5 of all, 6 page walks, 3000 million instructions, 2 stale hits, 0 stale at VMRUN", printed)

    def test_fails(self):
        for words, more in (("status 3; the last lines were:\n    (XEN) hello", {"status": 3}), ("    L1: Kernel panic", {"status": 125}),
                            ("g1 MISMATCH worker 0", {"text": self.GOOD + "g1 MISMATCH worker 0\n"}),
                            ("g2 FAIL: kernel log: BUG", {"text": self.GOOD + "g2 FAIL: kernel log: BUG\n"}),
                            ("FAIL: L1 has no /dev/kvm", {"text": "FAIL: L1 has no /dev/kvm\n", "status": 1}),
                            ("FAIL: no pages of L1 moved", {"text": self.GOOD + "FAIL: no pages of L1 moved\n", "status": 1}),
                            ("L0 printed no counts", {"text": self.GOOD.replace("L0 counts", "L0")}),
                            ("L2 g1 ended after 29 rounds, not 30", {"text": self.GOOD.replace("g1 done: 4 s, 30", "g1 done: 4 s, 29")}),
                            ('L2 g2 never printed "begun"', {"text": self.GOOD.replace("g2 begun", "g2")}),
                            ('L2 g1 and g2 never printed "done"', {"text": self.GOOD.replace("done", "at")}),
                            ("the oracle found 3 stale translations", {"counted": {**self.COUNTED, "audit": 1, "audit_rights": 2}}),
                            ("QEMU wrote no counters", {"counted": {}}), ("L0: it ended", {"status": None})):
            with self.subTest(words):
                failed, printed = self.one(**more)
                self.assertEqual(failed, 1)
                self.assertIn(words, printed)

    def test_panic_and_hang_and_the_rest(self):
        panic = "(XEN) Panic on CPU 0:\n(XEN) FATAL TRAP\n"
        names = [foreign.label(c) for c in foreign.cases()]
        # The fake clock goes on by a minute a second.
        self.enterContext(mock.patch.object(foreign, "BOOT", 120))
        failed, printed, ktap = self.cases((panic, None, self.COUNTED, True), ("g1 begun: 1\n", None, self.COUNTED, True),
                                           ("g1 KVM: entry failed, hardware error 0xffffffff\n", None, self.COUNTED, True), (self.GOOD, 0, self.COUNTED, False))
        self.assertEqual(failed, 3)
        self.assertIn(f"FAIL: {names[0]}: L1 or an L2 died: (XEN) Panic on CPU 0:\n    L1: Kernel panic\n", printed)
        self.assertRegex(printed, rf"FAIL: {names[1]}: L0: no end within \d+ s")
        self.assertIn("last words", printed)
        self.assertIn(f"FAIL: {names[2]}: L1 or an L2 died: g1 KVM: entry failed", printed)
        self.assertEqual(re.findall("(?m)^(?:not )?ok .*", ktap), [f"{word} {i} {name}" for i, (word, name) in
                                                                enumerate(zip(("not ok", "not ok", "not ok", "ok"), names), 1)])

    def test_packages_that_are_gone(self):
        made = os.path.join(self.out, "made")
        case = foreign.cases()[0]
        write(os.path.join(made, "missing"), f"another: one\n{case.l1}: linux-6.0 trixie-zlib1g\n")
        m = foreign.Machine(case, {"base": "", "series": ""}, made, 10, "", self.out, threading.Semaphore(1), kept=self.out)
        with mock.patch.object(foreign, "Guest", mock.Mock(side_effect=AssertionError)), contextlib.redirect_stdout(io.StringIO()) as printed:
            m.run()
            self.assertEqual(foreign.report([m], os.path.join(self.out, "foreign.ktap")), 1)
        self.assertIn(f"FAIL: {m.label}: there is no {case.l1}: no mirror has linux-6.0 trixie-zlib1g (ci/inputs/foreign): see build/log/", printed.getvalue())

    def test_stress_without_the_distribution(self):
        """The L1s with the rig's own kernel run, and what is missing counts as a failure."""
        write(os.path.join(self.out, "missing"), f"{stress.FOREIGN}: linux-6.0\n")
        write(os.path.join(self.out, "root.img"), "")
        made = []
        fake = lambda *args: made.append(args) or mock.Mock(bad=[], error="", label=f"stress, {args[1]}", counters={}, progress=lambda: "done")
        with mock.patch.object(stress, "Machine", fake), mock.patch.object(stress.machine, "run_all"), mock.patch.object(stress, "say_where"), \
                mock.patch.object(sys, "argv", ["stress.py", "--out", self.out, "--foreign", self.out, self.out, "9"]), \
                contextlib.redirect_stdout(io.StringIO()) as printed:
            self.assertEqual(stress.main(), 1)
        self.assertEqual([args[-1] for args in made], [None, None])
        self.assertIn(f"FAIL: stress, {stress.FOREIGN} as L1: there is no {stress.FOREIGN}: no mirror has linux-6.0", printed.getvalue())
        self.assertEqual(tap.count(read(os.path.join(self.out, "stress.ktap")).splitlines()), [2, 1, 0])

    def test_kept(self):
        """A case that passed is not run again, unless the rounds are others; a case that fails is forgotten."""
        def machine(rounds=10, recall=True):
            m = foreign.Machine(foreign.cases()[0], {"base": "", "series": ""}, "", rounds, "", self.out, threading.Semaphore(1), kept=self.out)
            if recall:
                m.recall()
            return m

        def ran(m, text=self.GOOD):
            """Run m, and return whether it started a guest."""
            fake = mock.Mock(side_effect=type("Fake", (FakeGuest,), {"text": text, "counted": self.COUNTED}))
            with mock.patch.object(foreign, "Guest", fake):
                m.run()
            return fake.called

        first, second = machine(), machine()
        self.assertTrue(ran(first))
        self.assertEqual(foreign.failures(first), [])
        self.assertTrue(ran(second), "nothing was kept when it was made")
        third = machine()
        self.assertFalse(ran(third))
        self.assertEqual((foreign.failures(third), foreign.figures(third)), ([], foreign.figures(second)))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            foreign.report([third], os.path.join(self.out, "foreign.ktap"))
        self.assertRegex(printed.getvalue(), r": passed on \d+-\d+-\d+ \d+:\d+, .* 8 VMRUNs, 7 exits")
        self.assertTrue(ran(machine(rounds=11), self.GOOD.replace("30 rounds", "33 rounds")))
        self.assertTrue(ran(machine(rounds=10)))
        self.assertTrue(ran(machine(recall=False), self.GOOD + "g1 MISMATCH worker 0\n"))
        self.assertEqual([f for f in os.listdir(self.out) if ".json" in f], [])
        write(os.path.join(self.out, foreign.label(foreign.cases()[0]).replace(" ", ",") + ".json"), '{"rounds": 10}')
        self.assertTrue(ran(machine()))

    def test_work_that_raises(self):
        m = foreign.Machine(foreign.cases()[0], {"base": "", "series": ""}, "", 10, "", os.path.join(self.out, "nowhere"), threading.Semaphore(1))
        m.run()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.assertEqual(foreign.report([m], os.path.join(self.out, "foreign.ktap")), 1)
        self.assertIn(f"FAIL: {m.label}: FileNotFoundError", printed.getvalue())

    def test_table(self):
        """Only cases that passed on both kernels are in the table, and their counts are those that were measured."""
        ended = []
        for case in foreign.cases()[:3]:
            m = foreign.Machine(case, {"base": "", "series": ""}, "", 10, "", self.out, threading.Semaphore(1), ended.append)
            text = self.GOOD if case.kernel == "base" else self.GOOD.replace("ticks=300", "ticks=150")
            with mock.patch.object(foreign, "Guest", type("Fake", (FakeGuest,), {"text": text, "counted": self.COUNTED})):
                m.run()
        self.assertEqual([m.case for m in ended], foreign.cases()[:3])
        page, tsv = os.path.join(self.out, "page.md"), os.path.join(self.out, "foreign.tsv")
        begin = "text\n<!-- Written by scripts/test foreign, not by hand -->\n```\n"
        write(page, begin + "old\n```\nmore\n")
        foreign.record(ended, page)
        name = foreign.label(ended[0].case).rpartition(" ")[0]
        rows = [r.split() for r in read(page).removeprefix(begin + foreign.HEADER).splitlines()]
        self.assertEqual(rows, [name.split(), ["base", "8", "7", "5", "5", "6", "3000"], ["series", "8", "7", "5", "5", "6", "1500", "x", "0.50"], ["```"], ["more"]])
        foreign.write_tsv(ended, tsv)
        self.assertEqual([l.split("\t")[:6] for l in read(tsv).splitlines()][1:3], [[name, "base", "pass", "8", "7", "5"], [name, "series", "pass", "8", "7", "5"]])
        ended[1].bad.append("stale")
        foreign.record(ended, page)
        self.assertEqual(read(page), begin + foreign.HEADER + "```\nmore\n")
        write(page, "no place\n")
        with self.assertRaisesRegex(SystemExit, "no place for the table"):
            foreign.record(ended, page)
        self.assertEqual(read(page), "no place\n")
