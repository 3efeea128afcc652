# SPDX-License-Identifier: GPL-2.0-only
"""Code that all tests of the commands share: a small kernel with its own series, copies of this project, and assertions about commands."""
import collections
import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

from clock import Clock

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Directories in which the programs of ci/ find each other's modules, as in ci/lib/common.sh.
MODULES = ("lib", "tests", "bench", "series")
VERBS = sorted(os.listdir(os.path.join(TOP, "scripts")))
BRANCH = "kvm-tlb-tags"
NEUTRAL = "KVM TLB tags series <kvm-tlb-tags@localhost>"
# Every process that a command starts inherits this variable, so that the tests find leftover processes, and only their own.
MARK = "KVM_TLB_TEST_RUN"
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
# All limits here are only for commands that hang; they are in seconds of ci/lib/clock.py, which last longer on a busy machine.
CLOCK = Clock()
Done = collections.namedtuple("Done", "status out err")


class World:
    """Data that all tests share: made once, and only read (or copied) afterwards."""
    tmp = None          # everything is in here
    env = None          # the environment of every command
    kernel = None       # the small kernel repository, on its base
    series = None       # project files of the series that applies to it
    cache = None        # a cache that has the small kernel as its base
    real_cache = None
    mark = None         # the value of MARK


def environment(home):
    """Return our environment without variables that affect the commands, git, or a desktop."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("KVM_TLB_", "GIT_", "XDG_")) and k not in ("KDIR", "VERBOSE", "EMAIL", "TMPDIR")}
    config = os.path.join(home, "gitconfig")
    with open(config, "w", encoding="utf-8") as f:
        # Turn fsync off: these repositories need not survive a power cut.
        f.write("[user]\n\tname = Sender\n\temail = sender@example.org\n[init]\n\tdefaultBranch = main\n[core]\n\tfsync = none\n")
    env.update(HOME=home, GIT_CONFIG_GLOBAL=config, GIT_CONFIG_SYSTEM=os.devnull, GIT_TERMINAL_PROMPT="0", LC_ALL="C",
               PYTHONDONTWRITEBYTECODE="1")
    return env


def own_world():
    """Give this process, after fork(), what the other processes must not change or take for theirs."""
    World.mark = uuid.uuid4().hex
    World.env = {**World.env, MARK: World.mark}
    cache = os.path.join(World.tmp, "cache-" + World.mark)
    shutil.copytree(World.cache, cache, symlinks=True)
    World.cache = cache


def die_with_us():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def started(args, env, cwd=None):
    """Start a process in its own group, as an interactive shell does; always kill the group at the end of the block."""
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
    """Map the process ids of all running processes of the tests' commands to their command lines."""
    left = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if f"{MARK}={World.mark}".encode() not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        # Ignore a zombie, which has no command line.
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
    """Map the relative path of every file below top to a hash of its content."""
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
    """Return all of a user's state in a repository: branches, HEAD, files, staged changes, operations in progress."""
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
    """Return text with one line, counted from 1, replaced."""
    lines = text.splitlines(keepends=True)
    lines[line - 1] = words + "\n"
    return "".join(lines)


SVM, NESTED, VMX = (f"arch/x86/kvm/{f}.c" for f in ("svm/svm", "svm/nested", "vmx/vmx"))
TAGS = "arch/x86/kvm/svm/tags.c"
SELFTEST = "tools/testing/selftests/kvm/x86/first_test.c"


def makefile(version, patchlevel):
    return f"# SPDX-License-Identifier: GPL-2.0\nVERSION = {version}\nPATCHLEVEL = {patchlevel}\nSUBLEVEL = 0\n"


def kernel_files():
    """Return the least files that the commands, b4, get_maintainer.pl and checkpatch.pl accept as a kernel tree."""
    files = {f: "text\n" for f in ("COPYING", "CREDITS", "Kbuild", "Kconfig", "README", "Documentation/index.rst", "include/a.h",
                                   "drivers/a.c", "fs/a.c", "init/a.c", "ipc/a.c", "kernel/a.c", "lib/a.c")}
    files["Makefile"] = makefile(7, 9)
    # ci/lib/kernel.sh looks for the series' options here.
    files["arch/x86/kvm/Kconfig"] = "config KVM\n\tbool\n"
    for path in (SVM, NESTED, VMX, SELFTEST):
        files[path] = "// SPDX-License-Identifier: GPL-2.0\n" + numbered(os.path.basename(path)[:-2])
    return files


def clone(to, repo=None):
    subprocess.run(["git", "clone", "-q", repo or World.kernel, to], env=World.env, check=True)
    git(to, "remote", "remove", "origin")
    return to


def listed(series):
    """Return the patches that the text of a series file lists."""
    return [l for l in series.splitlines() if l and not l.startswith("#")]


