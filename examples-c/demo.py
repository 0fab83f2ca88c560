#!/usr/bin/env python3
"""What npcache does, on real work: `make demo`.

Runs the C programs beside this file, prints a line for each thing that happened, and checks each as it happens:
the exit status is non-zero, and the message says why, if one did not. How often a function really ran is not
taken from npcache's word alone: geodesics.c and heat.c write a line to standard error each time theirs does.

Relies on Python 3.9 and its standard library, Linux (/proc), make and a C compiler, and on the library in
LIBDIR (../target/release); numpy is used where it can be had. Everything it makes is under ../target.
"""

import ast
import hashlib
import json
import mmap
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "target"
PROGRAMS = TARGET / "examples-c"
VENV = TARGET / "venv"
TABLE = HERE / "data" / "digits.npy"

# A computation takes 3 s alone on a core; eight processes on a busy machine are far below this.
PATIENCE = 120
# How long two processes are watched to see that they wait. Those that do not are computing within 20 ms.
WATCHED = 0.5

# NPCACHE_MODE=off and the like would make a demonstration of nothing.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NPCACHE_")}

LINE = re.compile(
    r"(?P<origin>computed|from memory|from disk|shared) in (?P<seconds>[\d.]+) s; "
    r"farthest: (?P<i>\d+) and (?P<j>\d+), (?P<length>\S+) in (?P<steps>\d+) steps; (?P<path>.*)\n"
)


class DidNotHappen(Exception):
    """What should have happened, and what did instead."""


def check(happened, message):
    if not happened:
        raise DidNotHappen(message)


