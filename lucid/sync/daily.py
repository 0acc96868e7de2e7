"""The thread lucid-collect: what a drive does about once a day, and nobody waits for.

It does it first some ten minutes to an hour after it was started, at random, so that drives that
were mounted at one moment do not do it at one moment; then about once a day. A day counts by either
clock of the machine, for one of them may stand still while it sleeps. `close` ends the thread also
in the middle of the work, which asks `rest` again and again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from lucid.errors import LucidError, Stopped
from lucid.types import Clock

__all__ = ["DAY_S", "FIRST_S", "Daily"]

log = logging.getLogger(__name__)

FIRST_S = (600.0, 3600.0)
"""After the start, and after a time when it could not be done at all, for the store was away."""
DAY_S = 86_400.0
AROUND = 0.1
"""A day is up to so much longer or shorter."""
STEP_S = 60.0
"""How often the clocks are looked at."""
REST_S = 0.002


class Daily:
    """See the module. `work` returns False for "not now": it is tried again within the hour.

    What it raises is logged and kept in `problem` until it goes well. `woken` is called when the
    thread is to end, to wake what it may wait for. Guarded by _news: _asked, _answered.
    """

    def __init__(
        self,
        work: Callable[[], bool],
        clock: Clock,
        pause: random.Random,
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._clock = clock
        self._pause = pause
        self._woken = woken
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._asked = self._answered = 0
        self.problem = ""
        self._plan(self._pause.uniform(*FIRST_S))
        self._thread = threading.Thread(target=self._run, name="lucid-collect", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin to end; `close` waits for it. Idempotent."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        self._woken()

    def close(self) -> None:
        """End the thread. A request of its that is under way ends with its store."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def rest(self) -> None:
        """Let others go first. Raises Stopped when the thread is to end."""
        if self._stop.wait(REST_S):
            raise Stopped("The filespace is being closed.")

    def is_stopping(self) -> bool:
        return self._stop.is_set()

    def look(self, timeout: float) -> bool:
        """Look at the clocks now, and do what is due; wait until that is done. False: not in time.

        For who has moved the clocks.
        """
        with self._news:
            self._asked += 1
            number = self._asked
            self._news.notify_all()
            self._news.wait_for(lambda: self._answered >= number or self._stop.is_set(), timeout)
            return self._answered >= number

    def _plan(self, seconds: float) -> None:
        self._from = (self._clock.monotonic(), self._clock.time_ns())
        self._due = seconds

    def _is_due(self) -> bool:
        monotonic, time_ns = self._from
        passed = (self._clock.monotonic() - monotonic, (self._clock.time_ns() - time_ns) / 1e9)
        return max(passed) >= self._due

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._news:
                asked = self._asked
            if self._is_due():
                self._do()
            with self._news:
                self._answered = asked
                self._news.notify_all()
                self._news.wait_for(self._is_called, STEP_S)

    def _is_called(self) -> bool:
        return self._asked > self._answered or self._stop.is_set()

    def _do(self) -> None:
        done = True
        try:
            done = self._work()
            self.problem = ""
        except Stopped as error:
            if self._stop.is_set():
                return
            self.problem = str(error)
        except LucidError as error:
            self.problem = str(error)
            log.warning("What the store does not need any more stays there: %s", error)
        except Exception as error:
            log.exception("Collecting failed; this is a bug in lucid")
            self.problem = f"Collecting failed: {error}"
        if done:
            self._plan(DAY_S * self._pause.uniform(1 - AROUND, 1 + AROUND))
        else:
            self._plan(self._pause.uniform(*FIRST_S))
