"""A device that was away while the log was cut: it believes no gap, wins no deleted number, and
what it had accepted is there in the end."""

from __future__ import annotations

from typing import Any

import pytest

from lucid.config import Config
from lucid.errors import BelowFloor, LucidError
from lucid.filespace import Filespace, fsck
from lucid.filespace.recovery import Recovery
from lucid.filespace.repairing import Repair
from lucid.filespace.resealing import Resealing
from lucid.store.faulty import Fault, FaultPlan
from lucid.store.memory import MemoryStore
from lucid.sync.checkpoint_start import TRIES
from lucid.types import SystemClock
from tests.filespace.checkpoints import (
    EVERY,
    SETTINGS,
    checkpoint_keys,
    connect,
    head,
    hear,
    notes,
    reader_of,
    remove,
    replace,
    rows,
    write_until,
)
from tests.filespace.floors import (
    DAYS_8_NS,
    LONG,
    Ahead,
    change_all,
    collect,
    furnish,
    go_on,
    has_stopped,
    show_floor,
    upload_all,
    when,
)
from tests.filespace.spaces import (
    PASSPHRASE,
    QUICK,
    WAIT_S,
    Space,
    parts_of,
    write_at,
)
from tests.filespace.test_small_writes import empty_journal
from tests.filespace.test_two_machines import tree_of


@pytest.mark.parametrize("how", ["cut off", "uploaded", "in doubt", "killed"])
def test_what_a_device_below_the_floor_had_accepted_is_kept(space: Space, how: str) -> None:
    """S-301: whether its bytes were in the store already, or its entry, or nothing at all."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    plan = space.plans["a"]
    if how == "uploaded":
        plan.script("put", [Fault.REFUSE] * 10_000, prefix="log/")
    elif how == "in doubt":
        plan.script("put", [Fault.LOSE_ANSWER], prefix="log/")
        plan.script("put", [Fault.REFUSE] * 10_000, prefix="log/")
    else:
        plan.die()
    change_all(one)
    expected = tree_of(one)
    if how == "uploaded":
        upload_all(one)
    elif how == "in doubt":
        when(one, lambda fs: any(f[2] is Fault.LOSE_ANSWER for f in space.plans["a"].happened))
    known = head(one)
    if how == "killed":
        space.crash(one)
    else:
        one.close(wait=False)
    floor = go_on(space, admin, known)
    assert floor > known + 1
    collect(space, admin, floor)
    one = connect(space)
    assert f"it knew entry {known}, and the floor is at {floor}" in notes(one)
    assert expected.items() <= tree_of(one).items()
    one.sync(timeout=WAIT_S)
    hear(admin)
    third = connect(space, "c")
    for fs in (one, admin, third):
        assert fs.refresh(WAIT_S)
        assert not fs.status().problem
        assert expected.items() <= tree_of(fs).items()
        names = [*fs.listdir("/"), *fs.listdir("/dir")]
        assert "removed" not in names and "renamed" not in names
        assert not [name for name in names if "conflict" in name]
    assert rows(one) == rows(admin) == rows(third)
    store = MemoryStore(space.bucket, name="team")
    assert fsck.check("memory://team", PASSPHRASE, read_data=True, store=store).clean


def test_a_new_device_where_the_newest_checkpoints_are_of_no_use(space: Space) -> None:
    """S-58: where the log is cut older ones are tried for longer: no other way leads in."""
    admin, other = connect(space), connect(space, "b")
    furnish(admin)
    hear(other)
    collect(space, admin, go_on(space, admin, head(admin)))
    for _ in range(2 * TRIES):
        write_until(admin, head(admin) + EVERY)
        hear(other)
        other.write_bytes("/other", b"This entry says what the state is.")
        other.sync(timeout=WAIT_S)
        hear(admin)
    newest = reader_of(admin).newest()
    assert newest is not None
    unused = range(newest - TRIES * EVERY, newest + EVERY, EVERY)
    for sequence in unused:
        for key in checkpoint_keys(space, sequence):
            replace(space, key, b"junk")
    new = connect(space, "new")
    assert all(f"Checkpoint {sequence} was not used" in notes(new) for sequence in unused)
    assert tree_of(new) == tree_of(admin)
    assert rows(new) == rows(admin)
    looked = fsck.check("memory://team", PASSPHRASE, store=MemoryStore(space.bucket, name="team"))
    assert looked.clean, "what a new device can begin with is no problem"
    assert all(f"Checkpoint {sequence} was not used" in str(looked.warnings) for sequence in unused)


def dying(*_: Any) -> Any:
    raise LucidError("The power is gone.")


@pytest.mark.parametrize("how", ["straight", "reopened", "killed when the replica was there"])
def test_what_was_committed_in_doubt_is_not_done_twice(
    space: Space, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """S-301: the journal remembers for as long as it takes which entry would settle what."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    plan = space.plans["a"]
    plan.script("put", [Fault.LOSE_ANSWER], prefix="log/")
    plan.script("put", [Fault.REFUSE] * 10_000, prefix="log/")
    one.chmod("/kept", 0o600)
    when(one, lambda _: any(fault[2] is Fault.LOSE_ANSWER for fault in plan.happened))
    empty_journal(one)
    one.close(wait=False)
    if how == "reopened":
        plan = FaultPlan()
        plan.die()
        one = connect(space, plan=plan)
        empty_journal(one)
        one.close(wait=False)
    hear(admin)
    assert admin.stat("/kept").mode & 0o777 == 0o600
    admin.chmod("/kept", 0o640)
    floor = go_on(space, admin, head(admin))
    collect(space, admin, floor)
    if how.startswith("killed"):
        with monkeypatch.context() as patch:
            patch.setattr(Recovery, "run", dying)
            with pytest.raises(LucidError, match="The power is gone"):
                connect(space)
    one = connect(space)
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert one.stat("/kept").mode == admin.stat("/kept").mode
    assert one.stat("/kept").mode & 0o777 == 0o640


