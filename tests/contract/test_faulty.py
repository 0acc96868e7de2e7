"""The faults on purpose: each does what it says, when the plan says so."""

from __future__ import annotations

import random
import threading

import pytest

from lucid.errors import (
    ObjectExists,
    ObjectMissing,
    SlowDown,
    Stopped,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from lucid.store.faulty import Fault, FaultPlan, FaultyStore
from lucid.store.memory import Bucket, MemoryStore
from lucid.store.retry import RetryPolicy, RetryStore

BODY = bytes(range(100))


@pytest.fixture
def faulty() -> FaultyStore:
    store = FaultyStore(MemoryStore())
    store.put_if_absent("a", BODY)
    return store


def test_refused_and_busy_do_nothing(faulty: FaultyStore) -> None:
    faulty.plan.script("put", [Fault.REFUSE, Fault.BUSY])
    with pytest.raises(SlowDown):
        faulty.put_if_absent("b", BODY)
    with pytest.raises(StoreConflict):
        faulty.put_if_absent("b", BODY)
    with pytest.raises(ObjectMissing):
        faulty.get("b")


def test_lost_answers_do_it_all_the_same(faulty: FaultyStore) -> None:
    faulty.plan.script("put", [Fault.LOSE_ANSWER])
    faulty.plan.script("delete", [Fault.LOSE_ANSWER])
    with pytest.raises(StoreUnavailable):
        faulty.put_if_absent("b", BODY)
    assert faulty.get("b") == BODY
    with pytest.raises(StoreUnavailable):
        faulty.delete(["b"])
    with pytest.raises(ObjectMissing):
        faulty.get("b")


def test_spoiled_bodies(faulty: FaultyStore) -> None:
    faulty.plan.script("get", [Fault.TRUNCATE, Fault.WRONG_BYTES] * 2)
    assert faulty.get("a") == BODY[:50]
    wrong = faulty.get("a")
    assert len(wrong) == 100
    assert [at for at in range(100) if wrong[at] != BODY[at]] == [50]
    buffer = bytearray(100)
    assert faulty.get_into("a", 0, buffer) == 50
    assert faulty.get_into("a", 0, buffer) == 100
    assert buffer == wrong
    assert faulty.get("a") == BODY


def test_reset_tells_what_came_before(faulty: FaultyStore) -> None:
    faulty.plan.script("get", [Fault.RESET])
    buffer, told = bytearray(100), list[int]()
    with pytest.raises(StoreUnavailable):
        faulty.get_into("a", 0, buffer, told.append)
    assert told == [50]
    assert buffer[:50] == BODY[:50]


def test_vanish_and_stale_list(faulty: FaultyStore) -> None:
    faulty.plan.script("get", [Fault.VANISH])
    faulty.plan.script("stat", [Fault.VANISH])
    faulty.plan.script("list", [Fault.STALE_LIST])
    with pytest.raises(ObjectMissing):
        faulty.get("a")
    with pytest.raises(ObjectMissing):
        faulty.stat("a")
    faulty.put_if_absent("b", BODY)
    assert [info.key for info in faulty.list("")] == ["a"]
    assert [info.key for info in faulty.list("")] == ["a", "b"]


def test_a_script_may_be_for_some_keys(faulty: FaultyStore) -> None:
    faulty.put_if_absent("log/1", BODY)
    faulty.plan.script("get", [None, Fault.REFUSE], prefix="log/")
    assert faulty.get("a") == BODY
    assert faulty.get("log/1") == BODY
    assert faulty.get("a") == BODY
    with pytest.raises(SlowDown):
        faulty.get("log/1")
    assert faulty.plan.happened == [("get", "log/1", Fault.REFUSE)]


def test_dead_and_alive_again(faulty: FaultyStore) -> None:
    faulty.plan.die()
    for ask in (lambda: faulty.get("a"), lambda: faulty.list(""), faulty.check, faulty.date_ns):
        with pytest.raises(StoreUnavailable):
            ask()
    faulty.plan.revive()
    assert faulty.get("a") == BODY


@pytest.mark.parametrize(
    ("fault", "end", "expected"),
    [
        (Fault.HANG, "release", StoreUnavailable),
        (Fault.PAUSE, "release", None),
        (Fault.HANG, "close", Stopped),
        (Fault.PAUSE, "close", Stopped),
    ],
)
def test_hanging(
    faulty: FaultyStore, fault: Fault, end: str, expected: type[BaseException] | None
) -> None:
    faulty.plan.script("get", [fault])
    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(faulty.get("a"))
        except (StoreError, Stopped) as error:
            outcome.append(type(error))

    thread = threading.Thread(target=read)
    thread.start()
    assert faulty.plan.hanging.acquire(timeout=10)
    assert outcome == []
    if end == "release":
        faulty.plan.release()
    else:
        faulty.close()
    thread.join(10)
    assert outcome == [BODY if expected is None else expected]


def test_a_seed_gives_the_same_faults_again() -> None:
    def run(seed: int) -> list[tuple[str, str, Fault]]:
        rates = {Fault.REFUSE: 0.2, Fault.LOSE_ANSWER: 0.3}
        plan = FaultPlan(entropy=random.Random(seed).randbytes, rates=rates)
        store = FaultyStore(MemoryStore(), plan)
        for at in range(100):
            try:
                store.put_if_absent(f"log/{at}", BODY)
            except StoreUnavailable:
                continue
        return plan.happened

    assert run(1) == run(1) != run(2)
    assert 30 < len(run(1)) < 70


def test_the_background_view_has_the_same_plan(faulty: FaultyStore) -> None:
    faulty.plan.script("get", [Fault.REFUSE])
    with pytest.raises(SlowDown):
        faulty.background().get("a")


@pytest.mark.parametrize("seed", range(5))
def test_whatever_fails_every_entry_is_in_the_log_once(seed: int) -> None:
    """Three writers append to one log by put_if_absent; what is acknowledged is there, once."""
    bucket = Bucket()
    rates = {Fault.REFUSE: 0.1, Fault.LOSE_ANSWER: 0.2, Fault.BUSY: 0.1, Fault.RESET: 0.1}
    acknowledged: list[tuple[int, bytes]] = []

    def write(name: int) -> None:
        plan = FaultPlan(entropy=random.Random(seed * 10 + name).randbytes, rates=rates)
        policy = RetryPolicy(attempts=40, deadline_s=60.0, wait=lambda _seconds: False)
        store = RetryStore(FaultyStore(MemoryStore(bucket), plan), policy)
        sequence = 1
        for number in range(25):
            body = b"writer %d entry %d" % (name, number)
            while True:
                try:
                    store.put_if_absent(f"log/{sequence:016x}", body)
                except ObjectExists:
                    sequence += 1
                    continue
                acknowledged.append((sequence, body))
                break

    threads = [threading.Thread(target=write, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    reader = MemoryStore(bucket)
    log = [reader.get(info.key) for info in reader.list("log/")]
    assert len(log) == len(set(log)) == 75
    assert sorted(acknowledged) == [(at + 1, body) for at, body in enumerate(log)]
