# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the commands that use the branch of scripts/tree: tree, export, sign, send."""
import email
import email.policy
import os
import re
import shutil
import signal
import subprocess

from world import BRANCH, NESTED, NEUTRAL, SVM, VerbTest, World, commit, finish, git, listed, ours, read, started, state, wait_until, write


class Branch(VerbTest):
    """The base class for tests of the branch that scripts/tree makes."""

    def setUp(self):
        super().setUp()
        self.repo = self.kdir()
        self.env["KDIR"] = self.repo

    def make_tree(self):
        done = self.verb("tree")
        self.assert_ok(done)
        self.assertEqual(done.out.strip(), self.repo)

    def user_config(self, text):
        path = os.path.join(self.dir, "gitconfig")
        write(path, read(World.env["GIT_CONFIG_GLOBAL"]) + text)
        self.env["GIT_CONFIG_GLOBAL"] = path

    def patches(self):
        return {n: t for n, t in self.source_files().items() if n.startswith(("patches/", "selftests/", "series"))}


class Tree(Branch):
    def test_good_series(self):
        with self.unchanged():
            self.make_tree()
        self.assertEqual(git(self.repo, "symbolic-ref", "--short", "HEAD"), BRANCH)
        self.assertEqual(git(self.repo, "rev-parse", BRANCH + "~4"), git(self.repo, "rev-parse", "main"))
        before = state(self.repo)
        self.make_tree()
        self.assertEqual(state(self.repo), before, "a second run changed something")

    def test_without_kdir(self):
        del self.env["KDIR"]
        done = self.verb("tree")
        self.assert_ok(done)
        self.assertEqual(done.out.strip(), self.path("build/linux"))
        self.assertEqual(git(self.path("build/linux"), "rev-list", "--count", "base/7.9.." + BRANCH), "4")

    def test_commit_that_patches_lack_is_kept(self):
        self.make_tree()
        mine = commit(self.repo, "Mine", {"tools/testing/selftests/kvm/mine.c": "mine\n"})
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree"), "tree", BRANCH, "scripts/export keeps it", "--reset drops it")
        git(self.repo, "checkout", "-q", "main")
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree"), "tree", "scripts/export keeps it")
        self.assert_ok(self.verb("tree", "--reset"))
        self.assertNotEqual(git(self.repo, "rev-parse", BRANCH), mine)
        self.assertEqual(git(self.repo, "rev-list", "--count", "main.." + BRANCH), "4")

    def test_reset_keeps_uncommitted_changes(self):
        self.make_tree()
        write(os.path.join(self.repo, SVM), "mine\n")
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree", "--reset"), "tree", "uncommitted changes")

    def test_reset_without_kdir_keeps_uncommitted_changes(self):
        del self.env["KDIR"]
        self.assert_ok(self.verb("tree"))
        write(self.path("build/linux", SVM), "mine\n")
        with self.unchanged(self.path("build/linux")):
            self.assert_refuses(self.verb("tree", "--reset"), "tree", "uncommitted changes")

    def test_reset_to_a_series_that_does_not_apply(self):
        self.make_tree()
        name = listed(World.series["series"])[1]
        write(self.path(name), World.series[name].replace(" int nested_18;\n", " int nested_eighteen;\n", 1))
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree", "--reset"), "tree", name, NESTED)

    def test_rebase_under_way(self):
        self.make_tree()
        git(self.repo, "-c", "sequence.editor=sed -i 1s/^pick/edit/", "rebase", "-q", "-i", "main", check=False)
        for args in ([], ["--reset"]):
            with self.unchanged(self.repo):
                self.assert_refuses(self.verb("tree", *args), "tree", "in the middle of")

    def test_rebase_under_way_without_kdir(self):
        del self.env["KDIR"]
        self.assert_ok(self.verb("tree"))
        repo = self.path("build/linux")
        git(repo, "-c", "sequence.editor=sed -i 1s/^pick/edit/", "rebase", "-q", "-i", "base/7.9", check=False)
        for args in ([], ["--reset"]):
            with self.unchanged(repo):
                self.assert_refuses(self.verb("tree", *args), "tree", "in the middle of")

    def test_a_branch_of_that_name_that_is_not_ours(self):
        git(self.repo, "checkout", "-q", "-b", BRANCH)
        commit(self.repo, "Mine", {"drivers/mine.c": "mine\n"})
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree"), "tree", BRANCH, "which scripts/tree did not make")
        git(self.repo, "checkout", "-q", "main")
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree"), "tree", BRANCH)

    def test_base_of_the_cache_is_damaged(self):
        del self.env["KDIR"]
        cache = os.path.join(self.dir, "cache")
        shutil.copytree(World.cache, cache, symlinks=True)
        self.set_base("7.10")
        with self.unchanged():
            self.assert_refuses(self.verb("tree", KVM_TLB_CACHE=cache), "tree", "damaged", "scripts/setup")
        shutil.rmtree(os.path.join(cache, "linux.git"))
        with self.unchanged():
            self.assert_refuses(self.verb("tree", KVM_TLB_CACHE=cache), "tree", "no base in the cache: run scripts/setup")
        self.assertFalse(os.path.exists(self.path("build/linux")))


