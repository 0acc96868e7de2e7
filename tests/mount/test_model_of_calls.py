"""Random system calls on a drive and on a plain directory: the same answers, the same trees.

The drive is mounted by the command and is unmounted and mounted again in between, from its own
state directory or from an empty one. LUCID_EXAMPLES=200 walks longer, with new seeds, and shrinks
what it finds.
"""

from __future__ import annotations

import itertools
import mmap
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.cli.conftest import Lucid
from tests.mount import twins
from tests.mount.watchdog import watchdog

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LONGER = "LUCID_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("LUCID_EXAMPLES", "16"))
STEPS = 45
LIMIT_S = 200.0 if not LONGER else 60.0 * EXAMPLES
REMOUNTS = 1
"""In one walk. Each costs two seconds, most of it for the key of the passphrase."""
BLOCK = 128 * 1024

names = st.sampled_from(["a", "b", "c", "dir", "\u00e9", "x" * 255])
paths = st.lists(names, min_size=1, max_size=3).map("/".join) | st.sampled_from(
    ["a", "b", "dir", "a", "b", "dir", "dir/a", "dir/b", "y" * 256]
)
sizes = st.sampled_from([0, 1, 13, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 300_001])
places = sizes | st.integers(0, 3 * BLOCK) | st.sampled_from([700_000, 2 * BLOCK])
modes = st.integers(0, 0o1777)
far_times = st.integers(0, 2**31).map(lambda s: s * 10**9 + s % 10**9) | st.just(2**33 * 10**9 + 1)
attributes = st.sampled_from(["user.a", "user.b", "user.\u00e9", "trusted.c"])
contents = st.sampled_from(["zeros", "one", "two", "three"])

ACCESS = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR])
FLAGS = st.sampled_from([
    0, os.O_CREAT, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC,
    os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY,
])  # fmt: skip


def content(kind: str, length: int) -> bytes:
    return bytes(length) if kind == "zeros" else random.Random(kind).randbytes(length)


class Rig:
    """The drive, the directory beside it, and one pair of new directories a walk."""

    def __init__(self, lucid: Lucid, top: Path) -> None:
        self.lucid = lucid
        self.point, self.local = top / "drive", top / "local"
        self.store = f"file://{top}/store"
        self._top = top
        self._states = itertools.count(1)
        self._state = top / "state0"
        self._walks = itertools.count(1)
        for directory in (self.point, self.local, top / "store"):
            directory.mkdir()
        lucid.run("init", self.store)
        self.mount()

    def mount(self, *, empty: bool = False) -> None:
        if empty:
            self._state = self._top / f"state{next(self._states)}"
        self.lucid.run("mount", self.store, self.point, "--state-dir", self._state)

    def remount(self, *, empty: bool) -> None:
        self.lucid.run("umount", self.point)
        self.mount(empty=empty)

    def new_pair(self) -> tuple[Path, Path]:
        name = f"walk{next(self._walks)}"
        pair = self.point / name, self.local / name
        for directory in pair:
            directory.mkdir()
        return pair


class Pair:
    """One file opened twice: on the drive and beside it."""

    def __init__(self, drive: int, local: int) -> None:
        self.both = drive, local

    def close(self) -> None:
        for descriptor in self.both:
            os.close(descriptor)
        self.both = -1, -1


