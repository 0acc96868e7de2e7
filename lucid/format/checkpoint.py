"""The state as rows, its chunks, and the manifest of a checkpoint (FORMAT section 7.1).

A row is a tuple: the number of its table, its key, its other fields; integers and bytes only. Two
who folded the same entries have the same rows, so the same chunks and the same state hash. Pure;
any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.canonical import pack, unpack
from lucid.format.check import check_bytes, check_fields, check_id, check_int, check_name
from lucid.format.hashes import HASH_SIZE, hash_bytes
from lucid.format.limits import (
    FORMAT_VERSION,
    ID_SIZE,
    INT63_MAX,
    SEGMENT_ID_SIZE,
    SESSION_MAX,
    TIME_MAX,
    TIME_MIN,
)

__all__ = [
    "CHECKPOINT_EVERY",
    "CHUNK_MAGIC",
    "CHUNK_OBJECT_MAX",
    "HEADER_SIZE",
    "MANIFEST_MAGIC",
    "MANIFEST_OBJECT_MAX",
    "SIGNATURE_SIZE",
    "TABLE_FIELDS",
    "TABLE_KEYS",
    "TABLE_KINDS",
    "Chunk",
    "ChunkCutter",
    "ChunkRef",
    "Manifest",
    "ObjectHeader",
    "StateRow",
    "StateTable",
    "decode_header",
    "decode_manifest",
    "decode_rows",
    "encode_header",
    "encode_manifest",
    "row_key",
    "signed_bytes",
    "state_hash",
]

CHECKPOINT_EVERY = 4096
"""Checkpoints stand at multiples of this; the state keeps these entries' hashes for ever."""

CHUNK_MAGIC = b"LUCIDCC1"
MANIFEST_MAGIC = b"LUCIDCM1"
SIGNATURE_SIZE = 64
CHUNK_BYTES = 1 << 20
"""A chunk ends with the row that brings it to so many bytes, at the latest."""
CHUNK_OBJECT_MAX = 2 << 20
"""A chunk's last row may reach beyond CHUNK_BYTES: its largest field is 256 KiB."""
MANIFEST_OBJECT_MAX = 64 << 20
CHUNKS_MAX = 1 << 20
CHUNK_NAME_SIZE = 16
KEY_MAX = 512
"""Bytes of a packed key: the longest holds a file name."""

_HEADER = struct.Struct(f"<8sHH{ID_SIZE}s{SEGMENT_ID_SIZE}s")
HEADER_SIZE = _HEADER.size
_SIGNED_LABEL = b"lucid checkpoint v1\0"

StateRow = Sequence[Any]


class StateTable:
    """Numbers of the tables that make up a state. Stored for ever: do not renumber."""

    PLACE = 1
    VALUE = 2
    MEMBER = 3
    GENERATION = 4
    SESSION = 5
    ENTRY = 6
    SEGMENT = 7
    INODE = 8
    DIRECTORY = 9
    DENTRY = 10
    XATTR = 11
    VERSION = 12
    EXTENT = 13
    STAGED = 14
    REMOVED = 15


TABLE_KINDS = {
    StateTable.PLACE: "ibibiii",
    StateTable.VALUE: "bb",
    StateTable.MEMBER: "bbbbi",
    StateTable.GENERATION: "bib",
    StateTable.SESSION: "ibbbib",
    StateTable.ENTRY: "ib",
    StateTable.SEGMENT: "biibbi",
    StateTable.INODE: "iiiiiiiiiiiibibi",
    StateTable.DIRECTORY: "iii",
    StateTable.DENTRY: "inii",
    StateTable.XATTR: "ibb",
    StateTable.VERSION: "iiiiii",
    StateTable.EXTENT: "iiiiiisiiiiib",
    StateTable.STAGED: "iiiiibiiiiib",
    StateTable.REMOVED: "iiii",
}
"""Kinds of a row's fields by table, behind its number: `i` a number, the others are bytes: `n` the
name of a file, `s` the id of a segment or empty, `b` any."""
TABLE_FIELDS = {
    number: (int, *(int if kind == "i" else bytes for kind in kinds))
    for number, kinds in TABLE_KINDS.items()
}
"""Types of a row's fields by table, its number in front."""

