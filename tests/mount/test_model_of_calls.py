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
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.cli.conftest import Lucid
from tests.mount import twins
from tests.mount.twin_calls import Calls
from tests.mount.watchdog import watchdog

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LONGER = "LUCID_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("LUCID_EXAMPLES", "12"))
STEPS = 50
CALLS_A_STEP = 5
LIMIT_S = 200.0 if not LONGER else 60.0 * EXAMPLES
REMOUNTS = 1
"""In one walk. Each costs two seconds, most of it for the key of the passphrase."""


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

    def compare(self) -> None:
        difference = twins.difference(twins.whole(self.point), twins.whole(self.local))
        assert not difference, "\n".join(difference)


class Walk(RuleBasedStateMachine):
    """A seed a step, and not an argument a choice: so the calls are spread evenly."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig
        self.calls = Calls(*rig.new_pair())
        self.remounts = 0

    def teardown(self) -> None:
        try:
            self.calls.compare()
            self.calls.close_all()
            # What the log made of it: nobody else writes, so it must be just that.
            self.rig.lucid.run("sync", self.rig.point)
            self.calls.compare()
        finally:
            self.calls.close_all()

    @initialize()
    def begin(self) -> None:
        self.calls.begin()

    @rule(seed=st.integers(0, 2**40))
    def call(self, seed: int) -> None:
        self.calls.make(random.Random(seed), CALLS_A_STEP)

    @precondition(lambda self: self.remounts < REMOUNTS)
    @rule(empty=st.booleans())
    def remount(self, empty: bool) -> None:
        self.calls.close_all()
        self.calls.compare()
        self.rig.remount(empty=empty)
        self.remounts += 1
        self.calls.compare()


@pytest.fixture
def rig(own_home: Path, own_registry: None, tmp_path: Path) -> Iterator[Rig]:
    lucid, kept = Lucid(own_home), os.umask(0o022)
    try:
        with watchdog(tmp_path, LIMIT_S):
            yield Rig(lucid, tmp_path)
            lucid.clean()
    finally:
        lucid.clean()
        os.umask(kept)


@pytest.mark.timeout(LIMIT_S + 40)
def test_a_drive_answers_as_a_directory_does(rig: Rig) -> None:
    """S-3, S-6, S-8, S-9, S-10, S-15, S-16, and what a local file system does without saying."""
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
    rig.compare()
    rig.lucid.run("umount", rig.point)
    assert rig.lucid.json("fsck", rig.store, "--read-data")["clean"] is True


def test_a_mapping_of_a_descriptor_for_appending(rig: Rig) -> None:
    """S-10, where it meets S-9: a page is written back through the handle it was mapped by."""
    path = rig.point / "f"
    path.write_bytes(bytes(10_000))
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        with mmap.mmap(descriptor, 10_000) as view:
            view[5000:5003] = b"one"
    finally:
        os.close(descriptor)
    assert path.stat().st_size == 10_000
    assert path.read_bytes()[5000:5003] == b"one"


def test_nothing_is_waited_for_that_nobody_wants(rig: Rig) -> None:
    """S-28: what was sealed of a file that was cut and removed since is not left to be sent."""
    path = rig.point / "f"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, os.urandom(128 * 1024))
        os.fsync(descriptor)
        os.ftruncate(descriptor, 0)
        path.unlink()
    finally:
        os.close(descriptor)
    assert rig.lucid.run("umount", rig.point).stderr == ""


def test_an_empty_file_that_is_cut_gets_a_new_time(rig: Rig) -> None:
    """S-15, for `: > stamp`."""
    path = rig.point / "stamp"
    path.touch()
    os.utime(path, ns=(1, 1))
    path.open("w").close()
    assert path.stat().st_mtime_ns > 1
    rig.remount(empty=True)
    assert path.stat().st_mtime_ns > 1
