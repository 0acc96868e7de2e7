"""What is here stays quick while the store hangs, or while others are busy.

A store that died quietly is a proxy that stops forwarding: connections stay open, nothing comes.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lucid.config import Config
from lucid.filespace import Filespace, connect
from tests.cli.conftest import Lucid
from tests.mount.stopping_proxy import StoppingProxy
from tests.mount.watchdog import watchdog
from tests.seaweed import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LIMIT_S = 220.0
BLOCK = 128 * 1024
HUNG_READS = 64
QUICK_S = 0.05
"""p99 of a cached read and of stat while reads hang."""
STAT_S = 0.005
"""p99 of stat while another client's ops arrive, on a machine that does nothing else."""
BUSY = 10
"""How much slower it may be: tests run beside others, on machines of any size."""
ENTRIES, OPS = 10, 10_000
BOUND_S = 2 * Config().read_timeout_s + 15.0
"""A read fails in this time: the kernel asks again for a page that its read-ahead did not get."""


@dataclass
class Place:
    """A filespace behind a proxy."""

    lucid: Lucid
    store: str
    top: Path
    proxy: StoppingProxy

    def mount(self, name: str) -> Path:
        point = self.top / name
        point.mkdir(exist_ok=True)
        self.lucid.run("mount", self.store, point, "--state-dir", self.top / f"state-{name}")
        return point


