"""What a collector does to a bucket, by hand, and machines that come back after it."""

from __future__ import annotations

from bisect import insort

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
from tests.filespace.spaces import WAIT_S, Space, parts_of

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
