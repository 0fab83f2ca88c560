"""Which code computes a result, when the user gives no version: a text for the function's own code, and one for each
other thing that it uses, by name.

The function's own code is the syntax tree of its `def` or `lambda`, without what means nothing: comments, formatting,
docstrings. It is looked up in the source and compared with the code that is loaded, so that a file edited after it was
imported is not taken for what runs. Where there is no such source, the bytecode stands for it, with the version of
Python. Beside the code count: closure cells, arguments of `partial`, globals that it reads by name, and in the same way
the functions and classes of its module that it uses.

Globals and cells may change between two calls, and a look-up must be fast. So what was seen is kept, and compared by
`is` at every call; what can change in place is encoded again at every call.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import collections
import copy
import dataclasses
import dis
import enum
import functools
import hashlib
import importlib.machinery
import linecache
import math
import operator
import os
import pathlib
import re
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

import numpy as np

from . import _arguments
from ._arguments import File, Refused, TooLarge, encode, lower, type_name

# A name that is in no namespace, an empty cell.
_MISSING: Any = type("Missing", (), {"__repr__": lambda self: "not defined"})()

_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_FUTURE_FLAGS = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag, __future__.all_feature_names, 0
)

# Methods that change what they are called on, if that is a container. One of which a function calls such a method is
# where it puts things; but np.append and the `add` of a Series compute.
_MUTATORS = frozenset(
    [
        "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft",
        "insert", "intersection_update", "pop", "popitem", "popleft", "put", "put_nowait", "remove",
        "setdefault", "symmetric_difference_update", "update", "write", "writelines",
    ]
)  # fmt: skip

_CONTAINERS = (list, dict, set, collections.deque, bytearray, np.ndarray)

# Longer values are told by their hash.
_MAX_TEXT = 200

_IMMUTABLE: tuple[type, ...] = (
    *(int, float, complex, str, bytes, bool, type(None), type(Ellipsis), range, slice),
    *(enum.Enum, pathlib.PurePath, re.Pattern, np.generic, np.dtype),
)

# Globals that change no result, by their types' names; and those that are known by how they read.
_HARMLESS = frozenset(
    ["logging.Logger", "logging.LoggerAdapter", "logging.RootLogger", "_thread.lock", "_thread.RLock", "npcache.Cache"]
)
# What is called in C, how a class says so, and the endings of the modules that it comes from. The flag is that of the
# classes which a `class` statement made, and of few others.
_IN_C = (types.BuiltinFunctionType, types.MethodDescriptorType, types.MethodWrapperType, np.ufunc)
_CALL_IN_C = types.WrapperDescriptorType
_IN_C_SUFFIXES = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_HEAP_TYPE = 1 << 9

_ANNOTATIONS = ("typing", "types")

_WAY_OUT = "Pass it as an argument, give npcache.register an encoder for its type, or give a version=."


class CacheWarning(UserWarning):
    """Something that makes results not be stored, or not be found again, or that the key does not cover."""


class Identity:
    """What identifies the code of `function` at this moment: `version` and `dependencies()`."""

    def __init__(self, function: Callable[..., Any], version: str | None, depends: Any) -> None:
        self._function = function
        self._given = version
        self._depends = depends
        self._warned: set[str] = set()
        self._seen: _Seen | None = None

    def current(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The version and the dependencies, name and value. Equal as long as nothing changed, and then the same object
        unless something can change in place."""
        seen = self._seen
        if seen is None or not seen.holds():
            self._seen = seen = self._look()
        if not seen.live:
            return seen.fixed
        version, parts = seen.fixed
        return version, parts + tuple((name, _text(read())) for name, read in seen.live)

    def sources(self) -> dict[str, list[str]]:
        """The lines of the code that is in no file, a notebook's cells, by their names: without these, another process
        would know the code by its bytecode, and not find what is stored."""
        try:
            self.current()
        except Exception:  # said where the function is called
            return {}
        names = {code.co_filename for _, code, _, _ in self._seen._codes} if self._seen else set()
        return {name: lines for name in names if not os.path.exists(name) and (lines := linecache.getlines(name))}

    def _look(self) -> _Seen:
        walk = _Walk(self._warned)
        if self._given is None:
            version = walk.root(self._function)
        else:
            version = self._given
        walk.depends(self._depends)
        return walk.finish(version)


