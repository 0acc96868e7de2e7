"""An entry's header and body."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format import limits
from lucid.format.canonical import pack, unpack
from lucid.format.entry import (
    HEADER_SIZE,
    EntryBody,
    EntryHeader,
    EntryRef,
    check_body,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    signed_bytes,
)
from lucid.format.hashes import ZERO_HASH
from lucid.format.ops import Drop, Stage, UnknownOp, make_op_id
from tests.format import values
from tests.format.values import BODY, GENESIS, PLAIN_OPS, ROWS, SESSION_OP, TIME_NS, segment_row

HEADER = EntryHeader(1, b"g" * 16, b"o" * 32)
ALONE = BODY._replace(session=0, session_previous=ZERO_HASH, segments=())


@settings(max_examples=30)
@given(values.bodies())
def test_a_body_goes_there_and_back(body: EntryBody) -> None:
    assert decode_body(encode_body(body)) == body


def test_every_kind_goes_there_and_back() -> None:
    body = BODY._replace(state_hash=EntryRef(4096, b"s" * 32))
    assert decode_body(encode_body(body)) == body


def test_the_header_is_60_bytes() -> None:
    data = encode_header(HEADER)
    assert len(data) == HEADER_SIZE == 60
    assert data == b"LUCIDLE1" + b"\1\0" + b"\1\0" + b"g" * 16 + b"o" * 32
    assert decode_header(data + b"sealed") == HEADER


@pytest.mark.parametrize(
    "data", [b"", b"LUCIDLE1", encode_header(HEADER)[:-1], b"X" + encode_header(HEADER)[1:]]
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_header(data)


def test_another_format_is_refused_by_name() -> None:
    data = bytearray(encode_header(HEADER))
    data[8] = 2
    with pytest.raises(UnsupportedFormat, match="format 2"):
        decode_header(bytes(data))


def test_an_entry_is_at_most_16_mib() -> None:
    data = encode_header(HEADER)
    decode_header(data + bytes(limits.ENTRY_MAX - len(data)))
    with pytest.raises(FormatError):
        decode_header(data + bytes(limits.ENTRY_MAX - len(data) + 1))


def test_what_is_signed() -> None:
    signed = signed_bytes(b"f" * 16, 7, b"header", b"body")
    assert signed == b"lucid entry v1\0" + b"f" * 16 + b"\7" + bytes(7) + b"header" + b"body"


BAD_HEADS = [
    ("member", b"x"),
    ("session", -1),
    ("session", 2**31),
    ("previous", b"x"),
    ("session_previous", b"x" * 33),
    ("membership", EntryRef(-1, b"x" * 32)),
    ("membership", EntryRef(1, b"x")),
    ("state_hash", EntryRef(2**63, b"x" * 32)),
    ("segments", (segment_row(1), segment_row(1))),
    ("segments", (ROWS[0]._replace(stored_len=limits.SEGMENT_STORED_MAX + 1), ROWS[1])),
    ("segments", (ROWS[0]._replace(footer_len=0), ROWS[1])),
    ("segments", (ROWS[0]._replace(footer_hash=b"x"), ROWS[1])),
    ("segments", (ROWS[0]._replace(generation=b"x"), ROWS[1])),
    ("segments", (ROWS[0]._replace(head=-1), ROWS[1])),
    ("segments", (ROWS[0]._replace(id=b"x"), ROWS[1])),
    ("segments", (ROWS[0],)),
]


@pytest.mark.parametrize(("field", "bad"), BAD_HEADS)
def test_a_field_beyond_its_limit_is_refused(field: str, bad: object) -> None:
    with pytest.raises(FormatError):
        encode_body(BODY._replace(**{field: bad}))
    plain = unpack(encode_body(BODY))
    at = BODY._fields.index(field)
    plain[at] = [list(row) for row in bad] if field == "segments" else bad  # type: ignore[union-attr,attr-defined]
    with pytest.raises(FormatError):
        decode_body(pack(plain))


def test_a_body_has_eight_fields() -> None:
    plain = unpack(encode_body(BODY))
    for other in (plain[:-1], [*plain, 0], []):
        with pytest.raises(FormatError):
            decode_body(pack(other))
    with pytest.raises(FormatError):
        decode_body(encode_body(BODY) + b"\0")
    with pytest.raises(FormatError):
        decode_body(pack([*plain[:-1], 5]))
    with pytest.raises(FormatError):
        decode_body(pack([*plain[:6], 5, plain[7]]))
    with pytest.raises(FormatError):
        decode_body(encode_body(BODY)[:-1])


def test_unfinished_segments_are_for_the_journal_only() -> None:
    plain = unpack(encode_body(BODY))
    plain[6][0][2] = plain[6][0][3] = None
    with pytest.raises(FormatError):
        decode_body(pack(plain))


def test_an_author_cannot_write_what_no_reader_takes() -> None:
    many = (PLAIN_OPS[8],) * (limits.ARRAY_ITEMS_MAX + 1)
    with pytest.raises(FormatError):
        encode_body(BODY._replace(ops=many))


def test_an_op_of_an_unknown_kind_parses() -> None:
    plain = unpack(encode_body(BODY._replace(ops=())))
    plain[7] = [[40, b"later"]]
    body = decode_body(pack(plain))
    assert body.ops == (UnknownOp(40),)
    check_body(9, body)


def test_genesis_is_entry_1_and_alone() -> None:
    genesis = ALONE._replace(ops=(GENESIS,))
    check_body(1, genesis)
    for sequence, body in (
        (2, genesis),
        (1, ALONE._replace(ops=(SESSION_OP,))),
        (1, BODY),
        (1, ALONE._replace(ops=(GENESIS, GENESIS))),
        (1, ALONE._replace(ops=())),
        (1, genesis._replace(session=1)),
    ):
        with pytest.raises(FormatError):
            check_body(sequence, body)


def test_session_0_holds_one_session_op() -> None:
    check_body(2, ALONE._replace(ops=(SESSION_OP,)))
    for body in (
        ALONE._replace(ops=(SESSION_OP, SESSION_OP)),
        ALONE._replace(ops=()),
        ALONE._replace(ops=PLAIN_OPS[1:2]),
        ALONE._replace(ops=(SESSION_OP,), session_previous=b"x" * 32),
        BODY._replace(ops=(SESSION_OP,)),
    ):
        with pytest.raises(FormatError):
            check_body(2, body)


def test_ops_of_another_session_are_refused() -> None:
    check_body(5, BODY)
    for op in (
        Drop(make_op_id(4, 1), TIME_NS, values.op_id(1)),
        Drop(values.op_id(1), TIME_NS, make_op_id(4, 1)),
        Stage(values.op_id(1), TIME_NS, make_op_id(4, 1), ()),
        Drop(1, TIME_NS, values.op_id(1)),
    ):
        with pytest.raises(FormatError):
            check_body(5, BODY._replace(ops=(op,)))
