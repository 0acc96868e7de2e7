"""What llfuse lacks, put between it and libfuse: this module exports some of libfuse's functions.

llfuse looks its functions up in the libraries loaded before it, and this one comes first (see
`fuse.py`); each function here passes on to libfuse's own.  One mount a process.

`fuse_session_receive_buf` is where workers wait for requests, without the GIL.  Here few of them
wait in the kernel at once (leaders) and the others in a stack: a woken worker is the one that slept
last, and those beyond what the load needs are never woken.  Requests that need nothing of Python
are answered on the spot: reads and flushes of files that the HitTable serves, and xattrs that
nobody has.  When all workers but one are busy, `wait_short` returns: lucid.mount.crew starts one
more, which runs `work`.

Two threads that want the interpreter cost each other more than most requests do.  So a leader that
takes a short request to Python is not replaced: it leads again when it comes back.  If it has not
come back after a tick or two, the thread in `wait_short` lets another one lead.  Requests that may
wait (reads that miss, fsync, large writes), and all while reads are served here, are handed over at
once.

Guarded by `crew`: leading, serving, turns, wide_until, watching, watchers, idle, waiting, extras,
told_short, short_ended.  Written while no worker runs: table, session_of_llfuse.  `ending` is only
ever set while they do.
"""

import os

from libc.errno cimport EINTR, EOPNOTSUPP, ETIMEDOUT, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset, strncmp

from lucid.engine.cachecore cimport (
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)
from lucid.engine.hits cimport HIT, HitCore, HitTable, hit_knows, hit_read, hit_release
from lucid.engine.reader cimport Reply

cdef extern from "<fuse_lowlevel.h>" nogil:
    struct fuse_session:
        pass
    struct fuse_chan:
        pass
    struct fuse_args:
        pass
    struct fuse_lowlevel_ops:
        pass
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
    int FUSE_READ
    int FUSE_WRITE
    int FUSE_FLUSH
    int FUSE_GETXATTR
    int FUSE_FSYNC
    int FUSE_FSYNCDIR
    uint32_t FUSE_WRITE_CACHE

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *parts, int count)

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_destroy(sem_t *semaphore)
    int sem_post(sem_t *semaphore)
    int sem_wait(sem_t *semaphore)
    int sem_timedwait(sem_t *semaphore, const timespec *until)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_kill(pthread_t thread, int number)

cdef extern from "<signal.h>" nogil:
    int SIGRTMIN

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int nanosleep(const timespec *time, timespec *left)
    int CLOCK_REALTIME

cdef extern from "<dlfcn.h>" nogil:
    void *RTLD_NEXT
    void *dlsym(void *handle, const char *name)

cdef extern from *:
    """
    #include <signal.h>
    #include <string.h>
    /* Of the request that this worker handles now: 1 for a write of the kernel's pages. */
    static __thread int lucid_page_write;
    /* Of this worker: 1 when it ends after some time without a turn. */
    static __thread int lucid_is_extra;
    /* 1 once nobody has needed it for that time. */
    static __thread int lucid_is_spare;
    static void lucid_interrupted(int number) { (void)number; }
    static int lucid_take_signal(int number) {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        /* No SA_RESTART: a read that waits ends with EINTR. */
        action.sa_handler = lucid_interrupted;
        return sigaction(number, &action, NULL);
    }
    """
    int lucid_take_signal(int number) nogil
    int lucid_page_write
    int lucid_is_extra
    int lucid_is_spare

ctypedef int (*Receive)(fuse_session *, fuse_buf *, fuse_chan **) noexcept nogil
ctypedef int (*Exited)(fuse_session *) noexcept nogil
ctypedef fuse_session *(*New)(
    fuse_args *, const fuse_lowlevel_ops *, size_t, void *) noexcept nogil

# A worker that waits for its turn to lead.  It lies on that worker's stack.
cdef struct Waiter:
    sem_t turn
    bint woken          # taken off the stack
    bint leads          # to lead; else because the session has ended
    Waiter *below

# A worker that was started for a burst, for as long as it is at work; on its stack.
cdef struct Extra:
    pthread_t thread
    Extra *below

