"""The cache object: options, statistics, clearing, explaining; and faults that never cost the result."""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import computed

import npcache
from npcache._cache import _duration


def test_a_cached_function_looks_like_the_function(cache):
    @cache.memoize
    def f(x: int, y: float = 2.0) -> float:
        """What it does."""
        return x * y

    assert (f.__name__, f.__doc__, f.__module__) == ("f", "What it does.", __name__)
    assert f(2) == 4
    assert "f in npcache.Cache(" in repr(f)
    import inspect

    assert str(inspect.signature(f)) == "(x: int, y: float = 2.0) -> float"


def test_call_uncached_looks_up_nothing_and_stores_nothing(cache):
    calls = iter(range(10))
    f = cache.memoize(lambda x: next(calls), version="")
    assert f.call_uncached(1) == 0
    assert not f.is_cached(1)
    assert f(1) == 1
    assert f.call_uncached(1) == 2
    assert f(1) == 1


def test_is_cached_computes_nothing(cache):
    f = cache.memoize(lambda x: x + 1)
    assert not f.is_cached(1)
    assert not f.is_cached(1)
    f(1)
    assert f.is_cached(1)
    assert f.is_cached(x=1)
    assert not f.is_cached(2)
    assert f.stats().calls == 1


def test_forget_removes_one_call(cache):
    f = cache.memoize(lambda x: np.arange(x))
    f(1), f(2)
    f.forget(1)
    f.forget(3)
    assert (f.is_cached(1), f.is_cached(2)) == (False, True)
    f(1)
    assert computed(f) == 3


def test_bounds_are_kept_in_the_directory_or_for_one_cache(cache):
    cache.configure(max_entries=3, policy="lru")
    assert Path(cache.path, ".npcache/config").read_text() == "max_entries=3\npolicy=lru\n"
    bounded, unbounded = npcache.Cache(cache.path), npcache.Cache(cache.path, max_entries="none")
    for n in range(9):
        bounded.memoize(np.ones, name="ones", version="1")(n + 1)
    assert len(list(Path(cache.path).glob("ones/*/*.npy"))) == 3
    for n in range(9):
        unbounded.memoize(np.zeros, name="zeros", version="1")(n + 1)
    assert len(list(Path(cache.path).glob("zeros/*/*.npy"))) == 9
    with pytest.raises(npcache.Error, match="readonly"):
        cache.configure(max_bytes=0)


def test_clear_removes_one_function_or_all(cache):
    f, g = cache.memoize(lambda x: x, name="f"), cache.memoize(lambda x: x, name="g")
    f(1), g(1)
    f.clear()
    assert (f.is_cached(1), g.is_cached(1)) == (False, True)
    npcache.Cache(cache.path).clear()
    assert not g.is_cached(1)
    assert g(1) == 1


def test_a_result_replaced_elsewhere_is_not_answered_from_here(cache):
    one, other = (cache.memoize(make(x), name="f", version="") for x in (1, 2))
    assert [one(7)[0] for _ in range(4)] == [1] * 4
    npcache.Cache(cache.path).clear()
    assert other(7)[0] == 2
    assert [one(7)[0] for _ in range(4)] == [2] * 4
    one.forget(7)
    assert one(7)[0] == 1


def make(constant):
    return lambda x: np.array([constant])


def test_clear_can_remove_the_directory(cache):
    f = cache.memoize(lambda x: x)
    f(1)
    cache.clear(remove_dir=True)
    assert not Path(cache.path).exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npcache.CacheWarning)
        assert f(1) == 1


def test_clear_leaves_files_of_others(cache):
    Path(cache.path, "notes.txt").write_text("mine")
    with pytest.raises(npcache.Error, match=r"notes\.txt") as caught:
        cache.clear(remove_dir=True)
    assert caught.value.status == -6
    assert Path(cache.path, "notes.txt").read_text() == "mine"


def test_explain_tells_why_a_call_misses(cache):
    f = cache.memoize(lambda x, y=1: x, name="f")
    f(1)
    assert "is stored" in f.explain(1)
    assert "not stored" in f.explain(1, y=2)
    assert "argument 1: stored 1, asked tuple:[1, 2.5]" in f.explain((1, 2.5))
    assert "asked range:[0, 9, 1]" in f.explain(range(9))


