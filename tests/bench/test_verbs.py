"""Verbs of `./build.sh bench` that measure a real drive, each in its smallest form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as bench
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
