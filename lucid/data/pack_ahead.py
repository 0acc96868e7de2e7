"""Reading ahead over small files: who reads them in the order in which they were packed wants the
next ones too.

Each segment that small files are read from is followed as if it were a file. One round trip then
brings hundreds of them, and a reader of a single one gets no more than it asked for. Any thread may
call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from lucid.engine.cachemap import CacheMap
from lucid.engine.streams import Streams

__all__ = ["PackStreams"]

FOLLOWED = 64
"""Segments that are followed at once, the longest unused out first."""
FIRST_AHEAD = 256 * 1024
"""What is fetched behind the second of two files that lie one after the other."""
AHEAD_MAX = 8 * 1024 * 1024


class PackStreams:
    """The readers of packed files. `_lock` guards the table."""

    def __init__(self, cachemap: CacheMap) -> None:
        self._map = cachemap
        self._lock = threading.Lock()
        self._streams: OrderedDict[int, Streams] = OrderedDict()

    def read(self, slot: int, offset: int, length: int) -> tuple[int, int, int] | None:
        """A file that lies there is read. What to fetch ahead: (slot, offset, length), or None.

        REQUIRES: the caller holds a reference on the slot.
        """
        token, size = self._map.token(slot), self._map.stored_len(slot)
        with self._lock:
            streams = self._streams.get(token)
            if streams is None:
                streams = self._streams[token] = Streams(FIRST_AHEAD, AHEAD_MAX)
                if len(self._streams) > FOLLOWED:
                    self._streams.popitem(last=False)
            else:
                self._streams.move_to_end(token)
        # One further than it is: the first file of a pack tells as little as any other.
        want = streams.read(offset + 1, length, size + 1)
        return None if want is None else (slot, want[0] - 1, want[1] - want[0])
