"""What cannot be opened or made is refused by name, with an exit code, and nothing is changed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgpack
import pytest

from lucid.config import Config
from lucid.errors import (
    BucketMissing,
    ConfigError,
    CorruptObject,
    DiskFull,
    FilespaceExists,
    FilespaceMissing,
    HistoryFork,
    LucidError,
    ReadOnly,
    StateForeign,
    StateInUse,
    UnsupportedFormat,
    UsageError,
    WrongPassphrase,
)
from lucid.filespace import Filespace, connect, init
from tests.filespace.spaces import (
    BLOCK,
    PASSPHRASE,
    STRETCH,
    WAIT_S,
    Space,
    new_bucket,
    some_bytes,
)
from tests.local.forgetful import ForgetfulDisk


class Place:
    """A filespace in a directory, and a state directory that knows it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.altered = False
        self.store, self.state = root / "store", root / "state"
        self.url = f"file://{self.store}"
        init(self.url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH)
        with self.open() as fs:
            fs.write_bytes("/file", b"bytes")

    def open(self, **changes: object) -> Filespace:
        arguments = {"passphrase": PASSPHRASE, "config": Config(state_dir=self.state), **changes}
        return connect(str(arguments.pop("url", self.url)), **arguments)  # type: ignore[arg-type]

    def open_new(self) -> Filespace:
        """As a device that has seen nothing yet."""
        return self.open(config=Config(state_dir=self.root / "new"))

    def superblock(self, change: Callable[[bytes], bytes]) -> None:
        self.altered = True
        path = self.store / "superblock"
        path.chmod(0o600)
        path.write_bytes(change(path.read_bytes()))

    def fingerprint(self) -> dict[str, bytes]:
        """Everything in the store, and the parts of the state directory that are no cache."""
        files = [*self.store.rglob("*"), self.state / "device", *self.state.glob("staging/*")]
        return {str(path): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def flip(data: bytes) -> bytes:
    """One bit in the middle is another one."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= 4
    return bytes(changed)


def with_field(index: int, value: object) -> Callable[[bytes], bytes]:
    """The same superblock with another value in one field of its body."""

    def change(data: bytes) -> bytes:
        body = msgpack.unpackb(data[8:-64])
        body[index] = value
        return data[:8] + msgpack.packb(body) + data[-64:]

    return change


Case = tuple[Callable[[Place], object], type[LucidError], int]

CASES: dict[str, Case] = {
    "no such directory": (
        lambda place: place.open(url=f"file://{place.root}/nowhere"), BucketMissing, 6,
    ),
    "no filespace there": (
        lambda place: ((place.root / "bare").mkdir(), place.open(url=f"file://{place.root}/bare")),
        FilespaceMissing, 22,
    ),
    "wrong passphrase": (lambda place: place.open(passphrase="guess"), WrongPassphrase, 11),
    "init over a filespace": (
        lambda place: init(place.url, passphrase="new", stretch=STRETCH), FilespaceExists, 21,
    ),
    "init below nothing": (
        lambda place: init(f"file://{place.root}/a/b/c", passphrase="p", stretch=STRETCH),
        BucketMissing, 6,
    ),
    "init without a passphrase": (
        lambda place: init(f"file://{place.root}/bare", passphrase="", stretch=STRETCH),
        UsageError, 2,
    ),
    "a block size that cannot be": (
        lambda place: init(f"file://{place.root}/bare", passphrase="p", block_size=1000,
                           stretch=STRETCH),
        LucidError, 0,
    ),
    "a cipher that is none": (
        lambda place: init(f"file://{place.root}/bare", passphrase="p", cipher="rot13",
                           stretch=STRETCH),
        UsageError, 2,
    ),
    "another superblock than before": (
        lambda place: (place.superblock(flip), place.open()), HistoryFork, 10,
    ),
    "an altered superblock": (
        lambda place: (place.superblock(flip), place.open_new()), CorruptObject, 8,
    ),
    "a format of the future": (
        lambda place: (place.superblock(with_field(0, 2)), place.open_new()),
        UnsupportedFormat, 9,
    ),
    "a feature of the future": (
        lambda place: (place.superblock(with_field(5, [b"time-travel"])), place.open_new()),
        UnsupportedFormat, 9,
    ),
    "a setting that cannot be": (lambda place: Config(memory_bytes=5), ConfigError, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_by_name(place: Place, case: str) -> None:
    work, error, code = CASES[case]
    before = place.fingerprint()
    with pytest.raises(error) as caught:
        work(place)
    assert not code or caught.value.exit_code == code
    assert str(caught.value), "a sentence says what is wrong"
    after = place.fingerprint()
    if place.altered:
        before.pop(f"{place.store}/superblock")
        after.pop(f"{place.store}/superblock")
    assert after == before


def test_one_process_a_state_directory(place: Place) -> None:
    with place.open() as fs:
        with pytest.raises(StateInUse, match=str(os.getpid())) as caught:
            place.open()
        assert caught.value.exit_code == 13
        assert fs.read_bytes("/file") == b"bytes"


def test_the_state_directory_of_another_filespace(place: Place, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = Place(tmp_path / "second")
    with pytest.raises(StateForeign, match="another filespace") as caught:
        place.open(config=Config(state_dir=other.state))
    assert caught.value.exit_code == 12
    assert place.url in str(caught.value)
    with other.open() as fs:
        assert fs.read_bytes("/file") == b"bytes"


def test_a_state_directory_that_others_may_write_to(place: Place) -> None:
    place.state.chmod(0o777)
    with pytest.raises(StateForeign):
        place.open()
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o777


def test_the_log_of_another_history(place: Place) -> None:
    """The store was put back to how it was before: this device has seen more."""
    shutil.copytree(place.store, place.root / "older")
    with place.open() as fs:
        fs.write_bytes("/newer", b"bytes")
    shutil.rmtree(place.store)
    (place.root / "older").rename(place.store)
    with pytest.raises(LucidError) as caught, place.open() as fs:
        fs.write_bytes("/more", b"bytes")
        fs.sync(timeout=WAIT_S)
    assert caught.value.exit_code == 10


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own: root only")
def test_a_full_disk_is_no_space_at_write_and_never_at_close(space: Space) -> None:
    """The disk of the state directory is full (S-26). Nothing that was accepted is lost."""
    full = space.root / "full"
    full.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=200m,mode=0700", "tmpfs", str(full)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        _fill(space)
    finally:
        space.close()
        subprocess.run(["umount", str(full)], check=True)


def _fill(space: Space) -> None:
    fs = space.connect("full/state", cache_bytes=0, cache_free_bytes=0)
    space.plans["full/state"].die()
    kept = {}
    refused = 0
    for number in range(90):
        handle, _ = fs.tree.create(1, b"f%d" % number, 0o644, 0, 0, os.O_WRONLY)
        try:
            fs.tree.write(handle, 0, some_bytes(number, 1_000_000))
            kept[f"/f{number}"] = some_bytes(number, 1_000_000)
        except DiskFull as error:
            refused += 1
            assert (error.errno, error.exit_code) == (errno.ENOSPC, 14)
        fs.tree.flush(handle)
        fs.tree.release(handle)
    assert refused
    assert len(kept) >= 8
    for number in range(40):
        try:
            handle, _ = fs.tree.create(1, b"small%d" % number, 0o644, 0, 0, os.O_WRONLY)
        except DiskFull:
            refused += 1
            continue
        try:
            fs.tree.write(handle, 5, some_bytes(number, 50_000))
            kept[f"/small{number}"] = bytes(5) + some_bytes(number, 50_000)
        except DiskFull:
            refused += 1
        fs.tree.flush(handle)
        fs.tree.release(handle)
    space.plans["full/state"].revive()
    fs.sync(timeout=WAIT_S)
    assert {path: fs.read_bytes(path) for path in kept} == kept
    fs.close()


def test_a_disk_without_space_refuses_and_recovers(space: Space) -> None:
    space.state("a").mkdir(mode=0o700)
    disk = ForgetfulDisk(space.state("a"))
    fs = space.connect("a", disk=disk)
    fs.write_bytes("/before", b"before")
    disk.fail("fallocate", errno.ENOSPC, count=1000)
    with pytest.raises(DiskFull):
        fs.write_bytes("/large", some_bytes(1, 20 << 20))
    disk.heal()
    fs.write_bytes("/after", some_bytes(2, 20 << 20))
    fs.sync(timeout=WAIT_S)
    assert fs.read_bytes("/before") == b"before"
    assert fs.read_bytes("/after") == some_bytes(2, 20 << 20)
    fs.close()


def test_read_only_writes_nothing_at_all(space: Space) -> None:
    with space.connect("a") as fs:
        fs.write_bytes("/file", b"bytes")
    before = dict(space.bucket.objects)
    with space.connect("b", read_only=True) as fs:
        assert fs.read_bytes("/file") == b"bytes"
        chance = Random(1)
        for work in (
            lambda: fs.write_bytes("/new", b"x"),
            lambda: fs.write_bytes("/file", b"x"),
            lambda: fs.mkdir("/d"),
            lambda: fs.remove("/file"),
            lambda: fs.rename("/file", "/other"),
            lambda: fs.chmod("/file", chance.randrange(0o777)),
            lambda: fs.truncate("/file", 0),
            lambda: fs.tree.set_xattr(fs.stat("/file").ino, b"user.a", b""),
        ):
            with pytest.raises(ReadOnly):
                work()
    assert space.bucket.objects == before
    assert new_bucket().keys
