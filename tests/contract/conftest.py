"""`open_client` and `store`: every store, bare and stacked. `server`: an S3 that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.store import ObjectStore
from tests.contract.scripted_server import ScriptedServer
from tests.contract.stores import KINDS, Opener, openers
from tests.seaweed import s3_server

__all__ = ["s3_server"]


@pytest.fixture(
    params=[(kind, stacked) for kind in KINDS for stacked in (False, True)],
    ids=lambda param: f"{param[0]}-{'stack' if param[1] else 'bare'}",
)
def open_client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens one more client of one empty store."""
    kind, is_stacked = request.param
    yield from openers(kind, is_stacked, request, tmp_path)


@pytest.fixture
def store(open_client: Opener) -> ObjectStore:
    """An empty store."""
    return open_client()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """An S3 on loopback that does wrong what it is told to."""
    running = ScriptedServer()
    yield running
    running.close()
