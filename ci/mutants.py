#!/usr/bin/env python3
"""mutants.py IMAGE OUT MODEL[,MODEL] [NAME...]: run the tests that each mutant in ci/mutants names, with that mutant switched on.

IMAGE has all mutants in it, see ci/mutant.  Writes OUT.count and prints the table.  Exit status 0: with the TLB model on every
mutant is killed, i.e. a test fails or the guest dies, and with none switched on every test passes.
"""
import csv
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import time

import matrix

TOP = matrix.TOP
CACHE = os.environ["CACHE"]
LIMIT = 90


def mutants():
    """Name -> its tests.  The patches' order is that in which they apply, the first one is the switch."""
    found = {}
    for path in sorted(glob.glob(os.path.join(TOP, "ci/mutants/*.patch")))[1:]:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        where = os.path.relpath(path, TOP)
        m = re.search(r"^Tests: (\S.*)$", text, re.M)
        if not m:
            matrix.die(f"{where} does not say which tests kill it: add a line Tests: NAME...")
        name = re.sub(r"^\d+-", "", os.path.basename(path)[:-len(".patch")])
        if f'MUTANT("{name}")' not in text:
            matrix.die(f'{where} does not check MUTANT("{name}"): it could not be switched on')
        found[name] = m[1].split()
    return found


def rows(name, patterns):
    """The list's lines for these tests in L0, with the mutant switched on."""
    pcpus_of = {}
    with open(os.path.join(TOP, "ci/selftests.list"), encoding="utf-8") as f:
        listed = [l.split() for l in f if l.strip() and not l.startswith("#")]
    tests = matrix.read_list(os.path.join(TOP, "ci/selftests.list"))
    for pattern in patterns:
        # NAME@1: on one pCPU only.
        pattern, _, pcpus = pattern.partition("@")
        mine = [(t, w) for t, w in zip(tests, listed) if 0 in t.levels and matrix.called(t, pattern)]
        if not mine:
            matrix.die(f"ci/mutants: {name}: no test in ci/selftests.list that runs in L0 is called {pattern}")
        for _, words in mine:
            pcpus_of.setdefault(tuple(words), set()).update(pcpus or words[2].split("/")[0])
    # Most of them take seconds, and what a mutant makes hang need not hang for long.
    return [" ".join([w[0], "0", "".join(sorted(pcpus)), str(min(int(w[3]), LIMIT)), "kvm.mutant=" + name, *w[4:]]) for w, pcpus in pcpus_of.items()]


def run(image, out, model, lines):
    """Name of the mutant -> {test that failed: note}, and -> its tests' seconds; the rows whose verdicts aren't kept are run."""
    # What a verdict depends on besides the row: whose name says what is in it, and who runs it.
    rig = [os.path.basename(image), os.path.basename(matrix.say_where("qemu/build")), model]
    for f in ("matrix.py", "guest.py", "mutants.py"):
        with open(os.path.join(TOP, "ci", f), encoding="utf-8") as source:
            rig.append(source.read())

    def kept(line):
        key = "\n".join([line] + rig)
        return os.path.join(CACHE, "mutants", hashlib.sha256(key.encode()).hexdigest()[:32])

    todo = [l for l in lines if not os.path.exists(kept(l))]
    rows_of = {}
    if todo:
        os.makedirs(out, exist_ok=True)
        with open(out + ".list", "w", encoding="utf-8") as f:
            f.write("\n".join(todo) + "\n")
        start = time.monotonic()
        print(f"mutants: {len(todo)} rows of tests, TLB model {model}, log in {os.path.relpath(out, TOP)}.log", flush=True)
        with open(out + ".log", "w", encoding="utf-8") as log:
            subprocess.run([sys.executable, os.path.join(TOP, "ci/matrix.py"), "--levels", "0", "--model", model, "--list", out + ".list",
                            "-", image, out], stdout=log, stderr=log, check=False)
        if not os.path.exists(out + "/selftests.tsv"):
            matrix.die(f"mutants: the tests did not run, see {out}.log")
        print(f"mutants: done in {time.monotonic() - start:.0f} s", flush=True)
        with open(out + "/selftests.tsv", encoding="utf-8") as f:
            results = [{k: r[k] for k in ("test", "outcome", "seconds", "note")} for r in csv.DictReader(f, delimiter="\t")]
        os.remove(out + "/selftests.tsv")
        os.makedirs(os.path.join(CACHE, "mutants"), exist_ok=True)
        for line, test in zip(todo, matrix.read_list(out + ".list")):
            rows_of[line] = [r for r in results if r["test"] == test.name]
            # What did not run has no verdict.
            if not any(r["note"].startswith("not run: ") for r in rows_of[line]):
                with open(kept(line) + ".new", "w", encoding="utf-8") as f:
                    json.dump(rows_of[line], f)
                os.replace(kept(line) + ".new", kept(line))
    failed, seconds = {}, {}
    for line in lines:
        if line not in rows_of:
            with open(kept(line), encoding="utf-8") as f:
                rows_of[line] = json.load(f)
        for r in rows_of[line]:
            name = re.search(r"kvm\.mutant=(\S+)", r["test"])[1]
            failed.setdefault(name, {})
            seconds[name] = seconds.get(name, 0) + float(r["seconds"])
            # Killed is what a test or a death says, not a guest that did not come up.
            if r["outcome"] == "fail" and (name == "none" or not r["note"].startswith("not run: ")):
                failed[name].setdefault(re.sub(r" kvm\.mutant=\S+", "", r["test"]), r["note"])
    return failed, seconds


def main():
    image, out, models, names = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4:]
    known = mutants()
    for n in names:
        if n not in known:
            matrix.die(f"there is no mutant {n} (ci/mutants has {' '.join(known)})")
    names = names or list(known)
    if image == "-":
        return 0
    lines = [l for n in names for l in rows(n, known[n])]
    lines += rows("none", sorted({p for n in names for p in known[n]}))
    results, seconds = {}, {}
    for m in models:
        results[m], seconds[m] = run(image, f"{out}/{m}", m, lines)
    width = max(len(n) for n in names)
    print(f"{'mutant':{width}}  " + "".join(f"{'model' if m == 'on' else 'stock':9}" for m in models) + "  time  killed by")
    killed = 0
    for n in names:
        by = results["on"].get(n, {})
        killed += bool(by)
        print(f"{n:{width}}  " + "".join(f"{'killed' if results[m].get(n) else 'SURVIVED' if m == 'on' else 'survived':9}"
                                         for m in models) + f"{seconds['on'].get(n, 0):4.0f} s  " + ", ".join(sorted(by)))
    sound = {m: results[m].get("none", {}) for m in models}
    for m, by in sound.items():
        for test, note in sorted(by.items()):
            print(f"FAIL: with no mutant switched on, model {m}: {test}: {note}")
    bad = len(names) - killed + sum(len(by) for by in sound.values())
    with open(out + ".count", "w", encoding="utf-8") as f:
        f.write(f"{killed} {bad} 0\n")
    for n in names:
        if not results["on"].get(n):
            print(f"FAIL: {n}: no test noticed")
    print(f"mutants: {killed} killed, {len(names) - killed} survived")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # What ran in the machine ends with its parent.
        matrix.die("interrupted; run it again to go on")
