"""Header of hits: reads of open files that need nothing but the engine, without the GIL."""

from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint64_t

from .blockmap cimport MapCore
from .cachecore cimport pthread_mutex_t
from .inttable cimport IntTable
from .reader cimport Reader, ReaderCore, Reply
from .streams cimport StreamsCore

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_cond_t:
        pass

cdef enum HitStatus:
    HIT = 0
    # Somebody else has to answer: the file is not served here, or not all of it is on the disk.
    PASS = 1

cdef enum:
    WANTS_HELD = 256

# A block map that reads may be using.  A dropped one is let go by a thread that has the GIL.
cdef struct HeldMap:
    PyObject *blockmap
    const MapCore *map
    int32_t users
    bint dropped
    HeldMap *next

cdef struct InodeEntry:
    HeldMap *held
    int32_t shadows     # how many have content that is newer than the map

cdef struct FileEntry:
    int64_t ino
    StreamsCore *streams
    PyObject *owner     # of the streams

cdef struct Want:
    int64_t ino
    int64_t start
    int64_t end

cdef struct HitCore:
    pthread_mutex_t mutex
    pthread_cond_t wanted
    bint has_mutex
    bint stopped
    ReaderCore *reader
    IntTable inodes
    IntTable files
    HeldMap *graveyard
    Want wants[256]
    int want_first
    int want_count
    uint64_t hits
    uint64_t passes

cdef int hit_read(
    HitCore *core, int64_t number, int64_t offset, int64_t length, Reply *reply) noexcept nogil
cdef bint hit_knows(HitCore *core, int64_t number) noexcept nogil
cdef void hit_release(HitCore *core, Reply *reply) noexcept nogil

cdef class HitTable:
    cdef HitCore core
    cdef readonly Reader reader

    cdef int empty(self, IntTable *table, bint files) except -1
    cdef InodeEntry *entry(self, int64_t ino) except NULL
    cdef int drop(self, InodeEntry *entry) noexcept
    cdef int forget_if_empty(self, int64_t ino, InodeEntry *entry) noexcept
    cdef int sweep(self) except -1
