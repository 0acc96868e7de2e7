"""Bringing back what was removed, while others write, and under which rules (S-95 to S-97)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import Exists, NotFound, NotPermitted, ReadOnly, StoreUnavailable
from lucid.filespace import Filespace, fsck, init
from lucid.format.ops import ROLE_WRITER, RULES, Floor
from lucid.meta.fold_rules import VALUE_RULES
from lucid.store.faulty import Fault
from lucid.store.memory import Bucket, MemoryStore
from lucid.types import SystemClock
from tests.filespace.older import NEW, OLD, numbers, settle, twice
from tests.filespace.spaces import BLOCK, PASSPHRASE, STRETCH, WAIT_S, Space, parts_of


class Ahead(SystemClock):
    """A clock that can be put forward."""

    ahead_ns = 0

    def time_ns(self) -> int:
        return super().time_ns() + self.ahead_ns


@pytest.fixture
def fs(space: Space) -> Filespace:
    return space.connect("a")


@pytest.fixture
def old_space(tmp_path: Path) -> Iterator[Space]:
    """A filespace under rules 1."""
    bucket = Bucket()
    store = MemoryStore(bucket)
    init("memory://old", passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH, store=store,
         rules=1)  # fmt: skip
    space = Space(tmp_path, bucket)
    yield space
    space.close()


# Undeleting


def test_a_removed_file_comes_back(fs: Filespace) -> None:
    """S-95: the same file, with its versions and attributes."""
    shown = twice(fs)
    fs.tree.set_xattr(fs.resolve("/plan.txt"), b"user.a", b"1")
    before = fs.stat("/plan.txt")
    fs.remove("/plan.txt")
    restored = fs.restore("/plan.txt", deleted=True)
    assert fs.read_bytes("/plan.txt") == NEW
    assert fs.stat("/plan.txt")._replace(ctime_ns=0) == before._replace(ctime_ns=0)
    assert fs.tree.get_xattr(before.ino, b"user.a") == b"1"
    assert tuple(numbers(fs, "/plan.txt")) == shown
    assert (restored.file, restored.version) == (before.ino, shown[1])
    assert fs.removed("/") == []


def test_a_removed_file_comes_back_elsewhere_or_as_it_once_was(fs: Filespace) -> None:
    """S-95."""
    first, _ = twice(fs)
    fs.remove("/plan.txt")
    fs.write_bytes("/plan.txt", b"another file")
    with pytest.raises(Exists, match="--to"):
        fs.restore("/plan.txt", deleted=True)
    restored = fs.restore("/plan.txt", first, to="/old.txt", deleted=True)
    assert (restored.path, fs.read_bytes("/old.txt")) == (b"/old.txt", OLD)
    assert fs.read_bytes("/plan.txt") == b"another file"
    assert len(fs.versions("/old.txt")) == 3


def test_of_several_removed_files_the_last_one_or_the_one_that_is_named(fs: Filespace) -> None:
    """S-95."""
    wanted = []
    for number in range(3):
        fs.write_bytes("/f", b"%d" % number)
        wanted += numbers(fs, "/f")[-1:]
        fs.remove("/f")
    with pytest.raises(NotFound, match="No removed file"):
        fs.restore("/f", "77-1", deleted=True)
    fs.restore("/f", deleted=True)
    assert fs.read_bytes("/f") == b"2"
    fs.restore("/f", wanted[0], to="/g", deleted=True)
    assert fs.read_bytes("/g") == b"0"


def test_a_removed_tree_comes_back(fs: Filespace) -> None:
    """S-95: with what went with it, also empty directories and links; not what went long before."""
    fs.makedirs("/job/src/empty")
    for path in ("/job/a", "/job/src/b", "/job/src/c"):
        fs.write_bytes(path, path.encode())
    fs.symlink("a", "/job/link")
    for remove, path in (
        (fs.remove, "/job/src/c"), (fs.remove, "/job/src/b"), (fs.rmdir, "/job/src/empty"),
        (fs.rmdir, "/job/src"), (fs.remove, "/job/link"), (fs.remove, "/job/a"),
        (fs.rmdir, "/job"),
    ):  # fmt: skip
        remove(path)
    restored = fs.restore("/job", deleted=True)
    assert (restored.path, restored.files) == (b"/job", 6)
    assert sorted(fs.listdir("/job")) == ["a", "link", "src"]
    assert sorted(fs.listdir("/job/src")) == ["b", "c", "empty"]
    assert fs.listdir("/job/src/empty") == []
    assert fs.read_bytes("/job/src/c") == b"/job/src/c"
    assert fs.readlink("/job/link") == "a"
    assert fs.removed("/") == []
    settle(fs)


def test_a_removed_tree_comes_back_elsewhere(fs: Filespace) -> None:
    """S-95: where its name is taken."""
    fs.makedirs("/job/src")
    fs.write_bytes("/job/src/b", b"b")
    fs.remove("/job/src/b")
    fs.rmdir("/job/src")
    fs.rmdir("/job")
    fs.mkdir("/job")
    with pytest.raises(Exists):
        fs.restore("/job", deleted=True)
    assert fs.restore("/job", to="/rescued", deleted=True).path == b"/rescued"
    assert fs.read_bytes("/rescued/src/b") == b"b"
    assert fs.listdir("/job") == []


def test_what_was_removed_by_hand_long_before_stays_removed(space: Space) -> None:
    """S-95: an hour is the measure."""
    clock = Ahead()
    fs = space.connect("a", clock=clock)
    fs.mkdir("/job")
    for name in ("long ago", "with it"):
        fs.write_bytes(f"/job/{name}", b"x")
    fs.remove("/job/long ago")
    clock.ahead_ns = 2 * 3600 * 10**9
    fs.remove("/job/with it")
    fs.rmdir("/job")
    fs.restore("/job", deleted=True)
    assert fs.listdir("/job") == ["with it"]
    assert [one.name for one in fs.removed("/job")] == [b"long ago"]


def test_an_empty_directory_comes_back(fs: Filespace) -> None:
    """S-95."""
    fs.mkdir("/docs", 0o700)
    fs.rmdir("/docs")
    fs.restore("/docs", deleted=True)
    assert fs.stat("/docs").mode == 0o040700


def test_nothing_that_was_removed(fs: Filespace) -> None:
    """S-95."""
    fs.write_bytes("/there", b"x")
    for path in ("/there", "/nothing"):
        with pytest.raises(NotFound, match="removed"):
            fs.restore(path, deleted=True)


def test_who_still_writes_a_file_that_comes_back_writes_it_again(fs: Filespace) -> None:
    """S-95, S-6."""
    fs.write_bytes("/plan.txt", OLD)
    with fs.open("/plan.txt", "r+b", 0) as file:
        file.write(b"before")
        fs.remove("/plan.txt")
        fs.restore("/plan.txt", deleted=True)
        file.write(b" and after")
    fs.sync(timeout=WAIT_S)
    assert fs.read_bytes("/plan.txt") == b"before and after" + OLD[16:]


# Others in the way


def test_a_save_of_another_machine_comes_first(space: Space, fs: Filespace) -> None:
    """S-97: the restored bytes lie beside it; nothing is lost."""
    first, _ = twice(fs)
    other = space.connect("b")
    settle(fs, other)
    space.plans["a"].die()
    fs.restore("/plan.txt", first)
    other.write_bytes("/plan.txt", b"theirs")
    other.sync(timeout=WAIT_S)
    space.plans["a"].revive()
    settle(fs, other)
    for machine in (fs, other):
        names = sorted(machine.listdir("/"))
        assert len(names) == 2 and "conflict" in names[0]
        assert machine.read_bytes("/plan.txt") == b"theirs"
        assert machine.read_bytes(f"/{names[0]}") == OLD


def test_a_restore_comes_first(space: Space, fs: Filespace) -> None:
    """S-97: then the save is the copy."""
    first, _ = twice(fs)
    other = space.connect("b")
    settle(fs, other)
    space.plans["b"].die()
    other.write_bytes("/plan.txt", b"theirs")
    fs.restore("/plan.txt", first)
    fs.sync(timeout=WAIT_S)
    space.plans["b"].revive()
    settle(other, fs)
    names = sorted(fs.listdir("/"))
    assert fs.read_bytes("/plan.txt") == OLD
    assert fs.read_bytes(f"/{names[0]}") == b"theirs"


def test_restores_while_another_machine_writes(space: Space, fs: Filespace) -> None:
    """S-97, S-71: whatever comes first each time, both see the same, and every version stays."""
    fs.write_bytes("/plan.txt", b"0")
    other = space.connect("b")
    settle(fs, other)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(1, 25):
                other.write_bytes("/plan.txt", b"%d" % number)
                if number % 4 == 0:
                    other.sync(timeout=WAIT_S)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    restored = 0
    while writer.is_alive() or restored < 10:
        oldest = fs.versions("/plan.txt")[restored % 3 - 1]
        fs.restore("/plan.txt", oldest.number)
        restored += 1
        fs.sync(timeout=WAIT_S)
    writer.join()
    assert not failed
    settle(fs, other)
    settle(fs, other)
    names = sorted(fs.listdir("/"))
    assert names == sorted(other.listdir("/"))
    shown = [version for name in names for version in fs.versions(f"/{name}")]
    assert len(shown) == 1 + 24 + restored
    assert shown == [version for name in names for version in other.versions(f"/{name}")]
    for name in names:
        assert fs.read_bytes(f"/{name}") == other.read_bytes(f"/{name}")
    for number, version in enumerate(fs.versions("/plan.txt")):
        fs.restore("/plan.txt", version.number, to=f"/copy{number}")
        assert int(fs.read_bytes(f"/copy{number}")) in range(25)


def test_what_was_restored_is_whole_for_fsck(space: Space, fs: Filespace) -> None:
    """S-94, S-95: each version that a clone names is checked like any other."""
    first, _ = twice(fs)
    fs.restore("/plan.txt", first)
    fs.restore("/plan.txt", first, to="/copy")
    fs.remove("/copy")
    fs.restore("/copy", deleted=True)
    fs.close()
    found = fsck.check(
        "memory://team", PASSPHRASE, store=MemoryStore(space.bucket, name="team"), read_data=True
    )
    assert found.clean, found


def test_two_machines_undelete_at_once(space: Space, fs: Filespace) -> None:
    """S-97: one file, one name."""
    fs.write_bytes("/plan.txt", OLD)
    other = space.connect("b")
    fs.remove("/plan.txt")
    settle(fs, other)
    for name, machine in (("a", fs), ("b", other)):
        space.plans[name].die()
        machine.restore("/plan.txt", deleted=True)
    for name in ("a", "b"):
        space.plans[name].revive()
    settle(fs, other)
    settle(fs, other)
    assert fs.listdir("/") == other.listdir("/") == ["plan.txt"]


def test_a_floor_ends_what_could_be_restored(space: Space, fs: Filespace) -> None:
    """S-91, S-283: for all machines."""
    first, second = twice(fs)
    fs.write_bytes("/gone", OLD)
    fs.remove("/gone")
    settle(fs)
    parts = parts_of(fs)
    op = Floor(parts.next_op_id(), parts.clock.time_ns(), parts.replica.head().sequence + 1)
    fs.tree._commit_alone(op)
    assert numbers(fs, "/plan.txt") == [second]
    assert fs.removed("/") == []
    assert fs.read_bytes("/plan.txt") == NEW
    with pytest.raises(NotFound, match="no version"):
        fs.restore("/plan.txt", first)
    other = space.connect("b")
    assert numbers(other, "/plan.txt") == [second]


# Rules


def test_a_filespace_begins_with_the_newest_rules(fs: Filespace) -> None:
    """S-96."""
    assert parts_of(fs).replica.value(VALUE_RULES) == b"%d" % RULES


def test_the_first_restore_brings_rules_2(old_space: Space) -> None:
    """S-96, S-93: and from then on removals are remembered, those that were pending too."""
    fs, other = old_space.connect("a"), old_space.connect("b")
    first, _ = twice(fs)
    fs.write_bytes("/gone", b"x")
    fs.write_bytes("/early", b"x")
    fs.remove("/early")
    settle(fs, other)
    old_space.plans["b"].die()
    other.remove("/gone")
    fs.restore("/plan.txt", first)
    assert parts_of(fs).replica.value(VALUE_RULES) == b"2"
    old_space.plans["b"].revive()
    settle(fs, other)
    settle(fs, other)
    for machine in (fs, other):
        assert machine.read_bytes("/plan.txt") == OLD
        shown = {one.name: one.device for one in machine.removed("/")}
        assert shown == {b"early": "", b"gone": other.status().device}
        assert machine.status().void_entries == 0
    assert parts_of(fs).replica.dump() == parts_of(other).replica.dump()
    third = old_space.connect("c")
    assert parts_of(third).replica.dump()["removed"] == parts_of(fs).replica.dump()["removed"]


def test_undeleting_needs_no_new_rules(old_space: Space) -> None:
    """S-95, S-96."""
    fs = old_space.connect("a")
    fs.write_bytes("/plan.txt", OLD)
    fs.remove("/plan.txt")
    fs.restore("/plan.txt", deleted=True)
    assert fs.read_bytes("/plan.txt") == OLD
    assert parts_of(fs).replica.value(VALUE_RULES) == b"1"


def test_rules_2_need_the_store(old_space: Space) -> None:
    """S-96: nothing has changed where it cannot be had; later it can."""
    fs = old_space.connect("a", write_wait_s=0.3)
    first, _ = twice(fs)
    settle(fs)
    old_space.plans["a"].die()
    with pytest.raises(StoreUnavailable, match="Try again"):
        fs.restore("/plan.txt", first)
    assert fs.read_bytes("/plan.txt") == NEW
    assert len(fs.versions("/plan.txt")) == 2
    old_space.plans["a"].revive()
    assert fs.refresh(WAIT_S)
    fs.restore("/plan.txt", first)
    assert fs.read_bytes("/plan.txt") == OLD


def test_rules_2_survive_a_lost_answer(old_space: Space) -> None:
    """S-96, S-56: the entry is put again, and found to be there."""
    fs = old_space.connect("a")
    first, _ = twice(fs)
    settle(fs)
    old_space.plans["a"].script("put", [Fault.LOSE_ANSWER], prefix="log/")
    fs.restore("/plan.txt", first)
    settle(fs)
    assert old_space.plans["a"].happened
    assert fs.read_bytes("/plan.txt") == OLD
    assert fs.status().void_entries == 0


def test_who_dies_while_rules_2_come_goes_on_under_them(old_space: Space) -> None:
    """S-96, S-56: the device knows its own entry again, and is not taken for a copy."""
    fs = old_space.connect("a", write_wait_s=0.3)
    first, _ = twice(fs)
    settle(fs)
    faults = [Fault.LOSE_ANSWER, *[Fault.REFUSE] * 100]
    old_space.plans["a"].script("put", faults, prefix="log/")
    with pytest.raises(StoreUnavailable):
        fs.restore("/plan.txt", first)
    old_space.crash(fs)
    again, other = old_space.connect("a"), old_space.connect("b")
    assert parts_of(again).replica.value(VALUE_RULES) == b"2"
    again.restore("/plan.txt", first)
    settle(again, other)
    assert other.read_bytes("/plan.txt") == again.read_bytes("/plan.txt") == OLD
    assert again.status().void_entries == other.status().void_entries == 0
    shown = [one.number.partition("-")[0] for one in other.versions("/plan.txt")]
    assert set(shown) == {str(again.status().session)}, "it kept its session"


def test_rules_2_need_an_admin(old_space: Space) -> None:
    """S-96."""
    fs = old_space.connect("a")
    first, _ = twice(fs)
    settle(fs)
    parts = parts_of(fs)
    (member,) = parts.replica.members()
    parts.replica.state.put_member(member._replace(role=ROLE_WRITER))
    with pytest.raises(NotPermitted, match="admin"):
        fs.restore("/plan.txt", first)
    parts.replica.state.put_member(member)


def test_a_read_only_filespace_shows_and_restores_nothing(space: Space, fs: Filespace) -> None:
    """S-19, S-91."""
    first, _ = twice(fs)
    fs.remove("/plan.txt")
    settle(fs)
    reader = space.connect("r", read_only=True)
    assert len(reader.versions("/plan.txt")) == 2
    for call in (lambda: reader.restore("/plan.txt", first),
                 lambda: reader.restore("/plan.txt", deleted=True)):  # fmt: skip
        with pytest.raises(ReadOnly):
            call()
