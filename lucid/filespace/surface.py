"""What a Filespace offers to a mount and to the command line: the values and the protocol.

The mount is written against this protocol only. Every method is safe from many threads, blocks at
most for a bounded time, and raises LucidError with the errno to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable
from lucid.sync.lease_terms import Leases

__all__ = [
    "Attributes",
    "Change",
    "DirectoryEntry",
    "FileHandle",
    "Invalidation",
    "OlderVersions",
    "Others",
    "Progress",
    "Removed",
    "Restored",
    "Status",
    "Surface",
    "Totals",
    "Version",
]


class Attributes(NamedTuple):
    """stat(2) of an inode, as stored (the mount decides whose uid is shown)."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int  # 512-byte units of real data
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class DirectoryEntry(NamedTuple):
    cookie: int  # of this entry: ask for what comes after it
    name: bytes
    attributes: Attributes


class Totals(NamedTuple):
    inodes: int
    data_bytes: int


class Invalidation(NamedTuple):
    """Something that another machine changed, or that a rebase moved, and that a kernel may hold.

    name is None: the inode's attributes and pages. Else: the dentry (ino is the directory).
    """

    ino: int
    name: bytes | None


class FileHandle(Protocol):
    """One open file. Opaque to the mount."""

    @property
    def ino(self) -> int: ...


class Progress(NamedTuple):
    """How far uploads and commits are."""

    pending_ops: int
    staged_bytes: int  # sealed here, not in the store yet
    uploaded_bytes: int  # since the filespace was opened
    waiting_since: float | None  # monotonic seconds since when nothing moved; None while it moves
    problem: str  # one sentence, empty when all is well


class Status(NamedTuple):
    """What `lucid status` shows; every field is plain JSON data."""

    name: str
    filespace: str
    store: str
    state_directory: str
    member: str
    device: str
    session: int
    read_only: bool
    online: bool
    last_answer_age_s: float | None  # of the store; None: it has not answered since the mount
    problem: str
    head: int
    head_hash: str
    newest_entry_age_s: float | None
    void_entries: int
    pending_ops: int
    staged_bytes: int
    staged_files: int
    failed: tuple[str, ...]
    inodes: int
    data_bytes: int
    cache_bytes: int
    cache_limit: int
    cache_hits: int
    cache_misses: int
    requests: dict[str, int]
    bytes_fetched: int
    bytes_sent: int
    memory_bytes: int
    freshness: str  # "proven" or a sentence that says why not
    locks: str  # "local" until locks cross machines
    checkpoint: int = 0  # sequence of the newest that this device knows; 0: none
    checkpoint_age_s: float | None = None
    checkpoint_notes: tuple[str, ...] = ()  # what this mount began from, and what it did not use
    hub: dict[str, Any] | None = None  # the link to a hub; None without one
    devices: tuple[dict[str, Any], ...] = ()  # others that are at the hub now
    collection: dict[str, Any] | None = None  # what it frees in the store; None: it does not
    conflicts: tuple[str, ...] = ()  # copies heard of since the mount that are there, newest last


class Version(NamedTuple):
    """One version of a file. `file` is its inode number.

    `stored` is "whole"; "pending" while it is not in the store yet; "lost" if blocks of it are
    nowhere. `earlier` says that it is of a file that was removed, and had the same name before.
    """

    number: str
    file: int
    size: int
    mtime_ns: int
    member: str
    device: str
    current: bool
    stored: str
    earlier: bool


class Removed(NamedTuple):
    """What was removed, by its last name. `version` is the number of its newest version, empty for
    what has no content; `member` and `device` are empty where the state does not know them."""

    name: bytes
    file: int
    kind: str
    size: int
    version: str
    removed_ns: int
    member: str
    device: str


class Restored(NamedTuple):
    """Where something came back. `version` is the number of its newest version now, empty for a
    directory; `files` counts what came back in it, or is 1."""

    path: bytes
    file: int
    version: str
    files: int


class OlderVersions(Protocol):
    """What was, by directory and name. Numbers of versions are ids here."""

    def versions_of(self, parent: int, name: bytes, check: bool = False) -> list[Version]: ...
    def removed_from(self, parent: int) -> list[Removed]: ...
    def removed_directory(self, parent: int, name: bytes) -> int: ...
    def restore(
        self, place: tuple[int, bytes], version: int, to: tuple[int, bytes] | None = None
    ) -> Restored: ...
    def undelete(
        self,
        place: tuple[int, bytes],
        version: int | None = None,
        to: tuple[int, bytes] | None = None,
    ) -> Restored: ...


