"""Rules of setattr and setxattr: the last one in the log wins. Part of the fold: total and pure.

Size is no attribute: it belongs to content. Attributes never bring a removed inode back.
"""

from __future__ import annotations

from lucid.format.ops import Setattr, Setxattr
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_places import is_directory
from lucid.meta.state import State

__all__ = ["fold_setattr", "fold_setxattr"]

_TYPE = 0o170000


def fold_setattr(state: State, op: Setattr, author: Author) -> Effect:
    row = state.inode(op.ino)
    if row is None:
        return NOTHING
    mode = row.mode
    if op.mode is not None:
        mode = mode & _TYPE | op.mode & ~_TYPE
    mtime_set_ns = row.mtime_set_ns
    if op.mtime_ns is not None and is_directory(row):
        mtime_set_ns = op.time_ns
    state.put_inode(
        row._replace(
            mode=mode,
            uid=row.uid if op.uid is None else op.uid,
            gid=row.gid if op.gid is None else op.gid,
            atime_ns=row.atime_ns if op.atime_ns is None else op.atime_ns,
            mtime_ns=row.mtime_ns if op.mtime_ns is None else op.mtime_ns,
            ctime_ns=op.time_ns,
            mtime_set_ns=mtime_set_ns,
        )
    )
    return Effect(Status.APPLIED, (op.ino,), (), op.ino)


def fold_setxattr(state: State, op: Setxattr, author: Author) -> Effect:
    row = state.inode(op.ino)
    if row is None:
        return NOTHING
    state.put_xattr(op.ino, op.name, op.value)
    state.put_inode(row._replace(ctime_ns=op.time_ns))
    return Effect(Status.APPLIED, (op.ino,), (), op.ino)
