"""Arithmetic of runs: cutting, slicing and laying the changes that make up a file's map.

A *run* is a `Change` seen as part of a map: blocks [first, first + count). A map is a list of runs,
ascending and without overlap; what no run names is a gap and reads as zeros. Pure; any thread.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from lucid.format.change import DATA, HOLE, LOST, Change

__all__ = ["Geometry", "RunMap", "cut_run", "run_bytes", "slice_run", "stored_bytes"]


class Geometry(NamedTuple):
    """What block arithmetic needs to know of a filespace, in bytes."""

    block_size: int
    tag: int

    @property
    def stored_block(self) -> int:
        """A full block as it lies in a segment."""
        return self.block_size + self.tag


def slice_run(run: Change, first: int, end: int, geometry: Geometry) -> Change:
    """The part of `run` in blocks [first, end), which must not be empty."""
    first, end = max(first, run.first), min(end, run.first + run.count)
    if first == run.first and end == run.first + run.count:
        return run
    count = end - first
    if run.kind != DATA:
        return run._replace(first=first, count=count)
    skipped = first - run.first
    if run.lengths is None:
        offset = run.offset + skipped * geometry.stored_block
        lengths = None
    else:
        offset = run.offset + sum(run.lengths[:skipped])
        lengths = run.lengths[skipped : skipped + count]
    last_len, last_valid = run.last_len, run.last_valid
    if end < run.first + run.count:
        last_len = last_valid = geometry.block_size
        if lengths is not None and not run.flags:
            last_len = last_valid = lengths[-1] - geometry.tag
    return Change(
        first, count, DATA, run.segment, run.ordinal + skipped, offset, run.flags,
        last_len, last_valid, lengths,
    )  # fmt: skip


def cut_run(run: Change, size: int, geometry: Geometry) -> Change | None:
    """`run` as part of a file of `size` bytes: None when nothing of it is left."""
    blocks = -(-size // geometry.block_size)
    if run.first >= blocks:
        return None
    if run.first + run.count > blocks:
        run = slice_run(run, run.first, blocks, geometry)
    if run.kind == DATA and run.first + run.count == blocks:
        valid = size - (blocks - 1) * geometry.block_size
        if valid < run.last_valid:
            run = run._replace(last_valid=valid)
    return run


def run_bytes(run: Change, geometry: Geometry) -> int:
    """Plaintext bytes that count in a run; holes and lost blocks have none."""
    if run.kind != DATA:
        return 0
    if run.lengths is not None and not run.flags:
        return sum(run.lengths[:-1]) - geometry.tag * (run.count - 1) + run.last_valid
    return (run.count - 1) * geometry.block_size + run.last_valid


def stored_bytes(run: Change, geometry: Geometry) -> int:
    """Bytes that a data run takes in its segment."""
    if run.kind != DATA:
        return 0
    if run.lengths is not None:
        return sum(run.lengths)
    return (run.count - 1) * geometry.stored_block + run.last_len + geometry.tag


def _joined(left: Change, right: Change, geometry: Geometry) -> Change | None:
    """One run for two neighbours, where their blocks also follow each other in one segment."""
    if left.kind != right.kind or left.first + left.count != right.first:
        return None
    count = left.count + right.count
    if left.kind in (HOLE, LOST):
        return left._replace(count=count)
    plain = left.lengths is None and right.lengths is None
    if (
        not plain
        or left.segment != right.segment
        or left.flags != right.flags
        or left.last_len != geometry.block_size
        or left.last_valid != geometry.block_size
        or left.ordinal + left.count != right.ordinal
        or left.offset + left.count * geometry.stored_block != right.offset
    ):
        return None
    return left._replace(count=count, last_len=right.last_len, last_valid=right.last_valid)


class RunMap:
    """A map that is written: lay runs over it, cut it. Not safe for threads; its owner locks."""

    def __init__(self, geometry: Geometry, runs: list[Change] | None = None) -> None:
        self.geometry = geometry
        self._runs: list[Change] = list(runs or ())
        self._firsts: list[int] = [run.first for run in self._runs]
        self.revision = 0
        """Goes up at every change: whoever built something from the map sees that it is old."""

    def __len__(self) -> int:
        return len(self._runs)

    def runs(self) -> tuple[Change, ...]:
        return tuple(self._runs)

    def lay(self, run: Change) -> None:
        """Put `run` over what is there."""
        self.revision += 1
        if not self._runs or run.first >= self._runs[-1].first + self._runs[-1].count:
            self._append(run)
            return
        self._clear(run.first, run.first + run.count)
        place = bisect_left(self._firsts, run.first)
        self._runs.insert(place, run)
        self._firsts.insert(place, run.first)

    def cut(self, size: int) -> None:
        """Drop all that lies beyond `size` bytes."""
        self.revision += 1
        while self._runs:
            last = cut_run(self._runs[-1], size, self.geometry)
            if last is not None:
                self._runs[-1] = last
                return
            self._runs.pop()
            self._firsts.pop()

    def between(self, first: int, end: int) -> list[Change]:
        """Runs that have a block in [first, end), each sliced to it."""
        place = max(0, bisect_right(self._firsts, first) - 1)
        found = []
        while place < len(self._runs) and self._runs[place].first < end:
            run = self._runs[place]
            if run.first + run.count > first:
                found.append(slice_run(run, first, end, self.geometry))
            place += 1
        return found

    def kind(self, block: int) -> int | None:
        """The kind of the run that names this block; None where no run does."""
        place = bisect_right(self._firsts, block) - 1
        if place < 0 or block >= self._runs[place].first + self._runs[place].count:
            return None
        return self._runs[place].kind

    def covers(self, block: int) -> bool:
        """Whether some run names this block."""
        return self.kind(block) is not None

    def _append(self, run: Change) -> None:
        joined = _joined(self._runs[-1], run, self.geometry) if self._runs else None
        if joined is not None:
            self._runs[-1] = joined
        else:
            self._runs.append(run)
            self._firsts.append(run.first)

    def _clear(self, first: int, end: int) -> None:
        low = max(0, bisect_right(self._firsts, first) - 1)
        if low < len(self._runs) and self._runs[low].first + self._runs[low].count <= first:
            low += 1
        high = bisect_left(self._firsts, end)
        kept: list[Change] = []
        for run in self._runs[low:high]:
            if run.first < first:
                kept.append(slice_run(run, run.first, first, self.geometry))
            if run.first + run.count > end:
                kept.append(slice_run(run, end, run.first + run.count, self.geometry))
        self._runs[low:high] = kept
        self._firsts[low:high] = [run.first for run in kept]