cdef enum:
    # A worker that comes back from Python leads at once while fewer than `leaders_max` do, and none
    # is woken while another still leads: one client alone costs no hand-over.
    LEADERS_LEAST = 3
    LEADERS_MOST = 8
    # A worker that was started for a burst goes after this long without a turn.
    SPARE_S = 30
    # A request in Python is let alone for one tick at least and two at most.
    TICK_NS = 1_000_000
    # So many ticks without a request, and nobody looks any more.
    QUIET_TICKS = 8
    # So many requests after one that may wait, or was a hit, several workers wait in the kernel.
    WIDE_REQUESTS = 64
    # A write of more bytes is sealed and stored without the interpreter.
    SHORT_WRITE = 32768

cdef pthread_mutex_t crew
cdef int leading = 0
# Leaders that answer a read this moment: it may wait for the disk.
cdef int serving = 0
# As many as there are processors: each of them may be busy with a hit.
cdef int leaders_max = LEADERS_LEAST
# Counts each time that somebody takes or gives the lead.
cdef uint64_t turns = 0
cdef uint64_t wide_until = WIDE_REQUESTS
# Threads in `wait_short`, and whether they look at `turns` or sleep.
cdef int watchers = 0
cdef bint watching = False
cdef Waiter *idle = NULL
cdef int waiting = 0
cdef sem_t short_of_workers
cdef bint told_short = False
cdef bint short_ended = False
cdef Extra *extras = NULL
# llfuse takes the exit flag of its session back while extra workers still look at it.
cdef bint ending = False
cdef fuse_session *session_of_llfuse = NULL
cdef HitCore *table = NULL
cdef int sessions = 0
cdef uint64_t refused = 0
cdef Receive real_receive = NULL
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
    return header.opcode in (FUSE_READ, FUSE_FSYNC, FUSE_FSYNCDIR)


cdef bint serve(int fd, const char *request, size_t length) noexcept nogil:
    """Answer a request here, if that can be.  False: it is for llfuse."""
    global lucid_page_write
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    cdef const char *body = request + sizeof(fuse_in_header)
    lucid_page_write = 0
    if length < sizeof(fuse_in_header):
        return False
    length -= sizeof(fuse_in_header)
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


# --- Who waits in the kernel ---------------------------------------------------------------------


cdef void wake(bint leads) noexcept nogil:
    """REQUIRES: crew, and that somebody waits.  The one that slept last."""
    global idle, waiting
    cdef Waiter *waiter = idle
    idle = waiter.below
    waiting -= 1
    waiter.woken = True
    waiter.leads = leads
    sem_post(&waiter.turn)


cdef void wake_all() noexcept nogil:
    """REQUIRES: crew.  The session has ended: nobody waits for a turn any more."""
    while idle != NULL:
        wake(False)


cdef bint ended(fuse_session *session) noexcept nogil:
    """REQUIRES: crew.  Whether the session has ended; the first to notice wakes all who wait."""
    global ending
    if not ending and real_exited(session):
        ending = True
    if ending:
        wake_all()
    return ending


cdef void leave_stack(Waiter *me) noexcept nogil:
    """REQUIRES: crew, and that this waiter is on the stack."""
    global idle, waiting
    cdef Waiter **link = &idle
    while link[0] != me:
        link = &link[0].below
    link[0] = me.below
    waiting -= 1


cdef void sleep_until_turn(Waiter *me) noexcept nogil:
    """Returns when woken; a worker that may go also when nobody needed it for SPARE_S."""
    cdef timespec until
    if not lucid_is_extra:
        # A signal ends the wait too early.
        while sem_wait(&me.turn) != 0:
            pass
        return
    clock_gettime(CLOCK_REALTIME, &until)
    until.tv_sec += SPARE_S
    while sem_timedwait(&me.turn, &until) != 0:
        if errno == ETIMEDOUT:
            return


cdef bint wanted() noexcept nogil:
    """REQUIRES: crew.  Whether one more should wait in the kernel."""
    return leading - serving < (leaders_max if turns < wide_until or not watchers else 1)


cdef bint take_lead(fuse_session *session) noexcept nogil:
    """Wait for a turn.  False: the session has ended, or this worker is not needed any more."""
    global leading, idle, waiting, turns, lucid_is_spare
    cdef Waiter me
    cdef bint leads
    pthread_mutex_lock(&crew)
    if ended(session):
        pthread_mutex_unlock(&crew)
        return False
    turns += 1
    if wanted():
        leading += 1
        pthread_mutex_unlock(&crew)
        return True
    sem_init(&me.turn, 0, 0)
    me.leads = me.woken = False
    me.below = idle
    idle = &me
    waiting += 1
    pthread_mutex_unlock(&crew)
    sleep_until_turn(&me)
    # Whoever posts does so under the lock: after it nobody knows the semaphore.
    pthread_mutex_lock(&crew)
    if not me.woken:
        leave_stack(&me)
        lucid_is_spare = 1
    leads = me.leads
    pthread_mutex_unlock(&crew)
    sem_destroy(&me.turn)
    return leads


