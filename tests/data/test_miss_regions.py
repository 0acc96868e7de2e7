"""Who waits here and there in one segment gets the rest of it; who looks at one or two places does
not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from lucid.data.fetch import GET_MAX
from lucid.data.miss_regions import FOLLOWED, NEAR, MissRegions
from lucid.data.miss_regions import PLACES as ENOUGH
from lucid.data.reading import LARGE_SHARE, SEGMENTS_LEAST
from lucid.data.segments import SEGMENT_PLAIN_MAX
from lucid.errors import Stopped
from lucid.filespace import Filespace
from tests.engine.rig import Rig
from tests.filespace.spaces import Space, parts_of

KiB, MiB = 1 << 10, 1 << 20
SIZE = 2 * SEGMENT_PLAIN_MAX
DATA = Random(7).randbytes(SIZE)
PLACES = (6 * MiB, 2 * MiB, 4 * MiB)
"""Not in order, and further apart than a reader in order skips."""
BROAD_CACHE = SEGMENTS_LEAST * SEGMENT_PLAIN_MAX


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as made:
        yield made


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    made = Space(tmp_path)
    yield made
    made.close()


def written(space: Space) -> None:
    writer = space.connect("writer")
    with writer.open("/film", "wb") as file:
        file.write(DATA)
    writer.sync()


def read(fs: Filespace, place: int) -> None:
    with fs.open("/film", "rb") as file:
        file.seek(place)
        assert file.read(4 * KiB) == DATA[place : place + 4 * KiB]


def is_local(fs: Filespace, offset: int, length: int) -> bool:
    parts = parts_of(fs)
    ino = fs.stat("/film").ino
    return parts.reader.is_local(parts.file_maps.newest(ino), offset, length)


def recorded(fs: Filespace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the bytes of each fetch that is begun ahead."""
    fetcher, begun = parts_of(fs).fetcher, list[int]()
    ahead = fetcher.ahead

    def told(ranges: Iterable[tuple[int, int, int]], get_max: int = GET_MAX) -> int:
        begun.append(ahead(ranges, get_max))
        return begun[-1]

    monkeypatch.setattr(fetcher, "ahead", told)
    return begun


def fetched(fs: Filespace) -> int:
    return parts_of(fs).fetcher.bytes_fetched


def test_the_last_of_a_few_places_brings_the_segment(rig: Rig) -> None:
    slots = [
        rig.cachemap.acquire(bytes([at]) * 32, b"k" * 32, rig.context(1), 8 * MiB) for at in (1, 2)
    ]
    regions = MissRegions(rig.cachemap)
    for place in PLACES[: ENOUGH - 1]:
        assert regions.missed(slots[0], place) is None
        assert regions.missed(slots[1], place) is None, "each segment for itself"
    assert regions.missed(slots[0], PLACES[-1]) == (slots[0], 0, 8 * MiB)
    assert regions.missed(slots[0], PLACES[-1]) is None, "it counts from the beginning again"


def test_what_the_cache_gives_up_again_takes_twice_as_many_places(rig: Rig) -> None:
    """Else a cache that is too small for what is read here and there brings each segment whole,
    for every three reads in it, without end."""
    apart = [place * (NEAR + 1) for place in range(6)]

    def times(places: Sequence[int]) -> int:
        found = 0
        for place in places:
            slot = rig.cachemap.acquire(b"s" * 32, b"k" * 32, rig.context(1), 8 * MiB)
            if regions.missed(slot, place) is not None:
                found += 1
                regions.fetched(slot)
            rig.cachemap.release(slot)
        return found

    regions = MissRegions(rig.cachemap)
    assert times(apart[:ENOUGH]) == 1
    assert times(apart[:ENOUGH]) == 0, "given up, and missed as often as the first time"
    assert times(apart[ENOUGH : 2 * ENOUGH]) == 1
    assert times(10 * apart) == 0, "a segment has no more places than that"


