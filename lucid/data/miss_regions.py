"""Fetching the rest of a segment that is read here and there.

Who follows a file is read ahead for; who jumps about in it waits a round trip for each new place.
After a few such places in one segment the whole of it would have come in the same time: then it is
fetched, behind the reads that somebody waits for. That is the rule of the ski hirer, who buys once
the hire has cost as much as the skis: never more than about twice what knowing the future would
have cost. Who must buy again, because the cache has given the segment up, waits twice as long. One
or two places, the header and the index of a film, bring no more than themselves.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from lucid.engine.cachemap import CacheMap

__all__ = ["MissRegions"]

PLACES = 3
"""Places at which reads miss in one segment before the rest of it is fetched: a segment of 8 MiB
takes 80 ms at 100 MB/s, about three reads from a store that is 20 ms away."""
NEAR = 1024 * 1024
"""Reads no further apart than this are at one place: the kernel makes several of a large one."""
FOLLOWED = 1024
"""Segments that are followed at once, the longest unused out first."""
BOUGHT = 16 * FOLLOWED
"""Segments of which it is known that their rest was fetched before, the longest unused out first:
of a cache of 128 GiB all."""


class MissRegions:
    """At which places of which segment reads have missed. `_lock` guards the table. Any thread."""

    def __init__(self, cachemap: CacheMap) -> None:
        self._map = cachemap
        self._lock = threading.Lock()
        self._places: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        """Of each segment, where the newest read at each place began."""
        self._dearer: OrderedDict[bytes, int] = OrderedDict()
        """Of each segment whose rest was fetched before, the places that it takes now."""

    def missed(self, slot: int, offset: int) -> tuple[int, int, int] | None:
        """A read has missed there. What to fetch now, (slot, offset, length), or None.

        REQUIRES: the caller holds a reference on the slot.
        """
        segment = self._map.segment_id(slot)  # A slot is another's once it was given up.
        with self._lock:
            others = [
                place for place in self._places.pop(segment, ()) if abs(place - offset) > NEAR
            ]
            if len(others) + 1 < self._dearer.get(segment, PLACES):
                _put(self._places, segment, (*others, offset), FOLLOWED)
                return None
        return slot, 0, self._map.stored_len(slot)

    def fetched(self, slot: int) -> None:
        """What `missed` has said is on its way. REQUIRES: as there.

        It is missed again only after the cache has given it up: the cache is too small for what is
        read, and would give it up once more. So each time takes twice as many places.
        """
        segment = self._map.segment_id(slot)
        with self._lock:
            _put(self._dearer, segment, 2 * self._dearer.pop(segment, PLACES), BOUGHT)


def _put(table: OrderedDict[bytes, Any], key: bytes, value: object, most: int) -> None:
    """`key` becomes the newest of `most`."""
    table[key] = value
    if len(table) > most:
        table.popitem(last=False)
