"""The decorators: what is tried again and when, who gets a place, what is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from lucid.errors import (
    ObjectExists,
    ObjectMissing,
    SlowDown,
    Stopped,
    StoreDenied,
    StoreUnavailable,
)
from lucid.store import ObjectStore
from lucid.store.faulty import Fault, FaultPlan, FaultyStore
from lucid.store.limit import LimitStore, Places
from lucid.store.memory import Bucket, MemoryStore
from lucid.store.retry import RetryPolicy, RetryStore
from lucid.store.stack import stack_store
from lucid.store.trace import Call, TraceStore

BODY = bytes(range(200))


class HandClock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


class Bench:
    """A retrying store over a faulty one; its pauses are noted and take no time."""

    def __init__(self, **policy: object) -> None:
        self.clock = HandClock()
        self.pauses: list[float] = []
        self.memory = MemoryStore()
        self.plan = FaultPlan()
        self.policy = RetryPolicy(
            clock=self.clock,
            entropy=lambda size: b"\xff" * size,
            wait=self.wait,
            **policy,  # type: ignore[arg-type]
        )
        self.store = RetryStore(FaultyStore(self.memory, self.plan), self.policy)

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.clock.now += seconds
        return False


def test_pauses_double_up_to_the_cap() -> None:
    bench = Bench(base_s=0.1, cap_s=1.0, attempts=7)
    bench.memory.put_if_absent("a", BODY)
    bench.plan.script("get", [Fault.RESET] * 6)
    assert bench.store.get("a") == BODY
    assert bench.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0], rel=1e-6)


def test_pauses_are_random_parts() -> None:
    drawn = iter([b"\0\0\0\0", b"\x80\0\0\0", b"\x40\0\0\0"])
    policy = RetryPolicy(base_s=1.0, cap_s=100.0, entropy=lambda _size: next(drawn))
    fault = StoreUnavailable()
    assert [policy.pause_s(attempt, fault) for attempt in range(3)] == [0.0, 1.0, 1.0]


def test_slow_down_waits_longer() -> None:
    policy = RetryPolicy(base_s=0.1, cap_s=5.0, entropy=lambda size: b"\xff" * size)
    assert policy.pause_s(0, SlowDown()) == pytest.approx(0.4, rel=1e-6)
    assert policy.pause_s(500, SlowDown()) == pytest.approx(5.0, rel=1e-6)


def test_attempts_are_bounded() -> None:
    bench = Bench(attempts=3)
    bench.plan.script("stat", [Fault.LOSE_ANSWER] * 5)
    with pytest.raises(StoreUnavailable):
        bench.store.stat("a")
    assert len(bench.plan.happened) == 3


def test_no_attempt_begins_after_the_deadline() -> None:
    bench = Bench(attempts=100, base_s=4.0, cap_s=4.0, deadline_s=10.0)
    bench.plan.die()
    begun = bench.clock.now
    with pytest.raises(StoreUnavailable):
        bench.store.get("a")
    assert bench.clock.now - begun <= 10.0
    assert len(bench.pauses) == 2


def test_what_cannot_pass_is_not_tried_again() -> None:
    bench = Bench()
    bench.memory.put_if_absent("a", BODY)
    with pytest.raises(ObjectMissing):
        bench.store.get("b")
    with pytest.raises(ObjectExists):
        bench.store.put_if_absent("a", b"other")
    bench.memory.close()
    with pytest.raises(Stopped):
        bench.store.get("a")
    assert bench.pauses == []


def test_a_put_whose_answer_was_lost_has_won() -> None:
    bench = Bench()
    bench.plan.script("put", [Fault.LOSE_ANSWER, Fault.BUSY, Fault.REFUSE])
    bench.store.put_if_absent("log/1", BODY)
    assert bench.memory.get("log/1") == BODY
    assert bench.memory.counters.of("put").requests == 2


def test_a_put_whose_answer_was_lost_does_not_win_over_others() -> None:
    bench = Bench()
    bench.memory.put_if_absent("log/1", b"theirs")
    bench.plan.script("put", [Fault.REFUSE])
    with pytest.raises(ObjectExists):
        bench.store.put_if_absent("log/1", BODY)


def test_a_read_goes_on_where_it_was_cut() -> None:
    bench = Bench()
    bench.memory.put_if_absent("a", BODY)
    bench.plan.script("get", [Fault.RESET, Fault.RESET])
    buffer, told = bytearray(200), list[int]()
    assert bench.store.get_into("a", 0, buffer, told.append) == 200
    assert buffer == BODY
    assert told == [100, 150, 200]
    assert bench.memory.counters.of("get").received == 200 + 100 + 50


def test_a_list_goes_on_where_it_was_cut() -> None:
    class Breaking(MemoryStore):
        def list(self, prefix: str, start_after: str = "", limit: int | None = None):  # type: ignore[no-untyped-def]
            for at, info in enumerate(super().list(prefix, start_after, limit)):
                if at == 2:
                    raise StoreUnavailable("cut")
                yield info

    store = Breaking()
    for at in range(7):
        store.put_if_absent(f"log/{at}", b"x")
    retrying = RetryStore(store, RetryPolicy(attempts=2, wait=lambda _seconds: False))
    assert [info.key for info in retrying.list("log/")] == [f"log/{at}" for at in range(7)]
    assert [info.key for info in retrying.list("log/", "log/1", 3)] == ["log/2", "log/3", "log/4"]


def test_stop_ends_a_pause() -> None:
    stop = threading.Event()
    inner = FaultyStore(MemoryStore())
    inner.plan.die()
    full = RetryPolicy(base_s=50.0, cap_s=50.0, deadline_s=500.0, stop=stop)
    store = RetryStore(inner, full)
    outcome: list[BaseException] = []
    thread = threading.Thread(target=lambda: outcome.append(_error(lambda: store.get("a"))))
    thread.start()
    store.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(outcome[0], Stopped)
    assert stop.is_set()


def _error(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class Gate(FaultyStore):
    """Each get waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), FaultPlan())
        self.inner.put_if_absent("a", BODY)
        self.plan.script("get", [Fault.PAUSE] * 100)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.plan.hanging.acquire(timeout=10)


