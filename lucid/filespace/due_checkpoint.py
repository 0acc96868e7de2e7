"""A checkpoint that is due and that nobody has written: written by whoever visits a filespace.

Mounted drives write theirs in `sync.checkpointer`; this is for a collector, which may come when all
of them are gone. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from lucid.errors import DataError, ObjectExists, ObjectMissing, StateMismatch
from lucid.filespace.leftovers import Progress
from lucid.filespace.visiting import Visit
from lucid.format.checkpoint import state_hash
from lucid.format.entry import EntryRef
from lucid.meta.checkpoint_rows import Snapshot, chunks_of
from lucid.meta.checkpoint_store import CheckpointWriter
from lucid.meta.log import follow
from lucid.sync.checkpoint_start import Started

__all__ = ["due_after", "hash_of_newest", "write_due"]


def due_after(visit: Visit, head: int) -> int:
    """The newest entry up to `head` that should have a checkpoint, if it has none; else 0.

    Chunks without a manifest are none: whoever was writing it has gone.
    """
    due = head // visit.every * visit.every
    if due:
        try:
            visit.checkpoints().manifest(due)
        except ObjectMissing:
            return due
        except DataError:
            return 0  # Its name is taken.
    return 0


def write_due(visit: Visit, head: int, session: int, report: Progress) -> EntryRef | None:
    """Write that checkpoint as `session`'s. Returns what an entry of that session should say of its
    state then; None if there was nothing to write, or another was faster.

    Raises what following the log raises, and StoreError.
    """
    due = due_after(visit, head)
    if not due:
        return None
    reader = visit.checkpoints()
    with _state_at(visit, due, "due") as (snapshot, started):
        if snapshot is None:
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


def hash_of_newest(visit: Visit, head: int) -> EntryRef | None:
    """What an entry should say of the state at the newest checkpoint up to `head`, where nobody has
    said it yet; None if there is no such checkpoint.

    Raises StateMismatch if the checkpoint is of another state, and as `write_due` does.
    """
    newest = head // visit.every * visit.every
    if not newest:
        return None
    try:
        there = visit.checkpoints().manifest(newest).manifest
    except (ObjectMissing, DataError):
        return None
    with _state_at(visit, newest, "newest") as (snapshot, _):
        if snapshot is None:
            return None
        made = state_hash(chunk.hash for chunk in chunks_of(snapshot.batches()))
    if there.state_hash != made:
        raise StateMismatch(
            f"Checkpoint {newest} holds another state than the log makes. Nothing was deleted."
            " See: lucid fsck"
        )
    return EntryRef(newest, made)


@contextmanager
def _state_at(
    visit: Visit, sequence: int, name: str
) -> Iterator[tuple[Snapshot, Started | None] | tuple[None, None]]:
    """The state after an entry, folded from the checkpoint before it, which is `Started`.

    `name` is that of a replica that nobody else has open.
    """
    older = visit.checkpoints().newest(sequence) or 0
    started, _ = visit.begin(name, below=sequence, entries=sequence - older)
    replica = visit.replica(name)
    follow(visit.reader(replica), replica, max(0, sequence - replica.head().sequence))
    snapshot = replica.snapshot()
    if snapshot is None:
        yield None, None
        return
    with closing(snapshot):
        yield (snapshot, started) if snapshot.head.sequence == sequence else (None, None)


def _write(
    visit: Visit, snapshot: Snapshot, writer: CheckpointWriter, report: Progress
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
