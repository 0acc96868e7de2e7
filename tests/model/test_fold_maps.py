"""One file, written over and over: its map against plain bytes, in every form blocks can have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.format.change import LOST, Change
from lucid.format.ops import ROOT_INO, Content, Stage
from lucid.meta.fold import Status
from lucid.meta.fold_map import lay
from tests.meta.authors import GEOMETRY, Author, Blocks, changes_of, empty_state
from tests.meta.invariants import check_state
from tests.model.writers import edit

choice = st.integers(0, 997)
forms = st.sampled_from(["plain", "trim", "compressed"])
save = st.tuples(choice, choice, forms, st.integers(0, 3))


@settings(max_examples=100)
@given(st.integers(0, 400), st.lists(save, max_size=12))
def test_a_file_that_is_written_over(size: int, saves: list[tuple[int, int, str, int]]) -> None:
    """S-141, S-161, S-252, S-253: newest and all older versions are the bytes that were written."""
    blocks = Blocks()
    ann = Author(1, b"ann", blocks)
    state = empty_state()
    content = bytes(at % 255 + 1 for at in range(size))
    made = ann.create(ROOT_INO, b"f", content)
    ann.fold(state, made)
    versions = {made.op_id: content}
    base = made.op_id
    for one, two, form, parts in saves:
        content, keep, dirty = edit(content, one, two)
        changes = changes_of(
            blocks, content, dirty, trim=form == "trim", compressed=form == "compressed"
        )
        ids = ann.head()
        own = changes[parts:] if parts < 3 else ()
        for change in changes[: len(changes) - len(own)]:
            ann.fold(state, Stage(ann.head()[0], ids[1], ids[0], (change,)))
        op = Content(
            *ids, made.op_id, base, ROOT_INO, b"f", keep, len(content), ids[1], ids[1], own
        )
        assert ann.fold(state, op).status is Status.APPLIED
        base = ids[0]
        versions[base] = content
        check_state(state)
    for version, wanted in versions.items():
        assert blocks.read(state, made.op_id, version) == wanted
    assert blocks.read(state, made.op_id) == content


runs = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=8)


def ascending(gaps: list[tuple[int, int]], mark: int) -> list[Change]:
    """LOST runs of these gaps and counts; the ordinal says which list they are of."""
    made, at = [], 0
    for gap, count in gaps:
        made.append(Change(at + gap, count, LOST, ordinal=mark))
        at += gap + count
    return made


@given(runs, runs)
def test_one_map_laid_over_another(
    below: list[tuple[int, int]], above: list[tuple[int, int]]
) -> None:
    """S-107: block by block the upper one, where it says something."""
    wanted: dict[int, int] = {}
    lists = ascending(below, 1), ascending(above, 2)
    for run in (*lists[0], *lists[1]):
        wanted.update(dict.fromkeys(range(run.first, run.first + run.count), run.ordinal))
    found: dict[int, int] = {}
    end = 0
    for run in lay(*lists, GEOMETRY):
        assert run.first >= end and run.count > 0
        end = run.first + run.count
        found.update(dict.fromkeys(range(run.first, end), run.ordinal))
    assert found == wanted
