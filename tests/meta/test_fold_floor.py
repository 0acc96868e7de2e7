"""The table of docs/SEMANTICS.md section 10: rules and floor."""

from __future__ import annotations

import pytest

from lucid.format.ops import ROOT_INO, Drop, Floor, Op, Rules, Stage, segments_of
from lucid.meta.fold import NOTHING, Author, Effect, Status, fold
from lucid.meta.fold_floor import VALUE_FLOOR
from lucid.meta.fold_rules import VALUE_RULES, VALUE_SINCE
from lucid.meta.fold_segments import admit_segments
from lucid.meta.state import STAMP_SHIFT
from tests.meta.desk import Desk
from tests.meta.invariants import check_state
from tests.meta.replicas import segment_row


class Years(Desk):
    """A desk whose ops come one an entry: `entry` is the number of the next."""

    def __init__(self, rules: int = 2) -> None:
        super().__init__(rules)
        self.entry = 2

    def do(self, op: Op, author: Author | None = None) -> Effect:
        self.state.stamp = self.entry << STAMP_SHIFT
        effect = fold(self.state, op, author or self.ann.who)
        self.entry += 1
        check_state(self.state)
        return effect

    def write(self, name: bytes, *contents: bytes) -> list[int]:
        """The version of each content of a new file; the first is its inode's number, too."""
        made = self.ann.create(ROOT_INO, name, contents[0])
        self.do(made)
        versions = [made.op_id]
        for content in contents[1:]:
            op = self.ann.content(self.state, ROOT_INO, name, content, keep=0)
            self.do(op)
            versions.append(op.op_id)
        return versions

    def floor(self, sequence: int) -> Effect:
        return self.do(Floor(*self.ann.head(), sequence))

    def unlink(self, name: bytes) -> int:
        """Removes a name; the entry that did it."""
        self.do(self.ann.unlink(self.state, ROOT_INO, name))
        return self.entry - 1


@pytest.fixture
def years() -> Years:
    return Years()


# rules


def test_higher_rules_come_into_force() -> None:
    """S-271: and the state says since which entry."""
    years = Years(rules=1)
    assert years.do(Rules(*years.ann.head(), 2)).status is Status.APPLIED
    assert years.state.get_value(VALUE_RULES) == b"2"
    assert years.state.get_value(VALUE_SINCE) == b"2"


@pytest.mark.parametrize("number", [1, 2])
def test_rules_never_go_back(years: Years, number: int) -> None:
    """S-272."""
    before = years.state.dump()
    assert years.do(Rules(*years.ann.head(), number)) is NOTHING
    assert years.state.dump() == before


def test_rules_that_are_not_known_here_are_taken_note_of(years: Years) -> None:
    """S-271, S-53: the reader stops before the next entry; this one was still under rules 2."""
    years.do(Rules(*years.ann.head(), 9))
    assert years.state.get_value(VALUE_RULES) == b"9"


# floor


def test_versions_that_were_followed_before_it_are_gone(years: Years) -> None:
    """S-281, S-283: of three versions the last two are alive in entry 4, and read as before."""
    first, second, third = years.write(b"plan", b"1" * 40, b"2" * 40, b"3" * 40)
    assert years.floor(4).status is Status.APPLIED
    assert years.state.get_value(VALUE_FLOOR) == b"4"
    assert [row.id for row in years.state.versions(first)] == [second, third]
    assert years.blocks.read(years.state, first, second) == b"2" * 40
    assert years.blocks.read(years.state, first) == b"3" * 40
    assert years.state.version(first) is None


def test_later_versions_keep_what_they_have_of_gone_ones(years: Years) -> None:
    """S-283: an extent stays as long as one version has it, whoever added it."""
    (ino,) = years.write(b"log", b"a" * 32)
    base, text = ino, b"a" * 32
    versions = []
    for letter in (b"b", b"c", b"d"):
        text += letter * 16
        op = years.ann.content_on(ino, base, ROOT_INO, b"log", text, keep=len(text) - 16)
        years.do(op)
        base = op.op_id
        versions.append(base)
    years.floor(years.entry)
    assert [row.id for row in years.state.versions(ino)] == versions[-1:]
    assert years.blocks.read(years.state, ino, base) == text
    cut = years.ann.content_on(ino, base, ROOT_INO, b"log", text[:20], keep=20)
    years.do(cut._replace(changes=()))
    assert years.blocks.read(years.state, ino, base) == text
    assert years.blocks.read(years.state, ino) == text[:20]


