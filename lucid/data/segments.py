"""Segments while they are in staging: written, finished, uploaded, committed, then cached.

`SegmentWriter` fills one segment; `StagedSegments` owns all of them, says who still names each,
and hands finished ones to the uploader. Small files share a *pack*, in the order in which they are
sealed; a file that has grown past PACK_SHARE gets segments of its own, so that its blocks lie in
order.

Locks, in this order: a writer's own lock (held over seal and pwrite, never over the store), then
the registry's (held over dictionaries only).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import Enum

from lucid.crypto.footer import seal_footer
from lucid.engine.bulk import BATCH_BLOCKS_MAX, is_zero, seal_blocks
from lucid.engine.cachemap import CacheMap
from lucid.engine.sodium import AdContext
from lucid.errors import DiskFull, InternalError, LocalError
from lucid.format.change import DATA, HOLE, Change, SegmentRow
from lucid.format.runs import Geometry
from lucid.format.segment import FooterRow, footer_room
from lucid.local.staging import StagedFile, StagingArea
from lucid.types import Entropy, SegmentId

__all__ = [
    "PACK_SHARE", "SEGMENT_PLAIN_MAX", "KeySource", "SegmentState", "SegmentWriter",
    "StagedSegments",
]  # fmt: skip

MiB = 1024 * 1024
SEGMENT_PLAIN_MAX = 8 * MiB
PACK_SHARE = 1 * MiB
"""A draft that has sealed this much goes on in a segment of its own."""


class KeySource:
    """Where segments get keys and associated data: the newest generation of the key ring."""

    def __init__(
        self, data_key: Callable[[bytes, bytes], bytes], filespace: bytes, suite: int
    ) -> None:
        self._data_key = data_key
        self._filespace = filespace
        self.suite = suite
        self._contexts: dict[bytes, AdContext] = {}

    def context(self, generation: bytes) -> AdContext:
        """What the associated data of all blocks of a generation share."""
        context = self._contexts.get(generation)
        if context is None:
            context = AdContext(self.suite, b"DATA", self._filespace, generation)
            self._contexts[generation] = context
        return context

    def key(self, segment: bytes, generation: bytes) -> bytes:
        """The segment's own key. Raises UnknownKey for a generation we were not given."""
        return self._data_key(segment, generation)


class SegmentState(Enum):
    OPEN = "open"
    FINISHED = "finished"
    UPLOADED = "uploaded"
    FAILED = "failed"


class SegmentWriter:
    """One segment that takes sealed blocks. `lock` guards everything; whoever appends holds it."""

    def __init__(
        self,
        file: StagedFile,
        segment: SegmentId,
        generation: bytes,
        slot: int,
        keys: KeySource,
        cachemap: CacheMap,
        geometry: Geometry,
    ) -> None:
        self.segment = segment
        self.generation = generation
        self.slot = slot
        self.lock = threading.Lock()
        self.finished = False
        self._file = file
        self._key = keys.key(segment, generation)
        self._context = keys.context(generation)
        self._cachemap = cachemap
        self._geometry = geometry
        self._rows: list[FooterRow] = []
        self.plain = 0
        self.stored = 0

    def room(self) -> int:
        """Bytes of plaintext that still fit, as full blocks; 0 when the segment should be
        finished."""
        if self.finished:
            return 0
        left = SEGMENT_PLAIN_MAX - self.plain
        spare = footer_room(len(self._rows), self.stored, self._geometry.tag)
        return max(0, min(left, spare))

    def append(
        self, ino: int, first: int, blocks: Sequence[bytes | bytearray | memoryview]
    ) -> Change:
        """Seal neighbouring blocks of one file, all but the last full, and write them to staging.

        REQUIRES: `lock` held; the blocks fit. Raises DiskFull, LocalError: nothing was appended.
        """
        plain = sum(len(block) for block in blocks)
        out = bytearray(plain + len(blocks) * self._geometry.tag)
        ordinal, offset = len(self._rows), self.stored
        lengths, digests = seal_blocks(
            self._context, self.segment, self._key, ordinal, 0, blocks, out
        )
        self._file.pwrite(out, offset)
        for index, block in enumerate(blocks):
            self._rows.append(FooterRow(ino, first + index, len(block), 0, digests[index]))
        self.plain += plain
        self.stored += sum(lengths)
        self._cachemap.set_stored_len(self.slot, self.stored)
        last = len(blocks[-1])
        return Change(first, len(blocks), DATA, self.segment, ordinal, offset, 0, last, last, None)

    def row(self, head: int) -> SegmentRow:
        """The row of an unfinished segment, for the journal."""
        return SegmentRow(self.segment, self.stored, 0, b"", self.generation, head)

    def finish(self, head: int) -> SegmentRow:
        """Write footer and trailer; the segment is complete. REQUIRES: `lock` held."""
        tail, footer_hash = seal_footer(
            self._key,
            self._context.suite,
            self._context.filespace_id,
            self.generation,
            self.segment,
            self._rows,
        )
        self._file.pwrite(tail, self.stored)
        stored = self.stored + len(tail)
        self._file.finish(stored)
        self._cachemap.set_stored_len(self.slot, stored)
        self.finished = True
        return SegmentRow(self.segment, stored, len(tail), footer_hash, self.generation, head)


