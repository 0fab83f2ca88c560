"""Which changes of code and of what it uses compute anew, and which do not."""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import math
import operator
import os
import subprocess
import sys
import textwrap
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import computed

import npcache
from npcache._identity import Identity

scale = 2
table = [1, 2]


def helper(x):
    return x + 1


def identity_of(function, **how):
    return Identity(function, None, how.get("depends", ())).current()


@pytest.fixture
def module(tmp_path):
    """Writes a module and imports it, under one name however often."""

    def load(source, name="user_module"):
        path = tmp_path / f"{name}-{load.count}.py"
        load.count += 1
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(name, path)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    load.count = 0
    return load


@pytest.fixture
def identity(module):
    """The identity of `f` in a module of the given source, imported anew."""
    return lambda source: identity_of(module(source).f)


# --------------------------------------------------------------------------------------------------- wrong-number traps


def test_closures_of_one_def_differ(cache):
    def make(n):
        def power(x):
            return x**n

        return cache.memoize(power)

    square, cube = make(2), make(3)
    assert [square(2.0), cube(2.0), square(2.0), cube(2.0)] == [4.0, 8.0, 4.0, 8.0]
    assert square.stats().computed == 2  # one name, counted together


def test_two_lambdas_on_one_line_differ(cache):
    f, g = cache.memoize(lambda x: x + 1), cache.memoize(lambda x: x + 2)
    h, k = cache.memoize(lambda x: x * 2), cache.memoize(lambda x: x - 2)
    assert [f(1), g(1), h(1), k(1)] == [2, 3, 2, -1]
    assert [f(1), g(1), h(1), k(1)] == [2, 3, 2, -1]
    assert f.stats().computed == 4
    assert "py:" in Identity(f.__wrapped__, None, ()).current()[0]


def test_a_global_changed_between_calls_is_seen(cache, monkeypatch):
    f = cache.memoize(lambda x: x * scale)
    assert f(10) == 20
    monkeypatch.setattr(sys.modules[__name__], "scale", 3)
    assert f(10) == 30
    monkeypatch.setattr(sys.modules[__name__], "scale", 3.0)
    assert type(f(10)) is float
    monkeypatch.setattr(sys.modules[__name__], "scale", 2)
    assert f(10) == 20
    assert computed(f) == 3


def test_explain_tells_what_changed(cache, monkeypatch):
    f = cache.memoize(lambda x: x * scale)
    f(10)
    monkeypatch.setattr(sys.modules[__name__], "scale", 3)
    explained = f.explain(10)
    assert "global `scale`" in explained or "`global scale`" in explained
    assert '"2"' in explained
    assert '"3"' in explained


def test_a_global_that_changes_in_place_is_seen_and_warned_about_once(cache, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "table", [1, 2])
    f = cache.memoize(lambda: np.array(table))
    with pytest.warns(npcache.CacheWarning, match="global `table` .* can change") as caught:
        assert f().tolist() == [1, 2]
    assert len(caught) == 1
    table.append(3)
    assert f().tolist() == [1, 2, 3]
    table.pop()
    assert f().tolist() == [1, 2]
    assert computed(f) == 2


def test_an_array_in_a_closure_counts_by_its_contents(cache):
    weights = np.ones(3)
    f = cache.memoize(lambda x: x * weights.sum())
    assert f(2.0) == 6
    weights[0] = 2
    assert f(2.0) == 8
    assert computed(f) == 2


def test_a_large_array_in_a_closure_counts_by_all_of_its_contents(cache):
    weights = np.ones(500_000)
    f = cache.memoize(lambda x: x * weights[-1])
    assert f(2.0) == 2
    weights[-1] = 2
    assert f(2.0) == 4


def test_a_closure_that_cannot_be_told_is_refused(cache):
    rng = np.random.default_rng(1)
    f = cache.memoize(lambda x: x + rng.random())
    with pytest.raises(TypeError, match=r"closure variable `rng`.*seed"):
        f(1)


def test_a_global_that_cannot_be_told_is_warned_about_once(module, cache):
    f = cache.memoize(module("class Model: pass\nmodel = Model()\ndef f(x): return x if model else 0").f)
    with pytest.warns(npcache.CacheWarning, match="global `model` is a user_module.Model, which is not part") as caught:
        assert f(1) == 1
    assert len(caught) == 1
    f(2)
    f(1)


def test_what_a_function_only_writes_to_does_not_count(cache):
    calls, counts = [], {"f": 0}

    @cache.memoize
    def f(x):
        calls.append(x)
        counts["f"] += 1
        return x + 1

    with pytest.warns(npcache.CacheWarning, match="it changes the closure variable"):
        f(1)
    assert [f(1), f(2), f(2)] == [2, 3, 3]
    assert calls == [1, 2]
    assert counts == {"f": 2}


