"""Arguments of a call as the canonical bytes of docs/keys.md.

It happens in two steps. `lower` turns any Python value into a tree of what the page has an encoding for: None, bool,
int, float, str, bytes, list, dict with text keys, numpy array or float scalar, `File`. What Python tells apart beyond
that becomes a map with the reserved key `npcache:type`, so that a tuple is no list and a dataclass no dict. Then
`encode` writes the tree as bytes; where something in it is longer than 1 MiB or a file, `build` hands it to the
library instead, which hashes on all cores.

`FAST` is the short cut from a value to its bytes for the types that calls mostly have.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import os
import pathlib
import re
import struct
import unicodedata
import uuid
from ctypes import byref, c_void_p
from typing import Any, Callable, TypeVar

import numpy as np

from ._library import check, library, numbers

T = TypeVar("T")

MIB = 1 << 20
MAX_NESTING = 64
MAX_DIMENSIONS = 32
MAX_DESCR = 8 << 10

TYPE_KEY = "npcache:type"

TAG_ARRAY_BY_DESCR = 1313882945
ELEMENT_TAGS = {
    "|u1": 64, "<u2": 69, "<u4": 70, "<u8": 71, "|i1": 72, "<i2": 77, "<i4": 78, "<i8": 79,
    "<f2": 84, "<f4": 85, "<f8": 86, "<f16": 87,
    ">u2": 65, ">u4": 66, ">u8": 67, ">i2": 73, ">i4": 74, ">i8": 75,
    ">f2": 80, ">f4": 81, ">f8": 82, ">f16": 83,
}  # fmt: skip

# NPCACHE_FLOAT16 and NPCACHE_FLOAT32.
_SCALAR_DTYPES = {"float16": 10, "float32": 11}


class File(os.PathLike[str]):
    """An argument that is a file: the call is known by the file's contents, read at every call, not by its path.

    The function gets this object, which `open` and `numpy.load` take as a path::

        @cache.memoize
        def spectrum(recording):
            return np.abs(np.fft.rfft(np.fromfile(recording)))

        spectrum(npcache.File("monday.raw"))
    """

    __slots__ = ("path",)

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        self.path = os.fsdecode(path)

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"npcache.File({self.path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and other.path == self.path

    def __hash__(self) -> int:
        return hash((File, self.path))


class Refused(TypeError):
    """A value that cannot be part of a key. `path` leads to it from the argument: `.rng`, `[3]`."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.what, self.advice, self.path = what, advice, ""

    def within(self, step: str) -> Refused:
        self.path = step + self.path
        return self

    def describe(self, subject: str) -> str:
        """The whole message; `subject` is what the value belongs to: "argument `x`"."""
        if self.path:
            subject = f"{subject[:-1]}{self.path}`" if subject.endswith("`") else f"{subject}{self.path}"
        return f"{subject} {self.what}, which cannot be part of a key. {self.advice or _DEFAULT_ADVICE}"


class TooLarge(Exception):
    """What has to go through the library: longer than 1 MiB, or a file."""


_DEFAULT_ADVICE = "Pass the numbers that it stands for, or say how to encode it: npcache.register(type, encoder)."

_registered: dict[type, Callable[[Any], Any]] = {}


def register(kind: type[T], encoder: Callable[[T], Any]) -> None:
    """Says how values of type `kind` count as arguments: as what `encoder(value)` returns, and as their type's name.

    `encoder` returns anything that is an argument by itself: arrays, numbers, texts, tuples and dicts of them. It must
    return all that a function's result can depend on. It holds for the type itself, not for subclasses, which may have
    more to them. Values of different types never are one argument, whatever their encoders return.

    >>> import numpy as np, npcache
    >>> npcache.register(np.ma.MaskedArray, lambda a: (a.filled(0), np.ma.getmaskarray(a), a.fill_value))
    """
    if not isinstance(kind, type):
        raise TypeError(f"register takes a type first, not {kind!r}")
    if not callable(encoder):
        raise TypeError(f"the encoder of {kind.__name__} cannot be called: {encoder!r}")
    if kind in FAST or kind in _LOWERINGS:
        raise ValueError(f"{kind.__name__} has an encoding already, the same in every language")
    _registered[kind] = encoder


# ------------------------------------------------------------------------------------------------------------- lowering


