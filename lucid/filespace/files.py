"""Open files: reading, writing, durability, and when a change is published.

FLUSH comes at every close(2), also before the first byte of `cmd > f`; it only makes durable.
RELEASE of the last handle that wrote publishes.
"""

from __future__ import annotations

import os
import stat
import threading
from functools import partial

from lucid.data.draft import Draft
from lucid.data.segments import SegmentState
from lucid.engine.streams import Streams
from lucid.errors import (
    BadHandle,
    DataError,
    DiskFull,
    Exists,
    InternalError,
    IsDirectory,
    LockLost,
    LucidError,
    NotFound,
    ObjectMissing,
    StagingFull,
    StoreUnavailable,
)
from lucid.filespace.leasing import OpenLeases
from lucid.filespace.parts import Parts, attributes_of, check_name
from lucid.filespace.surface import Attributes, Invalidation
from lucid.filespace.writing import Writing
from lucid.meta.state import InodeRow

__all__ = ["Files", "Handle", "draft_attributes"]

MiB = 1024 * 1024
RELEASE_HOLD_S = 0.02
"""How long later ops wait for the RELEASE that follows a FLUSH."""
WINDOW_MAX = 32 * MiB
WINDOW_CACHE_SHARE = 16
"""The window of one reader is at most this part of the cache: what is read ahead must still be
there when its turn comes, also for some readers at once."""
ROW_BYTES = 128
SPILL_ABOVE = 0.5
"""Share of the writing memory above which the oldest drafts give theirs back."""


class Handle:
    """One open file."""

    __slots__ = (
        "append", "closed", "ino", "is_lost", "number", "pinned", "readable", "streams",
        "writable", "wrote",
    )  # fmt: skip

    def __init__(self, ino: int, flags: int, streams: Streams) -> None:
        mode = flags & os.O_ACCMODE
        self.ino = ino
        self.readable = mode in (os.O_RDONLY, os.O_RDWR)
        self.writable = mode in (os.O_WRONLY, os.O_RDWR)
        self.append = bool(flags & os.O_APPEND)
        self.streams = streams
        self.number: int | None = None
        self.wrote = False
        self.closed = False
        self.pinned = 0
        """The inode whose lease is kept while this is open."""
        self.is_lost = False
        """That lease was lost."""


