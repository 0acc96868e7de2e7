"""Which workers wait in the kernel, which sleep, and who says that more are needed.

Few workers wait in the kernel at once (leaders), the others in a stack: a woken worker is the one
that slept last, and those beyond what the load needs are never woken.  When all workers but one are
busy, `wait_short` returns: lucid.mount.crew starts one more.

Two threads that want the interpreter cost each other more than most requests do.  So a leader that
takes a short request to Python is not replaced: it leads again when it comes back.  If it has not
come back after a tick or two, the thread in `wait_short` lets another one lead.  Requests that may
wait (reads that miss, fsync, large writes), and all while reads are served in C, are handed over at
once.

Guarded by `crew`: all variables of the module but `session_exited`, which is written once.
`ending` is read without it, and only ever set while workers run.
"""

import os

from libc.errno cimport ETIMEDOUT, errno
from libc.stdint cimport uint64_t

from lucid.engine.cachecore cimport (
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_destroy(sem_t *semaphore)
    int sem_post(sem_t *semaphore)
    int sem_wait(sem_t *semaphore)
    int sem_timedwait(sem_t *semaphore, const timespec *until)

cdef extern from "<pthread.h>" nogil:
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

cdef extern from *:
    """
    #include <signal.h>
    #include <string.h>
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
    int lucid_is_extra
    int lucid_is_spare

# A worker that waits for its turn to lead.  It lies on that worker's stack.
cdef struct Waiter:
    sem_t turn
    bint woken          # taken off the stack
    bint leads          # to lead; else because the session has ended
    Waiter *below

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
cdef Exited session_exited = NULL


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


cdef bint ended(void *session) noexcept nogil:
    """REQUIRES: crew.  Whether the session has ended; the first to notice wakes all who wait."""
    global ending
    if not ending and session_exited(session):
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


cdef bint take_lead(void *session) noexcept nogil:
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


cdef bint goes_on(void *session) noexcept nogil:
    """Whether this worker leads on after a hit: not when others took its place meanwhile."""
    global leading
    cdef bint leads
    pthread_mutex_lock(&crew)
    leads = not ended(session) and leading - serving <= leaders_max
    if not leads:
        leading -= 1
    pthread_mutex_unlock(&crew)
    return leads


cdef void give_lead(void *session, bint waits) noexcept nogil:
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


cdef void look_whether_ended(void *session) noexcept nogil:
    pthread_mutex_lock(&crew)
    ended(session)
    pthread_mutex_unlock(&crew)


cdef bint is_ending() noexcept nogil:
    return ending


cdef void begin_session() noexcept nogil:
    """REQUIRES: no worker runs."""
    global leading, serving, ending
    leading = serving = 0
    ending = False


cdef void ask_whether_ended(Exited question) noexcept:
    global session_exited
    session_exited = question


# --- Extra workers -------------------------------------------------------------------------------


cdef bint enlist(Extra *me, void *session) noexcept nogil:
    """This worker is an extra one.  False: the session has ended already."""
    global extras, lucid_is_extra, lucid_is_spare
    lucid_is_extra = 1
    lucid_is_spare = 0
    cdef bint begins
    pthread_mutex_lock(&crew)
    begins = not ended(session)
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


cdef bint is_spare() noexcept nogil:
    """Nobody has needed this worker for a while."""
    return lucid_is_spare


# --- For Python ----------------------------------------------------------------------------------


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


def stats():
    return {"leading": leading, "waiting": waiting}


pthread_mutex_init(&crew, NULL)
sem_init(&short_of_workers, 0, 0)
leaders_max = max(LEADERS_LEAST, min(LEADERS_MOST, os.cpu_count() or 1))
# Of no other use in this process: Python and llfuse leave real-time signals alone.
lucid_take_signal(SIGRTMIN)
