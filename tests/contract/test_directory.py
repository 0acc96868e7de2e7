"""What only the directory store can get wrong: other processes, killed writers, the disk itself."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from lucid.errors import BucketMissing, ObjectExists, StoreDenied, StoreUnavailable
from lucid.store import open_store
from lucid.store.directory import INCOMING, STALE_NS, DirectoryStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir()
    return place


def _write(folder: Path, barrier, number: int, results) -> None:  # type: ignore[no-untyped-def]
    store = DirectoryStore(folder)
    won = []
    for turn in range(20):
        barrier.wait(30)
        try:
            store.put_if_absent(f"log/{turn:04x}", b"process %d" % number)
        except ObjectExists:
            continue
        won.append(turn)
    store.close()
    results.put((number, won))


def test_of_many_processes_one_wins(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_write, args=(folder, barrier, number, results))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    results.close()
    results.join_thread()
    store = DirectoryStore(folder)
    for turn in range(20):
        (winner,) = [number for number, won in found.items() if turn in won]
        assert store.get(f"log/{turn:04x}") == b"process %d" % winner
    store.close()
    assert list((folder / INCOMING).iterdir()) == []


def test_nothing_has_its_name_before_it_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(folder)
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(fd: int) -> None:
        done.append("sync " + os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(folder)))
        fsync(fd)

    def noted_link(*args: object, **more: object) -> None:
        done.append("link")
        link(*args, **more)  # type: ignore[arg-type]

    store.put_if_absent("data/ab/0", b"x")
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    store.put_if_absent("data/ab/1", b"x")
    assert [step.partition(INCOMING)[0] for step in done] == ["sync /", "link", "sync /data/ab"]
    done.clear()
    store.put_if_absent("data/cd/1", b"x")
    assert done[0] == "sync /data"
    assert done[-2:] == ["link", "sync /data/cd"]
    done.clear()
    store.delete(["data/ab/0", "data/ab/1", "data/cd/1"])
    assert done == ["sync /data/ab", "sync /data/cd"]
    store.close()


def test_a_win_by_equal_bytes_is_durable_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = DirectoryStore(folder), DirectoryStore(folder)
    first.put_if_absent("log/1", b"x")
    second.put_if_absent("log/0", b"x")
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    second.put_if_absent("log/1", b"x")
    assert str(folder / "log") in synced
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, StoreUnavailable), (errno.EIO, StoreUnavailable), (errno.EROFS, StoreDenied)],
)
def test_errors_of_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    store = DirectoryStore(folder)

    def fail(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(expected, match=os.strerror(code)):
            store.put_if_absent("log/1", b"x")
    assert list(store.list("")) == []
    assert list((folder / INCOMING).glob("*")) == [] if (folder / INCOMING).exists() else True
    store.put_if_absent("log/1", b"x")
    store.close()


def test_leftovers_of_killed_writers_are_swept(folder: Path) -> None:
    store = open_store(folder.as_uri())
    store.put_if_absent("log/1", b"x")
    old, new = folder / INCOMING / "old", folder / INCOMING / "new"
    for path in (old, new):
        path.write_bytes(b"half of an obj")
    then_ns = old.stat().st_mtime_ns - STALE_NS - 10**9
    os.utime(old, ns=(then_ns, then_ns))
    store.close()
    store = open_store(folder.as_uri())
    assert not old.exists()
    assert new.exists()
    assert [info.key for info in store.list("")] == ["log/1"]
    store.close()


def test_a_writer_that_was_taken_for_dead_begins_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(folder)
    link = os.link

    def swept(source: str, *args: object, **more: object) -> None:
        (folder / source).unlink()
        link(source, *args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", swept)
        with pytest.raises(StoreUnavailable) as caught:
            store.put_if_absent("log/1", b"x")
    assert caught.value.retryable
    store.put_if_absent("log/1", b"x")
    store.close()


def test_directories_that_vanish_are_made_again(folder: Path) -> None:
    store = open_store(folder.as_uri())
    store.put_if_absent("data/ab/1", b"x")
    store.delete(["data/ab/1"])
    (folder / "data" / "ab").rmdir()
    (folder / INCOMING).rmdir()
    store.put_if_absent("data/ab/2", b"y")
    assert store.get("data/ab/2") == b"y"
    store.close()


def test_a_directory_that_is_gone_is_no_empty_store(folder: Path) -> None:
    store = DirectoryStore(folder)
    store.put_if_absent("log/1", b"x")
    (folder / "log" / "1").unlink()
    (folder / "log").rmdir()
    (folder / INCOMING).rmdir()
    folder.rmdir()
    folder.mkdir()  # An empty one in its place, as an unmounted disk leaves it.
    for ask in (
        lambda: store.get("log/1"),
        lambda: store.stat("log/1"),
        lambda: store.put_if_absent("log/1", b"other"),
        lambda: list(store.list("")),
        store.date_ns,
        store.check,
    ):
        with pytest.raises(BucketMissing, match="another one than before"):
            ask()
    assert list(folder.iterdir()) == []
    store.close()


def test_foreign_files_are_not_objects(folder: Path) -> None:
    store = DirectoryStore(folder)
    store.put_if_absent("log/1", b"x")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "log" / "link").symlink_to(folder / "log" / "1")
    (folder / "log" / "folder").mkdir()
    assert [info.key for info in store.list("")] == ["log/1"]
    with pytest.raises(StoreUnavailable):
        store.get("log/link")
    store.close()


def test_a_list_that_is_not_read_to_its_end_keeps_nothing_open(folder: Path) -> None:
    store = DirectoryStore(folder)
    for at in range(5):
        store.put_if_absent(f"log/{at}", b"x")
    found = store.list("log/")
    next(found)
    store.close()
    del found
    assert str(folder) not in {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    }
