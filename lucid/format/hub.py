"""What goes over the wire between a device and a hub (FORMAT section 15).

Outside are frames, which the hub reads; inside of a sealed frame are hints and presences, which it
cannot. Pure; any thread. All decoders raise FormatError for whatever is not in the format.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lucid.errors import FormatError
from lucid.format.canonical import pack, unpack
from lucid.format.check import check_bytes, check_fields, check_id, check_int, check_label
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import (
    ID_SIZE,
    INT63_MAX,
    KEY_SIZE,
    SESSION_MAX,
    TIME_MAX,
    TIME_MIN,
    UINT32_MAX,
)

__all__ = [
    "HUB_MESSAGE_MAX",
    "HUB_VERSION",
    "KIND_HINT",
    "KIND_PRESENCE",
    "LOOK",
    "PATHS_MAX",
    "PATH_MAX",
    "WELCOME",
    "Answer",
    "Challenge",
    "Frame",
    "Hint",
    "Look",
    "Presence",
    "Sealed",
    "Welcome",
    "challenge_bytes",
    "decode_frame",
    "decode_hint",
    "decode_message",
    "decode_presence",
    "encode_frame",
    "encode_hint",
    "encode_message",
    "encode_presence",
    "signed_message",
]

HUB_VERSION = 1
"""The newest form of these messages that is known here."""
HUB_MESSAGE_MAX = 16 << 10
"""Bytes of one frame."""
PAD_TO = 512
"""A message is padded to a multiple of this before it is sealed: its size tells little."""
PATHS_MAX = 32
PATH_MAX = 256
"""Bytes of one path in a presence; of a longer one the end is told."""

KIND_HINT = 1
KIND_PRESENCE = 2

_NONCE_SIZE = 32
_SIGNATURE_SIZE = 64
_SEALED_MAX = HUB_MESSAGE_MAX - 64


class Challenge(NamedTuple):
    """The hub's first frame: what the device is to sign."""

    version: int
    nonce: bytes


class Answer(NamedTuple):
    """The device's first frame: the room's public key, and its signature of `challenge_bytes`."""

    room: bytes
    signature: bytes


class Welcome(NamedTuple):
    """The hub's answer to a right signature: the device is in the room."""


class Sealed(NamedTuple):
    """A message for all others in the room. Its key hangs on `object_id`."""

    object_id: bytes
    sealed: bytes


class Look(NamedTuple):
    """The hub was told that the store has changed. Nobody signed that."""


Frame = Challenge | Answer | Welcome | Sealed | Look

_FRAMES: tuple[type[Any], ...] = (Challenge, Answer, Welcome, Sealed, Look)
"""A frame's kind is its place here, from 1. Do not change their order."""

WELCOME = Welcome()
LOOK = Look()


class Hint(NamedTuple):
    """The log's head is at least `sequence`, and `hash` is that entry's."""

    time_ns: int
    sequence: int
    hash: bytes


class Presence(NamedTuple):
    """A device is there. `paths` are open for writing on it, `more` further ones too.

    `device` is random, made when the drive was opened; `number` goes up with each presence of it.
    `asks`: others should say that they are there too. `leaves`: it is going away.
    """

    time_ns: int
    device: bytes
    number: int
    session: int
    label: bytes
    asks: int
    leaves: int
    paths: tuple[bytes, ...]
    more: int


def encode_frame(frame: Frame) -> bytes:
    """One WebSocket message. Raises FormatError."""
    _check_frame(frame)
    return pack([_FRAMES.index(type(frame)) + 1, *frame])


def decode_frame(data: bytes) -> Frame:
    """The frame that encode_frame wrote."""
    if len(data) > HUB_MESSAGE_MAX:
        raise FormatError(f"A frame of the hub has more than {HUB_MESSAGE_MAX} bytes.")
    value = unpack(data)
    if type(value) is not list or not value:
        raise FormatError("A frame of the hub is not an array.")
    kind = _FRAMES[check_int(value[0], 1, len(_FRAMES), "The kind of a frame") - 1]
    frame: Frame = kind._make(check_fields(value[1:], len(kind._fields), "A frame of the hub"))
    _check_frame(frame)
    return frame


