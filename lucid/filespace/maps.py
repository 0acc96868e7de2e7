"""The newest map of files that are read, so that a read asks the replica nothing.

Any thread may call. A map is forgotten when an op touches its inode; one that was built while that
happened is not kept.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from lucid.data.reading import MapBuilder
from lucid.engine.blockmap import BlockMap
from lucid.engine.cachemap import CacheMap
from lucid.engine.hits import HitTable
from lucid.errors import CorruptObject, DataError, NotFound
from lucid.format.runs import Geometry
from lucid.meta.replica import Replica

__all__ = ["FileMaps"]

log = logging.getLogger(__name__)

KEPT = 2048


class FileMaps:
    """BlockMaps by inode, the longest unused out first."""

    def __init__(
        self,
        replica: Replica,
        builder: MapBuilder,
        cachemap: CacheMap,
        geometry: Geometry,
        hits: HitTable,
    ) -> None:
        """hits: gets every map that is kept here, for as long as it is."""
        self._replica = replica
        self._builder = builder
        self._cachemap = cachemap
        self._geometry = geometry
        self._hits = hits
        self._lock = threading.Lock()
        self._maps: OrderedDict[int, BlockMap] = OrderedDict()
        self._changes = 0

    def newest(self, ino: int) -> BlockMap:
        """The map of the newest version. Raises NotFound."""
        found = self._maps.get(ino)
        if found is not None:
            return found
        changes = self._changes
        built = self.at(ino, None)[1]
        with self._lock:
            if changes == self._changes:
                self._maps[ino] = built
                self._hits.set_map(ino, built)
                if len(self._maps) > KEPT:
                    self._hits.drop_map(self._maps.popitem(last=False)[0])
        return built

    def at(self, ino: int, version: int | None) -> tuple[int, BlockMap]:
        """(version, map) of a version, the newest by default. Raises NotFound."""
        columns = self._replica.map_columns(ino, version)
        if columns is None:
            raise NotFound
        slots: list[int] = []
        try:
            for row in columns.segments:
                slots.append(self._builder.slot(row.id, row))
            # The last one is for extents that have none, whose index is -1.
            table = [*slots, -1]
            of_rows = array("i", [table[index] for index in columns.segment])
            return columns.version, self._built(
                self._cachemap, self._geometry.block_size, columns.size,
                columns.first, columns.count, columns.kind, of_rows,
                columns.ordinal, columns.offset, columns.flags, columns.last_len,
                columns.last_valid, columns.lengths, columns.lengths_index,
            )  # fmt: skip
        finally:
            for slot in slots:
                self._cachemap.release(slot)

    @staticmethod
    def _built(*columns: Any) -> BlockMap:
        try:
            return BlockMap(*columns)
        except ValueError as error:
            raise CorruptObject(f"The log holds a map that cannot be: {error}.") from error

    def behind(self, ino: int, slot: int) -> int | None:
        """A new reference on the slot of the segment in which the files after `ino` lie that are
        not in this slot's; None if there is none to be seen."""
        try:
            row = self._replica.segment_behind(ino, self._cachemap.segment_id(slot))
            return None if row is None else self._builder.slot(row.id, row)
        except DataError as error:
            # Only a guess at what is read next: whoever reads it is told.
            log.debug("what follows inode %d: %s", ino, error)
            return None

    def forget(self, inodes: Iterable[int]) -> None:
        with self._lock:
            self._changes += 1
            for ino in inodes:
                if self._maps.pop(ino, None) is not None:
                    self._hits.drop_map(ino)

    def forget_all(self) -> None:
        with self._lock:
            self._changes += 1
            for ino in self._maps:
                self._hits.drop_map(ino)
            self._maps.clear()
