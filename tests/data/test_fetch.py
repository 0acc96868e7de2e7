"""The fetcher: one GET for each byte, demand before read-ahead, bytes handed over as they come."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from lucid.data import fetch
from lucid.data.cache import SegmentCache
from lucid.data.fetch import UNIT, Fetcher
from lucid.data.memory import Share
from lucid.engine.cachemap import CacheMap
from lucid.engine.pool import Pool
from lucid.engine.sodium import AdContext
from lucid.errors import CorruptObject, InternalError, Stopped, StoreUnavailable
from lucid.format.names import segment_key
from lucid.local.disk import RealDisk
from lucid.store.base import ObjectStore, OnData, StoreLayer
from lucid.store.memory import MemoryStore
from lucid.types import SystemClock

WAIT_S = 30.0
SIZE = 40 * UNIT + 1000
SEGMENT = b"s" * 32
BYTES = Random(1).randbytes(SIZE)


class Gate(StoreLayer):
    """A store whose reads stop before, or in the middle of, a body until they are let on."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.asked: list[tuple[int, int]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.pause_after: int | None = None
        self.error: Exception | None = None

    def over(self, inner: ObjectStore) -> ObjectStore:
        return self

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        size = len(buffer)
        self.asked.append((start, size))
        self.begun.release()
        if self.pause_after is None:
            self.go.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        count = self.inner.get_into(key, start, buffer)
        assert on_data is not None
        if self.pause_after is not None and count > self.pause_after:
            on_data(self.pause_after)
            self.go.wait(WAIT_S)
        on_data(count)
        return count

    def bytes_asked(self) -> int:
        return sum(size for _, size in self.asked)


