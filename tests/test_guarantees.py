"""docs/guarantees.md names the tests that hold each promise: they exist, and the README leads there."""

import re
from pathlib import Path

from conftest import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text()


ROWS = re.findall(r"^\| (?!promise|---)(.*) \|$", PAGE.partition("## On which file systems")[0], re.MULTILINE)


def held_by(row):
    return set(re.findall(r"`(\w+)`", row.rsplit("|", 1)[1]))


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", PAGE)).union(*map(held_by, ROWS))
    assert len(named) > 40
    python = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    rust = "".join(path.read_text() for path in (ROOT / "npcache-core").rglob("*.rs"))
    tests = re.findall(r"^def (test_\w+)\(", python, re.MULTILINE) + re.findall(r"#\[test\]\n *fn (\w+)\(", rust)
    assert named - set(tests) == set()


def test_every_promise_names_a_test():
    assert len(ROWS) > 20
    assert [row for row in ROWS if not held_by(row)] == []


def test_the_broken_builds_name_tests_of_the_page():
    broken = set(re.findall(r"::(test_\w+)", (ROOT / "tests" / "faults" / "broken.py").read_text()))
    assert broken - set(re.findall(r"`(test_\w+)`", PAGE)) == set()


def test_the_readme_leads_to_the_page():
    assert "(docs/guarantees.md)" in (ROOT / "README.md").read_text()
