"""All tables of the replica, the segments, and the one transaction.

Owns the connection that writes. Unwritten rows go to SQL before a question that a dictionary
cannot answer, when there are many, and before each commit. So a fold pays one SQL call for a row
it has not seen, none for one it has, and a tenth of one for a row that it writes. Not safe for
threads: the replica's lock is held around every call.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from lucid.format.ops import SegmentRow
from lucid.meta import schema
from lucid.meta.lease_rows import LEASE_PREFIX
from lucid.meta.replica_cache import DentryTable, IdTable, StagedTable, Table, Unwritten
from lucid.meta.replica_sql import Sql

__all__ = ["SEGMENT_COLUMNS", "Tables"]

FLUSH_ROWS = 256
"""Unwritten rows of all tables before they go to SQL: about a millisecond of work."""

SEGMENT_NUMBERS = 4096
"""Segment ids whose local numbers are remembered."""

SEGMENT_COLUMNS = "id, stored_len, footer_len, footer_hash, generation, head"


class Tables(Unwritten):
    """All tables, the segments, and the transaction. `writes` counts rows since the last commit."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        connection = self.connection = Sql(raw)
        self.writes = 0
        self.in_transaction = False
        self._numbers: dict[bytes, int] = {}
        self._segment_rows: dict[int, SegmentRow] = {}
        self._leased: set[int] | None = None
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
        self.removed = IdTable(schema.REMOVED, connection, self)
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
            self.removed,
        ]

    @property
    def damage(self) -> str:
        return self.connection.damage

    def close(self) -> None:
        self.connection.close()

    def __getitem__(self, number: int) -> Table:
        return self._all[number]

    @property
    def leased(self) -> set[int]:
        """The inodes that somebody has, or waits for, the lease of: few, and each publish asks."""
        if self._leased is None:
            sql = "SELECT name FROM value WHERE name >= ? AND name < ?"
            found = self.query(sql, (LEASE_PREFIX, LEASE_PREFIX + "~"), self.value)
            self._leased = {int(name[len(LEASE_PREFIX) :], 16) for (name,) in found}
        return self._leased

    def query(self, sql: str, values: Sequence[Any], *tables: Table) -> list[Any]:
        """Rows of a question to SQL that reads `tables`; what they have unwritten goes first."""
        for table in tables:
            if table.dirty:
                self.begin()
                self._flush(table)
        return self.connection.rows(sql, values)

    def begin(self) -> None:
        """Start a transaction if none is under way."""
        if not self.in_transaction:
            self.connection.run("BEGIN IMMEDIATE")
            self.in_transaction = True

    def execute(self, sql: str, values: Sequence[Any]) -> int:
        """One statement of its own within the transaction; the row id of an insert."""
        self.begin()
        self.writes += 1
        return self.connection.run(sql, values)

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
            self.connection.run("COMMIT")
            self.in_transaction = False
        self.writes = 0

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        for table in self._all:
            table.forget()
        self._numbers.clear()
        self._segment_rows.clear()
        self._leased = None
        self.unwritten = self.writes = 0
        if self.in_transaction:
            self.in_transaction = False
            self.connection.rollback()

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
        found = self.connection.row("SELECT number FROM segment WHERE id = ?", (segment,))
        if found is None:
            number = self.execute("INSERT INTO segment (id) VALUES (?)", (segment,))
        else:
            number = int(found[0])
        if len(self._numbers) >= SEGMENT_NUMBERS:
            self._numbers.clear()
        self._numbers[segment] = number
        return number

    def segment(self, segment: bytes, pending: bool) -> SegmentRow | None:
        """What the log says of a segment; with `pending` also what own pending ops say."""
        found = self.connection.row(
            f"SELECT {SEGMENT_COLUMNS}, committed FROM segment WHERE id = ?", (segment,)
        )
        if found is None or found[6] is None or not (pending or found[6]):
            return None
        return SegmentRow._make(found[:6])

    def segment_id(self, number: int) -> bytes:
        """The id of a segment by its local number; empty for none."""
        if number == 0:
            return b""
        ((segment,),) = self.connection.rows("SELECT id FROM segment WHERE number = ?", (number,))
        return bytes(segment)

    def segment_row(self, number: int) -> SegmentRow:
        """A segment by its local number, as far as it is known."""
        known = self._segment_rows.get(number)
        if known is not None:
            return known
        (row,) = self.connection.rows(
            f"SELECT {SEGMENT_COLUMNS} FROM segment WHERE number = ?", (number,)
        )
        segment, stored_len, footer_len, footer_hash, generation, head = row
        if len(self._segment_rows) >= SEGMENT_NUMBERS:
            self._segment_rows.clear()
        found = self._segment_rows[number] = SegmentRow(
            segment, stored_len or 0, footer_len or 0, footer_hash or b"", generation or b"",
            head or 0,
        )  # fmt: skip
        return found

    def put_segment(self, row: SegmentRow, committed: bool) -> None:
        """Note a segment's row. What the log said first stays."""
        number = self.segment_number(row.id)
        self._segment_rows.pop(number, None)
        self.execute(
            "UPDATE segment SET stored_len = ?, footer_len = ?, footer_hash = ?, generation = ?,"
            " head = ?, committed = ? WHERE number = ? AND committed IS NOT 1",
            (*row[1:], int(committed), number),
        )

    def withdraw_segment(self, segment: bytes) -> None:
        """The log does not name it any more. An own pending op may, so its row and number stay."""
        self.execute("UPDATE segment SET committed = 0 WHERE id = ?", (segment,))

    def raise_head(self, segment: bytes, head: int) -> None:
        """A row of the log has this head from now on, if it had a lower one."""
        self._segment_rows.pop(self.segment_number(segment), None)
        self.execute(
            "UPDATE segment SET head = max(head, ?) WHERE id = ? AND committed = 1",
            (head, segment),
        )

    def lengths(self, packed: bytes) -> tuple[int, ...] | None:
        """Stored lengths of an extent's blocks as the fold has them."""
        if not packed:
            return None
        return struct.unpack(f"<{len(packed) // 4}I", packed)
