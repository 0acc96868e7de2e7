"""Ops to rows of fields and back, with every limit of FORMAT section 8. Pure; any thread.

A kind is described once, by the names of its fields: fields of one name have one rule. The checks
run as a few calls into C, since an entry of 10,000 ops is parsed beside a busy mount.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, cast

from lucid.engine.fields import Fields
from lucid.errors import FormatError, UnsupportedFormat
from lucid.format import limits
from lucid.format.change import SegmentRow, decode_changes, encode_changes
from lucid.format.check import (
    check_bytes,
    check_fields,
    check_id,
    check_int,
    check_label,
    check_name,
    check_target,
    check_xattr_name,
    check_xattr_value,
)
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import INT63_MAX, KEY_SIZE, TIME_MAX, TIME_MIN, UINT32_MAX
from lucid.format.moves import MOVE_SIZE_MAX, check_moves, decode_moves, encode_moves
from lucid.format.ops import (
    KIND_CLONE,
    KIND_CONTENT,
    KIND_CREATE,
    KIND_DROP,
    KIND_FLOOR,
    KIND_GENESIS,
    KIND_GIVE,
    KIND_LINK,
    KIND_MKDIR,
    KIND_MKNOD,
    KIND_RENAME,
    KIND_REPACK,
    KIND_RMDIR,
    KIND_RULES,
    KIND_SESSION,
    KIND_SETATTR,
    KIND_SETXATTR,
    KIND_STAGE,
    KIND_SYMLINK,
    KIND_TAKE,
    KIND_TAKEOVER,
    KIND_UNLINK,
    LEASE_EXCLUSIVE,
    LEASE_NONE,
    LEASE_SHARED,
    ROLE_ADMIN,
    ROOT_INO,
    RULES,
    RULES_FIRST,
    Clone,
    Content,
    Create,
    Drop,
    Floor,
    Genesis,
    GenesisGeneration,
    GenesisMember,
    GenesisRoot,
    Give,
    Link,
    Mkdir,
    Mknod,
    Op,
    Rename,
    Repack,
    Rmdir,
    Rules,
    SessionOp,
    Setattr,
    Setxattr,
    Stage,
    Symlink,
    Take,
    Takeover,
    UnknownOp,
    Unlink,
    Xattrs,
    changes_of,
    segments_of,
)

__all__ = [
    "SPEC_OF_KIND",
    "OpSpec",
    "decode_op",
    "decode_xattrs",
    "encode_op",
    "encode_xattrs",
    "size_bound",
]

MODE_MAX = 0o177777
KIND_MAX = 0xFFFF
SEGMENT_ROW_MAX = 128
"""At least as many bytes as an entry's row of a segment."""

_NODE_TYPES = frozenset({stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})

_RANGES: dict[str, tuple[int, int]] = {
    "op_id": (1, INT63_MAX),
    "time_ns": (TIME_MIN, TIME_MAX),
    "atime_ns": (TIME_MIN, TIME_MAX),
    "mtime_ns": (TIME_MIN, TIME_MAX),
    "ctime_ns": (TIME_MIN, TIME_MAX),
    "ino": (1, INT63_MAX),
    "parent": (1, INT63_MAX),
    "new_parent": (1, INT63_MAX),
    "target": (1, INT63_MAX),
    "base": (0, INT63_MAX),
    "seen_ino": (0, INT63_MAX),
    "seen_version": (0, INT63_MAX),
    "source": (1, INT63_MAX),
    "version": (1, INT63_MAX),
    "sequence": (1, INT63_MAX),
    "number": (1, UINT32_MAX),
    "session": (1, UINT32_MAX),
    "keep": (0, limits.SIZE_MAX),
    "size": (0, limits.SIZE_MAX),
    "mode": (0, MODE_MAX),
    "uid": (0, UINT32_MAX),
    "gid": (0, UINT32_MAX),
    "rdev": (0, UINT32_MAX),
}

_TEXTS: dict[str, Callable[[bytes], None]] = {
    "name": check_name,
    "new_name": check_name,
    "target": check_target,
    "label": check_label,
    "token": lambda token: _ignore(check_id(token, "The token of a session")),
}


class OpSpec(NamedTuple):
    """How one kind of op is checked. Indices are those of its NamedTuple."""

    kind: int
    make: type[Any]
    types: tuple[type, ...]
    """Exact type of each field, after decoding."""
    fields: Fields
    """Says at once that types and numbers are right; what is wrong is for the slow look."""
    numbers: Callable[[Any], tuple[int, ...]]
    number_names: tuple[str, ...]
    lows: tuple[int, ...]
    highs: tuple[int, ...]
    texts: tuple[tuple[int, Callable[[bytes], None]], ...]
    absent: Mapping[int, int | bytes]
    """Fields that may be nil, each with a value that passes the checks in its stead."""
    xattrs: int
    changes: int
    moves: int
    also: Callable[[Any], None] | None


def _spec(
    kind: int,
    make: type[Any],
    *,
    texts: Mapping[str, Callable[[bytes], None] | None] | None = None,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    absent: Mapping[str, int | bytes] | None = None,
    also: Callable[[Any], None] | None = None,
) -> OpSpec:
    fields: tuple[str, ...] = make._fields
    own_texts = texts or {}
    known_ranges = {**_RANGES, **(ranges or {})}
    known_texts = {**_TEXTS, **own_texts}
    text_at = {
        index: known_texts[name]
        for index, name in enumerate(fields)
        if name in own_texts or (name in _TEXTS and name not in _RANGES)
    }
    number_at = [
        index for index, name in enumerate(fields) if index not in text_at and name in known_ranges
    ]
    types: list[type] = [int if index in number_at else bytes for index in range(len(fields))]
    xattrs = fields.index("xattrs") if "xattrs" in fields else -1
    changes = fields.index("changes") if "changes" in fields else -1
    moves = fields.index("moves") if "moves" in fields else -1
    for index in (xattrs, changes, moves):
        if index >= 0:
            types[index] = tuple
    return OpSpec(
        kind=kind,
        make=make,
        types=tuple(types),
        fields=Fields(tuple(types), {index: known_ranges[fields[index]] for index in number_at}),
        numbers=itemgetter(*number_at),
        number_names=tuple(fields[index] for index in number_at),
        lows=tuple(known_ranges[fields[index]][0] for index in number_at),
        highs=tuple(known_ranges[fields[index]][1] for index in number_at),
        texts=tuple((index, check) for index, check in text_at.items() if check is not None),
        absent={fields.index(name): value for name, value in (absent or {}).items()},
        xattrs=xattrs,
        changes=changes,
        moves=moves,
        also=also,
    )


def _ignore(_value: object) -> None:
    return None


def _check_create(op: Create) -> None:
    if not stat.S_ISREG(op.mode):
        raise FormatError("A create makes a regular file: its mode must say so.")


def _check_mkdir(op: Mkdir) -> None:
    if not stat.S_ISDIR(op.mode):
        raise FormatError("A mkdir makes a directory: its mode must say so.")


def _check_mknod(op: Mknod) -> None:
    if stat.S_IFMT(op.mode) not in _NODE_TYPES:
        raise FormatError("A mknod makes a FIFO, a socket or a device: its mode must say so.")


def _check_opened_name(op: Content | Clone) -> None:
    if op.parent or op.name:
        check_name(op.name)


def _check_clone(op: Clone) -> None:
    _check_opened_name(op)
    if not op.ino and (op.base or not op.parent):
        raise FormatError("A clone that makes a file has a parent and no base.")


def _check_repack(op: Repack) -> None:
    check_moves(op.moves)