class Rig:
    """A fetcher over a gate, with one segment in the store."""

    def __init__(self, root: Path, workers: int = 4, timeout_s: float = WAIT_S) -> None:
        for name in ("cache", "staging"):
            (root / name).mkdir()
        fds = [os.open(root / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("cache", "staging")]
        self.map = CacheMap(*fds, 16)
        for fd in fds:
            os.close(fd)
        self.store = Gate(MemoryStore())
        self.store.put_if_absent(segment_key(SEGMENT), BYTES)
        self.clock = SystemClock()
        self.pool = Pool(UNIT, 1 << 20)
        self.cache = SegmentCache(
            RealDisk(), root / "cache", self.map, self.pool, self.clock,
            limit_bytes=1 << 30, free_bytes=0,
        )  # fmt: skip
        self.memory = Share("fetching", 1 << 24)
        self.fetcher = Fetcher(
            self.store, self.map, self.cache, self.memory, self.clock,
            workers=workers, timeout_s=timeout_s,
        )  # fmt: skip
        self.slot = self.acquire(SEGMENT)

    def acquire(self, segment: bytes) -> int:
        context = AdContext(1, b"DATA", b"f" * 16, b"g" * 16)
        return self.map.acquire(segment, b"k" * 32, context, SIZE)

    def here(self, start: int, end: int) -> bool:
        return not self.map.missing(self.slot, start, end - start)

    def cached(self, start: int, end: int) -> bytes:
        return self.cache.path(SEGMENT).read_bytes()[start:end]

    def close(self) -> None:
        self.store.go.set()
        self.fetcher.close()
        self.map.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def started(work) -> threading.Thread:  # type: ignore[no-untyped-def]
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_what_was_asked_for_is_here_when_demand_returns(rig: Rig) -> None:
    assert rig.fetcher.demand([(rig.slot, 100, 10)]) == []
    assert rig.here(0, UNIT)
    assert rig.cached(0, UNIT) == BYTES[:UNIT]
    assert rig.store.asked == [(0, UNIT)]
    rig.fetcher.demand([(rig.slot, 50, 10)])
    assert len(rig.store.asked) == 1


def test_the_end_of_a_segment_is_no_whole_unit(rig: Rig) -> None:
    rig.fetcher.demand([(rig.slot, 40 * UNIT + 10, 100)])
    assert rig.cached(40 * UNIT, SIZE) == BYTES[40 * UNIT :]


def test_many_who_want_the_same_make_one_get(rig: Rig) -> None:
    rig.store.go.clear()
    threads = [started(lambda: rig.fetcher.demand([(rig.slot, 0, 8 * UNIT)])) for _ in range(8)]
    assert rig.store.begun.acquire(timeout=WAIT_S)
    rig.store.go.set()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert rig.store.bytes_asked() == 8 * UNIT


def test_what_is_under_way_is_not_asked_for_again(rig: Rig) -> None:
    rig.store.go.clear()
    rig.fetcher.ahead([(rig.slot, 0, 8 * UNIT)])
    assert rig.store.begun.acquire(timeout=WAIT_S)
    thread = started(lambda: rig.fetcher.demand([(rig.slot, 4 * UNIT, 8 * UNIT)]))
    assert rig.store.begun.acquire(timeout=WAIT_S)
    rig.store.go.set()
    thread.join(WAIT_S)
    assert rig.store.bytes_asked() == 12 * UNIT
    assert rig.here(0, 12 * UNIT)


def test_bytes_are_handed_over_before_the_body_ends(rig: Rig) -> None:
    rig.store.pause_after = 3 * UNIT + 5
    rig.store.go.clear()
    background = started(lambda: rig.fetcher.demand([(rig.slot, 0, 16 * UNIT)]))
    assert rig.store.begun.acquire(timeout=WAIT_S)
    rig.fetcher.demand([(rig.slot, 2 * UNIT, 100)])
    assert rig.cached(2 * UNIT, 3 * UNIT) == BYTES[2 * UNIT : 3 * UNIT]
    assert not rig.here(3 * UNIT, 4 * UNIT)
    rig.store.go.set()
    background.join(WAIT_S)
    assert rig.here(0, 16 * UNIT)


def test_while_a_far_store_is_asked_the_file_for_the_answer_is_made(rig: Rig) -> None:
    rig.store.go.clear()
    made = threading.Event()
    prepare = rig.cache.prepare

    def noticed(segment: bytes) -> None:
        prepare(segment)
        made.set()

    rig.cache.prepare = noticed  # type: ignore[method-assign]
    reader = started(lambda: rig.fetcher.demand([(rig.slot, 0, 10)]))
    assert made.wait(WAIT_S)
    assert rig.cache.path(SEGMENT).stat().st_size == 0
    assert not rig.here(0, 1)
    rig.store.go.set()
    reader.join(WAIT_S)
    assert rig.cached(0, UNIT) == BYTES[:UNIT]


def test_a_file_that_was_made_and_is_gone_again_is_made_anew(rig: Rig) -> None:
    rig.cache.prepare(SEGMENT)
    rig.cache.path(SEGMENT).unlink()
    assert rig.fetcher.demand([(rig.slot, 0, 10)]) == []
    assert rig.cached(0, UNIT) == BYTES[:UNIT]


def test_a_file_that_cannot_be_made_is_no_fault_of_the_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fd: int) -> None:
        os.close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(rig.cache, "close_fill", fails)
    rig.cache.prepare(SEGMENT)
    assert rig.cache.bypassed


def test_a_file_for_an_answer_that_never_came_is_gone_at_the_next_start(rig: Rig) -> None:
    rig.cache.prepare(SEGMENT)
    assert rig.cache.load() == 0
    assert not rig.cache.path(SEGMENT).exists()


def test_demand_goes_before_what_is_read_ahead(tmp_path: Path) -> None:
    rig = Rig(tmp_path, workers=2)
    rig.store.go.clear()
    for index in range(6):
        rig.fetcher.ahead([(rig.slot, 4 * index * UNIT, UNIT)])
    assert rig.store.begun.acquire(timeout=WAIT_S)
    thread = started(lambda: rig.fetcher.demand([(rig.slot, 39 * UNIT, UNIT)]))
    assert rig.store.begun.acquire(timeout=WAIT_S), "a worker is kept for who waits"
    assert rig.store.asked == [(0, UNIT), (39 * UNIT, UNIT)]
    rig.store.go.set()
    thread.join(WAIT_S)
    rig.close()