class Change(NamedTuple):
    """One change that was folded. `kind` is create, write, remove, rename, attributes, link, or
    conflict: then `path` is the copy that keeps the loser. `to` is the new path of a rename, else
    empty."""

    sequence: int
    time_ns: int
    kind: str
    path: bytes
    to: bytes
    member: str
    device: str


class Others(Protocol):
    """What is heard of other machines; see `together.Together`."""

    def changes(self, after: int, wait_s: float) -> tuple[list[Change], int, bool]: ...
    def wait(self, token: str, timeout_s: float) -> int: ...
    def leases(self) -> list[dict[str, Any]]: ...
    def path(self, ino: int) -> bytes | None: ...


class Surface(Protocol):
    """A whole file system, by inode number. Names are bytes. The root is inode 1."""

    read_only: bool
    block_size: int

    # names
    def lookup(self, parent: int, name: bytes) -> Attributes: ...
    def attributes(self, ino: int) -> Attributes: ...
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
    ) -> Attributes: ...
    def readdir(self, ino: int, after: int, limit: int) -> Sequence[DirectoryEntry]:
        """Entries with a cookie above `after`, ascending; '.' and '..' are the mount's affair."""
        ...

    def parent(self, ino: int) -> int: ...
    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes: ...
    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes: ...
    def symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> Attributes: ...
    def readlink(self, ino: int) -> bytes: ...
    def link(self, ino: int, parent: int, name: bytes) -> Attributes: ...
    def unlink(self, parent: int, name: bytes) -> None: ...
    def rmdir(self, parent: int, name: bytes) -> None: ...
    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None: ...

    # files
    def create(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, flags: int
    ) -> tuple[FileHandle, Attributes]: ...
    def open(self, ino: int, flags: int) -> FileHandle:
        """flags as open(2): access mode, O_APPEND, O_TRUNC count."""
        ...

    def read(self, handle: FileHandle, offset: int, length: int) -> bytes | memoryview:
        """Any contiguous buffer; shorter only at the end of the file."""
        ...

    @property
    def hits(self) -> HitTable | None:
        """Reads that the mount may answer without asking; None where there is no such thing."""
        ...

    @property
    def known(self) -> KnownTable | None:
        """Names and attributes that the mount may answer without asking, once it has begun this;
        None where there is no such thing."""
        ...

    @property
    def leases(self) -> Leases:
        """What the locks of the mount's programs are granted under."""
        ...

    @property
    def older(self) -> OlderVersions | None:
        """Older versions and what was removed; None where nothing of that is kept."""
        ...

    @property
    def others(self) -> Others | None:
        """Changes as they come; None where nobody else is."""
        ...

    def serve(self, handle: FileHandle, number: int) -> None:
        """The mount calls this handle `number`: `hits` may answer its reads until `release`."""
        ...

    def write(
        self, handle: FileHandle, offset: int, data: bytes | memoryview, in_place: bool = False
    ) -> int:
        """O_APPEND handles write at the end that is known here, whatever `offset` says.

        in_place: at `offset` all the same; pages of a mapping are written so.
        """
        ...

    def flush(self, handle: FileHandle) -> None:
        """What was written survives kill -9. Called at every close(2) of a descriptor."""
        ...

    def fsync(self, handle: FileHandle) -> None: ...
    def fsync_directory(self, ino: int) -> None: ...
    def release(self, handle: FileHandle) -> None:
        """Publishes what was written. Never raises for faults of the store."""
        ...

    # extended attributes (user.* and trusted.*; `user.lucid.state` is answered here)
    def get_xattr(self, ino: int, name: bytes) -> bytes: ...
    def set_xattr(
        self, ino: int, name: bytes, value: bytes, create: bool = False, replace: bool = False
    ) -> None: ...
    def list_xattrs(self, ino: int) -> Sequence[bytes]: ...
    def remove_xattr(self, ino: int, name: bytes) -> None: ...

    # the whole
    def totals(self) -> Totals: ...
    def sync(self, ino: int | None = None, timeout: float | None = None) -> str:
        """Publish, upload and commit what is pending (of this inode); answers a token."""
        ...

    def subscribe(self, listener: Callable[[Sequence[Invalidation]], None]) -> None:
        """`listener` is called from a sync thread, with no lock held; it must not block."""
        ...

    def progress(self) -> Progress: ...
    def status(self) -> Status: ...
    def clear_cache(self) -> int:
        """Drops what can be fetched again from the local cache; the bytes freed."""
        ...

    def close(
        self,
        *,
        wait: bool = True,
        timeout: float | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> Progress:
        """Ends all threads. With `wait`, first publishes, uploads and commits what is pending
        (reporting about ten times a second); what remains stays for the next open."""
        ...
