"""Ops that change the filespace itself, and so are never pending: each is an entry of its own.

Any thread asks and waits; the sync thread commits. They stand beside the order: what is pending
goes before or after them, as it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from lucid.errors import Stopped, StoreUnavailable
from lucid.format.ops import Op
from lucid.sync.order import Order

__all__ = ["Alone"]


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

    def next(self) -> Op | None:
        """The op whose entry comes next."""
        with self._order.lock:
            return self._waiting[0] if self._waiting else None

    def done(self, op: Op) -> None:
        """`op` is in the log."""
        with self._order.news:
            if op in self._waiting:
                self._waiting.remove(op)
            self._order.news.notify_all()
