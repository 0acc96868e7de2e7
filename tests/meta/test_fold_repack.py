"""The table of docs/SEMANTICS.md section 10: repack."""

from __future__ import annotations

from typing import Any

import pytest

from lucid.format.ops import ROOT_INO, Drop, Floor, Op, Repack, Rules, Stage, segments_of
from lucid.meta.fold import NOTHING, Status
from lucid.meta.fold_segments import admit_segments
from lucid.meta.state import STAMP_SHIFT
from tests.meta.repacks import lying_in, moves_of, repack, runs_in
from tests.meta.replicas import segment_row
from tests.meta.test_fold_floor import Sealed


def segments(years: Sealed) -> list[bytes]:
    return sorted({run.segment for run in runs_in(years.state.dump()) if run.segment})


def without_places(dump: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """A dump that does not say where blocks lie."""

    def cut(change: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*change[:3], *change[6:])

    return {
        **dump,
        "extent": [(*row[:4], cut(row[4])) for row in dump["extent"]],
        "staged": [(*row[:2], cut(row[2])) for row in dump["staged"]],
        "segment": [],
    }


def test_every_version_reads_as_before() -> None:
    """S-292: extents of the newest map, of older ones, split ones, ones with lengths; and staged
    changes. The head of the old rows is the entry of the repack."""
    years = Sealed()
    versions = years.write(b"plan", b"1" * 70, b"2" * 90)
    op = years.ann.content_on(
        versions[0], versions[1], ROOT_INO, b"plan", b"2" * 48 + b"3" * 20, 48
    )
    years.do(op)
    years.do(years.ann.create(ROOT_INO, b"gone", b"4" * 33))
    years.unlink(b"gone")
    target = years.ann.create(ROOT_INO, b"late", b"5" * 100)
    years.do(Stage(*years.ann.head(), target.op_id, target.changes))
    before = years.state.dump()
    read = {row[0]: years.blocks.read(years.state, row[1], row[0]) for row in before["version"]}
    old = segments(years)
    made = repack(years.ann, years.state, *old)
    entry = years.entry
    effect = years.do(made)
    assert effect.status is Status.APPLIED and effect.names == ()
    assert set(effect.inodes) == {row[0] for row in before["extent"]}
    after = years.state.dump()
    assert without_places(after) == without_places(before)
    assert segments(years) == list(segments_of(made))
    assert not set(old) & set(segments(years))
    for row in before["version"]:
        assert years.blocks.read(years.state, row[1], row[0]) == read[row[0]]
    assert {row[5] for row in after["segment"] if row[0] in old} == {entry}
    years.do(target._replace(changes=()))
    assert years.blocks.read(years.state, target.op_id) == b"5" * 100


def test_what_a_move_covers_in_part_stays() -> None:
    """S-293."""
    years = Sealed()
    (ino,) = years.write(b"plan", b"1" * 64)
    made = repack(years.ann, years.state, *segments(years))
    (move,) = made.moves
    before = years.state.dump()
    for part in (
        move._replace(count=3),
        move._replace(source_ordinal=2, source_offset=27, count=3),
        move._replace(source_ordinal=50),
        move._replace(source_offset=8),
    ):
        assert years.do(made._replace(moves=(part,))) is NOTHING
        after = years.state.dump()
        assert (after["extent"], after["value"]) == (before["extent"], before["value"])
    assert years.blocks.read(years.state, ino) == b"1" * 64


def test_what_came_after_the_collector_had_looked_stays() -> None:
    """S-293: a file that shares the segment, and another repack that was faster."""
    years = Sealed()
    (ino,) = years.write(b"plan", b"1" * 64)
    cut = years.ann.content_on(ino, ino, ROOT_INO, b"plan", b"1" * 20, keep=20)
    (old,) = segments(years)
    lying = lying_in(runs_in(years.state.dump()))
    lying[old] = {at: place for at, place in lying[old].items() if at < 3}
    years.do(cut._replace(changes=()))
    slow = Repack(*years.bea.head(), moves_of(years.blocks, lying, [old]))
    assert years.do(slow).status is Status.APPLIED
    assert years.blocks.read(years.state, ino) == b"1" * 20
    assert years.blocks.read(years.state, ino, ino) == b"1" * 64
    assert old in segments(years), "the first version has four blocks, and the move three"
    fast = repack(years.ann, years.state, *segments(years))
    again = repack(years.bea, years.state, *segments(years))
    years.do(fast)
    assert years.do(again) is NOTHING
    assert segments(years) == list(segments_of(fast))


def test_without_rows_nothing_moves() -> None:
    """S-294: the new segment was sealed below a floor; the old one is not known; no room."""
    years = Sealed()
    years.write(b"plan", b"1" * 64, b"2" * 64)
    floor = years.entry
    years.floor(floor)
    made = repack(years.ann, years.state, *segments(years))
    before = years.state.dump()
    years.head = floor - 1
    assert years.do(made) is NOTHING
    assert years.state.dump() == before
    years.head = None
    (move,) = made.moves
    foreign = move._replace(source=b"\x05" * 32)
    assert years.do(made._replace(moves=(foreign,))) is NOTHING
    beyond = move._replace(offset=4096 - 100 - 4 * 20 + 1)
    assert years.do(made._replace(moves=(beyond,))) is NOTHING
    assert segments(years) == [row[3] for row in runs_in(before)]
    edge = move._replace(offset=4096 - 100 - 4 * 20)
    assert years.do(made._replace(moves=(edge,))).status is Status.APPLIED


def test_the_old_row_stays_until_a_floor_above_the_repack() -> None:
    """S-295: at its entry it stays."""
    years = Sealed()
    years.write(b"plan", b"1" * 64)
    (old,) = segments(years)
    entry = years.entry
    years.do(repack(years.ann, years.state, old))
    for _ in range(3):
        years.do(years.ann.mkdir(ROOT_INO, b"%d" % years.entry))
    years.floor(entry)
    assert years.state.segment(old) is not None
    years.floor(entry + 1)
    assert years.state.segment(old) is None
    assert years.blocks.read(years.state, runs_ino(years)) == b"1" * 64


def runs_ino(years: Sealed) -> int:
    found: int = years.state.dump()["extent"][0][0]
    return found


def test_a_head_never_falls() -> None:
    """S-295: of a segment whose author said a head that was not there yet."""
    years = Sealed()
    years.head = 900
    years.write(b"plan", b"1" * 64)
    (old,) = segments(years)
    years.do(repack(years.ann, years.state, old))
    row = years.state.segment(old)
    assert row is not None and row.head == 900


@pytest.mark.parametrize("rules", [1, 2])
def test_older_rules_know_no_repack(rules: int) -> None:
    """S-297: the log calls such an entry void; the fold does nothing with the op."""
    years = Sealed(rules)
    years.write(b"plan", b"1" * 64)
    made = repack(years.ann, years.state, *segments(years))
    before = years.state.dump()["extent"]
    assert years.do(made) is NOTHING
    assert years.state.dump()["extent"] == before
    years.do(Rules(*years.ann.head(), 3))
    assert years.do(made).status is Status.APPLIED


@pytest.mark.parametrize("kind", ["create", "content", "stage"])
def test_a_change_from_before_names_the_old_segment(kind: str) -> None:
    """S-298: a pack of two files, of which one is committed, and the other late. The old segment
    is named again then, and stays; without a row the change does nothing."""
    years = Sealed()
    (ino,) = years.write(b"plan", b"1" * 64)
    (old,) = segments(years)
    changes = tuple(years.state.extents(ino, 0, 9))
    made = years.bea.create(ROOT_INO, b"late")._replace(size=64, changes=changes)
    content = years.bea.content_on(ino, ino, ROOT_INO, b"plan", b"1" * 64)
    op: Op = {
        "create": made,
        "content": content._replace(changes=changes),
        "stage": Stage(*years.bea.head(), made.op_id, changes),
    }[kind]
    years.head = 1
    years.do(repack(years.ann, years.state, old))
    assert years.do(op, years.bea.who).status is Status.APPLIED
    years.floor(years.entry)
    assert years.state.segment(old) is not None, "it is named"
    if kind == "create":
        assert years.blocks.read(years.state, made.op_id) == b"1" * 64
        years.do(years.bea.unlink(years.state, ROOT_INO, b"late"), years.bea.who)
    elif kind == "content":
        assert years.blocks.read(years.state, ino) == b"1" * 64
        years.unlink(b"plan")
    else:
        years.do(Drop(*years.bea.head(), made.op_id), years.bea.who)
    years.floor(years.entry)
    assert years.state.segment(old) is None
    again = op._replace(op_id=years.bea.head()[0])  # type: ignore[union-attr]
    assert years.do(again, years.bea.who) is NOTHING


def test_a_floor_and_a_repack_in_one_entry() -> None:
    """S-294: the floor ended the row that the new segment had from the beginning of the entry,
    since nothing named it yet."""
    years = Sealed()
    first, second = years.write(b"plan", b"1" * 64, b"2" * 64)
    made = repack(years.ann, years.state, *segments(years))
    admit_segments(years.state, [segment_row(one, years.entry - 1) for one in segments_of(made)])
    years.state.stamp = years.entry << STAMP_SHIFT
    years.ann.fold(years.state, Floor(*years.ann.head(), years.entry))
    years.state.stamp = years.entry << STAMP_SHIFT | 1
    assert years.ann.fold(years.state, made) is NOTHING
    assert years.blocks.read(years.state, first, second) == b"2" * 64
    years.entry += 1  # Sealed by one who has seen the floor.
    assert years.do(made).status is Status.APPLIED
    assert years.blocks.read(years.state, first, second) == b"2" * 64
