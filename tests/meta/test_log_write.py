"""Writing the log: won, lost, unknown; sessions; what a device has seen cannot be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import FormatError, HistoryFork, Stopped, StoreUnavailable, UsageError
from lucid.format import names
from lucid.format.limits import AUTHOR_OPS_MAX
from lucid.format.ops import ROOT_INO, Setxattr
from lucid.meta.authoring import LIMIT_STEP, OpIds, author_of, take_session
from lucid.meta.log import Lost, Won, fit
from lucid.store.faulty import Fault, FaultPlan, FaultyStore
from lucid.store.memory import Bucket, MemoryStore
from tests.meta.authors import EPOCH_NS
from tests.meta.space import RANDOM, Machine, new_bucket


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def pair(tmp_path: Path, bucket: Bucket) -> Iterator[tuple[Machine, Machine]]:
    machines = tuple(Machine(tmp_path / name, MemoryStore(bucket)) for name in ("one", "two"))
    machines[0].join(b"one")
    machines[1].join(b"two")
    machines[0].follow()
    yield machines[0], machines[1]
    for machine in machines:
        machine.replica.close()


def test_sessions_are_numbered_by_the_log(pair: tuple[Machine, Machine]) -> None:
    one, two = pair
    assert (one.session, two.session) == (1, 2)
    author = author_of(two.replica, 2)
    assert (author.member_label, author.device_label) == (b"ann", b"two")
    rows = one.replica.sessions_of(one.keys.member)
    assert [row.number for row in rows] == [1, 2]


def test_one_wins_and_the_other_learns_what_it_lost_to(pair: tuple[Machine, Machine]) -> None:
    one, two = pair
    mine = one.writer.build(one.session, [one.create(b"a")])
    theirs = two.writer.build(two.session, [two.create(b"a")])
    assert one.writer.put(mine) == Won(mine)
    assert two.writer.put(theirs) == Lost(mine.sequence, mine.data)
    # To put the same once more is no loss: it is in the log.
    assert one.writer.put(mine) == Won(mine)
    two.follow()
    assert two.writer.put(two.writer.build(two.session, [two.create(b"b")]))
    one.follow()
    two.follow()
    assert one.replica.dump() == two.replica.dump()
    assert [row.name for row in one.replica.readdir(ROOT_INO, 0, 9)] == [b"a", b"b"]


def test_an_answer_that_was_lost_is_no_lost_race(bucket: Bucket, tmp_path: Path) -> None:
    plan = FaultPlan(entropy=RANDOM)
    store = FaultyStore(MemoryStore(bucket), plan)
    machine = Machine(tmp_path / "machine", store)
    machine.join()
    prepared = machine.writer.build(machine.session, [machine.create(b"a")])
    plan.die()
    with pytest.raises(StoreUnavailable):
        machine.writer.put(prepared)
    plan.revive()
    plan.script("put_if_absent", [Fault.BUSY, Fault.LOSE_ANSWER])
    assert machine.writer.put(prepared) == Won(prepared)
    assert machine.follow() == 1
    machine.replica.close()
    store.close()


def test_a_session_is_taken_through_lost_races_and_lost_answers(
    pair: tuple[Machine, Machine], tmp_path: Path, bucket: Bucket
) -> None:
    one, _ = pair
    third = Machine(tmp_path / "three", MemoryStore(bucket))
    third.follow()
    rivals = iter((b"a", b"b"))
    noted = []

    def note(sequence: int, digest: bytes) -> None:
        noted.append((sequence, digest))
        name = next(rivals, None)
        if name is not None:
            one.follow()
            one.writer.put(one.writer.build(one.session, [one.create(name)]))

    row = take_session(
        third.reader, third.writer, third.replica, third.keys.member, b"three", third.clock,
        RANDOM, note,
    )  # fmt: skip
    assert row.number == 3
    assert [sequence for sequence, _ in noted] == [4, 5, 6]
    assert third.replica.entry_hash(6) == noted[-1][1]
    third.replica.close()


def test_a_store_that_was_rolled_back_is_caught(
    pair: tuple[Machine, Machine], bucket: Bucket, tmp_path: Path
) -> None:
    one, two = pair
    one.reader.history.check_head()
    head = one.replica.head().sequence
    old = bucket.objects.pop(names.log_key(head))
    bucket.keys.remove(names.log_key(head))
    with pytest.raises(HistoryFork, match=f"Entry {head} .* is gone"):
        one.reader.history.check_head()
    with pytest.raises(HistoryFork):
        one.writer.build(one.session, [one.create(b"a")])
    bucket.objects[names.log_key(head)] = (old[0] + b"x", old[1])
    with pytest.raises(HistoryFork, match="another one"):
        two.reader.history.check_head()


def test_a_writer_without_the_log_or_a_session_says_so(tmp_path: Path, bucket: Bucket) -> None:
    machine = Machine(tmp_path / "machine", MemoryStore(bucket))
    with pytest.raises(UsageError, match="not read yet"):
        machine.writer.build(1, [machine.create(b"a")])
    machine.follow()
    with pytest.raises(UsageError, match="Session 1"):
        machine.writer.build(1, [machine.create(b"a")])
    machine.replica.close()


def test_what_fits_is_an_entry_and_one_more_op_is_not(pair: tuple[Machine, Machine]) -> None:
    one, _ = pair
    small = [one.create(b"%d" % number) for number in range(AUTHOR_OPS_MAX + 1)]
    assert fit(small) == AUTHOR_OPS_MAX
    assert fit([]) == 0
    with pytest.raises(FormatError, match="10000"):
        one.writer.build(one.session, small)
    large = []
    for _ in range(80):
        one.counter += 1
        op_id = one.session << 32 | one.counter
        large.append(Setxattr(op_id, EPOCH_NS, ROOT_INO, b"user.x", bytes(65_536)))
    count = fit(large)
    assert 55 < count < 70
    one.writer.build(one.session, large[:count])
    with pytest.raises(FormatError, match="4 MiB"):
        one.writer.build(one.session, large[: count + 10])


def test_ids_are_made_sure_of_before_they_are_used() -> None:
    sure: list[int] = []
    ids = OpIds(3, 1, sure.append)
    assert sure == []
    assert ids.take() == 3 << 32 | 1
    assert sure == [1 + LIMIT_STEP]
    for _ in range(LIMIT_STEP):
        last = ids.take()
    assert last == 3 << 32 | LIMIT_STEP + 1
    assert sure == [1 + LIMIT_STEP, 1 + 2 * LIMIT_STEP]
    again = OpIds(3, sure[-1], sure.append)
    assert again.take() == 3 << 32 | 1 + 2 * LIMIT_STEP


def test_an_id_whose_limit_could_not_be_saved_is_not_given() -> None:
    def fail(limit: int) -> None:
        raise OSError(5, "no disk")

    ids = OpIds(3, 1, fail)
    for _ in range(2):
        with pytest.raises(OSError):
            ids.take()


def test_a_session_has_an_end() -> None:
    ids = OpIds(3, (1 << 32) - 2, lambda limit: None)
    assert [ids.take() & 0xFFFFFFFF for _ in range(2)] == [(1 << 32) - 2, (1 << 32) - 1]
    with pytest.raises(Stopped, match="all its numbers"):
        ids.take()
