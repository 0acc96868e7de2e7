"""Names for plain values, and the protocols of what is passed in. Nothing here does anything."""

from __future__ import annotations

import os
import time
from typing import NewType, Protocol

__all__ = [
    "Clock",
    "Entropy",
    "Ino",
    "OpId",
    "SegmentId",
    "Sequence",
    "Session",
    "SystemClock",
    "SystemEntropy",
]

Ino = NewType("Ino", int)
"""Inode number: the id of the op that made the inode. The root is 1."""
OpId = NewType("OpId", int)
"""session << 32 | counter."""
Session = NewType("Session", int)
"""A device's number space in the log. 0 is the root's."""
Sequence = NewType("Sequence", int)
"""Number of an entry of the log, from 1."""
SegmentId = NewType("SegmentId", bytes)
"""32 random bytes: the name of a segment and the material of its key."""


class Clock(Protocol):
    """Where time comes from. Tests pass their own."""

    def time_ns(self) -> int:
        """Wall clock, ns since 1970 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def boottime(self) -> float:
        """Seconds that never go back, and go on while the machine sleeps."""
        ...


class Entropy(Protocol):
    """Where random bytes come from."""

    def __call__(self, size: int, /) -> bytes: ...


class SystemClock:
    """The machine's clock. `monotonic` stands still while the machine sleeps; it is read on every
    write, and the clock that runs on (CLOCK_BOOTTIME) costs a system call of 14 us here."""

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


SystemEntropy: Entropy = os.urandom
