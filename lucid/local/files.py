"""The open files of the journal, for reading records back while others append or unlink.

It owns the descriptors of the files that are read, at most `OPEN_MAX` at a time. A file that is
emptied stays open until the last read of it has ended. Any thread may call; no lock is held over
disk I/O.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

from lucid.errors import CorruptObject, Stopped
from lucid.format.journal import (
    FILE_HEADER_SIZE,
    FRAME_HEAD_SIZE,
    Record,
    decode_file_header,
    decode_record,
)
from lucid.local.disk import Disk, local_error, local_errors
from lucid.local.frames import FileKey, JournalKeys, Position

__all__ = ["JournalFiles", "file_path"]

OPEN_MAX = 16
_READ = os.O_RDONLY | os.O_NOFOLLOW


def file_path(directory: Path, number: int) -> Path:
    """The place of a journal file (FORMAT section 10)."""
    return directory / f"{number:016x}"


class _OpenFile:
    __slots__ = ("fd", "key", "leaving", "users")

    def __init__(self, fd: int, key: FileKey) -> None:
        self.fd = fd
        self.key = key
        self.users = 0
        self.leaving = False


class JournalFiles:
    """Reads records of any live file at their positions."""

    def __init__(self, disk: Disk, directory: Path, keys: JournalKeys) -> None:
        self._disk = disk
        self._directory = directory
        self._keys = keys
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _OpenFile] = OrderedDict()
        self._closed = False

    def read(self, position: Position) -> Record:
        """The record at `position`. Raises CorruptObject, FormatError, LocalError."""
        return decode_record(self.read_bytes(position))

    def read_bytes(self, position: Position) -> bytes:
        """The same, not decoded."""
        found = self._acquire(position.file) or self._enter(position.file)
        try:
            frame = self._disk.pread(found.fd, position.length, position.offset)
        except OSError as error:
            raise local_error(error, "read the journal") from error
        finally:
            with self._lock:
                found.users -= 1
            if found.leaving:
                self._close_unused(found)
        head = (position.length - FRAME_HEAD_SIZE).to_bytes(FRAME_HEAD_SIZE, "little")
        if len(frame) != position.length or not frame.startswith(head):
            raise CorruptObject("A record of the journal is not where it was written.")
        return found.key.open(position.ordinal, memoryview(frame)[FRAME_HEAD_SIZE:])

    def forget(self, number: int) -> None:
        """This file is going away. Reads that run now still end well."""
        with self._lock:
            found = self._open.pop(number, None)
            if found is not None:
                found.leaving = True
        if found is not None:
            self._close_unused(found)

    def close(self) -> None:
        """Closes what nobody reads now; the reads that run close the rest."""
        with self._lock:
            self._closed = True
            numbers = list(self._open)
        for number in numbers:
            self.forget(number)

    def _acquire(self, number: int) -> _OpenFile | None:
        with self._lock:
            if self._closed:
                raise Stopped("The filespace is closed.")
            found = self._open.get(number)
            if found is not None:
                found.users += 1
                self._open.move_to_end(number)
            return found

    def _enter(self, number: int) -> _OpenFile:
        """Opens a file. When two threads do at once, the later one's descriptor is not kept."""
        path = file_path(self._directory, number)
        with local_errors(f"open {path}"):
            fd = self._disk.open(path, _READ)
            try:
                head = self._disk.pread(fd, FILE_HEADER_SIZE, 0)
                fresh = _OpenFile(fd, self._keys.file(decode_file_header(head)))
            except BaseException:
                self._disk.close(fd)
                raise
        fresh.users = 1
        oldest = None
        with self._lock:
            if number in self._open or self._closed:
                fresh.leaving = True
            else:
                self._open[number] = fresh
                if len(self._open) > OPEN_MAX:
                    _, oldest = self._open.popitem(last=False)
                    oldest.leaving = True
        if oldest is not None:
            self._close_unused(oldest)
        return fresh

    def _close_unused(self, found: _OpenFile) -> None:
        with self._lock:
            if found.users or not found.leaving or found.fd < 0:
                return
            fd, found.fd = found.fd, -1
        try:
            self._disk.close(fd)
        except OSError as error:
            raise local_error(error, "close a journal file") from error
