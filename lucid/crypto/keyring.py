"""The keys of a filespace's generations, and of a state directory (FORMAT sections 3 and 6).

A key ring is filled while the log is read and asked by every thread that seals or opens.
"""

from __future__ import annotations

import threading

from lucid.crypto.aead import check_suite
from lucid.crypto.member import MemberKeys, box_for
from lucid.crypto.sealing import (
    LABEL_DATA,
    LABEL_JOURNAL,
    LABEL_LOG,
    LABEL_REPLICA,
    label_key,
    object_key,
)
from lucid.errors import CorruptObject, KeyringError, UnknownKey
from lucid.format.generation import (
    GenerationSecret,
    decode_generation_box,
    decode_generation_secret,
    encode_generation_box,
    encode_generation_secret,
)
from lucid.format.hashes import hash_bytes
from lucid.format.limits import ID_SIZE, KEY_SIZE
from lucid.types import Entropy

__all__ = ["KeyRing", "LocalKeys", "unwrap_generation", "wrap_generation"]


class KeyRing:
    """Generation id -> key, and the label keys under them.

    Guarded by _lock: both dictionaries. Keys are held in bytearrays so that `close` can wipe them.
    """

    def __init__(self, filespace: bytes, suite: int) -> None:
        self.filespace = filespace
        self.suite = check_suite(suite)
        self._lock = threading.Lock()
        self._roots: dict[bytes, bytearray] = {}
        self._labels: dict[tuple[bytes, bytes], bytearray] = {}

    def add(self, generation: bytes, key: bytes, key_hash: bytes | None = None) -> None:
        """Takes a generation's key; `key_hash` is what the log says of it.

        Raises CorruptObject for a key that the log does not know, and KeyringError for another key
        under a generation that is here already.
        """
        if len(generation) != ID_SIZE or len(key) != KEY_SIZE:
            raise KeyringError("A generation's id or key has another length.")
        if key_hash is not None and hash_bytes(key) != key_hash:
            raise CorruptObject(
                "The store shows a filespace key that no admin has made known in the log."
                " Do not write; ask an admin."
            )
        with self._lock:
            known = self._roots.setdefault(generation, bytearray(key))
        if known != key:
            raise KeyringError("A generation of the filespace key has two keys.")

    def __contains__(self, generation: bytes) -> bool:
        with self._lock:
            return generation in self._roots

    def label_key(self, label: bytes, generation: bytes) -> bytes:
        """The key of one label of a generation. Raises UnknownKey."""
        with self._lock:
            found = self._labels.get((label, generation))
            if found is None:
                root = self._roots.get(generation)
                if root is None:
                    raise UnknownKey(
                        f"This member was not given the filespace key of generation"
                        f" {generation.hex()}. Ask an admin."
                    )
                found = bytearray(label_key(bytes(root), label, self.suite, generation))
                self._labels[label, generation] = found
            return bytes(found)

    def data_key(self, segment: bytes, generation: bytes) -> bytes:
        """The key of a segment. Raises UnknownKey."""
        return object_key(self.label_key(LABEL_DATA, generation), segment)

    def log_key(self, object_id: bytes, generation: bytes) -> bytes:
        """The key of a log entry. Raises UnknownKey."""
        return object_key(self.label_key(LABEL_LOG, generation), object_id)

    def close(self) -> None:
        """Wipes all keys. May be called again."""
        with self._lock:
            for key in (*self._roots.values(), *self._labels.values()):
                key[:] = bytes(len(key))
            self._roots.clear()
            self._labels.clear()

    def __repr__(self) -> str:
        return f"KeyRing({self.filespace.hex()})"


class LocalKeys:
    """The keys under the local key of one state directory. Wiped by `close`."""

    def __init__(self, local_key: bytes, suite: int) -> None:
        if len(local_key) != KEY_SIZE:
            raise KeyringError("The local key has another length.")
        check_suite(suite)
        self._journal = bytearray(label_key(local_key, LABEL_JOURNAL, suite))
        self._replica = bytearray(label_key(local_key, LABEL_REPLICA, suite))
        self._closed = False

    def journal_key(self, object_id: bytes) -> bytes:
        """The key of one journal file."""
        self._check_open()
        return object_key(bytes(self._journal), object_id)

    def replica_key(self) -> bytes:
        """The raw 32-byte key of the replica database. Never log it."""
        self._check_open()
        return bytes(self._replica)

    def close(self) -> None:
        """Wipes the keys. May be called again."""
        self._closed = True
        for key in (self._journal, self._replica):
            key[:] = bytes(len(key))

    def _check_open(self) -> None:
        if self._closed:
            raise KeyringError("The keys of the state directory are closed.")


def wrap_generation(
    filespace: bytes, generation: bytes, key: bytes, box_key: bytes, entropy: Entropy
) -> bytes:
    """The object that brings a generation's key to the member with this box key."""
    secret = encode_generation_secret(GenerationSecret(filespace, generation, key))
    return encode_generation_box(box_for(box_key, secret, entropy))


def unwrap_generation(data: bytes, filespace: bytes, generation: bytes, keys: MemberKeys) -> bytes:
    """The key in the object; to be believed only if the log has its hash (`KeyRing.add`).

    Raises FormatError; CorruptObject if it does not open or is of something else.
    """
    secret = decode_generation_secret(keys.unbox(decode_generation_box(data)))
    if (secret.filespace, secret.generation) != (filespace, generation):
        raise CorruptObject("The store shows a filespace key of another filespace or generation.")
    return secret.key
