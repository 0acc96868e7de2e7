"""Canonical msgpack: one encoding for each value, and no other is read."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.errors import FormatError
from lucid.format.canonical import DEPTH_MAX, SliceReader, pack, unpack
from lucid.format.limits import ARRAY_ITEMS_MAX, JOURNAL_ITEMS_MAX

leaves = st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=20), max_leaves=30)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value: Any) -> int:
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(values)
def test_what_is_packed_is_unpacked(value: Any) -> None:
    if depth_of(value) <= DEPTH_MAX:
        assert unpack(pack(value)) == value
    else:
        with pytest.raises(FormatError):
            pack(value)


@given(st.binary(max_size=60))
def test_what_parses_is_the_one_encoding(data: bytes) -> None:
    try:
        value = unpack(data)
    except FormatError:
        return
    assert pack(value) == data


@given(st.lists(leaves | st.lists(st.lists(leaves, max_size=3), max_size=3), max_size=10))
def test_a_slice_reader_reads_the_same(value: list[Any]) -> None:
    reader = SliceReader(pack(value))
    assert [reader.value(1) for _ in range(reader.array())] == value
    reader.end()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc2",  # false
        b"\xc3",  # true
        b"\xca\x00\x00\x00\x00",  # float32
        b"\xcb" + bytes(8),  # float64
        b"\xa1a",  # str
        b"\x80",  # empty map
        b"\x81\x01\x01",
        b"\xd6\xff\x00\x00\x00\x00",  # timestamp
        b"\xd4\x05\x00",  # ext
        b"\xc7\x00\x05",  # ext without bytes
        b"\xcc\x05",  # 5 in two bytes
        b"\xcd\x00\xff",  # 255 in three
        b"\xd0\x05",  # positive as signed
        b"\xd1\xff\xff",  # -1 in three
        b"\xc5\x00\x01a",  # bin16 for one byte
        b"\xdc\x00\x01\x01",  # array16 for one element
        b"\x01\x01",  # bytes after the value
        b"\x92\x01",  # cut short
        b"\xc4\x05abc",
        b"\xdd\xff\xff\xff\xff",  # four milliard elements
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 2000 + b"\x01",
        b"\x91" * 600 + b"\x01",
        b"\xdc\xff\xff" * 300,
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(data)
    with pytest.raises(FormatError):
        reader = SliceReader(data)
        reader.value(0)
        reader.end()


@pytest.mark.parametrize(
    "data", [b"\xc2", b"\xcb" + bytes(8), b"\xcc\x05", b"\x91" * 600 + b"\x01"]
)
def test_a_slice_reader_refuses_what_stands_in_an_array(data: bytes) -> None:
    with pytest.raises(FormatError):
        reader = SliceReader(b"\x91" + data)
        reader.array()
        reader.value(1)


@pytest.mark.parametrize(
    "value",
    [True, 1.0, "text", {}, {1: 2}, bytearray(b"x"), memoryview(b"x"), {1}, object(), [[True]]],
)
def test_other_types_are_not_packed(value: Any) -> None:
    with pytest.raises(FormatError):
        pack(value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_numbers_beyond_64_bits_are_not_packed(value: int) -> None:
    with pytest.raises(FormatError):
        pack(value)


def test_nesting_is_bounded() -> None:
    assert unpack(pack(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
    with pytest.raises(FormatError):
        pack(nested(DEPTH_MAX + 1))
    with pytest.raises(FormatError):
        unpack(msgpack.packb(nested(DEPTH_MAX + 1)))


def test_arrays_are_bounded() -> None:
    most = [0] * ARRAY_ITEMS_MAX
    assert unpack(pack(most)) == most
    for data in (msgpack.packb([*most, 0]), msgpack.packb([[*most, 0]])):
        with pytest.raises(FormatError):
            unpack(data)
        with pytest.raises(FormatError):
            SliceReader(data).value(0)
    with pytest.raises(FormatError):
        pack([*most, 0])
    with pytest.raises(FormatError):
        SliceReader(msgpack.packb([*most, 0])).array()
    assert len(unpack(msgpack.packb([*most, 0]), JOURNAL_ITEMS_MAX)) == ARRAY_ITEMS_MAX + 1


def test_tuples_are_arrays() -> None:
    assert pack((1, (2, b"x"))) == pack([1, [2, b"x"]])
