"""Being an author: a session in the log, and fresh ids for its ops.

`OpIds` may be called by any thread; `take_session` by the one that follows the log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from lucid.errors import InternalError, Stopped, StoreUnavailable
from lucid.format.limits import SESSION_MAX, UINT32_MAX
from lucid.format.ops import SessionOp, make_op_id
from lucid.meta.fold_effect import Author
from lucid.meta.log import Follower, LogReader, LogWriter, follow
from lucid.meta.state import MemberRow, SessionRow
from lucid.types import Clock, Entropy

__all__ = ["LIMIT_STEP", "Authors", "OpIds", "author_of", "take_session"]

LIMIT_STEP = 65_536
"""Counters are made sure of in steps: one fdatasync for so many ops."""

TOKEN_SIZE = 16
SESSION_TRIES = 1000
"""Lost races before a device gives up to get a session: far beyond any real crowd."""


class OpIds:
    """Fresh op ids of one session.

    `sure` is told a new limit, and returns once that is safe on disk; ids below it may be used
    then. After a restart begin at the last limit: what lies below may have been used. Guarded by
    _lock: everything.
    """

    def __init__(self, session: int, limit: int, sure: Callable[[int], None]) -> None:
        if not 0 < session <= SESSION_MAX:
            raise InternalError(f"There is no session {session}.")
        self.session = session
        self._sure = sure
        self._lock = threading.Lock()
        self._next = max(limit, 1)
        self._limit = self._next

    def take(self) -> int:
        """The next id. Raises Stopped when the session has no more, and what `sure` raises."""
        with self._lock:
            if self._next >= self._limit:
                self._raise_limit()
            counter = self._next
            self._next += 1
            return make_op_id(self.session, counter)

    def _raise_limit(self) -> None:
        limit = min(self._next + LIMIT_STEP, UINT32_MAX + 1)
        if limit <= self._next:
            raise Stopped(
                f"Session {self.session} has used all its numbers. Unmount, and mount again with a"
                " new state directory."
            )
        self._sure(limit)
        self._limit = limit


class Authors(Protocol):
    """Who knows sessions and members. `Replica` does."""

    def session(self, number: int) -> SessionRow | None: ...
    def member(self, member: bytes) -> MemberRow | None: ...


class SessionKeeper(Authors, Follower, Protocol):
    """What taking a session needs of the replica."""

    def sessions_of(self, member: bytes) -> list[SessionRow]: ...


def author_of(authors: Authors, session: int) -> Author:
    """The author of ops of a session, with the labels that stand in the state. Raises Stopped."""
    row = authors.session(session)
    member = None if row is None else authors.member(row.member)
    if row is None or member is None:
        raise Stopped(f"Session {session} is not in the log: this device cannot write.")
    return Author(session, row.member, member.label, row.device_label)


def take_session(
    reader: LogReader,
    writer: LogWriter,
    replica: SessionKeeper,
    member: bytes,
    label: bytes,
    clock: Clock,
    entropy: Entropy,
    noted: Callable[[int, bytes], None] | None = None,
) -> SessionRow:
    """Get a new session for this device, labelled `label`, and fold the log up to it.

    `noted` hears (sequence, hash) of each entry before it is put. Raises StoreUnavailable if the
    store does not answer; what it may have taken by then is a session that nobody uses.
    """
    token = entropy(TOKEN_SIZE)
    for _ in range(SESSION_TRIES):
        follow(reader, replica)
        mine = [row for row in replica.sessions_of(member) if row.nonce == token]
        if mine:
            return mine[-1]
        prepared = writer.build(0, (SessionOp(0, clock.time_ns(), token, label),))
        if noted is not None:
            noted(prepared.sequence, prepared.hash)
        writer.put(prepared)  # won or lost: the log says it when it is read
    raise StoreUnavailable(
        "Other devices were faster each time this one asked for a session. Try again."
    )
