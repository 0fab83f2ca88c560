"""npcache: a persistent memo table for functions that return numeric arrays.

The first call with given arguments computes; every later one, in any thread, process or run, and in any language that
shares the directory, returns the stored arrays.

    import numpy as np
    import npcache

    cache = npcache.Cache("results")

    @cache.memoize
    def spectrum(signal, window=1024):
        return np.abs(np.fft.rfft(signal[:window]))

A change of the function, of what it calls in its module, or of a global number that it reads, computes anew.
docs/python.md tells the rest.
"""

from ._arguments import File, register
from ._cache import Cache, CachedFunction, Stats
from ._identity import CacheWarning
from ._library import Error
from ._numpyfunccache import NumpyFuncCache

__version__ = "0.1.0"

__all__ = ["Cache", "CacheWarning", "CachedFunction", "Error", "File", "NumpyFuncCache", "Stats", "register"]

for _public in (Cache, CacheWarning, CachedFunction, Error, File, NumpyFuncCache, Stats, register):
    _public.__module__ = "npcache"
del _public
