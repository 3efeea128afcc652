#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""boot.py IMAGE LEVEL CPUS TIMEOUT [CMD...]: called by scripts/boot."""
import os
import shlex
import signal
import subprocess
import sys
import termios

from guest import Guest, GuestError


def main():
    image, level, cpus, timeout = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    command = shlex.join(sys.argv[5:])
    tty = sys.stdin.isatty()
    saved = termios.tcgetattr(0) if tty else None
    guest = Guest(image, level, cpus, command or "exec sh -i", interactive=not command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if command:
            # The console of the guest turns every newline into two characters; give back what CMD wrote.
            late = None
            if timeout:
                signal.signal(signal.SIGALRM, lambda *_: guest.end())
                signal.alarm(timeout)
            for line in guest.qemu.stdout:
                sys.stdout.buffer.write(line.replace(b"\r\n", b"\n"))
                sys.stdout.buffer.flush()
            guest.qemu.wait()
            if timeout and signal.alarm(0) == 0:
                late = timeout
            return guest.result(late)
        guest.qemu.wait()
        return guest.result()
    except GuestError as e:
        print(e, file=sys.stderr, end="")
        return 125
    except KeyboardInterrupt:
        return 130
    finally:
        guest.close()
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


if __name__ == "__main__":
    sys.exit(main())
