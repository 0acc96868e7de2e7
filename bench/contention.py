"""Devices that commit at once: how many commits a second, and how long one may go on losing.

The filespaces are all in this process, over one bucket in memory that is so far away: every call
takes a round trip. So nothing but the protocol is measured, and what one interpreter bounds.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lucid.config import Config
from lucid.crypto.passphrase import Stretch
from lucid.filespace import Filespace, init
from lucid.filespace.opening import open_parts
from lucid.filespace.tree import Tree
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.store.memory import Bucket, MemoryStore
from lucid.types import SystemClock, SystemEntropy

__all__ = ["Contest", "DistantStore", "contest"]

SECRET = "bench bench bench"
BEGIN_S = 60.0
FAR = 10
"""Times the round trip of the others: the one device that is far away."""


class DistantStore(StoreLayer):
    """Another store, a round trip away."""

    def __init__(self, inner: ObjectStore, round_trip_s: float) -> None:
        super().__init__(inner)
        self.round_trip_s = round_trip_s

    def over(self, inner: ObjectStore) -> ObjectStore:
        return DistantStore(inner, self.round_trip_s)

    def _travel(self) -> None:
        """Half of the way before the store sees it, half of it after."""
        if self.round_trip_s:
            time.sleep(self.round_trip_s / 2)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._travel()
        try:
            return self.inner.get(key, start, length)
        finally:
            self._travel()

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        self._travel()
        self._travel()
        return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        self._travel()
        try:
            self.inner.put_if_absent(key, body)
        finally:
            self._travel()

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self._travel()
        self._travel()
        return self.inner.list(prefix, start_after, limit)


@dataclass
class Contest:
    """What came of it."""

    seconds: float
    commits: list[int]
    """Of each device; the last one is the one that is far away, where there is one."""
    streaks: list[int]
    """How often each device lost, at most, between two wins."""

    def figures(self) -> dict[str, float]:
        return {
            "commits/s": sum(self.commits) / self.seconds,
            "least of a device": float(min(self.commits)),
            "most of a device": float(max(self.commits)),
            "longest losing streak": float(max(self.streaks)),
            "streak of the last device": float(self.streaks[-1]),
        }


class _Device:
    """One filespace that makes directories and waits until each is in the log."""

    def __init__(self, fs: Filespace, number: int) -> None:
        self._fs = fs
        self._number = number
        self.commits = self.streak = 0
        self.error: BaseException | None = None

    def run(self, begin: threading.Barrier, until: threading.Event) -> None:
        committer, made, lost = self._fs.tree._opened.committer, 0, 0
        try:
            begin.wait(BEGIN_S)
            while not until.is_set():
                won, lost = committer.commits, committer.losses
                self._fs.mkdir(f"/d{self._number}-{made}")
                made += 1
                self._fs.sync(timeout=BEGIN_S)
                self.commits += committer.commits - won
                self.streak = max(self.streak, committer.losses - lost)
        except BaseException as error:
            self.error = error
            begin.abort()
        finally:
            # Also one that lasts until the end.
            self.streak = max(self.streak, committer.losses - lost)


def contest(devices: int, seconds: float, round_trip_s: float, far: bool = False) -> Contest:
    """So many devices commit as fast as they can. `far`: the last one is ten times as far away."""
    bucket = Bucket()
    stretch = Stretch(1, 64 << 20)
    init("memory://bench", passphrase=SECRET, stretch=stretch, store=MemoryStore(bucket))
    distances = [round_trip_s] * devices
    if far:
        distances[-1] *= FAR
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lucid-bench-")))
        made = []
        for number, distance in enumerate(distances):
            fs = _open(bucket, distance, top / f"{number}")
            stack.callback(fs.close, wait=False)
            made.append(_Device(fs, number))
        return _run(made, seconds)


def _open(bucket: Bucket, distance: float, state: Path) -> Filespace:
    opened = open_parts(
        DistantStore(MemoryStore(bucket), distance),
        SECRET,
        Config(state_dir=state, fetch_workers=1, upload_workers=1),
        clock=SystemClock(),
        entropy=SystemEntropy,
    )
    return Filespace(Tree(opened))


def _run(devices: Sequence[_Device], seconds: float) -> Contest:
    begin, until = threading.Barrier(len(devices) + 1), threading.Event()
    threads = [threading.Thread(target=each.run, args=(begin, until)) for each in devices]
    for thread in threads:
        thread.start()
    try:
        begin.wait(BEGIN_S)
        began = time.perf_counter()
        until.wait(seconds)  # Nobody sets it: so long does the contest last.
        took = time.perf_counter() - began
        commits = [device.commits for device in devices]
    finally:
        until.set()
        for thread in threads:
            thread.join()
    for device in devices:
        if device.error is not None:
            raise device.error
    return Contest(took, commits, [device.streak for device in devices])
