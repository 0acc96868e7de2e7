"""The table of docs/SEMANTICS.md section 10: clone, and what the state knows of removals."""

from __future__ import annotations

import pytest

from lucid.format.change import LOST, Change
from lucid.format.ops import ROOT_INO, Clone, Content, Stage
from lucid.meta.fold import NOTHING, Status
from lucid.meta.state import RemovedRow
from tests.meta.desk import Desk, removed_directory
from tests.meta.invariants import check_state, checked_fold

OLD = b"the first plan, which was a good one, and long"
NEW = b"the second plan"
BEA = "plan (conflict bea desk 2026-11-22 10.15.01).txt"


@pytest.fixture
def desk() -> Desk:
    return Desk(rules=2)


def written_twice(desk: Desk) -> tuple[int, int]:
    """Ann makes a file and writes it again: (inode and first version, second version)."""
    made = desk.ann.create(ROOT_INO, b"plan.txt", OLD)._replace(xattrs=((b"user.a", b"1"),))
    checked_fold(desk.state, desk.ann, made)
    second = desk.ann.content(desk.state, ROOT_INO, b"plan.txt", NEW)
    checked_fold(desk.state, desk.ann, second)
    return made.op_id, second.op_id


def in_place(desk: Desk, ino: int, version: int, base: int) -> Clone:
    return desk.bea.clone(ino, version, ino, base, ROOT_INO, b"plan.txt")


def beside(desk: Desk, ino: int, version: int, name: bytes) -> Clone:
    return desk.bea.clone(ino, version, 0, 0, ROOT_INO, name)


# to an inode


def test_an_older_version_becomes_the_newest(desk: Desk) -> None:
    """S-261, S-141: with all its bytes, and nothing is lost by it."""
    ino, second = written_twice(desk)
    op = in_place(desk, ino, ino, second)
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect == (Status.APPLIED, (ino,), (), ino)
    assert desk.tree() == {"plan.txt": OLD}
    row = desk.row(ino)
    assert (row.version, row.size, row.mtime_ns, row.ctime_ns) == (
        op.op_id, len(OLD), op.mtime_ns, op.time_ns,
    )  # fmt: skip
    assert [desk.blocks.read(desk.state, ino, v) for v in (ino, second)] == [OLD, NEW]


def test_the_newest_version_may_be_cloned_onto_itself(desk: Desk) -> None:
    """S-261: as a save of the same bytes."""
    ino, second = written_twice(desk)
    op = in_place(desk, ino, second, second)
    assert checked_fold(desk.state, desk.bea, op).status is Status.APPLIED
    assert desk.tree() == {"plan.txt": NEW}
    assert desk.row(ino).version == op.op_id


def test_who_saved_meanwhile_stays_and_the_restored_bytes_lie_beside(desk: Desk) -> None:
    """S-261, S-143: the base is older by now, so the clone is a conflict copy."""
    ino, second = written_twice(desk)
    op = in_place(desk, ino, ino, second)
    checked_fold(desk.state, desk.ann, desk.ann.content(desk.state, ROOT_INO, b"plan.txt", b"3"))
    effect = checked_fold(desk.state, desk.bea, op)
    assert (effect.status, effect.landed_ino) == (Status.CONFLICT, op.op_id)
    assert desk.tree() == {"plan.txt": b"3", BEA: OLD}


def test_a_save_on_what_a_clone_replaced_is_a_conflict_copy(desk: Desk) -> None:
    """S-261: a clone is a version like any other."""
    ino, second = written_twice(desk)
    late = desk.bea.content_on(ino, second, ROOT_INO, b"plan.txt", b"late")
    first = desk.ann.clone(ino, ino, ino, second, ROOT_INO, b"plan.txt")
    checked_fold(desk.state, desk.ann, first)
    assert checked_fold(desk.state, desk.bea, late).status is Status.CONFLICT
    assert desk.tree() == {"plan.txt": OLD, BEA: b"late"}


def test_a_file_that_was_removed_meanwhile_comes_back(desk: Desk) -> None:
    """S-261, S-145: by the name it was opened by."""
    ino, second = written_twice(desk)
    op = in_place(desk, ino, ino, second)
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"plan.txt"))
    assert checked_fold(desk.state, desk.bea, op).status is Status.REVIVED
    assert desk.tree() == {"plan.txt": OLD}
    assert desk.state.removed(ino) is None


def test_an_op_id_that_made_a_version_makes_no_other(desk: Desk) -> None:
    """S-261, S-151."""
    ino, second = written_twice(desk)
    op = in_place(desk, ino, ino, second)._replace(op_id=second)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING


# to a new file


