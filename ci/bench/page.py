# SPDX-License-Identifier: GPL-2.0-only
"""Write the figures of ci/bench/bench.py as one self-contained HTML page: a verdict, charts by gnuplot, and a table of all numbers."""
import html
import os
import subprocess

STYLE = """body { font: 15px/1.45 sans-serif; max-width: 78em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
figure { display: inline-block; margin: 0 1em 1em 0 } figcaption { font-weight: bold } table { border-collapse: collapse }
th, td { padding: .15em .8em; text-align: right } th { border-bottom: 2px solid #888 } td:first-child, th:first-child,
td:nth-child(2), th:nth-child(2) { text-align: left } tr.base td { border-top: 1px solid #ccc } td.less { background: #d9efdb } td.more { background: #f6d9d6 }"""
COLORS = {"base": "#b2182b", "series": "#2166ac"}
COLUMNS = (("flush_asid", "ASID flushes", 3), ("flush_all", "full flushes", 3), ("walks", "page walks", 2), ("vmrun", "VMRUNs", 2),
           ("reloads", "VMCB reloads", 2), ("ipis", "IPIs", 2), ("guest_ipis", "guest\u2019s IPIs", 2), ("bytes", "bytes per VM", 0),
           ("instructions", "L0\u2019s instructions", 0))


