"""The contract that every object store keeps, and the layer that the decorators are made from.

Owns `ObjectStore`, the form of a key, and the counters. Every method may be called from any number
of threads at once. The conformance suite in tests/contract holds each line of it against each
store, bare and under the whole stack.

What all stores have in common:

- No object is ever overwritten: `put_if_absent` is the only way in.
- A read range that reaches past the end gives what is there; one that begins past it is empty.
- No reference to a caller's buffer is kept once a call has returned or raised.
- A call is bounded in time (stores have time-outs), and what fails is one of `lucid.errors`.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from lucid.errors import UsageError

__all__ = [
    "KEY_LENGTH_MAX",
    "Body",
    "Buffer",
    "Count",
    "Counters",
    "ObjectInfo",
    "ObjectStore",
    "OnData",
    "StoreLayer",
    "as_views",
    "check_key",
    "check_prefix",
    "check_range",
]

Buffer: TypeAlias = "bytes | bytearray | memoryview"
Body: TypeAlias = "Buffer | Sequence[Buffer]"
OnData: TypeAlias = Callable[[int], None]

KEY_LENGTH_MAX = 512
"""S3 allows 1,024 bytes with the prefix of the store; ours are under 100."""

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ObjectInfo:
    """What a store tells of an object without its bytes. `modified_ns` is by the store's clock."""

    key: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Count:
    """Requests of one kind, and the bytes of object bodies they moved."""

    requests: int = 0
    sent: int = 0
    received: int = 0


