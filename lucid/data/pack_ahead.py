"""Reading ahead over small files: who reads them in the order in which they were packed wants the
next ones too.

Each segment that small files are read from is followed as if it were a file. One round trip then
brings hundreds of them, and a reader of a single one gets no more than it asked for. Who has read
some neighbours and comes to another segment goes on there as fast. Any thread may call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from lucid.engine.cachemap import CacheMap
from lucid.engine.streams import Streams

__all__ = ["PackStreams"]

FOLLOWED = 64
"""Segments that are followed at once, the longest unused out first."""
FIRST_AHEAD = 512 * 1024
"""What is fetched behind the second of two files that lie one after the other."""
AHEAD_MAX = 8 * 1024 * 1024
CACHE_SHARE = 16
"""At most this part of the cache is fetched ahead, and where that is too little nothing: it must
still be there when its turn comes."""
RUN = 4
"""So many neighbours in a row, and the next segment is expected to go on like that."""


class PackStreams:
    """The readers of packed files. `_lock` guards the table."""

    def __init__(self, cachemap: CacheMap, cache_bytes: int) -> None:
        """cache_bytes: what the cache may hold."""
        self._map = cachemap
        self._window_max = min(AHEAD_MAX, cache_bytes // CACHE_SHARE)
        self._lock = threading.Lock()
        self._streams: OrderedDict[int, Streams] = OrderedDict()
        self._end = (0, 0)
        """Segment and end of the file that was read last."""
        self._run = 0
        """How many neighbours in a row it ended."""

    def read(self, slot: int, offset: int, length: int) -> tuple[int, int, int] | None:
        """A file that lies there is read. What to fetch ahead: (slot, offset, length), or None.

        REQUIRES: the caller holds a reference on the slot.
        """
        if self._window_max < FIRST_AHEAD:
            return None
        token, size = self._map.token(slot), self._map.stored_len(slot)
        with self._lock:
            streams, is_new = self._streams_of(token)
            # It lies behind the last one, or first where that was at the end of another segment.
            behind = 0 if is_new else self._end[1] if self._end[0] == token else size
            near = 0 <= offset - behind < FIRST_AHEAD
            goes_on = is_new and near and self._run >= RUN
            self._run = self._run + (not is_new) if near else 0
            self._end = (token, offset + length)
        # Streams expect who reads at 0 to go on. One further than it is, the first file of a
        # segment tells as little as any other.
        shift = 0 if goes_on else 1
        begin = 0 if goes_on else offset + shift
        want = streams.read(begin, offset + length + shift - begin, size + shift)
        return None if want is None else (slot, want[0] - shift, want[1] - want[0])

    def goes_beyond(self, want: tuple[int, int, int]) -> bool:
        """Whether `want`, which `read` gave, ends its segment while the reader takes one neighbour
        after the other: then the next segment is wanted too.

        REQUIRES: the caller holds a reference on the slot.
        """
        slot, offset, length = want
        with self._lock:
            goes_on = self._run >= RUN
        return goes_on and offset + length >= self._map.stored_len(slot)

    def _streams_of(self, token: int) -> tuple[Streams, bool]:
        """The readers of a segment, and whether they are new. REQUIRES: lock held."""
        streams = self._streams.get(token)
        if streams is not None:
            self._streams.move_to_end(token)
            return streams, False
        streams = self._streams[token] = Streams(FIRST_AHEAD, self._window_max)
        if len(self._streams) > FOLLOWED:
            self._streams.popitem(last=False)
        return streams, True
