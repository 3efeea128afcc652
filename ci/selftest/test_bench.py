# SPDX-License-Identifier: GPL-2.0-only
"""Tests of how scripts/bench judges counts, and scripts/mutants verdicts."""
import contextlib
import io
import os
import sys
import time
from unittest import mock

import bench
import functions
import rows
import mutants
import tap
from world import VerbTest, read, run, write


class Mutants(VerbTest):
    def test_one_that_names_no_test(self):
        write(self.path("ci/mutants/idle.patch"), "Rule: none\n\n")
        for args in ([], ["idle"]):
            self.assert_refuses(self.verb("mutants", *args), "mutants", "ci/mutants/idle.patch", "Tests: NAME")

    def test_one_that_cannot_be_switched_on(self):
        write(self.path("ci/mutants/idle.patch"), "Rule: none\nTests: state_test\n\n")
        self.assert_refuses(self.verb("mutants"), "mutants", "ci/mutants/idle.patch", 'MUTANT("idle")')

    def test_only_the_cases_that_have_to_fail(self):
        tests = mutants.Tests(["svm_tlb_flush_tes[t]@1", "svm_nested_asid_schemes_test?nested_tlb_max_age=3600000?-T?never_flushes*@1"])
        tests.cases = ("init", "xen")
        rows = [r for _, r in mutants.rows_of("idle", tests, 2)]
        self.assertEqual([r.partition(" -- ")[2] for r in rows], ["-t init -t xen", "-T never_flushes -v npt -t init -t xen"] * 2)
        self.assertTrue(all("kvm.mutant=idle seed:" in r for r in rows))

    def test_every_mutant_that_names_cases_has_them_in_its_rows(self):
        for name, tests in mutants.mutants().items():
            for _, row in mutants.rows_of(name, tests, 1):
                self.assertEqual(row.count(" -t ") >= len(tests.cases), True, row)

    def test_seeds(self):
        for bad in ("0", "-1", "many"):
            self.assert_refuses(self.verb("mutants", "--seeds", bad), "mutants", "--seeds must be a number, at least 1")
        self.assert_refuses(self.verb("mutants", "--seeds"), "mutants", "--seeds needs a value")

    def tried(self, seeds, outcomes, *names, models="on", **env):
        """Run mutants.py with fake machines; return its status, its output, the rows that ran, and the counts of its KTAP.

        outcomes maps a part of a row's line to the outcome of the row; other rows pass.
        """
        image, out = os.path.join(self.dir, "image"), os.path.join(self.dir, "results", "mutants")
        write(os.path.join(image, "contents"), "what is in it\n")
        os.makedirs(out, exist_ok=True)
        ran = []

        def run_rows(args, _log):
            out = args[-1]
            os.makedirs(out, exist_ok=True)
            with open(os.path.join(out, "selftests.tsv"), "w", encoding="utf-8") as f:
                f.write("test\tlevel\toutcome\tseconds\tcases\tnote\n")
                for path, level in [(args[args.index(o) + 1], l) for o, l in (("--list", "0"), ("--vmx", "VMX")) if o in args]:
                    lines = read(path).splitlines()
                    ran.extend(lines if level == "0" else [f"{level} {l}" for l in lines])
                    for line, t in zip(lines, rows.read_list(path)):
                        end = next((o for part, o in outcomes.items() if part in line), ("pass", "", ""))
                        f.write("\t".join((t.name, level, end[0], "1.0", *end[1:])) + "\n")
        printed = io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(mutants, "run_tests", run_rows))
            stack.enter_context(mock.patch.object(mutants, "say_where", lambda what: what))
            stack.enter_context(mock.patch.object(mutants, "CACHE", os.path.join(self.dir, "kept")))
            stack.enter_context(mock.patch.dict(os.environ, {"CI": "", "KVM_TLB_SINCE": "", **env}))
            stack.enter_context(mock.patch.object(sys, "argv", ["mutants.py", image, out, models, str(seeds), *names]))
            stack.enter_context(contextlib.redirect_stdout(printed))
            status = mutants.main()
        return status, printed.getvalue(), ran, tap.count(read(out + ".ktap").splitlines())

    def test_progress(self):
        log, printed = os.path.join(self.dir, "log"), io.StringIO()
        with contextlib.redirect_stdout(printed):
            mutants.run_tests(["printf", "one\\nselftests: 1 of 2 after 60 s\\nselftests: 2 runs in 70 s\\n"], log)
        self.assertEqual(printed.getvalue(), "mutants: 1 of 2 after 60 s\n")
        self.assertEqual(len(read(log).splitlines()), 3)

    NAME = "no-flush-asid"
    KILLED = ("fail", "suite.one, suite.npt.two", "suite.one: why")

    def test_one_of_an_unknown_machine(self):
        write(self.path("ci/mutants/idle.patch"), "Rule: none\nMachine: z80\nTests: state_test\n\n+MUTANT(\"idle\")\n")
        self.assert_refuses(self.verb("mutants"), "mutants", "ci/mutants/idle.patch", "write Machine: vmx")

    def test_rows_of_both_machines(self):
        on_vmx = next(n for n, t in mutants.mutants().items() if t.level == "VMX" and t.cases)
        wanted = {self.NAME + " seed": self.KILLED, on_vmx + " seed": ("fail", "suite.three", "suite.three: why")}
        status, text, ran, counts = self.tried(1, wanted, self.NAME, on_vmx)
        self.assertEqual((status, counts), (0, [2, 0, 0]), text)
        for name, level in ((self.NAME, ""), (on_vmx, "VMX "), ("none", "VMX "), ("none", "")):
            self.assertTrue([r for r in ran if r.startswith(level) and r.startswith("VMX ") == bool(level) and f"mutant={name} " in r], (name, ran))
        self.assertEqual(self.tried(1, {}, self.NAME, on_vmx)[::2], (0, []))
        self.assertEqual([r for r in self.tried(1, {}, on_vmx, CI="true")[2] if not r.startswith("VMX ")], [])

    def test_killed_with_each_seed(self):
        status, text, ran, counts = self.tried(3, {self.NAME + " seed": self.KILLED}, self.NAME)
        self.assertEqual((status, counts), (0, [1, 0, 0]))
        self.assertRegex(text, rf"(?m)^{self.NAME}  killed .* one, npt\.two$")
        self.assertEqual({w for l in ran for w in l.split() if w.startswith("seed:")}, {"seed:1", "seed:2", "seed:3"})

    def test_survives_one_seed(self):
        status, text, _, counts = self.tried(3, {self.NAME + " seed:2": ("pass", "", ""), self.NAME + " seed": self.KILLED}, self.NAME)
        self.assertEqual((status, counts), (1, [0, 1, 0]))
        self.assertRegex(text, rf"(?m)^{self.NAME}  SURVIVED 1 of 3 .* one \(2 of 3\), npt\.two \(2 of 3\)$")
        self.assertIn(f"FAIL: {self.NAME}: no test detected it with 1 of 3 seeds\n", text)

    def test_fails_without_a_mutant(self):
        status, text, _, counts = self.tried(1, {self.NAME + " seed": self.KILLED, "none seed": ("fail", "suite.x", "suite.x: why")}, self.NAME)
        self.assertEqual((status, counts[0]), (1, 1))
        self.assertRegex(text, r"(?m)^FAIL: without a mutant, model on: \S+.*: x$")

    def test_verdicts_are_kept_but_not_for_ci(self):
        first = self.tried(1, {self.NAME + " seed": self.KILLED}, self.NAME)
        self.assertEqual(self.tried(1, {}, self.NAME)[::2], (0, []))
        # With one more seed, only the rows of that seed run.
        self.assertEqual({w for l in self.tried(2, {self.NAME + " seed": self.KILLED}, self.NAME)[2] for w in l.split() if "seed:" in w}, {"seed:2"})
        self.assertEqual(self.tried(1, {}, self.NAME, CI="true")[::2], (1, first[2]))
        # CI may reuse verdicts of the same run of scripts/test.
        self.assertEqual(self.tried(1, {}, self.NAME, CI="true", KVM_TLB_SINCE=str(time.time() - 600))[2], [])

    def test_verdicts_depend_on_the_image(self):
        first = self.tried(1, {self.NAME + " seed": self.KILLED}, self.NAME)
        with mock.patch.object(mutants, "SOURCES", mutants.SOURCES[:-1]):
            self.assertEqual(self.tried(1, {}, self.NAME)[2], first[2])


