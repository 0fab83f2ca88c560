"""Which arguments are one call, which are two, and which are refused."""

import collections
import dataclasses
import datetime
import enum
import functools
import inspect
import io
import itertools
import os
import pathlib
import threading
import types

import numpy as np
import pytest
from conftest import computed

import npcache


def anything(*args, **kwargs):
    return 0


@pytest.fixture
def key(cache):
    """The key of one value as an argument."""
    return cache.memoize(anything, name="anything", version="").key


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    ONE = 1


Point = collections.namedtuple("Point", "x y")
Vector = collections.namedtuple("Vector", "x y")


@dataclasses.dataclass
class Grid:
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Mesh:
    x: int
    y: int


# -------------------------------------------------------------------------------------------------- normal by signature


def test_a_call_is_one_key_however_it_is_written(cache):
    @cache.memoize
    def f(x, n=3, *, scale=2):
        return np.full(n, x * scale)

    calls = [
        lambda: f(1),
        lambda: f(x=1),
        lambda: f(1, 3),
        lambda: f(1, n=3),
        lambda: f(n=3, x=1),
        lambda: f(1, scale=2),
        lambda: f(scale=2, n=3, x=1),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(), [2, 2, 2])
    assert computed(f) == 1
    f(1, 2)
    f(1, scale=3)
    assert computed(f) == 3


def test_the_order_of_keyword_arguments_does_not_count(cache):
    @cache.memoize
    def f(**kwargs):
        return kwargs["a"] - kwargs["b"]

    assert f(a=3, b=1) == f(b=1, a=3) == 2
    assert f(a=1, b=3) == -2
    assert computed(f) == 2


def test_star_arguments_continue_the_positional_ones(cache):
    @cache.memoize
    def f(x, *rest):
        return x - sum(rest)

    assert f(10, 1, 2) == 7
    assert f(10, 2, 1) == 7
    assert f(10, 1, 2) == 7
    assert computed(f) == 2


def test_positional_only_names_may_be_keywords_too(cache):
    namespace = {}
    exec("def f(x, /, **more): return x - more['x']", namespace)
    f = cache.memoize(namespace["f"])
    assert f(3, x=1) == 2
    assert f(1, x=3) == -2
    assert computed(f) == 2


def test_a_wrong_call_raises_what_the_function_raises(cache):
    @cache.memoize
    def f(x, *, y):
        return x + y

    for args, kwargs in [((), {}), ((1,), {}), ((1, 2), {"y": 3}), ((1,), {"y": 1, "z": 2}), ((1,), {"x": 1, "y": 2})]:
        with pytest.raises(TypeError, match=r"f\(\)"):
            f(*args, **kwargs)
    assert f.stats().calls == 0


def doubling(n):
    """A decorator whose function has a default and a parameter that the decorated one does not have."""

    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, times=1, **kwargs):
            return times * function(*args, **{"n": n, **kwargs})

        return wrapper

    return decorate


def test_a_decorators_function_is_called_by_its_own_signature(cache):
    @cache.memoize
    @doubling(5)
    def power(x, n=2):
        return x**n

    for _ in range(2):
        assert [power(3), power(3, n=2), power(3, times=2), power(3, times=1)] == [243, 9, 486, 243]
    assert computed(power) == 3
    assert "power" in power.explain(3, times=4)
    with pytest.raises(TypeError, match="unexpected"):
        power(3, m=1)


class Doubled:
    """The same as an instance."""

    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __call__(self, x, n=5):
        return x**n


def test_what_wraps_a_function_is_called_as_it_says_itself(cache):
    def power(x, n=2):
        return x**n

    def signed(*args, **kwargs):
        return power(*args, **{"n": 5, **kwargs})

    signed.__signature__ = inspect.signature(power)
    wrapped = doubling(5)(power)
    for function in (signed, wrapped, functools.partial(wrapped), types.MethodType(wrapped, 3), Doubled(power)):
        f = cache.memoize(function, name="f", version="")
        f.clear()
        given = () if isinstance(function, types.MethodType) else (3,)
        assert [f(*given), f(*given, n=2), f(*given)] == [243, 9, 243]


def test_wrappers_in_c_are_called_as_what_they_wrap(cache):
    @functools.cache
    def power(x, n=2):
        return x**n

    for function in (power, functools.partial(power)):
        f = cache.memoize(function, name="f", version="")
        assert f.key(3) == f.key(x=3) == f.key(3, n=2) != f.key(3, n=5)
    with pytest.raises(ValueError, match="no parameter m to ignore"):
        cache.memoize(power, ignore=["m"])


