"""`Cache`, and the functions that it makes: look up, else compute and store.

A call goes through `CachedFunction.__call__`: the identity of the code, the bytes of the arguments, `npcache_begin`,
and on a hit the arrays. What is slow about a call is kept out of it: the signature is turned into frames of bytes when
the function is decorated, and what C writes to is reused. Where the short way does not apply (keyword arguments,
containers, long arrays), `_bind` and `lower` take over; both ways make the same bytes.
"""

from __future__ import annotations

import ctypes
import functools
import html
import inspect
import linecache
import os
import sys
import types
import warnings
import weakref
from _thread import get_ident
from collections.abc import Mapping, Sequence
from ctypes import byref, c_int32, c_int64, c_void_p
from typing import Any, Callable, Generic, NamedTuple, TypeVar, overload

import numpy as np

from ._arguments import (
    _LOWERINGS,
    FAST,
    FAST_WITH_ARRAYS,
    TYPE_KEY,
    Refused,
    TooLarge,
    arguments_from_bytes,
    arguments_from_call,
    encode,
    head,
    lower,
    lower_argument,
    names_a_file,
)
from ._identity import CacheWarning, Identity, _outside, _plain_function, function_name
from ._library import (
    BUSY,
    CLEAR_REMOVE_DIR,
    ERR_ARGUMENT,
    ORIGIN_COMPUTED,
    ORIGIN_DISK,
    ORIGIN_MEMORY,
    ORIGIN_SHARED,
    SLICE_MS,
    Error,
    Statistics,
    View,
    c_string,
    check,
    library,
    status_text,
    take_error,
)
from ._results import Memory, copied, flatten, read, write

if sys.version_info >= (3, 10):
    from typing import ParamSpec

    P = ParamSpec("P")
else:  # only type checkers would see the difference, and they are told of a newer Python
    P = TypeVar("P")
R = TypeVar("R")

# Reasons for which a result is not stored that the user chose, or that are over by the next call.
_EXPECTED = frozenset([2, 3, 7, 8, 10])  # no directory, mode=readonly, cleared, forked, cheap

# How many identities of one function keep their handle: more are seen only where a variable changes all the time.
_MAX_HANDLES = 16

# What is recorded with every result, beside what the library records.
_NOTES = [(b"python", sys.version.split()[0].encode()), (b"numpy", np.__version__.encode())]

# Of what `_Known` keeps: results and arguments of up to so many bytes, and so many of them for a function: 16 MiB.
_KNOWN_BYTES = 16 << 10
_MAX_KNOWN = 1024

# Places in a thread's tally; those of hits are the library's numbers of origins.
_UNSTORED, _SECONDS = 5, 6


class Stats(NamedTuple):
    """What became of the calls made through one `Cache` object in this process."""

    computed: int
    memory: int
    disk: int
    shared: int
    unstored: int
    seconds_saved: float

    @property
    def calls(self) -> int:
        """All calls."""
        return self.computed + self.cached

    @property
    def cached(self) -> int:
        """Calls that did not compute: from memory, from disk, or from another caller that computed the same."""
        return self.memory + self.disk + self.shared

    def __str__(self) -> str:
        return f"{self.cached:,} of {self.calls:,} cached, {_duration(self.seconds_saved)} saved"


class Totals(NamedTuple):
    """What became of the calls of a function, or of all, in all processes; what each field counts is at
    npcache_statistics in include/npcache.h. `complete` is 0 where only this process's calls are counted. A result of
    a type that cannot be stored is in `Stats.unstored`, but not in the `unstored` here: only among the `misses`."""

    memory: int
    disk: int
    shared: int
    lower: int
    misses: int
    stored: int
    cheap: int
    unstored: int
    evicted: int
    corrupt: int
    waits: int
    seconds_waited: float
    seconds_spent: float
    seconds_saved: float
    complete: int
    audited: int
    differing: int


