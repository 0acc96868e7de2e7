"""Chunks and manifests of checkpoints, sealed and signed, opened and checked (FORMAT 7.1).

Pure but for the key ring; any thread, no lock held.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.crypto.keyring import KeyRing
from lucid.crypto.member import MemberKeys, verify
from lucid.crypto.sealing import (
    LABEL_CHECKPOINT,
    TAG_CHUNK,
    TAG_MANIFEST,
    Place,
    object_key,
    open_object,
    seal_object,
)
from lucid.errors import CorruptObject, FormatError
from lucid.format.checkpoint import (
    CHUNK_MAGIC,
    CHUNK_OBJECT_MAX,
    HEADER_SIZE,
    MANIFEST_MAGIC,
    MANIFEST_OBJECT_MAX,
    SIGNATURE_SIZE,
    Chunk,
    ChunkRef,
    Manifest,
    ObjectHeader,
    decode_header,
    decode_manifest,
    encode_header,
    encode_manifest,
    signed_bytes,
)
from lucid.format.hashes import hash_bytes
from lucid.format.limits import SEGMENT_ID_SIZE
from lucid.types import Entropy

__all__ = ["SignedManifest", "open_chunk", "open_manifest", "seal_chunk", "seal_manifest"]


class SignedManifest(NamedTuple):
    """A manifest that opened; its signature is still to be checked with the member's key."""

    manifest: Manifest
    signature: bytes
    signed: bytes

    def is_signed_by(self, sign_key: bytes) -> bool:
        return verify(sign_key, self.signature, self.signed)


def seal_chunk(ring: KeyRing, generation: bytes, chunk: Chunk, entropy: Entropy) -> bytes:
    """The whole object of a chunk. Raises CorruptObject without the generation's key."""
    header = ObjectHeader(ring.suite, generation, entropy(SEGMENT_ID_SIZE))
    place = _place(ring, header, TAG_CHUNK)
    return encode_header(CHUNK_MAGIC, header) + seal_object(_key(ring, header), place, chunk.data)


def open_chunk(ring: KeyRing, ref: ChunkRef, data: bytes) -> bytes:
    """The rows of the chunk that a manifest names.

    Raises FormatError, UnsupportedFormat; CorruptObject if it is another one, or its key is not
    in the ring.
    """
    if len(data) > CHUNK_OBJECT_MAX:
        raise FormatError("A chunk of a checkpoint is too long.")
    header = decode_header(CHUNK_MAGIC, data)
    place = _place(ring, header, TAG_CHUNK)
    opened = open_object(_key(ring, header), place, data[HEADER_SIZE:])
    if hash_bytes(opened) != ref.hash:
        raise CorruptObject("A chunk is not the one that its manifest names.")
    return opened


def seal_manifest(
    ring: KeyRing,
    keys: MemberKeys,
    generation: bytes,
    sequence: int,
    manifest: Manifest,
    entropy: Entropy,
) -> bytes:
    """The whole object of a manifest, signed by the member that it names."""
    if manifest.member != keys.member:
        raise FormatError("A manifest is signed by the member that it names.")
    header = ObjectHeader(ring.suite, generation, entropy(SEGMENT_ID_SIZE))
    clear, body = encode_header(MANIFEST_MAGIC, header), encode_manifest(manifest)
    signature = keys.sign(signed_bytes(ring.filespace, sequence, clear, body))
    place = _place(ring, header, TAG_MANIFEST)
    return clear + seal_object(_key(ring, header), place, body + signature)


def open_manifest(ring: KeyRing, sequence: int, data: bytes) -> SignedManifest:
    """What the manifest of the checkpoint at `sequence` says, and who is to have signed it.

    Raises FormatError, UnsupportedFormat, CorruptObject.
    """
    if len(data) > MANIFEST_OBJECT_MAX:
        raise FormatError("A manifest is too long.")
    header = decode_header(MANIFEST_MAGIC, data)
    place = _place(ring, header, TAG_MANIFEST)
    opened = open_object(_key(ring, header), place, data[HEADER_SIZE:])
    body, signature = opened[:-SIGNATURE_SIZE], opened[-SIGNATURE_SIZE:]
    signed = signed_bytes(ring.filespace, sequence, data[:HEADER_SIZE], body)
    return SignedManifest(decode_manifest(body), signature, signed)


def _key(ring: KeyRing, header: ObjectHeader) -> bytes:
    return object_key(ring.label_key(LABEL_CHECKPOINT, header.generation), header.object_id)


def _place(ring: KeyRing, header: ObjectHeader, tag: bytes) -> Place:
    if header.suite != ring.suite or header.generation not in ring:
        raise CorruptObject("An object of a checkpoint is sealed with a suite or key of others.")
    return Place(tag, ring.suite, ring.filespace, header.generation, header.object_id)
