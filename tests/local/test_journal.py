"""The journal on a real disk and on one that fails: appending, syncing, reading, emptying."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from lucid.errors import DiskFull, InternalError, LocalError, StagingFull, Stopped
from lucid.format.journal import Limit, Mark, Settled
from lucid.local.disk import RealDisk
from lucid.local.frames import Position
from lucid.local.journal import FILES_MAX
from tests.local.forgetful import ForgetfulDisk
from tests.local.journals import FILE_BYTES, open_journal, patch, read_back

WAIT_S = 20.0


def names(root: Path) -> list[int]:
    return sorted(int(path.name, 16) for path in root.iterdir())


def test_what_was_appended_is_read_back_and_replayed(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        first = journal.append(patch(1))
        second, third = journal.append_many([patch(2, 5000), Limit(65536)])
        assert journal.append_many([]) == []
        assert [journal.read(p)[:1] for p in (first, second, third)] == [(1,), (2,), (65536,)]
        assert first.end == (second.file, second.offset)
        assert (second.ordinal, third.ordinal) == (first.ordinal + 1, first.ordinal + 2)
    found, report = read_back(disk, root)
    assert found == [1, 2]
    assert report.records == 3 and report.torn_bytes == 0 and report.damage is None


def test_files_are_ours_alone_and_set_aside(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        path = root / f"{1:016x}"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size == FILE_BYTES
        assert path.stat().st_blocks * 512 >= FILE_BYTES
        position = journal.append(patch(1))
    assert path.stat().st_size == position.end[1]


def test_nothing_of_a_record_is_readable_on_the_disk(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        journal.append(patch(7, 100)._replace(data=b"a secret sentence"))
    assert b"secret" not in (root / f"{1:016x}").read_bytes()


def test_a_full_file_is_followed_by_another(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        positions = [journal.append(patch(n, 20_000)) for n in range(10)]
        assert [p.file for p in positions] == sorted(p.file for p in positions)
        assert positions[-1].file > 3
        assert journal.mark >= Mark(positions[-1].file, 0), "older files are durable"
        assert [journal.read(p)[0] for p in positions] == list(range(10))
    assert read_back(disk, root)[0] == list(range(10))


def test_a_batch_larger_than_a_file_is_whole_in_one(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        journal.append(patch(0))
        positions = journal.append_many([patch(n, 30_000) for n in range(1, 8)])
        assert len({position.file for position in positions}) == 1
    assert read_back(disk, root)[0] == list(range(8))


def test_every_start_begins_a_new_file(disk: RealDisk, root: Path) -> None:
    for number in range(1, 5):
        with open_journal(disk, root) as journal:
            assert journal.append(patch(number)).file == number
    assert read_back(disk, root)[0] == [1, 2, 3, 4]


def test_released_files_leave_when_the_next_begins(disk: RealDisk, root: Path) -> None:
    with open_journal(disk, root) as journal:
        positions = [journal.append(patch(n, 25_000)) for n in range(6)]
        assert [position.file for position in positions] == [1, 1, 2, 2, 3, 3]
        for position in positions[:3]:
            journal.release(position)
        assert names(root) == [1, 2, 3]
        journal.append(patch(6, 25_000))
        assert names(root) == [2, 3, 4]
        journal.release(positions[3])
        journal.append_many([patch(n, 25_000) for n in (7, 8)])
        assert names(root) == [3, 4, 5]
        assert journal.read(positions[4])[0] == 4
    assert read_back(disk, root)[0] == [4, 5, 6, 7, 8]


def test_sync_moves_the_mark_and_calls_the_disk_once(forgetful: ForgetfulDisk, root: Path) -> None:
    journal = open_journal(forgetful, root)
    positions = [journal.append(patch(n)) for n in range(5)]
    forgetful.calls.clear()
    journal.sync(positions[2])
    assert journal.mark == Mark(*positions[4].end), "one fdatasync serves all that is there"
    journal.sync(positions[4])
    journal.sync()
    assert forgetful.calls["fdatasync"] == 1
    journal.close()


class HeldDisk(RealDisk):
    """Its fdatasync waits for a word while `hold` is set."""

    def __init__(self) -> None:
        self.hold = False
        self.syncs = 0
        self.entered = threading.Event()
        self.go = threading.Event()

    def fdatasync(self, fd: int) -> None:
        if self.hold:
            self.syncs += 1
            self.entered.set()
            assert self.go.wait(WAIT_S)
        super().fdatasync(fd)


def test_one_fdatasync_serves_all_who_wait(root: Path) -> None:
    disk = HeldDisk()
    journal = open_journal(disk, root)
    first = journal.append(patch(0))
    disk.hold = True
    leader = threading.Thread(target=journal.sync, args=(first,))
    leader.start()
    assert disk.entered.wait(WAIT_S)
    positions = [journal.append(patch(n)) for n in range(1, 9)]
    marks: list[Mark] = []

    def follow(position: Position) -> None:
        journal.sync(position)
        marks.append(journal.mark)

    followers = [threading.Thread(target=follow, args=(position,)) for position in positions]
    for thread in followers:
        thread.start()
    disk.go.set()
    for thread in [leader, *followers]:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert marks == [Mark(*positions[-1].end)] * 8
    assert disk.syncs == 2
    journal.close()


def test_threads_append_sync_read_and_roll_together(disk: RealDisk, root: Path) -> None:
    journal = open_journal(disk, root)
    failures: list[BaseException] = []

    def work(base: int) -> None:
        try:
            kept = []
            for n in range(40):
                kept += journal.append_many([patch(base + n, 500), patch(base + n, 3000)])
                if n % 8 == 0:
                    journal.sync(kept[-1])
                record = journal.read(kept[n // 2])
                assert record[0] == base + n // 4
                if n % 3 == 0:
                    journal.release(kept[-1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert not failures
    journal.close()
    found, _ = read_back(disk, root)
    for n in range(1, 5):
        mine = [number for number in found if number // 1000 == n]
        assert mine == sorted(mine) and mine[-1] == 1000 * n + 39


# -- a disk that fails


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_of_fdatasync_is_final(forgetful: ForgetfulDisk, root: Path, number: int) -> None:
    kind = DiskFull if number == errno.ENOSPC else LocalError
    journal = open_journal(forgetful, root)
    durable = journal.append(patch(1))
    journal.sync()
    position = journal.append(patch(2))
    forgetful.fail("fdatasync", number)
    with pytest.raises(kind):
        journal.sync()
    with pytest.raises(kind, match="mounted again"):
        journal.sync()
    with pytest.raises(kind, match="mounted again"):
        journal.append(patch(3), removal=True)
    journal.sync(durable)
    assert journal.read(position)[0] == 2, "reads go on"
    journal.close()
    forgetful.crash(3)
    assert read_back(forgetful, root)[0] in ([1], [1, 2])


def test_all_who_wait_hear_of_the_error(forgetful: ForgetfulDisk, root: Path) -> None:
    journal = open_journal(forgetful, root)
    position = journal.append(patch(0))
    barrier = threading.Barrier(4)
    heard: list[LocalError] = []
    forgetful.fail("fdatasync", errno.EIO, count=100)

    def wait() -> None:
        barrier.wait(WAIT_S)
        try:
            journal.sync(position)
        except LocalError as error:
            heard.append(error)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(heard) == 4
    assert len({id(error) for error in heard}) == 4
    forgetful.heal()
    journal.close()


@pytest.mark.parametrize("partial", [0, 1, 4, 20, 200])
def test_a_write_that_failed_leaves_nothing(
    forgetful: ForgetfulDisk, root: Path, partial: int
) -> None:
    journal = open_journal(forgetful, root)
    first = journal.append(patch(1))
    forgetful.fail("pwrite", errno.EIO, partial=partial)
    with pytest.raises(LocalError):
        journal.append_many([patch(2, 100), patch(3, 100)])
    third = journal.append(patch(4))
    assert third.file == first.file + 1, "its ordinals were used: another file goes on"
    journal.close()
    found, report = read_back(forgetful, root)
    assert found == [1, 4] and report.torn_bytes == 0


def test_a_write_that_failed_is_not_there_after_kill(forgetful: ForgetfulDisk, root: Path) -> None:
    journal = open_journal(forgetful, root)
    journal.append(patch(1))
    forgetful.fail("pwrite", errno.EIO, partial=10_000)
    with pytest.raises(LocalError):
        journal.append(patch(2))
    forgetful.kill()
    assert read_back(forgetful, root)[0] == [1]


def test_a_full_disk_takes_removals_from_the_reserve(forgetful: ForgetfulDisk, root: Path) -> None:
    journal = open_journal(forgetful, root)
    forgetful.fail("fallocate", errno.ENOSPC, count=10_000)
    accepted = 0
    with pytest.raises(DiskFull, match="Free some space"):
        while True:
            journal.append(patch(accepted, 1000))
            accepted += 1
    with pytest.raises(DiskFull):
        journal.append(patch(accepted, 1000))
    journal.append(Settled(5), removal=True)
    journal.append(patch(accepted, 1000), removal=True)
    assert names(root) == [1], "nothing of the files that could not be made is left"
    forgetful.heal()
    assert journal.append(patch(accepted + 1)).file == 2
    journal.close()
    assert read_back(forgetful, root)[0] == list(range(accepted + 2))


def test_on_a_nearly_full_disk_a_smaller_file_is_begun(
    forgetful: ForgetfulDisk, root: Path
) -> None:
    forgetful.fail("fallocate", errno.ENOSPC, count=2)
    journal = open_journal(forgetful, root)
    assert (root / f"{1:016x}").stat().st_size == FILE_BYTES // 16
    journal.append(patch(1))
    journal.close()


def test_others_give_way_before_a_full_disk_refuses_a_file(
    forgetful: ForgetfulDisk, root: Path
) -> None:
    journal = open_journal(forgetful, root)
    asked: list[int] = []

    def give_way(size: int) -> int:
        asked.append(size)
        forgetful.heal()
        return size

    journal.give_way = give_way
    forgetful.fail("fallocate", errno.ENOSPC, count=10_000)
    accepted = 0
    while journal.append(patch(accepted, 1000)).file == 1:
        accepted += 1
    assert asked == [FILE_BYTES]
    assert (root / f"{2:016x}").stat().st_size == FILE_BYTES, "not a smaller one"
    journal.close()
    assert read_back(forgetful, root)[0] == list(range(accepted + 1))


def test_a_full_disk_at_the_start_is_told(forgetful: ForgetfulDisk, root: Path) -> None:
    with open_journal(forgetful, root) as journal:
        journal.append(patch(1))
    forgetful.fail("fallocate", errno.ENOSPC, count=100)
    with pytest.raises(DiskFull):
        open_journal(forgetful, root)
    forgetful.heal()
    assert read_back(forgetful, root)[0] == [1]


def test_the_journal_has_a_limit_of_its_own(disk: RealDisk, root: Path) -> None:
    journal = open_journal(disk, root, limit_bytes=3 * FILE_BYTES)
    positions = []
    with pytest.raises(StagingFull, match="wait in the journal"):
        while True:
            positions.append(journal.append(patch(len(positions), 1000)))
    assert journal.used_bytes <= journal.limit_bytes
    journal.append(Settled(5), removal=True)
    for position in positions:
        journal.release(position)
    upto = journal.worth_emptying()
    assert upto is not None
    journal.compact(upto, [])
    journal.append(patch(1, 1000))
    journal.close()


# -- emptying


def test_emptying_moves_what_lives_and_removes_the_rest(disk: RealDisk, root: Path) -> None:
    journal = open_journal(disk, root)
    positions = [journal.append(patch(n, 10_000)) for n in range(20)]
    live = {3, 11, 18, 19}
    for n in set(range(20)) - live:
        journal.release(positions[n])
    upto = journal.worth_emptying()
    assert upto == positions[0].file
    last = journal.append(patch(20)).file
    moving = [positions[n] for n in sorted(live) if positions[n].file < last]
    moved = journal.compact(last - 1, [*moving, patch(100)])
    assert [journal.read(position)[0] for position in moved] == [3, 11, 100]
    assert {position.file for position in moved} == {last + 1}
    assert names(root) == [last, last + 1]
    assert journal.used_bytes < 3 * FILE_BYTES
    journal.append(patch(21))
    journal.close()
    found, report = read_back(disk, root)
    assert found == [15, 16, 17, 18, 19, 20, 3, 11, 100, 21]
    assert report.damage is None


def test_emptying_that_fails_changes_nothing(forgetful: ForgetfulDisk, root: Path) -> None:
    for call, number in (("fdatasync", 2), ("pwrite", 1), ("pwrite", 2), ("rename", 1)):
        journal = open_journal(forgetful, root)
        keep = journal.append(patch(1))
        before = names(root)
        forgetful.fail(call, errno.EIO, first=number)
        with pytest.raises(LocalError):
            journal.compact(keep.file, [keep])
        forgetful.heal()
        assert names(root) == before
        assert journal.read(keep)[0] == 1
        journal.compact(journal.append(patch(2)).file, [])
        journal.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_file_that_could_not_be_begun_does_not_come_back(
    forgetful: ForgetfulDisk, root: Path, seed: int
) -> None:
    """Its first record says where the file before it ends, and that one has gone on since."""
    journal = open_journal(forgetful, root)
    first = journal.append(patch(1))
    forgetful.fail("fsync_dir", errno.EIO)
    with pytest.raises(LocalError):
        if seed % 2:
            journal.append(patch(2, 60_000))
        else:
            journal.compact(first.file, [first])
    journal.append(patch(3))
    journal.sync()
    forgetful.crash(seed)
    assert read_back(forgetful, root)[0] == [1, 3]


def test_a_file_that_may_come_back_is_the_end(forgetful: ForgetfulDisk, root: Path) -> None:
    journal = open_journal(forgetful, root)
    keep = journal.append(patch(1))
    forgetful.fail("fsync_dir", errno.EIO)
    forgetful.fail("ftruncate", errno.EIO)
    with pytest.raises(LocalError):
        journal.compact(keep.file, [keep])
    with pytest.raises(LocalError, match="mounted again"):
        journal.append(patch(2))
    assert journal.read(keep)[0] == 1
    journal.close()
    forgetful.crash(0)
    assert read_back(forgetful, root)[0] == [1]


def test_emptying_waits_for_nobody_and_appends_wait_for_it(disk: RealDisk, root: Path) -> None:
    journal = open_journal(disk, root)
    keep = [journal.append(patch(n, 1000)) for n in range(50)]
    asked, appended = threading.Event(), threading.Event()

    def append() -> None:
        asked.set()
        journal.append(patch(99))
        appended.set()

    thread = threading.Thread(target=append)

    def live() -> list[Position]:
        thread.start()
        assert asked.wait(WAIT_S)
        assert not appended.wait(0.05)
        return keep

    class Late:
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(live())

    moved = journal.compact(keep[-1].file, Late())
    assert appended.wait(WAIT_S)
    thread.join(WAIT_S)
    assert len(moved) == 50
    journal.close()
    assert read_back(disk, root)[0] == [*range(50), 99]


def test_the_oldest_files_are_emptied_once_under_a_quarter_lives(
    disk: RealDisk, root: Path
) -> None:
    journal = open_journal(disk, root)
    positions = [journal.append(patch(n, 5_000)) for n in range(50)]
    by_file = [[p for p in positions if p.file == number] for number in range(1, 5)]
    for position in by_file[1] + by_file[2]:
        journal.release(position)
    assert journal.worth_emptying() is None, "a third of the first three lives"
    for position in by_file[3]:
        journal.release(position)
    assert journal.worth_emptying() == 4
    for position in by_file[0][2:]:
        journal.release(position)
    assert journal.worth_emptying() == 1
    journal.close()


def test_many_small_files_are_worth_joining(disk: RealDisk, root: Path) -> None:
    for number in range(FILES_MAX + 1):
        with open_journal(disk, root) as journal:
            journal.append(patch(number))
            assert journal.worth_emptying() is None
    with open_journal(disk, root) as journal:
        assert journal.worth_emptying() == FILES_MAX + 1


def test_releasing_twice_is_our_bug_and_releasing_what_is_gone_is_not(
    disk: RealDisk, root: Path
) -> None:
    journal = open_journal(disk, root)
    first, second = journal.append_many([patch(1), patch(2)])
    journal.release(first)
    journal.release(second)
    with pytest.raises(InternalError, match="twice"):
        journal.release(first)
    journal.compact(first.file, [])
    journal.release(first)
    with pytest.raises(InternalError, match="no journal file"):
        journal.compact(99, [])
    journal.close()


def test_moving_what_was_released_is_our_bug_and_changes_nothing(
    disk: RealDisk, root: Path
) -> None:
    journal = open_journal(disk, root)
    position = journal.append(patch(1))
    journal.release(position)
    with pytest.raises(InternalError, match="shall move"):
        journal.compact(position.file, [position])
    assert names(root) == [1]
    journal.append(patch(2))
    journal.close()
    assert read_back(disk, root)[0] == [1, 2]


def test_a_closed_journal_says_so(disk: RealDisk, root: Path) -> None:
    journal = open_journal(disk, root)
    position = journal.append(patch(1))
    journal.close()
    journal.close()
    journal.sync(position)
    for call in (
        lambda: journal.append(patch(2)),
        lambda: journal.read(position),
        lambda: journal.compact(1, []),
    ):
        with pytest.raises(Stopped):
            call()
