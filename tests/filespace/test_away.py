"""While the store is away, hangs, or is another one: what a device that knows it does (S-46, S-54),
and what status says of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lucid.config import Config
from lucid.errors import BucketMissing, HistoryFork
from lucid.filespace import Filespace, connect, init
from lucid.filespace.surface import Status
from lucid.store.base import ObjectStore, StoreLayer
from lucid.store.faulty import Fault, FaultPlan
from lucid.types import SystemClock
from tests.contract.scripted_server import ScriptedServer
from tests.filespace.spaces import BLOCK, PASSPHRASE, QUICK, STRETCH, WAIT_S, Space, open_on

LOOK_S = 10.0
"""More than the short look and the stretching of a passphrase take on a busy machine, and less than
one try of an ordinary request to a store that hangs."""


def status_when(fs: Filespace, is_so: Callable[[Status], bool]) -> Status:
    """The first status of which that is true."""
    clock, pause = SystemClock(), threading.Event()
    until = clock.monotonic() + WAIT_S
    while not is_so(status := fs.status()):
        assert clock.monotonic() < until, status
        pause.wait(0.02)
    return status


class Disk:
    """A filespace in a directory of a disk that can be taken away."""

    def __init__(self, root: Path) -> None:
        self.mounted, self.away = root / "disk", root / "away"
        self.mounted.mkdir()
        self.url = f"file://{self.mounted}/store"
        init(self.url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH)

    def open(self, state: Path | None = None, url: str = "") -> Filespace:
        config = Config(**{**QUICK, "state_dir": state})
        return connect(url or self.url, passphrase=PASSPHRASE, config=config)

    def take(self) -> None:
        self.mounted.rename(self.away)

    def bring_back(self) -> None:
        self.away.rename(self.mounted)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.mark.parametrize("state", ["the usual one", "one of its own"])
def test_a_known_device_opens_while_the_directory_is_gone(
    disk: Disk, tmp_path: Path, state: str
) -> None:
    """S-46: and goes online by itself when it is back."""
    place = None if state == "the usual one" else tmp_path / "state"
    with disk.open(place) as fs:
        fs.write_bytes("/file", b"known")
    disk.take()
    with disk.open(place) as fs:
        status = fs.status()
        assert not status.online
        assert f"{disk.mounted}/store" in status.problem
        assert fs.read_bytes("/file") == b"known"
        fs.write_bytes("/offline", b"made")
        disk.bring_back()
        fs.sync(timeout=WAIT_S)
        status = status_when(fs, lambda status: status.online)
        assert status.problem == ""
        assert status.freshness.startswith("proven")
    with disk.open(tmp_path / "new") as other:
        assert other.read_bytes("/offline") == b"made"


def test_only_a_known_device_does(disk: Disk, tmp_path: Path) -> None:
    """S-46: neither a new one, nor one that has never been at this address."""
    with disk.open(tmp_path / "state"):
        pass
    with pytest.raises(BucketMissing):
        disk.open(tmp_path / "state", f"file://{tmp_path}/slip/of/the/pen")
    disk.take()
    with pytest.raises(BucketMissing):
        disk.open(tmp_path / "new")
    with disk.open(tmp_path / "state") as fs:
        assert not fs.status().online


def test_a_store_that_comes_back_older(space: Space) -> None:
    """S-54: what was not compared at the open is compared when the store is there again."""
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"bytes")
    older = [key for key in space.bucket.keys if key.startswith("log/")][:-1]
    plan = FaultPlan()
    plan.die()
    fs = space.connect("a", plan=plan)
    assert fs.status().freshness.startswith("unproven")
    space.bucket.keys = [key for key in space.bucket.keys if not key.startswith("log/")] + older
    space.bucket.keys.sort()
    space.bucket.objects = {key: space.bucket.objects[key] for key in space.bucket.keys}
    before = dict(space.bucket.objects)
    plan.revive()
    status = status_when(fs, lambda status: "rolled back" in status.problem)
    assert status.freshness.startswith("unproven")
    with pytest.raises(HistoryFork):
        fs.write_bytes("/more", b"bytes")
    fs.close(wait=False)
    assert space.bucket.objects == before


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = ScriptedServer()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": made.endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def test_a_hung_bucket_delays_a_known_device_for_seconds(
    server: ScriptedServer, space: Space, tmp_path: Path
) -> None:
    """S-46"""
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"known")
    config = Config(**{**QUICK, "state_dir": space.state("a")})
    server.script(*["hang"] * 50)
    clock = SystemClock()
    began = clock.monotonic()
    fs = connect("s3://bucket/team", passphrase=PASSPHRASE, config=config)
    took_s = clock.monotonic() - began
    assert fs.read_bytes("/file") == b"known"
    status = fs.status()
    assert (status.online, status.last_answer_age_s) == (False, None)
    assert server.endpoint.removeprefix("http://") in status.problem
    fs.close(wait=False)
    assert took_s < LOOK_S


def test_status_says_since_when_the_store_hangs(space: Space) -> None:
    """S-48: without the name of an object."""
    plan = FaultPlan()
    fs = space.connect("a", plan=plan)
    fs.sync(timeout=WAIT_S)
    status = fs.status()
    assert status.online
    assert status.last_answer_age_s is not None
    assert status.last_answer_age_s < WAIT_S
    plan.script("get", [Fault.PAUSE] * 1000)
    assert plan.hanging.acquire(timeout=WAIT_S)
    status = status_when(fs, lambda status: not status.online)
    assert status.last_answer_age_s is not None
    assert status.last_answer_age_s >= 3.0
    assert status.problem == f"The store has not answered for {status.problem.split()[-2]} s."
    plan.release()
    status = status_when(fs, lambda status: status.online)
    assert status.problem == ""
    fs.close()


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.LOSE_ANSWER, Fault.BUSY, "dead"])
def test_a_problem_names_no_object(space: Space, fault: Fault | str) -> None:
    plan = FaultPlan()
    fs = space.connect("a", plan=plan)
    if isinstance(fault, Fault):
        for method in ("get", "put"):
            plan.script(method, [fault] * 1000)
    else:
        plan.die()
    fs.write_bytes("/file", bytes(range(256)) * 1000)
    status = status_when(fs, lambda status: bool(status.problem))
    assert "log/" not in status.problem
    assert "data/" not in status.problem
    assert "\n" not in status.problem
    fs.close(wait=False)


def test_the_age_of_the_newest_entry_is_known_at_once(space: Space) -> None:
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"bytes")
    began = SystemClock().time_ns()
    with space.connect("a") as fs:
        age_s = fs.status().newest_entry_age_s
        assert age_s is not None
        assert 0 <= age_s < WAIT_S + (SystemClock().time_ns() - began) / 1e9
    dead = FaultPlan()
    dead.die()
    fs = space.connect("a", plan=dead)
    assert fs.status().newest_entry_age_s is not None, "also without the store"
    fs.close(wait=False)
    with space.connect("new", read_only=True) as fs:
        assert fs.status().newest_entry_age_s is not None, "also on a device that only reads"


class HangsUntilClosed(StoreLayer):
    """A store that, once it hangs, answers nobody before it is closed."""

    def __init__(self, inner: ObjectStore, plan: FaultPlan) -> None:
        super().__init__(inner)
        self.plan = plan
        self.closed = threading.Event()

    def over(self, inner: ObjectStore) -> ObjectStore:
        return self

    def close(self) -> None:
        self.closed.set()
        super().close()


def test_closing_without_waiting_waits_for_no_request(space: Space) -> None:
    """S-28: the threads that hang on the store are let go first."""
    plan = FaultPlan(hang_s=10 * WAIT_S)
    store = HangsUntilClosed(space.store("a", plan), plan)
    fs = open_on(store, space.state("a"))
    plan.script("get", [Fault.HANG] * 1000)
    assert plan.hanging.acquire(timeout=WAIT_S)
    closer = threading.Thread(target=lambda: fs.close(wait=False), daemon=True)
    closer.start()
    in_time = store.closed.wait(WAIT_S)
    plan.stop()
    closer.join(WAIT_S)
    assert in_time
    assert not closer.is_alive()
