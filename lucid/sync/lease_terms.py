"""What whoever arbitrates locks inside one machine asks of the filespace's leases, and is told.

A lease is the right of one session, or of several that only read, to an inode, for as long as the
log says so. Locks of programs are arbitrated under it, inside the machine that has it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

__all__ = ["Holder", "LeaseMode", "Leases", "NoLeases", "Wish"]


class LeaseMode(IntEnum):
    """How strong a lease is. Several sessions may have a shared one of the same inode."""

    NONE = 0
    SHARED = 1
    EXCLUSIVE = 2


class Holder(NamedTuple):
    """Another session that has the lease of an inode, or the one next in line for it."""

    session: int
    mode: LeaseMode
    device: str
    """The label of its device, or its number where the label is not known."""
    since_ns: int
    """Nanoseconds since the epoch, by that device's clock."""


class Wish(Protocol):
    """A lease that was asked for and is not there yet."""

    def withdraw(self) -> None:
        """It is not wanted any more; its `done` may have been called, or be under way. Never
        blocks."""


class Leases(Protocol):
    """The leases of one mounted drive. Every method may be called by any thread, never waits for
    the store, and may be called with the caller's own lock held; `done` and `on_lost` are called
    with no lock of this side held, by a thread of its own."""

    on_lost: Callable[[int], None]
    """Set once, before use: called with an inode whose lease was lost while it was in use, by a
    takeover or because no entry of ours came through in time. What was locked under it is not
    protected any more, and must fail from then on."""

    before_grant: Callable[[int], bool]
    """Set once, before use: returns when the kernel was told of all that was folded so far, and has
    no older pages of an inode; False: not in time."""

    before_give: Callable[[int], None]
    """Set once, before use: returns when the kernel has handed over what programs wrote to mappings
    of an inode, if that does not take long."""

    def need(
        self, ino: int, mode: LeaseMode, wait: bool, done: Callable[[int], None]
    ) -> Wish | None:
        """Ask for the lease of `ino` in `mode` or stronger.

        None: this drive has it, it counts as used in that mode from now on, and `done` is not
        called. Else `done` is called once, unless the wish is withdrawn before: with 0 when the
        lease is there (and counts as used in that mode), or with an errno: EAGAIN if another
        machine uses it and `wait` is false, ENOLCK if the store does not answer, EDEADLK if this
        machine and others would wait for one another, EIO if nothing can be written any more.
        """

    def used(self, ino: int, mode: LeaseMode) -> None:
        """The strongest mode that the locks of this machine on `ino` need now; NONE when the last
        one went. Told after every change, in order. An unused lease is kept for a while, and given
        back when another machine wishes it."""

    def holder(self, ino: int, mode: LeaseMode) -> Holder | None:
        """Another session that has a lease of `ino` that stands against one in `mode`, as far as
        the log says here; None if there is none."""


class NoLeases:
    """Locks hold on this machine only."""

    def __init__(self) -> None:
        self.on_lost: Callable[[int], None] = lambda ino: None
        self.before_grant: Callable[[int], bool] = lambda ino: True
        self.before_give: Callable[[int], None] = lambda ino: None

    def need(
        self, ino: int, mode: LeaseMode, wait: bool, done: Callable[[int], None]
    ) -> Wish | None:
        return None

    def used(self, ino: int, mode: LeaseMode) -> None:
        pass

    def holder(self, ino: int, mode: LeaseMode) -> Holder | None:
        return None
