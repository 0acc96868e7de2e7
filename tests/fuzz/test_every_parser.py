"""Every parser of what lies in a store, on a local disk or comes from a hub: hypothesis alters the
golden vectors, and a parser gives a value or a typed error, and nothing else ever.

`test_parsers.py` beside this also looks whether what parses encodes to itself.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lucid.crypto import passphrase
from lucid.crypto.aead import open_object
from lucid.crypto.checkpoint import open_chunk, open_manifest
from lucid.crypto.device import open_device
from lucid.crypto.entry import open_entry
from lucid.crypto.footer import check_footer, open_footer
from lucid.crypto.founding import Unlocked, read_superblock, unlock
from lucid.crypto.keyring import KeyRing, unwrap_generation
from lucid.crypto.passphrase import SlotBinding, open_slot
from lucid.crypto.recovery import parse_recovery_code
from lucid.crypto.sealing import Place
from lucid.errors import InternalError, LucidError
from lucid.format import names
from lucid.format.canonical import unpack
from lucid.format.change import SegmentRow
from lucid.format.checkpoint import decode_header as decode_checkpoint_header
from lucid.format.checkpoint import decode_manifest, decode_rows, encode_manifest
from lucid.format.device import (
    DeviceSecret,
    decode_device,
    decode_device_secret,
    encode_device_secret,
)
from lucid.format.entry import decode_body, decode_header, encode_body
from lucid.format.floor import decode_floor, encode_floor
from lucid.format.generation import (
    GenerationSecret,
    decode_generation_box,
    decode_generation_secret,
    encode_generation_secret,
)
from lucid.format.hashes import hash_bytes
from lucid.format.journal import (
    decode_file_header,
    decode_frame_length,
    decode_record,
    encode_record,
)
from lucid.format.member import decode_member_record, decode_slot_secret, encode_slot_secret
from lucid.format.segment import decode_footer, decode_trailer, encode_footer
from lucid.format.superblock import decode_superblock
from lucid.format.token import parse_token
from lucid.local.disk import RealDisk
from lucid.local.frames import JournalKeys
from lucid.local.replay import Replay
from tests.format.values import BODY, EVERY_OP, EVERY_RECORD
from tests.fuzz.test_parsers import CHUNK_ROWS, FOOTER, MANIFEST, SLOT, packed_rows

REPOSITORY = Path(__file__).parents[2]
VECTORS = Path(__file__).parents[1] / "format/vectors/v1"
SUITES = ("aegis-256", "xchacha20-poly1305")
EXAMPLES = 120
ROOMS = ("format", "crypto")
PARSER = re.compile(r"(?:decode|open|parse|read|unpack|unwrap|unlock|check_footer)(?:_|\b)")
WITHIN = {
    "decode_segments": "decode_body",
    "decode_changes": "decode_body",
    "decode_moves": "decode_body",
    "decode_ops": "decode_body",
    "decode_op": "decode_body",
    "decode_xattrs": "decode_body",
}
"""Parsers that are handed a part of what another one has taken apart: they are altered with it."""
HUB = frozenset({"decode_frame", "decode_message", "decode_hint", "decode_presence"})
"""What a hub sends; their tests are in tests/hub."""
Parse = Callable[[bytes], object]


class Alteration(NamedTuple):
    """What is done to bytes: where, what, and with which bytes."""

    place: int
    action: int
    other: bytes

    def apply(self, data: bytes) -> bytes:
        place, action, other = self
        at = place % (len(data) + 1)
        if action == 0:
            return data[:at]
        if action == 1:
            return data[:at] + data[at + len(other) + 1 :]
        if action == 2:
            return data[:at] + other + data[at:]
        if action == 3:
            return data[:at] + other + data[at + len(other) :]
        if action == 4 and data:
            at %= len(data)
            return data[:at] + bytes([data[at] ^ 1 << place % 8]) + data[at + 1 :]
        return data[at:] + data[:at]


ALTERATIONS = st.lists(
    st.builds(Alteration, st.integers(0, 1 << 24), st.integers(0, 5), st.binary(max_size=24)),
    min_size=1,
    max_size=4,
)


def altered(data: bytes, alterations: list[Alteration]) -> bytes:
    for alteration in alterations:
        data = alteration.apply(data)
    return data


class Vectors:
    """The golden objects of one suite, and their keys."""

    def __init__(self, suite: str) -> None:
        self._place = VECTORS / suite
        self.facts = json.loads(self.file("facts.json"))
        self.unlocked: Unlocked = unlock(
            self.file("superblock.bin"), self.file("member-1.bin"), self.facts["passphrase"]
        )
        superblock = self.superblock = self.unlocked.superblock
        self.ring = KeyRing(superblock.filespace, superblock.suite)
        key = self._generation(self.file("generation.bin"))
        self.ring.add(superblock.generation, key, superblock.generation_key_hash)

    def file(self, name: str) -> bytes:
        return (self._place / name).read_bytes()

    def _generation(self, data: bytes) -> bytes:
        superblock = self.superblock
        return unwrap_generation(
            data, superblock.filespace, superblock.generation, self.unlocked.keys
        )

    def openers(self) -> dict[str, tuple[bytes, Parse]]:
        """Everything that needs a key."""
        superblock, ring = self.superblock, self.ring
        segment, tail = bytes.fromhex(self.facts["segment_id"]), self.file("segment.bin")
        row = SegmentRow(segment, len(tail), 100, hash_bytes(tail[-100:]), superblock.generation, 1)
        manifest = self.file("manifest.bin")
        sequence = json.loads(self.file("checkpoint.json"))["sequence"]
        ref = open_manifest(ring, sequence, manifest).manifest.chunks[0]
        place = Place(b"TEST", superblock.suite, superblock.filespace, bytes(16), bytes(32))
        slot = decode_member_record(self.file("member-1.bin")).slots[0]
        secret, keys = self.facts["passphrase"], self.unlocked.keys
        binding = SlotBinding(
            superblock.filespace,
            self.unlocked.superblock_hash,
            superblock.founder_sign_key,
            keys.member,
        )
        return {
            "superblock": (self.file("superblock.bin"), read_superblock),
            "member record": (
                self.file("member-1.bin"),
                lambda data: unlock(self.file("superblock.bin"), data, secret).keys.close(),
            ),
            "slot": (
                slot.sealed,
                lambda data: open_slot(slot._replace(sealed=data), secret.encode(), binding),
            ),
            "generation": (self.file("generation.bin"), self._generation),
            "entry": (
                self.file("entry-3.bin"),
                lambda data: open_entry(
                    data, 3, ring, superblock.generation, lambda member: None
                ),
            ),
            "end of a segment": (tail, lambda data: open_footer(ring, segment, data)),
            "digest of a footer": (tail, lambda data: check_footer(row, data)),
            "device": (
                self.file("device.bin"), lambda data: open_device(data, self.unlocked).close(),
            ),
            "chunk": (self.file("chunk-0.bin"), lambda data: open_chunk(ring, ref, data)),
            "manifest": (manifest, lambda data: open_manifest(ring, sequence, data)),
            "sealed object": (b"x" * 64, lambda data: open_object(bytes(32), place, data)),
        }  # fmt: skip


@lru_cache(maxsize=2)
def vectors_of(suite: str) -> Vectors:
    return Vectors(suite)


def file(name: str) -> bytes:
    """A golden object of which the suite is of no interest."""
    return (VECTORS / SUITES[0] / name).read_bytes()


CLEAR: dict[str, tuple[bytes, Parse]] = {
    "canonical": (encode_body(BODY), unpack),
    "superblock": (file("superblock.bin"), decode_superblock),
    "member record": (file("member-1.bin"), decode_member_record),
    "slot secret": (encode_slot_secret(SLOT), decode_slot_secret),
    "generation box": (file("generation.bin"), decode_generation_box),
    "generation secret": (
        encode_generation_secret(GenerationSecret(b"f" * 16, b"g" * 16, b"k" * 32)),
        decode_generation_secret,
    ),
    "device": (file("device.bin"), decode_device),
    "device secret": (
        encode_device_secret(DeviceSecret(b"f" * 16, b"k" * 32)), decode_device_secret,
    ),
    "header of an entry": (file("entry-3.bin"), decode_header),
    "footer": (encode_footer(FOOTER), decode_footer),
    "trailer": (file("segment.bin")[-40:], decode_trailer),
    "rows of a chunk": (packed_rows(CHUNK_ROWS), decode_rows),
    "manifest": (encode_manifest(MANIFEST), decode_manifest),
    "header of a chunk": (
        file("chunk-0.bin"), lambda data: decode_checkpoint_header(file("chunk-0.bin")[:8], data),
    ),
    "floor": (encode_floor(4096), decode_floor),
    "header of a journal": (file("journal.bin"), decode_file_header),
    "length of a frame": (file("journal.bin")[44:], decode_frame_length),
    **{
        f"body with {type(op).__name__} {number}": (
            encode_body(BODY._replace(ops=(op,))), decode_body,
        )
        for number, op in enumerate(EVERY_OP)
    },
    **{
        f"record {type(record).__name__} {number}": (encode_record(record), decode_record)
        for number, record in enumerate(EVERY_RECORD)
    },
}  # fmt: skip


def check(name: str, parse: Parse, data: bytes, alterations: list[Alteration]) -> None:
    """A value, or an error of our own."""
    mutated = altered(data, alterations)
    try:
        parse(mutated)
    except LucidError as error:
        assert not isinstance(error, InternalError), (name, mutated)
        assert str(error), (name, mutated)


@pytest.mark.parametrize("name", CLEAR)
@settings(max_examples=EXAMPLES)
@given(alterations=ALTERATIONS)
def test_what_is_clear(name: str, alterations: list[Alteration]) -> None:
    data, parse = CLEAR[name]
    check(name, parse, data, alterations)


@pytest.fixture
def known_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id for the golden slots only; whatever else is asked for gets zeros at once."""
    for suite in SUITES:
        vectors_of(suite)
    real = lru_cache(maxsize=16)(passphrase.bindings.crypto_pwhash_alg)
    salts = {
        slot.salt
        for suite in SUITES
        for slot in decode_member_record(vectors_of(suite).file("member-1.bin")).slots
    }

    def stretch(size: int, secret: bytes, salt: bytes, *limits: int) -> bytes:
        known = salt in salts and limits[:2] == (1, 64 << 20)
        return real(size, secret, salt, *limits) if known else bytes(size)

    monkeypatch.setattr(passphrase.bindings, "crypto_pwhash_alg", stretch)


