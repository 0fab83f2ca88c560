"""What a stored result is to numpy: every element type, order and shape, read bit for bit by `numpy.load` and by the
library in another process."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import driver
import numpy as np
import pytest
from driver import COMPUTED, DISK, Cache

PLAIN = [np.dtype(name) for name in driver.DTYPES]
BY_DESCR = [
    np.dtype(descr)
    for descr in [
        *(">f4", ">f8", ">i2", ">u8", ">c16", "<f16", "<c32", "<U10", ">U3", "|S5", "|V7"),
        *("<M8[ns]", ">M8[D]", "<m8[25s]", "<M8"),
        [("x", "<f8"), ("label", "|S4")],
        [("outer", [("inner", ">i4"), ("deep", [("flag", "|b1")])]), ("tail", "<c8")],
        [("matrix", "<f4", (2, 3)), ("points", [("xy", "<i2", (2,))], (4,))],
        [(("a title", "name"), "<f8"), ("größe µ 量", "<u2")],
    ]
]

# By the bytes of their elements: read at once, read in two steps, mapped.
SIZES = {"small": 1 << 10, "medium": 60_000, "mapped": 300_000}

READ = """
import pickle, sys
from driver import Cache
with Cache(sys.argv[1]) as cache:
    found = {}
    for name in pickle.load(sys.stdin.buffer):
        result = cache.call(name, "1", b"", lambda: 1 / 0)
        arrays = [(array.tobytes(), array.dtype, array.shape, array.strides) for array in result.arrays]
        found[name] = arrays, result.origin
