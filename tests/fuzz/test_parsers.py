"""Every parser on altered golden vectors: a typed error or a value, and nothing else.

A fixed number of mutations each, seeded, so that a failure comes again. What parses must also
encode to itself: two byte strings for one value would be two hashes for one truth.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from lucid.crypto.device import open_device
from lucid.crypto.entry import open_entry
from lucid.crypto.footer import open_footer
from lucid.crypto.founding import Unlocked, read_superblock, unlock
from lucid.crypto.keyring import KeyRing, unwrap_generation
from lucid.errors import DataError, KeyringError, LocalError
from lucid.format import names
from lucid.format.checkpoint import (
    ChunkRef,
    Manifest,
    decode_manifest,
    decode_rows,
    encode_manifest,
)
from lucid.format.device import decode_device, encode_device
from lucid.format.entry import decode_body, decode_header, encode_body
from lucid.format.generation import (
    GenerationSecret,
    decode_generation_box,
    decode_generation_secret,
    encode_generation_box,
    encode_generation_secret,
)
from lucid.format.journal import decode_file_header, decode_record, encode_record
from lucid.format.member import (
    SlotSecret,
    decode_member_record,
    decode_slot_secret,
    encode_member_record,
    encode_slot_secret,
)
from lucid.format.segment import FooterRow, decode_footer, decode_trailer, encode_footer
from lucid.format.superblock import decode_superblock, encode_superblock
from tests.format.values import BODY, EVERY_OP, EVERY_RECORD

VECTORS = Path(__file__).parents[1] / "format/vectors/v1/aegis-256"
ROUNDS = 400
FOOTER = (FooterRow(5, 0, 100, 0, b"d" * 16), FooterRow(6, 1, 131_072, 0, b"e" * 16))
SLOT = SlotSecret(b"f" * 16, b"h" * 32, b"k" * 32, b"m" * 16, b"s" * 32, b"b" * 32)


CHUNK_ROWS = (
    (1, 4096, b"h" * 32, 1, b"g" * 32, 0, 2, 29),
    (8, 5, 0o100644, 1, 1, 0, 1, 29, 5, 1, 2, 3, 29, b"", 1, b"name", 0),
    (10, 1, b"name", 5, 5),
    (13, 5, 0, 0, 5, 1, 1, b"s" * 32, 0, 0, 0, 29, 29, b"\0\0\0\1"),
)
MANIFEST = Manifest(
    b"m" * 16, 3, 7, b"e" * 32, (ChunkRef(b"\x91\x01", 4096, b"n" * 16, b"h" * 32),) * 2
)


def packed_rows(rows: Any) -> bytes:
    return b"".join(map(msgpack.packb, rows))


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Some bytes replaced, cut out, doubled, or put in."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(changed) + 1)
        action = chance.randrange(5)
        if action == 0 and changed:
            changed[at % len(changed)] = chance.randrange(256)
        elif action == 1 and changed:
            changed[at % len(changed)] ^= 1 << chance.randrange(8)
        elif action == 2:
            del changed[at : at + chance.randrange(1, 9)]
        elif action == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            changed[at:at] = changed[at : at + chance.randrange(1, 40)]
    return bytes(changed)


ODD_VALUES: tuple[Any, ...] = (
    None, 0, 1, -1, 127, 128, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    b"", b"x", b"x" * 15, b"x" * 16, b"x" * 31, b"x" * 32, b"x" * 255, b"x" * 256, b"..", b"a/b",
    [], [[]], [0], [b""], [[0, 1, 2]], [[0, 1, 1, 0, 0, 0, 0, 1, 1, None]], True, 1.5, "text", {},
)  # fmt: skip


def bent(value: Any, chance: random.Random) -> Any:
    """The value with something odd, missing or doubled somewhere in it."""
    if not isinstance(value, list) or not value or chance.random() < 0.2:
        return chance.choice(ODD_VALUES)
    at = chance.randrange(len(value))
    action = chance.randrange(6)
    if action == 0:
        return value[:at] + value[at + 1 :]
    if action == 1:
        return [*value[:at], value[at], *value[at:]]
    return [*value[:at], bent(value[at], chance), *value[at + 1 :]]


def mutations(data: bytes, seed: int, magic: int, behind: int) -> Iterator[bytes]:
    """Altered bytes; and, of a body between `magic` and `behind` bytes, altered values."""
    chance = random.Random(seed)
    body = data[magic : len(data) - behind]
    yield data
    for _ in range(ROUNDS):
        yield flipped(data, chance)
        if behind >= 0:
            value = bent(msgpack.unpackb(body, raw=True), chance)
            yield data[:magic] + msgpack.packb(value) + data[len(data) - behind :]


Case = tuple[bytes, int, int, Callable[[bytes], bytes]]


def reencoded_superblock(data: bytes) -> bytes:
    superblock, signature, _ = decode_superblock(data)
    return encode_superblock(superblock, signature)


CASES: dict[str, Case] = {
    "superblock": (vector("superblock.bin"), 8, 64, reencoded_superblock),
    "member record": (
        vector("member-1.bin"), 8, 0, lambda d: encode_member_record(decode_member_record(d)),
    ),
    "slot secret": (
        encode_slot_secret(SLOT), 0, 0, lambda d: encode_slot_secret(decode_slot_secret(d)),
    ),
    "generation secret": (
        encode_generation_secret(GenerationSecret(b"f" * 16, b"g" * 16, b"k" * 32)), 0, 0,
        lambda d: encode_generation_secret(decode_generation_secret(d)),
    ),
    "generation box": (
        vector("generation.bin"), 0, -1, lambda d: encode_generation_box(decode_generation_box(d)),
    ),
    "device": (vector("device.bin"), 8, 0, lambda d: encode_device(decode_device(d))),
    "rows of a chunk": (
        packed_rows(CHUNK_ROWS), 0, -1, lambda d: packed_rows(decode_rows(d)),
    ),
    "manifest": (
        encode_manifest(MANIFEST), 0, 0, lambda d: encode_manifest(decode_manifest(d)),
    ),
    "footer": (encode_footer(FOOTER), 0, 0, lambda d: encode_footer(decode_footer(d))),
    "entry body": (encode_body(BODY), 0, 0, lambda d: encode_body(decode_body(d))),
    **{
        f"entry of {type(op).__name__}": (
            encode_body(BODY._replace(ops=(op,))), 0, 0, lambda d: encode_body(decode_body(d)),
        )
        for op in EVERY_OP[:2]
    },
    **{
        f"record {number} {type(record).__name__}": (
            encode_record(record), 0, 0, lambda d: encode_record(decode_record(d)),
        )
        for number, record in enumerate(EVERY_RECORD)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_parser_gives_a_value_or_a_data_error(name: str) -> None:
    data, magic, behind, again = CASES[name]
    taken = refused = 0
    for seed, mutated in enumerate(mutations(data, 1, magic, behind)):
        try:
            reencoded = again(mutated)
        except DataError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"mutation {seed} of {name}: {mutated!r}") from error
        taken += 1
        assert reencoded == mutated, f"mutation {seed} of {name}: {mutated!r}"
    assert taken > 0
    assert refused > ROUNDS / 4


@pytest.mark.parametrize(
    ("name", "parse"),
    [
        ("entry-3.bin", decode_header),
        ("journal.bin", decode_file_header),
        ("segment.bin", decode_trailer),
    ],
)
def test_clear_parts(name: str, parse: Callable[[bytes], object]) -> None:
    data, chance = vector(name), random.Random(2)
    clear = data[-40:] if parse is decode_trailer else data[:60]
    for _ in range(ROUNDS):
        mutated = flipped(clear, chance)
        try:
            parse(mutated)
        except DataError:
            continue


@pytest.fixture(scope="module")
def unlocked() -> Unlocked:
    passphrase = json.loads(vector("facts.json"))["passphrase"]
    return unlock(vector("superblock.bin"), vector("member-1.bin"), passphrase)


@pytest.fixture(scope="module")
def ring(unlocked: Unlocked) -> KeyRing:
    superblock = unlocked.superblock
    ring = KeyRing(superblock.filespace, superblock.suite)
    box = vector("generation.bin")
    key = unwrap_generation(box, superblock.filespace, superblock.generation, unlocked.keys)
    ring.add(superblock.generation, key, superblock.generation_key_hash)
    return ring


def test_whatever_is_in_the_store(unlocked: Unlocked, ring: KeyRing) -> None:
    """Opening altered objects with the right keys: typed errors, and never another text."""
    superblock, keys = unlocked.superblock, unlocked.keys
    segment = bytes.fromhex(json.loads(vector("facts.json"))["segment_id"])
    signers = {superblock.founder: superblock.founder_sign_key}

    def entry(data: bytes) -> object:
        return open_entry(data, 3, ring, superblock.generation, signers.get)

    openers: dict[str, Callable[[bytes], object]] = {
        "superblock.bin": read_superblock,
        "generation.bin": lambda data: unwrap_generation(
            data, superblock.filespace, superblock.generation, keys
        ),
        "entry-3.bin": entry,
        "segment.bin": lambda data: open_footer(ring, segment, data),
        "device.bin": lambda data: open_device(data, unlocked),
    }
    for name, opener in openers.items():
        data, chance = vector(name), random.Random(3)
        good = opener(data)
        for _ in range(ROUNDS // 2):
            mutated = flipped(data, chance)
            try:
                opened = opener(mutated)
            except (DataError, KeyringError, LocalError):
                continue
            # What still opens is the same text, or a void entry, or a part that is not sealed.
            same = opened == good or name in ("entry-3.bin", "device.bin")
            assert same or mutated == data, name


def test_any_name() -> None:
    chance = random.Random(4)
    keys = [names.log_key(7), names.segment_key(b"s" * 32), names.member_key(b"m" * 16, 1)]
    parsers = [getattr(names, name) for name in names.__all__ if name.startswith("parse_")]
    for _ in range(ROUNDS):
        key = flipped(chance.choice(keys).encode(), chance).decode("utf-8", "replace")
        for parse in parsers:
            parse(key)