def test_read_ahead_that_somebody_waits_for_jumps_the_queue(tmp_path: Path) -> None:
    rig = Rig(tmp_path, workers=2)
    rig.store.go.clear()
    for index in range(6):
        rig.fetcher.ahead([(rig.slot, 4 * index * UNIT, UNIT)])
    assert rig.store.begun.acquire(timeout=WAIT_S)
    thread = started(lambda: rig.fetcher.demand([(rig.slot, 20 * UNIT, UNIT)]))
    assert rig.store.begun.acquire(timeout=WAIT_S)
    assert rig.store.asked[1] == (20 * UNIT, UNIT)
    rig.store.go.set()
    thread.join(WAIT_S)
    rig.close()


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path, timeout_s=0.05)
    rig.store.go.clear()
    with pytest.raises(StoreUnavailable, match="did not answer"):
        rig.fetcher.demand([(rig.slot, 0, 10)])
    rig.store.go.set()
    rig.close()


def test_a_fault_is_told_once_and_the_next_try_is_new(rig: Rig) -> None:
    rig.store.error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable, match="away"):
        rig.fetcher.demand([(rig.slot, 0, 10)])
    rig.store.error = None
    rig.fetcher.demand([(rig.slot, 0, 10)])
    assert rig.here(0, UNIT)
    rig.fetcher.close()
    assert rig.memory.taken == 0


def test_an_object_that_is_gone_or_short_is_corrupt(rig: Rig) -> None:
    gone = rig.acquire(b"g" * 32)
    with pytest.raises(CorruptObject, match="not in the store"):
        rig.fetcher.demand([(gone, 0, 10)])
    rig.store.put_if_absent(segment_key(b"t" * 32), BYTES[: 2 * UNIT])
    short = rig.acquire(b"t" * 32)
    with pytest.raises(CorruptObject, match="cut short"):
        rig.fetcher.demand([(short, UNIT, 4 * UNIT)])


def test_where_the_cache_takes_nothing_the_bytes_go_straight_to_the_reader(rig: Rig) -> None:
    rig.cache.broken(OSError(5, "broken"))
    sources = rig.fetcher.demand([(rig.slot, 3 * UNIT, 10)])
    assert [(slot, start, bytes(data)) for slot, start, data in sources] == [
        (rig.slot, 3 * UNIT, BYTES[3 * UNIT : 4 * UNIT])
    ]
    assert not rig.cache.path(SEGMENT).exists()


def test_a_range_past_the_cache_comes_whole(rig: Rig) -> None:
    rig.cache.broken(OSError(5, "broken"))
    (source,) = rig.fetcher.past_cache([(rig.slot, UNIT - 10, UNIT + 20)])
    assert source[:2] == (rig.slot, UNIT - 10)
    assert source[2] == BYTES[UNIT - 10 : 2 * UNIT + 10]
    with pytest.raises(CorruptObject, match="cut short"):
        rig.fetcher.past_cache([(rig.slot, SIZE - 10, 20)])
    gone = rig.acquire(b"g" * 32)
    with pytest.raises(CorruptObject, match="not in the store"):
        rig.fetcher.past_cache([(gone, 0, 10)])


def test_closing_ends_who_waits(tmp_path: Path) -> None:
    rig = Rig(tmp_path, workers=1)
    rig.store.go.clear()
    first = started(lambda: rig.fetcher.demand([(rig.slot, 0, 10)]))
    assert rig.store.begun.acquire(timeout=WAIT_S)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            rig.fetcher.demand([(rig.slot, 5 * UNIT, 10)])
        except Stopped as error:
            told.append(error)

    second = started(wait)
    while not rig.fetcher._demand and second.is_alive():
        pass
    closing = started(rig.fetcher.close)
    second.join(WAIT_S)
    assert len(told) == 1
    rig.store.go.set()
    first.join(WAIT_S)
    closing.join(WAIT_S)
    with pytest.raises(Stopped):
        rig.fetcher.demand([(rig.slot, 9 * UNIT, 10)])
    rig.close()