pickle.dump(found, sys.stdout.buffer)
"""


def filled(dtype, shape, order="C"):
    """An array of every kind of bit pattern, NaNs of all payloads among them; the same for the same arguments."""
    seed = sum(str(dtype).encode()) + len(shape) * 1000
    nbytes = dtype.itemsize * int(np.prod(shape))
    memory = np.frombuffer(np.random.default_rng(seed).bytes(nbytes + dtype.itemsize), np.uint8)
    if dtype == np.bool_:
        memory = memory & 1
    elif dtype.kind == "U":  # not every 4 bytes are a character
        memory = (memory.astype(np.uint32) + 200).astype(dtype.byteorder + "u4").view(np.uint8)
    return np.ndarray(shape, dtype, memory.tobytes(), order=order)


def bits(array):
    return array.tobytes(), array.dtype, array.shape


def store(cache, arrays):
    """Stores each of `arrays`, a dict, under its name, and checks what the caller that computed is given."""
    stored = {}
    for name, array in arrays.items():
        result = cache.call(name, "1", b"", lambda array=array: array)
        assert (result.origin, result.stored) == (COMPUTED, 0), name
        assert bits(result.array) == bits(array), name
        stored[name] = result
    return stored


def read_by_another_process(path, names):
    command = [sys.executable, "-c", READ, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(driver.__file__).parent)}
    done = subprocess.run(command, input=pickle.dumps(list(names)), stdout=subprocess.PIPE, env=environment, check=True)
    return pickle.loads(done.stdout)


def check_everywhere(path, arrays, stored):
    """numpy.load, plain and mapped, and another process's library, find the bits that were stored."""
    found = read_by_another_process(path, arrays)
    for name, array in arrays.items():
        for mmap_mode in (None, "r"):
            if mmap_mode and array.size == 0:
                continue  # numpy refuses to map nothing
            loaded = np.load(stored[name].path, mmap_mode=mmap_mode)
            assert bits(loaded) == bits(array), (name, mmap_mode)
            assert loaded.flags.c_contiguous == array.flags.c_contiguous, (name, mmap_mode)
        [(data, dtype, shape, strides)], origin = found[name]
        assert (data, dtype, shape) == bits(array) and origin == DISK, name
        assert array.size == 0 or strides == array.strides, name


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", SIZES)
def test_every_dtype_is_read_bit_for_bit(cache_path, size, order):
    arrays = {}
    for i, dtype in enumerate(PLAIN + BY_DESCR):
        arrays[f"dtype {i}"] = filled(dtype, (3, SIZES[size] // 3 // dtype.itemsize + 1), order)
    with Cache(cache_path) as cache:
        stored = store(cache, arrays)
    lengths = [result.path.stat().st_size for result in stored.values()]
    assert {"small": 0, "medium": 8 << 10, "mapped": 256 << 10}[size] < min(lengths)
    assert max(lengths) < {"small": 8 << 10, "medium": 256 << 10, "mapped": 1 << 20}[size]
    check_everywhere(cache_path, arrays, stored)


def test_every_shape_is_read_bit_for_bit(cache_path):
    double, text = np.dtype("<f8"), np.dtype("<U3")
    shapes = [(), (0,), (1,), (0, 3), (3, 0, 2), (2, 3, 4), (1,) * 32, (2,) * 10 + (1,) * 22, (0,) * 32]
    arrays = {
        f"{dtype} {shape} {order}": filled(dtype, shape, order)
        for shape in shapes
        for order in "CF"
        for dtype in (double, text)
    }
    with Cache(cache_path) as cache:
        stored = store(cache, arrays)
    check_everywhere(cache_path, arrays, stored)


def test_views_with_any_strides_are_stored_whole(cache_path):
    whole = filled(np.dtype("<i4"), (6, 8, 10))
    views = [whole[::2, ::-1, 3:], whole.T, whole.transpose(1, 0, 2), whole[:, :, 0]]
    views.append(np.broadcast_to(whole[0, 0], (5, 10)))
    with Cache(cache_path) as cache:
        for i, view in enumerate(views):
            result = cache.call(f"view {i}", "1", b"", lambda view=view: view)
            assert bits(result.array) == bits(view) and bits(np.load(result.path)) == bits(view)
            # Fortran order is kept, every other is stored in C order.
            assert result.array.flags.f_contiguous == (i == 1)


def test_arrays_filled_in_place_are_zeroed_aligned_and_stored(cache_path):
    dtypes = PLAIN + BY_DESCR
    with Cache(cache_path) as cache:
        output = cache.begin("in place", "1")
        for i, dtype in enumerate(dtypes):
            place = output.alloc((5, 7), dtype, "CF"[i % 2], f"array {i}")
            assert place.ctypes.data % 64 == 0 and not any(place.tobytes())
            place[...] = filled(dtype, (5, 7))
        output.commit()
        result = output.end()
        assert result.names == [f"array {i}" for i in range(len(dtypes))]
        with open(result.path, "rb") as file:
            for dtype, array in zip(dtypes, result.arrays, strict=True):
                assert array.ctypes.data % 64 == 0
                assert bits(np.load(file)) == bits(array) == bits(filled(dtype, (5, 7)))


def test_padding_within_elements_keeps_its_place(cache_path):
    padded = np.dtype([("a", "i1"), ("b", "f8"), ("c", "i2")], align=True)
    array = np.array([(i, i / 3, -i) for i in range(100)], padded)
    assert padded.itemsize == 24
    with Cache(cache_path) as cache:
        result = cache.call("padded", "1", b"", lambda: array)
    for found in (result.array, np.load(result.path), np.load(result.path, mmap_mode="r")):
        # What is in the padding is nobody's business, also numpy's.
        assert found.dtype == padded and (found == array).all()


def read_footer(footer, count):
    """The array names and the metadata, from a footer's bytes as docs/format.md draws them."""
    tail = footer[-192:].tobytes()
    names_len, metadata_len = int.from_bytes(tail[36:40], "little"), int.from_bytes(tail[40:48], "little")
    body = footer[:-192].tobytes()
    assert tail[:8] == b"\x93NPCACHE" and len(body) == names_len + metadata_len
    names, rest = [], body[:names_len]
    for _ in range(count):
        n = int.from_bytes(rest[:2], "little")
        names.append(rest[2 : 2 + n].decode())
        rest = rest[2 + n :]
    assert rest == b""
    return names, json.loads(body[names_len:]), tail


@pytest.mark.parametrize("length", [10, 5_000, 50_000])
def test_a_result_of_three_arrays_is_numpy_loads_one_after_the_other(cache_path, length):
    arrays = {
        "": filled(np.dtype("<f8"), (length,)),
        "größe": filled(np.dtype(">i2"), (2, length), "F"),
        "empty": filled(np.dtype("<U10"), (0, 3)),
    }
    with Cache(cache_path) as cache:
        output = cache.begin("three", "version 7", b"\x01\x02")
        for name, array in arrays.items():
            output.write(array, name)
        output.note("library", "1.2.3")
        output.note("library", "1.2.4")
        output.note("quoted \"µ\"\n", "\\")
        time.sleep(0.05)
        output.commit()
        result = output.end()
        assert result.stored == 0 and result.names == [None, "größe", "empty"]
    with Cache(cache_path) as cache:
        again = cache.call("three", "version 7", b"\x01\x02", lambda: 1 / 0)
    assert again.names == result.names
    # These outlive the cache.
    for array, ours, theirs in zip(arrays.values(), result.arrays, again.arrays, strict=True):
        assert bits(array) == bits(ours) == bits(theirs)
    assert bits(np.load(result.path)) == bits(arrays[""])
    assert bits(np.load(result.path, mmap_mode="r")) == bits(arrays[""])
    with open(result.path, "rb") as file:
        for array in arrays.values():
            assert bits(np.load(file)) == bits(array)
            assert file.tell() % 64 == 0 or array.nbytes % 64 != 0
        footer = np.load(file)
        assert footer.dtype == np.uint8 and footer.ndim == 1
        assert file.read() == b""
        assert file.tell() == result.path.stat().st_size
    names, metadata, tail = read_footer(footer, 3)
    assert names == list(arrays)
    assert (metadata["name"], metadata["version"]) == ("three", "version 7")
    assert metadata["notes"] == {"library": "1.2.4", "quoted \"µ\"\n": "\\"}
    assert 0.05 <= metadata["compute_seconds"] < 5
    assert abs(metadata["created"] - time.time()) < 60
    assert metadata["arguments"] == {"bytes": "0102"}
    assert tail[48:80].hex() == result.path.stem
    found = result.path.stat()
    assert int.from_bytes(tail[80:88], "little") == found.st_ino
    assert int.from_bytes(tail[88:96], "little") == found.st_mtime_ns
    assert tail[96:112].hex() == Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert int.from_bytes(tail[144:152], "little") / 1e9 == pytest.approx(metadata["compute_seconds"])
    assert tail[152:184] == bytes(32)
    assert found.st_mode & 0o222 == 0


def test_results_are_read_only_and_keep_their_memory(cache_path):
    for length in (100, 5_000, 50_000):
        data = filled(np.dtype("<f8"), (length,))
        for _ in range(2):
            with Cache(cache_path) as cache:
                array = cache.call("kept", "1", str(length).encode(), lambda data=data: data).array
                cache.clear()
            assert bits(array[::-1]) == bits(data[::-1])
            with pytest.raises(ValueError):
                array[0] = 1
            with pytest.raises(ValueError):
                array.flags.writeable = True
            with Cache(cache_path) as cache:
                cache.call("kept", "1", str(length).encode(), lambda data=data: data)


def test_what_numpy_cannot_read_is_refused(cache_path):
    with Cache(cache_path) as cache:
        for descr, shape, words in [
            ("|O", (1,), "object"),
            ("<f8", (1,) * 33, "33"),
            ("<f8", (-1,), "negative"),
            ("<f8", (1 << 40, 1 << 40), "too large"),
            ("<f8", (0, 1 << 40, 1 << 40), "too large"),
            ("[('x', '|O')]", (1,), "object"),
            ("[('x\\'', '<f8')]", (1,), "quotes"),
        ]:
            output = cache.begin("refused", "1")
            arguments = (None, descr.encode(), len(shape), driver._numbers(shape), 0)
            address = driver.library.npcache_output_alloc_descr(output._output, *arguments)
            assert address is None
            output.commit()
            with pytest.raises(driver.Error, match=words):
                output.end()
