"""A replica's database from the rows of a checkpoint instead of from the log.

`StateLoader` fills a database that nobody else uses yet. Until `finish` it is no replica; whoever
opens a filespace fills one beside the replica's place and moves it there once it is believed.
Rows come from one thread. The database is left without a log of SQLite's beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgpack
import sqlcipher3

from lucid.errors import DiskFull, FormatError, StateDamaged
from lucid.format.checkpoint import StateTable, row_key
from lucid.format.entry import EntryRef
from lucid.meta import schema
from lucid.meta.checkpoint_rows import PLAIN_TABLES
from lucid.meta.replica_writes import Place
from lucid.meta.schema import EXTENT, STAGED, TableSpec

__all__ = ["StateLoader", "move_database"]

_COMMIT_ROWS = 100_000
_SEGMENT = (
    "INSERT INTO segment (id, stored_len, footer_len, footer_hash, generation, head, committed)"
    " VALUES (?, ?, ?, ?, ?, ?, 1)"
)
_ENTRY = "INSERT OR REPLACE INTO entry (sequence, hash, void) VALUES (?, ?, NULL)"
_UNKNOWN = -1


class StateLoader:
    """Takes the rows of a state in order, then makes a replica of them."""

    def __init__(self, path: Path, key: bytes) -> None:
        """What is at `path` is deleted. Raises DiskFull or StateDamaged."""
        self._path = path
        schema.remove_database(path)
        self._connection, _ = schema.open_database(path, key)
        self._specs = {
            PLAIN_TABLES[spec.name]: spec for spec in schema.TABLES if spec.name in PLAIN_TABLES
        }
        self._place: Sequence[Any] | None = None
        self._last: tuple[Any, ...] = ()
        self._rows = 0
        with _Told(self):
            # Half of it is worth nothing: no log of SQLite's, which would be as large again.
            self._connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            self._connection.execute("PRAGMA journal_mode = OFF").fetchone()
            self._connection.execute("BEGIN")

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """The next rows. Raises FormatError where they do not follow those before."""
        if rows and row_key(rows[0]) <= self._last:
            raise FormatError("The chunks of a checkpoint are not in order.")
        self._last = row_key(rows[-1])
        with _Told(self):
            for number, group in groupby(rows, key=itemgetter(0)):
                self._put(number, [row[1:] for row in group])
            self._rows += len(rows)
            if self._rows >= _COMMIT_ROWS:
                self._rows = 0
                self._connection.execute("COMMIT")
                self._connection.execute("BEGIN")

    def finish(self) -> EntryRef:
        """All rows are there: from now on it is a replica at the entry that is returned.

        Raises FormatError if the rows make no state.
        """
        if self._place is None:
            raise FormatError("A checkpoint does not say where it stands in the log.")
        sequence, digest, member_at, member_hash, voids, inodes, data_bytes = self._place
        membership = EntryRef(member_at, member_hash)
        place = Place(sequence, digest, 0, b"", membership, inodes, data_bytes, voids)
        with _Told(self):
            ((unknown,),) = self._connection.execute(
                "SELECT count(*) FROM extent WHERE segment = ?", (_UNKNOWN,)
            ).fetchall()
            if unknown:
                raise FormatError("A file in a checkpoint names a segment that no entry brought.")
            # The newest entry of each session is known by its row. Notes of the own journal are
            # compared with it: what they settle must not be applied again.
            self._connection.execute(
                "INSERT OR IGNORE INTO entry (sequence, hash, void)"
                " SELECT last_sequence, last_hash, NULL FROM session WHERE last_sequence > 0"
            )
            self._connection.execute(_ENTRY, (sequence, digest))
            self._connection.execute(schema.PLACE.put, ("place", msgpack.packb(place)))
            self._connection.execute("COMMIT")
            self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        self._connection.close()
        return EntryRef(sequence, digest)

    def discard(self) -> None:
        """Delete what was loaded. Idempotent, also after `finish`."""
        self._connection.close()
        schema.remove_database(self._path)

    def _put(self, number: int, rows: list[tuple[Any, ...]]) -> None:
        run_many = self._connection.executemany
        if number == StateTable.PLACE:
            (self._place,) = rows
        elif number == StateTable.ENTRY:
            run_many(_ENTRY, rows)
        elif number == StateTable.SEGMENT:
            run_many(_SEGMENT, rows)
        elif number == StateTable.EXTENT:
            run_many(_EXTENT_PUT, map(_extent, rows))
        elif number == StateTable.STAGED:
            run_many(STAGED.put, map(_staged, rows))
        else:
            spec = self._specs.get(number)
            if spec is None:
                raise FormatError(f"A checkpoint has a table {number} that no state has here.")
            named = _named(rows) if number == StateTable.VALUE else rows
            run_many(spec.put, map(spec.bound, named) if spec.blobs else named)


class _Told:
    """SQLite's errors told as ours."""

    def __init__(self, loader: StateLoader) -> None:
        self._loader = loader

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, sqlcipher3.IntegrityError):
            raise FormatError(
                f"The rows of a checkpoint contradict each other: {error}."
            ) from error
        if isinstance(error, sqlcipher3.Error):
            if "full" in str(error):
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
        schema.remove_database(target)
        os.replace(source, target)
    except (OSError, sqlcipher3.Error) as error:
        raise StateDamaged(f"The replica cannot be put in its place: {error}.") from error


def _marked(spec: TableSpec) -> str:
    """The segment's id is looked up for its local number."""
    marks = ["?"] * len(spec.columns)
    marks[spec.columns.index("segment")] = (
        f"CASE ?1 WHEN x'' THEN 0"
        f" ELSE coalesce((SELECT number FROM segment WHERE id = ?1), {_UNKNOWN}) END"
    )
    numbers = iter(range(2, len(marks) + 1))
    marks = [mark if mark != "?" else f"?{next(numbers)}" for mark in marks]
    columns = ", ".join(spec.columns)
    return f"INSERT INTO {spec.name} ({columns}) VALUES ({', '.join(marks)})"


_EXTENT_PUT = _marked(EXTENT)
_SEGMENT_AT = EXTENT.columns.index("segment")


def _extent(row: tuple[Any, ...]) -> list[Any]:
    bound = EXTENT.bound(row)
    segment = bound.pop(_SEGMENT_AT)
    return [bytearray(segment), *bound]


def _staged(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A part for each change: how they were parted is no part of the state."""
    target, position, *change, packed = row
    lengths = None
    if packed:
        if len(packed) % 4:
            raise FormatError("The lengths of a staged change are not whole numbers.")
        lengths = memoryview(packed).cast("I").tolist()
    return target, position, msgpack.packb([[*change, lengths]])


def _named(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    try:
        return [(name.decode(), value) for name, value in rows]
    except UnicodeDecodeError as error:
        raise FormatError("The name of a value is not UTF-8.") from error
