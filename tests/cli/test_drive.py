"""Whole stories with the command: make, mount, write, look, unmount, mount again, check."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lucid.mount import mountpoint, registry
from tests.cli.conftest import Lucid, Team

pytestmark = pytest.mark.mount


def test_the_main_story(team: Team) -> None:
    lucid = team.lucid
    team.mount()
    (team.point / "hello.txt").write_text("hello")
    token = lucid.json("sync", team.point / "hello.txt")["token"]
    assert token
    status = lucid.json("status", team.point)
    assert status["name"] == "Team"
    assert status["pending_ops"] == status["staged_bytes"] == 0
    assert status["mountpoint"] == str(team.point)
    assert f"{team.point}  Team  {team.store}" in lucid.run("status").stdout
    lucid.run("umount", team.point)
    assert not team.point.is_mount()
    assert registry.records() == []
    team.mount("--state-dir", lucid.home / "another")
    assert (team.point / "hello.txt").read_text() == "hello"
    lucid.run("umount", team.point)
    assert lucid.json("fsck", team.store)["clean"] is True


def test_nothing_readable_rests_anywhere(team: Team) -> None:
    team.mount("--state-dir", team.lucid.home / "state")
    (team.point / "a telling name").mkdir()
    (team.point / "a telling name" / "x").write_text("a telling content" * 1000)
    team.lucid.run("umount", team.point)
    for top in (team.directory, team.lucid.home / "state"):
        for path in (path for path in top.rglob("*") if path.is_file()):
            assert b"telling" not in path.read_bytes(), path
            assert "telling" not in path.name


def test_the_state_of_a_file(team: Team) -> None:
    """S-14"""
    team.mount()
    path = team.point / "f"
    path.write_text("x")
    assert os.getxattr(path, "user.lucid.state") in (b"staged", b"uploading", b"clean")
    team.lucid.run("sync", path)
    assert os.getxattr(path, "user.lucid.state") == b"clean"
    with pytest.raises(PermissionError):
        os.setxattr(path, "user.lucid.state", b"clean")


def test_the_cache(team: Team) -> None:
    team.mount()
    (team.point / "f").write_bytes(os.urandom(1 << 20))
    team.lucid.run("sync", team.point)
    held = team.lucid.json("cache", team.point)["bytes"]
    assert held >= 1 << 20
    assert team.lucid.json("cache", team.point, "--clear")["freed"] >= held
    assert team.lucid.json("cache", team.point)["bytes"] == 0
    assert "0 B of 20.0 GiB used" in team.lucid.run("cache", team.point).stdout
    assert len((team.point / "f").read_bytes()) == 1 << 20


def test_read_only(team: Team) -> None:
    """S-19"""
    team.mount()
    (team.point / "f").write_text("there")
    team.lucid.run("umount", team.point)
    team.mount("--read-only", "--state-dir", team.lucid.home / "ro")
    assert (team.point / "f").read_text() == "there"
    with pytest.raises(OSError, match="Read-only"):
        (team.point / "g").touch()
    said = team.lucid.run("status", team.point).stdout
    assert "(read-only)" in said
    assert " on ," not in said
    assert "session" not in said


def test_errors_of_mount(team: Team, tmp_path: Path) -> None:
    lucid = team.lucid
    assert "does not exist. Make it: mkdir -p" in lucid.error(
        16, "mount", team.store, tmp_path / "none"
    )
    (team.point / "x").touch()
    assert "-o nonempty" in lucid.error(18, "mount", team.store, team.point)
    (team.point / "x").unlink()
    nowhere = f"{tmp_path}/no/store"
    assert lucid.error(6, "mount", f"file://{nowhere}", team.point) == (
        f"lucid: There is no directory {nowhere}. Make it, or mount its disk.\n"
    )
    (tmp_path / "empty").mkdir()
    assert "Make one with: lucid init" in lucid.error(
        22, "mount", f"file://{tmp_path}/empty", team.point
    )
    assert "mount the one that is there" in lucid.error(21, "init", team.store)
    lucid.passphrase = "wrong"
    assert "Wrong passphrase" in lucid.error(11, "mount", team.store, team.point)
    lucid.passphrase = team.recovery_code
    team.mount()
    error = lucid.error(17, "mount", team.store, team.point)
    assert error.startswith(f"lucid: Team is mounted at {team.point} already. To unmount it: lucid")
    (tmp_path / "second").mkdir()
    error = lucid.error(13, "mount", team.store, tmp_path / "second")
    (record,) = registry.records()
    assert f"is used by process {record.pid}. It has {team.store} mounted at {team.point}." in error
    lucid.passphrase = None
    assert "is used by process" in lucid.error(13, "mount", team.store, tmp_path / "second")
    lucid.passphrase = "correct horse"
    # By another address of the same store, only the lock of the state directory tells.
    (tmp_path / "link").symlink_to(team.directory)
    error = lucid.error(13, "mount", f"file://{tmp_path}/link", tmp_path / "second")
    assert f"is used by process {record.pid}. It has {team.store} mounted at {team.point}." in error
    assert error.endswith("or choose another directory with --state-dir.\n")


def test_a_state_directory_that_cannot_be(team: Team, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = team.lucid.error(
        12, "mount", team.store, team.point, "--state-dir", tmp_path / "file" / "x"
    )
    assert said.endswith("Not a directory. Check the path.\n")


def test_little_room_under_the_state_directory(team: Team) -> None:
    done = team.lucid.run("mount", team.store, team.point, "--cache-size", "9000T")
    (line,) = done.stderr.splitlines()
    assert line.startswith("lucid: warning: Only ")
    assert "the cache may take 9000.0 TiB more" in line
    log = Path(team.lucid.json("status", team.point)["state_directory"]) / "lucid.log"
    assert "the cache may take 9000.0 TiB more" in log.read_text()


def test_no_cache_at_all(team: Team) -> None:
    team.mount("--cache-size", "0")
    (team.point / "f").write_bytes(b"x" * (1 << 20))
    team.lucid.run("sync", team.point)
    assert (team.point / "f").read_bytes() == b"x" * (1 << 20)


def test_umount_from_within_the_drive(team: Team) -> None:
    """Its own working directory does not keep the drive busy, and a relative path is understood."""
    team.mount()
    (team.point / "below").mkdir()
    done = subprocess.run(
        team.lucid.command("umount", ".."), cwd=team.point / "below", capture_output=True,
        text=True, timeout=60, check=False, env=team.lucid.environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not team.point.is_mount()


def test_errors_where_nothing_is_mounted(lucid: Lucid, tmp_path: Path) -> None:
    assert lucid.run("status").stdout == "No drive is mounted.\n"
    assert lucid.json("status") == []
    for command in (["status"], ["cache"], ["umount"], ["sync"]):
        assert "mounted" in lucid.error(20, *command, tmp_path)
    assert "is no drive of lucid (proc)" in lucid.error(20, "umount", "/proc")


def test_umount_while_a_file_is_open(team: Team) -> None:
    team.mount()
    with (team.point / "f").open("w"):
        error = team.lucid.error(17, "umount", team.point)
        assert f"({os.getpid()})" in error
    team.lucid.run("umount", team.point)


def test_a_killed_daemon(team: Team) -> None:
    """S-22"""
    team.mount()
    (team.point / "f").write_text("kept")
    (record,) = registry.records()
    os.kill(record.pid, signal.SIGKILL)
    assert registry.wait_for_end(record, 10.0)
    done = team.lucid.run("umount", team.point)
    assert "had been killed; the mount is cleared away" in done.stderr
    assert mountpoint.find(team.point) is None
    team.mount()
    assert (team.point / "f").read_text() == "kept"


def test_a_killed_daemon_is_shown_as_dead(team: Team) -> None:
    """Its drive does not vanish from the list, and every command says what to do."""
    team.mount()
    (team.point / "f").write_text("kept")
    (record,) = registry.records()
    os.kill(record.pid, signal.SIGKILL)
    assert registry.wait_for_end(record, 10.0)
    shown = team.lucid.run("status").stdout
    what = "dead: its process was killed; mount it again, or lucid umount"
    assert f"{team.point}  {team.store}\n" in shown
    assert f"{what} {team.point}\n" in shown
    (listed,) = team.lucid.json("status")
    assert (listed["mountpoint"], listed["pid"]) == (str(team.point), record.pid)
    assert (listed["phase"], listed["error"]) == ("dead", "NotMounted")
    for command in ("sync", "status"):
        for path in (team.point, team.point / "f"):
            error = team.lucid.error(20, command, path)
            assert "is dead: its process was killed. Mount it again, or: lucid umount" in error
    assert "is dead: its process was killed." in team.lucid.error(20, "cache", team.point)
    team.mount()
    assert "mounted, online" in team.lucid.run("status").stdout
    (record,) = registry.records()
    os.kill(record.pid, signal.SIGKILL)
    assert registry.wait_for_end(record, 10.0)
    team.lucid.run("umount", team.point)
    assert team.lucid.run("status").stdout == "No drive is mounted.\n"
    assert not list((team.lucid.home / "run" / "lucid").glob("*.json"))


def test_status_of_a_path_within_a_drive(team: Team) -> None:
    team.mount()
    (team.point / "below").mkdir()
    (team.point / "below" / "f").write_text("x")
    (team.point.parent / "link").symlink_to(team.point / "below")
    whole = team.lucid.json("status", team.point)
    assert whole["mountpoint"] == str(team.point)
    for path in ("below", "below/f", "below/not there", "../link", "../link/f"):
        found = team.lucid.json("status", team.point / path)
        assert found["mountpoint"] == str(team.point), path
    assert "is not on a drive" in team.lucid.error(20, "status", team.point.parent)


def test_a_killed_daemon_and_mount_at_once(team: Team) -> None:
    team.mount()
    (team.point / "f").write_text("kept")
    (record,) = registry.records()
    os.kill(record.pid, signal.SIGKILL)
    assert registry.wait_for_end(record, 10.0)
    team.mount()
    assert (team.point / "f").read_text() == "kept"


def test_in_the_foreground(team: Team) -> None:
    process = subprocess.Popen(
        team.lucid.command("mount", team.store, team.point, "--foreground"),
        env=team.lucid.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        while "mounted" not in process.stderr.readline():
            assert process.poll() is None
        (team.point / "f").write_text("x")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    assert mountpoint.find(team.point) is None


def test_a_plain_umount_uploads_and_ends(team: Team) -> None:
    team.mount()
    (team.point / "f").write_bytes(os.urandom(3 << 20))
    (record,) = registry.records()
    subprocess.run(["umount", team.point], check=True, timeout=30)
    assert registry.wait_for_end(record, 30.0)
    team.mount("--state-dir", team.lucid.home / "another")
    assert (team.point / "f").stat().st_size == 3 << 20


def test_the_log_names_no_file(team: Team) -> None:
    state = team.lucid.home / "state"
    team.mount("--state-dir", state)
    (team.point / "a telling name").write_text("x")
    team.lucid.run("umount", team.point)
    log = (state / "lucid.log").read_text()
    assert "mounted" in log
    assert "telling" not in log


def test_a_log_file_of_ones_own(team: Team, tmp_path: Path) -> None:
    team.mount("--log-file", tmp_path / "own.log")
    team.lucid.run("umount", team.point)
    assert "unmounted" in (tmp_path / "own.log").read_text()
    error = team.lucid.error(12, "mount", team.store, team.point, "--log-file", "/proc/no/log")
    assert "The log /proc/no/log cannot be written" in error


def test_changing_the_passphrase(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    lucid = team.lucid
    monkeypatch.setenv("LUCID_NEW_PASSPHRASE", "battery staple")
    assert "is changed" in lucid.run("passphrase", team.store).stdout
    lucid.error(11, "fsck", team.store)
    lucid.passphrase = "battery staple"
    assert "Everything is as it should be." in lucid.run("fsck", team.store).stdout
    lucid.passphrase = team.recovery_code
    monkeypatch.setenv("LUCID_NEW_PASSPHRASE", "third")
    lucid.run("passphrase", team.store)
    lucid.passphrase = "third"
    lucid.run("fsck", team.store)


def test_fsck_finds_what_is_missing_and_what_is_wrong(team: Team) -> None:
    team.mount()
    (team.point / "f").write_bytes(os.urandom(300_000))
    (team.point / "g").write_bytes(os.urandom(9 << 20))
    team.lucid.run("umount", team.point)
    found = team.lucid.json("fsck", team.store, "--read-data")
    assert found["clean"] and found["blocks_read"] > 70
    segments = sorted(path for path in (team.directory / "data").rglob("*") if path.is_file())
    damaged = bytearray(segments[0].read_bytes())
    damaged[1000] ^= 1
    segments[0].chmod(0o600)
    segments[0].write_bytes(damaged)
    done = team.lucid.run("fsck", team.store, "--read-data", status=8)
    assert "wrong: " in done.stdout
    segments[1].unlink()
    done = team.lucid.run("fsck", team.store, status=8)
    assert "wrong: " in done.stdout
