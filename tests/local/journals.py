"""Journals to test with: small files, fixed keys, a disk that can be told to fail."""

from __future__ import annotations

from pathlib import Path

from lucid.format.journal import Patch, Record
from lucid.local.disk import Disk
from lucid.local.frames import Position
from lucid.local.journal import Journal
from lucid.local.replay import Replay, ReplayReport
from lucid.types import Entropy
from tests.local.keys import entropy, journal_keys

FILE_BYTES = 64 << 10
_FRESH = entropy()


def patch(number: int, size: int = 10) -> Patch:
    """A record that says its number."""
    return Patch(number, 0, 0, b"%d " % number + bytes(size))


def numbers(found: list[tuple[Position, Record]]) -> list[int]:
    """The numbers of replayed patches."""
    return [record.ino for _, record in found if isinstance(record, Patch)]


def open_journal(
    disk: Disk,
    root: Path,
    *,
    file_bytes: int = FILE_BYTES,
    limit_bytes: int = 1 << 30,
    fresh: Entropy = _FRESH,
) -> Journal:
    """The journal at `root`, after a replay that nobody looks at."""
    replay = Replay(disk, root, journal_keys())
    replay.finish()
    return Journal(
        disk,
        root,
        journal_keys(),
        fresh,
        replay,
        file_bytes=file_bytes,
        limit_bytes=limit_bytes,
    )


def read_back(disk: Disk, root: Path) -> tuple[list[int], ReplayReport]:
    """What replay answers now."""
    replay = Replay(disk, root, journal_keys())
    found = list(replay)
    return numbers(found), replay.report
