"""Whoever holds the bucket meddles with segments (S-44): never other bytes, always an error that
names what happened, nothing else harmed; and when the right bytes are back, so is the file."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from lucid.errors import CorruptBlock, CorruptObject, DataError, StoreUnavailable, TimedOut
from lucid.filespace import Filespace
from tests.filespace.spaces import BLOCK, WAIT_S, parts_of, some_bytes
from tests.hostile.scene import Scene, flipped, other_filespace

TAG = 32
SEALED = BLOCK + TAG
LARGE = some_bytes(1, 5 * BLOCK)
OTHER = some_bytes(2, 4 * BLOCK)


def two_files(scene: Scene) -> tuple[str, str]:
    """The segments of /large and /other, made by machine "maker"."""
    with scene.connect("maker") as fs:
        fs.write_bytes("/large", LARGE)
        fs.sync(timeout=WAIT_S)
        fs.write_bytes("/other", OTHER)
        fs.sync(timeout=WAIT_S)
        fs.write_bytes("/small", b"small")
    large, other, _ = scene.segments()
    return large, other


def assert_refused(
    fs: Filespace, path: str, error: type[DataError] = CorruptBlock, says: str = "altered"
) -> None:
    """Reading is an error, EIO for a program, exit code 8 for a command, again and again."""
    for _ in range(2):
        with pytest.raises(error, match=says) as caught:
            fs.read_bytes(path)
        assert (caught.value.errno, caught.value.exit_code) == (errno.EIO, 8)
        assert str(caught.value).endswith(".")


def readable(fs: Filespace, path: str, whole: bytes) -> list[int]:
    """Which blocks can be read. What can be read is right."""
    good = []
    with fs.open(path, "rb", 0) as file:
        for block in range(len(whole) // BLOCK):
            file.seek(block * BLOCK)
            try:
                assert file.read(BLOCK) == whole[block * BLOCK : (block + 1) * BLOCK]
                good.append(block)
            except DataError:
                continue
    return good


def test_two_segments_that_are_swapped(scene: Scene) -> None:
    """S-44, S-45."""
    large, other = two_files(scene)
    scene.swap(large, other)
    with scene.connect() as fs:
        assert_refused(fs, "/large", DataError, r"altered|cut short")
        assert fs.status().problem.startswith("A read of /large failed: ")
        assert_refused(fs, "/other")
        assert fs.status().problem.startswith("A read of /other failed: ")
        assert (readable(fs, "/large", LARGE), readable(fs, "/other", OTHER)) == ([], [])
        assert fs.read_bytes("/small") == b"small"
        scene.swap(large, other)
        assert fs.read_bytes("/large") == LARGE
        assert fs.read_bytes("/other") == OTHER


def blocks_swapped(data: bytes) -> bytes:
    return data[SEALED : 2 * SEALED] + data[:SEALED] + data[2 * SEALED :]


def a_block_twice(data: bytes) -> bytes:
    return data[:SEALED] * 2 + data[2 * SEALED :]


def cut_in_the_first_unit(data: bytes) -> bytes:
    return data[:1000]


def cut_in_the_middle(data: bytes) -> bytes:
    return data[: 2 * SEALED + 5]


def bytes_taken_out(data: bytes) -> bytes:
    return data[: SEALED + 7] + data[SEALED + 8 :]


def bytes_put_in(data: bytes) -> bytes:
    return data[: SEALED + 7] + b"x" + data[SEALED + 7 :]


ALTERED: dict[str, tuple[Callable[[bytes], bytes], list[int]]] = {
    "two blocks swapped": (blocks_swapped, [2, 3, 4]),
    "a block at two places": (a_block_twice, [0, 2, 3, 4]),
    "one bit flipped": (lambda data: flipped(data, 3 * SEALED + 9), [0, 1, 2, 4]),
    "zeros": (lambda data: bytes(len(data)), []),
    "cut at the beginning": (cut_in_the_first_unit, []),
    "cut in the middle": (cut_in_the_middle, [0, 1]),
    "a byte taken out": (bytes_taken_out, [0]),
    "a byte put in": (bytes_put_in, [0]),
    "empty": (lambda data: b"", []),
}


@pytest.mark.parametrize("how", ALTERED)
def test_a_segment_that_is_altered(scene: Scene, how: str) -> None:
    """Each block is its own: those that are whole are read, and the others when they are back."""
    change, whole = ALTERED[how]
    large, _ = two_files(scene)
    before = scene.get(large)
    scene.replace(large, change(before))
    with scene.connect() as fs:
        assert_refused(fs, "/large", DataError, r"altered|cut short")
        assert set(readable(fs, "/large", LARGE)) <= set(whole)
        assert fs.read_bytes("/other") == OTHER
        assert fs.read_bytes("/small") == b"small"
        scene.replace(large, before)
        assert fs.read_bytes("/large") == LARGE
    scene.replace(large, change(before))
    assert any(large[-64:] in problem for problem in scene.check(read_data=True).problems)


def test_bytes_behind_a_segment(scene: Scene) -> None:
    """They are never asked for; fsck names them."""
    large, _ = two_files(scene)
    scene.replace(large, scene.get(large) + b"more")
    with scene.connect() as fs:
        assert fs.read_bytes("/large") == LARGE
    assert any(large[-64:] in problem for problem in scene.check().problems)


def test_an_older_content_in_the_place_of_the_newer(scene: Scene) -> None:
    with scene.connect("maker") as fs:
        fs.write_bytes("/file", LARGE)
        fs.sync(timeout=WAIT_S)
        (old,) = scene.segments()
        fs.write_bytes("/file", some_bytes(3, 5 * BLOCK))
        fs.sync(timeout=WAIT_S)
    (new,) = set(scene.segments()) - {old}
    scene.replace(new, scene.get(old))
    with scene.connect() as fs:
        assert_refused(fs, "/file")


def test_a_segment_of_another_filespace(scene: Scene) -> None:
    large, _ = two_files(scene)
    foreign = [data for key, data in other_filespace().items() if key.startswith("data/")]
    scene.replace(large, max(foreign, key=len))
    with scene.connect() as fs:
        assert_refused(fs, "/large")


def test_a_segment_that_is_removed(scene: Scene) -> None:
    large, _ = two_files(scene)
    before = scene.get(large)
    scene.remove(large)
    with scene.connect() as fs:
        assert_refused(fs, "/large", CorruptObject, "not in the store")
        assert fs.read_bytes("/other") == OTHER
        scene.put(large, before)
        assert fs.read_bytes("/large") == LARGE


def test_wrong_bytes_once(scene: Scene) -> None:
    """S-44: fetched again, and nobody notices."""
    large, _ = two_files(scene)
    with scene.connect() as fs:
        lies = scene.lies["a"]
        lies.instead[large] = flipped(scene.get(large), 70)
        fetcher = parts_of(fs).fetcher
        demand = fetcher.demand
        asked = []

        def demand_twice(ranges: object) -> object:
            asked.append(ranges)
            if len(asked) == 2:
                lies.honest()
            return demand(ranges)  # type: ignore[arg-type]

        fetcher.demand = demand_twice  # type: ignore[assignment, method-assign]
        assert fs.read_bytes("/large") == LARGE
        assert len(asked) >= 2


def test_what_is_cached_does_not_depend_on_the_store(scene: Scene) -> None:
    large, _ = two_files(scene)
    with scene.connect() as fs:
        assert fs.read_bytes("/large") == LARGE
        scene.replace(large, bytes(100))
        assert fs.read_bytes("/large") == LARGE
    with scene.connect() as fs:
        assert fs.read_bytes("/large") == LARGE


def test_a_change_in_a_block_whose_rest_was_altered(scene: Scene) -> None:
    """A write into it cannot be built. It is kept, said to be, and sent when the block is back."""
    large, _ = two_files(scene)
    before = scene.get(large)
    scene.replace(large, flipped(before, SEALED + 10))
    fs = scene.connect()
    with fs.open("/large", "r+b", 0) as file:
        file.seek(BLOCK + 100)
        assert file.write(b"written") == 7
    fs.write_bytes("/new", b"not harmed")
    with pytest.raises(DataError, match="altered"):
        fs.sync(timeout=WAIT_S)
    assert "altered" in fs.status().problem
    scene.replace(large, before)
    fs.close(wait=False)
    with scene.connect() as fs:
        fs.sync(timeout=WAIT_S)
        expected = LARGE[: BLOCK + 100] + b"written" + LARGE[BLOCK + 107 :]
        assert fs.read_bytes("/large") == expected
    with scene.connect("b") as other:
        assert other.read_bytes("/large") == expected
        assert other.read_bytes("/new") == b"not harmed"


def test_a_name_that_is_taken_before_the_segment_comes(scene: Scene) -> None:
    """The store answers 503 and keeps something else. Nothing is published before it is right."""
    fs = scene.connect()
    scene.lies["a"].taken = taker = _Takes(scene)
    fs.write_bytes("/file", LARGE)
    with pytest.raises(TimedOut, match="other bytes"):
        fs.sync(timeout=0.6)
    assert fs.read_bytes("/file") == LARGE
    assert fs.status().staged_bytes > len(LARGE)
    with scene.connect("b") as other:
        assert other.listdir("/") == []
    taker.give_back()
    fs.sync(timeout=WAIT_S)
    with scene.connect("c") as other:
        assert other.read_bytes("/file") == LARGE


class _Takes:
    """A store that keeps other bytes than it was given, under names of segments."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._taken: list[str] = []
        self._honest = False

    def put_if_absent(self, key: str, body: object) -> None:
        if key.startswith("data/") and not self._honest and key not in self._taken:
            self._taken.append(key)
            self._scene.put(key, b"something else")
            raise StoreUnavailable("The store is busy.")
        self._scene.hand.put_if_absent(key, body)  # type: ignore[arg-type]

    def give_back(self) -> None:
        self._honest = True
        self._scene.remove(*self._taken)


