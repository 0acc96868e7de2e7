"""Header of streams: the read-ahead policy of one open file, without the GIL."""

from libc.stdint cimport int64_t

from .cachecore cimport pthread_mutex_t

cdef enum:
    STREAMS_HELD = 4

# One sequential reader: `position` is the end of its furthest read, `asked` how far was asked for.
cdef struct Stream:
    int64_t start        # where its first read began
    int64_t position
    int64_t asked
    int64_t window
    int64_t used
    bint is_sure         # more than one large read: see the policy

cdef struct StreamsCore:
    pthread_mutex_t mutex
    bint has_mutex
    int64_t block
    int64_t window_max
    int64_t clock
    int count
    Stream streams[4]
    int end_count
    bint is_trusted      # it has read on, so the next jump is expected to as well
    int64_t ends[4]      # where recent reads that belong to no stream ended, oldest first

cdef bint streams_read(
    StreamsCore *core, int64_t offset, int64_t length, int64_t size, int64_t *start,
    int64_t *end) noexcept nogil

cdef class Streams:
    cdef StreamsCore core
