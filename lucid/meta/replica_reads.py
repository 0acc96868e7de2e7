"""What a mount asks of the replica: names, inodes, directories, xattrs, maps.

Every method is called under the replica's lock and answers from the committed state with the own
pending ops on it. A name or inode that was asked for lately costs a dictionary, any other one
indexed SQL question.
"""

from __future__ import annotations

from collections.abc import Sequence
from stat import S_IFDIR, S_IFMT
from typing import Any, NamedTuple

from lucid.meta.pending import PendingOps
from lucid.meta.replica_cache import MISSING
from lucid.meta.replica_state import ReplicaState
from lucid.meta.replica_tables import Tables
from lucid.meta.schema import INODE
from lucid.meta.state import DentryRow, InodeRow, VersionRow, directory_times

__all__ = ["DirectoryRead", "Reads", "Totals"]

_PAGE_ROWS_MAX = 512
"""Rows of a directory in one answer: under two milliseconds with their inodes."""


class DirectoryRead(NamedTuple):
    """One name of a directory. `id` is the cookie to go on after."""

    id: int
    name: bytes
    ino: int


class Totals(NamedTuple):
    """Inodes that have a name, and plaintext bytes in their data blocks."""

    inodes: int
    data_bytes: int


_RESOLVE = (
    f"SELECT dentry.id, dentry.ino, {', '.join(f'inode.{column}' for column in INODE.columns)}"
    " FROM dentry LEFT JOIN inode ON inode.ino = dentry.ino"
    " WHERE dentry.parent = ? AND dentry.name = ?"
)


class Reads:
    """Questions to the tables. Owns nothing."""

    def __init__(self, tables: Tables, pending: PendingOps, state: ReplicaState) -> None:
        self._tables = tables
        self._pending = pending
        self._state = state

    def lookup(self, parent: int, name: bytes) -> DentryRow | None:
        return self._tables.dentry.get((parent, name))  # type: ignore[no-any-return]

    def resolve(self, parent: int, name: bytes) -> tuple[DentryRow, InodeRow] | None:
        """A name and its inode; one question to SQL where neither was asked for lately."""
        tables = self._tables
        dentry = tables.dentry.rows.get((parent, name), MISSING)
        if dentry is MISSING:
            if tables.dentry.is_free((parent, name)):
                return None
            found = tables.connection.row(_RESOLVE, (parent, bytearray(name)))
            dentry = None if found is None else DentryRow(parent, name, *found[:2])
            tables.dentry.keep((parent, name), dentry)
            # What waits to be written is newer than what SQL says, or not there yet.
            if found is not None and found[2] is not None and found[1] not in tables.inode.rows:
                tables.inode.keep(found[1], InodeRow._make(found[2:]))
        inode = None if dentry is None else self.inode(dentry.ino)
        return None if inode is None else (dentry, inode)

    def inode(self, ino: int) -> InodeRow | None:
        """The row as stat(2) shows it: directories with their times and `2 + subdirectories`."""
        row = self._tables.inode.get(ino)
        if row is not None and S_IFMT(row.mode) == S_IFDIR:
            return self._shown(row)
        return row  # type: ignore[no-any-return]

    def readdir(self, parent: int, after: int, limit: int) -> list[DirectoryRead]:
        rows = self._directory(parent, after, limit, "id, name, ino", "dentry")
        return [DirectoryRead._make(row) for row in rows]

    def readdir_rows(
        self, parent: int, after: int, limit: int
    ) -> list[tuple[DirectoryRead, InodeRow]]:
        columns = ", ".join(f"inode.{column}" for column in INODE.columns)
        rows = self._directory(
            parent,
            after,
            limit,
            f"dentry.id, dentry.name, {columns}",
            "dentry JOIN inode ON inode.ino = dentry.ino",
        )
        found = []
        for row in rows:
            inode = InodeRow._make(row[2:])
            if S_IFMT(inode.mode) == S_IFDIR:
                inode = self._shown(inode)
            found.append((DirectoryRead(row[0], row[1], inode.ino), inode))
        return found

    def names(self, ino: int) -> Sequence[DentryRow]:
        return self._state.names(ino)

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        return self._state.xattr(ino, name)

    def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]:
        return self._state.xattrs(ino)

    def parent_of(self, directory: int) -> int | None:
        """The directory that holds this one; the root's is the root. None: it is no directory."""
        row = self._tables.inode.get(directory)
        if row is None or S_IFMT(row.mode) != S_IFDIR:
            return None
        return row.last_parent or directory

    def has_children(self, parent: int) -> bool:
        return self._state.has_children(parent)

    def version(self, version: int) -> VersionRow | None:
        return self._state.version(version)

    def versions(self, ino: int) -> Sequence[VersionRow]:
        """Every version that a file has had, oldest first."""
        return self._state.versions(ino)

    def totals(self) -> Totals:
        overlay = self._pending.overlay
        return Totals(
            self._state.inodes + overlay.inodes, self._state.data_bytes + overlay.data_bytes
        )

    def _shown(self, row: InodeRow) -> InodeRow:
        touched_ns, subdirectories = self._touched(row.ino)
        mtime_ns, ctime_ns = directory_times(row, touched_ns)
        nlink = 2 + subdirectories if row.nlink else 0
        return row._replace(mtime_ns=mtime_ns, ctime_ns=ctime_ns, nlink=nlink)

    def _touched(self, ino: int) -> tuple[int | None, int]:
        base = self._tables.directory.get(ino)
        pending = self._pending.overlay.get(ino)
        if pending is None:
            return (None, 0) if base is None else (base.touched_ns, base.subdirectories)
        if base is None:
            return pending
        return max(base.touched_ns, pending[0]), base.subdirectories + pending[1]

    def _directory(
        self, parent: int, after: int, limit: int, columns: str, tables: str
    ) -> list[tuple[Any, ...]]:
        """Rows in the order of their cookies. All names of one cookie come in one answer: only a
        member that breaks the rules of ids makes two, but then both must be seen."""
        limit = max(1, min(limit, _PAGE_ROWS_MAX))
        sql = f"SELECT {columns} FROM {tables} WHERE parent = ? AND dentry.id "
        order = "ORDER BY dentry.id, dentry.name"
        kept = self._tables
        rows = kept.query(
            # As text: with a LIMIT that is bound SQLite prepares the question anew each time.
            f"{sql} > ? {order} LIMIT {limit:d}",
            (parent, after),
            kept.dentry,
            kept.inode,
        )
        if len(rows) == limit:
            last = rows[-1][0]
            while rows and rows[-1][0] == last:
                rows.pop()
            rows += kept.query(f"{sql} = ? {order}", (parent, last))
        return rows
