"""Python's half of the benchmark: npcache, over ctypes, beside joblib, diskcache, cachier and bare numpy files.

    peers.py rows DIR ROUNDS LARGE       hits and misses in one process: a line of JSON a row, nanoseconds of every round
    peers.py prepare|fresh STORE DIR SIZE    one first call in a process of its own: the nanoseconds of opening and calling

Each is set up as its documentation recommends: joblib with mmap_mode, diskcache and cachier by their decorators. A hit
ends when the first element of the array was read.
"""

import contextlib
import ctypes
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy
import numpy.ctypeslib  # numpy alone imports it when it is first asked for: within the first call that is timed

P = ctypes.c_void_p
FLOAT64, MEMORY = 12, 2


class Npcache:
    """The split-phase calls of include/npcache.h, as a binding makes them."""

    library = None

    @classmethod
    def load(cls):
        if cls.library is None:
            lib = ctypes.CDLL(os.environ.get("NPCACHE_LIBRARY_FILE", "libnpcache.so.1"))
            lib.npcache_new.argtypes = [ctypes.c_char_p, P, P, P]
            lib.npcache_clear.argtypes = [P, ctypes.c_uint32, P]
            lib.npcache_function_new.argtypes = [P, ctypes.c_char_p, ctypes.c_char_p, P, P]
            lib.npcache_args_from_bytes.argtypes = [P, ctypes.c_size_t, P, P]
            lib.npcache_args_free.argtypes = [P]
            lib.npcache_begin.argtypes = [P, P, ctypes.c_int64, P, P, P]
            lib.npcache_end.argtypes = [P, P, P]
            lib.npcache_output_alloc.argtypes = [P, P, ctypes.c_int32, ctypes.c_int32, P, ctypes.c_uint32]
            lib.npcache_output_alloc.restype = P
            lib.npcache_output_commit.argtypes = [P]
            lib.npcache_buffer_data.argtypes = [P, ctypes.c_int32, ctypes.c_int32, P]
            lib.npcache_buffer_data.restype = P
            lib.npcache_buffer_release.argtypes = [P]
            lib.npcache_buffer_stored.argtypes = [P]
            cls.library = lib

    def __init__(self, path):
        self.load()
        self.cache, self.function = P(), P()
        assert self.library.npcache_new(os.fsencode(path), None, ctypes.byref(self.cache), None) == 0
        assert self.library.npcache_function_new(self.cache, b"compute", b"1", ctypes.byref(self.function), None) == 0

    def call(self, argument, size):
        lib, args, hit, todo = self.library, P(), P(), P()
        if isinstance(argument, numpy.ndarray):
            lib.npcache_args_from_bytes(argument.ctypes.data, argument.nbytes, ctypes.byref(args), None)
        else:
            key = argument.to_bytes(16, "little")
            lib.npcache_args_from_bytes(key, 16, ctypes.byref(args), None)
        status = lib.npcache_begin(self.function, args, -1, ctypes.byref(hit), ctypes.byref(todo), None)
        lib.npcache_args_free(args)
        assert status == 0
        count = size // 8
        if todo:
            memory = lib.npcache_output_alloc(todo, None, FLOAT64, 1, (ctypes.c_int64 * 1)(count), 0)
            numpy.ctypeslib.as_array((ctypes.c_double * count).from_address(memory))[:] = 7.0
            lib.npcache_output_commit(todo)
            assert lib.npcache_end(todo, ctypes.byref(hit), None) == 0 and lib.npcache_buffer_stored(hit) == 0
        data = lib.npcache_buffer_data(hit, 0, FLOAT64, None)
        array = numpy.ctypeslib.as_array((ctypes.c_double * count).from_address(data))
        assert array[0] == 7.0
        # A binding ties this to the array's life.
        lib.npcache_buffer_release(hit)

    def clear(self):
        assert self.library.npcache_clear(self.cache, 0, None) == 0


