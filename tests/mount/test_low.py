"""What is put between llfuse and libfuse: hits, refusals, and as many workers as are needed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import FuseMissing
from lucid.filespace import Filespace
from lucid.filespace.surface import Invalidation
from lucid.mount import fuse, mountpoint
from lucid.mount.fuse import low, turns
from lucid.mount.options import MountOptions
from lucid.mount.session import READ_AHEAD, WORKERS, Session
from tests.filespace.spaces import Space
from tests.mount.conftest import MakeDrive
from tests.mount.drive import Drive
from tests.mount.memory_surface import MemorySurface
from tests.mount.test_files import eventually

pytestmark = pytest.mark.mount

MiB = 1024 * 1024
WAIT_S = 20.0


def extra_workers() -> int:
    return sum(thread.name.startswith("fuse-extra") for thread in threading.enumerate())


def test_xattrs_that_nobody_has_are_refused_here(drive: Drive) -> None:
    (drive.point / "f").write_bytes(b"x")
    before = low.stats()["refused"]
    for name in ("security.capability", "system.posix_acl_access"):
        with pytest.raises(OSError) as caught:
            os.getxattr(drive.point / "f", name)
        assert caught.value.errno in (errno.EOPNOTSUPP, errno.ENODATA)
    assert low.stats()["refused"] > before
    assert "get_xattr" not in drive.surface.trace
    os.setxattr(drive.point / "f", "user.kept", b"1")
    assert os.getxattr(drive.point / "f", "user.kept") == b"1"


def test_a_drive_begins_with_a_few_workers(drive: Drive) -> None:
    for at in range(50):
        (drive.point / f"f{at}").write_bytes(b"x")
    assert extra_workers() <= WORKERS, "some may come while llfuse's own are only beginning"
    assert low.stats()["sessions"] >= 1


def test_one_worker_leads_while_requests_are_short(make_drive: MakeDrive) -> None:
    """Until one stalls: then another takes the next requests."""
    surface = MemorySurface()
    drive = make_drive(surface)
    (drive.point / "link").symlink_to("t")
    for at in range(200):
        (drive.point / f"d{at}").mkdir()
    # One may still be on its way back, another have come because one took long.
    eventually(lambda: turns.stats()["leading"] <= 2)
    free, stalled = threading.Event(), threading.Event()

    def stall() -> None:
        stalled.set()
        assert free.wait(WAIT_S)

    surface.hooks["readlink"] = stall
    with subprocess.Popen(["readlink", drive.point / "link"], stdout=subprocess.DEVNULL) as process:
        try:
            assert stalled.wait(WAIT_S)
            began = time.monotonic()
            (drive.point / "beside").mkdir()
            assert time.monotonic() - began < WAIT_S / 10
        finally:
            free.set()
    assert process.returncode == 0


def test_hung_requests_get_workers_of_their_own(make_drive: MakeDrive) -> None:
    """Three times as many as llfuse has, and the drive still answers; all go with the session."""
    surface = MemorySurface()
    drive = make_drive(surface)
    count = 3 * max(WORKERS, 16)
    for at in range(count):
        (drive.point / f"f{at}").write_bytes(b"x" * 10)
    free = threading.Event()
    hung = threading.Semaphore(0)

    def hang() -> None:
        hung.release()
        assert free.wait(WAIT_S)

    surface.hooks["readlink"] = hang
    for at in range(count):
        (drive.point / f"l{at}").symlink_to("t")
    waiting = [
        subprocess.Popen(["readlink", drive.point / f"l{at}"], stdout=subprocess.DEVNULL)
        for at in range(count)
    ]
    try:
        for _ in range(count):
            assert hung.acquire(timeout=WAIT_S), "a request waits for a worker"
        assert (drive.point / "f0").stat().st_size == 10
        assert extra_workers() > 0
    finally:
        free.set()
        for process in waiting:
            assert process.wait(WAIT_S) == 0
    drive.stop()
    assert extra_workers() == 0


def test_sessions_one_after_the_other(tmp_path: Path) -> None:
    """Each ends with its workers, and the next begins with the same functions."""
    for at in range(5):
        point = tmp_path / str(at)
        point.mkdir()
        drive = Drive(point)
        drive.start()
        (point / "f").write_bytes(b"x")
        drive.stop()
        assert drive.ended_by == [None]
        assert turns.stats()["leading"] == turns.stats()["waiting"] == 0


def test_a_mount_that_goes_around_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low, "stats", lambda: {"sessions": 7})
    with pytest.raises(FuseMissing, match="llfuse was loaded before"):
        Session(MemorySurface(), tmp_path, MountOptions()).run()
    assert not tmp_path.is_mount()


def test_two_copies_of_libfuse_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tmp_path / "maps"
    maps.write_text("1 r-xp 0 0 1 /a/libfuse.so.2.9.9\n2 r-xp 0 0 2 /b/libfuse.so.2\n")
    monkeypatch.setattr(fuse, "MAPS", maps)
    with pytest.raises(FuseMissing, match="Two copies"):
        fuse.check_low(0)


def test_without_the_extension_there_is_one_clear_error() -> None:
    code = (
        "import sys; sys.modules['lucid.mount._low'] = None\n"
        "try:\n    import lucid.mount.session\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("FuseMissing The mount's extension is not there")
    assert "run ./build.sh" in done.stdout


class Mounted:
    """A real filespace, mounted in this process."""

    def __init__(self, space: Filespace, point: Path) -> None:
        self.space, self.point = space, point
        point.mkdir()
        ready = threading.Event()
        session = Session(space.tree, point, MountOptions(), on_ready=ready.set)
        self.locks = session.locks
        self.notifier = session._notifier
        self.thread = threading.Thread(target=session.run)
        self.thread.start()
        assert ready.wait(WAIT_S)

    def run(self, code: str, *arguments: object) -> str:
        """Python in a process of its own, in the drive: what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *(str(one) for one in arguments)],
            cwd=self.point, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    def forget_all(self) -> None:
        """The kernel forgets every name and all attributes that there are."""
        waiting, told = [1], [Invalidation(1, None)]
        while waiting:
            directory = waiting.pop()
            for entry in self.space.tree.readdir(directory, 0, 500):
                told += [Invalidation(directory, entry.name)]
                told += [Invalidation(entry.attributes.ino, None)]
                if stat.S_ISDIR(entry.attributes.mode):
                    waiting.append(entry.attributes.ino)
        self.notifier.listen(told)
        assert self.notifier.wait_told(WAIT_S)

    def hits(self) -> int:
        return self.space.tree.hits.stats()["hits"]

    def end(self) -> None:
        subprocess.run(["fusermount3", "-uz", self.point], check=False)
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.space.close()


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    made = Space(tmp_path)
    yield made
    made.close()


