"""trust=owner: what another unprivileged user could have planted is not used. Played through with root's processes in
the other parts."""

import os
import shutil
import stat

import numpy as np
import pytest
from driver import COMPUTED, DISK, ERR_DIRECTORY, MEMORY, Cache, Error
from faults.conftest import public_path
from faults.test_failures import NOBODY, as_nobody, call
from test_processes import key_bytes, numbers

__all__ = ["public_path"]  # a fixture

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

STRANGER = 65533

SMALL, LARGE = 1, 8  # keys, of results below and above 256 KiB


@pytest.fixture
def path(public_path):
    """A directory of nobody's."""
    path = public_path / "cache"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    return path


def calls(path, **options):
    """Calls both; where from, and what is stored."""
    with Cache(path, **options) as cache:
        return [call(cache, key) for key in (SMALL, LARGE)]


def refused(path, **options):
    """Why the directory is not opened."""
    try:
        Cache(path, trust="owner", **options).close()
    except Error as e:
        return e.status, str(e)


def test_ones_own_directory_is_used_whatever_the_umask(public_path):
    path = public_path / "open"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)

    def use():
        os.umask(0)
        made = path / "made" / "with parents"
        first, second = calls(made, trust="owner"), calls(made, trust="owner")
        writable = [p for p in [made, *made.rglob("*")] if stat.S_IMODE(p.stat().st_mode) & 0o022]
        return first, second, [str(p) for p in writable]

    assert as_nobody(use) == ([(COMPUTED, 0)] * 2, [(DISK, 0)] * 2, [])


def test_roots_directory_is_used_by_all(public_path):
    path = public_path / "cache"
    assert calls(path, trust="owner") == [(COMPUTED, 0)] * 2
    assert as_nobody(lambda: calls(path, trust="owner")) == [(DISK, 0)] * 2


@pytest.mark.parametrize("part", [".", ".npcache", ".npcache/lock", ".npcache-format"])
@pytest.mark.parametrize("how", ["another's", "writable by the group", "writable by others"])
def test_a_directory_that_others_could_have_made_is_an_error_when_it_is_opened(path, part, how):
    as_nobody(lambda: calls(path, trust="owner"))
    if how == "another's":
        os.chown(path / part, STRANGER, STRANGER)
    else:
        os.chmod(path / part, 0o777 if how == "writable by others" else 0o775)
    status, message = as_nobody(lambda: refused(path))
    assert status == ERR_DIRECTORY
    assert message.startswith(f"{path / part}: ") and "chmod go-w" in message
    # Who did not ask does not mind.
    assert as_nobody(lambda: calls(path)) in ([(DISK, 0)] * 2, [(COMPUTED, 4)] * 2, [(DISK, 4)] * 2)


def test_a_planted_state_page_is_an_error_too(path):
    as_nobody(lambda: calls(path, trust="owner"))
    [page] = path.glob(".npcache/state-*")
    os.chown(page, STRANGER, STRANGER)
    assert "state-" in as_nobody(lambda: refused(path))[1]


@pytest.mark.parametrize("how", ["another's", "writable by the group", "writable by others"])
def test_a_planted_entry_is_computed_again_and_replaced(path, how):
    as_nobody(lambda: calls(path))
    entries = list(path.glob("numbers/*/*.npy"))
    for entry in entries:
        if how == "another's":
            os.chown(entry, STRANGER, STRANGER)
        else:
            entry.chmod(0o446 if how == "writable by others" else 0o464)
    assert as_nobody(lambda: calls(path)) == [(DISK, 0)] * 2
    assert as_nobody(lambda: calls(path, trust="owner", mode="readonly"))[0][0] == COMPUTED
    assert as_nobody(lambda: calls(path, trust="owner")) == [(COMPUTED, 0)] * 2
    assert as_nobody(lambda: calls(path, trust="owner")) == [(DISK, 0)] * 2
    assert {entry.stat().st_uid for entry in entries} == {NOBODY}


def test_a_wrong_array_that_was_forged_whole_is_not_returned(path, public_path):
    """With checksums and key, as anybody with the library can make one, in a function's directory left open to all."""
    forge = public_path / "forge"
    with Cache(forge) as cache:
        forged = cache.call("numbers", "1", key_bytes(SMALL), lambda: numbers(SMALL) + 1).path
    os.chown(forged, STRANGER, STRANGER)
    as_nobody(lambda: calls(path, trust="owner"))
    [entry] = [path / forged.relative_to(forge)]
    entry.unlink()
    shutil.copyfile(forged, entry)
    os.chown(entry, STRANGER, STRANGER)

    def ask(**options):
        with Cache(path, **options) as cache:
            return cache.call("numbers", "1", key_bytes(SMALL), lambda: numbers(SMALL)).array.tobytes()

    assert as_nobody(ask) == (numbers(SMALL) + np.uint64(1)).tobytes()  # the attack is one
    assert as_nobody(lambda: ask(trust="owner")) == numbers(SMALL).tobytes()


def test_what_a_trusting_cache_of_the_process_has_in_memory_is_not_used(path):
    as_nobody(lambda: calls(path))
    for entry in path.glob("numbers/*/*.npy"):
        os.chown(entry, STRANGER, STRANGER)

    def use():
        del os.environ["NPCACHE_MEMORY_BYTES"]
        with Cache(path) as trusting, Cache(path, trust="owner") as strict:
            return [call(cache, SMALL) for cache in (trusting, trusting, strict, strict)]

    assert as_nobody(use) == [(DISK, 0), (MEMORY, 0), (COMPUTED, 0), (MEMORY, 0)]


def test_trusting_the_owner_alone_and_sharing_with_a_group_exclude_each_other(tmp_path):
    with pytest.raises(Error, match="exclude each other"):
        Cache(tmp_path / "cache", trust="owner", umask="group")
