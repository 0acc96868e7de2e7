"""A local disk that is nearly full: the cache gives way, writers wait for the store, and whoever is
refused is refused before anything is accepted."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.errors import DiskFull
from lucid.filespace import Filespace
from tests.filespace.spaces import WAIT_S, Space, parts_of, some_bytes
from tests.local.forgetful import ForgetfulDisk

MiB = 1 << 20

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def small(space: Space) -> Iterator[Path]:
    """A disk of 240 MiB: 64 are the journal's, and 64 are kept free."""
    disk = space.root / "small"
    disk.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=240m,mode=0700", "tmpfs", str(disk)]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield disk
    finally:
        space.close()
        subprocess.run(["umount", str(disk)], check=True)


def piece(number: int) -> bytes:
    return some_bytes(number % 7, MiB)


def check(fs: Filespace, path: str, pieces: int) -> None:
    with fs.open(path, "rb") as file:
        for number in range(pieces):
            assert file.read(MiB) == piece(number), number
        assert file.read(1) == b""


@only_root
@pytest.mark.parametrize("floor", [0, 1 << 30])
def test_a_file_that_grows_larger_than_the_disk(space: Space, small: Path, floor: int) -> None:
    """The store takes what is written, and what it has gives way."""
    with space.connect("small/state", cache_free_bytes=floor) as fs:
        fs.write_bytes("/large", b"")
        with fs.open("/large", "ab") as file:
            for number in range(320):
                file.write(piece(number))
        fs.sync(timeout=WAIT_S)
        assert fs.status().problem == ""
        check(fs, "/large", 320)
    with space.connect("other") as fs:
        check(fs, "/large", 320)


@only_root
def test_a_new_file_larger_than_the_disk_is_refused(space: Space, small: Path) -> None:
    """S-31: nobody sees the first part of a file that is still being made."""
    with space.connect("small/state", cache_free_bytes=0, write_wait_s=0.5) as fs:
        file = fs.open("/large", "wb", 0)
        with pytest.raises(DiskFull):
            for number in range(320):
                file.write(piece(number))
        with space.connect("other") as other:
            other.refresh()
            assert other.listdir("/") == []
        fs.remove("/large")
        file.close()
        fs.write_bytes("/small", b"there is room again")
        fs.sync(timeout=WAIT_S)


@only_root
def test_many_files_larger_than_the_disk_together(space: Space, small: Path) -> None:
    with space.connect("small/state", cache_free_bytes=0) as fs:
        for number in range(40):
            fs.write_bytes(f"/f{number}", piece(number) * 8)
        fs.sync(timeout=WAIT_S)
        for number in range(40):
            assert fs.read_bytes(f"/f{number}") == piece(number) * 8


def nearly_full(space: Space) -> tuple[ForgetfulDisk, Filespace]:
    """A machine with an empty cache, whose disk has 43 MiB left."""
    space.state("a").mkdir(mode=0o700)
    disk = ForgetfulDisk(space.state("a"))
    disk.available = 43 * MiB
    return disk, space.connect("a", disk=disk, cache_bytes=0)


def test_what_is_refused_leaves_no_file_behind(space: Space) -> None:
    """S-26"""
    disk, fs = nearly_full(space)
    with pytest.raises(DiskFull) as caught:
        fs.write_bytes("/new", b"bytes")
    assert caught.value.errno == errno.ENOSPC
    assert fs.listdir("/") == []
    assert fs.status().pending_ops == 0
    fs.mkdir("/directory")
    disk.available = None
    fs.write_bytes("/new", b"bytes")
    fs.sync(timeout=WAIT_S)
    with space.connect("b") as other:
        assert other.read_bytes("/new") == b"bytes"
    fs.close()


def test_a_file_keeps_its_bytes_when_writing_is_refused(space: Space) -> None:
    with space.connect("b") as other:
        other.write_bytes("/file", b"old bytes")
    _, fs = nearly_full(space)
    ino = fs.stat("/file").ino
    with pytest.raises(DiskFull):
        fs.tree.open(ino, os.O_WRONLY | os.O_TRUNC)
    for flags in (os.O_WRONLY, os.O_RDWR):
        # Databases and lock files are opened so by programs that only read.
        number = fs.tree.open(ino, flags)
        with pytest.raises(DiskFull):
            fs.tree.write(number, 0, b"new")
        fs.tree.release(number)
    assert fs.read_bytes("/file") == b"old bytes"
    fs.close()


def test_status_says_that_writing_is_refused(
    space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    disk, fs = nearly_full(space)
    state = space.state("a").resolve()
    sentence = f"Writing is refused: 43 MiB are free under {state}/staging, and 64 MiB are kept."
    assert fs.status().problem == fs.progress().problem == sentence
    for _ in range(3):
        with pytest.raises(DiskFull):
            fs.write_bytes("/new", b"bytes")
    assert [message for message in caplog.messages if "refused" in message] == [sentence]
    disk.available = 1 << 30
    assert fs.status().problem == ""
    fs.close()
    with space.connect("a", read_only=True, disk=disk) as fs:
        disk.available = 0
        assert "refused" not in fs.status().problem


def test_status_counts_an_open_file_with_unpublished_bytes(space: Space) -> None:
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"public")
        fs.sync(timeout=WAIT_S)
        assert fs.status().pending_ops == 0
        ino = fs.stat("/file").ino
        with fs.open("/file", "ab", 0) as file:
            file.write(b" and more")
            assert fs.tree.get_xattr(ino, b"user.lucid.state") == b"staged"
            assert parts_of(fs).order.pending == 0
            assert fs.status().pending_ops == fs.progress().pending_ops == 1
        fs.sync(timeout=WAIT_S)
        assert fs.status().pending_ops == 0
