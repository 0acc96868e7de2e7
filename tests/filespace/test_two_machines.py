"""Two machines on one store: each sees what the other closed; what both did stands side by side
(S-31, S-33, S-34, S-35, S-36, S-38, S-41)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lucid.config import Config
from lucid.errors import LucidError
from lucid.filespace import Filespace, connect, init
from lucid.store.faulty import FaultPlan
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    QUICK,
    STRETCH,
    WAIT_S,
    Space,
    parts_of,
    some_bytes,
    write_at,
)

SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, 9_000_000)


@pytest.fixture(params=["memory", "directory"])
def machines(
    request: pytest.FixtureRequest, space: Space, tmp_path: Path
) -> Iterator[tuple[Filespace, Filespace]]:
    if request.param == "memory":
        yield space.connect("a"), space.connect("b")
        return
    url = f"file://{tmp_path}/store"
    init(url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH)
    made = [
        connect(url, passphrase=PASSPHRASE, config=Config(state_dir=tmp_path / name, **QUICK))
        for name in ("a", "b")
    ]
    yield made[0], made[1]
    for fs in made:
        fs.close(wait=False)


def hand_over(one: Filespace, other: Filespace) -> None:
    """What `one` has is known to `other`."""
    one.sync(timeout=WAIT_S)
    assert other.refresh(WAIT_S)


def settle(*machines: Filespace) -> None:
    """All have all."""
    for fs in machines:
        fs.sync(timeout=WAIT_S)
    for fs in machines:
        assert fs.refresh(WAIT_S)


def tree_of(fs: Filespace, path: str = "/") -> dict[str, bytes | str]:
    """Every name with its content."""
    found: dict[str, bytes | str] = {}
    for name in fs.listdir(path):
        inner = f"{path.rstrip('/')}/{name}"
        mode = fs.stat(inner, follow_symlinks=False).mode
        if mode & 0o170000 == 0o040000:
            found[inner] = "directory"
            found.update(tree_of(fs, inner))
        elif mode & 0o170000 == 0o120000:
            found[inner] = fs.readlink(inner)
        else:
            found[inner] = fs.read_bytes(inner)
    return found


def at_once(*work: Callable[[], None]) -> None:
    """Run these in threads that begin together; raise what they raise."""
    gate = threading.Barrier(len(work))
    errors: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        try:
            gate.wait(WAIT_S)
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    for error in errors:
        raise error


def test_bytes_arrive_as_they_were_closed(machines: tuple[Filespace, Filespace]) -> None:
    one, other = machines
    for number, size in enumerate(SIZES):
        one.write_bytes(f"/f{size}", some_bytes(number, size))
    one.makedirs("/deep/down")
    one.symlink("../f1", "/deep/link")
    one.link("/f1", "/deep/down/hard")
    one.tree.set_xattr(one.stat("/f1").ino, b"user.colour", b"blue")
    one.chmod("/f1", 0o640)
    hand_over(one, other)
    assert tree_of(other) == tree_of(one)
    for number, size in enumerate(SIZES):
        assert other.read_bytes(f"/f{size}") == some_bytes(number, size)
    found, made = other.stat("/f1"), one.stat("/f1")
    assert found == made
    assert found.nlink == 2
    assert other.tree.get_xattr(found.ino, b"user.colour") == b"blue"


def test_changes_go_back_and_forth(machines: tuple[Filespace, Filespace]) -> None:
    one, other = machines
    want = bytearray(some_bytes(1, 4 * BLOCK))
    one.write_bytes("/file", bytes(want))
    for turn in range(6):
        hand_over(one, other)
        assert other.read_bytes("/file") == want
        offset = turn * 40_000 + 11
        write_at(other, "/file", offset, b"turn %d" % turn)
        want[offset : offset + 6] = b"turn %d" % turn
        one, other = other, one
    settle(one, other)
    assert one.listdir("/") == ["file"]
    assert one.read_bytes("/file") == other.read_bytes("/file") == want


def test_one_name_made_by_both_is_two_files(machines: tuple[Filespace, Filespace]) -> None:
    one, other = machines
    at_once(
        lambda: [one.write_bytes(f"/n{k}", b"one %d" % k) for k in range(5)] and None,
        lambda: [other.write_bytes(f"/n{k}", b"other %d" % k) for k in range(5)] and None,
    )
    settle(one, other)
    assert tree_of(one) == tree_of(other)
    contents = set(tree_of(one).values())
    assert contents >= {b"one %d" % k for k in range(5)}
    assert contents >= {b"other %d" % k for k in range(5)}


def test_appends_of_both_are_all_there(machines: tuple[Filespace, Filespace]) -> None:
    one, other = machines
    one.write_bytes("/log", b"begin\n")
    hand_over(one, other)

    def append(fs: Filespace, who: bytes) -> None:
        for number in range(5):
            with fs.open("/log", "ab", 0) as file:
                file.write(b"%s %d\n" % (who, number))

    at_once(lambda: append(one, b"one"), lambda: append(other, b"other"))
    settle(one, other)
    assert tree_of(one) == tree_of(other)
    lines = {line for data in tree_of(one).values() for line in bytes(data).splitlines()}  # type: ignore[arg-type]
    for number in range(5):
        assert b"one %d" % number in lines
        assert b"other %d" % number in lines
    assert len(tree_of(one)) <= 3, "one conflict copy an author, however often it wrote"


def test_renames_of_both_lose_nothing(machines: tuple[Filespace, Filespace]) -> None:
    one, other = machines
    files = {f"/f{k}": b"content %d" % k for k in range(6)}
    for path, data in files.items():
        one.write_bytes(path, data)
    one.mkdir("/there")
    hand_over(one, other)

    def move(fs: Filespace, order: list[int], to: str) -> None:
        for number in order:
            try:
                fs.rename(f"/f{number}", f"{to}{number}")
            except FileNotFoundError:
                continue  # The other one was first, and this machine has heard of it.

    at_once(
        lambda: move(one, [0, 1, 2, 3], "/there/g"), lambda: move(other, [3, 2, 4, 5], "/there/g")
    )
    settle(one, other)
    assert tree_of(one) == tree_of(other)
    found = sorted(data for data in tree_of(one).values() if isinstance(data, bytes))
    assert found == sorted(files.values())


def test_a_name_never_comes_without_its_bytes(space: Space) -> None:
    """Whoever sees the name reads all that was there when the file was closed."""
    writer, reader = space.connect("a"), space.connect("b", poll_idle_s=0.02)
    done = threading.Event()
    faults: list[str] = []

    def watch() -> None:
        while not done.is_set():
            for name in reader.listdir("/"):
                number = int(name[1:])
                if reader.read_bytes(f"/{name}") != some_bytes(number, BLOCK + number):
                    faults.append(name)
            reader.refresh(1.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for number in range(15):
        writer.write_bytes(f"/f{number}", some_bytes(number, BLOCK + number))
    writer.sync(timeout=WAIT_S)
    done.set()
    watcher.join(WAIT_S)
    assert not watcher.is_alive()
    assert not faults


def test_others_see_the_order_of_one_machine(space: Space) -> None:
    """Its first file is large and uploaded last; nothing that came after it is seen before it."""
    writer, reader = space.connect("a"), space.connect("b")
    writer.write_bytes("/1-large", some_bytes(1, 12_000_000))
    writer.mkdir("/2-then")
    writer.rename("/2-then", "/3-last")
    seen: list[list[str]] = []
    while not seen or "3-last" not in seen[-1]:
        assert reader.refresh(WAIT_S)
        seen.append(sorted(reader.listdir("/")))
        assert len(seen) < 10_000
    allowed = [[], ["1-large"], ["1-large", "2-then"], ["1-large", "3-last"]]
    assert all(one in allowed for one in seen)


def test_what_was_made_and_removed_here_was_never_there(space: Space) -> None:
    fs = space.connect("a")
    fs.sync(timeout=WAIT_S)
    before = set(space.bucket.keys)
    handle, _ = fs.tree.create(1, b"passing", 0o644, 0, 0, os.O_RDWR)
    fs.tree.write(handle, 0, some_bytes(1, 3 * BLOCK))
    fs.tree.flush(handle)
    fs.remove("/passing")
    fs.tree.release(handle)
    fs.write_bytes("/stays", b"stays")
    fs.sync(timeout=WAIT_S)
    new = [key for key in space.bucket.keys if key not in before]
    assert [key for key in new if key.startswith("log/")] == [max(new)]
    with space.connect("b") as other:
        assert other.listdir("/") == ["stays"]


def test_an_open_reader_follows_and_an_open_writer_keeps_its_base(space: Space) -> None:
    one, other = space.connect("a"), space.connect("b")
    one.write_bytes("/file", b"first")
    hand_over(one, other)
    ino = other.stat("/file").ino
    reading = other.tree.open(ino, os.O_RDONLY)
    assert bytes(other.tree.read(reading, 0, 100)) == b"first"
    one.write_bytes("/file", b"second")
    hand_over(one, other)
    assert bytes(other.tree.read(reading, 0, 100)) == b"second"
    writing = other.tree.open(ino, os.O_RDWR)
    other.tree.write(writing, 0, b"OTHER!")
    one.write_bytes("/file", b"third!")
    hand_over(one, other)
    assert bytes(other.tree.read(writing, 0, 100)) == b"OTHER!"
    other.tree.release(reading)
    other.tree.flush(writing)
    other.tree.release(writing)
    settle(one, other)
    assert tree_of(one) == tree_of(other)
    assert set(tree_of(one).values()) == {b"third!", b"OTHER!"}


def test_a_first_write_while_another_machines_change_arrives(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is folded between a writer's look at the row and at the map is its base."""
    one, other = space.connect("a"), space.connect("b")
    one.write_bytes("/file", b"old bytes")
    hand_over(one, other)
    parts = parts_of(other)
    begins, may_fold, folded = threading.Event(), threading.Event(), threading.Event()
    real_commit, real_at = parts.replica.commit_entry, parts.file_maps.at

    def commit(*arguments: Any, **named: Any) -> Any:
        begins.set()
        assert may_fold.wait(WAIT_S)
        done = real_commit(*arguments, **named)
        folded.set()
        return done

    def at(ino: int, version: int | None) -> Any:
        may_fold.set()
        assert folded.wait(WAIT_S)
        return real_at(ino, version)

    monkeypatch.setattr(parts.replica, "commit_entry", commit)
    monkeypatch.setattr(parts.file_maps, "at", at)
    handle = other.tree.open(other.stat("/file").ino, os.O_RDWR)
    one.write_bytes("/file", b"newer bytes of the other")
    one.sync(timeout=WAIT_S)
    assert begins.wait(WAIT_S)
    assert other.tree.write(handle, 0, b"N") == 1
    other.tree.release(handle)
    monkeypatch.undo()
    settle(one, other)
    for fs in (one, other):
        assert tree_of(fs) == {"/file": b"Newer bytes of the other"}


