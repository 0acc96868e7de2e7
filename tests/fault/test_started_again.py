"""A start that does not come to its end, or that a disk disturbs: what an fsync has covered is
there at the next one all the same."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from lucid.errors import LocalError
from lucid.filespace.resealing import Resealing
from lucid.local.staging import StagingArea
from lucid.store.faulty import FaultPlan
from tests.fault.losing import Losing
from tests.fault.test_power_loss import Machine
from tests.filespace.spaces import BLOCK, Space, parts_of, some_bytes
from tests.local.forgetful import DIRECTORY, ForgetfulDisk

DATA = some_bytes(5, 6 * BLOCK)


def keeper(disk: ForgetfulDisk) -> Callable[[], tuple[Any, ...]]:
    """Takes a picture of the disk."""
    memo = {id(DIRECTORY): DIRECTORY}

    def keep() -> tuple[Any, ...]:
        with disk._lock:
            kept = (disk._names, disk._durable_names, disk._pending_names)
            return copy.deepcopy(kept, memo)

    return keep


def put_back(disk: ForgetfulDisk, kept: tuple[Any, ...], seed: int) -> None:
    """Loss of power at the moment of that picture."""
    disk._names, disk._durable_names, disk._pending_names = kept
    disk.crash(seed)


@pytest.mark.parametrize("seed", range(8))
def test_the_power_goes_again_while_a_start_seals_anew(
    space: Space, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The records that name the new segments may have reached the disk; then so have those."""
    machine = Machine(space)
    machine.off()
    machine.fs.write_bytes("/synced", DATA)
    machine.fsync("/synced")
    space.plans["a"].die()
    machine.fs.tree._ticker.close()
    keep = keeper(machine.disk)
    first = keep()
    machine.fs.close(wait=False)
    put_back(machine.disk, first, 0)
    second: list[tuple[Any, ...]] = []

    class Gone(Exception):
        """The machine has no power."""

    def dies(_: Resealing) -> None:
        second.append(keep())
        raise Gone

    with monkeypatch.context() as patched:
        # Just before the first sync of the journal, when all records are written.
        patched.setattr(Resealing, "sync", dies)
        with pytest.raises(Gone):
            machine.open()
    put_back(machine.disk, second[0], seed)
    machine.fs = machine.open()
    assert not machine.fs.status().failed
    assert machine.fs.read_bytes("/synced") == DATA


@pytest.mark.parametrize("finished", [False, True])
def test_a_disk_that_does_not_read_for_a_moment_loses_nothing(
    space: Space, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """It is refused to open: what is taken for lost is removed."""
    machine = Losing(space)
    with machine.fs.open("/file", "wb", 0) as file:
        file.write(DATA)
        file.fsync()
    parts = parts_of(machine.fs)
    if finished:
        parts.staged.finish_for(set().union(*(set(op.segments) for op in parts.order.all())))
    space.crash(machine.fs, "a")

    def fails(*_wanted: object, **_more: object) -> bytes:
        raise LocalError("Could not read: Input/output error.") from OSError(
            errno.EIO, os.strerror(errno.EIO)
        )

    plan = FaultPlan()
    plan.die()
    with monkeypatch.context() as patched:
        patched.setattr(StagingArea, "read", fails)
        if finished:  # It is as it was written since this machine started, and is not read.
            fs = space.connect("a", plan=plan)
            space.crash(fs, "a")
        else:
            with pytest.raises(LocalError, match="Input/output error"):
                space.connect("a", plan=plan)
    with space.connect("a") as fs:
        assert not fs.status().failed
        assert fs.read_bytes("/file") == DATA
