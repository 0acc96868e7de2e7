"""Authors who write ops about one log, and a store of plain blocks to read their files back from.

`Blocks` keeps what a sealed segment would: reading checks that each extent names the block it means
by ordinal, offset and length, so that wrong cutting is found as well as wrong bytes. `Author` makes
ops with fresh ids; what it has seen it takes from the state that it is given.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from lucid.format.change import COMPRESSED, DATA, HOLE, LOST, Change
from lucid.format.ops import (
    ROOT_INO,
    Clone,
    Content,
    Create,
    Genesis,
    GenesisGeneration,
    GenesisMember,
    GenesisRoot,
    Give,
    Link,
    Mkdir,
    Mknod,
    Op,
    Rename,
    Rmdir,
    Setattr,
    Setxattr,
    Symlink,
    Take,
    Takeover,
    Unlink,
)
from lucid.format.runs import Geometry
from lucid.meta import fold as folding
from lucid.meta.fold import Effect, fold
from lucid.meta.memory import MemoryState
from lucid.meta.state import Extent

GEOMETRY = Geometry(block_size=16, tag=4)
"""Small blocks, so that a few bytes are a file of many."""
FOUNDER = b"m" * 16
EPOCH_NS = 1_795_342_500_000_000_000
"""2026-11-22 10.15.00 UTC."""


class LostBlock(Exception):
    """Reading met a block that nobody holds."""


@dataclass
class Blocks:
    """Segments as lists of plain blocks."""

    segments: dict[bytes, list[tuple[int, bytes]]] = field(default_factory=dict)
    """id -> (offset, plaintext) of each block."""

    def put(self, first: int, blocks: Sequence[bytes], compressed: bool = False) -> Change:
        """One data change of these blocks in a segment of their own, after one foreign block."""
        offset, placed, lengths = 7, [(0, b"foreign")], []
        for block in blocks:
            stored = GEOMETRY.tag + (len(block) + 1) // 2 if compressed else len(block) + 4
            placed.append((offset, block))
            lengths.append(stored)
            offset += stored
        segment = b"%032d" % len(self.segments)
        self.segments[segment] = placed
        full = all(len(block) == GEOMETRY.block_size for block in blocks[:-1])
        last = len(blocks[-1])
        return Change(
            first, len(blocks), DATA, segment, 1, 7, COMPRESSED if compressed else 0, last, last,
            None if full and not compressed else tuple(lengths),
        )  # fmt: skip

    def block(self, extent: Extent, index: int) -> bytes:
        """The bytes that count of one block of an extent."""
        if extent.kind == LOST:
            raise LostBlock
        offset, plain = self.segments[extent.segment][extent.ordinal + index]
        if extent.lengths is None:
            assert offset == extent.offset + index * GEOMETRY.stored_block
        else:
            assert len(extent.lengths) == extent.count
            assert offset == extent.offset + sum(extent.lengths[:index])
        if index == extent.count - 1:
            assert len(plain) == extent.last_len
            assert 0 < extent.last_valid <= extent.last_len
            return plain[: extent.last_valid]
        if extent.lengths is None or extent.flags:
            assert len(plain) == GEOMETRY.block_size
        else:
            assert len(plain) == extent.lengths[index] - GEOMETRY.tag
        return plain

    def read(self, state: MemoryState, ino: int, version: int = 0) -> bytes:
        """The whole newest content of a file, or that of an older version."""
        row = state.version(version) if version else state.inode(ino)
        assert row is not None
        limit = -(-row.size // GEOMETRY.block_size)
        extents = state.extents_at(ino, version) if version else state.extents(ino, 0, limit)
        content = bytearray(row.size)
        for extent in extents:
            for index in range(extent.count):
                plain = self.block(extent, index)
                start = (extent.first + index) * GEOMETRY.block_size
                content[start : start + len(plain)] = plain
        assert len(content) == row.size
        return bytes(content)


def changes_of(
    blocks: Blocks, content: bytes, dirty: set[int], trim: bool = False, compressed: bool = False
) -> tuple[Change, ...]:
    """Changes that make the `dirty` blocks of a file those of `content`. With `trim`, zeros at the
    end of a block are not stored: such a run has lengths."""
    size = GEOMETRY.block_size
    changes: list[Change] = []
    runs: list[tuple[int, list[bytes]]] = []
    for index in sorted(number for number in dirty if number * size < len(content)):
        plain = content[index * size : (index + 1) * size]
        if not plain.strip(b"\0"):
            changes.append(Change(index, 1, HOLE))
            continue
        if trim and not compressed:
            plain = plain.rstrip(b"\0")
        if runs and runs[-1][0] + len(runs[-1][1]) == index:
            runs[-1][1].append(plain)
        else:
            runs.append((index, [plain]))
    changes += [blocks.put(first, run, compressed) for first, run in runs]
    return tuple(sorted(changes, key=lambda change: change.first))


def genesis(rules: int = 1) -> Genesis:
    return Genesis(
        1, EPOCH_NS, b"h" * 32, rules, b"team",
        GenesisMember(FOUNDER, b"ann", b"k" * 32, b"b" * 32, 3),
        GenesisGeneration(b"g" * 16, b"k" * 32), GenesisRoot(stat.S_IFDIR | 0o755, 0, 0),
    )  # fmt: skip


def empty_state(rules: int = 1) -> MemoryState:
    """A filespace that was just founded."""
    state = MemoryState(GEOMETRY)
    fold(state, genesis(rules), folding.Author(0, FOUNDER, b"ann", b""))
    return state


def look(state: MemoryState, parent: int, name: bytes) -> tuple[int, int]:
    """(inode, version) that a name leads to; (0, 0) for none."""
    dentry = state.dentry(parent, name)
    if dentry is None:
        return 0, 0
    row = state.inode(dentry.ino)
    assert row is not None
    return row.ino, row.version


class Author:
    """Makes the ops of one session. Times go up by a second, so that conflict names differ."""

    def __init__(self, session: int, label: bytes, blocks: Blocks) -> None:
        self.who = folding.Author(session, FOUNDER, label, b"desk")
        self.blocks = blocks
        self.counter = 0
        self.time_ns = EPOCH_NS

    def fold(self, state: MemoryState, op: Op) -> Effect:
        """Folds one op of this author as the next of the log."""
        state.stamp += 1
        return fold(state, op, self.who)

    def head(self) -> tuple[int, int]:
        """(op id, time) of the next op."""
        self.counter += 1
        self.time_ns += 1_000_000_000
        return self.who.session << 32 | self.counter, self.time_ns

    def create(self, parent: int, name: bytes, content: bytes = b"") -> Create:
        dirty = set(range(-(-len(content) // GEOMETRY.block_size)))
        changes = changes_of(self.blocks, content, dirty)
        ids = self.head()
        return Create(
            *ids, parent, name, stat.S_IFREG | 0o644, 1000, 1000, ids[1], ids[1], (),
            len(content), changes,
        )  # fmt: skip

    def mkdir(self, parent: int, name: bytes) -> Mkdir:
        return Mkdir(*self.head(), parent, name, stat.S_IFDIR | 0o755, 1000, 1000, ())

    def symlink(self, parent: int, name: bytes, target: bytes = b"target") -> Symlink:
        return Symlink(*self.head(), parent, name, target, 1000, 1000)

    def mknod(self, parent: int, name: bytes) -> Mknod:
        return Mknod(*self.head(), parent, name, stat.S_IFIFO | 0o600, 0, 1000, 1000)

    def link(self, ino: int, parent: int, name: bytes) -> Link:
        return Link(*self.head(), ino, parent, name)

    def content(
        self, state: MemoryState, parent: int, name: bytes, content: bytes, keep: int = 0
    ) -> Content:
        """Whole new content for the file that `name` leads to in `state`."""
        ino, version = look(state, parent, name)
        return self.content_on(ino, version, parent, name, content, keep)

    def content_on(
        self, ino: int, base: int, parent: int, name: bytes, content: bytes, keep: int = 0
    ) -> Content:
        """Content on a known base, of which `keep` bytes (whole blocks) stay as they are."""
        first = keep // GEOMETRY.block_size
        dirty = set(range(first, -(-len(content) // GEOMETRY.block_size)))
        changes = changes_of(self.blocks, content, dirty)
        ids = self.head()
        return Content(*ids, ino, base, parent, name, keep, len(content), ids[1], ids[1], changes)

    def unlink(self, state: MemoryState, parent: int, name: bytes) -> Unlink:
        return Unlink(*self.head(), parent, name, *look(state, parent, name))

    def rmdir(self, state: MemoryState, parent: int, name: bytes) -> Rmdir:
        return Rmdir(*self.head(), parent, name, look(state, parent, name)[0])

    def rename(
        self, state: MemoryState, parent: int, name: bytes, new_parent: int, new_name: bytes
    ) -> Rename:
        ino = look(state, parent, name)[0]
        return Rename(
            *self.head(), parent, name, ino, new_parent, new_name,
            *look(state, new_parent, new_name),
        )  # fmt: skip

    def setattr(self, ino: int, **new: int) -> Setattr:
        keys = ("mode", "uid", "gid", "atime_ns", "mtime_ns")
        return Setattr(*self.head(), ino, *(new.get(key) for key in keys))

    def clone(
        self, source: int, version: int, ino: int, base: int, parent: int, name: bytes
    ) -> Clone:
        """`version` of `source` becomes content of `ino` on `base`, or a new file."""
        ids = self.head()
        return Clone(*ids, source, version, ino, base, parent, name, ids[1])

    def setxattr(self, ino: int, name: bytes, value: bytes | None) -> Setxattr:
        return Setxattr(*self.head(), ino, name, value)

    def take(self, ino: int, mode: int) -> Take:
        return Take(*self.head(), ino, mode)

    def give(self, ino: int, mode: int) -> Give:
        return Give(*self.head(), ino, mode)

    def takeover(self, ino: int, session: int, sequence: int) -> Takeover:
        return Takeover(*self.head(), ino, session, sequence)


def listing(state: MemoryState, ino: int = ROOT_INO) -> list[bytes]:
    """The names in a directory, sorted."""
    return sorted(row.name for row in state.children(ino))


def tree(
    state: MemoryState, blocks: Blocks, ino: int = ROOT_INO, path: str = ""
) -> dict[str, bytes]:
    """path -> content for all below a directory: b"/" for a directory."""
    found: dict[str, bytes] = {}
    for dentry in state.children(ino):
        row = state.inode(dentry.ino)
        assert row is not None
        below = f"{path}{dentry.name.decode()}"
        if stat.S_ISDIR(row.mode):
            found[below] = b"/"
            found.update(tree(state, blocks, row.ino, below + "/"))
        elif stat.S_ISREG(row.mode):
            found[below] = blocks.read(state, row.ino)
        else:
            found[below] = row.target
    return found
