"""From a root key to the key of one object (FORMAT section 3), and the tags of what is sealed.

Pure; any thread.
"""

from __future__ import annotations

from hashlib import blake2b

from lucid.crypto.aead import Place, associated_data, open_object, seal_object, tag_size

__all__ = [
    "LABEL_CHECKPOINT",
    "LABEL_DATA",
    "LABEL_JOURNAL",
    "LABEL_LOG",
    "LABEL_REPLICA",
    "LABEL_ROOM",
    "NO_GENERATION",
    "TAG_BLOCK",
    "TAG_CHUNK",
    "TAG_ENTRY",
    "TAG_FOOTER",
    "TAG_JOURNAL",
    "TAG_LOCAL",
    "TAG_MANIFEST",
    "TAG_ROOM",
    "TAG_SLOT",
    "Place",
    "associated_data",
    "label_key",
    "object_key",
    "open_object",
    "seal_object",
    "slot_key",
    "tag_size",
]

NO_GENERATION = bytes(16)

# What a sealed thing is; part of its associated data. Do not change.
TAG_BLOCK = b"DATA"
TAG_FOOTER = b"FOOT"
TAG_ENTRY = b"ENTR"
TAG_CHUNK = b"CHNK"
TAG_MANIFEST = b"MANI"
TAG_SLOT = b"SLOT"
TAG_JOURNAL = b"JRNL"
TAG_LOCAL = b"LOCL"
TAG_ROOM = b"ROOM"

# Labels under a generation's key.
LABEL_DATA = b"data"
LABEL_LOG = b"log"
LABEL_CHECKPOINT = b"checkpoint"
LABEL_ROOM = b"room"
# Labels under a state directory's local key.
LABEL_JOURNAL = b"journal"
LABEL_REPLICA = b"replica"


def label_key(root: bytes, label: bytes, suite: int, generation: bytes = NO_GENERATION) -> bytes:
    """The key of all objects of one kind under `root`; `generation` is zeros for a local key."""
    data = label + b"\0" + suite.to_bytes(2, "little") + generation
    return blake2b(data, digest_size=32, key=root, person=b"lucid label key").digest()


def object_key(label: bytes, object_id: bytes) -> bytes:
    """The key of one object under the key of its label."""
    return blake2b(object_id, digest_size=32, key=label, person=b"lucid object key").digest()


def slot_key(stretched: bytes, kind: int, binding: bytes, object_id: bytes) -> bytes:
    """The key of a slot. `binding` is all that the slot is bound to, joined (section 5)."""
    data = kind.to_bytes(2, "little") + binding + object_id
    return blake2b(data, digest_size=32, key=stretched, person=b"lucid slot key").digest()
