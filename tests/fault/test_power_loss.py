"""Loss of power: what an fsync covered is there; of the rest a prefix, and never wrong bytes
(S-23, S-25, S-27). The disk forgets what was not synced, by seed."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lucid.errors import DataError, LocalError, NotFound
from lucid.filespace import Filespace
from lucid.types import SystemClock
from tests.filespace.spaces import BLOCK, WAIT_S, Space, some_bytes, write_at
from tests.local.forgetful import DIRECTORY, ForgetfulDisk

SEEDS = range(6)


class Started(SystemClock):
    """The clock of a machine that was started now."""

    def __init__(self) -> None:
        self._start = super().monotonic()

    def monotonic(self) -> float:
        return super().monotonic() - self._start


class Machine:
    """A filespace on a disk that forgets."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.state = space.state("a")
        self.state.mkdir(mode=0o700)
        self.disk = ForgetfulDisk(self.state)
        self.fs = self.open()

    def open(self) -> Filespace:
        return self.space.connect("a", disk=self.disk, clock=Started())

    def lose_power(self, seed: int) -> None:
        """The power goes now, and comes back."""
        self.space.plans["a"].die()
        self.fs.tree._ticker.close()
        disk = self.disk
        memo = {id(DIRECTORY): DIRECTORY}
        with disk._lock:
            kept = copy.deepcopy((disk._names, disk._durable_names, disk._pending_names), memo)
        self.fs.close(wait=False)
        disk._names, disk._durable_names, disk._pending_names = kept
        disk.crash(seed)
        self.fs = self.open()

    def fsync(self, path: str) -> None:
        tree = self.fs.tree
        handle = tree.open(self.fs.stat(path).ino, os.O_RDWR)
        tree.fsync(handle)
        tree.release(handle)

    def off(self) -> None:
        self.space.plans["a"].die()


@pytest.fixture
def machine(space: Space) -> Iterator[Machine]:
    made = Machine(space)
    yield made
    made.fs.close(wait=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_fsync_covered_is_there(machine: Machine, seed: int) -> None:
    """Files of every kind are made and synced while the store is away."""
    machine.off()
    files = {"/small": some_bytes(1, 700), "/large": some_bytes(2, 30 * BLOCK + 5)}
    for path, data in files.items():
        machine.fs.write_bytes(path, data)
        machine.fsync(path)
    write_at(machine.fs, "/large", 3 * BLOCK + 10, b"patched")
    large = bytearray(files["/large"])
    large[3 * BLOCK + 10 : 3 * BLOCK + 17] = b"patched"
    files["/large"] = bytes(large)
    machine.fsync("/large")
    machine.fs.write_bytes("/never", some_bytes(3, 5 * BLOCK))
    machine.lose_power(seed)
    for path, data in files.items():
        assert machine.fs.read_bytes(path) == data
    check_is_prefix(machine.fs, "/never", some_bytes(3, 5 * BLOCK))
    machine.fs.sync(timeout=WAIT_S)
    with machine.space.connect("b") as other:
        for path, data in files.items():
            assert other.read_bytes(path) == data
        check_is_prefix(other, "/never", some_bytes(3, 5 * BLOCK))


def check_is_prefix(fs: Filespace, path: str, data: bytes) -> None:
    """Nothing, or all of it, or an error: never other bytes."""
    with suppress(NotFound, DataError):
        assert fs.read_bytes(path) in (data, b"")


@pytest.mark.parametrize("seed", SEEDS)
def test_without_any_fsync_the_drive_opens_and_tells_no_lies(machine: Machine, seed: int) -> None:
    machine.off()
    files = {f"/f{n}": some_bytes(n, size) for n, size in enumerate((10, BLOCK, 9_000_000, 500))}
    for path, data in files.items():
        machine.fs.write_bytes(path, data)
    machine.lose_power(seed)
    for path, data in files.items():
        check_is_prefix(machine.fs, path, data)
    machine.fs.write_bytes("/after", b"goes on")
    machine.fs.sync(timeout=WAIT_S)
    with machine.space.connect("b") as other:
        assert other.read_bytes("/after") == b"goes on"
        for path, data in files.items():
            check_is_prefix(other, path, data)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_directory_that_was_synced_keeps_its_names(machine: Machine, seed: int) -> None:
    machine.off()
    fs = machine.fs
    fs.mkdir("/made")
    fs.write_bytes("/made/file", b"bytes")
    fs.rename("/made/file", "/made/renamed")
    fs.tree.fsync_directory(fs.stat("/made").ino)
    machine.lose_power(seed)
    assert machine.fs.listdir("/made") == ["renamed"]
    assert machine.fs.read_bytes("/made/renamed") == b"bytes"


def test_an_error_of_the_disk_while_syncing_is_final_for_the_file(machine: Machine) -> None:
    """The kernel may have dropped what it could not write: a second fsync must not claim it."""
    machine.off()
    tree = machine.fs.tree
    handle, _ = tree.create(1, b"file", 0o644, 0, 0, os.O_RDWR)
    tree.write(handle, 0, some_bytes(1, 2 * BLOCK))
    tree.flush(handle)
    machine.disk.fail("fdatasync", errno.EIO)
    for _ in range(3):
        with pytest.raises(LocalError) as caught:
            tree.fsync(handle)
        assert caught.value.errno == errno.EIO
        machine.disk.heal()
    tree.release(handle)
    with pytest.raises(LocalError):
        machine.fs.write_bytes("/first", b"goes into the bad segment")
    machine.fs.write_bytes("/second", b"goes into a new one")
    machine.fs.close(wait=False)
    machine.disk.kill()
    machine.fs = machine.open()
    machine.fs.sync(timeout=WAIT_S)
    assert machine.fs.read_bytes("/file") == some_bytes(1, 2 * BLOCK), "what can be read is kept"
    assert machine.fs.read_bytes("/second") == b"goes into a new one"


def test_the_state_of_a_crash_is_reported(space: Space) -> None:
    """A staged segment that is gone sets its file aside, with a sentence, and no other."""
    fs = space.connect("a")
    space.plans["a"].die()
    fs.write_bytes("/gone", some_bytes(1, 20 * BLOCK))
    space.crash(fs, "a")
    for path in (space.state("a") / "staging").iterdir():
        path.unlink()
    again = space.connect("a")
    again.write_bytes("/fine", b"fine")
    again.sync(timeout=WAIT_S)
    with pytest.raises((DataError, NotFound)):
        again.read_bytes("/gone")
    assert again.status().failed
    with space.connect("b") as other:
        assert other.read_bytes("/fine") == b"fine"
