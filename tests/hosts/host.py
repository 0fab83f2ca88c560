"""The Python host of test_hosts.py, with the package `npcache`: keeps what cached functions return, and finds it.

    host.py CACHE

A line `compute VECTOR DTYPE SHAPE ORDER DATA` on standard input makes the call of that golden vector by a function that
returns such an array; `ask VECTOR` by one that must not be called. The answer is a line, `VECTOR computed|found DTYPE
SHAPE ORDER BYTES`, where the bytes are those in memory; or `VECTOR cannot` where Python has no such call.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ["NPCACHE_LIBRARY"] = str(ROOT / "target" / "release" / "libnpcache.so")
sys.path[:0] = [str(ROOT / "python" / "src"), str(ROOT / "tests")]

import make_vectors  # noqa: E402
import npcache  # noqa: E402
import numpy as np  # noqa: E402

ELEMENTS = "|b1 |i1 <i2 <i4 <i8 |u1 <u2 <u4 <u8 <f2 <f4 <f8 <c8 <c16".split()

make_vectors.reference.File = npcache.File
vectors = json.loads(make_vectors.PATH.read_text())["vectors"]
cache = npcache.Cache(sys.argv[1])


def made(dtype, shape, order, data):
    """The array that `compute` describes; a scalar where it has no dimensions."""
    dtype, shape = np.dtype(ELEMENTS[int(dtype) - 1]), [int(n) for n in shape.split(",") if n != "-"]
    return np.frombuffer(bytes.fromhex(data.strip("-")), dtype).reshape(shape, order=order.upper())[()]


def answer(vector, result):
    if "ready" in vector["arguments"]:
        return "cannot"  # no bytes in place of arguments
    dependencies = dict(vector["dependencies"])
    if len(dependencies) != len(vector["dependencies"]):
        return "cannot"  # each name has one value
    called = False

    def function(*args, **kwargs):
        nonlocal called
        called = True
        return made(*result)

    cached = cache.memoize(
        function, name=vector["name"], version=vector["version"], depends=dependencies, layout=vector["layout"]
    )
    with tempfile.TemporaryDirectory() as directory:
        args, kwargs = make_vectors.call_of(vector["arguments"], directory)
        array = np.asarray(cached(*args, **kwargs))
    order = "f" if array.flags.fnc else "c"
    shape = ",".join(map(str, array.shape)) or "-"
    dtype = ELEMENTS.index(array.dtype.str) + 1
    return f"{'computed' if called else 'found'} {dtype} {shape} {order} {array.tobytes(order.upper()).hex() or '-'}"


for line in sys.stdin:
    _, number, *result = line.split()
    print(number, answer(vectors[int(number)], result), flush=True)
