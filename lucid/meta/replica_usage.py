"""How much of the stored bytes the state still needs: a pass over all extents, read in parts.

Any thread calls it, under no lock; the lock is given back between parts.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.format.change import DATA
from lucid.format.runs import Geometry
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_turn import Turn

__all__ = ["Usage", "usage_of"]

PART_ROWS = 500


class Usage(NamedTuple):
    """Stored bytes of the segments that have a row, and how many of them are sealed blocks that
    files have now, and that any version or removed file has. Blocks that two versions share in part
    count twice, but no segment counts for more than it has."""

    segments: int
    stored: int
    current: int
    kept: int


def usage_of(turn: Turn, tables: Tables, geometry: Geometry) -> Usage:
    """The usage of the committed state; nothing may be pending."""
    sql = (
        "SELECT e.ino, e.died, e.first, e.born, e.segment, e.count_, e.last_len, e.lengths,"
        " e.died = 0 AND coalesce(i.nlink, 0) > 0 FROM extent e LEFT JOIN inode i ON i.ino = e.ino"
        f" WHERE e.kind = {DATA} AND (e.ino, e.died, e.first, e.born) > (?, ?, ?, ?)"
        " ORDER BY e.ino, e.died, e.first, e.born LIMIT ?"
    )
    current: dict[int, int] = {}
    kept: dict[int, int] = {}
    place = (-1, -1, -1, -1)
    while True:
        with turn:
            rows = tables.query(sql, (*place, PART_ROWS), tables.extent, tables.inode)
        for _ino, _died, _first, _born, segment, count, last_len, packed, is_current in rows:
            lengths = tables.lengths(packed)
            full = (count - 1) * geometry.stored_block + last_len + geometry.tag
            stored = full if lengths is None else sum(lengths)
            kept[segment] = kept.get(segment, 0) + stored
            if is_current:
                current[segment] = current.get(segment, 0) + stored
        if len(rows) < PART_ROWS:
            break
        place = tuple(rows[-1][:4])
        turn.rest()
    with turn:
        sizes = tables.query("SELECT number, stored_len FROM segment WHERE committed = 1", ())
    return Usage(
        len(sizes),
        sum(stored for _, stored in sizes),
        sum(min(current.get(number, 0), stored) for number, stored in sizes),
        sum(min(kept.get(number, 0), stored) for number, stored in sizes),
    )
