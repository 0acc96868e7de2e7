"""The cache map on real files: presence from holes, descriptors, eviction, promotion."""

from __future__ import annotations

import gc
import os
import resource
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lucid.engine.addr import SEGMENT_STORED_MAX, UNIT_BYTES
from lucid.engine.cachemap import CacheMap
from lucid.engine.errors import CacheIOError, EngineError
from lucid.engine.reader import Miss, ReadBuffer
from lucid.engine.sodium import AdContext
from tests.engine.rig import BLOCK, Rig, Segment

CTX = AdContext(1, b"data", bytes(16), bytes(16))
ID, KEY = bytes(range(32)), bytes(32)
LENGTH = 3 * UNIT_BYTES + 5


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def read_all(rig: Rig, segment: Segment) -> bytes:
    size = sum(map(len, segment.plain))
    answer = rig.reader.read(rig.map([rig.row(segment)], size), 0, size)
    assert isinstance(answer, ReadBuffer)
    return bytes(answer)


def test_references_keep_a_slot() -> None:
    with CacheMap() as cachemap:
        slot = cachemap.acquire(ID, KEY, CTX, LENGTH)
        assert cachemap.acquire(ID, KEY, CTX, LENGTH) == slot
        cachemap.retain(slot)
        assert cachemap.find(ID) == slot
        assert cachemap.segment_id(slot) == ID
        assert cachemap.stored_len(slot) == LENGTH
        token = cachemap.token(slot)
        for _ in range(3):
            assert cachemap.find(ID) == slot
            cachemap.release(slot)
        assert cachemap.find(ID) is None
        with pytest.raises(EngineError, match="no reference"):
            cachemap.release(slot)
        again = cachemap.acquire(bytes(32), KEY, CTX, LENGTH)
        assert again == slot
        assert cachemap.token(again) != token


@pytest.mark.parametrize("wrong", [-1, 0, 1, 2**40])
def test_a_slot_nobody_holds_is_refused(wrong: int) -> None:
    with CacheMap() as cachemap:
        calls: list[Callable[[int], object]] = [
            cachemap.release,
            cachemap.retain,
            cachemap.segment_id,
            cachemap.token,
            cachemap.stored_len,
            cachemap.charge,
            cachemap.touch,
            cachemap.pin,
            cachemap.unpin,
            cachemap.promote,
            cachemap.forget,
            cachemap.spare,
            cachemap.is_staged,
            cachemap.is_evicting,
            cachemap.load_presence,
            lambda slot: cachemap.set_present(slot, 0, 1),
            lambda slot: cachemap.clear_present(slot, 0, 1),
            lambda slot: cachemap.missing(slot, 0, 1),
            lambda slot: cachemap.is_present(slot, 0, 1),
            lambda slot: cachemap.set_charge(slot, 1),
            lambda slot: cachemap.set_stored_len(slot, 1),
            lambda slot: cachemap.set_read_once(slot, True),
        ]
        for call in calls:
            with pytest.raises(EngineError):
                call(wrong)


def test_a_segment_has_one_key_context_and_length() -> None:
    other = AdContext(1, b"data", bytes(16), bytes(range(16)))
    with CacheMap() as cachemap:
        slot = cachemap.acquire(ID, KEY, CTX, LENGTH)
        for fields in [(ID, ID, CTX, LENGTH), (ID, KEY, other, LENGTH), (ID, KEY, CTX, 5)]:
            with pytest.raises(EngineError, match="known with another"):
                cachemap.acquire(*fields)
        with pytest.raises(EngineError, match="known with another"):
            cachemap.acquire(ID, KEY, CTX, LENGTH, staged=True)
        cachemap.release(slot)
        assert cachemap.stats()["slots"] == 0


def test_lengths_and_sizes_are_checked() -> None:
    with CacheMap() as cachemap:
        for length in (-1, 0, SEGMENT_STORED_MAX + 1):
            with pytest.raises(ValueError, match="stored_len"):
                cachemap.acquire(ID, KEY, CTX, length)
        with pytest.raises(ValueError, match="segment_id must be 32"):
            cachemap.acquire(b"", KEY, CTX, 1)
        with pytest.raises(ValueError, match="key must be 32"):
            cachemap.acquire(ID, b"", CTX, 1)
        slot = cachemap.acquire(ID, KEY, CTX, 1)
        with pytest.raises(ValueError, match="byte range"):
            cachemap.missing(slot, -1, 1)
        with pytest.raises(ValueError, match="byte range"):
            cachemap.set_present(slot, 2**63 - 1, 1)
        with pytest.raises(ValueError, match="limit"):
            cachemap.victims(1, 0)
    with pytest.raises(ValueError, match="max_open_files"):
        CacheMap(-1, -1, 0)
    with pytest.raises(ValueError, match="not an open descriptor"):
        CacheMap(10**6)


