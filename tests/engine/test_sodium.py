"""Sealing: the bytes of the format, against PyNaCl's own bindings and published vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from lucid.engine.errors import CorruptBlock
from lucid.engine.selftest import (
    _ANSWERS,
    _FLAGS,
    _KEY,
    _OBJECT_ID,
    _ORDINAL,
    _PLAINTEXT,
    SLOW_AEGIS,
    check_answers,
    selftest,
)
from lucid.engine.sodium import (
    AD_BYTES,
    AdContext,
    build_ad,
    digest16,
    digest32,
    open_,
    seal,
    tag_bytes,
)
from tests.engine import reference

LABEL, FILESPACE, GENERATION = b"test", bytes(range(16)), bytes(range(16, 32))
OBJECT_ID, KEY = bytes(range(32, 64)), bytes(range(64, 96))
BLOCK = 64 * 1024
LENGTHS = [0, 1, 15, 16, 17, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK]

suites = pytest.mark.parametrize("suite", [1, 2])


def both(suite: int) -> tuple[AdContext, reference.Context]:
    fields = (suite, LABEL, FILESPACE, GENERATION)
    return AdContext(*fields), reference.Context(*fields)


def test_aegis_256_is_the_published_one() -> None:
    # draft-irtf-cfrg-aegis-aead, appendix AEGIS-256, test vector 1, 256-bit tag.
    sealed = bindings.crypto_aead_aegis256_encrypt(
        bytes(16), None, bytes.fromhex("100002" + "00" * 29), bytes.fromhex("1001" + "00" * 30)
    )
    assert sealed.hex() == (
        "754fc3d8c973246dcc6d741412a4b236"
        "1181a1d18091082bf0266f66297d167d2e68b845f61a3b0527d31fc7b7b89f13"
    )


def test_xchacha20_poly1305_is_the_published_one() -> None:
    # draft-irtf-cfrg-xchacha, appendix A.3.1.
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext,
        bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
        bytes(range(0x40, 0x58)),
        bytes(range(0x80, 0xA0)),
    )
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


@suites
def test_the_pinned_answers_follow_from_the_reference(suite: int) -> None:
    ctx = reference.Context(suite, b"test", bytes(range(16)), bytes(range(16, 32)))
    sealed = reference.seal(ctx, _OBJECT_ID, _KEY, _ORDINAL, _FLAGS, _PLAINTEXT)
    assert hashlib.blake2b(sealed, digest_size=32).hexdigest() == _ANSWERS[suite]
    check_answers()


@suites
@pytest.mark.parametrize("length", LENGTHS)
def test_a_block_is_sealed_as_the_reference_does(suite: int, length: int) -> None:
    ctx, other = both(suite)
    plaintext = bytes(range(256)) * (length // 256 + 1)
    plaintext = plaintext[:length]
    sealed = seal(ctx, OBJECT_ID, KEY, 7, 3, plaintext)
    assert sealed == reference.seal(other, OBJECT_ID, KEY, 7, 3, plaintext)
    assert len(sealed) == length + tag_bytes(suite) == length + ctx.tag_bytes
    assert open_(ctx, OBJECT_ID, KEY, 7, 3, sealed) == plaintext


@given(
    suite=st.sampled_from([1, 2]),
    label=st.binary(min_size=4, max_size=4),
    format_=st.integers(1, 0xFFFF),
    object_id=st.binary(min_size=32, max_size=32),
    ordinal=st.integers(0, 2**64 - 1),
    flags=st.integers(0, 2**32 - 1),
    plaintext=st.binary(max_size=100),
)
def test_associated_data_is_the_format(
    suite: int,
    label: bytes,
    format_: int,
    object_id: bytes,
    ordinal: int,
    flags: int,
    plaintext: bytes,
) -> None:
    ctx = AdContext(suite, label, FILESPACE, GENERATION, format_)
    other = reference.Context(suite, label, FILESPACE, GENERATION, format_)
    ad = build_ad(ctx, object_id, ordinal, flags, len(plaintext))
    assert ad == reference.associated_data(other, object_id, ordinal, flags, len(plaintext))
    assert len(ad) == AD_BYTES
    sealed = seal(ctx, object_id, KEY, ordinal, flags, plaintext)
    assert sealed == reference.seal(other, object_id, KEY, ordinal, flags, plaintext)


@suites
def test_every_field_is_authenticated(suite: int) -> None:
    ctx, _ = both(suite)
    sealed = seal(ctx, OBJECT_ID, KEY, 7, 3, b"bytes")
    others = [
        AdContext(suite, b"tesu", FILESPACE, GENERATION),
        AdContext(suite, LABEL, bytes(16), GENERATION),
        AdContext(suite, LABEL, FILESPACE, bytes(16)),
        AdContext(suite, LABEL, FILESPACE, GENERATION, 2),
    ]
    for other in others:
        with pytest.raises(CorruptBlock):
            open_(other, OBJECT_ID, KEY, 7, 3, sealed)
    for fields in [
        (bytes(32), KEY, 7, 3),
        (OBJECT_ID, bytes(32), 7, 3),
        (OBJECT_ID, KEY, 8, 3),
        (OBJECT_ID, KEY, 7, 2),
    ]:
        with pytest.raises(CorruptBlock):
            open_(ctx, *fields, sealed)
    with pytest.raises(CorruptBlock):
        open_(both(3 - suite)[0], OBJECT_ID, KEY, 7, 3, sealed)


@suites
def test_every_altered_byte_is_noticed(suite: int) -> None:
    ctx, _ = both(suite)
    sealed = seal(ctx, OBJECT_ID, KEY, 0, 0, b"forty bytes of text, more or less of it.")
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 0x40
        with pytest.raises(CorruptBlock):
            open_(ctx, OBJECT_ID, KEY, 0, 0, altered)


@suites
def test_short_and_zero_input_is_corrupt(suite: int) -> None:
    ctx, _ = both(suite)
    sealed = seal(ctx, OBJECT_ID, KEY, 0, 0, b"x")
    for length in range(tag_bytes(suite) + 40):
        with pytest.raises(CorruptBlock):
            open_(ctx, OBJECT_ID, KEY, 0, 0, bytes(length))
    for length in range(len(sealed)):
        with pytest.raises(CorruptBlock):
            open_(ctx, OBJECT_ID, KEY, 0, 0, sealed[:length])
    with pytest.raises(CorruptBlock):
        open_(ctx, OBJECT_ID, KEY, 0, 0, sealed + b"\0")


def test_any_contiguous_buffer_will_do() -> None:
    ctx, _ = both(1)
    sealed = seal(ctx, OBJECT_ID, KEY, 0, 0, b"text")
    for kind in (bytes, bytearray, memoryview):
        assert seal(ctx, kind(OBJECT_ID), kind(KEY), 0, 0, kind(b"text")) == sealed
        assert open_(ctx, kind(OBJECT_ID), kind(KEY), 0, 0, kind(sealed)) == b"text"


def test_a_buffer_with_gaps_is_refused() -> None:
    ctx, _ = both(1)
    gaps = memoryview(bytes(64))[::2]
    with pytest.raises(BufferError):
        seal(ctx, OBJECT_ID, KEY, 0, 0, gaps)
    with pytest.raises(BufferError):
        seal(ctx, gaps, KEY, 0, 0, b"")
    with pytest.raises(BufferError):
        seal(ctx, OBJECT_ID, gaps, 0, 0, b"")
    with pytest.raises(BufferError):
        open_(ctx, OBJECT_ID, KEY, 0, 0, gaps)
    with pytest.raises(BufferError):
        digest16(gaps)


def test_fields_of_a_wrong_size_are_refused() -> None:
    ctx, _ = both(1)
    with pytest.raises(ValueError, match="object_id must be 32 bytes, not 31"):
        seal(ctx, bytes(31), KEY, 0, 0, b"")
    with pytest.raises(ValueError, match="key must be 32"):
        seal(ctx, OBJECT_ID, bytes(33), 0, 0, b"")
    with pytest.raises(ValueError, match="key must be 32"):
        open_(ctx, OBJECT_ID, bytes(33), 0, 0, bytes(32))
    with pytest.raises(OverflowError):
        seal(ctx, OBJECT_ID, KEY, -1, 0, b"")
    with pytest.raises(OverflowError):
        seal(ctx, OBJECT_ID, KEY, 2**64, 0, b"")
    with pytest.raises(OverflowError):
        seal(ctx, OBJECT_ID, KEY, 0, 2**32, b"")
    with pytest.raises(ValueError, match="suite 3 is not known"):
        AdContext(3, LABEL, FILESPACE, GENERATION)
    with pytest.raises(ValueError, match="suite 0 is not known"):
        tag_bytes(0)
    with pytest.raises(ValueError, match="label must be 4"):
        AdContext(1, b"lab", FILESPACE, GENERATION)
    with pytest.raises(ValueError, match="filespace_id must be 16"):
        AdContext(1, LABEL, b"", GENERATION)
    with pytest.raises(ValueError, match="generation_id must be 16"):
        AdContext(1, LABEL, FILESPACE, bytes(17))
    for format_ in (0, 0x10000):
        with pytest.raises(ValueError, match="format"):
            AdContext(1, LABEL, FILESPACE, GENERATION, format_)


@suites
def test_a_context_says_what_it_is(suite: int) -> None:
    ctx, other = both(suite)
    assert (ctx.suite, ctx.label, ctx.format) == (suite, LABEL, 1)
    assert (ctx.filespace_id, ctx.generation_id) == (FILESPACE, GENERATION)
    assert ctx.nonce_bytes == reference.NONCE[suite]
    assert ctx == AdContext(other.suite, LABEL, FILESPACE, GENERATION)
    assert hash(ctx) == hash(AdContext(suite, LABEL, FILESPACE, GENERATION))
    assert ctx != AdContext(suite, LABEL, FILESPACE, bytes(16))
    assert ctx != "something else"
    assert "test" in repr(ctx)


@given(st.binary(max_size=300))
def test_digests_are_blake2b(data: bytes) -> None:
    assert digest16(data) == hashlib.blake2b(data, digest_size=16).digest()
    assert digest32(data) == hashlib.blake2b(data, digest_size=32).digest()


def test_long_digests_are_blake2b() -> None:
    data = bytes(1_000_000)
    assert digest32(data) == hashlib.blake2b(data, digest_size=32).digest()


def test_a_slow_cipher_is_named_not_raised() -> None:
    ticks = iter(range(1000))
    slow = selftest(clock=lambda: float(next(ticks)))
    assert slow.warnings == (SLOW_AEGIS,)
    assert slow.aegis_gb_s < 0.2
    quick = iter(range(1000))
    fast = selftest(clock=lambda: next(quick) * 1e-5)
    assert fast.warnings == ()