class _Seen:
    """What was read, and how to see that it still is so."""

    def __init__(self, version: str, walk: _Walk) -> None:
        self.fixed = (version, tuple(sorted(walk.parts.items())))
        self.live = tuple(sorted(walk.live.items(), key=lambda item: item[0]))
        self._names = [(namespace.get, name, value) for namespace, name, value in walk.names]
        self._cells = walk.cells
        self._codes = walk.codes
        self._classes = []
        for namespace, attributes in walk.classes:
            watched = {name: value for name, value in attributes.items() if name not in walk.written}
            self._classes.append((namespace, len(namespace), list(watched), list(watched.values())))
        self._contents = [(value, text) for name, value, text in walk.contents if name not in walk.written]

    def holds(self) -> bool:
        for get, name, value in self._names:
            if get(name, _MISSING) is not value:
                return False
        for cell, value in self._cells:
            try:
                if cell.cell_contents is not value:
                    return False
            except ValueError:  # empty, as it may have been
                if value is not _MISSING:
                    return False
        for function, code, defaults, keyword_defaults in self._codes:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not keyword_defaults
            ):
                return False
        return not self._classes or self._classes_hold()

    def _classes_hold(self) -> bool:
        for attributes, n, names, values in self._classes:
            if len(attributes) != n or not all(map(operator.is_, map(attributes.get, names), values)):
                return False
        for value, text in self._contents:
            try:
                if _text(value) != text:
                    return False
            except Refused:  # what was put in since
                return False
        return True


