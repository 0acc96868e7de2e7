"""Ops: every kind goes there and back, and every limit of FORMAT section 8 is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.errors import FormatError, LucidError, UnsupportedFormat
from lucid.format import limits
from lucid.format.canonical import pack, unpack
from lucid.format.change import DATA, HOLE, Change, table_of
from lucid.format.opcode import decode_op, encode_op, size_bound
from lucid.format.ops import (
    Op,
    UnknownOp,
    changes_of,
    counter_of,
    make_op_id,
    rules_of,
    segments_of,
    session_of,
)
from tests.format import values
from tests.format.values import (
    CHANGES,
    EVERY_OP,
    GENESIS,
    OPS_OF_RULES_2,
    OPS_OF_RULES_4,
    PLAIN_OPS,
    REPACK,
    ROWS,
    SESSION_OP,
    TIME_NS,
)

CREATE, MKDIR, SYMLINK, MKNOD, CONTENT = PLAIN_OPS[:5]
STAGE, DROP, LINK, UNLINK, RMDIR, RENAME, SETATTR, SETXATTR = PLAIN_OPS[6:14]
RULES, FLOOR, CLONE, CLONE_BESIDE = OPS_OF_RULES_2
TAKE, TAKE_WHOLE, GIVE, GIVE_MORE, TAKEOVER = OPS_OF_RULES_4
TABLE = table_of(ROWS)


def through(op: Op) -> Op:
    return decode_op(unpack(pack(encode_op(op, TABLE))), ROWS)


@pytest.mark.parametrize("op", EVERY_OP, ids=lambda op: type(op).__name__)
def test_each_kind_goes_there_and_back(op: Op) -> None:
    assert through(op) == op
    assert type(through(op)) is type(op)


@settings(max_examples=60)
@given(st.data())
def test_any_op_goes_there_and_back(data: st.DataObject) -> None:
    rows = data.draw(values.tables())
    op = data.draw(values.ops(rows))
    row = encode_op(op, table_of(rows))
    assert decode_op(unpack(pack(row)), rows) == op
    assert len(pack(row)) <= size_bound(op)


def test_kinds_are_those_of_the_format() -> None:
    kinds = [encode_op(op, TABLE)[0] for op in (GENESIS, SESSION_OP, *PLAIN_OPS)]
    assert list(dict.fromkeys(kinds)) == list(range(1, 16))
    assert [encode_op(op, TABLE)[0] for op in OPS_OF_RULES_2] == [32, 36, 41, 41]


def test_each_kind_says_which_rules_know_it() -> None:
    assert {rules_of(op) for op in (GENESIS, SESSION_OP, *PLAIN_OPS, RULES)} == {1}
    assert {rules_of(op) for op in (FLOOR, CLONE, CLONE_BESIDE)} == {2}


def test_a_repack_is_of_rules_3() -> None:
    assert rules_of(REPACK) == 3
    assert encode_op(REPACK, TABLE)[0] == 42
    assert segments_of(REPACK) == (ROWS[0].id, ROWS[1].id)


def test_ops_on_leases_are_of_rules_4() -> None:
    assert {rules_of(op) for op in OPS_OF_RULES_4} == {4}
    assert [encode_op(op, TABLE)[0] for op in OPS_OF_RULES_4] == [37, 37, 38, 38, 39]
    assert [segments_of(op) for op in OPS_OF_RULES_4] == [()] * 5


@pytest.mark.parametrize(
    ("at", "bad"),
    [
        (0, b"\x07" * 31), (0, ROWS[0].id), (1, -1), (1, 65_536), (2, -1), (2, (8 << 20) + 65_536),
        (3, 0), (3, 65_537), (4, 2), (4, -1), (4, b"x"), (5, 65_536), (5, -1), (6, -1),
        (6, (8 << 20) + 65_536),
    ],
)  # fmt: skip
def test_what_no_move_can_be_is_refused(at: int, bad: Any) -> None:
    row = encode_op(REPACK, TABLE)
    move = row[3][0]
    row[3] = [[*move[:at], bad, *move[at + 1 :]], *row[3][1:]]
    with pytest.raises(FormatError):
        decode_op(row, ROWS)
    if at != 4:
        moves = (REPACK.moves[0]._replace(**{REPACK.moves[0]._fields[at]: bad}), *REPACK.moves[1:])
        with pytest.raises(FormatError):
            encode_op(REPACK._replace(moves=moves), TABLE)


def test_moves_ascend_and_do_not_overlap() -> None:
    one, two, three = REPACK.moves
    edge = two._replace(source_ordinal=3)
    assert through(REPACK._replace(moves=(one, edge, three))).moves[1] == edge  # type: ignore[union-attr]
    for moves in ((), (two, one), (three, one), (one, two._replace(source_ordinal=2))):
        with pytest.raises(FormatError):
            encode_op(REPACK._replace(moves=moves), TABLE)
    with pytest.raises(FormatError):
        encode_op(REPACK, {ROWS[0].id: 0})


def test_a_clone_may_leave_the_name_open() -> None:
    assert through(CLONE._replace(parent=0, name=b"")).name == b""  # type: ignore[union-attr]


BAD_FIELDS: list[tuple[Op, str, Any]] = [
    *((op, "op_id", bad) for op in PLAIN_OPS for bad in (0, -1, 2**63)),
    *((op, "time_ns", bad) for op in EVERY_OP for bad in (2**63, -(2**63) - 1)),
    *(
        (op, "name", bad)
        for op in (CREATE, MKDIR, SYMLINK, MKNOD, CONTENT, LINK, UNLINK, RMDIR, RENAME)
        for bad in (b"", b".", b"..", b"a/b", b"a\0", b"x" * 256)
    ),
    *((RENAME, "new_name", bad) for bad in (b"", b"..", b"/", b"x" * 256)),
    *((CREATE, "parent", bad) for bad in (0, -1, 2**63)),
    *((RENAME, "new_parent", bad) for bad in (0, 2**63)),
    *((op, "ino", 0) for op in (CONTENT, LINK, RENAME, SETATTR, SETXATTR)),
    *((UNLINK, name, -1) for name in ("seen_ino", "seen_version")),
    *((CONTENT, name, bad) for name in ("size", "keep") for bad in (-1, 2**60 + 1)),
    (CREATE, "size", 2**60 + 1),
    *((CREATE, name, bad) for name in ("uid", "gid") for bad in (-1, 2**32)),
    (MKNOD, "rdev", 2**32),
    *((CREATE, "mode", bad) for bad in (0o644, 0o040755, 0o200000, -1)),
    *((MKDIR, "mode", bad) for bad in (0o755, 0o100644)),
    *((MKNOD, "mode", bad) for bad in (0o100600, 0o040755, 0o120777, 0)),
    *((SYMLINK, "target", bad) for bad in (b"", b"x" * 4096, b"a\0b")),
    *((SETATTR, "mode", bad) for bad in (-1, 0o200000)),
    *((SETXATTR, "name", bad) for bad in (b"", b"x" * 256, b"a\0")),
    (SETXATTR, "value", b"x" * 65_537),
    *((STAGE, "target", bad) for bad in (0, 2**63)),
    (DROP, "target", 0),
    (CREATE, "xattrs", ((b"a", b"x" * 65_537),)),
    (CREATE, "xattrs", ((b"", b""),)),
    (CREATE, "xattrs", ((b"a", b"1"), (b"a", b"2"))),
    (CREATE, "xattrs", tuple((b"%02d" % i, b"x" * 65_536) for i in range(17))),
    (SESSION_OP, "op_id", 1),
    *((SESSION_OP, "token", bad) for bad in (b"", b"x" * 15, b"x" * 17)),
    *((SESSION_OP, "label", bad) for bad in (b"", b"x" * 65, b"\xff", b"a/b", b"a\nb", b"\x7f")),
    *((op, "op_id", bad) for op in OPS_OF_RULES_2 for bad in (0, 2**63)),
    *((RULES, "number", bad) for bad in (0, 2**32)),
    *((FLOOR, "sequence", bad) for bad in (0, -1, 2**63)),
    *((CLONE, name, bad) for name in ("source", "version") for bad in (0, 2**63)),
    *((CLONE, name, -1) for name in ("ino", "base", "parent")),
    *((op, "name", bad) for op in (CLONE, CLONE_BESIDE) for bad in (b"", b"..", b"a/b")),
    (CLONE_BESIDE, "base", 1),
    (CLONE_BESIDE, "parent", 0),
    (CLONE, "ino", 0),
    *((op, "op_id", bad) for op in OPS_OF_RULES_4 for bad in (0, 2**63)),
    *((op, "ino", bad) for op in OPS_OF_RULES_4 for bad in (0, -1, 2**63)),
    *((TAKE, "mode", bad) for bad in (-1, 0, 3)),
    *((GIVE, "mode", bad) for bad in (-1, 2)),
    *((TAKEOVER, "session", bad) for bad in (0, 2**32)),
    *((TAKEOVER, "sequence", bad) for bad in (0, -1, 2**63)),
    (GENESIS, "op_id", 2),
    (GENESIS, "superblock_hash", b"x" * 31),
    (GENESIS, "rules", 0),
    (GENESIS, "rules", 5),
    (GENESIS, "name", b""),
    (GENESIS, "founder", GENESIS.founder._replace(member=b"x")),
    (GENESIS, "founder", GENESIS.founder._replace(label=b"a/b")),
    (GENESIS, "founder", GENESIS.founder._replace(sign_key=b"x")),
    (GENESIS, "founder", GENESIS.founder._replace(box_key=b"x")),
    (GENESIS, "founder", GENESIS.founder._replace(role=2)),
    (GENESIS, "generation", GENESIS.generation._replace(id=b"x")),
    (GENESIS, "generation", GENESIS.generation._replace(key_hash=b"x")),
    (GENESIS, "root", GENESIS.root._replace(mode=0o100644)),
    (GENESIS, "root", GENESIS.root._replace(uid=2**32)),
    (GENESIS, "root", GENESIS.root._replace(gid=-1)),
]


def plain_row(op: Op, field: str, bad: Any) -> list[Any]:
    """The row of `op` with one field as it never leaves encode_op."""
    row = encode_op(op, TABLE)
    if isinstance(bad, tuple):
        bad = [list(item) if isinstance(item, tuple) else item for item in bad]
    row[1 + op._fields.index(field)] = bad
    return row


def is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (FormatError, UnsupportedFormat):
        return True
    return False


@pytest.mark.parametrize("kind", sorted({type(op).__name__ for op, _, _ in BAD_FIELDS}))
def test_a_field_beyond_its_limit_is_refused(kind: str) -> None:
    for op, field, bad in BAD_FIELDS:
        if type(op).__name__ == kind:
            broken, row = op._replace(**{field: bad}), plain_row(op, field, bad)
            assert is_refused(partial(encode_op, broken, TABLE)), (field, bad)
            assert is_refused(partial(decode_op, row, ROWS)), (field, bad)


EDGES: list[tuple[Op, str, Any]] = [
    (CREATE, "op_id", 2**63 - 1),
    (CREATE, "time_ns", -(2**63)),
    (CREATE, "name", b"x" * 255),
    (CREATE, "name", b"..."),
    (CREATE, "size", 2**60),
    (CREATE, "uid", 2**32 - 1),
    (SYMLINK, "target", b"x" * 4095),
    (SETXATTR, "value", b"x" * 65_536),
    (SETXATTR, "name", b"x" * 255),
    (SESSION_OP, "label", b"x" * 64),
]


def test_the_limit_itself_is_taken() -> None:
    for op, field, edge in EDGES:
        changed = op._replace(**{field: edge})
        assert through(changed) == changed, field


@pytest.mark.parametrize("op", EVERY_OP, ids=lambda op: type(op).__name__)
def test_each_field_has_its_type(op: Op) -> None:
    """Neither a flag, nor a float, nor a wrong kind of value passes, whatever the field."""
    row = encode_op(op, TABLE)
    for at in range(1, len(row)):
        for bad in (True, 1.0, "text", [[]], [True], None):
            if bad is None and type(op).__name__ in ("Setattr", "Setxattr"):
                continue
            with pytest.raises(FormatError):
                decode_op([*row[:at], bad, *row[at + 1 :]], ROWS)
    for other in (row[:-1], [*row, 0]):
        with pytest.raises(FormatError):
            decode_op(other, ROWS)


@pytest.mark.parametrize("bad", [None, 5, b"x", [], [None], [b"x"], [True], [-1], [2**16]])
def test_what_is_no_op_is_refused(bad: Any) -> None:
    with pytest.raises(FormatError):
        decode_op(bad, ROWS)


@pytest.mark.parametrize("kind", [0, 16, 31, 33, 40, 43, 65_535])
def test_an_unknown_kind_is_told_apart(kind: int) -> None:
    assert decode_op([kind, b"whatever", [[]]], ROWS) == UnknownOp(kind)
    with pytest.raises(FormatError):
        encode_op(UnknownOp(kind), TABLE)


def test_rules_that_are_not_known_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match="rules 5"):
        decode_op(plain_row(GENESIS, "rules", 5), ROWS)


def test_xattrs_are_written_in_order() -> None:
    pairs = ((b"b", b"2"), (b"a", b"1"))
    op = CREATE._replace(xattrs=pairs)
    assert through(op) == CREATE._replace(xattrs=tuple(reversed(pairs)))
    with pytest.raises(FormatError):
        decode_op(plain_row(CREATE, "xattrs", pairs), ROWS)


GOOD = CHANGES[0]
WITH_LENGTHS = CHANGES[3]
BAD_CHANGES = [
    (GOOD._replace(first=-1),),
    (GOOD._replace(count=0),),
    (GOOD._replace(first=2**44),),
    (GOOD._replace(kind=4),),
    (GOOD._replace(kind=0),),
    (GOOD._replace(kind=HOLE),),
    (GOOD._replace(segment=b"x" * 32),),
    (GOOD._replace(segment=b"x"),),
    (GOOD._replace(ordinal=-1),),
    (GOOD._replace(ordinal=65_536),),
    (GOOD._replace(offset=-1),),
    (GOOD._replace(offset=limits.SEGMENT_STORED_MAX),),
    (GOOD._replace(flags=2),),
    (GOOD._replace(flags=1),),
    (GOOD._replace(last_len=0, last_valid=0),),
    (GOOD._replace(last_len=2**20 + 1),),
    (GOOD._replace(last_valid=0),),
    (GOOD._replace(last_valid=7001),),
    (WITH_LENGTHS._replace(lengths=(1, 2)),),
    (WITH_LENGTHS._replace(lengths=(16, 100, 100)),),
    (WITH_LENGTHS._replace(lengths=(100, 100, 2**21)),),
    (WITH_LENGTHS._replace(lengths=(100, 100, True)),),
    (Change(5, 1, HOLE, ordinal=1),),
    (CHANGES[1], CHANGES[0]),
    (CHANGES[1], CHANGES[1]),
    (Change(0, 3, HOLE), Change(2, 1, HOLE)),
]


def test_a_change_that_cannot_be_is_not_written() -> None:
    for changes in BAD_CHANGES:
        assert is_refused(partial(encode_op, STAGE._replace(changes=changes), TABLE)), changes


BAD_CHANGE_ROWS = [
    [-1, 1, 2],
    [0, 0, 2],
    [0, 1, 1],
    [0, 1, 4],
    [0, 1, True],
    [0, 1],
    [0, 1, 2, 0],
    5,
    [2**44, 1, 2],
    [0, 1, 2, 0, 0, 0, 0, 1, 1, None],
    [0, 1, 1, 2, 0, 0, 0, 1, 1, None],
    [0, 1, 1, -1, 0, 0, 0, 1, 1, None],
    [0, 1, 1, 0, 65_536, 0, 0, 1, 1, None],
    [0, 1, 1, 0, 0, 0, 2, 1, 1, None],
    [0, 1, 1, 0, 0, 0, 1, 1, 1, None],
    [0, 1, 1, 0, 0, 0, 0, 1, 2, None],
    [0, 1, 1, 0, 0, 0, 0, 1, 1, [5]],
    [0, 1, 1, 0, 0, 0, 0, 1, 1, [50, 50]],
    [0, 1, 1, 0, 0, 0, 0, 1, 1, []],
    [0, 1, 1, 0, 0, 0, 0, 1, 1, [None]],
    [0, 1, 1, 0, 0, 0, 0, 1, 1, 50],
    [0, 1, 1, 0, 0, limits.SEGMENT_STORED_MAX - 4096, 0, 1, 1, None],
    [0, 1, 1, 0, 0, limits.SEGMENT_STORED_MAX - 4096 - 50, 0, 1, 1, [51]],
    [b"", 1, 2],
]


def test_a_change_that_cannot_be_is_not_read() -> None:
    for row in BAD_CHANGE_ROWS:
        stage = [8, values.op_id(1), TIME_NS, values.op_id(2), [row]]
        assert is_refused(partial(decode_op, stage, ROWS)), row


def test_blocks_may_end_where_the_footer_begins() -> None:
    end = limits.SEGMENT_STORED_MAX - 4096
    change = Change(0, 1, DATA, ROWS[0].id, 0, end - 51, 0, 19, 19, (51,))
    op = STAGE._replace(changes=(change,))
    assert through(op) == op


@given(st.integers(0, limits.SESSION_MAX), st.integers(1, 2**32 - 1))
def test_an_id_is_session_and_counter(session: int, counter: int) -> None:
    made = make_op_id(session, counter)
    assert (session_of(made), counter_of(made)) == (session, counter)
    assert made <= limits.INT63_MAX


def test_segments_of_an_op() -> None:
    assert segments_of(CREATE) == (ROWS[0].id, ROWS[1].id)
    assert segments_of(MKDIR) == ()
    assert segments_of(STAGE._replace(changes=(CHANGES[0], CHANGES[0]._replace(first=9)))) == (
        ROWS[0].id,
    )
    assert changes_of(CONTENT) == CHANGES[:1]
    assert changes_of(DROP) == ()


@given(st.recursive(st.none() | st.integers() | st.binary(max_size=4), st.lists, max_leaves=20))
def test_any_value_is_an_op_or_a_format_error(value: Any) -> None:
    for row in (
        value,
        [7, value],
        *([kind, *(value or [])] for kind in range(17) if isinstance(value, list)),
    ):
        try:
            decode_op(row, ROWS)
        except LucidError as error:
            assert isinstance(error, (FormatError, UnsupportedFormat))
