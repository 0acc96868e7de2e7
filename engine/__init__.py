"""The engine: suites, addressing, cache map, opened-block pool, bulk open and seal, the reader.

Mechanism only: it knows nothing of lucid, libfuse or threads, and it does not log.  Compiled with
Cython; each module's `.pyi` is its manual and its `.pxd` the header for other compiled modules.
Everything here may be called from any thread.
"""

from __future__ import annotations

try:
    from .addr import (
        BLOCK_BYTES_MAX,
        BLOCK_BYTES_MIN,
        SEGMENT_STORED_MAX,
        UNIT_BYTES,
        block_length,
        block_range,
        stored_length,
        unit_cover,
    )
    from .blockmap import (
        FLAG_COMPRESSED,
        KIND_DATA,
        KIND_HOLE,
        KIND_LOST,
        KIND_UNREADABLE,
        BlockMap,
    )
    from .bulk import BATCH_BLOCKS_MAX, digest_blocks, is_zero, open_blocks, seal_blocks
    from .cachemap import MAX_OPEN_FILES, CacheMap
    from .pool import ARENA_BYTES, Pool, PooledBlock
    from .reader import FREE_BYTES_MAX, READ_BYTES_MAX, Miss, ReadBuffer, Reader
    from .sodium import (
        AD_BYTES,
        FORMAT_VERSION,
        KEY_BYTES,
        OBJECT_ID_BYTES,
        SUITE_AEGIS256,
        SUITE_XCHACHA20,
        AdContext,
        build_ad,
        digest16,
        digest32,
        open_,
        seal,
        tag_bytes,
    )
except ImportError as _cause:
    raise ImportError(
        "lucid.engine is not built for this Python, or not built at all "
        f"({_cause}). In a source tree run ./build.sh; otherwise install lucidfs again."
    ) from _cause

from .errors import CacheIOError, CorruptBlock, EngineError, LostBlock, UnreadableBlock
from .selftest import SLOW_AEGIS, SelfTest, check_answers, selftest

__all__ = [
    "AD_BYTES",
    "ARENA_BYTES",
    "BATCH_BLOCKS_MAX",
    "BLOCK_BYTES_MAX",
    "BLOCK_BYTES_MIN",
    "FLAG_COMPRESSED",
    "FORMAT_VERSION",
    "FREE_BYTES_MAX",
    "KEY_BYTES",
    "KIND_DATA",
    "KIND_HOLE",
    "KIND_LOST",
    "KIND_UNREADABLE",
    "MAX_OPEN_FILES",
    "OBJECT_ID_BYTES",
    "READ_BYTES_MAX",
    "SEGMENT_STORED_MAX",
    "SLOW_AEGIS",
    "SUITE_AEGIS256",
    "SUITE_XCHACHA20",
    "UNIT_BYTES",
    "AdContext",
    "BlockMap",
    "CacheIOError",
    "CacheMap",
    "CorruptBlock",
    "EngineError",
    "LostBlock",
    "Miss",
    "Pool",
    "PooledBlock",
    "ReadBuffer",
    "Reader",
    "SelfTest",
    "UnreadableBlock",
    "block_length",
    "block_range",
    "build_ad",
    "check_answers",
    "digest16",
    "digest32",
    "digest_blocks",
    "is_zero",
    "open_",
    "open_blocks",
    "seal",
    "seal_blocks",
    "selftest",
    "stored_length",
    "tag_bytes",
    "unit_cover",
]

check_answers()
