"""A disk that forgets what was not synced, and fails when it is told to.

The directory below it is real and always shows what a running machine would see. Beside it this
disk keeps what would be there after loss of power: the bytes that were fdatasynced, the names whose
directory was fsynced. `crash` makes the real directory show that, and of everything else a random
part: single sectors of writes, in any order; sizes; names. No more forgiving than it must be:

- a synced file whose directory was not synced may have no name, or its old one;
- a rename may be undone, but it never loses both names;
- after an fdatasync that failed, a second one that succeeds keeps nothing of what the first lost.

`kill` is kill -9 of the process: descriptors go, nothing else.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lucid.local.disk import Buffer, RealDisk, Space

SECTOR = 4096
_BYTES = ("create", "pwrite", "fdatasync", "fallocate", "ftruncate")
_NAMES = ("fsync_dir", "rename", "unlink", "mkdir")
WRITE_LIKE = frozenset((*_BYTES, *_NAMES))


class PowerLoss(BaseException):
    """Thrown in the place of a call; nothing of the product may catch it for good."""


class Fault(NamedTuple):
    """The calls `name` (any write-like one for "*") from the `first`, `count` of them, fail."""

    name: str
    number: int
    first: int = 1
    count: int = 1
    partial: int = 0
    """A failing pwrite puts down this many bytes before."""


class Write(NamedTuple):
    offset: int
    data: bytes


class Resize(NamedTuple):
    size: int
    only_grow: bool


@dataclass(eq=False)
class Node:
    """A file: what is durable of it, and what is not yet."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Resize] = field(default_factory=list)
    doomed: list[Write | Resize] = field(default_factory=list)
    """An fdatasync lost them: no later one makes them durable."""


DIRECTORY = Node()


class NameChange(NamedTuple):
    """`path` leads to `node` now (None: to nothing), and `old`, if any, to nothing."""

    path: Path
    node: Node | None
    old: Path | None = None

    def touches(self, directory: Path) -> bool:
        return directory in (self.path.parent, self.old and self.old.parent)

    def apply(self, names: dict[Path, Node]) -> None:
        if self.path.parent not in names or (self.old and self.old not in names):
            return
        if self.old:
            del names[self.old]
        if self.node is None:
            names.pop(self.path, None)
        else:
            names[self.path] = self.node


def put(content: bytearray, change: Write | Resize) -> None:
    """Do to `content` what the change does to a file."""
    if isinstance(change, Resize):
        if change.size > len(content):
            content.extend(bytes(change.size - len(content)))
        elif not change.only_grow:
            del content[change.size :]
        return
    end = change.offset + len(change.data)
    if end > len(content):
        content.extend(bytes(end - len(content)))
    content[change.offset : end] = change.data


def sectors(change: Write | Resize) -> Iterator[Write | Resize]:
    """The parts of a change that reach the disk, or not, each on its own."""
    if isinstance(change, Resize):
        yield change
        return
    offset, data = change
    while data:
        size = SECTOR - offset % SECTOR
        yield Write(offset, data[:size])
        offset, data = offset + size, data[size:]