def _check_frame(frame: Frame) -> None:
    if isinstance(frame, Challenge):
        check_int(frame.version, 1, UINT32_MAX, "The version of the hub")
        check_bytes(frame.nonce, _NONCE_SIZE, "The hub's nonce")
    elif isinstance(frame, Answer):
        check_bytes(frame.room, KEY_SIZE, "The room's key")
        check_bytes(frame.signature, _SIGNATURE_SIZE, "The room's signature")
    elif isinstance(frame, Sealed):
        check_bytes(frame.object_id, KEY_SIZE, "The object id of a message")
        if type(frame.sealed) is not bytes or not 0 < len(frame.sealed) <= _SEALED_MAX:
            raise FormatError("A sealed message is empty or too long.")


def challenge_bytes(nonce: bytes) -> bytes:
    """What the room's key signs to enter."""
    return b"lucid room v1\0" + nonce


def signed_message(filespace: bytes, room: bytes, kind: int, payload: bytes) -> bytes:
    """What a member signs of a message."""
    head = b"lucid room message v1\0" + filespace + room
    return head + kind.to_bytes(2, "little") + payload


def encode_message(kind: int, member: bytes, payload: bytes, signature: bytes) -> bytes:
    """What is sealed: the message with its author and signature, padded."""
    plain = pack([kind, member, payload, signature, b""])
    return pack([kind, member, payload, signature, bytes(-len(plain) % PAD_TO)])


def decode_message(data: bytes) -> tuple[int, bytes, bytes, bytes]:
    """(kind, member, payload, signature)."""
    kind, member, payload, signature, padding = check_fields(unpack(data), 5, "A message")
    check_int(kind, 1, 0xFFFF, "The kind of a message")
    check_id(member, "The member of a message")
    check_bytes(signature, _SIGNATURE_SIZE, "The signature of a message")
    if type(payload) is not bytes or type(padding) is not bytes:
        raise FormatError("A part of a message is not bytes.")
    return kind, member, payload, signature


def encode_hint(hint: Hint) -> bytes:
    """The payload of a message of KIND_HINT. Raises FormatError."""
    _check_hint(hint)
    return pack(hint)


def decode_hint(payload: bytes) -> Hint:
    hint = Hint._make(check_fields(unpack(payload), len(Hint._fields), "A hint"))
    _check_hint(hint)
    return hint


def _check_hint(hint: Hint) -> None:
    check_int(hint.time_ns, TIME_MIN, TIME_MAX, "The time of a hint")
    check_int(hint.sequence, 1, INT63_MAX, "The sequence of a hint")
    check_bytes(hint.hash, HASH_SIZE, "The hash of a hint")


def encode_presence(presence: Presence) -> bytes:
    """The payload of a message of KIND_PRESENCE. Raises FormatError."""
    _check_presence(presence)
    return pack(presence)


def decode_presence(payload: bytes) -> Presence:
    fields = check_fields(unpack(payload), len(Presence._fields), "A presence")
    paths = fields[Presence._fields.index("paths")]
    if type(paths) is not list:
        raise FormatError("The paths of a presence are not an array.")
    presence = Presence._make(fields)._replace(paths=tuple(paths))
    _check_presence(presence)
    return presence


def _check_presence(presence: Presence) -> None:
    check_int(presence.time_ns, TIME_MIN, TIME_MAX, "The time of a presence")
    check_bytes(presence.device, ID_SIZE, "The device of a presence")
    check_int(presence.number, 1, INT63_MAX, "The number of a presence")
    check_int(presence.session, 0, SESSION_MAX, "The session of a presence")
    if type(presence.label) is not bytes:
        raise FormatError("The label of a presence is not bytes.")
    check_label(presence.label)
    check_int(presence.asks, 0, 1, "A flag of a presence")
    check_int(presence.leaves, 0, 1, "A flag of a presence")
    check_int(presence.more, 0, UINT32_MAX, "A number of paths")
    if len(presence.paths) > PATHS_MAX:
        raise FormatError(f"A presence names at most {PATHS_MAX} paths.")
    for path in presence.paths:
        if type(path) is not bytes or not 0 < len(path) <= PATH_MAX:
            raise FormatError(f"A path of a presence has 1 to {PATH_MAX} bytes.")
