"""Pictures are drawn of whatever results there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.peers import PEERS
from bench.report import WITHOUT_STORE, Result, save


def results() -> list[Result]:
    made = [Result("sequential", peer, far, 0.0) for far in (0.0, 20.0) for peer in ("lucid", "x")]
    for one in made:
        for factor in (1.0, 2.0):
            one.add({"read cold": {"MB/s": 10 * factor, "s": 1.0}, "made": {"s": factor}}, {})
            one.add({"all of it": {"peak MiB": 90.0}, "nothing": {"odd": 1.0}}, {})
    made.append(Result("sequential", "gocryptfs", 0.0, 0.0, {"made": {"s": [0.0]}}))
    made.append(Result("empty", "lucid", 0.0, 0.0))
    return made


def shown(folder: Path, results: list[Result]) -> str:
    """What the only picture of these says, as text."""
    plots = pytest.importorskip("bench.plots")
    (path,) = plots.draw(results, folder, "svg")
    # matplotlib keeps the words of what it draws as comments.
    return "\n".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


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


def test_parts_alone_are_drawn_too(tmp_path: Path) -> None:
    micro = Result("micro", "lucid", 0.0, 0.0, {"addressing": {"us": [0.2, 0.4]}})
    assert {"addressing", "us (less is better)"} <= set(shown(tmp_path, [micro]).splitlines())


def test_a_mount_is_drawn_in_seconds_and_the_first_byte_on_its_own(tmp_path: Path) -> None:
    made = Result("mount", "lucid", 0.0, 0.0)
    made.add({"mount, new device": {"per s": 500.0, "s": 2.5}}, {})
    made.add({"read cold": {"MB/s": 100.0, "s": 1.0, "first byte ms": 36.5}}, {})
    words = shown(tmp_path, [made]).splitlines()
    assert {"2.5", "36.5", "read cold, first byte"} <= set(words) and "500" not in words


def test_a_local_disk_does_not_hide_the_others(tmp_path: Path) -> None:
    rates = {"lucid": 30.0, "rclone": 20.0, "gocryptfs": 40.0, "disk": 6000.0}
    made = [
        Result("sequential", peer, 20.0, 0.0, {"read cold": {"MB/s": [rate]}})
        for peer, rate in rates.items()
    ]
    words = shown(tmp_path, made).splitlines()
    assert {"30", "20", "40", "6,000, cut"} <= set(words), "cut, and told"
    assert all(float(word) < 100 for word in words if word.isdecimal()), "the axis ends before"


def test_what_has_no_store_is_known() -> None:
    assert set(WITHOUT_STORE) == {name for name, peer in PEERS.items() if not peer.uses_store}


def test_nothing_to_draw_is_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save(tmp_path / "a.json", [], [])
    with pytest.raises(SystemExit, match="no results to draw"):
        bench.main(["plot", str(tmp_path / "a.json")])
