"""The replica's one connection, with SQLite's errors told as ours. Not safe for threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlcipher3

from lucid.errors import DiskFull, LucidError, StateDamaged, Stopped

__all__ = ["Sql"]


class Sql:
    """A connection. After `close` every call raises Stopped.

    `damage` is a sentence once the database has shown itself to be no more whole.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._closed = False
        self.damage = ""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a question."""
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(sql, values).fetchall()
        except sqlcipher3.Error as error:
            raise self._told(error) from error
        return found

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a question, or None."""
        try:
            found: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        except sqlcipher3.Error as error:
            raise self._told(error) from error
        return found

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """A statement; the row id of an insert."""
        try:
            return int(self._connection.execute(sql, values).lastrowid or 0)
        except sqlcipher3.Error as error:
            raise self._told(error) from error

    def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        """A statement once for each of `values`."""
        try:
            self._connection.executemany(sql, values)
        except sqlcipher3.Error as error:
            raise self._told(error) from error

    def rollback(self) -> None:
        """Undo the transaction, unless SQLite has done so: it does when a disk is full."""
        if self._connection.in_transaction:
            self.run("ROLLBACK")

    def close(self) -> None:
        self._closed = True
        self._connection.close()

    def _told(self, error: Exception) -> LucidError:
        if self._closed:
            return Stopped("The filespace is closed.")
        if isinstance(error, sqlcipher3.OperationalError):
            if "full" in str(error):
                return DiskFull(
                    "There is no room for the replica on the local disk. Free some space."
                )
            return StateDamaged(f"The replica cannot be used: {error}. Check the local disk.")
        self.damage = f"The replica is damaged: {error}. Unmount and mount again to rebuild it."
        return StateDamaged(self.damage)