def test_a_function_that_changes_what_it_depends_on_is_warned_about(cache):
    state = {"n": 0}

    def bump(d):
        d["n"] += 1
        return d["n"]

    f = cache.memoize(lambda: bump(state))
    with pytest.warns(npcache.CacheWarning, match="closure state changed while it ran"):
        f()


# ------------------------------------------------------------------------------------------------ what counts, what not


BASE = """
import math
scale = 2
def helper(x):
    return x + scale
def f(x, n=3):
    return helper(x) * math.pi + n
"""

COSMETIC = {
    "comments": BASE.replace("def f", "# a comment\ndef f").replace("+ n", "+ n  # more"),
    "formatting": BASE.replace("helper(x) * math.pi + n", "(\n        helper( x )*math.pi\n        + n)"),
    "docstrings": BASE.replace("n=3):\n", 'n=3):\n    """Says what."""\n').replace("(x):\n", '(x):\n    "And."\n'),
    "another default, which is an argument": BASE.replace("n=3", "n=4"),
    "what it does not use": BASE + "other = 3\ndef unused(): pass\n",
    "its place in the file": "\n" * 7 + BASE,
    "annotated elsewhere": BASE.replace("scale = 2", "scale: int = 2"),
}

SUBSTANTIAL = {
    "its code": BASE.replace("* math.pi", "/ math.pi"),
    "a constant": BASE.replace("+ n", "+ 2 * n"),
    "the type of a constant": BASE.replace("math.pi + n", "math.pi + n * 1.0").replace("1.0", "1"),
    "its helper": BASE.replace("x + scale", "x - scale"),
    "what its helper reads": BASE.replace("scale = 2", "scale = 3"),
    "the type of a global": BASE.replace("scale = 2", "scale = 2.0"),
    "what a name stands for": BASE.replace("import math", "import cmath as math"),
    "a parameter's name": BASE.replace("n=3", "m=3").replace("+ n", "+ m"),
    "a nested function": BASE.replace("    return helper(x)", "    def g(y): return y\n    return helper(g(x))"),
}


@pytest.mark.parametrize("what", COSMETIC)
def test_what_means_nothing_does_not_count(identity, what):
    assert identity(COSMETIC[what]) == identity(BASE)


@pytest.mark.parametrize("what", SUBSTANTIAL)
def test_a_change_computes_anew(identity, what):
    assert identity(SUBSTANTIAL[what]) != identity(BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y == 1.0", "y == 1"),
        ("y in {1, 2}", "y in {1, 3}"),
        ("y + 0.0", "y + -0.0"),
        ("'1'", "b'1'"),
        ("True", "1"),
        ("y[0:1]", "y[0:2]"),
        ("f'{y}'", "f'{y!r}'"),
        ("[a for a in y]", "[a for a in y if a]"),
        ("lambda: 1", "lambda: 2"),
        ("y if y else 0", "0 if y else y"),
    ],
)
def test_expressions_that_differ_a_little_differ(identity, one, other):
    assert identity(f"def f(y): return {one}") != identity(f"def f(y): return {other}")


def test_nested_docstrings_do_not_count(identity):
    one = "def f(x):\n    def g():\n        'one'\n        return x\n    return g()"
    assert identity(one) == identity(one.replace("one", "two"))
    returned = "def f(x):\n    def g():\n        return 'one'\n    return g()"
    assert identity(returned) != identity(returned.replace("one", "two"))


def test_recursion_and_mutual_recursion_end(identity):
    source = """
    def even(n): return n == 0 or f(n - 1)
    def f(n): return n != 0 and even(n - 1)
    """
    assert identity(source) == identity(source)
    assert identity(source) != identity(source.replace("n == 0", "n == 1"))


def test_a_helpers_default_counts(identity):
    source = "def g(x, n=3): return x * n\ndef f(x): return g(x)"
    assert identity(source) != identity(source.replace("n=3", "n=4"))


def test_a_helper_behind_a_wrapper_counts(identity):
    for wrapper in ("functools.lru_cache(maxsize=None)", "functools.cache", "functools.wraps(len)"):
        source = f"import functools\n@{wrapper}\ndef g(x): return x + 1\ndef f(x): return g(x)"
        if "wraps" not in wrapper:
            assert identity(source) != identity(source.replace("x + 1", "x + 2")), wrapper
    source = "import functools\ndef g(x, n): return x + n\nh = functools.partial(g, n=1)\ndef f(x): return h(x)"
    assert identity(source) != identity(source.replace("n=1", "n=2"))
    assert identity(source) != identity(source.replace("x + n", "x - n"))


