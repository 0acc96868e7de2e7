"""The entries that were folded lately, for those who wait for one or watch what others do.

The sync thread puts them in; anybody asks, and may wait. Nothing is kept until somebody has asked,
and for a while after; then there is a bound, and who falls behind it is told.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from lucid.format.entry import EntryBody
from lucid.types import Clock

__all__ = ["Batch", "Feed", "Folded"]

OPS_MAX = 20_000
"""Ops of the entries that are kept: about 20 MB at the most."""
IDLE_S = 120.0
"""Nobody has asked for so long: nothing is kept any more."""
STEP_S = 0.5


class Folded(NamedTuple):
    """One valid entry."""

    sequence: int
    body: EntryBody


class Batch(NamedTuple):
    """What came after the entry that was asked for. `missed`: some of it is not kept any more."""

    entries: list[Folded]
    next: int
    missed: bool


class Feed:
    """See the module. `_news` guards all fields; nothing else waits under it."""

    def __init__(self, clock: Clock, head: int) -> None:
        """head: the entry that is folded when the first one comes."""
        self._clock = clock
        self._news = threading.Condition()
        self._kept: deque[Folded] = deque()
        self._ops = 0
        self._head = head
        self._first = 0
        self._asked = float("-inf")
        self._closed = False

    def put(self, sequence: int, body: EntryBody) -> None:
        """An entry was folded, and what it changed was told to the mount."""
        with self._news:
            self._head = max(self._head, sequence)
            if self._clock.monotonic() - self._asked > IDLE_S:
                self._kept.clear()
                self._ops, self._first = 0, sequence
            else:
                self._kept.append(Folded(sequence, body))
                self._ops += len(body.ops) + 1
                while self._ops > OPS_MAX and len(self._kept) > 1:
                    gone = self._kept.popleft()
                    self._ops -= len(gone.body.ops) + 1
                    self._first = gone.sequence
            self._news.notify_all()

    def after(self, sequence: int, wait_s: float) -> Batch:
        """Entries after this one, as soon as there are some, at most after `wait_s`.

        A `sequence` of 0 means: from now on.
        """
        end = self._clock.monotonic() + wait_s
        with self._news:
            now = self._clock.monotonic()
            if now - self._asked > IDLE_S:
                self._kept.clear()
                self._ops, self._first = 0, self._head
            self._asked = now
            start = sequence or self._head
            while not self._closed:
                found = [each for each in self._kept if each.sequence > start]
                left = end - self._clock.monotonic()
                if found or left <= 0:
                    break
                self._news.wait(min(left, STEP_S))
                self._asked = self._clock.monotonic()
            else:
                found = []
            return Batch(found, found[-1].sequence if found else start, start < self._first)

    def wait(self, timeout_s: float) -> None:
        """Return when an entry was folded, or after the time-out."""
        with self._news:
            if not self._closed:
                self._news.wait(timeout_s)

    @property
    def head(self) -> int:
        """The newest entry that was put in."""
        return self._head

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends every wait."""
        with self._news:
            self._closed = True
            self._kept.clear()
            self._news.notify_all()
