"""The replica's rows between SQL and the fold: a write-back cache for each table, one transaction.

Owns the connection that writes. Rows that were put wait in a dictionary and go to SQL in batches:
before a question that a dictionary cannot answer, when there are many, and before each commit. So a
fold pays one SQL call for a row it has not seen, none for one it has, and a tenth of one for a row
that it writes. Not safe for threads: the replica's lock is held around every call.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import sqlcipher3

from lucid.errors import DiskFull, LucidError, StateDamaged, Stopped
from lucid.format.ops import SegmentRow
from lucid.meta import schema
from lucid.meta.schema import TableSpec

__all__ = ["MISSING", "Table", "Tables"]

CACHE_ROWS = 4096
"""Rows a table keeps in memory, clean ones too; about 2 MB for the largest."""

FLUSH_ROWS = 256
"""Unwritten rows of all tables before they go to SQL: about a millisecond of work."""

SEGMENT_NUMBERS = 4096
"""Segment ids whose local numbers are remembered."""

SESSIONS = 4096
"""Sessions whose highest id is remembered, for each table of ids."""

NAMES_KNOWN = 100_000
"""Names of new directories that are remembered by hash; about 6 MB."""

MISSING: Any = object()
_SEGMENT_COLUMNS = "id, stored_len, footer_len, footer_hash, generation, head"


class Table:
    """Rows of one table by key. A key is the first column, or a tuple of the first few."""

    __slots__ = ("_connection", "_owner", "dirty", "rows", "single", "spec")

    def __init__(self, spec: TableSpec, connection: Sql, owner: Tables) -> None:
        self.spec = spec
        self.single = spec.keys == 1
        self.rows: dict[Any, Any] = {}
        self.dirty: dict[Any, None] = {}
        self._connection = connection
        self._owner = owner

    def get(self, key: Any) -> Any:
        """The row, or None."""
        row = self.rows.get(key, MISSING)
        if row is not MISSING:
            return row
        if self._never_was(key):
            return None
        spec = self.spec
        found = self._connection.execute(_SELECT_ONE[spec.number], self._bound(key)).fetchone()
        if len(self.rows) >= CACHE_ROWS:
            self.shrink()
        row = self.rows[key] = None if found is None else spec.row(found)
        return row

    def put(self, key: Any, row: Any) -> None:
        """`row` stands under `key` from now on; None: no row does."""
        self.rows[key] = row
        if key not in self.dirty:
            self.dirty[key] = None
            self._owner.unwritten += 1

    def _never_was(self, key: Any) -> bool:
        """True where it is certain, without a question to SQL, that there is no such row."""
        return False

    def forget(self) -> None:
        """Drop all rows, the unwritten ones too."""
        self.rows.clear()
        self.dirty.clear()

    def shrink(self) -> None:
        """Forget the clean rows."""
        self.rows = {key: self.rows[key] for key in self.dirty}

    def flush(self) -> None:
        """Write what is unwritten."""
        dirty, rows = self.dirty, self.rows
        if not dirty:
            return
        number, bound = self.spec.number, self.spec.bound
        put = [bound(rows[key]) for key in dirty if rows[key] is not None]
        if len(put) < len(dirty):
            gone = [self._bound(key) for key in dirty if rows[key] is None]
            self._connection.executemany(_REMOVE[number], gone)
        if put:
            self._connection.executemany(_PUT[number], put)
        self._owner.unwritten -= len(dirty)
        dirty.clear()
        if len(rows) >= CACHE_ROWS:
            rows.clear()

    def _bound(self, key: Any) -> list[Any]:
        """A key as `TableSpec.bound` makes rows."""
        if self.single:
            return [bytearray(key) if type(key) is bytes else key]
        return [bytearray(part) if type(part) is bytes else part for part in key]


class IdTable(Table):
    """Rows by op id. Ids grow in each session, so a new op's id is beyond the highest one there."""

    __slots__ = ("_highest",)

    def __init__(self, spec: TableSpec, connection: Sql, owner: Tables) -> None:
        super().__init__(spec, connection, owner)
        self._highest: dict[int, int] = {}

    def put(self, key: int, row: Any) -> None:
        session = key >> 32
        top = self._highest.get(session)
        if top is None:
            top = self._find(session)
        if key > top:
            self._highest[session] = key
        # As Table.put does it; called for most rows that are written.
        self.rows[key] = row
        if key not in self.dirty:
            self.dirty[key] = None
            self._owner.unwritten += 1

    def _never_was(self, key: int) -> bool:
        session = key >> 32
        highest = self._highest.get(session)
        return key > (self._find(session) if highest is None else highest)

    def _find(self, session: int) -> int:
        if len(self._highest) >= SESSIONS:
            self._highest.clear()
        column, name = self.spec.columns[0], self.spec.name
        (found,) = self._connection.execute(
            f"SELECT max({column}) FROM {name} WHERE {column} >= ? AND {column} < ?",
            (session << 32, session + 1 << 32),
        ).fetchone()
        unwritten = (key for key in self.dirty if key >> 32 == session)
        highest = self._highest[session] = max(unwritten, default=found or 0)
        if found is not None and found > highest:
            highest = self._highest[session] = found
        return highest


