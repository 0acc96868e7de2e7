"""One open directory: what was read of it and not handed out yet.

Before Linux 6.16 the kernel asks for a page of 4 KiB at a time, which is about a hundred names, and
the replica answers five hundred about as fast. What is left is for the next request, unless
anything has changed in the filespace meanwhile.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from lucid.filespace.surface import DirectoryEntry, Surface

__all__ = ["BATCH", "OpenDirectory"]

BATCH = 512
_cookie = attrgetter("cookie")


class OpenDirectory:
    """Two threads of a program may read one at the same time; each gets what it asks for."""

    __slots__ = ("_read", "ino")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self._read: tuple[int, Sequence[DirectoryEntry]] = (0, ())
        """What was read last, with the known table's ticket from before: each change makes that
        another. One tuple, for it is replaced without a lock."""

    def after(self, surface: Surface, cookie: int) -> Sequence[DirectoryEntry]:
        """Entries with cookies above `cookie`, 0 for all, ascending; empty at the end."""
        known = surface.known
        ticket = known.ticket() if known is not None else 0
        then, left = self._read
        if cookie and then == ticket and left and left[0].cookie <= cookie < left[-1].cookie:
            return left[bisect_right(left, cookie, key=_cookie) :]
        found = surface.readdir(self.ino, cookie, BATCH)
        self._read = ticket, found
        return found
