"""What the lines of leases say to one session: who is before it, who waits for it. Pure functions
of the rows that the fold keeps (`meta.fold_lease`)."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.format.ops import LEASE_EXCLUSIVE, LEASE_NONE, LEASE_SHARED
from lucid.meta.fold_lease import granted_rows
from lucid.meta.state import LeaseRow, SessionRow
from lucid.sync.lease_terms import Holder, LeaseMode

__all__ = ["asked_mode", "blockers", "first_waiting", "holder_of"]

Line = Sequence[LeaseRow]


def asked_mode(line: Line, session: int) -> int:
    """The strongest mode that a session has, or stands in line for; LEASE_NONE if none."""
    return max((row.mode for row in line if row.session == session), default=LEASE_NONE)


def blockers(line: Line, session: int, mode: int) -> list[LeaseRow]:
    """The rows of others that a lease of `session` in `mode` has to wait for: those before its own
    row in that mode, or all of them where it has none yet."""
    own = [row.stamp for row in line if row.session == session and row.mode >= mode]
    until = min(own, default=None)
    return [
        row
        for row in line
        if row.session != session
        and (until is None or row.stamp < until)
        and LEASE_EXCLUSIVE in (row.mode, mode)
    ]


def first_waiting(line: Line, session: int) -> LeaseRow | None:
    """The first row of another session that waits, and has a granted one of `session` before it
    that stands against it; None if nobody waits for `session`."""
    granted = list(granted_rows(line))
    mine = [row for row in granted if row.session == session]
    for row in line:
        if row.session == session or row in granted:
            continue
        for own in mine:
            if own.stamp < row.stamp and not own.mode == row.mode == LEASE_SHARED:
                return row
    return None


def holder_of(row: LeaseRow, session: SessionRow | None) -> Holder:
    """A row as people read it."""
    label = "" if session is None else session.device_label.decode("utf-8", "replace")
    return Holder(row.session, LeaseMode(row.mode), label or str(row.session), row.time_ns)
