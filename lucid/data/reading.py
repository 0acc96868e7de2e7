"""Reading file versions: the engine's reader, the fetcher behind it, and maps from rows.

Any thread may call. Nothing here is held over I/O.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from lucid.data.fetch import GET_MAX, Fetcher
from lucid.data.miss_regions import MissRegions
from lucid.data.pack_ahead import PackStreams
from lucid.data.segments import SEGMENT_PLAIN_MAX, KeySource
from lucid.engine import errors as engine_errors
from lucid.engine.blockmap import BlockMap
from lucid.engine.cachemap import CacheMap
from lucid.engine.reader import Miss, ReadBuffer, Reader
from lucid.errors import CorruptBlock, CorruptObject, InternalError, Stopped, StoreUnavailable
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.runs import Geometry

__all__ = ["READ_MAX", "BlockReader", "MapBuilder"]

READ_MAX = 1024 * 1024
LARGE_SHARE = 4
"""A file is large when it would take more than this part of the cache."""
SEGMENTS_LEAST = 16
"""Whole segments are fetched for a few reads in them only into a cache that holds so many."""
SMALL_FILE = 1024 * 1024
"""Files up to this lie together with others in a segment, in the order in which they were closed.
"""
AROUND_GET = 2 * 1024 * 1024
"""Bytes of a GET around reads here and there: the next one may be in the middle of it."""
NEXT_AHEAD = 512 * 1024
"""Bytes of the next segment of packed files that are there when a reader comes to it."""
ATTEMPTS = 8
"""A block may be evicted between its fetch and its read; more often than this is a fault."""


class MapBuilder:
    """Makes BlockMaps from runs: finds or makes the slot of each segment."""

    def __init__(
        self,
        cachemap: CacheMap,
        keys: KeySource,
        geometry: Geometry,
        segment_row: Callable[[bytes], SegmentRow | None],
        staged_slot: Callable[[bytes], int | None],
    ) -> None:
        """`staged_slot` answers a new reference on the slot of a staged segment."""
        self._map = cachemap
        self._keys = keys
        self._geometry = geometry
        self._row = segment_row
        self._staged_slot = staged_slot

    def slot(self, segment: bytes, row: SegmentRow | None = None) -> int:
        """A reference on the slot of a segment that is staged, or that the log names."""
        staged = self._staged_slot(segment)
        if staged is not None:
            return staged
        if row is None or not row.footer_len:
            # It was unfinished when the row was read, and is committed by now.
            row = self._row(segment)
        if row is None:
            raise CorruptObject(f"Segment {segment.hex()[:16]} is named by nothing in the log.")
        return self._map.acquire(
            segment,
            self._keys.key(segment, row.generation),
            self._keys.context(row.generation),
            row.stored_len,
        )

    def build(self, runs: Sequence[Change], size: int) -> BlockMap:
        """The map of a file of `size` bytes from its runs."""
        slots: dict[bytes, int] = {}
        try:
            for run in runs:
                if run.kind == DATA and run.segment not in slots:
                    slots[run.segment] = self.slot(run.segment)
            return self._columns(runs, size, slots)
        finally:
            for slot in slots.values():
                self._map.release(slot)

    def _columns(self, runs: Sequence[Change], size: int, slots: dict[bytes, int]) -> BlockMap:
        flat: list[int] = []
        index: list[int] = []
        for run in runs:
            index.append(len(flat) if run.lengths is not None else -1)
            if run.lengths is not None:
                flat.extend(run.lengths)
        return BlockMap(
            self._map,
            self._geometry.block_size,
            size,
            array("q", [run.first for run in runs]),
            array("q", [run.count for run in runs]),
            array("B", [run.kind for run in runs]),
            array("i", [slots.get(run.segment, -1) for run in runs]),
            array("q", [run.ordinal for run in runs]),
            array("q", [run.offset for run in runs]),
            array("I", [run.flags for run in runs]),
            array("I", [run.last_len for run in runs]),
            array("I", [run.last_valid for run in runs]),
            array("I", flat) if flat else None,
            array("q", index) if flat else None,
        )


class BlockReader:
    """Reads byte ranges of maps, fetching what is not here."""

    def __init__(
        self, cachemap: CacheMap, reader: Reader, fetcher: Fetcher, cache_bytes: int
    ) -> None:
        """cache_bytes: what the cache may hold."""
        self._map = cachemap
        self._reader = reader
        self._fetcher = fetcher
        self._large = cache_bytes // LARGE_SHARE
        self._has_room = cache_bytes >= SEGMENTS_LEAST * SEGMENT_PLAIN_MAX
        self._packs = PackStreams(cachemap, cache_bytes)
        self._regions = MissRegions(cachemap)

    def read(self, blockmap: BlockMap, offset: int, length: int) -> ReadBuffer:
        """The bytes [offset, offset + length), cut to the size; at most READ_MAX.

        Raises CorruptBlock, CorruptObject or StoreUnavailable, all EIO.
        """
        distrusted: set[tuple[int, int]] = set()
        unreadable: set[int] = set()
        left = ATTEMPTS
        while left:
            left -= 1
            try:
                result = self._reader.read(blockmap, offset, length)
                if not isinstance(result, Miss):
                    return result
                # What was on its way lies where a reader was expected: that is no new place.
                new = [one for one in result.ranges if not self._fetcher.is_coming(*one[:2])]
                sources = self._fetcher.demand(result.ranges)
                if not sources:
                    self._around(blockmap, new)
                else:
                    result = self._reader.open_from(blockmap, offset, length, sources)
                    if isinstance(result, Miss):
                        sources = self._fetcher.past_cache(blockmap.needs(offset, length))
                        result = self._reader.open_from(blockmap, offset, length, sources)
                    if not isinstance(result, Miss):
                        return result
            except engine_errors.CorruptBlock as error:
                self._distrust(blockmap, offset, length, error, distrusted)
                # After loss of power each segment of a file may be such: one more to find out, and
                # one to fetch it.
                left += 2
            except engine_errors.CacheIOError as error:
                if error.slot not in unreadable:
                    unreadable.add(error.slot)
                    left += 2
                # A staged file that is not there is being moved into the cache this moment.
                self._fetcher.wait_moved()
                self._forget(blockmap, offset, length, error.slot)
            except engine_errors.UnreadableBlock as error:
                raise CorruptBlock(
                    "This part of the file is compressed, which this version cannot read."
                ) from error
            except engine_errors.LostBlock as error:
                raise CorruptBlock("This part of the file is recorded as lost.") from error
        raise StoreUnavailable(
            "The cache gave up what it had just fetched, again and again; it may be too small."
        )

    def is_local(self, blockmap: BlockMap, offset: int, length: int) -> bool:
        """Whether this range can be read without the store."""
        return not any(
            self._map.missing(slot, start, size)
            for slot, start, size in blockmap.needs(offset, length)
        )

    def fetch(self, blockmap: BlockMap, ranges: Iterable[tuple[int, int]]) -> None:
        """Bring (offset, length) ranges into the cache, waiting for all of them."""
        needs = [need for offset, length in ranges for need in blockmap.needs(offset, length)]
        self._fetcher.demand(needs)

    def ahead(self, blockmap: BlockMap, offset: int, length: int) -> int:
        """Begin to fetch a range that may be read soon.

        What is read from end to end and takes much of the cache is the first to leave it again: a
        film that is looked at once must not push out what is worked on.
        """
        needs = self._to_the_end(blockmap, offset, length)
        begun = self._fetcher.ahead(needs)
        if begun and blockmap.size > self._large:
            for slot in {slot for slot, _, _ in needs}:
                self._map.set_read_once(slot, True)
        return begun

    @staticmethod
    def _to_the_end(blockmap: BlockMap, offset: int, length: int) -> list[tuple[int, int, int]]:
        """What a range needs; where it is long and ends a little before its segment does, up to
        that end. Small remainders would cost a round trip each."""
        needs = blockmap.needs(offset, length)
        if length < GET_MAX // 2:
            return needs
        further = blockmap.needs(offset, length + min(length, GET_MAX))
        if len(needs) < len(further):
            return further[: len(needs)]
        return needs

    def neighbours(self, blockmap: BlockMap, behind: Callable[[int], int | None]) -> None:
        """A file is about to be read from its start: if it is small, those that were packed behind
        it may be next.

        behind: a new reference on the slot of the segment that follows this slot's, or None.
        """
        if blockmap.size > SMALL_FILE:
            return
        for slot, start, size in blockmap.needs(0, blockmap.size):
            want = self._packs.read(slot, start, size)
            if want is None:
                continue
            self._fetcher.ahead([want])
            following = behind(slot) if self._packs.goes_beyond(want) else None
            if following is not None:
                try:
                    length = min(NEXT_AHEAD, self._map.stored_len(following))
                    self._fetcher.ahead([(following, 0, length)])
                finally:
                    self._map.release(following)

    def _around(self, blockmap: BlockMap, missed: Sequence[tuple[int, int, int]]) -> None:
        """Somebody has waited for these ranges: the next may lie in the same segments.

        Not for a large file, of which the cache would give up one part for another. The read has
        its bytes: that the filespace is being closed is nothing to it.
        """
        if not self._has_room or blockmap.size > self._large:
            return
        for slot, offset, _ in missed:
            want = self._regions.missed(slot, offset)
            if want is not None:
                with suppress(Stopped):
                    if self._fetcher.ahead([want], AROUND_GET):
                        self._regions.fetched(slot)

    def _distrust(
        self,
        blockmap: BlockMap,
        offset: int,
        length: int,
        error: engine_errors.CorruptBlock,
        distrusted: set[tuple[int, int]],
    ) -> None:
        """A tag failed: from the cache it is a miss, from the store again it is final."""
        if error.slot is None or error.ordinal is None:
            raise InternalError("The engine did not say which block is corrupt.") from error
        block = (error.slot, error.ordinal)
        if not error.from_cache or block in distrusted or self._map.is_staged(error.slot):
            segment = self._map.segment_id(error.slot).hex()[:16]
            raise CorruptBlock(
                f"Block {error.ordinal} of segment {segment} does not open: "
                "it was altered or damaged in the store."
            ) from error
        distrusted.add(block)
        self._forget(blockmap, offset, length, error.slot)

    def _forget(self, blockmap: BlockMap, offset: int, length: int, slot: int) -> None:
        for one, start, size in blockmap.needs(offset, length):
            if one == slot and not self._map.is_staged(slot):
                self._map.clear_present(slot, start, size)
