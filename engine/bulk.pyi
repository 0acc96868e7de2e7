"""Many blocks at once, one GIL release a batch (none for a small one).  No state; any thread."""

from collections.abc import Sequence
from typing import Final

from typing_extensions import Buffer

from .sodium import AdContext

BATCH_BLOCKS_MAX: Final[int]

def seal_blocks(
    ctx: AdContext,
    object_id: Buffer,
    key: Buffer,
    first_ordinal: int,
    flags: int,
    plaintexts: Sequence[Buffer],
    out: Buffer,
) -> tuple[list[int], list[bytes]]:
    """Seal each plaintext at its ordinal, one after the other into `out`.

    Returns the stored lengths and the 16-byte BLAKE2b of each sealed block.
    Raises ValueError when `out` is too small or overlaps an input.
    """

def open_blocks(
    ctx: AdContext,
    object_id: Buffer,
    key: Buffer,
    first_ordinal: int,
    flags: int,
    sealed: Buffer,
    stored_lengths: Sequence[int],
    out: Buffer,
) -> int:
    """Open blocks that lie one after the other; returns the bytes written to `out`.

    Raises CorruptBlock with the index of the first block that does not open; what was written to
    `out` must then be thrown away.  `out` may not overlap `sealed`.
    """

def digest_blocks(sealed: Buffer, stored_lengths: Sequence[int]) -> list[bytes]:
    """The 16-byte BLAKE2b of each of the blocks that lie one after the other."""

def is_zero(data: Buffer) -> bool:
    """Whether every byte is zero (an empty buffer is)."""
