#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Merges what the benchmark programs of one object measured, prints the table, and writes it down. Called by scripts/bench.

The table of an object has a line a case: libfence (linked shared, and static), its peers, the ratio, the budget. In docs/benchmarks.md each
object has a section between two marker comments, which is replaced; the others stay. A bar chart of ratio over budget goes beside it, and
the pictures of that object. The first section has a line for each budget, and is made of the others.

Two objects are none: "scaling" is measured by all programs, and has a table for each thing that is counted, with a column for each
number; "summary" prints one table of all budgets of the given files.
"""

import argparse
import datetime
import json
import math
import pathlib
import re
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

`scripts/bench` alone measures everything, which takes about five minutes; `scripts/bench gpuvm` one object, `scripts/bench scaling` how
times and memory grow, `scripts/bench --quick` everything roughly, in two to three minutes. That each benchmark works at all is a test
(`meson test -C build --suite bench`).
"""

NOTES = {
    "fence": """\
*mutex + condvar* is the fence one would write: a mutex, a condition variable, an atomic count, a list of callbacks that run under the
mutex. It takes no timestamp; libfence does, once a signal, which costs it a clock read (see *the machine*) in every row with a signal in
it; *libfence, time given* is a signal whose caller knew the time. *futex word* has no callbacks. What was budgeted against the Linux
kernel is converted to mutex + condvar; `bench/fence/bench_fence.c` says how.
""",
    "containers": """\
The budgets were stated against kernel code or in ns of one machine, on which a pair of pthread_mutex_lock and unlock took 18 ns, so "1.4 x
kernel" of 375 ns became 525 / 18 = 29.2 mutex pairs. A mutex pair is measured in every repeat of every row (*mutex pair*, the peer), and
the ratio is libfence's time in such pairs.

*mutex + condvar* is an array of that fence: a counter, and a callback on each member; merged, its members are sorted by address and each
is taken once. *mutex + vector* is a chain of it: points in a vector under a mutex, found by bisection. It collects nothing, knows no
errors and no timestamps. Behind what does the same as libfence stands libfence's share of its time. Each fence that is signaled costs
libfence a clock read. Links, and what they refer to, wait for a grace period before they are freed; the peers free at once.
""",
    "resv": """\
The budgets were stated against kernel code or in ns of one machine, on which a pair of pthread_mutex_lock and unlock took 18 ns, so "1.0 x
kernel" of 36 ns became 36 / 18 = 2 mutex pairs. A mutex pair is measured in every repeat of every row (*mutex pair*, the peer), and the
ratio is libfence's time in such pairs.

*mutex + array* is what one would write: an array of fences (mutex + condvar) under a mutex, in which one of the same context is replaced.
Behind it stands libfence's share of its time. The walks are in CPU time of one reader; more threads than CPUs take turns. Each fence of a
walk is asked whether it is signaled, which is a call: like budgets in ns those of the walks are held against the static library.
""",
    "gpuvm": """\
*std::map* is what one would write: mappings by address, under a std::shared_mutex. *rculfhash* is liburcu's lock-free hash table with an
entry a page: no ranges, no next mapping, no transactions, no versions. For orientation, without any synchronization: *page table*, three
levels of 512 slots, and *static B-tree*, which can only be read. All but that one allocate an object for a mapping where they map, as
libfence does. What was budgeted against kernel code is converted to one of the peers; `bench/gpuvm/bench_gpuvm.c` says how.

One mapping of one page every 64 KiB, random order; *mixed sizes* are 4 KiB to 64 MiB, drawn as in a dump of a real address space. Each
lookup of libfence has its own read section, but for *64 a view*. A reservation is locked once for many transactions, but for *locked
for each*. Another thread's work is measured on the wall.
""",
    "scaling": """\
How time and memory grow, linked shared; no budgets here. Medians of 11 at most, ns for one operation. *Mappings* are of one page each, in random
order, in an address space that holds so many; *in all* counts mapping objects, too. *Links* are those of a chain. *Fences* are in one
reservation, each of a context of its own. `bench/*/bench_*.c` say what is timed, and what the peers are.

*Threads* are up to 16 on two CPUs, so from 4 on they take turns. What is shown is the throughput of all together, in millions a second,
and in parentheses that of each. Where they share a cache line, more threads than CPUs may well be faster: a thread that has a CPU alone
for a while has the line alone.
""",
}

