"""`Tree`: an open filespace by inode numbers, as the mount uses it. The facade over the rooms that
`opening` composes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from lucid.data.draft import Draft
from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable
from lucid.errors import DataError, InternalError, Stopped, TimedOut
from lucid.filespace.attributes import AttributeOps
from lucid.filespace.closing import close_filespace
from lucid.filespace.files import Handle
from lucid.filespace.names import Names
from lucid.filespace.opening import Opened
from lucid.filespace.report import progress_of, status_of
from lucid.filespace.restoring import Restoring
from lucid.filespace.surface import (
    Attributes,
    DirectoryEntry,
    FileHandle,
    Invalidation,
    Progress,
    Status,
    Totals,
)
from lucid.filespace.together import Together
from lucid.format.ops import Op
from lucid.format.token import format_token
from lucid.sync.lease_terms import Leases, NoLeases
from lucid.sync.ticker import Chore, Ticker

__all__ = ["Tree"]


class Tree:
    """An open filespace: `surface.Surface`, safe from many threads. `close` ends it."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._parts = opened.parts
        self._files = opened.files
        self._names = Names(self._parts, self._files)
        self._attributes = AttributeOps(self._parts, self._files)
        self._close_lock = threading.Lock()
        self._final: Progress | None = None
        self.read_only = self._parts.read_only
        self.block_size = self._parts.geometry.block_size
        self.state_dir = opened.state.path
        parts = self._parts
        is_local = parts.config.lock_policy == "none"
        self.leases: Leases = NoLeases() if is_local else opened.leases
        """What a mount grants locks under."""
        self.older = Restoring(parts, opened.unlocked.keys.member, self._commit_alone)
        self._ticker = Ticker(
            [
                Chore("commit the replica", 0.2, parts.replica.commit_if_due),
                Chore("write the replica's log into its file", 10.0, parts.replica.checkpoint_wal),
                Chore("empty the journal", 5.0, parts.book.empty_if_worth),
                Chore("publish open files", 1.0, self._publish_due),
                Chore("probe the store", 5.0, opened.probe),
            ],
            parts.clock,
        )
        opened.closing.callback(self._ticker.close)

    # -- names

    def lookup(self, parent: int, name: bytes) -> Attributes:
        return self._names.lookup(parent, name)

    def attributes(self, ino: int) -> Attributes:
        return self._files.attributes(ino)

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
        handle: FileHandle | None = None,
    ) -> Attributes:
        return self._attributes.set_attributes(
            ino, mode=mode, uid=uid, gid=gid, atime_ns=atime_ns, mtime_ns=mtime_ns, size=size,
            handle=_own(handle) if handle is not None else None,
        )  # fmt: skip

    def readdir(self, ino: int, after: int, limit: int) -> Sequence[DirectoryEntry]:
        return self._names.readdir(ino, after, limit)

    def parent(self, ino: int) -> int:
        return self._names.parent(ino)

    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        return self._names.mkdir(parent, name, mode, uid, gid)

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes:
        return self._names.mknod(parent, name, mode, rdev, uid, gid)

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        return self._names.symlink(parent, name, target, uid, gid)

    def readlink(self, ino: int) -> bytes:
        return self._names.readlink(ino)

    def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        return self._names.link(ino, parent, name)

    def unlink(self, parent: int, name: bytes) -> None:
        self._names.unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        self._names.rmdir(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        self._names.rename(parent, name, new_parent, new_name)

    # -- files

    def create(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, flags: int
    ) -> tuple[Handle, Attributes]:
        return self._files.create(parent, name, mode, uid, gid, flags)

    def open(self, ino: int, flags: int) -> Handle:
        return self._files.open(ino, flags)

    def read(self, handle: FileHandle, offset: int, length: int) -> bytes | memoryview:
        return self._files.read(_own(handle), offset, length)

    @property
    def hits(self) -> HitTable:
        return self._parts.hits

    @property
    def known(self) -> KnownTable:
        return self._parts.known

    @property
    def others(self) -> Together:
        return self._opened.together

    def serve(self, handle: FileHandle, number: int) -> None:
        self._files.serve(_own(handle), number)

    def write(
        self, handle: FileHandle, offset: int, data: bytes | memoryview, in_place: bool = False
    ) -> int:
        return self._files.write(_own(handle), offset, data, in_place)

    def flush(self, handle: FileHandle) -> None:
        self._files.flush(_own(handle))

    def fsync(self, handle: FileHandle) -> None:
        self._files.fsync(_own(handle))

    def fsync_directory(self, ino: int) -> None:
        self._files.fsync_directory()

    def release(self, handle: FileHandle) -> None:
        self._files.release(_own(handle))

    # -- extended attributes

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        return self._attributes.get_xattr(ino, name)

    def set_xattr(
        self, ino: int, name: bytes, value: bytes, create: bool = False, replace: bool = False
    ) -> None:
        self._attributes.set_xattr(ino, name, value, create, replace)

    def list_xattrs(self, ino: int) -> Sequence[bytes]:
        return self._attributes.list_xattrs(ino)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        self._attributes.remove_xattr(ino, name)

    # -- the whole

    def totals(self) -> Totals:
        found = self._parts.replica.totals()
        return Totals(found.inodes, found.data_bytes)

    def sync(self, ino: int | None = None, timeout: float | None = None) -> str:
        """Publish, upload and commit all that is pending; returns a token of the head.

        With `ino` only that file is published; what was accepted before it is committed with it.
        Raises TimedOut, what stopped writing, or, when all others are in the store, DataError for
        files that were set aside.
        """
        parts = self._parts
        if not self.read_only:
            drafts = parts.table.all() if ino is None else [parts.table.get(ino)]
            aside = [
                reason
                for draft in drafts
                if draft is not None and (reason := self._publish_for_sync(draft))
            ]
            last = parts.order.last
            self._opened.committer.poke()
            if not parts.order.wait_settled(last, timeout):
                raise TimedOut(
                    "Not everything is in the store yet; it is kept here and sent later."
                    + f" {self.progress().problem}".rstrip()
                )
            if aside:
                raise DataError(
                    f"All but {len(aside)} of the changed files are in the store: "
                    f"{aside[0].rstrip('.')}."
                )
        return format_token(self._opened.unlocked.superblock.filespace, parts.replica.head())

    def _commit_alone(self, op: Op) -> None:
        """Give an op an entry of its own in the log. Raises StoreUnavailable, Stopped."""
        self._opened.committer.alone.commit(op, self._parts.config.write_wait_s)

    def _publish_for_sync(self, draft: Draft) -> str:
        """Publish a draft; why not, if that cannot be for a fault of its own."""
        if draft.unpublished and not draft.unlinked and not draft.failure:
            try:
                self._parts.publisher.publish_now(draft, None)
            except DataError as error:
                if self._parts.order.stopped is not None:
                    raise
                self._parts.publisher.set_aside(draft, str(error))
        return draft.failure

    def refresh(self, timeout: float = 30.0) -> bool:
        """Read the log to its end now; False when that did not happen in time."""
        return self._opened.committer.wait_polled(timeout)

    def _publish_due(self) -> None:
        """Files that stay open, now and then; and those that could not be published at release."""
        parts = self._parts
        now = parts.clock.monotonic()
        for draft in parts.table.all():
            if (
                draft.unpublished
                and not draft.unlinked
                and not draft.failure
                and (not self._files.is_open(draft.ino) or self._is_due(draft, now))
            ):
                self._files.publish_quietly(draft)

    def _is_due(self, draft: Draft, now: float) -> bool:
        """Whether a file that is still open is published now: its name is public, and it was not
        just cut to be written anew."""
        interval = self._parts.config.publish_interval_s
        empty = draft.truncated and not draft.size
        return not draft.private and not empty and now - draft.since >= interval

    def subscribe(self, listener: Callable[[Sequence[Invalidation]], None]) -> None:
        self._parts.listeners.append(listener)

    def progress(self) -> Progress:
        try:
            return progress_of(self._opened)
        except Stopped:
            # It was closed in this moment: what was left then.
            with self._close_lock:
                if self._final is None:
                    raise
                return self._final

    def status(self) -> Status:
        return status_of(self._opened)

    def clear_cache(self) -> int:
        """Drop every cached segment that may go; returns the bytes freed."""
        return self._parts.cache.clear()

    def close(
        self,
        *,
        wait: bool = True,
        timeout: float | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> Progress:
        """See Surface.close. Idempotent."""
        with self._close_lock:
            if self._final is None:
                self._final = close_filespace(self._opened, wait, timeout, report)
            return self._final


def _own(handle: Any) -> Handle:
    if not isinstance(handle, Handle):
        raise InternalError("This handle is not one of this filespace.")
    return handle
