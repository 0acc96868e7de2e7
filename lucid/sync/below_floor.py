"""Whether the log was cut above this device's head, and when that must be asked.

A collector deletes entries below a floor, and create-if-absent forgets deleted names: to who was
away for longer than the log is kept, the next number looks free, and can even be won. So before
"there is no such entry" is believed, and before an own entry that won counts, the store is asked
for floors above the head. What it shows is a hint only; a floor is in force by its op in the log.

A floor is at least two days old by the store's clock. Who has seen the end of the log, and not
a day has gone since, need not ask. The store's clock counts, and the local ones, whichever has gone
further; when the local ones part, the machine slept or a clock was set, and it is asked.

Used by one thread at a time: by the one that opens a filespace, then by the sync thread.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from lucid.errors import BelowFloor, ObjectMissing
from lucid.format.names import (
    FLOOR_PREFIX,
    LOG_PREFIX,
    floor_key,
    log_key,
    parse_floor_key,
    parse_log_key,
)
from lucid.store.base import ObjectStore
from lucid.types import Clock

__all__ = ["DAY_S", "Floors", "Moment", "is_whole"]

log = logging.getLogger(__name__)

DAY_S = 86_400.0
"""How long the end of the log, once seen, vouches for what lies above it."""
ASKED_S = 60.0
"""How long an answer does while a backlog is read: what comes of that is asked about once more."""
PARTED_S = 30.0
"""Clocks of this machine that part by more tell of sleep, or were set."""
FALSE_MAX = 8
"""Hints that lead nowhere and are looked at: a store that makes up more can hide true ones."""


class Moment(NamedTuple):
    """When something was, by three clocks: seconds, ns, and the store's ns if it has said it."""

    monotonic: float
    time_ns: int
    store_ns: int | None


class Floors:
    """Asks for floors, as seldom as is safe. `seen`: the end of the log was seen then."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen: Moment | None = None
        self._asked: Moment | None = None
        self.whole = 0
        """The log was found whole up to this floor: it can be followed there."""
        self.strange = ""
        """A sentence about a hint that no entry bears out; empty for none."""

    def now(self) -> Moment:
        """By the clocks; the store's as its newest answer told it. Asks nothing."""
        return Moment(self._clock.monotonic(), self._clock.time_ns(), self._store.last_date_ns)

    def above(self, head: int) -> int | None:
        """The newest floor above `head` that the store shows; None for none. Raises StoreError."""
        began = self.now()
        floor = self._newest(head)
        self._asked = began if floor is None else None
        return floor

    def _newest(self, head: int) -> int | None:
        found = self._shown(head)
        for number in found[:FALSE_MAX]:
            if self._has_entry(number):
                return number
            newer = self._shown(number)
            if newer:
                # Put meanwhile; its collector may have deleted the entry of this one.
                return newer[0]
            self.strange = (
                f"The store shows a floor at entry {number} of the log, which has no such entry."
            )
            log.warning("%s", self.strange)
        return None

    def check(self, head: int) -> None:
        """Before an entry behind `head` is folded. Raises BelowFloor, StoreError."""
        if not (self._within(self._seen, DAY_S) or self._within(self._asked, ASKED_S)):
            floor = self.above(head)
            if floor is not None and floor > self.whole:
                raise _below(head, floor)

    def sure(self, head: int) -> None:
        """Nothing behind `head` has been taken away by now. Raises BelowFloor, StoreError."""
        if not self._within(self._seen, DAY_S):
            floor = self.above(head)
            if floor is not None:
                raise _below(head, floor)

    def at_end(self, head: int, since: Moment) -> None:
        """At `since` or later `head` was seen to be the newest entry. Raises BelowFloor where it
        only seemed so, because those behind it were taken away, and StoreError."""
        self.sure(head)
        self._seen = since

    def _within(self, then: Moment | None, seconds: float) -> bool:
        if then is None:
            return False
        now = self.now()
        awake = now.monotonic - then.monotonic
        if abs((now.time_ns - then.time_ns) / 1e9 - awake) > PARTED_S:
            return False
        if now.store_ns is not None:
            if then.store_ns is None:
                return False
            awake = max(awake, (now.store_ns - then.store_ns) / 1e9)
        return awake < seconds

    def _shown(self, head: int) -> list[int]:
        """Floors above `head`, newest first."""
        listed = self._store.list(FLOOR_PREFIX, floor_key(head) if head else "")
        numbers = (parse_floor_key(info.key) for info in listed)
        return sorted((number for number in numbers if number is not None), reverse=True)

    def _has_entry(self, number: int) -> bool:
        """A collector leaves the entry of its own floor."""
        try:
            self._store.stat(log_key(number))
        except ObjectMissing:
            return False
        return True


def _below(head: int, floor: int) -> BelowFloor:
    return BelowFloor(
        f"This device knows the log up to entry {head}, and entries below {floor} were taken from"
        " the store meanwhile, as they are after some days. Nothing is written from here on."
        " Unmount, and mount again: the drive then begins from a checkpoint, and what was written"
        " here is kept and sent."
    )


def is_whole(store: ObjectStore, head: int, floor: int) -> bool:
    """Whether the log has every entry from behind `head` up to `floor`. Raises StoreError."""
    expected = head + 1
    for info in store.list(LOG_PREFIX, log_key(head) if head else ""):
        number = parse_log_key(info.key)
        if number is None:
            continue
        if number != expected:
            return False
        if number >= floor:
            return True
        expected += 1
    return False
