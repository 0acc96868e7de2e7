"""Locks under leases: what is asked, what is told, and what becomes of them when one is lost."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from lucid.filespace.lock_ranges import TO_THE_END, LockMode, LockRequest
from lucid.filespace.locks import Locks
from lucid.sync.lease_terms import Holder, LeaseMode, NoLeases
from lucid.types import SystemClock

NONE, SHARED, EXCLUSIVE = LockMode
INO = 77


@dataclass
class AskedLease:
    mode: LeaseMode
    waits: bool
    done: Callable[[int], None]
    withdrawn: bool = False

    def withdraw(self) -> None:
        self.withdrawn = True


@dataclass
class ScriptedLeases:
    """Has the lease in mode `has`; whatever is stronger is asked for, and told by the test."""

    has: LeaseMode = LeaseMode.NONE
    asked: list[AskedLease] = field(default_factory=list)
    told: list[LeaseMode] = field(default_factory=list)
    other: Holder | None = None
    on_lost: Callable[[int], None] = lambda ino: None
    before_grant: Callable[[int], bool] = lambda ino: True
    before_give: Callable[[int], None] = lambda ino: None

    def need(
        self, ino: int, mode: LeaseMode, wait: bool, done: Callable[[int], None]
    ) -> AskedLease | None:
        assert ino == INO
        if self.has >= mode:
            return None
        self.asked.append(AskedLease(mode, wait, done))
        return self.asked[-1]

    def used(self, ino: int, mode: LeaseMode) -> None:
        if not self.told or self.told[-1] != mode:
            self.told.append(mode)

    def holder(self, ino: int, mode: LeaseMode) -> Holder | None:
        return self.other

    def give(self, mode: LeaseMode, number: int = -1) -> None:
        self.has = max(self.has, mode)
        self.asked[number].done(0)


class Answers:
    """Takes locks, and keeps what was answered: name -> errno, in the order of the answers."""

    def __init__(self, leases: ScriptedLeases | NoLeases) -> None:
        self.marks: list[tuple[int, bool]] = []
        self.locks = Locks(leases, SystemClock(), mark=lambda *what: self.marks.append(what))
        self.all: list[tuple[str, int]] = []
        self.numbers: dict[str, int] = {}

    def take(
        self, name: str, owner: int, mode: LockMode, *, wait: bool = True, flock: bool = False,
        handle: int = 0, start: int = 0, end: int = TO_THE_END,
    ) -> None:  # fmt: skip
        number = self.numbers[name] = len(self.numbers) + 1
        request = LockRequest(
            number, INO, owner, owner, handle or owner, flock, mode, start, end, wait
        )
        self.locks.take(request, lambda error: self.all.append((name, error)))


@pytest.fixture
def leases() -> ScriptedLeases:
    return ScriptedLeases()


@pytest.fixture
def answers(leases: ScriptedLeases) -> Answers:
    return Answers(leases)


def test_a_lock_waits_for_its_lease(leases: ScriptedLeases, answers: Answers) -> None:
    answers.take("one", 1, SHARED)
    assert answers.all == []
    assert [(one.mode, one.waits) for one in leases.asked] == [(LeaseMode.SHARED, True)]
    leases.give(LeaseMode.SHARED)
    assert answers.all == [("one", 0)]
    assert leases.told[-1] == LeaseMode.SHARED
    answers.take("two", 2, SHARED)
    assert answers.all[-1] == ("two", 0), "under the same lease"
    assert len(leases.asked) == 1


def test_the_lease_grows_with_the_lock(leases: ScriptedLeases, answers: Answers) -> None:
    leases.has = LeaseMode.SHARED
    answers.take("one", 1, SHARED)
    answers.take("more", 1, EXCLUSIVE, start=10, end=20)
    assert answers.all == [("one", 0)]
    leases.give(LeaseMode.EXCLUSIVE)
    assert leases.told[-1] == LeaseMode.EXCLUSIVE
    answers.take("less", 1, SHARED, start=10, end=20)
    assert leases.told[-1] == LeaseMode.SHARED
    answers.take("none", 1, NONE)
    assert leases.told[-1] == LeaseMode.NONE
    assert answers.all == [("one", 0), ("more", 0), ("less", 0), ("none", 0)]
    assert answers.locks.table() == []


def test_the_lease_is_asked_in_the_mode_that_all_locks_need(
    leases: ScriptedLeases, answers: Answers
) -> None:
    leases.has = LeaseMode.EXCLUSIVE
    answers.take("one", 1, EXCLUSIVE, start=0, end=1)
    leases.has = LeaseMode.NONE
    answers.take("two", 2, SHARED, start=5, end=6)
    assert leases.asked[0].mode == LeaseMode.EXCLUSIVE


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOLCK, errno.EDEADLK, errno.EIO])
def test_why_there_is_no_lease_is_passed_on(
    leases: ScriptedLeases, answers: Answers, error: int
) -> None:
    answers.take("one", 1, EXCLUSIVE, wait=False)
    assert leases.asked[0].waits is False
    leases.asked[0].done(error)
    assert answers.all == [("one", error)]
    assert answers.locks.table() == []
    assert answers.marks == []


def test_a_local_lock_comes_before_the_lease(leases: ScriptedLeases, answers: Answers) -> None:
    """While the lease is on its way; and another asks only when nothing here is in its way."""
    answers.take("one", 1, EXCLUSIVE)
    answers.take("two", 2, EXCLUSIVE)
    answers.take("three", 3, EXCLUSIVE, wait=False)
    leases.give(LeaseMode.EXCLUSIVE, 1)
    assert answers.all == [("two", 0)]
    leases.asked[0].done(0)
    leases.asked[2].done(0)
    assert answers.all == [("two", 0), ("three", errno.EAGAIN)]
    answers.take("unlock", 2, NONE)
    assert answers.all[2:] == [("unlock", 0), ("one", 0)]


def test_a_cancelled_wait_withdraws_its_wish(leases: ScriptedLeases, answers: Answers) -> None:
    answers.take("one", 1, EXCLUSIVE)
    assert answers.locks.cancel(answers.numbers["one"])
    assert answers.all == [("one", errno.EINTR)]
    assert leases.asked[0].withdrawn
    leases.give(LeaseMode.EXCLUSIVE)
    assert answers.all == [("one", errno.EINTR)]
    assert leases.told == [LeaseMode.NONE]
    assert not answers.locks.cancel(answers.numbers["one"])


def test_an_interrupt_may_come_before_its_request() -> None:
    answers = Answers(NoLeases())
    assert not answers.locks.cancel(1)
    answers.take("one", 1, EXCLUSIVE)
    answers.take("two", 2, EXCLUSIVE)
    assert answers.all == [("one", errno.EINTR), ("two", 0)]


def test_a_lost_lease_voids_the_locks(leases: ScriptedLeases, answers: Answers) -> None:
    """S-832."""
    lost: list[tuple[int, frozenset[int]]] = []
    answers.locks.on_lost = lambda *what: lost.append(what)
    leases.has = LeaseMode.EXCLUSIVE
    answers.take("one", 1, EXCLUSIVE, handle=10)
    answers.take("two", 2, SHARED, handle=20)
    leases.has = LeaseMode.NONE
    leases.on_lost(INO)
    assert answers.all == [("one", 0), ("two", errno.EIO)]
    assert lost == [(INO, frozenset({10}))]
    assert leases.told[-1] == LeaseMode.NONE
    assert answers.locks.is_lost(10)
    assert not answers.locks.is_lost(20)
    assert answers.marks == [(INO, True), (INO, False)]
    answers.take("again", 1, EXCLUSIVE, handle=10)
    assert answers.all[-1] == ("again", errno.EIO)
    leases.has = LeaseMode.EXCLUSIVE
    answers.take("anew", 1, EXCLUSIVE, handle=11)
    assert answers.all[-1] == ("anew", 0)
    answers.locks.forget_lost(10)
    assert not answers.locks.is_lost(10)


def test_a_wish_under_way_when_the_lease_is_lost(leases: ScriptedLeases, answers: Answers) -> None:
    leases.has = LeaseMode.SHARED
    answers.take("one", 1, SHARED)
    answers.take("two", 1, EXCLUSIVE)
    leases.on_lost(INO)
    assert answers.all == [("one", 0), ("two", errno.EIO)]
    assert leases.asked[0].withdrawn


def test_who_has_it_elsewhere(leases: ScriptedLeases, answers: Answers) -> None:
    """S-823."""
    request = LockRequest(1, INO, 1, 1, 1, False, SHARED, 5, 9, False)
    assert answers.locks.test(request) is None
    leases.other = Holder(3, LeaseMode.EXCLUSIVE, "laptop", 1)
    found = answers.locks.test(request)
    assert found is not None
    assert (found.start, found.end, found.mode, found.pid) == (0, TO_THE_END, EXCLUSIVE, 0)
    leases.other = leases.other._replace(mode=LeaseMode.SHARED)
    found = answers.locks.test(request)
    assert found is not None
    assert found.mode is SHARED


def test_readers_come_in_beside_readers_though_a_writer_waits() -> None:
    """S-826. A process that shares a lock may wait for a child that shares it too."""
    answers = Answers(NoLeases())
    answers.take("parent", 1, SHARED, flock=True)
    answers.take("writer", 2, EXCLUSIVE, flock=True)
    answers.take("child", 3, SHARED, flock=True)
    assert answers.all == [("parent", 0), ("child", 0)]
    answers.locks.drop_handle(INO, 1)
    answers.locks.drop_owner(INO, 3, is_flock=True)
    assert answers.all[-1] == ("writer", 0)


def test_waiters_come_in_their_order() -> None:
    """S-826."""
    answers = Answers(NoLeases())
    answers.take("first", 1, EXCLUSIVE, start=0, end=99)
    for at in range(2, 6):
        answers.take(str(at), at, EXCLUSIVE, start=0, end=9)
    answers.take("beside", 6, EXCLUSIVE, start=50, end=59)
    answers.locks.drop_owner(INO, 1, is_flock=False)
    assert answers.all == [("first", 0), ("2", 0), ("beside", 0)]
    for at in range(2, 6):
        answers.locks.drop_owner(INO, at, is_flock=False)
    assert [name for name, _ in answers.all] == ["first", "2", "beside", "3", "4", "5"]


def test_a_conversion_gives_up_what_it_had() -> None:
    """S-825."""
    answers = Answers(NoLeases())
    for owner in (1, 2):
        answers.take(f"shared {owner}", owner, SHARED, flock=True)
    answers.take("one up", 1, EXCLUSIVE, flock=True)
    answers.take("two up", 2, EXCLUSIVE, flock=True)
    assert answers.all[2:] == [("one up", 0)], "two gave up what stood in one's way, and waits"
    answers.take("the same", 1, EXCLUSIVE, flock=True)
    assert answers.all[-1] == ("the same", 0)
    answers.take("refused", 3, SHARED, flock=True, wait=False)
    answers.take("unlock", 1, NONE, flock=True)
    assert answers.all[-3:] == [("refused", errno.EAGAIN), ("unlock", 0), ("two up", 0)]


def test_a_circle_of_ranges_is_refused() -> None:
    """S-829."""
    answers = Answers(NoLeases())
    answers.take("a", 1, EXCLUSIVE, start=0, end=0)
    answers.take("b", 2, EXCLUSIVE, start=1, end=1)
    answers.take("a waits", 1, EXCLUSIVE, start=1, end=1)
    answers.take("b too", 2, EXCLUSIVE, start=0, end=0)
    assert answers.all == [("a", 0), ("b", 0), ("b too", errno.EDEADLK)]


def test_the_end_answers_who_waits(leases: ScriptedLeases, answers: Answers) -> None:
    leases.has = LeaseMode.EXCLUSIVE
    answers.take("one", 1, EXCLUSIVE)
    answers.take("two", 2, EXCLUSIVE)
    answers.locks.end()
    answers.take("three", 3, EXCLUSIVE)
    assert answers.all == [("one", 0), ("two", errno.EIO), ("three", errno.EIO)]
    assert answers.locks.table() == []
    assert leases.told[-1] == LeaseMode.NONE


def test_what_is_shown(leases: ScriptedLeases, answers: Answers) -> None:
    leases.has = LeaseMode.EXCLUSIVE
    answers.take("one", 1, SHARED, start=4, end=7)
    answers.take("two", 2, EXCLUSIVE)
    held, waiting = answers.locks.table()
    assert (held.ino, held.is_flock, held.start, held.end) == (INO, False, 4, 7)
    assert (held.mode, held.pid, held.waits) == (SHARED, 1, False)
    assert (waiting.mode, waiting.pid, waiting.waits) == (EXCLUSIVE, 2, True)
    assert 0 < held.since_ns <= waiting.since_ns
