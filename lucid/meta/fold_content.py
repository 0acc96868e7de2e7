"""Rules of content, stage and drop. Part of the fold: total and pure.

Content goes to the inode that holds the version it was written on. If that version is no longer the
newest one, the content is kept in a conflict copy: a new inode, whose number is the op's id, beside
the name that the file was opened by. So is content on an inode whose exclusive lease another
session has. What the author writes next is written on that version, so it goes to the copy too.
"""

from __future__ import annotations

import stat

from lucid.format.change import LOST, Change
from lucid.format.ops import Content, Drop, Stage, session_of
from lucid.format.runs import cut_run
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_lease import is_leased_elsewhere
from lucid.meta.fold_map import first_map, next_map
from lucid.meta.fold_names import effect_at
from lucid.meta.fold_places import find_beside, find_place, put_name
from lucid.meta.fold_segments import names_gone
from lucid.meta.state import InodeRow, State, VersionRow

__all__ = ["fold_content", "fold_drop", "fold_stage"]

_NAMELESS = b"recovered"
"""For content that says no name and is of an inode that the state does not know."""


def fold_content(state: State, op: Content, author: Author) -> Effect:
    if state.version(op.op_id) is not None or names_gone(state, op.changes):
        return NOTHING
    base = state.version(op.base) if op.base else None
    row = state.inode(op.ino if base is None else base.ino)
    if row is None or row.version != op.base or not stat.S_ISREG(row.mode):
        return _copy(state, op, row, base, author)
    if is_leased_elsewhere(state.lease(row.ino), session_of(op.op_id)):
        return _copy(state, op, row, base, author)
    if row.nlink:
        _write(state, op, row)
        return Effect(Status.APPLIED, (row.ino,), (), row.ino)
    parent, name = _opened_by(op, row)
    place = find_place(state, parent, name, op.op_id, op.time_ns, author)
    if place is None:
        return NOTHING
    row = put_name(state, row, place.parent, place.name, op.op_id)
    state.touch_directory(place.parent, op.time_ns)
    _write(state, op, row)
    if place.status is Status.APPLIED:
        place = place._replace(status=Status.REVIVED)
    return effect_at(place, row.ino)


def fold_stage(state: State, op: Stage, author: Author) -> Effect:
    target = op.target
    if (
        target >> 32 != op.op_id >> 32
        or state.version(target) is not None
        or state.inode(target) is not None
        or names_gone(state, op.changes)
    ):
        return NOTHING
    state.add_staged(target, op.changes)
    return Effect(Status.APPLIED, (), (), 0)


def fold_drop(state: State, op: Drop, author: Author) -> Effect:
    if op.target >> 32 != op.op_id >> 32 or not state.staged(op.target):
        return NOTHING
    state.drop_staged(op.target)
    return Effect(Status.APPLIED, (), (), 0)


def _write(state: State, op: Content, row: InodeRow) -> None:
    """The op becomes the newest version of `row`, which has a name and holds its base."""
    state.add_version(VersionRow(op.op_id, row.ino, state.stamp, op.base, op.size, op.mtime_ns))
    sizes = (row.size, op.keep, op.size)
    gained = next_map(state, row.ino, op.op_id, sizes, op.changes)
    if gained:
        state.count(0, gained)
    state.put_inode(
        row._replace(
            size=op.size,
            version=op.op_id,
            mtime_ns=op.mtime_ns,
            ctime_ns=op.ctime_ns,
            data_bytes=row.data_bytes + gained,
        )
    )


def _copy(
    state: State, op: Content, row: InodeRow | None, base: VersionRow | None, author: Author
) -> Effect:
    """The one conflict copy of a version that is not the newest, or that nobody knows."""
    ino = op.op_id
    if state.inode(ino) is not None:
        return NOTHING
    parent, name = _opened_by(op, row)
    place = find_beside(state, parent, name, ino, op.time_ns, author)
    if place is None:
        return NOTHING
    state.add_version(VersionRow(ino, ino, state.stamp, op.base, op.size, op.mtime_ns))
    data_bytes = first_map(state, ino, _base_map(state, op, base), op.changes, op.size)
    mode, uid, gid = stat.S_IFREG | 0o600, 0, 0
    if row is not None:
        mode, uid, gid = stat.S_IFREG | stat.S_IMODE(row.mode), row.uid, row.gid
        for key, value in state.xattrs(row.ino):
            state.put_xattr(ino, key, value)
    fresh = InodeRow(
        ino, mode, uid, gid, 0, 0, op.size, ino, op.mtime_ns, op.mtime_ns, op.ctime_ns,
        data_bytes, b"", 0, b"",
    )  # fmt: skip
    state.put_inode(put_name(state, fresh, place.parent, place.name, ino))
    state.touch_directory(place.parent, op.time_ns)
    return effect_at(place, ino)


def _base_map(state: State, op: Content, base: VersionRow | None) -> list[Change]:
    """What is kept of the base's map; blocks that nobody holds are lost, never zeros."""
    limit = min(op.keep, op.size)
    if not limit or not op.base:
        return []
    if base is None:
        blocks = -(-limit // state.geometry.block_size)
        return [Change(0, blocks, LOST)]
    kept = [cut_run(run, limit, state.geometry) for run in state.extents_at(base.ino, base.id)]
    return [run for run in kept if run is not None]


def _opened_by(op: Content, row: InodeRow | None) -> tuple[int, bytes]:
    """The name to come back by, or to lie beside."""
    if op.parent and op.name:
        return op.parent, op.name
    if row is not None and row.last_name:
        return row.last_parent, row.last_name
    return op.parent, _NAMELESS
