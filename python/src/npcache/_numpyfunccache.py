"""`NumpyFuncCache`, the class that this project grew out of, with the same methods."""

from __future__ import annotations

import os
from typing import Any, Callable, TypeVar

from ._cache import Cache

F = TypeVar("F", bound=Callable[..., Any])


class NumpyFuncCache:
    """Drop-in for the class of this name: a program runs as before after changing its import.

    >>> import numpy as np, tempfile
    >>> from npcache import NumpyFuncCache
    >>> cache = NumpyFuncCache(tempfile.mkdtemp())
    >>> def expensive_function(x, y=10):
    ...     return np.linspace(x, y, 3)
    >>> cached_function = cache.create_cached_func(expensive_function)
    >>> cached_function(7, y=42)
    array([ 7. , 24.5, 42. ])
    >>> cache.clear_cache(remove_dir=True)

    Results are writable, and exceptions of the function reach the caller as they are. `thread_safety` is accepted and
    means nothing: threads and processes are safe always. Entries of the original are not read.
    """

    def __init__(self, cache_path: str | os.PathLike[str], thread_safety: str = "multithreading") -> None:
        if thread_safety not in ("multithreading", "multiprocessing"):
            raise ValueError(f"thread_safety is 'multithreading' or 'multiprocessing', not {thread_safety!r}")
        self.cache_path = os.fspath(cache_path)
        self.thread_safety = thread_safety
        self.cache = Cache(cache_path)

    def create_cached_func(self, func: F) -> F:
        """A cached version of `func`, to be called like it."""
        cached: Any = self.cache.memoize(func, writable=True)
        return cached  # type: ignore[no-any-return]

    def clear_cache(self, remove_dir: bool = False) -> None:
        """Removes the stored results, and with `remove_dir` the directory. Files that are not the cache's stay."""
        self.cache.clear(remove_dir=remove_dir)
