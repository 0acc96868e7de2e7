"""Older versions: what is shown, what comes back in place and beside (S-91 to S-94)."""

from __future__ import annotations

import shutil

import pytest

from lucid.errors import Exists, IsDirectory, NotFound, UsageError
from lucid.filespace import Filespace
from lucid.store.memory import MemoryStore
from tests.filespace.older import NEW, OLD, numbers, settle, twice
from tests.filespace.spaces import WAIT_S, Space, parts_of, write_at


@pytest.fixture
def fs(space: Space) -> Filespace:
    return space.connect("a")


# What is shown


def test_every_version_is_shown(fs: Filespace) -> None:
    """S-91: oldest first, with who wrote it, and which one is current."""
    twice(fs)
    fs.sync(timeout=WAIT_S)
    status = fs.status()
    first, second = fs.versions("/plan.txt")
    assert (first.size, second.size) == (len(OLD), len(NEW))
    assert (first.current, second.current) == (False, True)
    for version in (first, second):
        assert (version.member, version.device) == (status.member, status.device)
        assert (version.stored, version.earlier) == ("whole", False)
        assert version.file == fs.stat("/plan.txt").ino
    assert second.mtime_ns == fs.stat("/plan.txt").mtime_ns
    assert first.number.startswith(f"{status.session}-")


def test_a_version_that_is_not_in_the_store_says_so(space: Space, fs: Filespace) -> None:
    """S-91."""
    fs.write_bytes("/plan.txt", OLD)
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    fs.write_bytes("/plan.txt", NEW)
    assert [version.stored for version in fs.versions("/plan.txt")] == ["whole", "pending"]


def test_the_store_is_asked_whether_it_has_all_bytes(space: Space, fs: Filespace) -> None:
    """S-91: a segment that somebody deleted, or cut, is missing from the versions that have it."""
    fs.write_bytes("/plan.txt", OLD)
    fs.sync(timeout=WAIT_S)
    write_at(fs, "/plan.txt", 0, b"changed")
    fs.sync(timeout=WAIT_S)
    assert [one.stored for one in fs.versions("/plan.txt", check=True)] == ["whole"] * 2
    first = [key for key in space.bucket.keys if key.startswith("data/")]
    shown = fs.versions("/plan.txt")
    parts = parts_of(fs)
    columns = parts.replica.map_columns(shown[1].file, None)
    assert columns is not None
    newest = columns.segments[int(columns.segment[0])].id.hex()
    MemoryStore(space.bucket).delete([key for key in first if key.endswith(newest)])
    assert [one.stored for one in fs.versions("/plan.txt", check=True)] == ["whole", "lost"]
    assert [one.stored for one in fs.versions("/plan.txt")] == ["whole"] * 2


def test_a_file_that_was_renamed_keeps_its_versions(fs: Filespace) -> None:
    """S-91: they are the file's, not the name's."""
    shown = twice(fs)
    fs.rename("/plan.txt", "/new.txt")
    assert tuple(numbers(fs, "/new.txt")) == shown


def test_programs_that_save_by_rename_leave_versions_too(fs: Filespace) -> None:
    """S-91: the file that was replaced had the name before."""
    fs.write_bytes("/plan.txt", OLD)
    for content in (b"second", b"third"):
        fs.write_bytes("/plan.txt~", content)
        fs.rename("/plan.txt~", "/plan.txt")
    shown = fs.versions("/plan.txt")
    assert [version.size for version in shown] == [len(OLD), 6, 5]
    assert [version.earlier for version in shown] == [True, True, False]
    assert [version.current for version in shown] == [False, False, True]
    fs.restore("/plan.txt", shown[0].number)
    assert fs.read_bytes("/plan.txt") == OLD
    assert [version.current for version in fs.versions("/plan.txt")] == [False] * 3 + [True]


def test_what_was_removed_is_shown(space: Space, fs: Filespace) -> None:
    """S-93: when, by whom and from which device."""
    twice(fs)
    fs.mkdir("/docs")
    fs.symlink("plan.txt", "/link")
    other = space.connect("b")
    settle(fs, other)
    for remove, path in ((other.remove, "/plan.txt"), (other.rmdir, "/docs"), (fs.remove, "/link")):
        remove(path)
        settle(fs, other)
    shown = fs.removed("/")
    assert [(one.name, one.kind) for one in shown] == [
        (b"plan.txt", "file"), (b"docs", "directory"), (b"link", "symlink"),
    ]  # fmt: skip
    assert {one.member for one in shown} == {fs.status().member}
    assert [one.device for one in shown] == [
        other.status().device, other.status().device, fs.status().device,
    ]  # fmt: skip
    assert shown[0].size == len(NEW)
    assert shown[0].version == numbers(fs, "/plan.txt")[-1]
    assert shown[0].removed_ns <= shown[1].removed_ns <= shown[2].removed_ns
    assert other.removed("/") == shown


