"""The time that was set for bytes is theirs: who has the old bytes has the old time, so that rsync
sends the new ones again."""

from __future__ import annotations

import pytest

from tests.fault.losing import OLD, OTHER, Losing, shown
from tests.filespace.checkpoints import connect, hear
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes

SET = 1_000_000_000
NEW = some_bytes(3, len(OLD))


@pytest.fixture(params=[False, True], ids=["open", "finished"])
def finished(request: pytest.FixtureRequest) -> bool:
    """Whether the segments that are lost had been finished."""
    return bool(request.param)


@pytest.fixture
def machine(space: Space) -> Losing:
    return Losing(space)


@pytest.mark.parametrize("mode", ["r+b", "wb"])
def test_it_is_set_before_the_file_is_closed(machine: Losing, finished: bool, mode: str) -> None:
    """As cp -p and tar do."""
    before = machine.fs.stat("/file").mtime_ns
    with machine.fs.open("/file", mode, 0) as file:
        file.write(NEW)
        machine.fs.utime("/file", 1, SET)
        assert machine.fs.stat("/file").mtime_ns == SET
    assert machine.fs.stat("/file").mtime_ns == SET
    machine.lose(finished)
    machine.crash()
    assert shown(machine) == {"file": OLD, "other": OTHER}
    assert machine.fs.stat("/file").mtime_ns == before


@pytest.mark.parametrize("first", ["flush", "time"])
def test_it_is_set_while_a_copy_of_the_descriptor_is_open(
    machine: Losing, finished: bool, first: str
) -> None:
    """The closed one has put the file's image into the journal."""
    before = machine.fs.stat("/file")
    tree = machine.fs.tree
    handle = tree.open(before.ino, 2)
    tree.write(handle, 0, NEW)
    if first == "flush":
        tree.flush(handle)
    tree.set_attributes(before.ino, mtime_ns=SET)
    if first == "time":
        tree.flush(handle)
    machine.lose(finished)
    machine.crash()
    assert machine.fs.read_bytes("/file") == OLD
    assert machine.fs.stat("/file").mtime_ns == before.mtime_ns


def test_what_is_whole_has_it(machine: Losing) -> None:
    ino = machine.fs.stat("/file").ino
    tree = machine.fs.tree
    handle = tree.open(ino, 2)
    tree.write(handle, 0, NEW)
    tree.flush(handle)
    tree.set_attributes(ino, mtime_ns=SET, mode=0o600)
    machine.crash()
    assert machine.fs.read_bytes("/file") == NEW
    assert machine.fs.stat("/file").mtime_ns == SET
    assert machine.fs.stat("/file").mode & 0o777 == 0o600


@pytest.mark.parametrize("gone", [False, True])
def test_others_see_it_with_the_bytes(space: Space, gone: bool) -> None:
    """S-15, without any loss of power: the file is still open, and its machine may die."""
    one, other = connect(space), connect(space, "b")
    one.write_bytes("/file", OLD)
    one.sync(timeout=WAIT_S)
    hear(other)
    before = other.stat("/file").mtime_ns
    file = one.open("/file", "r+b", 0)
    file.write(some_bytes(4, BLOCK))
    one.utime("/file", 1, SET)
    one.mkdir("/behind")
    assert parts_of(one).order.wait_settled(parts_of(one).order.last, WAIT_S)
    hear(other)
    assert other.exists("/behind")
    assert (other.read_bytes("/file"), other.stat("/file").mtime_ns) == (OLD, before)
    if gone:
        space.crash(one)
        one = connect(space)
        one.sync(timeout=WAIT_S)
        assert (one.read_bytes("/file"), one.stat("/file").mtime_ns) == (OLD, before)
        return
    file.close()
    one.sync(timeout=WAIT_S)
    hear(other)
    assert other.read_bytes("/file")[:BLOCK] == some_bytes(4, BLOCK)
    assert other.stat("/file").mtime_ns == SET