def test_totals_are_what_all_caches_of_a_directory_counted(cache):
    @cache.memoize(version="1", name="doubled")
    def doubled(n):
        return np.arange(n) * 2

    for n in (3, 3, 4):
        doubled(n)
    again = npcache.Cache(cache.path)
    totals = again.totals("doubled")
    assert (totals.misses, totals.stored, totals.memory + totals.disk, totals.complete) == (2, 2, 1, 1)
    assert totals.seconds_spent > 0
    assert again.totals() == totals
    assert again.totals("another").misses == 0
    cache.clear()
    assert cache.totals() == totals


def test_totals_of_results_that_cannot_be_stored_and_of_more_functions_than_are_told_apart(cache):
    f = cache.memoize(lambda: object(), name="objects", version="")
    with pytest.warns(npcache.CacheWarning, match="cannot be stored"):
        f()
    f(), f()
    assert (cache.stats().unstored, cache.totals().unstored, cache.totals("objects").misses) == (3, 0, 3)
    for i in range(127):
        cache.memoize(np.zeros, name=f"f{i}", version="")(1)
    assert (cache.totals("f125").misses, cache.totals("f126").misses, cache.totals().misses) == (1, 0, 130)


def test_is_cached_counts_as_no_hit(cache, reopened):
    f = cache.memoize(lambda x: np.arange(x), name="f", version="")
    f(1)
    before = cache.totals()
    assert [f.is_cached(x) for x in (1, 2)] == [True, False]
    assert cache.totals() == before
    copy = reopened()
    before = copy.totals()
    assert copy.memoize(lambda x: 0, name="f", version="").is_cached(1)
    assert copy.totals() == before


def test_totals_have_what_audits_found(cache):
    computed = iter([1.0, 1.0, 2.0])
    clock = npcache.Cache(cache.path, audit=1).memoize(lambda: next(computed), version="1", name="clock")
    clock(), clock()
    with pytest.warns(npcache.CacheWarning, match="not stored in .*: an audited hit"):
        clock()
    totals = cache.totals("clock")
    assert (totals.audited, totals.differing) == (2, 1)


def test_a_text_with_a_nul_is_refused_where_c_would_take_it_for_another(cache):
    for how in {"version": "1\0a"}, {"version": "1", "name": "f\0a"}, {"depends": {"data": "x\0y"}}:
        with pytest.raises(ValueError, match="NUL"):
            cache.memoize(lambda: 1, **how)()
    for refused in (
        lambda: npcache.Cache(f"{cache.path}\0a"),
        lambda: npcache.Cache(cache.path, mode="off\0a"),
        lambda: cache.configure(policy="lru\0a"),
        lambda: cache.totals("f\0a"),
    ):
        with pytest.raises(ValueError, match="NUL"):
            refused()


def test_stats_and_summary_count_what_happened(cache, reopened):
    f = cache.memoize(lambda x: np.arange(x), name="f", version="")
    for x in (1, 2, 1, 1):
        f(x)
    stats = cache.stats()
    assert (stats.computed, stats.memory, stats.calls, stats.cached) == (2, 2, 4, 2)
    assert 0 < stats.seconds_saved < 1
    again = reopened()
    again.memoize(lambda x: 0, name="f", version="")(1)
    assert again.stats().disk == 1
    assert again.summary().startswith("1 of 1 cached, ")
    assert npcache.Cache(None).summary() == "0 of 0 cached, 0 ms saved"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0123, "12.3 ms"), (1.26, "1.26 s"), (59.9, "59.9 s"), (61, "1 min"), (7800, "2 h 10 min"),
     (90_000, "25 h 0 min"), (200_000, "2 d 7 h")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds, text):
    assert _duration(seconds) == text


def test_notebooks_get_a_table(cache):
    f = cache.memoize(lambda x: x, name="<lambda>&")
    f(1), f(1)
    shown = cache._repr_html_()
    assert "&lt;lambda&gt;&amp;" in shown
    assert "1 of 2 cached" in shown
    assert shown.count("<tr>") == 2


