"""libnpcache.so: where it is found, and its functions as include/npcache.h declares them.

The library is a `CDLL`: it lets go of the interpreter lock during every call, so that other threads run while one
waits or hashes. Nothing here is public.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

ABI_VERSION = 1

BUSY = 1
ERR_ARGUMENT = -1
ERR_DTYPE = -8

ORIGIN_COMPUTED, ORIGIN_MEMORY, ORIGIN_DISK, ORIGIN_SHARED = 1, 2, 3, 4

ORDER_F = 1
CLEAR_REMOVE_DIR = 1

# How long a call waits for another caller before Python looks for signals: short for a person who presses Ctrl-C,
# long for a processor.
SLICE_MS = 50


class Error(Exception):
    """The cache cannot do what was asked: the directory is unusable, an option is unknown, and so on.

    A call of a cached function does not raise it for a fault of the disk: it returns the result.

    `status` is the number that include/npcache.h has a name for.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


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


class Statistics(ctypes.Structure):
    """npcache_statistics."""

    _fields_ = [
        ("memory", c_uint64),
        ("disk", c_uint64),
        ("shared", c_uint64),
        ("lower", c_uint64),
        ("misses", c_uint64),
        ("stored", c_uint64),
        ("cheap", c_uint64),
        ("unstored", c_uint64),
        ("evicted", c_uint64),
        ("corrupt", c_uint64),
        ("waits", c_uint64),
        ("seconds_waited", c_double),
        ("seconds_spent", c_double),
        ("seconds_saved", c_double),
        ("complete", c_uint64),
        ("audited", c_uint64),
        ("differing", c_uint64),
    ]


def _find() -> str:
    """The path of the library: inside the package, else where NPCACHE_LIBRARY says, else in a checkout's target/."""
    here = Path(__file__).resolve().parent
    chosen = os.environ.get("NPCACHE_LIBRARY")
    candidates = [here / "libnpcache.so", *([Path(chosen)] if chosen else [])]
    if len(here.parents) > 2:
        candidates.append(here.parents[2] / "target" / "release" / "libnpcache.so")
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    places = ", ".join(map(str, candidates))
    raise ImportError(f"libnpcache.so is not in {places}: run `make build`, or set NPCACHE_LIBRARY to its path")


_LISTENER = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
_HANDLE, _OUT, _NUMBERS = c_void_p, POINTER(c_void_p), POINTER(c_int64)
_ARRAY = [c_int32, _NUMBERS, _NUMBERS, c_void_p, c_size_t, c_size_t]

_DECLARATIONS: dict[str, tuple[Any, list[Any]]] = {
    "abi_version": (c_uint32, []),
    "status_string": (c_char_p, [c_int32]),
    "error_code": (c_int32, [_HANDLE]),
    "error_message": (c_char_p, [_HANDLE]),
    "error_free": (None, [_HANDLE]),
    "set_log": (None, [_LISTENER, _HANDLE]),
    "options_new": (c_void_p, []),
    "options_set": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT]),
    "options_free": (None, [_HANDLE]),
    "new": (c_int32, [c_char_p, _HANDLE, _OUT, _OUT]),
    "free": (None, [_HANDLE]),
    "clear": (c_int32, [_HANDLE, c_uint32, _OUT]),
    "clear_function": (c_int32, [_HANDLE, c_char_p, _OUT]),
    "configure": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT]),
    "function_new": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT, _OUT]),
    "function_add_dependency": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT]),
    "function_set": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT]),
    "function_key": (c_int32, [_HANDLE, _HANDLE, c_char_p, _OUT]),
    "function_free": (None, [_HANDLE]),
    "args_new": (c_void_p, []),
    "stats": (c_int32, [_HANDLE, c_char_p, POINTER(Statistics), c_size_t, _OUT]),
    "args_from_bytes": (c_int32, [c_char_p, c_size_t, _OUT, _OUT]),
    "args_add_int": (c_int32, [_HANDLE, c_int64]),
    "args_add_bigint": (c_int32, [_HANDLE, c_int32, c_char_p, c_size_t]),
    "args_add_float": (c_int32, [_HANDLE, c_double]),
    "args_add_scalar": (c_int32, [_HANDLE, c_int32, c_char_p]),
    "args_add_bool": (c_int32, [_HANDLE, c_int32]),
    "args_add_null": (c_int32, [_HANDLE]),
    "args_add_string": (c_int32, [_HANDLE, c_char_p, c_size_t]),
    "args_add_bytes": (c_int32, [_HANDLE, c_char_p, c_size_t]),
    "args_add_file": (c_int32, [_HANDLE, c_char_p]),
    "args_add_array_descr": (c_int32, [_HANDLE, c_char_p, *_ARRAY]),
    "args_begin_list": (c_int32, [_HANDLE]),
    "args_begin_map": (c_int32, [_HANDLE]),
    "args_end": (c_int32, [_HANDLE]),
    "args_key": (c_int32, [_HANDLE, c_char_p]),
    "args_free": (None, [_HANDLE]),
    "begin": (c_int32, [_HANDLE, _HANDLE, c_int64, _OUT, _OUT, _OUT]),
    "is_cached": (c_int32, [_HANDLE, _HANDLE, POINTER(c_int32), _OUT]),
    "forget": (c_int32, [_HANDLE, _HANDLE, _OUT]),
    "explain": (c_int32, [_HANDLE, _HANDLE, _HANDLE, _OUT, _OUT]),
    "text_free": (None, [_HANDLE]),
    "end": (c_int32, [_HANDLE, _OUT, _OUT]),
    "output_alloc_descr": (c_void_p, [_HANDLE, c_char_p, c_char_p, c_int32, _NUMBERS, c_uint32]),
    "output_write": (c_int32, [_HANDLE, c_char_p, c_int32, c_int32, _NUMBERS, _NUMBERS, c_void_p]),
    "output_note": (c_int32, [_HANDLE, c_char_p, c_char_p]),
    "output_commit": (c_int32, [_HANDLE]),
    "output_fail": (c_int32, [_HANDLE, c_char_p]),
    "buffer_count": (c_int32, [_HANDLE]),
    "buffer_view": (c_int32, [_HANDLE, c_int32, POINTER(View), c_size_t]),
    "buffer_origin": (c_int32, [_HANDLE]),
    "buffer_stored": (c_int32, [_HANDLE]),
    "buffer_path": (c_char_p, [_HANDLE]),
    "buffer_seconds": (c_double, [_HANDLE]),
    "buffer_writable": (c_int32, [_HANDLE, _OUT, _OUT]),
    "buffer_retain": (c_void_p, [_HANDLE]),
    "buffer_release": (None, [_HANDLE]),
}


