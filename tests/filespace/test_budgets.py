"""What operations cost at the store, counted there: requests and bytes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from lucid.filespace import Filespace
from lucid.store.base import Body, ObjectStore, OnData, StoreLayer
from lucid.store.memory import Bucket, MemoryStore
from tests.filespace.spaces import BLOCK, WAIT_S, Space, new_bucket, open_on, parts_of, some_bytes

MiB = 1024 * 1024
LARGE = 64 * MiB


class CountingStore(StoreLayer):
    """Counts requests by the first part of their keys, and bytes of data that came."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.counts: Counter[str] = Counter()
        self.data_bytes = 0

    def over(self, inner: ObjectStore) -> ObjectStore:
        return self

    def _count(self, method: str, key: str) -> None:
        self.counts[f"{method} {key.partition('/')[0]}"] += 1

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._count("get", key)
        return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        self._count("get", key)
        count = self.inner.get_into(key, start, buffer, on_data)
        self.data_bytes += count
        return count

    def put_if_absent(self, key: str, body: Body) -> None:
        self._count("put", key)
        self.inner.put_if_absent(key, body)


@pytest.fixture(scope="module")
def large_bucket(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A filespace with one file of 64 MiB and 200 small ones, made once."""
    bucket = new_bucket(128 * 1024)
    fs = open_on(MemoryStore(bucket, name="team"), tmp_path_factory.mktemp("maker"))
    with fs, fs.open("/large", "wb", 0) as file:
        for number in range(LARGE // MiB):
            file.write(some_bytes(number, MiB))
        for number in range(200):
            fs.write_bytes(f"/small{number}", some_bytes(number, 4096))
    return bucket


class Cold:
    """The large filespace opened with an empty cache."""

    def __init__(self, space: Space, bucket) -> None:  # type: ignore[no-untyped-def]
        self.store = CountingStore(MemoryStore(bucket, name="team"))
        self.fs = open_on(self.store, space.state("cold"), poll_idle_s=3600.0, poll_fast_s=3600.0)
        self.fs.refresh(WAIT_S)
        self.store.counts.clear()
        self.store.data_bytes = 0

    def quiet(self) -> None:
        """Returns when no GET is under way any more."""
        parts_of(self.fs).fetcher.close()


@pytest.fixture
def cold(space: Space, large_bucket):  # type: ignore[no-untyped-def]
    made = Cold(space, large_bucket)
    yield made
    made.fs.close(wait=False)


def test_a_mebibyte_in_the_middle_costs_four_at_most(cold: Cold) -> None:
    tree = cold.fs.tree
    handle = tree.open(cold.fs.stat("/large").ino, os.O_RDONLY)
    for at in range(0, MiB, 128 * 1024):
        want = some_bytes(31, MiB)[at : at + 128 * 1024]
        assert bytes(tree.read(handle, 31 * MiB + at, 128 * 1024)) == want
    tree.release(handle)
    cold.quiet()
    assert MiB <= cold.store.data_bytes <= 4 * MiB


def test_the_first_bytes_come_after_one_get(cold: Cold) -> None:
    tree = cold.fs.tree
    handle = tree.open(cold.fs.stat("/large").ino, os.O_RDONLY)
    waited = 0
    real = parts_of(cold.fs).fetcher.demand

    def demand(ranges):  # type: ignore[no-untyped-def]
        nonlocal waited
        waited += 1
        return real(ranges)

    parts_of(cold.fs).fetcher.demand = demand  # type: ignore[method-assign]
    assert bytes(tree.read(handle, 0, 4096)) == some_bytes(0, MiB)[:4096]
    assert waited <= 1, "it may have come with the read-ahead already"
    tree.release(handle)


def test_a_random_read_is_one_get_of_a_block_or_two(cold: Cold) -> None:
    tree = cold.fs.tree
    handle = tree.open(cold.fs.stat("/large").ino, os.O_RDONLY)
    for number, at in enumerate(
        (50 * MiB + 5, 7 * MiB + 999, 33 * MiB, 12 * MiB + 77, 58 * MiB), 1
    ):
        want = some_bytes(at // MiB, MiB)[at % MiB : at % MiB + 4096]
        assert bytes(tree.read(handle, at, 4096)) == want
        assert cold.store.counts["get data"] == number
    tree.release(handle)
    cold.quiet()
    assert cold.store.data_bytes <= 5 * 3 * 128 * 1024


def test_a_whole_file_is_fetched_once(cold: Cold) -> None:
    tree = cold.fs.tree
    handle = tree.open(cold.fs.stat("/large").ino, os.O_RDONLY)
    for at in range(0, LARGE, MiB):
        assert bytes(tree.read(handle, at, MiB)) == some_bytes(at // MiB, MiB)
    tree.release(handle)
    cold.quiet()
    assert LARGE <= cold.store.data_bytes <= LARGE * 1.02
    assert cold.store.counts["get data"] <= 64


def test_small_files_share_their_gets(cold: Cold) -> None:
    for number in range(200):
        assert cold.fs.read_bytes(f"/small{number}") == some_bytes(number, 4096)
    assert cold.store.counts["get data"] <= 20


def _create(fs: Filespace) -> None:
    fs.write_bytes("/new", some_bytes(1, 4096))
    fs.sync(timeout=WAIT_S)


def _rename(fs: Filespace) -> None:
    fs.rename("/small1", "/renamed")
    fs.sync(timeout=WAIT_S)


def _unlink(fs: Filespace) -> None:
    fs.remove("/small2")
    fs.sync(timeout=WAIT_S)


def _many(fs: Filespace) -> None:
    for number in range(300):
        fs.write_bytes(f"/many{number}", b"x" * 1000)
    fs.sync(timeout=WAIT_S)


OPERATIONS: dict[str, tuple[Callable[[Filespace], object], dict[str, int]]] = {
    "stat": (lambda fs: fs.stat("/small3"), {}),
    "listdir": (lambda fs: fs.listdir("/"), {}),
    "open": (lambda fs: fs.open("/small3", "rb", 0).close(), {}),
    "xattr": (lambda fs: fs.tree.list_xattrs(fs.stat("/small3").ino), {}),
    "read 4 KiB": (lambda fs: fs.read_bytes("/small4"), {"get data": 1}),
    "create, write, close": (_create, {"put data": 1, "put log": 1}),
    "rename": (_rename, {"put log": 1}),
    "unlink": (_unlink, {"put log": 1}),
    "300 small files": (_many, {"put data": 60, "put log": 60}),
    "a look at the log": (lambda fs: fs.refresh(WAIT_S), {}),
}
LOOKS = {"get log": 3}
"""The log may be looked at whatever is done: once when asked, and before and after a commit."""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_requests_of_an_operation(space: Space, large_bucket, operation: str) -> None:  # type: ignore[no-untyped-def]
    bucket = Bucket()
    bucket.objects, bucket.keys = dict(large_bucket.objects), list(large_bucket.keys)
    cold = Cold(space, bucket)
    work, of_its_own = OPERATIONS[operation]
    allowed = {**LOOKS, **of_its_own}
    work(cold.fs)
    counts = dict(cold.store.counts)
    cold.fs.close(wait=False)
    assert set(counts) <= set(allowed), counts
    assert all(counts[what] <= allowed[what] for what in counts), counts


def test_the_memory_of_writing_is_bounded(space: Space) -> None:
    """Parts of blocks of many files never take more than their share (S-21)."""
    fs = space.connect("a", memory_bytes=48 * MiB, pool_bytes=16 * MiB)
    writing = parts_of(fs).memory.writing
    handles = []
    for number in range(400):
        handle, _ = fs.tree.create(1, b"f%d" % number, 0o644, 0, 0, os.O_RDWR)
        fs.tree.write(handle, 7, some_bytes(number, BLOCK - 100))
        assert writing.taken <= writing.total
        handles.append(handle)
    for number, handle in enumerate(handles):
        assert bytes(fs.tree.read(handle, 7, BLOCK)) == some_bytes(number, BLOCK - 100)
        fs.tree.flush(handle)
        fs.tree.release(handle)
    assert writing.taken == 0