SEALED = sorted(vectors_of(SUITES[0]).openers())


def test_what_is_not_altered_is_taken(known_stretch: None) -> None:
    """So the alterations begin at what a parser goes all through."""
    cases = {**CLEAR, **{f"sealed {name}": case for name, case in openers().items()}}
    for name, (data, parse) in cases.items():
        if name != "sealed sealed object":
            parse(data)


def openers() -> dict[str, tuple[bytes, Parse]]:
    return vectors_of(SUITES[0]).openers()


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", SEALED)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(alterations=ALTERATIONS)
def test_what_is_sealed(
    name: str, suite: str, known_stretch: None, alterations: list[Alteration]
) -> None:
    data, parse = vectors_of(suite).openers()[name]
    check(name, parse, data, alterations)


@pytest.mark.parametrize("suite", SUITES)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(alterations=ALTERATIONS)
def test_a_whole_journal(suite: str, tmp_path: Path, alterations: list[Alteration]) -> None:
    """Its replay ends, and tells of a tail that is torn or of damage."""
    vectors = vectors_of(suite)
    local = open_device(vectors.file("device.bin"), vectors.unlocked)
    keys = JournalKeys(vectors.superblock.suite, vectors.superblock.filespace, local.journal_key)

    def parse(data: bytes) -> object:
        (tmp_path / names.journal_name(1)).write_bytes(data)
        replay = Replay(RealDisk(), tmp_path, keys)
        return len(list(replay)), replay.report.torn_bytes

    check("journal", parse, vectors.file("journal.bin"), alterations)
    local.close()


