"""The two digests of the format (FORMAT section 1). Pure; any thread."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["DIGEST16_SIZE", "HASH_SIZE", "ZERO_HASH", "digest16", "hash_bytes"]

HASH_SIZE = 32
DIGEST16_SIZE = 16
ZERO_HASH = bytes(HASH_SIZE)
"""Stands where there is nothing to name: before entry 1, before a session's first entry."""


def hash_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE2b with 32 bytes of output, no key: `hash(x)` of the format."""
    return blake2b(data, digest_size=HASH_SIZE).digest()


def digest16(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE2b with 16 bytes of output, no key."""
    return blake2b(data, digest_size=DIGEST16_SIZE).digest()
