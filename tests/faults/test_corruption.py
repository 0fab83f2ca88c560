"""A stored result comes back bit for bit or not at all: damage of every kind is recomputed, once, and never returned.

Every look at an entry opens the cache anew, so that it is the file that is looked at and nothing remembered.
"""

import os
import random
import resource
import shutil
import socket
import threading

import driver
import numpy as np
import pytest
from driver import COMPUTED, DISK, Cache, Result
from test_processes import Forked, assert_nothing_unknown, numbers

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# Of tests/c/worker.c's array: 101 numbers are read at once, 4,000 in two steps, 40,512 are mapped.
SMALL, MEDIUM, MAPPED = 1, 4, 8


class Victim:
    """An entry that is damaged again and again."""

    def __init__(self, root, key):
        self.root, self.key = root, key
        self.computed = 0
        result = self.call()
        self.path = result.path
        self.good = self.path.read_bytes()
        self.data_at = self.good.index(numbers(key).tobytes())
        self.data_len = numbers(key).nbytes
        self.footer_at = self.data_at + self.data_len

    def call(self, **options):
        def compute():
            self.computed += 1
            return numbers(self.key)

        with Cache(self.root, **options) as cache:
            return cache.call("numbers", "1", bytes([self.key]), compute)

    def replace(self, content):
        """Puts a file of other content in the entry's place."""
        self.path.unlink()
        self.path.write_bytes(content)

    def misses(self, **options):
        """How often the function is called in three calls, whose results are all right."""
        before = self.computed
        for _ in range(3):
            result = self.call(**options)
            assert np.array_equal(result.array, numbers(self.key)), "a wrong result was returned"
            assert result.stored == 0
        return self.computed - before

    def is_missed_once(self):
        misses = self.misses()
        return misses == 1 and numbers(self.key).tobytes() in self.path.read_bytes()


@pytest.fixture(params=[SMALL, MEDIUM, MAPPED], ids=["small", "medium", "mapped"])
def victim(request, cache_path):
    return Victim(cache_path, request.param)


@pytest.fixture
def small(cache_path):
    return Victim(cache_path, SMALL)


@pytest.fixture
def mapped(cache_path):
    return Victim(cache_path, MAPPED)


def flipped(content, at, bit):
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def test_every_byte_of_a_small_entry_is_missed_when_a_bit_of_it_flips(small, count):
    chance = random.Random(1)
    flips = {"data": 0, "header": 0, "footer": 0}
    for at in range(len(small.good)):
        small.replace(flipped(small.good, at, chance.randrange(8)))
        assert small.is_missed_once(), f"byte {at}"
        # The replacement may say another time in more or fewer digits, so flips are made in the first entry.
        flips["header" if at < small.data_at else "data" if at < small.footer_at else "footer"] += 1
    assert flips["data"] == small.data_len and sum(flips.values()) == len(small.good)
    count(flipped_bytes=sum(flips.values()))
    assert_nothing_unknown(small.root)


def test_the_good_entry_in_another_file_is_no_miss(victim):
    """What the other tests compare with: putting a file there is not what is noticed."""
    for _ in range(3):
        victim.replace(victim.good)
        assert victim.misses() == 0


def test_flips_of_larger_entries_are_missed(victim, count):
    chance = random.Random(2)
    positions = {
        *range(0, 128, 5),
        *(victim.data_at, victim.footer_at - 1, victim.footer_at, len(victim.good) - 1),
        *(chance.randrange(victim.data_at, victim.footer_at) for _ in range(150)),
        *(chance.randrange(victim.footer_at, len(victim.good)) for _ in range(60)),
    }
    for at in positions:
        # Within this boot of the machine, the file not copied: written to, as a program that errs would.
        content = victim.path.read_bytes()
        at = min(at, len(content) - 1)
        victim.path.chmod(0o644)
        with open(victim.path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), flipped(content, at, chance.randrange(8))[at : at + 1], at)
        assert victim.is_missed_once(), f"byte {at}"
    count(flipped_bytes=len(positions))


