"""Filespaces that earlier builds made are opened for ever: whole, and broken in known ways.

They are frozen; `make.py` made them, and makes those of later formats beside them.
"""

from __future__ import annotations

import hashlib
import json
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lucid import errors
from lucid.config import Config
from lucid.filespace import Filespace, connect, fsck
from lucid.meta.state import STAMP_SHIFT

FILESPACES = Path(__file__).parent / "filespaces"
NAMES = sorted(path.stem for path in FILESPACES.glob("*.json"))


@dataclass
class Golden:
    """One of them, unpacked."""

    about: dict[str, Any]
    store: Path
    top: Path
    machines: int = 0

    def connect(self, secret: str = "", **settings: Any) -> Filespace:
        """From a machine that knows nothing."""
        self.machines += 1
        state = self.top / f"machine{self.machines}"
        config = Config(state_dir=state, poll_idle_s=0.2, **settings)
        return connect(
            f"file://{self.store}", passphrase=secret or self.about["passphrase"], config=config
        )

    def paths(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.store.glob(pattern) if path.is_file())


@pytest.fixture(params=NAMES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Golden]:
    store = tmp_path / "store"
    with tarfile.open(FILESPACES / f"{request.param}.tar.xz") as archive:
        archive.extractall(store, filter="data")
    about = json.loads((FILESPACES / f"{request.param}.json").read_text())
    yield Golden(about, store, tmp_path)


def seen(fs: Filespace, path: str) -> dict[str, Any]:
    """What is there, in the words of the manifest."""
    found = fs.stat(path, follow_symlinks=False)
    if stat.S_ISDIR(found.mode):
        return {"kind": "directory"}
    if stat.S_ISLNK(found.mode):
        return {"kind": "link", "target": fs.readlink(path)}
    content = fs.read_bytes(path)
    assert len(content) == found.size
    names = fs.tree.list_xattrs(found.ino)
    return {
        "kind": "file",
        "size": found.size,
        "sha256": hashlib.sha256(content).hexdigest(),
        "mtime_ns": found.mtime_ns,
        "mode": found.mode,
        "xattrs": {
            name.decode(): fs.tree.get_xattr(found.ino, name).hex()
            for name in names
            if not name.startswith(b"user.lucid.")
        },
    }


def walk(fs: Filespace, top: str = "") -> Iterator[str]:
    for name in fs.listdir(top or "/"):
        path = f"{top}/{name}"
        yield path
        if stat.S_ISDIR(fs.stat(path, follow_symlinks=False).mode):
            yield from walk(fs, path)


def assert_whole(fs: Filespace, about: dict[str, Any]) -> None:
    tree = about["tree"]
    assert set(walk(fs)) == set(tree)
    for path, expected in tree.items():
        found = seen(fs, path)
        assert {name: found[name] for name in expected} == expected, path
    one, other = fs.stat("/a/small"), fs.stat("/a/b/c/also-small")
    assert one.ino == other.ino
    assert one.nlink == 2


@pytest.mark.parametrize("secret", ["passphrase", "recovery"])
def test_it_is_all_there(golden: Golden, secret: str) -> None:
    with golden.connect(golden.about[secret]) as fs:
        assert_whole(fs, golden.about)


def test_the_check_finds_nothing(golden: Golden) -> None:
    report = fsck.check(f"file://{golden.store}", golden.about["passphrase"], read_data=True)
    assert report.clean, report.problems


def test_read_only_too(golden: Golden) -> None:
    before = {path: path.read_bytes() for path in golden.paths("**/*")}
    with golden.connect(read_only=True) as fs:
        assert_whole(fs, golden.about)
    assert {path: path.read_bytes() for path in golden.paths("**/*")} == before


def test_it_goes_on(golden: Golden) -> None:
    """What is written now lies beside what was written then."""
    with golden.connect() as fs:
        fs.write_bytes("/a/new", b"of this build")
        fs.rename("/a/small-too", "/a/renamed")
        fs.sync()
    with golden.connect() as fs:
        assert fs.read_bytes("/a/new") == b"of this build"
        assert fs.read_bytes("/a/renamed") == b"second"
        fs.remove("/a/new")
        fs.rename("/a/renamed", "/a/small-too")
        fs.sync()
    with golden.connect() as fs:
        assert_whole(fs, golden.about)


def test_a_wrong_passphrase(golden: Golden) -> None:
    with pytest.raises(errors.WrongPassphrase):
        golden.connect("golden words for never")


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-100])


