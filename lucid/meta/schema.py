"""The replica's tables: their columns, their SQL, and how its database file is opened.

All of `TABLES` but `undo` and `place`, and the committed rows of `segment`, are the state that the
fold makes; `removed` is empty under rules 1. A database that another version wrote, or that is
damaged, is deleted: everything in it can be had again from the log and the journal. Called by
whoever opens a replica, before any other thread knows it; what it returns is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints
from zlib import crc32

import sqlcipher3

from lucid.errors import ConfigError, DiskFull, StateDamaged
from lucid.meta.state import (
    DentryRow,
    GenerationRow,
    InodeRow,
    MemberRow,
    RemovedRow,
    SessionRow,
    VersionRow,
)

__all__ = [
    "DENTRY",
    "DIRECTORY",
    "EXTENT",
    "GENERATION",
    "INODE",
    "MEMBER",
    "PLACE",
    "REMOVED",
    "SESSION",
    "STAGED",
    "TABLES",
    "UNDO",
    "VALUE",
    "VERSION",
    "XATTR",
    "DirectoryRow",
    "ExtentRow",
    "PlaceRow",
    "StagedRow",
    "TableSpec",
    "UndoRow",
    "ValueRow",
    "XattrRow",
    "connect",
    "open_database",
    "opening_statements",
    "remove_database",
]

PAGE_SIZE = 4096
"""Measured on 300,000 files: lookups that miss the cache take 16 us, with 8 KiB pages 21."""

CACHE_KIB = 24_576
"""Opened pages kept by SQLite. Part of the process's budget of 300 MiB."""

WAL_SIZE_MAX = 64 << 20
"""What SQLite's log may keep of the disk while it is empty."""

KEY_SIZE = 32


class DirectoryRow(NamedTuple):
    """What commutes of a directory: apart from its inode row, so that machines that make files in
    one directory do not touch one another's rows by it."""

    ino: int
    touched_ns: int
    subdirectories: int


class ExtentRow(NamedTuple):
    """One extent of one file's maps, by born and died version; died is 0 in the newest map."""

    ino: int
    died: int
    first: int
    born: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    kind: int
    segment: int  # local number of a segment, 0 for none
    ordinal: int
    offset: int
    flags: int
    last_len: int
    last_valid: int
    lengths: bytes  # u32 little-endian each, empty where all blocks are full


class StagedRow(NamedTuple):
    """One `stage` op's changes: part `part` of what waits for the op `target`."""

    target: int
    part: int
    changes: bytes


class XattrRow(NamedTuple):
    ino: int
    name: bytes
    value: bytes


class ValueRow(NamedTuple):
    """A named value of the state."""

    name: str
    value: bytes


class PlaceRow(NamedTuple):
    """A named value of this replica: its head, how far an entry is folded, its counts."""

    name: str
    value: bytes


class UndoRow(NamedTuple):
    """How to take back a pending op, and the op itself, to apply it again."""

    position: int
    op_id: int
    images: bytes
    op: bytes


class TableSpec(NamedTuple):
    """A table as its cache sees it: the first `keys` columns of `row` are its key.

    `blobs` are the places of columns that hold bytes.
    """

    number: int
    name: str
    row: Callable[[Sequence[Any]], Any]
    columns: tuple[str, ...]
    keys: int
    blobs: tuple[int, ...]

    @property
    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"

    @property
    def where(self) -> str:
        return " AND ".join(f"{column} = ?" for column in self.columns[: self.keys])

    @property
    def put(self) -> str:
        marks = ", ".join("?" * len(self.columns))
        return f"INSERT OR REPLACE INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"

    @property
    def remove(self) -> str:
        return f"DELETE FROM {self.name} WHERE {self.where}"

    def bound(self, row: Sequence[Any]) -> list[Any]:
        """`row` as it is handed to SQLite. Its binding asks each bytes, and each subclass of a
        tuple, whether it wants to adapt: 2.5 us a column, which bytearrays in a list do not pay.
        None is as slow, and is stored as empty."""
        values = list(row)
        for place in self.blobs:
            values[place] = bytearray(values[place] or b"")
        return values


def _spec(number: int, name: str, row: Any, keys: int) -> TableSpec:
    columns = tuple("count_" if field == "count" else field for field in row._fields)
    kinds = get_type_hints(row)
    blobs = tuple(
        place for place, field in enumerate(row._fields) if kinds[field] in (bytes, bytes | None)
    )
    return TableSpec(number, name, row._make, columns, keys, blobs)


