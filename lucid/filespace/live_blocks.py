"""Which sealed blocks of which segments the state still names, and which segments are mostly dead.

Values and sums over what a replica says; used by one thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from lucid.format.change import SegmentRow
from lucid.format.runs import Geometry
from lucid.meta.replica_live import Named

__all__ = ["LiveBlock", "LiveBytes", "Sparse", "blocks_of", "find_sparse"]


class LiveBlock(NamedTuple):
    """A sealed block that is named. `ino` and `block` are those of one file that has it."""

    offset: int
    length: int  # stored bytes, with the tag
    flags: int
    ino: int
    block: int


class Sparse(NamedTuple):
    """A segment of which little is alive: `live` bytes of its blocks, each counted once."""

    row: SegmentRow
    live: int

    @property
    def dead(self) -> int:
        """Bytes that the store would not hold any more."""
        return self.row.stored_len - self.live


class LiveBytes:
    """Bytes of sealed blocks that are named, by segment; a block that many name counts once."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._ordinals: dict[bytes, int] = {}  # a bit for each
        self._bytes: dict[bytes, int] = {}

    def add(self, named: Named) -> None:
        run = named.run
        seen = self._ordinals.get(run.segment, 0)
        bits = (1 << run.count) - 1 << run.ordinal
        if seen & bits == bits:
            return
        self._ordinals[run.segment] = seen | bits
        fresh = sum(
            block.length
            for ordinal, block in blocks_of(named, self._geometry)
            if not seen >> ordinal & 1
        )
        self._bytes[run.segment] = self._bytes.get(run.segment, 0) + fresh

    def of(self, segment: bytes) -> int:
        return self._bytes.get(segment, 0)


def blocks_of(named: Named, geometry: Geometry) -> Iterator[tuple[int, LiveBlock]]:
    """(ordinal, block) of each block of a run."""
    ino, run = named
    offset = run.offset
    for at in range(run.count):
        if run.lengths is not None:
            length = run.lengths[at]
        elif at == run.count - 1:
            length = run.last_len + geometry.tag
        else:
            length = geometry.stored_block
        yield run.ordinal + at, LiveBlock(offset, length, run.flags, ino, run.first + at)
        offset += length


def find_sparse(
    rows: Iterable[SegmentRow], live: LiveBytes, *, floor: int, below: float, most: int
) -> list[Sparse]:
    """The segments that were sealed below `floor` and of whose blocks less than the part `below`
    is alive, the emptiest first, with `most` live bytes in all at most.

    What nothing names is left out: the next floor ends that.
    """
    found = []
    for row in rows:
        alive, sealed = live.of(row.id), row.stored_len - row.footer_len
        if row.head < floor and 0 < alive < below * sealed:
            found.append(Sparse(row, alive))
    found.sort(key=lambda one: (one.live / one.row.stored_len, one.row.id))
    return list(_up_to(found, most))


def _up_to(found: Collection[Sparse], most: int) -> Iterator[Sparse]:
    for one in found:
        most -= one.live
        if most < 0:
            return
        yield one