# Times over a number that the names of some cases have: object, file, title, what is below, names of cases by series, logarithmic.
PICTURES = [
    ("containers", "find", "chain: find a random point, ns", "links", [(r"^chain of (\d+): a random point$", "")], True),
    (
        "resv",
        "walk",
        "walk of 16 fences without lock, ns for each",
        "readers",
        [(r"^walk of 16, (\d) readers?, a fence$", ""), (r"^walk of 16, (\d) readers? and a writer, a fence$", ", and a writer")],
        False,
    ),
    ("gpuvm", "lookup", "look up a random address, ns", "mappings", [(r"^lookup, (\d+)$", "")], True),
    ("gpuvm", "map", "map one in a transaction of its own, ns", "mappings", [(r"^map one, (\d+)$", "")], True),
    ("gpuvm", "readers", "look up in 1,000,000, ns each", "readers", [(r"^lookup in 1000000, (\d) readers?(?:, each)?$", "")], False),
    (
        "gpuvm",
        "held",
        "memory that a held version keeps, bytes",
        "mappings of 100,000 that were replaced since",
        [(r"^a version held while (\d+) of 100000 are replaced: kept$", "")],
        True,
    ),
]
# What is counted in tables of scaling, and what the numbers are shown as.
COUNTED = ["mappings", "links", "fences", "threads"]
COLOURS = ["#3a7d44", "#c0392b", "#7fbf7f", "#e59866", "#2e6da4", "#8ab4d8"]

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


def amount(row):
    if "unit" not in row:
        return number(row["ns"])
    return "none" if row["ns"] >= 2**31 - 1 else f"{row['ns']:,.0f} {row['unit']}"


def judged(rows):
    return [row for row in rows if row["budget"] is not None]


def budget_text(row):
    if row["peer"] is None:
        return f"≤ {row['budget']:,g} {row.get('unit', 'ns')}"
    return f"≤ {row['budget']:.3g}"


def verdict(rows):
    if not judged(rows):
        return ""
    return "ok" if all(row["ok"] for row in judged(rows)) else "over budget"


def share(row):
    return (row["ratio"] if row["peer"] else row["ns"]) / row["budget"]


def other_text(row, main):
    """A peer, with libfence's share of its time behind it, if there is more than one way to do it."""
    text = f"{row['impl']} {amount(row)}"
    if main["peer"] != "mutex pair" or row["impl"].startswith(("libfence", "reclaim")):
        return text
    return f"{text} ({main['ns'] / row['ns']:.2f})"


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
            amount(shared) if shared else "",
            amount(static) if static else "",
            cell(main, "spread", "{:.2f}".format),
            main["peer"] or "",
            cell(peer, "ns", number),
            cell(shared, "ratio", "{:.2f}".format),
            cell(static, "ratio", "{:.2f}".format),
            "".join(map(budget_text, judged(ours.values())[:1])),
            verdict(ours.values()),
            "; ".join(other_text(row, main) for row in others if row is not peer),
        ])
    return lines


def print_table(lines, texts=(0, 4, 9, 10)):
    texts = range(texts) if isinstance(texts, int) else texts
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) if i in texts else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def markdown(lines, texts=(0, 4, 9, 10)):
    texts = range(texts) if isinstance(texts, int) else texts
    align = ["---" if i in texts else "---:" for i in range(len(lines[0]))]
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
            bars.append((name, share(worst), worst["ok"], f"{value:,.{0 if 'unit' in worst else 2}f} of {budget_text(worst)[2:]}"))
    left, unit, step, top = 40 + 7 * max((len(name) for name, *_ in bars), default=0), 300, 24, 34
    width, height = left + int(unit * 1.5) + 190, top + step * len(bars) + 14
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


def points_of(rows, patterns):
    """Lists of (x, y) by series."""
    lines = {}
    for pattern, suffix in patterns:
        for row in rows:
            match = re.match(pattern, row["case"])
            if not match or row["impl"].endswith(STATIC) or row["impl"].startswith(("mutex pair", "reclaim")):
                continue
            lines.setdefault(row["impl"] + suffix, []).append((float(match.group(1)), row["ns"]))
    return {name: sorted(points) for name, points in lines.items() if len(points) > 1}


