"""The map of segments known to this machine: keys, presence, recency, descriptors.

Any thread may call; one mutex inside, never held over I/O.
"""

from typing import Final, final

from typing_extensions import Buffer, Self

from .sodium import AdContext

MAX_OPEN_FILES: Final[int]

@final
class CacheMap:
    """Slots of segments.  A slot number stays valid while somebody holds a reference or a pin.

    `cache_dir` and `staging_dir` are open directory descriptors (duplicated here), or -1 for none.
    Cached segments are `<2 hex>/<64 hex>` under the first, staged ones `<64 hex>` under the second.
    """

    def __new__(
        cls, cache_dir: int = -1, staging_dir: int = -1, max_open_files: int = 512
    ) -> Self: ...
    def acquire(
        self,
        segment_id: Buffer,
        key: Buffer,
        ctx: AdContext,
        stored_len: int,
        staged: bool = False,
    ) -> int:
        """Take a reference on the slot of a segment, making it if it is new.

        Raises EngineError when the segment is known with another key, context or length.
        """

    def adopt(self, segment_id: Buffer, charge: int) -> int:
        """Make known a cache file found on disk (no key, no reference): evictable from now on.

        Call from the oldest to the newest.  A later `acquire` completes it.
        """

    def retain(self, slot: int) -> None:
        """One more reference on a slot that is already held."""

    def release(self, slot: int) -> None:
        """Give a reference back.  A slot without references and cached bytes is freed."""

    def find(self, segment_id: Buffer) -> int | None:
        """The slot of a segment, or None.  Takes no reference."""

    def segment_id(self, slot: int) -> bytes: ...
    def token(self, slot: int) -> int:
        """A number that names this slot and its present tenant, never used again for another."""

    def stored_len(self, slot: int) -> int: ...
    def set_stored_len(self, slot: int, stored_len: int) -> None:
        """A staged segment has grown to this many bytes, all readable in its staging file."""

    def set_present(self, slot: int, offset: int, length: int) -> bool:
        """The bytes are in the cache file now; units covered in part stay absent.

        False when the segment is being evicted: the bits were not set.
        """

    def clear_present(self, slot: int, offset: int, length: int) -> None:
        """Forget every unit that the range touches: its bytes proved wrong, or its disk failed."""

    def missing(self, slot: int, offset: int, length: int) -> list[tuple[int, int]]:
        """Absent (offset, length) ranges under a byte range, in whole units, neighbours merged.

        What cannot be looked at, because the disk fails, is absent.
        """

    def is_present(self, slot: int, offset: int, length: int) -> bool: ...
    def load_presence(self, slot: int) -> int:
        """Rebuild presence from the file's holes; return its allocated bytes (the new charge).

        `missing`, `is_present` and the reader do this by themselves at the first touch.
        Raises CacheIOError.
        """

    def charge(self, slot: int) -> int: ...
    def set_charge(self, slot: int, charge: int) -> None: ...
    @property
    def total_charge(self) -> int:
        """Bytes allocated by cached segments (staged ones are not counted)."""

    @property
    def staged_charge(self) -> int:
        """Bytes of staged segments."""

    def touch(self, slot: int) -> None: ...
    def pin(self, slot: int) -> None: ...
    def unpin(self, slot: int) -> None: ...
    def set_read_once(self, slot: int, read_once: bool) -> None: ...
    def is_staged(self, slot: int) -> bool: ...
    def is_evicting(self, slot: int) -> bool: ...
    def promote(self, slot: int) -> None:
        """The staging file was renamed into the cache: all of it is present, and evictable."""

    def victims(self, bytes_to_free: int, limit: int = 1024) -> list[tuple[int, bytes, int]]:
        """Choose (slot, segment id, charge) to evict, read-once first, then the longest unused.

        Each is marked as evicting, so no reader opens it; unlink the file, then call `forget`
        (or `spare` when it could not be unlinked).  Pinned, staged and just-read ones are skipped.
        """

    def forget(self, slot: int) -> None:
        """The cache file is gone: drop presence, charge and descriptor."""

    def spare(self, slot: int) -> None:
        """Take an eviction back."""

    def stats(self) -> dict[str, int]:
        """slots, evictable, open_files, hits, misses, bytes, charge, staged."""

    def close(self) -> None:
        """Close all descriptors and wipe all keys.  Later calls raise EngineError."""

    def __enter__(self) -> CacheMap: ...
    def __exit__(self, *exc_info: object) -> None: ...
