"""What llfuse lacks, put between it and libfuse: this module exports some of libfuse's functions.

llfuse looks its functions up in the libraries loaded before it, and this one comes first (see
`fuse.py`); each function here passes on to libfuse's own.  One mount a process.

`fuse_session_receive_buf` is where workers wait for requests, without the GIL; `_turns` decides
which of them.  Requests that need nothing of Python are answered on the spot: reads and flushes of
files that the HitTable serves, names and attributes that the KnownTable has, xattrs that nobody
has; what the kernel forgets nobody has to know.  Requests about locks go to `_locks`; libfuse asks
the kernel for them because `fuse_lowlevel_new` adds their handlers to llfuse's, and `begun` looks
at what was agreed.  `work` is what an extra worker runs.

Written while no worker runs: table, known, shown, session_of_llfuse.  By one worker, before all
other requests: agreed.
"""

from libc.errno cimport EINTR, EIO, EOPNOTSUPP, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strcmp, strncmp

from lucid.engine.hits cimport HIT, HitCore, HitTable, hit_knows, hit_read, hit_release
from lucid.engine.known cimport (
    KnownCore,
    KnownInode,
    KnownTable,
    known_absent,
    known_inode,
    known_name,
)
from lucid.engine.reader cimport Reply
from lucid.mount._locks cimport attend, concerns_locks
from lucid.mount._turns cimport (
    Exited,
    Extra,
    ask_whether_ended,
    begin_serving,
    begin_session,
    discharge,
    end_serving,
    enlist,
    give_lead,
    goes_on,
    is_ending,
    is_spare,
    look_whether_ended,
    take_lead,
)

cdef extern from "<fuse_lowlevel.h>" nogil:
    struct fuse_session:
        pass
    struct fuse_chan:
        pass
    struct fuse_args:
        pass
    struct fuse_conn_info:
        unsigned int capable
        unsigned int want
    # All of them functions.
    struct fuse_req:
        pass
    struct fuse_file_info:
        unsigned int keep_cache
    struct fuse_lowlevel_ops:
        void *init
        void *getlk
        void *setlk
        void *flock
        void *fallocate
    unsigned int FUSE_CAP_POSIX_LOCKS
    unsigned int FUSE_CAP_FLOCK_LOCKS
    int fuse_reply_err(void *request, int error)
    struct fuse_buf:
        size_t size
        int flags
        void *mem
    int FUSE_BUF_IS_FD
    int fuse_chan_fd(fuse_chan *channel)
    size_t fuse_chan_bufsize(fuse_chan *channel)
    fuse_chan *fuse_session_next_chan(fuse_session *session, fuse_chan *after)
    void fuse_session_process_buf(
        fuse_session *session, const fuse_buf *buffer, fuse_chan *channel)

cdef extern from "<linux/fuse.h>" nogil:
    struct fuse_in_header:
        uint32_t len
        uint32_t opcode
        uint64_t unique
        uint64_t nodeid
    struct fuse_out_header:
        uint32_t len
        int32_t error
        uint64_t unique
    struct fuse_read_in:
        uint64_t fh
        uint64_t offset
        uint32_t size
    struct fuse_write_in:
        uint64_t fh
        uint64_t offset
        uint32_t size
        uint32_t write_flags
    struct fuse_flush_in:
        uint64_t fh
    struct fuse_getxattr_in:
        uint32_t size
    struct fuse_attr:
        uint64_t ino
        uint64_t size
        uint64_t blocks
        uint64_t atime
        uint64_t mtime
        uint64_t ctime
        uint32_t atimensec
        uint32_t mtimensec
        uint32_t ctimensec
        uint32_t mode
        uint32_t nlink
        uint32_t uid
        uint32_t gid
        uint32_t rdev
        uint32_t blksize
    struct fuse_attr_out:
        uint64_t attr_valid
        uint32_t attr_valid_nsec
        fuse_attr attr
    struct fuse_entry_out:
        uint64_t nodeid
        uint64_t entry_valid
        uint64_t attr_valid
        uint32_t entry_valid_nsec
        uint32_t attr_valid_nsec
        fuse_attr attr
    int FUSE_LOOKUP
    int FUSE_FORGET
    int FUSE_BATCH_FORGET
    int FUSE_GETATTR
    int FUSE_READ
    int FUSE_WRITE
    int FUSE_FLUSH
    int FUSE_GETXATTR
    int FUSE_FSYNC
    int FUSE_FSYNCDIR
    int FUSE_FALLOCATE
    uint32_t FUSE_WRITE_CACHE

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *parts, int count)

