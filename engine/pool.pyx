"""A fixed arena of opened blocks, so that a block is opened once for several small reads of it.

It owns the arena (plaintext: kept out of core dumps, wiped at the end), the frames and one mutex, a
leaf like the cache map's.  Any thread may call.  A frame is filled by the one that reserved it,
without the mutex; others who want the block meanwhile open it for themselves rather than wait.
Pinned frames are never reused.  Recency is over all files: as long as fewer than half as many
handles read at once as there are frames, each handle's last two blocks are still here.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from .addr cimport BLOCK_MAX, BLOCK_MIN
from .cachecore cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from .slots cimport SLOT_BITS
from .sodium cimport wipe

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *memory, size_t length, int advice)
    int MADV_DONTDUMP

ARENA_BYTES = 16 << 20

cdef enum:
    PAGE_LEN = 4096
    FRAMES_MAX = 65536


# --- Kernels -------------------------------------------------------------------------------------


cdef int pool_init(PoolCore *pool, size_t block_size, int32_t count) noexcept nogil:
    """0, or -1 when there is no memory."""
    cdef int32_t index
    cdef uint32_t buckets = 1
    memset(pool, 0, sizeof(PoolCore))
    while buckets < 2 * <uint32_t>count:
        buckets *= 2
    pool.block_size = block_size
    pool.bucket_mask = buckets - 1
    pool.head = pool.tail = NO_FRAME
    pool.frames = <Frame *>calloc(count, sizeof(Frame))
    pool.buckets = <int32_t *>malloc(buckets * sizeof(int32_t))
    if pool.frames == NULL or pool.buckets == NULL:
        return -1
    if posix_memalign(<void **>&pool.arena, PAGE_LEN, count * block_size) != 0:
        pool.arena = NULL
        return -1
    # Only advice: where the kernel does not know it, the process has switched core dumps off.
    madvise(pool.arena, count * block_size, MADV_DONTDUMP)
    memset(pool.buckets, 0xFF, buckets * sizeof(int32_t))
    if pthread_mutex_init(&pool.mutex, NULL) != 0:
        return -1
    pool.has_mutex = True
    pool.count = count
    for index in range(count):
        link_front(pool, index)
    return 0


cdef void pool_free(PoolCore *pool) noexcept nogil:
    cdef int32_t index
    for index in range(pool.count):
        if pool.frames[index].was_used:
            wipe(pool_memory(pool, index), pool.block_size)
    if pool.has_mutex:
        pthread_mutex_destroy(&pool.mutex)
    free(pool.arena)
    free(pool.frames)
    free(pool.buckets)


cdef uint8_t *pool_memory(PoolCore *pool, int32_t frame) noexcept nogil:
    return pool.arena + <size_t>frame * pool.block_size


cdef void link_front(PoolCore *pool, int32_t index) noexcept nogil:
    cdef Frame *frame = &pool.frames[index]
    frame.prev = NO_FRAME
    frame.next = pool.head
    if pool.head == NO_FRAME:
        pool.tail = index
    else:
        pool.frames[pool.head].prev = index
    pool.head = index


cdef void link_back(PoolCore *pool, int32_t index) noexcept nogil:
    cdef Frame *frame = &pool.frames[index]
    frame.next = NO_FRAME
    frame.prev = pool.tail
    if pool.tail == NO_FRAME:
        pool.head = index
    else:
        pool.frames[pool.tail].next = index
    pool.tail = index


cdef void unlink(PoolCore *pool, int32_t index) noexcept nogil:
    cdef Frame *frame = &pool.frames[index]
    if frame.prev == NO_FRAME:
        pool.head = frame.next
    else:
        pool.frames[frame.prev].next = frame.next
    if frame.next == NO_FRAME:
        pool.tail = frame.prev
    else:
        pool.frames[frame.next].prev = frame.prev


@cython.overflowcheck(False)
cdef uint32_t bucket_of(PoolCore *pool, uint64_t token, uint64_t ordinal) noexcept nogil:
    cdef uint64_t mixed = token * <uint64_t>0x9E3779B97F4A7C15 + ordinal
    mixed = (mixed ^ (mixed >> 32)) * <uint64_t>0xBF58476D1CE4E5B9
    return <uint32_t>((mixed >> 32) & pool.bucket_mask)


cdef int32_t lookup(PoolCore *pool, uint64_t token, uint64_t ordinal) noexcept nogil:
    cdef int32_t index = pool.buckets[bucket_of(pool, token, ordinal)]
    while index != NO_FRAME:
        if pool.frames[index].token == token and pool.frames[index].ordinal == ordinal:
            return index
        index = pool.frames[index].hash_next
    return NO_FRAME


cdef void unhash(PoolCore *pool, int32_t index) noexcept nogil:
    cdef Frame *frame = &pool.frames[index]
    cdef int32_t *link = &pool.buckets[bucket_of(pool, frame.token, frame.ordinal)]
    while link[0] != index:
        link = &pool.frames[link[0]].hash_next
    link[0] = frame.hash_next
    frame.hashed = False


cdef bint is_match(const Frame *frame, int64_t length, uint32_t flags) noexcept nogil:
    """Metadata that claims another length or flags must fail at the tag, not be served here."""
    return frame.ready and (length < 0 or (frame.length == length and frame.flags == flags))


cdef int32_t pool_find(
    PoolCore *pool, uint64_t token, uint64_t ordinal, int64_t length, uint32_t flags,
    bint count) noexcept nogil:
    """A ready frame, pinned; or NO_FRAME.  A length of -1 takes any."""
    cdef int32_t index
    pthread_mutex_lock(&pool.mutex)
    index = lookup(pool, token, ordinal)
    if index != NO_FRAME and not is_match(&pool.frames[index], length, flags):
        index = NO_FRAME
    if index != NO_FRAME:
        if pool.frames[index].pins == 0:
            unlink(pool, index)
        pool.frames[index].pins += 1
        pool.hits += count
    else:
        pool.misses += count
    pthread_mutex_unlock(&pool.mutex)
    return index


cdef bint pool_has(
    PoolCore *pool, uint64_t token, uint64_t ordinal, int64_t length,
    uint32_t flags) noexcept nogil:
    """Whether pool_find would find it now."""
    cdef int32_t index
    cdef bint found
    pthread_mutex_lock(&pool.mutex)
    index = lookup(pool, token, ordinal)
    found = index != NO_FRAME and is_match(&pool.frames[index], length, flags)
    pthread_mutex_unlock(&pool.mutex)
    return found


cdef int32_t pool_reserve(
    PoolCore *pool, uint64_t token, uint64_t ordinal, int64_t length,
    uint32_t flags) noexcept nogil:
    """A frame to fill, pinned; publish or abandon it.  NO_FRAME: it is there, or none is free."""
    cdef int32_t index = NO_FRAME
    cdef uint32_t bucket
    cdef Frame *frame
    pthread_mutex_lock(&pool.mutex)
    if lookup(pool, token, ordinal) == NO_FRAME:
        index = pool.tail
    if index != NO_FRAME:
        unlink(pool, index)
        frame = &pool.frames[index]
        if frame.hashed:
            unhash(pool, index)
        frame.token = token
        frame.ordinal = ordinal
        frame.length = <int32_t>length
        frame.flags = flags
        frame.pins = 1
        frame.ready = False
        frame.hashed = True
        frame.was_used = True
        bucket = bucket_of(pool, token, ordinal)
        frame.hash_next = pool.buckets[bucket]
        pool.buckets[bucket] = index
    pthread_mutex_unlock(&pool.mutex)
    return index


cdef void pool_publish(PoolCore *pool, int32_t frame) noexcept nogil:
    """The frame is filled.  It stays pinned by its filler."""
    pthread_mutex_lock(&pool.mutex)
    pool.frames[frame].ready = True
    pthread_mutex_unlock(&pool.mutex)


cdef void pool_abandon(PoolCore *pool, int32_t frame) noexcept nogil:
    """The frame could not be filled: nobody may find it."""
    pthread_mutex_lock(&pool.mutex)
    if pool.frames[frame].hashed:
        unhash(pool, frame)
    pool.frames[frame].ready = False
    pool.frames[frame].pins = 0
    link_back(pool, frame)
    pthread_mutex_unlock(&pool.mutex)


cdef void pool_unpin(PoolCore *pool, int32_t frame) noexcept nogil:
    pthread_mutex_lock(&pool.mutex)
    pool.frames[frame].pins -= 1
    if pool.frames[frame].pins == 0:
        if pool.frames[frame].hashed:
            link_front(pool, frame)
        else:
            link_back(pool, frame)
    pthread_mutex_unlock(&pool.mutex)


cdef int pool_drop(PoolCore *pool, uint64_t slot) noexcept nogil:
    """Make all blocks of a slot unfindable; a pinned frame is free again at its last unpin."""
    cdef int32_t index
    cdef int dropped = 0
    cdef Frame *frame
    pthread_mutex_lock(&pool.mutex)
    for index in range(pool.count):
        frame = &pool.frames[index]
        if frame.hashed and frame.token & ((<uint64_t>1 << SLOT_BITS) - 1) == slot:
            unhash(pool, index)
            dropped += 1
            if frame.pins == 0:
                unlink(pool, index)
                link_back(pool, index)
    pthread_mutex_unlock(&pool.mutex)
    return dropped


# --- For Python ----------------------------------------------------------------------------------


@cython.final
@cython.no_gc_clear
cdef class PooledBlock:
    def __init__(self, *unused):
        raise TypeError("a PooledBlock comes from Pool.get")

    def __dealloc__(self):
        # Views of the memory keep this object alive, so nobody looks at the frame any more.
        if self.pool is not None:
            pool_unpin(&self.pool.core, self.frame)

    def __len__(self):
        return self.length

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, pool_memory(&self.pool.core, self.frame), self.length, 1,
                          flags)


@cython.final
cdef class Pool:
    def __cinit__(self, Py_ssize_t block_size, Py_ssize_t arena_bytes = ARENA_BYTES):
        cdef Py_ssize_t count
        if not BLOCK_MIN <= block_size <= BLOCK_MAX or block_size & (block_size - 1):
            raise ValueError(f"block_size {block_size} is not a power of two from 64 KiB to 1 MiB")
        count = arena_bytes // block_size
        if not 1 <= count <= FRAMES_MAX:
            raise ValueError(f"arena_bytes {arena_bytes} is not 1 to {FRAMES_MAX} blocks")
        if pool_init(&self.core, block_size, <int32_t>count) != 0:
            raise MemoryError

    def __dealloc__(self):
        pool_free(&self.core)

    @property
    def block_size(self):
        return self.core.block_size

    @property
    def frames(self):
        return self.core.count

    def get(self, uint64_t token, uint64_t ordinal):
        cdef int32_t frame = pool_find(&self.core, token, ordinal, -1, 0, True)
        cdef PooledBlock block
        if frame == NO_FRAME:
            return None
        try:
            block = PooledBlock.__new__(PooledBlock)
        except MemoryError:
            pool_unpin(&self.core, frame)
            raise
        block.pool = self
        block.frame = frame
        block.length = self.core.frames[frame].length
        return block

    def put(self, uint64_t token, uint64_t ordinal, plaintext, uint32_t flags = 0):
        cdef Py_buffer view
        cdef int32_t frame
        PyObject_GetBuffer(plaintext, &view, PyBUF_SIMPLE)
        try:
            if view.len > <Py_ssize_t>self.core.block_size:
                raise ValueError(f"{view.len} bytes are more than a block")
            frame = pool_reserve(&self.core, token, ordinal, view.len, flags)
            if frame != NO_FRAME:
                memcpy(pool_memory(&self.core, frame), view.buf, view.len)
                pool_publish(&self.core, frame)
                pool_unpin(&self.core, frame)
        finally:
            PyBuffer_Release(&view)
        return frame != NO_FRAME

    def drop(self, uint64_t slot):
        return pool_drop(&self.core, slot)

    def stats(self):
        cdef int32_t index
        cdef int used = 0
        cdef int pinned = 0
        pthread_mutex_lock(&self.core.mutex)
        for index in range(self.core.count):
            used += self.core.frames[index].hashed
            pinned += self.core.frames[index].pins > 0
        hits = self.core.hits
        misses = self.core.misses
        pthread_mutex_unlock(&self.core.mutex)
        return {"frames": self.core.count, "used": used, "pinned": pinned, "hits": hits,
                "misses": misses}
