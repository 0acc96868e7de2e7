"""The table of docs/SEMANTICS.md section 10: ops that take a name away."""

from __future__ import annotations

import pytest

from lucid.format.ops import ROOT_INO, Op, Rename, Rmdir, Unlink
from lucid.meta.fold import NOTHING, Status
from tests.meta.authors import look
from tests.meta.desk import Desk, removed_directory
from tests.meta.invariants import checked_fold

BESIDE = "f (conflict bea desk 2026-11-22 10.15.0{}).txt"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def put(desk: Desk, name: bytes, content: bytes = b"", parent: int = ROOT_INO) -> int:
    op = desk.ann.create(parent, name, content)
    checked_fold(desk.state, desk.ann, op)
    return op.op_id


def put_directory(desk: Desk, name: bytes, parent: int = ROOT_INO) -> int:
    op = desk.ann.mkdir(parent, name)
    checked_fold(desk.state, desk.ann, op)
    return op.op_id


# unlink


def test_unlink(desk: Desk) -> None:
    """S-171: the name goes; its bytes stay in the versions."""
    ino = put(desk, b"f.txt", b"ann")
    op = desk.bea.unlink(desk.state, ROOT_INO, b"f.txt")
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect == (Status.APPLIED, (ino,), ((ROOT_INO, b"f.txt"),), 0)
    assert desk.tree() == {}
    row = desk.row(ino)
    assert (row.nlink, row.last_name, row.ctime_ns) == (0, b"f.txt", op.time_ns)
    assert desk.blocks.read(desk.state, ino, ino) == b"ann"
    assert desk.state.dump()["totals"] == [(1, 0)]


def test_unlink_of_one_of_two_names(desk: Desk) -> None:
    """S-171: the other name stays, and is the newest one from then on."""
    ino = put(desk, b"f.txt", b"ann")
    checked_fold(desk.state, desk.ann, desk.ann.link(ino, ROOT_INO, b"g"))
    checked_fold(desk.state, desk.bea, desk.bea.unlink(desk.state, ROOT_INO, b"g"))
    assert desk.tree() == {"f.txt": b"ann"}
    assert desk.row(ino).last_name == b"f.txt"


def test_unlink_of_what_is_not_there(desk: Desk) -> None:
    """S-172: the name is gone, or leads to another inode: nothing."""
    put(desk, b"f.txt", b"ann")
    op = desk.bea.unlink(desk.state, ROOT_INO, b"f.txt")
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"f.txt"))
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    put(desk, b"f.txt", b"another")
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    assert desk.tree() == {"f.txt": b"another"}


def test_unlink_of_something_newer(desk: Desk) -> None:
    """S-173: a version that its author had not seen is not removed."""
    put(desk, b"f.txt", b"ann")
    op = desk.bea.unlink(desk.state, ROOT_INO, b"f.txt")
    save = desk.ann.content(desk.state, ROOT_INO, b"f.txt", b"newer")
    checked_fold(desk.state, desk.ann, save)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    assert desk.tree() == {"f.txt": b"newer"}


def test_unlink_of_a_directory(desk: Desk) -> None:
    """S-174: nothing."""
    ino = put_directory(desk, b"d")
    op = Unlink(*desk.bea.head(), ROOT_INO, b"d", ino, 0)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING


def test_an_author_removes_what_it_made_where_it_landed(desk: Desk) -> None:
    """S-175: a lock file that two made: each removes its own, and nothing is left."""
    mine, yours = (who.create(ROOT_INO, b".lock#") for who in (desk.ann, desk.bea))
    removals = [
        Unlink(*who.head(), ROOT_INO, b".lock#", made.op_id, made.op_id)
        for who, made in ((desk.ann, mine), (desk.bea, yours))
    ]
    for who, op in ((desk.ann, mine), (desk.bea, yours)):
        checked_fold(desk.state, who, op)
    assert len(desk.tree()) == 2
    assert checked_fold(desk.state, desk.bea, removals[1]).status is Status.APPLIED
    assert desk.tree() == {".lock#": b""}
    assert checked_fold(desk.state, desk.ann, removals[0]).status is Status.APPLIED
    assert desk.tree() == {}


