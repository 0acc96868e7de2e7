"""Ops in columns give what each op gives alone: the same values, and a refusal where it refuses."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.errors import DataError
from lucid.format import opbatch
from lucid.format.canonical import pack, unpack
from lucid.format.change import SegmentRow, table_of
from lucid.format.opbatch import decode_ops
from lucid.format.opcode import decode_op, encode_op
from lucid.format.ops import DATA, Change, Op
from tests.format import values
from tests.format.values import CHANGES, EVERY_OP, PLAIN_OPS, ROWS, segment_row

TABLE = table_of(ROWS)
Decode = Callable[[Sequence[Any], Sequence[SegmentRow]], list[Op]]


def one_by_one(rows: Sequence[Any], table: Sequence[SegmentRow]) -> list[Op]:
    return [decode_op(row, table) for row in rows]


def outcome(
    decode: Decode, rows: Sequence[Any], table: Sequence[SegmentRow] = ROWS
) -> list[Op] | str:
    try:
        return decode(copy.deepcopy(rows), table)
    except DataError as error:
        return str(error)


def rows_of(ops: Sequence[Op]) -> list[Any]:
    rows: list[Any] = unpack(pack([encode_op(op, TABLE) for op in ops]))
    return rows


@pytest.mark.parametrize("op", PLAIN_OPS, ids=lambda op: type(op).__name__)
def test_many_of_a_kind(op: Op) -> None:
    some = [op._replace(op_id=values.op_id(n)) for n in range(1, 40)]
    assert decode_ops(rows_of(some), ROWS) == some


def test_kinds_mixed_keep_their_order() -> None:
    mixed = [*PLAIN_OPS, *EVERY_OP] * 12
    random.Random(1).shuffle(mixed)
    assert decode_ops(rows_of(mixed), ROWS) == mixed
    assert decode_ops([], ROWS) == []


def test_columns_are_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [PLAIN_OPS[0]._replace(changes=CHANGES[:1])] * 20
    rows = rows_of(plain)

    def never(*_: object) -> Op:
        raise AssertionError("an op was looked at alone")

    monkeypatch.setattr(opbatch, "decode_op", never)
    monkeypatch.setattr(opbatch, "decode_changes", never)
    assert decode_ops(rows, ROWS) == plain


EDGE_VALUES: tuple[Any, ...] = (
    None, True, 1.5, "text", b"", b"x", b"..", b"a/b", b"a\0", b"x" * 255, b"x" * 256, -1, 0, 1,
    2, 3, 4095, 4096, 65_535, 65_536, 2**20, 2**20 + 1, 8_450_000, 8_454_144, 2**32 - 1, 2**32,
    2**44, 2**60, 2**60 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0o100644, 0o040755, 0o010600,
    [], [[]], [5], [[b"a", b"1"]], [[b"b", b""], [b"a", b""]], [[0, 1, 2]], [[0, 1, 2], [0, 1, 3]],
)  # fmt: skip


@settings(max_examples=200)
@given(st.data())
def test_one_odd_field_among_many(data: st.DataObject) -> None:
    """The odd op is refused, or taken, with the very words of the single parser."""
    op = data.draw(st.sampled_from(PLAIN_OPS))
    if hasattr(op, "changes") and data.draw(st.booleans()):
        op = op._replace(changes=CHANGES[:1])
    rows = rows_of([op] * 12)
    place = data.draw(st.integers(0, 11))
    target = rows[place]
    for _ in range(4):
        at = data.draw(st.integers(0, len(target) - 1))
        if isinstance(target[at], list) and target[at] and data.draw(st.booleans()):
            target = target[at]
            continue
        target[at] = data.draw(st.sampled_from(EDGE_VALUES))
        break
    assert outcome(decode_ops, rows) == outcome(one_by_one, rows)


@settings(max_examples=25)
@given(st.data())
def test_any_ops(data: st.DataObject) -> None:
    table = data.draw(values.tables())
    some = data.draw(st.lists(values.ops(table), min_size=1, max_size=3)) * 9
    rows = unpack(pack([encode_op(op, table_of(table)) for op in some]))
    assert outcome(decode_ops, rows, table) == some


@pytest.mark.parametrize(
    "changes",
    [
        (CHANGES[0], CHANGES[0]._replace(first=1)),
        (CHANGES[0], CHANGES[0]._replace(first=2)),
        (CHANGES[0]._replace(offset=8_454_144 - 4096 - 16 - 7000),),
        (CHANGES[0]._replace(offset=8_454_144 - 4096 - 15 - 7000),),
    ],
)
def test_changes_at_their_edges(changes: tuple[Change, ...]) -> None:
    rows = rows_of([PLAIN_OPS[6]] * 12)
    for row in rows:
        row[4] = [[*change[:3], 0, *change[4:9], None] for change in changes]
    assert outcome(decode_ops, rows) == outcome(one_by_one, rows)


@pytest.mark.parametrize("bad", [None, [], [None], [True], 5, b"", [3], [[3]]])
def test_rows_that_are_no_ops(bad: Any) -> None:
    rows = [*rows_of([PLAIN_OPS[0]] * 10), bad]
    assert isinstance(outcome(decode_ops, rows), str)
    assert outcome(decode_ops, rows) == outcome(one_by_one, rows)


def test_an_unfinished_segment_is_looked_at_op_by_op() -> None:
    table = (segment_row(1)._replace(stored_len=300, footer_len=0, footer_hash=b""),)
    change = Change(0, 1, DATA, table[0].id, 0, 1_000_000, 0, 5, 5)
    some = [PLAIN_OPS[6]._replace(changes=(change,))] * 10
    rows = [encode_op(op, table_of(table)) for op in some]
    assert outcome(decode_ops, rows, table) == some == outcome(one_by_one, rows, table)
