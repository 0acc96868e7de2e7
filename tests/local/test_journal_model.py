"""The journal against a model, on a disk that forgets: kill -9 and loss of power at any call.

The model is the list of records in the order in which replay must meet them. What replay answers
must be a run of it: from its front only released records may be missing, from its end only what was
never synced, and nothing else is there.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lucid.errors import LocalError
from lucid.format.journal import Patch, Record
from lucid.local.frames import Position
from lucid.local.journal import Journal
from lucid.local.replay import Replay
from tests.local.forgetful import ForgetfulDisk, PowerLoss
from tests.local.keys import entropy, journal_keys

FILE_BYTES = 4096
SIZES = st.lists(st.sampled_from([1, 200, 1200, 3000, 9000]), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32)


class Entry(NamedTuple):
    """One record of the model."""

    name: int
    position: Position
    is_live: bool = True


class JournalMachine(RuleBasedStateMachine):
    """Appends, syncs, releases, empties; then stops at some call and starts again."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="lucid-model-"))
        self.disk = ForgetfulDisk(self.root)
        self.keys = journal_keys()
        self.entropy = entropy()
        self.names = 0
        self.log: list[Entry]
        self.durable: int
        """How many entries of the front of `log` must survive loss of power."""
        self.start_again(([], 0))

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.disk.kill()
            shutil.rmtree(self.root)

    def journal_after(self, replay: Replay) -> Journal:
        return Journal(self.disk, self.root, self.keys, self.entropy, replay, file_bytes=FILE_BYTES)

    # -- what may be in flight when it stops

    def records(self, sizes: list[int]) -> list[Record]:
        records: list[Record] = []
        for size in sizes:
            self.names += 1
            records.append(Patch(self.names, 0, 0, bytes(size)))
        return records

    def append(self, records: list[Record]) -> None:
        positions = self.journal.append_many(records)
        names = [record.ino for record in records if isinstance(record, Patch)]
        self.log += [Entry(*pair) for pair in zip(names, positions, strict=True)]
        # A new file is begun only when the one before it is durable.
        self.note_durable(positions[0].file, 0)

    def note_durable(self, file: int, offset: int) -> None:
        for count, entry in enumerate(self.log, 1):
            if entry.position.end <= (file, offset):
                self.durable = max(self.durable, count)

    # -- rules

    @rule(batches=st.lists(SIZES, min_size=1, max_size=5))
    def append_some(self, batches: list[list[int]]) -> None:
        for sizes in batches:
            self.append(self.records(sizes))

    @rule(batches=st.lists(SIZES, min_size=1, max_size=5), seed=SEEDS)
    def append_some_and_lose_power(self, batches: list[list[int]], seed: int) -> None:
        self.append_some(batches)
        self.disk.crash(seed)
        self.start_again((self.log, self.durable))

    @rule(back=st.integers(0, 3))
    def sync_up_to_one(self, back: int) -> None:
        if self.log:
            index = max(0, len(self.log) - 1 - back)
            self.journal.sync(self.log[index].position)
            self.durable = max(self.durable, index + 1)

    @rule(data=st.data())
    def release_some(self, data: st.DataObject) -> None:
        live = [index for index, entry in enumerate(self.log) if entry.is_live]
        for index in data.draw(st.sets(st.sampled_from(live))) if live else ():
            self.journal.release(self.log[index].position)
            self.log[index] = self.log[index]._replace(is_live=False)

    @rule(count=st.integers(0, 3), seed=st.none() | SEEDS)
    def empty_the_oldest(self, count: int, seed: int | None) -> None:
        files = sorted({entry.position.file for entry in self.log})
        if files:
            self.compact(files[min(count, len(files) - 1)])
        if seed is not None:
            self.disk.crash(seed)
            self.start_again((self.log, self.durable))

    def compact(self, upto: int) -> None:
        moving = [e for e in self.log if e.is_live and e.position.file <= upto]
        positions = self.journal.compact(upto, [entry.position for entry in moving])
        self.log = self.after_compacting(upto, positions)
        self.durable = len(self.log)

    def after_compacting(self, upto: int, positions: list[Position] | None) -> list[Entry]:
        moving = [e for e in self.log if e.is_live and e.position.file <= upto]
        kept = [entry for entry in self.log if entry.position.file > upto]
        if positions is not None:
            moving = [e._replace(position=p) for e, p in zip(moving, positions, strict=True)]
        return kept + moving

    @rule()
    def read_everything(self) -> None:
        for entry in self.log:
            if entry.is_live:
                record = self.journal.read(entry.position)
                assert isinstance(record, Patch) and record.ino == entry.name

    @rule(how=st.sampled_from(["close", "kill", "power"]), seed=SEEDS)
    def stop(self, how: str, seed: int) -> None:
        if how == "close":
            self.journal.close()
        self.disk.crash(seed) if how == "power" else self.disk.kill()
        if how != "power":
            self.durable = len(self.log)
        self.start_again((self.log, self.durable))

    @rule(call=st.integers(1, 12), seed=SEEDS, sizes=SIZES, killed=st.booleans())
    def stop_while_appending(self, call: int, seed: int, sizes: list[int], killed: bool) -> None:
        records = self.records(sizes)
        names = [record.ino for record in records if isinstance(record, Patch)]
        before = list(self.log)
        self.disk.cut_power_at(call)
        try:
            self.append(records)
            self.journal.sync()
            self.durable = len(self.log)
        except PowerLoss:
            nowhere = Position(0, 0, 0, 0)
            self.log = before + [Entry(name, nowhere) for name in names]
        self.disk.kill() if killed else self.disk.crash(seed)
        self.start_again((self.log, self.durable))

    @rule(call=st.integers(1, 16), seed=SEEDS, killed=st.booleans())
    def stop_while_emptying(self, call: int, seed: int, killed: bool) -> None:
        if not self.log:
            return
        upto = self.log[len(self.log) // 2].position.file
        emptied = self.after_compacting(upto, None)
        logs = [(self.log, self.durable), (emptied, len(emptied))]
        self.disk.cut_power_at(call)
        try:
            self.compact(upto)
            logs = [(self.log, self.durable)]
        except PowerLoss:
            pass
        self.disk.kill() if killed else self.disk.crash(seed)
        self.start_again(*logs)

    @rule(
        call=st.integers(1, 12),
        number=st.sampled_from([errno.EIO, errno.ENOSPC]),
        partial=st.sampled_from([0, 3, 500]),
        batches=st.lists(SIZES, min_size=1, max_size=4),
        seed=st.none() | SEEDS,
    )
    def append_while_the_disk_fails(
        self, call: int, number: int, partial: int, batches: list[list[int]], seed: int | None
    ) -> None:
        self.disk.fail("*", number, first=call, partial=partial)
        for sizes in batches:
            # What was refused is never there again, whatever comes.
            with suppress(LocalError):
                self.append(self.records(sizes))
            with suppress(LocalError):
                self.journal.sync()
                self.durable = len(self.log)
        self.disk.kill() if seed is None else self.disk.crash(seed)
        self.start_again((self.log, self.durable if seed is not None else len(self.log)))

    @rule(
        call=st.integers(1, 12),
        number=st.sampled_from([errno.EIO, errno.ENOSPC]),
        seed=st.none() | SEEDS,
    )
    def empty_while_the_disk_fails(self, call: int, number: int, seed: int | None) -> None:
        if not self.log:
            return
        upto = self.log[len(self.log) // 2].position.file
        emptied = self.after_compacting(upto, None)
        logs = [(self.log, self.durable), (emptied, len(emptied))]
        self.disk.fail("*", number, first=call)
        with suppress(LocalError):
            self.compact(upto)
            logs = [(self.log, self.durable)]
        self.disk.kill() if seed is None else self.disk.crash(seed)
        self.start_again(*logs)

    @rule(call=st.integers(1, 12), seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)))
    def stop_while_starting(self, call: int, seeds: tuple[int, int]) -> None:
        self.disk.crash(seeds[0])
        replay = Replay(self.disk, self.root, self.keys)
        kept = [position for position, _ in replay]
        self.disk.cut_power_at(call)
        try:
            self.journal_after(replay)
            durable = len(kept)
        except PowerLoss:
            durable = 0
        self.disk.crash(seeds[1])
        found = [position for position, _ in Replay(self.disk, self.root, self.keys)]
        assert found == kept[: len(found)] and len(found) >= durable
        self.start_again((self.log, self.durable))

    # -- starting again

    def start_again(self, *logs: tuple[list[Entry], int]) -> None:
        """Replay must answer a run of one of these logs, each with how much of it is durable."""
        replay = Replay(self.disk, self.root, self.keys)
        found = list(replay)
        assert replay.report.damage is None
        runs = [run for log in logs if (run := run_of(*log, found)) is not None]
        assert runs, (logs, [record.ino for _, record in found if isinstance(record, Patch)])
        self.log = runs[0]
        self.journal = self.journal_after(replay)
        self.durable = len(self.log)
        for entry in self.log:
            if not entry.is_live:
                self.journal.release(entry.position)

    @invariant()
    def nothing_piles_up(self) -> None:
        if hasattr(self, "journal"):
            live = sum(entry.position.length for entry in self.log if entry.is_live)
            assert self.journal.live_bytes == live
            assert self.journal.used_bytes >= live


def run_of(
    log: list[Entry], durable: int, found: list[tuple[Position, Record]]
) -> list[Entry] | None:
    """The part of `log` that was found, at its new positions; None when it is not as it must be."""
    names = [record.ino for _, record in found if isinstance(record, Patch)]
    for start in range(len(log) + 1):
        run = log[start : start + len(names)]
        if [entry.name for entry in run] == names and start + len(names) >= durable:
            return [entry._replace(position=p) for entry, (p, _) in zip(run, found, strict=True)]
        if start < len(log) and log[start].is_live:
            return None
    return None


JournalMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestJournal = JournalMachine.TestCase
