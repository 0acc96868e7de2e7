"""A lock whose lease was lost: what was opened under it fails, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.filespace.spaces import Space
from tests.mount.drive import Drive
from tests.mount.program import Program
from tests.mount.test_files import eventually
from tests.mount.test_low import Mounted

pytestmark = pytest.mark.mount


@pytest.fixture
def program(drive: Drive) -> Iterator[Program]:
    started = Program(drive.point)
    yield started
    started.end()
    eventually(lambda: drive.session.locks.table() == [])


def lose(drive: Drive, name: str) -> None:
    drive.surface.leases.on_lost((drive.point / name).stat().st_ino)


def test_what_was_opened_under_it_fails_until_it_is_closed(drive: Drive, program: Program) -> None:
    """S-832: reads, writes, truncate, fsync, fallocate, locks and close."""
    (drive.point / "f").write_bytes(b"data")
    program.ask("[open_('f'), open_('f'), open_('g')]")
    assert program.ask("fcntl.flock(3, LOCK_EX)") == "None"
    assert program.ask("fcntl.flock(5, LOCK_EX)") == "None"
    lose(drive, "f")
    eventually(lambda: program.ask("os.pread(3, 4, 0)") == "EIO")
    for call in (
        "os.pwrite(3, b'x', 0)",
        "os.ftruncate(3, 0)",
        "os.fsync(3)",
        "os.posix_fallocate(3, 0, 100)",
        "fcntl.flock(3, LOCK_EX)",
        "take(3, F_RDLCK)",
        "os.close(3)",
    ):
        assert program.ask(call) == "EIO", call
    assert program.ask("os.pread(4, 4, 0)") == "b'data'", "it had no lock"
    assert program.ask("os.pwrite(5, b'x', 0)") == "1"
    assert program.ask("fcntl.flock(open_('f'), LOCK_EX | LOCK_NB)") == "None", "taken anew"
    assert program.ask("os.pwrite(3, b'x', 0)") == "1"


def test_who_waits_for_it_gets_an_error(drive: Drive, program: Program) -> None:
    holder = Program(drive.point)
    try:
        for one in (holder, program):
            one.ask("open_('f')")
            one.begin("fcntl.flock(3, LOCK_EX)")
            eventually(lambda one=one: one.has_answered() or is_waiting(drive))
        assert holder.answer() == "None"
        lose(drive, "f")
        assert program.answer() == "EIO"
        assert program.ask("fcntl.flock(3, LOCK_EX)") == "None"
    finally:
        holder.end()


def is_waiting(drive: Drive) -> bool:
    return any(row.waits for row in drive.session.locks.table())


def test_reads_that_need_no_python_fail_too(tmp_path: Path) -> None:
    space = Space(tmp_path)
    mounted = Mounted(space.connect("one"), space.root / "drive")
    program = Program(mounted.point)
    try:
        mounted.space.write_bytes("/f", b"x" * 400_000)
        mounted.space.sync()
        program.ask("os.open('f', os.O_RDONLY)")
        read = "(os.posix_fadvise(3, 0, 0, os.POSIX_FADV_DONTNEED), len(os.pread(3, 4096, 0)))[1]"
        before = mounted.hits()
        assert program.ask("fcntl.flock(3, LOCK_SH)") == "None"
        eventually(lambda: program.ask(read) == "4096" and mounted.hits() > before)
        mounted.locks._lease_lost((mounted.point / "f").stat().st_ino)
        eventually(lambda: program.ask(read) == "EIO")
        assert program.ask("os.open('f', os.O_RDONLY)") == "4"
        assert program.ask(read.replace("3, 4096", "4, 4096")) == "4096"
    finally:
        program.end()
        mounted.end()
        space.close()
