"""What results say of the targets, on results made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.report import Result, save
from bench.scenarios import SCENARIOS
from bench.targets import TARGETS, Row, judge, lines

KILLED, POWER = "a killed process", "loss of power"


def result(
    scenario: str, peer: str, far: float, phase: str, durable: str = "", **figures: float
) -> Result:
    made = Result(scenario, peer, far, 0.0)
    named = {name.replace("_", " ").replace("MBps", "MB/s"): x for name, x in figures.items()}
    for factor in (0.9, 1.0, 1.1, 0.5, 2.0):
        scaled = {name: value * factor for name, value in named.items()}
        made.add({phase: scaled | {"s": 1.0}}, {phase: durable} if durable else {})
    return made


def rows(results: list[Result], name: str) -> list[Row]:
    return [row for row in judge(results) if row.name == name]


def test_without_results_nothing_is_said() -> None:
    assert all(row.reached is None and row.why for row in judge([]))
    assert len(judge([])) == len(TARGETS) + 1
    assert {target.scenario for target in TARGETS} <= set(SCENARIOS)


@pytest.mark.parametrize(("ours", "reached"), [(32.0, True), (32.1, False)])
def test_a_number_is_a_bound_of_the_median(ours: float, reached: bool) -> None:
    made = result("sequential", "lucid", 20.0, "read cold", first_byte_ms=ours)
    (row,) = rows([made], "first byte, cold")
    assert (row.ours, row.reached, row.runs) == (ours, reached, 5)


def test_the_best_peer_counts() -> None:
    kinds = {"lucid": 300.0, "juicefs": 100.0, "rclone": 250.0, "gocryptfs": 290.0}
    made = [
        result("sequential", name, 0.0, "read local cache", MBps=rate)
        for name, rate in kinds.items()
    ]
    best, gocryptfs = rows(made, "sequential read, local cache")
    assert (best.who, best.ratio, best.reached) == ("rclone", 1.2, False)
    assert (gocryptfs.who, gocryptfs.reached) == ("gocryptfs", True)


def test_a_peer_whose_data_survives_less_is_left_out() -> None:
    made = [
        result("untar", "lucid", 20.0, "tar -x", POWER, per_s=600.0),
        result("untar", "juicefs", 20.0, "tar -x", POWER, per_s=100.0),
        result("untar", "rclone", 20.0, "tar -x", KILLED, per_s=5000.0),
    ]
    (row,) = rows(made, "untar")
    assert (row.who, row.ratio, row.reached) == ("juicefs", 6.0, True)
    made[0].durable["tar -x"] = KILLED
    (row,) = rows(made, "untar")
    assert (row.who, row.reached) == ("rclone", False), "one that survives more is not left out"
    (row,) = rows(made[:1], "untar")
    assert (row.reached, row.why) == (None, "nobody to compare with")


def test_too_few_files_say_nothing() -> None:
    made = Result("mount", "lucid", 20.0, 0.0)
    made.add({"mount, new device": {"s": 2.0, "per s": 1000.0}}, {})
    (row,) = rows([made], "mount, new device")
    assert (row.reached, row.why) == (None, "of 2000, not 1,000,000")


def test_seconds_of_several_phases_are_added() -> None:
    made = Result("small", "lucid", 20.0, 0.0)
    rest = {"from there until in the store": {"s": 1.5}}
    made.add({"create": {"s": 2.0, "per s": 1000.0}, **rest}, {})
    (row,) = rows([made], "2,000 small files in the store")
    assert (row.ours, row.reached) == (3.5, False)


def test_cpu_is_of_a_gigabyte_and_memory_of_the_worst() -> None:
    made = [Result("sequential", name, 0.0, 0.0) for name in ("lucid", "rclone")]
    for one, cpu in zip(made, (1.0, 2.0), strict=True):
        figures = {"cpu s": cpu, "MB/s": 100.0, "s": 2.0}
        one.add({"read cold": figures, "all of it": {"peak MiB": 301.0}}, {})
    near, _ = rows(made, "CPU of cold reads")
    assert (near.ours, near.theirs, near.reached) == (5.0, 10.0, True)
    everywhere = [*made, *(peak(name, 20.0, 90.0) for name in SCENARIOS)]
    (memory,) = rows(everywhere, "memory, every scenario")
    assert (memory.ours, memory.far, memory.reached) == (301.0, "sequential, 0 ms", False)


def peak(scenario: str, far: float, mib: float) -> Result:
    made = Result(scenario, "lucid", far, 0.0)
    made.add({"all of it": {"peak MiB": mib}}, {})
    return made


def test_scenarios_of_which_no_memory_was_measured_are_named() -> None:
    """A peak below the bound in two scenarios says nothing of the others."""
    made = [peak("sequential", 0.0, 200.0), peak("small", 0.0, 100.0), peak("small", 20.0, 110.0)]
    (memory,) = rows(made, f"memory, 2 of {len(SCENARIOS)} scenarios")
    assert (memory.ours, memory.reached) == (200.0, True)
    last = list(lines(made))[-1]
    others = [name for name in SCENARIOS if name not in ("sequential", "small")]
    assert last == f"Of {len(others)} scenarios no memory was measured: {', '.join(others)}."


def test_reads_at_random_have_a_row_for_the_first_and_one_for_a_longer_time() -> None:
    made = []
    for phase, rate in (("cached", 100.0), ("cached, sustained", 900.0)):
        name = f"4 KiB, one thread, {phase}"
        made += [
            result("random", peer, 0.0, name, per_s=rate * factor)
            for peer, factor in (("lucid", 2.0), ("rclone", 1.0))
        ]
    (first,) = rows(made[:2], "random 4 KiB, cached")
    (sustained,) = rows(made[2:], "random 4 KiB, cached, sustained")
    assert (first.ours, first.theirs) == (200.0, 100.0)
    assert (sustained.ours, sustained.theirs, sustained.reached) == (1800.0, 900.0, True)


def test_the_verb_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    made = [result("sequential", "lucid", 20.0, "read cold", first_byte_ms=20.0)]
    save(path, made, ["the command"])
    assert bench.main(["targets", str(path)]) == 0
    out = capsys.readouterr().out
    assert "the command" in out
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert [
        "first byte, cold",
        "20 ms",
        "first byte ms",
        "20",
        "5",
        "<= 32",
        "",
        "",
        "yes",
    ] in cells
    assert f"\n1 of {len(TARGETS) + 1} reached, {len(TARGETS)} not told.\n" in out
    assert "(of 5)" not in out, "it has five runs, and of the others nothing was measured"
    assert max(map(len, out.splitlines())) <= 150


def test_what_other_verbs_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    made = [result("small", "lucid", 0.0, "create", per_s=20.0)]
    save(path, made, ["./build.sh", "bench", "--steps", "--tiny"])
    with pytest.raises(SystemExit, match="is not what"):
        bench.targets([str(path)])
    save(path, made, ["./build.sh", "bench", "peers", "small"])
    bench.targets([str(path)])
