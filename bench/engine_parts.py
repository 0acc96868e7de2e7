"""One sealed segment of two blocks, in a cache and in a directory store, and the engine over it.

`bench micro` and `bench --profile engine` ask it the same questions.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lucid.engine import sodium
from lucid.engine.blockmap import KIND_DATA, BlockMap
from lucid.engine.cachemap import CacheMap
from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable
from lucid.engine.pool import Pool
from lucid.engine.reader import Reader
from lucid.engine.streams import Streams

__all__ = ["BLOCK", "FILE", "INO", "NAME", "ROOT", "CachedFile", "known_names"]

BLOCK = 128 * 1024
FILE = 1
"""Number of the open file in the table of hits."""
INO = 5
NAME = b"file-500"
NAMES = 1000
ROOT = 1
BLOCKS = 2
POOL_BYTES = 1 << 20


class CachedFile:
    """A file of two blocks whose segment is sealed. Its cache is empty before `fill`."""

    def __init__(self, stack: ExitStack) -> None:
        self.top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lucid-bench-")))
        self.cache = self.top / "cache"
        self.cache.mkdir()
        directory = os.open(self.cache, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.slots = stack.enter_context(CacheMap(directory))
        finally:
            os.close(directory)
        self.segment, key = os.urandom(32), os.urandom(sodium.KEY_BYTES)
        context = sodium.AdContext(sodium.SUITE_AEGIS256, b"BNCH", bytes(16), bytes(16))
        self.sealed = b"".join(
            sodium.seal(context, self.segment, key, ordinal, 0, os.urandom(BLOCK))
            for ordinal in range(BLOCKS)
        )
        self.slot = self.slots.acquire(self.segment, key, context, len(self.sealed))
        self.pool = Pool(BLOCK, POOL_BYTES)
        self.reader = Reader(self.slots, self.pool, BLOCK)

    def fill(self) -> None:
        """Put the segment into the cache, as a fetch would."""
        name = self.segment.hex()
        (self.cache / name[:2]).mkdir()
        (self.cache / name[:2] / name).write_bytes(self.sealed)

    def blocks(self) -> BlockMap:
        """Where the blocks of the file lie."""
        zero, full = [0], [BLOCK]
        return BlockMap(
            self.slots,
            BLOCK,
            BLOCKS * BLOCK,
            first_block=np.array(zero, np.int64),
            count=np.array([BLOCKS], np.int64),
            kind=np.array([KIND_DATA], np.uint8),
            slot=np.array([self.slot], np.int32),
            ordinal=np.array(zero, np.int64),
            offset=np.array(zero, np.int64),
            flags=np.array(zero, np.uint32),
            last_len=np.array(full, np.uint32),
            last_valid=np.array(full, np.uint32),
        )

    def hits(self) -> HitTable:
        """The table of hits, with the file open in it."""
        table = HitTable(self.reader)
        table.set_map(INO, self.blocks())
        table.open(FILE, INO, Streams(BLOCK, 8 * BLOCK))
        return table


def known_names() -> KnownTable:
    """A directory of files whose names and attributes are known."""
    table = KnownTable()
    table.begin()
    for number in range(NAMES):
        ino = INO + number
        found = (ino, 0o100644, 1, 0, 0, 0, BLOCK, BLOCK // 512, 0, 0, 0)
        table.keep(table.ticket(), found)
        table.keep_name(table.ticket(), ROOT, b"file-%d" % number, ino)
    return table
