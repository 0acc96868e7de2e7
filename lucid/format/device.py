"""The device file of a state directory, and the box in it (FORMAT section 10.1).

Bytes only; the box is made and opened in `lucid.crypto`. Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.errors import FormatError
from lucid.format.canonical import pack, unpack
from lucid.format.check import check_bytes, check_fields, check_id, check_version
from lucid.format.hashes import HASH_SIZE
from lucid.format.limits import FORMAT_VERSION, KEY_SIZE

__all__ = [
    "Device",
    "DeviceSecret",
    "decode_device",
    "decode_device_secret",
    "encode_device",
    "encode_device_secret",
]

MAGIC = b"LUCIDDV1"
_FILE_MAX = 1 << 18
_PART_MAX = 1 << 16


class Device(NamedTuple):
    """What a state directory knows of itself. With the slots in `record` it mounts offline.

    `place` is where the directory was when this was written; elsewhere it is a copy.
    """

    filespace: bytes
    superblock_hash: bytes
    founder_sign_key: bytes
    member: bytes
    box: bytes
    superblock: bytes
    record: bytes
    place: bytes


class DeviceSecret(NamedTuple):
    """The content of the box: the key under which journal and replica lie."""

    filespace: bytes
    local_key: bytes


def encode_device(device: Device) -> bytes:
    """The whole file. Raises FormatError."""
    _check(device)
    return MAGIC + pack([FORMAT_VERSION, *device])


def decode_device(data: bytes) -> Device:
    """The parts that encode_device wrote. Raises FormatError, UnsupportedFormat."""
    if not data.startswith(MAGIC) or len(data) > _FILE_MAX:
        raise FormatError("The device file does not begin as one, or is too long.")
    value = unpack(data[len(MAGIC) :])
    if type(value) is not list or not value:
        raise FormatError("The device file is not an array.")
    check_version(value[0], "The device file")
    device = Device._make(check_fields(value, 9, "The device file")[1:])
    _check(device)
    return device


def encode_device_secret(secret: DeviceSecret) -> bytes:
    """What goes into the box. Raises FormatError."""
    _check_secret(secret)
    return pack(secret)


def decode_device_secret(data: bytes) -> DeviceSecret:
    """What came out of the box. Raises FormatError."""
    secret = DeviceSecret._make(check_fields(unpack(data), 2, "The box of the device file"))
    _check_secret(secret)
    return secret


def _check(device: Device) -> None:
    check_id(device.filespace, "The filespace of the device file")
    check_bytes(device.superblock_hash, HASH_SIZE, "The superblock hash of the device file")
    check_bytes(device.founder_sign_key, KEY_SIZE, "The founder's key of the device file")
    check_id(device.member, "The member of the device file")
    check_bytes(device.place, HASH_SIZE, "The place of the device file")
    for part in (device.box, device.superblock, device.record):
        if type(part) is not bytes or not 0 < len(part) <= _PART_MAX:
            raise FormatError("A part of the device file is empty or too long.")


def _check_secret(secret: DeviceSecret) -> None:
    check_id(secret.filespace, "The filespace of the device's box")
    check_bytes(secret.local_key, KEY_SIZE, "The local key")
