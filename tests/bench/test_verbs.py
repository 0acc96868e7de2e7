"""Verbs of `./build.sh bench` that measure a real drive, each in its smallest form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import flames, suite
from bench.peer import LOOK_S, Place
from bench.peers import Disk
from bench.report import Result, load, save
from bench.scenarios import SCENARIOS
from bench.together import PARTS
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

STEPS = {
    "sequential": ("read cold", "MB/s"),
    "small": ("read cold", "files/s"),
    "recover": ("mount after kill -9, store away", "s"),
    "copy": ("all of it", "peak MiB, copied out and in"),
    "replica": ("from the checkpoint", "s"),
    "gc": ("with --delete", "s"),
}
"""Each with a figure that it must have."""


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("name", [*suite.SCENARIOS, *suite.LARGE])
def test_steps(
    name: str,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def same_server(top: Path) -> Iterator[tuple[str, dict[str, str]]]:
        yield f"s3://{s3_server.make_bucket()}/bench", s3_server.environment()

    monkeypatch.setattr(suite, "seaweed", same_server)
    path = tmp_path / "found.json"
    bench.main(["--steps", name, "--tiny", "--directory", str(tmp_path), "--json", str(path)])
    document = json.loads(path.read_text())
    assert document["machine"]["cores"] >= 1 and document["version"]
    assert document["command"].startswith(f"./build.sh bench --steps {name} --tiny")
    (kept,) = load(path)
    phase, unit = STEPS[name]
    assert kept.scenario == name
    assert len(kept.figures[phase][unit]) == 1 and kept.figures[phase][unit][0] > 0
    assert f"{name}, 1 run" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["found.json"]


def test_the_help_names_every_scenario_and_each_has_a_test(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """test_steps, test_scenarios, test_together and test_micro take theirs from the registries;
    what STEPS does not know fails there, and is told here."""
    bench.main(["--help"])
    steps = {*suite.SCENARIOS, *suite.LARGE}
    named = capsys.readouterr().out.partition("alone, in steps: ")[2].partition(". See")[0]
    assert {name.strip() for name in named.split(",")} == steps == set(STEPS)
    for verb, names in {"peers": SCENARIOS, "together": PARTS, "--steps": steps}.items():
        with pytest.raises(SystemExit):
            bench.main([verb, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert not [name for name in names if name not in shown], verb


@pytest.mark.parametrize("verb", ["together", "--steps"])
def test_what_can_be_named_is_told(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.main([verb, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (PARTS if verb == "together" else STEPS))


def test_a_part_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["together", "nothing"])
    assert "there is no nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["peers", "--round-trips", "near"], "these are milliseconds"),
        (["peers", "--round-trips", "0,-1"], "these are milliseconds"),
        (["together", "--round-trips", "20,"], "these are milliseconds"),
        (["peers", "--runs", "0"], "at least 1"),
        (["peers", "--size-mib", "0"], "at least 1"),
        (["peers", "--files", "few"], "few: it must be a number"),
        (["together", "--rounds", "0"], "at least 1"),
        (["--steps", "--size-mib", "-1"], "at least 1"),
        (["peers", "--directory", "/nowhere"], "cannot work in /nowhere"),
        (["together", "--directory", "/nowhere"], "cannot work in /nowhere"),
        (["--steps", "--directory", "/nowhere"], "cannot work in /nowhere"),
        (["micro", "addressing", "nothing"], "there is no nothing"),
        (["peers", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (["micro", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (["--steps", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (["together", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (["--steps", "--runs", "0"], "at least 1"),
        (["small", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_measured(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.main(given)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_a_verb_that_is_not_there() -> None:
    with pytest.raises(SystemExit, match="there is no compre; see: "):
        bench.main(["compre"])


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """As `head` has: no traceback."""
    path = tmp_path / "a.json"
    save(path, [Result("small", "lucid", 0.0, 0.0, {"read": {"s": [1.0]}})], [])
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench", "table", str(path)],
            cwd=Path(bench.__file__).resolve().parents[1],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=120,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@contextmanager
def no_server(folder: Path) -> Iterator[None]:
    yield None


def test_each_peer_that_is_left_out_has_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "server", no_server)
    monkeypatch.setattr("bench.peers.program", lambda name: None)
    with pytest.raises(SystemExit, match="nothing was measured"):
        bench.main(["peers", "small", "--peers", "juicefs,juicefs-writeback", "--tiny"])
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out")]
    assert [line.split(": ")[1] for line in told] == [
        "juicefs",
        "juicefs-writeback",
    ]


def test_a_profile_of_which_nothing_came_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\necho It may not look. >&2\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setattr(flames, "program", lambda name: str(spy))
    monkeypatch.setattr(bench, "server", no_server)
    monkeypatch.setattr(bench, "run", lambda *given: given[-1](Disk(Place(tmp_path, *4 * [""]))))
    monkeypatch.setattr(Disk, "pids", lambda self: [os.getpid()])
    folder = tmp_path / "not" / "there"
    with pytest.raises(SystemExit, match=r"py-spy has drawn nothing: It may not look\."):
        bench.main(["--profile", "small", "--tiny", "--output", str(folder)])
    assert os.listdir(folder) == ["py-spy.log"]


LONG_PEERS = ["peers", "small", "--peers", "lucid", "--round-trips", "0", "--files", "100000"]
LONG_STEPS = ["--steps", "small", "--files", "100000"]


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("is_all", [False, True], ids=["it", "all"])
@pytest.mark.parametrize("given", [LONG_PEERS, LONG_STEPS], ids=["peers", "steps"])
def test_who_is_told_to_end_leaves_nothing_behind(
    tmp_path: Path, given: list[str], is_all: bool
) -> None:
    """`is_all`: the signal is for the store and the drive's commands too, as that of `timeout`."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *given, "--directory", str(tmp_path)],
        cwd=Path(bench.__file__).resolve().parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        # No event tells of a mount that another process makes.
        for _ in range(6000):
            if str(tmp_path) in Path("/proc/mounts").read_text() or running.poll() is not None:
                break
            time.sleep(LOOK_S)
        if is_all:
            os.killpg(running.pid, signal.SIGTERM)
        else:
            running.send_signal(signal.SIGTERM)
        assert running.wait(120) == 128 + signal.SIGTERM
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert os.listdir(tmp_path) == []
