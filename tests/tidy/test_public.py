"""`import lucid` is light, and every public name is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lucid
from tests.tidy import tree


@pytest.mark.parametrize("name", lucid.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(lucid, name)
    assert name in dir(lucid)


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lucid.nothing  # noqa: B018


def test_the_import_loads_nothing() -> None:
    code = "import lucid, sys; print(*sorted(m for m in sys.modules if m.startswith('lucid.')))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split() == []


def test_the_marker_of_types_is_there() -> None:
    assert {Path("lucid/py.typed"), Path("engine/py.typed")} <= set(tree.files())
