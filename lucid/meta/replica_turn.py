"""The replica's lock, and the manners of a thread that holds it often.

A thread that folds takes the lock again right after it gave it back, and Python's locks are not
fair: those who wait would wait for the whole fold. `Turn.rest` lets them in.
"""

from __future__ import annotations

import threading
from collections import deque

from lucid.errors import Stopped

__all__ = ["Turn"]

REST_S = 0.002
"""Longest wait for those who wait to have had their turn."""


class Turn:
    """A lock. Any thread takes it with `with`; who folds in slices calls `rest` between them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()  # one for each: append and pop need no lock
        self._taken = threading.Event()
        self._closed = False
        self.contended = False
        """Somebody has had to wait since `take_contended`."""

    def __enter__(self) -> None:
        if not self._lock.acquire(False):
            self.contended = True
            self._waiting.append(None)
            self._lock.acquire()
            self._waiting.pop()
            self._taken.set()
        if self._closed:
            self._lock.release()
            raise Stopped("The replica is closed.")

    def take_contended(self) -> bool:
        """Whether anybody has had to wait since the last call."""
        contended, self.contended = self.contended, False
        return contended

    def close(self) -> None:
        """Whoever asks for the lock from now on gets Stopped. REQUIRES: the caller holds it."""
        self._closed = True

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def rest(self) -> None:
        """Let another thread in that waits. REQUIRES: the caller does not hold the lock."""
        if self._waiting:
            self._taken.clear()
            self._taken.wait(REST_S)