def test_versions_of_a_removed_file(fs: Filespace) -> None:
    """S-91: also where its directory was removed as well."""
    fs.makedirs("/docs/old")
    shown = twice(fs, "/docs/old/plan.txt")
    fs.remove("/docs/old/plan.txt")
    fs.rmdir("/docs/old")
    fs.rmdir("/docs")
    assert tuple(numbers(fs, "/docs/old/plan.txt")) == shown
    assert not any(version.current for version in fs.versions("/docs/old/plan.txt"))
    assert [one.name for one in fs.removed("/docs/old")] == [b"plan.txt"]


def test_what_has_no_versions(fs: Filespace) -> None:
    """S-91."""
    fs.mkdir("/docs")
    fs.symlink("docs", "/link")
    with pytest.raises(NotFound, match="/nothing"):
        fs.versions("/nothing")
    with pytest.raises(NotFound):
        fs.versions("/nowhere/nothing")
    with pytest.raises(IsDirectory, match="--deleted"):
        fs.versions("/docs")
    with pytest.raises(UsageError, match="target"):
        fs.versions("/link")
    assert fs.removed("/docs") == []


# Restoring


def test_an_older_version_comes_back_in_place(fs: Filespace) -> None:
    """S-94: as the newest one, so that nothing is lost."""
    first, second = twice(fs)
    before = fs.stat("/plan.txt")
    restored = fs.restore("/plan.txt", first)
    assert fs.read_bytes("/plan.txt") == OLD
    after = fs.stat("/plan.txt")
    assert (after.ino, after.mode, after.size) == (before.ino, before.mode, len(OLD))
    assert after.mtime_ns > before.mtime_ns
    assert numbers(fs, "/plan.txt") == [first, second, restored.version]
    assert (restored.path, restored.file, restored.files) == (b"/plan.txt", before.ino, 1)
    fs.restore("/plan.txt", second)
    assert fs.read_bytes("/plan.txt") == NEW


def test_a_restore_costs_no_bytes(space: Space, fs: Filespace) -> None:
    """S-96: nothing is fetched and nothing is sent but an entry."""
    first, _ = twice(fs)
    fs.sync(timeout=WAIT_S)
    objects = set(space.bucket.keys)
    fs.restore("/plan.txt", first)
    fs.sync(timeout=WAIT_S)
    added = set(space.bucket.keys) - objects
    assert [key.split("/")[0] for key in added] == ["log"]


def test_an_older_version_comes_back_beside(fs: Filespace) -> None:
    """S-94: with its own time and the attributes of its file."""
    first, _ = twice(fs)
    fs.chmod("/plan.txt", 0o600)
    old = fs.versions("/plan.txt")[0]
    restored = fs.restore("/plan.txt", first, to="/old plan.txt")
    assert fs.read_bytes("/old plan.txt") == OLD
    assert fs.read_bytes("/plan.txt") == NEW
    found = fs.stat("/old plan.txt")
    assert (found.mode & 0o777, found.mtime_ns) == (0o600, old.mtime_ns)
    assert restored.path == b"/old plan.txt"
    with pytest.raises(Exists, match="--to"):
        fs.restore("/plan.txt", first, to="/old plan.txt")
    assert len(fs.versions("/old plan.txt")) == 1


def test_what_is_not_published_yet_becomes_a_version_first(fs: Filespace) -> None:
    """S-94: of a file that is open for writing too; and who has it open goes on upon the restored
    version."""
    first, second = twice(fs)
    with fs.open("/plan.txt", "r+b", 0) as file:
        file.write(b"unpublished")
        restored = fs.restore("/plan.txt", first)
        assert fs.read_bytes("/plan.txt") == OLD
        shown = numbers(fs, "/plan.txt")
        assert shown[:2] == [first, second] and shown[3:] == [restored.version]
        file.seek(0)
        file.write(b"goes on")
    assert fs.read_bytes("/plan.txt") == b"goes on" + OLD[7:]
    assert fs.restore("/plan.txt", shown[2]).path == b"/plan.txt"
    assert fs.read_bytes("/plan.txt") == b"unpublished" + NEW[11:]


def test_a_file_that_was_just_made_and_never_closed(fs: Filespace) -> None:
    """S-94: one of its name was removed before; what is being written is not in the way."""
    first, _ = twice(fs)
    fs.remove("/plan.txt")
    with fs.open("/plan.txt", "wb", 0) as file:
        file.write(b"just begun")
        fs.restore("/plan.txt", first)
    assert fs.read_bytes("/plan.txt") == OLD
    assert [version.size for version in fs.versions("/plan.txt")][-2:] == [10, len(OLD)]


