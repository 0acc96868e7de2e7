"""Byte ranges and dirty blocks against sets and plain arrays of bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lucid.data.dirty import DirtyBlock, Ranges

EDGE = 40
spans = st.tuples(st.integers(0, EDGE), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), spans),
        st.tuples(st.just("cut"), st.integers(0, EDGE + 12)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=20,
)


@given(steps, spans)
def test_ranges_are_a_set_of_bytes(todo, asked) -> None:  # type: ignore[no-untyped-def]
    ranges, model = Ranges(), set()
    for kind, value in todo:
        if kind == "add":
            ranges.add(*value)
            model |= set(range(*value))
        elif kind == "cut":
            ranges.cut(value)
            model = {byte for byte in model if byte < value}
        else:
            ranges.clear()
            model.clear()
        found = list(ranges)
        assert {byte for start, end in found for byte in range(start, end)} == model
        assert all(start < end for start, end in found)
        joined = all(end < start for (_, end), (start, _) in pairwise(found))
        assert joined, "sorted, and neighbours are one range"
        assert bool(ranges) == bool(model)
        assert ranges.covers(*asked) == (set(range(*asked)) <= model)
    assert ranges.covers(5, 5)


writes = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, EDGE), st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("saved"), st.integers(0, EDGE), st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("cut"), st.integers(0, EDGE), st.just(b"")),
    ),
    max_size=15,
)


@given(writes, st.integers(0, EDGE), st.integers(0, EDGE))
def test_a_dirty_block_is_a_dictionary_of_bytes(todo, low, high) -> None:  # type: ignore[no-untyped-def]
    block = DirtyBlock()
    model: dict[int, int] = {}
    unsaved: set[int] = set()
    held = 0
    for kind, at, data in todo:
        if kind == "cut":
            held -= block.cut(at)
            model = {byte: value for byte, value in model.items() if byte < at}
            unsaved = {byte for byte in unsaved if byte < at}
        else:
            held += block.write(at, data, saved=kind == "saved")
            model.update({at + n: value for n, value in enumerate(data)})
            if kind == "write":
                unsaved |= set(range(at, at + len(data)))
        assert held == len(block.data)
        assert {b for start, end in block.unsaved for b in range(start, end)} == unsaved
        target = bytearray(b"\xee" * EDGE)
        low, high = min(low, high), max(low, high)
        block.lay_over(target, 0, low, high)
        want = bytearray(b"\xee" * EDGE)
        for byte, value in model.items():
            if low <= byte < high and byte - low < EDGE:
                want[byte - low] = value
        assert target == want
        assert block.is_whole(high) == (set(range(high)) <= set(model))
