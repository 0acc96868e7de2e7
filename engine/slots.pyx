"""The table of segment slots: hash chains, recency lists, presence bits, descriptors; all in C.

It owns the memory of the slots, which never moves (chunks of 1,024), so that a reader may keep a
pointer to a slot it has marked.  It does no I/O and takes no lock: CacheMap owns one of these and
the mutex around it.  Descriptors are handed back to the caller to be closed outside of that mutex,
because the last close of an unlinked file frees its blocks and may take milliseconds.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from .addr cimport UNIT_LEN, least, unit_count
from .sodium cimport ID_LEN, KEY_LEN, wipe

cdef enum:
    BUCKETS_AT_FIRST = 1024
    # A unit is charged in whole pages of the disk, as the file system allocates it.
    PAGE_LEN = 4096


# --- The table -----------------------------------------------------------------------------------


cdef int table_init(SlotTable *table) noexcept nogil:
    """0, or -1 when there is no memory."""
    memset(table, 0, sizeof(SlotTable))
    table.chunks = <Slot **>calloc(CHUNKS_MAX, sizeof(Slot *))
    table.buckets = new_buckets(BUCKETS_AT_FIRST)
    table.bucket_mask = BUCKETS_AT_FIRST - 1
    table.free_head = NONE
    table.fd_head = table.fd_tail = NONE
    table.recent_head[0] = table.recent_tail[0] = NONE
    table.recent_head[1] = table.recent_tail[1] = NONE
    table.next_serial = 1
    return 0 if table.chunks != NULL and table.buckets != NULL else -1


cdef void table_free(SlotTable *table) noexcept nogil:
    """Wipe and free everything.  The descriptors were closed before."""
    cdef int chunk
    if table.chunks != NULL:
        for chunk in range(CHUNKS_MAX):
            if table.chunks[chunk] != NULL:
                wipe(table.chunks[chunk], CHUNK_SLOTS * sizeof(Slot))
                free(table.chunks[chunk])
        free(table.chunks)
    free(table.buckets)
    table.chunks = NULL
    table.buckets = NULL


cdef Slot *slot_at(SlotTable *table, int32_t index) noexcept nogil:
    return &table.chunks[index // CHUNK_SLOTS][index % CHUNK_SLOTS]


cdef Slot *live_slot(SlotTable *table, int64_t index) noexcept nogil:
    """The slot of this number, or NULL when it is not in use."""
    cdef Slot *slot
    if index < 0 or index >= table.used:
        return NULL
    slot = slot_at(table, <int32_t>index)
    return slot if slot.flags & SLOT_LIVE else NULL


cdef int32_t *new_buckets(uint32_t count) noexcept nogil:
    cdef int32_t *buckets = <int32_t *>calloc(count, sizeof(int32_t))
    if buckets != NULL:
        # All bits set is NONE.
        memset(buckets, 0xFF, count * sizeof(int32_t))
    return buckets


@cython.overflowcheck(False)
cdef uint32_t hash_id(const uint8_t *segment_id) noexcept nogil:
    """Segment ids are random; the folding only keeps chosen ones from sharing a cheap prefix."""
    cdef uint64_t words[4]
    cdef uint64_t mixed
    memcpy(words, segment_id, ID_LEN)
    mixed = words[0] ^ (words[1] * <uint64_t>0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> 32)) * <uint64_t>0xBF58476D1CE4E5B9 + words[2]
    mixed = (mixed ^ (mixed >> 29)) * <uint64_t>0x94D049BB133111EB + words[3]
    return <uint32_t>((mixed ^ (mixed >> 32)) & <uint64_t>0xFFFFFFFF)


cdef int32_t find_slot(SlotTable *table, const uint8_t *segment_id) noexcept nogil:
    cdef int32_t index = table.buckets[hash_id(segment_id) & table.bucket_mask]
    cdef Slot *slot
    while index != NONE:
        slot = slot_at(table, index)
        if memcmp(slot.id, segment_id, ID_LEN) == 0:
            return index
        index = slot.hash_next
    return NONE


cdef void grow_buckets(SlotTable *table) noexcept nogil:
    """Twice the buckets.  Without memory for them the chains just grow longer."""
    cdef uint32_t count = (table.bucket_mask + 1) * 2
    cdef int32_t *buckets = new_buckets(count)
    cdef int32_t index
    cdef uint32_t bucket
    cdef Slot *slot
    if buckets == NULL:
        return
    for index in range(table.used):
        slot = slot_at(table, index)
        if slot.flags & SLOT_LIVE:
            bucket = hash_id(slot.id) & (count - 1)
            slot.hash_next = buckets[bucket]
            buckets[bucket] = index
    free(table.buckets)
    table.buckets = buckets
    table.bucket_mask = count - 1


cdef int32_t fresh_index(SlotTable *table) noexcept nogil:
    """A slot nobody uses, or NONE when the table is full or there is no memory."""
    cdef int32_t index = table.free_head
    cdef int32_t chunk
    if index != NONE:
        table.free_head = slot_at(table, index).hash_next
        return index
    chunk = table.used // CHUNK_SLOTS
    if chunk >= CHUNKS_MAX:
        return NONE
    if table.chunks[chunk] == NULL:
        table.chunks[chunk] = <Slot *>calloc(CHUNK_SLOTS, sizeof(Slot))
        if table.chunks[chunk] == NULL:
            return NONE
    table.used += 1
    return table.used - 1


cdef int32_t insert_slot(SlotTable *table, const uint8_t *segment_id) noexcept nogil:
    """A new live slot for a segment that has none, without reference or key; NONE: no room."""
    cdef int32_t index = fresh_index(table)
    cdef uint32_t bucket
    cdef Slot *slot
    if index == NONE:
        return NONE
    if <uint32_t>table.live > table.bucket_mask:
        grow_buckets(table)
    slot = slot_at(table, index)
    memset(slot, 0, sizeof(Slot))
    memcpy(slot.id, segment_id, ID_LEN)
    slot.flags = SLOT_LIVE
    slot.serial = table.next_serial
    slot.fd = slot.fd_prev = slot.fd_next = NONE
    slot.recent_prev = slot.recent_next = NONE
    bucket = hash_id(segment_id) & table.bucket_mask
    slot.hash_next = table.buckets[bucket]
    table.buckets[bucket] = index
    table.next_serial += 1
    table.live += 1
    return index


cdef void unhash(SlotTable *table, int32_t index) noexcept nogil:
    cdef Slot *slot = slot_at(table, index)
    cdef int32_t *link = &table.buckets[hash_id(slot.id) & table.bucket_mask]
    while link[0] != index:
        link = &slot_at(table, link[0]).hash_next
    link[0] = slot.hash_next


cdef int free_if_unused(SlotTable *table, int32_t index) noexcept nogil:
    """Free a slot that nobody refers to and that holds nothing.  A descriptor to close, or NONE."""
    cdef Slot *slot = slot_at(table, index)
    cdef int fd
    if slot.refs or slot.pins or slot.readers or slot.charge or bits_any(slot):
        return NONE
    if slot.flags & (SLOT_STAGED | SLOT_EVICTING):
        return NONE
    fd = fd_detach(table, index)
    unhash(table, index)
    wipe(slot.key, KEY_LEN)
    slot.flags = 0
    slot.template = NULL
    slot.hash_next = table.free_head
    table.free_head = index
    table.live -= 1
    return fd


# --- Charge and recency --------------------------------------------------------------------------


cdef void set_charge_of(SlotTable *table, Slot *slot, int64_t charge) noexcept nogil:
    table.total_charge += charge - slot.charge
    slot.charge = charge


cdef void unlist(SlotTable *table, int32_t index) noexcept nogil:
    cdef Slot *slot = slot_at(table, index)
    cdef int which = 1 if slot.flags & SLOT_READ_ONCE else 0
    if not slot.flags & SLOT_LISTED:
        return
    if slot.recent_prev == NONE:
        table.recent_head[which] = slot.recent_next
    else:
        slot_at(table, slot.recent_prev).recent_next = slot.recent_next
    if slot.recent_next == NONE:
        table.recent_tail[which] = slot.recent_prev
    else:
        slot_at(table, slot.recent_next).recent_prev = slot.recent_prev
    slot.recent_prev = slot.recent_next = NONE
    slot.flags &= ~<uint32_t>SLOT_LISTED
    table.listed -= 1


cdef void relist(SlotTable *table, int32_t index, bint to_front) noexcept nogil:
    """Put a slot into the list it belongs to now, or into none.

    Call after any change of charge, bits, pins or flags, and with READ_ONCE changed only while the
    slot is not listed.  A slot that stays listed keeps its place unless to_front.
    """
    cdef Slot *slot = slot_at(table, index)
    cdef bint belongs = slot.charge > 0 or bits_any(slot)
    cdef int which = 1 if slot.flags & SLOT_READ_ONCE else 0
    if slot.pins or slot.flags & (SLOT_STAGED | SLOT_EVICTING):
        belongs = False
    if not belongs:
        unlist(table, index)
        return
    if slot.flags & SLOT_LISTED:
        if not to_front or table.recent_head[which] == index:
            return
        unlist(table, index)
    slot.recent_next = table.recent_head[which]
    if slot.recent_next == NONE:
        table.recent_tail[which] = index
    else:
        slot_at(table, slot.recent_next).recent_prev = index
    table.recent_head[which] = index
    slot.flags |= SLOT_LISTED
    table.listed += 1


# --- Presence ------------------------------------------------------------------------------------


cdef bint bits_any(const Slot *slot) noexcept nogil:
    return (slot.bits[0] | slot.bits[1] | slot.bits[2]) != 0


cdef bint bit_at(const Slot *slot, int unit) noexcept nogil:
    return (slot.bits[unit >> 6] >> (unit & 63)) & 1


cdef bint bits_cover(const Slot *slot, int first, int end) noexcept nogil:
    cdef int unit
    for unit in range(first, end):
        if not bit_at(slot, unit):
            return False
    return True


cdef int64_t bits_set(Slot *slot, int first, int end) noexcept nogil:
    """Set units [first, end); returns the bytes that the newly set ones take on the disk."""
    cdef int unit
    cdef int64_t grown = 0
    cdef int64_t length
    for unit in range(first, end):
        if not bit_at(slot, unit):
            slot.bits[unit >> 6] |= <uint64_t>1 << (unit & 63)
            length = least(UNIT_LEN, slot.stored_len - <int64_t>unit * UNIT_LEN)
            grown += (length + PAGE_LEN - 1) // PAGE_LEN * PAGE_LEN
    return grown


cdef void bits_clear(Slot *slot, int first, int end) noexcept nogil:
    cdef int unit
    for unit in range(first, end):
        slot.bits[unit >> 6] &= ~(<uint64_t>1 << (unit & 63))


# --- Descriptors ---------------------------------------------------------------------------------


cdef void fd_install(SlotTable *table, int32_t index, int fd) noexcept nogil:
    """Give a slot without descriptor this one, as the most recently used."""
    cdef Slot *slot = slot_at(table, index)
    slot.fd = fd
    slot.fd_prev = NONE
    slot.fd_next = table.fd_head
    if table.fd_head == NONE:
        table.fd_tail = index
    else:
        slot_at(table, table.fd_head).fd_prev = index
    table.fd_head = index
    table.fd_count += 1


cdef int fd_detach(SlotTable *table, int32_t index) noexcept nogil:
    """Take the descriptor off a slot and hand it to the caller to close; NONE when it has none."""
    cdef Slot *slot = slot_at(table, index)
    cdef int fd = slot.fd
    if fd == NONE:
        return NONE
    if slot.fd_prev == NONE:
        table.fd_head = slot.fd_next
    else:
        slot_at(table, slot.fd_prev).fd_next = slot.fd_next
    if slot.fd_next == NONE:
        table.fd_tail = slot.fd_prev
    else:
        slot_at(table, slot.fd_next).fd_prev = slot.fd_prev
    slot.fd = slot.fd_prev = slot.fd_next = NONE
    slot.flags &= ~<uint32_t>SLOT_STALE_FD
    table.fd_count -= 1
    return fd


cdef void fd_touch(SlotTable *table, int32_t index) noexcept nogil:
    cdef int fd
    cdef Slot *slot = slot_at(table, index)
    cdef uint32_t stale = slot.flags & SLOT_STALE_FD
    if table.fd_head == index or slot.fd == NONE:
        return
    fd = fd_detach(table, index)
    fd_install(table, index, fd)
    slot.flags |= stale


cdef int fd_detach_idle(SlotTable *table) noexcept nogil:
    """The longest unused descriptor that no reader has, to be closed; NONE when all are in use."""
    cdef int32_t index = table.fd_tail
    while index != NONE:
        if slot_at(table, index).readers == 0:
            return fd_detach(table, index)
        index = slot_at(table, index).fd_prev
    return NONE
