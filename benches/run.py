"""`make bench`: npcache beside its floors and its peers, in one run.

    python3 benches/run.py [--smoke] [--parts PART ...] [--million] [--results]

Builds what it needs in target/, measures, prints a table, and writes target/bench.json and target/bench.svg after every
part. A row is a pair, ours ÷ other, measured in rounds: a block of calls of the one, a block of the other, in alternating
order. Of each round comes one ratio, and what is reported is the median of those; of the times, their medians. Every
native row is measured in several processes, since one may be lucky with where its memory lies.

`--parts` measures some parts and keeps what target/bench.json has of the others. `--results` writes the table into
benches/RESULTS.md, measuring nothing. `--smoke` runs every row, on less, once: it proves that the harness runs. Nothing is
judged by its numbers.
"""

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target"
WORK = TARGET / "bench-work"  # the peers' directories too: one file system
LIBRARY = TARGET / "release" / "libnpcache.so.1"

# The bars of the project, by the row's name: at most, unless negative: at least.
BARS = {
    "memory hit, 16 B of arguments ÷ C++ map": 1.5,
    "memory hits, 2 threads, distinct keys: throughput over that of 1 ÷ private atomics": -0.85,
    "disk hit, 1 KiB ÷ open, read, close": 1.5,
    "disk hit, 100 MiB, first byte ÷ open, fstat, mmap, close": 1.5,
    "disk hit, 100 MiB, of another boot ÷ mapped, xxh3": 1.1,
    "disk hit, 100 MiB, summed ÷ mapped, summed": 1.05,
    "miss, 1 KiB ÷ temporary, write, publish": 1.5,
    "miss, 100 MiB ÷ temporary, write, publish": 1.2,
    "100 MiB argument ÷ sha2 of it by": 1.15,
    "hit at 1000000 entries: our quotient ÷ that at 1000": 1.1,
    "miss at 1000000 entries: our quotient ÷ that at 1000": 1.1,
    "insertion under max_bytes at 10000 entries, mean of all ÷ bare": 1.2,
    "insertion under max_bytes at 1000000 entries, mean of all ÷ bare": 1.2,
    "longest insertion under max_bytes at 10000 entries, apart from its unlinks ÷": 1,
    "longest insertion under max_bytes at 1000000 entries, apart from its unlinks ÷": 1,
    "most bytes at 10000 entries ÷": 1.05,
    "most bytes at 1000000 entries ÷": 1.05,
}
PARTS = ["memory", "disk", "peers", "fresh", "python", "growth", "bounds"]
TITLES = {
    "memory": "Hits in memory, through the C ABI",
    "disk": "Hits from disk and misses, beside bare system calls",
    "peers": "Beside other stores, in one process",
    "fresh": "First hits of processes",
    "python": "Python",
    "growth": "Large directories",
    "bounds": "Insertions under max_bytes",
}
PEERS = ["LMDB", "cacache", "foyer", "joblib", "diskcache", "cachier", "numpy", "C++ map"]
NEW_IN_NS = 1e6


