"""What rows fit, against the same question asked field by field."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.engine.fields import Fields

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
TYPES = (int, bytes, int, type(None))
NUMBERS = st.one_of(
    st.integers(-3, 3), st.sampled_from([INT64_MIN, INT64_MIN - 1, INT64_MAX, INT64_MAX + 1])
)
VALUES = st.one_of(NUMBERS, st.booleans(), st.binary(max_size=2), st.none(), st.just(1.0))


class Row(NamedTuple):
    first: Any
    second: Any
    third: Any
    fourth: Any


@given(
    row=st.builds(Row, NUMBERS, st.binary(max_size=2), NUMBERS, st.none()), low=st.integers(-3, 3)
)
def test_numbers_are_in_their_ranges(row: Row, low: int) -> None:
    fields = Fields(TYPES, {0: (low, INT64_MAX), 2: (INT64_MIN, 2)})
    assert fields.fit(row) == (low <= row.first <= INT64_MAX and INT64_MIN <= row.third <= 2)


@given(row=st.lists(VALUES, min_size=3, max_size=5).map(tuple))
def test_types_are_exact(row: tuple[Any, ...]) -> None:
    assert Fields(TYPES, {}).fit(row) == (tuple(map(type, row)) == TYPES)


@pytest.mark.parametrize("row", [None, 5, [1, b"", 1, None], ()])
def test_what_is_no_such_row_does_not_fit(row: object) -> None:
    assert not Fields(TYPES, {}).fit(row)


def test_only_numbers_have_a_range() -> None:
    for place in (-1, 1, 4):
        with pytest.raises(ValueError, match="no number"):
            Fields(TYPES, {place: (0, 1)})
    with pytest.raises(OverflowError):
        Fields(TYPES, {0: (0, INT64_MAX + 1)})
    with pytest.raises(ValueError, match="at most 32"):
        Fields((int,) * 33, {})
