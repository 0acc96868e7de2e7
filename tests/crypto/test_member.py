"""A member's keys: signatures and boxes."""

from __future__ import annotations

import pytest
from nacl import bindings

from lucid.crypto.member import MemberKeys, box_for, verify
from lucid.errors import CorruptObject, KeyringError
from tests.crypto.reference import fixed_entropy


@pytest.fixture
def keys() -> MemberKeys:
    return MemberKeys.create(fixed_entropy(b"member"))


def test_a_signature_is_ed25519_and_never_changes() -> None:
    """RFC 8032, section 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    keys = MemberKeys(b"m" * 16, seed, b"b" * 32)
    assert keys.sign_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert keys.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_signature_is_over_these_bytes_by_this_member(keys: MemberKeys) -> None:
    signature = keys.sign(b"text")
    assert verify(keys.sign_key, signature, b"text")
    assert not verify(keys.sign_key, signature, b"texT")
    assert not verify(keys.sign_key, signature, b"")
    assert not verify(MemberKeys.create(fixed_entropy(b"other")).sign_key, signature, b"text")
    for at in range(64):
        altered = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        assert not verify(keys.sign_key, altered, b"text")


@pytest.mark.parametrize("key", [b"", b"x" * 31, bytes(32), b"\xff" * 32])
def test_a_key_that_is_none_verifies_nothing(keys: MemberKeys, key: bytes) -> None:
    assert not verify(key, keys.sign(b"text"), b"text")
    assert not verify(keys.sign_key, keys.sign(b"text")[:-1], b"text")


def test_libsodium_opens_our_box_and_we_open_its(keys: MemberKeys) -> None:
    box = box_for(keys.box_key, b"secret", fixed_entropy(b"box"))
    _, secret = keys.secrets()
    assert bindings.crypto_box_seal_open(box, keys.box_key, secret) == b"secret"
    assert keys.unbox(bindings.crypto_box_seal(b"secret", keys.box_key)) == b"secret"
    assert keys.unbox(box) == b"secret"


def test_a_box_is_for_one_member(keys: MemberKeys) -> None:
    box = box_for(keys.box_key, b"secret", fixed_entropy(b"box"))
    other = MemberKeys.create(fixed_entropy(b"other"))
    with pytest.raises(CorruptObject):
        other.unbox(box)
    for bad in (b"", box[:-1], box[:40], box + b"\0", bytes(len(box))):
        with pytest.raises(CorruptObject):
            keys.unbox(bad)


def test_a_box_key_that_is_none_is_refused() -> None:
    with pytest.raises(CorruptObject):
        box_for(bytes(32), b"secret", fixed_entropy(b"box"))


def test_closed_keys_are_gone(keys: MemberKeys) -> None:
    with keys:
        keys.sign(b"text")
    keys.close()
    for use in (lambda: keys.sign(b""), lambda: keys.unbox(b""), keys.secrets):
        with pytest.raises(KeyringError):
            use()
    held = [value for value in vars(keys).values() if isinstance(value, bytearray)]
    assert len(held) == 3
    assert not any(map(any, held))


def test_secrets_are_not_shown(keys: MemberKeys) -> None:
    seed, secret = keys.secrets()
    assert seed.hex() not in repr(keys)
    assert secret.hex() not in repr(keys)


@pytest.mark.parametrize(("a", "b", "c"), [(15, 32, 32), (16, 31, 32), (16, 32, 33)])
def test_keys_of_another_length_are_refused(a: int, b: int, c: int) -> None:
    with pytest.raises(KeyringError):
        MemberKeys(bytes(a), bytes(b), bytes(c))
