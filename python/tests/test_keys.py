"""One call has one key: the golden vectors of docs/keys.md, for the calls that Python can express."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import npcache
from npcache._arguments import encode_call, lower

VECTORS = json.loads((Path(__file__).parents[2] / "tests" / "vectors" / "keys.json").read_text())["vectors"]


def expressible(vector):
    """Not arguments as ready bytes, and `depends` has each name once."""
    names = [name for name, _ in vector["dependencies"]]
    return "ready" not in vector["arguments"] and len(names) == len(set(names))


CALLS = [pytest.param(vector, id=vector["description"]) for vector in VECTORS if expressible(vector)]
SHORT = [p for p in CALLS if not p.values[0]["arguments"]["keyword"] and p.values[0]["layout"] == "equal"]


def data_of(data):
    if isinstance(data, str):
        return bytes.fromhex(data)
    i = np.arange(data["length"], dtype=np.uint64)
    out = ((i * np.uint64(data["multiply"]) & np.uint64(0xFFFFFFFF)) >> np.uint64(24)).astype("u1")
    if "flip" in data:
        out[data["flip"]] ^= 1
    return out.tobytes()


def text_of(text):
    return text if isinstance(text, str) else text["repeat"] * text["times"]


def value_of(value, directory):
    if value is None or isinstance(value, bool):
        return value
    ((kind, inner),) = value.items()
    if kind == "int":
        return int(inner)
    if kind == "bigint":
        magnitude = int.from_bytes(data_of(inner["magnitude"]), "big")
        return -magnitude if inner["negative"] else magnitude
    if kind == "float64":
        return struct.unpack(">d", bytes.fromhex(inner))[0]
    if kind in ("float16", "float32"):
        return np.frombuffer(bytes.fromhex(inner)[::-1], kind)[0]
    if kind in ("complex64", "complex128"):
        return np.frombuffer(b"".join(bytes.fromhex(part)[::-1] for part in inner), kind)[0]
    if kind == "text":
        return text_of(inner)
    if kind == "bytes":
        return data_of(inner)
    if kind == "list":
        return [value_of(item, directory) for item in inner]
    if kind == "map":
        return {text_of(name): value_of(item, directory) for name, item in inner}
    if kind == "nested":
        nested = value_of(inner["value"], directory)
        for _ in range(inner["depth"]):
            nested = [nested] if inner["of"] == "list" else {"k": nested}
        return nested
    if kind == "file":
        path = directory / "file"
        path.write_bytes(data_of(inner))
        return npcache.File(path)
    assert kind == "array", kind
    descr = inner["descr"]
    dtype = np.lib.format.descr_to_dtype(eval(descr) if descr.startswith("[") else descr)
    buffer = np.frombuffer(data_of(inner["buffer"]) or b"\0" * 8, "u1")
    return np.ndarray(inner["shape"], dtype, buffer, inner["offset"], inner["strides"])


def call_of(vector, directory):
    arguments = vector["arguments"]
    positional = [value_of(value, directory) for value in arguments["positional"]]
    return positional, {text_of(name): value_of(value, directory) for name, value in arguments["keyword"]}


def function_of(cache, vector):
    def any_call(*args, **kwargs):
        raise AssertionError("computes nothing")

    return cache.memoize(
        any_call,
        name=vector["name"],
        version=vector["version"],
        depends=dict(vector["dependencies"]),
        layout=vector["layout"],
    )


@pytest.mark.parametrize("vector", CALLS)
def test_the_key_is_that_of_every_other_language(vector, tmp_path, cache):
    args, kwargs = call_of(vector, tmp_path)
    assert function_of(cache, vector).key(*args, **kwargs) == vector["key"]


def test_nearly_all_vectors_are_calls_that_python_can_express():
    assert len(CALLS) > 290


@pytest.mark.parametrize("vector", SHORT)
def test_the_short_way_makes_the_same_bytes(vector, tmp_path, cache):
    """What __call__ looks up by the fast path is what `key` tells."""
    args, _ = call_of(vector, tmp_path)
    names = ", ".join(f"x{i}" for i in range(len(args)))
    namespace = {}
    exec(f"def call({names}): raise AssertionError", namespace)
    function = cache.memoize(
        namespace["call"], name=vector["name"], version=vector["version"], depends=dict(vector["dependencies"])
    )
    assert function.key(*args) == vector["key"]
    before, types, after = function._parameters.frames[len(args)]
    fast = [types.get(type(value)) for value in args]
    if None in fast:  # goes the long way
        return
    canonical = vector["canonical"]
    try:
        data = before + b"".join(encode(value) for encode, value in zip(fast, args)) + after
    except npcache._arguments.TooLarge:
        assert isinstance(canonical, dict) or len(canonical) < 4096
        return
    if isinstance(canonical, str):
        assert data.hex() == canonical
    else:
        assert len(data) == canonical["length"]


@pytest.mark.parametrize("value", [np.float16(1.5), np.float32(0.1), np.float64("nan"), 1 << 70, "é", b"\0", None])
def test_the_library_and_python_encode_alike(value, cache):
    """Beside a long array the library's builder encodes, else this package."""
    large = np.zeros(1 << 18)

    def f(*args):
        return 0

    builder = npcache._arguments.arguments_from_call([lower(value)], {}, builder=True)
    python = npcache._arguments.arguments_from_bytes(encode_call([lower(value)], {}))
    handle = cache.memoize(f, name="f", version="")._adopt(("", ()))
    keys = []
    for arguments in (builder, python):
        key = npcache._cache.ctypes.create_string_buffer(65)
        npcache._library.check(npcache._library.library.function_key, handle.function, arguments, key)
        npcache._library.library.args_free(arguments)
        keys.append(key.value)
    assert keys[0] == keys[1]
    assert large.nbytes > 1 << 20