def test_a_closed_map_says_so(rig: Rig) -> None:
    segment = rig.segment([100])
    slot = rig.put(segment)
    blockmap = rig.map([rig.row(segment)], 100)
    kept = rig.reader.read(blockmap, 0, 10)
    # Opened blocks would still be served: nothing of the map is needed for them.
    rig.pool.drop(slot)
    rig.cachemap.close()
    rig.cachemap.close()
    with pytest.raises(EngineError, match="closed"):
        rig.cachemap.acquire(ID, KEY, CTX, 1)
    with pytest.raises(EngineError, match="closed"):
        rig.cachemap.charge(slot)
    with pytest.raises(EngineError, match="closed"):
        rig.cachemap.victims(1)
    with pytest.raises(EngineError, match="closed"):
        rig.cachemap.find(ID)
    with pytest.raises(EngineError, match="closed"):
        rig.reader.read(blockmap, 0, 100)
    assert isinstance(kept, ReadBuffer)
    assert bytes(kept) == segment.plain[0][:10]
    rig.cachemap.release(slot)


def test_an_unclosed_map_is_reported() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        CacheMap()
        gc.collect()
    assert [str(each.message) for each in seen] == ["a CacheMap was not closed"]
    assert seen[0].category is ResourceWarning


def test_presence_is_what_is_data_in_the_file(rig: Rig) -> None:
    segment = rig.segment([BLOCK] * 5)
    path = rig.cache_path(segment)
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(len(segment.sealed))
        for unit in (1, 2, 5):
            start = unit * UNIT_BYTES
            file.seek(start)
            file.write(segment.sealed[start : start + UNIT_BYTES])
        # Half of a unit does not count.
        file.seek(4 * UNIT_BYTES)
        file.write(segment.sealed[4 * UNIT_BYTES : 4 * UNIT_BYTES + 30_000])
    slot = rig.acquire(segment)
    assert rig.cachemap.missing(slot, 0, len(segment.sealed)) == [
        (0, UNIT_BYTES),
        (3 * UNIT_BYTES, 2 * UNIT_BYTES),
    ]
    assert rig.cachemap.charge(slot) == path.stat().st_blocks * 512
    assert rig.cachemap.total_charge == rig.cachemap.charge(slot)
    assert rig.cachemap.is_present(slot, UNIT_BYTES, 2 * UNIT_BYTES)
    assert not rig.cachemap.is_present(slot, UNIT_BYTES - 1, 2)
    # Beyond the end there is nothing that could be there.
    assert not rig.cachemap.is_present(slot, len(segment.sealed), 1)


def test_a_file_cut_short_has_no_last_unit(rig: Rig) -> None:
    segment = rig.segment([BLOCK, BLOCK])
    slot = rig.put(segment)
    os.truncate(rig.cache_path(segment), len(segment.sealed) - 1)
    assert rig.cachemap.missing(slot, 0, len(segment.sealed)) == [(2 * UNIT_BYTES, 64)]


def test_presence_can_be_read_again(rig: Rig) -> None:
    segment = rig.segment([BLOCK, BLOCK])
    slot = rig.acquire(segment)
    assert len(rig.cachemap.missing(slot, 0, len(segment.sealed))) == 1
    rig.put(segment)
    assert rig.cachemap.load_presence(slot) == rig.cache_path(segment).stat().st_blocks * 512
    assert rig.cachemap.missing(slot, 0, len(segment.sealed)) == []
    rig.cache_path(segment).unlink()
    assert rig.cachemap.load_presence(slot) == 0
    assert rig.cachemap.missing(slot, 0, 1) == [(0, UNIT_BYTES)]


