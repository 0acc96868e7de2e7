"""Leases where things go wrong: programs that try again and again, files that nobody has any more,
words that never come, and who writes without a lock (SEMANTICS.md, 15)."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from lucid.meta.state import SessionRow
from lucid.store.faulty import Fault
from lucid.sync.lease_silence import Silence
from lucid.sync.lease_state import LOOK_S, SWEEP_S
from lucid.sync.leases import IDLE_S, RENEW_S
from lucid.types import SystemClock
from tests.filespace.leases import EXCLUSIVE, SHARED, Machine, machines, until
from tests.filespace.spaces import WAIT_S, Space, parts_of
from tests.filespace.test_leases import conflicts


def head(machine: Machine) -> int:
    return parts_of(machine.fs).replica.head().sequence


def settle(*machines: Machine) -> None:
    """Nothing is said any more."""
    before = -1
    clock, pause = SystemClock(), threading.Event()
    end = clock.monotonic() + WAIT_S
    while before != head(machines[0]):
        assert clock.monotonic() < end, "they never stop"
        before = head(machines[0])
        pause.wait(1.0)
        for machine in machines:
            assert machine.fs.refresh(WAIT_S)


def test_a_file_open_for_writing_where_another_has_it_locked_says_little(space: Space) -> None:
    """S-811: the two do not answer one another for ever."""
    a, b = machines(space, "a", "b")
    a.take()
    with b.fs.open("/plan", "r+b", 0) as file:
        settle(a, b)
        file.write(b"unlocked")
        before = head(a)
        a.sleep(RENEW_S + 1)
        until(lambda: head(a) > before)
        settle(a, b)
        assert head(a) <= before + 2


def test_a_save_without_a_lock_waits_for_an_unused_lease(space: Space) -> None:
    """S-811: also one that is over at once, and for a lease that came while it was open."""
    a, b = machines(space, "a", "b")
    a.take()
    a.unuse()
    assert b.fs.refresh(WAIT_S)
    b.fs.write_bytes("/plan", b"at once")
    b.fs.sync(timeout=WAIT_S)
    with b.fs.open("/plan", "r+b", 0) as file:
        a.take()
        a.unuse()
        assert b.fs.refresh(WAIT_S)
        file.write(b"between")
    b.fs.sync(timeout=WAIT_S)
    assert not conflicts(b)
    assert a.fs.refresh(WAIT_S)
    assert a.fs.read_bytes("/plan") == b"between"


def test_who_writes_without_a_lock_keeps_no_lease(space: Space) -> None:
    """S-811: else two that write one after the other, and never lock, would lie beside."""
    a, b, c = machines(space, "a", "b", "c")
    c.take()
    c.unuse()
    assert a.fs.refresh(WAIT_S)
    assert b.fs.refresh(WAIT_S)
    with a.fs.open("/plan", "r+b", 0) as file:
        until(lambda: not a.lines())
        assert b.fs.refresh(WAIT_S)
        with b.fs.open("/plan", "r+b", 0):
            file.write(b"A")
            a.fs.sync(timeout=WAIT_S)
            assert not b.about("/plan").lines()
    assert not conflicts(b)


def test_who_tries_again_and_again_is_slowed_down(space: Space) -> None:
    """S-801: each answer costs two entries, and a program may ask a hundred times a second."""
    a, b = machines(space, "a", "b")
    a.take()
    before, clock = head(a), SystemClock()
    end = clock.monotonic() + 3.0
    while clock.monotonic() < end:
        assert b.try_() == errno.EAGAIN
    assert b.fs.refresh(WAIT_S)
    assert head(b) - before <= 14
    a.unuse()
    assert b.try_() == 0


def test_what_others_know_and_stays_open_is_there_too(space: Space) -> None:
    """S-802: a lock of one file guards another, which is not closed; but what is being written
    anew is not shown half."""
    a, b = machines(space, "a", "b")
    a.fs.write_bytes("/data", b"old")
    a.fs.write_bytes("/anew", b"whole")
    a.fs.sync(timeout=WAIT_S)
    a.take()
    with (
        a.fs.open("/data", "r+b", 0) as file,
        a.fs.open("/anew", "wb", 0) as anew,
        a.fs.open("/never seen", "wb", 0) as fresh,
    ):
        file.write(b"new")
        anew.write(b"ha")
        fresh.write(b"ha")
        a.unuse()
        b.take()
        assert b.fs.read_bytes("/data") == b"new"
        assert b.fs.read_bytes("/anew") == b"whole"
        assert not b.fs.exists("/never seen")


def test_an_inode_that_nobody_has_any_more_is_locked_here(space: Space) -> None:
    """S-809: a floor has ended it while it was open."""
    (a,) = machines(space, "a")
    before = head(a)
    a.ino = 1000 << 32 | 7
    a.take()
    a.unuse()
    assert a.fs.refresh(WAIT_S)
    assert head(a) == before


def test_a_lease_on_its_way_back_without_the_store(space: Space) -> None:
    """S-808: who asks for it again is answered."""
    (a,) = machines(space, "a")
    a.take()
    a.unuse()
    space.plans["a"].die()
    a.sleep(IDLE_S + 1)
    with a.keeper._news:
        entry = a.keeper._inodes[a.ino]
    until(lambda: entry.giving is not None and entry.giving.sent)
    until(lambda: not parts_of(a.fs).is_online())
    asked = a.ask(), a.ask(SHARED, wait=False)
    a.clock.passed_s += 20
    assert [one.get() for one in asked] == [errno.ENOLCK] * 2


def test_a_wait_that_is_long_because_much_is_published(space: Space) -> None:
    """S-808: the store answers, so there is no ENOLCK."""
    (a,) = machines(space, "a")
    a.take()
    a.fs.write_bytes("/data", b"x")
    hold = parts_of(a.fs).order.hold(None)
    a.fs.write_bytes("/more", b"x")
    with a.keeper._news:
        entry = a.keeper._inodes[a.ino]
    a.unuse()
    a.sleep(IDLE_S + 1)
    until(lambda: entry.giving is not None)
    asked = a.ask()
    a.clock.passed_s += 9
    assert asked.waits
    a.clock.passed_s += 9
    parts_of(a.fs).order.release_hold(hold, placed=False)
    assert asked.get() == 0


def test_a_callback_that_fails_keeps_nobody_waiting(space: Space) -> None:
    """S-828."""
    (a,) = machines(space, "a")

    def fail(error: int) -> None:
        raise ValueError("this caller is broken")

    assert a.keeper.need(a.ino, EXCLUSIVE, True, fail) is not None
    a.take()


def test_one_inode_that_fails_keeps_no_other_waiting(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-801."""
    (a,) = machines(space, "a")
    a.fs.write_bytes("/broken", b"")
    a.fs.sync(timeout=WAIT_S)
    broken, line = a.fs.stat("/broken").ino, parts_of(a.fs).replica.lease

    def fail(ino: int) -> Any:
        if ino == broken and threading.current_thread().name == "lucid-leases":
            raise ValueError("this line is broken")
        return line(ino)

    object.__setattr__(a.keeper._ground, "line", fail)
    wish = a.keeper.need(broken, EXCLUSIVE, True, lambda error: None)
    for _ in range(3):
        a.take()
        a.unuse()
    object.__setattr__(a.keeper._ground, "line", line)
    assert wish is not None
    wish.withdraw()