def test_it_hears_of_others_by_itself(space: Space) -> None:
    """Without being asked: within the time between two looks at the log."""
    one, other = space.connect("a"), space.connect("b", poll_idle_s=0.05, poll_fast_s=0.05)
    heard = threading.Event()
    other.tree.subscribe(lambda changed: heard.set())
    one.mkdir("/news")
    assert heard.wait(WAIT_S)
    assert other.exists("/news")


def test_a_copied_state_directory_does_not_write_as_the_device_it_was(space: Space) -> None:
    """The copy gets a session of its own, so no two write with the same numbers."""
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"original")
        session = fs.status().session
    shutil.copytree(space.state("a"), space.state("copy"))
    with space.connect("a") as fs, space.connect("copy") as copy:
        assert fs.status().session == session != copy.status().session
        fs.write_bytes("/by-a", b"a")
        copy.write_bytes("/by-copy", b"copy")
        settle(fs, copy)
        assert tree_of(fs) == tree_of(copy)
    with space.connect("a") as fs:
        fs.sync(timeout=WAIT_S)


def test_a_copy_with_unsent_changes_is_refused(space: Space) -> None:
    fs = space.connect("a")
    space.plans["a"].die()
    fs.write_bytes("/file", b"unsent")
    fs.close(wait=False)
    shutil.copytree(space.state("a"), space.state("copy"))
    with pytest.raises(LucidError, match="copied or restored"):
        space.connect("copy")
    with space.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
        assert fs.read_bytes("/file") == b"unsent"


def test_what_was_heard_is_there_after_a_crash_without_the_store(space: Space) -> None:
    """S-22, S-46: a change of another machine, and what was written upon it at once."""
    one, other = space.connect("a"), space.connect("b", poll_idle_s=3600.0, poll_fast_s=3600.0)
    one.write_bytes("/file", some_bytes(1, 2 * BLOCK))
    one.sync(timeout=WAIT_S)
    parts_of(other).replica.commit_now()  # So that its next transaction is a young one.
    assert other.refresh(WAIT_S)
    space.plans["b"].die()
    write_at(other, "/file", BLOCK, b"x" * BLOCK)
    space.crash(other, "b")
    away = FaultPlan()
    away.die()
    again = space.connect("b", plan=away)
    assert again.listdir("/") == ["file"]
    with again.open("/file", "rb", 0) as file:
        file.seek(BLOCK)
        assert file.read(BLOCK) == b"x" * BLOCK
    away.revive()
    again.sync(timeout=WAIT_S)
    assert again.read_bytes("/file") == some_bytes(1, 2 * BLOCK)[:BLOCK] + b"x" * BLOCK
