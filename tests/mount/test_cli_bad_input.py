"""What cannot be is refused with a sentence and an exit code of its own, and nothing is changed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid import errors
from lucid.crypto.passphrase import Stretch
from lucid.filespace import init
from lucid.format.canonical import pack, unpack
from lucid.format.limits import FORMAT_VERSION
from lucid.mount import mountpoint, registry
from tests.cli.conftest import Lucid
from tests.mount.unfit_store import UnfitStore
from tests.mount.watchdog import watchdog
from tests.seaweed import S3Server

pytestmark = pytest.mark.mount

LIMIT_S = 120.0
QUICK = Stretch(1, 64 << 20)


@pytest.fixture
def lucid(own_home: Path, own_registry: None, tmp_path: Path) -> Iterator[Lucid]:
    made = Lucid(own_home)
    with watchdog(tmp_path, LIMIT_S):
        yield made
        made.clean()


@pytest.fixture
def point(tmp_path: Path) -> Path:
    made = tmp_path / "drive"
    made.mkdir()
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A filespace in a directory."""
    made = tmp_path / "store"
    made.mkdir()
    init(f"file://{made}", passphrase="correct horse", stretch=QUICK)
    return made


def content_of(top: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def at(server: S3Server, monkeypatch: pytest.MonkeyPatch, **instead: str) -> None:
    for name, value in (server.environment() | instead).items():
        monkeypatch.setenv(name, value)


# --- The store -----------------------------------------------------------------------------------


def test_no_such_bucket(
    lucid: Lucid, point: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(s3_server, monkeypatch)
    for command in (["init", "s3://nowhere/x"], ["mount", "s3://nowhere/x", point]):
        said = lucid.error(errors.BucketMissing.exit_code, *command)
        assert "nowhere" in said
        assert "Make it first" in said
    assert not point.is_mount()


def test_wrong_credentials(
    lucid: Lucid, point: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.make_bucket()
    at(s3_server, monkeypatch, AWS_SECRET_ACCESS_KEY="not this one")
    for command in (["init", f"s3://{bucket}/x"], ["mount", f"s3://{bucket}/x", point]):
        said = lucid.error(errors.StoreDenied.exit_code, *command)
        assert "AWS_SECRET_ACCESS_KEY" in said
        assert "not this one" not in said
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)


def test_no_credentials_at_all(
    lucid: Lucid, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(s3_server, monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS_ACCESS_KEY_ID" in lucid.error(
        errors.StoreDenied.exit_code, "init", f"s3://{s3_server.make_bucket()}/x"
    )


@pytest.mark.slow
def test_an_endpoint_that_nobody_serves(
    lucid: Lucid, point: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    at(s3_server, monkeypatch, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{free}")
    said = lucid.error(errors.StoreUnavailable.exit_code, "mount", "s3://bucket/x", point)
    assert "AWS_ENDPOINT_URL" in said
    assert not point.is_mount()


def test_a_store_without_conditional_writes(
    lucid: Lucid, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = UnfitStore()
    try:
        at(s3_server, monkeypatch, AWS_ENDPOINT_URL_S3=store.endpoint)
        said = lucid.error(errors.StoreUnfit.exit_code, "init", "s3://bucket/x")
        assert "s3://bucket/x" in said
        assert "Use a store whose conditional writes are atomic" in said
        assert not [key for key in store.objects if "superblock" in key or "log/" in key]
    finally:
        store.close()


@pytest.mark.parametrize("store", ["http://x/y", "/srv/store", "s3:bucket", "file://relative"])
def test_what_is_no_store(lucid: Lucid, point: Path, store: str) -> None:
    for command in (["init", store], ["mount", store, point], ["fsck", store]):
        assert "is no store" in lucid.error(errors.UsageError.exit_code, *command)


# --- The filespace -------------------------------------------------------------------------------


def test_a_filespace_exists_already(lucid: Lucid, directory: Path) -> None:
    before = content_of(directory)
    said = lucid.error(errors.FilespaceExists.exit_code, "init", f"file://{directory}")
    assert "already" in said
    assert content_of(directory) == before


def test_a_wrong_passphrase(lucid: Lucid, directory: Path, point: Path) -> None:
    before = content_of(directory)
    lucid.passphrase = "wrong horse"
    for command in (["mount", f"file://{directory}", point], ["fsck", f"file://{directory}"]):
        said = lucid.error(errors.WrongPassphrase.exit_code, *command)
        assert "passphrase" in said
        assert "wrong horse" not in said
    assert content_of(directory) == before
    assert not point.is_mount()


def test_no_passphrase_and_nobody_to_ask(lucid: Lucid, directory: Path, point: Path) -> None:
    lucid.passphrase = None
    said = lucid.error(errors.UsageError.exit_code, "mount", f"file://{directory}", point)
    assert "LUCID_PASSPHRASE" in said


@pytest.mark.parametrize("new", ["version", "feature"])
def test_a_format_that_is_newer(lucid: Lucid, directory: Path, point: Path, new: str) -> None:
    """Version and features stand in clear: no key is needed to refuse them."""
    superblock = directory / "superblock"
    body = superblock.read_bytes()
    fields = unpack(body[8:-64])
    if new == "version":
        fields[0] = FORMAT_VERSION + 1
    else:
        fields[5] = [b"teleportation"]
    superblock.unlink()
    superblock.write_bytes(body[:8] + pack(fields) + body[-64:])
    for command in (["mount", f"file://{directory}", point], ["fsck", f"file://{directory}"]):
        said = lucid.error(errors.UnsupportedFormat.exit_code, *command)
        assert ("teleportation" if new == "feature" else str(FORMAT_VERSION + 1)) in said
        assert "newer" in said
    assert not point.is_mount()


def test_a_superblock_that_was_altered(lucid: Lucid, directory: Path, point: Path) -> None:
    superblock = directory / "superblock"
    body = bytearray(superblock.read_bytes())
    body[-1] ^= 1
    superblock.unlink()
    superblock.write_bytes(body)
    said = lucid.error(errors.DataError.exit_code, "mount", f"file://{directory}", point)
    assert "superblock" in said


# --- This machine --------------------------------------------------------------------------------


def test_mount_points_that_cannot_be(lucid: Lucid, directory: Path, tmp_path: Path) -> None:
    store, full = f"file://{directory}", tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("kept")
    for code, point, word in (
        (errors.MountPointMissing.exit_code, tmp_path / "none", "mkdir -p"),
        (errors.MountPointMissing.exit_code, full / "x", "not a directory"),
        (errors.MountPointNotEmpty.exit_code, full, "not empty"),
        (errors.MountPointBusy.exit_code, Path("/proc"), "already"),
    ):
        assert word in lucid.error(code, "mount", store, point)
    assert (full / "x").read_text() == "kept"
    assert registry.records() == []


def test_a_state_directory_in_use(
    lucid: Lucid, directory: Path, point: Path, tmp_path: Path
) -> None:
    store, state = f"file://{directory}", tmp_path / "state"
    lucid.run("mount", store, point, "--state-dir", state)
    (point / "f").write_text("there")
    second = tmp_path / "second"
    second.mkdir()
    said = lucid.error(errors.StateInUse.exit_code, "mount", store, second, "--state-dir", state)
    assert "Unmount that one first" in said
    assert (point / "f").read_text() == "there"
    assert not second.is_mount()


def test_a_state_directory_of_another_filespace(
    lucid: Lucid, directory: Path, point: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    init(f"file://{other}", passphrase="correct horse", stretch=QUICK)
    state = tmp_path / "state"
    lucid.run("mount", f"file://{directory}", point, "--state-dir", state)
    lucid.run("umount", point)
    before = content_of(state)
    said = lucid.error(
        errors.StateForeign.exit_code, "mount", f"file://{other}", point, "--state-dir", state
    )
    assert "another filespace" in said
    assert content_of(state).keys() == before.keys()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_without_room_for_the_state(
    lucid: Lucid, directory: Path, point: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        said = lucid.error(
            errors.DiskFull.exit_code,
            "mount", f"file://{directory}", point, "--state-dir", disk / "state",
        )  # fmt: skip
        assert "Free some space" in said
        assert not point.is_mount()
    finally:
        subprocess.run(["umount", disk], check=True)


BLOCKED = """
import os, sys
sys.modules["llfuse"] = None
import importlib.util
found = importlib.util.find_spec
def without(name, package=None):
    return None if name == "llfuse" else found(name, package)
importlib.util.find_spec = without
from lucid.cli.main import main
sys.exit(main())
"""
"""`lucid` in a Python that has no llfuse."""


def test_llfuse_missing(lucid: Lucid, directory: Path, point: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "mount", f"file://{directory}", str(point)],
        capture_output=True, text=True, env=lucid.environment, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == errors.FuseMissing.exit_code, done.stderr
    assert "pip install llfuse" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide /dev/fuse")
def test_no_dev_fuse(lucid: Lucid, directory: Path, point: Path) -> None:
    """In a mount namespace of its own, with a plain file system over /dev."""
    hidden = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"'
    command = lucid.command("mount", f"file://{directory}", point)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", *command],
        capture_output=True, text=True, env=lucid.environment, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == errors.FuseMissing.exit_code, done.stderr
    assert "/dev/fuse is missing" in done.stderr
    assert mountpoint.find(point) is None
