"""The rule of repack: blocks lie in other segments now. Part of the fold: total and pure.

No version, size or time changes, and no file reads otherwise. What a move covers in part stays
where it is, and so does what came after the collector had looked. The head of a segment that
something was moved away from becomes the entry's own sequence, so that no floor ends its row before
that entry is below it: whoever is behind by less than the retention still finds it in the store.
"""

from __future__ import annotations

from bisect import bisect_right

from lucid.format.change import Change
from lucid.format.ops import Move, Repack
from lucid.format.runs import stored_bytes
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_rules import rules_in_force
from lucid.meta.fold_segments import RULES_OF_SEGMENTS
from lucid.meta.state import STAMP_SHIFT, State

__all__ = ["fold_repack"]


def fold_repack(state: State, op: Repack, author: Author) -> Effect:
    if rules_in_force(state) < RULES_OF_SEGMENTS:
        return NOTHING
    moves = _moves_by_source(state, op)
    if not moves:
        return NOTHING
    left: set[bytes] = set()

    def moved(run: Change) -> Change:
        fresh = _moved(state, moves[run.segment], run)
        if fresh is None:
            return run
        left.add(run.segment)
        return fresh

    inodes = tuple(state.move_blocks(moves, moved))
    if not left:
        return NOTHING
    for source in sorted(left):
        state.raise_head(source, state.stamp >> STAMP_SHIFT)
    return Effect(Status.APPLIED, inodes, (), 0)


def _moves_by_source(state: State, op: Repack) -> dict[bytes, list[Move]]:
    """The moves between segments that have a row, ascending by the ordinal they lead away from."""
    moves: dict[bytes, list[Move]] = {}
    for move in op.moves:
        if state.segment(move.source) is not None and state.segment(move.segment) is not None:
            moves.setdefault(move.source, []).append(move)
    return moves


def _moved(state: State, moves: list[Move], run: Change) -> Change | None:
    """The run in its new place; None where no move covers it whole, or it would not lie before the
    footer there."""
    place = bisect_right(moves, run.ordinal, key=lambda move: move.source_ordinal) - 1
    if place < 0:
        return None
    move = moves[place]
    behind, further = run.ordinal - move.source_ordinal, run.offset - move.source_offset
    row = state.segment(move.segment)
    if row is None or behind + run.count > move.count or further < 0:
        return None
    offset = move.offset + further
    if offset + stored_bytes(run, state.geometry) > row.stored_len - row.footer_len:
        return None
    return run._replace(segment=move.segment, ordinal=move.ordinal + behind, offset=offset)
