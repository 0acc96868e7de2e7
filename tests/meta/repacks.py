"""Repacks of plain blocks: what a collector would do to segments, without its bytes.

Like a collector these look at a state, write the live blocks of some segments into one new segment,
and make the op that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from lucid.format.change import Change
from lucid.format.ops import Move, Repack
from lucid.meta.memory import MemoryState
from tests.meta.authors import GEOMETRY, Author, Blocks

Lying = dict[bytes, dict[int, tuple[int, int]]]
"""segment -> ordinal -> (offset, stored length)."""


def runs_in(dump: dict[str, list[tuple[Any, ...]]]) -> list[Change]:
    """Every run that a version or a staged change names, from the dump of a state."""
    fields = [row[4] for row in dump["extent"]] + [row[2] for row in dump["staged"]]
    return [Change._make(one) for one in fields]


def lying_in(runs: Iterable[Change]) -> Lying:
    """Which blocks of which segment are named."""
    found: Lying = {}
    for run in runs:
        offset = run.offset
        for at in range(run.count if run.segment else 0):
            length = GEOMETRY.stored_block
            if run.lengths is not None:
                length = run.lengths[at]
            elif at == run.count - 1:
                length = run.last_len + GEOMETRY.tag
            found.setdefault(run.segment, {})[run.ordinal + at] = (offset, length)
            offset += length
    return found


def moves_of(blocks: Blocks, lying: Lying, sources: Collection[bytes]) -> tuple[Move, ...]:
    """The live blocks of `sources` in one new segment, behind one foreign block."""
    fresh = b"%032d" % len(blocks.segments)
    placed: list[tuple[int, bytes]] = [(0, b"foreign")]
    offset, moves = 9, list[Move]()
    for source in sorted(sources):
        for ordinal, (at, length) in sorted(lying.get(source, {}).items()):
            last = moves[-1] if moves else None
            if (
                last is not None
                and last.source == source
                and last.source_ordinal + last.count == ordinal
                and offset - last.offset == at - last.source_offset
            ):
                moves[-1] = last._replace(count=last.count + 1)
            else:
                moves.append(Move(source, ordinal, at, 1, fresh, len(placed), offset))
            placed.append((offset, blocks.segments[source][ordinal][1]))
            offset += length
    if moves:
        blocks.segments[fresh] = placed
    return tuple(moves)


def repack(author: Author, state: MemoryState, *sources: bytes) -> Repack:
    """What lives in these segments by the state lies in a new one."""
    moves = moves_of(author.blocks, lying_in(runs_in(state.dump())), sources)
    assert moves
    return Repack(*author.head(), moves)
