"""`fsck --repair`: a replica built anew with what is pending kept (S-57), alarms that are cleared
only by who was asked (S-54), and files from segments that no entry names (S-50)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from lucid.config import Config
from lucid.errors import (
    DiskFull,
    HistoryFork,
    LocalError,
    LucidError,
    StateDamaged,
    StateInUse,
    StoreUnavailable,
)
from lucid.filespace import Filespace, fsck
from lucid.filespace.lost_found import Found, LostFound
from lucid.filespace.repairing import ASIDE, Repair, Repaired
from lucid.filespace.resending import resend
from lucid.filespace.surface import FileHandle
from lucid.format.journal import FILE_HEADER_SIZE
from lucid.format.names import log_key
from lucid.meta import history
from lucid.store.faulty import Fault, FaultPlan, FaultyStore
from lucid.store.memory import MemoryStore
from lucid.types import SystemClock
from tests.filespace.floors import commit_floor
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    QUICK,
    WAIT_S,
    Space,
    parts_of,
    some_bytes,
    write_at,
)

DAY_NS = 24 * 3600 * 10**9
LARGE = some_bytes(3, 3 * BLOCK + 100)


def until(is_so: Callable[[], bool]) -> None:
    clock, pause = SystemClock(), threading.Event()
    end = clock.monotonic() + WAIT_S
    while not is_so():
        assert clock.monotonic() < end
        pause.wait(0.01)


def repair_of(space: Space, name: str = "a") -> Repair:
    config = Config(**{**QUICK, "state_dir": space.state(name)})
    return Repair(lambda: MemoryStore(space.bucket, name="team"), PASSPHRASE, config)


def repaired(space: Space, name: str = "a") -> Repaired:
    repair = repair_of(space, name)
    return repair.send(repair.run())


def clean(space: Space) -> bool:
    store = MemoryStore(space.bucket, name="team")
    return fsck.check("memory://team", PASSPHRASE, read_data=True, store=store).clean


def spoil(path: Path) -> None:
    """Every page of a database but the first one is junk: it opens, and then fails."""
    data = path.read_bytes()
    assert len(data) > 8192
    path.write_bytes(data[:4096] + some_bytes(9, len(data) - 4096))


def pending(space: Space) -> None:
    """Machine a has something in the store, and something that it could not send."""
    with space.connect("a") as fs:
        fs.write_bytes("/public", b"as it was")
    fs = space.connect("a")
    space.plans["a"].die()
    fs.write_bytes("/large", LARGE)
    write_at(fs, "/public", 3, b"IT")
    fs.mkdir("/folder")
    space.crash(fs, "a")


def as_written(fs: Filespace) -> None:
    assert fs.read_bytes("/large") == LARGE
    assert fs.read_bytes("/public") == b"as IT was"
    assert sorted(fs.listdir("/")) == ["folder", "large", "public"]


# -- the replica


@pytest.mark.parametrize("state", ["whole", "spoiled", "absent"])
def test_what_is_pending_is_sent_whatever_the_replica_is(space: Space, state: str) -> None:
    pending(space)
    replica = space.state("a") / "replica"
    for beside in replica.parent.glob("replica-*"):
        beside.unlink()
    if state == "spoiled":
        spoil(replica)
    elif state == "absent":
        replica.unlink()
    found = repaired(space)
    assert found.whole, found
    assert found.ops == 3
    assert (found.damage != "") == (state == "absent") or state == "spoiled"
    assert not (space.state("a") / ASIDE).exists()
    for name in ("a", "b"):
        with space.connect(name) as fs:
            as_written(fs)
    assert clean(space)


def test_a_repair_with_nothing_to_do_changes_nothing_in_the_store(space: Space) -> None:
    with space.connect("a") as fs:
        fs.write_bytes("/f", b"there")
    before = set(space.bucket.objects)
    found = repaired(space)
    assert (found.whole, found.ops, found.damage, found.kept) == (True, 0, "", False)
    assert set(space.bucket.objects) == before


def test_a_drive_in_use_is_not_repaired(space: Space) -> None:
    with space.connect("a") as fs:
        fs.write_bytes("/f", b"there")
        with pytest.raises(StateInUse, match="Unmount that one first"):
            repair_of(space).run()
        assert fs.read_bytes("/f") == b"there"


def test_a_directory_that_was_never_used_is_not_made(space: Space) -> None:
    with pytest.raises(LocalError, match="nothing here needs a repair"):
        repair_of(space, "never").run()
    assert not space.state("never").exists()


def test_without_the_store_everything_stays_as_it_was(space: Space) -> None:
    """The store goes away at each request of a repair; the old replica is always there after."""
    pending(space)
    seen = (space.state("a") / "replica").stat().st_ino
    config = Config(**{**QUICK, "state_dir": space.state("a")})
    ended = 0
    while True:
        plan = FaultPlan()
        plan.script("get", [*[None] * ended, *[Fault.REFUSE] * 50])
        repair = Repair(
            lambda plan=plan: FaultyStore(MemoryStore(space.bucket, name="team"), plan),
            PASSPHRASE, config,
        )  # fmt: skip
        try:
            fs = repair.run()
        except StoreUnavailable:
            assert (space.state("a") / "replica").stat().st_ino == seen
            assert not (space.state("a") / ASIDE).exists()
            ended += 1
        else:
            plan.revive()
            fs.close(wait=False)
            break
    assert ended >= 5
    with space.connect("a") as fs:
        as_written(fs)


def test_a_repair_that_died_is_taken_up(space: Space) -> None:
    pending(space)
    state = space.state("a")
    (state / "replica").rename(state / ASIDE)
    assert repaired(space).damage == "", "the old one was taken back and looked at"
    with space.connect("b") as fs:
        as_written(fs)


def test_a_rotten_journal_is_left_as_it_is(space: Space) -> None:
    """A repair gives up nothing that waits: what cannot be read is told, and kept."""
    pending(space)
    state = space.state("a")
    journal = max((state / "journal").iterdir())
    whole = journal.read_bytes()
    rotten = bytearray(whole)
    rotten[FILE_HEADER_SIZE + 40] ^= 1
    journal.write_bytes(rotten)
    seen = (state / "replica").stat().st_ino
    with pytest.raises(StateDamaged, match="read-only"):
        repair_of(space).run()
    assert (state / "replica").stat().st_ino == seen
    journal.write_bytes(whole)
    assert repaired(space).whole
    with space.connect("b") as fs:
        as_written(fs)


# -- alarms


def rolled_back(space: Space) -> None:
    """The store loses the last two entries that machine a has seen."""
    with space.connect("a") as fs:
        for number in range(4):
            fs.write_bytes(f"/{number}", b"x")
            fs.sync(timeout=WAIT_S)
        head = fs.status().head
    MemoryStore(space.bucket).delete([log_key(head), log_key(head - 1)])


def test_an_alarm_is_not_repaired_away(space: Space) -> None:
    rolled_back(space)
    with pytest.raises(HistoryFork, match="rolled back"):
        repair_of(space).run()
    with pytest.raises(HistoryFork):
        repair_of(space).run(believe=lambda alarm: False)
    with pytest.raises(HistoryFork):
        space.connect("a")


def test_an_alarm_is_cleared_by_who_was_asked(space: Space) -> None:
    rolled_back(space)
    asked: list[str] = []
    repair = repair_of(space)
    fs = repair.run(believe=lambda alarm: not asked.append(alarm))
    found = repair.send(fs)
    assert asked == [found.alarm]
    assert "rolled back" in found.alarm
    with space.connect("a") as again:
        assert sorted(again.listdir("/")) == ["0", "1"]
        again.write_bytes("/new", b"goes on")
    with space.connect("b") as fs:
        assert fs.read_bytes("/new") == b"goes on"


def test_an_alarm_of_two_histories_is_cleared_too(space: Space) -> None:
    """It would stand for ever: an entry that a member signed upon another history stays there."""
    with space.connect("a") as fs:
        fs.write_bytes("/f", b"x")
    with space.connect("a") as fs:
        parts_of(fs).replica.note(history.FORK_NOTE, b"Two histories.")
        parts_of(fs).replica.commit_now()
    with space.connect("a") as fs:
        assert fs.status().problem == "Two histories."
    repair = repair_of(space)
    assert repair.send(repair.run(believe=lambda alarm: True)).whole
    with space.connect("a") as fs:
        assert fs.status().problem == ""
        fs.write_bytes("/g", b"y")


def test_a_history_that_does_not_know_this_device_is_not_believed(space: Space) -> None:
    """Its number would be another device's: what is pending stays where it is."""
    bucket = dict(space.bucket.objects), list(space.bucket.keys)
    pending(space)
    space.bucket.objects, space.bucket.keys = bucket
    with pytest.raises(HistoryFork, match="new one"):
        repair_of(space).run(believe=lambda alarm: True)
    with pytest.raises(HistoryFork):
        space.connect("a")