class _Walk:
    """One walk from a function through all that it uses."""

    def __init__(self, warned: set[str]) -> None:
        self.parts: dict[str, str] = {}
        self.live: dict[str, Callable[[], Any]] = {}
        self.names: list[tuple[dict[str, Any], str, Any]] = []
        self.cells: list[tuple[Any, Any]] = []
        self.codes: list[tuple[Any, Any, Any, Any]] = []
        self.classes: list[tuple[Mapping[str, Any], dict[str, Any]]] = []  # and modules, with what is seen of them
        self.contents: list[tuple[str, Any, str]] = []  # attributes of classes that can change in place
        self.written: set[str] = set()  # attributes that the code itself changes
        self._visited: dict[int, str] = {}
        self._kept: list[Any] = []  # keeps the ids in _visited valid
        self._home: dict[str, Any] | None = None
        self._warned = warned
        self._subject = ""

    def finish(self, version: str) -> _Seen:
        return _Seen(version, self)

    def root(self, function: Any) -> str:
        self._subject = function_name(function)
        while isinstance(function, functools.partial):
            for i, value in enumerate(function.args):
                self._value(f"partial {i}", value)
            for name, value in function.keywords.items():
                self._value(f"partial {name}", value)
            function = function.func
        if isinstance(function, types.MethodType):
            self._value("self", function.__self__, follow=isinstance(function.__self__, type))
            function = function.__func__
        elif _plain_function(function) is None and _is_called_in_python(function):
            self._value("self", function)
            function = type(function).__call__
        plain = _plain_function(function)
        if plain is not None:
            self._home = plain.__globals__
            return self._function(plain, "", root=True)
        if isinstance(function, type):
            return self._class(function, "")
        if not _is_known_by_name(function):
            self._value("function", function)
        elif (bound := _bound_to(function)) is not None:
            self._value("self", bound)
        return f"py:{_reference(function)} {_package_version(function)}"

    def depends(self, depends: Any) -> None:
        if isinstance(depends, Mapping):
            for name, value in depends.items():
                self.parts[str(name)] = str(value)
            return
        for i, item in enumerate(depends):
            if isinstance(item, types.ModuleType):
                self.parts[f"depends {item.__name__}"] = _module_version(item)
                code = {name: value for name, value in list(vars(item).items()) if callable(value)}
                self.classes.append((vars(item), code))  # it may be loaded again
            elif isinstance(item, type) or _plain_function(item) is not None:
                self._value(f"depends {function_name(item)}", item, follow=True)
            elif isinstance(item, (types.BuiltinFunctionType, np.ufunc)) and _is_known_by_name(item):
                if (bound := _bound_to(item)) is not None:
                    self._value(f"depends {i} self", bound)
                self.parts[f"depends {_reference(item)}"] = _package_version(item)
            else:
                self._value(f"depends {i}", item)

    # ------------------------------------------------------------------------------------------------------ functions

    def _function(self, function: types.FunctionType, label: str, root: bool = False) -> str:
        """The text of a function's code. What it uses is added under names that begin with `label`."""
        known = self._visited.get(id(function))
        if known is not None:
            return known
        self._kept.append(function)
        self._visited[id(function)] = f"itself {function.__qualname__}"
        code = function.__code__
        self.codes.append((function, code, function.__defaults__, function.__kwdefaults__))
        node = _find_node(function)
        text = "py:" + (_digest(_dump_function(node)) if node is not None else _digest(_dump_code(code)))
        self._visited[id(function)] = text
        written, called, attributes = _written_names(node) if node is not None else (set(), set(), set())
        self.written |= attributes
        is_proxy = type(function) is not types.FunctionType  # wrapt's says that it is one, and calls another
        if not root or is_proxy:  # a root's defaults are filled in as arguments
            self._defaults(function, label)
        if is_proxy and hasattr(function, "_self_wrapper"):
            self._value(f"decorator {label}", function._self_wrapper, follow=True)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            value = _cell_value(cell)
            self.cells.append((cell, value))
            if name in written or (name in called and _is_put_into(value)):
                self._warn_written("closure variable", name)
            else:
                self._value(f"closure {label}{name}", value, follow=True, read=functools.partial(_cell_value, cell))
        self._globals(function, written, called)
        return text

    def _defaults(self, function: types.FunctionType, label: str) -> None:
        defaults = function.__defaults__ or ()
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        for name, value in zip(arguments[len(arguments) - len(defaults) :], defaults):
            self._value(f"default {label}{name}", value, follow=True)
        for name, value in (function.__kwdefaults__ or {}).items():
            self._value(f"default {label}{name}", value, follow=True)

    def _globals(self, function: types.FunctionType, written: set[str], called: set[str]) -> None:
        namespace = function.__globals__
        home = namespace is self._home
        module = "" if home else f"{namespace.get('__name__')}."
        for name in _global_names(function.__code__):
            key = f"global {module}{name}"
            value = namespace.get(name, _MISSING)
            self.names.append((namespace, name, value))
            if key in self.parts or key in self.live:
                continue
            if value is _MISSING:
                if not hasattr(builtins, name):
                    self.parts[key] = "not defined"
            elif name in written or (name in called and _is_put_into(value)):
                self._warn_written("global", name)
            else:
                self._value(key, value, namespace=namespace, read=functools.partial(namespace.get, name, _MISSING))

    def _class(self, kind: type, label: str) -> str:
        """The text of a class of the user's: its methods and attributes, and those of its bases in the same module."""
        known = self._visited.get(id(kind))
        if known is not None:
            return known
        self._kept.append(kind)
        self._visited[id(kind)] = f"itself {type_name(kind)}"
        self.classes.append((vars(kind), dict(vars(kind))))
        lines = [type_name(kind)]
        for base in kind.__mro__[1:]:
            lines.append(self._class(base, label) if base.__module__ == kind.__module__ else _reference(base))
        for name, value in sorted(vars(kind).items()):
            if name in _CLASS_NOISE:
                continue
            for function in _functions_of(value):
                if isinstance(function, types.FunctionType):
                    if function.__globals__.get("__name__") == kind.__module__ and not _is_generated(function):
                        lines.append(f"{name} {self._function(function, f'{label}{kind.__name__}.{name}.')}")
                elif isinstance(function, type) and function.__module__ == kind.__module__:
                    lines.append(f"{name} {self._class(function, label)}")
                else:
                    self._attribute(kind, name, function, lines)
        text = "py:" + _digest("\n".join(lines))
        self._visited[id(kind)] = text
        return text

    def _attribute(self, kind: type, name: str, value: Any, lines: list[str]) -> None:
        """Adds to the text of a class an attribute that is no method of it, or a dependency where that has no text."""
        try:
            text = _text(value)
        except Refused:
            lines.append(f"{name} {_reference(type(value))}")
            # A descriptor without attributes, such as that of a slot, and a bare object() have nothing to them.
            is_slot = hasattr(type(value), "__get__") and not hasattr(value, "__dict__")
            if not is_slot and type(value) is not object and name != "__class_getitem__":
                self._value(f"attribute {kind.__name__}.{name}", value, {"__name__": kind.__module__})
            return
        lines.append(f"{name} {text}")
        is_of_enum = name.startswith("_") and name.endswith("_")  # lists of its members
        if not (is_of_enum or callable(value) or _is_immutable(value)):
            self.contents.append((name, value, text))

    # --------------------------------------------------------------------------------------------------------- values

    def _value(
        self,
        key: str,
        value: Any,
        namespace: dict[str, Any] | None = None,
        follow: bool = False,
        read: Callable[[], Any] | None = None,
    ) -> None:
        """Adds the dependency `key`. A global has a `namespace`, and functions and classes of it are followed; with
        `follow` all are."""
        label = (key.partition(" ")[2] or key) + "."
        if value is _MISSING:
            self.parts[key] = "not defined"
        elif isinstance(value, types.ModuleType):
            self.parts[key] = f"module {value.__name__}"
        elif hasattr(type(value), "__npcache_identity__"):
            function, version = value.__npcache_identity__()
            if version is None:
                self._value(key, function, namespace, follow)
            else:
                self.parts[key] = f"version {version}"
        elif isinstance(value, functools.partial):
            self.parts[key] = "partial"
            self._value(f"{key} function", value.func, namespace, follow)
            for i, argument in enumerate(value.args):
                self._value(f"{key} argument {i}", argument, follow=True)
            for name, argument in value.keywords.items():
                self._value(f"{key} argument {name}", argument, follow=True)
        elif isinstance(value, types.MethodType) and _plain_function(value.__func__) is not None:
            self._value(f"{key} self", value.__self__, namespace, follow)
            self._value(key, value.__func__, namespace, follow)
        elif isinstance(value, type):
            own = follow or (namespace is not None and value.__module__ == namespace.get("__name__"))
            own = own and value.__module__ not in ("builtins", "numpy")
            self.parts[key] = self._class(value, label) if own else _reference(value)
        elif (plain := _plain_function(value)) is not None:
            own = follow or _is_of(plain, namespace)
            text = self._function(plain, label) if own else _reference(value)
            if plain is not value:
                text = f"{_wrapper_name(value)} around {text}"
            self.parts[key] = text
        elif isinstance(value, _IN_C) and _is_known_by_name(value):
            self.parts[key] = _reference(value)
            if (bound := _bound_to(value)) is not None:
                self._value(f"{key} self", bound, namespace, follow)
        elif type(value) is types.SimpleNamespace and types.SimpleNamespace not in _arguments._registered:
            self._value(f"{key} attributes", vars(value), namespace, follow)
        elif type(value).__module__ in _ANNOTATIONS:
            self.parts[key] = repr(value)
        elif namespace is not None and type_name(type(value)) in _HARMLESS:
            pass
        else:
            if follow or (namespace is not None and type(value).__module__ == namespace.get("__name__")):
                self._class_of(key, value)
            if _is_called_in_python(value) and "__wrapped__" in getattr(value, "__dict__", {}):
                self._value(f"{key} class", type(value), namespace, follow)
                self._value(f"{key} wrapped", value.__wrapped__, namespace, follow)
            self._plain_value(key, value, namespace is not None, read)

    def _class_of(self, key: str, value: Any) -> None:
        """Adds the code of a value's class, where it is the user's: the function may call its methods."""
        kind = type(value)
        if isinstance(value, enum.Enum) or dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
            self.parts[f"{key} class"] = self._class(kind, f"{kind.__name__}.")

    def _plain_value(self, key: str, value: Any, is_global: bool, read: Callable[[], Any] | None) -> None:
        try:
            text = _text(value)
        except Refused as refused:
            if not is_global:
                raise TypeError(f"{self._subject}: {refused.describe(_spoken(key))} {_WAY_OUT}") from None
            self._warn(
                key,
                f"{_spoken(key)} is a {type_name(type(value))}, which is not part of the key: "
                "a change of it returns old results. Pass what matters of it as an argument, or give a version=.",
            )
            return
        if _is_immutable(value):
            self.parts[key] = text
            return
        self.live[key] = read if read is not None else lambda: value
        if is_global:
            self._warn(
                key,
                f"{_spoken(key)} is a {type_name(type(value))}, which can change: it is read and hashed at every call. "
                "Pass it as an argument, or make it a tuple or a number.",
            )

    def _warn_written(self, what: str, name: str) -> None:
        self._warn(
            name,
            f"it changes the {what} `{name}`: a hit does not, and the contents of `{name}` are not part of the key.",
        )

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(f"{self._subject}: {message}", CacheWarning, stacklevel=_outside())


