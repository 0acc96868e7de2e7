"""Entries: what opens, what is void and why, and when a client stops instead."""

from __future__ import annotations

import pytest

from lucid.crypto.aead import Place
from lucid.crypto.entry import OpenedEntry, VoidEntry, VoidReason, open_entry, seal_entry
from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys
from lucid.crypto.sealing import TAG_ENTRY, seal_object
from lucid.errors import FormatError, UnknownKey, UnsupportedFormat
from lucid.format import limits
from lucid.format.canonical import pack, unpack
from lucid.format.entry import (
    HEADER_SIZE,
    EntryBody,
    EntryHeader,
    encode_body,
    encode_header,
    signed_bytes,
)
from lucid.format.hashes import ZERO_HASH, hash_bytes
from lucid.format.ops import RULES, Drop, Setxattr
from tests.crypto.reference import fixed_entropy
from tests.format import values
from tests.format.values import TIME_NS

FILESPACE, GENERATION, KEY = b"f" * 16, b"g" * 16, b"k" * 32
KEYS = MemberKeys.create(fixed_entropy(b"member"))
BODY = values.BODY._replace(member=KEYS.member)
SIGNERS = {KEYS.member: KEYS.sign_key}
SEQUENCE = 9


def key_ring(suite: int = 1) -> KeyRing:
    ring = KeyRing(FILESPACE, suite)
    ring.add(GENERATION, KEY)
    return ring


RING = key_ring()


def sealed(body: EntryBody = BODY, ring: KeyRing = RING, sequence: int = SEQUENCE) -> bytes:
    return seal_entry(ring, KEYS, GENERATION, sequence, body, fixed_entropy(b"entry"))


def opened(data: bytes, sequence: int = SEQUENCE) -> OpenedEntry | VoidEntry:
    return open_entry(data, sequence, RING, GENERATION, SIGNERS.get)


def reason(data: bytes, sequence: int = SEQUENCE) -> VoidReason:
    entry = opened(data, sequence)
    assert isinstance(entry, VoidEntry)
    assert entry.hash == hash_bytes(data)
    assert entry.sequence == sequence
    assert entry.detail
    return entry.reason


def sealed_by_hand(
    packed: bytes, keys: MemberKeys = KEYS, sequence: int = SEQUENCE, signature: bytes = b""
) -> bytes:
    """An entry with any text under the right key: what a member with a fault could put."""
    header = EntryHeader(1, GENERATION, b"o" * 32)
    clear = encode_header(header)
    signature = signature or keys.sign(signed_bytes(FILESPACE, sequence, clear, packed))
    place = Place(TAG_ENTRY, 1, FILESPACE, GENERATION, header.object_id)
    key = RING.log_key(header.object_id, GENERATION)
    return clear + seal_object(key, place, packed + signature)


@pytest.mark.parametrize("suite", [1, 2])
def test_it_opens(suite: int) -> None:
    ring = key_ring(suite)
    data = sealed(ring=ring)
    entry = open_entry(data, SEQUENCE, ring, GENERATION, SIGNERS.get)
    assert entry == OpenedEntry(SEQUENCE, hash_bytes(data), BODY)


def test_only_the_header_is_clear() -> None:
    data = sealed()
    assert data[:HEADER_SIZE].startswith(b"LUCIDLE1")
    for hidden in (b"report.txt", KEYS.member, b"user.a"):
        assert hidden not in data


def test_each_try_has_its_own_key() -> None:
    entropy = fixed_entropy(b"tries")
    first, second = (seal_entry(RING, KEYS, GENERATION, 9, BODY, entropy) for _ in range(2))
    assert first[28:60] != second[28:60]
    assert first[60:92] != second[60:92]


def test_sealed_by_hand_is_what_seal_entry_makes() -> None:
    assert isinstance(opened(sealed_by_hand(encode_body(BODY))), OpenedEntry)


def test_a_large_object_is_void() -> None:
    assert reason(sealed() + bytes(limits.ENTRY_MAX)) is VoidReason.SIZE


@pytest.mark.parametrize("data", [b"", b"junk", b"x" * 100])
def test_junk_is_void(data: bytes) -> None:
    assert reason(data) is VoidReason.FORMAT


def test_another_format_is_void() -> None:
    """Whoever can write to the bucket can put this; under rules 1 there is no other format."""
    data = sealed()
    assert reason(data[:8] + b"\2\0" + data[10:]) is VoidReason.FORMAT


