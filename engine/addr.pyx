"""Pure arithmetic of files, blocks and cache units: the only place that converts between them.

No state; any thread may call.  The kernels are in the header, inlined; here are their faces for
Python, which check what the kernels trust.
"""

from libc.stdint cimport INT64_MAX, int64_t

UNIT_BYTES = UNIT_LEN
SEGMENT_STORED_MAX = STORED_MAX
BLOCK_BYTES_MIN = BLOCK_MIN
BLOCK_BYTES_MAX = BLOCK_MAX


cdef int check_range(int64_t offset, int64_t length) except -1:
    """Refuse what would be negative or would not fit a signed 64-bit offset."""
    if offset < 0 or length < 0 or offset > INT64_MAX - length:
        raise ValueError(f"offset {offset} and length {length} are not a byte range")
    return 0


def block_range(int64_t offset, int64_t length, int64_t size, int64_t block_size):
    check_range(offset, length)
    check_range(size, 0)
    if block_size <= 0:
        raise ValueError("block_size must be positive")
    length = cut_range(offset, length, size)
    if length == 0:
        return offset // block_size, offset // block_size
    return offset // block_size, end_block(offset + length, block_size)


def block_length(int64_t block, int64_t size, int64_t block_size):
    check_range(block, 0)
    check_range(size, 0)
    if block_size <= 0:
        raise ValueError("block_size must be positive")
    return block_bytes(block, size, block_size)


def stored_length(int64_t plaintext_length, int64_t tag_length):
    check_range(plaintext_length, tag_length)
    return plaintext_length + tag_length


def unit_cover(int64_t offset, int64_t length, int64_t stored_len):
    check_range(offset, length)
    if not 0 <= stored_len <= STORED_MAX:
        raise ValueError(f"stored_len {stored_len} is out of range")
    length = cut_range(offset, length, stored_len)
    if length == 0:
        return offset, 0
    start = unit_floor(offset) * <int64_t>UNIT_LEN
    return start, least(unit_ceil(offset + length) * <int64_t>UNIT_LEN, stored_len) - start
