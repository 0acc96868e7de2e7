"""Contents and extended attributes through a real mount over a file system in memory."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lucid.mount.options import MountOptions
from tests.mount.drive import Drive
from tests.mount.test_names import fails_with

pytestmark = pytest.mark.mount

EVENTUALLY_S = 60.0


def some_bytes(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 131_071, 131_072, 131_073, 3_000_001])
def test_sizes(drive: Drive, size: int) -> None:
    content = some_bytes(size)
    (drive.point / "f").write_bytes(content)
    assert (drive.point / "f").stat().st_size == size
    assert (drive.point / "f").read_bytes() == content
    assert drive.python("print(len(open('f', 'rb').read()))") == f"{size}\n"


def test_unaligned_reads_and_writes(drive: Drive) -> None:
    rng = random.Random(7)
    model = bytearray(600_000)
    with (drive.point / "f").open("w+b", buffering=0) as file:
        file.truncate(len(model))
        for _ in range(300):
            offset = rng.randrange(len(model) - 70_000)
            piece = rng.randbytes(rng.randrange(1, 70_000))
            os.pwrite(file.fileno(), piece, offset)
            model[offset : offset + len(piece)] = piece
            start, length = rng.randrange(len(model)), rng.randrange(1, 200_000)
            assert os.pread(file.fileno(), length, start) == model[start : start + length]
    assert (drive.point / "f").read_bytes() == model


def test_unlinked_while_open(drive: Drive) -> None:
    """S-6"""
    with (drive.point / "f").open("w+b", buffering=0) as file:
        file.write(b"before")
        os.unlink(drive.point / "f")
        file.write(b" after")
        assert os.pread(file.fileno(), 100, 0) == b"before after"
        os.ftruncate(file.fileno(), 3)
        assert os.pread(file.fileno(), 100, 0) == b"bef"
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "f"))


def test_sparse(drive: Drive) -> None:
    """S-8, S-18"""
    with (drive.point / "f").open("w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"end", 1 << 40)
        assert os.pread(file.fileno(), 10, 12345) == bytes(10)
        assert os.pread(file.fileno(), 10, 1 << 40) == b"end"
    status = (drive.point / "f").stat()
    assert status.st_size == (1 << 40) + 3
    assert status.st_blocks < 1000


def test_truncate_both_ways(drive: Drive) -> None:
    path = drive.point / "f"
    path.write_bytes(b"x" * 200_000)
    os.truncate(path, 131_073)
    assert path.read_bytes() == b"x" * 131_073
    os.truncate(path, 140_000)
    assert path.read_bytes() == b"x" * 131_073 + bytes(140_000 - 131_073)
    with path.open("r+b") as file:
        file.truncate(10)
        assert os.fstat(file.fileno()).st_size == 10
    assert path.read_bytes() == b"x" * 10
    with path.open("wb"):
        pass
    assert path.stat().st_size == 0


def test_append(drive: Drive) -> None:
    """S-9"""
    with (drive.point / "f").open("ab", buffering=0) as one:
        one.write(b"one ")
        with (drive.point / "f").open("ab", buffering=0) as two:
            two.write(b"two ")
            one.write(b"three")
    assert (drive.point / "f").read_bytes() == b"one two three"


def test_append_where_another_machine_appended(drive: Drive) -> None:
    """The kernel sends its own idea of the end; only the end that is known here counts."""
    path = drive.point / "log"
    path.write_bytes(b"a" * 100)
    ino = path.stat().st_ino
    with path.open("ab", buffering=0) as file:
        file.write(b"b" * 10)
        drive.surface._put(drive.surface._node(ino), 110, b"c" * 390)
        file.write(b"d" * 5)
    expected = b"a" * 100 + b"b" * 10 + b"c" * 390 + b"d" * 5
    assert drive.surface.read(drive.surface.open(ino, os.O_RDONLY), 0, 9999) == expected
    eventually(lambda: path.read_bytes() == expected)


def eventually(holds: Callable[[], bool], within_s: float = EVENTUALLY_S) -> None:
    """Waits for what nothing tells of: looks again until it holds, and fails after `within_s`."""
    pause, end = threading.Event(), time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        pause.wait(0.001)


def test_shared_mapping(drive: Drive) -> None:
    """S-10"""
    (drive.point / "f").write_bytes(bytes(300_000))
    drive.python(
        "import mmap, os\n"
        "file = open('f', 'r+b')\n"
        "view = mmap.mmap(file.fileno(), 0)\n"
        "view[131_000:131_200] = b'm' * 200\n"
        "view[299_999] = 7\n"
        "file.close()\n"
        "view.flush()\n"
        "assert open('f', 'rb').read()[131_000:131_200] == b'm' * 200\n"
        "view[5:10] = b'later'\n"
        "view.close()\n"
    )
    content = (drive.point / "f").read_bytes()
    assert content[131_000:131_200] == b"m" * 200
    assert content[299_999] == 7
    assert content[5:10] == b"later"
    ino = (drive.point / "f").stat().st_ino
    handle = drive.surface.open(ino, os.O_RDONLY)
    assert drive.surface.read(handle, 0, 300_000) == content
    drive.surface.release(handle)


def test_fsync_of_files_and_directories(drive: Drive) -> None:
    with (drive.point / "f").open("wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    directory = os.open(drive.point, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    assert drive.surface.trace.count("fsync") == 2
    assert drive.surface.trace.count("fsync_directory") == 1


def test_locks_within_the_machine(drive: Drive) -> None:
    """S-42"""
    (drive.point / "f").touch()
    with (drive.point / "f").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code = (
            "import fcntl, sys\n"
            "try:\n"
            "    fcntl.flock(open('f'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError:\n"
            "    print('held')\n"
        )
        assert drive.python(code) == "held\n"
    assert drive.python(code) == ""


# --- Extended attributes -----------------------------------------------------------------------


def test_xattrs(drive: Drive) -> None:
    """S-13"""
    path = drive.point / "f"
    path.touch()
    assert os.listxattr(path) == []
    os.setxattr(path, "user.colour", b"red")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.big", some_bytes(65_536))
    assert sorted(os.listxattr(path)) == ["user.big", "user.colour", "user.empty"]
    assert os.getxattr(path, "user.colour") == b"red"
    assert os.getxattr(path, "user.empty") == b""
    assert os.getxattr(path, "user.big") == some_bytes(65_536)
    os.removexattr(path, "user.colour")
    fails_with(errno.ENODATA, lambda: os.getxattr(path, "user.colour"))
    fails_with(errno.ENODATA, lambda: os.removexattr(path, "user.colour"))
    assert os.getxattr(path, "user.lucid.state") == b"clean"


def test_xattrs_create_and_replace(drive: Drive) -> None:
    path = drive.point / "f"
    path.touch()
    fails_with(errno.ENODATA, lambda: os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE))
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    fails_with(errno.EEXIST, lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE))
    os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"3"


ACL = struct.pack("<I" + "HHI" * 3, 2, 1, 6, ~0 & 0xFFFFFFFF, 4, 6, ~0 & 0xFFFFFFFF, 32, 4, 0)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


def test_xattrs_that_are_refused(drive: Drive) -> None:
    """S-13, S-65"""
    path = drive.point / "f"
    path.touch()
    refused = {
        "system.posix_acl_access": ACL,
        "security.capability": CAPABILITY,
        "security.selinux": b"x",
    }
    for name, value in refused.items():
        fails_with(errno.EOPNOTSUPP, partial(os.getxattr, path, name))
        fails_with(errno.EOPNOTSUPP, partial(os.setxattr, path, name, value))
        fails_with(errno.EOPNOTSUPP, partial(os.removexattr, path, name))
    assert "get_xattr" not in drive.surface.trace
    assert "set_xattr" not in drive.surface.trace
    fails_with(errno.ERANGE, lambda: os.setxattr(path, "user." + "n" * 251, b"x"))
    fails_with(errno.E2BIG, lambda: os.setxattr(path, "user.x", bytes(65_537)))


def test_cp_a_keeps_modes(drive: Drive, tmp_path: Path) -> None:
    for mode in (0o664, 0o777, 0o600, 0o444):
        (tmp_path / f"{mode:o}").touch()
        (tmp_path / f"{mode:o}").chmod(mode)
        subprocess.run(["cp", "-a", tmp_path / f"{mode:o}", drive.point], check=True, timeout=30)
        assert (drive.point / f"{mode:o}").stat().st_mode & 0o7777 == mode


# --- The exact requests of common patterns -----------------------------------------------------

CONTENT = {"create", "open", "open+trunc", "read", "write", "flush", "release", "set_attributes"}


def contents_of(trace: list[str]) -> list[str]:
    """Nobody waits for a RELEASE, so it may come after the program has ended."""
    eventually(lambda: "release" in trace)
    return [call for call in trace if call in CONTENT]


def shell(drive: Drive, command: str) -> None:
    trace = drive.surface.trace
    opened = sum(trace.count(call) for call in ("create", "open", "open+trunc"))
    eventually(lambda: trace.count("release") == opened)
    trace.clear()
    subprocess.run(["sh", "-c", command], cwd=drive.point, check=True, timeout=30)


def test_trace_of_a_redirect(drive: Drive) -> None:
    """A FLUSH comes before the first byte: publishing there would publish an empty file."""
    shell(drive, "echo new > f")
    assert contents_of(drive.surface.trace) == ["create", "flush", "write", "flush", "release"]


def test_trace_of_a_redirect_over_a_file(drive: Drive) -> None:
    """The truncation comes with the open, not as a change of its own."""
    (drive.point / "f").write_text("old")
    shell(drive, "echo new > f")
    assert contents_of(drive.surface.trace) == ["open+trunc", "flush", "write", "flush", "release"]


def test_trace_of_a_forking_writer(drive: Drive) -> None:
    """Each child that exits flushes; only the last close releases."""
    drive.surface.trace.clear()
    drive.python(
        "import os\n"
        "fd = os.open('f', os.O_CREAT | os.O_WRONLY)\n"
        "for _ in range(2):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os.write(fd, b'child'); os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "os.close(fd)\n"
    )
    calls = contents_of(drive.surface.trace)
    assert calls == ["create", "write", "flush", "write", "flush", "flush", "release"]


def test_writes_come_in_large_pieces(drive: Drive) -> None:
    # Memory that nobody has touched, as of bytes(1 << 20), comes page by page on newer kernels.
    content = some_bytes(1 << 20)
    with (drive.point / "f").open("wb", buffering=0) as file:
        file.write(content)
    assert drive.surface.trace.count("write") == 8


def test_one_open_makes_no_other_request(drive: Drive) -> None:
    (drive.point / "f").write_bytes(b"x" * 100)
    drive.surface.trace.clear()
    (drive.point / "f").read_bytes()
    assert set(drive.surface.trace) <= {"lookup", "attributes", "open", "read", "flush", "release"}
    assert len(drive.surface.trace) <= 8


def test_default_options_reach_the_kernel(make_drive: Callable[..., Drive]) -> None:
    drive = make_drive(options=MountOptions(name="Größe, 1"))
    (line,) = [
        line for line in Path("/proc/mounts").read_text().split("\n") if str(drive.point) in line
    ]
    source, _, kind, options = line.split(" ")[:4]
    assert (source, kind) == ("lucid:Gr__e__1", "fuse.lucid")
    assert {"nosuid", "nodev", "default_permissions"} <= set(options.split(","))
