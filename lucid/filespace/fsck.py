"""`lucid fsck`: a read-only check of everything that is reachable in the store.

It believes nothing local: it folds the log, from entry 1 if it is whole, into a replica of its own,
in a directory that is removed again, and compares what that says with what the store holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

from lucid.crypto.footer import check_footer, open_footer
from lucid.engine.errors import CorruptBlock
from lucid.engine.sodium import AdContext, digest16, open_, tag_bytes
from lucid.errors import DataError, ObjectMissing
from lucid.filespace.fsck_log import LogCheck
from lucid.filespace.fsck_report import FsckReport, Progress
from lucid.filespace.visiting import Visit
from lucid.format.change import DATA, LOST, SegmentRow
from lucid.format.names import DATA_PREFIX, parse_segment_key, segment_key
from lucid.meta.replica import Replica
from lucid.meta.state import ROOT_INO
from lucid.store.base import ObjectStore
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["FsckReport", "Progress", "check"]

PATHS_MAX = 100


def check(
    url: str,
    secret: str,
    *,
    read_data: bool = False,
    report: Progress = lambda stage, done, total: None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
) -> FsckReport:
    """Check the filespace at `url`. Raises only what keeps it from looking at all."""
    visit = Visit(url, secret, store=store, clock=clock or SystemClock(), entropy=entropy)
    with closing(visit):
        found = FsckReport(visit.unlocked.superblock.filespace.hex())
        found.warnings.extend(visit.store.lifecycle_warnings())
        replica = LogCheck(visit, found, report).fold()
        if replica is not None:
            _Checker(visit, replica, found, report).run(read_data)
        return found


class _Checker:
    """The steps of one check."""

    def __init__(self, visit: Visit, replica: Replica, found: FsckReport, report: Progress) -> None:
        self._store = visit.store
        self._unlocked = visit.unlocked
        self._ring = visit.ring
        self._replica = replica
        self._found = found
        self._report = report
        self._segments = {row.id: row for row in replica.segments()}

    def run(self, read_data: bool) -> None:
        self._found.name = (self._replica.value("name") or b"").decode(errors="replace")
        self._found.inodes = self._replica.totals().inodes
        bad = self._presence()
        if read_data:
            bad |= self._read_all(bad)
        self._name_files(bad)

    def _presence(self) -> set[bytes]:
        """Every segment that the state names is in the store with its length; returns those not."""
        found = self._found
        there: dict[bytes, int] = {}
        for count, info in enumerate(self._store.list(DATA_PREFIX), 1):
            segment = parse_segment_key(info.key)
            if segment is None:
                found.warnings.append(f"{info.key} is no segment's name.")
            else:
                there[segment] = info.size
            self._report("segments", count, None)
        bad: set[bytes] = set()
        for segment, row in self._segments.items():
            size = there.pop(segment, None)
            if size == row.stored_len:
                continue
            bad.add(segment)
            found.problems.append(
                f"Segment {segment.hex()} is not in the store."
                if size is None
                else f"Segment {segment.hex()} has {size} bytes instead of {row.stored_len}."
            )
        found.segments = len(self._segments)
        found.segment_bytes = sum(row.stored_len for row in self._segments.values())
        found.orphans = len(there)
        found.orphan_bytes = sum(there.values())
        return bad

    def _read_all(self, known_bad: set[bytes]) -> set[bytes]:
        bad: set[bytes] = set()
        rows = [row for row in self._segments.values() if row.id not in known_bad]
        for count, row in enumerate(rows, 1):
            self._report("data", count, len(rows))
            try:
                self._read_one(row)
            except (DataError, ObjectMissing, CorruptBlock) as error:
                bad.add(row.id)
                self._found.problems.append(f"Segment {row.id.hex()}: {error}")
        return bad

    def _read_one(self, row: SegmentRow) -> None:
        """Footer hash, footer, and every block of one segment."""
        data = self._store.get(segment_key(row.id), 0, row.stored_len)
        tail = data[len(data) - row.footer_len :]
        check_footer(row, tail)
        superblock = self._unlocked.superblock
        key = self._ring.data_key(row.id, row.generation)
        rows = open_footer(self._ring, row.id, tail)
        context = AdContext(superblock.suite, b"DATA", superblock.filespace, row.generation)
        tag, offset = tag_bytes(superblock.suite), 0
        for ordinal, block in enumerate(rows):
            sealed = data[offset : offset + block.plain_len + tag]
            offset += len(sealed)
            if digest16(sealed) != block.digest:
                raise DataError(f"Block {ordinal} is not the one that was sealed.")
            open_(context, row.id, key, ordinal, block.flags, sealed)
            self._found.blocks_read += 1

    def _name_files(self, bad: set[bytes]) -> None:
        """Which files have blocks in bad segments, or blocks that are recorded as lost."""
        for count, (path, ino) in enumerate(self._files(), 1):
            self._report("files", count, self._found.inodes)
            columns = self._replica.map_columns(ino)
            if columns is None:
                self._found.problems.append(f"{path}: its map cannot be read.")
                continue
            named = {row.id for row in columns.segments}
            unknown = [segment for segment in named if self._replica.segment(segment) is None]
            if unknown:
                self._found.problems.append(f"{path}: it names a segment that no entry brought.")
            if named & bad and len(self._found.problems) < PATHS_MAX + len(bad):
                self._found.problems.append(f"{path}: part of it cannot be read.")
            if any(int(kind) == LOST for kind in columns.kind):
                self._found.problems.append(f"{path}: part of it is recorded as lost.")
            if any(int(kind) not in (DATA, 2, LOST) for kind in columns.kind):
                self._found.problems.append(f"{path}: its map has an unknown kind.")

    def _files(self) -> Iterator[tuple[str, int]]:
        """Every regular file, with one of its paths."""
        todo: list[tuple[int, bytes]] = [(ROOT_INO, b"")]
        seen: set[int] = set()
        while todo:
            directory, path = todo.pop()
            after = 0
            while page := self._replica.readdir_rows(directory, after, 500):
                after = page[-1][0].id
                for name, row in page:
                    kind = row.mode & 0o170000
                    if kind == 0o040000:
                        todo.append((row.ino, path + b"/" + name.name))
                    elif kind == 0o100000 and row.ino not in seen:
                        seen.add(row.ino)
                        yield os.fsdecode(path + b"/" + name.name), row.ino
