"""`lucid gc` on a filespace in memory: what it frees, what it keeps, and what makes it stop."""

from __future__ import annotations

from typing import Any

import pytest

from lucid.config import DAY_S
from lucid.errors import CorruptObject, HistoryFork, StateMismatch, StoreUnfit, UsageError
from lucid.filespace import Filespace, collecting, init
from lucid.filespace.collection import Collection
from lucid.filespace.fsck import check
from lucid.format.floor import encode_floor
from lucid.format.names import (
    floor_key,
    log_key,
    parse_log_key,
    parse_segment_key,
    segment_key,
)
from lucid.format.ops import RULES
from lucid.store.memory import Bucket, MemoryStore
from lucid.types import SystemClock
from tests.filespace.checkpoints import EVERY, connect, head, hear, rows, write_until
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    STRETCH,
    WAIT_S,
    Space,
    parts_of,
    some_bytes,
)

NS = 1_000_000_000


class Moved(SystemClock):
    """The clock of this machine, so many seconds wrong."""

    def __init__(self, by_s: float) -> None:
        self._by_ns = int(by_s * NS)

    def time_ns(self) -> int:
        return super().time_ns() + self._by_ns


def age(space: Space, days: float) -> None:
    """Everything in the store is so much older now."""
    with space.bucket.lock:
        for key, (data, modified_ns) in space.bucket.objects.items():
            space.bucket.objects[key] = (data, modified_ns - int(days * DAY_S * NS))


def gc(space: Space, **other: Any) -> Collection:
    found = collecting.collect(
        "memory://team", PASSPHRASE, **{"store": MemoryStore(space.bucket), "every": EVERY, **other}
    )
    assert not found.warnings
    return found


def keys(space: Space, prefix: str) -> list[str]:
    return [key for key in space.bucket.keys if key.startswith(prefix)]


def first_kept(space: Space) -> int:
    numbers = [parse_log_key(key) or 0 for key in keys(space, "log/")]
    assert numbers[0] == 1
    return numbers[1]


def names_of(space: Space) -> set[bytes]:
    return {parse_segment_key(key) or b"" for key in keys(space, "data/")}


def is_clean(space: Space) -> bool:
    found = check("memory://team", PASSPHRASE, read_data=True, store=MemoryStore(space.bucket))
    assert not found.problems, found.problems
    return found.clean


def rewrite(space: Space, fs: Filespace, path: str, *seeds: int) -> None:
    """Contents of one file, a good hour apart."""
    for seed in seeds:
        age(space, 0.05)
        fs.write_bytes(path, some_bytes(seed, 5000))
        fs.sync(timeout=WAIT_S)


def test_what_is_older_than_the_retention_is_freed(space: Space) -> None:
    """S-601, S-602: versions that were followed, and removed files; not what is younger."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2)
        fs.write_bytes("/gone", some_bytes(9, 5000))
        fs.sync(timeout=WAIT_S)
        age(space, 0.05)
        fs.remove("/gone")
        fs.sync(timeout=WAIT_S)
        rewrite(space, fs, "/last", 7)
        old = names_of(space)
        age(space, 8)
        rewrite(space, fs, "/plan", 3, 4)
        before = dict(space.bucket.objects)
        dry = gc(space)
        assert space.bucket.objects == before
        done = gc(space, delete=True)
        assert (dry.segments, dry.floor) == (done.segments, done.floor)
        assert dry.current_bytes == done.current_bytes > 0
        assert done.segments.count == 2
        gone = old - names_of(space)
        assert len(gone) == 2
        assert fs.refresh(WAIT_S)
        assert fs.read_bytes("/plan") == some_bytes(4, 5000)
        assert [version.size for version in fs.versions("/plan")] == [5000] * 3
    with space.connect("b") as fs:
        second = fs.versions("/plan")[0]
        fs.restore("/plan", second.number)
        assert fs.read_bytes("/plan") == some_bytes(2, 5000)
    assert is_clean(space)


def test_nothing_is_freed_before_its_time(space: Space) -> None:
    """S-601: and no session is taken for that."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
    before = dict(space.bucket.objects)
    assert gc(space, delete=True).floor == 0
    age(space, 6.8)
    assert gc(space, delete=True).freed_objects == 0
    assert set(space.bucket.objects) == set(before)


