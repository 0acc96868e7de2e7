"""Names and attributes that the mount answers without the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.filespace import Filespace
from tests.filespace.spaces import Space
from tests.mount.test_low import Mounted

pytestmark = pytest.mark.mount

COUNT = 300
STAT_ALL = """
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
print(sum(os.stat(f"{folder}/f{at}").st_size for at in range(count)))
"""
LIST_AND_STAT = """
import os, sys
with os.scandir(sys.argv[1]) as found:
    print(sum(entry.stat().st_size for entry in found))
"""


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    made = Space(tmp_path)
    yield made
    made.close()


@pytest.fixture
def mounted(space: Space, tmp_path: Path) -> Iterator[Mounted]:
    writer = space.connect("writer")
    writer.mkdir("/d")
    for at in range(COUNT):
        with writer.open(f"/d/f{at}", "wb") as file:
            file.write(b"x" * at)
    writer.sync()
    made = Mounted(space.connect("reader"), tmp_path / "drive")
    yield made
    made.end()


def whole(found: os.stat_result) -> dict[str, object]:
    """All fields, the nanoseconds too."""
    return {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}


def answered(fs: Filespace) -> int:
    return fs.tree.known.stats()["hits"]


def test_a_listing_answers_what_is_asked_next(mounted: Mounted) -> None:
    before = answered(mounted.space)
    total = mounted.run(LIST_AND_STAT, "d")
    assert int(total) == COUNT * (COUNT - 1) // 2
    assert answered(mounted.space) >= before + COUNT, "each lookup after the listing"


def test_what_is_known_is_answered_while_python_computes(mounted: Mounted) -> None:
    """No handler of Python's can run, and names and attributes are answered all the same."""
    mounted.forget_all()
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        # Every question of names and attributes that comes to Python waits for this lock.
        with mounted.space.tree._parts.replica._turn:
            held.set()
            assert free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(60)
        assert int(mounted.run(STAT_ALL, "d", COUNT)) == COUNT * (COUNT - 1) // 2
    finally:
        free.set()
        holder.join()


def test_they_are_shown_as_python_shows_them(mounted: Mounted) -> None:
    """The first answer comes from Python, the second one from the engine: the same to the last
    field, also for times before 1970, odd modes, devices and many names."""
    drive = mounted.point
    (drive / "plain").write_bytes(b"z" * 5000)
    os.utime(drive / "plain", ns=(-1, -1_500_000_001))
    os.chmod(drive / "plain", 0o4751)
    os.link(drive / "plain", drive / "second")
    (drive / "inner").mkdir(mode=0o2710)
    (drive / "inner" / "child").mkdir()
    os.symlink("nowhere/at/all", drive / "link")
    mounted.space.sync()
    names = ["plain", "second", "inner", "link", "d", "d/f7", "."]
    tree = mounted.space.tree
    mounted.forget_all()
    tree.known.all_changed()
    before = answered(mounted.space)
    first = [whole(os.lstat(drive / name)) for name in names]
    assert answered(mounted.space) == before
    mounted.forget_all()
    before = answered(mounted.space)
    again = [os.lstat(drive / name) for name in names]
    assert answered(mounted.space) >= before + len(names)
    assert [whole(one) for one in again] == first
    assert again[0].st_mtime_ns == -1_500_000_001
    assert again[0].st_nlink == 2 and again[2].st_nlink == 3
    assert again[0].st_blksize == tree.block_size


def test_own_changes_are_seen_at_once(mounted: Mounted) -> None:
    """Each is followed by a look at what the kernel has forgotten."""
    drive = mounted.point
    path = drive / "d" / "f9"

    def look() -> os.stat_result:
        mounted.forget_all()
        return os.lstat(path)

    for size in (3, 70_000, 0, 12):
        look()
        path.write_bytes(b"n" * size)
        assert look().st_size == size
        with path.open("r+b", buffering=0) as file:
            file.write(b"0123456789" * 3)
            assert look().st_size == max(size, 30), "not even flushed"
            file.truncate(5)
            assert look().st_size == 5
    for mode in (0o600, 0o640):
        os.chmod(path, mode)
        assert look().st_mode & 0o777 == mode
    os.rename(drive / "d" / "f8", path)
    assert look().st_size == 8
    os.unlink(path)
    mounted.forget_all()
    assert not path.exists()
    path.mkdir()
    assert look().st_nlink == 2
    (path / "sub").mkdir()
    assert look().st_nlink == 3


def test_changes_of_others_are_seen_when_they_are_heard(mounted: Mounted, space: Space) -> None:
    other = space.connect("other")
    mounted.run(LIST_AND_STAT, "d")
    for size in (1, 2, 40_000):
        with other.open("/d/f5", "wb") as file:
            file.write(b"o" * size)
        other.rename("/d/f6", "/d/was6")
        other.sync()
        mounted.space.refresh(30)
        mounted.forget_all()
        assert (mounted.point / "d" / "f5").stat().st_size == size
        assert not (mounted.point / "d" / "f6").exists()
        assert (mounted.point / "d" / "was6").stat().st_size == 6
        other.rename("/d/was6", "/d/f6")
        other.sync()
        mounted.space.refresh(30)
        mounted.forget_all()
        assert (mounted.point / "d" / "f6").stat().st_size == 6
        mounted.run(LIST_AND_STAT, "d")


MAKE_MANY = """
import os, sys
os.mkdir("many")
for at in range(int(sys.argv[1])):
    os.symlink("x", f"many/f{at}")
"""
LIST_SLOWLY = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.opendir(sys.argv[1].encode()))
count = 0
while entry := libc.readdir(stream):
    count += 1
    if count == 250:
        print(ctypes.string_at(entry + 19).decode(), flush=True)
        sys.stdin.readline()
print(count, flush=True)
"""


def test_a_listing_that_goes_on_shows_what_is_there_by_then(mounted: Mounted) -> None:
    """Of what was read ahead nothing is shown that has gone meanwhile (S-37). The C library asks
    for 32 KiB at a time."""
    count = 2500
    mounted.run(MAKE_MANY, count)
    with subprocess.Popen(
        [sys.executable, "-c", LIST_SLOWLY, mounted.point / "many"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as lister:  # fmt: skip
        assert lister.stdout is not None and lister.stdin is not None
        assert lister.stdout.readline().strip()
        for at in range(count):
            (mounted.point / "many" / f"f{at}").unlink()
        rest, _ = lister.communicate("\n", timeout=60)
    assert 250 <= int(rest) <= 32 * 1024 // 32 + 2