def draft_attributes(
    draft: Draft, row_nlink: int, mode: int, uid: int, gid: int, rdev: int
) -> Attributes:
    """stat(2) of a file with unpublished content."""
    return Attributes(
        draft.ino, mode, row_nlink, uid, gid, rdev, draft.size,
        -(-draft.data_bytes() // 512), draft.atime_ns, draft.mtime_ns, draft.ctime_ns,
    )  # fmt: skip


class Files:
    """Operations on open files."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        share = parts.config.cache_bytes // WINDOW_CACHE_SHARE
        self._window_max = max(parts.geometry.block_size, min(WINDOW_MAX, share))
        self._lock = threading.Lock()
        self._open: dict[int, list[int]] = {}
        """[handles, writers] of each inode that is open."""
        self._wrote: dict[int, int] = {}
        """Version -> inode of contents that open files published here."""
        self._moved: dict[int, int] = {}
        """Where the content of an open inode went, when the fold gave it another number."""
        self.leases: OpenLeases | None = None
        self.damage: tuple[float, int, str] | None = None
        """When bytes last could not be read for good, of which inode, and why."""

    # -- opening

    def create(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, flags: int
    ) -> tuple[Handle, Attributes]:
        """A new private file: the log hears of it when it is published."""
        parts = self._parts
        check_name(name)
        parts.check_writable()
        # A file that no byte could follow is not made: others would see it, empty.
        self._wait_for_room(0)
        with parts.order.lock:
            parts.check_writable()
            parts.directory(parent)
            if parts.table.named(parent, name) or parts.replica.lookup(parent, name):
                raise Exists
            ino = parts.next_op_id()
            draft = Draft(ino, parts.geometry)
            now = parts.clock.time_ns()
            draft.private = True
            draft.parent, draft.name = parent, name
            draft.mode = stat.S_IFREG | stat.S_IMODE(mode)
            draft.uid, draft.gid = uid, gid
            draft.atime_ns = now
            draft.touch(now, parts.clock.monotonic())
            parts.table.add(draft)
            parts.table.touch(parent, now)
        handle = self._handle(ino, flags)
        handle.wrote = True
        return handle, draft_attributes(draft, 1, draft.mode, uid, gid, 0)

    def _handle(self, ino: int, flags: int) -> Handle:
        handle = Handle(ino, flags, Streams(self._parts.geometry.block_size, self._window_max))
        self._count(ino, 1, handle.writable)
        return handle

    def _count(self, ino: int, handles: int, writer: bool) -> bool:
        """Count handles of an inode; False when none is left."""
        with self._lock:
            counts = self._open.setdefault(ino, [0, 0])
            counts[0] += handles
            counts[1] += handles * writer
            if counts[0] > 0:
                return True
            del self._open[ino]
            self._moved.pop(ino, None)
            if self._wrote:
                self._wrote = {key: held for key, held in self._wrote.items() if held != ino}
            return False

    def open_inodes(self) -> list[int]:
        with self._lock:
            return list(self._open)

    def follow_version(self, version: int, ino: int) -> None:
        """A pending content of ours was folded again: it is content of `ino` now."""
        with self._lock:
            first = self._wrote.get(version)
        if first is not None:
            self.moved(first, ino)

    def written_inodes(self) -> list[int]:
        """What is open for writing."""
        with self._lock:
            return [ino for ino, (_, writers) in self._open.items() if writers]

    def is_open(self, ino: int) -> bool:
        return ino in self._open

    def writers(self, ino: int) -> int:
        counts = self._open.get(ino)
        return counts[1] if counts else 0

    def wrote(self, version: int, ino: int) -> None:
        """`version` was published here for `ino`: if it is open, its handles follow the version."""
        with self._lock:
            if ino in self._open:
                self._wrote[version] = ino

    def moved(self, ino: int, landed: int) -> None:
        """What this device wrote to `ino` is content of `landed` now: its handles follow."""
        with self._lock:
            if landed and landed != ino and ino in self._open:
                self._moved[ino] = landed

    def _follow(self, handle: Handle) -> int:
        """The inode that a handle is about."""
        if handle.wrote and handle.ino in self._moved and not self._parts.table.get(handle.ino):
            landed = self._moved.get(handle.ino, handle.ino)
            self._count(landed, 1, handle.writable)
            old, handle.ino = handle.ino, landed
            self._count(old, -1, handle.writable)
            self.forget_pages(old)
        return handle.ino

    def forget_pages(self, ino: int) -> None:
        self._parts.tell([Invalidation(ino, None)])

    def open(self, ino: int, flags: int) -> Handle:
        parts = self._parts
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            parts.check_writable()
        draft = parts.table.get(ino)
        if draft is None:
            self._check_published(ino)
        if flags & os.O_TRUNC:
            # Else the old bytes would go, and no new ones could come.
            self._wait_for_room(0)
        handle = self._handle(ino, flags)
        try:
            if handle.writable and self.leases is not None and (draft is None or not draft.private):
                self.leases.opened(handle)
            if flags & os.O_TRUNC:
                # An empty file too: `: > stamp` gives it a new time.
                with self.writing(handle) as draft:
                    parts.drafting.truncate(draft, 0)
                handle.wrote = True
            elif handle.readable and draft is None:
                parts.store.warm()
        except BaseException:
            self._count(ino, -1, handle.writable)
            self._unpin(handle)
            raise
        return handle

    def _unpin(self, handle: Handle) -> None:
        if handle.pinned and self.leases is not None:
            self.leases.closed(handle)

    def _check_published(self, ino: int) -> None:
        row = self._parts.replica.inode(ino)
        if row is None and self._parts.table.get(ino) is None:
            raise NotFound
        if row is not None and stat.S_ISDIR(row.mode):
            raise IsDirectory

    # -- drafts

    def writing(self, handle: Handle) -> Writing:
        """The draft of a handle's inode, made if there is none, locked while the context lasts."""
        return Writing(self._parts, handle.ino)

    # -- reading and writing

    def read(self, handle: Handle, offset: int, length: int) -> bytes | memoryview:
        parts = self._parts
        if not handle.readable:
            raise BadHandle
        draft = parts.table.get(self._follow(handle))
        if draft is not None:
            if draft.failure:
                raise DataError(draft.failure)
            found = parts.drafting.read(draft, offset, length)
            if not draft.gone:
                return memoryview(found)
        return self._read_published(handle, offset, length)

    def _read_published(self, handle: Handle, offset: int, length: int) -> memoryview:
        parts = self._parts
        blockmap = parts.file_maps.newest(handle.ino)
        if offset >= blockmap.size:
            return memoryview(b"")
        want = handle.streams.read(offset, length, blockmap.size)
        if want is not None:
            start, end = want
            parts.reader.ahead(blockmap, start, end - start)
        if offset == 0:
            parts.reader.neighbours(blockmap, partial(parts.file_maps.behind, handle.ino))
        try:
            return memoryview(parts.reader.read(blockmap, offset, length))
        except (DataError, ObjectMissing) as error:
            self.damage = parts.clock.monotonic(), handle.ino, str(error)
            raise

    def serve(self, handle: Handle, number: int) -> None:
        """See Surface.serve. Whoever writes may be moved to another inode, and sees its draft."""
        if handle.readable and not handle.writable and not handle.wrote:
            handle.number = number
            self._parts.hits.open(number, handle.ino, handle.streams)

    def write(
        self, handle: Handle, offset: int, data: bytes | memoryview, in_place: bool = False
    ) -> int:
        parts = self._parts
        if not handle.writable:
            raise BadHandle
        if handle.is_lost:
            raise LockLost
        parts.check_writable()
        self._follow(handle)
        self._wait_for_room(len(data))
        memory = parts.memory.writing
        if memory.taken > memory.total * SPILL_ABOVE:
            self._spill()
        deadline = parts.clock.monotonic() + parts.config.write_wait_s
        while True:
            try:
                # Room is taken before the lock: who waits for memory must not keep others from
                # their drafts.
                with (
                    memory.held(min(len(data), memory.total), parts.config.write_wait_s),
                    self.writing(handle) as draft,
                ):
                    appends = handle.append and not in_place
                    count = parts.drafting.write(draft, offset, data, appends)
                    break
            except DiskFull as refusal:
                # No room for one segment more: nothing of this write was accepted.
                self._wait_for_leaving(refusal, deadline)
        handle.wrote = True
        return count

    def _wait_for_room(self, size: int) -> None:
        """Room for `size` more bytes in staging. Without it, wait while the store takes what is
        there, else say so before anything is accepted. Raises DiskFull, StagingFull, LocalError.
        """
        parts = self._parts
        refusal = self._refusal(size)
        deadline = parts.clock.monotonic() + parts.config.write_wait_s
        while refusal is not None:
            self._wait_for_leaving(refusal, deadline)
            refusal = self._refusal(size)

    def _wait_for_leaving(self, refusal: DiskFull, deadline: float) -> None:
        """Wait a moment for the store to take something of what is staged; raises `refusal` when it
        takes nothing, or after `deadline` (monotonic seconds)."""
        parts = self._parts
        waits = parts.is_online() and parts.clock.monotonic() < deadline
        if not waits or not self._is_leaving():
            parts.staging.refuse()
            raise refusal
        parts.commit_now()
        parts.order.wait_news(0.1)

    def _refusal(self, size: int) -> DiskFull | None:
        """Have room aside for `size` bytes, in what may be staged and on the disk; or why not."""
        parts = self._parts
        limit = parts.config.staging_bytes
        if parts.staging.used_bytes + size > limit:
            return StagingFull(
                f"{parts.staging.used_bytes >> 20} MiB wait for the store, and the limit is "
                f"{limit >> 20} MiB. Bring the store back, or wait until it has caught up."
            )
        # A little for the rows of each file, and the two blocks that a write begins and ends in.
        rows = ROW_BYTES * (len(parts.table) + 1)
        try:
            parts.staged.ensure(parts.memory.writing.taken + 2 * parts.geometry.block_size + rows)
        except DiskFull as error:
            return error
        return None

    def _is_leaving(self) -> bool:
        """Whether anything is on its way from staging into the store: there it becomes cache, which
        gives way. When nothing else is, the largest open file goes, as far as it is written; but
        only what would soon: a name that nobody has seen yet appears with all of its bytes."""
        if self._is_sending():
            return True
        drafts = [
            draft
            for draft in self._parts.table.all()
            if draft.owner.sealed_bytes and draft.unpublished
            if not (draft.private or draft.truncated)
            if not (draft.unlinked or draft.failure or draft.gone)
        ]
        for draft in sorted(drafts, key=lambda draft: -draft.owner.sealed_bytes)[:1]:
            self.publish_quietly(draft)
        return self._is_sending()

    def _is_sending(self) -> bool:
        parts = self._parts
        if parts.order.pending or parts.publisher.waiting:
            return True
        # Ops are settled a moment before their segments go from staging into the cache.
        drafted = set[bytes]().union(*(list(d.owner.segments) for d in parts.table.all()))
        return any(
            segment not in drafted and parts.staged.state(segment) in (None, SegmentState.UPLOADED)
            for segment, _ in parts.staging.segments()
        )

    def _spill(self) -> None:
        """Memory is short: the drafts with the most dirty bytes put them into the journal."""
        drafts = sorted(self._parts.table.all(), key=lambda draft: -draft.dirty_bytes)
        for draft in drafts[:4]:
            if draft.dirty_bytes:
                self._parts.drafting.spill(draft)

    # -- durable and visible

    def flush(self, handle: Handle) -> None:
        if handle.is_lost:
            raise LockLost
        parts = self._parts
        draft = parts.table.get(handle.ino)
        if draft is None or not handle.writable:
            return
        if draft.failure:
            raise DataError(draft.failure)
        parts.drafting.save(draft)
        if draft.unpublished and not draft.gone and not draft.unlinked:
            if parts.config.durability == "store" and draft.written:
                self._into_store(draft)
            else:
                parts.publisher.flushed(draft, RELEASE_HOLD_S)

    def fsync(self, handle: Handle) -> None:
        if handle.is_lost:
            raise LockLost
        parts = self._parts
        draft = parts.table.get(handle.ino)
        if draft is not None:
            if draft.failure:
                raise DataError(draft.failure)
            parts.drafting.save(draft)
            parts.drafting.make_durable(draft, parts.order.segments_of(draft.ino))
            if parts.config.durability == "store" and draft.unpublished and not draft.unlinked:
                self._into_store(draft)
        else:
            self._sync_pending()
            if parts.config.durability == "store":
                self._wait_committed()

    def _sync_pending(self) -> None:
        """All that is pending survives loss of power: staging first, then the journal."""
        self._parts.staging.sync()
        self._parts.book.sync()

    def fsync_directory(self) -> None:
        self._sync_pending()
        if self._parts.config.durability == "store":
            self._wait_committed()

    def _into_store(self, draft: Draft) -> None:
        self._parts.publisher.publish_now(draft, self._parts.config.write_wait_s)
        self._wait_committed()

    def _wait_committed(self) -> None:
        parts = self._parts
        parts.commit_now()
        if not parts.order.wait_settled(parts.order.last, parts.config.write_wait_s):
            raise StoreUnavailable(
                "The store did not take the change in time; it is kept here and sent later."
            )

    def release(self, handle: Handle) -> None:
        """Publish when the last writer goes. Faults of the store wait, those of the disk are kept
        in the draft and told to whoever syncs."""
        if handle.closed:
            raise InternalError("A handle is released once.")
        handle.closed = True
        try:
            self._release(handle)
        finally:
            self._unpin(handle)

    def _release(self, handle: Handle) -> None:
        parts = self._parts
        if handle.number is not None:
            parts.hits.close(handle.number)
        ino = self._follow(handle)
        still_open = self._count(ino, -1, handle.writable)
        draft = parts.table.get(ino)
        if draft is None:
            return
        if draft.unlinked:
            if not still_open:
                with parts.order.lock, draft.lock:
                    if not draft.gone:
                        parts.publisher.drop(draft)
        elif draft.unpublished:
            if handle.wrote or not still_open:
                self.publish_quietly(draft)
        elif not still_open:
            self._drop_untouched(draft)

    def _drop_untouched(self, draft: Draft) -> None:
        """A draft that a failed write left behind."""
        with self._parts.order.lock, draft.lock:
            if not (draft.gone or draft.unpublished or draft.unlinked):
                self._parts.publisher.drop(draft)

    def publish_quietly(self, draft: Draft) -> None:
        """Publish; a fault that comes with nobody waiting stays with the draft."""
        try:
            self._parts.publisher.publish(draft)
        except DataError as error:
            self._parts.publisher.set_aside(draft, str(error))
        except LucidError as error:
            # The housekeeping thread tries again as long as the draft is there.
            self._parts.publisher.problem = f"A file could not be published: {error}"

    def truncate(self, ino: int, size: int, handle: Handle | None) -> None:
        """truncate(2); published at once when nobody has the file open for writing."""
        parts = self._parts
        parts.check_writable()
        own = handle or self._handle(ino, os.O_WRONLY)
        try:
            with self.writing(own) as draft:
                parts.drafting.truncate(draft, size)
        finally:
            if handle is None:
                self._count(ino, -1, True)
        if handle is not None:
            handle.wrote = True
        if not self.writers(ino) and not draft.unlinked:
            parts.drafting.save(draft)
            self.publish_quietly(draft)

    def attributes(self, ino: int) -> Attributes:
        parts = self._parts
        ticket = parts.known.ticket()
        draft = parts.table.get(ino)
        if draft is not None:
            with draft.lock:
                if draft.private:
                    nlink = 0 if draft.unlinked else 1
                    return draft_attributes(draft, nlink, draft.mode, draft.uid, draft.gid, 0)
                row = parts.replica.inode(ino)
                if row is not None and not draft.gone:
                    return draft_attributes(draft, row.nlink, row.mode, row.uid, row.gid, row.rdev)
        row = parts.replica.inode(ino)
        if row is None:
            # Published between the two questions: the table lets go after the replica has it.
            draft = parts.table.get(ino)
            if draft is None:
                raise NotFound
            return draft_attributes(draft, 1, draft.mode, draft.uid, draft.gid, 0)
        attributes = self.shown(row)
        if draft is None:
            parts.known.keep(ticket, attributes, row.mtime_set_ns)
        return attributes

    def shown(self, row: InodeRow) -> Attributes:
        """stat(2) of an inode that has no draft."""
        attributes = attributes_of(row)
        if not stat.S_ISDIR(row.mode):
            return attributes
        touched = self._parts.table.touched(row.ino)
        # What utimensat set after the newest change of a name stands (rsync and tar set the past).
        if touched > max(attributes.mtime_ns, row.mtime_set_ns):
            attributes = attributes._replace(
                mtime_ns=touched, ctime_ns=max(touched, attributes.ctime_ns)
            )
        return attributes
