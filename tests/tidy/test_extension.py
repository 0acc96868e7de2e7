"""The compiled half is there, is the compiled one, and belongs to the source beside it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tidy import tree

SOURCES = [path for path in tree.ending(".pyx") if path.parts[0] in ("engine", "lucid")]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_it_is_compiled_and_fresh(path: Path) -> None:
    spec = find_spec(tree.module_name(path))
    assert spec is not None and spec.origin is not None
    built = Path(spec.origin)
    assert built.suffix == ".so"
    assert built.stat().st_mtime >= (tree.ROOT / path).stat().st_mtime, "run ./build.sh"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_it_has_a_stub(path: Path) -> None:
    assert path.with_suffix(".pyi") in tree.files()


def test_the_engine_is_reached_through_the_symlink() -> None:
    link = tree.ROOT / "lucid/engine"
    assert link.is_symlink()
    assert link.readlink() == Path("../engine")
