"""What the journal holds when a filespace is opened: read, sorted out, and taken up again.

First `read` makes a plain picture of the journal (pure, no other room is asked). Then `Recovery`
brings back what is pending: finished staged segments go to the uploader; live blocks of unfinished
ones, and of those that a floor has passed, are sealed again into new segments (see `resealing`);
pending ops return to the order; files that had a FLUSH become drafts and are published.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lucid.crypto.footer import check_footer, open_footer
from lucid.crypto.keyring import KeyRing
from lucid.data.draft import Draft, PatchPlace
from lucid.data.segments import KeySource, SealOwner
from lucid.engine.sodium import digest16
from lucid.errors import DataError, LocalError, NotFound
from lucid.filespace.parts import Parts
from lucid.filespace.resealing import Resealing
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.journal import (
    Failed,
    Group,
    Image,
    ImageRecord,
    Limit,
    Note,
    OpRecord,
    Patch,
    Record,
    SegmentRecord,
    SessionRecord,
    Settled,
)
from lucid.format.ops import (
    Clone,
    Content,
    Create,
    Op,
    Rename,
    Stage,
    Unlink,
    changes_of,
    segments_of,
)
from lucid.local.book import Live
from lucid.local.frames import Position
from lucid.types import SegmentId

__all__ = ["Picture", "Recovery", "read"]

log = logging.getLogger(__name__)


@dataclass
class FilePicture:
    """The newest image of one file, and the patches on top of it."""

    image: Image
    position: Position
    patches: list[tuple[Position, Patch]] = field(default_factory=list)


@dataclass
class Picture:
    """What a journal says, in the end."""

    block_size: int
    session: SessionRecord | None = None
    session_position: Position | None = None
    limit: int = 0
    limit_position: Position | None = None
    settled: int = 0
    last_position: int = 0
    ops: dict[int, tuple[Position, OpRecord]] = field(default_factory=dict)
    files: dict[int, FilePicture] = field(default_factory=dict)
    notes: dict[int, list[Note]] = field(default_factory=dict)
    noted: list[tuple[Position, Note]] = field(default_factory=list)
    segments: dict[bytes, SegmentRow] = field(default_factory=dict)
    finished: dict[bytes, Position] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    dead: list[Position] = field(default_factory=list)


def read(records: Iterable[tuple[Position, Record]], block_size: int) -> Picture:
    """Sort out a replayed journal."""
    picture = Picture(block_size)
    for position, record in _whole(records, picture.dead):
        _READERS[type(record)](picture, position, record)  # type: ignore[operator]
    for place in [place for place in picture.ops if place <= picture.settled]:
        picture.dead.append(picture.ops.pop(place)[0])
    return picture


def _whole(
    records: Iterable[tuple[Position, Record]], dead: list[Position]
) -> Iterator[tuple[Position, Record]]:
    """The records, without groups of which loss of power took the end."""
    held: list[tuple[Position, Record]] = []
    missing = 0
    for position, record in records:
        if missing and position.file != held[0][0].file:
            dead.extend(each for each, _ in held)
            held, missing = [], 0
        if isinstance(record, Group):
            held, missing = [(position, record)], record.records
        elif missing:
            held.append((position, record))
            missing -= 1
            if not missing:
                dead.append(held[0][0])
                yield from held[1:]
        else:
            yield position, record
    if missing:
        dead.extend(each for each, _ in held)


def _read_session(picture: Picture, position: Position, record: SessionRecord) -> None:
    if picture.session_position is not None:
        picture.dead.append(picture.session_position)
    picture.session, picture.session_position = record, position


def _read_limit(picture: Picture, position: Position, record: Limit) -> None:
    if picture.limit_position is not None:
        picture.dead.append(picture.limit_position)
    picture.limit, picture.limit_position = max(picture.limit, record.counter), position


def _read_op(picture: Picture, position: Position, record: OpRecord) -> None:
    old = picture.ops.get(record.position)
    if old is not None:
        picture.dead.append(old[0])
    picture.ops[record.position] = (position, record)
    picture.last_position = max(picture.last_position, record.position)
    _keep_rows(picture, record.segments)
    if old is not None:
        return  # Written anew by a recovery: what came of the file after its first time stays.
    if isinstance(record.op, Create):
        _forget_file(picture, record.op.op_id)
    elif isinstance(record.op, Content):
        _forget_file(picture, record.op.ino)


def _keep_rows(picture: Picture, rows: Iterable[SegmentRow]) -> None:
    for row in rows:
        if row.footer_len or row.id not in picture.segments:
            picture.segments[row.id] = row


def _forget_file(picture: Picture, ino: int) -> None:
    old = picture.files.pop(ino, None)
    if old is not None:
        picture.dead.append(old.position)
        picture.dead.extend(position for position, _ in old.patches)


def _read_image(picture: Picture, position: Position, record: ImageRecord) -> None:
    if record.image is None:
        picture.dead.append(position)
        _forget_file(picture, record.ino)
        return
    _keep_rows(picture, record.image.segments)
    old = picture.files.get(record.ino)
    new = FilePicture(record.image, position)
    if old is not None:
        picture.dead.append(old.position)
        for place, patch in old.patches:
            left = _cut_patch(patch, record.image.size - patch.block * picture.block_size)
            if left is not None and _still_on_top(patch, old.image, record.image):
                new.patches.append((place, left))
            else:
                picture.dead.append(place)
    picture.files[record.ino] = new


def _cut_patch(patch: Patch, size: int) -> Patch | None:
    """What is left of a patch when only `size` bytes of its block are in the file."""
    length = min(len(patch.data), size - patch.offset)
    if length <= 0:
        return None
    return patch if length == len(patch.data) else patch._replace(data=patch.data[:length])


def _place_of(image: Image, block: int) -> tuple[object, ...] | None:
    """Where an image keeps a block, for comparing two images."""
    for change in image.changes:
        if change.first <= block < change.first + change.count:
            return (change.kind, change.segment, change.ordinal + block - change.first)
    return None


def _still_on_top(patch: Patch, old: Image, new: Image) -> bool:
    """A patch is void once a later image names another place for its block: it was sealed since."""
    return _place_of(old, patch.block) == _place_of(new, patch.block)


def _read_patch(picture: Picture, position: Position, record: Patch) -> None:
    file = picture.files.get(record.ino)
    if file is None:
        picture.dead.append(position)  # Its file was dropped; nothing can be on top of nothing.
    else:
        file.patches.append((position, record))


def _read_note(picture: Picture, position: Position, record: Note) -> None:
    picture.notes.setdefault(record.sequence, []).append(record)
    picture.noted.append((position, record))


def _read_settled(picture: Picture, position: Position, record: Settled) -> None:
    picture.settled = max(picture.settled, record.position)
    picture.last_position = max(picture.last_position, record.position)
    picture.dead.append(position)


def _read_segment(picture: Picture, position: Position, record: SegmentRecord) -> None:
    picture.segments[record.segment.id] = record.segment
    picture.finished[record.segment.id] = position


def _read_failed(picture: Picture, position: Position, record: Failed) -> None:
    picture.dead.append(position)
    old = picture.ops.pop(record.position, None)
    if old is not None:
        picture.dead.append(old[0])
    picture.failed.append(record.reason.decode(errors="replace"))


_READERS = {
    SessionRecord: _read_session,
    Limit: _read_limit,
    OpRecord: _read_op,
    ImageRecord: _read_image,
    Patch: _read_patch,
    Note: _read_note,
    Settled: _read_settled,
    SegmentRecord: _read_segment,
    Failed: _read_failed,
}


def _named(image: Image) -> set[bytes]:
    """Segments that an image names."""
    return {change.segment for change in image.changes if change.kind == DATA}


def _left_out(name: bytes) -> str:
    return (
        f"A change of {name.decode(errors='replace')!r} was not yet safe on the disk when the "
        "power went; it is left out. Write it again, or take it from where it came."
    )


class Recovery:
    """Brings a picture back to life. Used once, by opening, before anybody else runs."""

    def __init__(self, parts: Parts, keys: KeySource, ring: KeyRing, picture: Picture) -> None:
        self._parts = parts
        self._keys = keys
        self._ring = ring
        self._picture = picture
        self._sealing = Resealing(parts, keys, picture.segments)
        self._gone: dict[int, int] = {}
        """Version that is left out -> the one that the file has instead, 0 for no file at all."""
        self._failed: list[Failed] = []
        self._under: dict[tuple[int, bytes], tuple[int, int]] = {}
        """Place that a rename which is left out led to -> the inode and version that are there."""
        self._left_out_blocks = 0
        self._same_start = False

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
        for position in sorted(picture.ops):
            self._take_op(position)
        taken = [self._take_file(ino, file) for ino, file in sorted(picture.files.items())]
        drafts = [draft for draft in taken if draft is not None]
        for failed in reversed(self._failed):
            # The last first: should this process die, what is left out still tells what follows it.
            self._parts.book.note(failed, removal=True)
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
        parts = self._parts
        place, record = self._picture.ops[position]
        op = self._on_what_is_left(record.op)
        if op is None:
            self._leave_op_out(position, record.op)
            return
        owner = SealOwner(getattr(op, "ino", 0) or getattr(op, "op_id", 0) or 1)
        changes = changes_of(op)
        lost = self._sealing.lost_blocks
        renewed = self._sealing.renewed(owner, changes)
        if self._is_left_out(lost, isinstance(op, Content), op, renewed):
            self._leave_op_out(position, op)
            self._let_go(owner)
            return
        if renewed is not changes:
            assert isinstance(op, (Create, Content, Stage))
            op = op._replace(changes=renewed)
        segments = segments_of(op)
        fresh = OpRecord(position, tuple(parts.staged.rows(segments)), op)
        # Written anew, so that rows of segments that were finished since, or made now, are in it.
        live = parts.book.append(fresh)
        self._picture.dead.append(place)
        with parts.order.lock:
            parts.order.restore(position, op, segments, live)
        self._let_go(owner)
        self._sealing.done(segments_of(record.op))

    def _leave_op_out(self, position: int, op: Op) -> None:
        if isinstance(op, Create) or (isinstance(op, Clone) and not op.ino):
            self._gone[op.op_id] = 0
        elif isinstance(op, (Clone, Content)):
            self._gone[op.op_id] = self._gone.get(op.base, op.base)
        reason = _left_out(getattr(op, "name", b""))
        self._failed.append(Failed(position, reason.encode()))
        self._picture.failed.append(reason)
        self._picture.dead.append(self._picture.ops[position][0])

    def _on_what_is_left(self, op: Op) -> Op | None:
        """The op, as it is when what was left out never was. None: it is about that, and goes too.

        A delta over a version that is gone would lie among bytes that its author did not see, and a
        removal that has seen another version than there is would remove nothing.
        """
        if isinstance(op, (Unlink, Rename)) and op.seen_version in self._gone:
            seen = op.seen_ino, self._gone[op.seen_version]
            if not seen[1]:  # No file at all: under its name is what it would have replaced.
                place = op.parent, op.name
                if isinstance(op, Rename):
                    place = op.new_parent, op.new_name
                seen = self._under.get(place, (0, 0))
            if isinstance(op, Unlink) and not seen[0]:
                return None
            op = op._replace(seen_ino=seen[0], seen_version=seen[1])
        if isinstance(op, Clone) or (isinstance(op, Content) and not op.keep):
            # It needs nothing of what is gone.
            op = op._replace(base=self._gone.get(op.base) or op.base)
        needs = {getattr(op, field, 0) for field in ("base", "version")}
        if needs & self._gone.keys() or self._gone.get(getattr(op, "ino", 0)) == 0:
            if isinstance(op, Rename):
                self._under[op.new_parent, op.new_name] = op.seen_ino, op.seen_version
            return None
        return op

    def _let_go(self, owner: SealOwner) -> None:
        """What was sealed for an op is kept by the op, if by anything."""
        self._parts.staged.retire(owner)
        self._parts.staged.drop(owner.segments)

    def _is_left_out(
        self, lost: int, is_change: bool, what: object, renewed: tuple[Change, ...]
    ) -> bool:
        """Whether blocks of it never reached the disk (more than the `lost` before it), and it is
        left out for that. A change of a file is: the file stays as it was. Of a new file what is
        there is kept, and the rest is lost."""
        lost = self._sealing.lost_blocks - lost
        if not lost or isinstance(what, Stage):
            return False  # The op that a stage is for lies over it: it must say what is lost.
        left_out = is_change or not any(change.kind == DATA for change in renewed)
        if left_out:
            self._left_out_blocks += lost
        return left_out

    def _take_file(self, ino: int, file: FilePicture) -> Draft | None:
        parts, image = self._parts, file.image
        draft = Draft(ino, parts.geometry)
        draft.private = image.private
        draft.parent, draft.name = image.parent, image.name
        draft.base, draft.keep, draft.size = image.base, image.keep, image.size
        draft.mode, draft.uid, draft.gid = image.mode, image.uid, image.gid
        draft.atime_ns, draft.mtime_ns, draft.ctime_ns = (
            image.atime_ns, image.mtime_ns, image.ctime_ns,
        )  # fmt: skip
        draft.xattrs = dict(image.xattrs)
        if image.base in self._gone or ino in self._gone:
            self._leave_file_out(draft, file)
            return None
        lost = self._sealing.lost_blocks
        renewed = self._sealing.renewed(draft.owner, image.changes)
        if self._is_left_out(lost, not image.private, image, renewed):
            self._leave_file_out(draft, file)
            return None
        for change in renewed:
            draft.sealed.lay(change)
        parts.staged.retain(draft.segments() - draft.owner.segments)
        draft.owner.segments |= draft.segments()
        draft.unpublished = True
        draft.since = parts.clock.monotonic()
        if not draft.private:
            self._base(draft)
        if renewed is image.changes:
            lives = [parts.book.adopt(file.position, ImageRecord(ino, image))]
            lives += [parts.book.adopt(position, patch) for position, patch in file.patches]
        else:
            # The image names new places now, so its patches must be written behind it again.
            rows = tuple(parts.staged.rows(sorted(draft.segments())))
            anew = ImageRecord(ino, image._replace(changes=renewed, segments=rows))
            lives = parts.book.append_many([anew, *(patch for _, patch in file.patches)])
            self._picture.dead.append(file.position)
            self._picture.dead.extend(position for position, _ in file.patches)
        draft.image = lives[0]
        for live, (_, patch) in zip(lives[1:], file.patches, strict=True):
            self._take_patch(draft, live, patch)
        self._sealing.done(_named(image))
        return parts.table.add(draft)

    def _leave_file_out(self, draft: Draft, file: FilePicture) -> None:
        self._picture.failed.append(_left_out(draft.name))
        self._picture.dead.append(file.position)
        self._picture.dead.extend(position for position, _ in file.patches)
        self._parts.book.note(ImageRecord(draft.ino, None), removal=True)
        self._let_go(draft.owner)

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
