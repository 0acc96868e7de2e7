"""The map of segments known to this machine: keys, presence, recency, charge, descriptors.

This is the face for Python; cachecore holds the rules that readers need without the GIL.  Any
thread may call.  A slot is kept by a reference (a block map, an upload), by a pin, by cached bytes,
or by being staged; without any of these its number is given to another segment, so whoever wants to
remember one keeps its `token`.
"""

from cpython.buffer cimport PyBuffer_Release
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from .addr cimport (
    STORED_MAX,
    check_range,
    least,
    most,
    unit_ceil,
    unit_count,
    unit_floor,
)
from .cachecore cimport (
    BROKEN,
    FULL,
    MISMATCH,
    READY,
    StoredRange,
    core_absent,
    core_clear,
    core_close,
    core_free,
    core_init,
    core_load,
    core_peek,
    core_release,
    core_take,
    drop_fd,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from .segfile cimport close_fd
from .slots cimport (
    NONE,
    SLOT_BITS,
    SLOT_EVICTING,
    SLOT_KEYED,
    SLOT_LOADED,
    SLOT_READ_ONCE,
    SLOT_STAGED,
    Slot,
    bits_set,
    find_slot,
    free_if_unused,
    insert_slot,
    live_slot,
    relist,
    set_charge_of,
    slot_at,
    unlist,
)
from .sodium cimport ID_LEN, KEY_LEN, AdContext, view_exact

import warnings

from .errors import CacheIOError, EngineError

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int command, ...)
    int F_DUPFD_CLOEXEC

MAX_OPEN_FILES = 512

cdef enum:
    VICTIMS_MAX = 65536
    # More than every second unit cannot begin a range.
    RANGES_MAX = 65
    PAGE_LEN = 4096

cdef int64_t page_ceil(int64_t length) noexcept nogil:
    return (length + PAGE_LEN - 1) // PAGE_LEN * PAGE_LEN


cdef int duplicate(int fd) except -2:
    cdef int copy
    if fd < 0:
        return NONE
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)
    if copy < 0:
        raise ValueError(f"{fd} is not an open descriptor")
    return copy


