"""A store that measures its calls: how many, how long, how they ended. For status and benchmarks.

Owns the figures. Calls run on the caller's thread, and so does the optional callback, which must be
quick. Keys are told, bodies never.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lucid.errors import LucidError
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer, as_views
from lucid.types import Clock, SystemClock

__all__ = ["Call", "Figures", "Latency", "TraceStore"]

BUCKETS = 16
"""Bucket n counts calls under 2**n ms; the last one also the longer ones."""


@dataclass
class Call:
    """One call that has ended. `size` is bytes of the body, or objects of a page."""

    method: str
    key: str
    size: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Latency:
    """All calls of one method so far."""

    calls: int = 0
    errors: int = 0
    bytes: int = 0
    seconds: float = 0.0
    seconds_max: float = 0.0
    buckets: tuple[int, ...] = (0,) * BUCKETS

    def after(self, call: Call) -> Latency:
        """The same with one more call."""
        at = min(BUCKETS - 1, int(call.seconds * 1000).bit_length())
        return Latency(
            self.calls + 1,
            self.errors + (call.error is not None),
            self.bytes + call.size,
            self.seconds + call.seconds,
            max(self.seconds_max, call.seconds),
            (*self.buckets[:at], self.buckets[at] + 1, *self.buckets[at + 1 :]),
        )


class Figures:
    """Latencies by method. Guarded by its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies: dict[str, Latency] = {}

    def add(self, call: Call) -> None:
        """Count a call that has ended."""
        with self._lock:
            self._latencies[call.method] = self._latencies.get(call.method, Latency()).after(call)

    def snapshot(self) -> dict[str, Latency]:
        """The latencies so far, by method."""
        with self._lock:
            return dict(self._latencies)


class TraceStore(StoreLayer):
    """Measures each call. An object that is missing or exists already counts as an answer."""

    def __init__(
        self,
        inner: ObjectStore,
        *,
        clock: Clock | None = None,
        on_call: Callable[[Call], None] | None = None,
        figures: Figures | None = None,
    ) -> None:
        super().__init__(inner)
        self.figures = figures or Figures()
        self._clock = clock or SystemClock()
        self._on_call = on_call

    def over(self, inner: ObjectStore) -> ObjectStore:
        return TraceStore(inner, clock=self._clock, on_call=self._on_call, figures=self.figures)

    @contextmanager
    def _measured(self, method: str, key: str) -> Iterator[Call]:
        call = Call(method, key)
        begun = self._clock.monotonic()
        try:
            yield call
        except BaseException as error:
            call.error = type(error).__name__ if isinstance(error, LucidError) else "bug"
            raise
        finally:
            call.seconds = self._clock.monotonic() - begun
            self.figures.add(call)
            if self._on_call is not None:
                self._on_call(call)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._measured("get", key) as call:
            data = self.inner.get(key, start, length)
            call.size = len(data)
            return data

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        with self._measured("get", key) as call:
            call.size = self.inner.get_into(key, start, buffer, on_data)
            return call.size

    def put_if_absent(self, key: str, body: Body) -> None:
        with self._measured("put", key) as call:
            with as_views(body) as views:
                call.size = sum(len(view) for view in views)
            self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self._list(prefix, self.inner.list(prefix, start_after, limit))

    def _list(self, prefix: str, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Measures up to the first object: what comes after depends on the reader."""
        with self._measured("list", prefix):
            first = next(found, None)
        if first is not None:
            yield first
            yield from found

    def delete(self, keys: Iterable[str]) -> None:
        names = tuple(keys)
        with self._measured("delete", names[0] if names else ""):
            self.inner.delete(names)

    def stat(self, key: str) -> ObjectInfo:
        with self._measured("stat", key):
            return self.inner.stat(key)

    def date_ns(self) -> int:
        with self._measured("date", ""):
            return self.inner.date_ns()

    def check(self) -> None:
        with self._measured("check", ""):
            self.inner.check()
