"""pandas Series and DataFrames as arguments and as results."""

import contextlib
import datetime
import warnings

import numpy as np
import pytest

import npcache

pd = pytest.importorskip("pandas")

DATES = pd.date_range("2020-01-01", periods=3, freq="D")


def offset(name=None, **how):
    span = datetime.timedelta(**how)
    return datetime.timezone(span) if name is None else datetime.timezone(span, name)


def frame():
    return pd.DataFrame(
        {
            "number": [1.5, np.nan, 3.0],
            "count": np.array([1, 2, 3], "i4"),
            "flag": [True, False, True],
            "date": DATES,
            "zoned": DATES.tz_localize("Europe/Berlin"),
            "wait": pd.to_timedelta([1, 2, 3], unit="h"),
            "text": ["a", "bé", ""],
        }
    )


TABLES = {
    "numbers": lambda: pd.Series([1.0, 2.0], name="x"),
    "integers": lambda: pd.Series(np.array([1, 2], "u1")),
    "complex": lambda: pd.Series([1j, 2.0]),
    "booleans": lambda: pd.Series([True, False]),
    "dates": lambda: pd.Series(DATES),
    "dates in UTC": lambda: pd.Series(DATES.tz_localize("UTC")),
    "missing date": lambda: pd.Series([pd.Timestamp("2020-01-01"), pd.NaT]),
    "texts": lambda: pd.Series(["a", "bc", "", "é\0"]),
    "texts, one missing": lambda: pd.Series(["a", None]),
    "texts of pandas' own": lambda: pd.Series(["a", pd.NA], dtype="string"),
    "objects that are texts": lambda: pd.Series(["a", None, float("nan")], dtype=object),
    "empty": lambda: pd.Series([], dtype="f8"),
    "name that is a number": lambda: pd.Series([1], name=3),
    "index of texts": lambda: pd.Series([1, 2], index=["a", "b"]),
    "index of numbers": lambda: pd.Series([1, 2], index=pd.Index([10, 20], name="id")),
    "index of dates": lambda: pd.Series([1, 2, 3], index=DATES),
    "index with a step": lambda: pd.Series([1, 2], index=pd.RangeIndex(0, 4, 2, name="k")),
    "frame": frame,
    "frame of one kind": lambda: pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"]),
    "frame by numbers": lambda: pd.DataFrame(np.arange(6).reshape(3, 2)),
    "frame with mixed labels": lambda: pd.DataFrame({1: [1], "a": [2]}),
    "frame with two columns of one name": lambda: pd.DataFrame([[1, 2.0]], columns=["a", "a"]),
    "frame without columns": lambda: pd.DataFrame(index=[1, 2]),
    "frame without rows": lambda: pd.DataFrame({"a": np.array([], "f8")}),
    "frame by date": lambda: pd.DataFrame({"a": [1, 2, 3]}, index=DATES),
    "frame of objects": lambda: pd.DataFrame({"a": pd.Series(["x", None], dtype=object)}),
    "index": lambda: pd.Index([1.5, 2.5], name="x"),
    "moment": lambda: pd.Timestamp("2020-01-01 12:00:00.123456789"),
    "moment with a zone": lambda: pd.Timestamp("2020-07-01 12:00", tz="Europe/Berlin"),
    "moment at a fixed offset": lambda: pd.Timestamp("2020-07-01 12:00", tz=offset(minutes=-90)),
    "dates at a fixed offset": lambda: pd.Series(DATES.tz_localize(offset(minutes=330))),
    "span": lambda: pd.Timedelta("1 days 00:00:01"),
    "index of working days": lambda: pd.Series([1, 2], index=pd.bdate_range("2020-01-01", periods=2)),
    "index of every other hour": lambda: pd.date_range("2020-01-01", periods=2, freq=pd.offsets.Hour(2)),
}


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_freq=True, check_column_type=True)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, check_freq=True)
    elif isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other)
    else:
        assert one == other
        assert str(one) == str(other)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("writable", [False, True])
def test_a_table_is_an_argument_and_a_result(cache, reopened, name, writable):
    table = TABLES[name]()
    f = cache.memoize(lambda t: t, name="f", version="", writable=writable)
    for _ in range(3):
        assert_same(f(TABLES[name]()), table)
    again = reopened().memoize(lambda t: 0, name="f", version="", writable=writable)
    assert_same(again(table), table)
    assert (f.stats().computed, f.stats().memory, again.stats().disk) == (1, 2, 1)


