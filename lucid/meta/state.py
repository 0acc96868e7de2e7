"""What the fold reads and writes: the rows of a state, and the protocol of who keeps them.

Two keepers exist: `memory.MemoryState` (plain dictionaries: the model in tests) and
`replica.Replica` (SQLCipher tables). The fold is written against the protocol only and is the same
code for committed entries and for own pending ops.

Rows are values: a keeper never changes a row it was given, and a caller replaces rows whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from lucid.format.change import Change, SegmentRow
from lucid.format.runs import Geometry

__all__ = [
    "ROOT_INO",
    "STAMP_SHIFT",
    "DentryRow",
    "Extent",
    "GenerationRow",
    "InodeRow",
    "LeaseRow",
    "MemberRow",
    "RemovedRow",
    "SessionRow",
    "State",
    "VersionRow",
    "directory_times",
]

ROOT_INO = 1
STAMP_SHIFT = 14
"""A committed stamp is sequence << STAMP_SHIFT | index in the entry."""


class InodeRow(NamedTuple):
    """One inode. Without names (nlink 0) it stays: versions, and late ops, may need it."""

    ino: int
    mode: int  # type and permission bits
    uid: int
    gid: int
    rdev: int
    nlink: int  # names of a file; 1 for a directory that has its name, 0 for one that was removed
    size: int
    version: int  # id of the op that wrote the newest content; 0 for what has no content
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    data_bytes: int  # plaintext bytes in data blocks: st_blocks
    target: bytes  # symlink target
    last_parent: int  # where the inode's newest name is, or was when it lost the last one
    last_name: bytes
    mtime_set_ns: int = 0  # of a directory: when its mtime was last set (see directory_times)


class DentryRow(NamedTuple):
    parent: int
    name: bytes
    id: int  # the op that put the name here: the readdir cookie
    ino: int


class VersionRow(NamedTuple):
    """One content of one file. `stamp` orders versions of a state: sequence << 14 | index in the
    entry once committed, 1 << 62 | local position while pending."""

    id: int
    ino: int
    stamp: int
    base: int
    size: int
    mtime_ns: int


Extent = Change
"""A run of a file's blocks in one map: a change (FORMAT.md section 8) of kind DATA or LOST. What no
extent of a map names reads as zeros, so a map never holds a HOLE."""


class RemovedRow(NamedTuple):
    """How an inode lost its last name, under rules 2; none for an inode that has one."""

    ino: int
    op_id: int
    time_ns: int
    stamp: int  # of that op (see VersionRow)


class LeaseRow(NamedTuple):
    """One that has, or waits for, the lease of an inode. Some may stand for one inode, in line."""

    session: int
    mode: int  # LEASE_SHARED or LEASE_EXCLUSIVE
    stamp: int  # of its take (see VersionRow)
    time_ns: int


class MemberRow(NamedTuple):
    id: bytes
    label: bytes
    sign_key: bytes
    box_key: bytes
    role: int


class SessionRow(NamedTuple):
    number: int
    member: bytes
    nonce: bytes  # the 16 random bytes of its session op
    device_label: bytes
    last_sequence: int  # of its newest valid entry; 0 for none
    last_hash: bytes


class GenerationRow(NamedTuple):
    id: bytes
    number: int
    key_hash: bytes


def directory_times(row: InodeRow, touched_ns: int | None) -> tuple[int, int]:
    """(mtime, ctime) to show for a directory whose highest `touch_directory` was `touched_ns`.

    An mtime that somebody set (rsync and tar set the past) stands until a name changes there at a
    later time. This form lets the touches commute: they never read or write the inode's row.
    """
    if touched_ns is None:
        return row.mtime_ns, row.ctime_ns
    mtime_ns = touched_ns if touched_ns > row.mtime_set_ns else row.mtime_ns
    return mtime_ns, max(row.ctime_ns, touched_ns)


class State(Protocol):
    """The keeper of the rows, positioned at the op that is folded now.

    What the fold promises a keeper: an extent is ended at most once, and never by the version that
    added it; `add_version` comes before the extents of that version. The segment rows of an entry
    are admitted by whoever commits it, before its ops are folded. Two dentries of one directory
    have different ids, but not in entries of a member that uses an id twice: a keeper takes those
    too.

    `touch_directory` and `count` commute with themselves on purpose: two machines that make files
    in one directory do not touch each other's rows by it.
    """

    stamp: int
    """Order of the op that is folded now (see VersionRow)."""

    geometry: Geometry
    """Block size and tag length of the filespace, from its superblock. Never changes."""

    def inode(self, ino: int) -> InodeRow | None:
        """The row as it was put: without the touches of a directory."""
        ...

    def put_inode(self, row: InodeRow) -> None: ...
    def dentry(self, parent: int, name: bytes) -> DentryRow | None: ...
    def put_dentry(self, row: DentryRow) -> None: ...
    def remove_dentry(self, parent: int, name: bytes) -> None: ...
    def has_children(self, parent: int) -> bool: ...
    def names(self, ino: int) -> Sequence[DentryRow]:
        """Every name of an inode, in the order of their ids."""
        ...

    def touch_directory(self, ino: int, time_ns: int, subdirectories: int = 0) -> None:
        """The time of its newest change is at least `time_ns` (shown through `directory_times`);
        `subdirectories` is added to its count of them."""
        ...

    def count(self, inodes: int, data_bytes: int) -> None:
        """Add to the filespace's totals (statfs): inodes that have a name, and their data_bytes."""
        ...

    def xattr(self, ino: int, name: bytes) -> bytes | None: ...
    def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]: ...
    def put_xattr(self, ino: int, name: bytes, value: bytes | None) -> None: ...

    def version(self, version: int) -> VersionRow | None: ...
    def add_version(self, row: VersionRow) -> None: ...
    def new_file(self, version: VersionRow, row: InodeRow, dentry: DentryRow) -> None:
        """A regular file's first version, its inode and its one name, none of which was there: as
        each by itself, but in one step, and behind the version's extents."""
        ...

    def extents(self, ino: int, first: int, end: int) -> Sequence[Extent]:
        """Extents of the newest map that have a block in [first, end), ascending, whole."""
        ...

    def extents_at(self, ino: int, version: int) -> Sequence[Extent]:
        """The whole map of an older version, ascending."""
        ...

    def end_extent(self, ino: int, extent: Extent, version: int) -> None:
        """`extent` is no part of the newest map from `version` on."""
        ...

    def add_extent(self, ino: int, extent: Extent, version: int) -> None: ...
    def versions(self, ino: int) -> Sequence[VersionRow]:
        """Every version of an inode, by their stamps."""
        ...

    def removed(self, ino: int) -> RemovedRow | None: ...
    def put_removed(self, ino: int, row: RemovedRow | None) -> None: ...
    def nameless(self) -> Sequence[int]:
        """Every inode without a name, ascending."""
        ...

    def rewritten(self, before: int) -> Sequence[int]:
        """Inodes with more than one version whose stamp is below this, ascending."""
        ...

    def end_versions(self, ino: int, gone: Sequence[VersionRow], kept: VersionRow) -> None:
        """The rows of `gone`, the oldest versions of `ino`, vanish, and so do the extents that the
        version after them, `kept`, does not have any more."""
        ...

    def end_inode(self, ino: int) -> None:
        """An inode without names vanishes, with all that is known of it."""
        ...

    def staged(self, target: int) -> Sequence[Change]: ...
    def add_staged(self, target: int, changes: Iterable[Change]) -> None: ...
    def drop_staged(self, target: int) -> None: ...

    def segment(self, segment: bytes) -> SegmentRow | None:
        """Its row; None if no entry brought one, or a floor ended it. For a pending op also the one
        that its author brings, if an entry could."""
        ...

    def add_segment(self, row: SegmentRow) -> None:
        """The first row of a segment stays. Called through `fold_segments.admit_segments`."""
        ...

    def end_segments(self, head: int) -> None:
        """Rows of segments that were sealed below this head, and that neither an extent of a
        version nor a staged change names, vanish."""
        ...

    def move_blocks(
        self, segments: Collection[bytes], moved: Callable[[Change], Change]
    ) -> Sequence[int]:
        """Each extent of any version, and each staged change, that lies in one of these segments
        becomes what `moved` makes of it: the same blocks of the file, in another place, or the
        very same. Returns the inodes whose extents lie elsewhere now, ascending."""
        ...

    def raise_head(self, segment: bytes, head: int) -> None:
        """The row of a segment says that it was sealed at this head, if it says a lower one."""
        ...

    def lease(self, ino: int) -> Sequence[LeaseRow]:
        """Who has the lease of an inode and who waits for it, in line."""
        ...

    def put_lease(self, ino: int, line: Sequence[LeaseRow]) -> None: ...
    def member(self, member: bytes) -> MemberRow | None: ...
    def put_member(self, row: MemberRow) -> None: ...
    def session(self, number: int) -> SessionRow | None: ...
    def put_session(self, row: SessionRow) -> None: ...
    def next_session(self) -> int:
        """One more than the highest session number; 1 where there is none."""
        ...

    def generation(self) -> GenerationRow | None:
        """The newest generation."""
        ...

    def put_generation(self, row: GenerationRow) -> None: ...
    def get_value(self, name: str) -> bytes | None:
        """A named value of the state: rules, filespace name, superblock hash."""
        ...

    def put_value(self, name: str, value: bytes) -> None: ...
