"""A filespace begins, and its founder comes in: with the right secret and the right objects."""

from __future__ import annotations

import pytest

from lucid.crypto.device import make_device, open_device, renew_device
from lucid.crypto.entry import OpenedEntry, VoidEntry, open_entry
from lucid.crypto.founding import Plan, Unlocked, check_genesis, found, read_superblock, unlock
from lucid.crypto.keyring import KeyRing, unwrap_generation
from lucid.crypto.record import change_passphrase, change_recovery_code
from lucid.errors import (
    CorruptObject,
    FormatError,
    HistoryFork,
    StateForeign,
    UnsupportedFormat,
    UsageError,
    WrongPassphrase,
)
from lucid.format import names
from lucid.format.device import decode_device, encode_device
from lucid.format.hashes import hash_bytes
from lucid.format.member import decode_member_record, encode_member_record
from lucid.format.ops import ROLE_ADMIN, Genesis
from lucid.format.superblock import (
    decode_superblock,
    encode_superblock,
    superblock_signed_bytes,
)
from tests.crypto.filespaces import PASSPHRASE, QUICK, filespace, object_of
from tests.crypto.reference import fixed_entropy
from tests.format.values import TIME_NS

FOUNDING = filespace()
SUPERBLOCK = object_of(FOUNDING, "superblock")
RECORD = object_of(FOUNDING, "members/")
BOX = object_of(FOUNDING, "keys/")
ENTRY = object_of(FOUNDING, "log/")


@pytest.fixture(scope="module")
def unlocked() -> Unlocked:
    return unlock(SUPERBLOCK, RECORD, PASSPHRASE)


def first_entry(unlocked: Unlocked, data: bytes) -> OpenedEntry | VoidEntry:
    superblock = unlocked.superblock
    ring = KeyRing(superblock.filespace, superblock.suite)
    key = unwrap_generation(BOX, superblock.filespace, superblock.generation, unlocked.keys)
    ring.add(superblock.generation, key, superblock.generation_key_hash)
    signers = {superblock.founder: superblock.founder_sign_key}
    return open_entry(data, 1, ring, superblock.generation, signers.get)


def test_the_objects_and_their_order() -> None:
    member = FOUNDING.unlocked.keys.member
    generation = FOUNDING.unlocked.superblock.generation
    assert [key for key, _ in FOUNDING.objects] == [
        names.member_key(member, 1),
        names.generation_key(generation, member),
        names.SUPERBLOCK_KEY,
        names.log_key(1),
    ]


def test_the_passphrase_opens_it(unlocked: Unlocked) -> None:
    assert unlocked.superblock_hash == hash_bytes(SUPERBLOCK)
    assert unlocked.keys.secrets() == FOUNDING.unlocked.keys.secrets()
    entry = first_entry(unlocked, ENTRY)
    assert isinstance(entry, OpenedEntry)
    genesis = check_genesis(entry, unlocked)
    assert (genesis.name, genesis.founder.label, genesis.founder.role) == (
        b"Team",
        b"anna",
        ROLE_ADMIN,
    )
    assert entry.hash == hash_bytes(ENTRY)


def test_the_recovery_code_opens_it_too(unlocked: Unlocked) -> None:
    code = FOUNDING.recovery_code
    for typed in (code, code.lower().replace("-", " ")):
        assert unlock(SUPERBLOCK, RECORD, typed).keys.secrets() == unlocked.keys.secrets()


@pytest.mark.parametrize("secret", ["wrong", "AAAA-" * 7 + "AAAA", PASSPHRASE.upper()])
def test_a_wrong_secret_opens_nothing(secret: str) -> None:
    with pytest.raises(WrongPassphrase, match="Wrong"):
        unlock(SUPERBLOCK, RECORD, secret)


