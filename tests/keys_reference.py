"""The keys of docs/keys.md, written a second time, from that page alone.

It shares no code with npcache: what it relies on is cbor2 (integers, text, bytes, and the heads of what holds others),
hashlib and numpy. The golden vectors are made with it, and every other implementation is held to them, so where it and
npcache differ, the page decides. It is written to be read next to the page, not to be fast.

    arguments = canonical([mesh], {"nu": 0.1})
    key("solve", "1", [("blas", "openblas 0.3")], arguments)
    key("solve", "1", [], arguments, layouts([mesh], {"nu": 0.1}))      # layout=strict
"""

import hashlib
import struct
import unicodedata
from pathlib import Path

import cbor2
import numpy as np

MIB = 1 << 20
MAX_DIMENSIONS = 32
MAX_NESTING = 64
MAX_NAME = 4096
MAX_DESCR = 8 << 10
MAX_STRUCTURES = 16

# "NPCA", "NPCD", "NPCF", "NPCT" in ASCII.
TAG_ARRAY_BY_DESCR = 1313882945
TAG_DIGEST_OF_BYTES = 1313882948
TAG_FILE = 1313882950
TAG_DIGEST_OF_TEXT = 1313882964

# RFC 8746: the array in row-major order, and the types of elements.
TAG_ARRAY = 40
ELEMENT_TAGS = {
    "|u1": 64, "<u2": 69, "<u4": 70, "<u8": 71, "|i1": 72, "<i2": 77, "<i4": 78, "<i8": 79,
    "<f2": 84, "<f4": 85, "<f8": 86, "<f16": 87,
    ">u2": 65, ">u4": 66, ">u8": 67, ">i2": 73, ">i4": 74, ">i8": 75,
    ">f2": 80, ">f4": 81, ">f8": 82, ">f16": 83,
}  # fmt: skip


class File:
    """An argument that is a file's contents."""

    def __init__(self, path):
        self.path = Path(path)


# ------------------------------------------------------------------------------------------------------------- the key


def key(name, version, dependencies, arguments, layouts=None):
    """The key of a call, in hexadecimal.

    `dependencies` are pairs of texts in any order; `arguments` any bytes; `layouts` the layout letters for a function
    with layout=strict, "" where there is no array, and None without layout=strict.
    """
    if not 1 <= len(name.encode()) <= MAX_NAME or "\0" in name:
        raise ValueError(f"not a function's name: {name!r}")
    pairs = {(n.encode(), v.encode()) for n, v in dependencies}
    if layouts is not None:
        pairs.add((b"layout", layouts.encode()))
    frame = [b"npcache-key-1\n", framed(name.encode()), framed(version.encode()), le64(len(pairs))]
    for dependency in sorted(pairs):
        frame += [framed(text) for text in dependency]
    frame.append(content(arguments))
    return sha256(b"".join(frame)).hex()


def sha256(data):
    return hashlib.sha256(data).digest()


def le64(n):
    return struct.pack("<Q", n)


def framed(text):
    return le64(len(text)) + text


def content(data):
    if len(data) <= MIB:
        return b"\0" + framed(data)
    return b"\1" + le64(len(data)) + root(data)


