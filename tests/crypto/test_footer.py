"""The sealed end of a segment, and how it is held against the signed entry."""

from __future__ import annotations

import pytest

from lucid.crypto.footer import check_footer, open_footer, seal_footer
from lucid.crypto.keyring import KeyRing
from lucid.errors import CorruptObject, FormatError, UnknownKey
from lucid.format.change import SegmentRow
from lucid.format.hashes import hash_bytes
from lucid.format.segment import FooterRow, Trailer, encode_trailer
from tests.format import values

FILESPACE, GENERATION, SEGMENT = b"f" * 16, b"g" * 16, b"s" * 32
ROWS = (
    FooterRow(values.op_id(1), 0, 131_072, 0, b"d" * 16),
    FooterRow(values.op_id(1), 1, 100, 0, b"e" * 16),
)


@pytest.fixture
def ring() -> KeyRing:
    ring = KeyRing(FILESPACE, 1)
    ring.add(GENERATION, b"k" * 32)
    return ring


@pytest.fixture
def tail(ring: KeyRing) -> bytes:
    key = ring.data_key(SEGMENT, GENERATION)
    return seal_footer(key, 1, FILESPACE, GENERATION, SEGMENT, ROWS).tail


def test_it_opens(ring: KeyRing, tail: bytes) -> None:
    assert open_footer(ring, SEGMENT, tail) == ROWS
    assert open_footer(ring, SEGMENT, b"blocks" * 100 + tail) == ROWS


def test_it_is_of_one_segment(ring: KeyRing, tail: bytes) -> None:
    with pytest.raises(CorruptObject):
        open_footer(ring, b"S" * 32, tail)
    for at in range(len(tail) - 40):
        with pytest.raises(CorruptObject):
            open_footer(ring, SEGMENT, tail[:at] + bytes([tail[at] ^ 1]) + tail[at + 1 :])


def test_an_altered_trailer_opens_nothing(ring: KeyRing, tail: bytes) -> None:
    sealed = tail[:-40]
    other = Trailer(1, GENERATION, 3, len(sealed))
    with pytest.raises(CorruptObject, match="blocks"):
        open_footer(ring, SEGMENT, sealed + encode_trailer(other))
    with pytest.raises(CorruptObject, match="suite"):
        open_footer(ring, SEGMENT, sealed + encode_trailer(other._replace(suite=2)))
    with pytest.raises(FormatError, match="short"):
        open_footer(ring, SEGMENT, sealed + encode_trailer(other._replace(sealed_footer_len=9999)))
    with pytest.raises(UnknownKey):
        open_footer(ring, SEGMENT, sealed + encode_trailer(other._replace(generation=b"h" * 16)))


def test_it_is_held_against_the_entry(ring: KeyRing) -> None:
    key = ring.data_key(SEGMENT, GENERATION)
    tail, digest = seal_footer(key, 1, FILESPACE, GENERATION, SEGMENT, ROWS)
    assert digest == hash_bytes(tail)
    row = SegmentRow(SEGMENT, 200_000, len(tail), digest, GENERATION, 5)
    check_footer(row, tail)
    check_footer(row, b"blocks before" + tail)
    for bad in (b"", tail[1:], tail[:-1] + bytes([tail[-1] ^ 1]), b"x" * len(tail)):
        with pytest.raises(CorruptObject):
            check_footer(row, bad)
