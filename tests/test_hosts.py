"""One directory for all languages: what one host computes, every other finds, by calls of its own.

The calls are the golden vectors. A host takes them through its own interface, with its own values: `memoize` in C++ and
Python, `cached` in Julia, the builders of C, Fortran and Rust. The programs are in tests/hosts, tests/c/keys.c and
npcache-core/examples/host.rs; what they read and answer is told in tests/hosts/host.py. Those of C and Fortran read the
script of test_keys.py before it; that of C++ is written here, since its types have to be known when it is compiled.
"""

import functools
import json
import os
import subprocess
import sys

import make_vectors
import numpy as np
from conftest import BUILT, LIBRARY, ROOT, compile_program, need_tool
from test_keys import arguments_script, function_script, keys_program, word

HOSTS = ROOT / "tests" / "hosts"
VECTORS = json.loads(make_vectors.PATH.read_text())["vectors"]

# Of each host, how many of the vectors are no calls of its own, and what it lacks.
CANNOT = {
    "c": (0, "nothing"),
    "c++": (102, "ready bytes, integers over 64 bits, float16, and of arrays: elements of types that numpy alone has, bytes "
               "that are no bool, and strides that are no multiple of an element"),
    "fortran": (101, "integers from 2^63 on, elements without a number in npcache.h, and where the layout counts, arrays"),
    "julia": (108, "ready bytes, dependencies by name, a layout that counts, elements of types that numpy alone has, and "
                   "types of a depth that takes minutes to compile for"),
    "python": (16, "ready bytes, and two dependencies of one name"),
    "rust": (0, "nothing"),
}  # fmt: skip

ELEMENTS = "|b1 |i1 <i2 <i4 <i8 |u1 <u2 <u4 <u8 <f2 <f4 <f8 <c8 <c16".split()
SHAPES = ["-", "5", "2,3", "3,2,2", "0"]


def result_of(number):
    """`dtype shape order data` of a result: every type, in either order, of any bits."""
    dtype, shape = number % len(ELEMENTS), SHAPES[number % len(SHAPES)]
    size = np.prod([int(n) for n in shape.split(",") if n != "-"], dtype=int)
    length = int(size) * np.dtype(ELEMENTS[dtype]).itemsize
    data = make_vectors.data_of({"multiply": 2654435761 + 2 * number, "length": length})
    if ELEMENTS[dtype] == "|b1":
        data = bytes(byte & 1 for byte in data)
    order = "f" if number % 3 == 0 and "," in shape else "c"
    return f"{dtype + 1} {shape} {order} {data.hex() or '-'}"


# ------------------------------------------------------------------------------------------------------------- the hosts


class Host:
    """A running program. Each question is answered before the next."""

    def __init__(self, command, script=None):
        self._script = script
        paths = {} if command[0] == julia() else {"LD_LIBRARY_PATH": str(LIBRARY.parent)}
        environment = {**os.environ, "NPCACHE_LIBRARY": str(LIBRARY), **paths}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(list(map(str, command)), env=environment, **pipes)

    def answer(self, operation, number, result=""):
        lines = self._script(VECTORS[number]) if self._script else []
        for line in [*lines, f"{operation} {number} {result}".rstrip()]:
            self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answered = self._process.stdout.readline().split(" ", 1)
        assert answered[0] == str(number), f"{VECTORS[number]['description']}: {answered}"
        return answered[1].strip().lower()  # Fortran's digits are capital

    def end(self):
        self._process.stdin.close()
        assert self._process.wait(60) == 0


