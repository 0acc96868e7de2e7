"""The table of docs/SEMANTICS.md section 10: take, give and takeover, and content that gives way.

Three sessions ask for the lease of one file, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.format.ops import (
    LEASE_EXCLUSIVE,
    LEASE_NONE,
    LEASE_SHARED,
    ROOT_INO,
    Floor,
    Op,
    Rules,
    SessionOp,
    Takeover,
)
from lucid.meta.fold import NOTHING, Effect, Status
from lucid.meta.fold_lease import granted_mode, granted_rows, is_leased_elsewhere
from lucid.meta.lease_rows import LEASE_PREFIX, lease_name, pack_lease, unpack_lease
from lucid.meta.state import STAMP_SHIFT, LeaseRow
from tests.meta.authors import EPOCH_NS, Author, look
from tests.meta.desk import Desk, removed_directory
from tests.meta.invariants import check_state, checked_fold

OLD = b"the first plan, which was a good one, and long"
BEA = "plan (conflict bea desk 2026-11-22 10.15.{:02}).txt"


class Office(Desk):
    """A desk under rules 4, with a third author and a file; sessions are in the state."""

    def __init__(self, rules: int = 4) -> None:
        super().__init__(rules)
        self.cem = Author(3, b"cem", self.blocks)
        for number in range(3):
            op = SessionOp(0, EPOCH_NS, bytes([number]) * 16, b"desk")
            assert Author(0, b"", self.blocks).fold(self.state, op) is not NOTHING
        made = self.ann.create(ROOT_INO, b"plan.txt", OLD)
        self.do(self.ann, made)
        self.ino = made.op_id

    def do(self, author: Author, op: Op) -> Effect:
        effect = checked_fold(self.state, author, op)
        check_state(self.state)
        return effect

    def take(self, author: Author, mode: int) -> Effect:
        return self.do(author, author.take(self.ino, mode))

    def give(self, author: Author, mode: int = LEASE_NONE) -> Effect:
        return self.do(author, author.give(self.ino, mode))

    def seen(self, session: int, sequence: int) -> None:
        """The newest entry of a session is that one."""
        row = self.state.session(session)
        assert row is not None
        self.state.put_session(row._replace(last_sequence=sequence))

    def line(self) -> list[tuple[int, int]]:
        """(session, mode) of all in line."""
        return [(row.session, row.mode) for row in self.state.lease(self.ino)]

    def has(self) -> list[int]:
        """What Ann, Bea and Cem have."""
        return [granted_mode(self.state.lease(self.ino), session) for session in (1, 2, 3)]

    def save(self, author: Author, content: bytes) -> Effect:
        """Content on the newest version."""
        op = author.content(self.state, ROOT_INO, b"plan.txt", content)
        return self.do(author, op)


@pytest.fixture
def office() -> Office:
    return Office()


# take


@pytest.mark.parametrize("mode", [LEASE_SHARED, LEASE_EXCLUSIVE])
def test_who_comes_first_has_it(office: Office, mode: int) -> None:
    """S-311: with the stamp and time of the op."""
    op = office.bea.take(office.ino, mode)
    assert office.do(office.bea, op) == (Status.APPLIED, (), (), 0)
    assert office.state.lease(office.ino) == (LeaseRow(2, mode, office.state.stamp, op.time_ns),)
    assert office.has() == [LEASE_NONE, mode, LEASE_NONE]


def test_many_share(office: Office) -> None:
    """S-311."""
    for author in (office.ann, office.bea, office.cem):
        office.take(author, LEASE_SHARED)
    assert office.has() == [LEASE_SHARED] * 3


def test_one_has_it_alone_and_the_others_wait_in_line(office: Office) -> None:
    """S-312, S-318: in the order of the log."""
    for author in (office.cem, office.ann, office.bea):
        office.take(author, LEASE_EXCLUSIVE)
    assert office.line() == [(3, 2), (1, 2), (2, 2)]
    assert office.has() == [0, 0, LEASE_EXCLUSIVE]
    office.give(office.cem)
    assert office.has() == [LEASE_EXCLUSIVE, 0, 0]
    office.give(office.ann)
    assert office.has() == [0, LEASE_EXCLUSIVE, 0]


def test_the_exclusive_lease_waits_for_all_who_share(office: Office) -> None:
    """S-312, S-318."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.bea, LEASE_SHARED)
    office.take(office.cem, LEASE_EXCLUSIVE)
    assert office.has() == [LEASE_SHARED, LEASE_SHARED, LEASE_NONE]
    office.give(office.ann)
    assert office.has() == [LEASE_NONE, LEASE_SHARED, LEASE_NONE]
    office.give(office.bea)
    assert office.has() == [LEASE_NONE, LEASE_NONE, LEASE_EXCLUSIVE]


