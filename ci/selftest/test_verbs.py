#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""test_verbs.py [PATTERN...]: bad input to the verbs; called by scripts/test.

Each bad input must give one line that says what to do, a status other than 0, nothing half-made and nothing lost.  Most tests
run the verbs of a copy of this project, on a kernel of a few files with a series of its own; only the boots need products of
scripts/build.  One line per test, the counts in build/results/verbs.count, status 0 if no test failed.
"""
import collections
import contextlib
import csv
import ctypes
import email
import email.policy
import fcntl
import fnmatch
import hashlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid
from unittest import mock

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import bench    # pylint: disable=wrong-import-position
import matrix   # pylint: disable=wrong-import-position
os.environ.setdefault("CACHE", "")
import mutants  # pylint: disable=wrong-import-position
import tap      # pylint: disable=wrong-import-position
from clock import Clock     # pylint: disable=wrong-import-position

VERBS = sorted(os.listdir(os.path.join(TOP, "scripts")))
BRANCH = "kvm-tlb-tags"
NEUTRAL = "KVM TLB tags series <kvm-tlb-tags@localhost>"
# Every process that a verb starts inherits this, so that survivors are found, and nobody else's are taken for ours.
MARK = "KVM_TLB_TEST_RUN=" + uuid.uuid4().hex
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
# All limits here are for what hangs, in seconds that a busy machine makes longer.
CLOCK = Clock()

Done = collections.namedtuple("Done", "status out err")


class World:
    """What all tests share: made once, only read (or copied) afterwards."""
    tmp = None          # everything is in here
    env = None          # the environment of every verb
    kernel = None       # the small kernel repository, on its base
    series = None       # project files of the series that applies to it
    cache = None        # a cache that has the small kernel as its base
    real_cache = None


# --- processes

def environment(home):
    """Ours, without what the caller set for the verbs, for git, or for a desktop."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("KVM_TLB_", "GIT_", "XDG_")) and k not in ("KDIR", "VERBOSE", "EMAIL", "TMPDIR")}
    config = os.path.join(home, "gitconfig")
    with open(config, "w", encoding="utf-8") as f:
        # Nothing here has to survive a power cut.
        f.write("[user]\n\tname = Sender\n\temail = sender@example.org\n[init]\n\tdefaultBranch = main\n[core]\n\tfsync = none\n")
    name, _, value = MARK.partition("=")
    env.update(HOME=home, GIT_CONFIG_GLOBAL=config, GIT_CONFIG_SYSTEM=os.devnull, GIT_TERMINAL_PROMPT="0", LC_ALL="C",
               PYTHONDONTWRITEBYTECODE="1")
    env[name] = value
    return env


def die_with_us():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def started(args, env, cwd=None):
    """A process in a group of its own, as a shell with a terminal makes them; whatever happens, the group ends with the block."""
    p = subprocess.Popen(args, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         start_new_session=True, preexec_fn=die_with_us)
    try:
        yield p
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        p.stdout.close()
        p.stderr.close()


def finish(p, timeout=120):
    end = CLOCK.now() + timeout
    while True:
        try:
            out, err = p.communicate(timeout=1)
            break
        except subprocess.TimeoutExpired:
            if CLOCK.now() > end:
                raise
    return Done(p.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def run(args, env=None, cwd=None, timeout=120):
    with started(args, env or World.env, cwd) as p:
        return finish(p, timeout)


def ours():
    """Process id -> command line of what is left of the verbs that were started."""
    left = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if MARK.encode() not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        # A zombie has no command line, and waits only for its parent.
        if line:
            left[int(pid)] = line
    return left


def end_ours():
    for pid in ours():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition, seconds):
    end = CLOCK.now() + seconds
    while not condition():
        if CLOCK.now() > end:
            return False
        time.sleep(0.02)
    return True


# --- files and repositories

def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def git(repo, *args, check=True, **env):
    p = subprocess.run(["git", "-C", repo, *args], env={**World.env, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, check=False)
    text = p.stdout.decode(errors="replace")
    if check and p.returncode:
        raise AssertionError(f"git {' '.join(args)}: {text}")
    return text.strip()


def commit(repo, subject, files, author=NEUTRAL, body="A line that says why.\n"):
    for name, text in files.items():
        write(os.path.join(repo, name), text)
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "--no-verify", "--author", author, "-m", subject, "-m", body)
    return git(repo, "rev-parse", "HEAD")


def digest(top, skip=()):
    """Relative path -> content of every file below top."""
    found = {}
    for where, dirs, files in os.walk(top):
        dirs[:] = [d for d in dirs if os.path.relpath(os.path.join(where, d), top) not in skip]
        for name in files:
            path = os.path.join(where, name)
            if os.path.islink(path):
                found[os.path.relpath(path, top)] = os.readlink(path)
            else:
                with open(path, "rb") as f:
                    found[os.path.relpath(path, top)] = hashlib.sha256(f.read()).hexdigest()
    return found


def state(repo):
    """What a user has in a repository: branches, where HEAD is, every file, what is staged, what is under way."""
    if not os.path.isdir(os.path.join(repo, ".git")):
        return digest(repo) if os.path.isdir(repo) else None
    return {
        "head": git(repo, "symbolic-ref", "-q", "HEAD", check=False) + " " + git(repo, "rev-parse", "HEAD", check=False),
        "refs": git(repo, "for-each-ref"),
        "status": git(repo, "status", "--porcelain", "--ignored", check=False),
        "config": read(os.path.join(repo, ".git/config")),
        "under way": [n for n in os.listdir(os.path.join(repo, ".git"))
                      if n.startswith("rebase-") or n.endswith((".lock", "MERGE_HEAD"))],
        "files": digest(repo, skip=(".git",)),
    }


def numbered(name, lines=60):
    return "".join(f"int {name}_{i};\n" for i in range(1, lines + 1))


def edited(text, line, words):
    """text with its given line, counted from 1, replaced."""
    lines = text.splitlines(keepends=True)
    lines[line - 1] = words + "\n"
    return "".join(lines)


SVM, NESTED, VMX = (f"arch/x86/kvm/{f}.c" for f in ("svm/svm", "svm/nested", "vmx/vmx"))
TAGS = "arch/x86/kvm/svm/tags.c"
SELFTEST = "tools/testing/selftests/kvm/x86/first_test.c"


def makefile(version, patchlevel):
    return f"# SPDX-License-Identifier: GPL-2.0\nVERSION = {version}\nPATCHLEVEL = {patchlevel}\nSUBLEVEL = 0\n"


def kernel_files():
    """The least that the verbs, b4, get_maintainer.pl and checkpatch.pl take for a kernel tree."""
    files = {f: "text\n" for f in ("COPYING", "CREDITS", "Kbuild", "Kconfig", "README", "Documentation/index.rst", "include/a.h",
                                   "drivers/a.c", "fs/a.c", "init/a.c", "ipc/a.c", "kernel/a.c", "lib/a.c")}
    files["Makefile"] = makefile(7, 9)
    # ci/lib/kernel.sh looks for the series' options.
    files["arch/x86/kvm/Kconfig"] = "config KVM\n\tbool\n"
    for path in (SVM, NESTED, VMX, SELFTEST):
        files[path] = "// SPDX-License-Identifier: GPL-2.0\n" + numbered(os.path.basename(path)[:-2])
    return files


def link_or_copy(old, new):
    try:
        os.link(old, new)
    except OSError:
        shutil.copy(old, new)


def clone(to, repo=None):
    subprocess.run(["git", "clone", "-q", repo or World.kernel, to], env=World.env, check=True)
    git(to, "remote", "remove", "origin")
    return to


def listed(series):
    """The patches that the text of a series file names."""
    return [l for l in series.splitlines() if l and not l.startswith("#")]


def format_patches(repo, base, parts=(("whole", None),)):
    """The files that scripts/export has to write for the commits after base: numbered by directory, in git's plain form.

    parts: (name, number of commits) of each; None: the rest.
    """
    files, lines, count = {}, [], collections.Counter()
    heads = [name for name, n in parts for name in [name] + [None] * ((n or 1) - 1)]
    for c in git(repo, "rev-list", "--reverse", base + "..HEAD").split():
        where = "selftests" if "tools/testing" in git(repo, "show", "--name-only", "--format=", c) else "patches"
        count[where] += 1
        with tempfile.TemporaryDirectory(dir=World.tmp) as tmp:
            path = git(repo, "-c", "core.abbrev=12", "format-patch", "-q", "-1", "-N", "--zero-commit", "--no-signature",
                       "--start-number", str(count[where]), "-o", tmp, c) or os.path.join(tmp, os.listdir(tmp)[0])
            name = f"{where}/{os.path.basename(path)}"
            files[name] = read(path)
            head = heads.pop(0) if heads else None
            lines += [f"# part {head}"] * bool(head) + [name]
    files["series"] = "".join(l + "\n" for l in lines)
    return files


def make_world():
    World.tmp = tempfile.mkdtemp(prefix="test-verbs.")
    home = os.path.join(World.tmp, "home")
    os.mkdir(home)
    World.env = environment(home)
    World.real_cache = subprocess.run(["bash", "-c", '. "$0/ci/lib/common.sh"; echo "$CACHE"', TOP], stdout=subprocess.PIPE,
                                      check=True).stdout.decode().strip()
    World.kernel = os.path.join(World.tmp, "kernel")
    subprocess.run(["git", "init", "-q", World.kernel], env=World.env, check=True)
    files = kernel_files()
    # The real ones, from the base that scripts/setup imported.
    bare = os.path.join(World.real_cache, "linux.git")
    version = os.path.join(World.real_cache, "base-version")
    if not os.path.exists(version):
        raise SystemExit("test_verbs.py: no base in the cache: run scripts/setup")
    tag = "base/" + read(version).strip()
    for name in ("MAINTAINERS", "scripts/get_maintainer.pl", "scripts/checkpatch.pl", "scripts/spelling.txt",
                 "scripts/const_structs.checkpatch"):
        files[name] = subprocess.run(["git", "--git-dir", bare, "show", f"{tag}:{name}"], stdout=subprocess.PIPE,
                                     check=True).stdout.decode()
    for name in ("scripts/get_maintainer.pl", "scripts/checkpatch.pl"):
        write(os.path.join(World.kernel, name), files[name])
        os.chmod(os.path.join(World.kernel, name), 0o755)
    base = commit(World.kernel, "Linux 7.9", files)
    git(World.kernel, "tag", "base/7.9", base)

    # A series in which the third patch stands on the first, the second makes a file, the last is a selftest.
    work = clone(os.path.join(World.tmp, "series"))
    svm = edited(files[SVM], 10, "int svm_first;")
    commit(work, "KVM: SVM: Name the first number", {SVM: svm})
    commit(work, "KVM: nSVM: Put tags into a file of their own", {
        NESTED: edited(files[NESTED], 20, "int nested_second;"), TAGS: "// SPDX-License-Identifier: GPL-2.0\nint tags;\n"})
    commit(work, "KVM: VMX: Name the third number", {SVM: edited(svm, 11, "int svm_third;"), VMX: edited(files[VMX], 30, "int vmx_third;")})
    commit(work, "KVM: selftests: Name a number", {SELFTEST: edited(files[SELFTEST], 5, "int selftest_first;")})
    World.series = format_patches(work, base, (("one", 2), ("two", 2)))

    World.cache = os.path.join(World.tmp, "cache")
    os.mkdir(World.cache)
    subprocess.run(["git", "clone", "-q", "--bare", World.kernel, os.path.join(World.cache, "linux.git")], env=World.env, check=True)
    write(os.path.join(World.cache, "base-version"), "7.9\n")
    for name in ("qemu", "qemu-version", "tools"):
        os.symlink(os.path.join(World.real_cache, name), os.path.join(World.cache, name))