cdef void tell_if_short() noexcept nogil:
    """REQUIRES: crew.  Before the last one is busy: its request may wait for the store."""
    global told_short
    if leading - serving + waiting < 2 and not told_short:
        told_short = True
        sem_post(&short_of_workers)


cdef void begin_serving() noexcept nogil:
    """A leader looks away from the kernel; when it was the last that looked, another one leads."""
    global serving, wide_until
    pthread_mutex_lock(&crew)
    serving += 1
    wide_until = turns + WIDE_REQUESTS
    if serving == leading and idle != NULL:
        wake_leader()
    tell_if_short()
    pthread_mutex_unlock(&crew)


cdef void end_serving() noexcept nogil:
    global serving
    pthread_mutex_lock(&crew)
    serving -= 1
    pthread_mutex_unlock(&crew)


cdef bint goes_on(fuse_session *session) noexcept nogil:
    """Whether this worker leads on after a hit: not when others took its place meanwhile."""
    global leading
    cdef bint leads
    pthread_mutex_lock(&crew)
    leads = not ended(session) and leading - serving <= leaders_max
    if not leads:
        leading -= 1
    pthread_mutex_unlock(&crew)
    return leads


cdef void give_lead(fuse_session *session, bint waits) noexcept nogil:
    """This worker leads no more.  The last one that does hands over to who slept last, at once if
    its request may wait, else when it has not come back after a while."""
    global leading, turns, wide_until
    pthread_mutex_lock(&crew)
    ended(session)
    turns += 1
    if waits:
        wide_until = turns + WIDE_REQUESTS
    if leading - serving == 1 and idle != NULL and (turns < wide_until or not watchers):
        wake(True)
    else:
        leading -= 1
        watch()
    tell_if_short()
    pthread_mutex_unlock(&crew)


cdef void watch() noexcept nogil:
    """REQUIRES: crew.  From now on `wait_short` looks whether somebody leads."""
    global watching
    if watchers and not watching:
        watching = True
        sem_post(&short_of_workers)


cdef void watch_tick(uint64_t *seen, int *quiet) noexcept nogil:
    """REQUIRES: crew.  Nobody led for a whole tick: the next one does.  Nothing happened for a
    while: this ends until somebody takes a request to Python again."""
    global watching
    if turns != seen[0]:
        seen[0] = turns
        quiet[0] = 0
        return
    quiet[0] += 1
    if leading - serving > 0:
        watching = quiet[0] < QUIET_TICKS
    elif idle != NULL:
        wake_leader()


cdef void wake_leader() noexcept nogil:
    """REQUIRES: crew, and that somebody waits."""
    global leading
    leading += 1
    wake(True)


cdef public int fuse_session_receive_buf(
        fuse_session *session, fuse_buf *buffer, fuse_chan **channel) noexcept nogil:
    """The next request that is for llfuse; as libfuse's own otherwise."""
    cdef int got
    cdef size_t room = buffer.size
    cdef bint leads = False
    while True:
        if not leads and not take_lead(session):
            return -EINTR
        buffer.size = room
        got = real_receive(session, buffer, channel)
        if got <= 0 or buffer.flags & FUSE_BUF_IS_FD:
            break
        if not serve(fuse_chan_fd(channel[0]), <const char *>buffer.mem, <size_t>got):
            break
        leads = goes_on(session)
    give_lead(
        session,
        got > 0 and not buffer.flags & FUSE_BUF_IS_FD
        and may_wait(<const char *>buffer.mem, <size_t>got))
    return got


cdef public int fuse_session_exited(fuse_session *session) noexcept nogil:
    """llfuse asks this between requests, and its main thread when a signal came."""
    cdef int exited = real_exited(session)
    if exited:
        pthread_mutex_lock(&crew)
        ended(session)
        pthread_mutex_unlock(&crew)
    return exited


cdef public fuse_session *fuse_lowlevel_new(
        fuse_args *args, const fuse_lowlevel_ops *handlers, size_t size,
        void *userdata) noexcept nogil:
    """Counts, so that a mount whose llfuse goes around this module does not start."""
    global sessions, session_of_llfuse, leading, serving, ending
    sessions += 1
    leading = serving = 0
    ending = False
    session_of_llfuse = real_new(args, handlers, size, userdata)
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


