"""The cache map without Python: references, presence, and the descriptors readers work with.

It owns the slot table and the mutex around it.  Every function here may be called from any thread
without the GIL, and takes the mutex itself unless it says otherwise.  The mutex is a leaf: nothing
else is locked under it and no I/O is done.  A call that needs the disk counts itself as a reader of
the slot (which keeps the slot, and its file, from being evicted), lets the mutex go, works, and
looks at everything again afterwards.
"""

from libc.errno cimport EMFILE, ENFILE, ENOENT
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from .addr cimport UNIT_LEN, cut_range, least, unit_ceil, unit_floor
from .segfile cimport close_fd, open_segment, scan_presence
from .slots cimport (
    NONE,
    SLOT_BITS,
    SLOT_EVICTING,
    SLOT_KEYED,
    SLOT_LOADED,
    SLOT_STAGED,
    SLOT_STALE_FD,
    Slot,
    bit_at,
    bits_any,
    bits_clear,
    bits_cover,
    fd_detach,
    fd_detach_idle,
    fd_install,
    fd_touch,
    find_slot,
    free_if_unused,
    insert_slot,
    live_slot,
    relist,
    set_charge_of,
    slot_at,
    table_free,
    table_init,
)
from .sodium cimport AD_SHARED, KEY_LEN, tag_len, wipe

cdef enum:
    # What one refusal for want of descriptors gives back to the process.
    SHED_FILES = 16
    # A reader whose file is forgotten under it this often is told that the bytes are absent.
    TRIES_MAX = 3


# --- The whole -----------------------------------------------------------------------------------


cdef int core_init(CacheCore *core, int cache_dir, int staging_dir, int max_open) noexcept nogil:
    """0, or -1 when there is no memory.  Owns the two descriptors from now on."""
    memset(core, 0, sizeof(CacheCore))
    core.cache_dir = cache_dir
    core.staging_dir = staging_dir
    core.max_open = max_open
    if table_init(&core.table) != 0 or pthread_mutex_init(&core.mutex, NULL) != 0:
        return -1
    core.has_mutex = True
    return 0


cdef void close_dirs(CacheCore *core) noexcept nogil:
    close_fd(core.cache_dir)
    close_fd(core.staging_dir)
    core.cache_dir = core.staging_dir = NONE


cdef void core_close(CacheCore *core) noexcept nogil:
    """Refuse new readers, close descriptors, wipe keys; what is being read closes with its reader.

    Calling it again does nothing.
    """
    cdef int fd
    cdef int32_t index
    cdef Slot *slot
    if core.closed:
        return
    while True:
        pthread_mutex_lock(&core.mutex)
        core.closed = True
        fd = fd_detach_idle(&core.table)
        pthread_mutex_unlock(&core.mutex)
        if fd == NONE:
            break
        close_fd(fd)
    pthread_mutex_lock(&core.mutex)
    for index in range(core.table.used):
        slot = slot_at(&core.table, index)
        if slot.readers == 0:
            wipe(slot.key, KEY_LEN)
    if core.busy == 0:
        close_dirs(core)
    pthread_mutex_unlock(&core.mutex)


cdef void core_free(CacheCore *core) noexcept nogil:
    """REQUIRES: no other thread knows the core any more."""
    if core.has_mutex:
        core_close(core)
        pthread_mutex_destroy(&core.mutex)
        core.has_mutex = False
    table_free(&core.table)


# --- References ----------------------------------------------------------------------------------


cdef bint fits_known(
    const Slot *slot, const uint8_t *key, const AdTemplate *template, int64_t stored_len,
    bint staged) noexcept nogil:
    """Whether a keyed slot is what the caller believes it to be."""
    if memcmp(slot.key, key, KEY_LEN) != 0:
        return False
    if memcmp(slot.template.ad, template.ad, AD_SHARED) != 0:
        return False
    # A staged segment still grows, so whoever names it may know an older length.
    if slot.flags & SLOT_STAGED:
        return True
    return not staged and slot.stored_len == stored_len


cdef int core_take(
    CacheCore *core, const uint8_t *segment_id, const uint8_t *key, const AdTemplate *template,
    int64_t stored_len, bint staged, int32_t *index) noexcept nogil:
    """Find or make the slot of a segment and add a reference.  A Taking."""
    cdef Slot *slot
    cdef int status = TAKEN
    pthread_mutex_lock(&core.mutex)
    index[0] = find_slot(&core.table, segment_id)
    if index[0] == NONE:
        index[0] = insert_slot(&core.table, segment_id)
        if index[0] == NONE:
            pthread_mutex_unlock(&core.mutex)
            return FULL
        if staged:
            slot_at(&core.table, index[0]).flags |= SLOT_STAGED | SLOT_LOADED
            core.table.staged_charge += stored_len
    slot = slot_at(&core.table, index[0])
    if slot.flags & SLOT_KEYED:
        if not fits_known(slot, key, template, stored_len, staged):
            status = MISMATCH
    elif staged and not slot.flags & SLOT_STAGED:
        status = MISMATCH
    else:
        memcpy(slot.key, key, KEY_LEN)
        slot.template = template
        slot.stored_len = <int32_t>stored_len
        slot.flags |= SLOT_KEYED
    if status == TAKEN:
        slot.refs += 1
    pthread_mutex_unlock(&core.mutex)
    return status