def test_an_author_removes_the_copy_that_its_content_became(desk: Desk) -> None:
    """S-175: and leaves alone what it never saw."""
    put(desk, b"f.txt", b"old")
    save = desk.bea.content(desk.state, ROOT_INO, b"f.txt", b"bea")
    removal = Unlink(*desk.bea.head(), ROOT_INO, b"f.txt", save.ino, save.op_id)
    newer = desk.ann.content(desk.state, ROOT_INO, b"f.txt", b"newer")
    checked_fold(desk.state, desk.ann, newer)
    checked_fold(desk.state, desk.bea, save)
    assert set(desk.tree()) == {"f.txt", BESIDE.format(1)}
    assert checked_fold(desk.state, desk.bea, removal).status is Status.APPLIED
    assert desk.tree() == {"f.txt": b"newer"}


def test_nobody_else_follows_a_displaced_name(desk: Desk) -> None:
    """S-175: only the session that was displaced; and only to a conflict name of that name."""
    put(desk, b"f.txt", b"ann")
    made = desk.bea.create(ROOT_INO, b"f.txt", b"bea")
    checked_fold(desk.state, desk.bea, made)
    op = Unlink(*desk.ann.head(), ROOT_INO, b"f.txt", made.op_id, made.op_id)
    assert checked_fold(desk.state, desk.ann, op) is NOTHING
    op = Unlink(*desk.bea.head(), ROOT_INO, b"g.txt", made.op_id, made.op_id)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    checked_fold(desk.state, desk.bea, desk.bea.link(made.op_id, ROOT_INO, b"h.txt"))
    op = Unlink(*desk.bea.head(), ROOT_INO, b"i.txt", made.op_id, made.op_id)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING


# rmdir


def test_rmdir(desk: Desk) -> None:
    """S-181: an empty directory goes."""
    ino = put_directory(desk, b"d")
    effect = checked_fold(desk.state, desk.bea, desk.bea.rmdir(desk.state, ROOT_INO, b"d"))
    assert effect == (Status.APPLIED, (ino,), ((ROOT_INO, b"d"),), 0)
    assert desk.tree() == {}
    assert desk.state.subdirectories(ROOT_INO) == 0


def test_rmdir_of_what_is_no_longer_empty(desk: Desk) -> None:
    """S-182: nothing: what somebody put in stays."""
    ino = put_directory(desk, b"d")
    op = desk.bea.rmdir(desk.state, ROOT_INO, b"d")
    put(desk, b"f", b"ann", ino)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    assert desk.tree() == {"d": b"/", "d/f": b"ann"}


def test_rmdir_of_something_else(desk: Desk) -> None:
    """S-183: a name that is gone, leads to another inode, or to no directory: nothing."""
    put_directory(desk, b"d")
    op = desk.bea.rmdir(desk.state, ROOT_INO, b"d")
    checked_fold(desk.state, desk.ann, desk.ann.rmdir(desk.state, ROOT_INO, b"d"))
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    put_directory(desk, b"d")
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    file = put(desk, b"f", b"ann")
    assert checked_fold(desk.state, desk.bea, Rmdir(*desk.bea.head(), 1, b"f", file)) is NOTHING
    assert desk.tree() == {"d": b"/", "f": b"ann"}


def test_an_author_removes_the_directory_that_landed_beside(desk: Desk) -> None:
    """S-175: also for rmdir."""
    put_directory(desk, b"d")
    made = desk.bea.mkdir(ROOT_INO, b"d")
    checked_fold(desk.state, desk.bea, made)
    op = Rmdir(*desk.bea.head(), ROOT_INO, b"d", made.op_id)
    assert checked_fold(desk.state, desk.bea, op).status is Status.APPLIED
    assert desk.tree() == {"d": b"/"}


# rename


def test_rename_to_a_free_name(desk: Desk) -> None:
    """S-191: the name moves, with a new id, between directories too."""
    folder, ino = put_directory(desk, b"d"), put(desk, b"f.txt", b"ann")
    op = desk.bea.rename(desk.state, ROOT_INO, b"f.txt", folder, b"g")
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect == (Status.APPLIED, (ino,), ((ROOT_INO, b"f.txt"), (folder, b"g")), ino)
    assert desk.tree() == {"d": b"/", "d/g": b"ann"}
    dentry = desk.state.dentry(folder, b"g")
    assert dentry is not None and dentry.id == op.op_id
    assert desk.row(ino).ctime_ns == op.time_ns
    moved = desk.bea.rename(desk.state, ROOT_INO, b"d", ROOT_INO, b"e")
    assert checked_fold(desk.state, desk.bea, moved).landed_ino == folder
    assert desk.tree() == {"e": b"/", "e/g": b"ann"}


