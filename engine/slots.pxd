"""Header of slots: the table behind CacheMap, in C.

Invariants, true whenever the map's mutex is free:
- a slot is in the hash chains exactly while it is SLOT_LIVE;
- it is in a recency list exactly while it holds cached bytes and could be evicted;
- `total_charge` is the sum of the charges of live slots that are not staged, `staged_charge` the
  sum of the stored lengths of those that are.
Every function here but the first three expects the caller to hold that mutex.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .sodium cimport AdTemplate

cdef enum:
    CHUNK_SLOTS = 1024
    CHUNKS_MAX = 4096
    SLOT_BITS = 22
    NONE = -1

cdef enum SlotFlag:
    SLOT_LIVE = 1
    SLOT_KEYED = 2      # key, context and stored length are known
    SLOT_LOADED = 4     # presence was read from the file, or there was no file
    SLOT_STAGED = 8     # lies in the staging directory, not in the store yet: never evicted
    SLOT_READ_ONCE = 16
    SLOT_EVICTING = 32  # chosen as a victim: no reader takes it any more
    SLOT_STALE_FD = 64  # the descriptor is of a forgotten file; its last reader closes it
    SLOT_LISTED = 128   # is in a recency list

cdef struct Slot:
    uint8_t id[32]
    uint8_t key[32]
    uint64_t bits[3]
    uint64_t serial
    int64_t charge
    const AdTemplate *template
    int32_t stored_len
    uint32_t flags
    int32_t refs
    int32_t pins
    int32_t readers
    uint32_t epoch      # counts forgets: a descriptor opened before one must not be installed
    int32_t fd
    int32_t fd_prev
    int32_t fd_next
    int32_t recent_prev
    int32_t recent_next
    int32_t hash_next

cdef struct SlotTable:
    Slot **chunks
    int32_t used
    int32_t live
    int32_t free_head
    int32_t *buckets
    uint32_t bucket_mask
    uint64_t next_serial
    int32_t recent_head[2]
    int32_t recent_tail[2]
    int32_t fd_head
    int32_t fd_tail
    int32_t fd_count
    int64_t listed
    int64_t total_charge
    int64_t staged_charge

cdef int table_init(SlotTable *table) noexcept nogil
cdef void table_free(SlotTable *table) noexcept nogil
cdef Slot *slot_at(SlotTable *table, int32_t index) noexcept nogil

cdef Slot *live_slot(SlotTable *table, int64_t index) noexcept nogil
cdef int32_t find_slot(SlotTable *table, const uint8_t *segment_id) noexcept nogil
cdef int32_t insert_slot(SlotTable *table, const uint8_t *segment_id) noexcept nogil
cdef int free_if_unused(SlotTable *table, int32_t index) noexcept nogil

cdef void set_charge_of(SlotTable *table, Slot *slot, int64_t charge) noexcept nogil
cdef void unlist(SlotTable *table, int32_t index) noexcept nogil
cdef void relist(SlotTable *table, int32_t index, bint to_front) noexcept nogil

cdef bint bits_any(const Slot *slot) noexcept nogil
cdef bint bits_cover(const Slot *slot, int first, int end) noexcept nogil
cdef bint bit_at(const Slot *slot, int unit) noexcept nogil
cdef int64_t bits_set(Slot *slot, int first, int end) noexcept nogil
cdef void bits_clear(Slot *slot, int first, int end) noexcept nogil

cdef void fd_install(SlotTable *table, int32_t index, int fd) noexcept nogil
cdef int fd_detach(SlotTable *table, int32_t index) noexcept nogil
cdef void fd_touch(SlotTable *table, int32_t index) noexcept nogil
cdef int fd_detach_idle(SlotTable *table) noexcept nogil