def biggest(golden: Golden) -> Path:
    return max(golden.paths("data/**/*"), key=lambda path: path.stat().st_size)


def middle_entry(golden: Golden) -> Path:
    entries = golden.paths("log/**/*")
    return entries[len(entries) // 2]


DAMAGED_DATA: dict[str, Callable[[Golden], None]] = {
    "a byte of a segment": lambda golden: flipped(biggest(golden), 1000),
    "the end of a segment": lambda golden: cut(biggest(golden)),
    "a segment": lambda golden: biggest(golden).unlink(),
}
DAMAGED_RECORDS: dict[str, tuple[Callable[[Golden], None], type[errors.LucidError]]] = {
    "a byte of an entry": (
        lambda golden: flipped(middle_entry(golden), 200), errors.HistoryFork
    ),
    "an entry": (lambda golden: middle_entry(golden).unlink(), errors.HistoryFork),
    "a byte of the superblock": (
        lambda golden: flipped(golden.store / "superblock", 60), errors.CorruptObject
    ),
    "the superblock": (
        lambda golden: (golden.store / "superblock").unlink(), errors.FilespaceMissing
    ),
    "a byte of the member record": (
        lambda golden: flipped(golden.paths("members/**/*")[-1], 100), errors.DataError
    ),
}  # fmt: skip


@pytest.mark.parametrize("lost", DAMAGED_DATA)
def test_damaged_data(golden: Golden, lost: str) -> None:
    """The files that need it cannot be read, and say so; all others can."""
    DAMAGED_DATA[lost](golden)
    with golden.connect() as fs:
        assert set(walk(fs)) == set(golden.about["tree"])
        failed = 0
        for path, expected in golden.about["tree"].items():
            try:
                found = seen(fs, path)
            except errors.DataError:
                failed += 1
            else:
                assert {name: found[name] for name in expected} == expected, path
        assert 0 < failed < len(golden.about["tree"])


@pytest.mark.parametrize("lost", DAMAGED_RECORDS)
def test_damaged_records(golden: Golden, lost: str) -> None:
    """Nothing is served from a filespace whose own records were changed."""
    damage, error = DAMAGED_RECORDS[lost]
    damage(golden)
    with pytest.raises(error):
        golden.connect().close()


def test_leases_are_held_and_waited_for(golden: Golden) -> None:
    """Under rules 4: as they stood when it was made, below the floor and above it. Who has one is
    not there, and yet what is written now lies beside."""
    leases = golden.about.get("leases", {})
    assert bool(leases) == (golden.about.get("rules", 1) >= 4)
    with golden.connect(lock_policy="none") as fs:
        state = fs.tree._parts.replica.state
        for path, wanted in leases.items():
            line = state.lease(fs.stat(path).ino)
            assert [[row.session, row.mode] for row in line] == wanted
            taken = [row.stamp >> STAMP_SHIFT for row in line]
            assert taken == sorted(taken)
        if not leases:
            return
        assert_beside(fs, "/leased")
        fs.write_bytes("/given", b"of this build")
        fs.sync()
        assert fs.read_bytes("/given") == b"of this build"


def assert_beside(fs: Filespace, path: str) -> None:
    """What is written to a file becomes another one."""
    before, there = fs.read_bytes(path), set(fs.listdir("/"))
    fs.write_bytes(path, b"of this build")
    fs.sync()
    assert fs.read_bytes(path) == before
    (copy,) = set(fs.listdir("/")) - there
    assert fs.read_bytes(f"/{copy}") == b"of this build"


def test_the_floor_and_what_is_above_it(golden: Golden) -> None:
    """Under rules 3: the log begins there, older versions are gone, later ones are not."""
    floor = golden.about.get("floor", 0)
    with golden.connect() as fs:
        replica = fs.tree._parts.replica
        assert replica.floor() == floor
        assert int(replica.value("rules") or b"1") == golden.about.get("rules", 1)
        if floor:
            first, second = [int(path.name, 16) for path in golden.paths("log/*")][:2]
            assert first == 1 and 2 < second <= floor
            # Of 16: what the floor's own entry has replaced is still there.
            assert len(fs.versions("/a/rewritten")) == 2
            assert len(fs.versions("/restored")) == 3
            removed = {one.name for one in fs.removed("/a")}
            assert b"new" in removed and b"gone for good" not in removed
