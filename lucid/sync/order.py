"""The order of own ops: from the moment a caller's change is accepted until an entry holds it.

`lock` is the order lock, the outermost of the filespace: whoever changes names, attributes or
published content holds it while the change is checked, journaled and applied, so that journal,
replica and log agree on one order. It is never held over the store or over a wait.

A *hold* keeps back ops that were accepted after it began, for at most its time: a file was flushed
and its RELEASE, which publishes it, must come first (DESIGN: publish), or a publish waits for
blocks of its base.
"""

from __future__ import annotations

import errno
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lucid.data.segments import StagedSegments
from lucid.errors import LucidError, Stopped
from lucid.format.change import SegmentRow
from lucid.format.journal import Failed, OpRecord, Settled
from lucid.format.ops import Clone, Content, Op, Stage
from lucid.local.book import JournalBook, Live
from lucid.meta.fold_effect import Effect
from lucid.types import Clock

__all__ = ["Hold", "Order", "Placed"]

Apply = Callable[[int, Op, "list[SegmentRow]"], Effect]


QUIET_S = 0.008
"""A pause this long ends a burst of ops: what there is goes off."""
GATHER_S = 0.12
"""How long the oldest op waits for company at most. A commit costs a caller that goes on making
files as much as five of them: a steady stream pays for eight commits a second, not for sixteen."""
GATHER_OPS = 4000
TOLD_MAX = 10_000


class Placed(NamedTuple):
    """One op that is pending."""

    position: int
    op: Op
    segments: tuple[bytes, ...]
    live: Live
    size: int  # about how many bytes it takes in an entry


class Hold:
    """Ops from `start` on wait; once `end` is set they are committed together with it."""

    __slots__ = ("deadline", "end", "start")

    def __init__(self, start: int, deadline: float | None) -> None:
        self.start = start
        self.deadline = deadline
        self.end: int | None = None


