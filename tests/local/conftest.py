"""A directory that is a disk of its own, real or forgetful."""

from __future__ import annotations

from pathlib import Path

import pytest

from lucid.local.disk import RealDisk
from tests.local.forgetful import ForgetfulDisk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory that only its owner may enter."""
    place = tmp_path / "disk"
    place.mkdir(0o700)
    return place


@pytest.fixture
def disk() -> RealDisk:
    return RealDisk()


@pytest.fixture
def forgetful(root: Path) -> ForgetfulDisk:
    """A disk at `root` that loses what was not synced, and fails on demand."""
    return ForgetfulDisk(root)
