"""The hot path: a byte range of a file version, opened from cache files into one reply buffer.

It owns the reply buffers and the scratch memory for sealed bytes.  Any thread may call; a read lets
the GIL go once and holds no lock while it reads or opens, so that two reads run in parallel.

A reply buffer is whole blocks long and begins where the first block begins: a block that is wanted
whole is opened right where it belongs.  A block that is wanted in part is opened in a frame of the
pool and copied from there, because the next request wants its rest: the kernel's read-ahead is not
block-aligned.  Past a block's valid bytes, in gaps and in holes there are zeros.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EIO
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from .addr cimport (
    STORED_MAX,
    check_range,
    cut_range,
    end_block,
    least,
    most,
    unit_ceil,
    unit_floor,
)
from .blockmap cimport DATA, LOST, UNREADABLE, BlockMap, MapCore, Place, find_place
from .cachecore cimport (
    ABSENT,
    BROKEN,
    OUTSIDE,
    READY,
    UNKNOWN_SLOT,
    SegmentView,
    StoredRange,
    core_absent,
    core_begin_memory,
    core_begin_read,
    core_clear,
    core_count,
    core_end_read,
    core_peek,
)
from .pool cimport (
    NO_FRAME,
    pool_abandon,
    pool_find,
    pool_has,
    pool_memory,
    pool_publish,
    pool_reserve,
    pool_unpin,
)
from .segfile cimport read_at
from .shelf cimport Piece, Shelf, shelf_free, shelf_give, shelf_init, shelf_take
from .sodium cimport TAG_LEN_MAX, open_block

from .errors import CacheIOError, CorruptBlock, EngineError, LostBlock, UnreadableBlock

READ_BYTES_MAX = LONGEST_READ
FREE_BYTES_MAX = REPLIES_HELD

cdef enum:
    LONGEST_READ = 16777216
    # Free replies kept for the next read: 32 straddling reads of 128 KiB at once.
    REPLIES_HELD = 8388608
    SCRATCH_HELD = 4194304
    SOURCES_MAX = 64
    # Of one block: at most every second unit of the largest block begins an absent range.
    BLOCK_RANGES = 16
    PAGE_LEN = 4096


# --- Kernels -------------------------------------------------------------------------------------


cdef int note_range(Reply *reply, int32_t slot, int64_t offset, int64_t length) noexcept nogil:
    """Add an absent range, joined with the last one where they touch.  A ReadStatus."""
    cdef StoredRange *last
    cdef StoredRange *grown
    if reply.range_count > 0:
        last = &reply.ranges[reply.range_count - 1]
        if last.slot == slot and last.offset <= offset <= last.offset + last.length:
            last.length = most(last.length, offset + length - last.offset)
            return READ_MISS
    # Sixteen at a time.
    if reply.range_count % 16 == 0:
        grown = <StoredRange *>realloc(
            reply.ranges, (reply.range_count + 16) * sizeof(StoredRange))
        if grown == NULL:
            return READ_NO_MEMORY
        reply.ranges = grown
    last = &reply.ranges[reply.range_count]
    last.slot = slot
    last.offset = offset
    last.length = length
    reply.range_count += 1
    return READ_MISS


cdef int note_absent(ReaderCore *reader, Reply *reply, const Place *place) noexcept nogil:
    """Add what is absent of a block, in whole units.  A ReadStatus."""
    cdef StoredRange found[BLOCK_RANGES]
    cdef int count = core_absent(
        reader.cache, place.slot, place.offset, place.stored, found, BLOCK_RANGES)
    cdef int at
    cdef int status
    if count == 0:
        # It came meanwhile, or its file is just being let go: naming the block makes the caller
        # look again.
        return note_range(reply, place.slot, place.offset, place.stored)
    for at in range(count):
        status = note_range(reply, place.slot, found[at].offset, found[at].length)
        if status != READ_MISS:
            return status
    return READ_MISS


cdef int note_failure(Reply *reply, int status, const Place *place, bint cached) noexcept nogil:
    reply.slot = place.slot
    reply.ordinal = place.ordinal
    reply.from_cache = cached
    return status


cdef const uint8_t *from_memory(
    const MemorySource *sources, int source_count, const Place *place) noexcept nogil:
    """The block's sealed bytes, if they lie whole in a source; else NULL."""
    cdef int at
    cdef int64_t skip
    for at in range(source_count):
        skip = place.offset - sources[at].offset
        if sources[at].slot == place.slot and skip >= 0:
            if place.stored <= sources[at].length - skip:
                return sources[at].data + skip
    return NULL


