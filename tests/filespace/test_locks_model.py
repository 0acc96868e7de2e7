"""Locks under leases, whatever happens in whatever order: each request has one answer, no two locks
stand against each other, none is without its lease, and nobody waits for nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.filespace.lock_ranges import LockMode, LockRequest
from lucid.filespace.locks import LockRow, Locks
from lucid.sync.lease_terms import Holder, LeaseMode
from lucid.types import SystemClock

INO = 5
REFUSALS = (errno.EAGAIN, errno.ENOLCK, errno.EDEADLK, errno.EIO)


@dataclass(eq=False)
class Asked:
    mode: LeaseMode
    done: Callable[[int], None]
    withdrawn: bool = False

    def withdraw(self) -> None:
        self.withdrawn = True


@dataclass
class Leases:
    """One lease, which comes and goes as the test says."""

    has: LeaseMode = LeaseMode.NONE
    in_use: LeaseMode = LeaseMode.NONE
    asked: list[Asked] = field(default_factory=list)
    late: list[Asked] = field(default_factory=list)
    """Withdrawn, but their answer was under way."""
    on_lost: Callable[[int], None] = lambda ino: None
    before_grant: Callable[[int], bool] = lambda ino: True
    before_give: Callable[[int], None] = lambda ino: None

    def need(
        self, ino: int, mode: LeaseMode, wait: bool, done: Callable[[int], None]
    ) -> Asked | None:
        if self.has >= mode:
            self.in_use = max(self.in_use, mode)
            return None
        self.asked.append(Asked(mode, done))
        return self.asked[-1]

    def used(self, ino: int, mode: LeaseMode) -> None:
        self.in_use = mode

    def holder(self, ino: int, mode: LeaseMode) -> Holder | None:
        return None


class World:
    def __init__(self) -> None:
        self.leases = Leases()
        self.marks: list[bool] = []
        self.locks = Locks(
            self.leases, SystemClock(), mark=lambda ino, locked: self.marks.append(locked)
        )
        self.answers: dict[int, int] = {}
        self.requests: list[LockRequest] = []

    def take(
        self, owner: int, mode: LockMode, start: int, length: int, is_flock: bool, waits: bool
    ) -> None:
        request = LockRequest(
            len(self.requests), INO, owner, owner, owner, is_flock, mode, start, start + length,
            waits,
        )  # fmt: skip
        self.requests.append(request)

        def answer(error: int) -> None:
            assert request.number not in self.answers, "answered twice"
            self.answers[request.number] = error

        self.locks.take(request, answer)

    def lease(self, event: str, which: int) -> None:
        """The lease comes, is refused, is given back because nobody uses it, or is lost."""
        asked = [one for one in self.leases.asked if not one.withdrawn]
        if event == "unused" and self.leases.in_use is LeaseMode.NONE:
            self.leases.has = LeaseMode.NONE
        elif event == "lost":
            self.leases.has = LeaseMode.NONE
            self.leases.on_lost(INO)
        elif event in ("given", "refused") and asked:
            one = asked[which % len(asked)]
            self.leases.asked.remove(one)
            if event == "given":
                self.leases.has = max(self.leases.has, one.mode)
                self.leases.in_use = max(self.leases.in_use, one.mode)
            one.done(0 if event == "given" else REFUSALS[which % len(REFUSALS)])
        elif event == "too late":
            withdrawn = [one for one in self.leases.asked if one.withdrawn]
            for one in withdrawn[:1]:
                self.leases.asked.remove(one)
                self.leases.has = max(self.leases.has, one.mode)
                one.done(0)

    def cancel(self, which: int) -> None:
        waiting = [one.number for one in self.requests if one.number not in self.answers]
        if waiting:
            number = waiting[which % len(waiting)]
            assert self.locks.cancel(number)
            assert self.answers[number] == errno.EINTR

    def check(self) -> None:
        rows = self.locks.table()
        held = [row for row in rows if not row.waits]
        waiting = [row for row in rows if row.waits]
        for at, one in enumerate(held):
            assert not any(stand_against(one, other) for other in held[:at])
        assert len(self.requests) == len(self.answers) + len(waiting)
        strongest = max((row.mode for row in held), default=LockMode.NONE)
        assert self.leases.in_use == strongest
        assert self.leases.has >= strongest
        live = sum(not one.withdrawn for one in self.leases.asked)
        blocked = sum(any(stand_against(row, other) for other in held) for row in waiting)
        assert live <= len(waiting), "a wish outlives its wait"
        assert len(waiting) - live <= blocked, "one waits for nothing"
        assert (self.marks[-1] if self.marks else False) == bool(held)


def stand_against(one: LockRow, other: LockRow) -> bool:
    return (
        one.is_flock == other.is_flock
        and one.pid != other.pid
        and LockMode.EXCLUSIVE in (one.mode, other.mode)
        and (one.is_flock or (one.start <= other.end and other.start <= one.end))
    )


OWNERS = st.integers(1, 4)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("take"), OWNERS, st.sampled_from(LockMode), st.integers(0, 6),
            st.integers(0, 4), st.booleans(), st.booleans(),
        ),
        st.tuples(
            st.just("lease"),
            st.sampled_from(["given", "given", "refused", "unused", "lost", "too late"]),
            st.integers(0, 9),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("closed"), OWNERS, st.booleans()),
        st.tuples(st.just("released"), OWNERS),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=300)
@given(steps)
def test_whatever_happens(taken: list[tuple[object, ...]]) -> None:
    world = World()
    for kind, *rest in taken:
        if kind == "closed":
            world.locks.drop_owner(INO, *rest)
        elif kind == "released":
            (handle,) = rest
            world.locks.drop_handle(INO, handle)
            world.locks.forget_lost(handle)
        else:
            getattr(world, str(kind))(*rest)
        world.check()
    world.locks.end()
    assert len(world.answers) == len(world.requests)
    assert world.locks.table() == []
    assert world.leases.in_use is LeaseMode.NONE