def test_a_directory_moves_with_its_count(desk: Desk) -> None:
    """S-191: subdirectories are counted where they are."""
    one, two = put_directory(desk, b"one"), put_directory(desk, b"two")
    inner = put_directory(desk, b"in", one)
    put(desk, b"f", b"ann", inner)
    checked_fold(desk.state, desk.bea, desk.bea.rename(desk.state, one, b"in", two, b"in"))
    assert set(desk.tree()) == {"one", "two", "two/in", "two/in/f"}
    assert [desk.state.subdirectories(ino) for ino in (ROOT_INO, one, two)] == [2, 0, 1]


def test_rename_over_what_was_seen(desk: Desk) -> None:
    """S-192: it takes its place; the replaced bytes stay in the versions."""
    old = put(desk, b"f.txt", b"old")
    new = put(desk, b"tmp", b"new")
    op = desk.bea.rename(desk.state, ROOT_INO, b"tmp", ROOT_INO, b"f.txt")
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect.status is Status.APPLIED and effect.inodes == (new, old)
    assert desk.tree() == {"f.txt": b"new"}
    assert desk.row(old).nlink == 0
    assert desk.blocks.read(desk.state, old, old) == b"old"


def test_rename_over_another_inode(desk: Desk) -> None:
    """S-193: it lands beside; this is two editors that save one file by rename."""
    put(desk, b"f.txt", b"old")
    put(desk, b"bea.tmp", b"bea")
    op = desk.bea.rename(desk.state, ROOT_INO, b"bea.tmp", ROOT_INO, b"f.txt")
    put(desk, b"ann.tmp", b"ann")
    save = desk.ann.rename(desk.state, ROOT_INO, b"ann.tmp", ROOT_INO, b"f.txt")
    checked_fold(desk.state, desk.ann, save)
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect.status is Status.CONFLICT
    assert effect.names == ((ROOT_INO, b"bea.tmp"), (ROOT_INO, BESIDE.format(1).encode()))
    assert desk.tree() == {"f.txt": b"ann", BESIDE.format(1): b"bea"}


def test_rename_over_something_newer_or_never_seen(desk: Desk) -> None:
    """S-193: the same inode with newer content, or a name that was free."""
    put(desk, b"f.txt", b"old")
    put(desk, b"tmp", b"bea")
    put(desk, b"tmp2", b"bea too")
    op = desk.bea.rename(desk.state, ROOT_INO, b"tmp", ROOT_INO, b"f.txt")
    fresh = desk.bea.rename(desk.state, ROOT_INO, b"tmp2", ROOT_INO, b"g.txt")
    save = desk.ann.content(desk.state, ROOT_INO, b"f.txt", b"newer")
    checked_fold(desk.state, desk.ann, save)
    put(desk, b"g.txt", b"ann")
    for late in (op, fresh):
        assert checked_fold(desk.state, desk.bea, late).status is Status.CONFLICT
    assert desk.tree() == {
        "f.txt": b"newer",
        "g.txt": b"ann",
        BESIDE.format(1): b"bea",
        BESIDE.format(2).replace("f", "g", 1): b"bea too",
    }


def test_rename_to_a_name_that_was_freed(desk: Desk) -> None:
    """S-191: what it would have replaced is gone: it has the name."""
    put(desk, b"f.txt", b"old")
    put(desk, b"tmp", b"new")
    op = desk.bea.rename(desk.state, ROOT_INO, b"tmp", ROOT_INO, b"f.txt")
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"f.txt"))
    assert checked_fold(desk.state, desk.bea, op).status is Status.APPLIED
    assert desk.tree() == {"f.txt": b"new"}


