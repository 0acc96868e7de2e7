"""Whether machines wait for one another in a circle, as far as the log says here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from lucid.format.ops import LEASE_SHARED
from lucid.meta.fold_lease import granted_rows
from lucid.meta.state import LeaseRow

__all__ = ["Circles"]

Line = Sequence[LeaseRow]

READ_S = 1.0
"""All lines are read so often at most, however many wait."""


class Circles:
    """Asked by one thread. `lines` reads all lines of the state."""

    def __init__(self, lines: Callable[[], Mapping[int, Line]]) -> None:
        self._lines = lines
        self._waits = Waits({}, {})
        self._read_at = float("-inf")

    def gives_way(self, line: Line, session: int, now: float) -> bool:
        """Whether what `session` waits for in a line waits for it in turn, and of all in that
        circle it has the newest wish: it is the one to give way. `now`: monotonic seconds."""
        if now >= self._read_at + READ_S:
            self._read(now)
        if not _is_in_circle(line, session, self._waits):
            return False
        self._read(now)
        return _is_in_circle(line, session, self._waits)

    def _read(self, now: float) -> None:
        self._waits, self._read_at = _waits_of(self._lines().values()), now


class Waits(NamedTuple):
    """Who waits for whom, in all lines."""

    before: Mapping[int, set[int]]
    """Of each session that waits, those that it waits for."""
    newest: Mapping[int, int]
    """The newest wish of each of them."""


def _waits_of(lines: Iterable[Line]) -> Waits:
    newest, before = dict[int, int](), dict[int, set[int]]()
    for line in lines:
        granted = list(granted_rows(line))
        for row in line:
            if row not in granted:
                newest[row.session] = max(newest.get(row.session, 0), row.stamp)
                before.setdefault(row.session, set()).update(_ahead_of(line, row))
    return Waits(before, newest)


def _is_in_circle(line: Line, session: int, waits: Waits) -> bool:
    granted = list(granted_rows(line))
    mine = [row for row in line if row.session == session and row not in granted]
    ahead = {other for row in mine for other in _ahead_of(line, row)}
    circle = ahead | {after for other in ahead for after in _reach(waits.before, other)}
    if session not in circle:
        return False
    mutual = {other for other in circle if session in _reach(waits.before, other)}
    newest = waits.newest.get(session, 0)
    return all(waits.newest.get(other, 0) <= newest for other in mutual)


def _ahead_of(line: Line, row: LeaseRow) -> set[int]:
    """The sessions that a row waits for."""
    return {
        other.session
        for other in line
        if other.stamp < row.stamp
        and other.session != row.session
        and not other.mode == row.mode == LEASE_SHARED
    }


def _reach(waits: Mapping[int, set[int]], start: int) -> set[int]:
    """Who `start` waits for, and they, and so on."""
    found: set[int] = set()
    ahead = set(waits.get(start, ()))
    while ahead:
        found |= ahead
        ahead = {after for session in ahead for after in waits.get(session, ())} - found
    return found