def test_adopted_files_are_evicted_oldest_first() -> None:
    with CacheMap() as cachemap:
        ids = [bytes([number]) * 32 for number in range(4)]
        slots = [cachemap.adopt(each, 10_000) for each in ids]
        assert cachemap.total_charge == 40_000
        with pytest.raises(EngineError, match="no key"):
            cachemap.missing(slots[0], 0, 1)
        assert not cachemap.set_present(slots[0], 0, 1)
        # An acquired one keeps what was adopted.
        assert cachemap.acquire(ids[0], KEY, CTX, LENGTH) == slots[0]
        assert cachemap.charge(slots[0]) == 10_000
        chosen = cachemap.victims(15_000)
        assert chosen == [(slots[0], ids[0], 10_000), (slots[1], ids[1], 10_000)]
        for slot, _, _ in chosen:
            assert cachemap.is_evicting(slot)
            cachemap.forget(slot)
        assert cachemap.total_charge == 20_000
        # The referenced one stays, empty; the other is gone.
        assert cachemap.find(ids[0]) == slots[0]
        assert cachemap.find(ids[1]) is None


def test_an_evicting_segment_is_absent_and_can_be_spared(rig: Rig) -> None:
    segment = rig.segment([BLOCK])
    slot = rig.put(segment)
    blockmap = rig.map([rig.row(segment)], BLOCK)
    assert isinstance(rig.reader.read(blockmap, 0, BLOCK), ReadBuffer)
    [(chosen, _, _)] = rig.cachemap.victims(1)
    assert chosen == slot
    answer = rig.reader.read(blockmap, 0, BLOCK)
    assert isinstance(answer, Miss)
    assert not rig.cachemap.set_present(slot, 0, len(segment.sealed))
    assert rig.cachemap.missing(slot, 0, 1) == [(0, UNIT_BYTES)]
    assert rig.cachemap.victims(1) == []
    rig.cachemap.spare(slot)
    assert isinstance(rig.reader.read(blockmap, 0, BLOCK), ReadBuffer)
    with pytest.raises(EngineError, match="not being evicted"):
        rig.cachemap.spare(slot)


def test_pins_and_staging_protect(rig: Rig) -> None:
    cached, staged = rig.segment([BLOCK]), rig.segment([BLOCK])
    slot, other = rig.put(cached), rig.stage(staged)
    assert rig.cachemap.load_presence(slot) > 0
    rig.cachemap.pin(slot)
    assert rig.cachemap.victims(1 << 40) == []
    rig.cachemap.unpin(slot)
    with pytest.raises(EngineError, match="not pinned"):
        rig.cachemap.unpin(slot)
    assert [found[0] for found in rig.cachemap.victims(1 << 40)] == [slot]
    assert rig.cachemap.is_staged(other)
    with pytest.raises(EngineError, match="staged"):
        rig.cachemap.set_charge(other, 1)
    assert rig.cachemap.staged_charge == len(staged.sealed)


def test_a_staged_segment_grows_and_is_promoted(rig: Rig) -> None:
    segment = rig.segment([BLOCK, BLOCK, 1000])
    path = rig.staging_path(segment)
    half = segment.offsets[1]
    path.write_bytes(segment.sealed[:half])
    slot = rig.cachemap.acquire(segment.segment_id, segment.key, rig.context(1), half, True)
    segment.slot = slot
    blockmap = rig.map([rig.row(segment)], 2 * BLOCK + 1000)
    first = rig.reader.read(blockmap, 0, BLOCK)
    assert isinstance(first, ReadBuffer)
    with path.open("ab") as file:
        file.write(segment.sealed[half:])
    rig.cachemap.set_stored_len(slot, len(segment.sealed))
    with pytest.raises(EngineError, match="shrink"):
        rig.cachemap.set_stored_len(slot, half)
    assert rig.cachemap.staged_charge == len(segment.sealed)
    assert rig.cachemap.total_charge == 0
    assert read_all(rig, segment) == b"".join(segment.plain)
    # A reader between the rename and the promotion finds it, too.
    rig.cache_path(segment).parent.mkdir()
    path.rename(rig.cache_path(segment))
    assert read_all(rig, segment) == b"".join(segment.plain)
    rig.cachemap.promote(slot)
    assert rig.cachemap.staged_charge == 0
    assert rig.cachemap.total_charge >= len(segment.sealed)
    assert rig.cachemap.missing(slot, 0, len(segment.sealed)) == []
    assert read_all(rig, segment) == b"".join(segment.plain)
    with pytest.raises(EngineError, match="not staged"):
        rig.cachemap.promote(slot)


def test_a_renamed_staging_file_is_found_without_a_descriptor(rig: Rig) -> None:
    segment = rig.segment([1000])
    rig.stage(segment)
    rig.cache_path(segment).parent.mkdir()
    rig.staging_path(segment).rename(rig.cache_path(segment))
    assert read_all(rig, segment) == segment.plain[0]


