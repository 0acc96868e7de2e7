"""What names lead to and what stat(2) says of inodes, kept where the GIL is not needed.

Whoever has found an answer in Python puts it here, with a *ticket* that was taken before looking;
whoever changes something says so.  An answer whose ticket is older than a change of the same inode
or name is not kept, so the table never says what was true only before a change was told.

Two tables, each of sets of four places; the place to be overwritten goes round.  Which inodes and
names changed when is remembered by hash, so that nothing has to be kept for those that are not in
the tables.  One mutex, a leaf, over memory only.

Of directories that are made while the table is there all names are known by hash, so that a name
that was never there is answered too; hashes stay when names go.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from .cachecore cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)

SET_COUNT = SETS
DIRECTORY_COUNT = DIRECTORIES // 2
HASH_COUNT = HASHES // 2
NO_FLOOR = INT64_MAX
LONGEST_NAME = NAME_HELD

cdef enum:
    ATTRIBUTES = 11


# --- Kernels -------------------------------------------------------------------------------------


@cython.overflowcheck(False)
cdef inline uint64_t mix(uint64_t number) noexcept nogil:
    """Spread a number over 64 bits (the finalizer of MurmurHash3, by Austin Appleby)."""
    number ^= number >> 33
    number *= <uint64_t>0xFF51AFD7ED558CCD
    number ^= number >> 33
    number *= <uint64_t>0xC4CEB9FE1A85EC53
    return number ^ (number >> 33)


@cython.overflowcheck(False)
cdef uint64_t mix_name(int64_t parent, const char *name, size_t length) noexcept nogil:
    """The same of a name in its directory (FNV-1a over the bytes, then mixed)."""
    cdef uint64_t found = <uint64_t>0xCBF29CE484222325 ^ mix(<uint64_t>parent)
    cdef size_t at
    for at in range(length):
        found = (found ^ <uint8_t>name[at]) * <uint64_t>0x100000001B3
    return mix(found)


cdef inline size_t set_of(uint64_t hashed) noexcept nogil:
    return <size_t>(hashed & (SETS - 1)) * WAYS


cdef inline size_t place_of(uint64_t hashed) noexcept nogil:
    return <size_t>((hashed >> 32) & (PLACES - 1))


cdef KnownInode *find_inode(KnownCore *core, int64_t ino) noexcept nogil:
    """REQUIRES: the mutex.  The entry of an inode, or NULL."""
    cdef KnownInode *places
    cdef int at
    if core.inodes == NULL or ino == 0:
        return NULL
    places = core.inodes + set_of(mix(<uint64_t>ino))
    for at in range(WAYS):
        if places[at].ino == ino:
            return &places[at]
    return NULL


cdef KnownName *find_name(
    KnownCore *core, int64_t parent, const char *name, size_t length,
    uint64_t hashed) noexcept nogil:
    """REQUIRES: the mutex.  The entry of a name, or NULL."""
    cdef KnownName *places
    cdef int at
    if core.names == NULL or length > NAME_HELD:
        return NULL
    places = core.names + set_of(hashed)
    for at in range(WAYS):
        if (places[at].ino != 0 and places[at].parent == parent and places[at].length == length
                and memcmp(places[at].name, name, length) == 0):
            return &places[at]
    return NULL


cdef inline bint count(KnownCore *core, bint hit) noexcept nogil:
    """REQUIRES: the mutex."""
    if hit:
        core.hits += 1
    else:
        core.passes += 1
    return hit


cdef bint known_inode(KnownCore *core, int64_t ino, KnownInode *found) noexcept nogil:
    """What stat(2) says of an inode.  False: ask elsewhere; `found` is as it was."""
    cdef KnownInode *entry
    pthread_mutex_lock(&core.mutex)
    entry = find_inode(core, ino)
    if entry != NULL:
        found[0] = entry[0]
    count(core, entry != NULL)
    pthread_mutex_unlock(&core.mutex)
    return entry != NULL


cdef bint known_name(
    KnownCore *core, int64_t parent, const char *name, size_t length,
    KnownInode *found) noexcept nogil:
    """What stat(2) says of the inode that a name leads to.  False: ask elsewhere."""
    cdef uint64_t hashed = mix_name(parent, name, length)
    cdef KnownInode *entry = NULL
    cdef KnownName *leads
    pthread_mutex_lock(&core.mutex)
    leads = find_name(core, parent, name, length, hashed)
    if leads != NULL:
        entry = find_inode(core, leads.ino)
    if entry != NULL:
        found[0] = entry[0]
    count(core, entry != NULL)
    pthread_mutex_unlock(&core.mutex)
    return entry != NULL


# --- New directories -----------------------------------------------------------------------------


cdef int64_t *place_of_directory(KnownCore *core, int64_t ino) noexcept nogil:
    """REQUIRES: the mutex, and that there are tables.  Where a directory stands, or free room."""
    cdef size_t at = <size_t>(mix(<uint64_t>ino) & (DIRECTORIES - 1))
    while core.directories[at] != 0 and core.directories[at] != ino:
        at = (at + 1) & (DIRECTORIES - 1)
    return &core.directories[at]


cdef uint64_t *place_of_hash(KnownCore *core, uint64_t hashed) noexcept nogil:
    """REQUIRES: the mutex, and that there are tables.  The same of a name's hash."""
    cdef size_t at = <size_t>(hashed & (HASHES - 1))
    while core.hashes[at] != 0 and core.hashes[at] != hashed:
        at = (at + 1) & (HASHES - 1)
    return &core.hashes[at]


