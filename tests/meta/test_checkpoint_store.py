"""Finding the newest checkpoint: right whatever numbers are there, and without listing them all."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from lucid.format.names import checkpoint_key
from lucid.meta.checkpoint_store import CheckpointReader
from lucid.store.base import ObjectStore
from lucid.store.directory import DirectoryStore
from lucid.store.memory import Bucket, MemoryStore
from tests.meta.space import founding


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore(Bucket())
    place = tmp_path / "store"
    place.mkdir()
    return DirectoryStore(place)


def put(store: ObjectStore, sequence: int, chance: Random) -> None:
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice(("manifest", chance.randbytes(16).hex()))
        key = checkpoint_key(sequence, name)
        store.put_if_absent(key, key.encode())


@pytest.mark.parametrize("seed", range(6))
def test_the_newest_is_found_below_any_number(store: ObjectStore, seed: int) -> None:
    chance = Random(seed)
    every = chance.choice((1, 8, 4096))
    reader = CheckpointReader(store, founding().ring, every)
    assert reader.newest() is None
    there: set[int] = set()
    for _ in range(25):
        sequence = every * chance.randrange(1, 60)
        if chance.random() < 0.1:
            sequence = chance.randrange(1, 1 << chance.randrange(2, 62))
        there.add(sequence)
        put(store, sequence, chance)
        assert reader.newest() == max(there)
        before = chance.choice((*there, chance.randrange(1, every * 60)))
        lower = [number for number in there if number < before]
        assert reader.newest(before) == max(lower, default=None)
    store.close()


def test_a_hundred_cost_a_few_lists() -> None:
    bucket, chance = Bucket(), Random(1)
    store = MemoryStore(bucket)
    for number in range(1, 101):
        put(store, 4096 * number, chance)
    before = store.counters.of("list").requests
    assert CheckpointReader(store, founding().ring, 4096).newest() == 409_600
    assert store.counters.of("list").requests - before <= 16


def test_junk_is_looked_over_as_far_as_it_can_be() -> None:
    store = MemoryStore(Bucket())
    reader = CheckpointReader(store, founding().ring, 4096)
    for number in range(50):
        store.put_if_absent(f"checkpoint/0000000000000fff{number:04}/manifest", b"junk")
    store.put_if_absent("checkpoint/0000000000001000", b"junk")
    assert reader.newest() is None
    put(store, 8192, Random(2))
    assert reader.newest() == 8192
    for number in range(1000):
        store.put_if_absent(f"checkpoint/0000000000000001-{number:04}", b"junk")
    assert reader.newest() is None, "more junk than anybody looks at: the log is read instead"
