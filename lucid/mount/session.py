"""One mount: from llfuse.init to llfuse.close, with its notifier and its signals.

`Session.run` blocks the main thread until the drive is unmounted or a signal came. llfuse keeps all
its state in globals, so there is one session a process at a time.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lucid.engine.known import KnownTable
from lucid.errors import FuseMissing, InternalError, MountError
from lucid.filespace.surface import Surface
from lucid.mount import mountpoint
from lucid.mount.answers import TIMEOUT_S
from lucid.mount.crew import Crew
from lucid.mount.fuse import check_locks, check_low, llfuse, low
from lucid.mount.locking import Locking
from lucid.mount.notifier import Notifier
from lucid.mount.operations import Operations
from lucid.mount.options import MAX_BACKGROUND, MountOptions

__all__ = ["WORKERS", "Session"]

log = logging.getLogger(__name__)

WORKERS = 8
"""Threads of llfuse's own. More are added while these are busy, up to EXTRA_WORKERS."""
EXTRA_WORKERS = MAX_BACKGROUND + 24
"""A worker waits for the store when a read misses, and the kernel makes several requests of one
read: with 64 workers 64 hung readers held a cached read for 30 s, with this many its p99 is 3 ms
(measured). The kernel lets MAX_BACKGROUND reads be under way; the rest is for what is no read."""
SWITCH_INTERVAL_S = 5e-5
"""How soon a Python thread that computes gives up the interpreter. Each request takes it four
times: with the default of 5 ms one busy thread takes stat from 11,600 to 65 a second (measured)."""
WAKE_S = 0.1
READ_AHEAD = 512 * 1024
"""What the kernel reads ahead of a sequential reader. FUSE's protocol lets it be 128 KiB at most,
two requests at a time, which is 960 MB/s of cached bytes; with this it is 1,230 MB/s. With 1 MiB it
is 1,690 (measured), but who reads a little here and there fetches too much."""

_one_at_a_time = threading.Lock()