_CLASS_NOISE = frozenset(
    [
        "__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__",
        "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__dataclass_params__",
        "__dataclass_fields__", "__abstractmethods__", "_abc_impl", "__qualname__", "__orig_bases__",
        "__parameters__", "__type_params__", "__match_args__", "__slots__",
    ]
)  # fmt: skip


def function_name(function: Any) -> str:
    """The default name of a function in the cache: its module and qualified name."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)
    module = getattr(function, "__module__", None) or "builtins"
    return f"{'__main__' if module == '__mp_main__' else module}.{function.__qualname__}"


def _outside() -> int:
    """The stack level of the caller outside this package, for warnings."""
    here = os.path.dirname(__file__)
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == here:
        frame = frame.f_back
        level += 1
    return level


def _spoken(key: str) -> str:
    """A dependency's name as it reads in a sentence: "closure variable `n`"."""
    kind, _, name = key.partition(" ")
    kinds = {"closure": "closure variable", "partial": "partial argument", "depends": "dependency"}
    return f"{kinds.get(kind, kind)} `{name}`" if name else f"`{kind}`"


def _plain_function(value: Any) -> types.FunctionType | None:
    """The function of Python's own within wrappers that add nothing to it: in C, such as lru_cache's, numba's, and this
    package's. Not one within a decorator's function, which is code that counts, and has what it wraps in its closure;
    nor one within an instance of a decorator's class, which has more to it."""
    for _ in range(32):
        if isinstance(value, types.FunctionType):
            return value
        if isinstance(value, (type, types.MethodType, functools.partial)):
            return None
        if type(value).__module__.split(".")[0] in ("numba", "numba_cuda"):
            value = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)  # of njit; of vectorize
        elif not _is_called_in_python(value) or hasattr(type(value), "__npcache_identity__"):
            value = getattr(value, "__wrapped__", None)
        else:
            return None
    return None


