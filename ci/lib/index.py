#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""index.py RESULTS ABOUT PART...: write RESULTS/index.html, with the result of each part and links; called by scripts/test.

ABOUT: lines that name the tested versions.  PART: NAME=FILE as for tap.py --join, in the order in which the parts ran.
"""
import html
import os
import sys

import tap

STYLE = """body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em 1em .2em 0; text-align: left; border-bottom: 1px solid #ddd }
td.n { text-align: right } .bad { color: #b00 } .good { color: #070 } pre { background: #f6f6f6; padding: .5em; overflow: auto }"""
NAMES = ("passed", "failed", "skipped")
# Files, the part that writes each of them, or "" for all parts, and what they are.
OTHERS = (("bench.html", "bench", "costs of a turn, as curves and a table"), ("foreign.tsv", "foreign", "what other hypervisors as L1 cost"),
          ("run/selftests.tsv", "run", "table of the selftests"), ("test.ktap", "", "all results as KTAP"), ("junit.xml", "", "all results as JUnit"))


def link(results, path, text):
    return f'<a href="{html.escape(path)}">{html.escape(text)}</a>' if os.path.exists(os.path.join(results, path)) else ""


def main():
    results, about, parts = sys.argv[1], sys.argv[2], sys.argv[3:]
    rows, total, failures = "", [0, 0, 0], ""
    for part in parts:
        name, _, path = part.partition("=")
        counts, failed = [0, 1, 0] if path == "!" else [1, 0, 0], []
        if path and path != "!":
            with open(path, encoding="utf-8", errors="replace") as f:
                lines = f.read().splitlines()
            # Indent the lines, so that failed_ktap() takes them as subtests.
            counts, failed = tap.count(lines), tap.failed_ktap(["  " + l for l in lines])
        total = [a + b for a, b in zip(total, counts)]
        rows += (f"<tr><td>{html.escape(name)}</td><td class={'bad' if counts[1] else 'good'}>{'failed' if counts[1] else 'passed'}</td>" +
                 "".join(f"<td class=n>{c}</td>" for c in counts) +
                 f"<td>{link(results, name + '.out', 'log')} {link(results, name + '.ktap', 'KTAP')}</td></tr>\n")
        failures += "".join(f"<h3>{html.escape(name)}: {html.escape(case)}</h3>\n<pre>{html.escape(chr(10).join(said))}</pre>\n" for case, said in failed)
    bad = total[1]
    ran = [p.partition("=")[0] for p in parts]
    others = "".join(f"<li>{link(results, path, what)}</li>\n" for path, part, what in OTHERS if part in ["", *ran] and link(results, path, what))
    text = f"""<!DOCTYPE html>
<meta charset="utf-8"><title>{'FAILED' if bad else 'passed'}: TLB tags for KVM</title><style>{STYLE}</style>
<h1 class={'bad' if bad else 'good'}>{', '.join(f'{n} {what}' for n, what in zip(total, NAMES))}</h1>
<p>{'<br>'.join(map(html.escape, about.splitlines()))}</p>
<table><tr><th>part</th><th></th>{''.join(f'<th>{n}</th>' for n in NAMES)}<th></th></tr>
{rows}</table>
{failures and '<h2>What failed</h2>'}
{failures}<ul>
{others}</ul>
"""
    path = os.path.join(results, "index.html")
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".new", path)


if __name__ == "__main__":
    main()