DECORATORS = """
import functools
def scaled(factor):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return factor * function(*args)
        return wrapper
    return decorate
"""


def test_a_decorator_under_the_caches_counts(module, cache, monkeypatch):
    def load(code, factor, decorators=DECORATORS):
        monkeypatch.setitem(sys.modules, "decorators", module(decorators, "decorators"))
        source = f"from decorators import scaled\n@scaled({factor})\ndef g(x): return {code}\ndef f(x): return g(x)"
        return module(source)

    variants = [("x", 2), ("x", 3), ("x + 1", 2), ("x", 2, DECORATORS.replace("factor *", "factor +"))]
    results = [2, 3, 4, 3]
    for name in ("g", "f"):
        assert [cache.memoize(getattr(load(*variant), name))(1) for variant in variants] == results
        assert [cache.memoize(getattr(load(*variant), name))(1) for variant in variants] == results
    assert cache.stats().computed == 8


def test_globals_that_cannot_change_are_not_warned_about(module, cache):
    source = """
    import collections, dataclasses, enum, logging, pathlib, re, threading, typing
    import numpy as np
    Pair = collections.namedtuple("Pair", "x y")
    class Colour(enum.Enum):
        RED = 1
    @dataclasses.dataclass(frozen=True)
    class Mesh:
        n: int
    pair, colour, mesh = Pair(1, 2), Colour.RED, Mesh(3)
    path, pattern, dtype, kind = pathlib.PurePath("x"), re.compile("a+"), np.dtype("f4"), typing.Optional[int]
    log, lock = logging.getLogger("x"), threading.Lock()
    def f(x):
        log.debug("%s", (pair, colour, mesh, path, pattern, dtype, kind))
        with lock:
            return x + mesh.n
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.memoize(module(source).f)(1) == 4
    assert identity_of(module(source).f) == identity_of(module(source).f)
    for old, new in [("Mesh(3)", "Mesh(4)"), ("a+", "b+"), ("Pair(1, 2)", "Pair(2, 1)"), ("[int]", "[str]")]:
        assert identity_of(module(source).f) != identity_of(module(source.replace(old, new)).f)


def test_the_methods_of_an_object_that_it_uses_count(identity):
    source = """
    import dataclasses
    @dataclasses.dataclass(frozen=True)
    class Mesh:
        n: int
        def cells(self): return self.n ** 2
    mesh = Mesh(3)
    def f(x): return x + mesh.cells()
    """
    assert identity(source) == identity(source)
    assert identity(source) != identity(source.replace("** 2", "** 3"))
    made = "def make(mesh):\n        def f(x): return mesh.cells()\n        return f\n    f = make(mesh)\n"
    closure = source.replace("def f(x)", made + "    def g(x)")
    assert identity(closure) == identity(closure)
    assert identity(closure) != identity(closure.replace("** 2", "** 3"))


def test_cached_functions_are_arguments(cache):
    apply = cache.memoize(lambda f, x: f(x), name="apply")
    one, two = cache.memoize(lambda x: x + 1), cache.memoize(lambda x: x + 2)
    assert [apply(one, 1), apply(two, 1), apply(one, 1)] == [2, 3, 2]
    versions = [cache.memoize(lambda x: x, name="v", version=v) for v in "12"]
    assert apply.key(versions[0], 1) != apply.key(versions[1], 1)
    assert apply.stats().computed == 2


def test_a_class_of_its_module_counts(identity):
    source = """
    class Base:
        def step(self): return 1
    class Model(Base):
        n = 3
        def run(self, x): return x + self.n + self.step()
    def f(x): return Model().run(x)
    """
    assert identity(source) == identity(source.replace("Model(Base):", "Model(Base):\n        'documented'"))
    for old, new in [("n = 3", "n = 4"), ("x + self", "x - self"), ("return 1", "return 2"), ("(Base)", "")]:
        assert identity(source) != identity(source.replace(old, new)), new


def test_a_class_that_changes_in_place_is_seen(cache):
    class Base:
        def step(self):
            return 1

    class Params(Base):
        k, weights = 2, [1]

        def add(self, x):
            return x + self.step()

    f = cache.memoize(lambda x: Params().add(x) * Params.k * sum(Params.weights))
    assert f(1) == 4
    Params.k = 3
    assert f(1) == 6
    Params.add = lambda self, x: x
    assert f(1) == 3
    Params.weights.append(1)
    assert f(1) == 6
    Params.add = Base.step  # a method of the base, which is then its own
    assert [Params.k, Params.weights] == [3, [1, 1]]
    Base.step = lambda self, x=0: 7 + x
    del Params.add
    Base.add = Base.step
    assert f(1) == 48
    assert f(1) == 48
    assert f.stats().computed == 5


def test_a_class_behind_a_cached_class_method_counts(cache):
    class Params:
        k = 2

        @classmethod
        def at(cls, x):
            return cls.k * x

    f = cache.memoize(Params.at)
    assert f(1) == 2
    Params.k = 3
    assert f(1) == 3
    assert cache.memoize(Params.at)(1) == 3
    assert f.stats().computed == 2


def test_a_class_whose_code_changes_it_is_a_hit_again(cache):
    class Model:
        made = 0
        known = {}  # noqa: RUF012

        def __init__(self):
            type(self).made += 1

        def at(self, x):
            if x not in self.known:
                self.known[x] = x**2
            return self.known[x]

    f = cache.memoize(lambda x: Model().at(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [f(2), f(3), f(2), f(3)] == [4, 9, 4, 9]
    assert f.stats().computed == Model.made == 2


def test_attributes_of_a_class_that_are_objects_count_or_are_warned_about(identity):
    source = """
    import functools, types
    class Setting:
        def __init__(self, k): self.k = k
    class Params:
        scaled = functools.partialmethod(lambda self, x, k: k * x, k=2)
        table = types.SimpleNamespace(k=2)
        setting = Setting(2)
    def f(x): return Params().scaled(x) * Params.table.k * Params.setting.k
    """
    warning = "attribute `Params.setting` is a user_module.Setting, which is not part of the key"
    for old, new in [("x, k=2", "x, k=3"), ("e(k=2", "e(k=3")]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert identity(source) == identity(source)
            assert identity(source) != identity(source.replace(old, new)), new
        assert warning in str(caught[0].message) + str(caught[1].message)


@pytest.mark.parametrize("enclosed", [False, True])
def test_a_namespace_counts_by_its_contents(module, cache, enclosed):
    source = """
    import types
    import numpy as np
    config = types.SimpleNamespace(k=2, weights=np.zeros(5000))
    def make(config): return lambda x: x * config.k + config.weights[2500]
    def f(x): return x * config.k + config.weights[2500]
    """
    loaded = module(source)
    f = cache.memoize(loaded.make(loaded.config) if enclosed else loaded.f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npcache.CacheWarning)
        assert f(1) == 2
        loaded.config.k = 3
        assert f(1) == 3
        loaded.config.weights[2500] = 1
        assert f(1) == 4
    assert f.stats().computed == 3


def test_a_cached_helper_counts(cache, module, monkeypatch):
    source = """
    from shared import cache
    @cache.memoize
    def g(x): return x + 1
    @cache.memoize
    def f(x): return g(x) * 2
    """
    load = module
    monkeypatch.setitem(sys.modules, "shared", types.SimpleNamespace(cache=cache))
    assert load(source).f(1) == 4
    assert load(source.replace("x + 1", "x + 2")).f(1) == 6
    again = load(source).f
    assert again(1) == 4
    assert again.stats().computed == 2


def test_partial_arguments_count(cache):
    def power(n, x):
        return x**n

    square, cube = cache.memoize(functools.partial(power, 2)), cache.memoize(functools.partial(power, 3))
    named = cache.memoize(functools.partial(power, n=3))
    assert [square(2.0), cube(2.0), named(x=2.0), square(2.0)] == [4.0, 8.0, 8.0, 4.0]


def test_functions_of_other_modules_count_when_declared(module):
    def load(constant):
        sys.modules["helpers"] = module(f"def help(x): return x + {constant}", "helpers")
        return module("from helpers import help\ndef f(x): return help(x)")

    try:
        first, second = load(1), load(2)
        assert identity_of(first.f) == identity_of(second.f)
        assert identity_of(first.f, depends=[first.help]) != identity_of(second.f, depends=[second.help])
        assert identity_of(first.f, depends=[first.help]) == identity_of(load(1).f, depends=[load(1).help])
    finally:
        del sys.modules["helpers"]


def test_a_module_counts_by_its_version():
    def f(x):
        return x

    one, two, unversioned = types.ModuleType("lib"), types.ModuleType("lib"), types.ModuleType("lib")
    one.__version__, two.__version__ = "1.0", "2.0"
    identities = [identity_of(f, depends=[m]) for m in (one, two, unversioned)]
    assert len(set(identities)) == 3
    assert ("depends numpy", np.__version__) in identity_of(f, depends=[np])[1]


def test_a_module_without_version_counts_by_its_code(module):
    def f(x):
        return x

    one, other = module("x = 1", "lib"), module("x = 2", "lib")
    assert identity_of(f, depends=[one]) != identity_of(f, depends=[other])
    assert identity_of(f, depends=[one]) == identity_of(f, depends=[module("x = 1  # comment", "lib")])


LIBRARY = """
import functools
K = -2
class Model:
    @staticmethod
    def at(x): return x * K
