"""Rules in the log: who may change them, from where on they hold, and what is void before that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import UnsupportedFormat
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.ops import (
    LEASE_EXCLUSIVE,
    LEASE_NONE,
    ROLE_READER,
    ROLE_WRITER,
    ROOT_INO,
    Clone,
    Floor,
    Give,
    Move,
    Op,
    Repack,
    Rules,
    Take,
    Takeover,
    segments_of,
)
from lucid.meta.fold_rules import VALUE_RULES, VALUE_SINCE
from lucid.meta.verify import Void
from lucid.store.memory import Bucket, MemoryStore
from tests.meta.authors import EPOCH_NS
from tests.meta.space import Machine, new_bucket


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def machine(tmp_path: Path, bucket: Bucket) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine", MemoryStore(bucket))
    machine.join()
    yield machine
    machine.replica.close()


def head(machine: Machine) -> tuple[int, int]:
    machine.counter += 1
    return machine.session << 32 | machine.counter, EPOCH_NS


def rules(machine: Machine, number: int = 2) -> Rules:
    return Rules(*head(machine), number)


def clone(machine: Machine, version: int) -> Clone:
    return Clone(*head(machine), version, version, 0, 0, ROOT_INO, b"copy", EPOCH_NS)


def repack(machine: Machine) -> Repack:
    return Repack(*head(machine), (Move(b"o" * 32, 0, 0, 1, b"n" * 32, 2, 600),))


def row_of(segment: bytes) -> SegmentRow:
    return SegmentRow(segment, 5000, 400, b"f" * 32, b"g" * 16, 1)


def write(machine: Machine, *ops: Op) -> str:
    """These ops become the next entry; why it is void, empty if it is not."""
    rows = tuple(row_of(one) for op in ops for one in segments_of(op))
    sequence = machine.put(machine.seal(machine.body(ops, segments=rows)))
    found = machine.reader.next()
    assert found is not None and found.sequence == sequence
    if isinstance(found, Void):
        machine.replica.commit_void(found.sequence, found.hash, found.reason)
        return found.reason
    machine.replica.commit_entry(found.sequence, found.hash, found.body)
    return ""


def test_rules_hold_from_the_next_entry_on(machine: Machine) -> None:
    """S-271: a clone is void before, and a file after."""
    made = machine.create(b"f")
    assert write(machine, made) == ""
    assert "clone" in write(machine, clone(machine, made.op_id))
    assert "floor" in write(machine, Floor(*head(machine), 2))
    assert write(machine, rules(machine)) == ""
    assert machine.replica.value(VALUE_RULES) == b"2"
    assert machine.replica.value(VALUE_SINCE) == b"%d" % machine.replica.head().sequence
    assert write(machine, clone(machine, made.op_id)) == ""
    assert machine.replica.lookup(ROOT_INO, b"copy") is not None
    assert machine.replica.void_count() == 2


def test_rules_stand_alone_in_their_entry(machine: Machine) -> None:
    """S-51, S-271: so there is nothing that could be folded under the one or the other."""
    assert "beside" in write(machine, rules(machine), machine.create(b"f"))
    assert "beside" in write(machine, machine.create(b"f"), rules(machine))
    assert machine.replica.value(VALUE_RULES) == b"1"


def test_a_repack_comes_with_rules_3(machine: Machine) -> None:
    """S-51, S-292, S-297: void under rules 2, and only an admin's."""
    change = Change(0, 1, DATA, b"o" * 32, 0, 0, 0, 100, 100)
    made = machine.create(b"f")._replace(size=100, changes=(change,))
    assert write(machine, made) == ""
    assert write(machine, rules(machine)) == ""
    assert "repack, which rules 2 do not know" in write(machine, repack(machine))
    assert write(machine, rules(machine, 3)) == ""
    row = machine.replica.member(machine.keys.member)
    assert row is not None
    machine.replica.state.put_member(row._replace(role=ROLE_WRITER))
    assert "role" in write(machine, repack(machine))
    machine.replica.state.put_member(row)
    assert write(machine, repack(machine)) == ""
    columns = machine.replica.map_columns(made.op_id)
    assert columns is not None
    assert [one.id for one in columns.segments] == [b"n" * 32]
    assert (columns.ordinal[0], columns.offset[0]) == (2, 600)
    assert made.op_id in machine.replica.take_events().inodes
    old = machine.replica.segment(b"o" * 32)
    assert old is not None and old.head == machine.replica.head().sequence


