"""A store in memory, for tests.

A `Bucket` holds the objects and is shared by any number of `MemoryStore`s: one bucket and a store
for each client makes several machines in one process. Any thread may call; the bucket's lock is
held for dictionary work only.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Iterator, Sequence

from lucid.errors import ObjectExists, ObjectMissing, Stopped
from lucid.store.base import (
    Body,
    Counters,
    ObjectInfo,
    ObjectStore,
    OnData,
    as_views,
    check_key,
    check_prefix,
    check_range,
)
from lucid.store.settle import settle_put
from lucid.types import Clock, SystemClock

__all__ = ["Bucket", "MemoryStore"]

LIST_PAGE = 1000
"""Objects a list asks for at a time, as S3 does."""


class Bucket:
    """The objects. `keys` is sorted; both are guarded by `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.keys: list[str] = []


class MemoryStore(ObjectStore):
    """One client's store over a shared bucket."""

    def __init__(
        self, bucket: Bucket | None = None, *, clock: Clock | None = None, name: str = "test"
    ) -> None:
        self.bucket = bucket or Bucket()
        self._clock = clock or SystemClock()
        self._url = f"memory://{name}"
        self._counters = Counters()
        self._last_date_ns: int | None = None
        self._closed = False

    @property
    def url(self) -> str:
        return self._url

    @property
    def counters(self) -> Counters:
        return self._counters

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        self._enter(key)
        if length == 0:
            return b""
        end = None if length is None else start + length
        data = self._fetch(key)[0][start:end]
        self._counters.add("get", received=len(data))
        return data

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        with memoryview(buffer).cast("B") as view:
            data = self.get(key, start, len(view))
            view[: len(data)] = data
        if on_data is not None and data:
            on_data(len(data))
        return len(data)

    def put_if_absent(self, key: str, body: Body) -> None:
        self._enter(key)
        with as_views(body) as views:
            data = b"".join(views)
            self._counters.add("put", sent=len(data))
            settle_put(
                key,
                views,
                lambda: self._put(key, data),
                lambda limit: self.get(key, 0, limit),
            )

    def _put(self, key: str, data: bytes) -> None:
        with self.bucket.lock:
            if key in self.bucket.objects:
                raise ObjectExists(f"{key} is in the store already.")
            self.bucket.objects[key] = (data, self._now())
            bisect.insort(self.bucket.keys, key)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._pages(prefix, start_after, limit)

    def _pages(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        while limit is None or limit > 0:
            self._enter("list")
            self._counters.add("list")
            size = LIST_PAGE if limit is None else min(limit, LIST_PAGE)
            page = self._page(prefix, after, size)
            yield from page
            if len(page) < size:
                return
            after = page[-1].key
            limit = None if limit is None else limit - size

    def _page(self, prefix: str, after: str, size: int) -> Sequence[ObjectInfo]:
        page = []
        with self.bucket.lock:
            keys = self.bucket.keys
            at = max(bisect.bisect_left(keys, prefix), bisect.bisect_right(keys, after))
            for key in keys[at : at + size]:
                if not key.startswith(prefix):
                    break
                data, modified_ns = self.bucket.objects[key]
                page.append(ObjectInfo(key, len(data), modified_ns))
            self._now()
        return page

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self._enter(key)
            self._counters.add("delete")
            with self.bucket.lock:
                if self.bucket.objects.pop(key, None) is not None:
                    del self.bucket.keys[bisect.bisect_left(self.bucket.keys, key)]

    def stat(self, key: str) -> ObjectInfo:
        self._enter(key)
        self._counters.add("stat")
        data, modified_ns = self._fetch(key)
        return ObjectInfo(key, len(data), modified_ns)

    def date_ns(self) -> int:
        self._enter("date")
        self._counters.add("date")
        return self._now()

    @property
    def last_date_ns(self) -> int | None:
        return self._last_date_ns

    def check(self) -> None:
        self._enter("check")

    def close(self) -> None:
        self._closed = True

    def _fetch(self, key: str) -> tuple[bytes, int]:
        with self.bucket.lock:
            self._now()
            found = self.bucket.objects.get(key)
        if found is None:
            raise ObjectMissing(f"{key} is not in the store.")
        return found

    def _now(self) -> int:
        self._last_date_ns = self._clock.time_ns()
        return self._last_date_ns

    def _enter(self, key: str) -> None:
        if self._closed:
            raise Stopped("The connection to the store is closed.")
        check_key(key)