class Export(Branch):
    def refused(self, *fragments):
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("export"), "export", *fragments)
        left = [n for n in os.listdir(self.path("build")) if n.startswith("export")]
        self.assertEqual(left, [], "half an export is left")

    def test_no_branch(self):
        self.refused("no branch " + BRANCH, "scripts/tree")

    def test_no_branch_without_kdir(self):
        del self.env["KDIR"]
        self.refused("no branch " + BRANCH, "scripts/tree")

    def test_branch_that_scripts_tree_did_not_make(self):
        git(self.repo, "checkout", "-q", "-b", BRANCH)
        self.refused("no branch " + BRANCH, "scripts/tree")

    def test_another_branch_is_checked_out(self):
        self.make_tree()
        git(self.repo, "checkout", "-q", "main")
        self.refused("not on branch " + BRANCH)

    def test_uncommitted_changes(self):
        self.make_tree()
        write(os.path.join(self.repo, SVM), "mine\n")
        self.refused("uncommitted changes")

    def test_signed_commits(self):
        self.make_tree()
        git(self.repo, "commit", "-q", "--amend", "-s", "--no-edit")
        self.refused("is signed off", "KVM: selftests: Name a number")

    def test_many_signed_commits(self):
        # Make so many that a writer fails if its reader stops after the first one.
        self.make_tree()
        for i in range(20):
            git(self.repo, "commit", "-q", "--allow-empty", "-s", "-m", f"Commit {i}")
        self.refused("is signed off")

    def test_kernel_commit_after_a_selftest(self):
        self.make_tree()
        commit(self.repo, "KVM: SVM: Late", {SVM: read(os.path.join(self.repo, SVM)) + "int late;\n"})
        self.refused("KVM: SVM: Late", "comes after a selftest of its part, two", "move it up")

    def test_kernel_commit_between_selftests(self):
        self.make_tree()
        text = read(os.path.join(self.repo, SVM))
        self.insert(3, "KVM: selftests: First", {"tools/testing/selftests/kvm/a.c": "int a;\n"})
        self.assert_ok(self.verb("export"), 'new in part two: "KVM: selftests: First"', "wrote 5 patches")
        self.insert(4, "KVM: SVM: Late", {SVM: text + "int late;\n"})
        self.refused("KVM: SVM: Late", "comes after a selftest of its part, two", "KVM: selftests: First")

    def insert(self, n, subject, files):
        """Insert a commit after the first n of the branch."""
        rest = git(self.repo, "rev-list", "--reverse", "main.." + BRANCH).split()[n:]
        git(self.repo, "reset", "-q", "--hard", f"{rest[0]}^")
        commit(self.repo, subject, files)
        git(self.repo, "cherry-pick", *rest)

    def test_new_commit_in_the_middle(self):
        self.make_tree()
        self.insert(1, "KVM: Mine", {"drivers/mine.c": "mine\n"})
        done = self.verb("export")
        self.assert_ok(done, 'new in part one: "KVM: Mine" (to change that, move its line in series, then run scripts/tree --reset)\nwrote 5 patches')
        names = [n[:12] for n in read(self.path("series")).splitlines()]
        self.assertEqual(names, ["# part one", "patches/0001", "patches/0002", "patches/0003", "# part two", "patches/0004", "selftests/00"])
        self.assert_ok(self.verb("export"), "nothing changed: 5 patches")

    def test_new_commit_goes_to_where_its_line_is_moved(self):
        self.make_tree()
        commit(self.repo, "KVM: selftests: Mine", {"tools/testing/selftests/kvm/mine.c": "mine\n"})
        self.assert_ok(self.verb("export"), 'new in part two: "KVM: selftests: Mine"')
        mine = "selftests/0002-KVM-selftests-Mine.patch\n"
        text = read(self.path("series"))
        self.assertIn(mine, text)
        write(self.path("series"), text.replace(mine, "").replace("# part two\n", mine + "# part two\n"))
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("tree"), "tree", "KVM: selftests: Mine", "belongs to part one", "part two", "scripts/tree --reset")
        self.refused("KVM: selftests: Mine", "belongs to part one", "part two", "scripts/tree --reset")
        self.assert_ok(self.verb("tree", "--reset"))
        self.assert_ok(self.verb("export"), "wrote 5 patches")
        self.assertEqual([n[:14] for n in read(self.path("series")).splitlines()],
                         ["# part one", "patches/0001-K", "patches/0002-K", "selftests/0001", "# part two", "patches/0003-K", "selftests/0002"])
        self.assert_ok(self.verb("export"), "nothing changed: 5 patches")
        # A kernel commit after this selftest now begins the next part.
        self.insert(3, "KVM: Mine", {"drivers/mine.c": "mine\n"})
        self.assert_ok(self.verb("export"), 'new in part two: "KVM: Mine"', "wrote 6 patches")

    def test_renamed_commits(self):
        self.make_tree()
        git(self.repo, "rebase", "-q", "--exec", 'git commit -q --amend -m "$(git log -1 --format=%s) again" -m Why', "main")
        # series lists none of the new subjects, so all commits join the first part.
        self.assert_ok(self.verb("export"), 'new in part one: "KVM: SVM: Name the first number again"', "part two has no commits left")
        self.assertEqual(len([l for l in read(self.path("series")).splitlines() if l.startswith("#")]), 1)

    def test_parts_out_of_order(self):
        self.make_tree()
        write(self.path("series"), re.sub(r"(?s)# part one\n(.*)# part two\n(.*)", r"# part two\n\2# part one\n\1", World.series["series"]))
        self.refused("KVM: VMX: Name the third number", "belongs to part two", "after one of part one", "KVM: nSVM: Put tags")

    def test_no_headings(self):
        self.make_tree()
        write(self.path("series"), "".join(n + "\n" for n in listed(World.series["series"])))
        self.refused("series has no heading", "# part NAME")

    def test_comments_stay_if_nothing_changed(self):
        self.make_tree()
        write(self.path("series"), "# why\n\n" + World.series["series"])
        before = self.patches()
        self.assert_ok(self.verb("export"), "nothing changed: 4 patches")
        self.assertEqual(self.patches(), before)
        self.assert_ok(self.verb("tree"))

    def test_a_patch_is_missing(self):
        # Export restores the patch, but its part is not known any more.
        self.make_tree()
        name = listed(World.series["series"])[1]
        os.remove(self.path(name))
        self.assert_ok(self.verb("export"), 'new in part one: "KVM: nSVM', "wrote 4 patches")
        self.assertEqual(read(self.path(name)), World.series[name])
        self.assertEqual(read(self.path("series")), World.series["series"])

    def test_merge(self):
        self.make_tree()
        git(self.repo, "checkout", "-q", "-b", "side", "main")
        commit(self.repo, "Side", {"drivers/side.c": "side\n"})
        git(self.repo, "checkout", "-q", BRANCH)
        git(self.repo, "merge", "-q", "--no-ff", "-m", "Merge", "side")
        self.refused("merges", "rebase")

    def test_empty_commit(self):
        self.make_tree()
        git(self.repo, "commit", "-q", "--allow-empty", "-m", "KVM: Nothing")
        self.refused("KVM: Nothing", "is empty")

    def test_equal_bytes(self):
        before = self.patches()
        self.make_tree()
        with self.unchanged(self.repo):
            self.assert_ok(self.verb("export"), "nothing changed: 4 patches")
        self.assertEqual(self.patches(), before)

    def test_equal_bytes_whatever_the_user_configured(self):
        self.make_tree()
        self.user_config("""
            [diff]
                noprefix = true
                algorithm = patience
                context = 5
                renames = false
                indentHeuristic = false
                suppressBlankEmpty = true
                statGraphWidth = 10
                external = /bin/false
            [color]
                ui = always
                diff = always
            [core]
                abbrev = 7
                quotePath = false
            [format]
                signature = Mine
                coverLetter = true
                suffix = .txt
                filenameMaxLength = 20
                numbered = true
                outputDirectory = elsewhere
                attach = mine
                thread = true
                useAutoBase = true
                notes = true
                headers = X-Mine: yes
                to = somebody@example.org
                cc = somebody@example.org
                from = true
                signOff = true
                pretty = oneline
                subjectPrefix = MINE
            [i18n]
                logOutputEncoding = latin1
        """)
        with self.unchanged(self.repo):
            self.assert_ok(self.verb("export"), "nothing changed: 4 patches")

    def test_commit_of_somebody_else(self):
        self.make_tree()
        git(self.repo, "reset", "-q", "--hard", "HEAD~1")
        before = {n: read(self.path(n)) for n in World.series if n.startswith("patches")}
        author = "Jörg-Ångström " + "Verylongname " * 8 + "<somebody@example.org>"
        commit(self.repo, "KVM: SVM: By somebody else", {SVM: read(os.path.join(self.repo, SVM)) + "int theirs;\n"}, author=author)
        self.assert_ok(self.verb("export"), "wrote 4 patches")
        new = "patches/0004-KVM-SVM-By-somebody-else.patch"
        self.assertEqual(listed(read(self.path("series"))), [*before, new])
        self.assertEqual({n: read(self.path(n)) for n in before}, before, "the other patches changed")
        self.assertEqual(os.listdir(self.path("selftests")), [], "the dropped selftest is still there")
        text = read(self.path(new))
        self.assertEqual(re.findall(r"(?m)^From: .*", text), ["From: " + NEUTRAL])
        self.assertNotIn("somebody@", text)
        self.assertNotIn("Verylongname", text)
        # A new tree must reproduce these files.
        self.assert_ok(self.verb("tree"))
        self.assert_ok(self.verb("export"), "nothing changed: 4 patches")

    def test_commit_that_touches_many_files(self):
        # A commit whose many selftests come before its kernel file is still a kernel patch.
        files = {f"tools/testing/selftests/kvm/a_rather_long_name_of_a_file_{i:04}.c": "int a;\n" for i in range(1500)}
        git(self.repo, "config", f"branch.{BRANCH}.kvmTlbBase", git(self.repo, "rev-parse", "HEAD"))
        git(self.repo, "checkout", "-q", "-b", BRANCH)
        commit(self.repo, "KVM: Many", {**files, "arch/x86/kvm/many.c": "int many;\n"})
        self.assert_ok(self.verb("export"), "wrote 1 patches")
        self.assertEqual(read(self.path("series")), "# part one\npatches/0001-KVM-Many.patch\n")


