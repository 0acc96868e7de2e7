"""Collecting: sets the floor, and deletes from the store what it has ended. `lucid gc` does it,
and an admin's drive does it by itself (`collecting_daily`).

It believes nothing local and keeps nothing: replicas of its own, in a directory that is removed
again, and where something is to be deleted a session of its own. The order of its steps is what
makes it safe (DESIGN.md, section 6): the floor is in the log, the state of an entry after it is
folded and compared with that of the checkpoint, and only then is anything deleted. It may be
stopped anywhere, run again, and run twice at once. What looks odd ends it before it deletes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

from lucid.config import RETENTION_S, check_retention
from lucid.errors import (
    BelowFloor,
    CorruptObject,
    HistoryFork,
    NotPermitted,
    ObjectExists,
    StateMismatch,
    StoreUnfit,
    UsageError,
)
from lucid.filespace.collection import Collection
from lucid.filespace.due_checkpoint import due_after, hash_of_newest, write_due
from lucid.filespace.floor_choice import choose_floor
from lucid.filespace.leftovers import (
    MARGIN_NS,
    Leftovers,
    Progress,
    is_never_cut,
    list_log,
)
from lucid.filespace.repacking import REPACK_BELOW, REPACK_MAX, Repacking
from lucid.filespace.visiting import Visit
from lucid.format.change import SegmentRow
from lucid.format.checkpoint import CHECKPOINT_EVERY, state_hash
from lucid.format.entry import EntryBody, EntryRef
from lucid.format.floor import FLOOR_SIZE, encode_floor
from lucid.format.hashes import ZERO_HASH, hash_bytes
from lucid.format.names import floor_key
from lucid.format.ops import ROLE_ADMIN, RULES, Drop, Floor, Move, Op, Repack, Rules, make_op_id
from lucid.meta.authoring import take_session
from lucid.meta.checkpoint_rows import chunks_of
from lucid.meta.fold_rules import VALUE_RULES
from lucid.meta.fold_segments import RULES_OF_SEGMENTS
from lucid.meta.log import LogReader, LogWriter, Lost, follow
from lucid.meta.replica import Replica
from lucid.meta.verify import Void
from lucid.store.base import ObjectStore
from lucid.sync.below_floor import Floors
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["Collector", "Drive", "collect"]

FLOOR_TRIES = 1000
"""Lost races before it gives up to set the floor: far beyond any real crowd."""


def collect(
    url: str,
    secret: str,
    *,
    delete: bool = False,
    retention_s: int = RETENTION_S,
    repack_below: float = REPACK_BELOW,
    repack_max: int = REPACK_MAX,
    report: Progress = lambda stage, done, total: None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
    every: int = CHECKPOINT_EVERY,
) -> Collection:
    """Find what can be freed, and with `delete` free it.

    Segments of whose blocks less than the part `repack_below` is alive are written anew then, with
    at most `repack_max` live bytes in all.

    Raises UsageError for a retention below two days or a part that is none, NotPermitted for who is
    no admin, StoreUnfit where the clocks differ, and what reading the log raises; then nothing was
    deleted, or what was is no loss.
    """
    check_retention(retention_s)
    if not 0 <= repack_below <= 1:
        raise UsageError("A part is a number from 0 to 1.")
    visit = Visit(
        url, secret, store=store, clock=clock or SystemClock(), entropy=entropy, every=every
    )
    with closing(visit):
        found = Collection(
            visit.unlocked.superblock.filespace.hex(), retention_s=retention_s, deleted=delete
        )
        found.warnings.extend(visit.store.lifecycle_warnings())
        collector = Collector(visit, found, report)
        collector.run()
        if repack_below and repack_max:
            collector.repack(repack_below, repack_max)
        return found


class Drive(Protocol):
    """A drive that is open, and collects by itself."""

    def check(self, found: Replica) -> None:
        """Raises HistoryFork unless the log that leads to `found` is the one that it has seen."""
        ...

    def set_floor(self, floor: int) -> None:
        """This floor is in force when it returns. Rules 3 or later are already."""
        ...


class Collector:
    """The steps, in their order. With a `drive` there is no session of the collector's own, and
    checkpoints that are due are left to drives."""

    def __init__(
        self,
        visit: Visit,
        found: Collection,
        report: Progress,
        drive: Drive | None = None,
    ) -> None:
        self._drive = drive
        self._visit = visit
        self._store = visit.store
        self._found = found
        self._report = report
        self._session = 0
        self._counter = 0
        self._base = 0
        """The checkpoint that the state was folded from; 0 for entry 1."""
        self._is_whole = True
        self._so_far = "Nothing was deleted."

    def run(self) -> None:
        found = self._found
        self._entries = list_log(self._store, report=self._report)
        self._replica, self._reader = self._fold()
        found.name = (self._replica.value("name") or b"").decode(errors="replace")
        found.head = self._replica.head().sequence
        found.floor_before = self._replica.floor()
        self._check_holes()
        floor = choose_floor(self._visit, self._replica, self._entries, found)
        found.floor = max(floor, found.floor_before)
        self._before_ns = self._older_than(found.floor)
        if found.deleted:
            self._set_floor(floor)
            if found.floor:
                self._read_back()
        else:
            newest = self._visit.checkpoints().newest() or 0
            found.checkpoint = max(newest, due_after(self._visit, found.head) if floor else 0)
            self._suppose(floor)
        if self._drive is None:
            self._sum_up()
        leftovers = self._leftovers()
        if found.deleted:
            leftovers.delete()
            self._so_far = "What could be freed before that is freed."

    def repack(self, below: float, most: int) -> None:
        """Write anew what is alive of segments that are mostly dead, or say how many they are."""
        found = self._found
        if self._rules() < RULES_OF_SEGMENTS:
            return
        repacking = Repacking(self._visit, self._replica, found, self._report, self._commit_moves)
        sparse = repacking.find(found.floor, below, most)
        if not sparse:
            return
        if found.deleted:
            self._open_session()
            repacking.run(sparse)
            # The floor that ends the old segments lies above the repack: so there must be an entry.
            self._commit_nothing(None)
        else:
            for one in sparse:
                found.repacked.add(one.dead)

    # -- reading

    def _fold(self) -> tuple[Replica, LogReader]:
        """The state at the end of the log, made without the newest checkpoint, if that is possible:
        it is to be compared with it."""
        visit = self._visit
        newest = visit.checkpoints().newest() or 0
        self._is_whole = is_never_cut(self._entries, newest)
        started, refused = None, list[str]()
        if newest:
            started, refused = visit.begin("state", below=newest)
        if started is None and not self._is_whole:
            started, again = visit.begin("state")
            if started is None:
                why = " ".join((*refused, *again)) or "There is none."
                raise CorruptObject(
                    "Entries of the log are gone from the store, and no checkpoint can be used in"
                    f" their stead. {why} Nothing was deleted. See: lucid fsck"
                )
        self._base = 0 if started is None else started.known.sequence
        replica = visit.replica("state")
        reader = visit.reader(replica)
        self._follow(replica, reader)
        if not replica.head().sequence:
            raise CorruptObject("The log has no entry 1. Nothing was deleted.")
        if self._drive is not None:
            self._drive.check(replica)
        return replica, reader

    def _follow(self, replica: Replica, reader: LogReader, limit: int | None = None) -> None:
        """Fold what comes after the head. Raises HistoryFork where two histories exist."""
        report, total = self._report, self._entries[-1].sequence if self._entries else 0

        def heard(_entry: object) -> None:
            report("log", replica.head().sequence, max(total, replica.head().sequence))
            replica.take_events()

        follow(reader, replica, limit, on_void=heard, on_entry=heard)
        if reader.fork:
            raise HistoryFork(f"{reader.fork} {self._so_far} See: lucid fsck")

    def _check_holes(self) -> None:
        """Every entry from the floor to the end must be there, and none behind a hole, else
        something else deletes here. Junk behind the end is no entry: nobody signed it."""
        first, head = max(1, self._found.floor_before), self._found.head
        self._entries = [entry for entry in self._entries if entry.sequence <= head]
        there = {entry.sequence for entry in self._entries}
        last = max(there, default=0)  # Others may have written since the list was made.
        hole = next((number for number in range(first, last) if number not in there), 0)
        try:
            self._reader.history.check_gaps()
        except HistoryFork as error:
            raise HistoryFork(f"{error} Nothing was deleted.") from None
        if hole:
            raise HistoryFork(
                f"Entry {hole} of the log is gone: somebody took it out of the store. Nothing was"
                " deleted. See: lucid fsck"
            )

    # -- the floor

    def _older_than(self, floor: int) -> int:
        """Segments that were stored before this moment are old, ns by the store; 0: none are.

        What was put behind the floor is younger than it, also where a clock that was wrong says
        otherwise: such a clock may have dated uploads too.
        """
        if not floor:
            return 0
        entry = next((one for one in self._entries if one.sequence == floor), None)
        if entry is None:
            raise CorruptObject(
                f"The floor is at entry {floor} of the log, and that entry is gone. Nothing was"
                " deleted. See: lucid fsck"
            )
        behind = (one.modified_ns for one in self._entries if one.sequence > floor)
        return min(entry.modified_ns, min(behind, default=entry.modified_ns)) - MARGIN_NS

    def _suppose(self, floor: int) -> None:
        """Fold in this replica only what would be committed."""
        replica = self._replica
        session = replica.next_session()
        ops: list[Op] = []
        if floor:
            ops = [Floor(make_op_id(session, 2), 0, floor)]
            if self._rules() < RULES:
                ops.insert(0, Rules(make_op_id(session, 1), 0, RULES))
        for op in ops:
            head = replica.head()
            body = EntryBody(
                self._visit.unlocked.keys.member, 0, head.hash, ZERO_HASH, replica.membership(),
                None, (), (op,),
            )  # fmt: skip
            replica.commit_entry(head.sequence + 1, hash_bytes(head.hash), body)

    def _set_floor(self, floor: int) -> None:
        """The floor is in the log, and its object in the store, when this returns."""
        if floor and self._drive is not None:
            self._drive.set_floor(floor)
            self._follow(self._replica, self._reader)
            self._check_in_force(floor)
        elif floor:
            self._commit_floor(floor)
        in_force = self._found.floor
        if in_force:
            key, data = floor_key(in_force), encode_floor(in_force)
            try:
                self._store.put_if_absent(key, data)
            except ObjectExists:
                if self._store.get(key, 0, FLOOR_SIZE + 1) != data:
                    raise CorruptObject(
                        f"{key} holds something else than a floor. Nothing was deleted."
                    ) from None

    def _open_session(self) -> None:
        """There is a session of its own from here on, an admin's."""
        if self._session:
            return
        visit, replica = self._visit, self._replica
        keys = visit.unlocked.keys
        member = replica.member(keys.member)
        if member is None or member.role != ROLE_ADMIN:
            raise NotPermitted("Only an admin of the filespace can set its floor.")
        self._writer = LogWriter(self._store, visit.ring, keys, replica, visit.entropy)
        label = socket.gethostname().encode()[:64]
        self._session = take_session(
            self._reader, self._writer, replica, keys.member, label, visit.clock, visit.entropy
        ).number

    def _commit_floor(self, floor: int) -> None:
        replica = self._replica
        self._open_session()
        said = write_due(self._visit, replica.head().sequence, self._session, self._report)
        if self._rules() < RULES:
            self._commit(Rules(*self._next(), RULES))
        self._commit(Floor(*self._next(), floor), said)
        self._check_in_force(floor)

    def _check_in_force(self, floor: int) -> None:
        if self._replica.floor() < floor or self._rules() < RULES_OF_SEGMENTS:
            raise CorruptObject("The floor did not come into force. Nothing was deleted.")

    def _next(self) -> tuple[int, int]:
        """(id, time) of the next own op."""
        self._counter += 1
        return make_op_id(self._session, self._counter), self._visit.clock.time_ns()

    def _commit_moves(self, moves: Sequence[Move], rows: Sequence[SegmentRow]) -> bool:
        """A repack is in the log when this returns True. False: nothing of it stands any more."""
        ids, replica = self._next(), self._replica

        def standing() -> tuple[Op, Sequence[SegmentRow]] | None:
            left = tuple(move for move in moves if replica.segment(move.source) is not None)
            named = {move.segment for move in left}
            if not left or replica.below_floor(rows):
                return None
            return Repack(*ids, left), [row for row in rows if row.id in named]

        if self._commit_as(standing, None):
            return True
        self._found.notes.append(
            "Another collection has been faster, so segments that are mostly dead stay for now."
        )
        return False

    def _commit(self, op: Op, said: EntryRef | None = None) -> None:
        """An entry of its own with this op is in the log, and folded, when this returns."""
        self._commit_as(lambda: (op, ()), said)

    def _commit_as(
        self, make: Callable[[], tuple[Op, Sequence[SegmentRow]] | None], said: EntryRef | None
    ) -> bool:
        """The same with what `make` makes upon the head as it is then; False when that is None."""
        for _ in range(FLOOR_TRIES):
            made = make()
            if made is None:
                return False
            prepared = self._writer.build(self._session, made[:1], made[1], said)
            result = self._writer.put(prepared)
            if isinstance(result, Lost):
                self._follow(self._replica, self._reader)
                continue
            self._check_overtaken()
            found = self._reader.judge(prepared.sequence, prepared.data)
            if isinstance(found, Void):
                raise CorruptObject(
                    f"The own entry is void: {found.reason} {self._so_far} See: lucid fsck"
                )
            self._replica.commit_entry(found.sequence, found.hash, found.body)
            return True
        raise StoreUnfit(f"Other devices were faster each time. {self._so_far} Try again.")

    def _check_overtaken(self) -> None:
        """A number was won: not one that another collector has deleted while this one slept, or its
        state would be an old one, and what came since would count as named by nothing."""
        if Floors(self._store, self._visit.clock).above(self._replica.head().sequence) is not None:
            raise BelowFloor(
                "Another collection has overtaken this one, which was stopped for long."
                f" {self._so_far} Run it again."
            )

    def _rules(self) -> int:
        return int(self._replica.value(VALUE_RULES) or b"1")

    # -- checkpoints

    def _read_back(self) -> None:
        """A checkpoint that leads to the same state lets the log be cut. Raises StateMismatch."""
        visit, found = self._visit, self._found
        started, refused = visit.begin("back")
        is_short = started is None or started.known.sequence < found.floor
        if refused and is_short and self._vouch():
            started, refused = visit.begin("back")
        found.notes.extend(refused)
        if started is None:
            found.notes.append("No checkpoint is to be believed yet, so the log is not cut.")
            self._follow(self._replica, self._reader)
            return
        back = visit.replica("back")
        self._follow(self._replica, self._reader)
        self._compare(started.known.sequence, back, self._replica, self._reader)
        if started.known.sequence == self._base:
            self._compare_with_older(back)
        found.checkpoint = started.known.sequence

    def _compare_with_older(self, back: Replica) -> None:
        """Both were folded from one checkpoint, since newer ones are not to be believed. Before it
        there may be another; if not, the log was cut here, which was compared then: that it was cut
        here and that the older ones are gone otherwise cannot be told apart after a cut that was
        stopped."""
        visit = self._visit
        started, _ = visit.begin("older", below=self._base)
        if started is not None or self._is_whole:
            older = visit.replica("older")
            self._compare(self._base, back, older, visit.reader(older))

    def _compare(self, base: int, back: Replica, other: Replica, reader: LogReader) -> None:
        """`back`, folded from checkpoint `base`, against another way to the same entry."""
        visit = self._visit
        ours, theirs = other.head().sequence, back.head().sequence
        self._follow(back, visit.reader(back), max(0, ours - theirs))
        self._follow(other, reader, max(0, theirs - ours))
        if _hash_of(other, visit.rest) != _hash_of(back, visit.rest):
            raise StateMismatch(
                f"Checkpoint {base} leads to another state than the log does."
                " Nothing was deleted. See: lucid fsck"
            )

    def _vouch(self) -> bool:
        """Say the state hash of the newest checkpoint, which nobody may have said yet."""
        if not self._session:
            return False
        said = hash_of_newest(self._visit, self._replica.head().sequence)
        if said is None:
            return False
        self._commit_nothing(said)
        return True

    def _commit_nothing(self, said: EntryRef | None) -> None:
        """An entry with an op that does nothing: what nobody staged goes."""
        op_id, now = self._next()
        self._commit(Drop(op_id, now, op_id), said)

    # -- what goes

    def _sum_up(self) -> None:
        found, usage = self._found, self._replica.usage()
        found.current_bytes = usage.current
        found.retained_bytes = usage.kept - usage.current

    def _leftovers(self) -> Leftovers:
        found, replica = self._found, self._replica
        leftovers = Leftovers(self._store, found, self._report)
        named = {row.id for row in replica.segments()}
        leftovers.find_segments(named, self._before_ns)
        cut = min(found.floor, found.checkpoint)
        if cut:
            leftovers.find_entries(self._entries, cut, {1, replica.membership().sequence})
            leftovers.find_checkpoints(self._visit.checkpoints(), cut)
            found.first_entry = cut
        elif not self._is_whole:
            found.first_entry = next(one.sequence for one in self._entries if one.sequence > 1)
        if found.floor and not found.checkpoint:
            found.notes.append(
                f"The log is short: it has a checkpoint at each {self._visit.every:,}th entry, and"
                " is cut only where it can be begun from one."
            )
        if found.young_segments.count:
            found.notes.append(
                "Segments that nothing names and that are younger than the floor may be uploads"
                " that a device is still to commit. They are kept until a later floor."
            )
        return leftovers


def _hash_of(replica: Replica, rest: Callable[[], None]) -> EntryRef:
    """The state hash of a replica, and at which entry."""
    snapshot = replica.snapshot()
    if snapshot is None:
        raise StateMismatch("A state cannot be read in the middle of an entry.")
    with closing(snapshot):
        digest = state_hash(chunk.hash for chunk in chunks_of(snapshot.batches(), rest))
        return EntryRef(snapshot.head.sequence, digest)