def test_files_that_are_closed_after_the_drive(space: Space) -> None:
    """S-807: what they had was given back already."""
    a, b = machines(space, "a", "b", lock_policy="on-open")
    handle = a.fs.open("/plan", "r+b", 0)
    a.keeper.give_all()
    handle.close()
    b.fs.open("/plan", "r+b", 0).close()


def test_who_asks_while_the_drive_ends(space: Space) -> None:
    """S-807, S-830: gets an error, and leaves nothing in line that others would wait for."""
    a, b = machines(space, "a", "b")
    a.take()
    asked = b.ask()
    until(lambda: len(b.lines()) == 2)
    b.keeper.give_all()
    assert asked.get() == errno.EIO
    assert b.ask().get() == errno.EIO
    assert a.fs.refresh(WAIT_S)
    assert len(a.lines()) == 1


def test_who_waits_long_looks_less_often(space: Space) -> None:
    """S-801: ten requests a second are for a while only."""
    a, b = machines(space, "a", "b")
    a.take()
    waiting = b.ask()
    assert b.keeper.hurry_s() == LOOK_S
    b.clock.passed_s += 60
    assert b.keeper.hurry_s() == SWEEP_S
    assert waiting.waits


def test_an_entry_that_is_just_being_folded_ends_a_silence() -> None:
    """S-805: the state has it a moment before anybody is told."""
    silence, row = Silence(), SessionRow(7, b"m", b"nonce", b"label", 5, b"")
    silence.begin([row], 100.0)
    assert silence.since(row, 190.0) == (100.0, 5)
    newer = row._replace(last_sequence=9)
    assert silence.since(newer, 190.0) == (190.0, 9)
    silence.heard(7, 9, 191.0)
    assert silence.since(newer, 260.0) == (191.0, 9)
    assert silence.since(row._replace(number=8), 300.0) == (300.0, 5)


