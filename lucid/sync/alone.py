"""Ops that are never pending: those that change the filespace itself, each an entry of its own, and
those of leases, which share one.

Any thread asks, and waits if it likes; the sync thread commits. They stand beside the order: they
go before what is pending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from lucid.errors import Stopped, StoreUnavailable
from lucid.format.ops import Give, Op, Take, Takeover
from lucid.sync.order import Order
from lucid.types import Clock

__all__ = ["Alone"]


LEASE_OPS = (Take, Give, Takeover)
TOGETHER_MAX = 256
"""Ops of leases in one entry."""


class _Behind(NamedTuple):
    """An op that goes behind what is pending up to `position`, but after `deadline` without it."""

    op: Op
    position: int
    deadline: float


def _inode_of(op: Op) -> int:
    return op.ino if isinstance(op, LEASE_OPS) else 0


class Alone:
    """The ops that are never pending. Guarded by the order lock: _waiting, for entries of their
    own, and _behind, which may share one with what they wait for."""

    def __init__(self, order: Order, clock: Clock) -> None:
        self._order = order
        self._clock = clock
        self._waiting: deque[Op] = deque()
        self._behind: list[_Behind] = []

    def commit(self, op: Op, timeout: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Return when `op` is in the log. Raises StoreUnavailable if that takes longer than
        `timeout` seconds (it may still come there), and what stopped writing. Raises Stopped once
        `given_up`, which is asked when the order is woken."""
        order = self._order
        order.check_writable()
        with order.news:
            self._waiting.append(op)
            order.news.notify_all()
            done = order.news.wait_for(
                lambda: op not in self._waiting or order.stopped is not None or given_up(), timeout
            )
            if op in self._waiting:
                self._waiting.remove(op)
                order.check_writable()
                if given_up():
                    raise Stopped("Nobody waits for the change any more.")
        if not done:
            raise StoreUnavailable(
                "The store did not take the change in time. Try again when it answers."
            )

    def submit(self, op: Op, behind: int = 0, within_s: float = 0.0) -> None:
        """As `commit`, for an op of a lease; returns at once. Who folds the log sees it there.

        behind: it comes behind all that is pending up to this position, in the same entry if that
        can be; but if that takes longer than `within_s` it comes without.
        """
        with self._order.news:
            # Two ops of one lease never change places.
            before = [one for one in self._behind if _inode_of(one.op) == _inode_of(op)]
            deadline = self._clock.monotonic() + within_s
            if before:
                behind = max(behind, before[-1].position)
                deadline = max(deadline, before[-1].deadline)
            if self._order.is_settled(behind) and not before:
                self._waiting.append(op)
            else:
                self._behind.append(_Behind(op, behind, deadline))
                self._order.urge(behind)
            self._order.news.notify_all()

    def behind(self, position: int) -> tuple[Op, ...]:
        """What may stand in an entry behind the ops up to this position."""
        with self._order.lock:
            found = [one.op for one in self._behind if one.position <= position]
            return tuple(found[:TOGETHER_MAX])

    def next(self) -> tuple[Op, ...]:
        """The ops of the next entry; none if nobody asks."""
        with self._order.lock:
            if self._behind:
                now = self._clock.monotonic()
                for one in tuple(self._behind):
                    if self._order.is_settled(one.position) or now > one.deadline:
                        self._behind.remove(one)
                        self._waiting.append(one.op)
            if not self._waiting or not isinstance(self._waiting[0], LEASE_OPS):
                return tuple(islice(self._waiting, 1))
            some = islice(self._waiting, TOGETHER_MAX)
            return tuple(takewhile(lambda op: isinstance(op, LEASE_OPS), some))

    def done(self, ops: Sequence[Op]) -> None:
        """They are in the log."""
        with self._order.news:
            for op in ops:
                if op in self._waiting:
                    self._waiting.remove(op)
            self._behind = [one for one in self._behind if one.op not in ops]
            self._order.news.notify_all()
