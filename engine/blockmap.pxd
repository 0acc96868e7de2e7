"""Header of blockmap: where a block lies, without the GIL."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from .cachecore cimport CacheCore
from .cachemap cimport CacheMap

cdef enum Kind:
    DATA = 1
    HOLE = 2
    LOST = 3
    # Not in the format: data whose flags this version does not know how to open.
    UNREADABLE = 255

cdef enum:
    COMPRESSED = 1

cdef struct Extent:
    int64_t first_block
    int64_t count
    int64_t ordinal
    int64_t offset
    int64_t lengths_at   # first of its entries in lengths and starts, or -1: all blocks are full
    uint64_t token
    int32_t slot
    uint32_t flags
    uint32_t last_len
    uint32_t last_valid
    int kind
    int tag

cdef struct MapCore:
    int64_t size
    int64_t block_size
    int64_t count
    Extent *extents
    uint32_t *lengths
    uint32_t *starts     # where the block begins in its extent

cdef struct Place:
    int kind
    int32_t slot
    uint64_t token
    uint64_t ordinal
    int64_t offset
    int64_t stored
    int64_t plain
    int64_t valid
    uint32_t flags

cdef bint find_place(const MapCore *map, int64_t block, Place *place) noexcept nogil

cdef class BlockMap:
    cdef MapCore map
    cdef CacheMap cachemap
    cdef int64_t retained

    cdef int allocate(self, Py_ssize_t rows, Py_ssize_t lengths) except -1
    cdef int check_row(self, Py_ssize_t row, int64_t lengths) except -1
    cdef int check_data_row(self, Extent *extent, Py_ssize_t row, int64_t lengths) except -1
    cdef int fill_starts(self, Extent *extent, Py_ssize_t row) except -1