cdef extern from "<dlfcn.h>" nogil:
    void *RTLD_NEXT
    void *dlsym(void *handle, const char *name)

cdef extern from *:
    """
    /* Of the request that this worker handles now: 1 for a write of the kernel's pages. */
    static __thread int lucid_page_write;
    /* Of the open that this worker handles now: the kernel must not keep the pages it has. */
    static __thread int lucid_drop_pages;
    """
    int lucid_page_write
    int lucid_drop_pages

ctypedef int (*Receive)(fuse_session *, fuse_buf *, fuse_chan **) noexcept nogil
ctypedef fuse_session *(*New)(
    fuse_args *, const fuse_lowlevel_ops *, size_t, void *) noexcept nogil
ctypedef int (*ReplyOpen)(fuse_req *, const fuse_file_info *) noexcept nogil
ctypedef void (*Init)(void *, fuse_conn_info *) noexcept nogil

# How attributes are shown, and for how long the kernel believes them.
cdef struct Shown:
    bint owned          # every inode is shown as `uid`'s and `gid`'s
    uint32_t uid
    uint32_t gid
    uint32_t block_size
    uint64_t valid_s
    uint32_t valid_ns

cdef enum:
    # A write of more bytes is sealed and stored without the interpreter.
    SHORT_WRITE = 32768
    SECOND_NS = 1_000_000_000
    # Of a name; the kernel lets longer ones through.
    LONGEST = 255

cdef fuse_session *session_of_llfuse = NULL
cdef HitCore *table = NULL
cdef KnownCore *known = NULL
cdef Shown shown
cdef int sessions = 0
cdef uint64_t refused = 0
cdef unsigned int agreed = 0
cdef Init init_of_llfuse = NULL
cdef Receive real_receive = NULL
cdef ReplyOpen real_reply_open = NULL
cdef uint64_t opens = 0
cdef Exited real_exited = NULL
cdef New real_new = NULL


# --- Answering -----------------------------------------------------------------------------------


cdef void reply(int fd, uint64_t unique, int error, const void *data, size_t length) noexcept nogil:
    """Answer a request.  The kernel refuses only what was interrupted or unmounted meanwhile."""
    cdef fuse_out_header header
    cdef iovec parts[2]
    header.len = <uint32_t>(sizeof(fuse_out_header) + length)
    header.error = -error
    header.unique = unique
    parts[0].iov_base = &header
    parts[0].iov_len = sizeof(fuse_out_header)
    parts[1].iov_base = <void *>data
    parts[1].iov_len = length
    while writev(fd, parts, 2 if length else 1) < 0 and errno == EINTR:
        pass


cdef bint serve_read(
    int fd, const fuse_in_header *header, const fuse_read_in *asked) noexcept nogil:
    cdef Reply found
    cdef bint hit
    if table == NULL:
        return False
    begin_serving()
    hit = hit_read(
        table, <int64_t>asked.fh, <int64_t>asked.offset, asked.size, &found) == HIT
    if hit:
        reply(fd, header.unique, 0, found.data, <size_t>found.length)
        hit_release(table, &found)
    end_serving()
    return hit


cdef bint serve_flush(
    int fd, const fuse_in_header *header, const fuse_flush_in *asked) noexcept nogil:
    """A file that only reads has nothing that could be lost."""
    if table == NULL or not hit_knows(table, <int64_t>asked.fh):
        return False
    reply(fd, header.unique, 0, NULL, 0)
    return True


