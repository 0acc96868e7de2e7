"""Pure arithmetic of files, blocks and cache units.  No state; any thread may call."""

from typing import Final

UNIT_BYTES: Final[int]
SEGMENT_STORED_MAX: Final[int]
BLOCK_BYTES_MIN: Final[int]
BLOCK_BYTES_MAX: Final[int]

def block_range(offset: int, length: int, size: int, block_size: int) -> tuple[int, int]:
    """First block and end block (exclusive) that hold the bytes, cut to `size`."""

def block_length(block: int, size: int, block_size: int) -> int:
    """Bytes of the file that lie in this block: block_size, less in the last, 0 beyond it."""

def stored_length(plaintext_length: int, tag_length: int) -> int:
    """Bytes that a sealed block takes in its segment."""

def unit_cover(offset: int, length: int, stored_len: int) -> tuple[int, int]:
    """Offset and length of the whole cache units around a range, cut to stored_len."""
