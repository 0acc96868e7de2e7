"""Many blocks at once: sealed, opened or digested in one go without the GIL.

No state; any thread may call.  All lengths are checked before the GIL is let go and what went wrong
is raised after it is back.  A batch is bounded, so that nothing here allocates without limit.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from .sodium cimport (
    DIGEST_LEN,
    ID_LEN,
    KEY_LEN,
    NOGIL_BYTES,
    AdContext,
    AdTemplate,
    blake2b,
    open_block,
    seal_block,
    tag_len,
    view_exact,
    wipe,
)

from .errors import CorruptBlock, EngineError

BATCH_BLOCKS_MAX = BLOCKS_MAX

cdef enum:
    BLOCKS_MAX = 65536
    # What memcmp compares at once against the bytes before them.
    ZERO_HEAD = 64
    # Sealed with the GIL held: 60 us at most, and getting the GIL back costs more than that while
    # others want it.
    KEPT_GIL_BYTES = 16384


# --- Kernels -------------------------------------------------------------------------------------

# One block of a batch: where it is read, how long it is, and where its digest goes.
cdef struct Piece:
    const uint8_t *source
    size_t length

# What a batch has in common.
cdef struct Sealing:
    const AdTemplate *template
    uint8_t object_id[32]
    uint8_t key[32]
    uint64_t ordinal
    uint32_t flags


cdef Py_ssize_t seal_all(
    const Sealing *how, const Piece *pieces, Py_ssize_t count, uint8_t *out,
    uint8_t *digests) noexcept nogil:
    """-1, or the index of the block that could not be sealed."""
    cdef Py_ssize_t at
    cdef size_t stored
    for at in range(count):
        stored = pieces[at].length + tag_len(how.template.suite)
        if seal_block(how.template, how.object_id, how.key, how.ordinal + <uint64_t>at, how.flags,
                      pieces[at].source, pieces[at].length, out) != 0:
            return at
        if blake2b(digests + at * DIGEST_LEN, DIGEST_LEN, out, stored) != 0:
            return at
        out += stored
    return -1


cdef Py_ssize_t open_all(
    const Sealing *how, const Piece *pieces, Py_ssize_t count, uint8_t *out) noexcept nogil:
    """-1, or the index of the first block that does not open."""
    cdef Py_ssize_t at
    for at in range(count):
        if open_block(how.template, how.object_id, how.key, how.ordinal + <uint64_t>at, how.flags,
                      pieces[at].source, pieces[at].length, out) != 0:
            return at
        out += pieces[at].length - tag_len(how.template.suite)
    return -1


cdef Py_ssize_t digest_all(
    const Piece *pieces, Py_ssize_t count, uint8_t *digests) noexcept nogil:
    cdef Py_ssize_t at
    for at in range(count):
        if blake2b(digests + at * DIGEST_LEN, DIGEST_LEN, pieces[at].source,
                   pieces[at].length) != 0:
            return at
    return -1


cdef bint all_zero(const uint8_t *data, size_t length) noexcept nogil:
    """The head by hand, the rest against itself shifted by the head: memcmp is vectorised."""
    cdef size_t at
    cdef size_t head = length if length < ZERO_HEAD else ZERO_HEAD
    for at in range(head):
        if data[at] != 0:
            return False
    return length == head or memcmp(data, data + head, length - head) == 0


# --- For Python ----------------------------------------------------------------------------------


cdef int fill_sealing(
    Sealing *how, AdContext ctx, object object_id, object key, uint64_t first_ordinal,
    uint32_t flags) except -1:
    """Wipe its key after use."""
    cdef Py_buffer view
    view_exact(object_id, &view, ID_LEN, "object_id")
    memcpy(how.object_id, view.buf, ID_LEN)
    PyBuffer_Release(&view)
    view_exact(key, &view, KEY_LEN, "key")
    memcpy(how.key, view.buf, KEY_LEN)
    PyBuffer_Release(&view)
    how.template = &ctx.template
    how.ordinal = first_ordinal
    how.flags = flags
    return 0


cdef Py_ssize_t checked_count(object batch, uint64_t first_ordinal) except -1:
    """The blocks of a batch: bounded, and with ordinals that exist."""
    cdef Py_ssize_t count = len(batch)
    if count > BLOCKS_MAX:
        raise ValueError(f"a batch has at most {BLOCKS_MAX} blocks")
    if count > 0 and first_ordinal > UINT64_MAX - <uint64_t>(count - 1):
        raise ValueError("the ordinals run over")
    return count


cdef bint overlaps(const Py_buffer *a, const Py_buffer *b):
    cdef const uint8_t *left = <const uint8_t *>a.buf
    cdef const uint8_t *right = <const uint8_t *>b.buf
    return a.len > 0 and b.len > 0 and left < right + b.len and right < left + a.len


cdef Piece *cut_pieces(const Py_buffer *view, object lengths, Py_ssize_t count) except NULL:
    """Pieces that lie one after the other and fill the view.  Free them."""
    cdef Piece *pieces = <Piece *>calloc(count + 1, sizeof(Piece))
    cdef Py_ssize_t at
    cdef Py_ssize_t length
    cdef Py_ssize_t used = 0
    if pieces == NULL:
        raise MemoryError
    try:
        for at in range(count):
            length = lengths[at]
            if length < 0 or length > view.len - used or length > UINT32_MAX:
                raise ValueError(f"length {at} is {length}: it does not fit the buffer")
            pieces[at].source = <const uint8_t *>view.buf + used
            pieces[at].length = length
            used += length
        if used != view.len:
            raise ValueError(f"the lengths sum to {used}, the buffer has {view.len} bytes")
    except BaseException:
        free(pieces)
        raise
    return pieces


cdef class _PlainViews:
    """The views of a batch of plaintexts, released with it."""
    cdef Py_buffer *views
    cdef Piece *pieces
    cdef Py_ssize_t count
    cdef size_t total

    def __cinit__(self, plaintexts, Py_ssize_t count):
        cdef Py_ssize_t at
        self.views = <Py_buffer *>calloc(count + 1, sizeof(Py_buffer))
        self.pieces = <Piece *>calloc(count + 1, sizeof(Piece))
        if self.views == NULL or self.pieces == NULL:
            raise MemoryError
        for at in range(count):
            PyObject_GetBuffer(plaintexts[at], &self.views[at], PyBUF_SIMPLE)
            self.count += 1
            if self.views[at].len > UINT32_MAX:
                raise ValueError(f"plaintext {at} is longer than its length field")
            self.pieces[at].source = <const uint8_t *>self.views[at].buf
            self.pieces[at].length = self.views[at].len
            self.total += self.views[at].len

    def __dealloc__(self):
        cdef Py_ssize_t at
        for at in range(self.count):
            PyBuffer_Release(&self.views[at])
        free(self.views)
        free(self.pieces)


def seal_blocks(AdContext ctx not None, object_id, key, uint64_t first_ordinal, uint32_t flags,
                plaintexts, out):
    cdef Py_ssize_t count = checked_count(plaintexts, first_ordinal)
    cdef size_t tag = tag_len(ctx.template.suite)
    cdef Sealing how
    cdef _PlainViews plain
    cdef Py_buffer target
    cdef Py_ssize_t at
    cdef Py_ssize_t bad
    cdef uint8_t *digests
    plain = _PlainViews(plaintexts, count)
    digest_bytes = bytearray(count * DIGEST_LEN)
    digests = digest_bytes
    PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
    try:
        if target.len < <Py_ssize_t>(plain.total + count * tag):
            raise ValueError(f"out has {target.len} bytes, {plain.total + count * tag} are needed")
        for at in range(count):
            if overlaps(&plain.views[at], &target):
                raise ValueError(f"plaintext {at} overlaps out")
        fill_sealing(&how, ctx, object_id, key, first_ordinal, flags)
        if plain.total <= KEPT_GIL_BYTES:
            bad = seal_all(&how, plain.pieces, count, <uint8_t *>target.buf, digests)
        else:
            with nogil:
                bad = seal_all(&how, plain.pieces, count, <uint8_t *>target.buf, digests)
    finally:
        wipe(how.key, KEY_LEN)
        PyBuffer_Release(&target)
    if bad >= 0:
        raise EngineError(f"libsodium refused to seal block {bad} of the batch")
    lengths = [plain.pieces[at].length + tag for at in range(count)]
    return lengths, split_digests(digest_bytes)


def open_blocks(AdContext ctx not None, object_id, key, uint64_t first_ordinal, uint32_t flags,
                sealed, stored_lengths, out):
    cdef Py_ssize_t count = checked_count(stored_lengths, first_ordinal)
    cdef size_t tag = tag_len(ctx.template.suite)
    cdef Sealing how
    cdef Py_buffer source
    cdef Py_buffer target
    cdef Piece *pieces = NULL
    cdef Py_ssize_t plain
    cdef Py_ssize_t bad = -1
    view_exact(sealed, &source, -1, "sealed")
    try:
        PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
        try:
            pieces = cut_pieces(&source, stored_lengths, count)
            plain = checked_plain(pieces, count, tag)
            if target.len < plain:
                raise ValueError(f"out has {target.len} bytes, {plain} are needed")
            if overlaps(&source, &target):
                raise ValueError("sealed overlaps out")
            fill_sealing(&how, ctx, object_id, key, first_ordinal, flags)
            with nogil:
                bad = open_all(&how, pieces, count, <uint8_t *>target.buf)
        finally:
            free(pieces)
            PyBuffer_Release(&target)
    finally:
        wipe(how.key, KEY_LEN)
        PyBuffer_Release(&source)
    if bad >= 0:
        raise CorruptBlock(f"block {bad} of the batch did not open", index=bad)
    return plain


cdef Py_ssize_t checked_plain(const Piece *pieces, Py_ssize_t count, size_t tag) except -1:
    """The plaintext bytes of a batch.  A block shorter than its tag is corrupt, not misused."""
    cdef Py_ssize_t at
    cdef Py_ssize_t plain = 0
    for at in range(count):
        if pieces[at].length < tag:
            raise CorruptBlock(f"block {at} of the batch is shorter than its tag", index=at)
        plain += pieces[at].length - tag
    return plain


cdef list split_digests(bytearray digests):
    return [bytes(digests[at:at + DIGEST_LEN]) for at in range(0, len(digests), DIGEST_LEN)]


def digest_blocks(sealed, stored_lengths):
    cdef Py_ssize_t count = checked_count(stored_lengths, 0)
    cdef Py_buffer source
    cdef Piece *pieces
    cdef Py_ssize_t bad
    cdef uint8_t *digests
    digest_bytes = bytearray(count * DIGEST_LEN)
    digests = digest_bytes
    view_exact(sealed, &source, -1, "sealed")
    try:
        pieces = cut_pieces(&source, stored_lengths, count)
        with nogil:
            bad = digest_all(pieces, count, digests)
        free(pieces)
    finally:
        PyBuffer_Release(&source)
    if bad >= 0:
        raise EngineError("libsodium refused to digest")
    return split_digests(digest_bytes)


def is_zero(data):
    cdef Py_buffer view
    cdef bint zero
    view_exact(data, &view, -1, "data")
    if view.len >= NOGIL_BYTES:
        with nogil:
            zero = all_zero(<const uint8_t *>view.buf, view.len)
    else:
        zero = all_zero(<const uint8_t *>view.buf, view.len)
    PyBuffer_Release(&view)
    return zero
