"""`NumpyFuncCache` as its users know it."""

import os
import threading

import numpy as np
import pytest


def test_the_example_of_its_documentation_runs_after_one_changed_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The original's first line was: from NumpyFuncCache.numpy_func_cache import NumpyFuncCache
    from npcache import NumpyFuncCache

    cache = NumpyFuncCache(".np_func_cache")

    def expensive_function(x, y=10):
        return np.linspace(x, y)

    cached_expensive_function = cache.create_cached_func(expensive_function)
    original_result = expensive_function(7, y=42)
    cached_result = cached_expensive_function(7, y=42)
    assert np.array_equal(original_result, cached_result)
    assert np.array_equal(original_result, cached_expensive_function(7, y=42))
    cache.clear_cache()
    assert os.path.isdir(".np_func_cache")
    cache.clear_cache(remove_dir=True)
    assert not os.path.exists(".np_func_cache")


@pytest.fixture
def func_cache(tmp_path):
    from npcache import NumpyFuncCache

    return NumpyFuncCache(str(tmp_path / "cache"), thread_safety="multiprocessing")


def test_results_are_what_the_function_returned_and_writable(func_cache):
    cached = func_cache.create_cached_func(lambda x: x * np.arange(200_000.0))
    for _ in range(3):
        result = cached(2.0)
        assert result[-1] == 399_998
        result[:] = 0


def test_exceptions_are_the_functions_own(func_cache):
    def fails(x):
        raise KeyError(x)

    cached = func_cache.create_cached_func(fails)
    for _ in range(2):
        with pytest.raises(KeyError, match="1"):
            cached(1)


def test_array_arguments_of_any_layout_are_one_call(func_cache):
    cached = func_cache.create_cached_func(lambda x: np.array([x.sum()]))
    base = np.arange(12).reshape(3, 4)
    assert cached(base) == cached(np.asfortranarray(base)) == 66
    assert func_cache.cache.stats().computed == 1


def test_large_arrays_that_print_alike_are_told_apart(func_cache):
    cached = func_cache.create_cached_func(lambda x: np.array([x.sum()]))
    one = np.concatenate([np.arange(10), np.ones(2000, int), np.arange(10)])
    other = np.concatenate([np.arange(10), np.full(2000, 2), np.arange(10)])
    assert repr(one) == repr(other)
    assert cached(one)[0] + 2000 == cached(other)[0]


def test_a_function_redefined_is_computed_anew(func_cache):
    namespace = {"np": np, "__name__": "dynamic"}
    results = []
    for n in (1, 2):
        exec(f"def sample(x): return np.array([x + {n}])", namespace)
        results.append(func_cache.create_cached_func(namespace["sample"])(3)[0])
    assert results == [4, 5]


def test_threads_compute_one_key_once_and_others_at_the_same_time(func_cache):
    both = threading.Barrier(2, timeout=10)

    def sample(x):
        both.wait()
        return np.array([x])

    cached = func_cache.cache.memoize(sample, version="")
    threads = [threading.Thread(target=cached, args=(i % 2,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cached.stats().computed == 2


def test_its_arguments_are_checked():
    from npcache import NumpyFuncCache

    with pytest.raises(ValueError, match="thread_safety"):
        NumpyFuncCache("x", thread_safety="none")
