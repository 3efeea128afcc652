# SPDX-License-Identifier: GPL-2.0-only
"""Tests of KDIR and --tree with directories that are not kernel trees, and with trees to which the series does not apply."""
import os
import subprocess

from world import NESTED, SVM, TAGS, VMX, VerbTest, World, commit, git, listed, makefile, numbered, run, write


class BadKdir(VerbTest):
    """Each kind of directory that cannot be a base, with each command that takes one."""

    def make_missing(self):
        return os.path.join(self.dir, "nowhere"), "is not a directory"

    def make_file(self):
        path = os.path.join(self.dir, "file")
        write(path, "text\n")
        return path, "is not a directory"

    def make_not_git(self):
        path = os.path.join(self.dir, "plain")
        write(os.path.join(path, NESTED), "text\n")
        return path, "is not a git tree"

    def make_empty_git(self):
        path = os.path.join(self.dir, "fresh")
        subprocess.run(["git", "init", "-q", path], env=World.env, check=True)
        return path, "is not a git tree with a commit"

    def other_git(self, files):
        path = os.path.join(self.dir, "other")
        subprocess.run(["git", "init", "-q", path], env=World.env, check=True)
        commit(path, "First", files)
        return path

    def make_not_a_kernel(self):
        return self.other_git({"README": "text\n"}), "is not a kernel tree"

    def make_without_makefile(self):
        return self.other_git({NESTED: "text\n"}), "is not a kernel tree"

    def make_too_old(self):
        return self.other_git({NESTED: "text\n", "Makefile": makefile(6, 18)}), "is Linux 6.18, which is too old"

    def make_just_too_old(self):
        return self.other_git({NESTED: "text\n", "Makefile": makefile(7, 2)}), "needs 7.3 or newer"

    def make_changed(self):
        path = self.kdir()
        write(os.path.join(path, SVM), "mine\n")
        return path, "uncommitted changes: commit or stash"

    def make_staged(self):
        path = self.kdir()
        write(os.path.join(path, "drivers/mine.c"), "mine\n")
        git(path, "add", "drivers/mine.c")
        return path, "uncommitted changes: commit or stash"

    def make_in_am(self):
        path = self.kdir()
        # Stop git am at a patch that conflicts with a commit of the user.
        write(os.path.join(path, SVM), "mine\n")
        git(path, "commit", "-q", "-a", "-m", "Mine")
        git(path, "am", self.path(listed(World.series["series"])[0]), check=False)
        assert os.path.isdir(os.path.join(path, ".git/rebase-apply"))
        return path, "in the middle of"

    def make_in_rebase(self):
        path = self.kdir()
        commit(path, "Mine", {"drivers/mine.c": "mine\n"})
        git(path, "-c", "sequence.editor=sed -i s/^pick/edit/", "rebase", "-q", "-i", "HEAD~1", check=False)
        assert os.path.isdir(os.path.join(path, ".git/rebase-merge"))
        return path, "in the middle of"

    def refused(self, verb, make):
        path, words = make()
        with self.unchanged(path):
            done = self.verb(verb, path) if verb == "apply" else self.verb(verb, KDIR=path)
        self.assert_refuses(done, verb, path, words)
        self.assertEqual(done.out, "")
        self.assertFalse(os.path.exists(self.path("build/src")), "work began")


for _make in [n for n in dir(BadKdir) if n.startswith("make_")]:
    for _verb in ("apply", "tree", "build"):
        setattr(BadKdir, f"test_{_make[5:]}_{_verb}", lambda self, v=_verb, m=_make: self.refused(v, getattr(self, m)))


