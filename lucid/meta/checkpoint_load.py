"""A replica's database from the rows of a checkpoint instead of from the log.

`StateLoader` fills a database that nobody else uses yet. Until `finish` it is no replica, and says
so to whoever opens it; who opens a filespace fills one beside the replica's place and moves it
there once it is believed. Chunks come from one thread. The database is left without a log of
SQLite's beside it.

Rows come in the order of their keys, each above the one before: each table grows at its end. The
indices are made when all rows are there, which sorts once instead of searching for each row.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgpack
import sqlcipher3

from lucid.engine.errors import BadRows, TableFailed
from lucid.engine.tableload import TableLoad
from lucid.errors import DiskFull, FormatError, StateDamaged
from lucid.format.checkpoint import TABLE_KEYS, TABLE_KINDS, StateTable
from lucid.format.entry import EntryRef
from lucid.meta import schema
from lucid.meta.checkpoint_rows import PLAIN_TABLES
from lucid.meta.replica_writes import Place
from lucid.meta.schema import EXTENT, STAGED, TableSpec

__all__ = ["StateLoader", "move_database"]

LOAD_CACHE_KIB = 16_384
"""Opened pages while rows come: each is written once, when the table has grown beyond it."""

_TOLD = (StateTable.PLACE, StateTable.VALUE, StateTable.STAGED)
"""Tables whose rows are made into others here, which go in under a number of their own."""
_OWN = 100
_VALUES = _OWN + StateTable.VALUE
_STAGED = _OWN + StateTable.STAGED

_INSERTS = {
    StateTable.ENTRY: "INSERT INTO entry (sequence, hash, void) VALUES (?, ?, NULL)",
    StateTable.SEGMENT: "INSERT INTO segment (id, stored_len, footer_len, footer_hash, generation,"
    " head, committed) VALUES (?, ?, ?, ?, ?, ?, 1)",
}
_ENTRY = "INSERT OR REPLACE INTO entry (sequence, hash, void) VALUES (?, ?, NULL)"
_INDICES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
_UNSAFE = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF")
"""Half of it is worth nothing: no log of SQLite's, which would be as large again, and no waiting
for the disk before all is there."""


class StateLoader:
    """Takes the chunks of a state in order, then makes a replica of them."""

    def __init__(self, path: Path, key: bytes) -> None:
        """What is at `path` is deleted. Raises DiskFull or StateDamaged."""
        self._path = path
        self._key = key
        self._place: tuple[Any, ...] | None = None
        schema.remove_database(path)
        connection, _ = schema.open_database(path, key)
        with _Told():
            try:
                connection.execute("PRAGMA journal_mode = DELETE").fetchone()
                self._indices = connection.execute(_INDICES).fetchall()
                for name, _ in self._indices:
                    connection.execute(f"DROP INDEX {name}")
                # Of no version that anybody opens, until it is whole.
                connection.execute("PRAGMA user_version = 0")
            finally:
                connection.close()
            cache = f"PRAGMA cache_size = -{LOAD_CACHE_KIB}"
            self._load = TableLoad(
                os.fspath(path), (*schema.opening_statements(key), *_UNSAFE, cache, "BEGIN")
            )
            _take_tables(self._load)

    def add(self, data: bytes, first_key: bytes | None = None) -> None:
        """The next chunk's rows. `first_key`: the packed key that its manifest names.

        Raises FormatError for rows that are none, or do not follow those before.
        """
        with _Told():
            for row in self._load.feed(data, first_key):
                self._tell(msgpack.unpackb(row, raw=True, use_list=False))

    def finish(self) -> EntryRef:
        """All rows are there: from now on it is a replica at the entry that is returned.

        Raises FormatError if the rows make no state.
        """
        if self._place is None:
            raise FormatError("A checkpoint does not say where it stands in the log.")
        sequence, digest, member_at, member_hash, voids, inodes, data_bytes = self._place
        membership = EntryRef(member_at, member_hash)
        place = Place(sequence, digest, 0, b"", membership, inodes, data_bytes, voids)
        with _Told():
            self._load.run("COMMIT")
            self._load.close()
            connection = schema.connect(self._path, self._key)
            try:
                self._complete(connection, place)
            finally:
                connection.close()
        return EntryRef(sequence, digest)

    def discard(self) -> None:
        """Delete what was loaded. Idempotent, also after `finish`."""
        self._load.close()
        schema.remove_database(self._path)

    def _complete(self, connection: Any, place: Place) -> None:
        for pragma in _UNSAFE:
            connection.execute(pragma).fetchall()
        connection.execute("BEGIN")
        for _, sql in self._indices:
            connection.execute(sql)
        # The newest entry of each session is known by its row. Notes of the own journal are
        # compared with it: what they settle must not be applied again.
        connection.execute(
            "INSERT OR IGNORE INTO entry (sequence, hash, void)"
            " SELECT last_sequence, last_hash, NULL FROM session WHERE last_sequence > 0"
        )
        connection.execute(_ENTRY, (place.sequence, place.hash))
        connection.execute(schema.PLACE.put, ("place", msgpack.packb(place)))
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()

    def _tell(self, row: tuple[Any, ...]) -> None:
        number, *fields = row
        if number == StateTable.PLACE:
            self._place = tuple(fields)
        elif number == StateTable.VALUE:
            _check_text(fields[0])
            self._load.put(msgpack.packb((_VALUES, *fields)))
        else:
            self._load.put(msgpack.packb((_STAGED, *_staged(fields))))


class _Told(AbstractContextManager[None]):
    """Errors of SQLite and of rows told as ours."""

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, BadRows):
            raise FormatError(str(error)) from error
        code = error.code if isinstance(error, TableFailed) else None
        if isinstance(error, sqlcipher3.IntegrityError) or code == TableFailed.CONSTRAINT:
            raise FormatError(
                f"The rows of a checkpoint contradict each other: {error}."
            ) from error
        if isinstance(error, sqlcipher3.Error | TableFailed):
            if code == TableFailed.FULL or "full" in str(error):
                raise DiskFull("There is no room for the replica. Free some space.") from error
            raise StateDamaged(
                f"The replica cannot be written: {error}. Check the disk."
            ) from error


def move_database(source: Path, target: Path, key: bytes) -> None:
    """A closed database takes the place of another, in one step. Raises StateDamaged."""
    try:
        source.stat()  # To connect to what is not there would make it.
        connection = schema.connect(source, key)
        try:
            # All of it into the one file: a log of SQLite's left beside it would be lost, or be
            # taken for the other's.
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            if mode != "delete":
                raise StateDamaged(f"The replica {source} is still in use.")
        finally:
            connection.close()
        _sync(source)
        schema.remove_database(target)
        os.replace(source, target)
    except (OSError, sqlcipher3.Error) as error:
        raise StateDamaged(f"The replica cannot be put in its place: {error}.") from error


def _sync(path: Path) -> None:
    """Whoever filled it did not wait for the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _take_tables(load: TableLoad) -> None:
    specs = {PLAIN_TABLES[one.name]: one for one in schema.TABLES if one.name in PLAIN_TABLES}
    specs[StateTable.EXTENT] = EXTENT
    for number, kinds in TABLE_KINDS.items():
        sql = None
        if number not in _TOLD:
            sql = _INSERTS.get(number) or _insert(specs[number])
        load.take(number, kinds, TABLE_KEYS[number] - 1, sql)
    load.take(_VALUES, "tb", 1, _insert(schema.VALUE))
    load.take(_STAGED, "iib", 2, _insert(STAGED))
    load.number_segments("SELECT number FROM segment WHERE id = ?")


def _insert(spec: TableSpec) -> str:
    """Keys are above all before: nothing is replaced, and twice the same is an error."""
    return spec.put.replace("INSERT OR REPLACE", "INSERT", 1)


def _staged(row: list[Any]) -> tuple[Any, ...]:
    """A part for each change: how they were parted is no part of the state."""
    target, position, *change, packed = row
    lengths = None
    if packed:
        if len(packed) % 4:
            raise FormatError("The lengths of a staged change are not whole numbers.")
        lengths = memoryview(packed).cast("I").tolist()
    return target, position, msgpack.packb([[*change, lengths]])


def _check_text(name: bytes) -> None:
    try:
        name.decode()
    except UnicodeDecodeError as error:
        raise FormatError("The name of a value is not UTF-8.") from error
