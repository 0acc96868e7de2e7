"""Chunks and manifests: cut where FORMAT.md says, read by it alone, and refused when altered."""

from __future__ import annotations

import json
from functools import cache
from hashlib import blake2b
from random import Random
from typing import Any

import msgpack
import pytest
from nacl import bindings

from lucid.crypto.checkpoint import open_chunk, open_manifest, seal_chunk, seal_manifest
from lucid.crypto.founding import Plan, found
from lucid.crypto.passphrase import Stretch
from lucid.errors import CorruptObject, DataError, FormatError, LucidError
from lucid.format.checkpoint import (
    CHUNK_BYTES,
    TABLE_FIELDS,
    Chunk,
    ChunkCutter,
    ChunkRef,
    Manifest,
    StateRow,
    StateTable,
    decode_manifest,
    decode_rows,
    encode_manifest,
    state_hash,
)
from lucid.format.hashes import hash_bytes
from tests.format.test_vectors import SUITES, reader

RANDOM = Random(3).randbytes


def dentries(count: int) -> list[StateRow]:
    return [(StateTable.DENTRY, 1, b"name %05d" % at, at + 2, at + 2) for at in range(count)]


def cut(rows: list[StateRow], batch: int) -> list[Chunk]:
    cutter = ChunkCutter()
    found = []
    for start in range(0, len(rows), batch):
        found += cutter.add(rows[start : start + batch])
    return found + cutter.end()


def test_chunks_end_by_their_keys_however_the_rows_arrive() -> None:
    rows = dentries(10_000)
    chunks = cut(rows, 7)
    assert chunks == cut(rows, 1000)
    assert 3 < len(chunks) < 40
    for chunk in chunks:
        *inner, last = (msgpack.packb(row[:3]) for row in decode_rows(chunk.data))
        assert not any(int.from_bytes(hash_bytes(key)[:2], "big") >> 6 == 0 for key in inner)
        if chunk is not chunks[-1]:
            assert int.from_bytes(hash_bytes(last)[:2], "big") >> 6 == 0
    assert [row for chunk in chunks for row in decode_rows(chunk.data)] == rows


def test_a_row_more_changes_one_chunk_or_two() -> None:
    rows = dentries(10_000)
    more = sorted([*rows, (StateTable.DENTRY, 1, b"name 05000 and more", 7, 7)])
    before = {chunk.hash for chunk in cut(rows, 100)}
    after = {chunk.hash for chunk in cut(more, 100)}
    assert 1 <= len(after - before) <= 2
    assert state_hash(sorted(before)) != state_hash(sorted(after))


def test_large_rows_end_a_chunk() -> None:
    rows: list[StateRow] = [
        (StateTable.XATTR, 7, b"user.%03d" % at, b"v" * 60_000) for at in range(50)
    ]
    sizes = [len(chunk.data) for chunk in cut(rows, 50)]
    assert max(sizes) < CHUNK_BYTES + 61_000
    assert len(sizes) >= 3


