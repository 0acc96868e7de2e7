"""How fast a store is from here, without a filespace in between: for `lucid bench`.

Owns objects under `probe/` and deletes them. Its threads end before `measure` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from statistics import median

from lucid.errors import LucidError
from lucid.format.names import PROBE_PREFIX
from lucid.store.base import ObjectStore
from lucid.types import Clock, Entropy

__all__ = ["connect_s", "measure"]

AT_ONCE = 4
PIECE = 4 << 20
"""Bytes of an object: half of what a drive sends at once, so that a slow line ends in time."""
SMALL = 2048
"""As an entry of the log that few changes make."""
TRIES = 12
ROUNDS = 4
STAGE_S = 6.0
"""After this long a stage begins nothing more."""
CONNECTS = 3


def connect_s(open_store: Callable[[], ObjectStore], clock: Clock) -> float:
    """Seconds until a connection is open, name, TCP and TLS together: the quickest of a few."""
    took = []
    for _ in range(CONNECTS):
        with closing(open_store()) as store:
            began = clock.monotonic()
            store.warm()
            took.append(clock.monotonic() - began)
    return min(took)


def measure(
    store: ObjectStore,
    clock: Clock,
    entropy: Entropy,
    piece: int = PIECE,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """`get` and `put` in bytes a second over several connections, `get one` over one; `answer` and
    `commit` in seconds, the median of reading one byte and of making a small object.

    About 52 MiB go there and 80 come back, less where they would take long. `report` is told how
    many stages of how many are done. Raises StoreError.
    """
    stage = _Stages(store, clock, f"{PROBE_PREFIX}{entropy(16).hex()}-")
    try:
        return stage.run(entropy, piece, report)
    finally:
        # What went wrong before is the error to tell.
        with suppress(LucidError):
            store.delete(stage.keys)


class _Stages:
    """The stages of one measurement. `keys` are the objects that it made, or may have made."""

    def __init__(self, store: ObjectStore, clock: Clock, prefix: str) -> None:
        self.keys: list[str] = []
        self._store = store
        self._clock = clock
        self._prefix = prefix

    def run(
        self, entropy: Entropy, piece: int, report: Callable[[int, int], None]
    ) -> dict[str, float]:
        large: list[str] = []
        body = entropy(piece)

        def send() -> int:
            large.append(self._put(entropy(16) + body[16:]))
            return piece

        def read(at: int) -> int:
            return self._store.get_into(large[at % len(large)], 0, bytearray(piece))

        # Some stores make a place for data at the first object: that is not their rate.
        send()
        reads = [lambda at=at: read(at) for at in range(AT_ONCE * ROUNDS)]
        stages: dict[str, Callable[[], float]] = {
            "commit": lambda: self._repeat(lambda: self._put(entropy(SMALL))),
            "put": lambda: self._together([send] * (AT_ONCE * (ROUNDS - 1))),
            "answer": lambda: self._repeat(lambda: self._store.get(large[0], 0, 1)),
            "get one": lambda: self._together(reads[:AT_ONCE], 1),
            "get": lambda: self._together(reads, AT_ONCE),
        }
        found: dict[str, float] = {}
        for name, stage in stages.items():
            report(len(found), len(stages))
            found[name] = stage()
        return found

    def _put(self, body: bytes) -> str:
        # No directory of its own: a store in a directory would keep it.
        key = f"{self._prefix}{len(self.keys)}-{body[:8].hex()}"
        self.keys.append(key)
        self._store.put_if_absent(key, body)
        return key

    def _repeat(self, call: Callable[[], object]) -> float:
        """The median of the seconds that a call takes, the first one left out: it connects."""
        took: list[float] = []
        began = self._clock.monotonic()
        for number in range(TRIES + 1):
            start = self._clock.monotonic()
            call()
            if number or start - began > STAGE_S:
                took.append(self._clock.monotonic() - start)
            if self._clock.monotonic() - began > STAGE_S and took:
                break
        return median(took)

    def _together(self, calls: Sequence[Callable[[], int]], at_once: int = AT_ONCE) -> float:
        """Bytes a second of calls, some at a time; none begins when the time is over."""
        began = self._clock.monotonic()

        def in_time(call: Callable[[], int]) -> int:
            return call() if self._clock.monotonic() - began < STAGE_S else 0

        with ThreadPoolExecutor(at_once, thread_name_prefix="lucid-bench") as threads:
            done = sum(threads.map(in_time, calls))
        return done / max(self._clock.monotonic() - began, 1e-9)
