"""The staging area: sealed segments that are not in the store yet (FORMAT sections 9 and 10).

A file here has the bytes of its object at the object's offsets, so that an uploaded segment becomes
a cached one by rename(2). Nothing here is a cache: every file may be the only copy of somebody's
work. The area owns the files, what is known of their durability, and the accounting: bytes are
reserved when a write is accepted, so that close() never meets a full disk.

Which files are wanted is the journal's to say: files survive a restart, `segments` lists them, and
the owner removes those that no record names. Any thread may call. No lock is held over disk I/O.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from lucid.errors import DiskFull, InternalError, LocalError, StagingFull, Stopped
from lucid.local.disk import FULL, Buffer, Disk, local_error, local_errors
from lucid.types import Clock, SegmentId, SystemClock

__all__ = ["DISK_FREE_MIN", "StagedFile", "StagingArea"]

log = logging.getLogger(__name__)

DISK_FREE_MIN = 64 * 1024 * 1024
"""Staging leaves this much of its disk to the journal and the replica, which cannot go without."""
SEGMENT_ID_BYTES = 32
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW


class _Entry:
    """What is known of one staged file. Guarded by the area's lock."""

    __slots__ = ("charge", "failed", "fd", "leaving", "size", "synced", "users", "written")

    def __init__(self, size: int, fd: int = -1) -> None:
        self.charge = size
        """Bytes it stands for in the accounting."""
        self.size = size
        self.fd = fd
        """Open for writing until it is finished, else -1."""
        self.users = 0
        """Calls that use `fd` now."""
        self.leaving = fd < 0
        """No new call may use `fd`; the last one that does closes it."""
        self.written = 0
        """Counts writes; `synced` is the count that the last fdatasync covered."""
        self.synced = 0
        self.failed: str | None = None
        """Why nothing can be written to it, or made durable, any more."""