_NUMBERS = {
    number: itemgetter(0, *(place for place, kind in enumerate(kinds) if kind is int))
    for number, kinds in TABLE_FIELDS.items()
}

TABLE_KEYS = {
    StateTable.PLACE: 1,
    StateTable.VALUE: 2,
    StateTable.MEMBER: 2,
    StateTable.GENERATION: 2,
    StateTable.SESSION: 2,
    StateTable.ENTRY: 2,
    StateTable.SEGMENT: 2,
    StateTable.INODE: 2,
    StateTable.DIRECTORY: 2,
    StateTable.DENTRY: 3,
    StateTable.XATTR: 3,
    StateTable.VERSION: 2,
    StateTable.EXTENT: 5,
    StateTable.STAGED: 3,
    StateTable.REMOVED: 2,
}
"""How many fields of a row are its key, its table's number included."""


class Chunk(NamedTuple):
    """Rows that are sealed together. `first_key` is that of the first, packed."""

    first_key: bytes
    data: bytes
    hash: bytes


class ChunkRef(NamedTuple):
    """Where a chunk lies: below the checkpoint at `sequence`, under `name`."""

    first_key: bytes
    sequence: int
    name: bytes
    hash: bytes


class Manifest(NamedTuple):
    """What a checkpoint consists of, as `member` in `session` says at `time_ns`."""

    member: bytes
    session: int
    time_ns: int
    entry_hash: bytes
    chunks: tuple[ChunkRef, ...]

    @property
    def state_hash(self) -> bytes:
        return state_hash(chunk.hash for chunk in self.chunks)


class ObjectHeader(NamedTuple):
    """All of a chunk's or manifest's object that is clear."""

    suite: int
    generation: bytes
    object_id: bytes


class ChunkCutter:
    """Cuts rows that come in order into chunks. One thread uses it."""

    def __init__(self) -> None:
        self._pack = msgpack.Packer(autoreset=True).pack
        self._parts: list[bytes] = []
        self._size = 0
        self._first = b""

    def add(self, rows: Iterable[StateRow]) -> list[Chunk]:
        """The chunks that end within these rows."""
        found = []
        packed, keys = self._pack, TABLE_KEYS
        for row in rows:
            key = packed(row[: keys[row[0]]])
            if not self._parts:
                self._first = key
            data = packed(row)
            self._parts.append(data)
            self._size += len(data)
            digest = hash_bytes(key)
            if (digest[0] == 0 and digest[1] < 64) or self._size >= CHUNK_BYTES:
                found.append(self._cut())
        return found

    def end(self) -> list[Chunk]:
        """The last chunk, if rows are left."""
        return [self._cut()] if self._parts else []

    def _cut(self) -> Chunk:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return Chunk(self._first, data, hash_bytes(data))


def state_hash(hashes: Iterable[bytes]) -> bytes:
    """The hash of a state, from those of its chunks in order."""
    return hash_bytes(b"".join(hashes))


def row_key(row: StateRow) -> tuple[Any, ...]:
    """What rows are sorted by."""
    return tuple(row[: TABLE_KEYS[row[0]]])