def lose(space: Space, *, polls: bool = True) -> tuple[Filespace, Ahead, Filespace, int]:
    """A device that slept for eight days while the log was cut, with its filespace open; its clock,
    the admin's device, and the floor. Without `polls` it does not look at the log by itself. A
    third device knows the same entries, and is closed."""
    clock = Ahead()
    idle = {} if polls else {"poll_idle_s": 3600.0, "poll_fast_s": 3600.0, "poll_told_s": 3600.0}
    one = connect(space, clock=clock, **idle)
    admin, witness = connect(space, "b"), connect(space, "c")
    assert one.refresh(WAIT_S)
    assert head(witness) == head(one)
    witness.close()
    if not polls:
        committer = one.tree._opened.committer
        when(one, lambda _: committer._poll_at > SystemClock().monotonic() + 60)
    space.plans["a"].die()
    floor = go_on(space, admin, head(one))
    collect(space, admin, floor)
    clock.ahead_ns = DAYS_8_NS
    return one, clock, admin, floor


def test_who_slept_while_mounted_stops_and_begins_anew(space: Space) -> None:
    """S-302: the absence of the next entry is not taken for the end of the log."""
    one, _, admin, _ = lose(space)
    one.write_bytes("/while away", LONG)
    before = set(space.bucket.keys)
    space.plans["a"].revive()
    when(one, has_stopped)
    with pytest.raises(BelowFloor):
        one.write_bytes("/more", b"x")
    assert not [key for key in set(space.bucket.keys) - before if key.startswith("log/")]
    left = one.close()
    assert left.pending_ops == 1 and "mount again" in left.problem, "it does not wait for ever"
    one = connect(space)
    assert one.read_bytes("/while away") == LONG
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert admin.read_bytes("/while away") == LONG
    assert rows(one) == rows(admin)


def test_a_number_that_was_won_below_the_floor_settles_nothing(space: Space) -> None:
    """S-302: the floor is asked for after the win, and the change is sent again."""
    one, _, admin, _ = lose(space, polls=False)
    known = head(one)
    space.plans["a"].revive()
    one.write_bytes("/won for nothing", LONG)
    when(one, has_stopped)
    assert f"log/{known + 1:016x}" in space.bucket.objects, "it has put an entry there"
    assert parts_of(one).order.pending and head(one) == known
    one.close(wait=False)
    one = connect(space)
    assert one.read_bytes("/won for nothing") == LONG
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert admin.read_bytes("/won for nothing") == LONG


