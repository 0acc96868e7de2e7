"""How fast the disk of a directory is: for `lucid bench`. Owns one file there, and removes it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lucid.local.disk import Disk, local_errors
from lucid.types import Clock, Entropy

__all__ = ["measure"]

PIECE = 1 << 20
SMALL = 4096
SYNCS_MAX = 50
STAGE_S = 4.0
"""After this long a stage begins nothing more."""


def measure(
    disk: Disk, folder: Path, size: int, clock: Clock, entropy: Entropy
) -> dict[str, float]:
    """`write` and `read` in bytes a second, `sync` in seconds: the median of small appends that are
    made to survive loss of power. Of `size` bytes, or fewer where the disk is slow.

    What is read was dropped from the page cache before, where the file system does that.
    Raises LocalError, DiskFull.
    """
    path = folder / f".lucid-bench-{entropy(8).hex()}"
    with local_errors(f"measure the disk of {folder}"):
        fd = disk.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            written, seconds = _write(disk, fd, size, clock, entropy)
            found = {"write": written / seconds}
            found["sync"] = _sync(disk, fd, written, clock, entropy)
            # Advice: some file systems do not take it, and then memory is measured.
            with suppress(OSError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            found["read"] = _read(disk, fd, written, clock)
        finally:
            disk.close(fd)
            disk.unlink(path)
    return found


def _write(disk: Disk, fd: int, size: int, clock: Clock, entropy: Entropy) -> tuple[int, float]:
    """(bytes, seconds until they would survive loss of power)."""
    piece = entropy(PIECE)  # bytes that no disk makes smaller
    done, began = 0, clock.monotonic()
    while done < size and (not done or clock.monotonic() - began < STAGE_S):
        disk.pwrite(fd, piece, done)
        done += len(piece)
    disk.fdatasync(fd)
    return done, max(clock.monotonic() - began, 1e-9)


def _sync(disk: Disk, fd: int, end: int, clock: Clock, entropy: Entropy) -> float:
    """Seconds of a small append with its fdatasync, the median."""
    small, took, began = entropy(SMALL), [], clock.monotonic()
    for number in range(SYNCS_MAX):
        start = clock.monotonic()
        disk.pwrite(fd, small, end + number * SMALL)
        disk.fdatasync(fd)
        took.append(clock.monotonic() - start)
        if clock.monotonic() - began > STAGE_S:
            break
    return sorted(took)[len(took) // 2]


def _read(disk: Disk, fd: int, size: int, clock: Clock) -> float:
    """Bytes a second."""
    done, began = 0, clock.monotonic()
    while done < size and (not done or clock.monotonic() - began < STAGE_S):
        done += len(disk.pread(fd, PIECE, done))
    return done / max(clock.monotonic() - began, 1e-9)
