"""A look at a filespace without a state directory: keys unlocked, and replicas in a directory that
is removed again. Believes nothing local. Used by one thread; `close` gives everything back.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from lucid.crypto.keyring import KeyRing
from lucid.engine.sodium import tag_bytes
from lucid.filespace import founding
from lucid.format.checkpoint import CHECKPOINT_EVERY
from lucid.format.limits import INT63_MAX
from lucid.format.runs import Geometry
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.meta.log import LogReader
from lucid.meta.replica import Replica
from lucid.meta.verify import Origin
from lucid.store.base import ObjectStore
from lucid.store.stack import open_store
from lucid.sync.checkpoint_start import CheckpointStart, Started
from lucid.types import Clock, Entropy

__all__ = ["Visit"]


class Visit:
    """See the module. `every` is the distance of checkpoints."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        store: ObjectStore | None,
        clock: Clock,
        entropy: Entropy,
        every: int = CHECKPOINT_EVERY,
    ) -> None:
        """Opens `store`, or the one at `url`. Raises what unlocking raises."""
        self.clock = clock
        self.entropy = entropy
        self.every = every
        self._stack = ExitStack()
        try:
            self._open(url, secret, store)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, url: str, secret: str, store: ObjectStore | None) -> None:
        stack = self._stack
        if store is None:
            store = open_store(url, entropy=self.entropy)
            stack.callback(store.close)
        self.store = store
        self.unlocked = founding.unlock(store, secret)
        stack.callback(self.unlocked.keys.close)
        superblock = self.unlocked.superblock
        self.ring = KeyRing(superblock.filespace, superblock.suite)
        stack.callback(self.ring.close)
        key, _ = founding.read_generation(store, self.unlocked, superblock.generation)
        self.ring.add(superblock.generation, key, superblock.generation_key_hash)
        self.geometry = Geometry(superblock.block_size, tag_bytes(superblock.suite))
        self.origin = Origin(superblock, self.unlocked.superblock_hash)
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lucid-look-")))
        self._key = self.entropy(32)

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
            self.store, self.ring, self.origin, reader, place / "replica", self._key, self._opened
        )
        started = start.run(0, entries, lambda: None)
        return started, start.refused

    def _opened(self, path: Path) -> Replica:
        replica = Replica(path, self._key, self.geometry, self.clock)
        self._stack.callback(replica.close)
        return replica


class _Below(CheckpointReader):
    """Knows only checkpoints below one entry."""

    def __init__(self, store: ObjectStore, ring: KeyRing, every: int, below: int) -> None:
        super().__init__(store, ring, every)
        self._below = below

    def newest(self, before: int = INT63_MAX) -> int | None:
        return super().newest(min(before, self._below))
