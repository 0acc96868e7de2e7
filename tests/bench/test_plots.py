"""Pictures are drawn of whatever results there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.report import Result, save


def results() -> list[Result]:
    made = [Result("sequential", peer, far, 0.0) for far in (0.0, 20.0) for peer in ("lucid", "x")]
    for one in made:
        for factor in (1.0, 2.0):
            one.add({"read cold": {"MB/s": 10 * factor, "s": 1.0}, "made": {"s": factor}}, {})
            one.add({"all of it": {"peak MiB": 90.0}, "nothing": {"odd": 1.0}}, {})
    made.append(Result("sequential", "gocryptfs", 0.0, 0.0, {"made": {"s": [0.0]}}))
    made.append(Result("empty", "lucid", 0.0, 0.0))
    return made


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture_of_each_scenario_and_distance(
    kind: str, magic: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    save(tmp_path / "a.json", results(), [])
    folder = tmp_path / "plots"
    options = ["--output", str(folder), "--format", kind]
    assert bench.main(["plot", str(tmp_path / "a.json"), *options]) == 0
    made = [
        folder / f"{name}.{kind}" for name in ("sequential-0ms", "sequential-20ms", "empty-0ms")
    ]
    assert capsys.readouterr().out.split() == [str(path) for path in made]
    assert all(path.read_bytes().startswith(magic) for path in made)
    if kind == "svg":
        assert "gocryptfs" not in made[2].read_text()
