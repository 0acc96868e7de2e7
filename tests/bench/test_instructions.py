"""Instructions of the engine: the workload, the table, and what is told without valgrind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import instructions

PAGE = """\
Ir
--------------------------------------------------------------------------------
1,500 (100.0%)  PROGRAM TOTALS
--------------------------------------------------------------------------------
Ir               file:function
--------------------------------------------------------------------------------
  900 (60.00%)  a/aegis.c:seal [/lib/libsodium.so.23]
  400 (26.67%)  hits.c:read [/x/hits.so]
  200 (13.33%)  a/aegis.h:seal
"""


def test_the_parts_of_a_function_are_summed() -> None:
    total, functions = instructions.parse(PAGE)
    assert total == 1500
    assert functions == [("seal [libsodium]", 1100), ("read [hits]", 400)]


def test_the_workload_runs() -> None:
    instructions.workload()


def test_without_valgrind_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "program", lambda _: None)
    with pytest.raises(SystemExit, match="bench: valgrind is not installed") as caught:
        bench.main(["--profile", "engine", "--output", str(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is missing")
def test_the_engine_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--profile", "engine", "--output", str(tmp_path)])
    shown = capsys.readouterr().out
    assert str(tmp_path / "callgrind.engine.out") in shown
    total, functions = instructions.top_functions(tmp_path / "callgrind.engine.out")
    assert f"{total:,}" in shown
    assert total > 1_000_000
    assert any("KnownTable" in name for name, _ in functions)
    assert any("HitTable" in name for name, _ in functions)