cdef int load_sealed(
    ReaderCore *reader, const Place *place, uint8_t *scratch, SegmentView *view,
    Reply *reply) noexcept nogil:
    """Read a block's sealed bytes from its cache file.  READ_DONE: end the read after use."""
    cdef int error = 0
    cdef int64_t got
    cdef int status = core_begin_read(
        reader.cache, place.slot, place.offset, place.stored, view, &error)
    if status == ABSENT:
        return note_absent(reader, reply, place)
    if status == OUTSIDE:
        # The metadata and the segment do not fit together: fetching again would not help.
        return note_failure(reply, READ_CORRUPT, place, False)
    if status != READY:
        reply.error = error
        return note_failure(reply, READ_BROKEN if status == BROKEN else READ_NO_SLOT, place, True)
    got = read_at(view.fd, scratch, place.stored, place.offset)
    if got == place.stored:
        return READ_DONE
    core_end_read(reader.cache, place.slot)
    if got < 0:
        reply.error = <int>-got
        return note_failure(reply, READ_BROKEN, place, True)
    if view.staged:
        # Nobody else has these bytes: there is nothing to fetch them from.
        return note_failure(reply, READ_CORRUPT, place, True)
    # The cache file was cut short.
    core_clear(reader.cache, place.slot, place.offset, place.stored)
    return note_absent(reader, reply, place)


cdef int open_place(
    ReaderCore *reader, const Place *place, const uint8_t *memory, uint8_t *scratch, uint8_t *out,
    Reply *reply) noexcept nogil:
    """Open a data block into `out`: from `memory`, or when that is NULL from its cache file."""
    cdef SegmentView view
    cdef int status
    cdef const uint8_t *sealed = memory
    if memory != NULL:
        if core_begin_memory(reader.cache, place.slot, &view) != READY:
            return note_failure(reply, READ_NO_SLOT, place, False)
    else:
        status = load_sealed(reader, place, scratch, &view, reply)
        if status != READ_DONE:
            return status
        sealed = scratch
    status = open_block(view.template, view.id, view.key, place.ordinal, place.flags, sealed,
                        <size_t>place.stored, out)
    core_end_read(reader.cache, place.slot)
    if status != 0:
        return note_failure(reply, READ_CORRUPT, place, memory == NULL)
    return READ_DONE


cdef int fill_data(
    ReaderCore *reader, const Place *place, const uint8_t *memory, uint8_t *scratch, uint8_t *cell,
    int64_t low, int64_t high, Reply *reply) noexcept nogil:
    """Put the bytes [low, high) of a data block into its cell; all of them count."""
    cdef int32_t frame
    cdef int status
    frame = pool_find(reader.pool, place.token, place.ordinal, place.plain, place.flags, True)
    if frame == NO_FRAME:
        if low == 0 and high == place.valid:
            return open_place(reader, place, memory, scratch, cell, reply)
        frame = pool_reserve(reader.pool, place.token, place.ordinal, place.plain, place.flags)
        if frame == NO_FRAME:
            return open_place(reader, place, memory, scratch, cell, reply)
        status = open_place(
            reader, place, memory, scratch, pool_memory(reader.pool, frame), reply)
        if status != READ_DONE:
            pool_abandon(reader.pool, frame)
            return status
        pool_publish(reader.pool, frame)
    memcpy(cell + low, pool_memory(reader.pool, frame) + low, <size_t>(high - low))
    pool_unpin(reader.pool, frame)
    return READ_DONE


cdef int refusal(int kind) noexcept nogil:
    """The status of a block that cannot be served, whatever is on the disk; else READ_DONE."""
    if kind == LOST:
        return READ_LOST
    if kind == UNREADABLE:
        return READ_UNREADABLE
    return READ_DONE


cdef int survey(
    ReaderCore *reader, const MapCore *map, int64_t first, int64_t end,
    const MemorySource *sources, int source_count, Reply *reply) noexcept nogil:
    """Before any block is opened: is one lost, or absent?  Else the work before it were wasted."""
    cdef Place place
    cdef int64_t block
    cdef int status
    for block in range(first, end):
        if not find_place(map, block, &place):
            continue
        status = refusal(place.kind)
        if status != READ_DONE:
            reply.block = block
            return status
        if place.kind != DATA or from_memory(sources, source_count, &place) != NULL:
            continue
        if pool_has(reader.pool, place.token, place.ordinal, place.plain, place.flags):
            continue
        if core_peek(reader.cache, place.slot, place.offset, place.stored) == ABSENT:
            status = note_absent(reader, reply, &place)
            if status != READ_MISS:
                return status
    return READ_MISS if reply.range_count else READ_DONE