def test_nothing_readable_is_stored() -> None:
    stored = b"".join(data for _, data in FOUNDING.objects)
    seed, secret = FOUNDING.unlocked.keys.secrets()
    for hidden in (b"Team", b"anna", PASSPHRASE.encode(), seed, secret):
        assert hidden not in stored


def test_the_same_plan_makes_another_filespace() -> None:
    other = filespace(b"two")
    assert not {key for key, _ in FOUNDING.objects[:2]} & {key for key, _ in other.objects[:2]}
    assert other.recovery_code != FOUNDING.recovery_code


def test_an_altered_superblock_is_refused() -> None:
    for at in range(8, len(SUPERBLOCK)):
        altered = SUPERBLOCK[:at] + bytes([SUPERBLOCK[at] ^ 1]) + SUPERBLOCK[at + 1 :]
        with pytest.raises((CorruptObject, FormatError, UsageError)):
            read_refused(altered)


def read_refused(data: bytes) -> None:
    """Reads a superblock; what is refused by name counts as refused here."""
    try:
        read_superblock(data)
    except UnsupportedFormat as error:
        raise FormatError(str(error)) from error


def resigned() -> bytes:
    """A superblock that a store made up: other keys, well signed by them."""
    other = filespace(b"two").unlocked
    superblock = decode_superblock(SUPERBLOCK).superblock._replace(
        founder_sign_key=other.keys.sign_key, block_size=65_536
    )
    return encode_superblock(superblock, other.keys.sign(superblock_signed_bytes(superblock)))


def test_a_superblock_of_another_founder_does_not_open_the_slot() -> None:
    read_superblock(resigned())
    with pytest.raises(WrongPassphrase):
        unlock(resigned(), RECORD, PASSPHRASE)


def test_who_has_seen_the_superblock_notices_another() -> None:
    remembered = hash_bytes(SUPERBLOCK)
    assert unlock(SUPERBLOCK, RECORD, PASSPHRASE, remembered)
    for other in (resigned(), object_of(filespace(b"two"), "superblock"), b"junk"):
        with pytest.raises(HistoryFork, match="another superblock"):
            unlock(other, RECORD, PASSPHRASE, remembered)


def test_a_record_of_another_filespace_is_refused() -> None:
    with pytest.raises(CorruptObject, match="do not belong together"):
        unlock(SUPERBLOCK, object_of(filespace(b"two"), "members/"), PASSPHRASE)


@pytest.mark.parametrize("field", ["sign_key", "box_key"])
def test_public_keys_of_the_record_are_not_believed(field: str) -> None:
    record = decode_member_record(RECORD)._replace(**{field: b"x" * 32})
    with pytest.raises(CorruptObject, match="keys"):
        unlock(SUPERBLOCK, encode_member_record(record), PASSPHRASE)


def test_genesis_of_another_superblock_is_a_fork(unlocked: Unlocked) -> None:
    entry = first_entry(unlocked, ENTRY)
    assert isinstance(entry, OpenedEntry)
    genesis = entry.body.ops[0]
    assert isinstance(genesis, Genesis)
    for changed in (
        genesis._replace(superblock_hash=b"x" * 32),
        genesis._replace(founder=genesis.founder._replace(member=b"x" * 16)),
        genesis._replace(founder=genesis.founder._replace(sign_key=b"x" * 32)),
        genesis._replace(founder=genesis.founder._replace(box_key=b"x" * 32)),
        genesis._replace(generation=genesis.generation._replace(id=b"x" * 16)),
        genesis._replace(generation=genesis.generation._replace(key_hash=b"x" * 32)),
    ):
        forged = entry._replace(body=entry.body._replace(ops=(changed,)))
        with pytest.raises(HistoryFork):
            check_genesis(forged, unlocked)
    with pytest.raises(HistoryFork):
        check_genesis(entry._replace(body=entry.body._replace(member=b"x" * 16)), unlocked)


