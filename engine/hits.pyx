"""Which open files the engine may serve by itself, and serving them: no GIL, no Python.

It owns two tables and one mutex.  `files`: the numbers of open files that only read, with their
read-ahead.  `inodes`: the newest block map of an inode, and whether something newer shadows it.  A
read of a file whose inode has a map and no shadow, all of whose bytes are on the local disk, is a
hit; anything else is passed on to whoever asks, and nothing was done.  The mutex guards the tables
only: a read uses its map outside of it, counted, and a map that is dropped meanwhile lives until
its last read has ended.  Python objects are let go by threads that hold the GIL.

The mutex is above the engine's others (a stream's mutex is taken under it).
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from .blockmap cimport BlockMap
from .cachecore cimport (
    core_count,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from .inttable cimport (
    IntNode,
    IntTable,
    table_begin,
    table_end,
    table_get,
    table_put,
    table_remove,
)
from .reader cimport READ_DONE, Reader, Reply, read_range, reply_release
from .streams cimport Streams, StreamsCore, streams_read

from .errors import EngineError

cdef extern from "<pthread.h>" nogil:
    int pthread_cond_init(pthread_cond_t *condition, void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_signal(pthread_cond_t *condition)
    int pthread_cond_broadcast(pthread_cond_t *condition)

cdef enum:
    # The kernel asks for 128 KiB; whoever wants more is no hot path.
    LONGEST_HIT = 1048576


# --- Kernels -------------------------------------------------------------------------------------


cdef void push_want(HitCore *core, int64_t ino, int64_t start, int64_t end) noexcept nogil:
    """REQUIRES: the mutex.  When the ring is full the oldest goes: its reader is past it."""
    cdef Want *want
    if core.want_count == WANTS_HELD:
        core.want_first = (core.want_first + 1) % WANTS_HELD
        core.want_count -= 1
    want = &core.wants[(core.want_first + core.want_count) % WANTS_HELD]
    want.ino = ino
    want.start = start
    want.end = end
    core.want_count += 1
    pthread_cond_signal(&core.wanted)


cdef bint take_want(HitCore *core, Want *want) noexcept nogil:
    """Wait for the next want; False when the table was stopped."""
    cdef bint came
    pthread_mutex_lock(&core.mutex)
    while core.want_count == 0 and not core.stopped:
        pthread_cond_wait(&core.wanted, &core.mutex)
    came = not core.stopped
    if came:
        want[0] = core.wants[core.want_first]
        core.want_first = (core.want_first + 1) % WANTS_HELD
        core.want_count -= 1
    pthread_mutex_unlock(&core.mutex)
    return came


cdef HeldMap *begin_use(HitCore *core, int64_t number) noexcept nogil:
    """The map that a file is read from, counted as used; NULL when it is not served here."""
    cdef FileEntry *file
    cdef InodeEntry *entry
    cdef HeldMap *held = NULL
    pthread_mutex_lock(&core.mutex)
    file = <FileEntry *>table_get(&core.files, number)
    if file != NULL:
        entry = <InodeEntry *>table_get(&core.inodes, file.ino)
        if entry != NULL and entry.shadows == 0:
            held = entry.held
    if held != NULL:
        held.users += 1
    else:
        core.passes += 1
    pthread_mutex_unlock(&core.mutex)
    return held


cdef void end_use(
    HitCore *core, HeldMap *held, int64_t number, int64_t offset, int64_t length,
    bint hit) noexcept nogil:
    """A read of the map has ended: tell the file's read-ahead, and let go of the map."""
    cdef FileEntry *file
    cdef int64_t start = 0
    cdef int64_t end = 0
    pthread_mutex_lock(&core.mutex)
    if hit:
        core.hits += 1
        # The file may be closed by now.
        file = <FileEntry *>table_get(&core.files, number)
        if file != NULL and streams_read(
                file.streams, offset, length, held.map.size, &start, &end):
            push_want(core, file.ino, start, end)
    else:
        core.passes += 1
    held.users -= 1
    if held.dropped and held.users == 0:
        held.next = core.graveyard
        core.graveyard = held
    pthread_mutex_unlock(&core.mutex)


cdef bint hit_knows(HitCore *core, int64_t number) noexcept nogil:
    """Whether this file is open here: one that only reads, and so has nothing to flush."""
    cdef bint known
    pthread_mutex_lock(&core.mutex)
    known = table_get(&core.files, number) != NULL
    pthread_mutex_unlock(&core.mutex)
    return known


