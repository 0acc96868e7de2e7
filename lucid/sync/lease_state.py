"""What the keeper of leases stands on, and what it keeps of each inode: plain data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    "SWEEP_S",
    "Giving",
    "LeaseGround",
    "Leased",
    "Wished",
    "hurry_s",
]

log = logging.getLogger(__name__)

NOWHERE = -2
"""`LeaseGround.position` of a file that has no name and gets none: no other machine can have it."""


SWEEP_S = 1.0
LOOK_S = 0.1
"""How often the log is looked at while somebody waits for a lease."""
LOOK_SHARE = 20
"""Who has waited long is in less of a hurry: by this part of how long it has waited."""
PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 1.0


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
    submit: Callable[[Op, int, float], None]
    """Commit an op, behind what is pending up to a position if that takes no longer than so many
    seconds, and ahead of all else that is pending; does not wait."""
    look: Callable[[], None]
    """Read the log now."""
    sent_at: Callable[[], float]
    """By `clock.boottime`, when the newest own entry that is in the log was about to be sent."""
    is_online: Callable[[], bool]
    is_stopped: Callable[[], bool]
    publish: Callable[[int], None]
    """Place what is unpublished of an inode, or see to it that it will be; does not wait."""
    publish_open: Callable[[int], Callable[[], bool]]
    """Publish what was written here by now, to the inode and to other files that stay open. Ask
    what it returns until that is True: all of it is placed."""
    position: Callable[[int], int]
    """Of the pending op that makes an inode; 0 if the log has it, -1 if it is not even pending,
    NOWHERE if it never will be."""
    last: Callable[[], int]


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

    def tell(self, error: int) -> None:
        """Its answer. Whoever fails at hearing it keeps no other from hearing."""
        try:
            self.done(error)
        except Exception:
            log.exception("A wish for inode %d got no answer; this is a bug in lucid", self.ino)


@dataclass
class Giving:
    """A lease on its way back: down to `keep`, once `position` is settled."""

    keep: LeaseMode
    since: float
    position: int = -1
    is_placed: Callable[[], bool] | None = None
    sent: int = 0
    """The id of its op; 0 before."""


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
    given_at: float = 0.0
    """By the clock that stands still while the machine sleeps: when it was last given back."""
    pause: float = 0.0
    not_before: float = 0.0
    """Who would not wait was refused, and asks in the log again after that pause, then."""
    told: Sequence[LeaseRow] = ()
    """Its line after the newest entry whose changes were told to the kernel: the state may have one
    more, and what was written under the lease comes in one entry with the word that it is free."""
    is_told: bool = False
    """The kernel has forgotten what it knew from before the lease came."""
    is_local: bool = False
    """No other machine can have this inode: locks are granted without a lease."""

    @property
    def used(self) -> LeaseMode:
        return LeaseMode.EXCLUSIVE if self.is_pinned else self.locked

    @property
    def is_at_stake(self) -> bool:
        """Whether something here hangs on what the log says."""
        return bool(self.used) and not self.is_local

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing happens to it by time alone, but that its term ends."""
        return bool(self.used) and not self.wishes and self.giving is None

    def slow_down(self, now: float) -> None:
        """Some programs try again and again, and each time costs entries of both machines."""
        self.pause = min(max(2 * self.pause, PAUSE_FIRST_S), PAUSE_MAX_S)
        self.not_before = now + self.pause

    def is_paced(self, now: float) -> bool:
        """Whether all that was not asked for yet can be asked for a little later."""
        is_patient = all(wish.asked_at or not wish.wait for wish in self.wishes)
        return is_patient and bool(self.pause) and now < self.not_before

    def use(self, mode: LeaseMode, by: str) -> None:
        if by == LOCKS:
            self.locked = max(self.locked, mode)
        elif by == PINS:
            self.is_pinned = self.pins > 0


def hurry_s(entries: Iterable[Leased], now: float) -> float | None:
    """How long the log may go unread at most; None: nobody waits for it, or has anything there."""
    known = [entry for entry in entries if not entry.is_local]
    since = max((wish.since for entry in known for wish in entry.wishes), default=None)
    if since is None:
        return SWEEP_S if known else None
    return min(max(LOOK_S, (now - since) / LOOK_SHARE), SWEEP_S)
