"""Two machines and a hub: what one closed the other reads at once, though it looks at the log
rarely; who is there; what is told of changes; waiting for a moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lucid.cli.posting import signature
from lucid.mount import mountpoint
from tests.cli.conftest import Lucid
from tests.cli.test_posting import Receiver
from tests.mount.watchdog import watchdog
from tests.seaweed import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LIMIT_S = 200.0
SOON_S = 10.0
"""For a machine that is busy with other things. Without the hub it would take up to 30 s."""


@dataclass
class HubProcess:
    """`lucid hub`, which can be killed and come back at its address."""

    lucid: Lucid
    address: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        listen = self.address or "127.0.0.1:0"
        self.process = subprocess.Popen(
            self.lucid.command("hub", "--listen", listen),
            env=self.lucid.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Listening on ws://")
        self.address = line.split("ws://")[1].strip()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status


@dataclass
class OwnLucid(Lucid):
    """Keeps the surroundings it was made with, so that it outlives one test."""

    surroundings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.surroundings


@dataclass
class Team:
    """One filespace, a hub, and the machines A and B."""

    lucid: OwnLucid
    store: str
    top: Path
    hub: HubProcess

    @property
    def a(self) -> Path:
        return self.top / "a"

    @property
    def b(self) -> Path:
        return self.top / "b"

    def mount(self, name: str) -> None:
        (self.top / name).mkdir(exist_ok=True)
        state = self.top / f"state-{name}"
        self.lucid.run(
            "mount", self.store, self.top / name, "--state-dir", state,
            "--hub", f"ws://{self.hub.address}",
        )  # fmt: skip

    def is_connected(self, point: Path) -> bool:
        return bool(self.lucid.json("status", point)["hub"]["connected"])


def until(true: Callable[[], object], within_s: float = SOON_S) -> float:
    """Waits until something holds; how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it does not become so in time"
        time.sleep(0.002)  # nothing tells a program of a change that another machine made
    return time.monotonic() - began


def shows(path: Path, content: bytes) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return path.read_bytes() == content
        except FileNotFoundError:
            return False

    return look


