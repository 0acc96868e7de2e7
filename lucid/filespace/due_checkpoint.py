"""A checkpoint that is due and that nobody has written: written by whoever visits a filespace.

Mounted drives write theirs in `sync.checkpointer`; this is for a collector, which may come when all
of them are gone. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from lucid.errors import ObjectExists
from lucid.filespace.visiting import Visit
from lucid.format.entry import EntryRef
from lucid.meta.checkpoint_rows import Snapshot, chunks_of
from lucid.meta.checkpoint_store import CheckpointWriter
from lucid.meta.log import follow

__all__ = ["due_after", "write_due"]


def due_after(visit: Visit, head: int) -> int:
    """The entry at or below `head` at which a checkpoint is missing; 0 for none."""
    due = head // visit.every * visit.every
    return due if due > (visit.checkpoints().newest() or 0) else 0


def write_due(
    visit: Visit, head: int, session: int, report: Callable[[str, int, int | None], None]
) -> EntryRef | None:
    """Write that checkpoint as `session`'s. Returns what an entry of that session should say of its
    state then; None if there was nothing to write, or another was faster.

    Raises what following the log raises, and StoreError.
    """
    due = due_after(visit, head)
    if not due:
        return None
    reader = visit.checkpoints()
    started, _ = visit.begin("due", below=due, entries=due - (reader.newest() or 0))
    replica = visit.replica("due")
    follow(visit.reader(replica), replica, max(0, due - replica.head().sequence))
    snapshot = replica.snapshot()
    if snapshot is None:
        return None
    with closing(snapshot):
        if snapshot.head.sequence != due:
            return None
        writer = CheckpointWriter(
            visit.store, visit.ring, visit.unlocked.keys, session, reader, visit.entropy
        )
        if started is not None:
            writer.learn(reader.manifest(started.known.sequence).manifest.chunks)
        try:
            return _write(visit, snapshot, writer, report)
        except ObjectExists:
            return None


def _write(
    visit: Visit,
    snapshot: Snapshot,
    writer: CheckpointWriter,
    report: Callable[[str, int, int | None], None],
) -> EntryRef:
    head, chunks = snapshot.head, []
    for chunk in chunks_of(snapshot.batches()):
        chunks.append(
            writer.put_chunk(head.sequence, snapshot.generation, chunk, lambda ask: ask())
        )
        report("checkpoint", len(chunks), None)
    made = writer.put_manifest(
        head, snapshot.generation, visit.clock.time_ns(), tuple(chunks), lambda ask: ask()
    )
    return EntryRef(head.sequence, made.state_hash)
