"""Names: looking up, listing, making, removing, renaming, linking.

What changes holds the order lock from its check to its op, so that two threads never see the same
name free.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from lucid.data.draft import Draft
from lucid.errors import (
    Exists,
    IsDirectory,
    NotDirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    UsageError,
)
from lucid.filespace.files import Files
from lucid.filespace.parts import Parts, attributes_of, check_name
from lucid.filespace.surface import Attributes, DirectoryEntry
from lucid.format.ops import Link, Mkdir, Mknod, Rename, Rmdir, Symlink, Unlink
from lucid.meta.state import ROOT_INO, InodeRow

__all__ = ["Names"]

TARGET_MAX = 4095
PAGE_MAX = 500
"""Names in one answer. Below what the replica gives at once: a shorter page means the end."""


class Names:
    """The tree of names."""

    def __init__(self, parts: Parts, files: Files) -> None:
        self._parts = parts
        self._files = files

    # -- asking

    def lookup(self, parent: int, name: bytes) -> Attributes:
        parts = self._parts
        check_name(name)
        ticket = parts.known.ticket()
        draft = parts.table.named(parent, name)
        if draft is not None:
            return self._files.attributes(draft.ino)
        found = parts.replica.resolve(parent, name)
        if found is None:
            draft = parts.table.named(parent, name)
            if draft is None:
                raise NotFound
            return self._files.attributes(draft.ino)
        row = found[1]
        if parts.table.get(row.ino) is not None:
            return self._files.attributes(row.ino)
        attributes = self._files.shown(row)
        if parts.known.keep(ticket, attributes, row.mtime_set_ns):
            parts.known.keep_name(ticket, parent, name, row.ino)
        return attributes

    def readdir(self, ino: int, after: int, limit: int) -> Sequence[DirectoryEntry]:
        parts = self._parts
        if not after:
            parts.directory(ino)
        # Private names first: one that is published meanwhile is then seen in the replica, and
        # the dictionary drops it where both have it.
        limit = min(limit, PAGE_MAX)
        ticket = parts.known.ticket()
        private = parts.table.children(ino, after)
        rows = parts.replica.readdir_rows(ino, after, limit)
        found: dict[int, DirectoryEntry] = {}
        for read, row in rows:
            if parts.table.get(read.ino) is not None:
                attributes = self._files.attributes(read.ino)
            else:
                attributes = self._files.shown(row)
                # Whoever lists a directory mostly asks for all of these next. A private file of
                # the same name is what the name leads to here.
                is_name = parts.table.named(ino, read.name) is None
                if parts.known.keep(ticket, attributes, row.mtime_set_ns) and is_name:
                    parts.known.keep_name(ticket, ino, read.name, read.ino)
            found[read.id] = DirectoryEntry(read.id, read.name, attributes)
        last = rows[-1][0].id if len(rows) >= limit else None
        for draft in private:
            if draft.ino not in found and (last is None or draft.ino <= last):
                found[draft.ino] = DirectoryEntry(
                    draft.ino, draft.name, self._files.attributes(draft.ino)
                )
        return [found[cookie] for cookie in sorted(found)]

    def parent(self, ino: int) -> int:
        parent = self._parts.replica.parent_of(ino)
        if parent is None:
            raise NotDirectory
        return parent

    def readlink(self, ino: int) -> bytes:
        row = self._parts.inode(ino)
        if not stat.S_ISLNK(row.mode):
            raise UsageError("Not a symbolic link.")
        return row.target

    # -- making

    def _free_name(self, parent: int, name: bytes) -> None:
        parts = self._parts
        parts.check_writable()
        check_name(name)
        parts.directory(parent)
        if parts.table.named(parent, name) or parts.replica.lookup(parent, name):
            raise Exists

    def _made(self, op_id: int) -> Attributes:
        row = self._parts.replica.inode(op_id)
        if row is None:
            raise NotFound
        return attributes_of(row)

    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        parts = self._parts
        with parts.order.lock:
            self._free_name(parent, name)
            op_id = parts.next_op_id()
            bits = stat.S_IFDIR | stat.S_IMODE(mode)
            parts.place(Mkdir(op_id, parts.clock.time_ns(), parent, name, bits, uid, gid, ()))
            return self._made(op_id)

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes:
        if stat.S_ISREG(mode) or not stat.S_IFMT(mode):
            handle, attributes = self._files.create(parent, name, mode, uid, gid, 0)
            self._files.release(handle)
            return attributes
        parts = self._parts
        with parts.order.lock:
            self._free_name(parent, name)
            op_id = parts.next_op_id()
            now = parts.clock.time_ns()
            parts.place(Mknod(op_id, now, parent, name, mode, rdev, uid, gid))
            return self._made(op_id)

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        if not 0 < len(target) <= TARGET_MAX or b"\0" in target:
            raise UsageError("A symbolic link has a target of 1 to 4095 bytes.")
        parts = self._parts
        with parts.order.lock:
            self._free_name(parent, name)
            op_id = parts.next_op_id()
            parts.place(Symlink(op_id, parts.clock.time_ns(), parent, name, target, uid, gid))
            return self._made(op_id)

    def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        parts = self._parts
        with parts.order.lock:
            self._free_name(parent, name)
            draft = parts.table.get(ino)
            if draft is not None:
                if draft.unlinked:
                    raise NotFound
                parts.publisher.publish(draft)
            row = parts.inode(ino)
            if stat.S_ISDIR(row.mode):
                raise NotPermitted("A directory has one name only.")
            if not row.nlink:
                raise NotFound
            parts.place(Link(parts.next_op_id(), parts.clock.time_ns(), ino, parent, name))
            return self._files.attributes(ino)

    # -- removing

    def unlink(self, parent: int, name: bytes) -> None:
        parts = self._parts
        with parts.order.lock:
            parts.check_writable()
            draft = parts.table.named(parent, name)
            if draft is not None:
                self._drop_private(draft)
                return
            row = self._target(parent, name)
            if stat.S_ISDIR(row.mode):
                raise IsDirectory
            now = parts.clock.time_ns()
            parts.place(Unlink(parts.next_op_id(), now, parent, name, row.ino, row.version))
            self._lost_name(row.ino)

    def _target(self, parent: int, name: bytes) -> InodeRow:
        dentry = self._parts.replica.lookup(parent, name)
        if dentry is None:
            raise NotFound
        return self._parts.inode(dentry.ino)

    def _drop_private(self, draft: Draft) -> None:
        """A private file goes without a trace; open handles keep its bytes until they close."""
        parts = self._parts
        with draft.lock:
            parts.table.unname(draft)
            parts.table.touch(draft.parent, parts.clock.time_ns())
            draft.unlinked = True
            parts.book.release([draft.image])
            draft.image = None
            parts.drafting.forget_saved(draft)
            if not self._files.is_open(draft.ino):
                parts.publisher.drop(draft)

    def _lost_name(self, ino: int) -> None:
        """A public file lost a name: without any, what is unpublished of it is nobody's."""
        parts = self._parts
        draft = parts.table.get(ino)
        if draft is None:
            return
        row = parts.replica.inode(ino)
        with draft.lock:
            if row is not None and not row.nlink and not draft.gone:
                draft.unlinked = True
                parts.drafting.forget_saved(draft)
                if not self._files.is_open(ino):
                    parts.publisher.drop(draft)

    def rmdir(self, parent: int, name: bytes) -> None:
        parts = self._parts
        with parts.order.lock:
            parts.check_writable()
            if parts.table.named(parent, name):
                raise NotDirectory
            row = self._target(parent, name)
            if not stat.S_ISDIR(row.mode):
                raise NotDirectory
            self._check_empty(row.ino)
            parts.place(Rmdir(parts.next_op_id(), parts.clock.time_ns(), parent, name, row.ino))

    def _check_empty(self, ino: int) -> None:
        if self._parts.table.children(ino) or self._parts.replica.has_children(ino):
            raise NotEmpty

    # -- renaming

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        parts = self._parts
        check_name(new_name)
        with parts.order.lock:
            parts.check_writable()
            draft = parts.table.named(parent, name)
            if draft is not None:
                parts.publisher.publish(draft)
            row = self._target(parent, name)
            parts.directory(new_parent)
            if (parent, name) == (new_parent, new_name):
                return
            private = parts.table.named(new_parent, new_name)
            if private is not None and stat.S_ISDIR(row.mode):
                raise NotDirectory
            seen = self._seen(new_parent, new_name, row)
            if seen is not None and seen.ino == row.ino:
                return  # Two names of one file: POSIX leaves both.
            if stat.S_ISDIR(row.mode):
                self._check_cycle(row.ino, new_parent)
            draft = parts.table.get(row.ino)
            if draft is not None and not draft.unlinked:
                parts.publisher.publish(draft)
            op = Rename(
                parts.next_op_id(), parts.clock.time_ns(), parent, name, row.ino,
                new_parent, new_name, seen.ino if seen else 0, seen.version if seen else 0,
            )  # fmt: skip
            parts.place(op)
            if private is not None:
                self._drop_private(private)
            if seen is not None:
                self._lost_name(seen.ino)

    def _seen(self, parent: int, name: bytes, source: InodeRow) -> InodeRow | None:
        """What the new name leads to now, checked to be replaceable by `source`."""
        dentry = self._parts.replica.lookup(parent, name)
        if dentry is None:
            return None
        row = self._parts.inode(dentry.ino)
        if row.ino == source.ino:
            return row
        if stat.S_ISDIR(row.mode):
            if not stat.S_ISDIR(source.mode):
                raise IsDirectory
            self._check_empty(row.ino)
        elif stat.S_ISDIR(source.mode):
            raise NotDirectory
        return row

    def _check_cycle(self, ino: int, new_parent: int) -> None:
        at = new_parent
        while at != ROOT_INO:
            if at == ino:
                raise UsageError("A directory cannot be moved into itself.")
            above = self._parts.replica.parent_of(at)
            if above is None or above == at:
                break
            at = above
