"""The local cache: segments of the store at their own offsets, in sparse files.

What is where is the engine's CacheMap; this owns the files. A cache file is never trusted: every
block in it opens with its tag or is a miss. A broken cache disk is bypassed for a while, never a
failure. Any thread may call; no lock but those of a rename and of an eviction is held over I/O.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lucid.engine.cachemap import CacheMap
from lucid.engine.pool import Pool
from lucid.errors import LocalError
from lucid.local.disk import FULL, Disk
from lucid.local.staging import StagingArea
from lucid.types import Clock, SegmentId

__all__ = ["SegmentCache"]

BYPASS_S = 30.0
"""After an error of its disk the cache is left alone for this long."""
EVICT_SLACK = 32 * 1024 * 1024
"""Evict this much below the limit, so that not every fetch evicts."""
LOOK_EVERY = 8
"""After so many segments of at most 8 MiB the cache looks whether its disk is nearly full."""
LOOK_WELL_EVERY = 64
"""After so many it also keeps its whole floor under the free space."""
NEARLY_FULL = 128 * 1024 * 1024
"""With less free than this between those, it gives up all but KEEP_TO_READ: journal, replica and
staging write here too."""
KEEP_TO_READ = 64 * 1024 * 1024
"""What fetches that are under way at once fill."""
_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class SegmentCache:
    """Files `<2 hex>/<64 hex>` under one directory, and their eviction."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        cachemap: CacheMap,
        pool: Pool,
        clock: Clock,
        *,
        limit_bytes: int,
        free_bytes: int,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._map = cachemap
        self._pool = pool
        self._clock = clock
        self.limit_bytes = limit_bytes
        self._free_bytes = free_bytes
        self._moving = threading.Lock()
        """Held while a file goes from staging into the cache: in between it is in neither."""
        self._evicting = threading.Lock()
        """Held by the one thread that evicts."""
        self._bypass_until = 0.0
        self._looks = 0
        self.problem = ""
        """One sentence while the cache is bypassed."""

    def load(self) -> int:
        """Make known what earlier processes cached, oldest first; returns the number of files."""
        found: list[tuple[float, bytes, int]] = []
        for key in self.segments():
            with suppress(OSError):
                status = self._disk.stat(self.path(key))
                if not status.st_size:
                    # Made for an answer that was an error.
                    self._disk.unlink(self.path(key))
                    continue
                found.append((status.st_mtime, key, status.st_blocks * 512))
        found.sort()
        for _, key, charge in found:
            self._map.adopt(key, charge)
        return len(found)

    def segments(self) -> Iterator[bytes]:
        """Ids of the segments of which something may be in the directory."""
        with suppress(OSError):
            for shard in self._disk.listdir(self._directory):
                with suppress(OSError):
                    names = self._disk.listdir(self._directory / shard)
                    yield from (bytes.fromhex(name) for name in names if len(name) == 64)

    def whole(self, segment: bytes, size: int) -> bytes | None:
        """What is in a segment's file, if that has `size` bytes. Holes read as zeros."""
        try:
            fd = self._disk.open(self.path(segment), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            data = self._disk.pread(fd, size + 1, 0)
        except OSError:
            return None
        finally:
            self._disk.close(fd)
        return data if len(data) == size else None

    @property
    def bypassed(self) -> bool:
        return self._clock.monotonic() < self._bypass_until

    def path(self, segment: bytes) -> Path:
        name = segment.hex()
        return self._directory / name[:2] / name

    def prepare(self, segment: bytes) -> None:
        """Make the file that fetched bytes are about to be written to. Empty it is as none."""
        fd = self.open_for_fill(segment)
        if fd is None:
            return
        try:
            self.close_fill(fd)
        except OSError as error:
            # Whoever calls waits for the store, and gets its bytes past the cache.
            self.broken(error)

    def open_for_fill(self, segment: bytes) -> int | None:
        """A descriptor to write fetched bytes to, or None while the cache is bypassed."""
        if self.bypassed or self.limit_bytes <= 0:
            return None
        path = self.path(segment)
        try:
            try:
                return self._disk.open(path, _WRITE)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    self._disk.mkdir(path.parent)
                return self._disk.open(path, _WRITE)
        except OSError as error:
            self.broken(error)
            return None

    def fill(self, fd: int, slot: int, offset: int, data: memoryview) -> bool:
        """Write fetched bytes (whole units) and make them present. False: the cache failed."""
        try:
            self._write(fd, data, offset)
        except OSError as error:
            self.broken(error)
            return False
        return self._map.set_present(slot, offset, len(data))

    def _write(self, fd: int, data: memoryview, offset: int) -> None:
        """On a full disk older segments give way. Raises OSError."""
        try:
            self._disk.pwrite(fd, data, offset)
        except OSError as error:
            if error.errno not in FULL or not self.give_way(len(data)):
                raise
            self._disk.pwrite(fd, data, offset)

    def close_fill(self, fd: int) -> None:
        self._disk.close(fd)

    def broken(self, error: OSError) -> None:
        """The cache disk failed: go around it for a while."""
        self._bypass_until = self._clock.monotonic() + BYPASS_S
        self.problem = f"The cache disk fails ({error.strerror}); reads go around it."

    def adopt_staged(self, staging: StagingArea, segment: bytes, slot: int) -> None:
        """An uploaded and committed segment becomes a cached one by rename(2)."""
        with self._moving:
            kept = not self.bypassed and self.limit_bytes > 0
            if kept:
                try:
                    staging.adopt(SegmentId(segment), self._directory)
                except LocalError:
                    kept = False
            if not kept:
                staging.remove(SegmentId(segment))
            self._map.promote(slot)
            if not kept:
                self._map.clear_present(slot, 0, self._map.stored_len(slot))
                return
            self._map.set_charge(slot, self._map.stored_len(slot))
        self.make_room()

    def wait_moved(self) -> None:
        """Returns when a segment that was on its way from staging into the cache has arrived."""
        with self._moving:
            return

    def make_room(self) -> None:
        """Evict until the cache is below its limit and the disk has its free floor."""
        excess = self._map.total_charge - self.limit_bytes
        self._looks += 1
        if self._looks % LOOK_EVERY == 0:
            whole = self._looks % LOOK_WELL_EVERY == 0
            floor = max(self._free_bytes, NEARLY_FULL) if whole else NEARLY_FULL
            with suppress(OSError):
                # What is being read stays: a disk that others filled must not stop reading.
                spare = self._map.total_charge - KEEP_TO_READ
                short = min(floor - self._disk.space(self._directory).available, spare)
                if short > max(excess, 0):
                    self.evict(short, wait=False)
                    excess = 0
        if excess > 0:
            self.evict(excess + min(EVICT_SLACK, self.limit_bytes // 8), wait=False)

    def give_way(self, size: int) -> int:
        """Somebody needs `size` bytes of this disk now; returns how many were freed."""
        return self.evict(size + min(EVICT_SLACK, self.limit_bytes // 8))

    def evict(self, size: int, *, wait: bool = True) -> int:
        """Unlink least useful segments until about `size` bytes are free; returns how many were.

        While another thread evicts it waits for its turn, or without `wait` leaves it to that one.
        """
        if not self._evicting.acquire(blocking=wait):
            return 0
        freed = 0
        try:
            while freed < size:
                victims = self._map.victims(size - freed, 256)
                if not victims:
                    break
                gone = 0
                try:
                    for slot, segment, charge in victims:
                        with suppress(FileNotFoundError):
                            self._disk.unlink(self.path(segment))
                        self._pool.drop(slot)
                        self._map.forget(slot)
                        gone += 1
                        freed += charge
                except OSError as error:
                    self.broken(error)
                    return freed
                finally:
                    for slot, _, _ in victims[gone:]:
                        self._map.spare(slot)
        finally:
            self._evicting.release()
        return freed

    def clear(self) -> int:
        """Evict everything that may be evicted; returns the bytes freed."""
        return self.evict(1 << 62)

    @property
    def used_bytes(self) -> int:
        return self._map.total_charge
