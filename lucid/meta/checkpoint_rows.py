"""The committed state of a replica as rows (FORMAT section 7.1), while the replica goes on.

A `Snapshot` is a read transaction on a connection of its own: it sees the tables as they were when
it was taken, holds no lock of the replica, and keeps SQLite from shortening its log until it is
closed. The tables hold own pending ops on top of what is committed; where one has written, its undo
image has the committed row, and of several the earliest.

One thread at a time uses a snapshot. Its memory is bounded by the images of the pending ops.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import sqlcipher3

from lucid.errors import StateDamaged
from lucid.format.checkpoint import CHECKPOINT_EVERY, Chunk, ChunkCutter, StateTable
from lucid.format.entry import EntryRef
from lucid.meta import schema
from lucid.meta.schema import EXTENT, STAGED, TableSpec

__all__ = ["LOCAL_TABLES", "PLAIN_TABLES", "Snapshot", "chunks_of"]

BATCH = 256
"""Rows that are worked on at a stretch: about a millisecond."""

CACHE_KIB = 2048
"""Rows are read once, in order: pages need not be kept."""

PLAIN_TABLES = {
    "value": StateTable.VALUE,
    "member": StateTable.MEMBER,
    "generation": StateTable.GENERATION,
    "session": StateTable.SESSION,
    "inode": StateTable.INODE,
    "directory": StateTable.DIRECTORY,
    "dentry": StateTable.DENTRY,
    "xattr": StateTable.XATTR,
    "version": StateTable.VERSION,
    "removed": StateTable.REMOVED,
}
"""The replica's tables whose rows are rows of the state as they stand."""

LOCAL_TABLES = ("undo", "place")
"""Tables that are no part of the state, but for one row of `place`."""

_EXTENTS = (
    f"SELECT {StateTable.EXTENT}, e.ino, e.died, e.first, e.born, e.count_, e.kind,"
    " coalesce(s.id, x''), e.ordinal, e.offset, e.flags, e.last_len, e.last_valid, e.lengths"
    " FROM extent e LEFT JOIN segment s ON s.number = e.segment"
    " ORDER BY e.ino, e.died, e.first, e.born"
)
_SEGMENTS = (
    f"SELECT {StateTable.SEGMENT}, id, stored_len, footer_len, footer_hash, generation, head"
    " FROM segment WHERE committed = 1 ORDER BY id"
)
_ENTRIES = (
    f"SELECT {StateTable.ENTRY}, sequence, hash FROM entry"
    f" WHERE sequence % {CHECKPOINT_EVERY} = 0 ORDER BY sequence"
)

Row = tuple[Any, ...]
Changed = dict[Row, "Row | None"]
"""Key, its table's number in front, to the committed row; None where there was none."""