def _is_of(value: Any, namespace: dict[str, Any] | None) -> bool:
    """Whether a function, or one that it wraps, was defined in a module."""
    for _ in range(32):
        if getattr(value, "__globals__", None) is namespace:
            return namespace is not None
        value = getattr(value, "__wrapped__", None)
    return False


def _is_called_in_python(value: Any) -> bool:
    """Whether calling this instance runs a method of its class, whose code may use all that the instance has."""
    return callable(value) and not isinstance(value, type) and not isinstance(type(value).__call__, _CALL_IN_C)


def _is_known_by_name(function: Any) -> bool:
    """Whether the name of what is called in C says what it does. An `operator.itemgetter` has none, and that of a ufunc
    which numpy.frompyfunc or numba made says nothing: it is no module's in C."""
    if isinstance(function, np.ufunc):
        return any(
            vars(module).get(function.__name__) is function
            for module in list(sys.modules.values())
            if isinstance(module, types.ModuleType) and str(getattr(module, "__file__", "")).endswith(_IN_C_SUFFIXES)
        )
    return hasattr(function, "__name__")


def _bound_to(function: Any) -> Any:
    """The object whose method a function in C is, as `array.dot` and `dict.get` are; None for all others. Modules are
    said to be theirs by functions in C, by those of pybind11 a capsule, and by class methods the class."""
    if not isinstance(function, (types.BuiltinFunctionType, types.MethodWrapperType)):
        return None
    bound = function.__self__
    of_c = isinstance(bound, types.ModuleType) or type(bound).__name__ == "PyCapsule"
    return None if of_c or (isinstance(bound, type) and not bound.__flags__ & _HEAP_TYPE) else bound


def _functions_of(attribute: Any) -> list[Any]:
    """The functions, and what else there is, within what a class makes of them; else the attribute itself."""
    if isinstance(attribute, (staticmethod, classmethod)):
        return [attribute.__func__]
    if isinstance(attribute, property):
        return [attribute.fget, attribute.fset, attribute.fdel]
    if isinstance(attribute, functools.cached_property):
        return [attribute.func]
    if isinstance(attribute, functools.partialmethod):
        return [attribute.func, attribute.args, attribute.keywords]
    return [attribute]


def _wrapper_name(value: Any) -> str:
    return type_name(type(value))


def _reference(value: Any) -> str:
    """What is known by its name only."""
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    module = getattr(value, "__module__", None) or "builtins"
    return f"{'__main__' if module == '__mp_main__' else module}.{name}"


def _package_version(value: Any) -> str:
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None) or "builtins"
    package = sys.modules.get(module.split(".")[0])
    return str(getattr(package, "__version__", f"Python {sys.version_info[0]}.{sys.version_info[1]}"))


def _module_version(module: types.ModuleType) -> str:
    """A module's version, else a hash of its source or its file; of a package, of all that are below it."""
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    files = _module_files(module)
    if module.__name__.split(".")[0] in getattr(sys, "stdlib_module_names", ()) or not files:
        return f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    alone = not hasattr(module, "__path__")
    texts = []
    for name, path in sorted(files.items()):
        loaded = module if name == module.__name__ else sys.modules.get(name)
        texts.append(f"{name[len(module.__name__) :]} {_file_version(path, loaded, alone)}")
    return f"py:{texts[0].strip()}" if alone else f"py:{_digest(chr(10).join(texts))}"


def _module_files(module: types.ModuleType) -> dict[str, str]:
    """The files of a module, and of those in its directories if it is a package, by the modules' names."""
    if not hasattr(module, "__path__"):
        path = getattr(module, "__file__", None)
        return {module.__name__: path} if path is not None else {}
    files = {}
    for top in module.__path__:
        for directory, below, names in os.walk(top):
            below[:] = [name for name in below if name.isidentifier() and name != "__pycache__"]
            package = [
                module.__name__,
                *(part for part in os.path.relpath(directory, top).split(os.sep) if part != "."),
            ]
            for name in names:
                if name.endswith((".py", *_IN_C_SUFFIXES)):
                    stem = name.split(".")[0]
                    parts = package if stem == "__init__" else [*package, stem]
                    files[".".join(parts)] = os.path.join(directory, name)
    return files


