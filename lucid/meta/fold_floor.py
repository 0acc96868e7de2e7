"""The rule of floor: what was dead before an entry is gone. Part of the fold: total and pure.

A version is dead from the entry on in which another one of its inode followed it; an inode, with
its newest version, from the entry on in which it lost its last name. From rules 3 on the rows of
segments go as well that nothing names then and that were sealed below the floor.
"""

from __future__ import annotations

from lucid.format.ops import Floor
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_rules import VALUE_SINCE, number_of, rules_in_force
from lucid.meta.fold_segments import RULES_OF_SEGMENTS, VALUE_FLOOR
from lucid.meta.state import STAMP_SHIFT, State

__all__ = ["VALUE_FLOOR", "fold_floor"]


def fold_floor(state: State, op: Floor, author: Author) -> Effect:
    if rules_in_force(state) < 2:
        return NOTHING
    if not number_of(state, VALUE_FLOOR) < op.sequence <= state.stamp >> STAMP_SHIFT:
        return NOTHING
    state.put_value(VALUE_FLOOR, b"%d" % op.sequence)
    before = op.sequence << STAMP_SHIFT
    gone = tuple(ino for ino in state.nameless() if _removed_at(state, ino) < before)
    for ino in gone:
        state.end_inode(ino)
    for ino in state.rewritten(before):
        older = [row for row in state.versions(ino) if row.stamp < before]
        if len(older) > 1:
            state.end_versions(ino, older[:-1], older[-1])
    if rules_in_force(state) >= RULES_OF_SEGMENTS:
        state.end_segments(op.sequence)
    return Effect(Status.APPLIED, gone, (), 0)


def _removed_at(state: State, ino: int) -> int:
    """The stamp of a removal. Rules 1 did not remember it: then it is that of their end."""
    row = state.removed(ino)
    return number_of(state, VALUE_SINCE) << STAMP_SHIFT if row is None else row.stamp
