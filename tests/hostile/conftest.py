"""The stage: a store in memory for every run, and a real S3 server for the slow one."""

from __future__ import annotations

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