def run(command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def output(command):
    return run(command, stdout=subprocess.PIPE, text=True).stdout


def build(smoke):
    cargo = os.environ.get("CARGO", "cargo")
    manifest = ["--manifest-path", ROOT / "benches/Cargo.toml", "--target-dir", TARGET / "benches"]
    profile = "dev" if smoke else "release"
    run([cargo, "build", "--quiet", "--profile", profile, "--locked", *manifest])
    compiler = os.environ.get("CXX", "g++")
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", f"-I{ROOT}/include", f"-L{LIBRARY.parent}"]
    source, program = ROOT / "benches/memory.cpp", TARGET / "benches/memory"
    run([compiler, *flags, source, f"-Wl,-rpath,{LIBRARY.parent}", "-lnpcache", "-lpthread", "-o", program])
    requirements = ROOT / "benches/requirements.txt"
    ready = TARGET / "venv-bench/ready"
    if not ready.exists() or ready.stat().st_mtime < requirements.stat().st_mtime:
        run([sys.executable, "-m", "venv", TARGET / "venv-bench"])
        pip = [TARGET / "venv-bench/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "-r", requirements])
        ready.touch()


class Rows:
    """What was measured, by name, in the order in which it came."""

    def __init__(self):
        self.rows = {}

    def add(self, name, unit, ours, other):
        known = self.rows.setdefault(name, {"unit": unit, "ours": [], "other": []})
        known["ours"] += ours
        known["other"] += other

    def add_lines(self, text):
        for line in text.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                self.add(row["name"], row["unit"], row["ours"], row["other"])

    def table(self):
        table = []
        for name, row in self.rows.items():
            ratios = [ours / other for ours, other in zip(row["ours"], row["other"])]
            low, high = quartiles(ratios)
            entry = {
                "name": name,
                "ours": statistics.median(row["ours"]),
                "other": statistics.median(row["other"]),
                "ratio": statistics.median(ratios),
                "quartiles": [low, high],
                "unit": row["unit"],
                "repetitions": len(ratios),
            }
            judge(entry)
            table.append(entry)
        return table


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def judge(entry):
    """Adds the bar, if the row has one, and whether it was met."""
    name = entry["name"]
    if name.startswith("npcache_new on 1000000 entries"):
        entry["bar"], entry["met"] = "<= 1 ms", entry["ours"] <= NEW_IN_NS
        return
    for start, bar in BARS.items():
        if name.startswith(start) and not name.startswith(start + ","):
            entry["bar"] = f"<= {bar}" if bar > 0 else f">= {-bar}"
            entry["met"] = entry["ratio"] <= bar if bar > 0 else entry["ratio"] >= -bar
            return
    if any(peer in name.split("÷")[-1] for peer in PEERS) and "memory hit, " not in name:
        entry["bar"], entry["met"] = "< 1", entry["ratio"] < 1


def show(time_ns, unit):
    if unit != "ns":
        return f"{time_ns:.2f} x"
    for scale, suffix in [(1e9, "s"), (1e6, "ms"), (1e3, "µs")]:
        if time_ns >= scale:
            return f"{time_ns / scale:.3g} {suffix}"
    return f"{time_ns:.3g} ns"


def table_lines(table):
    width = max((len(row["name"]) for row in table), default=0)
    yield f"{'ours ÷ other':{width}}  {'ours':>9}  {'other':>9}  {'ratio':>7}  {'quartiles':>15}  {'n':>4}  bar"
    for row in table:
        low, high = row["quartiles"]
        verdict = f"{row['bar']}  {'met' if row['met'] else 'NOT MET'}" if "bar" in row else ""
        line = (
            f"{row['name']:{width}}  {show(row['ours'], row['unit']):>9}  {show(row['other'], row['unit']):>9}  "
            f"{row['ratio']:7.3f}  {low:7.3f} {high:7.3f}  {row['repetitions']:>4}  {verdict}"
        )
        yield line.rstrip()


def measure(part, rows, smoke, million):
    built = TARGET / "benches" / ("debug" if smoke else "release")
    bench, memory = built / "npcache-bench", TARGET / "benches/memory"
    peers = [TARGET / "venv-bench/bin/python", ROOT / "benches/peers.py"]
    passes, rounds = (1, 2) if smoke else (3, 11)
    large = (8 if smoke else 100) << 20
    work = WORK / part
    work.mkdir(parents=True)
    if part == "memory":
        for turn in range(passes):
            rows.add_lines(output([memory, work / str(turn), rounds, 2_000 if smoke else 100_000]))
    elif part in ("disk", "peers"):
        for turn in range(passes):
            rows.add_lines(output([bench, part, work / str(turn), rounds, *(["--smoke"] if smoke else [])]))
    elif part == "fresh":
        first_hits(rows, work, bench, peers, [1 << 10, 1 << 20, large], smoke)
    elif part == "python":
        rows.add_lines(output([*peers, "rows", work, 2 if smoke else 11, large]))
    elif part == "growth":
        grow(rows, work, bench, [100, 1000] if smoke else [1_000, 100_000, 1_000_000], 2 if smoke else 31)
    elif part == "bounds":
        # With a million entries there, a million are inserted.
        for count in [500] if smoke else [10_000, 1_000_000] if million else [10_000]:
            rounds = 2 if smoke else max(count // 250, 100)
            rows.add_lines(output([bench, "bounds", work / str(count), count, rounds]))
            first = count + (rounds + 1) * 250
            add_pauses(rows, bench, work / str(count), count, first, first + (500 if smoke else max(count // 4, 25_000)))


def add_pauses(rows, bench, directory, count, first, last):
    """The longest insertion apart from its victims' unlinks, whose times strace tells."""
    if not shutil.which("strace"):
        say("without strace: pauses are not taken apart from unlinks")
        return
    log = directory / "unlinks"
    traced = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=unlinkat", "-e", "signal=none", "-ttt", "-T", "-o", log]
    slow = [line.split() for line in output([*traced, bench, "pauses", directory, first, last]).splitlines()]
    slow = [(float(began), float(took) / 1e9) for _, began, took in slow]
    apart = [took for _, took in slow]
    i = 0
    with open(log) as unlinks:
        for line in unlinks:
            at, took = float(line.split(maxsplit=2)[1]), float(line.rsplit("<", 1)[1].rstrip(">\n"))
            while i < len(slow) and at > sum(slow[i]):
                i += 1
            if i < len(slow) and at >= slow[i][0]:
                apart[i] -= took
    # What took less than a millisecond with its unlinks was not told.
    longest = max([1e-3, *apart])
    say(f"of {len(slow)} insertions that took 1 ms or more, {max([0, *(took for _, took in slow)]) * 1e3:.0f} ms at most")
    name = f"longest insertion under max_bytes at {count} entries, apart from its unlinks ÷ 50 ms"
    rows.add(name, "ns", [longest * 1e9], [50e6])


def first_hits(rows, work, bench, peers, sizes, smoke):
    """Opening and the first hit, in a process each."""
    native = [(store, [bench]) for store in ["lmdb", "cacache", "foyer"]]
    hosts = [(store, peers) for store in ["joblib", "diskcache", "cachier", "numpy.load mapped"]]
    for size in sizes:
        label = f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"
        for store, program in native + hosts:
            pair = work / f"{size}-{store}"
            pair.mkdir()
            sides = [("ours", "npcache"), ("other", store)]
            times = {"ours": [], "other": []}
            for _, name in sides:
                output([*program, "prepare", name, pair / name, size])
            repetitions = 1 if smoke else 15 if program[0] == bench else 5
            for turn in range(repetitions):
                for side, name in sides if turn % 2 else sides[::-1]:
                    times[side].append(float(output([*program, "fresh", name, pair / name, size])))
            language = "" if program[0] == bench else "Python, "
            shown = {"lmdb": "LMDB"}.get(store, store)
            rows.add(f"{language}first hit of a process, opening included, {label} ÷ {shown}", "ns", **times)


def remove_work():
    """By as many processes as there are cores: a million entries take minutes."""
    parts = [str(part) for pattern in ["*/*/*/*", "*"] for part in sorted(WORK.glob(pattern))]
    cores = len(os.sched_getaffinity(0))
    running = [subprocess.Popen(["rm", "-rf", "--", *parts[i::cores]]) for i in range(cores)]
    for process in running:
        process.wait()
    shutil.rmtree(WORK, ignore_errors=True)


def grow(rows, work, bench, counts, rounds):
    disk = os.statvfs(work)
    if disk.f_favail and disk.f_favail < 1.2 * sum(counts) or disk.f_bavail * disk.f_frsize < 6_000 * sum(counts):
        sys.exit(f"bench: {work} needs {sum(counts)} inodes and {sum(counts) * 6000 >> 20} MiB")
    for count in counts:
        half = count // 2
        fills = [[bench, "fill", work / str(count), *part] for part in [(0, half), (half, count)]]
        running = [subprocess.Popen([str(word) for word in fill]) for fill in fills]
        if any(process.wait() for process in running):
            sys.exit("bench: filling a directory failed")
    say(f"directories of {', '.join(f'{count:,}' for count in counts)} entries made")
    os.sync()
    rows.add_lines(output([bench, "grow", work, rounds, *counts]))
    first = counts[0]
    for what in ["hit", "miss"]:
        small = rows.rows[f"{what} at {first} entries ÷ bare"]
        base = [ours / other for ours, other in zip(small["ours"], small["other"])]
        for count in counts[1:]:
            large = rows.rows[f"{what} at {count} entries ÷ bare"]
            quotients = [ours / other for ours, other in zip(large["ours"], large["other"])]
            rows.add(f"{what} at {count} entries: our quotient ÷ that at {first}", "times", quotients, base)


START = time.monotonic()


def say(what):
    print(f"[{time.monotonic() - START:4.0f} s] {what}", file=sys.stderr, flush=True)


# The chart: SVG by hand, two panels. Colours of one hue a kind, and the bar as a line.

INK, PALE, OURS, OTHER, MISSED = "#1f2933", "#d9dee4", "#1b6ca8", "#9aa5b1", "#c0392b"


def text(x, y, words, anchor="start", size=11, colour=INK, more=""):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}" {more}>{words}</text>'


def growth_panel(table, left, top, width, height, what):
    """Cost against entries, both axes logarithmic."""
    points = {}
    for row in table:
        words = row["name"].split()
        if what == "open" and row["name"].startswith("npcache_new on "):
            points[int(words[2])] = (row["ours"], row["other"])
        elif row["name"].startswith(f"{what} at ") and row["name"].endswith("÷ bare"):
            points[int(words[2])] = (row["ours"], row["other"])
    if not points:
        return []
    counts = sorted(points)
    times = [time for pair in points.values() for time in pair]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))

    def x(count):
        span = math.log10(counts[-1] / counts[0]) or 1
        return left + width * math.log10(count / counts[0]) / span

    def y(time):
        return top + height * (1 - (math.log10(time) - low) / (high - low))

    out = [text(left, top - 12, {"open": "opening", "hit": "a hit", "miss": "a miss"}[what], size=13, more='font-weight="bold"')]
    for power in range(low, high + 1):
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}" stroke="{PALE}"/>')
        out.append(text(left - 6, y(10**power) + 4, show(10**power, "ns"), "end", 10))
    for count in counts:
        out.append(text(x(count), top + height + 16, f"{count:,}", "middle", 10))
    for side, colour in [(1, OTHER), (0, OURS)]:
        path = " ".join(f"{x(count):.1f},{y(points[count][side]):.1f}" for count in counts)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for count in counts:
            out.append(f'<circle cx="{x(count):.1f}" cy="{y(points[count][side]):.1f}" r="3" fill="{colour}"/>')
    return out


def ratio_panel(table, left, top, width, line):
    """A bar a row, logarithmic, from the ratio 1; its bar's tick; the figure. A heading for each part."""
    rows = [row for row in table if row["ratio"] > 0]
    low = min([math.log10(row["ratio"]) for row in rows], default=0)
    high = max([math.log10(row["ratio"]) for row in rows], default=0)
    low, high = min(low, -1) - 0.1, max(high, 0.5) + 0.1

    def x(ratio):
        return left + width * (math.log10(ratio) - low) / (high - low)

    out, y, part = [], top, None
    for row in rows:
        if row["part"] != part:
            part = row["part"]
            y += 2 * line
            out.append(text(left - 8, y - line * 0.4, TITLES[part], "end", 12, more='font-weight="bold"'))
        start, end = sorted([x(1), x(row["ratio"])])
        colour = MISSED if row.get("met") is False else OURS
        out.append(text(left - 8, y + line * 0.7, row["name"], "end", 10))
        out.append(f'<rect x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1):.1f}" height="{line - 6}" fill="{colour}"/>')
        bar = row.get("bar", "").replace("<=", "≤").replace(">=", "≥")
        figure = f"{row['ratio']:.3g}" + (f", bar {bar}" if bar else "")
        out.append(text(left + width + 8, y + line * 0.7, figure, size=10, colour=colour))
        if bar and not bar.endswith("ms"):
            tick = x(float(bar.split()[-1]))
            out.append(f'<line x1="{tick:.1f}" x2="{tick:.1f}" y1="{y + 1}" y2="{y + line - 1}" stroke="{INK}" stroke-width="2"/>')
        y += line
    lines = []
    for power in range(math.ceil(low), math.floor(high) + 1):
        lines.append(f'<line x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="{top}" y2="{y}" stroke="{PALE}"/>')
        lines.append(text(x(10**power), top - 6, f"{10.0**power:g}", "middle", 10))
    return lines + out


def chart(table, machine):
    line, left = 16, 470
    height = 330 + line * (len(table) + 2 * len(PARTS)) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1100" height="{height}" font-family="sans-serif">',
        f'<rect width="1100" height="{height}" fill="white"/>',
        text(20, 28, "What a call costs, by entries in the directory", size=16, more='font-weight="bold"'),
        text(20, 46, machine, size=11),
        text(820, 28, "npcache", colour=OURS, size=12),
        text(890, 28, "bare system calls", colour=OTHER, size=12),
    ]
    for i, what in enumerate(["open", "hit", "miss"]):
        out += growth_panel(table, 80 + 350 * i, 95, 240, 140, what)
    out.append(text(20, 290, "Ours ÷ other, logarithmic; a tick is the row's bar; red misses it", size=16, more='font-weight="bold"'))
    out += ratio_panel(table, left, 320, 480, line)
    return "\n".join([*out, "</svg>"]) + "\n"


def describe_machine():
    model = "unknown processor"
    for info in Path("/proc/cpuinfo").read_text().splitlines():
        if info.startswith("model name"):
            model = info.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    system = output(["df", "--output=fstype", TARGET]).split()[-1]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} x {model}, {memory} GiB, Linux {platform.release()}, {system}"


