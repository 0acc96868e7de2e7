"""The rows of a state by FORMAT.md from the model, and a replica's own, for comparing them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from lucid.format.checkpoint import state_hash
from lucid.meta.checkpoint_load import StateLoader
from lucid.meta.checkpoint_rows import chunks_of
from lucid.meta.memory import MemoryState
from lucid.meta.replica import Replica
from tests.meta.replicas import KEY, Log, StillClock, open_replica

Row = tuple[Any, ...]


def model_rows(log: Log, sequence: int | None = None) -> list[Row]:
    """What the log says, through the model: the rows of the state after entry `sequence`."""
    end = len(log.entries) if sequence is None else sequence
    again = Log(0)
    again.entries.clear()
    again.model = MemoryState(log.model.geometry)
    again.heads = log.heads
    for body in log.entries[:end]:
        again.append(body.session, body.ops)
    dump = again.model.dump()
    rows: list[Row] = [(1, end, log.hash(end), 1, log.hash(1), 0, *dump["totals"][0])]
    rows += [(2, name.encode(), value) for name, value in dump["value"]]
    rows += [(3, *row) for row in dump["member"]]
    rows += [(4, *row) for row in dump["generation"]]
    rows += [(5, *row) for row in dump["session"]]
    rows += [(6, at, log.hash(at)) for at in range(4096, end + 1, 4096)]
    rows += [(7, *row) for row in dump["segment"]]
    rows += [(8, *row) for row in dump["inode"]]
    rows += [(9, *row) for row in dump["directory"]]
    rows += [(10, *row) for row in dump["dentry"]]
    rows += [(11, *row) for row in dump["xattr"]]
    rows += [(12, *row) for row in dump["version"]]
    extents = [
        (13, ino, died, first, born, *change[1:9], _lengths(change[9]))
        for ino, first, born, died, change in dump["extent"]
    ]
    rows += sorted(extents)
    rows += [(14, target, at, *c[:9], _lengths(c[9])) for target, at, c in dump["staged"]]
    return rows + [(15, *row) for row in dump.get("removed", [])]


def _lengths(lengths: tuple[int, ...] | None) -> bytes:
    return b"" if lengths is None else struct.pack(f"<{len(lengths)}I", *lengths)


def replica_rows(replica: Replica) -> list[Row]:
    """What a replica would write into a checkpoint now."""
    snapshot = replica.snapshot()
    assert snapshot is not None
    try:
        assert snapshot.head == replica.head()
        return [row for rows in snapshot.batches() for row in rows]
    finally:
        snapshot.close()


def hash_of(replica: Replica) -> bytes:
    """A replica's state hash now."""
    snapshot = replica.snapshot()
    assert snapshot is not None
    try:
        return state_hash(chunk.hash for chunk in chunks_of(snapshot.batches()))
    finally:
        snapshot.close()


def loaded(replica: Replica, directory: Path, clock: StillClock | None = None) -> Replica:
    """A new replica from what another would write into a checkpoint now."""
    directory.mkdir(exist_ok=True)
    snapshot = replica.snapshot()
    assert snapshot is not None
    loader = StateLoader(directory / "replica", KEY)
    for chunk in chunks_of(snapshot.batches()):
        loader.add(chunk.data, chunk.first_key)
    assert loader.finish() == snapshot.head
    snapshot.close()
    return open_replica(directory, clock)
