"""Where a replica begins: at a checkpoint, or at entry 1 of the log; anew at a checkpoint, where
the log was cut above what it knows.

Used by opening, once, before any thread runs: after the journal was read and before the log is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgpack

from lucid.crypto.keyring import KeyRing
from lucid.errors import BelowFloor, CorruptObject, HistoryFork
from lucid.filespace.completing import Completing
from lucid.filespace.picture import Picture
from lucid.format.checkpoint import state_hash
from lucid.format.entry import EntryBody, EntryRef
from lucid.format.journal import Settled
from lucid.format.runs import Geometry
from lucid.local.book import JournalBook
from lucid.meta.checkpoint_rows import Snapshot, chunks_of
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.meta.history import FORK_NOTE, alarm_of
from lucid.meta.log import LogReader, follow
from lucid.meta.replica import Replica
from lucid.meta.schema import remove_database
from lucid.meta.state import SessionRow
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.sync.agreement import Agreement, mismatch_at
from lucid.sync.below_floor import Floors, is_whole
from lucid.sync.checkpoint_start import LOADING, CheckpointStart
from lucid.sync.checkpointer import CHECKPOINT_NOTE

__all__ = ["Beginning", "begin"]

log = logging.getLogger(__name__)

ENTRIES_KEPT = 4096
"""The state keeps the hash of each entry with a multiple of this number."""


@dataclass
class Beginning:
    """What a replica began from. `notes` are sentences about it for the status."""

    replica: Replica
    agreement: Agreement
    notes: list[str] = field(default_factory=list)
    compare_at: int | None = None
    is_new: bool = False
    """What this device saw before is not known to the replica: nothing was compared with it."""
    floor: int = 0
    """The newest floor above the head that the store showed; 0 for none."""

    is_silent: bool = False
    """The replica was lost: what this device's session found of the checkpoint it does not say, for
    others have found it; and so its session would be waited for in vain."""
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
    floors: Floors,
    book: JournalBook | None,
    geometry: Geometry,
) -> Beginning:
    """The replica to go on with: another one than `replica` where that was empty, is doubted, or
    stands below a floor. `book`: None where nothing may be written.

    Raises what following the log raises, and StoreError; `replica` is open and as it was then.
    """
    remove_database(path.with_name(LOADING))
    own = picture.session.session if picture.session is not None else 0
    head = replica.head().sequence
    doubted = None if alarm_of(replica) else mismatch_at(replica)
    floor = 0
    if replica.noted(FORK_NOTE) is None:
        floor = floors.above(head if doubted is None else 1) or 0
    if doubted is not None and not (floor and every):
        LogReader(store, ring, replica, origin).history.check_head()  # It forgets what it saw.
        log.warning("Another device had another state: the whole log is folded anew.")
        replica.close()
        remove_database(path)
        fresh = open_replica(path)
        return Beginning(fresh, Agreement(fresh, own), compare_at=doubted, is_new=True, every=every)
    if not every or (head and not floor):
        if floor:
            _check_whole(store, head, floor, [])
            floors.whole = floor
        return Beginning(replica, Agreement(replica, own), every=every, floor=floor)
    if book is None and head and (picture.ops or picture.files):
        raise BelowFloor(
            "This device was away for longer than the log is kept, and has changes that were not"
            " sent. It shows what it knows; mount it without --read-only to go on."
        )
    old = _Old(replica, picture, own, floor, book, geometry)
    reader = CheckpointReader(store, ring, every)
    start = CheckpointStart(store, ring, origin, reader, path, key, open_replica)
    started = start.run(
        own, entries, replica.close, old.give_way,
        is_only_way=lambda: head < floor and not is_whole(store, head, floor),
    )  # fmt: skip
    if started is None:
        if head < floor:
            _check_whole(store, head, floor, start.refused)
            floors.whole = floor
        agreement = Agreement(replica, own)
        return Beginning(replica, agreement, start.refused, every=every, floor=floor)
    fresh = open_replica(path)
    fresh.note(CHECKPOINT_NOTE, msgpack.packb(started.known))
    agreement = Agreement(fresh, own)
    agreement.know(started.known.sequence, started.state_hash, believed=True)
    _forget_settled(picture, max(old.settled, _settled_through(picture, fresh)))
    notes = [started.note, *start.refused]
    if 0 < head < floor:
        notes.insert(0, f"This device was away: it knew entry {head}, and the floor is at {floor}.")
    return Beginning(
        fresh, agreement, notes, is_new=not head, is_silent=not head and own > 0, every=every,
        floor=floor,
    )  # fmt: skip


class _Old:
    """The replica that is given up, and what must not go with it."""

    def __init__(
        self,
        replica: Replica,
        picture: Picture,
        own: int,
        floor: int,
        book: JournalBook | None,
        geometry: Geometry,
    ) -> None:
        self._replica = replica
        self._picture = picture
        self._floor = floor
        self._book = book
        self._geometry = geometry
        self._head = replica.head().sequence
        self._seen = _Seen.of(replica, own)
        self.settled = _settled_through(picture, replica)

    def give_way(self, found: Replica) -> None:
        """The other one is to take its place, just after this. Raises DataError if it must not, and
        HistoryFork if none may."""
        if found.head().sequence < self._floor:
            raise CorruptObject(f"The log behind it ends below the floor at entry {self._floor}.")
        self._seen.check(found)
        if self._book is None:
            return
        settled = max(self.settled, _settled_through(self._picture, found))
        _note_settled(self._book, self._picture, settled)
        if self._head:
            Completing(self._picture, self._replica, found, self._book, self._geometry).run()


def _check_whole(store: ObjectStore, head: int, floor: int, refused: list[str]) -> None:
    """Without a checkpoint the log can be followed across a floor only if nothing is missing: where
    no checkpoint is, a collector deletes no entries. Raises BelowFloor."""
    if not is_whole(store, head, floor):
        why = " ".join(refused) or "There is none."
        raise BelowFloor(
            f"Entries of the log behind {head} and below the floor at {floor} are gone from the"
            f" store, and no checkpoint can be used in their stead. {why} Nothing is changed here:"
            " what was not sent yet is kept. Mount again when a checkpoint is there."
        )


@dataclass(frozen=True)
class _Seen:
    """What a replica that is given up has seen of the log, to be found again in another state."""

    own: int
    entries: list[EntryRef]
    sessions: list[SessionRow]

    @classmethod
    def of(cls, replica: Replica, own: int) -> _Seen:
        """The entries whose hashes every state keeps, and all sessions."""
        marks = range(ENTRIES_KEPT, replica.head().sequence + 1, ENTRIES_KEPT)
        hashes = [(sequence, replica.entry_hash(sequence)) for sequence in marks]
        sessions = [row for member in replica.members() for row in replica.sessions_of(member.id)]
        entries = [EntryRef(sequence, digest) for sequence, digest in hashes if digest is not None]
        return cls(own, entries, sessions)

    def check(self, found: Replica) -> None:
        """Raises HistoryFork unless `found` continues what was seen."""
        for entry in self.entries:
            if found.entry_hash(entry.sequence) != entry.hash:
                self._alarm(f"Entry {entry.sequence} of the log")
        for row in self.sessions:
            now = found.session(row.number)
            if now is None or (now.member, now.nonce) != (row.member, row.nonce):
                self._alarm(f"Session {row.number}")
            elif now.last_sequence == row.last_sequence and now.last_hash != row.last_hash:
                self._alarm(f"Entry {row.last_sequence} of the log")
            elif row.number == self.own and now.last_sequence < row.last_sequence:
                self._alarm(f"Entry {row.last_sequence} of the log, this device's own,")

    @staticmethod
    def _alarm(what: str) -> None:
        raise HistoryFork(
            f"{what} is another one in the checkpoint than this device has seen, or is not in it:"
            " the store was rolled back, or shows somebody another history. Nothing is changed"
            " here. Compare `lucid status` with another device before you trust either."
        )


def _settled_through(picture: Picture, replica: Replica) -> int:
    """The last journal position that the log settles, as far as `replica` knows it; -1 for none.

    Whoever folds the log from entry 1 meets own ops there that the journal still holds. Here the
    journal's notes tell.
    """
    return replica.settled_through(
        (note.sequence, note.entry_hash, note.position)
        for found in picture.notes.values()
        for note in found
    )


def _note_settled(book: JournalBook, picture: Picture, settled: int) -> None:
    """For the next opening, should this one end too soon: what tells it may be gone by then."""
    if any(position <= settled for position in picture.ops):
        book.note(Settled(settled), removal=True)
        book.sync()


def _forget_settled(picture: Picture, settled: int) -> None:
    for position in [position for position in picture.ops if position <= settled]:
        picture.dead.append(picture.ops.pop(position)[0])
