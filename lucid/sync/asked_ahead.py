"""Answers of the store that are asked for together, before they are needed one after the other.

Who opens a filespace knows most of what it will ask, and each answer is a round trip away. Owns up
to six threads, which begin with the first question. Asked by the thread that opens a filespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from lucid.store.base import ObjectInfo, ObjectStore, StoreLayer

__all__ = ["AskedAhead"]

WIDTH = 6


class AskedAhead(StoreLayer):
    """Passes every call on, but for what was asked ahead: its answer serves one call, of the very
    same arguments, and an error is raised there. Whoever asks again asks the store."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._threads = ThreadPoolExecutor(WIDTH, thread_name_prefix="lucid-asked")
        self._gets: dict[tuple[str, int, int | None], Future[bytes]] = {}
        self._lists: dict[tuple[str, str, int | None], Future[list[ObjectInfo]]] = {}

    def over(self, inner: ObjectStore) -> ObjectStore:
        return inner  # Nobody waits for those calls.

    def ask(self, key: str, length: int) -> None:
        """`get(key, 0, length)` will follow."""
        self._gets[key, 0, length] = self._threads.submit(self.inner.get, key, 0, length)

    def ask_list(self, prefix: str, start_after: str = "", limit: int | None = None) -> None:
        """`list` with these arguments will follow."""

        def listed() -> list[ObjectInfo]:
            return list(self.inner.list(prefix, start_after, limit))

        self._lists[prefix, start_after, limit] = self._threads.submit(listed)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        future = self._gets.pop((key, start, length), None)
        return self.inner.get(key, start, length) if future is None else future.result()

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        future = self._lists.pop((prefix, start_after, limit), None)
        if future is None:
            return self.inner.list(prefix, start_after, limit)
        return _answered(future)

    def end(self) -> None:
        """Forget what nobody came for. A call that hangs is not waited for: it ends by its
        time-outs, or when the store is closed."""
        for futures in (self._gets, self._lists):
            for future in futures.values():
                future.cancel()
            futures.clear()
        self._threads.shutdown(wait=False)


def _answered(future: Future[list[ObjectInfo]]) -> Iterator[ObjectInfo]:
    """Lazy, as a list of the store is: what it raises comes with the first object."""
    yield from future.result()
