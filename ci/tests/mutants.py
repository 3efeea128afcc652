#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""mutants.py IMAGE OUT MODEL[,MODEL] SEEDS [NAME...]: run the tests that each mutant in ci/mutants names, with that mutant switched on.

IMAGE contains all mutants, see ci/build/mutants.  The tests run once with each seed from 1 to SEEDS for their random numbers; an unbounded
TLB model uses no random numbers.  Writes OUT.ktap and prints the table.  Exit status 0: with the TLB model on, each mutant is killed with each
seed (a test fails or the guest dies), and without a mutant all tests pass.
"""
import collections
import csv
import difflib
import glob
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import rows
import tap
from guest import PR_SET_PDEATHSIG, TOP, die, libc, say_where

CACHE = os.environ["CACHE"]
LIMIT = 90
# A verdict depends on these files, and on the image, which has the kernel, QEMU and the programs of the tests.
SOURCES = ("tests/mutants.py", "tests/matrix.py", "tests/rows.py", "tests/report.py", "lib/guest.py", "lib/bochs.py", "lib/machine.py", "lib/clock.py",
           "lib/tap.py")
# The lists of tests by the level, as in selftests.tsv, at which the tests run.
LISTS = {"0": "ci/tests/selftests.list", "VMX": "ci/tests/selftests-vmx.list"}


class Tests(list):
    """The patterns of a mutant's tests, the level at which they run, and the cases of which one has to fail, all if there are none."""
    level = "0"
    cases = ()


def ends_with_its_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def mutants():
    """Map the name of each mutant to its tests, in the order in which the patches apply.  The first patch is the switch."""
    found = {}
    for path in sorted(glob.glob(os.path.join(TOP, "ci/mutants/*.patch")))[1:]:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        where = os.path.relpath(path, TOP)
        m = re.search(r"^Tests: (\S.*)$", text, re.M)
        if not m:
            die(f"{where} does not name the tests that kill it: add a line Tests: NAME...")
        name = re.sub(r"^\d+-", "", os.path.basename(path)[:-len(".patch")])
        if f'MUTANT("{name}")' not in text:
            die(f'{where} does not check MUTANT("{name}"), so it cannot be switched on: add the check')
        found[name] = Tests(m[1].split())
        machine = re.search(r"^Machine: (.*)$", text, re.M)
        if machine and machine[1] != "vmx":
            die(f"{where} names the machine {machine[1]}: write Machine: vmx, or remove the line")
        found[name].level = "VMX" if machine else "0"
        cases = re.search(r"^Cases: (\S.*)$", text, re.M)
        found[name].cases = tuple(cases[1].split()) if cases else ()
    return found


def rows_of(name, patterns, seeds):
    """Return levels with lines for lists of tests: these tests in L0, or on the machine with VMX, with the mutant switched on, once for each seed."""
    pcpus_of = {}
    path = LISTS[patterns.level]
    with open(os.path.join(TOP, path), encoding="utf-8") as f:
        listed = [l.split() for l in f if l.strip() and not l.startswith("#")]
    tests = rows.read_list(os.path.join(TOP, path))
    for pattern in patterns:
        # NAME@1 runs on one pCPU only.
        pattern, _, pcpus = pattern.partition("@")
        mine = [(t, w) for t, w in zip(tests, listed) if 0 in t.levels and rows.called(t, pattern)]
        if not mine:
            die(f"ci/mutants: {name}: no test in {path} that runs in L0 is called {pattern}")
        for _, words in mine:
            words = [w for w in words if w != f"only:{rows.MUTANTS}"]
            pcpus_of.setdefault(tuple(words), set()).update(pcpus or words[2].split("/")[0])
    # Only the cases that have to fail: in the others a mutant may hang.
    only = [w for case in patterns.cases for w in ("-t", case)]
    # A mutant of SEV leaves charges and ASIDs behind that only a boot clears.  A property that no other mutant has gives it a machine of its own.
    number = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) if name != "none" else 0
    for words in list(pcpus_of):
        if "cpu:x-sev=on" in words:
            end = words.index("--") if "--" in words else len(words)
            pcpus_of[(*words[:end], f"psp:max-guests={1024 + number}", *words[end:])] = pcpus_of.pop(words)
    # Lower the limits: most of these tests take seconds, and a mutant may make them hang.
    return [(patterns.level, " ".join([w[0], "0", "".join(sorted(pcpus)), str(min(int(w[3]), LIMIT)), "kvm.mutant=" + name, f"seed:{seed}", *w[4:],
                                       *(["--"] if only and "--" not in w else []), *only]))
            for seed in range(1, seeds + 1) for w, pcpus in pcpus_of.items()]


