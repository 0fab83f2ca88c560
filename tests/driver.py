"""npcache from Python, through plain ctypes and nothing else.

It is split-phase: `npcache_begin` gives a result or the task of computing one, Python computes, `npcache_end` stores.
So no Python exception passes through a frame of C. The library is a `CDLL`, which lets go of the interpreter while a
call waits, and calls wait in slices, between which Python handles signals: Ctrl-C ends a wait.
"""

import ast
import ctypes
import os
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np

COMPUTED, MEMORY, DISK, SHARED = 1, 2, 3, 4
(NO_DIRECTORY, READ_ONLY_MODE, NOT_WRITABLE, DISK_FULL, REMOVED, CLEARED, FORKED, IO) = range(2, 10)
DIFFERS = 12
(ERR_ARGUMENT, ERR_FUNCTION, ERR_NOT_COMMITTED, ERR_IO, ERR_DIRECTORY, ERR_NOT_EMPTY) = range(-1, -7, -1)

# What C has a type for, by numpy's name: NPCACHE_BOOL and its like. Other types are given by that name.
DTYPES = {
    np.dtype(name).str: number
    for number, name in enumerate(
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split(),
        start=1,
    )
}

# How long a call waits before Python looks for signals: short for a person, long for a processor.
SLICE_MS = 100


class View(ctypes.Structure):
    """npcache_view."""

    _fields_ = [
        ("data", c_void_p),
        ("nbytes", c_size_t),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("descr", c_char_p),
        ("name", c_char_p),
        ("dtype", c_int32),
        ("ndim", c_int32),
        ("itemsize", c_int64),
        ("flags", c_uint32),
    ]


_RELEASED = Path(__file__).resolve().parent.parent / "target" / "release" / "libnpcache.so"
library = ctypes.CDLL(os.environ.get("TESTED_LIBRARY", str(_RELEASED)))
Function = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t, c_void_p)
_OUT, _SHAPE = POINTER(c_void_p), POINTER(c_int64)

for _name, _result, _arguments in [
    ("options_new", c_void_p, []),
    ("options_set", c_int32, [c_void_p, c_char_p, c_char_p, _OUT]),
    ("options_free", None, [c_void_p]),
    ("new", c_int32, [c_char_p, c_void_p, _OUT, _OUT]),
    ("free", None, [c_void_p]),
    ("call", c_int32, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t, Function, c_void_p, _OUT, _OUT]),
    ("clear", c_int32, [c_void_p, c_uint32, _OUT]),
    ("clear_function", c_int32, [c_void_p, c_char_p, _OUT]),
    ("configure", c_int32, [c_void_p, c_char_p, c_char_p, _OUT]),
    ("function_new", c_int32, [c_void_p, c_char_p, c_char_p, _OUT, _OUT]),
    ("function_set", c_int32, [c_void_p, c_char_p, c_char_p, _OUT]),
    ("function_free", None, [c_void_p]),
    ("args_from_bytes", c_int32, [c_char_p, c_size_t, _OUT, _OUT]),
    ("args_free", None, [c_void_p]),
    ("forget", c_int32, [c_void_p, c_void_p, _OUT]),
    ("begin", c_int32, [c_void_p, c_void_p, c_int64, _OUT, _OUT, _OUT]),
    ("end", c_int32, [c_void_p, _OUT, _OUT]),
    ("output_alloc", c_void_p, [c_void_p, c_char_p, c_int32, c_int32, _SHAPE, c_uint32]),
    ("output_alloc_descr", c_void_p, [c_void_p, c_char_p, c_char_p, c_int32, _SHAPE, c_uint32]),
    ("output_write", c_int32, [c_void_p, c_char_p, c_int32, c_int32, _SHAPE, _SHAPE, c_void_p]),
    ("output_note", c_int32, [c_void_p, c_char_p, c_char_p]),
    ("output_commit", c_int32, [c_void_p]),
    ("output_fail", c_int32, [c_void_p, c_char_p]),
    ("buffer_count", c_int32, [c_void_p]),
    ("buffer_view", c_int32, [c_void_p, c_int32, POINTER(View), c_size_t]),
    ("buffer_origin", c_int32, [c_void_p]),
    ("buffer_stored", c_int32, [c_void_p]),
    ("buffer_path", c_char_p, [c_void_p]),
    ("buffer_release", None, [c_void_p]),
    ("error_code", c_int32, [c_void_p]),
    ("error_function_code", c_int32, [c_void_p]),
    ("error_message", c_char_p, [c_void_p]),
    ("error_free", None, [c_void_p]),
]:
    _function = getattr(library, "npcache_" + _name)
    _function.restype, _function.argtypes = _result, _arguments


class Error(Exception):
    """What npcache says went wrong: `status`, and `function_code` where the user's function returned one."""

    def __init__(self, error):
        super().__init__(library.npcache_error_message(error).decode())
        self.status = library.npcache_error_code(error)
        self.function_code = library.npcache_error_function_code(error)
        library.npcache_error_free(error)


def check(function, *arguments):
    """Calls a function whose last parameter is `err`."""
    error = c_void_p()
    if function(*arguments, byref(error)) < 0:
        raise Error(error)


def _encoded(text):
    return None if text is None else text.encode()


def _numbers(values):
    return (c_int64 * len(values))(*values)


