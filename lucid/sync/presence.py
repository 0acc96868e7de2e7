"""Which devices are there, and what they have open for writing: what presences tell.

It lasts for seconds and is never stored. A hub can delay and repeat what devices said, so each
presence counts once, in its order, and for a short time. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from lucid.format.hub import Presence
from lucid.types import Clock

__all__ = ["FRESH_S", "GONE_S", "Devices", "Seen"]

FRESH_S = 300.0
"""A presence that was said longer ago, or in the future, is not believed: clocks are about right.
"""
GONE_S = 35.0
"""After its last presence a device is shown for so long; it says one about every 10 s."""
DEVICES_MAX = 256


class Seen(NamedTuple):
    """A device that is there."""

    member: bytes
    presence: Presence
    age_s: float


class _Last(NamedTuple):
    presence: Presence
    at: float


class Devices:
    """The other devices in the room. `_lock` guards `_last`; nothing waits under it."""

    def __init__(
        self, own: bytes, session_member: Callable[[int], bytes | None], clock: Clock
    ) -> None:
        """own: this device's id. session_member: whose session a number is, None for nobody's."""
        self._own, self._session_member, self._clock = own, session_member, clock
        self._lock = threading.Lock()
        self._last: dict[tuple[bytes, bytes], _Last] = {}

    def heard(self, member: bytes, presence: Presence) -> bool:
        """Takes what a member signed. False: it is too old, repeated, or cannot be."""
        age_s = (self._clock.time_ns() - presence.time_ns) / 1e9
        if presence.device == self._own or abs(age_s) > FRESH_S:
            return False
        # A session that is not known yet is a new one, whose entry is not folded here.
        if self._session_member(presence.session) not in (None, member):
            return False
        key = member, presence.device
        with self._lock:
            known = self._last.pop(key, None)
            if known is not None and presence.number <= known.presence.number:
                self._last[key] = known
                return False
            # In the order of the last word: the first is the one to forget.
            self._last[key] = _Last(presence, self._clock.monotonic())
            while len(self._last) > DEVICES_MAX:
                del self._last[next(iter(self._last))]
            return True

    def there(self) -> list[Seen]:
        """The devices that are there now, by member and label."""
        now = self._clock.monotonic()
        with self._lock:
            # Remembered for as long as an old presence of theirs could be shown again.
            old = [key for key, last in self._last.items() if now - last.at > 2 * FRESH_S]
            for key in old:
                del self._last[key]
            found = [
                Seen(member, last.presence, now - last.at)
                for (member, _), last in self._last.items()
                if now - last.at <= GONE_S and not last.presence.leaves
            ]
        return sorted(found, key=lambda seen: (seen.member, seen.presence.label))
