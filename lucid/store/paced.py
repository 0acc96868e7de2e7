"""A store for work that nobody waits for: a rest before each request, and an end at any moment.

`rest` decides how long, and raises what ends the work. A request that is under way ends when the
store is closed. Calls run on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer

__all__ = ["PacedStore"]

LISTED = 250
"""Objects of a list between two rests: a request brings up to 1,000."""
DELETED = 250
"""Objects that are deleted between two rests."""


class PacedStore(StoreLayer):
    """See the module."""

    def __init__(self, inner: ObjectStore, rest: Callable[[], None]) -> None:
        super().__init__(inner)
        self._rest = rest

    def over(self, inner: ObjectStore) -> ObjectStore:
        return PacedStore(inner, self._rest)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._rest()
        return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        self._rest()
        return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        self._rest()
        self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self._list(self.inner.list(prefix, start_after, limit))

    def _list(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        self._rest()
        for count, info in enumerate(found, 1):
            if not count % LISTED:
                self._rest()
            yield info

    def delete(self, keys: Iterable[str]) -> None:
        waiting = list(keys)
        for start in range(0, len(waiting), DELETED):
            self._rest()
            self.inner.delete(waiting[start : start + DELETED])

    def stat(self, key: str) -> ObjectInfo:
        self._rest()
        return self.inner.stat(key)

    def date_ns(self) -> int:
        self._rest()
        return self.inner.date_ns()
