"""Which segments an op may name: from rules 3 on, those that no collector can have taken.

The state has a row for each segment that is named. A floor ends the rows that nothing names any
more and that were sealed before it; whose row is gone may be gone from the store. So such a segment
never comes in again, unless it was sealed by one who had seen the floor's entry. Authors prepare
their ops again before it comes to that. Part of the fold: total and pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lucid.format.change import DATA, Change, SegmentRow
from lucid.meta.fold_rules import number_of, rules_in_force
from lucid.meta.state import State

__all__ = ["RULES_OF_SEGMENTS", "VALUE_FLOOR", "admit_segments", "may_enter", "names_gone"]

VALUE_FLOOR = "floor"
"""Value of the state: the sequence of the newest floor, in decimal digits."""
RULES_OF_SEGMENTS = 3
"""The first rules that end the rows of segments."""


def may_enter(state: State, head: int) -> bool:
    """Whether a segment that has no row, and was sealed at this head of its author, gets one."""
    floor = number_of(state, VALUE_FLOOR)
    return head >= floor or rules_in_force(state) < RULES_OF_SEGMENTS


def admit_segments(state: State, rows: Iterable[SegmentRow]) -> None:
    """An entry names these. Whoever commits it calls this before its first op is folded."""
    for row in rows:
        if may_enter(state, row.head) or state.segment(row.id) is not None:
            state.add_segment(row)


def names_gone(state: State, changes: Sequence[Change]) -> bool:
    """Whether one of the changes names a segment without a row."""
    if not changes or not number_of(state, VALUE_FLOOR):
        return False  # Without a floor no row is gone: this is asked for each op.
    if rules_in_force(state) < RULES_OF_SEGMENTS:
        return False
    known = b""
    for change in changes:
        if change.kind == DATA and change.segment != known:
            if state.segment(change.segment) is None:
                return True
            known = change.segment
    return False
