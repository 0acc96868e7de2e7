"""A change of more runs than one op holds, of which loss of power took a part: it goes as a whole,
whichever op the part was in, and of a new file what is there is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from lucid.errors import CorruptBlock, DiskFull
from lucid.filespace import Filespace
from lucid.format.names import segment_key
from lucid.format.ops import Create, Op, Stage
from lucid.meta.fold_effect import Effect
from lucid.sync.order import Placed
from tests.fault.losing import OLD, OTHER, Losing, shown
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes

BLOCKS = 6
WIDE = some_bytes(11, BLOCKS * BLOCK)
PLACES = (0, 2, 4)
"""Blocks that are changed: no two are neighbours, so each is a run."""


@pytest.fixture(autouse=True)
def one_run_an_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucid.sync.publisher.CHANGES_MAX", 1)


@pytest.fixture
def machine(space: Space) -> Losing:
    made = Losing(space, cut_off=False)
    made.fs.write_bytes("/wide", WIDE)
    made.fs.sync(timeout=WAIT_S)
    return made


def write(machine: Losing, path: str, mode: str, lost: int) -> bytes:
    """Write three blocks, of which `lost` will be gone. Returns what the file would have been."""
    expected = bytearray(WIDE if mode == "r+b" else b"")
    with machine.fs.open(path, mode, 0) as file:
        for place in (lost, *(place for place in PLACES if place != lost)):
            block = some_bytes(20 + place, BLOCK)
            file.seek(place * BLOCK)
            file.write(block)
            end = (place + 1) * BLOCK
            expected.extend(bytes(max(0, end - len(expected))))
            expected[place * BLOCK : end] = block
            if place == lost:
                file.fsync()
                machine.lose(finished=True)
    return bytes(expected)


def staged(fs: Filespace) -> object:
    return parts_of(fs).replica.dump()["staged"]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("lost", PLACES)
def test_a_change_goes_as_a_whole(machine: Losing, lost: int, times: int) -> None:
    machine.cut_off()
    write(machine, "/wide", "r+b", lost)
    ops = [placed.op for placed in parts_of(machine.fs).order.all()]
    assert [type(op).__name__ for op in ops] == ["Stage", "Stage", "Content"]
    fs = machine.crash(times)
    assert shown(machine) == {"file": OLD, "other": OTHER, "wide": WIDE}
    assert staged(fs) == []
    if times == 1:
        (told,) = fs.status().failed
        assert told.startswith("A change of 'wide' ")


@pytest.mark.parametrize("lost", PLACES)
def test_of_a_new_file_what_is_there_is_kept(machine: Losing, lost: int) -> None:
    machine.cut_off()
    expected = write(machine, "/new", "wb", lost)
    fs = machine.crash()
    (told,) = fs.status().failed
    assert told.startswith("1 blocks of new files were not yet safe")
    with fs.open("/new", "rb", 0) as file:
        assert len(expected) == fs.stat("/new").size
        for block in range(BLOCKS - 1):
            file.seek(block * BLOCK)
            if block == lost:
                with pytest.raises(CorruptBlock):
                    file.read(BLOCK)
            else:
                assert file.read(BLOCK) == expected[block * BLOCK : (block + 1) * BLOCK]
    assert staged(fs) == []


def test_what_was_staged_in_the_log_already_is_forgotten(
    machine: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its op has lost its own block, while the stages before it were sent."""
    order = parts_of(machine.fs).order
    take: Callable[[int, int], list[Placed]] = order.take
    sent = threading.Event()

    def stages(ops_max: int, bytes_max: int) -> list[Placed]:
        batch = take(ops_max, bytes_max)
        found = [placed for placed in batch if isinstance(placed.op, Stage)]
        if batch and not found:
            machine.cut_off()
            sent.set()
        return found

    monkeypatch.setattr(order, "take", stages)
    write(machine, "/wide", "r+b", PLACES[-1])
    assert sent.wait(WAIT_S)
    with machine.space.connect("b") as other:
        assert staged(other)
    for path in machine.lost:  # Nor had its upload come to an end.
        key = segment_key(bytes.fromhex(path.name))
        if machine.space.bucket.objects.pop(key, None) is not None:
            machine.space.bucket.keys.remove(key)
    fs = machine.crash()
    assert shown(machine) == {"file": OLD, "other": OTHER, "wide": WIDE}
    assert staged(fs) == []
    with machine.space.connect("c") as other:
        assert staged(other) == []


def test_stages_of_an_op_that_found_no_room_are_not_in_the_way(
    machine: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when their op came; something else did, and then all of them once more."""
    machine.cut_off()
    order = parts_of(machine.fs).order
    place = order.place
    tried = threading.Event()

    def refuses(op: Op, *args: Any, **kwargs: Any) -> Effect:
        if isinstance(op, Create) and not tried.is_set():
            tried.set()
            raise DiskFull("The disk is full.")
        return place(op, *args, **kwargs)

    monkeypatch.setattr(order, "place", refuses)
    expected = bytearray(5 * BLOCK)
    with machine.fs.open("/new", "wb", 0) as file:
        for at in PLACES:
            file.seek(at * BLOCK)
            file.write(some_bytes(at, BLOCK))
            expected[at * BLOCK : (at + 1) * BLOCK] = some_bytes(at, BLOCK)
    assert tried.wait(WAIT_S)
    with order.lock:
        placed = [type(each.op).__name__ for each in order.all()]
    assert placed[:2] == ["Stage", "Stage"]
    machine.fs.mkdir("/between")
    machine.crash(times=2)
    with machine.space.connect("b") as other:
        assert other.read_bytes("/new") == expected
        assert staged(other) == []


def test_fsync_of_a_change_on_top_of_it_covers_its_stages(machine: Losing) -> None:
    machine.cut_off()
    with machine.fs.open("/wide", "r+b", 0) as file:
        for place in PLACES:
            file.seek(place * BLOCK)
            file.write(some_bytes(20 + place, BLOCK))
    staging = parts_of(machine.fs).staging
    with machine.fs.open("/wide", "r+b", 0) as file:
        file.seek(BLOCK)
        file.write(b"more")
        named = parts_of(machine.fs).order.segments_of(machine.fs.stat("/wide").ino)
        ops = parts_of(machine.fs).order.all()
        assert [type(each.op).__name__ for each in ops] == ["Stage", "Stage", "Content"]
        assert named == set().union(*(each.segments for each in ops))
        # Its footer may be written at any time: of that no fsync need know.
        written = {segment: staging._entries[segment].written for segment in named}
        assert all(written.values())
        file.fsync()
        synced = {segment: staging._entries[segment].synced for segment in named}
        assert all(synced[segment] >= written[segment] for segment in named)
