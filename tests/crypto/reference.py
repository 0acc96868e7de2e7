"""The sealing of FORMAT section 3 a second time, in plain Python over PyNaCl's bindings.

Nothing is shared with the code under test, so that both would have to be wrong in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from nacl import bindings

AEGIS256, XCHACHA20 = 1, 2


def label_key(root: bytes, label: bytes, suite: int, generation: bytes) -> bytes:
    data = label + b"\0" + suite.to_bytes(2, "little") + generation
    person = b"lucid label key" + b"\0"
    return blake2b(data, digest_size=32, key=root, person=person).digest()


def object_key(label: bytes, object_id: bytes) -> bytes:
    return blake2b(object_id, digest_size=32, key=label, person=b"lucid object key").digest()


def associated_data(
    tag: bytes,
    suite: int,
    filespace: bytes,
    generation: bytes,
    object_id: bytes,
    ordinal: int,
    flags: int,
    plain_len: int,
) -> bytes:
    data = tag + (1).to_bytes(2, "little") + suite.to_bytes(2, "little")
    data += filespace + generation + object_id
    data += ordinal.to_bytes(8, "little") + flags.to_bytes(4, "little")
    data += plain_len.to_bytes(4, "little")
    assert len(data) == 88
    return data


def seal(suite: int, key: bytes, ad: bytes, ordinal: int, data: bytes) -> bytes:
    if suite == AEGIS256:
        nonce = ordinal.to_bytes(8, "little") + bytes(24)
        sealed: bytes = bindings.crypto_aead_aegis256_encrypt(data, ad, nonce, key)
        return sealed
    nonce = ordinal.to_bytes(8, "little") + bytes(16)
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(data, ad, nonce, key)
    return sealed


def open_sealed(suite: int, key: bytes, ad: bytes, ordinal: int, sealed: bytes) -> bytes:
    """Raises CryptoError."""
    if suite == AEGIS256:
        nonce = ordinal.to_bytes(8, "little") + bytes(24)
        opened: bytes = bindings.crypto_aead_aegis256_decrypt(sealed, ad, nonce, key)
        return opened
    nonce = ordinal.to_bytes(8, "little") + bytes(16)
    opened = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, ad, nonce, key)
    return opened


def fixed_entropy(seed: bytes) -> Callable[[int], bytes]:
    """Random bytes that are the same in each run and never twice in one."""
    count = 0

    def take(size: int) -> bytes:
        nonlocal count
        count += 1
        return blake2b(seed + count.to_bytes(8, "little"), digest_size=size).digest()

    return take
