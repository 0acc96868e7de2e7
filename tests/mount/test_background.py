"""A drive in a process of its own: how it starts, answers, ends, and what a killed one leaves."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.cli.terminal import Bar
from lucid.cli.uploads import Standstill, follow_call
from lucid.errors import (
    MountPointBusy,
    MountPointMissing,
    MountPointNotEmpty,
    NotMounted,
    TimedOut,
)
from lucid.mount import mountpoint, registry
from lucid.mount.control import Call, ask
from tests.mount.test_files import eventually
from tests.mount.test_names import fails_with

pytestmark = pytest.mark.mount

ROOT = Path(__file__).resolve().parents[2]
START_S = 20.0


class Background:
    """Starts drives in processes of their own and sees that none stays."""

    def __init__(self, directory: Path) -> None:
        self.point = directory / "drive"
        self.state = directory / "state"
        self.point.mkdir()
        self.state.mkdir(mode=0o700)
        self.foreground: list[subprocess.Popen[str]] = []
        self.pids: list[int] = []

    def command(self, *options: str) -> list[str]:
        program = [sys.executable, "-m", "tests.mount.background"]
        return [*program, str(self.point), str(self.state), *options]

    def start(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs it to the background; returns when the foreground process has ended."""
        done = subprocess.run(
            self.command(*options),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        if done.stdout.startswith("ready "):
            self.pids.append(int(done.stdout.split()[1]))
        return done

    def start_in_foreground(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command("--foreground", *options), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.foreground.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        return process

    @property
    def log(self) -> str:
        return (self.state / "log").read_text()

    def is_mounted(self) -> bool:
        return mountpoint.find(self.point) is not None

    def clean(self) -> None:
        while self.is_mounted():
            mountpoint.unmount(self.point, lazy=True)
        for process in self.foreground:
            process.kill()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()
        for pid in self.pids:
            if registry.process_start(pid) is not None:
                os.kill(pid, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """A daemon's parent is the machine's first process, which may take its time to reap it."""
    try:
        return b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True


def wait_for_end(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        assert waiting.poll(10_000), "the daemon goes on"
    finally:
        os.close(fd)


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Background]:
    made = Background(tmp_path)
    yield made
    made.clean()


def test_it_returns_when_the_drive_is_usable(background: Background) -> None:
    done = background.start()
    assert (done.returncode, done.stderr) == (0, "")
    assert background.is_mounted()
    (background.point / "f").write_text("usable")
    assert (background.point / "f").read_text() == "usable"
    (pid,) = background.pids
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    mountpoint.unmount(background.point)
    wait_for_end(pid)
    assert registry.records() == []
    assert not (background.state / "control").exists()


@pytest.mark.parametrize(
    ("option", "said", "status"),
    [
        ("WrongPassphrase", "WrongPassphrase: told to fail", 11),
        ("StoreUnavailable", "StoreUnavailable: told to fail", 4),
        ("Exists", "Exists: told to fail", 3),
        ("Nonsense", "InternalError: RuntimeError: told to fail", 70),
    ],
)
def test_why_it_cannot_be_mounted_is_passed_on(
    background: Background, option: str, said: str, status: int
) -> None:
    done = background.start("--fail-open", option)
    assert (done.stdout.strip(), done.returncode) == (said, status)
    assert not background.is_mounted()


def test_a_daemon_that_dies_is_told_too(background: Background) -> None:
    done = background.start("--die")
    assert (
        done.stdout
        == "InternalError: The daemon was ended by SIGKILL before the drive was usable.\n"
    )
    assert done.returncode == 70


def test_a_second_mount_at_one_place(background: Background) -> None:
    background.start()
    done = background.start()
    assert done.stdout.startswith("MountPointBusy: memory is mounted at")
    assert f"lucid umount {background.point}" in done.stdout
    assert done.returncode == 17
    assert (background.point).stat().st_ino == 1, "the first goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(background: Background, number: signal.Signals) -> None:
    process = background.start_in_foreground()
    fd = os.open(background.point / "open", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    process.send_signal(number)
    assert process.wait(5) == 0
    assert not background.is_mounted()
    fails_with(errno.ENOTCONN, lambda: os.fsync(fd))
    fails_with(errno.ENOTCONN, lambda: os.close(fd))
    assert registry.records() == []
    assert f"{number.name} came" in background.log


def test_sigterm_while_uploads_hang(background: Background) -> None:
    """What is not uploaded stays for the next mount."""
    process = background.start_in_foreground("--pending", "7", "--uploads", "2")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert "changes: 7," in background.log


def test_sigterm_while_closing_hangs(background: Background) -> None:
    """The process ends as it is, and its log says what was left all the same."""
    process = background.start_in_foreground("--pending", "7", "--uploads", "0", "--hang", "close")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "something hangs" in background.log
    assert background.log.count("Not in the store yet: changes: 7, bytes: 7168.") == 1


def test_sigterm_while_requests_hang(background: Background) -> None:
    process = background.start_in_foreground("--hang", "mkdir")
    stuck = subprocess.Popen(["mkdir", background.point / "d"], stderr=subprocess.DEVNULL)
    eventually(lambda: "a request hangs" in background.log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(6) == 0
    assert stuck.wait(5) == 1
    assert not background.is_mounted()


def test_a_killed_daemon_leaves_a_dead_mount_that_mount_clears(background: Background) -> None:
    process = background.start_in_foreground()
    process.kill()
    process.wait(10)
    fails_with(errno.ENOTCONN, lambda: os.statvfs(background.point))
    assert registry.find(background.point) is None, "a record of a dead process is none"
    background.start()
    (background.point / "f").write_text("again")
    assert (background.point / "f").read_text() == "again"


def test_ctrl_c_while_it_starts_ends_the_daemon_too(background: Background) -> None:
    process = subprocess.Popen(background.command("--slow-open"), cwd=ROOT, stderr=subprocess.PIPE)
    with process:
        eventually(lambda: (background.state / "log").exists() and "hangs" in background.log)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        assert process.stderr is not None
        assert b"KeyboardInterrupt" in process.stderr.read()
    assert "ended by a signal before the drive was mounted" in background.log
    assert not background.is_mounted()


# --- The control socket ------------------------------------------------------------------------


def test_status_progress_sync_and_cache(background: Background) -> None:
    background.start("--pending", "3")
    status = ask(background.state, "status")
    assert status["name"] == "memory"
    assert status["mountpoint"] == str(background.point)
    assert status["phase"] == "mounted"
    assert ask(background.state, "progress")["pending_ops"] == 3
    assert ask(background.state, "sync", ino=None)["token"] == "token-None"
    assert ask(background.state, "progress")["pending_ops"] == 0
    assert ask(background.state, "cache", clear=False)["freed"] == 0
    assert ask(background.state, "cache", clear=True)["freed"] == 4096
    with pytest.raises(Exception, match="does not know this command"):
        ask(background.state, "nonsense")


def test_the_socket_is_the_owners_alone(background: Background) -> None:
    background.start()
    assert (background.state / "control").stat().st_mode & 0o777 == 0o600


def test_a_socket_deep_down(tmp_path: Path) -> None:
    """A socket's path has 107 bytes at most; ours is longer."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    made = Background(deep)
    try:
        made.start()
        assert ask(made.state, "status")["name"] == "memory"
    finally:
        made.clean()


def test_stop_waits_for_uploads(background: Background) -> None:
    background.start("--pending", "5")
    with Call(background.state, "stop", wait=True) as call:
        messages = []
        while not (messages and "result" in messages[-1]):
            message = call.next(10.0)
            assert message is not None
            messages.append(message)
    assert messages[-1]["result"]["pending_ops"] == 0
    wait_for_end(background.pids[0])
    assert not background.is_mounted()


def test_stop_without_waiting(background: Background) -> None:
    background.start("--pending", "5", "--uploads", "0")
    assert ask(background.state, "stop", wait=False)["pending_ops"] == 5
    wait_for_end(background.pids[0])


def test_a_plain_umount_uploads_in_the_background(background: Background) -> None:
    background.start("--pending", "5", "--uploads", "2")
    subprocess.run(["umount", background.point], check=True, timeout=10)
    eventually(lambda: registry.records()[0].phase == "closing")
    eventually(lambda: ask(background.state, "progress")["pending_ops"] == 3)
    assert ask(background.state, "status")["phase"] == "closing"
    assert ask(background.state, "stop", wait=False)["pending_ops"] == 3
    wait_for_end(background.pids[0])
    assert registry.records() == []


def test_stop_while_files_are_open(background: Background) -> None:
    background.start()
    with (background.point / "f").open("w"):
        with pytest.raises(MountPointBusy, match=rf"in use by .*\({os.getpid()}\)"):
            ask(background.state, "stop", wait=True)
        assert background.is_mounted()
    ask(background.state, "stop", wait=True)
    assert not background.is_mounted()


def test_a_daemon_that_hangs(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither asking it nor mounting over it may hang as well."""
    background.start()
    monkeypatch.setattr("lucid.mount.control.ANSWER_S", 0.3)
    os.kill(background.pids[0], signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut, match="does not answer"):
            ask(background.state, "status")
        with pytest.raises(MountPointBusy, match="is mounted at"):
            mountpoint.check(background.point)
        with (
            Bar("Uploading") as bar,
            Call(background.state, "stop", wait=True) as call,
            pytest.raises(TimedOut),
        ):
            follow_call(bar, background.state, call, Standstill(""))
    finally:
        os.kill(background.pids[0], signal.SIGCONT)
    wait_for_end(background.pids[0])
    assert not background.is_mounted(), "it has heard of it in the end"


def test_nobody_listens(background: Background) -> None:
    with pytest.raises(NotMounted):
        ask(background.state, "status")


# --- Mount points ------------------------------------------------------------------------------


def test_mount_points_that_will_not_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(MountPointMissing, match="mkdir -p"):
        mountpoint.check(tmp_path / "none")
    with pytest.raises(MountPointMissing, match="not a directory"):
        mountpoint.check(tmp_path / "file")
    with pytest.raises(MountPointNotEmpty, match="-o nonempty"):
        mountpoint.check(tmp_path / "full")
    mountpoint.check(tmp_path / "full", nonempty=True)
    with pytest.raises(MountPointBusy, match="proc is mounted at /proc already"):
        mountpoint.check(Path("/proc"))


def test_absolute_looks_not_at_the_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "point").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    assert mountpoint.absolute(tmp_path / "link" / "point") == tmp_path / "real" / "point"
    monkeypatch.chdir(tmp_path / "real" / "point")
    assert mountpoint.absolute(".") == tmp_path / "real" / "point"
    assert mountpoint.absolute("..") == tmp_path / "real"
    assert mountpoint.absolute("/") == Path("/")


def test_names_with_blanks_in_the_mount_table(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    odd = tmp_path / "a b\tc\\d\nü"
    odd.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "odd source", odd], check=True, timeout=10)
    try:
        found = mountpoint.find(odd)
        assert found is not None
        assert (found.kind, found.source) == ("tmpfs", "odd source")
    finally:
        subprocess.run(["umount", odd], check=True, timeout=10)


def test_the_registry_sweeps_what_has_ended(tmp_path: Path) -> None:
    live = registry.Record(
        "/a", str(tmp_path), "s", os.getpid(), registry.process_start(os.getpid()) or 0
    )
    dead = registry.Record("/b", str(tmp_path), "s", os.getpid(), 1)
    registry.add(live)
    registry.add(dead)
    assert registry.records() == [live]
    assert registry.containing(Path("/a/b/c")) == live
    with pytest.raises(NotMounted):
        registry.containing(Path("/ab"))
    registry.remove(live)
    assert registry.records() == []
