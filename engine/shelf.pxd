"""Header of shelf: aligned memory that is used again."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from .cachecore cimport pthread_mutex_t

cdef enum:
    CLASSES = 24

# One piece of memory, at the front of which nothing is written: the header is kept apart.
cdef struct Piece:
    uint8_t *memory
    size_t size
    int size_class
    Piece *next

cdef struct Shelf:
    pthread_mutex_t mutex
    bint has_mutex
    size_t unit
    int64_t held_max
    int64_t held         # bytes on the shelf
    int64_t out          # pieces in use
    int count[24]
    Piece *free[24]

cdef int shelf_init(Shelf *shelf, size_t unit, int64_t held_max) noexcept nogil
cdef void shelf_free(Shelf *shelf) noexcept nogil
cdef Piece *shelf_take(Shelf *shelf, size_t size) noexcept nogil
cdef void shelf_give(Shelf *shelf, Piece *piece) noexcept nogil