def test_extents_that_no_version_has_are_gone(years: Years) -> None:
    """S-283."""
    years.write(b"plan", b"1" * 40, b"2" * 40, b"3" * 40)
    assert len(years.state.dump()["extent"]) == 3
    years.floor(years.entry)
    assert len(years.state.dump()["extent"]) == 1


def test_a_version_that_was_followed_in_that_entry_or_later_stays(years: Years) -> None:
    """S-285."""
    first, second = years.write(b"plan", b"1", b"2")
    years.floor(3)
    assert [row.id for row in years.state.versions(first)] == [first, second]


def test_what_was_removed_before_it_is_gone(years: Years) -> None:
    """S-284: the inode, its versions, extents and attributes, and the row of its removal."""
    (ino,) = years.write(b"plan", b"1" * 40)
    years.do(years.ann.setxattr(ino, b"user.a", b"1"))
    removal = years.unlink(b"plan")
    assert years.floor(removal).status is Status.APPLIED
    assert years.state.inode(ino) is not None
    effect = years.floor(removal + 1)
    assert effect.inodes == (ino,)
    left = years.state.dump()
    assert [row[0] for row in left["inode"]] == [ROOT_INO]
    for table in ("version", "extent", "xattr", "removed"):
        assert not left.get(table), table


def test_a_directory_that_was_removed_before_it_is_gone(years: Years) -> None:
    """S-284, S-286: a late file for it goes into the root."""
    made = years.ann.mkdir(ROOT_INO, b"docs")
    years.do(made)
    late = years.bea.create(made.op_id, b"late", b"bytes")
    years.do(years.ann.rmdir(years.state, ROOT_INO, b"docs"))
    years.floor(years.entry)
    assert years.state.inode(made.op_id) is None
    assert {row[0] for row in years.state.dump()["directory"]} == {ROOT_INO}
    years.do(late, years.bea.who)
    assert years.tree() == {"late": b"bytes"}


def test_what_was_removed_in_that_entry_or_later_stays(years: Years) -> None:
    """S-285: with its newest version only, if older ones were dead before."""
    first, second = years.write(b"plan", b"1", b"2")
    removal = years.unlink(b"plan")
    years.floor(removal)
    assert [row.id for row in years.state.versions(first)] == [second]
    years.do(years.ann.link(first, ROOT_INO, b"plan"))
    assert years.tree() == {"plan": b"2"}


def test_a_removal_under_rules_1_counts_from_the_end_of_those() -> None:
    """S-284: nobody wrote down when it was."""
    years = Years(rules=1)
    (ino,) = years.write(b"plan", b"1")
    years.unlink(b"plan")
    came = years.entry
    years.do(Rules(*years.ann.head(), 2))
    years.floor(came)
    assert years.state.inode(ino) is not None
    years.floor(came + 1)
    assert years.state.inode(ino) is None


def test_floors_only_rise_and_never_lie_ahead(years: Years) -> None:
    """S-282: below the last one, the same again, or above its own entry: nothing."""
    years.write(b"plan", b"1", b"2", b"3")
    years.floor(3)
    for sequence in (2, 3, years.entry + 9):
        before = years.state.dump()
        assert years.floor(sequence) is NOTHING
        assert years.state.dump() == before
    assert years.floor(years.entry).status is Status.APPLIED


def test_under_rules_1_there_is_no_floor() -> None:
    """S-268."""
    years = Years(rules=1)
    years.write(b"plan", b"1", b"2")
    assert years.floor(3) is NOTHING


def test_ops_about_what_is_gone(years: Years) -> None:
    """S-286: as about what was never there."""
    first, second = years.write(b"plan", b"1" * 20, b"2" * 20)
    (removed,) = years.write(b"removed", b"x")
    years.unlink(b"removed")
    clone = years.bea.clone(first, first, first, second, ROOT_INO, b"plan")
    save = years.bea.content_on(first, first, ROOT_INO, b"plan", b"9" * 20, keep=16)
    link = years.bea.link(removed, ROOT_INO, b"back")
    change = years.bea.setattr(removed, mode=0o600)
    years.floor(years.entry)
    for op in (clone, link, change):
        assert years.do(op, years.bea.who) is NOTHING, op
    assert years.do(save, years.bea.who).status is Status.CONFLICT
    copy = years.state.extents(save.op_id, 0, 9)
    assert [(run.first, run.kind) for run in copy] == [(0, 3), (1, 1)]


def test_a_second_floor_goes_on_where_the_first_stopped(years: Years) -> None:
    """S-283: versions and extents that the first one left."""
    versions = years.write(b"plan", *(b"%d" % n * 20 for n in range(6)))
    for floor in (3, 5, 7):
        years.floor(floor)
        left = [row.id for row in years.state.versions(versions[0])]
        assert left == versions[floor - 3 :]
        for number, version in zip(range(floor - 3, 6), left, strict=True):
            assert years.blocks.read(years.state, versions[0], version) == b"%d" % number * 20


