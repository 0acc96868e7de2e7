"""Pending changes of a version that a floor has ended, completed with that version's blocks.

A change says what it keeps of its base. Where no state knows the base any more, what is kept would
be lost to everyone, though this device knows from its old replica where the blocks lie, and may
have them. So before that replica is given up, the change is written anew into the journal as one
that keeps nothing and names all blocks itself. Recovery then reads them, from the cache or the
store, and seals them again; those that are nowhere any more are lost, and that is told.

Used by `beginning`, on the thread that opens a filespace. Done twice it changes nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable

from lucid.filespace.picture import FilePicture, Picture
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.journal import ImageRecord, OpRecord
from lucid.format.ops import Content, Stage
from lucid.format.runs import Geometry, cut_run
from lucid.local.book import JournalBook
from lucid.meta.fold_map import lay
from lucid.meta.replica import Replica
from lucid.sync.publisher import CHANGES_MAX

__all__ = ["Completing"]


class Completing:
    """See the module. `old` knows the bases, `new` is the state that comes."""

    def __init__(
        self,
        picture: Picture,
        old: Replica,
        new: Replica,
        book: JournalBook,
        geometry: Geometry,
    ) -> None:
        self._picture = picture
        self._old = old
        self._new = new
        self._book = book
        self._geometry = geometry
        ops = [record.op for _, record in picture.ops.values()]
        self._pending = {getattr(op, "op_id", 0) for op in ops}
        self._staged = {op.target for op in ops if isinstance(op, Stage)}

    def run(self) -> None:
        """Durable when this returns. Raises LocalError."""
        picture = self._picture
        for position, (_, record) in list(picture.ops.items()):
            op = record.op
            # What is staged for an op lies between its base and its changes: nothing fits there.
            if isinstance(op, Content) and op.op_id not in self._staged:
                laid = self._laid(op.base, min(op.keep, op.size), op.changes)
                if laid is not None:
                    self._write_op(position, op._replace(keep=0, changes=laid))
        for ino, file in list(picture.files.items()):
            image = file.image
            laid = self._laid(image.base, min(image.keep, image.size), image.changes)
            if laid is not None and not image.private:
                self._write_file(ino, file, laid)
        self._book.sync()

    def _laid(self, base: int, kept: int, changes: tuple[Change, ...]) -> tuple[Change, ...] | None:
        """`changes` over what is kept of the base; None where the new state knows the base, or
        nothing is kept, or that is more than an op may hold."""
        if not base or not kept or base in self._pending or self._new.version(base) is not None:
            return None
        row = self._old.version(base)
        if row is None:
            return None
        below = []
        for extent in self._old.state.extents_at(row.ino, row.id):
            run = cut_run(extent, kept, self._geometry)
            if run is not None:
                below.append(run)
        laid = lay(below, changes, self._geometry)
        return tuple(laid) if len(laid) <= CHANGES_MAX else None

    def _rows(self, known: Iterable[SegmentRow], changes: Iterable[Change]) -> list[SegmentRow]:
        """The rows of all segments that these changes name."""
        rows = {row.id: row for row in known}
        for change in changes:
            if change.kind == DATA and change.segment not in rows:
                row = self._old.segment(change.segment)
                if row is not None:
                    rows[change.segment] = row
                    self._picture.segments.setdefault(row.id, row)
        named = {change.segment for change in changes if change.kind == DATA}
        return [row for row in rows.values() if row.id in named]

    def _write_op(self, position: int, op: Content) -> None:
        picture = self._picture
        place, record = picture.ops[position]
        anew = OpRecord(position, tuple(self._rows(record.segments, op.changes)), op)
        (written,) = self._book.write([anew])
        picture.dead.append(place)
        picture.ops[position] = (written, anew)

    def _write_file(self, ino: int, file: FilePicture, changes: tuple[Change, ...]) -> None:
        """The image, and its patches behind it: they lie on blocks that have another place now."""
        image = file.image
        rows = tuple(self._rows(image.segments, changes))
        anew = image._replace(keep=0, changes=changes, segments=rows)
        patches = [patch for _, patch in file.patches]
        first, *others = self._book.write([ImageRecord(ino, anew), *patches])
        self._picture.dead.append(file.position)
        self._picture.dead.extend(place for place, _ in file.patches)
        self._picture.files[ino] = FilePicture(anew, first, list(zip(others, patches, strict=True)))
