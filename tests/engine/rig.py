"""What the tests of the engine share: segments on a disk, and a cache map, pool and reader on them.

A Rig makes its bytes from a seed, so that every run sees the same.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from lucid.engine.blockmap import BlockMap
from lucid.engine.cachemap import CacheMap
from lucid.engine.pool import Pool
from lucid.engine.reader import Reader
from lucid.engine.sodium import AdContext
from tests.engine import reference
from tests.engine.reference import Row

BLOCK = 64 * 1024
"""The smallest block: the same code in half the time."""

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "40"))
"""Random walks and files a test; memcheck.sh asks for fewer, as each costs fifty times more."""

FILESPACE = bytes(range(16))
GENERATION = bytes(range(16, 32))


@dataclass
class Segment:
    """One segment: what it is called, how it is sealed, and its bytes."""

    segment_id: bytes
    key: bytes
    suite: int
    plain: list[bytes]
    sealed: bytes
    offsets: list[int]
    slot: int = -1


class Rig:
    """A cache and a staging directory, and the engine over them."""

    def __init__(
        self, root: Path, *, block_size: int = BLOCK, frames: int = 8, max_open_files: int = 512
    ) -> None:
        self.block_size = block_size
        self.random = random.Random(7)
        self.cache_dir = root / "cache"
        self.staging_dir = root / "staging"
        self.cache_dir.mkdir()
        self.staging_dir.mkdir()
        cache = os.open(self.cache_dir, os.O_RDONLY)
        staging = os.open(self.staging_dir, os.O_RDONLY)
        self.cachemap = CacheMap(cache, staging, max_open_files)
        os.close(cache)
        os.close(staging)
        self.pool = Pool(block_size, frames * block_size)
        self.reader = Reader(self.cachemap, self.pool, block_size)

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cachemap.close()

    def context(self, suite: int) -> AdContext:
        return AdContext(suite, b"data", FILESPACE, GENERATION)

    def segment(self, lengths: list[int], *, suite: int = 1, flags: int = 0) -> Segment:
        """Seal blocks of these plaintext lengths, one after the other."""
        segment_id, key = self.random.randbytes(32), self.random.randbytes(32)
        ctx = reference.Context(suite, b"data", FILESPACE, GENERATION)
        plain = [self.random.randbytes(length) for length in lengths]
        sealed, offsets = bytearray(), []
        for ordinal, data in enumerate(plain):
            offsets.append(len(sealed))
            sealed += reference.seal(ctx, segment_id, key, ordinal, flags, data)
        return Segment(segment_id, key, suite, plain, bytes(sealed), offsets)

    def cache_path(self, segment: Segment) -> Path:
        name = segment.segment_id.hex()
        return self.cache_dir / name[:2] / name

    def staging_path(self, segment: Segment) -> Path:
        return self.staging_dir / segment.segment_id.hex()

    def acquire(self, segment: Segment, *, staged: bool = False) -> int:
        segment.slot = self.cachemap.acquire(
            segment.segment_id,
            segment.key,
            self.context(segment.suite),
            len(segment.sealed),
            staged,
        )
        return segment.slot

    def put(self, segment: Segment) -> int:
        """Write the whole cache file, and acquire."""
        path = self.cache_path(segment)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(segment.sealed)
        return self.acquire(segment)

    def stage(self, segment: Segment) -> int:
        self.staging_path(segment).write_bytes(segment.sealed)
        return self.acquire(segment, staged=True)

    def map(self, rows: list[Row], size: int) -> BlockMap:
        return block_map(self.cachemap, rows, size, self.block_size)

    def row(self, segment: Segment, first_block: int = 0) -> Row:
        """All blocks of a segment as one extent."""
        return Row(
            first_block,
            len(segment.plain),
            slot=segment.slot,
            last_len=len(segment.plain[-1]),
            last_valid=len(segment.plain[-1]),
        )


def block_map(cachemap: CacheMap, rows: list[Row], size: int, block_size: int) -> BlockMap:
    """Rows to columns."""
    lengths: list[int] = []
    index: list[int] = []
    for row in rows:
        index.append(-1 if row.lengths is None else len(lengths))
        lengths += row.lengths or []
    return BlockMap(
        cachemap,
        block_size,
        size,
        np.array([row.first_block for row in rows], np.int64),
        np.array([row.count for row in rows], np.int64),
        np.array([row.kind for row in rows], np.uint8),
        np.array([row.slot for row in rows], np.int32),
        np.array([row.ordinal for row in rows], np.int64),
        np.array([row.offset for row in rows], np.int64),
        np.array([row.flags for row in rows], np.uint32),
        np.array([row.last_len for row in rows], np.uint32),
        np.array([row.last_valid for row in rows], np.uint32),
        np.array(lengths, np.uint32) if lengths else None,
        np.array(index, np.int64) if lengths else None,
    )
