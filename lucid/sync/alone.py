"""Ops that are never pending: those that change the filespace itself, each an entry of its own, and
those of leases, which share one.

Any thread asks, and waits if it likes; the sync thread commits. They stand beside the order: they
go before what is pending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from lucid.errors import Stopped, StoreUnavailable
from lucid.format.ops import Give, Op, Take, Takeover
from lucid.sync.order import Order

__all__ = ["Alone"]


LEASE_OPS = (Take, Give, Takeover)
TOGETHER_MAX = 256
"""Ops of leases in one entry."""


class Alone:
    """The ops that wait for an entry of their own. Guarded by the order lock: _waiting."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._waiting: deque[Op] = deque()

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

    def submit(self, op: Op) -> None:
        """As `commit`, for an op of a lease; returns at once. Who folds the log sees it there."""
        with self._order.news:
            self._waiting.append(op)
            self._order.news.notify_all()

    def next(self) -> tuple[Op, ...]:
        """The ops of the next entry; none if nobody asks."""
        with self._order.lock:
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
            self._order.news.notify_all()
