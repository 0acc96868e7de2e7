"""Where a filespace may be made, and what is said of a place that lost its own (S-49)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lucid.errors import (
    BucketMissing,
    FilespaceExists,
    FilespaceMissing,
    LucidError,
    StoreDenied,
)
from lucid.filespace import connect, init
from lucid.filespace.fsck import check
from lucid.store.memory import Bucket, MemoryStore
from tests.filespace.spaces import PASSPHRASE, STRETCH, new_bucket


def make(url: str) -> None:
    init(url, passphrase=PASSPHRASE, stretch=STRETCH)


def make_in(bucket: Bucket) -> None:
    init(
        "memory://team", passphrase=PASSPHRASE, stretch=STRETCH,
        store=MemoryStore(bucket, name="team"),
    )  # fmt: skip


def put(bucket: Bucket, key: str) -> None:
    MemoryStore(bucket).put_if_absent(key, b"bytes")


def test_the_last_directory_is_made(tmp_path: Path) -> None:
    make(f"file://{tmp_path}/new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    with connect(f"file://{tmp_path}/new", passphrase=PASSPHRASE) as fs:
        assert fs.listdir("/") == []


@pytest.mark.parametrize("kind", ["file", "directory", "hidden file", "link", "file in data"])
def test_a_directory_with_something_else_in_it_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "store"
    place.mkdir()
    if kind == "file":
        (place / "thesis.tex").write_text("years of work")
    elif kind == "directory":
        (place / "photos").mkdir()
    elif kind == "hidden file":
        (place / ".bashrc").touch()
    elif kind == "link":
        (place / "link").symlink_to("/")
    else:
        (place / "data").mkdir()
        (place / "data" / "thesis.tex").touch()
    before = sorted(place.rglob("*"))
    with pytest.raises(FilespaceExists) as caught:
        make(f"file://{place}")
    assert caught.value.exit_code == 21
    assert str(place) in str(caught.value)
    assert sorted(place.rglob("*")) == before, "nothing is written there"


@pytest.mark.parametrize("kind", ["a file", "a file above", "nothing above"])
def test_no_directory_can_be_there(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    url = {"a file": "file", "a file above": "file/store", "nothing above": "a/b"}[kind]
    with pytest.raises(BucketMissing) as caught:
        make(f"file://{tmp_path}/{url}")
    assert caught.value.exit_code == 6
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_that_no_directory_can_have(tmp_path: Path) -> None:
    with pytest.raises(StoreDenied, match="cannot be made"):
        make(f"file://{tmp_path}/{'long' * 100}")


def test_what_is_there_is_named_even_if_its_name_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    with pytest.raises(FilespaceExists) as caught:
        make(f"file://{tmp_path}")
    assert "(caf\N{REPLACEMENT CHARACTER})" in str(caught.value)
    str(caught.value).encode()


def test_a_new_disk_is_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir(mode=0o700)
    make(f"file://{tmp_path}")


def test_what_an_unfinished_init_left_is_no_obstacle() -> None:
    bucket = Bucket()
    for key, (body, _) in new_bucket().objects.items():
        if key.startswith(("members/", "keys/")):
            MemoryStore(bucket).put_if_absent(key, body)
    put(bucket, "probe/left")
    assert len(bucket.keys) == 3
    make_in(bucket)


@pytest.mark.parametrize("key", ["photos/1.jpg", "readme", "zebra"])
def test_a_prefix_with_something_else_in_it_is_refused(key: str) -> None:
    bucket = Bucket()
    put(bucket, key)
    with pytest.raises(FilespaceExists, match=f"is no filespace .{key}.") as caught:
        make_in(bucket)
    assert caught.value.exit_code == 21
    assert bucket.keys == [key], "nothing is written there"


@pytest.mark.parametrize("left", ["the log and data", "the log", "data"])
def test_a_lost_superblock(tmp_path: Path, left: str) -> None:
    """Neither a look nor init takes the remains of a filespace for an empty place."""
    url = f"file://{tmp_path}/store"
    make(url)
    with connect(url, passphrase=PASSPHRASE) as fs:
        fs.write_bytes("/file", bytes(range(256)) * 1000)
    store = tmp_path / "store"
    gone = [store / "superblock"]
    if left == "the log":
        gone += [path for path in (store / "data").rglob("*") if path.is_file()]
    if left == "data":
        gone += [path for path in (store / "log").rglob("*") if path.is_file()]
    for path in gone:
        path.unlink()
    before = sorted(store.rglob("*"))
    sentences = []
    for look in (
        lambda: connect(url, passphrase=PASSPHRASE),
        lambda: check(url, PASSPHRASE),
        lambda: make(url),
    ):
        with pytest.raises(LucidError) as caught:
            look()
        sentences.append((type(caught.value), str(caught.value)))
    assert [kind for kind, _ in sentences] == [FilespaceMissing, FilespaceMissing, FilespaceExists]
    for _, sentence in sentences:
        assert f"remains of a filespace at {url}" in sentence
        assert "would not bring the" in sentence
    assert sorted(store.rglob("*")) == before


def test_an_empty_place_is_no_remains(tmp_path: Path) -> None:
    with pytest.raises(FilespaceMissing, match="Make one with: lucid init") as caught:
        connect(f"file://{tmp_path}", passphrase=PASSPHRASE)
    assert "remains" not in str(caught.value)