def test_the_retention_can_be_chosen(space: Space) -> None:
    """S-601: down to two days."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 3)
    assert gc(space, retention_s=4 * DAY_S).floor == 0
    assert gc(space, retention_s=2 * DAY_S).segments.count == 1
    with pytest.raises(UsageError, match="at least 2 days"):
        gc(space, retention_s=2 * DAY_S - 1)


def test_the_log_is_cut_at_a_checkpoint(space: Space) -> None:
    """S-603, S-604: a new device begins there, and holds what an old one holds."""
    with connect(space) as fs:
        write_until(fs, 2 * EVERY + 3)
        age(space, 8)
        write_until(fs, 3 * EVERY + 3)
        done = gc(space, delete=True)
        assert done.checkpoint == 3 * EVERY
        assert done.floor == 2 * EVERY + 3 == done.first_entry
        assert first_kept(space) == done.floor
        assert keys(space, "checkpoint/")[0] >= f"checkpoint/{EVERY:016x}"
        assert space.bucket.objects[floor_key(done.floor)][0] == encode_floor(done.floor)
        hear(fs)
        held = rows(fs)
        with connect(space, "new") as new:
            hear(new)
            hear(fs)
            assert new.status().checkpoint_notes[0].startswith("Begun from checkpoint 24")
            assert [row for row in rows(new) if row[0] == 8] == [row for row in held if row[0] == 8]
            for name in fs.listdir("/"):
                path = f"/{name}"
                assert new.read_bytes(path) == fs.read_bytes(path)
    assert is_clean(space)


def test_without_a_checkpoint_the_log_stays_whole(space: Space) -> None:
    """S-603: data goes all the same."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 8)
    done = gc(space, delete=True)
    assert done.log.count == 0 and done.segments.count == 1
    assert any("The log is short" in note or "No checkpoint" in note for note in done.notes)
    assert first_kept(space) == 2


def test_a_checkpoint_that_nobody_wrote_is_written(space: Space) -> None:
    """S-603: by who collects."""
    with space.connect("a") as fs:
        while head(fs) < EVERY + 3:
            rewrite(space, fs, f"/file {head(fs)}", head(fs))
    assert not keys(space, "checkpoint/")
    age(space, 8)
    done = gc(space, delete=True)
    assert done.checkpoint == EVERY == done.first_entry
    assert first_kept(space) == EVERY
    with connect(space, "new") as new:
        assert "Begun from checkpoint" in new.status().checkpoint_notes[0]
    assert is_clean(space)


def test_it_may_be_run_again_and_again(space: Space) -> None:
    """S-605: also when it was stopped in the middle of deleting."""
    with connect(space) as fs:
        write_until(fs, 2 * EVERY + 3)
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 8)

    class Stopping(MemoryStore):
        deletes = 0

        def delete(self, keys: Any) -> None:
            self.deletes += 1
            for count, key in enumerate(keys):
                if self.deletes > 1 or count > 0:
                    raise CorruptObject("The power went.")
                super().delete([key])

    with pytest.raises(CorruptObject, match="The power went"):
        gc(space, store=Stopping(space.bucket), delete=True)
    again = gc(space, delete=True)
    assert again.freed_objects > 0
    last = gc(space, delete=True)
    assert last.freed_objects == 0 and last.floor == again.floor
    assert is_clean(space)


def test_two_at_once(space: Space) -> None:
    """S-605: the second begins when the first is about to delete, and both end."""
    with connect(space) as fs:
        write_until(fs, 2 * EVERY + 3)
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 8)

    class Late(MemoryStore):
        other: Collection | None = None

        def delete(self, keys: Any) -> None:
            if self.other is None:
                self.other = gc(space, delete=True)
            super().delete(keys)

    store = Late(space.bucket)
    gc(space, store=store, delete=True)
    assert store.other is not None and store.other.freed_objects
    assert is_clean(space)
    with connect(space, "new") as new:
        assert new.read_bytes("/plan") == some_bytes(3, 5000)


