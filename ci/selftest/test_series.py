# SPDX-License-Identifier: GPL-2.0-only
"""Tests of mistakes in series, patches/ and selftests/."""
import os
import re

from world import NESTED, VerbTest, World, listed, read, run, write


class BadSeries(VerbTest):
    """Each way in which patches/ and series can be wrong, with each command that reads them."""

    def setUp(self):
        super().setUp()
        self.names = listed(World.series["series"])

    def make_corrupt(self):
        # Remove a line of a hunk, but leave its header, which counts the line.
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
        # Skip shellcheck: the scripts are the same in all of these tests.
        tools = os.path.join(self.dir, "tools")
        os.mkdir(tools)
        os.symlink("/bin/true", os.path.join(tools, "shellcheck"))
        with self.unchanged():
            done = self.verb("check", "--quick", PATH=tools + ":" + self.env["PATH"])
        self.assertEqual(done.status, 1, done)
        # The command fails a check or refuses to begin; both messages name the patch.
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


class Upto(VerbTest):
    """What a kernel with the first patches of the series ends with, see ci/build/part."""

    def upto(self, what):
        done = run(["bash", "-c", '. "$0"; in_series_upto "$1"', self.path("ci/lib/common.sh"), what], self.env)
        return done.out.split(), done.err

    def test_part_number_or_subject(self):
        names = listed(World.series["series"])
        self.assertEqual(self.upto("two")[0], names)
        for name in (n for n in names if n.startswith("patches/")):
            subject = re.search(r"^Subject: (?:\[[^]]*\] )?(.*)", read(self.path(name)), re.M)[1]
            for what in (subject, name[8:12], name[8:12].lstrip("0")):
                self.assertEqual(self.upto(what)[0], names[:names.index(name) + 1], what)

    def test_unknown(self):
        for what in ("three", "99", ""):
            out, err = self.upto(what)
            self.assertEqual(out, [])
            self.assertIn(f'no kernel patch "{what}"', err)


for _make in [n for n in dir(BadSeries) if n.startswith("make_")]:
    for _verb in ("apply", "tree", "build"):
        setattr(BadSeries, f"test_{_make[5:]}_{_verb}", lambda self, v=_verb, m=_make: self.refused(v, getattr(self, m)))
    if _make not in ("make_edited", "make_not_a_patch"):
        # For scripts/check, these two are the same as make_corrupt.
        setattr(BadSeries, f"test_{_make[5:]}_check", lambda self, m=_make: self.check(getattr(self, m)))
