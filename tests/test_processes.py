"""One caller computes: between threads and processes, through kills, interrupts, clears and forks."""

import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import compile_program
from driver import CLEARED, COMPUTED, DISK, FORKED, SHARED, Cache, Result

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TESTS = Path(__file__).resolve().parent

# A test that waits longer for a child hangs.
PATIENCE = 30

DIRECTORIES = re.compile(rb"\.npcache|\.npcache/tmp|[^./][^/]*|[^./][^/]*/[0-9a-f]{2}")
FILES = re.compile(
    rb"CACHEDIR\.TAG|\.npcache-format|\.npcache/lock|\.npcache/state-[0-9a-f]{32}-[0-9]+"
    rb"|[^./][^/]*/([0-9a-f]{2})/\1[0-9a-f]{62}\.npy"
)


def assert_nothing_unknown(path):
    """Every file below the cache directory is an entry or one of the few others: no temporary is left."""
    path = os.fsencode(path)
    for directory, directories, files in os.walk(path):
        for names, known in (directories, DIRECTORIES), (files, FILES):
            for name in names:
                name = os.path.relpath(os.path.join(directory, name), path)
                assert known.fullmatch(name), f"{name} is left in the cache directory"


def numbers(key):
    """What the function of tests/c/worker.c computes."""
    length = 40000 + key % 1000 * 64 if key % 8 == 0 else 4000 if key % 8 == 4 else 100 + key % 8
    return (np.arange(length, dtype=np.uint64) + np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)


def key_bytes(key):
    return key.to_bytes(8, "little")


class Workers:
    """Starts processes of tests/c/worker.c on one cache directory, and counts what they compute."""

    def __init__(self, program, path):
        self.program, self.path, self.counts = program, path, Path(f"{path}-counts")
        self.started = []

    def start(self, keys=(0, 1), threads=1, milliseconds=0, before=(), **environment):
        """A process that is ready and waits for `go`. `environment`: options by name; `before`: what it runs under."""
        command = [*before, self.program, self.path, threads, milliseconds, self.counts, *keys]
        variables = {f"NPCACHE_{name.upper()}": value for name, value in environment.items()}
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables},
            preexec_fn=let_ctrl_c_through,
        )
        self.started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    def computed(self):
        """(key, process) of each computation, in the order in which they began."""
        return [tuple(map(int, line.split())) for line in self.counts.read_bytes().splitlines()]

    def run(self, count, **options):
        """Lets `count` processes go at once; (key, origin, stored) of all their calls."""
        processes = [self.start(**options) for _ in range(count)]
        for process in processes:
            go(process)
        return [call for process in processes for call in finish(process)]


def let_ctrl_c_through():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def go(process):
    process.stdin.close()
    process.stdin = None


def finish(process):
    """(key, origin, stored) of each call of a process that was let go."""
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return [tuple(map(int, line.split())) for line in out.splitlines()]


@pytest.fixture(scope="session")
def worker_program():
    return compile_program(TESTS / "c" / "worker.c")


@pytest.fixture
def workers(worker_program, cache_path):
    workers = Workers(worker_program, cache_path)
    workers.counts.touch()
    yield workers
    for process in workers.started:
        process.kill()
        process.wait()


