# SPDX-License-Identifier: GPL-2.0-only
"""What the checks of pages in docs/ share: reading files of the project, and collecting mistakes."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The subject of a patch, maybe on several lines, without [PATCH].
SUBJECT = re.compile(r"^Subject: (?:\[[^]]*\] ?)?(.*(?:\n[ \t].*)*)", re.M)
NAME = os.path.splitext(os.path.basename(sys.argv[0]))[0]

mistakes = []


def mistake(where, what):
    mistakes.append(f"{NAME}: {where}: {what}")


def give_up(what):
    sys.exit(f"{NAME}: {what}")


def read(path):
    try:
        with open(os.path.join(TOP, path), encoding="utf-8") as f:
            return f.read()
    except (OSError, UnicodeDecodeError) as e:
        return give_up(f"{path} cannot be read ({e.strerror if isinstance(e, OSError) else 'not UTF-8'}): git checkout {path}")


def subject(patch):
    """Return the subject of a patch, given as text, on one line; empty if it has none."""
    found = SUBJECT.search(patch)
    return " ".join(found[1].split()) if found else ""
