# SPDX-License-Identifier: GPL-2.0-only
"""Boot L0 (QEMU with TCG, or with this machine's KVM) and, inside it, L1 (QEMU with KVM); run one command there and return its exit status."""
import ctypes
import errno
import grp
import os
import re
import shlex
import signal
import subprocess
import tempfile

from clock import Clock

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "build")
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)

# L0's processor for each model; the patches are in ci/qemu/model.  "on": keep translations as long as the architecture allows, and VMCB
# fields until their clean bits are cleared.  "strict": also compare all cached translations with the nested page tables at each VMRUN.
MODELS = {"off": "max,+svm,+npt"}
# Features of a Zen that have a switch each: x-svm-NAME.
ZEN = ("vls", "tsc-ratio", "pause-filter", "lbrv", "pcid")
MODELS["on"] = MODELS["off"] + ",x-svm-tlb=on,x-svm-clean=on,x-svm-asids=64" + "".join(f",x-svm-{name}=on" for name in ZEN)
MODELS["strict"] = MODELS["on"] + ",x-svm-tlb-oracle=2"
# --machine kvm: L0 is a guest of this machine's KVM, and there is no model.
MODELS["kvm"] = "host"
# Megabytes.  L1's memory is a part of L0's.
MEMORY = {0: 4096, 1: 2048}
L1_CPU = "host"
CONSOLE_LINES = 25
CRASH = re.compile(r"\b(BUG|Oops|panic|general protection|triple fault)\b")
# Enough for the registers and the call trace.
CRASH_LINES = 50


class GuestError(Exception):
    """The machine ended, or had to be stopped, without an exit status of its command."""


def die(text):
    raise SystemExit(f"{os.environ.get('KVM_TLB_VERB', 'rig')}: {text}")


def say_where(*command):
    """Return the path that a script in ci/build prints, such as the directory of QEMU."""
    out = subprocess.run([os.path.join(TOP, "ci/build", command[0]), *command[1:]], stdout=subprocess.PIPE, check=False)
    if out.returncode:
        raise SystemExit(out.returncode)
    return out.stdout.decode().splitlines()[-1]


def host_kvm():
    """Return the module of this machine's KVM, kvm_amd or kvm_intel.  Die if this user can't use KVM, or if its guests can't use KVM.

    The environment variable KVM_TLB_HOST names a directory with another /dev, /proc and /sys, for tests.
    """
    root = os.environ.get("KVM_TLB_HOST", "")
    device, instead = root + "/dev/kvm", "or leave out --machine kvm"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        try:
            group = grp.getgrgid(os.stat(device).st_gid).gr_name
        except (OSError, KeyError):
            group = "kvm"
        die(f"this user may not open /dev/kvm: join its group ({group}) and log in again, run as root, {instead}")
    except OSError as e:
        # ENODEV and ENXIO: the file exists, but no module has registered the device.
        if e.errno not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            die(f"cannot open /dev/kvm ({os.strerror(e.errno)}): make it available to this user, {instead}")
        die(f"this machine has no /dev/kvm: enable virtualization in its firmware and load kvm_amd or kvm_intel, {instead}")
    with open(root + "/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        flags = f.read().split()
    if "svm" not in flags and "vmx" not in flags:
        die(f"the processor of this machine has neither SVM nor VMX: enable virtualization in its firmware, {instead}")
    module = "kvm_amd" if "svm" in flags else "kvm_intel"
    try:
        with open(f"{root}/sys/module/{module}/parameters/nested", encoding="ascii") as f:
            nested = f.read().strip()
    except OSError:
        nested = ""
    if nested in ("N", "0"):
        die(f"a guest of this machine cannot run guests ({module} has nested={nested}): end all guests, then, as root, "
            f"modprobe -r {module} && modprobe {module} nested=1, {instead}")
    return module


# Each instruction advances the guest's clocks by one nanosecond, and its TSC by one cycle; nothing else advances them.
ICOUNT = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]