cdef inline uint64_t not_zero(uint64_t hashed) noexcept nogil:
    return hashed if hashed != 0 else 1


cdef void forget_directories(KnownCore *core) noexcept nogil:
    """REQUIRES: the mutex.  Of no directory all names are known any more."""
    if core.directories != NULL and (core.directory_count or core.hash_count):
        memset(core.directories, 0, DIRECTORIES * sizeof(int64_t))
        memset(core.hashes, 0, HASHES * sizeof(uint64_t))
    core.directory_count = core.hash_count = 0


cdef void begin_directory(KnownCore *core, int64_t ino) noexcept nogil:
    """REQUIRES: the mutex.  It was just made: no name was ever in it."""
    cdef int64_t *place
    if core.directories == NULL or ino == 0:
        return
    if core.directory_count >= DIRECTORIES // 2:
        forget_directories(core)
    place = place_of_directory(core, ino)
    if place[0] == 0:
        place[0] = ino
        core.directory_count += 1


cdef void note_name(
    KnownCore *core, int64_t parent, uint64_t hashed, bint is_private) noexcept nogil:
    """REQUIRES: the mutex.  This name is, or was, in this directory.  Private ones are noted also
    where the directory is not known: it may become so in this moment."""
    cdef uint64_t *place
    if core.directories == NULL:
        return
    if not is_private and place_of_directory(core, parent)[0] == 0:
        return
    place = place_of_hash(core, not_zero(hashed))
    if place[0] != 0:
        return
    if core.hash_count >= HASHES // 2:
        forget_directories(core)
        if not is_private:
            return
        place = place_of_hash(core, not_zero(hashed))
    place[0] = not_zero(hashed)
    core.hash_count += 1


cdef bint known_absent(
    KnownCore *core, int64_t parent, const char *name, size_t length) noexcept nogil:
    """Whether a name is known to lead nowhere.  False: ask elsewhere."""
    cdef uint64_t hashed = not_zero(mix_name(parent, name, length))
    cdef bint absent
    pthread_mutex_lock(&core.mutex)
    absent = (core.directories != NULL and place_of_directory(core, parent)[0] != 0
              and place_of_hash(core, hashed)[0] == 0)
    if absent:
        core.hits += 1
    pthread_mutex_unlock(&core.mutex)
    return absent


cdef void forget_all(KnownCore *core) noexcept nogil:
    """REQUIRES: the mutex.  Every ticket that is out is worth nothing from here on."""
    core.clock += 1
    core.begun = core.clock
    forget_directories(core)
    if core.inodes != NULL:
        memset(core.inodes, 0, SETS * WAYS * sizeof(KnownInode))
        memset(core.names, 0, SETS * WAYS * sizeof(KnownName))


# --- For Python ----------------------------------------------------------------------------------


