"""The power soak: load on a disk that forgets, the power cut at some call of it, open, compare.

The filespace is open in this process, in a bucket in memory, its state directory on the disk of
tests/local/forgetful.py. At a call that is drawn the store goes away, and what is durable and what
is not yet are put aside: that, with a random part of what was not synced, is found after the cut.
"""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from lucid.errors import DataError, LucidError
from lucid.filespace import Filespace
from lucid.types import SystemClock
from tests.filespace.spaces import WAIT_S, Space
from tests.local.forgetful import DIRECTORY, ForgetfulDisk
from tests.soak.calls import FilespaceCalls
from tests.soak.ledger import Mismatch
from tests.soak.past import UNREADABLE, Past
from tests.soak.steps import LOGS, SHARED, Step, Tree, log_path, owner_of, steps
from tests.soak.worker import Hands

__all__ = ["cut_power_again_and_again"]

EPOCH = 8
WORKERS = 2
CALLS = (1, 400)
"""Write-like calls of the disk from the beginning of the load to the cut."""


class Started(SystemClock):
    """The clock of a machine that was started now."""

    def __init__(self) -> None:
        self._start = super().monotonic()

    def monotonic(self) -> float:
        return super().monotonic() - self._start


@dataclass
class Part:
    """One worker: what it did since the store had everything."""

    number: int
    tree: Tree = field(default_factory=dict)
    past: Past = field(default_factory=lambda: Past({}))
    kept: bytes = b""
    kept_least: int = 0
    kept_ends: set[int] = field(default_factory=lambda: {0})
    steps: int = 0
    said: list[str] = field(default_factory=list)

    def begin(self, step: Step) -> None:
        self.past.begin(step)
        self.said.append(f"{step.kind} {step.path} {step.other} {step.size}")
        if step.kind == "write":
            self.kept += step.data()
            self.kept_ends.add(len(self.kept))

    def end(self, step: Step) -> None:
        self.past.end(step)
        self.said[-1] += " done"
        self.steps += 1
        if step.kind == "fsync":
            self.kept_least = len(self.kept)

    def check(self, tree: Tree, kept: bytes | None) -> list[str]:
        """What is wrong, if anything."""
        data = kept or b""
        if data == UNREADABLE and not self.kept_least:
            data = b""
        wrong = self.past.check(tree)
        if wrong:
            wrong = f"worker {self.number}: {wrong}\n    " + "\n    ".join(self.said)
        fits = self.kept_least <= len(data) in self.kept_ends and self.kept.startswith(data)
        told = f"{log_path(self.number)}: {len(data)} bytes, {self.kept_least} were synced"
        return [line for line in (wrong, "" if fits else told) if line]

    def take(self, tree: Tree, kept: bytes | None) -> None:
        self.tree, self.past, self.kept, self.said = tree, Past(tree), kept or b"", []
        self.kept_least, self.kept_ends = len(self.kept), {len(self.kept)}


class Cut:
    """The moment at which the power goes. `lock` orders it and what workers say."""

    def __init__(self, disk: ForgetfulDisk, stop_store: Callable[[], None], calls: int) -> None:
        self.lock = threading.Lock()
        self.came = threading.Event()
        self._disk = disk
        self._stop_store = stop_store
        self._left = calls
        self._kept: tuple[object, object, object] | None = None
        disk.before = self._count

    def _count(self, name: str) -> None:
        """Called by the disk before each call that writes, under its lock."""
        self._left -= 1
        if self._left == 0:
            self.now()

    def now(self) -> None:
        disk = self._disk
        with disk._lock, self.lock:
            if self._kept is None:
                self._stop_store()
                memo = {id(DIRECTORY): DIRECTORY}
                names = (disk._names, disk._durable_names, disk._pending_names)
                self._kept = copy.deepcopy(names, memo)
                self.came.set()

    def lose(self, seed: int) -> None:
        """What the disk holds is what it held then, less what it forgets."""
        assert self._kept is not None
        disk = self._disk
        disk._names, disk._durable_names, disk._pending_names = self._kept  # type: ignore
        disk.crash(seed)


