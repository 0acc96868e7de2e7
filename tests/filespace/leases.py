"""Machines that ask for leases, in tests."""

from __future__ import annotations

import errno
import threading
from typing import Any

from lucid.filespace import Filespace
from lucid.sync.lease_terms import LeaseMode, Wish
from lucid.sync.leases import LeaseKeeper
from lucid.types import SystemClock
from tests.filespace.spaces import WAIT_S, Space

NONE, SHARED, EXCLUSIVE = LeaseMode.NONE, LeaseMode.SHARED, LeaseMode.EXCLUSIVE


class Sleeper(SystemClock):
    """The clock of a machine that may sleep."""

    def __init__(self) -> None:
        self.slept_s = 0.0
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed_s

    def boottime(self) -> float:
        return super().boottime() + self.passed_s + self.slept_s


class Asked:
    """A lease that was asked for: its answer, 0 or an errno, once it is there."""

    def __init__(self, machine: Machine, mode: LeaseMode, wait: bool) -> None:
        self._answered = threading.Event()
        self.answer: int | None = None
        self.wish: Wish | None = machine.keeper.need(machine.ino, mode, wait, self._done)
        if self.wish is None:
            self._done(0)

    def _done(self, answer: int) -> None:
        self.answer = answer
        self._answered.set()

    def get(self, timeout: float = WAIT_S) -> int:
        assert self._answered.wait(timeout), "no answer"
        assert self.answer is not None
        return self.answer

    @property
    def waits(self) -> bool:
        return not self._answered.is_set()


class Machine:
    """One drive, and what it does with the lease of one file."""

    def __init__(self, space: Space, name: str, **settings: Any) -> None:
        self.clock = Sleeper()
        self.name = name
        self.fs: Filespace = space.connect(name, clock=self.clock, **settings)
        self.lost: list[int] = []
        self.keeper.on_lost = self.lost.append
        self.ino = 0

    @property
    def keeper(self) -> LeaseKeeper:
        return self.fs.tree._opened.leases

    def about(self, path: str) -> Machine:
        assert self.fs.refresh(WAIT_S)
        self.ino = self.fs.stat(path).ino
        return self

    def ask(self, mode: LeaseMode = EXCLUSIVE, wait: bool = True) -> Asked:
        return Asked(self, mode, wait)

    def take(self, mode: LeaseMode = EXCLUSIVE) -> None:
        assert self.ask(mode).get() == 0

    def try_(self, mode: LeaseMode = EXCLUSIVE) -> int:
        """0, or EAGAIN."""
        answer = self.ask(mode, wait=False).get()
        assert answer in (0, errno.EAGAIN)
        return answer

    def unuse(self, mode: LeaseMode = NONE) -> None:
        self.keeper.used(self.ino, mode)

    def sleep(self, seconds: float) -> None:
        self.clock.slept_s += seconds
        with self.keeper._news:
            self.keeper._news.notify_all()

    def lines(self) -> list[tuple[int, int, bool]]:
        """(session, mode, whether it has the lease) for each in line, as this machine knows it."""
        return [
            (who.session, who.mode, has) for ino, who, has in self.keeper.table() if ino == self.ino
        ]


def machines(space: Space, *names: str, path: str = "/plan", **settings: Any) -> list[Machine]:
    """Drives of one filespace that has one file, all about that."""
    found = [Machine(space, name, **settings) for name in names]
    if not found[0].fs.exists(path):
        found[0].fs.write_bytes(path, b"0")
        found[0].fs.sync(timeout=WAIT_S)
    return [machine.about(path) for machine in found]


def until(is_so: Any, what: str = "it did not come") -> None:
    """Wait for something that nobody tells of."""
    clock, pause = SystemClock(), threading.Event()
    end = clock.monotonic() + WAIT_S
    while not is_so():
        assert clock.monotonic() < end, what
        pause.wait(0.02)
