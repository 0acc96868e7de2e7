"""What the kernel's requests about locks mean, one by one."""

from __future__ import annotations

import errno
import fcntl
import struct
from dataclasses import dataclass, field

import pytest

from lucid.filespace.lock_ranges import TO_THE_END
from lucid.mount.fuse import low
from lucid.mount.locking import Locking
from lucid.mount.notifier import Notifier
from tests.mount.memory_surface import MemorySurface

FD, INO = 99, 7
ALL = (0, TO_THE_END)


@dataclass
class Asked:
    """The attendant, and what the kernel was answered: (number of the request, error, data)."""

    locking: Locking = field(default_factory=lambda: Locking(MemorySurface(), Notifier()))
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)

    def flock(self, unique: int, handle: int, owner: int, waits: bool = False) -> None:
        self.locking.lock(FD, unique, INO, handle, owner, ALL, fcntl.F_WRLCK, 1, True, waits)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()

    def answer(fd: int, unique: int, error: int, data: bytes = b"") -> None:
        assert fd == FD
        made.answers.append((unique, error, data))

    monkeypatch.setattr(low, "answer", answer)
    return made


def test_an_address_that_is_used_again_is_another_open_file(asked: Asked) -> None:
    """The kernel frees an open file before its release is handled, and the next may lie there."""
    asked.flock(1, handle=1, owner=0xABC)
    asked.flock(2, handle=2, owner=0xABC)
    asked.flock(3, handle=2, owner=0xABC, waits=True)
    assert asked.answers == [(1, 0, b""), (2, errno.EAGAIN, b"")]
    asked.locking.released(INO, 1)
    assert asked.answers[2:] == [(3, 0, b"")]
    assert [row.waits for row in asked.locking.locks.table()] == [False]
    asked.locking.stop()


def test_nothing_is_written_after_the_end(asked: Asked) -> None:
    """The descriptor may be another file's by then."""
    asked.flock(1, handle=1, owner=1)
    asked.flock(2, handle=2, owner=2, waits=True)
    asked.locking.stop()
    assert asked.answers == [(1, 0, b""), (2, errno.EIO, b"")]
    asked.flock(3, handle=3, owner=3)
    assert len(asked.answers) == 2


def test_a_kind_that_is_none(asked: Asked) -> None:
    asked.locking.lock(FD, 1, INO, 1, 1, ALL, 77, 1, False, False)
    asked.locking.test(FD, 2, INO, 1, 1, ALL, 77, 1)
    assert asked.answers == [(1, errno.EINVAL, b""), (2, errno.EINVAL, b"")]


def test_a_bug_is_an_error_for_one_caller(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def take(*arguments: object) -> None:
        raise RuntimeError("a bug, told to happen")

    monkeypatch.setattr(asked.locking.locks, "take", take)
    asked.flock(1, handle=1, owner=1)
    assert asked.answers == [(1, errno.EIO, b"")]
    assert "a lock request failed" in caplog.text


def test_the_answer_to_who_has_it(asked: Asked) -> None:
    asked.locking.lock(FD, 1, INO, 1, 1, (5, 9), fcntl.F_WRLCK, 123, False, False)
    asked.locking.test(FD, 2, INO, 2, 2, ALL, fcntl.F_RDLCK, 456)
    asked.locking.test(FD, 3, INO, 2, 2, (10, 20), fcntl.F_RDLCK, 456)
    assert [struct.unpack("=QQII", data) for _, _, data in asked.answers[1:]] == [
        (5, 9, fcntl.F_WRLCK, 123),
        (10, 20, fcntl.F_UNLCK, 0),
    ]
    asked.locking.stop()
