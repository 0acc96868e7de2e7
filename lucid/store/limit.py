"""A store that serves at most so many requests at once, and keeps places free for demand reads.

Owns the places. Calls wait on their own thread, for a bounded time. Somebody waits for a demand
read; nobody for read-ahead, uploads and housekeeping, which go through `background()` and leave
`reserved` places alone. When a place comes free, a waiting demand call has it first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from lucid.errors import Stopped, StoreUnavailable
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer

__all__ = ["LimitStore", "Places"]


class Places:
    """Places for requests under way. One lock guards all fields; two conditions share it."""

    def __init__(self, total: int, reserved: int, *, wait_s: float = 30.0) -> None:
        """`reserved` of `total` places are for demand calls only; a wait ends after `wait_s`."""
        if not 0 <= reserved < total:
            raise ValueError("of all places at least one must be open to background calls")
        self.total = total
        self.reserved = reserved
        self._wait_s = wait_s
        lock = threading.Lock()
        self._demand = threading.Condition(lock)
        self._background = threading.Condition(lock)
        self._demand_waiting = 0
        self._used = 0
        self._closed = False

    @property
    def used(self) -> int:
        """Requests under way."""
        with self._demand:
            return self._used

    def take(self, *, is_demand: bool) -> None:
        """Wait for a place. Raises StoreUnavailable when the wait is over, Stopped once closed."""
        condition = self._demand if is_demand else self._background
        with condition:
            self._demand_waiting += is_demand
            try:
                if not condition.wait_for(lambda: self._is_free(is_demand), self._wait_s):
                    raise StoreUnavailable(
                        f"All {self.total} requests to the store were busy for {self._wait_s:g} s. "
                        "Try again when it is quicker."
                    )
            finally:
                self._demand_waiting -= is_demand
            if self._closed:
                raise Stopped("The connection to the store is closed.")
            self._used += 1

    def give(self) -> None:
        """Give a place back."""
        with self._demand:
            self._used -= 1
            if self._demand_waiting:
                self._demand.notify()
            else:
                self._background.notify()

    def close(self) -> None:
        """End all waits with Stopped."""
        with self._demand:
            self._closed = True
            self._demand.notify_all()
            self._background.notify_all()

    def _is_free(self, is_demand: bool) -> bool:
        if self._closed:
            return True
        if is_demand:
            return self._used < self.total
        return self._used < self.total - self.reserved and not self._demand_waiting


class _Place:
    """One place, for the length of a with block."""

    def __init__(self, places: Places, is_demand: bool) -> None:
        self._places = places
        self._is_demand = is_demand

    def __enter__(self) -> None:
        self._places.take(is_demand=self._is_demand)

    def __exit__(self, *_: object) -> None:
        self._places.give()


class LimitStore(StoreLayer):
    """Takes a place for each call. As made it serves demand calls; `background()` gives the other.

    A list holds a place while it asks for the next object, not while its reader works on one.
    """

    def __init__(self, inner: ObjectStore, places: Places, *, is_demand: bool = True) -> None:
        super().__init__(inner)
        self.places = places
        self._is_demand = is_demand

    def background(self) -> ObjectStore:
        return LimitStore(self.inner.background(), self.places, is_demand=False)

    def over(self, inner: ObjectStore) -> ObjectStore:
        return LimitStore(inner, self.places, is_demand=self._is_demand)

    def _place(self) -> _Place:
        return _Place(self.places, self._is_demand)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._place():
            return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        with self._place():
            return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        with self._place():
            self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self._list(self.inner.list(prefix, start_after, limit))

    def _list(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        while True:
            with self._place():
                info = next(found, None)
            if info is None:
                return
            yield info

    def delete(self, keys: Iterable[str]) -> None:
        with self._place():
            self.inner.delete(keys)

    def stat(self, key: str) -> ObjectInfo:
        with self._place():
            return self.inner.stat(key)

    def date_ns(self) -> int:
        with self._place():
            return self.inner.date_ns()

    def check(self) -> None:
        with self._place():
            self.inner.check()

    def close(self) -> None:
        self.places.close()
        super().close()
