# SPDX-License-Identifier: GPL-2.0-only
"""Tests of arguments, of missing packages and builds, and of the lock."""
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time

from world import VERBS, VerbTest, World, digest, finish, read, run, started, state, write


class Arguments(VerbTest):
    BAD = {
        "setup": [["--bogus"], ["--update", "--bogus"], ["--prune", "--update"]],
        "build": [["--bogus"], ["basis"], ["--config"], ["--config", "nosuch"], ["--config", "../config/rig"], ["--tree"], ["--tree", ""]],
        "run": [["--bogus"], ["nosuch"], [""], ["--list", "state_test"], ["--tree", "nosuch", "--list"], ["--tree", ""], ["--kernel"], ["--kernel", "nosuch"], ["state_test", "--bogus"], ["--level", "2"], ["--pcpus"], ["--model", "strict"],
                ["--machine"], ["--machine", "nosuch"], ["--machine", "kvm", "--model", "on"],
                ["--machine", "vmx", "--model", "strict"], ["--machine", "vmx", "--level", "0"], ["--tree"], ["--tree", ".", "--kernel", "base"]],
        "test": [["--bogus"], ["bogus"], [""], ["--all", "run"], ["run", "--bogus"]],
        "mutants": [["--bogus"], ["nosuch"]],
        "bench": [["--bogus"], ["nosuch"], ["--quick", "nosuch"], ["--record", "--quick"], ["--record", "pinned"],
                  ["--machine"], ["--machine", "kvm"], ["--machine", "vmx", "pinned"], ["--list", "pinned"], ["pinned", "--list"]],
        "profile": [[], ["--bogus"], [""], ["nosuch"], ["pinned", "nested-w16"], ["vmx-l2s-1"]],
        "boot": [["--bogus"], ["--level"], ["--level", "2"], ["--kernel", "nosuch"], ["--config", "nosuch"], ["--model", "nosuch"],
                 ["--cpus", "many", "--", "true"], ["--cpus", "0", "--", "true"], ["--cpus", "2/0", "--", "true"], ["--level", "1", "--cpus", "2/", "--", "true"],
                 ["--cpus", "2/2", "--", "true"], ["--timeout", "soon", "--", "true"], ["true"], ["--tree"],
                 ["--tree", ".", "--kernel", "base"], ["--share"], ["--share", "/dev/null"], ["--qemu-arg"],
                 ["--tree", ""], ["--share", ""], ["--kernel", ""], ["--model", ""], ["--cpus", ""], ["--config", "../config/rig"],
                 ["--machine"], ["--machine", "nosuch", "--", "true"], ["--machine", "kvm", "--model", "strict", "--", "true"],
                 ["--machine", "vmx", "--level", "1", "--", "true"], ["--machine", "vmx", "--cpus", "2/1"], ["--model", "nosuch", "--machine", "vmx"],
                 ["--machine", "vmx", "--gdb"], ["--machine", "vmx", "--qemu-arg=-S"]],
        "bundle": [["--bogus"], ["--tree"], ["--tree", ""], ["one", "two"], ["/tmp"], ["/dev/null"], [""]],
        "compare": [[], ["one"], ["--bogus"], ["", ""]],
        "qemu": [["--bogus"], ["--cpu"], ["--cpu", "nosuch"]],
        "tree": [["--bogus"], ["--reset", "--bogus"]],
        "export": [["--bogus"]],
        "check": [["--bogus"], ["--quick", "--bogus"]],
        "apply": [[], ["--bogus"], ["one", "two", "three"], [".", "nosuch"], [".", ""], [".", "--bogus"]],
        "sign": [["--bogus"], ["one", "two"], [""]],
        "send": [["--bogus"], ["--to"], ["nosuch"], ["one", "two"], ["one", "--bogus"], ["one", "--to"], ["one", "--to", ""], ["one", "--to", "nobody"]],
        "help": [["--bogus"]],
    }

    def test_every_verb_is_here(self):
        self.assertEqual(sorted(self.BAD), VERBS)

    def test_a_reader_that_is_gone(self):
        write(self.path("a.ktap"), "KTAP version 1\n1..1\nok 1 a\n")
        for verb, *args in (["run", "--list"], ["test", "--list"], ["test", "--list", "foreign"], ["compare", self.path("a.ktap"), self.path("a.ktap")]):
            reader, writer = os.pipe()
            os.close(reader)
            with self.subTest(verb=verb, args=args), os.fdopen(writer, "wb") as pipe:
                done = subprocess.run([self.path("scripts/" + verb), *args], env=self.env, stdout=pipe, stderr=subprocess.PIPE)
                # The script itself, or a command that it ends with.
                self.assertIn(done.returncode, (-signal.SIGPIPE, 128 + signal.SIGPIPE))
                self.assertEqual(done.stderr, b"")

    def test_cache(self):
        write(self.path("file"), "text\n")
        for cache, fragment in (("relative", "relative is a relative path"), (self.path("file"), "is not a directory")):
            with self.unchanged():
                done = self.verb("export", KVM_TLB_CACHE=cache)
            self.assert_refuses(done, "export", fragment.replace("relative is", "(relative) is"), "KVM_TLB_CACHE")
        env = {k: v for k, v in self.env.items() if k not in ("HOME", "KVM_TLB_CACHE", "XDG_CACHE_HOME")}
        self.assert_refuses(run([self.path("scripts/export")], env), "export", "HOME is not set", "KVM_TLB_CACHE")

    def test_values_of_parts(self):
        for part, value, fragment in (("stress", "abc", "KVM_TLB_STRESS (abc)"), ("stress", "0", "KVM_TLB_STRESS (0)"), ("foreign", "xen* nosuch", "scripts/test --list foreign")):
            with self.subTest(part), self.unchanged():
                self.assert_refuses(self.verb("test", part, **{"KVM_TLB_" + part.upper(): value}), "test", fragment)
        self.assertFalse(os.path.exists(self.path("build/results")))

    def test_python(self):
        common, kdir = self.path("ci/lib/common.sh"), self.kdir()
        text = read(common)
        write(self.path("python"), "#!/bin/sh\nexit 1\n")
        os.chmod(self.path("python"), 0o755)
        for python, fragment in (("/nonexistent/python", "there is no /nonexistent/python: run scripts/setup"), (self.path("python"), "older than Python 3.11")):
            self.assertIn("PYTHON=/usr/bin/python3\n", text)
            write(common, text.replace("PYTHON=/usr/bin/python3\n", f"PYTHON={python}\n"))
            for verb, *args in (["apply", kdir], ["bench"], ["mutants"], ["profile", "pinned"], ["compare", "a", "b"], ["qemu", "--cpu", "on"],
                                ["run", "--list"], ["run", "--machine", "kvm"], ["test", "--list", "foreign"], ["test", "verbs"]):
                with self.subTest(verb=verb, python=python):
                    self.assert_refuses(self.verb(verb, *args), verb, fragment)

    def help_of(self, verb):
        for options in (["--help"], ["-h"], ["something", "--help"]):
            with self.unchanged():
                done = self.verb(verb, *options)
            self.assertEqual((done.status, done.err), (0, ""))
            lines = done.out.splitlines()
            self.assertRegex(lines[0], rf"^scripts/{verb}\b")
            self.assertLessEqual(len(lines), 16)
            self.assertFalse(os.path.exists(self.path("build")), "--help makes files")

    def bad_arguments(self, verb):
        for args in self.BAD[verb]:
            with self.subTest(args=args), self.unchanged():
                done = self.verb(verb, *args)
                self.assert_refuses(done, verb)
                self.assertEqual(done.out, "")
                # The message must contain one of the arguments, or point to --help.
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


