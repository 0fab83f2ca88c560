"""docs/c.md is a program in pieces: each is short, and together they print what the page shows."""

import re
import subprocess

from conftest import ROOT, compile_program

PAGE = (ROOT / "docs" / "c.md").read_text()
MOST_LINES = 12  # of a piece: what one looks at without scrolling


def test_the_pieces_make_a_program_that_prints_what_the_page_shows(tmp_path):
    pieces = re.findall(r"^```c\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    functions = [piece for piece in pieces if piece.startswith("static ")]
    statements = [piece for piece in pieces if not piece.startswith("static ")]
    assert functions and len(statements) > 5
    assert [piece for piece in pieces if len(piece.splitlines()) > MOST_LINES] == []
    source = tmp_path / "page.c"
    includes = "#include <npcache.h>\n#include <stdio.h>\n#include <string.h>\n\n"
    source.write_text(
        includes + "\n".join(functions) + "\nint main(void)\n{\n" + "\n".join(statements) + "return 0;\n}\n"
    )
    program = compile_program(source, name="c_page")
    done = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == "".join(re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def test_every_function_that_the_page_names_exists():
    declared = set(re.findall(r"\b(npcache_\w+)\(", (ROOT / "include" / "npcache.h").read_text()))
    types = {"npcache_buffer", "npcache_error", "npcache_output", "npcache_args", "npcache_function", "npcache_options"}
    assert set(re.findall(r"\b(npcache_\w+)", PAGE)) - types - {"npcache_view", "npcache_statistics"} <= declared
