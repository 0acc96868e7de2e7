"""The contract of `ObjectStore`, line by line, on every store, bare and under the whole stack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lucid.errors import ObjectExists, ObjectMissing, Stopped, UsageError
from lucid.store import ObjectInfo, ObjectStore
from lucid.store.directory import DirectoryStore
from lucid.store.memory import MemoryStore
from tests.contract.stores import Opener, bare_of

BODY = bytes(range(256)) * 4


def keys_of(store: ObjectStore, prefix: str, start_after: str = "") -> list[str]:
    return [info.key for info in store.list(prefix, start_after)]


def in_parallel(jobs: list[Callable[[], None]]) -> None:
    """Run all at once; whatever one of them raises fails the test."""
    faults: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            barrier.wait(30)
            job()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if faults:
        raise faults[0]


def test_what_was_put_is_got(store: ObjectStore) -> None:
    store.put_if_absent("log/0000000000000001", BODY)
    assert store.get("log/0000000000000001") == BODY


def test_sizes(store: ObjectStore) -> None:
    for size in (0, 1, 16 << 10, (16 << 10) + 1, (1 << 20) + 7):
        key = f"data/ab/{size}"
        body = (BODY * (size // len(BODY) + 1))[:size]
        store.put_if_absent(key, body)
        buffer = bytearray(size + 5)
        assert store.get(key) == body
        assert store.get_into(key, 0, buffer) == size
        assert buffer[:size] == body
        assert store.stat(key).size == size


def test_a_body_may_come_in_parts(store: ObjectStore) -> None:
    parts = [b"ab", bytearray(b"cd"), memoryview(b"-efg-")[1:4], b"", memoryview(BODY).cast("I")]
    store.put_if_absent("data/parts", parts)
    assert store.get("data/parts") == b"abcdefg" + BODY


RANGES = [(0, 1), (0, 1024), (0, 2000), (5, None), (1000, 100), (1023, 1), (1024, 1), (5000, 7)]


def test_ranges(store: ObjectStore) -> None:
    store.put_if_absent("data/range", BODY)
    for start, length in RANGES:
        expected = BODY[start:] if length is None else BODY[start : start + length]
        assert store.get("data/range", start, length) == expected
        buffer = bytearray(b"\xee" * (length or 2000))
        assert store.get_into("data/range", start, buffer) == len(expected)
        assert buffer[: len(expected)] == expected
        assert set(buffer[len(expected) :]) <= {0xEE}


def test_range_of_an_empty_object(store: ObjectStore) -> None:
    store.put_if_absent("data/empty", b"")
    assert store.get("data/empty", 0, 10) == b""
    assert store.get("data/empty", 3) == b""
    assert store.get_into("data/empty", 0, bytearray(10)) == 0


def test_data_is_told_as_it_comes(store: ObjectStore) -> None:
    body = BODY * 2048
    store.put_if_absent("data/told", body)
    buffer = bytearray(len(body))
    told: list[int] = []

    def on_data(count: int) -> None:
        # What is told is in the buffer already.
        assert buffer[:count] == body[:count]
        told.append(count)

    assert store.get_into("data/told", 0, buffer, on_data) == len(body)
    assert told == sorted(set(told))
    assert told[-1] == len(body)
    if not isinstance(bare_of(store), (MemoryStore, DirectoryStore)):
        assert len(told) > 2


def test_what_on_data_raises_ends_the_read(store: ObjectStore) -> None:
    store.put_if_absent("data/told", BODY)

    def on_data(_count: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        store.get_into("data/told", 0, bytearray(10), on_data)
    assert store.get("data/told", 0, 10) == BODY[:10]


def test_buffers_are_free_afterwards(store: ObjectStore) -> None:
    body, buffer = bytearray(b"first"), bytearray(5)
    store.put_if_absent("data/free", body)
    store.get_into("data/free", 0, buffer)
    body[:] = b"other"
    body.extend(b"resized")  # Would raise BufferError if somebody still held a view.
    buffer.extend(b"resized")
    assert store.get("data/free") == b"first"
    with pytest.raises(ObjectExists) as kept:
        store.put_if_absent("data/free", body)
    body.extend(b"again")
    assert kept.value.__traceback__ is not None


def test_missing(store: ObjectStore) -> None:
    for ask in (
        lambda: store.get("log/none"),
        lambda: store.get("log/none", 5, 5),
        lambda: store.get_into("log/none", 0, bytearray(4)),
        lambda: store.stat("log/none"),
    ):
        with pytest.raises(ObjectMissing, match="log/none"):
            ask()


def test_a_name_is_given_once(store: ObjectStore) -> None:
    store.put_if_absent("log/1", b"first")
    for other in (b"", b"firs", b"First", b"firstly"):
        with pytest.raises(ObjectExists):
            store.put_if_absent("log/1", other)
    assert store.get("log/1") == b"first"


def test_the_same_bytes_win_again(store: ObjectStore, open_client: Opener) -> None:
    store.put_if_absent("log/1", [b"fi", b"rst"])
    store.put_if_absent("log/1", b"first")
    open_client().put_if_absent("log/1", b"first")


def test_of_many_writers_one_wins(open_client: Opener) -> None:
    # Few: SeaweedFS lets racers wait for each other, a second at a time.
    clients = [open_client() for _ in range(2)]
    for turn in range(3):
        won: list[bytes] = []

        def write(
            client: ObjectStore, body: bytes, won: list[bytes] = won, turn: int = turn
        ) -> None:
            try:
                client.put_if_absent(f"log/{turn}", body)
            except ObjectExists:
                return
            won.append(body)

        jobs = [
            lambda at=at, write=write: write(clients[at % 2], b"writer %d" % at)  # type: ignore[misc]
            for at in range(4)
        ]
        in_parallel(jobs)
        assert len(won) == 1
        assert {client.get(f"log/{turn}") for client in clients} == {won[0]}


def test_many_readers_at_once(store: ObjectStore) -> None:
    bodies = {f"data/{at:02x}/x": BODY[at:] * 50 for at in range(8)}
    for key, body in bodies.items():
        store.put_if_absent(key, body)

    def read(key: str) -> None:
        for start in range(0, 2000, 400):
            buffer = bytearray(300)
            assert store.get_into(key, start, buffer) == 300
            assert buffer == bodies[key][start : start + 300]
            assert store.get(key) == bodies[key]

    in_parallel([lambda key=key: read(key) for key in bodies])  # type: ignore[misc]


def test_list_within_a_folder_is_in_byte_order(store: ObjectStore) -> None:
    names = ["A", "Z", "_", "a", "a-", "a-b", "a.b", "aa", "b", "0", "9"]
    for name in names:
        store.put_if_absent(f"log/{name}", name.encode())
    expected = [f"log/{name}" for name in sorted(names)]
    assert keys_of(store, "log/") == expected
    for after in expected:
        assert keys_of(store, "log/", after) == [key for key in expected if key > after]
    assert keys_of(store, "log/", "log/a0") == [key for key in expected if key > "log/a0"]
    assert keys_of(store, "log/", "log/zz") == []


def test_list_by_prefix(store: ObjectStore) -> None:
    keys = ["data/ab/1", "data/ab/2", "data/abc/3", "data/b", "log/1", "superblock"]
    for key in keys:
        store.put_if_absent(key, b"x")
    assert sorted(keys_of(store, "")) == keys
    assert sorted(keys_of(store, "data/")) == keys[:4]
    assert sorted(keys_of(store, "data/ab")) == keys[:3]
    assert keys_of(store, "data/ab/") == keys[:2]
    assert keys_of(store, "superblock") == ["superblock"]
    assert keys_of(store, "floor/") == []
    assert keys_of(store, "log/1/") == []


def test_list_of_nested_folders_is_complete_from_any_point(store: ObjectStore) -> None:
    keys = ["a/b", "a-b", "a.c", "b", "a/c/d", "a/c-d", "a/c.x", "a/c/d0", "c/d/e/f"]
    for key in keys:
        store.put_if_absent(key, b"x")
    whole = keys_of(store, "")
    assert sorted(whole) == sorted(keys)
    for at, key in enumerate(whole):
        assert keys_of(store, "", key) == whole[at + 1 :]


def test_list_limits(store: ObjectStore) -> None:
    for at in range(7):
        store.put_if_absent(f"log/{at}", b"x")
    assert [info.key for info in store.list("log/", limit=3)] == ["log/0", "log/1", "log/2"]
    assert [info.key for info in store.list("log/", "log/4", limit=3)] == ["log/5", "log/6"]
    assert list(store.list("log/", limit=0)) == []


def test_list_goes_over_pages(store: ObjectStore) -> None:
    keys = [f"log/{at:04x}" for at in range(1005)]
    in_parallel(
        [
            lambda part=part: [store.put_if_absent(key, b"") for key in keys[part::8]] and None  # type: ignore[misc]
            for part in range(8)
        ]
    )
    before = store.counters.of("list").requests
    assert keys_of(store, "log/") == keys
    assert 1 <= store.counters.of("list").requests - before <= 3
    assert [info.key for info in store.list("log/", keys[10], 1100)] == keys[11:]
    store.delete(keys)
    assert keys_of(store, "") == []


def test_list_tells_size_and_time(store: ObjectStore) -> None:
    store.put_if_absent("log/1", BODY)
    (info,) = store.list("log/")
    assert info == store.stat("log/1") == ObjectInfo("log/1", len(BODY), info.modified_ns)


def test_times_are_by_the_store_and_go_forward(store: ObjectStore) -> None:
    store.put_if_absent("log/1", b"x")
    modified_ns, date_ns = store.stat("log/1").modified_ns, store.date_ns()
    assert store.last_date_ns is not None
    assert abs(date_ns - modified_ns) < 30e9
    assert abs(date_ns - time.time_ns()) < 60e9
    assert store.last_date_ns >= date_ns - 10**9


def test_delete(store: ObjectStore) -> None:
    for key in ("a/1", "a/2", "a/3", "b"):
        store.put_if_absent(key, b"x")
    store.delete(["a/1", "a/never", "b"])
    assert keys_of(store, "") == ["a/2", "a/3"]
    store.delete(["a/2"])
    store.delete(["a/2"])
    store.delete([])
    store.delete(key for key in ["a/3"])
    assert keys_of(store, "") == []
    store.put_if_absent("a/1", b"a new life")
    assert store.get("a/1") == b"a new life"


IMPOSSIBLE = ["", "/a", "a/", "a//b", "../a", "a/..", "a/./b", ".a", "a/.b", "a b", "a\n", "é"]
IMPOSSIBLE += ["a?b", "a%41", "a" * 513, "a\\b", "a\0"]


def test_impossible_names(store: ObjectStore) -> None:
    before = store.counters.requests
    asks: list[Callable[[str], object]] = [
        store.get,
        lambda key: store.get_into(key, 0, bytearray(1)),
        lambda key: store.put_if_absent(key, b"x"),
        store.stat,
        lambda key: store.delete([key]),
    ]
    for key in IMPOSSIBLE:
        for ask in asks:
            with pytest.raises(UsageError):
                ask(key)
    assert store.counters.requests == before


def test_impossible_ranges(store: ObjectStore) -> None:
    with pytest.raises(UsageError):
        store.get("a", -1)
    with pytest.raises(UsageError):
        store.get("a", 0, -1)
    with pytest.raises(UsageError):
        store.get_into("a", -1, bytearray(1))


def test_an_empty_range_asks_nothing(store: ObjectStore) -> None:
    before = store.counters.requests
    assert store.get("never/there", 3, 0) == b""
    assert store.get_into("never/there", 3, bytearray()) == 0
    assert store.counters.requests == before


def test_requests_are_counted(store: ObjectStore) -> None:
    store.put_if_absent("log/1", BODY)
    assert store.counters.of("put").requests == 1
    assert store.counters.of("put").sent == len(BODY)
    assert store.counters.of("get").requests == 0
    store.get("log/1", 0, 100)
    store.get_into("log/1", 0, bytearray(10))
    assert store.counters.of("get").requests == 2
    assert store.counters.of("get").received == 110
    store.stat("log/1")
    list(store.list("log/"))
    store.delete(["log/1"])
    counts = store.counters.snapshot()
    assert {name: count.requests for name, count in counts.items()} == {
        "put": 1, "get": 2, "stat": 1, "list": 1, "delete": 1,
    }  # fmt: skip


def test_the_background_view_is_the_same_store(store: ObjectStore) -> None:
    background = store.background()
    background.put_if_absent("data/1", b"x")
    assert store.get("data/1") == b"x"
    assert background.url == store.url
    assert background.counters is store.counters
    assert background.background().get("data/1") == b"x"


def test_check_and_warm_and_lifecycle(store: ObjectStore) -> None:
    store.check()
    store.warm()
    store.warm()
    assert list(store.lifecycle_warnings()) == []
    assert "secret" not in store.url


def test_closed(store: ObjectStore) -> None:
    store.put_if_absent("log/1", b"x")
    store.close()
    store.close()
    for ask in (
        lambda: store.get("log/1"),
        lambda: store.get_into("log/1", 0, bytearray(1)),
        lambda: store.put_if_absent("log/2", b"x"),
        lambda: store.stat("log/1"),
        lambda: list(store.list("")),
        lambda: store.delete(["log/1"]),
        store.date_ns,
        store.check,
    ):
        with pytest.raises(Stopped):
            ask()
    store.warm()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.binary(max_size=300), max_size=4),
    start=st.integers(0, 1500),
    length=st.integers(0, 1500),
)
def test_any_body_and_any_range(
    store: ObjectStore, parts: list[bytes], start: int, length: int
) -> None:
    whole = b"".join(parts)
    key = f"data/{hash((whole, start, length)) & 0xFFFFFFFFFFFF:x}"
    store.put_if_absent(key, parts)
    assert store.get(key, start, length) == whole[start : start + length]
    store.delete([key])
