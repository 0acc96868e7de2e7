"""A log entry's header and body (FORMAT section 7). Pure; any thread."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.canonical import SliceReader, pack
from lucid.format.change import SegmentRow, decode_segments, encode_segments, table_of
from lucid.format.check import check_bytes, check_fields, check_id, check_int
from lucid.format.hashes import HASH_SIZE, ZERO_HASH
from lucid.format.limits import (
    ARRAY_ITEMS_MAX,
    ENTRY_MAX,
    FORMAT_VERSION,
    ID_SIZE,
    INT63_MAX,
    SEGMENT_ID_SIZE,
    SESSION_MAX,
)
from lucid.format.opbatch import SLICE, decode_ops
from lucid.format.opcode import encode_op
from lucid.format.ops import (
    Drop,
    Genesis,
    Op,
    SessionOp,
    Stage,
    UnknownOp,
    changes_of,
    session_of,
)

__all__ = [
    "HEADER_SIZE",
    "NO_ENTRY",
    "SIGNATURE_SIZE",
    "EntryBody",
    "EntryHeader",
    "EntryRef",
    "check_body",
    "decode_body",
    "decode_header",
    "encode_body",
    "encode_header",
    "signed_bytes",
]

MAGIC = b"LUCIDLE1"
SIGNATURE_SIZE = 64
_HEADER = struct.Struct(f"<8sHH{ID_SIZE}s{SEGMENT_ID_SIZE}s")
HEADER_SIZE = _HEADER.size
_SIGNED_LABEL = b"lucid entry v1\0"
_SUITE_MAX = 0xFFFF


class EntryHeader(NamedTuple):
    """All of an entry that is clear."""

    suite: int
    generation: bytes
    object_id: bytes


class EntryRef(NamedTuple):
    """An entry by number and hash."""

    sequence: int
    hash: bytes


NO_ENTRY = EntryRef(0, ZERO_HASH)


class EntryBody(NamedTuple):
    """What an entry says. `previous` is the hash of entry n-1, `session_previous` that of the
    session's last one; zeros where there is none."""

    member: bytes
    session: int
    previous: bytes
    session_previous: bytes
    membership: EntryRef
    state_hash: EntryRef | None
    segments: tuple[SegmentRow, ...]
    ops: tuple[Op, ...]


def encode_header(header: EntryHeader) -> bytes:
    """60 bytes. Raises FormatError."""
    check_int(header.suite, 0, _SUITE_MAX, "The suite of an entry")
    check_id(header.generation, "The generation of an entry")
    check_bytes(header.object_id, SEGMENT_ID_SIZE, "The object id of an entry")
    return _HEADER.pack(MAGIC, FORMAT_VERSION, *header)


def decode_header(data: bytes) -> EntryHeader:
    """The header of a whole entry object or of its first 60 bytes.

    Raises FormatError, or UnsupportedFormat for a format other than ours. The suite is not checked.
    """
    if len(data) < HEADER_SIZE:
        raise FormatError("A log entry is cut short.")
    if len(data) > ENTRY_MAX:
        raise FormatError("A log entry is over its 16 MiB.")
    magic, version, suite, generation, object_id = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError("A log entry does not begin as one.")
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"A log entry is of format {version}; this version of lucid knows format"
            f" {FORMAT_VERSION}. Install a newer one."
        )
    return EntryHeader(suite, generation, object_id)


def signed_bytes(filespace: bytes, sequence: int, header: bytes, body: bytes) -> bytes:
    """What the member's signature is over."""
    return b"".join((_SIGNED_LABEL, filespace, sequence.to_bytes(8, "little"), header, body))


def encode_body(body: EntryBody) -> bytes:
    """The canonical bytes of the body. Raises FormatError."""
    _check_head(body)
    most = max(len(body.segments), len(body.ops), *(len(changes_of(op)) for op in body.ops), 0)
    if most > ARRAY_ITEMS_MAX:
        raise FormatError(f"An array of an entry has at most {ARRAY_ITEMS_MAX} elements.")
    table = table_of(body.segments)
    return pack(
        [
            body.member,
            body.session,
            body.previous,
            body.session_previous,
            list(body.membership),
            None if body.state_hash is None else list(body.state_hash),
            encode_segments(body.segments),
            [encode_op(op, table) for op in body.ops],
        ],
        typed=True,
    )


def decode_body(data: bytes) -> EntryBody:
    """The body that encode_body wrote. Raises FormatError.

    Reads in slices, so that the longest single call into C stays far under a millisecond.
    """
    reader = SliceReader(data)
    if reader.array() != 8:
        raise FormatError("The body of an entry does not have its 8 fields.")
    member, session, previous, session_previous, membership, state_hash, segments = (
        reader.value(1) for _ in range(7)
    )
    table = decode_segments(segments)
    ops: list[Op] = []
    left = reader.array()
    while left:
        rows = reader.typed_values(min(left, SLICE))
        ops += decode_ops(rows, table)
        left -= len(rows)
    reader.end()
    body = EntryBody(
        member,
        session,
        previous,
        session_previous,
        _ref(membership, "The membership link"),
        None if state_hash is None else _ref(state_hash, "The state hash"),
        table,
        tuple(ops),
    )
    _check_head(body)
    return body


def check_body(sequence: int, body: EntryBody) -> None:
    """The rules of one entry that need no state. Raises FormatError.

    Session 0 holds one op, genesis in entry 1 and else a session op; every other op is of the
    session that the entry says. Ops of unknown kinds are left to the caller, who knows the rules
    in force.
    """
    if (sequence == 1) != (len(body.ops) == 1 and isinstance(body.ops[0], Genesis)):
        raise FormatError("Genesis is entry 1, alone, and nothing else is.")
    if body.session == 0:
        if len(body.ops) != 1 or not isinstance(body.ops[0], (Genesis, SessionOp, UnknownOp)):
            raise FormatError("An entry of session 0 holds one op that starts something.")
        if body.session_previous != ZERO_HASH:
            raise FormatError("An entry of session 0 follows no other of its session.")
        return
    for op in body.ops:
        if isinstance(op, UnknownOp):
            continue
        foreign = session_of(op.op_id) != body.session
        if isinstance(op, (Stage, Drop)):
            foreign = foreign or session_of(op.target) != body.session
        if foreign:
            raise FormatError("An entry holds an op of another session.")


def _ref(value: Any, what: str) -> EntryRef:
    return EntryRef._make(check_fields(value, 2, what))


def _check_head(body: EntryBody) -> None:
    check_id(body.member, "The member of an entry")
    check_int(body.session, 0, SESSION_MAX, "The session of an entry")
    check_bytes(body.previous, HASH_SIZE, "The previous hash of an entry")
    check_bytes(body.session_previous, HASH_SIZE, "The session's previous hash of an entry")
    for ref in (body.membership, body.state_hash):
        if ref is not None:
            check_int(ref.sequence, 0, INT63_MAX, "The sequence of a link")
            check_bytes(ref.hash, HASH_SIZE, "The hash of a link")
