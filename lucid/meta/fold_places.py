"""Where a name can lie: living directories, free names, and names that an author was pushed off.

The questions that the rules of names, moves and content share. Part of the fold: total and pure.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from lucid.meta.conflict_names import conflict_name, is_conflict_of
from lucid.meta.fold_effect import Author, Status
from lucid.meta.fold_rules import remember_removal
from lucid.meta.state import ROOT_INO, DentryRow, InodeRow, State

__all__ = [
    "Place",
    "find_beside",
    "find_place",
    "find_seen",
    "find_source",
    "is_directory",
    "put_name",
    "remove_name",
]

_TRIES_PLAIN = 64
"""After so many taken numbers the op's id is the number: it is taken by nobody, or few."""

_TYPE = 0o170000


class Place(NamedTuple):
    """A name in a living directory, and the names of the directories that came back for it."""

    parent: int
    name: bytes
    status: Status
    revived: tuple[DentryRow, ...]


def is_directory(row: InodeRow) -> bool:
    return row.mode & _TYPE == stat.S_IFDIR


def find_place(
    state: State, parent: int, name: bytes, op_id: int, time_ns: int, author: Author
) -> Place | None:
    """Where an op that wants `name` in `parent` puts it: there, or under a conflict name.

    A removed directory comes back, up to the root. None only where there is no root.
    """
    row = state.inode(parent)
    if row is not None and row.nlink and row.mode & _TYPE == stat.S_IFDIR:
        if state.dentry(parent, name) is None:
            return Place(parent, name, Status.APPLIED, ())
        revived: tuple[DentryRow, ...] = ()
    else:
        found = _living_directory(state, parent, op_id, time_ns, author)
        if found is None:
            return None
        parent, revived = found
        if state.dentry(parent, name) is None:
            status = Status.REVIVED if revived else Status.CONFLICT
            return Place(parent, name, status, revived)
    name = _free_name(state, parent, name, op_id, time_ns, author)
    return Place(parent, name, Status.CONFLICT, revived)


def find_beside(
    state: State, parent: int, name: bytes, op_id: int, time_ns: int, author: Author
) -> Place | None:
    """As find_place, but under a conflict name, also where `name` is free."""
    row = state.inode(parent)
    revived: tuple[DentryRow, ...] = ()
    if row is None or not row.nlink or not is_directory(row):
        found = _living_directory(state, parent, op_id, time_ns, author)
        if found is None:
            return None
        parent, revived = found
    name = _free_name(state, parent, name, op_id, time_ns, author)
    return Place(parent, name, Status.CONFLICT, revived)


def find_source(
    state: State, parent: int, name: bytes, ino: int, author: Author
) -> DentryRow | None:
    """The dentry that the author means by `name` in `parent`, leading to `ino`.

    That is the name itself, or the conflict name that an earlier op of the same session got in its
    stead: the author acted before it knew.
    """
    found = state.dentry(parent, name)
    if found is not None and found.ino == ino:
        return found
    return _displaced(state, parent, name, ino, author)


def find_seen(
    state: State, parent: int, name: bytes, ino: int, version: int, author: Author
) -> DentryRow | None:
    """The dentry to take away for an author that saw `ino` at `version` under `name`; None where
    that would take something else, or something newer."""
    found = state.dentry(parent, name)
    if found is not None and found.ino == ino:
        row = state.inode(ino)
        if row is not None and row.version == version:
            return found
    # The author's own content may have landed in a conflict copy: that is what it saw.
    written = state.version(version) if version else None
    holder = ino if written is None else written.ino
    row = state.inode(holder)
    if row is None or row.version != version:
        return None
    return _displaced(state, parent, name, holder, author)


def put_name(state: State, row: InodeRow, parent: int, name: bytes, op_id: int) -> InodeRow:
    """Gives an inode one more name; returns its row, which the caller puts. Counts what comes back
    from having none, but not the directory's times."""
    state.put_dentry(DentryRow(parent, name, op_id, row.ino))
    if not row.nlink:
        state.count(1, row.data_bytes)
        if row.last_name:  # It had one before.
            state.put_removed(row.ino, None)
    return row._replace(nlink=row.nlink + 1, last_parent=parent, last_name=name)


def remove_name(state: State, dentry: DentryRow, op_id: int, time_ns: int) -> InodeRow | None:
    """Takes a name from its inode and puts the row; the inode stays, maybe without any name."""
    state.remove_dentry(dentry.parent, dentry.name)
    row = state.inode(dentry.ino)
    if row is None:
        return None
    row = row._replace(nlink=row.nlink - 1, ctime_ns=time_ns)
    if not row.nlink:
        state.count(-1, -row.data_bytes)
        remember_removal(state, row.ino, op_id, time_ns)
    elif (row.last_parent, row.last_name) == (dentry.parent, dentry.name):
        newest = state.names(dentry.ino)[-1]
        row = row._replace(last_parent=newest.parent, last_name=newest.name)
    state.put_inode(row)
    return row


def _free_name(
    state: State, parent: int, name: bytes, op_id: int, time_ns: int, author: Author
) -> bytes:
    """The first conflict name for `name` that is not taken in `parent`."""
    nth = 1
    while True:
        free = conflict_name(name, author.member_label, author.device_label, time_ns, nth)
        if state.dentry(parent, free) is None:
            return free
        nth = op_id if nth == _TRIES_PLAIN else nth + 1


def _displaced(
    state: State, parent: int, name: bytes, ino: int, author: Author
) -> DentryRow | None:
    """The name of `ino` in `parent` that this session got instead of `name`."""
    for dentry in state.names(ino):
        if (
            dentry.parent == parent
            and dentry.id >> 32 == author.session
            and is_conflict_of(dentry.name, name, author.member_label, author.device_label)
        ):
            return dentry
    return None


def _living_directory(
    state: State, parent: int, op_id: int, time_ns: int, author: Author
) -> tuple[int, tuple[DentryRow, ...]] | None:
    """`parent` brought back, with what it lay in; or the nearest living directory around it, for
    what is no directory; or the root, for what the state does not know."""
    removed: list[InodeRow] = []
    passed: set[int] = set()
    row = state.inode(parent)
    while row is not None and row.ino not in passed:
        if is_directory(row):
            if row.nlink:
                break
            removed.append(row)
        passed.add(row.ino)
        row = state.inode(row.last_parent)
    else:
        row = state.inode(ROOT_INO)
    if row is None:
        return None
    living = row.ino
    revived = []
    for directory in reversed(removed):
        name = directory.last_name
        if state.dentry(living, name) is not None:
            name = _free_name(state, living, name, op_id, time_ns, author)
        back = put_name(state, directory._replace(ctime_ns=time_ns), living, name, op_id)
        state.put_inode(back)
        state.touch_directory(living, time_ns, 1)
        revived.append(DentryRow(living, name, op_id, directory.ino))
        living = directory.ino
    return living, tuple(revived)
