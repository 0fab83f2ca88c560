"""An MPI program whose ranks compute together: examples-c/mpi.c, and what happens without its recipe."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import LIBRARY, ROOT, need_tool

EXAMPLE = ROOT / "examples-c" / "mpi.c"
PAGE = ROOT / "docs" / "mpi.md"

# As root, on fewer processors than ranks, in a container where one process may not read another one's memory.
ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}

# Each rank asks for itself, and the function is a collective one.
WITHOUT_THE_RECIPE = """
#include <mpi.h>
#include <npcache.h>
#include <stdio.h>

static int32_t meet(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    double one = 1, *sum = npcache_output_alloc(out, NULL, NPCACHE_FLOAT64, 0, NULL, NPCACHE_ORDER_C);
    (void)user_data, (void)args, (void)args_len;
    if (sum == NULL)
        MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Allreduce(&one, sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    return npcache_output_commit(out);
}

int main(int argc, char **argv)
{
    npcache *cache;
    npcache_buffer *result;
    MPI_Init(&argc, &argv);
    if (npcache_new("cache", NULL, &cache, NULL))
        return 1;
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    if (npcache_call(cache, "meet", "1", NULL, 0, meet, NULL, &result, NULL))
        return 1;
    const double *sum = npcache_buffer_data(result, 0, NPCACHE_FLOAT64, NULL);
    printf("%.0f ranks met in %.1f s\\n", *sum, MPI_Wtime() - start);
    npcache_buffer_release(result);
    npcache_free(cache);
    return MPI_Finalize();
}
"""


@pytest.fixture(scope="module")
def compile_mpi(tmp_path_factory):
    """Compiles an MPI program, warnings being errors, and returns its path."""
    mpicc = need_tool("mpicc", "libopenmpi-dev")
    need_tool("mpirun", "openmpi-bin")

    def compile_(source):
        program = tmp_path_factory.mktemp("mpi") / source.stem
        warnings = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'include'}"]
        paths = [f"-L{LIBRARY.parent}", f"-Wl,-rpath,{LIBRARY.parent}", "-Wl,--build-id"]
        subprocess.run([mpicc, *warnings, str(source), "-o", str(program), *paths, "-lnpcache", "-lm"], check=True)
        return program

    return compile_


@pytest.fixture(scope="module")
def example(compile_mpi):
    return compile_mpi(EXAMPLE)


def start(program, directory, ranks=2, **environment):
    """Starts a program on `ranks` ranks, in a session of its own."""
    return subprocess.Popen(
        ["mpirun", "-n", str(ranks), str(program)],
        cwd=directory,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(program, directory, ranks=2, **environment):
    """What a program says, and what it says about its work, as sorted lines."""
    job = start(program, directory, ranks, **environment)
    try:
        said, worked = job.communicate(timeout=120)
    finally:
        if job.poll() is None:  # a deadlock, which would go on in the background
            os.killpg(job.pid, signal.SIGKILL)
            kill_ranks(program)
            job.wait()
    assert job.returncode == 0, worked
    return sorted(said.splitlines()), sorted(line for line in worked.splitlines() if " computes " in line)


def kill_ranks(program):
    """Kills the processes that run `program`, which is in a directory of this test's own, and counts them."""
    killed = 0
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(directory / "exe") == str(program):
                os.kill(int(directory.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue  # gone meanwhile, or someone else's
    return killed


def answers(ranks, how):
    return [f"rank {rank} of {ranks}: 40.0000 degrees at the centre, {how}" for rank in range(ranks)]


def test_all_ranks_compute_once_and_then_all_get_the_stored_result(example, tmp_path):
    said, worked = run(example, tmp_path)
    assert said == answers(2, "computed")
    assert worked == ["rank 0 of 2 computes 31 rows", "rank 1 of 2 computes 32 rows"]
    assert run(example, tmp_path) == (answers(2, "from the cache"), [])
    # The number of ranks is not in the key, and need not be.
    assert run(example, tmp_path, ranks=3) == (answers(3, "from the cache"), [])
    assert len(list((tmp_path / "mpi-cache").rglob("*.npy"))) == 1


def test_a_killed_job_leaves_no_lock_and_no_file(example, tmp_path):
    job = start(example, tmp_path)
    try:
        assert " computes " in job.stderr.readline()
        assert kill_ranks(example) == 2
        job.communicate(timeout=60)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    assert job.returncode != 0
    assert not [path for path in (tmp_path / "mpi-cache" / "equilibrium").rglob("*") if path.is_file()]
    begun = time.monotonic()
    said, worked = run(example, tmp_path)
    assert said == answers(2, "computed") and len(worked) == 2
    assert time.monotonic() - begun < 60  # a tenth of lock_timeout


def test_a_directory_that_cannot_be_used_ends_all_ranks(example, tmp_path):
    (tmp_path / "mpi-cache").write_text("a file")
    job = start(example, tmp_path)
    said, worked = job.communicate(timeout=60)
    assert job.returncode == 1 and said == "" and "mpi: " in worked and "mpi-cache" in worked


def test_the_page_shows_the_example_and_its_output(example, tmp_path):
    page = PAGE.read_text()
    source = [line.strip() for line in EXAMPLE.read_text().splitlines()]
    blocks = re.findall(r"^ *```c\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        assert any(source[i : i + len(lines)] == lines for i in range(len(source))), block
    (text,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert run(example, tmp_path)[0] == text.splitlines()


def test_ranks_that_ask_for_themselves_meet_after_lock_timeout_or_with_flight_off(compile_mpi, tmp_path):
    source = tmp_path / "meet.c"
    source.write_text(WITHOUT_THE_RECIPE)
    program = compile_mpi(source)

    def seconds(**environment):
        cache = tmp_path / "_".join(environment)
        cache.mkdir()
        said, _ = run(program, cache, **environment)
        assert len(said) == 2 and all(line.startswith("2 ranks met in ") for line in said)
        return max(float(line.split()[-2]) for line in said)

    assert 2.0 <= seconds(NPCACHE_LOCK_TIMEOUT="2") < 30
    assert seconds(NPCACHE_FLIGHT="off") < 2.0