_ZERO = (0, 0)
_SPECS: tuple[OpSpec, ...] = (
    _spec(KIND_SESSION, SessionOp, ranges={"op_id": _ZERO}),
    _spec(KIND_CREATE, Create, also=_check_create),
    _spec(KIND_MKDIR, Mkdir, also=_check_mkdir),
    _spec(KIND_SYMLINK, Symlink, texts={"target": check_target}),
    _spec(KIND_MKNOD, Mknod, also=_check_mknod),
    _spec(
        KIND_CONTENT,
        Content,
        texts={"name": None},
        ranges={"parent": (0, INT63_MAX)},
        also=_check_opened_name,
    ),
    _spec(KIND_STAGE, Stage),
    _spec(KIND_DROP, Drop),
    _spec(KIND_LINK, Link),
    _spec(KIND_UNLINK, Unlink),
    _spec(KIND_RMDIR, Rmdir),
    _spec(KIND_RENAME, Rename),
    _spec(
        KIND_SETATTR,
        Setattr,
        absent=dict.fromkeys(("mode", "uid", "gid", "atime_ns", "mtime_ns"), 0),
    ),
    _spec(
        KIND_SETXATTR,
        Setxattr,
        texts={"name": check_xattr_name, "value": check_xattr_value},
        absent={"value": b""},
    ),
    _spec(KIND_RULES, Rules),
    _spec(KIND_FLOOR, Floor),
    _spec(
        KIND_CLONE,
        Clone,
        texts={"name": None},
        ranges={"ino": (0, INT63_MAX), "parent": (0, INT63_MAX)},
        also=_check_clone,
    ),
    _spec(KIND_REPACK, Repack, also=_check_repack),
    _spec(KIND_TAKE, Take, ranges={"mode": (LEASE_SHARED, LEASE_EXCLUSIVE)}),
    _spec(KIND_GIVE, Give, ranges={"mode": (LEASE_NONE, LEASE_SHARED)}),
    _spec(KIND_TAKEOVER, Takeover),
)
SPEC_OF_KIND = {spec.kind: spec for spec in _SPECS}
_BY_CLASS = {spec.make: spec for spec in _SPECS}


def encode_op(op: Op, table: Mapping[bytes, int]) -> list[Any]:
    """The op as an array of fields; `table` gives the index of each segment.

    Raises FormatError for what no op can hold, or a segment that `table` lacks.
    """
    spec = _BY_CLASS.get(type(op))
    if spec is None:
        if isinstance(op, Genesis):
            return _encode_genesis(op)
        raise FormatError("An op of an unknown kind cannot be written.")
    _check(spec, op)
    row = [spec.kind, *op]
    if spec.xattrs >= 0:
        row[spec.xattrs + 1] = encode_xattrs(op[spec.xattrs])  # type: ignore[arg-type]
    if spec.changes >= 0:
        row[spec.changes + 1] = encode_changes(changes_of(op), table)
    if isinstance(op, Repack):
        row[spec.moves + 1] = encode_moves(op.moves, table)
    return row


def decode_op(row: Any, table: Sequence[SegmentRow]) -> Op:
    """The op that encode_op wrote, with each segment's id out of `table`.

    An op of another kind is an `UnknownOp`. Raises FormatError for what no op can hold.
    """
    if type(row) is not list or not row:
        raise FormatError("An op is not an array.")
    spec = SPEC_OF_KIND.get(row[0]) if type(row[0]) is int else None
    if spec is None:
        check_int(row[0], 0, KIND_MAX, "The kind of an op")
        return _decode_genesis(row) if row[0] == KIND_GENESIS else UnknownOp(row[0])
    fields = row[1:]
    if len(fields) != len(spec.types):
        raise FormatError(f"An op of kind {spec.kind} has {len(fields)} fields.")
    if spec.xattrs >= 0:
        fields[spec.xattrs] = decode_xattrs(fields[spec.xattrs])
    if spec.changes >= 0:
        fields[spec.changes] = decode_changes(fields[spec.changes], table)
    if spec.moves >= 0:
        fields[spec.moves] = decode_moves(fields[spec.moves], table)
    op = tuple.__new__(spec.make, fields)
    _check(spec, op)
    return cast(Op, op)


def _check(spec: OpSpec, op: Any) -> None:
    fields: Any = op
    if spec.absent and None in op:
        absent = spec.absent
        fields = tuple(
            absent[index] if value is None and index in absent else value
            for index, value in enumerate(op)
        )
    if not spec.fields.fit(fields):
        raise _misfit(spec, fields)
    for index, check in spec.texts:
        check(fields[index])
    if spec.also is not None:
        spec.also(op)


def _misfit(spec: OpSpec, fields: Any) -> FormatError:
    if tuple(map(type, fields)) != spec.types:
        return FormatError(f"A field of an op of kind {spec.kind} has another type.")
    numbers = spec.numbers(fields)
    bad = [
        f"{name} = {number}"
        for name, number, low, high in zip(
            spec.number_names, numbers, spec.lows, spec.highs, strict=True
        )
        if not low <= number <= high
    ]
    return FormatError(f"An op of kind {spec.kind} is out of range: {', '.join(bad)}.")


