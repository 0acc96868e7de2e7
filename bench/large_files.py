"""Scenarios on large files: in order, side by side, as an editor reads, and at random."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.bed import CHUNK, Bed, Phase

__all__ = [
    "KiB", "editor", "interleaved", "places", "random_reads", "read_at", "read_through",
    "sequential",
]  # fmt: skip

KiB = 1 << 10
STREAMS = 3
SEEKS = 4
FRAME = 256 * KiB
END = 64 * KiB


def sequential(bed: Bed) -> None:
    """A file is written to its close, until it is in the store, and one to fsync; then read cold,
    from the local cache, and from memory."""
    size = bed.sizes.large
    target = bed.top / "large"
    with bed.phase("write to close", "close") as phase:
        phase.size = size
        bed.write(target, size)
    with bed.phase("from close until in the store", "settle"):
        pass
    again = bed.top / "again"
    with bed.phase("write until in the store", "settle") as phase:
        phase.size = size
        bed.write(again, size)
    with bed.phase("write to fsync", "fsync") as phase:
        phase.size = size
        bed.write(bed.top / "synced", size, sync=True)
    bed.cold()
    for name in ("read cold", "read local cache", "read memory"):
        if name == "read local cache":
            bed.drop_pages()
        with bed.phase(name) as phase:
            phase.size = size
            read_through(bed, target, phase)


def read_through(bed: Bed, path: Path, phase: Phase) -> None:
    """Once from start to end, in chunks; the first 4 KiB are timed, and each chunk."""
    buffer = bytearray(CHUNK)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        with memoryview(buffer) as view:
            done = file.readinto(view[:4096]) or 0
            phase.first_s = time.perf_counter() - began
            bed.check(view[:done], 0)
        began = time.perf_counter()
        while count := file.readinto(buffer):
            phase.each_s.append(time.perf_counter() - began)
            if done % CHUNK == 0:
                bed.check(buffer[:4096], done)
            done += count
            began = time.perf_counter()
    if done != path.stat().st_size:
        raise RuntimeError(f"{bed.peer.name} gave {done} bytes of {path.stat().st_size}")


def interleaved(bed: Bed) -> None:
    """Two files are read in order by turns, a chunk of one and a chunk of the other."""
    size = bed.sizes.large // 2
    paths = [bed.top / "one", bed.top / "two"]
    for path in paths:
        bed.write(path, size)
    bed.cold()
    with bed.phase("read cold") as phase:
        phase.size = 2 * size
        with paths[0].open("rb", buffering=0) as one, paths[1].open("rb", buffering=0) as two:
            for offset in range(0, size, CHUNK):
                for file in (one, two):
                    with phase.one():
                        data = file.read(CHUNK)
                    bed.check(data, offset)


def editor(bed: Bed) -> None:
    """A video editor opens films: of each it reads head and tail, then plays several at once, frame
    by frame, and jumps. The frames are what it waits for."""
    size = bed.sizes.large // STREAMS // CHUNK * CHUNK or CHUNK
    paths = [bed.top / f"film-{number}" for number in range(STREAMS)]
    for path in paths:
        bed.write(path, size)
    bed.cold()
    opened = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        with bed.phase("open: heads and tails") as phase:
            for fd in opened:
                with phase.one():
                    bed.check(os.pread(fd, END, 0), 0)
                    bed.check(os.pread(fd, END, size - END), size - END)
        with bed.phase("play and jump") as phase:
            _play(bed, phase, opened, size)
    finally:
        for fd in opened:
            os.close(fd)


def _play(bed: Bed, phase: Phase, opened: Sequence[int], size: int) -> None:
    frames_of_jump = max(1, size // FRAME // SEEKS // 2)
    chance = random.Random(1)
    for _ in range(SEEKS):
        begin = chance.randrange(0, max(1, size - frames_of_jump * FRAME)) // FRAME * FRAME
        for frame in range(frames_of_jump):
            offset = begin + frame * FRAME
            with phase.one():
                data = [os.pread(fd, FRAME, offset) for fd in opened]
            for piece in data:
                bed.check(piece, offset)
                phase.size += len(piece)


def random_reads(bed: Bed) -> None:
    """4 and 64 KiB at random, by one thread and by eight, cold, and then from the local cache; and
    4 KiB from a local cache that holds the file, for some time: the first reads of a disk whose
    pages were dropped say little of those that follow."""
    size = bed.sizes.large
    target = bed.top / "random"
    bed.write(target, size)
    kinds = [(4 * KiB, 1), (4 * KiB, 8), (64 * KiB, 1), (64 * KiB, 8)]
    for length, threads in kinds:
        name = f"{length // KiB} KiB, {_threads(threads)}"
        bed.cold()
        offsets = places(size, length, bed.sizes.reads)
        for how in ("cold", "cached"):
            if how == "cached":
                bed.drop_pages()
            with bed.phase(f"{name}, {how}") as phase:
                read_at(bed, phase, target, offsets, length, threads)
    read_through(bed, target, Phase())
    bed.drop_pages()
    with bed.phase("4 KiB, one thread, cached, sustained") as phase:
        _read_on(bed, phase, target, 4 * KiB)


def _read_on(bed: Bed, phase: Phase, path: Path, length: int) -> None:
    """One thread reads at random until the time is over, no place twice: what is read again comes
    from the kernel's memory. Ends sooner when it has read all."""
    order = list(range(bed.sizes.large // length))
    random.Random(length).shuffle(order)
    end = time.perf_counter() + bed.sizes.sustained_s
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for phase.count, piece in enumerate(order, 1):
            with phase.one():
                data = os.pread(file.fileno(), length, piece * length)
            bed.check(data, piece * length)
            if time.perf_counter() > end:
                break
    phase.size = phase.count * length


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def places(size: int, length: int, count: int) -> list[int]:
    chance = random.Random(length)
    return [chance.randrange(size // length) * length for _ in range(count)]


def read_at(
    bed: Bed, phase: Phase, path: Path, offsets: Sequence[int], length: int, threads: int
) -> None:
    """The offsets are shared out among threads, each with a descriptor of its own."""
    failed: list[BaseException] = []

    def read(mine: Sequence[int]) -> None:
        try:
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                for place in mine:
                    with phase.one():
                        data = os.pread(file.fileno(), length, place)
                    bed.check(data, place)
        except BaseException as error:
            failed.append(error)

    run_together(read, [offsets[at::threads] for at in range(threads)])
    if failed:
        raise failed[0]
    phase.count = len(offsets)
    phase.size = len(offsets) * length


def run_together(job: Callable[[Sequence[int]], None], shares: Sequence[Sequence[int]]) -> None:
    running = [threading.Thread(target=job, args=(share,)) for share in shares]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
