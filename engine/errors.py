"""What the engine raises.

Plain Python, shared by the compiled modules and the reference in the tests.  Nothing here knows of
lucid's own error tree: lucid.data catches these and adds the names a user understands.
Kernels never raise; a wrapper raises one of these after it has taken the GIL back.
"""

from __future__ import annotations

__all__ = [
    "BadRows",
    "CacheIOError",
    "CorruptBlock",
    "EngineError",
    "LostBlock",
    "TableFailed",
    "UnreadableBlock",
]


class EngineError(Exception):
    """The engine cannot do what was asked; the root of everything raised on purpose here."""


class CorruptBlock(EngineError):
    """Sealed bytes did not open: altered, cut short, or sealed for another place or key.

    `index` is the position in a batch (bulk calls).  `slot` and `ordinal` name the block for a
    reader.  `from_cache` is True when the bytes came from the local disk, where a bad tag only
    means "fetch it again"; False when the caller handed them in.
    """

    def __init__(
        self,
        message: str = "a sealed block did not open",
        *,
        index: int | None = None,
        slot: int | None = None,
        ordinal: int | None = None,
        from_cache: bool = False,
    ) -> None:
        super().__init__(message)
        self.index = index
        self.slot = slot
        self.ordinal = ordinal
        self.from_cache = from_cache


class LostBlock(EngineError):
    """The file records that this block's data is lost; it can only be answered with EIO."""

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block} of the file is recorded as lost")
        self.block = block


class UnreadableBlock(EngineError):
    """This block is stored in a way that this version does not know (compressed): EIO."""

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block} of the file is stored in a way this version cannot read")
        self.block = block


class CacheIOError(EngineError):
    """The disk under the cache or the staging area failed: `errno` says how, `slot` where."""

    def __init__(self, errno: int, slot: int) -> None:
        super().__init__(f"the disk under the cache failed (errno {errno}, slot {slot})")
        self.errno = errno
        self.slot = slot


class BadRows(EngineError):
    """Rows of a checkpoint are not what they must be; the message is a sentence for a user."""


class TableFailed(EngineError):
    """A database took a row or a statement not; the message and `code` are SQLite's."""

    FULL = 13
    CONSTRAINT = 19

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
