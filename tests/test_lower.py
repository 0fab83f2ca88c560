"""The cache below, of the option lower: seen from the system, nothing is written to it."""

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, need_tool
from driver import Cache

PROGRAM = """
import sys
import numpy as np
from driver import Cache

own, site, promote = sys.argv[1:]
with Cache(own, lower=site, promote=promote) as cache:
    for size in (4, 100_000):
        found = cache.call("f", "1", str(size).encode(), lambda: sys.exit("computed what is stored below"))
        assert str(found.path).startswith(own if promote == "yes" else site), found.path
    cache.call("f", "1", b"new", lambda: np.zeros(3))
    cache.clear()
"""

# Calls that change a file or a directory, and flags of those that may.
CHANGES = "f?chmod|f?l?chown|f?utime|mkdir|mknod|unlink|rename|link|symlink|f?truncate|fallocate|p?write|f?l?setxattr"
FLAGS = "O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|PROT_WRITE.*MAP_SHARED"


@pytest.mark.parametrize("promote", ["no", "yes"])
def test_nothing_in_it_is_opened_to_be_written_or_changed(tmp_path, promote):
    strace = need_tool("strace", "strace")
    own, site, log = tmp_path / "own", tmp_path / "site", tmp_path / "trace"
    with Cache(site) as cache:
        for size in (4, 100_000):
            cache.call("f", "1", str(size).encode(), lambda size=size: np.ones(size))
    # -y: with the path of each descriptor.
    program = [sys.executable, "-c", PROGRAM, own, site, promote]
    subprocess.run([strace, "-f", "-y", "-o", log, "-e", "trace=%file,%desc", *program], check=True, cwd=ROOT / "tests")
    calls = [line for line in log.read_text().splitlines() if "execve(" not in line]
    written = re.compile(rf"^\d+ +({CHANGES})|{FLAGS}")
    below = [line for line in calls if str(site) in line]
    assert sum("openat2(" in line and ".npy" in line for line in below) >= 3, "it was looked for there"
    assert [line for line in below if written.search(line)] == []
    assert [line for line in calls if str(own) in line and written.search(line)] != [], "what is written shows"
