"""Getting bytes of segments from the store into the cache, each at most once at a time.

Threads: `fetch_workers` threads named lucid-fetch-N, started here. A read that misses calls
`demand` and waits (bounded) until its units are there; read-ahead calls `ahead` and never waits.
Demand goes first, and read-ahead never takes the last RESERVED workers.

A flight is one ranged GET. Whole units become present, and waiters go on, while the rest of the
body still arrives. Where not a byte came for much longer than usual, a *twin* asks for the same
over another connection, and whichever brings a unit first serves the waiters. The lock guards the
queues and the table of units under way; it is never held over I/O.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections import deque
from collections.abc import Iterable

from lucid.data.cache import SegmentCache
from lucid.data.hedging import FirstBytes
from lucid.data.memory import Share
from lucid.engine.cachemap import CacheMap
from lucid.errors import (
    CorruptObject,
    InternalError,
    LucidError,
    ObjectMissing,
    Stopped,
    StoreUnavailable,
)
from lucid.format.names import segment_key
from lucid.store.base import ObjectStore
from lucid.types import Clock

__all__ = ["GET_MAX", "Fetcher", "Source"]

log = logging.getLogger(__name__)

UNIT = 64 * 1024
GET_MAX = 4 * 1024 * 1024 + UNIT
"""Largest GET: large enough that a round trip of 20 ms is small beside it, small enough for several
at once in memory. Two of them bring a segment of 8 MiB, which is a little more with its tags."""
FILL_STEP = 256 * 1024
"""Bytes that are written to the cache at once, while nobody waits for less."""
AHEAD_MAX = 64
LOOK_S = 0.05
"""How often who waits looks whether the answer is late."""
AT_ONCE_S = 0.002
"""A store that is near has answered by then. Who waits longer has the time to make the file that
the answer goes into: with nothing of the disk's tables in memory that takes 1 to 10 ms."""
TWINS_MAX = 2
SPARE_BUFFERS = 8
RESERVED = 3
"""Workers that read-ahead leaves to reads that somebody waits for."""
SILENT_TIMEOUT_S = 5.0
"""How long a read waits when one before it waited in vain and nothing came since. The kernel asks
again for a page that its read-ahead did not get, and a program for the next file: with the whole
time each, a look at a directory of pictures hangs for hours."""

Source = tuple[int, int, memoryview]
"""slot, offset in the segment, stored bytes: what a bypassed cache hands straight to the reader."""


class _Flight:
    """One GET. `arrived` and `error` are guarded by its condition; the rest is written once."""

    __slots__ = (
        "arrived", "begun", "data", "demand", "done", "error", "has_twin", "held", "length", "news",
        "number", "original", "slot", "start",
    )  # fmt: skip

    def __init__(self, number: int, slot: int, start: int, length: int, demand: bool) -> None:
        self.number = number
        self.slot = slot
        self.start = start
        self.length = length
        self.demand = demand
        self.news = threading.Condition()
        self.arrived = 0
        self.done = False
        self.error: LucidError | None = None
        self.data: mmap.mmap | None = None
        """Kept for the waiters only where the cache would not take it."""
        self.held = 0
        """Bytes of `data` that are there. What a twin brought has arrived too, but not in it."""
        self.begun = 0.0
        """Monotonic time of its request; 0 before that."""
        self.has_twin = False
        self.original: _Flight | None = None
        """The flight that this one is the twin of."""