@functools.cache
def julia():
    return subprocess.run([ROOT / "tests" / "get_julia.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@functools.cache
def rust_host():
    """Built beside the Rust tests, which have all that it needs."""
    command = ["cargo", "build", "--quiet", "--message-format=json", "-p", "npcache-core", "--example", "host"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, built.stdout.splitlines())
    (path,) = (message["executable"] for message in messages if message.get("executable"))
    return path


@functools.cache
def fortran_host():
    program = BUILT / "host-f90"
    BUILT.mkdir(parents=True, exist_ok=True)
    sources = [ROOT / "include" / "npcache.f90", HOSTS / "host.f90"]
    # It takes an allocatable result for one that may not be allocated.
    flags = ["-std=f2008", "-Wall", "-Wextra", "-Wpedantic", "-Wno-maybe-uninitialized", "-Werror", "-fcheck=all"]
    paths = ["-J", BUILT, f"-L{LIBRARY.parent}", "-Wl,--build-id", "-lnpcache"]
    subprocess.run([need_tool("gfortran", "gfortran"), *flags, *sources, "-o", program, *paths], check=True)
    return program


def start(host, path, directory):
    """A running host, whose cache is the directory `path`."""

    def script(vector):
        return [f"cache {word(str(path))}", *function_script(vector), *arguments_script(vector["arguments"], directory)]

    match host:
        case "c":
            return Host([keys_program()], script)
        case "c++":
            return Host([cpp_host(directory), path])
        case "fortran":
            return Host([fortran_host()], script)
        case "julia":
            project = f"--project={ROOT / 'julia' / 'NPCache'}"
            # Each vector has other types: to compile for each would take longer than to run them.
            return Host([julia(), project, "--startup-file=no", "-O0", HOSTS / "host.jl", path])
        case "python":
            return Host([sys.executable, HOSTS / "host.py", path])
        case "rust":
            return Host([rust_host(), path])


# ------------------------------------------------------------------------------------------------------ the calls in C++

CPP_TYPES = {
    "|b1": "bool", "|i1": "std::int8_t", "<i2": "std::int16_t", "<i4": "std::int32_t", "<i8": "std::int64_t",
    "|u1": "std::uint8_t", "<u2": "std::uint16_t", "<u4": "std::uint32_t", "<u8": "std::uint64_t",
    "<f4": "float", "<f8": "double", "<c8": "std::complex<float>", "<c16": "std::complex<double>",
}  # fmt: skip


class CannotError(Exception):
    """C++ has no such value."""


def cpp_data(data):
    """Data of the notation as an expression."""
    if isinstance(data, str):
        return f'digits("{data}")'
    return f"generated({data['multiply']}U, {data['length']})"


def cpp_text(text):
    if isinstance(text, dict):
        return f"repeated({cpp_text(text['repeat'])}, {text['times']})"
    return f'"{text}"s' if text.isascii() and text.isprintable() else f'digits("{text.encode().hex()}")'


def cpp_integer(n):
    if not -(2**63) <= n < 2**64:
        raise CannotError
    return f"std::uint64_t({n}U)" if n >= 2**63 else f"std::int64_t({n + 1} - 1)" if n < 0 else f"std::int64_t({n})"


def cpp_map(pairs, directory):
    return ", ".join(f"{cpp_text(name)}, {cpp_value(item, directory)}" for name, item in pairs)


def cpp_array(array):
    kind, shape, strides = CPP_TYPES.get(array["descr"]), array["shape"], array["strides"]
    itemsize = make_vectors.dtype_of(array["descr"]).itemsize
    if kind is None or any(n % itemsize for n in [array["offset"], *(strides or [])]):
        raise CannotError
    if kind == "bool" and any(byte > 1 for byte in make_vectors.data_of(array["buffer"])):
        raise CannotError
    data = cpp_data(array["buffer"])
    if len(shape) == 1 and strides is None and array["offset"] == 0:
        return f"row<{kind}>({data})"
    strides = [itemsize * int(np.prod(shape[i + 1 :])) for i in range(len(shape))] if strides is None else strides
    lists = [", ".join(map(str, numbers)) for numbers in (shape, [n // itemsize for n in strides])]
    return f"strided<{kind}, {len(shape)}>({data}, {{{lists[0]}}}, {{{lists[1]}}}, {array['offset'] // itemsize})"


def cpp_value(value, directory):
    """The expression for a value; CannotError where C++ has none."""
    if value is None or isinstance(value, bool):
        return {None: "std::nullopt", True: "true", False: "false"}[value]
    ((kind, inner),) = value.items()
    match kind:
        case "int" | "bigint":
            return cpp_integer(make_vectors.value_of(value, directory))
        case "float32" | "float64":
            return f"of_bits<{'double' if kind == 'float64' else 'float'}>(std::uint{kind[5:]}_t(0x{inner}U))"
        case "complex64" | "complex128":
            part = "float32" if kind == "complex64" else "float64"
            real, imaginary = (cpp_value({part: bits}, directory) for bits in inner)
            return f"std::complex({real}, {imaginary})"
        case "text":
            return cpp_text(inner)
        case "bytes":
            return f"bytes({cpp_data(inner)})"
        case "file":
            return f"npcache::file{{{cpp_text(str(make_vectors.value_of(value, directory).path))}}}"
        case "list":
            return f"std::make_tuple({', '.join(cpp_value(item, directory) for item in inner)})"
        case "map":
            return f"npcache::fields({cpp_map(inner, directory)})"
        case "nested":
            opening = "std::make_tuple(" if inner["of"] == "list" else 'npcache::fields("k"s, '
            return opening * inner["depth"] + cpp_value(inner["value"], directory) + ")" * inner["depth"]
        case "array":
            return cpp_array(inner)
    raise CannotError


def cpp_call(vector, directory):
    """The statement that makes a vector's call."""
    arguments = vector["arguments"]
    if "ready" in arguments:
        raise CannotError
    dependencies = ", ".join(f"{{{cpp_text(name)}, {cpp_text(value)}}}" for name, value in vector["dependencies"])
    texts = ", ".join(cpp_text(vector[member]) for member in ("name", "version", "layout"))
    identity = f"{{{texts}, {{{dependencies}}}}}"
    values = [cpp_value(value, directory) for value in arguments["positional"]]
    if not arguments["keyword"]:
        return f"call({', '.join([identity, *values])});"
    added = "".join(f".add({value})" for value in values)
    for name, value in arguments["keyword"]:
        added += f".key({cpp_text(name)}).add({cpp_value(value, directory)})"
    return f"npcache::arguments arguments; arguments{added}; call_with({identity}, arguments);"


def cpp_host(directory):
    functions, table = [], []
    for number, vector in enumerate(VECTORS):
        try:
            functions.append(f"// {ascii(vector['description'])}\nvoid call_{number}() {{ {cpp_call(vector, directory)} }}\n")
            table.append(f"call_{number}")
        except CannotError:
            table.append("nullptr")
    source = directory / "host.cpp"
    main = f"int main(int, char **argv) {{ void (*const of[])() = {{{', '.join(table)}}}; return host(argv[1], of); }}\n"
    source.write_text("".join(['#include "host.hpp"\n', *functions, main]))
    return compile_program(source, "c++17", ["-O0", "-g0", f"-I{HOSTS}"])


# ------------------------------------------------------------------------------------------------------------- the test


def test_what_one_host_computes_every_other_finds(tmp_path):
    """Host i computes every sixth call, C those that it cannot make; then each asks for all calls."""
    hosts = {host: start(host, tmp_path / "cache", tmp_path) for host in CANNOT}
    first_of, lacking = {}, {host: set() for host in hosts}
    for number, vector in enumerate(VECTORS):
        if first_of.setdefault(vector["key"], number) != number:
            continue  # the call of an earlier vector, written in another way
        host = list(hosts)[number % len(hosts)]
        answer = hosts[host].answer("compute", number, result_of(number))
        if answer == "cannot":
            answer = hosts["c"].answer("compute", number, result_of(number))
        assert answer == "computed " + result_of(number), f"{vector['description']}, by {host}"
    for host, running in hosts.items():
        for number, vector in enumerate(VECTORS):
            answer = running.answer("ask", number)
            if answer == "cannot":
                lacking[host].add(number)
            else:
                expected = "found " + result_of(first_of[vector["key"]])
                assert answer == expected, f"{vector['description']}, asked by {host}"
    for running in hosts.values():
        running.end()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == len(first_of)
    assert {host: len(numbers) for host, numbers in lacking.items()} == {host: n for host, (n, _) in CANNOT.items()}


def test_a_result_is_of_one_kind_in_every_language(tmp_path):
    """docs/results.md: an array, a number, tuples, a map, by each of the hosts that have them to each."""
    programs = {
        "python": [sys.executable, HOSTS / "results.py"],
        "julia": [julia(), f"--project={ROOT / 'julia' / 'NPCache'}", "-O0", HOSTS / "results.jl"],
        "c++": [compile_program(HOSTS / "results.cpp", "c++17", ["-O0"])],
    }
    python_path = os.pathsep.join([str(ROOT / "python" / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NPCACHE_LIBRARY": str(LIBRARY), "PYTHONPATH": python_path}
    for hosts in [], list(programs):
        for command in programs.values():
            ran = subprocess.run([*command, tmp_path / "cache", *hosts], env=environment, stderr=subprocess.PIPE, text=True)
            assert ran.returncode == 0, ran.stderr
