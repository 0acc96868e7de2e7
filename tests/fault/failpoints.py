"""Where a process may die: at every call to the store and at every write to the local disk.

One workload runs; before and after each call that matters everything that would outlive the process
is kept: the objects in the store, the files of the state directory as a running machine shows them,
and what of them would be there after loss of power. Nothing is made to fail, so one run shows every
moment. `restore` makes the world look as it did at one of them; a test then opens it again.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucid.filespace import Filespace
from lucid.store.base import Body, ObjectInfo, ObjectStore, OnData, StoreLayer
from lucid.store.memory import Bucket
from tests.filespace.spaces import parts_of
from tests.local.forgetful import DIRECTORY, WRITE_LIKE, ForgetfulDisk

DISK_CALLS = sorted(WRITE_LIKE)
PLACES = ("log", "data", "checkpoint", "other")
STORE_CALLS = [f"{verb} {place}" for verb in ("put", "get", "list") for place in PLACES]
Wanted = Callable[[str, int], bool]
Bytes = list[tuple[int, bytes]]


@dataclass
class Moment:
    """The world at one point. `done` steps were acknowledged, `begun` had begun."""

    what: str
    ordinal: int
    done: int
    begun: int
    objects: dict[str, tuple[bytes, int]]
    files: dict[str, tuple[int, Bytes]]
    names: Any
    """What the disk knows of its files, by name, durable and not; None for a call to the store."""

    def looks(self) -> bytes:
        """Equal for moments that nobody can tell apart. The replica is only what all this makes."""
        files = [found for found in sorted(self.files.items()) if "replica" not in found[0]]
        told = repr((self.done, self.begun, sorted(self.objects), files))
        return hashlib.blake2b(told.encode()).digest()

    def __str__(self) -> str:
        return f"{self.what} {self.ordinal}, after {self.done} of {self.begun} steps"


class Recorder:
    """Counts the points of a workload, and keeps the moments that are `wanted`."""

    def __init__(self, state: Path, bucket: Bucket, wanted: Wanted) -> None:
        state.mkdir(mode=0o700, exist_ok=True)
        self.state, self.bucket = state, bucket
        self.disk = RecordingDisk(state, self)
        self.wanted = wanted
        self.counts: Counter[str] = Counter()
        self.moments: list[Moment] = []
        self.fs: Filespace | None = None
        """The open one; None while it is opened or closed."""
        self.done = self.begun = 0

    def over(self, store: ObjectStore) -> ObjectStore:
        return RecordingStore(store, self)

    def point(self, what: str) -> None:
        """A process may die here. REQUIRES: the disk's lock, so that nothing else moves."""
        self.counts[what] += 1
        if self.wanted(what, self.counts[what]):
            names = copy.deepcopy(
                (self.disk._names, self.disk._durable_names, self.disk._pending_names),
                {id(DIRECTORY): DIRECTORY},
            )
            self.moments.append(
                Moment(
                    what, self.counts[what], self.done, self.begun,
                    dict(self.bucket.objects), self._files(), names,
                )
            )  # fmt: skip

    def _files(self) -> dict[str, tuple[int, Bytes]]:
        """The state directory as it is. The replica is left out while it cannot be held still: who
        has none builds one."""
        fs = self.fs
        with nullcontext() if fs is None else parts_of(fs).replica._turn:
            found = {}
            for path in self.state.rglob("*"):
                name = str(path.relative_to(self.state))
                if path.is_file() and (fs is not None or not name.startswith("replica")):
                    found[name] = read_sparse(path)
            return found

    def restore(self, moment: Moment, power: int | None = None) -> None:
        """The process died there; with `power`, the machine: then it says what luck it had."""
        self.bucket.objects = dict(moment.objects)
        self.bucket.keys = sorted(moment.objects)
        if power is not None:
            disk = ForgetfulDisk(self.state)
            disk._names, disk._durable_names, disk._pending_names = copy.deepcopy(
                moment.names, {id(DIRECTORY): DIRECTORY}
            )
            disk.crash(power)
            return
        for found in self.state.iterdir():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        for inner in ("journal", "staging", "cache"):
            (self.state / inner).mkdir(mode=0o700, exist_ok=True)
        for name, (size, pieces) in moment.files.items():
            write_sparse(self.state / name, size, pieces)


def read_sparse(path: Path) -> tuple[int, Bytes]:
    """Size and pieces: journals are large and nearly empty."""
    pieces: Bytes = []
    with path.open("rb", 0) as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            pieces.append((start, os.pread(file.fileno(), at - start, start)))
    return size, pieces


def write_sparse(path: Path, size: int, pieces: Bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("wb", 0) as file:
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), size)
        for start, data in pieces:
            os.pwrite(file.fileno(), data, start)


class RecordingDisk(ForgetfulDisk):
    """Tells the recorder of each write-like call, before and after."""

    def __init__(self, root: Path, recorder: Recorder) -> None:
        super().__init__(root)
        self._recorder = recorder

    @contextmanager
    def _call(self, name: str, part: Callable[[int], None] | None = None) -> Iterator[None]:
        with self._lock:
            if name not in WRITE_LIKE:
                with super()._call(name, part):
                    yield
                return
            self._recorder.point(f"before {name}")
            with super()._call(name, part):
                yield
            self._recorder.point(f"after {name}")


def place_of(key: str) -> str:
    first = key.split("/", 1)[0]
    return first if first in PLACES else "other"


class RecordingStore(StoreLayer):
    """Tells the recorder of each call: before it reaches the store, and before its answer."""

    def __init__(self, inner: ObjectStore, recorder: Recorder) -> None:
        super().__init__(inner)
        self._recorder = recorder

    def over(self, inner: ObjectStore) -> ObjectStore:
        return RecordingStore(inner, self._recorder)

    @contextmanager
    def _call(self, verb: str, key: str) -> Iterator[None]:
        with self._recorder.disk._lock:
            self._recorder.point(f"before {verb} {place_of(key)}")
            yield
            self._recorder.point(f"after {verb} {place_of(key)}")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._call("get", key):
            return self.inner.get(key, start, length)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        with self._recorder.disk._lock:
            self._recorder.point(f"before get {place_of(key)}")
        return self.inner.get_into(key, start, buffer, on_data)

    def put_if_absent(self, key: str, body: Body) -> None:
        with self._call("put", key):
            self.inner.put_if_absent(key, body)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        with self._call("list", prefix):
            return iter(list(self.inner.list(prefix, start_after, limit)))

    def delete(self, keys: Any) -> None:
        names = tuple(keys)
        with self._call("delete", names[0] if names else ""):
            self.inner.delete(names)
