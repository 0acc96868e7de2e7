"""The disk that forgets does forget: a test against it that cannot fail would prove nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.local.forgetful import SECTOR, ForgetfulDisk, PowerLoss

SEEDS = range(40)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "disk"
    place.mkdir()
    return place


def write(disk: ForgetfulDisk, path: Path, data: bytes, *, sync: bool, name: bool) -> int:
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    disk.pwrite(fd, data, 0)
    if sync:
        disk.fdatasync(fd)
    if name:
        disk.fsync_dir(path.parent)
    return fd


def outcomes(root: Path, *, sync: bool, name: bool) -> set[bytes | None]:
    found: set[bytes | None] = set()
    for seed in SEEDS:
        place = root / str(seed)
        place.mkdir()
        disk = ForgetfulDisk(place)
        write(disk, place / "a", b"x" * (2 * SECTOR), sync=sync, name=name)
        disk.crash(seed)
        found.add((place / "a").read_bytes() if (place / "a").exists() else None)
    return found


def test_what_was_synced_with_its_name_is_always_there(root: Path) -> None:
    assert outcomes(root, sync=True, name=True) == {b"x" * (2 * SECTOR)}


def test_a_name_that_was_not_synced_may_be_gone(root: Path) -> None:
    assert outcomes(root, sync=True, name=False) == {None, b"x" * (2 * SECTOR)}


def test_bytes_that_were_not_synced_may_be_gone_torn_or_out_of_order(root: Path) -> None:
    full, zero = b"x" * SECTOR, bytes(SECTOR)
    assert outcomes(root, sync=False, name=True) == {b"", full, zero + full, full + full}


def test_a_rename_may_be_undone_and_never_loses_both_names(root: Path) -> None:
    found = set()
    for seed in SEEDS:
        place = root / str(seed)
        place.mkdir()
        disk = ForgetfulDisk(place)
        disk.close(write(disk, place / "old", b"1", sync=True, name=True))
        disk.rename(place / "old", place / "new")
        disk.crash(seed)
        found.add(tuple(sorted(path.name for path in place.iterdir())))
    assert found == {("old",), ("new",)}


def test_kill_loses_nothing_but_a_later_crash_may(root: Path) -> None:
    found = set()
    for seed in SEEDS:
        place = root / str(seed)
        place.mkdir()
        disk = ForgetfulDisk(place)
        fd = write(disk, place / "a", b"12", sync=False, name=True)
        disk.kill()
        assert (place / "a").read_bytes() == b"12"
        with pytest.raises(OSError, match="closed"):
            disk.pwrite(fd, b"3", 0)
        disk.crash(seed)
        found.add((place / "a").read_bytes())
    assert found == {b"", b"12"}


def test_a_second_fdatasync_does_not_keep_what_the_first_lost(root: Path) -> None:
    found = set()
    for seed in SEEDS:
        place = root / str(seed)
        place.mkdir()
        disk = ForgetfulDisk(place)
        fd = write(disk, place / "a", b"kept", sync=True, name=True)
        disk.pwrite(fd, b"gone", 0)
        disk.fail("fdatasync", errno.EIO)
        with pytest.raises(OSError, match="error"):
            disk.fdatasync(fd)
        disk.fdatasync(fd)
        disk.crash(seed)
        found.add((place / "a").read_bytes())
    assert found == {b"kept", b"gone"}


def test_the_nth_call_fails_and_a_write_may_be_partial(root: Path) -> None:
    disk = ForgetfulDisk(root)
    fd = write(disk, root / "a", b"", sync=True, name=True)
    disk.fail("pwrite", errno.ENOSPC, first=2, partial=3)
    disk.pwrite(fd, b"first", 0)
    with pytest.raises(OSError, match="space"):
        disk.pwrite(fd, b"second", 5)
    assert (root / "a").read_bytes() == b"firstsec"
    disk.pwrite(fd, b"third", 5)
    assert (root / "a").read_bytes() == b"firstthird"


def test_after_the_power_is_cut_nothing_happens_any_more(root: Path) -> None:
    disk = ForgetfulDisk(root)
    disk.cut_power_at(3)
    fd = disk.open(root / "a", os.O_RDWR | os.O_CREAT)
    disk.pwrite(fd, b"1", 0)
    with pytest.raises(PowerLoss):
        disk.fdatasync(fd)
    with pytest.raises(PowerLoss):
        disk.pread(fd, 1, 0)
    disk.crash(0)
    disk.mkdir(root / "again")
