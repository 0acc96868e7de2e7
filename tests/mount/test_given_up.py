"""A mount that was given up, and an unmount that does not wait, whatever the store does (S-28)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.mount import mountpoint, registry
from lucid.mount.serve import END_S
from lucid.types import SystemClock
from tests.cli.conftest import Lucid
from tests.mount.stopping_proxy import StoppingProxy
from tests.mount.test_background import ROOT, Background, wait_for_end
from tests.mount.test_files import eventually
from tests.seaweed import S3Server

pytestmark = pytest.mark.mount

BUSY_S = 4.0
"""What a machine that is busy with other things may add to a bound."""


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Background]:
    made = Background(tmp_path)
    yield made
    made.clean()


def daemons_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of a process's children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_starts_ends_the_daemon_too(
    background: Background, number: signal.Signals
) -> None:
    process = subprocess.Popen(background.command("--slow-open"), cwd=ROOT, stderr=subprocess.PIPE)
    with process:
        eventually(lambda: (background.state / "log").exists() and "hangs" in background.log)
        (daemon,) = daemons_of(process)
        process.send_signal(number)
        assert process.wait(10) == -number
        assert registry.process_start(daemon) is None, "before the one that was asked has ended"
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert "ended by a signal before the drive was mounted" in background.log
    assert not background.is_mounted()


def test_what_is_to_be_ignored_is_ignored(background: Background) -> None:
    """`nohup lucid mount`, and then the terminal is closed."""
    process = subprocess.Popen(
        ["nohup", *background.command("--slow-open")],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        eventually(lambda: (background.state / "log").exists() and "hangs" in background.log)
        (daemon,) = daemons_of(process)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert registry.process_start(daemon) is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert registry.process_start(daemon) is None


def test_an_unmount_that_does_not_wait_ends_beside_a_request_that_hangs(
    background: Background,
) -> None:
    """The store keeps a request, and that keeps the mount from ending by itself."""
    background.start("--pending", "5", "--uploads", "0", "--hang", "mkdir")
    stuck = subprocess.Popen(["mkdir", background.point / "d"], stderr=subprocess.DEVNULL)
    eventually(lambda: "a request hangs" in background.log)
    stuck.kill()
    lucid = Lucid(background.state)
    clock = SystemClock()
    began = clock.monotonic()
    subprocess.run(
        lucid.command("umount", "--no-wait", background.point), capture_output=True, timeout=30,
        check=False,
    )  # fmt: skip
    if background.is_mounted():  # it was busy: the kernel counts the request
        mountpoint.unmount(background.point, lazy=True)
        subprocess.run(
            lucid.command("umount", "--no-wait", background.point), capture_output=True,
            timeout=30, check=False,
        )  # fmt: skip
        began = clock.monotonic()
    wait_for_end(background.pids[0])
    assert clock.monotonic() - began < END_S + BUSY_S
    stuck.wait(10)
    assert registry.records() == []


@pytest.fixture
def hung(
    s3_server: S3Server, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Lucid, str, Path, StoppingProxy]]:
    """A drive on a bucket that can stop answering."""
    proxy = StoppingProxy(int(s3_server.endpoint.rpartition(":")[2]))
    for name, value in {**s3_server.environment(), "AWS_ENDPOINT_URL_S3": proxy.endpoint}.items():
        monkeypatch.setenv(name, value)
    lucid, point = Lucid(own_home), tmp_path / "drive"
    point.mkdir()
    store = f"s3://{s3_server.make_bucket()}/team"
    lucid.run("init", store)
    yield lucid, store, point, proxy
    proxy.go_on()
    lucid.clean()
    proxy.close()


def test_the_whole_story_of_a_store_that_hangs(
    hung: tuple[Lucid, str, Path, StoppingProxy],
) -> None:
    """S-28, S-46: unmounted at once, mounted again offline, online when the store is back."""
    lucid, store, point, proxy = hung
    lucid.run("mount", store, point)
    (point / "before").write_text("before")
    lucid.run("sync", point)
    (record,) = registry.records()
    proxy.stop()
    (point / "after").write_text("after")
    lucid.run("umount", "--no-wait", point)
    assert registry.wait_for_end(record, END_S + BUSY_S)

    clock = SystemClock()
    began = clock.monotonic()
    done = lucid.run("mount", store, point)
    assert clock.monotonic() - began < 15.0, "a few seconds, and what the machine adds"
    (line,) = done.stderr.splitlines()
    assert line.startswith("lucid: mounted offline, with what this device knows")
    assert (point / "before").read_text() == "before"
    assert (point / "after").read_text() == "after"
    status = lucid.json("status", point)
    assert not status["online"]
    assert "none since the mount" in lucid.run("status", point).stdout
    proxy.go_on()
    lucid.run("sync", point)
    assert lucid.json("status", point)["online"]
    assert lucid.run("umount", point).stderr == ""
    assert lucid.run("mount", store, point).stderr == ""


def test_no_mount_comes_later_by_itself(
    hung: tuple[Lucid, str, Path, StoppingProxy], tmp_path: Path
) -> None:
    """The store hangs, `timeout` ends the command, the store comes back."""
    lucid, store, point, proxy = hung
    proxy.stop()
    done = subprocess.run(
        ["timeout", "5", *lucid.command("mount", store, point, "--state-dir", tmp_path / "new")],
        env=lucid.environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 124
    proxy.go_on()
    left = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if os.fsencode(str(point)) in _text(path)
    ]
    assert left == []
    assert mountpoint.find(point) is None


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
