"""`lucid bench`: what it measures, what it leaves behind, and whom it calls the limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lucid.cli.bench_verdict import Figure, judge, limits
from lucid.cli.main import main
from lucid.crypto import rates as crypto_rates
from lucid.data import store_rates
from lucid.errors import LocalError, StoreUnavailable
from lucid.local import rates as disk_rates
from lucid.local.disk import RealDisk
from lucid.store.memory import MemoryStore
from lucid.types import SystemClock, SystemEntropy
from tests.cli.conftest import Lucid, Team
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

OF_ALL = {"crypto": 4, "disk": 3, "network": 1, "store": 5, "mount": 6}
"""Part -> how many figures it has."""

MACHINE = {
    "crypto": {
        "seal aegis-256": 700e6, "open aegis-256": 4e9,
        "seal xchacha20-poly1305": 300e6, "open xchacha20-poly1305": 700e6,
    },
    "disk": {"write": 400e6, "read": 1000e6, "sync": 0.003},
}  # fmt: skip
STORE = {"answer": 0.02, "commit": 0.04, "get one": 40e6, "get": 150e6, "put": 90e6}
MOUNT = {
    "write": 390e6, "commit": 80e6, "cached": 900e6, "memory": 3e9, "create": 900.0,
    "read small": 2000.0,
}  # fmt: skip


def parts(found: dict[str, Any]) -> dict[str, int]:
    """Part -> the number of its figures; each with a value that something took time for."""
    assert all(figure["value"] > 0 for figure in found["figures"])
    assert {figure["verdict"] for figure in found["figures"]} <= {"good", "fair", "poor"}
    names = [figure["part"] for figure in found["figures"]]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def without(*names: str) -> dict[str, int]:
    return {name: figures for name, figures in OF_ALL.items() if name not in names}


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_only_this_machine(lucid: Lucid) -> None:
    found = lucid.json("bench", "--size", "2M")
    assert parts(found) == without("network", "store", "mount")
    assert [limit["job"] for limit in found["limits"]] == [
        "reading from the local cache",
        "writing to fsync",
    ]
    assert files_in(lucid.home) == []


def test_a_directory_as_store(lucid: Lucid, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    out = lucid.run("bench", f"file://{tmp_path}/store", "--size", "1M").stdout
    lines = out.splitlines()
    assert lines[0].split() == ["part", "what", "here", "typical"]
    assert sum(line.startswith("store ") for line in lines) == OF_ALL["store"]
    assert not any(line.startswith(("network", "mount")) for line in lines)
    assert "  writing until in the store:    the " in out
    assert files_in(tmp_path / "store") == []


def test_a_real_s3_server(
    lucid: Lucid, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = s3_server.make_bucket()
    found = lucid.json("bench", f"s3://{bucket}/drive", "--size", "1M")
    assert parts(found) == without("mount")
    client = s3_server.client()
    try:
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    finally:
        client.close()


@pytest.mark.mount
def test_a_mounted_drive(lucid: Lucid, team: Team) -> None:
    team.mount()
    inside = team.point / "reports"
    inside.mkdir()
    found = lucid.json("bench", inside, "--size", "2M")
    assert parts(found) == without("network")
    assert len(found["limits"]) == 4
    assert os.listdir(inside) == []
    status = lucid.json("status", team.point)
    assert status["bytes_sent"] >= 2 << 20, "it went through the drive"


@pytest.mark.parametrize(
    ("where", "status", "sentence"),
    [
        ("/", 20, "/ is not on a drive that you have mounted."),
        ("gopher://store", 2, "gopher://store is no store."),
        ("file:///nowhere/store", 6, "nowhere"),
    ],
)
def test_what_cannot_be_measured(lucid: Lucid, where: str, status: int, sentence: str) -> None:
    assert sentence in lucid.error(status, "bench", where, "--size", "1M")


def test_a_size_that_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--size", "1000"]) == 2
    assert "The size must be at least 1M." in capsys.readouterr().err


def test_a_store_that_fails_is_told_and_left_clean() -> None:
    class Failing(MemoryStore):
        def get_into(self, *arguments: Any, **named: Any) -> int:
            raise StoreUnavailable("The store has gone.")

    store = Failing()
    with pytest.raises(StoreUnavailable, match="has gone"):
        store_rates.measure(store, SystemClock(), SystemEntropy, piece=4096)
    assert list(store.list("")) == []


def test_the_stages_of_a_store_are_told_one_by_one() -> None:
    told: list[tuple[int, int]] = []
    store = MemoryStore()
    found = store_rates.measure(
        store, SystemClock(), SystemEntropy, 4096, lambda *at: told.append(at)
    )
    assert told == [(at, len(found)) for at in range(len(found))]
    assert found["put"] > 0 and store.counters.of("put").sent > 12 * 4096


def test_a_slow_stage_ends_in_time() -> None:
    """A store that takes four seconds for each call by its clock: it is not asked for all of it."""

    class SlowClock(SystemClock):
        now = 0.0

        def monotonic(self) -> float:
            self.now += 4.0
            return self.now

    store = MemoryStore()
    store_rates.measure(store, SlowClock(), SystemEntropy, 4096)
    assert store.counters.of("put").requests < 12


def test_a_disk_that_fails_is_told_and_left_clean(tmp_path: Path) -> None:
    class Failing(RealDisk):
        def fdatasync(self, fd: int) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(LocalError, match="measure the disk"):
        disk_rates.measure(Failing(), tmp_path, 1 << 20, SystemClock(), SystemEntropy)
    assert files_in(tmp_path) == []


def test_every_figure_that_is_measured_is_shown(tmp_path: Path) -> None:
    clock = SystemClock()
    disk = disk_rates.measure(RealDisk(), tmp_path, 1 << 20, clock, SystemEntropy)
    found = {
        "crypto": crypto_rates.measure(clock, rounds=1),
        "disk": disk,
        "store": store_rates.measure(MemoryStore(), clock, SystemEntropy, 4096),
    }
    shown = {(figure.part, figure.key) for figure in judge(found)}
    assert shown == {(part, key) for part, figures in found.items() for key in figures}


@pytest.mark.parametrize(
    ("value", "poor", "good", "verdict"),
    [
        (10e6, 20e6, 50e6, "poor"), (20e6, 20e6, 50e6, "fair"), (50e6, 20e6, 50e6, "good"),
        (0.2, 0.1, 0.02, "poor"), (0.1, 0.1, 0.02, "fair"), (0.02, 0.1, 0.02, "good"),
    ],
)  # fmt: skip
def test_a_verdict(value: float, poor: float, good: float, verdict: str) -> None:
    assert Figure("store", "get", "read", "B/s", value, poor, good).verdict == verdict


def test_how_a_figure_is_shown() -> None:
    assert Figure("disk", "sync", "", "s", 0.0031, 0.01, 0.002).shown == "3.1 ms"
    assert Figure("disk", "sync", "", "s", 0.0031, 0.01, 0.002).typical == "2.0 to 10 ms"
    assert Figure("mount", "create", "", "files/s", 1234.5, 200, 600).shown == "1,234 files/s"
    assert Figure("store", "get", "", "B/s", 2_500_000, 4e7, 2e8).shown == "2.5 MB/s"


def test_the_limit_is_the_slowest_part() -> None:
    found = {limit.job: limit for limit in limits({**MACHINE, "store": STORE, "mount": MOUNT})}
    assert {job: limit.part for job, limit in found.items()} == {
        "reading for the first time": "store",
        "reading from the local cache": "disk",
        "writing to fsync": "disk",
        "writing until in the store": "store",
    }
    assert found["reading for the first time"].rate == 150e6


def test_the_mount_is_the_limit_only_below_what_it_is_made_of() -> None:
    slow = {**MACHINE, "mount": {**MOUNT, "cached": 300e6, "write": 60e6}}
    assert [limit.part for limit in limits(slow)] == ["mount", "mount"]
    nearly = {**MACHINE, "mount": {**MOUNT, "cached": 950e6, "write": 390e6}}
    assert [limit.part for limit in limits(nearly)] == ["disk", "disk"]


def test_until_in_the_store_is_not_judged_by_the_rate_to_fsync() -> None:
    """What a drive takes to fsync says nothing of how fast it sends."""
    quick = {**MOUNT, "write": 60e6, "commit": 85e6}
    slow = {**MOUNT, "write": 390e6, "commit": 30e6}
    for mount, fsync, stored in (
        (quick, ("mount", 60e6), ("store", 85e6)),
        (slow, ("disk", 390e6), ("mount", 30e6)),
    ):
        found = limits({**MACHINE, "store": STORE, "mount": mount})
        by_job = {limit.job: (limit.part, limit.rate) for limit in found}
        assert by_job["writing to fsync"] == fsync
        assert by_job["writing until in the store"] == stored


@pytest.mark.parametrize(("one", "why"), [(140e6, "the line to it"), (40e6, "the distance")])
def test_what_a_slow_store_hangs_on(one: float, why: str) -> None:
    network = {"connect": 0.02}
    first = limits({**MACHINE, "network": network, "store": {**STORE, "get one": one}})[0]
    assert first.part == "store" and why in first.why


def test_without_aes_the_other_cipher_counts() -> None:
    slow = {**MACHINE["crypto"], "open aegis-256": 30e6, "seal aegis-256": 30e6}
    reading, writing = limits({**MACHINE, "crypto": slow})
    assert (reading.part, reading.rate) == ("crypto", 700e6)
    assert (writing.part, writing.rate) == ("crypto", 300e6)


def test_what_comes_from_afar_is_not_called_faster_than_what_is_here() -> None:
    """A store in a directory of this machine answers faster than a disk whose cache is dropped."""
    near = STORE | {"get one": 1500e6, "get": 3000e6}
    slow = MOUNT | {"cached": 450e6}
    disk = MACHINE["disk"] | {"read": 500e6}
    found = limits(MACHINE | {"disk": disk, "store": near, "mount": slow})
    first, again = found[:2]
    assert (first.job, again.job) == ("reading for the first time", "reading from the local cache")
    assert first.rate <= again.rate
    assert first.part == again.part == "disk"


def test_no_limit_is_below_what_the_mount_reached() -> None:
    """A disk that gives less alone than with a drive over it was measured at a bad moment."""
    mount = MOUNT | {"cached": 900e6, "write": 700e6}
    found = {limit.job: limit for limit in limits({**MACHINE, "mount": mount})}
    assert found["reading from the local cache"].rate == 900e6
    assert found["writing to fsync"].rate == 700e6


def test_a_directory_is_not_judged_as_a_store_far_away() -> None:
    """A byte of a disk in 5 ms is no good answer, and a rate of it hangs on no connections."""
    store = {**STORE, "answer": 0.005, "get": 150e6, "get one": 140e6}
    verdicts = {figure.key: figure.verdict for figure in judge({**MACHINE, "store": store})}
    assert (verdicts["answer"], verdicts["get"]) == ("fair", "poor")
    far = {**MACHINE, "store": store, "network": {"connect": 0.02}}
    verdicts = {figure.key: figure.verdict for figure in judge(far)}
    assert (verdicts["answer"], verdicts["get"]) == ("good", "fair")
    slow = {**store, "get": 1e6, "get one": 1e6}
    assert "connections" in limits({**far, "store": slow})[0].why
    assert "a directory" in limits({**MACHINE, "store": slow})[0].why
    quick = {**store, "get": 9e9, "get one": 9e9}
    first, again = limits({**MACHINE, "store": quick})[:2]
    assert (first.part, first.rate) == (again.part, again.rate) == ("disk", MACHINE["disk"]["read"])
