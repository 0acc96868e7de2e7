"""The ops of the rules that are known, one NamedTuple a kind (FORMAT section 8), and their bytes.

`encode_op` and `decode_op` are pure; both refuse what no op can hold. What an op does to a state
is not known here. Any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.format.change import DATA, HOLE, LOST, Change, SegmentRow
from lucid.format.moves import Move

__all__ = [
    "DATA",
    "HOLE",
    "KIND_CLONE",
    "KIND_CONTENT",
    "KIND_CREATE",
    "KIND_DROP",
    "KIND_FLOOR",
    "KIND_GENESIS",
    "KIND_GIVE",
    "KIND_LINK",
    "KIND_MKDIR",
    "KIND_MKNOD",
    "KIND_RENAME",
    "KIND_REPACK",
    "KIND_RMDIR",
    "KIND_RULES",
    "KIND_SESSION",
    "KIND_SETATTR",
    "KIND_SETXATTR",
    "KIND_STAGE",
    "KIND_SYMLINK",
    "KIND_TAKE",
    "KIND_TAKEOVER",
    "KIND_UNLINK",
    "LEASE_EXCLUSIVE",
    "LEASE_NONE",
    "LEASE_SHARED",
    "LOST",
    "ROLE_ADMIN",
    "ROLE_READER",
    "ROLE_WRITER",
    "ROOT_INO",
    "RULES",
    "RULES_FIRST",
    "Change",
    "Clone",
    "Content",
    "Create",
    "Drop",
    "Floor",
    "Genesis",
    "GenesisGeneration",
    "GenesisMember",
    "GenesisRoot",
    "Give",
    "Link",
    "Mkdir",
    "Mknod",
    "Move",
    "Op",
    "Rename",
    "Repack",
    "Rmdir",
    "Rules",
    "SegmentRow",
    "SessionOp",
    "Setattr",
    "Setxattr",
    "Stage",
    "Symlink",
    "Take",
    "Takeover",
    "UnknownOp",
    "Unlink",
    "changes_of",
    "counter_of",
    "make_op_id",
    "rules_of",
    "segments_of",
    "session_of",
]

RULES_FIRST = 1
RULES = 4
"""The newest fold rules that are known here; all from RULES_FIRST on are."""

# Kinds of an op. Stored for ever: do not renumber.
KIND_GENESIS = 1
KIND_SESSION = 2
KIND_CREATE = 3
KIND_MKDIR = 4
KIND_SYMLINK = 5
KIND_MKNOD = 6
KIND_CONTENT = 7
KIND_STAGE = 8
KIND_DROP = 9
KIND_LINK = 10
KIND_UNLINK = 11
KIND_RMDIR = 12
KIND_RENAME = 13
KIND_SETATTR = 14
KIND_SETXATTR = 15
KIND_RULES = 32
KIND_FLOOR = 36
KIND_TAKE = 37
KIND_GIVE = 38
KIND_TAKEOVER = 39
KIND_CLONE = 41
KIND_REPACK = 42

# Modes of a lease. Stored for ever: do not renumber.
LEASE_NONE = 0
LEASE_SHARED = 1
LEASE_EXCLUSIVE = 2

# Roles of a member. Stored for ever: do not renumber.
ROLE_READER = 1
ROLE_WRITER = 2
ROLE_ADMIN = 3

ROOT_INO = 1
"""Genesis has id 1, and that is the root's inode number."""

Xattrs = tuple[tuple[bytes, bytes], ...]
"""(name, value) pairs, ascending by name."""


class GenesisMember(NamedTuple):
    """The founder: the first member, an admin."""

    member: bytes
    label: bytes
    sign_key: bytes
    box_key: bytes
    role: int


class GenesisGeneration(NamedTuple):
    """The first generation: its id, and the hash of its key."""

    id: bytes
    key_hash: bytes


class GenesisRoot(NamedTuple):
    """The root directory. `mode` holds the type bits."""

    mode: int
    uid: int
    gid: int


class Genesis(NamedTuple):
    """Entry 1: binds the superblock and sets the rules. `op_id` is 1."""

    op_id: int
    time_ns: int
    superblock_hash: bytes
    rules: int
    name: bytes
    founder: GenesisMember
    generation: GenesisGeneration
    root: GenesisRoot


class SessionOp(NamedTuple):
    """Asks for a session number; alone in an entry of session 0. `op_id` is 0."""

    op_id: int
    time_ns: int
    token: bytes
    label: bytes


class Create(NamedTuple):
    """A regular file with its first content, under a name. `mode` holds the type bits."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    xattrs: Xattrs
    size: int
    changes: tuple[Change, ...]


class Mkdir(NamedTuple):
    """A directory. `mode` holds the type bits."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    mode: int
    uid: int
    gid: int
    xattrs: Xattrs


class Symlink(NamedTuple):
    """A symbolic link."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    target: bytes
    uid: int
    gid: int


class Mknod(NamedTuple):
    """A FIFO, socket or device node; `mode` holds the type bits."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    mode: int
    rdev: int
    uid: int
    gid: int


