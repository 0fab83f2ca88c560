"""A hit's time in npcache, joblib and diskcache, side by side: rounds of all of them in turn, medians over the rounds.

    python benches/peers.py            # needs joblib and diskcache beside npcache
    python benches/peers.py --check    # exit status 1 where a bar of the project is missed

Three calls are timed: a small hit (1 KiB result, one number as argument), a hit of 100 MB, and a hit of a small result
for an argument of 100 MB. Peers run as their documentation has them; joblib also with mmap_mode="r". npcache answers
repeated calls from memory; `cold` is the first call of a result in a process, from disk.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import diskcache
import joblib
import numpy as np

try:
    import npcache
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    import npcache

LARGE = 12_500_000  # doubles: 100 MB

# (row, peer or None, bound): the median is at most the bound, or the bound times the peer's.
BARS = [
    ("small hit", None, 8e-6),
    ("small hit", "diskcache", 1 / 10),
    ("small hit", "joblib", 1 / 40),
    ("100 MB hit", None, 50e-6),
    ("100 MB argument", "joblib", 0.6),
]


def small(x):
    return np.full(128, x)


def large(x):
    return np.full(LARGE, x)


def first(a):
    return a[:128].copy()


def seconds(call, repeats):
    """Of one call, over `repeats` of them."""
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begun) / repeats


def cold_hits(directory, function, n):
    """First calls in this process of `n` stored results, from copies that no memory knows."""
    times = []
    for i in range(n):
        copy = f"{directory}-{i}"
        shutil.copytree(directory, copy)
        cached = npcache.Cache(copy).memoize(function)
        cached._identity.current()
        begun = time.perf_counter()
        cached(1.0)
        times.append(time.perf_counter() - begun)
        assert cached.stats().disk == 1
        shutil.rmtree(copy)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        ours = npcache.Cache(f"{directory}/npcache")
        plain = joblib.Memory(f"{directory}/joblib", verbose=0)
        mapped = joblib.Memory(f"{directory}/mapped", verbose=0, mmap_mode="r")
        disk = diskcache.Cache(f"{directory}/diskcache", size_limit=4 << 30)
        argument = np.random.default_rng(0).random(LARGE)
        makers = {
            "npcache": ours.memoize,
            "joblib": plain.cache,
            "joblib mmap": mapped.cache,
            "diskcache": disk.memoize(),
        }
        rows = {
            "small hit": (small, 1.0, {"npcache": 2000, "joblib": 20, "joblib mmap": 20, "diskcache": 50}),
            "100 MB hit": (large, 1.0, {"npcache": 500, "joblib": 1, "joblib mmap": 10, "diskcache": 1}),
            "100 MB argument": (first, argument, dict.fromkeys(makers, 1)),
        }
        print(f"{'':18}" + "".join(f"{name:>14}" for name in makers))
        medians = {}
        for row, (function, value, repeats) in rows.items():
            cached = {name: make(function) for name, make in makers.items()}
            for call in cached.values():
                np.testing.assert_array_equal(call(value), function(value))
            times = {name: [] for name in cached}
            for _ in range(options.rounds if row == "small hit" else max(5, options.rounds // 3)):
                for name, call in cached.items():
                    times[name].append(seconds(lambda call=call, value=value: call(value), repeats[name]))
            for name in cached:
                medians[row, name] = statistics.median(times[name])
            print(f"{row:18}" + "".join(f"{1e6 * medians[row, name]:11,.1f} µs" for name in cached), flush=True)
        ours.clear()
        stored = ours.memoize(small)
        stored(1.0)
        print(f"small hit, cold: {1e6 * cold_hits(ours.path, small, 20):.1f} µs")

    missed = 0
    for row, peer, bound in BARS:
        value = medians[row, "npcache"]
        limit = bound if peer is None else bound * medians[row, peer]
        text = f"{1e6 * limit:,.1f} µs" + (f", {bound:.3g} of {peer}" if peer else "")
        missed += value > limit
        print(f"{'missed' if value > limit else 'kept  '}: {row} {1e6 * value:,.1f} µs, bar {text}")
    return int(options.check and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