def test_a_segment_that_the_store_says_it_kept(scene: Scene) -> None:
    """It did not. Here the bytes are still read; elsewhere the file is an error, never zeros."""
    fs = scene.connect()
    scene.lies["a"].swallowed = ("data/",)
    fs.write_bytes("/file", LARGE)
    fs.sync(timeout=WAIT_S)
    assert fs.read_bytes("/file") == LARGE
    with scene.connect("b") as other:
        assert_refused(other, "/file", CorruptObject, "not in the store")
    assert any("not in the store" in problem for problem in scene.check().problems)
    scene.lies["a"].honest()
    fs.write_bytes("/file", fs.read_bytes("/file"))
    fs.sync(timeout=WAIT_S)
    with scene.connect("c") as other:
        assert other.read_bytes("/file") == LARGE


def test_a_body_that_drips(scene: Scene) -> None:
    """A read ends in time, and writes do not wait for it."""
    two_files(scene)
    with scene.connect(read_timeout_s=0.3) as fs:
        scene.lies["a"].drips.clear()
        with pytest.raises(StoreUnavailable, match="did not answer within") as caught:
            fs.read_bytes("/large")
        assert caught.value.errno == errno.EIO
        fs.write_bytes("/new", b"new")
        fs.sync(timeout=WAIT_S)
        scene.lies["a"].honest()
        assert fs.read_bytes("/large") == LARGE