class Sign(Branch):
    def test_no_branch(self):
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("sign"), "sign", "no branch " + BRANCH, "scripts/tree")

    def test_no_git_identity(self):
        self.make_tree()
        with self.unchanged(self.repo):
            done = self.verb("sign", GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
        self.assert_refuses(done, "sign", "git has no name to sign with", "user.name")
        with self.unchanged(self.repo):
            done = self.verb("sign", GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="user.name",
                             GIT_CONFIG_VALUE_0="Somebody")
        self.assert_refuses(done, "sign", "git has no address to sign with", "user.email")

    def test_uncommitted_changes(self):
        self.make_tree()
        write(os.path.join(self.repo, SVM), "mine\n")
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("sign"), "sign", "uncommitted changes")

    def test_a_hook_that_refuses(self):
        self.make_tree()
        hook = os.path.join(self.repo, ".git/hooks/commit-msg")
        write(hook, "#!/bin/sh\nexit 1\n")
        os.chmod(hook, 0o755)
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("sign"), "sign", "could not rewrite the commits", "nothing was changed")

    def test_signs_once_and_last(self):
        self.make_tree()
        with self.unchanged():
            self.assert_ok(self.verb("sign"), "4 patches signed by Sender <sender@example.org>")
            self.assert_ok(self.verb("sign"), "4 patches signed by Sender <sender@example.org>")
        for c in git(self.repo, "rev-list", "main.." + BRANCH).split():
            lines = git(self.repo, "log", "-1", "--format=%B", c).split("\n")
            self.assertEqual(lines[-2:], ["Assisted-by: LLM", "Signed-off-by: Sender <sender@example.org>"])
            self.assertEqual(len([l for l in lines if l.startswith(("Signed", "Assisted"))]), 2)
            self.assertEqual(git(self.repo, "log", "-1", "--format=%an <%ae>", c), "Sender <sender@example.org>")
        # Signatures must not get into the project.
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("export"), "export", "is signed off")


