"""Nobody waits for what others do: not for a long log that is folded, not for a dead store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from lucid.filespace import Filespace
from lucid.format.ops import Create
from lucid.meta.log import LogWriter, fit
from lucid.store.faulty import Fault, FaultPlan
from lucid.store.memory import MemoryStore
from lucid.types import SystemEntropy
from tests.filespace.spaces import BLOCK, WAIT_S, Space, open_on, parts_of, some_bytes

ENTRIES, OPS = 10, 10_000
SLACK = 10 if os.environ.get("CI") else 5
"""A machine that others use as well is slower now and then: the budget is for a quiet one."""


def percentile(times: list[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def write_log(space: Space) -> None:
    """100,000 files made by another device, ten thousand in an entry."""
    maker = open_on(MemoryStore(space.bucket, name="team"), space.state("writer"))
    opened = maker.tree._opened
    parts = parts_of(maker)
    opened.committer.close()
    writer = LogWriter(
        MemoryStore(space.bucket, name="team"), opened.ring, opened.unlocked.keys,
        parts.replica, SystemEntropy,
    )  # fmt: skip
    for entry in range(ENTRIES):
        now = time.time_ns()
        ops = []
        for number in range(OPS):
            op_id = parts.next_op_id()
            name = b"file-%d-%d" % (entry, number)
            ops.append(Create(op_id, now, 1, name, 0o100644, 0, 0, now, now, (), 0, ()))
        while ops:
            count = fit(ops)
            prepared = writer.build(opened.session, ops[:count], [])
            writer.put(prepared)
            parts.replica.commit_entry(prepared.sequence, prepared.hash, prepared.body)
            ops = ops[count:]
    maker.close(wait=False)


@pytest.mark.slow
def test_questions_are_answered_while_a_long_log_is_folded(
    space: Space, record_property: Callable[[str, object], None]
) -> None:
    reader = space.connect("a", poll_idle_s=3600.0, poll_fast_s=3600.0)
    reader.write_bytes("/here", b"known")
    reader.sync(timeout=WAIT_S)
    write_log(space)
    ino = reader.stat("/here").ino
    folded = threading.Event()
    folder = threading.Thread(
        target=lambda: reader.refresh(WAIT_S * 4) and folded.set(), daemon=True
    )
    folder.start()
    times: list[float] = []
    while not folded.is_set() and folder.is_alive():
        for work in (lambda: reader.tree.attributes(ino), lambda: reader.tree.lookup(1, b"here")):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    folder.join(WAIT_S)
    assert folded.is_set()
    assert reader.totals().inodes >= ENTRIES * OPS
    p99 = percentile(times, 0.99)
    record_property("p99_ms", round(p99 * 1000, 2))
    record_property("longest_ms", round(max(times) * 1000, 2))
    assert len(times) > 100
    assert p99 < 0.005 * SLACK


def test_cached_reads_go_on_while_the_store_is_dead(space: Space) -> None:
    """64 readers hang on it; one who reads what is cached does not notice."""
    with space.connect("maker") as maker:
        maker.write_bytes("/cached", some_bytes(1, 4 * BLOCK))
        maker.write_bytes("/far", some_bytes(2, 200 * BLOCK))
    plan = FaultPlan()
    fs = space.connect("a", plan=plan, read_timeout_s=WAIT_S)
    assert fs.read_bytes("/cached") == some_bytes(1, 4 * BLOCK)
    fs.tree.attributes(fs.stat("/far").ino)
    plan.script("get", [Fault.PAUSE] * 300, prefix="data/")
    threads = [
        threading.Thread(target=read_far, args=(fs, number), daemon=True) for number in range(64)
    ]
    for thread in threads:
        thread.start()
    for _ in range(4):
        assert plan.hanging.acquire(timeout=WAIT_S)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        assert fs.read_bytes("/cached") == some_bytes(1, 4 * BLOCK)
        times.append(time.perf_counter() - began)
    plan.release()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert percentile(times, 0.9) < 0.05 * SLACK


def read_far(fs: Filespace, number: int) -> None:
    """One block, far from all others."""
    with fs.open("/far", "rb", 0) as file:
        file.seek(3 * number * BLOCK)
        assert file.read(100) == some_bytes(2, 200 * BLOCK)[3 * number * BLOCK :][:100]
