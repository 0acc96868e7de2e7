"""The replica: a filespace's committed state, the own pending ops on top, in one local database.

It owns the database file, its one connection and the lock. Any thread may call anything; a call
holds the lock for two milliseconds at most (`commit_entry` for that long at a time). The sync
thread calls `commit_entry` and `commit_if_due`, threads of the mount `apply_pending` and the
questions, a background thread `checkpoint_wal`.

After a crash the database stands at some earlier moment, whole. What was pending is taken back by
the undo table; the caller folds the log from `head` on, then applies the ops of its journal again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lucid.format.change import SegmentRow
from lucid.format.entry import EntryRef
from lucid.meta import schema
from lucid.meta.fold_rules import number_of
from lucid.meta.fold_segments import VALUE_FLOOR
from lucid.meta.lease_rows import LEASE_PREFIX, unpack_lease
from lucid.meta.replica_dump import dump_rows
from lucid.meta.replica_events import Changed
from lucid.meta.replica_live import Named, named_runs
from lucid.meta.replica_map import MapColumns, read_map
from lucid.meta.replica_older import Nameless, Span, nameless_in, segment_rows, spans_of
from lucid.meta.replica_reads import DirectoryRead, Totals
from lucid.meta.replica_state import ReplicaState
from lucid.meta.replica_usage import Usage, usage_of
from lucid.meta.replica_writes import Committed, Place, Writes
from lucid.meta.state import (
    DentryRow,
    GenerationRow,
    InodeRow,
    LeaseRow,
    MemberRow,
    SessionRow,
    VersionRow,
)

__all__ = ["Committed", "Place", "Replica"]

_BEHIND = (
    "SELECT segment FROM (SELECT segment FROM extent WHERE ino > ? AND died = 0 AND segment != 0"
    " ORDER BY ino LIMIT 4096) WHERE segment != (SELECT number FROM segment WHERE id = ?) LIMIT 1"
)


class Replica(Writes):
    """A replica with the questions that mount, log and commands ask. See the module."""

    # Members and such

    def session(self, number: int) -> SessionRow | None:
        with self._turn:
            return self._state.session(number)

    def next_session(self) -> int:
        with self._turn:
            return self._state.next_session()

    def sessions_of(self, member: bytes) -> list[SessionRow]:
        """A member's sessions, oldest first."""
        with self._turn:
            spec = schema.SESSION
            sql = f"{spec.select} WHERE member = ? ORDER BY number"
            rows = self._tables.query(sql, (member,), self._tables.session)
            return [SessionRow._make(row) for row in rows]

    def member(self, member: bytes) -> MemberRow | None:
        with self._turn:
            return self._state.member(member)

    def members(self) -> list[MemberRow]:
        with self._turn:
            rows = self._tables.query(
                f"{schema.MEMBER.select} ORDER BY id", (), self._tables.member
            )
            return [MemberRow._make(row) for row in rows]

    def generation(self) -> GenerationRow | None:
        with self._turn:
            return self._state.generation()

    def membership(self) -> EntryRef:
        """The last valid entry that changed members."""
        return self._place.membership

    def lease(self, ino: int) -> Sequence[LeaseRow]:
        """Who has the lease of an inode and who waits for it, in line."""
        with self._turn:
            return self._state.lease(ino)

    def leases(self) -> dict[int, Sequence[LeaseRow]]:
        """The lines of all inodes that have one."""
        with self._turn:
            tables = self._tables
            sql = "SELECT name, value FROM value WHERE name >= ? AND name < ?"
            bounds = (LEASE_PREFIX, LEASE_PREFIX + "~")
            found = tables.query(sql, bounds, tables.value)
            return {int(name[len(LEASE_PREFIX) :], 16): unpack_lease(line) for name, line in found}

    def value(self, name: str) -> bytes | None:
        """A named value of the state, as the fold wrote it."""
        with self._turn:
            return self._state.get_value(name)

    def void_count(self) -> int:
        return self._place.voids

    def voids(self, limit: int = 100) -> list[tuple[int, str]]:
        """(sequence, reason) of the newest void entries."""
        with self._turn:
            return self._tables.query(
                "SELECT sequence, void FROM entry WHERE void IS NOT NULL"
                " ORDER BY sequence DESC LIMIT ?",
                (limit,),
            )

    def segment(self, segment: bytes) -> SegmentRow | None:
        """A segment that a committed entry names, and that no floor has ended."""
        with self._turn:
            return self._tables.segment(segment, False)

    def segments(self) -> Iterator[SegmentRow]:
        """Every segment that has a row in the committed state, by id."""
        return segment_rows(self._turn, self._tables)

    def usage(self) -> Usage:
        """How much of the stored bytes the state needs. Nothing may be pending."""
        return usage_of(self._turn, self._tables, self._state.geometry)

    def named_runs(self) -> Iterator[Named]:
        """Every run of sealed blocks that a version or a staged change names, some more than once.
        Nothing may be pending."""
        return named_runs(self._turn, self._tables, self._state)

    def floor(self) -> int:
        """The sequence of the newest floor that was folded; 0 for none."""
        with self._turn:
            return number_of(self._state, VALUE_FLOOR)

    def below_floor(self, rows: Iterable[SegmentRow]) -> list[bytes]:
        """Those of these own segments that no entry can name any more: ops that do must be prepared
        again. They have no row in the committed state, and were sealed below the floor."""
        with self._turn:
            return [
                row.id
                for row in rows
                if not self._state.may_bring(row) and self._tables.segment(row.id, False) is None
            ]

    # Questions of a mount

    def lookup(self, parent: int, name: bytes) -> DentryRow | None:
        """The dentry under a name."""
        with self._turn:
            return self._tables.dentry.get((parent, name))  # type: ignore[no-any-return]

    def resolve(self, parent: int, name: bytes) -> tuple[DentryRow, InodeRow] | None:
        """The dentry under a name and the inode that it leads to, in one turn of the lock."""
        with self._turn:
            return self._reads.resolve(parent, name)

    def inode(self, ino: int) -> InodeRow | None:
        """An inode as stat(2) shows it; of a directory, `nlink` is 2 + its subdirectories."""
        with self._turn:
            return self._reads.inode(ino)

    def readdir(self, parent: int, after: int, limit: int) -> list[DirectoryRead]:
        """Names with cookies above `after` (0 for all), in their order, about `limit`."""
        with self._turn:
            return self._reads.readdir(parent, after, limit)

    def readdir_rows(
        self, parent: int, after: int, limit: int
    ) -> list[tuple[DirectoryRead, InodeRow]]:
        """The same with each inode."""
        with self._turn:
            return self._reads.readdir_rows(parent, after, limit)

    def has_children(self, parent: int) -> bool:
        with self._turn:
            return self._reads.has_children(parent)

    def names(self, ino: int) -> Sequence[DentryRow]:
        """Every name of an inode."""
        with self._turn:
            return self._reads.names(ino)

    def parent_of(self, directory: int) -> int | None:
        """The directory that holds this one; None for what is no directory."""
        with self._turn:
            return self._reads.parent_of(directory)

    def directory_times(self, ino: int) -> tuple[int, int] | None:
        """(mtime, ctime) of a directory."""
        row = self.inode(ino)
        return None if row is None else (row.mtime_ns, row.ctime_ns)

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        with self._turn:
            return self._reads.xattr(ino, name)

    def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        """(name, value), by name."""
        with self._turn:
            return self._reads.xattrs(ino)

    def version(self, version: int) -> VersionRow | None:
        with self._turn:
            return self._reads.version(version)

    def versions(self, ino: int) -> Sequence[VersionRow]:
        """Every version that a file has had, oldest first."""
        with self._turn:
            return self._reads.versions(ino)

    def nameless_in(self, parent: int, name: bytes | None = None) -> list[Nameless]:
        """Inodes without names whose last one was in `parent`, or was this name there."""
        return nameless_in(self._turn, self._tables, parent, name)

    def spans_of(self, ino: int) -> Iterator[Span]:
        """Every extent of every version of a file."""
        return spans_of(self._turn, self._tables, ino)

    def segment_numbered(self, number: int) -> SegmentRow:
        """The segment of a span."""
        with self._turn:
            return self._tables.segment_row(number)

    def segment_behind(self, ino: int, segment: bytes) -> SegmentRow | None:
        """The first other segment in which files lie that were made after `ino`, as far as a few
        thousand extents tell; None if they name no other."""
        with self._turn:
            rows = self._tables.query(_BEHIND, (ino, segment), self._tables.extent)
            return self._tables.segment_row(rows[0][0]) if rows else None

    def map_columns(self, ino: int, version: int | None = None) -> MapColumns | None:
        """The map of a file, or of one of its versions, as columns for the engine.

        None where there is no such inode or version.
        """
        return read_map(self._turn, self._tables, self._state, ino, version)

    def totals(self) -> Totals:
        with self._turn:
            return self._reads.totals()

    def take_events(self) -> Changed:
        """What others' ops, and own ones applied again, changed since the last call."""
        with self._turn:
            return self._layers.events.take()

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row, as `MemoryState.dump` has them. Holds the lock throughout: not for a mount."""
        with self._turn:
            return dump_rows(self._tables, self._pending, self._state)

    @property
    def state(self) -> ReplicaState:
        """The state for one thread's questions where no other thread calls: tests and fsck."""
        return self._state
