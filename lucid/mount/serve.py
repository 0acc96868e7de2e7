"""The life of a process that has a drive mounted: open, mount, serve, unmount, upload the rest.

`serve` is all that the command line calls, in a daemon or in the foreground, from the main thread.
It owns the session, the control socket, the record in the registry and the signals, and closes the
filespace at the end, whatever ended it:

    unmounted (umount, lucid umount)   upload everything, however long that takes, then end
    lucid umount --no-wait             leave what is pending to the next mount, and end within
    SIGTERM, SIGINT, SIGHUP            END_S, whatever the store does
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lucid.errors import MountPointBusy, NotMounted
from lucid.filespace.locks import LockRow
from lucid.filespace.surface import Progress, Surface
from lucid.mount import mountpoint, older, registry, together
from lucid.mount.control import Command, ControlServer, Progressing
from lucid.mount.options import MountOptions
from lucid.mount.session import Session
from lucid.mount.signals import SignalThread
from lucid.mount.wire import Message

__all__ = ["serve"]

log = logging.getLogger(__name__)

TOLD_S = 2.0
"""How long an answer waits for the kernel to hear what changed. It hears within milliseconds."""
END_S = 5.0
"""From a signal, or an unmount that does not wait, to the end of the process."""
GENTLY_S = 1.5
"""How much of it the mount gets to end by itself, before what waits in it is cut off."""
CLOSE_S = 2.0
"""How much of it the filespace gets to put away what it holds in memory."""
PUT_AWAY_AFTER_S = 1.0
"""How long an unmount that does not wait leaves the closing to the main thread alone."""
PROGRESS_S = 0.1
SYNC_S = 24 * 3600.0


def serve(
    open_surface: Callable[[], Surface],
    point: Path,
    options: MountOptions,
    *,
    store: str,
    on_ready: Callable[[], None],
) -> int:
    """Opens, mounts and serves until the drive is unmounted; the exit status.

    Raises what opening or mounting raises. REQUIRES: the main thread.
    """
    service = _Service(point, options, store, on_ready)
    signals = SignalThread(service.on_signal)
    signals.start()
    try:
        surface = open_surface()
        # What opening has made stays as long as the mount does: no collection need look at it, and
        # each full one stops every thread. How rarely it looks is the process's, see `lucid.cli`.
        gc.freeze()
        return service.run(surface)
    finally:
        service.ended.set()
        signals.stop()


class _NoMoreWaiting(Exception):
    """Somebody does not want to wait for the uploads any more."""


class _Service:
    """One drive's process. The main thread runs it; signal and control threads ask it to end.

    Write once: _surface, _session (by the main thread, before the drive is ready).
    Set by any thread, never taken back: _hurry. Guarded by the GIL: _last, _is_told.
    """

    def __init__(
        self, point: Path, options: MountOptions, store: str, on_ready: Callable[[], None]
    ) -> None:
        self.ended = threading.Event()
        self._point = point
        self._options = options
        self._store = store
        self._on_ready = on_ready
        self._surface: Surface | None = None
        self._session: Session | None = None
        self._record: registry.Record | None = None
        self._mounted = threading.Event()
        self._unmounted = threading.Event()
        self._closed = threading.Event()
        self._hurry = threading.Event()
        self._last: Progress | None = None
        self._is_told = False

    # --- The main thread -----------------------------------------------------------------------

    def run(self, surface: Surface) -> int:
        self._surface = surface
        place = surface.status().state_directory
        heard = together.commands(self._surface_now, self._locks_here)
        control = ControlServer(Path(place), {
            "changes": heard["changes"],
            "wait": self._then_told(heard["wait"]),
            "locks": heard["locks"],
            "status": self._status,
            "progress": lambda request, _: self._progress_message(),
            "sync": self._sync,
            "cache": self._cache,
            "stop": self._stop,
            **{
                name: self._then_told(command)
                for name, command in older.commands(self._surface_now).items()
            },
        })  # fmt: skip
        self._record = registry.Record(
            str(self._point), place, self._store, os.getpid(),
            registry.process_start(os.getpid()) or 0,
        )  # fmt: skip
        try:
            control.start()
            self._mount(surface)
        except BaseException:
            self._hurry.set()
            raise
        finally:
            try:
                self._close(surface)
            finally:
                self._end(self._record, control)
        return 0

    def _end(self, record: registry.Record, control: ControlServer) -> None:
        """Who waits for the end finds no drive any more."""
        try:
            registry.remove(record)
        finally:
            self._closed.set()
            control.close()

    def _mount(self, surface: Surface) -> None:
        options = replace(self._options, name=surface.status().name)
        self._session = Session(surface, self._point, options, on_ready=self._ready)
        try:
            reason = self._session.run()
        finally:
            self._unmounted.set()
        if reason is not None:
            self._hurry.set()
        log.info("unmounted %s", self._point)

    def _ready(self) -> None:
        """By the worker that answers the kernel's first request."""
        assert self._record is not None
        registry.add(self._record)
        self._mounted.set()
        log.info("mounted %s", self._point)
        self._on_ready()

    def _close(self, surface: Surface) -> None:
        if self._mounted.is_set() and self._record is not None:
            self._record = registry.change_phase(self._record, "closing")
        try:
            self._last = surface.close(wait=not self._hurry.is_set(), report=self._note)
        except _NoMoreWaiting:
            log.info("the uploads are left to the next mount")
        self._log_left()

    def _log_left(self) -> None:
        """Once, what is known to be left to the next mount."""
        left = self._last
        if left is not None and (left.pending_ops or left.staged_bytes) and not self._is_told:
            self._is_told = True
            log.warning(
                "Not in the store yet: changes: %d, bytes: %d. They go up after the next mount",
                left.pending_ops,
                left.staged_bytes,
            )

    def _note(self, progress: Progress) -> None:
        """Called while the filespace waits for uploads; ends that when somebody is in a hurry."""
        self._last = progress
        if self._hurry.is_set():
            raise _NoMoreWaiting

    # --- The signal thread ---------------------------------------------------------------------

    def on_signal(self, number: int) -> None:
        """Ends the process within END_S, step by step."""
        self._hurry.set()
        session = self._session
        if session is None or not self._mounted.is_set():
            log.warning("ended by a signal before the drive was mounted")
            self._exit(128 + number)
        elif not self._unmounted.is_set():
            session.stop(self._unmounted, GENTLY_S)
        if not self._unmounted.is_set():
            self._cut_off()
        if not self.ended.wait(1.0):
            self._put_away()
        if not self.ended.wait(END_S - GENTLY_S - CLOSE_S - 1.0):
            log.warning("something hangs; the process ends as it is. What was closed is safe.")
            self._exit(0)

    def _cut_off(self) -> None:
        """Unmounts though requests are under way: their callers get an error."""
        log.warning("requests are still under way; they are cut off")
        mounted = mountpoint.find(self._point)
        if mounted is not None and mounted.is_ours:
            mountpoint.abort(mounted)
            mountpoint.unmount(self._point, lazy=True)

    def _put_away(self) -> None:
        """Closes the filespace beside a main thread that cannot get there, or waits for uploads."""
        surface = self._surface
        if surface is None:
            return

        def close() -> None:
            # First: whatever hangs in the closing, what is left is known.
            self._last = surface.progress()
            self._last = surface.close(wait=False, timeout=CLOSE_S)

        closer = threading.Thread(target=close, name="lucid-close", daemon=True)
        closer.start()
        closer.join(CLOSE_S)

    def _exit(self, status: int) -> None:
        self._log_left()
        if self._record is not None:
            registry.remove(self._record)
        logging.shutdown()
        os._exit(status)

    # --- The control threads -------------------------------------------------------------------

    def _locks_here(self) -> list[LockRow]:
        session = self._session
        return [] if session is None else session.locks.table()

    def _surface_now(self) -> Surface:
        if self._surface is None or self._closed.is_set():
            raise NotMounted("The drive is closed.")
        return self._surface

    def _status(self, request: Message, progressing: Progressing) -> Message:
        status = self._surface_now().status()._asdict()
        phase = "closing" if self._unmounted.is_set() else "mounted"
        return status | {"mountpoint": str(self._point), "pid": os.getpid(), "phase": phase}

    def _then_told(self, command: Command) -> Command:
        """The answer comes when the kernel shows what the command did."""

        def run(request: Message, progressing: Progressing) -> Message:
            answer = command(request, progressing)
            if self._session is not None:
                self._session.wait_told(TOLD_S)
            return answer

        return run

    def _progress_message(self) -> Message:
        progress = self._last
        if progress is None or not self._unmounted.is_set():
            progress = self._surface_now().progress()
        return progress._asdict()

    def _sync(self, request: Message, progressing: Progressing) -> Message:
        """{"ino": number or null, "timeout_s": seconds or null} -> {"token": ...}"""
        ino, timeout_s = request.get("ino"), request.get("timeout_s")
        timeout_s = SYNC_S if timeout_s is None else min(float(timeout_s), SYNC_S)
        return {"token": self._surface_now().sync(ino, timeout_s)}

    def _cache(self, request: Message, progressing: Progressing) -> Message:
        """{"clear": bool} -> what the cache holds, and what was freed."""
        surface = self._surface_now()
        freed = surface.clear_cache() if request.get("clear") else 0
        status = surface.status()
        return {
            "bytes": status.cache_bytes,
            "limit": status.cache_limit,
            "hits": status.cache_hits,
            "misses": status.cache_misses,
            "freed": freed,
        }

    def _stop(self, request: Message, progressing: Progressing) -> Message:
        """{"wait": bool} -> what is left. Unmounts first; MountPointBusy while files are open."""
        hurry = not request.get("wait", True) and not self._hurry.is_set()
        if hurry:
            # Before the unmount: the main thread closes as soon as that is done.
            self._hurry.set()
        try:
            self._take_away()
        except BaseException:
            if hurry:
                self._hurry.clear()
            raise
        if self._hurry.is_set():
            self._end_soon()
            return self._progress_message()
        if not self._unmounted.wait(END_S):
            raise MountPointBusy(f"{self._point} is unmounted, but requests are still under way.")
        while not self._hurry.is_set() and not self._closed.wait(PROGRESS_S):
            progressing(self._progress_message())
        return self._progress_message()

    def _take_away(self) -> None:
        if self._unmounted.is_set():
            return
        mounted = mountpoint.find(self._point)
        if mounted is not None and mounted.is_ours:
            mountpoint.unmount(self._point)

    def _end_soon(self) -> None:
        """Closes the filespace and sees that the process ends within END_S from now.

        The main thread may wait for uploads, for requests that hang, or for the store.
        """
        threading.Thread(target=self._end_anyway, name="lucid-end", daemon=True).start()
        if not self._closed.wait(PUT_AWAY_AFTER_S):
            self._put_away()
            self._closed.wait(PUT_AWAY_AFTER_S)

    def _end_anyway(self) -> None:
        if not self.ended.wait(END_S):
            log.warning("something hangs; the process ends as it is. What was closed is safe.")
            self._exit(0)
