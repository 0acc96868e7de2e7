"""The object that brings a generation's key to one member (FORMAT section 6).

Bytes only; the box is made and opened in `lucid.crypto`. Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.errors import FormatError
from lucid.format.canonical import pack, unpack
from lucid.format.check import check_bytes, check_fields, check_id
from lucid.format.limits import KEY_SIZE

__all__ = [
    "BOX_OVERHEAD",
    "GenerationSecret",
    "decode_generation_box",
    "decode_generation_secret",
    "encode_generation_box",
    "encode_generation_secret",
]

MAGIC = b"LUCIDGK1"
BOX_OVERHEAD = 48
"""Bytes that a sealed box is longer than its content."""
_BOX_SIZE = 71 + BOX_OVERHEAD


class GenerationSecret(NamedTuple):
    """The content of the box. `key` is believed only if the log has its hash."""

    filespace: bytes
    generation: bytes
    key: bytes


def encode_generation_secret(secret: GenerationSecret) -> bytes:
    """What goes into the box. Raises FormatError."""
    _check(secret)
    return pack(secret)


def decode_generation_secret(data: bytes) -> GenerationSecret:
    """What came out of the box. Raises FormatError."""
    secret = GenerationSecret._make(check_fields(unpack(data), 3, "A generation's key"))
    _check(secret)
    return secret


def encode_generation_box(box: bytes) -> bytes:
    """The whole object around a box. Raises FormatError."""
    return MAGIC + check_bytes(box, _BOX_SIZE, "The box of a generation's key")


def decode_generation_box(data: bytes) -> bytes:
    """The box in the object. Raises FormatError."""
    if not data.startswith(MAGIC):
        raise FormatError("The object with a generation's key does not begin as one.")
    return check_bytes(data[len(MAGIC) :], _BOX_SIZE, "The box of a generation's key")


def _check(secret: GenerationSecret) -> None:
    check_id(secret.filespace, "The filespace of a generation's key")
    check_id(secret.generation, "The id of a generation")
    check_bytes(secret.key, KEY_SIZE, "The key of a generation")
