"""Every scenario in its smallest form, so that none rots: on the disk, some on real mounts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench import ProgramMissing
from bench import __main__ as bench
from bench.bed import CHUNK, TINY, Bed, Sizes
from bench.flames import Flames
from bench.peer import Place, program
from bench.peers import PEERS, Disk
from bench.report import load
from bench.scenarios import OURS, SCENARIOS, raw_reads, run
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

WRITES = {"sequential", "small", "copy", "untar", "git", "names", "sqlite", "fio"}
"""Scenarios with phases that write, which tell what is safe at the end."""

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")


class WrongDisk(Disk):
    """What is read cold is not what was written."""

    name = "wrong"

    def remount(self) -> None:
        super().remount()
        for path in self.mountpoint.rglob("*"):
            if path.is_file():
                path.write_bytes(bytes(path.stat().st_size))


def on_disk(kind: type[Disk], scenario: str, top: Path) -> Bed:
    bed = Bed(kind(Place(top, "", "", "", "")), TINY, os.urandom(CHUNK))
    try:
        SCENARIOS[scenario](bed)
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    return bed


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in OURS])
def test_on_the_plain_disk(scenario: str, tmp_path: Path) -> None:
    bed = on_disk(Disk, scenario, tmp_path)
    assert bed.figures
    for phase, figures in bed.figures.items():
        assert figures["s"] > 0, phase
        assert all(value >= 0 for value in figures.values()), phase
    assert bool(bed.durable) == (scenario in WRITES)


def test_reading_at_random_goes_on_for_its_time(tmp_path: Path) -> None:
    bed = on_disk(Disk, "random", tmp_path)
    sustained = bed.figures["4 KiB, one thread, cached, sustained"]
    count = round(sustained["per s"] * sustained["s"])
    assert TINY.reads < count <= TINY.large // 4096, "more than the first reads, no place twice"
    assert sustained["s"] >= TINY.sustained_s or count == TINY.large // 4096
    assert sustained["p50 ms"] <= sustained["p99 ms"]


def test_reading_in_order_tells_its_slowest_chunk(tmp_path: Path) -> None:
    cold = on_disk(Disk, "sequential", tmp_path).figures["read cold"]
    assert 0 < cold["p50 ms"] <= cold["p99 ms"] < cold["s"] * 1000


@pytest.mark.parametrize(("offset", "length"), [(0, 4096), (0, 4), (4, 8), (CHUNK - 9, 40)])
def test_a_byte_that_is_wrong_is_seen(offset: int, length: int, tmp_path: Path) -> None:
    bed = Bed(Disk(Place(tmp_path, "", "", "", "")), TINY, os.urandom(CHUNK))
    bed.write(tmp_path / "file", 2 * CHUNK)
    data = bytearray((tmp_path / "file").read_bytes()[offset : offset + length])
    bed.check(data, offset)
    bed.check(memoryview(data), offset)
    data[min(length, CHUNK - offset) - 1] ^= 1
    with pytest.raises(RuntimeError, match=f"were written at {offset}"):
        bed.check(data, offset)


@pytest.mark.parametrize("scenario", ["sequential", "interleaved", "editor", "random", "small"])
def test_wrong_bytes_are_no_result(scenario: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="wrong gave other bytes"):
        on_disk(WrongDisk, scenario, tmp_path)


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in OURS])
def test_on_a_mount_and_a_distant_store(scenario: str, s3_server: S3Server, tmp_path: Path) -> None:
    try:
        bed = run(s3_server, (5.0, 100.0), PEERS["lucid"], scenario, TINY, tmp_path)
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    asked = [figures["requests"] for figures in bed.figures.values() if "requests" in figures]
    assert any(asked) or (asked and scenario == "names"), "names wait for nothing there"
    assert bed.figures["all of it"]["cpu s"] > 0
    assert bed.figures["all of it"]["peak MiB"] > 20
    assert set(bed.durable.values()) <= set(PEERS["lucid"].durable)
    assert list(tmp_path.iterdir()) == []


@needs_gcc
@pytest.mark.mount
@pytest.mark.parametrize("scenario", sorted(OURS))
def test_what_only_this_drive_can_do(scenario: str, s3_server: S3Server, tmp_path: Path) -> None:
    bed = run(s3_server, (0.0, 0.0), PEERS["lucid"], scenario, TINY, tmp_path)
    pairs = {"mount": ("new device", "known device"), "computing": ("idle", "computing")}
    for how in pairs[scenario]:
        phases = [phase for phase in bed.figures if phase.endswith(f", {how}")]
        assert len(phases) >= 2 and all(bed.figures[phase]["s"] > 0 for phase in phases)
    assert list(tmp_path.iterdir()) == []


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("peer", [name for name in PEERS if name not in ("lucid", "disk")])
def test_on_a_peer(peer: str, s3_server: S3Server, tmp_path: Path) -> None:
    if why := PEERS[peer].why_not():
        pytest.skip(why)
    bed = run(s3_server, (0.0, 0.0), PEERS[peer], "small", TINY, tmp_path)
    assert bed.figures["read cold"]["per s"] > 0
    assert bed.figures["all of it"]["peak MiB"] > 1
    assert ("requests" in bed.figures["read cold"]) == PEERS[peer].uses_store


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("peer", [name for name in PEERS if name != "disk"])
def test_what_fails_leaves_nothing(
    peer: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mount, no process, no directory, no bucket; also while files are open."""
    if why := PEERS[peer].why_not():
        pytest.skip(why)
    pids: list[int] = []

    def fail(bed: Bed) -> None:
        pids.extend(bed.peer.pids())
        with (bed.top / "open").open("wb") as file:
            file.write(b"unsent")
            raise RuntimeError("It went wrong.")

    monkeypatch.setitem(SCENARIOS, "small", fail)
    with pytest.raises(RuntimeError, match=r"It went wrong\."):
        run(s3_server, (0.0, 0.0), PEERS[peer], "small", TINY, tmp_path)
    assert pids and not [pid for pid in pids if is_running(pid)]
    assert list(tmp_path.iterdir()) == []


