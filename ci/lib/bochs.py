# SPDX-License-Identifier: GPL-2.0-only
"""Boot the machine with VMX (Bochs), run one command there and return its exit status."""
import os
import pty
import re
import select
import stat
import struct
import subprocess
import sys
import termios
import threading
import tty

from guest import Emulated, GuestError, say_where

# The model of the processor.  Linux does not boot on the newer ones of Bochs 3.0, and the older ones lack features of VMX.
CPU = "corei7_skylake_x"
# Instructions per second of the devices' clocks.  Nothing else advances any clock, so no time limit in the machine depends on the host.
IPS = 50000000
# Bochs treats a BIOS with another name as flash memory.
BIOS = "BIOS-bochs-latest"
# The TLB with VPIDs of ci/bochs/model, by the name of the model: "on" keeps translations across VM entries and exits until a flush, and "strict"
# also compares them with EPT at each VM entry.
MODELS = {"off": 0, "on": 1, "strict": 2}
# Megabytes of memory.
MEMORY = 1024
# Addresses in memory: of the kernel's real-mode part, its command line, the rest of the kernel, and the initramfs; see ci/bochs/boot.S.
REAL, TEXT, KERNEL, INITRD = 0x90000, 0x9e000, 0x100000, 0x20000000
CMDLINE = "console=ttyS0,115200 loglevel=5 panic=-1 nokaslr no_timer_check tsc=reliable"
# Serial ports: the console, the command's input and output, and its exit status; see ci/guest/init.
CONFIG = """\
config_interface: textconfig
display_library: nogui
cpu: model={cpu}, count={cpus}, ips={ips}, reset_on_triple_fault=0, vmx_tlb={tlb}
megs: {memory}
clock: sync=none, time0=1700000000
romimage: file={bochs}/{bios}, options=fastboot
vga: extension=none, realtime=0
vgaromimage: file={bochs}/boot.rom
pci: enabled=1, chipset=i440fx
optramimage1: file={dir}/real, address={real:#x}
optramimage2: file={dir}/kernel, address={kernel:#x}
optramimage3: file={image}/initrd, address={initrd:#x}
optramimage4: file={dir}/more, address={end:#x}
com1: enabled=1, mode=file, dev={dir}/console
com2: enabled=1, {port}
com3: enabled=1, mode=file, dev={dir}/status
ata0: enabled=0
ata1: enabled=0
mouse: enabled=0
log: -
logprefix: %t%e%d
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""


def split(path, cmdline, initrd_size):
    """Return the two parts of a bzImage, with what a boot loader writes into its header; see Documentation/arch/x86/boot.rst."""
    with open(path, "rb") as f:
        image = f.read()
    if image[0x202:0x206] != b"HdrS":
        raise GuestError(f"VMX: {path} is not a kernel: remove {os.path.dirname(path)}, and rerun\n")
    at = (image[0x1f1] + 1) * 512
    real, rest = bytearray(image[:at]), image[at:]
    struct.pack_into("<H", real, 0x1fa, 0xffff)                         # vid_mode: normal
    struct.pack_into("<BB", real, 0x210, 0xff, real[0x211] | 0x80)      # type_of_loader; loadflags: heap_end_ptr is valid
    struct.pack_into("<II", real, 0x218, INITRD, initrd_size)           # ramdisk_image, ramdisk_size
    struct.pack_into("<H", real, 0x224, TEXT - REAL - 0x200)            # heap_end_ptr
    struct.pack_into("<I", real, 0x228, TEXT)                           # cmd_line_ptr
    return bytes(real).ljust(TEXT - REAL, b"\0") + cmdline.encode().ljust(0x1000, b"\0"), rest


def pack(directory):
    """Return a cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst), which the kernel unpacks as a part of its initramfs.
    It has no times and inode numbers of the host, so that runs of one command have the same memory."""
    names = sorted(os.path.relpath(os.path.join(where, n), directory) for where, dirs, files in os.walk(directory) for n in dirs + files)
    archive = bytearray()
    for number, name in enumerate(names + ["TRAILER!!!"]):
        path, mode, data = os.path.join(directory, name), 0, b""
        if number < len(names):
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                data = os.readlink(path).encode()
            elif stat.S_ISREG(mode):
                with open(path, "rb") as f:
                    data = f.read()
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(os.fsencode(name)) + 1, 0)
        for part in (b"070701" + b"".join(b"%08x" % f for f in fields) + os.fsencode(name) + b"\0", data):
            archive += part + bytes(-len(part) % 4)
    return bytes(archive)


class Terminal(threading.Thread):
    """A thread that connects this terminal to that of the guest."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ours, self.guests = pty.openpty()
        self.name_of_guests = os.ttyname(self.guests)
        if sys.stdin.isatty():
            tty.setraw(0)
            flags = termios.tcgetattr(0)
            flags[1] |= termios.OPOST
            termios.tcsetattr(0, termios.TCSADRAIN, flags)

    def run(self):
        # Wait for the first output: what the guest gets before it opens its terminal is lost.
        fds, ended = [self.ours], False
        while True:
            for fd in select.select(fds, [], [])[0]:
                try:
                    text = os.read(fd, 4096)
                except OSError:
                    # The guest's side has been closed.
                    return
                if fd == self.ours:
                    os.write(1, text)
                    fds = fds if ended else [self.ours, 0]
                else:
                    # At the end of the input, send Ctrl-D.
                    os.write(self.ours, text or b"\4")
                    fds, ended = ([self.ours], True) if not text else (fds, ended)

    def end(self):
        """Wait for the last output after the guest has ended."""
        os.close(self.guests)
        self.join(5)


