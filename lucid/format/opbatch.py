"""Many ops at once: what `decode_op` does to each, in columns.

An entry of 10,000 ops is parsed beside a busy mount, and most of its ops are of one kind. Looking
at a field of all of them takes a few calls into C, a third of the time of looking at each op. This
only ever accepts: where anything is odd, `decode_op` looks at each op, decides and says why.
Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, islice, pairwise
from operator import add, le
from typing import Any, cast

from lucid.errors import FormatError
from lucid.format.change import DATA, Change, SegmentRow, decode_changes
from lucid.format.check import check_name
from lucid.format.limits import BLOCK_SIZE_MAX, BLOCKS_MAX, NAME_MAX, SEGMENT_BLOCKS_MAX
from lucid.format.opcode import SPEC_OF_KIND, OpSpec, decode_op, decode_xattrs
from lucid.format.ops import Op

__all__ = ["SLICE", "decode_ops"]

SLICE = 512
"""Ops to hand over at a time: no call into C then takes over a tenth of a millisecond."""

_WORTH_IT = 8
_DOTS = frozenset({b".", b".."})
_new_change = cast(Callable[[Iterable[Any]], Change], partial(tuple.__new__, Change))


def decode_ops(rows: Sequence[Any], table: Sequence[SegmentRow]) -> list[Op]:
    """The op of each row, as decode_op gives it. Raises FormatError, UnsupportedFormat."""
    found: list[Op | None] = [None] * len(rows)
    for kind, places in _by_kind(rows).items():
        spec = SPEC_OF_KIND.get(kind)
        if spec is None or len(places) < _WORTH_IT:
            continue
        try:
            ops = _decode_alike(spec, [rows[place] for place in places], table)
        except FormatError:
            continue
        if ops is not None:
            for place, op in zip(places, ops, strict=True):
                found[place] = op
    return [
        decode_op(row, table) if op is None else op for row, op in zip(rows, found, strict=True)
    ]


def _by_kind(rows: Sequence[Any]) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        if type(row) is list and row and type(row[0]) is int:
            places.setdefault(row[0], []).append(place)
    return places


def _decode_alike(
    spec: OpSpec, rows: list[list[Any]], table: Sequence[SegmentRow]
) -> list[Op] | None:
    """Ops of one kind; None where one of them needs a closer look."""
    if spec.absent or set(map(len, rows)) != {len(spec.types) + 1}:
        return None
    columns: list[Sequence[Any]] = [*zip(*rows, strict=True)]
    del columns[0]
    if spec.xattrs >= 0:
        columns[spec.xattrs] = [decode_xattrs(pairs) for pairs in columns[spec.xattrs]]
    if spec.changes >= 0:
        columns[spec.changes] = _decode_change_lists(columns[spec.changes], table)
    if any(
        set(map(type, column)) != {kind} for kind, column in zip(spec.types, columns, strict=True)
    ):
        return None
    numbers = cast(Sequence[Sequence[int]], spec.numbers(columns))
    limits = zip(numbers, spec.lows, spec.highs, strict=True)
    if not all(low <= min(column) and max(column) <= high for column, low, high in limits):
        return None
    for at, check in spec.texts:
        if check is check_name:
            if not _are_names(columns[at]):
                return None
        else:
            for text in columns[at]:
                check(text)
    make = partial(tuple.__new__, spec.make)
    ops = list(map(make, zip(*columns, strict=True)))
    if spec.also is not None:
        for op in ops:
            spec.also(op)
    return cast(list[Op], ops)


def _are_names(names: Sequence[bytes]) -> bool:
    joined = b"".join(names)
    return (
        min(map(len, names)) > 0
        and max(map(len, names)) <= NAME_MAX
        and b"/" not in joined
        and b"\0" not in joined
        and _DOTS.isdisjoint(names)
    )


def _decode_change_lists(
    lists: Sequence[Any], table: Sequence[SegmentRow]
) -> list[tuple[Change, ...]]:
    """The changes of each op. Raises FormatError."""
    if set(map(type, lists)) == {list}:
        changes = _decode_plain(list(chain.from_iterable(lists)), table)
        if changes is not None:
            rest = iter(changes)
            taken = [tuple(islice(rest, len(rows))) for rows in lists]
            if all(len(run) < 2 or _ascend(run) for run in taken):
                return taken
    return [decode_changes(rows, table) for rows in lists]


def _ascend(run: tuple[Change, ...]) -> bool:
    return all(left.first + left.count <= right.first for left, right in pairwise(run))


def _decode_plain(rows: list[Any], table: Sequence[SegmentRow]) -> list[Change] | None:
    """Changes of plain data: full blocks, no lengths, not compressed. None where one is not."""
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {10}:
        return None
    columns: list[Sequence[Any]] = [*zip(*rows, strict=True)]
    first, count, kind, index, ordinal, offset, flags, last_len, last_valid, lengths = columns
    if any(set(map(type, column)) != {int} for column in columns[:9]):
        return None
    if set(kind) != {DATA} or any(flags) or set(map(type, lengths)) != {type(None)}:
        return None
    if min(index) < 0 or max(index) >= len(table):
        return None
    # A footer of 0 stands for an unfinished segment: how long it will be is not known yet.
    if any(not row.footer_len for row in table):
        return None
    ends = [row.stored_len - row.footer_len - 16 for row in table]
    if not (
        min(first) >= 0
        and min(count) > 0
        and max(map(add, first, count)) <= BLOCKS_MAX
        and min(ordinal) >= 0
        and max(map(add, ordinal, count)) <= SEGMENT_BLOCKS_MAX
        and min(offset) >= 0
        and min(last_valid) > 0
        and max(last_len) <= BLOCK_SIZE_MAX
        and all(map(le, last_valid, last_len))
        and all(map(le, map(add, offset, last_len), map(ends.__getitem__, index)))
    ):
        return None
    ids = [row.id for row in table]
    columns[3] = list(map(ids.__getitem__, index))
    return list(map(_new_change, zip(*columns, strict=True)))