cdef void fill(const KnownInode *inode, fuse_attr *attr) noexcept nogil:
    """stat(2) as the kernel wants it.  Times before 1970 have negative seconds, as llfuse has them
    too."""
    attr.ino = <uint64_t>inode.ino
    attr.size = <uint64_t>inode.size
    attr.blocks = <uint64_t>inode.blocks
    attr.atime = <uint64_t>seconds(inode.atime_ns, &attr.atimensec)
    attr.mtime = <uint64_t>seconds(inode.mtime_ns, &attr.mtimensec)
    attr.ctime = <uint64_t>seconds(inode.ctime_ns, &attr.ctimensec)
    attr.mode = inode.mode
    attr.nlink = inode.nlink
    attr.uid = shown.uid if shown.owned else inode.uid
    attr.gid = shown.gid if shown.owned else inode.gid
    attr.rdev = inode.rdev
    attr.blksize = shown.block_size


cdef int64_t seconds(int64_t time_ns, uint32_t *rest) noexcept nogil:
    """Whole seconds, rounded down, and the nanoseconds that are left."""
    cdef int64_t whole = time_ns // SECOND_NS
    if whole * SECOND_NS > time_ns:
        whole -= 1
    rest[0] = <uint32_t>(time_ns - whole * SECOND_NS)
    return whole


cdef bint serve_getattr(int fd, const fuse_in_header *header) noexcept nogil:
    cdef KnownInode found
    cdef fuse_attr_out out
    if known == NULL or not known_inode(known, <int64_t>header.nodeid, &found):
        return False
    memset(&out, 0, sizeof(out))
    out.attr_valid = shown.valid_s
    out.attr_valid_nsec = shown.valid_ns
    fill(&found, &out.attr)
    reply(fd, header.unique, 0, &out, sizeof(out))
    return True


cdef bint serve_lookup(
    int fd, const fuse_in_header *header, const char *name, size_t length) noexcept nogil:
    """The name ends with a zero.  A name that leads nowhere is answered with node 0."""
    cdef KnownInode found
    cdef fuse_entry_out out
    if known == NULL or length < 2 or name[length - 1] != 0:
        return False
    # '.' and '..' lead somewhere in every directory; so long a name is an error.
    if strcmp(name, ".") == 0 or strcmp(name, "..") == 0 or length - 1 > LONGEST:
        return False
    memset(&out, 0, sizeof(out))
    if known_name(known, <int64_t>header.nodeid, name, length - 1, &found):
        out.nodeid = <uint64_t>found.ino
        fill(&found, &out.attr)
    elif not known_absent(known, <int64_t>header.nodeid, name, length - 1):
        return False
    out.entry_valid = out.attr_valid = shown.valid_s
    out.entry_valid_nsec = out.attr_valid_nsec = shown.valid_ns
    reply(fd, header.unique, 0, &out, sizeof(out))
    return True


cdef bint refuse_xattr(int fd, const fuse_in_header *header, const char *name) noexcept nogil:
    """security.* and system.* are never stored: the kernel asks for one before every write."""
    global refused
    if strncmp(name, "security.", 9) != 0 and strncmp(name, "system.", 7) != 0:
        return False
    reply(fd, header.unique, EOPNOTSUPP, NULL, 0)
    refused += 1
    return True


cdef bint may_wait(const char *request, size_t length) noexcept nogil:
    """Whether a request for llfuse may be without the interpreter for long."""
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    if length < sizeof(fuse_in_header):
        return False
    if header.opcode == FUSE_WRITE:
        return length > SHORT_WRITE
    return header.opcode in (FUSE_READ, FUSE_FSYNC, FUSE_FSYNCDIR, FUSE_FALLOCATE)


