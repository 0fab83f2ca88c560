"""Every example in the documentation runs."""

import doctest
import re
import warnings
from pathlib import Path

import pytest

import npcache

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["docs/python.md", "docs/migrating.md", "python/README.md"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(npcache._arguments, "_registered", {})
    source = "\n".join(FENCE.findall((ROOT / page).read_text()))
    program = tmp_path / "page.py"
    program.write_text(source)
    namespace = {"__name__": "page"}
    exec(compile(source, str(program), "exec"), namespace)


def test_the_examples_of_docstrings_run(monkeypatch):
    monkeypatch.setattr(npcache._arguments, "_registered", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = doctest.testmod(npcache)
    assert tried.attempted > 10
    assert tried.failed == 0


def test_everything_public_is_documented():
    for name in npcache.__all__:
        thing = getattr(npcache, name)
        assert thing.__doc__, name
        for attribute, value in vars(thing).items():
            if callable(value) and not attribute.startswith("_"):
                assert value.__doc__, f"{name}.{attribute}"
