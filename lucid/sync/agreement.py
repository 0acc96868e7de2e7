"""Whether all sessions hold one state: what each says of the state hash at a checkpoint's entry.

Every session puts the hash that it found itself into its next entry. Whoever reads another's
compares; if they differ, one of the two has folded one log to another state, and this device stops
writing. At its next mount it folds the whole log anew and says what it finds then: what a session
says last of a state counts.

It owns what was found and heard lately, and keeps it in the replica over restarts. Any thread; its
lock is taken before the replica's turn.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

import msgpack

from lucid.errors import LucidError, StateMismatch
from lucid.format.entry import EntryBody, EntryRef

__all__ = ["MISMATCH_NOTE", "Agreement", "mismatch_at"]

log = logging.getLogger(__name__)

HASHES_NOTE = "state hashes"
MISMATCH_NOTE = "state mismatch"
"""Under these names the replica keeps the own state hashes, and what differs from another's."""

KEPT = 8
"""Checkpoints whose hashes are remembered. A session that says an older one is not compared."""
SESSIONS_KEPT = 1024


class Notes(Protocol):
    """Where the replica keeps notes."""

    def note(self, name: str, value: bytes | None) -> None: ...
    def noted(self, name: str) -> bytes | None: ...


class Agreement:
    """See the module. `stop` is told once when states differ."""

    def __init__(self, notes: Notes, own_session: int = 0) -> None:
        """`own_session`: the journal's, 0 for none. What it said earlier is not compared."""
        self._notes = notes
        self._own_session = own_session
        self._lock = threading.Lock()
        self._own: dict[int, bytes] = {}
        self._said = 0
        self._heard: dict[int, dict[int, bytes]] = {}
        self._agreed: set[tuple[int, int]] = set()
        self._stop: Callable[[LucidError], None] = lambda error: None
        self._go_on: Callable[[LucidError], None] = lambda error: None
        self._differing = (0, 0)
        self._urgent = 0
        self.problem: StateMismatch | None = None
        kept = notes.noted(HASHES_NOTE)
        if kept is not None:
            self._said, own = msgpack.unpackb(kept, use_list=False)
            self._own = dict(own)
        told = notes.noted(MISMATCH_NOTE)
        if told is not None:
            sequence, session, text = msgpack.unpackb(told)
            self._differing = (sequence, session)
            self.problem = StateMismatch(text)

    def on_stop(
        self, stop: Callable[[LucidError], None], go_on: Callable[[LucidError], None]
    ) -> None:
        """Who stops writing, and goes on when the reason has gone. Told at once if there is one."""
        with self._lock:
            self._stop, self._go_on = stop, go_on
            if self.problem is not None:
                stop(self.problem)

    def know(
        self, sequence: int, digest: bytes, *, believed: bool = False, urgent: bool = False
    ) -> None:
        """The own state after entry `sequence` has this hash; `believed`: because others say so,
        so this session does not say it too; `urgent`: others wait for it."""
        with self._lock:
            self._own[sequence] = digest
            if urgent:
                self._urgent = sequence
            for old in sorted(self._own)[:-KEPT]:
                del self._own[old]
            if believed:
                self._said = max(self._said, sequence)
            self._keep()
            for session, other in self._heard.pop(sequence, {}).items():
                self._compare(sequence, session, other)

    def heard(self, body: EntryBody) -> None:
        """A valid entry says this."""
        if body.state_hash is not None:
            self.compare(body.state_hash, body.session)

    def wrote(self, said: EntryRef, session: int) -> None:
        """A session's checkpoint says this. What its entries say came later."""
        with self._lock:
            later = (said.sequence, session) in self._agreed
        if not later:
            self.compare(said, session)

    def compare(self, said: EntryRef, session: int) -> None:
        """A session says this of a state; if that is not known here yet, once it is."""
        sequence, digest = said
        with self._lock:
            if sequence in self._own:
                self._compare(sequence, session, digest)
                return
            others = self._heard.setdefault(sequence, {})
            if len(others) < SESSIONS_KEPT:
                others[session] = digest
            for old in sorted(self._heard)[:-KEPT]:
                del self._heard[old]

    def to_say(self) -> EntryRef | None:
        """What the next own entry should say. Raises StateMismatch when nothing may be written."""
        with self._lock:
            if self.problem is not None:
                raise StateMismatch(str(self.problem))
            newest = max(self._own, default=0)
            return EntryRef(newest, self._own[newest]) if newest > self._said else None

    def to_say_now(self) -> EntryRef | None:
        """What others must hear though nothing is written here any more, or not yet: who differs
        and does not say so would never make the other one look."""
        with self._lock:
            sequence = self._urgent
            if sequence <= self._said or sequence not in self._own:
                return None
            return EntryRef(sequence, self._own[sequence])

    def said(self, ref: EntryRef) -> None:
        """An own entry that says this is in the log."""
        with self._lock:
            self._said = max(self._said, ref.sequence)
            self._keep()

    def own(self, sequence: int) -> bytes | None:
        """The own state hash at `sequence`, as far as it is remembered."""
        with self._lock:
            return self._own.get(sequence)

    def _keep(self) -> None:
        packed = msgpack.packb([self._said, sorted(self._own.items())])
        self._notes.note(HASHES_NOTE, packed)

    def _compare(self, sequence: int, session: int, digest: bytes) -> None:
        if session == self._own_session and session:
            return
        if self._own[sequence] == digest:
            self._agreed.add((sequence, session))
            if len(self._agreed) > SESSIONS_KEPT:
                self._agreed.remove(min(self._agreed))
            if self._differing == (sequence, session):
                log.warning("Writing goes on: session %d has the same state now.", session)
                gone, self._differing, self.problem = self.problem, (0, 0), None
                self._notes.note(MISMATCH_NOTE, None)
                if gone is not None:
                    self._go_on(gone)
            return
        if self.problem is not None:
            return
        text = (
            f"Session {session} has another state than this device after entry {sequence} of the"
            " log, which both have folded: one of the two is wrong. Nothing more is written."
            " Unmount, and mount again: this device then folds the whole log anew. If it says this"
            " again, do the same on the other device, and then mount here once more."
        )
        self._notes.note(MISMATCH_NOTE, msgpack.packb([sequence, session, text]))
        self._differing = (sequence, session)
        self._urgent = sequence
        self.problem = StateMismatch(text)
        log.error("Writing stops: %s", text)
        self._stop(self.problem)


def mismatch_at(notes: Notes) -> int | None:
    """At which entry another had another state, by an alarm of an earlier time."""
    told = notes.noted(MISMATCH_NOTE)
    return None if told is None else int(msgpack.unpackb(told)[0])
