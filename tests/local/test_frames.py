"""The bytes of a journal file, built a second time by hand from FORMAT sections 3 and 11."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from nacl import bindings

from lucid.errors import CorruptObject, FormatError
from lucid.format.journal import FileHeader, Limit, Mark, Patch, Settled, encode_record
from lucid.format.limits import FRAME_MAX
from lucid.local.disk import RealDisk
from lucid.local.frames import JournalKeys
from lucid.local.journal import Journal
from lucid.local.replay import Replay
from tests.local.keys import AEGIS, XCHACHA

FILESPACE = bytes(range(16))
OBJECT_ID = bytes(range(100, 132))
SEAL = {
    AEGIS: (bindings.crypto_aead_aegis256_encrypt, 24),
    XCHACHA: (bindings.crypto_aead_xchacha20poly1305_ietf_encrypt, 16),
}


def key_of(object_id: bytes) -> bytes:
    return bytes(byte ^ 0x55 for byte in object_id)


def frame_by_hand(suite: int, ordinal: int, record: bytes) -> bytes:
    """u32 length || seal, with the 88 bytes of associated data written out."""
    seal, padding = SEAL[suite]
    nonce = struct.pack("<Q", ordinal) + bytes(padding)
    data = b"JRNL" + struct.pack("<HH", 1, suite) + FILESPACE + bytes(16) + OBJECT_ID
    data += struct.pack("<QII", ordinal, 0, len(record))
    assert len(data) == 88
    sealed = seal(record, data, nonce, key_of(OBJECT_ID))
    return struct.pack("<I", len(sealed)) + sealed


@pytest.mark.parametrize("suite", [AEGIS, XCHACHA])
def test_a_journal_file_is_what_the_format_says(disk: RealDisk, root: Path, suite: int) -> None:
    keys = JournalKeys(suite, FILESPACE, key_of)
    replay = Replay(disk, root, keys)
    replay.finish()
    with Journal(disk, root, keys, lambda size: OBJECT_ID[:size], replay) as journal:
        journal.append(Patch(5, 6, 7, b"eight"))
        journal.sync()
        journal.append_many([Limit(65536), Settled(3)])
        mark = journal.mark
    begin = b"\x94\x01\x92\x00\x00\x01\x01"
    expected = b"LUCIDJN1" + struct.pack("<HH", 1, suite) + OBJECT_ID
    expected += frame_by_hand(suite, 0, begin)
    first = Mark(1, len(expected))
    expected += frame_by_hand(suite, 1, encode_record(Patch(5, 6, 7, b"eight"), first))
    second = Mark(1, len(expected))
    assert mark >= second
    expected += frame_by_hand(suite, 2, encode_record(Limit(65536), second))
    expected += frame_by_hand(suite, 3, encode_record(Settled(3), second))
    assert (root / "0000000000000001").read_bytes() == expected


def test_a_frame_opens_in_its_own_place_only() -> None:
    keys = JournalKeys(AEGIS, FILESPACE, key_of)
    key = keys.file(FileHeader(AEGIS, OBJECT_ID))
    frame = key.seal(3, b"record")
    assert len(frame) == len(b"record") + key.overhead
    assert key.open(3, frame[4:]) == b"record"
    other_file = keys.file(FileHeader(AEGIS, bytes(32)))
    other_space = JournalKeys(AEGIS, bytes(16), key_of).file(FileHeader(AEGIS, OBJECT_ID))
    for wrong, ordinal in ((key, 4), (other_file, 3), (other_space, 3)):
        with pytest.raises(CorruptObject):
            wrong.open(ordinal, frame[4:])
    for size in range(len(frame) - 4):
        with pytest.raises(CorruptObject):
            key.open(3, frame[4 : 4 + size])


def test_a_frame_has_a_limit() -> None:
    key = JournalKeys(AEGIS, FILESPACE, key_of).file(FileHeader(AEGIS, OBJECT_ID))
    most = FRAME_MAX - (key.overhead - 4)
    assert len(key.seal(0, bytes(most))) == FRAME_MAX + 4
    with pytest.raises(FormatError, match="16 MiB"):
        key.seal(1, bytes(most + 1))
