"""What a collector does to a bucket, by hand, and machines that come back after it."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable

from lucid.filespace import Filespace
from lucid.format.floor import encode_floor
from lucid.format.names import (
    DATA_PREFIX,
    LOG_PREFIX,
    floor_key,
    parse_log_key,
    parse_segment_key,
)
from lucid.format.ops import Floor
from lucid.types import SystemClock
from tests.filespace.checkpoints import head, remove, write_until
from tests.filespace.spaces import BLOCK, WAIT_S, Space, parts_of, some_bytes, write_at

LONG = some_bytes(7, 3 * BLOCK + 100)
DAYS_8_NS = 8 * 86_400 * 10**9


class Ahead(SystemClock):
    """A clock of a machine that can sleep."""

    ahead_ns = 0

    def time_ns(self) -> int:
        return super().time_ns() + self.ahead_ns


def commit_floor(fs: Filespace, floor: int) -> None:
    """The op, in an entry of its own."""
    parts = parts_of(fs)
    op = Floor(parts.next_op_id(), parts.clock.time_ns(), floor)
    fs.tree._opened.committer.alone.commit(op, WAIT_S)
    assert parts.replica.floor() == floor


def show_floor(space: Space, floor: int) -> None:
    """The object that tells who was away."""
    space.bucket.objects[floor_key(floor)] = (encode_floor(floor), 0)
    insort(space.bucket.keys, floor_key(floor))


def collect(space: Space, fs: Filespace, floor: int, cut: bool = True) -> None:
    """Set the floor, and take all that a collector may take at the very latest: each object of
    data that the state does not name, and each entry below the floor but the first."""
    commit_floor(fs, floor)
    show_floor(space, floor)
    named = {row.id for row in parts_of(fs).replica.segments()}
    for key in [key for key in space.bucket.keys if key.startswith(DATA_PREFIX)]:
        if parse_segment_key(key) not in named:
            remove(space, key)
    for key in [key for key in space.bucket.keys if cut and key.startswith(LOG_PREFIX)]:
        if 1 < (parse_log_key(key) or 0) < floor:
            remove(space, key)


def go_on(space: Space, fs: Filespace, since: int) -> int:
    """Write until there is a checkpoint that is believed well above entry `since`; the floor that
    a collector could set then."""
    write_until(fs, since + 2 * 8 + 8)
    return head(fs) // 8 * 8 - 9


def when(fs: Filespace, is_so: Callable[[Filespace], bool]) -> None:
    """Wait for it."""
    clock, pause = SystemClock(), threading.Event()
    until = clock.monotonic() + WAIT_S
    while not is_so(fs):
        assert clock.monotonic() < until, fs.status()
        pause.wait(0.02)


def has_stopped(fs: Filespace) -> bool:
    """Writing has, with the sentence that says what to do."""
    stopped = parts_of(fs).order.stopped
    return stopped is not None and "Unmount, and mount again" in str(stopped)


def furnish(fs: Filespace) -> None:
    """What is there before anybody goes away."""
    fs.mkdir("/dir")
    for name in ("/kept", "/renamed", "/removed", "/dir/inner"):
        fs.write_bytes(name, some_bytes(len(name), 2 * BLOCK + 5))
    fs.sync(timeout=WAIT_S)


def change_all(fs: Filespace) -> None:
    """Creates, appends, writes in the middle, renames and deletes."""
    fs.write_bytes("/long", LONG)
    fs.write_bytes("/dir/short", b"a few bytes")
    with fs.open("/kept", "ab", 0) as file:
        file.write(b"appended")
    write_at(fs, "/dir/inner", BLOCK - 3, b"across blocks")
    fs.rename("/renamed", "/dir/new name")
    fs.remove("/removed")
    fs.makedirs("/dir/sub/deeper")


def upload_all(fs: Filespace) -> None:
    """All that pending ops name is in the store."""
    parts = parts_of(fs)
    parts.staged.finish_for(parts.order.waiting_segments(1000))
    when(fs, lambda one: parts.staged.are_uploaded(parts.order.waiting_segments(1000)))