def _process_start() -> float:
    """When this process began, in seconds since 1970; 0 where it is not told."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])  # proc(5): starttime, since boot
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return 0.0


# A file that changed before cannot have been edited since it was imported; a minute for the clocks of file servers.
_UNEDITED = _process_start() - 60


def _file_version(path: str, module: types.ModuleType | None, alone: bool) -> str:
    """A hash of a file, and of what is loaded where that is not what the file says: it was edited in between. A file
    `alone` counts without its comments; those of a package as they are, since parsing hundreds takes seconds."""
    try:
        with open(path, "rb") as file:
            data, changed = file.read(), os.fstat(file.fileno()).st_ctime
    except OSError:  # removed, or in an archive: all that is loaded is not in it
        data, changed = b"", math.inf
    tree = _parse(data) if path.endswith(".py") and (alone or changed > _UNEDITED) else None
    version = hashlib.sha256(data).hexdigest()
    if tree is None:
        return version
    if alone:
        version = _digest(_dump(_without_docstrings(tree)))
    edited = _edited(module, tree, _compiled(data, path, 0)) if isinstance(module, types.ModuleType) else []
    return f"{version} loaded {_digest(repr(edited))}" if edited else version


def _edited(module: types.ModuleType, tree: ast.Module, codes: frozenset[types.CodeType]) -> list[tuple[str, str]]:
    """What is loaded of a module and is not in its source: functions, and names that are set once, to a constant."""
    edited = []
    for name, value in sorted(vars(module).items()):
        members = list(vars(value).values()) if isinstance(value, type) and value.__module__ == module.__name__ else []
        for member in [value, *members]:
            for function in map(_plain_function, _functions_of(member)):
                while function is not None:
                    own = function.__globals__ is vars(module) and not _is_generated(function)
                    if own and function.__code__ not in codes:
                        edited.append((f"{name} {function.__qualname__}", _digest(_dump_code(function.__code__))))
                    function = _plain_function(getattr(function, "__wrapped__", None))
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for statement in tree.body:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        if isinstance(target, ast.Name) and stored.count(target.id) == 1:
            try:
                constant = ast.literal_eval(statement.value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # is computed
                continue
            value = vars(module).get(target.id, _MISSING)
            if _is_immutable(constant) and _dump_constant(value) != _dump_constant(constant):
                text = _dump_constant(value) if _is_immutable(value) else type_name(type(value))
                edited.append((target.id, text))
    return edited


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return _MISSING


def _is_immutable(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_immutable, value))
    if dataclasses.is_dataclass(value) and getattr(type(value), "__dataclass_params__").frozen:  # noqa: B009
        return all(_is_immutable(getattr(value, field.name)) for field in dataclasses.fields(value))
    if type(value).__module__ in ("datetime", "decimal", "fractions", "uuid"):
        return True
    return isinstance(value, _IMMUTABLE) and not isinstance(value, np.void)


def _text(value: Any) -> str:
    """A value as the text of a dependency: readable where it is short. Raises Refused."""
    is_long = type(value) is int and value.bit_length() > 4 * _MAX_TEXT  # repr has a limit of digits
    if type(value) in (int, float, str, bool, bytes, type(None), complex) and not is_long:
        text = repr(value)
        if len(text) <= _MAX_TEXT and value == value:
            return text
    if value is _MISSING:
        return "not defined"
    plain = _plain_function(value)
    if plain is not None:
        return _function_text(plain)
    return _once(value, _value_text)


def _value_text(value: Any) -> str:
    digest = hashlib.sha256()
    _update(digest, lower(value))
    return f"{type_name(type(value))} sha256:{digest.hexdigest()}"


_under_way = threading.local()


def _once(value: Any, text: Callable[[Any], str]) -> str:
    """The text of a value, but only that it is itself where it is met within that: the functions of a table may use the
    table."""
    ids: set[int] = _under_way.__dict__.setdefault("ids", set())
    if id(value) in ids:
        return f"itself {type_name(type(value))}"
    ids.add(id(value))
    try:
        return text(value)
    finally:
        ids.remove(id(value))


def _update(digest: Any, tree: Any) -> None:
    """Adds the canonical bytes of a lowered value to a hash, but long ones as they are."""
    try:
        digest.update(encode(tree))
    except (TooLarge, ValueError):  # long, or nested deeply
        if type(tree) in (list, dict):
            items = tree if type(tree) is list else [item for pair in sorted(tree.items()) for item in pair]
            digest.update(f"{type(tree).__name__} {len(items)}:".encode())
            for item in items:
                _update(digest, item)
        elif isinstance(tree, np.ndarray):
            array = np.ascontiguousarray(tree)
            digest.update(f"array {_arguments.canonical_descr(array.dtype)} {tree.shape}:".encode())
            digest.update(array.reshape(-1).view("u1").data)
        elif isinstance(tree, File):
            with open(tree, "rb") as file:
                digest.update(b"file:" + hashlib.sha256(file.read()).digest())
        else:
            data = tree if isinstance(tree, bytes) else str(tree).encode()
            digest.update(f"{type(tree).__name__} {len(data)}:".encode() + data)


def _function_text(function: Any) -> str:
    """All of a function as one text: for functions that are arguments of a call."""
    if isinstance(function, np.ufunc) and not _is_known_by_name(function):
        raise Refused("is a ufunc that does not tell which function it is of", "Use that function itself.")
    if isinstance(function, (types.BuiltinFunctionType, np.ufunc)) and _bound_to(function) is None:
        return f"{_reference(function)} {_package_version(function)}"
    return _once(function, _walked_text)


def _walked_text(function: Any) -> str:
    walk = _Walk(set())
    version = walk.root(function)
    plain = function
    while isinstance(plain, (functools.partial, types.MethodType)):
        plain = plain.func if isinstance(plain, functools.partial) else plain.__func__
    plain = _plain_function(plain)
    if plain is not None:  # no call of it is seen, which may leave its defaults as they are
        walk._defaults(plain, "")
    seen = walk.finish(version)
    live = [(name, _text(read())) for name, read in seen.live]
    return "py:" + _digest(repr((version, seen.fixed[1], live)))


def _lower_function(value: Any) -> dict[str, Any]:
    function = value
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return {_arguments.TYPE_KEY: f"function {function_name(function)}", "code": _function_text(value)}
    except Refused:
        raise
    except TypeError as e:
        raise Refused("is a function", str(e)) from None


# Functions are arguments by their code.
for _kind in (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, np.ufunc):
    _arguments._LOWERINGS[_kind] = _lower_function


# ----------------------------------------------------------------------------------------------------------- bytecode


def _global_names(code: types.CodeType) -> list[str]:
    """The globals that a code object and those within it read by name."""
    return list(dict.fromkeys(i.argval for c in _codes(code) for i in dis.get_instructions(c) if i.opname in _LOADS))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _dump_code(code: types.CodeType) -> str:
    """Bytecode and all that it refers to, as text: for functions without source. Holds for one version of Python."""
    constants = [_dump_code(c) if isinstance(c, types.CodeType) else _dump_constant(c) for c in code.co_consts]
    return repr(
        (
            sys.implementation.cache_tag,
            code.co_code,
            constants,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            getattr(code, "co_exceptiontable", b""),
        )
    )


def _dump_constant(value: Any) -> str:
    """A constant's repr, but sets in an order that is the same in every process."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_dump_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_dump_constant, value))})"
    return f"{type(value).__name__} {value!r}"