def svg(xlabel, ylabel, lines):
    """Return one chart as SVG, with a bar for each kernel and value of x; lines maps names of kernels to [(x, y)]."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    # Bars in even distances: the values of x grow by factors, and one of them may be zero.
    place = {x: i for i, x in enumerate(xs)}
    width = 0.8 / len(lines)
    plots, data = [], []
    for i, (name, points) in enumerate(lines.items()):
        at = [(place[x] + (i - (len(lines) - 1) / 2) * width, y) for x, y in points]
        plots += [f"'-' using 1:2 with boxes fs solid lc rgb '{COLORS.get(name, '#888888')}' title '{name}'", "'-' using 1:2:3 with labels offset 0,0.5 font ',9' notitle"]
        data += [f"{x} {y}" for x, y in at] + ["e"] + [f"{x} {y} \"{number(y)}\"" for x, y in at] + ["e"]
    script = ["set terminal svg size 540,300 font 'sans,12' noenhanced", "set grid ytics lc rgb '#dddddd'", "set border 3", "set tics nomirror",
              "set yrange [0:*]", "set offsets 0,0,graph 0.08,0", f"set boxwidth {width}", f"set xrange [-0.6:{len(xs) - 0.4}]", "set key outside top right horizontal",
              f"set xlabel '{xlabel}'", f"set ylabel '{ylabel}'", "set xtics (" + ", ".join(f"'{x}' {place[x]}" for x in xs) + ")", "plot " + ", ".join(plots)]
    done = subprocess.run(["gnuplot"], input="\n".join(script + data) + "\n", stdout=subprocess.PIPE, check=True, encoding="utf-8")
    # Drop the XML header: the chart becomes part of a page.
    return done.stdout[done.stdout.index("<svg"):]


def number(y):
    """Format a count or a share with two digits after the point, if they mean something."""
    y = round(y, 2)
    return f"{y:.0f}" if y >= 100 or y == round(y) else f"{y:.2f}"


def compare(figures, counter, digits):
    """Return how many scenarios have fewer, as many and more of it on the series than on the base, and the largest excess as a share."""
    fewer = equal = more = 0
    most = 0.0
    for got in figures.values():
        if "base" not in got or "series" not in got:
            continue
        base, series = (round(got[k][counter], digits) for k in ("base", "series"))
        # Ignore differences of up to two thousandths, which a timer tick causes.
        if abs(series - base) <= 0.002 * max(base, 10):
            equal += 1
        elif series < base:
            fewer += 1
        else:
            more += 1
            most = max(most, series / base - 1 if base else 0)
    return fewer, equal, more, most


def verdict(figures):
    """Return the sentences of the headline."""
    walks, instructions = compare(figures, "walks", 2), compare(figures, "instructions", 0)
    text = [f"Page walks: fewer than on the base in {walks[0]} scenarios, as many in {walks[1]}, more in {walks[2]}.",
            f"L0's instructions: fewer in {instructions[0]} scenarios, as many in {instructions[1]}, more in {instructions[2]}" +
            (f" (by {instructions[3]:.1%} at most)." if instructions[2] else ".")]
    one = figures.get("nested-w16", {})
    if "base" in one and "series" in one:
        text.append(f"A round trip from L1 to L2 and back, 16 pages: page walks {number(one['base']['walks'])} \u2192 {number(max(0, one['series']['walks']))}, "
                    f"instructions {one['series']['instructions'] / one['base']['instructions'] - 1:+.0%}.")
    return text


def rows(scenario, got):
    for kernel, f in got.items():
        cells = [html.escape(scenario.title) if kernel == "base" else "", kernel]
        row = "".join(f"<td>{c}</td>" for c in cells)
        for counter, _, digits in COLUMNS:
            base = got["base"][counter]
            # Ignore differences of up to two thousandths, which a timer tick causes.
            kind = "" if kernel == "base" or abs(f[counter] - base) <= 0.002 * max(base, 10) else " class=less" if f[counter] < base else " class=more"
            row += f"<td{kind}>{max(0, f[counter]):.{digits}f}</td>"
        ratio = f["instructions"] / got["base"]["instructions"]
        yield f"<tr{' class=base' if kernel == 'base' else ''}>{row}<td>{ratio:.3f}</td></tr>"


def write(path, scenarios, figures, curves, about=""):
    """scenarios: those that were measured; figures: name -> kernel -> counter -> count per turn; curves: as read_curves() of bench.py returns them; about: what was measured."""
    out = ["<!DOCTYPE html><html lang=en><meta charset=utf-8><title>kvm_tlb_tags: base and series</title>", f"<style>{STYLE}</style>",
           "<h1>TLB flushes and page walks, base and series</h1>", "<p>" + "<br>".join(map(html.escape, about.splitlines())) + "</p>",
           "<ul>" + "".join(f"<li><b>{html.escape(v)}</b></li>" for v in verdict(figures)) + "</ul>",
           "<p>All counts are per turn of a vCPU; for L2s, a turn is a round trip from L1 to L2 and back. They come from QEMU's TLB model, an "
           "emulated AMD processor whose TLB keeps each entry as long as the architecture allows, and from a clock that counts instructions. "
           "These are exact event counts, not times. In rows that begin with VMX they come from Bochs, an emulated Intel processor with such a TLB: "
           "INVVPIDs and INVEPTs take the place of flushes, VM entries that of VMRUNs, memory is not measured, and the instructions are those of L0, L1 and L2. "
           "<code>scripts/bench</code> repeats the measurement.</p>"]
    for title, xlabel, counter, names in curves:
        lines = {}
        for x, name in names.items():
            for kernel, f in figures.get(name, {}).items():
                if counter == "instructions":
                    # Relative to the base: the curves would be one on top of the other.
                    if kernel == "series" and "base" in figures[name]:
                        lines.setdefault(kernel, []).append((x, f[counter] / figures[name]["base"][counter]))
                elif kernel in COLORS:
                    lines.setdefault(kernel, []).append((x, max(0, f[counter])))
        if all(len(points) > 1 for points in lines.values()) and lines:
            ylabel = "series : base" if counter == "instructions" else next(label for c, label, _ in COLUMNS if c == counter)
            out.append(f"<figure><figcaption>{html.escape(title)}</figcaption>{svg(xlabel, ylabel, lines)}</figure>")
    head = "".join(f"<th>{label}</th>" for label in ("Scenario", "Kernel", *(l for _, l, _ in COLUMNS), "\u00d7 base"))
    out.append(f"<table><tr>{head}</tr>")
    for s in scenarios:
        out += rows(s, figures[s.name])
    out.append(f"</table><p>\u00d7 base: instructions, relative to the base. VMCB reloads: groups of fields that VMRUN had to read again because they were not clean. "
               "IPIs: what L0's processors send to each other; guest\u2019s IPIs: what L1's kernel sends to flush TLBs, where it does that without an L2. "
               "Bytes per VM: the kernel's memory for the VM and its process, without the memory of the guest and of the process itself. "
               "part-nested, one-vmcb12 and private-lru are kernels with the first patches of the series (ci/bench/kernels). Other kernels are alternative designs (ci/alternatives); "
               "\u201cswitch\u201d is the kernel that contains all of them, with none switched on.</p></html>")
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
    os.replace(path + ".new", path)
