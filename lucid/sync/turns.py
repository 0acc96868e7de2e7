"""When this device may commit next, so that others get their turn: the log is nobody's queue, and
create-if-absent favours who is near and who has just won.

Used by the sync thread only.
"""

from __future__ import annotations

import random

from lucid.types import Clock

__all__ = ["Turns"]

RECENT_S = 10.0
"""A device that has committed within this time is one of those who want to."""
COMMIT_MAX_S = 0.5
PAUSE_MAX_S = 2.0


class Turns:
    """`after` is the monotonic time before which nothing should be committed."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.after = 0.0
        self._clock = clock
        self._chance = chance
        self._commit_s = 0.05
        self._others: dict[int, float] = {}

    def heard(self, session: int) -> None:
        """An entry of another session was folded."""
        self._others[session] = self._clock.monotonic()

    def won(self, began: float, active: bool) -> None:
        """An own entry, begun at that time, is in the log. `active`: others were, lately.

        The pause is as long as all others together take for a commit each, more or less: so each
        loses a few times at most, however many there are.
        """
        now = self._clock.monotonic()
        self._commit_s = 0.8 * self._commit_s + 0.2 * (now - began)
        self._others = {s: at for s, at in self._others.items() if now - at < RECENT_S}
        if active:
            many = max(1, len(self._others)) * self._chance.uniform(0.5, 1.5)
            self.after = now + min(min(self._commit_s, COMMIT_MAX_S) * many, PAUSE_MAX_S)