@pytest.mark.parametrize(
    ("first", "again"),
    [(LEASE_SHARED, LEASE_SHARED), (LEASE_EXCLUSIVE, LEASE_EXCLUSIVE), (LEASE_EXCLUSIVE, 1)],
)
def test_who_has_it_or_waits_keeps_its_place(office: Office, first: int, again: int) -> None:
    """S-313."""
    office.take(office.ann, first)
    office.take(office.bea, first)
    line = office.state.lease(office.ino)
    assert office.take(office.ann, again) is NOTHING
    assert office.take(office.bea, again) is NOTHING
    assert office.state.lease(office.ino) == line


def test_who_shares_may_want_more(office: Office) -> None:
    """S-314: and shares on until the others have given it."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.bea, LEASE_SHARED)
    office.take(office.ann, LEASE_EXCLUSIVE)
    assert office.line() == [(1, 1), (2, 1), (1, 2)]
    assert office.has() == [LEASE_SHARED, LEASE_SHARED, LEASE_NONE]
    assert office.take(office.ann, LEASE_EXCLUSIVE) is NOTHING
    office.give(office.bea)
    assert office.has() == [LEASE_EXCLUSIVE, LEASE_NONE, LEASE_NONE]


def test_who_shares_alone_has_more_at_once(office: Office) -> None:
    """S-314: own rows are in nobody's way but the others'."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.ann, LEASE_EXCLUSIVE)
    assert office.has() == [LEASE_EXCLUSIVE, LEASE_NONE, LEASE_NONE]
    assert [row.mode for row in granted_rows(office.state.lease(office.ino))] == [1, 2]


def test_two_who_share_and_both_want_more_wait_for_each_other(office: Office) -> None:
    """S-314, S-320: the fold does not end that; one of them has to."""
    for mode in (LEASE_SHARED, LEASE_EXCLUSIVE):
        for author in (office.ann, office.bea):
            office.take(author, mode)
    assert office.has() == [LEASE_SHARED, LEASE_SHARED, LEASE_NONE]
    office.give(office.bea)
    assert office.has() == [LEASE_EXCLUSIVE, LEASE_NONE, LEASE_NONE]


def test_who_waits_is_not_passed_over(office: Office) -> None:
    """S-315: Cem could share with Ann, but Bea was there before."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.take(office.cem, LEASE_SHARED)
    assert office.has() == [LEASE_SHARED, LEASE_NONE, LEASE_NONE]
    office.give(office.ann)
    assert office.has() == [LEASE_NONE, LEASE_EXCLUSIVE, LEASE_NONE]
    office.give(office.bea)
    assert office.has() == [LEASE_NONE, LEASE_NONE, LEASE_SHARED]


def test_who_gave_it_stands_behind_who_waited(office: Office) -> None:
    """S-315, S-318."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.give(office.ann)
    office.take(office.ann, LEASE_EXCLUSIVE)
    assert office.line() == [(2, 2), (1, 2)]


def test_a_directory_and_what_was_removed(office: Office) -> None:
    """S-316: a file that is open while it is removed is locked on."""
    office.do(office.bea, office.bea.unlink(office.state, ROOT_INO, b"plan.txt"))
    assert office.take(office.ann, LEASE_EXCLUSIVE).status is Status.APPLIED
    assert office.has() == [LEASE_EXCLUSIVE, 0, 0]
    gone = removed_directory(office, b"d")
    for ino in (ROOT_INO, gone):
        op = office.bea.take(ino, LEASE_SHARED)
        assert office.do(office.bea, op).status is Status.APPLIED


