"""Many threads on one cache map, pool and reader: right bytes or a miss, and nothing left over."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


def test_readers_beside_eviction_and_damage(tmp_path: Path) -> None:
    """Readers loop over six files; others evict, damage, refill and drop from the pool."""
    with Rig(tmp_path, frames=4, max_open_files=2) as rig:
        segments = [rig.segment([BLOCK, BLOCK, 5000]) for _ in range(6)]
        for segment in segments:
            rig.put(segment)
        maps = [rig.map([rig.row(segment)], 2 * BLOCK + 5000) for segment in segments]
        contents = [b"".join(segment.plain) for segment in segments]
        filling = threading.Lock()
        done = threading.Event()
        served = [0]

        def refill(segment: Segment) -> None:
            """What a fetch does: write under the final name, then make it present."""
            with filling:
                path = rig.cache_path(segment)
                if not path.exists():
                    path.write_bytes(segment.sealed)
                rig.cachemap.set_present(segment.slot, 0, len(segment.sealed))

        def reader(number: int) -> None:
            step = 7919 * (number + 1)
            for turn in range(300):
                which = (turn + number) % len(segments)
                offset = turn * step % len(contents[which])
                length = (BLOCK, 10, 2 * BLOCK)[turn % 3]
                try:
                    answer = rig.reader.read(maps[which], offset, length)
                except CorruptBlock as error:
                    assert error.from_cache
                    rig.cachemap.clear_present(segments[which].slot, 0, len(segments[which].sealed))
                    with filling:
                        rig.cache_path(segments[which]).unlink(missing_ok=True)
                    continue
                if isinstance(answer, Miss):
                    refill(segments[which])
                    continue
                assert bytes(answer) == contents[which][offset : offset + length]
                served[0] += 1

        def evictor() -> None:
            while not done.is_set():
                for slot, segment_id, _ in rig.cachemap.victims(1, 1):
                    name = segment_id.hex()
                    with filling:
                        (rig.cache_dir / name[:2] / name).unlink(missing_ok=True)
                    rig.pool.drop(slot)
                    rig.cachemap.forget(slot)
                done.wait(0.002)

        def damager() -> None:
            turn = 0
            while not done.is_set():
                turn += 1
                segment = segments[turn % len(segments)]
                with filling:
                    path = rig.cache_path(segment)
                    if path.exists():
                        with path.open("r+b") as file:
                            file.seek(segment.offsets[turn % 3] + 1)
                            file.write(b"?!")
                done.wait(0.005)

        def readers() -> None:
            try:
                run_all([lambda n=n: reader(n) for n in range(4)])  # type: ignore[misc]
            finally:
                done.set()

        run_all([readers, evictor, damager])
        assert served[0] > 100
        maps.clear()
        assert rig.pool.stats()["pinned"] == 0
        assert rig.reader.stats()["buffers_out"] == rig.reader.stats()["scratch_out"] == 0
        for segment in segments:
            if rig.cachemap.is_evicting(segment.slot):
                rig.cachemap.spare(segment.slot)
            rig.cachemap.forget(segment.slot)
            rig.cachemap.release(segment.slot)
        assert rig.cachemap.stats() | {"hits": 0, "misses": 0, "bytes": 0} == {
            "slots": 0,
            "evictable": 0,
            "open_files": 0,
            "hits": 0,
            "misses": 0,
            "bytes": 0,
            "charge": 0,
            "staged": 0,
        }


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
