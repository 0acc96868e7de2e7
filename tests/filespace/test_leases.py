"""Leases between machines: who has one, who waits, what is published before one goes, and what
becomes of it when a machine falls silent (SEMANTICS.md, 14)."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from lucid.errors import LockHeld, LockLost
from lucid.filespace import init
from lucid.store.memory import Bucket, MemoryStore
from lucid.sync.leases import HELD_S, IDLE_S, RENEW_S, TERM_S
from tests.filespace.leases import EXCLUSIVE, NONE, SHARED, Machine, machines, until
from tests.filespace.spaces import BLOCK, PASSPHRASE, STRETCH, WAIT_S, Space, parts_of
from tests.filespace.test_collecting import is_clean


def conflicts(machine: Machine) -> list[str]:
    assert machine.fs.refresh(WAIT_S)
    return [name for name in machine.fs.listdir("/") if "conflict" in name]


def test_one_machine_has_it_and_the_other_waits(space: Space) -> None:
    """S-800, S-801."""
    a, b = machines(space, "a", "b")
    a.take()
    assert b.try_() == errno.EAGAIN
    waiting = b.ask()
    until(lambda: len(b.lines()) == 2)
    assert waiting.waits and not b.lost
    a.unuse()
    assert waiting.get() == 0
    until(lambda: [has for _, _, has in a.lines()] == [True])
    assert a.try_() == errno.EAGAIN
    holder = a.keeper.holder(a.ino, SHARED)
    assert holder is not None and holder.session == b.fs.tree._opened.session


def test_those_that_only_read_have_it_together(space: Space) -> None:
    """S-800."""
    a, b, c = machines(space, "a", "b", "c")
    a.take(SHARED)
    b.take(SHARED)
    assert c.try_(EXCLUSIVE) == errno.EAGAIN
    waiting = c.ask(EXCLUSIVE)
    until(lambda: len(a.about("/plan").lines()) == 3)
    a.unuse()
    b.unuse()
    assert waiting.get() == 0
    assert a.try_(SHARED) == errno.EAGAIN


def test_nobody_who_waits_is_passed_over(space: Space) -> None:
    """S-801: readers that come and go do not keep a writer out, nor a machine that locks often."""
    a, b, c = machines(space, "a", "b", "c")
    a.take(SHARED)
    writer = b.ask(EXCLUSIVE)
    until(lambda: len(c.about("/plan").lines()) == 2)
    reader = c.ask(SHARED)
    until(lambda: len(c.lines()) == 3)
    assert reader.waits and writer.waits
    a.unuse()
    assert writer.get() == 0
    again = a.ask(SHARED)
    b.unuse()
    assert reader.get() == 0
    assert again.get() == 0


def test_a_machine_that_locks_again_and_again_lets_others_in(space: Space) -> None:
    """S-801."""
    a, b = machines(space, "a", "b")
    came = threading.Event()
    rounds = 0

    def storm() -> None:
        nonlocal rounds
        # Not without a breath: it would keep the interpreter from the other threads.
        while not came.wait(0.001):
            a.take()
            rounds += 1
            a.unuse()

    thread = threading.Thread(target=storm, name="lucid-test-storm")
    a.take()
    a.unuse()
    thread.start()
    try:
        b.take()
    finally:
        came.set()
        b.unuse()
        thread.join(WAIT_S)
    assert rounds


def test_a_stronger_one_waits_for_the_other_readers(space: Space) -> None:
    """S-800: and who is in it already may have what it had."""
    a, b = machines(space, "a", "b")
    a.take(SHARED)
    b.take(SHARED)
    assert a.try_(EXCLUSIVE) == errno.EAGAIN
    assert a.try_(SHARED) == 0
    stronger = a.ask(EXCLUSIVE)
    b.unuse()
    assert stronger.get() == 0
    a.unuse(SHARED)
    b.take(SHARED)


def test_what_was_written_under_it_is_there_when_it_is_granted(space: Space) -> None:
    """S-802: a file that stays open, too."""
    a, b = machines(space, "a", "b")
    a.take()
    with a.fs.open("/plan", "r+b", 0) as file:
        file.write(b"first")
        a.unuse()
        b.take()
        assert b.fs.read_bytes("/plan") == b"first"
        b.fs.write_bytes("/other", b"x")
        with b.fs.open("/plan", "r+b", 0) as mine:
            mine.write(b"second")
            b.unuse()
            a.take()
            assert a.fs.read_bytes("/plan") == b"second"
    assert not conflicts(a) and not conflicts(b)


def test_a_lock_file_guards_other_files(space: Space) -> None:
    """S-802: all that was accepted before is in the log before the lease goes."""
    a, b = machines(space, "a", "b")
    a.take()
    for number in range(20):
        a.fs.write_bytes(f"/data {number}", b"x" * 3000)
    a.unuse()
    b.take()
    assert len(b.fs.listdir("/")) == 21


def test_an_unused_one_is_kept_for_a_while(space: Space) -> None:
    """S-803."""
    a, b = machines(space, "a", "b")
    a.take()
    a.unuse()
    entries = parts_of(a.fs).replica.head().sequence
    for _ in range(50):
        a.take()
        a.unuse()
    assert parts_of(a.fs).replica.head().sequence == entries
    a.sleep(IDLE_S + 1)
    until(lambda: not b.about("/plan").lines())


def test_it_is_renewed_while_it_is_used(space: Space) -> None:
    """S-804."""
    a, b = machines(space, "a", "b")
    a.take()
    before = parts_of(a.fs).replica.head().sequence
    a.sleep(RENEW_S + 1)
    until(lambda: parts_of(a.fs).replica.head().sequence > before)
    a.sleep(RENEW_S + 1)
    until(lambda: parts_of(a.fs).replica.head().sequence > before + 1)
    assert not a.lost
    assert b.try_() == errno.EAGAIN


def test_a_holder_that_cannot_be_heard_loses_it(space: Space) -> None:
    """S-805: it stops before anybody else may begin."""
    a, b = machines(space, "a", "b")
    a.take()
    space.plans["a"].die()
    a.sleep(HELD_S + 1)
    until(lambda: a.lost == [a.ino])
    waiting = b.ask()
    until(lambda: len(b.lines()) == 2)
    b.sleep(HELD_S + 1)
    assert waiting.waits
    b.sleep(TERM_S - HELD_S)
    assert waiting.get() == 0
    space.plans["a"].revive()
    assert a.fs.refresh(WAIT_S)
    assert a.try_() == errno.EAGAIN
    b.unuse()
    a.take()


def test_a_machine_that_wakes_up_has_lost_it(space: Space) -> None:
    """S-805: a clock that stands still while it sleeps would not have told."""
    a, b = machines(space, "a", "b")
    a.take()
    a.sleep(3600)
    until(lambda: a.lost == [a.ino])
    b.take()


def test_what_a_silent_holder_wrote_lies_beside(space: Space) -> None:
    """S-806: it was killed, the lease was taken over, and then it came back."""
    a, b = machines(space, "a", "b")
    a.take()
    space.plans["a"].die()
    with a.fs.open("/plan", "r+b", 0) as file:
        file.write(b"of the dead")
    space.crash(a.fs)
    waiting = b.ask()
    b.sleep(TERM_S + 1)
    assert waiting.get() == 0
    again = Machine(space, "a").about("/plan")
    again.fs.sync(timeout=WAIT_S)
    with b.fs.open("/plan", "r+b", 0) as file:
        file.write(b"of the holder")
    b.fs.sync(timeout=WAIT_S)
    assert b.fs.read_bytes("/plan") == b"of the holder"
    (beside,) = conflicts(b)
    assert b.fs.read_bytes("/" + beside) == b"of the dead"
    assert conflicts(again) == [beside]
    assert is_clean(space)


def test_a_machine_that_comes_back_gives_what_it_held(space: Space) -> None:
    """S-807: it need not be waited for."""
    a, b = machines(space, "a", "b")
    a.take()
    space.crash(a.fs)
    waiting = b.ask()
    until(lambda: len(b.lines()) == 2)
    Machine(space, "a")
    assert waiting.get() == 0


def test_it_goes_with_the_drive(space: Space) -> None:
    """S-807."""
    a, b = machines(space, "a", "b")
    a.take()
    waiting = b.ask()
    until(lambda: len(b.lines()) == 2)
    a.fs.close()
    assert waiting.get() == 0


def test_without_the_store_there_is_none(space: Space) -> None:
    """S-808."""
    (a,) = machines(space, "a")
    space.plans["a"].die()
    asked = a.ask(), a.ask(SHARED), a.ask(wait=False)
    a.clock.passed_s += 20
    assert [one.get() for one in asked] == [errno.ENOLCK] * 3
    assert not a.fs.refresh(0.1)
    space.plans["a"].revive()
    assert a.fs.refresh(WAIT_S)
    a.take()


def test_a_file_that_nobody_else_knows(space: Space) -> None:
    """S-809: it is published with the lock; one without a name never, and is locked here only."""
    a, b = machines(space, "a", "b")
    with a.fs.open("/new", "w+b", 0) as file:
        file.write(b"begun")
        a.ino = a.fs.stat("/new").ino
        a.take()
        b.about("/new")
        assert b.fs.read_bytes("/new") == b"begun"
        assert b.try_() == errno.EAGAIN
    with a.fs.open("/gone", "w+b", 0) as file:
        file.write(b"x")
        a.ino = a.fs.stat("/gone").ino
        a.fs.remove("/gone")
        entries = parts_of(a.fs).replica.head().sequence
        a.take()
        a.unuse()
        assert parts_of(a.fs).replica.head().sequence == entries


def test_machines_that_wait_for_one_another(space: Space) -> None:
    """S-810: the one that came last is told, and the other goes on."""
    a, b = machines(space, "a", "b")
    a.fs.write_bytes("/second", b"")
    a.fs.sync(timeout=WAIT_S)
    first, second = a.ino, a.fs.stat("/second").ino
    assert b.fs.refresh(WAIT_S)
    a.take()
    b.ino = second
    b.take()
    a.ino = second
    waits = a.ask()
    until(lambda: len(b.lines()) == 2)
    b.ino = first
    closes = b.ask()
    assert closes.get() == errno.EDEADLK
    assert waits.waits
    b.ino = second
    b.unuse()
    assert waits.get() == 0


def test_a_wish_that_is_withdrawn(space: Space) -> None:
    """S-801: is in nobody's way."""
    a, b, c = machines(space, "a", "b", "c")
    a.take()
    gone = b.ask()
    until(lambda: len(c.about("/plan").lines()) == 2)
    assert gone.wish is not None
    gone.wish.withdraw()
    waiting = c.ask()
    a.unuse()
    assert waiting.get() == 0
    assert gone.waits