@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (parse_token, "1a2b3c4d-1234-0123456789abcdef"),
        (parse_recovery_code, vectors_of(SUITES[0]).facts["recovery_code"]),
        *[
            (getattr(names, name), key)
            for name in names.__all__
            if name.startswith("parse_")
            for key in (names.log_key(7), names.segment_key(b"s" * 32), f"{7:016x}")
        ],
    ],
)
@settings(max_examples=EXAMPLES)
@given(alterations=ALTERATIONS)
def test_what_is_text(
    parse: Callable[[str], object], good: str, alterations: list[Alteration]
) -> None:
    check(
        parse.__name__, lambda data: parse(data.decode("utf-8", "replace")), good.encode(),
        alterations,
    )  # fmt: skip


def test_no_parser_is_left_out() -> None:
    """Whoever writes another parser adds it here."""
    found = {
        node.name
        for room in ROOMS
        for path in (REPOSITORY / "lucid" / room).glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and PARSER.match(node.name)
    }
    here = Path(__file__).read_text().partition("\ndef test_no_parser_is_left_out")[0]
    of_names = {name for name in names.__all__ if name.startswith("parse_")}
    used = {name for name in found if re.search(rf"\b{name}[,)(\]]", here)}
    assert len(found) > 40
    assert found - used - of_names - HUB - WITHIN.keys() == set()
    assert set(WITHIN.values()) <= used
