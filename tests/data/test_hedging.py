"""A GET that takes much longer than others gets a twin."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.data.hedging import BEYOND, FEWEST, KEPT, SLOW_S, SLOWEST, FirstBytes
from lucid.store.base import OnData
from tests.data.test_fetch import BYTES, SIZE, UNIT, WAIT_S, Rig, started


def test_late_is_told_from_the_newest_answers() -> None:
    times = FirstBytes()
    for _ in range(FEWEST - 1):
        times.note(0.2)
    assert times.slow_s() is None, "too few to tell"
    times.note(0.2)
    assert times.slow_s() == pytest.approx(0.2 * BEYOND)
    for _ in range(KEPT - SLOWEST):
        times.note(0.001)
    for _ in range(SLOWEST):
        times.note(5.0)
    assert times.slow_s() == SLOW_S, "a few slow ones are what it is for"
    times.note(5.0)
    assert times.slow_s() == 5.0 * BEYOND, "more of them, and that is how the store is"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


class HoldsFirst:
    """The first GET of each range hangs until it is let go; others go through."""

    def __init__(self, rig: Rig) -> None:
        self.seen: list[int] = []
        self.go = threading.Event()
        self._inner = rig.store.inner
        self._lock = threading.Lock()
        self.error: Exception | None = None

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        with self._lock:
            is_first = start not in self.seen
            self.seen.append(start)
        if is_first:
            assert self.go.wait(WAIT_S)
            if self.error is not None:
                raise self.error
        return self._inner.get_into(key, start, buffer, on_data)


def warm(rig: Rig) -> None:
    """So many answers that what is late can be told."""
    for _ in range(FEWEST):
        rig.fetcher.demand([(rig.slot, 0, 100)])
        rig.map.clear_present(rig.slot, 0, UNIT)
    rig.fetcher.demand([(rig.slot, 0, 100)])


def test_a_twin_brings_what_its_original_does_not(rig: Rig) -> None:
    warm(rig)
    holds = HoldsFirst(rig)
    rig.store.get_into = holds.get_into  # type: ignore[method-assign]
    at = 8 * UNIT
    rig.fetcher.demand([(rig.slot, at, 2 * UNIT)])
    assert holds.seen == [at, at], "the same once more, and no third one"
    assert rig.cached(at, at + 2 * UNIT) == BYTES[at : at + 2 * UNIT]
    holds.go.set()
    rig.fetcher.demand([(rig.slot, 0, SIZE)])
    assert rig.cached(0, SIZE) == BYTES, "also when the original came after all"


def test_a_store_of_which_nothing_is_known_gets_no_twins(rig: Rig) -> None:
    holds = HoldsFirst(rig)
    rig.store.get_into = holds.get_into  # type: ignore[method-assign]
    waiter = started(lambda: rig.fetcher.demand([(rig.slot, 0, 100)]))
    waiter.join(5 * SLOW_S)
    assert waiter.is_alive()
    assert holds.seen == [0]
    holds.go.set()
    waiter.join(WAIT_S)
    assert not waiter.is_alive()


def test_an_original_that_fails_late_hurts_nobody(rig: Rig) -> None:
    warm(rig)
    holds = HoldsFirst(rig)
    rig.store.get_into = holds.get_into  # type: ignore[method-assign]
    rig.fetcher.demand([(rig.slot, UNIT, 100)])
    holds.error = OSError("the connection broke")
    holds.go.set()
    holds.seen.append(9 * UNIT)
    rig.fetcher.demand([(rig.slot, 9 * UNIT, 100)])
    assert rig.cached(UNIT, 2 * UNIT) == BYTES[UNIT : 2 * UNIT]


def test_few_twins_at_a_time(rig: Rig) -> None:
    """A store that answers nobody is not asked twice by everybody."""
    warm(rig)
    holds = HoldsFirst(rig)
    rig.store.get_into = holds.get_into  # type: ignore[method-assign]
    workers = [
        started(lambda at=at: rig.fetcher.demand([(rig.slot, at * UNIT, 100)]))
        for at in range(2, 32, 2)
    ]
    for waiter in workers[:4]:
        waiter.join(10 * SLOW_S)
    assert len(holds.seen) <= 4 + 2, "four workers fly, and the others wait for one of them"
    holds.go.set()
    for waiter in workers:
        waiter.join(WAIT_S)
        assert not waiter.is_alive()


class FailsInBetween:
    """The cache is bypassed while the original brings its first unit, and takes what the twin
    brings."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._inner = rig.store.inner
        self._limit = rig.cache.limit_bytes
        self._calls = itertools.count()
        self.twin_begun, self.original_told = threading.Event(), threading.Event()
        self.go = threading.Event()

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        assert on_data is not None
        if next(self._calls):
            self.twin_begun.set()
            assert self.original_told.wait(WAIT_S)
            self._rig.cache.limit_bytes = self._limit
            return self._inner.get_into(key, start, buffer, on_data)
        assert self.twin_begun.wait(WAIT_S)
        self._rig.cache.limit_bytes = 0
        buffer[:UNIT] = BYTES[start : start + UNIT]
        on_data(UNIT)
        self.original_told.set()
        assert self.go.wait(WAIT_S)
        return self._inner.get_into(key, start, buffer, on_data)


def test_what_a_twin_brought_is_not_looked_for_in_its_original(rig: Rig) -> None:
    """The one goes past the cache, the other does not: a reader gets the bytes of each."""
    warm(rig)
    both = FailsInBetween(rig)
    rig.store.get_into = both.get_into  # type: ignore[method-assign]
    at, size = 8 * UNIT, 3 * UNIT
    try:
        sources = rig.fetcher.demand([(rig.slot, at, size)])
        for slot, start, data in sources:
            assert slot == rig.slot
            assert bytes(data) == BYTES[start : start + len(data)]
        assert rig.here(at, at + size)
        assert rig.cached(at, at + size) == BYTES[at : at + size]
    finally:
        both.go.set()
