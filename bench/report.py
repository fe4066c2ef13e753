#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Merges what the benchmark programs of one object measured, prints the table, and writes it down. Called by scripts/bench.

The table of an object has a line a case: libfence (linked shared, and static), its peers, the ratio, the budget. In docs/benchmarks.md each
object has a section between two marker comments, which is replaced; the others stay. A bar chart of ratio over budget goes beside it.
"""

import argparse
import datetime
import json
import pathlib
import xml.sax.saxutils

INTRODUCTION = """\
<!-- Written by scripts/bench; edit bench/report.py instead. -->
# Benchmarks

`scripts/bench` measures libfence beside what one would write or pick instead, on the machine it runs on. Absolute times differ from
machine to machine; what carries over is the **ratio**: libfence's time divided by the peer's, both taken in turn inside each repeat of
the same run, and the median of that over the repeats. A ratio of 0.5 means half the time. The **budget** is the largest ratio (or, where
it says ns, the longest time) that we accept; `over budget` is a bug report.

- Times are medians, in nanoseconds, for one operation. The spread is the 90th percentile over the 10th; a case that is noisier than 1.3
  is measured up to four times, and the calmest measurement is shown. Where threads race on two CPUs a spread over 1.3 is normal, and
  ratios move by 0.1 from run to run.
- *shared* is linked with libfence.so, *static* with libfence.a. The peers are linked the same way as the library, so a call costs
  everybody a call; nothing uses link-time optimization. Each has a ratio of its own, and **a budget of a ratio counts as met only when
  both meet it**. Budgets in ns are held against the static one: a call into a shared library is 1 ns or more by itself, whatever it calls.
- Work on one thread is measured in CPU time of the thread, hand-over between threads on one CPU in CPU time of the process, and races
  between CPUs on the wall clock. Every process has a second, sleeping thread, since the C library leaves out locked operations while
  there is only one.
- Frees that wait for a grace period happen outside the timed part; *reclaim after* is what they cost, for one operation.
"""

NOTES = {
    "fence": """\
*mutex + condvar* is the fence one would write: a mutex, a condition variable, an atomic count, a list of callbacks that run under the
mutex. It takes no timestamp; libfence does, once a signal, which costs it a clock read (see *the machine*) in every row with a signal in
it; *libfence, time given* is a signal whose caller knew the time. *futex word* has no callbacks. What was budgeted against the Linux
kernel is converted to mutex + condvar; `bench/fence/bench_fence.c` says how.
""",
}

STATIC = " (static)"


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model", "cpu model")):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def is_libfence(row):
    return row["impl"] in ("libfence", "libfence" + STATIC)


def number(value):
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def judged(rows):
    return [row for row in rows if row["budget"] is not None]


def budget_text(row):
    if row["peer"] is None:
        return f"≤ {row['budget']:g} ns"
    return f"≤ {row['budget']:g}"


def verdict(rows):
    if not judged(rows):
        return ""
    return "ok" if all(row["ok"] for row in judged(rows)) else "over budget"


def share(row):
    return (row["ratio"] if row["peer"] else row["ns"]) / row["budget"]


def table(rows):
    """A list of lines of cells, the first of which is the head."""
    head = ["", "libfence, shared", "static", "spread", "peer", "its ns", "ratio, shared", "static", "budget", "", "others, ns"]
    lines = [head]
    names = list(dict.fromkeys(row["case"] for row in rows))
    for name in names:
        of_case = [row for row in rows if row["case"] == name]
        ours = {row["impl"].endswith(STATIC): row for row in of_case if is_libfence(row)}
        shared, static = ours.get(False), ours.get(True)
        main = shared or static
        others = [row for row in of_case if not is_libfence(row) and not row["impl"].endswith(STATIC)]
        peer = next((row for row in others if row["impl"] == main["peer"]), None)

        def cell(row, key, form):
            return form(row[key]) if row and row[key] is not None else ""

        lines.append([
            name,
            cell(shared, "ns", number),
            cell(static, "ns", number),
            cell(main, "spread", "{:.2f}".format),
            main["peer"] or "",
            cell(peer, "ns", number),
            cell(shared, "ratio", "{:.2f}".format),
            cell(static, "ratio", "{:.2f}".format),
            "".join(map(budget_text, judged(ours.values())[:1])),
            verdict(ours.values()),
            "; ".join(f"{row['impl']} {number(row['ns'])}" for row in others if row is not peer),
        ])
    return lines


def print_table(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) if i in (0, 4, 9, 10) else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def markdown(lines):
    align = ["---" if i in (0, 4, 9, 10) else "---:" for i in range(len(lines[0]))]
    rows = [lines[0], align] + [[f"**{cell}**" if cell == "over budget" else cell for cell in line] for line in lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows) + "\n"


def chart(rows):
    """One bar a judged case, for the worse of shared and static: measured over budget, so that what ends left of the line is met."""
    bars = []
    for name in dict.fromkeys(row["case"] for row in rows):
        of_case = judged(row for row in rows if row["case"] == name)
        if of_case:
            worst = max(of_case, key=share)
            value = worst["ratio"] if worst["peer"] else worst["ns"]
            bars.append((name, share(worst), worst["ok"], f"{value:.2f} of {budget_text(worst)[2:]}"))
    left, unit, step, top = 330, 300, 24, 34
    width, height = left + int(unit * 1.5) + 130, top + step * len(bars) + 14
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="16" fill="#555">measured over budget, the worse of shared and static</text>',
    ]
    for i, (name, part, good, label) in enumerate(bars):
        y = top + step * i
        length = unit * min(part, 1.5)
        out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end" fill="#222">{xml.sax.saxutils.escape(name)}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="17" rx="2" fill="{"#3a7d44" if good else "#c0392b"}"/>')
        out.append(f'<text x="{left + max(length, unit) + 8:.1f}" y="{y + 13}" fill="#222">{label}</text>')
    out.append(f'<path d="M{left + unit} {top - 8}V{height - 8}" stroke="#222" stroke-dasharray="4 3"/>')
    out.append("</svg>\n")
    return "\n".join(out)


def write_docs(path, obj, rows, lines):
    begin, end = f"<!-- begin {obj} -->", f"<!-- end {obj} -->"
    picture = path.with_name(f"benchmarks-{obj}.svg")
    picture.write_text(chart(rows))
    section = "\n".join([
        begin,
        f"## {rows[0]['table']}",
        "",
        f"{datetime.date.today().isoformat()}, {cpu_model()}.",
        "",
        NOTES.get(obj, ""),
        markdown(lines),
        f"![measured over budget]({picture.name})",
        end,
    ])
    sections = {}
    if path.exists():
        for part in path.read_text().split("<!-- begin ")[1:]:
            name = part.split(" -->", 1)[0]
            sections[name] = "<!-- begin " + part.rstrip() + "\n"
    sections[obj] = section + "\n"
    path.write_text(INTRODUCTION + "\n" + "\n".join(sections[name] for name in sorted(sections)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("object")
    parser.add_argument("measured", nargs="+", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, help="where to write all rows as JSON")
    parser.add_argument("--docs", type=pathlib.Path, help="the Markdown file to put the table into")
    args = parser.parse_args()

    rows = [row for path in args.measured for row in json.loads(path.read_text())]
    if not rows:
        print("no such case")
        return
    if args.results:
        args.results.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    lines = table(rows)
    print_table(lines)
    if args.docs:
        write_docs(args.docs, args.object, rows, lines)


main()
