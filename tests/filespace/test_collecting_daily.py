"""A mounted drive collects by itself: when, what it frees, and what keeps it from that."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lucid.config import DAY_S, Config
from lucid.errors import CorruptObject, UsageError
from lucid.filespace import Filespace, collecting_daily, init
from lucid.filespace.collecting_daily import DailyCollection
from lucid.filespace.leftovers import Leftovers
from lucid.store.faulty import Fault
from lucid.store.memory import Bucket, MemoryStore
from lucid.sync.daily import FIRST_S, Daily
from lucid.types import SystemClock
from tests.filespace.checkpoints import EVERY, connect, head, remove, write_until
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    STRETCH,
    WAIT_S,
    Space,
    parts_of,
    some_bytes,
)
from tests.filespace.test_collecting import (
    age,
    first_kept,
    gc,
    is_clean,
    keys,
    names_of,
    rewrite,
)

MORE_THAN_A_DAY_S = 1.2 * DAY_S


class Awake(SystemClock):
    """The clock of a machine that has run for so much longer."""

    def __init__(self) -> None:
        self.more_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.more_s


class Device:
    """A drive, and its clock."""

    def __init__(self, space: Space, name: str = "a", **settings: Any) -> None:
        self.clock = Awake()
        self.fs = connect(space, name, clock=self.clock, **settings)

    @property
    def daily(self) -> Daily:
        assert self.fs.tree._opened.daily is not None
        return self.fs.tree._opened.daily

    def later(self, seconds: float = MORE_THAN_A_DAY_S) -> dict[str, Any]:
        """So much has passed, and what is due was done; what the status says of it."""
        self.clock.more_s += seconds
        assert self.fs.refresh(WAIT_S)
        assert self.daily.look(WAIT_S)
        return self.shown()

    def shown(self) -> dict[str, Any]:
        found = self.fs.status().collection
        assert found is not None
        return found


def fill(space: Space, fs: Filespace) -> None:
    """Something to free, and something that comes after it."""
    write_until(fs, 2 * EVERY + 3)
    rewrite(space, fs, "/plan", 1, 2, 3)
    write_until(fs, head(fs) + EVERY)


def test_what_is_older_than_the_retention_goes_by_itself(space: Space) -> None:
    """S-609: in the first hour, and then once a day; the log is cut too."""
    device = Device(space)
    fs = device.fs
    fill(space, fs)
    age(space, 8)
    write_until(fs, head(fs) + EVERY)
    before = set(space.bucket.objects)
    assert device.later(FIRST_S[0] - 60)["age_s"] is None
    assert set(space.bucket.objects) == before
    done = device.later(FIRST_S[1] - FIRST_S[0] + 60)
    assert (done["problem"], done["note"]) == ("", "")
    assert done["freed_objects"] > 2 and done["freed_bytes"] > 5000 and done["age_s"] < WAIT_S
    floor = parts_of(fs).replica.floor()
    assert 2 * EVERY < floor <= first_kept(space) + EVERY
    assert first_kept(space) > 2
    assert fs.read_bytes("/plan") == some_bytes(3, 5000)
    assert [version.size for version in fs.versions("/plan")] == [5000]
    rewrite(space, fs, "/plan", 4, 5)
    age(space, 8)
    held = names_of(space)
    assert device.later(DAY_S / 2)["freed_objects"] == done["freed_objects"]
    assert names_of(space) == held
    device.later()
    assert parts_of(fs).replica.floor() > floor
    assert held - names_of(space)
    assert is_clean(space)


def test_nothing_is_done_before_the_retention_is_over(space: Space) -> None:
    """S-609: neither an entry nor an object comes or goes."""
    device = Device(space, retention_s=30 * DAY_S)
    fill(space, device.fs)
    age(space, 29)
    before = dict(space.bucket.objects)
    found = device.later()
    assert "Nothing has become older than the retention" in found["note"]
    assert found["problem"] == "" and found["age_s"] is None
    assert space.bucket.objects == before


def test_it_can_be_left_out(space: Space) -> None:
    """S-609: with `never`, and where nothing is written."""
    writing = connect(space, retention_s=None)
    fill(space, writing)
    reading = connect(space, "b", read_only=True)
    for fs in (writing, reading):
        assert fs.tree._opened.daily is None
        assert fs.status().collection is None
    assert "lucid-collect" not in {thread.name for thread in threading.enumerate()}


def test_the_retention_is_two_days_at_least() -> None:
    """S-609."""
    with pytest.raises(UsageError, match="at least 2 days"):
        Config(retention_s=2 * DAY_S - 1)
    assert Config(retention_s=2 * DAY_S).retention_s == 2 * DAY_S


def test_under_rules_3(space: Space) -> None:
    """S-608: a drive collects, and leaves the rules to whoever runs the command."""
    bucket = Bucket()
    init(
        "memory://old", passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH,
        store=MemoryStore(bucket), rules=3,
    )  # fmt: skip
    older = Space(space.root / "older", bucket)
    try:
        device = Device(older)
        rewrite(older, device.fs, "/plan", 1, 2, 3)
        age(older, 8)
        assert device.later()["freed_objects"]
        assert parts_of(device.fs).replica.value("rules") == b"3"
        assert is_clean(older)
    finally:
        older.close()


def test_under_older_rules(space: Space) -> None:
    """S-608: a mount shuts no older version out."""
    bucket = Bucket()
    init(
        "memory://old", passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH,
        store=MemoryStore(bucket), rules=2,
    )  # fmt: skip
    older = Space(space.root / "older", bucket)
    try:
        device = Device(older)
        rewrite(older, device.fs, "/plan", 1, 2, 3)
        age(older, 8)
        before = dict(bucket.objects)
        assert "under rules 2" in device.later()["note"]
        assert bucket.objects == before
        assert gc(older, delete=True).segments.count == 1
        rewrite(older, device.fs, "/plan", 4, 5)
        age(older, 8)
        assert device.later()["freed_objects"]
        assert is_clean(older)
    finally:
        older.close()


def test_two_admins(space: Space) -> None:
    """S-610: whom another one has come before leaves it for that day."""
    one, other = Device(space), Device(space, "b")
    fill(space, one.fs)
    age(space, 8)
    write_until(one.fs, head(one.fs) + EVERY)
    assert one.later()["freed_objects"]
    assert other.fs.refresh(WAIT_S)
    before = set(space.bucket.objects)
    assert "within the last day" in other.later()["note"]
    assert set(space.bucket.objects) == before
    rewrite(space, other.fs, "/plan", 6, 7)
    age(space, 8)
    held = names_of(space)
    assert other.later()["problem"] == ""
    assert held - names_of(space)
    assert is_clean(space)


def test_two_admins_at_the_same_moment(space: Space) -> None:
    """S-610, S-605: the second begins when the first is about to delete."""
    one, other = Device(space), Device(space, "b")
    fill(space, one.fs)
    age(space, 8)
    write_until(one.fs, head(one.fs) + EVERY)
    assert other.fs.refresh(WAIT_S)
    plan = space.plans["a"]
    plan.script("delete", [Fault.PAUSE], prefix="data/")
    one.clock.more_s += MORE_THAN_A_DAY_S
    looking = threading.Thread(target=one.daily.look, args=(WAIT_S,), name="lucid-test-look")
    looking.start()
    assert plan.hanging.acquire(timeout=WAIT_S)
    # As if the second had asked for floors before the first has set its own.
    for key in keys(space, "floor/"):
        space.bucket.objects[key] = (space.bucket.objects[key][0], 0)
    assert other.later()["problem"] == ""
    plan.release()
    looking.join(WAIT_S)
    for device in (one, other):
        assert device.shown()["problem"] == ""
        assert device.fs.status().problem == ""
        assert device.fs.read_bytes("/plan") == some_bytes(3, 5000)
    assert is_clean(space)


def test_while_the_store_is_away(space: Space) -> None:
    """S-611: it says so, and goes on when the store is back."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    space.plans["a"].die()
    assert not device.fs.refresh(0.1)
    committer = device.fs.tree._opened.committer
    committer.online = False  # The sync thread finds it so at its next look, whenever that is.
    device.clock.more_s += MORE_THAN_A_DAY_S
    assert device.daily.look(WAIT_S)
    found = device.shown()
    assert found["note"] == "The store does not answer." or "cut off" in found["problem"]
    assert found["age_s"] is None
    space.plans["a"].revive()
    assert device.fs.refresh(WAIT_S)
    assert device.later()["freed_objects"]