class DentryTable(Table):
    """Names. Of a directory that was made since the replica was opened, all are known by hash."""

    __slots__ = ("_count", "_known")

    def __init__(self, spec: TableSpec, connection: Sql, owner: Tables) -> None:
        super().__init__(spec, connection, owner)
        self._known: dict[int, set[int]] = {}
        self._count = 0

    def directory_is_new(self, ino: int) -> None:
        """No name was ever put into this directory."""
        self._known.setdefault(ino, set())

    def put(self, key: tuple[int, bytes], row: Any) -> None:
        known = self._known.get(key[0])
        if known is not None and row is not None:
            known.add(hash(key[1]))
            self._count += 1
            if self._count > NAMES_KNOWN:
                self._known.clear()
                self._count = 0
        self.rows[key] = row
        if key not in self.dirty:
            self.dirty[key] = None
            self._owner.unwritten += 1

    def _never_was(self, key: tuple[int, bytes]) -> bool:
        known = self._known.get(key[0])
        return known is not None and hash(key[1]) not in known


class StagedTable(Table):
    """Staged changes. Few ops have any, so their targets are all in memory."""

    __slots__ = ("targets",)

    def __init__(self, spec: TableSpec, connection: Sql, owner: Tables) -> None:
        super().__init__(spec, connection, owner)
        found = connection.execute("SELECT DISTINCT target FROM staged").fetchall()
        self.targets = {row[0] for row in found}

    def put(self, key: tuple[int, int], row: Any) -> None:
        if row is not None:
            self.targets.add(key[0])
        super().put(key, row)


