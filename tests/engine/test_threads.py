"""Many threads on one cache map, pool and reader: right bytes or a miss, and nothing left over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lucid.engine.errors import CorruptBlock, EngineError
from lucid.engine.reader import Miss, ReadBuffer
from tests.engine.rig import BLOCK, Rig, Segment

WAIT_S = 60


def run_all(jobs: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; raise what the first one raised."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), name="engine-test") for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


class Scene:
    """Six cached files, and what the threads of the test below do to them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.segments = [rig.segment([BLOCK, BLOCK, 5000]) for _ in range(6)]
        for segment in self.segments:
            rig.put(segment)
        self.maps = [rig.map([rig.row(each)], 2 * BLOCK + 5000) for each in self.segments]
        self.contents = [b"".join(segment.plain) for segment in self.segments]
        self.files = threading.Lock()
        self.done = threading.Event()
        self.served = 0

    def refill(self, segment: Segment) -> None:
        """What a fetch does: write under the final name, then make it present."""
        with self.files:
            path = self.rig.cache_path(segment)
            if not path.exists():
                path.write_bytes(segment.sealed)
            self.rig.cachemap.set_present(segment.slot, 0, len(segment.sealed))

    def distrust(self, segment: Segment) -> None:
        """What follows a tag that failed."""
        self.rig.cachemap.clear_present(segment.slot, 0, len(segment.sealed))
        with self.files:
            self.rig.cache_path(segment).unlink(missing_ok=True)

    def read(self, number: int) -> None:
        step = 7919 * (number + 1)
        for turn in range(300):
            which = (turn + number) % len(self.segments)
            offset = turn * step % len(self.contents[which])
            length = (BLOCK, 10, 2 * BLOCK)[turn % 3]
            try:
                answer = self.rig.reader.read(self.maps[which], offset, length)
            except CorruptBlock as error:
                assert error.from_cache
                self.distrust(self.segments[which])
                continue
            if isinstance(answer, Miss):
                self.refill(self.segments[which])
                continue
            assert bytes(answer) == self.contents[which][offset : offset + length]
            self.served += 1

    def read_in_many_threads(self) -> None:
        try:
            run_all([partial(self.read, number) for number in range(4)])
        finally:
            self.done.set()

    def evict(self) -> None:
        while not self.done.is_set():
            for slot, segment_id, _ in self.rig.cachemap.victims(1, 1):
                name = segment_id.hex()
                with self.files:
                    (self.rig.cache_dir / name[:2] / name).unlink(missing_ok=True)
                self.rig.pool.drop(slot)
                self.rig.cachemap.forget(slot)
            self.done.wait(0.002)

    def damage(self) -> None:
        turn = 0
        while not self.done.is_set():
            turn += 1
            segment = self.segments[turn % len(self.segments)]
            path = self.rig.cache_path(segment)
            with self.files:
                if path.exists():
                    with path.open("r+b") as file:
                        file.seek(segment.offsets[turn % 3] + 1)
                        file.write(b"?!")
            self.done.wait(0.005)

    def leave(self) -> None:
        self.maps.clear()
        for segment in self.segments:
            self.rig.cachemap.forget(segment.slot)
            self.rig.cachemap.release(segment.slot)


def test_readers_beside_eviction_and_damage(tmp_path: Path) -> None:
    """Right bytes, a miss, or a bad tag; then everything can be given back."""
    with Rig(tmp_path, frames=4, max_open_files=2) as rig:
        scene = Scene(rig)
        run_all([scene.read_in_many_threads, scene.evict, scene.damage])
        assert scene.served > 100
        scene.leave()
        assert rig.pool.stats()["pinned"] == 0
        assert rig.reader.stats()["buffers_out"] == rig.reader.stats()["scratch_out"] == 0
        left = rig.cachemap.stats()
        assert {left[name] for name in ("slots", "evictable", "open_files", "charge")} == {0}


def test_maps_come_and_go_in_many_threads(tmp_path: Path) -> None:
    """The last reference may go in any thread, while others take new ones."""
    with Rig(tmp_path) as rig:
        segments = [rig.segment([1000]) for _ in range(3)]
        for segment in segments:
            rig.stage(segment)

        def work() -> None:
            for turn in range(200):
                segment = segments[turn % 3]
                slot = rig.cachemap.acquire(
                    segment.segment_id, segment.key, rig.context(1), len(segment.sealed), True
                )
                answer = rig.reader.read(rig.map([rig.row(segment)], BLOCK), 990, 20)
                assert isinstance(answer, ReadBuffer)
                assert bytes(answer) == segment.plain[0][990:] + bytes(10)
                rig.cachemap.release(slot)

        run_all([work] * 4)
        for segment in segments:
            rig.cachemap.release(segment.slot)
            rig.cachemap.forget(segment.slot)
        assert rig.cachemap.stats()["slots"] == 0


def test_closing_beside_readers(tmp_path: Path) -> None:
    """A map closed under its readers refuses them; nothing crashes and no descriptor stays."""
    with Rig(tmp_path, frames=1) as rig:
        segment = rig.segment([BLOCK] * 8)
        rig.put(segment)
        blockmap = rig.map([rig.row(segment)], 8 * BLOCK)
        content = b"".join(segment.plain)
        started = threading.Barrier(4)

        def reader() -> None:
            started.wait(WAIT_S)
            for turn in range(100_000):
                offset = turn % 7 * BLOCK
                try:
                    answer = rig.reader.read(blockmap, offset, BLOCK)
                except EngineError as error:
                    assert "closed" in str(error)
                    return
                assert isinstance(answer, ReadBuffer)
                assert bytes(answer) == content[offset : offset + BLOCK]
            raise AssertionError("the map was never closed")

        def closer() -> None:
            started.wait(WAIT_S)
            while rig.cachemap.stats()["hits"] < 20:
                pass
            rig.cachemap.close()

        run_all([reader, reader, reader, closer])
        assert rig.cachemap.stats()["open_files"] == 0
