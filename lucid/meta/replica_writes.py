"""How the replica is changed: pending ops, entries, and the transaction around them.

Owns the database file, its connection, and the lock, which is taken here and in `replica.Replica`,
that adds the questions. `commit_entry` works in slices and gives the lock back between them; each
slice leaves a state that a crash may keep. Threads: see `replica`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from lucid.engine.known import KnownTable
from lucid.errors import HistoryFork, InternalError, LocalError, StateDamaged, Stopped
from lucid.format.entry import EntryBody, EntryRef
from lucid.format.hashes import ZERO_HASH
from lucid.format.ops import Genesis, Op, SegmentRow
from lucid.format.runs import Geometry
from lucid.meta import schema
from lucid.meta.checkpoint_rows import Snapshot
from lucid.meta.fold_effect import NOTHING, Author, Effect
from lucid.meta.pending import PendingOps
from lucid.meta.replica_base import Layers
from lucid.meta.replica_reads import Reads
from lucid.meta.replica_state import ReplicaState
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_turn import Turn
from lucid.meta.replica_undo import op_id_of
from lucid.meta.schema import PlaceRow
from lucid.types import Clock

__all__ = ["Committed", "Place", "Writes"]

SLICE_S = 0.001
"""How long one slice folds; writing what it folded takes about as long again."""
SLICE_OPS = 64
COMMIT_S = 0.2
"""A transaction ends after so long at the latest. A crash loses it, which costs folding again."""
COMMIT_HOLD_S = 0.003
COMMIT_WRITES = (128, 8192)
"""It also ends after so many rows that ending it takes about COMMIT_HOLD_S, found by trying: it
costs 18 us for each page that was touched. While nobody waits for the lock it may take longer,
since larger transactions seal fewer pages in all: a first fold of the whole log is twice as fast.
"""
WAL_PAGES = 4096
"""16 MiB: a shorter log may go on until a quieter moment."""
SNAPSHOT_PENDING_MAX = 16_384
"""A snapshot holds the images of all pending ops in memory: about a kilobyte each."""
HASHES_KEPT = 65_536
"""Hashes of the newest entries that are kept; of older ones every 4,096th."""


class Place(NamedTuple):
    """Where the replica stands in the log. `ops` of entry `sequence + 1`, whose hash is `next`, are
    folded already."""

    sequence: int
    hash: bytes
    ops: int
    next: bytes
    membership: EntryRef
    inodes: int
    data_bytes: int
    voids: int


class Committed(NamedTuple):
    """What an entry did to the own pending ops: how many it settled, and whether some that it was
    to settle were not in it."""

    settled: int
    dropped: int


_MET = "met "
_RECENT = ("met newest", "met before")
_OWN = "own session"
_START = Place(0, ZERO_HASH, 0, b"", EntryRef(0, ZERO_HASH), 0, 0, 0)


class Writes:
    """The half of a replica that changes it.

    `rebuilt` says why the database was made new; empty if it was not. Guarded by _turn: everything
    but `_place`, which is replaced whole and may be read by any thread.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        geometry: Geometry,
        clock: Clock,
        cache_kib: int = schema.CACHE_KIB,
    ) -> None:
        """Open or make the database; `cache_kib` of its pages are kept in memory.

        Raises DiskFull or StateDamaged.
        """
        self._path = path
        self._key = key
        self._clock = clock
        self._turn = Turn()
        self._broken = ""
        self._closed = False
        self._known: KnownTable | None = None
        self._connection, self.rebuilt = schema.open_database(path, key)
        try:
            self._load(geometry)
        except StateDamaged as error:
            self._connection.close()
            schema.remove_database(path)
            self._connection, _ = schema.open_database(path, key)
            self.rebuilt = str(error)
            self._load(geometry)
        self._connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        self._commit_at = clock.monotonic() + COMMIT_S
        self._commit_writes = 2048

    def _load(self, geometry: Geometry) -> None:
        self._tables = Tables(self._connection)
        self._pending = PendingOps(self._tables)
        self._state = ReplicaState(self._tables, self._pending, geometry)
        self._layers = Layers(self._tables, self._pending, self._state)
        self._reads = Reads(self._tables, self._pending, self._state)
        own = self._tables.place.get(_OWN)
        self._own_session = 0 if own is None else int(own.value)
        self._met: set[int] = set()
        self._met_rows: list[str] = []
        for name, value in self._tables.query(
            "SELECT name, value FROM place WHERE name >= ? AND name < ?", (_MET, _MET + "~")
        ):
            self._met.update(msgpack.unpackb(value))
            if name not in _RECENT:
                self._met_rows.append(name)
        self._place = _START
        row = self._tables.place.get("place")
        if row is not None:
            fields = msgpack.unpackb(row.value, use_list=False)
            self._place = Place._make(fields)._replace(membership=EntryRef._make(fields[4]))
        self._state.inodes = self._place.inodes
        self._state.data_bytes = self._place.data_bytes
        self._layers.undo_all()
        self._tables.commit()

    def tell(self, known: KnownTable, has_private: Callable[[int], bool]) -> None:
        """From now on every change of names and attributes is told to `known`, in the turn in which
        it is made. has_private: whether a directory has names of which the replica does not know.
        Called once, before anybody asks."""

        def new_directory(ino: int) -> None:
            # Own ops that are applied again bring directories back: private files may be in them,
            # and names that other ops, which still wait, bring back next.
            if not self._pending.waiting and not has_private(ino):
                known.directory_is_new(ino)

        with self._turn:
            self._known = known
            self._tables.inode.on_put = known.changed
            self._tables.dentry.on_put = known.name_changed
            self._tables.directory.on_put = known.changed
            self._tables.dentry.on_new_directory = new_directory
            self._pending.overlay.on_change = known.changed
            self._pending.overlay.on_touch = known.directory_touched

    # Own pending ops

    def apply_pending(
        self, position: int, op: Op, author: Author, segments: Sequence[SegmentRow] = ()
    ) -> Effect:
        """Put an own op on top. `position` is its place in the journal, above all before.

        `segments` are those that it names and the log may not know yet. An op that the log was seen
        to hold already has no further effect and is not pending.
        """
        with self._turn:
            if self._met and op_id_of(op) in self._met:
                return NOTHING
            try:
                effect = self._layers.apply(position, op, author, tuple(segments))
                self._tables.flush_if_many()
            except LocalError as error:
                self._break(str(error))
                raise
        self._commit_if_many()
        return effect

    def drop_pending(self, positions: Iterable[int]) -> None:
        """Take pending ops out that will never be committed. Those behind them stay."""
        for position in positions:
            with self._turn, self._writing():
                if self._pending.holds(position):
                    self._layers.drop(position)
                    self._tables.flush_if_many()

    def replace_pending(self, position: int, op: Op, segments: Sequence[SegmentRow]) -> None:
        """A pending op, and those that build on it, are applied again: it names other segments."""
        with self._turn, self._writing():
            if self._pending.holds(position):
                self._layers.replace(position, op, tuple(segments))
                self._tables.flush_if_many()

    def is_pending(self, op_id: int) -> bool:
        """Whether the own op of this id waits for its entry."""
        with self._turn:
            return self._pending.position_of(op_id) is not None

    def pending_count(self) -> int:
        return len(self._pending)

    def set_own_session(self, session: int) -> None:
        """Which session's ops are our own, kept over restarts. Those that come from the log unasked
        are remembered, so that the journal's copy of one is not applied again."""
        with self._turn, self._writing():
            self._own_session = session
            self._tables.place.put(_OWN, PlaceRow(_OWN, b"%d" % session))

    # The log

    def place(self) -> Place:
        return self._place

    def head(self) -> EntryRef:
        """The newest entry that is folded whole."""
        return EntryRef(self._place.sequence, self._place.hash)

    def entry_hash(self, sequence: int) -> bytes | None:
        """The hash of an entry that was folded; None if it is not known any more, or not yet."""
        with self._turn:
            rows = self._tables.query("SELECT hash FROM entry WHERE sequence = ?", (sequence,))
            return bytes(rows[0][0]) if rows else None

    def settled_through(self, notes: Iterable[tuple[int, bytes, int]]) -> int:
        """The last journal position that the folded log settles, -1 for none.

        `notes` are the journal's: (sequence, entry hash, last position that it settles). What the
        journal holds up to there must not be applied again.
        """
        return max(
            (position for number, digest, position in notes if self.entry_hash(number) == digest),
            default=-1,
        )

    def commit_entry(
        self, sequence: int, digest: bytes, body: EntryBody, settles: int | None = None
    ) -> Committed:
        """Fold the entry after the head, in slices; it was found valid at this head.

        `settles`: the last pending position that this entry, an own one, is to settle; what is
        pending up to there and not in it is dropped. Raises HistoryFork if a part of another entry
        of this number was folded before a crash.
        """
        self._expect(sequence, digest)
        author = self._author(body)
        settled, start = 0, self._place.ops
        if start == 0:
            self._add_segments(body.segments)
        while start < len(body.ops):
            with self._turn, self._writing():
                done = self._slice(sequence, digest, body.ops, start, author)
            start, settled = start + done[0], settled + done[1]
            self._turn.rest()
            # In a turn of its own: it may take as long as the slice did.
            self._commit_if_many()
        dropped = [] if settles is None else self._drop_through(settles)
        with self._turn, self._writing():
            if settled:
                self._met.clear()  # The journal was replayed long ago.
            if self._is_own(body.session):
                self._remember(body.ops, dropped)
            self._finish(sequence, digest, body)
            if settled:
                # Before the journal forgets them: a restart without the store must show them.
                self._commit()
        return Committed(settled, len(dropped))

    def commit_void(self, sequence: int, digest: bytes, reason: str) -> None:
        """The entry after the head is void: it has its number and hash, and changes nothing."""
        self._expect(sequence, digest)
        with self._turn, self._writing():
            self._advance(sequence, digest, reason)

    def note(self, name: str, value: bytes | None) -> None:
        """Keep a named value beside the state: of this device, not of the filespace."""
        with self._turn, self._writing():
            self._tables.place.put(name, None if value is None else PlaceRow(name, value))

    def noted(self, name: str) -> bytes | None:
        with self._turn:
            row = self._tables.place.get(name)
            return None if row is None else row.value

    # Housekeeping

    def commit_if_due(self) -> bool:
        """End the transaction if it is old or large enough. The sync thread calls it."""
        if self._closed:
            return False
        with self._turn:
            tables = self._tables
            idle = not (tables.unwritten or tables.in_transaction)
            if self._broken or idle:
                return False
            few = tables.writes + tables.unwritten < self._commit_writes
            if few and self._clock.monotonic() < self._commit_at:
                return False
            with self._writing():
                self._commit()
            return True

    def commit_now(self) -> None:
        """End the transaction: what was folded so far need not be folded again after a crash."""
        with self._turn, self._writing():
            self._commit()

    def sync_wal(self) -> None:
        """Returns when all transactions that have ended survive loss of power: SQLite itself syncs
        its log only before it moves it. No lock of ours is held while the disk works.

        Raises StateDamaged where the disk fails; nothing is answered from then on.
        """
        try:
            log = os.open(f"{self._path}-wal", os.O_RDWR)
            try:
                os.fsync(log)
            finally:
                os.close(log)
        except OSError as error:
            with self._turn:
                self._break(str(error))
            raise StateDamaged(self._broken) from error

    def checkpoint_wal(self) -> bool:
        """Move committed pages from the database's log into its file, on a connection of its own.

        It holds no lock of ours while it moves most of them, so it may take its time. SQLite begins
        its log anew only once all of it is moved: where a busy writer never lets that happen, the
        last pages are moved while it waits. True if everything was moved.
        """
        connection = schema.connect(self._path, self._key)
        try:
            pages, moved = _checkpoint(connection)
            if moved >= WAL_PAGES and not self._broken:
                with self._turn, self._writing():
                    self._commit()
                    pages, moved = _checkpoint(connection)
            return pages == moved
        finally:
            connection.close()

    def snapshot(self) -> Snapshot | None:
        """The committed state at the head, to be read at leisure on a connection of its own.

        None in the middle of an entry, and while more is pending than a snapshot may hold. The
        thread that folds calls it, between two entries.
        """
        with self._turn:
            if self._place.ops or len(self._pending) > SNAPSHOT_PENDING_MAX:
                return None
            with self._writing():
                self._commit()
            return Snapshot.open(self._path, self._key)

    def close(self) -> None:
        """Commit and close. Idempotent."""
        self._turn.acquire()
        try:
            if not self._closed:
                self._closed = True
                self._turn.end(Stopped("The filespace is closed."))
                self._close()
        finally:
            self._turn.release()

    def _close(self) -> None:
        try:
            if self._broken or self._tables.damage:
                self._tables.rollback()
            else:
                self._tables.commit()
        finally:
            self._tables.close()
            if self._tables.damage:
                schema.remove_database(self._path)

    # Inside

    def _expect(self, sequence: int, digest: bytes) -> None:
        place = self._place
        if sequence != place.sequence + 1:
            raise InternalError(f"Entry {sequence} does not follow entry {place.sequence}.")
        if place.ops and place.next != digest:
            raise HistoryFork(
                f"Entry {sequence} of the log is not the one that this device began to read: the"
                " store shows another history. Do not write; compare with another device."
            )

    def _author(self, body: EntryBody) -> Author:
        if isinstance(body.ops[0], Genesis):
            founder = body.ops[0].founder
            return Author(0, founder.member, founder.label, b"")
        with self._turn:
            member = self._state.member(body.member)
            session = self._state.session(body.session) if body.session else None
        return Author(
            body.session,
            body.member,
            member.label if member else b"",
            session.device_label if session else b"",
        )

    def _add_segments(self, segments: Sequence[SegmentRow]) -> None:
        for start in range(0, len(segments), SLICE_OPS):
            with self._turn, self._writing():
                self._layers.admit(segments[start : start + SLICE_OPS])
            self._turn.rest()

    def _slice(
        self, sequence: int, digest: bytes, ops: Sequence[Op], start: int, author: Author
    ) -> tuple[int, int]:
        """Fold ops from `start` on, for a slice's time; returns (how many, how many settled)."""
        clock, layers = self._clock.monotonic, self._layers
        until = clock() + (SLICE_S / 2 if self._turn.contended else SLICE_S)
        settled = 0
        own = self._is_own(author.session)
        last = min(len(ops), start + SLICE_OPS)
        for index in range(start, last):
            if layers.commit(ops[index], author, sequence << 14 | index):
                settled += 1
            elif own:
                self._met.add(op_id_of(ops[index]))
            if index % 16 == 15 and clock() >= until:
                last = index + 1
                break
        layers.redo()
        if own and last < len(ops):
            # If this process dies now, the rest of the entry may be out of reach at the next start:
            # the journal's copies of these ops must be known then without it.
            ids = [op_id_of(op) for op in ops[start:last]]
            row = PlaceRow(f"{_MET}{start:05d}", msgpack.packb(ids))
            self._tables.place.put(row.name, row)
            self._met_rows.append(row.name)
        self._put_place(self._place._replace(ops=last, next=digest))
        self._tables.flush()
        return last - start, settled

    def _is_own(self, session: int) -> bool:
        return session != 0 and session == self._own_session

    def _remember(self, ops: Sequence[Op], dropped: Sequence[int]) -> None:
        """Keep the ids that the two newest own entries settled.

        The journal learns after us that they are settled, and may forget it when the power goes,
        but no more than that: before each entry is put it is synced. What it brings again at the
        next start is known by these.
        """
        place = self._tables.place
        newest = place.get(_RECENT[0])
        if newest is not None:
            place.put(_RECENT[1], newest._replace(name=_RECENT[1]))
        ids = msgpack.packb([*(op_id_of(op) for op in ops), *dropped])
        place.put(_RECENT[0], PlaceRow(_RECENT[0], ids))

    def _drop_through(self, settles: int) -> list[int]:
        """Drop what is pending up to here; returns the ids."""
        with self._turn:
            late = [at for at in self._pending.positions() if at <= settles]
            ids = [self._pending.applied[at].op_id for at in late]
        self.drop_pending(late)
        return ids

    def _finish(self, sequence: int, digest: bytes, body: EntryBody) -> None:
        session = self._state.session(body.session) if body.session else None
        if session is not None:
            self._state.put_session(session._replace(last_sequence=sequence, last_hash=digest))
        for name in self._met_rows:
            self._tables.place.put(name, None)
        self._met_rows.clear()
        if isinstance(body.ops[0], Genesis):
            self._place = self._place._replace(membership=EntryRef(sequence, digest))
        self._advance(sequence, digest, None)

    def _advance(self, sequence: int, digest: bytes, void: str | None) -> None:
        self._tables.execute(
            "INSERT OR REPLACE INTO entry (sequence, hash, void) VALUES (?, ?, ?)",
            (sequence, digest, void),
        )
        if sequence % 4096 == 0:
            self._tables.execute(
                "DELETE FROM entry WHERE sequence < ? AND sequence % 4096 != 0 AND void IS NULL",
                (sequence - HASHES_KEPT,),
            )
        voids = self._place.voids + (void is not None)
        self._put_place(
            self._place._replace(sequence=sequence, hash=digest, ops=0, next=b"", voids=voids)
        )

    def _put_place(self, place: Place) -> None:
        """The place goes into the same transaction as the rows that it speaks of."""
        state = self._state
        self._place = place._replace(inodes=state.inodes, data_bytes=state.data_bytes)
        row = PlaceRow("place", msgpack.packb(self._place))
        self._tables.place.put("place", row)

    def _commit_if_many(self) -> None:
        if self._tables.writes < self._commit_writes:
            return
        with self._turn, self._writing():
            start = self._clock.monotonic()
            self._commit()
            took = self._clock.monotonic() - start
            contended = self._turn.take_contended()
            self._commit_writes = next_size(self._commit_writes, took, contended)
        self._turn.rest()

    def _commit(self) -> None:
        self._tables.commit()
        self._commit_at = self._clock.monotonic() + COMMIT_S

    def _writing(self) -> _Writing:
        if self._tables.damage:
            raise StateDamaged(self._tables.damage)
        return _Writing(self._break)

    def _break(self, reason: str) -> None:
        """Memory and tables have parted: nobody is told anything from here on, right or wrong. The
        next start takes up the last whole transaction."""
        self._broken = (
            f"The replica cannot be written: {reason} See that its disk has room and is well, then"
            " unmount and mount again."
        )
        self._turn.end(StateDamaged(self._broken))
        if self._known is not None:
            self._known.end()


class _Writing:
    """Around a change under the lock: an error in the middle of one breaks the replica."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        self._broken = broken

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if error is not None:
            self._broken(str(error))


def _checkpoint(connection: Any) -> tuple[int, int]:
    """(pages in SQLite's log, pages of them that are in the file now)."""
    _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return pages, moved


def next_size(size: int, took: float, contended: bool) -> int:
    """How many rows the next transaction gets, when one of `size` rows took so long to end."""
    fewest, most = COMMIT_WRITES
    if contended and took > COMMIT_HOLD_S:
        return max(fewest, int(size * COMMIT_HOLD_S / took))
    if not contended or took < COMMIT_HOLD_S / 2:
        return min(most, size * 2)
    return size
