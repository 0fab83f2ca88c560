"""Makes tests/vectors/keys.json, the golden vectors: calls, their canonical bytes and their keys, by keys_reference.

    python tests/make_vectors.py            # writes the file anew; the same bytes every time

keys.json is an object: `notation` has the text below, `vectors` the calls, each with a description, a name, a version,
its dependencies, `layout`, its arguments, and what they give: `canonical` and `key`, and with layout strict the letters
in `layouts`. NOTATION defines how the arguments are written down.
"""

import ast
import hashlib
import json
import struct
import tempfile
from pathlib import Path

import keys_reference as reference
import numpy as np

PATH = Path(__file__).resolve().parent / "vectors" / "keys.json"
MIB = 1 << 20
SHOWN = 512  # longer canonical bytes are given by their length and SHA-256

NOTATION = [
    "arguments: {positional: [value, ...], keyword: [[text, value], ...]} in the order of the calls, or {ready: data}",
    "value: null, true, false, or an object with one member:",
    "int: a decimal number, -2^63 to 2^64-1. bigint: {negative: bool, magnitude: data, big-endian}",
    "float16, float32, float64: the bits as hexadecimal digits, most significant first",
    "complex64, complex128: real and imaginary part, the bits of each as above, as an array of two",
    "text: text. bytes: data. file: data, its contents",
    "list: [value, ...]. map: [[text, value], ...], in the order in which the builder is given them",
    "nested: {depth, of: 'list' or 'map', value}: depth lists of one item, or maps of one item under the key 'k'",
    "array: {descr, shape, strides: bytes or null for C order, offset, buffer: data}; all indices 0 are at offset",
    "text: a string, or {repeat: string, times: n}",
    "data: hexadecimal digits, or {multiply: k, length: n}: byte i is the top byte of i*k modulo 2^32",
    "canonical: hexadecimal digits, or {length, sha256} where it is more than 512 bytes. layouts: letters, if strict",
]

# ---------------------------------------------------------------------------------------- from the notation to the call