class Fetcher:
    """The workers and the table of what is under way."""

    def __init__(
        self,
        store: ObjectStore,
        cachemap: CacheMap,
        cache: SegmentCache,
        memory: Share,
        clock: Clock,
        *,
        workers: int,
        timeout_s: float,
    ) -> None:
        self._store = store
        self._background = store.background()
        self._map = cachemap
        self._cache = cache
        self._memory = memory
        self._clock = clock
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._demand: deque[_Flight] = deque()
        self._ahead: deque[_Flight] = deque()
        self._ahead_running = 0
        self._ahead_limit = max(1, workers - RESERVED)
        self._units: dict[tuple[int, int], _Flight] = {}
        self._spare: list[mmap.mmap] = []
        self._twins = 0
        """How many are under way. Guarded by the lock."""
        self._first_bytes = FirstBytes()
        self._flights = 0
        """How many have begun so far: each has its number."""
        self._closed = False
        self._is_silent = False
        """A read has waited in vain, and no byte came since. A moment late is fine."""
        self.bytes_fetched = 0
        self.problem = ""
        self._threads = [
            threading.Thread(target=self._run, name=f"lucid-fetch-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    # -- asking

    def demand(self, ranges: Iterable[tuple[int, int, int]]) -> list[Source]:
        """Wait until these (slot, offset, length) ranges are here.

        Returns the bytes themselves where the cache could not take them. Raises StoreUnavailable
        after the read time-out, CorruptObject for an object that is gone or short.
        """
        timeout = min(self._timeout_s, SILENT_TIMEOUT_S) if self._is_silent else self._timeout_s
        deadline = self._clock.monotonic() + timeout
        ranges = list(ranges)
        newest = self._flights
        flights = self._begin(ranges, demand=True)
        try:
            return self._landed(flights, deadline)
        except StoreUnavailable:
            if all(flight.number > newest for flight, _ in flights):
                raise
        # It failed for somebody who asked earlier; the store may be back since.
        return self._landed(self._begin(ranges, demand=True), deadline)

    def _landed(self, flights: list[tuple[_Flight, int]], deadline: float) -> list[Source]:
        sources: list[Source] = []
        for flight, end in flights:
            self._wait(flight, end, deadline)
            if flight.data is not None:
                sources.append((flight.slot, flight.start, memoryview(flight.data)[: flight.held]))
        return sources

    def past_cache(self, ranges: Iterable[tuple[int, int, int]]) -> list[Source]:
        """The bytes of these ranges, each whole from one GET on this thread.

        For blocks that lie half in what `demand` handed over and half elsewhere: in the cache, from
        before it was bypassed, or in what the next flight brings. Raises as `demand` does.
        """
        sources: list[Source] = []
        for slot, offset, length in ranges:
            segment = self._map.segment_id(slot)
            try:
                data = self._store.get(segment_key(segment), offset, length)
            except ObjectMissing as error:
                raise _gone(segment) from error
            if len(data) < length:
                raise _cut_short(segment)
            self.bytes_fetched += length
            sources.append((slot, offset, memoryview(data)))
        return sources

    def ahead(self, ranges: Iterable[tuple[int, int, int]], get_max: int = GET_MAX) -> int:
        """Fetch what of these ranges is absent, when there is nothing better to do.

        `get_max`: bytes of a GET at most. Who needs something in the middle of one waits for what
        comes before. Returns the bytes that are now on their way.
        """
        return sum(flight.length for flight, _ in self._begin(ranges, False, get_max))

    def is_coming(self, slot: int, offset: int) -> bool:
        """Whether this unit is on its way already, for whomever. REQUIRES: a reference on slot."""
        token = self._map.token(slot)
        with self._lock:
            return self._flying(token, offset) is not None

    def _begin(
        self, ranges: Iterable[tuple[int, int, int]], demand: bool, get_max: int = GET_MAX
    ) -> list[tuple[_Flight, int]]:
        """Flights that bring the absent units of `ranges`, each with the end that is wanted."""
        wanted: list[tuple[_Flight, int]] = []
        for slot, offset, length in ranges:
            for start, size in self._map.missing(slot, offset, length):
                wanted.extend(self._begin_run(slot, start, size, demand, get_max))
        return wanted

    def _begin_run(
        self, slot: int, start: int, size: int, demand: bool, get_max: int
    ) -> list[tuple[_Flight, int]]:
        wanted: dict[int, tuple[_Flight, int]] = {}
        end = start + size
        token = self._map.token(slot)
        with self._work:
            if self._closed:
                raise Stopped("The filespace is closed.")
            at = start
            while at < end:
                flight = self._flying(token, at)
                if flight is None:
                    if not demand and len(self._ahead) >= AHEAD_MAX:
                        break
                    stop = at
                    while stop < end and stop - at < get_max and self._flying(token, stop) is None:
                        stop = min(end, (stop // UNIT + 1) * UNIT)
                    self._flights += 1
                    flight = _Flight(self._flights, slot, at, stop - at, demand)
                    self._map.retain(slot)
                    for unit in range(at // UNIT, -(-stop // UNIT)):
                        self._units[token, unit] = flight
                    (self._demand if demand else self._ahead).append(flight)
                    self._work.notify()
                elif demand and not flight.demand:
                    self._promote(flight)
                at = min(end, flight.start + flight.length)
                wanted[id(flight)] = (flight, min(end, flight.start + flight.length))
        return list(wanted.values())

    def _flying(self, token: int, at: int) -> _Flight | None:
        """The flight that brings the unit at this offset. REQUIRES: lock held.

        One that has brought it already, into a cache that gave it up since, is of no use.
        """
        flight = self._units.get((token, at // UNIT))
        if flight is None or flight.data is not None:
            return flight
        begin = at // UNIT * UNIT
        end = min(begin + UNIT, flight.start + flight.length)
        landed = flight.arrived >= end - flight.start
        if landed and not self._map.is_present(flight.slot, begin, end - begin):
            return None
        return flight

    def _promote(self, flight: _Flight) -> None:
        """Somebody waits for what was only read ahead. REQUIRES: lock held."""
        flight.demand = True
        try:
            self._ahead.remove(flight)
        except ValueError:
            return  # It flies already.
        self._demand.append(flight)
        self._work.notify()

    def _wait(self, flight: _Flight, end: int, deadline: float) -> None:
        need = end - flight.start
        self._prepare(flight)
        with flight.news:
            while flight.arrived < need and not flight.done:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    self._is_silent = True
                    raise StoreUnavailable(
                        f"The store did not answer within {self._timeout_s:.0f} s. "
                        "The read can be tried again when it does."
                    )
                if not flight.news.wait(left if flight.has_twin else min(left, LOOK_S)):
                    self._hedge(flight)
            if flight.error is not None and flight.arrived < need:
                raise flight.error

    def _prepare(self, flight: _Flight) -> None:
        """Have the cache file made while its first bytes are on their way, if they are slow.

        REQUIRES: the caller holds a reference on the slot.
        """
        with flight.news:
            if flight.news.wait_for(lambda: flight.arrived or flight.done, AT_ONCE_S):
                return
        if not self._is_silent:
            self._cache.prepare(self._map.segment_id(flight.slot))

    def _hedge(self, flight: _Flight) -> None:
        """Ask for the same once more if the answer is late. REQUIRES: flight.news held."""
        slow_s = self._first_bytes.slow_s()
        if flight.arrived or flight.has_twin or not flight.begun or slow_s is None:
            return
        if self._clock.monotonic() - flight.begun < slow_s:
            return
        with self._work:
            # Where others wait too the store is busy, and more requests would not help it.
            if self._closed or self._demand or self._twins >= TWINS_MAX:
                return
            self._twins += 1
            self._flights += 1
            twin = _Flight(self._flights, flight.slot, flight.start, flight.length, True)
            twin.original, flight.has_twin = flight, True
            self._map.retain(flight.slot)
            self._demand.append(twin)
            self._work.notify()

    def wait_moved(self) -> None:
        """See SegmentCache.wait_moved."""
        self._cache.wait_moved()

    # -- flying

    def _run(self) -> None:
        while True:
            flight = self._next()
            if flight is None:
                return
            ahead = not flight.demand
            try:
                self._fly(flight)
            except Exception:
                # Who waits has been told. A worker less, each time, would be a drive that stands.
                log.exception("Making room in the cache failed; this is a bug in lucid")
            finally:
                with self._work:
                    if ahead:
                        self._ahead_running -= 1
                        self._work.notify()

    def _next(self) -> _Flight | None:
        with self._work:
            while True:
                if self._closed:
                    return None
                if self._demand:
                    return self._demand.popleft()
                if self._ahead and self._ahead_running < self._ahead_limit:
                    self._ahead_running += 1
                    return self._ahead.popleft()
                self._work.wait()

    def _fly(self, flight: _Flight) -> None:
        error: LucidError | None = None
        buffer: mmap.mmap | None = None
        keep = False
        self._memory.charge(flight.length)
        try:
            buffer = self._take_buffer()
            keep = self._get(flight, buffer)
        except LucidError as caught:
            error = caught
            self.problem = str(caught)
        except Exception as caught:
            log.exception("A fetch failed; this is a bug in lucid")
            error = InternalError(f"A fetch failed: {caught}")
        finally:
            self._memory.give(flight.length)
            self._land(flight, error)
            if buffer is not None and not keep:
                self._give_buffer(buffer)
        self._cache.make_room()

    def _get(self, flight: _Flight, buffer: mmap.mmap) -> bool:
        """Run one GET. True when the buffer now belongs to the waiters."""
        segment = self._map.segment_id(flight.slot)
        store = self._store if flight.demand else self._background
        flight.begun = self._clock.monotonic()
        fd: int | None = None
        filled = 0
        keep = opened = False
        with memoryview(buffer) as whole, whole[: flight.length] as view:

            def arrived(so_far: int) -> None:
                nonlocal fd, filled, keep, opened
                self._is_silent = False
                if not opened:
                    # Not before: making a file takes time, and the request should be on its way.
                    opened = True
                    self._first_bytes.note(self._clock.monotonic() - flight.begun)
                    fd = self._cache.open_for_fill(segment)
                    keep = fd is None
                last = so_far >= flight.length
                upto = so_far if last else so_far // UNIT * UNIT
                if upto - filled < (UNIT if flight.demand else FILL_STEP) and not last:
                    return
                if upto > filled:
                    if not keep and fd is not None:
                        with view[filled:upto] as part:
                            keep = not self._cache.fill(
                                fd, flight.slot, flight.start + filled, part
                            )
                    filled = upto
                    self._tell(flight, upto, buffer if keep else None)

            try:
                count = store.get_into(segment_key(segment), flight.start, view, arrived)
            except ObjectMissing as error:
                raise _gone(segment) from error
            finally:
                if fd is not None:
                    self._cache.close_fill(fd)
            self.bytes_fetched += count
            if count < flight.length:
                raise _cut_short(segment)
            if filled < flight.length:
                arrived(flight.length)
        self.problem = ""
        return keep

    def _tell(self, flight: _Flight, arrived: int, data: mmap.mmap | None) -> None:
        with flight.news:
            flight.arrived = max(flight.arrived, arrived)
            if data is not None:
                flight.held = arrived
                flight.data = data
            flight.news.notify_all()
        if flight.original is not None and data is None:
            self._tell(flight.original, arrived, None)

    def _land(self, flight: _Flight, error: LucidError | None) -> None:
        token = self._map.token(flight.slot)
        with self._lock:
            for unit in range(flight.start // UNIT, -(-(flight.start + flight.length) // UNIT)):
                if self._units.get((token, unit)) is flight:
                    del self._units[token, unit]
            self._twins -= flight.original is not None
        with flight.news:
            flight.done = True
            flight.error = error
            flight.news.notify_all()
        self._map.release(flight.slot)

    def _take_buffer(self) -> mmap.mmap:
        """GET_MAX bytes. Pages that nothing was written to take no memory and no time."""
        with self._lock:
            if self._spare:
                return self._spare.pop()
        return mmap.mmap(-1, GET_MAX)

    def _give_buffer(self, buffer: mmap.mmap) -> None:
        with self._lock:
            if len(self._spare) < SPARE_BUFFERS:
                self._spare.append(buffer)

    def close(self) -> None:
        """End the workers; waiters get Stopped."""
        with self._work:
            self._closed = True
            waiting = [*self._demand, *self._ahead]
            self._demand.clear()
            self._ahead.clear()
            self._work.notify_all()
        for flight in waiting:
            self._land(flight, Stopped("The filespace is closed."))
        for thread in self._threads:
            thread.join()


def _gone(segment: bytes) -> CorruptObject:
    return CorruptObject(
        f"Segment {segment.hex()[:16]} is not in the store; the file cannot be read."
    )


def _cut_short(segment: bytes) -> CorruptObject:
    return CorruptObject(f"Segment {segment.hex()[:16]} was cut short in the store.")