def test_what_nobody_knows(office: Office) -> None:
    """S-317, S-321, S-324."""
    ino = 9 << 32 | 9
    for op in (
        office.ann.take(ino, LEASE_EXCLUSIVE),
        office.ann.give(ino, LEASE_NONE),
        office.ann.takeover(ino, 2, 90),
    ):
        assert office.do(office.ann, op) is NOTHING
    assert office.state.lease(ino) == ()


# give


def test_all_of_one_session_goes_and_nothing_of_the_others(office: Office) -> None:
    """S-318: what it has and what it waits for."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.bea, LEASE_SHARED)
    office.take(office.ann, LEASE_EXCLUSIVE)
    left = office.state.lease(office.ino)[1]
    assert office.give(office.ann).status is Status.APPLIED
    assert list(office.state.lease(office.ino)) == [left]


def test_nothing_is_left_of_the_last(office: Office) -> None:
    """S-318: the state says nothing of an inode that nobody locks."""
    before = office.state.dump()
    office.take(office.ann, LEASE_EXCLUSIVE)
    name = lease_name(office.ino)
    assert office.state.get_value(name) == pack_lease(office.state.lease(office.ino))
    assert office.state.dump() != before
    office.give(office.ann)
    assert office.state.get_value(name) is None
    assert office.state.dump() == before


def test_the_shared_lease_is_kept_in_its_place(office: Office) -> None:
    """S-319: with the stamp of the take, and others share it now; but none behind who waits."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.bea, LEASE_SHARED)
    taken = office.state.lease(office.ino)[0]
    assert office.give(office.ann, LEASE_SHARED).status is Status.APPLIED
    assert office.state.lease(office.ino)[0] == taken._replace(mode=LEASE_SHARED)
    assert office.has() == [LEASE_SHARED, LEASE_SHARED, LEASE_NONE]
    assert office.give(office.ann, LEASE_SHARED) is NOTHING
    office.take(office.cem, LEASE_EXCLUSIVE)
    assert office.has() == [LEASE_SHARED, LEASE_SHARED, LEASE_NONE]


def test_of_two_own_rows_the_first_is_kept(office: Office) -> None:
    """S-319: as if it had never wanted more."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.bea, LEASE_SHARED)
    assert office.has() == [LEASE_EXCLUSIVE, LEASE_NONE, LEASE_NONE]
    office.give(office.ann, LEASE_SHARED)
    assert office.line() == [(1, 1), (2, 1)]
    assert office.has() == [LEASE_SHARED, LEASE_SHARED, LEASE_NONE]


def test_a_wish_for_more_ends(office: Office) -> None:
    """S-320: Bea, who had nothing, has nothing then."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.cem, LEASE_SHARED)
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.give(office.ann, LEASE_SHARED)
    assert office.line() == [(1, 1), (3, 1), (2, 2)]
    office.give(office.bea, LEASE_SHARED)
    assert office.line() == [(1, 1), (3, 1)]


def test_who_has_nothing_gives_nothing(office: Office) -> None:
    """S-321."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.bea, LEASE_EXCLUSIVE)
    assert office.give(office.ann, LEASE_SHARED) is NOTHING
    for mode in (LEASE_NONE, LEASE_SHARED):
        assert office.give(office.cem, mode) is NOTHING
    assert office.line() == [(1, 1), (2, 2)]


# takeover


def takeover(office: Office, author: Author, session: int, sequence: int) -> Takeover:
    return author.takeover(office.ino, session, sequence)


@pytest.mark.parametrize(
    ("last", "said", "gone"), [(40, 40, True), (40, 41, True), (41, 40, False)]
)
def test_a_silent_holder_loses_it(office: Office, last: int, said: int, gone: bool) -> None:
    """S-322, S-323: not one whose entry the author of the takeover had not read."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.seen(1, last)
    effect = office.do(office.bea, takeover(office, office.bea, 1, said))
    assert (effect.status is Status.APPLIED) == gone
    assert office.has() == ([0, LEASE_EXCLUSIVE, 0] if gone else [LEASE_EXCLUSIVE, 0, 0])


