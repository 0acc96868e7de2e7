"""Records of the journal and the frame of its files (FORMAT section 11).

Values and their bytes only: sealing is the key's business, files are `lucid.local`'s. Pure; any
thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from lucid.engine.fields import Fields
from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.canonical import pack, pack_short, unpack
from lucid.format.change import (
    Change,
    SegmentRow,
    decode_changes,
    decode_segments,
    encode_changes,
    encode_segments,
    table_of,
)
from lucid.format.check import (
    check_bytes,
    check_fields,
    check_id,
    check_int,
    check_name,
    is_name,
)
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import (
    BLOCK_SIZE_MAX,
    BLOCKS_MAX,
    FORMAT_VERSION,
    FRAME_MAX,
    INT63_MAX,
    JOURNAL_ITEMS_MAX,
    SEGMENT_ID_SIZE,
    SIZE_MAX,
    TIME_MAX,
    TIME_MIN,
    UINT32_MAX,
)
from lucid.format.opcode import MODE_MAX, decode_op, decode_xattrs, encode_op, encode_xattrs
from lucid.format.ops import Op, UnknownOp

__all__ = [
    "FILE_HEADER_SIZE",
    "FRAME_HEAD_SIZE",
    "NO_MARK",
    "Begin",
    "Failed",
    "FileHeader",
    "Group",
    "Image",
    "ImageRecord",
    "Limit",
    "Mark",
    "Note",
    "OpRecord",
    "Patch",
    "Record",
    "SegmentRecord",
    "SessionRecord",
    "Settled",
    "decode_file_header",
    "decode_frame_length",
    "decode_record",
    "encode_file_header",
    "encode_frame_length",
    "encode_record",
]

MAGIC = b"LUCIDJN1"
_FILE_HEADER = struct.Struct(f"<8sHH{SEGMENT_ID_SIZE}s")
FILE_HEADER_SIZE = _FILE_HEADER.size
_FRAME_HEAD = struct.Struct("<I")
FRAME_HEAD_SIZE = _FRAME_HEAD.size
_REASON_MAX = 4096

# Kinds of a record. On disk across upgrades: do not renumber.
KIND_BEGIN = 1
KIND_SESSION = 2
KIND_LIMIT = 3
KIND_OP = 4
KIND_IMAGE = 5
KIND_PATCH = 6
KIND_NOTE = 7
KIND_SETTLED = 8
KIND_SEGMENT = 9
KIND_FAILED = 10
KIND_GROUP = 11


class FileHeader(NamedTuple):
    """First bytes of a journal file."""

    suite: int
    object_id: bytes


class Mark(NamedTuple):
    """Up to where the journal is known to be fdatasynced: file number and offset in it."""

    file: int
    offset: int


NO_MARK = Mark(0, 0)


class Image(NamedTuple):
    """All that is unpublished of one file. `changes` name segments of `segments`.

    A private file (made here, never published) has no version in the log: `base` is 0. A released
    one waits for its publish only.
    """

    private: bool
    released: bool
    parent: int
    name: bytes
    base: int
    keep: int
    size: int
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    changes: tuple[Change, ...]
    segments: tuple[SegmentRow, ...]


class Begin(NamedTuple):
    """First record of each file. Files before `first_live` are void."""

    file: int
    first_live: int
    mark: Mark = NO_MARK


class SessionRecord(NamedTuple):
    """This directory's session and the token that its session op carried."""

    session: int
    token: bytes
    mark: Mark = NO_MARK


class Limit(NamedTuple):
    """Op counters below `counter` may have been used."""

    counter: int
    mark: Mark = NO_MARK


class OpRecord(NamedTuple):
    """An op that is pending from here on, at `position` in the order. Unfinished segments may
    stand in `segments` with `footer_len` 0."""

    position: int
    segments: tuple[SegmentRow, ...]
    op: Op
    mark: Mark = NO_MARK


class ImageRecord(NamedTuple):
    """Replaces the earlier image of `ino`; None: nothing of it is unpublished any more."""

    ino: int
    image: Image | None
    mark: Mark = NO_MARK


class Patch(NamedTuple):
    """A write smaller than its block, on top of the newest image before it."""

    ino: int
    block: int
    offset: int
    data: bytes
    mark: Mark = NO_MARK