def test_who_writes_without_a_lock_gets_an_unused_lease_back(space: Space) -> None:
    """S-811: and lies beside only while another machine really has it locked."""
    a, b = machines(space, "a", "b")
    a.take()
    a.unuse()
    assert b.fs.refresh(WAIT_S)
    with b.fs.open("/plan", "r+b", 0) as file:
        until(lambda: not b.keeper.holder(b.ino, SHARED))
        file.write(b"no lock")
    b.fs.sync(timeout=WAIT_S)
    assert not conflicts(b)
    a.take()
    assert a.fs.read_bytes("/plan") == b"no lock"
    assert b.fs.refresh(WAIT_S)
    with b.fs.open("/plan", "r+b", 0) as file:
        file.write(b"beside ")
    b.fs.sync(timeout=WAIT_S)
    (beside,) = conflicts(b)
    assert b.fs.read_bytes("/" + beside) == b"beside "
    assert a.fs.read_bytes("/plan") == b"no lock"


def test_a_file_that_is_open_for_writing_is_locked(space: Space) -> None:
    """S-812: by the policy on-open."""
    a, b = machines(space, "a", "b", lock_policy="on-open")
    with a.fs.open("/plan", "r+b", 0) as file:
        with pytest.raises(LockHeld, match="is locked by") as failure:
            b.fs.open("/plan", "r+b", 0)
        assert failure.value.errno == errno.EAGAIN
        assert b.fs.read_bytes("/plan") == b"0"
        with a.fs.open("/plan", "r+b", 0) as other:
            other.write(b"1")
        file.write(b"2")
    with b.fs.open("/plan", "r+b", 0) as file:
        assert b.fs.read_bytes("/plan") == b"2"
        file.write(b"3")
        with pytest.raises(LockHeld):
            a.fs.open("/plan", "r+b", 0)
    with a.fs.open("/plan", "r+b", 0):
        assert a.fs.read_bytes("/plan") == b"3"
    assert not conflicts(a)


