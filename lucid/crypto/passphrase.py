"""Key slots: a member's secret keys under a passphrase or recovery code (FORMAT section 5).

Opening one costs what Argon2id costs, on purpose: a good part of a second and its memory. The GIL
is free meanwhile. Any thread.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from nacl import bindings
from nacl.exceptions import RuntimeError as SodiumFailed

from lucid.crypto.recovery import format_recovery_code, parse_recovery_code
from lucid.crypto.sealing import (
    NO_GENERATION,
    TAG_SLOT,
    Place,
    open_object,
    seal_object,
    slot_key,
)
from lucid.errors import CorruptObject, KeyringError, UsageError, WrongPassphrase
from lucid.format.limits import SEGMENT_ID_SIZE
from lucid.format.member import (
    RECOVERY_SIZE,
    SALT_SIZE,
    SLOT_PASSPHRASE,
    SLOT_RECOVERY,
    Slot,
    SlotSecret,
    check_slot_limits,
    decode_slot_secret,
    encode_slot_secret,
)
from lucid.types import Entropy

__all__ = [
    "DEFAULT_STRETCH",
    "SlotBinding",
    "Stretch",
    "format_recovery_code",
    "make_recovery_secret",
    "make_slot",
    "open_slot",
    "parse_recovery_code",
    "passphrase_bytes",
    "slot_name",
]

_SLOT_NAMES = {SLOT_PASSPHRASE: "passphrase", SLOT_RECOVERY: "recovery code"}


class Stretch(NamedTuple):
    """How much work a guess costs: passes of Argon2id, and its memory in bytes."""

    opslimit: int
    memlimit: int


DEFAULT_STRETCH = Stretch(3, 64 << 20)


class SlotBinding(NamedTuple):
    """What a slot belongs to; another filespace or another founder does not open it."""

    filespace: bytes
    superblock_hash: bytes
    founder_sign_key: bytes
    member: bytes


def slot_name(kind: int) -> str:
    """What a user calls a slot of this kind."""
    return _SLOT_NAMES.get(kind, f"slot of kind {kind}")


def passphrase_bytes(text: str) -> bytes:
    """The secret of a passphrase: UTF-8 in NFC, so that each keyboard gives the same bytes.

    Raises UsageError for an empty one.
    """
    if not text:
        raise UsageError("The passphrase is empty. Choose one of several words.")
    try:
        return unicodedata.normalize("NFC", text).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("The passphrase is not valid text.") from error


def make_recovery_secret(entropy: Entropy) -> bytes:
    """160 random bits; `format_recovery_code` prints them."""
    return entropy(RECOVERY_SIZE)


def make_slot(
    kind: int,
    secret: bytes,
    content: SlotSecret,
    suite: int,
    entropy: Entropy,
    stretch: Stretch = DEFAULT_STRETCH,
) -> Slot:
    """A new slot that holds `content`. Raises FormatError for limits that are refused."""
    salt, object_id = entropy(SALT_SIZE), entropy(SEGMENT_ID_SIZE)
    key = _key(kind, secret, salt, stretch, SlotBinding(*content[:4]), object_id)
    place = _place(suite, content.filespace, object_id)
    sealed = seal_object(key, place, encode_slot_secret(content))
    return Slot(kind, salt, stretch.opslimit, stretch.memlimit, suite, object_id, sealed)


def open_slot(slot: Slot, secret: bytes, binding: SlotBinding) -> SlotSecret:
    """What the slot holds.

    Raises WrongPassphrase if it does not open, which another superblock brings about as well, and
    CorruptObject if what it holds belongs to something else.
    """
    stretch = Stretch(slot.opslimit, slot.memlimit)
    key = _key(slot.kind, secret, slot.salt, stretch, binding, slot.object_id)
    try:
        data = open_object(key, _place(slot.suite, binding.filespace, slot.object_id), slot.sealed)
    except CorruptObject as error:
        raise WrongPassphrase(f"Wrong {slot_name(slot.kind)}.") from error
    content = decode_slot_secret(data)
    if SlotBinding(*content[:4]) != binding:
        raise CorruptObject(
            "The key slot belongs to another filespace or member: the store shows objects that do"
            " not belong together."
        )
    return content


def _place(suite: int, filespace: bytes, object_id: bytes) -> Place:
    return Place(TAG_SLOT, suite, filespace, NO_GENERATION, object_id)


def _key(
    kind: int, secret: bytes, salt: bytes, stretch: Stretch, binding: SlotBinding, object_id: bytes
) -> bytes:
    # Checked first: limits come from the store, and a terabyte of memory would be an attack.
    check_slot_limits(*stretch)
    try:
        stretched = bindings.crypto_pwhash_alg(
            32, secret, salt, stretch.opslimit, stretch.memlimit,
            bindings.crypto_pwhash_ALG_ARGON2ID13,
        )  # fmt: skip
    except SodiumFailed as error:
        raise KeyringError(
            f"There is not enough memory to open the key slot: it needs {stretch.memlimit >> 20}"
            " MiB."
        ) from error
    return slot_key(stretched, kind, b"".join(binding), object_id)
