"""The one journal file that this process appends to (FORMAT section 11).

Only the process that began a file appends to it, and no ordinal is used twice: after a write that
failed, what of it reached the disk is cut off and the file takes no more. It owns the descriptor.
Not locked: the journal calls it under its own lock, except for `sync`, which may run beside.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lucid.format.journal import Begin, FileHeader, Mark, encode_file_header, encode_record
from lucid.format.limits import SEGMENT_ID_SIZE
from lucid.local.disk import Disk
from lucid.local.frames import FileKey, JournalKeys, Position
from lucid.types import Entropy

__all__ = ["FileWriter"]

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_SHRINK = (1, 4, 16, 64)
"""On a nearly full disk a smaller file is better than none."""
BEGIN_BYTES_MAX = 256
"""Header and first record, generously."""


class FileWriter:
    """A journal file open for appending."""

    def __init__(self, disk: Disk, path: Path, number: int, fd: int, key: FileKey) -> None:
        self._disk = disk
        self._fd = fd
        self._key = key
        self._ordinal = 0
        self.path = path
        self.number = number
        self.end = 0
        """Offset after the last record."""
        self.allocated = 0
        """Bytes that the disk has set aside for this file."""
        self.is_broken = False
        """A write failed here: it takes no more."""

    @classmethod
    def begin(
        cls,
        disk: Disk,
        path: Path,
        keys: JournalKeys,
        entropy: Entropy,
        begin: Begin,
        size: int,
        need: int,
    ) -> FileWriter:
        """A new file with its first record, nothing of it durable yet. Raises OSError.

        It gets `size` bytes set aside; on a full disk fewer, but at least `need` more.
        """
        header = FileHeader(keys.suite, entropy(SEGMENT_ID_SIZE))
        key = keys.file(header)
        fd = disk.open(path, _CREATE)
        file = cls(disk, path, begin.file, fd, key)
        try:
            file._set_aside(size, need + BEGIN_BYTES_MAX)
            first = encode_file_header(header) + key.seal(0, encode_record(begin))
            disk.pwrite(fd, first, 0)
        except BaseException:
            file.discard()
            raise
        file._ordinal = 1
        file.end = len(first)
        return file

    @property
    def mark(self) -> Mark:
        """The end of what was appended."""
        return Mark(self.number, self.end)

    def cost(self, bodies: Sequence[bytes]) -> int:
        """Bytes that these records will take."""
        return sum(map(len, bodies)) + len(bodies) * self._key.overhead

    def append(self, bodies: Sequence[bytes]) -> list[Position]:
        """Seal these records behind the last, in one write: all of them are there, or none.

        Raises OSError; then the file is broken and its end where it was.
        """
        offset, ordinal = self.end, self._ordinal
        frames = []
        positions = []
        for body in bodies:
            frame = self._key.seal(ordinal, body)
            positions.append(Position(self.number, offset, ordinal, len(frame)))
            frames.append(frame)
            offset += len(frame)
            ordinal += 1
        try:
            self._disk.pwrite(self._fd, b"".join(frames), self.end)
        except BaseException:
            # Part of it may be on the disk, so no other record may take these ordinals.
            self.is_broken = True
            self._cut()
            raise
        self.end = offset
        self._ordinal = ordinal
        return positions

    def room(self) -> int:
        """Bytes that can still be appended into what the disk has set aside."""
        return 0 if self.is_broken else self.allocated - self.end

    def extend(self, need: int) -> None:
        """Have room for `need` more bytes. Raises OSError."""
        if self.room() < need:
            size = max(self.end + need, self.allocated + self.allocated // 2)
            self._disk.fallocate(self._fd, self.allocated, size - self.allocated)
            self.allocated = size

    def sync(self) -> None:
        """Returns when all that was appended before would survive loss of power. Raises OSError."""
        self._disk.fdatasync(self._fd)

    def close(self, *, trim: bool = True) -> None:
        """Give back the room that was not used, and the descriptor."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if trim:
            # It only gives room back: the zeros after the end say that nothing follows.
            with suppress(OSError):
                self._disk.ftruncate(fd, self.end)
        self._disk.close(fd)

    def discard(self) -> None:
        """The file was never in use: remove it."""
        self.close(trim=False)
        with suppress(OSError):
            # Recovery removes it too; the error that led here is the one to tell.
            self._disk.unlink(self.path)

    def _set_aside(self, size: int, need: int) -> None:
        for part in _SHRINK:
            wanted = max(need, size // part)
            try:
                self._disk.fallocate(self._fd, 0, wanted)
            except OSError as error:
                if error.errno != errno.ENOSPC or part == _SHRINK[-1] or wanted == need:
                    raise
            else:
                self.allocated = wanted
                return

    def _cut(self) -> None:
        """Take back what a failed write may have left: its caller was told that it failed."""
        try:
            self._disk.ftruncate(self._fd, self.end)
        except OSError:
            with suppress(OSError):
                # Four zero bytes end a file too. If even that fails, the record is torn or whole at
                # the next start; whoever wrote it was told of an error and knows that much.
                self._disk.pwrite(self._fd, bytes(4), self.end)
