"""`pip install ./python` in an empty environment gives a package that works, with its library inside."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]

PROGRAM = """
import os, sys
import numpy as np
import npcache
from npcache._library import library
assert library.path.startswith(sys.prefix), library.path
assert os.path.exists(os.path.join(os.path.dirname(npcache.__file__), "py.typed"))
cache = npcache.Cache(sys.argv[1])
squares = cache.memoize(lambda n: np.arange(n) ** 2)
assert squares(4).tolist() == squares(4).tolist() == [0, 1, 4, 9]
assert cache.stats().cached == 1
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built as pip does."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(directory),
        str(PACKAGE),
    ]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, check=True, env=environment)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_has_the_library_and_fits_every_python(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "npcache/libnpcache.so" in names
    assert "npcache/py.typed" in names
    assert wheel.name.startswith("npcache-")
    assert "-py3-none-linux" in wheel.name
    assert not [name for name in names if "tests" in name]
    assert wheel.stat().st_size < 4 << 20
    assert not (PACKAGE / "src" / "npcache" / "libnpcache.so").exists()


def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NPCACHE_LIBRARY")}
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, env=environment)
    subprocess.run([python, "-c", PROGRAM, str(tmp_path / "cache")], check=True, env=environment, cwd=tmp_path)