def lower(value: Any) -> Any:
    """`value` as a tree of what docs/keys.md has an encoding for. Raises Refused."""
    kind = type(value)
    if kind in FAST:
        if kind is str and not value.isascii():
            _utf8(value)
        return value
    lowering = _LOWERINGS.get(kind)
    if lowering is not None:
        return lowering(value)
    encoder = _registered.get(kind)
    if encoder is not None:
        return _typed(type_name(kind), value=lower(encoder(value)))
    for base, lowering in _BASES:
        if isinstance(value, base):
            return lowering(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields, items = named_items(value)
        return _typed(f"namedtuple {type_name(kind)}({', '.join(fields)})", items=_lower_items(items))
    if dataclasses.is_dataclass(value):
        return _lower_dataclass(value)
    if kind.__module__.split(".")[0] == "pandas":
        from ._tables import take_apart

        name, parts = take_apart(value)
        return _typed(name, **{part: lower(content) for part, content in parts.items()})
    raise _refusal(value)


def lower_argument(value: Any, subject: str) -> Any:
    """`lower`, whose refusal says what was refused: "argument `x`"."""
    try:
        return lower(value)
    except Refused as refused:
        raise TypeError(refused.describe(subject)) from None
    except RecursionError:
        raise ValueError(f"{subject} contains itself, or is nested too deeply") from None


def type_name(kind: type) -> str:
    """A type's name, the same in every process: the main module of a spawned process has another name."""
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"


def _typed(type_name: str, /, **parts: Any) -> dict[str, Any]:
    return {TYPE_KEY: type_name, **parts}


def _lower_items(values: Any) -> list[Any]:
    lowered = []
    for i, value in enumerate(values):
        try:
            lowered.append(lower(value))
        except Refused as refused:
            raise refused.within(f"[{i}]")
    return lowered


def _lower_dict(values: dict[Any, Any]) -> dict[str, Any]:
    texts = all(type(name) is str for name in values) and TYPE_KEY not in values
    lowered = {}
    for name, value in values.items():
        try:
            lowered[name] = lower(value)
        except Refused as refused:
            raise refused.within(f"[{name!r}]")
    if texts:
        return lowered
    items = [[lower(name), value] for name, value in lowered.items()]
    return _typed("dict", items=sorted(items, key=lambda item: _order(item[0], "is a dict with a key")))


def _lower_set(values: Any) -> dict[str, Any]:
    return _typed("set", items=sorted(map(lower, values), key=lambda item: _order(item, "is a set with an item")))


def _order(tree: Any, what: str) -> bytes:
    """What to sort by where Python has no order: the bytes."""
    try:
        return encode(tree)
    except TooLarge:
        raise Refused(f"{what} that is a file, or more than 1 MiB", "Pass a list.") from None


def named_items(value: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The fields of a named tuple, and its items: all that there is to it, or it is refused."""
    fields, items = tuple(value._fields), tuple(tuple.__iter__(value))
    if not all(type(field) is str and field.isidentifier() for field in fields):
        raise Refused(f"is a {type(value).__name__} with fields that are no names")
    if len(set(fields)) != len(items) or len(fields) != len(items):
        raise Refused(f"is a {type(value).__name__} with other items than its fields")
    more = sorted(getattr(value, "__dict__", ()))
    if more:
        raise Refused(f"is a {type(value).__name__} with attributes that are no fields ({', '.join(more)})")
    return fields, items


def _lower_dataclass(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    kind = type(value)
    others = sorted(set(getattr(value, "__dict__", ())) - set(names))
    # A property that was read is kept as it was then: where a field has changed since, the function sees the old value.
    kept = [name for name in others if isinstance(getattr(kind, name, None), functools.cached_property)]
    if kept != others:
        more = ", ".join(name for name in others if name not in kept)
        raise Refused(f"is a {kind.__name__} with attributes that are no fields ({more})")
    lowered = {}
    for name in names + kept:
        try:
            lowered[name] = lower(getattr(value, name))
        except Refused as refused:
            raise refused.within(f".{name}")
    parts = {"fields": {name: lowered[name] for name in names}}
    if kept:
        parts["kept"] = {name: lowered[name] for name in kept}
    return _typed(f"dataclass {type_name(kind)}", **parts)


def _lower_enum(value: enum.Enum) -> dict[str, Any]:
    name = value.name
    if name is None:  # a combination of flags
        name = str(value.value)
    return _typed(f"enum {type_name(type(value))}", name=name, value=lower(value.value))


def _lower_array(value: Any) -> Any:
    """An array, or a scalar that docs/keys.md encodes as one, as a plain numpy array."""
    array = np.asarray(value)
    _check_dtype(array.dtype)
    if array.ndim > MAX_DIMENSIONS:
        raise Refused(f"is an array of {array.ndim} dimensions")
    return array


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject or dtype.kind not in "biufcmMSUV":
        raise Refused(f"is an array of {dtype}", "Only elements of a fixed size are: convert them.")


def _lower_scalar(value: np.generic) -> Any:
    """A numpy scalar. A narrow integer overflows where an int does not, so only int64 and bool are Python's own."""
    if isinstance(value, (np.bool_, np.str_, np.bytes_)) or value.dtype.str in ("<i8", "<f8"):
        return value.item()
    return _lower_array(value)


def _lower_datetime(value: datetime.datetime) -> dict[str, Any]:
    zone = "" if value.tzinfo is None else str(value.tzinfo)
    return _typed("datetime", value=value.isoformat(), fold=value.fold, zone=zone)


def _lower_type(value: type) -> dict[str, Any]:
    """A type that stands for itself: float, numpy.float32. Others have code, which a name does not tell."""
    if value.__module__ in ("builtins", "numpy"):
        return _typed("type", name=type_name(value))
    raise Refused(f"is the class {type_name(value)}")


def _refusal(value: Any) -> Refused:
    kind = type(value)
    name = type_name(kind) if kind.__module__ != "builtins" else kind.__name__
    if isinstance(value, np.ndarray):
        return Refused(
            f"is a {name}, a subclass of numpy.ndarray with more to it than its elements",
            f"Pass its parts, or say how to encode it: npcache.register({kind.__name__}, encoder).",
        )
    if isinstance(value, (np.random.Generator, np.random.RandomState, np.random.BitGenerator)):
        return Refused(f"is a {name}, whose state changes with every number drawn", "Pass a seed instead.")
    if hasattr(value, "read") and hasattr(value, "close"):
        return Refused(f"is an open file ({name})", "Pass npcache.File(path), which counts by its contents.")
    advice = _DEFAULT_ADVICE.replace("register(type", f"register({kind.__name__}")
    return Refused(f"is a {name}", advice)


_LOWERINGS: dict[type, Callable[[Any], Any]] = {
    list: _lower_items,
    tuple: lambda value: _typed("tuple", items=_lower_items(value)),
    dict: _lower_dict,
    set: _lower_set,
    frozenset: _lower_set,
    File: lambda value: value,
    complex: lambda value: np.asarray(value, "<c16"),
    np.ndarray: _lower_array,
    np.memmap: _lower_array,
    np.float16: lambda value: value,
    np.float32: lambda value: value,
    slice: lambda value: _typed("slice", items=_lower_items([value.start, value.stop, value.step])),
    range: lambda value: _typed("range", items=[value.start, value.stop, value.step]),
    type(Ellipsis): lambda value: _typed("Ellipsis"),
    type(NotImplemented): lambda value: _typed("NotImplemented"),
    datetime.datetime: _lower_datetime,
    datetime.date: lambda value: _typed("date", value=value.isoformat()),
    datetime.timedelta: lambda value: _typed("timedelta", items=[value.days, value.seconds, value.microseconds]),
    decimal.Decimal: lambda value: _typed("Decimal", value=str(value)),
    fractions.Fraction: lambda value: _typed("Fraction", items=[value.numerator, value.denominator]),
    uuid.UUID: lambda value: _typed("UUID", value=str(value)),
    re.Pattern: lambda value: _typed("re.Pattern", pattern=lower(value.pattern), flags=value.flags),
}

# Looked through in this order for types that _LOWERINGS does not have.
_BASES: list[tuple[Any, Callable[[Any], Any]]] = [
    (enum.Enum, _lower_enum),
    (np.generic, _lower_scalar),
    (np.dtype, lambda value: _typed("dtype", value=canonical_descr(value))),
    (pathlib.PurePath, lambda value: _typed("path", value=str(value))),
    (type, _lower_type),
]


# ------------------------------------------------------------------------------------------------------------- encoding


def head(major: int, n: int) -> bytes:
    """The shortest head of a CBOR item: its major type and an unsigned number below 2^64."""
    if n < 24:
        return bytes((major << 5 | n,))
    if n < 1 << 8:
        return bytes((major << 5 | 24, n))
    if n < 1 << 16:
        return struct.pack(">BH", major << 5 | 25, n)
    if n < 1 << 32:
        return struct.pack(">BI", major << 5 | 26, n)
    return struct.pack(">BQ", major << 5 | 27, n)


_SMALL_INTS = {n: head(0, n) if n >= 0 else head(1, -1 - n) for n in range(-256, 1025)}
_SMALL_BYTES = [head(2, n) for n in range(1025)]
_pack_float = struct.Struct(">Bd").pack


def _encode_int(value: int) -> bytes:
    small = _SMALL_INTS.get(value)
    if small is not None:
        return small
    major, magnitude = (0, value) if value >= 0 else (1, -1 - value)
    if magnitude < 1 << 64:
        return head(major, magnitude)
    return head(6, 2 + major) + _encode_bytes(_big_endian(magnitude))


def _big_endian(magnitude: int) -> bytes:
    return magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")


def _encode_float(value: float) -> bytes:
    return _pack_float(0xFB, value)


def _encode_text(value: str) -> bytes:
    data = _utf8(value)
    if len(data) > MIB:
        raise TooLarge
    return head(3, len(data)) + data


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refused("is a text with half a surrogate pair, which has no UTF-8", "Pass bytes.") from None


def _encode_bytes(value: bytes) -> bytes:
    if len(value) > MIB:
        raise TooLarge
    return head(2, len(value)) + value


def _encode_array(array: np.ndarray[Any, Any]) -> bytes:
    size = array.nbytes
    if size > MIB:
        raise TooLarge
    dtype = array.dtype
    prefix = _element_prefix(dtype)
    shape = array.shape
    if len(shape) == 1:
        dimensions = b"\x81" + _encode_int(shape[0])
    elif len(shape) <= MAX_DIMENSIONS:
        dimensions = head(4, len(shape)) + b"".join(map(_encode_int, shape))
    else:
        raise Refused(f"is an array of {len(shape)} dimensions")
    if dtype.names is not None and size:  # numpy's own copies lose the padding of a structure, which counts
        array = array.view(f"V{dtype.itemsize}")
    lengths = _SMALL_BYTES[size] if size < 1025 else head(2, size)
    return b"\xd8\x28\x82" + dimensions + prefix + lengths + array.tobytes()


@functools.lru_cache(maxsize=256)
def _element_prefix(dtype: np.dtype[Any]) -> bytes:
    """What precedes the byte string of an array's elements: their tag, or the tag and the descr."""
    descr = canonical_descr(dtype)
    tag = ELEMENT_TAGS.get(descr)
    if tag is not None:
        return head(6, tag)
    return head(6, TAG_ARRAY_BY_DESCR) + head(4, 2) + _encode_text(descr)


def canonical_descr(dtype: np.dtype[Any]) -> str:
    """numpy's name for the element type, as docs/keys.md has it."""
    _check_dtype(dtype)
    if dtype.names is None:
        return str(dtype.str)
    try:
        fields = dtype.descr
    except ValueError:  # fields that overlap, or lie out of order
        raise Refused(f"is an array of {dtype}, whose fields numpy cannot describe") from None
    descr = _structure_descr(fields)
    if len(descr.encode()) > MAX_DESCR:
        raise Refused(f"is an array with a description of more than {MAX_DESCR} bytes")
    return descr


def _structure_descr(fields: Any) -> str:
    return "[" + ", ".join(_field_descr(*field) for field in fields) + "]"


def _field_descr(name: Any, kind: Any, shape: Any = ()) -> str:
    name = f"({', '.join(map(_quoted, name))})" if isinstance(name, tuple) else _quoted(name)
    kind = _structure_descr(kind) if isinstance(kind, list) else _quoted(kind)
    return f"({name}, {kind}, {shape})" if shape else f"({name}, {kind})"


def _quoted(text: str) -> str:
    if any(c in "'\"\\" or unicodedata.category(c) == "Cc" for c in text):
        raise Refused(f"is an array with a field named {text!r}", "Rename it: no quotes, no backslashes.")
    return f"'{text}'"


def _encode_float16(value: np.float16) -> bytes:
    return b"\xf9" + bytes(value.tobytes()[::-1])


def _encode_float32(value: np.float32) -> bytes:
    return b"\xfa" + bytes(value.tobytes()[::-1])


def _encode_file(value: File) -> bytes:
    raise TooLarge


# Values that are their own lowering, of exactly these types, to their bytes.
FAST: dict[type, Callable[[Any], bytes]] = {
    int: _encode_int,
    float: _encode_float,
    np.float64: _encode_float,
    str: _encode_text,
    bool: lambda value: b"\xf5" if value else b"\xf4",
    type(None): lambda value: b"\xf6",
    bytes: _encode_bytes,
}

# Also arrays: they are refused for some element types, where `lower` gives the reason.
FAST_WITH_ARRAYS: dict[type, Callable[[Any], bytes]] = {**FAST, np.ndarray: _encode_array}

_LEAVES: dict[type, Callable[[Any], bytes]] = {
    **FAST_WITH_ARRAYS,
    np.float16: _encode_float16,
    np.float32: _encode_float32,
    File: _encode_file,
}


def encode(tree: Any, depth: int = 0) -> bytes:
    """The canonical bytes of a lowered value. Raises TooLarge."""
    kind = type(tree)
    leaf = _LEAVES.get(kind)
    if leaf is not None:
        return leaf(tree)
    if depth >= MAX_NESTING:
        raise ValueError("lists and maps nest at most 64 levels deep")
    if kind is list:
        return head(4, len(tree)) + b"".join([encode(item, depth + 1) for item in tree])
    items = sorted([(_encode_text(name), encode(value, depth + 1)) for name, value in tree.items()])
    return head(5, len(tree)) + b"".join([name + value for name, value in items])


def encode_call(positional: list[Any], keyword: dict[str, Any]) -> bytes:
    """The canonical bytes of a call of lowered values. Raises TooLarge."""
    return b"\x82" + encode(positional, -1) + encode(keyword, -1)


# ----------------------------------------------------------------------------------------------- through the library


def arguments_from_bytes(data: bytes) -> c_void_p:
    """An npcache_args of canonical bytes, to be freed."""
    arguments = c_void_p()
    check(library.args_from_bytes, data, len(data), byref(arguments))
    return arguments


def arguments_from_call(positional: list[Any], keyword: dict[str, Any], builder: bool) -> c_void_p:
    """An npcache_args of lowered values, to be freed. `builder`: go through the library's builder in any case, which
    alone sees how arrays lie in memory."""
    if not builder:
        try:
            return arguments_from_bytes(encode_call(positional, keyword))
        except TooLarge:
            pass
    arguments = c_void_p(library.args_new())
    try:
        for value in positional:
            _build(arguments, value)
        for name, value in keyword.items():
            _build_key(arguments, name)
            _build(arguments, value)
    except BaseException:
        library.args_free(arguments)
        raise
    return arguments


def _build(arguments: c_void_p, tree: Any) -> None:
    """Adds a lowered value. The library keeps the first error, and the call reports it."""
    kind = type(tree)
    if kind is np.ndarray:
        _build_array(arguments, tree)
    elif kind is list:
        library.args_begin_list(arguments)
        for item in tree:
            _build(arguments, item)
        library.args_end(arguments)
    elif kind is dict:
        library.args_begin_map(arguments)
        for name, value in tree.items():
            _build_key(arguments, name)
            _build(arguments, value)
        library.args_end(arguments)
    elif kind is int:
        if -(1 << 63) <= tree < 1 << 63:
            library.args_add_int(arguments, tree)
        else:
            magnitude = _big_endian(abs(tree))
            library.args_add_bigint(arguments, tree < 0, magnitude, len(magnitude))
    elif kind is float or kind is np.float64:
        library.args_add_float(arguments, tree)
    elif kind is str:
        data = tree.encode()
        library.args_add_string(arguments, data, len(data))
    elif kind is bytes:
        library.args_add_bytes(arguments, tree, len(tree))
    elif kind is bool:
        library.args_add_bool(arguments, tree)
    elif tree is None:
        library.args_add_null(arguments)
    elif kind is File:
        with open(tree.path, "rb"):  # the error is that of Python: FileNotFoundError
            library.args_add_file(arguments, os.fsencode(tree.path))
    else:
        library.args_add_scalar(arguments, _SCALAR_DTYPES[kind.__name__], tree.tobytes())


def _build_key(arguments: c_void_p, name: str) -> None:
    data = name.encode()
    if b"\0" in data:
        raise ValueError(f"the key {name!r} of a map contains a NUL, beside an argument of more than 1 MiB")
    library.args_key(arguments, data)


def _build_array(arguments: c_void_p, array: np.ndarray[Any, Any]) -> None:
    low = sum((n - 1) * stride for n, stride in zip(array.shape, array.strides) if stride < 0 and n)
    high = sum((n - 1) * stride for n, stride in zip(array.shape, array.strides) if stride > 0 and n) + array.itemsize
    address = array.__array_interface__["data"][0]
    library.args_add_array_descr(
        arguments,
        canonical_descr(array.dtype).encode(),
        array.ndim,
        numbers(array.shape),
        numbers(array.strides),
        address + low if array.size else None,
        high - low if array.size else 0,
        -low if array.size else 0,
    )


def names_a_file(value: Any) -> str | None:
    """The path, where a plain text or path is one of an existing file."""
    if isinstance(value, pathlib.PurePath) or (type(value) is str and 0 < len(value) < 4096 and "\0" not in value):
        try:
            return str(value) if os.path.isfile(value) else None
        except (OSError, ValueError):
            return None
    return None