# ---------------------------------------------------------------------------------------------------------------- AST


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_generated(function: types.FunctionType) -> bool:
    """Whether a library wrote it, such as a dataclass's __init__, from what is counted elsewhere."""
    return function.__code__.co_filename.startswith("<string>")


@functools.lru_cache(maxsize=64)
def _parse(source: str | bytes) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _find_node(function: types.FunctionType) -> ast.AST | None:
    """The syntax tree of a function's `def` or `lambda`, if its source is there and is what was compiled."""
    code = function.__code__
    linecache.checkcache(code.co_filename)
    source = "".join(linecache.getlines(code.co_filename, function.__globals__))
    tree = _parse(source)
    statement = tree and _statement_at(tree, code.co_firstlineno)
    if not tree or not statement:
        return None
    candidates = [node for node in ast.walk(statement) if _may_be(node, code)]
    flags = code.co_flags & _FUTURE_FLAGS | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    # A file is compiled as a whole, and its imports change how calls are compiled; a notebook's cell by statements.
    whole = code in _compiled(source, code.co_filename, flags)
    alone = ast.Module([statement], [])
    if not candidates or not (whole or _compiles_to(alone, code, flags)):
        return None
    if len(candidates) == 1 or len({_dump_function(node) for node in candidates}) == 1:
        return candidates[0]
    # Several lambdas on one line: the one is it without which the source does not compile to this code.
    for node in candidates:
        if isinstance(node, ast.Lambda):
            body = node.body
            node.body = ast.copy_location(ast.Tuple([body, body], ast.Load()), body)
            try:
                if not _compiles_to(tree if whole else alone, code, flags):
                    return ast.copy_location(ast.Lambda(node.args, body), node)
            finally:
                node.body = body
    return None


