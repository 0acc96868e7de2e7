"""The crash soak: load, kill -9, mount again, compare; and again.

A round: workers change the drive, the daemon is killed at some moment, sometimes again while it
takes up what it left; then the drive is mounted from the same state directory, everything is
committed, and what the store holds is compared with what was acknowledged. After EPOCH rounds a new
filespace is made, so that rounds stay equally long.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lucid.errors import LucidError
from tests.soak.ledger import Ledger, Mismatch, Teller
from tests.soak.rig import COMMAND, LIMIT_S, REPOSITORY, Rig, Times

__all__ = ["Outcome", "Plan", "soak"]

EPOCH = 25
DRIVE_EVERY = 5
"""Rounds after which what the drive itself shows is compared too."""
DATA_EVERY = 10
"""Rounds after which every block in the store is opened."""
LOAD_S = (0.0, 1.5)
"""From the first step of the slowest worker to the kill."""
MOUNT_S = (0.3, 1.4)
"""From the start of `lucid mount` to a kill during recovery; usable it is after about a second."""
AGAIN = 0.25
"""How often a daemon that takes up what another left is killed."""


@dataclass(frozen=True)
class Plan:
    """What a soak does."""

    kills: int
    seed: int
    workers: int = 3
    minutes: float = 60.0
    command: Sequence[str] = COMMAND


@dataclass
class Outcome:
    """What it did."""

    kills: int = 0
    rounds: int = 0
    steps: int = 0
    during_recovery: int = 0
    in_flight: int = 0
    """Workers that a kill met in the middle of a step."""
    seconds: float = 0.0


class Load:
    """The workers of one round."""

    def __init__(self, rig: Rig, tellers: Sequence[Teller], run: int) -> None:
        self._tellers = tellers
        self._streams = selectors.DefaultSelector()
        self._rests = [b""] * len(tellers)
        self._processes = [self._start(rig, teller, run) for teller in tellers]
        for number, process in enumerate(self._processes):
            assert process.stdout is not None
            self._streams.register(process.stdout, selectors.EVENT_READ, number)

    def _start(self, rig: Rig, teller: Teller, run: int) -> subprocess.Popen[bytes]:
        names = {path: data is None for path, data in teller.tree.items()}
        arguments = [str(rig.point), str(teller.number), str(run), json.dumps(names)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.soak.worker", *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def hear(self, until: Callable[[], bool], limit_s: float) -> None:
        """Listen until that holds after some line, or so long."""
        end = time.monotonic() + limit_s
        while not until() and (left := end - time.monotonic()) > 0 and self._streams.get_map():
            for key, _ in self._streams.select(left):
                self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, 65_536)
        if not data:
            self._streams.unregister(key.fd)
        *lines, self._rests[key.data] = (self._rests[key.data] + data).split(b"\n")
        for line in lines:
            self._tellers[key.data].hear(line.decode())

    def all_there(self) -> bool:
        return all(teller.is_there or teller.stopped for teller in self._tellers)

    def end(self, killed_at: float) -> None:
        """Hear the rest. Raises Mismatch for a worker that was stopped by anything but the kill."""
        self.hear(lambda: False, LIMIT_S)
        for teller, process in zip(self._tellers, self._processes, strict=True):
            when, _, why = teller.stopped.partition(" ")
            if not teller.stopped or float(when) < killed_at:
                raise Mismatch(f"worker {teller.number} failed: {why or 'no word'} {teller.last}")
            process.wait(LIMIT_S)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._streams.close()


class Soak:
    """The rounds on one filespace after the other."""

    def __init__(
        self, plan: Plan, root: Path, new_store: Callable[[Path], str], tell: Callable[[str], None]
    ) -> None:
        self.outcome = Outcome()
        self.times = Times()
        self._plan = plan
        self._root = root
        self._new_store = new_store
        self._tell = tell
        self._chance = Random(plan.seed)
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Raises Mismatch when anything is not as it must be."""
        while not self._is_done():
            place = self._root / f"filespace{self.outcome.rounds // EPOCH}"
            place.mkdir()
            self._epoch(place)
            shutil.rmtree(place)
        return self.outcome

    def _is_done(self) -> bool:
        self.outcome.seconds = time.monotonic() - self._began
        done = self.outcome.kills >= self._plan.kills
        return done or self.outcome.seconds >= 60 * self._plan.minutes

    def _epoch(self, place: Path) -> None:
        with self.times("init"):
            rig = Rig(place, self._new_store(place), self.times, self._plan.command)
            ledger = Ledger(self._plan.workers)
            rig.mount()
        try:
            for _ in range(EPOCH):
                self._round(rig, ledger)
                if self._is_done():
                    break
        except (Mismatch, LucidError, OSError) as error:
            where = f"round {self.outcome.rounds}, seed {self._plan.seed}"
            raise Mismatch(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            rig.kill()
        self._tell(self.report())

    def _round(self, rig: Rig, ledger: Ledger) -> None:
        number = self.outcome.rounds = self.outcome.rounds + 1
        with rig.watched():
            self._load_and_kill(rig, ledger, number)
            with self.times("mount"):
                self._mount(rig)
            with self.times("sync"):
                rig.sync()
            with self.times("elsewhere"):
                found = rig.elsewhere()
                ledger.take(found)
            if number % DRIVE_EVERY == 0:
                with self.times("drive"):
                    ledger.check(rig.drive(), "the drive")
            with self.times("fsck"):
                rig.check_store(read_data=number % DATA_EVERY == 0)
            rig.check_log()

    def _load_and_kill(self, rig: Rig, ledger: Ledger, number: int) -> None:
        before = sum(teller.steps for teller in ledger.tellers)
        with self.times("load"), self._loaded(rig, ledger, number) as load:
            load.hear(load.all_there, LIMIT_S)
            load.hear(lambda: False, self._chance.uniform(*LOAD_S))
            if self._chance.random() < 0.5:
                aim = self._chance.choice(ledger.tellers)
                seen = aim.steps
                load.hear(lambda: aim.steps > seen and aim.begun is not None, 1.0)
            killed_at = time.monotonic()
            rig.kill()
            load.end(killed_at)
        self.outcome.kills += 1
        self.outcome.steps += sum(teller.steps for teller in ledger.tellers) - before
        self.outcome.in_flight += sum(teller.begun is not None for teller in ledger.tellers)

    @contextmanager
    def _loaded(self, rig: Rig, ledger: Ledger, number: int) -> Iterator[Load]:
        load = Load(rig, ledger.tellers, number)
        try:
            yield load
        finally:
            load.close()

    def _mount(self, rig: Rig) -> None:
        while self._chance.random() < AGAIN:
            if rig.kill_while_mounting(self._chance.uniform(*MOUNT_S)):
                self.outcome.kills += 1
                self.outcome.during_recovery += 1
        rig.mount()

    def report(self) -> str:
        """How far it is, and where the time of a round goes."""
        done = self.outcome
        parts = ", ".join(
            f"{part} {spent / done.rounds:.2f}"
            for part, spent in sorted(self.times.spent.items(), key=lambda item: -item[1])
        )
        return (
            f"{done.kills} kills survived ({done.during_recovery} during recovery), {done.steps}"
            f" steps acknowledged, {done.in_flight} cut off in the middle;"
            f" {done.seconds / done.rounds:.1f} s a round of: {parts}"
        )


def soak(
    plan: Plan,
    root: Path,
    new_store: Callable[[Path], str],
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run a soak below `root`. Raises Mismatch; then `root` keeps what there is to look at."""
    return Soak(plan, root, new_store, tell).run()
