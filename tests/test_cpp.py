"""C++: include/npcache.hpp. What it computes, keeps and refuses (c/memoize.cpp, c/eigen.cpp, c/refused.cpp), its keys, its
page in the docs, and exceptions through the library's own frames (c/guard.cpp)."""

import functools
import os
import re
import subprocess
from pathlib import Path

import keys_reference as reference
import numpy as np
import pytest
from conftest import BUILT, LIBRARY, ROOT, compile_program, need_tool
from test_c_abi import SANITIZERS, run, valgrind
from test_identity import build_id

SOURCES = Path(__file__).parent / "c"
STRICT = ["-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wold-style-cast", "-Wnon-virtual-dtor"]
# The programs are many templates: not to optimise them halves what the compiler takes.
QUICK = ["-O0"]


def need_eigen():
    """The flags for Debian's Eigen; where it cannot be installed the test is skipped."""
    if not Path("/usr/include/eigen3").exists():
        # need_tool looks for a program; the package has none, so this one never finds it.
        try:
            need_tool("eigen3", "libeigen3-dev")
        except pytest.skip.Exception:
            if not Path("/usr/include/eigen3").exists():
                raise
    return ["-isystem", "/usr/include/eigen3"]


def clang():
    return need_tool("clang++", "clang")


# ------------------------------------------------------------------------------------------------------------ compilers


def strictly(compiler, std, *sources):
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", *STRICT]
    paths = [f"-I{ROOT / 'include'}", f"-I{SOURCES}"]
    subprocess.run([compiler, f"-std={std}", "-fsyntax-only", *warnings, *paths, *sources], check=True)


