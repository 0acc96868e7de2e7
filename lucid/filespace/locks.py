"""The locks of programs on one mounted drive, granted under leases.

`Locks` owns the tables of all locked inodes, and who waits. A lock is granted when no other lock of
this machine stands against it, and the drive has the inode's lease. What has to wait takes no
thread: its answer is called later, by whoever ended the wait. The mount calls it (`mount.locking`).
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from lucid.filespace.lock_ranges import (
    TO_THE_END,
    HeldLock,
    InodeLocks,
    LockMode,
    LockRequest,
    closes_circle,
)
from lucid.sync.lease_terms import LeaseMode, Leases, Wish
from lucid.types import Clock

__all__ = ["Answer", "LockRow", "Locks"]

Answer = Callable[[int], None]
"""Called once with 0 or an errno, by any thread, with no lock of `Locks` held."""

EARLY_MAX = 256
"""Interrupts of requests that have not come yet. Each is on its way in another worker, so there are
hardly ever two."""


class LockRow(NamedTuple):
    """One lock, or one wait for a lock, as it is shown."""

    ino: int
    is_flock: bool
    start: int
    end: int
    mode: LockMode
    pid: int
    since_ns: int
    waits: bool


@dataclass(eq=False)
class _Waiting:
    """A request without an answer: a lock of this machine is in its way, or its lease is asked."""

    request: LockRequest
    answer: Answer
    since_ns: int
    wish: Wish | None = None


class Locks:
    """Safe from many threads; no method waits.

    Guarded by _lock: all but _lost, which is only replaced as a whole, and read without it.
    `leases` is called with it held; answers and `on_lost` are not.
    """

    def __init__(
        self,
        leases: Leases,
        clock: Clock,
        *,
        mark: Callable[[int, bool], None] = lambda ino, locked: None,
    ) -> None:
        """mark: told of an inode that gets its first lock, before that is answered, and when the
        last one went. It must not call back."""
        self.on_lost: Callable[[int, frozenset[int]], None] = lambda ino, handles: None
        """Called with an inode whose locks are void, and the handles that fail from now on."""
        self._leases = leases
        self._clock = clock
        self._mark = mark
        self._lock = threading.Lock()
        self._inodes: dict[int, InodeLocks] = {}
        self._waiting: dict[int, _Waiting] = {}
        """By the number of the request, in the order in which they came."""
        self._early: deque[int] = deque(maxlen=EARLY_MAX)
        self._lost: frozenset[int] = frozenset()
        self._ended = False
        self._answers: list[tuple[Answer, int]] = []
        leases.on_lost = self._lease_lost

    # -- requests

    def take(self, request: LockRequest, answer: Answer) -> None:
        """Lock or unlock. `answer` gets 0; EAGAIN where it would wait and must not; EINTR after
        `cancel`; EDEADLK where it would wait for itself; EIO when the lease was lost meanwhile or
        under this handle before, or the drive ends; ENOLCK when the lease cannot be asked for."""
        waiting = _Waiting(request, answer, self._clock.time_ns())
        with self._lock:
            if request.mode is LockMode.NONE:
                self._answer(waiting, 0)
                self._unlock(request)
            elif self._ended or request.handle in self._lost:
                self._answer(waiting, errno.EIO)
            elif request.number in self._early:
                self._early.remove(request.number)
                self._answer(waiting, errno.EINTR)
            else:
                self._begin(waiting)
            told = self._take_answers()
        _tell(told)

    def test(self, request: LockRequest) -> HeldLock | None:
        """What stands against a request, here or, with pid 0, elsewhere; None: nothing."""
        with self._lock:
            table = self._inodes.get(request.ino)
            found = table.first_against(request) if table else None
            if found is not None:
                return found
            other = self._leases.holder(request.ino, LeaseMode(request.mode))
        if other is None:
            return None
        mode = LockMode.EXCLUSIVE if other.mode is LeaseMode.EXCLUSIVE else LockMode.SHARED
        return HeldLock(0, TO_THE_END, mode, 0, 0, other.since_ns)

    def cancel(self, number: int) -> bool:
        """A waiting request is answered with EINTR. False: it does not wait. If it comes later, it
        finds that it was cancelled."""
        with self._lock:
            waiting = self._waiting.get(number)
            if waiting is None:
                self._early.append(number)
                return False
            self._end_wait(waiting, errno.EINTR)
            self._settle(waiting.request.ino)
            told = self._take_answers()
        _tell(told)
        return True

    def drop_owner(self, ino: int, owner: int, is_flock: bool) -> None:
        """An owner has closed the inode: nothing is left of its locks of that kind."""
        with self._lock:
            table = self._inodes.get(ino)
            if table is not None and table.drop_owner(owner, is_flock):
                self._settle(ino)
            told = self._take_answers()
        _tell(told)

    def drop_handle(self, ino: int, handle: int) -> None:
        """An open file is closed for good. What is still locked through it are OFD locks, of which
        the kernel does not say that they end."""
        with self._lock:
            table = self._inodes.get(ino)
            if table is not None and table.drop_handle(handle):
                self._settle(ino)
            told = self._take_answers()
        _tell(told)

    def forget_lost(self, handle: int) -> None:
        """A handle is closed: nothing need fail any more."""
        if self.is_lost(handle):
            with self._lock:
                self._lost -= {handle}

    def end(self) -> None:
        """The drive ends: who waits gets EIO, and so does who comes from now on."""
        with self._lock:
            self._ended = True
            for ino in {*self._inodes, *(one.request.ino for one in self._waiting.values())}:
                self._void(ino)
            told = self._take_answers()
        _tell(told)

    # -- questions

    def is_lost(self, handle: int) -> bool:
        """Whether a lock was lost that was taken through this handle: it fails until closed."""
        return bool(self._lost) and handle in self._lost

    def table(self) -> list[LockRow]:
        """All locks, then all waits in the order in which they came."""
        with self._lock:
            rows = [
                LockRow(ino, is_flock, one.start, one.end, one.mode, one.pid, one.since_ns, False)
                for ino, table in self._inodes.items()
                for is_flock, one in table.rows()
            ]
            for waiting in self._waiting.values():
                asked = waiting.request
                rows.append(
                    LockRow(
                        asked.ino, asked.is_flock, asked.start, asked.end, asked.mode, asked.pid,
                        waiting.since_ns, True,
                    )
                )  # fmt: skip
            return rows

    # -- granting; all of these REQUIRE the lock

    def _begin(self, waiting: _Waiting) -> None:
        request = waiting.request
        table = self._inodes.get(request.ino)
        had = table.flock_of(request.owner) if table and request.is_flock else LockMode.NONE
        if had is request.mode:
            self._answer(waiting, 0)
            return
        self._waiting[request.number] = waiting
        if had and table is not None:
            # A conversion gives up the old lock first, and those who waited for that come before.
            table.drop_owner(request.owner, is_flock=True)
            self._serve_queue(request.ino)
        if request.number in self._waiting and waiting.wish is None:
            self._try(waiting)
        self._settle(request.ino)

    def _try(self, waiting: _Waiting) -> None:
        """Grant a request, ask for its lease, or leave it in the queue, or answer why not."""
        if self._is_blocked(waiting):
            return
        request = waiting.request
        table = self._inodes.get(request.ino)
        mode = max(request.mode, table.strongest() if table else LockMode.NONE)
        waiting.wish = self._leases.need(
            request.ino, LeaseMode(mode), request.waits, partial(self._asked, waiting)
        )
        if waiting.wish is None:
            self._grant(waiting)

    def _is_blocked(self, waiting: _Waiting) -> bool:
        """Whether a lock of this machine is in the way; if it cannot wait for that, it is told."""
        request = waiting.request
        blockers = self._blockers(request)
        if not blockers:
            return False
        if not request.waits:
            self._end_wait(waiting, errno.EAGAIN)
        elif not request.is_flock and closes_circle(request.owner, blockers, self._waits_for):
            self._end_wait(waiting, errno.EDEADLK)
        return True

    def _blockers(self, request: LockRequest) -> set[int]:
        table = self._inodes.get(request.ino)
        return {owner for owner, _ in table.against(request)} if table else set()

    def _waits_for(self, owner: int) -> Iterator[int]:
        for waiting in self._waiting.values():
            request = waiting.request
            if request.owner == owner and not request.is_flock and waiting.wish is None:
                yield from self._blockers(request)

    def _grant(self, waiting: _Waiting) -> None:
        request = waiting.request
        table = self._inodes.get(request.ino)
        if table is None:
            table = self._inodes[request.ino] = InodeLocks()
            self._mark(request.ino, True)
        table.put(request, self._clock.time_ns())
        self._end_wait(waiting, 0)

    def _unlock(self, request: LockRequest) -> None:
        table = self._inodes.get(request.ino)
        if table is not None:
            table.put(request, 0)
            self._settle(request.ino)

    def _settle(self, ino: int) -> None:
        """After any change: the lease is told what is used, and whoever can be served now is. They
        ask for the lease anew: so a machine that waits for it gets it between two locks of this
        one."""
        self._tell_used(ino)
        if self._serve_queue(ino):
            self._tell_used(ino)

    def _tell_used(self, ino: int) -> None:
        table = self._inodes.get(ino)
        if table is not None and not table:
            del self._inodes[ino]
            self._mark(ino, False)
        self._leases.used(ino, LeaseMode(table.strongest() if table else LockMode.NONE))

    def _serve_queue(self, ino: int) -> bool:
        """Those that nothing stands against any more, in the order in which they came; whether
        there were any."""
        tried = False
        for waiting in [one for one in self._waiting.values() if one.request.ino == ino]:
            if waiting.wish is None and not self._blockers(waiting.request):
                self._try(waiting)
                tried = True
        return tried

    def _end_wait(self, waiting: _Waiting, error: int) -> None:
        """The request leaves the queue with an answer."""
        del self._waiting[waiting.request.number]
        if waiting.wish is not None:
            waiting.wish.withdraw()
            waiting.wish = None
        self._answer(waiting, error)

    # -- what leases tell

    def _asked(self, waiting: _Waiting, error: int) -> None:
        """The lease that a request asked for is there, or cannot be had."""
        request = waiting.request
        with self._lock:
            # One that was withdrawn a moment ago may be told all the same.
            if self._waiting.get(request.number) is waiting:
                waiting.wish = None
                if error:
                    self._end_wait(waiting, error)
                elif not self._is_blocked(waiting):
                    self._grant(waiting)
            self._settle(request.ino)
            told = self._take_answers()
        _tell(told)

    def _lease_lost(self, ino: int) -> None:
        with self._lock:
            table = self._inodes.get(ino)
            handles = frozenset(held.handle for held in table.all()) if table else frozenset()
            self._lost |= handles
            self._void(ino)
            told = self._take_answers()
        _tell(told)
        if handles:
            self.on_lost(ino, handles)

    def _void(self, ino: int) -> None:
        """Nothing is left of the locks of an inode, and who waits for one gets EIO."""
        for waiting in [one for one in self._waiting.values() if one.request.ino == ino]:
            self._end_wait(waiting, errno.EIO)
        if self._inodes.pop(ino, None) is not None:
            self._mark(ino, False)
        self._leases.used(ino, LeaseMode.NONE)

    # -- answers

    def _answer(self, waiting: _Waiting, error: int) -> None:
        self._answers.append((waiting.answer, error))

    def _take_answers(self) -> list[tuple[Answer, int]]:
        taken, self._answers = self._answers, []
        return taken


def _tell(answers: list[tuple[Answer, int]]) -> None:
    for answer, error in answers:
        answer(error)