def shown(result):
    """Return (row, case) for each failed case of a row, or (row, reason) if it has no cases."""
    row = re.sub(r" (kvm\.mutant=|seed:|psp:max-guests=)\S+", "", result["test"])
    # Drop the suite's name, because the name of the program says the same.
    cases = [c.partition(".")[2] for c in result["cases"].split(", ") if c]
    for why in ("hangs", "the guest died"):
        if cases and why + ":" in result["note"]:
            cases[-1] += f" ({why})"
    # For a program without cases, show the source line only: the values in its message differ from seed to seed.
    place = re.search(r"(\S+\.[ch]:\d+): ", result["note"])
    why = place[1] if place else result["note"]
    return [(row, c) for c in cases] or [(row, why if len(why) < 80 else why[:77] + "...")]


class Verdicts:
    """The results for one mutant, or without one: the seconds of the tests, the failures, and their seeds."""

    def __init__(self):
        self.seconds, self.failed = 0.0, collections.defaultdict(set)

    def add(self, result):
        self.seconds += float(result["seconds"])
        seed = re.search(r" seed:(\d+)", result["test"])[1]
        # A guest that did not boot does not kill a mutant.
        none = "kvm.mutant=none" in result["test"]
        if result["outcome"] == "fail" and (none or not result["note"].startswith("not run: ")):
            for what in shown(result):
                self.failed[what].add(seed)

    def killed(self):
        """Return the number of seeds with which the mutant was killed."""
        return len(set().union(*self.failed.values()))

    def by(self, seeds):
        rows_of = {}
        for (row, what), with_seeds in self.failed.items():
            rows_of.setdefault(row, []).append(what + (f" ({len(with_seeds)} of {seeds})" if len(with_seeds) < seeds else ""))
        return "; ".join(f"{row}: {', '.join(whats)}" for row, whats in sorted(rows_of.items()))


def run_tests(command, log_path):
    """Run command with its output in a log, and print its progress."""
    with open(log_path, "w", buffering=1, encoding="utf-8") as log, \
         subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", preexec_fn=ends_with_its_parent) as p:
        try:
            for line in p.stdout:
                log.write(line)
                progress = re.match(r"selftests: (\d+ of \d+ after .*)", line)
                if progress:
                    print("mutants: " + progress[1], flush=True)
        except BaseException:
            p.kill()
            raise


