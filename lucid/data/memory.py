"""The memory budget: buffers are taken from shares of one total, so that no user starves another.

Uploads and demand reads own shares that writers and read-ahead can never take: what drains memory
must always find some. Any thread may call; every wait is bounded.
"""

from __future__ import annotations

import threading

from lucid.errors import TimedOut

__all__ = ["MemoryBudget", "Share"]


class Share:
    """A part of the budget, in bytes. `_lock` guards all of it."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._waiting = 0
        """Who waits for `_free`: most of the time nobody, and nobody is told."""
        self._taken = 0
        self._closed = False

    @property
    def taken(self) -> int:
        return self._taken

    def take(self, size: int, timeout: float) -> None:
        """Take `size` bytes, waiting until there is room.

        One request larger than the whole share is let in alone. Raises TimedOut.
        """
        with self._lock:
            if not self._fits(size) and not self._wait_until_it_fits(size, timeout):
                raise TimedOut(
                    f"No memory for {self.name} came free within {timeout:.0f} s; "
                    "the disk or the store is too slow for what is written."
                )
            self._taken += size

    def _fits(self, size: int) -> bool:
        return self._closed or not self._taken or self._taken + size <= self.total

    def _wait_until_it_fits(self, size: int, timeout: float) -> bool:
        self._waiting += 1
        try:
            return self._free.wait_for(lambda: self._fits(size), timeout)
        finally:
            self._waiting -= 1

    def try_take(self, size: int) -> bool:
        """Take `size` bytes if there is room now."""
        with self._lock:
            if self._taken and self._taken + size > self.total:
                return False
            self._taken += size
            return True

    def charge(self, size: int) -> None:
        """Count bytes that are there already; may go over the total for a moment."""
        with self._lock:
            self._taken += size

    def give(self, size: int) -> None:
        with self._lock:
            self._taken -= size
            if self._waiting:
                self._free.notify_all()

    def held(self, size: int, timeout: float) -> _Held:
        """A context: `size` bytes are taken when it is entered, and given back when it is left."""
        return _Held(self, size, timeout)

    def close(self) -> None:
        """Let every waiter through: the owner is shutting down."""
        with self._free:
            self._closed = True
            self._free.notify_all()


class _Held:
    """See `Share.held`. A class, for a generator costs each write twice as much."""

    __slots__ = ("_share", "_size", "_timeout")

    def __init__(self, share: Share, size: int, timeout: float) -> None:
        self._share = share
        self._size = size
        self._timeout = timeout

    def __enter__(self) -> None:
        self._share.take(self._size, self._timeout)

    def __exit__(self, *_exception: object) -> None:
        self._share.give(self._size)


class MemoryBudget:
    """One total, split once. What the pool of opened blocks takes is taken off first."""

    def __init__(self, total: int, pool: int) -> None:
        rest = total - pool
        self.writing = Share("writing", rest * 30 // 100)
        """Parts of blocks that are being written."""
        self.uploading = Share("uploading", rest * 46 // 100)
        """Segments on their way to the store."""
        self.fetching = Share("fetching", rest * 24 // 100)
        """Buffers of GETs, demand and read-ahead together; demand never waits for it."""

    def taken(self) -> int:
        return self.writing.taken + self.uploading.taken + self.fetching.taken

    def close(self) -> None:
        for share in (self.writing, self.uploading, self.fetching):
            share.close()
