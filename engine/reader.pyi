"""The hot path: a byte range of a file version, opened from cache files into one reply buffer."""

from collections.abc import Sequence
from typing import Final, TypeAlias, final

from typing_extensions import Buffer, Self

from .blockmap import BlockMap
from .cachemap import CacheMap
from .pool import Pool

READ_BYTES_MAX: Final[int]
FREE_BYTES_MAX: Final[int]

#: slot, offset in the segment, stored bytes from there on
_Source: TypeAlias = tuple[int, int, Buffer]

@final
class ReadBuffer:
    """The bytes of a reply, a read-only buffer.  Its memory is used again after the last view."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def close(self) -> None:
        """Give the memory back now; BufferError while a view is exported."""

@final
class Miss:
    """The reply needs bytes that are not here: `ranges` of (slot, offset, length), whole units.

    Another thread may have brought some of them meanwhile: ask CacheMap.missing before fetching.
    """

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def ranges(self) -> list[tuple[int, int, int]]: ...

@final
class Reader:
    """Reads through a CacheMap and a Pool.  Any thread may call; two reads run in parallel."""

    def __new__(cls, cachemap: CacheMap, pool: Pool, block_size: int) -> Self: ...
    @property
    def cachemap(self) -> CacheMap: ...
    @property
    def pool(self) -> Pool: ...
    def read(self, blockmap: BlockMap, offset: int, length: int) -> ReadBuffer | Miss:
        """The bytes [offset, offset + length), cut to the file's size.

        Raises CorruptBlock (slot, ordinal, from_cache=True: clear its presence and fetch again),
        LostBlock, UnreadableBlock, ValueError for a length over READ_BYTES_MAX, or CacheIOError:
        clear the slot's presence, then it is a Miss and can be opened from memory.
        """

    def open_from(
        self, blockmap: BlockMap, offset: int, length: int, sources: Sequence[_Source]
    ) -> ReadBuffer | Miss:
        """Like `read`, but blocks that lie whole in a source are opened from that memory.

        A bad tag there raises CorruptBlock with from_cache=False.
        """

    def read_block(self, blockmap: BlockMap, block: int) -> bytes | Miss:
        """The bytes of one block of the file, cut to the file's size."""

    def stats(self) -> dict[str, int]:
        """buffers_out, bytes_held, scratch_out, scratch_held."""