class Note(NamedTuple):
    """Entry `sequence` with this hash is about to be put; it settles ops up to `position`."""

    sequence: int
    entry_hash: bytes
    position: int
    mark: Mark = NO_MARK


class Settled(NamedTuple):
    """Every op up to `position` is committed or void."""

    position: int
    mark: Mark = NO_MARK


class SegmentRecord(NamedTuple):
    """A staging file was finished."""

    segment: SegmentRow
    mark: Mark = NO_MARK


class Failed(NamedTuple):
    """The op at `position` was set aside; `reason` is UTF-8 for the user."""

    position: int
    reason: bytes
    mark: Mark = NO_MARK


class Group(NamedTuple):
    """The next so many records of this file count together; if one is missing, none counts."""

    records: int
    mark: Mark = NO_MARK


Record = (
    Begin
    | SessionRecord
    | Limit
    | OpRecord
    | ImageRecord
    | Patch
    | Note
    | Settled
    | SegmentRecord
    | Failed
    | Group
)


def encode_file_header(header: FileHeader) -> bytes:
    """44 bytes."""
    check_int(header.suite, 0, 0xFFFF, "The suite of a journal file")
    check_bytes(header.object_id, SEGMENT_ID_SIZE, "The object id of a journal file")
    return _FILE_HEADER.pack(MAGIC, FORMAT_VERSION, header.suite, header.object_id)


def decode_file_header(data: bytes) -> FileHeader:
    """Raises FormatError, or UnsupportedFormat for a format other than ours."""
    if len(data) < FILE_HEADER_SIZE:
        raise FormatError("A journal file is cut short.")
    magic, version, suite, object_id = _FILE_HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError("A journal file does not begin as one.")
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"A journal file is of format {version}; this version of lucid knows format"
            f" {FORMAT_VERSION}. Install a newer one."
        )
    return FileHeader(suite, object_id)


def encode_frame_length(length: int) -> bytes:
    """The u32 in front of a sealed record of `length` bytes."""
    check_int(length, 1, FRAME_MAX, "The length of a journal frame")
    return _FRAME_HEAD.pack(length)


def decode_frame_length(data: bytes, offset: int = 0) -> int:
    """The length of the sealed record that follows; 0 ends the file. Raises FormatError."""
    if len(data) < offset + FRAME_HEAD_SIZE:
        raise FormatError("A journal frame is cut short.")
    length: int = _FRAME_HEAD.unpack_from(data, offset)[0]
    if length > FRAME_MAX:
        raise FormatError("A journal frame is over its 16 MiB.")
    return length


def encode_record(record: Record, mark: Mark | None = None) -> bytes:
    """The record's canonical bytes, with `mark` for its own if given. Raises FormatError."""
    kind, encode = _ENCODERS[type(record)]
    file, offset = record.mark if mark is None else mark
    check_int(file, 0, INT63_MAX, "The file of a mark")
    check_int(offset, 0, INT63_MAX, "The offset of a mark")
    fields = [kind, [file, offset], *encode(record)]
    # What is written of a block may be a MiB: no packer should keep room for that.
    return pack(fields, typed=True) if kind == KIND_PATCH else pack_short(fields)


def decode_record(data: bytes) -> Record:
    """The record that encode_record wrote. Raises FormatError; UnsupportedFormat for a kind that
    is not known, since a newer version may have written it."""
    fields = unpack(data, JOURNAL_ITEMS_MAX)
    if type(fields) is not list or len(fields) < 2:
        raise FormatError("A journal record is not an array.")
    kind = check_int(fields[0], 0, 0xFFFF, "The kind of a journal record")
    file, offset = check_fields(fields[1], 2, "The mark of a journal record")
    mark = Mark(
        check_int(file, 0, INT63_MAX, "The file of a mark"),
        check_int(offset, 0, INT63_MAX, "The offset of a mark"),
    )
    if kind not in _DECODERS:
        raise UnsupportedFormat(
            f"The journal holds a record of kind {kind}, which this version of lucid does not"
            " know. Mount with the version that wrote it."
        )
    count, decode = _DECODERS[kind]
    return decode(check_fields(fields[2:], count, "A journal record"), mark)


def _number(value: Any, what: str) -> int:
    return check_int(value, 0, INT63_MAX, what)


