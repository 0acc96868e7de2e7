"""The real disk, and the sentences a user reads when it fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lucid.errors import DiskFull, LocalError
from lucid.local.disk import RealDisk, local_error, local_errors


def opened(disk: RealDisk, path: Path) -> int:
    return disk.open(path, os.O_RDWR | os.O_CREAT)


def test_files_are_ours_alone_and_not_inherited(disk: RealDisk, root: Path) -> None:
    fd = opened(disk, root / "a")
    assert (root / "a").stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)
    disk.close(fd)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_short_writes_are_finished(
    disk: RealDisk, root: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data[:step]), at))
    fd = opened(disk, root / "a")
    for data in (b"0123456789", bytearray(b"abcdefghij"), memoryview(b"ABCDEFGHIJ")):
        disk.pwrite(fd, data, 5)
        assert disk.pread(fd, 10, 5) == bytes(data)
    disk.close(fd)


def test_a_write_of_nothing_is_an_error(
    disk: RealDisk, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = opened(disk, root / "a")
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(OSError, match="wrote nothing"):
        disk.pwrite(fd, b"x", 0)
    disk.close(fd)


def test_short_reads_are_finished(
    disk: RealDisk, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = opened(disk, root / "a")
    disk.pwrite(fd, b"0123456789", 0)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 3), at))
    assert disk.pread(fd, 9, 0) == b"012345678"
    assert disk.pread(fd, 9, 5) == b"56789"
    assert disk.pread(fd, 9, 50) == b""
    disk.close(fd)


def test_fallocate_grows_with_zeros_and_keeps_what_is_there(disk: RealDisk, root: Path) -> None:
    fd = opened(disk, root / "a")
    disk.pwrite(fd, b"kept", 0)
    disk.fallocate(fd, 0, 10_000)
    assert disk.size(fd) == 10_000
    assert disk.pread(fd, 8, 0) == b"kept\0\0\0\0"
    disk.ftruncate(fd, 2)
    assert disk.pread(fd, 10, 0) == b"ke"
    disk.close(fd)


def test_a_file_system_without_fallocate_still_grows(
    disk: RealDisk, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    fd = opened(disk, root / "a")
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    number = errno.EOPNOTSUPP
    disk.fallocate(fd, 100, 900)
    assert disk.size(fd) == 1000
    disk.fallocate(fd, 0, 10)
    assert disk.size(fd) == 1000
    number = errno.ENOSPC
    with pytest.raises(OSError, match="space"):
        disk.fallocate(fd, 0, 10_000)
    disk.close(fd)


def test_names(disk: RealDisk, root: Path) -> None:
    disk.mkdir(root / "d")
    assert (root / "d").stat().st_mode & 0o777 == 0o700
    disk.close(opened(disk, root / "d" / "b"))
    disk.close(opened(disk, root / "d" / "a"))
    disk.fsync_dir(root / "d")
    assert disk.listdir(root / "d") == ["a", "b"]
    disk.rename(root / "d" / "a", root / "d" / "b")
    disk.chmod(root / "d" / "b", 0o400)
    assert disk.stat(root / "d" / "b").st_mode & 0o777 == 0o400
    disk.unlink(root / "d" / "b")
    assert disk.listdir(root / "d") == []
    (root / "link").symlink_to("d")
    assert os.path.stat.S_ISLNK(disk.stat(root / "link").st_mode)


def test_space_is_in_bytes(disk: RealDisk, root: Path) -> None:
    space = disk.space(root)
    assert 0 < space.available <= space.total
    assert space.total > 1 << 20


def test_a_lock_is_taken_once(disk: RealDisk, root: Path) -> None:
    first, second = opened(disk, root / "lock"), opened(disk, root / "lock")
    assert disk.flock(first) and not disk.flock(second)
    disk.close(first)
    assert disk.flock(second)
    disk.close(second)


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, DiskFull, "Free some space"),
        (errno.EDQUOT, DiskFull, "Free some space"),
        (errno.EACCES, LocalError, "owner"),
        (errno.EROFS, LocalError, "owner"),
        (errno.ENOTDIR, LocalError, "Check the path"),
        (errno.EIO, LocalError, "Check the disk"),
    ],
)
def test_every_error_says_what_to_do(number: int, kind: type[LocalError], advice: str) -> None:
    error = OSError(number, os.strerror(number), "/some/path")
    assert type(local_error(error, "write")) is kind
    with pytest.raises(kind, match=f"could not write: .*{advice}") as caught, local_errors("write"):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.exit_code == kind.exit_code
