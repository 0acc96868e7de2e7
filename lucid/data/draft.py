"""A draft: all that is unpublished of one file's content.

A draft lies over a base version: bytes below `keep` come from the base, runs sealed since lie over
them, then patches that the journal holds, then dirty blocks in memory. A *private* draft is a file
that the log does not know yet. This module is the bookkeeping, without I/O; `drafting` does the
work.

Every field is guarded by `lock`. Lock order: the order of ops, then a draft, then segments and
journal.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from lucid.data.dirty import DirtyBlock
from lucid.data.segments import SealOwner
from lucid.engine.blockmap import BlockMap
from lucid.format.change import DATA, HOLE
from lucid.format.runs import Geometry, RunMap, run_bytes
from lucid.local.book import Live

__all__ = ["Draft", "PatchPlace", "Span"]


class PatchPlace(NamedTuple):
    """A patch in the journal: bytes [start, end) of its block."""

    start: int
    end: int
    live: Live


class Span(NamedTuple):
    """Part of a read, in file offsets, and which layer its bytes come from."""

    source: str  # "sealed", "base" or "zero"
    start: int
    end: int


class Draft:
    """The unpublished state of one inode."""

    # So many fields would not share the keys of their dictionary: each draft had one of its own.
    __slots__ = (
        "atime_ns", "base", "base_bytes", "base_map", "changed", "ctime_ns", "cut_to", "dirty",
        "dirty_bytes", "durable", "failure", "geometry", "gid", "gone", "image", "ino", "keep",
        "lock", "mode", "mtime_ns", "name", "owner", "parent", "patched", "patches", "private",
        "sealed", "sealed_map", "sealed_revision", "shortened", "since", "size", "stale",
        "truncated", "uid", "unlinked", "unpublished", "written", "xattrs",
    )  # fmt: skip

    def __init__(self, ino: int, geometry: Geometry) -> None:
        self.lock = threading.RLock()
        self.geometry = geometry
        self.owner = SealOwner(ino)
        self.ino = ino
        self.private = False
        self.parent = 0  # name the file was made or opened by
        self.name = b""
        self.base = 0  # version below; 0 for none
        self.base_map: BlockMap | None = None
        self.base_bytes = 0
        self.keep = 0
        self.size = 0
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.atime_ns = 0
        self.mtime_ns = 0
        self.ctime_ns = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.sealed = RunMap(geometry)
        self.sealed_map: BlockMap | None = None
        self.sealed_revision = -1
        self.dirty: dict[int, DirtyBlock] = {}
        self.dirty_bytes = 0
        self.patches: dict[int, list[PatchPlace]] = {}
        self.patched = False
        """The journal has held patches of it: each cut must be an image there, behind them."""
        self.cut_to: int | None = None
        """The smallest size since the last image record, where it was cut since and patched."""
        self.shortened: list[tuple[Live, int]] = []
        """Patches that were cut since, and how many of their bytes count."""
        self.stale: list[Live] = []
        """Patches whose blocks were sealed since. The journal keeps them until it holds the record
        that names the sealed blocks."""
        self.image: Live | None = None
        self.durable = False
        """An fsync covered some of it: what takes the place of its records must be as durable."""
        self.written = False
        """Bytes came since the last publish: under durability "store" close() waits for them."""
        self.unlinked = False
        self.changed = False
        """Something since the last image record: only memory knows it."""
        self.unpublished = False
        """There is something to publish."""
        self.since = 0.0
        """Monotonic time of the first unpublished change."""
        self.truncated = False
        """Cut to nothing since the last publish: the timer leaves it alone while it is empty."""
        self.gone = False
        """Published or dropped: whoever still finds it looks again."""
        self.failure: str = ""

    def is_saved_whole(self) -> bool:
        """Whether its blocks are all sealed, the journal knows of them, and nothing has to be
        durable first: there is nothing to do before it is placed. Needs no lock, like a FLUSH that
        was the last thing before; who places it looks again."""
        return not (self.changed or self.dirty or self.patches or self.stale or self.durable)

    # REQUIRES of all that follows: lock held.

    def block_length(self, block: int) -> int:
        """Bytes of the file in this block, by its present size."""
        size = self.geometry.block_size
        return max(0, min(size, self.size - block * size))

    def has_below(self, block: int) -> bool:
        """Whether anything but zeros lies under the dirty bytes of a block."""
        kind = self.sealed.kind(block)
        if kind is not None:
            # Over a hole nothing is a patch: recovery could not tell this hole from the next one.
            return kind != HOLE
        return self.base_map is not None and block * self.geometry.block_size < self.keep

    def data_bytes(self) -> int:
        """About how many bytes of data the file has: for st_blocks."""
        sealed = sum(run_bytes(run, self.geometry) for run in self.sealed.runs())
        dirty = sum(
            self.block_length(block)
            for block in {*self.dirty, *self.patches}
            if not self.sealed.covers(block)
        )
        return min(self.size, min(self.base_bytes, self.keep) + sealed + dirty)

    def touch(self, now_ns: int, monotonic: float) -> None:
        """The content changes now."""
        self.mtime_ns = self.ctime_ns = now_ns
        self.changed = True
        if not self.unpublished:
            self.unpublished = True
            self.since = monotonic

    def spans(self, offset: int, end: int) -> list[Span]:
        """The layers under [offset, end), dirty bytes aside, neighbours joined."""
        block_size = self.geometry.block_size
        spans: list[Span] = []
        at = offset
        while at < end:
            block = at // block_size
            stop = min(end, (block + 1) * block_size)
            if self.sealed.covers(block):
                source = "sealed"
            elif self.base_map is not None and at < self.keep:
                source, stop = "base", min(stop, self.keep)
            else:
                source = "zero"
            if spans and spans[-1].source == source and spans[-1].end == at:
                spans[-1] = Span(source, spans[-1].start, stop)
            else:
                spans.append(Span(source, at, stop))
            at = stop
        return spans

    def segments(self) -> set[bytes]:
        """Segments that the sealed runs name."""
        return {run.segment for run in self.sealed.runs() if run.kind == DATA}
