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
        self.is_doubtful = False
        """And what that write left could not be cut off for good."""

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: Path,
        keys: JournalKeys,
        entropy: Entropy,
        number: int,
        size: int,
        need: int,
    ) -> FileWriter:
        """A new file that holds nothing yet. Raises OSError; then there is none.

        It gets `size` bytes set aside; on a full disk fewer, but at least `need` and a bit.
        """
        header = FileHeader(keys.suite, entropy(SEGMENT_ID_SIZE))
        file = cls(disk, path, number, disk.open(path, _CREATE), keys.file(header))
        try:
            file._set_aside(size, need + BEGIN_BYTES_MAX)
        except BaseException:
            file.close(trim=False)
            with suppress(OSError):
                # It holds nothing, so it does no harm; recovery removes it too.
                disk.unlink(path)
            raise
        return file

    def begin(self, first: Begin) -> None:
        """Write the header and the first record. Raises OSError; then only `take_back` is left."""
        data = encode_file_header(self._key.header) + self._key.seal(0, encode_record(first))
        self._disk.pwrite(self._fd, data, 0)
        self._ordinal = 1
        self.end = len(data)

    @property
    def mark(self) -> Mark:
        """The end of what was appended."""
        return Mark(self.number, self.end)

    def cost(self, bodies: Sequence[bytes]) -> int:
        """Bytes that these records will take."""
        return sum(map(len, bodies)) + len(bodies) * self._key.overhead

    def append(self, bodies: Sequence[bytes]) -> list[Position]:
        """Seal these records behind the last, in one write: all of them are there, or none.

        Raises OSError; then the file is broken and its end where it was, for good unless
        `is_doubtful`.
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
            self.is_doubtful = not self._cut(self.end)
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

    def take_back(self) -> bool:
        """The file was never in use: empty it, so that it does not count under any name.

        Unlinking alone would not do. After loss of power the name may be back, and the first record
        of a file says where the file before it ends, while that one has gone on since. False when
        it could not be done for good.
        """
        done = self._cut(0)
        self.close(trim=False)
        return done

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

    def _cut(self, end: int) -> bool:
        """Take back for good what is behind `end`: its writer is told that it failed."""
        try:
            self._disk.ftruncate(self._fd, end)
            self._disk.fdatasync(self._fd)
        except OSError:
            return False
        return True