def test_entries_that_others_left_below_the_floor_are_not_followed(space: Space) -> None:
    """S-303: neither by who comes back to them, nor by who meets them while mounted."""
    late, _, admin, _ = lose(space, polls=False)
    space.plans["a"].revive()
    late.write_bytes("/stray", b"x")
    when(late, has_stopped)
    assert f"log/{head(late) + 1:016x}" in space.bucket.objects
    third = connect(space, "c")
    assert not third.exists("/stray")
    assert not third.status().problem
    hear(third)
    hear(admin)
    assert rows(third) == rows(admin)


def test_opened_offline_and_below_the_floor(space: Space) -> None:
    """S-304: it shows and takes changes; it asks when the store is back, before it writes."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    known = head(one)
    one.close()
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    plan = FaultPlan()
    plan.die()
    one = connect(space, plan=plan)
    change_all(one)
    expected = tree_of(one)
    before = set(space.bucket.keys)
    plan.revive()
    when(one, has_stopped)
    assert not [key for key in set(space.bucket.keys) - before if key.startswith("log/")]
    one.close(wait=False)
    one = connect(space)
    one.sync(timeout=WAIT_S)
    hear(admin)
    for fs in (one, admin, connect(space, "c")):
        assert expected.items() <= tree_of(fs).items()


def test_read_only_it_shows_what_it_knows(space: Space) -> None:
    """S-304: where no checkpoint can be used a read-only mount does not follow the log."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    expected, known = tree_of(one), head(one)
    one.close()
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    for key in [key for key in space.bucket.keys if key.startswith("checkpoint/")]:
        remove(space, key)
    with pytest.raises(BelowFloor, match="no checkpoint can be used"):
        connect(space)
    with pytest.raises(BelowFloor, match="no checkpoint can be used"):
        connect(space, "new")
    shown = connect(space, read_only=True)
    assert tree_of(shown).keys() == expected.keys()
    assert head(shown) == known


def test_read_only_below_the_floor_it_leaves_what_waits_alone(space: Space) -> None:
    """S-304: what the next writable mount needs is not given up; where nothing waits it goes on."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    space.plans["a"].die()
    write_at(one, "/kept", 10, b"waits")
    expected, known = one.read_bytes("/kept"), head(one)
    one.close(wait=False)
    admin.write_bytes("/kept", b"newer")
    for path in ("/renamed", "/removed", "/dir/inner"):
        admin.remove(path)
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    shown = connect(space, read_only=True)
    assert head(shown) == known
    assert "mount it without --read-only" in shown.tree._opened.away
    shown.close()
    one = connect(space)
    one.sync(timeout=WAIT_S)
    (copy,) = [name for name in one.listdir("/") if "conflict" in name]
    assert one.read_bytes(f"/{copy}") == expected
    one.close()
    hear(admin)
    floor = go_on(space, admin, head(admin))
    collect(space, admin, floor)
    assert head(connect(space, read_only=True)) == head(admin)


def test_a_repair_below_the_floor(space: Space) -> None:
    """S-301: it takes a log that was cut for no other history, and gives up nothing that waits."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    space.plans["a"].die()
    change_all(one)
    expected, known = tree_of(one), head(one)
    one.close(wait=False)
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    config = Config(**{**QUICK, **SETTINGS, "state_dir": space.state("a")})
    repair = Repair(lambda: MemoryStore(space.bucket, name="team"), PASSPHRASE, config)
    assert repair.send(repair.run()).whole
    hear(admin)
    assert expected.items() <= tree_of(admin).items()


def test_a_log_that_was_not_cut_is_followed_across_a_floor(space: Space) -> None:
    """S-303: without checkpoints a collector deletes no entries."""
    one, admin = connect(space, checkpoint_every=0), connect(space, "b", checkpoint_every=0)
    furnish(one)
    hear(admin)
    known = head(one)
    space.plans["a"].die()
    change_all(one)
    expected = tree_of(one)
    one.close(wait=False)
    write_until(admin, known + 8)
    collect(space, admin, known + 6, cut=False)
    one = connect(space, checkpoint_every=0)
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert expected.items() <= tree_of(admin).items()
    assert rows(one) == rows(admin)


