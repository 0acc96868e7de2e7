"""What a journal says when a filespace is opened: read, and sorted out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lucid.format.change import SegmentRow
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
from lucid.format.ops import Content, Create
from lucid.local.frames import Position

__all__ = ["FilePicture", "Picture", "read"]


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
    if record.reason:
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
