"""The process, or the machine, dies at every call to the store and at every write to the disk of
one workload. What had been acknowledged is there (S-22, S-23, S-24, S-27), and fsck finds nothing.

The ordinary run takes a part of the moments, the same each time; LUCID_EXAMPLES=1000 all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from lucid.errors import DataError, NotFound
from lucid.filespace import Filespace, fsck, opening
from lucid.local.journal import Journal
from lucid.meta.replica import Replica
from lucid.store.memory import MemoryStore
from tests.fault.failpoints import DISK_CALLS, Moment, Recorder, Wanted
from tests.fault.test_power_loss import Started
from tests.filespace.checkpoints import hear
from tests.filespace.spaces import BLOCK, PASSPHRASE, WAIT_S, new_bucket, open_on, some_bytes

POINTS = int(os.environ.get("LUCID_EXAMPLES", "0"))
"""How many points; 0 for the ordinary part. Of kills a half is left: the others look alike."""
KILLS, CUTS = POINTS or 220, POINTS or 32
FILE_BYTES = 96 << 10
SETTINGS = {"checkpoint_every": 2, "checkpoint_wait_s": 0.0}
Files = dict[str, bytes]


class Step(NamedTuple):
    """What is done, and what it leaves: path to bytes, None for what goes."""

    kind: str
    path: str = ""
    data: bytes = b""
    offset: int = 0
    other: str = ""


WORK = (
    Step("make", "/d/small", some_bytes(1, 700)),
    Step("make", "/d/large", some_bytes(2, 3 * BLOCK + 77)),
    Step("append", "/d/small", b" and more"),
    Step("patch", "/d/large", b"patched over two blocks", BLOCK - 9),
    Step("fsync", "/d/large"),
    Step("make", "/d/new", some_bytes(3, 5000)),
    Step("rename", "/d/new", other="/d/small"),
    Step("sync"),
    Step("make", "/d/short lived", b"x" * 100),
    Step("remove", "/d/short lived"),
    Step("cut", "/d/large", offset=BLOCK + 5),
    Step("sync"),
    Step("mount"),
    Step("make", "/d/second", some_bytes(4, BLOCK)),
    Step("append", "/d/large", some_bytes(5, 900)),
    Step("fsync", "/d/large"),
    Step("leave"),
    Step("patch", "/d/second", b"!" * 10, 5),
    Step("sync"),
)
"""Mount: close, which waits for the store, and open. Leave: close without waiting, and open."""


def after(files: Files, step: Step) -> Files:
    """The files after a step."""
    found = dict(files)
    old = found.get(step.path, b"")
    if step.kind == "make":
        found[step.path] = step.data
    elif step.kind == "append":
        found[step.path] = old + step.data
    elif step.kind == "patch":
        found[step.path] = old[: step.offset] + step.data + old[step.offset + len(step.data) :]
    elif step.kind == "cut":
        found[step.path] = old[: step.offset]
    elif step.kind == "remove":
        del found[step.path]
    elif step.kind == "rename":
        found[step.other] = found.pop(step.path)
    return found


def states() -> list[Files]:
    """The files before the first step, and after each."""
    found: list[Files] = [{}]
    for step in WORK:
        found.append(after(found[-1], step))
    return found


STATES = states()


def do(fs: Filespace, step: Step) -> None:
    if step.kind == "make":
        fs.write_bytes(step.path, step.data)
    elif step.kind == "append":
        with fs.open(step.path, "ab") as file:
            file.write(step.data)
    elif step.kind == "patch":
        with fs.open(step.path, "r+b", 0) as file:
            file.seek(step.offset)
            file.write(step.data)
    elif step.kind == "fsync":
        handle = fs.tree.open(fs.stat(step.path).ino, os.O_RDWR)
        fs.tree.fsync(handle)
        fs.tree.release(handle)
    elif step.kind == "sync":
        fs.sync(timeout=WAIT_S)
        hear(fs)  # And its checkpoint is written, if it is time for one.
    elif step.kind == "cut":
        fs.truncate(step.path, step.offset)
    elif step.kind == "remove":
        fs.remove(step.path)
    elif step.kind == "rename":
        fs.rename(step.path, step.other)


class Rig:
    """The workload, and one life after another of the machine that did it."""

    def __init__(self, root: Path, wanted: Wanted) -> None:
        self.root = root
        self.bucket = new_bucket()
        self.recorder = Recorder(root / "state", self.bucket, wanted)

    def run(self) -> Recorder:
        """Do all of the work."""
        recorder = self.recorder
        recorder.fs = self._open()
        try:
            recorder.fs.makedirs("/d")
            for step in WORK:
                recorder.begun += 1
                if step.kind in ("mount", "leave"):
                    fs, recorder.fs = recorder.fs, None
                    fs.close(wait=step.kind == "mount")
                    recorder.fs = self._open()
                else:
                    do(recorder.fs, step)
                recorder.done += 1
        finally:
            fs, recorder.fs = recorder.fs, None
            if fs is not None:
                fs.close()
        return recorder

    def _open(self) -> Filespace:
        recorder = self.recorder
        store = recorder.over(MemoryStore(self.bucket, name="team"))
        return open_on(store, recorder.state, disk=recorder.disk, **SETTINGS)

    def again(self, state: str = "state") -> Filespace:
        """What the next process of this machine finds; with another name, another machine."""
        store = MemoryStore(self.bucket, name="team")
        return open_on(store, self.root / state, clock=Started(), **SETTINGS)

    def check_store(self) -> None:
        store = MemoryStore(self.bucket, name="team")
        found = fsck.check("memory://team", PASSPHRASE, read_data=True, store=store)
        assert found.clean, found.problems


def content_of(fs: Filespace) -> Files:
    if not fs.exists("/d"):
        return {}
    return {f"/d/{name}": fs.read_bytes(f"/d/{name}") for name in fs.listdir("/d")}


def may_be(moment: Moment) -> list[Files]:
    """What a kill may leave: every acknowledged step, and the one under way whole or not. A new
    file is there, empty, from its creation on."""
    found = STATES[moment.done : moment.begun + 1]
    if moment.begun > moment.done:
        step = WORK[moment.done]
        if step.kind == "make":
            found = [*found, {**STATES[moment.done], step.path: b""}]
    return found


def check_after_power(fs: Filespace, moment: Moment) -> None:
    """Each file is as the last fsync or sync of it left it, or as it was at some time after; what
    was never synced may be gone, or be an error. Never other bytes."""
    for path in sorted({path for state in STATES for path in state}):
        since = synced(path, moment.done)
        allowed = [state.get(path) for state in STATES[since : moment.begun + 1]]
        if since == 0:
            allowed += [None, b""]
        try:
            content = fs.read_bytes(path)
        except NotFound:
            assert None in allowed, path
        except DataError:
            assert since == 0 or None in allowed, path
        else:
            assert content in allowed or (None in allowed and content == b""), (path, len(content))


def synced(path: str, done: int) -> int:
    """The number of the last acknowledged step after which this file survives loss of power."""
    found = 0
    for number, step in enumerate(WORK[:done], 1):
        if step.kind in ("sync", "mount") or (step.kind == "fsync" and step.path == path):
            found = number
    return found


@pytest.fixture(scope="module", autouse=True)
def small_and_still() -> Iterator[None]:
    """Journals of a few pieces, of which moments can be kept. And the background's moving of the
    replica's pages cannot be held still; closing moves them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(opening, "Journal", partial(Journal, file_bytes=FILE_BYTES))
    patch.setattr(Replica, "checkpoint_wal", lambda self: True)
    yield
    patch.undo()