def test_open_files_that_lost_their_lease_are_closed_all_the_same(space: Space) -> None:
    """S-812, S-805."""
    a, b = machines(space, "a", "b", lock_policy="on-open")
    with pytest.raises(LockLost), a.fs.open("/plan", "r+b", 0) as mine:
        a.sleep(HELD_S + 1)
        until(lambda: a.lost == [a.ino])
        with pytest.raises(LockLost):
            mine.write(b"a")
        with b.fs.open("/plan", "r+b", 0) as file:
            file.write(b"b")
    with a.fs.open("/plan", "r+b", 0) as file:
        assert a.fs.read_bytes("/plan") == b"b"


@pytest.mark.parametrize("how", ["rules 3", "read-only"])
def test_where_locks_hold_on_one_machine_only(space: Space, how: str) -> None:
    """S-813: nothing is asked, and nothing written."""
    if how == "rules 3":
        bucket = Bucket()
        init(
            "memory://old", passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH,
            store=MemoryStore(bucket), rules=3,
        )  # fmt: skip
        space = Space(space.root / "older", bucket)
    try:
        (a,) = machines(space, "a")
        settings: dict[str, Any] = {"read_only": True} if how == "read-only" else {}
        (b,) = machines(space, "b", **settings)
        assert b.keeper.are_carried is False
        assert a.fs.refresh(WAIT_S)
        before = parts_of(a.fs).replica.head()
        assert b.try_() == 0 and b.try_(SHARED) == 0
        b.unuse(NONE)
        assert a.fs.refresh(WAIT_S)
        assert parts_of(a.fs).replica.head() == before
    finally:
        if how == "rules 3":
            space.close()


@pytest.mark.slow
def test_a_counter_that_four_machines_raise(space: Space) -> None:
    """S-800, S-802: no step is lost, and nothing lies beside."""
    each, names = 12, ("a", "b", "c", "d")
    found = machines(space, *names)
    failures: list[BaseException] = []

    def count(machine: Machine) -> None:
        try:
            for _ in range(each):
                machine.take()
                number = int(machine.fs.read_bytes("/plan")) + 1
                machine.fs.write_bytes("/plan", b"%d" % number)
                machine.unuse()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=count, args=(one,), name=f"lucid-test-{one.name}") for one in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures
    assert found[0].fs.refresh(WAIT_S)
    found[0].fs.sync(timeout=WAIT_S)
    assert not conflicts(found[0])
    found[0].take()
    assert found[0].fs.read_bytes("/plan") == b"%d" % (each * len(names))
    assert is_clean(space)
