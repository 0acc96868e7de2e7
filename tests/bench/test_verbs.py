"""Verbs of `./build.sh bench` that measure a real drive, each in its smallest form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.peer import LOOK_S
from bench.together import PARTS
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

STEPS = {
    "sequential": (["--size-mib", "2"], "read cold MB/s"),
    "small": (["--files", "12"], "read cold files/s"),
}


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_steps(name: str, s3_server: S3Server, tmp_path: Path) -> None:
    sizes, figure = STEPS[name]
    path = tmp_path / "found.json"
    options = ["--runs", "1", "--directory", str(tmp_path), "--json", str(path)]
    bench.main(["--steps", name, *sizes, *options])
    found = json.loads(path.read_text())
    assert set(found) == {name}
    assert len(found[name][figure]) == 1
    assert found[name][figure][0] > 0


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
        (["peers", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (["micro", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (["--steps", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
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


@pytest.mark.mount
@pytest.mark.slow
def test_who_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    given = ["peers", "small", "--peers", "lucid", "--round-trips", "0", "--files", "100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *given, "--directory", str(tmp_path)],
        cwd=Path(bench.__file__).resolve().parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        # No event tells of a mount that another process makes.
        for _ in range(6000):
            if str(tmp_path) in Path("/proc/mounts").read_text() or running.poll() is not None:
                break
            time.sleep(LOOK_S)
        running.send_signal(signal.SIGTERM)
        assert running.wait(120) == 128 + signal.SIGTERM
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert os.listdir(tmp_path) == []
