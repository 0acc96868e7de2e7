"""How the replica moves: pending ops go on top, committed ones go underneath, at one op's grain.

Owns the order of things within one call: undo what is concerned, fold, apply again. Every method is
called under the replica's lock and leaves all pending ops applied, so that a reader never sees one
vanish. Nothing here knows of threads, time or transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lucid.errors import InternalError
from lucid.format.change import SegmentRow
from lucid.format.ops import Content, Create, Link, Mkdir, Mknod, Op, Symlink, Unlink
from lucid.meta.fold import fold
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_segments import admit_segments
from lucid.meta.pending import PENDING_STAMP, PendingOps
from lucid.meta.replica_events import Events, Rebased
from lucid.meta.replica_state import COMMITTED, ReplicaState
from lucid.meta.replica_tables import Tables
from lucid.meta.replica_undo import Trace, op_id_of, pack_op, restore
from lucid.meta.schema import DENTRY, INODE

__all__ = ["PENDING_STAMP", "Layers"]

_PLAIN = (Create, Mkdir, Symlink, Mknod, Link, Unlink, Content)
"""Ops that ask of a directory only whether it lives, when they were applied as their author saw."""


class Layers:
    """The committed base and the pending ops on top of it."""

    def __init__(self, tables: Tables, pending: PendingOps, state: ReplicaState) -> None:
        self.events = Events()
        self.state = state
        self._tables = tables
        self._pending = pending
        self._moved: dict[tuple[int, Any], Any] = {}
        pending.on_undo = self._note_moved

    def apply(
        self, position: int, op: Op, author: Author, segments: tuple[SegmentRow, ...] = ()
    ) -> Effect:
        """Fold a new pending op on top of everything."""
        if position <= self._pending.last:
            raise InternalError(
                f"Pending op at position {position} comes after {self._pending.last}."
            )
        for row in segments:
            self._tables.put_segment(row, committed=False)
        return self._apply(position, op, author)[0]

    def admit(self, rows: Sequence[SegmentRow]) -> None:
        """An entry brings these. What it says of an own segment counts, and own pending ops that
        took another head for granted are applied again: they were applied as this entry's are."""
        state, tables = self.state, self._tables
        parted = False
        for row in rows if self._pending.applied else ():
            known = tables.segment(row.id, True)
            if known is not None and known != row and tables.segment(row.id, False) is None:
                tables.put_segment(row, committed=False)
                parted |= state.may_bring(known) != state.may_bring(row)
        if parted:
            self._pending.undo(list(self._pending.applied))
        admit_segments(state, rows)
        self.redo()

    def commit(self, op: Op, author: Author, stamp: int) -> bool:
        """Fold a committed op underneath the pending ones; True if it settled the first of them."""
        pending = self._pending
        if pending.applied or pending.waiting:
            position = pending.position_of(op_id_of(op)) if author.session else None
            if position is not None:
                self.redo()
                if position == pending.head() and pending.same(position, op):
                    record = pending.settle(position, stamp)
                    self.state.count(record.inodes, record.data_bytes)
                    return True
                self._take_out(position)
        state = self.state
        state.begin(COMMITTED, stamp, None)
        try:
            effect = fold(state, op, author)
        finally:
            state.end()
        if effect is not NOTHING:
            self.events.add(effect)
        return False

    def drop(self, position: int) -> None:
        """Take a pending op out; those after it are applied without it."""
        self._take_out(position)
        self.redo()

    def replace(self, position: int, op: Op, segments: tuple[SegmentRow, ...]) -> None:
        """The pending op at `position` is `op` now, which has the same id."""
        for row in segments:
            self._tables.put_segment(row, committed=False)
        if position in self._pending.applied:
            self._pending.undo((position,))
        _, author = self._pending.waiting[position]
        self._pending.waiting[position] = (op, author)
        self.redo()

    def redo(self) -> None:
        """Apply again what was undone, in order, and say what came out otherwise than before."""
        pending = self._pending
        while (waiting := pending.next_waiting()) is not None:
            position, op, author = waiting
            effect, trace = self._apply(position, op, author)
            for written, row in trace.images.items():
                self._moved.setdefault(written, row)
            self.events.rebased(Rebased(position, op_id_of(op), effect))
        if self._moved:
            self._report_moved()
            pending.overlay.settle_latest(pending.applied.values())

    def undo_all(self) -> None:
        """Take back what a process that died had pending, by the undo table alone."""
        rows = self._tables.query("SELECT position, images FROM undo ORDER BY position DESC", ())
        for position, images in rows:
            restore(self._tables, images)
            self._tables.undo.put(position, None)
            self._tables.flush_if_many()

    def _apply(self, position: int, op: Op, author: Author) -> tuple[Effect, Trace]:
        packed = pack_op(op)
        trace = Trace()
        state = self.state
        state.begin(position, PENDING_STAMP | position, trace)
        try:
            effect = fold(state, op, author)
        except BaseException:
            for (number, key), row in trace.images.items():
                self._tables[number].put(key, row)
            raise
        finally:
            state.end()
        plain = effect.status is Status.APPLIED and isinstance(op, _PLAIN)
        self._pending.add(position, op, packed, author, trace, plain)
        return effect, trace

    def _take_out(self, position: int) -> None:
        if position in self._pending.applied:
            self._pending.undo((position,))
        self._pending.drop(position)

    def _note_moved(self, number: int, key: Any) -> None:
        """A row is about to be put back: remember what readers may have seen of it."""
        if (number, key) not in self._moved:
            self._moved[number, key] = self._tables[number].get(key)

    def _report_moved(self) -> None:
        moved, self._moved = self._moved, {}
        for (number, key), row in moved.items():
            if self._tables[number].get(key) == row:
                continue
            if number == INODE.number:
                self.events.inode(key)
            elif number == DENTRY.number:
                self.events.name(*key)
