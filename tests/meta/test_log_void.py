"""Entries that break a rule are void for everyone, with their number and hash; what cannot be
judged stops the reader instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys
from lucid.errors import HistoryFork, ObjectMissing, UnknownKey, UnsupportedFormat
from lucid.format import names
from lucid.format.entry import EntryRef
from lucid.format.hashes import ZERO_HASH, hash_bytes
from lucid.format.limits import ENTRY_MAX
from lucid.format.ops import ROLE_READER, RULES, SessionOp
from lucid.meta.fold_rules import VALUE_RULES
from lucid.meta.log import FORK_NOTE
from lucid.meta.verify import Accepted, Void
from lucid.store.faulty import Fault, FaultPlan, FaultyStore
from lucid.store.memory import Bucket, MemoryStore
from tests.meta.authors import EPOCH_NS
from tests.meta.space import RANDOM, Machine, founding, new_bucket


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def machine(tmp_path: Path, bucket: Bucket) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine", MemoryStore(bucket))
    machine.join()
    yield machine
    machine.replica.close()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def another_member(machine: Machine) -> bytes:
    keys = MemberKeys.create(RANDOM)
    body = machine.body([machine.create(b"f")], member=keys.member)
    mine, machine.keys = machine.keys, keys
    try:
        return machine.seal(body)
    finally:
        machine.keys = mine


def forged_signature(machine: Machine) -> bytes:
    """A member's name over a stranger's signature."""
    honest = founding().unlocked.keys
    stranger = MemberKeys(honest.member, RANDOM(32), RANDOM(32))
    mine, machine.keys = machine.keys, stranger
    try:
        return machine.seal(machine.body([machine.create(b"f")]))
    finally:
        machine.keys = mine


def by_a_reader(machine: Machine) -> bytes:
    row = machine.replica.member(machine.keys.member)
    assert row is not None
    machine.replica.state.put_member(row._replace(role=ROLE_READER))
    return machine.seal(machine.body([machine.create(b"f")]))


def twice_in_the_session(machine: Machine) -> bytes:
    return machine.seal(machine.body([machine.create(b"f")], session_previous=ZERO_HASH))


def of_nobodys_session(machine: Machine) -> bytes:
    machine.session = 99
    return machine.seal(machine.body([machine.create(b"f")]))


VOID: dict[str, tuple[Callable[[Machine], bytes], str]] = {
    "junk": (lambda machine: b"junk", "cut short"),
    "empty": (lambda machine: b"", "cut short"),
    "too long": (lambda machine: bytes(ENTRY_MAX + 5), "16 MiB"),
    "another magic": (lambda machine: b"X" * 200, "begin"),
    "altered": (lambda machine: flipped(honest(machine), 90), "open"),
    "another object id": (lambda machine: flipped(honest(machine), 40), "open"),
    "another generation": (lambda machine: flipped(honest(machine), 13), "open"),
    "another suite": (lambda machine: flipped(honest(machine), 10), "open"),
    "cut": (lambda machine: honest(machine)[:-1], "open"),
    "another sequence": (lambda machine: moved(machine), "signature"),
    "no member": (another_member, "no member"),
    "a wrong signature": (forged_signature, "signature"),
    "another membership": (
        lambda machine: machine.seal(
            machine.body([machine.create(b"f")], membership=EntryRef(2, b"x" * 32))
        ),
        "membership",
    ),
    "a reader": (by_a_reader, "role"),
    "not after the session's last": (twice_in_the_session, "session's last"),
    "a session of nobody": (of_nobodys_session, "session"),
}


def honest(machine: Machine) -> bytes:
    return machine.seal(machine.body([machine.create(b"honest")]))


def moved(machine: Machine) -> bytes:
    """An honest entry for another number."""
    body = machine.body([machine.create(b"f")])
    return machine.seal(body, machine.replica.head().sequence + 2)


@pytest.mark.parametrize("kind", VOID)
def test_an_entry_is_void_for_everyone(
    machine: Machine, bucket: Bucket, tmp_path: Path, kind: str
) -> None:
    """S-51."""
    if kind == "not after the session's last":
        machine.put(honest(machine))
        machine.follow()
    make, reason = VOID[kind]
    before = machine.replica.dump()
    if kind == "a reader":
        before = None
    data = make(machine)
    sequence = machine.put(data)
    found = machine.reader.next()
    assert isinstance(found, Void)
    assert reason in found.reason
    assert not found.fork
    machine.replica.commit_void(found.sequence, found.hash, found.reason)
    assert machine.replica.head() == (sequence, hash_bytes(data[: ENTRY_MAX + 1]))
    assert machine.replica.void_count() == 1
    assert machine.replica.voids() == [(sequence, found.reason)]
    assert not machine.reader.fork
    if before is not None:
        assert machine.replica.dump() == before
        other = Machine(tmp_path / "other", MemoryStore(bucket))
        assert other.follow() == sequence
        assert other.replica.head() == machine.replica.head()
        other.replica.close()


def test_life_goes_on_after_a_void_entry(machine: Machine) -> None:
    machine.put(b"junk")
    machine.follow()
    machine.put(honest(machine))
    assert isinstance(machine.reader.next(), Accepted)
    machine.follow()
    assert machine.replica.lookup(1, b"honest") is not None


def test_an_entry_on_another_history_raises_the_alarm(machine: Machine, tmp_path: Path) -> None:
    """S-54."""
    sequence = machine.put(machine.seal(machine.body([machine.create(b"f")], previous=b"x" * 32)))
    found = machine.reader.next()
    assert isinstance(found, Void) and found.fork
    assert found.member == machine.keys.member
    assert f"Entry {sequence}" in machine.reader.fork
    machine.replica.commit_void(found.sequence, found.hash, found.reason)
    with pytest.raises(HistoryFork, match="another history"):
        machine.writer.build(machine.session, [machine.create(b"g")])
    machine.replica.close()
    again = Machine(tmp_path / "machine", machine.store)
    assert again.reader.fork
    with pytest.raises(HistoryFork):
        again.writer.build(again.session, [machine.create(b"g")])
    again.reader.clear_fork()
    assert again.replica.noted(FORK_NOTE) is None
    again.session = machine.session
    again.writer.build(again.session, [machine.create(b"g")])
    again.replica.close()


def test_what_seems_void_is_read_again(bucket: Bucket, machine: Machine, tmp_path: Path) -> None:
    """S-52."""
    machine.put(honest(machine))
    plan = FaultPlan(entropy=RANDOM)
    store = FaultyStore(MemoryStore(bucket), plan)
    other = Machine(tmp_path / "other", store)
    plan.script("get", [None, None, Fault.WRONG_BYTES])
    assert other.follow() == 3
    assert other.replica.void_count() == 0
    plan.script("get", [Fault.TRUNCATE])
    machine.follow()
    machine.put(honest(machine))
    assert other.follow() == 1
    assert other.replica.void_count() == 0
    other.replica.close()
    store.close()


def test_an_entry_that_vanishes_while_it_is_judged_is_an_error(machine: Machine) -> None:
    with pytest.raises(ObjectMissing):
        machine.reader.judge(machine.replica.head().sequence + 1, b"junk")


def test_without_the_key_the_reader_stops(bucket: Bucket, tmp_path: Path) -> None:
    """S-53."""
    unlocked = founding().unlocked
    ring = KeyRing(unlocked.superblock.filespace, unlocked.superblock.suite)
    machine = Machine(tmp_path / "poor", MemoryStore(bucket), ring)
    with pytest.raises(UnknownKey):
        machine.follow()
    assert machine.replica.head().sequence == 0
    machine.replica.close()


def test_under_unknown_rules_reader_and_writer_stop(machine: Machine) -> None:
    """S-53."""
    machine.put(honest(machine))
    machine.replica.state.put_value(VALUE_RULES, b"%d" % (RULES + 1))
    with pytest.raises(UnsupportedFormat, match=f"rules {RULES + 1}"):
        machine.reader.next()
    with pytest.raises(UnsupportedFormat, match=f"rules {RULES + 1}"):
        machine.writer.build(machine.session, [machine.create(b"f")])


def test_a_session_entry_holds_nothing_else(machine: Machine) -> None:
    """Such a body cannot be sealed by ours: the form is checked on both ways."""
    token = SessionOp(0, EPOCH_NS, b"t" * 16, b"desk")
    machine.session = 0
    machine.put(machine.seal(machine.body([token])))
    assert isinstance(machine.reader.next(), Accepted)


def test_a_first_entry_of_another_filespace_is_refused(tmp_path: Path) -> None:
    bucket = new_bucket()
    data = bytearray(bucket.objects[names.log_key(1)][0])
    data[-1] ^= 1
    bucket.objects[names.log_key(1)] = (bytes(data), 0)
    machine = Machine(tmp_path / "machine", MemoryStore(bucket))
    with pytest.raises(HistoryFork, match="first entry"):
        machine.follow()
    machine.replica.close()