class AnyTree(VerbTest):
    """--tree with directories that are kernel trees and with others, for each command that takes it."""
    FILES = {"arch/x86/kvm/Kconfig": "config KVM\n\tbool\n", "tools/testing/selftests/kvm/Makefile.kvm": "text\n"}

    def tree(self, files):
        path = os.path.join(self.dir, "any")
        subprocess.run(["git", "init", "-q", path], env=World.env, check=True)
        if files:
            commit(path, "First", files)
        return path

    def refused(self, path, *fragments):
        for verb in ("run", "build", "boot"):
            with self.subTest(verb), self.unchanged():
                self.assert_refuses(self.verb(verb, "--tree", path, *(("--", "true") if verb == "boot" else ())), verb,
                                    path, *fragments)
                self.assertFalse(os.path.exists(self.path("build/src")), "work began")

    def test_missing(self):
        self.refused(os.path.join(self.dir, "nowhere"), "is not a directory")

    def test_not_git(self):
        path = os.path.join(self.dir, "plain")
        write(os.path.join(path, "arch/x86/kvm/Kconfig"), "text\n")
        self.refused(path, "is not a git tree with a commit")

    def test_no_commit(self):
        self.refused(self.tree({}), "is not a git tree with a commit")

    def test_not_a_kernel(self):
        self.refused(self.tree({"README": "text\n"}), "is not a kernel tree")

    def test_too_old(self):
        self.refused(self.tree({"arch/x86/kvm/Kconfig": "text\n"}), "is too old")

    def test_not_built(self):
        path = self.tree(self.FILES)
        with self.unchanged(path):
            self.assert_refuses(self.verb("boot", "--tree", path, "--", "true"), "boot", "the tree kernel is not built", f"scripts/build --tree {path}")

    def test_uncommitted_changes_are_named(self):
        path = self.tree(self.FILES)
        write(os.path.join(path, "arch/x86/kvm/Kconfig"), "mine\n")
        done = self.verb("boot", "--tree", path, "--", "true")
        self.assertIn(f"{path} has uncommitted changes, which are not built\n", done.err)

    def test_together_with_the_series(self):
        path = self.tree(self.FILES)
        self.assert_refuses(self.verb("run", "--tree", path, KDIR=self.kdir()), "run", "--tree cannot be combined with --kernel or KDIR")
        self.assert_refuses(self.verb("build", "base", "--tree", path), "build", "--tree cannot be combined with base or series")


