"""What a function returned as named arrays, and back.

One array is stored without a name. Everything else tells its shape in the names of its arrays, which are also what
other languages see: a tuple's are `0`, `1`, …, a dict's are its keys. A name is a path of steps and what it leads to:

    name  = [step {"/" step}] [":" kind]
    step  = 0          an item of a tuple             [0]     of a list
          | key        of a dict; in quotes where it would be taken for something else
          | {7}        of a dict, under an integer    <type>  what follows makes up such an object
    kind  = float, int, bool, complex, str, bytes, None    a Python value; without a kind: an array, or a numpy scalar
          | array      an array without dimensions
          | (), [], {} an empty tuple, list, dict

Names that are none of these, or do not fit together, are another program's: they are the keys of a dict.
"""

from __future__ import annotations

import collections
import ctypes
import decimal
import json
import re
import sys
from ctypes import byref, c_void_p
from functools import lru_cache
from typing import Any, Callable

import numpy as np

from ._arguments import Refused, canonical_descr, named_items, type_name
from ._library import ORDER_F, View, check, library, numbers

MAX_NAME = 1024

# npcache.h's numbers of the element types that it has numbers for.
DTYPES = {
    "|b1": 1, "|i1": 2, "<i2": 3, "<i4": 4, "<i8": 5, "|u1": 6, "<u2": 7, "<u4": 8, "<u8": 9,
    "<f2": 10, "<f4": 11, "<f8": 12, "<c8": 13, "<c16": 14,
}  # fmt: skip

_PLAIN_KEY = re.compile(r"[^\W\d][\w .\-]*")
_STEP = re.compile(r'(\d+)|\[(\d+)\]|\{(-?\d+)\}|<([^<>/]*)>|("(?:[^"\\]|\\.)*")|([^\W\d][\w .\-]*)')
_KINDS = {"float", "int", "bool", "complex", "str", "bytes", "None", "array", "()", "[]", "{}"}


# -------------------------------------------------------------------------------------------------------------- storing


def flatten(value: Any) -> list[tuple[str | None, np.ndarray[Any, Any]]]:
    """The arrays of a result and their names. Raises Refused where it cannot be stored."""
    arrays: list[tuple[str | None, np.ndarray[Any, Any]]] = []
    try:
        _flatten(value, "", arrays)
    except RecursionError:
        raise Refused("contains itself") from None
    return arrays


def _flatten(value: Any, path: str, arrays: list[tuple[str | None, np.ndarray[Any, Any]]]) -> None:
    kind = type(value)
    if kind is np.ndarray or kind is np.memmap:
        _add(arrays, path, "" if value.ndim else "array", np.asarray(value))
    elif isinstance(value, np.generic):
        _add(arrays, path, "", np.asarray(value))
    elif kind in _TO_ARRAY:
        _add(arrays, path, "None" if value is None else kind.__name__, _TO_ARRAY[kind](value))
    elif kind in (tuple, list, dict) and not value:
        _add(arrays, path, "()" if kind is tuple else "[]" if kind is list else "{}", np.empty(0, "u1"))
    elif kind in (tuple, list):
        for i, item in enumerate(value):
            _flatten(item, _join(path, str(i) if kind is tuple else f"[{i}]"), arrays)
    elif kind is dict:
        for key, item in value.items():
            _flatten(item, _join(path, _key_step(key)), arrays)
    elif isinstance(value, tuple) and hasattr(value, "_fields") and value._fields:
        fields, items = named_items(value)
        path = _join(path, _namedtuple_step(kind, fields))
        for name, item in zip(fields, items):
            _flatten(item, _join(path, _key_step(name)), arrays)
    elif kind.__module__.split(".")[0] == "pandas":
        from ._tables import take_apart

        name, parts = take_apart(value)
        path = _join(path, f"<{name}>")
        for part, item in parts.items():
            _flatten(item, _join(path, part), arrays)
    else:
        raise Refused(f"is a {type_name(kind)}")


def _add(arrays: list[tuple[str | None, np.ndarray[Any, Any]]], path: str, kind: str, array: Any) -> None:
    canonical_descr(array.dtype)  # raises Refused
    name = f"{path}:{kind}" if kind else path
    if len(name.encode()) > MAX_NAME:
        raise Refused(f"is nested so that an array's name would be longer than {MAX_NAME} bytes")
    arrays.append((name or None, array))


def _join(path: str, step: str) -> str:
    return f"{path}/{step}" if path else step


def _key_step(key: Any) -> str:
    if type(key) is str:
        return key if _PLAIN_KEY.fullmatch(key) else json.dumps(key)
    if type(key) is int:
        return f"{{{key}}}"
    raise Refused(f"is a dict with a {type(key).__name__} as a key")