@contextmanager
def python(code, *arguments, before=()):
    """Another process that runs `code`, with `driver`'s names, and the arguments in sys.argv."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", "from driver import *\nimport sys, time\n" + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        preexec_fn=let_ctrl_c_through,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_python(code, *arguments, before=()):
    with python(code, *arguments, before=before) as process:
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        return out.decode()


class Forked:
    """A child of this very process that runs `action`. It is killed where it hangs."""

    def __init__(self, action):
        self._out, into = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(into)
            return
        # In a soak an action goes on for some of the time that it was given.
        signal.alarm(PATIENCE + int(float(os.environ.get("FAULT_SECONDS", 0))))
        try:
            try:
                answer = (action(), None)
            except BaseException as e:
                answer = (None, repr(e))
            os.write(into, pickle.dumps(answer))
        finally:
            os._exit(0)

    def answer(self):
        with open(self._out, "rb") as out:
            answer = out.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"the child ended with {status}: 14 is the alarm, it hung"
        value, error = pickle.loads(answer)
        assert error is None, error
        return value


def in_thread(action):
    """Runs `action` in a thread; calling what is returned waits for its result."""
    result = []
    thread = threading.Thread(target=lambda: result.append(action()), daemon=True)
    thread.start()

    def answer():
        thread.join(PATIENCE)
        assert result, "the thread hangs or has failed"
        return result[0]

    return answer


def test_sixteen_threads_compute_once(workers):
    calls = workers.run(1, threads=16, milliseconds=300)
    assert len(workers.computed()) == 1
    assert sorted(origin for _, origin, _ in calls) == [COMPUTED] + 15 * [SHARED]
    assert_nothing_unknown(workers.path)


def test_sixteen_processes_compute_once(workers):
    calls = workers.run(16, milliseconds=300)
    assert len(workers.computed()) == 1
    assert sorted(origin for _, origin, _ in calls) == [COMPUTED] + 15 * [DISK]
    assert {stored for _, _, stored in calls} == {0}
    assert_nothing_unknown(workers.path)


def test_threads_of_many_processes_compute_each_key_once(workers):
    calls = workers.run(8, threads=4, keys=(8, 13), milliseconds=40)
    assert sorted(key for key, _ in workers.computed()) == [8, 9, 10, 11, 12]
    assert len(calls) == 8 * 4 * 5
    assert sum(origin == COMPUTED for _, origin, _ in calls) == 5
    assert_nothing_unknown(workers.path)


def test_a_kill_lets_exactly_one_other_take_over(workers):
    processes = [workers.start(milliseconds=400) for _ in range(8)]
    for process in processes:
        go(process)
    while not workers.computed():
        time.sleep(0.01)
    time.sleep(0.1)
    [(_, first)] = workers.computed()
    [killed] = [process for process in processes if process.pid == first]
    killed.kill()
    calls = [call for process in processes if process is not killed for call in finish(process)]
    assert sorted(origin for _, origin, _ in calls) == [COMPUTED] + 6 * [DISK]
    assert len(workers.computed()) == 2
    assert_nothing_unknown(workers.path)


def test_two_hundred_kills_leave_only_whole_entries(workers, record_property):
    chance = random.Random(2)
    entries = killed_in_work = 0
    for run in range(200):
        first = 1000 * run
        process = workers.start(keys=(first, first + 1000))
        go(process)
        time.sleep(chance.uniform(0.005, 0.06))
        process.kill()
        process.communicate()
        killed_in_work += process.returncode == -signal.SIGKILL
        assert_nothing_unknown(workers.path)
        if run % 20 < 19:
            continue
        # What was begun is there whole, or not at all; each kill costs at most the one that it interrupted.
        computed = {key for key, _ in workers.computed()}
        on_disk = sum(1 for _ in workers.path.glob("numbers/??/*.npy"))
        assert len(computed) - 20 <= on_disk <= len(computed)
        with Cache(workers.path) as cache:
            found = 0
            for key in computed:
                begun = cache.begin("numbers", "1", key_bytes(key))
                if not isinstance(begun, Result):
                    begun.abandon()
                    continue
                found += 1
                assert np.array_equal(begun.array, numbers(key))
                assert np.array_equal(np.load(begun.path), numbers(key))
            assert found == on_disk, "not every entry is whole"
            cache.clear()
        entries += found
        workers.counts.write_bytes(b"")
    record_property("entries", entries)
    print(f"{killed_in_work} of 200 writers killed in their work; {entries} entries found, all whole")
    assert killed_in_work > 190 and entries > 200, (killed_in_work, entries)


def test_ctrl_c_ends_a_waiting_c_program_at_once(workers):
    with Cache(workers.path) as cache:
        output = cache.begin("numbers", "1", key_bytes(0))
        waiting = workers.start()
        # A C program's own: SIGINT ends it.
        go(waiting)
        time.sleep(0.3)
        assert waiting.poll() is None
        sent = time.monotonic()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(PATIENCE) == -signal.SIGINT
        assert time.monotonic() - sent < 1
        assert workers.computed() == []
        # The one that computes does not notice.
        output.write(numbers(0))
        output.commit()
        assert output.end().stored == 0
    assert workers.run(1) == [(0, DISK, 0)]


@pytest.mark.parametrize("where", ["process", "thread"])
def test_ctrl_c_ends_a_waiting_python_program_at_once(cache_path, where):
    code = """
