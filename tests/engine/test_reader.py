"""The reader against a plain file in memory, and everything that can be wrong on the way."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.engine.addr import UNIT_BYTES
from lucid.engine.blockmap import FLAG_COMPRESSED, KIND_HOLE, KIND_LOST, BlockMap
from lucid.engine.cachemap import CacheMap
from lucid.engine.errors import CacheIOError, CorruptBlock, LostBlock, UnreadableBlock
from lucid.engine.pool import Pool
from lucid.engine.reader import READ_BYTES_MAX, Miss, ReadBuffer, Reader
from lucid.engine.sodium import AdContext
from tests.engine.reference import Row
from tests.engine.rig import BLOCK, EXAMPLES, Rig, Segment, block_map

EDGES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK]


def read(rig: Rig, blockmap: BlockMap, offset: int, length: int) -> bytes:
    answer = rig.reader.read(blockmap, offset, length)
    assert isinstance(answer, ReadBuffer)
    assert len(answer) == len(bytes(answer))
    return bytes(answer)


def missed(rig: Rig, blockmap: BlockMap, offset: int, length: int) -> list[tuple[int, int, int]]:
    answer = rig.reader.read(blockmap, offset, length)
    assert isinstance(answer, Miss)
    return answer.ranges


def simple_file(rig: Rig, size: int, suite: int = 1) -> tuple[bytes, Segment, BlockMap]:
    """One cached segment with the whole file."""
    lengths = [BLOCK] * (size // BLOCK) + ([size % BLOCK] if size % BLOCK else [])
    segment = rig.segment(lengths, suite=suite)
    rig.put(segment)
    return b"".join(segment.plain), segment, rig.map([rig.row(segment)], size)


@pytest.mark.parametrize("suite", [1, 2])
def test_every_edge(rig: Rig, suite: int) -> None:
    content, _, blockmap = simple_file(rig, 2 * BLOCK + 5, suite)
    for offset in [*EDGES, 2 * BLOCK + 4, 2 * BLOCK + 5, 3 * BLOCK]:
        for length in [*EDGES, 3 * BLOCK]:
            expected = content[offset : offset + length]
            assert read(rig, blockmap, offset, length) == expected


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Row], int, int]:
    """Rows over three segments of eight blocks, the size of the file, and the suite."""
    rows = []
    block = draw(st.integers(0, 2))
    for _ in range(draw(st.integers(0, 5))):
        count = draw(st.integers(1, 3))
        kind = draw(st.sampled_from([1, 1, 1, KIND_HOLE]))
        ordinal = draw(st.integers(0, 8 - count))
        rows.append(Row(block, count, kind, draw(st.integers(0, 2)), ordinal))
        block += count + draw(st.sampled_from([0, 0, 1]))
    return rows, draw(st.integers(0, (block + 1) * BLOCK)), draw(st.sampled_from([1, 2]))


def lay_out(
    rows: list[Row], segments: list[Segment], size: int, valid: list[int]
) -> tuple[list[Row], bytes]:
    """Complete the rows from the segments they point into; the file they then describe."""
    content = bytearray(size + 20 * BLOCK)
    done = []
    for row, cut in zip(rows, valid, strict=True):
        if row.kind != 1:
            done.append(replace(row, slot=-1))
            continue
        segment = segments[row.slot]
        last = segment.plain[row.ordinal + row.count - 1]
        last_valid = min(cut, len(last))
        for at in range(row.count):
            plain = segment.plain[row.ordinal + at]
            plain = plain[:last_valid] if at == row.count - 1 else plain
            start = (row.first_block + at) * BLOCK
            content[start : start + len(plain)] = plain
        tag = 32 if segment.suite == 1 else 16
        lengths = [len(segment.plain[row.ordinal + at]) + tag for at in range(row.count)]
        done.append(
            replace(
                row,
                slot=segment.slot,
                offset=segment.offsets[row.ordinal],
                last_len=len(last),
                last_valid=last_valid,
                lengths=lengths if any(n != BLOCK + tag for n in lengths[:-1]) else None,
            )
        )
    return done, bytes(content[:size])


@settings(max_examples=EXAMPLES)
@given(
    files(),
    st.lists(st.integers(0, BLOCK), min_size=5, max_size=5),
    st.lists(
        st.tuples(st.integers(0, 20 * BLOCK), st.integers(0, 4 * BLOCK)), min_size=1, max_size=8
    ),
)
def test_any_file_any_range(
    file: tuple[list[Row], int, int], valid: list[int], ranges: list[tuple[int, int]]
) -> None:
    rows, size, suite = file
    with TemporaryDirectory() as root, Rig(Path(root), frames=2) as rig:
        shapes = [[BLOCK] * 8, [BLOCK] * 7 + [999], [BLOCK, 5000, BLOCK, 1, 70, BLOCK, 8, 9]]
        segments = [rig.segment(shape, suite=suite) for shape in shapes]
        for segment in segments:
            rig.put(segment)
        done, content = lay_out(rows, segments, size, valid[: len(rows)])
        blockmap = rig.map(done, size)
        for offset, length in ranges:
            assert read(rig, blockmap, offset, length) == content[offset : offset + length]
        for block in range(size // BLOCK + 2):
            expected = content[block * BLOCK : (block + 1) * BLOCK]
            assert rig.reader.read_block(blockmap, block) == expected


def test_holes_gaps_and_cut_blocks_are_zeros(rig: Rig) -> None:
    segment = rig.segment([BLOCK, BLOCK])
    rig.put(segment)
    rows = [
        replace(rig.row(segment), last_valid=10),
        Row(3, 2, KIND_HOLE),
    ]
    blockmap = rig.map(rows, 7 * BLOCK)
    content = segment.plain[0] + segment.plain[1][:10]
    # Used memory first, so that forgotten zeros would show.
    dirty = rig.reader.read(blockmap, 0, 2 * BLOCK)
    assert isinstance(dirty, ReadBuffer)
    dirty.close()
    assert read(rig, blockmap, 0, 7 * BLOCK) == content + bytes(7 * BLOCK - len(content))
    assert read(rig, blockmap, BLOCK + 5, 100) == segment.plain[1][5:10] + bytes(95)
    assert read(rig, blockmap, BLOCK + 10, 100) == bytes(100)


def test_a_lost_block_is_not_zeros(rig: Rig) -> None:
    segment = rig.segment([BLOCK])
    rig.put(segment)
    rows = [rig.row(segment), Row(1, 2, KIND_LOST)]
    blockmap = rig.map(rows, 3 * BLOCK)
    assert read(rig, blockmap, 0, BLOCK) == segment.plain[0]
    for offset, length, block in [
        (BLOCK - 1, 2, 1),
        (BLOCK, 1, 1),
        (2 * BLOCK, 5, 2),
        (0, 999999, 1),
    ]:
        with pytest.raises(LostBlock) as caught:
            rig.reader.read(blockmap, offset, length)
        assert caught.value.block == block
    with pytest.raises(LostBlock):
        rig.reader.read_block(blockmap, 1)


def test_a_compressed_block_is_an_error_of_its_own(rig: Rig) -> None:
    segment = rig.segment([BLOCK])
    rig.put(segment)
    rows = [rig.row(segment), Row(1, 1, 1, segment.slot, 1, flags=FLAG_COMPRESSED)]
    blockmap = rig.map(rows, 2 * BLOCK)
    assert read(rig, blockmap, 0, BLOCK) == segment.plain[0]
    for offset, length in [(0, 2 * BLOCK), (BLOCK, 1)]:
        with pytest.raises(UnreadableBlock, match="block 1 ") as caught:
            rig.reader.read(blockmap, offset, length)
        assert caught.value.block == 1


def test_unaligned_requests_open_each_block_once(rig: Rig) -> None:
    content, _, blockmap = simple_file(rig, 6 * BLOCK)
    got, offset = b"", BLOCK // 2
    while offset < len(content):
        got += read(rig, blockmap, offset, BLOCK)
        offset += BLOCK
    assert got == content[BLOCK // 2 :]
    assert rig.pool.stats()["misses"] == 6
    assert rig.pool.stats()["hits"] == 5


def test_a_whole_block_does_not_push_others_out(rig: Rig) -> None:
    content, _, blockmap = simple_file(rig, 6 * BLOCK)
    assert read(rig, blockmap, 0, 6 * BLOCK) == content
    assert rig.pool.stats()["used"] == 0


def test_absent_ranges_are_named_in_units(rig: Rig) -> None:
    segment = rig.segment([BLOCK] * 5)
    slot = rig.acquire(segment)
    blockmap = rig.map([rig.row(segment)], 5 * BLOCK)
    stored = len(segment.sealed)
    assert missed(rig, blockmap, 0, 10) == [(slot, 0, 2 * UNIT_BYTES)]
    assert missed(rig, blockmap, 0, 5 * BLOCK) == [(slot, 0, stored)]
    rig.put(segment)
    rig.cachemap.set_present(slot, UNIT_BYTES, 2 * UNIT_BYTES)
    assert missed(rig, blockmap, 0, 5 * BLOCK) == [
        (slot, 0, UNIT_BYTES),
        (slot, 3 * UNIT_BYTES, stored - 3 * UNIT_BYTES),
    ]
    # The second block lies in units 1 and 2.
    assert read(rig, blockmap, BLOCK, BLOCK) == segment.plain[1]
    rig.cachemap.set_present(slot, 0, stored)
    assert read(rig, blockmap, 0, 5 * BLOCK) == b"".join(segment.plain)
    assert rig.cachemap.stats()["hits"] == 2
    assert rig.cachemap.stats()["misses"] == 3
    assert rig.cachemap.stats()["bytes"] == 6 * BLOCK
    with pytest.raises(TypeError):
        Miss()


def test_two_segments_are_named_apart(rig: Rig) -> None:
    one, two = rig.segment([BLOCK]), rig.segment([BLOCK])
    slots = rig.acquire(one), rig.acquire(two)
    blockmap = rig.map([rig.row(one), rig.row(two, 1)], 2 * BLOCK)
    length = BLOCK + 32
    assert missed(rig, blockmap, 5, 2 * BLOCK) == [(slots[0], 0, length), (slots[1], 0, length)]


@pytest.mark.parametrize("length", [1, BLOCK, 3 * BLOCK])
def test_an_altered_byte_is_corrupt_and_named(rig: Rig, length: int) -> None:
    content, segment, blockmap = simple_file(rig, 3 * BLOCK)
    path = rig.cache_path(segment)
    altered = bytearray(segment.sealed)
    altered[segment.offsets[1] + 77] ^= 1
    path.write_bytes(altered)
    offset = 0 if length == 3 * BLOCK else BLOCK
    with pytest.raises(CorruptBlock) as caught:
        rig.reader.read(blockmap, offset, length)
    error = caught.value
    assert (error.slot, error.ordinal, error.from_cache) == (segment.slot, 1, True)
    # The caller's answer: forget it, fetch it, read again.
    rig.cachemap.clear_present(segment.slot, segment.offsets[1], BLOCK + 32)
    assert missed(rig, blockmap, BLOCK, 1) == [(segment.slot, UNIT_BYTES, 2 * UNIT_BYTES)]
    path.write_bytes(segment.sealed)
    rig.cachemap.set_present(segment.slot, 0, len(segment.sealed))
    assert read(rig, blockmap, 0, 3 * BLOCK) == content
    assert rig.pool.stats()["pinned"] == 0


def test_metadata_that_lies_is_corrupt(rig: Rig) -> None:
    _, segment, _ = simple_file(rig, 2 * BLOCK)
    good = rig.row(segment)
    for bad in [
        replace(good, ordinal=1),
        replace(good, offset=1),
        replace(good, flags=2),
        replace(good, last_len=BLOCK - 1, last_valid=1),
        replace(good, lengths=[BLOCK + 31, BLOCK + 32]),
    ]:
        blockmap = rig.map([bad], 2 * BLOCK)
        with pytest.raises(CorruptBlock):
            rig.reader.read(blockmap, 0, 2 * BLOCK)
    # Beyond the segment: fetching again would not help.
    beyond = rig.map([replace(good, offset=segment.offsets[1])], 2 * BLOCK)
    with pytest.raises(CorruptBlock) as caught:
        rig.reader.read(beyond, BLOCK, 1)
    assert not caught.value.from_cache


def test_the_pool_does_not_believe_another_length(rig: Rig) -> None:
    _, segment, blockmap = simple_file(rig, BLOCK)
    assert read(rig, blockmap, 0, 10) == segment.plain[0][:10]
    assert rig.pool.stats()["used"] == 1
    lie = rig.map([replace(rig.row(segment), last_len=BLOCK - 1, last_valid=BLOCK - 1)], BLOCK)
    with pytest.raises(CorruptBlock):
        rig.reader.read(lie, 0, 10)
    assert read(rig, blockmap, 5, 10) == segment.plain[0][5:15]


def test_a_new_tenant_of_a_slot_is_not_served_from_the_pool(rig: Rig) -> None:
    _, old, blockmap = simple_file(rig, BLOCK)
    assert read(rig, blockmap, 0, 10) == old.plain[0][:10]
    del blockmap
    rig.cachemap.forget(old.slot)
    rig.cachemap.release(old.slot)
    _, new, blockmap = simple_file(rig, BLOCK)
    assert new.slot == old.slot
    assert read(rig, blockmap, 0, 10) == new.plain[0][:10]


def test_a_file_cut_short_is_a_miss(rig: Rig) -> None:
    content, segment, blockmap = simple_file(rig, 3 * BLOCK)
    assert read(rig, blockmap, 0, 3 * BLOCK) == content
    os.truncate(rig.cache_path(segment), segment.offsets[2] + 5)
    assert read(rig, blockmap, 0, 2 * BLOCK) == content[: 2 * BLOCK]
    assert missed(rig, blockmap, 2 * BLOCK, 5) == [
        (segment.slot, 2 * UNIT_BYTES, len(segment.sealed) - 2 * UNIT_BYTES)
    ]


def test_a_staged_file_cut_short_is_corrupt(rig: Rig) -> None:
    segment = rig.segment([1000])
    rig.stage(segment)
    os.truncate(rig.staging_path(segment), 500)
    with pytest.raises(CorruptBlock) as caught:
        rig.reader.read(rig.map([rig.row(segment)], 1000), 0, 1000)
    assert caught.value.from_cache


def test_a_failing_cache_disk_is_named_and_gone_around(rig: Rig) -> None:
    segment = rig.segment([1000])
    slot = rig.acquire(segment)
    stored = len(segment.sealed)
    # A name that leads to itself: opening it fails, as on a disk that fails.
    rig.cache_path(segment).parent.mkdir()
    rig.cache_path(segment).symlink_to(rig.cache_path(segment))
    blockmap = rig.map([rig.row(segment)], 1000)
    for _ in range(2):
        with pytest.raises(CacheIOError, match=f"slot {slot}") as caught:
            rig.reader.read(blockmap, 0, 10)
        assert (caught.value.errno, caught.value.slot) == (errno.ELOOP, slot)
        with pytest.raises(CacheIOError):
            rig.cachemap.load_presence(slot)
        assert rig.cachemap.missing(slot, 0, stored) == [(0, stored)]
        assert not rig.cachemap.is_present(slot, 0, 1)
    rig.cachemap.clear_present(slot, 0, stored)
    assert missed(rig, blockmap, 0, 10) == [(slot, 0, stored)]
    answer = rig.reader.open_from(blockmap, 0, 10, [(slot, 0, segment.sealed)])
    assert isinstance(answer, ReadBuffer)
    assert bytes(answer) == segment.plain[0][:10]


def test_a_failing_read_is_named(rig: Rig) -> None:
    segment = rig.segment([1000])
    rig.acquire(segment)
    # A directory opens and does not read: EISDIR comes from pread, as EIO would.
    rig.cache_path(segment).mkdir(parents=True)
    rig.cachemap.set_present(segment.slot, 0, len(segment.sealed))
    with pytest.raises(CacheIOError) as caught:
        rig.reader.read(rig.map([rig.row(segment)], 1000), 0, 10)
    assert caught.value.errno in (errno.EISDIR, errno.EINVAL)


def test_without_a_cache_directory_everything_is_a_miss() -> None:
    with CacheMap() as cachemap:
        reader = Reader(cachemap, Pool(BLOCK, BLOCK), BLOCK)
        ctx = AdContext(1, b"data", bytes(16), bytes(16))
        slot = cachemap.acquire(bytes(32), bytes(32), ctx, 132)
        row = Row(0, 1, 1, slot, last_len=100, last_valid=100)
        answer = reader.read(block_map(cachemap, [row], 100, BLOCK), 0, 100)
        assert isinstance(answer, Miss)
        assert answer.ranges == [(slot, 0, 132)]


def test_open_from_memory(rig: Rig) -> None:
    segment = rig.segment([BLOCK, BLOCK, 700])
    slot = rig.acquire(segment)
    size = 2 * BLOCK + 700
    content = b"".join(segment.plain)
    blockmap = rig.map([rig.row(segment)], size)
    whole = [(slot, 0, segment.sealed)]
    for offset, length in [(0, size), (5, 10), (BLOCK - 5, 10), (BLOCK, BLOCK), (size - 1, 5)]:
        answer = rig.reader.open_from(blockmap, offset, length, whole)
        assert isinstance(answer, ReadBuffer)
        assert bytes(answer) == content[offset : offset + length]
    # What the memory does not hold whole comes from the cache, or is missed.
    rig.pool.drop(slot)
    cut = segment.offsets[1] + 5
    parts = [(slot, 0, segment.sealed[:cut]), (slot, cut, segment.sealed[cut:])]
    answer = rig.reader.open_from(blockmap, 0, size, parts)
    assert isinstance(answer, Miss)
    assert answer.ranges == [(slot, UNIT_BYTES, len(segment.sealed) - UNIT_BYTES)]


def test_open_from_altered_memory_is_not_the_caches_fault(rig: Rig) -> None:
    segment = rig.segment([BLOCK, 700])
    slot = rig.acquire(segment)
    blockmap = rig.map([rig.row(segment)], BLOCK + 700)
    altered = bytearray(segment.sealed)
    altered[-1] ^= 1
    with pytest.raises(CorruptBlock) as caught:
        rig.reader.open_from(blockmap, 0, BLOCK + 700, [(slot, 0, altered)])
    error = caught.value
    assert (error.slot, error.ordinal, error.from_cache) == (slot, 1, False)
    answer = rig.reader.open_from(blockmap, 0, BLOCK, [(slot, 0, altered)])
    assert isinstance(answer, ReadBuffer)
    with pytest.raises(ValueError, match="at most 64"):
        rig.reader.open_from(blockmap, 0, 1, [(slot, 0, b"")] * 65)
    with pytest.raises(BufferError):
        rig.reader.open_from(blockmap, 0, 1, [(slot, 0, memoryview(altered)[::2])])
    with pytest.raises(ValueError, match="byte range"):
        rig.reader.open_from(blockmap, 0, 1, [(slot, -1, b"")])


def test_a_reply_is_not_reused_while_it_is_looked_at(rig: Rig) -> None:
    content, _, blockmap = simple_file(rig, 4 * BLOCK)
    first = rig.reader.read(blockmap, 0, BLOCK)
    assert isinstance(first, ReadBuffer)
    view = memoryview(first)
    assert view.readonly
    with pytest.raises(BufferError, match="views"):
        first.close()
    del first
    others = [read(rig, blockmap, at * BLOCK, BLOCK) for at in range(4)]
    assert b"".join(others) == content
    assert bytes(view) == content[:BLOCK]
    assert rig.reader.stats()["buffers_out"] == 1
    view.release()
    assert rig.reader.stats()["buffers_out"] == 0
    assert rig.reader.stats()["scratch_out"] == 0


def test_a_closed_reply_says_so(rig: Rig) -> None:
    _, _, blockmap = simple_file(rig, BLOCK)
    answer = rig.reader.read(blockmap, 0, 5)
    assert isinstance(answer, ReadBuffer)
    answer.close()
    answer.close()
    with pytest.raises(ValueError, match="closed"):
        bytes(answer)
    with pytest.raises(ValueError, match="closed"):
        memoryview(answer)
    with pytest.raises(TypeError):
        ReadBuffer()


def test_free_replies_are_bounded(rig: Rig) -> None:
    _, _, blockmap = simple_file(rig, 100 * BLOCK)
    held = [rig.reader.read(blockmap, 0, 100 * BLOCK) for _ in range(4)]
    assert rig.reader.stats()["buffers_out"] == 4
    del held
    assert rig.reader.stats()["buffers_out"] == 0
    assert rig.reader.stats()["bytes_held"] <= 8 << 20


def test_an_empty_reply(rig: Rig) -> None:
    _, _, blockmap = simple_file(rig, 10)
    for offset, length in [(0, 0), (10, 5), (1 << 50, 1 << 20)]:
        answer = rig.reader.read(blockmap, offset, length)
        assert isinstance(answer, ReadBuffer)
        assert (len(answer), bytes(answer), bytes(memoryview(answer))) == (0, b"", b"")


def test_what_does_not_fit_together_is_refused(rig: Rig, tmp_path: Path) -> None:
    _, _, blockmap = simple_file(rig, 10)
    with pytest.raises(ValueError, match="at most"):
        rig.reader.read(blockmap, 0, READ_BYTES_MAX + 1)
    with pytest.raises(ValueError, match="byte range"):
        rig.reader.read(blockmap, -1, 1)
    with pytest.raises(ValueError, match="byte range"):
        rig.reader.read_block(blockmap, -1)
    assert rig.reader.read_block(blockmap, 2**62) == b""
    with pytest.raises(ValueError, match="another block size"):
        Reader(rig.cachemap, Pool(2 * BLOCK, 2 * BLOCK), BLOCK)
    wider = Reader(rig.cachemap, Pool(2 * BLOCK, 2 * BLOCK), 2 * BLOCK)
    with pytest.raises(ValueError, match="block size"):
        wider.read(blockmap, 0, 1)
    with CacheMap() as other:
        stranger = Reader(other, rig.pool, BLOCK)
        with pytest.raises(ValueError, match="another cache map"):
            stranger.read(blockmap, 0, 1)