class Send(Branch):
    def setUp(self):
        super().setUp()
        # All mail that leaves the machine would go through this program.
        self.sent = os.path.join(self.dir, "sent")
        mailer = os.path.join(self.dir, "mailer")
        write(mailer, f"#!/bin/sh\ncat >>'{self.sent}'\n")
        os.chmod(mailer, 0o755)
        self.user_config(f"[sendemail]\n\tsmtpserver = {mailer}\n")

    def tearDown(self):
        self.assertFalse(os.path.exists(self.sent), "a mail was sent")
        super().tearDown()

    def test_without_a_part(self):
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send"), "send", "which part? one (2 patches), two (2 patches)")

    def test_no_such_part(self):
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send", "three"), "send", "there is no part 'three' in series (choose from: one two)")

    def test_no_cover_letter(self):
        os.remove(self.path("docs/cover-letters/two.txt"))
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send", "two"), "send", "part two has no cover letter: write docs/cover-letters/two.txt")

    def test_no_branch(self):
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send", "one"), "send", "no branch " + BRANCH, "scripts/tree")

    def test_unsigned(self):
        self.make_tree()
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send", "one"), "send", "KVM: SVM: Name the first number", "Signed-off-by: Sender", "scripts/sign")
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send", "two", "--yes"), "send", "KVM: VMX: Name the third number", "scripts/sign")
        self.assertFalse(os.path.exists(self.path("build/mails")))

    def test_sign_a_part(self):
        self.make_tree()
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("sign", "three"), "sign", "there is no part 'three' in series (choose from: one two)")
        self.assert_ok(self.verb("sign", "two"), "2 patches signed by Sender <sender@example.org>")
        signed = ["Signed-off-by: Sender" in m for m in git(self.repo, "log", "--reverse", "-4", "--format=%B%x00").split("\0")[:4]]
        self.assertEqual(signed, [False, False, True, True])

    def test_signed_by_somebody_else(self):
        self.make_tree()
        self.assert_ok(self.verb("sign"))
        git(self.repo, "config", "user.name", "Another")
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("send", "one"), "send", "Signed-off-by: Another", "scripts/sign")

    def test_one_commit_unsigned(self):
        self.make_tree()
        self.assert_ok(self.verb("sign"))
        commit(self.repo, "KVM: selftests: Late", {"tools/testing/selftests/kvm/late.c": "int late;\n"})
        with self.unchanged(self.repo):
            done = self.verb("send", "two")
        self.assertEqual(done.status, 1, done)
        self.assertIn('new in part two: "KVM: selftests: Late"', done.err)
        self.assertRegex(done.err, r'(?m)^send: .*KVM: selftests: Late.* lacks .*scripts/sign$')

    def mails(self, part, count):
        """Prepare the mails of a part, check what all mails must have, and return them."""
        base, head = git(self.repo, "rev-parse", "main", BRANCH).split()
        with self.unchanged():
            done = self.verb("send", part, "--to", "reviewer@example.org")
        self.assert_ok(done, f"{count} mails in " + self.path("build/mails"), f"nothing was sent: read the mails, then run scripts/send {part} --yes")
        self.assertEqual(git(self.repo, "rev-parse", "main", BRANCH).split(), [base, head], "commits changed")
        self.assertEqual(git(self.repo, "symbolic-ref", "--short", "HEAD"), BRANCH)
        mails = []
        for name in sorted(os.listdir(self.path("build/mails"))):
            with open(self.path("build/mails", name), "rb") as f:
                mails.append(email.message_from_binary_file(f, policy=email.policy.default))
        self.assertEqual(len(mails), count)
        self.assertEqual(" ".join(mails[0]["Subject"].split()), f"[PATCH 0/{count - 1}] KVM: Part {part}")
        self.assertIn(f"\nbase-commit: {base}\n", mails[0].get_content())
        for m in mails:
            self.assertEqual(m["From"], "Sender <sender@example.org>")
            self.assertIn("reviewer@example.org", m["To"])
            self.assertIn("kvm@vger.kernel.org", (m["To"] or "") + (m["Cc"] or ""), "get_maintainer.pl was not asked")
            self.assertNotIn("kvm-tlb-tags@localhost", m.as_string())
        for m in mails[1:]:
            self.assertIn("Signed-off-by: Sender <sender@example.org>", m.get_content())
        return mails

    def test_mails(self):
        self.make_tree()
        self.assert_ok(self.verb("sign"))
        mails = self.mails("one", 3)
        self.assertIn("KVM: nSVM: Put tags", mails[2]["Subject"])
        self.assertNotIn("prerequisite", mails[0].get_content())
        self.assertNotIn("depends on", mails[0].get_content())
        mails = self.mails("two", 3)
        self.assertIn("KVM: VMX: Name the third number", mails[1]["Subject"])
        cover = mails[0].get_content()
        self.assertIn("What part two is about.\n\nThis part depends on the following ones, in this order:\n\n  one, 2 patches: KVM: Part one\n", cover)
        names = listed(World.series["series"])[:2]
        ids = [subprocess.run(["git", "patch-id", "--stable"], input=World.series[n].encode(), stdout=subprocess.PIPE, check=True).stdout.decode().split()[0]
               for n in names]
        self.assertEqual(re.findall("(?m)^prerequisite-patch-id: (.*)$", cover), ids)
        # Prepare the first part again, after its branch was used for the second.
        self.mails("one", 3)

    def test_ctrl_c(self):
        self.make_tree()
        self.assert_ok(self.verb("sign"))
        tools = os.path.join(self.dir, "tools")
        write(os.path.join(tools, "b4"), "#!/bin/sh\nsleep 1000\n")
        os.chmod(os.path.join(tools, "b4"), 0o755)
        with started(self.command("send", "one"), {**self.env, "PATH": tools + ":" + self.env["PATH"]}) as p:
            self.assertTrue(wait_until(lambda: "sleep 1000" in ours().values(), 30))
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
        self.assertNotEqual(done.status, 0)
        self.assertEqual(git(self.repo, "symbolic-ref", "--short", "HEAD"), BRANCH)
        self.assertEqual(git(self.repo, "status", "--porcelain"), "")