class StagingArea:
    """All staged segments of one state directory."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        limit_bytes: int,
        *,
        free_bytes_min: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """Takes stock of what is there. `free_bytes_min` stays free on the disk for others.

        Raises LocalError.
        """
        self._disk = disk
        self._directory = directory
        self._limit = limit_bytes
        self._free_min = free_bytes_min
        self._clock = clock or SystemClock()
        self.give_way: Callable[[int], int] = lambda size: 0
        """Asked for bytes of this disk when it is short; says how many it freed."""
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting: deque[object] = deque()
        """Reservations that wait, first come first served. At most one a thread."""
        self._entries: dict[bytes, _Entry] = {}
        self._used = 0
        self._reserved = 0
        self._names_changed = 0
        self._names_synced = 0
        self._hopeless = 0
        """Raised by `fail_waiting`: who began to wait before it gives up."""
        self._wanted = 0
        """Bytes that were asked for when the disk last had no room, 0 after it had some."""
        self._refused = 0
        """The same, once a writer gave up."""
        self._closed = False
        self._take_stock()

    # -- room

    @property
    def limit_bytes(self) -> int:
        return self._limit

    @property
    def used_bytes(self) -> int:
        """Bytes of the staged files."""
        with self._lock:
            return self._used

    @property
    def reserved_bytes(self) -> int:
        """Bytes promised to writers and not staged yet."""
        with self._lock:
            return self._reserved

    def reserve(self, count: int, timeout_s: float = 0.0) -> None:
        """Promise room for `count` bytes, waiting up to `timeout_s` for others to leave.

        `create(paid=...)` uses the promise, `unreserve` gives it back. Raises StagingFull when
        there is no room in time, DiskFull when the disk itself is short, Stopped after close().
        """
        self._check_disk(count)
        deadline = self._clock.monotonic() + timeout_s
        ticket = object()
        with self._lock:
            began = self._hopeless
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or not self._fits(count):
                    if self._closed:
                        raise Stopped("The filespace is being closed.")
                    left = deadline - self._clock.monotonic()
                    if left <= 0 or self._hopeless != began or count > self._limit:
                        raise self._full()
                    self._room.wait(left)
                self._reserved += count
            finally:
                self._waiting.remove(ticket)
                self._room.notify_all()

    def refuse(self) -> None:
        """A writer gave up: until there is room again `refusal` says so, and the log does once."""
        with self._lock:
            began = self._wanted and not self._refused
            self._refused = self._wanted
        if began:
            log.warning("%s", self._sentence(began))

    def refusal(self, can_give_way: int = 0) -> str:
        """One sentence while the disk is too full for writing, else an empty one.

        `can_give_way`: bytes that `give_way` may be able to free. Raises LocalError.
        """
        with self._lock:
            refused = self._refused
        if refused:
            return self._sentence(refused) if self._short_of(refused) > 0 else ""
        return self._sentence(0) if self._short_of(0) > can_give_way else ""

    def unreserve(self, count: int) -> None:
        """Give back room that was reserved and is not needed."""
        with self._lock:
            self._spend(count)
            self._room.notify_all()

    def fail_waiting(self) -> None:
        """Who waits for room now gets StagingFull: the store has gone, so none will come."""
        with self._lock:
            self._hopeless += 1
            self._room.notify_all()

    # -- one file

    def create(self, segment: SegmentId, size: int, paid: int = 0) -> StagedFile:
        """A new file with room for `size` bytes; `paid` bytes of them were reserved before.

        When it fails the reservation is as it was. Raises DiskFull, LocalError.
        """
        path = self._path(segment)
        with self._lock:
            if self._closed:
                raise Stopped("The filespace is being closed.")
            if segment in self._entries:
                raise InternalError(f"Segment {segment.hex()} is staged already.")
        doing = f"stage a segment in {self._directory}"
        with local_errors(doing):
            fd = self._disk.open(path, _CREATE)
            try:
                self._set_aside(fd, size)
            except OSError:
                self._disk.close(fd)
                self._disk.unlink(path)
                raise
        entry = _Entry(size, fd)
        entry.written = 1
        with self._lock:
            self._spend(paid)
            self._used += size
            self._entries[segment] = entry
            self._names_changed += 1
            self._room.notify_all()
        return StagedFile(self, segment, entry)

    def segments(self) -> list[tuple[SegmentId, int]]:
        """Every staged file: its segment and its size in bytes."""
        with self._lock:
            return [(SegmentId(key), entry.size) for key, entry in self._entries.items()]

    def __contains__(self, segment: object) -> bool:
        with self._lock:
            return segment in self._entries

    def path(self, segment: SegmentId) -> Path:
        """Where the file is, for the engine, which reads staged blocks itself."""
        return self._path(segment)

    def read(self, segment: SegmentId, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a staged file, to its end unless `size` is given. Raises LocalError."""
        with local_errors(f"read a staged segment in {self._directory}"):
            fd = self._disk.open(self._path(segment), _READ)
            try:
                if size is None:
                    size = max(0, self._disk.size(fd) - offset)
                return self._disk.pread(fd, size, offset)
            finally:
                self._disk.close(fd)

    # -- durability

    def sync(self, segments: Iterable[SegmentId] | None = None) -> None:
        """Returns when these files (all of them by default) and their names survive loss of power.

        Each file with new bytes is fdatasynced once, the directory once. What is not staged (any
        more) is passed over: it is in the store. An error is final for its file: the kernel may
        have dropped what it could not write, and would say nothing the second time. Raises
        LocalError, DiskFull.
        """
        with self._lock:
            wanted = list(self._entries) if segments is None else list(segments)
        for segment in wanted:
            self._sync_one(segment)
        with self._lock:
            names = self._names_changed
            if names == self._names_synced:
                return
        with local_errors(f"make {self._directory} durable"):
            self._disk.fsync_dir(self._directory)
        with self._lock:
            self._names_synced = max(self._names_synced, names)

    def is_synced(self, segment: SegmentId) -> bool:
        """True when the file's bytes and name would survive loss of power now."""
        with self._lock:
            entry = self._entries.get(segment)
            if entry is None or entry.failed:
                return False
            return entry.written == entry.synced and self._names_changed == self._names_synced

    # -- the end of a file

    def adopt(self, segment: SegmentId, cache: Path) -> Path:
        """Move an uploaded segment into the cache directory, and forget it here.

        Nothing is made durable: after loss of power the file may be here again, and then the store
        has it already. Returns the new path. Raises LocalError; the file is then still staged.
        """
        name = segment.hex()
        directory = cache / name[:2]
        target = directory / name
        with local_errors(f"move a segment into {cache}"):
            with suppress(FileExistsError):
                self._disk.mkdir(directory, 0o700)
            self._disk.rename(self._path(segment), target)
        self._forget(segment)
        return target

    def remove(self, segment: SegmentId) -> None:
        """Unlink a file that nothing needs. Removing what is not there is done already."""
        with local_errors(f"remove a segment from {self._directory}"), suppress(FileNotFoundError):
            self._disk.unlink(self._path(segment))
        self._forget(segment)

    def close(self) -> None:
        """Let go of all descriptors; the files stay. Who waits for room gets Stopped."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
            entries = list(self._entries.values())
        for entry in entries:
            self._let_go(entry)

    # -- inside

    def _path(self, segment: bytes) -> Path:
        return self._directory / segment.hex()

    def _take_stock(self) -> None:
        with local_errors(f"look into {self._directory}"):
            for name in self._disk.listdir(self._directory):
                key = _segment_of(name)
                if key is not None:
                    size = self._disk.stat(self._directory / name).st_size
                    entry = _Entry(size)
                    # Written by a process before this one: nobody knows whether it was synced.
                    entry.written = 1
                    self._entries[key] = entry
                    self._used += size
            self._names_changed = 1 if self._entries else 0

    def _fits(self, count: int) -> bool:
        return not self._closed and self._used + self._reserved + count <= self._limit

    def _full(self) -> StagingFull:
        return StagingFull(
            f"{(self._used + self._reserved) >> 20} MiB wait for the store, and the limit is"
            f" {self._limit >> 20} MiB. Bring the store back, or wait until it has caught up."
        )

    def _set_aside(self, fd: int, size: int) -> None:
        """The disk may be fuller than it said: then others give way, once. Raises OSError."""
        try:
            self._disk.fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in FULL or not self.give_way(size):
                raise
            self._disk.fallocate(fd, 0, size)

    def _check_disk(self, count: int) -> None:
        """A floor under the free space of the disk: others give way, else DiskFull is raised."""
        short = self._short_of(count)
        if short > 0 and self.give_way(short):
            short = self._short_of(count)
        with self._lock:
            self._wanted = max(count, 1) if short > 0 else 0
            self._refused = self._refused if short > 0 else 0
        if short <= 0:
            return
        raise DiskFull(f"{self._sentence(count)} Free some space there: unsent changes need it.")

    def _free(self) -> int:
        with local_errors(f"look at the disk of {self._directory}"):
            return self._disk.space(self._directory).available

    def _short_of(self, count: int) -> int:
        """Bytes that must become free before `count` more can be promised; 0 or less for none."""
        if not self._free_min:
            return 0
        free = self._free()
        with self._lock:
            return self._free_min + self._reserved + count - free

    def _sentence(self, count: int) -> str:
        free = self._free()
        more = "" if free < self._free_min else f" beside {-(-count >> 20)} MiB for a segment"
        return (
            f"Writing is refused: {free >> 20} MiB are free under {self._directory}, and"
            f" {self._free_min >> 20} MiB are kept{more}."
        )

    def _spend(self, count: int) -> None:
        if not 0 <= count <= self._reserved:
            raise InternalError(f"{count} bytes given back, {self._reserved} are reserved.")
        self._reserved -= count

    def _forget(self, segment: bytes) -> None:
        with self._lock:
            entry = self._entries.pop(segment, None)
            if entry is None:
                return
            self._used -= entry.charge
            self._names_changed += 1
            self._room.notify_all()
        self._let_go(entry)

    def _borrow(self, entry: _Entry) -> int:
        """The descriptor, or -1 for a file that is finished. `_hand_back` must follow."""
        with self._lock:
            if entry.failed:
                raise LocalError(f"A staged segment cannot be used any more. {entry.failed}")
            entry.users += 1
            return -1 if entry.leaving else entry.fd

    def _hand_back(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
        self._close_unused(entry)

    def _let_go(self, entry: _Entry) -> None:
        with self._lock:
            entry.leaving = True
        self._close_unused(entry)

    def _close_unused(self, entry: _Entry) -> None:
        with self._lock:
            if entry.users or not entry.leaving:
                return
            fd, entry.fd = entry.fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _fail(self, entry: _Entry, error: OSError, doing: str) -> LocalError:
        failure = local_error(error, doing)
        with self._lock:
            entry.failed = str(failure)
        return failure

    def _write(self, entry: _Entry, data: Buffer, offset: int) -> None:
        fd = self._borrow(entry)
        try:
            if fd < 0:
                raise InternalError("A finished segment is not written to.")
            self._disk.pwrite(fd, data, offset)
        except BaseException as error:
            self._hand_back(entry)
            if isinstance(error, OSError):
                raise self._fail(entry, error, f"write into {self._directory}") from error
            raise
        with self._lock:
            entry.written += 1
            entry.size = max(entry.size, offset + len(data))
            entry.users -= 1
            leaving = entry.leaving
        if leaving:
            self._close_unused(entry)

    def _finish(self, entry: _Entry, size: int) -> None:
        fd = self._borrow(entry)
        try:
            if fd < 0:
                raise InternalError("This segment is finished already.")
            self._disk.ftruncate(fd, size)
            with self._lock:
                entry.leaving = True
                entry.written += 1
                self._used += size - entry.charge
                entry.charge = entry.size = size
                self._room.notify_all()
        except OSError as error:
            raise self._fail(entry, error, f"finish a segment in {self._directory}") from error
        finally:
            self._hand_back(entry)

    def _sync_one(self, segment: bytes) -> None:
        with self._lock:
            entry = self._entries.get(segment)
            if entry is None or (entry.written == entry.synced and not entry.failed):
                return
            written = entry.written
        fd = self._borrow(entry)
        opened = -1
        try:
            if fd < 0:
                # A new descriptor still reports an error that nobody was told of.
                fd = opened = self._disk.open(self._path(segment), _READ)
            self._disk.fdatasync(fd)
            with self._lock:
                entry.synced = max(entry.synced, written)
        except FileNotFoundError:
            return  # Uploaded, or dropped, in this moment: nothing of it has to be kept here.
        except OSError as error:
            doing = f"make a segment in {self._directory} durable"
            raise self._fail(entry, error, doing) from error
        finally:
            if opened >= 0:
                self._disk.close(opened)
            self._hand_back(entry)


class StagedFile:
    """One segment while it is being written. Used by one thread at a time."""

    def __init__(self, area: StagingArea, segment: SegmentId, entry: _Entry) -> None:
        self._area = area
        self._entry = entry
        self.segment = segment

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write at an offset. An error is final for this file. Raises DiskFull, LocalError."""
        self._area._write(self._entry, data, offset)

    def sync(self) -> None:
        """As StagingArea.sync, for this file alone."""
        self._area.sync((self.segment,))

    def finish(self, size: int) -> None:
        """The segment is whole, with `size` bytes: cut what was set aside too much, and close."""
        self._area._finish(self._entry, size)


def _segment_of(name: str) -> bytes | None:
    """The segment id of a file name, or None for a name that is not ours."""
    if len(name) != 2 * SEGMENT_ID_BYTES or name != name.lower():
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None
