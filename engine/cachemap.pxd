"""Header of cachemap: the object that owns a core."""

from libc.stdint cimport int32_t, int64_t, uint32_t

from .cachecore cimport CacheCore
from .slots cimport Slot

cdef class CacheMap:
    cdef CacheCore core
    cdef dict contexts

    cdef Slot *held(self, int64_t index) except NULL
    cdef int unheld(self, int fd) except -1
    cdef uint32_t flags_of(self, int64_t index) except? 0xFFFFFFFF
    cdef uint32_t keyed_flags(self, int64_t index) except? 0xFFFFFFFF
    cdef int ensure_loaded(self, int64_t index) except -1
    cdef int choose(self, int64_t bytes_to_free, int limit, int32_t *chosen) noexcept nogil
