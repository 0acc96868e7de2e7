"""A store that fails on purpose, by script or by seed. For tests, and shipped so that others can.

Owns the list of faults to come. Faults happen on the caller's thread. What is not asked to fail is
passed on.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lucid.errors import SlowDown, Stopped, StoreConflict, StoreUnavailable
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.types import Entropy

__all__ = ["Fault", "FaultPlan", "FaultyStore"]


class Fault(enum.Enum):
    """What goes wrong with one call."""

    REFUSE = "503 before anything is done"
    BUSY = "409: another write of this name is under way"
    LOSE_ANSWER = "done, and then 503"
    RESET = "the connection is reset in the middle of the body"
    TRUNCATE = "the body ends early and looks whole"
    WRONG_BYTES = "one bit of the body is flipped"
    STALE_LIST = "the list lacks the newest objects"
    VANISH = "the object is missing, although it is there"
    HANG = "no answer until the plan is released, and then 503"
    PAUSE = "no answer until the plan is released, and then all is well"


@dataclass
class FaultPlan:
    """Which calls fail. Shared by a store and its background view; guarded by its lock.

    `script(method, ...)` says what the next calls of a method do, None standing for "goes well";
    then `rates` decides by `entropy`: chances from 0 to 1 by fault, tried in order.
    """

    entropy: Entropy | None = None
    rates: Mapping[Fault, float] = field(default_factory=dict)
    hang_s: float = 60.0
    """Seconds after which a hung call gives up although nobody released it."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: dict[str, list[tuple[str, Fault | None]]] = {}
        self._is_dead = False
        self._released = threading.Event()
        self._stopped = threading.Event()
        self.hanging = threading.Semaphore(0)
        """Released once by each call that begins to hang: a test waits here for it."""
        self.happened: list[tuple[str, str, Fault]] = []
        """Faults so far: method, key, fault. Kept for a test's life."""

    def script(self, method: str, faults: Sequence[Fault | None], *, prefix: str = "") -> None:
        """Let the next calls of `method` on keys below `prefix` meet these, one each."""
        with self._lock:
            self._scripts.setdefault(method, []).extend((prefix, fault) for fault in faults)

    def die(self) -> None:
        """From now on every call fails as if the network were gone."""
        with self._lock:
            self._is_dead = True

    def revive(self) -> None:
        """Undo `die`."""
        with self._lock:
            self._is_dead = False

    def release(self) -> None:
        """Let the calls go on that hang or pause, and those that will."""
        self._released.set()

    def stop(self) -> None:
        """End hanging calls with Stopped."""
        self._stopped.set()
        self._released.set()

    def next(self, method: str, key: str) -> Fault | None:
        """What happens to this call. Raises what needs no store at all."""
        with self._lock:
            if self._is_dead:
                raise StoreUnavailable(f"The store is cut off (while {method}).")
            fault = self._scripted(method, key)
            if fault is None:
                fault = self._drawn()
            if fault is not None:
                self.happened.append((method, key, fault))
        if fault is Fault.REFUSE:
            raise SlowDown(f"The store asks for fewer requests (while {method}).")
        if fault is Fault.BUSY:
            raise StoreConflict("The store is busy with another write of this object.")
        if fault in (Fault.HANG, Fault.PAUSE):
            self._hang(fault, method)
        return fault

    def _scripted(self, method: str, key: str) -> Fault | None:
        """Take the first step that fits. REQUIRES: `_lock` held."""
        steps = self._scripts.get(method, [])
        for at, (prefix, fault) in enumerate(steps):
            if key.startswith(prefix):
                del steps[at]
                return fault
        return None

    def _drawn(self) -> Fault | None:
        """Draw from the rates. REQUIRES: `_lock` held."""
        if self.entropy is None:
            return None
        for fault, rate in self.rates.items():
            if int.from_bytes(self.entropy(4), "big") < rate * 2**32:
                return fault
        return None

    def _hang(self, fault: Fault, method: str) -> None:
        self.hanging.release()
        self._released.wait(self.hang_s)
        if self._stopped.is_set():
            raise Stopped("The connection to the store is closed.")
        if fault is Fault.HANG:
            raise StoreUnavailable(f"The store did not answer (while {method}).")


class FaultyStore(StoreLayer):
    """Another store with the faults of a plan."""

    def __init__(self, inner: ObjectStore, plan: FaultPlan | None = None) -> None:
        super().__init__(inner)
        self.plan = plan or FaultPlan()

    def over(self, inner: ObjectStore) -> ObjectStore:
        return FaultyStore(inner, self.plan)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        fault = self.plan.next("get", key)
        if fault is Fault.VANISH:
            return self.inner.get(_other(key), start, length)
        data = self.inner.get(key, start, length)
        return bytes(_spoil(fault, bytearray(data)))

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        fault = self.plan.next("get", key)
        if fault is Fault.VANISH:
            return self.inner.get_into(_other(key), start, buffer, on_data)
        if fault is None or fault is Fault.PAUSE:
            return self.inner.get_into(key, start, buffer, on_data)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = bytearray(self.inner.get(key, start, len(view)))
            if fault is Fault.RESET:
                half = len(data) // 2
                view[:half] = data[:half]
                if on_data is not None and half:
                    on_data(half)
            data = _spoil(fault, data)
            view[: len(data)] = data
        if on_data is not None and data:
            on_data(len(data))
        return len(data)

    def put_if_absent(self, key: str, body: Body) -> None:
        fault = self.plan.next("put", key)
        self.inner.put_if_absent(key, body)
        _lose(fault)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        fault = self.plan.next("list", prefix)
        _lose(fault)
        if fault is not Fault.STALE_LIST:
            return self.inner.list(prefix, start_after, limit)
        found = list(self.inner.list(prefix, start_after))
        newest = max((info.modified_ns for info in found), default=0)
        return iter([info for info in found if info.modified_ns < newest][:limit])

    def delete(self, keys: Iterable[str]) -> None:
        names = tuple(keys)
        fault = self.plan.next("delete", names[0] if names else "")
        self.inner.delete(names)
        _lose(fault)

    def stat(self, key: str) -> ObjectInfo:
        fault = self.plan.next("stat", key)
        _lose(fault)
        return self.inner.stat(_other(key) if fault is Fault.VANISH else key)

    def date_ns(self) -> int:
        self.plan.next("date", "")
        return self.inner.date_ns()

    def check(self) -> None:
        self.plan.next("check", "")
        self.inner.check()

    def close(self) -> None:
        self.plan.stop()
        super().close()


def _lose(fault: Fault | None) -> None:
    if fault in (Fault.LOSE_ANSWER, Fault.RESET):
        raise StoreUnavailable("The answer was lost.")


def _spoil(fault: Fault | None, data: bytearray) -> bytearray:
    _lose(fault)
    if fault is Fault.TRUNCATE:
        return data[: len(data) // 2]
    if fault is Fault.WRONG_BYTES and data:
        data[len(data) // 2] ^= 1
    return data


def _other(key: str) -> str:
    """A name that nothing has, so that the inner store says "missing" in its own words."""
    return f"{key}.vanished"
