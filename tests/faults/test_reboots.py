"""What a crash of the machine, or storage that drops what it accepted, leaves of entries: found, and computed again."""

import ctypes
import os

import numpy as np
import pytest
from driver import COMPUTED, DISK, Cache
from test_processes import key_bytes, numbers

from .conftest import machine, run, run_python_as
from .test_failures import fill

SMALL, MEDIUM, MAPPED = (1, 2, 3), (4, 12, 20), (8, 16, 24)
KEYS = SMALL + MEDIUM + MAPPED
BLOCK = 4096


def call(cache, key):
    """Where the array came from; it is right."""
    result = cache.call("numbers", "1", key_bytes(key), lambda: numbers(key))
    assert np.array_equal(result.array, numbers(key)), f"a wrong array for {key}"
    assert result.stored == 0
    return result.origin


@pytest.fixture
def before_a_reboot(cache_path, tmp_path):
    """A cache whose entries were all stored in another boot of the machine; the entries by key."""
    code = """
from test_processes import key_bytes, numbers
with Cache(sys.argv[1]) as cache:
    for key in map(int, sys.argv[2:]):
        print(cache.call("numbers", "1", key_bytes(key), lambda: numbers(key)).path)
"""
    listed = run_python_as(machine(tmp_path, boot=1), code, cache_path, *KEYS)
    return dict(zip(KEYS, listed.split()))


def overwrite(path, at, content):
    """Changes what is in a file, and nothing of what the system says about it."""
    before = os.stat(path)
    os.chmod(path, 0o644)
    with open(path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), content, at)
    os.chmod(path, 0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_whole_entries_of_another_boot_are_hits(before_a_reboot, cache_path):
    assert len(before_a_reboot) == len(KEYS)
    with Cache(cache_path) as cache:
        assert {call(cache, key) for key in KEYS} == {DISK}


def test_blocks_that_a_reboot_left_zero_are_found_at_the_first_look(before_a_reboot, cache_path, chance, count):
    zeroed = 0
    for path in before_a_reboot.values():
        blocks = range(0, os.path.getsize(path), BLOCK)
        lost = [at for at in blocks if chance.random() < 0.5] or [chance.choice(blocks)]
        for at in lost:
            overwrite(path, at, bytes(min(BLOCK, os.path.getsize(path) - at)))
        zeroed += len(lost)
    with Cache(cache_path) as cache:
        assert {call(cache, key) for key in KEYS} == {COMPUTED}
    with Cache(cache_path) as cache:
        assert {call(cache, key) for key in KEYS} == {DISK}
    count(lost_blocks=zeroed)


def test_data_that_a_reboot_left_zero_behind_a_whole_footer_is_found(before_a_reboot, cache_path, count):
    """What only the checksum of the data tells: everything around it is as it was written."""
    for key, path in before_a_reboot.items():
        data = numbers(key).tobytes()
        with open(path, "rb") as file:
            at = file.read().index(data)
        overwrite(path, at, bytes(len(data)))
    with Cache(cache_path) as cache:
        assert {call(cache, key) for key in KEYS} == {COMPUTED}
        assert {call(cache, key) for key in KEYS} == {DISK}
    count(lost_blocks=len(KEYS))


def test_files_that_a_reboot_left_short_are_computed_again(before_a_reboot, cache_path, chance, count):
    for path in before_a_reboot.values():
        os.chmod(path, 0o644)
        os.truncate(path, chance.choice([0, chance.randrange(os.path.getsize(path))]))
    with Cache(cache_path) as cache:
        assert {call(cache, key) for key in KEYS} == {COMPUTED}
        assert {call(cache, key) for key in KEYS} == {DISK}
    count(truncations=len(KEYS))


def write_back_all_but_data(path):
    """Has the system write the ends of an entry to disk, which hold all but the most of its data."""
    wait_write_wait = 7
    last = os.path.getsize(path) // BLOCK * BLOCK - BLOCK
    with open(path, "rb") as file:
        for start, length in (0, BLOCK), (last, 2 * BLOCK):
            done = ctypes.CDLL(None).sync_file_range(
                file.fileno(), ctypes.c_int64(start), ctypes.c_int64(length), wait_write_wait
            )
            assert done == 0


def test_writes_that_storage_accepted_and_dropped_are_found_by_verify_always(tmp_path, mounts, count):
    """A file system on a disk that is said to be larger than it is, within one boot."""
    disk, path = tmp_path / "disk", tmp_path / "mounted"
    disk.mkdir()
    path.mkdir()
    mounts("-t", "tmpfs", "-o", "size=8m", "npcache-test", disk)
    image = disk / "image"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", "-b", BLOCK, "-N", 1024, "-O", "^has_journal,^metadata_csum", "-E", "nodiscard", image)
    mounts("-o", "loop,errors=continue", image, path)
    # What names and inodes take gets its room beforehand, so that it is data alone that is lost.
    for shard in range(256):
        (path / "cache" / "numbers" / f"{shard:02x}").mkdir(parents=True)
    for number in range(600):
        (path / str(number)).touch()
    os.sync()
    for number in range(600):
        (path / str(number)).unlink()
    kept, lost, lost_data = [8, 16], [24, 32, 40], [48, 56, 64]
    with Cache(path / "cache") as cache:
        assert {call(cache, key) for key in kept} == {COMPUTED}
        run("sync", "-f", path)
        assert {call(cache, key) for key in lost + lost_data} == {COMPUTED}
        for key in lost_data:
            write_back_all_but_data(cache.call("numbers", "1", key_bytes(key), lambda: 1 / 0).path)
        fill(disk / "full")
        assert {call(cache, key) for key in lost + lost_data} == {DISK}  # the system's memory has them
    # Which is reclaimed.
    run("umount", path)
    mounts("-o", "loop,errors=continue", image, path)
    with Cache(path / "cache", mode="readonly") as cache:
        # `auto` assumes that storage keeps what it accepted, so it finds what reaches header or footer alone.
        results = {key: cache.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key)) for key in lost}
        assert {result.origin for result in results.values()} == {COMPUTED}
        for key in lost_data:
            result = cache.call("numbers", "1", key_bytes(key), lambda: 1 / 0)
            assert not np.array_equal(result.array, numbers(key)), "no data was lost: this test tests nothing"
            del result
    (disk / "full").unlink()
    with Cache(path / "cache", verify="always") as cache:
        assert {call(cache, key) for key in kept} == {DISK}
        assert {call(cache, key) for key in lost + lost_data} == {COMPUTED}
        assert {call(cache, key) for key in kept + lost + lost_data} == {DISK}
    count(dropped_files=len(lost + lost_data))