def test_an_older_version_becomes_a_new_file(desk: Desk) -> None:
    """S-262, S-101: with mode, owner and attributes of the source's inode."""
    ino, _ = written_twice(desk)
    checked_fold(desk.state, desk.ann, desk.ann.setattr(ino, mode=0o600, uid=7, gid=8))
    op = beside(desk, ino, ino, b"old plan.txt")._replace(mtime_ns=5)
    effect = checked_fold(desk.state, desk.bea, op)
    name = ((ROOT_INO, b"old plan.txt"),)
    assert effect == (Status.APPLIED, (op.op_id,), name, op.op_id)
    assert desk.tree() == {"plan.txt": NEW, "old plan.txt": OLD}
    row = desk.row(op.op_id)
    assert (row.mode, row.uid, row.gid, row.mtime_ns) == (0o100600, 7, 8, 5)
    assert desk.state.xattrs(op.op_id) == [(b"user.a", b"1")]


def test_a_new_file_where_the_name_is_taken(desk: Desk) -> None:
    """S-262, S-102: it takes nobody's place."""
    ino, _ = written_twice(desk)
    effect = checked_fold(desk.state, desk.bea, beside(desk, ino, ino, b"plan.txt"))
    assert effect.status is Status.CONFLICT
    assert desk.tree() == {"plan.txt": NEW, BEA: OLD}


def test_a_new_file_in_a_directory_that_was_removed(desk: Desk) -> None:
    """S-262, S-103: it comes back, and is no more among what was removed."""
    ino, _ = written_twice(desk)
    gone = removed_directory(desk, b"docs")
    assert desk.state.removed(gone) is not None
    op = desk.bea.clone(ino, ino, 0, 0, gone, b"old")
    assert checked_fold(desk.state, desk.bea, op).status is Status.REVIVED
    assert desk.tree() == {"plan.txt": NEW, "docs": b"/", "docs/old": OLD}
    assert desk.state.removed(gone) is None


def test_an_op_id_that_made_an_inode_makes_no_other(desk: Desk) -> None:
    """S-262, S-106."""
    ino, _ = written_twice(desk)
    op = beside(desk, ino, ino, b"new")._replace(op_id=ino)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING


# the source


def test_the_version_is_meant_wherever_it_lies(desk: Desk) -> None:
    """S-263: Bea saw her content in the file; in the log it is a conflict copy."""
    ino, second = written_twice(desk)
    hers = desk.bea.content_on(ino, ino, ROOT_INO, b"plan.txt", b"of Bea")
    checked_fold(desk.state, desk.bea, hers)
    op = desk.ann.clone(ino, hers.op_id, ino, second, ROOT_INO, b"plan.txt")
    assert checked_fold(desk.state, desk.ann, op).landed_ino == ino
    assert desk.tree() == {"plan.txt": b"of Bea", BEA: b"of Bea"}


def test_a_version_of_a_removed_file(desk: Desk) -> None:
    """S-264: its file stays removed."""
    ino, second = written_twice(desk)
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"plan.txt"))
    assert checked_fold(desk.state, desk.bea, beside(desk, ino, second, b"new")).landed_ino != ino
    assert desk.tree() == {"new": NEW}
    assert desk.state.removed(ino) is not None


def test_a_version_that_nobody_knows(desk: Desk) -> None:
    """S-265."""
    ino, second = written_twice(desk)
    for op in (in_place(desk, ino, 9 << 32 | 9, second), beside(desk, ino, 9 << 32 | 9, b"new")):
        assert checked_fold(desk.state, desk.bea, op) is NOTHING


def test_what_is_lost_is_lost_in_the_clone(desk: Desk) -> None:
    """S-266: and reads as zeros nowhere."""
    made = desk.ann.create(ROOT_INO, b"plan.txt", OLD)
    lost = made._replace(changes=(*made.changes[:1], Change(3, 2, LOST)), size=80)
    checked_fold(desk.state, desk.ann, lost)
    checked_fold(desk.state, desk.bea, beside(desk, made.op_id, made.op_id, b"new"))
    new = desk.state.dentry(ROOT_INO, b"new")
    assert new is not None
    assert list(desk.state.extents(new.ino, 0, 9)) == list(lost.changes)
    check_state(desk.state)


def test_holes_stay_holes(desk: Desk) -> None:
    """S-261, S-253: of what lay there nothing shows through."""
    made = desk.ann.create(ROOT_INO, b"sparse", bytes(48) + b"x" * 16)
    checked_fold(desk.state, desk.ann, made)
    full = desk.ann.content(desk.state, ROOT_INO, b"sparse", b"y" * 100)
    checked_fold(desk.state, desk.ann, full)
    op = desk.bea.clone(made.op_id, made.op_id, made.op_id, full.op_id, ROOT_INO, b"sparse")
    checked_fold(desk.state, desk.bea, op)
    assert desk.tree() == {"sparse": bytes(48) + b"x" * 16}
    assert desk.row(made.op_id).data_bytes == 16


