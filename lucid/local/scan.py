"""Reading the frames of one journal file that may be torn or damaged (FORMAT section 11).

Bounded memory: a window of 1 MiB, or one frame when that is larger. Used by one thread, at replay.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from lucid.errors import CorruptObject
from lucid.format.journal import FRAME_HEAD_SIZE
from lucid.format.limits import FRAME_MAX
from lucid.local.disk import Disk, local_error
from lucid.local.frames import FileKey

__all__ = ["FrameReader", "Unreadable"]

WINDOW_BYTES = 1 << 20
TRIES_MAX = 1 << 18
"""Ordinals tried for one place that looks like a frame: the most small frames of 10 MiB."""
TRY_BYTES_MAX = 256 << 20
"""Bytes opened for one such place."""
SEARCH_BYTES_MAX = 4 << 30
"""Bytes opened at most in search of good frames behind a bad one: seconds."""
CHAIN = 3
"""A place looks like a frame when this many follow each other, or fewer up to an end. Any 4 bytes
look like a length once in 256 times, three in a row once in 16 million."""
SMALL_BYTES = 64 << 10
"""Between two holes fewer will do, if they are small: once in 65,536 times."""
_RECORD_MIN = 4
_WORD = struct.Struct("<I")


class Unreadable(Exception):
    """The disk does not give back these bytes."""


class FrameReader:
    """One file, read at rising offsets. `limit` is where its frames must end at the latest."""

    def __init__(self, disk: Disk, fd: int, key: FileKey, limit: int) -> None:
        self._disk = disk
        self._fd = fd
        self._key = key
        self._start = 0
        self._window = b""
        self._budget = SEARCH_BYTES_MAX
        self._written: int | None = None
        self.limit = limit

    def frame(self, offset: int) -> bytes | None:
        """The sealed bytes of the frame at `offset`; None when there cannot be one."""
        length = self._length(offset)
        if length is None:
            return None
        return self._bytes(offset + FRAME_HEAD_SIZE, length)

    def cost(self, record: bytes) -> int:
        """Bytes of the frame that holds this record."""
        return len(record) + self._key.overhead

    def record(self, offset: int, ordinal: int) -> bytes | None:
        """The record of the frame at `offset`; None when it does not open there."""
        sealed = self.frame(offset)
        if sealed is None:
            return None
        try:
            return self._key.open(ordinal, sealed)
        except CorruptObject:
            return None

    def written(self) -> int:
        """The offset after the last byte before the limit that is not zero."""
        if self._written is None:
            self._written = self._find_written()
        return self._written

    def find(self, offset: int, ordinal: int) -> tuple[int, int] | None:
        """The next good frame at or after `offset`, whose ordinal is at least `ordinal`.

        The lengths between are not trusted: every offset is looked at. Answers offset and ordinal.
        """
        shortest = self._key.overhead + _RECORD_MIN
        for place in self._places(offset):
            chain = self._chain(place)
            if not chain:
                continue
            index = min(range(len(chain)), key=lambda link: chain[link][1])
            most = min(TRIES_MAX, (place - offset) // shortest + 1)
            first = self._first_ordinal(chain[index], ordinal + index, most)
            if first is not None:
                return self._first_good(chain, first - index)
            if self._budget < 0:
                return None
        return None

    def _find_written(self) -> int:
        end = self.limit
        while end > 0:
            start = max(0, end - WINDOW_BYTES)
            kept = self._bytes(start, end - start).rstrip(b"\0")
            if kept:
                return start + len(kept)
            end = start
        return 0

    def _first_ordinal(self, link: tuple[int, int], ordinal: int, most: int) -> int | None:
        """The ordinal, from `ordinal` on, under which the frame of this place and length opens."""
        start, length = link
        sealed = self._bytes(start + FRAME_HEAD_SIZE, length)
        for tried in range(ordinal, ordinal + min(most, TRY_BYTES_MAX // length) + 1):
            self._budget -= length
            if self._budget < 0:
                return None
            if self._opens(tried, sealed):
                return tried
        return None

    def _first_good(self, chain: list[tuple[int, int]], first: int) -> tuple[int, int] | None:
        for ordinal, (start, length) in enumerate(chain, first):
            if self._opens(ordinal, self._bytes(start + FRAME_HEAD_SIZE, length)):
                return start, ordinal
        return None

    def _opens(self, ordinal: int, sealed: bytes) -> bool:
        try:
            self._key.open(ordinal, sealed)
        except CorruptObject:
            return False
        return True

    def _chain(self, offset: int) -> list[tuple[int, int]]:
        """Offset and length of the frames from `offset` on, if their lengths make sense."""
        chain: list[tuple[int, int]] = []
        place = offset
        while len(chain) < CHAIN and (length := self._length(place)) is not None:
            chain.append((place, length))
            place += FRAME_HEAD_SIZE + length
        if len(chain) == CHAIN or not chain or 0 <= place - self.written() < FRAME_HEAD_SIZE:
            return chain
        is_small = all(length <= SMALL_BYTES for _, length in chain)
        return chain if is_small and not any(self._word(place)) else []

    def _places(self, offset: int) -> Iterator[int]:
        """Offsets from `offset` on at which four bytes could be the length of a frame."""
        # Deferred: it takes longer to import than all else that opens a journal, and only a damaged
        # one is searched.
        import numpy as np

        shortest = self._key.overhead - FRAME_HEAD_SIZE + _RECORD_MIN
        while offset + FRAME_HEAD_SIZE <= self.limit:
            data = self._bytes(offset, min(WINDOW_BYTES, self.limit - offset))
            count = len(data) - FRAME_HEAD_SIZE + 1
            if count <= 0:
                return
            raw = np.frombuffer(data, np.uint8).astype(np.uint32)
            words = raw[:count].copy()
            for byte in (1, 2, 3):
                words |= raw[byte : byte + count] << np.uint32(8 * byte)
            for index in np.flatnonzero((words >= shortest) & (words <= FRAME_MAX)):
                yield offset + int(index)
            offset += count

    def _length(self, offset: int) -> int | None:
        """The length of the frame at `offset`, if it can be one and ends before the limit."""
        if offset + FRAME_HEAD_SIZE > self.limit:
            return None
        word = self._word(offset)
        if len(word) < FRAME_HEAD_SIZE:
            return None
        length: int = _WORD.unpack(word)[0]
        if not self._key.overhead - FRAME_HEAD_SIZE < length <= FRAME_MAX:
            return None
        return length if offset + FRAME_HEAD_SIZE + length <= self.limit else None

    def _word(self, offset: int) -> bytes:
        """Four bytes, without moving the window: a search looks far ahead and comes back."""
        start = offset - self._start
        if 0 <= start <= len(self._window) - FRAME_HEAD_SIZE:
            return self._window[start : start + FRAME_HEAD_SIZE]
        return self._pread(offset, FRAME_HEAD_SIZE)

    def _bytes(self, offset: int, size: int) -> bytes:
        start = offset - self._start
        if start < 0 or start + size > len(self._window):
            reach = max(size, min(WINDOW_BYTES, self.limit - offset))
            self._window = self._pread(offset, reach)
            self._start = offset
            start = 0
        return self._window[start : start + size]

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            return self._disk.pread(self._fd, size, offset)
        except OSError as error:
            if error.errno == errno.EIO:
                raise Unreadable from error
            raise local_error(error, "read the journal") from error
