"""Who may lock what of one inode: the rules of flock and fcntl, as on a local disk.

Pure and in memory; not safe for threads, its owner `locks.Locks` guards it. A granted lock stands
against others at once; who waits stands in the way of nobody, so a reader comes in beside readers
also while a writer waits. That is how Linux does it, and programs hang on it: a process that shares
a lock and waits for a child that shares it too would wait for ever behind such a writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

__all__ = ["TO_THE_END", "HeldLock", "InodeLocks", "LockMode", "LockRequest", "closes_circle"]

TO_THE_END = (1 << 63) - 1
"""The end of a range that goes on for ever."""


class LockMode(IntEnum):
    """What a lock lets others do: many may share it, one has it alone."""

    NONE = 0
    SHARED = 1
    EXCLUSIVE = 2


class LockRequest(NamedTuple):
    """What a program asks of an inode. NONE unlocks."""

    number: int
    """Of the request, never used again."""
    ino: int
    owner: int
    """Whoever locks together: a process for fcntl, an open file for flock and OFD locks."""
    pid: int
    handle: int
    """The open file through which it came."""
    is_flock: bool
    mode: LockMode
    start: int
    end: int
    """The last byte, inclusive."""
    waits: bool


class HeldLock(NamedTuple):
    """Bytes [start, end] that an owner has locked. flock's are the whole file."""

    start: int
    end: int
    mode: LockMode
    pid: int
    handle: int
    since_ns: int

    def overlaps(self, start: int, end: int) -> bool:
        return self.start <= end and start <= self.end


class InodeLocks:
    """The granted locks of one inode. flock's and fcntl's do not see each other.

    Invariant: the ranges of an owner are sorted and do not overlap; no owner has an empty list.
    """

    def __init__(self) -> None:
        self._ranges: dict[int, list[HeldLock]] = {}
        self._whole: dict[int, HeldLock] = {}

    # -- questions

    def against(self, request: LockRequest) -> Iterator[tuple[int, HeldLock]]:
        """The locks of other owners that stand against a request, with their owners."""
        for owner, held in self._of_kind(request.is_flock):
            if owner == request.owner:
                continue
            if LockMode.EXCLUSIVE not in (held.mode, request.mode):
                continue
            if request.is_flock or held.overlaps(request.start, request.end):
                yield owner, held

    def first_against(self, request: LockRequest) -> HeldLock | None:
        """The one with the lowest bytes; None: the request can be granted."""
        found = [held for _, held in self.against(request)]
        return min(found, default=None)

    def strongest(self) -> LockMode:
        """What all of the locks together need."""
        return max((held.mode for held in self.all()), default=LockMode.NONE)

    def all(self) -> Iterator[HeldLock]:
        yield from self._whole.values()
        for ranges in self._ranges.values():
            yield from ranges

    def _of_kind(self, is_flock: bool) -> Iterator[tuple[int, HeldLock]]:
        if is_flock:
            yield from self._whole.items()
        else:
            for owner, ranges in self._ranges.items():
                for held in ranges:
                    yield owner, held

    def flock_of(self, owner: int) -> LockMode:
        held = self._whole.get(owner)
        return held.mode if held else LockMode.NONE

    def rows(self) -> Iterator[tuple[bool, HeldLock]]:
        """Every lock, and whether it is flock's."""
        for is_flock in (True, False):
            for _, held in self._of_kind(is_flock):
                yield is_flock, held

    def __bool__(self) -> bool:
        return bool(self._ranges or self._whole)

    # -- changes

    def put(self, request: LockRequest, since_ns: int) -> None:
        """Lock, or unlock, what is asked; what the owner had of these bytes gives way.

        REQUIRES: nothing stands against it.
        """
        held = HeldLock(
            request.start, request.end, request.mode, request.pid, request.handle, since_ns
        )
        if request.is_flock:
            self._whole.pop(request.owner, None)
            if request.mode:
                self._whole[request.owner] = held._replace(start=0, end=TO_THE_END)
            return
        left = list(_without(self._ranges.pop(request.owner, []), request.start, request.end))
        if request.mode:
            left = _joined([*left, held])
        if left:
            self._ranges[request.owner] = left

    def drop_owner(self, owner: int, is_flock: bool) -> bool:
        """All that an owner has of one kind; whether there was something."""
        if is_flock:
            return self._whole.pop(owner, None) is not None
        return self._ranges.pop(owner, None) is not None

    def drop_handle(self, handle: int) -> bool:
        """All that was locked through an open file; whether there was something."""
        before = sum(1 for _ in self.all())
        self._whole = {owner: one for owner, one in self._whole.items() if one.handle != handle}
        kept = {
            owner: [one for one in ranges if one.handle != handle]
            for owner, ranges in self._ranges.items()
        }
        self._ranges = {owner: ranges for owner, ranges in kept.items() if ranges}
        return sum(1 for _ in self.all()) != before


def _without(ranges: Iterable[HeldLock], start: int, end: int) -> Iterator[HeldLock]:
    """What is left of ranges outside of [start, end]."""
    for held in ranges:
        if not held.overlaps(start, end):
            yield held
            continue
        if held.start < start:
            yield held._replace(end=start - 1)
        if held.end > end:
            yield held._replace(start=end + 1)


def _joined(ranges: list[HeldLock]) -> list[HeldLock]:
    """Sorted, and neighbours that differ in nothing but their bytes and their age made one."""
    joined: list[HeldLock] = []
    for held in sorted(ranges):
        last = joined[-1] if joined else None
        if last and last.end + 1 == held.start and last[2:5] == held[2:5]:
            joined[-1] = last._replace(end=held.end, since_ns=min(last.since_ns, held.since_ns))
        else:
            joined.append(held)
    return joined


def closes_circle(
    owner: int, blockers: Iterable[int], waits_for: Callable[[int], Iterable[int]]
) -> bool:
    """Whether `owner` would wait for itself, if it waited for `blockers`.

    waits_for: the owners for which a waiting owner waits; none for one that does not wait.
    """
    seen: set[int] = set()
    ahead = list(blockers)
    while ahead:
        one = ahead.pop()
        if one == owner:
            return True
        if one not in seen:
            seen.add(one)
            ahead.extend(waits_for(one))
    return False