@pytest.mark.parametrize("std", ["c++17", "c++20", "c++2b"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_the_header_compiles_alone_without_a_warning(compiler, std, tmp_path):
    compiler = clang() if compiler == "clang++" else need_tool(compiler, compiler)
    source = tmp_path / "alone.cpp"
    source.write_text("#include <npcache.hpp>\n#include <npcache.h>\n#include <npcache.hpp>\nint main() {}\n")
    strictly(compiler, std, source, SOURCES / "guard_other.cpp", ROOT / "examples-c" / "quickstart.cpp")


@pytest.mark.parametrize(("compiler", "std"), [("g++", "c++17"), ("g++", "c++2b"), ("clang++", "c++20")])
def test_what_the_header_makes_of_a_program_has_no_warning(compiler, std):
    """Templates warn where they are used."""
    compiler = clang() if compiler == "clang++" else need_tool(compiler, compiler)
    strictly(compiler, std, SOURCES / "used.cpp")


def test_clang_takes_the_test_programs_too():
    sources = [SOURCES / "memoize.cpp", SOURCES / "eigen.cpp"]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", *need_eigen()]
    command = [clang(), "-std=c++2b", "-fsyntax-only", *warnings, f"-I{ROOT / 'include'}", *sources]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_what_is_refused_does_not_compile_and_says_what_to_write(compiler):
    compiler = clang() if compiler == "clang++" else need_tool(compiler, compiler)
    source = SOURCES / "refused.cpp"
    command = [compiler, "-std=c++17", "-fsyntax-only", f"-I{ROOT / 'include'}", source]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert ran.returncode != 0
    # One report an error: gcc says what it instantiates before it, clang after.
    begins = r"^(?=.*In instantiation of)" if "In instantiation of" in ran.stderr else r"^(?=.* error: )"
    reports = re.split(begins, ran.stderr, flags=re.MULTILINE)[1:]
    expected = 0
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if wanted := re.fullmatch(r"    .*// (.*): (.*)", line):
            message, kind = wanted.groups()
            (report,) = [report for report in reports if re.search(rf"refused.cpp:{number}:\d+: ", report)]
            assert message in report and kind in report.replace(" >", ">"), report
            expected += 1
    assert len(re.findall(r" error: ", ran.stderr)) == expected == len(reports), "one message each, and nothing else"


# --------------------------------------------------------------------------------------------------- memoized functions


@functools.cache
def memoize_program():
    return compile_program(SOURCES / "memoize.cpp", "c++20", [*QUICK, *SANITIZERS])


def test_memoized_functions_do_what_the_header_says_and_are_clean_under_the_sanitizers(tmp_path):
    assert run(memoize_program(), tmp_path / "run") > 150


def test_a_library_s_lambdas_have_the_library_s_build_id():
    """Also those of a type that the program has too: each has its own code."""
    library = compile_program(SOURCES / "versions.cpp", "c++17", ["-shared", "-fPIC", "-DLIBRARY"], "libversions.so")
    named = [f"-Wl,-rpath,{library.parent}", "-rdynamic"]
    program = compile_program(SOURCES / "versions.cpp", "c++17", named, "versions", (str(library), "-lnpcache"))
    ran = subprocess.run([program], capture_output=True, text=True, check=True)
    arguments = reference.canonical([1.0])
    assert ran.stdout.split() == [reference.key("f", build_id(path), [], arguments) for path in (program, library)]


def printed(program, directory):
    """The lines of a program's `keys`: what follows each label."""
    directory.mkdir()
    ran = subprocess.run([program, directory, "keys"], capture_output=True, text=True, check=True)
    return [line.split(" ", 1) for line in ran.stdout.splitlines()]


def array(values, dtype="<f8"):
    return np.array(values, dtype)


# 1 and -2.5 in the 80 bits of x86-64. numpy leaves in their padding what was in memory before, npcache.hpp zeros.
WIDE = np.frombuffer(bytes.fromhex("0000000000000080ff3f" + "00" * 6 + "00000000000000a000c0" + "00" * 6), "<f16")
COLUMNS = np.arange(1.0, 7).reshape(2, 3)
CALLS = {
    "none": [],
    "integers": [1, -1, 300, 4_000_000_000, -5_000_000_000, 2**64 - 1, 97, 7],
    "floats": [1.0, np.float32(1), -0.0, WIDE[0:1].reshape(())],
    "bools": [True, False],
    "enums": [2, 1, 7],
    "complex": [1 - 2j, np.complex64(0.5)],
    "texts": ["naïve", "a\0b", "ext", "", ""],
    "float64": [array([1, 2.5, -3])],
    "int32": [array([1, -2], "<i4"), array([3, 4], "<u2"), array([], "<f4")],
    "longlong": [array([1], "<i8"), array([2], "<u8"), array([3], "|i1"), array([4], "|u1")],
    "bits": [array([1, 0, 1], "|b1"), array([1], "|b1"), array([], "|b1")],
    "complexes": [array([1 + 2j, 3 + 4j], "<c16"), array([5 + 6j], "<c8")],
    "longdoubles": [WIDE, array([], "<f16")],
    "matrix": [np.arange(1.0, 7).reshape(2, 3)],
    "points": [np.arange(1, 7, dtype="<f4").reshape(3, 2)],
    "nested": [[array([1]), array([]), array([2, 3])], ["a", "b"], ["c"]],
    "rows": [[1, 2.0], ["x", array([1]), True], []],
    "optional": [None, 3, None, array([1])],
    "maps": [{"nu": 0.1, "steps": 2.0}, {"aa": 2, "b": 1, "c": 3}],
    "bytes": [b"\0\xff", b"\x09", b""],
    "mesh": [[[array([1, 2]), array([3, 4])], array([5, 6], "<i4")], [np.float32(1), np.float32(2)]],
    "flow": [{"nu": 0.1, "name": "couette", "letters": 7, "range": [np.float32(0), np.float32(1)]}],
    "mdspan": [array([[1, 3, 5], [2, 4, 6]]), COLUMNS],
    "mdspan0": [array(1)],
    "span": [array([2, 3, 4, 5, 6]), array([1, 2])],
    "large": [np.arange(300_000.0)],
}


def test_calls_have_the_keys_of_the_page(tmp_path):
    program = memoize_program()
    keys = dict(printed(program, tmp_path / "run"))
    expected = {label: reference.key("f", "1", [], reference.canonical(args)) for label, args in CALLS.items()}
    one = reference.canonical([1.0])
    expected["keywords"] = reference.key("f", "1", [], reference.canonical([1], {"b": 2.0, "a": COLUMNS.ravel()}))
    expected["converted"] = reference.key("f", "1", [], reference.canonical([1.0, "name", None]))
    expected["pointer"] = expected["lambda"] = reference.key("f", build_id(program), [], one)
    depends = [("object:libnpcache.so.1", build_id(LIBRARY)), ("blas", "0.3"), ("a", "")]
    expected["depends"] = reference.key("f", "1", depends, one)
    expected["strict"] = reference.key("f", "1", [], one, "")
    if "span" not in keys:  # a standard library without it
        del expected["span"]
    assert keys == expected


# ---------------------------------------------------------------------------------------------------------------- Eigen


@functools.cache
def eigen_program():
    return compile_program(SOURCES / "eigen.cpp", "c++17", [*QUICK, *need_eigen()])


def test_eigen_s_types_are_arguments_and_results(tmp_path):
    assert run(eigen_program(), tmp_path / "run") > 30


def test_eigen_s_types_have_the_keys_of_numpy_s_arrays_and_numpy_reads_them(tmp_path):
    keys = printed(eigen_program(), tmp_path / "run")
    matrix = np.arange(12.0).reshape(3, 4)
    block, column = matrix[1:3, 1:3], matrix[:, 2]
    calls = {
        "matrix": [matrix],
        "transpose": [matrix.T, matrix.T],
        "block": [block, block],
        "row": [matrix[1], matrix[1], column, column],
        "backwards": [matrix[1, ::-1], matrix[1]],
        "fixed": [array([1, 2, 3], "<f4"), np.eye(2, dtype="<i4"), array([1, 2], "<c16")],
        "empty": [np.empty((0, 3)), np.empty(0), array([5])],
        "list": [[array([1, 2]), array([3, 4])], [matrix, 1]],
    }
    _, stored = keys.pop()
    expected = {label: reference.key("f", "1", [], reference.canonical(args)) for label, args in calls.items()}
    assert len(keys) == 12 and [[label, expected[label]] for label, _ in keys] == keys

    found = np.load(stored)
    assert found.flags.f_contiguous and found.dtype == "<f8"
    np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3))