def _start(jobs: list[Callable[[], object]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_at_most_so_many_at_once() -> None:
    gate = Gate()
    places = Places(3, 0)
    store = LimitStore(gate, places)
    threads = _start([lambda: store.get("a")] * 7)
    gate.wait_for(3)
    assert not gate.plan.hanging.acquire(timeout=0.05)
    assert places.used == 3
    gate.plan.release()
    _join(threads)
    assert places.used == 0


def test_demand_reads_find_their_reserved_places() -> None:
    gate = Gate()
    places = Places(4, 2)
    store = LimitStore(gate, places)
    background = store.background()
    threads = _start([lambda: background.get("a")] * 5)
    gate.wait_for(2)
    assert not gate.plan.hanging.acquire(timeout=0.05)
    threads += _start([lambda: store.get("a")] * 2)
    gate.wait_for(2)
    assert places.used == 4
    gate.plan.release()
    _join(threads)
    assert gate.inner.counters.of("get").requests == 7


def test_a_free_place_goes_to_demand_first() -> None:
    places = Places(2, 1)
    places.take(is_demand=True)
    places.take(is_demand=True)
    order: list[str] = []

    def enter(name: str, is_demand: bool) -> None:
        places.take(is_demand=is_demand)
        order.append(name)
        places.give()

    first = _start([lambda: enter("background", False)])
    second = _start([lambda: enter("demand", True)])
    deadline = time.monotonic() + 10
    while places._demand_waiting < 1 and time.monotonic() < deadline:
        threading.Event().wait(0.002)
    places.give()
    _join(second)
    places.give()
    _join(first)
    assert order == ["demand", "background"]


def test_a_wait_for_a_place_is_bounded() -> None:
    places = Places(1, 0, wait_s=0.02)
    store = LimitStore(MemoryStore(), places)
    places.take(is_demand=True)
    for ask in (store, store.background()):
        with pytest.raises(StoreUnavailable, match="busy") as caught:
            ask.get("a")
        assert caught.value.retryable
    places.give()
    with pytest.raises(ObjectMissing):
        store.get("a")
    assert places.used == 0


def test_close_ends_waits_for_a_place() -> None:
    places = Places(1, 0, wait_s=60)
    store = LimitStore(MemoryStore(), places)
    places.take(is_demand=True)
    outcome: list[BaseException] = []
    threads = _start(
        [
            lambda: outcome.append(_error(lambda: store.get("a"))),
            lambda: outcome.append(_error(lambda: store.background().get("a"))),
        ]
    )
    store.close()
    _join(threads)
    assert [type(error) for error in outcome] == [Stopped, Stopped]


def test_a_list_holds_no_place_while_its_reader_works() -> None:
    memory = MemoryStore()
    for at in range(3):
        memory.put_if_absent(f"log/{at}", b"x")
    places = Places(1, 0, wait_s=0.01)
    store = LimitStore(memory, places)
    for info in store.list("log/"):
        assert store.get(info.key) == b"x"
    assert places.used == 0


def test_impossible_places() -> None:
    for total, reserved in ((0, 0), (1, 1), (2, -1)):
        with pytest.raises(ValueError, match="background"):
            Places(total, reserved)


def test_calls_are_measured() -> None:
    clock = HandClock()
    plan = FaultPlan()
    calls: list[Call] = []

    class Slow(FaultyStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            clock.now += 0.004
            return super().get(key, start, length)

    store = TraceStore(Slow(MemoryStore(), plan), clock=clock, on_call=calls.append)
    store.put_if_absent("a", [BODY, BODY])
    assert store.get("a", 10, 20) == BODY[10:30]
    plan.script("get", [Fault.REFUSE])
    with pytest.raises(SlowDown):
        store.get("a")
    assert [info.key for info in store.list("")] == ["a"]
    assert [(call.method, call.key, call.size, call.error) for call in calls] == [
        ("put", "a", 400, None),
        ("get", "a", 20, None),
        ("get", "a", 0, "SlowDown"),
        ("list", "", 0, None),
    ]
    figures = store.figures.snapshot()["get"]
    assert (figures.calls, figures.errors, figures.bytes) == (2, 1, 20)
    assert figures.seconds == pytest.approx(0.008)
    assert figures.seconds_max == pytest.approx(0.004)
    assert sum(figures.buckets) == 2
    assert store.background() is store


def test_the_stack_shares_its_parts_with_its_background_view() -> None:
    calls: list[Call] = []
    store = stack_store(MemoryStore(Bucket()), on_call=calls.append)
    background = store.background()
    assert isinstance(store, RetryStore)
    assert isinstance(background, RetryStore)
    assert background is not store
    assert background.policy is store.policy
    assert _places_of(background) is _places_of(store)
    background.put_if_absent("a", BODY)
    assert [call.method for call in calls] == ["put"]
    store.close()


def _places_of(store: RetryStore) -> Places:
    assert isinstance(store.inner, LimitStore)
    return store.inner.places


def test_denied_is_told_at_once() -> None:
    class Denying(MemoryStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            raise StoreDenied("no")

    bench = Bench()
    store: ObjectStore = RetryStore(Denying(), bench.policy)
    with pytest.raises(StoreDenied):
        store.get("a")
    assert bench.pauses == []