@functools.lru_cache
def g(x): return Model.at(x)
count = 0
table = {}
def h(x):
    global count
    count += 1
    table[x] = count
"""


def test_a_module_that_was_edited_after_its_import_is_neither_of_the_two(module):
    def f(x):
        return x

    def declared(loaded):
        return identity_of(f, depends=[loaded])

    for old, new in [("K = -2", "K = -3"), ("x * K", "x + K"), ("Model.at(x)", "2 * Model.at(x)")]:
        one, other = module(LIBRARY, "lib"), module(LIBRARY.replace(old, new), "lib")
        path = Path(one.__file__)
        before = declared(one)
        path.write_text(path.read_text().replace(old, new))
        assert len({before, declared(one), declared(other)}) == 3, new
    one = module(LIBRARY)
    before = declared(one)
    one.h(1)
    assert declared(one) == before
    Path(one.__file__).unlink()
    assert declared(one) != before


def test_a_module_that_is_loaded_again_is_seen(module, cache):
    loaded = module("def g(x): return x + 1")
    f = cache.memoize(lambda x: loaded.g(x), depends=[loaded])
    assert f(1) == 2
    source = "def g(x): return x + 2"
    Path(loaded.__file__).write_text(source)
    exec(compile(source, loaded.__file__, "exec"), vars(loaded))
    assert f(1) == 3


@pytest.mark.parametrize("of_namespace", [False, True])
def test_a_package_counts_by_all_of_its_files(tmp_path, monkeypatch, of_namespace):
    def f(x):
        return x

    name = f"package_{of_namespace}"
    files = ["inner/__init__.py", "inner/code.py", "code.py"] + ([] if of_namespace else ["__init__.py"])
    for file in files:
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module(name)
    identities = [identity_of(f, depends=[package])]
    for file in files:
        (tmp_path / name / file).write_text("x = 2")
        identities.append(identity_of(f, depends=[package]))
    assert len(set(identities)) == 1 + len(files)
    assert identities[0][1][0][1].startswith("py:")
    code = importlib.import_module(f"{name}.inner.code")
    assert identity_of(f, depends=[package]) == identities[-1]
    code.x = 1  # as if imported before the edit
    assert identity_of(f, depends=[package]) not in identities


def test_values_and_texts_can_be_declared(cache):
    def f(x):
        return x

    keys = [cache.memoize(f, depends=d).key(1) for d in ([1], [2], [np.arange(3)], {"blas": "1"}, {"blas": "2"}, ())]
    assert len(set(keys)) == 6


def test_a_version_replaces_the_code(cache, module):
    one = cache.memoize(module("def f(x): return x + 1").f, version="1")
    other = cache.memoize(module("def f(x): return x + 2").f, version="1")
    assert one(1) == other(1) == 2
    assert cache.memoize(module("def f(x): return x + 2").f, version="2")(1) == 3


def test_code_replaced_in_place_is_seen(cache):
    def f(x):
        return x + 1

    def g(x):
        return x + 2

    cached = cache.memoize(f, name="f")
    assert cached(1) == 2
    f.__code__ = g.__code__
    assert cached(1) == 3


def test_defaults_replaced_in_place_are_seen(cache):
    def f(x=1):
        return x

    cached = cache.memoize(f)
    assert cached() == 1
    f.__defaults__ = (2,)
    assert cached() == 2


def test_a_builtin_shadowed_later_is_seen(module, cache):
    loaded = module("def f(x): return abs(x)")
    f = cache.memoize(loaded.f)
    assert f(-1) == 1
    loaded.abs = lambda x: x
    assert f(-1) == -1


def test_functions_in_c_are_known_by_their_packages_version(cache):
    for function, value in [(math.sqrt, 4.0), (np.sqrt, 4.0), (abs, -2)]:
        f = cache.memoize(function)
        assert f(value) == f(value) == 2
        assert f.stats().computed == 1
    assert np.__version__ in identity_of(np.sqrt)[0]


def test_functions_of_libraries_can_be_cached(cache):
    f = cache.memoize(np.linalg.svd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npcache.CacheWarning)
        first, second = f(np.eye(3)), f(np.eye(3))
    assert type(first).__name__ == type(second).__name__
    np.testing.assert_array_equal(first[1], second[1])
    assert f.stats().computed == 1


class Affine:
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, x):
        return self.slope * x

    def at(self, x):
        return self.slope * x


def test_bound_methods_and_callable_instances_need_an_encoder(cache):
    for function in (Affine(2), Affine(2).at):
        with pytest.raises(TypeError, match="Affine"):
            cache.memoize(function)(1)
    before = dict(npcache._arguments._registered)
    try:
        npcache.register(Affine, lambda value: value.slope)
        results = [cache.memoize(f)(10) for f in (Affine(2), Affine(3), Affine(2).at, Affine(3).at, Affine(2))]
        assert results == [20, 30, 20, 30, 20]
    finally:
        npcache._arguments._registered.clear()
        npcache._arguments._registered.update(before)


# ------------------------------------------------------------------------------------- what functions have beside code


def outcomes(cache, make, *args):
    """What the functions that `make` gives for 1 and 2 return, each memoized, called twice."""
    one, two = cache.memoize(make(1)), cache.memoize(make(2))
    return [f(*args) for f in (one, two, one, two)]


def test_methods_in_c_count_with_what_they_are_bound_to(cache):
    apply = cache.memoize(lambda f, x: f(x))
    dots = [(n * np.eye(2)).dot for n in (1, 2)]
    assert [apply(dot, np.ones(2)).tolist() for dot in dots] == [[1, 1], [2, 2]]
    assert [apply({"a": n}.get, "a") for n in (1, 2)] == [1, 2]
    assert [apply([1, n].count, 1) for n in (1, 2)] == [2, 1]
    assert outcomes(cache, lambda n: {"a": n}.get, "a") == [1, 2, 1, 2]  # the function itself
    assert outcomes(cache, lambda n: (2**n).__add__, 1) == [3, 5, 3, 5]
    assert outcomes(cache, lambda n: functools.partial({"a": n}.get, "a")) == [1, 2, 1, 2]

    def enclosed(n):
        get = {"a": n}.get
        return lambda x: get(x)

    def declared(n):
        return cache.memoize(lambda x: x, depends=[{"a": n}.get]).key(1)

    assert outcomes(cache, enclosed, "a") == [1, 2, 1, 2]
    assert declared(1) != declared(2) == declared(2)


def test_a_method_in_c_that_is_a_global_counts_with_what_it_is_bound_to(module, cache):
    source = "table = {1: 2}\nget = table.get\ndef f(x): return get(x)"
    loaded = module(source)
    f = cache.memoize(loaded.f)
    with pytest.warns(npcache.CacheWarning, match="global `get self` is a builtins.dict, which can change"):
        assert f(1) == 2
    loaded.table[1] = 3
    assert f(1) == 3


def test_functions_in_c_that_are_bound_to_nothing_of_the_users_are_known_by_name(identity):
    source = "import datetime\nfrom math import sqrt\nparse, make = datetime.date.fromisoformat, dict.fromkeys\n"
    _, parts = identity(source + "def f(x): return parse(x), make(x), sqrt(x)")
    assert sorted(parts) == [
        ("global make", "builtins.dict.fromkeys"),
        ("global parse", "builtins.date.fromisoformat"),
        ("global sqrt", "math.sqrt"),
    ]


def test_what_is_called_in_c_and_has_no_name_is_refused(cache):
    with pytest.raises(TypeError, match="itemgetter"):
        cache.memoize(operator.itemgetter(1))([1, 2])


def test_ufuncs_count_where_their_name_says_what_they_do(cache, module):
    apply = cache.memoize(lambda f, x: f(x))
    assert [apply(f, 2.0) for f in (np.square, np.sqrt, np.negative)] == [4.0, np.sqrt(2.0), -2.0]
    made = np.frompyfunc(lambda x: x + 1, 1, 1)
    for call in (lambda: apply(made, 1), lambda: cache.memoize(made)(1), lambda: cache.memoize(lambda x: made(x))(1)):
        with pytest.raises(TypeError, match="is a ufunc that does not tell which function it is of"):
            call()
    f = cache.memoize(module("import numpy as np\ng = np.frompyfunc(abs, 1, 1)\ndef f(x): return g(x)").f)
    with pytest.warns(npcache.CacheWarning, match="global `g` is a numpy.ufunc, which is not part of the key"):
        assert f(-1) == 1


def test_the_defaults_of_a_function_that_is_an_argument_count(cache):
    total = cache.memoize(lambda f: sum(f(x) for x in (0.5, 1.5)))
    assert [total(lambda x, k=k: k * x) for k in (1, 2, 3)] == [2, 4, 6]
    assert [total(functools.partial(lambda y, x, k=k: k * x, 0)) for k in (1, 2, 3)] == [2, 4, 6]

    def named(k):
        def f(x, *, k=k):
            return k * x

        return f

    assert [total(named(k)) for k in (1, 2, 3)] == [2, 4, 6]
    f = named(1)
    assert total(f) == 2
    f.__kwdefaults__["k"] = 4
    assert total(f) == 8


def test_the_defaults_of_functions_in_a_table_count(identity):
    source = "K = 2\nTABLE = ({'a': lambda x, k=K: k * x},)\ndef f(x): return TABLE[0]['a'](x)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npcache.CacheWarning)
        assert identity(source) == identity(source)
        assert identity(source) != identity(source.replace("K = 2", "K = 3"))


def test_a_decorators_own_defaults_count(cache):
    def made(n):
        def f(x):
            return x

        @functools.wraps(f)
        def wrapper(x, _n=n):
            return _n * f(x)

        return wrapper

    assert outcomes(cache, made, 1) == [1, 2, 1, 2]


INSTANCES = """
import functools
class Scaled:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
    def __call__(self, x): return 2 * self.function(x)