cdef bint serve(int fd, const char *request, size_t length) noexcept nogil:
    """Answer a request here, if that can be.  False: it is for llfuse."""
    global lucid_page_write, lucid_drop_pages
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    cdef const char *body = request + sizeof(fuse_in_header)
    lucid_page_write = 0
    lucid_drop_pages = 0
    if length < sizeof(fuse_in_header):
        return False
    length -= sizeof(fuse_in_header)
    if header.opcode in (FUSE_FORGET, FUSE_BATCH_FORGET):
        # It has no answer.
        return True
    if header.opcode == FUSE_GETATTR:
        return serve_getattr(fd, header)
    if header.opcode == FUSE_LOOKUP and length > 0:
        return serve_lookup(fd, header, body, length)
    if header.opcode == FUSE_READ and length >= sizeof(fuse_read_in):
        return serve_read(fd, header, <const fuse_read_in *>body)
    if header.opcode == FUSE_WRITE and length >= sizeof(fuse_write_in):
        lucid_page_write = (<const fuse_write_in *>body).write_flags & FUSE_WRITE_CACHE
        return False
    if header.opcode == FUSE_FLUSH and length >= sizeof(fuse_flush_in):
        return serve_flush(fd, header, <const fuse_flush_in *>body)
    # The name ends with a zero, which the kernel counts in.
    if header.opcode == FUSE_GETXATTR and length > sizeof(fuse_getxattr_in):
        return refuse_xattr(fd, header, body + sizeof(fuse_getxattr_in))
    return False


cdef public int fuse_session_receive_buf(
        fuse_session *session, fuse_buf *buffer, fuse_chan **channel) noexcept nogil:
    """The next request that is for llfuse; as libfuse's own otherwise."""
    cdef int got
    cdef int fd
    cdef size_t room = buffer.size
    cdef bint leads = False
    while True:
        if not leads and not take_lead(session):
            return -EINTR
        buffer.size = room
        got = real_receive(session, buffer, channel)
        if got <= 0 or buffer.flags & FUSE_BUF_IS_FD:
            break
        fd = fuse_chan_fd(channel[0])
        if concerns_locks(<const char *>buffer.mem, <size_t>got):
            give_lead(session, may_wait(<const char *>buffer.mem, <size_t>got))
            # A close goes on, to where all others go.
            if not attend(fd, <const char *>buffer.mem, <size_t>got) and not serve(
                    fd, <const char *>buffer.mem, <size_t>got):
                return got
            leads = False
            continue
        if not serve(fd, <const char *>buffer.mem, <size_t>got):
            break
        leads = goes_on(session)
    give_lead(
        session,
        got > 0 and not buffer.flags & FUSE_BUF_IS_FD
        and may_wait(<const char *>buffer.mem, <size_t>got))
    return got


cdef public int fuse_reply_open(fuse_req *request, const fuse_file_info *info) noexcept nogil:
    """llfuse always lets the kernel keep the pages of a file.  Where they are older than what was
    just opened, and the kernel was not told that yet, they go with this."""
    global opens
    cdef fuse_file_info told = info[0]
    opens += 1
    if lucid_drop_pages:
        told.keep_cache = 0
    return real_reply_open(request, &told)


cdef public int fuse_session_exited(fuse_session *session) noexcept nogil:
    """llfuse asks this between requests, and its main thread when a signal came."""
    cdef int exited = real_exited(session)
    if exited:
        look_whether_ended(session)
    return exited


cdef void begun(void *userdata, fuse_conn_info *connection) noexcept nogil:
    """libfuse's last question before it answers the kernel's first request."""
    global agreed
    if init_of_llfuse != NULL:
        init_of_llfuse(userdata, connection)
    agreed = connection.want & connection.capable


# Only for libfuse to see that they are there: `_locks` takes their requests before.


cdef void no_lock(
        void *request, uint64_t ino, void *file, void *lock, int sleeps) noexcept nogil:
    fuse_reply_err(request, EIO)


cdef void no_test(void *request, uint64_t ino, void *file, void *lock) noexcept nogil:
    fuse_reply_err(request, EIO)


cdef void no_flock(void *request, uint64_t ino, void *file, int op) noexcept nogil:
    fuse_reply_err(request, EIO)


cdef void no_fallocate(
        void *request, uint64_t ino, int mode, int64_t offset, int64_t length,
        void *file) noexcept nogil:
    fuse_reply_err(request, EOPNOTSUPP)