def data_of(data):
    if isinstance(data, str):
        return bytes.fromhex(data)
    made = (np.arange(data["length"], dtype="u4") * np.uint32(data["multiply"]) >> np.uint32(24)).astype("u1")
    if "flip" in data:  # one bit turned over: not in the vectors, for tests
        made[data["flip"] // 8] ^= 1 << data["flip"] % 8
    return made.tobytes()


def text_of(text):
    return text if isinstance(text, str) else text["repeat"] * text["times"]


def dtype_of(descr):
    return np.lib.format.descr_to_dtype(ast.literal_eval(descr) if descr.startswith("[") else descr)


def array_of(array):
    buffer = data_of(array["buffer"])
    return np.ndarray(array["shape"], dtype_of(array["descr"]), buffer, array["offset"], array["strides"])


def value_of(value, directory):
    """The Python value; files are made in `directory`."""
    if value is None or isinstance(value, bool):
        return value
    ((kind, inner),) = value.items()
    match kind:
        case "int":
            return int(inner)
        case "bigint":
            magnitude = int.from_bytes(data_of(inner["magnitude"]), "big")
            return -magnitude if inner["negative"] else magnitude
        case "float64":
            return struct.unpack(">d", bytes.fromhex(inner))[0]
        case "float16" | "float32":
            return np.frombuffer(bytes.fromhex(inner)[::-1], "<f2" if kind == "float16" else "<f4")[0]
        case "complex64" | "complex128":
            parts = b"".join(bytes.fromhex(part)[::-1] for part in inner)
            return np.frombuffer(parts, "<c8" if kind == "complex64" else "<c16")[0]
        case "text":
            return text_of(inner)
        case "bytes":
            return data_of(inner)
        case "list":
            return [value_of(item, directory) for item in inner]
        case "map":
            return {text_of(name): value_of(item, directory) for name, item in inner}
        case "nested":
            nested = value_of(inner["value"], directory)
            for _ in range(inner["depth"]):
                nested = [nested] if inner["of"] == "list" else {"k": nested}
            return nested
        case "array":
            return array_of(inner)
        case "file":
            contents = data_of(inner)
            path = Path(directory) / hashlib.sha256(contents).hexdigest()
            path.write_bytes(contents)
            return reference.File(path)
    raise ValueError(f"no such kind of value: {kind}")


def call_of(arguments, directory):
    """The positional and the keyword arguments as Python values."""
    positional = [value_of(value, directory) for value in arguments["positional"]]
    return positional, {text_of(name): value_of(value, directory) for name, value in arguments["keyword"]}


def solve(call, directory):
    """What the reference makes of a call: its canonical bytes, its letters (None unless strict) and its key."""
    strict = call["layout"] == "strict"
    arguments = call["arguments"]
    if "ready" in arguments:
        canonical, letters = data_of(arguments["ready"]), ""
    else:
        canonical, letters = reference.encode_call(*call_of(arguments, directory))
    letters = letters if strict else None
    key = reference.key(call["name"], call["version"], call["dependencies"], canonical, letters)
    return canonical, letters, key


# ------------------------------------------------------------------------------------------------------------ the calls


def call(description, *positional, keyword=(), name="solve", version="", dependencies=(), layout="equal", ready=None):
    arguments = {"positional": list(positional), "keyword": [list(pair) for pair in keyword]}
    if ready is not None:
        arguments = {"ready": ready}
    return {
        "description": description,
        "name": name,
        "version": version,
        "dependencies": [list(pair) for pair in dependencies],
        "layout": layout,
        "arguments": arguments,
    }


def integer(n):
    if -(2**63) <= n < 2**64:
        return {"int": str(n)}
    return bigint(n < 0, abs(n).to_bytes((abs(n).bit_length() + 7) // 8, "big").hex())


def bigint(negative, magnitude):
    return {"bigint": {"negative": negative, "magnitude": magnitude}}


def float64(x):
    return {"float64": struct.pack(">d", x).hex()}


def text(s):
    return {"text": s}


def repeated(s, times):
    return {"repeat": s, "times": times}


def generated(length, multiply=2654435761):
    return {"multiply": multiply, "length": length}


def array(descr, shape, strides=None, offset=0, buffer=None):
    """An array of the notation; its buffer is as long as it needs to be, unless given."""
    if buffer is None:
        itemsize = dtype_of(descr).itemsize
        if 0 in shape:
            length = 0
        elif strides is None:
            length = itemsize * int(np.prod(shape, dtype=int))
        else:
            length = offset + itemsize + sum((n - 1) * s for n, s in zip(shape, strides) if s > 0)
        buffer = data_of(generated(length)).hex() if length <= 32 else generated(length)
    elif isinstance(buffer, bytes):
        buffer = buffer.hex()
    return {"array": {"descr": descr, "shape": list(shape), "strides": strides, "offset": offset, "buffer": buffer}}


def one_of_each():
    yield call("no arguments")
    for value in None, False, True:
        yield call(f"{value}", value)
    boundaries = [0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1]
    for n in boundaries:
        yield call(f"integer {n}", integer(n))
    for n in boundaries[1:]:
        yield call(f"integer {-n}", integer(-n))
    for n in -24, -25, -256, -257, -65536, -65537, -(2**32), -(2**32) - 1, -(2**63) - 1, -(2**64) - 1, -(2**64) - 2:
        yield call(f"integer {n}", integer(n))
    for n in 2**72 - 1, 2**72, -(2**72), -(2**72) - 1, 10**40, -(10**40):
        yield call(f"integer {n}", integer(n))
    yield call("bigint 0 without a byte", bigint(False, ""))
    yield call("bigint -0", bigint(True, "00"))
    yield call("bigint 5 with zero bytes before it: the integer 5", bigint(False, "00" * 12 + "05"))
    yield call("bigint -5: the integer -5", bigint(True, "05"))
    yield call("bigint 2^64-1 with zero bytes before it", bigint(False, "00" * 3 + "ff" * 8))
    yield call("bigint -2^64 with zero bytes before it", bigint(True, "0001" + "00" * 8))
    yield call("integer of 300 bytes", bigint(False, generated(300)))
    yield call("integer of 1 MiB after a zero byte", bigint(False, generated(MIB + 1)))
    yield call("integer of 1 MiB + 1 bytes after a zero byte: a digest", bigint(False, generated(MIB + 2)))
    yield call("the same, negative", bigint(True, generated(MIB + 2)))


def floats():
    for x in 0.0, -0.0, 1.0, 1.5, 0.1, 1e300, 5e-324, float("inf"), float("-inf"):
        yield call(f"float64 {x}", float64(x))
    for bits in "7ff8000000000000", "fff8000000000000", "7ff8000000000001", "7ff0000000000001", "7fffffffffffffff":
        yield call(f"float64 NaN {bits}", {"float64": bits})
    for bits in "00000000", "80000000", "3fc00000", "00000001", "7fc00000", "7f800001", "ffc12345", "7f800000":
        yield call(f"float32 {bits}", {"float32": bits})
    for bits in "0000", "8000", "3e00", "0001", "7e00", "7c01", "fc00":
        yield call(f"float16 {bits}", {"float16": bits})
    yield call("complex64", {"complex64": ["3fc00000", "80000000"]})
    yield call("complex128", {"complex128": ["3ff8000000000000", "7ff8000000000001"]})
    yield call("complex128 as an array without dimensions", array("<c16", [], buffer=struct.pack("<dd", 1.5, -0.0)))


def texts():
    for s in (
        "",
        "a",
        "NUL \0 in the middle",
        "é",
        "e\u0301",
        "Ωμέγα",
        "\U0001f30d",
        "x" * 23,
        "x" * 24,
        "x" * 255,
        "x" * 256,
    ):
        yield call(f"text {s!a} of {len(s)} characters", text(s))
    yield call("text of 65,536 bytes", text(repeated("x", 65536)))
    yield call("text of exactly 1 MiB", text(repeated("é", MIB // 2)))
    yield call("text of 1 MiB + 1 bytes: a digest", text(repeated("x", MIB + 1)))
    yield call("text of 1 MiB + 2 bytes, fewer characters: a digest", text(repeated("é", MIB // 2 + 1)))
    for n in 0, 1, 23, 24, 256, 65535, 65536:
        yield call(f"{n} bytes", {"bytes": generated(n) if n > 24 else data_of(generated(n)).hex()})
    for n in MIB, MIB + 1, 2 * MIB, 2 * MIB + 1, 3 * MIB, 5 * MIB + 7:
        yield call(f"{n} bytes", {"bytes": generated(n)})
    yield call("text that looks like bytes", text("abc"))
    yield call("bytes of that text", {"bytes": "616263"})
    yield call("file without contents", {"file": ""})
    yield call("file", {"file": "616263"})
    yield call("file of exactly 1 MiB", {"file": generated(MIB)})
    yield call("file of 1 MiB + 1 bytes: a digest", {"file": generated(MIB + 1)})
    yield call("file of 4 MiB", {"file": generated(4 * MIB)})


def nesting():
    one, two = integer(1), integer(2)
    yield call("empty list", {"list": []})
    yield call("empty map", {"map": []})
    yield call("list", {"list": [one, two]})
    yield call("two arguments", one, two)
    yield call("list of 24", {"list": [None] * 24})
    yield call("24 arguments", *[None] * 24)
    yield call("256 arguments", *[False] * 256)
    keys = ["b", "aa", "", "a", "ab", "é", "z" * 23, "a" * 24, "B", "\U0001f30d", "z"]
    yield call("map whose keys sort by length first", {"map": [[k, integer(i)] for i, k in enumerate(keys)]})
    yield call("the same map, given backwards", {"map": [[k, integer(i)] for i, k in enumerate(keys)][::-1]})
    yield call("map of 24", {"map": [[f"k{i}", None] for i in range(24)]})
    inner = {"map": [["tol", float64(1e-6)], ["n", {"list": [one, {"map": [["x", None]]}]}]]}
    yield call("lists in maps in lists", {"list": [inner, {"list": [{"list": []}, {"map": []}]}, inner]})
    yield call("map in a map with keys of other lengths", {"map": [["outer", inner], ["o", inner]]})
    yield call("map with a key of 1 MiB", {"map": [[repeated("k", MIB), one], ["k", two]]})
    yield call("lists nested 64 deep", {"nested": {"depth": 64, "of": "list", "value": one}})
    yield call("maps nested 64 deep, by name", keyword=[["deep", {"nested": {"depth": 64, "of": "map", "value": one}}]])
    yield call("keywords", keyword=[["nu", float64(0.1)], ["steps", one]])
    yield call("the same keywords in another order", keyword=[["steps", one], ["nu", float64(0.1)]])
    yield call("positional and keywords", one, text("a"), keyword=[["nu", float64(0.1)], ["é", None], ["n", two]])
    yield call("the empty keyword", keyword=[["", one]])
    yield call("map in place of keywords", {"map": [["nu", float64(0.1)]]})
    yield call(
        "keyword with a map of arrays", keyword=[["m", {"map": [["bb", array("<f8", [2])], ["a", array("|b1", [1])]]}]]
    )


SIMPLE = [
    "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<f16", "<c8", "<c16", "<c32",
    ">i2", ">i4", ">i8", ">u2", ">u4", ">u8", ">f2", ">f4", ">f8", ">f16", ">c8", ">c16",
    "<U1", "<U10", ">U3", "|S1", "|S5", "|V1", "|V3", "<M8[ns]", ">M8[us]", "<M8[25s]", "<M8", "<m8[ns]", "<m8[D]",
    "<m8",
]  # fmt: skip

STRUCTURED = [
    "[('a', '<f4')]",
    "[('a', '<f4'), ('b', '<i8', (3,))]",
    "[('a', '>f4'), ('b', '|b1'), ('c', '|S4'), ('d', '<U2'), ('e', '<M8[ns]'), ('f', '<c16')]",
    "[('n', [('x', '>f4'), ('y', '|b1')]), ('z', '|i1')]",
    "[('n', [('x', '<f4'), ('m', [('y', '|i1')], (2,))], (3, 1)), ('z', '|V3')]",
    "[('a', '|i1'), ('', '|V7'), ('b', '<f8')]",
    "[('a', '<f8'), ('b', '|i1'), ('', '|V7')]",
    "[('größe', '<f8'), ('名前', '<U4')]",
    "[('with space', '<f8'), ('x.y', '<f4')]",
    "[('no\u00adbreak\u200b', '<f8')]",
    "[(('a title', 'name'), '<f8')]",
    "[('m', '<i4', (2, 3))]",
]


def element_types():
    for descr in SIMPLE + STRUCTURED:
        yield call(f"array of {descr}", array(descr, [2, 2]))
    for descr in ">f8", ">i4", "<U10", STRUCTURED[1], STRUCTURED[5]:
        itemsize = dtype_of(descr).itemsize
        yield call(f"transposed array of {descr}", array(descr, [3, 2], strides=[itemsize, 3 * itemsize]))
    yield call("bool bytes other than 0 and 1", array("|b1", [4], buffer="000102ff"))
    yield call("one structure, without dimensions", array(STRUCTURED[1], []))
    text_itemsize = MIB // 4 + 1
    yield call("one element of more than 1 MiB", array(f"<U{text_itemsize}", [1]))


def arrays():
    six = struct.pack("<6d", *range(6))
    yield call("empty array", array("<f8", [0]))
    yield call("array without dimensions", array("<f8", [], buffer=six[8:16]))
    yield call("array of one", array("<f8", [1], buffer=six[8:16]))
    yield call("float64 of the same bits", float64(1.0))
    yield call("no elements, but other dimensions", array("<f8", [3, 0, 5]))
    yield call("no elements, a huge dimension", array("<f8", [0, 2**32]))
    yield call("no elements of a descr type", array("<U10", [0, 2]))
    yield call("no elements, with strides", array("<i4", [2, 0], strides=[-100, 12]))
    yield call("C order", array("<f8", [2, 3], buffer=six))
    yield call("C order, strides given", array("<f8", [2, 3], [24, 8], buffer=six))
    yield call("C order in the other shape", array("<f8", [3, 2], buffer=six))
    fortran = struct.pack("<6d", 0, 3, 1, 4, 2, 5)
    yield call("the same in Fortran order", array("<f8", [2, 3], [8, 16], buffer=fortran))
    backwards = struct.pack("<6d", *range(5, -1, -1))
    yield call("the same, backwards in memory", array("<f8", [2, 3], [-24, -8], 40, backwards))
    gaps = struct.pack("<10d", 9, 0, 1, 2, 9, 9, 3, 4, 5, 9)
    yield call("the same with gaps between the rows", array("<f8", [2, 3], [40, 8], 8, gaps))
    yield call("every second of 11", array("<i2", [6], [4]))
    yield call("backwards", array("<i2", [6], [-2], 10))
    yield call("backwards in one of three dimensions", array("<f4", [2, 3, 4], [48, -16, 4], 32, generated(96)))
    yield call("axes in mixed order", array("|u1", [3, 4, 5], [5, 15, 1]))
    yield call("one element for all (strides 0)", array("<f8", [3, 4], [0, 0], buffer=six[8:16]))
    yield call("one row for all (stride 0)", array("<f8", [4, 3], [0, 8], buffer=six[:24]))
    yield call("overlapping windows", array("<i4", [5, 3], [4, 4]))
    yield call("strides that are no multiple of the element", array("<f8", [4], [9]))
    yield call("an offset that is no multiple of the element", array("<f8", [3], None, 3, generated(27)))
    yield call("32 dimensions", array("|u1", [1] * 27 + [2] * 5))
    yield call("32 dimensions, backwards", array("|u1", [2] * 5 + [1] * 27, [1, 2, 4, 8, 16] + [7] * 27))
    yield call("several arrays", array("<f8", [2], buffer=six[:16]), array("<f4", []), array("|b1", [2, 2]))


def long_items():
    yield call("array of exactly 1 MiB", array("<f8", [MIB // 8]))
    yield call("array of 1 MiB + 1 bytes", array("|u1", [MIB + 1]))
    yield call("array of 1 MiB + 1 bytes, every second of them", array("|u1", [MIB + 1], [2]))
    yield call("array of 1 MiB + 8 bytes, bool", array("|b1", [MIB + 8], buffer=generated(MIB + 8)))
    buffer = generated(3 * MIB)
    yield call("array of 3 MiB", array("<f8", [512, 768], buffer=buffer))
    yield call("array of 3 MiB, transposed", array("<f8", [512, 768], [8, 4096], buffer=buffer))
    yield call("array of 3 MiB, the same memory in its own order", array("<f8", [768, 512], buffer=buffer))
    yield call("array of 3 MiB, backwards", array("<f8", [512, 768], [-6144, -8], 3 * MIB - 8, buffer))
    yield call(
        "array of 3 MiB, three dimensions, mixed order", array("<f4", [64, 96, 128], [4, 32768, 256], buffer=buffer)
    )
    yield call("array of 3 MiB, elements of 3 bytes", array("|V3", [1024, 1024], [3, 3072], buffer=buffer))
    yield call("array of 3 MiB, complex", array("<c16", [384, 512], [16, 6144], buffer=buffer))
    structure = "[('x', '<f8'), ('label', '|S4')]"
    yield call("array of 3 MiB, structures", array(structure, [512, 512], [12, 6144], buffer=buffer))
    yield call("array of 3 MiB from one row (stride 0)", array("<f8", [384, 1024], [0, 8]))
    yield call("array of 4 MiB + 4, transposed, big-endian", array(">i4", [1025, 1023], [4, 4100]))
    yield call(
        "two that are long, one by name", {"bytes": buffer}, keyword=[["mesh", array("<f8", [393216], buffer=buffer)]]
    )
    parts = [{"bytes": generated(400_000, 2654435761 + 2 * i)} for i in range(3)]
    yield call("canonical bytes of more than 1 MiB from short items", *parts)
    # The call is h'82', the head of the array, the item, h'a0': bytes of n get a head of 5.
    yield call("canonical bytes of exactly 1 MiB", {"bytes": generated(MIB - 8)})
    yield call("canonical bytes of 1 MiB + 1", {"bytes": generated(MIB - 7)})


def ready_bytes():
    yield call("ready bytes, none", ready="")
    yield call("ready bytes, one", ready="00")
    yield call("ready bytes of the call without arguments", ready="8280a0")
    yield call("ready bytes of a call", ready="8282010282f5a0")
    yield call("ready bytes of exactly 1 MiB", ready=generated(MIB))
    yield call("ready bytes of 1 MiB + 1", ready=generated(MIB + 1))
    yield call("ready bytes of 7 MiB + 3: a tree whose last ones go up alone", ready=generated(7 * MIB + 3))
    for chunks in 2, 3, 4, 5, 6:
        yield call(f"ready bytes of {chunks} MiB", ready=generated(chunks * MIB))
    yield call("ready bytes with layout strict", ready="8280a0", layout="strict")


def identities():
    one = integer(1)
    build_id = "build-id:0123456789abcdef0123456789abcdef01234567"
    yield call("name with slashes", one, name="package/module.solve")
    yield call("name with dots and slashes", one, name="../solve//")
    yield call("name that is not ASCII", one, name="løs/Ω")
    yield call("name of one byte", one, name="f")
    yield call("name of 4,096 bytes", one, name="n" * 4096)
    yield call("version", one, version="1.2.3")
    yield call("version that is not ASCII", one, version="första")
    yield call("version from a build ID", one, version=build_id)
    yield call("name and version share no boundary", one, name="solve1", version="")
    yield call("name and version share no boundary, other way", one, name="solve", version="1")
    yield call("dependency", one, dependencies=[("blas", "openblas 0.3.21")])
    yield call("dependency that is empty", one, dependencies=[("", "")])
    yield call("dependency on an object", one, version=build_id, dependencies=[("object:libsolve.so.2", build_id)])
    yield call("dependency on the program", one, version=build_id, dependencies=[("object:", build_id)])
    unsorted = [("z", "1"), ("a", "2"), ("aa", "1"), ("é", "x"), ("B", ""), ("a", "1")]
    yield call("dependencies, unsorted", one, dependencies=unsorted)
    yield call("dependencies, sorted", one, dependencies=sorted(unsorted))
    yield call("dependencies, duplicated", one, dependencies=unsorted + unsorted[::-1])
    yield call("dependencies whose texts join to the same", one, dependencies=[("ab", "c")])
    yield call("dependencies whose texts join to the same, other way", one, dependencies=[("a", "bc")])
    yield call("dependency by arguments without any", dependencies=[("a", "b")], version="2")


def letters():
    c, f, s = array("<f8", [2, 3]), array("<f8", [2, 3], [8, 16]), array("<f8", [2, 3], [32, 8])

    def strict(description, *positional, **rest):
        return call("strict: " + description, *positional, layout="strict", **rest)

    yield strict("no arguments")
    yield strict("no array", integer(1))
    for name, value in ("C", c), ("F", f), ("gaps", s):
        yield strict(name, value)
    yield strict("all three", c, f, s, f)
    yield strict("without dimensions", array("<f8", []))
    yield strict("complex number", {"complex128": ["3ff0000000000000", "0000000000000000"]})
    yield strict("no elements, any strides", array("<f8", [2, 0], strides=[-100, 12]))
    yield strict("one element, any strides", array("<f8", [1, 1], [24, -7]))
    yield strict("dimensions of length 1, C", array("<f8", [2, 1, 3], [24, 999, 8]))
    yield strict("dimensions of length 1, F", array("<f8", [2, 1, 3], [8, -999, 16]))
    yield strict("one dimension is C, not F", array("<f8", [6]))
    yield strict("a column is C, not F", array("<f8", [1, 6], [48, 8]))
    yield strict("one dimension with gaps", array("<f8", [3], [16]))
    yield strict("one dimension backwards", array("<f8", [3], [-8], 16))
    yield strict("stride 0", array("<f8", [3], [0]))
    yield strict("stride 0 of length 1", array("<f8", [1, 3], [0, 8]))
    yield strict("Fortran order of a descr type", array("<U3", [2, 2], [12, 24]))
    yield strict("in a map, in the order of its encoding", {"map": [["bb", c], ["a", f], ["ccc", s]]})
    yield strict("by name, in the order of their encoding", s, keyword=[["bb", c], ["a", f]])
    yield strict("in lists in maps", {"list": [{"map": [["y", f], ["x", {"list": [s, c]}]]}, f]})
    yield strict("3 MiB, Fortran order", array("<f8", [512, 768], [8, 4096]))
    around = [("layouts", "1"), ("layou", "2"), ("a", "3"), ("z", "4")]
    yield strict("dependencies that sort around it", f, dependencies=around)
    yield strict("a dependency of the same name that sorts before", f, dependencies=[("layout", "E")])
    yield strict("a dependency of the same name that sorts after", f, dependencies=[("layout", "G")])
    yield strict("a dependency equal to it", f, dependencies=[("layout", "F")])
    yield call("not strict, with that dependency", f, dependencies=[("layout", "F")])


def calls():
    for group in (
        one_of_each,
        floats,
        texts,
        nesting,
        element_types,
        arrays,
        long_items,
        ready_bytes,
        identities,
        letters,
    ):
        yield from group()


# ------------------------------------------------------------------------------------------------------------- the file


def shown(canonical):
    if len(canonical) <= SHOWN:
        return canonical.hex()
    return {"length": len(canonical), "sha256": hashlib.sha256(canonical).hexdigest()}


def make():
    """The text of keys.json."""
    vectors = []
    with tempfile.TemporaryDirectory() as directory:
        for vector in calls():
            canonical, letters, key = solve(vector, directory)
            vector["canonical"] = shown(canonical)
            if letters is not None:
                vector["layouts"] = letters
            vector["key"] = key
            vectors.append(vector)
    lines = ",\n".join(json.dumps(vector, ensure_ascii=True) for vector in vectors)
    notation = json.dumps(NOTATION, indent=1)
    return f'{{"notation": {notation},\n"vectors": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(make())