def spread(counts: Counter[str], number: int) -> Wanted:
    """About `number` points: as many of each kind, or all of it, over the whole run."""
    share = 1
    while sum(min(count, share) for count in counts.values()) < number and share < number:
        share += 1
    chosen = {
        (what, 1 + step * (count - 1) // max(1, min(share, count) - 1))
        for what, count in counts.items()
        for step in range(min(share, count))
    }
    return lambda what, ordinal: (what, ordinal) in chosen


def different(moments: list[Moment]) -> list[Moment]:
    """Without those at which nothing had changed since one that is there."""
    return list({moment.looks(): moment for moment in moments}.values())


@pytest.fixture(scope="module")
def counts(
    tmp_path_factory: pytest.TempPathFactory, quick_passphrase: None, small_and_still: None
) -> Counter[str]:
    """The points of one run, none of them kept. Threads make each run a little different."""
    return Rig(tmp_path_factory.mktemp("count"), lambda what, ordinal: False).run().counts


def test_the_workload_comes_by_all_of_them(counts: Counter[str]) -> None:
    assert {f"after {name}" for name in DISK_CALLS} <= set(counts)
    stored = {what.removeprefix("after ") for what in counts if what.startswith("after ")}
    verbs = {f"{verb} {place}" for verb in ("put", "list") for place in ("log", "checkpoint")}
    assert {*verbs, "put data", "get log", "delete other"} <= stored, stored


@pytest.mark.slow
def test_a_kill_at_each_point_loses_nothing(tmp_path: Path, counts: Counter[str]) -> None:
    rig = Rig(tmp_path, spread(counts, KILLS))
    moments = different(rig.run().moments)
    assert len(moments) >= 30
    for number, moment in enumerate(moments):
        rig.recorder.restore(moment)
        with rig.again() as fs:
            found = content_of(fs)
            assert found in may_be(moment), (str(moment), {p: len(d) for p, d in found.items()})
            assert fs.status().failed == (), str(moment)
        rig.check_store()
        if number % 8 == 0:
            with rig.again(f"other {number}") as other:
                assert content_of(other) == found, str(moment)


@pytest.mark.slow
def test_loss_of_power_at_each_point_keeps_what_was_synced(
    tmp_path: Path, counts: Counter[str]
) -> None:
    disk = Counter({what: n for what, n in counts.items() if what.split()[1] in DISK_CALLS})
    rig = Rig(tmp_path, spread(disk, CUTS))
    moments = rig.run().moments
    chance = Random(1)
    for moment in moments:
        rig.recorder.restore(moment, power=chance.randrange(1 << 30))
        with rig.again() as fs:
            check_after_power(fs, moment)
            fs.write_bytes("/goes on", b"x")
        rig.check_store()


def test_the_harness_sees_a_loss(tmp_path: Path, counts: Counter[str]) -> None:
    """What an earlier moment left is not what a later one should have."""
    rig = Rig(tmp_path, spread(Counter({"after pwrite": counts["after pwrite"]}), 6))
    moments = rig.run().moments
    early, late = moments[1], moments[-2]
    assert early.begun < late.done
    rig.recorder.restore(early)
    with rig.again() as fs:
        assert content_of(fs) in may_be(early)
        assert content_of(fs) not in may_be(late)
        with pytest.raises(AssertionError):
            check_after_power(fs, late)