# segments, under rules 3


class Sealed(Years):
    """A desk under rules 3, whose segments are sealed at the head that it is told."""

    def __init__(self, rules: int = 3) -> None:
        super().__init__(rules)
        self.head: int | None = None
        """The author's head when it seals; None: the entry before."""

    def do(self, op: Op, author: Author | None = None) -> Effect:
        head = self.entry - 1 if self.head is None else self.head
        admit_segments(self.state, [segment_row(one, head) for one in segments_of(op)])
        return super().do(op, author)

    def rows(self) -> int:
        return len(self.state.dump()["segment"])


def test_rows_of_segments_that_nothing_names_go() -> None:
    """S-287: of three contents two are left in entry 4; the first one's segment has no row."""
    years = Sealed()
    first, _, third = years.write(b"plan", b"1" * 40, b"2" * 40, b"3" * 40)
    (segment,) = segments_of(years.ann.create(ROOT_INO, b"x", b"9"))
    years.state.add_segment(segment_row(segment, 4))
    assert years.rows() == 4
    years.floor(4)
    assert years.rows() == 3, "what was sealed at the floor or later stays"
    years.floor(5)
    assert years.rows() == 1
    assert years.blocks.read(years.state, first, third) == b"3" * 40


def test_staged_segments_keep_their_rows() -> None:
    """S-287: until they are dropped."""
    years = Sealed()
    made = years.ann.create(ROOT_INO, b"f", b"1" * 40)
    years.do(Stage(*years.ann.head(), made.op_id, made.changes))
    years.floor(years.entry)
    assert years.rows() == 1
    years.do(Drop(*years.ann.head(), made.op_id))
    assert years.rows() == 1
    years.floor(years.entry)
    assert years.rows() == 0


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("kind", ["create", "content", "stage"])
def test_a_segment_from_below_the_floor_never_comes_in(kind: str, below: bool) -> None:
    """S-288: at the floor it does."""
    years = Sealed()
    (ino,) = years.write(b"plan", b"1" * 20)
    floor = years.entry
    years.floor(floor)
    made = years.ann.create(ROOT_INO, b"new", b"2" * 20)
    op: Op = {
        "create": made,
        "content": years.ann.content_on(ino, ino, ROOT_INO, b"plan", b"3" * 20),
        "stage": Stage(*years.ann.head(), years.ann.head()[0], made.changes),
    }[kind]
    years.head = floor - 1 if below else floor
    before = years.state.dump()
    effect = years.do(op)
    assert (effect is NOTHING) == below
    assert (years.state.dump() == before) == below


def test_an_old_segment_that_is_still_named_may_be_named_again() -> None:
    """S-288: a pack whose other files are alive; once they are gone it may not."""
    years = Sealed()
    years.head = 1
    (ino,) = years.write(b"plan", b"1" * 20)
    years.floor(years.entry)
    changes = tuple(years.state.extents(ino, 0, 9))
    again = years.ann.create(ROOT_INO, b"again")._replace(size=20, changes=changes)
    assert years.do(again).status is Status.APPLIED
    for name in (b"plan", b"again"):
        years.unlink(name)
    years.floor(years.entry)
    assert years.rows() == 0
    late = years.ann.create(ROOT_INO, b"late")._replace(size=20, changes=changes)
    assert years.do(late) is NOTHING


def test_a_floor_and_an_op_in_one_entry() -> None:
    """S-288: the row came with the entry, and the floor before the op took it."""
    years = Sealed()
    years.write(b"plan", b"1", b"2")
    years.state.stamp = years.entry << STAMP_SHIFT
    made = years.ann.create(ROOT_INO, b"f", b"1" * 20)
    admit_segments(years.state, [segment_row(one, 1) for one in segments_of(made)])
    effect = fold(years.state, Floor(*years.ann.head(), years.entry), years.ann.who)
    assert effect.status is Status.APPLIED
    assert fold(years.state, made, years.ann.who) is NOTHING


def test_under_rules_2_rows_of_segments_stay() -> None:
    """S-287, S-288: what rules 2 said they say for ever."""
    years = Sealed(rules=2)
    years.write(b"plan", b"1" * 40, b"2" * 40, b"3" * 40)
    years.floor(years.entry)
    assert years.rows() == 3
    years.head = 1
    assert years.do(years.ann.create(ROOT_INO, b"f", b"1")).status is Status.APPLIED
    assert years.rows() == 4
