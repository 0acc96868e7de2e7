"""The journal against a model, on a disk that forgets: kill -9 and loss of power at any call.

The model is the list of records in the order in which replay must meet them. What replay answers
must be a run of it: from its front only released records may be missing, from its end only what was
never synced, and nothing else is there.
"""

from __future__ import annotations

import shutil
import tempfile
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
SIZES = st.lists(st.sampled_from([1, 200, 3000, 9000]), min_size=1, max_size=4)


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
        self.log: list[Entry] = []
        self.durable = 0
        """How many entries of the front of `log` must survive loss of power."""
        self.journal = self.open()

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.disk.kill()
            shutil.rmtree(self.root)

    def open(self) -> Journal:
        replay = Replay(self.disk, self.root, self.keys)
        replay.finish()
        return Journal(
            self.disk, self.root, self.keys, self.entropy, replay, file_bytes=FILE_BYTES
        )

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

    @rule(sizes=SIZES)
    def append_some(self, sizes: list[int]) -> None:
        self.append(self.records(sizes))

    @rule()
    def sync(self) -> None:
        self.journal.sync()
        self.durable = len(self.log)

    @rule(data=st.data())
    def sync_up_to_one(self, data: st.DataObject) -> None:
        if self.log:
            index = data.draw(st.integers(0, len(self.log) - 1))
            self.journal.sync(self.log[index].position)
            self.durable = max(self.durable, index + 1)

    @rule(data=st.data())
    def release_some(self, data: st.DataObject) -> None:
        live = [index for index, entry in enumerate(self.log) if entry.is_live]
        for index in data.draw(st.sets(st.sampled_from(live))) if live else ():
            self.journal.release(self.log[index].position)
            self.log[index] = self.log[index]._replace(is_live=False)

    @rule(count=st.integers(0, 3))
    def empty_the_oldest(self, count: int) -> None:
        files = sorted({entry.position.file for entry in self.log})
        if files:
            self.compact(files[min(count, len(files) - 1)])

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

    @rule()
    def close_and_open(self) -> None:
        self.journal.close()
        self.durable = len(self.log)
        self.start_again([self.log])

    @rule()
    def kill(self) -> None:
        self.disk.kill()
        durable, self.durable = self.durable, len(self.log)
        self.start_again([self.log])
        assert self.durable >= durable

    @rule(seed=st.integers(0, 2**32))
    def lose_power(self, seed: int) -> None:
        self.disk.crash(seed)
        self.start_again([self.log])

    @rule(call=st.integers(1, 12), seed=st.integers(0, 2**32), sizes=SIZES, killed=st.booleans())
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
        if killed:
            self.disk.kill()
        else:
            self.disk.crash(seed)
        self.start_again([self.log])

    @rule(call=st.integers(1, 16), seed=st.integers(0, 2**32), killed=st.booleans())
    def stop_while_emptying(self, call: int, seed: int, killed: bool) -> None:
        if not self.log:
            return
        upto = self.log[len(self.log) // 2].position.file
        logs = [self.log, self.after_compacting(upto, None)]
        self.disk.cut_power_at(call)
        try:
            self.compact(upto)
            logs = [self.log]
        except PowerLoss:
            if self.durable < len(self.log):
                # It syncs first: what was not durable may be, or not.
                pass
        if killed:
            self.disk.kill()
        else:
            self.disk.crash(seed)
        self.start_again(logs)

    @rule(call=st.integers(1, 12), seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)))
    def stop_while_starting(self, call: int, seeds: tuple[int, int]) -> None:
        self.disk.crash(seeds[0])
        replay = Replay(self.disk, self.root, self.keys)
        kept = [position for position, _ in replay]
        self.disk.cut_power_at(call)
        try:
            Journal(self.disk, self.root, self.keys, self.entropy, replay, file_bytes=FILE_BYTES)
            durable = len(kept)
        except PowerLoss:
            durable = 0
        self.disk.crash(seeds[1])
        found = [position for position, _ in Replay(self.disk, self.root, self.keys)]
        assert found == kept[: len(found)] and len(found) >= durable
        self.start_again([self.log])

    # -- starting again

    def start_again(self, logs: list[list[Entry]]) -> None:
        """Replay must answer a run of one of these logs; that run is the log from now on."""
        replay = Replay(self.disk, self.root, self.keys)
        found = list(replay)
        assert replay.report.damage is None
        runs = [run for log in logs if (run := self.run_of(log, found)) is not None]
        assert runs, (logs, [record.ino for _, record in found], self.durable)
        self.log = runs[0]
        self.journal = Journal(
            self.disk, self.root, self.keys, self.entropy, replay, file_bytes=FILE_BYTES
        )
        self.durable = len(self.log)
        for entry in self.log:
            if not entry.is_live:
                self.journal.release(entry.position)

    def run_of(
        self, log: list[Entry], found: list[tuple[Position, Record]]
    ) -> list[Entry] | None:
        names = [record.ino for _, record in found if isinstance(record, Patch)]
        for start in range(len(log) + 1):
            run = [entry.name for entry in log[start : start + len(names)]]
            if run == names and start + len(names) >= self.durable:
                return [
                    Entry(name, position, entry.is_live)
                    for name, (position, _), entry in zip(names, found, log[start:], strict=False)
                ]
            if start < len(log) and log[start].is_live:
                return None
        return None

    @invariant()
    def nothing_piles_up(self) -> None:
        if hasattr(self, "journal"):
            live = sum(entry.position.length for entry in self.log if entry.is_live)
            assert self.journal.live_bytes == live
            assert self.journal.used_bytes >= live


JournalMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
TestJournal = JournalMachine.TestCase
