"""What takes time: a bar while it goes on, and what is said when somebody does not want to wait."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lucid.cli.predecessor import LONGEST_S, wait_for_predecessor
from lucid.cli.uploads import Standstill
from lucid.errors import StateInUse
from lucid.mount import registry
from tests.cli.conftest import Lucid, Team
from tests.cli.test_commands import on_terminal
from tests.mount.test_background import Background
from tests.mount.test_files import eventually

pytestmark = pytest.mark.mount


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Background]:
    """A drive whose store is as slow as a test wants it."""
    made = Background(tmp_path)
    yield made
    made.clean()


def test_umount_shows_a_bar_on_a_terminal(lucid: Lucid, background: Background) -> None:
    """S-28"""
    background.start("--pending", "40", "--pace", "0.05")
    status, screen = on_terminal(lucid.command("umount", background.point), [])
    assert status == 0, screen
    assert "Uploading" in screen
    assert "to go" in screen


def test_umount_is_silent_elsewhere(lucid: Lucid, background: Background) -> None:
    background.start("--pending", "40", "--pace", "0.05")
    done = lucid.run("umount", background.point)
    assert done.stdout == done.stderr == ""


def test_umount_without_waiting_says_what_is_left(lucid: Lucid, background: Background) -> None:
    """S-28"""
    background.start("--pending", "7", "--uploads", "0")
    done = lucid.run("umount", "--no-wait", background.point)
    assert "not all is in the store: 7 changes" in done.stderr
    assert "goes up after the next mount" in done.stderr


def test_ctrl_c_while_umount_waits(lucid: Lucid, background: Background) -> None:
    """The upload goes on; a second umount waits again, or gives up waiting."""
    background.start("--pending", "7", "--uploads", "0")
    process = subprocess.Popen(
        lucid.command("umount", background.point), stderr=subprocess.PIPE, text=True
    )
    with process:
        eventually(lambda: not background.is_mounted())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert f"goes on in process {background.pids[0]}" in process.stderr.read()
    assert lucid.json("status")[0]["phase"] == "closing"
    assert "unmounted, uploading" in lucid.run("status").stdout
    done = lucid.run("umount", "--no-wait", background.point)
    assert "7 changes" in done.stderr


def test_sync_waits(lucid: Lucid, background: Background) -> None:
    background.start("--pending", "3")
    assert lucid.json("sync", background.point) == {"token": "token-None"}


@pytest.mark.parametrize("command", ["umount", "sync"])
def test_a_wait_that_gets_nowhere_is_told_without_a_terminal(
    lucid: Lucid, background: Background, command: str
) -> None:
    """After a few seconds, in one line: what is left, why, and how to give up."""
    background.start("--pending", "7", "--uploads", "0", "--problem", "The store is away.")
    process = subprocess.Popen(
        lucid.command(command, background.point), stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("lucid: 7 changes, 7.0 KiB still to go. The store is away. Ctrl-C ")
        assert ("--no-wait" in line) is (command == "umount")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


class Moved:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


def test_a_standstill_is_told_after_5_s_and_then_each_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Moved()
    standstill = Standstill("Give up.", clock)

    def told(after_s: float, changes: int, problem: str = "") -> str:
        clock.now += after_s
        standstill.look({"pending_ops": changes, "staged_bytes": 0, "problem": problem})
        return capsys.readouterr().err

    assert told(0.0, 9) == ""
    assert told(4.9, 9) == ""
    assert told(4.9, 8) == "", "it moves"
    assert told(5.0, 8) == "lucid: 8 changes still to go. Nothing moves. Give up.\n"
    assert told(55.0, 8, "Away.") == ""
    assert told(5.0, 7, "Away.") == "lucid: 7 changes still to go. Away. Give up.\n"
    assert told(60.0, 0, "Away.") == "lucid: still waiting for the store. Away. Give up.\n"


def test_the_reason_is_whole_on_a_narrow_terminal(lucid: Lucid, background: Background) -> None:
    problem = "The store at https://s3.example.org does not answer: the connection was refused."
    background.start("--pending", "30", "--pace", "0.1", "--problem", problem)
    status, screen = on_terminal(lucid.command("umount", background.point), [])
    assert status == 0, screen
    lines = [line for line in re.split(r"[\r\n]+", screen) if problem in line]
    assert lines
    assert not any("Uploading" in line for line in lines), "it has a line of its own"


@contextmanager
def predecessor(team: Team, state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that the registry shows as the daemon of the last mount, still uploading."""
    with subprocess.Popen(["sleep", "600"]) as last:
        started = registry.process_start(last.pid) or 0
        registry.add(
            registry.Record("/gone", str(state), team.store, last.pid, started, phase="closing")
        )
        try:
            yield last
        finally:
            last.kill()


def test_mount_waits_for_the_last_upload(team: Team, tmp_path: Path) -> None:
    """It says for whom, and how long at most."""
    with predecessor(team, tmp_path) as last:
        mount = subprocess.Popen(
            team.lucid.command("mount", team.store, team.point),
            env=team.lucid.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with mount:
            assert mount.stderr is not None
            said = mount.stderr.readline()
            assert f"Process {last.pid} still uploads from the last mount." in said
            assert "waits up to 60 s" in said
            assert "lucid umount --no-wait /gone" in said
            assert not team.point.is_mount()
            last.kill()
            assert mount.wait(60) == 0
    assert team.point.is_mount()


class Hurried:
    """A clock that goes a minute in three looks."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += LONGEST_S / 3
        return self.now

    def time_ns(self) -> int:
        return 0


def test_the_wait_for_the_last_upload_is_bounded(team: Team, tmp_path: Path) -> None:
    with predecessor(team, tmp_path) as last, pytest.raises(StateInUse) as caught:
        wait_for_predecessor(team.store, None, Hurried())
    assert f"Process {last.pid}" in str(caught.value)
    assert "lucid umount --no-wait /gone" in str(caught.value)
    assert caught.value.exit_code == 13


def test_only_the_same_state_directory_is_waited_for(team: Team, tmp_path: Path) -> None:
    with predecessor(team, tmp_path):
        wait_for_predecessor(team.store, tmp_path / "another")
        wait_for_predecessor("s3://another/store", None)
