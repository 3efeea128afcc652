# SPDX-License-Identifier: GPL-2.0-only
"""Tests of Ctrl-C and other signals at any moment."""
import os
import random
import shutil
import signal
import sys
import time

from world import (
    BRANCH, SVM, VerbTest, World, clone, commit, edited, finish, format_patches, git, listed, ours, read, run, started, state,
    wait_until, write,
)


class Interrupted(VerbTest):
    """Ctrl-C and SIGKILL at moments that are spread over the run of a command."""
    takes_long = True
    PATCHES = 8
    MOMENTS = (0.2, 0.4, 0.6, 0.8)
    PATCH_TAKES = 0.1  # seconds

    def setUp(self):
        super().setUp()
        work = self.kdir("work")
        text = read(os.path.join(work, SVM))
        for i in range(self.PATCHES):
            text = edited(text, 3 * i + 5, f"int svm_patch_{i};")
            commit(work, f"KVM: SVM: Change {i}", {SVM: text, f"arch/x86/kvm/svm/new_{i}.c": "int new;\n"})
        self.set_series(format_patches(work, "base/7.9"))
        self.count = 0

    def commits(self, repo):
        """Return how often HEAD has moved.  Reading the file is faster than running git."""
        return read(os.path.join(repo, ".git/logs/HEAD")).count("\n")

    def while_committing(self, command, prepare):
        """For each moment, start a run and yield (repository, process) after that share of its commits."""
        for part in self.MOMENTS:
            repo = prepare()
            until = self.commits(repo) + part * self.PATCHES
            with started(command(repo), self.env) as p:
                wait_until(lambda r=repo, u=until, q=p: self.commits(r) >= u or q.poll() is not None, 60)
                time.sleep(random.random() / 30)
                yield repo, p

    def spread(self, command, prepare):
        """The same, but after a share of the time that a run takes, for commands that do not commit one by one."""
        repo = prepare()
        begin = time.monotonic()
        self.assert_ok(run(command(repo), self.env))
        took = time.monotonic() - begin
        for part in self.MOMENTS:
            repo = prepare()
            with started(command(repo), self.env) as p:
                time.sleep(part * took)
                yield repo, p

    def fresh(self):
        self.count += 1
        repo = self.kdir(f"kdir{self.count}")
        commit(repo, "Mine", {"drivers/mine.c": "mine\n"})
        write(os.path.join(repo, "untracked"), "mine\n")
        # Each patch takes a while, so that a run on a fast machine is not over before the signal comes.
        git(repo, "config", "filter.slow.smudge", f"sleep {self.PATCH_TAKES}; cat")
        write(os.path.join(repo, ".git/info/attributes"), "new_*.c filter=slow\n")
        return repo

    def whole(self, repo, branch):
        return git(repo, "rev-list", "--count", "base/7.9.." + branch) == str(self.PATCHES + 1) and \
            git(repo, "status", "--porcelain") == "?? untracked"

    def test_apply(self):
        stopped = 0
        for repo, p in self.while_committing(lambda r: self.command("apply", r), self.fresh):
            # The command may have finished before the signal.
            before = git(repo, "rev-parse", ":/^Mine")
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 30)
            self.assertEqual(ours(), {})
            self.assertEqual(read(os.path.join(repo, "untracked")), "mine\n")
            if git(repo, "rev-parse", "HEAD") != before:
                self.assertTrue(self.whole(repo, "main"), f"a part of the series is in: {done}")
                continue
            stopped += 1
            self.assertNotEqual(done.status, 0)
            self.assertEqual(state(repo)["under way"], [])
            self.assertEqual(git(repo, "status", "--porcelain"), "?? untracked")
            self.assertEqual(git(repo, "symbolic-ref", "--short", "HEAD"), "main")
            self.assert_ok(self.verb("apply", repo), f"{self.PATCHES} patches applied")
            self.assertTrue(self.whole(repo, "main"))
        self.assertGreater(stopped, 1, "no run was interrupted in its middle")

    def test_tree(self):
        stopped = 0
        for repo, p in self.while_committing(lambda r: ["env", "KDIR=" + r, *self.command("tree")], self.fresh):
            mine = git(repo, "rev-parse", "main")
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 30)
            self.assertEqual(ours(), {})
            self.assertEqual(read(os.path.join(repo, "untracked")), "mine\n")
            self.assertEqual(git(repo, "rev-parse", "main"), mine)
            self.assertEqual(state(repo)["under way"], [])
            self.assertEqual(git(repo, "status", "--porcelain"), "?? untracked")
            if git(repo, "symbolic-ref", "-q", "--short", "HEAD", check=False) != BRANCH:
                stopped += 1
                self.assertNotEqual(done.status, 0)
                self.assertEqual(git(repo, "symbolic-ref", "-q", "--short", "HEAD", check=False), "main", "HEAD is elsewhere")
            self.assert_ok(self.verb("tree", KDIR=repo))
            self.assertTrue(self.whole(repo, BRANCH))
        self.assertGreater(stopped, 1, "no run was interrupted in its middle")

    def test_tree_without_kdir(self):
        # Make a base whose checkout takes a while.
        cache = os.path.join(self.dir, "cache")
        shutil.copytree(World.cache, cache, symlinks=True)
        work = clone(os.path.join(self.dir, "large"), os.path.join(cache, "linux.git"))
        git(work, "checkout", "-q", "base/7.9")
        base = commit(work, "Linux 7.10", {f"drivers/large/{i}.c": f"int a{i};\n" for i in range(1000)})
        git(work, "push", "-q", os.path.join(cache, "linux.git"), base + ":refs/tags/base/7.10")
        self.set_base("7.10")
        self.env["KVM_TLB_CACHE"] = cache
        repo = self.path("build/linux")

        def prepare():
            shutil.rmtree(repo, ignore_errors=True)
            return repo

        for _, p in self.spread(lambda r: self.command("tree"), prepare):
            os.killpg(p.pid, signal.SIGINT)
            finish(p, 30)
            self.assertEqual(ours(), {})
            self.assert_ok(self.verb("tree"))
            self.assertEqual(git(repo, "rev-list", "--count", "base/7.10.." + BRANCH), str(self.PATCHES))
            self.assertEqual(git(repo, "status", "--porcelain"), "")
            self.assertEqual([n for n in os.listdir(self.path("build")) if "new" in n], [])

    def with_branch(self):
        repo = self.fresh()
        os.remove(os.path.join(repo, "untracked"))
        self.assert_ok(self.verb("tree", KDIR=repo))
        return repo

    def test_sign(self):
        signed = "--grep=^Signed-off-by: Sender"
        for repo, p in self.while_committing(lambda r: ["env", "KDIR=" + r, *self.command("sign")], self.with_branch):
            os.killpg(p.pid, signal.SIGINT)
            finish(p, 30)
            self.assertEqual(state(repo)["under way"], [])
            self.assertEqual(git(repo, "symbolic-ref", "--short", "HEAD"), BRANCH)
            self.assertEqual(git(repo, "status", "--porcelain"), "")
            self.assertIn(git(repo, "rev-list", "--count", signed, "main.." + BRANCH), ("0", str(self.PATCHES)), "a part is signed")
            self.assert_ok(self.verb("sign", KDIR=repo), f"{self.PATCHES} patches signed")

    def test_export(self):
        want = None

        def prepare():
            # Reset the project to the small series; the branch has the long one.
            self.set_series(World.series)
            return repo

        repo = self.with_branch()
        for _, p in self.spread(lambda r: ["env", "KDIR=" + r, *self.command("export")], prepare):
            before = state(repo)
            os.killpg(p.pid, signal.SIGINT)
            finish(p, 30)
            self.assertEqual(state(repo), before)
            self.assertEqual(self.verb("export", KDIR=repo).status, 0)
            got = self.source_files()
            want = want or got
            self.assertEqual(got, want)
        self.assertEqual(len(listed(read(self.path("series")))), self.PATCHES)

    def test_apply_that_is_killed(self):
        """After SIGKILL there is no cleanup: the user's commits must stay, and the next run must say what to do."""
        for repo, p in self.while_committing(lambda r: self.command("apply", r), self.fresh):
            os.killpg(p.pid, signal.SIGKILL)
            finish(p, 30)
            self.assertTrue(wait_until(lambda: not ours(), 5))
            git(repo, "merge-base", "--is-ancestor", ":/^Mine", "HEAD")
            self.assertEqual(read(os.path.join(repo, "untracked")), "mine\n")
            done = self.verb("apply", repo)
            if done.status:
                line = [l for l in done.err.splitlines() if not l.startswith("    ")][-1]
                self.assertRegex(line, r"^apply: .*(in the middle of git am|there already|uncommitted changes|index\.lock)")
            for name in os.listdir(self.tmpdir):
                os.remove(os.path.join(self.tmpdir, name))


