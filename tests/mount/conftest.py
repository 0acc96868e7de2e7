"""A mounted drive for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lucid.mount.options import MountOptions
from tests.cli.conftest import Lucid
from tests.mount.drive import Drive
from tests.mount.machines import Machines
from tests.mount.memory_surface import MemorySurface
from tests.seaweed import s3_server

__all__ = ["s3_server"]

MakeDrive = Callable[..., Drive]


@pytest.fixture(autouse=True)
def own_registry(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drives of tests are no business of the user's `lucid status`."""
    (own_home / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own_home / "run"))


@pytest.fixture
def make_drive(tmp_path: Path) -> Iterator[MakeDrive]:
    """make_drive(surface=..., options=...): a mounted drive that is unmounted after the test."""
    made: list[Drive] = []

    def make(surface: MemorySurface | None = None, options: MountOptions | None = None) -> Drive:
        point = tmp_path / f"drive{len(made)}"
        point.mkdir()
        drive = Drive(point, surface, options)
        made.append(drive)
        drive.start()
        return drive

    yield make
    for drive in made:
        drive.stop()


@pytest.fixture
def machines(own_home: Path, own_registry: None, tmp_path: Path) -> Iterator[Machines]:
    """A real filespace in a directory, mounted by the command, from several state directories."""
    lucid = Lucid(own_home)
    yield Machines(lucid, tmp_path)
    lucid.clean()


@pytest.fixture
def drive(make_drive: MakeDrive) -> Drive:
    return make_drive()
