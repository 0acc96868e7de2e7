"""What is kept of measurements, and what comparing two of them says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.report import (
    PAGE,
    Result,
    compare,
    doubts,
    load,
    ratio_lines,
    save,
    short,
    side_by_side,
    table,
)


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
    assert "new over old, of the medians" in out
    assert "juicefs" not in out and "    the command of old\n" in out
    with pytest.raises(SystemExit, match="nothing in common"):
        bench.main(["compare", str(old), str(other)])


def test_the_table_tells_the_spread_and_what_is_safe() -> None:
    title, line = table(result(), 160)
    assert title == "random, lucid, 20 ms away"
    assert "100 (50 to 200) MB/s" in line
    assert line.endswith("[survives loss of power]")


def asked(requests: float) -> dict[str, float]:
    return {
        "MB/s": 150.0,
        "p99 ms": 4.0,
        "requests": requests,
        "sent MB": 0.25,
        "fetched MB": 134.0,
    }


def test_what_is_asked_of_the_store_is_told_where_it_is_asked() -> None:
    made = Result("sequential", "lucid", 20.0, 100.0)
    made.add({"read cold": asked(29.0), "read memory": asked(0.0)}, {})
    other = Result("sequential", "gocryptfs", 20.0, 0.0)
    other.add({"read cold": {"MB/s": 200.0}}, {})
    shown = list(table(made, 160))
    assert "store: 29 requests, 0.25 MB sent, 134 MB fetched" in shown[1]
    assert "store" not in shown[2] and "requests" not in shown[2]
    page = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in side_by_side([made, other])
    ]
    assert [row for row in page if row and row[0].startswith("store")] == [
        ["store: requests, MB sent, fetched", "29, 0.25, 134", ""]
    ]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_lines_fit_the_terminal(width: int) -> None:
    made = Result("sequential", "juicefs-writeback", 20.0, 100.0)
    for factor in (0.5, 1.0, 2.0):
        phase = {"MB/s": 150.0 * factor, "first byte ms": 48.3 * factor, "cpu s": factor}
        made.add({"read cold": asked(29.0) | phase}, {"read cold": "a killed process, at least"})
    shown = list(table(made, width))
    assert max(map(len, shown)) <= width
    words = " ".join(" ".join(shown).split())
    assert "150 (75 to 300) MB/s 48.3 (24.1 to 96.6) first byte ms" in words
    assert words.endswith("[survives a killed process, at least]")


def test_a_table_wider_than_a_page_becomes_two() -> None:
    made = []
    for number in range(7):
        made.append(Result("sequential", f"peer-{number}", 20.0, 0.0))
        for factor in (0.5, 1.0, 2.0):
            made[-1].add({"from close until in the store": {"s": 0.402 * factor}}, {})
    shown = list(side_by_side(made))
    assert max(map(len, shown)) <= PAGE
    heads = [line for line in shown if line.startswith("| sequential, 20 ms away")]
    assert len(heads) == 2
    assert all(sum(f"peer-{number}" in head for head in heads) == 1 for number in range(7))


def test_figures_that_only_one_phase_has_are_in_the_tables() -> None:
    made = Result("fio", "lucid", 0.0, 0.0)
    made.add({"mix": {"s": 1.0, "per s": 10.0, "write p99 ms": 7.0}}, {})
    assert "7 write p99 ms" in list(table(made, 160))[1]
    assert any("mix, write p99 ms" in line for line in side_by_side([made]))


def test_a_count_is_neither_better_nor_worse() -> None:
    old, new = Result("crowd", "lucid", 0.0, 0.0), Result("crowd", "lucid", 0.0, 0.0)
    old.add({"all": {"files": 10.0, "max ms": 10.0}}, {})
    new.add({"all": {"files": 40.0, "max ms": 40.0}}, {})
    files, most = ratio_lines(compare([old], [new]))
    assert files.endswith("4.00") and most.endswith("4.00  worse")


def test_what_has_no_store_is_not_far_from_it() -> None:
    made = [result(peer="lucid"), result(peer="gocryptfs")]
    assert [next(iter(table(one, 160))) for one in made] == [
        "random, lucid, 20 ms away",
        "random, gocryptfs, local disk",
    ]
    assert "| gocryptfs (local) " in next(side_by_side(made))


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
    assert ["small, near", "lucid"] in rows


def test_what_went_down_to_nothing_is_better() -> None:
    old, new = Result("a", "lucid", 0.0, 0.0), Result("a", "lucid", 0.0, 0.0)
    old.add({"all": {"cpu s": 0.01, "MB/s": 1.0}}, {})
    new.add({"all": {"cpu s": 0.0, "MB/s": 0.0}}, {})
    cpu, rate = ratio_lines(compare([old], [new]))
    assert cpu.endswith("0.00  better") and rate.endswith("0.00  worse")


def test_what_makes_ratios_doubtful_is_told(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    many = Result("random", "lucid", 20.0, 100.0)
    for _ in range(3):
        many.add({"4 KiB, cold": {"s": 1.0}}, {})
    save(old, [many], ["bench", "peers", "--rate", "5", "--json", "a.json"])
    save(new, [many], ["bench", "peers", "--json", "b.json"])
    assert list(doubts(old, new)) == ["Not run in the same way: --rate 5; as by default"]
    save(new, [many], ["bench", "peers", "--rate", "5"])
    assert list(doubts(old, new)) == []
    one = Result("random", "lucid", 20.0, 100.0)
    one.add({"4 KiB, cold": {"s": 1.0, "MB/s": 2.0}}, {})
    save(new, [one], ["bench", "peers", "--rate", "5"])
    alone, few = doubts(old, new)
    assert alone == "Left out: 1 figure that only one of them has." and few.startswith("Of 1 run")


@pytest.mark.parametrize(
    ("value", "shown"), [(0.000223, "0.000223"), (0.0, "0"), (0.00001, "0"), (1234.5, "1,234")]
)
def test_three_digits(value: float, shown: str) -> None:
    assert short(value) == shown
