"""Who reads while a large entry is folded waits for a slice, not for the entry."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lucid.format.ops import ROOT_INO
from lucid.meta.replica import Replica
from lucid.meta.replica_turn import Turn
from lucid.types import SystemClock
from tests.meta.authors import GEOMETRY, Author, Blocks
from tests.meta.replicas import KEY, Log, author_of, catch_up

HOLD_S = 0.010
"""Twice what is meant, of processor time: the machine that runs this has other things to do."""


class Watch(Turn):
    """Notes for how long each holder computed."""

    def __init__(self) -> None:
        super().__init__()
        self.holds: list[float] = []
        self._since = 0.0

    def __enter__(self) -> None:
        super().__enter__()
        self._since = time.thread_time()

    def __exit__(self, *exception: object) -> None:
        self.holds.append(time.thread_time() - self._since)
        super().__exit__(*exception)


@pytest.mark.slow
def test_the_lock_is_held_for_a_slice(tmp_path: Path) -> None:
    log, author = Log(1), Author(1, b"ann", Blocks())
    author.who = author_of(1)
    directories = [author.mkdir(ROOT_INO, b"d%d" % number) for number in range(20)]
    log.append(1, directories)
    for batch in range(5):
        parents = [directories[(4 * batch + number // 500) % 20] for number in range(2000)]
        log.append(1, [author.create(parent.op_id, b"%d" % author.counter) for parent in parents])
    replica = Replica(tmp_path / "replica", KEY, GEOMETRY, SystemClock())
    replica._turn = watch = Watch()
    stop = threading.Event()
    seen = []

    def look() -> None:
        while not stop.is_set():
            page = replica.readdir(directories[len(seen) % 20].op_id, 0, 50)
            seen.append(page)
            stop.wait(0.0005)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        catch_up(replica, log)
    finally:
        stop.set()
        reader.join(30)
    holds = sorted(watch.holds)
    assert holds[len(holds) * 99 // 100] < HOLD_S
    assert len(seen) > 50
    assert replica.totals().inodes == log.model.inodes
    replica.close()