cdef int hit_read(
    HitCore *core, int64_t number, int64_t offset, int64_t length, Reply *reply) noexcept nogil:
    """Read [offset, offset + length) of an open file, cut to its size.  A HitStatus.

    HIT: `reply` has the bytes, until hit_release.  PASS: it holds nothing.
    """
    cdef HeldMap *held
    cdef bint hit
    if offset < 0 or length < 0 or length > LONGEST_HIT or offset > INT64_MAX - LONGEST_HIT:
        return PASS
    held = begin_use(core, number)
    if held == NULL:
        return PASS
    hit = read_range(core.reader, held.map, offset, length, NULL, 0, reply) == READ_DONE
    if hit:
        # A miss is counted where it is answered.
        core_count(core.reader.cache, True, reply.length)
    else:
        reply_release(core.reader, reply)
    end_use(core, held, number, offset, length, hit)
    return HIT if hit else PASS


cdef void hit_release(HitCore *core, Reply *reply) noexcept nogil:
    reply_release(core.reader, reply)


# --- For Python ----------------------------------------------------------------------------------


@cython.final
@cython.no_gc_clear
cdef class HitTable:
    """Invariant: each HeldMap and FileEntry has one reference to its Python object."""

    def __cinit__(self, Reader reader not None):
        memset(&self.core, 0, sizeof(HitCore))
        self.reader = reader
        self.core.reader = &reader.core
        if table_begin(&self.core.inodes) != 0 or table_begin(&self.core.files) != 0:
            raise MemoryError
        if pthread_mutex_init(&self.core.mutex, NULL) != 0:
            raise MemoryError
        if pthread_cond_init(&self.core.wanted, NULL) != 0:
            pthread_mutex_destroy(&self.core.mutex)
            raise MemoryError
        self.core.has_mutex = True

    def __dealloc__(self):
        # No read is under way: it would hold this object.
        if self.core.has_mutex:
            self.empty(&self.core.files, True)
            self.empty(&self.core.inodes, False)
            self.sweep()
            pthread_cond_destroy(&self.core.wanted)
            pthread_mutex_destroy(&self.core.mutex)
        table_end(&self.core.files)
        table_end(&self.core.inodes)

    cdef int empty(self, IntTable *table, bint files) except -1:
        """Free the entries of a table, at the end."""
        cdef int64_t bucket
        cdef IntNode *node
        for bucket in range(table.mask + 1):
            node = table.buckets[bucket]
            while node != NULL:
                if files:
                    Py_DECREF(<object>(<FileEntry *>node.value).owner)
                else:
                    self.drop(<InodeEntry *>node.value)
                free(node.value)
                node = node.next
        return 0

    cdef int sweep(self) except -1:
        """Let go of maps that no read uses any more.  REQUIRES: the mutex is free."""
        cdef HeldMap *held
        cdef HeldMap *following
        pthread_mutex_lock(&self.core.mutex)
        held = self.core.graveyard
        self.core.graveyard = NULL
        pthread_mutex_unlock(&self.core.mutex)
        while held != NULL:
            following = held.next
            # May run any destructor: no lock is held.
            Py_DECREF(<object>held.blockmap)
            free(held)
            held = following
        return 0

    cdef int drop(self, InodeEntry *entry) noexcept:
        """REQUIRES: the mutex.  The map leaves the entry; `sweep` lets go of it."""
        cdef HeldMap *held = entry.held
        if held == NULL:
            return 0
        entry.held = NULL
        held.dropped = True
        if held.users == 0:
            held.next = self.core.graveyard
            self.core.graveyard = held
        return 0

    cdef InodeEntry *entry(self, int64_t ino) except NULL:
        """REQUIRES: the mutex; it is free when this raises.  The entry, made if there is none."""
        cdef InodeEntry *entry = <InodeEntry *>table_get(&self.core.inodes, ino)
        if entry == NULL:
            entry = <InodeEntry *>calloc(1, sizeof(InodeEntry))
            if entry == NULL or table_put(&self.core.inodes, ino, entry) != 0:
                pthread_mutex_unlock(&self.core.mutex)
                free(entry)
                raise MemoryError
        return entry

    cdef int forget_if_empty(self, int64_t ino, InodeEntry *entry) noexcept:
        """REQUIRES: the mutex."""
        if entry.held == NULL and entry.shadows == 0:
            table_remove(&self.core.inodes, ino)
            free(entry)
        return 0

    # --- Inodes ----------------------------------------------------------------------------------

    def set_map(self, int64_t ino, BlockMap blockmap not None):
        cdef HeldMap *held
        cdef InodeEntry *entry
        if blockmap.cachemap is not self.reader.cachemap:
            raise ValueError("the block map belongs to another cache map")
        if blockmap.map.block_size != self.core.reader.block_size:
            raise ValueError("the block map has another block size")
        held = <HeldMap *>calloc(1, sizeof(HeldMap))
        if held == NULL:
            raise MemoryError
        held.blockmap = <PyObject *>blockmap
        held.map = &blockmap.map
        pthread_mutex_lock(&self.core.mutex)
        try:
            entry = self.entry(ino)
        except MemoryError:
            free(held)
            raise
        Py_INCREF(blockmap)
        self.drop(entry)
        entry.held = held
        pthread_mutex_unlock(&self.core.mutex)
        self.sweep()

    def drop_map(self, int64_t ino):
        cdef InodeEntry *entry
        pthread_mutex_lock(&self.core.mutex)
        entry = <InodeEntry *>table_get(&self.core.inodes, ino)
        if entry != NULL:
            self.drop(entry)
            self.forget_if_empty(ino, entry)
        pthread_mutex_unlock(&self.core.mutex)
        self.sweep()

    def shadow(self, int64_t ino):
        pthread_mutex_lock(&self.core.mutex)
        self.entry(ino).shadows += 1
        pthread_mutex_unlock(&self.core.mutex)

    def unshadow(self, int64_t ino):
        cdef InodeEntry *entry
        cdef bint had = False
        pthread_mutex_lock(&self.core.mutex)
        entry = <InodeEntry *>table_get(&self.core.inodes, ino)
        if entry != NULL and entry.shadows > 0:
            had = True
            entry.shadows -= 1
            self.forget_if_empty(ino, entry)
        pthread_mutex_unlock(&self.core.mutex)
        if not had:
            raise EngineError(f"inode {ino} has no shadow")

    # --- Files -----------------------------------------------------------------------------------

    def open(self, int64_t number, int64_t ino, Streams streams not None):
        cdef FileEntry *file = <FileEntry *>calloc(1, sizeof(FileEntry))
        cdef bint known
        cdef int rc = 0
        if file == NULL:
            raise MemoryError
        file.ino = ino
        file.streams = &streams.core
        file.owner = <PyObject *>streams
        pthread_mutex_lock(&self.core.mutex)
        known = table_get(&self.core.files, number) != NULL
        if not known:
            rc = table_put(&self.core.files, number, file)
            if rc == 0:
                Py_INCREF(streams)
        pthread_mutex_unlock(&self.core.mutex)
        if known or rc != 0:
            free(file)
        if known:
            raise EngineError(f"file {number} is open already")
        if rc != 0:
            raise MemoryError

    def close(self, int64_t number):
        cdef FileEntry *file
        pthread_mutex_lock(&self.core.mutex)
        file = <FileEntry *>table_remove(&self.core.files, number)
        pthread_mutex_unlock(&self.core.mutex)
        if file != NULL:
            Py_DECREF(<object>file.owner)
            free(file)

    # --- Reading ---------------------------------------------------------------------------------

    def read(self, int64_t number, int64_t offset, int64_t length):
        cdef Reply reply
        cdef int status
        with nogil:
            status = hit_read(&self.core, number, offset, length, &reply)
        if status != HIT:
            return None
        try:
            return <bytes>(<const char *>reply.data)[:reply.length] if reply.length else b""
        finally:
            hit_release(&self.core, &reply)

    def next_want(self):
        cdef Want want
        cdef bint came
        with nogil:
            came = take_want(&self.core, &want)
        return (want.ino, want.start, want.end) if came else None

    def stop(self):
        pthread_mutex_lock(&self.core.mutex)
        self.core.stopped = True
        pthread_cond_broadcast(&self.core.wanted)
        pthread_mutex_unlock(&self.core.mutex)

    def stats(self):
        self.sweep()
        pthread_mutex_lock(&self.core.mutex)
        inodes = self.core.inodes.count
        files = self.core.files.count
        hits = self.core.hits
        passes = self.core.passes
        pthread_mutex_unlock(&self.core.mutex)
        return {"inodes": inodes, "files": files, "hits": hits, "passes": passes}