class Cache:
    """A cache in the directory `path`; `options` as npcache_options_set has them."""

    def __init__(self, path, **options):
        self._cache = c_void_p()
        chosen = library.npcache_options_new()
        try:
            for name, value in options.items():
                check(library.npcache_options_set, chosen, name.encode(), str(value).encode())
            path = None if path is None else os.fsencode(path)
            check(library.npcache_new, path, chosen, byref(self._cache))
        finally:
            library.npcache_options_free(chosen)

    def close(self):
        library.npcache_free(self._cache)
        self._cache = c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, name, version, args, compute, **options):
        """The result of `compute()`, an array, several, or a dict of them, for these argument bytes."""
        while (begun := self.begin(name, version, args, SLICE_MS, **options)) is None:
            pass  # another computes it; Python handles signals here
        if isinstance(begun, Result):
            return begun
        try:
            arrays = compute()
            if not isinstance(arrays, dict):
                arrays = enumerate(arrays if isinstance(arrays, (list, tuple)) else [arrays])
                arrays = {None if i == 0 else f"array {i}": array for i, array in arrays}
            for array_name, array in arrays.items():
                begun.write(array, array_name)
            begun.commit()
        except BaseException as e:
            begun.abandon(str(e))
            raise
        return begun.end()

    def begin(self, name, version, args=b"", wait_ms=-1, **options):
        """A Result, or the Output to fill, or None where another caller computes and the wait is over."""
        hit, todo = c_void_p(), c_void_p()
        with self._asked(name, version, args, options) as asked:
            check(library.npcache_begin, *asked, wait_ms, byref(hit), byref(todo))
        return Result(hit) if hit else Output(todo) if todo else None

    def forget(self, name, version, args=b""):
        with self._asked(name, version, args, {}) as asked:
            check(library.npcache_forget, *asked)

    @contextmanager
    def _asked(self, name, version, args, options):
        """A function and its arguments."""
        function, arguments = c_void_p(), c_void_p()
        try:
            check(library.npcache_function_new, self._cache, name.encode(), _encoded(version), byref(function))
            for option, value in options.items():
                check(library.npcache_function_set, function, option.encode(), value.encode())
            check(library.npcache_args_from_bytes, args, len(args), byref(arguments))
            yield function, arguments
        finally:
            library.npcache_args_free(arguments)
            library.npcache_function_free(function)

    def configure(self, name, value):
        check(library.npcache_configure, self._cache, name.encode(), value.encode())

    def clear(self, flags=0):
        check(library.npcache_clear, self._cache, flags)

    def clear_function(self, name):
        check(library.npcache_clear_function, self._cache, name.encode())


class Output:
    """A result under construction. Either `end` or `abandon` it, once."""

    def __init__(self, output):
        self._output = output

    def write(self, array, name=None):
        """Adds a copy of `array`."""
        array = np.asarray(array)
        if array.dtype.str in DTYPES and array.dtype.names is None:
            dtype, data = DTYPES[array.dtype.str], array.ctypes.data
            shape, strides = _numbers(array.shape), _numbers(array.strides)
            library.npcache_output_write(self._output, _encoded(name), dtype, array.ndim, shape, strides, data)
        elif (place := self.alloc(array.shape, array.dtype, "F" if array.flags.fnc else "C", name)) is not None:
            place[...] = array

    def alloc(self, shape, dtype, order="C", name=None):
        """Adds an array and returns it, to fill in place until the output is ended; None where that is not possible,
        and `commit` says why."""
        dtype, flags = np.dtype(dtype), 1 if order == "F" else 0
        rest = len(shape), _numbers(shape), flags
        if dtype.str in DTYPES and dtype.names is None:
            address = library.npcache_output_alloc(self._output, _encoded(name), DTYPES[dtype.str], *rest)
        else:
            descr = str(np.lib.format.dtype_to_descr(dtype)).encode()
            address = library.npcache_output_alloc_descr(self._output, _encoded(name), descr, *rest)
        if address is None:
            return None
        nbytes = int(np.prod(shape)) * dtype.itemsize
        return np.ndarray(shape, dtype, (ctypes.c_char * nbytes).from_address(address), order=order)

    def note(self, name, value):
        library.npcache_output_note(self._output, name.encode(), value.encode())

    def commit(self):
        """An error of it, or of a call before it, is the one that `end` raises."""
        library.npcache_output_commit(self._output)

    def end(self):
        buffer = c_void_p()
        check(library.npcache_end, self._output, byref(buffer))
        return Result(buffer)

    def abandon(self, message=""):
        """There is no result: the next who waits computes."""
        library.npcache_output_fail(self._output, message.encode())
        library.npcache_end(self._output, None, None)


class Result:
    """Read-only arrays, in the order in which they were written, on the library's own memory."""

    def __init__(self, buffer):
        reference = _Reference(buffer)
        self.origin = library.npcache_buffer_origin(buffer)
        self.stored = library.npcache_buffer_stored(buffer)
        path = library.npcache_buffer_path(buffer)
        self.path = None if path is None else Path(os.fsdecode(path))
        self.names, self.arrays = [], []
        for i in range(library.npcache_buffer_count(buffer)):
            view = View()
            library.npcache_buffer_view(buffer, i, byref(view), ctypes.sizeof(view))
            self.names.append(None if view.name is None else view.name.decode())
            self.arrays.append(_array(reference, view))

    @property
    def array(self):
        """The only array."""
        (array,) = self.arrays
        return array


class _Reference:
    """A buffer, released when the last array on it is gone."""

    def __init__(self, buffer):
        self.buffer = buffer

    def __del__(self):
        library.npcache_buffer_release(self.buffer)


class _Memory:
    """Bytes of a buffer, as numpy takes them: an array on them keeps this, and this the buffer."""

    def __init__(self, reference, view):
        self.reference = reference
        data = (view.data, True)  # read-only
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (view.nbytes,), "data": data}


def _array(reference, view):
    descr = view.descr.decode()
    dtype = np.lib.format.descr_to_dtype(ast.literal_eval(descr) if descr.startswith("[") else descr)
    memory = np.asarray(_Memory(reference, view))
    return np.ndarray(view.shape[: view.ndim], dtype, memory, strides=view.strides[: view.ndim])