class BochsGuest(Emulated):
    """One machine with VMX that runs a command; the arguments are those of Guest that have a meaning here.

    cpus: their number.  bochs: the directory of Bochs.  image: a directory that ci/build/image made.  model: a key of MODELS.
    append: more parameters of the kernel, with a space before each."""
    emulator = "Bochs"
    # In Bochs' log: Linux reads registers that Bochs lacks, and Bochs says who it is.
    noise = re.compile(r"Unknown register|^=+$|Bochs x86 Emulator|Built from|Timestamp:|BXSHARE|reading configuration|is exiting with|^vmx-tlb:")

    def __init__(self, image, cpus=1, command="sh", modules=None, interactive=False, bochs=None, model="on", share=None, append=""):
        super().__init__("VMX")
        bochs = bochs or say_where("bochs")
        for path in [os.path.join(image, f) for f in ("bzImage", "initrd")] + [os.path.join(bochs, f) for f in ("bochs", "boot.rom", BIOS)]:
            if not os.path.exists(path):
                raise GuestError(f"VMX: {path} is missing: remove {os.path.dirname(path)}, and rerun\n")
        # The names are those of fw_cfg's files.
        for name, text in (("cmd", command), ("modules", "".join(m + "\n" for m in modules or ["kvm_intel"]))):
            os.makedirs(self.path(f"root/rig/{name}"))
            self.write(f"root/rig/{name}/raw", text)
        if share:
            subprocess.run(["cp", "-r", "--", share, self.path("root/share")], check=True)
        # The kernel unpacks one archive after another.
        end, more = INITRD + os.path.getsize(os.path.join(image, "initrd")), pack(self.path("root"))
        real, kernel = split(os.path.join(image, "bzImage"), CMDLINE + append, end + len(more) - INITRD)
        for name, data in (("real", real), ("kernel", kernel), ("more", more)):
            with open(self.path(name), "wb") as f:
                f.write(data)
        self.consoles = {self.path("bochs"): "Bochs", self.path("console"): "VMX"}
        self.terminal = Terminal() if interactive else None
        output = port = None
        if not interactive:
            output, port = os.pipe()
        config = self.write("bochsrc", CONFIG.format(
            cpu=CPU, cpus=cpus, ips=IPS, tlb=MODELS[model], memory=MEMORY, bochs=bochs, bios=BIOS, dir=self.dir.name, image=image, real=REAL, kernel=KERNEL, initrd=INITRD, end=end,
            port=f"mode=term, dev={self.terminal.name_of_guests}" if interactive else f"mode=file, dev=/dev/fd/{port}"))
        with open(self.path("bochs"), "wb") as log:
            self.start([os.path.join(bochs, "bochs"), "-q", "-f", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                       pass_fds=[] if interactive else [port])
        if interactive:
            self.terminal.start()
        else:
            os.close(port)
            self.process.stdout = os.fdopen(output, "rb")

    def counters(self):
        """Return the TLB's counters after Bochs has ended; empty without the model, or if Bochs was killed."""
        with open(self.path("bochs"), encoding="utf-8", errors="replace") as f:
            found = re.findall(r"(?m)^vmx-tlb: (.*)$", f.read())
        return {name: int(value) for line in found for name, value in (w.split("=") for w in line.split())}

    def result(self, timed_out=None):
        if self.terminal:
            self.terminal.end()
        return super().result(timed_out)
