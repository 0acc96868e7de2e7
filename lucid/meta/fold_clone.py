"""The rule of clone: an older version becomes content again. Part of the fold: total and pure.

A clone is the content op, or the create, that has the whole map of the source for its changes: what
becomes of it beside the ops of others is decided by the rules of those. It names no segments, so
that it means the same after a block was moved to another one.
"""

from __future__ import annotations

import stat

from lucid.format.ops import Clone, Content, Create
from lucid.meta.fold_content import fold_content
from lucid.meta.fold_effect import NOTHING, Author, Effect
from lucid.meta.fold_names import fold_create
from lucid.meta.fold_rules import rules_in_force
from lucid.meta.state import State

__all__ = ["fold_clone"]


def fold_clone(state: State, op: Clone, author: Author) -> Effect:
    source = state.version(op.version)
    if source is None or rules_in_force(state) < 2 or state.staged(op.op_id):
        return NOTHING
    row = state.inode(source.ino)
    if row is None:
        return NOTHING
    changes = tuple(state.extents_at(source.ino, source.id))
    if op.ino:
        content = Content(
            op.op_id, op.time_ns, op.ino, op.base, op.parent, op.name, 0, source.size,
            op.mtime_ns, op.time_ns, changes,
        )  # fmt: skip
        return fold_content(state, content, author)
    mode = stat.S_IFREG | stat.S_IMODE(row.mode)
    create = Create(
        op.op_id, op.time_ns, op.parent, op.name, mode, row.uid, row.gid, op.mtime_ns,
        op.mtime_ns, tuple(state.xattrs(row.ino)), source.size, changes,
    )  # fmt: skip
    return fold_create(state, create, author)
