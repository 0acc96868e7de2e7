"""Which bytes of an open file to fetch before they are asked for.  Any thread may call."""

from typing import Final, final

from typing_extensions import Self

FIRST_WINDOW: Final[int]

@final
class Streams:
    """The sequential readers of one open file, four at most."""

    def __new__(cls, block_size: int, window_max: int) -> Self:
        """block_size: where a stream in the middle begins; window_max: bytes ahead at most."""

    def read(self, offset: int, length: int, size: int) -> tuple[int, int] | None:
        """A read of [offset, offset + length) of a file of `size` bytes is served now.

        Returns the range [start, end) to fetch ahead, or None.
        """