class Bench(VerbTest):
    """How scripts/bench judges figures; the tests make them up, and run no machine."""
    GOOD = {"vmrun": 4, "flush_asid": 0, "flush_all": 0, "walks": 0, "reloads": 3, "instructions": 100, "bytes": 4096, "ipis": 0, "guest_ipis": 0}
    BASE = {**GOOD, "flush_asid": 2, "walks": 27, "instructions": 110}

    def measured(self, *scenarios, expected=None, broken=None, series=None, reloads=None, emulators=None):
        """Return status and output of bench.py if each scenario has these figures; reloads replaces the series' reloads.

        Stores the machines' labels.  emulators: those that the scenarios need."""
        self.labels, asked = [], []
        figures = {"base": self.BASE, "series": {**self.GOOD, **(series or {})}}
        lines = ["scenario kernel flush_asid flush_all walks reloads"] + [f"{s} {k} {f['flush_asid']} 0 {f['walks']} {f['reloads']}" for s in scenarios
                                                                  for k, f in {"base": self.BASE, "series": self.GOOD, **(expected or {})}.items()]
        write(self.path("expected"), "\n".join(lines).replace(" ", "\t") + "\n")

        def measure(machine):
            self.labels.append(machine.label)
            if broken in [s.name for s in machine.scenarios]:
                machine.error = "it panics"
            else:
                machine.got = {(s.name, machine.kernel): dict(figures[machine.kernel]) for s in machine.scenarios}
                for s in machine.scenarios if machine.kernel == "series" else ():
                    machine.got[s.name, "series"]["reloads"] = (reloads or {}).get(s.name, 3)
        out = io.StringIO()
        with contextlib.ExitStack() as stack:
            for where, name, value in ((bench.Machine, "run", measure), (bench, "EXPECTED", self.path("expected")),
                                       (bench, "say_where", lambda *command: asked.extend(command) or ""), (bench.machine, "run_all", lambda machines, *how: [m.run() for m in machines]),
                                       (sys, "argv", ["bench.py", "base", "series", self.path("bench"), *scenarios])):
                stack.callback(setattr, where, name, getattr(where, name))
                setattr(where, name, value)
            with contextlib.redirect_stdout(out):
                try:
                    status = bench.main()
                except SystemExit as e:
                    return 1, str(e)
        self.assertEqual(asked, emulators or ["qemu"])
        return status, out.getvalue()

    def test_as_expected(self):
        status, text = self.measured("nested-w16", "nested-w64")
        self.assertEqual(status, 0, text)
        self.assertEqual(tap.count(read(self.path("bench.ktap")).splitlines()), [2, 0, 0])
        self.assertIn("nested-w16\tseries\t4.000\t0.000\t0.000\t0.000\t3.000\t100.000\t4096.000\t0.000\t0.000\n", read(self.path("bench.tsv")))
        page = read(self.path("bench.html"))
        self.assertEqual(page.count("<svg"), 1, "one curve has two scenarios")
        self.assertIn("<td>L2, 64 pages</td><td>base</td><td>2.000</td>", page)
        self.assertFalse(os.path.exists(self.path("bench-partial.tsv")))

    def test_worse_than_the_base(self):
        status, text = self.measured("nested-w16", series={"instructions": 111})
        self.assertEqual(status, 1)
        self.assertIn("FAIL: nested-w16: 111 instructions per turn, 110 on the base, must be at most 1.00 times that\n", text)
        self.assertEqual(tap.count(read(self.path("bench.ktap")).splitlines()), [0, 1, 0])

    def test_not_as_much_better_as_it_must_be(self):
        status, text = self.measured("nested-clean")
        self.assertEqual(status, 1)
        self.assertIn("FAIL: nested-clean: 100 instructions per turn, 110 on the base, must be at most 0.90 times that\n", text)

    def test_more_reloads_than_with_one_l2(self):
        low = {"instructions": 90}
        self.assertEqual(self.measured("nested-clean", "nested-clean-8", series=low)[0], 0)
        scenarios = [s._replace(reloads_of="nested-w16") if s.name == "nested-w64" else s for s in bench.SCENARIOS]
        figures = {"nested-w16": 3, "nested-w64": 4}
        self.addCleanup(setattr, bench, "SCENARIOS", bench.SCENARIOS)
        bench.SCENARIOS = scenarios
        text = self.measured("nested-w16", "nested-w64", reloads=figures)[1]
        self.assertIn("FAIL: nested-w64: 4.000 groups of VMCB fields reloaded per turn, 3.000 in nested-w16\n", text)

    def test_worse_than_a_simpler_design(self):
        scenario = next(s for s in bench.SCENARIOS if s.than)
        got = {"series": self.GOOD, bench.SWITCH: {"instructions": 200}, scenario.than[0]: self.GOOD}
        self.assertEqual(list(bench.worse_than_kernels(scenario, got)), [])
        less = int(99 / scenario.tolerance)
        got[scenario.than[0]] = {**self.GOOD, "instructions": less}
        self.assertEqual(list(bench.worse_than_kernels(scenario, got)), [f"100 instructions per turn, {less} with {scenario.than[0]}"])

    def test_every_design_has_a_kernel(self):
        kernels = [l.partition(" | ")[0] for l in read(os.path.join(bench.TOP, "ci/bench/kernels")).splitlines() if not l.startswith("#")]
        self.assertEqual({"part-nested"} | {k for s in bench.SCENARIOS for k in (*s.kernels, *s.than)}, set(kernels))

    def test_more_instructions_than_with_one_l2(self):
        scenario = next(s for s in bench.SCENARIOS if s.like)
        figures = {scenario.name: {"series": {**self.GOOD, "instructions": 102}}}
        self.assertEqual(list(bench.worse_than_scenarios(scenario, figures, 0)), [])
        figures[scenario.like] = {"series": self.GOOD}
        self.assertEqual(list(bench.worse_than_scenarios(scenario, figures, 0)), [])
        more = int(100 * scenario.tolerance) + 1
        figures[scenario.name]["series"]["instructions"] = more
        self.assertEqual(list(bench.worse_than_scenarios(scenario, figures, 0)), [f"{more} instructions per turn, 100 in {scenario.like}"])

    def test_worse_than_it_must_be(self):
        self.assertIn("FAIL: nested-w16: walks 1.000 per turn, must be 0\n", self.measured("nested-w16", series={"walks": 1})[1])

    def test_other_counts_than_expected(self):
        status, text = self.measured("nested-w16", expected={"base": {**self.BASE, "walks": 28}})
        self.assertEqual(status, 1)
        self.assertIn("FAIL: nested-w16: base: walks 27.000 per turn, 28 in ci/bench/expected", text)

    def test_counts_that_nobody_recorded(self):
        status, text = self.measured("nested-w16", expected={"base": {**self.BASE, "walks": 27}, "series": self.GOOD})
        self.assertEqual(status, 0, text)
        write(self.path("expected"), "")
        expected, bench.EXPECTED = bench.EXPECTED, self.path("expected")
        self.addCleanup(setattr, bench, "EXPECTED", expected)
        scenario = next(s for s in bench.SCENARIOS if s.name == "nested-w16")
        self.assertRegex(next(bench.unexpected(scenario, {"base": self.BASE}, bench.read_expected())), "has no counts for base")

    def test_a_kernel_that_does_not_boot(self):
        # The scenario with npt=0 has a machine of its own.
        status, text = self.measured("nested-w16", "nested-npt0", broken="nested-npt0")
        self.assertEqual(status, 1)
        self.assertRegex(text, r"nested-npt0 on the base kernel, what was measured is in \S*bench-partial\.tsv: it panics")
        self.assertIn("nested-w16\tseries", read(self.path("bench-partial.tsv")))
        self.assertFalse(os.path.exists(self.path("bench.tsv")))

    def test_kernels_that_scenarios_need(self):
        for scenarios, kernels in (([], ["one-vmcb12", "part-nested", "private-lru"]), (["nested-w16"], ["part-nested"]), (["pinned"], [])):
            done = run([os.path.join(bench.TOP, "ci/bench/bench.py"), "--kernels", *scenarios], {**os.environ, "PYTHONPATH": os.path.join(bench.TOP, "ci/lib")})
            self.assertEqual(done.out.split(), kernels)

    def test_configurations_that_scenarios_need(self):
        for scenarios, configs in (([], ["bench"]), (["l2-frame"], ["bench"]), (["l2-request"], [])):
            done = run([os.path.join(bench.TOP, "ci/bench/bench.py"), "--configs", *scenarios], {**os.environ, "PYTHONPATH": os.path.join(bench.TOP, "ci/lib")})
            self.assertEqual(done.out.split(), configs)

    def test_machines_that_scenarios_need(self):
        for scenarios, machines in (([], ["tcg", "vmx"]), (["pinned"], ["tcg"]), (["vmx-l2s-1"], ["vmx"])):
            done = run([os.path.join(bench.TOP, "ci/bench/bench.py"), "--machines", *scenarios], {**os.environ, "PYTHONPATH": os.path.join(bench.TOP, "ci/lib")})
            self.assertEqual(done.out.split(), machines)

    def test_scenarios_of_vmx(self):
        # They run on a machine of their own, and nobody needs QEMU for them.
        status, text = self.measured("vmx-l2s-1", series={"instructions": 88}, emulators=["bochs"])
        self.assertEqual(status, 0, text)
        self.assertIn("vmx-l2s-1 on the series kernel", self.labels)
        status, text = self.measured("vmx-l2s-8", "nested-w16", series={"instructions": 89}, emulators=["qemu", "bochs"])
        self.assertEqual(status, 1)
        self.assertIn("FAIL: vmx-l2s-8: 89 instructions per turn, 110 on the base, must be at most 0.80 times that\n", text)
        self.assertNotIn("FAIL: nested-w16", text)
        self.assertEqual(len(self.labels), 4)

    def test_counts_of_the_other_machine_are_kept(self):
        figures = {"vmx-l2s-1": {"base": self.BASE, "series": self.GOOD}}
        self.addCleanup(setattr, bench, "EXPECTED", bench.EXPECTED)
        bench.EXPECTED = self.path("expected")
        lines = ["scenario\tkernel\tflush_asid\tflush_all\twalks\treloads", "pinned\tbase\t1\t2\t3\t4", "vmx-l2s-1\tbase\t9\t9\t9\t9"]
        write(bench.EXPECTED, "".join(l + "\n" for l in lines))
        bench.write_expected([s for s in bench.SCENARIOS if s.name in figures], figures)
        self.assertEqual(read(bench.EXPECTED).splitlines(), lines[:2] + ["vmx-l2s-1\tbase\t2.000\t0.000\t27.000\t3.000", "vmx-l2s-1\tseries\t0.000\t0.000\t0.000\t3.000"])

    def test_bad_curves(self):
        path = self.path("curves.toml")
        for text in ("[[curve]]\ntitle = 't'\n", "[[curve\n", ""):
            write(path, text)
            with self.assertRaises(SystemExit) as end:
                bench.read_curves(path)
            self.assertIn("not a list of curves", str(end.exception))

    def test_bad_scenarios(self):
        path = self.path("scenarios.toml")
        for text, why in (("[a]\ntitle = 't'\nmroe = true\n", "a: mroe: unknown or missing"), ("[a]\n", "a: title: unknown or missing"),
                          ("[a]\ntitle = 't'\nlike = 'b'\n", "a: there is no scenario b"), ("[a]\ntitle = 't'\nconfig = 'b'\n", "a: there is no configuration b"),
                          ("[a]\ntitle = 't'\nmachine = 'b'\n", "a: there is no machine b"), ("[a]\ntitle = 't'\nmachine = 'vmx'\n", "a: the machine with VMX has one CPU"),
                          ("[a\n", "line 1"), ("[a]\ntitle = 't'\n[a]\ntitle = 't'\n", "a")):
            write(path, text)
            with self.assertRaises(SystemExit) as end:
                bench.read_scenarios(path)
            self.assertIn(why, str(end.exception))
            self.assertNotIn("\n", str(end.exception))

    def test_every_scenario_of_a_curve_exists(self):
        names = [s.name for s in bench.SCENARIOS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual([n for _, _, _, points in bench.CURVES for n in points.values() if n not in names], [])


class Profile(VerbTest):
    def test_arguments(self):
        for args in ([], ["nested-w16", "pinned"], ["no-such"], ["l2-boot"]):
            self.assert_refuses(self.verb("profile", *args), "profile", "choose from: ")

    def test_blocks_belong_to_the_function_before_them(self):
        path = os.path.join(self.dir, "blocks")
        write(path, "ffffffff81000000 3 10\nffffffff81000000 2 1\nffffffff81000008 4 10\nffffffff81000020 1 7\nffffffff81000040 9 9\n401000 5 2\nend\n")
        symbols = functions.read_symbols("ffffffff81000020 t second\nffffffff81000000 T first\nffffffff81000010 D data\n"
                                       "ffffffff81000000 T alias\nffffffff81000040 t virtqueue_get_buf\nffffffffa0000000 t first\t[kvm]\n")
        self.assertEqual(functions.by_function(functions.read_blocks(path), symbols),
                         {"first": [11, 72], "second": [7, 7], functions.OTHER: [0, 10]})

    def test_what_is_incomplete(self):
        path = os.path.join(self.dir, "blocks")
        write(path, "ffffffff81000000 3 10\n")
        for bad in (path, path + ".none"):
            with self.assertRaisesRegex(functions.GuestError, "has not written all counts"):
                functions.read_blocks(bad)
        with self.assertRaisesRegex(functions.GuestError, "kptr_restrict"):
            functions.read_symbols("0000000000000000 T first\n")
