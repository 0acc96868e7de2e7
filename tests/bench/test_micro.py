"""Each microbenchmark once, and that it does what its name says."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench import micro
from bench.report import compare, load


@pytest.mark.parametrize("name", micro.BENCHMARKS)
def test_each_runs(name: str) -> None:
    with ExitStack() as stack:
        job = micro.BENCHMARKS[name](stack)
        for _ in range(2):
            if job.prepare is not None:
                job.prepare()
            job.work()


def test_what_is_kept_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyperf")
    path = tmp_path / "a.json"
    micro.main(["addressing", "cache", "--tiny", "--json", str(path)])
    assert "addressing" in capsys.readouterr().out
    (kept,) = load(path)
    assert set(kept.figures) == {"addressing", "cache map"}
    assert set(compare([kept], [kept]).values()) == {1.0}


def test_a_name_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        micro.main(["nothing"])
    assert "there is no nothing" in capsys.readouterr().err


def test_a_cached_read_does_not_ask_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        job = micro.BENCHMARKS["read 128 KiB, cached"](stack)

        def asked(*_: object) -> object:
            raise AssertionError("The store was asked.")

        for way in ("get", "get_into"):
            monkeypatch.setattr(micro.MemoryStore, way, asked)
        assert len(job.work()) == micro.READ  # type: ignore[arg-type]
        monkeypatch.undo()


def test_each_fetch_asks_the_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = micro.DirectoryStore.get_into

    def get_into(store: micro.DirectoryStore, key: str, start: int, *rest: Any) -> int:
        asked.append(start)
        return real(store, key, start, *rest)

    monkeypatch.setattr(micro.DirectoryStore, "get_into", get_into)
    with ExitStack() as stack:
        job = micro.BENCHMARKS["fetch one unit"](stack)
        assert job.prepare is not None
        for _ in range(3):
            job.prepare()
            job.work()
        assert asked == [0, 0, 0]
        job.work()
        assert len(asked) == 3, "it is in the cache"


@pytest.mark.parametrize("name", ["hit 4 KiB", "known name"])
def test_the_engine_answers_by_itself(name: str) -> None:
    with ExitStack() as stack:
        assert micro.BENCHMARKS[name](stack).work() is not None
