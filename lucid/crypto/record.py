"""A new passphrase or recovery code: the member's next record (FORMAT section 5).

The other slots stay as they are. Whoever keeps an old record and the old secret can still open it:
what has leaked is cured by revoking the member, not by this. Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from lucid.crypto.founding import Unlocked
from lucid.crypto.passphrase import (
    DEFAULT_STRETCH,
    Stretch,
    format_recovery_code,
    make_recovery_secret,
    make_slot,
    passphrase_bytes,
)
from lucid.format.member import (
    SLOT_PASSPHRASE,
    SLOT_RECOVERY,
    SlotSecret,
    encode_member_record,
)
from lucid.format.names import member_key
from lucid.types import Entropy

__all__ = ["NewRecord", "change_passphrase", "change_recovery_code"]


class NewRecord(NamedTuple):
    """An object to be put, and who is in with it. `recovery_code` is "" where it did not change."""

    key: str
    data: bytes
    unlocked: Unlocked
    recovery_code: str


def change_passphrase(
    unlocked: Unlocked, passphrase: str, entropy: Entropy, stretch: Stretch = DEFAULT_STRETCH
) -> NewRecord:
    """The next record, with this passphrase. Raises UsageError for an empty one."""
    secret = passphrase_bytes(passphrase)
    return _next(unlocked, SLOT_PASSPHRASE, secret, entropy, stretch, "")


def change_recovery_code(
    unlocked: Unlocked, entropy: Entropy, stretch: Stretch = DEFAULT_STRETCH
) -> NewRecord:
    """The next record, with a new recovery code: to be shown once."""
    secret = make_recovery_secret(entropy)
    code = format_recovery_code(secret)
    return _next(unlocked, SLOT_RECOVERY, secret, entropy, stretch, code)


def _next(
    unlocked: Unlocked, kind: int, secret: bytes, entropy: Entropy, stretch: Stretch, code: str
) -> NewRecord:
    superblock, old = unlocked.superblock, unlocked.record
    content = SlotSecret(
        superblock.filespace,
        unlocked.superblock_hash,
        superblock.founder_sign_key,
        old.member,
        *unlocked.keys.secrets(),
    )
    slot = make_slot(kind, secret, content, superblock.suite, entropy, stretch)
    kept = tuple(other for other in old.slots if other.kind != kind)
    slots = tuple(sorted((*kept, slot), key=lambda each: each.kind))
    record = old._replace(number=old.number + 1, slots=slots)
    data = encode_member_record(record)
    key = member_key(record.member, record.number)
    return NewRecord(key, data, unlocked._replace(record=record, record_bytes=data), code)
