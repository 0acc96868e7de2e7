"""The device file: how a state directory keeps its local key for one member (section 10.1).

Bytes only; `lucid.local` keeps the file. Any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.crypto.founding import Unlocked
from lucid.crypto.keyring import LocalKeys
from lucid.crypto.member import box_for
from lucid.errors import StateForeign
from lucid.format.device import (
    Device,
    DeviceSecret,
    decode_device,
    decode_device_secret,
    encode_device,
    encode_device_secret,
)
from lucid.format.limits import KEY_SIZE
from lucid.types import Entropy

__all__ = ["NewDevice", "make_device", "open_device", "renew_device"]


class NewDevice(NamedTuple):
    """A device file, and the keys that it brings."""

    data: bytes
    keys: LocalKeys


def make_device(unlocked: Unlocked, place: bytes, entropy: Entropy) -> NewDevice:
    """A device file with a new local key. `place` says where the directory is (section 10.1)."""
    local_key = entropy(KEY_SIZE)
    filespace = unlocked.superblock.filespace
    secret = encode_device_secret(DeviceSecret(filespace, local_key))
    box = box_for(unlocked.keys.box_key, secret, entropy)
    device = Device(
        filespace,
        unlocked.superblock_hash,
        unlocked.superblock.founder_sign_key,
        unlocked.keys.member,
        box,
        unlocked.superblock_bytes,
        unlocked.record_bytes,
        place,
    )
    return NewDevice(encode_device(device), LocalKeys(local_key, unlocked.superblock.suite))


def renew_device(data: bytes, unlocked: Unlocked, place: bytes) -> bytes:
    """The same device file with the newest member record, or at a new place. The key stays."""
    device = _mine(data, unlocked)
    return encode_device(device._replace(record=unlocked.record_bytes, place=place))


def open_device(data: bytes, unlocked: Unlocked) -> LocalKeys:
    """The keys of the state directory.

    Raises StateForeign for another filespace's or member's directory; FormatError,
    UnsupportedFormat or CorruptObject for a damaged file.
    """
    device = _mine(data, unlocked)
    secret = decode_device_secret(unlocked.keys.unbox(device.box))
    if secret.filespace != device.filespace:
        raise StateForeign("The local key in the state directory is another filespace's.")
    return LocalKeys(secret.local_key, unlocked.superblock.suite)


def _mine(data: bytes, unlocked: Unlocked) -> Device:
    device = decode_device(data)
    if (device.filespace, device.superblock_hash, device.founder_sign_key) != (
        unlocked.superblock.filespace,
        unlocked.superblock_hash,
        unlocked.superblock.founder_sign_key,
    ):
        raise StateForeign(
            "The state directory belongs to another filespace. Give --state-dir another one."
        )
    if device.member != unlocked.keys.member:
        raise StateForeign(
            "The state directory belongs to another member. Give --state-dir another one."
        )
    return device
