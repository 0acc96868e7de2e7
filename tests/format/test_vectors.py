"""Golden vectors: what format 1 wrote once is made again to the byte, and is opened for ever.

`v1` is frozen. The second half opens it with nothing of lucid: only msgpack, libsodium and what
FORMAT.md says.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack
import pytest
from nacl import bindings

from lucid.crypto.recovery import format_recovery_code
from lucid.format.canonical import pack
from lucid.format.hashes import digest16, hash_bytes
from lucid.format.opcode import encode_op
from lucid.format.ops import (
    LEASE_EXCLUSIVE,
    LEASE_SHARED,
    Clone,
    Floor,
    Give,
    Mkdir,
    Move,
    Repack,
    Rules,
    Take,
    Takeover,
)
from tests.crypto import reference
from tests.format import values
from tests.format.vectors import make

DOCS = Path(__file__).resolve().parents[2] / "docs/FORMAT.md"
SUITES = list(make.SUITES)


@cache
def frozen(suite: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (make.HOME / suite).iterdir()}


@cache
def facts(suite: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(frozen(suite)["facts.json"])
    return loaded


@pytest.mark.parametrize("suite", SUITES)
def test_the_same_bytes_are_made_again(suite: str) -> None:
    made = make.make(make.SUITES[suite])
    assert sorted(made) == sorted(frozen(suite))
    changed = [name for name, data in made.items() if data != frozen(suite)[name]]
    assert not changed, "format 1 is frozen: a change of bytes is a new format"


def unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=True)


class Reader:
    """Opens the vectors of one suite by FORMAT.md, from the passphrase on."""

    def __init__(self, suite: str) -> None:
        self.files, self.facts = frozen(suite), facts(suite)
        self.suite: int = self.facts["suite"]
        self.tag = {1: 32, 2: 16}[self.suite]
        body = unpacked(self.files["superblock.bin"][8:-64])
        self.filespace, self.founder_key, self.generation = body[1], body[8], body[10]
        self.key_hash = body[11]

    def opened(
        self,
        kind: bytes,
        key: bytes,
        generation: bytes,
        object_id: bytes,
        ordinal: int,
        data: bytes,
    ) -> bytes:
        ad = reference.associated_data(
            kind, self.suite, self.filespace, generation, object_id, ordinal, 0,
            len(data) - self.tag,
        )  # fmt: skip
        return reference.open_sealed(self.suite, key, ad, ordinal, data)

    def slot(self, record: str, kind: int, secret: bytes) -> list[Any]:
        body = unpacked(self.files[record][8:])
        (slot,) = (slot for slot in body[6] if slot[0] == kind)
        _, salt, opslimit, memlimit, _, object_id, sealed = slot
        stretched = bindings.crypto_pwhash_alg(
            32, secret, salt, opslimit, memlimit, bindings.crypto_pwhash_ALG_ARGON2ID13
        )
        superblock_hash = blake2b(self.files["superblock.bin"], digest_size=32).digest()
        data = kind.to_bytes(2, "little") + self.filespace + superblock_hash + self.founder_key
        data += body[2] + object_id
        key = blake2b(data, digest_size=32, key=stretched, person=b"lucid slot key").digest()
        plain: list[Any] = unpacked(self.opened(b"SLOT", key, bytes(16), object_id, 0, sealed))
        assert plain[:4] == [self.filespace, superblock_hash, self.founder_key, body[2]]
        return plain

    def unboxed(self, box: bytes) -> list[Any]:
        secret = self.slot("member-1.bin", 1, passphrase(self.facts["passphrase"]))[5]
        public = bindings.crypto_scalarmult_base(secret)
        plain: list[Any] = unpacked(bindings.crypto_box_seal_open(box, public, secret))
        return plain

    def object_key(self, label: bytes, object_id: bytes) -> bytes:
        filespace, generation, root = self.unboxed(self.files["generation.bin"][8:])
        assert (filespace, generation) == (self.filespace, self.generation)
        assert blake2b(root, digest_size=32).digest() == self.key_hash
        derived = reference.label_key(root, label, self.suite, generation)
        return reference.object_key(derived, object_id)

    def entry(self, number: int) -> list[Any]:
        data = self.files[f"entry-{number}.bin"]
        assert data[:12] == b"LUCIDLE1\1\0" + self.suite.to_bytes(2, "little")
        generation, object_id = data[12:28], data[28:60]
        key = self.object_key(b"log", object_id)
        text = self.opened(b"ENTR", key, generation, object_id, 0, data[60:])
        signed = b"lucid entry v1\0" + self.filespace + number.to_bytes(8, "little")
        signed += data[:60] + text[:-64]
        bindings.crypto_sign_open(text[-64:] + signed, self.founder_key)
        body: list[Any] = unpacked(text[:-64])
        return body


def passphrase(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode()


@cache
def reader(suite: str) -> Reader:
    return Reader(suite)


@pytest.fixture(params=SUITES)
def by_hand(request: pytest.FixtureRequest) -> Reader:
    return reader(request.param)


def test_hashes(by_hand: Reader) -> None:
    for name, digest in by_hand.facts["hashes"].items():
        assert blake2b(by_hand.files[name], digest_size=32).hexdigest() == digest


def test_superblock_by_hand(by_hand: Reader) -> None:
    data = by_hand.files["superblock.bin"]
    signed = b"lucid superblock v1\0" + data[:-64]
    bindings.crypto_sign_open(data[-64:] + signed, by_hand.founder_key)


def test_slots_by_hand(by_hand: Reader) -> None:
    code = by_hand.facts["recovery_code"].replace("-", "")
    first = by_hand.slot("member-1.bin", 1, passphrase(by_hand.facts["passphrase"]))
    assert by_hand.slot("member-1.bin", 2, base64.b32decode(code)) == first
    assert by_hand.slot("member-2.bin", 1, passphrase(by_hand.facts["new_passphrase"])) == first
    assert by_hand.slot("member-2.bin", 2, base64.b32decode(code)) == first
    sign_key, _ = bindings.crypto_sign_seed_keypair(first[4])
    assert sign_key == by_hand.founder_key


def test_entries_by_hand(by_hand: Reader) -> None:
    bodies = [by_hand.entry(number) for number in (1, 2, 3, 4)]
    hashes = [bytes.fromhex(by_hand.facts["hashes"][f"entry-{n}.bin"]) for n in (1, 2, 3, 4)]
    assert [body[2] for body in bodies] == [bytes(32), *hashes[:3]]
    assert [body[1] for body in bodies] == [0, 0, 1, 1]
    assert [body[3] for body in bodies] == [bytes(32), bytes(32), bytes(32), hashes[2]]
    assert [body[4] for body in bodies] == [[0, bytes(32)], *[[1, hashes[0]]] * 3]
    assert [body[5] for body in bodies] == [None, None, None, [2, b"s" * 32]]
    assert [op[0] for body in bodies for op in body[7]] == [
        1, 2, 3, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 15,
    ]  # fmt: skip


def test_segment_by_hand(by_hand: Reader) -> None:
    data, segment = by_hand.files["segment.bin"], bytes.fromhex(by_hand.facts["segment_id"])
    body = by_hand.entry(3)
    segment_id, stored, footer_len, footer_hash, generation, head = body[6][0]
    assert (segment_id, stored, head) == (segment, len(data), 2)
    assert blake2b(data[-footer_len:], digest_size=32).digest() == footer_hash
    key = by_hand.object_key(b"data", segment)
    sealed_len = int.from_bytes(data[-8:-4], "little")
    sealed = data[-40 - sealed_len : -40]
    rows = unpacked(by_hand.opened(b"FOOT", key, generation, segment, 2**64 - 1, sealed))
    texts = [bytes.fromhex(text) for text in by_hand.facts["texts"]]
    for at, op in enumerate(body[7]):
        ((first, count, kind, index, ordinal, offset, flags, last, valid, lengths),) = op[12]
        assert (first, count, kind, index, flags, lengths) == (0, 1, 1, 0, 0, None)
        assert last == valid == op[11] == len(texts[at])
        block = data[offset : offset + last + by_hand.tag]
        assert by_hand.opened(b"DATA", key, generation, segment, ordinal, block) == texts[at]
        digest = blake2b(block, digest_size=16).digest()
        assert rows[ordinal] == [op[1], 0, last, 0, digest]


def test_device_and_journal_by_hand(by_hand: Reader) -> None:
    device = unpacked(by_hand.files["device.bin"][8:])
    assert device[6:8] == [by_hand.files["superblock.bin"], by_hand.files["member-2.bin"]]
    filespace, local_key = by_hand.unboxed(device[5])
    assert filespace == by_hand.filespace
    journal = by_hand.files["journal.bin"]
    object_id, at, records = journal[12:44], 44, []
    label = reference.label_key(local_key, b"journal", by_hand.suite, bytes(16))
    key = reference.object_key(label, object_id)
    while length := int.from_bytes(journal[at : at + 4], "little"):
        sealed = journal[at + 4 : at + 4 + length]
        text = by_hand.opened(b"JRNL", key, bytes(16), object_id, len(records), sealed)
        records.append(unpacked(text))
        at += 4 + length
    assert at + 4 == len(journal)
    assert [record[0] for record in records] == [1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10]
    assert all(tuple(record[1]) == values.MARK for record in records)


def example() -> dict[str, str]:
    """Name -> value of the worked example in FORMAT.md."""
    section = (
        DOCS.read_text(encoding="utf-8").partition("A worked example")[2].partition("\n## ")[0]
    )
    lines = [line for line in section.splitlines() if line.startswith("    ")]
    return {name.strip(): value for name, _, value in (line.partition(" = ") for line in lines)}


def test_the_worked_example() -> None:
    op = Mkdir(3 << 32 | 7, 1763805600000000000, 1, b"docs", 0o40755, 1000, 1000, ())
    file = 2 << 32 | 5
    clone = Clone(3 << 32 | 10, op.time_ns, file, file, file, 2 << 32 | 6, 1, b"plan", op.time_ns)
    root, filespace, generation, segment = (
        bytes(range(32)),
        b"\x11" * 16,
        b"\x22" * 16,
        b"\x33" * 32,
    )
    move = Move(segment, 5, 700, 2, b"\x44" * 32, 0, 0)
    repack = Repack(3 << 32 | 11, op.time_ns, (move,))
    take = Take(3 << 32 | 12, op.time_ns, file, LEASE_EXCLUSIVE)
    give = Give(3 << 32 | 13, op.time_ns, file, LEASE_SHARED)
    takeover = Takeover(3 << 32 | 14, op.time_ns, file, 2, 4097)
    expected = {
        'hash("lucid")': hash_bytes(b"lucid").hex(),
        'digest16("lucid")': digest16(b"lucid").hex(),
        "op": pack(encode_op(op, {})).hex(),
        "rules": pack(encode_op(Rules(3 << 32 | 8, op.time_ns, 2), {})).hex(),
        "floor": pack(encode_op(Floor(3 << 32 | 9, op.time_ns, 4097), {})).hex(),
        "clone": pack(encode_op(clone, {})).hex(),
        "repack": pack(encode_op(repack, {b"\x44" * 32: 0})).hex(),
        "take": pack(encode_op(take, {})).hex(),
        "give": pack(encode_op(give, {})).hex(),
        "takeover": pack(encode_op(takeover, {})).hex(),
        "recovery code": format_recovery_code(bytes(range(20))),
    }
    for suite in (1, 2):
        label = reference.label_key(root, b"data", suite, generation)
        key = reference.object_key(label, segment)
        ad = reference.associated_data(b"DATA", suite, filespace, generation, segment, 5, 0, 5)
        expected[f"label key, suite {suite}"] = label.hex()
        expected[f"object key, suite {suite}"] = key.hex()
        expected[f"sealed, suite {suite}"] = reference.seal(suite, key, ad, 5, b"hello").hex()
        if suite == 1:
            expected["associated data, suite 1"] = ad.hex()
    assert example() == expected
