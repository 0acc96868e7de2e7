"""What the lines of leases say to one session: who is before it, who waits for it, who waits for
one another. Pure functions of the rows that the fold keeps (`meta.fold_lease`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lucid.format.ops import LEASE_EXCLUSIVE, LEASE_NONE, LEASE_SHARED
from lucid.meta.fold_lease import granted_rows
from lucid.meta.state import LeaseRow, SessionRow
from lucid.sync.lease_terms import Holder, LeaseMode

__all__ = ["asked_mode", "blockers", "first_waiting", "holder_of", "is_in_circle"]

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


def is_in_circle(lines: Mapping[int, Line], session: int) -> bool:
    """Whether sessions wait for one another in a circle, and of those in it `session` is the one
    whose newest wish is the newest: it is the one to give way."""
    waits: dict[int, set[int]] = {}
    newest: dict[int, int] = {}
    for line in lines.values():
        granted = list(granted_rows(line))
        for row in line:
            if row in granted:
                continue
            newest[row.session] = max(newest.get(row.session, 0), row.stamp)
            before = waits.setdefault(row.session, set())
            before.update(
                other.session
                for other in line
                if other.stamp < row.stamp
                and other.session != row.session
                and not other.mode == row.mode == LEASE_SHARED
            )
    circle = _reach(waits, session)
    if session not in circle:
        return False
    mutual = {other for other in circle if session in _reach(waits, other)}
    return all(newest.get(other, 0) <= newest[session] for other in mutual)


def _reach(waits: Mapping[int, set[int]], start: int) -> set[int]:
    """Who `start` waits for, and they, and so on."""
    found: set[int] = set()
    ahead = set(waits.get(start, ()))
    while ahead:
        found |= ahead
        ahead = {after for session in ahead for after in waits.get(session, ())} - found
    return found
