"""What a lost save had covered is there still: it has the name that the save was given, whatever
was done with that name since."""

from __future__ import annotations

import pytest

from tests.fault.losing import OLD, OTHER, Losing, shown
from tests.filespace.spaces import BLOCK, Space, some_bytes

NEW, NEWEST = some_bytes(5, 2 * BLOCK), some_bytes(6, 2 * BLOCK)


@pytest.fixture
def machine(space: Space) -> Losing:
    return Losing(space)


def write_lost(machine: Losing, path: str, *, finished: bool = True) -> None:
    machine.fs.write_bytes(path, some_bytes(3, 3 * BLOCK))
    machine.lose(finished)


def save_lost(machine: Losing, over: str, path: str = "/one") -> None:
    """Written beside it, lost, and renamed over it."""
    write_lost(machine, path)
    machine.fs.rename(path, over)


def after_crash(machine: Losing) -> dict[str, bytes]:
    machine.crash()
    return shown(machine)


@pytest.mark.parametrize("finished", [False, True])
def test_a_download_that_is_renamed_twice(machine: Losing, finished: bool) -> None:
    """A browser does that. The drive opened no more: an op without an inode cannot be written."""
    write_lost(machine, "/Unconfirmed 1.crdownload", finished=finished)
    machine.fs.rename("/Unconfirmed 1.crdownload", "/film.crdownload")
    machine.fs.rename("/film.crdownload", "/film")
    machine.fs.mkdir("/after")
    fs = machine.crash(times=2)
    assert sorted(fs.listdir("/")) == ["after", "file", "other"]
    assert any("Unconfirmed" in told for told in fs.status().failed)


def test_renamed_twice_over_a_file(machine: Losing) -> None:
    write_lost(machine, "/temporary")
    machine.fs.rename("/temporary", "/new")
    machine.fs.rename("/new", "/file")
    assert after_crash(machine) == {"file": OLD, "other": OTHER}


def test_renamed_twice_over_a_file_and_saved_again(machine: Losing) -> None:
    write_lost(machine, "/temporary")
    machine.fs.rename("/temporary", "/new")
    machine.fs.rename("/new", "/file")
    machine.fs.write_bytes("/two", NEW)
    machine.fs.rename("/two", "/file")
    assert after_crash(machine) == {"file": NEW, "other": OTHER}


def test_renamed_twice_over_a_file_and_removed(machine: Losing) -> None:
    write_lost(machine, "/temporary")
    machine.fs.rename("/temporary", "/new")
    machine.fs.rename("/new", "/file")
    machine.fs.remove("/file")
    assert after_crash(machine) == {"other": OTHER}


def test_moved_and_removed(machine: Losing) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    machine.fs.remove("/backup")
    assert after_crash(machine) == {"other": OTHER}


def test_moved_away_and_back(machine: Losing) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    machine.fs.rename("/backup", "/file")
    assert after_crash(machine) == {"file": OLD, "other": OTHER}


def test_moved_away_and_on(machine: Losing) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    machine.fs.rename("/backup", "/archive")
    assert after_crash(machine) == {"archive": OLD, "other": OTHER}


def test_an_editor_that_keeps_a_backup_saves_twice(machine: Losing) -> None:
    save_lost(machine, "/file")
    for content in (NEW, NEWEST):
        machine.fs.rename("/file", "/file~")
        machine.fs.write_bytes("/file", content)
    assert after_crash(machine) == {"file": NEWEST, "file~": NEW, "other": OTHER}


def test_a_backup_by_a_second_name(machine: Losing) -> None:
    save_lost(machine, "/file")
    machine.fs.link("/file", "/backup")
    machine.fs.write_bytes("/two", NEW)
    machine.fs.rename("/two", "/file")
    found = after_crash(machine)
    assert found["file"] == NEW
    assert not any("conflict" in name for name in found)


def test_a_second_save_is_lost_over_what_was_moved(machine: Losing) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    save_lost(machine, "/backup", "/two")
    machine.fs.remove("/backup")
    assert after_crash(machine) == {"other": OTHER}


def test_its_name_is_used_anew(machine: Losing) -> None:
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/backup")
    machine.fs.write_bytes("/file", NEW)
    machine.fs.remove("/file")
    assert after_crash(machine) == {"backup": OLD, "other": OTHER}


def test_the_directory_is_renamed(machine: Losing) -> None:
    machine.fs.mkdir("/d")
    machine.fs.write_bytes("/d/f", OTHER)
    save_lost(machine, "/d/f", "/d/one")
    machine.fs.rename("/d", "/e")
    machine.fs.remove("/e/f")
    assert machine.crash().listdir("/e") == []


@pytest.mark.parametrize("saved", [False, True])
def test_over_a_symlink(machine: Losing, saved: bool) -> None:
    """It has no version."""
    machine.fs.symlink("other", "/link")
    save_lost(machine, "/link")
    if saved:
        machine.fs.write_bytes("/two", NEW)
        machine.fs.rename("/two", "/link")
    else:
        machine.fs.remove("/link")
    assert after_crash(machine) == {"file": OLD, "other": OTHER} | ({"link": NEW} if saved else {})


@pytest.mark.parametrize("back", [False, True])
def test_over_another_name_of_the_same_file(machine: Losing, back: bool) -> None:
    """Without what is lost such a rename moves nothing; the old name goes all the same, for it may
    be somebody else's by now."""
    machine.fs.link("/file", "/linked")
    save_lost(machine, "/file")
    machine.fs.rename("/linked", "/file")
    if back:
        machine.fs.rename("/file", "/linked")
        machine.fs.write_bytes("/file", NEW)
        assert after_crash(machine) == {"file": NEW, "linked": OLD, "other": OTHER}
    else:
        machine.fs.write_bytes("/linked", NEW)
        assert after_crash(machine) == {"file": OLD, "linked": NEW, "other": OTHER}


def test_a_lost_save_over_another_name_of_what_it_covers(machine: Losing) -> None:
    machine.fs.link("/file", "/linked")
    save_lost(machine, "/file")
    machine.fs.rename("/file", "/linked")
    machine.fs.write_bytes("/file", NEW)
    assert after_crash(machine) == {"file": NEW, "linked": OLD, "other": OTHER}
