"""The two suites, over whole objects, through the engine (FORMAT section 3).

Owns nothing; any thread. The engine lets go of the GIL while it seals and opens.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lucid.engine.errors import CorruptBlock as SealBroken
from lucid.engine.sodium import AdContext, open_, seal
from lucid.errors import CorruptObject, UnsupportedFormat
from lucid.format.limits import FORMAT_VERSION
from lucid.format.superblock import SUITE_AEGIS256, SUITE_XCHACHA20

__all__ = [
    "AD_SIZE",
    "Place",
    "associated_data",
    "check_suite",
    "open_object",
    "seal_object",
    "tag_size",
]

_AD = struct.Struct("<4sHH16s16s32sQII")
AD_SIZE = _AD.size
_TAG_SIZES = {SUITE_AEGIS256: 32, SUITE_XCHACHA20: 16}


class Place(NamedTuple):
    """Where a sealed thing belongs; all of it is associated data. `tag` has 4 bytes."""

    tag: bytes
    suite: int
    filespace: bytes
    generation: bytes
    object_id: bytes
    ordinal: int = 0
    flags: int = 0


def check_suite(suite: int) -> int:
    """`suite` if it is known. Raises UnsupportedFormat."""
    if suite not in _TAG_SIZES:
        raise UnsupportedFormat(
            f"Something is sealed with suite {suite}, which this version of lucid does not know."
            " Install a newer one."
        )
    return suite


def tag_size(suite: int) -> int:
    """Bytes that sealing adds. Raises UnsupportedFormat."""
    return _TAG_SIZES[check_suite(suite)]


def associated_data(place: Place, plain_len: int) -> bytes:
    """The 88 bytes that a seal is bound to. The engine builds its own; this is for comparing."""
    return _AD.pack(place.tag, FORMAT_VERSION, *place[1:], plain_len)


def seal_object(key: bytes, place: Place, data: bytes) -> bytes:
    """Ciphertext and tag. One key and ordinal must never seal two different texts."""
    return seal(_context(place), place.object_id, key, place.ordinal, place.flags, data)


def open_object(key: bytes, place: Place, sealed: bytes) -> bytes:
    """What seal_object sealed. Raises CorruptObject, with no hint which part was wrong."""
    try:
        return open_(_context(place), place.object_id, key, place.ordinal, place.flags, sealed)
    except SealBroken as error:
        raise CorruptObject() from error


def _context(place: Place) -> AdContext:
    check_suite(place.suite)
    return AdContext(place.suite, place.tag, place.filespace, place.generation)
