# SPDX-License-Identifier: GPL-2.0-only
"""Write the figures of ci/bench/bench.py as one self-contained HTML page, with curves by gnuplot and a table of all numbers."""
import html
import os
import subprocess

# Memory references of a nested page walk, four levels in each dimension, without paging-structure caches.
REFERENCES = 24
STYLE = """body { font: 15px/1.45 sans-serif; max-width: 78em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
figure { display: inline-block; margin: 0 1em 1em 0 } figcaption { font-weight: bold } table { border-collapse: collapse }
th, td { padding: .15em .8em; text-align: right } th { border-bottom: 2px solid #888 } td:first-child, th:first-child,
td:nth-child(2), th:nth-child(2) { text-align: left } tr.base td { border-top: 1px solid #ccc } td.less { background: #d9efdb } td.more { background: #f6d9d6 }"""
COLORS = {"base": "#b2182b", "series": "#2166ac"}
COLUMNS = (("flush_asid", "ASID flushes", 3), ("flush_all", "full flushes", 3), ("walks", "page walks", 2), ("vmrun", "VMRUNs", 2),
           ("reloads", "VMCB reloads", 2), ("bytes", "bytes per VM", 0), ("instructions", "L0\u2019s instructions", 0))


def svg(xlabel, ylabel, lines):
    """Return one chart as SVG; lines maps names to [(x, y)]."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    # Space the values evenly: they grow by factors, and one of them is zero.
    place = {x: i for i, x in enumerate(xs)}
    script = ["set terminal svg size 540,300 font 'sans,12' noenhanced", "set grid ytics lc rgb '#dddddd'", "set border 3", "set tics nomirror",
              "set yrange [0:*]", f"set xrange [-0.3:{len(xs) - 0.7}]", "set key outside top right horizontal", f"set xlabel '{xlabel}'", f"set ylabel '{ylabel}'",
              "set xtics (" + ", ".join(f"'{x}' {place[x]}" for x in xs) + ")",
              "plot " + ", ".join(f"'-' with linespoints lw 2 pt 7 ps 0.6 lc rgb '{COLORS.get(name, '#888888')}' title '{name}'" for name in lines)]
    for points in lines.values():
        script += [f"{place[x]} {y}" for x, y in points] + ["e"]
    done = subprocess.run(["gnuplot"], input="\n".join(script) + "\n", stdout=subprocess.PIPE, check=True, encoding="utf-8")
    # Drop the XML header: the chart becomes part of a page.
    return done.stdout[done.stdout.index("<svg"):]


def rows(scenario, got):
    for kernel, f in got.items():
        cells = [html.escape(scenario.title) if kernel == "base" else "", kernel]
        row = "".join(f"<td>{c}</td>" for c in cells)
        for counter, _, digits in COLUMNS:
            base = got["base"][counter]
            # Ignore differences of up to two thousandths, which a timer tick causes.
            kind = "" if kernel == "base" or abs(f[counter] - base) <= 0.002 * max(base, 10) else " class=less" if f[counter] < base else " class=more"
            row += f"<td{kind}>{f[counter]:.{digits}f}</td>"
        ratio = f["instructions"] / got["base"]["instructions"]
        yield f"<tr{' class=base' if kernel == 'base' else ''}>{row}<td>{ratio:.3f}</td><td>{f['walks'] * REFERENCES:.0f}</td></tr>"


def write(path, scenarios, figures, curves):
    """scenarios: those that were measured; figures: name -> kernel -> counter -> count per turn; curves: as in bench.py."""
    out = ["<!DOCTYPE html><html lang=en><meta charset=utf-8><title>kvm_tlb_tags: base and series</title>", f"<style>{STYLE}</style>",
           "<h1>TLB flushes and page walks, base and series</h1>",
           "<p>All counts are per turn of a vCPU; for L2s, a turn is a round trip from L1 to L2 and back. They come from QEMU's TLB model, an "
           "emulated AMD processor whose TLB keeps each entry as long as the architecture allows, and from a clock that counts instructions. "
           "These are exact event counts, not times. <code>scripts/bench</code> repeats the measurement.</p>"]
    for title, xlabel, counter, names in curves:
        lines = {}
        for x, name in names.items():
            for kernel, f in figures.get(name, {}).items():
                if kernel in COLORS:
                    lines.setdefault(kernel, []).append((x, f[counter]))
        if all(len(points) > 1 for points in lines.values()) and lines:
            ylabel = next(label for c, label, _ in COLUMNS if c == counter)
            out.append(f"<figure><figcaption>{html.escape(title)}</figcaption>{svg(xlabel, ylabel, lines)}</figure>")
    head = "".join(f"<th>{label}</th>" for label in ("Scenario", "Kernel", *(l for _, l, _ in COLUMNS), "\u00d7 base", "references"))
    out.append(f"<table><tr>{head}</tr>")
    for s in scenarios:
        out += rows(s, figures[s.name])
    out.append(f"</table><p>\u00d7 base: instructions, relative to the base. References: the most memory references that the page walks can take, {REFERENCES} "
               "each (two dimensions of four levels). VMCB reloads: groups of fields that VMRUN had to read again because they were not clean. "
               "Bytes per VM: the kernel's memory for the VM and its process, without the memory of the guest and of the process itself. "
               "part-nested is the series without part contexts. Other kernels are alternative designs (ci/alternatives); "
               "\u201cswitch\u201d is the kernel that contains all of them, with none switched on.</p></html>")
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
    os.replace(path + ".new", path)
