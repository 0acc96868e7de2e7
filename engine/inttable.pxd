"""Header of inttable: numbers to pointers, without the GIL."""

from libc.stdint cimport int32_t, int64_t

cdef struct IntNode:
    int64_t number
    void *value
    IntNode *next

cdef struct IntTable:
    IntNode **buckets
    int64_t mask
    int64_t count

cdef int table_begin(IntTable *table) noexcept nogil
cdef void table_end(IntTable *table) noexcept nogil
cdef void *table_get(const IntTable *table, int64_t number) noexcept nogil
cdef int table_put(IntTable *table, int64_t number, void *value) noexcept nogil
cdef void *table_remove(IntTable *table, int64_t number) noexcept nogil