def test_a_version_of_a_file_that_is_gone_makes_a_new_one(fs: Filespace) -> None:
    """S-94: where the name is free, it is its file again."""
    first, _ = twice(fs)
    fs.remove("/plan.txt")
    restored = fs.restore("/plan.txt", first)
    assert (restored.path, fs.read_bytes("/plan.txt")) == (b"/plan.txt", OLD)
    assert len(fs.versions("/plan.txt")) == 3


def test_a_version_that_another_device_wrote(space: Space, fs: Filespace) -> None:
    """S-91, S-94: whoever restores need not have it."""
    other = space.connect("b")
    first, second = twice(other)
    settle(other, fs)
    shown = fs.versions("/plan.txt")
    assert [one.number for one in shown] == [first, second]
    assert {one.device for one in shown} == {other.status().device}
    fs.restore("/plan.txt", first)
    settle(fs, other)
    assert other.read_bytes("/plan.txt") == OLD
    assert len(other.versions("/plan.txt")) == 3


def test_after_a_remount_with_an_empty_state_directory(space: Space, fs: Filespace) -> None:
    """S-92, S-94: all that is needed is in the log."""
    first, second = twice(fs)
    fs.restore("/plan.txt", first)
    fs.write_bytes("/gone.txt", NEW)
    fs.remove("/gone.txt")
    shown, removed = fs.versions("/plan.txt"), fs.removed("/")
    fs.close()
    shutil.rmtree(space.state("a"))
    again = space.connect("a")
    assert [one._replace(stored="whole") for one in shown] == again.versions("/plan.txt")
    assert again.removed("/") == removed
    assert again.read_bytes("/plan.txt") == OLD
    again.restore("/plan.txt", second)
    again.restore("/gone.txt", deleted=True)
    assert (again.read_bytes("/plan.txt"), again.read_bytes("/gone.txt")) == (NEW, NEW)


def test_restored_bytes_survive_kill_9(space: Space, fs: Filespace) -> None:
    """S-22, S-94: a restore is in the journal when it returns, though the store is away."""
    first, _ = twice(fs)
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    fs.restore("/plan.txt", first)
    fs.restore("/plan.txt", first, to="/copy")
    space.crash(fs)
    again = space.connect("a")
    assert again.read_bytes("/plan.txt") == again.read_bytes("/copy") == OLD
    again.sync(timeout=WAIT_S)
    other = space.connect("b")
    assert other.read_bytes("/plan.txt") == other.read_bytes("/copy") == OLD


def test_numbers_that_are_none(fs: Filespace) -> None:
    """S-92: or those of another file."""
    first, _ = twice(fs)
    fs.write_bytes("/other", b"other")
    (other,) = numbers(fs, "/other")
    for bad in (
        "",
        "1",
        "1-",
        "-1",
        "a-b",
        "1-2-3",
        "1.5",
        "99999999999-1",
        "1-99999999999",
        "²-1",
    ):
        with pytest.raises(UsageError, match="is no version"):
            fs.restore("/plan.txt", bad)
    for foreign in (other, "77-1"):
        with pytest.raises(NotFound, match=f"/plan.txt: It has no version {foreign}"):
            fs.restore("/plan.txt", foreign)
    with pytest.raises(NotFound, match="/nothing"):
        fs.restore("/nothing", first)
    with pytest.raises(UsageError, match="which version"):
        fs.restore("/plan.txt")
    with pytest.raises(NotFound):
        fs.restore("/plan.txt", first, to="/nowhere/plan.txt")
    with pytest.raises(UsageError, match="no last name"):
        fs.restore("/", first)
    with pytest.raises(IsDirectory, match="no versions"):
        fs.versions("/")
    fs.mkdir("/docs")
    with pytest.raises(IsDirectory):
        fs.restore("/docs", first)
    assert len(fs.versions("/plan.txt")) == 2


def test_numbers_stay_while_others_write(space: Space, fs: Filespace) -> None:
    """S-92: what comes into the log in between does not move them."""
    first, second = twice(fs)
    settle(fs)
    other = space.connect("b")
    space.plans["a"].die()
    fs.write_bytes("/plan.txt", b"mine, later in the log")
    mine = numbers(fs, "/plan.txt")[-1]
    other.write_bytes("/plan.txt", b"theirs")
    theirs = numbers(other, "/plan.txt")[-1]
    other.sync(timeout=WAIT_S)
    space.plans["a"].revive()
    settle(fs, other)
    assert numbers(fs, "/plan.txt") == [first, second, theirs]
    copy = next(name for name in fs.listdir("/") if "conflict" in name)
    assert numbers(fs, f"/{copy}") == [mine]
