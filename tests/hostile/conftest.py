"""The stage: a store in memory for every run, and a real S3 server for the slow one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.stores import openers
from tests.filespace.conftest import quick_passphrase
from tests.hostile.scene import Scene
from tests.seaweed import s3_server

__all__ = ["quick_passphrase", "s3_server", "scene"]

KINDS = ("memory", pytest.param("s3", marks=pytest.mark.slow))


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A new filespace in a store of each kind."""
    for client in openers(request.param, False, request, tmp_path / "store"):
        made = Scene(tmp_path, client)
        yield made
        made.close()


ON_S3 = "LUCID_ON_S3"
"""Set: every attack on the real server too (`./build.sh hostile`). Else those on segments only."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The ordinary run has half an hour: what is the same on any store stays in memory there."""
    if os.environ.get(ON_S3):
        return
    here = Path(__file__).parent
    left_out = [
        item
        for item in items
        if item.path.parent == here and item.path.name != "test_segments.py"
        if "s3" in getattr(getattr(item, "callspec", None), "params", {}).values()
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
