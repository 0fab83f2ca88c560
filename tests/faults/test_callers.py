"""What callers do that a cache has to live with: barriers, signals, forks, functions that never return, clears."""

import ctypes
import os
import shutil
import signal
import threading
import time

import driver
import numpy as np
import pytest
from conftest import need_tool
from driver import CLEARED, COMPUTED, DISK, FORKED, Cache, Result
from test_processes import (
    PATIENCE,
    Forked,
    assert_nothing_unknown,
    finish,
    go,
    in_thread,
    key_bytes,
    numbers,
    python,
    run_python,
    worker_program,
    workers,
)

from .test_kills import Storm, assert_whole_and_free

__all__ = ["worker_program", "workers"]  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# A function that ends in a barrier between two callers.


class Barrier:
    """Where two processes wait for each other, if both come."""

    def __init__(self):
        self.pipes = [os.pipe(), os.pipe()]

    def wait(self, side):
        os.write(self.pipes[side][1], b".")
        assert os.read(self.pipes[1 - side][0], 1) == b"."


def meet(path, barrier, side, **options):
    """Calls a function that returns only once the other side calls it too; how long that took."""

    def compute():
        barrier.wait(side)
        return numbers(1)

    began = time.monotonic()
    with Cache(path, **options) as cache:
        result = cache.call("collective", "1", b"", compute)
        assert np.array_equal(result.array, numbers(1))
        return time.monotonic() - began, result.origin


def test_a_barrier_in_a_function_holds_two_processes_up_no_longer_than_lock_timeout(cache_path):
    barrier = Barrier()
    sides = [Forked(lambda side=side: meet(cache_path, barrier, side, lock_timeout=1)) for side in (0, 1)]
    (first, _), (second, _) = (side.answer() for side in sides)
    assert 0.9 < max(first, second) < 15
    assert_nothing_unknown(cache_path)


def test_a_barrier_in_a_function_holds_nobody_up_with_flight_off(cache_path):
    """With the default `lock_timeout`, which is longer than this test's patience."""
    barrier = Barrier()
    sides = [Forked(lambda side=side: meet(cache_path, barrier, side, flight="off")) for side in (0, 1)]
    assert [origin for _, origin in (side.answer() for side in sides)] == [COMPUTED, COMPUTED]
    with Cache(cache_path) as cache:
        assert cache.call("collective", "1", b"", lambda: 1 / 0).origin == DISK
    assert_nothing_unknown(cache_path)


# Signals.


@pytest.mark.parametrize("memory", ["0", "2M"])
def test_signals_at_every_instant_cost_nothing(cache_path, tmp_path, going_on, chance, count, memory):
    storm = Storm(cache_path, tmp_path / "tally", threads=4, timer_us=1000, options={"NPCACHE_MEMORY_BYTES": memory})
    try:
        for _ in range(3):
            storm.start(chance.randrange(1 << 31))
        for _ in going_on(3, share=0.05):
            time.sleep(0.1)
        storm.end()
    finally:
        for process in storm.running:
            process.kill()
    told = storm.told()
    count(signals=told["signals"], calls_in_storms=told["calls"])
    print(told)
    assert told["wrong"] == told["errors"] == 0, told
    assert told["signals"] > 100 and told["calls"] > told["computed"] > 0, told
    count(entries_found_whole=assert_whole_and_free(cache_path))


# Functions that do not come back as they went in.


def call_in_c(cache, function):
    """npcache_call itself, with what it calls back."""
    out = ctypes.c_void_p()
    callback = driver.Function(function)
    arguments = (cache._cache, b"forks", b"1", b"", 0, callback, None, ctypes.byref(out))
    driver.check(driver.library.npcache_call, *arguments)
    return Result(out)


def test_a_function_that_forks_gives_both_processes_the_result_and_stores_it_once(cache_path):
    parent = os.getpid()
    children = []

    def function(user_data, args, length, output):
        children.append(os.fork())
        out = driver.Output(output)
        out.write(numbers(8))
        out.commit()
        return 0

    with Cache(cache_path) as cache:
        try:
            result = call_in_c(cache, function)
            right = np.array_equal(result.array, numbers(8))
            again = cache.call("after", "1", key_bytes(8), lambda: numbers(8)) if os.getpid() != parent else None
        finally:
            if os.getpid() != parent:
                # The fork left it nothing to store with; it goes on as a process of its own.
                good = right and result.stored == FORKED and again.stored == 0
                os._exit(0 if good else 1)
        [child] = children
        _, status = os.waitpid(child, 0)
        assert (right, result.origin, result.stored, status) == (True, COMPUTED, 0, 0)
        assert cache.call("forks", "1", b"", lambda: 1 / 0).origin == DISK
        assert cache.call("after", "1", key_bytes(8), lambda: 1 / 0).origin == DISK
    assert_nothing_unknown(cache_path)