cdef public fuse_session *fuse_lowlevel_new(
        fuse_args *args, const fuse_lowlevel_ops *handlers, size_t size,
        void *userdata) noexcept nogil:
    """Adds what llfuse lacks, so that libfuse asks the kernel for it.  Counts, so that a mount
    whose llfuse goes around this module does not start."""
    global sessions, session_of_llfuse, agreed, init_of_llfuse
    cdef fuse_lowlevel_ops completed
    memset(&completed, 0, sizeof(fuse_lowlevel_ops))
    memcpy(&completed, handlers, min(size, sizeof(fuse_lowlevel_ops)))
    init_of_llfuse = <Init>completed.init
    completed.init = <void *>begun
    completed.getlk = <void *>no_test
    completed.setlk = <void *>no_lock
    completed.flock = <void *>no_flock
    completed.fallocate = <void *>no_fallocate
    agreed = 0
    sessions += 1
    begin_session()
    session_of_llfuse = real_new(args, &completed, sizeof(fuse_lowlevel_ops), userdata)
    return session_of_llfuse


# --- For Python ----------------------------------------------------------------------------------


cdef class NoLock:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return False


def serve_hits(HitTable hits):
    global table, _kept
    table = NULL if hits is None else &hits.core
    _kept = hits


def serve_known(KnownTable names, *, owner, uint32_t block_size, uint64_t valid_ns):
    global known, shown, _kept_names
    known = NULL if names is None else &names.core
    _kept_names = names
    shown.owned = owner is not None
    shown.uid, shown.gid = (0, 0) if owner is None else owner
    shown.block_size = block_size
    shown.valid_s = valid_ns // SECOND_NS
    shown.valid_ns = <uint32_t>(valid_ns % SECOND_NS)


cdef void work_on(fuse_session *session, fuse_chan *channel, fuse_buf *buffer) noexcept nogil:
    cdef size_t room = buffer.size
    cdef fuse_chan *asked
    cdef int got
    while not is_ending():
        asked = channel
        buffer.size = room
        buffer.flags = 0
        got = fuse_session_receive_buf(session, buffer, &asked)
        if got > 0:
            # llfuse's handlers take the GIL themselves.
            fuse_session_process_buf(session, buffer, asked)
        elif got != -EINTR or is_spare():
            return


def work():
    cdef fuse_chan *channel
    cdef fuse_buf buffer
    cdef Extra me
    if not enlist(&me, session_of_llfuse):
        return
    channel = fuse_session_next_chan(session_of_llfuse, NULL)
    memset(&buffer, 0, sizeof(fuse_buf))
    buffer.size = fuse_chan_bufsize(channel)
    buffer.mem = malloc(buffer.size)
    if buffer.mem != NULL:
        with nogil:
            work_on(session_of_llfuse, channel, &buffer)
    discharge(&me)
    if buffer.mem == NULL:
        raise MemoryError
    free(buffer.mem)


def drop_pages():
    global lucid_drop_pages
    lucid_drop_pages = 1


def is_page_write():
    return lucid_page_write != 0


def answer(int fd, uint64_t unique, int error, bytes data not None=b""):
    reply(fd, unique, error, <const char *>data, <size_t>len(data))


def stats():
    return {
        "sessions": sessions,
        "refused": refused,
        "opens": opens,
        "locks": bool(agreed & FUSE_CAP_POSIX_LOCKS),
        "flocks": bool(agreed & FUSE_CAP_FLOCK_LOCKS),
    }


_kept = None
_kept_names = None
real_receive = <Receive>dlsym(RTLD_NEXT, "fuse_session_receive_buf")
real_exited = <Exited>dlsym(RTLD_NEXT, "fuse_session_exited")
real_reply_open = <ReplyOpen>dlsym(RTLD_NEXT, "fuse_reply_open")
real_new = <New>dlsym(RTLD_NEXT, "fuse_lowlevel_new")
if real_receive == NULL or real_exited == NULL or real_new == NULL or real_reply_open == NULL:
    raise ImportError("libfuse 2.9 lacks functions that lucid's mount needs")
ask_whether_ended(<Exited>real_exited)
