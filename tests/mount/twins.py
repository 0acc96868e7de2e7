"""The same system calls on two trees, one of them a drive, and whether they answered the same.

What is allowed to differ, and why:

- the size of a directory: each file system counts what it likes;
- atime: a drive never touches it by reading (S-15), the local one does;
- times that nobody set: they are only as near as the two calls were. One that was set lies far from
  now on purpose, so that the difference shows;
- `user.lucid.state`, which only a drive has.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEAR_NS = 3_600 * 10**9
"""A time further from now than this was set by somebody."""
STATE = "user.lucid.state"

Outcome = tuple[str, Any]


def outcome(call: Callable[..., Any], *arguments: Any) -> Outcome:
    """("value", what it answered) or ("error", the errno's name)."""
    try:
        return "value", call(*arguments)
    except OSError as error:
        return "error", errno.errorcode[error.errno or 0]


def set_time(nanoseconds: int) -> int | None:
    """The time if somebody set it, None if it is about now."""
    return None if abs(time.time_ns() - nanoseconds) < NEAR_NS else nanoseconds


def look(status: os.stat_result) -> dict[str, Any]:
    """What both must show of an inode."""
    seen: dict[str, Any] = {
        "mode": oct(status.st_mode),
        "nlink": status.st_nlink,
        "mtime": set_time(status.st_mtime_ns),
        "ctime": set_time(status.st_ctime_ns),
    }
    if not stat.S_ISDIR(status.st_mode):
        seen["size"] = status.st_size
    return seen


def read_all(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def xattrs(path: Path) -> dict[str, bytes]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name != STATE}


def inside(path: Path, status: os.stat_result) -> Outcome:
    if stat.S_ISREG(status.st_mode):
        return outcome(read_all, path)
    if stat.S_ISLNK(status.st_mode):
        return outcome(os.readlink, path)
    if stat.S_ISDIR(status.st_mode):
        return outcome(lambda: sorted(os.listdir(path)))
    return "value", None


@dataclass
class Tree:
    """All that can be seen below a directory."""

    seen: dict[str, dict[str, Any]]
    names_of_one_inode: set[frozenset[str]]


def whole(top: Path) -> Tree:
    """Everything below, and which names belong to one inode."""
    seen: dict[str, dict[str, Any]] = {}
    inodes: dict[int, set[str]] = {}
    waiting = [top]
    while waiting:
        path = waiting.pop()
        status = path.lstat()
        name = os.fsencode(path.relative_to(top)).decode("utf-8", "backslashreplace")
        inodes.setdefault(status.st_ino, set()).add(name)
        held = inside(path, status)
        seen[name] = look(status) | {"inside": held, "xattrs": outcome(xattrs, path)}
        if stat.S_ISDIR(status.st_mode) and held[0] == "value":
            waiting.extend(path / child for child in held[1])
    return Tree(seen, {frozenset(names) for names in inodes.values()})


def difference(drive: Tree, local: Tree) -> list[str]:
    """One line for each thing that is not the same; empty when all is."""
    lines = []
    for name in sorted(drive.seen.keys() | local.seen.keys()):
        here, there = drive.seen.get(name), local.seen.get(name)
        if here is None or there is None:
            lines.append(f"{name!r} is only {'local' if here is None else 'on the drive'}")
            continue
        for part in here.keys() | there.keys():
            if here.get(part) != there.get(part):
                lines.append(f"{name!r} {part}: {brief(here.get(part), there.get(part))}")
    if not lines and drive.names_of_one_inode != local.names_of_one_inode:
        lines.append(f"links: {drive.names_of_one_inode ^ local.names_of_one_inode}")
    return lines


def brief(here: Any, there: Any) -> str:
    """Two answers that differ, without a megabyte of bytes."""
    if isinstance(here, tuple) and isinstance(there, tuple) and here[:1] == there[:1] == ("value",):
        here, there = here[1], there[1]
    if isinstance(here, bytes) and isinstance(there, bytes) and len(here) + len(there) > 100:
        first = next(
            (at for at, (a, b) in enumerate(zip(here, there, strict=False)) if a != b),
            min(len(here), len(there)),
        )
        return (
            f"from byte {first} on: drive {here[first : first + 16].hex()}..., local "
            f"{there[first : first + 16].hex()}... (lengths {len(here)}, {len(there)})"
        )
    return f"drive {here!r:.200}, local {there!r:.200}"
