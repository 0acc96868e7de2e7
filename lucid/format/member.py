"""A member's record with its key slots, and what a slot holds (FORMAT section 5).

Bytes and limits only; stretching and sealing are `lucid.crypto`'s. Pure; any thread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.canonical import pack, unpack
from lucid.format.check import check_bytes, check_fields, check_id, check_int, check_version
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import FORMAT_VERSION, INT63_MAX, KEY_SIZE, SEGMENT_ID_SIZE

__all__ = [
    "MEMLIMIT_MAX",
    "MEMLIMIT_MIN",
    "OPSLIMIT_MAX",
    "OPSLIMIT_MIN",
    "RECOVERY_SIZE",
    "SALT_SIZE",
    "SLOT_PASSPHRASE",
    "SLOT_RECOVERY",
    "MemberRecord",
    "Slot",
    "SlotSecret",
    "check_slot_limits",
    "decode_member_record",
    "decode_slot_secret",
    "encode_member_record",
    "encode_slot_secret",
]

MAGIC = b"LUCIDMB1"
_OBJECT_MAX = 1 << 16
_SLOTS_MAX = 8
_SEALED_MAX = 1024

# Kinds of a slot. Stored for ever: do not renumber.
SLOT_PASSPHRASE = 1
SLOT_RECOVERY = 2
_KINDS = (SLOT_PASSPHRASE, SLOT_RECOVERY)

SALT_SIZE = 16
RECOVERY_SIZE = 20
"""Bytes of a recovery code's secret."""

MEMLIMIT_MIN = 64 << 20
MEMLIMIT_MAX = 1 << 30
OPSLIMIT_MIN = 1
OPSLIMIT_MAX = 16


class Slot(NamedTuple):
    """The member's secret keys, sealed under a stretched secret. `memlimit` is in bytes."""

    kind: int
    salt: bytes
    opslimit: int
    memlimit: int
    suite: int
    object_id: bytes
    sealed: bytes


class MemberRecord(NamedTuple):
    """Record `number` of a member. Its public keys are believed only as the log has them."""

    filespace: bytes
    member: bytes
    number: int
    sign_key: bytes
    box_key: bytes
    slots: tuple[Slot, ...]


class SlotSecret(NamedTuple):
    """The plaintext of a slot; whoever opens it compares the first four."""

    filespace: bytes
    superblock_hash: bytes
    founder_sign_key: bytes
    member: bytes
    sign_seed: bytes
    box_secret: bytes


def encode_member_record(record: MemberRecord) -> bytes:
    """The whole object. Raises FormatError, UnsupportedFormat."""
    _check_record(record)
    return MAGIC + pack([FORMAT_VERSION, *record])


def decode_member_record(data: bytes) -> MemberRecord:
    """The record that encode_member_record wrote.

    Raises FormatError; UnsupportedFormat for a format or slot kind that is not known.
    """
    if not data.startswith(MAGIC) or len(data) > _OBJECT_MAX:
        raise FormatError("A member record does not begin as one, or is too long.")
    value = unpack(data[len(MAGIC) :])
    if type(value) is not list or not value:
        raise FormatError("A member record is not an array.")
    check_version(value[0], "A member record")
    fields: list[Any] = check_fields(value, 7, "A member record")[1:]
    if type(fields[5]) is not list:
        raise FormatError("The slots of a member record are not an array.")
    fields[5] = tuple(Slot._make(check_fields(slot, 7, "A slot")) for slot in fields[5])
    record = MemberRecord._make(fields)
    _check_record(record)
    return record


def check_slot_limits(opslimit: int, memlimit: int) -> None:
    """Raises FormatError for Argon2id limits that are refused before any work is done."""
    check_int(opslimit, OPSLIMIT_MIN, OPSLIMIT_MAX, "The opslimit of a slot")
    check_int(memlimit, MEMLIMIT_MIN, MEMLIMIT_MAX, "The memlimit of a slot")


def encode_slot_secret(secret: SlotSecret) -> bytes:
    """The slot's plaintext. Raises FormatError."""
    _check_secret(secret)
    return pack(secret)


def decode_slot_secret(data: bytes) -> SlotSecret:
    """The parts that encode_slot_secret wrote. Raises FormatError."""
    secret = SlotSecret._make(check_fields(unpack(data), 6, "The content of a slot"))
    _check_secret(secret)
    return secret


def _check_record(record: MemberRecord) -> None:
    check_id(record.filespace, "The filespace of a member record")
    check_id(record.member, "The member of a member record")
    check_int(record.number, 1, INT63_MAX, "The number of a member record")
    check_bytes(record.sign_key, KEY_SIZE, "The signing key of a member record")
    check_bytes(record.box_key, KEY_SIZE, "The box key of a member record")
    if not 0 < len(record.slots) <= _SLOTS_MAX:
        raise FormatError(f"A member record has 1 to {_SLOTS_MAX} slots.")
    for slot in record.slots:
        _check_slot(slot)


def _check_slot(slot: Slot) -> None:
    check_int(slot.kind, 0, 0xFFFF, "The kind of a slot")
    if slot.kind not in _KINDS:
        raise UnsupportedFormat(
            f"A member record has a slot of kind {slot.kind}, which this version of lucid does not"
            " know. Install a newer one."
        )
    check_bytes(slot.salt, SALT_SIZE, "The salt of a slot")
    check_slot_limits(slot.opslimit, slot.memlimit)
    check_int(slot.suite, 0, 0xFFFF, "The suite of a slot")
    check_bytes(slot.object_id, SEGMENT_ID_SIZE, "The object id of a slot")
    if type(slot.sealed) is not bytes or not 0 < len(slot.sealed) <= _SEALED_MAX:
        raise FormatError("The content of a slot is empty or too long.")


def _check_secret(secret: SlotSecret) -> None:
    check_id(secret.filespace, "The filespace of a slot")
    check_bytes(secret.superblock_hash, HASH_SIZE, "The superblock hash of a slot")
    check_bytes(secret.founder_sign_key, KEY_SIZE, "The founder's key of a slot")
    check_id(secret.member, "The member of a slot")
    check_bytes(secret.sign_seed, KEY_SIZE, "The signing seed of a slot")
    check_bytes(secret.box_secret, KEY_SIZE, "The box secret of a slot")