class _Library:
    """The functions of the library by their names without `npcache_`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._dll = ctypes.CDLL(path)
        version = self._dll.npcache_abi_version()
        if version != ABI_VERSION:
            raise ImportError(f"{path} has ABI version {version}, this package needs {ABI_VERSION}")
        for name, (result, arguments) in _DECLARATIONS.items():
            function = getattr(self._dll, "npcache_" + name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def unconverted(self, name: str, result: Any = c_int32) -> Any:
        """The function without argument types, for calls that have to be fast: converting and checking the
        arguments of npcache_begin takes as long as the rest of a hit. Its arguments are ctypes objects of the declared
        types, `byref` of them, or None; never Python numbers."""
        function = self._dll["npcache_" + name]
        function.restype = result
        return function

    def __getattr__(self, name: str) -> Any:  # for type checkers: the functions are set in __init__
        raise AttributeError(name)


library = _Library(_find())

# What the library has to say goes to the logger "npcache", of which a program that configures logging hears.
_logger = logging.getLogger("npcache")
_logger.addHandler(logging.NullHandler())


def _listen(_: Any, level: int, message: bytes) -> None:
    # NPCACHE_LOG_INFO, _WARNING and _ERROR are 1, 2 and 3; logging.INFO is 20.
    _logger.log(10 * (level + 1), "%s", message.decode("utf-8", "replace"))


_listener = _LISTENER(_listen)  # kept: the library keeps only its address
library.set_log(_listener, None)
# Before the interpreter is gone that a thread would call.
atexit.register(library.set_log, _LISTENER(), None)


def take_error(error: c_void_p) -> Error:
    """The exception for an error object, which is freed."""
    message = library.error_message(error).decode("utf-8", "replace")
    status = library.error_code(error)
    library.error_free(error)
    error.value = None
    return Error(message, status)


def check(function: Any, *arguments: Any) -> None:
    """Calls a function whose last parameter is `err`; raises what it says went wrong."""
    error = c_void_p()
    if function(*arguments, ctypes.byref(error)) < 0:
        raise take_error(error)


def c_string(text: bytes) -> bytes:
    """`text`, of which C sees all. ValueError: it contains a NUL, where a text ends for C, so that two would be one."""
    if b"\0" in text:
        raise ValueError(f"the text {text.decode('utf-8', 'replace')!r} contains a NUL character")
    return text


def status_text(status: int) -> str:
    """What a status means, in a few words."""
    return str(library.status_string(status).decode())


def numbers(values: tuple[int, ...]) -> Any:
    """A C array of int64_t."""
    return (c_int64 * len(values))(*values)
