"""Superblock, member record, generation box and device file: bytes and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format import limits
from lucid.format.canonical import pack, unpack
from lucid.format.device import (
    Device,
    DeviceSecret,
    decode_device,
    decode_device_secret,
    encode_device,
    encode_device_secret,
)
from lucid.format.generation import (
    GenerationSecret,
    decode_generation_box,
    decode_generation_secret,
    encode_generation_box,
    encode_generation_secret,
)
from lucid.format.member import (
    MemberRecord,
    Slot,
    SlotSecret,
    decode_member_record,
    decode_slot_secret,
    encode_member_record,
    encode_slot_secret,
)
from lucid.format.superblock import (
    Superblock,
    decode_superblock,
    encode_superblock,
    superblock_signed_bytes,
)
from tests.format.values import TIME_NS

SUPERBLOCK = Superblock(
    b"f" * 16, 1, 131_072, 8 << 20, (), TIME_NS, b"m" * 16, b"s" * 32, b"b" * 32, b"g" * 16,
    b"h" * 32,
)  # fmt: skip
SIGNATURE = b"~" * 64
SLOT = Slot(1, b"s" * 16, 3, 64 << 20, 1, b"o" * 32, b"sealed")
RECORD = MemberRecord(b"f" * 16, b"m" * 16, 1, b"s" * 32, b"b" * 32, (SLOT, SLOT._replace(kind=2)))
SLOT_SECRET = SlotSecret(b"f" * 16, b"h" * 32, b"k" * 32, b"m" * 16, b"s" * 32, b"b" * 32)
GENERATION_SECRET = GenerationSecret(b"f" * 16, b"g" * 16, b"k" * 32)
DEVICE = Device(
    b"f" * 16, b"h" * 32, b"k" * 32, b"m" * 16, b"box", b"superblock", b"record", b"p" * 32
)
DEVICE_SECRET = DeviceSecret(b"f" * 16, b"l" * 32)


def encode_signed(superblock: Superblock) -> bytes:
    return encode_superblock(superblock, SIGNATURE)


def decode_signed(data: bytes) -> Superblock:
    return decode_superblock(data).superblock


Codec = tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]
CODECS: dict[str, Codec] = {
    "superblock": (SUPERBLOCK, encode_signed, decode_signed),
    "record": (RECORD, encode_member_record, decode_member_record),
    "slot secret": (SLOT_SECRET, encode_slot_secret, decode_slot_secret),
    "generation secret": (
        GENERATION_SECRET,
        encode_generation_secret,
        decode_generation_secret,
    ),
    "device": (DEVICE, encode_device, decode_device),
    "device secret": (DEVICE_SECRET, encode_device_secret, decode_device_secret),
}


@pytest.mark.parametrize("name", CODECS)
def test_it_goes_there_and_back(name: str) -> None:
    value, encode, decode = CODECS[name]
    assert decode(encode(value)) == value


@pytest.mark.parametrize("name", CODECS)
def test_any_byte_less_or_more_is_refused(name: str) -> None:
    value, encode, decode = CODECS[name]
    data = encode(value)
    for cut in range(len(data)):
        with pytest.raises((FormatError, UnsupportedFormat)):
            decode(data[:cut])
    with pytest.raises(FormatError):
        decode(data + b"\0")


BAD_FIELDS: list[tuple[str, str, Any]] = [
    *(("superblock", "filespace", bad) for bad in (b"", b"x" * 15, 5)),
    *(("superblock", "block_size", bad) for bad in (1 << 15, 1 << 21, 100_000, 0)),
    *(("superblock", "segment_bytes_max", bad) for bad in (1 << 20, (8 << 20) + 1)),
    ("superblock", "created_ns", 2**63),
    ("superblock", "features", (b"",)),
    ("superblock", "features", (b"b", b"a")),
    ("superblock", "features", (b"a", b"a")),
    ("superblock", "features", (5,)),
    *(
        ("superblock", name, b"x")
        for name in (
            "founder",
            "founder_sign_key",
            "founder_box_key",
            "generation",
            "generation_key_hash",
        )
    ),
    *(("record", name, b"x") for name in ("filespace", "member", "sign_key", "box_key")),
    *(("record", "number", bad) for bad in (0, 2**63)),
    *(("record", "slots", bad) for bad in ((), (SLOT,) * 9)),
    *(
        ("record", "slots", (SLOT._replace(**{name: bad}),))
        for name, bad in (
            ("salt", b"x"),
            ("opslimit", 0),
            ("opslimit", 17),
            ("memlimit", (64 << 20) - 1),
            ("memlimit", (1 << 30) + 1),
            ("object_id", b"x"),
            ("sealed", b""),
            ("sealed", b"x" * 1025),
        )
    ),
    *(("slot secret", name, b"x") for name in SlotSecret._fields),
    *(("generation secret", name, b"x") for name in GenerationSecret._fields),
    *(
        ("device", name, b"x")
        for name in ("filespace", "superblock_hash", "founder_sign_key", "member", "place")
    ),
    *(
        ("device", name, bad)
        for name in ("box", "superblock", "record")
        for bad in (b"", b"x" * 65_537)
    ),
    *(("device secret", name, b"x") for name in DeviceSecret._fields),
]


@pytest.mark.parametrize("name", CODECS)
def test_a_field_beyond_its_limit_is_refused(name: str) -> None:
    value, encode, _ = CODECS[name]
    for field, bad in [(field, bad) for of, field, bad in BAD_FIELDS if of == name]:
        try:
            encode(value._replace(**{field: bad}))
        except FormatError:
            continue
        pytest.fail(f"{field} = {bad!r} was taken")


def altered(data: bytes, at: int, new: Any, behind: int = 0) -> bytes:
    """An object of magic and body with element `at` of the body replaced."""
    body, rest = (data[8:-behind], data[-behind:]) if behind else (data[8:], b"")
    fields = unpack(body)
    fields[at] = new
    return data[:8] + pack(fields) + rest


def test_what_is_not_known_is_refused_by_name() -> None:
    superblock = encode_signed(SUPERBLOCK)
    for at, new, said in ((0, 2, "format 2"), (2, 9, "suite 9"), (5, [b"warp"], "warp")):
        with pytest.raises(UnsupportedFormat, match=said):
            decode_signed(altered(superblock, at, new, 64))
    with pytest.raises(UnsupportedFormat, match="LUCIDSB2"):
        decode_signed(b"LUCIDSB2" + superblock[8:])
    record = encode_member_record(RECORD)
    with pytest.raises(UnsupportedFormat, match="format 2"):
        decode_member_record(altered(record, 0, 2))
    slot = list(SLOT._replace(kind=3))
    with pytest.raises(UnsupportedFormat, match="kind 3"):
        decode_member_record(altered(record, 6, [slot]))
    with pytest.raises(UnsupportedFormat, match="format 2"):
        decode_device(altered(encode_device(DEVICE), 0, 2))


@pytest.mark.parametrize("name", ["superblock", "record", "device"])
def test_another_magic_is_refused(name: str) -> None:
    value, encode, decode = CODECS[name]
    with pytest.raises(FormatError):
        decode(b"NOTLUCID" + encode(value)[8:])


def test_huge_objects_are_refused_before_they_are_read() -> None:
    for name in ("superblock", "record", "device"):
        value, encode, decode = CODECS[name]
        with pytest.raises(FormatError):
            decode(encode(value) + bytes(1 << 20))


def test_what_the_founder_signs() -> None:
    data = encode_signed(SUPERBLOCK)
    assert decode_superblock(data).signed == superblock_signed_bytes(SUPERBLOCK)
    assert superblock_signed_bytes(SUPERBLOCK) == b"lucid superblock v1\0" + data[:-64]
    assert decode_superblock(data).signature == SIGNATURE
    with pytest.raises(FormatError):
        encode_superblock(SUPERBLOCK, b"short")


def test_the_box_of_a_generation() -> None:
    box = b"x" * (len(encode_generation_secret(GENERATION_SECRET)) + 48)
    assert decode_generation_box(encode_generation_box(box)) == box
    for bad in (b"", b"LUCIDGK2" + box, encode_generation_box(box)[:-1]):
        with pytest.raises(FormatError):
            decode_generation_box(bad)
    with pytest.raises(FormatError):
        encode_generation_box(box[:-1])


@pytest.mark.parametrize("size", [limits.BLOCK_SIZE_MIN, 1 << 18, limits.BLOCK_SIZE_MAX])
def test_block_sizes(size: int) -> None:
    assert decode_signed(encode_signed(SUPERBLOCK._replace(block_size=size))).block_size == size