def test_rename_over_the_empty_directory_that_was_seen(desk: Desk) -> None:
    """S-194: as rename(2) does."""
    old, new = put_directory(desk, b"d"), put_directory(desk, b"e")
    put(desk, b"f", b"ann", new)
    op = desk.bea.rename(desk.state, ROOT_INO, b"e", ROOT_INO, b"d")
    assert checked_fold(desk.state, desk.bea, op).inodes == (new, old)
    assert desk.tree() == {"d": b"/", "d/f": b"ann"}
    assert desk.state.subdirectories(ROOT_INO) == 1


def test_rename_over_a_directory_that_filled(desk: Desk) -> None:
    """S-195: a directory never merges: it gets a conflict name. So for one never seen."""
    old = put_directory(desk, b"d")
    put_directory(desk, b"e")
    put_directory(desk, b"g")
    op = desk.bea.rename(desk.state, ROOT_INO, b"e", ROOT_INO, b"d")
    unseen = desk.bea.rename(desk.state, ROOT_INO, b"g", ROOT_INO, b"d")._replace(seen_ino=0)
    put(desk, b"f", b"ann", old)
    for late in (op, unseen):
        assert checked_fold(desk.state, desk.bea, late).status is Status.CONFLICT
    assert set(desk.tree()) == {
        "d", "d/f", *(BESIDE.format(n).replace("f", "d", 1)[:-4] for n in (1, 2))
    }  # fmt: skip


def test_rename_over_the_other_kind(desk: Desk) -> None:
    """S-196: a directory over a file, a file over a directory: a conflict name."""
    put_directory(desk, b"d")
    put(desk, b"f", b"ann")
    one = desk.bea.rename(desk.state, ROOT_INO, b"d", ROOT_INO, b"f")
    assert checked_fold(desk.state, desk.bea, one).status is Status.CONFLICT
    put_directory(desk, b"e")
    two = desk.bea.rename(desk.state, ROOT_INO, b"f", ROOT_INO, b"e")
    assert checked_fold(desk.state, desk.bea, two).status is Status.CONFLICT
    assert set(desk.tree()) == {
        "e", *(BESIDE.format(n).replace("f", c, 1)[:-4] for n, c in ((1, "f"), (2, "e")))
    }  # fmt: skip


def test_rename_of_what_is_not_there(desk: Desk) -> None:
    """S-197: the source is gone, leads to another inode, or was renamed by another: nothing."""
    put(desk, b"f.txt", b"ann")
    op = desk.bea.rename(desk.state, ROOT_INO, b"f.txt", ROOT_INO, b"bea")
    move = desk.ann.rename(desk.state, ROOT_INO, b"f.txt", ROOT_INO, b"ann")
    checked_fold(desk.state, desk.ann, move)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    put(desk, b"f.txt", b"another")
    assert checked_fold(desk.state, desk.bea, op) is NOTHING
    unknown = Rename(*desk.bea.head(), ROOT_INO, b"x", 5 << 32 | 5, ROOT_INO, b"y", 0, 0)
    assert checked_fold(desk.state, desk.bea, unknown) is NOTHING
    assert desk.tree() == {"ann": b"ann", "f.txt": b"another"}


def test_rename_to_another_name_of_the_inode(desk: Desk) -> None:
    """S-198: nothing, as rename(2) says; so for its own name."""
    ino = put(desk, b"f.txt", b"ann")
    checked_fold(desk.state, desk.ann, desk.ann.link(ino, ROOT_INO, b"g"))
    for name in (b"g", b"f.txt"):
        op = desk.bea.rename(desk.state, ROOT_INO, b"f.txt", ROOT_INO, name)
        assert checked_fold(desk.state, desk.bea, op) is NOTHING
    assert desk.tree() == {"f.txt": b"ann", "g": b"ann"}


def test_rename_of_a_directory_into_itself(desk: Desk) -> None:
    """S-199: nothing; so when two moves together would make a circle."""
    one, two = put_directory(desk, b"one"), put_directory(desk, b"two")
    mine = desk.ann.rename(desk.state, ROOT_INO, b"one", two, b"one")
    yours = desk.bea.rename(desk.state, ROOT_INO, b"two", one, b"two")
    itself = desk.bea.rename(desk.state, ROOT_INO, b"two", two, b"x")
    checked_fold(desk.state, desk.ann, mine)
    assert checked_fold(desk.state, desk.bea, yours) is NOTHING
    assert checked_fold(desk.state, desk.bea, itself) is NOTHING
    assert desk.tree() == {"two": b"/", "two/one": b"/"}


