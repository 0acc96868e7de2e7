"""The key ring, the local keys, and how a generation's key travels."""

from __future__ import annotations

import threading

import pytest

from lucid.crypto.keyring import KeyRing, LocalKeys, unwrap_generation, wrap_generation
from lucid.crypto.member import MemberKeys
from lucid.errors import CorruptObject, FormatError, KeyringError, UnknownKey, UnsupportedFormat
from lucid.format.hashes import hash_bytes
from tests.crypto import reference
from tests.crypto.reference import fixed_entropy

FILESPACE, GENERATION, KEY = b"f" * 16, b"g" * 16, b"k" * 32
OBJECT = b"o" * 32


@pytest.fixture
def ring() -> KeyRing:
    ring = KeyRing(FILESPACE, 1)
    ring.add(GENERATION, KEY, hash_bytes(KEY))
    return ring


def test_keys_are_those_of_the_format(ring: KeyRing) -> None:
    for _ in range(2):  # derived, then remembered
        for label, derive in ((b"data", ring.data_key), (b"log", ring.log_key)):
            expected = reference.label_key(KEY, label, 1, GENERATION)
            assert derive(OBJECT, GENERATION) == reference.object_key(expected, OBJECT)


def test_each_suite_generation_and_label_has_its_own(ring: KeyRing) -> None:
    other = KeyRing(FILESPACE, 2)
    other.add(GENERATION, KEY)
    ring.add(b"h" * 16, KEY)
    keys = {
        ring.data_key(OBJECT, GENERATION),
        ring.log_key(OBJECT, GENERATION),
        ring.data_key(OBJECT, b"h" * 16),
        ring.data_key(b"p" * 32, GENERATION),
        other.data_key(OBJECT, GENERATION),
    }
    assert len(keys) == 5


def test_a_generation_that_is_not_here(ring: KeyRing) -> None:
    assert GENERATION in ring
    assert b"h" * 16 not in ring
    for derive in (ring.data_key, ring.log_key):
        with pytest.raises(UnknownKey, match="Ask an admin"):
            derive(OBJECT, b"h" * 16)


def test_a_key_is_believed_only_if_the_log_knows_it() -> None:
    ring = KeyRing(FILESPACE, 1)
    with pytest.raises(CorruptObject, match="admin"):
        ring.add(GENERATION, KEY, hash_bytes(b"x" * 32))
    assert GENERATION not in ring


def test_a_generation_has_one_key(ring: KeyRing) -> None:
    ring.add(GENERATION, KEY)
    with pytest.raises(KeyringError):
        ring.add(GENERATION, b"x" * 32)
    for generation, key in ((b"x", KEY), (GENERATION, b"x")):
        with pytest.raises(KeyringError):
            ring.add(generation, key)


def test_a_closed_ring_is_empty(ring: KeyRing) -> None:
    ring.data_key(OBJECT, GENERATION)
    ring.close()
    ring.close()
    with pytest.raises(UnknownKey):
        ring.data_key(OBJECT, GENERATION)
    assert KEY.hex() not in repr(ring)


def test_many_threads_ask_at_once(ring: KeyRing) -> None:
    start, found = threading.Barrier(8), []

    def ask() -> None:
        start.wait(10)
        found.append({ring.data_key(bytes([n]) * 32, GENERATION) for n in range(50)})

    threads = [threading.Thread(target=ask, name=f"lucid-test-{n}") for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert all(keys == found[0] for keys in found)


def test_local_keys() -> None:
    keys = LocalKeys(KEY, 1)
    journal = reference.label_key(KEY, b"journal", 1, bytes(16))
    assert keys.journal_key(OBJECT) == reference.object_key(journal, OBJECT)
    assert keys.replica_key() == reference.label_key(KEY, b"replica", 1, bytes(16))
    keys.close()
    for use in (keys.replica_key, lambda: keys.journal_key(OBJECT)):
        with pytest.raises(KeyringError):
            use()
    with pytest.raises(KeyringError):
        LocalKeys(b"x", 1)


def test_an_unknown_suite_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat):
        KeyRing(FILESPACE, 3)
    with pytest.raises(UnsupportedFormat):
        LocalKeys(KEY, 3)


def test_a_generations_key_travels_in_a_box() -> None:
    keys = MemberKeys.create(fixed_entropy(b"member"))
    data = wrap_generation(FILESPACE, GENERATION, KEY, keys.box_key, fixed_entropy(b"box"))
    assert KEY not in data
    assert unwrap_generation(data, FILESPACE, GENERATION, keys) == KEY
    for filespace, generation in ((b"x" * 16, GENERATION), (FILESPACE, b"x" * 16)):
        with pytest.raises(CorruptObject, match="another"):
            unwrap_generation(data, filespace, generation, keys)
    with pytest.raises(CorruptObject):
        unwrap_generation(data[:-1] + bytes([data[-1] ^ 1]), FILESPACE, GENERATION, keys)
    with pytest.raises(FormatError):
        unwrap_generation(data[:-1], FILESPACE, GENERATION, keys)
    other = MemberKeys.create(fixed_entropy(b"other"))
    with pytest.raises(CorruptObject):
        unwrap_generation(data, FILESPACE, GENERATION, other)
