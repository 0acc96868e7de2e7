"""Own ops that are not committed yet: what each read and wrote, and how to take it back.

The replica's tables hold the committed state with the pending ops applied on top, so a reader
never merges. For each pending op the table `undo` keeps the rows as they were before it (its
*images*) and the op itself. Here, in memory, stand the keys it read and wrote (the *shadow*), by
which the few ops are found that somebody else's op concerns, and what commutes (directory times,
counts), which goes into the tables only when the op is committed.

Owned by one replica and used under its lock only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple

import msgpack

from lucid.format.ops import Op
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_undo import (
    Touch,
    Trace,
    add_touch,
    op_id_of,
    pack,
    pack_op,
    restore,
    unpack_op,
)
from lucid.meta.schema import REMOVED, VERSION, UndoRow

__all__ = ["PENDING_STAMP", "DirectoryOverlay", "PendingOp", "PendingOps"]

PENDING_STAMP = 1 << 62
"""Stamps of what pending ops write begin here: after every committed one."""
_ORDER_TRIM = 4096
_STAMPED = (VERSION.number, REMOVED.number)


class PendingOp(NamedTuple):
    """One pending op that is applied."""

    position: int
    op_id: int
    digest: int
    """Hash of the packed op: whether an entry holds this very op."""
    author: Any
    writes: tuple[int, ...]
    reads: tuple[int, ...]
    stamped: tuple[tuple[int, int], ...]
    """(table, key) of the rows it wrote that have a stamp, which changes when it is committed."""
    touches: tuple[Touch, ...]
    inodes: int
    data_bytes: int


class DirectoryOverlay:
    """Times and counts of directories that pending ops add to the tables' rows."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[int, int, int]] = {}  # how many, latest, subdirectories
        self._stale: set[int] = set()
        self.inodes = 0
        self.data_bytes = 0
        self.on_change: Callable[[int], None] = lambda ino: None
        """Told of each directory for which `get` says something else now, but for what `on_touch`
        is told: a later time, and so many subdirectories more."""
        self.on_touch: Callable[[int, int, int], None] = lambda ino, time_ns, more: None

    def get(self, ino: int) -> tuple[int, int] | None:
        """(latest time, subdirectories to add), or None where nothing is pending."""
        found = self._rows.get(ino)
        return None if found is None else found[1:]

    def rows(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Every directory with what `get` says of it."""
        for ino, row in self._rows.items():
            yield ino, row[1:]

    def add(self, op: PendingOp) -> None:
        self.inodes += op.inodes
        self.data_bytes += op.data_bytes
        for ino, time_ns, subdirectories in op.touches:
            found = self._rows.get(ino)
            if found is None:
                self._rows[ino] = (1, time_ns, subdirectories)
                self._stale.discard(ino)
            else:
                many, latest, total = found
                if time_ns >= latest:
                    self._stale.discard(ino)
                    latest = time_ns
                self._rows[ino] = (many + 1, latest, total + subdirectories)
            self.on_touch(ino, time_ns, subdirectories)

    def remove(self, op: PendingOp) -> None:
        self.inodes -= op.inodes
        self.data_bytes -= op.data_bytes
        for ino, time_ns, subdirectories in op.touches:
            many, latest, total = self._rows[ino]
            if many == 1:
                del self._rows[ino]
                self._stale.discard(ino)
            else:
                if time_ns == latest:
                    self._stale.add(ino)
                self._rows[ino] = (many - 1, latest, total - subdirectories)
            self.on_change(ino)

    def settle_latest(self, pending: Iterable[PendingOp]) -> None:
        """Find again the latest time of directories that lost theirs.

        Rarely anything to do: an op that is applied again brings its time back, and one that is
        committed leaves a time in the tables that is no earlier.
        """
        if not self._stale:
            return
        latest = dict.fromkeys(self._stale, -(1 << 63))
        for op in pending:
            for ino, time_ns, _ in op.touches:
                if ino in latest and latest[ino] < time_ns:
                    latest[ino] = time_ns
        for ino, time_ns in latest.items():
            many, _, total = self._rows[ino]
            self._rows[ino] = (many, time_ns, total)
            self.on_change(ino)
        self._stale.clear()

    def forgive(self, op: PendingOp) -> None:
        """`op` was committed: its times stand in the tables, so no latest is wrong for its lack."""
        for touch in op.touches:
            self._stale.discard(touch.ino)


class PendingOps:
    """The pending ops of one replica, in the order of their positions.

    An op is applied (`applied`) or undone for a moment (`waiting`), never both. Both are empty
    between two calls of the replica but for what is applied.
    """

    def __init__(self, tables: Tables) -> None:
        self.applied: dict[int, PendingOp] = {}
        self.waiting: dict[int, tuple[Op, Any]] = {}
        self.overlay = DirectoryOverlay()
        self.last = -1
        self.on_undo: Callable[[int, Any], None] | None = None
        """Told each row (table, key) that an undo is about to put back."""
        self._tables = tables
        self._heap: list[int] = []
        self._order: list[int] = []
        self._start = 0
        self._positions: dict[int, int] = {}  # op id -> position
        self._writers: dict[int, int | set[int]] = {}
        self._readers: dict[int, int | set[int]] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def position_of(self, op_id: int) -> int | None:
        """Where the pending op of this id stands."""
        return self._positions.get(op_id)

    def holds(self, position: int) -> bool:
        """Whether an op is pending at `position`."""
        return position in self.applied or position in self.waiting

    def head(self) -> int | None:
        """The first pending position."""
        while self._start < len(self._order):
            position = self._order[self._start]
            if position in self.applied or position in self.waiting:
                break
            self._start += 1
        if self._start == len(self._order) or self._start >= _ORDER_TRIM:
            del self._order[: self._start]
            self._start = 0
        return self._order[self._start] if self._order else None

    def positions(self) -> Iterator[int]:
        """All pending positions, ascending."""
        for position in self._order[self._start :]:
            if position in self.applied or position in self.waiting:
                yield position

    # What is applied

    def add(
        self, position: int, op: Op, packed: bytes, author: Any, trace: Trace, plain: bool
    ) -> None:
        """`op` was folded and left `trace`; `plain` as in Trace.read_keys."""
        if position > self.last:
            self.last = position
            self._order.append(position)
        images = trace.images
        record = PendingOp(
            position,
            op_id_of(op),
            hash(packed),
            author,
            tuple(trace.writes),
            trace.read_keys(plain),
            tuple([place for place in images if place[0] in _STAMPED]),
            tuple(trace.touches),
            trace.inodes,
            trace.data_bytes,
        )
        self.applied[position] = record
        self._positions[record.op_id] = position
        _shadow(self._writers, record.writes, position)
        _shadow(self._readers, record.reads, position)
        self.overlay.add(record)
        before = pack([(number, key, row) for (number, key), row in images.items()])
        self._tables.undo.put(position, UndoRow(position, record.op_id, before, packed))

    def same(self, position: int, op: Op) -> bool:
        """Whether the op that is applied at `position` is `op`, to the last field."""
        return self.applied[position].digest == hash(pack_op(op))

    def settle(self, position: int, stamp: int) -> PendingOp:
        """The first pending op is committed as it stands: its rows belong to the base now.

        What it counted is left to the caller, who keeps the base's totals.
        """
        record = self._remove(position)
        self._tables.undo.put(position, None)
        for number, key in record.stamped:
            self._stamp(number, key, position, stamp)
        for touch in record.touches:
            add_touch(self._tables, touch)
        self.overlay.forgive(record)
        return record

    def _stamp(self, number: int, key: int, position: int, stamp: int) -> None:
        """The row that the op at `position` wrote is committed. It stands in its table, or in the
        images of a later op that wrote over it: a name that came back, say."""
        before = PENDING_STAMP | position
        table, undo = self._tables[number], self._tables.undo
        row = table.get(key)
        if row is not None and row.stamp == before:
            table.put(key, row._replace(stamp=stamp))
            return
        for later in sorted(self.writers(key, position)):
            images = msgpack.unpackb(undo.get(later).images, use_list=False)
            for at, (found, image_key, image) in enumerate(images):
                if (found, image_key) == (number, key) and image is not None:
                    row = table.spec.row(image)
                    if row.stamp == before:
                        fresh = (number, key, row._replace(stamp=stamp))
                        packed = pack([*images[:at], fresh, *images[at + 1 :]])
                        undo.put(later, undo.get(later)._replace(images=packed))
                        return

    def drop(self, position: int) -> None:
        """Forget an op that is undone."""
        op, _ = self.waiting.pop(position)
        self._tables.undo.put(position, None)
        del self._positions[op_id_of(op)]

    # Who is concerned

    def is_read(self, key: int) -> bool:
        return key in self._readers

    def is_written(self, key: int) -> bool:
        return key in self._writers

    def writers(self, key: int, after: int) -> list[int]:
        """Applied positions beyond `after` that wrote `key`."""
        return _beyond(self._writers.get(key), after)

    def readers(self, key: int, after: int) -> list[int]:
        """Applied positions beyond `after` that read `key`."""
        return _beyond(self._readers.get(key), after)

    # Undo and redo

    def undo(self, positions: Iterable[int]) -> None:
        """Take these ops back, and every later one that builds on them, last first."""
        for position in sorted(self._closure(positions), reverse=True):
            row = self._tables.undo.get(position)
            record = self._remove(position)
            restore(self._tables, row.images, self.on_undo)
            self._positions[record.op_id] = position
            self.waiting[position] = (unpack_op(row.op), record.author)
            heappush(self._heap, position)

    def next_waiting(self) -> tuple[int, Op, Any] | None:
        """The first op that waits to be applied again; it waits no more."""
        while self._heap:
            position = heappop(self._heap)
            if position in self.waiting:
                return (position, *self.waiting.pop(position))
        return None

    def _closure(self, positions: Iterable[int]) -> set[int]:
        """These, later ops whose images hold their rows, and later readers of what they wrote.

        An op that only read what a later one wrote is not concerned: when it is applied again, it
        meets that row and undoes the later one itself.
        """
        found: set[int] = set()
        stack = list(positions)
        while stack:
            position = stack.pop()
            if position in found:
                continue
            found.add(position)
            for key in self.applied[position].writes:
                stack += _beyond(self._readers.get(key), position)
                if key >= 0:  # a signal has no image
                    stack += _beyond(self._writers.get(key), position)
        return found

    def _remove(self, position: int) -> PendingOp:
        record = self.applied.pop(position)
        del self._positions[record.op_id]
        _unshadow(self._writers, record.writes, position)
        _unshadow(self._readers, record.reads, position)
        self.overlay.remove(record)
        return record


def _shadow(index: dict[int, int | set[int]], keys: tuple[int, ...], position: int) -> None:
    for key in keys:
        found = index.setdefault(key, position)
        if found is position:
            continue
        if isinstance(found, set):
            found.add(position)
        elif found != position:
            index[key] = {found, position}


def _unshadow(index: dict[int, int | set[int]], keys: tuple[int, ...], position: int) -> None:
    for key in keys:
        found = index[key]
        if isinstance(found, set):
            found.discard(position)
            if not found:
                del index[key]
        else:
            del index[key]


def _beyond(found: int | set[int] | None, after: int) -> list[int]:
    if found is None:
        return []
    if isinstance(found, set):
        return [position for position in found if position > after]
    return [found] if found > after else []