def test_an_error_is_told_and_stops_nothing(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-611: and it is tried again the next day."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    with monkeypatch.context() as patch:

        def fail(self: Leftovers) -> None:
            raise CorruptObject("Something is odd. Nothing was deleted.")

        patch.setattr(Leftovers, "delete", fail)
        found = device.later()
    assert found["problem"] == "Something is odd. Nothing was deleted."
    assert device.fs.status().problem == ""
    device.fs.write_bytes("/more", b"goes on")
    device.fs.sync(timeout=WAIT_S)
    assert device.later(DAY_S / 2)["problem"] == found["problem"]
    done = device.later()
    assert done["problem"] == "" and done["freed_objects"]


def test_writing_that_has_stopped(space: Space) -> None:
    """S-611: nothing is collected on such a drive."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    before = set(space.bucket.objects)
    parts_of(device.fs).order.stop(CorruptObject("Writing stops for a test."))
    assert device.later()["problem"] == "Writing stops for a test."
    assert set(space.bucket.objects) == before


def test_a_store_that_shows_less_than_the_drive_has_seen(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-611, S-607: what it holds back would count as named by nothing."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    blind_the_sync_thread(device, monkeypatch)
    for key in keys(space, "log/")[-3:]:
        remove(space, key)
    before = [keys(space, prefix) for prefix in ("log/", "data/", "floor/")]
    device.clock.more_s += MORE_THAN_A_DAY_S
    assert device.daily.look(WAIT_S)
    assert "shows another log than this drive has seen" in device.shown()["problem"]
    assert [keys(space, prefix) for prefix in ("log/", "data/", "floor/")] == before


def blind_the_sync_thread(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would see a change of the log too, a little earlier or later than the collector."""
    committer = device.fs.tree._opened.committer
    came = threading.Event()

    def see_nothing() -> int:
        committer._poll_at = device.clock.monotonic() + WAIT_S
        came.set()
        return 0

    monkeypatch.setattr(committer, "catch_up", see_nothing)
    committer.poke()
    assert came.wait(WAIT_S)  # So no earlier look is under way.


def test_a_log_that_is_too_long(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-611: a drive's memory is for its files."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    monkeypatch.setattr(collecting_daily, "ENTRIES_MAX", 5)
    found = device.later()
    assert "more than 5 entries" in found["problem"] and "lucid gc" in found["problem"]
    assert not keys(space, "floor/")


HELD_UP = {
    "the log is listed": ("list", "log/"),
    "an entry is read": ("get", "log/"),
    "a checkpoint is loaded": ("get", "checkpoint/"),
    "the floor is put": ("put", "floor/"),
    "data is listed": ("list", "data/"),
    "data is deleted": ("delete", "data/"),
    "the log is cut": ("delete", "log/"),
}


@pytest.mark.parametrize("where", HELD_UP)
def test_it_is_closed_in_the_middle(space: Space, where: str) -> None:
    """S-612: at once; and the next time the rest is done."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    write_until(device.fs, head(device.fs) + EVERY)
    method, prefix = HELD_UP[where]
    plan = space.plans["a"]
    plan.script(method, [Fault.HANG], prefix=prefix)
    device.clock.more_s += MORE_THAN_A_DAY_S
    looking = threading.Thread(target=device.daily.look, args=(WAIT_S,), name="lucid-test-look")
    looking.start()
    assert plan.hanging.acquire(timeout=WAIT_S)
    began = SystemClock().monotonic()
    device.fs.close(wait=False)
    assert SystemClock().monotonic() - began < 5
    looking.join(WAIT_S)
    assert not device.daily._thread.is_alive()
    assert not (space.state("a") / "collecting").exists()
    again = Device(space)
    assert again.later()["problem"] == ""
    assert len(again.fs.versions("/plan")) == 1
    assert first_kept(space) > 2
    assert is_clean(space)


def test_it_is_closed_while_the_floor_waits(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-612: the sync thread is kept, and nobody waits for it."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    committer = device.fs.tree._opened.committer
    monkeypatch.setattr(committer.alone, "next", lambda: None)
    setting = threading.Event()
    set_floor = DailyCollection.set_floor

    def told(self: DailyCollection, floor: int) -> None:
        setting.set()
        set_floor(self, floor)

    monkeypatch.setattr(DailyCollection, "set_floor", told)
    device.clock.more_s += MORE_THAN_A_DAY_S
    looking = threading.Thread(target=device.daily.look, args=(WAIT_S,), name="lucid-test-look")
    looking.start()
    assert setting.wait(WAIT_S)
    began = SystemClock().monotonic()
    device.fs.close(wait=False)
    assert SystemClock().monotonic() - began < 5
    looking.join(WAIT_S)
    assert not keys(space, "floor/")


def test_a_device_that_dies_in_the_middle(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-612: its next look finishes what it began, though its floor is young."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    write_until(device.fs, head(device.fs) + EVERY)
    held = names_of(space)
    with monkeypatch.context() as patch:

        def die(self: Leftovers) -> None:
            raise CorruptObject("The power goes.")

        patch.setattr(Leftovers, "delete", die)
        device.later()
    assert keys(space, "floor/") and names_of(space) == held
    left = space.state("a") / "collecting"
    left.mkdir()
    (left / "replica").write_bytes(b"of a device that was killed")
    space.crash(device.fs)
    again = Device(space)
    assert parts_of(again.fs).replica.floor()
    done = again.later()
    assert (done["problem"], done["note"]) == ("", "")
    assert done["freed_objects"] and names_of(space) < held
    assert not left.exists()
    assert is_clean(space)


def test_what_was_freed_is_remembered(space: Space) -> None:
    """S-611: the status says it after the next mount too."""
    device = Device(space)
    fill(space, device.fs)
    age(space, 8)
    done = device.later()
    device.fs.close()
    again = Device(space)
    assert again.shown()["freed_bytes"] == done["freed_bytes"] > 0
    assert again.shown()["age_s"] is not None
    assert "within the last day" in again.later()["note"]