class Apply(VerbTest):
    def test_good_series(self):
        kdir = self.kdir()
        with self.unchanged():
            done = self.verb("apply", kdir)
        self.assert_ok(done, "4 patches applied")
        self.assertEqual(git(kdir, "rev-list", "--count", "base/7.9..main"), "4")
        self.assertEqual(git(kdir, "symbolic-ref", "--short", "HEAD"), "main")
        self.assertEqual(git(kdir, "status", "--porcelain"), "")
        # The user becomes the committer; the author stays.
        self.assertEqual(git(kdir, "log", "-1", "--format=%an %cn"), "KVM TLB tags series Sender")

    def test_path_relative_to_the_caller(self):
        self.kdir()
        done = run(self.command("apply", "kdir"), self.env, cwd=self.dir)
        self.assert_ok(done, "4 patches applied")

    def test_empty_series(self):
        kdir = self.kdir()
        self.set_series({"series": ""})
        with self.unchanged(kdir):
            done = self.verb("apply", kdir)
        self.assert_refuses(done, "apply", "series is empty")

    def test_twice(self):
        kdir = self.kdir()
        self.assert_ok(self.verb("apply", kdir))
        with self.unchanged(kdir):
            done = self.verb("apply", kdir)
        self.assert_ok(done, f"{kdir} has part one: 2 patches\n{kdir} has part two: 2 patches\nnothing to apply to {kdir}\n")

    def test_a_part(self):
        kdir = self.kdir()
        self.assert_ok(self.verb("apply", kdir, "one"), "2 patches applied")
        self.assertEqual(git(kdir, "log", "-1", "--format=%s"), "KVM: nSVM: Put tags into a file of their own")
        # The maintainer signs the commits, and adds a commit on top.
        git(kdir, "-c", "core.editor=true", "rebase", "-q", "--exec", "git commit -q --amend --no-edit -s", "base/7.9")
        commit(kdir, "Mine", {"drivers/mine.c": "mine\n"})
        with self.unchanged(kdir):
            self.assert_ok(self.verb("apply", kdir, "one"), "has part one: 2 patches", "nothing to apply")
        self.assert_ok(self.verb("apply", kdir, "two"), "has part one: 2 patches", "2 patches applied")
        self.assertEqual(git(kdir, "rev-list", "--count", "base/7.9..main"), "5")

    def test_the_last_part_brings_those_that_it_stands_on(self):
        self.assert_ok(self.verb("apply", self.kdir(), "two"), "4 patches applied")

    def test_half_a_part_is_there(self):
        kdir = self.kdir()
        git(kdir, "am", "-q", self.path(listed(World.series["series"])[0]))
        with self.unchanged(kdir):
            self.assert_refuses(self.verb("apply", kdir), "apply", listed(World.series["series"])[0], "there already")

    def test_a_commit_of_that_name_with_another_change(self):
        kdir = self.kdir()
        git(kdir, "am", "-q", *[self.path(n) for n in listed(World.series["series"])[:2]])
        write(os.path.join(kdir, TAGS), "int other;\n")
        git(kdir, "commit", "-q", "-a", "--amend", "--no-edit")
        with self.unchanged(kdir):
            self.assert_refuses(self.verb("apply", kdir), "apply", listed(World.series["series"])[0], "there already")

    def test_no_git_identity(self):
        kdir = self.kdir()
        with self.unchanged(kdir):
            # Without useConfigOnly, git makes up a name from that of the machine.
            done = self.verb("apply", kdir, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="user.useConfigOnly",
                             GIT_CONFIG_VALUE_0="true")
        self.assert_refuses(done, "apply", "user.name", "user.email")

    def test_untracked_file_in_the_way(self):
        kdir = self.kdir()
        write(os.path.join(kdir, TAGS), "mine\n")
        with self.unchanged(kdir):
            done = self.verb("apply", kdir)
        self.assert_refuses(done, "apply", listed(World.series["series"])[1], TAGS)


class Conflict(VerbTest):
    """A base to which the first two patches apply, but not the third, which needs the first."""

    def conflicting(self):
        kdir = self.kdir()
        commit(kdir, "Another vmx", {VMX: numbered("other")})
        write(os.path.join(kdir, "untracked"), "mine\n")
        return kdir

    def names_it(self, done, verb):
        self.assert_refuses(done, verb, listed(World.series["series"])[2], "does not apply", VMX)
        self.assertNotIn(SVM, [l for l in done.err.splitlines() if l.startswith(verb)][0], "the wrong file")

    def test_apply(self):
        kdir = self.conflicting()
        with self.unchanged(kdir):
            self.names_it(self.verb("apply", kdir), "apply")

    def test_apply_with_three_way_am(self):
        kdir = self.conflicting()
        git(kdir, "config", "am.threeWay", "true")
        with self.unchanged(kdir):
            self.names_it(self.verb("apply", kdir), "apply")

    def test_tree(self):
        kdir = self.conflicting()
        with self.unchanged(kdir):
            self.names_it(self.verb("tree", KDIR=kdir), "tree")

    def test_tree_on_a_detached_head(self):
        kdir = self.conflicting()
        git(kdir, "checkout", "-q", "--detach")
        with self.unchanged(kdir):
            self.names_it(self.verb("tree", KDIR=kdir), "tree")

    def test_build(self):
        kdir = self.conflicting()
        with self.unchanged(kdir):
            self.names_it(self.verb("build", "series", KDIR=kdir), "build")
        self.assertFalse(os.path.exists(self.path("build/obj")), "a build began")

    def test_a_file_that_is_gone(self):
        kdir = self.kdir()
        git(kdir, "rm", "-q", VMX)
        git(kdir, "commit", "-q", "-m", "No vmx")
        with self.unchanged(kdir):
            self.names_it(self.verb("apply", kdir), "apply")
