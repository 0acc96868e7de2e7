"""What the keeper of leases stands on, and what it keeps of each inode: plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lucid.format.ops import Op
from lucid.meta.state import LeaseRow, SessionRow
from lucid.sync.lease_terms import LeaseMode
from lucid.types import Clock

__all__ = [
    "LOCKS",
    "NOBODY",
    "NOWHERE",
    "PINS",
    "Giving",
    "LeaseGround",
    "Leased",
    "Wished",
]

NOWHERE = -2
"""`LeaseGround.position` of a file that has no name and gets none: no other machine can have it."""


@dataclass(frozen=True)
class LeaseGround:
    """What the leases stand on: the state, the order, and the clock that never stops."""

    session: int
    """The own one; 0 where nothing is written: then locks hold on this machine only."""
    clock: Clock
    rules: Callable[[], int]
    line: Callable[[int], Sequence[LeaseRow]]
    lines: Callable[[], Mapping[int, Sequence[LeaseRow]]]
    session_row: Callable[[int], SessionRow | None]
    next_op_id: Callable[[], int]
    submit: Callable[[Op], None]
    """Commit an op in an entry of its own, ahead of what is pending; does not wait."""
    look: Callable[[], None]
    """Read the log now."""
    sent_at: Callable[[], float]
    """By `clock.boottime`, when the newest own entry that is in the log was about to be sent."""
    is_online: Callable[[], bool]
    is_stopped: Callable[[], bool]
    publish: Callable[[int], None]
    """Place what is unpublished of an inode, or see to it that it will be; does not wait."""
    is_published: Callable[[int], bool]
    position: Callable[[int], int]
    """Of the pending op that makes an inode; 0 if the log has it, -1 if it is not even pending,
    NOWHERE if it never will be."""
    last: Callable[[], int]
    is_settled: Callable[[int], bool]


LOCKS, PINS, NOBODY = "locks", "pins", "nobody"
"""Who uses a lease that is wished for: NOBODY only wants whoever holds it idly to give it back."""


@dataclass(eq=False)
class Wished:
    """See `lease_terms.Wish`."""

    dropped: Callable[[Wished], None]
    ino: int
    mode: LeaseMode
    wait: bool
    done: Callable[[int], None]
    since: float
    """By the clock that stands still while the machine sleeps."""
    by: str = LOCKS
    asked_at: int = 0
    """The entry in which it was asked for; 0 before."""

    def withdraw(self) -> None:
        self.dropped(self)


@dataclass
class Giving:
    """A lease on its way back: down to `keep`, once `position` is settled."""

    keep: LeaseMode
    since: float
    position: int = -1
    is_sent: bool = False


@dataclass
class Leased:
    """What this machine does with the lease of one inode."""

    locked: LeaseMode = LeaseMode.NONE
    """What locks need."""
    is_pinned: bool = False
    pins: int = 0
    """Handles for writing that want the lease while they are open."""
    wishes: list[Wished] = field(default_factory=list)
    taking: LeaseMode = LeaseMode.NONE
    """Asked for in an op that is not folded yet."""
    giving: Giving | None = None
    answered: int = 0
    """The newest entry in which another session has asked, and was told that it is in use."""
    idle_since: float = 0.0
    is_told: bool = False
    """The kernel has forgotten what it knew from before the lease came."""
    is_local: bool = False
    """No other machine can have this inode: locks are granted without a lease."""

    @property
    def used(self) -> LeaseMode:
        return LeaseMode.EXCLUSIVE if self.is_pinned else self.locked

    def use(self, mode: LeaseMode, by: str) -> None:
        if by == LOCKS:
            self.locked = max(self.locked, mode)
        elif by == PINS:
            self.is_pinned = self.pins > 0