class Walk(RuleBasedStateMachine):
    """Every rule is one system call, made twice."""

    pairs = Bundle("pairs")

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig
        self.drive, self.local = rig.new_pair()
        self.open: list[Pair] = []
        self.remounts = 0

    def teardown(self) -> None:
        try:
            self.compare()
        finally:
            for pair in self.open:
                pair.close()

    def compare(self) -> None:
        difference = twins.difference(twins.whole(self.drive), twins.whole(self.local))
        assert not difference, "\n".join(difference)

    def same(self, call: Callable[..., Any], drive: list[Any], local: list[Any]) -> twins.Outcome:
        here, there = twins.outcome(call, *drive), twins.outcome(call, *local)
        assert here == there, twins.brief(here, there)
        return here

    def on_paths(self, call: Callable[..., Any], *paths: str) -> twins.Outcome:
        return self.same(call, [self.drive / p for p in paths], [self.local / p for p in paths])

    def on_pair(self, call: Callable[[int], Any], pair: Pair) -> twins.Outcome:
        return self.same(call, [pair.both[0]], [pair.both[1]])

    # --- Open files ----------------------------------------------------------------------------

    @rule(target=pairs, path=paths, access=ACCESS, flags=FLAGS, mode=modes)
    def open_a_file(self, path: str, access: int, flags: int, mode: int) -> Pair:
        descriptors: list[int] = []

        def call(where: Path) -> None:
            # O_NONBLOCK: a FIFO must not wait for its other end.
            descriptors.append(os.open(where, access | flags | os.O_NONBLOCK, mode))

        self.on_paths(call, path)
        pair = Pair(*(descriptors or (-1, -1)))
        if descriptors:
            self.open.append(pair)
        return pair

    @rule(pair=consumes(pairs))
    def close(self, pair: Pair) -> None:
        if pair in self.open:
            self.open.remove(pair)
            pair.close()

    @rule(pair=pairs, place=places, length=sizes)
    def pread(self, pair: Pair, place: int, length: int) -> None:
        self.on_pair(lambda fd: os.pread(fd, length, place), pair)

    @rule(pair=pairs, place=places, length=sizes, kind=contents)
    def pwrite(self, pair: Pair, place: int, length: int, kind: str) -> None:
        self.on_pair(lambda fd: os.pwrite(fd, content(kind, length), place), pair)

    @rule(pair=pairs, length=sizes, kind=contents)
    def write(self, pair: Pair, length: int, kind: str) -> None:
        self.on_pair(lambda fd: os.write(fd, content(kind, length)), pair)

    @rule(pair=pairs, size=places)
    def ftruncate(self, pair: Pair, size: int) -> None:
        self.on_pair(lambda fd: os.ftruncate(fd, size), pair)

    @rule(pair=pairs)
    def fsync(self, pair: Pair) -> None:
        self.on_pair(os.fsync, pair)

    @rule(pair=pairs)
    def fstat(self, pair: Pair) -> None:
        self.on_pair(lambda fd: twins.look(os.fstat(fd)), pair)

    @rule(pair=pairs, mode=modes)
    def fchmod(self, pair: Pair, mode: int) -> None:
        self.on_pair(lambda fd: os.fchmod(fd, mode), pair)

    @rule(pair=pairs, atime=far_times, mtime=far_times)
    def futimens(self, pair: Pair, atime: int, mtime: int) -> None:
        self.on_pair(lambda fd: os.utime(fd, ns=(atime, mtime)), pair)

    @rule(pair=pairs, place=places, length=sizes, kind=contents)
    def write_by_a_mapping(self, pair: Pair, place: int, length: int, kind: str) -> None:
        def call(descriptor: int) -> bytes:
            size = os.fstat(descriptor).st_size
            if not size:
                return b""
            with mmap.mmap(descriptor, size) as view:
                piece = content(kind, length)[: max(0, size - place)]
                view[place : place + len(piece)] = piece
                return view[max(0, place - 100) : place + length + 100]

        self.on_pair(call, pair)

    # --- Names ---------------------------------------------------------------------------------

    @rule(path=paths, mode=modes)
    def mkdir(self, path: str, mode: int) -> None:
        self.on_paths(lambda where: os.mkdir(where, mode), path)

    @rule(path=paths)
    def rmdir(self, path: str) -> None:
        self.on_paths(os.rmdir, path)

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        self.on_paths(os.unlink, path)

    @rule(path=paths, to=paths)
    def rename(self, path: str, to: str) -> None:
        self.on_paths(os.rename, path, to)

    @rule(path=paths, to=paths)
    def link(self, path: str, to: str) -> None:
        self.on_paths(lambda old, new: os.link(old, new, follow_symlinks=False), path, to)

    @rule(path=paths, leads_to=paths | st.just("/nowhere/at all"))
    def symlink(self, path: str, leads_to: str) -> None:
        self.on_paths(lambda where: os.symlink(leads_to, where), path)

    @rule(path=paths)
    def readlink(self, path: str) -> None:
        self.on_paths(os.readlink, path)

    @rule(path=paths, mode=modes)
    def mkfifo(self, path: str, mode: int) -> None:
        self.on_paths(lambda where: os.mkfifo(where, mode), path)

    @rule(path=paths)
    def listdir(self, path: str) -> None:
        self.on_paths(lambda where: sorted(os.listdir(where)), path)

    @rule(path=paths)
    def fsync_a_directory(self, path: str) -> None:
        def call(where: Path) -> None:
            descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        self.on_paths(call, path)

    # --- Attributes ----------------------------------------------------------------------------

    @rule(path=paths)
    def stat(self, path: str) -> None:
        self.on_paths(lambda where: twins.look(os.stat(where)), path)

    @rule(path=paths, size=places)
    def truncate(self, path: str, size: int) -> None:
        def call(where: Path) -> None:
            if stat.S_ISFIFO(where.lstat().st_mode):
                return  # EINVAL or a wait, by the kernel, whatever file system
            os.truncate(where, size)

        self.on_paths(call, path)

    @rule(path=paths, mode=modes)
    def chmod(self, path: str, mode: int) -> None:
        self.on_paths(lambda where: os.chmod(where, mode), path)

    @rule(path=paths, atime=far_times, mtime=far_times, follow=st.booleans())
    def utimens(self, path: str, atime: int, mtime: int, follow: bool) -> None:
        def call(where: Path) -> int:
            os.utime(where, ns=(atime, mtime), follow_symlinks=follow)
            return os.stat(where, follow_symlinks=follow).st_atime_ns

        self.on_paths(call, path)

    @rule(
        path=paths, name=attributes, value=st.binary(max_size=60),
        flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]), follow=st.booleans(),
    )  # fmt: skip
    def setxattr(self, path: str, name: str, value: bytes, flags: int, follow: bool) -> None:
        def call(where: Path) -> None:
            os.setxattr(where, name, value, flags, follow_symlinks=follow)

        self.on_paths(call, path)

    @rule(path=paths, name=attributes)
    def getxattr(self, path: str, name: str) -> None:
        self.on_paths(lambda where: os.getxattr(where, name), path)

    @rule(path=paths, name=attributes)
    def removexattr(self, path: str, name: str) -> None:
        self.on_paths(lambda where: os.removexattr(where, name), path)

    # --- The whole -----------------------------------------------------------------------------

    @precondition(lambda self: self.remounts < REMOUNTS)
    @rule(empty=st.booleans())
    def remount(self, empty: bool) -> None:
        for pair in self.open:
            pair.close()
        self.open.clear()
        self.compare()
        self.rig.remount(empty=empty)
        self.remounts += 1
        self.compare()


@pytest.fixture
def rig(lucid: Lucid, tmp_path: Path) -> Iterator[Rig]:
    kept = os.umask(0o022)
    try:
        with watchdog(tmp_path, LIMIT_S):
            yield Rig(lucid, tmp_path)
            lucid.clean()
    finally:
        os.umask(kept)


@pytest.fixture
def lucid(own_home: Path, own_registry: None) -> Iterator[Lucid]:
    made = Lucid(own_home)
    yield made
    made.clean()


def test_a_drive_answers_as_a_directory_does(rig: Rig) -> None:
    """S-3, S-6, S-8, S-9, S-10, S-15, S-16, and all that a local file system does without saying."""
    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if LONGER else [])]
    run_state_machine_as_test(
        lambda: Walk(rig),
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not LONGER,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
    rig.remount(empty=True)
    difference = twins.difference(twins.whole(rig.point), twins.whole(rig.local))
    assert not difference, "\n".join(difference)
    rig.lucid.run("umount", rig.point)
    assert rig.lucid.json("fsck", rig.store, "--read-data")["clean"] is True
