"""A storm of processes that look up, compute, clear and evict, and are killed: nothing is wrong, and nothing is left.

Meanwhile damaged files are put in the place of entries, so that kills also fall into the replacing of them.
"""

import glob
import mmap
import os
import signal
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, compile_program
from driver import Cache, Result
from test_processes import assert_nothing_unknown, key_bytes, numbers

KEYS, PROCESSES, FUNCTIONS = 300, 6, ("storm", "other storm")
TALLY = "calls computed unstored clears wrong errors longest_us signals".split()  # as in storm.c

# A call takes milliseconds, on a loaded machine a second or two; one that waits for a dead process takes the default of
# `lock_timeout`, ten minutes.
LONGEST_CALL = 60


class Storm:
    """Processes of tests/c/storm.c on one cache."""

    def __init__(self, path, tally, threads=1, timer_us=0, options=()):
        program = compile_program(ROOT / "tests" / "c" / "storm.c")
        tally.write_bytes(bytes(mmap.PAGESIZE))
        self.tally = tally
        self.command = [program, path, tally, KEYS, threads, timer_us]
        self.environment = {**os.environ, **dict(options)}
        self.running = []

    def told(self):
        """What all of them did, by name."""
        return dict(zip(TALLY, struct.unpack_from(f"{len(TALLY)}Q", self.tally.read_bytes())))

    def start(self, seed):
        process = subprocess.Popen(
            [str(word) for word in [*self.command, seed]],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        self.running.append(process)

    def kill(self, chance):
        process = self.running.pop(chance.randrange(len(self.running)))
        process.kill()
        _, complaint = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"it ended by itself, {process.returncode}: {complaint}"

    def end(self):
        for process in self.running:
            _, complaint = process.communicate(timeout=LONGEST_CALL)
            assert process.returncode == 0, f"{process.returncode}: {complaint}"


def damage(path, chance):
    """Puts a damaged copy in the place of some entry, if there is one."""
    entries = glob.glob(f"{path}/*storm/??/*.npy")
    if not entries:
        return 0
    entry = Path(chance.choice(entries))
    copy = path.with_name("damaged")
    try:
        content = bytearray(entry.read_bytes())
    except FileNotFoundError:
        return 0  # cleared meanwhile
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    copy.write_bytes(content)
    try:
        os.rename(copy, entry)
    except FileNotFoundError:
        return 0
    return 1


def assert_whole_and_free(path):
    """Every entry that is left is right, no lock is held, and opening the cache collected what kills left; how many."""
    whole = 0
    with Cache(path, verify="always") as cache:
        for name in FUNCTIONS:
            for key in range(KEYS):
                begun = cache.begin(name, "1", key_bytes(key), wait_ms=0)
                assert begun is not None, f"a lock is left on {name} {key}"
                if not isinstance(begun, Result):
                    begun.abandon()
                    continue
                whole += 1
                assert np.array_equal(begun.array, numbers(key))
                assert np.array_equal(np.load(begun.path), numbers(key))
        cache.clear()
    assert_nothing_unknown(path)
    assert not list(path.glob(".npcache/tmp/*")), "a temporary is left"
    return whole


OPTIONS = {"disk": {}, "memory": {"NPCACHE_MEMORY_BYTES": "2M"}, "bounded": {"NPCACHE_MAX_BYTES": "4M"}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_storm_of_kills_leaves_nothing_wrong_and_nothing_behind(
    cache_path, tmp_path, going_on, chance, count, options
):
    storm = Storm(cache_path, tmp_path / "tally", options=options)
    kills = damaged = 0
    try:
        for _ in range(PROCESSES):
            storm.start(chance.randrange(1 << 31))
        for _ in going_on(6, share=0.14):
            try:
                storm.running[0].wait(chance.uniform(0.005, 0.08))
            except subprocess.TimeoutExpired:
                pass
            storm.kill(chance)
            kills += 1
            storm.start(chance.randrange(1 << 31))
            damaged += damage(cache_path, chance)
        storm.end()
    finally:
        for process in storm.running:
            process.kill()
    told = storm.told()
    count(kills=kills, calls_in_storms=told["calls"], damaged_entries=damaged)
    print(told)
    assert told["wrong"] == told["errors"] == 0, told
    assert told["longest_us"] < LONGEST_CALL * 1e6, told
    assert kills > 20 and damaged > 10 and told["clears"] > 0 and told["calls"] > told["computed"] > 0, told
    count(entries_found_whole=assert_whole_and_free(cache_path))
