"""Header of known: names and attributes that need nothing but the engine, without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .cachecore cimport pthread_mutex_t

cdef enum:
    # Ways of a set: an entry has so many places.
    WAYS = 4
    # 131,072 inodes and as many names: 14 and 12 MiB, where they are all used.
    SETS = 32768
    # What changed lately, by hash: two that share a place cost one answer by somebody else.
    PLACES = 8192
    # Longer names are asked for elsewhere.
    NAME_HELD = 71
    # New directories, of which all names are known, and places for the hashes of those names.
    DIRECTORIES = 4096
    HASHES = 131072

# `ino` 0: the place is free.
cdef struct KnownInode:
    int64_t ino
    uint32_t mode
    uint32_t nlink
    uint32_t uid
    uint32_t gid
    uint32_t rdev
    int64_t size
    int64_t blocks
    int64_t atime_ns
    int64_t mtime_ns
    int64_t ctime_ns
    int64_t floor_ns        # of a directory: a name that changes later than this moves mtime

cdef struct KnownName:
    int64_t ino
    int64_t parent
    uint8_t length
    char name[71]

cdef struct KnownCore:
    pthread_mutex_t mutex
    bint has_mutex
    KnownInode *inodes      # NULL until the table begins, and once it has ended
    KnownName *names
    int64_t *directories    # a hash table; 0: free
    uint64_t *hashes        # of (directory, name), ditto
    int directory_count
    int hash_count
    uint64_t clock          # counts changes
    uint64_t begun          # its value when everything was forgotten last
    uint64_t inode_changed[8192]
    uint64_t name_changed[8192]
    uint32_t turn
    uint64_t hits
    uint64_t passes

cdef bint known_inode(KnownCore *core, int64_t ino, KnownInode *found) noexcept nogil
cdef bint known_name(
    KnownCore *core, int64_t parent, const char *name, size_t length,
    KnownInode *found) noexcept nogil

cdef bint known_absent(
    KnownCore *core, int64_t parent, const char *name, size_t length) noexcept nogil

cdef class KnownTable:
    cdef KnownCore core

    cdef void free_tables(self, const KnownCore *tables) noexcept
    cdef void exchange(self, KnownCore *tables) noexcept
    cdef int change_inode(self, int64_t ino) noexcept
    cdef int change_name(self, int64_t parent, bytes name, bint is_private) noexcept
    cdef int put_inode(self, uint64_t ticket, tuple attributes, int64_t floor_ns) except -1
    cdef int put_name(self, uint64_t ticket, int64_t parent, bytes name, int64_t ino) except -1
