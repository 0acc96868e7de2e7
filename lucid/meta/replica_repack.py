"""Rows of a replica's maps that name other segments than before: what a repack does to them.

Called by the fold, under the replica's lock, with no own op applied. One pass over the table of
extents an op, whatever it moves: there is no index by segment, which every write would pay for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence

import msgpack

from lucid.format.change import Change
from lucid.meta.replica_tables import Tables
from lucid.meta.schema import EXTENT, STAGED, ExtentRow, StagedRow

__all__ = ["move_rows", "unpack_changes"]

_LYING_IN = f"{EXTENT.select} WHERE segment IN (SELECT value FROM json_each(?))"


def move_rows(
    tables: Tables,
    extent: Callable[[ExtentRow], Change],
    segments: Collection[bytes],
    moved: Callable[[Change], Change],
) -> Sequence[int]:
    """As `State.move_blocks`; `extent` tells a row as the fold has it."""
    numbers = json.dumps([tables.segment_number(segment) for segment in segments])
    touched = set()
    for row in map(ExtentRow._make, tables.query(_LYING_IN, (numbers,), tables.extent)):
        before = extent(row)
        after = moved(before)
        if after != before:
            number = tables.segment_number(after.segment)
            fresh = row._replace(segment=number, ordinal=after.ordinal, offset=after.offset)
            tables.extent.put(row[:4], fresh)
            touched.add(row.ino)
    for part in map(StagedRow._make, tables.query(STAGED.select, (), tables.staged)):
        changes = list(unpack_changes(part.changes))
        fresh_changes = [moved(one) if one.segment in segments else one for one in changes]
        if fresh_changes != changes:
            packed = msgpack.packb(tuple(fresh_changes))
            tables.staged.put((part.target, part.part), part._replace(changes=packed))
    return sorted(touched)


def unpack_changes(packed: bytes) -> Iterable[Change]:
    """The changes of one `stage` op as its row has them."""
    return map(Change._make, msgpack.unpackb(packed, use_list=False))