def ticks(values, logarithmic):
    """Places for lines of a grid that includes all values."""
    if logarithmic:
        return [10.0**e for e in range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)]
    step = 10 ** math.floor(math.log10(max(values)))
    step = next(step * part for part in (0.2, 0.5, 1, 2) if max(values) / (step * part) <= 6)
    return [i * step for i in range(math.ceil(max(values) / step) + 1)]


def compact(value):
    """1,000,000 is 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size and value % (size / 10) == 0:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def plot(box, title, below, lines, logarithmic, x_ticks=None, colours=None):
    """Lines over a common grid. y is logarithmic in any case where the highest is far above the lowest."""
    left, top, right, bottom = box
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    log_y = (logarithmic and x_ticks is None) or max(ys) / min(ys) > 20
    x_ticks, y_ticks = x_ticks or (ticks(xs, True) if logarithmic else xs), ticks(ys, log_y)
    colours = colours or {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(lines)}

    def place(value, marks, log, start, end):
        low, high, value = (math.log10(v) if log else v for v in (marks[0], marks[-1], value))
        return start + (end - start) * (value - low) / (high - low)

    out = [f'<text x="{left}" y="{top - 20}" fill="#222">{xml.sax.saxutils.escape(title)}</text>']
    for tick in y_ticks:
        y = place(tick, y_ticks, log_y, bottom, top)
        out.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:,g}</text>')
    for tick in x_ticks:
        x = place(tick, x_ticks, logarithmic, left, right)
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">{compact(tick)}</text>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle" fill="#555">{below}</text>')
    for name, points in lines.items():
        at = [(place(x, x_ticks, logarithmic, left, right), place(y, y_ticks, log_y, bottom, top)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[name]}"/>' for x, y in at]
    return out


def legend(left, top, colours):
    out = []
    for i, (name, colour) in enumerate(colours.items()):
        out.append(f'<rect x="{left}" y="{top + 22 * i}" width="14" height="14" fill="{colour}"/>')
        out.append(f'<text x="{left + 22}" y="{top + 22 * i + 12}" fill="#222">{xml.sax.saxutils.escape(name)}</text>')
    return out


def svg(width, height, elements):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *elements,
        "</svg>\n",
    ])


def picture(title, below, lines, logarithmic):
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(lines)}
    elements = plot((70, 40, 480, 300), title, below, lines, logarithmic, colours=colours)
    return svg(780, 345, elements + legend(520, 40, colours))


# --- Scaling -------------------------------------------------------------------------------------------------------------


def counted(rows, what):
    """By operation and implementation: what was measured, by number."""
    series = {}
    for row in rows:
        match = re.match(rf"^(.*?),? (\d+) {what}$", row["case"])
        if match and row["impl"] != "reclaim after":
            series.setdefault((match.group(1), row["impl"]), {})[int(match.group(2))] = row
    return series


def throughput(row, threads):
    rate = 1000 / row["ns"]
    return rate if threads is None else rate / threads


def three_digits(value):
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def scaling_cell(what, row, n):
    if row is None:
        return ""
    if what == "threads":
        return f"{three_digits(throughput(row, None))} ({three_digits(throughput(row, n))})"
    return amount(row)


def scaling_table(series, what):
    numbers = sorted({n for points in series.values() for n in points})
    head = ["", "", *(f"{n:,} {what if n > 1 else what[:-1]}" if i == 0 else f"{n:,}" for i, n in enumerate(numbers))]
    lines = [head]
    before = None
    for (operation, impl), points in series.items():
        lines.append([operation if operation != before else "", impl, *(scaling_cell(what, points.get(n), n) for n in numbers)])
        before = operation
    return lines


def scaling_picture(series, what):
    """A small plot for each operation, three a line."""
    operations = list(dict.fromkeys(operation for operation, _ in series))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(impl for _, impl in series))}
    columns, width, height = 3, 380, 260
    elements = []
    for i, operation in enumerate(operations):
        left, top = width * (i % columns), height * (i // columns)
        lines = {}
        for (of, impl), points in series.items():
            if of == operation:
                value = (lambda row: throughput(row, None)) if what == "threads" else (lambda row: max(row["ns"], 0.1))
                lines[impl] = sorted((n, value(row)) for n, row in points.items())
        numbers = sorted({n for points in lines.values() for n, _ in points})
        unit = next(iter(series[operation, next(iter(lines))].values())).get("unit", "ns")
        title = f"{operation}, {'million/s in all' if what == 'threads' else unit}"
        if len(numbers) > 1:
            elements += plot((left + 62, top + 40, left + 350, top + 205), title, what, lines, True, numbers, colours)
    rows = (len(operations) + columns - 1) // columns
    last = len(operations) % columns
    place = (width * last + 62, height * (rows - 1) + 40) if last else (62, height * rows + 10)
    return svg(width * columns, height * rows + (0 if last else 22 * len(colours) + 20), elements + legend(*place, colours))


def scaling_section(path, rows):
    """Tables, and the lines of Markdown with pictures if there is a path."""
    parts, tables = [], []
    for what in COUNTED:
        series = counted(rows, what)
        if not series:
            continue
        lines = scaling_table(series, what)
        tables.append(lines)
        if path:
            file = path.with_name(f"benchmarks-scaling-{what}.svg")
            file.write_text(scaling_picture(series, what))
            parts += [markdown(lines, 2), f"![{what}]({file.name})", ""]
    return tables, "\n".join(parts).rstrip() + "\n"


# --- Writing it down -----------------------------------------------------------------------------------------------------


def write_pictures(path, obj, rows):
    """Returns the lines of Markdown that show them."""
    shown = []
    for picture_obj, suffix, title, below, patterns, logarithmic in PICTURES:
        lines = points_of(rows, patterns) if picture_obj == obj else {}
        if lines:
            file = path.with_name(f"benchmarks-{obj}-{suffix}.svg")
            file.write_text(picture(title, below, lines, logarithmic))
            shown.append(f"![{title}]({file.name})")
    return shown


def read_sections(path):
    sections = {}
    if path.exists():
        for part in path.read_text().split("<!-- begin ")[1:]:
            name = part.split(" -->", 1)[0]
            sections[name] = "<!-- begin " + part.rstrip() + "\n"
    return sections


def summary_of_rows(rows):
    """A line a budget, for the worse of shared and static."""
    lines = []
    for key in dict.fromkeys((row["table"], row["case"]) for row in rows):
        of_case = judged(row for row in rows if (row["table"], row["case"]) == key)
        if of_case:
            worst = max(of_case, key=share)
            measured = f"{worst['ratio']:.2f} x {worst['peer']}" if worst["peer"] else amount(worst) + (" ns" if "unit" not in worst else "")
            lines.append([*key, measured, budget_text(worst), f"{100 * share(worst):.0f} %", verdict(of_case)])
    return lines


SUMMARY_HEAD = ["table", "row", "measured", "budget", "of it", ""]


def write_section(path, obj, text):
    sections = read_sections(path)
    sections[obj] = f"<!-- begin {obj} -->\n{text}<!-- end {obj} -->\n"
    order = sorted(sections, key=lambda name: (name != "summary", name))
    path.write_text(INTRODUCTION + "\n" + "\n".join(sections[name] for name in order))


def write_docs(path, obj, rows, lines):
    bars = path.with_name(f"benchmarks-{obj}.svg")
    head = [f"## {rows[0]['table']}", "", f"{datetime.date.today().isoformat()}, {cpu_model()}.", "", NOTES.get(obj, "")]
    if obj == "scaling":
        head[0] = "## Scaling"
        body = [scaling_section(path, rows)[1]]
    else:
        bars.write_text(chart(rows))
        body = [markdown(lines), f"![measured over budget]({bars.name})", *write_pictures(path, obj, rows), ""]
    write_section(path, obj, "\n".join(head + body))


def write_summary(path, lines):
    over = [line for line in lines if line[-1] != "ok"]
    text = [
        "## All budgets",
        "",
        f"{datetime.date.today().isoformat()}, {cpu_model()}. {len(lines)} budgets, {len(lines) - len(over)} of them met; of each the worse of",
        "shared and static. What limits the others is said behind their tables.",
        "",
        markdown([SUMMARY_HEAD, *lines], 2),
    ]
    write_section(path, "summary", "\n".join(text))


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
    if args.object == "summary":
        lines = summary_of_rows(rows)
        print_table([SUMMARY_HEAD, *lines], 2)
        print(f"{len(lines)} budgets, {sum(line[-1] != 'ok' for line in lines)} over")
        if args.docs:
            write_summary(args.docs, lines)
        return
    lines = table(rows)
    if args.object == "scaling":
        for each in scaling_section(None, rows)[0]:
            print_table(each, 2)
            print()
    else:
        print_table(lines)
    if args.docs:
        write_docs(args.docs, args.object, rows, lines)


main()
