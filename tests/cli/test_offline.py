"""A drive on a disk that is not there, and places for new filespaces, as the command tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lucid.mount import mountpoint, registry
from tests.cli.conftest import Lucid, Team

PLACES = "file://{}/store"


@pytest.mark.mount
def test_a_drive_whose_disk_is_gone(lucid: Lucid, tmp_path: Path) -> None:
    """S-46"""
    disk, point = tmp_path / "disk", tmp_path / "drive"
    disk.mkdir()
    point.mkdir()
    store = PLACES.format(disk)
    lucid.run("init", store)
    assert lucid.run("mount", store, point).stderr == ""
    (point / "file").write_text("known")
    lucid.run("umount", point)
    disk.rename(tmp_path / "away")
    (line,) = lucid.run("mount", store, point).stderr.splitlines()
    assert line.startswith("lucid: mounted offline, with what this device knows")
    assert str(disk) in line
    assert (point / "file").read_text() == "known"
    (point / "new").write_text("made offline")
    shown = lucid.run("status", point).stdout
    assert "the store does not answer (none since the mount)" in shown
    (tmp_path / "away").rename(disk)
    lucid.run("sync", point / "new")
    assert "mounted, online" in lucid.run("status", point).stdout
    lucid.run("umount", point)
    assert lucid.json("fsck", store)["clean"] is True


@pytest.mark.mount
def test_the_age_of_the_newest_entry_after_a_mount(team: Team) -> None:
    team.mount()
    assert team.lucid.json("status", team.point)["newest_entry_age_s"] is not None
    assert " ago, " in team.lucid.run("status", team.point).stdout


@pytest.mark.mount
def test_the_log_of_a_mount_is_its_owners_alone(team: Team) -> None:
    team.mount()
    (record,) = registry.records()
    log = Path(record.state_directory) / "lucid.log"
    assert log.stat().st_mode & 0o777 == 0o600


def test_init_says_which_directory_it_made(lucid: Lucid, tmp_path: Path) -> None:
    store = PLACES.format(tmp_path)
    assert lucid.run("init", store).stderr == f"lucid: made the directory {tmp_path}/store\n"
    (tmp_path / "second").mkdir()
    assert lucid.run("init", f"file://{tmp_path}/second").stderr == ""
    error = lucid.error(6, "init", f"file://{tmp_path}/a/b")
    assert f"There is no directory {tmp_path}/a" in error
    assert not (tmp_path / "a").exists()


def test_init_takes_nobodys_directory(lucid: Lucid, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    error = lucid.error(21, "init", f"file://{tmp_path}/photos")
    assert "is not empty, and what is there is no filespace (1.jpg)" in error
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["1.jpg"]


def test_a_lost_superblock(team: Team) -> None:
    (team.directory / "superblock").unlink()
    for status, command in (
        (22, ("mount", team.store, team.point)),
        (22, ("fsck", team.store)),
        (21, ("init", team.store)),
    ):
        error = team.lucid.error(status, *command)
        assert "remains of a filespace" in error
        assert "To make one" not in error
    assert mountpoint.find(team.point) is None


@pytest.mark.mount
def test_the_state_directory_of_another_filespace(team: Team, tmp_path: Path) -> None:
    other = f"file://{tmp_path}/other"
    team.lucid.run("init", other)
    team.mount("--state-dir", tmp_path / "state")
    team.lucid.run("umount", team.point)
    error = team.lucid.error(12, "mount", other, team.point, "--state-dir", tmp_path / "state")
    assert "belongs to another filespace" in error