@pytest.mark.parametrize("to_inode", [True, False])
def test_what_was_staged_under_its_id(desk: Desk, to_inode: bool) -> None:
    """S-267: is not the clone's; it waits for whom it was staged for."""
    ino, second = written_twice(desk)
    clone = in_place(desk, ino, ino, second) if to_inode else beside(desk, ino, ino, b"new")
    parts = desk.bea.create(ROOT_INO, b"other", b"staged").changes
    checked_fold(desk.state, desk.bea, Stage(*desk.bea.head(), clone.op_id, parts))
    assert checked_fold(desk.state, desk.bea, clone) is NOTHING
    create = desk.bea.create(ROOT_INO, b"other")._replace(op_id=clone.op_id, size=6)
    checked_fold(desk.state, desk.bea, create)
    assert desk.tree() == {"plan.txt": NEW, "other": b"staged"}


def test_under_rules_1_there_are_no_clones() -> None:
    """S-268: not even where one is folded that the log would call void."""
    desk = Desk(rules=1)
    ino, second = written_twice(desk)
    for op in (in_place(desk, ino, ino, second), beside(desk, ino, ino, b"new")):
        assert checked_fold(desk.state, desk.bea, op) is NOTHING


def test_a_clone_is_a_base_like_any_other(desk: Desk) -> None:
    """S-261, S-141: saves go on upon it."""
    ino, second = written_twice(desk)
    op = in_place(desk, ino, ino, second)
    checked_fold(desk.state, desk.bea, op)
    save = desk.bea.content_on(ino, op.op_id, ROOT_INO, b"plan.txt", OLD[:32] + b"tail", keep=32)
    assert isinstance(save, Content)
    assert checked_fold(desk.state, desk.bea, save).status is Status.APPLIED
    assert desk.tree() == {"plan.txt": OLD[:32] + b"tail"}


# removals


def test_every_way_to_lose_the_last_name_is_remembered(desk: Desk) -> None:
    """S-291: unlink, rmdir, and a rename over it; with the op, its time and its place."""
    ino, _ = written_twice(desk)
    other = desk.ann.create(ROOT_INO, b"other", b"2")
    directory = desk.ann.mkdir(ROOT_INO, b"docs")
    for op in (other, directory):
        checked_fold(desk.state, desk.ann, op)
    over = desk.ann.rename(desk.state, ROOT_INO, b"other", ROOT_INO, b"plan.txt")
    checked_fold(desk.state, desk.ann, over)
    unlink = desk.ann.unlink(desk.state, ROOT_INO, b"plan.txt")
    checked_fold(desk.state, desk.ann, unlink)
    rmdir = desk.ann.rmdir(desk.state, ROOT_INO, b"docs")
    checked_fold(desk.state, desk.ann, rmdir)
    end = desk.state.stamp
    assert desk.state.dump()["removed"] == [
        tuple(RemovedRow(ino, over.op_id, over.time_ns, end - 2)),
        tuple(RemovedRow(other.op_id, unlink.op_id, unlink.time_ns, end - 1)),
        tuple(RemovedRow(directory.op_id, rmdir.op_id, rmdir.time_ns, end)),
    ]


def test_a_name_that_comes_back_is_no_removal(desk: Desk) -> None:
    """S-291, S-134: by link, or by late content."""
    ino, _ = written_twice(desk)
    unlink = desk.ann.unlink(desk.state, ROOT_INO, b"plan.txt")
    checked_fold(desk.state, desk.ann, unlink)
    assert desk.state.nameless() == [ino]
    checked_fold(desk.state, desk.ann, desk.ann.link(ino, ROOT_INO, b"back"))
    assert (desk.state.nameless(), desk.state.removed(ino)) == ([], None)
    assert "removed" not in desk.state.dump()


def test_one_of_two_names_is_no_removal(desk: Desk) -> None:
    """S-291."""
    ino, _ = written_twice(desk)
    checked_fold(desk.state, desk.ann, desk.ann.link(ino, ROOT_INO, b"second"))
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"plan.txt"))
    assert desk.state.removed(ino) is None


def test_rules_1_remember_no_removal() -> None:
    """S-291: their states are what they always were."""
    desk = Desk(rules=1)
    ino, _ = written_twice(desk)
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"plan.txt"))
    assert desk.state.nameless() == [ino]
    assert "removed" not in desk.state.dump()