def test_rename_of_a_directory_into_what_was_removed_in_it(desk: Desk) -> None:
    """S-199: that would come back inside what moves into it: nothing."""
    outer = put_directory(desk, b"d")
    inner = put_directory(desk, b"in", outer)
    checked_fold(desk.state, desk.ann, desk.ann.rmdir(desk.state, outer, b"in"))
    op = Rename(*desk.bea.head(), ROOT_INO, b"d", outer, inner, b"d", 0, 0)
    assert checked_fold(desk.state, desk.bea, op) is NOTHING


def test_rename_into_a_removed_directory(desk: Desk) -> None:
    """S-200: it comes back."""
    put(desk, b"f.txt", b"ann")
    gone = removed_directory(desk, b"a", b"b")
    op = desk.bea.rename(desk.state, ROOT_INO, b"f.txt", gone, b"g")
    assert checked_fold(desk.state, desk.bea, op).status is Status.REVIVED
    assert desk.tree() == {"a": b"/", "a/b": b"/", "a/b/g": b"ann"}


def test_rename_into_what_is_no_directory_or_unknown(desk: Desk) -> None:
    """S-201: the directory around it, or the root."""
    folder = put_directory(desk, b"d")
    inside = put(desk, b"in", b"", folder)
    for name in (b"f", b"g"):
        put(desk, name, name)
    op = desk.bea.rename(desk.state, ROOT_INO, b"f", inside, b"f")
    assert checked_fold(desk.state, desk.bea, op).status is Status.CONFLICT
    op = desk.bea.rename(desk.state, ROOT_INO, b"g", 5 << 32 | 5, b"h")
    assert checked_fold(desk.state, desk.bea, op).status is Status.CONFLICT
    assert set(desk.tree()) == {"d", "d/in", "d/f", "h"}


def test_an_author_renames_what_it_made_where_it_landed(desk: Desk) -> None:
    """S-175: the source of a rename is found under its conflict name."""
    put(desk, b"f.txt", b"ann")
    made = desk.bea.create(ROOT_INO, b"f.txt", b"bea")
    op = Rename(*desk.bea.head(), ROOT_INO, b"f.txt", made.op_id, ROOT_INO, b"g", 0, 0)
    checked_fold(desk.state, desk.bea, made)
    assert checked_fold(desk.state, desk.bea, op).status is Status.APPLIED
    assert desk.tree() == {"f.txt": b"ann", "g": b"bea"}


def test_saves_by_rename_follow_the_one_that_landed_beside(desk: Desk) -> None:
    """S-175: ten saves offline are one conflict copy with the last content."""
    put(desk, b"f.txt", b"old")
    ino, version = look(desk.state, ROOT_INO, b"f.txt")
    ops: list[Op] = []
    for number in range(10):
        made = desk.bea.create(ROOT_INO, b"tmp", b"bea %d" % number)
        move = Rename(
            *desk.bea.head(), ROOT_INO, b"tmp", made.op_id, ROOT_INO, b"f.txt", ino, version
        )
        ops += [made, move]
        ino = version = made.op_id
    newer = desk.ann.content(desk.state, ROOT_INO, b"f.txt", b"ann")
    checked_fold(desk.state, desk.ann, newer)
    for op in ops:
        checked_fold(desk.state, desk.bea, op)
    assert desk.tree() == {"f.txt": b"ann", BESIDE.format(2): b"bea 9"}


def test_a_replaced_name_may_be_another_name_of_the_same_inode(desk: Desk) -> None:
    """S-198: displaced, so that its place is not free to be taken over: a conflict name."""
    made = desk.bea.create(ROOT_INO, b"x", b"bea")
    put(desk, b"f.txt", b"ann")
    second = desk.bea.link(made.op_id, ROOT_INO, b"f.txt")
    for op in (made, second):
        checked_fold(desk.state, desk.bea, op)
    move = Rename(
        *desk.bea.head(), ROOT_INO, b"x", made.op_id, ROOT_INO, b"f.txt", made.op_id, made.op_id
    )
    checked_fold(desk.state, desk.bea, move)
    contents = sorted(desk.tree().values())
    assert contents == [b"ann", b"bea", b"bea"]
