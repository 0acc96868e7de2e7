"""Scenarios that only this drive can do: a large filespace is mounted, and its daemon computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bench.bed import Bed, Phase
from bench.large_files import KiB, places, read_at, read_through
from bench.peers import SECRET, Lucid
from bench.scale import FILE_BYTES, IN_DIRECTORY, fill_store

__all__ = ["computing", "mount"]


def mount(bed: Bed) -> None:
    """A filespace of many files, made by hand, is mounted by a new device and by one that knows it:
    until the names of its root are there."""
    peer = ours(bed)
    count = bed.sizes.filespace
    peer.end()
    with peer.keys():
        fill_store(peer.store, SECRET, count)
    folders = -(-count // IN_DIRECTORY)
    for name, fresh in (("new device", True), ("known device", False)):
        with bed.phase(f"mount, {name}") as phase:
            phase.count = count
            peer.start(fresh)
            found = sum(entry.startswith("d") for entry in os.listdir(bed.top))
        if found != folders:
            raise RuntimeError(f"The drive shows {found} of {folders} directories.")
        last = bed.top / f"d{folders - 1}" / f"file-{count - 1}"
        with bed.phase(f"first stat, {name}") as phase, phase.one():
            size = last.stat().st_size
        if size != FILE_BYTES:
            raise RuntimeError(f"{last.name} has {size} bytes instead of {FILE_BYTES}.")
        if fresh:
            peer.end()


def computing(bed: Bed) -> None:
    """stat, and 4 KiB at random from the local cache, while the daemon is idle and while a Python
    thread in it computes; both after a mount by a device that knows the filespace."""
    peer = ours(bed)
    paths = [bed.top / f"{number}" for number in range(bed.sizes.names)]
    for path in paths:
        path.touch()
    target = bed.top / "random"
    bed.write(target, bed.sizes.large)
    bed.cold()
    read_through(bed, target, Phase())
    _look(bed, "idle", paths, target, lambda: peer.start(fresh=False))
    _look(bed, "computing", paths, target, lambda: peer.start_by("bench.computing"))


def _look(bed: Bed, how: str, paths: list[Path], target: Path, start: Callable[[], None]) -> None:
    bed.peer.settle()
    bed.peer.end()
    start()
    # The first time each is looked up in the replica; from then on the engine knows it, and the
    # kernel, which has forgotten it with its pages, asks again.
    for name in ("first stat", "stat"):
        bed.drop_pages()
        with bed.phase(f"{name}, {how}") as phase:
            phase.count = len(paths)
            for path in paths:
                with phase.one():
                    path.stat()
    bed.drop_pages()
    with bed.phase(f"4 KiB cached, {how}") as phase:
        offsets = places(bed.sizes.large, 4 * KiB, bed.sizes.reads)
        read_at(bed, phase, target, offsets, 4 * KiB, 1)


def ours(bed: Bed) -> Lucid:
    if not isinstance(bed.peer, Lucid):
        raise ValueError(f"{bed.peer.name} has no such scenario")
    return bed.peer
