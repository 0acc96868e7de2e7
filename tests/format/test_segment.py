"""Footer, trailer and sizes of a segment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format import limits
from lucid.format.segment import (
    TRAILER_SIZE,
    FooterRow,
    Trailer,
    decode_footer,
    decode_trailer,
    encode_footer,
    encode_trailer,
    footer_bound,
    footer_room,
    stored_size,
)
from tests.format import values

ROW = FooterRow(values.op_id(1), 0, 131_072, 0, b"d" * 16)
TRAILER = Trailer(1, b"g" * 16, 64, 3000)
rows = st.builds(
    FooterRow,
    values.positive,
    st.integers(0, limits.BLOCKS_MAX),
    st.integers(1, 100_000),
    st.integers(0, 1),
    st.binary(min_size=16, max_size=16),
)


@given(st.lists(rows, min_size=1, max_size=20))
def test_a_footer_goes_there_and_back(some: list[FooterRow]) -> None:
    data = encode_footer(some)
    assert decode_footer(data) == tuple(some)
    assert len(data) + 32 + TRAILER_SIZE <= footer_bound(len(some), 32)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("ino", 0),
        ("ino", 2**63),
        ("block", -1),
        ("block", limits.BLOCKS_MAX + 1),
        ("plain_len", 0),
        ("plain_len", limits.BLOCK_SIZE_MAX + 1),
        ("flags", 2),
        ("digest", b"x"),
    ],
)
def test_a_footer_row_beyond_its_limit_is_refused(field: str, bad: object) -> None:
    with pytest.raises(FormatError):
        encode_footer([ROW._replace(**{field: bad})])


def test_a_segment_has_blocks_and_not_too_many() -> None:
    with pytest.raises(FormatError):
        encode_footer([])
    with pytest.raises(FormatError):
        decode_footer(b"\x90")
    with pytest.raises(FormatError):
        decode_footer(b"\x05")
    with pytest.raises(FormatError):
        encode_footer([ROW] * 65)  # over 8 MiB of plaintext
    tiny = ROW._replace(plain_len=1)
    assert len(decode_footer(encode_footer([tiny] * limits.SEGMENT_BLOCKS_MAX))) == 65_536
    with pytest.raises(FormatError):
        encode_footer([tiny] * (limits.SEGMENT_BLOCKS_MAX + 1))


def test_the_trailer_is_40_bytes() -> None:
    data = encode_trailer(TRAILER)
    assert len(data) == TRAILER_SIZE == 40
    assert data == (b"LUCIDSG1\1\0\1\0" + b"g" * 16 + b"\x40\0\0\0" + b"\xb8\x0b\0\0" + bytes(4))
    assert decode_trailer(b"blocks before" + data) == TRAILER
    assert decode_trailer(memoryview(data)) == TRAILER


def test_what_is_no_trailer_is_refused() -> None:
    data = encode_trailer(TRAILER)
    for bad in (b"", data[1:], b"X" + data[1:], data[:-1] + b"\1"):
        with pytest.raises(FormatError):
            decode_trailer(bad)
    with pytest.raises(UnsupportedFormat, match="format 2"):
        decode_trailer(data[:8] + b"\2\0" + data[10:])
    for field, value in (
        ("blocks", 0),
        ("blocks", 65_537),
        ("sealed_footer_len", 0),
        ("sealed_footer_len", 2**24),
        ("generation", b"x"),
    ):
        with pytest.raises(FormatError):
            encode_trailer(TRAILER._replace(**{field: value}))
    with pytest.raises(FormatError):
        decode_trailer(data[:28] + bytes(4) + data[32:])


@given(
    st.sampled_from((16, 32)),
    st.sampled_from((64 << 10, 128 << 10, 1 << 20)),
    st.lists(st.integers(1, 1 << 20), max_size=60),
    st.integers(1, 70_000),
)
def test_what_has_room_fits(tag: int, block: int, files: list[int], tiny: int) -> None:
    """However a segment is filled: while there was room, the whole stays within its limit."""
    blocks = stored = plain = 0
    sizes = [*files, *([tiny] * 200)]
    for size in sizes:
        room = min(footer_room(blocks, stored, tag), limits.SEGMENT_PLAIN_MAX - plain)
        if size > room:
            continue
        count = -(-size // block)
        blocks, plain = blocks + count, plain + size
        stored += stored_size(size, tag) + (count - 1) * tag
    assert stored + footer_bound(blocks, tag) <= limits.SEGMENT_STORED_MAX
    assert blocks <= limits.SEGMENT_BLOCKS_MAX


def test_a_large_file_fills_a_segment() -> None:
    """8 MiB of full blocks always have room, at the smallest block size and the largest tag."""
    assert footer_room(0, 0, 32) >= limits.SEGMENT_PLAIN_MAX
    count = limits.SEGMENT_PLAIN_MAX // limits.BLOCK_SIZE_MIN
    stored = (count - 1) * stored_size(limits.BLOCK_SIZE_MIN, 32)
    assert footer_room(count - 1, stored, 32) >= limits.BLOCK_SIZE_MIN


def test_a_full_segment_has_no_room() -> None:
    assert footer_room(65_500, 1000, 32) == 0
    assert footer_room(1, limits.SEGMENT_STORED_MAX, 32) == 0
