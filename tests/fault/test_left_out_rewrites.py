"""A new file that loss of power took, and what was written over it since: that is the file then."""

from __future__ import annotations

import pytest

from lucid.store.faulty import FaultPlan
from tests.fault.losing import OLD, OTHER, Losing, shown
from tests.filespace.spaces import BLOCK, WAIT_S, Space, some_bytes

LOST = some_bytes(3, 3 * BLOCK)
NEWEST = some_bytes(5, 2 * BLOCK)


@pytest.fixture
def machine(space: Space) -> Losing:
    return Losing(space)


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def times(request: pytest.FixtureRequest) -> int:
    """How often the machine dies. The second time what the first start has decided still holds."""
    return int(request.param)


def change(machine: Losing, path: str, seed: int) -> bytes:
    """The second block is another."""
    block = some_bytes(seed, BLOCK)
    with machine.fs.open(path, "r+b", 0) as file:
        file.seek(BLOCK)
        file.write(block)
    return block


def test_a_whole_rewrite_is_the_file(machine: Losing, times: int) -> None:
    machine.fs.write_bytes("/new", LOST)
    machine.lose(finished=True)
    machine.fs.write_bytes("/new", NEWEST)
    fs = machine.crash(times)
    assert shown(machine) == {"file": OLD, "other": OTHER, "new": NEWEST}
    (told,) = fs.status().failed
    assert told.startswith("A change of 'new' was not yet safe")


def test_what_was_done_to_the_file_in_between_holds(machine: Losing, times: int) -> None:
    machine.fs.write_bytes("/new", LOST)
    machine.lose(finished=True)
    machine.fs.chmod("/new", 0o600)
    machine.fs.rename("/new", "/file")
    machine.fs.write_bytes("/file", NEWEST)
    machine.fs.rename("/other", "/moved")
    machine.crash(times)
    assert shown(machine) == {"file": NEWEST, "moved": OTHER}
    assert machine.fs.stat("/file").mode & 0o777 == 0o600


def test_a_change_before_the_rewrite_goes_and_one_behind_it_stays(
    machine: Losing, times: int
) -> None:
    machine.fs.write_bytes("/new", LOST)
    machine.lose(finished=True)
    change(machine, "/new", 6)
    machine.fs.write_bytes("/new", NEWEST)
    block = change(machine, "/new", 7)
    machine.crash(times)
    assert shown(machine)["new"] == NEWEST[:BLOCK] + block


def test_a_rewrite_that_was_synced_and_not_closed_is_the_file(machine: Losing, times: int) -> None:
    machine.fs.write_bytes("/new", LOST)
    machine.lose(finished=True)
    file = machine.fs.open("/new", "wb", 0)
    file.write(NEWEST)
    file.fsync()
    machine.crash(times)
    assert shown(machine)["new"] == NEWEST


def test_a_rewrite_that_is_gone_too_takes_no_place(machine: Losing, times: int) -> None:
    """An empty file would stand where the old one is."""
    machine.fs.write_bytes("/new", LOST)
    machine.fs.rename("/new", "/file")
    machine.fs.write_bytes("/file", NEWEST)
    machine.lose(finished=True)
    fs = machine.crash(times)
    assert fs.status().failed
    assert all(told.startswith("A change of ") for told in fs.status().failed)
    assert shown(machine) == {"file": OLD, "other": OTHER}


def test_the_second_rewrite_is_the_file_when_the_first_is_gone(machine: Losing, times: int) -> None:
    machine.fs.write_bytes("/new", LOST)
    machine.fs.write_bytes("/new", some_bytes(8, BLOCK))
    machine.lose(finished=True)
    machine.fs.write_bytes("/new", NEWEST)
    machine.crash(times)
    assert shown(machine)["new"] == NEWEST


def test_the_file_that_a_change_was_about_is_named(machine: Losing) -> None:
    machine.fs.write_bytes("/new", LOST)
    machine.lose(finished=True)
    machine.fs.chmod("/new", 0o600)
    machine.fs.tree.set_xattr(machine.fs.stat("/new").ino, b"user.colour", b"red")
    fs = machine.crash()
    assert fs.status().failed
    assert all(told.startswith("A change of 'new' ") for told in fs.status().failed)


def test_a_version_that_is_restored_over_it_is_the_file(space: Space, times: int) -> None:
    machine = Losing(space, cut_off=False)
    fs = machine.fs
    (first, *_) = fs.versions("/file")
    fs.restore("/file", first.number)  # The first one in a filespace waits for the store.
    fs.sync(timeout=WAIT_S)
    machine.cut_off()
    fs.remove("/file")
    fs.write_bytes("/file", LOST)
    machine.lose(finished=True)
    fs.restore("/file", first.number)
    assert fs.read_bytes("/file") == OLD
    machine.crash(times)
    assert shown(machine) == {"file": OLD, "other": OTHER}


def test_an_unpublished_file_that_is_gone_is_told_by_the_next_start_too(
    machine: Losing, times: int
) -> None:
    file = machine.fs.open("/new", "wb", 0)
    file.write(LOST)
    machine.fs.tree.flush(file._handle)
    machine.lose(finished=True)
    fs = machine.crash(times)
    assert "new" not in fs.listdir("/")
    (told,) = fs.status().failed
    assert told.startswith("A change of 'new' ")


def test_a_drive_opens_without_its_store_when_a_finished_segment_is_gone(machine: Losing) -> None:
    machine.fs.write_bytes("/file", LOST)
    machine.lose(finished=True)
    machine.space.crash(machine.fs, "a")
    for path in machine.lost:
        path.unlink(missing_ok=True)
    plan = FaultPlan()
    plan.die()
    fs = machine.fs = machine.space.connect("a", plan=plan)
    assert fs.read_bytes("/other") == OTHER
    plan.revive()
    machine.fs.sync(timeout=WAIT_S)
    assert shown(machine) == {"file": OLD, "other": OTHER}