def encode_xattrs(xattrs: Xattrs) -> list[Any]:
    """Pairs in ascending order of their names. Raises FormatError for what cannot be kept."""
    if not xattrs:
        return []
    pairs = [list(pair) for pair in sorted(xattrs)]
    decode_xattrs(pairs)
    return pairs


def decode_xattrs(value: Any) -> Xattrs:
    """The pairs that encode_xattrs wrote. Raises FormatError."""
    if type(value) is not list:
        raise FormatError("Extended attributes are not an array.")
    if not value:
        return ()
    if len(value) > limits.ARRAY_ITEMS_MAX:
        raise FormatError("A file has too many extended attributes.")
    total = 0
    before = b""
    for pair in value:
        name, content = check_fields(pair, 2, "An extended attribute")
        if type(name) is not bytes or type(content) is not bytes:
            raise FormatError("A field of an extended attribute has another type.")
        check_xattr_name(name)
        check_xattr_value(content)
        if name <= before:
            raise FormatError("Extended attributes do not ascend by name.")
        before = name
        total += len(name) + len(content)
    if total > limits.XATTRS_TOTAL_MAX:
        raise FormatError("The extended attributes of one file are too large together.")
    return tuple((name, content) for name, content in value)


def _encode_genesis(op: Genesis) -> list[Any]:
    _check_genesis(op)
    return [
        KIND_GENESIS,
        *op[:5],
        list(op.founder),
        list(op.generation),
        list(op.root),
    ]


def _decode_genesis(row: list[Any]) -> Genesis:
    check_fields(row, 9, "Genesis")
    op = Genesis._make(
        [
            *row[1:6],
            GenesisMember._make(check_fields(row[6], 5, "The founder")),
            GenesisGeneration._make(check_fields(row[7], 2, "The first generation")),
            GenesisRoot._make(check_fields(row[8], 3, "The root")),
        ]
    )
    _check_genesis(op)
    return op


def _check_genesis(op: Genesis) -> None:
    check_int(op.op_id, ROOT_INO, ROOT_INO, "The id of genesis")
    check_int(op.time_ns, TIME_MIN, TIME_MAX, "The time of genesis")
    check_bytes(op.superblock_hash, HASH_SIZE, "The superblock hash")
    check_int(op.rules, 1, UINT32_MAX, "The number of the rules")
    if not RULES_FIRST <= op.rules <= RULES:
        raise UnsupportedFormat(
            f"The filespace begins with rules {op.rules}; this version of lucid knows rules"
            f" {RULES_FIRST} to {RULES}. Install a newer one."
        )
    for label in (op.name, op.founder.label):
        if type(label) is not bytes:
            raise FormatError("A label is not bytes.")
        check_label(label)
    check_id(op.founder.member, "The founder's id")
    check_bytes(op.founder.sign_key, KEY_SIZE, "The founder's signing key")
    check_bytes(op.founder.box_key, KEY_SIZE, "The founder's box key")
    check_int(op.founder.role, ROLE_ADMIN, ROLE_ADMIN, "The founder's role")
    check_id(op.generation.id, "The first generation")
    check_bytes(op.generation.key_hash, HASH_SIZE, "The hash of the first key")
    check_int(op.root.mode, 0, MODE_MAX, "The root's mode")
    check_int(op.root.uid, 0, UINT32_MAX, "The root's uid")
    check_int(op.root.gid, 0, UINT32_MAX, "The root's gid")
    if not stat.S_ISDIR(op.root.mode):
        raise FormatError("The root is a directory: its mode must say so.")


def size_bound(op: Op) -> int:
    """At least as many bytes as the op adds to an entry, its segment rows included.

    Cheap arithmetic for an author who keeps an entry to its limit.
    """
    size = 160 if type(op) is Genesis else 0
    size += 9 * len(op)
    for field in op:
        if type(field) is bytes:
            size += len(field)
    changes = changes_of(op)
    for change in changes:
        size += 64
        if change.lengths is not None:
            size += 5 + 5 * len(change.lengths)
    if isinstance(op, (Create, Mkdir)) and op.xattrs:
        size += sum(11 + len(name) + len(content) for name, content in op.xattrs)
    if isinstance(op, Repack):
        size += MOVE_SIZE_MAX * len(op.moves)
    return size + 9 + SEGMENT_ROW_MAX * len(segments_of(op))