class Setup(VerbTest):
    def test_no_network(self):
        cache = os.path.join(self.dir, "empty")
        os.mkdir(cache)
        # Do not let apt wait between its attempts.
        write(os.path.join(self.dir, "apt.conf"), 'Acquire::Retries::Delay "false";\n')
        with self.unchanged():
            done = self.verb("setup", KVM_TLB_CACHE=cache, APT_CONFIG=os.path.join(self.dir, "apt.conf"))
        self.assert_refuses(done, "setup", "cannot reach the Debian mirror", "KVM_TLB_MIRROR")
        self.assertFalse(os.path.exists(os.path.join(cache, "linux.git")))
        # There must be no file that a later run could mistake for a product.
        halves = [f for f in digest(cache) if re.search(r"import\.|\.new|\.deb$|\.tar|get\.", f)]
        self.assertEqual(halves, [])
        self.assertEqual(os.listdir(os.path.join(cache, "tools")), [])

    def archive(self, **broken):
        """Make a mirror with the pinned files, from which apt fetches without a network, and a cache that has the tools already."""
        mirror, cache = os.path.join(self.dir, "mirror"), os.path.join(self.dir, "new")
        os.makedirs(cache)
        os.symlink(os.path.join(World.real_cache, "tools"), os.path.join(cache, "tools"))
        for name, path, data in (("base", "pool/base.deb", b"no package"), ("qemu", "pool/qemu.orig.tar.xz", b"a tarball"),
                                 ("bochs", "pool/bochs.orig.tar.xz", b"a third one")):
            if broken.get(name) != "gone":
                os.makedirs(os.path.join(mirror, "pool"), exist_ok=True)
                with open(os.path.join(mirror, path), "wb") as f:
                    f.write(data if broken.get(name) != "changed" else b"another")
            pin = self.path("ci/inputs", name)
            write(pin, re.sub("(?m)^(path|sha256)=.*\n", "", read(pin)) + f"path={path}\nsha256={hashlib.sha256(data).hexdigest()}\n")
        self.env.update(KVM_TLB_CACHE=cache, KVM_TLB_MIRROR="copy:" + mirror)
        return cache

    def test_what_is_pinned_is_fetched(self):
        cache = self.archive()
        # The base here is not a valid package, so setup fails after it has fetched QEMU, which this test checks.
        self.assertNotEqual(self.verb("setup").status, 0)
        version = re.search("(?m)^version=(.*)", read(self.path("ci/inputs/qemu")))[1]
        tarball = os.path.join(cache, "qemu", version + ".tar.xz")
        self.assertEqual(read(tarball), "a tarball")
        # The next run uses it, and then it is not old any more.
        os.utime(tarball, (time.time() - 15 * 86400,) * 2)
        self.verb("setup")
        self.assert_ok(self.verb("setup", "--prune"))
        self.assertEqual(read(tarball), "a tarball")

    def test_another_file_than_is_pinned(self):
        for name in ("qemu", "bochs", "base"):
            with self.subTest(name):
                cache = self.archive(**{name: "changed"})
                with self.unchanged():
                    self.assert_refuses(self.verb("setup"), "setup", f"(ci/inputs/{name})", "scripts/setup --update", "KVM_TLB_MIRROR")
                self.assertEqual([f for f in digest(os.path.join(cache, "qemu")) if ".new" in f], [])
                self.assertFalse(os.path.exists(os.path.join(cache, "linux.git")))
                shutil.rmtree(cache)
                shutil.rmtree(os.path.join(self.dir, "mirror"))

    def test_what_is_pinned_is_gone(self):
        self.archive(qemu="gone")
        with self.unchanged():
            self.assert_refuses(self.verb("setup"), "setup", "pool/qemu.orig.tar.xz (ci/inputs/qemu)", "scripts/setup --update", "KVM_TLB_MIRROR")

    def test_update_changes_all_pins_or_none(self):
        self.archive()
        shutil.rmtree(self.path("ci/inputs/foreign"), ignore_errors=True)
        write(self.path("ci/inputs/foreign/one"), read(self.path("ci/inputs/base")))
        pins = {name: dict(re.findall("(?m)^(\\w+)=(.*)$", read(self.path("ci/inputs", name)))) for name in ("base", "foreign/one", "qemu", "bochs")}
        newer = {name: pin["accept"].strip("'").replace("*", "99") for name, pin in pins.items()}
        write(os.path.join(self.dir, "Packages"), f"Package: {pins['base']['package']}\nVersion: {newer['base']}\nFilename: pool/new.deb\nSHA256: 1\n\n")
        sources = os.path.join(self.dir, "Sources")
        write(sources, "")
        write(os.path.join(self.dir, "bin/apt-get"), f"#!/bin/sh\ncase $* in *Packages*) echo {self.dir}/Packages ;; *Sources*) echo {sources} ;; esac\n")
        os.chmod(os.path.join(self.dir, "bin/apt-get"), 0o755)
        self.env["PATH"] = os.path.join(self.dir, "bin") + ":" + self.env["PATH"]
        with self.unchanged():
            self.assert_refuses(self.verb("setup", "--update"), "setup", f"does not have {pins['qemu']['package']} any more", "in ci/inputs/qemu")
        write(sources, "".join(f"Package: {pins[n]['package']}\nDirectory: pool\nChecksums-Sha256:\n 2 9 {n}_{newer[n]}.orig.tar.xz\n\n" for n in ("qemu", "bochs")))
        self.verb("setup", "--update")
        self.assertEqual({n: re.findall("(?m)^version=(.*)$", read(self.path("ci/inputs", n))) for n in pins}, {n: [v] for n, v in newer.items()})
        self.assertEqual([f for f in os.listdir(self.path("ci/inputs")) + os.listdir(self.path("ci/inputs/foreign")) if f.endswith(".new")], [])

    def test_needs_no_network_when_all_is_there(self):
        with self.unchanged():
            done = self.verb("setup")
        self.assert_ok(done, "base: 7.9")
        # Nor free disk space.
        self.assert_ok(self.verb("setup", KVM_TLB_MIN_KB=str(1 << 50)))

    def test_other_systems(self):
        path = os.path.join(self.dir, "os-release")
        for text, words in (("ID=ubuntu\nVERSION_ID=24.04\n", "this system is ubuntu 24.04"), ("ID=debian\nVERSION_ID=13\n", "this system is debian 13"),
                            ("ID=arch\n", "this system is arch")):
            write(path, text)
            with self.subTest(text), self.unchanged():
                done = self.verb("setup", KVM_TLB_OS_RELEASE=path)
                self.assert_refuses(done, "setup", words, "Debian 12", "docs/ci.md")
                self.assertEqual(done.out, "")
        self.assert_refuses(self.verb("setup", KVM_TLB_OS_RELEASE=path + ".none"), "setup", "not known", "Debian 12")

    def test_other_processors(self):
        write(self.path("bin/uname"), "#!/bin/sh\necho aarch64\n")
        os.chmod(self.path("bin/uname"), 0o755)
        done = self.verb("setup", PATH=self.path("bin") + ":" + os.environ["PATH"])
        self.assert_refuses(done, "setup", "this machine is aarch64", "amd64")
        self.assertEqual(done.out, "")

    def test_a_path_with_a_blank(self):
        blank = os.path.join(self.dir, "my project")
        os.rename(self.project, blank)
        for verb in ("setup", "build", "apply", "help"):
            done = run([os.path.join(blank, "scripts", verb), *(["."] if verb == "apply" else [])], self.env)
            self.assert_refuses(done, verb, "my project", "clone the project elsewhere")
        self.assertFalse(os.path.exists(os.path.join(blank, "build")))
        os.rename(blank, self.project)
        self.assert_refuses(self.verb("setup", KVM_TLB_CACHE=os.path.join(self.dir, "my cache")), "setup", "my cache", "KVM_TLB_CACHE")

    def test_prune(self):
        cache = os.path.join(self.dir, "cache")
        for name in ("kernel/old/bzImage", "kernel/new/bzImage", "check/old", "check/new", "linux.git/HEAD"):
            write(os.path.join(cache, name), "text\n")
            for path in (os.path.join(cache, name), os.path.dirname(os.path.join(cache, name))):
                if "old" in path or "linux" in path:
                    os.utime(path, (time.time() - 15 * 86400,) * 2)
        done = self.verb("setup", "--prune", KVM_TLB_CACHE=cache)
        self.assert_ok(done, cache, "MB")
        self.assertEqual(sorted(digest(cache)), ["check/new", "kernel/new/bzImage", "linux.git/HEAD"])

    def test_disk_is_full(self):
        cache = os.path.join(self.dir, "small")
        with self.unchanged():
            done = self.verb("setup", KVM_TLB_CACHE=cache, KVM_TLB_MIN_KB=str(1 << 50))
        self.assert_refuses(done, "setup", cache, "MB free", "KVM_TLB_CACHE")
        self.assertEqual(done.out, "", "a step ran")
        self.assertEqual(digest(cache), {})


class Lock(VerbTest):
    """Two runs in one clone: the second one must wait."""

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


class NoImage(VerbTest):
    """scripts/boot without anything to boot, with the real ci/build/image."""

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
        # Put a kernel where the rig looks for one, which only a trace of ci/build/kernel shows.
        trace = run(["bash", "-x", self.path("ci/build/kernel"), "series", "rig"], self.env).err
        os.makedirs(re.findall(r"(?m)^\++ out=(.+)$", trace)[0])
        with self.unchanged():
            self.assert_refuses(self.verb("boot", "--", "true"), "boot", "there is no QEMU source in the cache: run scripts/setup")
        self.assertFalse(os.path.exists(os.path.join(cache, "qemu")))
        images = self.path("build/image")
        self.assertEqual(os.listdir(images) if os.path.isdir(images) else [], [])