# ----------------------------------------------------------------------------------------------------- docs and examples


def ran_in(directory, program):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARY.parent)}
    return subprocess.run([program], cwd=directory, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_quickstart_computes_once(tmp_path):
    program = compile_program(ROOT / "examples-c" / "quickstart.cpp", "c++17", ["-O2"], "quickstart-cpp")
    assert ran_in(tmp_path, program) == "zeta(3) = 1.202056903160, computed\n"
    assert ran_in(tmp_path, program) == "zeta(3) = 1.202056903160, from disk\n"


def test_the_page_s_code_runs(tmp_path):
    """Blocks that define something stand for themselves; each of the others is the body of a function."""
    page = (ROOT / "docs" / "cpp.md").read_text()
    blocks = re.findall(r"^```cpp\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    program, calls = "#include <Eigen/Core>\n#include <cassert>\n#include <cstdio>\n", ""
    for i, block in enumerate(blocks):
        if re.match(r"#include|struct|template", block):
            program += block
        else:
            program += f"static void block_{i}()\n{{\n{block}}}\n"
            calls += f"    block_{i}();\n"
    assert calls.count("\n") >= 9
    source = tmp_path / "page.cpp"
    source.write_text(f"{program}int main()\n{{\n{calls}}}\n")
    compiled = compile_program(source, "c++17", [*QUICK, *need_eigen()])
    for _ in range(2):
        assert "rate" in ran_in(tmp_path, compiled) or "argument" in ran_in(tmp_path, compiled)


# ----------------------------------------------------------------------------------------- exceptions through the halves


def guard_program(flags=(), name="guard"):
    """guard.cpp and the second file that it is linked with."""
    BUILT.mkdir(parents=True, exist_ok=True)
    sources = ["-x", "c++", str(SOURCES / "guard_other.cpp")]
    return compile_program(SOURCES / "guard.cpp", "c++17", flags=[*flags, *sources], name=name)


def test_exceptions_leave_nothing_stored_and_nobody_waiting(tmp_path):
    run(guard_program(), tmp_path / "run")


def test_exceptions_are_clean_under_valgrind(tmp_path):
    run(guard_program(), tmp_path / "run", before=valgrind())


def test_exceptions_are_clean_under_the_sanitizers(tmp_path):
    run(guard_program(flags=SANITIZERS, name="guard-sanitized"), tmp_path / "run")