cdef int fill_block(
    ReaderCore *reader, const MapCore *map, int64_t block, int64_t low, int64_t high,
    const MemorySource *sources, int source_count, uint8_t *scratch, uint8_t *cell,
    Reply *reply) noexcept nogil:
    """Put the bytes [low, high) of a block into its cell.  A ReadStatus."""
    cdef Place place
    cdef int64_t count = low
    cdef int status
    if find_place(map, block, &place):
        status = refusal(place.kind)
        if status != READ_DONE:
            reply.block = block
            return status
        # Holes have no valid bytes.
        count = most(low, least(high, place.valid))
    if count > low:
        status = fill_data(
            reader, &place, from_memory(sources, source_count, &place), scratch, cell, low, count,
            reply)
        if status != READ_DONE:
            return status
    memset(cell + count, 0, <size_t>(high - count))
    return READ_DONE


cdef int fill_all(
    ReaderCore *reader, const MapCore *map, int64_t offset, int64_t length,
    const MemorySource *sources, int source_count, uint8_t *scratch, Reply *reply) noexcept nogil:
    cdef int64_t block_size = map.block_size
    cdef int64_t first = offset // block_size
    cdef int64_t end = end_block(offset + length, block_size)
    cdef int64_t block
    cdef int64_t start
    cdef int status = READ_DONE
    if end - first > 1:
        status = survey(reader, map, first, end, sources, source_count, reply)
        if status != READ_DONE:
            return status
    for block in range(first, end):
        start = block * block_size
        status = fill_block(
            reader, map, block, most(offset - start, 0), least(offset + length - start, block_size),
            sources, source_count, scratch, reply.piece.memory + (block - first) * block_size,
            reply)
        if status != READ_DONE:
            return status
    reply.data = reply.piece.memory + offset % block_size
    reply.length = length
    return READ_DONE