def decode_rows(data: bytes) -> list[tuple[Any, ...]]:
    """The rows of a chunk, checked for form and order. Raises FormatError."""
    if len(data) > CHUNK_OBJECT_MAX:
        raise FormatError("A chunk of a checkpoint is too long.")
    unpacker = msgpack.Unpacker(raw=True, use_list=False, max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    packed = msgpack.Packer(autoreset=True).pack
    rows: list[tuple[Any, ...]] = []
    size, last = 0, None
    try:
        for row in unpacker:
            key = _checked(row)
            if last is not None and key <= last:
                raise FormatError("The rows of a checkpoint are not in order.")
            last = key
            size += len(packed(row))
            rows.append(row)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FormatError(f"A chunk of a checkpoint does not parse: {error}.") from error
    if size != len(data) or b"".join(map(packed, rows)) != data or not rows:
        raise FormatError("A chunk of a checkpoint is not in its one canonical encoding.")
    return rows


def _checked(row: Any) -> tuple[Any, ...]:
    if type(row) is not tuple or not row or tuple(map(type, row)) != TABLE_FIELDS.get(row[0]):
        raise FormatError("A row of a checkpoint does not have the fields of its table.")
    if max(_NUMBERS[row[0]](row)) > INT63_MAX:
        raise FormatError("A number in a checkpoint is out of range.")
    if row[0] == StateTable.DENTRY:
        check_name(row[2])
    return row_key(row)


def encode_header(magic: bytes, header: ObjectHeader) -> bytes:
    """60 bytes. Raises FormatError."""
    check_int(header.suite, 0, 0xFFFF, "The suite of a checkpoint")
    check_id(header.generation, "The generation of a checkpoint")
    check_bytes(header.object_id, SEGMENT_ID_SIZE, "The object id of a checkpoint")
    return _HEADER.pack(magic, FORMAT_VERSION, *header)


def decode_header(magic: bytes, data: bytes) -> ObjectHeader:
    """The header of a whole object. Raises FormatError or UnsupportedFormat."""
    if len(data) < HEADER_SIZE:
        raise FormatError("An object of a checkpoint is cut short.")
    found, version, suite, generation, object_id = _HEADER.unpack_from(data)
    if found != magic:
        raise FormatError("An object of a checkpoint does not begin as one.")
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"A checkpoint is of format {version}; this version of lucid knows format"
            f" {FORMAT_VERSION}. Install a newer one."
        )
    return ObjectHeader(suite, generation, object_id)


def signed_bytes(filespace: bytes, sequence: int, header: bytes, body: bytes) -> bytes:
    """What the signature of a manifest is over."""
    return b"".join((_SIGNED_LABEL, filespace, sequence.to_bytes(8, "little"), header, body))


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes of the body. Raises FormatError."""
    _check_manifest(manifest)
    chunks = [list(chunk) for chunk in manifest.chunks]
    return pack([*manifest[:-1], chunks], CHUNKS_MAX)


def decode_manifest(data: bytes) -> Manifest:
    """The body that encode_manifest wrote. Raises FormatError."""
    fields = check_fields(unpack(data, CHUNKS_MAX), 5, "A manifest")
    if type(fields[4]) is not list:
        raise FormatError("The chunks of a manifest are not an array.")
    chunks = tuple(ChunkRef._make(check_fields(row, 4, "A chunk")) for row in fields[4])
    member, session, time_ns, entry_hash = fields[:4]
    manifest = Manifest(member, session, time_ns, entry_hash, chunks)
    _check_manifest(manifest)
    return manifest


def _check_manifest(manifest: Manifest) -> None:
    check_id(manifest.member, "The member of a manifest")
    check_int(manifest.session, 1, SESSION_MAX, "The session of a manifest")
    check_int(manifest.time_ns, TIME_MIN, TIME_MAX, "The time of a manifest")
    check_bytes(manifest.entry_hash, HASH_SIZE, "The entry hash of a manifest")
    if not 0 < len(manifest.chunks) <= CHUNKS_MAX:
        raise FormatError("A manifest has from 1 to 1,048,576 chunks.")
    for chunk in manifest.chunks:
        check_int(chunk.sequence, 1, INT63_MAX, "The checkpoint of a chunk")
        check_bytes(chunk.name, CHUNK_NAME_SIZE, "The name of a chunk")
        check_bytes(chunk.hash, HASH_SIZE, "The hash of a chunk")
        if type(chunk.first_key) is not bytes or not 0 < len(chunk.first_key) <= KEY_MAX:
            raise FormatError("The first key of a chunk is not one.")
