"""What the replica knows of older versions, of removed inodes and of segments, read in parts.

Any thread calls it, under no lock: the lock is given back between parts, so that a directory that
lost a million files does not stop a mount.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lucid.format.change import SegmentRow
from lucid.meta.replica_tables import SEGMENT_COLUMNS, Tables
from lucid.meta.replica_turn import Turn
from lucid.meta.schema import INODE, REMOVED
from lucid.meta.state import InodeRow, RemovedRow

__all__ = ["Nameless", "Span", "nameless_in", "segment_rows", "spans_of"]

PART_ROWS = 500
"""Rows read at a time, about a millisecond."""


class Nameless(NamedTuple):
    """An inode without names. `removal` is None where that was under rules 1."""

    row: InodeRow
    removal: RemovedRow | None


class Span(NamedTuple):
    """An extent of some versions of a file: of those from `born` on, up to `died` if that is not 0.

    `segment` is its local number, 0 for none.
    """

    born: int
    died: int
    kind: int
    segment: int


def nameless_in(turn: Turn, tables: Tables, parent: int, name: bytes | None) -> list[Nameless]:
    """Inodes whose last name was in `parent`, or was this name there, by number."""
    inode = ", ".join(f"inode.{column}" for column in INODE.columns)
    removed = ", ".join(f"removed.{column}" for column in REMOVED.columns)
    sql = (
        f"SELECT {inode}, {removed} FROM inode LEFT JOIN removed ON removed.ino = inode.ino"
        " WHERE inode.nlink = 0 AND inode.last_parent = ? AND inode.ino > ?"
        f"{' AND inode.last_name = ?' if name is not None else ''} ORDER BY inode.ino LIMIT ?"
    )
    found: list[Nameless] = []
    width = len(INODE.columns)
    while True:
        after = found[-1].row.ino if found else 0
        wanted = (parent, after) if name is None else (parent, after, bytearray(name))
        with turn:
            rows = tables.query(sql, (*wanted, PART_ROWS), tables.inode, tables.removed)
        for row in rows:
            removal = None if row[width] is None else RemovedRow._make(row[width:])
            found.append(Nameless(InodeRow._make(row[:width]), removal))
        if len(rows) < PART_ROWS:
            return found
        turn.rest()


def spans_of(turn: Turn, tables: Tables, ino: int) -> Iterator[Span]:
    """Every extent of every version of a file."""
    sql = (
        "SELECT died, first, born, kind, segment FROM extent WHERE ino = ?"
        " AND (died, first, born) > (?, ?, ?) ORDER BY died, first, born LIMIT ?"
    )
    place = (-1, -1, -1)
    while True:
        with turn:
            rows = tables.query(sql, (ino, *place, PART_ROWS), tables.extent)
        yield from (Span(born, died, kind, segment) for died, _, born, kind, segment in rows)
        if len(rows) < PART_ROWS:
            return
        place = tuple(rows[-1][:3])
        turn.rest()


def segment_rows(turn: Turn, tables: Tables) -> Iterator[SegmentRow]:
    """Every segment of the committed state, by id."""
    sql = (
        f"SELECT {SEGMENT_COLUMNS} FROM segment WHERE committed = 1 AND id > ? ORDER BY id LIMIT ?"
    )
    after = b""
    while True:
        with turn:
            rows = tables.query(sql, (after, PART_ROWS))
        yield from map(SegmentRow._make, rows)
        if len(rows) < PART_ROWS:
            return
        after = bytes(rows[-1][0])
        turn.rest()
