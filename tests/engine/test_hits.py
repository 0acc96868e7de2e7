"""Reads that the engine serves by itself: the newest bytes or none, whatever happens beside it."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lucid.engine.errors import EngineError
from lucid.engine.hits import HitTable
from lucid.engine.streams import Streams
from tests.engine.rig import BLOCK, EXAMPLES, Rig
from tests.engine.test_threads import run_all

SIZE = 2 * BLOCK + 5000
MiB = 1024 * 1024


class Contents:
    """Some versions of a file on one cache, all of them on the disk."""

    def __init__(self, rig: Rig, count: int) -> None:
        self.rig = rig
        self.segments = [rig.segment([BLOCK, BLOCK, 5000]) for _ in range(count)]
        for segment in self.segments:
            rig.put(segment)
        self.plain = [b"".join(segment.plain) for segment in self.segments]
        self.maps = [rig.map([rig.row(segment)], SIZE) for segment in self.segments]


def streams() -> Streams:
    return Streams(BLOCK, 8 * BLOCK)


def test_a_hit(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        contents = Contents(rig, 1)
        hits = HitTable(rig.reader)
        hits.set_map(5, contents.maps[0])
        hits.open(1, 5, streams())
        plain = contents.plain[0]
        for offset, length in ((0, 10), (BLOCK - 5, 10), (7, SIZE), (SIZE, 10), (SIZE + 9, 1)):
            assert hits.read(1, offset, length) == plain[offset : offset + length]
        assert hits.stats() == {"inodes": 1, "files": 1, "hits": 5, "passes": 0}


def test_what_is_passed_on(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        contents = Contents(rig, 1)
        hits = HitTable(rig.reader)
        hits.open(1, 5, streams())
        assert hits.read(1, 0, 10) is None, "no map"
        hits.set_map(5, contents.maps[0])
        assert hits.read(2, 0, 10) is None, "not open"
        hits.shadow(5)
        hits.shadow(5)
        assert hits.read(1, 0, 10) is None, "something newer"
        hits.unshadow(5)
        assert hits.read(1, 0, 10) is None, "still"
        hits.unshadow(5)
        assert hits.read(1, 0, 10) is not None
        assert hits.read(1, -1, 10) is None
        assert hits.read(1, 0, -1) is None
        assert hits.read(1, 0, 4 * MiB) is None, "nothing that the kernel asks for"
        assert hits.read(1, 2**63 - 1, 10) is None
        hits.drop_map(5)
        assert hits.read(1, 0, 10) is None
        hits.close(1)
        hits.close(1)
        assert hits.stats()["inodes"] == hits.stats()["files"] == 0


def test_a_miss_and_a_bad_tag_are_passed_on(tmp_path: Path) -> None:
    with Rig(tmp_path, frames=1) as rig:
        contents = Contents(rig, 1)
        hits = HitTable(rig.reader)
        hits.set_map(5, contents.maps[0])
        hits.open(1, 5, streams())
        path = rig.cache_path(contents.segments[0])
        sealed = bytearray(path.read_bytes())
        sealed[BLOCK + 100] ^= 1
        path.write_bytes(sealed)
        assert hits.read(1, 0, 10) == contents.plain[0][:10]
        assert hits.read(1, BLOCK, 10) is None
        rig.cachemap.clear_present(contents.segments[0].slot, 0, BLOCK)
        assert hits.read(1, 2 * BLOCK, 5000) == contents.plain[0][2 * BLOCK :]
        assert hits.read(1, BLOCK // 2, BLOCK) is None
        rig.cachemap.close()
        assert hits.read(1, 2 * BLOCK, 5000) is None
        assert rig.reader.stats()["buffers_out"] == rig.reader.stats()["scratch_out"] == 0


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Rig(tmp_path) as rig, Rig(tmp_path / "other") as other:
        hits = HitTable(rig.reader)
        with pytest.raises(ValueError):
            hits.set_map(5, Contents(other, 1).maps[0])
        with pytest.raises(EngineError):
            hits.unshadow(5)
        hits.open(1, 5, streams())
        with pytest.raises(EngineError):
            hits.open(1, 6, streams())
        for wrong in (None, 7):
            with pytest.raises(TypeError):
                hits.set_map(5, wrong)
            with pytest.raises(TypeError):
                hits.open(9, 5, wrong)
        assert hits.stats()["inodes"] == 0


def test_a_stream_of_hits_wants_more(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        segments = [rig.segment([BLOCK] * 64) for _ in range(2)]
        rows = []
        for at, segment in enumerate(segments):
            rig.put(segment)
            rows.append(rig.row(segment, 64 * at))
        size = 128 * BLOCK
        hits = HitTable(rig.reader)
        hits.set_map(5, rig.map(rows, size))
        hits.open(1, 5, Streams(BLOCK, 16 * BLOCK))
        asked = 0
        for block in range(128):
            assert hits.read(1, block * BLOCK, BLOCK) is not None
            if asked < size and asked <= (block + 1) * BLOCK:
                want = hits.next_want()
                assert want is not None
                ino, start, end = want
                assert ino == 5
                assert asked <= start < end <= size
                asked = end
        assert asked == size
        hits.stop()
        assert hits.next_want() is None


def test_stop_ends_who_waits(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        hits = HitTable(rig.reader)
        found: list[object] = []
        waiting = [
            threading.Thread(target=lambda: found.append(hits.next_want())) for _ in range(3)
        ]
        for thread in waiting:
            thread.start()
        hits.stop()
        for thread in waiting:
            thread.join(10)
        assert found == [None] * 3


def test_it_keeps_what_it_needs_and_nothing_more(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        contents = Contents(rig, 2)
        one, two = contents.maps
        held = streams()
        before = sys.getrefcount(one), sys.getrefcount(held)
        hits = HitTable(rig.reader)
        hits.set_map(5, one)
        hits.set_map(6, one)
        hits.open(1, 5, held)
        assert sys.getrefcount(one) == before[0] + 2
        hits.set_map(5, two)
        hits.drop_map(6)
        hits.close(1)
        assert (sys.getrefcount(one), sys.getrefcount(held)) == before
        hits.set_map(6, one)
        hits.shadow(7)
        hits.open(1, 5, held)
        del hits
        gc.collect()
        assert (sys.getrefcount(one), sys.getrefcount(held)) == before


def test_many_entries(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        contents = Contents(rig, 2)
        hits = HitTable(rig.reader)
        shared = streams()
        chance = random.Random(4)
        numbers = [chance.randrange(1 << 62) for _ in range(5_000)]
        for at, number in enumerate(numbers):
            hits.set_map(number, contents.maps[at % 2])
            hits.open(at, number, shared)
        for at in chance.sample(range(5_000), 300):
            assert hits.read(at, 3, 8) == contents.plain[at % 2][3:11]
        for at, number in enumerate(numbers):
            if at % 3:
                hits.drop_map(number)
                hits.close(at)
        for at in chance.sample(range(5_000), 300):
            assert (hits.read(at, 0, 1) is None) == bool(at % 3)
        assert hits.stats()["inodes"] == hits.stats()["files"] == len(range(0, 5_000, 3))


def test_readers_while_versions_come_and_go(tmp_path: Path) -> None:
    """What was dropped is never served to a read that began later."""
    with Rig(tmp_path) as rig:
        contents = Contents(rig, 6)
        hits = HitTable(rig.reader)
        done = threading.Event()
        newest = [0]
        served = [0] * 3
        hit = threading.Semaphore(0)

        def write() -> None:
            chance = random.Random(1)
            ends = time.monotonic() + 30
            try:
                while min(served) < 20 and time.monotonic() < ends:
                    hits.shadow(5)
                    at = chance.randrange(6)
                    hits.drop_map(5)
                    newest[0] = at
                    hits.set_map(5, rig.map([rig.row(contents.segments[at])], SIZE))
                    hits.unshadow(5)
                    # So that there is something to serve for a moment.
                    hit.acquire(timeout=0.05)
            finally:
                done.set()

        def read(which: int) -> None:
            chance = random.Random(which)
            number = 10 + which
            while not done.is_set():
                hits.open(number, 5, streams())
                for _ in range(20):
                    offset = chance.randrange(SIZE)
                    got = hits.read(number, offset, 3000)
                    if got is not None:
                        served[which] += 1
                        hit.release()
                        assert any(got == plain[offset : offset + 3000] for plain in contents.plain)
                hits.close(number)

        run_all([write, *(partial(read, which) for which in range(3))])
        hits.open(1, 5, streams())
        assert hits.read(1, 0, SIZE) == contents.plain[newest[0]]
        assert min(served) >= 20
        assert rig.reader.stats()["buffers_out"] == 0


class Model(RuleBasedStateMachine):
    """The table beside a dictionary of what it should serve."""

    INODES = st.integers(1, 3)
    NUMBERS = st.integers(1, 4)

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.rig = Rig(Path(self.folder.name))
        self.contents = Contents(self.rig, 3)
        self.hits = HitTable(self.rig.reader)
        self.maps: dict[int, int] = {}
        self.shadows = dict.fromkeys((1, 2, 3), 0)
        self.files: dict[int, int] = {}

    def teardown(self) -> None:
        self.rig.cachemap.close()
        self.folder.cleanup()

    @rule(ino=INODES, version=st.integers(0, 2))
    def set_map(self, ino: int, version: int) -> None:
        self.hits.set_map(ino, self.contents.maps[version])
        self.maps[ino] = version

    @rule(ino=INODES)
    def drop_map(self, ino: int) -> None:
        self.hits.drop_map(ino)
        self.maps.pop(ino, None)

    @rule(ino=INODES)
    def shadow(self, ino: int) -> None:
        self.hits.shadow(ino)
        self.shadows[ino] += 1

    @precondition(lambda self: any(self.shadows.values()))
    @rule(data=st.data())
    def unshadow(self, data: st.DataObject) -> None:
        ino = data.draw(st.sampled_from([ino for ino, count in self.shadows.items() if count]))
        self.hits.unshadow(ino)
        self.shadows[ino] -= 1

    @rule(number=NUMBERS, ino=INODES)
    def open(self, number: int, ino: int) -> None:
        if number in self.files:
            self.hits.close(number)
        self.hits.open(number, ino, streams())
        self.files[number] = ino

    @rule(number=NUMBERS)
    def close(self, number: int) -> None:
        self.hits.close(number)
        self.files.pop(number, None)

    @rule(number=NUMBERS, offset=st.integers(0, SIZE + 10), length=st.integers(0, BLOCK))
    def read(self, number: int, offset: int, length: int) -> None:
        ino = self.files.get(number, 0)
        expected = None
        if ino in self.maps and not self.shadows[ino]:
            expected = self.contents.plain[self.maps[ino]][offset : offset + length]
        assert self.hits.read(number, offset, length) == expected

    @invariant()
    def counts(self) -> None:
        stats = self.hits.stats()
        assert stats["files"] == len(self.files)
        known = {ino for ino in self.shadows if ino in self.maps or self.shadows[ino]}
        assert stats["inodes"] == len(known)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