def test_ignored_parameters_do_not_count(cache):
    @cache.memoize(ignore=["verbose", "callback"])
    def f(x, verbose=False, *, callback=None):
        return x + 1

    assert f(1) == f(1, True) == f(1, verbose=object()) == f(1, callback=print) == 2
    assert computed(f) == 1


def test_what_is_ignored_counts_itself(cache):
    def f(a, b):
        return a

    one = cache.memoize(f, name="f", version="", ignore=["b"])
    other = cache.memoize(f, name="f", version="", ignore=["a"])
    assert one.key(1, 2) != other.key(2, 1)
    assert one.key(1, 2) != cache.memoize(f, name="f", version="").key(1, None)


def test_an_ignored_parameter_must_exist(cache):
    with pytest.raises(ValueError, match="no parameter verbos"):
        cache.memoize(lambda x: x, ignore=["verbos"])


# ----------------------------------------------------------------------------------------------------- equal, different


EQUAL = [
    (1, np.int64(1)),
    (1.5, np.float64(1.5)),
    (True, np.True_),
    ("a", np.str_("a")),
    (b"a", np.bytes_(b"a")),
    (1j, np.complex128(1j)),
    (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    (np.arange(3), np.arange(6)[::2] // 2),
    (np.arange(3)[::-1], np.array([2, 1, 0])),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    ({1: 2, 3: 4}, {3: 4, 1: 2}),
    (Colour.RED, Colour.RED),
    (Grid(1, 2), Grid(1, 2)),
]

DIFFERENT = [
    None, False, True, 0, 1, -1, 0.0, -0.0, 1.0, float("nan"), "", "1", b"", b"1", 1j, 1 << 64, 1 << 70,
    np.float16(1), np.float32(1), np.longdouble(1), np.int8(1), np.uint8(1), np.int32(1), np.uint64(1),
    np.complex64(1j), np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00"), np.timedelta64(1, "s"),
    [], (), {}, set(), [1], (1,), {1}, {"1": 1}, {1: 1}, [[1]], [(1,)], ([1],),
    [1, 2], (1, 2), [2, 1], (1, 2.0), {"x": 1, "y": 2}, {"x": 2, "y": 1}, {1: 2}, {2: 1},
    Point(1, 2), Vector(1, 2), Grid(1, 2), Grid(2, 1), Mesh(1, 2), Colour.RED, Colour.BLUE, Level.ONE,
    {"npcache:type": "tuple", "items": [1, 2]}, {"npcache:type": "dict"},
    np.array([1, 2]), np.array([1, 2], "i4"), np.array([1, 2], ">i8"), np.array([1.0, 2.0]), np.array([[1, 2]]),
    np.array([[1], [2]]), np.array([True, False]), np.array(["a", "b"]), np.array([b"a", b"b"]), np.empty(0),
    np.empty((0, 1)), np.array([(1, 2.0)], "i4,f8"), np.array(["2020", "2021"], "M8[Y]"),
    range(3), range(0, 3, 2), slice(3), slice(0, 3), Ellipsis, np.dtype("f4"), np.dtype("f8"), np.float32, float,
    datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    datetime.timedelta(1), pathlib.PurePosixPath("1"), np.sin, np.cos, len,
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=[repr(one) for one, _ in EQUAL])
def test_equal_arguments_are_one_call(key, one, other):
    assert key(one) == key(other)


def test_different_arguments_are_different_calls(key):
    keys = collections.defaultdict(list)
    for value in DIFFERENT:
        keys[key(value)].append(value)
    assert not [values for values in keys.values() if len(values) > 1]
    assert len(keys) == len(DIFFERENT)


def test_a_numpy_integer_that_overflows_is_not_taken_for_an_int(cache):
    @cache.memoize
    def double(x):
        return x * np.uint8(2) if isinstance(x, np.uint8) else x * 2

    with np.errstate(over="ignore"):
        assert double(np.uint8(200)) == 144
        assert double(200) == 400


def test_a_tuple_and_a_list_index_differently(cache):
    @cache.memoize
    def pick(a, index):
        return a[index]

    a = np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(pick(a, (0, 1)), 1.0)
    np.testing.assert_array_equal(pick(a, [0, 1]), a)


def test_an_argument_that_the_function_changes_is_known_as_it_was(cache):
    @cache.memoize
    def f(x):
        x += 1
        return x.copy()

    for _ in range(2):
        np.testing.assert_array_equal(f(np.zeros(3)), np.ones(3))
    assert computed(f) == 1


def test_a_long_array_is_known_by_all_of_it(cache):
    @cache.memoize
    def last(x):
        return x[-1]

    x = np.zeros(300_000)
    assert last(x) == 0
    x[-1] = 1
    assert last(x) == 1
    assert last(np.append(np.zeros(299_999), 1.0)[:]) == 1
    assert last(np.repeat(np.append(np.zeros(299_999), 1.0), 2)[::2]) == 1
    assert computed(last) == 2


def test_layout_strict_keeps_layouts_apart(cache):
    @cache.memoize(layout="strict")
    def f(x):
        return x.sum()

    a = np.arange(6.0).reshape(2, 3)
    for x in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2], a.copy()):
        assert f(x) == 15
    assert computed(f) == 3
    assert f(2 * a) == 30


