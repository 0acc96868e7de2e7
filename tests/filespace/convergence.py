"""Clients of one filespace that do what they like, and what must hold once all is quiet.

A `Team` is two to five filespaces without a mount, over one bucket. Integers choose what happens:
calls of programs, files held open across them, and what networks and machines do: cut off, answers
lost, puts refused, kill -9, somebody commits, somebody looks. A steered team commits and looks only
when a step says so, so the integers choose the order of the log too; in a free one all race.

The `Ledger` has what was acknowledged: the content of every file that was closed. After `quiet`:

* all clients hold the same rows and the same state hash, and read the same bytes;
* fsck finds nothing;
* every content that was acknowledged is that of a version of some file;
* and it is what a name leads to, unless somebody who saw it wrote over it or removed it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lucid.errors import NamespaceError, StoreError, UsageError
from lucid.filespace import Filespace
from lucid.filespace.fsck import check
from lucid.filespace.surface import FileHandle
from lucid.meta.replica import Replica
from lucid.store.faulty import FaultPlan, FaultyStore
from lucid.store.memory import MemoryStore
from tests.filespace.gate import Gate, GatedStore
from tests.filespace.knowing import Knowing
from tests.filespace.spaces import BLOCK, PASSPHRASE, WAIT_S, Space, open_on, parts_of
from tests.meta.states import hash_of, replica_rows

__all__ = ["DIRECTORIES", "FILL", "Client", "Held", "Missing", "Parted", "Team", "names"]

DIRECTORIES = ("", "/d", "/d/e", "/x")
FILL = (0, 0, 0, 40, 3000, BLOCK)
"""Bytes beside the mark of a write."""
STEERED_S = 3600.0
"""Nobody looks by itself."""
QUIET_ROUNDS = 3


class Parted(AssertionError):
    """The clients do not show the same."""


class Missing(AssertionError):
    """Something that was acknowledged is not there."""


class Saved(NamedTuple):
    """The content of a file when it was closed; None: it could not be read, its mark is known."""

    content: bytes | None
    mark: bytes
    by: str


@dataclass
class Ledger:
    """What was acknowledged, and what somebody who had seen it let go."""

    saved: list[Saved] = field(default_factory=list)
    let_go: set[int] = field(default_factory=set)
    """Versions that were written over or removed by who saw them."""

    def check(self, contents: dict[int, bytes], living: set[int], strict: bool) -> None:
        """`contents`: of each version; `living`: versions that names lead to."""
        for content, mark, by in self.saved:
            if content is not None and mark not in content:
                continue  # It was cut off again before the file was closed.
            versions = {
                version
                for version, found in contents.items()
                if (mark in found if content is None else found == content)
            }
            if not versions:
                raise Missing(f"No version has what {by} saved: {mark!r}.")
            if strict and content and not versions & (living | self.let_go):
                raise Missing(f"No name leads to what {by} saved, nobody let it go: {mark!r}.")


Do = Callable[["Client", int, int], None]
"""A kind of step, with two numbers that it understands as it likes."""


@dataclass(eq=False)
class Held:
    """A file that is open across steps."""

    handle: FileHandle
    mark: bytes = b""
    """The newest that was written by this handle."""


class Client:
    """One machine: its way to the store, and its programs' open files."""

    def __init__(self, team: Team, number: int) -> None:
        self.team = team
        self.name = "abcde"[number]
        self.plan = FaultPlan()
        self.gate = Gate()
        self.held: list[Held] = []
        self.offline = False
        self.waiting: list[tuple[int, Saved]] = []
        """Saves on a base that is not here, by inode: what this client does next is laid over them
        before anybody sees them."""
        self._marks = 0
        self.fs = self._opened()

    def _opened(self) -> Filespace:
        pace = STEERED_S if self.team.steered else 0.02
        store = GatedStore(MemoryStore(self.team.space.bucket, name="team"), self.gate)
        fs = open_on(
            FaultyStore(store, self.plan), self.team.space.state(self.name), read_timeout_s=5.0,
            poll_fast_s=pace, poll_idle_s=pace, fetch_workers=2, upload_workers=2,
        )  # fmt: skip
        if self.team.steered:
            if not self.offline:
                fs.sync(timeout=WAIT_S)
                assert fs.refresh(WAIT_S)
            self.gate.shut()
        self.knowing = Knowing(fs.tree)
        return fs

    @property
    def replica(self) -> Replica:
        return parts_of(self.fs).replica

    # -- what programs see

    def mark(self) -> bytes:
        """Bytes that nobody else writes."""
        self._marks += 1
        return b"<%s%d>" % (self.name.encode(), self._marks)

    def seen(self, path: str) -> int:
        """The version that a program sees at a path; 0 for what has none."""
        try:
            row = self.replica.inode(self.fs.resolve(path, follow=False))
        except NamespaceError:
            return 0
        return 0 if row is None else row.version

    def let_go(self, version: int) -> None:
        if version:
            self.team.ledger.let_go.add(version)

    def content(self, handle: FileHandle) -> bytes | None:
        """All bytes as this handle reads them; None where the store would be needed and is away."""
        parts, at = [], 0
        try:
            while part := bytes(self.fs.tree.read(handle, at, 1 << 20)):
                parts.append(part)
                at += len(part)
        except StoreError:
            assert self.offline or not self.team.steered
            return None
        return b"".join(parts)

    # -- files

    def open(self, path: str, flags: int) -> FileHandle:
        """As open(2) does, with O_CREAT. A file that is cut to nothing is let go."""
        parent, name = self.fs._above(path)
        try:
            ino = self.fs.tree.lookup(parent, name).ino
        except NamespaceError:
            return self.fs.tree.create(parent, name, 0o644, 0, 0, os.O_RDWR)[0]
        if flags & os.O_TRUNC:
            self.let_go_at(path)
        return self.fs.tree.open(ino, os.O_RDWR | flags)

    def write(self, held: Held, offset: int, fill: int) -> None:
        held.mark = self.mark()
        data = held.mark + bytes([65 + self._marks % 26]) * fill
        self.fs.tree.write(held.handle, offset, data)
        self._wrote(held)

    def cut(self, held: Held, size: int) -> None:
        self.fs.tree.set_attributes(held.handle.ino, size=size, handle=held.handle)
        self._wrote(held)

    def _wrote(self, held: Held) -> None:
        draft = parts_of(self.fs).table.get(held.handle.ino)
        if draft is not None:
            self.let_go(draft.base)
        self._lay_over(held.handle.ino)

    def _lay_over(self, ino: int) -> None:
        self.waiting = [one for one in self.waiting if one[0] != ino]

    def close(self, held: Held) -> None:
        """As close(2) does: from here on it is acknowledged, unless it was removed while open."""
        content = self.content(held.handle) if held.mark else None
        draft = parts_of(self.fs).table.get(held.handle.ino)
        gone = draft is None or draft.unlinked
        self.fs.tree.flush(held.handle)
        self.fs.tree.release(held.handle)
        saved = Saved(content, held.mark, self.name)
        if not held.mark or gone:
            return
        if parts_of(self.fs).table.get(held.handle.ino) is None:
            self.team.ledger.saved.append(saved)
        else:
            self.waiting.append((held.handle.ino, saved))

    def save(self, path: str, flags: int, offset: int, fill: int, cut: int | None = None) -> None:
        """Open, write, close."""
        held = Held(self.open(path, flags))
        try:
            self.write(held, offset, fill)
            if cut is not None:
                self.cut(held, cut)
        finally:
            self.close(held)

    def let_go_at(self, path: str) -> None:
        """What is at this path is about to be removed, replaced or cut."""
        self.let_go(self.seen(path))
        if self.fs.exists(path):
            self._lay_over(self.fs.stat(path, follow_symlinks=False).ino)

    # -- what machines and networks do

    def commit(self) -> None:
        """All that is pending goes into the log, where the store answers."""
        if not self.offline:
            self.gate.open()
            self.fs.sync(timeout=WAIT_S)

    def look(self) -> None:
        if not self.offline:
            self.gate.open()
            assert self.fs.refresh(WAIT_S)

    def rest(self) -> None:
        if self.team.steered:
            self.gate.shut()

    def cut_off(self, offline: bool) -> None:
        self.offline = offline
        (self.plan.die if offline else self.plan.revive)()

    def crash(self) -> None:
        """kill -9, and a new start."""
        self.team.space.plans[self.name] = self.plan
        self.plan.die()
        self.gate.stop()
        # The files are copied one by one: nobody may be in the middle of them.
        self.fs.tree._opened.committer.close()
        self.team.space.crash(self.fs, self.name)
        self._again()

    def restart(self) -> None:
        """Unmounted without waiting, and mounted again. Whatever is open is closed by that."""
        self.fs.close(wait=False)
        self._again()

    def _again(self) -> None:
        self.held.clear()
        self.plan, self.gate = FaultPlan(), Gate()
        if self.offline:
            self.plan.die()
        self.fs = self._opened()