def test_a_child_that_was_forked_while_a_bound_was_set_keeps_nobody_from_setting_one(cache_path):
    """Who sets one replaces a file, which strace makes a long moment."""
    code = """
import glob, os, signal, threading
cache = Cache(sys.argv[1])
setting = threading.Thread(target=cache.configure, args=("max_entries", "7"))
setting.start()
while not glob.glob(sys.argv[1] + "/.npcache/tmp/*"):
    time.sleep(0.01)
child = os.fork()
if not child:
    signal.pause()
assert setting.is_alive(), "set already: this test tests nothing"
setting.join()
print(child, flush=True)
"""
    slow_rename = [need_tool("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat"]
    slow_rename += ["-e", "inject=renameat:delay_enter=1000000"]
    with python(code, cache_path, before=slow_rename) as setting:
        child = int(setting.stdout.readline())
        try:
            run_python("with Cache(sys.argv[1]) as cache: cache.configure('max_entries', '8')", cache_path)
        finally:
            os.kill(child, signal.SIGKILL)
    assert "max_entries=8\n" in (cache_path / ".npcache" / "config").read_text()


def test_a_function_that_never_returns_keeps_others_for_lock_timeout_and_no_longer(cache_path):
    never, began = threading.Event(), threading.Event()

    def stuck():
        began.set()
        never.wait(PATIENCE)
        raise RuntimeError("it was let go at last")

    def call():
        with Cache(cache_path, lock_timeout=0.5) as cache:
            started = time.monotonic()
            result = cache.call("stuck", "1", b"", lambda: numbers(4))
            assert np.array_equal(result.array, numbers(4))
            return time.monotonic() - started, result.stored

    with Cache(cache_path) as cache:

        def be_stuck():
            try:
                cache.call("stuck", "1", b"", stuck)
            except RuntimeError as e:
                return str(e)

        holder = in_thread(be_stuck)
        assert began.wait(PATIENCE)
        other_thread, other_process = in_thread(call), Forked(call)
        waited = [other_thread(), other_process.answer()]
        assert all(stored == 0 for _, stored in waited)
        assert 0.4 < max(seconds for seconds, _ in waited) < 15
        # What they stored is there for the rest, though the first still holds on.
        assert cache.call("stuck", "1", b"", lambda: 1 / 0).origin == DISK
        never.set()
        assert "at last" in holder()
    assert_nothing_unknown(cache_path)


# Clearing while others compute.


@pytest.mark.parametrize("memory", ["0", "16M"])
def test_what_eight_slow_processes_began_before_a_clear_is_not_found_after_it(cache_path, going_on, count, memory):
    def compute_slowly(until):
        stored = cleared = 0
        with Cache(cache_path, memory_bytes=memory) as cache:
            while time.monotonic() < until:
                began = time.monotonic()

                def compute(began=began):
                    time.sleep(0.15)
                    return np.array([began])

                # The number is the time at which computing it began, or earlier; the clock is one for all processes.
                result = cache.call("slow", "1", bytes([int(began * 50) % 4]), compute)
                stored += result.stored == 0
                cleared += result.stored == CLEARED
                assert result.stored in (0, CLEARED)
        return stored, cleared

    seconds = next(going_on(3, share=0.03))
    until = time.monotonic() + seconds
    children = [Forked(lambda: compute_slowly(until)) for _ in range(8)]
    clears = 0
    with Cache(cache_path, memory_bytes=memory) as cache:
        while time.monotonic() < until - 0.5:
            time.sleep(0.1)
            at = time.monotonic()
            cache.clear() if clears % 2 else cache.clear_function("slow")
            clears += 1
            for key in range(4):
                found = cache.begin("slow", "1", bytes([key]), wait_ms=0)
                if isinstance(found, Result):
                    assert found.array[0] >= at, "computed before a clear, and found after it"
                elif found is not None:
                    found.abandon()
        told = [child.answer() for child in children]
    stored, cleared = map(sum, zip(*told))
    count(clears=clears, results_too_late_for_a_clear=cleared)
    assert clears > 3 and cleared > 0 and stored > 0, (clears, stored, cleared)
    assert_nothing_unknown(cache_path)


def test_clears_without_a_pause_cost_no_result_but_those_they_were_called_during(cache_path, count):
    """Each clear removes the directories in which others are about to make files."""
    until = time.monotonic() + 1.5

    def compute(number):
        stored, calls = [], 0
        with Cache(cache_path, memory_bytes="0") as cache:
            while time.monotonic() < until:
                calls += 1
                result = cache.call("swept", "1", bytes([number, calls % 8]), lambda: numbers(number))
                assert np.array_equal(result.array, numbers(number))
                stored.append(result.stored)
        return stored

    def clear():
        clears = 0
        with Cache(cache_path) as cache:
            while time.monotonic() < until:
                cache.clear_function("swept") if clears % 2 else cache.clear()
                clears += 1
        return clears

    storing = [Forked(lambda number=number: compute(number)) for number in range(2)]
    clearing = [Forked(clear) for _ in range(2)]
    told = [stored for child in storing for stored in child.answer()]
    count(clears=sum(child.answer() for child in clearing), results_too_late_for_a_clear=told.count(CLEARED))
    assert set(told) == {0, CLEARED}, {status: told.count(status) for status in set(told)}
    assert_nothing_unknown(cache_path)


def test_a_clear_waits_for_who_is_just_giving_an_entry_its_name(workers, count):
    """Between the look whether there was a clear and the link there is a moment, which strace makes a long one."""
    slow_link = [need_tool("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=linkat"]
    slow_link += ["-e", "inject=linkat:delay_enter=1500000"]
    waited = 0
    with Cache(workers.path) as cache:
        for key in range(4):
            publisher = workers.start(keys=(key, key + 1), before=slow_link)
            go(publisher)
            while len(workers.computed()) <= key:
                time.sleep(0.01)
            time.sleep(0.5)  # it has the result, and is storing it
            began = time.monotonic()
            cache.clear()
            waited += time.monotonic() - began > 0.5
            [(_, _, stored)] = finish(publisher)
            assert stored in (0, CLEARED)
            begun = cache.begin("numbers", "1", key_bytes(key), wait_ms=0)
            assert not isinstance(begun, Result), "stored before a clear, and found after it"
            begun.abandon()
    assert waited > 0, "no clear came at that moment: this test tests nothing"
    count(clears=4)


def test_what_was_begun_before_its_call_was_forgotten_is_not_found_after_it(cache_path):
    """It is stored in the moment between the removal of the entry and the end of forgetting, which strace makes a long one."""
    slow_unlink = [need_tool("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=unlinkat"]
    slow_unlink += ["-e", "inject=unlinkat:delay_exit=2000000"]
    forget = "with Cache(sys.argv[1]) as cache: cache.forget('forgotten', '1')"
    with Cache(cache_path, mode="refresh") as cache:
        entry = cache.call("forgotten", "1", b"", lambda: np.arange(3)).path
        output = cache.begin("forgotten", "1")
        with python(forget, cache_path, before=slow_unlink) as forgetting:
            while entry.exists():
                time.sleep(0.01)
            output.write(np.arange(3))
            output.commit()
            result = output.end()
            assert forgetting.poll() is None, "forgotten already: this test tests nothing"
            assert forgetting.wait(PATIENCE) == 0
        assert (result.stored, entry.exists()) == (CLEARED, False)


def test_what_is_stored_between_a_callers_look_and_its_lock_is_not_computed_again(cache_path, tmp_path):
    """That moment, which strace makes a long one, is the only one in which it would be missed."""
    ask = "with Cache(sys.argv[1]) as cache: print(cache.call('f', '1', b'', lambda: np.arange(3)).origin)"
    traced = [need_tool("strace", "strace"), "-f", "-qq", "-e", "trace=fcntl", "-o"]
    with Cache(cache_path):  # made, so that both find it as it is
        pass
    shutil.copytree(cache_path, tmp_path / "copy")
    with python(ask, tmp_path / "copy", before=[*traced, tmp_path / "log"]) as alone:
        assert alone.wait(PATIENCE) == 0
    locks = ["F_OFD_SETLK" in line for line in (tmp_path / "log").read_text().splitlines()]
    late = ["-e", f"inject=fcntl:delay_enter=3000000:when={1 + locks.index(True)}"]
    with python(ask, cache_path, before=[*traced, tmp_path / "log", *late]) as waiting, Cache(cache_path) as cache:
        time.sleep(1.5)
        assert cache.call("f", "1", b"", lambda: np.arange(3)).origin == COMPUTED, "too early: this test tests nothing"
        said, _ = waiting.communicate(timeout=PATIENCE)
    assert "DELAYED" in (tmp_path / "log").read_text()
    assert int(said) == DISK
