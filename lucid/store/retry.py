"""A store that tries again: after a fault that may pass, with a growing and random pause.

Owns no thread and no connection; it waits on the caller's thread. A call ends when it succeeds,
when its error is not `retryable`, after `attempts`, or when its time is over; whoever sets `stop`
ends all waits at once. Everything here may be repeated safely: objects never change, a put that had
been stored unseen is recognised by its bytes, and a delete may find nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from lucid.errors import SlowDown, Stopped, StoreError
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["RetryPolicy", "RetryStore"]

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long, how often, and with what pauses.

    The pause before attempt n+1 is a random part of `base_s` * 2**n, at most `cap_s`: full jitter,
    so that many clients of a store that comes back do not come back together. A store that asks
    for fewer requests gets four times the pause. No attempt begins after `deadline_s`; one that
    runs may take its own time-out longer.
    """

    deadline_s: float = 30.0
    attempts: int = 10
    base_s: float = 0.05
    cap_s: float = 5.0
    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = SystemEntropy
    stop: threading.Event = field(default_factory=threading.Event)
    wait: Callable[[float], bool] | None = None
    """Waits so many seconds and tells whether to stop. By default on `stop`."""

    def pause_s(self, attempt: int, error: StoreError) -> float:
        """Seconds to wait after the failure of attempt number `attempt`, from 0."""
        longest: float = min(self.cap_s, self.base_s * 2 ** min(attempt, 30))
        if isinstance(error, SlowDown):
            longest = min(self.cap_s, 4 * longest)
        return longest * int.from_bytes(self.entropy(4), "big") / 2**32

    def stops_in(self, seconds: float) -> bool:
        """Wait; true if everything is to stop."""
        return self.wait(seconds) if self.wait is not None else self.stop.wait(seconds)


class RetryStore(StoreLayer):
    """Tries calls of another store again."""

    def __init__(self, inner: ObjectStore, policy: RetryPolicy | None = None) -> None:
        super().__init__(inner)
        self.policy = policy or RetryPolicy()

    def over(self, inner: ObjectStore) -> ObjectStore:
        return RetryStore(inner, self.policy)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._again(lambda: self.inner.get(key, start, length))

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        """Goes on behind the bytes that have come: an object never changes."""
        done = told = 0

        def tell(count: int) -> None:
            nonlocal told
            told = done + count
            if on_data is not None:
                on_data(told)

        with memoryview(buffer) as whole, whole.cast("B") as view:

            def attempt() -> int:
                nonlocal done
                done = told
                with view[done:] as rest:
                    return done + self.inner.get_into(key, start + done, rest, tell)

            return self._again(attempt)

    def put_if_absent(self, key: str, body: Body) -> None:
        self._again(lambda: self.inner.put_if_absent(key, body))

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        """Goes on after the last object it gave. Each object that comes renews the attempts."""
        after, left = start_after, limit
        found = self.inner.list(prefix, after, left)

        def step() -> ObjectInfo | None:
            nonlocal found
            try:
                return next(found, None)
            except StoreError:
                # A generator that has raised is spent.
                found = self.inner.list(prefix, after, left)
                raise

        while (info := self._again(step)) is not None:
            after = info.key
            left = None if left is None else left - 1
            yield info

    def delete(self, keys: Iterable[str]) -> None:
        names = tuple(keys)
        self._again(lambda: self.inner.delete(names))

    def stat(self, key: str) -> ObjectInfo:
        return self._again(lambda: self.inner.stat(key))

    def date_ns(self) -> int:
        return self._again(self.inner.date_ns)

    def check(self) -> None:
        self._again(self.inner.check)

    def close(self) -> None:
        self.policy.stop.set()
        super().close()

    def _again(self, call: Callable[[], T]) -> T:
        """Run `call` until it succeeds or nothing is left to try."""
        policy = self.policy
        begun = policy.clock.monotonic()
        attempt = 0
        while True:
            try:
                return call()
            except StoreError as error:
                if not error.retryable:
                    raise
                pause_s = policy.pause_s(attempt, error)
                attempt += 1
                spent_s = policy.clock.monotonic() - begun
                if attempt >= policy.attempts or spent_s + pause_s > policy.deadline_s:
                    raise
                if policy.stops_in(pause_s):
                    raise Stopped("The connection to the store is closed.") from error
