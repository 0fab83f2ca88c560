"""The reference of the C API, which Doxygen makes from the headers: without a warning, and with everything in it."""

import html
import re
import subprocess

import pytest
from conftest import ROOT, need_tool

HEADER = (ROOT / "include" / "npcache.h").read_text()


def doxygen(output, *settings):
    """Runs Doxygen with docs/Doxyfile and further settings; the pages that it wrote below `output`, by name."""
    program = need_tool("doxygen", "doxygen")
    lines = [f"@INCLUDE = {ROOT / 'docs' / 'Doxyfile'}", *settings, f"OUTPUT_DIRECTORY = {output}"]
    done = subprocess.run([program, "-"], input="\n".join(lines), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return {page.name: page.read_text() for page in (output / "html").glob("*.html")}


def test_both_headers_are_documented_whole(tmp_path):
    pages = doxygen(tmp_path)
    assert {"npcache_8h.html", "npcache_8hpp.html", "structnpcache__view.html"} <= pages.keys()


def test_the_c_header_is_documented_whole(tmp_path):
    pages = doxygen(tmp_path, "INPUT = include/npcache.h")
    text = html.unescape(re.sub(r"<[^>]*>", "", pages["npcache_8h.html"]))
    names = set(re.findall(r"^(?:#define |.*?\b(?=npcache_\w+\())(\w+)", HEADER, re.MULTILINE)) - {"NPCACHE_H"}
    assert len(names) > 90
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
    assert "What can still be stale" in text and "Conventions" in text


def test_a_function_without_a_comment_is_an_error(tmp_path):
    bare = tmp_path / "bare.h"
    bare.write_text("/** @file */\nint bare(void);\n")
    with pytest.raises(AssertionError, match="bare.* is not documented"):
        doxygen(tmp_path, f"INPUT = {bare}")
