#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""parts.py REPO BASE REV: print a line "PART DIRECTORY COMMIT" for each commit of BASE..REV; called by ci/series/format and scripts/send.

A branch does not record parts.  A commit stays in the part that lists its subject in series.  A new or renamed commit joins the part of the
commit before it, but a kernel commit that follows a selftest begins the next part.  Prints a line "# ..." for each such commit, and for each
part that has no commits left.
"""
import email
import email.policy
import os
import re
import subprocess
import sys

from guest import TOP, die

HEADING = re.compile("# part ([a-z0-9-]+)$")


def subject_of(path):
    """The subject that git am would give the commit, or None if the file is missing, because scripts/export has to restore it."""
    try:
        with open(path, "rb") as f:
            subject = email.message_from_binary_file(f, policy=email.policy.default)["Subject"]
    except OSError:
        return None
    return re.sub(r"^\[PATCH[^]]*\] ", "", " ".join((subject or "").split()))


def read_series():
    """Return the parts in order, and a map from subject to part."""
    parts, part_of = [], {}
    try:
        with open(os.path.join(TOP, "series"), encoding="utf-8") as f:
            lines = [l.strip() for l in f]
    except OSError:
        lines = []
    for line in lines:
        heading = HEADING.match(line)
        if heading and heading[1] not in parts:
            parts.append(heading[1])
        elif line and not line.startswith("#") and parts:
            part_of[subject_of(os.path.join(TOP, line))] = parts[-1]
    if not parts:
        die('series has no heading, so no commit belongs to a part: write "# part NAME" above the patches')
    part_of.pop(None, None)
    return parts, part_of


def read_commits(repo, base, rev):
    """Yield (id, subject, whether it touches only selftests) for each commit."""
    git = ["git", "-C", repo]
    ids = subprocess.run([*git, "rev-list", "--reverse", f"{base}..{rev}"], stdout=subprocess.PIPE, check=True).stdout
    out = subprocess.run([*git, "-c", "core.quotePath=false", "-c", "i18n.logOutputEncoding=UTF-8", "diff-tree", "--stdin", "--always", "-r", "--no-renames",
                          "--name-only", "--format=%x00%H%n%s"], input=ids, stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace")
    for commit in out.split("\0")[1:]:
        c, subject, *files = commit.split("\n")
        files = [f for f in files if f]
        if not files:
            die(f'commit {c[:12]} ("{subject}") is empty: drop it with git rebase')
        yield c, subject, all(f.lstrip('"').startswith("tools/testing/selftests/") for f in files)


def assign(parts, part_of, commits):
    """Yield a line with part, directory and id of each commit; before it, a line "# ..." if series does not list the commit."""
    part, last, selftest = parts[0], "", ""
    for c, subject, is_selftest in commits:
        name = f'{c[:12]} ("{subject}")'
        known = part_of.get(subject)
        new = known or part
        if not known and selftest and not is_selftest and new != parts[-1]:
            new = parts[parts.index(new) + 1]
        if parts.index(new) < parts.index(part):
            die(f"commit {name} belongs to part {new}, but comes after one of part {part}, {last}: reorder the commits with git rebase, "
                "or, if series is right, run scripts/tree --reset")
        if new != part:
            part, selftest = new, ""
        if selftest and not is_selftest:
            die(f"commit {name} comes after a selftest of its part, {part}, {selftest}: selftests come after all kernel patches of a part, "
                "so move it up with git rebase")
        if not known:
            yield f'# new in part {part}: "{subject}" (to change that, move its line in series, then run scripts/tree --reset)'
        last, selftest = name, name if is_selftest else ""
        yield f"{part} {'selftests' if is_selftest else 'patches'} {c}"


def main():
    repo, base, rev = sys.argv[1:]
    parts, part_of = read_series()
    lines = list(assign(parts, part_of, read_commits(repo, base, rev)))
    has = {l.split()[0] for l in lines}
    for line in lines + [f"# part {p} has no commits left" for p in parts if p not in has]:
        print(line)


if __name__ == "__main__":
    main()
