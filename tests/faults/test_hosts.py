"""Clocks that are wrong, machines that change their name, and two machines on one directory."""

import numpy as np
import pytest
from conftest import need_tool
from driver import COMPUTED, DISK, Cache
from test_processes import assert_nothing_unknown, key_bytes, numbers

from .conftest import machine, python_as, run_python_as
from .test_failures import without_tmpfile

__all__ = ["without_tmpfile"]  # a fixture

KEYS = (1, 4, 8, 16)

CALLS = """
from test_processes import key_bytes, numbers
with Cache(sys.argv[1]) as cache:
    for key in map(int, sys.argv[2:]):
        result = cache.call("numbers", "1", key_bytes(key), lambda: numbers(key))
        print(key, result.origin, result.stored, np.array_equal(result.array, numbers(key)))
"""


def origins(cache, keys=KEYS):
    """Where the arrays come from; they are right."""
    found = []
    for key in keys:
        result = cache.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key))
        assert np.array_equal(result.array, numbers(key))
        assert result.stored == 0
        found.append(result.origin)
    return set(found)


def origins_as(command, path, keys=KEYS, **environment):
    """The same in another process, under `command`."""
    lines = [line.split() for line in run_python_as(command, CALLS, path, *keys, **environment).splitlines()]
    assert all(right == "True" and stored == "0" for _, _, stored, right in lines), lines
    assert len(lines) == len(keys)
    return {int(origin) for _, origin, _, _ in lines}


@pytest.mark.parametrize("shift", ["-20y", "-1s", "+20y"])
def test_a_clock_that_is_set_costs_nothing(cache_path, shift):
    clock = [need_tool("faketime", "faketime"), "-f", shift]
    steady = {"DONT_FAKE_MONOTONIC": "1"}
    more = (3, 12, 24)
    with Cache(cache_path) as cache:
        assert origins(cache) == {COMPUTED}
        assert origins_as(clock, cache_path, **steady) == {DISK}
        assert origins_as(clock, cache_path, more, **steady) == {COMPUTED}
        assert origins(cache, more) == {DISK}
        cache.clear()
        assert origins_as(clock, cache_path, **steady) == {COMPUTED}
        assert origins(cache) == {DISK}
        # A lock is one whatever the clocks say.
        output = cache.begin("numbers", "1", key_bytes(99))
        held = "print(Cache(sys.argv[1]).begin('numbers', '1', (99).to_bytes(8, 'little'), 50))"
        assert run_python_as(clock, held, cache_path, **steady) == "None\n"
        output.abandon()
    assert_nothing_unknown(cache_path)


def test_a_machine_with_another_name_or_boot_finds_what_it_stored(cache_path, tmp_path):
    with Cache(cache_path) as cache:
        assert origins(cache) == {COMPUTED}
        for boot, host in (1, "first"), (1, "second"), (2, "second"):
            assert origins_as(machine(tmp_path, boot, host), cache_path) == {DISK}
        cache.clear()
        assert origins_as(machine(tmp_path, 2, "third"), cache_path) == {COMPUTED}
        assert origins(cache) == {DISK}


ON_ANOTHER_HOST = """
from test_processes import key_bytes, numbers
cache = Cache(sys.argv[1], memory_bytes="64M")
held = None
for line in sys.stdin:
    command, key = line.split()
    if command == "call":
        result = cache.call("numbers", "1", key_bytes(int(key)), lambda: numbers(int(key)))
        assert np.array_equal(result.array, numbers(int(key)))
        print(result.origin, result.stored, flush=True)
    elif command == "clear":
        cache.clear()
        print(0, 0, flush=True)
    elif command == "hold":
        held = cache.begin("numbers", "1", key_bytes(int(key)))
        print(0, 0, flush=True)
    elif command == "try":
        begun = cache.begin("numbers", "1", key_bytes(int(key)), wait_ms=50)
        print(int(begun is None), 0, flush=True)
    elif command == "end":
        held.write(numbers(int(key)))
        held.commit()
        result = held.end()
        print(result.origin, result.stored, flush=True)
"""


class Host:
    """A process on another machine that does what it is told."""

    def __init__(self, command, path):
        self.process = python_as(command, ON_ANOTHER_HOST, path)

    def __call__(self, command, key=0):
        self.process.stdin.write(f"{command} {key}\n")
        self.process.stdin.flush()
        return tuple(map(int, self.process.stdout.readline().split()))

    def end(self):
        self.process.communicate()
        assert self.process.returncode == 0


def test_two_machines_share_a_directory_that_is_not_local(without_tmpfile, tmp_path):
    """bindfs stands for what connects them; NFS itself is not run."""
    path = without_tmpfile / "cache"
    a, b = (Host(machine(tmp_path, boot, f"host{boot}"), path) for boot in (1, 2))
    try:
        for key in KEYS:
            assert a("call", key) == (COMPUTED, 0)
            assert b("call", key) == (DISK, 0)
        # Nothing is taken for shared memory, nor kept where no clear would reach it.
        assert not list(path.glob(".npcache/state-*"))
        # One computes at a time, as far as the file system has locks.
        assert a("hold", 99) == (0, 0)
        assert b("try", 99) == (1, 0)
        assert a("end", 99) == (COMPUTED, 0)
        assert b("call", 99) == (DISK, 0)
        # A clear on one is one on the other, also for what the other is just computing.
        assert a("hold", 100) == (0, 0)
        assert b("clear") == (0, 0)
        assert a("end", 100) == (COMPUTED, 7), "stored after a clear"
        for key in KEYS:
            assert a("call", key) == (COMPUTED, 0)
            assert b("call", key) == (DISK, 0)
    finally:
        a.end()
        b.end()
    assert_nothing_unknown(path)
