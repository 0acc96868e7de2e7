"""A change whose blocks loss of power took is left out: what followed it is about what was before.

Bytes that were sealed before `lose` are gone after the crash, as if no sync had covered them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fault.losing import OLD, OTHER, Losing, shown
from tests.filespace.spaces import BLOCK, Space, some_bytes


@pytest.fixture(params=[False, True], ids=["open", "finished"])
def finished(request: pytest.FixtureRequest) -> bool:
    """Whether the segments that are lost had been finished."""
    return bool(request.param)


@pytest.fixture
def machine(space: Space) -> Iterator[Losing]:
    return Losing(space)


def test_a_rename_over_it_makes_no_conflict_copy(machine: Losing, finished: bool) -> None:
    machine.fs.write_bytes("/file", some_bytes(3, 3 * BLOCK))
    machine.lose(finished)
    machine.fs.rename("/other", "/file")
    assert machine.crash().status().failed, "it is reported"
    assert shown(machine) == {"file": OTHER}


def test_its_removal_removes_the_file(machine: Losing, finished: bool) -> None:
    machine.fs.write_bytes("/file", some_bytes(3, 3 * BLOCK))
    machine.lose(finished)
    machine.fs.remove("/file")
    machine.crash()
    assert shown(machine) == {"other": OTHER}


def test_a_change_on_top_of_it_goes_too(machine: Losing, finished: bool) -> None:
    """Else its few bytes would lie among others than those they were written to."""
    machine.fs.write_bytes("/file", some_bytes(3, 3 * BLOCK))
    machine.lose(finished)
    with machine.fs.open("/file", "r+b", 0) as file:
        file.seek(BLOCK)
        file.write(some_bytes(4, BLOCK))
    machine.crash()
    assert shown(machine) == {"file": OLD, "other": OTHER}


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_the_time_that_was_set_for_it_goes_too(machine: Losing, finished: bool, times: int) -> None:
    """Else rsync finds size and time as they should be, and never sends the bytes again."""
    before = machine.fs.stat("/file").mtime_ns
    machine.fs.write_bytes("/file", some_bytes(3, len(OLD)))
    machine.lose(finished)
    machine.fs.utime("/file", 1, 1_000_000_000)
    machine.fs.chmod("/file", 0o600)
    machine.crash(times)
    assert shown(machine) == {"file": OLD, "other": OTHER}
    assert machine.fs.stat("/file").mtime_ns == before
    assert machine.fs.stat("/file").mode & 0o777 == 0o600


def test_a_time_that_was_set_for_what_is_there_stays(machine: Losing) -> None:
    newest = some_bytes(5, 2 * BLOCK)
    machine.fs.utime("/other", 1, 1_000_000_000)
    machine.fs.write_bytes("/file", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.write_bytes("/file", newest)
    machine.fs.utime("/file", 1, 2_000_000_000)
    machine.crash()
    assert shown(machine) == {"file": newest, "other": OTHER}
    assert machine.fs.stat("/file").mtime_ns == 2_000_000_000
    assert machine.fs.stat("/other").mtime_ns == 1_000_000_000


def test_a_new_file_that_is_gone_takes_no_place(machine: Losing, finished: bool) -> None:
    machine.fs.write_bytes("/new", some_bytes(3, 3 * BLOCK))
    machine.lose(finished)
    machine.fs.rename("/new", "/file")
    machine.fs.chmod("/file", 0o600)
    machine.fs.rename("/other", "/moved")
    machine.crash()
    assert shown(machine) == {"file": OLD, "moved": OTHER}


def test_a_whole_rewrite_on_top_of_it_stays(machine: Losing) -> None:
    """It needs nothing of what is gone, and all of it is there, in another segment."""
    newest = some_bytes(5, 2 * BLOCK)
    machine.fs.write_bytes("/file", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.write_bytes("/file", newest)
    machine.crash()
    assert shown(machine) == {"file": newest, "other": OTHER}


def test_a_restored_version_on_top_of_it_stays_and_can_be_changed(machine: Losing) -> None:
    (oldest, *_) = machine.fs.versions("/file")
    machine.fs.write_bytes("/file", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.restore("/file", oldest.number)
    with machine.fs.open("/file", "r+b", 0) as file:
        file.seek(BLOCK)
        file.write(some_bytes(4, BLOCK))
    machine.crash()
    assert shown(machine) == {"file": OLD[:BLOCK] + some_bytes(4, BLOCK), "other": OTHER}


def test_the_next_save_by_renaming_takes_the_place_of_the_old_file(machine: Losing) -> None:
    newest = some_bytes(5, 2 * BLOCK)
    machine.fs.write_bytes("/one", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.rename("/one", "/file")
    machine.fs.write_bytes("/two", newest)
    machine.fs.rename("/two", "/file")
    machine.crash()
    assert shown(machine) == {"file": newest, "other": OTHER}


def test_what_was_saved_by_renaming_and_removed_is_not_there_again(machine: Losing) -> None:
    machine.fs.write_bytes("/one", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.rename("/one", "/file")
    machine.fs.remove("/file")
    machine.fs.write_bytes("/file", OTHER)
    machine.crash()
    assert shown(machine) == {"file": OTHER, "other": OTHER}


def test_two_lost_saves_and_what_is_done_with_the_name_then(machine: Losing) -> None:
    """The next save keeps a backup, by renaming: it is the old file. The newest has its name."""
    newest = some_bytes(5, 2 * BLOCK)
    for name in ("/one", "/two"):
        machine.fs.write_bytes(name, some_bytes(3, 3 * BLOCK))
        machine.lose(finished=True)
        machine.fs.rename(name, "/file")
    machine.fs.rename("/file", "/file~")
    machine.fs.write_bytes("/file", newest)
    machine.crash()
    assert shown(machine) == {"file": newest, "file~": OLD, "other": OTHER}


def test_a_directory_takes_its_name(machine: Losing) -> None:
    machine.fs.write_bytes("/one", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.rename("/one", "/file")
    machine.fs.rename("/file", "/moved")
    machine.fs.mkdir("/file")
    machine.fs.write_bytes("/file/in", OTHER)
    machine.crash()
    assert machine.fs.read_bytes("/file/in") == OTHER
    assert machine.fs.read_bytes("/moved") == OLD


@pytest.mark.parametrize("saved", [False, True])
def test_what_is_under_it_was_changed_by_another_name(machine: Losing, saved: bool) -> None:
    machine.fs.link("/file", "/second")
    machine.fs.write_bytes("/one", some_bytes(3, 3 * BLOCK))
    machine.lose(finished=True)
    machine.fs.rename("/one", "/file")
    machine.fs.write_bytes("/second", b"changed")
    if saved:
        machine.fs.write_bytes("/two", b"newest")
        machine.fs.rename("/two", "/file")
    else:
        machine.fs.remove("/file")
    machine.crash()
    rest = {"second": b"changed", "other": OTHER}
    assert shown(machine) == rest | ({"file": b"newest"} if saved else {})
