"""Requests about locks, taken before libfuse sees them: it has no answer that comes later, and
does not tell llfuse whose a close is.

`concerns_locks` looks at a request without the interpreter; `attend` hands it to the attendant, who
answers it then or later.  A FLUSH or RELEASE goes there only if the inode has locks, which `marked`
knows, and then on to llfuse.  Guarded by `guard`: `marks`; `marks_held` counts them, and is read
without it: whoever closes has its own locks answered before.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from lucid.engine.cachecore cimport (
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)
from lucid.engine.inttable cimport (
    IntTable,
    table_begin,
    table_get,
    table_put,
    table_remove,
)

cdef extern from "<linux/fuse.h>" nogil:
    struct fuse_in_header:
        uint32_t opcode
        uint64_t unique
        uint64_t nodeid
    struct fuse_file_lock:
        uint64_t start
        uint64_t end
        uint32_t type
        uint32_t pid
    struct fuse_lk_in:
        uint64_t fh
        uint64_t owner
        fuse_file_lock lk
        uint32_t lk_flags
    struct fuse_interrupt_in:
        uint64_t unique
    struct fuse_flush_in:
        uint64_t lock_owner
    struct fuse_release_in:
        uint64_t fh
    struct fuse_fallocate_in:
        uint64_t fh
        uint64_t offset
        uint64_t length
        uint32_t mode
    int FUSE_GETLK
    int FUSE_SETLK
    int FUSE_SETLKW
    int FUSE_INTERRUPT
    int FUSE_FLUSH
    int FUSE_RELEASE
    int FUSE_FALLOCATE
    uint32_t FUSE_LK_FLOCK

cdef pthread_mutex_t guard
cdef IntTable marks
cdef int64_t marks_held = 0
cdef bint attended = False


cdef bint is_marked(uint64_t ino) noexcept nogil:
    cdef bint found
    if marks_held == 0:
        return False
    pthread_mutex_lock(&guard)
    found = table_get(&marks, <int64_t>ino) != NULL
    pthread_mutex_unlock(&guard)
    return found


cdef bint concerns_locks(const char *request, size_t length) noexcept nogil:
    """Whether a request is for `attend`: whole, of these kinds, and somebody is there."""
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    if not attended or length < sizeof(fuse_in_header):
        return False
    length -= sizeof(fuse_in_header)
    if header.opcode in (FUSE_SETLK, FUSE_SETLKW, FUSE_GETLK):
        return length >= sizeof(fuse_lk_in)
    if header.opcode == FUSE_FLUSH:
        return length >= sizeof(fuse_flush_in) and is_marked(header.nodeid)
    if header.opcode == FUSE_RELEASE:
        return length >= sizeof(fuse_release_in) and is_marked(header.nodeid)
    if header.opcode == FUSE_FALLOCATE:
        return length >= sizeof(fuse_fallocate_in)
    return header.opcode == FUSE_INTERRUPT and length >= sizeof(fuse_interrupt_in)


cdef bint attend(int fd, const char *request, size_t length) noexcept with gil:
    """REQUIRES: concerns_locks.  Whether it is answered, or will be; else it is for llfuse."""
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    cdef const char *body = request + sizeof(fuse_in_header)
    if header.opcode in (FUSE_SETLK, FUSE_SETLKW, FUSE_GETLK):
        attend_lock(fd, header, <const fuse_lk_in *>body)
        return True
    if header.opcode == FUSE_INTERRUPT:
        return _attendant.interrupt((<const fuse_interrupt_in *>body).unique)
    if header.opcode == FUSE_FALLOCATE:
        attend_fallocate(fd, header.unique, <const fuse_fallocate_in *>body)
        return True
    if header.opcode == FUSE_FLUSH:
        _attendant.flushed(header.nodeid, (<const fuse_flush_in *>body).lock_owner)
    else:
        _attendant.released(header.nodeid, (<const fuse_release_in *>body).fh)
    return False


cdef int attend_lock(
        int fd, const fuse_in_header *header, const fuse_lk_in *asked) except -1:
    span = (asked.lk.start, asked.lk.end)
    if header.opcode == FUSE_GETLK:
        _attendant.test(
            fd, header.unique, header.nodeid, asked.fh, asked.owner, span, asked.lk.type,
            asked.lk.pid)
        return 0
    _attendant.lock(
        fd, header.unique, header.nodeid, asked.fh, asked.owner, span, asked.lk.type,
        asked.lk.pid, bool(asked.lk_flags & FUSE_LK_FLOCK), header.opcode == FUSE_SETLKW)
    return 0


cdef int attend_fallocate(
        int fd, uint64_t unique, const fuse_fallocate_in *asked) except -1:
    _attendant.allocate(fd, unique, asked.fh, asked.mode, asked.offset, asked.length)
    return 0


# --- For Python ----------------------------------------------------------------------------------


def attend_with(attendant):
    global _attendant, attended
    attended = attendant is not None
    _attendant = attendant


def mark(uint64_t ino, bint locked):
    global marks_held
    cdef int rc = 0
    pthread_mutex_lock(&guard)
    if not locked:
        table_remove(&marks, <int64_t>ino)
    elif table_get(&marks, <int64_t>ino) == NULL:
        rc = table_put(&marks, <int64_t>ino, <void *>&marks)
    marks_held = marks.count
    pthread_mutex_unlock(&guard)
    if rc != 0:
        raise MemoryError


def marked():
    return marks_held


_attendant = None
pthread_mutex_init(&guard, NULL)
if table_begin(&marks) != 0:
    raise MemoryError
