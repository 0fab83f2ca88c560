"""What the tests share: the built library, a compiler, and tools that a machine may lack."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# tests/check_deep.sh has another build tested.
LIBRARY = Path(os.environ.get("TESTED_LIBRARY", ROOT / "target" / "release" / "libnpcache.so"))
BUILT = ROOT / "target" / "tests"

# A run of the tests is not to be changed by how its user runs npcache.
for variable in [name for name in os.environ if name.startswith("NPCACHE_")]:
    del os.environ[variable]
# Most tests are about what is on disk, and ask for it in the process that put it there; those about memory say so.
os.environ["NPCACHE_MEMORY_BYTES"] = "0"


def compile_program(source, std="c99", flags=(), name=None, libraries=("-lnpcache",)):
    """Compiles one of the tests' C or C++ programs, warnings being errors, and returns its path.

    `std` tells the language: c99, c++17. A C source can be compiled as C++.
    """
    source = Path(source)
    cplusplus = std.startswith("c++")
    compiler = os.environ.get("CXX", "c++") if cplusplus else os.environ.get("CC", "cc")
    BUILT.mkdir(parents=True, exist_ok=True)
    program = BUILT / f"{name or source.stem}-{std}"
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    language = ["-x", "c++" if cplusplus else "c"]
    paths = [f"-I{ROOT / 'include'}", f"-L{LIBRARY.parent}", f"-Wl,-rpath,{LIBRARY.parent}", "-Wl,--build-id"]
    command = [compiler, f"-std={std}", "-g", "-O1", *warnings, *flags, *language, str(source), "-x", "none"]
    subprocess.run([*command, "-o", str(program), *paths, *libraries, "-lpthread", "-lm"], check=True)
    return program


def need_tool(tool, package):
    """The path of a program from Debian's `package`, installed if this process may; else the test is skipped."""
    if not shutil.which(tool) and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", package], **quiet)
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is missing and cannot be installed: install the package {package}")
    return path


@pytest.fixture
def cache_path(tmp_path):
    """A directory that does not exist yet, for a cache."""
    return tmp_path / "cache"
