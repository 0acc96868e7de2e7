"""The requests of the kernel, answered from a Surface. Thin and boring on purpose.

`Operations` owns the table of open handles and nothing else. Workers call it, many at once, with no
lock around them (fuse.py). What a handler means stands
at the method of `Surface` that it calls. It is not derived from llfuse.Operations: that class only
answers ENOSYS, and a method forgotten here should rather fail a test.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from lucid.errors import Exists, LockLost, NotFound
from lucid.filespace.locks import Locks
from lucid.filespace.surface import Attributes, DirectoryEntry, FileHandle, Surface
from lucid.mount.allocating import allocate
from lucid.mount.answers import EntryMaker, answered
from lucid.mount.fuse import llfuse, low
from lucid.mount.listing import OpenDirectory
from lucid.mount.notifier import Notifier

__all__ = ["Operations"]

log = logging.getLogger(__name__)

FREE_BYTES = 1 << 50
"""Free space that statfs shows: 1 PiB. A bucket has no end, and programs want a number."""
FREE_INODES = 1 << 40
FRAGMENT = 4096
NAME_MAX = 255
XATTR_VALUE_MAX = 64 * 1024
XATTR_ROOMS = (b"user.", b"trusted.")
"""Everything else gets EOPNOTSUPP. A file system that merely stores system.posix_acl_access makes
`cp -a` believe that the mode is set, and 0664 arrives as 0600; security.capability is asked before
every write."""

SELF_COOKIE, PARENT_COOKIE = 1, 2
"""Of '.' and '..'. The cookies of a filespace's entries begin far above."""

Listing = Iterator[tuple[bytes, llfuse.EntryAttributes, int]]


