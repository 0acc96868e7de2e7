"""A look at a filespace without a state directory: keys unlocked, and replicas in a directory that
is removed again. Believes nothing local. Used by one thread; `close` gives everything back.

A drive that is open visits with the keys that it holds: see `Held`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from lucid.crypto.founding import Unlocked
from lucid.crypto.keyring import KeyRing
from lucid.engine.sodium import tag_bytes
from lucid.filespace import founding
from lucid.format.checkpoint import CHECKPOINT_EVERY
from lucid.format.limits import INT63_MAX
from lucid.format.runs import Geometry
from lucid.local.disk import local_errors
from lucid.meta import schema
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.meta.log import LogReader
from lucid.meta.replica import Replica
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.store.stack import open_store
from lucid.sync.below_floor import is_whole
from lucid.sync.checkpoint_start import CheckpointStart, Started
from lucid.types import Clock, Entropy

__all__ = ["Held", "Visit"]

CACHE_KIB = 8192
"""Of a replica beside that of a drive that is open: its process is to stay small."""


class Held(NamedTuple):
    """What a drive that is open has already, and keeps."""

    unlocked: Unlocked
    ring: KeyRing
    folder: Path
    """Where the replicas of the visit may lie. What is there is removed, before and after."""
    rest: Callable[[], None]
    """Called again and again: others go first. What it raises ends the visit."""


class Visit:
    """See the module. `every` is the distance of checkpoints."""

    def __init__(
        self,
        url: str,
        secret: str | Held,
        *,
        store: ObjectStore | None,
        clock: Clock,
        entropy: Entropy,
        every: int = CHECKPOINT_EVERY,
    ) -> None:
        """Opens `store`, or the one at `url`. Raises what unlocking raises, and LocalError."""
        self.clock = clock
        self.entropy = entropy
        self.every = every
        self._stack = ExitStack()
        try:
            self._open(url, secret, store)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, url: str, secret: str | Held, store: ObjectStore | None) -> None:
        stack = self._stack
        if store is None:
            store = open_store(url, entropy=self.entropy)
            stack.callback(store.close)
        self.store = store
        self.rest: Callable[[], None] = lambda: None
        if isinstance(secret, Held):
            self._take(secret)
        else:
            self._unlock(secret)
        superblock = self.unlocked.superblock
        self.geometry = Geometry(superblock.block_size, tag_bytes(superblock.suite))
        self.origin = Origin(superblock, self.unlocked.superblock_hash)
        self._key = self.entropy(32)

    def _unlock(self, secret: str) -> None:
        stack = self._stack
        self.unlocked = founding.unlock(self.store, secret)
        stack.callback(self.unlocked.keys.close)
        superblock = self.unlocked.superblock
        self.ring = KeyRing(superblock.filespace, superblock.suite)
        stack.callback(self.ring.close)
        key, _ = founding.read_generation(self.store, self.unlocked, superblock.generation)
        self.ring.add(superblock.generation, key, superblock.generation_key_hash)
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lucid-look-")))
        self._cache_kib = schema.CACHE_KIB

    def _take(self, held: Held) -> None:
        self.unlocked, self.ring, self.rest = held.unlocked, held.ring, held.rest
        self._folder = held.folder
        self._cache_kib = CACHE_KIB
        shutil.rmtree(held.folder, ignore_errors=True)  # Of one that was killed.
        with local_errors(f"make the directory {held.folder}"):
            held.folder.mkdir(mode=0o700, parents=True)
        self._stack.callback(shutil.rmtree, held.folder, ignore_errors=True)

    def close(self) -> None:
        """Idempotent."""
        self._stack.close()

    def replica(self, name: str) -> Replica:
        """The replica of this name, empty if it is new. It is closed with the visit."""
        place = self._folder / name
        place.mkdir(exist_ok=True)
        return self._opened(place / "replica")

    def reader(self, replica: Replica) -> LogReader:
        return LogReader(self.store, self.ring, replica, self.origin)

    def checkpoints(self) -> CheckpointReader:
        return CheckpointReader(self.store, self.ring, self.every)

    def begin(
        self, name: str, *, below: int = INT63_MAX, entries: int = INT63_MAX
    ) -> tuple[Started | None, list[str]]:
        """Put the replica of this name at the newest checkpoint below `below` that is to be
        believed, and up to `entries` behind it; why others were not used.

        None: there is no such checkpoint, and the replica stays as it is. Raises what following the
        log raises, and StoreError.
        """
        place = self._folder / name
        place.mkdir(exist_ok=True)
        reader = _Below(self.store, self.ring, self.every, below)
        start = CheckpointStart(
            self.store, self.ring, self.origin, reader, place / "replica", self._key, self._opened,
            self.rest,
        )  # fmt: skip
        started = start.run(0, entries, lambda: None, is_only_way=self._is_cut)
        return started, start.refused

    def _is_cut(self) -> bool:
        """Whether entries are gone, so that only a checkpoint leads to the end of the log."""
        newest = self.checkpoints().newest() or 0
        return not is_whole(self.store, 0, newest)

    def _opened(self, path: Path) -> Replica:
        replica = Replica(path, self._key, self.geometry, self.clock, self._cache_kib)
        self._stack.callback(replica.close)
        return replica


class _Below(CheckpointReader):
    """Knows only checkpoints below one entry."""

    def __init__(self, store: ObjectStore, ring: KeyRing, every: int, below: int) -> None:
        super().__init__(store, ring, every)
        self._below = below

    def newest(self, before: int = INT63_MAX) -> int | None:
        return super().newest(min(before, self._below))