def _namedtuple_step(kind: type, fields: tuple[str, ...]) -> str:
    """The step that `_object` finds the class by. Refused where that would make another object than there was."""
    module = type_name(kind).rpartition("." + kind.__qualname__)[0]
    qualified = kind.__qualname__.replace("<locals>.", "")
    step = f"<namedtuple {module} {qualified}>"
    if not _is_plain(kind) or " " in module or not _STEP.fullmatch(step):
        raise Refused(f"is a {type_name(kind)}, a named tuple with a constructor of its own")
    if _namedtuple(module, qualified, fields) is not kind:  # made in a function, where no name leads to it
        more = vars(kind).keys() - vars(_substitute(kind.__name__, fields)).keys()
        if kind.__bases__ != (tuple,) or not all(name.startswith("__") for name in more):
            raise Refused(f"is a {type_name(kind)}, a named tuple with methods whose class no name leads to")
    return step


def _is_plain(kind: Any) -> bool:
    """Whether a named tuple's class has the constructor that `namedtuple` makes: so its items are all of it."""
    return kind.__init__ is object.__init__ and str(kind.__new__.__module__).startswith("namedtuple_")


def _int_array(value: int) -> np.ndarray[Any, Any]:
    if -(1 << 63) <= value < 1 << 63:
        return np.array(value, "<i8")
    if 0 <= value < 1 << 64:
        return np.array(value, "<u8")
    return np.frombuffer(str(decimal.Decimal(value)).encode(), "u1")  # str(int) has a limit of digits


_TO_ARRAY: dict[type, Callable[[Any], np.ndarray[Any, Any]]] = {
    float: lambda value: np.array(value, "<f8"),
    int: _int_array,
    bool: lambda value: np.array(value, "|b1"),
    complex: lambda value: np.array(value, "<c16"),
    str: lambda value: np.frombuffer(value.encode("utf-8", "surrogatepass"), "u1"),
    bytes: lambda value: np.frombuffer(value, "u1"),
    type(None): lambda value: np.empty(0, "u1"),
}


def write(output: int | None, name: str | None, array: np.ndarray[Any, Any]) -> None:
    """Adds a copy of an array to an output. The library keeps the first error, and `commit` and `end` report it."""
    encoded = None if name is None else name.encode()
    number = DTYPES.get(array.dtype.str) if array.dtype.names is None else None
    if number is not None:
        address = array.__array_interface__["data"][0]
        library.output_write(output, encoded, number, array.ndim, numbers(array.shape), numbers(array.strides), address)
        return
    fortran = array.flags.fnc
    descr = canonical_descr(array.dtype).encode()
    place = library.output_alloc_descr(
        output, encoded, descr, array.ndim, numbers(array.shape), ORDER_F if fortran else 0
    )
    if place and array.nbytes:
        data = array.view(f"V{array.itemsize}").tobytes("F" if fortran else "C")  # the padding of structures too
        ctypes.memmove(place, data, len(data))


# -------------------------------------------------------------------------------------------------------------- reading


class Memory:
    """A buffer of the library, for numpy: the array in it that `__array_interface__` describes at the time. The array
    keeps this, and this the buffer."""

    __slots__ = ("__array_interface__", "buffer")

    __array_interface__: dict[str, Any]

    def __init__(self, buffer: c_void_p) -> None:
        # Taken over at once: Python looks for signals after calls, and there is none in between.
        self.buffer, buffer.value = buffer.value, None

    def __del__(self, release: Callable[[Any], None] = library.buffer_release) -> None:
        release(getattr(self, "buffer", None))  # None where a signal ended __init__


_as_array = np.asarray
_view_size = ctypes.sizeof(View)
_buffer_view = library.buffer_view
_buffer_count = library.buffer_count


def read(memory: Memory, view: View, view_reference: Any, writable: bool) -> Any:
    """The result in a buffer. `view` is where to write descriptions of arrays."""
    buffer = memory.buffer
    count = _buffer_count(buffer)
    if count == 1:
        _buffer_view(buffer, 0, view_reference, _view_size)
        name = view.name
        array = _array(memory, view, writable)
        if name is None:
            return array if array.ndim else array[()]
        return _plan((name.decode(),))([array])
    names, arrays = [], []
    for i in range(count):
        _buffer_view(buffer, i, view_reference, _view_size)
        name = view.name
        names.append(None if name is None else name.decode())
        arrays.append(_array(memory, view, writable))
    return _plan(tuple(names))(arrays)


def _array(memory: Memory, view: View, writable: bool) -> Any:
    n = view.ndim
    typestr, dtype = _dtypes(view.descr)
    memory.__array_interface__ = {
        "version": 3,
        "typestr": typestr,
        "shape": tuple(view.shape[:n]),
        "strides": tuple(view.strides[:n]),
        "data": (view.data, not writable),
    }
    array = _as_array(memory)
    return array if dtype is None else array.view(dtype)


@lru_cache(maxsize=1024)
def _dtypes(descr: bytes) -> tuple[str, np.dtype[Any] | None]:
    """What numpy calls the element type in an array interface, and the dtype where that does not tell it."""
    text = descr.decode()
    if not text.startswith("["):
        return text, None
    import ast

    dtype = np.lib.format.descr_to_dtype(ast.literal_eval(text))
    return f"|V{dtype.itemsize}", dtype


