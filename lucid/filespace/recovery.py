"""What the journal holds when a filespace is opened, taken up again.

Finished staged segments go to the uploader; live blocks of unfinished ones, and of those that a
floor has passed, are sealed again into new segments (see `resealing`); pending ops return to the
order; files that had a FLUSH become drafts and are published. What loss of power took is left out,
and so is what rests on it (see `left_out`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lucid.crypto.footer import check_footer, open_footer
from lucid.crypto.keyring import KeyRing
from lucid.data.draft import Draft, PatchPlace
from lucid.data.segments import KeySource, SealOwner
from lucid.engine.sodium import digest16
from lucid.errors import DataError, LocalError, NotFound
from lucid.filespace.changes import path_of
from lucid.filespace.left_out import LeftOut
from lucid.filespace.parts import Parts
from lucid.filespace.picture import FilePicture, Picture
from lucid.filespace.resealing import Resealing
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.journal import (
    Failed,
    Image,
    ImageRecord,
    OpRecord,
    Patch,
)
from lucid.format.ops import (
    Clone,
    Content,
    Create,
    Drop,
    Op,
    Stage,
    changes_of,
    segments_of,
)
from lucid.local.book import Live
from lucid.types import SegmentId

__all__ = ["Recovery"]

log = logging.getLogger(__name__)


TOGETHER = 256
"""Ops, or files, whose new segments are made durable by one sync."""
TOGETHER_BYTES = 16 * 1024 * 1024


class _Found(NamedTuple):
    """What an op or an image names, once its blocks were looked for."""

    owner: SealOwner
    changes: tuple[Change, ...]
    lost: int
    """Blocks of it that never reached the disk."""


def _about(op: Op) -> int:
    """The op that a stage is for; of any other its own id."""
    return op.target if isinstance(op, Stage) else getattr(op, "op_id", 0)


def _has_data(found: Iterable[_Found]) -> bool:
    return any(change.kind == DATA for each in found for change in each.changes)


def _named(image: Image) -> set[bytes]:
    """Segments that an image names."""
    return {change.segment for change in image.changes if change.kind == DATA}


def _left_out(name: bytes) -> str:
    return (
        f"A change of {name.decode(errors='replace')!r} was not yet safe on the disk when the power"
        " went; it is left out. Write it again, or take it from where it came."
    )


class Recovery:
    """Brings a picture back to life. Used once, by opening, before anybody else runs."""

    def __init__(self, parts: Parts, keys: KeySource, ring: KeyRing, picture: Picture) -> None:
        self._parts = parts
        self._ring = ring
        self._picture = picture
        self._sealing = Resealing(parts, keys, picture.segments)
        self._left = LeftOut()
        self._failed: list[Failed] = []
        self._anew: list[tuple[Live, OpRecord, tuple[bytes, ...]]] = []
        """Ops that are other ones without what is left out: the record as it was, the record as it
        is to be, and the segments that the old one names."""
        self._drops: list[Drop] = []
        """For what was staged in the log for ops that are left out."""
        self._left_out_blocks = 0
        self._same_start = False
        self._found: dict[int, _Found] = {}
        """By position, of ops that were looked at before their turn."""
        self._found_images: dict[int, _Found] = {}
        self._created: dict[int, bytes] = {}
        self._staged: dict[int, list[int]] = {}
        """Op id -> positions of the stages that are for it, which lie right before it."""
        self._rewrites: dict[int, list[int]] = {}
        """Inode -> positions of ops that keep nothing of what was in it."""
        self._look_through()

    def _look_through(self) -> None:
        """What is about what, before anything is decided."""
        stages: list[int] = []
        for position, (_, record) in sorted(self._picture.ops.items()):
            op = record.op
            if stages and (position != stages[-1] + 1 or self._target(stages[-1]) != _about(op)):
                stages = []
            if isinstance(op, Stage):
                stages.append(position)
                continue
            if stages:
                self._staged[_about(op)] = stages
                stages = []
            if isinstance(op, Create):
                self._created[op.op_id] = op.name
            elif self._is_rewrite(op):
                self._rewrites.setdefault(getattr(op, "ino", 0), []).append(position)

    def _is_rewrite(self, op: Op) -> bool:
        """Whether it needs nothing of what was in the file: new bytes, or a version that the log
        has."""
        if isinstance(op, Clone):
            return op.ino != 0 and self._parts.replica.version(op.version) is not None
        return isinstance(op, Content) and not op.keep

    def _target(self, position: int) -> int:
        op = self._picture.ops[position][1].op
        assert isinstance(op, Stage)
        return op.target

    def run(self, same_start: bool = False) -> list[Draft]:
        """Take everything up again; returns the drafts that are to be published.

        `same_start`: the machine has run without a break since the last time.
        """
        picture, self._same_start = self._picture, same_start
        self._parts.order.reserve_positions(picture.last_position + 1)
        wanted = [set(names) for names in self._wanted()]
        for names in wanted:
            self._sealing.needs(names)
        self._take_segments(set().union(*wanted))
        self._take_all(sorted(picture.ops), self._look, self._take_op)
        drafts: list[Draft] = []
        self._take_all(
            sorted(picture.files),
            self._look_at_image,
            lambda ino: drafts.extend(self._take_file(ino, picture.files[ino])),
        )
        with self._parts.order.lock:
            for drop in self._drops:
                self._parts.order.place(drop)
        self._write_what_changed()
        if self._sealing.gone_blocks:
            picture.failed.append(
                f"{self._sealing.gone_blocks} blocks of changes that were not sent yet are gone"
                " from the store and from this machine: reading them is an error."
            )
        kept = self._sealing.lost_blocks - self._left_out_blocks
        if kept:
            picture.failed.append(
                f"{kept} blocks of new files were not yet safe on the disk when the power went:"
                " reading them is an error. The rest of those files is there."
            )
        self._sealing.sync()
        self._parts.staged.drop_unused()
        self._sealing.sweep()
        for place, note in picture.noted:
            if note.sequence > self._parts.replica.head().sequence:
                self._parts.book.adopt(place, note)  # Nobody knows yet whose number it is.
            else:
                picture.dead.append(place)
        self._parts.book.forget(picture.dead)
        return drafts

    def _write_what_changed(self) -> None:
        """The last first: should this process die, what is left out still tells the next start
        what follows it."""
        for live, fresh, named in reversed(self._anew):
            self._parts.book.rewrite(live, fresh)
            self._sealing.done(named)
        for failed in reversed(self._failed):
            self._parts.book.note(failed, removal=True)

    def _take_all(
        self, each: Iterable[int], look: Callable[[int], _Found], take: Callable[[int], None]
    ) -> None:
        """Look at some, make durable what was sealed for them, and write their records."""
        ahead: list[int] = []

        def take_ahead() -> None:
            self._sealing.sync_segments()
            for one in ahead:
                take(one)
            ahead.clear()

        for one in each:
            look(one)
            ahead.append(one)
            if len(ahead) >= TOGETHER or self._sealing.unsynced > TOGETHER_BYTES:
                take_ahead()
        take_ahead()

    def _wanted(self) -> Iterator[Iterable[bytes]]:
        """What each op and each file names."""
        for _, record in self._picture.ops.values():
            yield segments_of(record.op)
        for file in self._picture.files.values():
            yield _named(file.image)

    def _take_segments(self, wanted: set[bytes]) -> None:
        """Finished segments that something names go on to the store."""
        staging, replica = self._parts.staging, self._parts.replica
        for row in self._picture.segments.values():
            if replica.segment(row.id) is not None:
                continue  # The log names it, so the store has it.
            if self._sealing.is_below_floor(row.id):
                continue  # A collector may have taken it from the store.
            if row.footer_len and row.id in wanted and SegmentId(row.id) in staging:
                if self._is_sound(row):
                    self._parts.staged.adopt_finished(row)
                else:
                    log.warning("Segment %s did not reach the disk whole.", row.id.hex()[:16])
        self._picture.dead.extend(self._picture.finished.values())

    def _is_sound(self, row: SegmentRow) -> bool:
        """Whether a finished segment has all its bytes. Only loss of power takes any, so what was
        written since this machine started is not read. A clock alone does not tell that: it may
        have been set back."""
        staging, clock = self._parts.staging, self._parts.clock
        try:
            written = staging.path(SegmentId(row.id)).stat().st_mtime
            if self._same_start and written > clock.time_ns() / 1e9 - clock.monotonic():
                return True
            data = staging.read(SegmentId(row.id))
            tail = data[len(data) - row.footer_len :]
            check_footer(row, tail)
            at = 0
            for block in open_footer(self._ring, row.id, tail):
                size = block.plain_len + self._parts.geometry.tag
                if digest16(data[at : at + size]) != block.digest:
                    return False
                at += size
            return len(data) == row.stored_len
        except (DataError, LocalError, OSError):
            return False

    def _take_op(self, position: int) -> None:
        op = self._picture.ops[position][1].op
        if isinstance(op, Stage):
            if position not in self._staged.get(op.target, ()):
                self._leave_stage_out(position, op)
            return  # Else it is taken with the op that it is for.
        stages = self._staged.get(getattr(op, "op_id", 0), [])
        rest = self._left.rest_of(op)
        if rest is None:
            self._leave_op_out(op, stages, position)
            return
        found = [self._look(at) for at in (*stages, position)]
        if any(each.lost for each in found) and self._goes(rest, found):
            self._leave_op_out(rest, stages, position)
            return
        for at in stages:
            self._restore(at, self._picture.ops[at][1].op)
        self._restore(position, rest)

    def _look(self, position: int) -> _Found:
        """Look for the blocks of an op, and seal anew what must be."""
        if position not in self._found:
            op = self._picture.ops[position][1].op
            owner = SealOwner(getattr(op, "ino", 0) or getattr(op, "op_id", 0) or 1)
            self._found[position] = self._look_for(owner, changes_of(op))
        return self._found[position]

    def _look_for(self, owner: SealOwner, changes: tuple[Change, ...]) -> _Found:
        before = self._sealing.lost_blocks
        renewed = self._sealing.renewed(owner, changes)
        return _Found(owner, renewed, self._sealing.lost_blocks - before)

    def _look_at_image(self, ino: int) -> _Found:
        if ino not in self._found_images:
            changes = self._picture.files[ino].image.changes
            self._found_images[ino] = self._look_for(SealOwner(ino), changes)
        return self._found_images[ino]

    def _goes(self, op: Op, found: Iterable[_Found]) -> bool:
        """Whether an op that has lost blocks, itself or in its stages, is left out for that. A
        change of a file is: the file stays as it was. Of a new file what is there is kept."""
        if isinstance(op, Content):
            return True
        return not _has_data(found) and not self._is_staged_in_log(getattr(op, "op_id", 0))

    def _is_staged_in_log(self, op_id: int) -> bool:
        return bool(self._parts.replica.state.staged(op_id))

    def _restore(self, position: int, op: Op) -> None:
        parts = self._parts
        place, record = self._picture.ops[position]
        is_other = op is not record.op
        found = self._look(position)
        del self._found[position]
        if found.changes is not changes_of(op):
            assert isinstance(op, (Create, Content, Stage))
            op = op._replace(changes=found.changes)
        segments = segments_of(op)
        fresh = OpRecord(position, tuple(parts.staged.rows(segments)), op)
        # Written anew, so that rows of segments that were finished since, or made now, are in it.
        if is_other:
            live = parts.book.adopt(place, record)
            self._anew.append((live, fresh, segments_of(record.op)))
        else:
            live = parts.book.append(fresh)
            self._picture.dead.append(place)
        with parts.order.lock:
            parts.order.restore(position, op, segments, live)
        self._let_go(found.owner)
        if not is_other:
            self._sealing.done(segments_of(record.op))

    def _leave_op_out(self, op: Op, stages: list[int], position: int) -> None:
        told = _left_out(self._name_of(op))
        self._picture.failed.append(told)
        for stage in stages:
            self._leave_record_out(stage, "")
        if isinstance(op, Create) and self._is_rewritten(op.op_id):
            self._empty(position, op)
            return
        self._left.leave(op)
        self._leave_record_out(position, told)
        if changes_of(op):
            self._drop_staged(_about(op))

    def _leave_stage_out(self, position: int, stage: Stage) -> None:
        """The op that it was for is not behind it: the disk was full, or the journal's end with it
        was torn off. Its file is published again, from its image, with all of its stages."""
        self._leave_record_out(position, "")
        if stage.target not in self._staged:
            self._drop_staged(stage.target)

    def _drop_staged(self, op_id: int) -> None:
        if self._is_staged_in_log(op_id):
            parts = self._parts
            # Of an id of its own: the log may hold the op that is left out.
            self._drops.append(Drop(parts.next_op_id(), parts.clock.time_ns(), op_id))

    def _leave_record_out(self, position: int, told: str) -> None:
        self._put_back(self._found.pop(position, None))
        self._failed.append(Failed(position, told.encode()[:1000]))
        self._picture.dead.append(self._picture.ops[position][0])

    def _put_back(self, found: _Found | None) -> None:
        """What was found of something that is left out is nothing to anybody."""
        if found is not None:
            self._left_out_blocks += found.lost
            self._let_go(found.owner)

    def _is_rewritten(self, ino: int) -> bool:
        """Whether a later whole rewrite of a file is there."""
        for position in self._rewrites.get(ino, ()):
            op = self._picture.ops[position][1].op
            stages = self._staged.get(getattr(op, "op_id", 0), [])
            if not any(self._look(at).lost for at in (*stages, position)):
                return True
        file = self._picture.files.get(ino)
        if file is None or file.image.private or file.image.keep:
            return False
        return not self._look_at_image(ino).lost

    def _empty(self, position: int, op: Create) -> None:
        """The file is made with nothing in it, for a later rewrite of it is there.

        Its record stays as it is: should this process die now, the next start decides the same.
        """
        self._put_back(self._found.pop(position, None))
        self._left.empty(op)
        live = self._parts.book.adopt(*self._picture.ops[position])
        with self._parts.order.lock:
            self._parts.order.restore(position, op._replace(size=0, changes=()), (), live)

    def _name_of(self, op: Op) -> bytes:
        """The name of the file that an op is about; a Setxattr has another one."""
        if hasattr(op, "parent"):
            return getattr(op, "name", b"")
        ino = getattr(op, "ino", 0)
        path = path_of(self._parts, ino)
        return self._created.get(ino, b"") if path is None else path.rpartition(b"/")[2]

    def _let_go(self, owner: SealOwner) -> None:
        """What was sealed for an op is kept by the op, if by anything."""
        self._parts.staged.retire(owner)
        self._parts.staged.drop(owner.segments)

    def _take_file(self, ino: int, file: FilePicture) -> Iterator[Draft]:
        """The draft that it is, unless it is left out."""
        parts, image = self._parts, file.image
        draft = Draft(ino, parts.geometry)
        draft.private = image.private
        draft.parent, draft.name = image.parent, image.name
        draft.keep, draft.size = image.keep, image.size
        draft.mode, draft.uid, draft.gid = image.mode, image.uid, image.gid
        draft.atime_ns, draft.mtime_ns, draft.ctime_ns = (
            image.atime_ns, image.mtime_ns, image.ctime_ns,
        )  # fmt: skip
        draft.xattrs = dict(image.xattrs)
        base = self._left.base_of(ino, image.base, image.keep)
        if base is None:
            self._leave_file_out(draft, file)
            return
        draft.base = base
        found = self._look_at_image(ino)
        if found.lost and (not image.private or not _has_data([found])):
            self._leave_file_out(draft, file)
            return
        draft.owner = found.owner
        for change in found.changes:
            draft.sealed.lay(change)
        parts.staged.retain(draft.segments() - draft.owner.segments)
        draft.owner.segments |= draft.segments()
        draft.unpublished = True
        draft.since = parts.clock.monotonic()
        if not draft.private:
            self._base(draft)
        self._take_records(draft, file, found.changes)
        self._sealing.done(_named(image))
        yield parts.table.add(draft)

    def _take_records(self, draft: Draft, file: FilePicture, changes: tuple[Change, ...]) -> None:
        """The draft's image and patches, as they are or written anew."""
        parts, image = self._parts, file.image
        if changes is image.changes and draft.base == image.base:
            lives = [parts.book.adopt(file.position, ImageRecord(draft.ino, image))]
            lives += [parts.book.adopt(position, patch) for position, patch in file.patches]
        else:
            # The image names new places now, so its patches must be written behind it again.
            rows = tuple(parts.staged.rows(sorted(draft.segments())))
            renewed = image._replace(base=draft.base, changes=changes, segments=rows)
            anew = ImageRecord(draft.ino, renewed)
            lives = parts.book.append_many([anew, *(patch for _, patch in file.patches)])
            self._picture.dead.append(file.position)
            self._picture.dead.extend(position for position, _ in file.patches)
        draft.image = lives[0]
        for live, (_, patch) in zip(lives[1:], file.patches, strict=True):
            self._take_patch(draft, live, patch)

    def _leave_file_out(self, draft: Draft, file: FilePicture) -> None:
        told = _left_out(draft.name)
        self._picture.failed.append(told)
        self._failed.append(Failed(0, told.encode()[:1000]))  # For who starts after this one.
        self._picture.dead.append(file.position)
        self._picture.dead.extend(position for position, _ in file.patches)
        self._parts.book.note(ImageRecord(draft.ino, None), removal=True)
        self._put_back(self._found_images.pop(draft.ino, None))

    def _base(self, draft: Draft) -> None:
        try:
            _, blockmap = self._parts.file_maps.at(draft.ino, draft.base)
            draft.base_map = blockmap if blockmap.size else None
        except NotFound:
            if not draft.keep:
                return  # It needs nothing of that.
            log.warning("Inode %d: the version it was changed from is gone.", draft.ino)
            draft.failure = "The version that this file was changed from is gone."

    def _take_patch(self, draft: Draft, live: Live, patch: Patch) -> None:
        block_size = draft.geometry.block_size
        end = min(patch.offset + len(patch.data), draft.size - patch.block * block_size)
        if end <= patch.offset:
            self._parts.book.release([live])
            return
        draft.patched = True
        live.length = end - patch.offset
        places = draft.patches.setdefault(patch.block, [])
        places.append(PatchPlace(patch.offset, end, live))
