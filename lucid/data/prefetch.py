"""Reading ahead for files that the engine serves by itself.

A hit asks nobody, so nobody else would notice that its reader goes on: the engine puts what each
stream wants next into a ring, and the thread here begins to fetch it. It never waits for the store.
Reads that miss ask for their read-ahead themselves, beside the bytes they wait for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from lucid.data.reading import BlockReader
from lucid.engine.blockmap import BlockMap
from lucid.engine.hits import HitTable
from lucid.errors import LucidError, Stopped

__all__ = ["Prefetcher"]

log = logging.getLogger(__name__)


class Prefetcher:
    """One thread, `lucid-ahead`, from the start until `close`."""

    def __init__(
        self, hits: HitTable, newest: Callable[[int], BlockMap], reader: BlockReader
    ) -> None:
        """newest: the map of an inode's newest version; raises NotFound."""
        self._hits = hits
        self._newest = newest
        self._reader = reader
        self._thread = threading.Thread(target=self._run, name="lucid-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (want := self._hits.next_want()) is not None:
            ino, start, end = want
            try:
                self._reader.ahead(self._newest(ino), start, end - start)
            except Stopped:
                return
            except LucidError as error:
                # The file may be gone. Whoever reads it is told by the read.
                log.debug("reading ahead in inode %d: %s", ino, error)
            except Exception:
                log.exception("reading ahead failed; this is a bug in lucid")

    def close(self) -> None:
        self._hits.stop()
        self._thread.join()
