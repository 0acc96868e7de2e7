"""Machines that write in one filespace, each with its own view: the protocol without its bytes.

A `Writer` sees the log up to where it last looked, with its own pending ops on top, and makes ops
that are right in that view. Committing looks at the whole log first and then appends, as a
create-if-absent does. Everything is chosen by integers, so that hypothesis can shrink it.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from lucid.format.ops import (
    LEASE_EXCLUSIVE,
    LEASE_NONE,
    LEASE_SHARED,
    ROOT_INO,
    Content,
    Op,
    SessionOp,
)
from lucid.meta.memory import MemoryState
from lucid.meta.state import DentryRow, InodeRow, VersionRow
from tests.meta.authors import EPOCH_NS, GEOMETRY, Author, Blocks, changes_of, empty_state

NAMES = (b"a", b"b.txt", b".c")
LABELS = (b"ann", b"bea", b"cem")


def found_sessions(state: MemoryState) -> None:
    """Each author's session is in the state: else nobody's leases could be taken over."""
    nobody = Author(0, b"", Blocks())
    for number in range(len(LABELS)):
        nobody.fold(state, SessionOp(0, EPOCH_NS, bytes([number]) * 16, b"desk"))


class Opened(NamedTuple):
    """A file as somebody holds it open: what it was when it was opened."""

    ino: int
    version: int
    parent: int
    name: bytes
    content: bytes


class Log:
    """The log of all, the blocks that its ops name, and what each version is to hold."""

    def __init__(self, rules: int = 1) -> None:
        self.rules = rules
        self.blocks = Blocks()
        self.ops: list[tuple[Author, Op]] = []
        self.wanted: dict[int, bytes] = {}

    def state(self, end: int | None = None) -> MemoryState:
        """The state after the first `end` ops."""
        state = empty_state(self.rules)
        if self.rules > 3:
            found_sessions(state)
        for author, op in self.ops[:end]:
            author.fold(state, op)
        return state


class Writer:
    """One machine. `steps` of it are (action, first choice, second choice)."""

    def __init__(self, log: Log, session: int) -> None:
        self.log = log
        self.author = Author(session, LABELS[session - 1], log.blocks)
        self.pending: list[Op] = []
        self.opened: Opened | None = None
        self.view = log.state()

    def look(self) -> None:
        """Takes over the whole log, with what is pending folded over it."""
        self.view = self.log.state()
        for op in self.pending:
            self.author.fold(self.view, op)

    def commit(self, count: int) -> None:
        """Appends the first pending ops to the log."""
        for op in self.pending[:count]:
            self.log.ops.append((self.author, op))
        del self.pending[:count]
        self.look()

    def step(self, action: int, one: int, two: int) -> None:
        """One thing that a program or the machine does, if it can be done now."""
        actions = (
            self._create, self._mkdir, self._write, self._write, self._unlink, self._rmdir,
            self._rename, self._rename, self._link, self._symlink, self._attributes,
            self._open, self._save, self._save_by_rename,
        )  # fmt: skip
        if self.log.rules > 1:
            actions = (*actions, self._restore, self._restore_beside, self._undelete)
        if self.log.rules > 3:
            actions = (*actions, self._take, self._take, self._give, self._take_over)
        actions[action % len(actions)](one, two)

    def do(self, op: Op, wanted: bytes | None = None) -> None:
        self.pending.append(op)
        effect = self.author.fold(self.view, op)
        if wanted is not None:
            row = self.view.inode(effect.landed_ino)
            assert row is not None and row.version == op[0]
            assert self.log.blocks.read(self.view, row.ino) == wanted
            self.log.wanted[row.version] = wanted

    def _names(self) -> list[tuple[DentryRow, InodeRow]]:
        """Every name in the view that can be reached."""
        found = []
        directories = [ROOT_INO]
        for directory in directories:
            for dentry in self.view.children(directory):
                row = self.view.inode(dentry.ino)
                assert row is not None
                found.append((dentry, row))
                if stat.S_ISDIR(row.mode):
                    directories.append(row.ino)
        return found

    def _directory(self, choice: int) -> int:
        rows = [row.ino for _, row in self._names() if stat.S_ISDIR(row.mode)]
        return [ROOT_INO, *rows][choice % (len(rows) + 1)]

    def _free(self, one: int, two: int) -> tuple[int, bytes] | None:
        parent, name = self._directory(one), NAMES[two % len(NAMES)]
        return None if self.view.dentry(parent, name) else (parent, name)

    def _pick(self, choice: int, kind: int | None = None) -> tuple[DentryRow, InodeRow] | None:
        names = [
            (dentry, row)
            for dentry, row in self._names()
            if kind is None or stat.S_IFMT(row.mode) == kind
        ]
        return names[choice % len(names)] if names else None

    def _create(self, one: int, two: int) -> None:
        place = self._free(one, two)
        if place is not None:
            content = text(one, two, (one * 7 + two) % 70)
            self.do(self.author.create(*place, content), content)

    def _mkdir(self, one: int, two: int) -> None:
        place = self._free(one, two)
        if place is not None:
            self.do(self.author.mkdir(*place))

    def _symlink(self, one: int, two: int) -> None:
        place = self._free(one, two)
        if place is not None:
            self.do(self.author.symlink(*place))

    def _link(self, one: int, two: int) -> None:
        place, picked = self._free(one, two), self._pick(one, stat.S_IFREG)
        if place is not None and picked is not None:
            self.do(self.author.link(picked[1].ino, *place))

    def _unlink(self, one: int, two: int) -> None:
        picked = self._pick(one, stat.S_IFREG)
        if picked is not None:
            self.do(self.author.unlink(self.view, picked[0].parent, picked[0].name))

    def _rmdir(self, one: int, two: int) -> None:
        picked = self._pick(one, stat.S_IFDIR)
        if picked is not None and not self.view.has_children(picked[1].ino):
            self.do(self.author.rmdir(self.view, picked[0].parent, picked[0].name))

    def _rename(self, one: int, two: int) -> None:
        picked = self._pick(one)
        if picked is not None:
            source = picked[0]
            target = (self._directory(two), NAMES[(one + two) % len(NAMES)])
            self.do(self.author.rename(self.view, source.parent, source.name, *target))

    def _attributes(self, one: int, two: int) -> None:
        picked = self._pick(one)
        if picked is not None and two % 2:
            self.do(self.author.setattr(picked[1].ino, mode=0o600 + two % 64, mtime_ns=two))
        elif picked is not None:
            self.do(self.author.setxattr(picked[1].ino, b"user.%d" % (two % 3), b"%d" % two))

    def _open(self, one: int, two: int) -> None:
        picked = self._pick(one, stat.S_IFREG)
        if picked is not None:
            dentry, row = picked
            content = self.log.blocks.read(self.view, row.ino)
            self.opened = Opened(row.ino, row.version, dentry.parent, dentry.name, content)

    def _write(self, one: int, two: int) -> None:
        self._open(one, two)
        self._save(two, one)

    def _save(self, one: int, two: int) -> None:
        """Writes what was opened earlier, maybe before others wrote it, and keeps it open."""
        if self.opened is None:
            return
        opened = self.opened
        content, keep, dirty = edit(opened.content, one, two)
        changes = changes_of(self.log.blocks, content, dirty, trim=bool(two % 2))
        ids = self.author.head()
        self.do(
            Content(
                *ids, opened.ino, opened.version, opened.parent, opened.name, keep,
                len(content), ids[1], ids[1], changes,
            ),
            content,
        )  # fmt: skip
        written = self.view.version(ids[0])
        assert written is not None
        self.opened = opened._replace(ino=written.ino, version=ids[0], content=content)

    def _version(self, choice: int) -> VersionRow | None:
        rows = [VersionRow(*row) for row in self.view.dump()["version"]]
        return rows[choice % len(rows)] if rows else None

    def _restore(self, one: int, two: int) -> None:
        """Any version that is known becomes the newest of some file."""
        picked, source = self._pick(one, stat.S_IFREG), self._version(two)
        if picked is not None and source is not None:
            dentry, row = picked
            op = self.author.clone(
                source.ino, source.id, row.ino, row.version, dentry.parent, dentry.name
            )
            self.do(op, self.log.blocks.read(self.view, source.ino, source.id))

    def _restore_beside(self, one: int, two: int) -> None:
        place, source = self._free(one, two), self._version(two)
        if place is not None and source is not None:
            op = self.author.clone(source.ino, source.id, 0, 0, *place)
            self.do(op, self.log.blocks.read(self.view, source.ino, source.id))

    def _undelete(self, one: int, two: int) -> None:
        gone = [row for row in map(self.view.inode, self.view.nameless()) if row and row.version]
        if gone:
            row = gone[one % len(gone)]
            self.do(self.author.link(row.ino, row.last_parent, row.last_name))
            now = self.view.inode(row.ino)
            assert now is not None and now.nlink == 1 and self.view.removed(row.ino) is None

    def _take(self, one: int, two: int) -> None:
        picked = self._pick(one)
        if picked is not None:
            mode = LEASE_EXCLUSIVE if two % 3 else LEASE_SHARED
            self.do(self.author.take(picked[1].ino, mode))

    def _give(self, one: int, two: int) -> None:
        picked = self._pick(one)
        if picked is not None:
            mode = LEASE_SHARED if two % 3 == 0 else LEASE_NONE
            self.do(self.author.give(picked[1].ino, mode))

    def _take_over(self, one: int, two: int) -> None:
        """From anybody; the log of a writer has no entries that would say that it is there."""
        picked = self._pick(one)
        if picked is not None:
            self.do(self.author.takeover(picked[1].ino, 1 + two % 3, 1))

    def _save_by_rename(self, one: int, two: int) -> None:
        """A new file, renamed over one that is there: how editors save."""
        picked = self._pick(one, stat.S_IFREG)
        if picked is None or self.view.dentry(picked[0].parent, b"tmp~"):
            return
        parent, name = picked[0].parent, picked[0].name
        content = text(two, one, two % 50)
        self.do(self.author.create(parent, b"tmp~", content), content)
        self.do(self.author.rename(self.view, parent, b"tmp~", parent, name))


def text(one: int, two: int, size: int) -> bytes:
    """Some bytes that another choice does not give; with zeros in them."""
    seed = one * 31 + two * 17
    return bytes((seed + at * (1 + one % 5)) % 251 * (at % 23 > 3) for at in range(size))


def edit(content: bytes, one: int, two: int) -> tuple[bytes, int, set[int]]:
    """(new content, bytes kept of the old, dirty blocks) after a truncate and two writes."""
    size = GEOMETRY.block_size
    new = bytearray(content)
    keep = len(content)
    dirty: set[int] = set()
    if one % 3 == 0:
        end = two % (len(content) + 20)
        keep = min(keep, end)
        new = new[:end].ljust(end, b"\0")
    for at, length in ((one % 90, two % 40), (two % 50, one % 5)):
        if length:
            new[len(new) :] = bytes(max(0, at + length - len(new)))
            new[at : at + length] = text(one, two, length)
            dirty.update(range(at // size, (at + length - 1) // size + 1))
    return bytes(new), keep, dirty
