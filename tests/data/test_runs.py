"""Run maps against a dictionary of blocks: where each block lies, and how much of it counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lucid.format.change import DATA, HOLE, LOST, Change
from lucid.format.runs import Geometry, RunMap, run_bytes, stored_bytes

BLOCK, TAG = 64, 4
GEOMETRY = Geometry(BLOCK, TAG)
SEGMENTS = (b"a" * 32, b"b" * 32)
Where = tuple[int, bytes, int, int, int, int]
"""kind, segment, ordinal, offset, sealed length, bytes that count."""


@st.composite
def changes(draw: st.DrawFn) -> Change:
    first, count = draw(st.integers(0, 12)), draw(st.integers(1, 5))
    kind = draw(st.sampled_from((DATA, DATA, HOLE, LOST)))
    if kind != DATA:
        return Change(first, count, kind)
    ordinal = draw(st.integers(0, 6))
    last = draw(st.integers(1, BLOCK))
    return Change(
        first, count, DATA, draw(st.sampled_from(SEGMENTS)), ordinal,
        ordinal * GEOMETRY.stored_block, 0, last, last, None,
    )  # fmt: skip


def blocks_of(run: Change) -> dict[int, Where]:
    """Every block of a run."""
    found: dict[int, Where] = {}
    for index in range(run.count):
        if run.kind != DATA:
            found[run.first + index] = (run.kind, b"", 0, 0, 0, 0)
            continue
        is_last = index == run.count - 1
        found[run.first + index] = (
            DATA, run.segment, run.ordinal + index,
            run.offset + index * GEOMETRY.stored_block,
            run.last_len if is_last else BLOCK, run.last_valid if is_last else BLOCK,
        )  # fmt: skip
    return found


def cut(model: dict[int, Where], size: int) -> dict[int, Where]:
    kept = {}
    for block, where in model.items():
        valid = size - block * BLOCK
        if valid > 0:
            kept[block] = where if where[0] != DATA else (*where[:5], min(where[5], valid))
    return kept


steps = st.lists(
    st.one_of(changes(), st.integers(0, 17 * BLOCK)), min_size=1, max_size=25
)  # an integer cuts


@given(steps, st.integers(0, 18), st.integers(0, 18))
def test_a_run_map_is_a_dictionary_of_blocks(todo, low, high) -> None:  # type: ignore[no-untyped-def]
    runs = RunMap(GEOMETRY)
    model: dict[int, Where] = {}
    for step in todo:
        revision = runs.revision
        if isinstance(step, int):
            runs.cut(step)
            model = cut(model, step)
        else:
            runs.lay(step)
            model.update(blocks_of(step))
        assert runs.revision > revision
        found: dict[int, Where] = {}
        for run in runs.runs():
            assert not set(found) & set(blocks_of(run)), "runs do not overlap"
            found.update(blocks_of(run))
        assert found == model
        assert [run.first for run in runs.runs()] == sorted(run.first for run in runs.runs())
        assert sum(run_bytes(run, GEOMETRY) for run in runs.runs()) == sum(
            where[5] for where in model.values()
        )
        assert sum(stored_bytes(run, GEOMETRY) for run in runs.runs()) == sum(
            where[4] + TAG for where in model.values() if where[0] == DATA
        )
        between: dict[int, Where] = {}
        for run in runs.between(low, high):
            between.update(blocks_of(run))
        assert between == {b: where for b, where in model.items() if low <= b < high}
        assert all(runs.covers(block) == (block in model) for block in range(20))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_appending_makes_one_run(counts: list[int]) -> None:
    """However often a file is appended to: its map does not grow (S-255)."""
    runs = RunMap(GEOMETRY)
    at = 0
    for count in counts:
        runs.lay(
            Change(at, count, DATA, SEGMENTS[0], at, at * GEOMETRY.stored_block, 0, BLOCK, BLOCK)
        )
        at += count
    assert len(runs) == 1
