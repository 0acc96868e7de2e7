"""The replica's lock, and the manners of a thread that holds it often.

A thread that folds takes the lock again right after it gave it back, and Python's locks are not
fair: those who wait would wait for the whole fold. `Turn.rest` lets them in.
"""

from __future__ import annotations

import threading
from collections import deque

from lucid.errors import LucidError

__all__ = ["Turn"]

REST_S = 0.002
"""Longest wait for those who wait to have had their turn."""


class Turn:
    """A lock. Any thread takes it with `with`; who folds in slices calls `rest` between them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()  # one for each: append and pop need no lock
        self._taken = threading.Event()
        self._end: LucidError | None = None
        self.contended = False
        """Somebody has had to wait since `take_contended`."""

    def __enter__(self) -> None:
        self.acquire()
        if self._end is not None:
            self.release()
            raise type(self._end)(str(self._end))

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, also after `end`."""
        if self._lock.acquire(False):
            return
        self.contended = True
        self._waiting.append(None)
        self._lock.acquire()
        self._waiting.pop()
        self._taken.set()

    def release(self) -> None:
        self._lock.release()

    def take_contended(self) -> bool:
        """Whether anybody has had to wait since the last call."""
        contended, self.contended = self.contended, False
        return contended

    def end(self, error: LucidError) -> None:
        """Whoever asks for the lock from now on gets this error. REQUIRES: the caller holds it."""
        self._end = error

    def rest(self) -> None:
        """Let another thread in that waits. REQUIRES: the caller does not hold the lock."""
        if self._waiting:
            self._taken.clear()
            self._taken.wait(REST_S)