HAZARDS = """# Hazards

## A group

### H1: a flush is forgotten
The guest sees what it must not see.
- Rule: KVM flushes.
- Patches: `KVM: SVM: Name the first number`,
  `KVM: nSVM: Put tags into a file of their own`
- Tests: `small_test: first_case, other_case`, `state_test`, `small_suite: small_kunit_case`, `bench: nested-w16`
- Mutants: `first`, `both`

### C1: nobody can tell
Nothing happens.
- Rule: none.
- No patch: nothing to do.
- Tests: `state_test`
- Mutants: `both`

### C2: nobody can do anything
Nothing happens, either.
- Rule: nothing.
- No patch: nothing to do.
- No test: nothing to see.
- No mutant: nothing to break.
"""
# The lines of patches that add a selftest and a KUnit test, as far as ci/checks/hazards.py looks at them.
CASES = {
    "selftests/0009-small.patch": """Subject: [PATCH] KVM: selftests: Add a test

diff --git a/tools/testing/selftests/kvm/x86/small_test.c b/tools/testing/selftests/kvm/x86/small_test.c
--- /dev/null
+++ b/tools/testing/selftests/kvm/x86/small_test.c
@@ -0,0 +1,2 @@
+KVM_ONE_VCPU_TEST(small, first_case, guest_code)
+TEST_F(small, other_case)
""",
    "patches/0009-small.patch": """Subject: [PATCH] KVM: x86: Add a KUnit test

diff --git a/arch/x86/kvm/small_test.c b/arch/x86/kvm/small_test.c
--- /dev/null
+++ b/arch/x86/kvm/small_test.c
@@ -0,0 +1,2 @@
+	KUNIT_CASE(small_kunit_case),
+	.name = "small_suite",
"""}


class VerbTest(unittest.TestCase):
    """A copy of the project with the small series, a clone of the small kernel, and assertions about verbs."""
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=World.tmp)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.tmpdir = os.path.join(self.dir, "tmp")
        os.mkdir(self.tmpdir)
        self.project = os.path.join(self.dir, "project")
        skip = {os.path.join(TOP, d) for d in ("build", ".git")}
        shutil.copytree(TOP, self.project, symlinks=True,
                        ignore=lambda d, names: [n for n in names if os.path.join(d, n) in skip or n == "__pycache__"])
        self.set_series(World.series)
        shutil.rmtree(self.path("docs/cover-letters"))
        for name in ("one", "two"):
            write(self.path("docs/cover-letters", name + ".txt"), f"KVM: Part {name}\n\nWhat part {name} is about.\n")
        # Port 9 of this machine: nobody listens, so a verb that should not need the network does not find one either.
        self.env = {**World.env, "KVM_TLB_CACHE": World.cache, "TMPDIR": self.tmpdir, "KVM_TLB_MIRROR": "http://127.0.0.1:9/debian"}
        self.addCleanup(end_ours)

    def tearDown(self):
        wait_until(lambda: not ours(), 2)
        self.assertEqual(ours(), {}, "processes are left")
        self.assertEqual(os.listdir(self.tmpdir), [], "temporary files are left")
        self.assertTrue(self.lock_is_free(), "the lock is still held")

    # what tests are made of

    def path(self, *names):
        return os.path.join(self.project, *names)

    def set_series(self, files):
        for d in ("patches", "selftests"):
            shutil.rmtree(self.path(d), ignore_errors=True)
            os.mkdir(self.path(d))
        for name, text in files.items():
            write(self.path(name), text)

    def set_hazards(self):
        """A page of hazards, and mutants, that go with the small series; the project's own page names its own patches."""
        write(self.path("docs/hazards.md"), HAZARDS)
        for name in os.listdir(self.path("ci/mutants")):
            os.remove(self.path("ci/mutants", name))
        write(self.path("ci/mutants/000-switch.patch"), "What switches the others on.\n\n")
        write(self.path("ci/mutants/010-first.patch"), "Rule: one\nHazard: H1\nTests: state_test\n\n")
        write(self.path("ci/mutants/020-both.patch"), "Rule: two\nHazard: H1, C1\nTests: state_test\n\n")

    def command(self, verb, *args):
        return [self.path("scripts", verb), *args]

    def verb(self, verb, *args, timeout=120, **env):
        return run(self.command(verb, *args), {**self.env, **env}, timeout=timeout)

    def kdir(self, name="kdir"):
        return clone(os.path.join(self.dir, name))

    def lock_is_free(self):
        try:
            with open(self.path("build/.lock"), "r", encoding="utf-8") as f:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            return False
        return True

    def source_files(self):
        return digest(self.project, skip=("build",))

    # what they assert

    def assert_ok(self, done, *fragments):
        self.assertEqual(done.status, 0, done)
        for f in fragments:
            self.assertIn(f, done.out + done.err)

    def assert_refuses(self, done, verb, *fragments, status=None):
        """One line on standard error, the verb's, with the fragments; details that belong to it are indented."""
        if status is None:
            self.assertGreater(done.status, 0, done)
            self.assertLess(done.status, 125, done)
        else:
            self.assertEqual(done.status, status, done)
        # "base: ..." is what scripts/setup and scripts/build say of their progress.
        lines = [l for l in done.err.splitlines() if not l.startswith(("    ", "base: "))]
        self.assertEqual(len(lines), 1, f"not one line: {done}")
        self.assertTrue(lines[0].startswith(verb + ": "), lines[0])
        for f in fragments:
            self.assertIn(f, lines[0])
        self.assertNotIn("Traceback", done.out + done.err)

    @contextlib.contextmanager
    def unchanged(self, *repos):
        """Nothing of the project but build/ changes in the block, and nothing at all of the repositories."""
        before = self.source_files(), [state(r) for r in repos]
        yield
        self.assertEqual(self.source_files(), before[0])
        for repo, was in zip(repos, before[1]):
            self.assertEqual(state(repo), was)


# --- arguments

class Arguments(VerbTest):
    BAD = {
        "setup": [["--bogus"], ["--update", "--bogus"]],
        "build": [["--bogus"], ["basis"], ["--config"], ["--config", "nosuch"]],
        "run": [["--bogus"], ["--kernel"], ["--kernel", "nosuch"], ["state_test", "--bogus"], ["--level", "2"], ["--pcpus"], ["--model", "strict"]],
        "test": [["--bogus"], ["bogus"], ["--all", "run"], ["run", "--bogus"]],
        "mutants": [["--bogus"], ["nosuch"]],
        "bench": [["--bogus"], ["nosuch"], ["--quick", "nosuch"], ["--record", "--quick"], ["--record", "pinned"]],
        "boot": [["--bogus"], ["--level"], ["--level", "2"], ["--kernel", "nosuch"], ["--config", "nosuch"], ["--model", "nosuch"],
                 ["--cpus", "many", "--", "true"], ["--cpus", "0", "--", "true"], ["--timeout", "soon", "--", "true"], ["true"]],
        "tree": [["--bogus"], ["--reset", "--bogus"]],
        "export": [["--bogus"]],
        "check": [["--bogus"], ["--quick", "--bogus"]],
        "apply": [[], ["--bogus"], ["one", "two", "three"], [".", "nosuch"], [".", "--bogus"]],
        "sign": [["--bogus"], ["one", "two"]],
        "send": [["--bogus"], ["--to"], ["nosuch"], ["one", "two"], ["one", "--bogus"], ["one", "--to"]],
        "help": [["--bogus"]],
    }

    def test_every_verb_is_here(self):
        self.assertEqual(sorted(self.BAD), VERBS)

    def help_of(self, verb):
        for option in ("--help", "-h"):
            with self.unchanged():
                done = self.verb(verb, option)
            self.assertEqual((done.status, done.err), (0, ""))
            lines = done.out.splitlines()
            self.assertRegex(lines[0], rf"^scripts/{verb}\b")
            self.assertLessEqual(len(lines), 8)
            self.assertFalse(os.path.exists(self.path("build")), "--help makes files")

    def bad_arguments(self, verb):
        for args in self.BAD[verb]:
            with self.subTest(args=args), self.unchanged():
                done = self.verb(verb, *args)
                self.assert_refuses(done, verb)
                self.assertEqual(done.out, "")
                # The line says which argument it is about, if there is one.
                if args:
                    self.assertRegex(done.err, "|".join(re.escape(a) for a in args) + "|--help")

    def test_help_lists_the_verbs_in_order(self):
        done = self.verb("help")
        self.assertEqual(done.status, 0, done)
        named = re.findall(r"^scripts/(\w+)", done.out, re.M)
        self.assertEqual(sorted(named + ["help"]), VERBS)
        self.assertLess(named.index("setup"), named.index("build"))
        self.assertLess(named.index("sign"), named.index("send"))

    def test_from_another_directory(self):
        done = run([os.path.relpath(self.path("scripts/help"), self.dir)], self.env, cwd=self.dir)
        self.assert_ok(done, "scripts/tree")


for _verb in VERBS:
    setattr(Arguments, f"test_help_of_{_verb}", lambda self, v=_verb: self.help_of(v))
    setattr(Arguments, f"test_bad_arguments_of_{_verb}", lambda self, v=_verb: self.bad_arguments(v))


# --- setup

class Setup(VerbTest):
    def test_no_network(self):
        cache = os.path.join(self.dir, "empty")
        os.mkdir(cache)
        # apt would wait between its attempts.
        write(os.path.join(self.dir, "apt.conf"), 'Acquire::Retries::Delay "false";\n')
        with self.unchanged():
            done = self.verb("setup", KVM_TLB_CACHE=cache, APT_CONFIG=os.path.join(self.dir, "apt.conf"))
        self.assert_refuses(done, "setup", "cannot reach the Debian mirror", "KVM_TLB_MIRROR")
        self.assertFalse(os.path.exists(os.path.join(cache, "linux.git")))
        self.assertFalse(os.path.exists(os.path.join(cache, "base-version")))
        self.assertFalse(os.path.exists(os.path.join(cache, "qemu-version")))
        # Nothing that a later run could take for a product.
        halves = [f for f in digest(cache) if re.search(r"import\.|\.new|\.deb$|\.tar|get\.", f)]
        self.assertEqual(halves, [])
        self.assertEqual(os.listdir(os.path.join(cache, "tools")), [])

    def test_needs_no_network_when_all_is_there(self):
        with self.unchanged():
            done = self.verb("setup")
        self.assert_ok(done, "base: 7.9")

    def test_disk_is_full(self):
        cache = os.path.join(self.dir, "small")
        with self.unchanged():
            done = self.verb("setup", KVM_TLB_CACHE=cache, KVM_TLB_MIN_KB=str(1 << 50))
        self.assert_refuses(done, "setup", cache, "MB free", "KVM_TLB_CACHE")
        self.assertEqual(done.out, "", "a step ran")
        self.assertEqual(digest(cache), {})


# --- KDIR

class BadKdir(VerbTest):
    """Each kind of directory that cannot be a base, with each verb that takes one."""

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
        return self.other_git({NESTED: "text\n", "Makefile": makefile(6, 18)}), "is Linux 6.18, too old"

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
        # A patch of the user's own that stopped.
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


class Apply(VerbTest):
    def test_good_series(self):
        kdir = self.kdir()
        with self.unchanged():
            done = self.verb("apply", kdir)
        self.assert_ok(done, "4 patches applied")
        self.assertEqual(git(kdir, "rev-list", "--count", "base/7.9..main"), "4")
        self.assertEqual(git(kdir, "symbolic-ref", "--short", "HEAD"), "main")
        self.assertEqual(git(kdir, "status", "--porcelain"), "")
        # Who applies is the committer; the author stays.
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
        # The maintainer signs them, and has patches of others on top.
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
            # Without useConfigOnly git makes up a name from the machine's.
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
    """A base to which the third patch does not apply, though the first two do and the third needs the first."""

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


# --- the series