@cython.final
cdef class KnownTable:
    def __cinit__(self):
        memset(&self.core, 0, sizeof(KnownCore))
        if pthread_mutex_init(&self.core.mutex, NULL) != 0:
            raise MemoryError
        self.core.has_mutex = True

    def __dealloc__(self):
        # Nobody asks any more: who does holds this object.
        if self.core.has_mutex:
            pthread_mutex_destroy(&self.core.mutex)
        self.free_tables(&self.core)

    cdef void free_tables(self, const KnownCore *tables) noexcept:
        free(tables.inodes)
        free(tables.names)
        free(tables.directories)
        free(tables.hashes)

    cdef void exchange(self, KnownCore *tables) noexcept:
        """REQUIRES: the mutex.  The tables of two cores change places."""
        self.core.inodes, tables.inodes = tables.inodes, self.core.inodes
        self.core.names, tables.names = tables.names, self.core.names
        self.core.directories, tables.directories = tables.directories, self.core.directories
        self.core.hashes, tables.hashes = tables.hashes, self.core.hashes

    def begin(self):
        cdef KnownCore fresh
        memset(&fresh, 0, sizeof(KnownCore))
        fresh.inodes = <KnownInode *>calloc(SETS * WAYS, sizeof(KnownInode))
        fresh.names = <KnownName *>calloc(SETS * WAYS, sizeof(KnownName))
        fresh.directories = <int64_t *>calloc(DIRECTORIES, sizeof(int64_t))
        fresh.hashes = <uint64_t *>calloc(HASHES, sizeof(uint64_t))
        pthread_mutex_lock(&self.core.mutex)
        forget_all(&self.core)
        if (self.core.inodes == NULL and fresh.inodes != NULL and fresh.names != NULL
                and fresh.directories != NULL and fresh.hashes != NULL):
            self.exchange(&fresh)
        pthread_mutex_unlock(&self.core.mutex)
        self.free_tables(&fresh)

    def end(self):
        cdef KnownCore none
        memset(&none, 0, sizeof(KnownCore))
        pthread_mutex_lock(&self.core.mutex)
        forget_all(&self.core)
        self.exchange(&none)
        pthread_mutex_unlock(&self.core.mutex)
        self.free_tables(&none)

    # --- Answers that were found -----------------------------------------------------------------

    def ticket(self):
        # Changes are told by threads that hold the GIL, as this one does.
        return self.core.clock

    cdef int put_inode(self, uint64_t ticket, tuple attributes, int64_t floor_ns) except -1:
        """1 when it was kept."""
        cdef KnownInode fresh
        cdef KnownInode *entry
        cdef uint64_t hashed
        fresh.ino = attributes[0]
        fresh.mode = attributes[1]
        fresh.nlink = attributes[2]
        fresh.uid = attributes[3]
        fresh.gid = attributes[4]
        fresh.rdev = attributes[5]
        fresh.size = attributes[6]
        fresh.blocks = attributes[7]
        fresh.atime_ns = attributes[8]
        fresh.mtime_ns = attributes[9]
        fresh.ctime_ns = attributes[10]
        fresh.floor_ns = floor_ns
        if fresh.ino == 0:
            return 0
        hashed = mix(<uint64_t>fresh.ino)
        pthread_mutex_lock(&self.core.mutex)
        if (self.core.inodes == NULL or ticket < self.core.begun
                or self.core.inode_changed[place_of(hashed)] > ticket):
            pthread_mutex_unlock(&self.core.mutex)
            return 0
        entry = find_inode(&self.core, fresh.ino)
        if entry == NULL:
            entry = find_free_inode(&self.core, set_of(hashed))
        entry[0] = fresh
        pthread_mutex_unlock(&self.core.mutex)
        return 1

    cdef int put_name(self, uint64_t ticket, int64_t parent, bytes name, int64_t ino) except -1:
        """1 when it was kept."""
        cdef const char *bytes_of = name
        cdef size_t length = <size_t>len(name)
        cdef uint64_t hashed = mix_name(parent, bytes_of, length)
        cdef KnownName *entry
        if length > NAME_HELD or ino == 0:
            return 0
        pthread_mutex_lock(&self.core.mutex)
        if (self.core.names == NULL or ticket < self.core.begun
                or self.core.name_changed[place_of(hashed)] > ticket):
            pthread_mutex_unlock(&self.core.mutex)
            return 0
        entry = find_name(&self.core, parent, bytes_of, length, hashed)
        if entry == NULL:
            entry = find_free_name(&self.core, set_of(hashed))
        entry.ino = ino
        entry.parent = parent
        entry.length = <uint8_t>length
        memcpy(entry.name, bytes_of, length)
        pthread_mutex_unlock(&self.core.mutex)
        return 1

    def keep(self, uint64_t ticket, attributes, int64_t floor_ns=NO_FLOOR):
        if not isinstance(attributes, tuple) or len(attributes) != ATTRIBUTES:
            raise TypeError(f"attributes are a tuple of {ATTRIBUTES} numbers")
        try:
            # A cast, for it may be a named tuple.
            return self.put_inode(ticket, <tuple>attributes, floor_ns) != 0
        except OverflowError:
            return False

    def keep_name(self, uint64_t ticket, int64_t parent, bytes name not None, int64_t ino):
        return self.put_name(ticket, parent, name, ino) != 0

    # --- Changes ---------------------------------------------------------------------------------

    cdef int change_inode(self, int64_t ino) noexcept:
        cdef KnownInode *entry
        pthread_mutex_lock(&self.core.mutex)
        self.core.clock += 1
        self.core.inode_changed[place_of(mix(<uint64_t>ino))] = self.core.clock
        entry = find_inode(&self.core, ino)
        if entry != NULL:
            entry.ino = 0
        pthread_mutex_unlock(&self.core.mutex)
        return 0

    cdef int change_name(self, int64_t parent, bytes name, bint is_private) noexcept:
        cdef const char *bytes_of = name
        cdef size_t length = <size_t>len(name)
        cdef uint64_t hashed = mix_name(parent, bytes_of, length)
        cdef KnownName *entry
        pthread_mutex_lock(&self.core.mutex)
        self.core.clock += 1
        self.core.name_changed[place_of(hashed)] = self.core.clock
        entry = find_name(&self.core, parent, bytes_of, length, hashed)
        if entry != NULL:
            entry.ino = 0
        note_name(&self.core, parent, hashed, is_private)
        pthread_mutex_unlock(&self.core.mutex)
        return 0

    def changed(self, int64_t ino):
        self.change_inode(ino)

    def directory_touched(self, int64_t ino, int64_t time_ns, int64_t subdirectories):
        cdef KnownInode *entry
        pthread_mutex_lock(&self.core.mutex)
        self.core.clock += 1
        self.core.inode_changed[place_of(mix(<uint64_t>ino))] = self.core.clock
        entry = find_inode(&self.core, ino)
        if entry != NULL:
            if time_ns > entry.mtime_ns and time_ns > entry.floor_ns and subdirectories == 0:
                entry.mtime_ns = time_ns
                entry.ctime_ns = max(entry.ctime_ns, time_ns)
            else:
                entry.ino = 0
        pthread_mutex_unlock(&self.core.mutex)

    def directory_is_new(self, int64_t ino):
        pthread_mutex_lock(&self.core.mutex)
        begin_directory(&self.core, ino)
        pthread_mutex_unlock(&self.core.mutex)

    def name_changed(self, tuple key not None, bint is_private=False):
        cdef bytes name = key[1]
        if name is None:
            raise TypeError("a name is bytes")
        self.change_name(key[0], name, is_private)

    def all_changed(self):
        pthread_mutex_lock(&self.core.mutex)
        forget_all(&self.core)
        pthread_mutex_unlock(&self.core.mutex)

    # --- Asking, for tests and reports -----------------------------------------------------------

    def inode(self, int64_t ino):
        cdef KnownInode found
        cdef bint hit
        with nogil:
            hit = known_inode(&self.core, ino, &found)
        return as_tuple(&found) if hit else None

    def name(self, int64_t parent, bytes name not None):
        cdef KnownInode found
        cdef const char *bytes_of = name
        cdef size_t length = <size_t>len(name)
        cdef bint hit
        with nogil:
            hit = known_name(&self.core, parent, bytes_of, length, &found)
        return as_tuple(&found) if hit else None

    def is_absent(self, int64_t parent, bytes name not None):
        cdef const char *bytes_of = name
        cdef size_t length = <size_t>len(name)
        cdef bint absent
        with nogil:
            absent = known_absent(&self.core, parent, bytes_of, length)
        return absent

    def stats(self):
        pthread_mutex_lock(&self.core.mutex)
        hits, passes = self.core.hits, self.core.passes
        pthread_mutex_unlock(&self.core.mutex)
        return {"hits": hits, "passes": passes}


cdef KnownInode *find_free_inode(KnownCore *core, size_t first) noexcept nogil:
    """REQUIRES: the mutex.  A place of this set: a free one, else the next in turn."""
    cdef size_t at
    for at in range(first, first + WAYS):
        if core.inodes[at].ino == 0:
            return &core.inodes[at]
    core.turn += 1
    return &core.inodes[first + core.turn % WAYS]


cdef KnownName *find_free_name(KnownCore *core, size_t first) noexcept nogil:
    """REQUIRES: the mutex.  The same for names."""
    cdef size_t at
    for at in range(first, first + WAYS):
        if core.names[at].ino == 0:
            return &core.names[at]
    core.turn += 1
    return &core.names[first + core.turn % WAYS]


cdef tuple as_tuple(const KnownInode *found):
    return (
        found.ino, found.mode, found.nlink, found.uid, found.gid, found.rdev, found.size,
        found.blocks, found.atime_ns, found.mtime_ns, found.ctime_ns,
    )