class Team:
    """The clients, and the steps that they take."""

    def __init__(self, root: Path, clients: int, steered: bool) -> None:
        self.steered = steered
        self.space = Space(root)
        self.ledger = Ledger()
        self.done: dict[str, int] = {}
        """How often each kind of step came to something."""
        self.clients: list[Client] = []
        for number in range(clients):
            self.clients.append(Client(self, number))
        self._begin()

    def _begin(self) -> None:
        """Something is there that all have seen."""
        first = self.clients[0]
        for directory in DIRECTORIES[1:]:
            first.fs.mkdir(directory)
        for path in ("/a", "/b.txt", "/d/a", "/d/e/c"):
            first.save(path, os.O_TRUNC, 0, FILL[-1])
        first.commit()
        for client in self.clients:
            client.look()
            client.rest()

    def take(self, name: str, do: Do, who: int, one: int, other: int) -> None:
        """One step; what a file system refuses, and a store that is away, is no fault."""
        client = self.clients[who % len(self.clients)]
        try:
            do(client, one, other)
            client.knowing.look()
        except (NamespaceError, UsageError):
            return
        except StoreError:
            assert client.offline or not self.steered
            return
        self.done[name] = self.done.get(name, 0) + 1

    def quiet(self) -> None:
        """All are online, have closed their files, and have all that the others have."""
        for client in self.clients:
            client.cut_off(False)
            client.gate.open()
            for held in client.held:
                client.close(held)
            client.held.clear()
            self.ledger.saved += [saved for _, saved in client.waiting]
        for _ in range(QUIET_ROUNDS):
            for client in self.clients:
                client.commit()
            for client in self.clients:
                client.look()

    def check(self) -> None:
        """REQUIRES: quiet. Raises Parted or Missing."""
        for client in self.clients:
            client.knowing.look()
        first, *others = self.clients
        rows, digest = replica_rows(first.replica), hash_of(first.replica)
        for client in self.clients:
            status = client.fs.status()
            found = (status.problem, status.void_entries, status.failed)
            if found != ("", 0, ()):
                raise Parted(f"{client.name} is not well: {found}")
        for client in others:
            if replica_rows(client.replica) != rows:
                raise Parted(_difference(rows, replica_rows(client.replica), client.name))
            if hash_of(client.replica) != digest:
                raise Parted(f"{client.name} has another state hash.")
        contents, living = self._versions(first)
        shown = list(_shown(first.fs))
        for client in others:
            its = list(_shown(client.fs))
            if its != shown:
                raise Parted(_difference(shown, its, client.name))
        self.ledger.check(contents, living, self.steered)
        report = check("memory://team", PASSPHRASE, store=MemoryStore(self.space.bucket),
                       read_data=True)  # fmt: skip
        if not report.clean or report.problems:
            raise Parted(f"fsck: {report.problems}")

    def _versions(self, client: Client) -> tuple[dict[int, bytes], set[int]]:
        """The content of each version of each file, and the versions that names lead to."""
        parts = parts_of(client.fs)
        contents: dict[int, bytes] = {}
        living: set[int] = set()
        for row in (fields for fields in replica_rows(client.replica) if fields[0] == INODE):
            ino = row[1]
            inode = parts.inode(ino)
            if not stat.S_ISREG(inode.mode):
                continue
            if inode.nlink:
                living.add(inode.version)
            for version in client.replica.versions(ino):
                blocks = parts.file_maps.at(ino, version.id)[1]
                contents[version.id] = b"".join(_read(parts, blocks, version.size))
        return contents, living

    def close(self) -> None:
        for client in self.clients:
            client.plan.stop()
            client.gate.stop()
            client.fs.close(wait=False)
        self.space.close()


