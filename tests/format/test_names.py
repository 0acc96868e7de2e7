"""Names of objects and files: made, parsed, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.errors import FormatError
from lucid.format import names

ids = st.binary(min_size=16, max_size=16)
segments = st.binary(min_size=32, max_size=32)
numbers = st.integers(1, 2**63 - 1)


@given(ids, ids, numbers, segments)
def test_what_is_made_is_parsed(one: bytes, other: bytes, number: int, segment: bytes) -> None:
    assert names.parse_member_key(names.member_key(one, number)) == (one, number)
    assert names.parse_generation_key(names.generation_key(one, other)) == (one, other)
    assert names.parse_log_key(names.log_key(number)) == number
    assert names.parse_floor_key(names.floor_key(number)) == number
    assert names.parse_segment_key(names.segment_key(segment)) == segment
    assert names.parse_journal_name(names.journal_name(number)) == number
    assert names.parse_staging_name(names.staging_name(segment)) == segment


def test_they_look_as_the_format_says() -> None:
    assert names.SUPERBLOCK_KEY == "superblock"
    assert names.member_key(b"\x01" * 16, 2) == f"members/{'01' * 16}/{2:016x}"
    assert names.generation_key(b"\x01" * 16, b"\x02" * 16) == f"keys/{'01' * 16}/{'02' * 16}"
    assert names.log_key(255) == "log/00000000000000ff"
    assert names.segment_key(b"\xab" * 32) == f"data/ab/{'ab' * 32}"
    assert names.cache_name(b"\xab" * 32) == f"ab/{'ab' * 32}"
    assert names.checkpoint_key(4096, "manifest") == "checkpoint/0000000000001000/manifest"
    assert names.floor_key(1) == "floor/0000000000000001"
    assert names.probe_key(b"\x01" * 16, "race") == f"probe/{'01' * 16}/race"


def test_keys_sort_as_their_numbers() -> None:
    keys = [names.log_key(number) for number in (1, 9, 10, 255, 256, 2**40)]
    assert keys == sorted(keys)


PARSERS = [
    names.parse_member_key,
    names.parse_generation_key,
    names.parse_log_key,
    names.parse_floor_key,
    names.parse_segment_key,
    names.parse_journal_name,
    names.parse_staging_name,
]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "log/",
        "log/0000000000000000",  # numbers begin at 1
        "log/8000000000000000",  # and fit into 63 bits
        "log/00000000000000FF",
        "log/0000000000000001\n",
        "log/0000000000000001/x",
        "xlog/0000000000000001",
        "log/\u0661000000000000000",  # a digit, but none of ours
        f"data/ab/{'ac' * 32}",  # the wrong directory
        f"data/ab/{'ab' * 31}",
        f"members/{'01' * 16}/{'0' * 16}",
        f"members/{'01' * 15}/{1:016x}",
        f"keys/{'01' * 16}/{'02' * 15}",
        "AB" * 32,
        "0" * 16,
    ],
)
def test_foreign_names_are_not_ours(key: str) -> None:
    assert [parse(key) for parse in PARSERS] == [None] * len(PARSERS)


@given(st.text(alphabet="0123456789abcdefg/logdata", max_size=90))
def test_what_parses_is_what_is_made(key: str) -> None:
    sequence, segment = names.parse_log_key(key), names.parse_segment_key(key)
    assert sequence is None or names.log_key(sequence) == key
    assert segment is None or names.segment_key(segment) == key


def test_impossible_names_are_not_made() -> None:
    for number in (0, -1, 2**63):
        with pytest.raises(FormatError):
            names.log_key(number)
    for segment in (b"", b"x" * 31, b"x" * 33):
        with pytest.raises(FormatError):
            names.segment_key(segment)
    for part in ("", "../x", "a/b", "UP", "x" * 65):
        with pytest.raises(FormatError):
            names.checkpoint_key(1, part)
        with pytest.raises(FormatError):
            names.probe_key(b"x" * 16, part)