def test_uploads_of_writers_are_left_alone(space: Space) -> None:
    """S-606: what is not committed yet and younger than the floor; and what is, meanwhile."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
        age(space, 8)
        orphan = segment_key(b"\x07" * 32)
        MemoryStore(space.bucket).put_if_absent(orphan, b"on its way")
        old = segment_key(b"\x08" * 32)
        MemoryStore(space.bucket).put_if_absent(old, b"given up")
        space.bucket.objects[old] = (b"given up", 0)

        class Writing(MemoryStore):
            def delete(self, keys: Any) -> None:
                rewrite(space, fs, "/meanwhile", 5)
                super().delete(keys)

        done = gc(space, store=Writing(space.bucket), delete=True)
        assert done.young_segments.count == 1
        assert orphan in space.bucket.objects
        assert old not in space.bucket.objects
        assert fs.refresh(WAIT_S)
    with space.connect("new") as new:
        assert new.read_bytes("/meanwhile") == some_bytes(5, 5000)
    assert is_clean(space)


def test_clocks_that_differ(space: Space) -> None:
    """S-607: by more than an hour: a dry run says so, nothing is deleted."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 8)
    before = dict(space.bucket.objects)
    clock = Moved(2 * 3600)
    with pytest.raises(StoreUnfit, match="more than an hour"):
        gc(space, clock=clock, delete=True)
    assert space.bucket.objects == before
    found = collecting.collect(
        "memory://team", PASSPHRASE, store=MemoryStore(space.bucket), clock=clock
    )
    assert "more than an hour" in found.warnings[0]
    assert gc(space, clock=Moved(1800), delete=True).segments.count == 1


def put_back(space: Space, key: str, days: float) -> None:
    """This object was stored while the clock that dates objects stood so far in the past."""
    data, modified_ns = space.bucket.objects[key]
    space.bucket.objects[key] = (data, modified_ns - int(days * DAY_S * NS))


def test_what_a_clock_that_was_wrong_has_dated_is_of_no_known_age(space: Space) -> None:
    """S-601: a directory is dated by whoever writes there. A version that was followed just now is
    kept, though the entry says that this was a year ago, until an entry behind it is old."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1)
        age(space, 8)
        before = set(space.bucket.keys)
        rewrite(space, fs, "/plan", 2, 3)
        for key in set(space.bucket.keys) - before:
            put_back(space, key, 365)
        assert gc(space, delete=True).freed_objects == 0
        assert fs.refresh(WAIT_S)
        assert [version.size for version in fs.versions("/plan")] == [5000] * 3
        rewrite(space, fs, "/last", 7)
    age(space, 8)
    assert gc(space, delete=True).segments.count == 2
    assert is_clean(space)


def test_an_upload_that_a_clock_that_was_wrong_has_dated(space: Space) -> None:
    """S-606: where entries behind the floor seem older than it, so may uploads."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2)
        age(space, 8)
        rewrite(space, fs, "/lately", 4)
        before = set(space.bucket.keys)
        rewrite(space, fs, "/meanwhile", 5)
        orphan = segment_key(bytes(range(32)))
        MemoryStore(space.bucket).put_if_absent(orphan, b"to be named by the next entry")
        for key in set(space.bucket.keys) - before:
            put_back(space, key, 30)
        done = gc(space, delete=True)
        assert done.floor and orphan in space.bucket.objects
    assert is_clean(space)


def test_what_a_lost_device_has_put_below_the_floor_holds_nothing_up(space: Space) -> None:
    """S-603: a number that was deleted looks free to it."""
    with connect(space) as fs:
        write_until(fs, 2 * EVERY + 3)
        age(space, 8)
        write_until(fs, 3 * EVERY + 3)
        done = gc(space, delete=True)
        age(space, 8)
        MemoryStore(space.bucket).put_if_absent(log_key(3), b"just now")
        hear(fs)
        write_until(fs, 4 * EVERY + 3)
    again = gc(space, delete=True)
    assert again.floor > done.floor
    assert log_key(3) not in space.bucket.objects


def test_a_hole_in_the_log(space: Space) -> None:
    """S-607: somebody else deletes here."""
    with connect(space) as fs:
        write_until(fs, EVERY + 6)
    age(space, 8)
    del space.bucket.objects[log_key(EVERY + 2)]
    space.bucket.keys.remove(log_key(EVERY + 2))
    before = set(space.bucket.objects)
    with pytest.raises((HistoryFork, CorruptObject), match="Nothing was deleted"):
        gc(space, delete=True)
    assert set(space.bucket.objects) == before


