"""Another cache copied over a live one, while readers have its entries mapped: no reader dies, and no array is wrong.

As an ordinary user, whom the entries' mode keeps from writing into them. Root, whom it does not, has to copy by way of
new files, as rsync does; see docs/guarantees.md.
"""

import os
import random
import shutil
import subprocess
import time

import numpy as np
import pytest
from conftest import need_tool
from driver import COMPUTED, DISK, Cache
from test_processes import assert_nothing_unknown, key_bytes, numbers

from .test_failures import NOBODY, as_nobody, forked_as_nobody

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# A third of them mapped.
KEYS = [key for key in range(96) if key % 8 in (0, 1, 4)]


def store(path, keys):
    with Cache(path) as cache:
        for key in keys:
            assert np.array_equal(
                cache.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key)).array, numbers(key)
            )


def read(path, until, seed):
    """Looks up and keeps arrays until it is time; how many looks there were, at new ones and again at kept ones."""
    chance, looks, kept = random.Random(seed), 0, {}
    with Cache(path) as cache:
        while time.monotonic() < until:
            key = chance.choice(KEYS)
            found = cache.call("numbers", "1", key_bytes(key), lambda: numbers(key)).array  # noqa: B023
            assert np.array_equal(found, numbers(key)), f"a wrong array for {key}"
            kept[key] = found
            key = chance.choice(list(kept))
            assert np.array_equal(kept[key], numbers(key)), f"the array of {key} changed while it was kept"
            looks += 2
        for key, array in kept.items():
            assert np.array_equal(array, numbers(key))
    return looks


COPIES = [
    ("cp", "-r"),
    ("cp", "-rp"),
    ("cp", "-rf"),
    ("cp", "-r", "--remove-destination"),
    ("rsync", "-a"),
    ("rsync", "-r", "--ignore-times"),
    ("rsync", "-a", "--ignore-times", "--inplace"),
]


@pytest.mark.parametrize("command", COPIES, ids=" ".join)
def test_a_cache_copied_over_a_live_one_changes_no_array(public_path, going_on, count, command):
    need_tool(command[0], command[0])
    live, other = public_path / "live", public_path / "other"
    public_path.chmod(0o777)

    def prepare():
        store(live, KEYS[::2])
        time.sleep(0.01)  # other times of birth
        store(other, KEYS)
        return os.getuid()

    user = as_nobody(prepare)
    assert user == NOBODY or os.geteuid() != 0
    seconds = next(going_on(1, share=0.02))
    until = time.monotonic() + seconds
    readers = [forked_as_nobody(lambda seed=seed: read(live, until, seed)) for seed in range(4)]

    def copy():
        copies = 0
        while time.monotonic() < until - 0.2:
            # It fails where it may not write; what is there already stays then.
            subprocess.run([*command, f"{other}/.", f"{live}/"], capture_output=True)
            copies += 1
            # The next one comes upon entries of another run.
            for path in live.glob("numbers/*/*.npy"):
                if random.random() < 0.2:
                    path.unlink()
        return copies

    copies = as_nobody(copy)
    looks = sum(reader.answer() for reader in readers)
    assert copies > 0 and looks > 100, (copies, looks)
    count(copies_over_a_live_cache=copies, looks_during_copies=looks)
    with Cache(live) as cache:
        for key in KEYS:
            result = cache.call("numbers", "1", key_bytes(key), lambda key=key: numbers(key))
            assert result.origin in (COMPUTED, DISK)
            assert np.array_equal(result.array, numbers(key))
    # The other's, which is of no use here.
    for page in live.glob(".npcache/state-*"):
        page.unlink()
    assert_nothing_unknown(live)
    for path in (live, other):
        shutil.rmtree(path)
