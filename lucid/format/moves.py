"""Moves of sealed blocks from one segment to another, as a repack tells them (FORMAT section 8).

In bytes a move names the segment that it leads to by index into the entry's table, and the one that
it leads away from by its id: the entry brings no row of that. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lucid.errors import FormatError
from lucid.format.change import SegmentRow
from lucid.format.check import check_fields
from lucid.format.limits import (
    ARRAY_ITEMS_MAX,
    SEGMENT_BLOCKS_MAX,
    SEGMENT_ID_SIZE,
    SEGMENT_STORED_MAX,
)

__all__ = ["MOVE_SIZE_MAX", "Move", "check_moves", "decode_moves", "encode_moves"]

MOVE_SIZE_MAX = 80
"""At least as many bytes as one move takes in an entry."""

_TYPES = (bytes, int, int, int, bytes, int, int)


class Move(NamedTuple):
    """`count` blocks that lie one after another in the segment `source`, from an ordinal and an
    offset on, lie in the same order, with the same lengths, in `segment` as well."""

    source: bytes
    source_ordinal: int
    source_offset: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    segment: bytes
    ordinal: int
    offset: int


def encode_moves(moves: Sequence[Move], table: Mapping[bytes, int]) -> list[Any]:
    """Moves with the segment that each leads to as its index in `table`.

    Raises FormatError for a move that cannot be, or a segment that `table` lacks.
    """
    check_moves(moves)
    if any(move.segment not in table for move in moves):
        raise FormatError("A move leads to a segment that its table lacks.")
    return [[*move[:4], table[move.segment], *move[5:]] for move in moves]


def decode_moves(value: Any, rows: Sequence[SegmentRow]) -> tuple[Move, ...]:
    """The moves that encode_moves wrote; `rows` is the table. Raises FormatError."""
    if type(value) is not list:
        raise FormatError("The moves are not an array.")
    moves = []
    for fields in value:
        check_fields(fields, 7, "A move")
        index = fields[4]
        if type(index) is not int or not 0 <= index < len(rows):
            raise FormatError("A move leads to a segment that its table lacks.")
        moves.append(Move._make([*fields[:4], rows[index].id, *fields[5:]]))
    check_moves(moves)
    return tuple(moves)


def check_moves(moves: Sequence[Move]) -> None:
    """They are some, each can be, and they ascend and do not overlap where they lead away from.

    Raises FormatError.
    """
    if not 0 < len(moves) <= ARRAY_ITEMS_MAX:
        raise FormatError(f"A repack cannot have {len(moves)} moves.")
    source, end = b"", 0
    for move in moves:
        _check_move(move)
        if move.source < source or (move.source == source and move.source_ordinal < end):
            raise FormatError("The moves of a repack overlap or do not ascend.")
        source, end = move.source, move.source_ordinal + move.count


def _check_move(move: Move) -> None:
    if tuple(map(type, move)) != _TYPES:
        raise FormatError("A field of a move has another type.")
    if len(move.source) != SEGMENT_ID_SIZE or len(move.segment) != SEGMENT_ID_SIZE:
        raise FormatError("A segment id is not 32 bytes.")
    if move.source == move.segment:
        raise FormatError("A move leads to the segment that it leads away from.")
    if not (
        move.count > 0
        and 0 <= move.source_ordinal <= SEGMENT_BLOCKS_MAX - move.count
        and 0 <= move.ordinal <= SEGMENT_BLOCKS_MAX - move.count
        and 0 <= move.source_offset < SEGMENT_STORED_MAX
        and 0 <= move.offset < SEGMENT_STORED_MAX
    ):
        raise FormatError("A field of a move is out of range.")
