"""The object of a floor (FORMAT section 7.2): a hint for who was away. Pure; any thread."""

from __future__ import annotations

from lucid.errors import FormatError
from lucid.format.limits import INT63_MAX

__all__ = ["FLOOR_SIZE", "decode_floor", "encode_floor"]

MAGIC = b"LUCIDFL1"
FLOOR_SIZE = 16
"""Bytes of the whole object."""


def encode_floor(sequence: int) -> bytes:
    """The object of the floor at entry `sequence`. Raises FormatError."""
    _check(sequence)
    return MAGIC + sequence.to_bytes(8, "big")


def decode_floor(data: bytes) -> int:
    """The sequence that the object names. Raises FormatError."""
    if len(data) != FLOOR_SIZE or not data.startswith(MAGIC):
        raise FormatError("The object of a floor does not look like one.")
    sequence = int.from_bytes(data[len(MAGIC) :], "big")
    _check(sequence)
    return sequence


def _check(sequence: int) -> None:
    if not 1 <= sequence <= INT63_MAX:
        raise FormatError(f"No floor can be at entry {sequence}.")