@contextmanager
def teamed(top: Path, store: str, surroundings: dict[str, str]) -> Iterator[Team]:
    """A filespace made in the store, mounted twice, both at a hub of their own."""
    (top / "run").mkdir(mode=0o700)
    home = {"HOME": str(top), "XDG_RUNTIME_DIR": f"{top}/run"}
    lucid = OwnLucid(top, surroundings=surroundings | home)
    hub = HubProcess(lucid)
    made = Team(lucid, store, top, hub)
    with watchdog(top, LIMIT_S):
        try:
            hub.start()
            lucid.run("init", store, "--name", "Team")
            made.mount("a")
            made.mount("b")
            until(lambda: made.is_connected(made.a) and made.is_connected(made.b))
            yield made
        finally:
            for name in ("a", "b"):
                if mountpoint.find(top / name) is not None:
                    lucid.run("umount", "--no-wait", top / name)
            hub.stop()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One for all tests here: making and mounting it takes longer than any of them."""
    top = tmp_path_factory.mktemp("team")
    (top / "store").mkdir()
    with teamed(top, f"file://{top}/store", {}) as made:
        yield made


def ping_pong(team: Team, times: int) -> list[float]:
    """Seconds from close() on one to the bytes being read on the other, ascending."""
    took = []
    for number in range(times):
        here, there = (team.a, team.b) if number % 2 else (team.b, team.a)
        content = os.urandom(2000)
        (here / f"f{number}").write_bytes(content)
        took.append(until(shows(there / f"f{number}", content)))
    print("from close to read, ms:", [round(1000 * each) for each in sorted(took)])
    return sorted(took)


def test_a_change_is_there_at_once(team: Team) -> None:
    """S-39, both ways, one after the other; the middle one of many well below a second."""
    took = ping_pong(team, 20)
    assert took[len(took) // 2] < 0.5


def test_a_change_is_there_at_once_on_s3(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server
) -> None:
    """S-39"""
    store = f"s3://{s3_server.make_bucket()}/team"
    with teamed(tmp_path_factory.mktemp("s3"), store, s3_server.environment()) as team:
        took = ping_pong(team, 10)
    assert took[len(took) // 2] < 0.5


def test_wait_for_what_was_synced(team: Team) -> None:
    """S-40"""
    (team.a / "waited").write_bytes(b"x")
    token = team.lucid.json("sync", team.a / "waited")["token"]
    answer = team.lucid.json("wait", token, team.b, "--timeout", "30")
    assert (team.b / "waited").read_bytes() == b"x"
    assert answer["token"] == token and str(team.b) in answer["drives"]
    said = team.lucid.run("wait", token).stdout.splitlines()
    assert sorted(said) == [f"Visible: {team.a}", f"Visible: {team.b}"]
    head = int(token.split("-")[1])
    later = token.replace(f"-{head}-", f"-{head + 1000}-")
    assert "is not here in time" in team.lucid.error(24, "wait", later, team.b, "--timeout", "0.3")
    other = token.replace(token[-16:], "0" * 16)
    assert "two histories" in team.lucid.error(10, "wait", other, team.b)
    foreign = f"00000000{token[8:]}"
    assert "of another filespace" in team.lucid.error(2, "wait", foreign, team.b)
    assert "No drive of the filespace" in team.lucid.error(20, "wait", foreign)
    assert "is no token" in team.lucid.error(2, "wait", "nonsense")


def test_who_is_there_and_what_they_write(team: Team) -> None:
    (team.a / "open").mkdir()
    with (team.a / "open" / "paper.txt").open("w") as file:
        file.write("a beginning")
        file.flush()

        def seen() -> list[str]:
            return [
                path
                for device in team.lucid.json("status", team.b)["devices"]
                for path in device["writing"]
            ]

        until(lambda: seen() == ["/open/paper.txt"])
        shown = team.lucid.run("status", team.b).stdout
        assert "connected to ws://" in shown
        assert "writing /open/paper.txt" in shown
    until(lambda: not seen())


def test_watch_tells_who_did_what(team: Team) -> None:
    watch = subprocess.Popen(
        team.lucid.command(
            "watch", team.b, "--json", "--exec", f"cat >> {team.top}/told; echo $LUCID_KIND >&2"
        ),
        env=team.lucid.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watch.stdout is not None and watch.stderr is not None
        assert watch.stderr.readline() == f"lucid: watching {team.b}\n"
        (team.a / "w").mkdir()
        (team.a / "w" / "one").write_text("1")
        (team.a / "w" / "one").rename(team.a / "w" / "two")
        (team.a / "w" / "two").chmod(0o600)
        (team.a / "w" / "two").unlink()
        (team.a / "w").rmdir()
        told = []
        while not told or told[-1]["kind"] != "remove" or told[-1]["path"] != "/w":
            told.append(json.loads(watch.stdout.readline()))
        kinds = [(each["kind"], each["path"]) for each in told]
        assert ("create", "/w") in kinds and ("remove", "/w/two") in kinds
        assert [each["to"] for each in told if each["kind"] == "rename"] == ["/w/two"]
        assert {each["member"] for each in told} == {told[0]["member"]} != {""}
        assert all(each["device"] and each["time"].endswith("Z") for each in told)
        until(lambda: len((team.top / "told").read_text().splitlines()) == len(told))
    finally:
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=10)
    assert watch.returncode == 130
    assert "remove" in errors and "Traceback" not in errors


def test_watch_posts_to_a_webhook(team: Team) -> None:
    receiver = Receiver()
    receiver.answers = [503]
    serving = threading.Thread(target=receiver.serve_forever, args=(0.01,))
    serving.start()
    watch = subprocess.Popen(
        team.lucid.command("watch", team.b, "--webhook", receiver.url),
        env=team.lucid.environment | {"LUCID_WEBHOOK_SECRET": "hush"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watch.stderr is not None
        watch.stderr.readline()
        (team.a / "posted").write_text("1")
        until(lambda: len(receiver.got) >= 2)  # the first one was refused
        headers, body = receiver.got[1]
        (change,) = json.loads(body)["changes"]
        assert (change["kind"], change["path"]) == ("create", "/posted")
        assert change["file"] == str(team.b / "posted")
        signed = signature("hush", int(headers["X-Lucid-Time"]), body)
        assert headers["X-Lucid-Signature"] == f"sha256={signed}"
    finally:
        watch.send_signal(signal.SIGINT)
        said, _ = watch.communicate(timeout=10)
        receiver.shutdown()
        serving.join()
        receiver.server_close()
    assert "create      /posted" in said


def test_a_hub_that_is_gone_and_comes_back(team: Team) -> None:
    """A restart is told, a kill is noticed, looking goes on, and clients return by themselves."""
    assert team.hub.stop() == 0
    until(lambda: not team.is_connected(team.a) and not team.is_connected(team.b))
    assert "looking goes on" in team.lucid.run("status", team.a).stdout
    (team.a / "without").write_bytes(b"hub")
    until(shows(team.b / "without", b"hub"))
    team.hub.start()
    until(lambda: team.is_connected(team.a) and team.is_connected(team.b), 30.0)
    team.hub.stop(signal.SIGKILL)
    until(lambda: not team.is_connected(team.b))
    team.hub.start()
    until(lambda: team.is_connected(team.a) and team.is_connected(team.b), 30.0)
    (team.b / "again").write_bytes(b"there")
    until(shows(team.a / "again", b"there"))