class BadSeries(VerbTest):
    """Each way in which patches/ and series can be wrong, with each verb that reads them."""

    def setUp(self):
        super().setUp()
        self.names = listed(World.series["series"])

    def make_corrupt(self):
        # A line of the hunk is gone: its header counts one more.
        text = read(self.path(self.names[1]))
        write(self.path(self.names[1]), text.replace("+int nested_second;\n", "", 1))
        return self.names[1], "does not apply"

    def make_edited(self):
        text = read(self.path(self.names[1]))
        write(self.path(self.names[1]), text.replace(" int nested_18;\n", " int nested_eighteen;\n", 1))
        return self.names[1], "does not apply", NESTED

    def make_not_a_patch(self):
        write(self.path(self.names[0]), "text\n")
        return self.names[0], "does not apply"

    def make_empty(self):
        write(self.path(self.names[1]), "")
        return self.names[1], "missing or empty"

    def make_missing(self):
        os.remove(self.path(self.names[1]))
        return self.names[1], "missing or empty"

    def make_unlisted(self):
        write(self.path("patches/0009-mine.patch"), "text\n")
        return "patches/0009-mine.patch", "not in series"

    def make_listed_but_not_there(self):
        write(self.path("series"), World.series["series"] + "patches/0009-not-here.patch\n")
        return "patches/0009-not-here.patch", "missing or empty"

    def make_listed_twice(self):
        write(self.path("series"), World.series["series"] + self.names[0] + "\n")
        return self.names[0], "twice"

    def make_no_series(self):
        os.remove(self.path("series"))
        return ("series",)

    def make_no_heading(self):
        write(self.path("series"), "".join(n + "\n" for n in self.names))
        return self.names[0], "is not in a part", "# part NAME"

    def make_heading_below(self):
        write(self.path("series"), self.names[0] + "\n" + World.series["series"].replace(self.names[0] + "\n", ""))
        return self.names[0], "is not in a part"

    def make_heading_twice(self):
        write(self.path("series"), World.series["series"].replace("# part two", "# part one"))
        return '"# part one" twice',

    def make_bad_heading(self):
        write(self.path("series"), World.series["series"].replace("# part two", "# part the second"))
        return '"# part the second" is not a heading', "# part NAME"

    def make_empty_part(self):
        write(self.path("series"), World.series["series"].replace("# part two", "# part none\n# part two"))
        return "part none", "has no patches"

    def make_empty_last_part(self):
        write(self.path("series"), World.series["series"] + "# part none\n")
        return "part none", "has no patches"

    def make_kernel_patch_after_a_selftest(self):
        write(self.path("series"), "# part one\n" + "".join(self.names[i] + "\n" for i in (0, 1, 3, 2)))
        return self.names[2], "after a selftest of its part, one", self.names[3]

    def refused(self, verb, make):
        words = make()
        kdir = self.kdir()
        with self.unchanged(kdir):
            if verb == "apply":
                done = self.verb(verb, kdir)
            elif verb == "build":
                done = self.verb(verb, "series", KDIR=kdir)
            else:
                done = self.verb(verb, KDIR=kdir)
        self.assert_refuses(done, verb, *words)
        self.assertFalse(os.path.exists(self.path("build/obj")), "a build began")

    def check(self, make):
        words = make()
        self.set_hazards()
        # The scripts are the same in all of these tests.
        tools = os.path.join(self.dir, "tools")
        os.mkdir(tools)
        os.symlink("/bin/true", os.path.join(tools, "shellcheck"))
        with self.unchanged():
            done = self.verb("check", "--quick", PATH=tools + ":" + self.env["PATH"])
        self.assertEqual(done.status, 1, done)
        # A verdict on the patches, or a refusal to begin; either names the patch.
        for w in words:
            self.assertIn(w, done.out + done.err)
        if "FAILED" not in done.out:
            self.assert_refuses(done, "check", *words)
        else:
            self.assertRegex(done.out, r"(?m)^check: \d+ passed, [1-9]\d* failed$")

    def test_last_line_without_a_newline(self):
        write(self.path("series"), World.series["series"].rstrip("\n"))
        self.assert_ok(self.verb("apply", self.kdir()), "4 patches applied")

    def test_comments_and_empty_lines(self):
        write(self.path("series"), "# why\n\n" + World.series["series"])
        self.assert_ok(self.verb("apply", self.kdir()), "4 patches applied")


for _make in [n for n in dir(BadSeries) if n.startswith("make_")]:
    for _verb in ("apply", "tree", "build"):
        setattr(BadSeries, f"test_{_make[5:]}_{_verb}", lambda self, v=_verb, m=_make: self.refused(v, getattr(self, m)))
    if _make not in ("make_edited", "make_not_a_patch"):
        # These two are to scripts/check what make_corrupt is.
        setattr(BadSeries, f"test_{_make[5:]}_check", lambda self, m=_make: self.check(getattr(self, m)))


class Check(VerbTest):
    def test_good_series(self):
        # The small series has to pass for the refusals of BadSeries to mean anything.
        self.set_hazards()
        write(self.path("docs/hazards.md"), re.sub(r"(?m)^- Tests: .*", "- Tests: `state_test`", HAZARDS))
        with self.unchanged():
            done = self.verb("check", "--quick")
        self.assertEqual(done.status, 0, done)
        self.assertRegex(done.out, r"(?m)^check: \d+ passed, 0 failed$")
        self.assertEqual(read(self.path("build/results/check.count")).split()[1:], ["0", "0"])

    def test_part_without_a_cover_letter(self):
        os.remove(self.path("docs/cover-letters/two.txt"))
        done = self.verb("check", "--quick")
        self.assertEqual(done.status, 1, done)
        self.assertIn("part two has no cover letter: write docs/cover-letters/two.txt", done.out)

    def builds(self, part="exit 0", *options):
        """scripts/check with builds that do nothing, and this in place of ci/checks/part."""
        self.set_hazards()
        write(self.path("docs/hazards.md"), re.sub(r"(?m)^- Tests: .*", "- Tests: `state_test`", HAZARDS))
        for name, text in {"ci/checks/patch": 'echo "$1" >>build/built', "ci/checks/part": part, "ci/checks/variant": 'echo "$@" >>build/variants',
                           "scripts/build": "exit 0"}.items():
            write(self.path(name), f'#!/bin/bash\ncd "$(dirname "$0")/.."\n{text}\n')
        return self.verb("check", *options)

    def test_variants(self):
        done = self.builds()
        self.assertEqual(done.status, 0, done)
        both = ["no-hyperv no-sev no-smm no-xen", "builtin on-hyperv"]
        self.assertEqual(read(self.path("build/variants")).splitlines(), both)
        os.remove(self.path("build/variants"))
        done = self.builds("exit 0", "--all")
        self.assertEqual(done.status, 0, done)
        self.assertEqual(read(self.path("build/variants")).splitlines(), both + sorted(" ".join(both).split()))

    def test_tests_come_after_the_last_patch_of_each_part_but_the_last(self):
        # Two selftests, one in the middle.
        names = listed(World.series["series"])
        write(self.path("series"), "".join(l + "\n" for l in ("# part one", names[0], names[3], "# part two", *names[1:3])))
        done = self.builds('echo part "$1" >>build/built')
        self.assertEqual(done.status, 0, done)
        self.assertEqual(read(self.path("build/built")).split("\n"), ["0", "1", "part one", "3", "4", ""])
        self.assertIn("tests of part one: done", done.out)

    def test_skipped_tests_are_no_passed_ones(self):
        done = self.builds('mkdir -p build/results; echo "a_test (1 pCPU): no reason" >"build/results/part-$1.skipped"')
        self.assertEqual(done.status, 0, done)
        self.assertIn("    skipped: a_test (1 pCPU): no reason\n", done.out)
        self.assertRegex(done.out, r"(?m)^check: \d+ passed, 0 failed, 1 skipped$")
        self.assertEqual(read(self.path("build/results/check.count")).split()[1:], ["0", "1"])

    def test_tests_of_a_part_fail(self):
        done = self.builds('echo "FAIL: series L0 1 pCPU a_test: why"; exit 1')
        self.assertEqual(done.status, 1, done)
        self.assertRegex(done.out, r"tests of part one: FAILED(.*\n)+    FAIL: series L0 1 pCPU a_test: why")

    def skipped(self, own, *rows):
        path = os.path.join(self.dir, "selftests.tsv")
        write(path, "test\tpcpus\toutcome\tnote\n" + "".join("\t".join(r) + "\n" for r in rows))
        return run([self.path("ci/checks/skipped.py"), path, own], self.env)

    def test_a_part_of_which_all_is_skipped(self):
        old, new, skip = ("old npt=0", "2", "pass", ""), ("new npt=0", "2", "pass", ""), ("new", "1", "skip", "no NPT")
        self.assertEqual(self.skipped("x86/new,x86/other", old, skip, new), (0, "new (1 pCPU): no NPT\n", ""))
        self.assertEqual(self.skipped("", old, skip)[0], 0)
        for rows in ([old, skip], [old], []):
            done = self.skipped("x86/new", *rows)
            self.assertEqual(done.status, 1)
            self.assertIn("FAIL: no test of new passed", done.err)

    def test_ctrl_c_ends_all_of_it(self):
        script = self.path("ci/checks/export")
        write(script, "#!/bin/sh\nsleep 1000\n")
        with started(self.command("check", "--quick"), self.env) as p:
            self.assertTrue(wait_until(lambda: "sleep 1000" in ours().values(), 30))
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
        self.assertNotEqual(done.status, 0)
        self.assertIn("interrupted", done.out)
        self.assertNotIn("checkpatch", done.out, "it went on with the next step")


class Hazards(VerbTest):
    """docs/hazards.md against patches, tests and mutants: each mistake is one line that says where it is, and what to do."""

    def setUp(self):
        super().setUp()
        self.set_hazards()
        for name, text in CASES.items():
            write(self.path(name), text)

    def hazards(self):
        with self.unchanged():
            return run([sys.executable, self.path("ci/checks/hazards.py")], self.env)

    def edited(self, old, new, *fragments, path="docs/hazards.md"):
        text = read(self.path(path))
        self.assertIn(old, text)
        write(self.path(path), text.replace(old, new, 1))
        self.assert_refuses(self.hazards(), "hazards", *fragments, status=1)

    def test_good_page(self):
        self.assert_ok(self.hazards(), "3 hazards, 2 mutants")

    def test_of_the_project(self):
        self.assert_ok(run([sys.executable, os.path.join(TOP, "ci/checks/hazards.py")], self.env))

    def test_mutant_that_is_not_there(self):
        self.edited("`first`, `both`", "`first`, `both`, `last`", "H1", "no mutant last")

    def test_mutant_without_a_hazard(self):
        write(self.path("ci/mutants/030-idle.patch"), "Rule: none\nTests: state_test\n\n")
        self.assert_refuses(self.hazards(), "hazards", "030-idle.patch", "add a line Hazard: H1", status=1)

    def test_mutant_with_a_hazard_in_its_diff_only(self):
        write(self.path("ci/mutants/030-idle.patch"), "Rule: none\n\ndiff --git a/a b/a\nHazard: H1\n")
        self.assert_refuses(self.hazards(), "hazards", "030-idle.patch", "add a line Hazard: H1", status=1)

    def test_mutant_of_an_unknown_hazard(self):
        self.edited("Hazard: H1, C1", "Hazard: H1, C1, H7", "020-both.patch", "H7", path="ci/mutants/020-both.patch")

    def test_mutant_that_its_hazard_does_not_name(self):
        self.edited("`first`, `both`", "`first`", "020-both.patch", "add `both`", "H1")

    def test_mutant_that_does_not_name_its_hazard(self):
        self.edited("Hazard: H1, C1", "Hazard: H1", "C1", "add C1", "020-both.patch", path="ci/mutants/020-both.patch")

    def test_mutant_that_another_test_has_to_notice(self):
        self.edited("Tests: state_test", "Tests: state_tes[t]@1 smm_test*npt=0*@1", "010-first.patch", "smm_test", "no test of H1",
                    path="ci/mutants/010-first.patch")

    def test_malformed_identifier(self):
        self.edited("Hazard: H1, C1", "Hazard: H1, C1, none", "020-both.patch", "Hazard: H1", path="ci/mutants/020-both.patch")

    def test_subject_that_no_patch_has(self):
        self.edited("the first number", "the zeroth number", "H1", "KVM: SVM: Name the zeroth number")

    def test_test_that_is_not_there(self):
        self.edited("- No test: nothing to see.", "- Tests: `no_test`", "C2", "no test no_test")

    def test_case_that_is_not_there(self):
        self.edited("other_case", "no_case", "H1", "no case no_case of small_test")
        write(self.path("docs/hazards.md"), HAZARDS)
        self.edited("small_kunit_case", "no_case", "H1", "no case no_case of small_suite")
        write(self.path("docs/hazards.md"), HAZARDS)
        # Nobody knows the cases of a test that the series doesn't have.
        self.edited("`state_test`", "`state_test: no_case`", "H1", "no case no_case of state_test")

    def test_scenario_that_is_not_there(self):
        self.edited("nested-w16", "no-scenario", "H1", "no scenario no-scenario")

    def test_no_reason(self):
        self.edited("- No test: nothing to see.", "- No test:", "C2", '"No test" with a reason')
        write(self.path("docs/hazards.md"), HAZARDS)
        self.edited("- No patch: nothing to do.\n", "", "C1", "No patch")
        write(self.path("docs/hazards.md"), HAZARDS)
        self.edited("- No mutant: nothing to break.\n", "", "C2", "No mutant")

    def test_names_nothing(self):
        self.edited("- No test: nothing to see.", "- Tests: state_test", "C2", '"Tests" names nothing')

    def test_tests_and_no_test(self):
        self.edited("- No test: nothing to see.", "- No test: nothing to see.\n- Tests: `state_test`", "C2", "remove one")

    def test_does_not_say_what_goes_wrong(self):
        self.edited("Nothing happens.\n", "", "C1", "what goes wrong")

    def test_no_rule(self):
        self.edited("- Rule: none.\n", "", "C1", "no rule")

    def test_unknown_field(self):
        self.edited("- Rule: none.\n", "- Rule: none.\n- Test: `state_test`\n", "hazards.md:", "Test", "no field")

    def test_field_twice(self):
        self.edited("- Rule: none.\n", "- Rule: none.\n- Rule: none.\n", "hazards.md:", "Rule is there twice")

    def test_heading_without_an_identifier(self):
        self.edited("# Hazards\n", "# Hazards\n\n### Something\nText.\n", "hazards.md:3", "### H1: what goes wrong")

    def test_identifier_twice(self):
        self.edited("# Hazards\n", "# Hazards\n\n### C1: the same\nText.\n- Rule: none.\n- No patch: no.\n- Tests: `state_test`\n- Mutants: `both`\n",
                    "hazards.md:", "C1 is there twice")

    def test_no_page(self):
        os.remove(self.path("docs/hazards.md"))
        self.assert_refuses(self.hazards(), "hazards", "docs/hazards.md", "git checkout", status=1)

    def test_empty_page(self):
        write(self.path("docs/hazards.md"), "")
        self.assert_refuses(self.hazards(), "hazards", "docs/hazards.md", "no hazard", status=1)

    def test_several_mistakes(self):
        write(self.path("docs/hazards.md"), HAZARDS.replace("first_case", "no_case").replace("Name the first", "Name no"))
        done = self.hazards()
        self.assertEqual((done.status, done.out, len(done.err.splitlines())), (1, "", 2), done)


