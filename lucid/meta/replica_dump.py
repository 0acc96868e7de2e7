"""Every row of a replica in the one order that `MemoryState.dump` has: for tests and for fsck.

What is dumped is the state with the own pending ops on it; where none is pending, the committed
state. Called under the replica's lock.
"""

from __future__ import annotations

from typing import Any

import msgpack

from lucid.meta.pending import PendingOps
from lucid.meta.replica_reads import Reads
from lucid.meta.replica_state import ReplicaState
from lucid.meta.replica_tables import Tables
from lucid.meta.schema import ExtentRow

__all__ = ["dump_rows"]


def dump_rows(
    tables: Tables, pending: PendingOps, state: ReplicaState
) -> dict[str, list[tuple[Any, ...]]]:
    """Two states are equal when their dumps are. Stamps of pending versions are local."""
    tables.flush()

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(row) for row in tables.query(sql, ()))

    extents = []
    for fields in rows(f"SELECT {', '.join(tables.extent.spec.columns)} FROM extent"):
        row = ExtentRow._make(fields)
        extents.append((row.ino, row.first, row.born, row.died, tuple(state.extent(row))))
    removed = rows(tables.removed.spec.select)
    return ({"removed": removed} if removed else {}) | {
        "inode": rows(tables.inode.spec.select),
        "dentry": rows(tables.dentry.spec.select),
        "directory": _directories(tables, pending),
        "xattr": rows(tables.xattr.spec.select),
        "version": rows(tables.version.spec.select),
        "extent": sorted(extents),
        "staged": _staged(tables),
        "segment": rows(
            "SELECT id, stored_len, footer_len, footer_hash, generation, head FROM segment"
            " WHERE committed = 1"
        ),
        "member": rows(tables.member.spec.select),
        "session": rows(tables.session.spec.select),
        "generation": rows(tables.generation.spec.select),
        "value": rows(tables.value.spec.select),
        "totals": [tuple(Reads(tables, pending, state).totals())],
    }


def _directories(tables: Tables, pending: PendingOps) -> list[tuple[Any, ...]]:
    found = {row[0]: (row[1], row[2]) for row in tables.query(tables.directory.spec.select, ())}
    for ino, (time_ns, subdirectories) in pending.overlay.rows():
        touched_ns, total = found.get(ino, (time_ns, 0))
        found[ino] = (max(touched_ns, time_ns), total + subdirectories)
    return sorted((ino, *row) for ino, row in found.items())


def _staged(tables: Tables) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    places: dict[int, int] = {}
    sql = f"{tables.staged.spec.select} ORDER BY target, part"
    for target, _part, packed in tables.query(sql, ()):
        for change in msgpack.unpackb(packed, use_list=False):
            found.append((target, places.get(target, 0), change))
            places[target] = places.get(target, 0) + 1
    return found