def flip_and_hide(victim, at):
    """Flips a bit and restores the time of modification: what the disk itself might do."""
    before = victim.path.stat()
    content = victim.path.read_bytes()
    at = min(at, len(content) - 1)
    victim.path.chmod(0o644)
    with open(victim.path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), flipped(content, at, 3)[at : at + 1], at)
    os.utime(victim.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert victim.path.stat().st_mtime_ns == before.st_mtime_ns


def test_hidden_flips_of_what_is_read_whole_are_missed(victim):
    positions = [0, 70, victim.footer_at, victim.footer_at + 100, len(victim.good) - 1]
    if victim.data_len < 256 << 10:
        positions += [victim.data_at, victim.footer_at - 1, victim.data_at + 100]
    for at in positions:
        flip_and_hide(victim, at)
        assert victim.misses() == 1, f"byte {at}"


def test_a_hidden_flip_of_mapped_data_is_missed_with_verify_always(mapped):
    for at in (mapped.data_at, mapped.data_at + 77_777, mapped.footer_at - 1):
        flip_and_hide(mapped, at)
        # What `auto` assumes: within a boot, storage does not change what it was given.
        unverified = mapped.call()
        assert unverified.origin == DISK and not np.array_equal(unverified.array, numbers(MAPPED))
        assert mapped.misses(verify="always") == 1
        assert mapped.misses() == 0


def test_a_visible_flip_of_mapped_data_is_returned_only_with_verify_never(mapped):
    mapped.path.chmod(0o644)
    with open(mapped.path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"\xff" * 8, mapped.data_at)
    unverified = mapped.call(verify="never")
    assert unverified.origin == DISK and not np.array_equal(unverified.array, numbers(MAPPED))
    assert mapped.misses() == 1


def test_data_changed_after_it_was_verified_is_verified_again(mapped):
    """Within one process and one open cache: what was verified is remembered with the file's time."""
    copy = mapped.path.with_suffix(".copy")
    shutil.copy2(mapped.path, copy)
    os.rename(copy, mapped.path)
    with Cache(mapped.root) as cache:
        first = cache.call("numbers", "1", bytes([MAPPED]), lambda: 1 / 0)
        assert np.array_equal(first.array, numbers(MAPPED))
        del first
        bad = mapped.path.with_suffix(".bad")
        bad.write_bytes(flipped(mapped.good, mapped.data_at + 5, 1))
        os.rename(bad, mapped.path)
        with Cache(mapped.root) as other:  # one state with the first
            found = other.begin("numbers", "1", bytes([MAPPED]), wait_ms=0)
            assert not isinstance(found, Result)
            found.abandon()


def test_every_truncation_of_a_small_entry_is_missed(small, count):
    for length in range(len(small.good)):
        small.replace(small.good[:length])
        assert small.is_missed_once(), f"{length} bytes"
    count(truncations=len(small.good))


def test_truncated_and_lengthened_entries_are_missed(victim):
    chance = random.Random(3)
    size = len(victim.good)
    lengths = {0, 1, 8191, 8192, 8193, (256 << 10) - 1, 256 << 10, size - 192, size - 1}
    lengths |= {victim.data_at, victim.footer_at}
    lengths |= {chance.randrange(size) for _ in range(60)}
    for length in sorted(length for length in lengths if length < size):
        victim.replace(victim.good[:length])
        assert victim.is_missed_once(), f"{length} bytes"
    for more in (b"\0", b"\0" * 4096, victim.good[-192:], victim.good[victim.footer_at :], victim.good):
        victim.replace(victim.good + more)
        assert victim.is_missed_once(), f"{len(more)} more bytes"
        victim.replace(more + victim.good)
        assert victim.is_missed_once(), f"{len(more)} bytes before"


def test_a_footer_cut_off_is_missed(victim):
    victim.replace(victim.good[: victim.footer_at])
    np.load(victim.path)  # numpy has no complaint
    assert victim.is_missed_once()


def test_blocks_of_zeros_are_missed(victim):
    """As a file system leaves them after a crash: the length is right, the content is not."""
    size = len(victim.good)
    for begin in range(0, size, max(4096, size // 4096 // 16 * 4096)):
        end = min(begin + 4096, size)
        victim.replace(victim.good[:begin] + bytes(end - begin) + victim.good[end:])
        assert victim.is_missed_once(), f"block at {begin}"
    victim.replace(bytes(size))
    assert victim.is_missed_once()


def test_another_keys_entry_is_missed(victim):
    other = Victim(victim.root, victim.key + 8)
    shutil.copy2(other.path, victim.path.with_suffix(".tmp"))
    os.rename(victim.path.with_suffix(".tmp"), victim.path)
    assert victim.is_missed_once()
    other.path.rename(victim.path)
    assert victim.is_missed_once() and other.is_missed_once()
    # Another version of the function, the same arguments, an array of the same shape.
    with Cache(victim.root) as cache:
        path = cache.call("numbers", "2", bytes([victim.key]), lambda: numbers(victim.key) + np.uint64(1)).path
    path.rename(victim.path)
    assert victim.is_missed_once()


def test_splices_of_two_entries_are_missed(victim, count):
    chance = random.Random(4)
    # The same key computed by another run: all but the time and the data's last byte are equal.
    changed = victim.good[: victim.footer_at - 1] + b"\x55" + victim.good[victim.footer_at :]
    other = Victim(victim.root, victim.key + 8).good
    splices = 300 if victim.key == SMALL else 60
    for _ in range(splices):
        partner = chance.choice([changed, other])
        cut = chance.randrange(len(victim.good) + 1)
        shift = chance.choice([0, 0, 0, chance.randrange(-64, 64), len(partner) - len(victim.good)])
        rest = partner[max(cut + shift, 0) :]
        spliced = chance.choice([victim.good[:cut] + rest, partner[:cut] + victim.good[max(cut + shift, 0) :]])
        if spliced == victim.good:
            continue
        victim.replace(spliced)
        assert victim.is_missed_once(), (cut, shift)
    count(splices=splices)


def test_whatever_becomes_of_an_entry_it_is_missed_once(victim, going_on, chance, count):
    """Damages of every kind, several at a time."""
    damages = 0
    for _ in going_on(0.7, share=0.05):
        content = bytearray(victim.good)
        for _ in range(chance.randrange(1, 4)):
            at, length = chance.randrange(len(content) + 1), chance.choice([1, 8, 64, 192, 4096, len(content)])
            length = chance.randrange(length + 1)
            kind = chance.choice(["flip", "zero", "noise", "cut", "insert", "repeat", "swap", "end"])
            if kind == "flip" and at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            elif kind == "zero":
                content[at : at + length] = bytes(len(content[at : at + length]))
            elif kind == "noise":
                content[at : at + length] = chance.randbytes(len(content[at : at + length]))
            elif kind == "cut":
                del content[at : at + length]
            elif kind == "insert":
                content[at:at] = chance.randbytes(length)
            elif kind == "repeat":
                content[at:at] = content[at : at + length]
            elif kind == "swap":
                other = chance.randrange(len(content) + 1)
                first, second = content[at : at + length], content[other : other + length]
                content[at : at + len(second)] = second
                content[other : other + len(first)] = first
            elif kind == "end":
                del content[at:]
        if content != victim.good:
            victim.replace(content)
            assert victim.is_missed_once(), content.hex() if len(content) < 4096 else len(content)
            damages += 1
    assert damages > 5
    count(random_damages=damages)


@pytest.mark.parametrize(
    "what",
    ["nothing", "symlink", "dangling symlink", "symlink to itself", "FIFO", "directory", "socket", "10 GB", "device"],
)
def test_what_is_no_entry_is_missed_once_and_replaced(small, tmp_path, monkeypatch, count, what):
    small.path.unlink()
    outside = tmp_path / "outside"
    if what == "nothing":
        small.path.touch()
    elif what == "symlink":
        outside.write_bytes(small.good)
        small.path.symlink_to(outside)
    elif what == "dangling symlink":
        small.path.symlink_to(outside)
    elif what == "symlink to itself":
        small.path.symlink_to(small.path)
    elif what == "FIFO":
        os.mkfifo(small.path)
    elif what == "directory":
        small.path.mkdir()
    elif what == "socket":
        monkeypatch.chdir(small.path.parent)  # a socket's path is short
        socket.socket(socket.AF_UNIX).bind(small.path.name)
    elif what == "10 GB":
        with open(small.path, "wb") as file:
            file.truncate(10 << 30)
            file.seek(-len(small.good), os.SEEK_END)
            file.write(small.good)
    elif what == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(small.path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert small.is_missed_once()
    assert small.path.is_file() and not small.path.is_symlink()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "in KiB: the file was read whole"
    count(planted_files=1)
    if what == "symlink":
        assert outside.read_bytes() == small.good
    if what == "dangling symlink":
        assert not outside.exists()
    assert_nothing_unknown(small.root)


def test_a_pipe_that_somebody_holds_open_is_missed_once(small):
    small.path.unlink()
    os.mkfifo(small.path)
    holder = os.open(small.path, os.O_RDWR)  # a reader gets EAGAIN, not an end
    try:
        assert small.is_missed_once()
    finally:
        os.close(holder)


def test_a_directory_with_files_in_it_is_left_and_the_result_unstored(small):
    small.path.unlink()
    small.path.mkdir()
    (small.path / "mine").write_text("mine")
    for _ in range(2):
        result = small.call()
        assert (result.origin, result.stored) == (COMPUTED, driver.IO)
        assert np.array_equal(result.array, numbers(SMALL))
    assert (small.path / "mine").read_text() == "mine"
    assert not list(small.root.glob(".npcache/tmp/*"))


def test_a_shard_that_is_a_file_costs_no_result(small):
    shard = small.path.parent
    shutil.rmtree(shard)
    shard.write_text("mine")
    result = small.call()
    assert result.origin == COMPUTED and result.stored != 0 and result.path is None
    assert shard.read_text() == "mine"


def test_a_copied_entry_is_verified_and_served(victim):
    original = victim.path.stat()
    os.link(victim.path, victim.root.with_name("kept"))  # or its inode is used again
    copied = victim.path.with_suffix(".copied")
    shutil.copy2(victim.path, copied)  # cp -p
    os.rename(copied, victim.path)
    assert victim.misses() == 0
    # Copied and damaged on the way, its time restored.
    copied.write_bytes(flipped(victim.good, victim.data_at + 8, 0))
    shutil.copystat(victim.path, copied)
    assert copied.stat().st_ino != original.st_ino
    os.rename(copied, victim.path)
    assert victim.is_missed_once()


def test_a_damaged_copy_that_got_the_entrys_inode_is_missed(victim):
    """An entry restored from a backup: file systems give the number of a deleted file to the next new one."""
    original = victim.path.stat()
    victim.path.unlink()
    victim.path.write_bytes(flipped(victim.good, victim.data_at + 8, 0))
    os.utime(victim.path, ns=(original.st_atime_ns, original.st_mtime_ns))
    if victim.path.stat().st_ino != original.st_ino:
        pytest.skip("this file system gave the file another inode")
    assert victim.is_missed_once()


def test_a_copied_cache_is_a_cache(victim, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(victim.root, copy)
    with Cache(copy) as cache:
        result = cache.call("numbers", "1", bytes([victim.key]), lambda: 1 / 0)
        assert result.path.is_relative_to(copy) and np.array_equal(result.array, numbers(victim.key))
        cache.clear()
    assert victim.misses() == 0


def test_one_damage_is_repaired_by_one_of_many(small, tmp_path):
    """Threads and processes that find a bad entry at once compute it once."""
    counts = tmp_path / "counts"

    def compute():
        with open(counts, "ab", buffering=0) as file:
            file.write(b".")
        return numbers(SMALL)

    def call():
        with Cache(small.root) as cache:
            return np.array_equal(cache.call("numbers", "1", bytes([SMALL]), compute).array, numbers(SMALL))

    for _ in range(10):
        small.replace(flipped(small.good, small.data_at, 0))
        answers = []
        children = [Forked(call) for _ in range(3)]
        threads = [threading.Thread(target=lambda: answers.append(call())) for _ in range(3)]  # noqa: B023
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 3 and all(child.answer() for child in children)
    assert counts.stat().st_size == 10
    assert_nothing_unknown(small.root)