def _flag(value: Any, what: str) -> bool:
    return check_int(value, 0, 1, what) == 1


def _encode_begin(record: Begin) -> list[Any]:
    return list(_check_begin(record.file, record.first_live))


def _decode_begin(fields: list[Any], mark: Mark) -> Begin:
    return Begin(*_check_begin(*fields), mark)


def _check_begin(file: Any, first_live: Any) -> tuple[int, int]:
    _number(file, "A journal file")
    check_int(first_live, 0, file, "The first live journal file")
    return file, first_live


def _encode_session(record: SessionRecord) -> list[Any]:
    return [_number(record.session, "A session"), check_id(record.token, "A session's token")]


def _decode_session(fields: list[Any], mark: Mark) -> SessionRecord:
    return SessionRecord(
        _number(fields[0], "A session"), check_id(fields[1], "A session's token"), mark
    )


def _encode_limit(record: Limit) -> list[Any]:
    return [_number(record.counter, "A counter")]


def _decode_limit(fields: list[Any], mark: Mark) -> Limit:
    return Limit(_number(fields[0], "A counter"), mark)


def _encode_op_record(record: OpRecord) -> list[Any]:
    return [
        _number(record.position, "A position"),
        encode_segments(record.segments, unfinished=True),
        encode_op(record.op, table_of(record.segments)),
    ]


def _decode_op_record(fields: list[Any], mark: Mark) -> OpRecord:
    position, segments, row = fields
    table = decode_segments(segments, unfinished=True)
    op = decode_op(row, table)
    if isinstance(op, UnknownOp):
        raise UnsupportedFormat(
            f"The journal holds an op of kind {op.kind}, which this version of lucid does not"
            " know. Mount with the version that wrote it."
        )
    return OpRecord(_number(position, "A position"), table, op, mark)


def _encode_image_record(record: ImageRecord) -> list[Any]:
    image = record.image
    return [
        _number(record.ino, "An inode"),
        None if image is None else _encode_image(image),
    ]


def _decode_image_record(fields: list[Any], mark: Mark) -> ImageRecord:
    ino, image = fields
    return ImageRecord(
        _number(ino, "An inode"), None if image is None else _decode_image(image), mark
    )


def _encode_image(image: Image) -> list[Any]:
    _check_image(image)
    return [
        int(image.private),
        int(image.released),
        *image[2:13],
        encode_xattrs(image.xattrs),
        encode_changes(image.changes, table_of(image.segments)),
        encode_segments(image.segments, unfinished=True),
    ]


def _decode_image(value: Any) -> Image:
    fields = check_fields(value, 16, "An image")
    segments = decode_segments(fields[15], unfinished=True)
    image = Image._make(
        [
            _flag(fields[0], "A flag"),
            _flag(fields[1], "A flag"),
            *fields[2:13],
            decode_xattrs(fields[13]),
            decode_changes(fields[14], segments),
            segments,
        ]
    )
    _check_image(image)
    return image


_IMAGE = Fields(
    (bool, bool, int, bytes, *(int,) * 9, tuple, tuple, tuple),
    {
        Image._fields.index(name): least_and_most
        for name, least_and_most in {
            "parent": (0, INT63_MAX),
            "base": (0, INT63_MAX),
            "keep": (0, SIZE_MAX),
            "size": (0, SIZE_MAX),
            "mode": (0, MODE_MAX),
            "uid": (0, UINT32_MAX),
            "gid": (0, UINT32_MAX),
            "atime_ns": (TIME_MIN, TIME_MAX),
            "mtime_ns": (TIME_MIN, TIME_MAX),
            "ctime_ns": (TIME_MIN, TIME_MAX),
        }.items()
    },
)


def _check_image(image: Image) -> None:
    if _IMAGE.fit(image) and is_name(image.name):
        return
    if type(image.name) is not bytes:
        raise FormatError("A name is not bytes.")
    if image.parent or image.name:
        check_name(image.name)
    for number, what in ((image.parent, "A parent"), (image.base, "A version")):
        _number(number, what)
    check_int(image.keep, 0, SIZE_MAX, "A size")
    check_int(image.size, 0, SIZE_MAX, "A size")
    check_int(image.mode, 0, MODE_MAX, "A mode")
    check_int(image.uid, 0, UINT32_MAX, "A uid")
    check_int(image.gid, 0, UINT32_MAX, "A gid")
    for time_ns in (image.atime_ns, image.mtime_ns, image.ctime_ns):
        check_int(time_ns, TIME_MIN, TIME_MAX, "A time")


