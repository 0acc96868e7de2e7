"""The order of own ops: what may be taken, what is held back, what settles (S-34)."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from lucid.errors import DiskFull, Stopped, StoreUnavailable
from lucid.format.journal import Failed, OpRecord, Settled
from lucid.format.ops import Mkdir, Op
from lucid.meta.fold_effect import Effect, Status
from lucid.sync.order import GATHER_OPS, GATHER_S, QUIET_S, Order

WAIT_S = 30.0
MANY = 10_000
LARGE = 1 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


class Book:
    """A journal that keeps everything."""

    def __init__(self) -> None:
        self.records: list[object] = []
        self.released: list[object] = []
        self.full = False

    def append(
        self, record: object, *, removal: bool = False, replaces: Iterable[object] = ()
    ) -> object:
        if self.full:
            raise DiskFull
        self.records.append(record)
        self.release(replaces)
        return record

    note = append

    def release(self, lives: Iterable[object]) -> None:
        self.released.extend(lives)


class Staged:
    """Segments, and which of them the store has."""

    def __init__(self) -> None:
        self.in_store: set[bytes] = set()
        self.retained: list[bytes] = []

    def rows(self, names: Iterable[bytes]) -> list[object]:
        return []

    def retain(self, names: Iterable[bytes]) -> None:
        self.retained.extend(names)

    def are_uploaded(self, names: Iterable[bytes]) -> bool:
        return set(names) <= self.in_store


class Desk:
    """An order over pretended rooms."""

    def __init__(self) -> None:
        self.clock, self.book, self.staged = Clock(), Book(), Staged()
        self.applied: list[tuple[int, int]] = []
        self.known: set[int] = set()
        self.fault: Exception | None = None
        self.order = Order(
            self.book, self.staged, self.clock, self.apply,  # type: ignore[arg-type]
            lambda op_id: op_id not in self.known,
        )  # fmt: skip
        self.made = 0

    def apply(self, position: int, op: Op, rows: object) -> Effect:
        if self.fault is not None:
            raise self.fault
        self.applied.append((position, op.op_id))  # type: ignore[union-attr]
        return Effect(Status.APPLIED, (), (), 0)

    def place(self, *segments: bytes) -> int:
        """Place an op; its id."""
        self.made += 1
        op = Mkdir(self.made, 0, 1, b"n%d" % self.made, 0o40755, 0, 0, ())
        with self.order.lock:
            self.order.place(op, segments)
        return self.made

    def take(self, ops: int = MANY, size: int = LARGE) -> list[int]:
        return [placed.op.op_id for placed in self.order.take(ops, size)]  # type: ignore[union-attr]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_ops_are_journaled_then_applied_then_taken_in_order(desk: Desk) -> None:
    made = [desk.place() for _ in range(3)]
    assert [r.position for r in desk.book.records if isinstance(r, OpRecord)] == [1, 2, 3]
    assert desk.applied == [(1, 1), (2, 2), (3, 3)]
    assert desk.take() == made
    assert desk.take() == made, "taking changes nothing"
    assert desk.order.pending == 3
    assert desk.order.last == 3


def test_a_journal_that_takes_nothing_changes_nothing(desk: Desk) -> None:
    desk.book.full = True
    with pytest.raises(DiskFull):
        desk.place()
    desk.book.full = False
    assert not desk.applied
    assert not desk.order.pending
    assert desk.take() == []
    desk.place()
    assert desk.applied == [(1, 2)]


def test_an_op_that_cannot_be_applied_is_taken_back_from_the_journal(desk: Desk) -> None:
    desk.fault = ValueError("impossible")
    with pytest.raises(ValueError, match="impossible"):
        desk.place()
    assert isinstance(desk.book.records[-1], Failed)
    assert desk.book.records[-1].position == 1
    assert len(desk.book.released) == 1
    assert not desk.order.pending


def test_an_op_that_the_log_has_already_is_forgotten(desk: Desk) -> None:
    desk.known.add(1)
    desk.place(b"segment")
    assert not desk.order.pending
    assert len(desk.book.released) == 1
    assert desk.staged.retained == []


def test_a_prefix_is_taken_up_to_what_is_not_uploaded(desk: Desk) -> None:
    desk.place()
    desk.place(b"a")
    desk.place()
    desk.place(b"b")
    assert desk.take() == [1]
    desk.staged.in_store.add(b"b")
    assert desk.take() == [1], "what comes later does not overtake"
    desk.staged.in_store.add(b"a")
    assert desk.take() == [1, 2, 3, 4]
    assert desk.order.waiting_segments(MANY) == [b"a", b"b"]


def test_an_entry_has_its_limits(desk: Desk) -> None:
    for _ in range(10):
        desk.place()
    assert desk.take(ops=4) == [1, 2, 3, 4]
    assert 0 < len(desk.take(size=500)) < 10
    assert desk.take(size=1) == [1], "one op goes, however large"


def test_settling_forgets_and_says_so_in_the_journal(desk: Desk) -> None:
    for _ in range(5):
        desk.place()
    done = desk.order.settle(3)
    assert [placed.position for placed in done] == [1, 2, 3]
    assert isinstance(desk.book.records[-1], Settled)
    assert desk.book.records[-1].position == 3
    assert len(desk.book.released) == 3
    assert desk.take() == [4, 5]
    assert desk.order.settle(3) == []
    assert desk.order.op_ids() == {4: 4, 5: 5}


def test_a_hold_keeps_later_ops_until_it_is_released(desk: Desk) -> None:
    desk.place()
    hold = desk.order.hold(1.0)
    desk.place()
    desk.place()
    assert desk.take() == [1]
    desk.place()
    desk.order.release_hold(hold, placed=True)
    assert desk.take() == [1, 2, 3, 4]
    assert desk.take(ops=3) == [1], "what was held back goes together"
    desk.order.settle(1)
    assert desk.take() == [2, 3, 4]
    assert desk.take(ops=2) == [2, 3], "more than an entry holds: then it goes in two"


def test_a_hold_that_nothing_was_placed_for_is_simply_over(desk: Desk) -> None:
    hold = desk.order.hold(1.0)
    desk.place()
    assert desk.take() == []
    assert desk.order.is_held(hold)
    desk.order.release_hold(hold, placed=False)
    assert desk.take() == [1]
    assert not desk.order.is_held(hold)
    desk.order.release_hold(hold, placed=True)


def test_a_hold_ends_by_itself(desk: Desk) -> None:
    hold = desk.order.hold(0.02)
    desk.place()
    assert desk.take() == []
    assert desk.order.hold_ends() == pytest.approx(desk.clock.now + 0.02)
    desk.clock.now += 0.03
    assert not desk.order.is_held(hold)
    assert desk.take() == [1]


def test_a_hold_without_an_end_waits(desk: Desk) -> None:
    hold = desk.order.hold(None)
    desk.place()
    desk.clock.now += 1e6
    assert desk.take() == []
    assert desk.order.hold_ends() is None
    desk.order.release_hold(hold, placed=False)
    assert desk.take() == [1]


def test_it_gathers_for_a_moment_but_not_while_somebody_waits(desk: Desk) -> None:
    desk.place()
    assert desk.order.gathers_until() == pytest.approx(desk.clock.now + QUIET_S)
    began = desk.clock.now
    for _ in range(50):
        desk.clock.now += QUIET_S / 2
        desk.place()
    assert desk.order.gathers_until() == pytest.approx(began + GATHER_S)
    waiter = threading.Thread(target=desk.order.wait_settled, args=(1, WAIT_S), daemon=True)
    waiter.start()
    while desk.order.gathers_until():
        assert waiter.is_alive()
    desk.order.settle(MANY)
    waiter.join(WAIT_S)
    assert not waiter.is_alive()


def test_a_full_batch_does_not_wait_for_more(desk: Desk) -> None:
    for _ in range(GATHER_OPS):
        desk.place()
    assert desk.order.gathers_until() == 0.0


def test_waiting_ends_with_the_commit_the_time_or_the_end_of_writing(desk: Desk) -> None:
    position = desk.place()
    assert not desk.order.wait_settled(position, 0.0)
    assert desk.order.wait_settled(0, 0.0)
    desk.order.stop(StoreUnavailable("no more"))
    with pytest.raises(StoreUnavailable, match="no more"):
        desk.order.wait_settled(position, WAIT_S)
    with pytest.raises(StoreUnavailable, match="no more"):
        desk.place()
    desk.order.close()
    assert isinstance(desk.order.stopped, StoreUnavailable), "the first reason counts"


def test_closing_ends_who_waits(desk: Desk) -> None:
    position = desk.place()
    told: list[BaseException] = []

    def wait() -> None:
        try:
            desk.order.wait_settled(position, WAIT_S)
        except Stopped as error:
            told.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    while desk.order.gathers_until():
        assert waiter.is_alive()
    desk.order.close()
    waiter.join(WAIT_S)
    assert len(told) == 1


def test_positions_that_were_used_before_are_not_used_again(desk: Desk) -> None:
    desk.order.reserve_positions(40)
    desk.place()
    assert desk.applied == [(40, 1)]
    assert desk.order.last == 40


def test_what_touches_an_inode_is_found(desk: Desk) -> None:
    made = desk.place()
    assert desk.order.touches(made)
    assert not desk.order.touches(777)
    desk.order.settle(MANY)
    assert not desk.order.touches(made)
