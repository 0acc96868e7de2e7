"""Conflict names: docs/SEMANTICS.md section 9."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lucid.errors import FormatError
from lucid.format.check import check_name
from lucid.format.limits import TIME_MAX, TIME_MIN
from lucid.format.ops import ROOT_INO
from lucid.meta.conflict_names import conflict_name, is_conflict_of, split_name, utc_text
from tests.meta.authors import EPOCH_NS
from tests.meta.desk import Desk

MARK = b" (conflict ann desk 2026-11-22 10.15.00)"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"plan.txt", b"plan" + MARK + b".txt"),
        (b"plan", b"plan" + MARK),
        (b"a.tar.gz", b"a.tar" + MARK + b".gz"),
        (b".profile", b".profile" + MARK),
        (b"..odd", b"..odd" + MARK),
        (b".profile.bak", b".profile" + MARK + b".bak"),
        (b"ends.", b"ends." + MARK),
        (b"\xff\xfe.\xfd", b"\xff\xfe" + MARK + b".\xfd"),
        (b"No. " + b"x" * 40, b"No. " + b"x" * 40 + MARK),
    ],
)
def test_the_form(name: bytes, wanted: bytes) -> None:
    """S-81: stem, the mark, extension; dots in front belong to the stem."""
    assert conflict_name(name, b"ann", b"desk", EPOCH_NS) == wanted


def test_the_time_is_utc() -> None:
    """S-81: whatever the machine's zone or locale is."""
    for time_ns in (0, EPOCH_NS, -1, 951_782_400 * 10**9, 4_107_542_399 * 10**9):
        then = datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.timezone.utc)
        assert utc_text(time_ns).decode() == then.strftime("%Y-%m-%d %H.%M.%S")


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_every_day_is_in_the_calendar(seconds: int) -> None:
    """S-81: compared with the standard library over years 1 to 9999."""
    epoch = datetime.datetime(1970, 1, 1)
    then = epoch + datetime.timedelta(seconds=seconds)
    assert utc_text(seconds * 10**9).decode() == then.isoformat(" ").replace(":", ".")


@given(st.integers())
@example(TIME_MIN)
@example(TIME_MAX)
def test_any_time_has_a_text(time_ns: int) -> None:
    """S-81: years beyond are shown as the nearest year that has four digits."""
    assert len(utc_text(time_ns)) == 19


@pytest.mark.parametrize(
    ("name", "head"),
    [
        (b"x" * 255, b"x" * 215),
        (b"x" * 251 + b".txt", b"x" * 211),
        ("ü".encode() * 127, "ü".encode() * 107),
        ("€".encode() * 85, "€".encode() * 71),
        ("𝄞".encode() * 63 + b"abc", "𝄞".encode() * 53),
        (b"\x80" * 255, b"\x80" * 215),
    ],
)
def test_a_long_name_is_cut_between_characters(name: bytes, head: bytes) -> None:
    """S-82: to 255 bytes, in front of the mark."""
    cut = conflict_name(name, b"ann", b"desk", EPOCH_NS)
    assert cut == head + MARK + split_name(name)[1]
    assert 252 <= len(cut) <= 255
    assert is_conflict_of(cut, name, b"ann", b"desk")


def test_labels_are_cleaned() -> None:
    """S-83: what cannot stand in a name, or would fake another one, is an underline."""
    odd = conflict_name(b"f", b"a/b\0c\nd\x1b", b"", EPOCH_NS)
    assert odd == b"f (conflict a_b_c_d_ _ 2026-11-22 10.15.00)"
    long = conflict_name(b"f", b"m" * 99, "ü".encode() * 99, EPOCH_NS)
    assert long == b"f (conflict " + b"m" * 64 + b" " + "ü".encode() * 32 + MARK[19:]


def test_taken_names_are_counted_on() -> None:
    """S-84: ` 2`, ` 3`; and after 64 the op's id is the number."""
    desk = Desk()
    made = []
    for _ in range(70):
        desk.bea.time_ns = EPOCH_NS
        made.append(desk.bea.create(ROOT_INO, b"f.txt", b""))
    for op in made:
        desk.bea.fold(desk.state, op)
    names = [row.name for row in desk.state.children(ROOT_INO)]
    mark = b"f (conflict bea desk 2026-11-22 10.15.01)"
    wanted = [b"f.txt", mark + b".txt", *(mark + b" %d.txt" % n for n in range(2, 65))]
    assert names == wanted + [mark + b" %d.txt" % op.op_id for op in made[65:]]
    assert all(is_conflict_of(name, b"f.txt", b"bea", b"desk") for name in names[1:])


@given(
    st.binary(min_size=1, max_size=255),
    st.binary(max_size=80),
    st.binary(max_size=80),
    st.integers(TIME_MIN, TIME_MAX),
    st.integers(1, TIME_MAX),
)
def test_any_name_gives_a_name_that_is_recognised(
    name: bytes, member: bytes, device: bytes, time_ns: int, nth: int
) -> None:
    """S-82, S-85: never over 255 bytes, never an impossible name; and known again as what it is."""
    try:
        check_name(name)
    except FormatError:
        return
    landed = conflict_name(name, member, device, time_ns, nth)
    check_name(landed)
    assert landed != name
    assert is_conflict_of(landed, name, member, device)


@pytest.mark.parametrize(
    "landed",
    [
        b"plan.txt",
        b"plan (conflict ann desk 2026-11-22 10.15.00)",
        b"plan (conflict ann desk 2026-11-22 10.15.00).md",
        b"play (conflict ann desk 2026-11-22 10.15.00).txt",
        b"pla (conflict ann desk 2026-11-22 10.15.00).txt",
        b"plan (conflict ann lap 2026-11-22 10.15.00).txt",
        b"plan (conflict ann desk 2026-11-22 10.15).txt",
        b"plan (conflict ann desk 2026-11-22 10.15.00) two.txt",
        b"plan (conflict ann desk 2026-11-22 10.15.00)2.txt",
    ],
)
def test_other_names_are_not_taken_for_one(landed: bytes) -> None:
    """S-85: another stem, extension, author or form."""
    assert not is_conflict_of(landed, b"plan.txt", b"ann", b"desk")
