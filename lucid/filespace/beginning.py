"""Where a replica begins: at a checkpoint, or at entry 1 of the log.

Used by opening, once, before any thread runs: after the journal was read and before the log is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgpack

from lucid.crypto.keyring import KeyRing
from lucid.filespace.recovery import Picture
from lucid.format.checkpoint import state_hash
from lucid.format.entry import EntryBody
from lucid.meta.checkpoint_rows import Snapshot, chunks_of
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.meta.history import alarm_of
from lucid.meta.log import LogReader, follow
from lucid.meta.replica import Replica
from lucid.meta.schema import remove_database
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.sync.agreement import Agreement, mismatch_at
from lucid.sync.checkpoint_start import LOADING, CheckpointStart
from lucid.sync.checkpointer import CHECKPOINT_NOTE

__all__ = ["Beginning", "begin"]

log = logging.getLogger(__name__)


@dataclass
class Beginning:
    """What a replica began from. `notes` are sentences about it for the status."""

    replica: Replica
    agreement: Agreement
    notes: list[str] = field(default_factory=list)
    compare_at: int | None = None
    is_new: bool = False
    """What this device saw before is not known to the replica: nothing was compared with it."""

    every: int = 0
    _snapshot: Snapshot | None = None

    def folded(self, body: EntryBody | None) -> None:
        """Opening has folded an entry: its body, or None of a void one. Of the last one that has a
        checkpoint the state is kept, to be looked at when the mount is there."""
        if body is not None:
            self.agreement.heard(body)
        if self.every and self.replica.head().sequence % self.every == 0:
            self.close()
            self._snapshot = self.replica.snapshot()

    def take_snapshot(self) -> Snapshot | None:
        """The state at the last checkpoint's entry that was folded; the caller closes it."""
        snapshot, self._snapshot = self._snapshot, None
        return snapshot

    def close(self) -> None:
        """Idempotent."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def compare(self, reader: LogReader) -> None:
        """After an alarm: fold the log anew up to the entry at which another had another state,
        and see what the state is now. Raises what following the log raises."""
        if self.compare_at is None:
            return
        left = self.compare_at - self.replica.head().sequence
        follow(reader, self.replica, left, on_entry=lambda found: self.agreement.heard(found.body))
        snapshot = self.replica.snapshot()
        if snapshot is None or snapshot.head.sequence != self.compare_at:
            return
        try:
            hashes = [chunk.hash for chunk in chunks_of(snapshot.batches())]
        finally:
            snapshot.close()
        self.agreement.know(self.compare_at, state_hash(hashes), urgent=True)


def begin(
    replica: Replica,
    picture: Picture,
    *,
    store: ObjectStore,
    ring: KeyRing,
    origin: Origin,
    path: Path,
    key: bytes,
    every: int,
    entries: int,
    open_replica: Callable[[Path], Replica],
) -> Beginning:
    """The replica to go on with: another one than `replica` where that was empty or is doubted.

    Raises what following the log raises, and StoreError; `replica` is open and empty then.
    """
    remove_database(path.with_name(LOADING))
    own = picture.session.session if picture.session is not None else 0
    doubted = mismatch_at(replica)
    if doubted is not None and not alarm_of(replica):
        LogReader(store, ring, replica, origin).history.check_head()  # It forgets what it saw.
        log.warning("Another device had another state: the whole log is folded anew.")
        replica.close()
        remove_database(path)
        fresh = open_replica(path)
        return Beginning(fresh, Agreement(fresh, own), compare_at=doubted, is_new=True, every=every)
    if replica.head().sequence or not every:
        return Beginning(replica, Agreement(replica, own), every=every)
    reader = CheckpointReader(store, ring, every)
    start = CheckpointStart(store, ring, origin, reader, path, key, open_replica)
    started = start.run(own, entries, replica.close)
    if started is None:
        return Beginning(replica, Agreement(replica, own), start.refused, every=every)
    fresh = open_replica(path)
    fresh.note(CHECKPOINT_NOTE, msgpack.packb(started.known))
    agreement = Agreement(fresh, own)
    agreement.know(started.known.sequence, started.state_hash, believed=True)
    _forget_settled(picture, fresh)
    return Beginning(fresh, agreement, [started.note, *start.refused], is_new=True, every=every)


def _forget_settled(picture: Picture, replica: Replica) -> None:
    """Own ops that the journal still holds, and the log as well: whoever folds the log from entry 1
    meets them there. Here the journal's notes tell."""
    notes = (
        (note.sequence, note.entry_hash, note.position)
        for found in picture.notes.values()
        for note in found
    )
    settled = replica.settled_through(notes)
    for position in [position for position in picture.ops if position <= settled]:
        picture.dead.append(picture.ops.pop(position)[0])
