"""What a replica's committed state names, run by run: maps of all versions, and staged changes.

Any thread calls it, under no lock; the lock is given back between parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lucid.format.change import DATA, Change
from lucid.meta.replica_repack import unpack_changes
from lucid.meta.replica_state import ReplicaState
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_turn import Turn
from lucid.meta.schema import EXTENT, STAGED, ExtentRow, StagedRow

__all__ = ["Named", "named_runs"]

PART_ROWS = 500
"""Rows read at a time, about a millisecond."""


class Named(NamedTuple):
    """A run of sealed blocks, and the inode that they are of, or may be one day."""

    ino: int
    run: Change


def named_runs(turn: Turn, tables: Tables, state: ReplicaState) -> Iterator[Named]:
    """Every data run that the state names; some more than once. Nothing may be pending."""
    sql = (
        f"{EXTENT.select} WHERE kind = {DATA} AND (ino, died, first, born) > (?, ?, ?, ?)"
        " ORDER BY ino, died, first, born LIMIT ?"
    )
    place = (-1, -1, -1, -1)
    while True:
        with turn:
            rows = tables.query(sql, (*place, PART_ROWS), tables.extent)
            found = [Named(row[0], state.extent(ExtentRow._make(row))) for row in rows]
        yield from found
        if len(rows) < PART_ROWS:
            break
        place = tuple(rows[-1][:4])
        turn.rest()
    with turn:
        parts = [StagedRow._make(row) for row in tables.query(STAGED.select, (), tables.staged)]
    for part in parts:
        for run in unpack_changes(part.changes):
            if run.kind == DATA:
                yield Named(part.target, run)