cdef int read_range(
    ReaderCore *reader, const MapCore *map, int64_t offset, int64_t length,
    const MemorySource *sources, int source_count, Reply *reply) noexcept nogil:
    """Read [offset, offset + length), cut to the file's size.  A ReadStatus, also in the reply.

    REQUIRES: a checked range, at most LONGEST_READ long; a map of the same cache and block size.
    Release the reply in any case.
    """
    cdef int64_t block_size = map.block_size
    cdef Piece *scratch
    memset(reply, 0, sizeof(Reply))
    length = cut_range(offset, length, map.size)
    if length == 0:
        return READ_DONE
    reply.piece = shelf_take(
        &reader.replies,
        <size_t>((end_block(offset + length, block_size) - offset // block_size) * block_size))
    scratch = shelf_take(&reader.scratch, <size_t>block_size + TAG_LEN_MAX)
    if reply.piece == NULL or scratch == NULL:
        reply.status = READ_NO_MEMORY
    else:
        reply.status = fill_all(
            reader, map, offset, length, sources, source_count, scratch.memory, reply)
    if scratch != NULL:
        shelf_give(&reader.scratch, scratch)
    if reply.piece != NULL and reply.status != READ_DONE:
        shelf_give(&reader.replies, reply.piece)
        reply.piece = NULL
    return reply.status


cdef void reply_release(ReaderCore *reader, Reply *reply) noexcept nogil:
    """Give back what a reply holds.  Calling it again does nothing."""
    if reply.piece != NULL:
        shelf_give(&reader.replies, reply.piece)
        reply.piece = NULL
    free(reply.ranges)
    reply.ranges = NULL
    reply.range_count = 0


# --- For Python ----------------------------------------------------------------------------------


@cython.final
@cython.no_gc_clear
cdef class ReadBuffer:
    """Invariant: the reply is released exactly once, and never while `exports` is above zero."""

    def __init__(self, *unused):
        raise TypeError("a ReadBuffer comes from Reader.read")

    def __dealloc__(self):
        # Views keep this object alive, so nobody looks at the memory any more.
        if self.reader is not None:
            reply_release(&self.reader.core, &self.reply)

    def __len__(self):
        return self.reply.length

    def __bytes__(self):
        self.check_open()
        return PyBytes_FromStringAndSize(<const char *>self.reply.data, self.reply.length)

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.check_open()
        # An empty reply has no memory, and a buffer may not be NULL.
        PyBuffer_FillInfo(
            view, self, <void *>self.reply.data if self.reply.length else <void *>&self.reply,
            self.reply.length, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1

    cdef int check_open(self) except -1:
        if self.closed:
            raise ValueError("the read buffer is closed")
        return 0

    def close(self):
        if self.exports:
            raise BufferError("views of the read buffer are still in use")
        self.closed = True
        self.reply.length = 0
        reply_release(&self.reader.core, &self.reply)


@cython.final
cdef class Miss:
    """Ranges may have come meanwhile: ask the cache map again before fetching."""
    cdef readonly list ranges

    def __init__(self, *unused):
        raise TypeError("a Miss comes from Reader.read")

    def __repr__(self):
        return f"Miss({self.ranges})"


@cython.final
@cython.no_gc_clear
cdef class Reader:
    def __cinit__(self, CacheMap cachemap not None, Pool pool not None, int64_t block_size):
        if pool.core.block_size != <size_t>block_size:
            raise ValueError("the pool is made for another block size")
        self.cachemap = cachemap
        self.pool = pool
        self.core.cache = &cachemap.core
        self.core.pool = &pool.core
        self.core.block_size = block_size
        if shelf_init(&self.core.replies, <size_t>block_size, REPLIES_HELD) != 0:
            raise MemoryError
        # One class is enough: a sealed block and its tag.
        if shelf_init(&self.core.scratch, <size_t>block_size + PAGE_LEN, SCRATCH_HELD) != 0:
            raise MemoryError

    def __dealloc__(self):
        shelf_free(&self.core.replies)
        shelf_free(&self.core.scratch)

    cdef int check(self, BlockMap blockmap, int64_t offset, int64_t length) except -1:
        check_range(offset, length)
        if length > LONGEST_READ:
            raise ValueError(f"a read has at most {LONGEST_READ} bytes")
        if blockmap.cachemap is not self.cachemap:
            raise ValueError("the block map belongs to another cache map")
        if blockmap.map.block_size != self.core.block_size:
            raise ValueError("the block map has another block size")
        return 0

    cdef object answer(self, Reply *reply):
        """A ReadBuffer or a Miss, or raise; the reply is taken over or released."""
        cdef ReadBuffer buffer
        cdef Miss miss
        cdef int at
        try:
            if reply.status == READ_DONE:
                buffer = ReadBuffer.__new__(ReadBuffer)
                buffer.reader = self
                buffer.reply = reply[0]
                reply.piece = NULL
                return buffer
            if reply.status == READ_MISS:
                miss = Miss.__new__(Miss)
                miss.ranges = [
                    (reply.ranges[at].slot, reply.ranges[at].offset, reply.ranges[at].length)
                    for at in range(reply.range_count)
                ]
                return miss
        finally:
            reply_release(&self.core, reply)
        if reply.status == READ_CORRUPT:
            raise CorruptBlock(
                slot=reply.slot, ordinal=reply.ordinal, from_cache=bool(reply.from_cache))
        if reply.status == READ_LOST:
            raise LostBlock(reply.block)
        if reply.status == READ_UNREADABLE:
            raise UnreadableBlock(reply.block)
        if reply.status == READ_BROKEN:
            raise CacheIOError(reply.error, reply.slot)
        if reply.status == READ_NO_SLOT:
            raise EngineError("the cache map is closed")
        raise MemoryError

    cdef object run(
        self, BlockMap blockmap, int64_t offset, int64_t length, const MemorySource *sources,
        int source_count):
        cdef Reply reply
        self.check(blockmap, offset, length)
        with nogil:
            read_range(&self.core, &blockmap.map, offset, length, sources, source_count, &reply)
            if reply.status == READ_DONE or reply.status == READ_MISS:
                core_count(self.core.cache, reply.status == READ_DONE, reply.length)
        return self.answer(&reply)

    def read(self, BlockMap blockmap not None, int64_t offset, int64_t length):
        return self.run(blockmap, offset, length, NULL, 0)

    def open_from(self, BlockMap blockmap not None, int64_t offset, int64_t length, sources):
        cdef MemorySource found[SOURCES_MAX]
        cdef Py_buffer views[SOURCES_MAX]
        cdef int count = 0
        cdef int at
        if len(sources) > SOURCES_MAX:
            raise ValueError(f"at most {SOURCES_MAX} sources at once")
        try:
            for slot, seg_offset, data in sources:
                found[count].slot = slot
                found[count].offset = seg_offset
                check_range(found[count].offset, 0)
                PyObject_GetBuffer(data, &views[count], PyBUF_SIMPLE)
                found[count].data = <const uint8_t *>views[count].buf
                found[count].length = views[count].len
                count += 1
            return self.run(blockmap, offset, length, found, count)
        finally:
            for at in range(count):
                PyBuffer_Release(&views[at])

    def read_block(self, BlockMap blockmap not None, int64_t block):
        check_range(block, 0)
        if block >= blockmap.map.size // self.core.block_size + 1:
            return b""
        answer = self.run(
            blockmap, block * self.core.block_size, self.core.block_size, NULL, 0)
        if isinstance(answer, ReadBuffer):
            return bytes(answer)
        return answer

    def stats(self):
        return {
            "buffers_out": self.core.replies.out, "bytes_held": self.core.replies.held,
            "scratch_out": self.core.scratch.out, "scratch_held": self.core.scratch.held,
        }
