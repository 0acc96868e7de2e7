"""One block that is being written and is not sealed yet: its bytes, and which of them are known.

Not safe for threads: the draft that owns it locks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["DirtyBlock", "Ranges"]


class Ranges:
    """A set of byte ranges [start, end), kept sorted and joined."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def add(self, start: int, end: int) -> None:
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def cut(self, size: int) -> None:
        """Forget all from `size` on."""
        keep = bisect_left(self._starts, size)
        del self._starts[keep:]
        del self._ends[keep:]
        if self._ends and self._ends[-1] > size:
            self._ends[-1] = size

    def covers(self, start: int, end: int) -> bool:
        if start >= end:
            return True
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and self._ends[place] >= end

    def clear(self) -> None:
        self._starts.clear()
        self._ends.clear()


class DirtyBlock:
    """What was written of one block. `unsaved` are the ranges that no journal record holds yet."""

    __slots__ = ("data", "known", "unsaved")

    def __init__(self) -> None:
        self.data = bytearray()
        self.known = Ranges()
        self.unsaved = Ranges()

    def write(self, start: int, data: bytes | memoryview, saved: bool = False) -> int:
        """Lay `data` at `start`; returns by how many bytes the buffer grew."""
        end = start + len(data)
        before = len(self.data)
        if start == before:
            self.data += data
        else:
            if end > before:
                self.data.extend(bytes(end - before))
            self.data[start:end] = data
        self.known.add(start, end)
        if not saved:
            self.unsaved.add(start, end)
        return len(self.data) - before

    def cut(self, size: int) -> int:
        """Forget all from `size` on; returns by how many bytes the buffer shrank."""
        before = len(self.data)
        del self.data[size:]
        self.known.cut(size)
        self.unsaved.cut(size)
        return before - len(self.data)

    def is_whole(self, length: int) -> bool:
        """Whether every byte up to `length` (of the block that is in the file) is known."""
        return self.known.covers(0, length)

    def lay_over(
        self, target: bytearray | memoryview, target_start: int, start: int, end: int
    ) -> None:
        """Copy the known bytes of [start, end) of the block to `target`, where `start` lies at
        `target_start`."""
        for low, high in self.known:
            low, high = max(low, start), min(high, end)
            if low < high:
                place = target_start + low - start
                target[place : place + high - low] = memoryview(self.data)[low:high]