@Scaled
def g(x): return x + 1
def f(x): return g(x)
def make(g): return lambda x: g(x)
h = make(g)
"""


def test_an_instance_around_a_function_is_more_than_the_function(module, cache):
    loaded = module(INSTANCES)
    for function in (loaded.g, loaded.h):
        with pytest.raises(TypeError, match=r"is a user_module\.Scaled"):
            cache.memoize(function)(1)
    f = cache.memoize(loaded.f)
    with pytest.warns(npcache.CacheWarning, match="global `g` is a user_module.Scaled, which is not part of the key"):
        assert f(1) == 4
    for old, new in [("x + 1", "x + 2"), ("2 * self", "3 * self")]:
        other = cache.memoize(module(INSTANCES.replace(old, new)).f)
        with pytest.warns(npcache.CacheWarning):
            assert other(1) == 6
    assert f(1) == 4
    assert f.stats().computed == 3  # one name


@pytest.mark.parametrize("attribute", ["py_func", "__wrapped__"])
def test_what_numba_makes_of_a_function_is_the_function(cache, attribute):
    class Compiled:  # a stand-in for the wrappers of numba that are called in Python
        __module__ = "numba.core.registry"

        def __init__(self, function):
            setattr(self, attribute, function)

        def __call__(self, x):
            return getattr(self, attribute)(x)

    assert outcomes(cache, lambda n: Compiled(lambda x: n * x), 1) == [1, 2, 1, 2]


def test_a_method_behind_a_cache_of_python_counts_with_its_object(cache):
    @dataclasses.dataclass(frozen=True)
    class Model:
        k: int

        @functools.lru_cache  # noqa: B019
        def at(self, x):
            return self.k * x

    def enclosed(n):
        at = Model(n).at
        return lambda x: at(x)

    assert outcomes(cache, enclosed, 1) == [1, 2, 1, 2]


def test_what_computes_under_the_name_of_a_method_that_changes_counts(module, cache):
    source = """
    import numpy as np
    class Kernel:
        @staticmethod
        def add(x): return x + 1
    def f(x): return Kernel.add(np.append(x, 1))
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.memoize(module(source).f)(3).tolist() == [4, 2]
    assert cache.memoize(module(source.replace("x + 1", "x + 2")).f)(3).tolist() == [5, 3]