def test_tables_that_differ_are_different_arguments(cache):
    key = cache.memoize(lambda t: 0, version="").key
    keys = {name: key(make()) for name, make in TABLES.items()}
    assert len(set(keys.values())) == len(TABLES)
    base = frame()
    others = [
        base[base.columns[::-1]],
        base.rename(columns={"number": "count", "count": "number"}),
        base.iloc[::-1],
        base.reset_index(drop=True).set_index("count"),
        base.astype({"count": "i8"}),
        base.assign(text=["a", "b", "é"]),
        base.assign(text=["ab", "é", ""]),
        base["number"],
        base["number"].to_numpy(),
        base["number"].rename("other"),
        base["number"].to_frame(),
        base.assign(zoned=base["zoned"].dt.tz_convert("UTC")),
    ]
    assert len({key(other) for other in others} | {key(base)}) == len(others) + 1


def test_a_frame_with_its_columns_swapped_is_another_argument(cache):
    @cache.memoize
    def first_minus_second(t):
        return t.iloc[:, 0].to_numpy() - t.iloc[:, 1].to_numpy()

    table = pd.DataFrame({"a": [3, 4], "b": [1, 1]})
    assert first_minus_second(table).tolist() == [2, 3]
    assert first_minus_second(table[["b", "a"]]).tolist() == [-2, -3]
    assert first_minus_second(table.rename(columns={"a": "b", "b": "a"})).tolist() == [2, 3]
    assert first_minus_second.stats().computed == 3


def test_how_a_frame_lies_in_memory_does_not_count(cache):
    key = cache.memoize(lambda t: 0, version="").key
    block = pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"])
    columns = pd.DataFrame({"a": block["a"].to_numpy().copy(), "b": block["b"].to_numpy().copy()})
    assert key(block) == key(columns)


REFUSED = {
    "category": lambda: pd.Series(["a", "b"], dtype="category"),
    "nullable integers": lambda: pd.Series([1, None], dtype="Int64"),
    "periods": lambda: pd.Series(pd.period_range("2020", periods=2, freq="D")),
    "objects": lambda: pd.Series([object()]),
    "mixed objects": lambda: pd.Series(["a", 1]),
    "two-level index": lambda: pd.Series([1], index=pd.MultiIndex.from_tuples([(1, 2)])),
    "attributes": lambda: with_attributes(),
    "offset with a name": lambda: pd.Timestamp("2020-01-01", tz=offset("CET1", hours=1)),
    "offset with the name of a zone": lambda: pd.Series(DATES.tz_localize(offset("Asia/Tokyo", hours=1))),
    "offset with the name of another": lambda: pd.Timestamp("2020-01-01", tz=offset("UTC+02:00", hours=1)),
    "offset with seconds": lambda: pd.Series(DATES.tz_localize(offset(seconds=1172))),
    "index of days but holidays": lambda: pd.Series(
        [1, 2], index=pd.date_range("2020-01-01", periods=2, freq=pd.offsets.CDay(holidays=["2020-01-02"]))
    ),
    "index of opening hours": lambda: pd.Series(
        [1, 2], index=pd.date_range("2020-01-01 10:00", periods=2, freq=pd.offsets.BusinessHour(start="10:00"))
    ),
    "column of a frame": lambda: pd.DataFrame({"a": [1], "b": pd.Categorical(["x"])}),
}


def with_attributes():
    table = pd.Series([1])
    table.attrs["unit"] = "m"
    return table


@pytest.mark.parametrize("name", REFUSED)
def test_other_columns_are_refused_as_arguments_and_not_lost_as_results(cache, name):
    f = cache.memoize(lambda t: 0)
    with pytest.raises(TypeError, match="`t"):
        f(REFUSED[name]())
    table = REFUSED[name]()
    g = cache.memoize(lambda: table, name="g", version="")
    with pytest.warns(npcache.CacheWarning, match="cannot be stored"):
        assert g() is table


def test_a_subclass_of_a_frame_is_refused(cache):
    class GeoFrame(pd.DataFrame):
        pass

    with pytest.raises(TypeError, match="GeoFrame"):
        cache.memoize(lambda t: 0)(GeoFrame({"a": [1]}))


def test_a_stored_frame_is_not_changed_through_a_result(cache):
    f = cache.memoize(lambda: pd.DataFrame({"a": np.zeros(5)}), version="")
    for _ in range(3):
        result = f()
        assert not result["a"].any()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ValueError):  # read-only
                result.iloc[0, 0] = 7
    g = cache.memoize(lambda: pd.DataFrame({"a": np.zeros(5)}), name="g", version="", writable=True)
    for _ in range(3):
        result = g()
        assert not result["a"].any()
        result.iloc[0, 0] = 7
        assert result.iloc[0, 0] == 7


def test_a_series_that_it_adds_to_another_counts(cache):
    weights = pd.Series([1.0, 2.0])
    f = cache.memoize(lambda x: weights.add(x).sum())
    assert f(1.0) == 5
    weights[0] = 2.0
    assert f(1.0) == 6