# --------------------------------------------------------------------------------------------------------------- shapes


@lru_cache(maxsize=1024)
def _plan(names: tuple[str | None, ...]) -> Callable[[list[Any]], Any]:
    """How to put together the arrays of these names."""
    try:
        tree = _tree(names)
    except ValueError:  # another program's names
        if None in names:
            return tuple
        return lambda arrays: dict(zip(names, arrays))
    return lambda arrays: _restore(tree, arrays)


def _tree(names: tuple[str | None, ...]) -> Any:
    """Nested lists of [step kind, [(key, subtree), …]], with (kind, index of the array) as leaves."""
    root: list[Any] = []
    for index, name in enumerate(names):
        steps, kind = _parse_name(name or "")
        place = root
        for step in steps:
            place = _descend(place, step)
        if place:
            raise ValueError("two arrays in one place")
        place.append((kind, index))
    _check(root)
    return root


def _parse_name(name: str) -> tuple[list[tuple[str, Any]], str]:
    steps: list[tuple[str, Any]] = []
    position = 0
    while position < len(name) and name[position] != ":":
        if steps:
            if name[position] != "/":
                raise ValueError(name)
            position += 1
        match = _STEP.match(name, position)
        if match is None:
            raise ValueError(name)
        position = match.end()
        which = match.lastindex
        text = match[which or 0]
        key: Any = text
        if which in (1, 2, 3):
            key = int(text)
        elif which == 5:
            key = json.loads(text)
        steps.append((("tuple", "list", "dict", "object", "dict", "dict")[(which or 1) - 1], key))
    kind = name[position + 1 :]
    if position < len(name) and kind not in _KINDS:
        raise ValueError(name)
    return steps, kind


def _descend(place: list[Any], step: tuple[str, Any]) -> list[Any]:
    """The node that a step leads to; made if it is not there. A node is [] or [container, {key: node}]."""
    container, key = step
    if not place:
        place.extend([container, {}])
    elif len(place) != 2 or place[0] != container:
        raise ValueError("two kinds of container in one place")
    node: list[Any] = place[1].setdefault(key, [])
    return node


def _check(node: list[Any]) -> None:
    if len(node) == 1:
        return
    container, children = node
    if container in ("tuple", "list") and list(children) != list(range(len(children))):
        raise ValueError("items are missing")
    if container == "object" and len(children) != 1:
        raise ValueError("two objects in one place")
    for child in children.values():
        _check(child)


def _restore(node: list[Any], arrays: list[Any]) -> Any:
    if len(node) == 1:
        kind, index = node[0]
        return _leaf(kind, arrays[index])
    container, children = node
    if container == "object":
        ((name, child),) = children.items()
        return _object(name, _restore(child, arrays))
    values = [_restore(child, arrays) for child in children.values()]
    if container == "dict":
        return dict(zip(children, values))
    return tuple(values) if container == "tuple" else values


def _leaf(kind: str, array: Any) -> Any:
    if kind == "":
        return array if array.ndim else array[()]
    if kind == "array":
        return array
    if kind in ("str", "bytes"):
        data = array.tobytes()
        return data if kind == "bytes" else data.decode("utf-8", "surrogatepass")
    if kind == "int" and array.ndim:
        return int(decimal.Decimal(array.tobytes().decode()))
    if kind == "None":
        return None
    if kind in ("()", "[]", "{}"):
        return {"()": tuple, "[]": list, "{}": dict}[kind]()
    return array.item()


def _object(name: str, parts: Any) -> Any:
    if name.startswith("namedtuple "):
        _, module, qualified = name.split(" ", 2)
        return tuple.__new__(_namedtuple(module, qualified, tuple(parts)), parts.values())
    from ._tables import put_together

    return put_together(name, parts)


def _namedtuple(module: str, qualified: str, fields: tuple[str, ...]) -> Any:
    """The class, if its module is loaded and it still has these fields; else one like it. Nothing is imported."""
    found: Any = sys.modules.get(module)
    if found is None and module == "__main__":
        found = sys.modules.get("__mp_main__")
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, tuple) and getattr(found, "_fields", None) == fields:
        if not _is_plain(found):
            raise ValueError(f"{type_name(found)} is a named tuple with a constructor of its own")
        return found
    return _substitute(qualified.rpartition(".")[2], fields)


@lru_cache(maxsize=256)
def _substitute(name: str, fields: tuple[str, ...]) -> Any:
    return collections.namedtuple(name, fields, rename=True)  # `_1`, as rename made it


def copied(result: Memory) -> Memory:
    """A writable copy of a result."""
    out = c_void_p()
    try:
        check(library.buffer_writable, result.buffer, byref(out))
        return Memory(out)
    finally:
        library.buffer_release(out)  # where a signal came in between