def test_reads_side_by_side_are_at_one_place(rig: Rig) -> None:
    slot = rig.cachemap.acquire(b"s" * 32, b"k" * 32, rig.context(1), 8 * MiB)
    regions = MissRegions(rig.cachemap)
    for at in (5, 7, 6, 4, 8, 5, 9, 10, 11, 12, 13, 20, 24):
        assert regions.missed(slot, at * NEAR // 8) is None
    assert regions.missed(slot, 6 * MiB) is None, "the second place"
    assert regions.missed(slot, 0) is not None, "the third"


def test_the_longest_unused_is_followed_no_more(rig: Rig) -> None:
    cachemap = rig.cachemap
    regions = MissRegions(cachemap)
    slots = [
        cachemap.acquire(at.to_bytes(32, "little"), b"k" * 32, rig.context(1), 8 * MiB)
        for at in range(FOLLOWED + 1)
    ]
    for place in PLACES[: ENOUGH - 1]:
        regions.missed(slots[0], place)
    for slot in slots[1:]:
        regions.missed(slot, 0)
    assert regions.missed(slots[0], PLACES[-1]) is None


def test_the_rest_of_the_segment_comes_by_itself_and_not_the_next_one(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(space)
    reader = space.connect("reader", cache_bytes=BROAD_CACHE)
    for place in PLACES[: ENOUGH - 1]:
        read(reader, place)
    assert fetched(reader) < MiB, "two places bring no more than themselves"
    begun = recorded(reader, monkeypatch)
    read(reader, PLACES[ENOUGH - 1])
    assert sum(begun) > SEGMENT_PLAIN_MAX - 2 * MiB, "the rest is on its way"
    parts = parts_of(reader)
    blockmap = parts.file_maps.newest(reader.stat("/film").ino)
    parts.reader.fetch(blockmap, [(0, SEGMENT_PLAIN_MAX)])  # Waits for it.
    assert is_local(reader, 0, SEGMENT_PLAIN_MAX)
    assert not is_local(reader, SEGMENT_PLAIN_MAX + MiB, 64 * KiB)
    before = fetched(reader)
    read(reader, 7 * MiB)
    assert fetched(reader) == before


@pytest.mark.parametrize("cache_bytes", [LARGE_SHARE * SIZE - 1, BROAD_CACHE - 1])
def test_nothing_more_comes_into_a_cache_that_is_too_small_for_it(
    space: Space, cache_bytes: int
) -> None:
    assert LARGE_SHARE * SIZE - 1 < BROAD_CACHE
    written(space)
    reader = space.connect("reader", cache_bytes=cache_bytes)
    for place in (*PLACES, 7 * MiB, 1 * MiB, 5 * MiB):
        read(reader, place)
    parts_of(reader).fetcher.close()  # What is under way ends first.
    assert fetched(reader) < 3 * MiB


def test_nothing_more_comes_of_a_file_that_would_fill_a_quarter_of_the_cache(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(space)
    reader = space.connect("reader", cache_bytes=BROAD_CACHE)
    monkeypatch.setattr(parts_of(reader).reader, "_large", SIZE - 1)
    for place in (*PLACES, 7 * MiB, 1 * MiB, 5 * MiB):
        read(reader, place)
    parts_of(reader).fetcher.close()
    assert fetched(reader) < 3 * MiB


def test_nothing_more_comes_while_the_cache_disk_fails(space: Space) -> None:
    written(space)
    reader = space.connect("reader", cache_bytes=BROAD_CACHE)
    parts_of(reader).cache.broken(OSError(errno.EIO, os.strerror(errno.EIO)))
    for place in (*PLACES, 7 * MiB, 1 * MiB, 5 * MiB):
        read(reader, place)
    assert parts_of(reader).cache.bypassed
    parts_of(reader).fetcher.close()
    assert fetched(reader) < 3 * MiB


def test_a_read_that_has_its_bytes_does_not_hear_of_the_end(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(space)
    reader = space.connect("reader", cache_bytes=BROAD_CACHE)

    def ended(*_wanted: object) -> int:
        raise Stopped("The filespace is closed.")

    for place in PLACES[: ENOUGH - 1]:
        read(reader, place)
    monkeypatch.setattr(parts_of(reader).fetcher, "ahead", ended)
    read(reader, PLACES[-1])


def test_who_reads_in_order_is_at_one_place(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    written(space)
    reader = space.connect("reader", cache_bytes=BROAD_CACHE)
    fetcher = parts_of(reader).fetcher
    ahead, pieces = fetcher.ahead, list[int]()

    def noticed(ranges: Iterable[tuple[int, int, int]], get_max: int = GET_MAX) -> int:
        pieces.append(get_max)
        return ahead(ranges, get_max)

    monkeypatch.setattr(fetcher, "ahead", noticed)
    with reader.open("/film", "rb") as file:
        for start in range(0, SIZE, 128 * KiB):
            assert file.read(128 * KiB) == DATA[start : start + 128 * KiB]
    assert pieces
    assert set(pieces) == {GET_MAX}