class Mutants(VerbTest):
    def test_one_that_names_no_test(self):
        write(self.path("ci/mutants/idle.patch"), "Rule: none\n\n")
        for args in ([], ["idle"]):
            self.assert_refuses(self.verb("mutants", *args), "mutants", "ci/mutants/idle.patch", "Tests: NAME")

    def test_one_that_cannot_be_switched_on(self):
        write(self.path("ci/mutants/idle.patch"), "Rule: none\nTests: state_test\n\n")
        self.assert_refuses(self.verb("mutants"), "mutants", "ci/mutants/idle.patch", 'MUTANT("idle")')

    def test_seeds(self):
        for bad in ("0", "-1", "many", ""):
            self.assert_refuses(self.verb("mutants", "--seeds", bad), "mutants", "--seeds is a number from 1")
        self.assert_refuses(self.verb("mutants", "--seeds"), "mutants", "--seeds needs a value")

    def tried(self, seeds, outcomes, *names, models="on", **env):
        """What is made of machines in which a row ends like the first of outcomes that is part of its line, or else passes; and the rows run."""
        image, out = os.path.join(self.dir, "image"), os.path.join(self.dir, "results", "mutants")
        write(os.path.join(image, "contents"), "what is in it\n")
        os.makedirs(out, exist_ok=True)
        ran = []

        def run_rows(args, **_):
            rows, out = args[args.index("--list") + 1], args[-1]
            with open(rows, encoding="utf-8") as f:
                ran.extend(f.read().splitlines())
            os.makedirs(out, exist_ok=True)
            with open(os.path.join(out, "selftests.tsv"), "w", encoding="utf-8") as f:
                f.write("test\toutcome\tseconds\tcases\tnote\n")
                for line, t in zip(ran[-len(matrix.read_list(rows)):], matrix.read_list(rows)):
                    end = next((o for part, o in outcomes.items() if part in line), ("pass", "", ""))
                    f.write("\t".join((t.name, end[0], "1.0", *end[1:])) + "\n")
        printed = io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(mutants.subprocess, "run", run_rows))
            stack.enter_context(mock.patch.object(mutants, "CACHE", os.path.join(self.dir, "kept")))
            stack.enter_context(mock.patch.dict(os.environ, {"CI": "", "KVM_TLB_SINCE": "", **env}))
            stack.enter_context(mock.patch.object(sys, "argv", ["mutants.py", image, out, models, str(seeds), *names]))
            stack.enter_context(contextlib.redirect_stdout(printed))
            status = mutants.main()
        return status, printed.getvalue(), ran, read(out + ".count").split()

    NAME = "no-flush-asid"
    KILLED = ("fail", "suite.one, suite.npt.two", "suite.one: why")

    def test_killed_with_each_seed(self):
        status, text, ran, counts = self.tried(3, {self.NAME + " seed": self.KILLED}, self.NAME)
        self.assertEqual((status, counts), (0, ["1", "0", "0", "0"]))
        self.assertRegex(text, rf"(?m)^{self.NAME}  killed .* one, npt\.two$")
        self.assertEqual({w for l in ran for w in l.split() if w.startswith("seed:")}, {"seed:1", "seed:2", "seed:3"})

    def test_survives_one_seed(self):
        status, text, _, counts = self.tried(3, {self.NAME + " seed:2": ("pass", "", ""), self.NAME + " seed": self.KILLED}, self.NAME)
        self.assertEqual((status, counts), (1, ["0", "1", "0", "0"]))
        self.assertRegex(text, rf"(?m)^{self.NAME}  SURVIVED 1 of 3 .* one \(2 of 3\), npt\.two \(2 of 3\)$")
        self.assertIn(f"FAIL: {self.NAME}: no test noticed with 1 of 3 seeds\n", text)

    def test_fails_or_is_too_slow_without_a_mutant(self):
        status, text, _, counts = self.tried(1, {self.NAME + " seed": self.KILLED, "none seed": ("fail", "suite.x", "suite.x: why")}, self.NAME)
        self.assertEqual((status, counts[0]), (1, "1"))
        self.assertRegex(text, r"(?m)^FAIL: with no mutant switched on, model on: \S+.*: x$")
        status, text, _, counts = self.tried(1, {self.NAME + " seed": self.KILLED, "none seed": ("slow", "", "it took 9 s")}, self.NAME, CI="true")
        self.assertEqual((status, counts[1], counts[3] > "0"), (1, "0", True))
        self.assertRegex(text, r"(?m)^TOO SLOW: with no mutant switched on, model on: \S+.*: it took 9 s$")

    def test_verdicts_are_kept_but_not_for_ci(self):
        first = self.tried(1, {self.NAME + " seed": self.KILLED}, self.NAME)
        self.assertEqual(self.tried(1, {}, self.NAME)[::2], (0, []))
        # With one more seed, only that one is run.
        self.assertEqual({w for l in self.tried(2, {self.NAME + " seed": self.KILLED}, self.NAME)[2] for w in l.split() if "seed:" in w}, {"seed:2"})
        self.assertEqual(self.tried(1, {}, self.NAME, CI="true")[::2], (1, first[2]))
        # What the same run of scripts/test found out, CI may use.
        self.assertEqual(self.tried(1, {}, self.NAME, CI="true", KVM_TLB_SINCE=str(time.time() - 600))[2], [])

    def test_verdicts_depend_on_the_image(self):
        first = self.tried(1, {self.NAME + " seed": self.KILLED}, self.NAME)
        with mock.patch.object(mutants, "SOURCES", mutants.SOURCES[:-1]):
            self.assertEqual(self.tried(1, {}, self.NAME)[2], first[2])


