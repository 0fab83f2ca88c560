"""The C ABI, from C: one program that tries everything (c/abi.c), as each language it is meant for and under each tool
that sees what it does not print; and what the libraries export."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import LIBRARY, ROOT, compile_program, need_tool

SOURCES = Path(__file__).parent / "c"
STATIC_LIBRARY = LIBRARY.with_suffix(".a")
HEADER = ROOT / "include" / "npcache.h"

# An unaligned read or a data race of the program's own is one of the tests' too.
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def run(program, directory, before=(), **environment):
    """Runs a test program on an empty directory; its last line counts the checks, all of which held."""
    directory.mkdir()
    ran = subprocess.run(
        [*before, program, directory],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout[-20000:]
    counts = re.findall(r"^(\d+) passed, 0 failed$", ran.stdout, re.MULTILINE)
    assert len(counts) == 1, ran.stdout[-20000:]
    return int(counts[0])


@pytest.mark.parametrize("std", ["c99", "c11", "c++11", "c++14", "c++17", "c++20"])
def test_the_abi_program_passes(std, tmp_path):
    assert run(compile_program(SOURCES / "abi.c", std), tmp_path / "run") > 10_000


def valgrind():
    """The command under which a program may not lose memory, however little, nor touch what is not its own."""
    return [
        need_tool("valgrind", "valgrind"),
        "--quiet",
        "--error-exitcode=99",
        "--leak-check=full",
        # All but "still reachable": what the library keeps for the life of the process.
        "--show-leak-kinds=definite,indirect,possible",
        "--errors-for-leak-kinds=definite,indirect,possible",
        "--fair-sched=yes",
        f"--suppressions={SOURCES / 'valgrind.supp'}",
    ]


def test_the_abi_program_is_clean_under_valgrind(tmp_path):
    run(compile_program(SOURCES / "abi.c", "c99"), tmp_path / "run", before=valgrind())


def test_threads_that_share_everything_are_clean_under_valgrind(tmp_path):
    assert run(compile_program(SOURCES / "threads.c"), tmp_path / "run", before=valgrind()) > 2000


def test_the_abi_program_is_clean_under_the_sanitizers(tmp_path):
    program = compile_program(SOURCES / "abi.c", "c99", flags=SANITIZERS, name="abi-sanitized")
    run(program, tmp_path / "run", ASAN_OPTIONS="detect_leaks=1:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1")


def test_the_static_library_links(tmp_path):
    program = compile_program(SOURCES / "abi.c", name="abi-static", libraries=(STATIC_LIBRARY,))
    needed = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True).stdout
    assert "libnpcache" not in needed
    run(program, tmp_path / "run")


def test_code_without_a_build_id_needs_a_version(tmp_path):
    libraries = ("-Wl,--build-id=none", "-lnpcache")
    run(compile_program(SOURCES / "no_build_id.c", libraries=libraries), tmp_path / "run")


@pytest.mark.parametrize("std", ["c99", "c11", "c17", "c++11", "c++14", "c++17", "c++20"])
def test_the_header_compiles_alone(std, tmp_path):
    source = tmp_path / "alone.c"
    source.write_text('#include <npcache.h>\n#include <npcache.h>\nint main(void) { return (int)npcache_abi_version() - 1; }\n')
    subprocess.run([compile_program(source, std, flags=["-Wconversion", "-Wundef"], name="alone")], check=True)


def declared():
    return set(re.findall(r"\b(npcache_\w+)\(", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)))


def symbols(*arguments):
    listed = subprocess.run(["nm", "--defined-only", *arguments], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in listed.splitlines() if line.split()}


def test_only_npcache_symbols_are_exported():
    exported = symbols("--dynamic", str(LIBRARY))
    assert exported == declared()
    assert len(exported) > 50


def test_the_abi_program_calls_every_function():
    text = "".join(path.read_text() for path in [SOURCES / "abi.c", SOURCES / "check.h", *SOURCES.glob("abi_*.h")])
    assert declared() - set(re.findall(r"\b(npcache_\w+)\(", text)) == set()


def dynamic_section():
    return subprocess.run(["readelf", "-d", LIBRARY], check=True, capture_output=True, text=True).stdout


def test_the_soname_is_versioned():
    assert "Library soname: [libnpcache.so.1]" in dynamic_section()
    assert (LIBRARY.parent / "libnpcache.so.1").resolve() == LIBRARY.resolve()


def test_the_library_is_never_unloaded():
    # A forked child calls back into it, and results outlive the handle that made them.
    assert "NODELETE" in dynamic_section()


def test_the_library_has_a_build_id():
    notes = subprocess.run(["readelf", "-n", LIBRARY], check=True, capture_output=True, text=True).stdout
    assert "NT_GNU_BUILD_ID" in notes


STUBBED = """
#include <npcache.h>
#include <stdio.h>
int32_t fill(void *user_data, const void *args, size_t args_len, npcache_output *out);
int main(void)
{
    npcache *cache = NULL;
    npcache_buffer *result = NULL;
    npcache_error *error = NULL;
    npcache_status status = npcache_new(NULL, NULL, &cache, &error);
    if (!status)
        status = npcache_call(cache, "fill", NULL, NULL, 0, fill, NULL, &result, &error);
    printf("%d %s\\n", status, npcache_error_message(error));
    npcache_buffer_release(result);
    npcache_error_free(error);
    npcache_free(cache);
    return 0;
}
"""

FILL = """
#include <npcache.h>
int32_t fill(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    (void)user_data, (void)args, (void)args_len;
    npcache_output_alloc(out, NULL, NPCACHE_FLOAT64, 0, NULL, NPCACHE_ORDER_C);
    return npcache_output_commit(out);
}
"""


def test_a_stub_of_a_program_at_a_fixed_address_is_not_taken_for_the_library_behind_it(tmp_path):
    """Its build ID would be the program's, and a rebuilt library's results would stay."""
    (tmp_path / "fill.c").write_text(FILL)
    (tmp_path / "main.c").write_text(STUBBED)
    library = tmp_path / "libfill.so"
    include = f"-I{ROOT / 'include'}"
    compile_library = ["cc", "-shared", "-fPIC", include, tmp_path / "fill.c", "-o", library, "-Wl,--build-id"]
    subprocess.run(compile_library, check=True)
    libraries = (str(library), f"-Wl,-rpath,{tmp_path}", "-lnpcache")
    fixed = compile_program(tmp_path / "main.c", name="stub-fixed", flags=("-no-pie", "-fno-pie"), libraries=libraries)
    status, message = subprocess.run([fixed], capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert status == "-7" and "`fill`" in message and "-no-pie" in message
    moved = compile_program(tmp_path / "main.c", name="stub-moved", flags=("-pie", "-fPIE"), libraries=libraries)
    assert subprocess.run([moved], capture_output=True, text=True, check=True).stdout.startswith("0 ")
