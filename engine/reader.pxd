"""Header of reader: a read without the GIL, for the reader itself and for the mount's extension."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .blockmap cimport BlockMap, MapCore, Place
from .cachecore cimport CacheCore, StoredRange
from .cachemap cimport CacheMap
from .pool cimport Pool, PoolCore
from .shelf cimport Piece, Shelf

cdef enum ReadStatus:
    READ_DONE = 0
    READ_MISS = 1
    READ_CORRUPT = 2
    READ_LOST = 3
    READ_BROKEN = 4     # the disk under the cache failed
    READ_NO_SLOT = 5    # the cache map was closed
    READ_NO_MEMORY = 6
    READ_UNREADABLE = 7 # stored in a way this version does not know

cdef struct ReaderCore:
    CacheCore *cache
    PoolCore *pool
    int64_t block_size
    Shelf replies
    Shelf scratch

# Sealed bytes that the caller has in memory.
cdef struct MemorySource:
    int32_t slot
    int64_t offset
    int64_t length
    const uint8_t *data

# What a read answers.  READ_DONE: `data` and `length`, until reply_release.
# READ_MISS: `ranges`, until reply_release.  Else: which block, and how it failed.
cdef struct Reply:
    Piece *piece
    const uint8_t *data
    int64_t length
    int status
    StoredRange *ranges
    int range_count
    int32_t slot
    uint64_t ordinal
    int64_t block
    int error
    bint from_cache

cdef int read_range(
    ReaderCore *reader, const MapCore *map, int64_t offset, int64_t length,
    const MemorySource *sources, int source_count, Reply *reply) noexcept nogil
cdef void reply_release(ReaderCore *reader, Reply *reply) noexcept nogil

cdef class Reader:
    cdef ReaderCore core
    cdef readonly CacheMap cachemap
    cdef readonly Pool pool

    cdef object answer(self, Reply *reply)
    cdef object run(
        self, BlockMap blockmap, int64_t offset, int64_t length, const MemorySource *sources,
        int source_count)
    cdef int check(self, BlockMap blockmap, int64_t offset, int64_t length) except -1

cdef class ReadBuffer:
    cdef Reader reader
    cdef Reply reply
    cdef int exports
    cdef bint closed
    cdef int check_open(self) except -1
