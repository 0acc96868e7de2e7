"""Log entries sealed and signed, opened and judged (FORMAT section 7).

What can be told from an entry's own bytes is told here; what needs the state (previous hash, role,
rules in force) is the log's. Pure but for the key ring; any thread, no lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys, verify
from lucid.crypto.sealing import TAG_ENTRY, Place, open_object, seal_object
from lucid.errors import CorruptObject, DataError, FormatError, UnsupportedFormat
from lucid.format.entry import (
    HEADER_SIZE,
    SIGNATURE_SIZE,
    EntryBody,
    EntryHeader,
    check_body,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    signed_bytes,
)
from lucid.format.hashes import hash_bytes
from lucid.format.limits import (
    AUTHOR_ENTRY_MAX,
    AUTHOR_OPS_MAX,
    ENTRY_MAX,
    ID_SIZE,
    SEGMENT_ID_SIZE,
)
from lucid.types import Entropy

__all__ = ["OpenedEntry", "VoidEntry", "VoidReason", "open_entry", "seal_entry"]


class VoidReason(Enum):
    """Why an entry is void by its own bytes."""

    SIZE = "over 16 MiB"
    SEAL = "does not open under the key of the log"
    FORMAT = "not in the format"
    SIGNER = "signed by no member"
    SIGNATURE = "the signature is wrong"


class OpenedEntry(NamedTuple):
    """An entry whose seal, form and signature are right. `hash` is over its stored bytes."""

    sequence: int
    hash: bytes
    body: EntryBody


class VoidEntry(NamedTuple):
    """An entry that changes nothing, but keeps its number and hash."""

    sequence: int
    hash: bytes
    reason: VoidReason
    detail: str


def seal_entry(
    ring: KeyRing,
    keys: MemberKeys,
    generation: bytes,
    sequence: int,
    body: EntryBody,
    entropy: Entropy,
) -> bytes:
    """The whole object. A fresh object id each time, so that a retry with other ops is another key.

    Raises FormatError for what no entry may hold or an author may not write, UnknownKey without the
    generation's key.
    """
    if len(body.ops) > AUTHOR_OPS_MAX:
        raise FormatError(f"An author keeps an entry to {AUTHOR_OPS_MAX} ops.")
    if body.member != keys.member:
        raise FormatError("An entry is signed by the member that it names.")
    check_body(sequence, body)
    header = EntryHeader(ring.suite, generation, entropy(SEGMENT_ID_SIZE))
    clear, packed = encode_header(header), encode_body(body)
    signature = keys.sign(signed_bytes(ring.filespace, sequence, clear, packed))
    key = ring.log_key(header.object_id, generation)
    sealed = seal_object(key, _place(ring, header), packed + signature)
    if len(clear) + len(sealed) > AUTHOR_ENTRY_MAX:
        raise FormatError("An author keeps an entry to 4 MiB.")
    return clear + sealed


def open_entry(
    data: bytes,
    sequence: int,
    ring: KeyRing,
    generation: bytes,
    sign_key_of: Callable[[bytes], bytes | None],
) -> OpenedEntry | VoidEntry:
    """What entry `sequence` says, or why it is void by its own bytes.

    `generation` is the one of the state before this entry, `sign_key_of` gives the signing key of a
    member of that state. Raises UnknownKey without the key of that generation, and
    UnsupportedFormat for a genesis with rules of a newer version: who cannot read stops, and calls
    nothing void. Read the entry again before calling it void.
    """
    # Asked for before anything is judged: whoever lacks the key cannot tell a void entry.
    ring.log_key(bytes(SEGMENT_ID_SIZE), generation)
    digest = hash_bytes(data)

    def void(reason: VoidReason, detail: str = "") -> VoidEntry:
        return VoidEntry(sequence, digest, reason, detail or f"{reason.value}.")

    if len(data) > ENTRY_MAX:
        return void(VoidReason.SIZE)
    try:
        header = decode_header(data)
    except DataError as error:
        return void(VoidReason.FORMAT, str(error))
    if header.suite != ring.suite or header.generation != generation:
        return void(VoidReason.SEAL)
    key = ring.log_key(header.object_id, generation)
    try:
        opened = open_object(key, _place(ring, header), data[HEADER_SIZE:])
    except CorruptObject:
        return void(VoidReason.SEAL)
    return _judge(opened, data[:HEADER_SIZE], sequence, ring.filespace, sign_key_of, void, digest)


def _judge(
    opened: bytes,
    clear: bytes,
    sequence: int,
    filespace: bytes,
    sign_key_of: Callable[[bytes], bytes | None],
    void: Callable[..., VoidEntry],
    digest: bytes,
) -> OpenedEntry | VoidEntry:
    packed, signature = opened[:-SIGNATURE_SIZE], opened[-SIGNATURE_SIZE:]
    try:
        body = decode_body(packed)
        check_body(sequence, body)
    except DataError as error:
        # Genesis sets the rules. Whoever does not know them stops; elsewhere genesis is void.
        if sequence == 1 and isinstance(error, UnsupportedFormat):
            raise
        return void(VoidReason.FORMAT, str(error))
    sign_key = sign_key_of(body.member)
    if sign_key is None:
        return void(VoidReason.SIGNER)
    if not verify(sign_key, signature, signed_bytes(filespace, sequence, clear, packed)):
        return void(VoidReason.SIGNATURE)
    return OpenedEntry(sequence, digest, body)


def _place(ring: KeyRing, header: EntryHeader) -> Place:
    return Place(TAG_ENTRY, ring.suite, ring.filespace, header.generation, header.object_id)


assert HEADER_SIZE == 8 + 2 + 2 + ID_SIZE + SEGMENT_ID_SIZE
