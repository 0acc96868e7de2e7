"""A whole file system in memory: what the mount is tested over where no store is wanted.

It keeps the rules of lucid.filespace.surface, sparse files included, and lets a test look inside:
`trace` names every call in order, `hooks` runs a function at the start of a named call (raise
there, or wait there), `remote_*` change something behind the kernel's back and tell subscribers.
One lock around everything; any thread may call.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lucid import errors
from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable
from lucid.filespace.surface import (
    Attributes,
    DirectoryEntry,
    FileHandle,
    Invalidation,
    Progress,
    Status,
    Totals,
)
from lucid.sync.lease_terms import Leases, NoLeases

BLOCK = 128 * 1024
ROOT = 1
FIRST_ID = (1 << 32) + 1


@dataclass
class Node:
    ino: int
    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    nlink: int = 1
    size: int = 0
    target: bytes = b""
    parent: int = ROOT
    times: list[int] = field(default_factory=lambda: [time.time_ns()] * 3)
    blocks: dict[int, bytearray] = field(default_factory=dict)
    names: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # -> cookie, ino
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(eq=False)
class Handle:
    ino: int
    flags: int
    closed: bool = False


class MemorySurface:
    """Guarded by _lock: everything below it."""

    def __init__(
        self,
        *,
        read_only: bool = False,
        block_size: int = BLOCK,
        state_directory: str = "",
        pending_ops: int = 0,
        uploads: int = 1_000_000,
        pace_s: float = 0.0,
        problem: str = "",
    ) -> None:
        """uploads: how many pending ops the "store" takes, one each pace_s, before it hangs.
        problem: what it says of that."""
        self.read_only = read_only
        self.block_size = block_size
        self.trace: list[str] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self.state_directory = state_directory
        self.pending_ops = pending_ops
        self.upload_step = threading.Semaphore(uploads)
        self._pace_s = pace_s
        self._problem = problem
        self._never = threading.Event()
        self.closed = False
        self.hits: HitTable | None = None
        self.known: KnownTable | None = None
        self.older = None
        self.others = None
        self.leases: Leases = NoLeases()
        self._lock = threading.RLock()
        self._next = FIRST_ID
        self._nodes = {ROOT: Node(ROOT, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), nlink=2)}
        self._listeners: list[Callable[[Sequence[Invalidation]], None]] = []

    # --- Inside --------------------------------------------------------------------------------

    def _called(self, name: str) -> None:
        self.trace.append(name)
        hook = self.hooks.get(name)
        if hook is not None:
            hook()

    def _new_id(self) -> int:
        self._next += 1
        return self._next

    def _node(self, ino: int) -> Node:
        try:
            return self._nodes[ino]
        except KeyError:
            raise errors.NotFound() from None

    def _directory(self, ino: int) -> Node:
        node = self._node(ino)
        if not node.is_directory():
            raise errors.NotDirectory()
        return node

    def _writable(self) -> None:
        if self.read_only:
            raise errors.ReadOnly()

    def _attributes(self, node: Node) -> Attributes:
        blocks = sum(-(-len(data) // 512) for data in node.blocks.values())
        return Attributes(
            node.ino, node.mode, node.nlink, node.uid, node.gid, node.rdev,
            node.size, blocks, *node.times,
        )  # fmt: skip

    def _touch(self, node: Node, *, content: bool = False) -> None:
        now = time.time_ns()
        node.times[2] = now
        if content:
            node.times[1] = now

    def _add(self, parent: int, name: bytes, node: Node) -> Attributes:
        self._writable()
        directory = self._directory(parent)
        if len(name) > 255:
            raise errors.NameTooLong()
        if name in directory.names:
            raise errors.Exists()
        if directory.nlink == 0:
            raise errors.NotFound()
        self._nodes[node.ino] = node
        directory.names[name] = (self._new_id(), node.ino)
        node.parent = parent
        if node.is_directory():
            node.nlink = 2
            directory.nlink += 1
        self._touch(directory, content=True)
        return self._attributes(node)

    def _remove_name(self, directory: Node, name: bytes) -> None:
        _, ino = directory.names.pop(name)
        node = self._node(ino)
        if node.is_directory():
            node.nlink = 0
            directory.nlink -= 1
        else:
            node.nlink -= 1
        self._touch(node)
        self._touch(directory, content=True)

    # --- Names ---------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Attributes:
        self._called("lookup")
        with self._lock:
            found = self._directory(parent).names.get(name)
            if found is None:
                raise errors.NotFound()
            return self._attributes(self._node(found[1]))

    def attributes(self, ino: int) -> Attributes:
        self._called("attributes")
        with self._lock:
            return self._attributes(self._node(ino))

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
        self._called("set_attributes")
        with self._lock:
            self._writable()
            node = self._node(ino)
            if mode is not None:
                node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
            node.uid = node.uid if uid is None else uid
            node.gid = node.gid if gid is None else gid
            if size is not None:
                self._cut(node, size)
            self._touch(node, content=size is not None)
            node.times[0] = node.times[0] if atime_ns is None else atime_ns
            node.times[1] = node.times[1] if mtime_ns is None else mtime_ns
            return self._attributes(node)

    def readdir(self, ino: int, after: int, limit: int) -> Sequence[DirectoryEntry]:
        self._called("readdir")
        with self._lock:
            # Ids grow, and a dict keeps its order: the names are in the order of their cookies.
            found = []
            for name, (cookie, child) in self._directory(ino).names.items():
                if cookie > after:
                    found.append(DirectoryEntry(cookie, name, self._attributes(self._node(child))))
                    if len(found) == limit:
                        break
            return found

    def parent(self, ino: int) -> int:
        with self._lock:
            return self._directory(ino).parent

    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        self._called("mkdir")
        with self._lock:
            node = Node(self._new_id(), stat.S_IFDIR | stat.S_IMODE(mode), uid, gid)
            return self._add(parent, name, node)

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes:
        self._called("mknod")
        with self._lock:
            return self._add(parent, name, Node(self._new_id(), mode, uid, gid, rdev))

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        self._called("symlink")
        with self._lock:
            node = Node(self._new_id(), stat.S_IFLNK | 0o777, uid, gid, size=len(target))
            node.target = target
            return self._add(parent, name, node)

    def readlink(self, ino: int) -> bytes:
        self._called("readlink")
        with self._lock:
            return self._node(ino).target

    def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        self._called("link")
        with self._lock:
            node = self._node(ino)
            if node.is_directory():
                raise errors.NotPermitted()
            self._add(parent, name, node)
            node.nlink += 1
            self._touch(node)
            return self._attributes(node)

    def unlink(self, parent: int, name: bytes) -> None:
        self._called("unlink")
        with self._lock:
            self._writable()
            directory = self._directory(parent)
            if name not in directory.names:
                raise errors.NotFound()
            if self._node(directory.names[name][1]).is_directory():
                raise errors.IsDirectory()
            self._remove_name(directory, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        self._called("rmdir")
        with self._lock:
            self._writable()
            directory = self._directory(parent)
            if name not in directory.names:
                raise errors.NotFound()
            if self._directory(directory.names[name][1]).names:
                raise errors.NotEmpty()
            self._remove_name(directory, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        self._called("rename")
        with self._lock:
            self._writable()
            if len(new_name) > 255:
                raise errors.NameTooLong()
            source, target = self._directory(parent), self._directory(new_parent)
            if name not in source.names:
                raise errors.NotFound()
            node = self._node(source.names[name][1])
            if new_name in target.names:
                old = self._node(target.names[new_name][1])
                if old is node:
                    return
                if old.is_directory() != node.is_directory():
                    raise errors.IsDirectory() if old.is_directory() else errors.NotDirectory()
                if old.names:
                    raise errors.NotEmpty()
                self._remove_name(target, new_name)
            del source.names[name]
            target.names[new_name] = (self._new_id(), node.ino)
            if node.is_directory():
                node.parent = new_parent
                source.nlink -= 1
                target.nlink += 1
            for changed in (source, target):
                self._touch(changed, content=True)
            self._touch(node)

    # --- Files ---------------------------------------------------------------------------------

    def create(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, flags: int
    ) -> tuple[FileHandle, Attributes]:
        self._called("create")
        with self._lock:
            node = Node(self._new_id(), stat.S_IFREG | stat.S_IMODE(mode), uid, gid)
            attributes = self._add(parent, name, node)
            return Handle(node.ino, flags), attributes

    def open(self, ino: int, flags: int) -> FileHandle:
        self._called("open+trunc" if flags & os.O_TRUNC else "open")
        with self._lock:
            node = self._node(ino)
            if flags & os.O_ACCMODE != os.O_RDONLY:
                self._writable()
            if flags & os.O_TRUNC:
                self._cut(node, 0)
                self._touch(node, content=True)
            return Handle(ino, flags)

    def _cut(self, node: Node, size: int) -> None:
        if node.is_directory():
            raise errors.IsDirectory()
        block, inside = divmod(size, self.block_size)
        for index in [index for index in node.blocks if index >= block]:
            if index > block or inside == 0:
                del node.blocks[index]
            else:
                del node.blocks[index][inside:]
        node.size = size

    def _open_node(self, handle: FileHandle) -> Node:
        assert isinstance(handle, Handle)
        if handle.closed:
            raise errors.BadHandle()
        return self._node(handle.ino)

    def read(self, handle: FileHandle, offset: int, length: int) -> bytes | memoryview:
        self._called("read")
        with self._lock:
            node = self._open_node(handle)
            length = max(0, min(length, node.size - offset))
            answer = bytearray(length)
            done = 0
            while done < length:
                block, inside = divmod(offset + done, self.block_size)
                take = min(length - done, self.block_size - inside)
                piece = node.blocks.get(block, b"")[inside : inside + take]
                answer[done : done + len(piece)] = piece
                done += take
            return memoryview(answer)

    def serve(self, handle: FileHandle, number: int) -> None:
        pass

    def write(
        self, handle: FileHandle, offset: int, data: bytes | memoryview, in_place: bool = False
    ) -> int:
        self._called("write")
        with self._lock:
            node = self._open_node(handle)
            assert isinstance(handle, Handle)
            if handle.flags & os.O_APPEND and not in_place:
                offset = node.size
            self._put(node, offset, data)
            return len(data)

    def _put(self, node: Node, offset: int, data: bytes | memoryview) -> None:
        done = 0
        while done < len(data):
            index, inside = divmod(offset + done, self.block_size)
            take = min(len(data) - done, self.block_size - inside)
            block = node.blocks.setdefault(index, bytearray())
            if len(block) < inside + take:
                block.extend(bytes(inside + take - len(block)))
            block[inside : inside + take] = data[done : done + take]
            done += take
        node.size = max(node.size, offset + len(data))
        self._touch(node, content=True)

    def flush(self, handle: FileHandle) -> None:
        self._called("flush")
        with self._lock:
            self._open_node(handle)

    def fsync(self, handle: FileHandle) -> None:
        self._called("fsync")
        with self._lock:
            self._open_node(handle)

    def fsync_directory(self, ino: int) -> None:
        self._called("fsync_directory")
        with self._lock:
            self._directory(ino)

    def release(self, handle: FileHandle) -> None:
        self._called("release")
        with self._lock:
            self._open_node(handle)
            assert isinstance(handle, Handle)
            handle.closed = True

    # --- Extended attributes -------------------------------------------------------------------

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        self._called("get_xattr")
        with self._lock:
            if name == b"user.lucid.state":
                return b"clean"
            try:
                return self._node(ino).xattrs[name]
            except KeyError:
                raise errors.NoData() from None

    def set_xattr(
        self, ino: int, name: bytes, value: bytes, create: bool = False, replace: bool = False
    ) -> None:
        self._called("set_xattr")
        with self._lock:
            self._writable()
            known = self._node(ino).xattrs
            if create and name in known:
                raise errors.Exists()
            if replace and name not in known:
                raise errors.NoData()
            known[name] = value

    def list_xattrs(self, ino: int) -> Sequence[bytes]:
        self._called("list_xattrs")
        with self._lock:
            return list(self._node(ino).xattrs)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        self._called("remove_xattr")
        with self._lock:
            self._writable()
            if self._node(ino).xattrs.pop(name, None) is None:
                raise errors.NoData()

    # --- The whole -----------------------------------------------------------------------------

    def inodes(self) -> set[int]:
        """The inodes that exist, with a name or without."""
        with self._lock:
            return set(self._nodes)

    def totals(self) -> Totals:
        with self._lock:
            return Totals(len(self._nodes), sum(node.size for node in self._nodes.values()))

    def sync(self, ino: int | None = None, timeout: float | None = None) -> str:
        self._called("sync")
        while self.pending_ops:
            if not self.upload_step.acquire(timeout=10.0 if timeout is None else timeout):
                raise errors.TimedOut("The uploads did not end in time.")
            self.pending_ops -= 1
        return f"token-{ino}"

    def clear_cache(self) -> int:
        self._called("clear_cache")
        return 4096

    def subscribe(self, listener: Callable[[Sequence[Invalidation]], None]) -> None:
        self._listeners.append(listener)

    def tell(self, *changes: Invalidation) -> None:
        for listener in self._listeners:
            listener(changes)

    def remote_write(self, ino: int, offset: int, data: bytes) -> None:
        """Another machine changed a file."""
        with self._lock:
            self._put(self._node(ino), offset, data)
        self.tell(Invalidation(ino, None))

    def remote_unlink(self, parent: int, name: bytes) -> None:
        """Another machine removed a name."""
        with self._lock:
            self._remove_name(self._node(parent), name)
        self.tell(Invalidation(parent, name), Invalidation(parent, None))

    def progress(self) -> Progress:
        return Progress(self.pending_ops, self.pending_ops * 1024, 0, None, self._problem)

    def status(self) -> Status:
        totals = self.totals()
        return Status(
            name="memory", filespace="0" * 32, store="memory:",
            state_directory=self.state_directory, member="tester", device="here", session=1,
            read_only=self.read_only, online=True, last_answer_age_s=0.0,
            problem="", head=1, head_hash="00", newest_entry_age_s=0.5, void_entries=0,
            pending_ops=self.pending_ops, staged_bytes=0, staged_files=0, failed=(),
            inodes=totals.inodes, data_bytes=totals.data_bytes, cache_bytes=4096,
            cache_limit=1 << 30, cache_hits=3, cache_misses=1, requests={"get": 1},
            bytes_fetched=1, bytes_sent=2, memory_bytes=3, freshness="proven", locks="local",
        )  # fmt: skip

    def close(
        self,
        *,
        wait: bool = True,
        timeout: float | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> Progress:
        self._called("close")
        try:
            while wait and self.pending_ops:
                if report is not None:
                    report(self.progress())
                if self.upload_step.acquire(timeout=0.05):
                    self._never.wait(self._pace_s)
                    self.pending_ops -= 1
        finally:
            self.closed = True
        return self.progress()


def broken(number: int = errno.EIO) -> Callable[[], None]:
    """A hook that fails as a bug does: with something that is no LucidError."""

    def fail() -> None:
        raise RuntimeError(f"a bug, told to happen ({number})")

    return fail
