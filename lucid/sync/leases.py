"""The leases of one drive: asked for in the log, kept alive, given back, taken over.

A lease is granted by the fold alone. This side decides when to ask and when to give: it is given
back as soon as nothing here needs it and another session waits, or after some time without use; but
first what was written under it is published. Every entry of a session says that its device is
there. Who holds a lease counts from before it sent its newest entry, and stops at two thirds of the
term; who waits for a silent holder counts the whole term from when it folded that entry. So no two
machines ever believe to hold one lease, whatever their clocks say. Time is counted by a clock that
runs on while a machine sleeps.

The thread lucid-leases does all of this. Other threads leave word for it, and are answered at once
only where the lease is here already. It holds no lock while it calls anybody.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from lucid.errors import LucidError
from lucid.format.entry import EntryBody
from lucid.format.ops import Give, Take, Takeover
from lucid.meta.fold_lease import RULES_OF_LEASES, granted_mode, is_leased_elsewhere
from lucid.meta.state import STAMP_SHIFT, LeaseRow
from lucid.sync.lease_circles import Circles
from lucid.sync.lease_lines import asked_mode, blockers, first_waiting, holder_of
from lucid.sync.lease_silence import Silence
from lucid.sync.lease_state import (
    LOCKS,
    NOBODY,
    NOWHERE,
    PINS,
    SWEEP_S,
    Giving,
    Leased,
    LeaseGround,
    Wished,
    hurry_s,
)
from lucid.sync.lease_terms import Holder, LeaseMode, Wish

__all__ = ["TERM_S", "LeaseKeeper"]

log = logging.getLogger(__name__)

TERM_S = 60.0
"""How long a session may be silent before its leases are taken over by who waits for them."""
HELD_S = TERM_S * 2 / 3
"""How long after its newest entry was sent a holder relies on its leases."""
RENEW_S = TERM_S / 3
"""A session that uses a lease writes an entry at least so often."""
IDLE_S = 30.0
"""An unused lease is given back after this."""
LINGER_S = 2.0
"""A wish that nobody waits for any more stays in line for this: who failed may try again."""
TRY_S = 3.0
"""How long who would not wait waits for a word of the holder."""
CUT_OFF_S = 10.0
"""How long a wish waits for a store that does not answer."""
GIVE_S = 10.0
"""How long what was written under a lease may take to be published, before it is given anyway."""
CIRCLE_S = 3.0
"""How long a wish waits before it is asked whether machines wait for one another in a circle."""
STEP_S = 0.02
SWEEP_ALL = 10
"""So many sweeps apart even what is used, and waits for nothing, is looked at."""
CLOSE_S = 3.0


class LeaseKeeper:
    """See the module, and `lease_terms.Leases`. Guarded by _news: all fields."""

    def __init__(self, ground: LeaseGround) -> None:
        self._ground = ground
        self._clock = ground.clock
        self._news = threading.Condition()
        self._inodes: dict[int, Leased] = {}
        self._dirty: set[int] = set()
        self._silence = Silence()
        self._circles = Circles(ground.lines)
        self._hurried: set[int] = set()
        """Inodes that wait for something that nobody tells of."""
        self._takes: dict[tuple[int, int], int] = {}  # (inode, session) -> entry
        self._began = self._clock.boottime()
        self._failed: set[int] = set()
        self._is_asked = self._is_leaving = self._closed = False
        self.on_lost: Callable[[int], None] = lambda ino: None
        self.on_unpinned: Callable[[int], None] = lambda ino: None
        """As `on_lost`, where handles that are open for writing had pinned the lease."""
        self.before_grant: Callable[[int], bool] = lambda ino: True
        self.before_give: Callable[[int], None] = lambda ino: None
        self._thread = threading.Thread(target=self._run, name="lucid-leases", daemon=True)

    def start(self) -> None:
        """After the log was read to its end. What an earlier run held is given back."""
        session, lines = self._ground.session, self._ground.lines()
        others = {row.session for line in lines.values() for row in line} - {session}
        with self._news:
            self._silence.begin(filter(None, map(self._ground.session_row, others)), self._began)
            for ino, line in lines.items():
                if asked_mode(line, session):
                    entry = self._inodes.setdefault(ino, Leased())
                    entry.giving = Giving(LeaseMode.NONE, self._clock.boottime())
                    self._dirty.add(ino)
        self._thread.start()

    def give_all(self) -> None:
        """Give back what is held, for a few seconds at most: nobody here needs it any more, and
        who still asks gets EIO."""
        with self._news:
            self._is_leaving = True
            for ino, entry in self._inodes.items():
                entry.locked, entry.pins, entry.is_pinned = LeaseMode.NONE, 0, False
                if entry.giving is None and not entry.is_local:
                    entry.giving = Giving(LeaseMode.NONE, self._clock.boottime())
                self._dirty.add(ino)
            self._news.notify_all()
            self._news.wait_for(
                lambda: all(entry.giving is None for entry in self._inodes.values()), CLOSE_S
            )

    def close(self) -> None:
        """Ends every wait: EIO. Idempotent."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        for entry in self._inodes.values():
            wishes, entry.wishes = entry.wishes, []
            for wish in wishes:
                wish.tell(errno.EIO)

    # -- asked by locks: see `lease_terms.Leases`

    def need(
        self, ino: int, mode: LeaseMode, wait: bool, done: Callable[[int], None]
    ) -> Wish | None:
        return self._need(ino, mode, wait, done, LOCKS)

    def _need(
        self, ino: int, mode: LeaseMode, wait: bool, done: Callable[[int], None], by: str
    ) -> Wish | None:
        if not self.are_carried:
            return None
        with self._news:
            entry = self._inodes.setdefault(ino, Leased())
            is_used = entry.used >= mode and self._is_in_term()
            if entry.is_local or is_used or self._is_here(ino, entry, mode):
                entry.use(mode, by)
                return None
            wish = Wished(self._withdraw, ino, mode, wait, done, self._clock.monotonic(), by)
            entry.wishes.append(wish)
            self._wake(ino)
            return wish

    def used(self, ino: int, mode: LeaseMode) -> None:
        with self._news:
            entry = self._inodes.get(ino)
            if entry is not None and entry.locked != mode:
                if mode < entry.locked:
                    self._wake(ino)
                entry.locked = mode
                entry.idle_since = self._clock.boottime()

    def holder(self, ino: int, mode: LeaseMode) -> Holder | None:
        if not self.are_carried:
            return None
        rows = blockers(self._ground.line(ino), self._ground.session, mode)
        return next(map(self._holder, rows), None)

    @property
    def are_carried(self) -> bool:
        """Whether locks hold across machines: the filespace's rules know leases, and this device
        writes."""
        ground = self._ground
        return bool(ground.session) and ground.rules() >= RULES_OF_LEASES

    # -- asked by handles that write

    def pin(self, ino: int, done: Callable[[int], None]) -> Wish | None:
        """A handle for writing wants the exclusive lease while it is open. As `need`, not waiting;
        `unpin` must follow in any case."""
        with self._news:
            self._inodes.setdefault(ino, Leased()).pins += 1
        return self._need(ino, LeaseMode.EXCLUSIVE, False, done, PINS)

    def unpin(self, ino: int) -> None:
        with self._news:
            entry = self._inodes.get(ino)
            if entry is None or not entry.pins:
                return  # It was given back with all others.
            entry.pins -= 1
            if not entry.pins:
                entry.is_pinned = False
            entry.idle_since = self._clock.boottime()
            self._wake(ino)

    def is_kept_elsewhere(self, ino: int) -> bool:
        """Whether another session has the exclusive lease: content from here would lie beside."""
        line, session = self._ground.line(ino), self._ground.session
        return is_leased_elsewhere(line, session) and self.are_carried

    def nudge(self, ino: int, done: Callable[[int], None]) -> Wish | None:
        """Somebody writes here without a lock: whoever does not use the lease should give it back.
        As `need`, not waiting; it is not kept, but goes as soon as what was accepted here by then
        is in the log."""
        return self._need(ino, LeaseMode.EXCLUSIVE, False, done, NOBODY)

    def hurry_s(self) -> float | None:
        """How long the log may go unread at most; None: as the committer likes."""
        with self._news:
            return hurry_s(self._inodes.values(), self._clock.monotonic())

    def folded(self, sequence: int, body: EntryBody, own: bool) -> None:
        """A valid entry was folded, and its changes are on their way to the kernel."""
        session = self._ground.session
        with self._news:
            if not own:
                self._silence.heard(body.session, sequence, self._clock.boottime())
            for op in body.ops:
                if isinstance(op, (Take, Give, Takeover)):
                    self._dirty.add(op.ino)
                    if op.ino in self._inodes:
                        self._inodes[op.ino].told = self._ground.line(op.ino)
                    if not own and isinstance(op, Take):
                        self._takes[op.ino, body.session] = sequence
                        self._is_asked = self._is_asked or op.ino in self._inodes
                    elif isinstance(op, Takeover):
                        self._takes.pop((op.ino, op.session), None)
                        if op.session == session and op.ino in self._inodes:
                            self._inodes[op.ino].is_told = False
                    elif not own:
                        self._takes.pop((op.ino, body.session), None)
                    elif op.ino in self._inodes:
                        self._own_folded(sequence, self._inodes[op.ino], op)
            if self._dirty or (own and session):
                self._news.notify_all()

    def is_asked(self) -> bool:
        """Whether another machine has asked for a lease since the last call: an op answers it."""
        is_asked, self._is_asked = self._is_asked, False
        return is_asked

    def _own_folded(self, sequence: int, entry: Leased, op: Take | Give) -> None:
        """REQUIRES: _news is held."""
        if isinstance(op, Take):
            for wish in entry.wishes:
                if not wish.asked_at and wish.mode <= op.mode:
                    wish.asked_at = sequence
            if entry.taking <= op.mode:
                entry.taking = LeaseMode.NONE
        elif entry.giving is not None and entry.giving.sent == op.op_id:
            entry.is_told = entry.is_told and entry.giving.keep > LeaseMode.NONE
            entry.giving = None
            entry.given_at = self._clock.monotonic()

    def table(self) -> list[tuple[int, Holder, bool]]:
        """(inode, who, whether it has the lease or waits) of the whole filespace."""
        return [
            (ino, self._holder(row), granted_mode(line, row.session) >= row.mode)
            for ino, line in sorted(self._ground.lines().items())
            for row in line
        ]

    def _holder(self, row: LeaseRow) -> Holder:
        return holder_of(row, self._ground.session_row(row.session))

    # -- the thread

    def _wake(self, ino: int) -> None:
        """REQUIRES: _news is held."""
        self._dirty.add(ino)
        self._news.notify_all()

    def _withdraw(self, wish: Wished) -> None:
        with self._news:
            entry = self._inodes.get(wish.ino)
            if entry is not None and wish in entry.wishes:
                entry.wishes.remove(wish)
                entry.idle_since = self._clock.boottime()
                self._wake(wish.ino)

    def _run(self) -> None:
        sweep_at, sweeps = 0.0, 0
        while True:
            with self._news:
                if not self._dirty and not self._closed:
                    self._news.wait(self._pause_s())
                if self._closed:
                    return
                now = self._clock.boottime()
                inodes, self._dirty = self._dirty | self._hurried, set()
                if now >= sweep_at:
                    sweep_at, sweeps = now + SWEEP_S, sweeps + 1
                    inodes |= self._swept(sweeps % SWEEP_ALL == 0)
                self._hurried = set()
            self._go_over(inodes, now)

    def _swept(self, is_all: bool) -> set[int]:
        """What may be due though nobody told of it. REQUIRES: _news is held."""
        failed, self._failed = self._failed, set()
        return failed | {
            ino for ino, entry in self._inodes.items() if is_all or not entry.is_at_rest
        }

    def _go_over(self, inodes: set[int], now: float) -> None:
        steps: list[Callable[[float], None]] = [self._check_term, self._renew]
        steps += [partial(self._look, ino) for ino in inodes]
        for step in steps:
            try:
                step(now)
            except Exception as error:
                # One that fails is tried again with the next sweep, and keeps no other waiting.
                if not isinstance(error, LucidError):
                    log.exception("The leases failed for a moment; this is a bug in lucid")
                with self._news:
                    self._failed |= inodes & self._inodes.keys()

    def _pause_s(self) -> float | None:
        """REQUIRES: _news is held."""
        if not self._inodes:
            return None
        return STEP_S if self._hurried else SWEEP_S

    def _is_here(self, ino: int, entry: Leased, mode: LeaseMode) -> bool:
        """Whether the lease can be used at once. REQUIRES: _news is held."""
        if entry.giving is not None or not entry.is_told:
            return False
        line = self._ground.line(ino)
        session = self._ground.session
        if granted_mode(line, session) < mode or not self._is_in_term():
            return False
        # Who waits comes first, unless it would wait for what is used here in any case.
        return bool(entry.used) or first_waiting(line, session) is None

    def _is_in_term(self) -> bool:
        return self._clock.boottime() < self._ground.sent_at() + HELD_S

    def _check_term(self, now: float) -> None:
        """What is used and could not be renewed in time is lost."""
        if now < self._ground.sent_at() + HELD_S:
            return
        with self._news:
            gone = [ino for ino, entry in self._inodes.items() if entry.is_at_stake]
        for ino in gone:
            self._lose(ino, "no entry of this device came through in time")

    def _lose(self, ino: int, why: str) -> None:
        with self._news:
            entry = self._inodes[ino]
            was_pinned = entry.is_pinned
            entry.locked = LeaseMode.NONE
            entry.is_pinned = entry.is_told = False
            entry.giving = Giving(LeaseMode.NONE, self._clock.boottime())
            self._dirty.add(ino)
        log.error("The lease of inode %d is lost: %s.", ino, why)
        self.on_lost(ino)
        if was_pinned:
            self.on_unpinned(ino)

    def _renew(self, now: float) -> None:
        """While leases are used, others hear of this device."""
        if now < self._ground.sent_at() + RENEW_S:
            return
        with self._news:
            used = [(ino, entry) for ino, entry in self._inodes.items() if entry.is_at_stake]
            if not used or any(entry.taking for entry in self._inodes.values()):
                return
            ino, entry = used[0]
            mode = entry.taking = entry.used
        self._submit_take(ino, mode)

    def _look(self, ino: int, now: float) -> None:
        """Do what is to do for one inode."""
        line, session = self._ground.line(ino), self._ground.session
        mine = LeaseMode(granted_mode(line, session))
        with self._news:
            entry = self._inodes.get(ino)
            if entry is None:
                # A line of others, or of an earlier life of this session.
                if not asked_mode(line, session):
                    return
                entry = self._inodes[ino] = Leased(idle_since=now)
            is_lost = entry.used > mine and entry.giving is None and entry.is_at_stake
        if is_lost and self._ground.position(ino) == NOWHERE:
            self._go_local(entry)
        elif is_lost:
            self._lose(ino, "another machine has taken it over")
            return
        if entry.giving is None:
            self._grant(ino, entry, min(mine, granted_mode(entry.told, session)))
            self._ask(ino, entry, line, now)
            self._answer_waiting(ino, entry, line, mine, now)
        self._refuse(ino, entry, line, now)
        self._forget_unused(ino, entry, line, mine, now)
        self._go_on_giving(ino, entry, now)

    def _grant(self, ino: int, entry: Leased, mine: int) -> None:
        with self._news:
            ready = [wish for wish in entry.wishes if wish.mode <= mine]
            if not ready or not self._is_in_term():
                return
            is_told = entry.is_told
        if not is_told and not self.before_grant(ino):
            return
        with self._news:
            entry.is_told = True
            ready = [wish for wish in entry.wishes if wish in ready]
            for wish in ready:
                entry.wishes.remove(wish)
                entry.use(wish.mode, wish.by)
                entry.idle_since = self._clock.boottime()
            entry.pause = 0.0
            is_kept = bool(entry.used or entry.wishes or entry.pins)
        self._ground.look()  # From now on others are heard of sooner.
        for wish in ready:
            wish.tell(0)
        if ready and not is_kept and all(wish.by == NOBODY for wish in ready):
            last = self._ground.last()
            with self._news:
                if not entry.used and entry.giving is None:
                    entry.giving = Giving(LeaseMode.NONE, self._clock.boottime(), last)
                    self._hurried.add(ino)

    def _ask(self, ino: int, entry: Leased, line: Sequence[LeaseRow], now: float) -> None:
        """Stand in line for what is wished, and end the rows of those who are silent too long."""
        session = self._ground.session
        with self._news:
            if not entry.wishes or entry.giving is not None or self._is_leaving:
                return
            mode = max(wish.mode for wish in entry.wishes)
            is_asked = (
                all(wish.asked_at for wish in entry.wishes)
                and asked_mode(line, session) >= mode
                and self._is_in_term()
            )
            if entry.taking >= mode:
                return
            if not is_asked and entry.is_paced(now):
                self._hurried.add(ino)
                return
        if is_asked:
            self._ground.look()
            self._take_over(ino, line, mode, now)
            return
        position = self._ground.position(ino)
        with self._news:
            if position == 0:
                entry.taking = mode
            else:
                self._hurried.add(ino)
        if position == 0:
            self._submit_take(ino, mode)
        elif position == NOWHERE:
            self._go_local(entry)
        elif position < 0:
            self._ground.publish(ino)

    def _go_local(self, entry: Leased) -> None:
        with self._news:
            entry.is_local = True
            wishes, entry.wishes = entry.wishes, []
            for wish in wishes:
                entry.use(wish.mode, wish.by)
        for wish in wishes:
            wish.tell(0)

    def _submit_take(self, ino: int, mode: LeaseMode) -> None:
        ground = self._ground
        ground.submit(Take(ground.next_op_id(), self._clock.time_ns(), ino, int(mode)), 0, 0.0)

    def _take_over(self, ino: int, line: Sequence[LeaseRow], mode: LeaseMode, now: float) -> None:
        ground = self._ground
        for row in blockers(line, ground.session, mode):
            holder = ground.session_row(row.session)
            if holder is None:
                continue
            with self._news:
                since, last = self._silence.since(holder, self._clock.boottime())
            if now < since + TERM_S:
                continue
            log.warning(
                "Inode %d: %s has been silent for a minute; its lease is taken over.",
                ino, self._holder(row).device,
            )  # fmt: skip
            with self._news:
                # Heard of again, or not: nothing more is done about it for a while.
                self._silence.put_off(row.session, now - TERM_S + CUT_OFF_S)
            op_id = ground.next_op_id()
            ground.submit(Takeover(op_id, self._clock.time_ns(), ino, row.session, last), 0, 0.0)

    def _answer_waiting(
        self, ino: int, entry: Leased, line: Sequence[LeaseRow], mine: LeaseMode, now: float
    ) -> None:
        """Another session waits for this one: give, or say that the lease is in use."""
        waiting = first_waiting(line, self._ground.session)
        if waiting is None:
            return
        with self._news:
            if not entry.used or (entry.used < mine and waiting.mode == LeaseMode.SHARED):
                entry.giving = Giving(entry.used, now)
            elif self._asked_at(ino, waiting) > entry.answered and not entry.taking:
                entry.answered = self._asked_at(ino, waiting)
                entry.taking = mine
            else:
                return
        if entry.giving is None:
            self._submit_take(ino, mine)

    def _refuse(self, ino: int, entry: Leased, line: Sequence[LeaseRow], now: float) -> None:
        """Answer the wishes that will not come true now."""
        waited_until = self._clock.monotonic()
        refused: list[tuple[Wished, int]] = []
        with self._news:
            for wish in list(entry.wishes):
                error = self._error_of(wish, entry, line, waited_until)
                if error:
                    refused.append((wish, error))
                    entry.wishes.remove(wish)
                    entry.idle_since = now
                if error == errno.EAGAIN:
                    entry.slow_down(now)
        for wish, error in refused:
            wish.tell(error)

    def _asked_at(self, ino: int, row: LeaseRow) -> int:
        """The newest entry in which the session of a row has asked, or said that it is in use."""
        return self._takes.get((ino, row.session), row.stamp >> STAMP_SHIFT)

    def _error_of(self, wish: Wished, entry: Leased, line: Sequence[LeaseRow], now: float) -> int:
        """REQUIRES: _news is held."""
        ground, waited = self._ground, now - wish.since
        is_online, is_giving = ground.is_online(), entry.giving is not None
        if self._is_leaving or ground.is_stopped():
            return errno.EIO
        # What is still on its way out of here takes its time; a store that is away does not.
        is_busy = is_online and not entry.taking and (wish.wait or is_giving)
        if not wish.asked_at and not is_busy and now > max(wish.since, entry.given_at) + CUT_OFF_S:
            return errno.ENOLCK
        if not wish.wait:
            if waited > TRY_S:
                return errno.EAGAIN if wish.asked_at or is_busy else errno.ENOLCK
            if wish.asked_at and any(
                self._asked_at(wish.ino, row) > wish.asked_at
                for row in blockers(line, ground.session, wish.mode)
            ):
                return errno.EAGAIN
        elif not is_online and waited > CUT_OFF_S:
            return errno.ENOLCK
        elif waited > CIRCLE_S and self._circles.gives_way(line, ground.session, now):
            return errno.EDEADLK
        return 0

    def _forget_unused(
        self, ino: int, entry: Leased, line: Sequence[LeaseRow], mine: LeaseMode, now: float
    ) -> None:
        session = self._ground.session
        with self._news:
            if entry.wishes or entry.pins or entry.taking or entry.giving is not None:
                return
            asked = LeaseMode(asked_mode(line, session))
            if not asked:
                if not entry.used:
                    del self._inodes[ino]
                return
            idle = now - entry.idle_since
            if asked > mine and idle > LINGER_S:
                entry.giving = Giving(mine, now)
            elif not entry.used and idle > IDLE_S:
                entry.giving = Giving(LeaseMode.NONE, now)

    def _go_on_giving(self, ino: int, entry: Leased, now: float) -> None:
        """Publish, then give, in the entry that has what was published or in one behind it."""
        giving, ground = entry.giving, self._ground
        if giving is None or giving.sent:
            return
        is_late = now > giving.since + GIVE_S
        if giving.position < 0:
            if giving.is_placed is None:
                self.before_give(ino)
                giving.is_placed = ground.publish_open(ino)
            if giving.is_placed() or is_late:
                giving.position = ground.last()
        if giving.position < 0:
            with self._news:
                self._hurried.add(ino)
            return
        giving.sent = ground.next_op_id()
        mode = min(giving.keep, LeaseMode.SHARED)
        op = Give(giving.sent, self._clock.time_ns(), ino, int(mode))
        ground.submit(op, giving.position, max(0.0, giving.since + GIVE_S - now))
