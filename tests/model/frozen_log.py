"""Logs that never change, tests/model/vectors/rules-*.txt, and the states that they lead to.

A file holds one op a line: session, kind, fields. Each was written once from three machines that
write at random, and holds every kind of conflict; the one of rules 2 and 3 also clones, and floors,
and there each op is an entry; so it is in the one of rules 3 alone, which repacks besides, and in
the one of rules 4, whose machines take, give and take over leases. Run as a program this prints the
digest of each state.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

from lucid.format import ops
from lucid.format.change import Change, SegmentRow
from lucid.format.ops import Move, Op
from lucid.meta.fold_segments import admit_segments
from lucid.meta.memory import MemoryState
from lucid.meta.state import STAMP_SHIFT
from tests.meta.authors import Author, Blocks, empty_state
from tests.meta.replicas import segment_row
from tests.model.writers import LABELS, found_sessions

VECTORS = Path(__file__).parent / "vectors"
LOGS = {
    "1": (1, "rules-1.txt"),
    "2": (2, "rules-2.txt"),
    "3": (3, "rules-2.txt"),
    "3 with repacks": (3, "rules-3.txt"),
    "4 with leases": (4, "rules-4.txt"),
}
"""The rules of each, and its file."""


def write_line(session: int, op: Op) -> str:
    """An op as a line of the file."""
    return f"({session}, {type(op).__name__!r}, {_plain(op)!r})"


def read_line(line: str) -> tuple[int, Op]:
    """The session and the op of a line."""
    session, kind, fields = ast.literal_eval(line)
    make: Any = getattr(ops, kind)
    op = make._make(fields)
    if "changes" in make._fields:
        op = op._replace(changes=tuple(Change._make(change) for change in op.changes))
    if "moves" in make._fields:
        op = op._replace(moves=tuple(Move._make(move) for move in op.moves))
    return session, op


def frozen_ops(log: str) -> list[tuple[int, Op]]:
    """Session and op of each line."""
    text = (VECTORS / LOGS[log][1]).read_text("ascii")
    return [read_line(line) for line in text.splitlines()]


def frozen_state(log: str) -> MemoryState:
    """The state that a frozen log makes."""
    rules = LOGS[log][0]
    blocks = Blocks()
    authors = {n: Author(n, label, blocks) for n, label in enumerate(LABELS, 1)}
    state = empty_state(rules)
    if rules > 3:
        found_sessions(state)
    for sequence, (session, op) in enumerate(frozen_ops(log), 2):
        if rules > 1:
            state.stamp = (sequence << STAMP_SHIFT) - 1
        if rules > 2:
            admit_segments(state, [_row(segment, sequence) for segment in ops.segments_of(op)])
        authors[session].fold(state, op)
        if rules > 3:
            note_entry(state, session, sequence)
    return state


def note_entry(state: MemoryState, session: int, sequence: int) -> None:
    """The newest entry of a session."""
    row = state.session(session)
    assert row is not None
    state.put_session(row._replace(last_sequence=sequence))


def _row(segment: bytes, sequence: int) -> SegmentRow:
    """It was sealed some entries before."""
    return segment_row(segment, max(1, sequence - 1 - int(segment) * 7 % 40))


def digest(state: MemoryState) -> str:
    """BLAKE2b of a state's dump."""
    return hashlib.blake2b(repr(state.dump()).encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    print(*(digest(frozen_state(log)) for log in LOGS))
