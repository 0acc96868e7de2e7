"""Cut off from the store, and answers that are lost, late or refused (S-24, S-26, S-28, S-43,
S-46): work goes on, nothing is lost, nothing is done twice."""

from __future__ import annotations

import errno
import os
import threading
from random import Random

import pytest

from lucid.errors import StagingFull, StoreUnavailable
from lucid.filespace import Filespace
from lucid.store.base import Body, ObjectStore, StoreLayer
from lucid.store.faulty import Fault, FaultPlan
from tests.filespace.spaces import BLOCK, WAIT_S, Space, open_on, parts_of, some_bytes, write_at

MiB = 1024 * 1024


def versions(fs: Filespace, path: str) -> int:
    """How many contents the log knows of a file."""
    return len(parts_of(fs).replica.versions(fs.stat(path).ino))


def test_work_goes_on_without_the_store(space: Space) -> None:
    fs = space.connect("a", read_timeout_s=2.0)
    fs.write_bytes("/cached", some_bytes(1, 3 * BLOCK))
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    fs.mkdir("/new")
    fs.write_bytes("/new/file", some_bytes(2, 2 * BLOCK + 5))
    write_at(fs, "/cached", BLOCK + 3, b"changed")
    with fs.open("/new/synced", "wb", 0) as file:
        file.write(b"synced")
        file.fsync()
    fs.rename("/new/file", "/new/renamed")
    assert sorted(fs.listdir("/new")) == ["renamed", "synced"]
    assert fs.read_bytes("/new/renamed") == some_bytes(2, 2 * BLOCK + 5)
    assert fs.read_bytes("/cached")[BLOCK + 3 : BLOCK + 10] == b"changed"
    assert fs.progress().pending_ops > 0
    space.plans["a"].revive()
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert sorted(other.listdir("/new")) == ["renamed", "synced"]
        assert other.read_bytes("/new/renamed") == some_bytes(2, 2 * BLOCK + 5)
        assert other.read_bytes("/cached")[BLOCK + 3 : BLOCK + 10] == b"changed"


def test_what_is_not_here_is_an_error_after_a_bounded_time(space: Space) -> None:
    with space.connect("maker") as maker:
        maker.write_bytes("/far", some_bytes(1, 2 * BLOCK))
    plan = FaultPlan()
    fs = space.connect("a", plan=plan, read_timeout_s=0.2)
    plan.script("get", [Fault.PAUSE], prefix="data/")
    with pytest.raises(StoreUnavailable) as caught:
        fs.read_bytes("/far")
    assert caught.value.errno == errno.EIO
    plan.release()
    assert fs.read_bytes("/far") == some_bytes(1, 2 * BLOCK)


def test_writing_goes_on_beside_a_read_that_hangs(space: Space) -> None:
    """A reader that waits for the base holds up no writer of the same file."""
    with space.connect("maker") as maker:
        maker.write_bytes("/far", some_bytes(1, 4 * BLOCK))
    plan = FaultPlan()
    fs = space.connect("a", plan=plan, read_timeout_s=30.0)
    tree = fs.tree
    handle = tree.open(fs.stat("/far").ino, os.O_RDWR)
    tree.write(handle, 10, b"first")
    plan.script("get", [Fault.PAUSE] * 8, prefix="data/")
    read: list[bytes] = []
    reader = threading.Thread(
        target=lambda: read.append(bytes(tree.read(handle, 2 * BLOCK, 100))), daemon=True
    )
    reader.start()
    assert plan.hanging.acquire(timeout=WAIT_S)
    written = threading.Event()

    def write() -> None:
        tree.write(handle, BLOCK + 10, b"second")
        tree.flush(handle)
        written.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    in_time = written.wait(5.0)
    plan.release()
    reader.join(WAIT_S)
    writer.join(WAIT_S)
    assert in_time, "a write waited for the store"
    assert read == [some_bytes(1, 4 * BLOCK)[2 * BLOCK : 2 * BLOCK + 100]]
    tree.release(handle)


def test_a_full_staging_area_is_no_space_at_write_and_never_at_close(space: Space) -> None:
    fs = space.connect("a", staging_bytes=24 * MiB, write_wait_s=0.2)
    fs.sync(timeout=WAIT_S)
    space.plans["a"].die()
    wrote: dict[str, int] = {}
    with pytest.raises(StagingFull) as caught:
        for number in range(64):
            handle, _ = fs.tree.create(1, b"f%d" % number, 0o644, 0, 0, os.O_WRONLY)
            wrote[f"/f{number}"] = 0
            try:
                fs.tree.write(handle, 0, some_bytes(number, MiB))
                wrote[f"/f{number}"] = MiB
            finally:
                fs.tree.flush(handle)
                fs.tree.release(handle)
    assert caught.value.errno == errno.ENOSPC
    assert sum(wrote.values()) >= 8 * MiB
    space.plans["a"].revive()
    fs.sync(timeout=WAIT_S)
    fs.write_bytes("/after", b"there is room again")
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        for number, (path, size) in enumerate(wrote.items()):
            assert other.read_bytes(path) == some_bytes(number, MiB)[:size]


class DiesAfterPut(StoreLayer):
    """Stores an entry of the log, and then nothing is heard of the store any more."""

    def __init__(self, inner: ObjectStore, plan: FaultPlan) -> None:
        super().__init__(inner)
        self._plan = plan
        self.armed = False
        self.stored = threading.Event()

    def over(self, inner: ObjectStore) -> ObjectStore:
        return self

    def put_if_absent(self, key: str, body: Body) -> None:
        self.inner.put_if_absent(key, body)
        if self.armed and key.startswith("log/"):
            self._plan.die()
            self.stored.set()
            raise StoreUnavailable("the answer was lost")


