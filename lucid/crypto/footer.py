"""The sealed end of a segment: footer and trailer (FORMAT section 9). Pure; any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lucid.crypto.keyring import KeyRing
from lucid.crypto.sealing import TAG_FOOTER, Place, open_object, seal_object
from lucid.errors import CorruptObject, FormatError
from lucid.format.change import SegmentRow
from lucid.format.hashes import hash_bytes
from lucid.format.limits import SEGMENT_STORED_MAX
from lucid.format.segment import (
    FOOTER_ORDINAL,
    TRAILER_SIZE,
    FooterRow,
    Trailer,
    decode_footer,
    decode_trailer,
    encode_footer,
    encode_trailer,
)

__all__ = ["SealedFooter", "check_footer", "open_footer", "seal_footer"]


class SealedFooter(NamedTuple):
    """The bytes after the last block, and their hash as the segment's row carries it."""

    tail: bytes
    hash: bytes


def seal_footer(
    key: bytes,
    suite: int,
    filespace: bytes,
    generation: bytes,
    segment: bytes,
    rows: Sequence[FooterRow],
) -> SealedFooter:
    """Footer and trailer of a segment; `key` is its data key. Once a segment: the ordinal is used.

    Raises FormatError for what no segment can hold.
    """
    place = Place(TAG_FOOTER, suite, filespace, generation, segment, FOOTER_ORDINAL)
    sealed = seal_object(key, place, encode_footer(rows))
    tail = sealed + encode_trailer(Trailer(suite, generation, len(rows), len(sealed)))
    return SealedFooter(tail, hash_bytes(tail))


def open_footer(ring: KeyRing, segment: bytes, tail: bytes) -> tuple[FooterRow, ...]:
    """The rows of a segment from `tail`: its last bytes, at least footer and trailer.

    Raises FormatError if `tail` is too short or no segment's end, CorruptObject if the footer does
    not open or does not fit, UnknownKey.
    """
    trailer = decode_trailer(tail)
    length = trailer.sealed_footer_len
    if len(tail) < length + TRAILER_SIZE:
        raise FormatError("The end of a segment is cut short.")
    if trailer.suite != ring.suite:
        raise CorruptObject("A segment is sealed with another suite than its filespace.")
    end = len(tail) - TRAILER_SIZE
    key = ring.data_key(segment, trailer.generation)
    place = Place(
        TAG_FOOTER, ring.suite, ring.filespace, trailer.generation, segment, FOOTER_ORDINAL
    )
    rows = decode_footer(open_object(key, place, tail[end - length : end]))
    if len(rows) != trailer.blocks:
        raise CorruptObject("The footer of a segment does not name its blocks.")
    return rows


def check_footer(row: SegmentRow, tail: bytes) -> None:
    """Raises CorruptObject unless `tail` ends with the footer that a signed entry names."""
    if row.stored_len > SEGMENT_STORED_MAX or len(tail) < row.footer_len:
        raise CorruptObject("The end of a segment is cut short.")
    if hash_bytes(tail[-row.footer_len :]) != row.footer_hash:
        raise CorruptObject(
            "The store shows a segment other than the one that the log names: it was altered or"
            " swapped."
        )
