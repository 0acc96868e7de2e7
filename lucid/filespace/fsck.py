"""`lucid fsck`: a read-only check of everything that is reachable in the store.

It believes nothing local: it folds the log from entry 1 into a replica of its own, in a directory
that is removed again, and compares what that says with what the store holds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lucid.crypto.footer import check_footer, open_footer
from lucid.crypto.founding import Unlocked
from lucid.crypto.keyring import KeyRing
from lucid.engine.errors import CorruptBlock
from lucid.engine.sodium import AdContext, digest16, open_, tag_bytes
from lucid.errors import DataError, HistoryFork, ObjectMissing
from lucid.filespace import founding
from lucid.filespace.fsck_checkpoint import CheckpointCheck
from lucid.format.change import DATA, LOST, SegmentRow
from lucid.format.names import DATA_PREFIX, log_key, parse_segment_key, segment_key
from lucid.format.runs import Geometry
from lucid.meta.log import LogReader
from lucid.meta.replica import Replica
from lucid.meta.state import ROOT_INO
from lucid.meta.verify import Origin, Void
from lucid.store.base import ObjectStore
from lucid.store.stack import open_store
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["FsckReport", "Progress", "check"]

Progress = Callable[[str, int, "int | None"], None]
"""stage, done, total (None while it is not known)."""

PATHS_MAX = 100


@dataclass
class FsckReport:
    """What was found. `problems` is empty when everything is as it should be."""

    filespace: str
    name: str = ""
    entries: int = 0
    void_entries: int = 0
    checkpoint: int = 0
    """The newest checkpoint in the store, which was compared with the log; 0 for none."""
    inodes: int = 0
    segments: int = 0
    segment_bytes: int = 0
    blocks_read: int = 0
    orphans: int = 0
    """Objects under data/ that no entry names: uploads that were not committed, or not yet."""
    orphan_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "clean": self.clean}


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
    with ExitStack() as stack:
        own = store or stack.enter_context(_closing(open_store(url, entropy=entropy)))
        unlocked = founding.unlock(own, secret)
        stack.callback(unlocked.keys.close)
        ring = KeyRing(unlocked.superblock.filespace, unlocked.superblock.suite)
        stack.callback(ring.close)
        superblock = unlocked.superblock
        key, _ = founding.read_generation(own, unlocked, superblock.generation)
        ring.add(superblock.generation, key, superblock.generation_key_hash)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lucid-fsck-"))
        geometry = Geometry(superblock.block_size, tag_bytes(superblock.suite))
        replica = Replica(Path(folder) / "replica", entropy(32), geometry, clock or SystemClock())
        stack.callback(replica.close)
        found = FsckReport(superblock.filespace.hex())
        found.warnings.extend(own.lifecycle_warnings())
        checker = _Checker(own, unlocked, ring, replica, found, report)
        checker.run(read_data)
        return found


class _closing:
    """Closes a store at the end."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __enter__(self) -> ObjectStore:
        return self._store

    def __exit__(self, *_exception: object) -> None:
        self._store.close()


class _Checker:
    """The steps of one check."""

    def __init__(
        self,
        store: ObjectStore,
        unlocked: Unlocked,
        ring: KeyRing,
        replica: Replica,
        found: FsckReport,
        report: Progress,
    ) -> None:
        self._store = store
        self._unlocked = unlocked
        self._ring = ring
        self._replica = replica
        self._found = found
        self._report = report
        self._segments: dict[bytes, SegmentRow] = {}

    def run(self, read_data: bool) -> None:
        if not self._fold():
            return
        self._found.name = (self._replica.value("name") or b"").decode(errors="replace")
        self._found.inodes = self._replica.totals().inodes
        bad = self._presence()
        if read_data:
            bad |= self._read_all(bad)
        self._name_files(bad)

    def _fold(self) -> bool:
        """The chain: hashes, signatures, roles, and the fold itself. False: it cannot go on."""
        found = self._found
        origin = Origin(self._unlocked.superblock, self._unlocked.superblock_hash)
        reader = LogReader(self._store, self._ring, self._replica, origin)
        checkpoint = CheckpointCheck(self._store, self._ring, self._replica)
        try:
            while (entry := reader.next()) is not None:
                found.entries += 1
                self._report("log", found.entries, None)
                if isinstance(entry, Void):
                    found.void_entries += 1
                    found.warnings.append(f"Entry {entry.sequence} is void: {entry.reason}")
                    if entry.fork:
                        found.problems.append(reader.fork)
                    self._replica.commit_void(entry.sequence, entry.hash, entry.reason)
                    checkpoint.folded(None)
                    continue
                for row in entry.body.segments:
                    self._segments[row.id] = row
                self._replica.commit_entry(entry.sequence, entry.hash, entry.body)
                checkpoint.folded(entry.body)
                self._replica.take_events()
        except (DataError, HistoryFork) as error:
            found.problems.append(f"Entry {found.entries + 1} of the log: {error}")
            return False
        if not found.entries:
            found.problems.append("The log has no entry 1.")
            return False
        self._gap(found.entries)
        checkpoint.finish()
        found.checkpoint = checkpoint.sequence or 0
        found.problems.extend(checkpoint.problems)
        found.warnings.extend(checkpoint.warnings)
        return True

    def _gap(self, head: int) -> None:
        """Entries behind a hole are a log that lost one."""
        beyond = [info.key for info in self._store.list("log/", start_after=log_key(head), limit=3)]
        if beyond:
            self._found.problems.append(
                f"The log ends at entry {head}, but the store holds {beyond[0]} behind it: "
                f"entry {head + 1} is gone, or junk was put there."
            )

    def _presence(self) -> set[bytes]:
        """Every segment that the log names is in the store with its length; returns those not."""
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