class _Staged:
    """What the registry knows of one segment. Guarded by the registry's lock."""

    __slots__ = ("row", "slot", "state", "users", "writer")

    def __init__(self, slot: int, row: SegmentRow, writer: SegmentWriter | None) -> None:
        self.slot = slot
        self.row = row
        self.writer = writer
        self.state = SegmentState.OPEN if writer else SegmentState.FINISHED
        self.users = 0
        """Drafts and pending ops that name it."""


class StagedSegments:
    """Every segment in staging. Owns the writers; knows the head at sealing through `head`."""

    def __init__(
        self,
        staging: StagingArea,
        cachemap: CacheMap,
        keys: KeySource,
        geometry: Geometry,
        entropy: Entropy,
        *,
        generation: Callable[[], bytes],
        head: Callable[[], int],
        finished: Callable[[SegmentRow], None],
        committed_row: Callable[[bytes], SegmentRow | None],
    ) -> None:
        self._staging = staging
        self._cachemap = cachemap
        self._keys = keys
        self._geometry = geometry
        self._entropy = entropy
        self._generation = generation
        self._head = head
        self._on_finished = finished
        self._committed_row = committed_row
        self._lock = threading.Lock()
        self._pack_lock = threading.Lock()
        self._segments: dict[bytes, _Staged] = {}
        self._pack: SegmentWriter | None = None
        self._spare_lock = threading.Lock()
        self._spares: list[SegmentWriter] = []
        self._spare_bytes = 0
        self.reserve_timeout = 0.0
        self.upload: Callable[[SegmentRow, bool], None] = lambda row, urgent: None

    # -- writing

    def ensure(self, size: int) -> None:
        """Have room aside for `size` bytes that were accepted and are not sealed yet.

        Sealing them can then not fail for want of space. Raises DiskFull, StagingFull, LocalError.
        """
        if size <= self._spare_bytes:
            return
        with self._spare_lock:
            while size > self._spare_bytes:
                self._spares.append(self._begin_new())
                self._spare_bytes += SEGMENT_PLAIN_MAX - self._geometry.block_size

    def seal(
        self,
        owner: SealOwner,
        first: int,
        blocks: Sequence[bytes | bytearray | memoryview],
        accepted: bool = False,
    ) -> list[Change]:
        """Seal neighbouring blocks of one file (all but the last full); the runs to lay.

        A block of zeros becomes a hole. What was `accepted` before may use the room that `ensure`
        put aside. Raises DiskFull, StagingFull, LocalError.
        """
        changes: list[Change] = []
        at = 0
        while at < len(blocks):
            if is_zero(blocks[at]):
                changes.append(Change(first + at, 1, HOLE))
                at += 1
                continue
            end = at + 1
            while end < len(blocks) and end - at < BATCH_BLOCKS_MAX and not is_zero(blocks[end]):
                end += 1
            at += self._seal_some(owner, first + at, blocks[at:end], changes, accepted)
        return changes

    def _seal_some(
        self,
        owner: SealOwner,
        first: int,
        blocks: Sequence[bytes | bytearray | memoryview],
        changes: list[Change],
        accepted: bool,
    ) -> int:
        """Append what fits of `blocks` to the owner's segment, or to the pack."""
        if owner.sealed_bytes >= PACK_SHARE:
            if owner.writer is None or not owner.writer.room():
                self._retire(owner)
                owner.writer = self._begin(accepted)
            writer = owner.writer
            try:
                with writer.lock:
                    count = self._append(writer, owner, first, blocks, changes)
            except LocalError:
                owner.writer = None  # That file takes no more; the next try gets a new one.
                raise
            if not count:
                self._retire(owner)
            return count
        with self._pack_lock:
            if self._pack is None:
                self._pack = self._begin(accepted)
            writer = self._pack
            try:
                with writer.lock:
                    count = self._append(writer, owner, first, blocks, changes)
            except LocalError:
                self._pack = None
                raise
            if not count:
                self._finish_pack()
            return count

    def _append(
        self,
        writer: SegmentWriter,
        owner: SealOwner,
        first: int,
        blocks: Sequence[bytes | bytearray | memoryview],
        changes: list[Change],
    ) -> int:
        room = writer.room()
        count = 0
        for block in blocks:
            room -= len(block)
            if room < 0:
                break
            count += 1
        if not count:
            return 0
        change = writer.append(owner.ino, first, blocks[:count])
        if writer.segment not in owner.segments:
            owner.segments.add(writer.segment)
            self.retain([writer.segment])
        owner.sealed_bytes += sum(len(block) for block in blocks[:count])
        changes.append(change)
        return count

    def _begin(self, accepted: bool) -> SegmentWriter:
        try:
            return self._begin_new()
        except DiskFull:
            with self._spare_lock:
                if not accepted or not self._spares:
                    raise
                self._spare_bytes -= SEGMENT_PLAIN_MAX - self._geometry.block_size
                return self._spares.pop()

    def _begin_new(self) -> SegmentWriter:
        segment = SegmentId(self._entropy(32))
        generation = self._generation()
        size = SEGMENT_PLAIN_MAX + 64 * 1024
        self._staging.reserve(size, self.reserve_timeout)
        try:
            file = self._staging.create(segment, size, paid=size)
        except BaseException:
            self._staging.unreserve(size)
            raise
        slot = self._cachemap.acquire(
            segment, self._keys.key(segment, generation), self._keys.context(generation), 0, True
        )
        writer = SegmentWriter(
            file, segment, generation, slot, self._keys, self._cachemap, self._geometry
        )
        with self._lock:
            self._segments[segment] = _Staged(slot, writer.row(self._head()), writer)
        return writer

    def _finish_pack(self) -> None:
        """REQUIRES: `_pack_lock` held."""
        if self._pack is not None:
            writer, self._pack = self._pack, None
            self._finish(writer)

    def _retire(self, owner: SealOwner) -> None:
        if owner.writer is not None:
            writer, owner.writer = owner.writer, None
            self._finish(writer)

    def _finish(self, writer: SegmentWriter, urgent: bool = False) -> None:
        with writer.lock:
            if writer.finished:
                return
            row = writer.finish(self._head())
        with self._lock:
            staged = self._segments[writer.segment]
            staged.row, staged.state, staged.writer = row, SegmentState.FINISHED, None
            unwanted = staged.users <= 0
            if unwanted:
                del self._segments[writer.segment]
        if unwanted:
            self._discard(writer.segment, staged)
            return
        try:
            self._on_finished(row)
        finally:
            # The note spares a restart some work; without the upload nothing goes on.
            self.upload(row, urgent)

    def _discard(self, segment: bytes, staged: _Staged) -> None:
        self._staging.remove(SegmentId(segment))
        self._cachemap.release(staged.slot)

    # -- who needs what

    def retain(self, segments: Iterable[bytes]) -> None:
        with self._lock:
            for segment in segments:
                staged = self._segments.get(segment)
                if staged is not None:
                    staged.users += 1

    def drop(
        self,
        segments: Iterable[bytes],
        adopt: Callable[[bytes, int], None] | None = None,
    ) -> None:
        """A draft or op does not name these any more; finished ones that nobody names go, or are
        cached through `adopt(segment, slot)`: somebody may still read them."""
        gone = []
        with self._lock:
            for segment in segments:
                staged = self._segments.get(segment)
                if staged is None:
                    continue
                staged.users -= 1
                if staged.users <= 0 and staged.state in (
                    SegmentState.FINISHED,
                    SegmentState.UPLOADED,
                ):
                    gone.append((segment, staged))
                    del self._segments[segment]
        for segment, staged in gone:
            if adopt is None:
                self._discard(segment, staged)
            else:
                adopt(segment, staged.slot)
                self._cachemap.release(staged.slot)

    def finish_for(self, segments: Iterable[bytes]) -> None:
        """Finish these segments now if they are open, so that they can be uploaded."""
        for segment in segments:
            with self._lock:
                staged = self._segments.get(segment)
                writer = staged.writer if staged else None
            if writer is None:
                continue
            with self._pack_lock:
                if self._pack is writer:
                    self._pack = None
            self._finish(writer, urgent=True)

    def retire(self, owner: SealOwner) -> None:
        """The owner writes no more: its own segment is finished."""
        self._retire(owner)

    def adopt_finished(self, row: SegmentRow) -> None:
        """A finished segment that an earlier process left in staging."""
        slot = self._cachemap.acquire(
            row.id,
            self._keys.key(row.id, row.generation),
            self._keys.context(row.generation),
            row.stored_len,
            True,
        )
        with self._lock:
            self._segments[row.id] = _Staged(slot, row, None)
        self.upload(row, False)

    def drop_unused(self) -> None:
        """Finished segments that nobody names, after recovery has said who does."""
        with self._lock:
            unused = [
                (segment, staged)
                for segment, staged in self._segments.items()
                if staged.users <= 0 and staged.writer is None
            ]
            for segment, _ in unused:
                del self._segments[segment]
        for segment, staged in unused:
            self._discard(segment, staged)

    def slot(self, segment: bytes) -> int | None:
        """A new reference on the slot of a segment that is in staging."""
        with self._lock:
            staged = self._segments.get(segment)
            if staged is None:
                return None
            self._cachemap.retain(staged.slot)
            return staged.slot

    def state(self, segment: bytes) -> SegmentState | None:
        """None: not in staging, so it is committed (or was never ours)."""
        with self._lock:
            staged = self._segments.get(segment)
            return staged.state if staged else None

    def rows(self, segments: Iterable[bytes]) -> list[SegmentRow]:
        """Their rows: from staging, or from the log for those that it names already."""
        rows: list[SegmentRow] = []
        for segment in segments:
            with self._lock:
                staged = self._segments.get(segment)
                if staged is not None:
                    writer = staged.writer
                    rows.append(writer.row(staged.row.head) if writer else staged.row)
                    continue
            committed = self._committed_row(segment)
            if committed is None:
                raise InternalError(f"Segment {segment.hex()[:16]} is neither staged nor known.")
            rows.append(committed)
        return rows

    def sealed_below(self, segments: Iterable[bytes], head: int) -> list[SegmentRow]:
        """Those of these that were finished while the author's head was below this one."""
        with self._lock:
            staged = [self._segments.get(segment) for segment in segments]
            return [one.row for one in staged if one and not one.writer and one.row.head < head]

    def uploaded(self, segment: bytes) -> bool:
        """The store has it. False when nobody names it any more."""
        with self._lock:
            staged = self._segments.get(segment)
            if staged is None:
                return False
            staged.state = SegmentState.UPLOADED
            return True

    def are_uploaded(self, segments: Iterable[bytes]) -> bool:
        with self._lock:
            return all(
                staged is None or staged.state is SegmentState.UPLOADED
                for staged in map(self._segments.get, segments)
            )

    def committed(self, segment: bytes, adopt: Callable[[bytes, int], None]) -> None:
        """An entry names it: it becomes a cached segment through `adopt(segment, slot)`."""
        with self._lock:
            staged = self._segments.get(segment)
            if staged is None or staged.writer is not None:
                return
            # After a crash the log may name what this process has not sent again: the store has it.
            del self._segments[segment]
        adopt(segment, staged.slot)
        self._cachemap.release(staged.slot)

    def staged_bytes(self) -> tuple[int, int]:
        """Bytes and number of segments that the store does not have yet.

        One that nobody names is never sent: an open one whose blocks were all written over.
        """
        with self._lock:
            waiting = [
                staged.writer.stored if staged.writer else staged.row.stored_len
                for staged in self._segments.values()
                if staged.state is not SegmentState.UPLOADED and staged.users > 0
            ]
        return sum(waiting), sum(1 for size in waiting if size)

    def close(self) -> None:
        """Forget all; the files stay, but for those that hold nothing."""
        with self._spare_lock:
            spares, self._spares = self._spares, []
        for spare in spares:
            with suppress(LocalError):
                self._staging.remove(spare.segment)
        with self._lock:
            slots = [staged.slot for staged in self._segments.values()]
            self._segments.clear()
        for slot in slots:
            self._cachemap.release(slot)


class SealOwner:
    """Whose blocks are sealed: one draft. Guarded by the draft's lock."""

    def __init__(self, ino: int) -> None:
        if ino <= 0:
            raise InternalError("A block belongs to an inode.")
        self.ino = ino
        self.sealed_bytes = 0
        self.segments: set[bytes] = set()
        """Each is retained once in the registry for this owner."""
        self.writer: SegmentWriter | None = None