cdef class CacheMap:
    """Slots of segments.  Write once: `contexts` only grows.  All else is guarded by the core."""

    def __cinit__(
        self, int cache_dir = -1, int staging_dir = -1, int max_open_files = 512
    ):
        cdef int copies[2]
        self.core.closed = True
        if not 1 <= max_open_files <= 65536:
            raise ValueError("max_open_files must be 1 to 65536")
        self.contexts = {}
        copies[0] = duplicate(cache_dir)
        try:
            copies[1] = duplicate(staging_dir)
        except ValueError:
            close_fd(copies[0])
            raise
        if core_init(&self.core, copies[0], copies[1], max_open_files) != 0:
            raise MemoryError

    def __dealloc__(self):
        core_free(&self.core)

    def __del__(self):
        if not self.core.closed:
            warnings.warn("a CacheMap was not closed", ResourceWarning, source=self)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        with nogil:
            core_close(&self.core)

    cdef Slot *held(self, int64_t index) except NULL:
        """The slot, with the mutex taken; or an EngineError, with the mutex free."""
        cdef Slot *slot
        pthread_mutex_lock(&self.core.mutex)
        slot = NULL if self.core.closed else live_slot(&self.core.table, index)
        if slot == NULL:
            pthread_mutex_unlock(&self.core.mutex)
            if self.core.closed:
                raise EngineError("the cache map is closed")
            raise EngineError(f"slot {index} is not in use")
        return slot

    cdef int unheld(self, int fd) except -1:
        """Let the mutex go, then close a descriptor that came off a slot."""
        pthread_mutex_unlock(&self.core.mutex)
        if fd != NONE:
            # The last close of an unlinked file frees its blocks: milliseconds.
            with nogil:
                close_fd(fd)
        return 0

    # --- Taking and giving back ------------------------------------------------------------------

    def acquire(
        self, segment_id, key, AdContext ctx not None, int64_t stored_len, bint staged = False
    ):
        cdef uint8_t id_[ID_LEN]
        cdef Py_buffer view
        cdef int32_t index = NONE
        cdef int status
        if not 0 <= stored_len <= STORED_MAX or (stored_len == 0 and not staged):
            raise ValueError(f"stored_len {stored_len} is out of range")
        if self.core.closed:
            raise EngineError("the cache map is closed")
        # Kept as long as the map: slots point into it, and there is one a generation.
        ctx = self.contexts.setdefault(ctx, ctx)
        copy_id(segment_id, id_)
        view_exact(key, &view, KEY_LEN, "key")
        status = core_take(&self.core, id_, <const uint8_t *>view.buf, &ctx.template, stored_len,
                           staged, &index)
        PyBuffer_Release(&view)
        if status == FULL:
            raise MemoryError("the cache map is full")
        if status == MISMATCH:
            raise EngineError("the segment is known with another key, context, length or place")
        return index

    def adopt(self, segment_id, int64_t charge):
        cdef uint8_t id_[ID_LEN]
        cdef int32_t index
        cdef Slot *slot
        check_range(0, charge)
        if self.core.closed:
            raise EngineError("the cache map is closed")
        copy_id(segment_id, id_)
        pthread_mutex_lock(&self.core.mutex)
        index = find_slot(&self.core.table, id_)
        if index == NONE:
            index = insert_slot(&self.core.table, id_)
        if index != NONE:
            slot = slot_at(&self.core.table, index)
            if not slot.flags & SLOT_STAGED:
                set_charge_of(&self.core.table, slot, charge)
                relist(&self.core.table, index, True)
        pthread_mutex_unlock(&self.core.mutex)
        if index == NONE:
            raise MemoryError("the cache map is full")
        return index

    def retain(self, int64_t slot):
        cdef Slot *at = self.held(slot)
        cdef bint had = at.refs > 0
        if had:
            at.refs += 1
        self.unheld(NONE)
        if not had:
            raise EngineError(f"slot {slot} has no reference to add to")

    def release(self, int64_t slot):
        cdef int fd = NONE
        cdef int rc = core_release(&self.core, slot, &fd)
        if fd != NONE:
            with nogil:
                close_fd(fd)
        if rc != 0:
            raise EngineError(f"slot {slot} has no reference to release")

    def find(self, segment_id):
        cdef uint8_t id_[ID_LEN]
        cdef int32_t index
        copy_id(segment_id, id_)
        if self.core.closed:
            raise EngineError("the cache map is closed")
        pthread_mutex_lock(&self.core.mutex)
        index = find_slot(&self.core.table, id_)
        pthread_mutex_unlock(&self.core.mutex)
        return None if index == NONE else index

    # --- What a slot is --------------------------------------------------------------------------

    def segment_id(self, int64_t slot):
        cdef uint8_t id_[ID_LEN]
        memcpy(id_, self.held(slot).id, ID_LEN)
        self.unheld(NONE)
        return <bytes>id_[:ID_LEN]

    def token(self, int64_t slot):
        cdef uint64_t serial = self.held(slot).serial
        self.unheld(NONE)
        return serial << SLOT_BITS | <uint64_t>slot

    def stored_len(self, int64_t slot):
        cdef int32_t stored_len = self.held(slot).stored_len
        self.unheld(NONE)
        return stored_len

    def set_stored_len(self, int64_t slot, int64_t stored_len):
        cdef Slot *at
        cdef bint fits
        if not 0 <= stored_len <= STORED_MAX:
            raise ValueError(f"stored_len {stored_len} is out of range")
        at = self.held(slot)
        fits = (at.flags & SLOT_STAGED) != 0 and stored_len >= at.stored_len
        if fits:
            self.core.table.staged_charge += stored_len - at.stored_len
            at.stored_len = <int32_t>stored_len
        self.unheld(NONE)
        if not fits:
            raise EngineError(f"slot {slot} is not staged, or would shrink")

    cdef uint32_t flags_of(self, int64_t index) except? 0xFFFFFFFF:
        cdef uint32_t flags = self.held(index).flags
        self.unheld(NONE)
        return flags

    cdef uint32_t keyed_flags(self, int64_t index) except? 0xFFFFFFFF:
        cdef uint32_t flags = self.flags_of(index)
        if not flags & SLOT_KEYED:
            raise EngineError(f"slot {index} has no key and length yet")
        return flags

    def is_staged(self, int64_t slot):
        return (self.flags_of(slot) & SLOT_STAGED) != 0

    def is_evicting(self, int64_t slot):
        return (self.flags_of(slot) & SLOT_EVICTING) != 0

    def charge(self, int64_t slot):
        cdef int64_t charge = self.held(slot).charge
        self.unheld(NONE)
        return charge

    def set_charge(self, int64_t slot, int64_t charge):
        cdef Slot *at
        cdef bint staged
        check_range(0, charge)
        at = self.held(slot)
        staged = (at.flags & SLOT_STAGED) != 0
        if not staged:
            set_charge_of(&self.core.table, at, charge)
            relist(&self.core.table, <int32_t>slot, False)
        self.unheld(NONE)
        if staged:
            raise EngineError(f"slot {slot} is staged: it is charged by its length")

    @property
    def total_charge(self):
        return self.core.table.total_charge

    @property
    def staged_charge(self):
        return self.core.table.staged_charge

    def stats(self):
        pthread_mutex_lock(&self.core.mutex)
        cdef int32_t slots = self.core.table.live
        cdef int64_t listed = self.core.table.listed
        cdef int32_t files = self.core.table.fd_count
        cdef uint64_t hits = self.core.hits
        cdef uint64_t misses = self.core.misses
        cdef uint64_t bytes_read = self.core.bytes_read
        cdef int64_t charge = self.core.table.total_charge
        cdef int64_t staged = self.core.table.staged_charge
        pthread_mutex_unlock(&self.core.mutex)
        return {
            "slots": slots, "evictable": listed, "open_files": files, "hits": hits,
            "misses": misses, "bytes": bytes_read, "charge": charge, "staged": staged,
        }

    # --- Presence --------------------------------------------------------------------------------

    def set_present(self, int64_t slot, int64_t offset, int64_t length):
        cdef Slot *at
        cdef int64_t end
        cdef int64_t charge
        cdef int last
        cdef bint taken
        check_range(offset, length)
        at = self.held(slot)
        taken = (at.flags & (SLOT_EVICTING | SLOT_STAGED | SLOT_KEYED)) == SLOT_KEYED
        if taken:
            end = least(offset + length, at.stored_len)
            last = unit_count(end) if end == at.stored_len else unit_floor(end)
            charge = at.charge + bits_set(at, unit_ceil(least(offset, end)), last)
            # A unit that was cleared and filled again is still allocated only once.
            charge = least(charge, most(at.charge, page_ceil(at.stored_len)))
            set_charge_of(&self.core.table, at, charge)
            relist(&self.core.table, <int32_t>slot, True)
        self.unheld(NONE)
        return taken

    def clear_present(self, int64_t slot, int64_t offset, int64_t length):
        cdef int rc
        check_range(offset, length)
        self.ensure_loaded(slot)
        with nogil:
            rc = core_clear(&self.core, <int32_t>slot, offset, length)
        if rc != 0:
            raise EngineError(f"slot {slot} is not in use")

    def missing(self, int64_t slot, int64_t offset, int64_t length):
        cdef StoredRange ranges[RANGES_MAX]
        cdef int count
        cdef int at
        check_range(offset, length)
        self.ensure_loaded(slot)
        count = core_absent(&self.core, <int32_t>slot, offset, length, ranges, RANGES_MAX)
        return [(ranges[at].offset, ranges[at].length) for at in range(count)]

    def is_present(self, int64_t slot, int64_t offset, int64_t length):
        check_range(offset, length)
        self.ensure_loaded(slot)
        return core_peek(&self.core, <int32_t>slot, offset, length) == READY

    cdef int ensure_loaded(self, int64_t index) except -1:
        """Read presence from the file if that was not done.  What cannot be read is absent."""
        cdef int error = 0
        cdef uint32_t flags = self.keyed_flags(index)
        if not flags & (SLOT_LOADED | SLOT_STAGED):
            with nogil:
                core_load(&self.core, <int32_t>index, False, &error)
        return 0

    def load_presence(self, int64_t slot):
        cdef int error = 0
        cdef int status
        self.keyed_flags(slot)
        with nogil:
            status = core_load(&self.core, <int32_t>slot, True, &error)
        if status == BROKEN:
            raise CacheIOError(error, slot)
        return self.charge(slot)

    # --- Recency and eviction --------------------------------------------------------------------

    def touch(self, int64_t slot):
        self.held(slot)
        relist(&self.core.table, <int32_t>slot, True)
        self.unheld(NONE)

    def pin(self, int64_t slot):
        self.held(slot).pins += 1
        relist(&self.core.table, <int32_t>slot, False)
        self.unheld(NONE)

    def unpin(self, int64_t slot):
        cdef Slot *at = self.held(slot)
        cdef bint had = at.pins > 0
        cdef int fd = NONE
        if had:
            at.pins -= 1
            relist(&self.core.table, <int32_t>slot, True)
            fd = free_if_unused(&self.core.table, <int32_t>slot)
        self.unheld(fd)
        if not had:
            raise EngineError(f"slot {slot} is not pinned")

    def set_read_once(self, int64_t slot, bint read_once):
        cdef Slot *at = self.held(slot)
        if ((at.flags & SLOT_READ_ONCE) != 0) != read_once:
            unlist(&self.core.table, <int32_t>slot)
            at.flags ^= SLOT_READ_ONCE
            relist(&self.core.table, <int32_t>slot, True)
        self.unheld(NONE)

    def promote(self, int64_t slot):
        cdef Slot *at = self.held(slot)
        cdef bint staged = (at.flags & SLOT_STAGED) != 0
        cdef int fd = NONE
        if staged:
            at.flags &= ~<uint32_t>SLOT_STAGED
            at.flags |= SLOT_LOADED
            self.core.table.staged_charge -= at.stored_len
            set_charge_of(&self.core.table, at, bits_set(at, 0, unit_count(at.stored_len)))
            relist(&self.core.table, <int32_t>slot, True)
            fd = free_if_unused(&self.core.table, <int32_t>slot)
        self.unheld(fd)
        if not staged:
            raise EngineError(f"slot {slot} is not staged")

    cdef int choose(self, int64_t bytes_to_free, int limit, int32_t *chosen) noexcept nogil:
        """Mark victims until they free enough; how many."""
        cdef int count = 0
        cdef int which
        cdef int32_t index
        cdef int32_t newer
        cdef Slot *slot
        pthread_mutex_lock(&self.core.mutex)
        for which in range(1, -1, -1):
            index = self.core.table.recent_tail[which]
            while index != NONE and bytes_to_free > 0 and count < limit:
                slot = slot_at(&self.core.table, index)
                newer = slot.recent_prev
                if slot.readers == 0:
                    slot.flags |= SLOT_EVICTING
                    relist(&self.core.table, index, False)
                    bytes_to_free -= slot.charge
                    chosen[count] = index
                    count += 1
                index = newer
        pthread_mutex_unlock(&self.core.mutex)
        return count

    def victims(self, int64_t bytes_to_free, int limit = 1024):
        cdef int32_t *chosen
        cdef int count
        cdef int at
        cdef Slot *slot
        if not 1 <= limit <= VICTIMS_MAX:
            raise ValueError(f"limit must be 1 to {VICTIMS_MAX}")
        if self.core.closed:
            raise EngineError("the cache map is closed")
        chosen = <int32_t *>malloc(limit * sizeof(int32_t))
        if chosen == NULL:
            raise MemoryError
        try:
            count = self.choose(bytes_to_free, limit, chosen)
            found = []
            for at in range(count):
                # Nobody frees or changes a slot that is being evicted but the caller.
                slot = slot_at(&self.core.table, chosen[at])
                found.append((chosen[at], <bytes>slot.id[:ID_LEN], slot.charge))
            return found
        finally:
            free(chosen)

    def forget(self, int64_t slot):
        cdef Slot *at = self.held(slot)
        cdef int fd
        cdef int unused
        if at.flags & SLOT_STAGED:
            self.core.table.staged_charge -= at.stored_len
        at.bits[0] = at.bits[1] = at.bits[2] = 0
        at.flags &= ~<uint32_t>(SLOT_STAGED | SLOT_EVICTING)
        at.flags |= SLOT_LOADED
        set_charge_of(&self.core.table, at, 0)
        fd = drop_fd(&self.core, at, <int32_t>slot)
        relist(&self.core.table, <int32_t>slot, False)
        unused = free_if_unused(&self.core.table, <int32_t>slot)
        # At most one of the two: the first took the descriptor off the slot.
        self.unheld(fd if fd != NONE else unused)

    def spare(self, int64_t slot):
        cdef Slot *at = self.held(slot)
        cdef bint evicting = (at.flags & SLOT_EVICTING) != 0
        at.flags &= ~<uint32_t>SLOT_EVICTING
        relist(&self.core.table, <int32_t>slot, False)
        self.unheld(NONE)
        if not evicting:
            raise EngineError(f"slot {slot} is not being evicted")


cdef int copy_id(object segment_id, uint8_t *target) except -1:
    cdef Py_buffer view
    view_exact(segment_id, &view, ID_LEN, "segment_id")
    memcpy(target, view.buf, ID_LEN)
    PyBuffer_Release(&view)
    return 0
