"""Checkpoints in the store: finding the newest, reading its objects, and writing one (FORMAT 7.1).

Owns no thread and no state but which chunks the writer knows to be whole. One thread at a time; no
lock is held while the store is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from lucid.crypto.checkpoint import (
    SignedManifest,
    open_chunk,
    open_manifest,
    seal_chunk,
    seal_manifest,
)
from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys
from lucid.errors import CorruptObject, DataError, ObjectMissing
from lucid.format.checkpoint import (
    CHUNK_OBJECT_MAX,
    MANIFEST_OBJECT_MAX,
    Chunk,
    ChunkRef,
    Manifest,
)
from lucid.format.entry import EntryRef
from lucid.format.limits import INT63_MAX
from lucid.format.names import (
    CHECKPOINT_PREFIX,
    MANIFEST_PART,
    checkpoint_key,
    parse_checkpoint_key,
)
from lucid.store.base import ObjectStore
from lucid.types import Entropy

__all__ = ["Again", "CheckpointReader", "CheckpointWriter"]

T = TypeVar("T")
Again = Callable[[Callable[[], T]], T]

NAME_SIZE = 16
_BEHIND_ALL_PARTS = "z"
JUNK_MAX = 1000
"""Names that are no checkpoint's and are looked over. More of them hide what is behind: then the
log is read."""


class CheckpointReader:
    """Reads objects of checkpoints. `every` is the distance at which they are expected: it makes
    the search quick, and is no condition."""

    def __init__(self, store: ObjectStore, ring: KeyRing, every: int) -> None:
        self._store = store
        self._ring = ring
        self._every = max(every, 1)

    def newest(self, before: int = INT63_MAX) -> int | None:
        """The highest sequence below `before` with objects of a checkpoint; None if there is none.

        A folder may hold thousands of chunks, so they are not listed: each step asks for one key.
        """
        low = self._after(0, before)
        if low is None:
            return None
        step = self._every
        while (found := self._after(low + step - 1, before)) is not None:
            low, step = found, step * 2
        while step > self._every:
            step //= 2
            low = self._after(low + step - 1, before) or low
        while (found := self._after(low, before)) is not None:
            low = found
        return low

    def _after(self, sequence: int, before: int) -> int | None:
        """The lowest sequence above this one and below `before`."""
        start = f"{CHECKPOINT_PREFIX}{sequence:016x}/{_BEHIND_ALL_PARTS}"
        for limit in (1, JUNK_MAX):
            keys = [info.key for info in self._store.list(CHECKPOINT_PREFIX, start, limit)]
            parsed = filter(None, map(parse_checkpoint_key, keys))
            found = next((number for number, _ in parsed if number > sequence), None)
            if found is not None:
                return found if found < before else None
            if not keys:
                break  # Else it is somebody's junk: look behind it.
        return None

    def manifest(self, sequence: int) -> SignedManifest:
        """The manifest of the checkpoint at `sequence`, its signature not yet checked.

        Raises ObjectMissing, DataError, StoreError.
        """
        key = checkpoint_key(sequence, MANIFEST_PART)
        data = self._store.get(key, 0, MANIFEST_OBJECT_MAX + 1)
        return open_manifest(self._ring, sequence, data)

    def chunk(self, ref: ChunkRef) -> bytes:
        """The plaintext of a chunk that a manifest names. Raises as `manifest` does."""
        key = checkpoint_key(ref.sequence, ref.name.hex())
        return open_chunk(self._ring, ref, self._store.get(key, 0, CHUNK_OBJECT_MAX + 1))


class CheckpointWriter:
    """Puts checkpoints of one member's session. What was put counts once it was read back."""

    def __init__(
        self,
        store: ObjectStore,
        ring: KeyRing,
        keys: MemberKeys,
        session: int,
        reader: CheckpointReader,
        entropy: Entropy,
    ) -> None:
        self._store = store
        self._ring = ring
        self._keys = keys
        self._session = session
        self._reader = reader
        self._entropy = entropy
        self._known: dict[bytes, ChunkRef] = {}
        self._older: dict[bytes, ChunkRef] = {}
        self.shared = 0
        """Chunks of the newest checkpoint that an earlier one had already."""

    @property
    def knows_chunks(self) -> bool:
        """Whether there are chunks to share: else `learn` of an earlier checkpoint's."""
        return bool(self._known or self._older)

    def learn(self, chunks: Iterable[ChunkRef]) -> None:
        """Another has put these: each is read before it is shared."""
        for ref in chunks:
            self._older.setdefault(ref.hash, ref)

    def put_chunk(
        self, sequence: int, generation: bytes, chunk: Chunk, again: Again[bool]
    ) -> ChunkRef:
        """A place where this chunk is. `again` calls until the store answers."""
        ref = self._known.get(chunk.hash)
        if ref is None:
            ref = self._older_one(chunk.hash, again)
        if ref is not None:
            self.shared += 1
            return ref._replace(first_key=chunk.first_key)
        name = self._entropy(NAME_SIZE)
        data = seal_chunk(self._ring, generation, chunk, self._entropy)
        key = checkpoint_key(sequence, name.hex())
        # After a doubtful answer the very same bytes are put again under the same name.
        again(lambda: self._put(key, data))
        return ChunkRef(chunk.first_key, sequence, name, chunk.hash)

    def put_manifest(
        self,
        head: EntryRef,
        generation: bytes,
        time_ns: int,
        chunks: tuple[ChunkRef, ...],
        again: Again[bool],
    ) -> Manifest:
        """The checkpoint at `head` is there from now on. Raises ObjectExists if another has put
        its manifest."""
        manifest = Manifest(self._keys.member, self._session, time_ns, head.hash, chunks)
        data = seal_manifest(
            self._ring, self._keys, generation, head.sequence, manifest, self._entropy
        )
        again(lambda: self._put(checkpoint_key(head.sequence, MANIFEST_PART), data))
        self._known = {ref.hash: ref for ref in chunks}
        self._older.clear()
        return manifest

    def _put(self, key: str, data: bytes) -> bool:
        self._store.put_if_absent(key, data)
        if self._store.get(key, 0, len(data) + 1) != data:
            raise CorruptObject(f"The store does not give back what was put as {key}.")
        return True

    def _older_one(self, digest: bytes, again: Again[bool]) -> ChunkRef | None:
        ref = self._older.get(digest)
        return ref if ref is not None and again(lambda: self._is_whole(ref)) else None

    def _is_whole(self, ref: ChunkRef) -> bool:
        try:
            self._reader.chunk(ref)
        except (DataError, ObjectMissing):
            return False
        return True
