"""Entries that are fetched before they are asked for, so that who is far away keeps up with many.

Owns up to eight threads, which begin with the first burst. Asked by the sync thread only, or by the
one that opens a filespace before there is a sync thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from lucid.errors import LucidError
from lucid.meta.log import LogReader

__all__ = ["LogAhead", "reading_ahead"]

WIDTH_MAX = 8
BYTES_MAX = 4 << 20
"""Of entries on their way at once, if all are like the last one."""


class LogAhead:
    """`fetch` as a LogReader's own, quicker where entry follows entry.

    Only an entry that is there is taken from what was fetched ahead: that one is not there may be
    old news, and an error may be over. Both are asked for again.
    """

    def __init__(self, fetch: Callable[[int], bytes | None]) -> None:
        self._fetch = fetch
        self._threads = ThreadPoolExecutor(WIDTH_MAX, thread_name_prefix="lucid-log")
        self._ahead: dict[int, Future[bytes | None]] = {}
        self._last = -1
        self._width = 0

    def fetch(self, sequence: int) -> bytes | None:
        """The stored bytes of an entry; None if the store has none. Raises StoreError."""
        follows = sequence == self._last + 1
        data = self._fetched(sequence)
        if data is None:
            # What was asked for too early is old by now, and so is all that lies behind it.
            self._drop()
            if follows and self._width:
                self._width = max(2, self._width // 2)
                self._ask(sequence, self._width)
            data = self._fetch(sequence)
        if data is None:
            self._drop()
            self._width, self._last = 0, -1
            return None
        # A single one costs nothing more: most looks find one entry.
        self._width = min(WIDTH_MAX, 2 * self._width or 2) if follows else 0
        self._last = sequence
        if self._width:
            self._ask(sequence, min(self._width, max(1, BYTES_MAX // (len(data) + 1))))
        return data

    def _ask(self, sequence: int, count: int) -> None:
        """For so many that come after it."""
        for number in range(sequence + 1, sequence + 1 + count):
            if number not in self._ahead:
                self._ahead[number] = self._threads.submit(self._fetch, number)

    def _fetched(self, sequence: int) -> bytes | None:
        future = self._ahead.pop(sequence, None)
        try:
            return None if future is None else future.result()
        except LucidError:
            return None

    def _drop(self) -> None:
        for future in self._ahead.values():
            future.cancel()
        self._ahead.clear()

    def close(self, wait: bool = True) -> None:
        """Ends the threads, and waits for their calls if `wait`. REQUIRES: calls that hang end, for
        the store is closed, or will be."""
        self._drop()
        self._threads.shutdown(wait=wait)


@contextmanager
def reading_ahead(reader: LogReader) -> Iterator[None]:
    """What `reader` judges meanwhile is fetched ahead; afterwards one at a time again."""
    ahead, before = LogAhead(reader.fetch), reader.ahead
    reader.ahead = ahead.fetch
    try:
        yield
    finally:
        reader.ahead = before
        # What is on its way is of no use to anybody, and a store that is away may take its time.
        ahead.close(wait=False)
