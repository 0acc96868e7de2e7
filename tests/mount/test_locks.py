"""Locks of real programs on a mount, as a local disk would keep them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lucid.errors import FuseMissing
from lucid.mount import registry
from lucid.mount.fuse import lock_requests, low
from tests.mount.conftest import MakeDrive
from tests.mount.drive import Drive
from tests.mount.machines import Machines
from tests.mount.program import Program
from tests.mount.test_files import eventually

pytestmark = pytest.mark.mount

Start = Callable[[], Program]


@pytest.fixture
def start(drive: Drive) -> Iterator[Start]:
    """start(): a program in the drive. At the end nothing is left of what they locked."""
    programs: list[Program] = []

    def begin() -> Program:
        programs.append(Program(drive.point))
        return programs[-1]

    yield begin
    for program in programs:
        program.end()
    eventually(lambda: drive.session.locks.table() == [])
    assert lock_requests.marked() == 0


def waits(drive: Drive, count: int = 1) -> None:
    """Returns when so many requests wait for locks."""
    eventually(lambda: sum(row.waits for row in drive.session.locks.table()) == count)


# --- flock ----------------------------------------------------------------------------------------


def test_flock_excludes(start: Start) -> None:
    """S-821, S-825."""
    one, two = start(), start()
    for program in (one, two):
        assert program.ask("open_('f')") == "3"
    assert one.ask("fcntl.flock(3, LOCK_EX)") == "None"
    assert two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "EAGAIN"
    assert two.ask("fcntl.flock(3, LOCK_SH | LOCK_NB)") == "EAGAIN"
    assert one.ask("fcntl.flock(3, LOCK_SH)") == "None"
    assert two.ask("fcntl.flock(3, LOCK_SH | LOCK_NB)") == "None"
    assert one.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "EAGAIN"
    assert two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "None", "a conversion gave up the other"


def test_flock_waits_and_is_granted(start: Start, drive: Drive) -> None:
    one, two = start(), start()
    for program in (one, two):
        program.ask("open_('f')")
    one.ask("fcntl.flock(3, LOCK_EX)")
    two.begin("fcntl.flock(3, LOCK_EX)")
    waits(drive)
    assert not two.has_answered()
    assert one.ask("fcntl.flock(3, LOCK_UN)") == "None"
    assert two.answer() == "None"


def test_flock_ends_with_the_last_close_of_the_open_file(start: Start) -> None:
    """S-824."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("open_('f')")
    one.ask("fcntl.flock(3, LOCK_EX)")
    assert one.ask("os.dup(3)") == "4"
    one.ask("os.close(3)")
    assert two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "EAGAIN", "the other descriptor has it"
    one.ask("os.close(4)")
    # The kernel closes an open file a moment after the last close has returned.
    eventually(lambda: two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "None")


def test_flock_is_shared_with_a_child(start: Start, drive: Drive) -> None:
    """S-824."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("open_('f')")
    one.ask("fcntl.flock(3, LOCK_EX)")
    assert one.ask("os.set_inheritable(3, True)") == "None"
    child = one.ask("os.posix_spawn('/bin/sleep', ['sleep', '600'], os.environ)")
    one.end()
    try:
        assert two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "EAGAIN"
    finally:
        os.kill(int(child), signal.SIGKILL)
    assert two.ask("fcntl.flock(3, LOCK_EX)") == "None"


def test_a_directory_is_locked_by_the_kernel_itself(start: Start, drive: Drive) -> None:
    """S-834."""
    (drive.point / "d").mkdir()
    one, two = start(), start()
    for program in (one, two):
        assert program.ask("os.open('d', os.O_RDONLY)") == "3"
    assert one.ask("fcntl.flock(3, LOCK_EX)") == "None"
    assert two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "EAGAIN"
    assert drive.session.locks.table() == []
    one.ask("os.close(3)")
    assert two.ask("fcntl.flock(3, LOCK_EX | LOCK_NB)") == "None"


# --- fcntl ----------------------------------------------------------------------------------------


def test_ranges_exclude_and_split(start: Start) -> None:
    """S-821, S-822."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("open_('f')")
    assert one.ask("take(3, F_WRLCK, 0, 100)") == "None"
    assert two.ask("take(3, F_RDLCK, 99, 1)") == "EAGAIN"
    assert two.ask("take(3, F_WRLCK, 100, 1)") == "None"
    assert one.ask("take(3, F_UNLCK, 40, 20)") == "None"
    assert two.ask("take(3, F_WRLCK, 40, 20)") == "None"
    assert two.ask("take(3, F_WRLCK, 39, 2)") == "EAGAIN"
    assert one.ask("take(3, F_RDLCK, 0, 40)") == "None"
    assert two.ask("take(3, F_RDLCK, 0, 40)") == "None"
    assert two.ask("take(3, F_RDLCK, 60, 1)") == "EAGAIN"