cdef int core_retain(
    CacheCore *core, int32_t index, uint64_t *token, int *tag) noexcept nogil:
    """One more reference on a keyed slot, and what never changes of it.  0 or -1."""
    cdef Slot *slot
    cdef int rc = -1
    pthread_mutex_lock(&core.mutex)
    slot = NULL if core.closed else live_slot(&core.table, index)
    if slot != NULL and slot.flags & SLOT_KEYED:
        slot.refs += 1
        token[0] = slot.serial << SLOT_BITS | <uint64_t>index
        tag[0] = <int>tag_len(slot.template.suite)
        rc = 0
    pthread_mutex_unlock(&core.mutex)
    return rc


cdef int core_release(CacheCore *core, int64_t index, int *fd) noexcept nogil:
    """Give a reference back; 0, or -1 when there was none.  `fd` is for the caller to close.

    Works after core_close too: the owners of references go in their own time.
    """
    cdef Slot *slot
    cdef int rc = -1
    fd[0] = NONE
    pthread_mutex_lock(&core.mutex)
    slot = live_slot(&core.table, index)
    if slot != NULL and slot.refs > 0:
        slot.refs -= 1
        fd[0] = free_if_unused(&core.table, <int32_t>index)
        rc = 0
    pthread_mutex_unlock(&core.mutex)
    return rc


# --- Presence ------------------------------------------------------------------------------------


cdef int core_peek(CacheCore *core, int32_t index, int64_t offset, int64_t length) noexcept nogil:
    """Whether a read of these stored bytes could begin; looks at the file at the first touch."""
    cdef Slot *slot
    cdef int status
    cdef int error = 0
    status = core_load(core, index, False, &error)
    if status == BROKEN or status == UNKNOWN_SLOT:
        return status
    pthread_mutex_lock(&core.mutex)
    slot = NULL if core.closed else live_slot(&core.table, index)
    status = UNKNOWN_SLOT if slot == NULL else readiness(slot, offset, length)
    pthread_mutex_unlock(&core.mutex)
    return status


cdef int readiness(const Slot *slot, int64_t offset, int64_t length) noexcept nogil:
    """REQUIRES: the mutex.  What the bits say; READY also when they were never loaded."""
    if not slot.flags & SLOT_KEYED:
        return UNKNOWN_SLOT
    if cut_range(offset, length, slot.stored_len) != length:
        return OUTSIDE
    if slot.flags & SLOT_STAGED:
        return READY
    if slot.flags & SLOT_EVICTING:
        return ABSENT
    if not slot.flags & SLOT_LOADED:
        return READY
    if bits_cover(slot, unit_floor(offset), unit_ceil(offset + length)):
        return READY
    return ABSENT


cdef int core_absent(
    CacheCore *core, int32_t index, int64_t offset, int64_t length, StoredRange *out,
    int room) noexcept nogil:
    """Write the absent ranges under a range of stored bytes, in whole units; returns how many."""
    cdef Slot *slot
    cdef int unit
    cdef int end
    cdef int count = 0
    cdef int64_t start
    pthread_mutex_lock(&core.mutex)
    slot = live_slot(&core.table, index)
    if slot != NULL and not slot.flags & SLOT_STAGED:
        length = cut_range(offset, length, slot.stored_len)
        end = unit_ceil(offset + length) if length > 0 else 0
        for unit in range(unit_floor(offset) if length > 0 else 0, end):
            if bit_at(slot, unit) and not slot.flags & SLOT_EVICTING:
                continue
            start = <int64_t>unit * UNIT_LEN
            if count == 0 or out[count - 1].offset + out[count - 1].length != start:
                if count == room:
                    break
                out[count].slot = index
                out[count].offset = start
                out[count].length = 0
                count += 1
            out[count - 1].length += least(UNIT_LEN, slot.stored_len - start)
    pthread_mutex_unlock(&core.mutex)
    return count


