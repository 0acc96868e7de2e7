"""`lucid fsck --repair`, as people run it."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.cli.conftest import Team

pytestmark = pytest.mark.mount


def lose_a_commit(team: Team) -> bytes:
    """A device uploads a file and is gone before the entry is in the log; returns the content."""
    content = os.urandom(300_000)
    team.mount("--state-dir", team.directory.parent / "gone")
    (team.point / "there").write_bytes(b"there")
    team.lucid.run("sync", team.point)
    entries = set((team.directory / "log").iterdir())
    (team.point / "draft").write_bytes(content)
    team.lucid.run("umount", team.point)
    for entry in set((team.directory / "log").iterdir()) - entries:
        entry.unlink()
    shutil.rmtree(team.directory.parent / "gone")
    return content


def test_lost_segments_are_found(team: Team) -> None:
    """S-50."""
    content = lose_a_commit(team)
    team.mount()
    team.lucid.run("umount", team.point)
    assert team.lucid.json("fsck", team.store)["orphans"] == 1
    found = team.lucid.json("fsck", team.store, "--repair", "--lost-found")
    assert found["lost_found"]["young"] == 1
    then = time.time() - 3 * 24 * 3600
    for path in (team.directory / "data").rglob("*"):
        os.utime(path, (then, then))
    done = team.lucid.run("fsck", team.store, "--repair", "--lost-found")
    assert "1 new file below /lost+found" in done.stdout
    again = team.lucid.json("fsck", team.store, "--repair", "--lost-found")
    assert (again["lost_found"]["files"], again["lost_found"]["there_before"]) == ([], 1)
    team.mount()
    (file,) = (team.point / "lost+found").iterdir()
    assert file.read_bytes() == content
    assert (team.point / "there").read_bytes() == b"there"


def test_a_repair_builds_the_replica_anew(team: Team) -> None:
    """S-50: of the usual state directory, and of one that was chosen."""
    for number, chosen in enumerate(((), ("--state-dir", team.directory.parent / "state"))):
        team.mount(*chosen)
        (team.point / f"f{number}").write_bytes(b"x" * 1000)
        error = team.lucid.error(13, "fsck", team.store, "--repair", *chosen)
        assert f"lucid umount {team.point}" in error
        team.lucid.run("umount", team.point)
        found = team.lucid.json("fsck", team.store, "--repair", *chosen)
        assert found["repair"]["whole"] and found["clean"]
        assert found["repair"]["entries"] == found["entries"]
        done = team.lucid.run("fsck", team.store, "--repair", *chosen)
        assert "its replica is built anew" in done.stdout


def test_an_alarm_is_cleared_only_when_asked_for(team: Team) -> None:
    """S-54 and S-50."""
    team.mount()
    (team.point / "f").write_bytes(b"x")
    team.lucid.run("sync", team.point)
    (team.point / "g").write_bytes(b"x")
    team.lucid.run("umount", team.point)
    max((team.directory / "log").iterdir()).unlink()
    team.lucid.error(10, "mount", team.store, team.point)
    team.lucid.error(10, "fsck", team.store, "--repair")
    done = team.lucid.run("fsck", team.store, "--repair", "--believe-store", status=130)
    assert "Compare `lucid status` with another device" in done.stderr
    team.lucid.error(10, "mount", team.store, team.point)
    done = team.lucid.run("fsck", team.store, "--repair", "--believe-store", "--yes")
    assert "The alarm is cleared" in done.stdout
    team.mount()
    assert sorted(path.name for path in team.point.iterdir()) == ["f"]


def test_what_changes_something_wants_repair(team: Team) -> None:
    for option in ("--lost-found", "--believe-store", "--state-dir=x"):
        assert "--repair" in team.lucid.error(2, "fsck", team.store, option)
    assert "--lost-found" in team.lucid.error(2, "fsck", team.store, "--repair", "--all-orphans")
    assert "--believe-store" in team.lucid.error(2, "fsck", team.store, "--repair", "--yes")
    assert "needs a repair" in team.lucid.error(12, "fsck", team.store, "--repair")