GOOD = msgpack.packb((10, 1, b"a", 5, 5)) + msgpack.packb((10, 1, b"b", 6, 6))
BAD = {
    "nothing": b"",
    "an unknown table": msgpack.packb((99, 1)),
    "no table": msgpack.packb(()),
    "a field too many": msgpack.packb((9, 1, 2, 3, 4)),
    "a field of another type": msgpack.packb((9, 1, 2, b"3")),
    "a truth": msgpack.packb((9, 1, 2, True)),
    "an array in a row": msgpack.packb((9, 1, 2, (3,))),
    "a map": msgpack.packb({}),
    "a number beyond 63 bits": msgpack.packb((9, 1, 2, 1 << 63)),
    "rows in another order": msgpack.packb((9, 2, 1, 1)) + msgpack.packb((9, 1, 1, 1)),
    "a row twice": msgpack.packb((9, 2, 1, 1)) * 2,
    "a long form": b"\x94\x0a" + b"\xcd\x00\x01" + b"\xc4\x01a" + b"\x05\x05",
    "a cut row": GOOD[:-1],
    "bytes behind": GOOD + b"\x07",
    "a name with a slash": msgpack.packb((10, 1, b"a/b", 5, 5)),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_a_chunk_is_refused(what: str) -> None:
    assert len(decode_rows(GOOD)) == 2
    with pytest.raises(FormatError):
        decode_rows(BAD[what])


def test_a_manifest_comes_back_and_altered_ones_do_not() -> None:
    ref = ChunkRef(b"\x91\x01", 4096, b"n" * 16, b"h" * 32)
    manifest = Manifest(b"m" * 16, 7, -1, b"e" * 32, (ref, ref))
    assert decode_manifest(encode_manifest(manifest)) == manifest
    for bad in (
        manifest._replace(chunks=()),
        manifest._replace(session=0),
        manifest._replace(member=b"m"),
        manifest._replace(chunks=(ref._replace(name=b"n" * 15),)),
        manifest._replace(chunks=(ref._replace(first_key=b""),)),
        manifest._replace(chunks=(ref._replace(sequence=0),)),
    ):
        with pytest.raises(FormatError):
            encode_manifest(bad)
        with pytest.raises(FormatError):
            decode_manifest(msgpack.packb([*bad[:-1], [list(row) for row in bad.chunks]]))


def test_sealed_objects_open_in_their_place_only() -> None:
    founding = found(Plan(b"t", b"a", "pass", stretch=Stretch(1, 64 << 20)), RANDOM, 1)
    ring, keys = founding.ring, founding.unlocked.keys
    superblock = founding.unlocked.superblock
    generation = superblock.generation
    (chunk,) = cut(dentries(3), 3)
    ref = ChunkRef(chunk.first_key, 8, b"n" * 16, chunk.hash)
    sealed = seal_chunk(ring, generation, chunk, RANDOM)
    assert open_chunk(ring, ref, sealed) == chunk.data
    with pytest.raises(CorruptObject):
        open_chunk(ring, ref._replace(hash=b"h" * 32), sealed)
    manifest = Manifest(keys.member, 1, 1, b"e" * 32, (ref,))
    signed = seal_manifest(ring, keys, generation, 8, manifest, RANDOM)
    opened = open_manifest(ring, 8, signed)
    assert opened.manifest == manifest
    assert opened.is_signed_by(superblock.founder_sign_key)
    assert not open_manifest(ring, 9, signed).is_signed_by(superblock.founder_sign_key)
    with pytest.raises(DataError):
        open_manifest(ring, 8, sealed)
    for data, opener in (
        (sealed, lambda data: open_chunk(ring, ref, data)),
        (signed, lambda data: open_manifest(ring, 8, data)),
    ):
        for at in (0, 8, 10, 12, 28, 60, len(data) - 1):
            altered = bytearray(data)
            altered[at] ^= 1
            with pytest.raises(LucidError):
                opener(bytes(altered))
        with pytest.raises(DataError):
            opener(data[:40])


@cache
def facts(suite: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(reader(suite).files["checkpoint.json"])
    return loaded


def opened_by_hand(suite: str, name: str, magic: bytes, tag: bytes) -> bytes:
    by_hand = reader(suite)
    data = by_hand.files[name]
    assert data[:12] == magic + b"\1\0" + by_hand.suite.to_bytes(2, "little")
    assert data[12:28] == by_hand.generation
    key = by_hand.object_key(b"checkpoint", data[28:60])
    return by_hand.opened(tag, key, data[12:28], data[28:60], 0, data[60:])


@pytest.mark.parametrize("suite", SUITES)
def test_the_vectors_open_by_the_page_alone(suite: str) -> None:
    by_hand = reader(suite)
    text = opened_by_hand(suite, "manifest.bin", b"LUCIDCM1", b"MANI")
    signed = b"lucid checkpoint v1\0" + by_hand.filespace + (4096).to_bytes(8, "little")
    signed += by_hand.files["manifest.bin"][:60] + text[:-64]
    bindings.crypto_sign_open(text[-64:] + signed, by_hand.founder_key)
    _member, session, _time, entry_hash, chunks = msgpack.unpackb(text[:-64], raw=True)
    assert session == 1
    entry = by_hand.files["entry-4.bin"]
    assert entry_hash == blake2b(entry, digest_size=32).digest()
    hashes = []
    for number, (first_key, sequence, name, digest) in enumerate(chunks):
        assert (sequence, len(name)) == (4096, 16)
        rows = opened_by_hand(suite, f"chunk-{number}.bin", b"LUCIDCC1", b"CHNK")
        assert blake2b(rows, digest_size=32).digest() == digest
        assert rows[1 : len(first_key)] == first_key[1:], "but for the lengths of the arrays"
        hashes.append(digest)
    assert len(hashes) >= 2
    digest = blake2b(b"".join(hashes), digest_size=32).hexdigest()
    assert digest == facts(suite)["state_hash"]


@pytest.mark.parametrize("suite", SUITES)
def test_the_vectors_hold_a_row_of_each_table(suite: str) -> None:
    tables = set()
    for name in facts(suite)["hashes"]:
        if name.startswith("chunk"):
            text = opened_by_hand(suite, name, b"LUCIDCC1", b"CHNK")
            tables |= {row[0] for row in decode_rows(text)}
    assert tables == set(TABLE_FIELDS)