def test_memory_mapped_arrays_are_arrays(cache, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    f = cache.memoize(lambda x: x.sum())
    assert f(np.load(tmp_path / "a.npy", mmap_mode="r")) == f(np.arange(5)) == 10
    assert computed(f) == 1


# -------------------------------------------------------------------------------------------------------------- refused


class Quantity(np.ndarray):
    pass


class Instance:
    pass


REFUSED = {
    "masked array": lambda: np.ma.masked_array([1, 2], [0, 1]),
    "array with units": lambda: np.zeros(3).view(Quantity),
    "matrix": lambda: np.arange(3.0).view(np.matrix),
    "record array": lambda: np.rec.array([(1, 2)], dtype="i4,i4"),
    "array of objects": lambda: np.array([object()]),
    "structure with objects": lambda: np.array([(1, None)], dtype=[("a", int), ("b", object)]),
    "random generator": lambda: np.random.default_rng(1),
    "old random generator": lambda: np.random.RandomState(1),
    "open file": lambda: io.BytesIO(b"x"),
    "instance": Instance,
    "class": lambda: Instance,
    "lock": threading.Lock,
    "iterator": lambda: iter([1]),
    "generator": lambda: (i for i in [1]),
    "subclass of float": lambda: type("Metre", (float,), {})(1.0),
    "subclass of str": lambda: type("Name", (str,), {})("x"),
    "subclass of dict": lambda: collections.OrderedDict(a=1),
    "bytearray": lambda: bytearray(b"x"),
    "within a list": lambda: [1, [Instance()]],
    "within a dict": lambda: {"a": Instance()},
    "within a dataclass": lambda: Grid(1, Instance()),
    "file in a set": lambda: {npcache.File("x")},
    "long key of a dict": lambda: {b"x" * ((1 << 20) + 1): 1},
    "half a surrogate pair": lambda: "\ud800",
    "function with a closure that cannot be told": lambda: (lambda held: lambda: held)(Instance()),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_apart_is_refused_by_name(cache, what):
    @cache.memoize
    def f(x, model=None):
        return 0

    with pytest.raises(TypeError, match=r"f: argument `model\S*` .*cannot be part of a key"):
        f(1, REFUSED[what]())
    assert f.stats().calls == 0


def test_the_refusal_tells_where_and_what_to_do(cache):
    f = cache.memoize(lambda config: 0, name="f")
    with pytest.raises(
        TypeError, match=r"`config\['model'\]\[1\]` is a .*Instance.*npcache\.register\(Instance, encoder\)"
    ):
        f({"model": [1, Instance()]})
    with pytest.raises(TypeError, match="Pass a seed"):
        f(np.random.default_rng())
    with pytest.raises(TypeError, match=r"npcache\.File"):
        f(io.StringIO())


def test_a_method_is_refused_because_of_self(cache):
    class Solver:
        @cache.memoize
        def solve(self, x):
            return x

    with pytest.raises(TypeError, match="`self`"):
        Solver().solve(1)


def test_a_dataclass_with_hidden_attributes_is_refused(cache):
    grid = Grid(1, 2)
    grid.spacing = 0.5
    with pytest.raises(TypeError, match="spacing"):
        cache.memoize(lambda g: 0)(grid)


@dataclasses.dataclass
class Sphere:
    radius: float

    @functools.cached_property
    def volume(self):
        return self.radius**3


def test_a_cached_property_that_was_read_counts(cache):
    f = cache.memoize(lambda sphere: sphere.volume)
    assert [f(Sphere(2)), f(Sphere(3)), f(Sphere(2))] == [8, 27, 8]
    assert computed(f) == 2
    stale = Sphere(2)
    assert stale.volume == 8
    stale.radius = 3
    assert [f(stale), f(Sphere(3))] == [8, 27]


def test_the_fields_of_a_named_tuple_count(key):
    keys = {key(collections.namedtuple("P", fields)(1, 2)) for fields in ("lat lon", "lon lat", "lat height")}
    assert len(keys) == 3


def test_a_named_tuple_with_more_than_its_fields_is_refused(cache):
    class Reading(collections.namedtuple("Reading", "value")):
        pass

    reading = Reading(1)
    f = cache.memoize(lambda r: 2 * r.value)
    assert f(reading) == 2
    reading.offset = 3
    with pytest.raises(TypeError, match="offset"):
        f(reading)


def test_what_contains_itself_is_refused(cache):
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="contains itself"):
        cache.memoize(lambda x: 0)(endless)


def test_lists_nest_64_deep(cache):
    f = cache.memoize(lambda x: 0)
    nested = 1
    for _ in range(64):
        nested = [nested]
    assert f(nested) == 0
    with pytest.raises(ValueError, match="64 levels"):
        f([nested])


# ----------------------------------------------------------------------------------------------------------- registered


class Celsius:
    def __init__(self, degrees):
        self.degrees = degrees


class Kelvin(Celsius):
    pass


@pytest.fixture
def registered():
    """Types registered in a test are forgotten after it."""
    before = dict(npcache._arguments._registered)
    yield npcache.register
    npcache._arguments._registered.clear()
    npcache._arguments._registered.update(before)


def test_a_registered_type_is_an_argument(cache, registered):
    registered(Celsius, lambda value: value.degrees)
    registered(Kelvin, lambda value: value.degrees)
    f = cache.memoize(lambda t: t.degrees)
    assert [f(Celsius(20.0)), f(Celsius(20.0)), f(Celsius(21.0)), f(Kelvin(20.0))] == [20.0, 20.0, 21.0, 20.0]
    assert computed(f) == 3
    assert f.key(Celsius(20.0)) != f.key(20.0)


def test_registration_is_not_inherited(cache, registered):
    registered(Celsius, lambda value: value.degrees)
    with pytest.raises(TypeError, match="Kelvin"):
        cache.memoize(lambda t: 0)(Kelvin(1.0))


def test_a_registered_masked_array_counts_with_its_mask(cache, registered):
    registered(np.ma.MaskedArray, lambda a: (a.filled(0), np.ma.getmaskarray(a)))
    f = cache.memoize(lambda a: a.sum())
    assert f(np.ma.masked_array([1.0, 2.0], [0, 1])) == 1
    assert f(np.ma.masked_array([1.0, 2.0], [1, 0])) == 2
    assert f(np.ma.masked_array([1.0, 2.0], [0, 0])) == 3


@pytest.mark.parametrize("kind", [int, np.ndarray, list, str])
def test_what_is_the_same_in_every_language_cannot_be_registered(registered, kind):
    with pytest.raises(ValueError, match="already"):
        registered(kind, str)


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_file_counts_by_its_contents(cache, tmp_path):
    @cache.memoize
    def size(path):
        with open(path, "rb") as file:
            return len(file.read())

    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    assert size(npcache.File(one)) == size(npcache.File(other)) == size(npcache.File(os.fsencode(one))) == 3
    assert str(npcache.File(os.fsencode(one))) == str(one)
    assert computed(size) == 1
    one.write_bytes(b"abcd")
    assert size(npcache.File(one)) == 4
    with pytest.raises(FileNotFoundError):
        size(npcache.File(tmp_path / "none"))


@pytest.mark.parametrize("make", [str, pathlib.Path])
def test_a_name_of_a_file_is_warned_about_once(cache, tmp_path, make):
    path = tmp_path / "data.csv"
    path.write_text("1")
    f = cache.memoize(lambda path: 0)
    with pytest.warns(npcache.CacheWarning, match=r"npcache\.File"):
        f(make(path))
    path.with_name("more.csv").write_text("1")
    f(make(path.with_name("more.csv")))


def test_functions_are_arguments_by_their_code(cache):
    def apply(f, x):
        return f(x)

    cached = cache.memoize(apply)
    assert cached(lambda x: x + 1, 1) == 2
    assert cached(lambda x: x + 2, 1) == 3
    assert cached(lambda x:   x  +  1, 1) == 2  # fmt: skip
    for n in (1, 2):
        assert cached(lambda x: x + n, 1) == 1 + n  # noqa: B023
    assert computed(cached) == 4


def test_pairs_of_arguments_do_not_run_together(key):
    values = [1, 12, "1", "12", [1], [1, 2], b"1", (), None, np.arange(2), {"a": 1}]
    pairs = list(itertools.product(values, repeat=2))
    assert len({key(*pair) for pair in pairs} | {key(value) for value in values}) == len(pairs) + len(values)
