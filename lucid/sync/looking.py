"""When to look at the log because somebody said so, and how often at most.

A hint that a member signed names an entry: it is looked for at once, and a few times more if the
store does not show it yet. A word of the hub alone is worth a look now and then. One thread.
"""

from __future__ import annotations

import math

__all__ = ["Looking"]

HINT_GAP_S = 0.02
"""Between two looks for entries that members have named."""
LOOK_GAP_S = 0.5
"""Between two looks for which there is the hub's word only: no more than active polling costs."""
AGAIN_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Pauses before an entry is looked for again; then it is left to polling."""


class Looking:
    """Answers `due`: when to look next. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._wanted = 0
        self._again = 0
        self._due = math.inf
        self._last = -math.inf

    def due(self, head: int) -> float:
        """When to look; infinity for never. What is folded up to `head` need not be looked for."""
        if self._wanted and head >= self._wanted:
            self._wanted, self._due = 0, math.inf
        return self._due

    def hint(self, sequence: int, head: int, now: float) -> None:
        """A member says that there is this entry. A repeated hint starts nothing anew."""
        if sequence <= max(head, self._wanted):
            return
        self._wanted, self._again = sequence, 0
        self._due = min(self._due, max(now, self._last + HINT_GAP_S))

    def look(self, now: float) -> None:
        """Somebody says that there is something new."""
        self._due = min(self._due, max(now, self._last + LOOK_GAP_S))

    def looked(self, now: float) -> None:
        """A look was begun."""
        self._last, self._due = now, math.inf
        if self._wanted and self._again < len(AGAIN_S):
            self._due = now + AGAIN_S[self._again]
            self._again += 1
        else:
            self._wanted = 0
