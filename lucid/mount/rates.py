"""How fast a mounted drive is: for `lucid bench`. Plain calls on a directory, as of any program.

Owns one directory on the drive, and removes it. Nothing here knows what answers the calls.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lucid.local.disk import local_errors
from lucid.types import Clock, Entropy

__all__ = ["measure"]

PIECE = 1 << 20
SMALL_BYTES = 8192
SMALL_FILES = 200
STAGE_S = 6.0
"""After this long a stage begins nothing more."""


def measure(
    folder: Path,
    size: int,
    clock: Clock,
    entropy: Entropy,
    sync: Callable[[Path], None],
) -> dict[str, float]:
    """Bytes a second, except for small files.

    `write` to fsync; `commit` from the first byte, with this fsync on the way, until it is in the
    store, which `sync` waits for; `cached` from the drive's local cache and `memory` from the
    kernel's pages; `create` and `read small` in files a second. A read that has to fetch is
    not among them: for that the cache would have to go.

    Raises LocalError, and what `sync` raises.
    """
    place = folder / f".lucid-bench-{entropy(8).hex()}"
    with local_errors(f"measure the drive at {folder}"):
        place.mkdir()
        try:
            large = place / "large"
            began = clock.monotonic()
            written = _write(large, size, clock, entropy)
            found = {"write": written / _since(clock, began)}
            sync(large)
            found["commit"] = written / _since(clock, began)
            _drop_pages(large)
            found["cached"] = _read(large, clock)
            found["memory"] = _read(large, clock)
            found |= _small(place, clock, entropy)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return found


def _since(clock: Clock, began: float) -> float:
    return max(clock.monotonic() - began, 1e-9)


def _write(path: Path, size: int, clock: Clock, entropy: Entropy) -> int:
    """The bytes written, safe from loss of power."""
    piece = entropy(PIECE)
    done, began = 0, clock.monotonic()
    with path.open("xb", buffering=0) as file:
        while done < size and (not done or clock.monotonic() - began < STAGE_S):
            done += file.write(done.to_bytes(8, "little") + piece[8:])
        os.fsync(file.fileno())
    return done


def _drop_pages(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: Path, clock: Clock) -> float:
    buffer = bytearray(PIECE)
    done, began = 0, clock.monotonic()
    with path.open("rb", buffering=0) as file:
        while clock.monotonic() - began < STAGE_S and (count := file.readinto(buffer)):
            done += count
    return done / _since(clock, began)


def _small(place: Path, clock: Clock, entropy: Entropy) -> dict[str, float]:
    body = entropy(SMALL_BYTES)
    made: list[Path] = []
    began = clock.monotonic()
    while len(made) < SMALL_FILES and (not made or clock.monotonic() - began < STAGE_S):
        made.append(place / f"small-{len(made)}")
        made[-1].write_bytes(body)
    created = len(made) / _since(clock, began)
    began = clock.monotonic()
    for path in made:
        path.read_bytes()
    return {"create": created, "read small": len(made) / _since(clock, began)}
