"""A filespace in a store that somebody hostile holds, and machines that open it.

`Scene.hand` is the hand of whoever holds the bucket: it takes out, replaces and puts what it likes,
through a client of its own. What cannot be done to the objects themselves is done to what one
machine is told of them: its `Lies` hide, alter, swallow, and turn it to another copy of the store.
The same scene stands on a store in memory and on a real S3 server.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lucid.errors import LucidError
from lucid.filespace import Filespace, fsck, init
from lucid.filespace.fsck import FsckReport
from lucid.format.names import log_key
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.store.faulty import FaultPlan, FaultyStore
from lucid.store.memory import Bucket, MemoryStore
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    STRETCH,
    WAIT_S,
    new_bucket,
    open_on,
    parts_of,
    some_bytes,
)

__all__ = ["Lies", "Scene", "bucket_of", "flipped", "other_filespace", "stopped_by"]

Objects = dict[str, bytes]


class Lies(StoreLayer):
    """What one machine is told of the store. Everything is passed on until a field is set."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.shown: ObjectStore | None = None
        """Reads and lists are answered from here instead."""
        self.taken: ObjectStore | None = None
        """Writes go here instead."""
        self.instead: Objects = {}
        """Bytes that are shown under a name instead of its own."""
        self.endless: set[str] = set()
        """Objects that never end."""
        self.swallowed: tuple[str, ...] = ()
        """Below these prefixes a put is a success, and nothing is kept."""
        self.asked_max = 0
        """The most that was asked of an endless object with one request."""
        self.asked_all = False
        """Whether the whole of an endless object was asked for."""
        self.drips = threading.Event()
        self.drips.set()
        """While this is not set, bodies of `get_into` come byte by byte."""

    def over(self, inner: ObjectStore) -> ObjectStore:
        return self

    def honest(self) -> None:
        """From now on the truth, and at once."""
        self.shown = self.taken = None
        self.instead, self.endless, self.swallowed = {}, set(), ()
        self.drips.set()

    def _reads(self) -> ObjectStore:
        return self.shown or self.inner

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key in self.endless:
            self.asked_all = self.asked_all or length is None
            self.asked_max = max(self.asked_max, length or 0)
            return bytes(length or 0)
        if key in self.instead:
            end = None if length is None else start + length
            return self.instead[key][start:end]
        return self._reads().get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        if not self.drips.is_set():
            return self._drip(key, start, buffer, on_data)
        if key not in self.instead and key not in self.endless:
            return self._reads().get_into(key, start, buffer, on_data)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = self.get(key, start, len(view))
            view[: len(data)] = data
        if on_data is not None and data:
            on_data(len(data))
        return len(data)

    def _drip(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None
    ) -> int:
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = self._reads().get(key, start, len(view))
            for at, byte in enumerate(data):
                view[at] = byte
                if on_data is not None:
                    on_data(at + 1)
                if self.drips.wait(0.02):
                    break
            view[: len(data)] = data
        if on_data is not None:
            on_data(len(data))
        return len(data)

    def put_if_absent(self, key: str, body: Body) -> None:
        if not key.startswith(self.swallowed or ("-",)):
            (self.taken or self.inner).put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self._reads().list(prefix, start_after, limit)

    def stat(self, key: str) -> ObjectInfo:
        return self._reads().stat(key)

    def close(self) -> None:
        self.drips.set()
        super().close()


class Scene:
    """One store, the hand that holds it, and the machines that trust it with their bytes."""

    def __init__(self, root: Path, client: Callable[[], ObjectStore]) -> None:
        self.root = root
        self._client = client
        self.hand = client()
        for key, (data, _) in new_bucket().objects.items():
            self.hand.put_if_absent(key, data)
        self.lies: dict[str, Lies] = {}
        self.plans: dict[str, FaultPlan] = {}
        self._open: list[Filespace] = []

    # -- machines

    def connect(self, name: str = "a", away: bool = False, **settings: Any) -> Filespace:
        """Open as machine `name`; its state directory and its `lies` are its own.

        A machine that is opened again is told the same lies. `away`: it is cut off from the store.
        """
        old = self.lies.get(name)
        lies = self.lies[name] = Lies(self._client())
        if old is not None:
            lies.shown, lies.taken = old.shown, old.taken
            lies.instead, lies.endless, lies.swallowed = old.instead, old.endless, old.swallowed
        plan = self.plans[name] = FaultPlan()
        if away:
            plan.die()
        fs = open_on(FaultyStore(lies, plan), self.root / name, **settings)
        self._open.append(fs)
        return fs

    def close(self) -> None:
        for plan in self.plans.values():
            plan.stop()
        for fs in self._open:
            fs.close(wait=False)

    # -- the hand

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(info.key for info in self.hand.list(prefix))

    def entries(self) -> list[str]:
        return self.keys("log/")

    def segments(self) -> list[str]:
        """The objects under data/, largest first."""
        found = sorted(self.hand.list("data/"), key=lambda info: (-info.size, info.key))
        return [info.key for info in found]

    def get(self, key: str) -> bytes:
        return self.hand.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.hand.put_if_absent(key, data)

    def remove(self, *keys: str) -> None:
        self.hand.delete(keys)

    def replace(self, key: str, data: bytes) -> None:
        self.remove(key)
        self.put(key, data)

    def swap(self, one: str, other: str) -> None:
        first, second = self.get(one), self.get(other)
        self.replace(one, second)
        self.replace(other, first)

    def next_entry(self) -> str:
        """The name that the next entry will have."""
        return log_key(int(self.entries()[-1].rpartition("/")[2], 16) + 1)

    def copy(self) -> Objects:
        """Everything that the store holds."""
        return {key: self.get(key) for key in self.keys()}

    def restore(self, objects: Objects) -> None:
        """Make the store hold this and nothing else."""
        there = self.copy()
        self.remove(*[key for key in there if objects.get(key) != there[key]])
        for key, data in objects.items():
            if there.get(key) != data:
                self.put(key, data)

    def check(self, read_data: bool = False) -> FsckReport:
        """What fsck says. It changes nothing."""
        before = self.copy()
        found = fsck.check("the store", PASSPHRASE, read_data=read_data, store=self._client())
        assert self.copy() == before
        return found


def bucket_of(objects: Objects) -> MemoryStore:
    """A store in memory that holds these objects: another world, or an older one."""
    store = MemoryStore(Bucket())
    for key, data in objects.items():
        store.put_if_absent(key, data)
    return store


@lru_cache(maxsize=2)
def _others(passphrase: str) -> tuple[tuple[str, bytes], ...]:
    store = MemoryStore(Bucket(), name="other")
    init("memory://other", passphrase=passphrase, block_size=BLOCK, stretch=STRETCH, store=store)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_on(MemoryStore(store.bucket), Path(folder) / "state", passphrase=passphrase) as fs,
    ):
        for number in range(4):
            fs.write_bytes(f"/foreign{number}", some_bytes(number, 5 * BLOCK))
            fs.sync(timeout=WAIT_S)
    return tuple((info.key, store.get(info.key)) for info in store.list(""))


def other_filespace(passphrase: str = PASSPHRASE) -> Objects:
    """Every object of another filespace with some files; its founder may use the same
    passphrase."""
    return dict(_others(passphrase))


def flipped(data: bytes, at: int) -> bytes:
    """The same bytes, but for one bit."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def stopped_by(fs: Filespace) -> LucidError:
    """Wait until the filespace has stopped writing; returns why."""
    order = parts_of(fs).order
    with order.news:
        assert order.news.wait_for(lambda: order.stopped is not None, WAIT_S)
    assert order.stopped is not None
    return order.stopped
