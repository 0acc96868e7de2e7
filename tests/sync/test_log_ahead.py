"""Reading ahead in the log, and leaving others their turn."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lucid.errors import StoreUnavailable
from lucid.sync.log_ahead import BYTES_MAX, WIDTH_MAX, LogAhead, reading_ahead
from lucid.sync.turns import PAUSE_MAX_S, Turns
from tests.meta.replicas import StillClock

WAIT_S = 20.0


class Store:
    """Entries by number. It counts who is in a call at once, and can make them wait."""

    def __init__(self, size: int = 3) -> None:
        self.entries: dict[int, bytes] = {}
        self.size = size
        self.asked: list[int] = []
        self.failing: set[int] = set()
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()

    def fill(self, first: int, end: int) -> None:
        self.entries |= {number: b"%d" % number + bytes(self.size) for number in range(first, end)}

    def fetch(self, sequence: int) -> bytes | None:
        self.asked.append(sequence)
        self.inside.release()
        self.go.wait(WAIT_S)
        if sequence in self.failing:
            self.failing.discard(sequence)
            raise StoreUnavailable("It is away.")
        return self.entries.get(sequence)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def ahead(store: Store) -> Iterator[LogAhead]:
    made = LogAhead(store.fetch)
    yield made
    store.go.set()
    made.close()


def test_all_entries_come_in_order(store: Store, ahead: LogAhead) -> None:
    store.fill(1, 40)
    assert [ahead.fetch(number) for number in range(1, 40)] == [*store.entries.values()]
    assert ahead.fetch(40) is None
    assert sorted(store.asked)[:39] == list(range(1, 40)), "each is asked for once"
    store.fill(40, 42)
    assert ahead.fetch(40) == store.entries[40], "what was not there then may be there now"


def test_who_is_behind_fetches_many_at_once(store: Store, ahead: LogAhead) -> None:
    """Else a device that is far away never keeps up with others who commit all the time."""
    store.fill(1, 40)
    for number in range(1, 6):
        assert ahead.fetch(number)
    while store.inside.acquire(blocking=False):
        pass
    store.go.clear()
    reader = threading.Thread(target=lambda: [ahead.fetch(number) for number in range(6, 20)])
    reader.start()
    for _ in range(WIDTH_MAX):
        assert store.inside.acquire(timeout=WAIT_S), "only some are on their way"
    store.go.set()
    reader.join(WAIT_S)
    assert not reader.is_alive()


def test_one_entry_costs_no_more_than_one_request(store: Store, ahead: LogAhead) -> None:
    for number in range(1, 5):
        store.fill(number, number + 1)
        assert ahead.fetch(number)
        assert ahead.fetch(number + 1) is None
    assert store.asked == [1, 2, 2, 3, 3, 4, 4, 5]


def test_what_failed_ahead_is_asked_for_again(store: Store, ahead: LogAhead) -> None:
    store.fill(1, 12)
    assert ahead.fetch(1) and ahead.fetch(2)
    store.failing = {5, 6}
    assert [ahead.fetch(number) for number in range(3, 12)] == [
        store.entries[number] for number in range(3, 12)
    ]


def test_large_entries_are_few_at_once(store: Store, ahead: LogAhead) -> None:
    store.size = BYTES_MAX // 2
    store.fill(1, 12)
    for number in range(1, 8):
        assert ahead.fetch(number)
        assert max(store.asked) <= number + 2


def pauses(others: int) -> float:
    """The mean pause after a win, in seconds, where each commit takes 0.05 s."""
    clock = StillClock()
    turns, found = Turns(clock, random.Random(1)), []
    for _ in range(200):
        for session in range(others):
            turns.heard(session + 2)
        began = clock.now_s
        clock.now_s += 0.05
        turns.won(began, active=others > 0)
        found.append(max(0.0, turns.after - clock.now_s))
        clock.now_s += found[-1]
    return sum(found) / len(found)


def test_who_has_won_waits_for_as_long_as_the_others_need() -> None:
    assert pauses(0) == 0
    assert pauses(1) == pytest.approx(0.05, rel=0.2)
    assert pauses(15) == pytest.approx(15 * 0.05, rel=0.2)
    assert pauses(500) <= PAUSE_MAX_S


def test_who_was_not_heard_for_long_does_not_count() -> None:
    clock = StillClock()
    turns = Turns(clock, random.Random(1))
    for session in range(20):
        turns.heard(session)
    clock.now_s += 60.0
    turns.won(clock.now_s - 0.05, active=True)
    assert turns.after - clock.now_s < 0.1


def test_only_who_opens_reads_ahead(store: Store) -> None:
    store.fill(1, 20)
    reader: Any = SimpleNamespace(fetch=store.fetch, ahead=store.fetch)
    with reading_ahead(reader):
        assert [reader.ahead(number) for number in range(1, 20)] == [*store.entries.values()]
        assert reader.ahead(20) is None
        assert 21 in store.asked
    assert reader.ahead == store.fetch
