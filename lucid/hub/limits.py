"""What one hub lets its clients do. Numbers, and the bucket that counts a rate. One thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Limits", "Rate"]


@dataclass(frozen=True)
class Limits:
    """Bounds of one hub process; who goes over one is turned away or cut off."""

    rooms: int = 1000
    """Rooms that somebody is in."""
    connections: int = 4096
    """In all, those included that have not said yet who they are."""
    per_room: int = 256
    per_address: int = 256
    """Connections from one address; a whole office may stand behind one."""
    messages_per_s: float = 50.0
    """Of one connection, lasting; `messages_burst` at once."""
    messages_burst: float = 200.0
    looks_per_s: float = 10.0
    """Webhooks of one room that are passed on; more in a second become one at its end."""
    enter_s: float = 10.0
    """From the connection to the right answer."""
    quiet_s: float = 60.0
    """A client that says nothing for so long, not even to a ping, is gone."""
    backlog_bytes: int = 256 << 10
    """What may wait for a client that reads slowly; it is cut off then, and may come again."""
    webhook_bytes: int = 1 << 20
    """Body of a webhook."""


class Rate:
    """So many a second, lasting, and some at once. Not locked."""

    def __init__(self, per_s: float, burst: float, now: Callable[[], float]) -> None:
        self._per_s, self._burst, self._now = per_s, burst, now
        self._left, self._at = burst, now()

    def take(self) -> bool:
        """Whether one more is within the rate."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