def machine(level, cpus, files, image, kernel, console, status, stdio, serial=(), cpu=None, icount=False, memory=None, disks=(), share=None, kvm=False,
            append=""):
    """Return QEMU's arguments for one level; the levels differ in accelerator and CPU only.  disks: they become /dev/vdb, /dev/vdc, ...
    share: the file system for /share.  cpu: without one, L1's and L2's is L1_CPU.  kvm: L0 is a guest of this machine's KVM.
    append: more parameters of the kernel, with a space before each."""
    accel = ["-accel", "kvm", "-cpu", cpu or L1_CPU] if level or kvm else \
        (ICOUNT if icount else ["-accel", "tcg,thread=multi"]) + ["-cpu", cpu]
    args = accel + [
        "-machine", "q35", "-nodefaults", "-display", "none", "-no-reboot", "-m", str(memory or MEMORY[level]), "-smp", str(cpus),
        "-kernel", kernel, "-append",
        # tsc=reliable: without it, two emulated CPUs that compare their clocks can keep an L1 busy for minutes.
        "console=ttyS0 loglevel=5 panic=-1 root=/dev/vda ro rootfstype=squashfs init=/init nokaslr no_timer_check tsc=reliable" +
        # The kernel passes parameters that it does not know to init as environment variables.
        (f" share=/dev/vd{'bcdefg'[len(disks)]}" if share else "") + append,
        "-drive", f"file={image},format=raw,if=virtio,readonly=on",
        "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console",
        "-device", "virtio-serial-pci",
        "-chardev", stdio, "-device", "virtconsole,chardev=io",
        "-chardev", f"file,id=status,path={status}", "-device", "virtserialport,chardev=status,name=rig.status",
    ]
    for path in serial:
        args += ["-serial", f"file:{path}"]
    for path in disks:
        args += ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe"]
    if share:
        args += ["-drive", f"file={share},format=raw,if=virtio,readonly=on"]
    for name, path in files.items():
        args += ["-fw_cfg", f"name=opt/rig/{name},file={path}"]
    return args


BELOW = """
cat >/tmp/{name}.cmd <<'END-{level}-{name}'
{command}
END-{level}-{name}
echo '{modules}' >/tmp/{name}.modules
{prefix} vm {name} {qemu}"""


def below(level, name, command, console, memory, disks=(), prefix="", cpu=None, kernel="/boot/bzImage", initrd=None, modules=None, cpus=1, append="",
          extra=()):
    """Return shell text that boots a guest of this level from its parent level, and ends with its exit status; see ci/guest/vm.
    extra: more arguments for QEMU."""
    args = machine(level, cpus, {k: f"/tmp/{name}.{k}" for k in ("cmd", "modules")}, "/dev/vda", kernel, console,
                   f"/tmp/{name}.status", "stdio,id=io,signal=off", memory=memory, disks=disks, cpu=cpu, append=append)
    if initrd:
        args += ["-initrd", initrd]
    args += extra
    if modules is None:
        modules = "kvm_amd" if level == 1 else ""
    return BELOW.format(level=level, name=name, command=command, modules=modules, prefix=prefix, qemu=shlex.join(args))


class Emulated:
    """What all machines share: a directory for their files, the emulator's process, its clock, the consoles, and the command's exit status.

    A subclass sets consoles, a map from the file of each console to the name of its level.  Messages leave out lines that match noise."""
    emulator, noise = "the emulator", re.compile("(?!)")

    def __init__(self, name):
        os.makedirs(os.path.join(BUILD, "tmp"), exist_ok=True)
        self.dir = tempfile.TemporaryDirectory(prefix="rig.", dir=os.path.join(BUILD, "tmp"))
        self.name, self.consoles = name, {}
        self.status = self.path("status")
        self.process = self.clock = None

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def start(self, args, **popen):
        """Start the emulator.  It ends when this process ends."""
        parent = os.getpid()

        def child():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self.process = subprocess.Popen(args, preexec_fn=child, **popen)
        self.clock = Clock(self.process.pid)

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def result(self, timed_out=None):
        """Return the command's exit status after the emulator has ended; if there is none, raise GuestError with the last lines of the consoles.

        timed_out: the limit, in seconds of the clock, after which the guest was stopped.
        """
        try:
            with open(self.status, encoding="utf-8") as f:
                word, _, value = f.read().strip().partition(" ")
            if word == "exit":
                return int(value)
        except (OSError, ValueError):
            pass
        why = f"no end within {timed_out} s" if timed_out else f"it ended without an exit status ({self.emulator}'s was {self.process.returncode})"
        raise GuestError(f"{self.name}: {why}; {self.last_words()}\nend of the console{'s' * (len(set(self.consoles.values())) > 1)}:\n" + self.last_lines())

    def counters(self):
        """Return the TLB model's counters after the emulator has ended, summed over processors and tags; empty without the model."""
        return {}

    def console_lines(self):
        """Return (name of the level, lines) for each console: what it says from its first crash on, or else its last lines; none are blank."""
        for path, name in self.consoles.items():
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    lines = [l.rstrip() for l in f.read().splitlines() if l.strip() and not self.noise.search(l)]
            except OSError:
                lines = []
            crash = next((i for i, l in enumerate(lines) if CRASH.search(l)), None)
            yield name, lines[-CONSOLE_LINES:] if crash is None else lines[crash:crash + CRASH_LINES]

    def last_lines(self):
        return "".join(f"    {name}: {l}\n" for name, lines in self.console_lines() for l in lines)

    def last_words(self):
        """Return the line of the consoles that best tells why the guest died: the first one about a crash, or else the last one."""
        said = [f"{name}: {l}" for name, lines in self.console_lines() for l in lines]
        crash = [l for l in said if CRASH.search(l)]
        return (crash[:1] or said[-1:] or ["the consoles are empty"])[0]

    def close(self):
        self.end()
        self.dir.cleanup()


