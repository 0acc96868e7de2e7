"""Publishing drafts: their content becomes an op in the order.

Mostly that happens at once, on the thread that releases a file. Only a draft whose blocks must be
built from a base that is not here waits for the thread lucid-publish, started here; what was
accepted after it is held back until it is placed. A draft that cannot be built by a fault of its
own is set aside: its writers get EIO, its bytes are kept, the order goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from lucid.data.draft import Draft
from lucid.data.drafting import Drafting
from lucid.data.drafts import DraftTable
from lucid.data.segments import StagedSegments
from lucid.errors import DataError, LucidError, Stopped, TimedOut
from lucid.format.ops import Content, Create, Stage
from lucid.meta.fold_effect import Effect
from lucid.sync.order import Hold, Order

__all__ = ["CHANGES_MAX", "Publisher"]

log = logging.getLogger(__name__)

PAUSE_S = 1.0
PUBLISH_WAIT_S = 60.0
CHANGES_MAX = 16_384
"""Changes of one op: about a MiB of an entry."""
BUILD_ROUNDS = 4
"""Blocks are built without the order lock; a writer that is faster than this is made to wait."""


class Publisher:
    """Turns drafts into ops. `_lock` guards the queue of those that wait for the store."""

    def __init__(
        self,
        order: Order,
        table: DraftTable,
        drafting: Drafting,
        staged: StagedSegments,
        *,
        next_op_id: Callable[[], int],
        published: Callable[[Draft, int, Effect], None],
        renew: Callable[[Draft], None],
        is_rewritten: Callable[[Draft], bool],
    ) -> None:
        """renew: seals again what no entry may name any more; called with the draft's lock held.
        is_rewritten: whether somebody who cut it to nothing has it open for writing."""
        self._order = order
        self._table = table
        self._drafting = drafting
        self._staged = staged
        self._next_op_id = next_op_id
        self._published = published
        self._renew = renew
        self._is_rewritten = is_rewritten
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: deque[Draft] = deque()
        self._asked: list[Draft] = []
        """Those that somebody waits for."""
        self._holds: dict[int, Hold] = {}
        self._closed = threading.Event()
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="lucid-publish", daemon=True)
        self._thread.start()

    def flushed(self, draft: Draft, hold_s: float) -> None:
        """A FLUSH left something unpublished: keep later ops behind its RELEASE for a moment."""
        with self._lock:
            old = self._holds.get(draft.ino)
        if old is not None and self._order.is_held(old):
            return
        hold = self._order.hold(hold_s)
        with self._lock:
            self._holds[draft.ino] = hold

    def publish(self, draft: Draft, wait: bool = False) -> bool:
        """Place what the draft holds. False: it needs the store and is queued.

        With `wait`, fetches what is needed on this thread. Raises LucidError (disk full, or with
        `wait` the store).
        """
        if self._attempt(draft, wait):
            return True
        self._queue(draft)
        return False

    def publish_now(self, draft: Draft, timeout: float | None) -> None:
        """As `publish`, and returns only when the draft is placed, or dropped.

        Raises TimedOut, or what keeps the draft from being placed.
        """
        if self._attempt(draft, fetch=True):
            return
        # Its writers are quicker than the store: the thread goes on trying.
        with self._work:
            self._asked.append(draft)
        self._queue(draft)
        with self._work:
            done = self._work.wait_for(
                lambda: draft.gone or draft.failure or self._closed.is_set(),
                PUBLISH_WAIT_S if timeout is None else timeout,
            )
            self._asked.remove(draft)
        if not done:
            raise TimedOut("A file is written faster than it can be published; try again.")

    def _attempt(self, draft: Draft, fetch: bool) -> bool:
        """Place the draft, unless blocks of its base are missing and `fetch` is false."""
        for round_ in range(BUILD_ROUNDS + 1):
            if not draft.is_saved_whole():
                self._drafting.save(draft)
                missing = self._drafting.missing(draft)
                if missing:
                    if not fetch:
                        return False
                    self._drafting.fetch_missing(draft, missing)
                    if round_ < BUILD_ROUNDS:
                        continue
                with draft.lock:
                    if draft.gone or draft.unlinked:
                        break
                    self._drafting.build(draft)
                    self._renew(draft)
                    self._drafting.settle_patches(draft)
            with self._order.lock, draft.lock:
                if draft.gone or draft.unlinked or not draft.unpublished:
                    break
                if draft.dirty or draft.patches:
                    if round_ < BUILD_ROUNDS or self._drafting.missing(draft):
                        continue
                    self._drafting.build(draft)
                    self._drafting.settle_patches(draft)
                self._renew(draft)
                self._place(draft)
                self._end_hold(draft, placed=True)
                return True
        else:
            return False
        self._end_hold(draft, placed=False)
        return True

    def _place(self, draft: Draft) -> None:
        """REQUIRES: order lock and draft lock held; everything sealed."""
        changes = draft.sealed.runs()
        op_id = draft.ino if draft.private else self._next_op_id()
        while len(changes) > CHANGES_MAX:
            # More than one entry holds: the first parts enter the log before the op they are for.
            part, changes = changes[:CHANGES_MAX], changes[CHANGES_MAX:]
            names = {change.segment for change in part if change.segment}
            self._order.place(Stage(self._next_op_id(), draft.ctime_ns, op_id, part), names)
        if draft.private:
            op: Create | Content = Create(
                draft.ino, draft.ctime_ns, draft.parent, draft.name, draft.mode, draft.uid,
                draft.gid, draft.atime_ns, draft.mtime_ns, tuple(sorted(draft.xattrs.items())),
                draft.size, changes,
            )  # fmt: skip
        else:
            op = Content(
                op_id, draft.ctime_ns, draft.ino, draft.base, draft.parent, draft.name,
                min(draft.keep, draft.size), draft.size, draft.mtime_ns, draft.ctime_ns, changes,
            )  # fmt: skip
        effect = self._order.place(
            op,
            {change.segment for change in changes if change.segment},
            replaces=[draft.image, *draft.stale],
            keep=lambda: self._drafting.save_anew(draft),
        )
        self._published(draft, op_id, effect)
        self._table.remove(draft)
        self._drafting.discard(draft)

    def drop(self, draft: Draft) -> None:
        """The draft will never be published. REQUIRES: order lock and draft lock held."""
        self._table.remove(draft)
        self._drafting.discard(draft)
        self._end_hold(draft, placed=False)

    def _end_hold(self, draft: Draft, placed: bool) -> None:
        with self._lock:
            hold = self._holds.pop(draft.ino, None)
        if hold is not None:
            self._order.release_hold(hold, placed)

    def _queue(self, draft: Draft) -> None:
        self._drafting.save(draft, released=True)
        with self._lock:
            known = draft in self._waiting
            old = self._holds.get(draft.ino)
        if known:
            return
        # The short hold of a FLUSH becomes one that lasts until the draft is placed.
        hold = self._order.hold(None)
        if old is not None:
            hold.start = min(hold.start, old.start)
            self._order.release_hold(old, placed=False)
        with self._work:
            self._holds[draft.ino] = hold
            self._waiting.append(draft)
            self._work.notify()

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._waiting)

    def _run(self) -> None:
        while True:
            with self._work:
                while not self._waiting and not self._closed.is_set():
                    self._work.wait()
                if self._closed.is_set():
                    return
                draft = self._waiting[0]
                left_alone = draft not in self._asked and self._is_rewritten(draft)
                if left_alone:
                    # Others see the old content or the whole new one: its RELEASE publishes that.
                    self._waiting.popleft()
                    self._work.notify_all()
            if left_alone:
                self._end_hold(draft, placed=False)
            elif self._try(draft):
                with self._work:
                    self._waiting.remove(draft)
                    self._work.notify_all()
            else:
                self._closed.wait(PAUSE_S)

    def _try(self, draft: Draft) -> bool:
        """True when the draft needs no more work: placed, or set aside."""
        try:
            done = self._attempt(draft, fetch=True)
            self.problem = ""
            return done
        except Stopped:
            return False
        except DataError as error:
            self.set_aside(draft, str(error))
            return bool(draft.failure)
        except LucidError as error:
            self.problem = f"A file waits to be published: {error}"
            return False
        except Exception as error:
            log.exception("Publishing failed; this is a bug in lucid")
            self.problem = f"A file waits to be published: {error}"
            return False

    def set_aside(self, draft: Draft, reason: str) -> None:
        """Its base cannot be read: keep the bytes, tell the writers, let the others go on.

        Where writing has stopped altogether the draft is not to blame: it waits for the next open.
        """
        if self._order.stopped is None:
            with draft.lock:
                draft.failure = reason
        self._end_hold(draft, placed=False)

    def close(self) -> None:
        self._closed.set()
        with self._work:
            self._work.notify_all()
        self._thread.join()
