"""C++ over the C ABI: include/npcache.hpp, and exceptions through the library's own frames (c/guard.cpp)."""

import subprocess
from pathlib import Path

import pytest
from conftest import BUILT, ROOT, compile_program, need_tool
from test_c_abi import SANITIZERS, run, valgrind

SOURCES = Path(__file__).parent / "c"
STANDARDS = ["c++11", "c++14", "c++17", "c++20"]
STRICT = ["-Wconversion", "-Wshadow", "-Wold-style-cast", "-Wnon-virtual-dtor"]


def guard_program(std="c++11", flags=(), name="guard"):
    """guard.cpp and the second file that it is linked with."""
    BUILT.mkdir(parents=True, exist_ok=True)
    sources = ["-x", "c++", str(SOURCES / "guard_other.cpp")]
    return compile_program(SOURCES / "guard.cpp", std, flags=[*flags, *sources], name=name)


@pytest.mark.parametrize("std", STANDARDS)
def test_exceptions_leave_nothing_stored_and_nobody_waiting(std, tmp_path):
    run(guard_program(std), tmp_path / "run")


def test_exceptions_are_clean_under_valgrind(tmp_path):
    run(guard_program(), tmp_path / "run", before=valgrind())


def test_exceptions_are_clean_under_the_sanitizers(tmp_path):
    run(guard_program(flags=SANITIZERS, name="guard-sanitized"), tmp_path / "run")


def strictly(compiler, std, source):
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", *STRICT]
    command = [compiler, f"-std={std}", "-fsyntax-only", *warnings, f"-I{ROOT / 'include'}", source]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("std", STANDARDS)
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_the_header_compiles_alone_without_a_warning(compiler, std, tmp_path):
    compiler = need_tool(compiler, {"clang++": "clang"}.get(compiler, compiler))
    source = tmp_path / "alone.cpp"
    source.write_text("#include <npcache.hpp>\n#include <npcache.h>\n#include <npcache.hpp>\nint main() {}\n")
    strictly(compiler, std, source)
    strictly(compiler, std, SOURCES / "guard_other.cpp")
