"""A file's map as the engine takes it: one typed array a field, one row an extent.

Long maps are read in parts, the lock given back between them; a map that changed meanwhile is read
again. Any thread calls it, under no lock.
"""

from __future__ import annotations

import sys
from array import array
from typing import NamedTuple

from lucid.errors import InternalError
from lucid.format.ops import SegmentRow
from lucid.meta.replica_state import ReplicaState, extent_rows_at
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_turn import Turn
from lucid.meta.schema import ExtentRow

__all__ = ["MapColumns", "read_map"]

PART_ROWS = 1000
"""Rows read at a time, about a millisecond."""
TRIES = 4
"""After so many changes in the middle, the lock is kept for the whole map."""

_WHOLE = (
    "SELECT first, count_, kind, segment, ordinal, offset, flags, last_len, last_valid, lengths"
    " FROM extent WHERE ino = ? AND died = 0 AND first > ? ORDER BY first"
)
_PART = f"{_WHOLE} LIMIT {PART_ROWS}"
"""No LIMIT that is bound: SQLite prepares such a question anew each time, 36 us instead of 10."""


class MapColumns(NamedTuple):
    """One version's map. `segment` is an index into `segments`, -1 for an extent that has none.

    `lengths` holds the stored lengths of blocks, one extent's after another's; `lengths_index` the
    place of an extent's first, -1 where its blocks are full. Both are None where all are.
    """

    ino: int
    version: int
    size: int
    first: array[int]
    count: array[int]  # type: ignore[assignment]  # hides tuple.count, nobody calls it
    kind: array[int]
    segment: array[int]
    ordinal: array[int]
    offset: array[int]
    flags: array[int]
    last_len: array[int]
    last_valid: array[int]
    lengths: array[int] | None
    lengths_index: array[int] | None
    segments: tuple[SegmentRow, ...]


_Row = tuple[int, int, int, int, int, int, int, int, int, bytes]


def read_map(
    turn: Turn, tables: Tables, state: ReplicaState, ino: int, version: int | None
) -> MapColumns | None:
    """The newest map of `ino`, or that of one of its versions; None where there is none."""
    if version is not None:
        with turn:
            row = state.version(version)
            inode = state.inode(ino)
            if row is None or row.ino != ino or inode is None:
                return None
            if inode.version != version:
                rows = [_row(extent) for extent in extent_rows_at(tables, ino, version)]
                return _columns(tables, ino, version, row.size, rows)
    return _newest(turn, tables, state, ino)


def _newest(turn: Turn, tables: Tables, state: ReplicaState, ino: int) -> MapColumns | None:
    for attempt in range(TRIES + 1):
        whole = attempt == TRIES
        rows: list[_Row] = []
        begun = -1
        while True:
            with turn:
                inode = state.inode(ino)
                if inode is None:
                    return None
                if begun not in (-1, inode.version):
                    break
                begun = inode.version
                part = _part(tables, ino, rows[-1][0] if rows else -1, whole)
                rows += part
                if whole or len(part) < PART_ROWS:
                    return _columns(tables, ino, inode.version, inode.size, rows)
            turn.rest()
    raise InternalError(f"The map of inode {ino} could not be read.")


def _part(tables: Tables, ino: int, after: int, whole: bool) -> list[_Row]:
    return tables.query(_WHOLE if whole else _PART, (ino, after), tables.extent)


def _row(extent: ExtentRow) -> _Row:
    return (extent.first, *extent[4:])


def _columns(tables: Tables, ino: int, version: int, size: int, rows: list[_Row]) -> MapColumns:
    numbers: dict[int, int] = {}
    segments: list[SegmentRow] = []
    packed = bytearray()
    index = []
    local = []
    for row in rows:
        number, lengths = row[3], row[9]
        if number and number not in numbers:
            numbers[number] = len(segments)
            segments.append(tables.segment_row(number))
        local.append(numbers[number] if number else -1)
        index.append(len(packed) // 4 if lengths else -1)
        packed += lengths
    # A column at a time: for a small file, the common case, a third of the time of one table.
    fields = tuple(zip(*rows, strict=True)) or ((),) * 9
    return MapColumns(
        ino,
        version,
        size,
        array("q", fields[0]),
        array("q", fields[1]),
        array("B", fields[2]),
        array("i", local),
        array("q", fields[4]),
        array("q", fields[5]),
        array("I", fields[6]),
        array("I", fields[7]),
        array("I", fields[8]),
        _lengths(packed) if packed else None,
        array("q", index) if packed else None,
        tuple(segments),
    )


def _lengths(packed: bytes | bytearray) -> array[int]:
    """Little-endian as they are stored."""
    lengths = array("I", bytes(packed))
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths
