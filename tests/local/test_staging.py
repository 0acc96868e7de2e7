"""The staging area: room, durability, and the ways out of it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from lucid.errors import DiskFull, InternalError, LocalError, StagingFull, Stopped
from lucid.local.disk import RealDisk
from lucid.local.staging import StagingArea
from lucid.types import SegmentId
from tests.local.forgetful import ForgetfulDisk

WAIT_S = 20.0
LIMIT = 1 << 20


def segment(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(32, "big"))


@pytest.fixture
def area(disk: RealDisk, root: Path) -> StagingArea:
    return StagingArea(disk, root, LIMIT)


def stage(area: StagingArea, number: int, data: bytes) -> SegmentId:
    """A finished segment with these bytes."""
    area.reserve(len(data) + 100)
    file = area.create(segment(number), len(data) + 100, paid=len(data) + 100)
    file.pwrite(data, 0)
    file.finish(len(data))
    return file.segment


# -- a file


def test_a_segment_is_written_at_its_offsets_and_read_back(area: StagingArea, root: Path) -> None:
    file = area.create(segment(1), 3000)
    assert file.segment in area and segment(2) not in area
    path = area.path(file.segment)
    assert path == root / segment(1).hex()
    assert path.stat().st_size == 3000 and path.stat().st_mode & 0o777 == 0o600
    file.pwrite(memoryview(b"later"), 1000)
    file.pwrite(bytearray(b"first"), 0)
    file.finish(1005)
    assert path.read_bytes() == b"first" + bytes(995) + b"later"
    assert area.read(file.segment) == path.read_bytes()
    assert area.read(file.segment, 1000) == b"later"
    assert area.read(file.segment, 1, 3) == b"irs"
    assert area.segments() == [(file.segment, 1005)]
    area.close()


def test_a_finished_segment_is_finished(area: StagingArea) -> None:
    file = area.create(segment(1), 10)
    file.finish(5)
    with pytest.raises(InternalError):
        file.pwrite(b"x", 0)
    with pytest.raises(InternalError):
        file.finish(6)
    with pytest.raises(InternalError, match="staged already"):
        area.create(segment(1), 10)
    file.sync()


def test_files_survive_a_restart(disk: RealDisk, root: Path) -> None:
    area = StagingArea(disk, root, LIMIT)
    stage(area, 1, b"one" * 100)
    area.create(segment(2), 5000).pwrite(b"unfinished", 0)
    area.close()
    (root / "a note of the user.txt").write_text("kept")
    (root / ("AB" * 32)).write_text("not ours: we write lower case")
    again = StagingArea(disk, root, LIMIT)
    assert sorted(again.segments()) == [(segment(1), 300), (segment(2), 5000)]
    assert again.used_bytes == 5300
    assert not again.is_synced(segment(1)), "nobody knows what the process before did"
    again.remove(segment(2))
    again.remove(segment(2))
    assert again.used_bytes == 300
    again.close()


def test_an_uploaded_segment_becomes_a_cached_one(
    disk: RealDisk, area: StagingArea, root: Path
) -> None:
    cache = root.parent / "cache"
    cache.mkdir()
    for number in (1, 2):
        moved = area.adopt(stage(area, number, b"x" * 500), cache)
        assert moved == cache / "00" / segment(number).hex()
        assert moved.read_bytes() == b"x" * 500
    assert area.segments() == [] and area.used_bytes == 0
    assert list(root.iterdir()) == []
    with pytest.raises(LocalError):
        area.adopt(segment(1), cache)


def test_a_segment_that_cannot_move_stays(forgetful: ForgetfulDisk, root: Path) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    one = stage(area, 1, b"x" * 500)
    for call in ("mkdir", "rename"):
        forgetful.fail(call, errno.EIO)
        with pytest.raises(LocalError):
            area.adopt(one, root)
        forgetful.heal()
        assert area.read(one) == b"x" * 500 and area.used_bytes == 500


# -- room


def test_room_is_reserved_used_and_given_back(area: StagingArea) -> None:
    area.reserve(1000)
    area.reserve(500)
    assert (area.reserved_bytes, area.used_bytes) == (1500, 0)
    file = area.create(segment(1), 1200, paid=1000)
    assert (area.reserved_bytes, area.used_bytes) == (500, 1200)
    file.finish(800)
    assert area.used_bytes == 800
    area.unreserve(500)
    assert area.reserved_bytes == 0
    with pytest.raises(InternalError):
        area.unreserve(1)
    area.remove(file.segment)
    assert area.used_bytes == 0
    area.close()


def test_a_full_area_says_so_at_once_or_after_waiting(area: StagingArea) -> None:
    area.reserve(LIMIT)
    with pytest.raises(StagingFull, match="Bring the store back"):
        area.reserve(1)
    with pytest.raises(StagingFull):
        area.reserve(1, timeout_s=0.02)
    area.unreserve(1)
    area.reserve(1)


def test_what_can_never_fit_does_not_wait(area: StagingArea) -> None:
    with pytest.raises(StagingFull):
        area.reserve(LIMIT + 1, timeout_s=1000.0)
    assert area.reserved_bytes == 0


def waiting(area: StagingArea, count: int, results: list[object], tag: object) -> threading.Thread:
    """A thread that waits for room and notes what came of it."""

    def wait() -> None:
        try:
            area.reserve(count, timeout_s=WAIT_S)
            results.append(tag)
        except (StagingFull, Stopped) as error:
            results.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def until_waiting(area: StagingArea, count: int) -> None:
    """Returns when so many threads wait for room."""
    pause = threading.Event()
    for _ in range(2000):
        with area._lock:
            if len(area._waiting) >= count:
                return
        pause.wait(0.005)
    raise AssertionError("nobody waits")


def join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_who_waits_gets_room_in_turn(area: StagingArea) -> None:
    area.reserve(LIMIT)
    results: list[object] = []
    threads = []
    for number, count in enumerate((LIMIT // 2, 1, 1)):
        threads.append(waiting(area, count, results, number))
        until_waiting(area, number + 1)
    area.unreserve(LIMIT // 4)
    assert results == [], "the small ones do not overtake the large one"
    area.unreserve(LIMIT // 2)
    join(*threads)
    assert sorted(results) == [0, 1, 2]
    assert area.reserved_bytes == LIMIT // 4 + LIMIT // 2 + 2


def test_each_way_out_of_the_area_makes_room(area: StagingArea, root: Path) -> None:
    cache = root / "cache"
    cache.mkdir()
    for number, leave in enumerate((area.remove, lambda one: area.adopt(one, cache))):
        one = stage(area, number, b"x" * (LIMIT - 200))
        results: list[object] = []
        thread = waiting(area, 500, results, "room")
        until_waiting(area, 1)
        leave(one)
        join(thread)
        assert results == ["room"]
        area.unreserve(500)


def test_finishing_small_makes_room(area: StagingArea) -> None:
    file = area.create(segment(1), LIMIT)
    results: list[object] = []
    thread = waiting(area, 500, results, "room")
    until_waiting(area, 1)
    file.finish(LIMIT // 2)
    join(thread)
    assert results == ["room"]


def test_when_the_store_goes_who_waits_is_told(area: StagingArea) -> None:
    area.reserve(LIMIT)
    results: list[object] = []
    threads = [waiting(area, 1, results, "room") for _ in range(3)]
    until_waiting(area, 3)
    area.fail_waiting()
    join(*threads)
    assert results == [StagingFull] * 3
    area.unreserve(1)
    area.reserve(1, timeout_s=WAIT_S)


def test_closing_tells_who_waits(area: StagingArea) -> None:
    area.reserve(LIMIT)
    results: list[object] = []
    thread = waiting(area, 1, results, "room")
    until_waiting(area, 1)
    area.close()
    join(thread)
    assert results == [Stopped]
    with pytest.raises(Stopped):
        area.create(segment(1), 10)
    with pytest.raises(Stopped):
        area.reserve(0)


def test_a_floor_under_the_free_space(forgetful: ForgetfulDisk, root: Path) -> None:
    area = StagingArea(forgetful, root, LIMIT, free_bytes_min=10_000)
    forgetful.available = 10_500
    area.reserve(400)
    with pytest.raises(DiskFull, match="are free under"):
        area.reserve(200)
    area.unreserve(400)
    area.reserve(500)


def test_others_give_way_before_a_full_disk_refuses(forgetful: ForgetfulDisk, root: Path) -> None:
    area = StagingArea(forgetful, root, LIMIT, free_bytes_min=10_000)
    asked: list[int] = []

    def give_way(size: int) -> int:
        asked.append(size)
        assert forgetful.available is not None
        forgetful.available += size
        return size

    area.give_way = give_way
    forgetful.available = 9_000
    area.reserve(400)
    assert asked == [1_400]
    assert area.refusal() == ""
    area.reserve(100)
    assert asked == [1_400, 100]


def test_a_disk_that_is_fuller_than_it_said(forgetful: ForgetfulDisk, root: Path) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    forgetful.fail("fallocate", errno.ENOSPC)
    with pytest.raises(DiskFull):
        area.create(segment(1), 1000)
    forgetful.fail("fallocate", errno.ENOSPC)
    area.give_way = lambda size: size
    area.create(segment(1), 1000)
    assert area.used_bytes == 1000


def test_a_refusal_is_said_once_and_for_as_long_as_it_lasts(
    forgetful: ForgetfulDisk, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    area = StagingArea(forgetful, root, LIMIT, free_bytes_min=64 << 20)
    forgetful.available = 43 << 20
    sentence = f"Writing is refused: 43 MiB are free under {root}, and 64 MiB are kept."
    assert area.refusal() == sentence
    assert area.refusal(can_give_way=21 << 20) == "", "room that can be made is none too few"
    with pytest.raises(DiskFull):
        area.reserve(1000)
    assert area.refusal(can_give_way=21 << 20) == "", "the writer waits, and may have room yet"
    assert not caplog.messages
    for _ in range(3):
        with pytest.raises(DiskFull):
            area.reserve(1000)
        area.refuse()
    assert caplog.messages == [sentence]
    assert area.refusal(can_give_way=21 << 20) == sentence, "it was asked for, and not made"
    forgetful.available = 64 << 20
    more = f"64 MiB are free under {root}, and 64 MiB are kept beside 1 MiB for a segment."
    assert area.refusal() == f"Writing is refused: {more}"
    forgetful.available = 65 << 20
    assert area.refusal() == ""
    area.reserve(1000)
    area.refuse()
    assert area.refusal() == "", "that was long ago"
    forgetful.available = 1 << 20
    with pytest.raises(DiskFull):
        area.reserve(1000)
    area.refuse()
    assert len(caplog.messages) == 2


# -- a disk that fails


@pytest.mark.parametrize("call", ["create", "fallocate"])
def test_a_full_disk_refuses_a_segment_and_keeps_the_reservation(
    forgetful: ForgetfulDisk, root: Path, call: str
) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    area.reserve(100)
    forgetful.fail(call, errno.ENOSPC)
    with pytest.raises(DiskFull, match="Free some space"):
        area.create(segment(1), 100, paid=100)
    assert list(root.iterdir()) == []
    assert (area.reserved_bytes, area.used_bytes) == (100, 0)
    area.create(segment(1), 100, paid=100)
    area.close()


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "fdatasync"])
def test_an_error_is_final_for_its_file_only(
    forgetful: ForgetfulDisk, root: Path, call: str
) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    bad, good = area.create(segment(1), 1000), area.create(segment(2), 1000)
    bad.pwrite(b"x", 0)
    forgetful.fail(call, errno.EIO)
    with pytest.raises(LocalError):
        if call == "pwrite":
            bad.pwrite(b"y", 1)
        elif call == "ftruncate":
            bad.finish(2)
        else:
            bad.sync()
    assert not area.is_synced(bad.segment)
    for again in (lambda: bad.pwrite(b"z", 2), bad.sync, lambda: bad.finish(3)):
        with pytest.raises(LocalError, match="cannot be used any more"):
            again()
    good.pwrite(b"good", 0)
    good.sync()
    good.finish(4)
    assert area.read(good.segment) == b"good"
    area.remove(bad.segment)
    assert area.used_bytes == 4
    area.sync()
    area.close()


def test_sync_calls_the_disk_once_a_file_and_once_for_the_directory(
    forgetful: ForgetfulDisk, root: Path
) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    segments = [stage(area, number, b"x") for number in range(4)]
    forgetful.calls.clear()
    area.sync(segments[:3])
    assert (forgetful.calls["fdatasync"], forgetful.calls["fsync_dir"]) == (3, 1)
    assert [area.is_synced(one) for one in segments] == [True, True, True, False]
    area.sync()
    assert (forgetful.calls["fdatasync"], forgetful.calls["fsync_dir"]) == (4, 1)
    area.sync()
    area.sync([*segments, segment(99)])
    assert (forgetful.calls["fdatasync"], forgetful.calls["fsync_dir"]) == (4, 1)
    area.remove(segments[0])
    area.sync([])
    assert forgetful.calls["fsync_dir"] == 2


def test_an_error_of_the_directory_is_told_and_tried_again(
    forgetful: ForgetfulDisk, root: Path
) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    one = stage(area, 1, b"x")
    forgetful.fail("fsync_dir", errno.EIO)
    with pytest.raises(LocalError):
        area.sync()
    assert not area.is_synced(one)
    area.sync()
    assert area.is_synced(one)


@pytest.mark.parametrize("seed", range(25))
def test_what_was_synced_survives_loss_of_power(
    forgetful: ForgetfulDisk, root: Path, seed: int
) -> None:
    area = StagingArea(forgetful, root, LIMIT)
    synced = {stage(area, number, b"%d" % number * 3000) for number in range(3)}
    unfinished = area.create(segment(7), 20_000)
    unfinished.pwrite(b"half" * 2000, 4096)
    area.sync()
    stage(area, 8, b"later" * 2000)
    unfinished.pwrite(b"more" * 100, 16_000)
    area.remove(segment(0))
    forgetful.crash(seed)
    again = StagingArea(forgetful, root, LIMIT)
    for one in synced - {segment(0)}:
        assert again.read(one) == b"%d" % one[-1] * 3000
    assert again.read(segment(7), 4096, 8000) == b"half" * 2000
    if segment(0) in again:
        assert again.read(segment(0)) == b"0" * 3000


def test_a_file_that_leaves_while_it_is_synced(root: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    class Held(RealDisk):
        def fdatasync(self, fd: int) -> None:
            entered.set()
            assert go.wait(WAIT_S)
            super().fdatasync(fd)

    area = StagingArea(Held(), root, LIMIT)
    file = area.create(segment(1), 1000)
    file.pwrite(b"x", 0)
    thread = threading.Thread(target=area.sync)
    thread.start()
    assert entered.wait(WAIT_S)
    file.finish(1)
    area.remove(file.segment)
    go.set()
    join(thread)
    assert area.used_bytes == 0 and file._entry.fd == -1
    area.close()


def test_many_threads_at_once(disk: RealDisk, root: Path) -> None:
    area = StagingArea(disk, root, 40_000)
    cache = root / "cache"
    cache.mkdir()
    failures: list[BaseException] = []

    def work(base: int) -> None:
        try:
            for number in range(base, base + 12):
                area.reserve(9_000, timeout_s=WAIT_S)
                file = area.create(segment(number), 9_000, paid=9_000)
                file.pwrite(b"%d" % number, 0)
                area.sync([file.segment])
                file.finish(5000)
                assert area.read(file.segment, 0, 4) == b"%d" % number
                area.adopt(file.segment, cache) if number % 2 else area.remove(file.segment)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    join(*threads)
    assert not failures
    assert (area.used_bytes, area.reserved_bytes, area.segments()) == (0, 0, [])
    assert len(list(cache.glob("*/*"))) == 36
