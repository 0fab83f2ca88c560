"""Threads, processes, pickles, signals: one computes, all get it, and nobody is left waiting."""

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import npcache


@pytest.fixture
def workers(tmp_path, monkeypatch):
    """The module of workers, on a cache of this test's; other processes open the same."""
    monkeypatch.setenv("NPCACHE_TEST_DIRECTORY", str(tmp_path / "shared"))
    paths = [str(Path(npcache.__file__).parents[1]), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.syspath_prepend(paths[1])
    sys.modules.pop("workers", None)
    import workers

    yield workers
    sys.modules.pop("workers", None)


pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# -------------------------------------------------------------------------------------------------------------- threads


def test_threads_that_ask_for_one_thing_compute_once(workers):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(workers.call_slow_square, [3] * 8))
    assert results == [9.0] * 8
    assert workers.runs() == 1
    stats = workers.cache.stats()
    assert (stats.computed, stats.shared + stats.memory + stats.disk) == (1, 7)


def test_threads_run_while_one_waits_or_computes(cache):
    """The interpreter lock is free during a wait."""
    release = threading.Event()
    f = cache.memoize(lambda x: np.array([release.wait(10)]), version="")
    threads = [threading.Thread(target=f, args=(1,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    begun = time.monotonic()
    assert sum(range(1000)) == 499500
    assert time.monotonic() - begun < 0.1
    release.set()
    for thread in threads:
        thread.join()
    assert f.stats().computed == 1


def test_no_call_of_many_threads_goes_uncounted_or_wrong(cache):
    f = cache.memoize(lambda x: np.full(3, x), version="")
    wrong = []

    def work(seed):
        for x in np.random.default_rng(seed).integers(0, 20, 500).tolist():
            if f(x).tolist() != [x] * 3:
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert f.stats().calls == 3000
    assert f.stats().computed == 20


def test_when_one_raises_the_next_who_waits_computes(cache):
    begun, tries = threading.Event(), []

    def f(x):
        tries.append(x)
        if len(tries) == 1:
            begun.set()
            time.sleep(0.2)
            raise ZeroDivisionError("first")
        return np.array([x])

    cached = cache.memoize(f, version="")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(cached, 1)
        begun.wait()
        second = pool.submit(cached, 1)
        with pytest.raises(ZeroDivisionError, match="first"):
            first.result()
        assert second.result().tolist() == [1]
    assert len(tries) == 2


def test_a_function_may_call_itself_through_the_cache(cache):
    @cache.memoize
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(60) == 1548008755920
    assert fibonacci.stats().computed == 61


# ------------------------------------------------------------------------------------------------------------ processes


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_ask_for_one_thing_compute_once(workers, method):
    with concurrent.futures.ProcessPoolExecutor(4, multiprocessing.get_context(method)) as pool:
        results = list(pool.map(workers.call_slow_square, [3] * 8))
    assert results == [9.0] * 8
    assert workers.runs() == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_caches_and_cached_functions_can_be_sent_to_processes(workers, method, cache):
    cached = cache.memoize(workers.plain_cube)
    assert cached(2)[0] == 8
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(workers.call_with, cached, 2).result()[0] == 8
        assert pool.submit(workers.call_with, workers.slow_square, 2).result()[0] == 4
        assert pool.submit(workers.ask, cache, 2).result() == (8.0, 1)
        assert pool.submit(workers.ask, cache, 3).result()[0] == 27
    assert cached.is_cached(3)


def test_a_child_of_fork_hits_and_stores(cache):
    f = cache.memoize(lambda x: np.full(100_000, x), version="")
    f(1)
    pid = os.fork()
    if pid == 0:
        try:
            good = f(1)[0] == 1 and f(2)[-1] == 2 and f.stats().computed == 2
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert f.is_cached(2)


def test_the_functions_of_a_main_program_have_one_name_in_spawned_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing, sys
import numpy as np
import npcache

cache = npcache.Cache({str(tmp_path / "cache")!r})
scale = 2

@cache.memoize
def f(x):
    return np.array([x * scale])

def ask(x):
    return f(x).tolist(), f.stats().computed

if __name__ == "__main__":
    assert ask(1) == ([2], 1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ask, (1,)) == ([2], 0), "computed again in the child"
""")
    environment = {**os.environ, "PYTHONPATH": str(Path(npcache.__file__).parents[1])}
    subprocess.run([sys.executable, str(program)], check=True, env=environment)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("imported", ["early", "late"])
def test_what_workers_find_in_memory_is_counted_when_they_end(tmp_path, method, imported):
    """The parent has npcache from the beginning, or not at all."""
    directory = str(tmp_path / "cache")
    (tmp_path / "cached.py").write_text(f"""
import numpy as np
import npcache

cache = npcache.Cache({directory!r})
by_name = {{name: cache.memoize(np.zeros, name=name, version="1") for name in ("process", "executor", "pool")}}
""")
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
{"import cached" if imported == "early" else ""}

def work(name):
    import cached
    for _ in range(1000):
        cached.by_name[name](3)

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    process = context.Process(target=work, args=("process",))
    process.start()
    process.join()
    with ProcessPoolExecutor(1, context) as pool:
        pool.submit(work, "executor").result()
    pool = context.Pool(1)
    pool.apply(work, ("pool",))
    pool.close()
    pool.join()
""")
    environment = {**os.environ, "PYTHONPATH": str(Path(npcache.__file__).parents[1])}
    subprocess.run([sys.executable, str(program)], check=True, env=environment)
    cache = npcache.Cache(directory)
    for name in ("process", "executor", "pool"):
        totals = cache.totals(name)
        assert (totals.misses, totals.memory) == (1, 999), name


NOTEBOOK = """
import npcache
cache = npcache.Cache({path!r})
offset = 1
class Scale:
    factor = 2
def double(x):
    return Scale.factor * x
@cache.memoize
def f(x, n=3):
    return double(x) + n + offset
def make():
    @cache.memoize
    def factorial(n):
        return n * factorial(n - 1) if n else 1
    return factorial
factorial = make()
"""


@pytest.mark.parametrize("is_file", [True, False])
def test_cloudpickle_takes_functions_of_a_script_or_a_notebook_with_their_keys(tmp_path, is_file):
    cloudpickle = pytest.importorskip(
        "cloudpickle", reason="cloudpickle is not installed: joblib and dask pickle by it"
    )
    cell = tmp_path / "cell.py"
    source = NOTEBOOK.format(path=str(tmp_path / "cache"))
    if is_file:
        cell.write_text(source)
    program = f"""
import cloudpickle, linecache, pickle, sys
source = {source!r}
if not {is_file}:
    linecache.cache[{str(cell)!r}] = len(source), None, source.splitlines(True), {str(cell)!r}
exec(compile(source, {str(cell)!r}, "exec"))
assert pickle.loads(pickle.dumps(f)) is f  # by its name
print(f.key(2), factorial.key(4), f(2), factorial(4), file=sys.stderr)
sys.stdout.buffer.write(cloudpickle.dumps([f, factorial]))
"""
    worker = """
import pickle, sys
f, factorial = pickle.load(sys.stdin.buffer)
print(f.key(2), factorial.key(4), f(2), factorial(4), file=sys.stderr)
print(f.stats().computed, factorial.stats().computed, factorial(6))
"""
    paths = [str(Path(module.__file__).parents[1]) for module in (npcache, cloudpickle)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def run(program, data):
        done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout, done.stderr.split()

    pickled, here = run(program, b"")
    counts, there = run(worker, pickled)
    assert there == here
    assert here[2:] == [b"8", b"24"]
    assert counts.split() == [b"0", b"0", b"720"]


def test_a_pickled_cache_is_the_same_directory(cache):
    options = npcache.Cache(cache.path, mode="readonly", lock_timeout=5)
    copy = pickle.loads(pickle.dumps(options))
    assert (copy.path, copy.options) == (options.path, {"mode": "readonly", "lock_timeout": "5"})
    assert pickle.loads(pickle.dumps(options)) is copy
    relative = pickle.loads(pickle.dumps(npcache.Cache(os.path.relpath(cache.path))))
    assert relative.path == cache.path


# -------------------------------------------------------------------------------------------------------------- signals


def test_ctrl_c_ends_a_wait_at_once(tmp_path, cache):
    released = tmp_path / "released"

    def f(x):
        (tmp_path / "begun").touch()
        while not released.exists():
            time.sleep(0.01)
        return np.array([x])

    cached = cache.memoize(f, name="f", version="")
    thread = threading.Thread(target=cached, args=(1,))
    thread.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cached(1)
    assert time.monotonic() - begun < 0.3 + 0.5
    released.touch()
    thread.join()
    assert cached(1).tolist() == [1]
    assert cached.stats().computed == 1


def test_ctrl_c_in_the_function_leaves_the_task_to_others(cache):
    tries = []

    def f(x):
        tries.append(x)
        if len(tries) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return np.array([x])

    cached = cache.memoize(f, version="")
    with pytest.raises(KeyboardInterrupt):
        cached(1)
    begun = time.monotonic()
    assert cached(1).tolist() == [1]
    assert time.monotonic() - begun < 1


def interrupted_at(target, call):
    """Presses Ctrl-C at the call's line number `target`, of those in the package; whether there was one."""
    directory = os.path.dirname(npcache.__file__)
    steps = 0

    def interrupt(frame, event, argument):
        nonlocal steps
        if os.path.dirname(frame.f_code.co_filename) != directory or frame.f_code.co_name == "__del__":
            return None
        steps += event == "line"
        if event == "line" and steps == target:
            raise KeyboardInterrupt
        return interrupt

    sys.settrace(interrupt)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return steps >= target


def test_interrupts_at_any_moment_leave_nothing_locked(cache):
    """Ctrl-C at any line of a call: the next call of the same must not wait for a lost task."""
    f = cache.memoize(lambda x: np.array([x]), name="f", version="")
    f(-1)
    target, interrupted = 0, True
    while interrupted:
        target += 1
        interrupted = interrupted_at(target, lambda: f(target))  # noqa: B023
        begun = time.monotonic()
        assert f(target).tolist() == [target]
        assert time.monotonic() - begun < 2, f"waited for a task lost at line {target} of the call"
    assert target > 50


@pytest.mark.parametrize("writable", [False, True])
def test_interrupts_at_any_moment_of_a_hit_let_go_of_its_memory(tmp_path, writable):
    mapping = npcache.Cache(tmp_path, memory_bytes=0, map="always")
    f = mapping.memoize(lambda: (np.ones(100_000), np.ones(100_000)), version="", writable=writable)
    f()

    def mapped():
        with open("/proc/self/maps") as maps:
            return sum(str(tmp_path) in line and ".npy" in line for line in maps)

    assert mapped() == 0
    kept = f()
    assert mapped() > 0
    del kept
    target = 0
    while target == 0 or interrupted_at(target, f):
        assert mapped() == 0, f"at line {target} of the call"
        target += 1
    assert target > 20
    assert f()[1].sum() == 100_000


def test_waiting_ends_at_lock_timeout(cache):
    impatient = npcache.Cache(cache.path, lock_timeout=1)
    release, begun = threading.Event(), threading.Event()

    def f(x):
        begun.set()
        release.wait(10)
        return np.array([x])

    first = cache.memoize(f, name="f", version="")
    second = impatient.memoize(lambda x: np.array([x]), name="f", version="")
    thread = threading.Thread(target=first, args=(1,))
    thread.start()
    begun.wait()
    started = time.monotonic()
    assert second(1).tolist() == [1]
    assert 0.5 < time.monotonic() - started < 5
    release.set()
    thread.join()
