"""Writing into drafts, reading from them, making them durable, and building what will be published.

Called from the mount's threads and the publisher; every method takes the draft's lock itself
unless it says REQUIRES. Nothing here waits for the store, except `fetch_missing`, which holds no
lock.
"""

from __future__ import annotations

from collections.abc import Iterable

from lucid.data.dirty import DirtyBlock
from lucid.data.draft import Draft, PatchPlace
from lucid.data.memory import Share
from lucid.data.reading import READ_MAX, BlockReader, MapBuilder
from lucid.data.segments import StagedSegments
from lucid.engine.blockmap import BlockMap
from lucid.errors import CorruptObject, FileTooLarge
from lucid.format.journal import Image, ImageRecord, Patch
from lucid.format.limits import SIZE_MAX
from lucid.local.book import JournalBook
from lucid.local.staging import StagingArea
from lucid.types import Clock, SegmentId

__all__ = ["Drafting"]

PATCH_BYTES_MAX = 1024 * 1024


class Drafting:
    """The worker on drafts. Owns nothing of its own but its connections to the rooms below."""

    def __init__(
        self,
        staged: StagedSegments,
        staging: StagingArea,
        book: JournalBook,
        reader: BlockReader,
        maps: MapBuilder,
        memory: Share,
        clock: Clock,
    ) -> None:
        self._staged = staged
        self._staging = staging
        self._book = book
        self._reader = reader
        self._maps = maps
        self._memory = memory
        self._clock = clock

    # -- writing

    def write(self, draft: Draft, offset: int, data: bytes | memoryview, append: bool) -> int:
        """Lay `data` at `offset`, or at the end. REQUIRES: lock held, memory taken."""
        if append:
            offset = draft.size
        end = offset + len(data)
        if end > SIZE_MAX:
            raise FileTooLarge("A file has at most 1 EiB.")
        if not data:
            return 0
        try:
            self._write_blocks(draft, offset, end, data)
        except BaseException:
            # What was laid beyond the end must not come up when the file grows later.
            self._cut(draft, draft.size)
            raise
        draft.size = max(draft.size, end)
        draft.written = True
        draft.touch(self._clock.time_ns(), self._clock.monotonic())
        return len(data)

    def _write_blocks(self, draft: Draft, offset: int, end: int, data: bytes | memoryview) -> None:
        block_size = draft.geometry.block_size
        with memoryview(data) as view:
            at = offset
            while at < end:
                block, within = divmod(at, block_size)
                full = (end - at) // block_size if not within else 0
                if full:
                    # The file must hold these blocks before a shorter last one can follow.
                    self._seal_full(
                        draft, block, view[at - offset : at - offset + full * block_size]
                    )
                    at += full * block_size
                    continue
                stop = min(end, (block + 1) * block_size)
                self._write_part(draft, block, within, view[at - offset : stop - offset])
                at = stop

    def _seal_full(self, draft: Draft, first: int, view: memoryview) -> None:
        size = draft.geometry.block_size
        count = len(view) // size
        blocks = [view[n * size : (n + 1) * size] for n in range(count)]
        self._lay(draft, first, blocks)
        for block in range(first, first + count):
            self._forget_block(draft, block)

    def _lay(
        self, draft: Draft, first: int, blocks: list[memoryview], accepted: bool = False
    ) -> None:
        for change in self._staged.seal(draft.owner, first, blocks, accepted):
            draft.sealed.lay(change)
        draft.changed = True

    def _write_part(self, draft: Draft, block: int, within: int, view: memoryview) -> None:
        dirty = self._dirty(draft, block)
        self._grow(draft, dirty.write(within, view))
        if dirty.is_whole(draft.geometry.block_size):
            self._lay(draft, block, [memoryview(dirty.data)])
            self._forget_block(draft, block)

    def _dirty(self, draft: Draft, block: int) -> DirtyBlock:
        """The dirty block, with the patches that the journal holds of it."""
        dirty = draft.dirty.get(block)
        if dirty is None:
            dirty = DirtyBlock()
            for place in draft.patches.get(block, ()):
                record = self._book.read(place.live)
                if not isinstance(record, Patch):
                    raise CorruptObject("The journal holds something else where a patch was.")
                dirty.write(place.start, record.data[: place.end - place.start], saved=True)
            # Kept only now that all of it could be read: half of it would hide the rest.
            draft.dirty[block] = dirty
            self._grow(draft, len(dirty.data))
        return dirty

    def _grow(self, draft: Draft, size: int) -> None:
        draft.dirty_bytes += size
        self._memory.charge(size)

    def _forget_dirty(self, draft: Draft, block: int) -> None:
        dirty = draft.dirty.pop(block, None)
        if dirty is not None:
            draft.dirty_bytes -= len(dirty.data)
            self._memory.give(len(dirty.data))

    def _forget_block(self, draft: Draft, block: int) -> None:
        """Sealed since, or cut off: neither memory nor journal is needed for it."""
        self._forget_dirty(draft, block)
        draft.stale.extend(place.live for place in draft.patches.pop(block, ()))

    def truncate(self, draft: Draft, size: int) -> None:
        """Cut or extend to `size`; nothing is fetched. REQUIRES: lock held."""
        if size > SIZE_MAX:
            raise FileTooLarge("A file has at most 1 EiB.")
        if size < draft.size:
            self._cut(draft, size)
            draft.keep = min(draft.keep, size)
            draft.size = size
            draft.truncated = draft.truncated or size == 0
            draft.touch(self._clock.time_ns(), self._clock.monotonic())
            if draft.patched:
                # Not saved now: until a FLUSH, what was there when the last one came is what a
                # crash brings back, and nothing else. A program may be about to write it anew.
                draft.cut_to = size if draft.cut_to is None else min(draft.cut_to, size)
            return
        draft.size = size
        draft.touch(self._clock.time_ns(), self._clock.monotonic())

    def _cut(self, draft: Draft, size: int) -> None:
        block_size = draft.geometry.block_size
        last, within = divmod(size, block_size)
        draft.sealed.cut(size)
        for block in [one for one in draft.dirty if one >= last]:
            if block > last or not within:
                self._forget_dirty(draft, block)
            else:
                shrunk = draft.dirty[block].cut(within)
                self._grow(draft, -shrunk)
        for block in [one for one in draft.patches if one >= last]:
            places = draft.patches.pop(block)
            kept = [
                place._replace(end=min(place.end, within))
                for place in places
                if block == last and place.start < within
            ]
            draft.stale.extend(
                place.live for place in places if place.start >= within or block > last
            )
            for place in kept:
                draft.shortened.append((place.live, place.end - place.start))
            if kept:
                draft.patches[block] = kept

    # -- reading

    def read(self, draft: Draft, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Bytes of the draft, cut to its size."""
        with draft.lock:
            end = min(offset + min(length, READ_MAX), draft.size)
            if offset >= end:
                return b""
            spans = draft.spans(offset, end)
            sealed = self._sealed_map(draft)
            base = draft.base_map
            block_size = draft.geometry.block_size
            touched = range(offset // block_size, -(-end // block_size))
            over = [b for b in touched if b in draft.dirty or b in draft.patches]
            laid: list[tuple[int, int, int, bytes]] = []
            for block in over:
                dirty = self._dirty(draft, block)
                low, high = max(offset, block * block_size), min(end, (block + 1) * block_size)
                for start, stop in dirty.known:
                    start, stop = (
                        max(start, low - block * block_size),
                        min(stop, high - block * block_size),
                    )
                    if start < stop:
                        place = block * block_size + start - offset
                        laid.append((place, start, stop, bytes(memoryview(dirty.data)[start:stop])))
        if len(spans) == 1 and not laid and spans[0].source != "zero":
            only = sealed if spans[0].source == "sealed" else base
            assert only is not None
            whole = self._reader.read(only, offset, end - offset)
            if len(whole) == end - offset:
                return memoryview(whole)
        out = bytearray(end - offset)
        for span in spans:
            source = sealed if span.source == "sealed" else base if span.source == "base" else None
            if source is None or self._is_covered(laid, span.start - offset, span.end - offset):
                continue
            part = self._reader.read(source, span.start, span.end - span.start)
            with memoryview(part) as view:
                out[span.start - offset : span.start - offset + len(view)] = view
        for place, start, stop, data in laid:
            out[place : place + stop - start] = data
        return out

    @staticmethod
    def _is_covered(laid: list[tuple[int, int, int, bytes]], start: int, end: int) -> bool:
        return any(place <= start and place + stop - low >= end for place, low, stop, _ in laid)

    def _sealed_map(self, draft: Draft) -> BlockMap | None:
        if draft.sealed_revision != draft.sealed.revision or draft.sealed_map is None:
            draft.sealed_map = (
                self._maps.build(draft.sealed.runs(), draft.size) if len(draft.sealed) else None
            )
            draft.sealed_revision = draft.sealed.revision
        if draft.sealed_map is not None and draft.sealed_map.size < draft.size:
            draft.sealed_map = self._maps.build(draft.sealed.runs(), draft.size)
        return draft.sealed_map

    # -- durable

    def save(self, draft: Draft, released: bool = False) -> None:
        """What was written survives kill -9 from here on. Does nothing when nothing is new."""
        with draft.lock:
            # Gone: the op that it became is in the journal; an image behind that would come back.
            if draft.gone or draft.unlinked:
                return
            if not draft.changed and not (released and draft.unpublished):
                return
            patches = self._seal_whole(draft)
            self._save_image(draft, patches, released)

    def save_anew(self, draft: Draft) -> None:
        """The journal has forgotten the draft, for an op that came to nothing. REQUIRES: lock held,
        and no patches."""
        draft.image = None
        draft.stale.clear()
        draft.changed = True
        self.save(draft)

    def _seal_whole(self, draft: Draft) -> list[tuple[int, int, int]]:
        """Seal dirty blocks that are whole; unsaved (block, start, end) ranges of the others."""
        patches: list[tuple[int, int, int]] = []
        ready: list[tuple[int, memoryview]] = []
        for block in sorted(draft.dirty):
            length = draft.block_length(block)
            dirty = draft.dirty[block]
            if not length:
                self._forget_block(draft, block)
                continue
            below = draft.has_below(block)
            if not below and len(dirty.data) < length:
                self._grow(draft, dirty.write(len(dirty.data), bytes(length - len(dirty.data))))
            if not below or dirty.is_whole(length):
                ready.append((block, memoryview(dirty.data)[:length]))
            else:
                patches.extend((block, start, end) for start, end in dirty.unsaved)
        self._seal_ready(draft, ready)
        return patches

    def _seal_ready(self, draft: Draft, ready: list[tuple[int, memoryview]]) -> None:
        """Seal (block, bytes) pairs, neighbours of full blocks together."""
        full = draft.geometry.block_size
        at = 0
        while at < len(ready):
            end = at + 1
            while (
                end < len(ready)
                and ready[end][0] == ready[end - 1][0] + 1
                and len(ready[end - 1][1]) == full
            ):
                end += 1
            self._lay(draft, ready[at][0], [data for _, data in ready[at:end]], accepted=True)
            at = end
        blocks = [block for block, _ in ready]
        for _, data in ready:
            data.release()
        for block in blocks:
            self._forget_block(draft, block)

    def _save_image(
        self, draft: Draft, patches: Iterable[tuple[int, int, int]], released: bool = False
    ) -> None:
        image = self._image(draft, released)
        records: list[ImageRecord | Patch] = [ImageRecord(draft.ino, image)]
        if draft.cut_to is not None and draft.cut_to < image.size:
            # Recovery cuts patches by the sizes of the images behind them, those too that lie under
            # blocks sealed since: without those blocks they would come up again.
            records.insert(0, ImageRecord(draft.ino, image._replace(size=draft.cut_to)))
        places: list[tuple[int, int, int]] = []
        for block, start, end in patches:
            data = draft.dirty[block].data
            for low in range(start, end, PATCH_BYTES_MAX):
                high = min(end, low + PATCH_BYTES_MAX)
                records.append(Patch(draft.ino, block, low, bytes(data[low:high])))
                places.append((block, low, high))
        self.settle_patches(draft)
        lives = self._book.append_many(records)
        first = len(lives) - len(places) - 1
        for live, length in draft.shortened:
            self._book.shorten(live, length)
        self._book.release([draft.image, *draft.stale, *lives[:first]])
        draft.stale.clear()
        draft.shortened.clear()
        draft.cut_to = None
        draft.image = lives[first]
        for (block, start, end), live in zip(places, lives[first + 1 :], strict=True):
            draft.patches.setdefault(block, []).append(PatchPlace(start, end, live))
        for block in {block for block, _, _ in places}:
            draft.dirty[block].unsaved.clear()
            draft.patched = True
        draft.changed = False

    def _image(self, draft: Draft, released: bool) -> Image:
        runs = draft.sealed.runs()
        return Image(
            draft.private, released, draft.parent, draft.name, draft.base, draft.keep, draft.size,
            draft.mode, draft.uid, draft.gid, draft.atime_ns, draft.mtime_ns, draft.ctime_ns,
            tuple(sorted(draft.xattrs.items())), runs,
            tuple(self._staged.rows(sorted(draft.segments()))),
        )  # fmt: skip

    def settle_patches(self, draft: Draft) -> None:
        """Before a record that takes the place of one that may be durable: the blocks that it
        names must be durable too. REQUIRES: lock held."""
        if draft.stale or draft.durable:
            self._staging.sync(SegmentId(segment) for segment in draft.segments())

    def make_durable(self, draft: Draft, pending: Iterable[bytes]) -> None:
        """What was saved survives loss of power from here on: staging first, then the journal.

        `pending` are the segments of the file's own pending versions, which the draft lies over.
        """
        with draft.lock:
            draft.durable = True
            segments = {SegmentId(segment) for segment in (*draft.segments(), *pending)}
        self._staging.sync(segments)
        self._book.sync()

    def spill(self, draft: Draft) -> int:
        """Give memory back: save, then forget what the journal holds. Returns the bytes."""
        with draft.lock:
            if draft.gone or not draft.dirty:
                return 0
            before = draft.dirty_bytes
            if draft.unlinked:
                # The journal keeps nothing for it any more; staging does, until it is closed.
                if not self.missing(draft):
                    self.build(draft)
                return before - draft.dirty_bytes
            self.save(draft)
            for block in list(draft.dirty):
                if block in draft.patches and not draft.dirty[block].unsaved:
                    self._forget_dirty(draft, block)
            return before - draft.dirty_bytes

    # -- building

    def missing(self, draft: Draft) -> list[tuple[int, int]]:
        """(offset, length) ranges of the base that building needs and that are not here."""
        with draft.lock:
            base = draft.base_map
            if base is None:
                return []
            size = draft.geometry.block_size
            return [
                (block * size, length)
                for block in sorted({*draft.patches, *draft.dirty})
                if not draft.sealed.covers(block)
                and (length := min(size, draft.keep - block * size)) > 0
                and not self._reader.is_local(base, block * size, length)
            ]

    def fetch_missing(self, draft: Draft, ranges: Iterable[tuple[int, int]]) -> None:
        """Bring these ranges of the base here. Waits for the store, without a lock."""
        base = draft.base_map
        if base is not None:
            self._reader.fetch(base, ranges)

    def build(self, draft: Draft) -> None:
        """Make sealed blocks of all patches and dirty blocks. REQUIRES: lock held; nothing missing
        (else this waits for the store)."""
        self._seal_whole(draft)
        size = draft.geometry.block_size
        for block in sorted({*draft.patches, *draft.dirty}):
            length = draft.block_length(block)
            if not length:
                self._forget_block(draft, block)
                continue
            self._dirty(draft, block)
            whole = bytes(self.read(draft, block * size, length))
            self._lay(draft, block, [memoryview(whole)], accepted=True)
            self._forget_block(draft, block)

    def discard(self, draft: Draft) -> None:
        """Forget the draft: published, or not wanted. REQUIRES: lock held."""
        # First of all: whoever waits for the lock must look for another draft, whatever happens.
        draft.gone = True
        draft.changed = draft.unpublished = False
        for block in list(draft.dirty):
            self._forget_dirty(draft, block)
        for places in draft.patches.values():
            self._book.release(place.live for place in places)
        draft.patches.clear()
        self._book.release([draft.image, *draft.stale])
        draft.image = None
        draft.stale.clear()
        segments, draft.owner.segments = draft.owner.segments, set()
        try:
            self._staged.retire(draft.owner)
        finally:
            self._staged.drop(segments)
        draft.base_map = draft.sealed_map = None

    def forget_saved(self, draft: Draft) -> None:
        """The file lost its last name: the journal need not keep what only open handles can read.

        REQUIRES: lock held. Bytes that only the journal has come back into memory first.
        """
        for block in list(draft.patches):
            self._dirty(draft, block)
            self._book.release(place.live for place in draft.patches.pop(block))
        if draft.image is not None:
            self._book.release([draft.image])
            draft.image = None
        self._book.note(ImageRecord(draft.ino, None), removal=True)
