"""What is done about once a day: when, and how it ends."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from lucid.errors import CorruptObject, Stopped
from lucid.store.memory import MemoryStore
from lucid.store.paced import DELETED, LISTED, PacedStore
from lucid.sync.daily import AROUND, DAY_S, FIRST_S, Daily

WAIT_S = 20.0


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.monotonic_s = 100.0
        self.wall_ns = 10**18

    def monotonic(self) -> float:
        return self.monotonic_s

    def time_ns(self) -> int:
        return self.wall_ns


class Bench:
    """A Daily whose work is told here."""

    def __init__(self) -> None:
        self.clock = Hands()
        self.runs = 0
        self.work: Callable[[], bool] = lambda: True
        self.daily = Daily(self._work, self.clock, random.Random(1))
        self.daily.start()

    def _work(self) -> bool:
        self.runs += 1
        return self.work()

    def after(self, seconds: float) -> int:
        """How often it has worked when so much more has passed."""
        self.clock.monotonic_s += seconds
        assert self.daily.look(WAIT_S)
        return self.runs


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.daily.close()


def test_in_the_first_hour_and_then_once_a_day(bench: Bench) -> None:
    assert bench.after(FIRST_S[0] - 1) == 0
    assert bench.after(FIRST_S[1] - FIRST_S[0] + 1) == 1
    for day in range(1, 5):
        assert bench.after(DAY_S * (1 - AROUND) - 1) == day
        assert bench.after(DAY_S * 2 * AROUND + 1) == day + 1


def test_a_machine_that_slept_has_aged_too(bench: Bench) -> None:
    bench.clock.wall_ns += int(FIRST_S[1] * 1e9) + 1
    assert bench.after(0) == 1


def test_what_cannot_be_done_is_tried_again_within_the_hour(bench: Bench) -> None:
    bench.work = lambda: False
    assert bench.after(FIRST_S[1]) == 1
    assert bench.after(FIRST_S[0] - 1) == 1
    assert bench.after(FIRST_S[1] - FIRST_S[0] + 1) == 2


@pytest.mark.parametrize("error", [CorruptObject("It is odd."), RuntimeError("It is odd.")])
def test_an_error_ends_nothing(bench: Bench, error: Exception) -> None:
    def fail() -> bool:
        raise error

    bench.work = fail
    assert bench.after(FIRST_S[1]) == 1
    assert "It is odd." in bench.daily.problem
    bench.work = lambda: True
    assert bench.after(DAY_S / 2) == 1
    assert "It is odd." in bench.daily.problem
    assert bench.after(DAY_S) == 2
    assert bench.daily.problem == ""


def test_work_ends_at_its_next_rest() -> None:
    """Also where it asks nothing of the store."""
    bench, working = Bench(), threading.Event()

    def compute() -> bool:
        while True:
            working.set()
            bench.daily.rest()

    bench.work = compute
    bench.clock.monotonic_s += FIRST_S[1]
    looking = threading.Thread(target=bench.daily.look, args=(WAIT_S,), name="lucid-test-look")
    looking.start()
    assert working.wait(WAIT_S)
    bench.daily.stop()
    looking.join(WAIT_S)
    bench.daily.close()
    assert not looking.is_alive()
    assert bench.daily.problem == "" and bench.daily.is_stopping()
    assert not bench.daily.look(WAIT_S)


def test_one_that_never_began_is_closed_too() -> None:
    woken: list[None] = []
    daily = Daily(lambda: True, Hands(), random.Random(1), lambda: woken.append(None))
    daily.close()
    assert woken


def test_a_paced_store_rests_before_each_request() -> None:
    plain, rests = MemoryStore(), 0

    def rest() -> None:
        nonlocal rests
        rests += 1
        if rests > 100:
            raise Stopped("Enough.")

    for number in range(2 * LISTED):
        plain.put_if_absent(f"data/{number:04}", b"one")
    store = PacedStore(plain, rest)
    buffer = bytearray(3)
    requests: list[Callable[[], object]] = [
        lambda: store.get("data/0000"),
        lambda: store.get_into("data/0000", 0, buffer),
        lambda: store.put_if_absent("data/0000", b"one"),
        lambda: store.stat("data/0000"),
        store.date_ns,
        lambda: store.background().get("data/0000"),
    ]
    for number, request in enumerate(requests, 1):
        request()
        assert rests == number
    rests = 0
    keys = [info.key for info in store.list("data/")]
    assert (len(keys), rests) == (2 * LISTED, 3)
    rests = 0
    store.delete(keys)
    assert rests == 2 * LISTED // DELETED
    assert not list(plain.list("data/"))
    rests = 100
    with pytest.raises(Stopped):
        store.get("data/0000")
