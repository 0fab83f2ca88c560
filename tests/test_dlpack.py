"""Results as DLPack tensors, taken by numpy without a copy."""

import ctypes

import numpy
import pytest

from conftest import LIBRARY

P = ctypes.c_void_p
lib = ctypes.CDLL(str(LIBRARY))
lib.npcache_output_alloc.restype = P
lib.npcache_output_alloc.argtypes = [P, P, ctypes.c_int32, ctypes.c_int32, P, ctypes.c_uint32]
lib.npcache_buffer_data.restype = P
lib.npcache_error_message.restype = ctypes.c_char_p

capsule_new = ctypes.pythonapi.PyCapsule_New
capsule_new.restype = ctypes.py_object
capsule_new.argtypes = [P, ctypes.c_char_p, P]

DTYPES = {1: "?", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 6: "u1", 7: "u2", 8: "u4", 9: "u8"}
DTYPES |= {10: "f2", 11: "f4", 12: "f8", 13: "c8", 14: "c16"}


def new(create, *args):
    out = P()
    assert create(*args, ctypes.byref(out), None) == 0
    return out


class Tensor:
    """What numpy.from_dlpack asks: the i-th array of a result."""

    def __init__(self, buffer, i=0):
        self.pointer = new(lib.npcache_buffer_to_dlpack, buffer, ctypes.c_int32(i))

    def __dlpack__(self, **_):
        return capsule_new(self.pointer, b"dltensor_versioned", None)

    def __dlpack_device__(self):
        return (1, 0)


def result(cache_path, dtype, shape, flags, descr=None):
    """A result of one array, of bytes 0, 1, 2, …"""
    cache = new(lib.npcache_new, bytes(cache_path), None)
    function = new(lib.npcache_function_new, cache, b"f", b"")
    hit, todo = P(), P()
    wait = ctypes.c_int64(-1)
    assert lib.npcache_begin(function, None, wait, ctypes.byref(hit), ctypes.byref(todo), None) == 0
    dims = (ctypes.c_int64 * len(shape))(*shape)
    if descr:
        lib.npcache_output_alloc_descr.restype = P
        lib.npcache_output_alloc_descr(todo, None, descr, len(shape), dims, flags)
    else:
        memory = lib.npcache_output_alloc(todo, None, dtype, len(shape), dims, flags)
        nbytes = numpy.dtype(DTYPES[dtype]).itemsize * int(numpy.prod(shape))
        ctypes.memmove(memory, bytes(i % 2 for i in range(nbytes)), nbytes)
    assert lib.npcache_output_commit(todo) == 0
    buffer = new(lib.npcache_end, todo)
    lib.npcache_function_free(function)
    lib.npcache_free(cache)
    return buffer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_takes_every_dtype_and_order_without_a_copy(cache_path, dtype, order):
    buffer = result(cache_path, dtype, (2, 3), int(order == "F"))
    array = numpy.from_dlpack(Tensor(buffer))
    data = lib.npcache_buffer_data(buffer, 0, dtype, None)
    expected = numpy.frombuffer(bytes(i % 2 for i in range(array.nbytes)), DTYPES[dtype]).reshape((2, 3), order=order)
    assert array.__array_interface__["data"] == (data, True), "the same memory, read-only"
    assert array.dtype == expected.dtype and array.strides == expected.strides
    assert array.tobytes("A") == expected.tobytes("A")


def test_the_array_outlives_the_buffer_and_the_file(cache_path):
    buffer = result(cache_path, 12, (1000, 1000), 0)
    array = numpy.from_dlpack(Tensor(buffer))
    before = array.copy()
    lib.npcache_buffer_release(buffer)
    for entry in cache_path.rglob("*.npy"):
        entry.unlink()
    assert numpy.array_equal(array, before)


def test_a_writable_result_is_writable_and_nobody_elses(cache_path):
    buffer = result(cache_path, 12, (100, 1000), 0)
    array = numpy.from_dlpack(Tensor(new(lib.npcache_buffer_writable, buffer)))
    array[0, 0] = 42
    assert numpy.from_dlpack(Tensor(buffer))[0, 0] != 42


def test_an_element_type_that_dlpack_has_not_is_refused(cache_path):
    buffer = result(cache_path, 0, (2,), 0, descr=b"<M8[ns]")
    out, error = P(), P()
    assert lib.npcache_buffer_to_dlpack(buffer, 0, ctypes.byref(out), ctypes.byref(error)) == -8
    assert out.value is None and b"<M8[ns]" in lib.npcache_error_message(error)
    lib.npcache_error_free(error)