def is_running(pid: int) -> bool:
    """Not one that has ended and that its parent has only not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
def test_a_profile(s3_server: S3Server, tmp_path: Path) -> None:
    if program("py-spy") is None:
        pytest.skip("py-spy is not installed")
    flames = Flames("small", tmp_path)
    run(s3_server, (0.0, 0.0), PEERS["lucid"], "small", TINY, tmp_path, flames.watch)
    made = flames.finish()
    if not made:
        pytest.skip("py-spy may not look into other processes here")
    assert all("</svg>" in path.read_text() for path in made)


@needs_gcc
def test_the_limit_of_the_store(s3_server: S3Server, tmp_path: Path) -> None:
    before = dict(os.environ)
    found = raw_reads(s3_server, (0.0, 0.0), TINY, tmp_path)
    assert found["read cold"]["MB/s"] > 0
    assert dict(os.environ) == before, "the keys of the store are gone"


def test_a_peer_that_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.peer.INSTALLED", tmp_path)
    monkeypatch.setattr("bench.peer.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    told = {name: peer.why_not() for name, peer in PEERS.items()}
    assert told.pop("lucid") == told.pop("disk") == ""
    assert told.pop("gocryptfs") == "gocryptfs is not installed: apt-get install gocryptfs"
    ours = "is not installed: ./build.sh bench peers --install"
    assert all(why.endswith(ours) for why in told.values())
    assert told["juicefs-writeback"].startswith("juicefs ")


@needs_gcc
def test_one_that_fails_is_told_of_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
    s3_server: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def same_server(folder: Path) -> Iterator[S3Server]:
        yield s3_server

    class Failing(Disk):
        def settle(self) -> None:
            raise ValueError("It went wrong.")

    monkeypatch.setattr(bench, "server", same_server)
    monkeypatch.setitem(PEERS, "failing", Failing)
    given = ["--tiny", "--round-trips", "0,5", "--directory", str(tmp_path), "small"]
    json = tmp_path / "kept.json"
    sentence = "Failed: small, failing, 0 ms: ValueError: It went wrong."
    with pytest.raises(SystemExit, match=f"not all could be measured\n{sentence}"):
        bench.main(["peers", "--peers", "failing,disk", "--json", str(json), *given])
    out = capsys.readouterr().out
    assert sentence in out
    (kept,) = load(json)
    assert (kept.peer, kept.round_trip_ms) == ("disk", 0.0), "it is measured once: it has no store"
    assert "| create, per s" in out


def test_tiny_is_what_was_not_given() -> None:
    def sizes(*given: str) -> tuple[Sizes, int]:
        asked = bench._peers_options(given)
        return bench._sizes(asked), asked.runs

    assert sizes() == (Sizes(), 5)
    assert sizes("--tiny") == (TINY, 1)
    given = sizes("--tiny", "--size-mib", "4", "--runs", "2", "--files", "7")
    assert given == (replace(TINY, large=4 << 20, files=7), 2)


@pytest.mark.parametrize("given", [["peers", "nothing"], ["peers", "--peers", "nobody"]])
def test_names_that_are_not_there(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(given)
    assert "there is no no" in capsys.readouterr().err


def test_the_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in (
        "peers",
        "compare",
        "table",
        "targets",
        "plot",
        "--profile",
        "--install",
        "--steps",
    ):
        assert verb in out
