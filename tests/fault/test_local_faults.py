"""Faults of this machine: full and broken disks, a rotten journal, a replica that is junk, a clock
that is set back and forth (S-25, S-26, S-27, S-57, S-83). What has tests elsewhere is named in the
table of docs/SEMANTICS.md, section 6."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lucid.errors import DataError, LocalError, NotFound, StateDamaged
from lucid.filespace import Filespace
from lucid.format.journal import FILE_HEADER_SIZE
from lucid.local.disk import Buffer, RealDisk
from lucid.types import SystemClock
from tests.filespace.spaces import BLOCK, WAIT_S, Space, some_bytes, write_at

LARGE = some_bytes(1, 40 * BLOCK)
DAY_NS = 24 * 3600 * 10**9


class OneFails(RealDisk):
    """A disk on which everything below one directory fails when it is told to."""

    def __init__(self, directory: Path, number: int) -> None:
        self._directory, self._number = directory, number
        self.fails = True
        self._inside: set[int] = set()

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        (self._inside.add if self._directory in path.parents else self._inside.discard)(fd)
        return fd

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        self._fail(fd)
        super().pwrite(fd, data, offset)

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        self._fail(fd)
        super().fallocate(fd, offset, length)

    def _fail(self, fd: int) -> None:
        if self.fails and fd in self._inside:
            raise OSError(self._number, "the disk is full or broken")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_cache_disk_that_takes_nothing(space: Space, number: int) -> None:
    """Reads go around it, and writing goes on."""
    with space.connect("maker") as maker:
        maker.write_bytes("/large", LARGE)
    disk = OneFails(space.state("a") / "cache", number)
    with space.connect("a", disk=disk) as fs:
        assert fs.read_bytes("/large") == LARGE
        assert "cache" in fs.status().problem
        fs.write_bytes("/written", b"all the same")
        fs.sync(timeout=WAIT_S)


def test_a_cache_file_that_cannot_be_opened(space: Space) -> None:
    with space.connect("maker") as maker:
        maker.write_bytes("/large", LARGE)
    with space.connect("a") as fs:
        assert fs.read_bytes("/large") == LARGE
    for path in (space.state("a") / "cache").glob("*/*"):
        path.unlink()
        path.mkdir()
    with space.connect("a") as fs:
        assert fs.read_bytes("/large") == LARGE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("where", ["staging", "journal"])
def test_a_disk_for_writing_that_takes_nothing(space: Space, where: str, number: int) -> None:
    """S-26: who writes is told, what was accepted before is there, and reading goes on."""
    disk = OneFails(space.state("a") / where, number)
    disk.fails = False
    with space.connect("a", disk=disk, write_wait_s=0.2) as fs:
        fs.write_bytes("/before", LARGE)
        fs.sync(timeout=WAIT_S)
        disk.fails = True
        with pytest.raises(LocalError) as caught:
            fs.write_bytes("/refused", LARGE)
        assert caught.value.errno == (errno.ENOSPC if number == errno.ENOSPC else errno.EIO)
        assert fs.read_bytes("/before") == LARGE
        disk.fails = False
        if number == errno.ENOSPC:
            fs.write_bytes("/after", LARGE)
            assert fs.read_bytes("/after") == LARGE
    with space.connect("b") as other:
        assert other.read_bytes("/before") == LARGE
        if number == errno.ENOSPC:
            assert other.read_bytes("/after") == LARGE


def pending(space: Space) -> None:
    """Machine a has something in the store, and something synced that it could not send."""
    with space.connect("a") as fs:
        fs.write_bytes("/public", b"as it was")
    fs = space.connect("a")
    space.plans["a"].die()
    fs.write_bytes("/large", LARGE)
    write_at(fs, "/public", 3, b"IT")
    with fs.open("/small", "wb", 0) as file:
        file.write(b"synced")
        file.fsync()
    fs.mkdir("/last")
    space.crash(fs, "a")


def is_sent(space: Space) -> None:
    with space.connect("b") as other:
        assert other.read_bytes("/large") == LARGE
        assert other.read_bytes("/public") == b"as IT was"
        assert other.read_bytes("/small") == b"synced"


@pytest.mark.parametrize("how", ["junk", "cut", "absent"])
def test_a_rotten_replica_is_built_anew_and_what_is_pending_is_kept(space: Space, how: str) -> None:
    """S-57."""
    pending(space)
    replica = space.state("a") / "replica"
    for beside in replica.parent.glob("replica-*"):
        beside.unlink()
    if how == "absent":
        replica.unlink()
    else:
        data = replica.read_bytes()
        replica.write_bytes(some_bytes(2, len(data)) if how == "junk" else data[: len(data) // 3])
    with space.connect("a") as fs:
        assert fs.read_bytes("/large") == LARGE
        fs.sync(timeout=WAIT_S)
    is_sent(space)


def test_a_rotten_journal_is_read_only_and_loses_nothing_more(space: Space) -> None:
    """S-27: a record that was durable and is not what it was. Nobody writes over it; what the
    store has can be read, and put right it is sent."""
    pending(space)
    journal = max((space.state("a") / "journal").iterdir())
    whole = journal.read_bytes()
    rotten = bytearray(whole)
    rotten[FILE_HEADER_SIZE + 40] ^= 1
    journal.write_bytes(rotten)
    for _ in range(2):
        with pytest.raises(StateDamaged, match="read-only"):
            space.connect("a")
        with space.connect("a", read_only=True) as fs:
            assert fs.read_bytes("/public") == b"as it was"
    journal.write_bytes(whole)
    with space.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
    is_sent(space)


class Set(SystemClock):
    """A machine's clock that somebody sets. What counts seconds goes on as it was."""

    def __init__(self) -> None:
        self.off_ns = 0

    def time_ns(self) -> int:
        return super().time_ns() + self.off_ns