def test_an_entry_that_was_void_for_this_device_only_is_read_anew(space: Space) -> None:
    """S-54: it was shown altered twice in a row. What waited since is sent after the repair."""
    with space.connect("b") as other:
        other.write_bytes("/first", b"1")
    plan = FaultPlan()
    fs = space.connect("a", plan=plan, poll_fast_s=WAIT_S, poll_idle_s=WAIT_S)
    until(lambda: fs.status().online)
    with space.connect("b") as other:
        other.write_bytes("/second", b"2")
    altered = log_key(fs.status().head + 1)
    plan.script("get", [Fault.WRONG_BYTES] * 2, prefix=altered)
    assert fs.refresh(WAIT_S)
    assert fs.status().void_entries == 1
    parts_of(fs).replica.commit_now()
    plan.die()
    fs.write_bytes("/waits", b"3")
    space.crash(fs, "a")
    with pytest.raises(HistoryFork):
        space.connect("a")
    repair = repair_of(space)
    assert repair.send(repair.run(believe=lambda alarm: True)).whole
    for name in ("a", "b"):
        with space.connect(name) as fs:
            assert sorted(fs.listdir("/")) == ["first", "second", "waits"]
            assert fs.status().problem == ""


# -- what the store has lost


def resent(space: Space, name: str = "a") -> int:
    with space.connect(name) as fs:
        return resend(fs, lambda stage, done, total: None)


