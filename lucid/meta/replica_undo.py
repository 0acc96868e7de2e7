"""What one pending op leaves behind: the keys it read and wrote, its images, and itself packed.

Keys are integers. A row key stands for rows: an inode number for all rows of that inode or version,
a hash for a dentry. A signal, below zero, stands for a fact that ops depend on without writing its
rows: which names a directory has, whether it lives. Two keys that fall together cost an undo and
nothing else.

Packed ops are of this version of the software only, and no part of the format: a database of
another version is rebuilt. Pure but for the tables that are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from lucid.errors import InternalError
from lucid.format import ops as op_kinds
from lucid.format.change import Change
from lucid.format.ops import Op
from lucid.meta.replica_tables import Tables
from lucid.meta.schema import DENTRY, INODE, VERSION, DirectoryRow
from lucid.meta.state import DentryRow, InodeRow, VersionRow

__all__ = [
    "Touch",
    "Trace",
    "add_touch",
    "alive_signal",
    "dentry_key",
    "names_signal",
    "op_id_of",
    "pack",
    "pack_op",
    "restore",
    "unpack_op",
]

pack = msgpack.Packer(autoreset=True).pack
"""Of rows and ops. One packer for all: its calls hold the GIL."""

_ALIVE = -(1 << 63)
_POSITIVE = (1 << 62) - 1


def dentry_key(parent: int, name: bytes) -> int:
    """Row key of one name."""
    return hash((parent, name)) & _POSITIVE


def names_signal(parent: int) -> int:
    """Signal: which names a directory has."""
    return -parent


def alive_signal(ino: int) -> int:
    """Signal: whether this is a directory that is part of the tree."""
    return _ALIVE + ino


class Touch(NamedTuple):
    """A directory's change that commutes."""

    ino: int
    time_ns: int
    subdirectories: int


class Trace:
    """What one op did while it was folded. Written by `ReplicaState`, read once by `PendingOps`.

    `images` holds each row it wrote as it was before, by (table, key).
    """

    __slots__ = ("data_bytes", "images", "inode_reads", "inodes", "reads", "touches", "writes")

    def __init__(self) -> None:
        self.images: dict[tuple[int, Any], Any] = {}
        self.reads: set[int] = set()
        self.inode_reads: set[int] = set()
        self.writes: set[int] = set()
        self.touches: list[Touch] = []
        self.inodes = 0
        self.data_bytes = 0

    def read_keys(self, plain: bool) -> tuple[int, ...]:
        """What the op's result hangs on, apart from the rows it wrote.

        A `plain` op asks of an inode that it only read no more than whether it is a directory of
        the tree: somebody's chmod of a directory must not concern every file made in it.
        """
        writes = self.writes
        keys = {key for key in self.reads if key < 0 or key not in writes}
        for ino in self.inode_reads:
            if ino not in writes:
                keys.add(_ALIVE + ino if plain else ino)
        return tuple(keys)

    def new_file(
        self, tables: Tables, version: VersionRow, row: InodeRow, dentry: DentryRow
    ) -> None:
        """Put the rows of a new file, none of which was there, and note what they change."""
        ino, place = row.ino, (dentry.parent, dentry.name)
        self.writes.update((ino, dentry_key(*place), names_signal(dentry.parent)))
        for written in ((VERSION.number, ino), (INODE.number, ino), (DENTRY.number, place)):
            self.images[written] = None
        tables.version.put(ino, version)
        tables.inode.put(ino, row)
        tables.dentry.put(place, dentry)


def op_id_of(op: Op) -> int:
    """The id of an op that can be pending."""
    if isinstance(op, op_kinds.UnknownOp):
        raise InternalError("An op of an unknown kind cannot be pending.")
    return op.op_id


def add_touch(tables: Tables, touch: Touch) -> None:
    """A directory's time and count in the tables."""
    row = tables.directory.get(touch.ino)
    if row is None:
        row = DirectoryRow(touch.ino, touch.time_ns, touch.subdirectories)
    else:
        row = DirectoryRow(
            touch.ino,
            max(row.touched_ns, touch.time_ns),
            row.subdirectories + touch.subdirectories,
        )
    tables.directory.put(touch.ino, row)


def restore(tables: Tables, images: bytes, told: Callable[[int, Any], None] | None = None) -> None:
    """Put rows back as they were; `told` hears of each before."""
    for number, key, row in msgpack.unpackb(images, use_list=False):
        if told is not None:
            told(number, key)
        table = tables[number]
        table.put(key, None if row is None else table.spec.row(row))


_KINDS: tuple[Any, ...] = (
    op_kinds.Create,
    op_kinds.Mkdir,
    op_kinds.Symlink,
    op_kinds.Mknod,
    op_kinds.Content,
    op_kinds.Stage,
    op_kinds.Drop,
    op_kinds.Link,
    op_kinds.Unlink,
    op_kinds.Rmdir,
    op_kinds.Rename,
    op_kinds.Setattr,
    op_kinds.Setxattr,
    op_kinds.Clone,
)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_WITH_CHANGES = (op_kinds.Create, op_kinds.Content, op_kinds.Stage)


def pack_op(op: Op) -> bytes:
    """An op as bytes that `unpack_op` reads. Raises InternalError for one that is never pending."""
    number = _NUMBERS.get(type(op))
    if number is None:
        raise InternalError(f"A {type(op).__name__} op cannot be pending.")
    packed: bytes = pack((number, op))
    return packed


def unpack_op(packed: bytes) -> Op:
    """The op that was packed."""
    number, fields = msgpack.unpackb(packed, use_list=False)
    kind = _KINDS[number]
    if kind in _WITH_CHANGES:
        fields = (*fields[:-1], tuple(map(Change._make, fields[-1])))
    op: Op = kind._make(fields)
    return op
