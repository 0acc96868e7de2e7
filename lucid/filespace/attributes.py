"""Attributes and extended attributes."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from lucid.data.draft import Draft
from lucid.errors import Exists, NoData, NotPermitted, UsageError
from lucid.filespace.files import Files, Handle
from lucid.filespace.parts import Parts
from lucid.filespace.surface import Attributes
from lucid.format.ops import Setattr, Setxattr
from lucid.meta.conflict_names import MARK

__all__ = ["STATE_XATTR", "AttributeOps"]

STATE_XATTR = b"user.lucid.state"
XATTR_NAME_MAX = 255
XATTR_VALUE_MAX = 65_536
XATTR_TOTAL_MAX = 65_536


class AttributeOps:
    """chmod, chown, utimens, truncate and xattrs."""

    def __init__(self, parts: Parts, files: Files) -> None:
        self._parts = parts
        self._files = files

    def set_attributes(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        size: int | None = None,
        handle: Handle | None = None,
    ) -> Attributes:
        parts = self._parts
        parts.check_writable()
        if size is not None:
            if size < 0:
                raise UsageError("A size cannot be negative.")
            self._files.truncate(ino, size, handle)
        if (mode, uid, gid, atime_ns, mtime_ns) == (None,) * 5:
            return self._files.attributes(ino)
        with parts.order.lock:
            draft = parts.table.get(ino)
            if draft is not None:
                self._set_draft(draft, mode, uid, gid, atime_ns, mtime_ns)
                if draft.unpublished:
                    # The content brings it: beside the old bytes it would say that they are new.
                    mtime_ns = None
            if draft is None or not (draft.private or draft.gone):
                row = parts.inode(ino)
                bits = None if mode is None else stat.S_IFMT(row.mode) | stat.S_IMODE(mode)
                now = parts.clock.time_ns()
                parts.place(
                    Setattr(parts.next_op_id(), now, ino, bits, uid, gid, atime_ns, mtime_ns)
                )
        return self._files.attributes(ino)

    def _set_draft(
        self,
        draft: Draft,
        mode: int | None,
        uid: int | None,
        gid: int | None,
        atime_ns: int | None,
        mtime_ns: int | None,
    ) -> None:
        """Attributes of a private file go into its create; the time of another into its content."""
        with draft.lock:
            if mode is not None:
                draft.mode = stat.S_IFMT(draft.mode) | stat.S_IMODE(mode)
            draft.uid = draft.uid if uid is None else uid
            draft.gid = draft.gid if gid is None else gid
            draft.atime_ns = draft.atime_ns if atime_ns is None else atime_ns
            draft.mtime_ns = draft.mtime_ns if mtime_ns is None else mtime_ns
            draft.ctime_ns = self._parts.clock.time_ns()
            self._keep(draft)

    def _keep(self, draft: Draft) -> None:
        """A change of a file that kill -9 would not take survives it too. REQUIRES: lock held."""
        draft.changed = True
        if draft.image is not None:
            self._parts.drafting.save(draft)

    # -- extended attributes

    def state(self, ino: int) -> bytes:
        """What of an inode is not in the store: clean, staged, uploading, conflict, failed."""
        parts = self._parts
        draft = parts.table.get(ino)
        if draft is not None:
            return b"failed" if draft.failure else b"staged"
        if parts.order.touches(ino):
            return b"uploading"
        row = parts.replica.inode(ino)
        if row is not None and MARK in row.last_name:
            return b"conflict"
        return b"clean"

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        parts = self._parts
        if name == STATE_XATTR:
            return self.state(ino)
        draft = parts.table.get(ino)
        if draft is not None and draft.private:
            value = draft.xattrs.get(name)
        else:
            value = parts.replica.xattr(ino, name)
        if value is None:
            raise NoData
        return value

    def list_xattrs(self, ino: int) -> Sequence[bytes]:
        parts = self._parts
        draft = parts.table.get(ino)
        if draft is not None and draft.private:
            return sorted(draft.xattrs)
        parts.inode(ino)
        return [name for name, _ in parts.replica.xattrs(ino)]

    def set_xattr(
        self, ino: int, name: bytes, value: bytes, create: bool = False, replace: bool = False
    ) -> None:
        parts = self._parts
        if not 0 < len(name) <= XATTR_NAME_MAX or b"\0" in name:
            raise UsageError("An attribute's name has 1 to 255 bytes.")
        if len(value) > XATTR_VALUE_MAX:
            raise UsageError("An attribute's value has at most 65,536 bytes.")
        if name.startswith(b"user.lucid."):
            raise NotPermitted("user.lucid.* is answered by lucid and cannot be set.")
        with parts.order.lock:
            parts.check_writable()
            present = self._has(ino, name)
            if create and present:
                raise Exists
            if replace and not present:
                raise NoData
            self._put(ino, name, value)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        with self._parts.order.lock:
            self._parts.check_writable()
            if not self._has(ino, name):
                raise NoData
            self._put(ino, name, None)

    def _has(self, ino: int, name: bytes) -> bool:
        try:
            self.get_xattr(ino, name)
        except NoData:
            return False
        return True

    def _put(self, ino: int, name: bytes, value: bytes | None) -> None:
        """REQUIRES: order lock held."""
        parts = self._parts
        draft = parts.table.get(ino)
        if draft is not None and draft.private:
            with draft.lock:
                if value is None:
                    draft.xattrs.pop(name, None)
                else:
                    self._check_total(list(draft.xattrs.items()), name, value)
                    draft.xattrs[name] = value
                draft.ctime_ns = parts.clock.time_ns()
                self._keep(draft)
            return
        parts.inode(ino)
        if value is not None:
            self._check_total(list(parts.replica.xattrs(ino)), name, value)
        parts.place(Setxattr(parts.next_op_id(), parts.clock.time_ns(), ino, name, value))

    @staticmethod
    def _check_total(present: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
        total = sum(len(key) + len(held) for key, held in present if key != name)
        if total + len(name) + len(value) > XATTR_TOTAL_MAX:
            raise UsageError("The attributes of a file take at most 64 KiB together.")
