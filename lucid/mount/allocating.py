"""fallocate(2) on a store that has no room to set aside: sizes grow, and ranges become zeros.

Blocks of zeros are not stored, so a punched hole is one. Called by workers; keeps no state.
"""

from __future__ import annotations

import errno

from lucid.filespace.surface import FileHandle, Surface
from lucid.mount.fuse import llfuse

__all__ = ["KEEP_SIZE", "PUNCH_HOLE", "ZERO_RANGE", "allocate"]

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
"""Of linux/falloc.h."""
ZEROS = bytes(1 << 20)


def allocate(surface: Surface, handle: FileHandle, mode: int, offset: int, length: int) -> None:
    """Raises FUSEError with EOPNOTSUPP for what cannot be done, and what writing raises.

    The kernel lets no other write or truncate of this machine to the file meanwhile.
    """
    if mode not in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
        raise llfuse.FUSEError(errno.EOPNOTSUPP)
    size = surface.attributes(handle.ino).size
    end = offset + length
    if mode & (PUNCH_HOLE | ZERO_RANGE):
        _write_zeros(surface, handle, offset, min(end, size))
    if not mode & KEEP_SIZE and end > size:
        surface.set_attributes(handle.ino, size=end, handle=handle)


def _write_zeros(surface: Surface, handle: FileHandle, offset: int, end: int) -> None:
    """Pieces end where blocks do, so that whole blocks of zeros come as such."""
    while offset < end:
        piece = min(end, (offset // len(ZEROS) + 1) * len(ZEROS)) - offset
        surface.write(handle, offset, memoryview(ZEROS)[:piece], in_place=True)
        offset += piece
