"""How a filespace begins, and how a member comes in (FORMAT sections 4 to 7).

Pure composition: `found` gives every object that `lucid init` writes, `unlock` the keys of a member
from the bytes that the store or the device file shows. Any thread.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from lucid.crypto.entry import OpenedEntry, seal_entry
from lucid.crypto.keyring import KeyRing, wrap_generation
from lucid.crypto.member import MemberKeys, verify
from lucid.crypto.passphrase import (
    DEFAULT_STRETCH,
    SlotBinding,
    Stretch,
    format_recovery_code,
    make_recovery_secret,
    make_slot,
    open_slot,
    parse_recovery_code,
    passphrase_bytes,
    slot_name,
)
from lucid.crypto.recovery import looks_like_recovery_code
from lucid.errors import CorruptObject, HistoryFork, WrongPassphrase
from lucid.format import names
from lucid.format.check import check_label
from lucid.format.entry import NO_ENTRY, EntryBody
from lucid.format.hashes import ZERO_HASH, hash_bytes
from lucid.format.limits import BLOCK_SIZE_DEFAULT, ID_SIZE, KEY_SIZE, SEGMENT_PLAIN_MAX
from lucid.format.member import (
    SLOT_PASSPHRASE,
    SLOT_RECOVERY,
    MemberRecord,
    SlotSecret,
    decode_member_record,
    encode_member_record,
)
from lucid.format.ops import (
    ROLE_ADMIN,
    ROOT_INO,
    RULES_FIRST,
    Genesis,
    GenesisGeneration,
    GenesisMember,
    GenesisRoot,
)
from lucid.format.superblock import (
    SUITE_AEGIS256,
    Superblock,
    decode_superblock,
    encode_superblock,
    superblock_signed_bytes,
)
from lucid.types import Entropy

__all__ = [
    "Founding",
    "Plan",
    "Unlocked",
    "check_genesis",
    "found",
    "read_superblock",
    "unlock",
]


class Plan(NamedTuple):
    """What the founder chooses. Labels are short UTF-8; see the format's limits."""

    name: bytes
    member_label: bytes
    passphrase: str
    suite: int = SUITE_AEGIS256
    block_size: int = BLOCK_SIZE_DEFAULT
    stretch: Stretch = DEFAULT_STRETCH
    root: GenesisRoot = GenesisRoot(stat.S_IFDIR | 0o755, 0, 0)
    rules: int = RULES_FIRST


class Founding(NamedTuple):
    """A new filespace. `objects` are (key, bytes) in the order in which they are to be put.

    Member record and generation box come first, then the superblock, which claims the place, then
    entry 1. The recovery code is shown to the user once and kept nowhere.
    """

    objects: tuple[tuple[str, bytes], ...]
    recovery_code: str
    unlocked: Unlocked
    ring: KeyRing


class Unlocked(NamedTuple):
    """A member who is in: what the superblock says, and the member's keys."""

    superblock: Superblock
    superblock_hash: bytes
    superblock_bytes: bytes
    record: MemberRecord
    record_bytes: bytes
    keys: MemberKeys


def found(plan: Plan, entropy: Entropy, time_ns: int) -> Founding:
    """A new filespace with its founder as the only member.

    Raises UsageError for an empty passphrase, FormatError for labels or sizes that cannot be.
    """
    for label in (plan.name, plan.member_label):
        check_label(label)
    filespace, generation, key = entropy(ID_SIZE), entropy(ID_SIZE), entropy(KEY_SIZE)
    keys = MemberKeys.create(entropy)
    superblock = Superblock(
        filespace,
        plan.suite,
        plan.block_size,
        SEGMENT_PLAIN_MAX,
        (),
        time_ns,
        keys.member,
        keys.sign_key,
        keys.box_key,
        generation,
        hash_bytes(key),
    )
    superblock_bytes = encode_superblock(superblock, keys.sign(superblock_signed_bytes(superblock)))
    superblock_hash = hash_bytes(superblock_bytes)
    recovery = make_recovery_secret(entropy)
    record = _first_record(plan, superblock, superblock_hash, keys, recovery, entropy)
    record_bytes = encode_member_record(record)
    ring = KeyRing(filespace, plan.suite)
    ring.add(generation, key)
    genesis = _genesis(plan, superblock, superblock_hash, time_ns)
    body = EntryBody(keys.member, 0, ZERO_HASH, ZERO_HASH, NO_ENTRY, None, (), (genesis,))
    objects = (
        (names.member_key(keys.member, record.number), record_bytes),
        (
            names.generation_key(generation, keys.member),
            wrap_generation(filespace, generation, key, keys.box_key, entropy),
        ),
        (names.SUPERBLOCK_KEY, superblock_bytes),
        (names.log_key(1), seal_entry(ring, keys, generation, 1, body, entropy)),
    )
    unlocked = Unlocked(superblock, superblock_hash, superblock_bytes, record, record_bytes, keys)
    return Founding(objects, format_recovery_code(recovery), unlocked, ring)