def run(image, out, model, rows_wanted):
    """Run the rows whose verdicts are not kept, and map the name of each mutant to its Verdicts."""
    rig = [model]
    for path in [os.path.join(image, "contents")] + [os.path.join(TOP, "ci", f) for f in SOURCES]:
        with open(path, encoding="utf-8") as source:
            rig.append(source.read())
    # The image has QEMU, but not Bochs.
    emulator = {level: [say_where("bochs")] if level == "VMX" else [] for level, _ in rows_wanted}
    # In CI, reuse only verdicts of the same run.
    since = float(os.environ.get("KVM_TLB_SINCE") or time.time()) if os.environ.get("CI") == "true" else 0

    def kept(row):
        key = "\n".join([row[1]] + rig + emulator[row[0]])
        return os.path.join(CACHE, "mutants", hashlib.sha256(key.encode()).hexdigest()[:32])

    def is_kept(row):
        return os.path.exists(kept(row)) and os.path.getmtime(kept(row)) >= since

    todo = [r for r in rows_wanted if not is_kept(r)]
    results_of = {}
    if todo:
        os.makedirs(out, exist_ok=True)
        lists = {level: f"{out}.{level}.list" for level, _ in todo}
        for level, path in lists.items():
            with open(path, "w", encoding="utf-8") as f:
                f.writelines(line + "\n" for l, line in todo if l == level)
        options = ["--levels", "0", "--list", lists["0"]] if "0" in lists else ["--levels", ""]
        options += ["--vmx", lists["VMX"], "--no-vmx-oracle"] if "VMX" in lists else []
        start = time.monotonic()
        print(f"mutants: {len(todo)} rows of tests, TLB model {model}, log in {os.path.relpath(out, TOP)}.log", flush=True)
        command = [sys.executable, os.path.join(TOP, "ci/tests/matrix.py"), *options, "--model", model, "--patience", "1", "-", image, out]
        run_tests(command, out + ".log")
        if not os.path.exists(out + "/selftests.tsv"):
            die(f"the tests did not run: see {out}.log")
        print(f"mutants: done in {time.monotonic() - start:.0f} s", flush=True)
        with open(out + "/selftests.tsv", encoding="utf-8") as f:
            results = [{k: r[k] for k in ("test", "level", "outcome", "seconds", "cases", "note")} for r in csv.DictReader(f, delimiter="\t")]
        os.remove(out + "/selftests.tsv")
        os.makedirs(os.path.join(CACHE, "mutants"), exist_ok=True)
        for level, path in lists.items():
            for row, test in zip([r for r in todo if r[0] == level], rows.read_list(path)):
                results_of[row] = [r for r in results if r["level"] == level and r["test"] == test.name]
                # Do not keep a verdict if a test did not run.
                if not any(r["note"].startswith("not run: ") for r in results_of[row]):
                    with open(kept(row) + ".new", "w", encoding="utf-8") as f:
                        json.dump(results_of[row], f)
                    os.replace(kept(row) + ".new", kept(row))
    verdicts = collections.defaultdict(Verdicts)
    for row in rows_wanted:
        if row not in results_of:
            with open(kept(row), encoding="utf-8") as f:
                results_of[row] = json.load(f)
        for r in results_of[row]:
            verdicts[re.search(r"kvm\.mutant=(\S+)", r["test"])[1]].add(r)
    return verdicts


def main():
    image, out, models, seeds, names = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4]), sys.argv[5:]
    known = mutants()
    for n in names:
        if n not in known:
            similar = difflib.get_close_matches(n, known, cutoff=0)
            die(f"there is no mutant {n} (similar: {' '.join(similar)}; ci/mutants has all, with a number in front)")
    names = names or list(known)
    if image == "-":
        return 0
    wanted = [r for n in names for r in rows_of(n, known[n], seeds)]
    for level in LISTS:
        unbroken = Tests(sorted({p for n in names for p in known[n] if known[n].level == level}))
        unbroken.level = level
        wanted += rows_of("none", unbroken, seeds)
    results = {m: run(image, f"{out}/{m}", m, wanted) for m in models}

    def verdict(model, name):
        survived = seeds - results[model][name].killed()
        if not survived:
            return "killed"
        return ("SURVIVED" if model == "on" else "survived") + (f" {survived} of {seeds}" if seeds > 1 else "")

    width, wide = max(len(n) for n in names), max(len(verdict(m, n)) for m in models for n in names)
    print(f"{'mutant':{width}}  " + "".join(f"{'model' if m == 'on' else 'stock':{wide}}  " for m in models) + "  time  killed by")
    for n in names:
        print(f"{n:{width}}  " + "".join(f"{verdict(m, n):{wide}}  " for m in models) + f"{results['on'][n].seconds:4.0f} s  {results['on'][n].by(seeds)}")
    unmutated = []
    for m in models:
        none = results[m]["none"]
        for (row, what), _ in sorted(none.failed.items()):
            print(f"FAIL: without a mutant, model {m}: {row}: {what}")
        unmutated += [(f"without a mutant, model {m}: {row}", "fail", sorted(w for r, w in none.failed if r == row)) for row in sorted({r for r, _ in none.failed})]
    survivors = [n for n in names if results["on"][n].killed() < seeds]
    for n in survivors:
        print(f"FAIL: {n}: no test detected it" + (f" with {seeds - results['on'][n].killed()} of {seeds} seeds" if seeds > 1 else ""))
    tap.write(out + ".ktap", [(n, "fail" if n in survivors else "pass", [f"killed by {results['on'][n].by(seeds)}"] if n not in survivors else ["no test detected it"])
                              for n in names] + unmutated)
    print(f"mutants: {len(names) - len(survivors)} killed, {len(survivors)} survived")
    return 1 if survivors or unmutated else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # The machines end with their parent.
        die("interrupted; rerun to continue")