def test_what_the_store_has_lost_comes_back_from_the_cache(space: Space) -> None:
    """S-50."""
    with space.connect("a") as fs:
        fs.write_bytes("/large", LARGE)
        fs.sync(timeout=WAIT_S)
        fs.write_bytes("/small", b"small")
    assert resent(space) == 0
    lost = [key for key in space.bucket.objects if key.startswith("data/")]
    kept = {key: space.bucket.objects[key][0] for key in lost}
    MemoryStore(space.bucket).delete(lost)
    assert not clean(space)
    assert resent(space, "b") == 0, "it never had them"
    assert resent(space) == len(lost)
    assert {key: space.bucket.objects[key][0] for key in lost} == kept
    assert clean(space)


@pytest.mark.parametrize("how", ["altered", "part of it", "of no entry"])
def test_what_is_not_what_the_log_names_is_not_sent(space: Space, how: str) -> None:
    """S-50."""
    with space.connect("a") as fs:
        fs.write_bytes("/large", LARGE)
    (key,) = [key for key in space.bucket.objects if key.startswith("data/")]
    MemoryStore(space.bucket).delete([key])
    (file,) = (space.state("a") / "cache").glob("*/*")
    data = bytearray(file.read_bytes())
    if how == "altered":
        data[BLOCK] ^= 1
    elif how == "part of it":
        data[:BLOCK] = bytes(BLOCK)
    else:
        file = file.with_name("ab" * 32)
    file.write_bytes(data)
    for other in (space.state("a") / "cache").glob("*/*"):
        if other != file:
            other.unlink()
    assert resent(space) == 0
    assert key not in space.bucket.objects


# -- lost and found


class Lost:
    """Machine a uploads segments, never commits what names them, and is gone for good."""

    def __init__(self, space: Space) -> None:
        self.space = space
        with space.connect("a") as fs:
            fs.write_bytes("/report.txt", b"published")
        fs = space.connect("a")
        space.plans["a"].script("put", [Fault.REFUSE] * 10_000, prefix="log/")
        fs.write_bytes("/large", LARGE)
        fs.write_bytes("/report.txt", b"never published")
        before = set(space.bucket.objects)
        until(lambda: self._sealed(fs))
        self.segments = sorted(set(space.bucket.objects) - before)
        space.crash(fs, "a")

    def _sealed(self, fs: Filespace) -> bool:
        return fs.status().staged_bytes == 0

    def age(self, days: float) -> None:
        then = SystemClock().time_ns() - int(days * DAY_NS)
        for key, (data, _) in self.space.bucket.objects.items():
            if key.startswith("data/"):
                self.space.bucket.objects[key] = (data, then)

    def look(self, name: str = "b", all_orphans: bool = False) -> Found:
        with self.space.connect(name) as fs:
            return LostFound(fs, all_orphans=all_orphans).run(lambda stage, done, total: None)


@pytest.fixture
def lost(space: Space) -> Lost:
    return Lost(space)


def contents(space: Space, found: Found) -> list[bytes]:
    with space.connect("c") as fs:
        return sorted(fs.read_bytes(path) for path in found.files)