@pytest.mark.parametrize("offline_once", [False, True])
def test_a_crash_between_an_entry_and_its_answer(space: Space, offline_once: bool) -> None:
    """S-56: The log has the ops, this machine does not know: they are not made again."""
    plan = FaultPlan()
    store = DiesAfterPut(space.store("a", plan), plan)
    fs = open_on(store, space.state("a"))
    fs.write_bytes("/file", b"one")
    fs.sync(timeout=WAIT_S)
    store.armed = True
    write_at(fs, "/file", 0, b"two")
    fs.write_bytes("/other", b"new")
    fs.mkdir("/directory")
    assert store.stored.wait(WAIT_S)
    space.crash(fs, "a")
    if offline_once:
        plan = FaultPlan()
        plan.die()
        between = space.connect("a", plan=plan)
        write_at(between, "/file", 1, b"W")
        space.crash(between, "a")
    again = space.connect("a")
    again.sync(timeout=WAIT_S)
    again.refresh()
    assert sorted(again.listdir("/")) == ["directory", "file", "other"]
    want = b"tWo" if offline_once else b"two"
    assert again.read_bytes("/file") == want
    assert versions(again, "/file") == (3 if offline_once else 2)
    assert versions(again, "/other") == 1
    with space.connect("b") as other:
        assert sorted(other.listdir("/")) == ["directory", "file", "other"]
        assert other.read_bytes("/file") == want


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_every_third_call(space: Space, seed: int) -> None:
    """503 before, 503 after, 409: two machines work on and end with one tree."""
    rates = {Fault.REFUSE: 0.12, Fault.LOSE_ANSWER: 0.12, Fault.BUSY: 0.1}
    machines = []
    for name in ("a", "b"):
        plan = FaultPlan()
        machines.append(space.connect(name, plan=plan))
        plan.entropy, plan.rates = Random(f"{seed}{name}").randbytes, rates
    chance = Random(seed)
    want: dict[str, bytes] = {}
    for number in range(30):
        fs, mark = chance.choice([(machines[0], "a"), (machines[1], "b")])
        path = f"/{mark}{number % 7}"
        want[path] = some_bytes(number, chance.choice((10, BLOCK + 1)))
        fs.write_bytes(path, want[path])
        if number % 5 == 4:
            # Else all of it goes in the few requests of one commit.
            fs.sync(timeout=WAIT_S)
    for plan in space.plans.values():
        plan.rates = {}
    for fs in machines:
        fs.sync(timeout=WAIT_S)
    for fs in machines:
        assert fs.refresh(WAIT_S)
        assert sorted(fs.listdir("/")) == sorted(path[1:] for path in want)
        assert {path: fs.read_bytes(path) for path in want} == want
    assert any(plan.happened for plan in space.plans.values())


def test_a_device_needs_the_store_the_first_time_only(space: Space) -> None:
    dead = FaultPlan()
    dead.die()
    with pytest.raises(StoreUnavailable):
        space.connect("a", plan=dead)
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"known")
    dead = FaultPlan()
    dead.die()
    fs = space.connect("a", plan=dead)
    assert fs.read_bytes("/file") == b"known"
    fs.write_bytes("/offline", b"made")
    assert not fs.status().online
    fs.close(wait=False)
    with space.connect("a") as fs:
        fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.read_bytes("/offline") == b"made"


def test_closing_waits_and_tells_or_leaves_it_to_the_next_open(space: Space) -> None:
    fs = space.connect("a")
    space.plans["a"].die()
    fs.write_bytes("/file", some_bytes(1, MiB))
    told = []
    left = fs.close(wait=True, timeout=0.3, report=told.append)
    assert left.pending_ops > 0
    assert told
    assert told[-1].staged_bytes >= MiB
    with space.connect("a") as again:
        assert again.read_bytes("/file") == some_bytes(1, MiB)
    with space.connect("b") as other:
        assert other.read_bytes("/file") == some_bytes(1, MiB)


@pytest.mark.parametrize("how", ["sync", "fsync", "flush"])
def test_into_the_store_means_another_machine_has_it(space: Space, how: str) -> None:
    durability = "local" if how == "sync" else "store"
    fs = space.connect("a", durability=durability)
    handle, made = fs.tree.create(1, b"file", 0o644, 0, 0, os.O_RDWR)
    fs.tree.write(handle, 0, b"bytes")
    if how == "sync":
        fs.tree.sync(made.ino, WAIT_S)
    elif how == "fsync":
        fs.tree.fsync(handle)
    else:
        fs.tree.flush(handle)
    with space.connect("b") as other:
        assert other.read_bytes("/file") == b"bytes"
    fs.tree.release(handle)


def test_a_change_that_the_store_does_not_take_is_told_to_who_asked_for_it(space: Space) -> None:
    fs = space.connect("a", durability="store", write_wait_s=0.3)
    handle, _ = fs.tree.create(1, b"file", 0o644, 0, 0, os.O_RDWR)
    space.plans["a"].die()
    fs.tree.write(handle, 0, b"bytes")
    with pytest.raises(StoreUnavailable):
        fs.tree.fsync(handle)
    space.plans["a"].revive()
    fs.tree.fsync(handle)
    fs.tree.release(handle)
