"""Which inodes have reads or writes under way.

The kernel keeps the pages of a read or a write locked until it is answered, and an invalidation of
them waits for that. One read that hangs on the store would so keep the notifier from telling about
everything else; it asks here first. Called by llfuse's workers and the notifier; own lock, nothing
is called with it held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Transfers"]


class Transfers:
    """Guarded by _lock: everything."""

    def __init__(self, on_done: Callable[[], None]) -> None:
        """on_done: called when an inode that `older` was asked about may have become free."""
        self._on_done = on_done
        self._lock = threading.Lock()
        self._last = 0
        self._under_way: dict[int, set[int]] = {}
        self._asked_about: set[int] = set()

    def begin(self, ino: int) -> int:
        """A transfer begins; its number."""
        with self._lock:
            self._last += 1
            self._under_way.setdefault(ino, set()).add(self._last)
            return self._last

    def end(self, ino: int, number: int) -> None:
        with self._lock:
            numbers = self._under_way[ino]
            numbers.remove(number)
            if not numbers:
                del self._under_way[ino]
            if ino not in self._asked_about:
                return
            self._asked_about.discard(ino)
        self._on_done()

    def now(self) -> int:
        """The number of the transfer that began last."""
        with self._lock:
            return self._last

    def older(self, ino: int, number: int) -> bool:
        """Whether a transfer of the inode is under way that began no later than `number`."""
        with self._lock:
            waits = min(self._under_way.get(ino, (number + 1,))) <= number
            if waits:
                self._asked_about.add(ino)
            return waits
