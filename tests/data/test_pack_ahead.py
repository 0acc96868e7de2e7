"""Who reads small files in the order in which they lie gets the next ones with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.data.pack_ahead import AHEAD_MAX, CACHE_SHARE, FIRST_AHEAD, FOLLOWED, RUN, PackStreams
from lucid.engine.cachemap import CacheMap
from lucid.filespace import Filespace
from tests.engine.rig import Rig
from tests.filespace.spaces import Space, parts_of

FILES = 400
SIZE = 9000


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as made:
        yield made


def body(at: int) -> bytes:
    return at.to_bytes(4, "little") * (SIZE // 4)


def read(fs: Filespace, path: str) -> bytes:
    with fs.open(path, "rb") as file:
        return bytes(file.read())


def slots(rig: Rig, count: int, size: int) -> tuple[CacheMap, list[int]]:
    cachemap = rig.cachemap
    return cachemap, [
        cachemap.acquire(bytes([at]) * 32, b"k" * 32, rig.context(1), size) for at in range(count)
    ]


def test_the_second_of_two_neighbours_asks_for_more(rig: Rig) -> None:
    cachemap, (slot, other) = slots(rig, 2, 8 << 20)
    packs = PackStreams(cachemap, 1 << 30)
    assert packs.read(slot, 0, SIZE) is None, "one file tells nothing, not even the first"
    assert packs.read(other, SIZE, SIZE) is None, "of another segment"
    want = packs.read(slot, SIZE, SIZE)
    assert want == (slot, 2 * SIZE, FIRST_AHEAD)


def test_what_is_read_here_and_there_asks_for_nothing(rig: Rig) -> None:
    cachemap, (slot,) = slots(rig, 1, (8 << 20) + 5000)
    packs = PackStreams(cachemap, 1 << 30)
    for at in (5, 7, 2, 4, 0, 3):
        assert packs.read(slot, at << 20, SIZE) is None


def test_who_comes_from_the_end_of_another_segment_goes_on_as_fast(rig: Rig) -> None:
    cachemap, (first, second, third) = slots(rig, 3, 8 << 20)
    packs = PackStreams(cachemap, 1 << 30)
    for at in range(RUN + 1):
        packs.read(first, at * SIZE, SIZE)
    want = packs.read(second, 0, SIZE)
    assert want is not None
    assert want[0] == second
    assert want[1] == SIZE
    assert packs.read(third, 4 << 20, SIZE) is None, "not where it would go on"
    assert packs.read(third, 0, SIZE) is None, "nothing goes on any more"


def test_it_goes_on_to_the_end_and_not_beyond(rig: Rig) -> None:
    size = (8 << 20) + 5000
    cachemap, (slot,) = slots(rig, 1, size)
    packs = PackStreams(cachemap, 1 << 30)
    asked = []
    for offset in range(0, size - SIZE, SIZE):
        want = packs.read(slot, offset, SIZE)
        if want is not None:
            asked.append(want[1:])
    ends = [start + length for start, length in asked]
    assert [start for start, _ in asked[1:]] == ends[:-1], "no gap and nothing twice"
    assert ends[-1] == size
    assert max(length for _, length in asked) <= AHEAD_MAX


def test_the_longest_unused_is_followed_no_more(rig: Rig) -> None:
    cachemap, all_slots = slots(rig, FOLLOWED + 1, 8 << 20)
    packs = PackStreams(cachemap, 1 << 30)
    for slot in all_slots:
        packs.read(slot, 0, SIZE)
    assert packs.read(all_slots[0], SIZE, SIZE) is None
    assert packs.read(all_slots[-1], SIZE, SIZE) is not None


def test_a_small_cache_gets_little_or_nothing_ahead(rig: Rig) -> None:
    cachemap, (slot,) = slots(rig, 1, 8 << 20)
    few = PackStreams(cachemap, 4 * FIRST_AHEAD * CACHE_SHARE)
    asked = [few.read(slot, offset, SIZE) for offset in range(0, 4 << 20, SIZE)]
    assert max(want[2] for want in asked if want) <= 4 * FIRST_AHEAD
    none = PackStreams(cachemap, FIRST_AHEAD * CACHE_SHARE - 1)
    assert not any(none.read(slot, offset, SIZE) for offset in range(0, 4 << 20, SIZE))


def test_few_requests_bring_many_files(tmp_path: Path) -> None:
    """And a single file, from the middle, brings its own part only."""
    space = Space(tmp_path)
    writer = space.connect("writer")
    for at in range(FILES):
        with writer.open(f"/f{at:03}", "wb") as file:
            file.write(body(at))
    writer.sync()
    lone = space.connect("lone")
    before = parts_of(lone).fetcher.bytes_fetched
    assert read(lone, "/f200") == body(200)
    assert parts_of(lone).fetcher.bytes_fetched - before <= 3 * 64 * 1024
    reader = space.connect("reader")
    asked = parts_of(reader).store.counters.of("get").requests
    for at in range(FILES):
        assert read(reader, f"/f{at:03}") == body(at)
    requests = parts_of(reader).store.counters.of("get").requests - asked
    assert requests < 25, "3.6 MB in pieces of 64 KiB are 56"
    space.close()


def test_who_comes_to_the_end_of_a_segment_finds_the_next_one_begun(tmp_path: Path) -> None:
    """Reads in order never wait at a segment's beginning; a single file brings nothing of it."""
    space = Space(tmp_path)
    writer = space.connect("writer")
    for at in range(FILES):
        with writer.open(f"/f{at:03}", "wb") as file:
            file.write(body(at))
        if at % (FILES // 2) == FILES // 2 - 1:
            writer.sync()  # Ends the pack.

    def is_local(fs: Filespace, at: int) -> bool:
        parts = parts_of(fs)
        found = parts.file_maps.newest(fs.stat(f"/f{at:03}").ino)
        return parts.reader.is_local(found, 0, SIZE)

    lone = space.connect("lone")
    read(lone, f"/f{FILES // 2 - 1:03}")
    reader = space.connect("reader")
    for at in range(FILES // 2):
        assert read(reader, f"/f{at:03}") == body(at)
    parts = parts_of(reader)
    following = parts.file_maps.newest(reader.stat(f"/f{FILES // 2:03}").ino)
    (slot, offset, _), *_ = following.needs(0, SIZE)
    assert parts.fetcher.is_coming(slot, offset) or is_local(reader, FILES // 2)
    parts_of(lone).fetcher.close()
    assert not is_local(lone, FILES // 2)
    space.close()


def test_behind_the_last_file_is_nothing(tmp_path: Path) -> None:
    space = Space(tmp_path)
    fs = space.connect()
    for name in ("a", "b"):
        with fs.open(f"/{name}", "wb") as file:
            file.write(body(1))
        fs.sync()
    replica = parts_of(fs).replica
    first, last = (fs.stat(f"/{name}").ino for name in ("a", "b"))
    segments = [replica.map_columns(ino).segments[0].id for ino in (first, last)]  # type: ignore[union-attr]
    behind = replica.segment_behind(first, segments[0])
    assert behind is not None
    assert behind.id == segments[1]
    assert replica.segment_behind(first, segments[1]) is None
    assert replica.segment_behind(last, segments[1]) is None
    space.close()