def test_wishes_of_the_dead_go_too(office: Office) -> None:
    """S-322: what it had shared, what it waited for, and nothing of another."""
    office.take(office.ann, LEASE_SHARED)
    office.take(office.bea, LEASE_SHARED)
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.cem, LEASE_EXCLUSIVE)
    office.do(office.cem, takeover(office, office.cem, 1, 1))
    assert office.line() == [(2, 1), (3, 2)]
    office.do(office.cem, takeover(office, office.cem, 2, 1))
    assert office.has() == [0, 0, LEASE_EXCLUSIVE]


def test_one_who_waits_and_is_silent_is_taken_out_of_the_line(office: Office) -> None:
    """S-322: also by the holder, and by who stands before it."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.take(office.cem, LEASE_EXCLUSIVE)
    office.do(office.ann, takeover(office, office.ann, 3, 1))
    assert office.line() == [(1, 2), (2, 2)]


def test_who_does_not_wait_takes_nothing_over(office: Office) -> None:
    """S-324: nor does anybody from itself, from one that nobody knows, or that is not in line."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    assert office.do(office.bea, takeover(office, office.bea, 1, 90)) is NOTHING
    office.take(office.bea, LEASE_EXCLUSIVE)
    for session in (2, 3, 9):
        assert office.do(office.bea, takeover(office, office.bea, session, 90)) is NOTHING
    assert office.line() == [(1, 2), (2, 2)]


# content


def test_content_gives_way_to_a_lease(office: Office) -> None:
    """S-152, S-74, S-71: also on the newest version; what its author writes next goes there too."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    version = office.row(office.ino).version
    op = office.bea.content_on(office.ino, version, ROOT_INO, b"plan.txt", b"of Bea")
    effect = office.do(office.bea, op)
    beside = BEA.format(1)
    assert effect == (
        Status.CONFLICT, (op.op_id,), ((ROOT_INO, beside.encode()),), op.op_id
    )  # fmt: skip
    again = office.bea.content_on(office.ino, op.op_id, ROOT_INO, b"plan.txt", b"of Bea again")
    assert office.do(office.bea, again).landed_ino == op.op_id
    assert office.tree() == {"plan.txt": OLD, beside: b"of Bea again"}
    assert office.save(office.ann, b"of Ann").status is Status.APPLIED
    assert office.tree()["plan.txt"] == b"of Ann"


def test_a_clone_gives_way_to_a_lease(office: Office) -> None:
    """S-152, S-261: in place; a new file from it is made as ever."""
    first = office.row(office.ino).version
    office.save(office.ann, b"the second plan")
    second = office.row(office.ino).version
    office.take(office.ann, LEASE_EXCLUSIVE)
    beside = office.bea.clone(office.ino, first, 0, 0, ROOT_INO, b"old")
    assert office.do(office.bea, beside).status is Status.APPLIED
    op = office.bea.clone(office.ino, first, office.ino, second, ROOT_INO, b"plan.txt")
    assert office.do(office.bea, op).status is Status.CONFLICT
    assert office.tree() == {"plan.txt": b"the second plan", "old": OLD, BEA.format(2): OLD}


def test_content_gives_way_where_the_leased_file_was_removed(office: Office) -> None:
    """S-152: the file stays removed; without the lease it came back."""
    version = office.row(office.ino).version
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.do(office.ann, office.ann.unlink(office.state, ROOT_INO, b"plan.txt"))
    op = office.bea.content_on(office.ino, version, ROOT_INO, b"plan.txt", b"of Bea")
    assert office.do(office.bea, op).status is Status.CONFLICT
    assert office.tree() == {BEA.format(1): b"of Bea"}
    assert office.state.removed(office.ino) is not None


def held_shared(office: Office) -> None:
    office.take(office.ann, LEASE_SHARED)


def held_shared_and_waited_for(office: Office) -> None:
    office.take(office.ann, LEASE_SHARED)
    office.take(office.cem, LEASE_EXCLUSIVE)


def held_by_the_author(office: Office) -> None:
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.take(office.ann, LEASE_EXCLUSIVE)


def given_back(office: Office) -> None:
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.give(office.ann)


def given_but_for_the_shared(office: Office) -> None:
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.give(office.ann, LEASE_SHARED)


@pytest.mark.parametrize(
    "before",
    [
        held_shared, held_shared_and_waited_for, held_by_the_author, given_back,
        given_but_for_the_shared,
    ],
)  # fmt: skip
def test_content_gives_way_to_nothing_else(
    office: Office, before: Callable[[Office], None]
) -> None:
    """S-153: as if there were no lease."""
    before(office)
    assert office.save(office.bea, b"of Bea").status is Status.APPLIED
    assert office.tree() == {"plan.txt": b"of Bea"}


def test_a_lease_of_another_file_is_in_nobodys_way(office: Office) -> None:
    """S-153."""
    other = office.ann.create(ROOT_INO, b"other", b"1")
    office.do(office.ann, other)
    office.do(office.ann, office.ann.take(other.op_id, LEASE_EXCLUSIVE))
    office.do(office.ann, office.ann.take(ROOT_INO, LEASE_EXCLUSIVE))
    assert office.save(office.bea, b"of Bea").status is Status.APPLIED


def test_who_was_taken_over_writes_beside(office: Office) -> None:
    """S-152, S-322: a holder that wakes too late harms nobody."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    version = office.row(office.ino).version
    late = office.ann.content_on(office.ino, version, ROOT_INO, b"plan.txt", b"late")
    office.take(office.bea, LEASE_EXCLUSIVE)
    office.do(office.bea, takeover(office, office.bea, 1, 1))
    assert office.do(office.ann, late).status is Status.CONFLICT
    assert office.save(office.bea, b"of Bea").status is Status.APPLIED
    assert office.tree()["plan.txt"] == b"of Bea"


