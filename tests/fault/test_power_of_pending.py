"""Loss of power while versions are pending: an fsync covers all that the file is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lucid.filespace.surface import FileHandle
from tests.fault.test_power_loss import Machine
from tests.filespace.spaces import BLOCK, WAIT_S, Space, some_bytes


@pytest.fixture
def machine(space: Space) -> Iterator[Machine]:
    """Holds a file of four blocks that is in the store; then the store goes away."""
    made = Machine(space)
    made.fs.write_bytes("/file", b"z" * (4 * BLOCK))
    made.fs.sync(timeout=WAIT_S)
    made.off()
    yield made
    made.fs.close(wait=False)


def opened(machine: Machine) -> FileHandle:
    return machine.fs.tree.open(machine.fs.stat("/file").ino, os.O_RDWR)


@pytest.mark.parametrize("seed", range(4))
def test_fsync_covers_the_pending_version_under_a_draft(machine: Machine, seed: int) -> None:
    """An fsync must not leave out what another handle of the file published before."""
    tree = machine.fs.tree
    first, second = opened(machine), opened(machine)
    data = some_bytes(7, 60 * BLOCK)
    tree.write(first, 0, data)
    tree.flush(first)
    tree.release(first)
    tree.write(second, len(data), b"tail")
    tree.fsync(second)
    machine.lose_power(seed)
    assert machine.fs.read_bytes("/file") == data + b"tail"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("released", [False, True])
def test_more_writes_do_not_undo_an_fsync(machine: Machine, seed: int, released: bool) -> None:
    """A record that names blocks not yet durable must not take the place of one that is."""
    tree = machine.fs.tree
    handle = opened(machine)
    data = some_bytes(7, 20 * BLOCK)
    tree.write(handle, 0, data)
    tree.fsync(handle)
    tree.write(handle, len(data), some_bytes(8, 60 * BLOCK))
    tree.flush(handle)
    if released:
        tree.release(handle)
    # The journal is one for all files: this makes the newer record durable.
    other, _ = tree.create(1, b"other", 0o644, 0, 0, os.O_RDWR)
    tree.write(other, 0, b"x")
    tree.fsync(other)
    machine.lose_power(seed)
    assert machine.fs.read_bytes("/file")[: len(data)] == data
