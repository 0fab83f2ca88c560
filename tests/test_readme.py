"""The README's examples, run as they stand there."""

import os
import re
import subprocess
import sys

from conftest import LIBRARY, ROOT, compile_program
from test_fortran import compile_fortran  # noqa: F401, a fixture

README = (ROOT / "README.md").read_text()


def block(language):
    """The README's one example in a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return text


def run(command, directory):
    environment = os.environ | {"LD_LIBRARY_PATH": str(LIBRARY.parent)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_c_example_is_the_quickstart_and_runs(tmp_path):
    source = ROOT / "examples-c" / "quickstart.c"
    assert block("c") == source.read_text()
    program = compile_program(source)
    assert run([program], tmp_path) == "zeta(3) = 1.202056903160, computed\n"
    assert run([program], tmp_path) == "zeta(3) = 1.202056903160, from disk\n"


def test_the_ctypes_example_runs_and_is_twenty_five_lines(tmp_path):
    script = block("python")
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 25
    for _ in range(2):
        assert run([sys.executable, "-c", script], tmp_path) == "332833500.0\n"
    entries = list((tmp_path / "squares-cache" / "squares").rglob("*.npy"))
    assert len(entries) == 1


def test_the_tour_has_about_ten_lines_in_each_language():
    for language in ("cpp", "py", "julia", "fortran", "rust"):
        lines = [line for line in block(language).splitlines() if line.strip()]
        assert 7 <= len(lines) <= 15, language


def test_the_cpp_example_computes_once(tmp_path):
    source = tmp_path / "tour.cpp"
    source.write_text(block("cpp"))
    program = compile_program(source, "c++17")
    assert run([program], tmp_path) == "998001, computed\n"
    assert run([program], tmp_path) == "998001, from disk\n"


def test_the_python_example_computes_once(tmp_path):
    """From a file, since the identity of a function is in its source."""
    script = tmp_path / "tour.py"
    script.write_text(block("py"))
    paths = {"PYTHONPATH": str(ROOT / "python" / "src"), "NPCACHE_LIBRARY": str(LIBRARY)}
    for cached in "1 of 2 cached", "2 of 2 cached":
        command = [sys.executable, script]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"332833500.0\n332833500.0 {cached}"), done.stdout


def test_the_julia_example_computes_once(tmp_path):
    get = subprocess.run([ROOT / "tests" / "get_julia.sh"], stdout=subprocess.PIPE, text=True, check=True)
    command = [get.stdout.strip(), f"--project={ROOT / 'julia' / 'NPCache'}", "-e", block("julia")]
    for computing in "computing\n", "":
        environment = os.environ | {"NPCACHE_LIBRARY": str(LIBRARY)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.stdout == f"{computing}3.328335e8\n3.328335e8\n", done.stderr


FORTRAN_BEFORE = """
program tour
    use npcache
    implicit none
    type(c_ptr) :: cache, squares, args, todo, result, address, error
    integer(c_int32_t) :: status
    integer(c_int64_t) :: extents(1) = 1000
    real(c_double), pointer :: value(:)
    integer :: n

    status = npcache_new('squares-cache'//c_null_char, c_null_ptr, cache, error)
    status = npcache_function_new(cache, 'squares'//c_null_char, '1'//c_null_char, squares, error)
"""

FORTRAN_AFTER = """
    call c_f_pointer(address, value, extents)
    print '(i0, f12.1)', npcache_buffer_origin(result), sum(value)
end program
"""


def test_the_fortran_example_computes_once(compile_fortran, tmp_path):  # noqa: F811
    source = tmp_path / "tour.f90"
    source.write_text(FORTRAN_BEFORE + block("fortran") + FORTRAN_AFTER)
    program = compile_fortran(source)
    assert [run([program], tmp_path).split() for _ in range(2)] == [["1", "332833500.0"], ["3", "332833500.0"]]


def test_the_options_are_those_of_the_library():
    named = set(re.findall(r"^\| `(\w+)` \| `NPCACHE_\w+` \|", README, re.MULTILINE))
    source = (ROOT / "npcache-core" / "src" / "options.rs").read_text()
    known = re.search(r"const NAMES: \[&str; \d+\] =\s*\[(.*?)\]", source, re.DOTALL).group(1)
    assert named == set(re.findall(r'"(\w+)"', known))


def test_the_demo_transcript_has_every_line_of_the_demo():
    demo = (ROOT / "examples-c" / "demo.py").read_text()
    transcript = block("text")
    for line in transcript.splitlines():
        title = re.match(r"  (\w[^\d]*?)  ", line)
        if title:
            assert title.group(1).strip() in demo, line