@pytest.fixture
def place(
    own_home: Path, own_registry: None, tmp_path: Path, s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:  # fmt: skip
    port = urlsplit(s3_server.endpoint).port
    assert port is not None
    proxy = StoppingProxy(port)
    surroundings = s3_server.environment() | {"AWS_ENDPOINT_URL_S3": proxy.endpoint}
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    lucid = Lucid(own_home)
    with watchdog(tmp_path, LIMIT_S):
        try:
            made = Place(lucid, f"s3://{s3_server.make_bucket()}/quick", tmp_path, proxy)
            lucid.run("init", made.store)
            yield made
        finally:
            proxy.go_on()
            lucid.clean()
            proxy.close()


def p99(call: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.monotonic()
        call()
        took.append(time.monotonic() - began)
    return statistics.quantiles(took, n=100)[98]


def outcome_of_read(path: Path) -> str:
    try:
        return f"{len(path.read_bytes())} bytes"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.mark.timeout(LIMIT_S + 40)
def test_a_store_that_hangs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """S-28, S-43."""
    point = place.mount("first")
    content = os.urandom(300_000)
    for number in range(HUNG_READS):
        (point / f"far{number}").write_bytes(content)
    (point / "near").write_bytes(content)
    place.lucid.run("umount", point)
    point = place.mount("second")
    assert (point / "near").read_bytes() == content
    place.proxy.stop()

    outcomes: list[str] = []
    readers = [
        threading.Thread(
            target=lambda number=number: outcomes.append(outcome_of_read(point / f"far{number}"))
        )
        for number in range(HUNG_READS)
    ]
    began = time.monotonic()
    for reader in readers:
        reader.start()
    descriptor = os.open(point / "near", os.O_RDONLY)
    try:

        def cached_read() -> None:
            # Not from the kernel's pages: from the daemon.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(descriptor, 4096, 128 * 1024) == content[131_072 : 131_072 + 4096]

        reads, stats = p99(cached_read, 400), p99((point / "far0").stat, 400)
    finally:
        os.close(descriptor)
    measured_s = time.monotonic() - began
    hung = HUNG_READS - len(outcomes)
    (point / "written").write_bytes(content)
    assert (point / "written").read_bytes() == content
    for reader in readers:
        reader.join(BOUND_S)
    took = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\n  while {hung} reads hang: p99 of a cached read {reads * 1000:.1f} ms, of stat "
            f"{stats * 1000:.1f} ms, all in {measured_s:.1f} s; they failed after {took:.1f} s"
        )
    assert hung == HUNG_READS, "else this measures nothing"
    assert outcomes == ["EIO"] * HUNG_READS
    assert took < BOUND_S
    status = place.lucid.json("status", point)
    assert status["problem"] and "\n" not in status["problem"], "it says what is wrong"
    assert not status["online"]
    assert status["pending_ops"] >= 1
    assert "the store does not answer" in place.lucid.run("status", point).stdout
    assert max(reads, stats) < QUICK_S * BUSY

    place.proxy.go_on()
    deadline = time.monotonic() + BOUND_S
    while outcome_of_read(point / "far0") != "300000 bytes":
        assert time.monotonic() < deadline, "it does not recover"
    place.lucid.run("sync", point)
    assert place.lucid.json("status", point)["problem"] == ""


def test_unmounting_while_the_store_is_dead(place: Place) -> None:
    """S-28: with --no-wait what is staged stays here, and the next mount sends it."""
    point = place.mount("here")
    (point / "before").write_text("before")
    place.lucid.run("sync", point)
    place.proxy.stop()
    (point / "after").write_bytes(b"after" * 50_000)
    began = time.monotonic()
    done = place.lucid.run("umount", "--no-wait", point)
    assert time.monotonic() - began < 20.0
    assert "goes up after the next mount" in done.stderr
    place.proxy.go_on()
    place.mount("here")
    assert (point / "after").read_bytes() == b"after" * 50_000
    place.lucid.run("umount", point)
    assert (place.mount("there") / "after").read_bytes() == b"after" * 50_000


@pytest.fixture
def another(place: Place) -> Iterator[Filespace]:
    """Another client of the same filespace, in this process."""
    config = Config(state_dir=place.top / "state-another")
    with connect(place.store, passphrase=place.lucid.passphrase or "", config=config) as made:
        yield made


def test_stat_while_many_ops_arrive(
    place: Place, another: Filespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """100,000 files that another client made come in, in entries of 10,000."""
    point = place.mount("watching")
    for number in range(50):
        (point / f"f{number}").touch()
    place.lucid.run("sync", point)
    another.mkdir("/many")
    place.proxy.stop()  # they gather on the other side, and then come at once
    for number in range(ENTRIES * OPS):
        another.symlink("x", f"/many/{number}")
    place.proxy.go_on()
    took: list[float] = []
    deadline = time.monotonic() + 150
    inodes = 0
    while inodes < ENTRIES * OPS:
        assert time.monotonic() < deadline, f"only {inodes:,} arrived in time"
        for number in range(200):
            began = time.monotonic()
            os.stat(point / f"f{number % 50}")
            took.append(time.monotonic() - began)
        vfs = os.statvfs(point)
        inodes = vfs.f_files - vfs.f_ffree
    measured = statistics.quantiles(took, n=100)[98]
    with capsys.disabled():
        print(f"\n  p99 of {len(took):,} stats: {measured * 1000:.2f} ms")
    assert measured < STAT_S * BUSY


SLOW_DISK_S = 0.1
READERS = 8


def read_on(path: Path, stop: threading.Event) -> None:
    """Reads blocks at random from the drive itself, past the kernel's pages."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as into:
            for turn in itertools.count():
                if stop.is_set():
                    return
                os.preadv(fd, [into], turn * 7 % 64 * BLOCK)
    finally:
        os.close(fd)


def test_a_slow_local_disk_holds_up_only_who_reads_from_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More readers than workers that wait in the kernel; names are looked up all the same."""
    shim, slow = place.top / "slow_disk.so", place.top / "slow"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(shim))
        patch.setenv("SLOW_DISK_FILE", str(slow))
        patch.setenv("SLOW_DISK_US", str(int(SLOW_DISK_S * 1e6)))
        drive = place.mount("slow-disk")
    for number in range(READERS):
        (drive / f"f{number}").write_bytes(os.urandom(64 * BLOCK))
    place.lucid.run("sync", drive)
    slow.touch()
    stop = threading.Event()
    readers = [
        threading.Thread(target=read_on, args=(drive / f"f{number}", stop))
        for number in range(READERS)
    ]
    try:
        for reader in readers:
            reader.start()
        took = []
        for number in range(60):
            began = time.perf_counter()
            assert not (drive / f"no such name {number}").exists()
            took.append(time.perf_counter() - began)
    finally:
        stop.set()
        slow.unlink()
        for reader in readers:
            reader.join()
    assert statistics.median(took) < SLOW_DISK_S / 4