class Order:
    """The queue of pending ops. Fields are guarded by `lock`, except where they say otherwise."""

    def __init__(
        self,
        book: JournalBook,
        staged: StagedSegments,
        clock: Clock,
        apply: Apply,
        is_pending: Callable[[int], bool],
    ) -> None:
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self._book = book
        self._staged = staged
        self._clock = clock
        self._apply = apply
        self._is_pending = is_pending
        self._queue: deque[Placed] = deque()
        self._next = 1
        self._settled = 0
        self._placed_at = 0.0
        self._oldest_at = 0.0
        self._waiters = 0
        self._urged = 0
        self._told: set[bytes] = set()
        self._holds: list[Hold] = []
        self._kept_back = False
        """The last `take` left ops for the end of a hold."""
        self.stopped: LucidError | None = None
        """Why nothing more may be written; None while all is well."""

    # -- accepting

    def check_writable(self) -> None:
        """Raises what stopped writing. A program is told that the file system is read-only now."""
        if self.stopped is not None:
            error = type(self.stopped)(str(self.stopped))
            if not isinstance(error, Stopped):
                error.errno = errno.EROFS
            raise error

    def stop(self, reason: LucidError) -> None:
        with self.news:
            if self.stopped is None:
                self.stopped = reason
            self.news.notify_all()

    def go_on(self, reason: LucidError) -> None:
        """What `reason` has stopped goes on; nothing changes if it was something else."""
        with self.news:
            if self.stopped is reason:
                self.stopped = None
            self.news.notify_all()

    def place(
        self,
        op: Op,
        segments: Iterable[bytes] = (),
        replaces: Iterable[Live | None] = (),
        keep: Callable[[], None] = lambda: None,
    ) -> Effect:
        """Accept an op: journal it, apply it, queue it. REQUIRES: lock held, and the op checked.

        Raises DiskFull or LocalError when the journal cannot take it; nothing has changed then.
        `replaces`: records of the journal that it takes the place of; `keep` writes them anew when
        it cannot be applied.
        """
        self.check_writable()
        names = tuple(segments)
        rows = self._staged.rows(names)
        position = self._next
        record = OpRecord(position, tuple(rows), op)
        live = self._book.append(record, removal=not names, replaces=replaces)
        self._next += 1
        return self._enter(position, op, names, rows, live, keep)

    def restore(self, position: int, op: Op, segments: Iterable[bytes], live: Live) -> Effect:
        """An op that the journal held when the filespace was opened. REQUIRES: lock held.

        One that the log holds already is only forgotten.
        """
        names = tuple(segments)
        self._next = max(self._next, position + 1)
        return self._enter(position, op, names, self._staged.rows(names), live)

    def _enter(
        self,
        position: int,
        op: Op,
        names: tuple[bytes, ...],
        rows: list[SegmentRow],
        live: Live,
        keep: Callable[[], None] = lambda: None,
    ) -> Effect:
        try:
            effect = self._apply(position, op, self._untold(rows))
        except BaseException as error:
            keep()
            self._book.note(Failed(position, str(error).encode()[:1000]), removal=True)
            self._book.release([live])
            raise
        if not self._is_pending(op.op_id):  # type: ignore[union-attr]
            self._book.release([live])
            return effect
        self._staged.retain(names)
        size = _size_of(op, names)
        self._placed_at = self._clock.monotonic()
        if not self._queue:
            self._oldest_at = self._placed_at
        self._queue.append(Placed(position, op, names, live, size))
        if len(self._queue) == 1:
            # Later ones are found when the committer looks: waking it for each costs a switch.
            self.news.notify_all()
        return effect

    def all(self) -> list[Placed]:
        """What is pending, in order."""
        with self.lock:
            return list(self._queue)

    def replace(self, old: Placed, op: Op, segments: Iterable[bytes]) -> list[SegmentRow]:
        """The same change by other segments, which are durable: journal and queue have `op` from
        here on. REQUIRES: lock held; only who settles calls this. Returns the segments' rows.

        The old record stays in the journal until its `live` is released.
        """
        names = tuple(segments)
        rows = self._staged.rows(names)
        live = self._book.append(OpRecord(old.position, tuple(rows), op), removal=True)
        self._staged.retain(names)
        at = bisect_left(self._queue, old.position, key=lambda placed: placed.position)
        self._queue[at] = Placed(old.position, op, names, live, _size_of(op, names))
        return rows

    def _untold(self, rows: list[SegmentRow]) -> list[SegmentRow]:
        """Those that the replica has not heard of: it forgets none, and each costs it a write."""
        untold = [row for row in rows if row.id not in self._told]
        if len(self._told) > TOLD_MAX:
            self._told.clear()
        self._told.update(row.id for row in untold)
        return untold

    def reserve_positions(self, below: int) -> None:
        """Positions below this were used before."""
        with self.lock:
            self._next = max(self._next, below)
            self._settled = max(self._settled, 0)

    # -- holding back

    def hold(self, seconds: float | None) -> Hold:
        """Keep ops that come from now on behind whatever `release_hold` places."""
        with self.lock:
            deadline = None if seconds is None else self._clock.monotonic() + seconds
            hold = Hold(self._next, deadline)
            self._holds.append(hold)
            return hold

    def is_held(self, hold: Hold) -> bool:
        with self.lock:
            return hold in self._holds and (
                hold.deadline is None or hold.deadline > self._clock.monotonic()
            )

    def release_hold(self, hold: Hold, placed: bool) -> None:
        """The hold is over; when something was `placed` for it, ops held back go with it."""
        with self.news:
            if hold not in self._holds:
                return
            if placed and self._next - 1 > hold.start:
                hold.end = self._next - 1
                hold.deadline = None
            else:
                self._holds.remove(hold)
            if self._kept_back:
                # Else nobody waits for this: a wake-up for each file that is closed costs a switch.
                self._kept_back = False
                self.news.notify_all()

    # -- committing

    def take(self, ops_max: int, bytes_max: int) -> list[Placed]:
        """The longest prefix that one entry may hold now: uploaded, and not held back."""
        with self.lock:
            now = self._clock.monotonic()
            self._holds = [
                hold
                for hold in self._holds
                if (hold.deadline is None or hold.deadline > now)
                and (hold.end is None or hold.end > self._settled)
            ]
            batch: list[Placed] = []
            size = 0
            for placed in self._queue:
                size += placed.size
                if len(batch) >= ops_max or (batch and size > bytes_max):
                    break
                if not self._staged.are_uploaded(placed.segments):
                    break
                batch.append(placed)
            free = self._held_back(batch)
            self._kept_back = len(free) < len(batch)
            return free

    def _held_back(self, batch: list[Placed]) -> list[Placed]:
        for hold in self._holds:
            if hold.end is None:
                batch = [placed for placed in batch if placed.position < hold.start]
            elif batch and hold.start <= batch[-1].position < hold.end:
                before = [placed for placed in batch if placed.position < hold.start]
                # More ops were held back than one entry takes: then they go in two.
                if before or not self._fills_entry(batch):
                    batch = before
        return batch

    def _fills_entry(self, batch: list[Placed]) -> bool:
        following = next((p for p in self._queue if p.position > batch[-1].position), None)
        return following is not None and self._staged.are_uploaded(following.segments)

    def hold_ends(self) -> float | None:
        """Monotonic time at which the next hold ends by itself."""
        with self.lock:
            ends = [hold.deadline for hold in self._holds if hold.deadline is not None]
            return min(ends, default=None)

    def oldest_age(self) -> float:
        """Seconds since the oldest pending op came, or since the last commit."""
        with self.lock:
            return self._clock.monotonic() - self._oldest_at if self._queue else 0.0

    def waiting_segments(self, ops_max: int) -> list[bytes]:
        """Segments that the next ops need, and that may not be finished yet."""
        with self.lock:
            found: dict[bytes, None] = {}
            for index, placed in enumerate(self._queue):
                if index >= ops_max:
                    break
                found.update(dict.fromkeys(placed.segments))
            return list(found)

    def settle(self, position: int) -> list[Placed]:
        """Every op up to `position` is in the log: forget them. Returns them."""
        with self.news:
            done: list[Placed] = []
            while self._queue and self._queue[0].position <= position:
                done.append(self._queue.popleft())
            if done:
                self._settled = done[-1].position
                self._book.note(Settled(self._settled), removal=True)
                self._book.release([placed.live for placed in done])
            self._oldest_at = self._clock.monotonic()
            self.news.notify_all()
            return done

    def urge(self, position: int) -> None:
        """Another machine waits for what is pending up to here."""
        with self.news:
            self._urged = max(self._urged, position)
            self.news.notify_all()

    def gathers_until(self) -> float:
        """Until when it is worth waiting for more ops: a commit costs the same for one and for
        many. Never long, and not at all while somebody waits for the store."""
        with self.lock:
            if self._waiters or len(self._queue) >= GATHER_OPS:
                return 0.0
            if self._queue and self._queue[0].position <= self._urged:
                return 0.0
            return min(self._placed_at + QUIET_S, self._oldest_at + GATHER_S)

    # -- asking

    @property
    def pending(self) -> int:
        return len(self._queue)

    @property
    def last(self) -> int:
        """Position of the newest op that was accepted."""
        with self.lock:
            return self._next - 1

    def op_ids(self) -> dict[int, int]:
        """Op id -> position of all that is pending."""
        with self.lock:
            return {placed.op.op_id: placed.position for placed in self._queue}  # type: ignore[union-attr]

    def content_of(self, ino: int) -> int:
        """Position of the first pending content of an inode; 0 if there is none."""
        with self.lock:
            for placed in self._queue:
                if isinstance(placed.op, Content) and placed.op.ino == ino:
                    return placed.position
            return 0

    def segments_of(self, ino: int) -> set[bytes]:
        """Segments that pending versions of an inode name, and what they were cloned from."""
        inos, staged, found = {ino}, set[int](), set[bytes]()
        with self.lock:
            for placed in reversed(self._queue):
                op = placed.op
                if isinstance(op, Stage):
                    if op.target in staged:
                        found.update(placed.segments)
                elif not inos.isdisjoint((getattr(op, "ino", 0), getattr(op, "op_id", 0))):
                    found.update(placed.segments)
                    if isinstance(op, Clone):
                        inos.add(op.source)
                    elif placed.segments:
                        staged.add(op.op_id)  # type: ignore[union-attr]
        return found

    def touches(self, ino: int) -> bool:
        """Whether a pending op is about this inode (for user.lucid.state; looks at a bounded
        number)."""
        with self.lock:
            for index, placed in enumerate(reversed(self._queue)):
                if index > 10_000:
                    return True
                op = placed.op
                if ino in (getattr(op, "ino", 0), getattr(op, "op_id", 0)):
                    return True
            return False

    def is_settled(self, position: int) -> bool:
        """Whether every op up to `position` is in the log."""
        with self.lock:
            return not self._queue or self._queue[0].position > position

    def wait_settled(self, position: int, timeout: float | None) -> bool:
        """Wait until every op up to `position` is committed. Raises what stopped writing."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        with self.news:
            self._waiters += 1
            try:
                while self._queue and self._queue[0].position <= position:
                    if self.stopped is not None:
                        raise type(self.stopped)(str(self.stopped))
                    left = None if deadline is None else deadline - self._clock.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self.news.wait(1.0 if left is None else min(left, 1.0))
                return True
            finally:
                self._waiters -= 1

    def wait_news(self, timeout: float) -> None:
        """Wait until ops were settled or something else happened, for a moment at most."""
        with self.news:
            self.news.wait(timeout)

    def wake(self) -> None:
        with self.news:
            self.news.notify_all()

    def close(self) -> None:
        self.stop(Stopped("The filespace is closed."))


def _size_of(op: Op, segments: tuple[bytes, ...]) -> int:
    """About how many bytes it takes in an entry."""
    return 200 + 70 * len(segments) + 40 * len(getattr(op, "changes", ()))
