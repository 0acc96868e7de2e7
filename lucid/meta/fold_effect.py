"""What the fold is told about an op's author, and what it says about what the op did. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = ["NOTHING", "Author", "Effect", "Status"]


class Author(NamedTuple):
    """Who wrote the entry of an op. The labels are those of the state at that entry."""

    session: int
    member: bytes
    member_label: bytes
    device_label: bytes


class Status(IntEnum):
    """What became of an op."""

    APPLIED = 1  # as its author saw it
    NOTHING = 2  # the state is as before
    CONFLICT = 3  # applied, but beside what it names: under a conflict name
    REVIVED = 4  # applied, and something that had been removed came back for it


class Effect(NamedTuple):
    """The result of one op.

    `names` holds each (parent, name) that appeared, vanished or leads elsewhere, and the times of
    those parents are new; the last one is where the op's own name landed, if it has one. `inodes`
    are those whose row or content is new. `landed_ino` is the inode that the op made or wrote to,
    0 if none: later writes of the author on what this op wrote go there.
    """

    status: Status
    inodes: tuple[int, ...]
    names: tuple[tuple[int, bytes], ...]
    landed_ino: int


NOTHING = Effect(Status.NOTHING, (), (), 0)