INODE = _spec(0, "inode", InodeRow, 1)
DENTRY = _spec(1, "dentry", DentryRow, 2)
VERSION = _spec(2, "version", VersionRow, 1)
EXTENT = _spec(3, "extent", ExtentRow, 4)
XATTR = _spec(4, "xattr", XattrRow, 2)
STAGED = _spec(5, "staged", StagedRow, 2)
DIRECTORY = _spec(6, "directory", DirectoryRow, 1)
MEMBER = _spec(7, "member", MemberRow, 1)
SESSION = _spec(8, "session", SessionRow, 1)
GENERATION = _spec(9, "generation", GenerationRow, 1)
VALUE = _spec(10, "value", ValueRow, 1)
UNDO = _spec(11, "undo", UndoRow, 1)
PLACE = _spec(12, "place", PlaceRow, 1)
REMOVED = _spec(13, "removed", RemovedRow, 1)

TABLES = (
    INODE,
    DENTRY,
    VERSION,
    EXTENT,
    XATTR,
    STAGED,
    DIRECTORY,
    MEMBER,
    SESSION,
    GENERATION,
    VALUE,
    UNDO,
    PLACE,
    REMOVED,
)


def _table(spec: TableSpec) -> str:
    """A table of one integer key is ordered by it in its own tree, any other without a rowid."""
    names = ", ".join(spec.columns)
    if spec.number in _INTEGER_KEYS:
        return f"CREATE TABLE {spec.name} ({names.replace(',', ' INTEGER PRIMARY KEY,', 1)})"
    keys = ", ".join(spec.columns[: spec.keys])
    return f"CREATE TABLE {spec.name} ({names}, PRIMARY KEY ({keys})) WITHOUT ROWID"


_INTEGER_KEYS = {spec.number for spec in (INODE, VERSION, DIRECTORY, SESSION, UNDO, REMOVED)}

_DDL = (
    *map(_table, TABLES),
    "CREATE INDEX dentry_order ON dentry (parent, id)",
    "CREATE INDEX dentry_names ON dentry (ino)",
    # What was removed, by the directory it was in last.
    "CREATE INDEX inode_nameless ON inode (last_parent) WHERE nlink = 0",
    # The first version of nearly every file has its inode's number: those need no index.
    "CREATE INDEX version_order ON version (ino, stamp) WHERE id != ino",
    "CREATE TABLE segment (number INTEGER PRIMARY KEY, id UNIQUE, stored_len, footer_len,"
    " footer_hash, generation, head, committed)",
    "CREATE TABLE entry (sequence INTEGER PRIMARY KEY, hash, void)",
)

SCHEMA_VERSION = crc32("\n".join((str(PAGE_SIZE), *_DDL)).encode()) & 0x7FFFFFFF
"""Any change of a table is another number; such a database is rebuilt, never migrated."""


def opening_statements(key: bytes) -> tuple[str, ...]:
    """What a connection is told before anything else. Raises ConfigError."""
    if len(key) != KEY_SIZE:
        raise ConfigError(f"The replica's key has {KEY_SIZE} bytes.")
    return (
        # A raw key cannot be a parameter; it is the one statement that nobody traces or prints.
        f"PRAGMA key = \"x'{key.hex()}'\"",
        f"PRAGMA cipher_page_size = {PAGE_SIZE}",
        # Processors have instructions for SHA-256, not for the default's SHA-512: half the time.
        "PRAGMA cipher_hmac_algorithm = HMAC_SHA256",
        # The library prints what it refuses to stderr; we raise it, which is enough.
        "PRAGMA cipher_log_level = NONE",
    )


def connect(path: Path, key: bytes) -> Any:
    """A connection that opens the database's pages with `key`. Raises sqlcipher3 errors."""
    opening = opening_statements(key)
    connection = sqlcipher3.connect(
        str(path), isolation_level=None, check_same_thread=False, cached_statements=128, timeout=10
    )
    try:
        for statement in opening:
            connection.execute(statement)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_SIZE_MAX}").fetchone()
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_database(path: Path, key: bytes) -> tuple[Any, str]:
    """The database at `path`, made if need be.

    Returns the connection and why it was made new: "" if it was there and whole. Raises DiskFull,
    or StateDamaged if no database can be made there.
    """
    reason = "there was none"
    if path.exists():
        try:
            connection, reason = _open_existing(path, key)
        except sqlcipher3.DatabaseError as error:
            reason = f"it is damaged ({error})"
        else:
            if not reason:
                return connection, ""
            connection.close()
        remove_database(path)
    try:
        return _make(path, key), reason
    except sqlcipher3.DatabaseError as error:
        if "full" in str(error):
            raise DiskFull(f"There is no room for the replica {path}. Free some space.") from error
        raise StateDamaged(
            f"The replica {path} cannot be made: {error}. Check the disk and its permissions."
        ) from error


def remove_database(path: Path) -> None:
    """Delete a database and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _open_existing(path: Path, key: bytes) -> tuple[Any, str]:
    connection = connect(path, key)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            return connection, f"another version of lucid wrote it (schema {version})"
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("SELECT count(*) FROM place").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection, ""


def _make(path: Path, key: bytes) -> Any:
    # SQLite gives the files beside a database its permissions.
    path.touch(0o600)
    connection = connect(path, key)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("BEGIN")
        for statement in _DDL:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection
