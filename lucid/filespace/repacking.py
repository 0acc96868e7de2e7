"""Segments of which little is alive are written anew: the live blocks are opened, sealed into new
segments, and put; then a `repack` op says where they lie.

Nothing is deleted here. The old segments are ended by a later floor, above that op, and then a
collector deletes them. What was put and is in no entry is an orphan, which a collector deletes too:
so it may be stopped anywhere. Used by one thread, the collector's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lucid.crypto.footer import check_footer, open_footer
from lucid.data.pack_image import PackImage, PlainBlock
from lucid.data.segments import KeySource
from lucid.engine import errors as engine_errors
from lucid.engine.sodium import open_
from lucid.errors import CorruptObject, DataError, ObjectMissing, UnknownKey
from lucid.filespace.collection import Collection
from lucid.filespace.leftovers import Progress
from lucid.filespace.live_blocks import LiveBlock, LiveBytes, Sparse, blocks_of, find_sparse
from lucid.filespace.visiting import Visit
from lucid.format.change import SegmentRow
from lucid.format.hashes import digest16
from lucid.format.names import segment_key
from lucid.format.ops import Move
from lucid.format.segment import FooterRow
from lucid.meta.replica import Replica

__all__ = ["REPACK_BELOW", "REPACK_MAX", "Commit", "Repacking"]

REPACK_BELOW = 0.5
"""Segments of whose blocks a smaller part is alive are written anew, if nothing else is said."""
REPACK_MAX = 10 << 30
"""So many live bytes are written anew at a time, if nothing else is said."""

MOVES_MAX = 8192
"""Moves of one op: folding them takes a mounted drive less than a second."""
GROUP_BYTES = 1 << 30
GROUP_SEGMENTS = 16_384
"""Live bytes, and segments, whose blocks are known at a time: a pass over all maps for each."""
GAP_BYTES = 256 << 10
"""Dead bytes between two live blocks that are read with them: cheaper than another request."""

Commit = Callable[[Sequence[Move], Sequence[SegmentRow]], bool]
"""Writes moves, and the rows of what they lead to, into the log; False if they cannot count any
more."""

_Live = dict[int, LiveBlock]


class _Run(NamedTuple):
    """Live blocks that lie one after another."""

    ordinal: int
    offset: int
    blocks: list[LiveBlock]

    @property
    def end(self) -> int:
        return self.blocks[-1].offset + self.blocks[-1].length


class Repacking:
    """See the module. What is done is counted in a Collection."""

    def __init__(
        self, visit: Visit, replica: Replica, found: Collection, report: Progress, commit: Commit
    ) -> None:
        superblock = visit.unlocked.superblock
        self._visit = visit
        self._replica = replica
        self._found = found
        self._report = report
        self._commit = commit
        self._filespace = superblock.filespace
        self._keys = KeySource(visit.ring.data_key, superblock.filespace, superblock.suite)
        self._image: PackImage | None = None
        self._moves: list[Move] = []
        self._rows: list[SegmentRow] = []
        self._sources: list[Sparse] = []

    def find(self, floor: int, below: float, most: int) -> list[Sparse]:
        """The segments that are worth it; see `find_sparse`."""
        live = LiveBytes(self._visit.geometry)
        for count, named in enumerate(self._replica.named_runs(), 1):
            live.add(named)
            if count % 1000 == 0:
                self._report("maps", count, None)
        rows = self._replica.segments()
        return find_sparse(rows, live, floor=floor, below=below, most=most)

    def run(self, sparse: Sequence[Sparse]) -> None:
        """Write these anew. Raises StoreError, and what committing raises: then some of it is done,
        and the rest is as it was."""
        done = 0
        for group in _groups(sparse):
            lying = self._lying({one.row.id for one in group})
            for one in group:
                done += 1
                self._report("repack segments", done, len(sparse))
                runs = self._opened(one.row, lying.get(one.row.id, {}))
                if runs is not None and not self._take(one, runs):
                    return
        self._settle()

    # -- what is there

    def _lying(self, segments: set[bytes]) -> dict[bytes, _Live | None]:
        """The live blocks of these, by ordinal; None where two maps say different things of one."""
        lying: dict[bytes, _Live | None] = {}
        for named in self._replica.named_runs():
            if named.run.segment not in segments:
                continue
            live = lying.setdefault(named.run.segment, {})
            if live is None:
                continue
            for ordinal, block in blocks_of(named, self._visit.geometry):
                if live.setdefault(ordinal, block)[:3] != block[:3]:
                    lying[named.run.segment] = None
                    break
        return lying

    def _opened(
        self, row: SegmentRow, live: _Live | None
    ) -> list[tuple[_Run, list[PlainBlock]]] | None:
        """The live blocks of a segment, opened; None if it is left as it is."""
        try:
            if live is None or any(block.flags for block in live.values()):
                raise CorruptObject("Its blocks lie in no way that is known here.")
            footer = self._footer(row)
            opened = []
            for start, data, some in self._read(row, list(_runs_of(live))):
                for run in some:
                    opened.append((run, self._open(row, footer, run, data, start)))
            return opened
        except (
            DataError, ObjectMissing, UnknownKey, engine_errors.CorruptBlock, ValueError,
        ) as error:  # fmt: skip
            self._found.warnings.append(
                f"Segment {row.id.hex()} is mostly dead, and is left as it is: {error} See: lucid"
                " fsck --read-data"
            )
            return None

    def _read(self, row: SegmentRow, runs: list[_Run]) -> Iterator[tuple[int, bytes, list[_Run]]]:
        """(offset, stored bytes from there, runs that lie in them)."""
        some: list[_Run] = []
        for run in [*runs, None]:
            if some and (run is None or run.offset - some[-1].end > GAP_BYTES):
                start, end = some[0].offset, some[-1].end
                data = self._visit.store.get(segment_key(row.id), start, end - start)
                yield start, data, some
                some = []
            if run is not None:
                some.append(run)

    def _footer(self, row: SegmentRow) -> Sequence[FooterRow]:
        """What the signed entry vouches for. A block is compared with it, since what is sealed here
        is vouched for anew: who has the key and the bucket could have put another block there."""
        start = row.stored_len - row.footer_len
        tail = self._visit.store.get(segment_key(row.id), start, row.footer_len)
        check_footer(row, tail)
        return open_footer(self._visit.ring, row.id, tail)

    def _open(
        self, row: SegmentRow, footer: Sequence[FooterRow], run: _Run, data: bytes, start: int
    ) -> list[PlainBlock]:
        context = self._keys.context(row.generation)
        key = self._keys.key(row.id, row.generation)
        plains = []
        for ordinal, block in enumerate(run.blocks, run.ordinal):
            at = block.offset - start
            sealed = data[at : at + block.length]
            if ordinal >= len(footer) or digest16(sealed) != footer[ordinal].digest:
                raise CorruptObject(f"Block {ordinal} is not the one that was sealed.")
            plain = open_(context, row.id, key, ordinal, 0, sealed)
            plains.append(PlainBlock(block.ino, block.block, plain))
        return plains

    # -- what is made

    def _take(self, one: Sparse, runs: list[tuple[_Run, list[PlainBlock]]]) -> bool:
        """Its blocks are sealed. False if an earlier part could not be committed any more."""
        if self._moves and len(self._moves) + len(runs) > MOVES_MAX and not self._settle():
            return False
        for run, blocks in runs:
            if self._image is not None and not self._image.has_room(blocks):
                self._put()
            if self._image is None:
                self._image = self._begun()
            place = self._image.add(blocks)
            self._moves.append(
                Move(one.row.id, run.ordinal, run.offset, len(blocks), self._image.segment, *place)
            )
        self._sources.append(one)
        return True

    def _begun(self) -> PackImage:
        generation = self._replica.generation()
        if generation is None:
            raise CorruptObject("The log is not read yet: there is no generation.")
        return PackImage(self._keys, self._filespace, generation.id, self._visit.entropy)

    def _put(self) -> None:
        """The segment that is being made is finished, and in the store. It says the head of before,
        which is no lower than any floor: so it was stored after the entry of each of them."""
        if self._image is not None:
            row, data = self._image.finish(self._replica.head().sequence)
            self._image = None
            self._visit.store.put_if_absent(segment_key(row.id), data)
            self._rows.append(row)

    def _settle(self) -> bool:
        """What was moved so far is in the log when this returns True."""
        if not self._moves:
            return True
        self._put()
        counts = self._commit(sorted(self._moves), self._rows)
        for one in self._sources if counts else ():
            self._found.repacked.add(one.dead)
        self._moves, self._rows, self._sources = [], [], []
        return counts


def _groups(sparse: Sequence[Sparse]) -> Iterator[list[Sparse]]:
    group: list[Sparse] = []
    size = 0
    for one in sparse:
        if group and (size + one.live > GROUP_BYTES or len(group) == GROUP_SEGMENTS):
            yield group
            group, size = [], 0
        group.append(one)
        size += one.live
    if group:
        yield group


def _runs_of(live: _Live) -> Iterator[_Run]:
    """The blocks of a segment as runs, ascending."""
    run: _Run | None = None
    for ordinal, block in sorted(live.items()):
        if run is not None and run.end == block.offset and run.ordinal + len(run.blocks) == ordinal:
            run.blocks.append(block)
            continue
        if run is not None:
            yield run
        run = _Run(ordinal, block.offset, [block])
    if run is not None:
        yield run
