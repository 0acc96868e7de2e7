"""Header of segfile: open, scan and read the file of one segment, without the GIL or any lock."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef int open_segment(
    int cache_dir, int staging_dir, const uint8_t *segment_id, bint staged) noexcept nogil
cdef int scan_presence(
    int fd, int64_t stored_len, uint64_t *bits, int64_t *allocated) noexcept nogil
cdef int64_t read_at(int fd, uint8_t *out, int64_t length, int64_t offset) noexcept nogil
cdef void close_fd(int fd) noexcept nogil
