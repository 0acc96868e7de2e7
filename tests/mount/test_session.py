"""How a mount begins and cannot begin: what libfuse and the machine have to say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from lucid.errors import FuseMissing, MountError, UsageError
from lucid.mount import mountpoint
from lucid.mount.options import MountOptions
from lucid.mount.session import Session
from tests.mount.drive import Drive
from tests.mount.memory_surface import MemorySurface

pytestmark = pytest.mark.mount


def test_one_drive_a_process(drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with pytest.raises(MountError, match="has a drive mounted already"):
        Session(MemorySurface(), tmp_path / "second", MountOptions()).run()
    (drive.point / "f").write_text("the first goes on")


def test_one_after_the_other(make_drive: Callable[..., Drive]) -> None:
    for text in ("first", "second"):
        drive = make_drive()
        (drive.point / "f").write_text(text)
        assert (drive.point / "f").read_text() == text
        drive.stop()
        assert drive.ended_by == [None]
        assert mountpoint.find(drive.point) is None


def test_what_libfuse_says_is_passed_on(
    make_drive: Callable[..., Drive],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for_libfuse = MountOptions.for_libfuse
    with monkeypatch.context() as patch:
        patch.setattr(MountOptions, "for_libfuse", lambda self: for_libfuse(self) | {"max_read=x"})
        with pytest.raises(MountError, match="cannot be mounted: fuse: mount failed"):
            make_drive()
    assert "fuse" not in capfd.readouterr().err
    drive = make_drive()
    (drive.point / "f").write_text("and then it works")


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("fuse: failed to open /dev/fuse: Permission denied", FuseMissing, "may not open"),
        ("fuse: failed to exec fusermount: No such file", FuseMissing, "fuse3"),
        ("fuse: device not found, try 'modprobe fuse' /dev/fuse", FuseMissing, "modprobe"),
        ("fusermount: allow_other only allowed if 'user_allow_other'", MountError, "fuse.conf"),
        ("", MountError, "does not say why"),
    ],
)  # fmt: skip
def test_what_to_do_about_it(
    said: str,
    kind: type[MountError],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    def init(*arguments: object) -> None:
        os.write(2, said.encode())
        raise RuntimeError("fuse_mount failed")

    monkeypatch.setattr("llfuse.init", init)
    with pytest.raises(MountError, match=told) as raised:
        Session(MemorySurface(), tmp_path, MountOptions()).run()
    assert type(raised.value) is kind


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    mountpoint.require_fuse()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(FuseMissing, match="pip install llfuse"):
            mountpoint.require_fuse()
    with monkeypatch.context() as patch:
        patch.setattr(mountpoint, "DEVICE", Path("/dev/none"))
        with pytest.raises(FuseMissing, match="modprobe fuse"):
            mountpoint.require_fuse()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        patch.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(FuseMissing, match="Install the package fuse3"):
            mountpoint.require_fuse()


def test_options() -> None:
    parsed = MountOptions.parse(("owners, allow_other", "ro", "nonempty,rw"))
    assert parsed == MountOptions(owners=True, allow_other=True, read_only=True, nonempty=True)
    assert {"allow_other", "nonempty", "ro"} <= parsed.for_libfuse()
    assert not {"allow_other", "nonempty", "ro"} & MountOptions().for_libfuse()
    assert {"atomic_o_trunc", "big_writes", "nosuid", "nodev"} <= MountOptions().for_libfuse()
    with pytest.raises(UsageError, match="-o suid is unknown"):
        MountOptions.parse(("suid",))
