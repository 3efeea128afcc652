#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""boot.py [--share DIR] [--vmx] [--qemu-arg ARG] -- IMAGE LEVEL CPUS TIMEOUT MODEL [CMD...]: boot a guest; called by scripts/boot.

CPUS and MODEL: see guest.py.  --vmx: boot the machine with VMX, see bochs.py.
"""
import argparse
import re
import shlex
import signal
import sys
import termios
import threading
import time

from bochs import BochsGuest
from guest import Guest, GuestError


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--share")
    parser.add_argument("--vmx", action="store_true")
    parser.add_argument("--qemu-arg", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("level", type=int)
    parser.add_argument("cpus")
    parser.add_argument("timeout", type=int)
    parser.add_argument("model")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    timeout, command = args.timeout, shlex.join(args.command)
    tty = sys.stdin.isatty()
    saved = termios.tcgetattr(0) if tty else None
    guest = late = None

    def watch():
        nonlocal late
        while guest.clock.now() < timeout:
            time.sleep(1)
        late = timeout
        guest.process.kill()

    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda signum, _: sys.exit(128 + signum))
    try:
        run = {"command": command or "exec sh -i", "interactive": not command, "model": args.model, "share": args.share}
        if args.vmx:
            guest = BochsGuest(args.image, args.cpus, **run)
        else:
            guest = Guest(args.image, args.level, args.cpus, qemu_args=args.qemu_arg, **run)
        if timeout:
            # Use a thread, not a timer signal: on a busy machine the next signal would arrive before the clock has been read.
            threading.Thread(target=watch, daemon=True).start()
        if command:
            # Remove the carriage returns that each level's terminal adds, to pass on exactly the output of CMD.
            for line in guest.process.stdout:
                sys.stdout.buffer.write(re.sub(rb"\r+\n", b"\n", line))
                sys.stdout.buffer.flush()
        guest.process.wait()
        return guest.result(late)
    except GuestError as e:
        print(e, file=sys.stderr, end="")
        return 125
    except KeyboardInterrupt:
        return 130
    finally:
        if guest:
            guest.close()
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


if __name__ == "__main__":
    sys.exit(main())
