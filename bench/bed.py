"""Where a scenario runs: a mounted peer, sizes, data, and the phases that are measured.

A phase is what happens between two looks at clock, daemon and store. Its figures have the names
that reports and comparisons use: `MB/s` (decimal), `per s`, `s`, `first byte ms`, `p50 ms`,
`p99 ms`, `cpu s` (of the daemon), `requests`, `sent MB` and `fetched MB` (at the store,
heads included).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.delay import Passed
from bench.peer import Peer, drop_page_cache

__all__ = [
    "CHUNK", "COUNTS", "MB", "SMALLER_IS_BETTER", "TINY", "Bed", "Phase", "Sizes", "forget_pages",
]  # fmt: skip

MB = 1_000_000
MiB = CHUNK = 1 << 20
SMALLER_IS_BETTER = {
    "s", "ms", "us", "first byte ms", "p50 ms", "p99 ms", "max ms", "read p50 ms", "read p99 ms",
    "write p50 ms", "write p99 ms", "cpu s", "s/GB", "ms/file", "requests", "sent MB",
    "fetched MB", "fetched / read", "peak MiB", "peak MiB, copied out and in", "segments left",
    "seen by all after s", "longest losing streak", "streak of the last device",
}  # fmt: skip
COUNTS = {"files", "segments", "changes that waited", "n", "load"}
"""Figures that say how much was done, or beside what: none is better than another."""


@dataclass(frozen=True)
class Sizes:
    """How much a scenario does."""

    large: int = 256 * MiB
    reads: int = 400
    """Random reads of each kind."""
    sustained_s: float = 10.0
    """How long it is read at random from the local cache without a pause."""
    files: int = 500
    names: int = 10_000
    transactions: int = 200
    filespace: int = 1_000_000
    """Files of one that is only mounted."""
    fio_s: int = 20
    drop: bool = True
    """Drop the whole machine's page cache where a scenario wants to be cold."""


TINY = Sizes(
    large=2 * MiB, reads=8, sustained_s=0.1, files=12, names=20, transactions=3, filespace=2000,
    fio_s=1, drop=False,
)  # fmt: skip
"""For tests: everything is done, nothing can be told from the figures."""


@dataclass
class Phase:
    """What is measured between `began` and the end; a scenario fills in what only it knows."""

    size: int = 0
    """Bytes moved."""
    count: int = 0
    """Files, names, transactions or reads."""
    first_s: float | None = None
    each_s: list[float] = field(default_factory=list)
    durable: str = ""
    """What would survive when the clock stopped; empty where nothing was written."""

    @contextmanager
    def one(self) -> Iterator[None]:
        """The seconds of one call of many."""
        began = time.perf_counter()
        yield
        self.each_s.append(time.perf_counter() - began)

    def figures(self, seconds: float) -> dict[str, float]:
        found = {"s": seconds}
        if self.size:
            found["MB/s"] = self.size / seconds / MB
        if self.count:
            found["per s"] = self.count / seconds
        if self.first_s is not None:
            found["first byte ms"] = self.first_s * 1000
        if self.each_s:
            ordered = sorted(self.each_s)
            for percent in (50, 99):
                at = min(len(ordered) - 1, len(ordered) * percent // 100)
                found[f"p{percent} ms"] = ordered[at] * 1000
        return found


class Bed:
    """One run of one scenario on one peer. `figures` and `durable` are by phase."""

    def __init__(
        self, peer: Peer, sizes: Sizes, seed: bytes, passed: Callable[[], Passed] | None = None
    ) -> None:
        """`seed`: CHUNK bytes that do not compress; `passed`: what went to the store so far."""
        assert len(seed) == CHUNK
        self.peer = peer
        self.sizes = sizes
        self.seed = seed
        self.figures: dict[str, dict[str, float]] = {}
        self.durable: dict[str, str] = {}
        self._passed = passed

    @property
    def top(self) -> Path:
        """The mounted directory."""
        return self.peer.mountpoint

    @property
    def scratch(self) -> Path:
        """A directory of the local disk, for what is copied in and out."""
        return self.peer.place.top

    @contextmanager
    def phase(self, name: str, until: str = "") -> Iterator[Phase]:
        """Measure what happens within. `until`: what the writes in it wait for, a field
        of Durable; with "settle" the phase ends when they are in the store."""
        phase = Phase(durable=getattr(self.peer.durable, until) if until else "")
        passed = self._passed() if self._passed else None
        cpu = self.peer.cpu_s()
        began = time.perf_counter()
        yield phase
        since = self.peer.settle() if until == "settle" else 0.0
        seconds = max(time.perf_counter() - began - since, 1e-6)
        found = phase.figures(seconds)
        found["cpu s"] = self.peer.cpu_s() - cpu
        if passed is not None and self._passed is not None and self.peer.uses_store:
            moved = self._passed().since(passed)
            found["requests"] = float(moved.requests)
            found["sent MB"] = moved.sent / MB
            found["fetched MB"] = moved.received / MB
        self.figures[name] = found
        if phase.durable:
            self.durable[name] = phase.durable

    def cold(self) -> None:
        """From here on nothing is on this machine but what the peer keeps in the store."""
        self.peer.remount()
        self._drop_pages()

    def drop_pages(self) -> None:
        """From here on nothing is in the kernel's memory; local caches stay."""
        self.peer.settle()
        self._drop_pages()

    def _drop_pages(self) -> None:
        if self.sizes.drop:
            drop_page_cache()

    def write(self, path: Path, size: int, sync: bool = False) -> None:
        """A file of bytes that do not compress and are no zeros; closed, and synced before."""
        with path.open("wb", buffering=0) as file:
            done = 0
            while done < size:
                head = done.to_bytes(8, "little")
                done += file.write(head + self.seed[len(head) : min(CHUNK, size - done)])
            if sync:
                os.fsync(file.fileno())

    def check(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Is this what `write` puts at an offset? Looked at within one chunk. Raises RuntimeError:
        a rate of wrong bytes is none."""
        base, at = offset - offset % CHUNK, offset % CHUNK
        length = min(len(data), CHUNK - at)
        # Not of the whole chunk: this stands in the rate of small reads.
        wanted = base.to_bytes(8, "little")[at:] + self.seed[max(at, 8) : at + length]
        if data[:length] != wanted[:length]:
            raise RuntimeError(f"{self.peer.name} gave other bytes than were written at {offset}")


def forget_pages(path: Path) -> None:
    """Drop what the kernel holds of one file."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
