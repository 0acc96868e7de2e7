"""Passphrases, recovery codes and key slots."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import RuntimeError as SodiumFailed

from lucid.crypto.passphrase import (
    DEFAULT_STRETCH,
    SlotBinding,
    Stretch,
    make_recovery_secret,
    make_slot,
    open_slot,
    passphrase_bytes,
)
from lucid.crypto.recovery import (
    format_recovery_code,
    looks_like_recovery_code,
    parse_recovery_code,
)
from lucid.errors import (
    CorruptObject,
    FormatError,
    KeyringError,
    UnsupportedFormat,
    UsageError,
    WrongPassphrase,
)
from lucid.format.member import SLOT_PASSPHRASE, Slot, SlotSecret
from tests.crypto.filespaces import QUICK
from tests.crypto.reference import fixed_entropy

CONTENT = SlotSecret(b"f" * 16, b"h" * 32, b"k" * 32, b"m" * 16, b"s" * 32, b"b" * 32)
BINDING = SlotBinding(*CONTENT[:4])
recovery_secrets = st.binary(min_size=20, max_size=20)


@pytest.fixture(scope="module")
def slot() -> Slot:
    return make_slot(SLOT_PASSPHRASE, b"secret", CONTENT, 1, fixed_entropy(b"slot"), QUICK)


def test_a_slot_opens_with_its_secret(slot: Slot) -> None:
    assert open_slot(slot, b"secret", BINDING) == CONTENT
    assert b"s" * 32 not in slot.sealed


def test_a_slot_never_changes() -> None:
    """The same randomness gives the same slot: the derivation is pinned with the vectors."""
    made = [
        make_slot(SLOT_PASSPHRASE, b"secret", CONTENT, 2, fixed_entropy(b"slot"), QUICK)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert open_slot(made[0], b"secret", BINDING) == CONTENT


def test_another_secret_does_not_open_it(slot: Slot) -> None:
    with pytest.raises(WrongPassphrase, match="passphrase"):
        open_slot(slot, b"Secret", BINDING)


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", 2), ("salt", b"x" * 16), ("object_id", b"x" * 32), ("opslimit", 2), ("suite", 2)],
)
def test_an_altered_slot_does_not_open(slot: Slot, field: str, value: object) -> None:
    with pytest.raises(WrongPassphrase):
        open_slot(slot._replace(**{field: value}), b"secret", BINDING)


@pytest.mark.parametrize("field", SlotBinding._fields)
def test_a_slot_opens_for_its_own_filespace_only(slot: Slot, field: str) -> None:
    """Another superblock or founder under the same passphrase is caught at the first mount."""
    foreign = BINDING._replace(**{field: b"x" * len(getattr(BINDING, field))})
    with pytest.raises(WrongPassphrase):
        open_slot(slot, b"secret", foreign)


def test_what_a_slot_holds_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a slot opens: whoever knows the passphrase could have sealed another text."""
    monkeypatch.setattr("lucid.crypto.passphrase.slot_key", lambda *_: b"k" * 32)
    foreign = CONTENT._replace(superblock_hash=b"x" * 32)
    made = make_slot(SLOT_PASSPHRASE, b"secret", foreign, 1, fixed_entropy(b"slot"), QUICK)
    with pytest.raises(CorruptObject, match="belong"):
        open_slot(made, b"secret", BINDING)


@pytest.mark.parametrize(
    "stretch",
    [
        Stretch(0, 64 << 20),
        Stretch(17, 64 << 20),
        Stretch(1, (64 << 20) - 1),
        Stretch(1, (1 << 30) + 1),
        Stretch(1, 1 << 40),
    ],
)
def test_limits_are_refused_before_any_work(
    slot: Slot, stretch: Stretch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError("Argon2id was started")

    monkeypatch.setattr("nacl.bindings.crypto_pwhash_alg", never)
    altered = slot._replace(opslimit=stretch.opslimit, memlimit=stretch.memlimit)
    with pytest.raises(FormatError):
        open_slot(altered, b"secret", BINDING)
    with pytest.raises(FormatError):
        make_slot(SLOT_PASSPHRASE, b"secret", CONTENT, 1, fixed_entropy(b"slot"), stretch)


def test_too_little_memory_is_said(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise SodiumFailed("Unexpected failure in key derivation")

    monkeypatch.setattr("nacl.bindings.crypto_pwhash_alg", fails)
    with pytest.raises(KeyringError, match="64 MiB") as caught:
        open_slot(slot, b"secret", BINDING)
    assert not isinstance(caught.value, WrongPassphrase)


def test_an_unknown_suite_in_a_slot_is_refused_by_name(slot: Slot) -> None:
    with pytest.raises(UnsupportedFormat):
        open_slot(slot._replace(suite=9), b"secret", BINDING)


def test_the_default_work_is_within_the_limits() -> None:
    assert DEFAULT_STRETCH == (3, 64 << 20)


def test_keyboards_give_the_same_bytes() -> None:
    composed = "Übermut"
    assert passphrase_bytes(unicodedata.normalize("NFD", composed)) == composed.encode()
    assert passphrase_bytes(" kept as typed ") == b" kept as typed "


@pytest.mark.parametrize("text", ["", "\ud800"])
def test_a_passphrase_is_text(text: str) -> None:
    with pytest.raises(UsageError):
        passphrase_bytes(text)


@given(recovery_secrets)
def test_a_recovery_code_goes_there_and_back(secret: bytes) -> None:
    code = format_recovery_code(secret)
    assert parse_recovery_code(code) == secret
    assert [len(group) for group in code.split("-")] == [4] * 8


@given(recovery_secrets)
def test_a_recovery_code_forgives_how_it_is_typed(secret: bytes) -> None:
    code = format_recovery_code(secret)
    misread = code.replace("O", "0").replace("I", "1").replace("B", "8")
    for typed in (code.lower(), code.replace("-", ""), f" {code.replace('-', '  ')}\n", misread):
        assert parse_recovery_code(typed) == secret


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 31, "A" * 33, "9" * 32, "ß" * 32, "É" * 32])
def test_what_is_no_recovery_code_is_said(text: str) -> None:
    assert not looks_like_recovery_code(text)
    with pytest.raises(WrongPassphrase, match="no recovery code"):
        parse_recovery_code(text)


def test_a_recovery_secret_has_160_bits() -> None:
    assert len(make_recovery_secret(fixed_entropy(b"x"))) == 20
    with pytest.raises(FormatError):
        format_recovery_code(b"x" * 19)
