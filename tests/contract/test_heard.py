"""When a store was last heard of, and how long it has been asked in vain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lucid.errors import LucidError, ObjectExists, ObjectMissing, StoreUnavailable
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.store.faulty import FaultPlan, FaultyStore
from lucid.store.heard import Heard, HeardStore
from lucid.store.memory import MemoryStore


class Hand:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


class Slow(StoreLayer):
    """Takes ten seconds for everything, and tells a look what is known meanwhile."""

    def __init__(self, inner: ObjectStore, clock: Hand, heard: Heard) -> None:
        super().__init__(inner)
        self._clock = clock
        self._heard = heard
        self.seen: list[float] = []

    def over(self, inner: ObjectStore) -> ObjectStore:
        return Slow(inner, self._clock, self._heard)

    def _take(self) -> None:
        self._clock.now += 10.0
        self.seen.append(self._heard.silent_s)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._take()
        return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        self._take()
        if on_data is not None:
            on_data(1)
        self._take()
        return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        self._take()
        self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        for info in self.inner.list(prefix, start_after, limit):
            self._take()
            yield info


class Line:
    """A slow store over one that can be cut off, and what is heard of it."""

    def __init__(self) -> None:
        self.clock, self.plan = Hand(), FaultPlan()
        self.heard = Heard(self.clock)
        self.slow = Slow(FaultyStore(MemoryStore(), self.plan), self.clock, self.heard)
        self.store = HeardStore(self.slow, self.heard)


@pytest.fixture
def line() -> Line:
    return Line()


def test_nothing_was_asked(line: Line) -> None:
    assert (line.heard.age_s, line.heard.silent_s) == (None, 0.0)


def test_an_answer_has_an_age_and_ends_the_silence(line: Line) -> None:
    line.store.put_if_absent("key", b"bytes")
    assert line.slow.seen == [10.0], "while it was under way"
    assert (line.heard.age_s, line.heard.silent_s) == (0.0, 0.0)
    line.clock.now += 7.0
    assert (line.heard.age_s, line.heard.silent_s) == (7.0, 0.0)


def test_each_part_of_a_body_is_an_answer(line: Line) -> None:
    line.store.put_if_absent("key", b"bytes")
    line.slow.seen.clear()
    assert line.store.get_into("key", 0, bytearray(5)) == 5
    assert line.slow.seen == [10.0, 10.0], "not 20"


def test_each_object_of_a_list_is_an_answer(line: Line) -> None:
    for key in ("a", "b", "c"):
        line.store.put_if_absent(key, b"bytes")
    line.slow.seen.clear()
    for info in line.store.list(""):
        line.clock.now += 60.0
        assert line.heard.silent_s == 0.0, f"who reads {info.key} takes his time"
    assert line.slow.seen == [10.0, 10.0, 10.0]


def test_what_a_fault_says_is_no_good_answer(line: Line) -> None:
    line.store.put_if_absent("key", b"bytes")
    line.plan.die()
    line.clock.now += 5.0
    with pytest.raises(StoreUnavailable):
        line.store.get("key")
    assert (line.heard.age_s, line.heard.silent_s) == (15.0, 0.0)


@pytest.mark.parametrize("error", [ObjectMissing, ObjectExists])
def test_a_refusal_is_an_answer(line: Line, error: type[LucidError]) -> None:
    line.store.put_if_absent("key", b"bytes")
    line.clock.now += 5.0
    with pytest.raises(error):
        if error is ObjectMissing:
            line.store.get("none")
        else:
            line.store.put_if_absent("key", b"others")
    assert line.heard.age_s == 0.0


def test_another_answer_shortens_the_silence(line: Line) -> None:
    """What hangs beside a store that answers others does not make it silent."""
    with line.heard.asking():
        line.clock.now += 30.0
        assert line.heard.silent_s == 30.0
        line.store.put_if_absent("key", b"bytes")
        line.clock.now += 2.0
        assert line.heard.silent_s == 2.0
    assert line.heard.silent_s == 0.0


def test_the_background_is_heard_too(line: Line) -> None:
    line.store.background().put_if_absent("key", b"bytes")
    assert line.heard.age_s == 0.0
