"""`lucid gc` on a directory: the ages of what it holds are the times of its files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lucid.config import Config
from lucid.filespace import Filespace, connect
from tests.cli.conftest import Lucid

DAY_S = 86_400


@pytest.fixture
def store(lucid: Lucid, tmp_path: Path) -> Path:
    place = tmp_path / "store"
    lucid.run("init", place.as_uri(), "--block-size", "64K")
    return place


def opened(store: Path, state: Path) -> Filespace:
    return connect(store.as_uri(), passphrase="correct horse", config=Config(state_dir=state))


def age(store: Path, days: float) -> None:
    for path in store.rglob("*"):
        if path.is_file():
            found = path.stat()
            before = found.st_mtime - days * DAY_S
            os.utime(path, (before, before))


def files(store: Path, kind: str) -> set[str]:
    return {str(path.relative_to(store)) for path in (store / kind).rglob("*") if path.is_file()}


def write(store: Path, fs: Filespace, path: str, data: bytes) -> None:
    age(store, 0.05)
    fs.write_bytes(path, data)
    fs.sync(timeout=60)


def test_what_was_removed_goes_after_the_retention(
    lucid: Lucid, store: Path, tmp_path: Path
) -> None:
    """S-601, S-602, S-604: shown first, then freed; what is younger restores as before."""
    with opened(store, tmp_path / "a") as fs:
        write(store, fs, "/secret", b"to be gone" * 1000)
        write(store, fs, "/plan", b"1" * 5000)
        age(store, 0.05)
        fs.remove("/secret")
        fs.sync(timeout=60)
        write(store, fs, "/plan", b"2" * 5000)
        age(store, 8)
        write(store, fs, "/plan", b"3" * 5000)
    before = files(store, ".")
    shown = lucid.json("gc", store.as_uri())
    assert shown["segments"]["count"] == 1 and not shown["deleted"]
    assert shown["freed_bytes"] > 0 and 0 < shown["live_ratio"] <= 1
    assert files(store, ".") == before
    text = lucid.run("gc", store.as_uri()).stdout
    assert "Can be freed" in text and "--delete" in text
    assert "Freed" in lucid.run("gc", store.as_uri(), "--delete").stdout
    assert len(files(store, "data")) == 3
    assert files(store, "floor")
    with opened(store, tmp_path / "a") as fs:
        older = fs.versions("/plan")
        assert len(older) == 3
        fs.restore("/plan", older[0].number)
        assert fs.read_bytes("/plan") == b"1" * 5000
        assert not fs.removed("/")
        fs.sync(timeout=60)
    with opened(store, tmp_path / "new") as fs:
        assert fs.read_bytes("/plan") == b"1" * 5000
    assert "Everything is as it should be." in lucid.run("fsck", store.as_uri()).stdout
    assert lucid.json("gc", store.as_uri(), "--delete")["freed_objects"] == 0


def test_too_short_a_retention_of_a_mount(lucid: Lucid, store: Path, tmp_path: Path) -> None:
    """S-609: refused before anything is asked."""
    point = tmp_path / "point"
    point.mkdir()
    mount = ("mount", store.as_uri(), str(point), "--retention")
    assert "at least 2 days" in lucid.error(2, *mount, "47h")
    assert "is no time" in lucid.error(2, *mount, "Never")


def test_too_short_a_retention(lucid: Lucid, store: Path) -> None:
    """S-601."""
    assert "at least 2 days" in lucid.error(2, "gc", store.as_uri(), "--retention", "47h")
    assert "is no time" in lucid.error(2, "gc", store.as_uri(), "--retention", "soon")


def test_a_wrong_passphrase(lucid: Lucid, store: Path) -> None:
    lucid.passphrase = "another"
    lucid.error(11, "gc", store.as_uri(), "--delete")


def test_nothing_to_do(lucid: Lucid, store: Path) -> None:
    """S-601: of a new filespace."""
    began = time.time()
    text = lucid.run("gc", store.as_uri(), "--delete").stdout
    assert "Nothing can be freed." in text
    assert all((store / name).stat().st_mtime < began for name in files(store, "."))