READ = """
import hashlib, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
digest = hashlib.sha256()
while piece := os.read(fd, 1 << 20):
    digest.update(piece)
print(digest.hexdigest())
"""


WRITE_AND_READ = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
os.write(fd, b"newer than what is published")
again = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(again, 0, 0, os.POSIX_FADV_DONTNEED)
print(os.read(again, 28).decode())
"""


def test_reads_are_served_without_python(space: Space) -> None:
    """And what was written since is in the next read, here and from elsewhere."""
    mounted = Mounted(space.connect("one"), space.root / "drive")
    other = space.connect("two")
    try:
        for turn in range(4):
            data = os.urandom(4 * MiB + 77 + turn)
            expected = hashlib.sha256(data).hexdigest()
            if turn % 2:
                (space.root / "new").write_bytes(data)
                mounted.run("import shutil, sys; shutil.copy(sys.argv[1], 'f')", space.root / "new")
            else:
                other.refresh()
                other.write_bytes("/f", data)
                other.sync()
                mounted.space.refresh()
            # The kernel is told of what others wrote a moment after it is folded.
            eventually(lambda expected=expected: mounted.run(READ, "f") == expected)
            before = mounted.hits()
            assert mounted.run(READ, "f") == expected
            assert mounted.hits() - before >= 16, "a few reads at most build the map"
            mounted.space.sync()
        assert mounted.run(WRITE_AND_READ, "f") == "newer than what is published"
    finally:
        mounted.end()


def test_a_busy_interpreter_does_not_slow_hits(space: Space) -> None:
    mounted = Mounted(space.connect("one"), space.root / "drive")
    ends = threading.Event()

    def compute() -> None:
        while not ends.is_set():
            sum(range(10_000))

    busy = threading.Thread(target=compute)
    try:
        with mounted.space.open("/f", "wb") as file:
            file.write(os.urandom(16 * MiB))
        first = mounted.run(READ, "f")
        busy.start()
        before = mounted.hits()
        assert mounted.run(READ, "f") == first
        eventually(lambda: mounted.hits() - before >= 64)
    finally:
        ends.set()
        if busy.ident:
            busy.join()
        mounted.end()


def test_the_kernel_reads_far_ahead(drive: Drive) -> None:
    """Where we may say so: root may."""
    mounted = mountpoint.find(drive.point)
    assert mounted is not None
    device = f"{os.major(mounted.device)}:{os.minor(mounted.device)}"
    setting = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    if os.access(setting, os.W_OK):
        assert int(setting.read_text()) * 1024 == READ_AHEAD
    nobody = mountpoint.Mount(drive.point, "fuse.lucid", "x", os.makedev(4000, 1))
    assert not mountpoint.set_read_ahead(nobody, READ_AHEAD)
