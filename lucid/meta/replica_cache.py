"""Rows of one table between SQL and the fold: a write-back cache, and what is known without SQL.

Rows that were put wait in a dictionary and go to SQL in batches. A fold asks mostly for what is
not there (is this id new, is this name free): tables of ids and names often know that by
themselves. Not safe for threads: the replica's lock is held around every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lucid.meta import schema
from lucid.meta.replica_sql import Sql
from lucid.meta.schema import TableSpec

__all__ = ["MISSING", "DentryTable", "IdTable", "StagedTable", "Table", "Unwritten"]

CACHE_ROWS = 4096
"""Rows a table keeps in memory, clean ones too; about 2 MB for the largest."""

SESSIONS = 4096
"""Sessions whose highest id is remembered, for each table of ids."""

NAMES_KNOWN = 100_000
"""Names of new directories that are remembered by hash; about 6 MB."""

MISSING: Any = object()


class Unwritten:
    """How many rows of all tables wait to be written."""

    def __init__(self) -> None:
        self.unwritten = 0


class Table:
    """Rows of one table by key. A key is the first column, or a tuple of the first few."""

    __slots__ = ("_connection", "_owner", "dirty", "on_put", "rows", "single", "spec")

    def __init__(self, spec: TableSpec, connection: Sql, owner: Unwritten) -> None:
        self.spec = spec
        self.single = spec.keys == 1
        self.rows: dict[Any, Any] = {}
        self.dirty: dict[Any, None] = {}
        self.on_put: Callable[[Any], None] | None = None
        """Told the key of each row that is put, once it stands there."""
        self._connection = connection
        self._owner = owner

    def get(self, key: Any) -> Any:
        """The row, or None."""
        row = self.rows.get(key, MISSING)
        return self.find(key) if row is MISSING else row

    def find(self, key: Any) -> Any:
        """The row, or None, where `rows` does not say."""
        return self._ask(key)

    def _ask(self, key: Any) -> Any:
        spec = self.spec
        found = self._connection.row(_SELECT_ONE[spec.number], self._bound(key))
        row = None if found is None else spec.row(found)
        self.keep(key, row)
        return row

    def keep(self, key: Any, row: Any) -> None:
        """Remember what SQL said of `key`, which `rows` did not have."""
        if len(self.rows) >= CACHE_ROWS:
            self.shrink()
        self.rows[key] = row

    def put(self, key: Any, row: Any) -> None:
        """`row` stands under `key` from now on; None: no row does."""
        self.rows[key] = row
        if key not in self.dirty:
            self.dirty[key] = None
            self._owner.unwritten += 1
        if self.on_put is not None:
            self.on_put(key)

    def forget(self) -> None:
        """Drop all rows, the unwritten ones too."""
        self.rows.clear()
        self.dirty.clear()

    def shrink(self) -> None:
        """Forget the clean rows. `rows` stays the same dictionary: others hold on to it."""
        kept = {key: self.rows[key] for key in self.dirty}
        self.rows.clear()
        self.rows.update(kept)

    def flush(self) -> None:
        """Write what is unwritten."""
        dirty, rows = self.dirty, self.rows
        if not dirty:
            return
        number, bound = self.spec.number, self.spec.bound if self.spec.blobs else list
        put = [bound(rows[key]) for key in dirty if rows[key] is not None]
        if len(put) < len(dirty):
            gone = [self._bound(key) for key in dirty if rows[key] is None]
            self._connection.run_many(_REMOVE[number], gone)
        if put:
            self._connection.run_many(_PUT[number], put)
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

    def __init__(self, spec: TableSpec, connection: Sql, owner: Unwritten) -> None:
        super().__init__(spec, connection, owner)
        self._highest: dict[int, int] = {}

    def put(self, key: int, row: Any) -> None:
        session = key >> 32
        top = self._highest.get(session)
        if top is None:
            top = self._find_highest(session)
        if key > top:
            self._highest[session] = key
        # As Table.put does it; called for most rows that are written.
        self.rows[key] = row
        if key not in self.dirty:
            self.dirty[key] = None
            self._owner.unwritten += 1
        if self.on_put is not None:
            self.on_put(key)

    def find(self, key: int) -> Any:
        session = key >> 32
        top = self._highest.get(session)
        if top is None:
            top = self._find_highest(session)
        return None if key > top else self._ask(key)

    def _find_highest(self, session: int) -> int:
        if len(self._highest) >= SESSIONS:
            self._highest.clear()
        column, name = self.spec.columns[0], self.spec.name
        ((found,),) = self._connection.rows(
            f"SELECT max({column}) FROM {name} WHERE {column} >= ? AND {column} < ?",
            (session << 32, session + 1 << 32),
        )
        unwritten = (key for key in self.dirty if key >> 32 == session)
        highest = self._highest[session] = max(unwritten, default=found or 0)
        if found is not None and found > highest:
            highest = self._highest[session] = found
        return highest


class DentryTable(Table):
    """Names. Of a directory that was made since the replica was opened, all are known by hash."""

    __slots__ = ("_count", "_known", "on_new_directory")

    def __init__(self, spec: TableSpec, connection: Sql, owner: Unwritten) -> None:
        super().__init__(spec, connection, owner)
        self._known: dict[int, set[int]] = {}
        self._count = 0
        self.on_new_directory: Callable[[int], None] = lambda ino: None

    def directory_is_new(self, ino: int) -> None:
        """No name was ever put into this directory."""
        self._known.setdefault(ino, set())
        self.on_new_directory(ino)

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
        if self.on_put is not None:
            self.on_put(key)

    def is_free(self, key: tuple[int, bytes]) -> bool:
        """Whether this name is known to lead nowhere, without asking SQL. `rows` may say more."""
        known = self._known.get(key[0])
        return known is not None and hash(key[1]) not in known

    def find(self, key: tuple[int, bytes]) -> Any:
        return None if self.is_free(key) else self._ask(key)


class StagedTable(Table):
    """Staged changes. Few ops have any, so their targets are all in memory."""

    __slots__ = ("targets",)

    def __init__(self, spec: TableSpec, connection: Sql, owner: Unwritten) -> None:
        super().__init__(spec, connection, owner)
        found = connection.rows("SELECT DISTINCT target FROM staged")
        self.targets = {row[0] for row in found}

    def put(self, key: tuple[int, int], row: Any) -> None:
        if row is not None:
            self.targets.add(key[0])
        super().put(key, row)


_SELECT_ONE = [f"{spec.select} WHERE {spec.where}" for spec in schema.TABLES]
_PUT = [spec.put for spec in schema.TABLES]
_REMOVE = [spec.remove for spec in schema.TABLES]