def _check_patch(record: Patch) -> None:
    _number(record.ino, "An inode")
    check_int(record.block, 0, BLOCKS_MAX, "A block")
    if type(record.data) is not bytes or not record.data:
        raise FormatError("A patch has no bytes.")
    check_int(record.offset, 0, BLOCK_SIZE_MAX - len(record.data), "The offset of a patch")


def _encode_patch(record: Patch) -> list[Any]:
    _check_patch(record)
    return list(record[:4])


def _decode_patch(fields: list[Any], mark: Mark) -> Patch:
    record = Patch._make([*fields, mark])
    _check_patch(record)
    return record


def _encode_note(record: Note) -> list[Any]:
    return [
        _number(record.sequence, "A sequence"),
        check_bytes(record.entry_hash, HASH_SIZE, "The hash of an entry"),
        _number(record.position, "A position"),
    ]


def _decode_note(fields: list[Any], mark: Mark) -> Note:
    return Note(
        _number(fields[0], "A sequence"),
        check_bytes(fields[1], HASH_SIZE, "The hash of an entry"),
        _number(fields[2], "A position"),
        mark,
    )


def _encode_settled(record: Settled) -> list[Any]:
    return [_number(record.position, "A position")]


def _decode_settled(fields: list[Any], mark: Mark) -> Settled:
    return Settled(_number(fields[0], "A position"), mark)


def _encode_segment_record(record: SegmentRecord) -> list[Any]:
    return encode_segments((record.segment,))


def _decode_segment_record(fields: list[Any], mark: Mark) -> SegmentRecord:
    return SegmentRecord(decode_segments(fields)[0], mark)


def _check_reason(reason: Any) -> bytes:
    if type(reason) is not bytes or len(reason) > _REASON_MAX:
        raise FormatError(f"A reason has at most {_REASON_MAX} bytes.")
    return reason


def _encode_failed(record: Failed) -> list[Any]:
    return [_number(record.position, "A position"), _check_reason(record.reason)]


def _decode_failed(fields: list[Any], mark: Mark) -> Failed:
    return Failed(_number(fields[0], "A position"), _check_reason(fields[1]), mark)


def _encode_group(record: Group) -> list[Any]:
    return [check_int(record.records, 1, UINT32_MAX, "The count of a group")]


def _decode_group(fields: list[Any], mark: Mark) -> Group:
    return Group(check_int(fields[0], 1, UINT32_MAX, "The count of a group"), mark)


_ENCODERS: dict[type[Any], tuple[int, Callable[[Any], list[Any]]]] = {
    Begin: (KIND_BEGIN, _encode_begin),
    SessionRecord: (KIND_SESSION, _encode_session),
    Limit: (KIND_LIMIT, _encode_limit),
    OpRecord: (KIND_OP, _encode_op_record),
    ImageRecord: (KIND_IMAGE, _encode_image_record),
    Patch: (KIND_PATCH, _encode_patch),
    Note: (KIND_NOTE, _encode_note),
    Settled: (KIND_SETTLED, _encode_settled),
    SegmentRecord: (KIND_SEGMENT, _encode_segment_record),
    Failed: (KIND_FAILED, _encode_failed),
    Group: (KIND_GROUP, _encode_group),
}
_DECODERS: dict[int, tuple[int, Callable[[list[Any], Mark], Record]]] = {
    KIND_BEGIN: (2, _decode_begin),
    KIND_SESSION: (2, _decode_session),
    KIND_LIMIT: (1, _decode_limit),
    KIND_OP: (3, _decode_op_record),
    KIND_IMAGE: (2, _decode_image_record),
    KIND_PATCH: (4, _decode_patch),
    KIND_NOTE: (3, _decode_note),
    KIND_SETTLED: (1, _decode_settled),
    KIND_SEGMENT: (1, _decode_segment_record),
    KIND_FAILED: (2, _decode_failed),
    KIND_GROUP: (1, _decode_group),
}
