"""Programs that live on locks, on a real filespace."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.mount.fuse import lock_requests
from tests.filespace.spaces import Space
from tests.mount.test_files import eventually
from tests.mount.test_low import Mounted

pytestmark = pytest.mark.mount

PROGRAM_S = 120.0


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """At the end no lock is left."""
    space = Space(tmp_path)
    made = Mounted(space.connect("one"), space.root / "drive")
    yield made
    eventually(lambda: made.locks.table() == [])
    assert lock_requests.marked() == 0
    made.end()
    space.close()


def run_all(code: str, directory: Path, count: int, *arguments: object) -> None:
    """The same program so many times at once; all must end well."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(at), *map(str, arguments)],
            cwd=directory, stderr=subprocess.PIPE, text=True,
        )
        for at in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=PROGRAM_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * count, said


SQLITE = """
import sqlite3, sys
database = sqlite3.connect("numbers.db", timeout=100, isolation_level=None)
for turn in range(25):
    database.execute("BEGIN IMMEDIATE")
    (count,) = database.execute("SELECT value FROM counter").fetchone()
    database.execute("UPDATE counter SET value = ?", (count + 1,))
    database.execute("INSERT INTO seen VALUES (?, ?)", (count, int(sys.argv[1])))
    database.execute("COMMIT")
"""


def test_sqlite_in_two_processes(mounted: Mounted) -> None:
    database = mounted.point / "numbers.db"
    make = (
        "import sqlite3; d = sqlite3.connect('numbers.db'); "
        "d.executescript('CREATE TABLE counter (value); INSERT INTO counter VALUES (0); "
        "CREATE TABLE seen (number PRIMARY KEY, who)'); d.close()"
    )
    mounted.run(make)
    run_all(SQLITE, mounted.point, 2)
    copy = mounted.space.read_bytes("/numbers.db")
    (mounted.point.parent / "copy.db").write_bytes(copy)
    opened = sqlite3.connect(mounted.point.parent / "copy.db")
    try:
        assert opened.execute("SELECT value FROM counter").fetchone() == (50,)
        assert opened.execute("SELECT count(*), max(number) FROM seen").fetchone() == (50, 49)
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        opened.close()
    assert database.exists()


STORM = """
import fcntl, os, random, struct, sys
chance = random.Random(int(sys.argv[1]))
fd = os.open("counters", os.O_RDWR)
for turn in range(int(sys.argv[2])):
    at = chance.randrange(5) * 8
    if chance.random() < 0.3:
        fcntl.lockf(fd, fcntl.LOCK_SH, 8, at)
        first = os.pread(fd, 8, at)
        assert os.pread(fd, 8, at) == first
    else:
        fcntl.lockf(fd, fcntl.LOCK_EX, 8, at)
        (value,) = struct.unpack("<q", os.pread(fd, 8, at))
        os.pwrite(fd, struct.pack("<q", value + 1), at)
        fcntl.lockf(fd, fcntl.LOCK_EX, 8, 40)
        (value,) = struct.unpack("<q", os.pread(fd, 8, 40))
        os.pwrite(fd, struct.pack("<q", value + 1), 40)
        fcntl.lockf(fd, fcntl.LOCK_UN, 8, 40)
    fcntl.lockf(fd, fcntl.LOCK_UN, 8, at)
"""


def test_a_storm_of_ranges(mounted: Mounted) -> None:
    """S-821. Eight processes count under locks of bytes: no count is lost."""
    turns = 150
    (mounted.point / "counters").write_bytes(bytes(48))
    run_all(STORM, mounted.point, 8, turns)
    *single, total = struct.unpack("<6q", (mounted.point / "counters").read_bytes())
    assert sum(single) == total
    assert 8 * turns * 0.5 < total < 8 * turns * 0.9


APPENDS = """
import fcntl, os, sys
for turn in range(40):
    with open("log", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = os.fstat(file.fileno()).st_size // 8
        file.write(f"{number:07}\\n")
"""


def test_flock_and_append(mounted: Mounted) -> None:
    run_all(APPENDS, mounted.point, 4)
    lines = (mounted.point / "log").read_text().split()
    assert [int(line) for line in lines] == list(range(160))
