"""What machines do together, measured in its smallest form."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import together
from bench.contention import contest
from bench.report import load
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")


PHASES = {
    "visibility": ["with a hub", "by polling"],
    "contention": ["1 device", "3 devices, one of them ten times as far away"],
    "crowd": ["60 files of each of 4 machines"],
    "locks": ["with a hub", "by polling"],
}


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("part", together.PARTS)
def test_each_part(
    part: str,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """S-33, S-41: a crowd raises if a machine lacks a name, has one more, or reads other bytes;
    a lock's turns raise if the counter under it misses one."""

    @contextmanager
    def same_server(folder: Path) -> Iterator[S3Server]:
        yield s3_server

    monkeypatch.setattr(together, "server", same_server)
    path = tmp_path / "found.json"
    options = ["--round-trips", "2", "--directory", str(tmp_path), "--json", str(path)]
    bench.main(["together", part, "--tiny", *options])
    document = json.loads(path.read_text())
    assert document["machine"]["cores"] >= 1 and document["command"].endswith(str(path))
    (kept,) = load(path)
    assert kept.scenario == part and list(kept.figures) == PHASES[part]
    for figures in kept.figures.values():
        assert all(len(values) == 1 for values in figures.values())
        found = {name: values[0] for name, values in figures.items()}
        if part in ("visibility", "locks"):
            assert found["n"] == 4
            assert 0 < found["p50 ms"] <= found["p99 ms"] <= found["max ms"]
        if part == "crowd":
            assert found["files"] == 240 and found["seen by all after s"] > 0
    out = capsys.readouterr().out
    assert all(how in out for how in PHASES[part])
    assert max(map(len, out.splitlines())) <= 100
    assert os.listdir(tmp_path) == ["found.json"]


def test_a_crowd_that_lost_a_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for number in range(2):
        (tmp_path / "all" / f"0-{number}").write_bytes(b"0 %d" % number)
    together._check_crowd([tmp_path], 1, 2)
    with pytest.raises(RuntimeError, match="missing"):
        together._check_crowd([tmp_path], 1, 3)
    (tmp_path / "all" / "0-1").write_bytes(b"0 0")
    with pytest.raises(RuntimeError, match="other bytes"):
        together._check_crowd([tmp_path], 1, 2)


def test_devices_contend() -> None:
    found = contest(3, 1.5, 0.005, far=True)
    figures = found.figures()
    assert len(found.commits) == len(found.streaks) == 3
    assert sum(found.commits) > 3
    assert figures["commits/s"] > 0
    assert figures["longest losing streak"] >= figures["streak of the last device"]
