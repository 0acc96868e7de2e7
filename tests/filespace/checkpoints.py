"""Filespaces with a checkpoint at each eighth entry, and their checkpoints looked into."""

from __future__ import annotations

from typing import Any

from lucid.filespace import Filespace
from lucid.meta.checkpoint_store import CheckpointReader
from tests.filespace.spaces import WAIT_S, Space, parts_of, some_bytes

EVERY = 8
SETTINGS: dict[str, Any] = {"checkpoint_every": EVERY, "checkpoint_wait_s": 0.0}


def connect(space: Space, name: str = "a", **other: Any) -> Filespace:
    return space.connect(name, **{**SETTINGS, **other})


def head(fs: Filespace) -> int:
    return parts_of(fs).replica.head().sequence


def write_until(fs: Filespace, sequence: int, *others: Filespace) -> None:
    """Commit small entries, one at a time, and let each checkpoint be made.

    `others` work on each checkpoint too: one that is still busy with the last leaves the next out.
    """
    while head(fs) < sequence:
        at = head(fs)
        fs.write_bytes(f"/file {at}", some_bytes(at, 100 + at))
        fs.sync(timeout=WAIT_S)
        hear(fs)
        if head(fs) % EVERY == 0:
            for other in others:
                hear(other)


def hear(fs: Filespace) -> None:
    """The log is folded to its end, and what is to do at checkpoints is done."""
    assert fs.refresh(WAIT_S)
    assert fs.tree._opened.checkpoints.wait_idle(WAIT_S)


def rows(fs: Filespace) -> list[Any]:
    snapshot = parts_of(fs).replica.snapshot()
    assert snapshot is not None
    found = [row for batch in snapshot.batches() for row in batch]
    snapshot.close()
    return found


def checkpoint_keys(space: Space, sequence: int) -> list[str]:
    prefix = f"checkpoint/{sequence:016x}/"
    return [key for key in space.bucket.keys if key.startswith(prefix)]


def reader_of(fs: Filespace) -> CheckpointReader:
    opened = fs.tree._opened
    return CheckpointReader(parts_of(fs).store, opened.ring, EVERY)


def remove(space: Space, key: str) -> None:
    del space.bucket.objects[key]
    space.bucket.keys.remove(key)


def replace(space: Space, key: str, data: bytes) -> None:
    space.bucket.objects[key] = (data, space.bucket.objects[key][1])


def notes(fs: Filespace) -> str:
    return " ".join(fs.status().checkpoint_notes)
