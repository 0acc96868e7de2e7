"""Reading the journal back after a restart (FORMAT section 11).

What replay answers is a prefix of what was accepted: everything that was durable, perhaps more,
nothing else, in order. It tells a torn tail (the machine stopped before the end was durable) from
damage (bytes are gone that were durable), because only the first may be cut off and forgotten.
It changes nothing on the disk: `Journal` cuts. Used by one thread, before anything is appended.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lucid.errors import FormatError, InternalError
from lucid.format.journal import (
    FILE_HEADER_SIZE,
    FRAME_HEAD_SIZE,
    NO_MARK,
    Begin,
    Mark,
    Record,
    decode_file_header,
    decode_record,
)
from lucid.local.disk import Disk, local_error, local_errors
from lucid.local.files import file_path
from lucid.local.frames import FileKey, JournalKeys, Position
from lucid.local.scan import FrameReader, Unreadable

__all__ = ["Damage", "FileReport", "Replay", "ReplayReport"]

_READ = os.O_RDONLY | os.O_NOFOLLOW
_NAME_DIGITS = 16
_HEX = frozenset("0123456789abcdef")
NEW_SUFFIX = ".new"
"""A file that takes the place of emptied ones, before it counts."""
BEGIN_END_MAX = FILE_HEADER_SIZE + FRAME_HEAD_SIZE + 39 + 32
"""Where the longest first record ends: its own bytes and the longest tag."""


class Damage(NamedTuple):
    """Where durable records are gone."""

    file: int
    offset: int
    lost_bytes: int
    """At most this many bytes are gone, of this file."""
    later_records: int
    """Good records behind it, which are not replayed: what they build on is missing."""

    @property
    def sentence(self) -> str:
        """For the user."""
        return (
            f"The journal is damaged: file {self.file:016x} at byte {self.offset},"
            f" {self.lost_bytes} bytes are unreadable and {self.later_records} good records follow."
            " Changes that were not sent yet are lost. Keep a copy of the state directory;"
            " the drive can be mounted read-only."
        )


class FileReport(NamedTuple):
    """One live file."""

    end: int
    """Offset after its last good record."""
    record_bytes: int
    """Bytes of its records but the first."""


class ReplayReport(NamedTuple):
    """What was found. `end` is None when there was no journal."""

    files: dict[int, FileReport]
    end: Mark | None
    mark: Mark
    """The highest that a record carried: everything before it was durable."""
    records: int
    torn_bytes: int
    """Bytes after the end of the last file that were never durable."""
    damage: Damage | None
    void: tuple[str, ...]
    """Names of files that nothing needs."""


class _File(NamedTuple):
    number: int
    key: FileKey
    begin: Begin
    start: int
    """Offset of the second record."""
    size: int


class Replay:
    """Iterate once over (position, record), then read `report`."""

    def __init__(self, disk: Disk, directory: Path, keys: JournalKeys) -> None:
        self._disk = disk
        self._directory = directory
        self._keys = keys
        self._report: ReplayReport | None = None
        self._found: dict[int, FileReport] = {}
        self._void: list[str] = []
        self._mark = NO_MARK
        self._records = 0
        self._torn = 0
        self._damage: Damage | None = None

    @property
    def report(self) -> ReplayReport:
        """What was found. Raises InternalError before the last record was read."""
        if self._report is None:
            raise InternalError("The journal was not read to its end.")
        return self._report

    def finish(self) -> ReplayReport:
        """Read to the end without looking, for who only wants the report."""
        for _ in self:
            pass
        return self.report

    def __iter__(self) -> Iterator[tuple[Position, Record]]:
        """The records but each file's first, oldest first.

        Raises LocalError, and UnsupportedFormat for what a newer version wrote.
        """
        if self._report is not None:
            return
        heads = self._live_files()
        for number in heads:
            head = heads[number]
            if head is None:
                self._note_damage(number, 0, self._size(number))
            elif self._damage is None:
                yield from self._records_of(head, heads.get(number + 1), number + 1 in heads)
            else:
                self._count_later(head)
        newest = max(self._found, default=0)
        end = Mark(newest, self._found[newest].end) if self._found else None
        self._report = ReplayReport(
            self._found, end, self._mark, self._records, self._torn, self._damage, tuple(self._void)
        )

    # -- the files

    def _live_files(self) -> dict[int, _File | None]:
        """Every file that counts, in order; None for one that is missing or has no beginning."""
        heads = {number: self._head(number) for number in self._numbers()}
        newest = max(heads, default=0)
        if heads and heads[newest] is None and self._never_used(newest):
            self._drop(heads, newest)
        first = max(
            (head.begin.first_live for head in heads.values() if head),
            default=min(heads, default=0),
        )
        for number in [number for number in heads if number < first]:
            self._drop(heads, number)
        return {number: heads.get(number) for number in range(first, max(heads, default=-1) + 1)}

    def _numbers(self) -> list[int]:
        with local_errors(f"read {self._directory}"):
            names = self._disk.listdir(self._directory)
        numbers = []
        for name in names:
            number = _number_of(name)
            if number is not None:
                numbers.append(number)
            elif name.endswith(NEW_SUFFIX) and _number_of(name[: -len(NEW_SUFFIX)]) is not None:
                self._void.append(name)
        return sorted(numbers)

    def _drop(self, heads: dict[int, _File | None], number: int) -> None:
        del heads[number]
        self._void.append(file_path(self._directory, number).name)

    def _head(self, number: int) -> _File | None:
        """The beginning of a file; None when it does not open."""
        with self._opened(number) as (fd, size):
            try:
                key = self._keys.file(decode_file_header(self._pread(fd, FILE_HEADER_SIZE, 0)))
                reader = FrameReader(self._disk, fd, key, min(size, BEGIN_END_MAX))
                body = reader.record(FILE_HEADER_SIZE, 0)
            except (FormatError, Unreadable):
                return None
        if body is None:
            return None
        begin = decode_record(body)
        if not isinstance(begin, Begin) or begin.file != number:
            return None
        return _File(number, key, begin, FILE_HEADER_SIZE + key.overhead + len(body), size)

    def _never_used(self, number: int) -> bool:
        """True when the machine stopped while this file was being made.

        Its first record is durable before the second is accepted: without a first one that opens,
        anything behind it means damage.
        """
        with self._opened(number) as (fd, size):
            offset = BEGIN_END_MAX
            while offset < size:
                data = self._pread(fd, 1 << 20, offset)
                if not data or any(data):
                    return not data
                offset += len(data)
        return True

    def _size(self, number: int) -> int:
        try:
            return self._disk.stat(file_path(self._directory, number)).st_size
        except OSError:
            return 0

    # -- the records of one file

    def _records_of(
        self, file: _File, successor: _File | None, has_successor: bool
    ) -> Iterator[tuple[Position, Record]]:
        """Its good records. Its end is what the next file's first record says, else its own."""
        limit = file.size
        if successor is not None:
            mark = successor.begin.mark
            limit = mark.offset if mark.file == file.number else file.size + 1
        offset, ordinal, records = file.start, 1, 0
        # Its first record was durable before the second was accepted.
        self._mark = max(self._mark, Mark(file.number, offset))
        with self._opened(file.number) as (fd, size):
            reader = FrameReader(self._disk, fd, file.key, min(limit, size))
            try:
                while (body := reader.record(offset, ordinal)) is not None:
                    length = reader.cost(body)
                    record = decode_record(body)
                    self._mark = max(self._mark, record.mark)
                    yield Position(file.number, offset, ordinal, length), record
                    offset += length
                    ordinal += 1
                    records += length
                    self._records += 1
                if successor is None and not has_successor:
                    self._end_of_newest(file, reader, offset, ordinal)
                elif successor is not None and offset != limit:
                    later = self._later(reader, offset, ordinal)[0]
                    self._note_damage(file.number, offset, limit - offset, later)
            except Unreadable:
                self._note_damage(file.number, offset, limit - offset)
        self._found[file.number] = FileReport(offset, records)

    def _end_of_newest(self, file: _File, reader: FrameReader, offset: int, ordinal: int) -> None:
        """Tells a torn tail from damage: damage is when a later record knew more to be durable."""
        written = reader.written()
        if written <= offset:
            return
        later, mark = self._later(reader, offset, ordinal)
        if mark > Mark(file.number, offset):
            self._note_damage(file.number, offset, written - offset, later)
        else:
            self._torn = written - offset

    def _later(self, reader: FrameReader, offset: int, ordinal: int) -> tuple[int, Mark]:
        """Good records behind a bad place, and the highest mark among them."""
        records, highest = 0, Mark(0, 0)
        while (found := reader.find(offset, ordinal)) is not None:
            offset, ordinal = found
            while (body := reader.record(offset, ordinal)) is not None:
                highest = max(highest, decode_record(body).mark)
                records += 1
                offset += reader.cost(body)
                ordinal += 1
        return records, highest

    def _count_later(self, file: _File) -> None:
        """A good file behind damage: it is told of, not replayed."""
        with self._opened(file.number) as (fd, size):
            reader = FrameReader(self._disk, fd, file.key, size)
            try:
                later = self._later(reader, file.start, 1)[0]
            except Unreadable:
                later = 0
        if self._damage is not None:
            total = self._damage.later_records + later
            self._damage = self._damage._replace(later_records=total)

    def _note_damage(self, number: int, offset: int, lost: int, later: int = 0) -> None:
        """The first damage is where replay ends."""
        if self._damage is None:
            self._damage = Damage(number, offset, max(0, lost), later)

    # -- the disk

    @contextmanager
    def _opened(self, number: int) -> Iterator[tuple[int, int]]:
        path = file_path(self._directory, number)
        with local_errors(f"read {path}"):
            fd = self._disk.open(path, _READ)
        try:
            with local_errors(f"read {path}"):
                size = self._disk.size(fd)
            yield fd, size
        finally:
            self._disk.close(fd)

    def _pread(self, fd: int, size: int, offset: int) -> bytes:
        try:
            return self._disk.pread(fd, size, offset)
        except OSError as error:
            if error.errno == errno.EIO:
                raise Unreadable from error
            raise local_error(error, "read the journal") from error


def _number_of(name: str) -> int | None:
    """The number of a journal file's name, or None for a name that is not one."""
    if len(name) != _NAME_DIGITS or not set(name) <= _HEX:
        return None
    return int(name, 16)
