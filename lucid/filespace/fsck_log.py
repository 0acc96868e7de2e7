"""The part of `lucid fsck` that folds the log: hashes, signatures, roles, and whether it is whole.

A log that was cut has entries missing below the floor, and only there; it is folded from a
checkpoint, as a new device does it.
"""

from __future__ import annotations

from contextlib import closing

from lucid.errors import DataError, HistoryFork
from lucid.filespace.fsck_checkpoint import CheckpointCheck
from lucid.filespace.fsck_report import FsckReport, Progress
from lucid.filespace.leftovers import LogEntry, is_never_cut, list_log
from lucid.filespace.visiting import Visit
from lucid.format.checkpoint import state_hash
from lucid.format.names import log_key
from lucid.meta.checkpoint_rows import chunks_of
from lucid.meta.log import follow
from lucid.meta.replica import Replica
from lucid.meta.verify import Void

__all__ = ["LogCheck"]

VOIDS_SHOWN = 100


class LogCheck:
    """One check of a log; what it finds goes into `found`."""

    def __init__(self, visit: Visit, found: FsckReport, report: Progress) -> None:
        self._visit = visit
        self._found = found
        self._report = report

    def fold(self) -> Replica | None:
        """The state at the end of the log. None: it cannot be had, and `found` says why."""
        entries = list_log(self._visit.store, lambda stage, done, total: None)
        newest = self._visit.checkpoints().newest() or 0
        if not newest or is_never_cut(entries, newest):
            return self._whole()
        return self._cut(entries)

    # -- from entry 1

    def _whole(self) -> Replica | None:
        found, visit = self._found, self._visit
        replica = visit.replica("log")
        reader = visit.reader(replica)
        checkpoint = CheckpointCheck(visit.store, visit.ring, replica)
        try:
            while (entry := reader.next()) is not None:
                found.entries += 1
                self._report("log", found.entries, None)
                if isinstance(entry, Void):
                    found.void_entries += 1
                    found.warnings.append(f"Entry {entry.sequence} is void: {entry.reason}")
                    if entry.fork:
                        found.problems.append(reader.fork)
                    replica.commit_void(entry.sequence, entry.hash, entry.reason)
                    checkpoint.folded(None)
                    continue
                replica.commit_entry(entry.sequence, entry.hash, entry.body)
                checkpoint.folded(entry.body)
                replica.take_events()
        except (DataError, HistoryFork) as error:
            found.problems.append(f"Entry {found.entries + 1} of the log: {error}")
            return None
        if not found.entries:
            found.problems.append("The log has no entry 1.")
            return None
        self._gap(found.entries)
        checkpoint.finish()
        found.checkpoint = checkpoint.sequence or 0
        found.problems.extend(checkpoint.problems)
        found.warnings.extend(checkpoint.warnings)
        return replica

    def _gap(self, head: int) -> None:
        """Entries behind a hole are a log that lost one."""
        store = self._visit.store
        beyond = [info.key for info in store.list("log/", start_after=log_key(head), limit=3)]
        if beyond:
            self._found.problems.append(
                f"The log ends at entry {head}, but the store holds {beyond[0]} behind it: "
                f"entry {head + 1} is gone, or junk was put there."
            )

    # -- from a checkpoint

    def _cut(self, entries: list[LogEntry]) -> Replica | None:
        """From a checkpoint before the newest one if there is one, to check that too."""
        found, visit = self._found, self._visit
        newest = visit.checkpoints().newest() or 0
        try:
            started, refused = visit.begin("log", below=newest)
            if started is None:
                started, refused = visit.begin("log")
            found.warnings.extend(refused)
            if started is None:
                found.problems.append(
                    f"The log begins at entry {entries[1].sequence}, and no checkpoint can be used"
                    " in the place of what lies before."
                )
                return None
            replica = visit.replica("log")
            self._compare_newest(started.known.sequence, newest)
        except (DataError, HistoryFork) as error:
            found.problems.append(f"The log cannot be folded: {error}")
            return None
        fork = visit.reader(replica).fork
        if fork:
            found.problems.append(fork)
        base, head = started.known.sequence, replica.head().sequence
        found.first_entry, found.entries = base + 1, head - base
        found.void_entries = replica.void_count()
        for number, reason in replica.voids(VOIDS_SHOWN):
            found.warnings.append(f"Entry {number} is void: {reason}")
        self._report("log", head, head)
        self._holes(entries, replica)
        self._gap(head)
        return replica

    def _compare_newest(self, base: int, newest: int) -> None:
        """The newest checkpoint against what the log makes of an older one."""
        found, visit = self._found, self._visit
        found.checkpoint = newest
        if base == newest:
            return
        started, refused = visit.begin("newest", below=newest + 1)
        found.warnings.extend(refused)
        if started is None or started.known.sequence != newest:
            return
        again, _ = visit.begin("again", below=newest, entries=newest - base)
        if again is None:
            return
        replica = visit.replica("again")
        # What was said too late for the one before the newest begins it further back.
        follow(visit.reader(replica), replica, max(0, newest - replica.head().sequence))
        snapshot = replica.snapshot()
        if snapshot is None:
            return
        with closing(snapshot):
            made = state_hash(chunk.hash for chunk in chunks_of(snapshot.batches()))
            if snapshot.head.sequence == newest and made != started.state_hash:
                found.problems.append(
                    f"Checkpoint {newest} holds another state than the log makes after entry"
                    f" {newest}: its author had a fault."
                )

    def _holes(self, entries: list[LogEntry], replica: Replica) -> None:
        """Only entries below the floor may be missing."""
        floor, head = replica.floor(), replica.head().sequence
        there = {entry.sequence for entry in entries}
        lacking = [number for number in range(max(1, floor), head + 1) if number not in there]
        if lacking:
            self._found.problems.append(
                f"Entry {lacking[0]} of the log is gone, and it is not below the floor, which is at"
                f" entry {floor}: somebody took it out of the store."
            )
