"""Footer, trailer and sizes of a segment (FORMAT section 9).

Sealing the footer is `lucid.crypto.footer`'s. Pure; any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.canonical import pack, unpack
from lucid.format.change import COMPRESSED
from lucid.format.check import check_bytes, check_fields, check_id, check_int
from lucid.format.hashes import DIGEST16_SIZE
from lucid.format.limits import (
    BLOCK_SIZE_MAX,
    BLOCK_SIZE_MIN,
    BLOCKS_MAX,
    FORMAT_VERSION,
    ID_SIZE,
    INT63_MAX,
    SEGMENT_BLOCKS_MAX,
    SEGMENT_PLAIN_MAX,
    SEGMENT_STORED_MAX,
    UINT32_MAX,
)

__all__ = [
    "FOOTER_ORDINAL",
    "TRAILER_SIZE",
    "FooterRow",
    "Trailer",
    "decode_footer",
    "decode_trailer",
    "encode_footer",
    "encode_trailer",
    "footer_bound",
    "footer_room",
    "stored_size",
]

MAGIC = b"LUCIDSG1"
_TRAILER = struct.Struct(f"<8sHH{ID_SIZE}sII4s")
TRAILER_SIZE = _TRAILER.size
FOOTER_ORDINAL = (1 << 64) - 1
"""The footer's ordinal under the segment's key; blocks count from 0."""

_ROW_MAX = 1 + 9 + 9 + 5 + 1 + 2 + DIGEST16_SIZE
_ARRAY_HEAD_MAX = 5
_FULL_BLOCKS_MAX = SEGMENT_PLAIN_MAX // BLOCK_SIZE_MIN + 1


class FooterRow(NamedTuple):
    """What one sealed block of a segment is. `digest` is digest16 of the sealed block."""

    ino: int
    block: int
    plain_len: int
    flags: int
    digest: bytes


class Trailer(NamedTuple):
    """The clear end of a segment: enough to find the footer and its key."""

    suite: int
    generation: bytes
    blocks: int
    sealed_footer_len: int


def stored_size(plain: int, tag: int) -> int:
    """Bytes that a block of `plain` bytes takes in its segment."""
    return plain + tag


def footer_bound(blocks: int, tag: int) -> int:
    """At least the size of sealed footer and trailer of a segment with so many blocks."""
    return _ARRAY_HEAD_MAX + blocks * _ROW_MAX + tag + TRAILER_SIZE


def footer_room(blocks: int, stored: int, tag: int) -> int:
    """Bytes of plaintext that a segment of `blocks` blocks in `stored` bytes can still take.

    Leaves room for the tags and footer rows of what comes, given that it comes as full blocks and
    one that is not. The limit of 8 MiB of plaintext is the caller's to keep. 0 when it is full.
    """
    after = blocks + _FULL_BLOCKS_MAX
    if after > SEGMENT_BLOCKS_MAX:
        return 0
    taken = stored + _FULL_BLOCKS_MAX * tag + footer_bound(after, tag)
    return max(0, SEGMENT_STORED_MAX - taken)


def encode_footer(rows: Sequence[FooterRow]) -> bytes:
    """The footer's plaintext. Raises FormatError."""
    if not 0 < len(rows) <= SEGMENT_BLOCKS_MAX:
        raise FormatError(f"A segment cannot have {len(rows)} blocks.")
    for row in rows:
        _check_row(row)
    if sum(row.plain_len for row in rows) > SEGMENT_PLAIN_MAX:
        raise FormatError("A segment holds at most 8 MiB of plaintext.")
    return pack(rows)


def decode_footer(data: bytes) -> tuple[FooterRow, ...]:
    """The rows that encode_footer wrote. Raises FormatError."""
    value = unpack(data, SEGMENT_BLOCKS_MAX)
    if type(value) is not list or not value:
        raise FormatError("The footer of a segment has no rows.")
    rows = tuple(FooterRow._make(check_fields(fields, 5, "A footer row")) for fields in value)
    for row in rows:
        _check_row(row)
    if sum(row.plain_len for row in rows) > SEGMENT_PLAIN_MAX:
        raise FormatError("A segment holds at most 8 MiB of plaintext.")
    return rows


def encode_trailer(trailer: Trailer) -> bytes:
    """40 bytes. Raises FormatError."""
    _check_trailer(trailer)
    return _TRAILER.pack(MAGIC, FORMAT_VERSION, *trailer, bytes(4))


def decode_trailer(data: bytes | memoryview) -> Trailer:
    """The trailer in the last 40 bytes of `data`.

    Raises FormatError, or UnsupportedFormat for a format other than ours.
    """
    if len(data) < TRAILER_SIZE:
        raise FormatError("A segment is cut short.")
    magic, version, *fields, padding = _TRAILER.unpack_from(data, len(data) - TRAILER_SIZE)
    if magic != MAGIC:
        raise FormatError("A segment does not end as one.")
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"A segment is of format {version}; this version of lucid knows format"
            f" {FORMAT_VERSION}. Install a newer one."
        )
    if padding != bytes(4):
        raise FormatError("The trailer of a segment has bytes where zeros belong.")
    trailer = Trailer._make(fields)
    _check_trailer(trailer)
    return trailer


def _check_row(row: FooterRow) -> None:
    check_int(row.ino, 1, INT63_MAX, "The inode of a footer row")
    check_int(row.block, 0, BLOCKS_MAX, "The block of a footer row")
    check_int(row.plain_len, 1, BLOCK_SIZE_MAX, "The length of a footer row")
    check_int(row.flags, 0, COMPRESSED, "The flags of a footer row")
    check_bytes(row.digest, DIGEST16_SIZE, "The digest of a footer row")


def _check_trailer(trailer: Trailer) -> None:
    check_int(trailer.suite, 0, 0xFFFF, "The suite of a segment")
    check_id(trailer.generation, "The generation of a segment")
    check_int(trailer.blocks, 1, SEGMENT_BLOCKS_MAX, "The number of blocks of a segment")
    check_int(trailer.sealed_footer_len, 1, UINT32_MAX, "The length of a footer")
    if trailer.sealed_footer_len > SEGMENT_STORED_MAX - TRAILER_SIZE:
        raise FormatError("The footer of a segment is longer than a segment.")