def test_options_are_those_of_the_library(cache):
    with pytest.raises(npcache.Error, match="no_such_option") as caught:
        npcache.Cache(cache.path, no_such_option=1)
    assert caught.value.status == -1
    with pytest.raises(npcache.Error):
        npcache.Cache(cache.path, mode="sometimes")
    refresh = npcache.Cache(cache.path, mode="refresh").memoize(lambda: 1, version="")
    refresh(), refresh()
    assert refresh.stats().computed == 2


def test_a_cache_without_directory_computes_every_call():
    f = npcache.Cache(None).memoize(lambda x: np.arange(x))
    f(3), f(3)
    assert computed(f) >= 1
    assert f(3).tolist() == [0, 1, 2]


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(npcache.Error):
        npcache.Cache(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_directory_that_cannot_be_written_costs_no_result(cache):
    for path in [Path(cache.path), *Path(cache.path).rglob("*")]:
        if path.is_dir():
            path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    f = npcache.Cache(cache.path).memoize(lambda x: np.arange(x))
    with pytest.warns(npcache.CacheWarning, match="not stored"):
        assert f(3).tolist() == [0, 1, 2]


def test_a_directory_that_is_gone_costs_no_result(cache):
    import shutil

    f = cache.memoize(lambda x: np.arange(x), version="")
    shutil.rmtree(cache.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npcache.CacheWarning)
        assert f(3).tolist() == [0, 1, 2]
        assert f(3).tolist() == [0, 1, 2]


def test_an_exception_without_a_text_is_raised_as_it_is(cache):
    class Mute(Exception):
        def __str__(self):
            raise OSError("no text")

    @cache.memoize(version="")
    def f():
        raise Mute

    for _ in range(2):
        with pytest.raises(Mute):
            f()


def test_a_dependency_that_can_be_no_part_of_a_key_after_the_call_costs_no_result(cache):
    connection = None

    def connect():
        nonlocal connection
        connection = object()

    @cache.memoize
    def f():
        if connection is None:
            connect()
        return 1

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert f() == 1
    assert any("changed while it ran, and the next call raises TypeError" in str(w.message) for w in told)
    with pytest.raises(TypeError, match="connection"):
        f()


def test_wrong_options_of_memoize_are_told(cache):
    with pytest.raises(TypeError, match="version is a text"):
        cache.memoize(lambda: 1, version=1)
    with pytest.raises(TypeError, match="list of names"):
        cache.memoize(lambda x: 1, ignore="x")
    with pytest.raises(TypeError, match="depends"):
        cache.memoize(lambda: 1, depends="numpy")
    with pytest.raises(npcache.Error):
        cache.memoize(lambda: 1, layout="sometimes")()


def test_the_library_that_is_missing_is_told(monkeypatch, tmp_path):
    from npcache import _library

    monkeypatch.setattr(_library, "__file__", str(tmp_path / "a" / "b" / "c" / "d.py"))
    monkeypatch.setenv("NPCACHE_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(ImportError, match="make build"):
        _library._find()


def test_a_damaged_file_is_said_to_the_logger(cache, caplog):
    @cache.memoize(name="ones", version="1")
    def ones(n):
        return np.ones(n)

    ones(3)
    [entry] = Path(cache.path).glob("ones/*/*.npy")
    npcache.Cache(cache.path).clear()  # of what is in memory
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"damaged")
    assert ones(3).sum() == 3
    [record] = caplog.records
    assert (record.name, record.levelname) == ("npcache", "WARNING")
    assert str(entry) in record.getMessage()


def test_an_audit_finds_a_function_that_is_not_deterministic(tmp_path, caplog):
    cache, runs = npcache.Cache(tmp_path / "cache", audit=1), []

    @cache.memoize(name="drifts", version="1")
    def drifts(n):
        runs.append(n)
        return np.full(n, float(len(runs)))

    assert drifts(2).tolist() == [1, 1]
    with pytest.warns(npcache.CacheWarning, match="audited"):
        assert drifts(2).tolist() == [2, 2]
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "drifts(2) was computed again" in record.getMessage()
    assert "array 0 at [0]: stored 1.0, computed 2.0 (2 of 2 elements differ)" in record.getMessage()