def test_a_new_passphrase_keeps_the_recovery_code(unlocked: Unlocked) -> None:
    new = change_passphrase(unlocked, "another one", fixed_entropy(b"new"), QUICK)
    assert new.key == names.member_key(unlocked.keys.member, 2)
    assert new.recovery_code == ""
    assert unlock(SUPERBLOCK, new.data, "another one").record == new.unlocked.record
    assert unlock(SUPERBLOCK, new.data, FOUNDING.recovery_code)
    with pytest.raises(WrongPassphrase):
        unlock(SUPERBLOCK, new.data, PASSPHRASE)


def test_a_new_recovery_code_keeps_the_passphrase(unlocked: Unlocked) -> None:
    new = change_recovery_code(unlocked, fixed_entropy(b"new"), QUICK)
    assert unlock(SUPERBLOCK, new.data, PASSPHRASE)
    assert unlock(SUPERBLOCK, new.data, new.recovery_code)
    with pytest.raises(WrongPassphrase):
        unlock(SUPERBLOCK, new.data, FOUNDING.recovery_code)
    again = change_passphrase(new.unlocked, "third", fixed_entropy(b"third"), QUICK)
    assert again.key == names.member_key(unlocked.keys.member, 3)


def test_the_device_file_brings_the_local_keys_back(unlocked: Unlocked) -> None:
    made = make_device(unlocked, b"p" * 32, fixed_entropy(b"device"))
    opened = open_device(made.data, unlocked)
    assert opened.replica_key() == made.keys.replica_key()
    assert opened.journal_key(b"o" * 32) == made.keys.journal_key(b"o" * 32)
    device = decode_device(made.data)
    assert unlock(device.superblock, device.record, PASSPHRASE).superblock == unlocked.superblock
    assert device.place == b"p" * 32


def test_a_device_file_is_renewed(unlocked: Unlocked) -> None:
    made = make_device(unlocked, b"p" * 32, fixed_entropy(b"device"))
    new = change_passphrase(unlocked, "another one", fixed_entropy(b"new"), QUICK).unlocked
    data = renew_device(made.data, new, b"q" * 32)
    assert decode_device(data).place == b"q" * 32
    assert unlock(SUPERBLOCK, decode_device(data).record, "another one")
    assert open_device(data, new).replica_key() == made.keys.replica_key()


def test_a_foreign_device_file_is_refused(unlocked: Unlocked) -> None:
    made = make_device(unlocked, b"p" * 32, fixed_entropy(b"device"))
    with pytest.raises(StateForeign, match="another filespace"):
        open_device(made.data, filespace(b"two").unlocked)
    device = decode_device(made.data)
    with pytest.raises(StateForeign, match="another member"):
        open_device(encode_device(device._replace(member=b"x" * 16)), unlocked)
    with pytest.raises(CorruptObject):
        open_device(
            encode_device(device._replace(box=device.box[:-1] + bytes([device.box[-1] ^ 1]))),
            unlocked,
        )
    foreign = make_device(
        unlocked._replace(superblock=unlocked.superblock._replace(filespace=b"x" * 16)),
        b"p" * 32,
        fixed_entropy(b"device"),
    )
    mixed = encode_device(device._replace(box=decode_device(foreign.data).box))
    with pytest.raises(StateForeign, match="another filespace"):
        open_device(mixed, unlocked)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("passphrase", "", UsageError),
        ("name", b"", FormatError),
        ("name", b"a/b", FormatError),
        ("member_label", b"x" * 65, FormatError),
        ("block_size", 1000, FormatError),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    field: str, value: object, error: type[Exception]
) -> None:
    plan = Plan(b"Team", b"anna", PASSPHRASE, stretch=QUICK)._replace(**{field: value})
    with pytest.raises(error):
        found(plan, fixed_entropy(b"plan"), TIME_NS)


def test_the_other_suite() -> None:
    made = filespace(b"one", 2)
    entered = unlock(object_of(made, "superblock"), object_of(made, "members/"), PASSPHRASE)
    assert entered.superblock.suite == 2
