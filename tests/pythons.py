"""Runs the tests of the Python package on the oldest and the newest Python of this machine, the oldest with numpy 1.26.

    python3 tests/pythons.py        # further arguments are pytest's

It takes what it finds, `python3.N` on the PATH and pyenv's, and says what that is; one Python alone serves for both. Each
has an environment of its own below target/, made once.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python"

PROJECT = (PACKAGE / "pyproject.toml").read_text()
OLDEST = tuple(map(int, re.search(r'requires-python = ">=(\d+)\.(\d+)"', PROJECT).groups()))

# Beside numpy.
PACKAGES = ["cloudpickle", "pandas", "pytest", "wrapt"]

VERSIONS = """
import sys, numpy, pandas
print("Python", sys.version.split()[0], "with numpy", numpy.__version__, "and pandas", pandas.__version__)
"""

# A Python without one of these makes no environment, or loads no library.
PROBE = "import ctypes, ensurepip, ssl, sys, venv; print(*sys.version_info[:3])"


def found():
    """The Pythons of this machine that the package supports, as their versions and programs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    directories = [*map(Path, os.get_exec_path()), *sorted(pyenv.glob("versions/*/bin"))]
    pythons = {}
    for program in [Path(sys.executable), *(path for directory in directories for path in directory.glob("python3.*"))]:
        if re.fullmatch(r"python3(\.\d+)?", program.name):
            probe = subprocess.run([program, "-c", PROBE], capture_output=True, text=True)
            version = tuple(map(int, probe.stdout.split()))
            if probe.returncode == 0 and version >= OLDEST:
                pythons.setdefault(version, program)
    return sorted(pythons.items())


def environment(pythons, numpy):
    """An environment below target/ of the first of these Pythons that `numpy` is built for."""
    for version, program in pythons:
        path = ROOT / "target" / f"python-{version[0]}.{version[1]}-{numpy.replace('==', '-').rstrip('.*')}"
        python = path / "bin" / "python"
        ready = path / "ready"
        if not ready.exists() or ready.read_text() != " ".join(PACKAGES):
            subprocess.run([program, "-m", "venv", "--clear", path], check=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
            if subprocess.run([*install, numpy, *PACKAGES]).returncode != 0:
                print(f"{numpy} cannot be installed for {program}: the next", flush=True)
                continue
            ready.write_text(" ".join(PACKAGES))
        return python
    sys.exit(f"{numpy} cannot be installed for any Python here")


def main(arguments):
    pythons = found()
    here = (f"{'.'.join(map(str, version))} at {program}" for version, program in pythons)
    print("Pythons here:", *here, sep="\n  ", flush=True)
    variables = {**os.environ, "NPCACHE_LIBRARY": str(ROOT / "target" / "release" / "libnpcache.so")}
    for python in environment(pythons, "numpy==1.26.*"), environment(pythons[::-1], "numpy"):
        subprocess.run([python, "-c", VERSIONS], check=True)
        subprocess.run([python, "-m", "pytest", *arguments], cwd=PACKAGE, env=variables, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