class Content(NamedTuple):
    """A new version of a file: the `base` version cut to `keep` bytes, `changes` over it, `size`.

    `parent` and `name` are what the file was opened by; 0 and empty if unknown.
    """

    op_id: int
    time_ns: int
    ino: int
    base: int
    parent: int
    name: bytes
    keep: int
    size: int
    mtime_ns: int
    ctime_ns: int
    changes: tuple[Change, ...]


class Stage(NamedTuple):
    """Changes that the op `target` of the same session will bring; invisible until then."""

    op_id: int
    time_ns: int
    target: int
    changes: tuple[Change, ...]


class Drop(NamedTuple):
    """Forgets what was staged for `target`."""

    op_id: int
    time_ns: int
    target: int


class Link(NamedTuple):
    """One more name for `ino`."""

    op_id: int
    time_ns: int
    ino: int
    parent: int
    name: bytes


class Unlink(NamedTuple):
    """Removes a name, seen to lead to `seen_ino` at version `seen_version`."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    seen_ino: int
    seen_version: int


class Rmdir(NamedTuple):
    """Removes an empty directory, seen to be `seen_ino`."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    seen_ino: int


class Rename(NamedTuple):
    """Moves the name of `ino`; `seen_*` is what was seen under the new name, or 0."""

    op_id: int
    time_ns: int
    parent: int
    name: bytes
    ino: int
    new_parent: int
    new_name: bytes
    seen_ino: int
    seen_version: int


class Setattr(NamedTuple):
    """Attributes; None leaves one as it is. The inode's ctime becomes `time_ns`."""

    op_id: int
    time_ns: int
    ino: int
    mode: int | None
    uid: int | None
    gid: int | None
    atime_ns: int | None
    mtime_ns: int | None


class Setxattr(NamedTuple):
    """Sets an extended attribute, or removes it where `value` is None."""

    op_id: int
    time_ns: int
    ino: int
    name: bytes
    value: bytes | None


class Rules(NamedTuple):
    """Fold rules `number` hold from the next entry on. Alone in its entry; an admin's."""

    op_id: int
    time_ns: int
    number: int


class Floor(NamedTuple):
    """What was dead before entry `sequence` is gone. An admin's; of rules 2."""

    op_id: int
    time_ns: int
    sequence: int


class Clone(NamedTuple):
    """Content of `version` becomes the newest of `ino`, or a new file where that is 0. Of rules 2.

    `source` is the inode that the version was seen to be of; the version's id is enough to find it.
    `base`, `parent` and `name` are as in Content, or the place of the new file.
    """

    op_id: int
    time_ns: int
    source: int
    version: int
    ino: int
    base: int
    parent: int
    name: bytes
    mtime_ns: int


class Repack(NamedTuple):
    """Blocks lie in other segments now, which no file notices. An admin's; of rules 3."""

    op_id: int
    time_ns: int
    moves: tuple[Move, ...]


class Take(NamedTuple):
    """The author's session wants the lease of an inode, in a mode: LEASE_SHARED or LEASE_EXCLUSIVE;
    of one that it has, that its device is still there. Of rules 4."""

    op_id: int
    time_ns: int
    ino: int
    mode: int


class Give(NamedTuple):
    """The author's session wants no lease of an inode any more, or, in LEASE_SHARED, no more than
    that. Of rules 4."""

    op_id: int
    time_ns: int
    ino: int
    mode: int


class Takeover(NamedTuple):
    """Another session's leases and wishes of an inode end: its author has waited for it in vain.
    `sequence`: that session's newest entry, as the author knew it. Of rules 4."""

    op_id: int
    time_ns: int
    ino: int
    session: int
    sequence: int


class UnknownOp(NamedTuple):
    """An op of a kind that is not known here. Nothing of it was checked but the kind."""

    kind: int


Op = (
    Genesis
    | SessionOp
    | Create
    | Mkdir
    | Symlink
    | Mknod
    | Content
    | Stage
    | Drop
    | Link
    | Unlink
    | Rmdir
    | Rename
    | Setattr
    | Setxattr
    | Rules
    | Floor
    | Clone
    | Repack
    | Take
    | Give
    | Takeover
    | UnknownOp
)


def make_op_id(session: int, counter: int) -> int:
    """The id of the op that takes `counter` in `session`."""
    return session << 32 | counter


def session_of(op_id: int) -> int:
    """The session that made this op, inode, version or dentry."""
    return op_id >> 32


def counter_of(op_id: int) -> int:
    """Its number in that session, from 1."""
    return op_id & 0xFFFFFFFF


def rules_of(op: Op) -> int:
    """The first rules that know this kind of op."""
    if isinstance(op, (Take, Give, Takeover)):
        return 4
    if isinstance(op, Repack):
        return 3
    return 2 if isinstance(op, (Clone, Floor)) else RULES_FIRST


def changes_of(op: Op) -> tuple[Change, ...]:
    """The op's changes; empty for a kind that has none."""
    if isinstance(op, (Create, Content, Stage)):
        return op.changes
    return ()


def segments_of(op: Op) -> tuple[bytes, ...]:
    """Ids of the segments that the op brings rows of, each once, in order."""
    if isinstance(op, Repack):
        return tuple(dict.fromkeys(move.segment for move in op.moves))
    changes = changes_of(op)
    if not changes:
        return ()
    return tuple(dict.fromkeys(change.segment for change in changes if change.segment))
