"""SIGTERM, SIGINT and SIGHUP, taken by a thread of its own.

The three are blocked in the main thread before any other thread starts, so that all threads
inherit it; llfuse's own C handlers would otherwise end the mount without our knowing, and nobody
would watch that it really ends.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

__all__ = ["ENDING", "WAKE", "SignalThread"]

log = logging.getLogger(__name__)

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAKE = signal.SIGUSR2
"""Ends the thread; sent to it alone."""


class SignalThread:
    """Calls `on_signal` for each signal, from `start` until `stop`. Made by the main thread."""

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._thread = threading.Thread(target=self._run, name="lucid-signals", daemon=True)
        self._before: set[int] = set()

    def start(self) -> None:
        """REQUIRES: the main thread, and no other thread of the process handles signals."""
        # Session.stop wakes the main thread with it, maybe when llfuse's handler has just gone.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._before = set(signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDING, WAKE}))
        self._thread.start()

    def stop(self) -> None:
        ident = self._thread.ident
        if ident is not None and self._thread.is_alive():
            signal.pthread_kill(ident, WAKE)
            self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def _run(self) -> None:
        while (number := signal.sigwait({*ENDING, WAKE})) != WAKE:
            log.info("%s came", signal.Signals(number).name)
            try:
                self._on_signal(number)
            except Exception:
                log.exception("handling %s failed", signal.Signals(number).name)
