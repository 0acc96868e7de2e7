"""Nothing grows with the work: a thousand files from 32 processes at once, on a real mount, while
the store is slow. Memory, threads and open files stay within bounds, and all of it arrives.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lucid.mount import registry
from tests.cli.conftest import Lucid, own_registry
from tests.filespace.spaces import some_bytes
from tests.mount.stopping_proxy import StoppingProxy
from tests.mount.watchdog import watchdog
from tests.seaweed import S3Server, s3_server

__all__ = ["own_registry", "s3_server"]
pytestmark = [pytest.mark.mount, pytest.mark.slow]

PROCESSES, FILES = 32, 1024
SIZES = (300, 5_000, 40_000, 140_000)
MEMORY_MAX = 300 << 20
THREADS_MAX = 120
"""The rooms' own are about 40, and one for each process that waits in a call."""
OPEN_FILES_MAX = 700
"""Of those 512 may be cached segments."""
LIMIT_S = 110.0
GOES_S, STOPS_S = 0.05, 0.1

WRITER = """
import random, sys
first, last = int(sys.argv[1]), int(sys.argv[2])
for number in range(first, last):
    with open(f"d{number % 7}/{number}", "wb") as file:
        file.write(random.Random(number).randbytes(SIZES[number % len(SIZES)]))
"""


class Slow:
    """A proxy that forwards for a third of the time: each request takes a while, and few bytes come
    through. Ended by `close`."""

    def __init__(self, proxy: StoppingProxy) -> None:
        self._proxy = proxy
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-proxy")
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(GOES_S):
            self._proxy.stop()
            self._ended.wait(STOPS_S)
            self._proxy.go_on()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


class Watch:
    """Looks at a process again and again: the most that it ever had."""

    def __init__(self, pid: int) -> None:
        self._place = Path(f"/proc/{pid}")
        self.threads = self.open_files = self.memory = 0

    def look(self) -> None:
        told = (self._place / "status").read_text()
        fields = dict(re.findall(r"^(Threads|VmHWM):\s+(\d+)", told, re.MULTILINE))
        self.threads = max(self.threads, int(fields["Threads"]))
        self.memory = int(fields["VmHWM"]) * 1024
        self.open_files = max(self.open_files, len(os.listdir(self._place / "fd")))

    @contextmanager
    def within(self) -> Iterator[None]:
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.05):
                self.look()

        thread = threading.Thread(target=run, name="watch")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(10)


@pytest.fixture
def lucid(
    own_home: Path, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lucid]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    made = Lucid(own_home)
    with watchdog(tmp_path, LIMIT_S):
        yield made
        made.clean()


def write_all(point: Path) -> None:
    """Every file, from so many processes at once. Raises for one that fails."""
    code = WRITER.replace("SIZES", repr(SIZES))
    share = FILES // PROCESSES
    writers = [
        subprocess.Popen(
            [sys.executable, "-ISc", code, str(at), str(at + share)],
            cwd=point,
            stderr=subprocess.PIPE,
        )
        for at in range(0, FILES, share)
    ]
    told = [writer.communicate(timeout=LIMIT_S)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * PROCESSES, told


def test_a_thousand_files_at_once_over_a_slow_store(
    lucid: Lucid, s3_server: S3Server, tmp_path: Path
) -> None:
    port = urlsplit(s3_server.endpoint).port
    assert port is not None
    bucket, point, other = s3_server.make_bucket(), tmp_path / "drive", tmp_path / "other"
    point.mkdir()
    other.mkdir()
    lucid.run("init", f"s3://{bucket}/team")
    proxy = StoppingProxy(port)
    slow = Slow(proxy)
    try:
        store = f"s3://{bucket}/team?endpoint={proxy.endpoint}"
        lucid.run("mount", store, point, "--state-dir", tmp_path / "a")
        record = registry.find(point)
        assert record is not None
        for number in range(7):
            (point / f"d{number}").mkdir()
        watch = Watch(record.pid)
        with watch.within():
            write_all(point)
            lucid.run("sync", point)
            watch.look()
        lucid.run("umount", point)
    finally:
        slow.close()
        proxy.close()
    assert 0 < watch.memory < MEMORY_MAX
    assert 0 < watch.threads < THREADS_MAX
    assert 0 < watch.open_files < OPEN_FILES_MAX
    lucid.run("mount", f"s3://{bucket}/team", other, "--state-dir", tmp_path / "b")
    for number in range(FILES):
        content = (other / f"d{number % 7}" / str(number)).read_bytes()
        assert content == some_bytes(number, SIZES[number % len(SIZES)]), number
    lucid.run("umount", other)