def test_who_has_it(start: Start) -> None:
    """S-823, S-822."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("open_('f')")
    one.ask("take(3, F_WRLCK, 10, 5)")
    one.ask("take(3, F_RDLCK, 100)")
    assert two.ask("ask(3, F_RDLCK)") == f"(1, 10, 5, {one.pid})"
    assert two.ask("ask(3, F_WRLCK, 50)") == f"(0, 100, 0, {one.pid})"
    assert two.ask("ask(3, F_RDLCK, 50)") == "(2, 50, 0, 0)"
    assert one.ask("ask(3, F_WRLCK)") == "(2, 0, 0, 0)", "its own are no hindrance"


def test_closing_any_descriptor_unlocks(start: Start) -> None:
    """S-824."""
    one, two = start(), start()
    two.ask("open_('f')")
    assert one.ask("[open_('f'), open_('f')]") == "[3, 4]"
    one.ask("take(3, F_WRLCK)")
    assert two.ask("take(3, F_WRLCK)") == "EAGAIN"
    one.ask("os.close(4)")
    assert two.ask("take(3, F_WRLCK)") == "None"


def test_a_reader_that_closes_unlocks(start: Start) -> None:
    """Its close is answered without Python, where it has no locks."""
    one, two = start(), start()
    two.ask("open_('f')")
    assert one.ask("os.open('f', os.O_RDONLY)") == "3"
    assert one.ask("take(3, F_RDLCK)") == "None"
    assert two.ask("take(3, F_WRLCK)") == "EAGAIN"
    one.ask("os.close(3)")
    assert two.ask("take(3, F_WRLCK)") == "None"


def test_death_unlocks(start: Start) -> None:
    """S-824."""
    for lock in ("fcntl.flock(3, LOCK_EX)", "wait(3, F_WRLCK)"):
        one, two = start(), start()
        for program in (one, two):
            program.ask("open_('f')")
        assert one.ask(lock) == "None"
        two.begin(lock)
        one.end()
        assert two.answer() == "None"
        two.end()


def test_open_file_locks_end_with_the_open_file(start: Start) -> None:
    """S-824. OFD locks: the kernel does not tell of their end."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("open_('f')")
    one.ask("control(3, 37, F_WRLCK)")
    assert one.ask("open_('f')") == "4"
    assert one.ask("control(4, 37, F_WRLCK)") == "EAGAIN"
    one.ask("os.close(4)")
    assert two.ask("take(3, F_WRLCK)") == "EAGAIN"
    one.ask("os.close(3)")
    eventually(lambda: two.ask("take(3, F_WRLCK)") == "None")


def test_a_circle_is_refused(start: Start, drive: Drive) -> None:
    """S-829."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("[open_('f'), open_('g')]")
    one.ask("take(3, F_WRLCK)")
    two.ask("take(4, F_WRLCK)")
    one.begin("wait(4, F_WRLCK)")
    waits(drive)
    assert two.ask("wait(3, F_WRLCK)") == "EDEADLOCK"
    two.ask("take(4, F_UNLCK)")
    assert one.answer() == "None"


def test_a_circle_of_flock_waits_for_a_signal(start: Start, drive: Drive) -> None:
    """S-829."""
    one, two = start(), start()
    for program in (one, two):
        program.ask("[open_('f'), open_('g')]")
    one.ask("fcntl.flock(3, LOCK_EX)")
    two.ask("fcntl.flock(4, LOCK_EX)")
    one.begin("fcntl.flock(4, LOCK_EX)")
    two.begin("fcntl.flock(3, LOCK_EX)")
    waits(drive, 2)
    two.signal()
    assert two.answer() == "EINTR"
    two.ask("os.close(4)")
    assert one.answer() == "None"


# --- Waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", ["fcntl.flock(3, LOCK_EX)", "wait(3, F_WRLCK)"])
def test_a_signal_ends_a_wait(start: Start, drive: Drive, lock: str) -> None:
    """S-827."""
    one, two, three = start(), start(), start()
    for program in (one, two, three):
        program.ask("open_('f')")
    one.ask(lock)
    two.begin(lock)
    waits(drive)
    two.signal()
    assert two.answer() == "EINTR"
    two.begin(lock)
    waits(drive)
    two.end()
    waits(drive, 0)
    one.ask("os.close(3)")
    assert three.ask(lock) == "None"


def test_many_waiters_leave_the_drive_free(start: Start, drive: Drive) -> None:
    """S-828, S-826. And get the lock in the order in which they came."""
    holder = start()
    holder.ask("open_('f')")
    holder.ask("fcntl.flock(3, LOCK_EX)")
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", WAITER, drive.point / "f", drive.point / "order", str(at)]
        )
        for at in range(64)
    ]
    try:
        waits(drive, 64)
        began = time.monotonic()
        for at in range(100):
            (drive.point / f"d{at}").mkdir()
        assert time.monotonic() - began < 10.0
        queue = [row.pid for row in drive.session.locks.table() if row.waits]
        holder.end()
        for process in crowd:
            assert process.wait(60) == 0
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    order = [int(line) for line in (drive.point / "order").read_text().split()]
    assert order == queue


WAITER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.write(out, b"%d\\n" % os.getpid())
os.close(out)
"""


def test_a_drive_ends_though_programs_wait(machines: Machines) -> None:
    """S-830."""
    point = machines.mount()
    (record,) = registry.records()
    one, two = Program(point), Program(point)
    try:
        for program in (one, two):
            program.ask("open_('f')")
        one.ask("fcntl.flock(3, LOCK_EX)")
        two.begin("fcntl.flock(3, LOCK_EX)")
        eventually(lambda: in_call(two) == FLOCK_CALL)
        os.kill(record.pid, signal.SIGTERM)
        assert two.answer() in ("EIO", "ENOTCONN", "ECONNABORTED")
        assert registry.wait_for_end(record, 10_000)
    finally:
        one.end()
        two.end()


FLOCK_CALL = {"x86_64": "73", "aarch64": "32"}.get(os.uname().machine, "73")


def in_call(program: Program) -> str:
    """The number of the system call in which a program sleeps."""
    return Path(f"/proc/{program.pid}/syscall").read_text().split()[0]


def test_without_locks_there_is_no_mount(
    make_drive: MakeDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-831."""
    stats = low.stats
    monkeypatch.setattr(low, "stats", lambda: stats() | {"flocks": False})
    with pytest.raises(FuseMissing, match="does not pass locks on"):
        make_drive()
