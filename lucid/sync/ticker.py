"""The housekeeping thread lucid-tick: what must be done now and then, and by nobody who is waited
for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lucid.errors import LucidError
from lucid.types import Clock

__all__ = ["Chore", "Ticker"]

log = logging.getLogger(__name__)


class Chore(NamedTuple):
    """Something to do every `interval_s` seconds."""

    name: str
    interval_s: float
    work: Callable[[], object]


class Ticker:
    """Runs chores in turn; a chore that fails is logged once until it works again."""

    def __init__(self, chores: Sequence[Chore], clock: Clock, step_s: float = 0.1) -> None:
        self._chores = chores
        self._clock = clock
        self._step_s = step_s
        self._stop = threading.Event()
        self._failing: set[str] = set()
        self._due = {chore.name: clock.monotonic() + chore.interval_s for chore in chores}
        self._thread = threading.Thread(target=self._run, name="lucid-tick", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._step_s):
            for chore in self._chores:
                if self._stop.is_set():
                    return
                if self._clock.monotonic() >= self._due[chore.name]:
                    self._do(chore)
                    self._due[chore.name] = self._clock.monotonic() + chore.interval_s

    def _do(self, chore: Chore) -> None:
        try:
            chore.work()
        except LucidError as error:
            if chore.name not in self._failing:
                self._failing.add(chore.name)
                log.warning("%s: %s", chore.name, error)
        except Exception:
            log.exception("%s failed; this is a bug in lucid", chore.name)
        else:
            self._failing.discard(chore.name)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