def test_a_decorator_of_wrapt_counts(cache):
    wrapt = pytest.importorskip("wrapt")

    def made(n):
        @wrapt.decorator
        def with_power(wrapped, instance, args, kwargs):
            return wrapped(*args, **{"n": n, **kwargs})

        def f(x, n=0):
            return x**n

        return with_power(f)

    assert outcomes(cache, made, 3) == [3, 9, 3, 9]
    f = cache.memoize(made(3))
    assert [f(2), f(2, n=0), f(2)] == [8, 1, 8]


def test_functions_in_a_table_may_use_the_table(module, cache):
    source = """
    TABLE = {}
    def even(n, table=TABLE): return n == 0 or table["odd"](n - 1)
    def odd(n): return n != 0 and TABLE["even"](n - 1)
    TABLE.update(even=even, odd=odd)
    def f(n): return TABLE["even"](n)
    def g(n, table): return table["even"](n)
    """
    loaded, other = module(source), module(source.replace("!= 0 and", "!= 0 and not"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npcache.CacheWarning)
        f, f_other = cache.memoize(loaded.f), cache.memoize(other.f)
        assert [f(2), f_other(2), f(2)] == [True, False, True]
        assert f.stats().computed == 2
        g = cache.memoize(loaded.g)
        assert [g(2, loaded.TABLE), g(2, other.TABLE)] == [True, False]


# -------------------------------------------------------------------------------------------------------------- sources


def test_a_file_edited_after_its_import_is_not_what_runs(module, cache):
    loaded = module("def f(x): return x + 1")
    path = Path(loaded.__file__)
    os.utime(path, (1, 1))
    path.write_text("def f(x): return x + 2")
    edited, intact = identity_of(loaded.f), identity_of(module("def f(x): return x + 2").f)
    assert edited != intact
    assert edited != identity_of(module("def f(x): return x + 1").f)  # by its bytecode: safe, at the cost of a miss


def test_functions_without_source_are_known_by_their_bytecode(cache):
    def define(source):
        namespace = {"np": np, "__name__": "typed_in"}
        exec(source, namespace)
        return namespace["f"]

    source = "def f(x): return {value in {1, 2, 3} for value in [x]} and x + 1"
    assert identity_of(define(source)) == identity_of(define(source))
    assert identity_of(define(source)) != identity_of(define(source.replace("+ 1", "+ 2")))
    assert identity_of(define(source)) != identity_of(define(source.replace("2, 3", "2, 4")))
    assert cache.memoize(define(source))(1) == 2


PROGRAM = """
import functools, sys
from npcache._identity import Identity
import user
print([Identity(getattr(user, name), None, ()).current() for name in sys.argv[1:]])
"""

USER = """
import ast
import functools
import numpy as np
from dataclasses import dataclass

colours = frozenset(["red", "green", "blue", "yellow"])
scale = 2.5
limits = (1, "a", None)

@dataclass(frozen=True)
class Grid:
    n: int = 3
    def cells(self): return self.n ** 2

def helper(x, names={"a", "b", "c"}):
    return x if x in names else scale

def f(x, *rest, key=None, **more):
    '''Documented.'''
    if (y := helper(x)) in {"a", "b", "c", "d"}:
        return [f"{y:>{scale}}" for _ in colours]
    return Grid().cells() + np.sin(x) + len(limits) + x[1:2, ...]

g, h = (lambda x: x + 1), (lambda x: x + 2)
square = functools.partial(lambda n, x: x ** n, 2)
exec("def sourceless(x): return x in {'a', 'b', 'c', 'd', 'e'}")
"""


def identities(directory, *names, python=sys.executable, seed="0"):
    directory.joinpath("user.py").write_text(USER)
    directory.joinpath("program.py").write_text(PROGRAM)
    paths = [str(Path(npcache.__file__).parents[1]), str(directory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": seed}
    command = [python, "-W", "ignore", str(directory / "program.py"), *names]
    return subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout


def test_the_identity_is_the_same_in_every_process(tmp_path):
    names = ["f", "g", "h", "square", "sourceless"]
    assert len({identities(tmp_path, *names, seed=str(seed)) for seed in range(4)}) == 1


def test_the_identity_is_the_same_with_optimisation(tmp_path, monkeypatch):
    plain = identities(tmp_path, "f", "g")
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert identities(tmp_path, "f", "g") == plain


def test_functions_that_are_none_are_refused(cache):
    async def coroutine(x):
        return x

    def generator(x):
        yield x

    async def async_generator(x):
        yield x

    for function, word in [(coroutine, "async"), (generator, "generator"), (async_generator, "generator")]:
        for wrapped in (function, functools.partial(function, 1)):
            with pytest.raises(TypeError, match=word):
                cache.memoize(wrapped)
    with pytest.raises(TypeError, match="function is wanted"):
        cache.memoize(3)
    with pytest.raises(TypeError, match="cached already"):
        cache.memoize(cache.memoize(helper))
    with pytest.raises(TypeError, match="staticmethod"):
        cache.memoize(staticmethod(helper))


def test_the_identity_is_the_same_in_every_version_of_python(tmp_path):
    """The golden value; one that changes makes every user compute everything anew."""
    (version, dependencies), *_ = ast.literal_eval(identities(tmp_path, "f"))
    assert version == "py:1f9637b3188306b89d1100013c02007cc20a7053d6e6ce59d9d76fd2e6d55dcf"
    assert dict(dependencies) == {
        "global Grid": "py:2e77d2598c529385739458f83e310b112439dfdef1d997e6d93dbcb15003498b",
        "global colours": "builtins.frozenset sha256:7dd2cf1c1f3d1714848db3f29d0ab20037f18b95786aeb3a895ece91a7e9b768",
        "global helper": "py:bc9f757937d18e63620718e8ee71457a53b822363745d96d08e3d19e174f6e63",
        "global limits": "builtins.tuple sha256:b79a76fee8c9f8064add1222c40770f793ff41b80b1ae27195d5f29fa7ddd4cf",
        "global np": "module numpy",
        "global scale": "2.5",
        "default helper.names": "builtins.set sha256:7f60ab3d1e0c580b6d7a87ad28658ff3bd007965698691ab85b2de5c5a800278",
    }


def test_an_integer_of_any_length_counts(cache):
    def times(factor):
        return cache.memoize(lambda x: x * factor)

    assert [times(10**5000)(2), times(10**5000 + 1)(2)] == [2 * 10**5000, 2 * (10**5000 + 1)]
