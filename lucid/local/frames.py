"""Frames of the journal: a record sealed for its one place (FORMAT sections 3 and 11).

A journal file has its own key, so that an ordinal is never used twice under one key, whatever
crashed. Deriving that key is the business of `lucid.crypto`; it is passed in. Any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from lucid.engine.errors import CorruptBlock as SealBroken
from lucid.engine.sodium import AdContext, open_, seal, tag_bytes
from lucid.errors import CorruptObject, FormatError, UnsupportedFormat
from lucid.format.journal import FRAME_HEAD_SIZE, FileHeader
from lucid.format.limits import FRAME_MAX, ID_SIZE

__all__ = ["FileKey", "JournalKeys", "Position"]

_LENGTH = struct.Struct("<I")
_TAG = b"JRNL"
_NO_GENERATION = bytes(ID_SIZE)


class Position(NamedTuple):
    """Where one record is. `offset` and `length` cover the frame with its length word, in bytes."""

    file: int
    offset: int
    ordinal: int
    length: int

    @property
    def end(self) -> tuple[int, int]:
        """File number and offset just after the record: what a mark is compared with."""
        return (self.file, self.offset + self.length)


class FileKey:
    """Seals and opens the frames of one journal file. Immutable."""

    __slots__ = ("_context", "_key", "header", "overhead")

    def __init__(self, header: FileHeader, context: AdContext, key: bytes) -> None:
        self.header = header
        self.overhead = FRAME_HEAD_SIZE + tag_bytes(header.suite)
        """Bytes that a frame is longer than its record."""
        self._context = context
        self._key = key

    def seal(self, ordinal: int, record: bytes) -> bytes:
        """The whole frame. Each ordinal once in the life of the file. Raises FormatError."""
        sealed = seal(self._context, self.header.object_id, self._key, ordinal, 0, record)
        if len(sealed) > FRAME_MAX:
            raise FormatError("A journal record is over its 16 MiB.")
        return _LENGTH.pack(len(sealed)) + sealed

    def open(self, ordinal: int, sealed: bytes | memoryview) -> bytes:
        """The record of a frame, from its bytes without the length word. Raises CorruptObject."""
        try:
            return open_(self._context, self.header.object_id, self._key, ordinal, 0, sealed)
        except SealBroken as error:
            raise CorruptObject("A record of the journal does not open with its key.") from error


class JournalKeys:
    """What seals the journal of one state directory. Immutable."""

    def __init__(
        self, suite: int, filespace_id: bytes, object_key: Callable[[bytes], bytes]
    ) -> None:
        """`object_key` derives a file's key from its 32 bytes, under the label `journal`."""
        self.suite = suite
        self._object_key = object_key
        self._context = AdContext(suite, _TAG, filespace_id, _NO_GENERATION)

    def file(self, header: FileHeader) -> FileKey:
        """The key of the file that begins with this header. Raises UnsupportedFormat."""
        if header.suite != self.suite:
            raise UnsupportedFormat(
                f"A journal file is sealed with suite {header.suite}; this filespace uses"
                f" {self.suite}. Give --state-dir a new directory."
            )
        return FileKey(header, self._context, self._object_key(header.object_id))
