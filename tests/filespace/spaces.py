"""A filespace in a bucket in memory, and machines that open it, close it, and die.

`Space.connect` opens the filespace as one machine, with a state directory and faults of its own.
`Space.crash` is kill -9 as the state directory sees it: the store is cut off, the files are put
aside as they are, the process lets go, and the files are put back. What was in memory only is gone.
Tests that want a real dead process are in tests/fault.
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from lucid.config import Config
from lucid.crypto.passphrase import Stretch
from lucid.filespace import Filespace, init
from lucid.filespace.opening import open_parts
from lucid.filespace.parts import Parts
from lucid.filespace.tree import Tree
from lucid.local.disk import Disk
from lucid.store.base import ObjectStore
from lucid.store.faulty import FaultPlan, FaultyStore
from lucid.store.memory import Bucket, MemoryStore
from lucid.types import Clock, SystemClock, SystemEntropy

PASSPHRASE = "four words and salt"
STRETCH = Stretch(1, 64 << 20)
BLOCK = 64 * 1024
WAIT_S = 60.0
"""How long a test waits for what must come. Only a test that fails ever waits for so long."""

QUICK: dict[str, Any] = {"poll_fast_s": 0.05, "poll_idle_s": 0.2, "fetch_workers": 4}


@lru_cache(maxsize=4)
def _founded(block_size: int) -> dict[str, tuple[bytes, int]]:
    """The objects of a new filespace: made once, for stretching a passphrase takes a moment."""
    bucket = Bucket()
    init(
        "memory://team", passphrase=PASSPHRASE, block_size=block_size, stretch=STRETCH,
        store=MemoryStore(bucket),
    )  # fmt: skip
    return dict(bucket.objects)


def new_bucket(block_size: int = BLOCK) -> Bucket:
    """A bucket that holds a new filespace and nothing else."""
    bucket = Bucket()
    bucket.objects = dict(_founded(block_size))
    bucket.keys = sorted(bucket.objects)
    return bucket


def open_on(
    store: ObjectStore,
    state: Path,
    *,
    disk: Disk | None = None,
    clock: Clock | None = None,
    passphrase: str = PASSPHRASE,
    **settings: Any,
) -> Filespace:
    """The filespace in `store`, opened with a state directory."""
    config = Config(**{**QUICK, "state_dir": state, **settings})
    opened = open_parts(
        store, passphrase, config, clock=clock or SystemClock(), entropy=SystemEntropy, disk=disk
    )
    return Filespace(Tree(opened))


def parts_of(fs: Filespace) -> Parts:
    """The rooms of an open filespace, for looking into and for forcing what memory would."""
    return fs.tree._parts


class Space:
    """One bucket and its machines."""

    def __init__(self, root: Path, bucket: Bucket | None = None) -> None:
        self.root = root
        self.bucket = bucket or new_bucket()
        self.plans: dict[str, FaultPlan] = {}
        self._open: list[Filespace] = []

    def state(self, name: str) -> Path:
        return self.root / name

    def store(self, name: str = "a", plan: FaultPlan | None = None) -> ObjectStore:
        self.plans[name] = plan or FaultPlan()
        return FaultyStore(MemoryStore(self.bucket, name="team"), self.plans[name])

    def connect(
        self,
        name: str = "a",
        *,
        plan: FaultPlan | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> Filespace:
        """Open as machine `name`, whose state directory is kept from one time to the next."""
        fs = open_on(self.store(name, plan), self.state(name), disk=disk, clock=clock, **settings)
        self._open.append(fs)
        return fs

    def crash(self, fs: Filespace, name: str = "a") -> None:
        """The process of machine `name` dies now. Its state directory may be opened again."""
        self.plans[name].die()
        fs.tree._ticker.close()
        state, aside = self.state(name), self.root / f"{name}.aside"
        shutil.copytree(state, aside)
        fs.close(wait=False)
        for path in state.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in aside.iterdir():
            path.rename(state / path.name)
        aside.rmdir()

    def close(self) -> None:
        """Close what tests left open, without waiting for the store."""
        for plan in self.plans.values():
            plan.stop()
        for fs in self._open:
            fs.close(wait=False)


def some_bytes(seed: int, size: int) -> bytes:
    """Bytes that no other seed has."""
    return Random(seed).randbytes(size)


def write_at(fs: Filespace, path: str, offset: int, data: bytes) -> None:
    """Open, write in the middle, close."""
    with fs.open(path, "r+b", 0) as file:
        file.seek(offset)
        assert file.write(data) == len(data)