def compute(argument, size):
    return numpy.full(size // 8, 7.0)


class Joblib:
    def __init__(self, path):
        import joblib

        self.memory = joblib.Memory(path, mmap_mode="r", verbose=0)
        self.cached = self.memory.cache(compute)

    def clear(self):
        self.memory.clear(warn=False)

    def call(self, argument, size):
        assert self.cached(argument, size)[0] == 7.0


class Diskcache:
    def __init__(self, path):
        import diskcache

        self.cache = diskcache.Cache(str(path), size_limit=1 << 34)
        self.cached = self.cache.memoize()(compute)

    def clear(self):
        self.cache.clear()

    def call(self, argument, size):
        assert self.cached(argument, size)[0] == 7.0


class Cachier:
    def __init__(self, path):
        import cachier

        self.cached = cachier.cachier(cache_dir=str(path), separate_files=True)(compute)

    def clear(self):
        self.cached.clear_cache()

    def call(self, argument, size):
        assert self.cached(argument, size)[0] == 7.0


class Numpy:
    """numpy.save and numpy.load of a file a call: no keys, no checks."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def call(self, argument, size):
        path = self.path / f"{argument}.npy"
        try:
            array = numpy.load(path)
        except FileNotFoundError:
            array = compute(argument, size)
            numpy.save(path, array)
        assert array[0] == 7.0

    def clear(self):
        shutil.rmtree(self.path)
        self.path.mkdir()


class NumpyMapped(Numpy):
    def call(self, argument, size):
        path = self.path / f"{argument}.npy"
        try:
            array = numpy.load(path, mmap_mode="r")
        except FileNotFoundError:
            return super().call(argument, size)
        assert array[0] == 7.0


STORES = {
    "npcache": Npcache,
    "joblib": Joblib,
    "diskcache": Diskcache,
    "cachier": Cachier,
    "numpy.load": Numpy,
    "numpy.load mapped": NumpyMapped,
}


def size_name(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def timed(work):
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start


def row(name, rounds, calls, ours, other, after=lambda: None):
    """Both in alternating order, once to warm up and `rounds` times. `after` each of them is not timed."""
    times = {"ours": [], "other": []}
    for turn in range(rounds + 1):
        sides = [("ours", ours), ("other", other)]
        for side, work in sides if turn % 2 else sides[::-1]:
            elapsed = timed(lambda: [work() for _ in range(calls)])
            after()
            if turn:
                times[side].append(elapsed / calls)
    print(json.dumps({"name": name, "unit": "ns", "calls": calls, **times}, ensure_ascii=False), flush=True)


def rows(directory, rounds, large):
    for size in [1 << 10, 1 << 20, large]:
        stores = {name: make(directory / size_name(size) / name) for name, make in STORES.items()}
        rounds_here = min(rounds, 5) if size == large else rounds
        calls = 20 if size < 1 << 20 else 5 if size < large else 1
        ours = stores.pop("npcache")
        ours.call(0, size)
        fresh = iter(range(1, 1 << 40)).__next__
        # Caches in use: what they make for their first results, directories above all, is there.
        for store in [ours, *stores.values()]:
            for _ in range(1000):
                store.call(fresh(), 1 << 10)
        for name, store in stores.items():
            store.call(0, size)
            hit = f"Python, hit, {size_name(size)} ÷ {name}"
            row(hit, rounds_here, calls, lambda: ours.call(0, size), lambda: store.call(0, size))
        stores.pop("numpy.load mapped")
        calls = 1 if size == large else 5
        for name, store in stores.items():

            def clear():
                # Or the kernel slows down whoever writes next, until the disk has what was written. Else not: it slows
                # down whoever makes files when many were removed.
                if size == large:
                    ours.clear()
                    store.clear()

            miss = f"Python, miss, {size_name(size)} ÷ {name.replace('load', 'save')}"
            row(miss, rounds_here, calls, lambda: ours.call(fresh(), size), lambda: store.call(fresh(), size), clear)

    argument = numpy.arange(large // 8, dtype=float)
    stores = {name: make(directory / "argument" / name) for name, make in STORES.items() if "numpy" not in name}
    ours = stores.pop("npcache")
    ours.call(argument, 1024)
    for name, store in stores.items():
        store.call(argument, 1024)
        what = f"Python, hit with a {size_name(large)} argument ÷ {name}"
        row(what, min(rounds, 5), 1, lambda: ours.call(argument, 1024), lambda: store.call(argument, 1024))


def main():
    what, *rest = sys.argv[1:]
    if what == "rows":
        directory, rounds, large = rest
        rows(Path(directory), int(rounds), int(large))
    else:
        store, directory, size = rest
        # What a program imports is loaded before its first call.
        if store == "npcache":
            Npcache.load()
        elif "numpy" not in store:
            __import__(store)
        with contextlib.redirect_stdout(io.StringIO()):
            elapsed = timed(lambda: STORES[store](Path(directory)).call(0, int(size)))
        print(elapsed)


main()