cache = Cache(sys.argv[1])
if sys.argv[2] == "thread":
    import threading
    held = []
    holder = threading.Thread(target=lambda: held.append(cache.begin("held", "1")))
    holder.start()
    holder.join()
print("waiting", flush=True)
try:
    cache.call("held", "1", b"", lambda: 1 / 0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with Cache(cache_path) as cache:
        output = cache.begin("held", "1") if where == "process" else None
        with python(code, cache_path, where) as waiting:
            assert waiting.stdout.readline() == b"waiting\n"
            time.sleep(0.25)
            sent = time.monotonic()
            waiting.send_signal(signal.SIGINT)
            assert waiting.stdout.readline() == b"interrupted\n"
            assert time.monotonic() - sent < 1
        if output:
            output.abandon()


@pytest.mark.parametrize("memory", [0, 1 << 24])
def test_what_was_begun_before_a_clear_is_not_stored_after_it(cache_path, monkeypatch, memory):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", str(memory))
    with Cache(cache_path) as cache:
        for clear in ("cache.clear()", "cache.clear_function('cleared')"):
            output = cache.begin("cleared", "1")
            other = cache.begin("kept", "1")
            run_python(f"with Cache(sys.argv[1]) as cache: {clear}", cache_path)
            results = []
            for task in (output, other):
                task.write(np.arange(3))
                task.commit()
                results.append(task.end())
            assert results[0].stored == CLEARED and results[0].path is None
            # It is the caller's all the same.
            assert results[0].array.tolist() == [0, 1, 2]
            # `clear_function` of one is nothing to another.
            assert results[1].stored == (CLEARED if clear == "cache.clear()" else 0)
            again = cache.call("cleared", "1", b"", lambda: np.arange(4))
            assert (again.origin, again.stored) == (COMPUTED, 0)
            assert cache.call("cleared", "1", b"", lambda: 1 / 0).array.tolist() == [0, 1, 2, 3]
            cache.clear()
    assert_nothing_unknown(cache_path)


def test_a_call_after_a_clear_joins_none_from_before(cache_path):
    with Cache(cache_path) as cache, Cache(cache_path) as another:
        old = cache.begin("joined", "1")
        another.clear()
        new = in_thread(lambda: another.call("joined", "1", b"", lambda: np.arange(9)))()
        assert (new.origin, new.stored) == (COMPUTED, 0)
        old.write(np.arange(3))
        old.commit()
        assert old.end().stored == CLEARED
        assert cache.call("joined", "1", b"", lambda: 1 / 0).array.size == 9


def test_what_was_stored_before_a_clear_is_not_found_after_it(workers):
    with Cache(workers.path) as cache:
        workers.run(1, keys=(0, 20))
        assert cache.call("numbers", "1", key_bytes(3), lambda: 1 / 0).origin == DISK
        run_python("with Cache(sys.argv[1]) as cache: cache.clear()", workers.path)
        assert cache.call("numbers", "1", key_bytes(3), lambda: numbers(3)).origin == COMPUTED
    assert [origin for _, origin, _ in workers.run(1, keys=(0, 20))].count(COMPUTED) == 19


@pytest.mark.parametrize("memory", [0, 1 << 24])
@pytest.mark.parametrize("threads", [1, 3])
def test_no_result_outlives_a_clear_however_they_race(cache_path, tmp_path, monkeypatch, threads, memory):
    """The function returns a number that rises; after a clear nobody is given a smaller one than it rose to before."""
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", str(memory))
    number, cleared = tmp_path / "number", tmp_path / "cleared"

    def write(path, value):
        path.with_suffix(".new").write_text(str(value))
        path.with_suffix(".new").rename(path)

    write(number, 0)
    write(cleared, 0)
    until = time.monotonic() + 1.5

    def call(cache, chance):
        calls = 0
        while time.monotonic() < until:
            at_least = int(cleared.read_text())
            compute = lambda: np.array([int(number.read_text())])  # noqa: E731
            found = cache.call("rises", "1", bytes([chance.randrange(3)]), compute).array[0]
            assert found >= at_least, f"{found} is found after a clear at {at_least}"
            calls += 1
        return calls

    def process(seed):
        with Cache(cache_path) as cache:
            others = [in_thread(lambda i=i: call(cache, random.Random(seed + i))) for i in range(1, threads)]
            return call(cache, random.Random(seed)) + sum(other() for other in others)

    children = [Forked(lambda seed=seed: process(seed)) for seed in (10, 20, 30)]
    with Cache(cache_path) as cache:
        clears = 0
        while time.monotonic() < until:
            clears += 1
            write(number, clears)
            cache.clear() if clears % 2 else cache.clear_function("rises")
            write(cleared, clears)
    calls = sum(child.answer() for child in children)
    assert calls > 10 * clears > 100, (calls, clears)
    assert_nothing_unknown(cache_path)


def test_after_lock_timeout_a_waiting_process_computes_too(workers):
    with Cache(workers.path) as cache:
        output = cache.begin("numbers", "1", key_bytes(0))
        waiting = workers.start(lock_timeout="0.5")
        began = time.monotonic()
        go(waiting)
        assert finish(waiting) == [(0, COMPUTED, 0)]
        assert 0.5 <= time.monotonic() - began < 2
        output.write(numbers(0))
        output.commit()
        assert output.end().stored == 0
    assert workers.run(1) == [(0, DISK, 0)]
    assert_nothing_unknown(workers.path)


def test_waits_in_slices_add_up_to_lock_timeout(cache_path):
    code = """
began = time.monotonic()
with Cache(sys.argv[1], lock_timeout=0.5) as cache:
    result = cache.call("held", "1", b"", lambda: [7.0])
print(result.origin, result.stored, time.monotonic() - began)
"""
    with Cache(cache_path) as cache:
        output = cache.begin("held", "1")
        origin, stored, seconds = map(float, run_python(code, cache_path).split())
        assert (origin, stored) == (COMPUTED, 0) and 0.5 <= seconds < 2
        output.abandon()


def test_each_waiting_thread_waits_lock_timeout_once(cache_path):
    with Cache(cache_path, lock_timeout=0.5) as cache:
        output = cache.begin("held", "1")

        def wait():
            began, waited = time.monotonic(), []

            def compute():
                waited.append(time.monotonic() - began)
                time.sleep(2)
                return np.arange(3)

            cache.call("held", "1", b"", compute)
            return waited[0]

        threads = []
        for _ in range(4):
            threads.append(in_thread(wait))
            time.sleep(0.02)
        seconds = [thread() for thread in threads]
        assert 0.4 <= min(seconds) and max(seconds) < 0.9, seconds
        output.abandon()


def test_flight_off_lets_every_caller_compute(workers):
    calls = workers.run(2, threads=3, milliseconds=400, flight="off")
    assert len(workers.computed()) == 6
    assert {origin for _, origin, _ in calls} == {COMPUTED}
    assert_nothing_unknown(workers.path)


def test_flight_thread_shares_within_a_process(workers):
    calls = workers.run(3, threads=4, milliseconds=400, flight="thread")
    assert len({process for _, process in workers.computed()}) == len(workers.computed()) == 3
    assert sorted(origin for _, origin, _ in calls) == 3 * [COMPUTED] + 9 * [SHARED]


@pytest.mark.parametrize("memory", [0, 1 << 24])
def test_parent_and_children_of_a_fork_exclude_each_other(cache_path, tmp_path, monkeypatch, memory):
    monkeypatch.setenv("NPCACHE_MEMORY_BYTES", str(memory))
    counts = tmp_path / "counts"
    stop = threading.Event()

    def compute():
        with open(counts, "ab", buffering=0) as file:
            file.write(b".")
        time.sleep(0.02)
        return np.arange(50_000)

    with Cache(cache_path) as cache:

        def hammer(number):
            # Takes and gives back every lock that there is, so that a fork finds some of them taken.
            i = 0
            while not stop.is_set():
                cache.call("hammer", "1", bytes([number, i % 5]), lambda: np.arange(10))
                i += 1
                if i % 10 == 0:
                    cache.clear_function("hammer")
            return i

        hammers = [in_thread(lambda n=n: hammer(n)) for n in range(3)]
        try:
            for rounds in range(12):
                action = lambda: cache.call("forked", "1", bytes([rounds]), compute).origin  # noqa: E731, B023
                children = [Forked(action) for _ in range(3)]
                origins = [action()] + [child.answer() for child in children]
                assert origins.count(COMPUTED) == 1, origins
        finally:  # before the cache is freed
            stop.set()
            calls = [thread() for thread in hammers]
        assert sum(calls) > 100
    assert counts.stat().st_size == 12
    assert_nothing_unknown(cache_path)


def test_a_child_waits_for_its_parent_and_a_parent_for_its_child(cache_path):
    with Cache(cache_path) as cache:
        output = cache.begin("parent's", "1")
        child = Forked(lambda: cache.call("parent's", "1", b"", lambda: 1 / 0).origin)
        time.sleep(0.2)
        output.write(np.arange(3))
        output.commit()
        assert output.end().stored == 0
        assert child.answer() == DISK

        reading, writing = os.pipe()

        def compute():
            os.write(writing, b".")
            time.sleep(0.3)
            return np.arange(3)

        child = Forked(lambda: cache.call("child's", "1", b"", compute).origin)
        assert os.read(reading, 1) == b"."
        assert cache.call("child's", "1", b"", lambda: 1 / 0).origin == DISK
        assert child.answer() == COMPUTED


@pytest.mark.parametrize("child", ["forked", "executed"])
def test_a_dead_process_holds_no_lock_through_its_children(cache_path, child):
    reading, writing = os.pipe()

    def hold():
        cache = Cache(cache_path)
        outputs = [cache.begin("held", "1"), in_thread(lambda: cache.begin("held too", "1"))()]
        if child == "forked":
            grandchild = Forked(lambda: time.sleep(PATIENCE)).pid
        else:
            grandchild = subprocess.Popen(["sleep", str(PATIENCE)], close_fds=False).pid
        os.write(writing, b"%d\n" % grandchild)
        time.sleep(PATIENCE)
        return len(outputs)

    holder = Forked(hold)
    grandchild = int(os.read(reading, 100))
    try:
        with Cache(cache_path) as cache:
            assert cache.begin("held", "1", wait_ms=0) is None
            os.kill(holder.pid, signal.SIGKILL)
            os.waitpid(holder.pid, 0)
            began = time.monotonic()
            for name in ("held", "held too"):
                assert cache.call(name, "1", b"", lambda: np.arange(3)).stored == 0
            cache.clear()
            assert time.monotonic() - began < 1
        os.kill(grandchild, 0)  # it lives
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_an_output_that_a_child_inherits_is_not_stored_by_it(cache_path):
    with Cache(cache_path) as cache:
        output = cache.begin("inherited", "1")
        output.write(np.arange(3))
        output.commit()

        def end():
            result = output.end()
            return result.stored, result.path, result.array.tolist()

        assert Forked(end).answer() == (FORKED, None, [0, 1, 2])
        # The flight is still the parent's.
        assert in_thread(lambda: cache.begin("inherited", "1", wait_ms=50) is None)()
        assert Forked(lambda: cache.begin("inherited", "1", wait_ms=50) is None).answer()
        assert output.end().stored == 0
        assert Forked(lambda: cache.begin("inherited", "1").array.tolist()).answer() == [0, 1, 2]
    assert_nothing_unknown(cache_path)


def test_a_result_that_a_child_inherits_stays_readable_in_both(cache_path):
    data = np.arange(100_000)
    for _ in range(2):  # computed, then mapped
        with Cache(cache_path) as cache:
            result = cache.call("inherited", "1", b"", lambda: data)

            def use():
                total = int(result.array.sum())  # noqa: B023
                cache.close()  # noqa: B023
                return total

            assert Forked(use).answer() == data.sum()
            assert np.array_equal(result.array, data)


def _pool_task(key):
    cache, counts = _pool_task.given

    def compute():
        with open(counts, "ab", buffering=0) as file:
            file.write(b".")
        time.sleep(0.05)
        return np.full(1000, key)

    return int(cache.call("pool", "1", bytes([key]), compute).array.sum())


def test_a_multiprocessing_pool_computes_each_key_once(cache_path, tmp_path):
    counts = tmp_path / "counts"
    with Cache(cache_path) as cache:
        cache.call("pool", "1", b"warm", lambda: np.arange(3))
        _pool_task.given = cache, counts
        with multiprocessing.get_context("fork").Pool(4) as pool:
            keys = [0, 1, 2, 3] * 8
            assert pool.map_async(_pool_task, keys, chunksize=1).get(PATIENCE) == [1000 * key for key in keys]
    assert counts.stat().st_size == 4
    assert_nothing_unknown(cache_path)
