"""What a function returned is what a hit returns: values, types, shapes; read-only, or the caller's own."""

import collections
import gc
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import computed

import npcache
from npcache._results import _plan

Fit = collections.namedtuple("Fit", "slope residuals")
Row = collections.namedtuple("Row", "index class", rename=True)  # index, _1
Accented = collections.namedtuple("Accented", "e\u0301")  # a name with a combining mark


class Span(collections.namedtuple("Span", "start stop")):
    def length(self):
        return self.stop - self.start


class Angle(collections.namedtuple("Angle", "rad")):
    def __new__(cls, rad):
        return super().__new__(cls, rad * 2)


ARRAYS = {
    "float": np.linspace(0, 1, 7),
    "C order": np.arange(24.0).reshape(2, 3, 4),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "reversed": np.arange(5)[::-1],
    "no dimension": np.array(3.5),
    "no element": np.empty((3, 0, 2), "f4"),
    "bool": np.array([True, False]),
    "int8": np.array([-1, 1], "i1"),
    "half": np.array([1.5], "f2"),
    "long double": np.array([1.5], np.longdouble),
    "complex": np.array([1 + 2j]),
    "complex64": np.array([1 + 2j], "c8"),
    "big-endian": np.array([1, 2], ">i4"),
    "text": np.array(["é", "longer"]),
    "bytes": np.array([b"a", b"longer"]),
    "raw": np.array([b"abc"], "V3"),
    "dates": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "times": np.array([1, 2], "m8[ns]"),
    "structure": np.array([(1, [1.5, 2], b"x")], [("a", "<i2"), ("b", "<f4", (2,)), ("c", "S3")]),
    "aligned structure": np.array([(1, 2.0)], np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "Fortran structure": np.asfortranarray(np.ones((2, 3), [("a", "<i2"), ("b", "<f4")])),
    "NaN payloads": np.array([0x7FF8000000000001, 0x7FF8000000000002], "u8").view("f8"),
}

OTHERS = {
    "float": 1.5,
    "negative zero": -0.0,
    "int": 3,
    "large int": 1 << 63,
    "very large int": -(1 << 100),
    "int beyond the limit of str": 3**10_000,
    "bool": True,
    "complex": 1 + 2j,
    "text": "é\0",
    "empty text": "",
    "bytes": b"\0a\0",
    "None": None,
    "numpy float": np.float64(1.5),
    "numpy float32": np.float32(1.5),
    "numpy bool": np.True_,
    "numpy int": np.int16(3),
    "numpy date": np.datetime64("2020-01-01"),
    "tuple": (np.arange(3), np.arange(2.0)),
    "tuple of one": (np.arange(3),),
    "list": [np.arange(3), 2.5],
    "dict": {"x": np.arange(3), "residual": 0.5},
    "dict of odd keys": {"": 1, "a/b": 2, "0": 3, "x:float": 4, "with space": 5, '"': 6, "é": 7, "a.b-c": 8, "[0]": 9},
    "dict by number": {1: np.arange(3), -2: 1.0},
    "dict in another order": {"b": 1, "a": 2},
    "empty containers": ((), [], {}, {"a": ()}),
    "namedtuple": Fit(2.0, np.arange(3)),
    "namedtuple with a renamed field": Row(1, 2.0),
    "namedtuple with an accent": Accented(1),
    "namedtuple with a method": Span(1, 3.0),
    "nested": ({"a": [1, (2, np.arange(3))]}, [Fit({"x": 1}, None)], "text"),
    "twelve": tuple(range(12)),
}


def same(one, other):
    """Whether two results are the same, types and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (np.ndarray, np.generic)):
        # canonical strides of the two, where they have elements
        same_order = not one.size or one.ndim < 2 or one.flags.fnc == other.flags.fnc
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes() and same_order
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(a, b) for a, b in zip(one.values(), other.values()))
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other if type(one) is int else repr(one) == repr(other)


@pytest.mark.parametrize("name", [*ARRAYS, *(f"other: {name}" for name in OTHERS)])
@pytest.mark.parametrize("writable", [False, True])
def test_a_hit_returns_what_the_function_returned(cache, reopened, name, writable):
    value = OTHERS[name[7:]] if name.startswith("other: ") else ARRAYS[name]

    def make(source):
        return source.memoize(lambda: value, name="f", version="1", writable=writable)

    first = make(cache)
    assert same(first(), value), "computed"
    assert same(first(), value), "from memory"
    later = make(reopened())
    assert same(later(), value), "from disk"
    assert (first.stats().computed, first.stats().memory, later.stats().disk) == (1, 1, 1)


def test_results_are_read_only(cache):
    f = cache.memoize(lambda n: (np.zeros(n), {"x": np.zeros(n)}))
    for n in (3, 100_000):
        for _ in range(2):
            one, other = f(n)
            for array in (one, other["x"]):
                assert not array.flags.writeable
                with pytest.raises(ValueError, match="read-only"):
                    array[0] = 1
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.flags.writeable = True


@pytest.mark.parametrize("n", [3, 1_000_000])
def test_writing_to_a_writable_result_reaches_nobody(cache, reopened, n):
    f = cache.memoize(lambda: np.zeros(n), name="f", version="", writable=True)
    for _ in range(3):
        result = f()
        assert not result.any()
        result[:] = 7
    again = reopened().memoize(lambda: np.ones(n), name="f", version="", writable=True)
    first, second = again(), again()
    first[:] = 7
    assert not second.any()
    assert not again().any()


def test_a_large_hit_is_not_copied(cache, reopened):
    f = cache.memoize(lambda: np.ones(5_000_000), name="f", version="")
    f()
    g = reopened().memoize(lambda: np.ones(5_000_000), name="f", version="")
    assert g().__array_interface__["data"][0] == g().__array_interface__["data"][0]


def test_a_result_outlives_its_cache(cache):
    f = cache.memoize(lambda n: np.arange(float(n)), name="f", version="")
    f(100_000)
    results = [f(10), f(10), f(100_000)]
    cache.clear(remove_dir=True)
    del f, cache
    gc.collect()
    assert [float(result[-1]) for result in results] == [9.0, 9.0, 99_999.0]
    views = [result[2:4] for result in results]
    del results
    gc.collect()
    assert [view.tolist() for view in views] == [[2.0, 3.0]] * 3


def test_what_cannot_be_stored_is_returned_with_one_warning(cache):
    values = [np.ma.masked_array([1, 2], [0, 1]), object(), {1.5: 2}, np.array([None]), iter([1])]
    for value in values:
        f = cache.memoize(lambda x: value, name="f", version="")  # noqa: B023
        with pytest.warns(npcache.CacheWarning, match="cannot be stored"):
            assert f(1) is value
        assert f(1) is value
        assert f.stats().unstored == f.stats().computed
        assert not f.is_cached(1)


class Fitted(Fit):
    """As of scipy.stats: fields, and attributes that are given to the constructor too."""

    def __new__(cls, slope, residuals, *, error):
        return super().__new__(cls, slope, residuals)

    def __init__(self, slope, residuals, *, error):
        self.error = error


def with_an_attribute():
    span = Span(1, 3)
    span.unit = "m"
    return span


def of_a_class_with_methods_that_no_name_leads_to():
    class Local(collections.namedtuple("Local", "a")):
        def double(self):
            return 2 * self.a

    return Local(1)


class Unreadable:
    @property
    def __class__(self):
        raise OSError("gone")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fitted(1, 2, error=3),
        lambda: Angle(2.0),
        with_an_attribute,
        of_a_class_with_methods_that_no_name_leads_to,
        Unreadable,
    ],
)
def test_what_would_come_back_as_something_else_is_returned_with_one_warning(cache, make):
    value = make()
    f = cache.memoize(lambda: value, name="f", version="")
    with pytest.warns(npcache.CacheWarning, match="cannot be stored: every call computes"):
        assert f() is value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f() is value
    assert f.stats().unstored == f.stats().computed == 2


@pytest.mark.parametrize("writable", [False, True])
def test_a_stored_result_that_cannot_be_read_is_computed(cache, monkeypatch, writable):
    f = cache.memoize(lambda x: Fit(x, 2), name="f", version="", writable=writable)
    f(1)
    monkeypatch.setattr(sys.modules[__name__], "Fit", type("Fit", (Angle,), {"_fields": Fit._fields}))
    expected = cache.memoize(lambda x: (x, 3), name="f", version="", writable=writable)
    with pytest.warns(npcache.CacheWarning, match="Fit is a named tuple with a constructor of its own"):
        assert expected(1) == (1, 3)
    assert expected.stats()[:5] == (2, 0, 0, 0, 1)
    expected.forget(1)
    assert [expected(1), expected(1)] == [(1, 3)] * 2
    assert expected.stats()[:5] == (3, 1, 0, 0, 1)


def test_a_result_that_cannot_be_read_again_is_returned(cache, monkeypatch):
    def fail(*_):
        raise ValueError("not to be read")

    monkeypatch.setattr("npcache._cache.read", fail)
    f = cache.memoize(lambda: (1, 2))
    with pytest.warns(npcache.CacheWarning, match="not to be read"):
        assert f() == (1, 2)
    assert f() == (1, 2)


def test_names_of_arrays_are_what_other_languages_see(cache):
    f = cache.memoize(lambda: {"x": np.arange(3), "parts": (1.5, [np.arange(2)])}, name="f", version="")
    f()
    (file,) = Path(cache.path).rglob("*.npy")
    np.testing.assert_array_equal(np.load(file), np.arange(3))
    data = file.read_bytes()
    names = b"".join(len(name).to_bytes(2, "little") + name for name in (b"x", b"parts/0:float", b"parts/1/[0]"))
    assert names in data


def test_names_of_another_program_make_a_dict(cache):
    assert _plan(("temperature (K)", "flux"))([1, 2]) == {"temperature (K)": 1, "flux": 2}
    assert _plan((None, "array 1"))([1, 2]) == (1, 2)
    arrays = [np.arange(2), np.arange(3)]
    assert list(_plan(("0", "x"))(arrays)) == ["0", "x"]
    assert list(_plan(("0", "2"))(arrays)) == ["0", "2"]
    assert list(_plan(("a", "a/b"))(arrays)) == ["a", "a/b"]
    assert type(_plan(("0", "1"))(arrays)) is tuple
    assert list(_plan(("a/b:nonsense",))(arrays[:1])) == ["a/b:nonsense"]


def test_a_namedtuple_comes_back_where_its_class_is_not_loaded(cache):
    f = cache.memoize(lambda: Fit(1.0, np.arange(2)), name="fit", version="")
    f()
    program = f"""
import npcache
cache = npcache.Cache({cache.path!r})
result = cache.memoize(lambda: 1, name="fit", version="")()
assert type(result).__name__ == "Fit" and result.slope == 1.0 and result.residuals.tolist() == [0, 1], result
assert cache.stats().disk == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=environment())


def test_a_namedtuple_of_a_function_comes_back_as_one_with_its_fields(cache):
    f = cache.memoize(lambda: collections.namedtuple("Local", "a _1", rename=True)(1, 2.0))
    for _ in range(2):
        result = f()
        assert (type(result).__name__, result.a, result._1) == ("Local", 1, 2.0)
    assert computed(f) == 1


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(npcache.__file__).parents[1])}


def test_a_deep_result_is_refused_not_lost(cache):
    deep = np.arange(2)
    for _ in range(400):
        deep = {"a longer name": deep}
    f = cache.memoize(lambda: deep)
    with pytest.warns(npcache.CacheWarning, match="nested"):
        assert f() is deep


def test_results_work_with_dlpack_and_pickle(cache):
    f = cache.memoize(lambda: np.arange(5.0))
    f()
    result = f()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)), np.arange(5.0))
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        np.testing.assert_array_equal(np.from_dlpack(result), np.arange(5.0))


def test_a_hit_warns_of_nothing(cache):
    f = cache.memoize(lambda: np.arange(5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f()
        f()
    assert computed(f) == 1
