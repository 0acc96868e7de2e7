"""The one file that binds libsodium: combined AEAD calls and BLAKE2b, called without the GIL.

It owns the addresses of the functions inside PyNaCl, taken through cffi once at import, after
sodium_init(): without that call AEGIS runs in software, three hundred times slower.  The kernels
hold no state, so any thread may call.  FORMAT.md says what the 88 bytes of associated data are.

Never open in place: a failed open leaves zeros behind.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from nacl import _sodium

from .errors import CorruptBlock, EngineError

SUITE_AEGIS256 = SUITE_AEGIS256_C
SUITE_XCHACHA20 = SUITE_XCHACHA20_C
FORMAT_VERSION = FORMAT_C
AD_BYTES = AD_LEN
KEY_BYTES = KEY_LEN
OBJECT_ID_BYTES = ID_LEN

# Offsets in the associated data.
cdef enum:
    AT_FORMAT = 4
    AT_SUITE = 6
    AT_FILESPACE = 8
    AT_GENERATION = 24
    AT_OBJECT = 40
    AT_ORDINAL = 72
    AT_FLAGS = 80
    AT_LENGTH = 84

cdef enum:
    AEGIS_NONCE_LEN = 32
    AEGIS_TAG_LEN = 32
    XCHACHA_NONCE_LEN = 24
    XCHACHA_TAG_LEN = 16

ctypedef int (*SealCall)(
    uint8_t *out, unsigned long long *out_len, const uint8_t *plain, unsigned long long plain_len,
    const uint8_t *ad, unsigned long long ad_len, const uint8_t *secret_nonce,
    const uint8_t *nonce, const uint8_t *key) noexcept nogil
ctypedef int (*OpenCall)(
    uint8_t *out, unsigned long long *out_len, uint8_t *secret_nonce, const uint8_t *sealed,
    unsigned long long sealed_len, const uint8_t *ad, unsigned long long ad_len,
    const uint8_t *nonce, const uint8_t *key) noexcept nogil
ctypedef int (*HashCall)(
    uint8_t *out, size_t out_len, const uint8_t *data, unsigned long long length,
    const uint8_t *key, size_t key_len, const uint8_t *salt, const uint8_t *personal) noexcept nogil
ctypedef void (*WipeCall)(void *memory, size_t length) noexcept nogil

cdef SealCall aegis_seal = NULL
cdef OpenCall aegis_open = NULL
cdef SealCall xchacha_seal = NULL
cdef OpenCall xchacha_open = NULL
cdef HashCall hash_call = NULL
cdef WipeCall wipe_call = NULL


cdef uintptr_t _address(str name) except 0:
    try:
        pointer = _sodium.ffi.addressof(_sodium.lib, name)
    except AttributeError:
        raise EngineError(f"the libsodium inside PyNaCl lacks {name}; PyNaCl >= 1.6 is needed") \
            from None
    return <uintptr_t>int(_sodium.ffi.cast("uintptr_t", pointer))


def _bind():
    global aegis_seal, aegis_open, xchacha_seal, xchacha_open, hash_call, wipe_call
    if _sodium.lib.sodium_init() < 0:
        raise EngineError("libsodium could not be initialised")
    aegis_seal = <SealCall>_address("crypto_aead_aegis256_encrypt")
    aegis_open = <OpenCall>_address("crypto_aead_aegis256_decrypt")
    xchacha_seal = <SealCall>_address("crypto_aead_xchacha20poly1305_ietf_encrypt")
    xchacha_open = <OpenCall>_address("crypto_aead_xchacha20poly1305_ietf_decrypt")
    hash_call = <HashCall>_address("crypto_generichash_blake2b_salt_personal")
    wipe_call = <WipeCall>_address("sodium_memzero")


_bind()
del _bind


# --- Kernels -------------------------------------------------------------------------------------


cdef size_t tag_len(int suite) noexcept nogil:
    """Bytes that a suite adds; 0 for a suite that does not exist."""
    if suite == SUITE_AEGIS256_C:
        return AEGIS_TAG_LEN
    if suite == SUITE_XCHACHA20_C:
        return XCHACHA_TAG_LEN
    return 0


cdef inline void store_le(uint8_t *out, uint64_t value, int width) noexcept nogil:
    cdef int at
    for at in range(width):
        out[at] = <uint8_t>((value >> (8 * at)) & 0xFF)


cdef void fill_ad(
    const AdTemplate *template, const uint8_t *object_id, uint64_t ordinal, uint32_t flags,
    uint32_t plain_len, uint8_t *ad) noexcept nogil:
    memcpy(ad, template.ad, AT_OBJECT)
    memcpy(ad + AT_OBJECT, object_id, ID_LEN)
    store_le(ad + AT_ORDINAL, ordinal, 8)
    store_le(ad + AT_FLAGS, flags, 4)
    store_le(ad + AT_LENGTH, plain_len, 4)


cdef inline void fill_nonce(uint64_t ordinal, uint8_t *nonce) noexcept nogil:
    # The longer of the two nonces; XChaCha20 reads the first 24 bytes of it.
    memset(nonce, 0, AEGIS_NONCE_LEN)
    store_le(nonce, ordinal, 8)


cdef int seal_block(
    const AdTemplate *template, const uint8_t *object_id, const uint8_t *key, uint64_t ordinal,
    uint32_t flags, const uint8_t *plain, size_t plain_len, uint8_t *out) noexcept nogil:
    """Write plain_len bytes and the tag to `out`.  0, or -1 when the library refused."""
    cdef uint8_t ad[AD_LEN]
    cdef uint8_t nonce[AEGIS_NONCE_LEN]
    cdef unsigned long long written = 0
    cdef int rc
    fill_ad(template, object_id, ordinal, flags, <uint32_t>plain_len, ad)
    fill_nonce(ordinal, nonce)
    if template.suite == SUITE_AEGIS256_C:
        rc = aegis_seal(out, &written, plain, plain_len, ad, AD_LEN, NULL, nonce, key)
    else:
        rc = xchacha_seal(out, &written, plain, plain_len, ad, AD_LEN, NULL, nonce, key)
    if rc != 0 or written != plain_len + tag_len(template.suite):
        return -1
    return 0


cdef int open_block(
    const AdTemplate *template, const uint8_t *object_id, const uint8_t *key, uint64_t ordinal,
    uint32_t flags, const uint8_t *sealed, size_t sealed_len, uint8_t *out) noexcept nogil:
    """Write sealed_len minus tag bytes to `out`, never the same memory.  0, or -1: it is not so."""
    cdef uint8_t ad[AD_LEN]
    cdef uint8_t nonce[AEGIS_NONCE_LEN]
    cdef unsigned long long written = 0
    cdef size_t tag = tag_len(template.suite)
    cdef int rc
    if sealed_len < tag:
        return -1
    fill_ad(template, object_id, ordinal, flags, <uint32_t>(sealed_len - tag), ad)
    fill_nonce(ordinal, nonce)
    if template.suite == SUITE_AEGIS256_C:
        rc = aegis_open(out, &written, NULL, sealed, sealed_len, ad, AD_LEN, nonce, key)
    else:
        rc = xchacha_open(out, &written, NULL, sealed, sealed_len, ad, AD_LEN, nonce, key)
    if rc != 0 or written != sealed_len - tag:
        return -1
    return 0


cdef int blake2b(uint8_t *out, size_t out_len, const uint8_t *data, size_t length) noexcept nogil:
    """Plain BLAKE2b: no key, salt or personal string."""
    return hash_call(out, out_len, data, length, NULL, 0, NULL, NULL)


cdef void wipe(void *memory, size_t length) noexcept nogil:
    wipe_call(memory, length)


# --- For Python ----------------------------------------------------------------------------------


cdef int view_exact(object source, Py_buffer *view, Py_ssize_t length, str name) except -1:
    """Get a contiguous view of exactly this many bytes (any number for -1).  Release it."""
    PyObject_GetBuffer(source, view, PyBUF_SIMPLE)
    if length >= 0 and view.len != length:
        got = view.len
        PyBuffer_Release(view)
        raise ValueError(f"{name} must be {length} bytes, not {got}")
    return 0


cdef int copy_exact(object source, uint8_t *target, Py_ssize_t length, str name) except -1:
    cdef Py_buffer view
    view_exact(source, &view, length, name)
    memcpy(target, view.buf, length)
    PyBuffer_Release(&view)
    return 0


cdef class AdContext:
    """Label, format, suite, filespace and generation: what the blocks of one kind share."""

    def __cinit__(
        self, int suite, label, filespace_id, generation_id, int format = FORMAT_C
    ):
        if tag_len(suite) == 0:
            raise ValueError(f"suite {suite} is not known to this version")
        if not 0 < format <= 0xFFFF:
            raise ValueError(f"format {format} is out of range")
        memset(&self.template, 0, sizeof(AdTemplate))
        self.template.suite = suite
        copy_exact(label, self.template.ad, 4, "label")
        store_le(self.template.ad + AT_FORMAT, <uint64_t>format, 2)
        store_le(self.template.ad + AT_SUITE, <uint64_t>suite, 2)
        copy_exact(filespace_id, self.template.ad + AT_FILESPACE, 16, "filespace_id")
        copy_exact(generation_id, self.template.ad + AT_GENERATION, 16, "generation_id")

    @property
    def suite(self):
        return self.template.suite

    @property
    def label(self):
        return (<bytes>self.template.ad[:AT_FORMAT])

    @property
    def format(self):
        return self.template.ad[AT_FORMAT] | <int>self.template.ad[AT_FORMAT + 1] << 8

    @property
    def filespace_id(self):
        return (<bytes>self.template.ad[AT_FILESPACE:AT_GENERATION])

    @property
    def generation_id(self):
        return (<bytes>self.template.ad[AT_GENERATION:AT_OBJECT])

    @property
    def tag_bytes(self):
        return tag_len(self.template.suite)

    @property
    def nonce_bytes(self):
        return AEGIS_NONCE_LEN if self.template.suite == SUITE_AEGIS256_C else XCHACHA_NONCE_LEN

    def __eq__(self, other):
        if not isinstance(other, AdContext):
            return NotImplemented
        return memcmp(self.template.ad, (<AdContext>other).template.ad, AD_SHARED) == 0

    def __hash__(self):
        return hash(<bytes>self.template.ad[:AD_SHARED])

    def __repr__(self):
        return f"AdContext(suite={self.suite}, label={self.label!r}, format={self.format})"


def tag_bytes(int suite):
    cdef size_t length = tag_len(suite)
    if length == 0:
        raise ValueError(f"suite {suite} is not known to this version")
    return length


def build_ad(AdContext ctx not None, object_id, uint64_t ordinal, uint32_t flags,
             uint32_t plaintext_length):
    cdef uint8_t ad[AD_LEN]
    cdef uint8_t id_[ID_LEN]
    copy_exact(object_id, id_, ID_LEN, "object_id")
    fill_ad(&ctx.template, id_, ordinal, flags, plaintext_length, ad)
    return <bytes>ad[:AD_LEN]


def seal(AdContext ctx not None, object_id, key, uint64_t ordinal, uint32_t flags, plaintext):
    cdef uint8_t id_[ID_LEN]
    cdef uint8_t secret[KEY_LEN]
    cdef Py_buffer plain
    cdef uint8_t *out
    cdef int rc
    copy_exact(object_id, id_, ID_LEN, "object_id")
    view_exact(plaintext, &plain, -1, "plaintext")
    try:
        if plain.len > 0xFFFFFFFF:
            raise ValueError("plaintext is longer than its length field")
        sealed = PyBytes_FromStringAndSize(NULL, plain.len + tag_len(ctx.template.suite))
        out = <uint8_t *>PyBytes_AS_STRING(sealed)
        copy_exact(key, secret, KEY_LEN, "key")
        if plain.len >= NOGIL_BYTES:
            with nogil:
                rc = seal_block(&ctx.template, id_, secret, ordinal, flags,
                                <const uint8_t *>plain.buf, plain.len, out)
        else:
            rc = seal_block(&ctx.template, id_, secret, ordinal, flags,
                            <const uint8_t *>plain.buf, plain.len, out)
    finally:
        wipe(secret, KEY_LEN)
        PyBuffer_Release(&plain)
    if rc != 0:
        raise EngineError("libsodium refused to seal")
    return sealed


def open_(AdContext ctx not None, object_id, key, uint64_t ordinal, uint32_t flags, sealed):
    cdef uint8_t id_[ID_LEN]
    cdef uint8_t secret[KEY_LEN]
    cdef Py_buffer view
    cdef uint8_t *out
    cdef Py_ssize_t plain_len
    cdef int rc = -1
    copy_exact(object_id, id_, ID_LEN, "object_id")
    view_exact(sealed, &view, -1, "sealed")
    try:
        plain_len = view.len - <Py_ssize_t>tag_len(ctx.template.suite)
        if plain_len < 0 or plain_len > 0xFFFFFFFF:
            raise CorruptBlock()
        plaintext = PyBytes_FromStringAndSize(NULL, plain_len)
        out = <uint8_t *>PyBytes_AS_STRING(plaintext)
        copy_exact(key, secret, KEY_LEN, "key")
        if plain_len >= NOGIL_BYTES:
            with nogil:
                rc = open_block(&ctx.template, id_, secret, ordinal, flags,
                                <const uint8_t *>view.buf, view.len, out)
        else:
            rc = open_block(&ctx.template, id_, secret, ordinal, flags,
                            <const uint8_t *>view.buf, view.len, out)
    finally:
        wipe(secret, KEY_LEN)
        PyBuffer_Release(&view)
    if rc != 0:
        raise CorruptBlock()
    return plaintext


cdef bytes _digest(data, int length):
    cdef Py_buffer view
    cdef uint8_t out[32]
    cdef int rc
    view_exact(data, &view, -1, "data")
    if view.len >= NOGIL_BYTES:
        with nogil:
            rc = blake2b(out, length, <const uint8_t *>view.buf, view.len)
    else:
        rc = blake2b(out, length, <const uint8_t *>view.buf, view.len)
    PyBuffer_Release(&view)
    if rc != 0:
        raise EngineError("libsodium refused to digest")
    return <bytes>out[:length]


def digest16(data):
    return _digest(data, 16)


def digest32(data):
    return _digest(data, 32)
