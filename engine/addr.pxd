"""Header of addr: the arithmetic, inlined into whoever cimports it.

All offsets and lengths are bytes, all blocks and units count from 0, and nothing here is negative.
"""

from libc.stdint cimport int32_t, int64_t

cdef enum:
    UNIT_LEN = 65536
    # 8 MiB of plaintext, and 64 KiB for tags, footer and trailer.
    STORED_MAX = 8388608 + 65536
    UNITS_MAX = 129
    BLOCK_MIN = 65536
    BLOCK_MAX = 1048576

cdef inline int64_t least(int64_t a, int64_t b) noexcept nogil:
    return a if a < b else b

cdef inline int64_t most(int64_t a, int64_t b) noexcept nogil:
    return a if a > b else b

cdef inline int64_t end_block(int64_t end_offset, int64_t block_size) noexcept nogil:
    """The block after the last one that holds a byte before end_offset."""
    # Not (end_offset + block_size - 1) // block_size: that sum may overflow.
    return end_offset // block_size + (1 if end_offset % block_size else 0)

cdef inline int64_t cut_range(int64_t offset, int64_t length, int64_t size) noexcept nogil:
    """How many of these bytes lie before size."""
    if offset >= size:
        return 0
    return least(length, size - offset)

cdef inline int64_t block_bytes(int64_t block, int64_t size, int64_t block_size) noexcept nogil:
    """Bytes of the file in this block."""
    if block > (size - 1) // block_size or size == 0:
        return 0
    return least(block_size, size - block * block_size)

cdef inline int unit_count(int64_t stored_len) noexcept nogil:
    return <int>((stored_len + UNIT_LEN - 1) // UNIT_LEN)

cdef inline int unit_floor(int64_t offset) noexcept nogil:
    return <int>(offset // UNIT_LEN)

cdef inline int unit_ceil(int64_t offset) noexcept nogil:
    return <int>((offset + UNIT_LEN - 1) // UNIT_LEN)

cdef int check_range(int64_t offset, int64_t length) except -1
