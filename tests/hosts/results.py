"""The kinds of results in Python, for test_hosts.py: `results.py CACHE` stores them as python's, and
`results.py CACHE HOST ...` finds those that the hosts stored; what is not there, or is another, ends the program."""

import sys

import npcache
import numpy as np

RESULTS = {
    "array": np.array([[1.0, 2, 3], [4, 5, 6]], order="F"),
    "number": 2.5,
    "tuple": (np.array([1, 2], "<i4"), 0.5),
    "tuple of one": (np.array([1.0]),),
    "map": {"mean": 1.5, "steps": np.array([3, 4])},
    "nested": {"range": (0.5, 2.5), "of": {"flags": np.array([True, False])}},
}


def same(a, b):
    if isinstance(b, dict):
        return type(a) is dict and list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(b, tuple):
        return type(a) is tuple and len(a) == len(b) and all(map(same, a, b))
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.flags.fnc == b.flags.fnc and (a == b).all()


cache = npcache.Cache(sys.argv[1])
hosts = sys.argv[2:]
for host in hosts or ["python"]:
    for what, result in RESULTS.items():

        def function():
            assert not hosts, f"{host} has no {what}"
            return result

        found = cache.memoize(name=f"{host} {what}", version="1")(function)
        assert same(found(), result), f"the {what} of {host} is {found()}"
