"""BlockMap against a dictionary of blocks, and every impossible row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.engine.addr import SEGMENT_STORED_MAX
from lucid.engine.blockmap import (
    FLAG_COMPRESSED,
    KIND_DATA,
    KIND_HOLE,
    KIND_LOST,
    KIND_UNREADABLE,
    BlockMap,
)
from lucid.engine.cachemap import CacheMap
from lucid.engine.errors import EngineError
from lucid.engine.sodium import AdContext
from tests.engine import reference
from tests.engine.reference import Row
from tests.engine.rig import BLOCK, block_map

TIB = 1 << 40
CONTEXTS = {suite: AdContext(suite, b"data", bytes(16), bytes(16)) for suite in (1, 2)}


@pytest.fixture
def cachemap() -> Iterator[CacheMap]:
    with CacheMap() as made:
        yield made


def slots(cachemap: CacheMap, suite: int) -> list[int]:
    """Three slots, with a reference each."""
    ids = [bytes([suite, number]) * 16 for number in range(3)]
    return [cachemap.acquire(i, i, CONTEXTS[suite], SEGMENT_STORED_MAX) for i in ids]


@st.composite
def extents(draw: st.DrawFn, tag: int) -> list[Row]:
    """Sorted rows with gaps; slots are 0, 1, 2, to be replaced by real ones."""
    rows = []
    block = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(0, 6))):
        count = draw(st.integers(1, 9))
        kind = draw(st.sampled_from([KIND_DATA, KIND_DATA, KIND_DATA, KIND_HOLE, KIND_LOST]))
        row = Row(block, count, kind)
        if kind == KIND_DATA:
            last = draw(st.integers(1, BLOCK))
            lengths = None
            if draw(st.booleans()):
                inner = draw(st.lists(st.integers(1, BLOCK), min_size=count, max_size=count))
                lengths = [length + tag for length in inner[:-1]] + [last + tag]
            row = replace(
                row,
                slot=draw(st.integers(0, 2)),
                ordinal=draw(st.integers(0, 2**40)),
                offset=draw(st.integers(0, 1 << 20)),
                flags=draw(st.integers(0, 2**31 - 1)) << 1,
                last_len=last,
                last_valid=draw(st.integers(0, last)),
                lengths=lengths,
            )
        rows.append(row)
        block += count + draw(st.integers(0, 3))
    return rows


@given(st.data(), st.sampled_from([1, 2]), st.integers(0, 70 * BLOCK))
def test_it_locates_as_the_dictionary_does(data: st.DataObject, suite: int, size: int) -> None:
    tag = reference.TAG[suite]
    with CacheMap() as cachemap:
        real = slots(cachemap, suite)
        rows = [
            replace(row, slot=real[row.slot]) if row.kind == KIND_DATA else row
            for row in data.draw(extents(tag))
        ]
        blockmap = block_map(cachemap, rows, size, BLOCK)
        expected = reference.places(rows, BLOCK, tag)
        for block in range(70):
            assert blockmap.locate(block) == expected.get(block)
        assert len(blockmap) == len(rows) == len(list(blockmap))
        check_segments(data, blockmap, expected)
        check_needs(data, blockmap, expected, size)


def check_segments(
    data: st.DataObject, blockmap: BlockMap, expected: Mapping[int, tuple[int, ...]]
) -> None:
    start = data.draw(st.integers(0, 70))
    end = data.draw(st.integers(0, 70))
    covered = []
    for first, count, kind, slot, ordinal, offset, stored in blockmap.segments(start, end):
        blocks = [expected[block] for block in range(first, first + count)]
        covered += list(range(first, first + count))
        assert {place[0] for place in blocks} == {kind}
        if kind == KIND_DATA:
            assert (slot, ordinal, offset) == blocks[0][1:4]
            assert stored == sum(place[4] for place in blocks)
        else:
            assert (slot, ordinal, offset, stored) == (-1, 0, 0, 0)
    assert covered == sorted(block for block in expected if start <= block < end)


def check_needs(
    data: st.DataObject, blockmap: BlockMap, expected: Mapping[int, tuple[int, ...]], size: int
) -> None:
    offset = data.draw(st.integers(0, 71 * BLOCK))
    length = data.draw(st.integers(0, 5 * BLOCK))
    bytes_needed: list[tuple[int, int]] = []
    for block in sorted(expected):
        kind, slot, _, at, stored = expected[block][:5]
        start, end = max(block * BLOCK, offset), min((block + 1) * BLOCK, offset + length, size)
        if kind == KIND_DATA and start < end:
            bytes_needed += [(slot, at), (slot, at + stored)]
    joined: list[tuple[int, int, int]] = []
    for begin, end_ in zip(bytes_needed[::2], bytes_needed[1::2], strict=True):
        if joined and joined[-1][0] == begin[0] and joined[-1][1] + joined[-1][2] == begin[1]:
            joined[-1] = (begin[0], joined[-1][1], end_[1] - joined[-1][1])
        else:
            joined.append((begin[0], begin[1], end_[1] - begin[1]))
    assert blockmap.needs(offset, length) == joined


def test_a_tebibyte_file(cachemap: CacheMap) -> None:
    slot = slots(cachemap, 1)[0]
    per = 120
    rows = TIB // BLOCK // per
    first = np.arange(rows, dtype=np.int64) * per
    blockmap = BlockMap(
        cachemap,
        BLOCK,
        TIB,
        first,
        np.full(rows, per, np.int64),
        np.full(rows, KIND_DATA, np.uint8),
        np.full(rows, slot, np.int32),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.uint32),
        np.full(rows, BLOCK, np.uint32),
        np.full(rows, BLOCK, np.uint32),
    )
    last = rows * per - 1
    place = blockmap.locate(last)
    assert place is not None
    assert place[2:4] == (per - 1, (per - 1) * (BLOCK + 32))
    assert blockmap.locate(last + 1) is None
    assert blockmap.needs(last * BLOCK, BLOCK) == [(slot, (per - 1) * (BLOCK + 32), BLOCK + 32)]


def test_strided_and_read_only_columns(cachemap: CacheMap) -> None:
    slot = slots(cachemap, 1)[0]
    table = np.zeros((2, 4), np.int64)
    table[:, 0] = [0, 5]
    table[:, 1] = [2, 3]
    table.flags.writeable = False
    ones = np.full(4, 10, np.uint32)[::2]
    blockmap = BlockMap(
        cachemap,
        BLOCK,
        9 * BLOCK,
        table[:, 0],
        table[:, 1],
        np.full(2, KIND_DATA, np.uint8),
        np.full(2, slot, np.int32),
        table[:, 2],
        table[:, 3],
        np.zeros(2, np.uint32),
        ones,
        ones,
    )
    assert [run[:2] for run in blockmap] == [(0, 2), (5, 3)]


def test_it_holds_its_slots(cachemap: CacheMap) -> None:
    slot = slots(cachemap, 1)[0]
    row = Row(0, 1, KIND_DATA, slot, last_len=5, last_valid=5)
    blockmap = block_map(cachemap, [row], 5, BLOCK)
    segment_id = cachemap.segment_id(slot)
    cachemap.release(slot)
    assert cachemap.find(segment_id) == slot
    del blockmap
    assert cachemap.find(segment_id) is None


GOOD = Row(3, 4, KIND_DATA, 0, ordinal=1, offset=2, last_len=5, last_valid=4)
BAD = [
    (replace(GOOD, kind=0), "kind 0 is not known"),
    (replace(GOOD, kind=4), "kind 4 is not known"),
    (replace(GOOD, kind=KIND_UNREADABLE), "kind 255 is not known"),
    (replace(GOOD, count=0), "count 0"),
    (replace(GOOD, count=-1), "count -1"),
    (replace(GOOD, first_block=-1), "block -1"),
    (replace(GOOD, first_block=1), "block 1 is out of order"),
    (replace(GOOD, first_block=2**62), "out of order or range"),
    (replace(GOOD, kind=KIND_HOLE, count=2**62), "count"),
    (replace(GOOD, last_len=0, last_valid=0), "last_len 0"),
    (replace(GOOD, last_len=BLOCK + 1), "last_len"),
    (replace(GOOD, last_valid=6), "last_valid 6"),
    (replace(GOOD, ordinal=-1), "ordinal -1"),
    (replace(GOOD, ordinal=2**63 - 2), "ordinal"),
    (replace(GOOD, offset=-1), "beyond the largest segment"),
    (replace(GOOD, offset=SEGMENT_STORED_MAX), "beyond the largest segment"),
    (replace(GOOD, count=200), "beyond the largest segment"),
    (replace(GOOD, count=2**40), "beyond the largest segment"),
    (replace(GOOD, lengths=[40, 40, 40, 36]), "last stored length does not fit"),
    (replace(GOOD, lengths=[40, 32, 40, 37]), "stored length 32 is out of range"),
    (replace(GOOD, lengths=[40, BLOCK + 33, 40, 37]), "out of range"),
    (replace(GOOD, lengths=[40, 40, 40]), "its lengths are not all there"),
]


@pytest.mark.parametrize(("row", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_impossible_rows_are_refused(cachemap: CacheMap, row: Row, sentence: str) -> None:
    real = slots(cachemap, 1)
    before = Row(0, 2, KIND_DATA, real[1], last_len=1, last_valid=1)
    with pytest.raises(ValueError, match=sentence):
        block_map(cachemap, [before, replace(row, slot=real[0])], BLOCK, BLOCK)
    # What was taken for the row before is given back.
    for slot in real:
        cachemap.release(slot)
    assert cachemap.stats()["slots"] == 0


def test_a_compressed_row_is_only_unreadable_itself(cachemap: CacheMap) -> None:
    slot = slots(cachemap, 1)[0]
    rows = [
        Row(0, 1, KIND_DATA, slot, last_len=5, last_valid=5),
        Row(1, 2, KIND_DATA, -1, flags=FLAG_COMPRESSED, lengths=[7, 9]),
    ]
    blockmap = block_map(cachemap, rows, 3 * BLOCK, BLOCK)
    assert blockmap.needs(0, 3 * BLOCK) == [(slot, 0, 37)]
    assert [run[:3] for run in blockmap] == [(0, 1, KIND_DATA), (1, 2, KIND_UNREADABLE)]


def test_a_slot_that_is_not_in_use_is_refused(cachemap: CacheMap) -> None:
    real = slots(cachemap, 1)
    rows = [Row(0, 1, KIND_DATA, real[0], last_len=1, last_valid=1)]
    for wrong in (-1, 3, 2**31 - 1):
        with pytest.raises(EngineError, match="not in use"):
            bad = Row(5, 1, KIND_DATA, wrong, last_len=1, last_valid=1)
            block_map(cachemap, [*rows, bad], BLOCK, BLOCK)
    for slot in real:
        cachemap.release(slot)
    assert cachemap.stats()["slots"] == 0


def test_columns_of_different_length_or_type_are_refused(cachemap: CacheMap) -> None:
    def columns(**other: object) -> BlockMap:
        i64, u32 = np.zeros(1, np.int64), np.full(1, 1, np.uint32)
        fields: dict[str, object] = {
            "first_block": i64,
            "count": np.full(1, 1, np.int64),
            "kind": np.full(1, KIND_HOLE, np.uint8),
            "slot": np.full(1, -1, np.int32),
            "ordinal": i64,
            "offset": i64,
            "flags": np.zeros(1, np.uint32),
            "last_len": u32,
            "last_valid": u32,
        }
        fields.update(other)
        return BlockMap(cachemap, BLOCK, 5, **fields)  # type: ignore[arg-type]

    assert len(columns()) == 1
    with pytest.raises(ValueError, match="differ in length"):
        columns(count=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="differ in length"):
        columns(lengths=np.zeros(2, np.uint32), lengths_index=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="dtype mismatch"):
        columns(count=np.zeros(1, np.float64))
    with pytest.raises(TypeError):
        columns(count=None)


@pytest.mark.parametrize("block_size", [0, 1, BLOCK - 1, BLOCK + 1, 32768, 2097152])
def test_block_sizes_of_the_format_only(cachemap: CacheMap, block_size: int) -> None:
    with pytest.raises(ValueError, match="block_size"):
        block_map(cachemap, [], 0, block_size)
    with pytest.raises(ValueError, match="byte range"):
        block_map(cachemap, [], -1, BLOCK)
