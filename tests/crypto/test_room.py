"""The room of a generation: its keys stay what they are, and who has them not does not enter."""

from __future__ import annotations

import pytest

from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys
from lucid.crypto.room import Room, may_enter
from lucid.errors import CorruptObject, UnknownKey
from lucid.format.hub import KIND_HINT

FILESPACE, GENERATION = b"\x11" * 16, b"\x22" * 16
KEY = bytes(range(32))
NAMES = {
    1: "a6510e885f1818d43aa039ec391eeba3fe2a00f0c8e7fbc14f9def4b87c8692a",
    2: "5e6f78faf975dd3c1da7c5735a9f373b515c527a30a233d486399a5d5c001b2e",
}
NONCE = b"n" * 32


def ring(suite: int = 1, key: bytes = KEY, filespace: bytes = FILESPACE) -> KeyRing:
    made = KeyRing(filespace, suite)
    made.add(GENERATION, key)
    return made


def zeros(size: int) -> bytes:
    return bytes(size)


@pytest.mark.parametrize("suite", [1, 2])
def test_the_name_of_a_room_stays(suite: int) -> None:
    assert Room(ring(suite), GENERATION).name.hex() == NAMES[suite]


def test_who_has_the_key_enters() -> None:
    room, other = Room(ring(), GENERATION), Room(ring(key=bytes(32)), GENERATION)
    answer = room.answer(NONCE)
    assert may_enter(answer, NONCE)
    assert not may_enter(answer, b"m" * 32)
    assert not may_enter(answer._replace(room=other.name), NONCE)
    assert not may_enter(answer._replace(signature=bytes(64)), NONCE)
    with pytest.raises(UnknownKey):
        Room(ring(), b"\x33" * 16)


@pytest.mark.parametrize("suite", [1, 2])
def test_a_message_is_bound_to_its_place(suite: int) -> None:
    member = MemberKeys(b"m" * 16, b"s" * 32, b"b" * 32)
    message = Room(ring(suite), GENERATION).seal(member, KIND_HINT, b"payload", zeros)
    again = Room(ring(suite), GENERATION)
    opened = again.open(message, {member.member: member.sign_key}.get)
    assert opened == (KIND_HINT, member.member, b"payload")
    elsewhere = [
        Room(ring(3 - suite), GENERATION),
        Room(ring(suite, key=b"x" * 32), GENERATION),
        Room(ring(suite, filespace=b"o" * 16), GENERATION),
    ]
    for room in elsewhere:
        with pytest.raises(CorruptObject):
            room.open(message, {member.member: member.sign_key}.get)
    with pytest.raises(CorruptObject):
        again.open(message._replace(object_id=b"o" * 32), {member.member: member.sign_key}.get)


def test_a_closed_room_has_no_keys() -> None:
    room = Room(ring(), GENERATION)
    right = room.answer(NONCE)
    room.close()
    room.close()
    assert room._seal_root == bytes(32)
    assert not may_enter(room.answer(NONCE), NONCE)
    assert may_enter(right, NONCE)
