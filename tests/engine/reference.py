"""The engine's answers in plain Python: slow, obvious, and written without looking at its code.

Sealing goes through PyNaCl's own bindings, addressing through a dictionary of blocks, the cache map
through an OrderedDict.  Tests run both on the same inputs and compare.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from dataclasses import dataclass, field

from nacl import bindings
from nacl.exceptions import CryptoError

UNIT = 64 * 1024
PAGE = 4096
TAG = {1: 32, 2: 16}
NONCE = {1: 32, 2: 24}


@dataclass(frozen=True)
class Context:
    """The shared part of the associated data."""

    suite: int
    label: bytes
    filespace_id: bytes
    generation_id: bytes
    format: int = 1


def associated_data(
    ctx: Context, object_id: bytes, ordinal: int, flags: int, plaintext_length: int
) -> bytes:
    return (
        ctx.label
        + struct.pack("<HH", ctx.format, ctx.suite)
        + ctx.filespace_id
        + ctx.generation_id
        + object_id
        + struct.pack("<QII", ordinal, flags, plaintext_length)
    )


def seal(
    ctx: Context, object_id: bytes, key: bytes, ordinal: int, flags: int, plaintext: bytes
) -> bytes:
    ad = associated_data(ctx, object_id, ordinal, flags, len(plaintext))
    nonce = struct.pack("<Q", ordinal).ljust(NONCE[ctx.suite], b"\0")
    if ctx.suite == 1:
        return bytes(bindings.crypto_aead_aegis256_encrypt(plaintext, ad, nonce, key))
    return bytes(bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, ad, nonce, key))


def open_(
    ctx: Context, object_id: bytes, key: bytes, ordinal: int, flags: int, sealed: bytes
) -> bytes | None:
    """The plaintext, or None when it does not open."""
    length = len(sealed) - TAG[ctx.suite]
    if length < 0:
        return None
    ad = associated_data(ctx, object_id, ordinal, flags, length)
    nonce = struct.pack("<Q", ordinal).ljust(NONCE[ctx.suite], b"\0")
    try:
        if ctx.suite == 1:
            return bytes(bindings.crypto_aead_aegis256_decrypt(sealed, ad, nonce, key))
        return bytes(bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, ad, nonce, key))
    except CryptoError:
        return None


def digest16(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass
class Row:
    """One extent, as a row of columns."""

    first_block: int
    count: int
    kind: int = 1
    slot: int = -1
    ordinal: int = 0
    offset: int = 0
    flags: int = 0
    last_len: int = 0
    last_valid: int = 0
    lengths: list[int] | None = None


def places(
    rows: list[Row], block_size: int, tag: int
) -> dict[int, tuple[int, int, int, int, int, int, int, int]]:
    """Block -> (kind, slot, ordinal, offset, stored, plain, valid, flags), one entry a block."""
    found = {}
    for row in rows:
        offset = row.offset
        for at in range(row.count):
            last = at == row.count - 1
            stored = plain = valid = 0
            if row.kind == 1:
                plain = row.last_len if last else block_size
                if row.lengths is not None and not last:
                    plain = row.lengths[at] - tag
                valid = row.last_valid if last else plain
                stored = plain + tag
            found[row.first_block + at] = (
                row.kind,
                row.slot,
                row.ordinal + at,
                offset if row.kind == 1 else 0,
                stored,
                plain,
                valid,
                row.flags,
            )
            offset += stored
    return found


@dataclass
class ModelSegment:
    """What the cache map should know of one segment."""

    stored_len: int
    units: set[int] = field(default_factory=set)
    charge: int = 0
    refs: int = 0
    pins: int = 0
    staged: bool = False
    read_once: bool = False
    evicting: bool = False


def unit_bytes(unit: int, stored_len: int) -> int:
    return min(UNIT, stored_len - unit * UNIT)


def page_ceil(length: int) -> int:
    return -(-length // PAGE) * PAGE


class CacheModel:
    """The cache map over files that are never there: presence only by set_present and promote."""

    def __init__(self) -> None:
        self.segments: dict[bytes, ModelSegment] = {}
        # Oldest first, as OrderedDict.popitem(last=False) would evict them.
        self.recency: OrderedDict[bytes, None] = OrderedDict()

    def acquire(self, segment: bytes, stored_len: int, staged: bool) -> bool:
        """False where the map must refuse."""
        known = self.segments.get(segment)
        if known is None:
            known = self.segments[segment] = ModelSegment(stored_len, staged=staged)
        elif not known.staged and (staged or known.stored_len != stored_len):
            return False
        known.refs += 1
        return True

    def release(self, segment: bytes) -> None:
        self.segments[segment].refs -= 1
        self.sweep(segment)

    def sweep(self, segment: bytes) -> None:
        """Drop what nobody holds and what holds nothing."""
        at = self.segments[segment]
        if not (at.refs or at.pins or at.units or at.charge or at.staged or at.evicting):
            del self.segments[segment]
            self.recency.pop(segment, None)

    def list_(self, segment: bytes, to_front: bool) -> None:
        at = self.segments[segment]
        belongs = bool(at.units or at.charge)
        if not belongs or at.pins or at.staged or at.evicting:
            self.recency.pop(segment, None)
        elif segment not in self.recency:
            self.recency[segment] = None
        elif to_front:
            self.recency.move_to_end(segment)

    def set_present(self, segment: bytes, offset: int, length: int) -> bool:
        at = self.segments[segment]
        if at.evicting or at.staged:
            return False
        grown = 0
        for unit in range(-(-at.stored_len // UNIT)):
            start, end = unit * UNIT, unit * UNIT + unit_bytes(unit, at.stored_len)
            if offset <= start and end <= offset + length and unit not in at.units:
                at.units.add(unit)
                grown += page_ceil(end - start)
        at.charge = min(at.charge + grown, max(at.charge, page_ceil(at.stored_len)))
        self.list_(segment, True)
        return True

    def touched(self, segment: bytes, offset: int, length: int) -> list[int]:
        """Units of the segment that a range meets."""
        at = self.segments[segment]
        end = min(offset + length, at.stored_len)
        return [
            unit
            for unit in range(-(-at.stored_len // UNIT))
            if offset < end and unit * UNIT < end and (unit + 1) * UNIT > offset
        ]

    def clear_present(self, segment: bytes, offset: int, length: int) -> None:
        self.segments[segment].units -= set(self.touched(segment, offset, length))
        self.list_(segment, False)

    def missing(self, segment: bytes, offset: int, length: int) -> list[tuple[int, int]]:
        at = self.segments[segment]
        if at.staged:
            return []
        found: list[tuple[int, int]] = []
        for unit in self.touched(segment, offset, length):
            if unit in at.units and not at.evicting:
                continue
            size = unit_bytes(unit, at.stored_len)
            if found and sum(found[-1]) == unit * UNIT:
                found[-1] = (found[-1][0], found[-1][1] + size)
            else:
                found.append((unit * UNIT, size))
        return found

    def victims(self, bytes_to_free: int, limit: int) -> list[tuple[bytes, int]]:
        chosen: list[tuple[bytes, int]] = []
        order = [s for s in self.recency if self.segments[s].read_once]
        order += [s for s in self.recency if not self.segments[s].read_once]
        for segment in order:
            if bytes_to_free <= 0 or len(chosen) == limit:
                break
            bytes_to_free -= self.segments[segment].charge
            chosen.append((segment, self.segments[segment].charge))
        for segment, _ in chosen:
            self.segments[segment].evicting = True
            del self.recency[segment]
        return chosen

    def forget(self, segment: bytes) -> None:
        at = self.segments[segment]
        at.units, at.charge, at.staged, at.evicting = set(), 0, False, False
        self.recency.pop(segment, None)
        self.sweep(segment)
