"""The disk, as this room sees it: every local write goes through a `Disk`.

The journal and the staging area promise what survives kill -9 and what survives loss of power. Such
promises are only worth something when they were tested against a disk that forgets, so the disk is
passed in: `RealDisk` here, one that loses what was not synced in the tests.

Every method raises OSError as the system call would; the rooms above turn it into a `LocalError`
with `local_error`, which knows what a user can do about it. Any thread may call.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from lucid.errors import DiskFull, LocalError

__all__ = ["Buffer", "Disk", "RealDisk", "Space", "local_error", "local_errors"]

Buffer = bytes | bytearray | memoryview

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_PLACE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
)
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Space(NamedTuple):
    """Room on the file system of a path, in bytes."""

    total: int
    available: int
    """What this user can still write."""


class Disk(Protocol):
    """The calls of the local disk. Descriptors are plain integers, offsets and sizes bytes."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """As open(2); O_CLOEXEC is always added."""
        ...

    def close(self, fd: int) -> None: ...

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """As pread(2): fewer bytes than asked for only at the end of the file."""
        ...

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        """All of `data`, or an error; after an error any part of it may have been written."""
        ...

    def fdatasync(self, fd: int) -> None:
        """Returns when the data and the size of the file would survive loss of power."""
        ...

    def fsync_dir(self, path: Path) -> None:
        """Returns when the names in this directory would survive loss of power."""
        ...

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        """Take room for these bytes now; the file grows to hold them and reads as zeros there."""
        ...

    def ftruncate(self, fd: int, size: int) -> None: ...

    def size(self, fd: int) -> int:
        """Bytes of an open file."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """As rename(2): takes the place of what `new` names."""
        ...

    def unlink(self, path: Path) -> None: ...

    def mkdir(self, path: Path, mode: int = 0o700) -> None: ...

    def listdir(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def chmod(self, path: Path, mode: int) -> None: ...

    def stat(self, path: Path) -> os.stat_result:
        """As lstat(2): a symbolic link is not followed."""
        ...

    def space(self, path: Path) -> Space: ...

    def flock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file without waiting: True when it is ours now."""
        ...


class RealDisk:
    """The machine's disk. It keeps nothing, so one may serve everybody."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = os.pread(fd, size, offset)
        while len(data) < size:
            more = os.pread(fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        size = len(data)
        done = os.pwrite(fd, data, offset)
        while done < size:
            # A short write is what a disk says just before ENOSPC: going on brings out the reason.
            more = os.pwrite(fd, memoryview(data)[done:], offset + done)
            if not more:
                raise OSError(errno.EIO, "the disk wrote nothing and gave no reason")
            done += more

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        try:
            os.posix_fallocate(fd, offset, length)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
            # Such a file system cannot set room aside; a full disk then shows at the write.
            if os.fstat(fd).st_size < offset + length:
                os.ftruncate(fd, offset + length)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        path.mkdir(mode)

    def listdir(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def chmod(self, path: Path, mode: int) -> None:
        path.chmod(mode)

    def stat(self, path: Path) -> os.stat_result:
        return path.lstat()

    def space(self, path: Path) -> Space:
        found = os.statvfs(path)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def flock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def local_error(error: OSError, doing: str) -> LocalError:
    """The error a user sees for `error`. `doing` goes on after "Lucid could not"."""
    reason = (error.strerror or str(error)).rstrip(".")
    if error.errno in FULL:
        return DiskFull(f"Lucid could not {doing}: {reason}. Free some space on that disk.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LocalError(f"Lucid could not {doing}: {reason}. Check the directory's owner.")
    if error.errno in NO_PLACE:
        return LocalError(f"Lucid could not {doing}: {reason}. Check the path.")
    return LocalError(f"Lucid could not {doing}: {reason}. Check the disk.")


@contextmanager
def local_errors(doing: str) -> Iterator[None]:
    """Turns every OSError of its body into a LocalError. Costs a microsecond."""
    try:
        yield
    except OSError as error:
        raise local_error(error, doing) from error
