"""Making a filespace, unlocking it, changing its passphrase: what is done without opening its
tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lucid.crypto import founding
from lucid.crypto.keyring import unwrap_generation
from lucid.crypto.passphrase import DEFAULT_STRETCH, Stretch
from lucid.crypto.record import change_passphrase as change_of_passphrase
from lucid.errors import (
    DataError,
    FilespaceExists,
    FilespaceMissing,
    ObjectExists,
    ObjectMissing,
    StateForeign,
    StoreUnavailable,
    UsageError,
)
from lucid.filespace.place import check_free, no_superblock
from lucid.format.device import Device
from lucid.format.hashes import hash_bytes
from lucid.format.names import (
    SUPERBLOCK_KEY,
    generation_key,
    member_prefix,
    parse_member_key,
)
from lucid.format.ops import RULES, GenesisRoot
from lucid.store.base import ObjectStore
from lucid.store.probe import probe
from lucid.types import Clock, Entropy

__all__ = [
    "Created",
    "change_passphrase",
    "create",
    "keep_generation",
    "read_generation",
    "read_kept_generation",
    "unlock",
]

READ_MAX = (64 << 10) + 1
"""Superblock, member record and key box: one byte more than any of them may have (FORMAT)."""


class Created(NamedTuple):
    """A new filespace. The recovery code is kept nowhere."""

    filespace: str
    recovery_code: str
    warnings: tuple[str, ...]


def create(
    store: ObjectStore,
    *,
    name: str,
    passphrase: str,
    suite: int,
    block_size: int,
    member_label: str,
    clock: Clock,
    entropy: Entropy,
    stretch: Stretch = DEFAULT_STRETCH,
    rules: int = RULES,
) -> Created:
    """Probe the store and write a new filespace into it.

    Raises FilespaceExists, StoreUnfit, and what the store raises; what was written before an error
    is harmless and unreadable.
    """
    check_free(store)
    if not passphrase:
        raise UsageError("A filespace needs a passphrase.")
    warnings = probe(store, entropy)
    plan = founding.Plan(
        name.encode(), member_label.encode(), passphrase, suite, block_size, stretch,
        GenesisRoot(0o040755, os.getuid(), os.getgid()), rules,
    )  # fmt: skip
    made = founding.found(plan, entropy, clock.time_ns())
    try:
        for key, body in made.objects:
            try:
                store.put_if_absent(key, body)
            except ObjectExists:
                raise FilespaceExists(
                    f"Somebody made a filespace at {store.url} at the same moment."
                ) from None
        return Created(
            made.unlocked.superblock.filespace.hex(), made.recovery_code, tuple(warnings)
        )
    finally:
        made.unlocked.keys.close()
        made.ring.close()


def newest_record(store: ObjectStore, member: bytes) -> bytes:
    """The bytes of a member's newest record."""
    keys = (info.key for info in store.list(member_prefix(member)))
    newest = max((key for key in keys if parse_member_key(key) is not None), default="")
    if not newest:
        raise FilespaceMissing(f"The store at {store.url} holds no keys of this member.")
    return store.get(newest, 0, READ_MAX)


def read_superblock(store: ObjectStore) -> bytes:
    try:
        return store.get(SUPERBLOCK_KEY, 0, READ_MAX)
    except ObjectMissing:
        raise no_superblock(store) from None


def unlock(store: ObjectStore, secret: str, known: Device | None = None) -> founding.Unlocked:
    """The founder's keys, from the passphrase or the recovery code.

    `known`: what the state directory that was chosen remembers of its filespace. Raises
    FilespaceMissing, StateForeign, WrongPassphrase, and what founding.unlock raises.
    """
    data = read_superblock(store)
    if known is not None:
        _check_same(store, data, known)
    remembered = None if known is None else known.superblock_hash
    superblock = founding.read_superblock(data, remembered)
    return founding.unlock(data, newest_record(store, superblock.founder), secret, remembered)


def _check_same(store: ObjectStore, data: bytes, known: Device) -> None:
    """Raises StateForeign if the store holds another filespace, whole and well signed. An altered
    superblock of the same one is left to who reads it."""
    if hash_bytes(data) == known.superblock_hash:
        return
    try:
        found = founding.read_superblock(data)
    except DataError:
        return
    if found.filespace != known.filespace:
        raise StateForeign(
            f"The state directory belongs to another filespace than the one at {store.url}. "
            "Check the address of the store, or give --state-dir another directory."
        )


def read_generation(
    store: ObjectStore, unlocked: founding.Unlocked, generation: bytes
) -> tuple[bytes, bytes]:
    """The key of a generation from the member's box, and the box as it is stored.

    The key is to be believed only with the hash that the log or the superblock has of it.
    """
    try:
        box = store.get(generation_key(generation, unlocked.keys.member), 0, READ_MAX)
    except ObjectMissing:
        raise FilespaceMissing(
            f"The store at {store.url} holds no filespace key for this member."
        ) from None
    key = unwrap_generation(box, unlocked.superblock.filespace, generation, unlocked.keys)
    return key, box


def change_passphrase(
    store: ObjectStore,
    old: str,
    new: Callable[[], str],
    *,
    entropy: Entropy,
    stretch: Stretch = DEFAULT_STRETCH,
) -> None:
    """Write the member's next record, with a new passphrase; the recovery code stays.

    `old` is the passphrase or the recovery code; `new` is asked once `old` has opened the
    filespace. Raises WrongPassphrase, UsageError.
    """
    unlocked = unlock(store, old)
    try:
        record = change_of_passphrase(unlocked, new(), entropy, stretch)
        store.put_if_absent(record.key, record.data)
    finally:
        unlocked.keys.close()


def keep_generation(file: Path, box: bytes) -> None:
    """Keep the member's box, once its key is believed, for opening without the store."""
    if not file.exists() or file.read_bytes() != box:
        new = file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(box)
        new.replace(file)


def read_kept_generation(file: Path, unlocked: founding.Unlocked) -> bytes:
    """The generation key from the copy that `keep_generation` made."""
    superblock = unlocked.superblock
    try:
        box = file.read_bytes()
    except FileNotFoundError:
        raise StoreUnavailable(
            "The store does not answer, and this device has no copy of the filespace key yet."
        ) from None
    return unwrap_generation(box, superblock.filespace, superblock.generation, unlocked.keys)
