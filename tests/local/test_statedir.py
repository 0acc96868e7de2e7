"""The state directory: whose it is, who uses it, and the device file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lucid.errors import DiskFull, LocalError, StateDamaged, StateForeign, StateInUse
from lucid.format.hashes import hash_bytes
from lucid.local.disk import RealDisk
from lucid.local.statedir import StateDir, default_place
from tests.local.forgetful import ForgetfulDisk, PowerLoss

REPOSITORY = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from lucid.local.disk import RealDisk
from lucid.local.statedir import StateDir
state = StateDir.create(RealDisk(), Path(sys.argv[1]))
state.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# -- the directory


def test_it_is_made_whole_and_ours_alone(disk: RealDisk, root: Path) -> None:
    old = os.umask(0)
    try:
        state = StateDir.create(disk, root / "deep" / "er" / "state")
    finally:
        os.umask(old)
    for path in (state.path, state.journal, state.staging, state.cache, root / "deep"):
        assert mode(path) == 0o700
    assert [path.name for path in (state.device, state.replica)] == ["device", "replica"]
    again = StateDir.create(disk, state.path)
    assert again.path == state.path


def test_it_survives_loss_of_power(forgetful: ForgetfulDisk, root: Path) -> None:
    for seed in range(10):
        place = root / str(seed) / "state"
        state = StateDir.create(forgetful, place)
        state.write_device(b"device")
        forgetful.crash(seed)
        assert StateDir.open(forgetful, place).read_device() == b"device"


def test_open_wants_one_that_is_there(disk: RealDisk, root: Path) -> None:
    with pytest.raises(LocalError, match="no state directory"):
        StateDir.open(disk, root / "none")
    StateDir.create(disk, root / "empty")
    with pytest.raises(LocalError, match="no state directory"):
        StateDir.open(disk, root / "empty")


def test_a_directory_open_to_others_is_closed_if_it_is_empty(disk: RealDisk, root: Path) -> None:
    place = root / "state"
    place.mkdir()
    place.chmod(0o777)
    StateDir.create(disk, place)
    assert mode(place) == 0o700


def test_others_may_have_read_it_but_not_written_to_it(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "state")
    state.path.chmod(0o755)
    StateDir.create(disk, state.path)
    assert mode(state.path) == 0o700
    state.path.chmod(0o770)
    with pytest.raises(StateForeign, match="Other users may write"):
        StateDir.create(disk, state.path)


@pytest.mark.parametrize("inner", ["", "journal", "staging", "cache"])
def test_a_link_is_refused(disk: RealDisk, root: Path, inner: str) -> None:
    state = StateDir.create(disk, root / "state")
    elsewhere = root / "elsewhere"
    (state.path / inner).rename(elsewhere)
    (state.path / inner).symlink_to(elsewhere)
    with pytest.raises(StateForeign, match="not a directory"):
        StateDir.create(disk, state.path)


def test_a_file_in_its_place_is_refused(disk: RealDisk, root: Path) -> None:
    (root / "state").write_text("mine")
    with pytest.raises(StateForeign, match="not a directory"):
        StateDir.create(disk, root / "state")


def test_somebody_elses_is_refused(
    disk: RealDisk, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir.create(disk, root / "state")
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    with pytest.raises(StateForeign, match=f"belongs to user {ours}"):
        StateDir.create(disk, state.path)


def test_the_default_place_is_named_after_the_filespace(own_home: Path) -> None:
    place = default_place(bytes(range(16)))
    assert place.is_relative_to(own_home)
    assert place.parts[-2:] == ("lucid", bytes(range(16)).hex())


def test_space(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "state")
    assert state.space().available > 0


# -- the device file


def test_the_device_file_is_replaced_whole(forgetful: ForgetfulDisk, root: Path) -> None:
    state = StateDir.create(forgetful, root / "state")
    assert state.read_device() is None
    state.write_device(b"first")
    assert mode(state.device) == 0o600
    before, found = b"first", set()
    for seed in range(60):
        forgetful.cut_power_at(seed % 6 + 1)
        try:
            state.write_device(b"%d" % seed)
            kept = (b"%d" % seed,)
        except PowerLoss:
            kept = (before, b"%d" % seed)
        forgetful.crash(seed)
        device = state.read_device()
        assert device in kept
        assert device is not None
        before = device
        found.add(device == kept[-1])
    assert found == {True, False}


def test_a_full_disk_keeps_the_old_device_file(forgetful: ForgetfulDisk, root: Path) -> None:
    state = StateDir.create(forgetful, root / "state")
    state.write_device(b"first")
    for call in ("pwrite", "fdatasync"):
        forgetful.fail(call, errno.ENOSPC)
        with pytest.raises(DiskFull, match="Free some space"):
            state.write_device(b"second")
        assert state.read_device() == b"first"
        forgetful.heal()
    state.write_device(b"third")
    assert state.read_device() == b"third"


def test_an_impossible_device_file_is_damage(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "state")
    for data in (b"", bytes((1 << 20) + 1)):
        state.device.write_bytes(data)
        with pytest.raises(StateDamaged):
            state.read_device()


def test_a_device_file_that_is_a_link_is_refused(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "state")
    (root / "elsewhere").write_bytes(b"device")
    state.device.symlink_to(root / "elsewhere")
    with pytest.raises(LocalError):
        state.read_device()


# -- the place


def test_a_copy_has_another_place(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "state")
    copy = StateDir.create(disk, root / "copy")
    here = state.place(b"machine")
    assert here == state.place(b"machine")
    assert here not in (copy.place(b"machine"), state.place(b"other machine"))
    (root / "state").rename(root / "moved")
    assert StateDir.create(disk, root / "moved").place(b"machine") == here
    assert len(state.create(disk, root / "moved").place()) == 32


def test_the_place_is_what_the_format_says(disk: RealDisk, root: Path) -> None:
    found = root.stat()
    numbers = found.st_dev.to_bytes(8, "little") + found.st_ino.to_bytes(8, "little")
    assert StateDir.create(disk, root).place(b"id") == hash_bytes(b"id" + numbers)


# -- the lock


def test_it_knows_whether_the_machine_was_started_since(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "state")
    assert not state.is_of_this_start()
    state.note_start()
    assert state.is_of_this_start()
    state.start.write_text("another start")
    assert not state.is_of_this_start()
    state.note_start()
    assert StateDir.create(disk, root / "state").is_of_this_start()


def test_the_lock_names_its_holder(disk: RealDisk, root: Path) -> None:
    first, second = StateDir.create(disk, root / "s"), StateDir.create(disk, root / "s")
    first.lock()
    first.lock()
    assert first.is_locked
    with pytest.raises(StateInUse, match=f"used by process {os.getpid()}") as caught:
        second.lock()
    assert caught.value.exit_code == 13
    assert not second.is_locked
    first.close()
    first.close()
    second.lock()
    second.close()


def test_without_a_number_the_holder_is_another_process(disk: RealDisk, root: Path) -> None:
    first, second = StateDir.create(disk, root / "s"), StateDir.create(disk, root / "s")
    first.lock()
    (root / "s" / "lock").write_text("nonsense")
    with pytest.raises(StateInUse, match="another process"):
        second.lock()
    first.close()


class Waiting:
    """A clock that a pause moves, and a lock holder that leaves at some time."""

    def __init__(self, leave: float, holder: StateDir) -> None:
        self.now = 0.0
        self.leave = leave
        self.holder = holder
        self.told: list[int | None] = []

    def time_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.leave:
            self.holder.close()


def test_waiting_ends_when_the_holder_leaves(disk: RealDisk, root: Path) -> None:
    first, second = StateDir.create(disk, root / "s"), StateDir.create(disk, root / "s")
    first.lock()
    world = Waiting(3.0, first)
    second.lock(5.0, clock=world, pause=world.pause, on_wait=world.told.append)
    assert second.is_locked and 3.0 <= world.now < 3.2
    assert world.told == [os.getpid()]
    second.close()


def test_waiting_ends_in_time(disk: RealDisk, root: Path) -> None:
    first, second = StateDir.create(disk, root / "s"), StateDir.create(disk, root / "s")
    first.lock()
    world = Waiting(99.0, first)
    with pytest.raises(StateInUse):
        second.lock(5.0, clock=world, pause=world.pause)
    assert 5.0 <= world.now < 5.2
    first.close()


def test_another_process_holds_it_until_it_is_killed(disk: RealDisk, root: Path) -> None:
    state = StateDir.create(disk, root / "s")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state.path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        with pytest.raises(StateInUse, match=f"process {process.pid}"):
            state.lock()
        process.kill()
        process.wait(30)
        with state:
            state.lock(10.0)
            assert state.is_locked
    assert not state.is_locked


def test_a_lock_on_a_full_disk_still_holds(forgetful: ForgetfulDisk, root: Path) -> None:
    first, second = (StateDir.create(forgetful, root / "s") for _ in range(2))
    forgetful.fail("pwrite", errno.ENOSPC)
    first.lock()
    with pytest.raises(StateInUse, match="another process"):
        second.lock()
    first.close()
