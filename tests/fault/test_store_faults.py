"""Faults of a store that last, or come one by one: an outage of ten minutes, credentials that
expire and come back, answers that are cut, lists that lag (S-43, S-48). All recovers by itself."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from lucid.config import Config
from lucid.errors import StoreDenied
from lucid.filespace import Filespace, connect, init
from lucid.filespace.surface import Status
from lucid.store.faulty import Fault, FaultPlan
from lucid.types import SystemClock
from tests.filespace.spaces import BLOCK, PASSPHRASE, QUICK, STRETCH, WAIT_S, Space, some_bytes
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

TEN_MINUTES_S = 600.0


class Ahead(SystemClock):
    """A clock that goes as the machine's does, from wherever it is set to."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    def time_ns(self) -> int:
        return super().time_ns() + int(self.ahead_s * 1e9)


def status_when(fs: Filespace, is_so: Callable[[Status], bool]) -> Status:
    """The first status of which that is true."""
    clock, pause = SystemClock(), threading.Event()
    until = clock.monotonic() + WAIT_S
    while not is_so(status := fs.status()):
        assert clock.monotonic() < until, status
        pause.wait(0.02)
    return status


def test_an_outage_of_ten_minutes(space: Space) -> None:
    """S-43: what was written meanwhile is sent when it is over, without anybody's doing."""
    clock = Ahead()
    with space.connect("a", clock=clock) as fs:
        fs.write_bytes("/before", some_bytes(1, BLOCK))
        fs.sync(timeout=WAIT_S)
        space.plans["a"].die()
        status_when(fs, lambda status: not status.online)
        for minute in range(10):
            clock.ahead_s += TEN_MINUTES_S / 10
            fs.write_bytes(f"/minute {minute}", some_bytes(minute, 3000))
            assert fs.read_bytes("/before") == some_bytes(1, BLOCK)
        status = fs.status()
        assert status.last_answer_age_s is not None
        assert TEN_MINUTES_S <= status.last_answer_age_s < TEN_MINUTES_S + WAIT_S
        assert status.problem
        assert status.pending_ops == 10
        space.plans["a"].revive()
        status = status_when(fs, lambda status: status.online and not status.pending_ops)
        assert status.problem == ""
        with space.connect("b") as other:
            for minute in range(10):
                assert other.read_bytes(f"/minute {minute}") == some_bytes(minute, 3000)


@pytest.mark.parametrize("seed", range(3))
def test_cut_answers_and_lists_that_lag(space: Space, seed: int) -> None:
    """Each tenth body is reset in its middle, each tenth call refused, each tenth list old."""
    rates = {Fault.RESET: 0.1, Fault.REFUSE: 0.1, Fault.STALE_LIST: 0.1}
    with space.connect("maker") as maker:
        maker.write_bytes("/far", some_bytes(9, 40 * BLOCK))
    machines = []
    for name in ("a", "b"):
        plan = FaultPlan()
        machines.append(space.connect(name, plan=plan, read_timeout_s=5.0))
        plan.entropy, plan.rates = Random(f"{seed}{name}").randbytes, rates
    want = {}
    for number in range(16):
        fs = machines[number % 2]
        want[f"/f{number}"] = some_bytes(number, 100 + number * 997)
        fs.write_bytes(f"/f{number}", want[f"/f{number}"])
        if number % 4 == 3:
            fs.sync(timeout=WAIT_S)
    for name in ("a", "b"):
        space.plans[name].rates = {}
    for fs in machines:
        fs.sync(timeout=WAIT_S)
    for fs in machines:
        assert fs.refresh(WAIT_S)
        assert {path: fs.read_bytes(path) for path in want} == want
        assert fs.read_bytes("/far") == some_bytes(9, 40 * BLOCK)
        assert fs.status().problem == ""
    happened = {fault for name in ("a", "b") for _, _, fault in space.plans[name].happened}
    assert {Fault.RESET, Fault.REFUSE} <= happened


