"""Cached functions at the top of a module, where other processes find them. NPCACHE_TEST_DIRECTORY is the cache."""

import os
import time
from pathlib import Path

import numpy as np

import npcache

cache = npcache.Cache(os.environ.get("NPCACHE_TEST_DIRECTORY"))


def note_a_run():
    """Leaves a file for each run of a cached function, whichever process it is in."""
    runs = Path(os.environ["NPCACHE_TEST_DIRECTORY"] + ".runs")
    runs.mkdir(exist_ok=True)
    (runs / f"{os.getpid()}-{time.time_ns()}").touch()


def runs():
    return len(list(Path(os.environ["NPCACHE_TEST_DIRECTORY"] + ".runs").glob("*")))


@cache.memoize(depends={"note": "not part of the result"}, version="1")
def slow_square(x, seconds=0.3):
    note_a_run()
    time.sleep(seconds)
    return np.full(1000, float(x) ** 2)


def plain_cube(x):
    return np.full(10, float(x) ** 3)


def call_slow_square(x):
    return float(slow_square(x)[0])


def call_with(cached, x):
    return float(cached(x)[0]), cached.stats().computed


def ask(cache, x):
    return float(cache.memoize(plain_cube)(x)[0]), cache.stats().cached


class Held:
    """A function that takes as long as the test wants."""

    def __init__(self, directory):
        self.begun, self.released = Path(directory, "begun"), Path(directory, "released")

    def __call__(self, x):
        self.begun.touch()
        while not self.released.exists():
            time.sleep(0.01)
        return np.array([x])