# the others


def ops_of_bea(office: Office) -> list[Op]:
    """All that may be done to a file, but writing it."""
    bea, ino = office.bea, office.ino
    moved = bea.rename(office.state, ROOT_INO, b"plan.txt", ROOT_INO, b"moved")
    version = look(office.state, ROOT_INO, b"plan.txt")[1]
    return [
        bea.setattr(ino, mode=0o600, mtime_ns=5),
        bea.setxattr(ino, b"user.a", b"1"),
        bea.link(ino, ROOT_INO, b"second"),
        moved,
        bea.unlink(office.state, ROOT_INO, b"plan.txt")._replace(name=b"moved"),
        bea.unlink(office.state, ROOT_INO, b"plan.txt")._replace(
            name=b"second", seen_version=version
        ),
        bea.link(ino, ROOT_INO, b"back"),
    ]


def test_names_and_attributes_know_no_lease(office: Office) -> None:
    """S-325: the inode keeps its line whatever its names are."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.take(office.cem, LEASE_SHARED)
    line = office.state.lease(office.ino)
    for op in ops_of_bea(office):
        effect = office.do(office.bea, op)
        assert effect.status in (Status.APPLIED, Status.REVIVED), op
        assert office.state.lease(office.ino) == line
    assert office.tree() == {"back": OLD}


def test_a_file_may_be_put_in_the_place_of_a_leased_one(office: Office) -> None:
    """S-325: by rename; the lease is of the inode, and not of its name."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    office.do(office.bea, office.bea.create(ROOT_INO, b"new", b"of Bea"))
    over = office.bea.rename(office.state, ROOT_INO, b"new", ROOT_INO, b"plan.txt")
    assert office.do(office.bea, over).status is Status.APPLIED
    assert office.tree() == {"plan.txt": b"of Bea"}
    assert office.save(office.cem, b"of Cem").status is Status.APPLIED
    assert office.has() == [LEASE_EXCLUSIVE, 0, 0]


