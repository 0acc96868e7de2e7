"""The arithmetic, against itself done block by block."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.engine.addr import (
    SEGMENT_STORED_MAX,
    UNIT_BYTES,
    block_length,
    block_range,
    stored_length,
    unit_cover,
)

SIZES = st.integers(0, 20)


@given(offset=SIZES, length=SIZES, size=SIZES, block_size=st.integers(1, 7))
def test_block_range_is_the_blocks_of_the_bytes(
    offset: int, length: int, size: int, block_size: int
) -> None:
    touched = sorted({at // block_size for at in range(offset, min(offset + length, size))})
    first, end = block_range(offset, length, size, block_size)
    assert list(range(first, end)) == touched


@given(size=st.integers(0, 100), block_size=st.integers(1, 9))
def test_block_lengths_sum_to_the_size(size: int, block_size: int) -> None:
    lengths = [block_length(block, size, block_size) for block in range(size + 2)]
    assert sum(lengths) == size
    assert sorted(lengths, reverse=True) == lengths
    assert max(lengths) <= block_size


def test_ranges_beyond_a_tebibyte() -> None:
    big = 1 << 62
    assert block_range(big - 1, 1, big, 131072) == (big // 131072 - 1, big // 131072)
    assert block_length(big // 131072 - 1, big, 131072) == 131072
    assert block_range(2**63 - 2, 1, 2**63 - 1, 65536) == (2**47 - 1, 2**47)


@pytest.mark.parametrize(
    ("offset", "length", "stored_len", "expected"),
    [
        (0, 1, 100, (0, 100)),
        (0, 0, 100, (0, 0)),
        (100, 5, 100, (100, 0)),
        (UNIT_BYTES - 1, 2, 10 * UNIT_BYTES, (0, 2 * UNIT_BYTES)),
        (UNIT_BYTES, UNIT_BYTES, 10 * UNIT_BYTES, (UNIT_BYTES, UNIT_BYTES)),
        (2 * UNIT_BYTES, 5, 2 * UNIT_BYTES + 3, (2 * UNIT_BYTES, 3)),
    ],
)
def test_units_around_a_range(
    offset: int, length: int, stored_len: int, expected: tuple[int, int]
) -> None:
    assert unit_cover(offset, length, stored_len) == expected


def test_what_is_no_range_is_refused() -> None:
    with pytest.raises(ValueError, match="not a byte range"):
        block_range(-1, 1, 10, 4)
    with pytest.raises(ValueError, match="not a byte range"):
        block_range(1, -1, 10, 4)
    with pytest.raises(ValueError, match="not a byte range"):
        block_range(2**63 - 1, 1, 10, 4)
    with pytest.raises(ValueError, match="block_size"):
        block_range(0, 1, 10, 0)
    with pytest.raises(ValueError, match="block_size"):
        block_length(0, 10, 0)
    with pytest.raises(ValueError, match="stored_len"):
        unit_cover(0, 1, SEGMENT_STORED_MAX + 1)
    assert stored_length(10, 32) == 42
