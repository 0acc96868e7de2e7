"""What an fsync covered, and the store has by now, is here after loss of power, also without the
store: the journal forgets it only once the replica is safe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lucid.filespace import Filespace
from lucid.meta.replica import Replica
from lucid.store.faulty import Fault, FaultPlan
from tests.filespace.floors import when
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes

OLD, NEW = some_bytes(1, 3 * BLOCK), some_bytes(2, 3 * BLOCK)


class Safe:
    """The replica's files as a disk has them that keeps only what was synced."""

    def __init__(self, space: Space, patch: pytest.MonkeyPatch) -> None:
        self._state = space.state("a")
        self._kept = space.root / "safe"
        for name in ("sync_wal", "checkpoint_wal"):
            patch.setattr(Replica, name, self._keeping(getattr(Replica, name)))

    def _keeping(self, real: Any) -> Any:
        def synced(replica: Replica) -> Any:
            done = real(replica)
            shutil.rmtree(self._kept, ignore_errors=True)
            self._kept.mkdir()
            self._copy(self._state, self._kept)
            return done

        return synced

    def power_is_back(self) -> None:
        for path in self._state.glob("replica*"):
            path.unlink()
        self._copy(self._kept, self._state)

    @staticmethod
    def _copy(here: Path, there: Path) -> None:
        for path in here.glob("replica*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, there / path.name)


@pytest.mark.parametrize("when", ["never", "before", "after"])
def test_what_was_committed_is_there_offline(
    space: Space, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`when`: there is a change on top of it, from before the power went, or after."""
    safe = Safe(space, monkeypatch)
    fs = space.connect("a")
    fs.write_bytes("/file", OLD)
    fs.sync(timeout=WAIT_S)
    expected = NEW if when == "never" else b"changed" + NEW[7:]
    fs.write_bytes("/file", NEW)
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    if when == "before":
        change(fs)
    parts_of(fs).book.sync()  # What says that it was settled is safe.
    space.crash(fs, "a")
    safe.power_is_back()
    plan = FaultPlan()
    plan.die()
    fs = space.connect("a", plan=plan)
    if when == "after":
        change(fs)
    assert fs.read_bytes("/file") == expected
    plan.revive()
    fs.write_bytes("/more", b"more")
    fs.sync(timeout=WAIT_S)
    assert sorted(fs.listdir("/")) == ["file", "more"]
    assert fs.read_bytes("/file") == expected


def test_what_a_start_found_in_the_log_is_there_offline(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the store was lost, and the process died: the start hears of the entry."""
    safe = Safe(space, monkeypatch)
    fs = space.connect("a")
    fs.write_bytes("/file", OLD)
    fs.sync(timeout=WAIT_S)
    plan = space.plans["a"]
    plan.script("put", [Fault.LOSE_ANSWER], prefix="log/")
    plan.script("put", [Fault.REFUSE] * 1000, prefix="log/")
    fs.write_bytes("/file", NEW[:BLOCK])
    when(fs, lambda _: any(fault is Fault.LOSE_ANSWER for _, _, fault in plan.happened))
    space.crash(fs, "a")
    fs = space.connect("a")
    parts_of(fs).book.sync()
    space.crash(fs, "a")
    safe.power_is_back()
    plan = FaultPlan()
    plan.die()
    assert space.connect("a", plan=plan).stat("/file").size == BLOCK


def change(fs: Filespace) -> None:
    with fs.open("/file", "r+b") as file:
        file.write(b"changed")
