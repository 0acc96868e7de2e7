"""Header of cachecore: what the reader and the block map call without the GIL."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .slots cimport Slot, SlotTable
from .sodium cimport AdTemplate

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef enum Readiness:
    READY = 0
    ABSENT = 1        # not on the local disk: fetch it
    BROKEN = 2        # the local disk failed; errno beside it
    UNKNOWN_SLOT = 3  # not in use, without key, or the map is closed
    OUTSIDE = 4       # beyond the stored length: the metadata or the segment is wrong

cdef enum Taking:
    TAKEN = 0
    FULL = 1
    MISMATCH = 2

cdef struct CacheCore:
    SlotTable table
    pthread_mutex_t mutex
    bint has_mutex
    bint closed
    int cache_dir
    int staging_dir
    int max_open
    int64_t busy
    uint64_t hits
    uint64_t misses
    uint64_t bytes_read

# What a reader works with until core_end_read.
cdef struct SegmentView:
    int fd
    bint staged
    const uint8_t *id
    const uint8_t *key
    const AdTemplate *template

# A range of stored bytes of one segment.
cdef struct StoredRange:
    int32_t slot
    int64_t offset
    int64_t length

cdef int core_init(CacheCore *core, int cache_dir, int staging_dir, int max_open) noexcept nogil
cdef void core_close(CacheCore *core) noexcept nogil
cdef void core_free(CacheCore *core) noexcept nogil

cdef int core_take(
    CacheCore *core, const uint8_t *segment_id, const uint8_t *key, const AdTemplate *template,
    int64_t stored_len, bint staged, int32_t *index) noexcept nogil
cdef int core_retain(
    CacheCore *core, int32_t index, uint64_t *token, int *tag) noexcept nogil
cdef int core_release(CacheCore *core, int64_t index, int *fd) noexcept nogil

cdef int core_load(CacheCore *core, int32_t index, bint rescan, int *error) noexcept nogil
cdef int core_peek(CacheCore *core, int32_t index, int64_t offset, int64_t length) noexcept nogil
cdef int core_absent(
    CacheCore *core, int32_t index, int64_t offset, int64_t length, StoredRange *out,
    int room) noexcept nogil
cdef int core_clear(
    CacheCore *core, int32_t index, int64_t offset, int64_t length) noexcept nogil
cdef int drop_fd(CacheCore *core, Slot *slot, int32_t index) noexcept nogil

cdef int core_begin_read(
    CacheCore *core, int32_t index, int64_t offset, int64_t length, SegmentView *view,
    int *error) noexcept nogil
cdef int core_begin_memory(CacheCore *core, int32_t index, SegmentView *view) noexcept nogil
cdef void core_end_read(CacheCore *core, int32_t index) noexcept nogil
cdef void core_count(CacheCore *core, bint hit, int64_t length) noexcept nogil
