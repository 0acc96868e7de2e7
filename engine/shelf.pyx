"""Aligned buffers for replies, used again: a fresh one costs a page fault every 4 KiB of it.

Sizes are powers of two of a unit.  What is given back is kept up to a bound and freed beyond it.
One mutex, a leaf, held for a few instructions; any thread may call, without the GIL.  The memory
has held plaintext and is wiped before it goes back to the system.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from .cachecore cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from .sodium cimport wipe

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *memory, size_t length, int advice)
    int MADV_DONTDUMP

cdef enum:
    PAGE_LEN = 4096


cdef int shelf_init(Shelf *shelf, size_t unit, int64_t held_max) noexcept nogil:
    """`unit` is a multiple of 4096.  0, or -1 when there is no memory."""
    memset(shelf, 0, sizeof(Shelf))
    shelf.unit = unit
    shelf.held_max = held_max
    if pthread_mutex_init(&shelf.mutex, NULL) != 0:
        return -1
    shelf.has_mutex = True
    return 0


cdef void destroy(Piece *piece) noexcept nogil:
    if piece.memory != NULL:
        wipe(piece.memory, piece.size)
        free(piece.memory)
    free(piece)


cdef void shelf_free(Shelf *shelf) noexcept nogil:
    """REQUIRES: every piece was given back."""
    cdef int size_class
    cdef Piece *piece
    for size_class in range(CLASSES):
        while shelf.free[size_class] != NULL:
            piece = shelf.free[size_class]
            shelf.free[size_class] = piece.next
            destroy(piece)
    if shelf.has_mutex:
        pthread_mutex_destroy(&shelf.mutex)
        shelf.has_mutex = False


cdef Piece *shelf_take(Shelf *shelf, size_t size) noexcept nogil:
    """At least `size` bytes, not cleared; NULL when there is no memory."""
    cdef int size_class = 0
    cdef size_t room = shelf.unit
    cdef Piece *piece
    while room < size:
        room *= 2
        size_class += 1
        if size_class == CLASSES:
            return NULL
    pthread_mutex_lock(&shelf.mutex)
    piece = shelf.free[size_class]
    if piece != NULL:
        shelf.free[size_class] = piece.next
        shelf.held -= <int64_t>piece.size
        shelf.count[size_class] -= 1
    shelf.out += 1
    pthread_mutex_unlock(&shelf.mutex)
    if piece == NULL:
        piece = fresh(room, size_class)
        if piece == NULL:
            pthread_mutex_lock(&shelf.mutex)
            shelf.out -= 1
            pthread_mutex_unlock(&shelf.mutex)
    return piece


cdef Piece *fresh(size_t room, int size_class) noexcept nogil:
    cdef Piece *piece = <Piece *>calloc(1, sizeof(Piece))
    if piece == NULL:
        return NULL
    piece.size = room
    piece.size_class = size_class
    if posix_memalign(<void **>&piece.memory, PAGE_LEN, room) != 0:
        piece.memory = NULL
        destroy(piece)
        return NULL
    # Only advice: where the kernel does not know it, the process has switched core dumps off.
    madvise(piece.memory, room, MADV_DONTDUMP)
    return piece


cdef void shelf_give(Shelf *shelf, Piece *piece) noexcept nogil:
    cdef bint keep
    pthread_mutex_lock(&shelf.mutex)
    keep = shelf.held + <int64_t>piece.size <= shelf.held_max
    if keep:
        piece.next = shelf.free[piece.size_class]
        shelf.free[piece.size_class] = piece
        shelf.held += <int64_t>piece.size
        shelf.count[piece.size_class] += 1
    shelf.out -= 1
    pthread_mutex_unlock(&shelf.mutex)
    if not keep:
        destroy(piece)
