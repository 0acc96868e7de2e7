"""What the kernel is told and what it never learns: invalidation, faults of ours, hung reads."""

from __future__ import annotations

import errno
import logging
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lucid import errors
from lucid.filespace.surface import Invalidation
from lucid.mount import mountpoint
from lucid.mount.notifier import Notifier, entry_message, inode_message
from lucid.mount.options import CONGESTION_THRESHOLD, MAX_BACKGROUND
from tests.mount.drive import Drive
from tests.mount.memory_surface import broken
from tests.mount.test_files import eventually
from tests.mount.test_names import fails_with

pytestmark = pytest.mark.mount


# --- What others change ------------------------------------------------------------------------


def test_a_change_of_the_same_size_is_seen(drive: Drive) -> None:
    """The kernel keeps pages over an open, and the size does not tell: a notification does."""
    path = drive.point / "f"
    path.write_bytes(b"old" * 1000)
    assert path.read_bytes() == b"old" * 1000
    drive.surface.remote_write(path.stat().st_ino, 0, b"new" * 1000)
    eventually(lambda: path.read_bytes() == b"new" * 1000)


def test_what_is_opened_is_never_older_than_what_the_drive_has(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-36: also in the moment before the kernel is told of a change."""
    path = drive.point / "f"
    path.write_bytes(b"old" * 1000)
    assert path.read_bytes() == b"old" * 1000
    notifier, may_send = drive.session._notifier, threading.Event()
    send = notifier._send
    sending = threading.Event()

    def hold(message: bytes) -> bool:
        sending.set()
        assert may_send.wait(20)
        return send(message)

    monkeypatch.setattr(notifier, "_send", hold)
    try:
        drive.surface.remote_write(path.stat().st_ino, 0, b"new" * 1000)
        assert sending.wait(20)
        assert path.read_bytes() == b"new" * 1000
    finally:
        may_send.set()


def test_an_open_file_follows(drive: Drive) -> None:
    path = drive.point / "f"
    path.write_bytes(b"old")
    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == b"old"
        drive.surface.remote_write(path.stat().st_ino, 0, b"newer")
        eventually(lambda: os.pread(file.fileno(), 10, 0) == b"newer")
        assert os.fstat(file.fileno()).st_size == 5


def test_a_name_that_went_and_one_that_came(drive: Drive) -> None:
    (drive.point / "gone").touch()
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "come"))
    drive.surface.remote_unlink(1, b"gone")
    drive.surface.mkdir(1, b"come", 0o755, 0, 0)
    drive.surface.tell(Invalidation(1, b"come"), Invalidation(1, None))
    eventually(lambda: not (drive.point / "gone").exists())
    eventually(lambda: (drive.point / "come").is_dir())


def test_a_missing_name_is_remembered(drive: Drive) -> None:
    """A compiler asks for each header in each directory, a thousand times."""
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "none"))
    drive.surface.trace.clear()
    for _ in range(20):
        fails_with(errno.ENOENT, lambda: os.stat(drive.point / "none"))
    assert drive.surface.trace.count("lookup") <= 1


def test_what_the_kernel_does_not_hold_is_no_error(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    (drive.point / "f").write_bytes(b"old")
    ino = (drive.point / "f").stat().st_ino
    unknown = [Invalidation(number, None) for number in range(10**12, 10**12 + 5000)]
    drive.surface.tell(*unknown, *(Invalidation(number, b"x") for number, _ in unknown))
    drive.surface.remote_write(ino, 0, b"new")
    eventually(lambda: (drive.point / "f").read_bytes() == b"new")
    assert not caplog.records


def test_a_create_that_another_machine_was_faster_with(drive: Drive) -> None:
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "f"))
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "d"))
    handle, made = drive.surface.create(1, b"f", 0o644, 0, 0, os.O_WRONLY)
    drive.surface.write(handle, 0, b"theirs")
    drive.surface.release(handle)
    drive.surface.mkdir(1, b"d", 0o755, 0, 0)
    fails_with(errno.EEXIST, lambda: os.open(drive.point / "f", os.O_CREAT | os.O_EXCL))
    fd = os.open(drive.point / "f", os.O_CREAT | os.O_RDWR)
    assert os.fstat(fd).st_ino == made.ino
    assert os.read(fd, 100) == b"theirs"
    os.close(fd)
    fails_with(errno.EISDIR, lambda: os.open(drive.point / "d", os.O_CREAT | os.O_WRONLY))


class TestNotifier:
    """The queue, with a pipe where /dev/fuse would be."""

    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        reader, writer = os.pipe()
        yield reader, writer
        os.close(reader)
        os.close(writer)

    def received(self, reader: int, size: int) -> bytes:
        got = b""
        while len(got) < size:
            assert select.select([reader], [], [], 10.0)[0], "nothing came"
            got += os.read(reader, size - len(got))
        return got

    def test_it_coalesces_and_lets_names_go_first(self, pipe: tuple[int, int]) -> None:
        notifier = Notifier(queue_max=3)
        notifier.listen([Invalidation(5, None)] * 4)
        notifier.listen([Invalidation(1, b"a"), Invalidation(1, b"b"), Invalidation(1, b"lost")])
        notifier.listen([Invalidation(6, None), Invalidation(5, None)])
        notifier.start(pipe[1])
        expected = inode_message(5) + entry_message(1, b"a") + entry_message(1, b"b")
        expected += inode_message(6)
        assert self.received(pipe[0], len(expected)) == expected
        assert notifier.stop()

    def test_pages_wait_for_older_reads(self, pipe: tuple[int, int]) -> None:
        notifier = Notifier()
        notifier.start(pipe[1])
        older = notifier.transfers.begin(5)
        notifier.listen([Invalidation(5, None), Invalidation(6, None)])
        expected = inode_message(5, pages=False) + inode_message(6)
        assert self.received(pipe[0], len(expected)) == expected
        assert notifier.wait_told(20.0, 6)
        assert not notifier.wait_told(0.05, 5), "an older read may still fill pages"
        newer = notifier.transfers.begin(5)
        notifier.transfers.end(5, older)
        assert self.received(pipe[0], len(inode_message(5))) == inode_message(5)
        notifier.transfers.end(5, newer)
        assert notifier.stop()

    def test_it_ends_when_the_mount_is_gone(self, pipe: tuple[int, int]) -> None:
        notifier = Notifier()
        notifier.start(pipe[0])  # the end that cannot be written to: EBADF
        notifier.listen([Invalidation(5, None)])
        assert notifier.stop()
        notifier.listen([Invalidation(5, None)])


# --- Faults of ours ----------------------------------------------------------------------------


def test_a_bug_is_eio_and_the_mount_goes_on(drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
    path = drive.point / "f"
    path.write_bytes(b"content")
    drive.surface.hooks = {name: broken() for name in ("open", "mkdir", "readdir", "get_xattr")}
    fails_with(errno.EIO, lambda: os.open(path, os.O_RDONLY))
    fails_with(errno.EIO, lambda: os.mkdir(drive.point / "d"))
    fails_with(errno.EIO, lambda: os.listdir(drive.point))
    fails_with(errno.EIO, lambda: os.getxattr(path, "user.x"))
    fails_with(errno.EIO, lambda: os.setxattr(path, "user.x", b"", os.XATTR_CREATE))
    drive.surface.hooks = {}
    (drive.point / "g").write_bytes(b"still here")
    assert (drive.point / "g").read_bytes() == b"still here"
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) >= 5
    assert all(record.levelno == logging.ERROR for record in tracebacks)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.StoreUnavailable("The store does not answer."), errno.EIO),
        (errors.StagingFull(), errno.ENOSPC),
        (errors.StoreDenied(), errno.EACCES),
        (errors.CorruptBlock(), errno.EIO),
        (errors.FileTooLarge(), errno.EFBIG),
        (errors.TooManyLinks(), errno.EMLINK),
        (errors.TimedOut(), errno.ETIMEDOUT),
        (SystemExit(3), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (MemoryError(), errno.EIO),
    ],
    ids=lambda value: value if isinstance(value, int) else type(value).__name__,
)
def test_errors_arrive_with_their_number(drive: Drive, error: BaseException, number: int) -> None:
    def fail() -> None:
        raise error

    drive.surface.hooks["mkdir"] = fail
    fails_with(number, lambda: os.mkdir(drive.point / "d"))
    del drive.surface.hooks["mkdir"]
    os.mkdir(drive.point / "d")


def test_the_stacks_of_a_hung_mount(drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
    os.setxattr(drive.point, "fuse_stacktrace", b"1")
    assert any("test-drive" in record.getMessage() for record in caplog.records)


# --- A store that hangs ------------------------------------------------------------------------


def test_a_hung_read_does_not_hold_up_what_others_changed(drive: Drive) -> None:
    """The kernel waits for the pages of a read under way before it forgets them."""
    surface = drive.surface
    for name in ("hung", "other"):
        (drive.point / name).write_bytes(b"old" * 1000)
        (drive.point / name).read_bytes()
    hung, other = ((drive.point / name).stat().st_ino for name in ("hung", "other"))
    surface.tell(Invalidation(hung, None))
    release, waiting = threading.Event(), threading.Event()

    def hang() -> None:
        if not waiting.is_set():
            waiting.set()
            assert release.wait(30)

    surface.hooks["read"] = hang

    def read() -> None:
        while not waiting.is_set():  # the pages may still be there the first times
            (drive.point / "hung").read_bytes()

    reader = threading.Thread(target=read, name="test-reader")
    reader.start()
    assert waiting.wait(10)
    surface.remote_write(hung, 0, b"new" * 1000)
    surface.remote_write(other, 0, b"new" * 1000)
    eventually(lambda: (drive.point / "other").read_bytes() == b"new" * 1000)
    assert reader.is_alive()
    release.set()
    reader.join(10)
    eventually(lambda: (drive.point / "hung").read_bytes() == b"new" * 1000)


def test_a_hung_read_does_not_stop_another_file(drive: Drive) -> None:
    """Ten readers wait for a store that does not answer; a stat and a cached read go on."""
    (drive.point / "good").write_bytes(b"good")
    (drive.point / "hung").write_bytes(bytes(50 * 131_072))
    hung = (drive.point / "hung").stat().st_ino
    subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=False)
    drive.surface.tell(Invalidation(hung, None))
    release, waiting = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        waiting.release()
        assert release.wait(30)

    def read(index: int) -> bytes:
        fd = os.open(drive.point / "hung", os.O_RDONLY | os.O_DIRECT)
        try:
            return os.pread(fd, 4096, index * 5 * 131_072)
        finally:
            os.close(fd)

    drive.surface.hooks["read"] = hang
    with ThreadPoolExecutor(10, thread_name_prefix="test-reader") as readers:
        reads = [readers.submit(read, index) for index in range(10)]
        for _ in reads:
            assert waiting.acquire(timeout=10)
        del drive.surface.hooks["read"]
        assert (drive.point / "good").read_bytes() == b"good"
        assert (drive.point / "good").stat().st_size == 4
        release.set()
        assert [read.result(10) for read in reads] == [bytes(4096)] * 10


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting the control file system needs root")
def test_the_kernel_lets_more_than_twelve_wait(drive: Drive, tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", control], check=True, timeout=10)
    try:
        mounted = mountpoint.find(drive.point)
        assert mounted is not None
        connection = control / str(os.minor(mounted.device))
        assert int((connection / "max_background").read_text()) == MAX_BACKGROUND
        assert int((connection / "congestion_threshold").read_text()) == CONGESTION_THRESHOLD
    finally:
        subprocess.run(["umount", control], check=True, timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="a forced unmount needs root")
def test_the_watchdog_ends_a_hung_mount(
    make_drive: Callable[..., Drive],
) -> None:
    drive = make_drive()
    (drive.point / "f").touch()
    release = threading.Event()

    def hang() -> None:
        assert release.wait(30)

    drive.surface.hooks["open"] = hang
    failed: list[int | None] = []

    def try_to_open() -> None:
        try:
            os.open(drive.point / "f", os.O_RDONLY)
        except OSError as error:
            failed.append(error.errno)

    stuck = threading.Thread(target=try_to_open, name="test-stuck")
    stuck.start()
    eventually(lambda: "open" in drive.surface.trace)
    mounted = mountpoint.find(drive.point)
    assert mounted is not None and mountpoint.abort(mounted)
    stuck.join(10)
    assert failed == [errno.ECONNABORTED]
    release.set()
    drive.join()


def test_the_notifier_says_when_the_kernel_was_told(drive: Drive) -> None:
    """What `lucid restore` waits for before it answers."""
    (drive.point / "f").write_bytes(b"one")
    ino = (drive.point / "f").stat().st_ino
    notifier = drive.session._notifier
    assert notifier.wait_told(10.0), "nothing came yet"
    for number in range(50):
        drive.surface.remote_write(ino, 0, b"%03d" % number)
        assert notifier.wait_told(10.0)
        assert (drive.point / "f").read_bytes() == b"%03d" % number