class Operations:
    """Answers requests until `destroy`.

    Guarded by the GIL (single dict operations): _handles, _directories, _appending.
    Write once: everything else.
    """

    def __init__(
        self,
        surface: Surface,
        *,
        owner: tuple[int, int] | None,
        notifier: Notifier,
        locks: Locks,
        on_ready: Callable[[], None],
    ) -> None:
        """owner: whose every inode is shown to be; None shows stored owners.

        on_ready is called once, when the kernel has taken the mount.
        """
        self._surface = surface
        self._shows_owners = owner is None
        self._entry = EntryMaker(surface.block_size, owner)
        self._on_ready = on_ready
        self._notifier = notifier
        self._transfers = notifier.transfers
        self._locks = locks
        self._handles: dict[int, FileHandle] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._appending: set[int] = set()
        self._numbers = itertools.count(1)

    # --- The whole -----------------------------------------------------------------------------

    def init(self) -> None:
        """The kernel has taken the mount."""
        self._on_ready()

    def destroy(self) -> None:
        """llfuse.close: nothing comes after this."""

    def stacktrace(self) -> None:
        """setfattr -n fuse_stacktrace -v 1 MOUNTPOINT: where every thread is, into the log."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            where = "".join(traceback.format_stack(frame))
            log.warning("thread %s:\n%s", names.get(ident, ident), where)

    @answered
    def statfs(self, ctx: llfuse.RequestContext) -> llfuse.StatvfsData:
        inodes, data_bytes = self._surface.totals()
        answer = llfuse.StatvfsData()
        free = FREE_BYTES // FRAGMENT
        answer.f_bsize = self._surface.block_size
        answer.f_frsize = FRAGMENT
        answer.f_blocks = free + -(-data_bytes // FRAGMENT)
        answer.f_bfree = answer.f_bavail = free
        answer.f_files = FREE_INODES + inodes
        answer.f_ffree = answer.f_favail = FREE_INODES
        answer.f_namemax = NAME_MAX
        return answer

    # --- Names ---------------------------------------------------------------------------------

    @answered
    def lookup(
        self, parent: int, name: bytes, ctx: llfuse.RequestContext
    ) -> llfuse.EntryAttributes:
        try:
            if name == b".":
                return self._entry(self._surface.attributes(parent))
            if name == b"..":
                return self._entry(self._surface.attributes(self._surface.parent(parent)))
            return self._entry(self._surface.lookup(parent, name))
        except NotFound:
            return self._entry.absent()

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        """The low extension takes these: an inode stays in the state without names, so nobody has
        to know what the kernel holds."""

    @answered
    def getattr(self, ino: int, ctx: llfuse.RequestContext) -> llfuse.EntryAttributes:
        return self._entry(self._surface.attributes(ino))

    @answered
    def setattr(
        self,
        ino: int,
        attr: llfuse.EntryAttributes,
        fields: llfuse.SetattrFields,
        fh: int | None,
        ctx: llfuse.RequestContext,
    ) -> llfuse.EntryAttributes:
        if fh is not None and self._locks.is_lost(fh):
            raise LockLost
        changed = self._surface.set_attributes(
            ino,
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            size=attr.st_size if fields.update_size else None,
            handle=None if fh is None else self._handles.get(fh),
        )
        return self._entry(changed)

    @answered
    def readlink(self, ino: int, ctx: llfuse.RequestContext) -> bytes:
        return self._surface.readlink(ino)

    def _owner_of_new(
        self, parent: int, mode: int, ctx: llfuse.RequestContext
    ) -> tuple[int, int, int]:
        """(mode, uid, gid) of something new; a set-group-id directory hands on its group.

        That rule is only kept where owners are shown: elsewhere nobody could see the difference,
        and it costs a look at the parent.
        """
        if not self._shows_owners:
            return mode, ctx.uid, ctx.gid
        above = self._surface.attributes(parent)
        if not above.mode & stat.S_ISGID:
            return mode, ctx.uid, ctx.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
        return mode, ctx.uid, above.gid

    @answered
    def mkdir(
        self, parent: int, name: bytes, mode: int, ctx: llfuse.RequestContext
    ) -> llfuse.EntryAttributes:
        mode, uid, gid = self._owner_of_new(parent, mode, ctx)
        return self._entry(self._surface.mkdir(parent, name, mode, uid, gid))

    @answered
    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: llfuse.RequestContext
    ) -> llfuse.EntryAttributes:
        mode, uid, gid = self._owner_of_new(parent, mode, ctx)
        return self._entry(self._surface.mknod(parent, name, mode, rdev, uid, gid))

    @answered
    def symlink(
        self, parent: int, name: bytes, target: bytes, ctx: llfuse.RequestContext
    ) -> llfuse.EntryAttributes:
        _, uid, gid = self._owner_of_new(parent, stat.S_IFLNK | 0o777, ctx)
        return self._entry(self._surface.symlink(parent, name, target, uid, gid))

    @answered
    def link(
        self, ino: int, parent: int, name: bytes, ctx: llfuse.RequestContext
    ) -> llfuse.EntryAttributes:
        return self._entry(self._surface.link(ino, parent, name))

    @answered
    def unlink(self, parent: int, name: bytes, ctx: llfuse.RequestContext) -> None:
        self._surface.unlink(parent, name)

    @answered
    def rmdir(self, parent: int, name: bytes, ctx: llfuse.RequestContext) -> None:
        self._surface.rmdir(parent, name)

    @answered
    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        ctx: llfuse.RequestContext,
    ) -> None:
        self._surface.rename(parent, name, new_parent, new_name)

    @answered
    def access(self, ino: int, mode: int, ctx: llfuse.RequestContext) -> bool:
        """Not asked: with default_permissions the kernel decides by itself."""
        raise llfuse.FUSEError(errno.ENOSYS)

    # --- Directories ---------------------------------------------------------------------------

    @answered
    def opendir(self, ino: int, ctx: llfuse.RequestContext) -> int:
        fh = next(self._numbers)
        self._directories[fh] = OpenDirectory(ino)
        return fh

    @answered
    def releasedir(self, fh: int) -> None:
        self._directories.pop(fh, None)

    @answered
    def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._surface.fsync_directory(self._directory(fh).ino)

    @answered
    def readdir(self, fh: int, offset: int) -> Listing:
        """Entries after cookie `offset`. llfuse takes as many as fit and drops the rest."""
        directory = self._directory(fh)
        ino = directory.ino
        above = ino if offset >= PARENT_COOKIE else self._surface.parent(ino)
        after = offset if offset > PARENT_COOKIE else 0
        return _listing(ino, above, offset, directory.after(self._surface, after))

    def _directory(self, fh: int) -> OpenDirectory:
        try:
            return self._directories[fh]
        except KeyError:
            raise llfuse.FUSEError(errno.EBADF) from None

    # --- Files ---------------------------------------------------------------------------------

    def _opened(self, handle: FileHandle, flags: int) -> int:
        fh = next(self._numbers)
        self._surface.serve(handle, fh)
        if flags & os.O_APPEND:
            self._appending.add(fh)
        self._handles[fh] = handle
        return fh

    def _handle(self, fh: int) -> FileHandle:
        if self._locks.is_lost(fh):
            raise LockLost
        try:
            return self._handles[fh]
        except KeyError:
            raise llfuse.FUSEError(errno.EBADF) from None

    @answered
    def open(self, ino: int, flags: int, ctx: llfuse.RequestContext) -> int:
        fh = self._opened(self._surface.open(ino, flags), flags)
        if self._notifier.is_untold(ino):
            low.drop_pages()
        return fh

    @answered
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: llfuse.RequestContext
    ) -> tuple[int, llfuse.EntryAttributes]:
        mode, uid, gid = self._owner_of_new(parent, stat.S_IFREG | mode, ctx)
        try:
            handle, attributes = self._surface.create(parent, name, mode, uid, gid, flags)
        except Exists:
            if flags & os.O_EXCL:
                raise
            # Another machine made the name after the kernel had looked for it in vain.
            handle, attributes = self._open_existing(parent, name, flags)
        return self._opened(handle, flags), self._entry(attributes)

    def _open_existing(self, parent: int, name: bytes, flags: int) -> tuple[FileHandle, Attributes]:
        found = self._surface.lookup(parent, name)
        if not stat.S_ISREG(found.mode):
            # The kernel looks the name up again and does what is right for a directory or a link.
            raise llfuse.FUSEError(errno.ESTALE)
        handle = self._surface.open(found.ino, flags)
        return handle, self._surface.attributes(found.ino)

    @answered
    def read(self, fh: int, offset: int, size: int) -> bytes | memoryview:
        handle = self._handle(fh)
        number = self._transfers.begin(handle.ino)
        try:
            return self._surface.read(handle, offset, size)
        finally:
            self._transfers.end(handle.ino, number)

    @answered
    def write(self, fh: int, offset: int, data: bytes) -> int:
        handle = self._handle(fh)
        appends = fh in self._appending
        number = self._transfers.begin(handle.ino)
        try:
            # A page of a mapping goes where it belongs, also through a descriptor that appends.
            in_place = appends and low.is_page_write()
            written = self._surface.write(handle, offset, data, in_place)
        finally:
            self._transfers.end(handle.ino, number)
        if appends and not in_place:
            end = self._surface.attributes(handle.ino).size
            if end != offset + written:
                # The kernel did not know the end: its pages have these bytes at the wrong place.
                self._notifier.inode_moved(handle.ino)
        return written

    @answered
    def flush(self, fh: int) -> None:
        self._surface.flush(self._handle(fh))

    @answered
    def fsync(self, fh: int, datasync: bool) -> None:
        self._surface.fsync(self._handle(fh))

    @answered
    def allocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        handle = self._handle(fh)
        number = self._transfers.begin(handle.ino)
        try:
            allocate(self._surface, handle, mode, offset, length)
        finally:
            self._transfers.end(handle.ino, number)

    @answered
    def release(self, fh: int) -> None:
        handle = self._handles.pop(fh, None)
        self._appending.discard(fh)
        self._locks.forget_lost(fh)
        if handle is not None:
            self._surface.release(handle)

    # --- Extended attributes -------------------------------------------------------------------

    def getxattr(self, ino: int, name: bytes, ctx: llfuse.RequestContext | None = None) -> bytes:
        """llfuse leaves ctx out when it asks for XATTR_CREATE or XATTR_REPLACE."""
        if not name.startswith(XATTR_ROOMS):
            raise llfuse.FUSEError(errno.EOPNOTSUPP)
        return self._getxattr(ino, name)

    @answered
    def _getxattr(self, ino: int, name: bytes) -> bytes:
        return self._surface.get_xattr(ino, name)

    @answered
    def setxattr(self, ino: int, name: bytes, value: bytes, ctx: llfuse.RequestContext) -> None:
        if not name.startswith(XATTR_ROOMS):
            raise llfuse.FUSEError(errno.EOPNOTSUPP)
        if len(name) > NAME_MAX:
            raise llfuse.FUSEError(errno.ERANGE)
        if len(value) > XATTR_VALUE_MAX:
            raise llfuse.FUSEError(errno.E2BIG)
        self._surface.set_xattr(ino, name, value)

    @answered
    def listxattr(self, ino: int, ctx: llfuse.RequestContext) -> Sequence[bytes]:
        return self._surface.list_xattrs(ino)

    @answered
    def removexattr(self, ino: int, name: bytes, ctx: llfuse.RequestContext) -> None:
        if not name.startswith(XATTR_ROOMS):
            raise llfuse.FUSEError(errno.EOPNOTSUPP)
        self._surface.remove_xattr(ino, name)


def _listing(ino: int, above: int, offset: int, found: Sequence[DirectoryEntry]) -> Listing:
    """One listing, made as llfuse takes it. Only number and type of an entry reach the kernel.

    One EntryAttributes serves all: llfuse copies it before it asks for the next.
    """
    entry = llfuse.EntryAttributes()
    entry.st_mode = stat.S_IFDIR
    if offset < SELF_COOKIE:
        entry.st_ino = ino
        yield b".", entry, SELF_COOKIE
    if offset < PARENT_COOKIE:
        entry.st_ino = above
        yield b"..", entry, PARENT_COOKIE
    for cookie, name, attributes in found:
        entry.st_ino = attributes.ino
        entry.st_mode = attributes.mode
        yield name, entry, cookie
