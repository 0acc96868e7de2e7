"""A way to the log that a test opens and shuts: what waits before it is delayed, not refused.

While it is shut a filespace commits nothing and hears of nothing, and all else of the store
answers. So a test says who comes first into the log, and who hears of it when.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from lucid.errors import Stopped
from lucid.format.names import LOG_PREFIX
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer

__all__ = ["Gate", "GatedStore"]


class Gate:
    """Open or shut. Shared by a store and its background view."""

    def __init__(self, is_open: bool = True) -> None:
        self._way = threading.Event()
        self._stopped = threading.Event()
        if is_open:
            self._way.set()

    def open(self) -> None:
        self._way.set()

    def shut(self) -> None:
        self._way.clear()

    def stop(self) -> None:
        """Whoever waits here ends with Stopped."""
        self._stopped.set()
        self._way.set()

    def wait(self, key: str) -> None:
        if key.startswith(LOG_PREFIX):
            self._way.wait()
            if self._stopped.is_set():
                raise Stopped("The connection to the store is closed.")


class GatedStore(StoreLayer):
    """Another store whose log lies behind a gate."""

    def __init__(self, inner: ObjectStore, gate: Gate) -> None:
        super().__init__(inner)
        self.gate = gate

    def over(self, inner: ObjectStore) -> ObjectStore:
        return GatedStore(inner, self.gate)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.gate.wait(key)
        return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        self.gate.wait(key)
        return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        self.gate.wait(key)
        self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self.gate.wait(prefix)
        return self.inner.list(prefix, start_after, limit)

    def close(self) -> None:
        self.gate.stop()
        super().close()
