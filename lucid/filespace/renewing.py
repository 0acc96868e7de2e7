"""Changes that wait on an open filespace while a floor passes what they were sealed below.

A drive may be cut off, or a file be written, for longer than the store keeps what nobody names. No
entry may name such segments after that. So they are sealed again: those of pending ops just before
the floor is folded, on the sync thread; those of a draft when it is published. Both keep the staged
files until what takes their place is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lucid.data.draft import Draft
from lucid.data.segments import KeySource, SealOwner
from lucid.errors import CorruptObject
from lucid.filespace.parts import Parts
from lucid.filespace.resealing import Resealing
from lucid.format.change import SegmentRow
from lucid.format.ops import Content, Create, Stage, segments_of
from lucid.meta.replica_events import Changed
from lucid.sync.order import Placed
from lucid.types import SegmentId

__all__ = ["Renewing"]

log = logging.getLogger(__name__)


TOGETHER = 64
"""Ops that are made durable by one sync."""


class _Ready(NamedTuple):
    """A pending op, what comes in its place, and who holds the new segments until then."""

    placed: Placed
    fresh: Create | Content | Stage
    owner: SealOwner


class Renewing:
    """See the module. `adopt` puts a staged file into the cache, `tell` says what has changed."""

    def __init__(
        self,
        parts: Parts,
        keys: KeySource,
        *,
        adopt: Callable[[bytes, int], None],
        tell: Callable[[Changed], None],
    ) -> None:
        self._parts = parts
        self._keys = keys
        self._adopt = adopt
        self._tell = tell

    def pending(self, floor: int) -> None:
        """A floor at this entry is about to be folded. The sync thread calls it, without a lock.

        Raises LocalError. What cannot be read stays as it is, and no entry will name it.
        """
        ready: list[_Ready] = []
        for placed in self._parts.order.all():
            rows = self._old(placed.segments, floor)
            made = self._sealed_again(placed, rows) if rows else None
            if made is not None:
                ready.append(made)
            if len(ready) >= TOGETHER:
                self._exchange(ready)
                ready.clear()
        self._exchange(ready)

    def draft(self, draft: Draft) -> None:
        """The draft is about to be published. REQUIRES: its lock held, everything sealed.

        Raises LocalError, and CorruptObject where a staged block does not open.
        """
        floor = self._parts.replica.floor()
        rows = self._old(draft.segments(), floor) if floor else []
        if not rows:
            return
        sealing = self._sealing(rows)
        changes = sealing.renewed(draft.owner, draft.sealed.runs())
        if sealing.lost_blocks:
            raise CorruptObject("Blocks that were not sent yet do not open any more.")
        for change in changes:
            draft.sealed.lay(change)

    def _old(self, segments: Iterable[bytes], floor: int) -> list[SegmentRow]:
        """Those that no entry may name any more, once this floor is in force."""
        found = self._parts.staged.sealed_below(segments, floor)
        return [row for row in found if self._parts.replica.segment(row.id) is None]

    def _sealing(self, rows: Iterable[SegmentRow]) -> Resealing:
        by_id = {row.id: row for row in rows}
        return Resealing(self._parts, self._keys, by_id, replaced=by_id)

    def _sealed_again(self, placed: Placed, rows: list[SegmentRow]) -> _Ready | None:
        op = placed.op
        assert isinstance(op, (Create, Content, Stage))
        owner = SealOwner(getattr(op, "ino", 0) or op.op_id)
        sealing = self._sealing(rows)
        fresh = op._replace(changes=sealing.renewed(owner, op.changes))
        if not sealing.lost_blocks:
            return _Ready(placed, fresh, owner)
        log.error("A change that waits cannot be sealed again: staged blocks do not open.")
        self._let_go(owner)
        return None

    def _exchange(self, ready: list[_Ready]) -> None:
        """Journal, queue and replica name the new segments, and then the old ones are let go."""
        parts = self._parts
        if not ready:
            return
        # Before a record takes the place of one that may be durable, so must be what it names.
        parts.staging.sync(SegmentId(name) for one in ready for name in one.owner.segments)
        for placed, fresh, _ in ready:
            with parts.order.lock:
                rows = parts.order.replace(placed, fresh, segments_of(fresh))
                parts.replica.replace_pending(placed.position, fresh, rows)
        self._tell(parts.replica.take_events())
        parts.book.sync()
        parts.book.release([one.placed.live for one in ready])
        for placed, fresh, owner in ready:
            self._rebase(owner.ino, fresh.op_id)
            self._let_go(owner)
            # Who is in the middle of reading finds them in the cache.
            parts.staged.drop(placed.segments, self._adopt)

    def _let_go(self, owner: SealOwner) -> None:
        self._parts.staged.retire(owner)
        self._parts.staged.drop(owner.segments)

    def _rebase(self, ino: int, version: int) -> None:
        """A draft that lies over this version reads it from its new place."""
        draft = self._parts.table.get(ino)
        if draft is None:
            return
        with draft.lock:
            if draft.base == version and draft.base_map is not None and not draft.gone:
                draft.base_map = self._parts.file_maps.at(ino, version)[1]
