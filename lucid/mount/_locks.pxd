"""Requests about locks, taken before libfuse sees them; for `_low` only.  See `_locks.pyx`."""

from libc.stddef cimport size_t

cdef bint concerns_locks(const char *request, size_t length) noexcept nogil
cdef bint attend(int fd, const char *request, size_t length) noexcept with gil
