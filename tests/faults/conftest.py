"""What the fault suite shares: directories on which faults can be made, how long a test goes on, and what it counts.

Each test counts what it did, and the run closes with the sums. Tests that are as good as they are long take a few
seconds in `make test`; `make soak` gives each its share of the seconds asked for.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from test_processes import PATIENCE

# What `make soak` asks for; 0 in `make test`.
SOAK_SECONDS = float(os.environ.get("FAULT_SECONDS", 0))


@pytest.fixture
def count(record_property):
    """Adds to the counts that the run closes with: `count(kills=3)`."""

    def count(**counts):
        for name, number in counts.items():
            record_property(f"fault {name.replace('_', ' ')}", number)
            print(f"{number:,} {name.replace('_', ' ')}")

    return count


@pytest.fixture
def going_on():
    """An iterator that is over after so many seconds, or, in a soak, after that share of what was asked for."""

    def going_on(seconds, share):
        until = time.monotonic() + (SOAK_SECONDS * share or seconds)
        while time.monotonic() < until:
            yield until - time.monotonic()

    return going_on


@pytest.fixture
def chance(request):
    """Random numbers: the same in every run of `make test`, others in every soak, whose seed a failure shows."""
    seed = time.time_ns() if SOAK_SECONDS else request.node.name
    print("seed:", seed)
    return random.Random(seed)


def pytest_terminal_summary(terminalreporter):
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and report.nodeid.startswith("faults/")
    ]
    counts = Counter()
    for report in reports:
        for name, number in report.user_properties:
            if name.startswith("fault "):
                counts[name.removeprefix("fault ")] += number
    if reports:
        failed = sum(report.failed for report in reports)
        # A test with one wrong array fails.
        end = f"{failed} of {len(reports)} tests FAILED" if failed else "0 wrong arrays"
        sums = (f"{number:,} {name}" for name, number in sorted(counts.items()))
        terminalreporter.write_line(f"faults: {', '.join([*sums, end])}")


@pytest.fixture
def public_path():
    """A directory that every user can reach, and its owner alone can write."""
    path = Path(tempfile.mkdtemp(prefix="npcache-test-"))
    path.chmod(0o755)
    yield path
    for directory in [path, *path.rglob("*/")]:
        directory.chmod(0o755)
    shutil.rmtree(path)


def run(*command, **options):
    """Runs a command that has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def mounts():
    """Mounts what `mount`'s arguments say, until the test is over; skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    mounted = []

    def mount(*arguments):
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this cannot be mounted here: {done.stderr}")
        mounted.append(arguments[-1])
        return arguments[-1]

    yield mount
    for path in reversed(mounted):
        if os.path.ismount(path):
            run("umount", "--lazy", path)


@pytest.fixture
def mounted(tmp_path, mounts):
    """Mounts a file system with so many KiB of room, a tmpfs or an ext4 in a file; a directory on it."""

    def mount(kib, file_system="tmpfs"):
        path = tmp_path / "mounted"
        path.mkdir()
        if file_system == "tmpfs":
            return mounts("-t", "tmpfs", "-o", f"size={kib}k", "npcache-test", path)
        image = tmp_path / "image"
        with open(image, "wb") as file:
            file.truncate(4 * kib << 10)
        run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        mounts("-o", "loop", image, path)
        free = os.statvfs(path)
        with open(path / "filler", "wb") as file:
            file.write(bytes(free.f_bavail * free.f_bsize - (kib << 10)))
            os.fsync(file.fileno())
        cache_path = path / "cache"
        cache_path.mkdir()
        return cache_path

    return mount


def machine(tmp_path, boot, host="elsewhere"):
    """The command under which a program runs as if on another machine, or in another boot of this one."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a process another boot ID")
    boot_id = tmp_path / f"boot {boot}"
    boot_id.write_text(f"00000000-0000-4000-8000-{boot:012x}\n")
    prepare = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && hostname "$1" && shift && exec "$@"'
    return ["unshare", "--mount", "--uts", "sh", "-c", prepare, boot_id, host]


def python_as(command, code, *arguments, **environment):
    """Another process, under `command`, that runs `code` with the driver's names and the arguments in sys.argv."""
    return subprocess.Popen(
        [
            str(word)
            for word in [*command, sys.executable, "-c", f"from driver import *\nimport sys\n{code}", *arguments]
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), **environment},
    )


def run_python_as(command, code, *arguments, **environment):
    """What it prints."""
    process = python_as(command, code, *arguments, **environment)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return out
