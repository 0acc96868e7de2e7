"""As many workers as there are requests under way, and no more.

llfuse starts a fixed number of threads. A worker waits for the store when a read misses, so there
must be more of them than reads that may hang; but a thousandth of the time needs more than a few,
and 288 threads that all begin at once fight four seconds for the interpreter lock (measured). So
llfuse gets a few, and the thread here adds one whenever all but one are busy. Added ones go again.
"""

from __future__ import annotations

import itertools
import logging
import signal
import threading

from lucid.mount.fuse import low, turns

__all__ = ["Crew"]

log = logging.getLogger(__name__)

AGAIN_S = 0.02
"""A worker that is told to look just before it waits does not hear it."""


class Crew:
    """The workers beside llfuse's own, and the thread `lucid-crew` that starts them.

    Guarded by _lock: _workers.
    """

    def __init__(self, limit: int) -> None:
        """limit: added workers at once."""
        self._limit = limit
        self._lock = threading.Lock()
        self._workers: set[threading.Thread] = set()
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="lucid-crew", daemon=True)

    def start(self) -> None:
        turns.end_short(False)
        self._thread.start()

    def stop(self) -> None:
        """REQUIRES: llfuse's main has returned. Returns when the last added worker has ended."""
        turns.end_session()
        turns.end_short(True)
        self._thread.join()
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            while worker.is_alive():
                turns.interrupt_extras()
                worker.join(AGAIN_S)

    def _run(self) -> None:
        # Workers inherit it: signals are for the main thread.
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
        )
        while turns.wait_short():
            with self._lock:
                if len(self._workers) >= self._limit:
                    continue
                worker = threading.Thread(
                    target=self._work, name=f"fuse-extra-{next(self._numbers)}", daemon=True
                )
                self._workers.add(worker)
            try:
                worker.start()
            except RuntimeError as error:
                # The machine gives no more threads: those that are there go on.
                log.warning("no further worker can be started: %s", error)
                with self._lock:
                    self._workers.discard(worker)

    def _work(self) -> None:
        try:
            low.work()
        except Exception:
            log.exception("a worker ended by an error")
        finally:
            with self._lock:
                self._workers.discard(threading.current_thread())