class Counters:
    """Requests by method since the store was opened: get, put, list, delete, stat, date.

    They are counted where the request leaves the process, so that a read-back after a doubtful put
    and each page of a list are requests of their own. Guarded by its lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Count] = {}

    def add(self, method: str, *, sent: int = 0, received: int = 0, requests: int = 1) -> None:
        """Count `requests` requests of `method` and the bytes they moved."""
        with self._lock:
            old = self._counts.get(method, Count())
            self._counts[method] = Count(
                old.requests + requests, old.sent + sent, old.received + received
            )

    def of(self, method: str) -> Count:
        """The count of one method so far."""
        with self._lock:
            return self._counts.get(method, Count())

    def snapshot(self) -> dict[str, Count]:
        """All counts so far, by method."""
        with self._lock:
            return dict(self._counts)

    @property
    def requests(self) -> int:
        """Requests of every kind so far."""
        return sum(count.requests for count in self.snapshot().values())


def check_key(key: str) -> str:
    """Return `key`, or raise UsageError: parts of [A-Za-z0-9._-] joined by '/'.

    No part begins with a dot: neither '..' nor a hidden file of the directory store has a key.
    """
    if len(key) <= KEY_LENGTH_MAX and all(_PART.fullmatch(part) for part in key.split("/")):
        return key
    raise UsageError(f"{key} cannot be the name of an object.")


def check_prefix(prefix: str) -> str:
    """Return `prefix`: empty, or the beginning of a possible key. Raises UsageError."""
    if prefix:
        check_key(prefix[:-1] if prefix.endswith("/") else prefix)
    return prefix


def check_range(start: int, length: int | None) -> None:
    """Raise UsageError for a range that cannot be."""
    if start < 0 or (length is not None and length < 0):
        raise UsageError(f"A range cannot begin at {start} and be {length} bytes long.")


@contextmanager
def as_views(body: Body) -> Iterator[Sequence[memoryview]]:
    """The buffers of a body as flat views of bytes, empty ones left out; released at the end.

    Released by hand: an exception would keep them alive with its traceback, and a bytearray that
    is viewed cannot be resized.
    """
    parts = [body] if isinstance(body, (bytes, bytearray, memoryview)) else body
    views: list[memoryview] = []
    try:
        for part in parts:
            with memoryview(part) as whole:
                if whole.nbytes:
                    views.append(whole.cast("B"))
        yield views
    finally:
        for view in views:
            view.release()


class ObjectStore(ABC):
    """Immutable objects under ASCII names. Safe from many threads.

    All methods raise StoreDenied (credentials), BucketMissing, or StoreUnavailable (retryable)
    where the store cannot serve them, Stopped after close(), and UsageError for impossible names.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is, as the user wrote it; holds no secret."""

    @property
    @abstractmethod
    def counters(self) -> Counters:
        """Requests made so far."""

    @abstractmethod
    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Up to `length` bytes from `start` (all by default). Raises ObjectMissing.

        A length of 0 asks nothing of the store and is empty.
        """

    @abstractmethod
    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        """Read the range of `buffer`'s length from `start` into it; return how many bytes came.

        `on_data(so_far)` is called on this thread as the body arrives; so_far only grows, and the
        last call tells the whole. What it raises ends the read. Raises ObjectMissing. After an
        error the buffer holds the bytes told so far, and rubbish behind them.
        """

    @abstractmethod
    def put_if_absent(self, key: str, body: Body) -> None:
        """Store `body` under `key`, where nothing is yet.

        Returns only if the store holds exactly these bytes under this name. Raises ObjectExists if
        other bytes have the name. Whoever gets StoreUnavailable or StoreConflict knows nothing: the
        object may be there, or still arrive. To ask again with the same bytes is always safe, with
        other bytes under the same name never.
        """

    @abstractmethod
    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with `prefix` and come after `start_after`; at most `limit`.

        In order of bytes within each folder. Whether `a-b` or `a/b` comes first is the store's
        affair: S3 and the stores here compare whole keys, SeaweedFS walks folders. Lazy: it asks
        page by page while it is iterated. What is put or deleted meanwhile may or may not be seen.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete these objects. A key that is not there is no error.

        If some could not be deleted, all others were tried before the error was raised.
        """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size and time of an object. Raises ObjectMissing."""

    @abstractmethod
    def date_ns(self) -> int:
        """Ask the store for its clock: ns since 1970 UTC. S3 tells whole seconds."""

    @property
    @abstractmethod
    def last_date_ns(self) -> int | None:
        """The store's clock as its latest answer told it, or None before the first one."""

    @abstractmethod
    def check(self) -> None:
        """Ask the store whether it is there and lets us in; the errors say what to do next."""

    def warm(self) -> None:  # noqa: B027  (most stores have no connections)
        """Open a connection if none is idle, so that the next read finds one. Never raises."""

    def background(self) -> ObjectStore:
        """This store for calls nobody waits for: read-ahead, uploads, housekeeping.

        Under a limit they leave some places to demand reads. It is closed with the store.
        """
        return self

    def lifecycle_warnings(self) -> Sequence[str]:
        """Sentences about rules of the store that may delete or move our objects."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Give back connections and descriptors; running calls end with Stopped. Idempotent."""


class StoreLayer(ObjectStore):
    """A store that passes every call on. Decorators override what they change."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def counters(self) -> Counters:
        return self.inner.counters

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, start_after, limit)

    def delete(self, keys: Iterable[str]) -> None:
        self.inner.delete(keys)

    def stat(self, key: str) -> ObjectInfo:
        return self.inner.stat(key)

    def date_ns(self) -> int:
        return self.inner.date_ns()

    @property
    def last_date_ns(self) -> int | None:
        return self.inner.last_date_ns

    def check(self) -> None:
        self.inner.check()

    def warm(self) -> None:
        self.inner.warm()

    def background(self) -> ObjectStore:
        inner = self.inner.background()
        return self if inner is self.inner else self.over(inner)

    @abstractmethod
    def over(self, inner: ObjectStore) -> ObjectStore:
        """This layer over another store, sharing what it counts and limits."""

    def lifecycle_warnings(self) -> Sequence[str]:
        return self.inner.lifecycle_warnings()

    def close(self) -> None:
        self.inner.close()
