"""Sending finished segments to the store.

Threads lucid-upload-N, started here. Uploads are tried for ever, with growing pauses, until the
store has the segment or the filespace closes; what is left then is found again at the next open.
The queue is bounded by the staging area, since each row in it is a file there.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable

from lucid.data.memory import Share
from lucid.errors import LucidError, ObjectExists, Stopped
from lucid.format.change import SegmentRow
from lucid.format.names import segment_key
from lucid.local.staging import StagingArea
from lucid.store.base import ObjectStore
from lucid.types import SegmentId

__all__ = ["Uploader"]

log = logging.getLogger(__name__)

PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 20.0


class Uploader:
    """A bounded number of workers and the segments that wait for them."""

    def __init__(
        self,
        store: ObjectStore,
        staging: StagingArea,
        memory: Share,
        *,
        workers: int,
        done: Callable[[bytes], None],
        pause: random.Random,
    ) -> None:
        self._store = store.background()
        self._staging = staging
        self._memory = memory
        self._done = done
        self._pause = pause
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: deque[SegmentRow] = deque()
        self._running = 0
        self._closed = False
        self._stop = threading.Event()
        self.bytes_sent = 0
        self.problem = ""
        """One sentence while uploads fail."""
        self._threads = [
            threading.Thread(target=self._run, name=f"lucid-upload-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, row: SegmentRow, urgent: bool = False) -> None:
        """Send a segment; an urgent one, which ops wait for, before the others."""
        with self._work:
            if urgent:
                self._waiting.appendleft(row)
            else:
                self._waiting.append(row)
            self._work.notify()

    @property
    def is_free(self) -> bool:
        """Whether a segment that is submitted now is sent at once."""
        with self._lock:
            return not self._waiting and self._running < max(1, len(self._threads) // 2)

    def _run(self) -> None:
        while True:
            with self._work:
                while not self._waiting and not self._closed:
                    self._work.wait()
                if self._closed:
                    return
                row = self._waiting.popleft()
                self._running += 1
            try:
                self._send(row)
            finally:
                with self._work:
                    self._running -= 1

    def _send(self, row: SegmentRow) -> None:
        pause = PAUSE_FIRST_S
        while not self._stop.is_set():
            try:
                if SegmentId(row.id) not in self._staging:
                    return  # Dropped while it waited.
                with self._memory.held(row.stored_len, 3600.0):
                    body = self._staging.read(SegmentId(row.id))
                    self._store.put_if_absent(segment_key(row.id), body)
                    self.bytes_sent += len(body)
                self.problem = ""
                self._done(row.id)
                return
            except Stopped:
                return
            except ObjectExists:
                # Its id is random: only a store that keeps what it was not given has such a name.
                # It may be put right, so this is no reason to give up what is staged here.
                self.problem = (
                    f"The store holds other bytes in the place of segment {row.id.hex()[:16]}, "
                    "which is kept here and sent when its place is free."
                )
            except LucidError as error:
                self.problem = f"Uploads wait: {error}"
            except Exception as error:
                log.exception("An upload failed; this is a bug in lucid")
                self.problem = f"Uploads wait: {error}"
            self._stop.wait(pause * self._pause.uniform(0.5, 1.0))
            pause = min(pause * 2, PAUSE_MAX_S)

    def close(self) -> None:
        """End the workers; what was not sent stays in staging."""
        with self._work:
            self._closed = True
            self._waiting.clear()
            self._work.notify_all()
        self._stop.set()
        for thread in self._threads:
            thread.join()