def on_lease(machine: Machine, kind: str, ino: int) -> Op:
    """An op of rules 4."""
    ids = head(machine)
    if kind == "takeover":
        return Takeover(*ids, ino, 1, 1)
    return Take(*ids, ino, LEASE_EXCLUSIVE) if kind == "take" else Give(*ids, ino, LEASE_NONE)


@pytest.mark.parametrize("kind", ["take", "give", "takeover"])
def test_leases_come_with_rules_4(machine: Machine, kind: str) -> None:
    """S-51, S-328: void under rules 3, and never a reader's; a writer's they are."""
    made = machine.create(b"f")
    assert write(machine, made) == ""
    for number in (2, 3):
        assert write(machine, rules(machine, number)) == ""
        void = write(machine, on_lease(machine, kind, made.op_id))
        assert f"{kind}, which rules {number} do not know" in void
    assert write(machine, rules(machine, 4)) == ""
    row = machine.replica.member(machine.keys.member)
    assert row is not None
    machine.replica.state.put_member(row._replace(role=ROLE_READER))
    assert "role" in write(machine, on_lease(machine, kind, made.op_id))
    assert machine.replica.state.lease(made.op_id) == ()
    machine.replica.state.put_member(row._replace(role=ROLE_WRITER))
    assert write(machine, on_lease(machine, kind, made.op_id)) == ""
    assert write(machine, on_lease(machine, "take", made.op_id)) == ""
    (lease,) = machine.replica.state.lease(made.op_id)
    assert (lease.session, lease.mode) == (machine.session, LEASE_EXCLUSIVE)
    assert machine.replica.void_count() == 3


@pytest.mark.parametrize("kind", ["rules", "floor"])
def test_only_an_admin_changes_rules_or_sets_a_floor(machine: Machine, kind: str) -> None:
    """S-51."""
    assert write(machine, rules(machine)) == ""
    row = machine.replica.member(machine.keys.member)
    assert row is not None
    machine.replica.state.put_member(row._replace(role=ROLE_WRITER))
    op = rules(machine, 3) if kind == "rules" else Floor(*head(machine), 2)
    assert "role" in write(machine, op)
    machine.replica.state.put_member(row)
    assert write(machine, op._replace(op_id=head(machine)[0])) == ""


def test_who_does_not_know_the_new_rules_stops_before_the_next_entry(
    machine: Machine, bucket: Bucket, tmp_path: Path
) -> None:
    """S-53: reading and writing, also after a restart; and calls nothing void."""
    assert write(machine, rules(machine, 9)) == ""
    with pytest.raises(UnsupportedFormat, match="rules 9"):
        machine.writer.build(machine.session, [machine.create(b"f")])
    machine.put(machine.seal(machine.body([machine.create(b"f")])))
    with pytest.raises(UnsupportedFormat, match="rules 9"):
        machine.reader.next()
    later = Machine(tmp_path / "later", MemoryStore(bucket))
    with pytest.raises(UnsupportedFormat, match="rules 9"):
        later.follow()
    assert later.replica.void_count() == 0
    later.replica.close()


def test_old_rules_named_again_change_nothing(machine: Machine) -> None:
    """S-272: two admins may ask for them at once."""
    assert write(machine, rules(machine)) == ""
    since = machine.replica.value(VALUE_SINCE)
    assert write(machine, rules(machine)) == ""
    assert machine.replica.value(VALUE_SINCE) == since
