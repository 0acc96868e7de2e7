"""fallocate on a mount: sizes grow, ranges become zeros, and blocks of zeros become holes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.filespace.spaces import Space
from tests.mount.drive import Drive
from tests.mount.program import Program
from tests.mount.test_low import Mounted

pytestmark = pytest.mark.mount

BLOCK = 128 * 1024


def fallocate(path: Path, *arguments: str) -> int:
    return subprocess.run(
        ["fallocate", *arguments, path], stderr=subprocess.DEVNULL, check=False
    ).returncode


def test_a_file_grows_and_keeps_what_it_had(drive: Drive) -> None:
    """S-833."""
    path = drive.point / "f"
    path.write_bytes(b"data")
    assert fallocate(path, "-l", "1000") == 0
    assert path.read_bytes() == b"data" + bytes(996)
    assert fallocate(path, "-l", "500") == 0
    assert path.stat().st_size == 1000, "it never shrinks"
    assert fallocate(path, "-n", "-l", "5000") == 0
    assert path.stat().st_size == 1000, "room that is set aside changes nothing"


def test_posix_fallocate(drive: Drive) -> None:
    program = Program(drive.point)
    try:
        program.ask("open_('f')")
        assert program.ask("os.posix_fallocate(3, 100, 50)") == "None"
        assert program.ask("os.fstat(3).st_size") == "150"
        assert program.ask("os.posix_fallocate(os.open('f', os.O_RDONLY), 0, 5)") == "EBADF"
    finally:
        program.end()
    assert "write" not in drive.surface.trace, "the library need not write zeros itself"


def test_ranges_become_zeros(drive: Drive) -> None:
    """S-833."""
    path = drive.point / "f"
    data = os.urandom(1 << 20)
    path.write_bytes(data)
    assert fallocate(path, "-p", "-o", "1000", "-l", "300000") == 0
    expected = data[:1000] + bytes(300_000) + data[301_000:]
    assert path.read_bytes() == expected
    assert fallocate(path, "-p", "-o", "900000", "-l", "9000000") == 0
    assert path.read_bytes() == expected[:900_000] + bytes((1 << 20) - 900_000)
    assert fallocate(path, "-z", "-o", "0", "-l", str(2 << 20)) == 0
    assert path.read_bytes() == bytes(2 << 20)
    assert fallocate(path, "-z", "-n", "-o", "0", "-l", str(3 << 20)) == 0
    assert path.stat().st_size == 2 << 20


def test_what_cannot_be_done_is_refused(drive: Drive) -> None:
    """S-833."""
    path = drive.point / "f"
    path.write_bytes(b"x" * BLOCK * 2)
    for mode in ("-c", "-i"):
        assert fallocate(path, mode, "-o", "0", "-l", str(BLOCK)) != 0
    assert path.read_bytes() == b"x" * BLOCK * 2


def test_a_punched_block_takes_no_room(tmp_path: Path) -> None:
    """S-833."""
    space = Space(tmp_path)
    mounted = Mounted(space.connect("one"), space.root / "drive")
    try:
        path = mounted.point / "f"
        mounted.space.write_bytes("/f", os.urandom(8 * BLOCK))
        mounted.space.sync()
        before = path.stat().st_blocks
        assert fallocate(path, "-p", "-o", str(BLOCK), "-l", str(4 * BLOCK)) == 0
        mounted.space.sync()
        assert path.stat().st_blocks <= before - 4 * BLOCK // 512
        assert path.read_bytes()[BLOCK : 5 * BLOCK] == bytes(4 * BLOCK)
    finally:
        mounted.end()
        space.close()
