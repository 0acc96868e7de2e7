"""Rules of the ops that make something under a name: create, mkdir, symlink, mknod, link.

Part of the fold: total and pure. The newcomer never pushes anything away: where its name is taken
it gets a conflict name, and where its directory was removed that comes back.
"""

from __future__ import annotations

import stat

from lucid.format.ops import Create, Link, Mkdir, Mknod, Symlink
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_map import first_map
from lucid.meta.fold_places import Place, find_place, is_directory, put_name
from lucid.meta.fold_segments import names_gone
from lucid.meta.state import DentryRow, InodeRow, State, VersionRow

__all__ = ["effect_at", "fold_create", "fold_link", "fold_mkdir", "fold_mknod", "fold_symlink"]


def effect_at(place: Place, ino: int) -> Effect:
    """The effect of an op whose `ino` landed at `place`."""
    name = ((place.parent, place.name),)
    if not place.revived:
        return Effect(place.status, (ino,), name, ino)
    directories = tuple(row.ino for row in place.revived)
    names = tuple((row.parent, row.name) for row in place.revived)
    return Effect(place.status, (*directories, ino), names + name, ino)


def fold_create(state: State, op: Create, author: Author) -> Effect:
    ino, time_ns = op.op_id, op.time_ns
    if state.inode(ino) is not None or state.version(ino) is not None:
        return NOTHING
    if names_gone(state, op.changes):
        return NOTHING
    place = find_place(state, op.parent, op.name, ino, time_ns, author)
    if place is None:
        return NOTHING
    parent, name = place.parent, place.name
    data_bytes = first_map(state, ino, (), op.changes, op.size)
    state.new_file(
        VersionRow(ino, ino, state.stamp, 0, op.size, op.mtime_ns),
        InodeRow(
            ino, op.mode, op.uid, op.gid, 0, 1, op.size, ino, op.atime_ns, op.mtime_ns, time_ns,
            data_bytes, b"", parent, name,
        ),
        DentryRow(parent, name, ino, ino),
    )  # fmt: skip
    state.touch_directory(parent, time_ns)
    state.count(1, data_bytes)
    for key, value in op.xattrs:
        state.put_xattr(ino, key, value)
    return effect_at(place, ino)


def fold_mkdir(state: State, op: Mkdir, author: Author) -> Effect:
    row = _new_row(op, op.mode)._replace(mtime_set_ns=op.time_ns)
    effect = _make(state, op, row, author, subdirectories=1)
    if effect.landed_ino:
        for key, value in op.xattrs:
            state.put_xattr(row.ino, key, value)
    return effect


def fold_symlink(state: State, op: Symlink, author: Author) -> Effect:
    row = _new_row(op, stat.S_IFLNK | 0o777)
    return _make(state, op, row._replace(size=len(op.target), target=op.target), author)


def fold_mknod(state: State, op: Mknod, author: Author) -> Effect:
    return _make(state, op, _new_row(op, op.mode)._replace(rdev=op.rdev), author)


def fold_link(state: State, op: Link, author: Author) -> Effect:
    """A file that was removed meanwhile comes back by its new name."""
    row = state.inode(op.ino)
    if row is None or is_directory(row):
        return NOTHING
    taken = state.dentry(op.parent, op.name)
    if taken is not None and taken.ino == op.ino:
        return NOTHING
    place = find_place(state, op.parent, op.name, op.op_id, op.time_ns, author)
    if place is None:
        return NOTHING
    if not row.nlink and place.status is Status.APPLIED:
        place = place._replace(status=Status.REVIVED)
    row = put_name(state, row, place.parent, place.name, op.op_id)
    state.put_inode(row._replace(ctime_ns=op.time_ns))
    state.touch_directory(place.parent, op.time_ns)
    return effect_at(place, op.ino)


def _new_row(op: Mkdir | Symlink | Mknod, mode: int) -> InodeRow:
    time_ns = op.time_ns
    return InodeRow(
        op.op_id, mode, op.uid, op.gid, 0, 0, 0, 0, time_ns, time_ns, time_ns, 0, b"", 0, b""
    )


def _make(
    state: State,
    op: Mkdir | Symlink | Mknod,
    row: InodeRow,
    author: Author,
    subdirectories: int = 0,
) -> Effect:
    if state.inode(row.ino) is not None or state.version(row.ino) is not None:
        return NOTHING
    place = find_place(state, op.parent, op.name, row.ino, op.time_ns, author)
    if place is None:
        return NOTHING
    state.put_inode(put_name(state, row, place.parent, place.name, row.ino))
    state.touch_directory(place.parent, op.time_ns, subdirectories)
    return effect_at(place, row.ino)