class ForgetfulDisk(RealDisk):
    """See above. Everything lies below `root`. Any thread may call."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda name: None
        """Called before every write-like call; may raise PowerLoss."""
        self.faults: list[Fault] = []
        self.available: int | None = None
        """What `space` says, if set."""
        self._lock = threading.RLock()
        self._names: dict[Path, Node] = {root: DIRECTORY}
        self._durable_names: dict[Path, Node] = {root: DIRECTORY}
        self._pending_names: list[NameChange] = []
        self._fds: dict[int, Node] = {}
        self._is_dead = False

    # -- what a test does to it

    def fail(
        self, name: str, number: int, first: int = 1, count: int = 1, partial: int = 0
    ) -> None:
        """Let calls from now on fail; counting starts anew."""
        self.calls.clear()
        self.faults.append(Fault(name, number, first, count, partial))

    def heal(self) -> None:
        self.faults.clear()

    def cut_power_at(self, number: int) -> None:
        """The `number`-th write-like call from now on does not happen, nor any later one."""
        left = number

        def count(name: str) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                self._is_dead = True
                raise PowerLoss(name)

        self.before = count

    def kill(self) -> None:
        """The process is gone; what it wrote is still in the page cache."""
        with self._lock:
            for fd in list(self._fds):
                self.close(fd)
            self._revive()

    def crash(self, seed: int) -> None:
        """Power was lost. Of what was not synced a random part is there."""
        chance = random.Random(seed)
        with self._lock:
            for fd in list(self._fds):
                self.close(fd)
            names = dict(self._durable_names)
            keep_names, keep_data = chance.choice(PARTS), chance.choice(PARTS)
            for change in self._pending_names:
                if chance.random() < keep_names:
                    change.apply(names)
            names = {path: node for path, node in names.items() if self._has_parents(path, names)}
            for node in {id(node): node for node in names.values()}.values():
                self._settle(node, chance, keep_data)
            self._rebuild(names)
            self._revive()

    # -- Disk

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        with self._call("create" if flags & os.O_CREAT and path not in self._names else "open"):
            fd = super().open(path, flags, mode)
            node = self._names.get(path)
            if node is None:
                node = Node()
                self._change_name(NameChange(path, node))
            elif flags & os.O_TRUNC:
                node.pending.append(Resize(0, False))
            self._fds[fd] = node
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            if self._fds.pop(fd, None) is not None:
                super().close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        with self._call("pread"):
            self._node(fd)
            return super().pread(fd, size, offset)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        def part(size: int) -> None:
            node.pending.append(Write(offset, bytes(data)[:size]))
            super(ForgetfulDisk, self).pwrite(fd, bytes(data)[:size], offset)

        with self._lock:
            node = self._node(fd)
            with self._call("pwrite", part):
                part(len(data))

    def fdatasync(self, fd: int) -> None:
        with self._lock:
            node = self._node(fd)
            try:
                with self._call("fdatasync"):
                    for change in node.pending:
                        put(node.durable, change)
            except OSError:
                node.doomed += node.pending
                raise
            finally:
                if not self._is_dead:
                    node.pending = []

    def fsync_dir(self, path: Path) -> None:
        with self._call("fsync_dir"):
            left = []
            for change in self._pending_names:
                if change.touches(path):
                    change.apply(self._durable_names)
                else:
                    left.append(change)
            self._pending_names = left

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        with self._call("fallocate"):
            self._node(fd).pending.append(Resize(offset + length, True))
            # The blocks themselves are of no interest here, and tests make many files.
            if super().size(fd) < offset + length:
                super().ftruncate(fd, offset + length)

    def ftruncate(self, fd: int, size: int) -> None:
        with self._call("ftruncate"):
            self._node(fd).pending.append(Resize(size, False))
            super().ftruncate(fd, size)

    def rename(self, old: Path, new: Path) -> None:
        with self._call("rename"):
            super().rename(old, new)
            self._change_name(NameChange(new, self._names[old], old))

    def unlink(self, path: Path) -> None:
        with self._call("unlink"):
            super().unlink(path)
            self._change_name(NameChange(path, None))

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        with self._call("mkdir"):
            super().mkdir(path, mode)
            self._change_name(NameChange(path, DIRECTORY))

    def space(self, path: Path) -> Space:
        with self._call("space"):
            found = super().space(path)
            return found if self.available is None else Space(found.total, self.available)

    # -- inside

    @contextmanager
    def _call(self, name: str, part: Callable[[int], None] | None = None) -> Iterator[None]:
        with self._lock:
            if self._is_dead:
                raise PowerLoss(name)
            self.calls[name] += 1
            if name in WRITE_LIKE:
                self.calls["*"] += 1
                self.before(name)
            for fault in self.faults:
                at = self.calls[fault.name] if fault.name in (name, "*") else 0
                if fault.first <= at < fault.first + fault.count:
                    if part is not None and fault.partial:
                        part(fault.partial)
                    raise OSError(fault.number, os.strerror(fault.number))
            yield

    def _node(self, fd: int) -> Node:
        if fd not in self._fds:
            raise OSError(errno.EBADF, "this descriptor is closed")
        return self._fds[fd]

    def _change_name(self, change: NameChange) -> None:
        self._pending_names.append(change)
        change.apply(self._names)

    def _has_parents(self, path: Path, names: dict[Path, Node]) -> bool:
        return path == self.root or (path.parent in names and self._has_parents(path.parent, names))

    def _settle(self, node: Node, chance: random.Random, part: float) -> None:
        for change in [*node.pending, *node.doomed]:
            for piece in sectors(change):
                if chance.random() < part:
                    put(node.durable, piece)
        node.pending, node.doomed = [], []

    def _rebuild(self, names: dict[Path, Node]) -> None:
        for found in self.root.iterdir():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        for path in sorted(names):
            if names[path] is not DIRECTORY:
                path.write_bytes(names[path].durable)
                path.chmod(0o600)
            elif path != self.root:
                path.mkdir(0o700)
        self._names = dict(names)
        self._durable_names = dict(names)
        self._pending_names = []

    def _revive(self) -> None:
        self._is_dead = False
        self.before = lambda name: None
        self.faults.clear()
        self.calls.clear()


PARTS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""How much of what was not synced is there after a crash: all, nothing, and between."""
