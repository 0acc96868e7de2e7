"""A log that never changes, tests/model/vectors/rules-1.txt, and the state that it leads to.

The file holds one op a line: session, kind, fields. It was written once from three machines that
write at random, and holds every kind of conflict. Run as a program this prints the state's digest.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

from lucid.format import ops
from lucid.format.change import Change
from lucid.format.ops import Op
from lucid.meta.memory import MemoryState
from tests.meta.authors import Author, Blocks, empty_state
from tests.model.writers import LABELS

PATH = Path(__file__).parent / "vectors" / "rules-1.txt"


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
    return session, op


def frozen_state() -> MemoryState:
    """The state that the frozen log makes."""
    blocks = Blocks()
    authors = {n: Author(n, label, blocks) for n, label in enumerate(LABELS, 1)}
    state = empty_state()
    for line in PATH.read_text("ascii").splitlines():
        session, op = read_line(line)
        authors[session].fold(state, op)
    return state


def digest(state: MemoryState) -> str:
    """BLAKE2b of a state's dump."""
    return hashlib.blake2b(repr(state.dump()).encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    print(digest(frozen_state()))
