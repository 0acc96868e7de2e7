"""Turns of the mount's workers; for `_low` only.  See `_turns.pyx`."""

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t

ctypedef int (*Exited)(void *session) noexcept nogil

# A worker that was started for a burst, for as long as it is at work; on its stack.
cdef struct Extra:
    pthread_t thread
    Extra *below

cdef void ask_whether_ended(Exited question) noexcept
cdef void begin_session() noexcept nogil
cdef bint take_lead(void *session) noexcept nogil
cdef bint goes_on(void *session) noexcept nogil
cdef void give_lead(void *session, bint waits) noexcept nogil
cdef void begin_serving() noexcept nogil
cdef void end_serving() noexcept nogil
cdef void look_whether_ended(void *session) noexcept nogil
cdef bint is_ending() noexcept nogil
cdef bint enlist(Extra *me, void *session) noexcept nogil
cdef void discharge(Extra *me) noexcept nogil
cdef bint is_spare() noexcept nogil
