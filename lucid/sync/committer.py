"""The thread lucid-sync: follows the log, folds what others wrote, and commits own ops.

It is the only thread that moves the head. One entry carries all that is ready; while it is under
way the next batch grows. Correctness hangs on nothing here but two rules: the hash of an entry is
in the journal, durable, before the entry is put; and after a doubtful answer the same bytes are
put again until the store says whose they are.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Sequence

from lucid.data.segments import StagedSegments
from lucid.errors import (
    BelowFloor,
    HistoryFork,
    LucidError,
    StateForeign,
    StateMismatch,
    Stopped,
    StoreConflict,
    UnknownKey,
    UnsupportedFormat,
)
from lucid.format.change import SegmentRow
from lucid.format.entry import EntryBody, EntryRef
from lucid.format.journal import Note
from lucid.format.ops import Drop, Floor, Op, counter_of, segments_of
from lucid.local.book import JournalBook, Live
from lucid.meta.log import LogReader, LogWriter, Lost, Prepared, fit
from lucid.meta.replica import Replica
from lucid.meta.replica_events import Changed
from lucid.meta.verify import Accepted, Void
from lucid.sync.alone import Alone
from lucid.sync.below_floor import Floors
from lucid.sync.checkpointer import Checkpointer
from lucid.sync.log_ahead import LogAhead
from lucid.sync.order import Order, Placed
from lucid.sync.turns import Turns
from lucid.types import Clock

__all__ = ["Committer", "Session"]

log = logging.getLogger(__name__)

OPS_MAX = 10_000
BYTES_MAX = 3 * 1024 * 1024
ACTIVE_S = 30.0
"""Others count as active this long after an entry of theirs."""
FINISH_AFTER_S = 0.3
"""A pack grows while uploads are under way, but no longer than this."""
PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 15.0
ANSWER_S = 0.01
"""How long the next look at the log waits for an op of a lease that is about to be asked for."""
COMPARE_S = 60.0
"""How often it is made sure that the store still shows what this device has seen."""


class Session:
    """The own session: its number, and where its counters began in this process."""

    def __init__(self, number: int, counters_from: int) -> None:
        self.number = number
        self.counters_from = counters_from


class Committer:
    """See the module. Public fields are read by others for status; only this thread writes them."""

    def __init__(
        self,
        *,
        order: Order,
        staged: StagedSegments,
        is_upload_free: Callable[[], bool],
        replica: Replica,
        reader: LogReader,
        writer: LogWriter | None,
        book: JournalBook,
        session: Session | None,
        notes: dict[int, list[bytes]],
        checkpoints: Checkpointer,
        floors: Floors,
        next_op_id: Callable[[], int],
        adopt: Callable[[bytes, int], None],
        changed: Callable[[Changed], None],
        renew: Callable[[int], None],
        clock: Clock,
        poll_fast_s: float,
        poll_idle_s: float,
        poll_told_s: float,
        pause: random.Random,
        online: bool,
    ) -> None:
        """online: opening has just read the log, and compared this device's head with it."""
        self._order = order
        self._staged = staged
        self._is_upload_free = is_upload_free
        self._replica = replica
        self._reader = reader
        self._writer = writer
        self._book = book
        self._session = session
        self._notes, self._noted = notes, dict[int, list[Live]]()
        self._checkpoints = checkpoints
        self._floors = floors
        self._next_op_id = next_op_id
        self._adopt = adopt
        self._changed = changed
        self._renew = renew
        self._clock = clock
        self._poll_fast_s = poll_fast_s
        self._poll_idle_s = poll_idle_s
        self._poll_told_s = poll_told_s
        self._pause = pause
        self._stop = threading.Event()
        self._poll_at = 0.0
        self._pokes = 0
        self._turns = Turns(clock, pause)
        self._ahead = LogAhead(reader.fetch)
        reader.ahead = self._ahead.fetch
        self._gather_until = 0.0
        self._foreign_at = float("-inf")
        self._polls = 0
        self._polled = threading.Condition()
        self.online = online
        self.problem = ""
        self.compared = False
        """Whether the store has shown, after opening, the head that this device had seen before."""
        self._to_compare = not online
        self._compare_at = clock.monotonic() + COMPARE_S
        self.commits = self.losses = 0
        self.sent_at = float("-inf")
        """By the clock's boottime, when the newest own entry that is in the log was about to be
        sent."""
        self.alone = Alone(order, clock)
        self._listen_to_nobody()
        self._thread = threading.Thread(target=self._run, name="lucid-sync", daemon=True)

    def _listen_to_nobody(self) -> None:
        """Until somebody puts others in their places, before `start`."""
        self.won: Callable[[int, bytes], None] = lambda sequence, digest: None
        """Told of each own entry as soon as it is in the log; must not wait."""
        self.folded: Callable[[int, EntryBody, bool], None] = lambda sequence, body, own: None
        """Told of each valid entry when it is folded; must not wait."""
        self.is_asked: Callable[[], bool] = lambda: False
        """Whether what was folded just now is about to be answered by an op of a lease."""
        self.hurry_s: Callable[[], float | None] = lambda: None
        """How long the log may go unread at most, while somebody waits for others."""
        self.is_told: Callable[[], bool] = lambda: False
        """Whether a hub tells of what others commit: then idle polling is slower."""

    def start(self) -> None:
        self._thread.start()

    # -- asked by others

    def poke(self) -> None:
        """Look at the log, and at what is ready, now."""
        self._pokes += 1
        self._poll_at = 0.0
        self._order.wake()

    def wait_polled(self, timeout: float) -> bool:
        """Wait until the log has been read to its end once more from now. False: not in time."""
        with self._polled:
            # A read that is under way may have begun before the call: wait for the one after it.
            target = self._polls + 2
            self.poke()
            deadline = self._clock.monotonic() + timeout
            while self._polls < target:
                left = deadline - self._clock.monotonic()
                if left <= 0 or self._stop.is_set():
                    return False
                self._polled.wait(min(left, 0.5))
                self.poke()
            return True

    def close(self) -> None:
        self._stop.set()
        self._order.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._ahead.close()

    # -- the loop

    def _run(self) -> None:
        pause = PAUSE_FIRST_S
        while not self._stop.is_set():
            try:
                self._step()
                pause = PAUSE_FIRST_S
            except Stopped:
                return
            except (
                HistoryFork, StateMismatch, UnsupportedFormat, UnknownKey, StateForeign,
            ) as error:  # fmt: skip
                self.problem = str(error)
                if self._writer is not None:
                    log.error("Writing stops: %s", error)
                    self._order.stop(error)
                self._stop.wait(PAUSE_MAX_S)
            except LucidError as error:
                self.problem = str(error)
                self.online = False
                self._stop.wait(pause * self._pause.uniform(0.5, 1.0))
                pause = min(pause * 2, PAUSE_MAX_S)
            except Exception as error:
                log.exception("The sync thread failed; this is a bug in lucid")
                self.problem = f"The sync thread failed: {error}. Unmount, and mount again."
                self._order.stop(Stopped(self.problem))
                return

    def _step(self) -> None:
        if self._clock.monotonic() >= self._poll_at:
            self.catch_up()
        alone = self.alone.next()
        said = None if self._writer is None else self._checkpoints.to_say_now()
        if said is not None:
            self._say(said)
            return
        batch = self._ready()
        if alone and self._writer is not None:
            self._commit_alone(alone)
        elif batch:
            self._commit(batch)
        else:
            self._wait()

    def _wait(self) -> None:
        now = self._clock.monotonic()
        until = self._poll_at
        hold = self._order.hold_ends()
        if hold is not None:
            until = min(until, hold)
        if self._order.pending:
            until = min(until, max(self._gather_until, self._turns.after, now + 0.002), now + 0.05)
        with self._order.news:
            until = min(until, self._poll_at)  # somebody may have asked for a look meanwhile
            if self._writer is not None and self.alone.next():
                return  # or for an op
            if until > now and not self._stop.is_set():
                self._order.news.wait(until - now)

    # -- reading

    def catch_up(self) -> int:
        """Fold everything after the head, or up to where somebody waits for an op of a lease;
        returns the number of entries."""
        folded, pokes = 0, self._pokes
        head = self._replica.head().sequence
        seen = head > 0
        # First of all: what a collector has taken is no history that was changed.
        self._floors.check(head)
        if self._to_compare:
            self._reader.history.check_head()
        elif self._clock.monotonic() >= self._compare_at:
            self._reader.history.check_mark()
            self._compare_at = self._clock.monotonic() + COMPARE_S
        while not self._stop.is_set():
            began = self._floors.now()
            found = self._reader.next()
            if found is None:
                self._floors.at_end(self._replica.head().sequence, began)
                break
            self._fold(found)
            folded += 1
            if not self._to_compare and self._is_awaited():
                # Another machine waits for an answer: it need not wait for a look at what is most
                # likely not there. If something is, the answer comes after it.
                self._heard_others()
                self._poll_at = self._clock.monotonic() + ANSWER_S
                return folded
        if self._to_compare:
            self._reader.history.check_gaps()
            self.compared, self._to_compare = seen, False
        self.online = True
        if self.problem and not self._reader.fork:
            self.problem = ""
        if folded:
            self._heard_others()
        active = self._clock.monotonic() - self._foreign_at < ACTIVE_S
        interval = self._poll_fast_s if active else self._poll_idle_s
        if self.is_told():
            interval = self._poll_told_s
        hurry_s = self.hurry_s()
        if hurry_s is not None:
            interval = min(interval, hurry_s)
        if pokes == self._pokes:  # else somebody asked while the last look was under way
            self._poll_at = self._clock.monotonic() + interval * self._pause.uniform(0.9, 1.1)
        with self._polled:
            self._polls += 1
            self._polled.notify_all()
        return folded

    def _heard_others(self) -> None:
        """Entries of others were folded."""
        self._foreign_at = self._clock.monotonic()
        # Own ops are laid upon them from now on: without the store a restart needs both.
        self._replica.commit_now()

    def _lost(self, result: Lost) -> None:
        """Another entry has won the number."""
        self.losses += 1
        self._fold(self._reader.judge(result.sequence, result.data))
        self._heard_others()
        self._poll_at = self._clock.monotonic() + ANSWER_S if self._is_awaited() else 0.0

    def _is_awaited(self) -> bool:
        return self._writer is not None and (self.is_asked() or bool(self.alone.next()))

    def _fold(self, found: Accepted | Void) -> None:
        if isinstance(found, Void):
            self._replica.commit_void(found.sequence, found.hash, found.reason)
            log.warning("Entry %d of the log is void: %s", found.sequence, found.reason)
            self._checkpoints.folded(found.sequence, None, own=False)
            if found.fork:
                raise HistoryFork(self._reader.fork)
            if self._session is not None and found.session == self._session.number:
                raise StateForeign(
                    f"Entry {found.sequence} of the log bears this device's number and is void "
                    f"({found.reason}): nothing more is written. Unmount, and mount with a new "
                    "--state-dir."
                )
            return
        body = found.body
        own = self._session is not None and body.session == self._session.number
        if not own:
            self._turns.heard(body.session)
        positions = self._positions(body) if own else []
        if own and not positions:
            self._check_own(found)
        if positions:
            # What is settled is forgotten: only by an entry that everyone will see.
            self._floors.sure(found.sequence - 1)
        self._renew_below(found.sequence, body)
        self._replica.commit_entry(
            found.sequence, found.hash, body, settles=max(positions) if positions else None
        )
        if positions:
            self._settled(max(positions), body)
        self._decided(found.sequence)
        self._checkpoints.folded(found.sequence, body, own=own)
        self._changed(self._replica.take_events())
        self.folded(found.sequence, body, own)

    def _renew_below(self, sequence: int, body: EntryBody) -> None:
        """A floor is about to be folded: what waits and was sealed below it is sealed again first,
        for without that it would do nothing from then on."""
        for op in body.ops:
            if isinstance(op, Floor) and op.sequence <= sequence and self._writer is not None:
                self._renew(op.sequence)

    def _positions(self, body: EntryBody) -> list[int]:
        pending = self._order.op_ids()
        ids = (getattr(op, "op_id", 0) for op in body.ops)
        return [pending[op_id] for op_id in ids if op_id in pending]

    def _check_own(self, found: Accepted) -> None:
        """An entry of our session that we did not write: this directory was copied or restored."""
        assert self._session is not None
        if found.hash in self._notes.get(found.sequence, ()):
            return
        newest = max(counter_of(getattr(op, "op_id", 0)) for op in found.body.ops)
        if newest >= self._session.counters_from:
            raise StateForeign(
                f"Entry {found.sequence} of the log bears this device's number, and this device "
                "did not write it: its state directory was copied, or restored from a backup. "
                "Unmount, and mount with a new --state-dir."
            )

    # -- writing

    def _ready(self) -> list[Placed]:
        if self._writer is None or self._clock.monotonic() < self._turns.after:
            return []
        self._gather_until = self._order.gathers_until()
        if self._clock.monotonic() < self._gather_until:
            return []
        # One more than an entry takes: ops that are held together go in two only if it is ready.
        needed = self._order.waiting_segments(OPS_MAX + 1)
        if needed and (self._is_upload_free() or self._order.oldest_age() > FINISH_AFTER_S):
            self._staged.finish_for(needed)
        return self._order.take(OPS_MAX, BYTES_MAX)

    def _commit(self, batch: Sequence[Placed]) -> None:
        assert self._writer is not None and self._session is not None
        self._check_named(batch)
        batch = batch[: fit([placed.op for placed in batch])]
        behind = self.alone.behind(batch[-1].position)
        ops = [*(placed.op for placed in batch), *behind]
        if fit(ops) < len(ops):
            ops, behind = ops[: len(batch)], ()
        rows = self._rows(batch)
        began = self._clock.monotonic()
        said = self._checkpoints.to_say()
        prepared = self._writer.build(self._session.number, ops, rows, said)
        position = batch[-1].position
        self._note(prepared, position)
        result = self._put_ours(prepared)
        if isinstance(result, Lost):
            self._lost(result)
            return
        self._replica.commit_entry(
            prepared.sequence, prepared.hash, prepared.body, settles=position
        )
        self.alone.done(behind)
        self._settled(position, prepared.body)
        self._decided(prepared.sequence)
        self._checkpoints.folded(prepared.sequence, prepared.body, own=True)
        self._changed(self._replica.take_events())
        self.folded(prepared.sequence, prepared.body, True)
        self._won(began)

    def _won(self, began: float) -> None:
        """After a win others get their turn: create-if-absent favours who is near."""
        now = self._clock.monotonic()
        self.commits += 1
        self.online, self.problem = True, ""
        self._reader.saw(self._clock.time_ns())
        self._turns.won(began, now - self._foreign_at < ACTIVE_S)

    def _commit_alone(self, ops: Sequence[Op]) -> None:
        """An entry with these ops and nothing else. It settles nothing that is pending."""
        if self._put_alone(ops, self._checkpoints.to_say()):
            self.alone.done(ops)

    def _say(self, ref: EntryRef) -> None:
        """An entry that says a state hash, by an op that does nothing: what nobody staged goes."""
        op_id = self._next_op_id()
        self._put_alone((Drop(op_id, self._clock.time_ns(), op_id),), ref)

    def _put_alone(self, ops: Sequence[Op], said: EntryRef | None) -> bool:
        """Commit ops that were never pending. False: another entry came first."""
        assert self._writer is not None and self._session is not None
        prepared = self._writer.build(self._session.number, ops, (), said)
        self._note(prepared, 0)
        result = self._put_ours(prepared)
        if isinstance(result, Lost):
            self._lost(result)
            return False
        self._renew_below(prepared.sequence, prepared.body)
        self._replica.commit_entry(prepared.sequence, prepared.hash, prepared.body)
        self._replica.commit_now()
        self._decided(prepared.sequence)
        self._checkpoints.folded(prepared.sequence, prepared.body, own=True)
        self._changed(self._replica.take_events())
        self.folded(prepared.sequence, prepared.body, True)
        return True

    def _rows(self, batch: Sequence[Placed]) -> list[SegmentRow]:
        return self._staged.rows(_named(batch))

    def _check_named(self, batch: Sequence[Placed]) -> None:
        """No op may name what was sealed below a floor and is not in the state: a collector may
        have taken it. Raises BelowFloor."""
        if not self._replica.floor():
            return
        names = _named(batch)
        gone = [name for name in names if not self._is_known(name)]
        if gone or self._replica.below_floor(self._staged.rows(names)):
            raise BelowFloor(
                "Changes that wait here for the store are older than what the store keeps. Nothing"
                " is written from here on. Unmount, and mount again: they are then made ready anew"
                " and sent, and nothing is lost."
            )

    def _is_known(self, segment: bytes) -> bool:
        staged = self._staged.state(segment) is not None
        return staged or self._replica.segment(segment) is not None

    def _note(self, prepared: Prepared, position: int) -> None:
        """Durable, before the entry is put: this is an own one, and settles up to `position`."""
        self._notes.setdefault(prepared.sequence, []).append(prepared.hash)
        note = Note(prepared.sequence, prepared.hash, position)
        # The journal keeps it until the number is decided: the answer may be days away.
        self._noted.setdefault(prepared.sequence, []).append(self._book.append(note, removal=True))
        self._book.sync()

    def _decided(self, sequence: int) -> None:
        """Whose entry has this number is known, and folded."""
        self._notes.pop(sequence, None)
        self._book.release(self._noted.pop(sequence, ()))

    def _put_ours(self, prepared: Prepared) -> object:
        """Put an entry, and make sure that a number that was won is not one that was deleted.

        Raises BelowFloor: the entry is void, and nothing of it is settled.
        """
        began, sent_at = self._floors.now(), self._clock.boottime()
        result = self._put(prepared)
        if not isinstance(result, Lost):
            self._floors.at_end(prepared.sequence - 1, began)
            self.sent_at = sent_at
            self.won(prepared.sequence, prepared.hash)
        return result

    def _put(self, prepared: Prepared) -> object:
        """Put until the store says whose entry has the number."""
        assert self._writer is not None
        pause = PAUSE_FIRST_S
        while True:
            try:
                return self._writer.put(prepared)
            except StoreConflict:
                pass
            except LucidError as error:
                if not error.retryable:
                    raise
                self.online = False
                self.problem = str(error)
            if self._stop.wait(pause * self._pause.uniform(0.5, 1.0)):
                raise Stopped("The filespace is being closed.")
            pause = min(pause * 2, PAUSE_MAX_S)

    def _settled(self, position: int, body: EntryBody) -> None:
        # The journal forgets these ops now: neither a crash nor loss of power must take them from
        # the replica as well, or a device that is opened without the store would miss what it made.
        self._replica.commit_now()
        self._replica.sync_wal()
        self._order.settle(position)
        for row in body.segments:
            self._staged.committed(row.id, self._adopt)


def _named(batch: Iterable[Placed]) -> list[bytes]:
    """The segments that these ops name, each once."""
    names: dict[bytes, None] = {}
    for placed in batch:
        names.update(dict.fromkeys(segments_of(placed.op)))
    return list(names)
