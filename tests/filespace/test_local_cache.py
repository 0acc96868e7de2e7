"""The cache while files are read: it keeps its limit, nobody trusts it, and it may fail (S-44)."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from lucid.filespace import Filespace
from lucid.local.disk import Buffer, RealDisk
from lucid.store.faulty import Fault, FaultPlan
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes

MiB = 1024 * 1024
FILES = {f"/f{n}": some_bytes(n, 9 * MiB) for n in range(5)}


@pytest.fixture
def filled(space: Space) -> Space:
    with space.connect("maker") as fs:
        for path, data in FILES.items():
            fs.write_bytes(path, data)
    return space


def cached_files(space: Space, name: str = "a") -> list[Path]:
    return sorted((space.state(name) / "cache").glob("*/*"))


def on_disk(space: Space) -> int:
    return sum(path.stat().st_blocks * 512 for path in cached_files(space))


def data_received(fs: Filespace) -> int:
    return parts_of(fs).store.counters.of("get").received


def test_it_keeps_its_limit_while_everything_is_read(filled: Space) -> None:
    limit = 20 * MiB
    with filled.connect("a", cache_bytes=limit) as fs:
        for _ in range(2):
            for path, data in FILES.items():
                assert fs.read_bytes(path) == data
                assert fs.status().cache_bytes <= limit + 17 * MiB
        assert on_disk(filled) <= limit + 17 * MiB
        assert fs.tree.clear_cache() > 0
        assert fs.status().cache_bytes == 0
        assert fs.read_bytes("/f0") == FILES["/f0"]


def test_a_large_file_that_is_read_once_leaves_first(filled: Space) -> None:
    """S-60: what was in use before stays, though it was used longer ago."""
    worked_on = some_bytes(99, 3 * MiB)
    with filled.connect("maker") as fs:
        fs.write_bytes("/worked on", worked_on)
    with filled.connect("a", cache_bytes=20 * MiB) as fs:
        assert fs.read_bytes("/worked on") == worked_on
        for path, data in FILES.items():
            assert fs.read_bytes(path) == data
        before = data_received(fs)
        assert fs.read_bytes("/worked on") == worked_on
        assert data_received(fs) - before < BLOCK


def test_what_is_cached_is_not_fetched_again_even_after_a_restart(filled: Space) -> None:
    with filled.connect("a") as fs:
        assert fs.read_bytes("/f1") == FILES["/f1"]
        before = data_received(fs)
        assert fs.read_bytes("/f1") == FILES["/f1"]
        assert data_received(fs) - before < BLOCK
    with filled.connect("a") as fs:
        assert fs.status().cache_bytes >= len(FILES["/f1"])
        before = data_received(fs)
        assert fs.read_bytes("/f1") == FILES["/f1"]
        assert data_received(fs) - before < BLOCK


@pytest.mark.parametrize("how", ["bits", "zeros", "cut", "removed"])
def test_a_damaged_cache_file_is_fetched_again(filled: Space, how: str) -> None:
    with filled.connect("a") as fs:
        assert fs.read_bytes("/f2") == FILES["/f2"]
    for path in cached_files(filled):
        size = path.stat().st_size
        if how == "removed":
            path.unlink()
        elif how == "cut":
            with path.open("r+b") as file:
                file.truncate(size // 3)
        else:
            with path.open("r+b") as file:
                file.seek(size // 2)
                file.write(b"\0" * 200_000 if how == "zeros" else some_bytes(99, 200_000))
    with filled.connect("a") as fs:
        assert fs.read_bytes("/f2") == FILES["/f2"]
        for path in cached_files(filled):
            path.unlink(missing_ok=True)
        assert fs.read_bytes("/f2") == FILES["/f2"], "removed beneath a running process"


def test_many_damaged_segments_of_one_file_are_fetched_again(space: Space) -> None:
    """As after loss of power: one read meets twelve of them."""
    want = b""
    with space.connect("maker") as fs:
        for number in range(12):
            with fs.open("/patchwork", "ab", 0) as file:
                file.write(some_bytes(number, BLOCK))
            fs.sync(timeout=WAIT_S)
            want += some_bytes(number, BLOCK)
    with space.connect("a") as fs:
        assert fs.read_bytes("/patchwork") == want
    assert len(cached_files(space)) >= 12
    for path in cached_files(space):
        path.write_bytes(bytes(path.stat().st_size))
    with space.connect("a") as fs:
        assert fs.read_bytes("/patchwork") == want


class CacheFails(RealDisk):
    """A disk that takes nothing below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fails = True
        self._inside: set[int] = set()

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        if self.directory in path.parents:
            self._inside.add(fd)
        else:
            self._inside.discard(fd)
        return fd

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        if self.fails and fd in self._inside:
            raise OSError(errno.EIO, "the cache disk is broken")
        super().pwrite(fd, data, offset)


def test_a_broken_cache_disk_is_gone_around(filled: Space) -> None:
    disk = CacheFails(filled.state("a") / "cache")
    with filled.connect("a", disk=disk) as fs:
        assert fs.read_bytes("/f3") == FILES["/f3"]
        assert "cache" in parts_of(fs).cache.problem
        assert fs.read_bytes("/f3") == FILES["/f3"]
        fs.write_bytes("/written", b"writing does not need the cache")
        fs.sync(timeout=WAIT_S)
        assert fs.read_bytes("/written") == b"writing does not need the cache"


def test_a_cache_disk_that_breaks_in_the_middle_of_a_file(filled: Space) -> None:
    """The block between what is cached and what goes around the cache lies half in each."""
    disk = CacheFails(filled.state("a") / "cache")
    disk.fails = False
    with filled.connect("a", disk=disk) as fs:
        with fs.open("/f3", "rb", 0) as file:
            assert file.read(3 * BLOCK) == FILES["/f3"][: 3 * BLOCK]
            disk.fails = True
            assert file.read() == FILES["/f3"][3 * BLOCK :]
        assert "cache" in parts_of(fs).cache.problem


def test_no_cache_at_all(filled: Space) -> None:
    with filled.connect("a", cache_bytes=0) as fs:
        assert fs.read_bytes("/f4") == FILES["/f4"]
        fs.write_bytes("/own", some_bytes(50, 3 * MiB))
        fs.sync(timeout=WAIT_S)
        assert fs.read_bytes("/own") == some_bytes(50, 3 * MiB)
        assert cached_files(filled) == []


@pytest.mark.parametrize("fault", [Fault.WRONG_BYTES, Fault.TRUNCATE, Fault.RESET])
def test_one_bad_answer_of_the_store_is_asked_again_or_told(filled: Space, fault: Fault) -> None:
    """Never wrong bytes: the right ones, or an error and the right ones the next time."""
    plan = FaultPlan()
    with filled.connect("a", plan=plan) as fs:
        plan.script("get", [fault], prefix="data/")
        try:
            found = fs.read_bytes("/f0")
        except OSError:
            raise
        except Exception as error:
            assert getattr(error, "errno", None) == errno.EIO
            found = fs.read_bytes("/f0")
        assert found == FILES["/f0"]


def test_many_readers_of_one_file_fetch_it_once(filled: Space) -> None:
    with filled.connect("a") as fs:
        fs.refresh(WAIT_S)
        before = data_received(fs)
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: found.append(fs.read_bytes("/f1")), daemon=True)
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert found == [FILES["/f1"]] * 8
        assert data_received(fs) - before <= len(FILES["/f1"]) * 1.1