def test_who_waits_beside_a_circle_goes_on_waiting(space: Space) -> None:
    """S-810: a machine has many programs, and only what is in the circle is told."""
    a, b, c = machines(space, "a", "b", "c")
    for name in ("/second", "/third"):
        a.fs.write_bytes(name, b"")
    a.fs.sync(timeout=WAIT_S)
    first, second, third = a.ino, a.fs.stat("/second").ino, a.fs.stat("/third").ino
    a.take()
    c.about("/third").take()
    b.about("/second").take()
    a.ino = second
    until(lambda: len(a.about("/third").lines()) == 1)
    a.ino = second
    waits = a.ask()
    until(lambda: len(b.lines()) == 2)
    b.ino = first
    closes = b.ask()
    b.ino = third
    apart = b.ask()
    assert closes.get() == errno.EDEADLK
    assert waits.waits and apart.waits
    c.unuse()
    assert apart.get() == 0


def test_it_is_granted_only_after_the_kernel_was_told(space: Space) -> None:
    """S-802: what was written comes in one entry with the lease, and is folded before it is told
    to the kernel: old pages must be gone before a program reads under its lock."""
    a, b = machines(space, "a", "b")
    a.take()
    waiting = b.ask()
    until(lambda: len(b.lines()) == 2)
    committer = b.fs.tree._opened.committer
    tell, folded, go_on = committer._changed, threading.Event(), threading.Event()

    def changed(what: Any) -> None:
        folded.set()
        assert go_on.wait(WAIT_S)
        tell(what)

    committer._changed = changed
    with a.fs.open("/plan", "r+b", 0) as file:
        file.write(b"1")
        a.unuse()
        assert folded.wait(WAIT_S)
        until(lambda: [has for _, _, has in b.lines()] == [True])
        b.keeper._go_over({b.ino}, b.clock.boottime())
        assert waiting.waits
        go_on.set()
        assert waiting.get() == 0


def test_nobody_is_called_with_the_lock_of_leases(space: Space) -> None:
    """Who places content asks the leases with the order's lock: the other way round would be a
    circle of two threads."""
    (a,) = machines(space, "a")
    ground, free = a.keeper._ground, list[bool]()

    def is_free() -> None:
        free.append(a.keeper._news.acquire(timeout=WAIT_S / 10))
        if free[-1]:
            a.keeper._news.release()

    def watched(call: Any) -> Any:
        def asked(*args: Any) -> Any:
            thread = threading.Thread(target=is_free, name="lucid-test-asks")
            thread.start()
            thread.join()
            return call(*args)

        return asked

    for name in ("position", "publish", "publish_open", "last", "submit", "look"):
        object.__setattr__(ground, name, watched(getattr(ground, name)))
    a.take()
    a.unuse()
    a.keeper.give_all()
    assert len(free) > 4 and all(free)


def test_who_has_written_before_a_lock_was_heard_of_does_not_lie_beside(space: Space) -> None:
    """S-811: what waits here to be committed while another machine's lock comes first."""
    a, b = machines(space, "a", "b")
    plan = space.plans["b"]
    plan.script("put", [Fault.PAUSE], prefix="log/")
    b.fs.write_bytes("/plan", b"without a lock")
    assert plan.hanging.acquire(timeout=WAIT_S)  # Its entry is on its way.
    a.take()
    a.unuse()
    plan.release()
    b.fs.sync(timeout=WAIT_S)
    assert a.fs.refresh(WAIT_S)
    assert a.fs.listdir("/") == b.fs.listdir("/") == ["plan"]
    assert a.fs.read_bytes("/plan") == b"without a lock"
