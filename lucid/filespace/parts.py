"""The rooms of one open filespace, composed once and shared by what works on them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lucid.config import Config
from lucid.data.cache import SegmentCache
from lucid.data.drafting import Drafting
from lucid.data.drafts import DraftTable
from lucid.data.fetch import Fetcher
from lucid.data.memory import MemoryBudget
from lucid.data.reading import BlockReader, MapBuilder
from lucid.data.segments import StagedSegments
from lucid.data.upload import Uploader
from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable
from lucid.errors import NameTooLong, NotDirectory, NotFound, ReadOnly, UsageError
from lucid.filespace.conflicts import Conflicts
from lucid.filespace.maps import FileMaps
from lucid.filespace.surface import Attributes, Invalidation
from lucid.filespace.undone import Undone
from lucid.format.check import shown
from lucid.format.ops import Op
from lucid.format.runs import Geometry
from lucid.local.book import JournalBook
from lucid.local.staging import StagingArea
from lucid.meta.fold_effect import Effect
from lucid.meta.replica import Replica
from lucid.meta.state import InodeRow
from lucid.store.base import ObjectStore
from lucid.sync.order import Order
from lucid.sync.publisher import Publisher
from lucid.types import Clock

__all__ = ["Parts", "attributes_of", "check_name"]

NAME_MAX = 255


@dataclass
class Parts:
    """Write once, by opening; who closes them is opening too."""

    config: Config
    clock: Clock
    geometry: Geometry
    read_only: bool
    store: ObjectStore
    replica: Replica
    book: JournalBook
    staging: StagingArea
    staged: StagedSegments
    cache: SegmentCache
    fetcher: Fetcher
    memory: MemoryBudget
    maps: MapBuilder
    reader: BlockReader
    table: DraftTable
    drafting: Drafting
    uploader: Uploader
    order: Order
    publisher: Publisher
    file_maps: FileMaps
    hits: HitTable
    known: KnownTable
    next_op_id: Callable[[], int]
    commit_now: Callable[[], None] = lambda: None
    is_online: Callable[[], bool] = lambda: False
    conflicts: Conflicts = field(default_factory=Conflicts)
    undone: Undone = field(default_factory=Undone)
    listeners: list[Callable[[Sequence[Invalidation]], None]] = field(default_factory=list)

    def check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly
        self.order.check_writable()

    def inode(self, ino: int) -> InodeRow:
        """The row of an inode that the replica knows. Raises NotFound."""
        row = self.replica.inode(ino)
        if row is None:
            raise NotFound
        return row

    def directory(self, ino: int) -> InodeRow:
        """The row of a directory that is part of the tree."""
        row = self.inode(ino)
        if not stat.S_ISDIR(row.mode):
            raise NotDirectory
        if not row.nlink:
            raise NotFound
        return row

    def place(self, op: Op, segments: Iterable[bytes] = ()) -> Effect:
        """Accept an op, and forget what is known of the inodes it changed."""
        effect = self.order.place(op, segments)
        self.file_maps.forget(effect.inodes)
        return effect

    def tell(self, changed: Sequence[Invalidation]) -> None:
        """Say to the mount what its kernel should forget. No lock may be held."""
        if changed:
            for listener in self.listeners:
                listener(changed)


def attributes_of(row: InodeRow) -> Attributes:
    """stat(2) of a row."""
    return Attributes(
        row.ino, row.mode, row.nlink, row.uid, row.gid, row.rdev, row.size,
        -(-row.data_bytes // 512), row.atime_ns, row.mtime_ns, row.ctime_ns,
    )  # fmt: skip


def check_name(name: bytes) -> None:
    """Raises NameTooLong, or UsageError for a name that cannot be."""
    if len(name) > NAME_MAX:
        raise NameTooLong
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise UsageError(f"{shown(name)} cannot be a name.")