def test_lost_segments_become_files(lost: Lost, space: Space) -> None:
    """S-50."""
    lost.age(2)
    found = lost.look()
    assert not found.problems
    assert found.segments >= 1
    assert contents(space, found) == sorted([LARGE, b"never published"])
    names = sorted(path.rsplit("/", 1)[1] for path in found.files)
    assert any(name.startswith("report.txt-") for name in names), names
    with space.connect("c") as fs:
        assert sorted(fs.listdir("/lost+found")) == names
        assert fs.read_bytes("/report.txt") == b"published"
    assert clean(space)


def test_a_second_look_makes_nothing_twice(lost: Lost, space: Space) -> None:
    """S-50."""
    lost.age(2)
    first = lost.look()
    second = lost.look("d")
    assert (second.files, second.there_before) == ([], len(first.files))
    assert second.segments == first.segments


def test_a_look_that_the_disk_ends_leaves_no_half_of_a_file(lost: Lost, space: Space) -> None:
    """S-50: the next one would take it for what an earlier one has made."""
    lost.age(2)
    with space.connect("b") as fs:
        write = fs.tree.write

        def written(handle: FileHandle, offset: int, data: bytes) -> int:
            if offset:
                raise DiskFull("The disk is full.")
            return write(handle, offset, data)

        with mock.patch.object(fs.tree, "write", written), pytest.raises((LucidError, OSError)):
            LostFound(fs).run(lambda stage, done, total: None)
    made = lost.look("d")
    with space.connect("c") as fs:
        held = [fs.read_bytes(f"/lost+found/{name}") for name in fs.listdir("/lost+found")]
    assert LARGE in held and made.files


def test_what_may_be_under_way_is_left_alone(lost: Lost, space: Space) -> None:
    """S-50."""
    lost.age(0.5)
    found = lost.look()
    assert (found.files, found.segments) == ([], 0)
    assert found.young >= 1
    assert len(lost.look("d", all_orphans=True).files) == 2


def test_what_is_named_or_pending_is_not_lost(space: Space) -> None:
    """S-50: neither what entries name, nor what this machine is about to commit."""
    with space.connect("a") as fs:
        fs.write_bytes("/f", LARGE)
        fs.sync(timeout=WAIT_S)
        fs.write_bytes("/g", LARGE[::-1])
        found = LostFound(fs, all_orphans=True).run(lambda stage, done, total: None)
        assert found == Found()


def test_a_block_that_does_not_open_is_a_hole_and_is_told(lost: Lost, space: Space) -> None:
    """S-50."""
    lost.age(2)
    for key in list(space.bucket.objects):
        data, then = space.bucket.objects[key]
        if key.startswith("data/") and len(data) > len(LARGE):
            altered = bytearray(data)
            altered[BLOCK // 2] ^= 1
            space.bucket.objects[key] = (bytes(altered), then)
    found = lost.look()
    assert any("do not open" in problem for problem in found.problems)
    holed = next(one for one in contents(space, found) if len(one) == len(LARGE))
    assert holed == bytes(BLOCK) + LARGE[BLOCK:]


def test_a_segment_without_an_end_is_left_alone(lost: Lost, space: Space) -> None:
    """S-50."""
    MemoryStore(space.bucket).put_if_absent(f"data/ab/{'ab' * 32}", b"x" * 100)
    lost.age(2)
    found = lost.look()
    assert len(found.files) == 2
    assert any("abababab" in problem and "left alone" in problem for problem in found.problems)


def test_what_was_removed_for_good_stays_so(space: Space) -> None:
    """S-50: below a floor a segment may hold what was removed. It is not made a file again, and
    where a collector took it the cache does not give it back."""
    with space.connect("a") as fs:
        fs.write_bytes("/secret", LARGE)
        fs.sync(timeout=WAIT_S)
        assert fs.read_bytes("/secret") == LARGE
        (key,) = [key for key in space.bucket.objects if key.startswith("data/")]
        fs.remove("/secret")
        fs.sync(timeout=WAIT_S)
        fs.mkdir("/later")
        fs.sync(timeout=WAIT_S)
        commit_floor(fs, fs.status().head)
        fs.mkdir("/latest")
    data, _ = space.bucket.objects[key]
    space.bucket.objects[key] = (data, SystemClock().time_ns() - 2 * DAY_NS)
    with space.connect("a") as fs:
        assert parts_of(fs).replica.segment(bytes.fromhex(key[-64:])) is None
        found = LostFound(fs).run(lambda stage, done, total: None)
        assert (found.files, found.ended) == ([], 1)
        asked = LostFound(fs, all_orphans=True).run(lambda stage, done, total: None)
        assert [fs.read_bytes(path) for path in asked.files] == [LARGE]
    MemoryStore(space.bucket).delete([key])
    assert resent(space) == 0
    assert key not in space.bucket.objects
