"""What is kept of measurements, and what comparing two of them says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.report import Result, compare, load, ratio_lines, save, table


def result(rate: float = 100.0, p99: float = 4.0, peer: str = "lucid") -> Result:
    made = Result("random", peer, 20.0, 100.0)
    for factor in (0.5, 1.0, 2.0):
        phase = {"MB/s": rate * factor, "s": 1.0, "p99 ms": p99}
        made.add({"4 KiB, cold": phase}, {"4 KiB, cold": "loss of power"})
    return made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    save(path, [result()], ["./build.sh", "bench"])
    assert load(path) == [result()]
    kept = json.loads(path.read_text())
    assert kept["command"] == "./build.sh bench"
    assert kept["machine"]["cores"] >= 1 and kept["version"]


@pytest.mark.parametrize("text", ["", "[]", '{"results": [{"speed": 1}]}'])
def test_a_file_without_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SystemExit, match="holds no results"):
        load(tmp_path / "a.json")


def test_ratios_are_of_medians_and_say_which_way(tmp_path: Path) -> None:
    ratios = compare([result(100, 4.0)], [result(150, 8.0)])
    assert {key[4]: ratio for key, ratio in ratios.items()} == {
        "MB/s": 1.5,
        "s": 1.0,
        "p99 ms": 2.0,
    }
    lines = list(ratio_lines(ratios))
    assert [line.split()[-1] for line in lines] == ["better", "1.00", "worse"]


def test_only_what_both_have_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, other = (tmp_path / name for name in ("old.json", "new.json", "other.json"))
    save(old, [result(), result(peer="juicefs")], ["the command of old"])
    save(new, [result(50)], [])
    save(other, [result(peer="rclone")], [])
    assert bench.main(["compare", str(old), str(new)]) == 0
    out = capsys.readouterr().out
    assert "random, lucid, 20 ms: 4 KiB, cold, MB/s" in out and " 0.50  worse" in out
    assert "juicefs" not in out and "    the command of old\n" in out
    with pytest.raises(SystemExit, match="nothing in common"):
        bench.main(["compare", str(old), str(other)])


def test_the_table_tells_the_spread_and_what_is_safe() -> None:
    title, line = table(result())
    assert title == "random, lucid, 20 ms away"
    assert "100 (50 to 200) MB/s" in line
    assert line.endswith("[survives loss of power]")


def test_a_page_has_a_column_for_each_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    other = Result("random", "rclone", 20.0, 100.0)
    other.add({"64 KiB, cold": {"s": 2.0}}, {})
    save(path, [result(), other, Result("small", "lucid", 0.0, 0.0)], ["./build.sh", "bench"])
    assert bench.main(["table", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "    ./build.sh bench" in lines
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[0] == ["random, 20 ms away", "lucid", "rclone"]
    assert ["4 KiB, cold, MB/s", "100 (50 to 200)", ""] in rows
    assert ["survives", "loss of power", ""] in rows
    assert ["64 KiB, cold, s", "", "2"] in rows
    assert ["small, 0 ms away", "lucid"] in rows