class Geodesics:
    """A running geodesics program; `outcome` waits for it."""

    running = set()

    def __init__(self, cache, neighbours, program=PROGRAMS / "geodesics"):
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [program, cache, str(neighbours), TABLE],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )
        self.running.add(self.process)

    def wait_until_computing(self):
        ready, _, _ = select.select([self.process.stderr], [], [], PATIENCE)
        line = self.process.stderr.readline() if ready else "it hangs"
        check(line.startswith("computing"), f"a process with a new key did not compute: {line or 'it ended'}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.running.discard(self.process)
        check(self.process.returncode == -signal.SIGKILL, "the process that was computing ended before it was killed")

    def outcome(self):
        out, err = self.process.communicate(timeout=PATIENCE)
        self.wall = time.monotonic() - self.start
        self.running.discard(self.process)
        match = LINE.fullmatch(out)
        check(self.process.returncode == 0 and match, f"geodesics failed ({self.process.returncode}): {out}{err}")
        self.origin, self.path = match["origin"], Path(match["path"])
        self.answer = (int(match["i"]), int(match["j"]), float(match["length"]), int(match["steps"]))
        self.ran = err.count("computing")
        check(self.path.is_file(), f"geodesics did not store its result: {out}")
        check(self.ran == (self.origin == "computed"),
              f"npcache said {self.origin!r}, but the function ran {self.ran} times")
        return self


def build(*goals, **variables):
    # Relative to examples-c, since make cannot take a path with a space in it.
    assignments = [f"{name}={os.path.relpath(path, HERE)}" for name, path in variables.items()]
    goals = [os.path.relpath(path, HERE) for path in goals]
    made = subprocess.run(["make", "-s", "-C", HERE, *assignments, *goals], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    check(made.returncode == 0, f"the examples do not build:\n{made.stdout}")


def files(cache):
    return {path for path in cache.rglob("*") if not path.is_dir()}


def npy_arrays(path):
    """dtype, shape, and the offset and length of the data, of each .npy record in a file: the arrays of the
    result, and npcache's footer as the last."""
    records = []
    with open(path, "rb") as file:
        while (start := file.read(10))[:8] == b"\x93NUMPY\x01\x00":
            header = ast.literal_eval(file.read(int.from_bytes(start[8:], "little")).decode("latin-1"))
            nbytes = int(header["descr"][2:])
            for extent in header["shape"]:
                nbytes *= extent
            records.append((header["descr"], header["shape"], file.tell(), nbytes))
            file.seek(nbytes, os.SEEK_CUR)
    return records


def data_digest(path):
    """Of the arrays alone: the footer says when an entry was made."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for _, _, offset, nbytes in npy_arrays(path)[:-1]:
            file.seek(offset)
            digest.update(file.read(nbytes))
    return digest.digest()


def say(what, seconds, detail):
    taken = f"{seconds:.2f} s " if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"
    print(f"  {what:<30} {taken:>8}   {detail}", flush=True)


def first_and_again(cache):
    first = Geodesics(cache, 6).outcome()
    check(first.origin == "computed", f"the first call was answered {first.origin}")
    say("the first time", first.wall, "computed")

    again = Geodesics(cache, 6).outcome()
    check(again.origin == "from disk", f"the second process was answered {again.origin}")
    check(again.answer == first.answer, f"the second process got {again.answer}, not {first.answer}")
    megabytes = first.path.stat().st_size / 1e6
    say("again, in a new process", again.wall, f"from disk, {megabytes:.1f} MB, the same numbers")
    return first


def eight_at_once(cache):
    start = time.monotonic()
    crowd = [process.outcome() for process in [Geodesics(cache, 7) for _ in range(8)]]
    ran = sum(process.ran for process in crowd)
    check(ran == 1, f"8 processes at once computed {ran} times")
    check(len({process.answer for process in crowd}) == 1, "8 processes at once got different numbers")
    say("8 processes, one new key", time.monotonic() - start, "1 computed, 7 got its result from disk")


def killed_in_the_middle(cache):
    before = files(cache)
    victim = Geodesics(cache, 8)
    victim.wait_until_computing()
    waiting = [Geodesics(cache, 8) for _ in range(2)]
    time.sleep(WATCHED)
    check(all(process.process.poll() is None for process in waiting), "a process did not wait for the one computing")
    check(victim.process.poll() is None, "the computation was over before it could be killed")
    start = time.monotonic()
    victim.kill()
    took_over, read = sorted((process.outcome() for process in waiting), key=lambda process: process.origin)
    check((took_over.origin, read.origin) == ("computed", "from disk"),
          f"after the kill, the two waiting were answered {took_over.origin} and {read.origin}")
    left = files(cache) - before
    check(left == {took_over.path}, f"besides the entry, the killed process left {left - {took_over.path}}")
    say("killed in the middle", time.monotonic() - start,
        "of 2 that waited, 1 took over and computed, 1 read that; no temporary file left")


def one_byte_flipped(cache, first):
    digest, mode = data_digest(first.path), first.path.stat().st_mode
    _, _, offset, nbytes = npy_arrays(first.path)[0]
    first.path.chmod(mode | 0o200)
    with open(first.path, "r+b") as file:
        file.seek(offset + nbytes // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    first.path.chmod(mode)
    check(data_digest(first.path) != digest, "the byte was not flipped")

    repaired = Geodesics(cache, 6).outcome()
    check(repaired.origin == "computed", f"a damaged entry was returned {repaired.origin}")
    check(repaired.path == first.path and data_digest(first.path) == digest,
          "the entry that replaced the damaged one has other bytes than the first")
    say("one byte of the entry flipped", repaired.wall, "noticed and computed again: the same bytes as before")


def edited_and_rebuilt(cache, first):
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="edited-") as directory:
        directory = Path(directory)
        source, edited = (HERE / "geodesics.c").read_text(), directory / "geodesics.c"
        line = "#define INK_UNIT 1.0\n"
        check(source.count(line) == 1, f"geodesics.c no longer has the line that this edits: {line}")
        edited.write_text(source.replace(line, "#define INK_UNIT 16.0\n"))
        build(directory / "geodesics", SRC=directory, OUT=directory)
        rebuilt = Geodesics(cache, 6, directory / "geodesics").outcome()
    check(rebuilt.origin == "computed", f"the edited program was answered {rebuilt.origin}")
    # Dividing by 16 is exact, so every sum and comparison on the way is too.
    i, j, length, steps = first.answer
    check(rebuilt.answer == (i, j, length / 16, steps), f"the edited program got {rebuilt.answer}")
    old = Geodesics(cache, 6).outcome()
    check((old.origin, old.answer) == ("from disk", first.answer), f"the old program was answered {old.origin}")
    say("edited and rebuilt", rebuilt.wall, "another build, so computed; the old build still finds its own")


READ_WITH_NUMPY = """
import json, sys, time, numpy
path, i, j = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start = time.perf_counter()
array = numpy.load(path, mmap_mode="r")
value = float(array[i, j])
seconds = time.perf_counter() - start
mapped = path in open("/proc/self/maps").read()
print(json.dumps([f"numpy {numpy.__version__}", seconds, array.dtype.str, array.shape, value, mapped]))
"""


def python_with_numpy():
    """A Python that can import numpy: this one, that of ../target/venv, or of one made there; or None."""
    def has_numpy(python):
        return subprocess.run([python, "-c", "import numpy"], stderr=subprocess.DEVNULL).returncode == 0

    if has_numpy(sys.executable):
        return sys.executable
    python = VENV / "bin" / "python"
    if python.exists():
        return python if has_numpy(python) else None
    made = False
    try:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": PATIENCE}
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True, **quiet)
        subprocess.run([python, "-m", "pip", "install", "--retries", "0", "--timeout", "5", "numpy"],
                       check=True, **quiet)
        made = True
        return python
    except (OSError, subprocess.SubprocessError):
        return None
    finally:
        if not made:  # half an environment would be taken for a whole one
            shutil.rmtree(VENV, ignore_errors=True)


def read_with_numpy(python, path, i, j):
    read = subprocess.run([python, "-c", READ_WITH_NUMPY, path, str(i), str(j)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    check(read.returncode == 0, f"numpy does not read {path}:\n{read.stderr}")
    return json.loads(read.stdout)


def read_without_numpy(path, i, j):
    start = time.perf_counter()
    dtype, shape, offset, nbytes = npy_arrays(path)[0]
    with open(path, "rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    array = memoryview(whole)[offset : offset + nbytes].cast({"<f8": "d"}[dtype], shape)
    value = array[i, j]
    seconds = time.perf_counter() - start
    mapped = str(path) in Path("/proc/self/maps").read_text()
    return "the standard library", seconds, dtype, list(shape), value, mapped


def read_from_python(first):
    i, j, length, _ = first.answer
    python = python_with_numpy()
    reader, seconds, dtype, shape, value, mapped = (
        read_with_numpy(python, first.path, i, j) if python else read_without_numpy(first.path, i, j)
    )
    check(mapped, f"{reader} copied the entry instead of mapping it")
    check((dtype, shape) == ("<f8", [1797, 1797]), f"{reader} found {dtype} {shape}")
    check(value == length, f"{reader} read {value!r} where C printed {length!r}")
    say("read from Python, zero copy", seconds,
        f"{reader}: {shape[0]} x {shape[1]} {dtype}; [{i}, {j}] is {value!r}, as C printed")


def heat_swept_twice(cache):
    def sweep():
        swept = subprocess.run([PROGRAMS / "heat", cache], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               timeout=PATIENCE, env=ENVIRONMENT)
        match = re.search(r"(\d+) materials in ([\d.]+) s: (\d+) computed, (\d+) from the cache\n\Z", swept.stdout)
        check(swept.returncode == 0 and match, f"heat failed ({swept.returncode}): {swept.stdout}{swept.stderr}")
        temperatures = re.findall(r"^(.+?) +(\d+\.\d+) degrees", swept.stdout, re.MULTILINE)
        return float(match[2]), int(match[3]), int(match[4]), swept.stderr.count("computing"), temperatures

    seconds, computed, cached, ran, temperatures = sweep()
    check((computed, cached, ran) == (8, 0, 8), f"the first sweep computed {computed}, read {cached}, ran {ran} of 8")
    say("heat equation, 8 materials", seconds, f"8 computed; {temperatures[0][0]} is at {temperatures[0][1]} degrees")
    seconds, computed, cached, ran, again = sweep()
    check((computed, cached, ran) == (0, 8, 0), f"the second sweep computed {computed}, read {cached}, ran {ran} of 8")
    check(again == temperatures, "the second sweep printed other temperatures")
    say("the same sweep again", seconds, "8 from the cache, the same temperatures")


def demo():
    TARGET.mkdir(exist_ok=True)
    build(OUT=PROGRAMS)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="demo-cache-") as directory:
        cache = Path(directory)
        try:
            print("Shortest paths between 1,797 handwritten digits (geodesics.c)", flush=True)
            first = first_and_again(cache)
            eight_at_once(cache)
            killed_in_the_middle(cache)
            one_byte_flipped(cache, first)
            edited_and_rebuilt(cache, first)
            read_from_python(first)
            print("A plate warming up (heat.c)", flush=True)
            heat_swept_twice(cache)
        finally:
            for process in Geodesics.running:
                process.kill()
    print(f"Each line was checked as it happened. {time.monotonic() - start:.0f} s in all.")


def main():
    try:
        demo()
    except DidNotHappen as failure:
        sys.exit(f"demo: {failure}")
    except subprocess.TimeoutExpired as failure:
        sys.exit(f"demo: {failure.cmd[0]} was not done after {PATIENCE} s")


if __name__ == "__main__":
    main()
