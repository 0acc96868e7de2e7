"""Header of sodium: one block sealed or opened, a digest, a wipe; all without the GIL.

The kernels take what they are given: lengths, suites and pointers are checked by the callers,
with the GIL held.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SUITE_AEGIS256_C = 1
    SUITE_XCHACHA20_C = 2
    FORMAT_C = 1
    AD_LEN = 88
    KEY_LEN = 32
    ID_LEN = 32
    TAG_LEN_MAX = 32
    DIGEST_LEN = 16
    # Below this much work the switch away from the GIL costs more than it gives: 32 KiB take 4 us.
    NOGIL_BYTES = 32768
    # Label, format, suite, filespace and generation: the bytes that a template fixes.
    AD_SHARED = 40

# What the blocks of one kind, filespace and generation share; the rest is filled in for each.
cdef struct AdTemplate:
    uint8_t ad[88]
    int suite

cdef size_t tag_len(int suite) noexcept nogil
cdef void fill_ad(
    const AdTemplate *template, const uint8_t *object_id, uint64_t ordinal, uint32_t flags,
    uint32_t plain_len, uint8_t *ad) noexcept nogil
cdef int seal_block(
    const AdTemplate *template, const uint8_t *object_id, const uint8_t *key, uint64_t ordinal,
    uint32_t flags, const uint8_t *plain, size_t plain_len, uint8_t *out) noexcept nogil
cdef int open_block(
    const AdTemplate *template, const uint8_t *object_id, const uint8_t *key, uint64_t ordinal,
    uint32_t flags, const uint8_t *sealed, size_t sealed_len, uint8_t *out) noexcept nogil
cdef int blake2b(uint8_t *out, size_t out_len, const uint8_t *data, size_t length) noexcept nogil
cdef void wipe(void *memory, size_t length) noexcept nogil

cdef class AdContext:
    cdef AdTemplate template

cdef int view_exact(object source, Py_buffer *view, Py_ssize_t length, str name) except -1
