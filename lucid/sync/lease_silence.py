"""How long other sessions have been silent, as this machine hears it."""

from __future__ import annotations

from collections.abc import Iterable

from lucid.meta.state import SessionRow

__all__ = ["Silence"]


class Silence:
    """Of each session the number of its newest entry, and when that was folded here, in seconds of
    a clock that runs on while the machine sleeps. Its owner guards it."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[float, int]] = {}

    def begin(self, sessions: Iterable[SessionRow], began: float) -> None:
        """Those that the log had before this machine began to listen."""
        for row in sessions:
            self._newest.setdefault(row.number, (began, row.last_sequence))

    def heard(self, session: int, sequence: int, now: float) -> None:
        """An entry of it was folded."""
        self._newest[session] = now, sequence

    def since(self, row: SessionRow, now: float) -> tuple[float, int]:
        """Since when, and after which entry. One that the state has, but that nobody told of yet,
        counts from now: what was known of the session before says nothing of that entry."""
        known = self._newest.get(row.number)
        if known is None or known[1] != row.last_sequence:
            known = self._newest[row.number] = now, row.last_sequence
        return known

    def put_off(self, session: int, since: float) -> None:
        """It counts as silent only since then."""
        self._newest[session] = since, self._newest[session][1]
