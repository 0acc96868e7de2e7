"""Changes of a file's content, and the segments they name (FORMAT sections 7 and 8).

A change in bytes names its segment by index into a table; a `Change` carries the segment's id, so
that it means the same everywhere. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lucid.engine.fields import Fields
from lucid.errors import FormatError
from lucid.format.check import check_bytes, check_fields, check_id, check_int
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import (
    ARRAY_ITEMS_MAX,
    BLOCK_SIZE_MAX,
    BLOCKS_MAX,
    ID_SIZE,
    INT63_MAX,
    SEGMENT_BLOCKS_MAX,
    SEGMENT_ID_SIZE,
    SEGMENT_STORED_MAX,
)

__all__ = [
    "COMPRESSED",
    "DATA",
    "HOLE",
    "LOST",
    "Change",
    "SegmentRow",
    "decode_changes",
    "decode_segments",
    "encode_changes",
    "encode_segments",
    "table_of",
]

# Kinds of a change. Stored for ever: do not renumber.
DATA = 1
HOLE = 2
LOST = 3

COMPRESSED = 1
"""Bit 0 of `flags`: the blocks were compressed before they were sealed."""

_TAG_MAX = 32
_TAG_MIN = 16
_STORED_BLOCK_MAX = BLOCK_SIZE_MAX + _TAG_MAX
_ONLY_INT = {int}
_EMPTY_TYPES = (int,) * 3
_DATA_TYPES = frozenset({(*(int,) * 9, type(None)), (*(int,) * 9, list)})


_PLAIN = Fields(
    (int, int, int, bytes, int, int, int, int, int, type(None)),
    {
        0: (0, BLOCKS_MAX),
        1: (1, BLOCKS_MAX),
        2: (DATA, DATA),
        4: (0, SEGMENT_BLOCKS_MAX),
        5: (0, SEGMENT_STORED_MAX - 1),
        6: (0, 0),
        7: (1, BLOCK_SIZE_MAX),
        8: (1, BLOCK_SIZE_MAX),
    },
)
"""A change of the commonest sort: data, not compressed."""
_UNFINISHED = Fields(
    (bytes, int, int, bytes, bytes, int),
    {1: (0, SEGMENT_STORED_MAX), 2: (0, 0), 5: (0, INT63_MAX)},
)


class Change(NamedTuple):
    """What `count` blocks of a file are from now on, from block `first`.

    For kind DATA they lie one after another in `segment` from byte `offset`, with ordinals from
    `ordinal`. `last_len` is the plaintext length of the last block as sealed, `last_valid` how many
    of its bytes count. `lengths` is None when all blocks but the last are full and none is
    compressed, else each block's stored length. HOLE reads as zeros, LOST as EIO; both have no
    segment (`b""`) and zeros elsewhere.
    """

    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    kind: int
    segment: bytes = b""
    ordinal: int = 0
    offset: int = 0
    flags: int = 0
    last_len: int = 0
    last_valid: int = 0
    lengths: tuple[int, ...] | None = None


class SegmentRow(NamedTuple):
    """One segment as a signed entry names it.

    `head` is the author's head when it was sealed. While a segment is unfinished (in the journal
    only) `footer_len` is 0 and `footer_hash` empty.
    """

    id: bytes
    stored_len: int
    footer_len: int
    footer_hash: bytes
    generation: bytes
    head: int


def table_of(rows: Iterable[SegmentRow]) -> dict[bytes, int]:
    """Segment id -> index, for encode_op and encode_changes."""
    return {row.id: index for index, row in enumerate(rows)}


def encode_segments(rows: Sequence[SegmentRow], unfinished: bool = False) -> list[Any]:
    """Rows for an entry, or with `unfinished` for the journal. Raises FormatError."""
    encoded = []
    for row in rows:
        if unfinished and _is_plain_unfinished(row):
            encoded.append([row.id, row.stored_len, None, None, row.generation, row.head])
            continue
        _check_segment(row, unfinished)
        footer: tuple[int | None, bytes | None] = (row.footer_len, row.footer_hash)
        if not row.footer_len:
            footer = (None, None)
        encoded.append([row.id, row.stored_len, *footer, row.generation, row.head])
    _check_unique(rows)
    return encoded


def decode_segments(value: Any, unfinished: bool = False) -> tuple[SegmentRow, ...]:
    """The rows that encode_segments wrote. Raises FormatError."""
    if type(value) is not list or len(value) > ARRAY_ITEMS_MAX:
        raise FormatError("A segment table is not an array.")
    rows: list[SegmentRow] = []
    for fields in value:
        check_fields(fields, 6, "A segment row")
        if fields[2] is None and fields[3] is None and unfinished:
            fields = [*fields[:2], 0, b"", *fields[4:]]
        row = SegmentRow._make(fields)
        _check_segment(row, unfinished)
        if not row.footer_len and value[len(rows)][2] is not None:
            raise FormatError("An unfinished segment has no footer fields.")
        rows.append(row)
    _check_unique(rows)
    return tuple(rows)


def _is_plain_unfinished(row: SegmentRow) -> bool:
    """Whether `_check_segment` would find nothing in the row of an unfinished segment."""
    return (
        _UNFINISHED.fit(row)
        and len(row.id) == SEGMENT_ID_SIZE
        and len(row.generation) == ID_SIZE
        and not row.footer_hash
    )


def _check_segment(row: SegmentRow, unfinished: bool) -> None:
    check_bytes(row.id, SEGMENT_ID_SIZE, "A segment id")
    check_id(row.generation, "The generation of a segment")
    check_int(row.head, 0, INT63_MAX, "The head of a segment")
    check_int(row.stored_len, 0, SEGMENT_STORED_MAX, "The stored length of a segment")
    if unfinished and row.footer_len == 0 and row.footer_hash == b"":
        return
    check_int(row.footer_len, 1, row.stored_len, "The footer length of a segment")
    check_bytes(row.footer_hash, HASH_SIZE, "The footer hash of a segment")


def _check_unique(rows: Sequence[SegmentRow]) -> None:
    if len(rows) > 1 and len({row.id for row in rows}) != len(rows):
        raise FormatError("A segment stands twice in one table.")


def encode_changes(changes: Sequence[Change], table: Mapping[bytes, int]) -> list[Any]:
    """Changes with each segment as its index in `table`.

    Raises FormatError for a change that cannot be, or a segment that `table` lacks.
    """
    encoded: list[Any] = []
    end = 0
    for change in changes:
        if _is_plain_data(change, end):
            end = change[0] + change[1]
        else:
            _check_types(change)
            end = _check_run(change, end)
            if change.kind != DATA:
                encoded.append([change.first, change.count, change.kind])
                continue
            _check_data(change)
        index = table.get(change.segment)
        if index is None:
            raise FormatError("A change names a segment that its table lacks.")
        lengths = None if change.lengths is None else list(change.lengths)
        encoded.append([*change[:3], index, *change[4:9], lengths])
    return encoded


def decode_changes(value: Any, rows: Sequence[SegmentRow]) -> tuple[Change, ...]:
    """The changes that encode_changes wrote; `rows` is the table. Raises FormatError."""
    if type(value) is not list:
        raise FormatError("The changes are not an array.")
    changes = []
    end = 0
    for fields in value:
        if type(fields) is not list:
            raise FormatError("A change is not an array.")
        kinds = tuple(map(type, fields))
        if kinds in _DATA_TYPES:
            change = _decode_data(fields, rows)
            is_data = True
        elif kinds == _EMPTY_TYPES:
            change = Change(*fields)
            is_data = False
        else:
            raise FormatError("A change has not the fields of any kind.")
        if (change.kind == DATA) != is_data:
            raise FormatError("A change has not the fields of its kind.")
        end = _check_run(change, end)
        changes.append(change)
    return tuple(changes)


def _decode_data(fields: list[Any], rows: Sequence[SegmentRow]) -> Change:
    index, lengths = fields[3], fields[9]
    if not 0 <= index < len(rows):
        raise FormatError("A change names a segment that its table lacks.")
    row = rows[index]
    if lengths is not None:
        lengths = tuple(lengths)
    change = tuple.__new__(Change, [*fields[:3], row.id, *fields[4:9], lengths])
    _check_data(change)
    # The blocks end before the footer. Whether full blocks fit depends on the block size, which is
    # not ours to know: a run that leaves its segment does not open.
    need = change.offset + (change.last_len + _TAG_MIN if lengths is None else sum(lengths))
    if row.footer_len and need > row.stored_len - row.footer_len:
        raise FormatError("A change lies outside its segment.")
    return change


def _is_plain_data(change: Change, end: int) -> bool:
    """Whether the slow look would find nothing in a change that may begin at block `end`."""
    if not _PLAIN.fit(change):
        return False
    first, count, _, segment, ordinal, _, _, last_len, last_valid, _ = change
    return (
        end <= first <= BLOCKS_MAX - count
        and ordinal + count <= SEGMENT_BLOCKS_MAX
        and last_valid <= last_len
        and len(segment) == SEGMENT_ID_SIZE
    )


def _check_types(change: Change) -> None:
    kinds = tuple(map(type, change))
    if kinds[3] is not bytes or set(kinds[:3] + kinds[4:9]) != _ONLY_INT:
        raise FormatError("A field of a change has another type.")
    if kinds[9] not in (tuple, type(None)):
        raise FormatError("The lengths of a change are not a tuple.")


def _check_run(change: Change, end: int) -> int:
    """First block, count and kind; returns the block after the change."""
    first, count, kind = change[:3]
    if not DATA <= kind <= LOST:
        raise FormatError(f"There is no change of kind {kind}.")
    if count < 1 or first < 0 or first + count > BLOCKS_MAX:
        raise FormatError("A change is out of range.")
    if first < end:
        raise FormatError("The changes of an op overlap or do not ascend.")
    if kind != DATA and (change.segment or change.lengths is not None or any(change[4:9])):
        raise FormatError("A hole has no segment.")
    return first + count


def _check_data(change: Change) -> None:
    _, count, _, segment, ordinal, offset, flags, last_len, last_valid, lengths = change
    if len(segment) != SEGMENT_ID_SIZE:
        raise FormatError("A segment id is not 32 bytes.")
    if not (
        0 <= ordinal <= ordinal + count <= SEGMENT_BLOCKS_MAX
        and 0 <= offset < SEGMENT_STORED_MAX
        and 0 <= flags <= COMPRESSED
        and 0 < last_valid <= last_len <= BLOCK_SIZE_MAX
    ):
        raise FormatError("A field of a change is out of range.")
    if lengths is None:
        if flags & COMPRESSED:
            raise FormatError("A change with compressed blocks has their lengths.")
        return
    if len(lengths) != count or set(map(type, lengths)) != _ONLY_INT:
        raise FormatError("A change has not one length for each of its blocks.")
    if min(lengths) <= _TAG_MIN or max(lengths) > _STORED_BLOCK_MAX:
        raise FormatError("The stored length of a block is out of range.")