def _first_record(
    plan: Plan,
    superblock: Superblock,
    superblock_hash: bytes,
    keys: MemberKeys,
    recovery: bytes,
    entropy: Entropy,
) -> MemberRecord:
    content = SlotSecret(
        superblock.filespace,
        superblock_hash,
        superblock.founder_sign_key,
        keys.member,
        *keys.secrets(),
    )
    secrets = (
        (SLOT_PASSPHRASE, passphrase_bytes(plan.passphrase)),
        (SLOT_RECOVERY, recovery),
    )
    slots = tuple(
        make_slot(kind, secret, content, plan.suite, entropy, plan.stretch)
        for kind, secret in secrets
    )
    return MemberRecord(superblock.filespace, keys.member, 1, keys.sign_key, keys.box_key, slots)


def _genesis(plan: Plan, superblock: Superblock, superblock_hash: bytes, time_ns: int) -> Genesis:
    return Genesis(
        ROOT_INO,
        time_ns,
        superblock_hash,
        plan.rules,
        plan.name,
        GenesisMember(
            superblock.founder,
            plan.member_label,
            superblock.founder_sign_key,
            superblock.founder_box_key,
            ROLE_ADMIN,
        ),
        GenesisGeneration(superblock.generation, superblock.generation_key_hash),
        plan.root,
    )


def read_superblock(data: bytes, remembered: bytes | None = None) -> Superblock:
    """The superblock in `data`, its signature checked.

    `remembered` is the hash that this device has seen before. Raises HistoryFork if it is another
    one now, CorruptObject for a wrong signature, FormatError, UnsupportedFormat.
    """
    if remembered is not None and hash_bytes(data) != remembered:
        raise HistoryFork(
            "The store shows another superblock than the one that this device has seen: this is"
            " another filespace, or it was altered. Check the address of the store."
        )
    superblock, signature, signed = decode_superblock(data)
    if not verify(superblock.founder_sign_key, signature, signed):
        raise CorruptObject("The superblock does not bear its founder's signature: it was altered.")
    return superblock


def unlock(
    superblock_bytes: bytes, record_bytes: bytes, secret: str, remembered: bytes | None = None
) -> Unlocked:
    """A member's keys, from a passphrase or a recovery code.

    `remembered` is the superblock hash that this device has seen before, if any. Without it, a
    foreign superblock does not open the slot: a slot is bound to its own.
    Raises WrongPassphrase; HistoryFork, CorruptObject, FormatError or UnsupportedFormat for what
    the store should not show. Takes a good part of a second.
    """
    superblock = read_superblock(superblock_bytes, remembered)
    superblock_hash = hash_bytes(superblock_bytes)
    record = decode_member_record(record_bytes)
    if record.filespace != superblock.filespace:
        raise CorruptObject(
            "The member record belongs to another filespace than the superblock: the store shows"
            " objects that do not belong together."
        )
    binding = SlotBinding(
        superblock.filespace, superblock_hash, superblock.founder_sign_key, record.member
    )
    content = _open_any_slot(record, secret, binding)
    keys = MemberKeys(record.member, content.sign_seed, content.box_secret)
    if (keys.sign_key, keys.box_key) != (record.sign_key, record.box_key):
        keys.close()
        raise CorruptObject("The member record shows keys that are not the member's.")
    if record.member == superblock.founder and keys.sign_key != superblock.founder_sign_key:
        keys.close()
        raise CorruptObject("The member record shows keys that are not the founder's.")
    return Unlocked(superblock, superblock_hash, superblock_bytes, record, record_bytes, keys)


def _open_any_slot(record: MemberRecord, secret: str, binding: SlotBinding) -> SlotSecret:
    guesses = [(SLOT_PASSPHRASE, passphrase_bytes(secret))]
    if looks_like_recovery_code(secret):
        guesses.insert(0, (SLOT_RECOVERY, parse_recovery_code(secret)))
    for kind, guess in guesses:
        for slot in record.slots:
            if slot.kind != kind:
                continue
            try:
                return open_slot(slot, guess, binding)
            except WrongPassphrase:
                continue
    raise WrongPassphrase(
        f"Wrong {slot_name(guesses[0][0])}. (It is also refused if the store shows another"
        " filespace's objects.)"
    )


def check_genesis(entry: OpenedEntry, unlocked: Unlocked) -> Genesis:
    """Genesis, if entry 1 says what the superblock says. Raises HistoryFork."""
    superblock, op = unlocked.superblock, entry.body.ops[0]
    if not isinstance(op, Genesis) or (
        op.superblock_hash,
        op.founder.member,
        op.founder.sign_key,
        op.founder.box_key,
        tuple(op.generation),
        entry.body.member,
    ) != (
        unlocked.superblock_hash,
        superblock.founder,
        superblock.founder_sign_key,
        superblock.founder_box_key,
        (superblock.generation, superblock.generation_key_hash),
        superblock.founder,
    ):
        raise HistoryFork(
            "The first entry of the log belongs to another superblock: the store shows objects"
            " that do not belong together."
        )
    return op