def test_a_floor_ends_the_line_with_the_inode(office: Office) -> None:
    """S-326: and only of what it ends."""
    office.take(office.ann, LEASE_EXCLUSIVE)
    kept = office.ann.create(ROOT_INO, b"kept", b"1")
    office.do(office.ann, kept)
    office.do(office.ann, office.ann.take(kept.op_id, LEASE_SHARED))
    office.state.stamp = 10 << STAMP_SHIFT
    office.do(office.bea, office.bea.unlink(office.state, ROOT_INO, b"plan.txt"))
    office.state.stamp = 20 << STAMP_SHIFT
    floor = Floor(*office.ann.head(), 15)
    assert office.ann.fold(office.state, floor).status is Status.APPLIED
    check_state(office.state)
    assert office.state.inode(office.ino) is None
    assert office.state.lease(office.ino) == ()
    names = [name for name, _ in office.state.dump()["value"] if name.startswith(LEASE_PREFIX)]
    assert names == [lease_name(kept.op_id)]
    assert office.give(office.ann) is NOTHING


@pytest.mark.parametrize("rules", [1, 2, 3])
def test_older_rules_know_no_leases(rules: int) -> None:
    """S-328: not even where one is folded that the log would call void; they come with rules 4."""
    office = Office(rules)
    for author in (office.ann, office.bea):
        assert office.take(author, LEASE_EXCLUSIVE) is NOTHING
        assert office.give(author) is NOTHING
    assert office.do(office.bea, takeover(office, office.bea, 1, 90)) is NOTHING
    assert office.save(office.bea, b"of Bea").status is Status.APPLIED
    office.do(office.ann, Rules(*office.ann.head(), 4))
    assert office.take(office.ann, LEASE_EXCLUSIVE).status is Status.APPLIED
    assert office.save(office.bea, b"again").status is Status.CONFLICT


# rows


def test_rows_are_packed_as_the_format_says() -> None:
    """FORMAT.md, 8: the name of the value, and its bytes."""
    assert lease_name(2 << 32 | 5) == "lease 0000000200000005"
    line = (LeaseRow(2, 1, 3 << STAMP_SHIFT, -1), LeaseRow(300, 2, 4 << STAMP_SHIFT | 9, 0))
    packed = pack_lease(line)
    assert packed.hex() == "92940201cdc000ff94cd012c02ce0001000900"
    assert unpack_lease(packed) == line


rows = st.builds(LeaseRow, st.integers(1, 4), st.integers(1, 2), st.just(0), st.just(0))


@given(st.lists(rows, max_size=7))
def test_who_has_it_is_what_the_format_says(line: list[LeaseRow]) -> None:
    """S-312: each row before it is of the same session, or is shared as it is itself."""
    wanted = [
        row
        for place, row in enumerate(line)
        if all(
            other.session == row.session or other.mode == row.mode == LEASE_SHARED
            for other in line[:place]
        )
    ]
    assert list(granted_rows(line)) == wanted


def test_a_line_of_very_many_is_no_work() -> None:
    """S-70: nobody makes the others wait for long with it."""
    line = [LeaseRow(1 + number, LEASE_SHARED, number, 0) for number in range(30_000)]
    assert not is_leased_elsewhere(line, 5)
    assert granted_mode(line, 30_000) == LEASE_SHARED


def test_rows_of_one_stamp_are_told_apart() -> None:
    """An entry of very many ops makes stamps that the next one makes again: a give is of its own
    session only."""
    office = Office()
    both = tuple(LeaseRow(session, LEASE_SHARED, 99 << STAMP_SHIFT, 0) for session in (1, 2))
    office.state.put_lease(office.ino, (*both, both[0]._replace(mode=LEASE_EXCLUSIVE)))
    office.give(office.ann, LEASE_SHARED)
    assert office.state.lease(office.ino) == both
    assert not is_leased_elsewhere(both, 3)
