"""The one tree of errors. Every error carries the errno that a caller of the mount sees and the
exit code of the command line.

    LucidError
      UsageError                the caller must change the call
        ConfigError             a setting that cannot be
      NamespaceError            a path does not allow this (also an OSError)
        NotFound Exists NotEmpty NotDirectory IsDirectory ReadOnly NameTooLong NotPermitted NoData
        TooManyLinks BadHandle FileTooLarge CrossesFilespace
      StoreError                the object store
        StoreUnavailable        may help to try again
          SlowDown
        StoreDenied             credentials refused
        BucketMissing
        StoreUnfit              the store breaks a rule that we need
        ObjectMissing
        ObjectExists            a create-if-absent that did not win
        StoreConflict           the store says: try again (409)
      DataError                 bytes at rest are wrong
        CorruptBlock CorruptObject FormatError UnsupportedFormat StateMismatch
        HistoryFork
          BelowFloor            mounting again helps
      KeyringError
        WrongPassphrase UnknownKey
      LocalError                this machine's directory or disk
        StateInUse StateDamaged StateForeign DiskFull StagingFull
      MountError                the mount itself
        MountPointMissing MountPointBusy MountPointNotEmpty FuseMissing NotMounted
      FilespaceExists FilespaceMissing
      LockLost                  what a program does under a lock that it has no more
      Stopped                   the filespace is closed or has stopped writing
      TimedOut                  a bounded wait ended
      InternalError             our bug

A class exists only where a caller acts differently. Class, errno and exit code are stable; the
sentence is not.
"""

from __future__ import annotations

import errno as _errno
import os

__all__ = [
    "BadHandle",
    "BelowFloor",
    "BucketMissing",
    "ConfigError",
    "CorruptBlock",
    "CorruptObject",
    "CrossesFilespace",
    "DataError",
    "DiskFull",
    "Exists",
    "FileTooLarge",
    "FilespaceExists",
    "FilespaceMissing",
    "FormatError",
    "FuseMissing",
    "HistoryFork",
    "InternalError",
    "IsDirectory",
    "KeyringError",
    "LocalError",
    "LockLost",
    "LucidError",
    "MountError",
    "MountPointBusy",
    "MountPointMissing",
    "MountPointNotEmpty",
    "NameTooLong",
    "NamespaceError",
    "NoData",
    "NotDirectory",
    "NotEmpty",
    "NotFound",
    "NotMounted",
    "NotPermitted",
    "ObjectExists",
    "ObjectMissing",
    "ReadOnly",
    "SlowDown",
    "StagingFull",
    "StateDamaged",
    "StateForeign",
    "StateInUse",
    "StateMismatch",
    "Stopped",
    "StoreConflict",
    "StoreDenied",
    "StoreError",
    "StoreUnavailable",
    "StoreUnfit",
    "TimedOut",
    "TooManyLinks",
    "UnknownKey",
    "UnsupportedFormat",
    "UsageError",
    "WrongPassphrase",
]


class LucidError(Exception):
    """Base of everything that this package raises on purpose.

    `errno` is what a system call on the mount answers, `exit_code` what the command line exits
    with, `retryable` is true only where the same call may succeed later with nothing changed here.
    """

    errno: int = _errno.EIO
    exit_code: int = 1
    retryable: bool = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").split("\n", 1)[0])


class UsageError(LucidError):
    """The call cannot be right."""

    errno = _errno.EINVAL
    exit_code = 2


class ConfigError(UsageError):
    """A setting cannot be."""


class NamespaceError(LucidError, OSError):  # type: ignore[misc]
    """The tree does not allow this."""

    exit_code = 3

    def __init__(
        self,
        message: str = "",
        filename: str | bytes | None = None,
        filename2: str | bytes | None = None,
    ) -> None:
        text = message or (self.__doc__ or "").split("\n", 1)[0]
        OSError.__init__(self, type(self).errno, text, filename, None, filename2)

    def __str__(self) -> str:
        """The paths, if any, then the sentence."""
        names = [name for name in (self.filename, self.filename2) if name is not None]
        before = f"{' -> '.join(map(os.fsdecode, names))}: " if names else ""
        return f"{before}{self.strerror}"


class NotFound(NamespaceError, FileNotFoundError):
    """No such file or directory."""

    errno = _errno.ENOENT


class Exists(NamespaceError, FileExistsError):
    """The name is taken."""

    errno = _errno.EEXIST


class NotEmpty(NamespaceError):
    """The directory is not empty."""

    errno = _errno.ENOTEMPTY


class NotDirectory(NamespaceError, NotADirectoryError):
    """Not a directory."""

    errno = _errno.ENOTDIR


class IsDirectory(NamespaceError, IsADirectoryError):
    """Is a directory."""

    errno = _errno.EISDIR


class ReadOnly(NamespaceError):
    """The filespace is mounted read-only."""

    errno = _errno.EROFS