class Guest(Emulated):
    """One L0, and an L1 in it if level is 1, that runs a command.

    image: a directory that ci/build/image made.  cpus: the number for L0 and, after a slash, for L1 (default 1).
    modules: arguments of modprobe, one string per module, in the level in which the command runs; default: the KVM module of the processor.
    model: a key of MODELS.  cpu: more properties of L0's processor, with a comma before each.  icount: L0's clocks count instructions.
    psp: properties of L0's security processor, with a comma before each; L0 has one if cpu has x-sev=on.
    disks: sizes of L0's empty disks in megabytes.  ports: number of serial ports of L0, for the consoles of guests that the command starts.
    stdin: the command's input if it is not interactive.  share: a directory whose files the guest finds in /share.
    qemu_args: more arguments for L0's QEMU.  append: more parameters of L0's kernel, with a space before each."""
    emulator = "QEMU"

    def __init__(self, image, level=0, cpus=2, command="sh", modules=None, interactive=False, qemu=None,
                 model="on", cpu="", psp="", icount=False, disks=(), ports=0,
                 stdin=subprocess.DEVNULL, share=None, qemu_args=(), append=""):
        super().__init__(f"L{level}")
        cpus = str(cpus)
        module = host_kvm() if model == "kvm" else "kvm_amd"
        if share:
            share, directory = self.path("share"), share
            subprocess.run(["mksquashfs", directory, share, "-noI", "-noD", "-noF", "-noX", "-all-root", "-no-progress", "-quiet"], check=True,
                           stdout=subprocess.DEVNULL)
        own = blobs = {"cmd": command, "modules": "".join(m + "\n" for m in modules or [module])}
        if level == 1:
            # L1's console is L0's second serial port, so that it can be read even if L0 dies.
            l1 = machine(1, cpus.partition("/")[2] or 1, {k: f"/tmp/l1.{k}" for k in ("cmd", "modules")}, "/dev/vda", "/boot/bzImage",
                         "/dev/ttyS1", "/tmp/l1.status", "stdio,id=io,signal=off", share="/dev/vdb" if share else None)
            blobs = {"cmd": "exec l1 " + shlex.join(l1) + "\n", "modules": module + "\n",
                     "l1.cmd": own["cmd"], "l1.modules": own["modules"]}
        paths = {name: self.write(name, text) for name, text in blobs.items()}
        self.consoles = {self.path(f"console{l}"): f"L{min(l, 1)}" for l in range(level + 1 + ports)}
        console, *serial = self.consoles
        self.dump = self.path("svm-tlb")
        if model in ("on", "strict"):
            cpu += f",x-svm-tlb-dump={self.dump}"
        self.psp = self.path("psp") if ",x-sev=on" in cpu else None
        if self.psp:
            qemu_args = ["-device", f"amd-psp,log={self.psp}{psp}", *qemu_args]
        drives = [self.path(f"disk{i}") for i in range(len(disks))]
        for path, size in zip(drives, disks):
            with open(path, "wb") as f:
                f.truncate(size << 20)
        qemu = qemu or say_where("qemu")
        stdio = "stdio,id=io,signal=off" if interactive else "stdio,id=io,signal=on"
        args = [os.path.join(qemu, "qemu-system-x86_64"), "-L", os.path.join(qemu, "share")] + \
            machine(0, cpus.partition("/")[0], paths, os.path.join(image, "root.img"), os.path.join(image, "bzImage"),
                    console, self.status, stdio, serial, MODELS[model] + cpu, icount, disks=drives, share=share, kvm=model == "kvm",
                    append=append) + \
            list(qemu_args)
        self.start(args, stdin=None if interactive else stdin, stdout=None if interactive else subprocess.PIPE,
                   stderr=None if interactive else subprocess.STDOUT)

    def counters(self):
        """Return the TLB model's counters after QEMU has ended, summed over processors and ASIDs; empty without the model."""
        total = {}
        try:
            with open(self.dump, encoding="ascii") as f:
                for word in f.read().split():
                    name, _, value = word.partition("=")
                    total[name] = total.get(name, 0) + int(value)
        except OSError:
            pass
        return total

    def psp_log(self):
        """Return the lines of the security processor's log, one for each command; empty without one."""
        if not self.psp or not os.path.exists(self.psp):
            return []
        with open(self.psp, encoding="ascii") as f:
            return f.read().splitlines()
