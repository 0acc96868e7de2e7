"""The two suites, through the engine, or through PyNaCl where the engine is not built.

Both give the same bytes. Owns nothing; any thread. The engine lets go of the GIL.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from nacl import bindings
from nacl.exceptions import CryptoError

from lucid.errors import CorruptObject, UnsupportedFormat
from lucid.format.limits import FORMAT_VERSION
from lucid.format.superblock import SUITE_AEGIS256, SUITE_XCHACHA20

try:
    from lucid.engine import sodium
    from lucid.engine.errors import CorruptBlock as _SealBroken
except ImportError:  # the engine is not built: the suites hold the GIL, their bytes are the same
    _HAS_ENGINE = False
else:
    _HAS_ENGINE = True

__all__ = [
    "AD_SIZE",
    "Place",
    "associated_data",
    "check_suite",
    "open_object",
    "seal_object",
    "tag_size",
]

_AD = struct.Struct("<4sHH16s16s32sQII")
AD_SIZE = _AD.size
_TAGS = {SUITE_AEGIS256: 32, SUITE_XCHACHA20: 16}


class Place(NamedTuple):
    """Where a sealed thing belongs; all of it is associated data. `tag` has 4 bytes."""

    tag: bytes
    suite: int
    filespace: bytes
    generation: bytes
    object_id: bytes
    ordinal: int = 0
    flags: int = 0


def check_suite(suite: int) -> int:
    """`suite` if it is known. Raises UnsupportedFormat."""
    if suite not in _TAGS:
        raise UnsupportedFormat(
            f"Something is sealed with suite {suite}, which this version of lucid does not know."
            " Install a newer one."
        )
    return suite


def tag_size(suite: int) -> int:
    """Bytes that sealing adds. Raises UnsupportedFormat."""
    return _TAGS[check_suite(suite)]


def associated_data(place: Place, plain_len: int) -> bytes:
    """The 88 bytes of FORMAT section 3."""
    return _AD.pack(place.tag, FORMAT_VERSION, *place[1:], plain_len)


def seal_object(key: bytes, place: Place, data: bytes) -> bytes:
    """Ciphertext and tag. A key and ordinal must never seal two different texts."""
    check_suite(place.suite)
    if _HAS_ENGINE:
        context = sodium.AdContext(place.suite, place.tag, place.filespace, place.generation)
        return sodium.seal(context, place.object_id, key, place.ordinal, place.flags, data)
    return seal_with_bindings(key, place, data)


def open_object(key: bytes, place: Place, sealed: bytes) -> bytes:
    """What seal_object sealed. Raises CorruptObject, with no hint which part was wrong."""
    check_suite(place.suite)
    if not _HAS_ENGINE:
        return open_with_bindings(key, place, sealed)
    context = sodium.AdContext(place.suite, place.tag, place.filespace, place.generation)
    try:
        return sodium.open_(context, place.object_id, key, place.ordinal, place.flags, sealed)
    except _SealBroken as error:
        raise CorruptObject() from error


def seal_with_bindings(key: bytes, place: Place, data: bytes) -> bytes:
    """seal_object without the engine."""
    ad = associated_data(place, len(data))
    sealed: bytes
    if place.suite == SUITE_AEGIS256:
        sealed = bindings.crypto_aead_aegis256_encrypt(data, ad, _nonce(place.ordinal, 32), key)
    else:
        nonce = _nonce(place.ordinal, 24)
        sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(data, ad, nonce, key)
    return sealed


def open_with_bindings(key: bytes, place: Place, sealed: bytes) -> bytes:
    """open_object without the engine."""
    plain_len = len(sealed) - _TAGS[place.suite]
    if plain_len < 0:
        raise CorruptObject()
    ad = associated_data(place, plain_len)
    opened: bytes
    try:
        if place.suite == SUITE_AEGIS256:
            nonce = _nonce(place.ordinal, 32)
            opened = bindings.crypto_aead_aegis256_decrypt(sealed, ad, nonce, key)
        else:
            nonce = _nonce(place.ordinal, 24)
            opened = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, ad, nonce, key)
    except CryptoError as error:
        raise CorruptObject() from error
    return opened


def _nonce(ordinal: int, size: int) -> bytes:
    return ordinal.to_bytes(8, "little") + bytes(size - 8)
