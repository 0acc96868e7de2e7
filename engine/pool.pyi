"""A fixed arena of opened blocks, least recently used first out.  Any thread may call."""

from typing import Final, final

from typing_extensions import Buffer, Self

ARENA_BYTES: Final[int]

@final
class PooledBlock:
    """A view of one opened block.  Its frame is not reused while this object or a view lives."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Pool:
    """Opened blocks by (CacheMap.token, ordinal)."""

    def __new__(cls, block_size: int, arena_bytes: int = 16777216) -> Self: ...
    @property
    def block_size(self) -> int: ...
    @property
    def frames(self) -> int: ...
    def get(self, token: int, ordinal: int) -> PooledBlock | None: ...
    def put(self, token: int, ordinal: int, plaintext: Buffer, flags: int = 0) -> bool:
        """Keep a copy; False when every frame is in use."""

    def drop(self, slot: int) -> int:
        """Forget all blocks of a slot; returns how many."""

    def stats(self) -> dict[str, int]:
        """frames, used, pinned, hits, misses."""
