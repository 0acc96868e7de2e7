"""Makes the golden vectors of format 1: `python -m tests.format.vectors.make` writes them.

Everything is fixed: randomness, time, passphrase. The files are frozen. A test makes them again in
memory and compares, another opens them with nothing but FORMAT.md in hand. When a file changes,
filespaces out there no longer open: make a new format instead.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lucid.crypto.checkpoint import seal_chunk, seal_manifest
from lucid.crypto.device import make_device
from lucid.crypto.entry import seal_entry
from lucid.crypto.footer import seal_footer
from lucid.crypto.founding import Founding, Plan, found
from lucid.crypto.keyring import LocalKeys
from lucid.crypto.passphrase import Stretch
from lucid.crypto.record import change_passphrase
from lucid.crypto.sealing import (
    NO_GENERATION,
    TAG_BLOCK,
    TAG_JOURNAL,
    Place,
    seal_object,
    tag_size,
)
from lucid.format.change import DATA, Change, SegmentRow
from lucid.format.checkpoint import ChunkCutter, ChunkRef, Manifest, StateRow
from lucid.format.entry import NO_ENTRY, EntryBody, EntryRef
from lucid.format.hashes import ZERO_HASH, digest16, hash_bytes
from lucid.format.journal import (
    FileHeader,
    encode_file_header,
    encode_frame_length,
    encode_record,
)
from lucid.format.ops import ROOT_INO, Create, Op, SessionOp, make_op_id
from lucid.format.segment import FooterRow
from lucid.types import Entropy
from tests.crypto.reference import fixed_entropy
from tests.format.values import EVERY_RECORD, PLAIN_OPS, REGULAR, TIME_NS

HOME = Path(__file__).parent / "v1"
SUITES = {"aegis-256": 1, "xchacha20-poly1305": 2}
PASSPHRASE = "Fünf Wörter reichen hier aus"
NEW_PASSPHRASE = "and six do no harm either"
QUICK = Stretch(1, 64 << 20)
SESSION = 1
TEXTS = (b"The first file of the drive.\n", b"\x00\x01\x02" * 50)


def make(suite: int) -> dict[str, bytes]:
    """File name -> bytes of every vector of one suite."""
    entropy = fixed_entropy(f"vectors of format 1, suite {suite}".encode())
    plan = Plan("Größe".encode(), b"anna", PASSPHRASE, suite=suite, stretch=QUICK)
    founding = found(plan, entropy, TIME_NS)
    files = {_file_name(key): data for key, data in founding.objects}
    unlocked = founding.unlocked
    changed = change_passphrase(unlocked, NEW_PASSPHRASE, entropy, QUICK)
    files["member-2.bin"] = changed.data
    row, changes, files["segment.bin"] = _segment(founding, entropy)
    files |= _entries(founding, row, changes, files["entry-1.bin"], entropy)
    device = make_device(changed.unlocked, b"p" * 32, entropy)
    files["device.bin"] = device.data
    files["journal.bin"] = _journal(founding, device.keys, entropy)
    facts = {
        "suite": suite,
        "passphrase": PASSPHRASE,
        "new_passphrase": NEW_PASSPHRASE,
        "recovery_code": founding.recovery_code,
        "segment_id": row.id.hex(),
        "texts": [text.hex() for text in TEXTS],
        "hashes": {name: hash_bytes(data).hex() for name, data in sorted(files.items())},
    }
    files["facts.json"] = json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"
    return files | _checkpoint(founding, row, files["entry-4.bin"], entropy)


def _file_name(key: str) -> str:
    names = {"members": "member-1", "keys": "generation", "superblock": "superblock"}
    return f"{names.get(key.split('/')[0], 'entry-1')}.bin"


def _segment(founding: Founding, entropy: Entropy) -> tuple[SegmentRow, tuple[Change, ...], bytes]:
    """Two small files in one segment, the head then being entry 2."""
    superblock, ring = founding.unlocked.superblock, founding.ring
    segment = entropy(32)
    key = ring.data_key(segment, superblock.generation)
    place = Place(TAG_BLOCK, superblock.suite, superblock.filespace, superblock.generation, segment)
    data, rows, changes = b"", [], []
    for ordinal, text in enumerate(TEXTS):
        sealed = seal_object(key, place._replace(ordinal=ordinal), text)
        rows.append(FooterRow(make_op_id(SESSION, ordinal + 1), 0, len(text), 0, digest16(sealed)))
        size = len(text)
        changes.append(Change(0, 1, DATA, segment, ordinal, len(data), 0, size, size))
        data += sealed
        assert len(sealed) == size + tag_size(superblock.suite)
    tail, digest = seal_footer(
        key, superblock.suite, superblock.filespace, superblock.generation, segment, rows
    )
    data += tail
    row = SegmentRow(segment, len(data), len(tail), digest, superblock.generation, 2)
    return row, tuple(changes), data


def _entries(
    founding: Founding,
    row: SegmentRow,
    changes: tuple[Change, ...],
    first: bytes,
    entropy: Entropy,
) -> dict[str, bytes]:
    """A session, two files, and one op of each other kind."""
    unlocked, generation = founding.unlocked, founding.unlocked.superblock.generation
    member = unlocked.keys.member
    link = EntryRef(1, hash_bytes(first))

    def seal(number: int, body: EntryBody) -> bytes:
        return seal_entry(founding.ring, unlocked.keys, generation, number, body, entropy)

    asks = SessionOp(0, TIME_NS, entropy(16), b"laptop")
    second = seal(2, EntryBody(member, 0, link.hash, ZERO_HASH, link, None, (), (asks,)))
    creates = tuple(
        Create(
            make_op_id(SESSION, at + 1), TIME_NS, ROOT_INO, b"file %d" % at, REGULAR, 1000, 1000,
            TIME_NS, TIME_NS, (), len(text), (changes[at],),
        )
        for at, text in enumerate(TEXTS)
    )  # fmt: skip
    body = EntryBody(member, SESSION, hash_bytes(second), ZERO_HASH, link, None, (row,), creates)
    third = seal(3, body)
    others = tuple(_moved(op) for op in PLAIN_OPS if not getattr(op, "changes", ()))
    state = EntryRef(2, b"s" * 32)
    body = EntryBody(member, SESSION, hash_bytes(third), hash_bytes(third), link, state, (), others)
    assert NO_ENTRY.sequence == 0
    return {"entry-2.bin": second, "entry-3.bin": third, "entry-4.bin": seal(4, body)}


def _moved(op: Op) -> Op:
    """A plain op as one of our session."""
    fields = op._asdict()
    for name in ("op_id", "target"):
        if isinstance(fields.get(name), int):
            fields[name] = make_op_id(SESSION, 100 + (fields[name] & 0xFF))
    return type(op)(**fields)


def state_rows(founding: Founding, row: SegmentRow, entry: bytes) -> list[StateRow]:
    """One row of each table, and names of files enough for a chunk to end among them."""
    superblock, keys = founding.unlocked.superblock, founding.unlocked.keys
    digest, ino = hash_bytes(entry), make_op_id(SESSION, 1)
    run = (2, DATA, row.id, 0, 0, 0, 29, 29, b"")
    return [
        (1, 4, digest, 1, ZERO_HASH, 0, 3, 179),
        (2, b"rules", b"1"),
        (3, keys.member, b"anna", superblock.founder_sign_key, superblock.founder_box_key, 3),
        (4, superblock.generation, 1, superblock.generation_key_hash),
        (5, SESSION, keys.member, b"n" * 16, b"laptop", 4, digest),
        (6, 4096, digest),
        (7, *row),
        (8, ino, REGULAR, 1000, 1000, 0, 1, 29, ino, TIME_NS, TIME_NS, TIME_NS, 29, b"",
         ROOT_INO, b"file 0", 0),
        (9, ROOT_INO, TIME_NS, 0),
        *((10, ROOT_INO, b"file %04d" % at, ino + at, ino + at) for at in range(900)),
        (11, ino, b"user.colour", b"blue"),
        (12, ino, ino, 3 << 14, 0, 29, TIME_NS),
        (13, ino, 0, 0, ino, *run[:-1], b"\x3d\0\0\0\x10\0\0\0"),
        (14, ino, 0, 7, *run),
        (15, ino + 9, ino + 10, TIME_NS, 3 << 14 | 1),
    ]  # fmt: skip


def _checkpoint(
    founding: Founding, row: SegmentRow, entry: bytes, entropy: Entropy
) -> dict[str, bytes]:
    """The checkpoint at entry 4096 of a state that holds a row of each kind."""
    unlocked, generation = founding.unlocked, founding.unlocked.superblock.generation
    cutter = ChunkCutter()
    chunks = [*cutter.add(state_rows(founding, row, entry)), *cutter.end()]
    files, refs = {}, []
    for number, chunk in enumerate(chunks):
        files[f"chunk-{number}.bin"] = seal_chunk(founding.ring, generation, chunk, entropy)
        refs.append(ChunkRef(chunk.first_key, 4096, entropy(16), chunk.hash))
    manifest = Manifest(
        unlocked.keys.member, SESSION, TIME_NS, hash_bytes(entry), tuple(refs)
    )  # fmt: skip
    files["manifest.bin"] = seal_manifest(
        founding.ring, unlocked.keys, generation, 4096, manifest, entropy
    )
    facts = {
        "sequence": 4096,
        "state_hash": manifest.state_hash.hex(),
        "hashes": {name: hash_bytes(data).hex() for name, data in sorted(files.items())},
    }
    files["checkpoint.json"] = json.dumps(facts, indent=2).encode() + b"\n"
    return files


def _journal(founding: Founding, keys: LocalKeys, entropy: Entropy) -> bytes:
    """A journal file with one record of each kind, and its end."""
    superblock = founding.unlocked.superblock
    header = FileHeader(superblock.suite, entropy(32))
    key = keys.journal_key(header.object_id)
    place = Place(
        TAG_JOURNAL, superblock.suite, superblock.filespace, NO_GENERATION, header.object_id
    )
    data = encode_file_header(header)
    for ordinal, record in enumerate(EVERY_RECORD):
        sealed = seal_object(key, place._replace(ordinal=ordinal), encode_record(record))
        data += encode_frame_length(len(sealed)) + sealed
    return data + bytes(4)


def main() -> None:
    """Writes all vectors; refuses to write over another one."""
    for name, suite in SUITES.items():
        home = HOME / name
        home.mkdir(parents=True, exist_ok=True)
        for file, data in make(suite).items():
            path = home / file
            if path.exists() and path.read_bytes() != data:
                sys.exit(f"{path} would change: format 1 is frozen.")
            path.write_bytes(data)


if __name__ == "__main__":
    main()
