"""What the tests share. The package is that in ../src, its library that of `make build`."""

import itertools
import os
import shutil
import signal

import pytest

# A run of the tests is not to be changed by how its user runs npcache; NPCACHE_LIBRARY chooses the library.
for variable in [name for name in os.environ if name.startswith("NPCACHE_") and name != "NPCACHE_LIBRARY"]:
    del os.environ[variable]
# A shell's background jobs are started with Ctrl-C ignored, and some of the tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

import npcache  # noqa: E402


@pytest.fixture
def cache(tmp_path):
    """An empty cache."""
    return npcache.Cache(tmp_path / "cache")


@pytest.fixture
def reopened(cache, tmp_path):
    """Opens a copy of the directory of `cache`, with nothing in memory: what is found there is on disk."""

    def reopen():
        path = tmp_path / f"copy {next(numbers)}"
        shutil.copytree(cache.path, path)
        return npcache.Cache(path)

    numbers = itertools.count()
    return reopen


def computed(function):
    """How many calls of a cached function have computed."""
    return function.stats().computed
