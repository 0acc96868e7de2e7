"""When floors are asked for, and what is made of the answer (S-302, S-303)."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from lucid.errors import BelowFloor
from lucid.format.floor import encode_floor
from lucid.format.names import floor_key, log_key
from lucid.store.memory import MemoryStore
from lucid.sync.below_floor import DAY_S, Floors, is_whole

S = 10**9


class Hand:
    """A clock that is moved by hand; `asleep` seconds are known to its wall clock only."""

    def __init__(self) -> None:
        self.awake = 1000.0
        self.asleep = 0.0

    def monotonic(self) -> float:
        return self.awake

    def time_ns(self) -> int:
        return int((self.awake + self.asleep) * S)


class Scene(NamedTuple):
    here: Hand
    there: Hand
    store: MemoryStore
    floors: Floors

    def put(self, floor: int, entry: bool = True) -> None:
        self.store.put_if_absent(floor_key(floor), encode_floor(floor))
        if entry:
            self.store.put_if_absent(log_key(floor), b"")

    def lists(self) -> int:
        return self.store.counters.of("list").requests

    def see_end(self, head: int) -> None:
        self.floors.at_end(head, self.floors.now())


@pytest.fixture
def scene() -> Scene:
    here, there = Hand(), Hand()
    store = MemoryStore(clock=there)
    store.date_ns()
    return Scene(here, there, store, Floors(store, here))


def test_the_end_that_was_seen_vouches_for_a_day(scene: Scene) -> None:
    scene.see_end(5)
    scene.put(9)
    asked = scene.lists()
    scene.here.awake += DAY_S - 1
    scene.floors.sure(5)
    scene.floors.check(5)
    assert scene.lists() == asked
    scene.here.awake += 2
    with pytest.raises(BelowFloor, match="up to entry 5, and entries below 9"):
        scene.floors.sure(5)
    scene.floors.sure(9)


@pytest.mark.parametrize(
    "what", ["it slept", "its clock was set back", "the store's clock went on"]
)
def test_the_clocks_that_part(scene: Scene, what: str) -> None:
    """A machine that sleeps, and one that was stopped as a whole, know it by another clock."""
    scene.see_end(5)
    scene.put(9)
    if what == "it slept":
        scene.here.asleep += 3600
    elif what == "its clock was set back":
        scene.here.asleep -= 3600
    else:
        scene.there.awake += 8 * DAY_S
        scene.store.date_ns()
    for asks in (scene.floors.sure, scene.floors.check):
        with pytest.raises(BelowFloor):
            asks(5)


def test_while_a_backlog_is_read_an_answer_holds_for_a_minute(scene: Scene) -> None:
    scene.floors.check(5)
    asked = scene.lists()
    scene.floors.check(6)
    assert scene.lists() == asked
    scene.floors.sure(6)
    assert scene.lists() == asked + 1, "what is settled is asked about each time"
    scene.here.awake += 61
    scene.put(9)
    with pytest.raises(BelowFloor):
        scene.floors.check(6)


def test_the_newest_floor_that_has_its_entry_counts(scene: Scene) -> None:
    scene.put(9)
    scene.put(12)
    scene.put(40, entry=False)
    assert scene.floors.above(5) == 12
    assert "a floor at entry 40 of the log, which has no such entry" in scene.floors.strange
    assert scene.floors.above(12) is None
    scene.store.put_if_absent("floor/no-number", b"")
    assert scene.floors.above(0) == 12


def test_a_log_found_whole_is_followed_but_is_no_end(scene: Scene) -> None:
    scene.put(9)
    scene.floors.whole = 9
    scene.floors.check(5)
    with pytest.raises(BelowFloor):
        scene.floors.at_end(5, scene.floors.now())
    scene.floors.at_end(9, scene.floors.now())


def test_whether_entries_are_missing(scene: Scene) -> None:
    for number in (1, 2, 3, 5, 6):
        scene.store.put_if_absent(log_key(number), b"")
    assert is_whole(scene.store, 0, 3) and is_whole(scene.store, 4, 6)
    assert not is_whole(scene.store, 2, 5) and not is_whole(scene.store, 4, 7)