class Bench(VerbTest):
    """What scripts/bench makes of the figures, which no machine measures here."""
    GOOD = {"vmrun": 4, "flush_asid": 0, "flush_all": 0, "walks": 0, "reloads": 3, "instructions": 100, "bytes": 4096}
    BASE = {**GOOD, "flush_asid": 2, "walks": 27, "instructions": 110}

    def measured(self, *scenarios, expected=None, broken=None, series=None, reloads=None):
        """Status and text; each scenario has these figures, but for the series' reloads."""
        figures = {"base": self.BASE, "series": {**self.GOOD, **(series or {})}}
        lines = ["scenario kernel flush_asid flush_all walks reloads"] + [f"{s} {k} {f['flush_asid']} 0 {f['walks']} {f['reloads']}" for s in scenarios
                                                                  for k, f in {"base": self.BASE, "series": self.GOOD, **(expected or {})}.items()]
        write(self.path("expected"), "\n".join(lines).replace(" ", "\t") + "\n")

        def measure(machine):
            if broken in [s.name for s in machine.scenarios]:
                machine.error = "it panics"
            else:
                machine.got = {(s.name, machine.kernel): dict(figures[machine.kernel]) for s in machine.scenarios}
                for s in machine.scenarios if machine.kernel == "series" else ():
                    machine.got[s.name, "series"]["reloads"] = (reloads or {}).get(s.name, 3)
        out = io.StringIO()
        with contextlib.ExitStack() as stack:
            for where, name, value in ((bench.Machine, "run", measure), (bench, "EXPECTED", self.path("expected")),
                                       (bench, "say_where", lambda *command: ""), (bench, "end_on_signals", lambda *how: None),
                                       (sys, "argv", ["bench.py", "base", "series", self.path("bench"), *scenarios])):
                stack.callback(setattr, where, name, getattr(where, name))
                setattr(where, name, value)
            with contextlib.redirect_stdout(out):
                try:
                    status = bench.main()
                except SystemExit as e:
                    return 1, str(e)
        return status, out.getvalue()

    def test_as_expected(self):
        status, text = self.measured("nested-w16", "nested-w64")
        self.assertEqual(status, 0, text)
        self.assertEqual(read(self.path("bench.count")), "2 0 0\n")
        self.assertIn("nested-w16\tseries\t4.000\t0.000\t0.000\t0.000\t3.000\t100.000\t4096.000\n", read(self.path("bench.tsv")))
        page = read(self.path("bench.html"))
        self.assertEqual(page.count("<svg"), 1, "one curve has two scenarios")
        self.assertIn("<td>L2, 64 pages</td><td>base</td><td>2.000</td>", page)
        self.assertFalse(os.path.exists(self.path("bench-partial.tsv")))

    def test_worse_than_the_base(self):
        status, text = self.measured("nested-w16", series={"instructions": 111})
        self.assertEqual(status, 1)
        self.assertIn("FAIL: nested-w16: 111 instructions per turn, 110 on the base, must be 1.00 of these at most\n", text)
        self.assertEqual(read(self.path("bench.count")), "0 1 0\n")

    def test_not_as_much_better_as_it_must_be(self):
        status, text = self.measured("nested-clean")
        self.assertEqual(status, 1)
        self.assertIn("FAIL: nested-clean: 100 instructions per turn, 110 on the base, must be 0.90 of these at most\n", text)

    def test_more_reloads_than_with_one_l2(self):
        low = {"instructions": 90}
        self.assertEqual(self.measured("nested-clean", "nested-clean-8", series=low)[0], 0)
        scenarios = [s._replace(reloads_of="nested-w16") if s.name == "nested-w64" else s for s in bench.SCENARIOS]
        figures = {"nested-w16": 3, "nested-w64": 4}
        self.addCleanup(setattr, bench, "SCENARIOS", bench.SCENARIOS)
        bench.SCENARIOS = scenarios
        text = self.measured("nested-w16", "nested-w64", reloads=figures)[1]
        self.assertIn("FAIL: nested-w64: 4.000 groups of VMCB fields reloaded per turn, 3.000 in nested-w16\n", text)

    def test_worse_than_a_variant(self):
        scenario = next(s for s in bench.SCENARIOS if s.than)
        got = {"series": {"instructions": 1}, bench.SWITCH: self.GOOD, scenario.than[0]: self.GOOD}
        self.assertEqual(list(bench.worse_than_variants(scenario, got)), [])
        got[scenario.than[0]] = {**self.GOOD, "instructions": 97}
        self.assertEqual(list(bench.worse_than_variants(scenario, got)), [f"100 instructions per turn, 97 with {scenario.than[0]}"])

    def test_more_instructions_than_with_one_l2(self):
        scenario = next(s for s in bench.SCENARIOS if s.like)
        figures = {scenario.name: {"series": {**self.GOOD, "instructions": 102}}}
        self.assertEqual(list(bench.worse_than_scenarios(scenario, figures, 0)), [])
        figures[scenario.like] = {"series": self.GOOD}
        self.assertEqual(list(bench.worse_than_scenarios(scenario, figures, 0)), [])
        figures[scenario.name]["series"]["instructions"] = 103
        self.assertEqual(list(bench.worse_than_scenarios(scenario, figures, 0)), [f"103 instructions per turn, 100 in {scenario.like}"])

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
        self.assertRegex(next(bench.unexpected(scenario, {"base": self.BASE}, bench.read_expected())), "does not have it for base")

    def test_a_kernel_that_does_not_boot(self):
        # npt=0 has a machine of its own.
        status, text = self.measured("nested-w16", "nested-npt0", broken="nested-npt0")
        self.assertEqual(status, 1)
        self.assertRegex(text, r"nested-npt0 on the base kernel, what was measured is in \S*bench-partial\.tsv: it panics")
        self.assertIn("nested-w16\tseries", read(self.path("bench-partial.tsv")))
        self.assertFalse(os.path.exists(self.path("bench.tsv")))

    def test_every_scenario_of_a_curve_exists(self):
        names = [s.name for s in bench.SCENARIOS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual([n for _, _, _, points in bench.CURVES for n in points.values() if n not in names], [])


class Figures(VerbTest):
    """The tables in cover letters."""

    LETTER = "KVM: Part two\n\nNumbers:\n\n  scripts/bench pinned \\\n    vms-4\n\nThat is all.\n"

    def setUp(self):
        super().setUp()
        os.remove(self.path("docs/numbers.md"))
        write(self.path("docs/cover-letters/two.txt"), self.LETTER)

    def record(self, walks=9):
        """What scripts/bench --record does in the end."""
        counts = {"flush_asid": 1, "flush_all": 0.25, "walks": walks, "reloads": 2, "instructions": 1000}
        names = {"pinned": "one vCPU", "vms-4": "4 VMs"}
        program = f"""import sys, types
sys.path[:0] = {[self.path("ci/bench"), self.path("ci/lib")]!r}
import figures
figures.write([types.SimpleNamespace(name=n, title=t) for n, t in {names!r}.items()], dict.fromkeys({list(names)!r}, dict.fromkeys(("base", "series"), {counts!r})))"""
        done = run([sys.executable, "-c", program], self.env)
        self.assertEqual(done.status, 0, done)

    def check(self):
        with self.unchanged():
            return run([sys.executable, self.path("ci/bench/figures.py")], self.env)

    def test_recorded(self):
        for walks in (9, 10):
            self.record(walks)
            letter = read(self.path("docs/cover-letters/two.txt"))
            self.assertIn("  4 VMs\n    base                  1.00  0.250", letter)
            self.assertEqual(letter.count(f"{walks}.00    2.00       1000\n"), 2)
            self.assertTrue(letter.endswith("x 1.000\n\nThat is all.\n"), letter)
            self.assertEqual(self.check(), (0, "", ""))

    def test_another_figure(self):
        self.record()
        letter = self.path("docs/cover-letters/two.txt")
        write(letter, read(letter).replace("9.00", "8.00", 1))
        self.assertEqual(self.check(), (1, 'docs/cover-letters/two.txt: "one vCPU" is not as in docs/numbers.md: run scripts/bench --record\n', ""))

    def test_a_scenario_is_missing(self):
        self.record()
        letter = self.path("docs/cover-letters/two.txt")
        write(letter, read(letter).replace("    vms-4\n", "    vms-4 vms-8\n"))
        self.assertEqual(self.check()[:2], (1, "docs/cover-letters/two.txt: the table below scripts/bench pinned has 2 scenarios of 3: run scripts/bench --record\n"))

    def test_never_recorded(self):
        done = self.check()
        self.assertEqual(done.status, 1)
        self.assertRegex(done.err, r"^\S*rig: .*docs/numbers.md: No such file or directory: run scripts/bench --record\n$")


class Test(VerbTest):
    """scripts/test, with other parts than its own."""

    def parts(self, *arguments, **broken):
        for name in ("build", "run", "mutants", "bench", "check", "ci/tests/l1", "ci/tests/lockdep", "ci/tests/stress", "ci/build/qemu", "ci/qemu/rules/run", "ci/build/image",
                     "ci/tests/kunit"):
            write(self.path(name if "/" in name else f"scripts/{name}"), "#!/bin/sh\n" + broken.get(name.replace("/", "_"), "echo fine\n"))
        write(self.path("ci/selftest/test_verbs.py"), "print('fine')\n")
        return self.verb("test", *arguments)

    def test_all_pass(self):
        done = self.parts(run=f"echo 5 0 2 >{self.path('build/results/run.count')}")
        self.assert_ok(done)
        self.assertTrue(done.out.endswith("\n12 passed, 0 failed, 2 skipped\n"), done.out)
        self.assertNotIn("failed in", done.out)

    def test_all_has_three_parts_more(self):
        done = self.parts("--all", run=f"echo 5 0 2 >{self.path('build/results/run.count')}")
        self.assert_ok(done)
        self.assertTrue(done.out.endswith("\n15 passed, 0 failed, 2 skipped\n"), done.out)

    def test_some_parts_in_their_order(self):
        done = self.parts("check", "kunit")
        self.assert_ok(done)
        self.assertEqual(re.findall(r"^== (\w+) \(", done.out, re.M), ["kunit", "check"])
        self.assertTrue(done.out.endswith("\n2 passed, 0 failed, 0 skipped\n"), done.out)

    def test_list_names_all_parts(self):
        listed_parts = [l.split()[0] for l in self.verb("test", "--list").out.splitlines()]
        done = self.parts("--all")
        self.assertEqual(re.findall(r"^== (\w+) \(", done.out, re.M), listed_parts)

    def test_a_failed_build_ends_it(self):
        done = self.parts(build="echo no compiler >&2; exit 1\n")
        self.assertEqual(done.status, 1)
        self.assertIn("the kernels cannot be built: nothing was tested", done.err)
        self.assertNotIn("== run", done.out)

    def test_says_again_what_failed(self):
        count = self.path("build/results/run.count")
        done = self.parts(run=f"echo ok; echo 'FAIL: one'; echo '    its reason'; echo more; echo 7 1 0 >{count}; exit 1",
                          bench="echo cannot >&2; exit 3", check="echo 'a: FAILED after 3 s'; exit 1")
        self.assertEqual(done.status, 1)
        _, _, end = done.out.partition("== done")
        self.assertEqual(end.splitlines()[1:], ["failed in run:", "FAIL: one", "    its reason", "failed in bench:", "cannot",
                                                "failed in check:", "a: FAILED after 3 s", "12 passed, 3 failed, 0 skipped"])

    def test_too_slow(self):
        done = self.parts(run=f"echo 'TOO SLOW: one: why'; echo 7 0 1 2 >{self.path('build/results/run.count')}; exit 1")
        self.assertEqual(done.status, 1)
        end = done.out.partition("== done")[2].splitlines()[1:]
        self.assertEqual(end[:2] + end[3:], ["failed in run:", "TOO SLOW: one: why", "14 passed, 0 failed, 1 skipped, 2 too slow"])
        self.assertIn("neither passed nor failed", end[2])

    def test_ctrl_c_ends_all_of_it(self):
        write(self.path("scripts/build"), "#!/bin/sh\n")
        write(self.path("scripts/run"), "#!/bin/sh\nsleep 1000\n")
        with started(self.command("test"), self.env) as p:
            self.assertTrue(wait_until(lambda: "sleep 1000" in ours().values(), 30))
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
        self.assertNotEqual(done.status, 0)
        self.assertNotIn("== verbs", done.out, "it went on with the next part")


# --- tree, export, sign, send

class Branch(VerbTest):
    """What goes through the branch that scripts/tree makes."""

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
        write(os.path.join(cache, "base-version"), "7.10\n")
        with self.unchanged():
            self.assert_refuses(self.verb("tree", KVM_TLB_CACHE=cache), "tree", "damaged", "scripts/setup")
        os.remove(os.path.join(cache, "base-version"))
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
        # More of them than a reader that stops after the first one takes.
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
        """A commit after the first n of the branch."""
        rest = git(self.repo, "rev-list", "--reverse", "main.." + BRANCH).split()[n:]
        git(self.repo, "reset", "-q", "--hard", f"{rest[0]}^")
        commit(self.repo, subject, files)
        git(self.repo, "cherry-pick", *rest)

    def test_new_commit_in_the_middle(self):
        self.make_tree()
        self.insert(1, "KVM: Mine", {"drivers/mine.c": "mine\n"})
        done = self.verb("export")
        self.assert_ok(done, 'new in part one: "KVM: Mine" (to have it elsewhere, move its line in series, then scripts/tree --reset)\nwrote 5 patches')
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
            self.assert_refuses(self.verb("tree"), "tree", "KVM: selftests: Mine", "is of part one", "part two", "scripts/tree --reset")
        self.refused("KVM: selftests: Mine", "is of part one", "part two", "scripts/tree --reset")
        self.assert_ok(self.verb("tree", "--reset"))
        self.assert_ok(self.verb("export"), "wrote 5 patches")
        self.assertEqual([n[:14] for n in read(self.path("series")).splitlines()],
                         ["# part one", "patches/0001-K", "patches/0002-K", "selftests/0001", "# part two", "patches/0003-K", "selftests/0002"])
        self.assert_ok(self.verb("export"), "nothing changed: 5 patches")
        # Now a kernel commit that comes after this selftest begins the next part.
        self.insert(3, "KVM: Mine", {"drivers/mine.c": "mine\n"})
        self.assert_ok(self.verb("export"), 'new in part two: "KVM: Mine"', "wrote 6 patches")

    def test_renamed_commits(self):
        self.make_tree()
        git(self.repo, "rebase", "-q", "--exec", 'git commit -q --amend -m "$(git log -1 --format=%s) again" -m Why', "main")
        # None has a part of its own: all are the first one's.
        self.assert_ok(self.verb("export"), 'new in part one: "KVM: SVM: Name the first number again"', "part two has no commit any more")
        self.assertEqual(len([l for l in read(self.path("series")).splitlines() if l.startswith("#")]), 1)

    def test_parts_out_of_order(self):
        self.make_tree()
        write(self.path("series"), re.sub(r"(?s)# part one\n(.*)# part two\n(.*)", r"# part two\n\2# part one\n\1", World.series["series"]))
        self.refused("KVM: VMX: Name the third number", "is of part two", "after one of part one", "KVM: nSVM: Put tags")

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
        # Export brings it back, though nobody knows any more of which part it was.
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
        # What was written is what a new tree gives.
        self.assert_ok(self.verb("tree"))
        self.assert_ok(self.verb("export"), "nothing changed: 4 patches")

    def test_commit_that_touches_many_files(self):
        # Selftests first and more names than a pipe's reader waits for: still a kernel patch.
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
        self.assert_refuses(done, "sign", "git does not know who signs", "user.name")
        with self.unchanged(self.repo):
            done = self.verb("sign", GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="user.name",
                             GIT_CONFIG_VALUE_0="Somebody")
        self.assert_refuses(done, "sign", "git does not know who signs", "user.email")

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
        # The signatures do not get into the project.
        with self.unchanged(self.repo):
            self.assert_refuses(self.verb("export"), "export", "is signed off")


class Send(Branch):
    def setUp(self):
        super().setUp()
        # A mail that leaves the machine would leave by this.
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
            self.assert_refuses(self.verb("send", "three"), "send", "there is no part three in series (there are: one two)")

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
            self.assert_refuses(self.verb("sign", "three"), "sign", "there is no part three in series (there are: one two)")
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
        """The mails of a part, after what holds for all of them."""
        base, head = git(self.repo, "rev-parse", "main", BRANCH).split()
        with self.unchanged():
            done = self.verb("send", part, "--to", "reviewer@example.org")
        self.assert_ok(done, f"{count} mails in " + self.path("build/mails"), f"nothing was sent: read them, then scripts/send {part} --yes")
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
        self.assertNotIn("stands on", mails[0].get_content())
        mails = self.mails("two", 3)
        self.assertIn("KVM: VMX: Name the third number", mails[1]["Subject"])
        cover = mails[0].get_content()
        self.assertIn("What part two is about.\n\nThis part stands on the following ones, in this order:\n\n  one, 2 patches: KVM: Part one\n", cover)
        names = listed(World.series["series"])[:2]
        ids = [subprocess.run(["git", "patch-id", "--stable"], input=World.series[n].encode(), stdout=subprocess.PIPE, check=True).stdout.decode().split()[0]
               for n in names]
        self.assertEqual(re.findall("(?m)^prerequisite-patch-id: (.*)$", cover), ids)
        # Again, after the first part changed.
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


# --- interrupted

class Interrupted(VerbTest):
    """Ctrl-C, and worse, at moments spread over the run of a verb."""
    PATCHES = 8
    MOMENTS = (0.2, 0.4, 0.6, 0.8)

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
        """How often HEAD has moved; reading the file is quicker than asking git."""
        return read(os.path.join(repo, ".git/logs/HEAD")).count("\n")

    def while_committing(self, command, prepare):
        """Yield (repository, process) of as many runs as there are moments, each after that part of the commits."""
        for part in self.MOMENTS:
            repo = prepare()
            until = self.commits(repo) + part * self.PATCHES
            with started(command(repo), self.env) as p:
                wait_until(lambda r=repo, u=until, q=p: self.commits(r) >= u or q.poll() is not None, 60)
                time.sleep(random.random() / 30)
                yield repo, p

    def spread(self, command, prepare):
        """The same by time, for what does not commit one by one."""
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
        return repo

    def whole(self, repo, branch):
        return git(repo, "rev-list", "--count", "base/7.9.." + branch) == str(self.PATCHES + 1) and \
            git(repo, "status", "--porcelain") == "?? untracked"

    def test_apply(self):
        stopped = 0
        for repo, p in self.while_committing(lambda r: self.command("apply", r), self.fresh):
            # The moment may come when all is done.
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
        # A base whose checkout takes a while.
        cache = os.path.join(self.dir, "cache")
        shutil.copytree(World.cache, cache, symlinks=True)
        work = clone(os.path.join(self.dir, "large"), os.path.join(cache, "linux.git"))
        git(work, "checkout", "-q", "base/7.9")
        base = commit(work, "Linux 7.10", {f"drivers/large/{i}.c": f"int a{i};\n" for i in range(1000)})
        git(work, "push", "-q", os.path.join(cache, "linux.git"), base + ":refs/tags/base/7.10")
        write(os.path.join(cache, "base-version"), "7.10\n")
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
            # The project has the small series, the branch the long one.
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
        """No chance to clean up: the user's commits stay, and the next run says what to do."""
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
    """ci/lib/step.py, under which everything long runs: no process outlives it."""
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
        # So that a shell between us and it ends as well.
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
        # The colon keeps the shell from becoming the step itself.
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


class Lock(VerbTest):
    """Two runs in one clone: the second one waits."""

    def waits(self, verb, *args):
        os.makedirs(self.path("build"), exist_ok=True)
        kdir = self.kdir()
        before = state(kdir)
        args = [kdir if a == "KDIR" else a for a in args]
        with open(self.path("build/.lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write(self.path("build/.lock.pid"), "4711\n")
            with started(self.command(verb, *args), {**self.env, "KDIR": kdir}) as p:
                line = p.stderr.readline().decode()
                self.assertIn("waiting", line)
                self.assertIn("4711", line, "which process it waits for")
                time.sleep(0.5)
                self.assertIsNone(p.poll(), "it did not wait")
                self.assertEqual(state(kdir), before, "it did not wait")
                fcntl.flock(lock, fcntl.LOCK_UN)
                return kdir, finish(p)

    def test_apply(self):
        _, done = self.waits("apply", "KDIR")
        self.assert_ok(done, "4 patches applied")
        self.assertEqual(done.err, "")

    def test_tree(self):
        kdir, done = self.waits("tree")
        self.assert_ok(done, kdir)

    def test_export(self):
        _, done = self.waits("export")
        self.assert_refuses(done, "export", "run scripts/tree first")

    def test_ctrl_c_while_waiting(self):
        os.makedirs(self.path("build"), exist_ok=True)
        kdir = self.kdir()
        with open(self.path("build/.lock"), "w", encoding="utf-8") as lock, self.unchanged(kdir):
            fcntl.flock(lock, fcntl.LOCK_EX)
            with started(self.command("apply", kdir), self.env) as p:
                self.assertIn("waiting", p.stderr.readline().decode())
                os.killpg(p.pid, signal.SIGINT)
                self.assertNotEqual(finish(p, 10).status, 0)


# --- the table of selftests

class Matrix(VerbTest):
    """ci/tests/matrix.py: the list of tests, and what makes the table a success."""

    def refused(self, *patterns, **files):
        for name, text in files.items():
            write(self.path("ci/tests", name.replace("_", "-") if "known" in name else "selftests.list"), text)
        done = run([self.path("ci/tests/matrix.py"), "-", "-", self.path("build/results/run"), *patterns], {**self.env, "KVM_TLB_VERB": "run"})
        self.assertFalse(os.path.exists(self.path("build/results/run/selftests.tsv")))
        return done

    def test_malformed_lines(self):
        good = "x86/state_test 01 12 60\n"
        for bad in ("x86/smm_test", "x86/smm_test 01 12", "x86/smm_test 2 12 60", "x86/smm_test 01 3 60", "x86/smm_test 01 12 soon", "x86/smm_test 01 12/ 60"):
            with self.subTest(bad):
                self.assert_refuses(self.refused(list=good + bad + "\n"), "run", "ci/tests/selftests.list:2:", bad)

    def test_a_name_twice(self):
        self.assert_refuses(self.refused(list="x86/state_test 0 2 60\nx86/state_test 1 2 60\n"), "run", "ci/tests/selftests.list", "state_test",
                            "twice")

    def test_parameters_make_another_name(self):
        self.assertNotIn("twice", self.refused("nosuch", list="x86/state_test 0 2 60\nx86/state_test 0 2 60 npt=0\n").err)

    def test_a_property_of_the_cpu_makes_another_machine(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60\nx86/a 0 2 60 npt=0 cpu:x-svm-asids=4 cpu:x=y -- -v\n")
        plain, other = matrix.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((plain.cpu, plain.params, plain.name), ("", "-", "a"))
        self.assertEqual((other.cpu, other.params, other.command), (",x-svm-asids=4,x=y", "npt=0", "./x86/a -v"))
        self.assertEqual(other.name, "a npt=0 cpu:x-svm-asids=4 cpu:x=y -v")

    def test_pcpus_of_each_level(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 01 12/1 60\nx86/b 01 2 60\nx86/c 1 12/1 60\n")
        self.assertEqual([t.pcpus for t in matrix.read_list(self.path("ci/tests/selftests.list"))],
                         [{0: [1, 2], 1: [1]}, {0: [2], 1: [2]}, {1: [1]}])

    def test_rows_of_the_series_alone(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 only:series npt=0\nx86/b 0 2 60\n")
        a, b = matrix.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((a.name, a.params, a.kernels, b.kernels), ("a npt=0", "npt=0", ("series",), ("base", "series")))
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 only:series\nx86/a 0 2 60\n")
        with self.assertRaises(SystemExit) as refused:
            matrix.read_list(self.path("ci/tests/selftests.list"))
        self.assertIn("a stands there twice", str(refused.exception))

    def test_short_list(self):
        write(self.path("ci/tests/selftests.list"), "".join(l + "\n" for l in (
            "x86/old 01 12 60", "x86/old 0 2 60 npt=0", "x86/new 0 1 60 cpu:x-svm-asids=4", "x86/new 0 1 60 nosuch=1", "x86/new 0 2 60 npt=0", "x86/new 0 2 60 only:series npt=0 -- -v",
            "x86/new 1 1 60", "x86/asids 0 2 60 cpu:x-svm-asids=16", "x86/asids 0 2 60 cpu:x-svm-asids=4", "../bin/svm-tlb 0 2 60 -- asids 2 ./x86/new -m 2",
            "x86/other 0 2 60", "x86/late 0 2 60 only:series", "x86/late 0 2 60 only:series npt=0")))
        tests = matrix.read_list(self.path("ci/tests/selftests.list"))

        def names(*args):
            return [t.name for t in matrix.one_of_each(tests, *args)]
        self.assertEqual(names(["x86/new"], ["x86/old"], ["npt"]), ["old", "new npt=0", "svm-tlb asids 2 ./x86/new -m 2"])
        self.assertEqual(names(["x86/old"], [], ["npt"]), ["old", "old npt=0"])
        self.assertEqual(names(["x86/asids", "x86/nowhere"], [], []), ["asids cpu:x-svm-asids=16"])
        self.assertEqual(names([], ["x86/old"], []), ["old"])
        self.assertEqual(names(["x86/late"], [], ["npt"]), ["late"])
        # No row at all is not a success.
        done = run([self.path("ci/tests/matrix.py"), "--own", "x86/nowhere", "-", "image", self.path("build/results/run")], {**self.env, "KVM_TLB_VERB": "check"})
        self.assert_refuses(done, "check", "no test in ci/tests/selftests.list runs")

    def test_malformed_known_failure(self):
        self.assert_refuses(self.refused(known_failures="state_test fails\n"), "run", "ci/tests/known-failures:1:")

    def test_seeds(self):
        write(self.path("ci/tests/selftests.list"), "x86/a 0 2 60 seed:7 npt=0 -- -v\n")
        test, = matrix.read_list(self.path("ci/tests/selftests.list"))
        self.assertEqual((test.command, test.params, test.name), ("env RIG_SEED=7 ./x86/a -v", "npt=0", "a seed:7 npt=0 -v"))
        for bad in ("x86/a 0 2 60 seed:", "x86/a 0 2 60 seed:many", "x86/a 0 2 60 seed:1 seed:2"):
            with self.subTest(bad):
                self.assert_refuses(self.refused(list=bad + "\n"), "run", "ci/tests/selftests.list:1:", "a seed is a number", bad)

    def test_pattern_that_matches_nothing(self):
        self.assert_refuses(self.refused("nosuch*"), "run", "ci/tests/selftests.list", "nosuch*")
        self.assert_refuses(self.refused("state_test", "nosuch*"), "run", "ci/tests/selftests.list", "nosuch*")

    def verdict(self, base, series, known=None, images=("base", "series")):
        """Status and text of the report for one test with these outcomes."""
        tests = [matrix.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")]
        results = {}
        for kernel, outcome in (("base", base), ("series", series)):
            if outcome:
                results[matrix.Key(kernel, 0, 2, "state_test")] = matrix.Result(outcome, 1.0, "a reason")
        matrix.OUT = self.dir
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = matrix.report(tests, {k: k for k in images}, results, known or {}, 1.0)
        counts = [int(n) for n in read(self.dir + ".count").split()]
        self.assertEqual(sum(counts), len(results))
        self.assertEqual(counts[1] + counts[3] > 0, status != 0)
        return status, out.getvalue()

    LISTED = {(0, "state_test"): "why"}

    def test_both_pass(self):
        self.assertEqual(self.verdict("pass", "pass")[0], 0)

    def test_series_fails_where_the_base_passes(self):
        for known in ({}, self.LISTED):
            status, text = self.verdict("pass", "fail", known)
            self.assertEqual(status, 1)
            self.assertRegex(text, r"(?m)^FAIL: series L0 2 pCPU state_test: a reason \(the base passes\)$")

    def test_both_fail_and_listed(self):
        status, text = self.verdict("fail", "fail", self.LISTED)
        self.assertEqual(status, 0)
        self.assertIn("L0 state_test: why", text)
        self.assertNotIn("FAIL: ", text)

    def test_both_fail_and_not_listed(self):
        status, text = self.verdict("fail", "fail")
        self.assertEqual(status, 1)
        self.assertIn("not in ci/tests/known-failures", text)

    def test_listed_for_the_other_level(self):
        self.assertEqual(self.verdict("fail", "fail", {(1, "state_test"): "why"})[0], 1)

    def test_fixed_and_fails(self):
        status, text = self.verdict("fail", "fail", {(0, "state_test"): "fixed: why"})
        self.assertEqual(status, 1)
        self.assertIn("fixed by the series", text)

    def test_fixed_and_passes(self):
        self.assertEqual(self.verdict("fail", "pass", {(0, "state_test"): "fixed: why"})[0], 0)

    def test_series_cures(self):
        self.assertEqual(self.verdict("fail", "pass", self.LISTED)[0], 0)

    def test_base_fails_and_not_listed(self):
        self.assertEqual(self.verdict("fail", "pass")[0], 1)

    def test_series_fails_where_the_base_skips(self):
        self.assertEqual(self.verdict("skip", "fail")[0], 1)
        self.assertEqual(self.verdict("skip", "fail", self.LISTED)[0], 1)

    def test_listed_but_the_base_passes(self):
        status, text = self.verdict("pass", "pass", self.LISTED)
        self.assertEqual(status, 0)
        self.assertIn("in ci/tests/known-failures, but the base passes: L0 state_test", text)

    def test_skips_are_named_with_their_reason(self):
        status, text = self.verdict("skip", "skip")
        self.assertEqual(status, 0)
        self.assertIn("state_test (L0): a reason", text)

    def test_too_slow(self):
        for base, series in (("pass", "slow"), ("slow", "pass"), ("fail", "slow")):
            status, text = self.verdict(base, series, self.LISTED)
            self.assertEqual(status, 1)
            self.assertRegex(text, r"(?m)^TOO SLOW: (base|series) L0 2 pCPU state_test: a reason: raise the limit in its list, or find what made it slower$")
            self.assertNotIn("FAIL: ", text)

    def test_passes_after_its_limit(self):
        results = {}
        test = matrix.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")
        machine = matrix.Machine(None, results, {}, "series", None, 0, 2, "", [test], None, "off")
        for seconds, outcome in ((59.0, "pass"), (61.0, "slow")):
            machine.done(test, "pass", seconds, "")
            self.assertEqual(results[machine.key(test)].outcome, outcome)
        machine.done(test, "fail", 61.0, "why")
        self.assertEqual(results[machine.key(test)].outcome, "fail")

    def test_says_which_cases_failed(self):
        cases = [("suite.one", ["a.c:1: x == y", "2 != 3"]), ("suite.two", ["it did not end"])]
        key = matrix.Key("series", 0, 2, "state_test")
        matrix.OUT = self.dir
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            matrix.report([matrix.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")], {"series": ""},
                          {key: matrix.Result("fail", 1.0, tap.one_line(cases), None, cases)}, {}, 1.0)
        self.assertIn("FAIL: series L0 2 pCPU state_test: suite.one: a.c:1: x == y: 2 != 3 (and suite.two) (not in ci/tests/known-failures)\n"
                      "    suite.one:\n    a.c:1: x == y\n    2 != 3\n    suite.two:\n    it did not end\n", out.getvalue())

    def run_again(self, kernel, *outcomes, known=None):
        """What stands for one test whose runs end so, and how often it ran."""
        tests = [matrix.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")]
        results, ran = {}, []
        machine = matrix.Machine(threading.Semaphore(1), results, known or {}, kernel, None, 0, 2, "", tests, None, "off")

        def boot(todo):
            for t in todo:
                machine.done(t, outcomes[len(ran)], 1.0, f"reason {len(ran)}")
                ran.append(t)
            return []
        machine.boot = boot
        machine.run()
        self.assertIsNone(machine.error)
        return results[machine.key(tests[0])], len(ran)

    def test_base_fails_once_of_two_times(self):
        result, ran = self.run_again("base", "fail", "pass")
        self.assertEqual((result.outcome, result.note, ran), ("pass", matrix.FIRST + "reason 0", 2))
        out = io.StringIO()
        tests = [matrix.Test("state_test", [0], {0: [2]}, 60, "-", "", "./x86/state_test")]
        matrix.OUT = self.dir
        with contextlib.redirect_stdout(out):
            self.assertEqual(matrix.report(tests, {"base": ""}, {matrix.Key("base", 0, 2, "state_test"): result}, {}, 1.0), 0)
        self.assertIn("the base failed, and passed when run again:\n  L0 2 pCPU state_test: reason 0\n", out.getvalue())

    def test_base_fails_twice(self):
        result, ran = self.run_again("base", "fail", "fail")
        self.assertEqual((result.outcome, result.note, ran), ("fail", "reason 1, twice", 2))

    def test_base_fails_as_listed(self):
        self.assertEqual(self.run_again("base", "fail", known=self.LISTED)[1], 1)

    def test_series_has_one_chance(self):
        result, ran = self.run_again("series", "fail", "pass")
        self.assertEqual((result.outcome, ran), ("fail", 1))

    def test_series_alone(self):
        self.assertEqual(self.verdict(None, "fail", images=("series",))[0], 1)
        self.assertEqual(self.verdict(None, "fail", self.LISTED, images=("series",))[0], 0)


class Tap(VerbTest):
    """ci/lib/tap.py: what failed, from what a program prints."""

    HARNESS = """Random seed: 0x12
TAP version 13
1..4
# Starting 4 tests from 1 test cases.
#  RUN           suite.good ...
#            OK  suite.good
ok 1 suite.good
#  RUN           suite.guest ...
==== Test Assertion Failure ====
  x86/a_test.c:33: value == want
  pid=71 tid=71 errno=4 - Interrupted system call
     1	0x0000000000401b2c: ?? ??:0
  0x5 != 0x6 (value != want)
# guest: Test failed
#          FAIL  suite.guest
not ok 2 suite.guest
#  RUN           suite.other ...
# a_test.c:40:other:Expected 1 (1) == x (2)
# other: Test terminated by assertion
#          FAIL  suite.other
not ok 3 suite.other
#  RUN           suite.hangs ...
"""

    def test_cases_of_the_harness(self):
        got = tap.failed_cases(self.HARNESS.splitlines())
        self.assertEqual(got, [("suite.guest", ["x86/a_test.c:33: value == want", "0x5 != 0x6 (value != want)"]),
                               ("suite.other", ["# a_test.c:40:other:Expected 1 (1) == x (2)"]), ("suite.hangs", ["it did not end"])])
        self.assertEqual(tap.one_line(got), "suite.guest: x86/a_test.c:33: value == want: 0x5 != 0x6 (value != want) (and suite.other, suite.hangs)")

    def test_program_without_cases(self):
        text = "Testing guest mode: 1\nIter 0\n==== Test Assertion Failure ====\n  a.c:7: ret == 0\n  pid=1 tid=1 errno=0 - Success\n  it was 3\n"
        self.assertEqual(tap.failed_cases(text.splitlines()), [("", ["a.c:7: ret == 0", "it was 3"])])
        self.assertEqual(tap.failed_cases(["a", "", "b"]), [("", ["a", "b"])])
        self.assertEqual(tap.one_line(tap.failed_cases([])), "")

    def test_kunit(self):
        text = """KTAP version 1
1..2
    KTAP version 1
    # Subtest: asid
    # module: kvm_asid_test
    1..2
    ok 1 good
    # bad: EXPECTATION FAILED at asid_test.c:12
    Expected a == 1, but
        a == 2 (0x2)
    not ok 2 bad
# asid: pass:1 fail:1 skip:0 total:2
not ok 1 asid
"""
        path = os.path.join(self.dir, "kunit.tap")
        write(path, text)
        done = run([self.path("ci/lib/tap.py"), path])
        self.assertEqual((done.status, done.out), (1, "FAIL: bad\n    bad: EXPECTATION FAILED at asid_test.c:12\n    Expected a == 1, but\n    a == 2 (0x2)\n"))
        write(path, text.replace("not ok", "ok"))
        self.assertEqual(run([self.path("ci/lib/tap.py"), path]), Done(0, "", ""))

    def test_step_shows_the_test_that_failed(self):
        done = run([self.path("ci/lib/step.py"), os.path.join(self.dir, "log"), "a step", "sh", "-c",
                    "echo ok; echo 'FAIL: one'; echo '    why'; for i in $(seq 100); do echo error $i; done; exit 1"])
        self.assertEqual(done.out.splitlines()[1:], ["    FAIL: one", "        why"])


# --- machines

class Boot(VerbTest):
    """scripts/boot with the series' kernel of this project; the copy only has to be told which image that is."""
    image = None

    @classmethod
    def setUpClass(cls):
        # Under the lock: it may have to make the image.  No image, no boots: then all of these tests fail.
        p = subprocess.run(["bash", "-c", '. "$0/ci/lib/common.sh"; lock; "$0/ci/build/image" series rig', TOP], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, check=False)
        cls.problem = p.stderr.decode().strip()
        if p.returncode == 0:
            # Links, since who builds meanwhile replaces it.
            cls.image = os.path.join(World.tmp, "image")
            shutil.copytree(p.stdout.decode().strip(), cls.image, copy_function=link_or_copy)

    def setUp(self):
        super().setUp()
        if not self.image:
            self.fail(f"no image to boot: {self.problem}")
        self.use_image(self.image)

    def use_image(self, image):
        write(self.path("ci/build/image"), f"#!/bin/sh\necho '{image}'\n")

    def boot(self, *args, **more):
        # One pCPU: on two, TCG now and then executes what the other one's kernel has just patched.
        return self.verb("boot", "--cpus", "1", *args, timeout=180, **more)

    def assert_died(self, done, *fragments):
        """125, and the end of the console, which says why."""
        self.assertEqual(done.status, 125, done)
        for f in ("end of the console:", *fragments):
            self.assertIn(f, done.err)
        self.assertNotIn("Traceback", done.err)
        console = [l for l in done.err.splitlines() if l.startswith("    ")]
        self.assertTrue(0 < len(console) <= 25, done.err)
        self.assertEqual(ours(), {}, "QEMU is left")

    def broken(self, make_root):
        image = os.path.join(self.dir, "image")
        os.mkdir(image)
        os.symlink(os.path.join(self.image, "bzImage"), os.path.join(image, "bzImage"))
        make_root(os.path.join(image, "root.img"))
        self.use_image(image)

    def test_no_init(self):
        def make_root(path):
            os.mkdir(os.path.join(self.dir, "root"))
            subprocess.run(["mksquashfs", os.path.join(self.dir, "root"), path, "-quiet", "-no-progress"], stdout=subprocess.DEVNULL,
                           check=True)
        self.broken(make_root)
        self.assert_died(self.boot("--timeout", "120", "--", "true"), "L0: it ended without an exit status", "Kernel panic", "init")

    def test_truncated_root(self):
        def make_root(path):
            with open(os.path.join(self.image, "root.img"), "rb") as whole, open(path, "wb") as part:
                part.write(whole.read(1 << 20))
        self.broken(make_root)
        self.assert_died(self.boot("--timeout", "120", "--", "true"), "Kernel panic")

    def test_no_kernel(self):
        image = os.path.join(self.dir, "image")
        os.mkdir(image)
        os.symlink(os.path.join(self.image, "root.img"), os.path.join(image, "root.img"))
        self.use_image(image)
        done = self.boot("--timeout", "60", "--", "true")
        self.assertEqual(done.status, 125, done)
        self.assertIn("bzImage", done.out + done.err)

    def test_command_that_never_returns(self):
        begin = time.monotonic()
        done = self.boot("--timeout", "12", "--", "sh", "-c", "echo begun; sleep 1000")
        took = time.monotonic() - begin
        self.assertEqual(done.status, 125, done)
        self.assertIn("L0: no end within 12 s", done.err)
        self.assertGreaterEqual(took, 12)
        self.assertEqual(ours(), {}, "QEMU is left")

    def test_shell_that_never_returns(self):
        # Without a command and without a terminal: the shell waits for input that does not come.
        done = self.boot("--timeout", "3")
        self.assertEqual(done.status, 125, done)
        self.assertIn("L0: no end within 3 s", done.err)

    def test_status_and_output(self):
        done = self.boot("--level", "0", "--", "sh", "-c", "echo 'out  put'; echo err >&2; exit 7")
        self.assertEqual((done.status, done.out), (7, "out  put\nerr\n"), done.err)

    def test_status_and_output_of_l1(self):
        for attempt in range(3):
            done = self.boot("--level", "1", "--timeout", "150", "--", "sh", "-c", "echo 'out  put'; echo err >&2; exit 7")
            # A nested guest on TCG hangs at boot now and then: that is not what is tested here, but it is said.
            if done.status != 125 or "no end within" not in done.err:
                break
            print(f"     L1 did not come up (try {attempt + 1})", flush=True)
        self.assertEqual((done.status, done.out), (7, "out  put\nerr\n"), done.err)

    def matrix(self, rows, *options):
        """ci/tests/matrix.py with these rows in L0 of one pCPU: what became of each, by its name, and what it printed."""
        write(self.path("ci/list"), "".join(f"../bin/{r}\n" for r in rows))
        done = run([self.path("ci/tests/matrix.py"), "--levels", "0", "--list", self.path("ci/list"), *options, "-", self.image, self.path("build/results/run")],
                   {**self.env, "KVM_TLB_VERB": "run"}, timeout=300)
        with open(self.path("build/results/run/selftests.tsv"), encoding="utf-8") as f:
            return {r["test"]: r for r in csv.DictReader(f, delimiter="\t")}, done

    def test_limit_of_a_selftest(self):
        got, done = self.matrix(["sleep 0 1 2 -- 1000", "true 0 1 20", "nowhere 0 1 20"])
        self.assertEqual(done.status, 1)
        self.assertEqual({k: r["outcome"] for k, r in got.items()}, {"sleep 1000": "fail", "true": "pass", "nowhere": "fail"})
        self.assertRegex(got["sleep 1000"]["note"], r"^hangs: no end after \d+ s$")
        self.assertIn("status 127", got["nowhere"]["note"])
        self.assertRegex(done.out, r"(?m)^FAIL: series L0 1 pCPU sleep 1000: hangs: ")

    def test_too_slow_is_not_failed(self):
        got, done = self.matrix(["sleep 0 1 1 -- 25", "true 0 1 20"], "--patience", "100")
        self.assertEqual((done.status, got["sleep 25"]["outcome"], got["true"]["outcome"]), (1, "slow", "pass"))
        self.assertRegex(done.out, r"(?m)^sleep 25 +1 +too slow$")
        self.assertRegex(done.out, r"(?m)^TOO SLOW: series L0 1 pCPU sleep 25: it passed, but took \d+ s, and its limit is 1 s: raise the limit")
        self.assertNotIn("FAIL", done.out)
        self.assertEqual(read(self.path("build/results/run.count")), "1 0 0 1\n")

    def test_seed_of_a_selftest(self):
        got, _ = self.matrix(["sh 0 1 20 seed:7 -- -c exit$((RIG_SEED==7))"])
        self.assertIn("exit1", got["sh seed:7 -c exit$((RIG_SEED==7))"]["note"])

    def test_case_in_which_the_guest_dies(self):
        case = r'printf${IFS}"\043\040RUN\040s.one\040...\n"'
        got, done = self.matrix([f"sh 0 1 20 -- -c {case};sleep${{IFS}}3;poweroff${{IFS}}-f"])
        result, = got.values()
        self.assertEqual((result["outcome"], result["cases"]), ("fail", "s.one"), done)
        self.assertRegex(result["note"], "^s.one: the guest died: L0: it ended without an exit status")

    def test_what_a_killed_test_leaves_behind(self):
        # kvm_amd can't be reloaded as long as it lives.
        got, _ = self.matrix(["sh 0 1 2 -- -c sleep${IFS}1000</dev/kvm&sleep${IFS}999", "pidof 0 1 20 npt=0 -- sleep"])
        self.assertEqual([r["note"].partition(":")[0] for r in got.values()], ["hangs", "status 1"])

    def test_kvm_is_in_use(self):
        done = self.boot("--", "sh", "-c", "sleep 1000 </dev/kvm & printf 'a - true\nb npt=0 true\n' >/tmp/l; run-tests /tmp/l")
        self.assertRegex(done.out, r"(?m)^ok 1 - a # time=")
        self.assertRegex(done.out, r"(?m)^not ok 2 - b # time=\d+\.\d kvm_amd is in use$")

    def test_ctrl_c_and_again(self):
        with started(self.command("boot", "--cpus", "1", "--", "sh", "-c", "echo begun; sleep 1000"), self.env) as p:
            self.assertEqual(p.stdout.readline(), b"begun\n")
            self.assertTrue(self.lock_is_free(), "a guest that runs keeps others from building")
            os.killpg(p.pid, signal.SIGINT)
            done = finish(p, 10)
            self.assertTrue(wait_until(lambda: not ours(), 2), ours())
        self.assertEqual(done.status, 130)
        self.assertNotIn("Traceback", done.err)
        self.assertTrue(self.lock_is_free())
        self.assert_ok(self.boot("--", "true"))

    def test_terminated_and_killed(self):
        # SIGKILL last, since then nobody can remove the temporary files.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            with started(self.command("boot", "--", "sleep", "1000"), self.env) as p:
                self.assertTrue(wait_until(lambda: any("qemu-system" in l for l in ours().values()), 20))
                # bash has become boot.py by now.
                os.kill(p.pid, number)
                self.assertTrue(wait_until(lambda: not ours(), 5), ours())
                finish(p, 10)
            if number == signal.SIGKILL:
                for name in os.listdir(self.tmpdir):
                    shutil.rmtree(os.path.join(self.tmpdir, name))
            self.assertEqual(os.listdir(self.tmpdir), [], number)


    def stress(self, *args):
        return [self.path("ci/tests/stress.py"), "--out", os.path.join(self.dir, "out"), *args]

    def test_stress_arguments(self):
        env = {**self.env, "KVM_TLB_VERB": "stress"}
        for args, why in ((["--pcpus", "3", self.image, "9"], "--pcpus is 1, 2 or 12"), ([self.image, "soon"], "SECONDS is a number"),
                          ([self.image, "0"], "SECONDS is a number"), ([self.dir, "9"], "is not an image"),
                          (["--mutant", "no-such", self.image, "9"], "there is no mutant no-such")):
            with self.subTest(args):
                self.assert_refuses(run(self.stress(*args), env), "stress", why)
        self.assertFalse(os.path.exists(os.path.join(self.dir, "out")))

    def test_stress_is_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with started(self.stress(self.image, "1000"), self.env) as p:
                self.assertTrue(wait_until(lambda: sum("qemu-system" in l for l in ours().values()) == 2, 30), ours())
                os.kill(p.pid, number)
                self.assertTrue(wait_until(lambda: not ours(), 10), ours())
                done = finish(p, 10)
            self.assertEqual(done.status, -number, done)
            self.assertIn("interrupted after", done.out)
            self.assertNotIn("Traceback", done.err)
            self.assertEqual(os.listdir(self.tmpdir), [], number)
            self.assertFalse(os.path.exists(os.path.join(self.dir, "out/stress.count")))


class NoImage(VerbTest):
    """scripts/boot when there is nothing to boot, and the real ci/build/image."""

    def test_nothing_set_up(self):
        cache = os.path.join(self.dir, "empty")
        with self.unchanged():
            self.assert_refuses(self.verb("boot", "--", "true", KVM_TLB_CACHE=cache), "boot", "run scripts/setup")

    def test_nothing_built(self):
        with self.unchanged():
            self.assert_refuses(self.verb("boot", "--", "true"), "boot", "the series kernel is not built", "scripts/build series")
            self.assert_refuses(self.verb("boot", "--kernel", "base", "--", "true"), "boot", "the base kernel is not built", "scripts/build base")

    def test_no_qemu(self):
        cache = os.path.join(self.dir, "cache")
        shutil.copytree(World.cache, cache, symlinks=True)
        os.remove(os.path.join(cache, "qemu"))
        self.env["KVM_TLB_CACHE"] = cache
        # A kernel where the rig looks for one; it says where only when it traces itself.
        trace = run(["bash", "-x", self.path("ci/build/kernel"), "series", "rig"], self.env).err
        os.makedirs(re.findall(r"(?m)^\++ out=(.+)$", trace)[0])
        with self.unchanged():
            self.assert_refuses(self.verb("boot", "--", "true"), "boot", "no QEMU in the cache", "scripts/build")
        self.assertFalse(os.path.exists(os.path.join(cache, "qemu")))
        images = self.path("build/image")
        self.assertEqual(os.listdir(images) if os.path.isdir(images) else [], [])


# --- the program

class Lines(unittest.TestResult):
    """One line per test, and below a failure why it is one."""

    def __init__(self):
        super().__init__()
        self.failed = 0
        self.why = self.began = None

    def startTest(self, test):      # pylint: disable=invalid-name
        super().startTest(test)
        self.why, self.began = [], time.monotonic()

    def stopTest(self, test):       # pylint: disable=invalid-name
        super().stopTest(test)
        name = f"{type(test).__name__}.{test.id().rpartition('.')[2]}"
        self.line(name, self.why, f" ({time.monotonic() - self.began:.1f} s)")
        self.why = None

    def line(self, name, why, more=""):
        self.failed += bool(why)
        print(f"{'FAIL' if why else 'ok':4} {name}{more}")
        for text in why:
            print("".join(f"    {l}\n" for l in text.splitlines()[-12:]), end="")
        sys.stdout.flush()

    def bad(self, test, text):
        if self.why is None:
            # The set-up of a class.
            self.line(str(test), [text])
        else:
            self.why.append(text)

    def addError(self, test, err):      # pylint: disable=invalid-name
        super().addError(test, err)
        self.bad(test, self.errors[-1][1])

    def addFailure(self, test, err):    # pylint: disable=invalid-name
        super().addFailure(test, err)
        self.bad(test, self.failures[-1][1])

    def addSubTest(self, test, subtest, err):   # pylint: disable=invalid-name
        super().addSubTest(test, subtest, err)
        if err:
            self.bad(test, (self.failures + self.errors)[-1][1] + str(subtest))


def chosen(patterns):
    """All tests in the order of this file, or those called Class, Class.test or like a pattern."""
    for cls in globals().values():
        if isinstance(cls, type) and issubclass(cls, VerbTest):
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(cls):
                name = ".".join(test.id().split(".")[-2:])
                if not patterns or any(p == cls.__name__ or fnmatch.fnmatch(name, p) for p in patterns):
                    yield test


def main():
    # unittest takes any other exception for the failure of one test, and goes on.  Who was started in the background
    # ignores SIGINT, and so would the verbs that are tested.
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, signal.default_int_handler)
    tests = unittest.TestSuite(chosen(sys.argv[1:]))
    if not tests.countTestCases():
        raise SystemExit(f"test_verbs.py: no test is called {' '.join(sys.argv[1:])}")
    start, lines = time.monotonic(), Lines()
    try:
        make_world()
        tests.run(lines)
    except KeyboardInterrupt:
        print("test_verbs.py: interrupted; rerun to start again", file=sys.stderr)
        sys.exit(130)
    finally:
        end_ours()
        shutil.rmtree(World.tmp or "", ignore_errors=True)
    skipped = len(lines.skipped)
    passed = max(0, lines.testsRun - lines.failed - skipped)
    write(os.path.join(TOP, "build/results/verbs.count"), f"{passed} {lines.failed} {skipped}\n")
    print(f"verbs: {passed} passed, {lines.failed} failed, {skipped} skipped in {time.monotonic() - start:.0f} s")
    return 1 if lines.failed else 0


if __name__ == "__main__":
    sys.exit(main())