class NameTooLong(NamespaceError):
    """A name has at most 255 bytes."""

    errno = _errno.ENAMETOOLONG


class NotPermitted(NamespaceError, PermissionError):
    """The operation is not permitted."""

    errno = _errno.EPERM


class NoData(NamespaceError):
    """No such extended attribute."""

    errno = _errno.ENODATA


class TooManyLinks(NamespaceError):
    """The file has too many names."""

    errno = _errno.EMLINK


class BadHandle(NamespaceError):
    """The handle is closed or does not allow this."""

    errno = _errno.EBADF


class FileTooLarge(NamespaceError):
    """The file would be larger than a filespace allows."""

    errno = _errno.EFBIG


class CrossesFilespace(NamespaceError):
    """Both names must be in one filespace."""

    errno = _errno.EXDEV


class LockHeld(NamespaceError, BlockingIOError):
    """Another machine has locked it."""

    errno = _errno.EAGAIN


class StoreError(LucidError):
    """The object store failed."""

    exit_code = 4


class StoreUnavailable(StoreError):
    """The object store cannot be reached or answers with a fault."""

    retryable = True


class SlowDown(StoreUnavailable):
    """The object store asks for fewer requests."""


class StoreDenied(StoreError):
    """The object store refuses these credentials."""

    errno = _errno.EACCES
    exit_code = 5


class BucketMissing(StoreError):
    """There is no such bucket or directory."""

    exit_code = 6


class StoreUnfit(StoreError):
    """This store breaks a rule that a filespace needs."""

    exit_code = 7


class ObjectMissing(StoreError):
    """The object is not in the store."""


class ObjectExists(StoreError):
    """An object of this name is already in the store."""

    errno = _errno.EEXIST


class StoreConflict(StoreError):
    """The store was busy with another write of this name."""

    retryable = True


class DataError(LucidError):
    """Bytes at rest are not what was written."""

    exit_code = 8


class CorruptBlock(DataError):
    """A block does not open with its key: it was altered, swapped or damaged."""


class CorruptObject(DataError):
    """An object of the filespace was altered, swapped or damaged."""


class FormatError(DataError):
    """These bytes are not in the format they should be in."""


class UnsupportedFormat(DataError):
    """The filespace was made by a newer version of lucid."""

    exit_code = 9


class HistoryFork(DataError):
    """The store shows a history that is not the one this device has seen."""

    exit_code = 10


class BelowFloor(HistoryFork):
    """This device was away for longer than the log is kept."""

    exit_code = 26


class StateMismatch(DataError):
    """This device and another have folded one log to two states."""

    exit_code = 25


class KeyringError(LucidError):
    """The keys do not open this filespace."""

    errno = _errno.EACCES
    exit_code = 11


class WrongPassphrase(KeyringError):
    """Wrong passphrase or recovery code."""


class UnknownKey(KeyringError):
    """A key is not in the key ring."""


class LocalError(LucidError):
    """The state directory failed."""

    exit_code = 12


class StateInUse(LocalError):
    """Another process uses this state directory."""

    errno = _errno.EBUSY
    exit_code = 13


class StateDamaged(LocalError):
    """The state directory is damaged."""


class StateForeign(LocalError):
    """The state directory belongs to another filespace or machine."""


class DiskFull(LocalError):
    """The local disk is full."""

    errno = _errno.ENOSPC
    exit_code = 14


class StagingFull(DiskFull):
    """The staging area is full and the store takes nothing now."""


class MountError(LucidError):
    """The drive cannot be mounted."""

    exit_code = 15


class MountPointMissing(MountError):
    """The mount point is not a directory."""

    errno = _errno.ENOENT
    exit_code = 16


class MountPointBusy(MountError):
    """Something is mounted there already."""

    errno = _errno.EBUSY
    exit_code = 17


class MountPointNotEmpty(MountError):
    """The mount point is not empty."""

    errno = _errno.ENOTEMPTY
    exit_code = 18


class FuseMissing(MountError):
    """llfuse, fusermount or /dev/fuse is missing."""

    exit_code = 19


class NotMounted(MountError):
    """No filespace is mounted there."""

    errno = _errno.ENOENT
    exit_code = 20


class FilespaceExists(LucidError):
    """There is a filespace at this place already."""

    errno = _errno.EEXIST
    exit_code = 21


class FilespaceMissing(LucidError):
    """There is no filespace at this place."""

    errno = _errno.ENOENT
    exit_code = 22


class LockLost(LucidError):
    """The lock of this open file is lost. Close the file, open it again and lock it anew.

    Another machine may have written since.
    """


class Stopped(LucidError):
    """The filespace is closed, or has stopped writing."""

    exit_code = 23


class TimedOut(LucidError):
    """A bounded wait has ended."""

    errno = _errno.ETIMEDOUT
    exit_code = 24


class InternalError(LucidError):
    """This is a bug in lucid."""

    exit_code = 70
