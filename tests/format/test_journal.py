"""Records and frames of the journal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format import limits
from lucid.format.canonical import pack, unpack
from lucid.format.journal import (
    FILE_HEADER_SIZE,
    NO_MARK,
    Begin,
    Failed,
    FileHeader,
    Group,
    ImageRecord,
    Mark,
    Patch,
    Record,
    SegmentRecord,
    Settled,
    decode_file_header,
    decode_frame_length,
    decode_record,
    encode_file_header,
    encode_frame_length,
    encode_record,
)
from tests.format import values
from tests.format.values import EVERY_RECORD, IMAGE, MARK, ROWS, op_id

HEADER = FileHeader(2, b"o" * 32)


@pytest.mark.parametrize(
    "record", (*EVERY_RECORD, Group(3, MARK)), ids=lambda record: type(record).__name__
)
def test_each_kind_goes_there_and_back(record: Record) -> None:
    assert decode_record(encode_record(record)) == record
    assert type(decode_record(encode_record(record))) is type(record)


@settings(max_examples=100)
@given(values.records())
def test_any_record_goes_there_and_back(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


def test_the_mark_is_given_when_it_is_written() -> None:
    record = Settled(5)
    assert record.mark == NO_MARK
    assert decode_record(encode_record(record, Mark(2, 70))) == Settled(5, Mark(2, 70))
    for bad in (Mark(-1, 0), Mark(0, 2**63)):
        with pytest.raises(FormatError):
            encode_record(record, bad)


BAD_RECORDS: list[Record] = [
    Group(0),
    Group(2**32),
    Begin(1, 2),
    Begin(-1, -1),
    Settled(2**63),
    Failed(1, b"x" * 4097),
    Patch(op_id(1), 0, 0, b""),
    Patch(op_id(1), 0, -1, b"x"),
    Patch(op_id(1), 0, limits.BLOCK_SIZE_MAX, b"x"),
    Patch(op_id(1), -1, 0, b"x"),
    SegmentRecord(ROWS[0]._replace(footer_len=0, footer_hash=b"")),
    *(
        ImageRecord(op_id(1), IMAGE._replace(**{field: bad}))
        for field, bad in (
            ("name", b"a/b"),
            ("name", b""),
            ("parent", -1),
            ("base", 2**63),
            ("keep", -1),
            ("size", 2**60 + 1),
            ("mode", 0o200000),
            ("uid", 2**32),
            ("gid", -1),
            ("atime_ns", 2**63),
            ("segments", ROWS[:1]),
        )
    ),
]


@pytest.mark.parametrize("record", BAD_RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_that_cannot_be_is_refused(record: Record) -> None:
    with pytest.raises(FormatError):
        encode_record(record)


def replaced(record: Record, at: int, new: Any) -> bytes:
    """The bytes of a record with one element replaced: 0 is the kind, 1 the mark."""
    fields = unpack(encode_record(record))
    fields[at] = new
    return pack(fields)


@pytest.mark.parametrize("record", EVERY_RECORD, ids=lambda record: type(record).__name__)
def test_fields_of_another_type_or_number_are_refused(record: Record) -> None:
    fields = unpack(encode_record(record))
    for at in range(1, len(fields)):
        for new in (b"", [b""], -1, 2**63, [[], []]):
            is_reason = isinstance(record, Failed) and at == 3 and new == b""
            if not is_reason:
                with pytest.raises(FormatError):
                    decode_record(replaced(record, at, new))
    for other in (fields[:-1], [*fields, 0]):
        with pytest.raises(FormatError):
            decode_record(pack(other))


def test_flags_are_0_or_1() -> None:
    fields = unpack(encode_record(ImageRecord(op_id(1), IMAGE)))
    for at in (0, 1):
        for flag in (2, None, b""):
            image = [*fields[3][:at], flag, *fields[3][at + 1 :]]
            with pytest.raises(FormatError):
                decode_record(pack([*fields[:3], image]))


def test_a_kind_of_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match="kind 12"):
        decode_record(pack([12, [0, 0], b"later"]))
    with pytest.raises(UnsupportedFormat, match="kind 40"):
        decode_record(pack([4, [0, 0], 1, [], [40, b"later"]]))


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x05", b"\x92\x08\x05", b"\x93\x08\x92\x00\x00"])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_record(data)


def test_an_image_may_have_more_changes_than_an_entry() -> None:
    changes = tuple(
        values.Change(2 * first, 1, values.HOLE) for first in range(limits.ARRAY_ITEMS_MAX + 1)
    )
    record = ImageRecord(op_id(1), IMAGE._replace(changes=changes))
    assert decode_record(encode_record(record)) == record


def test_the_file_header_is_44_bytes() -> None:
    data = encode_file_header(HEADER)
    assert data == b"LUCIDJN1\1\0\2\0" + b"o" * 32
    assert len(data) == FILE_HEADER_SIZE == 44
    assert decode_file_header(data + b"frames") == HEADER
    for bad in (b"", data[:-1], b"X" + data[1:]):
        with pytest.raises(FormatError):
            decode_file_header(bad)
    with pytest.raises(UnsupportedFormat, match="format 3"):
        decode_file_header(data[:8] + b"\3\0" + data[10:])


def test_the_length_of_a_frame() -> None:
    assert encode_frame_length(300) == b"\x2c\x01\0\0"
    assert decode_frame_length(b"x" + encode_frame_length(300), 1) == 300
    assert decode_frame_length(bytes(4)) == 0
    for bad in (0, -1, limits.FRAME_MAX + 1):
        with pytest.raises(FormatError):
            encode_frame_length(bad)
    for data in (b"\1\0\0", (limits.FRAME_MAX + 1).to_bytes(4, "little")):
        with pytest.raises(FormatError):
            decode_frame_length(data)
    assert Mark(4, 60_000) == MARK
