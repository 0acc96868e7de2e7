"""The kernel's table of mounts, which tells what is mounted where without touching it.

Read by whoever mounts, unmounts or asks, from any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FILE_SYSTEM", "Mount", "find", "mounts"]

FILE_SYSTEM = "fuse.lucid"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: Path
    kind: str
    source: str
    device: int

    @property
    def is_ours(self) -> bool:
        return self.kind == FILE_SYSTEM


def _unescaped(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)


def mounts() -> Iterator[Mount]:
    """What is mounted, oldest first."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        kind, source = fields[fields.index(b"-") + 1 :][:2]
        major, minor = fields[2].split(b":")
        yield Mount(
            Path(os.fsdecode(_unescaped(fields[4]))),
            kind.decode("ascii", "replace"),
            os.fsdecode(_unescaped(source)),
            os.makedev(int(major), int(minor)),
        )


def find(point: Path) -> Mount | None:
    """What is mounted at exactly this path: the newest, which hides the others."""
    found = None
    for mount in mounts():
        if mount.point == point:
            found = mount
    return found
