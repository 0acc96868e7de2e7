"""`lucid fsck --repair --lost-found`: what is in segments that no entry names, as new files.

Such a segment was uploaded by a device that never came to commit it. Its footer says of each block
which inode it belongs to and where it lies there; names and lengths of files were in the entry that
is missing. The blocks are opened, compared with their digests and written again as ordinary files:
what was found is committed like everything else, and the segment itself stays for a collector.

Called by a repair, on an open filespace, by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from lucid.crypto.footer import open_footer
from lucid.crypto.keyring import KeyRing
from lucid.engine.errors import CorruptBlock
from lucid.engine.sodium import AdContext, digest16, open_
from lucid.errors import DataError, NotPermitted, ObjectMissing, StoreUnavailable, UnknownKey
from lucid.filespace.filespace import Filespace
from lucid.filespace.numbers import number_of
from lucid.format.limits import SEGMENT_STORED_MAX
from lucid.format.names import DATA_PREFIX, log_key, parse_segment_key, segment_key
from lucid.format.ops import ROLE_ADMIN
from lucid.format.segment import FooterRow, decode_trailer
from lucid.meta.fold_floor import VALUE_FLOOR
from lucid.store.base import ObjectInfo

__all__ = ["FOLDER", "Found", "LostFound"]

FOLDER = "/lost+found"
UNDER_WAY_NS = 24 * 3600 * 10**9
"""A segment that is younger may be an upload whose entry is still to come."""
ID_SHOWN = 16
"""Hex digits of a segment's id in the names of its files: by them a second run knows them."""
NAME_MAX = 255


@dataclass
class Found:
    """What came of the segments that no entry names."""

    segments: int = 0
    """Read and put into files, now or by an earlier run."""
    young: int = 0
    """Left alone: they may be uploads that are under way."""
    ended: int = 0
    """Left alone: older than the floor, so they may hold what was removed for good."""
    files: list[str] = field(default_factory=list)
    """Paths of the files that were made."""
    there_before: int = 0
    """Files that an earlier run has made."""
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class LostFound:
    """One look through the segments of a store."""

    def __init__(self, fs: Filespace, *, all_orphans: bool = False) -> None:
        """`all_orphans`: also what may be under way, or removed for good.

        Raises NotPermitted for a member who is no admin.
        """
        opened = fs.tree._opened
        member = opened.parts.replica.member(opened.unlocked.keys.member)
        if member is None or member.role != ROLE_ADMIN:
            raise NotPermitted("Only an admin of the filespace may look for lost segments.")
        self._fs = fs
        self._parts = opened.parts
        self._ring: KeyRing = opened.ring
        self._all = all_orphans
        self.found = Found()

    def run(self, report: Callable[[str, int, int | None], None]) -> Found:
        """Put every segment that no entry names into files; `report` hears stage, done, total.

        Raises what the store and the local disk raise; what was made until then stays.
        """
        orphans = list(self._orphans(report))
        for count, segment in enumerate(orphans, 1):
            report("lost segments", count, len(orphans))
            self._take(segment)
        return self.found

    def _orphans(self, report: Callable[[str, int, int | None], None]) -> Iterator[bytes]:
        """Ids of segments that are in the store and in no entry, not even a pending one."""
        listed = []
        for count, info in enumerate(self._parts.store.list(DATA_PREFIX), 1):
            report("segments", count, None)
            segment = parse_segment_key(info.key)
            if segment is not None:
                listed.append((segment, info))
        # After the list: what was committed while it was read is known now.
        if not self._fs.refresh():
            raise StoreUnavailable("The log could not be read to its end. Try again later.")
        floor_ns = self._floor_ns()
        for segment, info in listed:
            known = self._parts.replica.segment(segment) is not None
            if known or self._parts.staged.state(segment) is not None:
                continue
            if self._all or self._may_be_taken(info, floor_ns):
                yield segment

    def _may_be_taken(self, info: ObjectInfo, floor_ns: int) -> bool:
        if info.modified_ns < floor_ns:
            self.found.ended += 1
            return False
        if info.modified_ns > self._parts.clock.time_ns() - UNDER_WAY_NS:
            self.found.young += 1
            return False
        return True

    def _floor_ns(self) -> int:
        """When the entry of the floor was put, by the store's clock; 0 without a floor."""
        floor = self._parts.replica.value(VALUE_FLOOR)
        if not floor or not int(floor):
            return 0
        try:
            return self._parts.store.stat(log_key(int(floor))).modified_ns
        except ObjectMissing:
            return 0

    def _take(self, segment: bytes) -> None:
        shown = segment.hex()[:ID_SHOWN]
        try:
            data = self._parts.store.get(segment_key(segment), 0, SEGMENT_STORED_MAX + 1)
            rows = open_footer(self._ring, segment, data)
            generation = decode_trailer(data).generation
        except (DataError, UnknownKey) as error:
            self.found.problems.append(f"Segment {shown} is left alone: {error}")
            return
        except ObjectMissing:
            return  # A collector was quicker.
        self.found.segments += 1
        for ino, blocks in _by_inode(rows, self._parts.geometry.tag).items():
            path = f"{FOLDER}/{self._name(ino, shown)}"
            if self._fs.exists(path):
                self.found.there_before += 1
                continue
            self._write(path, segment, generation, data, blocks)

    def _name(self, ino: int, shown: str) -> str:
        """The inode's name, if it has one, else its number; and the segment."""
        names = self._parts.replica.names(ino)
        name = names[0].name.decode("utf-8", "replace") if names else number_of(ino)
        end = f"-{shown}"
        while len(name.encode()) > NAME_MAX - len(end):
            name = name[:-1]
        return name + end

    def _write(
        self, path: str, segment: bytes, generation: bytes, data: bytes, blocks: list[_Block]
    ) -> None:
        """One file, which is seen with all of its blocks or not at all."""
        self._fs.makedirs(FOLDER, 0o700, exist_ok=True)
        size, spoiled = self._parts.geometry.block_size, 0
        context = AdContext(self._ring.suite, b"DATA", self._ring.filespace, generation)
        key = self._ring.data_key(segment, generation)
        whole: dict[int, bytes] = {}
        for block in blocks:
            sealed = data[block.offset : block.end]
            try:
                if digest16(sealed) != block.row.digest:
                    raise CorruptBlock
                plain = open_(context, segment, key, block.ordinal, block.row.flags, sealed)
                whole[block.row.block] = plain
            except (CorruptBlock, ValueError):
                spoiled += 1
        if spoiled:
            kept = "the others are in it, and a hole for each of these" if whole else "left out"
            self.found.problems.append(f"{path}: {spoiled:,} blocks do not open; {kept}.")
        if not whole:
            return
        with self._fs.open(path, "xb", 0) as file:
            try:
                for number, plain in whole.items():
                    file.seek(number * size)
                    file.write(plain)
            except BaseException:
                # Else the next run would take half of it for all that there is.
                self._fs.remove(path)
                raise
        self.found.files.append(path)


@dataclass(frozen=True)
class _Block:
    """A block of a footer, and where it lies in its segment."""

    row: FooterRow
    ordinal: int
    offset: int
    end: int


def _by_inode(rows: tuple[FooterRow, ...], tag: int) -> dict[int, list[_Block]]:
    """The blocks of a segment by the inode that they were sealed for, in the order of sealing: of
    two that were sealed for one place the later one counts."""
    found: dict[int, list[_Block]] = {}
    offset = 0
    for ordinal, row in enumerate(rows):
        end = offset + row.plain_len + tag
        found.setdefault(row.ino, []).append(_Block(row, ordinal, offset, end))
        offset = end
    return found