def test_a_dropped_staged_segment_is_gone() -> None:
    with CacheMap() as cachemap:
        slot = cachemap.acquire(ID, KEY, CTX, 100, True)
        cachemap.release(slot)
        # Nobody refers to it, yet its bytes are nowhere else.
        assert cachemap.find(ID) == slot
        cachemap.forget(slot)
        assert cachemap.find(ID) is None
        assert cachemap.staged_charge == 0


def test_a_missing_staging_file_is_an_error_not_a_miss(rig: Rig) -> None:
    segment = rig.segment([1000])
    slot = rig.stage(segment)
    rig.staging_path(segment).unlink()
    with pytest.raises(CacheIOError) as caught:
        read_all(rig, segment)
    assert (caught.value.errno, caught.value.slot) == (2, slot)


def test_a_deleted_cache_file_is_a_miss_and_heals(rig: Rig) -> None:
    segment = rig.segment([BLOCK])
    slot = rig.put(segment)
    assert read_all(rig, segment) == segment.plain[0]
    # The descriptor keeps it readable; without one it is simply not there.
    rig.cache_path(segment).unlink()
    assert read_all(rig, segment) == segment.plain[0]
    rig.cachemap.clear_present(slot, 0, 1)
    rig.cachemap.set_present(slot, 0, len(segment.sealed))
    blockmap = rig.map([rig.row(segment)], BLOCK)
    answer = rig.reader.read(blockmap, 0, BLOCK)
    assert isinstance(answer, Miss)
    assert answer.ranges == [(slot, 0, len(segment.sealed))]
    assert rig.cachemap.total_charge == 0
    rig.put(segment)
    rig.cachemap.set_present(slot, 0, len(segment.sealed))
    assert read_all(rig, segment) == segment.plain[0]


def test_at_most_so_many_descriptors(tmp_path: Path) -> None:
    with Rig(tmp_path, max_open_files=3) as rig:
        before = open_descriptors()
        segments = [rig.segment([500]) for _ in range(10)]
        for segment in segments:
            rig.put(segment)
        for segment in segments * 2:
            assert read_all(rig, segment) == segment.plain[0]
            assert rig.cachemap.stats()["open_files"] <= 3
        assert open_descriptors() <= before + 3
        # The three used last are still open: reading them opens nothing.
        for segment in segments[-3:]:
            rig.cache_path(segment).unlink()
            assert read_all(rig, segment) == segment.plain[0]
    assert open_descriptors() <= before


def test_running_out_of_descriptors_closes_others(rig: Rig) -> None:
    segments = [rig.segment([500]) for _ in range(6)]
    for segment in segments:
        rig.put(segment)
    for segment in segments[:4]:
        assert read_all(rig, segment) == segment.plain[0]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    # Fill the gaps below the limit, so that the next open must fail.
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                filler.append(os.dup(0))
        answers = [read_all(rig, segment) for segment in segments[4:]]
        open_files = rig.cachemap.stats()["open_files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in filler:
            os.close(fd)
    assert answers == [segment.plain[0] for segment in segments[4:]]
    assert open_files == 2


def test_no_descriptor_at_all_is_an_io_error(rig: Rig) -> None:
    segment = rig.segment([500])
    slot = rig.put(segment)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(CacheIOError) as caught:
            read_all(rig, segment)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (caught.value.errno, caught.value.slot) == (24, slot)
    assert read_all(rig, segment) == segment.plain[0]


def test_read_once_goes_first_and_recency_counts() -> None:
    with CacheMap() as cachemap:
        ids = [bytes([number]) * 32 for number in range(5)]
        slots = [cachemap.adopt(each, 100) for each in ids]
        cachemap.set_read_once(slots[4], True)
        cachemap.set_read_once(slots[2], True)
        cachemap.set_read_once(slots[2], False)
        cachemap.touch(slots[0])
        order = [slot for slot, _, _ in cachemap.victims(1 << 40)]
        assert order == [slots[4], slots[1], slots[3], slots[2], slots[0]]


def test_many_segments() -> None:
    with CacheMap() as cachemap:
        ids = [number.to_bytes(32, "little") for number in range(5000)]
        slots = [cachemap.acquire(each, KEY, CTX, LENGTH) for each in ids]
        assert len(set(slots)) == 5000
        assert [cachemap.find(each) for each in ids] == slots
        for slot in slots[::2]:
            cachemap.release(slot)
        found = [cachemap.find(each) for each in ids]
        assert found[1::2] == slots[1::2]
        assert not any(slot is not None for slot in found[::2])
        assert cachemap.stats()["slots"] == 2500