class Session:
    """One mount of a surface. `run` once."""

    def __init__(
        self,
        surface: Surface,
        point: Path,
        options: MountOptions,
        *,
        on_ready: Callable[[], None] = lambda: None,
        workers: int = WORKERS,
    ) -> None:
        """on_ready: called once, from a thread of its own, when the drive is usable."""
        self.point = point
        self._options = options
        self._workers = workers
        self._surface = surface
        self._notifier = Notifier()
        self._crew = Crew(EXTRA_WORKERS)
        self._on_ready = on_ready
        self._mounted: mountpoint.Mount | None = None
        owner = self._owner = None if options.owners else (os.getuid(), os.getgid())
        self._locking = Locking(surface, self._notifier)
        self.locks = self._locking.locks
        self._operations = Operations(
            surface, owner=owner, on_ready=self._taken, notifier=self._notifier, locks=self.locks
        )
        self._unfit: FuseMissing | None = None

    def run(self) -> int | None:
        """Mounts, serves until the end, unmounts. The signal that ended it, or None.

        Raises MountPointMissing, MountPointBusy, MountPointNotEmpty, FuseMissing, MountError,
        InternalError when a handler let something through that it should not have.
        """
        if not _one_at_a_time.acquire(blocking=False):
            raise MountError("This process has a drive mounted already; llfuse serves one.")
        try:
            mountpoint.check(self.point, nonempty=self._options.nonempty)
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            fd = self._mount()
            self._mounted = mountpoint.find(self.point)
            try:
                self._notifier.start(fd)
                self._surface.subscribe(self._notifier.listen)
                return self._serve()
            finally:
                self._end()
        finally:
            _one_at_a_time.release()

    def stop(self, ended: threading.Event, timeout_s: float) -> None:
        """Ends `run` while files may be open; waits until `ended` is set, at most `timeout_s`.

        llfuse has no call for this, only a C handler of SIGTERM that sets its exit flag. The signal
        is raised in this thread, which has it blocked otherwise. The main thread sleeps on a
        semaphore; SIGUSR1, for which llfuse has a handler that does nothing, wakes it. A wake-up
        between its look at the flag and its sleep is lost, so it is repeated.
        REQUIRES: the drive is ready, `run` is called by the main thread, not called twice.
        """
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        signal.raise_signal(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        for _ in range(max(1, int(timeout_s / WAKE_S))):
            signal.pthread_kill(main, signal.SIGUSR1)
            if ended.wait(WAKE_S):
                return

    def wait_told(self, timeout_s: float) -> None:
        """Returns when the kernel has forgotten what has changed behind its back so far."""
        self._notifier.wait_told(timeout_s)

    def _mount(self) -> int:
        """The descriptor of /dev/fuse that this mount uses."""
        before, sessions = set(_fuse_descriptors()), low.stats()["sessions"]
        said: list[str] = []
        try:
            with _captured_stderr(said):
                llfuse.init(self._operations, str(self.point), self._options.for_libfuse())
        except RuntimeError:
            raise _mount_failed(self.point, "".join(said)) from None
        sys.stderr.write("".join(said))  # what others said meanwhile
        (fd,) = set(_fuse_descriptors()) - before
        try:
            check_low(sessions)
        except BaseException:
            llfuse.close(unmount=True)
            raise
        low.serve_hits(self._surface.hits)
        self._serve_known(self._surface.known)
        self._locking.start(self._operations.allocate)
        return fd

    def _serve_known(self, known: KnownTable | None) -> None:
        if known is not None:
            known.begin()
        low.serve_known(
            known, owner=self._owner, block_size=self._surface.block_size,
            valid_ns=int(TIMEOUT_S * 1e9),
        )  # fmt: skip

    def _serve(self) -> int | None:
        self._crew.start()
        try:
            signal_number: int | None = llfuse.main(self._workers)
        except Exception as error:
            log.exception("the mount ended by an error")
            raise InternalError(f"The mount of {self.point} ended by an error: {error}") from error
        finally:
            self._crew.stop()
        if self._unfit is not None:
            raise self._unfit
        return signal_number

    def _taken(self) -> None:
        """The kernel waits for the end of this, so what uses the drive is for another thread."""
        threading.Thread(target=self._ready, name="lucid-ready", daemon=True).start()

    def _ready(self) -> None:
        """The drive answers, so the kernel has set it up, and takes no default back any more."""
        try:
            with suppress(OSError):
                os.stat(self.point)
            check_locks()
            if self._mounted is not None:
                mountpoint.set_read_ahead(self._mounted, READ_AHEAD)
            self._on_ready()
        except FuseMissing as error:
            self._unfit = error
            mountpoint.unmount(self.point, lazy=True)
        except Exception:
            log.exception("telling that the drive is usable failed")

    def _end(self) -> None:
        """Notifier and locks end before the descriptor that they write to is closed."""
        mounted = self._mounted
        self._locking.stop()
        if not self._notifier.stop() and mounted is not None and mountpoint.abort(mounted):
            self._notifier.stop()
        llfuse.close(unmount=True)
        low.serve_hits(None)
        self._serve_known(None)
        if self._surface.known is not None:
            self._surface.known.end()


def _fuse_descriptors() -> Iterator[int]:
    """Our descriptors of /dev/fuse. libfuse does not tell which one it uses."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                yield int(name)


@contextmanager
def _captured_stderr(said: list[str]) -> Iterator[None]:
    """libfuse tells why it cannot mount on descriptor 2, and nowhere else."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with os.fdopen(os.memfd_create("lucid-stderr"), "w+b", buffering=0) as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                said.append(file.read().decode("utf-8", "replace"))
    finally:
        os.close(kept)


def _mount_failed(point: Path, said: str) -> MountError:
    said = " ".join(said.split())
    if "/dev/fuse" in said and "Permission denied" in said:
        return FuseMissing(
            "You may not open /dev/fuse. Its mode should be 0666, or 0660 and you in its group."
        )
    if "failed to exec fusermount" in said:
        return FuseMissing(
            "libfuse finds no fusermount. Install fuse3 (or fuse); "
            "where there is only fusermount3: ln -s fusermount3 /bin/fusermount"
        )
    if "/dev/fuse" in said:
        return FuseMissing(f"FUSE does not work here: {said}. Install fuse3, or run modprobe fuse.")
    if "user_allow_other" in said:
        return MountError("-o allow_other needs a line `user_allow_other` in /etc/fuse.conf.")
    return MountError(f"{point} cannot be mounted: {said or 'libfuse does not say why'}")
