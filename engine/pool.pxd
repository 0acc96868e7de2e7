"""Header of pool: frames of opened blocks, without the GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .cachecore cimport pthread_mutex_t

cdef enum:
    NO_FRAME = -1

cdef struct Frame:
    uint64_t token
    uint64_t ordinal
    int32_t length
    uint32_t flags
    int32_t pins
    bint ready      # filled; before that only its filler may look at it
    bint hashed     # can be found; a frame that was dropped while pinned cannot
    bint was_used   # has held plaintext: wiped at the end
    int32_t prev
    int32_t next
    int32_t hash_next

cdef struct PoolCore:
    pthread_mutex_t mutex
    bint has_mutex
    size_t block_size
    int32_t count
    uint8_t *arena
    Frame *frames
    int32_t *buckets
    uint32_t bucket_mask
    int32_t head     # of the frames nobody pins, newest first
    int32_t tail
    uint64_t hits
    uint64_t misses

cdef int32_t pool_find(
    PoolCore *pool, uint64_t token, uint64_t ordinal, int64_t length, uint32_t flags,
    bint count) noexcept nogil
cdef bint pool_has(
    PoolCore *pool, uint64_t token, uint64_t ordinal, int64_t length,
    uint32_t flags) noexcept nogil
cdef int32_t pool_reserve(
    PoolCore *pool, uint64_t token, uint64_t ordinal, int64_t length, uint32_t flags) noexcept nogil
cdef void pool_publish(PoolCore *pool, int32_t frame) noexcept nogil
cdef void pool_abandon(PoolCore *pool, int32_t frame) noexcept nogil
cdef void pool_unpin(PoolCore *pool, int32_t frame) noexcept nogil
cdef uint8_t *pool_memory(PoolCore *pool, int32_t frame) noexcept nogil

cdef class Pool:
    cdef PoolCore core

cdef class PooledBlock:
    cdef Pool pool
    cdef int32_t frame
    cdef Py_ssize_t length
