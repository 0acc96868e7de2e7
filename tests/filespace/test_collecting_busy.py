"""Collections while two machines write, rewrite, remove and restore without a pause (S-602, S-605,
S-606): every day a week's retention passes for something."""

from __future__ import annotations

import threading
from collections import defaultdict
from random import Random
from typing import Any

import pytest

from lucid.errors import Exists, LucidError, NotFound, UsageError
from lucid.filespace import Filespace, collecting
from lucid.store.memory import MemoryStore
from tests.filespace.checkpoints import EVERY, connect
from tests.filespace.spaces import PASSPHRASE, WAIT_S, Space, some_bytes
from tests.filespace.test_collecting import age, is_clean

DAYS = 16
FILES = 12


class Writer:
    """One machine, and what it knows its files to hold."""

    def __init__(self, fs: Filespace, name: str, seed: int) -> None:
        self.fs = fs
        self.name = name
        self.holds: dict[str, bytes] = {}
        self.wrote: dict[str, set[bytes]] = defaultdict(set)
        self.failure: BaseException | None = None
        self._rng = Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lucid-test-{name}")
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step(f"/{self.name}{self._rng.randrange(FILES)}")
        except BaseException as error:
            self.failure = error

    def _step(self, path: str) -> None:
        what = self._rng.random()
        if what < 0.6:
            self.holds[path] = some_bytes(self._rng.randrange(1 << 30), self._rng.randrange(9000))
            self.wrote[path].add(self.holds[path])
            self.fs.write_bytes(path, self.holds[path])
        elif what < 0.7 and path in self.holds:
            self.fs.remove(path)
            del self.holds[path]
        elif what < 0.8:
            self._restore(path)
        else:
            self.fs.sync(timeout=WAIT_S)

    def _restore(self, path: str) -> None:
        """An older version, unless a floor has just ended it."""
        try:
            older: list[Any] = self.fs.versions(path)
            if path in self.holds and len(older) > 1:
                self.fs.restore(path, older[self._rng.randrange(len(older) - 1)].number)
                self.holds[path] = self.fs.read_bytes(path)
        except (NotFound, Exists, UsageError):
            pass

    def check(self, path: str, found: bytes) -> None:
        """What it was last; a floor that was quicker than a restore undoes that (S-98)."""
        if any(told.startswith(f"{path[1:]}, which was") for told in self.fs.status().failed):
            assert found in self.wrote[path], path
        else:
            assert found == self.holds[path], path


@pytest.mark.slow
def test_collections_on_a_busy_drive(space: Space) -> None:
    machines = [connect(space, name) for name in ("a", "b")]
    writers = [Writer(fs, f"w{seed}-", seed) for seed, fs in enumerate(machines)]
    freed = cut = 0
    try:
        for day in range(DAYS):
            before = machines[0].tree._opened.committer.commits
            while machines[0].tree._opened.committer.commits < before + 3:
                machines[0].refresh(WAIT_S)
                assert all(writer.failure is None for writer in writers)
            age(space, 1)
            try:
                done = collecting.collect(
                    "memory://team", PASSPHRASE, store=MemoryStore(space.bucket), every=EVERY,
                    delete=day % 2 == 1,
                )  # fmt: skip
            except LucidError as error:
                assert "Nothing was deleted" in str(error)
                continue
            if done.deleted:
                freed += done.segments.count
                cut = max(cut, done.first_entry)
    finally:
        for writer in writers:
            writer.end()
    assert freed > 5 and cut > EVERY
    for fs in machines:
        fs.sync(timeout=WAIT_S)
    with connect(space, "new") as new:
        for writer in writers:
            for path in writer.holds:
                writer.check(path, new.read_bytes(path))
    assert is_clean(space)
