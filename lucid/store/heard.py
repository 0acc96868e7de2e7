"""When the store was last heard of, and how long it has been asked in vain.

A request that hangs fails only after its time-outs and tries; this tells of it before that. Owns no
thread. Any thread may call; `Heard` is guarded by its lock, which is held over nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lucid.errors import LucidError, ObjectExists, ObjectMissing, StoreConflict
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.types import Clock

__all__ = ["Heard", "HeardStore"]

_ANSWERS = (ObjectMissing, ObjectExists, StoreConflict)
"""Errors that are good answers."""


class Heard:
    """What is known of one store's answers. Times in seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way = 0
        self._asked_at: float | None = None
        self._answered_at: float | None = None

    @property
    def age_s(self) -> float | None:
        """How long ago the last good answer came, or a part of one; None: there was none yet."""
        with self._lock:
            at = self._answered_at
        return None if at is None else max(0.0, self._clock.monotonic() - at)

    @property
    def silent_s(self) -> float:
        """How long requests have been under way without any answer; 0 when none is."""
        with self._lock:
            at = self._asked_at
        return 0.0 if at is None else max(0.0, self._clock.monotonic() - at)

    def answered(self) -> None:
        """The store has said something."""
        now = self._clock.monotonic()
        with self._lock:
            self._answered_at = now
            if self._asked_at is not None:
                self._asked_at = now

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around one request."""
        with self._lock:
            self._under_way += 1
            if self._asked_at is None:
                self._asked_at = self._clock.monotonic()
        try:
            yield
        except LucidError as error:
            if isinstance(error, _ANSWERS):
                self.answered()
            raise
        else:
            self.answered()
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self._asked_at = None


class HeardStore(StoreLayer):
    """Notes the answers to all calls. Lies over the retries: a call is one request to its end."""

    def __init__(self, inner: ObjectStore, heard: Heard) -> None:
        super().__init__(inner)
        self._heard = heard

    def over(self, inner: ObjectStore) -> ObjectStore:
        return HeardStore(inner, self._heard)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._heard.asking():
            return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        def came(count: int) -> None:
            self._heard.answered()
            if on_data is not None:
                on_data(count)

        with self._heard.asking():
            return self.inner.get_into(key, start, buffer, came)

    def put_if_absent(self, key: str, body: Body) -> None:
        with self._heard.asking():
            self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self._list(self.inner.list(prefix, start_after, limit))

    def _list(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        while True:
            with self._heard.asking():
                info = next(found, None)
            if info is None:
                return
            yield info

    def delete(self, keys: Iterable[str]) -> None:
        with self._heard.asking():
            self.inner.delete(keys)

    def stat(self, key: str) -> ObjectInfo:
        with self._heard.asking():
            return self.inner.stat(key)

    def date_ns(self) -> int:
        with self._heard.asking():
            return self.inner.date_ns()

    def check(self) -> None:
        with self._heard.asking():
            self.inner.check()