class Sql:
    """The connection, with its errors told as ours. After `close` every call raises Stopped.

    `damage` is a sentence once the database has shown itself to be no more whole.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._closed = False
        self.damage = ""
        self._execute = connection.execute
        self._executemany = connection.executemany

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        try:
            return self._execute(sql, values)
        except sqlcipher3.Error as error:
            raise self._told(error) from error

    def executemany(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        try:
            self._executemany(sql, values)
        except sqlcipher3.Error as error:
            raise self._told(error) from error

    def close(self) -> None:
        self._closed = True
        self._connection.close()

    def _told(self, error: Exception) -> LucidError:
        if self._closed:
            return Stopped("The replica is closed.")
        if isinstance(error, sqlcipher3.OperationalError):
            if "full" in str(error):
                return DiskFull("There is no room for the replica on the local disk.")
            return StateDamaged(f"The replica cannot be used: {error}. Check the local disk.")
        self.damage = f"The replica is damaged: {error}. Unmount and mount again to rebuild it."
        return StateDamaged(self.damage)


class Tables:
    """All tables, the segments, and the transaction. `writes` counts rows since the last commit."""

    def __init__(self, raw: Any) -> None:
        connection = self.connection = Sql(raw)
        self.unwritten = 0
        self.writes = 0
        self.in_transaction = False
        self._numbers: dict[bytes, int] = {}
        self.inode = IdTable(schema.INODE, connection, self)
        self.dentry = DentryTable(schema.DENTRY, connection, self)
        self.version = IdTable(schema.VERSION, connection, self)
        self.extent = Table(schema.EXTENT, connection, self)
        self.xattr = Table(schema.XATTR, connection, self)
        self.staged = StagedTable(schema.STAGED, connection, self)
        self.directory = IdTable(schema.DIRECTORY, connection, self)
        self.member = Table(schema.MEMBER, connection, self)
        self.session = Table(schema.SESSION, connection, self)
        self.generation = Table(schema.GENERATION, connection, self)
        self.value = Table(schema.VALUE, connection, self)
        self.undo = Table(schema.UNDO, connection, self)
        self.place = Table(schema.PLACE, connection, self)
        # In the order of their numbers, which stand in the undo images.
        self._all: list[Table] = [
            self.inode,
            self.dentry,
            self.version,
            self.extent,
            self.xattr,
            self.staged,
            self.directory,
            self.member,
            self.session,
            self.generation,
            self.value,
            self.undo,
            self.place,
        ]

    @property
    def damage(self) -> str:
        return self.connection.damage

    def close(self) -> None:
        self.connection.close()

    def __getitem__(self, number: int) -> Table:
        return self._all[number]

    def query(self, sql: str, values: Sequence[Any], *tables: Table) -> list[Any]:
        """Rows of a question to SQL that reads `tables`; what they have unwritten goes first."""
        for table in tables:
            if table.dirty:
                self.begin()
                self._flush(table)
        found: list[Any] = self.connection.execute(sql, values).fetchall()
        return found

    def begin(self) -> None:
        """Start a transaction if none is under way."""
        if not self.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
            self.in_transaction = True

    def execute(self, sql: str, values: Sequence[Any]) -> Any:
        """One statement of its own within the transaction."""
        self.begin()
        self.writes += 1
        return self.connection.execute(sql, values)

    def flush_if_many(self) -> None:
        """Between two ops: keeps the unwritten rows few."""
        if self.unwritten >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Everything unwritten goes to SQL."""
        if self.unwritten:
            self.begin()
            for table in self._all:
                self._flush(table)

    def commit(self) -> None:
        """End the transaction; all that was put is then in the database's log."""
        self.flush()
        if self.in_transaction:
            self.connection.execute("COMMIT")
            self.in_transaction = False
        self.writes = 0

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        for table in self._all:
            table.forget()
        self._numbers.clear()
        self.unwritten = self.writes = 0
        if self.in_transaction:
            self.in_transaction = False
            self.connection.execute("ROLLBACK")

    def _flush(self, table: Table) -> None:
        self.writes += len(table.dirty)
        table.flush()

    # Segments: interned, so that an extent names one by a small number. A row is made by whoever
    # names the segment first and is never taken back; `committed` says whether the log names it.

    def segment_number(self, segment: bytes) -> int:
        """The local number of a segment, given at its first mention."""
        number = self._numbers.get(segment)
        if number is not None:
            return number
        found = self.connection.execute(
            "SELECT number FROM segment WHERE id = ?", (segment,)
        ).fetchone()
        if found is None:
            number = self.execute("INSERT INTO segment (id) VALUES (?)", (segment,)).lastrowid
        else:
            number = found[0]
        if len(self._numbers) >= SEGMENT_NUMBERS:
            self._numbers.clear()
        self._numbers[segment] = number
        return int(number)

    def segment(self, segment: bytes, pending: bool) -> SegmentRow | None:
        """What the log says of a segment; with `pending` also what own pending ops say."""
        found = self.connection.execute(
            f"SELECT {_SEGMENT_COLUMNS}, committed FROM segment WHERE id = ?", (segment,)
        ).fetchone()
        if found is None or found[6] is None or not (pending or found[6]):
            return None
        return SegmentRow._make(found[:6])

    def segment_id(self, number: int) -> bytes:
        """The id of a segment by its local number; empty for none."""
        if number == 0:
            return b""
        found = self.connection.execute(
            "SELECT id FROM segment WHERE number = ?", (number,)
        ).fetchone()
        return bytes(found[0])

    def segment_row(self, number: int) -> SegmentRow:
        """A segment by its local number, as far as it is known."""
        row = self.connection.execute(
            f"SELECT {_SEGMENT_COLUMNS} FROM segment WHERE number = ?", (number,)
        ).fetchone()
        segment, stored_len, footer_len, footer_hash, generation, head = row
        return SegmentRow(
            segment, stored_len or 0, footer_len or 0, footer_hash or b"", generation or b"",
            head or 0,
        )  # fmt: skip

    def put_segment(self, row: SegmentRow, committed: bool) -> None:
        """Note a segment's row. What the log said first stays."""
        number = self.segment_number(row.id)
        self.execute(
            "UPDATE segment SET stored_len = ?, footer_len = ?, footer_hash = ?, generation = ?,"
            " head = ?, committed = ? WHERE number = ? AND committed IS NOT 1",
            (*row[1:], int(committed), number),
        )

    def lengths(self, packed: bytes) -> tuple[int, ...] | None:
        """Stored lengths of an extent's blocks as the fold has them."""
        if not packed:
            return None
        return struct.unpack(f"<{len(packed) // 4}I", packed)


_SELECT_ONE = [f"{spec.select} WHERE {spec.where}" for spec in schema.TABLES]
_PUT = [spec.put for spec in schema.TABLES]
_REMOVE = [spec.remove for spec in schema.TABLES]
