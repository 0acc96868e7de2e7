"""How the rows of a lease stand in the state: one named value for each inode that has any."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from lucid.format.canonical import pack
from lucid.meta.state import LeaseRow

__all__ = ["LEASE_PREFIX", "lease_name", "pack_lease", "unpack_lease"]

LEASE_PREFIX = "lease "


def lease_name(ino: int) -> str:
    """The name of the value that holds the rows of an inode (FORMAT.md, 8)."""
    return f"{LEASE_PREFIX}{ino:016x}"


def pack_lease(line: Sequence[LeaseRow]) -> bytes:
    """The rows as they stand in the state."""
    return pack([list(row) for row in line])


def unpack_lease(packed: bytes) -> tuple[LeaseRow, ...]:
    """What `pack_lease` wrote."""
    return tuple(LeaseRow._make(row) for row in msgpack.unpackb(packed))
