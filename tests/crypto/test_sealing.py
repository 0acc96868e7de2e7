"""Keys and sealing against the reference, and pinned so that they never change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.crypto.aead import AD_SIZE, check_suite
from lucid.crypto.sealing import (
    LABEL_CHECKPOINT,
    LABEL_DATA,
    LABEL_JOURNAL,
    LABEL_LOG,
    LABEL_REPLICA,
    LABEL_ROOM,
    TAG_BLOCK,
    TAG_ENTRY,
    Place,
    associated_data,
    label_key,
    object_key,
    open_object,
    seal_object,
    slot_key,
    tag_size,
)
from lucid.errors import CorruptObject, UnsupportedFormat
from tests.crypto import reference

ROOT = bytes(range(32))
GENERATION = bytes(range(100, 116))
OBJECT = bytes(range(200, 232))
KEY = bytes(range(50, 82))

small = st.binary(max_size=300)
key_bytes = st.binary(min_size=32, max_size=32)
places = st.builds(
    Place,
    st.binary(min_size=4, max_size=4),
    st.sampled_from((1, 2)),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    key_bytes,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)


@given(places, key_bytes, small)
def test_the_reference_seals_the_same_bytes(place: Place, key: bytes, data: bytes) -> None:
    ad = reference.associated_data(*place, len(data))
    assert associated_data(place, len(data)) == ad
    sealed = seal_object(key, place, data)
    assert sealed == reference.seal(place.suite, key, ad, place.ordinal, data)
    assert len(sealed) == len(data) + tag_size(place.suite)
    assert open_object(key, place, sealed) == data


@given(key_bytes, small, st.sampled_from((1, 2)), st.binary(min_size=16, max_size=16))
def test_the_reference_derives_the_same_keys(
    root: bytes, label: bytes, suite: int, generation: bytes
) -> None:
    derived = label_key(root, label, suite, generation)
    assert derived == reference.label_key(root, label, suite, generation)
    assert object_key(derived, root) == reference.object_key(derived, root)


PINNED_LABEL_KEYS = {
    (LABEL_DATA, 1): "7ff44aff07994273ee8146e04137d8594a81d86e36fca65937719721a710addf",
    (LABEL_DATA, 2): "a880292ef2a3ba666843acfa5b9cde0ab140ed3f1680f0f8d95229038aba36ee",
    (LABEL_LOG, 1): "f6024124e7e25a989f718c3dff4ca1e0898f984b33fa0a78adf1d5403c46ac02",
    (LABEL_CHECKPOINT, 1): "a804f47319a514087b127764f201ac9d03844f4ca76c880049ac46a1e2f6bcd2",
    (LABEL_ROOM, 1): "506bcbb5600f7ff5cbccec141beb352823be9110180a3841faa07b24bb86be4a",
    (LABEL_JOURNAL, 1): "0c027104a15367b4b8a28dbf9a5265a78bc3fa392597e0ac065508f1a34dfc42",
    (LABEL_REPLICA, 1): "0d723aad52f474c9064994c501bb53a33e6a8e3b1731f90bf90c9e67cb2fa442",
}


@pytest.mark.parametrize(("label", "suite"), PINNED_LABEL_KEYS)
def test_label_keys_never_change(label: bytes, suite: int) -> None:
    assert label_key(ROOT, label, suite, GENERATION).hex() == PINNED_LABEL_KEYS[label, suite]


def test_object_and_slot_keys_never_change() -> None:
    assert (
        object_key(ROOT, OBJECT).hex()
        == "98814d3e9bbe904c7f6cee38847e6ac80f3c8bd699355fefcdd819224aab97c8"
    )
    assert (
        slot_key(ROOT, 1, b"binding", OBJECT).hex()
        == "ced2f4c87742f9ee1a52cbbe4eb74ef7d8361725fd1ea46843c4949e7d81f3e4"
    )


def test_seals_never_change() -> None:
    for suite, expected in (
        (1, "e124255d7c2bb45c60cd9dde2408fe105b89d49e7914c667744e6daf1732545be8e83b28a60315"),
        (2, "61e698466562c96fca99ecf5e96ca4ffcb1f569edf8440"),
    ):
        place = Place(TAG_BLOCK, suite, b"f" * 16, b"g" * 16, OBJECT, 7)
        assert seal_object(KEY, place, b"a block").hex() == expected


def other_places(place: Place) -> Iterator[Place]:
    """Each place that differs from `place` in one thing."""
    yield place._replace(tag=TAG_ENTRY)
    yield place._replace(suite=3 - place.suite)
    yield place._replace(filespace=b"F" * 16)
    yield place._replace(generation=b"G" * 16)
    yield place._replace(object_id=b"O" * 32)
    yield place._replace(ordinal=8)
    yield place._replace(flags=1)


@pytest.mark.parametrize("suite", [1, 2])
def test_it_opens_in_its_own_place_only(suite: int) -> None:
    place = Place(TAG_BLOCK, suite, b"f" * 16, b"g" * 16, OBJECT, 7)
    sealed = seal_object(KEY, place, b"a block")
    for other in other_places(place):
        with pytest.raises(CorruptObject):
            open_object(KEY, other, sealed)
    with pytest.raises(CorruptObject):
        open_object(ROOT, place, sealed)


@pytest.mark.parametrize("suite", [1, 2])
def test_any_other_byte_does_not_open(suite: int) -> None:
    place = Place(TAG_BLOCK, suite, b"f" * 16, b"g" * 16, OBJECT, 7)
    sealed = seal_object(KEY, place, b"a block")
    for at in range(len(sealed)):
        with pytest.raises(CorruptObject):
            open_object(KEY, place, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(CorruptObject):
            open_object(KEY, place, sealed[:at])
    with pytest.raises(CorruptObject):
        open_object(KEY, place, sealed + b"\0")


def test_other_suites_are_refused_by_name() -> None:
    assert AD_SIZE == 88
    place = Place(TAG_BLOCK, 3, b"f" * 16, b"g" * 16, OBJECT)
    for refused in (
        lambda: check_suite(0),
        lambda: tag_size(3),
        lambda: seal_object(KEY, place, b""),
        lambda: open_object(KEY, place, bytes(64)),
    ):
        with pytest.raises(UnsupportedFormat, match="suite"):
            refused()
