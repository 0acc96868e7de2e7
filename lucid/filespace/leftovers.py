"""What of a store's objects the state at one entry does not need: lists it, and deletes it.

The rule stands in FORMAT section 7.2. Used by one thread; every step can be done again, by this
collector or another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lucid.errors import DataError, ObjectMissing
from lucid.filespace.collection import Collection
from lucid.format.names import (
    CHECKPOINT_PREFIX,
    DATA_PREFIX,
    LOG_PREFIX,
    MANIFEST_PART,
    log_key,
    parse_checkpoint_key,
    parse_log_key,
    parse_segment_key,
)
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.store.base import ObjectStore

__all__ = ["MARGIN_NS", "Leftovers", "LogEntry", "Progress", "is_never_cut", "list_log"]

Progress = Callable[[str, int, "int | None"], None]
"""stage, done, total (None while it is not known)."""

MARGIN_NS = 3600 * 1_000_000_000
"""Clocks within one store may differ by so much: younger objects are left alone."""
BATCH = 500
STRANGE_MAX = 10


class LogEntry(NamedTuple):
    """An entry as a list shows it."""

    sequence: int
    size: int
    modified_ns: int


def list_log(store: ObjectStore, report: Progress) -> list[LogEntry]:
    """The entries of the log, ascending. Raises StoreError."""
    found: list[LogEntry] = []
    for info in store.list(LOG_PREFIX):
        sequence = parse_log_key(info.key)
        if sequence is not None:
            found.append(LogEntry(sequence, info.size, info.modified_ns))
            report("list", len(found), None)
    return sorted(found)


def is_never_cut(entries: list[LogEntry], checkpoint: int) -> bool:
    """Whether a log was never cut, its newest checkpoint being that. One that was may have kept
    some of its first entries, where the store did not delete all that it was asked to."""
    first = entries[: max(2, checkpoint)]
    return all(entry.sequence == number for number, entry in enumerate(first, 1))


class Leftovers:
    """Keys to delete, by kind, and their figures in a Collection."""

    def __init__(self, store: ObjectStore, found: Collection, report: Progress) -> None:
        self._store = store
        self._found = found
        self._report = report
        self.segments: list[str] = []
        self.log: list[str] = []
        self.checkpoints: list[str] = []

    def find_segments(self, named: set[bytes], before_ns: int) -> None:
        """Segments that have no row and are older than this; `before_ns` 0: none are."""
        found = self._found
        strange = 0
        for count, info in enumerate(self._store.list(DATA_PREFIX), 1):
            self._report("segments", count, None)
            segment = parse_segment_key(info.key)
            if segment is None:
                strange += 1
                if strange <= STRANGE_MAX:
                    found.warnings.append(f"{info.key} is no segment's name. It is left alone.")
            elif segment in named:
                found.kept_segments.add(info.size)
            elif info.modified_ns < before_ns:
                found.segments.add(info.size)
                self.segments.append(info.key)
            else:
                found.young_segments.add(info.size)

    def find_entries(self, entries: Iterable[LogEntry], cut: int, kept: set[int]) -> None:
        """Entries below `cut`, but for those in `kept`."""
        for entry in entries:
            if entry.sequence < cut and entry.sequence not in kept:
                self._found.log.add(entry.size)
                self.log.append(log_key(entry.sequence))

    def find_checkpoints(self, reader: CheckpointReader, cut: int) -> None:
        """Objects of checkpoints below `cut` that no manifest from there on names.

        Nothing, where one of those manifests cannot be read: it may name anything.
        """
        older: list[tuple[str, int, str, int]] = []
        manifests: list[int] = []
        for info in self._store.list(CHECKPOINT_PREFIX):
            parsed = parse_checkpoint_key(info.key)
            if parsed is None:
                continue
            sequence, part = parsed
            if sequence < cut:
                older.append((info.key, sequence, part, info.size))
            elif part == MANIFEST_PART:
                manifests.append(sequence)
        shared: set[tuple[int, str]] = set()
        try:
            for sequence in manifests:
                chunks = reader.manifest(sequence).manifest.chunks
                shared.update((ref.sequence, ref.name.hex()) for ref in chunks)
        except (DataError, ObjectMissing) as error:
            self._found.warnings.append(
                f"The manifest of checkpoint {sequence} cannot be read, so older checkpoints are"
                f" left alone: {error}"
            )
            return
        for key, sequence, part, size in older:
            if (sequence, part) not in shared:
                self._found.checkpoints.add(size)
                self.checkpoints.append(key)

    def delete(self) -> None:
        """Delete all that was found: data first, the log last. Raises StoreError."""
        for stage, keys in (
            ("delete segments", self.segments),
            ("delete checkpoints", self.checkpoints),
            ("delete entries", self.log),
        ):
            for start in range(0, len(keys), BATCH):
                self._store.delete(keys[start : start + BATCH])
                self._report(stage, min(start + BATCH, len(keys)), len(keys))