class Snapshot:
    """The committed state at `head`. Close it."""

    def __init__(self, connection: Any) -> None:
        """`connection` is in a read transaction, and belongs to the snapshot from now on."""
        self._connection = connection
        ((packed,),) = self._all("SELECT value FROM place WHERE name = 'place'")
        self._place = msgpack.unpackb(packed, use_list=False)
        self.head = EntryRef(self._place[0], self._place[1])
        self.generation = self._newest_generation()

    @classmethod
    def open(cls, path: Path, key: bytes) -> Snapshot:
        """Of the database as it was committed last: no transaction may be under way there.

        Raises StateDamaged.
        """
        try:
            connection = schema.connect(path, key)
            try:
                connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                connection.execute("BEGIN")
                return cls(connection)
            except BaseException:
                connection.close()
                raise
        except sqlcipher3.Error as error:
            raise StateDamaged(f"The replica cannot be read: {error}. Check the disk.") from error

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def batches(self) -> Iterator[list[Row]]:
        """All rows in order, some at a time. Raises StateDamaged."""
        try:
            yield from self._batches()
        except sqlcipher3.Error as error:
            raise StateDamaged(f"The replica cannot be read: {error}. Check the disk.") from error

    def _batches(self) -> Iterator[list[Row]]:
        changed: dict[int, Changed] = {}
        for _ in self._gather(changed):
            yield []  # Whoever reads may rest.
        sequence, digest, _ops, _next, membership, inodes, data_bytes, voids = self._place
        yield [(StateTable.PLACE, sequence, digest, *membership, voids, inodes, data_bytes)]
        plain = {PLAIN_TABLES[s.name]: s for s in schema.TABLES if s.name in PLAIN_TABLES}
        for number in range(StateTable.VALUE, StateTable.REMOVED + 1):
            if number == StateTable.ENTRY:
                yield from self._merged(_ENTRIES, 2, {})
            elif number == StateTable.SEGMENT:
                yield from self._merged(_SEGMENTS, 2, {})
            elif number == StateTable.EXTENT:
                yield from self._merged(_EXTENTS, 5, changed.get(EXTENT.number, {}))
            elif number == StateTable.STAGED:
                yield from self._staged(changed.get(STAGED.number, {}))
            elif number in plain:
                spec = plain[number]
                yield from self._plain(number, spec, changed.get(spec.number, {}))

    def _plain(self, number: int, spec: TableSpec, changed: Changed) -> Iterator[list[Row]]:
        columns = ", ".join(_column(spec, name) for name in spec.columns)
        order = ", ".join(spec.columns[: spec.keys])
        sql = f"SELECT {number}, {columns} FROM {spec.name} ORDER BY {order}"
        return self._merged(sql, spec.keys + 1, changed)

    def _merged(self, sql: str, keys: int, changed: Changed) -> Iterator[list[Row]]:
        """Rows of a question, with committed ones in the place of those that pending ops wrote."""
        cursor = self._connection.execute(sql)
        keys_left = sorted(changed)
        at, count = 0, len(keys_left)
        while rows := cursor.fetchmany(BATCH):
            if at == count:
                yield rows
                continue
            found: list[Row | None] = []
            for row in rows:
                key = row[:keys]
                while at < count and keys_left[at] < key:
                    found.append(changed[keys_left[at]])
                    at += 1
                if at < count and keys_left[at] == key:
                    found.append(changed[key])
                    at += 1
                else:
                    found.append(row)
            yield [row for row in found if row is not None]
        for start in range(at, count, BATCH):
            rest = [changed[key] for key in keys_left[start : start + BATCH]]
            yield [row for row in rest if row is not None]

    def _staged(self, changed: Changed) -> Iterator[list[Row]]:
        """What stands in parts in the tables, change by change: how an author parted it is no part
        of the state."""
        number = StateTable.STAGED
        sql = f"SELECT {number}, target, part, changes FROM staged ORDER BY target, part"
        last, position = -1, 0
        for rows in self._merged(sql, 3, changed):
            for _, target, _part, packed in rows:
                if target != last:
                    last, position = target, 0
                changes = msgpack.unpackb(packed, use_list=False)
                for start in range(0, len(changes), BATCH):
                    found = changes[start : start + BATCH]
                    yield [
                        (number, target, position + index, *change[:9], _lengths(change[9]))
                        for index, change in enumerate(found)
                    ]
                    position += len(found)

    def _gather(self, found: dict[int, Changed]) -> Iterator[None]:
        """By the number of the replica's table: rows as they were before the pending ops."""
        cursor = self._connection.execute("SELECT images FROM undo ORDER BY position")
        while batch := cursor.fetchmany(16):
            for (images,) in batch:
                for number, key, row in msgpack.unpackb(images, use_list=False):
                    spec = schema.TABLES[number]
                    state = _STATE_NUMBERS[spec.name]
                    whole = (state, *map(_bytes, key if isinstance(key, tuple) else (key,)))
                    rows = found.setdefault(number, {})
                    if whole not in rows:
                        rows[whole] = None if row is None else self._row(state, spec, row)
            yield

    def _row(self, state: int, spec: TableSpec, row: Row) -> Row:
        fields = list(map(_bytes, row))
        if spec is EXTENT:
            place = spec.columns.index("segment")
            fields[place] = self._segment_id(fields[place])
        return (state, *fields)

    def _segment_id(self, number: int) -> bytes:
        for (segment,) in self._all("SELECT id FROM segment WHERE number = ?", (number,)):
            return bytes(segment)
        return b""

    def _newest_generation(self) -> bytes:
        rows = self._all("SELECT id FROM generation ORDER BY number DESC LIMIT 1")
        return bytes(rows[0][0]) if rows else b""

    def _all(self, sql: str, values: Row = ()) -> list[Row]:
        try:
            found: list[Row] = self._connection.execute(sql, values).fetchall()
        except sqlcipher3.Error as error:
            raise StateDamaged(f"The replica cannot be read: {error}. Check the disk.") from error
        return found


def chunks_of(
    batches: Iterable[list[Row]], rest: Callable[[], None] = lambda: None
) -> Iterator[Chunk]:
    """The chunks of a state, one by one; `rest` is called after each batch of rows."""
    cutter = ChunkCutter()
    for rows in batches:
        yield from cutter.add(rows)
        rest()
    yield from cutter.end()


_STATE_NUMBERS = {
    **PLAIN_TABLES,
    EXTENT.name: StateTable.EXTENT,
    STAGED.name: StateTable.STAGED,
}


def _column(spec: TableSpec, name: str) -> str:
    """Text goes into the format as bytes."""
    return f"CAST({name} AS BLOB)" if (spec.name, name) == ("value", "name") else name


def _bytes(value: Any) -> Any:
    """As SQLite gives it back: None is stored as empty, and text as bytes."""
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else value


def _lengths(lengths: tuple[int, ...] | None) -> bytes:
    return b"" if lengths is None else struct.pack(f"<{len(lengths)}I", *lengths)