def save(name, parts, measured):
    """Writes target/<name>.json and .svg; the rows of other parts that are in there already stay."""
    path = TARGET / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else {"rows": []}
    kept = [row for row in old["rows"] if row.get("part") in set(PARTS) - set(parts)]
    table = sorted(kept + measured, key=lambda row: PARTS.index(row["part"]))
    machine = f"{describe_machine()}, {time.strftime('%Y-%m-%d')}"
    path.write_text(json.dumps({"machine": machine, "rows": table}, indent=1, ensure_ascii=False) + "\n")
    (TARGET / f"{name}.svg").write_text(chart(table, machine))
    return machine, table


def write_results():
    """The machine and the table of benches/RESULTS.md; its other text is written by hand."""
    result = json.loads((TARGET / "bench.json").read_text())
    path = ROOT / "benches/RESULTS.md"
    before, rest = path.read_text().split("```text\n", 1)
    after = rest.split("```\n", 1)[1]
    lines = before.splitlines()
    lines = [f"Machine: {result['machine']}" if line.startswith("Machine: ") else line for line in lines]
    path.write_text("\n".join([*lines, "```text", *table_lines(result["rows"]), "```"]) + "\n" + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="every row once, on less: proves that the harness runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--million", action="store_true", help="the part bounds also with a million entries: 25 GB")
    parser.add_argument("--results", action="store_true", help="write target/bench.json's table into benches/RESULTS.md")
    options = parser.parse_args()
    if options.results:
        return write_results()
    for name in [name for name in os.environ if name.startswith("NPCACHE_")]:
        del os.environ[name]
    os.environ["NPCACHE_LIBRARY_FILE"] = str(LIBRARY)
    build(options.smoke)
    say("built")

    # Not between the parts: what is removed slows down for minutes who makes files.
    remove_work()
    name = "bench-smoke" if options.smoke else "bench"
    measured, failed = [], []
    for part in options.parts:
        load, rows = os.getloadavg()[0], Rows()
        try:
            measure(part, rows, options.smoke, options.million)
        except (subprocess.CalledProcessError, AssertionError, KeyError, OSError, ValueError) as e:
            # The other parts are worth having all the same.
            failed.append(part)
            say(f"{part} FAILED: {e}")
        measured += [{"part": part, "load_before": load, **row} for row in rows.table()]
        machine, table = save(name, options.parts, measured)
        say(part)
    print(machine)
    print("\n".join(table_lines(table)))
    missed = [row["name"] for row in table if row.get("met") is False]
    say(f"{len(table)} rows, {len(missed)} short of their bar; target/{name}.json, target/{name}.svg")
    remove_work()
    say("work directories removed")
    if failed:
        sys.exit(f"bench: {', '.join(failed)} failed")


main()
