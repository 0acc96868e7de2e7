"""From the ops of an entry to what a person calls a change: who did what to which path.

Paths are those at the op: the names of now, with the renames and removals of the later ops taken
back. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lucid.filespace.parts import Parts
from lucid.filespace.surface import Change
from lucid.format.ops import (
    ROOT_INO,
    Clone,
    Content,
    Create,
    Link,
    Mkdir,
    Mknod,
    Op,
    Rename,
    Rmdir,
    Setattr,
    Setxattr,
    Symlink,
    Unlink,
)
from lucid.sync.feed import Folded

__all__ = ["changes_in", "path_of"]

DEPTH_MAX = 1000
UNKNOWN = "/…".encode()
"""Stands for a directory that has no name any more."""


def path_of(parts: Parts, ino: int) -> bytes | None:
    """A path of an inode, with a slash first; None if it has no name."""
    return _Paths(parts).inode(ino)


def changes_in(parts: Parts, entries: Sequence[Folded]) -> list[Change]:
    """What these entries changed, in their order."""
    paths = _Paths(parts)
    found = []
    # Backwards: what was removed last tells where that was which was changed in it before.
    for folded in reversed(entries):
        who = _author(parts, folded)
        for op in reversed(folded.body.ops):
            for kind, path, to in _change(paths, op):
                time_ns = getattr(op, "time_ns", 0)
                found.append(Change(folded.sequence, time_ns, kind, path, to, *who))
    return found[::-1]


def _author(parts: Parts, folded: Folded) -> tuple[str, str]:
    """(member, device) of an entry."""
    member = parts.replica.member(folded.body.member)
    session = parts.replica.session(folded.body.session)
    return (
        "" if member is None else member.label.decode("utf-8", "replace"),
        "" if session is None else session.device_label.decode("utf-8", "replace"),
    )


class _Paths:
    """Paths of inodes before the ops that were looked at already, the last one first."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._before: dict[int, tuple[int, bytes]] = {}
        """Inode -> directory and name that it had."""

    def inode(self, ino: int) -> bytes | None:
        names: list[bytes] = []
        for _ in range(DEPTH_MAX):
            if ino == ROOT_INO:
                return b"/" + b"/".join(reversed(names))
            place = self._before.get(ino) or self._now(ino)
            if place is None:
                return None
            ino, name = place
            names.append(name)
        return None

    def _now(self, ino: int) -> tuple[int, bytes] | None:
        draft = self._parts.table.get(ino)
        rows = self._parts.replica.names(ino)
        if rows:
            return rows[0].parent, rows[0].name
        if draft is not None and draft.private:
            return draft.parent, draft.name
        return None

    def name(self, parent: int, name: bytes) -> bytes:
        above = self.inode(parent)
        return (UNKNOWN if above is None else above).rstrip(b"/") + b"/" + name

    def moved(self, ino: int, parent: int, name: bytes) -> None:
        """Before this op it was there."""
        if ino:
            self._before[ino] = (parent, name)

    def removed(self, ino: int, parent: int, name: bytes) -> None:
        """Before this op it was there, if it has no other name."""
        if self.inode(ino) is None:
            self.moved(ino, parent, name)


def _change(paths: _Paths, op: Op) -> Iterator[tuple[str, bytes, bytes]]:
    """(kind, path, to) of one op; nothing for ops that no path tells of."""
    if isinstance(op, (Create, Mkdir, Symlink, Mknod)):
        meant = paths.name(op.parent, op.name)
        path = paths.inode(op.op_id) or meant
        yield ("create" if path == meant or _is_moved(path, meant) else "conflict"), path, b""
    elif isinstance(op, (Content, Clone)):
        copy = paths.inode(op.op_id)  # an inode of the op's own keeps the loser of a conflict
        if copy is not None:
            is_new = isinstance(op, Clone) and not op.ino
            yield ("create" if is_new else "conflict"), copy, b""
        else:
            yield "write", paths.inode(op.ino) or paths.name(op.parent, op.name), b""
    elif isinstance(op, Link):
        yield "link", paths.name(op.parent, op.name), b""
    elif isinstance(op, (Unlink, Rmdir)):
        path = paths.name(op.parent, op.name)
        paths.removed(op.seen_ino, op.parent, op.name)
        yield "remove", path, b""
    elif isinstance(op, Rename):
        to = paths.name(op.new_parent, op.new_name)
        paths.removed(op.seen_ino, op.new_parent, op.new_name)
        paths.moved(op.ino, op.parent, op.name)
        yield "rename", paths.name(op.parent, op.name), to
    elif isinstance(op, (Setattr, Setxattr)):
        path_now = paths.inode(op.ino)
        if path_now is not None:
            yield "attributes", path_now, b""


def _is_moved(path: bytes, meant: bytes) -> bool:
    """It has another name by now, and not one that the fold gave to a conflict copy."""
    stem = meant.rpartition(b"/")[2].rpartition(b".")[0] or meant.rpartition(b"/")[2]
    return not path.rpartition(b"/")[2].startswith(stem + b" (conflict ")