def test_a_floor_that_no_entry_sets_changes_nothing(space: Space) -> None:
    """S-305: a store that shows one makes a device begin anew, to the very same state."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    space.plans["a"].die()
    change_all(one)
    expected = tree_of(one)
    one.close(wait=False)
    go_on(space, admin, head(admin))
    show_floor(space, head(admin) - 2)
    one = connect(space)
    assert "that no entry sets" in notes(one)
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert expected.items() <= tree_of(admin).items()
    assert rows(one) == rows(admin)
    show_floor(space, 1 << 40)
    one.close()
    one = connect(space)
    assert "which has no such entry" in notes(one)
    assert not one.status().problem
    assert rows(one) == rows(admin)


def test_another_history_behind_the_floor_is_an_alarm(space: Space) -> None:
    """S-305: what was seen before must lie below the checkpoint, else nothing is changed here."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    known = head(admin)
    past = (dict(space.bucket.objects), list(space.bucket.keys))
    one.write_bytes("/seen by all", LONG)
    one.sync(timeout=WAIT_S)
    one.close()
    admin.close()
    space.bucket.objects, space.bucket.keys = past
    other = connect(space, "c")
    floor = go_on(space, other, known)
    collect(space, other, floor)
    with pytest.raises(LucidError, match="is another one in the checkpoint"):
        connect(space)
    assert connect(space, read_only=True).exists("/seen by all")


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_a_crash_while_blocks_are_sealed_again(
    space: Space, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """S-301: the old record counts until the new one is durable, and its bytes are kept."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    space.plans["a"].script("put", [Fault.REFUSE] * 10_000, prefix="log/")
    change_all(one)
    expected = tree_of(one)
    upload_all(one)
    known = head(one)
    space.crash(one)
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    left = [crash_at]
    done = Resealing.done

    def dying(self: Resealing, segments: Any) -> None:
        if not left[0]:
            raise LucidError("The power is gone.")
        left[0] -= 1
        done(self, segments)

    monkeypatch.setattr(Resealing, "done", dying)
    with pytest.raises(LucidError, match="The power is gone"):
        connect(space)
    monkeypatch.setattr(Resealing, "done", done)
    one = connect(space)
    one.sync(timeout=WAIT_S)
    hear(admin)
    for fs in (one, admin, connect(space, "c")):
        assert expected.items() <= tree_of(fs).items()


def test_a_file_that_was_never_closed_keeps_its_bytes(space: Space) -> None:
    """S-306: what was flushed of it is sealed again; blocks of a base that a floor ended are read
    while they can be."""
    one, admin = connect(space), connect(space, "b")
    furnish(one)
    hear(admin)
    space.plans["a"].script("put", [Fault.REFUSE] * 10_000, prefix="log/")
    fresh = one.open("/never closed", "wb", 0)
    fresh.write(LONG)
    fresh.fsync()
    changed = one.open("/kept", "r+b", 0)
    changed.seek(3)
    changed.write(b"within a block")
    changed.fsync()
    expected = one.read_bytes("/kept")
    known = head(one)
    space.crash(one)
    floor = go_on(space, admin, known)
    collect(space, admin, floor)
    one = connect(space)
    one.sync(timeout=WAIT_S)
    hear(admin)
    assert admin.read_bytes("/never closed") == LONG
    assert admin.read_bytes("/kept") == expected


def test_the_store_is_asked_once_a_day(space: Space) -> None:
    """A device that follows the log asks for no floors; after a sleep it does, once."""
    clock = Ahead()
    one = connect(space, clock=clock)
    floors = one.tree._opened.floors
    asked: list[int] = []
    real = floors.above

    def above(at: int) -> int | None:
        asked.append(at)
        return real(at)

    floors.above = above  # type: ignore[method-assign]
    for _ in range(5):
        assert one.refresh(WAIT_S)
    assert not asked
    clock.ahead_ns = DAYS_8_NS
    for _ in range(5):
        assert one.refresh(WAIT_S)
    assert 1 <= len(asked) <= 2
