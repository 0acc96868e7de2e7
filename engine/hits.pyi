"""Which open files the engine may serve by itself, without the GIL.  Any thread may call."""

from typing import final

from typing_extensions import Self

from .blockmap import BlockMap
from .reader import Reader
from .streams import Streams

@final
class HitTable:
    """Open files that only read, and the newest maps of their inodes.

    Invariant for whoever fills it: an inode has a map here only while that map is its newest
    published content, and a shadow for as long as anything newer exists on this machine.
    """

    def __new__(cls, reader: Reader) -> Self: ...
    @property
    def reader(self) -> Reader: ...
    def set_map(self, ino: int, blockmap: BlockMap) -> None:
        """The newest map of an inode.  ValueError when it is of another cache or block size."""

    def drop_map(self, ino: int) -> None:
        """The map is the newest no more; reads that use it come to their end with it."""

    def shadow(self, ino: int) -> None:
        """Something newer than the map exists: reads of the inode are passed on."""

    def unshadow(self, ino: int) -> None:
        """Takes one shadow away.  EngineError when there is none."""

    def open(self, number: int, ino: int, streams: Streams) -> None:
        """Serve this open file.  EngineError when the number is in use."""

    def close(self, number: int) -> None:
        """Serve it no more; nothing happens for an unknown number."""

    def read(self, number: int, offset: int, length: int) -> bytes | None:
        """The bytes [offset, offset + length) cut to the file's size, or None: ask elsewhere."""

    def next_want(self) -> tuple[int, int, int] | None:
        """Waits for a range that a stream of hits wants ahead: (inode, start, end).

        None after `stop`.
        """

    def stop(self) -> None:
        """Ends `next_want`, for all who wait in it and for ever."""

    def stats(self) -> dict[str, int]:
        """inodes, files, hits, passes."""
