"""The `State` that the fold sees over the replica's tables.

It serves three uses with the same rows: a committed op on the base, a new pending op on top of
everything, and a pending op that is applied again. While pending ops beyond the op at hand are
applied (`guard`), every row it reads or writes is looked up in their shadow first, and those that
are concerned are undone before it sees the row. That is safe in the middle of an op: what it wrote
so far was checked the same way, so it holds nothing that an undo puts back.

Used by one thread at a time, under the replica's lock.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from stat import S_IFDIR
from typing import Any

import msgpack

from lucid.errors import InternalError
from lucid.format.change import Change, SegmentRow
from lucid.format.runs import Geometry
from lucid.meta.fold_segments import may_enter
from lucid.meta.lease_rows import lease_name, pack_lease, unpack_lease
from lucid.meta.pending import PendingOps
from lucid.meta.replica_cache import MISSING
from lucid.meta.replica_repack import move_rows, unpack_changes
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_undo import (
    Touch,
    Trace,
    add_touch,
    alive_signal,
    dentry_key,
    names_signal,
)
from lucid.meta.schema import (
    DENTRY,
    EXTENT,
    INODE,
    REMOVED,
    STAGED,
    VERSION,
    XATTR,
    ExtentRow,
    StagedRow,
    TableSpec,
    ValueRow,
    XattrRow,
)
from lucid.meta.state import (
    DentryRow,
    Extent,
    GenerationRow,
    InodeRow,
    LeaseRow,
    MemberRow,
    RemovedRow,
    SessionRow,
    VersionRow,
)

__all__ = ["COMMITTED", "ReplicaState", "extent_rows_at"]

COMMITTED = -1
"""The `at` of an op that is committed: it stands before every pending one."""

SEGMENTS_KEPT = 1024
"""Rows of segments that are remembered: once there is a floor, each op asks for some."""

_TYPE = 0o170000
_EXTENT_COLUMNS = ", ".join(EXTENT.columns)


class ReplicaState:
    """A `State`. `at` is the position of the op that is folded, `stamp` its order."""

    def __init__(self, tables: Tables, pending: PendingOps, geometry: Geometry) -> None:
        self.stamp = 0
        self.geometry = geometry
        self.at = COMMITTED
        self.inodes = 0
        self.data_bytes = 0
        self._tables = tables
        self._pending = pending
        self._trace: Trace | None = None
        self._guard = False
        self._watched = False
        self._segment_ids: dict[int, bytes] = {}
        self._segments: dict[bytes, SegmentRow] = {}  # committed rows
        self._seen: dict[tuple[Any, ...], ExtentRow] = {}  # rows of newest maps, for one op
        # The fold asks these several times an op.
        self._inode_rows = tables.inode.rows
        self._dentry_rows = tables.dentry.rows
        self._version_rows = tables.version.rows
        self._targets = tables.staged.targets

    def begin(self, at: int, stamp: int, trace: Trace | None) -> None:
        """The next op is folded at `at`; with `trace` it is a pending one."""
        self.at = at
        self.stamp = stamp
        self._trace = trace
        self._seen.clear()
        self._guard = bool(self._pending.applied) and at < self._pending.last
        self._watched = self._guard or trace is not None

    def end(self) -> None:
        """The op is folded."""
        self._trace = None
        self._guard = self._watched = False

    # Watching

    def _read(self, key: int) -> None:
        if self._guard and self._pending.is_written(key):
            self._expose(self._pending.writers(key, self.at))
        if self._trace is not None:
            self._trace.reads.add(key)

    def _write(self, key: int) -> None:
        if self._guard:
            pending = self._pending
            if pending.is_written(key):
                self._expose(pending.writers(key, self.at))
            if pending.is_read(key):
                self._expose(pending.readers(key, self.at))
        if self._trace is not None:
            self._trace.writes.add(key)

    def _signal(self, key: int) -> None:
        if self._guard and self._pending.is_read(key):
            self._expose(self._pending.readers(key, self.at))
        if self._trace is not None:
            self._trace.writes.add(key)

    def _expose(self, positions: list[int]) -> None:
        if positions:
            self._pending.undo(positions)

    def _image(self, spec: TableSpec, key: Any, row: Any) -> None:
        """Remember the row that is about to be replaced, once an op."""
        if self._trace is not None:
            self._trace.images.setdefault((spec.number, key), row)

    # Inodes and names

    def inode(self, ino: int) -> InodeRow | None:
        if self._watched:
            if self._guard and self._pending.is_written(ino):
                self._expose(self._pending.writers(ino, self.at))
            if self._trace is not None:
                self._trace.inode_reads.add(ino)
        row = self._inode_rows.get(ino, MISSING)
        return self._tables.inode.find(ino) if row is MISSING else row  # type: ignore[no-any-return]

    def put_inode(self, row: InodeRow) -> None:
        ino = row.ino
        if row.mode & _TYPE == S_IFDIR and self._tables.inode.get(ino) is None:
            self._tables.dentry.directory_is_new(ino)
        if self._watched:
            self._write(ino)
            before = self._tables.inode.get(ino)
            if _alive(before) != _alive(row):
                self._signal(alive_signal(ino))
            self._image(INODE, ino, before)
        self._tables.inode.put(ino, row)

    def dentry(self, parent: int, name: bytes) -> DentryRow | None:
        if self._watched:
            self._read(dentry_key(parent, name))
        key = (parent, name)
        row = self._dentry_rows.get(key, MISSING)
        return self._tables.dentry.find(key) if row is MISSING else row  # type: ignore[no-any-return]

    def put_dentry(self, row: DentryRow) -> None:
        if self._watched:
            self._dentry_changes(row.parent, row.name)
        self._tables.dentry.put((row.parent, row.name), row)

    def remove_dentry(self, parent: int, name: bytes) -> None:
        if self._watched:
            self._dentry_changes(parent, name)
        self._tables.dentry.put((parent, name), None)

    def _dentry_changes(self, parent: int, name: bytes) -> None:
        """Whoever asks for the names of an inode reads its key: every op that gives or takes a
        name writes the inode's row as well."""
        self._write(dentry_key(parent, name))
        self._signal(names_signal(parent))
        self._image(DENTRY, (parent, name), self._tables.dentry.get((parent, name)))

    def has_children(self, parent: int) -> bool:
        tables = self._tables
        if self._guard and self._has_own_child(parent):
            return True
        if self._watched:
            self._read(names_signal(parent))
        sql = "SELECT 1 FROM dentry WHERE parent = ? LIMIT 1"
        return bool(tables.query(sql, (parent,), tables.dentry))

    def _has_own_child(self, parent: int) -> bool:
        """Whether a name is there, among the first few, that no later pending op has touched: then
        none of them needs to be undone to know."""
        if self._trace is not None:
            return False
        tables = self._tables
        sql = "SELECT name FROM dentry WHERE parent = ? LIMIT 32"
        found = tables.query(sql, (parent,), tables.dentry)
        return not all(self._pending.is_written(dentry_key(parent, name)) for (name,) in found)

    def names(self, ino: int) -> Sequence[DentryRow]:
        if self._watched:
            self._read(ino)
        tables = self._tables
        sql = f"{DENTRY.select} WHERE ino = ? ORDER BY id, parent, name"
        return [DentryRow._make(row) for row in tables.query(sql, (ino,), tables.dentry)]

    def touch_directory(self, ino: int, time_ns: int, subdirectories: int = 0) -> None:
        touch = Touch(ino, time_ns, subdirectories)
        if self._trace is not None:
            self._trace.touches.append(touch)
        else:
            add_touch(self._tables, touch)

    def count(self, inodes: int, data_bytes: int) -> None:
        if self._trace is not None:
            self._trace.inodes += inodes
            self._trace.data_bytes += data_bytes
        else:
            self.inodes += inodes
            self.data_bytes += data_bytes

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        if self._watched:
            self._read(ino)
        row = self._tables.xattr.get((ino, name))
        return None if row is None else row.value

    def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        if self._watched:
            self._read(ino)
        tables = self._tables
        sql = "SELECT name, value FROM xattr WHERE ino = ? ORDER BY name"
        return tables.query(sql, (ino,), tables.xattr)

    def put_xattr(self, ino: int, name: bytes, value: bytes | None) -> None:
        if self._watched:
            self._write(ino)
            self._image(XATTR, (ino, name), self._tables.xattr.get((ino, name)))
        row = None if value is None else XattrRow(ino, name, value)
        self._tables.xattr.put((ino, name), row)

    # Content

    def version(self, version: int) -> VersionRow | None:
        if self._watched:
            self._read(version)
        row = self._version_rows.get(version, MISSING)
        return self._tables.version.find(version) if row is MISSING else row  # type: ignore[no-any-return]

    def add_version(self, row: VersionRow) -> None:
        if self._watched:
            self._write(row.id)
            self._write(row.ino)
            self._image(VERSION, row.id, self._tables.version.get(row.id))
        self._tables.version.put(row.id, row)

    def new_file(self, version: VersionRow, row: InodeRow, dentry: DentryRow) -> None:
        if self._trace is not None and not self._guard:
            self._trace.new_file(self._tables, version, row, dentry)
            return
        self.add_version(version)
        self.put_inode(row)
        self.put_dentry(dentry)

    def versions(self, ino: int) -> Sequence[VersionRow]:
        if self._watched:
            self._read(ino)
        columns = ", ".join(VERSION.columns)
        rows = self._tables.query(
            f"SELECT {columns} FROM version WHERE id = ?1 AND ino = ?1 UNION ALL"
            f" SELECT {columns} FROM version WHERE ino = ?1 AND id != ino ORDER BY stamp",
            (ino,),
            self._tables.version,
        )
        return [VersionRow._make(row) for row in rows]

    def extents(self, ino: int, first: int, end: int) -> Sequence[Extent]:
        if self._watched:
            self._read(ino)
        rows = self._newest(ino, first, end)
        self._seen.update((row[:3], row) for row in rows)
        return [self.extent(row) for row in rows]

    def extents_at(self, ino: int, version: int) -> Sequence[Extent]:
        if self._watched:
            self._read(ino)
            self._read(version)
        return [self.extent(row) for row in extent_rows_at(self._tables, ino, version)]

    def end_extent(self, ino: int, extent: Extent, version: int) -> None:
        if self._watched:
            self._write(ino)
        # Nearly always one that the op has just asked for.
        row = self._seen.pop((ino, 0, extent.first), None)
        if row is None:
            row = next(iter(self._newest(ino, extent.first, extent.first + 1)), None)
        if row is None or row.first != extent.first:
            raise InternalError(f"Inode {ino} has no extent at block {extent.first} to end.")
        ended = row._replace(died=version)
        self._put_extent(row, None)
        self._put_extent(ended, ended)

    def add_extent(self, ino: int, extent: Extent, version: int) -> None:
        if self._watched:
            self._write(ino)
        lengths = extent.lengths
        row = ExtentRow(
            ino,
            0,
            extent.first,
            version,
            extent.count,
            extent.kind,
            self._tables.segment_number(extent.segment) if extent.segment else 0,
            extent.ordinal,
            extent.offset,
            extent.flags,
            extent.last_len,
            extent.last_valid,
            b"" if lengths is None else struct.pack(f"<{len(lengths)}I", *lengths),
        )
        self._put_extent(row, row)

    def _put_extent(self, was: ExtentRow, row: ExtentRow | None) -> None:
        key = was[:4]
        if self._trace is not None:
            # A row that comes was not there: the fold ends an extent once, and never its own.
            self._image(EXTENT, key, was if row is None else None)
        self._tables.extent.put(key, row)

    def _newest(self, ino: int, first: int, end: int) -> list[ExtentRow]:
        """Rows of the newest map in [first, end). It looks back for one that begins before."""
        tables = self._tables
        sql = (
            f"SELECT {_EXTENT_COLUMNS} FROM extent WHERE ino = ?1 AND died = 0 AND first < ?3"
            " AND first >= coalesce((SELECT max(first) FROM extent"
            " WHERE ino = ?1 AND died = 0 AND first <= ?2), ?2) ORDER BY first"
        )
        rows = tables.query(sql, (ino, first, end), tables.extent)
        found = [ExtentRow._make(row) for row in rows]
        if found and found[0].first + found[0].count <= first:
            del found[0]
        return found

    def extent(self, row: ExtentRow) -> Extent:
        """A row as the fold has it."""
        segment = self._segment_ids.get(row.segment)
        if segment is None:
            if len(self._segment_ids) >= 4096:
                self._segment_ids.clear()
            segment = self._segment_ids[row.segment] = self._tables.segment_id(row.segment)
        return Change(
            row.first, row.count, row.kind, segment, row.ordinal, row.offset, row.flags,
            row.last_len, row.last_valid, self._tables.lengths(row.lengths),
        )  # fmt: skip

    # What was removed. A row of `removed` is guarded by its inode's key: whoever writes the one
    # writes the other.

    def removed(self, ino: int) -> RemovedRow | None:
        if self._watched:
            self._read(ino)
        return self._tables.removed.get(ino)  # type: ignore[no-any-return]

    def put_removed(self, ino: int, row: RemovedRow | None) -> None:
        before = self._tables.removed.get(ino)
        if before is None and row is None:
            return
        if self._watched:
            self._write(ino)
            self._image(REMOVED, ino, before)
        self._tables.removed.put(ino, row)

    # Only a floor asks and does what follows: no own op is applied then (see `put_value`).

    def nameless(self) -> Sequence[int]:
        tables = self._tables
        sql = "SELECT ino FROM inode WHERE nlink = 0 ORDER BY ino"
        return [ino for (ino,) in tables.query(sql, (), tables.inode)]

    def rewritten(self, before: int) -> Sequence[int]:
        tables = self._tables
        sql = (
            "SELECT v.ino FROM version v WHERE v.id != v.ino AND v.stamp < ?1 GROUP BY v.ino"
            " HAVING count(*) + (SELECT count(*) FROM version f"
            " WHERE f.id = v.ino AND f.ino = v.ino AND f.stamp < ?1) > 1 ORDER BY v.ino"
        )
        return [ino for (ino,) in tables.query(sql, (before,), tables.version)]

    def end_versions(self, ino: int, gone: Sequence[VersionRow], kept: VersionRow) -> None:
        tables = self._tables
        stamps = {row.id: row.stamp for row in self.versions(ino)}
        sql = "SELECT ino, died, first, born FROM extent WHERE ino = ? AND died != 0"
        for key in tables.query(sql, (ino,), tables.extent):
            if stamps[key[1]] <= kept.stamp:
                tables.extent.put(tuple(key), None)
        for row in gone:
            tables.version.put(row.id, None)

    def end_inode(self, ino: int) -> None:
        tables = self._tables
        for row in self.versions(ino):
            tables.version.put(row.id, None)
        sql = "SELECT ino, died, first, born FROM extent WHERE ino = ?"
        for key in tables.query(sql, (ino,), tables.extent):
            tables.extent.put(tuple(key), None)
        for name, _ in self.xattrs(ino):
            tables.xattr.put((ino, name), None)
        self.put_lease(ino, ())
        for table in (tables.directory, tables.removed, tables.inode):
            table.put(ino, None)

    def staged(self, target: int) -> Sequence[Change]:
        if self._watched:
            self._read(target)
        if target not in self._targets:
            return ()
        return [change for row in self._staged(target) for change in unpack_changes(row.changes)]

    def add_staged(self, target: int, changes: Iterable[Change]) -> None:
        if self._watched:
            self._write(target)
        packed = msgpack.packb(tuple(changes))
        parts = self._staged(target)
        part = parts[-1].part + 1 if parts else 0
        self._image(STAGED, (target, part), None)
        self._tables.staged.put((target, part), StagedRow(target, part, packed))

    def drop_staged(self, target: int) -> None:
        if self._watched:
            self._write(target)
        for row in self._staged(target):
            self._image(STAGED, (target, row.part), row)
            self._tables.staged.put((target, row.part), None)

    def _staged(self, target: int) -> list[StagedRow]:
        tables = self._tables
        if target not in self._targets:
            return []
        sql = f"{STAGED.select} WHERE target = ? ORDER BY part"
        return [StagedRow._make(row) for row in tables.query(sql, (target,), tables.staged)]

    # The filespace itself: no pending op writes here, so nothing is watched.

    def segment(self, segment: bytes) -> SegmentRow | None:
        row = self._segments.get(segment)
        if row is None:
            row = self._tables.segment(segment, False)
            if row is not None:
                if len(self._segments) >= SEGMENTS_KEPT:
                    self._segments.clear()
                self._segments[segment] = row
            elif self._trace is not None:
                row = self._tables.segment(segment, True)
                return row if row is not None and self.may_bring(row) else None
        return row

    def may_bring(self, row: SegmentRow) -> bool:
        """Whether an entry could bring this own segment: one that is still written is finished at
        a head that is no lower than any floor that is known here."""
        return row.footer_len == 0 or may_enter(self, row.head)

    def add_segment(self, row: SegmentRow) -> None:
        self._tables.put_segment(row, committed=self._trace is None)

    def end_segments(self, head: int) -> None:
        tables = self._tables
        packed = tables.query("SELECT changes FROM staged", (), tables.staged)
        staged = {change.segment for (part,) in packed for change in unpack_changes(part)}
        found = tables.query(
            "SELECT id FROM segment WHERE committed = 1 AND head < ?"
            " AND number NOT IN (SELECT segment FROM extent)",
            (head,),
            tables.extent,
        )
        for (segment,) in found:
            if bytes(segment) not in staged:
                tables.withdraw_segment(bytes(segment))
        self._segments.clear()

    def move_blocks(
        self, segments: Collection[bytes], moved: Callable[[Change], Change]
    ) -> Sequence[int]:
        """Maps are read in many places that watch nothing of where blocks lie: all own ops are
        taken back for it, and are applied again over the new rows."""
        self._not_pending()
        if self._guard:
            self._expose(list(self._pending.applied))
        return move_rows(self._tables, self.extent, segments, moved)

    def raise_head(self, segment: bytes, head: int) -> None:
        self._tables.raise_head(segment, head)
        self._segments.pop(segment, None)

    def member(self, member: bytes) -> MemberRow | None:
        return self._tables.member.get(member)  # type: ignore[no-any-return]

    def put_member(self, row: MemberRow) -> None:
        self._not_pending()
        self._tables.member.put(row.id, row)

    def session(self, number: int) -> SessionRow | None:
        return self._tables.session.get(number)  # type: ignore[no-any-return]

    def put_session(self, row: SessionRow) -> None:
        self._not_pending()
        self._tables.session.put(row.number, row)

    def next_session(self) -> int:
        tables = self._tables
        rows = tables.query("SELECT max(number) FROM session", (), tables.session)
        return (rows[0][0] or 0) + 1

    def generation(self) -> GenerationRow | None:
        tables = self._tables
        sql = "SELECT id, number, key_hash FROM generation ORDER BY number DESC LIMIT 1"
        rows = tables.query(sql, (), tables.generation)
        return GenerationRow._make(rows[0]) if rows else None

    def put_generation(self, row: GenerationRow) -> None:
        self._not_pending()
        self._tables.generation.put(row.id, row)

    def get_value(self, name: str) -> bytes | None:
        row = self._tables.value.get(name)
        return None if row is None else row.value

    def put_value(self, name: str, value: bytes) -> None:
        """What hangs on a value is watched nowhere: all own ops are applied again, under it."""
        self._not_pending()
        if self._guard:
            self._expose(list(self._pending.applied))
        self._tables.value.put(name, ValueRow(name, value))

    def lease(self, ino: int) -> Sequence[LeaseRow]:
        """Whoever asks for it has read the inode, or reads it with this."""
        if self._watched:
            self._read(ino)
        if ino not in self._tables.leased:
            return ()
        row = self._tables.value.get(lease_name(ino))
        return () if row is None else unpack_lease(row.value)

    def put_lease(self, ino: int, line: Sequence[LeaseRow]) -> None:
        """Own content that is pending on the inode is applied again: it may have to give way."""
        self._not_pending()
        if self._watched:
            self._write(ino)
        tables, name = self._tables, lease_name(ino)
        if line or ino in tables.leased:
            tables.value.put(name, ValueRow(name, pack_lease(line)) if line else None)
            if line:
                tables.leased.add(ino)
            else:
                tables.leased.discard(ino)

    def _not_pending(self) -> None:
        if self._trace is not None:
            raise InternalError("An op that changes the filespace itself cannot be pending.")


def extent_rows_at(tables: Tables, ino: int, version: int) -> list[ExtentRow]:
    """The map of an older version, ascending. Empty for a version that this inode never had."""
    rows = tables.query(
        "SELECT id, stamp FROM version WHERE id = ?1 AND ino = ?1"
        " UNION ALL SELECT id, stamp FROM version WHERE ino = ?1 AND id != ino",
        (ino,),
        tables.version,
    )
    stamps = dict(rows)
    if version not in stamps:
        return []
    # A version that is not there any more was older than all that are.
    at = stamps[version]
    sql = f"SELECT {_EXTENT_COLUMNS} FROM extent WHERE ino = ? ORDER BY first, born"
    found = []
    for row in map(ExtentRow._make, tables.query(sql, (ino,), tables.extent)):
        if stamps.get(row.born, 0) <= at and (not row.died or stamps[row.died] > at):
            found.append(row)
    return found


def _alive(row: InodeRow | None) -> bool:
    return row is not None and row.nlink > 0 and row.mode & _TYPE == S_IFDIR
