"""The room of a generation: how devices of one filespace meet at a hub that knows no secret
(FORMAT section 15).

From the generation's key follow a signing pair and a root of seal keys. The public half is the
room's name at the hub; who signs the hub's challenge with the other half may enter. Messages are
sealed, and signed by the member inside. Any thread; no lock is held.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from nacl import bindings

from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys, verify
from lucid.crypto.sealing import (
    LABEL_ROOM,
    TAG_ROOM,
    Place,
    object_key,
    open_object,
    seal_object,
)
from lucid.errors import CorruptObject
from lucid.format.hub import (
    Answer,
    Sealed,
    challenge_bytes,
    decode_message,
    encode_message,
    signed_message,
)
from lucid.format.limits import KEY_SIZE
from lucid.types import Entropy

__all__ = ["Opened", "Room", "may_enter"]


class Opened(NamedTuple):
    """A message whose seal and signature are right."""

    kind: int
    member: bytes
    payload: bytes


class Room:
    """One generation's room, seen from a device of it. `name` is its public key."""

    def __init__(self, ring: KeyRing, generation: bytes) -> None:
        """Raises UnknownKey without the generation's key."""
        label = ring.label_key(LABEL_ROOM, generation)
        public, secret = bindings.crypto_sign_seed_keypair(_derive(label, b"lucid room sign"))
        self.name: bytes = public
        self._sign_secret = bytearray(secret)
        self._seal_root = bytearray(_derive(label, b"lucid room seal"))
        self._suite, self._filespace, self._generation = ring.suite, ring.filespace, generation

    def answer(self, nonce: bytes) -> Answer:
        """What opens the room at the hub that sent this nonce."""
        signed: bytes = bindings.crypto_sign(challenge_bytes(nonce), bytes(self._sign_secret))
        return Answer(self.name, signed[:64])

    def seal(self, keys: MemberKeys, kind: int, payload: bytes, entropy: Entropy) -> Sealed:
        """A message of this member to the room, under a key of its own."""
        signature = keys.sign(signed_message(self._filespace, self.name, kind, payload))
        plain = encode_message(kind, keys.member, payload, signature)
        object_id = entropy(KEY_SIZE)
        key = object_key(bytes(self._seal_root), object_id)
        return Sealed(object_id, seal_object(key, self._place(object_id), plain))

    def open(self, sealed: Sealed, sign_key_of: Callable[[bytes], bytes | None]) -> Opened:
        """What somebody sealed. Raises CorruptObject or FormatError for anything that no member
        has said in this room."""
        key = object_key(bytes(self._seal_root), sealed.object_id)
        plain = open_object(key, self._place(sealed.object_id), sealed.sealed)
        kind, member, payload, signature = decode_message(plain)
        sign_key = sign_key_of(member)
        signed = signed_message(self._filespace, self.name, kind, payload)
        if sign_key is None or not verify(sign_key, signature, signed):
            raise CorruptObject("A message from the hub is signed by no member.")
        return Opened(kind, member, payload)

    def close(self) -> None:
        """Wipes the keys. May be called again."""
        for key in (self._sign_secret, self._seal_root):
            key[:] = bytes(len(key))

    def _place(self, object_id: bytes) -> Place:
        return Place(TAG_ROOM, self._suite, self._filespace, self._generation, object_id)


def may_enter(answer: Answer, nonce: bytes) -> bool:
    """Whether the answer to this nonce is by who holds the room's key. For the hub."""
    return verify(answer.room, answer.signature, challenge_bytes(nonce))


def _derive(label: bytes, person: bytes) -> bytes:
    return blake2b(b"", digest_size=KEY_SIZE, key=label, person=person).digest()