cdef void wait_told() noexcept nogil:
    """REQUIRES: crew, which is given up while nothing happens.  Until told_short or short_ended."""
    cdef timespec tick
    cdef uint64_t seen = turns
    cdef int quiet = 0
    tick.tv_sec = 0
    tick.tv_nsec = TICK_NS
    while not (told_short or short_ended):
        pthread_mutex_unlock(&crew)
        if watching:
            # Not a wait with a deadline: somebody may set the clock.
            nanosleep(&tick, NULL)
        else:
            sem_wait(&short_of_workers)
        pthread_mutex_lock(&crew)
        if watching:
            watch_tick(&seen, &quiet)


def wait_short():
    global told_short, watchers
    cdef bint over
    with nogil:
        pthread_mutex_lock(&crew)
        watchers += 1
        wait_told()
        watchers -= 1
        told_short = False
        over = short_ended
        pthread_mutex_unlock(&crew)
    return not over


def end_short(bint over):
    global short_ended
    with nogil:
        pthread_mutex_lock(&crew)
        short_ended = over
        if over:
            sem_post(&short_of_workers)
        pthread_mutex_unlock(&crew)


def end_session():
    global ending
    with nogil:
        pthread_mutex_lock(&crew)
        ending = True
        wake_all()
        pthread_mutex_unlock(&crew)


def interrupt_extras():
    cdef Extra *extra
    with nogil:
        pthread_mutex_lock(&crew)
        extra = extras
        while extra != NULL:
            pthread_kill(extra.thread, SIGRTMIN)
            extra = extra.below
        pthread_mutex_unlock(&crew)


cdef bint enlist(Extra *me) noexcept nogil:
    """False: the session has ended already."""
    global extras
    cdef bint begins
    pthread_mutex_lock(&crew)
    begins = not ended(session_of_llfuse)
    if begins:
        me.thread = pthread_self()
        me.below = extras
        extras = me
    pthread_mutex_unlock(&crew)
    return begins


cdef void discharge(Extra *me) noexcept nogil:
    global extras
    cdef Extra **link = &extras
    pthread_mutex_lock(&crew)
    while link[0] != me:
        link = &link[0].below
    link[0] = me.below
    pthread_mutex_unlock(&crew)


cdef void work_on(fuse_session *session, fuse_chan *channel, fuse_buf *buffer) noexcept nogil:
    cdef size_t room = buffer.size
    cdef fuse_chan *asked
    cdef int got
    while not ending:
        asked = channel
        buffer.size = room
        buffer.flags = 0
        got = fuse_session_receive_buf(session, buffer, &asked)
        if got > 0:
            # llfuse's handlers take the GIL themselves.
            fuse_session_process_buf(session, buffer, asked)
        elif got != -EINTR or lucid_is_spare:
            return


def work():
    global lucid_is_extra, lucid_is_spare
    cdef fuse_chan *channel
    cdef fuse_buf buffer
    cdef Extra me
    if not enlist(&me):
        return
    channel = fuse_session_next_chan(session_of_llfuse, NULL)
    memset(&buffer, 0, sizeof(fuse_buf))
    buffer.size = fuse_chan_bufsize(channel)
    buffer.mem = malloc(buffer.size)
    lucid_is_extra = 1
    lucid_is_spare = 0
    if buffer.mem != NULL:
        with nogil:
            work_on(session_of_llfuse, channel, &buffer)
    discharge(&me)
    if buffer.mem == NULL:
        raise MemoryError
    free(buffer.mem)


def is_page_write():
    return lucid_page_write != 0


def stats():
    return {"sessions": sessions, "leading": leading, "waiting": waiting, "refused": refused}


_kept = None
pthread_mutex_init(&crew, NULL)
sem_init(&short_of_workers, 0, 0)
leaders_max = max(LEADERS_LEAST, min(LEADERS_MOST, os.cpu_count() or 1))
# Of no other use in this process: Python and llfuse leave real-time signals alone.
lucid_take_signal(SIGRTMIN)
real_receive = <Receive>dlsym(RTLD_NEXT, "fuse_session_receive_buf")
real_exited = <Exited>dlsym(RTLD_NEXT, "fuse_session_exited")
real_new = <New>dlsym(RTLD_NEXT, "fuse_lowlevel_new")
if real_receive == NULL or real_exited == NULL or real_new == NULL:
    raise ImportError("libfuse 2.9 lacks functions that lucid's mount needs")
