"""The extents of one version of one file, as sorted C arrays.  Immutable; any thread may read."""

from collections.abc import Iterator
from typing import Final, TypeAlias, final

from typing_extensions import Buffer, Self

from .cachemap import CacheMap

KIND_DATA: Final[int]
KIND_HOLE: Final[int]
KIND_LOST: Final[int]
KIND_UNREADABLE: Final[int]
FLAG_COMPRESSED: Final[int]

#: first block, count, kind, slot, first ordinal, offset in the segment, stored length
_Run: TypeAlias = tuple[int, int, int, int, int, int, int]
#: kind, slot, ordinal, offset in the segment, stored length, plaintext length, valid length, flags
_Place: TypeAlias = tuple[int, int, int, int, int, int, int, int]

@final
class BlockMap:
    """Where each block of one file version lies.

    The columns are buffers, one row an extent: kind of uint8, slot of int32, flags, last_len,
    last_valid and lengths of uint32, the others of int64.  They are sorted by first_block, without
    overlap; what no extent names is a gap and reads as zeros.  Each data extent holds a reference
    on its slot until this object goes.  `lengths` (flat) and `lengths_index` (first entry of the
    extent's lengths, or -1) are given only when some extent's blocks are not all full.  Raises
    ValueError for impossible rows; compressed ones become KIND_UNREADABLE: only reading those
    blocks is an error.
    """

    def __new__(
        cls,
        cachemap: CacheMap,
        block_size: int,
        size: int,
        first_block: Buffer,
        count: Buffer,
        kind: Buffer,
        slot: Buffer,
        ordinal: Buffer,
        offset: Buffer,
        flags: Buffer,
        last_len: Buffer,
        last_valid: Buffer,
        lengths: Buffer | None = None,
        lengths_index: Buffer | None = None,
    ) -> Self: ...
    @property
    def size(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    def locate(self, block: int) -> _Place | None:
        """Where this block lies; None in a gap or beyond the last extent."""

    def segments(self, start: int, end: int) -> list[_Run]:
        """The extents that meet blocks [start, end), each cut to that range."""

    def needs(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """(slot, offset in the segment, stored length) of the sealed bytes under a byte range.

        Neighbouring blocks come as one run.  Cut to the file's size; holes and gaps need nothing.
        """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_Run]: ...
