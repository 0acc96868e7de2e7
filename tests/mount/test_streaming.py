"""A large file comes block by block: what is fetched is what is read, and a little ahead.

Written on one mount, read on another with an empty state directory, over a bucket and over a
directory. What was fetched is the daemon's own count, `bytes_fetched` and `requests` of
`lucid status`. The 1 GiB form is LUCID_EXAMPLES' affair: it takes a minute on a small machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Lucid
from tests.mount.watchdog import watchdog
from tests.seaweed import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow]

MiB = 1 << 20
PIECE = 8 * MiB
LIMIT_S = 200.0
SIZES = [128 * MiB, *([1024 * MiB] if "LUCID_EXAMPLES" in os.environ else [])]

AHEAD = 4 * MiB
"""What reading 1 MiB in the middle may fetch."""

POLLS = 6
"""Looks at the log, which are GETs too and bring nothing, between two questions for the status."""


class Content:
    """Bytes that no two blocks share and nobody has to keep: 8 MiB of noise, whose every 64-bit
    word is changed by the number of the piece."""

    def __init__(self) -> None:
        self._noise = int.from_bytes(os.urandom(PIECE), "little")
        self._every_word = ((1 << (8 * PIECE)) - 1) // ((1 << 64) - 1)

    def piece(self, number: int) -> bytes:
        return (self._noise ^ self._every_word * (number + 1)).to_bytes(PIECE, "little")

    def at(self, offset: int, length: int) -> bytes:
        number, within = divmod(offset, PIECE)
        assert within + length <= PIECE
        return self.piece(number)[within : within + length]


@dataclass
class Fetched:
    """What a daemon has fetched since it was mounted."""

    requests: dict[str, int]
    size: int


@dataclass
class Space:
    """One filespace; each mount is a machine with nothing local."""

    lucid: Lucid
    store: str
    top: Path
    mounts: int = 0
    point: Path = Path()

    def mount(self) -> Path:
        self.mounts += 1
        self.point = self.top / f"drive{self.mounts}"
        self.point.mkdir()
        state = self.top / f"state{self.mounts}"
        self.lucid.run("mount", self.store, self.point, "--state-dir", state)
        return self.point

    def umount(self) -> None:
        self.lucid.run("umount", self.point)

    def fetched(self) -> Fetched:
        status: dict[str, Any] = self.lucid.json("status", self.point)
        return Fetched(status["requests"], status["bytes_fetched"])

    def fetched_by(self, action: Callable[[], None]) -> Fetched:
        before = self.fetched()
        action()
        after = self.fetched()
        requests = {
            name: count - before.requests.get(name, 0) for name, count in after.requests.items()
        }
        return Fetched(requests, after.size - before.size)


@pytest.fixture(params=["directory", "s3"])
def space(
    request: pytest.FixtureRequest, own_home: Path, own_registry: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Space]:  # fmt: skip
    lucid = Lucid(own_home)
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        store = f"s3://{server.make_bucket()}/streaming"
    else:
        (tmp_path / "store").mkdir()
        store = f"file://{tmp_path}/store"
    with watchdog(tmp_path, LIMIT_S):
        try:
            lucid.run("init", store)
            yield Space(lucid, store, tmp_path)
        finally:
            lucid.clean()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size >> 20}MiB")
def test_a_large_file_is_read_where_it_is_read(
    space: Space, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Content()
    point = space.mount()
    began = time.monotonic()
    with (point / "large").open("wb", buffering=0) as file:
        for number in range(size // PIECE):
            assert file.write(content.piece(number)) == PIECE
    wrote_s = time.monotonic() - began
    space.umount()
    sent_s = time.monotonic() - began

    point = space.mount()
    assert (point / "large").stat().st_size == size
    descriptor = os.open(point / "large", os.O_RDONLY)
    try:
        middle = size // 2 + 12_345 * 4096 % PIECE // 2
        took: list[float] = []

        def read(offset: int, length: int) -> Callable[[], None]:
            def action() -> None:
                start = time.monotonic()
                assert os.pread(descriptor, length, offset) == content.at(offset, length)
                took.append(time.monotonic() - start)

            return action

        first = space.fetched_by(read(size - 3 * MiB, 4096))
        inside = space.fetched_by(read(middle, MiB))
        again = space.fetched_by(read(middle, MiB))
    finally:
        os.close(descriptor)
    with capsys.disabled():
        print(
            f"\n  {size >> 20} MiB: written {size / MiB / wrote_s:.0f} MB/s, in the store "
            f"{size / MiB / sent_s:.0f} MB/s; first 4 KiB after {took[0] * 1000:.1f} ms with "
            f"{first.size:,} bytes; 1 MiB in the middle {took[1] * 1000:.1f} ms with "
            f"{inside.size:,} bytes"
        )
    assert 1 <= first.requests["get"] <= 1 + POLLS, "one GET of one block"
    assert first.size <= 2 * 128 * 1024
    assert MiB - 256 * 1024 <= inside.size <= AHEAD
    assert again.size == 0, "the second read is local"


def test_all_of_it_is_right(space: Space) -> None:
    """32 MiB read to the end, in the pieces that a program likes, fetched about once."""
    content = Content()
    point = space.mount()
    with (point / "f").open("wb", buffering=0) as file:
        for number in range(4):
            file.write(content.piece(number))
    space.umount()
    point = space.mount()

    def read() -> None:
        with (point / "f").open("rb", buffering=0) as file:
            for number in range(4):
                piece = content.piece(number)
                for start in range(0, PIECE, 100_000):
                    part = piece[start : start + 100_000]
                    assert file.read(len(part)) == part
            assert file.read(1) == b""

    fetched = space.fetched_by(read)
    assert 4 * PIECE <= fetched.size <= 4 * PIECE * 1.1
