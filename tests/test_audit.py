"""Audits: a share of the hits is computed again, and what differs is said and counted, and stays what it was."""

import re

import numpy as np
import pytest
from driver import COMPUTED, DIFFERS, DISK, MEMORY, Cache
from test_processes import in_thread, run_python

ENTRY = b"the arguments"


@pytest.fixture
def said(tmp_path):
    """A log of the test's own; its lines without time and process."""
    log = tmp_path / "log"

    def read():
        return [re.sub(r"^\S+ npcache\[\d+\] ", "", line) for line in log.read_text().splitlines()]

    read.path = log
    yield read
    Cache(None, log="none").close()


def outcome(cache, array, name="f"):
    """What a call gives that would compute `array`: the array, where it is from, and whether it is stored."""
    result = cache.call(name, "1", ENTRY, lambda: array)
    return result.array.tolist(), result.origin, result.stored


def test_an_audit_that_finds_nothing_changes_nothing_but_that_the_function_runs(cache_path, said, monkeypatch):
    monkeypatch.delenv("NPCACHE_MEMORY_BYTES")
    runs = []

    def compute():
        runs.append(1)
        return np.arange(4.0)

    with Cache(cache_path, audit=1, log=said.path) as cache:
        origins = [cache.call("f", "1", ENTRY, compute).origin for _ in range(3)]
    with Cache(cache_path, audit=1) as cache:
        origins.append(cache.call("f", "1", ENTRY, compute).origin)
    with Cache(cache_path, audit=0) as cache:
        origins.append(cache.call("f", "1", ENTRY, compute).origin)
    assert origins == [COMPUTED, MEMORY, MEMORY, DISK, DISK]
    assert len(runs) == 4
    assert run_python("print(Cache(sys.argv[1]).call('f', '1', b'the arguments', None).origin)", cache_path) == f"{DISK}\n"
    assert said() == []


def test_a_difference_is_said_once_and_the_stored_result_stays(cache_path, said):
    stored, computed = np.zeros((2, 3)), np.zeros((2, 3))
    computed[1, 2] = 0.5
    with Cache(cache_path) as cache:
        path = cache.call("f", "1", ENTRY, lambda: stored).path
    before = path.read_bytes()
    with Cache(cache_path, audit=1, log=said.path) as cache:
        for _ in range(3):
            assert outcome(cache, computed) == (computed.tolist(), COMPUTED, DIFFERS)
    assert said() == [
        f"error: {path}: f(13 bytes) was computed again for an audit: "
        "array 0 at [1, 2]: stored 0.0, computed 0.5 (1 of 6 elements differ)"
    ]
    assert path.read_bytes() == before
    with Cache(cache_path) as cache:
        assert outcome(cache, None) == (stored.tolist(), DISK, 0)


@pytest.mark.parametrize(
    ("stored", "computed", "what"),
    [
        ([1, 2], [1, 3], "array 0 at [1]: stored 2, computed 3 (1 of 2 elements differ)"),
        (np.ones((2, 2), order="F"), np.ones((2, 2)), "array 0: stored <f8 of shape [2, 2] in Fortran order, computed"),
        (np.ones(2), np.ones(3), "array 0: stored <f8 of shape [2], computed <f8 of shape [3]"),
        (np.ones(2), np.ones(2, "f4"), "array 0: stored <f8 of shape [2], computed <f4 of shape [2]"),
        ([0.0], [-0.0], "array 0 at [0]: stored 0.0, computed -0.0"),
        (np.asfortranarray([[0, 0], [7, 0]]), np.asfortranarray([[0, 0], [8, 0]]), "array 0 at [1, 0]: stored 7, computed 8"),
        (np.array([1 + 2j]), np.array([1 + 3j]), "stored (1.0, 2.0), computed (1.0, 3.0)"),
        (np.array(["ab"]), np.array(["ac"]), "stored bytes 6100000062000000, computed bytes 6100000063000000"),
        (np.array(3.0), np.array(4.0), "array 0 at []: stored 3.0, computed 4.0"),
        ([np.ones(1), np.ones(1)], [np.ones(1), np.zeros(1)], "array 1 `array 1` at [0]: stored 1.0, computed 0.0"),
        ([np.ones(1), np.ones(1)], np.ones(1), "stored 2 arrays, computed 1"),
    ],
)
def test_the_first_difference_is_described(cache_path, said, stored, computed, what):
    stored, computed = [
        [np.asarray(array) for array in arrays] if isinstance(arrays, list) and np.ndim(arrays[0]) else np.asarray(arrays)
        for arrays in (stored, computed)
    ]
    with Cache(cache_path) as cache:
        cache.call("f", "1", ENTRY, lambda: stored)
    with Cache(cache_path, audit=1, log=said.path) as cache:
        assert cache.call("f", "1", ENTRY, lambda: computed).stored == DIFFERS
    [line] = said()
    assert what in line


def test_what_differs_by_no_more_than_audit_ulps_is_the_same(cache_path, said):
    stored = np.array([1.0, 2.0, np.nan])
    near, far = stored.copy(), stored.copy()
    near[1] = np.nextafter(2, 3)
    far[1] = np.nextafter(near[1], 3)
    with Cache(cache_path) as cache:
        cache.call("f", "1", ENTRY, lambda: stored)
    with Cache(cache_path, audit=1, audit_ulps=1, log=said.path) as cache:
        same = cache.call("f", "1", ENTRY, lambda: near)
        # The stored one: who is not audited gets the same.
        assert (same.array[1], same.origin, same.stored) == (2.0, DISK, 0)
        assert said() == []
        assert cache.call("f", "1", ENTRY, lambda: far).stored == DIFFERS
    assert len(said()) == 1


def test_an_audit_holds_nobody_up_and_fails_as_its_function_does(cache_path):
    with Cache(cache_path) as plain, Cache(cache_path, audit=1) as audited:
        plain.call("f", "1", ENTRY, lambda: np.arange(3))
        output = audited.begin("f", "1", ENTRY)
        assert in_thread(lambda: plain.begin("f", "1", ENTRY, wait_ms=0).origin)() == DISK
        code = "print(Cache(sys.argv[1], audit=1).call('f', '1', b'the arguments', lambda: np.arange(3)).origin)"
        assert run_python("import numpy as np\n" + code, cache_path) == f"{DISK}\n"
        output.abandon()
        with pytest.raises(ZeroDivisionError):
            audited.call("f", "1", ENTRY, lambda: 1 // 0)
        assert plain.call("f", "1", ENTRY, None).origin == DISK


def test_a_share_is_audited(cache_path, monkeypatch):
    monkeypatch.delenv("NPCACHE_MEMORY_BYTES")
    runs = []

    def compute():
        runs.append(1)
        return np.arange(3)

    with Cache(cache_path, audit=0.25) as cache:
        for _ in range(4001):
            cache.call("f", "1", ENTRY, compute)
    # Within ten standard deviations.
    assert 700 < len(runs) < 1300


def test_a_clear_during_an_audit_holds(cache_path):
    with Cache(cache_path) as plain, Cache(cache_path, audit=1) as audited:
        plain.call("f", "1", ENTRY, lambda: np.arange(3))
        output = audited.begin("f", "1", ENTRY)
        plain.clear()
        output.write(np.arange(3))
        output.commit()
        assert output.end().array.tolist() == [0, 1, 2]
        assert plain.call("f", "1", ENTRY, lambda: np.arange(3)).origin == COMPUTED