def format_patches(repo, base, parts=(("whole", None),)):
    """Return the files that scripts/export must write for the commits after base, numbered by directory, in git's plain format.

    parts: (name, number of commits) of each part; None stands for the rest.
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
    # Take these files from the real base, which scripts/setup imported.
    bare = os.path.join(World.real_cache, "linux.git")
    tag = "base/" + re.search("(?m)^version=(.*)", read(os.path.join(TOP, "ci/inputs/base")))[1].replace("~", "_")
    if subprocess.run(["git", "--git-dir", bare, "rev-parse", "-q", "--verify", "refs/tags/" + tag], stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit("run.py: there is no base in the cache: run scripts/setup")
    for name in ("MAINTAINERS", "scripts/get_maintainer.pl", "scripts/checkpatch.pl", "scripts/spelling.txt",
                 "scripts/const_structs.checkpatch"):
        files[name] = subprocess.run(["git", "--git-dir", bare, "show", f"{tag}:{name}"], stdout=subprocess.PIPE,
                                     check=True).stdout.decode()
    for name in ("scripts/get_maintainer.pl", "scripts/checkpatch.pl"):
        write(os.path.join(World.kernel, name), files[name])
        os.chmod(os.path.join(World.kernel, name), 0o755)
    base = commit(World.kernel, "Linux 7.9", files)
    git(World.kernel, "tag", "base/7.9", base)

    # Make a series in which the third patch depends on the first, the second adds a file, and the last is a selftest.
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
    for name in ("qemu", "bochs", "tools"):
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


class VerbTest(unittest.TestCase):
    """A copy of the project with the small series, a clone of the small kernel, and assertions about commands."""
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=World.tmp)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.tmpdir = os.path.join(self.dir, "tmp")
        os.mkdir(self.tmpdir)
        self.project = os.path.join(self.dir, "project")
        # A CI may have the cache, which has gigabytes, in the project; see docs/ci.md.
        skip = {os.path.join(TOP, "build"), os.path.join(TOP, ".git"), World.real_cache}
        shutil.copytree(TOP, self.project, symlinks=True,
                        ignore=lambda d, names: [n for n in names if os.path.join(d, n) in skip or n == "__pycache__"])
        self.set_series(World.series)
        self.set_base("7.9")
        # The small series has no part fixes.
        write(self.path("docs/posting.md"), "# Posting\n")
        shutil.rmtree(self.path("docs/cover-letters"))
        for name in ("one", "two"):
            write(self.path("docs/cover-letters", name + ".txt"), f"KVM: Part {name}\n\nWhat part {name} is about.\n")
        # Use a mirror on a port without a listener, so that a command that needs the network fails.
        self.env = {**World.env, "KVM_TLB_CACHE": World.cache, "TMPDIR": self.tmpdir, "KVM_TLB_MIRROR": "http://127.0.0.1:9/debian"}
        self.env["PYTHONPATH"] = ":".join(self.path("ci", d) for d in MODULES)
        self.addCleanup(end_ours)

    def tearDown(self):
        wait_until(lambda: not ours(), 2)
        self.assertEqual(ours(), {}, "processes are left")
        self.assertEqual(os.listdir(self.tmpdir), [], "temporary files are left")
        self.assertTrue(self.lock_is_free(), "the lock is still held")

    # helpers of the tests

    def path(self, *names):
        return os.path.join(self.project, *names)

    def set_base(self, version):
        """Set the version of the base that the project pins."""
        path = self.path("ci/inputs/base")
        write(path, re.sub("(?m)^version=.*", f"version={version}", read(path)))

    def set_series(self, files):
        for d in ("patches", "selftests"):
            shutil.rmtree(self.path(d), ignore_errors=True)
            os.mkdir(self.path(d))
        for name, text in files.items():
            write(self.path(name), text)

    def set_hazards(self):
        """Replace the page of hazards and the mutants by ones for the small series, because the project's own page names its own patches."""
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

    # assertions of the tests

    def assert_ok(self, done, *fragments):
        self.assertEqual(done.status, 0, done)
        for f in fragments:
            self.assertIn(f, done.out + done.err)

    def assert_refuses(self, done, verb, *fragments, status=None):
        """The command must fail with one line on standard error that begins with its name and contains the fragments; indented details may
        follow or precede it."""
        if status is None:
            self.assertGreater(done.status, 0, done)
            self.assertLess(done.status, 125, done)
        else:
            self.assertEqual(done.status, status, done)
        # Ignore the progress lines "base: ..." of scripts/setup and scripts/build.
        lines = [l for l in done.err.splitlines() if not l.startswith(("    ", "base: "))]
        self.assertEqual(len(lines), 1, f"not one line: {done}")
        self.assertTrue(lines[0].startswith(verb + ": "), lines[0])
        for f in fragments:
            self.assertIn(f, lines[0])
        self.assertNotIn("Traceback", done.out + done.err)

    @contextlib.contextmanager
    def unchanged(self, *repos):
        """The block must not change the repositories, nor files of the project outside build/."""
        before = self.source_files(), [state(r) for r in repos]
        yield
        self.assertEqual(self.source_files(), before[0])
        for repo, was in zip(repos, before[1]):
            self.assertEqual(state(repo), was)