cdef int core_clear(
    CacheCore *core, int32_t index, int64_t offset, int64_t length) noexcept nogil:
    """Forget every unit that a range of stored bytes touches, and the descriptor.  0 or -1.

    A slot whose file cannot be looked at counts as empty from then on: its disk is gone around.
    """
    cdef Slot *slot
    cdef int fd = NONE
    pthread_mutex_lock(&core.mutex)
    slot = NULL if core.closed else live_slot(&core.table, index)
    if slot != NULL:
        length = cut_range(offset, length, slot.stored_len)
        if length > 0:
            bits_clear(slot, unit_floor(offset), unit_ceil(offset + length))
        slot.flags |= SLOT_LOADED
        # The descriptor may be of a file that was replaced meanwhile: look by name again.
        fd = drop_fd(core, slot, index)
        relist(&core.table, index, False)
    pthread_mutex_unlock(&core.mutex)
    close_fd(fd)
    return 0 if slot != NULL else -1


cdef int core_load(CacheCore *core, int32_t index, bint rescan, int *error) noexcept nogil:
    """Read presence from the file, if that was not done or `rescan`.

    READY, ABSENT (no file), BROKEN or UNKNOWN_SLOT.
    """
    cdef Slot *slot
    cdef int status = READY
    cdef int fd = NONE
    pthread_mutex_lock(&core.mutex)
    slot = NULL if core.closed else live_slot(&core.table, index)
    if slot == NULL or not slot.flags & SLOT_KEYED:
        pthread_mutex_unlock(&core.mutex)
        return UNKNOWN_SLOT
    if slot.flags & (SLOT_STAGED | SLOT_EVICTING) or (slot.flags & SLOT_LOADED and not rescan):
        pthread_mutex_unlock(&core.mutex)
        return READY
    if rescan:
        slot.bits[0] = slot.bits[1] = slot.bits[2] = 0
        slot.flags &= ~<uint32_t>SLOT_LOADED
        fd = drop_fd(core, slot, index)
    slot.readers += 1
    core.busy += 1
    status = obtain_fd(core, index, error)
    pthread_mutex_unlock(&core.mutex)
    close_fd(fd)
    core_end_read(core, index)
    return status


# --- Descriptors ---------------------------------------------------------------------------------


cdef int drop_fd(CacheCore *core, Slot *slot, int32_t index) noexcept nogil:
    """REQUIRES: the mutex.  The file is gone or doubted: look by name next time.

    A descriptor for the caller to close; one that is in use is closed by its last reader.
    """
    slot.epoch += 1
    if slot.fd != NONE and slot.readers:
        slot.flags |= SLOT_STALE_FD
        return NONE
    return fd_detach(&core.table, index)


cdef int install(
    CacheCore *core, int32_t index, uint32_t epoch, int fd, bint scan, int *error) noexcept nogil:
    """REQUIRES: counted as a reader, the mutex free.  Scan, then give the slot its descriptor.

    Returns with the mutex held.  ABSENT when the file was forgotten meanwhile.
    """
    cdef Slot *slot = slot_at(&core.table, index)
    cdef uint64_t bits[3]
    cdef int64_t allocated = 0
    cdef int rc = 0
    cdef int word
    if scan:
        rc = scan_presence(fd, slot.stored_len, bits, &allocated)
    pthread_mutex_lock(&core.mutex)
    if rc == 0 and slot.epoch == epoch:
        if scan and not slot.flags & (SLOT_STAGED | SLOT_EVICTING):
            for word in range(3):
                slot.bits[word] |= bits[word]
            set_charge_of(&core.table, slot, allocated)
            slot.flags |= SLOT_LOADED
            relist(&core.table, index, False)
        if slot.fd == NONE:
            fd_install(&core.table, index, fd)
            return READY
    # Not wanted: another reader was faster, or it is of a file that was forgotten.
    pthread_mutex_unlock(&core.mutex)
    close_fd(fd)
    pthread_mutex_lock(&core.mutex)
    if rc < 0:
        error[0] = -rc
        return BROKEN
    return READY if slot.epoch == epoch else ABSENT


cdef int shed_and_open(CacheCore *core, const Slot *slot, bint staged) noexcept nogil:
    """REQUIRES: the mutex free.  Open again after closing some descriptors that nobody reads."""
    cdef int idle[SHED_FILES]
    cdef int at
    pthread_mutex_lock(&core.mutex)
    for at in range(SHED_FILES):
        idle[at] = fd_detach_idle(&core.table)
    pthread_mutex_unlock(&core.mutex)
    for at in range(SHED_FILES):
        close_fd(idle[at])
    return open_segment(core.cache_dir, core.staging_dir, slot.id, staged)


