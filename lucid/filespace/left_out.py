"""What follows a change that loss of power took: the same as if that change had never been.

A change whose blocks did not reach the disk is left out, and what was done after it may rest on it.
A delta over a version that is gone would lie among bytes that its author did not see, so it goes
too. A removal that has seen another version than there is would remove nothing, so it is told what
is there instead. The time that was set for bytes that are gone is not that of those that are there:
who compares sizes and times would take them for the new ones. A whole rewrite needs nothing of what
is gone, and stays. Pure.
"""

from __future__ import annotations

from lucid.format.ops import Clone, Content, Create, Op, Rename, Setattr, Unlink

__all__ = ["LeftOut"]


class LeftOut:
    """The versions that are left out. Ops and images are asked for in the order of the journal."""

    def __init__(self) -> None:
        self._instead: dict[int, int] = {}
        """Version that is left out -> the one that the file has instead, 0 for no file at all."""
        self._under: dict[tuple[int, bytes], tuple[int, int]] = {}
        """Place that a rename which is left out led to -> the inode and version that are there."""
        self._newest: dict[int, int] = {}
        """Inode -> the newest version that was asked about."""
        self._older: set[int] = set()
        """Inodes that have older bytes than their writer left there."""

    def leave(self, op: Op) -> None:
        """The op never was."""
        if isinstance(op, Create) or (isinstance(op, Clone) and not op.ino):
            self._instead[op.op_id] = 0
            self._under.pop((op.parent, op.name), None)  # It was free, whatever lay there before.
        elif isinstance(op, (Clone, Content)):
            self._instead[op.op_id] = self._instead.get(op.base, op.base)
            self._older.add(op.ino)
        elif isinstance(op, Rename):
            seen = self._seen(op)
            self._under.pop((op.parent, op.name), None)
            self._under[op.new_parent, op.new_name] = seen

    def empty(self, op: Create) -> None:
        """The file was made, but with nothing in it: a later rewrite of it is there."""
        self._instead[op.op_id] = op.op_id

    def rest_of(self, op: Op) -> Op | None:
        """The op, as it is when what was left out never was. None: it is about that, and goes too;
        the caller says so by `leave`."""
        if isinstance(op, (Unlink, Rename)):
            return self._rest_of_names(op)
        if self._is_gone(getattr(op, "ino", 0)) or getattr(op, "version", 0) in self._instead:
            return None
        if isinstance(op, (Clone, Content)) and op.base in self._instead:
            if isinstance(op, Content) and op.keep:
                return None
            op = op._replace(base=self._instead[op.base])
        if isinstance(op, Setattr) and op.ino in self._older:
            op = op._replace(mtime_ns=None)
        if isinstance(op, (Clone, Content)) and op.ino:
            self._newest[op.ino] = op.op_id
            self._older.discard(op.ino)
        return op

    def _rest_of_names(self, op: Unlink | Rename) -> Op | None:
        taken = _place_of(op)
        seen_ino, seen_version = self._seen(op)
        if self._instead.get(op.seen_version) is not None:
            if isinstance(op, Unlink) and not seen_ino:
                return None
            op = op._replace(seen_ino=seen_ino, seen_version=seen_version)
        if not isinstance(op, Rename) or not self._is_gone(op.ino):
            self._under.pop(taken, None)
            self._under.pop((op.parent, op.name), None)
            return _without_itself(op)
        # What it was renamed over is there still, and moves in its stead, wherever that leads.
        below = self._under.get((op.parent, op.name), (0, 0))
        if not below[0]:
            return None
        del self._under[op.parent, op.name]
        self._under[taken] = below
        return _without_itself(op._replace(ino=below[0]))

    def base_of(self, ino: int, base: int, keep: int) -> int | None:
        """The version that a draft of `ino` over `base`, of which it keeps `keep` bytes, is to be
        published over. None: it goes too."""
        if self._is_gone(ino):
            return None
        if base not in self._instead:
            return base
        return None if keep else self._instead[base]

    def _seen(self, op: Unlink | Rename) -> tuple[int, int]:
        """The inode and version that are there under the name which it removes, or takes."""
        instead = self._instead.get(op.seen_version, op.seen_version)
        if instead or not op.seen_version:
            return op.seen_ino, instead
        # No file at all: under its name is what it would have replaced, as it is by now.
        ino, version = self._under.get(_place_of(op), (0, 0))
        version = self._newest.get(ino, version)
        return ino, self._instead.get(version, version)

    def _is_gone(self, ino: int) -> bool:
        return self._instead.get(ino) == 0


def _without_itself(op: Unlink | Rename) -> Unlink | Rename:
    """A rename over what turns out to be another name of the same file, which moves nothing, takes
    the old name away all the same: its author saw none there any more, and may have used it."""
    if isinstance(op, Unlink) or op.seen_ino != op.ino:
        return op
    return Unlink(op.op_id, op.time_ns, op.parent, op.name, op.ino, op.seen_version)


def _place_of(op: Unlink | Rename) -> tuple[int, bytes]:
    """The name that it takes away from what is there."""
    return (op.new_parent, op.new_name) if isinstance(op, Rename) else (op.parent, op.name)