class Machine:
    """One filespace, its disk and its workers."""

    def __init__(self, root: Path, disk: Callable[[Path], ForgetfulDisk]) -> None:
        self.space = Space(root)
        self.space.state("a").mkdir(mode=0o700)
        self.disk = disk(self.space.state("a"))
        self.parts = [Part(number) for number in range(WORKERS)]
        self.fs = self._open()
        for path in (*SHARED, LOGS):
            self.fs.mkdir(path)
        self.fs.sync(timeout=WAIT_S)

    def _open(self) -> Filespace:
        return self.space.connect("a", disk=self.disk, clock=Started())

    def close(self) -> None:
        self.space.close()

    def load(self, run: int, calls: int) -> Cut:
        """Workers work until the power goes. Raises what stopped one of them before."""
        cut = Cut(self.disk, self.space.plans["a"].die, calls)
        failures: list[BaseException] = []

        def work(part: Part) -> None:
            try:
                self._work(part, run, cut)
            except BaseException as error:
                if not cut.came.is_set():
                    failures.append(error)
            finally:
                cut.now()

        threads = [threading.Thread(target=work, args=(part,)) for part in self.parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise Mismatch(f"a worker failed: {failures[0]!r}") from failures[0]
        return cut

    def _work(self, part: Part, run: int, cut: Cut) -> None:
        hands = Hands("", part.number, FilespaceCalls(self.fs))
        chance = Random(run * 100 + part.number)
        for step in steps(chance, part.number, run, dict(part.tree)):
            with cut.lock:
                if cut.came.is_set():
                    return
                part.begin(step)
            hands.do(step)
            with cut.lock:
                if not cut.came.is_set():
                    part.end(step)

    def lose_power(self, cut: Cut, seed: int) -> None:
        self.fs.tree._ticker.close()
        self.disk.before = lambda name: None
        self.fs.close(wait=False)
        cut.lose(seed)
        self.fs = self._open()

    def check(self, found: Tree, where: str) -> None:
        """Raises Mismatch for anything that has no right to be there."""
        trees: list[Tree] = [{} for _ in self.parts]
        logs = [log_path(part.number) for part in self.parts]
        wrong = [f"{path} is missing" for path in (*SHARED, LOGS) if path not in found]
        for path, data in found.items():
            owner = owner_of(path)
            if owner is not None and "conflict" not in path:
                trees[owner][path] = data
            elif path not in (*SHARED, LOGS, *logs):
                wrong.append(f"{path} was made by nobody")
        for part, tree, log in zip(self.parts, trees, logs, strict=True):
            wrong += part.check(tree, found.get(log))
        if wrong:
            raise Mismatch(f"{where}: " + "\n  ".join(wrong))

    def take(self, found: Tree) -> None:
        """Go on from what was found."""
        for path in [path for path, data in found.items() if data == UNREADABLE]:
            # Lost for good, and known to be: it would be unreadable in every round from here on.
            self.fs.remove(path)
            del found[path]
        self.fs.sync(timeout=WAIT_S)
        for part in self.parts:
            tree = {path: data for path, data in found.items() if owner_of(path) == part.number}
            part.take(tree, found.get(log_path(part.number)))


def everything(fs: Filespace) -> Tree:
    """All that the filespace shows."""
    return dict(_walk(fs, ""))


def _walk(fs: Filespace, top: str) -> Iterator[tuple[str, bytes | None]]:
    for name in fs.listdir(top or "/"):
        path = f"{top}/{name}"
        try:
            yield path, fs.read_bytes(path)
        except IsADirectoryError:
            yield path, None
            yield from _walk(fs, path)
        except DataError:
            yield path, UNREADABLE


def cut_power_again_and_again(
    cuts: int,
    seed: int,
    root: Path,
    disk: Callable[[Path], ForgetfulDisk] = ForgetfulDisk,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Cut the power so often; how many steps were acknowledged. Raises Mismatch."""
    chance = Random(seed)
    acknowledged = 0
    for first in range(0, cuts, EPOCH):
        place = root / f"power{first}"
        place.mkdir()
        machine = Machine(place, disk)
        try:
            for number in range(first, min(cuts, first + EPOCH)):
                if is_over():
                    break
                try:
                    _round(machine, number, chance)
                except (LucidError, Mismatch, OSError) as error:
                    where = f"cut {number}, seed {seed}"
                    raise Mismatch(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            machine.close()
        acknowledged += sum(part.steps for part in machine.parts)
        shutil.rmtree(place)
    return acknowledged


def _round(machine: Machine, number: int, chance: Random) -> None:
    cut = machine.load(number + 1, chance.randint(*CALLS))
    machine.lose_power(cut, chance.randrange(1 << 30))
    found = everything(machine.fs)
    machine.check(found, "the drive")
    machine.fs.sync(timeout=WAIT_S)
    with machine.space.connect(f"only-the-store-{number}", read_only=True) as other:
        elsewhere = everything(other)
    if elsewhere != found:
        differ = [path for path in {*found, *elsewhere} if found.get(path) != elsewhere.get(path)]
        raise Mismatch(f"after the sync others see other things: {sorted(differ)[:8]}")
    machine.take(found)