def root(data):
    """The tree's root over `data`, which is longer than 1 MiB."""
    level = [sha256(b"\0" + data[i : i + MIB]) for i in range(0, len(data), MIB)]
    while len(level) > 1:
        pairs = [sha256(b"\1" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]


# ------------------------------------------------------------------------------------------------- canonical arguments


def canonical(args=(), kwargs=None):
    """The canonical bytes of a call: its positional arguments, and those that can only be given by name."""
    return encode_call(args, kwargs)[0]


def layouts(args=(), kwargs=None):
    """The layout letters of a call: one for each array, in the order of the encoding."""
    return encode_call(args, kwargs)[1]


def encode_call(args, kwargs):
    letters = []
    positional = encode_list(args, -1, letters)
    keywords = encode_map(kwargs or {}, -1, letters)
    return head(4, 2) + positional + keywords, "".join(letters)


def head(major, number):
    """The shortest head: that of the unsigned integer, with another major type in its upper three bits."""
    first, *rest = cbor2.dumps(number)
    return bytes([major << 5 | first, *rest])


def tagged(tag, item):
    return head(6, tag) + item


def encode(value, depth, letters):
    """One value within `depth` lists and maps. Appends the letter of each array to `letters`."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return cbor2.dumps(value if value is None else bool(value))
    if isinstance(value, np.timedelta64):  # to numpy it is an integer
        return encode_array(np.asarray(value), letters)
    if isinstance(value, (int, np.integer)):
        return encode_int(int(value))
    if isinstance(value, np.float16):
        return b"\xf9" + np.asarray(value).astype(">f2").tobytes()
    if isinstance(value, np.float32):
        return b"\xfa" + np.asarray(value).astype(">f4").tobytes()
    if isinstance(value, float):  # np.float64 is one too
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return encode_text(str(value))
    if isinstance(value, bytes):
        return encode_bytes(bytes(value))
    if isinstance(value, (list, tuple)):
        return encode_list(value, depth, letters)
    if isinstance(value, dict):
        return encode_map(value, depth, letters)
    if isinstance(value, File):
        return tagged(TAG_FILE, encode_bytes(value.path.read_bytes()))
    if isinstance(value, complex):  # np.complex128 is one too
        return encode_array(np.asarray(value, "<c16"), letters)
    if isinstance(value, np.generic):
        return encode_array(np.asarray(value), letters)
    if isinstance(value, np.ndarray):
        return encode_array(value, letters)
    raise TypeError(f"not an argument: {type(value)}")


def encode_int(value):
    if -(2**64) <= value < 2**64:
        return cbor2.dumps(value)
    magnitude = value if value >= 0 else -1 - value
    return tagged(2 if value >= 0 else 3, encode_bytes(magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")))


def encode_bytes(data):
    if len(data) <= MIB:
        return cbor2.dumps(data)
    return tagged(TAG_DIGEST_OF_BYTES, encode_digest(data))


def encode_text(text):
    data = text.encode()
    if len(data) <= MIB:
        return cbor2.dumps(text)
    return tagged(TAG_DIGEST_OF_TEXT, encode_digest(data))


def encode_digest(data):
    return head(4, 2) + cbor2.dumps(len(data)) + cbor2.dumps(root(data))


def encode_list(values, depth, letters):
    check_nesting(depth)
    return head(4, len(values)) + b"".join(encode(value, depth + 1, letters) for value in values)


def encode_map(values, depth, letters):
    check_nesting(depth)
    encoded = bytearray(head(5, len(values)))
    for name, value in sorted((encode_map_key(name), value) for name, value in values.items()):
        encoded += name + encode(value, depth + 1, letters)
    return bytes(encoded)


def encode_map_key(name):
    if not isinstance(name, str) or len(name.encode()) > MIB:
        raise ValueError("a key is text of at most 1 MiB")
    return cbor2.dumps(name)


def check_nesting(depth):
    """`depth`: the lists and maps around this one; -1 for the call's own."""
    if depth >= MAX_NESTING:
        raise ValueError("lists and maps nest at most 64 levels deep")


def encode_array(array, letters):
    if array.dtype.hasobject:
        raise TypeError(f"elements of {array.dtype} have no fixed size")
    if array.ndim > MAX_DIMENSIONS:
        raise ValueError(f"{array.ndim} dimensions")
    letters.append(layout_letter(array))
    elements = encode_bytes(elements_of(array))
    descr = canonical_descr(array.dtype)
    if descr in ELEMENT_TAGS:
        elements = tagged(ELEMENT_TAGS[descr], elements)
    else:
        elements = tagged(TAG_ARRAY_BY_DESCR, head(4, 2) + cbor2.dumps(descr) + elements)
    dimensions = head(4, array.ndim) + b"".join(cbor2.dumps(n) for n in array.shape)
    return tagged(TAG_ARRAY, head(4, 2) + dimensions + elements)


def elements_of(array):
    """The elements' bytes in C order, taken raw: numpy's own copies lose a structure's padding, which counts."""
    raw = array.view(f"V{array.itemsize}") if array.itemsize else array
    return raw.tobytes("C")


def canonical_descr(dtype):
    descr = dtype.str if dtype.names is None else structure_descr(dtype.descr)
    if len(descr.encode()) > MAX_DESCR:
        raise ValueError(f"a descr of more than {MAX_DESCR} bytes")
    return descr


def structure_descr(fields, depth=0):
    """As Python's repr writes dtype.descr, but for the names, which have no escapes."""
    if not fields or depth == MAX_STRUCTURES:
        raise ValueError("a structure without fields, or too many within each other")
    return "[" + ", ".join(field_descr(*field, depth=depth) for field in fields) + "]"


def field_descr(name, kind, shape=(), depth=0):
    name = f"({', '.join(map(quoted, name))})" if isinstance(name, tuple) else quoted(name)
    kind = structure_descr(kind, depth + 1) if isinstance(kind, list) else quoted(kind)
    return f"({name}, {kind}, {shape})" if shape else f"({name}, {kind})"


def quoted(text):
    if any(c in "'\"\\" or unicodedata.category(c) == "Cc" for c in text):
        raise ValueError(f"a field's name with a quote, a backslash or a control character: {text!r}")
    return f"'{text}'"


def layout_letter(array):
    if array.nbytes == 0:
        return "C"
    axes = [(n, stride) for n, stride in zip(array.shape, array.strides) if n != 1]
    for letter, innermost_first in ("C", axes[::-1]), ("F", axes):
        expected = array.itemsize
        for n, stride in innermost_first:
            if stride != expected:
                break
            expected *= n
        else:
            return letter
    return "S"
