"""Rules never change, on no machine: one frozen log, one state; and what the fold may look at."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lucid.format.ops import (
    ROOT_INO,
    Clone,
    Content,
    Create,
    Floor,
    Give,
    Link,
    Mkdir,
    Op,
    Rename,
    Repack,
    Rmdir,
    Setattr,
    Take,
    Takeover,
    Unlink,
)
from lucid.meta.memory import MemoryState
from tests.meta.authors import Author, Blocks, empty_state
from tests.meta.invariants import check_state
from tests.model.frozen_log import digest, frozen_ops, frozen_state

ROOT = Path(__file__).resolve().parents[2]
META = ROOT / "lucid" / "meta"

STATES = {
    "1": "2198b60c4b76091f839cfde5809dd192",
    "2": "a683cbeedb48a42d6c972924e75506fd",
    "3": "428c3d9baf0619520498e05217fb2b0d",
    "3 with repacks": "11f38571f1f0700fced4d212b7136040",
    "4 with leases": "1f61e5e1bfa3e15c5129599acf1fc9bf",
}
"""Of the frozen logs. Machines that fold otherwise part for ever. If this test fails,
the fold has changed: that needs a new number of the rules, and the old ones beside it."""

MAY_IMPORT = {"__future__", "bisect", "collections.abc", "enum", "stat", "typing"}
FOLD = [*sorted(META.glob("fold*.py")), META / "conflict_names.py"]


@pytest.mark.parametrize("log", STATES)
def test_the_frozen_log_leads_where_it_always_did(log: str) -> None:
    """S-72: for ever."""
    state = frozen_state(log)
    check_state(state)
    assert digest(state) == STATES[log]


def test_the_frozen_logs_hold_every_op_that_authors_write() -> None:
    """Else a rule could change unseen."""
    kinds = {type(op) for log in STATES for _, op in frozen_ops(log)}
    assert kinds >= {
        Clone, Content, Create, Floor, Give, Link, Mkdir, Rename, Repack, Rmdir, Setattr, Take,
        Takeover, Unlink,
    }  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8"},
        {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns", "LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
)
def test_no_setting_of_a_machine_counts(settings: dict[str, str]) -> None:
    """S-72: hash seed, zone and locale."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.frozen_log"],
        cwd=ROOT,
        env={**os.environ, **settings},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == list(STATES.values())


@pytest.mark.parametrize("path", FOLD, ids=lambda path: path.name)
def test_the_fold_imports_nothing_that_could_differ(path: Path) -> None:
    """S-72: no clock, no randomness, no locale, no I/O, no float."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= MAY_IMPORT
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert module in MAY_IMPORT or module.startswith(("lucid.format.", "lucid.meta."))
        elif isinstance(node, ast.Constant):
            assert not isinstance(node.value, float)
        elif isinstance(node, ast.BinOp):
            assert not isinstance(node.op, ast.Div)


class Counting:
    """A state that counts the calls it gets."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._state, name)
        if name not in {"stamp", "geometry"}:
            self.calls += 1
        return found


def append(author: Author, state: MemoryState) -> Op:
    return author.content(state, ROOT_INO, b"f", b"x" * 100, keep=96)


@pytest.mark.parametrize(
    ("make", "calls_max"),
    [
        (lambda author, state: author.create(ROOT_INO, b"new", b"x" * 40), 12),
        (lambda author, state: author.mkdir(ROOT_INO, b"new"), 8),
        (append, 11),
        (lambda author, state: author.unlink(state, ROOT_INO, b"f"), 9),
        (lambda author, state: author.rename(state, ROOT_INO, b"f", ROOT_INO, b"g"), 9),
        (lambda author, state: author.setattr(ROOT_INO, mode=0o700), 2),
    ],
)
def test_plain_ops_are_few_calls(make: Callable[[Author, MemoryState], Op], calls_max: int) -> None:
    """S-255: each call is a query on disk; so many an op and no more."""
    author = Author(1, b"ann", Blocks())
    state = empty_state()
    author.fold(state, author.create(ROOT_INO, b"f", b"x" * 96))
    op = make(author, state)
    counting: Any = Counting(state)
    counting.stamp = 99
    author.fold(counting, op)
    assert counting.calls <= calls_max