def _duration(seconds: float) -> str:
    """As a person says it: "2 h 10 min"."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


# A thread's calls by what became of them. Each thread counts in a list of its own, so that none is lost.
_Tally = list[float]


def _new_tally() -> _Tally:
    return [0, 0, 0, 0, 0, 0, 0.0]


class Cache:
    """A cache in a directory, which other processes, programs and languages can share.

    `path` is the directory, made if it is not there; None for a cache that computes every call. `options` are those of
    `npcache_options_set` in include/npcache.h, among them

    - mode: "readwrite", "readonly", "refresh" or "off";
    - lock_timeout: seconds that a call waits for another one that computes the same, 600 by default;
    - memory_bytes: how much of the results is kept in memory, "64M"; 0 for nothing.

    >>> import numpy as np, npcache, tempfile
    >>> cache = npcache.Cache(tempfile.mkdtemp())
    >>> @cache.memoize
    ... def powers(x, n=3):
    ...     return x ** np.arange(n)
    >>> powers(2.0)
    array([1., 2., 4.])
    >>> powers(x=2.0, n=3)  # the same call
    array([1., 2., 4.])
    >>> print(cache.stats().cached, "of", cache.stats().calls)
    1 of 2

    A Cache can be used from all threads, after a fork, and be pickled: the copy is the same directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None, **options: object) -> None:
        self.path = None if path is None else os.path.abspath(os.fspath(path))
        self.options = {name: str(value) for name, value in options.items()}
        self._handle = c_void_p()
        self._tallies: dict[str, dict[int, _Tally]] = {}
        self._warned: set[int] = set()
        self._inherited = 0  # of what is counted as found in memory, what another process did before it forked
        chosen = library.options_new()
        try:
            for name, value in self.options.items():
                check(library.options_set, chosen, c_string(name.encode()), c_string(value.encode()))
            directory = None if self.path is None else c_string(os.fsencode(self.path))
            check(library.new, directory, chosen, byref(self._handle))
        finally:
            library.options_free(chosen)
        _caches.add(self)

    def __del__(self, free: Callable[[Any], None] = library.free) -> None:
        handle = getattr(self, "_handle", None)
        if handle:
            free(handle)

    @overload
    def memoize(
        self,
        function: Callable[P, R],
        /,
        *,
        version: str | None = None,
        name: str | None = None,
        ignore: Sequence[str] = (),
        depends: Sequence[Any] | Mapping[str, str] = (),
        layout: str = "equal",
        writable: bool = False,
    ) -> CachedFunction[P, R]: ...

    @overload
    def memoize(
        self,
        *,
        version: str | None = None,
        name: str | None = None,
        ignore: Sequence[str] = (),
        depends: Sequence[Any] | Mapping[str, str] = (),
        layout: str = "equal",
        writable: bool = False,
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...

    def memoize(  # type: ignore[misc]  # mypy does not match positional-only defaults with overloads
        self, function: Any = None, /, **how: Any
    ) -> Any:
        """A function whose results are kept. As a decorator, with or without parentheses, or called with a function.

        - version: which code computes. By default it is found out: the function's own code, its closure, the globals
          that it reads by name, and the functions and classes of its module that it uses, all as they are at the call.
          A text of yours is a promise instead, that results stay the same as long as it does; with it and `name`
          programs in other languages share results.
        - name: "module.function" by default.
        - ignore: names of parameters that do not change the result: how many threads, a progress bar.
        - depends: what else counts: functions, classes, modules (by their version), values; or a dict of names and
          texts.
        - layout: "strict" keeps C-ordered, Fortran-ordered and strided arguments apart, for functions whose rounding
          depends on it.
        - writable: results are the caller's own, to write to. Otherwise they are read-only, and large ones are the
          stored file itself, mapped, without a copy.

        The function returns an array, a number, a text, a pandas Series or DataFrame, or tuples, lists and dicts of
        them. A result that cannot be stored is returned as it is, with a warning.
        """
        if function is None:
            return lambda function: CachedFunction(self, function, **how)
        return CachedFunction(self, function, **how)

    def clear(self, remove_dir: bool = False) -> None:
        """Removes all stored results; with `remove_dir` the directory too, after which every call computes.

        Holds for all processes: what was begun before is not stored after. Files that are not npcache's are left
        alone; with `remove_dir` they raise `Error`, and the directory stays.
        """
        check(library.clear, self._handle, CLEAR_REMOVE_DIR if remove_dir else 0)

    def configure(self, **bounds: object) -> None:
        """Sets `max_bytes`, `max_entries`, `max_age`, `min_free_bytes` or `policy` for all who use the directory.

        The values are those that options take. A cache opened with such an option goes by that instead.
        """
        for name, value in bounds.items():
            check(library.configure, self._handle, c_string(name.encode()), c_string(str(value).encode()))

    def stats(self) -> Stats:
        """What became of the calls so far, made through this object in this process."""
        return _sum([tally for tallies in list(self._tallies.values()) for tally in list(tallies.values())])

    def totals(self, function: str | None = None) -> Totals:
        """What all processes counted since the cache was made: of all functions, or of the one with this name.

        From one start of the machine to the next, the first 127 functions of a directory are counted by name, and the
        others together: `totals()` has them, their names have zeros.

        Clearing does not set it back. What a process found in memory is in it after some thousand calls of a thread,
        with the next result that it computes, or when it exits; one that is killed, as the workers of a
        `multiprocessing.Pool` are where its `with` ends, loses what was not.
        """
        found = Statistics()
        name = None if function is None else c_string(function.encode())
        check(library.stats, self._handle, name, byref(found), ctypes.sizeof(found))
        return Totals(*(getattr(found, field) for field in Totals._fields))

    def summary(self) -> str:
        """One line for the end of a sweep: "37 of 50 cached, 2 h 10 min saved"."""
        return str(self.stats())

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"npcache.Cache({self.path!r}{options})"

    def _repr_html_(self) -> str:
        rows = []
        for name, tallies in sorted(self._tallies.items()):
            stats = _sum(list(tallies.values()))
            if stats.calls:
                cells = [stats.computed, stats.memory, stats.disk, stats.shared, _duration(stats.seconds_saved)]
                row = "".join(f"<td style='text-align:right'>{cell}</td>" for cell in cells)
                rows.append(f"<tr><td style='text-align:left'>{html.escape(name)}</td>{row}</tr>")
        titles = "".join(f"<th>{t}</th>" for t in ("function", "computed", "memory", "disk", "shared", "saved"))
        table = f"<table><tr>{titles}</tr>{''.join(rows)}</table>" if rows else ""
        return f"<div><code>{html.escape(repr(self))}</code>: {html.escape(self.summary())}{table}</div>"

    def __reduce__(self) -> Any:
        return _reopen, (self.path, tuple(sorted(self.options.items())))


_reopened: weakref.WeakValueDictionary[Any, Cache] = weakref.WeakValueDictionary()


def _reopen(path: str | None, options: tuple[tuple[str, str], ...]) -> Cache:
    """The Cache for a pickled one: one object in a process for all its copies."""
    cache = _reopened.get((path, options))
    if cache is None:
        cache = _reopened[path, options] = Cache(path, **dict(options))
    return cache


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()
_is_watched = False


def _watch_processes() -> None:
    """Has processes of multiprocessing count what they find in memory. The library adds that to what all count when a
    process exits, but these end by `os._exit`. Nothing is imported for it: a program without multiprocessing has no
    such processes."""
    global _is_watched
    if not _is_watched and "multiprocessing.util" in sys.modules:
        from multiprocessing import util

        _is_watched = True
        util.register_after_fork(library, _begin_process)
        _begin_process(library)  # this may be one that imports npcache only now


def _begin_process(_: object) -> None:
    """In a new process of multiprocessing: it has just forgotten its parent's finalizers."""
    from multiprocessing import util

    for cache in _caches:
        cache._inherited = cache.stats().memory
    util.Finalize(None, _count_memory_hits, exitpriority=-100)  # after those of users, which are 0 or more


def _count_memory_hits() -> None:
    found = Statistics()
    for cache in _caches:
        # A cache that this process did not use is not opened for it.
        if cache.stats().memory > cache._inherited:
            library.stats(cache._handle, None, byref(found), ctypes.sizeof(found), None)


_watch_processes()
os.register_at_fork(before=_watch_processes)


def _sum(tallies: list[_Tally]) -> Stats:
    total = [sum(column) for column in zip(*tallies)] or [0] * 7
    counts = [int(n) for n in total[:_SECONDS]]
    return Stats(
        counts[ORIGIN_COMPUTED],
        counts[ORIGIN_MEMORY],
        counts[ORIGIN_DISK],
        counts[ORIGIN_SHARED],
        counts[_UNSTORED],
        float(total[_SECONDS]),
    )


class _Handle:
    """An npcache_function, freed when no call uses it any more, and results that it found in memory."""

    __slots__ = ("function", "known")

    def __init__(self, function: c_void_p) -> None:
        self.function = function
        self.known: dict[bytes, _Known] = {}

    def remember(self, data: bytes, buffer: int, array: Any, seconds: float) -> None:
        if array.nbytes <= _KNOWN_BYTES and len(data) <= _KNOWN_BYTES:
            if len(self.known) >= _MAX_KNOWN:
                self.known = {}
            self.known[data] = _Known(data, buffer, array, seconds)

    def __del__(self, free: Callable[[Any], None] = library.function_free) -> None:
        free(self.function)


class _Known:
    """A small result that was found in the library's memory, ready to be handed out: the library is asked again at
    each call, and where it answers with the same buffer, this is its array. The array keeps the buffer, so that no
    other can be at its address."""

    __slots__ = ("arguments", "buffer", "hand_out", "handle", "seconds")

    def __init__(self, data: bytes, buffer: int, array: Any, seconds: float) -> None:
        self.arguments = arguments_from_bytes(data)
        self.buffer = buffer
        self.handle = c_void_p(buffer)
        self.hand_out = array.view  # each caller gets an array of its own, on the same memory
        self.seconds = seconds

    def __del__(self, free: Callable[[Any], None] = library.args_free) -> None:
        free(getattr(self, "arguments", None))


class _Task:
    """A result to be computed. Ended by `store`, or uncommitted when it is gone: the next who waits computes."""

    __slots__ = ("_output",)

    def __init__(self, output: c_void_p) -> None:
        # Until it is ended, which is to happen once: whoever ends it pops it. Taken over as by Memory.
        self._output, output.value = [output.value], None

    def store(self, arrays: list[tuple[str | None, Any]]) -> Memory:
        """The result, as it is stored. Raises Error."""
        for name, array in arrays:
            write(self._output[0], name, array)
        for note, value in _NOTES:
            library.output_note(self._output[0], note, value)
        library.output_commit(self._output[0])
        buffer, error = c_void_p(), c_void_p()
        try:
            if library.end(self._output.pop(), byref(buffer), byref(error)) < 0:
                raise take_error(error)
            return Memory(buffer)
        finally:
            library.buffer_release(buffer)  # where a signal came in between

    def abandon(self, reason: str) -> None:
        library.output_fail(self._output[0], reason.encode("utf-8", "replace").replace(b"\0", b""))
        library.end(self._output.pop(), None, None)

    def __del__(self, end: Callable[..., int] = library.end) -> None:
        if getattr(self, "_output", None):  # not where a signal ended __init__
            end(self._output.pop(), None, None)


class _Slot:
    """What C writes to during one call. Slots are reused: making these objects would take longer than the call. What is
    in `hit` or `todo` is the call's, until it is taken out."""

    __slots__ = (
        "arguments",
        "arguments_out",
        "error",
        "error_out",
        "hit",
        "hit_out",
        "todo",
        "todo_out",
        "view",
        "view_out",
    )

    def __init__(self) -> None:
        self.arguments, self.hit, self.todo, self.error = c_void_p(), c_void_p(), c_void_p(), c_void_p()
        self.arguments_out, self.error_out = byref(self.arguments), byref(self.error)
        self.hit_out, self.todo_out = byref(self.hit), byref(self.todo)
        self.view = View()
        self.view_out = byref(self.view)


_slots: list[_Slot] = []

_args_from_bytes = library.args_from_bytes
_args_free = library.args_free
_begin = library.unconverted("begin")
_slice = c_int64(SLICE_MS)
_buffer_origin = library.buffer_origin
_buffer_seconds = library.buffer_seconds
_release = library.unconverted("buffer_release", None)


def _signature(function: Any) -> inspect.Signature:
    """How a function is called. What `functools.wraps` made says that it is called as what it wraps, but its names and
    defaults are its own."""
    return inspect.signature(_undecorated(function), follow_wrapped=False)


def _undecorated(function: Any) -> Any:
    """A function without what is said about it, `__wrapped__` and `__signature__`. A wrapper in C is called as what it
    wraps."""
    if isinstance(function, functools.partial):
        return functools.partial(_undecorated(function.func), *function.args, **function.keywords)
    if isinstance(function, types.MethodType):
        return types.MethodType(_undecorated(function.__func__), function.__self__)
    plain = _plain_function(function)
    if plain is None:
        return function
    if type(plain) is not types.FunctionType:  # a proxy of wrapt's: what it calls takes all arguments
        return lambda *args, **kwargs: None
    bare = types.FunctionType(plain.__code__, {}, plain.__name__, plain.__defaults__, plain.__closure__)
    bare.__kwdefaults__ = plain.__kwdefaults__
    return bare


class _Parameters:
    """A signature, ready for encoding calls."""

    def __init__(self, function: Any, ignore: frozenset[str], fast: dict[type, Callable[[Any], bytes]]) -> None:
        try:
            parameters = list(_signature(function).parameters.values())
        except (ValueError, TypeError):  # some functions in C have none
            parameters = [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        by_kind: dict[Any, list[inspect.Parameter]] = {}
        for parameter in parameters:
            by_kind.setdefault(parameter.kind, []).append(parameter)
        only = by_kind.get(inspect.Parameter.POSITIONAL_ONLY, [])
        self.positional = only + by_kind.get(inspect.Parameter.POSITIONAL_OR_KEYWORD, [])
        self.positional_only = len(only)
        self.keyword_only = by_kind.get(inspect.Parameter.KEYWORD_ONLY, [])
        rest = by_kind.get(inspect.Parameter.VAR_POSITIONAL)
        self.rest = rest[0].name if rest else ""
        self.keywords = inspect.Parameter.VAR_KEYWORD in by_kind
        self.ignore = ignore
        unknown = sorted(ignore - {parameter.name for parameter in parameters})
        if unknown and not self.keywords:
            raise ValueError(f"{function_name(function)} has no parameter {', '.join(unknown)} to ignore")
        self.frames = {} if ignore else self._frames(fast)

    def _frames(self, fast: dict[type, Callable[[Any], bytes]]) -> dict[int, Any]:
        """For a number of positional arguments what precedes their bytes, how types are encoded, and what follows:
        the defaults of the other parameters. Only where those are values that do not change."""
        if any(type(p.default) not in FAST for p in self.keyword_only):  # also those without a default
            return {}
        try:
            keyword = encode({p.name: p.default for p in self.keyword_only}, -1)
            before, tail = b"\x82" + head(4, len(self.positional)), keyword
            frames: dict[int, Any] = {len(self.positional): (before, fast, tail)}
            for n in range(len(self.positional) - 1, -1, -1):
                default = self.positional[n].default
                if type(default) not in FAST:
                    break
                tail = FAST[type(default)](default) + tail
                frames[n] = before, fast, tail
        except (TooLarge, Refused):
            return {}
        return frames

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
        """The positional arguments with their names, defaults filled in, and the keyword arguments; None where the
        function cannot be called so."""
        names = self.positional
        if len(args) > len(names) and not self.rest:
            return None
        positional = [(p.name, value) for p, value in zip(names, args)]
        kwargs = dict(kwargs)
        for i in range(len(args), len(names)):
            parameter = names[i]
            if i >= self.positional_only and parameter.name in kwargs:
                positional.append((parameter.name, kwargs.pop(parameter.name)))
            elif parameter.default is parameter.empty:
                return None
            else:
                positional.append((parameter.name, parameter.default))
        positional += [(self.rest, value) for value in args[len(names) :]]
        keyword = {}
        for parameter in self.keyword_only:
            keyword[parameter.name] = kwargs.pop(parameter.name, parameter.default)
            if keyword[parameter.name] is parameter.empty:
                return None
        if kwargs:
            given_twice = any(p.name in kwargs for p in names[self.positional_only : len(args)])
            if not self.keywords or given_twice:
                return None
            keyword.update(kwargs)
        return positional, keyword


class CachedFunction(Generic[P, R]):
    """A function whose results are kept; made by `Cache.memoize`. Call it as the function itself."""

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    def __init__(
        self,
        cache: Cache,
        function: Callable[P, R],
        *,
        version: str | None = None,
        name: str | None = None,
        ignore: Sequence[str] = (),
        depends: Sequence[Any] | Mapping[str, str] = (),
        layout: str = "equal",
        writable: bool = False,
    ) -> None:
        _check_function(function)
        if version is not None and not isinstance(version, str):
            raise TypeError(f"version is a text, not {version!r}")
        if isinstance(ignore, str):
            raise TypeError(f"ignore is a list of names, not the text {ignore!r}")
        if isinstance(depends, str):
            raise TypeError("depends is a list of functions, modules and values, or a dict of names and texts")
        functools.update_wrapper(self, function)
        self.cache = cache
        self.name = function_name(function) if name is None else name
        self._function = function
        self._how = {
            "version": version,
            "name": name,
            "ignore": tuple(ignore),
            "depends": depends,
            "layout": layout,
            "writable": writable,
        }
        self._version = version
        self._strict = layout == "strict"
        self._layout = layout
        self._writable = writable
        self._ignore = frozenset(ignore)
        self._fast = FAST if self._strict else FAST_WITH_ARRAYS
        self._identity = Identity(function, version, depends)
        self._current = self._identity.current
        self._parameters = _Parameters(function, self._ignore, self._fast)
        self._defaults = _defaults_of(function)
        self._adopted: tuple[Any, Any] = (None, None)
        self._handles: dict[Any, _Handle] = {}
        self._tallies = cache._tallies.setdefault(self.name, {})
        self._warned: set[str] = set()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        identity = self._current()
        adopted, handle = self._adopted
        if adopted is not identity:
            handle = self._adopt(identity)
        try:
            tally = self._tallies[get_ident()]
        except KeyError:
            tally = self._tallies[get_ident()] = _new_tally()
        try:
            slot = _slots.pop()
        except IndexError:
            slot = _Slot()
        known = todo = None
        try:
            arguments = slot.arguments
            try:
                if kwargs:
                    raise KeyError
                before, fast, after = self._parameters.frames[len(args)]
                if len(args) == 1:
                    value = args[0]
                    data = before + fast[type(value)](value) + after
                else:
                    data = before + b"".join([fast[type(value)](value) for value in args]) + after
                known = handle.known.get(data)
                if known is not None:
                    arguments = known.arguments
                elif _args_from_bytes(data, len(data), slot.arguments_out, slot.error_out) < 0:
                    raise take_error(slot.error)
            except (KeyError, TooLarge, Refused):
                data = None
                slow = self._arguments(args, kwargs)
                if slow is None:
                    return self._function(*args, **kwargs)  # raises the TypeError of a wrong call
                arguments.value = slow.value
            try:
                status = _begin(handle.function, arguments, _slice, slot.hit_out, slot.todo_out, slot.error_out)
                while status == BUSY:  # Python handles signals here
                    status = _begin(handle.function, arguments, _slice, slot.hit_out, slot.todo_out, slot.error_out)
                hit = slot.hit.value
                if hit is None and status >= 0:
                    todo = _Task(slot.todo)
            finally:
                if known is None:
                    _args_free(arguments)
            if hit is not None:
                if known is not None and known.buffer == hit:
                    slot.hit.value = None
                    _release(known.handle)
                    tally[ORIGIN_MEMORY] += 1
                    tally[_SECONDS] += known.seconds
                    return known.hand_out()  # type: ignore[no-any-return]
                origin = _buffer_origin(hit)
                seconds = _buffer_seconds(hit)
                memory = Memory(slot.hit)
                try:
                    kept = copied(memory) if self._writable else memory
                    result: R = read(kept, slot.view, slot.view_out, self._writable)
                except Exception as e:
                    self._warn_of_reading(e)
                else:
                    tally[origin] += 1
                    tally[_SECONDS] += seconds
                    if origin == ORIGIN_MEMORY and type(result) is np.ndarray and not (data is None or self._writable):
                        handle.remember(data, hit, result, seconds)
                    return result
            elif status < 0:
                self._give_up(take_error(slot.error))
        except BaseException:  # a signal, perhaps before anybody took these out
            output, buffer, slot.todo.value, slot.hit.value = slot.todo.value, slot.hit.value, None, None
            library.end(output, None, None)
            library.buffer_release(buffer)
            raise
        finally:
            _slots.append(slot)
        return self._compute(todo, args, kwargs, identity)

    # ------------------------------------------------------------------------------------------------ the user's ways

    def call_uncached(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function itself: nothing is looked up or stored."""
        return self._function(*args, **kwargs)

    def is_cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether this call would be answered without computing. Computes nothing, and counts as no hit."""
        cached = c_int32()
        self._with_arguments(args, kwargs, lambda function, a: check(library.is_cached, function, a, byref(cached)))
        return bool(cached)

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Removes the stored result of this call, if there is one."""
        self._with_arguments(args, kwargs, lambda function, a: check(library.forget, function, a))

    def clear(self) -> None:
        """Removes the stored results of this function, of all its versions."""
        check(library.clear_function, self.cache._handle, c_string(self.name.encode()))

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Whether this call is stored, and if not, how the stored calls that come nearest differ from it."""
        text = c_void_p()
        self._with_arguments(args, kwargs, lambda function, a: check(library.explain, None, function, a, byref(text)))
        try:
            return ctypes.string_at(text.value or 0).decode()
        finally:
            library.text_free(text)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of this call, 64 hexadecimal digits: the name of its file without `.npy`."""
        key = ctypes.create_string_buffer(65)
        self._with_arguments(args, kwargs, lambda function, a: check(library.function_key, function, a, key))
        return key.value.decode()

    def stats(self) -> Stats:
        """What became of this function's calls so far, made through this cache object in this process."""
        return _sum(list(self._tallies.values()))

    # --------------------------------------------------------------------------------------------------- its insides

    def _adopt(self, identity: Any) -> _Handle:
        """The handle for an identity of the function's code."""
        handle = self._handles.get(identity)
        if handle is None:
            handle = self._new_handle(*identity)
            while len(self._handles) >= _MAX_HANDLES:
                try:
                    del self._handles[next(iter(self._handles))]
                except (KeyError, StopIteration, RuntimeError):  # another thread was faster
                    break
            self._handles[identity] = handle
        defaults = _defaults_of(self._function)
        if any(a is not b for a, b in zip(defaults, self._defaults)):
            self._parameters = _Parameters(self._function, self._ignore, self._fast)
            self._defaults = defaults
        self._adopted = identity, handle
        return handle

    def _new_handle(self, version: str, dependencies: tuple[tuple[str, str], ...]) -> _Handle:
        function = c_void_p()
        texts = c_string(self.name.encode()), c_string(version.encode())
        check(library.function_new, self.cache._handle, *texts, byref(function))
        handle = _Handle(function)
        if self._ignore:
            dependencies += (("ignore", ",".join(sorted(self._ignore))),)
        for name, value in dependencies:
            texts = c_string(name.encode()), c_string(value.encode("utf-8", "backslashreplace"))
            check(library.function_add_dependency, function, *texts)
        if self._layout != "equal":
            check(library.function_set, function, b"layout", c_string(self._layout.encode()))
        return handle

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> c_void_p | None:
        """The npcache_args of a call, to be freed; None where the function cannot be called so."""
        bound = self._parameters.bind(args, kwargs)
        if bound is None:
            return None
        ignore = self._ignore
        positional = [None if name in ignore else self._lower(name, value) for name, value in bound[0]]
        keyword = {name: self._lower(name, value) for name, value in bound[1].items() if name not in ignore}
        return arguments_from_call(positional, keyword, builder=self._strict)

    def _lower(self, name: str, value: Any) -> Any:
        return lower_argument(value, f"{self.name}: argument `{name}`")

    def _with_arguments(self, args: Any, kwargs: Any, use: Callable[[c_void_p, c_void_p], None]) -> None:
        handle = self._adopt(self._identity.current())
        arguments = self._arguments(args, kwargs)
        if arguments is None:
            _signature(self._function).bind(*args, **kwargs)  # raises
            raise TypeError(f"{self.name} cannot be called so")
        try:
            use(handle.function, arguments)
        finally:
            library.args_free(arguments)

    def _compute(self, task: _Task | None, args: Any, kwargs: Any, identity: Any) -> R:
        self._warn_of_files(args, kwargs)
        tally = self._tallies.setdefault(get_ident(), _new_tally())
        tally[ORIGIN_COMPUTED] += 1
        if task is None:
            tally[_UNSTORED] += 1
            return self._function(*args, **kwargs)
        try:
            result = self._function(*args, **kwargs)
        except BaseException as e:
            task.abandon(_told(e))
            raise
        try:
            arrays = flatten(result)
        except Exception as e:
            task.abandon("the result cannot be stored")
            tally[_UNSTORED] += 1
            what = f"{e.path} {e.what}, which" if isinstance(e, Refused) else f" raises {_told(e)}, and"
            self._warn("result", f"its result{what} cannot be stored: every call computes.")
            return result
        try:
            memory = task.store(arrays)
        except Exception as e:  # MemoryError too
            tally[_UNSTORED] += 1
            self._warn(f"error {getattr(e, 'status', '')}", f"its result is not stored: {_told(e)}")
            return result
        self._check_stored(library.buffer_stored(memory.buffer), tally)
        self._warn_of_changes(identity)
        if self._writable:
            return result
        view = View()
        try:
            kept: R = read(memory, view, byref(view), False)
        except Exception as e:
            self._warn_of_reading(e)
            return result
        return kept

    def _check_stored(self, status: int, tally: _Tally) -> None:
        if status == 0:
            return
        tally[_UNSTORED] += 1
        if status not in _EXPECTED and status not in self.cache._warned:
            self.cache._warned.add(status)
            reason = status_text(status).removeprefix("not stored: ")
            self._warn(f"status {status}", f"results are returned, but not stored in {self.cache.path}: {reason}")

    def _give_up(self, error: Error) -> None:
        """A fault of the cache does not keep the function from being called; a wrong use of it is raised."""
        if error.status == ERR_ARGUMENT:
            raise error
        self._warn(f"error {error.status}", f"called without the cache: {error}")

    def _warn_of_files(self, args: Any, kwargs: Any) -> None:
        bound = self._parameters.bind(args, kwargs)
        for name, value in [*bound[0], *bound[1].items()] if bound else ():
            path = None if name in self._ignore else names_a_file(value)
            if path is not None:
                self._warn(
                    f"file {name}",
                    f"argument `{name}` is the name of a file, {path!r}, and only the name is part of the key. "
                    f"If the function reads it, pass npcache.File({path!r}).",
                )

    def _warn_of_changes(self, before: Any) -> None:
        try:
            after = self._identity.current()
        except Exception as e:
            self._warn("changes", f"what it uses changed while it ran, and the next call raises {_told(e)}")
            return
        if after is not before and after != before:
            names = sorted({name for name, _ in set(after[1]) ^ set(before[1])})
            self._warn(
                "changes",
                f"{', '.join(names)} changed while it ran. If the function does that itself, no call will be a hit.",
            )

    def _warn_of_reading(self, error: Exception) -> None:
        self._warn("read", f"a stored result cannot be read, and its calls compute until `forget`: {_told(error)}")

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(f"{self.name}: {message}", CacheWarning, stacklevel=_outside())

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method, it gets the instance as an argument, which is refused unless its type is registered."""
        return self if instance is None else types.MethodType(self, instance)

    def __npcache_identity__(self) -> tuple[Any, str | None]:
        """For the identity of functions that call this one."""
        return self._function, self._version

    def __repr__(self) -> str:
        return f"<cached function {self.name} in {self.cache!r}>"

    def __reduce__(self) -> Any:
        found: Any = sys.modules.get(getattr(self, "__module__", None) or "")
        qualified = getattr(self, "__qualname__", "")
        for part in qualified.split("."):
            found = getattr(found, part, None)
        # The name by which pickle finds functions as well. But where cloudpickle writes, for joblib or dask, the reader
        # has another main module. It has no hook for objects, so it is seen by the frame that calls this.
        pickler = sys._getframe(1).f_globals.get("__name__", "")
        by_value = self.__module__ == "__main__" and pickler.rpartition(".")[2].startswith("cloudpickle")
        if found is self and not by_value:
            return qualified
        how = {**self._how, "name": self.name}  # a function that calls itself is not whole yet when this is read
        return _recreate, (self.cache, self._function, how, self._identity.sources())


def _lower_cached(value: Any) -> Any:
    """A cached function as an argument is its function, or the version that stands for it."""
    if value._version is None:
        return lower(value._function)
    return {TYPE_KEY: f"function {value.name}", "version": value._version}


_LOWERINGS[CachedFunction] = _lower_cached


def _recreate(cache: Cache, function: Any, how: dict[str, Any], sources: dict[str, list[str]]) -> Any:
    for name, lines in sources.items():
        linecache.cache[name] = sum(map(len, lines)), None, lines, name
    return CachedFunction(cache, function, **how)


def _told(error: BaseException) -> str:
    """An exception in a line, also where its own text raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _defaults_of(function: Any) -> tuple[Any, Any]:
    return getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)


def _check_function(function: Any) -> None:
    if isinstance(function, CachedFunction):
        raise TypeError(f"{function.name} is cached already")
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        raise TypeError(f"put @{kind} above the decorator of the cache, not below it")
    if not callable(function):
        raise TypeError(f"a function is wanted, not {function!r}")
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    call = plain if inspect.isroutine(plain) else getattr(type(plain), "__call__", plain)  # noqa: B004
    for candidate in (plain, call):
        if inspect.iscoroutinefunction(candidate):
            raise TypeError(f"{function_name(function)} is async: cache the function that it awaits, run in a thread")
        if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise TypeError(
                f"{function_name(function)} is a generator: cache a function that returns all of it at once"
            )
