"""Rules of take, give and takeover: who has the lease of an inode. Part of the fold: total, pure.

Who asks stands in line, in the order of the log. A row has the lease when every row before it
that is of another session is shared, and so is it itself. So nobody who waits is passed over by who
comes later, and the fold needs no clock: how long one waits for a silent holder before its rows are
taken over is the matter of who waits (SEMANTICS.md, 14).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lucid.format.ops import (
    LEASE_EXCLUSIVE,
    LEASE_NONE,
    LEASE_SHARED,
    Give,
    Take,
    Takeover,
    session_of,
)
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_rules import rules_in_force
from lucid.meta.state import LeaseRow, State

__all__ = [
    "RULES_OF_LEASES",
    "fold_give",
    "fold_take",
    "fold_takeover",
    "granted_mode",
    "granted_rows",
    "is_leased_elsewhere",
]

RULES_OF_LEASES = 4

Line = Sequence[LeaseRow]
"""The rows of one inode, in the order in which they were taken."""


def granted_rows(line: Line) -> Iterator[LeaseRow]:
    """Those that have the lease now."""
    sessions, alone = set[int](), set[int]()  # before the row: all, and who wants it exclusive
    for row in line:
        in_the_way = alone if row.mode == LEASE_SHARED else sessions
        if in_the_way <= {row.session}:
            yield row
        sessions.add(row.session)
        if row.mode != LEASE_SHARED:
            alone.add(row.session)


def granted_mode(line: Line, session: int) -> int:
    """The strongest lease that a session has; LEASE_NONE if it has none."""
    modes = (row.mode for row in granted_rows(line) if row.session == session)
    return max(modes, default=LEASE_NONE)


def is_leased_elsewhere(line: Line, session: int) -> bool:
    """Whether another session has an exclusive lease: then content of this one gives way."""
    return any(row.mode == LEASE_EXCLUSIVE and row.session != session for row in granted_rows(line))


def fold_take(state: State, op: Take, author: Author) -> Effect:
    if rules_in_force(state) < RULES_OF_LEASES or state.inode(op.ino) is None:
        return NOTHING
    session = session_of(op.op_id)
    line = state.lease(op.ino)
    if any(row.session == session and row.mode >= op.mode for row in line):
        return NOTHING
    state.put_lease(op.ino, (*line, LeaseRow(session, op.mode, state.stamp, op.time_ns)))
    return _APPLIED


def fold_give(state: State, op: Give, author: Author) -> Effect:
    session = session_of(op.op_id)
    line = state.lease(op.ino)
    mine = [row for row in line if row.session == session]
    kept = next((row for row in mine if row.mode == LEASE_SHARED), None)
    if kept is None and granted_mode(line, session) == LEASE_EXCLUSIVE:
        kept = mine[0]
    if op.mode == LEASE_NONE:
        kept = None
    left = tuple(
        row._replace(mode=LEASE_SHARED) if row == kept else row
        for row in line
        if row.session != session or row == kept
    )
    if left == tuple(line):
        return NOTHING
    state.put_lease(op.ino, left)
    return _APPLIED


def fold_takeover(state: State, op: Takeover, author: Author) -> Effect:
    session = session_of(op.op_id)
    line = state.lease(op.ino)
    holder = state.session(op.session)
    if (
        op.session == session
        or holder is None
        or holder.last_sequence > op.sequence
        or not any(row.session == session for row in line)
    ):
        return NOTHING
    left = tuple(row for row in line if row.session != op.session)
    if left == tuple(line):
        return NOTHING
    state.put_lease(op.ino, left)
    return _APPLIED


_APPLIED = Effect(Status.APPLIED, (), (), 0)
