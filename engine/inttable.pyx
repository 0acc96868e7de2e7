"""A hash table from numbers (inodes, file handles) to pointers.

It owns its nodes, not what they point to.  It takes no lock: its owner has one around it.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef enum:
    BUCKETS_AT_FIRST = 256


@cython.overflowcheck(False)
cdef inline int64_t spread(int64_t number, int64_t mask) noexcept nogil:
    """The bucket of a number.  Inode numbers share their low or their high bits."""
    cdef uint64_t mixed = <uint64_t>number * <uint64_t>0x9E3779B97F4A7C15
    return <int64_t>((mixed >> 32) & <uint64_t>mask)


cdef int table_begin(IntTable *table) noexcept nogil:
    """0, or -1 when there is no memory."""
    memset(table, 0, sizeof(IntTable))
    table.buckets = <IntNode **>calloc(BUCKETS_AT_FIRST, sizeof(IntNode *))
    table.mask = BUCKETS_AT_FIRST - 1
    return 0 if table.buckets != NULL else -1


cdef void table_end(IntTable *table) noexcept nogil:
    """Free the nodes; what they point to is the owner's."""
    cdef int64_t bucket
    cdef IntNode *node
    if table.buckets == NULL:
        return
    for bucket in range(table.mask + 1):
        while table.buckets[bucket] != NULL:
            node = table.buckets[bucket]
            table.buckets[bucket] = node.next
            free(node)
    free(table.buckets)
    table.buckets = NULL


cdef void *table_get(const IntTable *table, int64_t number) noexcept nogil:
    """What the number leads to, or NULL."""
    cdef IntNode *node = table.buckets[spread(number, table.mask)]
    while node != NULL:
        if node.number == number:
            return node.value
        node = node.next
    return NULL


cdef void grow(IntTable *table) noexcept nogil:
    """Twice the buckets.  Without memory for them the chains just grow longer."""
    cdef int64_t mask = table.mask * 2 + 1
    cdef IntNode **buckets = <IntNode **>calloc(<size_t>(mask + 1), sizeof(IntNode *))
    cdef IntNode *node
    cdef int64_t bucket
    cdef int64_t target
    if buckets == NULL:
        return
    for bucket in range(table.mask + 1):
        while table.buckets[bucket] != NULL:
            node = table.buckets[bucket]
            table.buckets[bucket] = node.next
            target = spread(node.number, mask)
            node.next = buckets[target]
            buckets[target] = node
    free(table.buckets)
    table.buckets = buckets
    table.mask = mask


cdef int table_put(IntTable *table, int64_t number, void *value) noexcept nogil:
    """Add a number.  0, or -1 when there is no memory.  REQUIRES: it is not in the table."""
    cdef IntNode *node = <IntNode *>malloc(sizeof(IntNode))
    cdef int64_t bucket
    if node == NULL:
        return -1
    if table.count > table.mask:
        grow(table)
    bucket = spread(number, table.mask)
    node.number = number
    node.value = value
    node.next = table.buckets[bucket]
    table.buckets[bucket] = node
    table.count += 1
    return 0


cdef void *table_remove(IntTable *table, int64_t number) noexcept nogil:
    """Take a number out; what it led to, or NULL."""
    cdef IntNode **link = &table.buckets[spread(number, table.mask)]
    cdef IntNode *node
    cdef void *value
    while link[0] != NULL:
        node = link[0]
        if node.number == number:
            value = node.value
            link[0] = node.next
            free(node)
            table.count -= 1
            return value
        link = &node.next
    return NULL