class Step(VerbTest):
    """ci/lib/step.py runs all long steps: no process may outlive it."""
    TREE = "sleep 1001 & sh -c 'sleep 1002; :' & sleep 1003"

    def step(self, *command):
        return [sys.executable, self.path("ci/lib/step.py"), os.path.join(self.dir, "log"), "a step", *command]

    def all_run(self):
        self.assertTrue(wait_until(lambda: all(f"sleep 100{i}" in ours().values() for i in (1, 2, 3)), 20))

    def all_are_gone(self):
        self.assertTrue(wait_until(lambda: not ours(), 5), ours())

    def test_ctrl_c(self):
        with started(self.step("sh", "-c", self.TREE), self.env) as p:
            self.all_run()
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
            self.all_are_gone()
        self.assertIn("a step: interrupted", done.out)
        self.assertIn("rerun", done.out)
        self.assertEqual(done.err, "")
        # It must die of the signal, so that a shell that called it ends as well.
        self.assertEqual(done.status, -signal.SIGINT)

    def test_terminated(self):
        with started(self.step("sh", "-c", self.TREE), self.env) as p:
            self.all_run()
            p.terminate()
            done = finish(p, 10)
            self.all_are_gone()
        self.assertIn("a step: interrupted", done.out)

    def test_children_that_ignore_signals(self):
        with started(self.step("sh", "-c", "trap '' INT TERM HUP; " + self.TREE), self.env) as p:
            self.all_run()
            os.killpg(p.pid, signal.SIGINT)
            finish(p, 10)
            self.all_are_gone()

    def test_parent_is_killed(self):
        # The colon keeps the shell from replacing itself with the step.
        with started(["sh", "-c", '"$@"; :', "sh", *self.step("sh", "-c", self.TREE)], self.env) as p:
            self.all_run()
            p.kill()
            self.all_are_gone()

    def test_step_is_killed(self):
        with started(self.step("sh", "-c", self.TREE), self.env) as p:
            self.all_run()
            p.kill()
            self.all_are_gone()

    def test_failure_leaves_nothing(self):
        done = run(self.step("sh", "-c", "sleep 1001 & echo why; exit 3"), self.env)
        self.assertEqual(done.status, 3)
        self.assertRegex(done.out, r"a step: FAILED after \d+ s \(status 3\)")
        self.assertIn("    why\n", done.out)
        self.all_are_gone()

    def test_success_is_one_line(self):
        done = run(self.step("sh", "-c", "echo what; exit 0"), self.env)
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertRegex(done.out, r"\Aa step: done in \d+ s\n\Z")

    def test_command_that_is_not_there(self):
        done = run(self.step(os.path.join(self.dir, "nowhere")), self.env)
        self.assertNotEqual(done.status, 0)
        self.assertIn("nowhere", done.out + done.err)
        self.assertNotIn("Traceback", done.out + done.err)