def test_eviction_takes_the_longest_unused_first(rig: Rig) -> None:
    segments = [bytes([65 + index]) * 32 for index in range(4)]
    for segment in segments:
        rig.store.put_if_absent(segment_key(segment), BYTES)
        slot = rig.acquire(segment)
        rig.fetcher.demand([(slot, 0, SIZE)])
        rig.map.release(slot)
    assert rig.cache.used_bytes >= 4 * SIZE
    assert rig.cache.evict(SIZE) >= SIZE
    left = [segment for segment in segments if rig.cache.path(segment).exists()]
    assert 0 < len(left) < 4
    assert left == segments[4 - len(left) :]
    rig.cache.clear()
    assert not any(rig.cache.path(segment).exists() for segment in segments)


def test_one_file_that_cannot_be_removed_keeps_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of those that were to go with it can be read, written and evicted again."""
    slots = []
    for index in range(4):
        rig.store.put_if_absent(segment_key(bytes([65 + index]) * 32), BYTES)
        slots.append(rig.acquire(bytes([65 + index]) * 32))
        rig.fetcher.demand([(slots[-1], 0, SIZE)])
    unlink = RealDisk.unlink

    def refused(disk: RealDisk, path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(RealDisk, "unlink", refused)
    assert rig.cache.evict(3 * SIZE) == 0
    monkeypatch.setattr(RealDisk, "unlink", unlink)
    assert rig.cache.bypassed, "a disk that is ill is left alone for a while"
    for slot in slots:
        assert not rig.map.missing(slot, 0, SIZE)
        rig.map.release(slot)
    rig.cache.clear()
    assert rig.cache.used_bytes == 0


def test_a_worker_without_memory_for_a_buffer_tells_who_waits_and_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(fetcher: Fetcher) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patch:
        patch.setattr(Fetcher, "_take_buffer", none_left)
        for at in range(6):  # More of them than there are workers.
            with pytest.raises(InternalError, match="memory"):
                rig.fetcher.demand([(rig.slot, at * UNIT, 10)])
    rig.fetcher.demand([(rig.slot, 0, 10)])
    assert rig.here(0, UNIT)
    rig.fetcher.close()
    assert rig.memory.taken == 0


def test_what_earlier_processes_cached_is_known_again(rig: Rig, tmp_path: Path) -> None:
    rig.fetcher.demand([(rig.slot, 0, 8 * UNIT)])
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "cache").rename(other / "kept")
    again = Rig(other)
    (other / "cache").rmdir()
    (other / "kept").rename(other / "cache")
    assert again.cache.load() == 1
    assert again.cache.used_bytes > 0
    again.close()


def test_who_reads_after_one_waited_in_vain_waits_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until something comes."""
    monkeypatch.setattr(fetch, "SILENT_TIMEOUT_S", 0.05)
    quick = Rig(tmp_path, timeout_s=2.0)
    clock = SystemClock()
    try:
        quick.store.go.clear()
        times = []
        for unit in (0, 5):
            began = clock.monotonic()
            with pytest.raises(StoreUnavailable):
                quick.fetcher.demand([(quick.slot, unit * UNIT, UNIT)])
            times.append(clock.monotonic() - began)
        assert times[0] >= 2.0 > times[1] + 0.5
        quick.store.go.set()
        quick.fetcher.demand([(quick.slot, 10 * UNIT, UNIT)])
        quick.store.go.clear()
        began = clock.monotonic()
        with pytest.raises(StoreUnavailable):
            quick.fetcher.demand([(quick.slot, 20 * UNIT, UNIT)])
        assert clock.monotonic() - began >= 2.0
    finally:
        quick.store.go.set()
        quick.close()