def test_a_checkpoint_of_another_state(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-607: what the log makes and what the checkpoint leads to must be one."""
    with connect(space) as fs:
        write_until(fs, EVERY + 6)
    age(space, 8)
    hashes = iter([b"1" * 32, b"2" * 32])
    monkeypatch.setattr(collecting, "_hash_of", lambda replica, rest: next(hashes))
    data = keys(space, "data/")
    with pytest.raises(StateMismatch, match="Nothing was deleted"):
        gc(space, delete=True)
    assert keys(space, "data/") == data
    assert first_kept(space) == 2


def test_the_entry_of_the_floor_is_gone(space: Space) -> None:
    """S-607: without it the age of what is stored cannot be told."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 8)
    done = gc(space, delete=True)
    del space.bucket.objects[log_key(done.floor)]
    space.bucket.keys.remove(log_key(done.floor))
    with pytest.raises((HistoryFork, CorruptObject), match="Nothing was deleted"):
        gc(space, delete=True)


@pytest.mark.parametrize("rules", [1, 2, 3])
def test_an_older_filespace_gets_the_newest_rules(space: Space, rules: int) -> None:
    """S-608: by the first one that deletes; a dry run changes nothing."""
    bucket = Bucket()
    init(
        "memory://old", passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH,
        store=MemoryStore(bucket), rules=rules,
    )  # fmt: skip
    older = Space(space.root / "older", bucket)
    try:
        with older.connect("a") as fs:
            rewrite(older, fs, "/plan", 1, 2, 3)
        age(older, 8)
        gc(older)
        assert gc(older).segments.count == 1
        done = gc(older, delete=True)
        assert done.segments.count == 1
        with older.connect("a") as fs:
            assert parts_of(fs).replica.value("rules") == b"%d" % RULES
            assert fs.read_bytes("/plan") == some_bytes(3, 5000)
        assert is_clean(older)
    finally:
        older.close()


def test_objects_that_are_no_segments_are_left_alone(space: Space) -> None:
    """S-607: and named."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1)
    age(space, 8)
    MemoryStore(space.bucket).put_if_absent("data/notes.txt", b"mine")
    found = collecting.collect(
        "memory://team", PASSPHRASE, store=MemoryStore(space.bucket), delete=True
    )
    assert found.warnings == ["data/notes.txt is no segment's name. It is left alone."]
    assert "data/notes.txt" in space.bucket.objects


def cut(space: Space) -> Collection:
    """Writes, with a void entry in between, and cuts the log."""
    with connect(space) as fs:
        write_until(fs, 4)
        MemoryStore(space.bucket).put_if_absent(log_key(head(fs) + 1), b"junk")
        write_until(fs, 2 * EVERY + 3)
        assert fs.status().void_entries == 1
    age(space, 8)
    with connect(space) as fs:
        write_until(fs, 3 * EVERY + 3)
    return gc(space, delete=True)


def test_void_entries_below_the_floor_raise_no_alarm(space: Space) -> None:
    """S-603, S-54: a device that has seen them mounts as before."""
    cut(space)
    with connect(space) as fs:
        assert fs.status().problem == ""
        assert fs.status().void_entries == 1
        write_until(fs, head(fs) + 1)
    with connect(space) as fs:
        assert fs.status().problem == ""


def test_fsck_of_a_log_that_was_cut(space: Space) -> None:
    """S-604: it says where it began, and counts what was void before."""
    done = cut(space)
    found = check("memory://team", PASSPHRASE, store=MemoryStore(space.bucket))
    assert found.clean
    assert found.first_entry > done.first_entry > EVERY
    assert found.void_entries == 1
    assert found.checkpoint == 3 * EVERY


def test_fsck_finds_an_entry_gone_above_the_floor(space: Space) -> None:
    """S-604: below it is none that could be gone."""
    done = cut(space)
    last = max(parse_log_key(key) or 0 for key in keys(space, "log/"))
    for number in (last - 1, done.floor):
        removed = Space(space.root / str(number), Bucket())
        removed.bucket.objects = dict(space.bucket.objects)
        del removed.bucket.objects[log_key(number)]
        removed.bucket.keys = sorted(removed.bucket.objects)
        found = check("memory://team", PASSPHRASE, store=MemoryStore(removed.bucket))
        assert not found.clean
        assert any(str(number) in problem for problem in found.problems)


def test_fsck_of_a_log_that_was_cut_without_its_checkpoint(space: Space) -> None:
    """S-604: nobody can begin there."""
    cut(space)
    for key in keys(space, "checkpoint/"):
        if key.endswith("/manifest"):
            del space.bucket.objects[key]
            space.bucket.keys.remove(key)
    found = check("memory://team", PASSPHRASE, store=MemoryStore(space.bucket))
    assert "no checkpoint can be used" in found.problems[0]
    with pytest.raises(CorruptObject, match="Nothing was deleted"):
        gc(space, delete=True)


def test_a_mounted_drive_goes_on_while_the_log_is_cut(space: Space) -> None:
    """S-606: with changes of its own on the way, and open files."""
    with connect(space) as fs, connect(space, "b") as other:
        write_until(fs, 2 * EVERY + 3)
        rewrite(space, fs, "/plan", 1, 2, 3)
        age(space, 8)
        write_until(fs, 3 * EVERY + 3)
        with fs.open("/plan", "rb", 0) as held:
            fs.write_bytes("/pending", some_bytes(4, 9000))
            done = gc(space, delete=True)
            assert done.segments.count and done.log.count
            for one in (fs, other):
                assert one.refresh(WAIT_S)
                assert one.status().problem == ""
            assert held.read(5000) == some_bytes(3, 5000)
        fs.sync(timeout=WAIT_S)
        assert other.refresh(WAIT_S)
        assert other.read_bytes("/pending") == some_bytes(4, 9000)
        assert other.read_bytes("/plan") == some_bytes(3, 5000)
    assert is_clean(space)


def test_a_device_that_was_away_for_a_month(space: Space) -> None:
    """S-606, S-604: with a new file, an edit and a removal that it had accepted; and what it had
    uploaded and not committed was old enough to be deleted."""
    with connect(space, "away") as fs:
        write_until(fs, EVERY + 3)
        rewrite(space, fs, "/plan", 1)
        fs.write_bytes("/old", some_bytes(2, 5000))
        fs.sync(timeout=WAIT_S)
    fs = connect(space, "away")
    space.plans["away"].die()
    fs.write_bytes("/new", some_bytes(3, 5000))
    fs.write_bytes("/plan", some_bytes(4, 7000))
    fs.remove("/old")
    fs.close(wait=False)
    with connect(space, "b") as other:
        write_until(other, 3 * EVERY + 3)
        age(space, 30)
        write_until(other, 5 * EVERY + 3)
        done = gc(space, delete=True)
        assert done.first_entry > 2 * EVERY
        with connect(space, "away") as back:
            back.sync(timeout=WAIT_S)
            assert back.status().problem == ""
            assert other.refresh(WAIT_S)
            for one in (back, other):
                assert one.read_bytes("/new") == some_bytes(3, 5000)
                assert one.read_bytes("/plan") == some_bytes(4, 7000)
                assert not one.exists("/old")
        write_until(other, 7 * EVERY)
        age(space, 30)
        write_until(other, 9 * EVERY)
        gc(space, delete=True)
    with connect(space, "new") as new:
        assert new.read_bytes("/plan") == some_bytes(4, 7000)
    assert is_clean(space)


def test_its_own_entries_are_no_reason_for_the_next_one(space: Space) -> None:
    """S-605: on a drive that nobody uses, a collection each week leaves nothing."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
    age(space, 8)
    first = gc(space, delete=True)
    age(space, 8)
    second = gc(space, delete=True)
    assert first.floor and second.floor >= first.floor
    age(space, 8)
    third = gc(space, delete=True)
    assert third.freed_objects == 0
    before = set(space.bucket.objects)
    age(space, 8)
    assert gc(space, delete=True).floor == third.floor
    assert set(space.bucket.objects) == before
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 4, 5)
    age(space, 8)
    assert gc(space, delete=True).floor > third.floor


def test_junk_behind_the_end_of_the_log(space: Space) -> None:
    """S-607: anybody may put that, and it keeps nobody from collecting."""
    with space.connect("a") as fs:
        rewrite(space, fs, "/plan", 1, 2, 3)
        MemoryStore(space.bucket).put_if_absent(log_key(head(fs) + 900), b"junk")
    age(space, 8)
    assert gc(space, delete=True).segments.count == 1
