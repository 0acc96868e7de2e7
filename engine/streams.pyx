"""Which bytes of a file to fetch before they are asked for: the policy, pure.

One `Streams` belongs to one open file.  Each read is told to it; it answers with the range that
should be on its way.  Sequential readers are followed, up to four at once; random readers get
nothing.  One mutex, a leaf; any thread may call, without the GIL.

Policy: a read that begins at offset 0 opens a stream with a window of 1 MiB; a second read that
goes on where an earlier one ended opens one with a window of its own length, at least a block.
When the reader has used up half of what was asked for ahead the window becomes four times as
large, up to a limit; but behind a jump at most four blocks or half of what was read there: the
kernel makes several requests of one large read and reads ahead itself, and a random reader of those
must not get many times what it reads.  Who has read 3 MiB in order gets as much ahead as that, and
is trusted once: the next jump opens such a stream with a window of 1 MiB at once.  So who plays,
jumps and plays on waits one round trip for each jump, and who only jumps from then on has got 1 MiB
for nothing.  What is asked for takes no memory, only cache: the limit is a small part of that.
Requests of the kernel come out of order and a little back, and short skips forward keep a stream.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset

from .addr cimport check_range, least, most
from .cachecore cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)

FIRST_WINDOW = WINDOW_AT_FIRST

cdef enum:
    WINDOW_AT_FIRST = 1048576
    # The kernel's read-ahead sends several requests at once; they may come in any order.
    BACKWARD = 524288
    # A skip up to this keeps the stream: fetching the gap costs less than starting again.
    FORWARD = 2097152
    # More than one read that the kernel has split.
    SURE_FROM = 3145728
    FEW_BLOCKS = 4


# --- Kernels -------------------------------------------------------------------------------------


cdef Stream *match(StreamsCore *core, int64_t offset) noexcept nogil:
    """REQUIRES: the mutex.  The stream that a read at this offset goes on, or NULL."""
    cdef int at
    cdef int64_t back
    for at in range(core.count):
        back = core.streams[at].position - offset
        if 0 <= back <= BACKWARD + core.streams[at].window // 8 or 0 < -back <= FORWARD:
            return &core.streams[at]
    return NULL


cdef bint goes_on(StreamsCore *core, int64_t offset) noexcept nogil:
    """REQUIRES: the mutex.  Whether a read begins where one of no stream ended."""
    cdef int at
    for at in range(core.end_count):
        if 0 <= offset - core.ends[at] <= core.block:
            return True
    return False


cdef void keep_end(StreamsCore *core, int64_t end) noexcept nogil:
    """REQUIRES: the mutex."""
    cdef int at
    if core.end_count == STREAMS_HELD:
        for at in range(STREAMS_HELD - 1):
            core.ends[at] = core.ends[at + 1]
        core.end_count -= 1
    core.ends[core.end_count] = end
    core.end_count += 1


cdef Stream *begin(StreamsCore *core, int64_t offset, int64_t end) noexcept nogil:
    """REQUIRES: the mutex.  A new stream in the place of the longest unused one, or NULL."""
    cdef Stream *stream
    cdef int at
    cdef int64_t window = least(WINDOW_AT_FIRST, core.window_max)
    cdef bint is_sure = False
    if offset != 0:
        if goes_on(core, offset):
            window = least(window, most(core.block, end - offset))
        elif core.is_trusted:
            core.is_trusted = False
            is_sure = True
        else:
            keep_end(core, end)
            return NULL
    if core.count < STREAMS_HELD:
        stream = &core.streams[core.count]
        core.count += 1
    else:
        stream = &core.streams[0]
        for at in range(1, STREAMS_HELD):
            if core.streams[at].used < stream.used:
                stream = &core.streams[at]
    stream.start = offset
    stream.is_sure = is_sure
    stream.position = stream.asked = end
    stream.window = window
    return stream


cdef void grow(StreamsCore *core, Stream *stream) noexcept nogil:
    """REQUIRES: the mutex.  The reader uses what was asked for."""
    cdef int64_t window = least(4 * stream.window, core.window_max)
    cdef int64_t so_far = stream.position - stream.start
    if stream.start != 0:
        window = least(
            window, most(FEW_BLOCKS * core.block, so_far if stream.is_sure else so_far // 2))
    stream.window = most(stream.window, window)


cdef bint follow(
    StreamsCore *core, int64_t offset, int64_t end, int64_t size, int64_t *from_,
    int64_t *upto) noexcept nogil:
    """REQUIRES: the mutex.  Whether [from_, upto) should be fetched ahead."""
    cdef Stream *stream = match(core, offset)
    # Who skips what was asked for is kept, but gets no more than before.
    cdef bint reads_on = stream != NULL and offset <= stream.asked
    if stream == NULL:
        stream = begin(core, offset, end)
    if stream == NULL:
        return False
    stream.used = core.clock
    stream.position = most(stream.position, end)
    stream.asked = most(stream.asked, stream.position)
    if reads_on and stream.position - stream.start >= SURE_FROM:
        stream.is_sure = core.is_trusted = True
    if stream.asked - stream.position > stream.window // 2 or stream.asked >= size:
        return False
    from_[0] = stream.asked
    if reads_on:
        grow(core, stream)
    stream.asked = least(size, stream.position + stream.window)
    upto[0] = stream.asked
    return upto[0] > from_[0]


cdef bint streams_read(
    StreamsCore *core, int64_t offset, int64_t length, int64_t size, int64_t *start,
    int64_t *end) noexcept nogil:
    """A read of a file of `size` bytes is served now.  Whether [start, end) should be fetched.

    REQUIRES: a checked range.
    """
    cdef bint wanted
    pthread_mutex_lock(&core.mutex)
    core.clock += 1
    wanted = follow(core, offset, least(offset + length, size), size, start, end)
    pthread_mutex_unlock(&core.mutex)
    return wanted


# --- For Python ----------------------------------------------------------------------------------


@cython.final
cdef class Streams:
    def __cinit__(self, int64_t block_size, int64_t window_max):
        if block_size <= 0 or window_max < block_size:
            raise ValueError("block_size must be positive, and window_max at least a block")
        memset(&self.core, 0, sizeof(StreamsCore))
        if pthread_mutex_init(&self.core.mutex, NULL) != 0:
            raise MemoryError
        self.core.has_mutex = True
        self.core.block = block_size
        self.core.window_max = window_max

    def __dealloc__(self):
        if self.core.has_mutex:
            pthread_mutex_destroy(&self.core.mutex)

    def read(self, int64_t offset, int64_t length, int64_t size):
        cdef int64_t start = 0
        cdef int64_t end = 0
        check_range(offset, length)
        check_range(size, 0)
        if streams_read(&self.core, offset, length, size, &start, &end):
            return start, end
        return None
