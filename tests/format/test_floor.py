"""The object of a floor, byte by byte."""

from __future__ import annotations

import pytest

from lucid.errors import FormatError
from lucid.format.floor import FLOOR_SIZE, decode_floor, encode_floor


def test_the_bytes_of_a_floor() -> None:
    data = encode_floor(4097)
    assert data == b"LUCIDFL1" + bytes.fromhex("0000000000001001")
    assert len(data) == FLOOR_SIZE
    assert decode_floor(data) == 4097


@pytest.mark.parametrize("sequence", [0, 1 << 63])
def test_a_floor_that_cannot_be(sequence: int) -> None:
    with pytest.raises(FormatError):
        encode_floor(sequence)
    with pytest.raises(FormatError):
        decode_floor(b"LUCIDFL1" + sequence.to_bytes(8, "big"))


@pytest.mark.parametrize("data", [b"", b"LUCIDFL1", b"LUCIDFL1" + bytes(7) + b"\1\0"])
def test_what_is_no_floor(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_floor(data)


def test_another_magic_is_no_floor() -> None:
    with pytest.raises(FormatError):
        decode_floor(b"LUCIDFL2" + bytes(7) + b"\1")
