"""What machines do together, measured in its smallest form."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import together
from bench.contention import contest
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("with_hub", [True, False])
def test_visibility(with_hub: bool, s3_server: S3Server, tmp_path: Path) -> None:
    figures = together.visibility(s3_server, (2.0, 100.0), with_hub, 6, tmp_path)
    assert figures["n"] == 6
    assert 0 < figures["p50 ms"] <= figures["p99 ms"] <= figures["max ms"]


@needs_gcc
@pytest.mark.mount
@pytest.mark.slow
def test_four_machines_fill_one_directory(s3_server: S3Server, tmp_path: Path) -> None:
    """S-33, S-41: it raises if a machine lacks a name, has one more, or reads other bytes."""
    figures = together.crowd(s3_server, (0.0, 0.0), 4, 60, tmp_path)
    assert figures["files"] == 240
    assert figures["seen by all after s"] > 0


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
