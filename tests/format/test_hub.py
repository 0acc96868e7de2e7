"""Frames and messages of the hub: what is written is read, and nothing else is. Tokens too."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.errors import DataError, FormatError, UsageError
from lucid.format.canonical import pack
from lucid.format.entry import EntryRef
from lucid.format.hub import (
    HUB_MESSAGE_MAX,
    LOOK,
    PATH_MAX,
    PATHS_MAX,
    WELCOME,
    Answer,
    Challenge,
    Frame,
    Hint,
    Presence,
    Sealed,
    decode_frame,
    decode_hint,
    decode_message,
    decode_presence,
    encode_frame,
    encode_hint,
    encode_message,
    encode_presence,
)
from lucid.format.token import Token, format_token, parse_token

FRAMES: tuple[Frame, ...] = (
    Challenge(1, b"n" * 32), Answer(b"r" * 32, b"s" * 64), WELCOME, Sealed(b"o" * 32, b"x" * 600),
    LOOK,
)  # fmt: skip
PRESENCE = Presence(5, b"d" * 16, 1, 3, b"laptop", 1, 0, (b"/a", b"/\xff"), 2)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_frames_come_back(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


def test_their_bytes_stay() -> None:
    assert encode_frame(WELCOME) == b"\x91\x03"
    assert encode_frame(LOOK) == b"\x91\x05"
    assert encode_frame(FRAMES[0]) == b"\x93\x01\x01\xc4\x20" + b"n" * 32
    assert encode_frame(FRAMES[1]) == b"\x93\x02\xc4\x20" + b"r" * 32 + b"\xc4\x40" + b"s" * 64
    assert encode_hint(Hint(1, 2, b"h" * 32)) == b"\x93\x01\x02\xc4\x20" + b"h" * 32


@given(
    st.builds(
        Presence,
        time_ns=st.integers(-(1 << 63), (1 << 63) - 1),
        device=st.binary(min_size=16, max_size=16),
        number=st.integers(1, (1 << 63) - 1),
        session=st.integers(0, (1 << 31) - 1),
        label=st.sampled_from([b"a", "é".encode(), b"x" * 64]),
        asks=st.integers(0, 1),
        leaves=st.integers(0, 1),
        paths=st.lists(st.binary(min_size=1, max_size=PATH_MAX), max_size=PATHS_MAX).map(tuple),
        more=st.integers(0, (1 << 32) - 1),
    )
)
def test_presences_come_back_and_fit_into_a_frame(presence: Presence) -> None:
    payload = encode_presence(presence)
    assert decode_presence(payload) == presence
    message = encode_message(2, b"m" * 16, payload, b"s" * 64)
    assert decode_message(message) == (2, b"m" * 16, payload, b"s" * 64)
    assert len(encode_frame(Sealed(b"o" * 32, message + bytes(32)))) <= HUB_MESSAGE_MAX


def test_sizes_of_messages_tell_little() -> None:
    sizes = {
        len(
            encode_message(2, b"m" * 16, encode_presence(PRESENCE._replace(paths=paths)), b"s" * 64)
        )
        for paths in ((), (b"/a",), (b"/" + b"x" * 100, b"/b"))
    }
    assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": b"short"}, {"number": 0}, {"session": -1}, {"label": b""}, {"label": b"a/b"},
        {"label": "text"}, {"asks": 2}, {"leaves": None}, {"paths": (b"",)}, {"more": -1},
        {"paths": (b"x" * (PATH_MAX + 1),)}, {"paths": (b"/x",) * (PATHS_MAX + 1)}, {"paths": 7},
    ],
    ids=str,
)  # fmt: skip
def test_presences_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises((FormatError, TypeError)):
        encode_presence(PRESENCE._replace(**wrong))  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        decode_presence(pack(PRESENCE._replace(**wrong)) if "text" not in wrong.values() else b"")  # type: ignore[arg-type]


def test_hints_that_cannot_be() -> None:
    for wrong in (Hint(0, 0, b"h" * 32), Hint(0, 1, b"h"), Hint(0, 1 << 63, b"h" * 32)):
        with pytest.raises(FormatError):
            encode_hint(wrong)
    assert decode_hint(encode_hint(Hint(-5, 9, b"h" * 32))) == Hint(-5, 9, b"h" * 32)


def test_altered_bytes_are_refused_or_mean_one_thing() -> None:
    chance = random.Random(5)
    presence = encode_presence(PRESENCE)
    decoders = [(encode_frame(frame), decode_frame, encode_frame) for frame in FRAMES]
    decoders.append((presence, decode_presence, encode_presence))  # type: ignore[arg-type]
    for data, decode, encode in decoders:
        for _ in range(1000):
            bent = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                bent[chance.randrange(len(bent))] = chance.randrange(256)
            bent = bent[: chance.randrange(1, len(bent) + 1)] if chance.random() < 0.2 else bent
            try:
                value = decode(bytes(bent))
            except DataError:
                continue
            assert encode(value) == bytes(bent)


def test_tokens_come_back() -> None:
    token = format_token(bytes.fromhex("1a2b3c4d" * 4), EntryRef(1234, b"\xab" * 32))
    assert token == "1a2b3c4d-1234-abababababababab"
    assert parse_token(f" {token}\n") == Token("1a2b3c4d", 1234, "ab" * 8)
    for wrong in ("", "x", token[1:], token.upper(), token + "0", token.replace("1234", "9" * 19)):
        with pytest.raises(UsageError, match="no token"):
            parse_token(wrong)
