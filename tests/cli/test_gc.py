"""`lucid gc` on a directory: the ages of what it holds are the times of its files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lucid.config import Config
from lucid.filespace import Filespace, connect
from tests.cli.conftest import Lucid, Team

DAY_S = 86_400
BLOCK = 128 * 1024


@pytest.fixture
def store(lucid: Lucid, tmp_path: Path) -> Path:
    place = tmp_path / "store"
    lucid.run("init", place.as_uri())
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


def half_dead(store: Path, fs: Filespace, path: str) -> bytes:
    """Six of the eight blocks of a file are written over; what it holds then."""
    first, later = os.urandom(8 * BLOCK), os.urandom(6 * BLOCK)
    write(store, fs, path, first)
    with fs.open(path, "r+b") as file:
        file.seek(2 * BLOCK)
        file.write(later)
    fs.sync(timeout=60)
    return first[: 2 * BLOCK] + later


def test_mostly_dead_segments_are_written_anew(lucid: Lucid, store: Path, tmp_path: Path) -> None:
    """S-613, S-614: shown first, then done; the store shrinks with the next collection."""
    with opened(store, tmp_path / "a") as fs:
        contents = {path: half_dead(store, fs, path) for path in ("/one", "/two", "/three")}
        write(store, fs, "/last", b"last")
        age(store, 8)
    before = files(store, ".")
    shown = lucid.json("gc", store.as_uri())
    assert shown["repacked"]["count"] == 3
    assert shown["repacked"]["bytes"] > 3 * 6 * BLOCK
    assert lucid.json("gc", store.as_uri(), "--repack-below", "0")["repacked"]["count"] == 0
    some = lucid.json("gc", store.as_uri(), "--repack-max", "600K")
    assert some["repacked"]["count"] == 2
    text = lucid.run("gc", store.as_uri()).stdout
    assert "Would be written anew: what is alive in 3 mostly dead segments." in text
    assert "--delete" in text
    assert files(store, ".") == before
    text = lucid.run("gc", store.as_uri(), "--delete").stdout
    assert "Written anew: what is alive in 3 mostly dead segments." in text
    full = size_of(store)
    age(store, 8)
    assert lucid.json("gc", store.as_uri(), "--delete")["segments"]["count"] == 3
    assert size_of(store) < full - 3 * 6 * BLOCK
    for state in ("a", "new"):
        with opened(store, tmp_path / state) as fs:
            assert fs.refresh(60)
            for path, content in contents.items():
                assert fs.read_bytes(path) == content
    found = lucid.run("fsck", store.as_uri(), "--read-data").stdout
    assert "Everything is as it should be." in found


def size_of(store: Path) -> int:
    return sum((store / name).stat().st_size for name in files(store, "data"))


def test_what_is_no_part_or_size(lucid: Lucid, store: Path) -> None:
    """S-613."""
    lucid.error(2, "gc", store.as_uri(), "--repack-below", "1.5")
    assert "is not a size" in lucid.error(2, "gc", store.as_uri(), "--repack-max", "much")


@pytest.mark.mount
def test_a_mounted_drive_reads_on(team: Team) -> None:
    """S-614: a file that is open, with pages that the kernel has and some that it has not, while
    its blocks move and after the old ones are gone."""
    lucid, store = team.lucid, team.directory
    with opened(store, lucid.home / "writer") as fs:
        content = half_dead(store, fs, "/one")
        write(store, fs, "/last", b"last")
        age(store, 8)
    team.mount()
    with (team.point / "one").open("rb") as file:
        assert file.read(BLOCK) == content[:BLOCK]
        assert lucid.json("gc", team.store, "--delete")["repacked"]["count"] == 1
        age(store, 8)
        assert lucid.json("gc", team.store, "--delete")["segments"]["count"] == 1
        lucid.run("sync", team.point)
        lucid.run("cache", team.point, "--clear")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == content[BLOCK:]
        file.seek(0)
        assert file.read() == content
        with (team.point / "one").open("r+b") as again:
            again.write(b"written over")
    assert (team.point / "one").read_bytes() == b"written over" + content[12:]
    lucid.run("umount", team.point)
    assert lucid.json("fsck", team.store, "--read-data")["clean"] is True


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