def test_any_altered_byte_is_void() -> None:
    data = sealed(BODY._replace(ops=BODY.ops[10:11], segments=()))
    for at in range(len(data)):
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert reason(altered) in (VoidReason.FORMAT, VoidReason.SEAL)
    for cut in (0, HEADER_SIZE, HEADER_SIZE + 10, len(data) - 1):
        assert reason(data[:cut]) in (VoidReason.FORMAT, VoidReason.SEAL)


def test_another_place_in_the_log_is_void() -> None:
    assert reason(sealed(), SEQUENCE + 1) is VoidReason.SIGNATURE


def test_an_entry_of_another_filespace_is_void() -> None:
    ring = KeyRing(b"F" * 16, 1)
    ring.add(GENERATION, KEY)
    assert reason(sealed(ring=ring)) is VoidReason.SEAL


def test_another_suite_is_void() -> None:
    assert reason(sealed(ring=key_ring(2))) is VoidReason.SEAL


def test_another_generation_than_that_of_the_state_is_void() -> None:
    ring = key_ring()
    ring.add(b"h" * 16, b"x" * 32)
    data = seal_entry(ring, KEYS, b"h" * 16, SEQUENCE, BODY, fixed_entropy(b"entry"))
    entry = open_entry(data, SEQUENCE, ring, GENERATION, SIGNERS.get)
    assert isinstance(entry, VoidEntry)
    assert entry.reason is VoidReason.SEAL


@pytest.mark.parametrize("data", [b"junk", sealed(), bytes(limits.ENTRY_MAX + 1)])
def test_who_lacks_the_key_stops_and_calls_nothing_void(data: bytes) -> None:
    with pytest.raises(UnknownKey):
        open_entry(data, SEQUENCE, KeyRing(FILESPACE, 1), GENERATION, SIGNERS.get)


def test_a_signer_who_is_no_member_is_void() -> None:
    entry = open_entry(sealed(), SEQUENCE, RING, GENERATION, {}.get)
    assert isinstance(entry, VoidEntry)
    assert entry.reason is VoidReason.SIGNER


def test_who_signs_for_another_member_is_void() -> None:
    other = MemberKeys.create(fixed_entropy(b"other"))
    assert reason(sealed_by_hand(encode_body(BODY), other)) is VoidReason.SIGNATURE
    assert reason(sealed_by_hand(encode_body(BODY), signature=bytes(64))) is VoidReason.SIGNATURE


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x90",
        b"\xc3",
        encode_body(BODY) + b"\0",
        encode_body(BODY._replace(session=4)),
        encode_body(BODY._replace(ops=values.EVERY_OP[:1])),
        encode_body(BODY._replace(session=0)),
    ],
)
def test_a_body_out_of_form_is_void(packed: bytes) -> None:
    assert reason(sealed_by_hand(packed)) is VoidReason.FORMAT


def test_who_does_not_know_the_rules_of_genesis_stops() -> None:
    first = BODY._replace(session=0, session_previous=ZERO_HASH, segments=(), ops=(values.GENESIS,))
    fields = unpack(encode_body(first))
    fields[7][0][4] = RULES + 1
    packed = pack(fields)
    with pytest.raises(UnsupportedFormat, match=f"rules {RULES + 1}"):
        opened(sealed_by_hand(packed, sequence=1), 1)
    assert reason(sealed_by_hand(packed)) is VoidReason.FORMAT


def test_less_than_a_signature_is_void() -> None:
    header = EntryHeader(1, GENERATION, b"o" * 32)
    place = Place(TAG_ENTRY, 1, FILESPACE, GENERATION, header.object_id)
    key = RING.log_key(header.object_id, GENERATION)
    data = encode_header(header) + seal_object(key, place, b"x" * 20)
    assert reason(data) is VoidReason.FORMAT


def test_an_author_keeps_to_the_limits() -> None:
    drop = Drop(values.op_id(1), TIME_NS, values.op_id(2))
    plain = BODY._replace(segments=())
    assert sealed(plain._replace(ops=(drop,) * limits.AUTHOR_OPS_MAX))
    large = Setxattr(values.op_id(1), TIME_NS, 1, b"user.x", b"x" * 65_536)
    for ops in ((drop,) * (limits.AUTHOR_OPS_MAX + 1), (large,) * 65):
        with pytest.raises(FormatError, match="author"):
            sealed(plain._replace(ops=ops))


def test_an_author_does_not_write_what_would_be_void() -> None:
    with pytest.raises(FormatError):
        sealed(BODY._replace(session=4))
    with pytest.raises(FormatError, match="signed"):
        sealed(BODY._replace(member=b"x" * 16))
    with pytest.raises(FormatError):
        sealed(sequence=1)
