"""The read-ahead policy in plain Python, said once more: see engine/streams.pyx for the words."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Streams", "Want"]

MiB = 1024 * 1024
FIRST_WINDOW = MiB
STREAMS_MAX = 4
BACKWARD = 512 * 1024
"""Kernel read-ahead sends several requests at once; they may come in any order."""
FORWARD = 2 * MiB
"""A skip up to this keeps the stream: fetching the gap costs less than starting again."""


class Want(NamedTuple):
    start: int
    end: int


class _Stream:
    """One sequential reader. `position` is the end of its furthest read, `asked` how far was
    fetched."""

    __slots__ = ("asked", "is_sure", "position", "start", "used", "window")

    def __init__(self, start: int, position: int, window: int, is_sure: bool) -> None:
        self.start = start
        self.is_sure = is_sure
        self.position = position
        self.asked = position
        self.window = window
        self.used = 0


class Streams:
    """The sequential readers of one handle."""

    def __init__(self, block_size: int, window_max: int) -> None:
        self._block = block_size
        self._window_max = window_max
        self._streams: list[_Stream] = []
        self._ends: list[int] = []  # where recent reads that belong to no stream ended
        self._clock = 0
        self._is_trusted = False  # it has read on, so the next jump is expected to as well

    def read(self, offset: int, length: int, size: int) -> Want | None:
        """A read of [offset, offset + length) of a file of `size` bytes is served now.

        Returns the range to fetch ahead, or None.
        """
        end = min(offset + length, size)
        self._clock += 1
        stream = self._match(offset, end)
        reads_on = stream is not None and offset <= stream.asked
        if stream is None:
            stream = self._begin(offset, end)
            if stream is None:
                return None
        stream.used = self._clock
        stream.position = max(stream.position, end)
        stream.asked = max(stream.asked, stream.position)
        if reads_on and stream.position - stream.start >= 3 * MiB:
            stream.is_sure = self._is_trusted = True
        if stream.asked - stream.position > stream.window // 2 or stream.asked >= size:
            return None
        start = stream.asked
        if reads_on:
            window = min(stream.window * 4, self._window_max)
            if stream.start:
                so_far = stream.position - stream.start
                allowed = so_far if stream.is_sure else so_far // 2
                window = min(window, max(4 * self._block, allowed))
            stream.window = max(stream.window, window)
        stream.asked = min(size, stream.position + stream.window)
        return Want(start, stream.asked) if stream.asked > start else None

    def _match(self, offset: int, end: int) -> _Stream | None:
        for stream in self._streams:
            back = stream.position - offset
            if (back >= 0 and back <= BACKWARD + stream.window // 8) or 0 < -back <= FORWARD:
                return stream
        return None

    def _begin(self, offset: int, end: int) -> _Stream | None:
        is_sure = False
        if offset == 0:
            window = min(FIRST_WINDOW, self._window_max)
        elif any(0 <= offset - last <= self._block for last in self._ends):
            window = min(max(self._block, end - offset), FIRST_WINDOW, self._window_max)
        elif self._is_trusted:
            self._is_trusted = False
            is_sure = True
            window = min(FIRST_WINDOW, self._window_max)
        else:
            self._ends.append(end)
            del self._ends[:-STREAMS_MAX]
            return None
        stream = _Stream(offset, end, window, is_sure)
        if len(self._streams) >= STREAMS_MAX:
            self._streams.remove(min(self._streams, key=lambda one: one.used))
        self._streams.append(stream)
        return stream
