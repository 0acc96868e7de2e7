"""A drive over a MemorySurface, mounted in a thread of the test's process, with a watchdog.

Whatever could hold the interpreter while it waits for the mount (a page fault in a mapping, a fork)
must run in a process of its own: `Drive.python`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from lucid.mount import mountpoint
from lucid.mount.options import MountOptions
from lucid.mount.session import Session
from tests.mount.memory_surface import MemorySurface

READY_S = 10.0
END_S = 10.0
WATCHDOG_S = 60.0


class Drive:
    """One mount. A test that hangs in it is freed by the watchdog, which ends the connection."""

    def __init__(
        self, point: Path, surface: MemorySurface | None = None, options: MountOptions | None = None
    ) -> None:
        self.point = point
        self.surface = surface or MemorySurface()
        self.options = options or MountOptions(name="test")
        self.ended_by: list[int | BaseException | None] = []
        self.aborted = False
        self._ready = threading.Event()
        self.session = Session(
            self.surface, self.point, self.options, on_ready=self._ready.set, workers=16
        )
        self._thread = threading.Thread(target=self._run, name="test-drive", daemon=True)
        self._watchdog = threading.Timer(WATCHDOG_S, self.abort)

    def _run(self) -> None:
        try:
            self.ended_by.append(self.session.run())
        except BaseException as error:
            self.ended_by.append(error)
            self._ready.set()

    def start(self) -> None:
        self._watchdog.start()
        self._thread.start()
        assert self._ready.wait(READY_S), "the drive is not there in time"
        if self.ended_by and isinstance(self.ended_by[0], BaseException):
            self._watchdog.cancel()
            raise self.ended_by[0]

    def abort(self) -> None:
        """Everything that waits for this mount fails now."""
        self.aborted = True
        mounted = mountpoint.find(self.point)
        if mounted is not None:
            mountpoint.abort(mounted)

    def stop(self) -> None:
        """Unmounts and waits until the session has ended."""
        if mountpoint.find(self.point) is not None:
            mountpoint.unmount(self.point, lazy=True)
        self.join()

    def join(self) -> None:
        self._thread.join(END_S)
        if self._thread.is_alive():
            self.abort()
            self._thread.join(END_S)
        self._watchdog.cancel()
        assert not self._thread.is_alive(), "the session does not end"
        assert not self.aborted, "the mount hung, and the watchdog ended it"

    def python(self, code: str, *arguments: str) -> str:
        """Runs code in a Python of its own, in the mount point; what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.point,
            capture_output=True,
            text=True,
            timeout=WATCHDOG_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