def _first_line(node: Any) -> int:
    lines: list[int] = [node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))]
    return min(lines)


def _statement_at(tree: ast.Module, line: int) -> ast.stmt | None:
    for statement in tree.body:
        if _first_line(statement) <= line <= (statement.end_lineno or 0):
            return statement
    return None


def _may_be(node: ast.AST, code: types.CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name == code.co_name and _first_line(node) == code.co_firstlineno
    return False


def _compiles_to(tree: ast.Module, code: types.CodeType, flags: int) -> bool:
    try:
        module = compile(tree, code.co_filename, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return any(compiled == code for compiled in _codes(module))


@functools.lru_cache(maxsize=16)
def _compiled(source: str | bytes, filename: str, flags: int) -> frozenset[types.CodeType]:
    """All code objects of a file."""
    try:
        return frozenset(_codes(compile(source, filename, "exec", flags, dont_inherit=True)))
    except (SyntaxError, ValueError):
        return frozenset()


def _dump_function(node: Any) -> str:
    """The tree of a function without its name, its decorators and its defaults, whose values count elsewhere."""
    arguments = node.args
    parameters = [arguments.posonlyargs, arguments.args, arguments.vararg, arguments.kwonlyargs, arguments.kwarg]
    body = node.body
    if not isinstance(node, ast.Lambda):
        body = [_without_docstrings(statement) for statement in _undocumented(body)]
    returns = getattr(node, "returns", None)
    return f"{type(node).__name__} {_dump(parameters)} {_dump(body)} {_dump(returns)}"


def _undocumented(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


_Documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)


class _Undocument(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if isinstance(node, _Documented):
            fields = {name: getattr(node, name) for name in node._fields if hasattr(node, name)}
            fields["body"] = _undocumented(node.body)
            node = ast.copy_location(type(node)(**fields), node)
        return node


def _without_docstrings(node: Any) -> Any:
    return _Undocument().visit(copy.deepcopy(node))


_SKIPPED_FIELDS = frozenset(["type_comment", "kind", "ctx", "type_ignores"])


def _dump(node: Any) -> str:
    """A tree as text. Like ast.dump, but the same in all versions of Python: no empty fields, no contexts."""
    if isinstance(node, ast.AST):
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in _SKIPPED_FIELDS and value is not None and value != []:
                fields.append(f"{name}={_dump(value)}")
        if isinstance(node, ast.Constant):
            fields = [_dump_constant(node.value)]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return repr(node)


def _is_put_into(value: Any) -> bool:
    """Whether `value.add(...)` and the like change it, for all that is known. What has an encoding and is no container
    counts as always, and where it is changed after all, that is seen and warned about."""
    if isinstance(value, _CONTAINERS):
        return True
    if isinstance(value, (types.ModuleType, type)) or _plain_function(value) is not None:
        return False
    try:
        lower(value)
    except Refused:
        return True
    return False


def _written_names(node: ast.AST) -> tuple[set[str], set[str], set[str]]:
    """Names of which a function changes the contents, such as counters; those that it calls one of _MUTATORS of; and
    attributes that it changes, but for those of `self`, which are no attributes of a class."""
    written: set[str] = set()
    called: set[str] = set()
    attributes: set[str] = set()
    for inner in ast.walk(node):
        targets: Iterable[ast.AST] = ()
        if isinstance(inner, (ast.Assign, ast.Delete)):
            targets = [t for target in inner.targets for t in ast.walk(target) if isinstance(t, ast.expr)]
            targets = [t for t in targets if isinstance(getattr(t, "ctx", None), (ast.Store, ast.Del))]
        elif isinstance(inner, (ast.AugAssign, ast.AnnAssign)):
            targets = [inner.target]
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in _MUTATORS:
            called.update(_base_name(inner.func))
            attributes.update(_attribute_names(inner.func.value))
        elif isinstance(inner, (ast.Global, ast.Nonlocal)):
            written.update(inner.names)
        for target in targets:
            if isinstance(target, (ast.Subscript, ast.Attribute)):
                written.update(_base_name(target))
                of_self = (
                    isinstance(target, ast.Attribute)
                    and isinstance(target.value, ast.Name)
                    and target.value.id == "self"
                )
                if not of_self:
                    attributes.update(_attribute_names(target))
    return written, called, attributes


def _attribute_names(node: ast.AST) -> Iterator[str]:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        node = node.value


def _base_name(node: ast.AST) -> list[str]:
    """The name that an expression such as `a.b[0].c` begins with, if it is one."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return [node.id] if isinstance(node, ast.Name) else []
