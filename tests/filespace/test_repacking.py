"""`lucid gc --delete` writes anew what is alive in segments that are mostly dead: every file and
version reads the same, and the old segments go after the retention."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple

import pytest

from lucid.engine.sodium import AdContext, seal
from lucid.errors import StoreUnavailable, UsageError
from lucid.filespace import Filespace, collecting
from lucid.filespace.collection import Collection
from lucid.filespace.visiting import Visit
from lucid.format.checkpoint import CHECKPOINT_EVERY
from lucid.format.names import parse_segment_key, segment_key
from lucid.store.base import Body, ObjectInfo
from lucid.store.memory import MemoryStore
from lucid.types import SystemClock, SystemEntropy
from tests.filespace import test_collecting
from tests.filespace.checkpoints import EVERY, connect, write_until
from tests.filespace.spaces import BLOCK, PASSPHRASE, WAIT_S, Space, parts_of, some_bytes
from tests.filespace.test_collecting import age, is_clean, keys, names_of

Contents = dict[str, list[bytes]]


class Packs(NamedTuple):
    """Every version of each file, oldest first, and the segment that is mostly dead below it."""

    contents: Contents
    old: dict[str, bytes]


def half_dead(space: Space, fs: Filespace, packs: int = 2) -> Packs:
    """Files of eight blocks, of which six were written over before the retention; the first one has
    two versions since."""
    packed = Packs({}, {})
    for pack in range(packs):
        path, data = f"/{pack}", some_bytes(pack, 8 * BLOCK)
        fs.write_bytes(path, data)
        fs.sync(timeout=WAIT_S)
        (packed.old[path],) = segments_under(fs, path)
        with fs.open(path, "r+b") as file:
            file.seek(2 * BLOCK)
            file.write(some_bytes(10 + pack, 6 * BLOCK))
        fs.sync(timeout=WAIT_S)
        packed.contents[path] = [data[: 2 * BLOCK] + some_bytes(10 + pack, 6 * BLOCK)]
    age(space, 0.05)
    fs.write_bytes("/last", b"last")
    fs.sync(timeout=WAIT_S)
    age(space, 8)
    for seed in (71, 72):
        fs.write_bytes("/0", some_bytes(seed, 3000))
        fs.sync(timeout=WAIT_S)
        packed.contents["/0"].append(some_bytes(seed, 3000))
    return packed


def gc(space: Space, **other: Any) -> Collection:
    """One that leaves the log whole."""
    return test_collecting.gc(space, **{"every": CHECKPOINT_EVERY, **other})


def read_all(fs: Filespace, contents: Contents) -> None:
    assert fs.refresh(WAIT_S)
    for path, versions in contents.items():
        assert fs.read_bytes(path) == versions[-1], path
        assert [version.size for version in fs.versions(path)] == [len(data) for data in versions]


def restore_all(fs: Filespace, contents: Contents) -> None:
    """Older versions too, byte by byte."""
    for path, versions in contents.items():
        rows = fs.versions(path)[: len(versions)]
        for number, (row, data) in enumerate(zip(rows, versions, strict=True)):
            fs.restore(path, row.number, to=f"{path} {number}")
            assert fs.read_bytes(f"{path} {number}") == data
            fs.remove(f"{path} {number}")


def segments_under(fs: Filespace, path: str) -> set[bytes]:
    columns = parts_of(fs).replica.map_columns(fs.stat(path).ino)
    assert columns is not None
    return {row.id for row in columns.segments}


def stored(space: Space) -> int:
    return sum(len(space.bucket.objects[key][0]) for key in keys(space, "data/"))


def test_mostly_dead_segments_are_written_anew(space: Space) -> None:
    """S-613, S-614: on devices that are there all the time, with a file held open, and on new ones.
    The old segments go with a floor above that, and not before."""
    with space.connect("a") as fs, space.connect("b") as other:
        contents, old = half_dead(space, fs)
        before = dict(space.bucket.objects)
        shown = gc(space)
        assert space.bucket.objects == before
        assert other.refresh(WAIT_S)
        held = other.open("/1", "rb")
        assert held.read(10) == contents["/1"][0][:10]
        done = gc(space, delete=True)
        assert shown.repacked == done.repacked
        assert done.repacked.count == 2 and done.repacked.bytes > 2 * 6 * BLOCK
        assert set(old.values()) <= names_of(space), "a reader that is behind finds them"
        for device in (fs, other):
            read_all(device, contents)
            assert old["/1"] not in segments_under(device, "/1")
            parts_of(device).cache.clear()
            read_all(device, contents)
        again = gc(space, delete=True)
        assert again.repacked.count == 0 and again.freed_objects == 0
        size = stored(space)
        age(space, 8)
        last = gc(space, delete=True)
        assert last.segments.count >= 2 and not set(old.values()) & names_of(space)
        assert stored(space) <= size - done.repacked.bytes
        contents["/0"] = contents["/0"][-1:]
        for device in (fs, other):
            parts_of(device).cache.clear()
            read_all(device, contents)
        held.seek(0)
        assert held.read() == contents["/1"][0]
        held.close()
        restore_all(fs, contents)
    with space.connect("new") as new:
        read_all(new, contents)
    assert is_clean(space)


def test_older_versions_move_too(space: Space) -> None:
    """S-614: what only an older version has is as alive as the rest. Nothing is read from the old
    segments any more."""
    with space.connect("a") as fs:
        contents, old = half_dead(space, fs)
        gc(space, delete=True)
        assert fs.refresh(WAIT_S)
        restore_all(fs, contents)
        for segment in old.values():
            with space.bucket.lock:
                data, when = space.bucket.objects[segment_key(segment)]
                space.bucket.objects[segment_key(segment)] = (bytes(len(data)), when)
        parts_of(fs).cache.clear()
        restore_all(fs, contents)
    with space.connect("new") as new:
        restore_all(new, contents)


def test_a_reader_that_is_behind_finds_the_old_segment(space: Space) -> None:
    """S-614: a device that does not hear of it, and has nothing in its cache."""
    with space.connect("a") as fs:
        contents, old = half_dead(space, fs)
        fs.sync(timeout=WAIT_S)
    with space.connect("late", poll_fast_s=1000.0, poll_idle_s=1000.0) as late:
        assert late.refresh(WAIT_S)
        gc(space, delete=True)
        age(space, 1)
        gc(space, delete=True)
        assert segments_under(late, "/1") >= {old["/1"]}
        assert late.read_bytes("/1") == contents["/1"][0]
        read_all(late, contents)
        assert not segments_under(late, "/1") & {old["/1"]}


def test_a_new_device_begins_behind_a_repack(space: Space) -> None:
    """S-614, S-604: from a checkpoint of the state that it led to, with the log cut."""
    with connect(space) as fs:
        contents, old = half_dead(space, fs)
        assert test_collecting.gc(space, delete=True).repacked.count == 2
        write_until(fs, test_collecting.head(fs) + 2 * EVERY)
        age(space, 8)
        write_until(fs, test_collecting.head(fs) + EVERY)
        done = test_collecting.gc(space, delete=True)
        assert done.log.count and not set(old.values()) & names_of(space)
        contents["/0"] = contents["/0"][-1:]
        with connect(space, "new") as new:
            test_collecting.hear(fs)
            assert "Begun from checkpoint" in new.status().checkpoint_notes[0]
            read_all(new, contents)
            parts_of(fs).cache.clear()
            read_all(fs, contents)
    assert is_clean(space)


def test_it_can_be_left_out_or_bounded(space: Space) -> None:
    """S-613."""
    with space.connect("a") as fs:
        contents, _ = half_dead(space, fs, packs=3)
        assert gc(space, repack_below=0).repacked.count == 0
        assert gc(space, repack_below=0.2).repacked.count == 0
        assert gc(space, repack_max=100).repacked.count == 0
        assert gc(space).repacked.count == 3
        for _ in range(3):
            assert gc(space, delete=True, repack_max=3 * BLOCK).repacked.count == 1
        assert gc(space).repacked.count == 0
        read_all(fs, contents)
        with pytest.raises(UsageError, match="from 0 to 1"):
            gc(space, repack_below=1.5)
    assert is_clean(space)


def test_what_is_younger_than_the_floor_stays(space: Space) -> None:
    """S-613: and a second look finds nothing more to do, so it ends."""
    with space.connect("a") as fs:
        half_dead(space, fs)
        fs.write_bytes("/young", some_bytes(5, 8 * BLOCK))
        fs.sync(timeout=WAIT_S)
        with fs.open("/young", "r+b") as file:
            file.truncate(BLOCK)
        fs.sync(timeout=WAIT_S)
        young = segments_under(fs, "/young")
        assert gc(space, delete=True).repacked.count == 2
        assert fs.refresh(WAIT_S)
        assert segments_under(fs, "/young") == young


def forged(space: Space, key: str) -> bytes:
    """The segment with another first block, sealed under the right key for the right place."""
    data = space.bucket.objects[key][0]
    segment = parse_segment_key(key)
    assert segment is not None
    visit = Visit(
        "memory://team", PASSPHRASE, store=MemoryStore(space.bucket), clock=SystemClock(),
        entropy=SystemEntropy,
    )  # fmt: skip
    with closing(visit):
        superblock = visit.unlocked.superblock
        generation = superblock.generation
        context = AdContext(superblock.suite, b"DATA", superblock.filespace, generation)
        block = seal(context, segment, visit.ring.data_key(segment, generation), 0, 0, bytes(BLOCK))
    return block + data[len(block) :]


@pytest.mark.parametrize("how", ["altered", "forged", "gone"])
def test_a_block_that_does_not_open(space: Space, how: str) -> None:
    """S-615: its segment stays as it is, also if the block is another that opens; the other segment
    is moved."""
    with space.connect("a") as fs:
        contents, old = half_dead(space, fs)
        key = segment_key(old["/1"])
        other = forged(space, key)
        with space.bucket.lock:
            data, when = space.bucket.objects[key]
            if how == "altered":
                space.bucket.objects[key] = (bytes([data[0] ^ 1]) + data[1:], when)
            elif how == "forged":
                space.bucket.objects[key] = (other, when)
            else:
                del space.bucket.objects[key]
                space.bucket.keys.remove(key)
        done = collecting.collect(
            "memory://team", PASSPHRASE, store=MemoryStore(space.bucket), delete=True
        )
        assert done.repacked.count == 1
        assert len(done.warnings) == 1 and old["/1"].hex() in done.warnings[0]
        assert fs.refresh(WAIT_S)
        assert old["/1"] in segments_under(fs, "/1")
        assert fs.read_bytes("/0") == contents["/0"][-1]


class Dying(MemoryStore):
    """Answers so many puts, and nothing after that."""

    left = 0

    def put_if_absent(self, key: str, body: Body) -> ObjectInfo | None:  # type: ignore[override]
        if not self.left:
            raise StoreUnavailable("The power went.")
        self.left -= 1
        return super().put_if_absent(key, body)  # type: ignore[func-returns-value]


def test_it_may_be_stopped_anywhere(space: Space) -> None:
    """S-616: at each put; and what it leaves is freed."""
    with space.connect("a") as fs:
        contents, _ = half_dead(space, fs)
        gc(space, delete=True, repack_below=0)
        done: Collection | None = None
        for puts in range(9):
            store = Dying(space.bucket)
            store.left = puts
            try:
                done = gc(space, delete=True, store=store, repack_max=3 * BLOCK)
            except StoreUnavailable:
                read_all(fs, contents)
                continue
            break
        assert done is not None and puts > 3
        orphans = gc(space).young_segments.count
        assert orphans
        age(space, 8)
        fs.write_bytes("/more", b"more")
        fs.sync(timeout=WAIT_S)
        age(space, 8)
        gc(space, delete=True)
        assert gc(space).young_segments.count < orphans
        assert fs.refresh(WAIT_S)
        for path, versions in contents.items():
            assert fs.read_bytes(path) == versions[-1]
    assert is_clean(space)


def test_others_write_meanwhile(space: Space) -> None:
    """S-614, S-616: an entry of theirs comes first, time and again; and another collector does the
    very same."""
    with space.connect("a") as fs:
        contents, _ = half_dead(space, fs)
        gc(space, delete=True, repack_below=0)

        class Busy(MemoryStore):
            rounds = 0

            def put_if_absent(self, key: str, body: Any) -> Any:
                if key.startswith("log/") and self.rounds < 4:
                    self.rounds += 1
                    if self.rounds == 3:
                        gc(space, delete=True)
                    else:
                        fs.write_bytes("/1", some_bytes(80 + self.rounds, 2000))
                        fs.sync(timeout=WAIT_S)
                        contents["/1"].append(some_bytes(80 + self.rounds, 2000))
                return super().put_if_absent(key, body)

        gc(space, store=Busy(space.bucket), delete=True)
        read_all(fs, contents)
        restore_all(fs, contents)
        assert gc(space).repacked.count == 0
    with space.connect("new") as new:
        read_all(new, contents)
    assert is_clean(space)
