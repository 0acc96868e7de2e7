"""When a GET takes so much longer than others that a second one is likely to be there first.

Stores answer most requests in a few milliseconds and some of them in a second. Whoever waits for
such a one is better off with another connection. Any thread may call; pure but for its own lock.
"""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["FirstBytes"]

KEPT = 64
FEWEST = 20
"""Before so many answers nobody can tell what is slow."""
SLOW_S = 0.1
"""What is not slow anywhere: a second request costs more than it saves."""
BEYOND = 2.0
"""Slow is what takes so many times as long as all but the slowest of the newest answers."""
SLOWEST = 4
"""How many of the newest KEPT answers may have been slow themselves."""


class FirstBytes:
    """How long the newest answers took to begin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: deque[float] = deque(maxlen=KEPT)

    def note(self, seconds: float) -> None:
        with self._lock:
            self._newest.append(seconds)

    def slow_s(self) -> float | None:
        """Seconds after which an answer is late; None while that cannot be told."""
        with self._lock:
            if len(self._newest) < FEWEST:
                return None
            ordered = sorted(self._newest)
        return max(SLOW_S, BEYOND * ordered[-1 - SLOWEST])
