"""Who still needs which record of the journal.

The journal moves records when it empties a file; whoever keeps one holds a `Live`, whose position
the book renews. `append` and `release` pass through here so that emptying finds the rest still.
Any thread may call; the lock is held over an append (a write into the page cache), and over
emptying.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from lucid.errors import InternalError
from lucid.format.journal import Group, ImageRecord, Patch, Record
from lucid.local.frames import Position
from lucid.local.journal import Journal

__all__ = ["JournalBook", "Live"]


_RANKS: dict[type, int] = {ImageRecord: 1, Patch: 2}


class Live:
    """A record that is still needed. `position` changes when the journal moves it."""

    __slots__ = ("length", "position", "rank")

    def __init__(self, position: Position, rank: int) -> None:
        self.position = position
        self.rank = rank
        """Its place among what the journal moves together: patches come behind images."""
        self.length: int | None = None
        """Bytes of a patch that count, where the file was cut since."""


class JournalBook:
    """A journal and its live records."""

    def __init__(self, journal: Journal | None) -> None:
        """Without a journal nothing can be appended: a read-only filespace has none."""
        self._journal = journal
        self._lock = threading.Lock()
        self._live: set[Live] = set()

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            raise InternalError("A read-only filespace keeps no journal.")
        return self._journal

    def adopt(self, position: Position, record: Record) -> Live:
        """A replayed record that is still needed."""
        with self._lock:
            return self._keep(position, record)

    def forget(self, positions: Iterable[Position]) -> None:
        """Replayed records that nobody needs."""
        with self._lock:
            for position in positions:
                self.journal.release(position)

    def append(
        self, record: Record, *, removal: bool = False, replaces: Iterable[Live | None] = ()
    ) -> Live:
        """`replaces`: what this record takes the place of is needed no more, from this very moment:
        emptying must not move it behind what came of it."""
        with self._lock:
            live = self._keep(self.journal.append(record, removal=removal), record)
            self._release(replaces)
            return live

    def rewrite(self, live: Live, record: Record) -> None:
        """`record` takes the place of the one of `live`, where that is needed still."""
        with self._lock:
            if live in self._live:
                position = self.journal.append(record)
                self.journal.release(live.position)
                live.position = position

    def append_many(self, records: Sequence[Record]) -> list[Live]:
        """All of them, or after loss of power none: patches are nothing without their image, and an
        image without its patches is a write of which a part is missing."""
        if len(records) == 1:
            return [self.append(records[0])]
        with self._lock:
            group, *positions = self.journal.append_many((Group(len(records)), *records))
            self.journal.release(group)
            return [self._keep(*pair) for pair in zip(positions, records, strict=True)]

    def write(self, records: Sequence[Record]) -> list[Position]:
        """As `append_many`, for who adopts these records later, as if they were replayed ones.

        REQUIRES: that they are adopted or forgotten before the journal is emptied.
        """
        with self._lock:
            if len(records) == 1:
                return [self.journal.append(records[0])]
            group, *positions = self.journal.append_many((Group(len(records)), *records))
            self.journal.release(group)
            return positions

    def note(self, record: Record, *, removal: bool = False) -> Position:
        """Append a record that nobody keeps: it says something about others only."""
        with self._lock:
            position = self.journal.append(record, removal=removal)
            self.journal.release(position)
            return position

    def release(self, lives: Iterable[Live | None]) -> None:
        with self._lock:
            self._release(lives)

    def _release(self, lives: Iterable[Live | None]) -> None:
        for live in lives:
            if live is not None and live in self._live:
                self._live.remove(live)
                self.journal.release(live.position)

    def shorten(self, live: Live, length: int) -> None:
        """Only the first `length` bytes of this patch count from now on."""
        with self._lock:  # Emptying writes what counts, and then takes the note back.
            live.length = length

    def sync(self) -> None:
        """Returns when all that was appended survives loss of power."""
        if self._journal is not None:
            self._journal.sync()

    def read(self, live: Live) -> Record:
        with self._lock:  # Emptying moves the record and unlinks the file it was in.
            return self.journal.read(live.position)

    def empty_if_worth(self) -> bool:
        """Let the journal empty its oldest files when little in them lives."""
        if self._journal is None:
            return False
        if self.journal.worth_emptying() is None:
            return False
        with self._lock:
            upto = self.journal.worth_emptying()
            if upto is None:
                return False
            # All images and patches move, behind everything else: an image behind the ops that its
            # file was published by before, each patch behind the newest image, which it is on.
            moving = sorted(
                (live for live in self._live if live.position.file <= upto or live.rank),
                key=lambda live: (live.rank, live.position.file, live.position.ordinal),
            )
            moved = self.journal.compact(upto, [self._as_needed(live) for live in moving])
            for live, position in zip(moving, moved, strict=True):
                live.position = position
                live.length = None
        return True

    def _as_needed(self, live: Live) -> Position | Record:
        """What moves: the record as it is, or what counts of a patch that was cut.

        The smaller image that cut it does not move: a newer one has taken its place.
        """
        if live.length is None:
            return live.position
        record = self.journal.read(live.position)
        if not isinstance(record, Patch):
            raise InternalError("Only patches are cut.")
        return record._replace(data=record.data[: live.length])

    def _keep(self, position: Position, record: Record) -> Live:
        live = Live(position, _RANKS.get(type(record), 0))
        self._live.add(live)
        return live