@pytest.mark.parametrize("first_days", [-400, 400])
def test_a_clock_that_is_set_back_and_forth(space: Space, first_days: int) -> None:
    """Order is the log's, never a clock's: the last write counts, whatever the time is."""
    clock = Set()
    with space.connect("a", clock=clock) as fs, space.connect("b") as other:
        want: dict[str, bytes] = {}
        for number, days in enumerate((0, first_days, 0, -first_days, 3)):
            clock.off_ns = days * DAY_NS
            data = some_bytes(number, 2000)
            want["/same"] = want[f"/f{number}"] = data
            fs.write_bytes("/same", data)
            fs.write_bytes(f"/f{number}", data)
            fs.sync(timeout=WAIT_S)
            assert other.refresh(WAIT_S)
            assert {path: other.read_bytes(path) for path in want} == want
            write_at(other, "/same", 0, b"b")
            other.sync(timeout=WAIT_S)
            assert fs.refresh(WAIT_S)
            want["/same"] = b"b" + data[1:]
            assert fs.read_bytes("/same") == want["/same"]
        assert not any("conflict" in name for name in fs.listdir("/"))
        status = fs.status()
        assert (status.problem, status.failed) == ("", ())
        assert status.newest_entry_age_s is not None
        assert status.newest_entry_age_s >= 0


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_is_set_while_changes_wait(space: Space, days: int) -> None:
    """What a crash left is taken up and sent, also years before or after it was made."""
    pending(space)
    clock = Set()
    clock.off_ns = days * DAY_NS
    with space.connect("a", clock=clock) as fs:
        fs.sync(timeout=WAIT_S)
    is_sent(space)


def test_torn_segments_are_seen_after_a_restart_whatever_the_clock_says(space: Space) -> None:
    """Loss of power took bytes of a staged segment. The clock was set back since, so that the file
    looks as if it were written after the machine started."""
    pending(space)
    state = space.state("a")
    (state / "start").write_text("another one")
    (staged,) = [path for path in (state / "staging").iterdir() if is_large(path)]
    with staged.open("r+b") as file:
        file.seek(10 * BLOCK)
        file.write(bytes(BLOCK))
    with space.connect("a") as fs:
        assert content_or_error(fs, "/large") in (LARGE, None)
        fs.write_bytes("/goes on", b"x")
        fs.sync(timeout=WAIT_S)
        told = " ".join(fs.status().failed)
        assert "left out" in told or ("not yet safe" in told and lost_blocks(fs) > 0), told
    with space.connect("b") as other:
        assert other.read_bytes("/public") == b"as IT was"
        assert other.read_bytes("/goes on") == b"x"


def is_large(path: Path) -> bool:
    """Whether it is the finished segment of the large file; an open one has room for more."""
    return len(LARGE) < path.stat().st_size < 2 * len(LARGE)


def content_or_error(fs: Filespace, path: str) -> bytes | None:
    try:
        return fs.read_bytes(path)
    except (DataError, NotFound):
        return None


def lost_blocks(fs: Filespace) -> int:
    """Blocks of the large file that are recorded as lost, and so can never be other bytes."""
    lost = 0
    with fs.open("/large", "rb", 0) as file:
        for at in range(0, len(LARGE), BLOCK):
            file.seek(at)
            try:
                assert file.read(BLOCK) == LARGE[at : at + BLOCK]
            except DataError as error:
                assert "lost" in str(error) or "nobody" in str(error), error
                lost += 1
    return lost