INODE = 8
"""The rows of inodes have this number in a checkpoint (FORMAT.md)."""


def _read(parts, blocks, size: int) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    for at in range(0, size, BLOCK):
        yield bytes(parts.reader.read(blocks, at, min(BLOCK, size - at)))


def _shown(fs: Filespace, path: str = "/") -> Iterator[tuple[str, object]]:
    """Every name, with its attributes and what it holds."""
    for name in fs.listdir(path):
        inner = f"{path.rstrip('/')}/{name}"
        found = fs.stat(inner, follow_symlinks=False)
        xattrs = {key: fs.tree.get_xattr(found.ino, key) for key in fs.tree.list_xattrs(found.ino)}
        if stat.S_ISDIR(found.mode):
            # Its times are in the rows. What came and went unpublished moves them here only (S-16).
            yield inner, (found._replace(mtime_ns=0, ctime_ns=0), xattrs)
            yield from _shown(fs, inner)
        else:
            data = fs.readlink(inner) if stat.S_ISLNK(found.mode) else fs.read_bytes(inner)
            yield inner, (found, xattrs, data)


def _difference(rows: Sequence[object], others: Sequence[object], name: str) -> str:
    mine, its = set(map(repr, rows)), set(map(repr, others))
    return f"{name} lacks {sorted(mine - its)[:3]} and has {sorted(its - mine)[:3]} instead."


def names(fs: Filespace, path: str = "/") -> Iterator[tuple[str, bool]]:
    """Every path, and whether it is a directory."""
    for name in fs.listdir(path):
        inner = f"{path.rstrip('/')}/{name}"
        is_directory = stat.S_ISDIR(fs.stat(inner, follow_symlinks=False).mode)
        yield inner, is_directory
        if is_directory:
            yield from names(fs, inner)
