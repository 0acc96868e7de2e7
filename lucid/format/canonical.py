"""Canonical msgpack (FORMAT section 1): one value has one encoding, and only that one is read.

A value is None, an int from -2^63 to 2^64-1, bytes, or a list or tuple of values, at most 8 deep.
Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgpack

from lucid.errors import FormatError
from lucid.format.limits import ARRAY_ITEMS_MAX

__all__ = ["DEPTH_MAX", "SliceReader", "pack", "pack_short", "unpack"]

DEPTH_MAX = 8

_LEAVES = frozenset({int, bytes, type(None)})
_ARRAYS = (list, tuple)


def pack(value: Any, items_max: int = ARRAY_ITEMS_MAX, *, typed: bool = False) -> bytes:
    """The one encoding of `value`. Raises FormatError for what the format cannot hold.

    With `typed` the caller has checked all types and lengths; only numbers are looked at here.
    """
    if not typed:
        _check(value, items_max)
    try:
        packed: bytes = msgpack.packb(value)
    except (OverflowError, ValueError) as error:
        raise FormatError(f"A value cannot be encoded: {error}.") from error
    return packed


_packer = msgpack.Packer(autoreset=True)


def pack_short(value: Any) -> bytes:
    """As `pack` with `typed`, for what comes with each file and is short: one packer serves all
    threads (a call holds the interpreter), and its buffer is kept. Raises FormatError."""
    try:
        packed: bytes = _packer.pack(value)
    except (OverflowError, ValueError) as error:
        raise FormatError(f"A value cannot be encoded: {error}.") from error
    return packed


def unpack(data: bytes, items_max: int = ARRAY_ITEMS_MAX) -> Any:
    """The value that `data` encodes, arrays as lists.

    Raises FormatError for any other type, for bytes that do not re-encode to themselves, for bytes
    after the value, and for an array of over `items_max` elements.
    """
    try:
        value = msgpack.unpackb(
            data,
            raw=True,
            object_hook=_refuse_map,
            ext_hook=_refuse_ext,
            max_ext_len=0,
            max_array_len=items_max,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise FormatError(f"A body does not parse: {error}.") from error
    _check(value, items_max)
    # Text and long forms of an integer or a length parse too; they do not come out the same.
    if msgpack.packb(value) != data:
        raise FormatError("A body is not in its one canonical encoding.")
    return value


class SliceReader:
    """Reads the elements of one large array one by one, so that no single call holds the GIL long.

    It checks the same as `unpack` does. One thread uses it; it owns a copy of `data`.
    """

    def __init__(self, data: bytes, items_max: int = ARRAY_ITEMS_MAX) -> None:
        self._data = data
        self._items_max = items_max
        self._done = 0
        self._unpacker = msgpack.Unpacker(
            raw=True,
            object_hook=_refuse_map,
            ext_hook=_refuse_ext,
            max_ext_len=0,
            max_array_len=items_max,
            max_buffer_size=max(len(data), 1),
        )
        self._unpacker.feed(data)
        self._packer = msgpack.Packer(autoreset=True)

    def array(self) -> int:
        """Reads the head of an array and returns how many elements follow."""
        try:
            count: int = self._unpacker.read_array_header()
        except (ValueError, msgpack.UnpackException) as error:
            raise FormatError(f"A body does not parse: {error}.") from error
        if count > self._items_max:
            raise FormatError(f"A body holds an array of more than {self._items_max} elements.")
        self._same(self._packer.pack_array_header(count))
        return count

    def value(self, depth: int) -> Any:
        """Reads one whole value that stands `depth` arrays deep."""
        value = self.typed_values(1)[0]
        _check(value, self._items_max, depth)
        return value

    def typed_values(self, count: int) -> list[Any]:
        """Reads some values whose types the caller checks itself, and refuses what it does not
        know: a second look at 100,000 leaves would cost the most."""
        unpack_next = self._unpacker.unpack
        try:
            values = [unpack_next() for _ in range(count)]
            # The packer refuses what is nested deeper than it can be.
            packed = self._packer.pack(values)
        except (ValueError, msgpack.UnpackException) as error:
            raise FormatError(f"A body does not parse: {error}.") from error
        self._same(packed[len(self._packer.pack_array_header(count)) :])
        return values

    def end(self) -> None:
        """Raises FormatError if bytes are left."""
        if self._done != len(self._data):
            raise FormatError("A body goes on after its end.")

    def _same(self, packed: bytes) -> None:
        start, self._done = self._done, self._done + len(packed)
        if self._data[start : self._done] != packed:
            raise FormatError("A body is not in its one canonical encoding.")


def _check(value: Any, items_max: int, depth: int = 0) -> None:
    """Types and nesting, level by level: set() and chain run in C, where the leaves are many."""
    level: Sequence[Any] = (value,)
    while level:
        arrays = set(map(type, level)) - _LEAVES
        if not arrays:
            return
        bad = [kind.__name__ for kind in arrays if not issubclass(kind, _ARRAYS)]
        if bad:
            raise FormatError(f"A body holds a type that the format has not: {', '.join(bad)}.")
        depth += 1
        if depth > DEPTH_MAX:
            raise FormatError(f"A body is nested more than {DEPTH_MAX} deep.")
        parts = [part for part in level if type(part) in arrays]
        if max(map(len, parts)) > items_max:
            raise FormatError(f"A body holds an array of more than {items_max} elements.")
        level = list(chain.from_iterable(parts))


def _refuse_map(_value: Any) -> Any:
    raise FormatError("A body holds a map.")


def _refuse_ext(_code: int, _data: bytes) -> Any:
    raise FormatError("A body holds an extension type.")
