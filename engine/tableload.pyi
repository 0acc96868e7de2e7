"""Rows of a checkpoint into the tables of a database, without the GIL.  One thread uses a load."""

from typing import final

from typing_extensions import Self

@final
class TableLoad:
    """A connection of its own to a database that nobody else has open.

    Whatever raises BadRows or TableFailed leaves nothing to do but `close`; calls after that raise
    ValueError.
    """

    def __new__(cls, path: str, setup: tuple[str, ...]) -> Self:
        """The file is there; `setup` are the statements that open it.  Raises TableFailed."""

    def close(self) -> None:
        """Idempotent.  What was not committed is lost."""

    def run(self, sql: str) -> None:
        """Statements without values.  Raises TableFailed."""

    def take(self, number: int, kinds: str, keys: int, sql: str | None = None) -> None:
        """How rows of a table look, and the statement that inserts one.

        number: the first field of its rows, 1 to 63, or to 127 for rows that only `put` may bring;
        kinds: of each field after it `i` number, `b` bytes, `n` name of a file, `s` id of a
        segment, which is bound as its number, `t` UTF-8; keys: so many of them are its key; sql:
        None for rows that `feed` gives back instead.
        Raises TableFailed.
        """

    def number_segments(self, sql: str) -> None:
        """The question for the number of the segment with an id.  Raises TableFailed."""

    def feed(self, data: bytes, first_key: bytes | None = None) -> list[bytes]:
        """The next rows, each in its canonical encoding, and above all before.

        first_key: the packed key that the first one must have.  Returns rows of tables without a
        statement as they came.  Raises BadRows, TableFailed.
        """

    def put(self, data: bytes) -> None:
        """Rows that the caller made, in any order.  Raises as `feed` does."""

    @property
    def rows(self) -> int:
        """How many were inserted."""