@pytest.mark.parametrize(
    ("prefix", "fault"),
    [
        ("log/", Fault.TRUNCATE),
        ("log/", Fault.WRONG_BYTES),
        ("log/", Fault.RESET),
        ("log/", Fault.VANISH),
        ("data/", Fault.WRONG_BYTES),
    ],
)
def test_one_bad_answer_is_asked_again(space: Space, prefix: str, fault: Fault) -> None:
    """S-44 and S-52: nobody notices."""
    with space.connect("maker") as maker:
        maker.write_bytes("/file", some_bytes(1, 3 * BLOCK))
    plan = FaultPlan()
    with space.connect("a", plan=plan) as fs:
        plan.script("get", [fault], prefix=prefix)
        with space.connect("maker") as maker:
            maker.write_bytes("/more", b"more")
        assert fs.refresh(WAIT_S) or fs.refresh(WAIT_S)
        status_when(fs, lambda status: fs.exists("/more"))
        assert fs.read_bytes("/file") == some_bytes(1, 3 * BLOCK)
        status = status_when(fs, lambda status: status.online)
        assert (status.void_entries, status.problem, status.failed) == (0, "", ())
    assert [told for _, _, told in plan.happened] == [fault]


GIVER = """
import datetime, json, pathlib, sys
mode = pathlib.Path(sys.argv[1]).read_text()
if mode == "gone":
    sys.exit("the login has expired")
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
keys = json.loads(pathlib.Path(sys.argv[2]).read_text())
if mode == "refused":
    keys["SecretAccessKey"] = "of yesterday"
print(json.dumps({"Version": 1, "Expiration": until.isoformat(), **keys}))
"""
"""Gives credentials for five minutes: so near their end botocore asks for others each time."""


class Login:
    """Credentials of a profile, as a program gives them: good, refused, or gone."""

    def __init__(self, root: Path, server: S3Server, patch: pytest.MonkeyPatch) -> None:
        self._mode = root / "mode"
        giver, keys, config = root / "giver.py", root / "keys", root / "config"
        giver.write_text(GIVER)
        keys.write_text(
            json.dumps({"AccessKeyId": server.access_key, "SecretAccessKey": server.secret_key})
        )
        config.write_text(
            "[profile drive]\nregion = us-east-1\n"
            f"credential_process = {sys.executable} {giver} {self._mode} {keys}\n"
        )
        patch.setenv("AWS_CONFIG_FILE", str(config))
        self.url = (
            f"s3://{server.make_bucket()}/team?endpoint={server.endpoint}&profile=drive"
            "&addressing=path"
        )
        self.be("good")

    def be(self, mode: str) -> None:
        self._mode.write_text(mode)


@pytest.fixture
def login(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    made = Login(tmp_path, s3_server, monkeypatch)
    init(made.url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH)
    yield made


@pytest.mark.parametrize("mode", ["refused", "gone"])
def test_credentials_that_expire_and_come_back(login: Login, tmp_path: Path, mode: str) -> None:
    """S-43: writes wait, status says why in one line, and all goes on by itself."""

    def device(name: str) -> Filespace:
        config = Config(**{**QUICK, "state_dir": tmp_path / name, "read_timeout_s": 2.0})
        return connect(login.url, passphrase=PASSPHRASE, config=config)

    said = "secret key" if mode == "refused" else "Log in again"
    with device("a") as fs, device("b") as other:
        fs.write_bytes("/before", some_bytes(1, BLOCK))
        fs.sync(timeout=WAIT_S)
        assert other.refresh(WAIT_S)
        login.be(mode)
        fs.write_bytes("/meanwhile", some_bytes(2, BLOCK))
        status = status_when(fs, lambda status: said in status.problem)
        assert "\n" not in status.problem
        assert fs.read_bytes("/meanwhile") == some_bytes(2, BLOCK)
        with pytest.raises(StoreDenied, match=said):
            other.read_bytes("/before")
        login.be("good")
        status = status_when(fs, lambda status: status.online and not status.pending_ops)
        assert status.problem == ""
        assert other.read_bytes("/before") == some_bytes(1, BLOCK)
        status_when(other, lambda status: other.exists("/meanwhile"))
        assert other.read_bytes("/meanwhile") == some_bytes(2, BLOCK)
