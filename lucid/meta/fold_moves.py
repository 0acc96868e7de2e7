"""Rules of the ops that take a name away: unlink, rmdir, rename. Part of the fold: total and pure.

They act on what their author saw. Where a name leads to something else by now, or to something
newer, nothing is taken away, and a renamed file lands beside it: this is how editors save.
"""

from __future__ import annotations

from lucid.format.ops import Rename, Rmdir, Unlink
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_names import effect_at
from lucid.meta.fold_places import (
    Place,
    find_place,
    find_seen,
    find_source,
    is_directory,
    remove_name,
)
from lucid.meta.state import DentryRow, InodeRow, State

__all__ = ["fold_rename", "fold_rmdir", "fold_unlink"]


def fold_unlink(state: State, op: Unlink, author: Author) -> Effect:
    found = find_seen(state, op.parent, op.name, op.seen_ino, op.seen_version, author)
    if found is None:
        return NOTHING
    row = state.inode(found.ino)
    if row is None or is_directory(row):
        return NOTHING
    remove_name(state, found, op.op_id, op.time_ns)
    state.touch_directory(found.parent, op.time_ns)
    return Effect(Status.APPLIED, (found.ino,), ((found.parent, found.name),), 0)


def fold_rmdir(state: State, op: Rmdir, author: Author) -> Effect:
    found = find_source(state, op.parent, op.name, op.seen_ino, author)
    if found is None:
        return NOTHING
    row = state.inode(found.ino)
    if row is None or not is_directory(row) or state.has_children(found.ino):
        return NOTHING
    remove_name(state, found, op.op_id, op.time_ns)
    state.touch_directory(found.parent, op.time_ns, -1)
    return Effect(Status.APPLIED, (found.ino,), ((found.parent, found.name),), 0)


def fold_rename(state: State, op: Rename, author: Author) -> Effect:
    source = find_source(state, op.parent, op.name, op.ino, author)
    row = state.inode(op.ino)
    if source is None or row is None:
        return NOTHING
    if is_directory(row) and _lies_in(state, op.new_parent, op.ino):
        return NOTHING
    taken = state.dentry(op.new_parent, op.new_name)
    if taken is not None and taken.ino == op.ino:
        return NOTHING
    replaced = None if taken is None else _replaceable(state, op, row, author)
    place: Place | None
    if replaced is None:
        place = find_place(state, op.new_parent, op.new_name, op.op_id, op.time_ns, author)
    else:
        plain = replaced.name == op.new_name
        status = Status.APPLIED if plain else Status.CONFLICT
        place = Place(replaced.parent, replaced.name, status, ())
    if place is None:
        return NOTHING
    if replaced is not None:
        remove_name(state, replaced, op.op_id, op.time_ns)
    _move(state, op, row, source, place)
    _touch_both(state, op, row, source.parent, place.parent, replaced)
    effect = effect_at(place, op.ino)
    inodes = effect.inodes if replaced is None else (*effect.inodes, replaced.ino)
    return effect._replace(inodes=inodes, names=((source.parent, source.name), *effect.names))


def _replaceable(state: State, op: Rename, row: InodeRow, author: Author) -> DentryRow | None:
    """The name that the rename may take over, as rename(2) does: what the author saw there, a
    directory only for a directory and only if it is empty."""
    if not op.seen_ino:
        return None
    seen = find_seen(state, op.new_parent, op.new_name, op.seen_ino, op.seen_version, author)
    if seen is None or seen.ino == op.ino:
        return None
    target = state.inode(seen.ino)
    if target is None or is_directory(target) != is_directory(row):
        return None
    if is_directory(target) and state.has_children(target.ino):
        return None
    return seen


def _move(state: State, op: Rename, row: InodeRow, source: DentryRow, place: Place) -> None:
    """The inode of `source` gets the name at `place` in its stead."""
    state.remove_dentry(source.parent, source.name)
    state.put_dentry(DentryRow(place.parent, place.name, op.op_id, row.ino))
    state.put_inode(
        row._replace(ctime_ns=op.time_ns, last_parent=place.parent, last_name=place.name)
    )


def _touch_both(
    state: State, op: Rename, row: InodeRow, old: int, new: int, replaced: DentryRow | None
) -> None:
    """Time and count of the directory that lost the name, and of the one that got it."""
    moved = 1 if is_directory(row) else 0
    gone = moved if replaced is not None else 0
    if old == new:
        state.touch_directory(new, op.time_ns, -gone)
    else:
        state.touch_directory(old, op.time_ns, -moved)
        state.touch_directory(new, op.time_ns, moved - gone)


def _lies_in(state: State, ino: int, directory: int) -> bool:
    """Whether `ino` is `directory` or lies below it, or did before it was removed."""
    passed: set[int] = set()
    while ino not in passed:
        if ino == directory:
            return True
        passed.add(ino)
        row = state.inode(ino)
        if row is None:
            return False
        ino = row.last_parent
    return False
