"""What protocol 7.19 of libfuse cannot do is refused clearly, or done the plain way."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import partial
from pathlib import Path

import pytest

from tests.mount.drive import Drive
from tests.mount.test_names import fails_with

pytestmark = pytest.mark.mount

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def test_renameat2_with_flags(drive: Drive) -> None:
    """S-61: the kernel itself answers EEXIST where it knows that the name is taken."""
    a, b, c = (drive.point / name for name in "abc")
    a.write_text("a")
    b.write_text("b")
    fails_with(errno.EINVAL, partial(renameat2, a, b, RENAME_EXCHANGE))
    fails_with(errno.EINVAL, partial(renameat2, a, c, RENAME_NOREPLACE))
    fails_with(errno.EEXIST, partial(renameat2, a, b, RENAME_NOREPLACE))
    assert a.read_text() + b.read_text() == "ab"
    renameat2(a, b, 0)


def test_tmpfile(drive: Drive) -> None:
    """S-62"""
    fails_with(errno.EOPNOTSUPP, lambda: os.open(drive.point, os.O_TMPFILE | os.O_RDWR))


def test_holes_are_not_found(drive: Drive) -> None:
    """S-63"""
    with (drive.point / "f").open("wb") as file:
        file.truncate(1 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 1 << 20


def test_copy_file_range(drive: Drive) -> None:
    """S-64"""
    content = os.urandom(400_000)
    (drive.point / "a").write_bytes(content)
    with (drive.point / "a").open("rb") as source, (drive.point / "b").open("wb") as target:
        copied = 0
        while copied < len(content):
            copied += os.copy_file_range(source.fileno(), target.fileno(), len(content) - copied)
    assert (drive.point / "b").read_bytes() == content
