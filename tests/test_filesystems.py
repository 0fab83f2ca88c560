"""Which rules hold on which file system: a large entry is mapped where no other machine can take it away, else read."""

import resource

import pytest
from driver import COMPUTED, DISK, Cache
from faults.test_failures import call, without_tmpfile
from test_processes import key_bytes, numbers

__all__ = ["without_tmpfile"]  # a fixture

LARGE = 8  # a key, of a result over 256 KiB


def is_mapped(cache):
    """Whether the stored array is its file, mapped; it is right."""
    result = cache.call("numbers", "1", key_bytes(LARGE), lambda: numbers(LARGE))
    assert (result.origin, result.array.tolist()) == (DISK, numbers(LARGE).tolist())
    with open("/proc/self/maps") as maps:
        return str(result.path) in maps.read()


@pytest.mark.parametrize(("how", "mapped"), [("auto", True), ("always", True), ("never", False)])
def test_on_this_machines_file_systems_large_entries_are_mapped(cache_path, how, mapped):
    with Cache(cache_path, map=how) as cache:
        assert call(cache, LARGE) == (COMPUTED, 0)
        assert is_mapped(cache) == mapped


@pytest.mark.parametrize(("how", "mapped"), [("auto", False), ("always", True), ("never", False)])
def test_on_others_they_are_read(without_tmpfile, how, mapped):
    with Cache(without_tmpfile / "cache", map=how) as cache:
        assert call(cache, LARGE) == (COMPUTED, 0)
        assert is_mapped(cache) == mapped


@pytest.mark.parametrize("verify", ["auto", "never"])
def test_what_is_read_is_verified_whole(cache_path, verify):
    with Cache(cache_path, map="never", verify=verify) as cache:
        entry = cache.call("numbers", "1", key_bytes(LARGE), lambda: numbers(LARGE)).path
        whole = entry.read_bytes()
        for damaged in (whole[:200_000] + b"x" + whole[200_001:], whole[:-1], whole + b"\0", whole[: 300 << 10]):
            entry.unlink()
            entry.write_bytes(damaged)
            assert call(cache, LARGE) == (COMPUTED, 0)
            assert call(cache, LARGE) == (DISK, 0)


def test_of_a_large_file_that_is_no_entry_only_the_end_is_read(cache_path):
    with Cache(cache_path, map="never") as cache:
        entry = cache.call("numbers", "1", key_bytes(LARGE), lambda: numbers(LARGE)).path
        tail = entry.read_bytes()[-192:]
        for end in (b"", tail):
            entry.unlink()
            with open(entry, "wb") as file:
                file.truncate(64 << 30)
                file.seek(0, 2)
                file.write(end)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert call(cache, LARGE) == (COMPUTED, 0)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB
