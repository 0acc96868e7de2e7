"""Building the rooms of an open filespace from the bottom up, once its keys, journal and replica
are there.

Every room that must be closed is put on the filespace's closing stack in the moment it is made.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lucid.config import Config
from lucid.crypto.founding import Unlocked
from lucid.crypto.keyring import KeyRing
from lucid.data.cache import SegmentCache
from lucid.data.draft import Draft
from lucid.data.drafting import Drafting
from lucid.data.drafts import DraftTable
from lucid.data.fetch import Fetcher
from lucid.data.memory import MemoryBudget
from lucid.data.prefetch import Prefetcher
from lucid.data.reading import BlockReader, MapBuilder
from lucid.data.segments import KeySource, StagedSegments
from lucid.data.upload import Uploader
from lucid.engine.cachemap import CacheMap
from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable
from lucid.engine.pool import Pool
from lucid.engine.reader import Reader
from lucid.errors import InternalError, ReadOnly
from lucid.filespace.collecting_daily import DailyCollection
from lucid.filespace.events import tell_changes
from lucid.filespace.files import Files
from lucid.filespace.leasing import OpenLeases, make_keeper
from lucid.filespace.maps import FileMaps
from lucid.filespace.parts import Parts
from lucid.filespace.picture import Picture
from lucid.filespace.recovery import Recovery
from lucid.filespace.renewing import Renewing
from lucid.filespace.together import Together
from lucid.format.change import SegmentRow
from lucid.format.journal import SegmentRecord
from lucid.format.ops import Op
from lucid.format.runs import Geometry
from lucid.local.book import JournalBook
from lucid.local.disk import Disk
from lucid.local.staging import DISK_FREE_MIN, StagingArea
from lucid.meta.authoring import OpIds, author_of
from lucid.meta.checkpoint_store import CheckpointReader, CheckpointWriter
from lucid.meta.fold_effect import Effect
from lucid.meta.log import LogReader, LogWriter
from lucid.meta.replica import Replica
from lucid.meta.replica_events import Changed
from lucid.store.base import ObjectStore
from lucid.sync.checkpointer import Checkpointer
from lucid.sync.committer import Committer, Session
from lucid.sync.daily import Daily
from lucid.sync.order import Order
from lucid.sync.publisher import Publisher
from lucid.types import Clock, Entropy

if TYPE_CHECKING:
    from lucid.filespace.opening import Opened

__all__ = ["Ground", "compose"]

STAGING_SLACK = 256 * 1024 * 1024
"""Writers stop at the limit; what was accepted may go a little over it to be sealed."""


@dataclass(frozen=True)
class Ground:
    """What opening has made ready."""

    opened: Opened
    config: Config
    clock: Clock
    entropy: Entropy
    disk: Disk
    store: ObjectStore
    unlocked: Unlocked
    ring: KeyRing
    replica: Replica
    log: LogReader
    book: JournalBook
    picture: Picture
    session: Session | None
    op_ids: OpIds | None
    geometry: Geometry


def compose(ground: Ground) -> None:
    """Build all rooms, take up what was pending, and start to follow the log."""
    composing = _Composing(ground)
    composing.reading()
    composing.writing()
    composing.parts()
    composing.recover()


class _Composing:
    """The steps, in their order; used once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._opened = ground.opened
        self._closing = ground.opened.closing
        superblock = ground.unlocked.superblock
        config = ground.config
        self._renewing: Renewing
        self._keys = KeySource(ground.ring.data_key, superblock.filespace, superblock.suite)
        self._memory = MemoryBudget(config.memory_bytes, config.pool_bytes)
        self._staging = StagingArea(
            ground.disk,
            self._opened.state.staging,
            config.staging_bytes + STAGING_SLACK,
            free_bytes_min=DISK_FREE_MIN,
            clock=ground.clock,
        )
        self._closing.callback(self._staging.close)

    def reading(self) -> None:
        """Cache, staged segments, fetcher, reader."""
        ground, config = self._ground, self._ground.config
        pool = self._make_cache()
        generation = ground.unlocked.superblock.generation
        self._staged = StagedSegments(
            self._staging,
            self._cachemap,
            self._keys,
            ground.geometry,
            ground.entropy,
            generation=lambda: generation,
            head=lambda: ground.replica.head().sequence,
            finished=lambda row: self._note_finished(row),
            committed_row=ground.replica.segment,
        )
        self._closing.callback(self._staged.close)
        self._fetcher = Fetcher(
            ground.store,
            self._cachemap,
            self._cache,
            self._memory.fetching,
            ground.clock,
            workers=config.fetch_workers,
            timeout_s=config.read_timeout_s,
        )
        self._closing.callback(self._fetcher.close)
        self._maps = MapBuilder(
            self._cachemap, self._keys, ground.geometry, ground.replica.segment, self._staged.slot
        )
        reader = Reader(self._cachemap, pool, ground.geometry.block_size)
        self._reader = BlockReader(self._cachemap, reader, self._fetcher, config.cache_bytes)
        self._hits = HitTable(reader)
        self._known = KnownTable()
        self._closing.callback(self._known.end)
        self._table = DraftTable(self._hits, self._known)
        ground.replica.tell(self._known, self._table.has_children)

    def _make_cache(self) -> Pool:
        ground, state, config = self._ground, self._opened.state, self._ground.config
        cache_dir = os.open(state.cache, os.O_RDONLY | os.O_DIRECTORY)
        staging_dir = os.open(state.staging, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._cachemap = CacheMap(cache_dir, staging_dir, config.block_pool_descriptors)
        finally:
            os.close(cache_dir)
            os.close(staging_dir)
        self._opened.cachemap = self._cachemap
        self._closing.callback(self._cachemap.close)
        pool = Pool(ground.geometry.block_size, config.pool_bytes)
        self._cache = SegmentCache(
            ground.disk,
            state.cache,
            self._cachemap,
            pool,
            ground.clock,
            limit_bytes=config.cache_bytes,
            free_bytes=config.cache_free_bytes,
        )
        self._cache.load()
        self._staging.give_way = self._cache.give_way
        if not config.read_only:
            ground.book.journal.give_way = self._cache.give_way
        return pool

    def _note_finished(self, row: SegmentRow) -> None:
        """So that a restart need not seal a finished segment again."""
        self._ground.book.note(SegmentRecord(row), removal=True)

    def writing(self) -> None:
        """Drafts, the order of ops, uploads, publishing."""
        ground = self._ground
        self._drafting = Drafting(
            self._staged,
            self._staging,
            ground.book,
            self._reader,
            self._maps,
            self._memory.writing,
            ground.clock,
        )
        self._order = Order(
            ground.book, self._staged, ground.clock, self._applier(), ground.replica.is_pending
        )
        self._closing.callback(self._order.close)
        self._uploader = Uploader(
            ground.store,
            self._staging,
            self._memory.uploading,
            workers=ground.config.upload_workers,
            done=self._uploaded,
            pause=random.Random(ground.entropy(8)),
        )
        self._closing.callback(self._uploader.close)
        self._closing.callback(self._memory.close)
        self._staged.upload = self._uploader.submit
        self._publisher = Publisher(
            self._order,
            self._table,
            self._drafting,
            self._staged,
            next_op_id=self._next_op_id,
            published=self._published,
            renew=lambda draft: self._renewing.draft(draft),
            is_rewritten=self._is_rewritten,
        )
        self._closing.callback(self._publisher.close)

    def _is_rewritten(self, draft: Draft) -> bool:
        return draft.truncated and self._opened.files.writers(draft.ino) > 0

    def _applier(self) -> _Applier:
        session, replica = self._ground.session, self._ground.replica
        return _Applier(replica, session.number if session else 0)

    def _next_op_id(self) -> int:
        if self._ground.op_ids is None:
            raise ReadOnly
        return self._ground.op_ids.take()

    def _uploaded(self, segment: bytes) -> None:
        self._staged.uploaded(segment)
        self._order.wake()

    def _published(self, draft: Draft, op_id: int, effect: Effect) -> None:
        self._opened.parts.file_maps.forget([draft.ino, *effect.inodes])
        self._opened.files.wrote(op_id, draft.ino)
        self._opened.files.moved(draft.ino, effect.landed_ino)
        if self._opened.files.leases is not None and op_id != draft.ino:
            self._opened.files.leases.placed(draft.ino)

    def parts(self) -> None:
        """Everything in one place, for the operations."""
        ground, config = self._ground, self._ground.config
        file_maps = FileMaps(
            ground.replica, self._maps, self._cachemap, ground.geometry, self._hits
        )
        prefetcher = Prefetcher(self._hits, file_maps.newest, self._reader)
        self._closing.callback(prefetcher.close)
        self._opened.parts = Parts(
            config=replace(config, state_dir=self._opened.state.path),
            clock=ground.clock,
            geometry=ground.geometry,
            read_only=config.read_only,
            store=ground.store,
            replica=ground.replica,
            book=ground.book,
            staging=self._staging,
            staged=self._staged,
            cache=self._cache,
            fetcher=self._fetcher,
            memory=self._memory,
            maps=self._maps,
            reader=self._reader,
            table=self._table,
            drafting=self._drafting,
            uploader=self._uploader,
            order=self._order,
            publisher=self._publisher,
            file_maps=file_maps,
            hits=self._hits,
            known=self._known,
            next_op_id=self._next_op_id,
        )
        self._opened.files = Files(self._opened.parts)
        self._renewing = Renewing(
            self._opened.parts, self._keys, adopt=self._adopt, tell=self._tell_changes
        )

    def _adopt(self, segment: bytes, slot: int) -> None:
        self._cache.adopt_staged(self._staging, segment, slot)

    def _tell_changes(self, changed: Changed) -> None:
        tell_changes(self._opened.parts, self._opened.files, changed)

    def recover(self) -> None:
        """Take up what the journal held, then follow the log."""
        ground, opened = self._ground, self._opened
        drafts = []
        if ground.session is not None:
            recovery = Recovery(opened.parts, self._keys, ground.ring, ground.picture)
            drafts = recovery.run(opened.state.is_of_this_start())
            opened.state.note_start()
        opened.problems.extend(ground.picture.failed)
        opened.checkpoints = self._make_checkpointer()
        self._closing.callback(opened.checkpoints.close)
        opened.checkpoints.start()
        snapshot = opened.beginning.take_snapshot()
        if snapshot is not None:
            opened.checkpoints.take(snapshot)
        opened.beginning.agreement.on_stop(self._order.stop, self._order.go_on)
        generation = ground.unlocked.superblock.generation
        opened.together = Together(opened, ground.config, ground.clock, ground.entropy, generation)
        self._closing.callback(opened.together.close)
        opened.committer = self._make_committer()
        self._closing.callback(opened.committer.close)
        self._make_leases()
        opened.parts.commit_now = opened.committer.poke
        opened.parts.is_online = lambda: opened.committer.online
        for draft in drafts:
            opened.files.publish_quietly(draft)
        opened.together.begin()
        opened.committer.start()
        opened.leases.start()
        if ground.session is not None and ground.config.retention_s is not None:
            self._collect_daily()

    def _make_leases(self) -> None:
        opened, policy = self._opened, self._ground.config.lock_policy
        opened.leases = keeper = make_keeper(opened)
        self._closing.callback(keeper.close)
        opened.committer.hurry_s = keeper.hurry_s
        opened.committer.is_asked = keeper.is_asked
        if keeper.are_carried and policy != "none":
            opened.files.leases = OpenLeases(opened.parts, keeper, policy)

    def _collect_daily(self) -> None:
        ground, opened = self._ground, self._opened
        daily = Daily(
            lambda: collection.run(),
            ground.clock,
            random.Random(ground.entropy(8)),
            self._order.wake,
        )
        collection = DailyCollection(
            opened, ground.config, ground.clock, ground.entropy, daily.rest, daily.is_stopping
        )
        opened.collection, opened.daily = collection, daily
        self._closing.callback(daily.close)
        daily.start()

    def _make_checkpointer(self) -> Checkpointer:
        ground, config = self._ground, self._ground.config
        store = ground.store.background()
        reader = CheckpointReader(store, ground.ring, config.checkpoint_every)
        writer = None
        if ground.session is not None:
            writer = CheckpointWriter(
                store, ground.ring, ground.unlocked.keys, ground.session.number, reader,
                ground.entropy,
            )  # fmt: skip
        return Checkpointer(
            replica=ground.replica,
            agreement=self._opened.beginning.agreement,
            reader=reader,
            writer=writer,
            clock=ground.clock,
            pause=random.Random(ground.entropy(8)),
            every=config.checkpoint_every,
            wait_s=config.checkpoint_wait_s,
        )

    def _make_committer(self) -> Committer:
        ground, opened, config = self._ground, self._opened, self._ground.config
        writer = None
        if ground.session is not None:
            writer = LogWriter(
                ground.store, ground.ring, ground.unlocked.keys, ground.replica, ground.entropy
            )
        notes = {
            number: [note.entry_hash for note in found]
            for number, found in ground.picture.notes.items()
        }
        return Committer(
            order=self._order,
            staged=self._staged,
            is_upload_free=lambda: self._uploader.is_free,
            replica=ground.replica,
            reader=ground.log,
            writer=writer,
            book=ground.book,
            session=ground.session,
            notes=notes,
            checkpoints=opened.checkpoints,
            floors=opened.floors,
            next_op_id=self._next_op_id,
            adopt=self._adopt,
            changed=self._tell_changes,
            renew=self._renewing.pending,
            clock=ground.clock,
            poll_fast_s=config.poll_fast_s,
            poll_idle_s=config.poll_idle_s,
            poll_told_s=max(config.poll_told_s, config.poll_idle_s),
            pause=random.Random(ground.entropy(8)),
            online=not opened.away,
        )


class _Applier:
    """Applies own ops to the replica, in the name of this session."""

    def __init__(self, replica: Replica, session: int) -> None:
        self._replica = replica
        self._author = author_of(replica, session) if session else None

    def __call__(self, position: int, op: Op, rows: list[SegmentRow]) -> Effect:
        if self._author is None:
            raise InternalError("A read-only filespace has no ops.")
        return self._replica.apply_pending(position, op, self._author, rows)