cdef int obtain_fd(CacheCore *core, int32_t index, int *error) noexcept nogil:
    """REQUIRES: counted as a reader, the mutex held.  Open, and scan if that was never done.

    Lets the mutex go while it works and returns with it held: look at everything again.
    """
    cdef Slot *slot = slot_at(&core.table, index)
    cdef uint32_t epoch = slot.epoch
    cdef bint staged = (slot.flags & SLOT_STAGED) != 0
    cdef bint scan = not staged and not slot.flags & SLOT_LOADED
    cdef bint had_bits = bits_any(slot)
    cdef int idle = NONE
    cdef int fd
    if slot.flags & SLOT_STALE_FD:
        return ABSENT
    if core.table.fd_count >= core.max_open:
        idle = fd_detach_idle(&core.table)
    pthread_mutex_unlock(&core.mutex)
    close_fd(idle)
    fd = open_segment(core.cache_dir, core.staging_dir, slot.id, staged)
    if fd == -EMFILE or fd == -ENFILE:
        fd = shed_and_open(core, slot, staged)
    if fd >= 0:
        return install(core, index, epoch, fd, scan, error)
    pthread_mutex_lock(&core.mutex)
    error[0] = -fd
    if fd != -ENOENT or slot.flags & SLOT_STAGED:
        return BROKEN
    # No such file: nothing is present, unless it was filled while we looked.
    if slot.epoch == epoch and (had_bits or not bits_any(slot)):
        slot.bits[0] = slot.bits[1] = slot.bits[2] = 0
        set_charge_of(&core.table, slot, 0)
        relist(&core.table, index, False)
    slot.flags |= SLOT_LOADED
    return ABSENT


# --- Readers -------------------------------------------------------------------------------------


cdef void fill_view(Slot *slot, SegmentView *view) noexcept nogil:
    view.fd = slot.fd
    view.staged = (slot.flags & SLOT_STAGED) != 0
    view.id = slot.id
    view.key = slot.key
    view.template = slot.template


cdef int ready_to_read(
    CacheCore *core, int32_t index, int64_t offset, int64_t length, int *error) noexcept nogil:
    """REQUIRES: counted as a reader, the mutex held.  READY: the slot has a good descriptor."""
    cdef Slot *slot = slot_at(&core.table, index)
    cdef int status
    cdef int tries
    for tries in range(TRIES_MAX):
        status = readiness(slot, offset, length)
        if status != READY:
            return status
        if slot.flags & SLOT_LOADED and slot.fd != NONE and not slot.flags & SLOT_STALE_FD:
            return READY
        if obtain_fd(core, index, error) == BROKEN:
            return BROKEN
    return ABSENT


cdef int core_begin_read(
    CacheCore *core, int32_t index, int64_t offset, int64_t length, SegmentView *view,
    int *error) noexcept nogil:
    """Begin to read stored bytes: READY means that `view` is good until core_end_read.

    REQUIRES: a reference on the slot.  With any other answer there is nothing to end.
    """
    cdef Slot *slot
    cdef int status
    pthread_mutex_lock(&core.mutex)
    slot = NULL if core.closed else live_slot(&core.table, index)
    if slot == NULL:
        pthread_mutex_unlock(&core.mutex)
        return UNKNOWN_SLOT
    slot.readers += 1
    core.busy += 1
    status = ready_to_read(core, index, offset, length, error)
    if status == READY:
        fd_touch(&core.table, index)
        relist(&core.table, index, True)
        fill_view(slot, view)
    pthread_mutex_unlock(&core.mutex)
    if status != READY:
        core_end_read(core, index)
    return status


cdef int core_begin_memory(CacheCore *core, int32_t index, SegmentView *view) noexcept nogil:
    """Like core_begin_read for stored bytes that the caller has in memory: no file is opened."""
    cdef Slot *slot
    cdef int status = UNKNOWN_SLOT
    pthread_mutex_lock(&core.mutex)
    slot = NULL if core.closed else live_slot(&core.table, index)
    if slot != NULL and slot.flags & SLOT_KEYED:
        slot.readers += 1
        core.busy += 1
        fill_view(slot, view)
        status = READY
    pthread_mutex_unlock(&core.mutex)
    return status


cdef void core_end_read(CacheCore *core, int32_t index) noexcept nogil:
    cdef Slot *slot
    cdef int fd = NONE
    cdef int unused = NONE
    pthread_mutex_lock(&core.mutex)
    slot = slot_at(&core.table, index)
    slot.readers -= 1
    core.busy -= 1
    if slot.readers == 0:
        if slot.flags & SLOT_STALE_FD or core.closed:
            fd = fd_detach(&core.table, index)
            slot.flags &= ~<uint32_t>SLOT_STALE_FD
        elif core.table.fd_count > core.max_open:
            fd = fd_detach_idle(&core.table)
        unused = free_if_unused(&core.table, index)
    if core.closed and core.busy == 0:
        close_dirs(core)
    pthread_mutex_unlock(&core.mutex)
    close_fd(fd)
    close_fd(unused)


cdef void core_count(CacheCore *core, bint hit, int64_t length) noexcept nogil:
    """One more read answered from here, of so many bytes, or one that was not."""
    pthread_mutex_lock(&core.mutex)
    if hit:
        core.hits += 1
        core.bytes_read += <uint64_t>length
    else:
        core.misses += 1
    pthread_mutex_unlock(&core.mutex)
