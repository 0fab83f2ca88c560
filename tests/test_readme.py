"""The README's examples, run as they stand there."""

import os
import re
import subprocess
import sys

from conftest import LIBRARY, ROOT, compile_program

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
