"""The table of docs/SEMANTICS.md section 10: ops that make something under a name, and attributes.

Two authors write about one state; each test prepares its ops on what its author had seen, folds
them in the order of the log, and looks at what is there.
"""

from __future__ import annotations

import stat

import pytest

from lucid.format.change import DATA, Change
from lucid.format.ops import ROOT_INO, Drop, Link, Mkdir, Op, SessionOp, Stage, UnknownOp
from lucid.meta.fold import NOTHING, Status, fold
from lucid.meta.memory import MemoryState
from tests.meta.authors import (
    EPOCH_NS,
    FOUNDER,
    GEOMETRY,
    Author,
    Blocks,
    changes_of,
    empty_state,
    genesis,
    listing,
    look,
)
from tests.meta.desk import Desk, removed_directory
from tests.meta.invariants import check_state, checked_fold

BEA_1 = b" (conflict bea desk 2026-11-22 10.15.01)"
BEA_2 = b" (conflict bea desk 2026-11-22 10.15.02)"


@pytest.fixture
def desk() -> Desk:
    return Desk()


# create


def test_create_in_a_living_directory(desk: Desk) -> None:
    """S-101: under its name, with all its bytes."""
    op = desk.ann.create(ROOT_INO, b"plan.txt", b"forty bytes of plan, in three blocks ....")
    op = op._replace(xattrs=((b"user.a", b"1"), (b"user.b", b"2")))
    effect = checked_fold(desk.state, desk.ann, op)
    assert effect == (Status.APPLIED, (op.op_id,), ((ROOT_INO, b"plan.txt"),), op.op_id)
    assert desk.tree() == {"plan.txt": b"forty bytes of plan, in three blocks ...."}
    row = desk.row(op.op_id)
    assert (row.mode, row.uid, row.nlink, row.version) == (op.mode, 1000, 1, op.op_id)
    assert (row.atime_ns, row.mtime_ns, row.ctime_ns) == (op.time_ns,) * 3
    assert desk.state.xattrs(op.op_id) == [(b"user.a", b"1"), (b"user.b", b"2")]


def test_create_where_the_name_is_taken(desk: Desk) -> None:
    """S-102: the second one gets a conflict name; the first keeps its name and bytes."""
    first = desk.ann.create(ROOT_INO, b"plan.txt", b"ann")
    second = desk.bea.create(ROOT_INO, b"plan.txt", b"bea")
    checked_fold(desk.state, desk.ann, first)
    effect = checked_fold(desk.state, desk.bea, second)
    beside = b"plan" + BEA_1 + b".txt"
    assert effect == (Status.CONFLICT, (second.op_id,), ((ROOT_INO, beside),), second.op_id)
    assert desk.tree() == {"plan.txt": b"ann", beside.decode(): b"bea"}


def test_an_empty_create_is_no_exception(desk: Desk) -> None:
    """S-102: also for a file without bytes, where the name leads to a regular file."""
    first = desk.ann.create(ROOT_INO, b"f", b"ann")
    second = desk.bea.create(ROOT_INO, b"f")
    desk.ann.fold(desk.state, first)
    assert checked_fold(desk.state, desk.bea, second).status is Status.CONFLICT
    assert len(desk.tree()) == 2


def test_create_in_a_removed_directory(desk: Desk) -> None:
    """S-103: the directory comes back, with all that it lay in."""
    inner = removed_directory(desk, b"a", b"b", b"c")
    assert desk.tree() == {}
    op = desk.bea.create(inner, b"f", b"bea")
    effect = checked_fold(desk.state, desk.bea, op)
    assert effect.status is Status.REVIVED
    assert [name for _, name in effect.names] == [b"a", b"b", b"c", b"f"]
    assert desk.tree() == {"a": b"/", "a/b": b"/", "a/b/c": b"/", "a/b/c/f": b"bea"}


def test_a_directory_comes_back_beside_what_took_its_name(desk: Desk) -> None:
    """S-103: its name is taken by now, so it has a conflict name."""
    old = removed_directory(desk, b"d")
    new = desk.ann.mkdir(ROOT_INO, b"d")
    checked_fold(desk.state, desk.ann, new)
    op = desk.bea.create(old, b"f", b"bea")
    assert checked_fold(desk.state, desk.bea, op).status is Status.REVIVED
    beside = (b"d" + BEA_1).decode()
    assert desk.tree() == {"d": b"/", beside: b"/", f"{beside}/f": b"bea"}


def test_a_directory_that_was_renamed_comes_back_by_its_last_name(desk: Desk) -> None:
    """S-103: the last name is the one it was removed under."""
    made = desk.ann.mkdir(ROOT_INO, b"old")
    checked_fold(desk.state, desk.ann, made)
    checked_fold(desk.state, desk.ann, desk.ann.rename(desk.state, 1, b"old", 1, b"new"))
    checked_fold(desk.state, desk.ann, desk.ann.rmdir(desk.state, 1, b"new"))
    checked_fold(desk.state, desk.bea, desk.bea.create(made.op_id, b"f", b"bea"))
    assert desk.tree() == {"new": b"/", "new/f": b"bea"}


def test_create_in_what_is_no_directory(desk: Desk) -> None:
    """S-104: it goes into the directory around it, by the same rules."""
    outer = desk.ann.mkdir(ROOT_INO, b"d")
    file = desk.ann.create(outer.op_id, b"f", b"ann")
    for op in (outer, file):
        checked_fold(desk.state, desk.ann, op)
    inside = desk.bea.create(file.op_id, b"g", b"bea")
    assert checked_fold(desk.state, desk.bea, inside).status is Status.CONFLICT
    assert desk.tree() == {"d": b"/", "d/f": b"ann", "d/g": b"bea"}
    for name in (b"f", b"g"):
        checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, outer.op_id, name))
    checked_fold(desk.state, desk.ann, desk.ann.rmdir(desk.state, ROOT_INO, b"d"))
    assert desk.tree() == {}
    again = desk.bea.create(file.op_id, b"h", b"bea")
    assert checked_fold(desk.state, desk.bea, again).status is Status.REVIVED
    assert desk.tree() == {"d": b"/", "d/h": b"bea"}


def test_create_in_a_directory_that_nobody_knows(desk: Desk) -> None:
    """S-105: it goes into the root, by the same rules."""
    for name in (b"f", b"f"):
        op = desk.bea.create(99 << 32 | 5, name, b"bea")
        assert checked_fold(desk.state, desk.bea, op).status is Status.CONFLICT
    assert list(desk.tree()) == ["f", (b"f" + BEA_2).decode()]


def test_an_id_is_used_once(desk: Desk) -> None:
    """S-106, S-151: an op whose id already made an inode or a version does nothing."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    saved = desk.ann.content(desk.state, ROOT_INO, b"f", b"ann again")
    checked_fold(desk.state, desk.ann, saved)
    before = desk.state.dump()
    for op_id in (file.op_id, saved.op_id, ROOT_INO):
        for op in (
            desk.bea.create(ROOT_INO, b"x", b"bea"),
            desk.bea.mkdir(ROOT_INO, b"x"),
            desk.bea.symlink(ROOT_INO, b"x"),
            desk.bea.mknod(ROOT_INO, b"x"),
            desk.bea.content_on(file.op_id, file.op_id, ROOT_INO, b"f", b"bea"),
        ):
            assert desk.bea.fold(desk.state, op._replace(op_id=op_id)) is NOTHING
    assert desk.state.dump() == before


def test_what_was_staged_for_a_create(desk: Desk) -> None:
    """S-107, S-161: staged parts are laid in order, the op's own changes over them."""
    content = b"".join(b"block %08d.\n" % n for n in range(8)) + b"tail"
    size = GEOMETRY.block_size
    op = desk.ann.create(ROOT_INO, b"f")
    for first, junk in ((0, True), (4, False), (0, False)):
        part = content if not junk else b"?" * len(content)
        staged = changes_of(desk.blocks, part, set(range(first, first + 4)))
        stage = Stage(desk.ann.head()[0], EPOCH_NS, op.op_id, staged)
        assert checked_fold(desk.state, desk.ann, stage) == (Status.APPLIED, (), (), 0)
    assert desk.tree() == {}
    tail = changes_of(desk.blocks, content, {8})
    checked_fold(desk.state, desk.ann, op._replace(size=len(content), changes=tail))
    assert desk.tree() == {"f": content}
    assert desk.row(op.op_id).data_bytes == 8 * size + 4
    assert desk.state.dump()["staged"] == []


# mkdir, symlink, mknod


def test_mkdir(desk: Desk) -> None:
    """S-111: a directory of its name; its parent counts it."""
    op = desk.ann.mkdir(ROOT_INO, b"d")._replace(xattrs=((b"user.a", b"1"),))
    assert checked_fold(desk.state, desk.ann, op).status is Status.APPLIED
    assert desk.tree() == {"d": b"/"}
    assert desk.state.subdirectories(ROOT_INO) == 1
    assert desk.state.xattr(op.op_id, b"user.a") == b"1"


def test_two_directories_of_one_name_do_not_merge(desk: Desk) -> None:
    """S-112: the second one gets a conflict name, and what its author puts in goes with it."""
    mine, yours = desk.ann.mkdir(ROOT_INO, b"d"), desk.bea.mkdir(ROOT_INO, b"d")
    file = desk.bea.create(yours.op_id, b"f", b"bea")
    checked_fold(desk.state, desk.ann, mine)
    assert checked_fold(desk.state, desk.bea, yours).status is Status.CONFLICT
    assert checked_fold(desk.state, desk.bea, file).status is Status.APPLIED
    beside = (b"d" + BEA_1).decode()
    assert desk.tree() == {"d": b"/", beside: b"/", f"{beside}/f": b"bea"}


def test_mkdir_elsewhere(desk: Desk) -> None:
    """S-113: a parent that is removed, no directory or unknown, as for create."""
    gone = removed_directory(desk, b"p")
    assert checked_fold(desk.state, desk.bea, desk.bea.mkdir(gone, b"a")).status is Status.REVIVED
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    checked_fold(desk.state, desk.bea, desk.bea.mkdir(file.op_id, b"b"))
    checked_fold(desk.state, desk.bea, desk.bea.mkdir(77, b"c"))
    assert set(desk.tree()) == {"p", "p/a", "f", "b", "c"}


def test_symlink_and_mknod(desk: Desk) -> None:
    """S-121: they are made as files are."""
    link = desk.ann.symlink(ROOT_INO, b"s", b"../away")
    fifo = desk.ann.mknod(ROOT_INO, b"p")._replace(rdev=5)
    for op in (link, fifo):
        assert checked_fold(desk.state, desk.ann, op).status is Status.APPLIED
    row = desk.row(link.op_id)
    assert (row.mode, row.size, row.target) == (stat.S_IFLNK | 0o777, 7, b"../away")
    assert (desk.row(fifo.op_id).mode, desk.row(fifo.op_id).rdev) == (stat.S_IFIFO | 0o600, 5)
    for op in (desk.bea.symlink(ROOT_INO, b"s"), desk.bea.mknod(ROOT_INO, b"p")):
        assert checked_fold(desk.state, desk.bea, op).status is Status.CONFLICT
    gone = removed_directory(desk, b"d")
    checked_fold(desk.state, desk.bea, desk.bea.symlink(gone, b"s", b"t"))
    checked_fold(desk.state, desk.bea, desk.bea.mknod(gone, b"p"))
    assert set(desk.tree()) == {
        "s", "p", "d", "d/s", "d/p", (b"s" + BEA_1).decode(), (b"p" + BEA_2).decode()
    }  # fmt: skip


# link


def test_link(desk: Desk) -> None:
    """S-131: one more name of one inode."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    op = desk.ann.link(file.op_id, ROOT_INO, b"g")
    assert checked_fold(desk.state, desk.ann, op).landed_ino == file.op_id
    assert desk.tree() == {"f": b"ann", "g": b"ann"}
    row = desk.row(file.op_id)
    assert (row.nlink, row.last_name, row.ctime_ns) == (2, b"g", op.time_ns)
    assert [name.id for name in desk.state.names(file.op_id)] == [file.op_id, op.op_id]


def test_link_where_the_name_is_taken(desk: Desk) -> None:
    """S-132, S-133: by the inode itself: nothing. By another one: a conflict name."""
    for name in (b"f", b"g"):
        checked_fold(desk.state, desk.ann, desk.ann.create(ROOT_INO, name, name))
    ino = look(desk.state, ROOT_INO, b"f")[0]
    assert checked_fold(desk.state, desk.bea, desk.bea.link(ino, ROOT_INO, b"f")) is NOTHING
    beside = desk.bea.link(ino, ROOT_INO, b"g")
    assert checked_fold(desk.state, desk.bea, beside).status is Status.CONFLICT
    assert desk.tree() == {"f": b"f", "g": b"g", (b"g" + BEA_2).decode(): b"f"}


def test_link_to_what_was_removed(desk: Desk) -> None:
    """S-134: it comes back by its new name, with its bytes."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    op = desk.bea.link(file.op_id, ROOT_INO, b"g")
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"f"))
    assert checked_fold(desk.state, desk.bea, op).status is Status.REVIVED
    assert desk.tree() == {"g": b"ann"}


def test_link_to_what_cannot_be_linked(desk: Desk) -> None:
    """S-135: a directory, or an inode that nobody knows: nothing."""
    folder = desk.ann.mkdir(ROOT_INO, b"d")
    checked_fold(desk.state, desk.ann, folder)
    for ino in (ROOT_INO, folder.op_id, 5 << 32 | 5):
        assert checked_fold(desk.state, desk.bea, desk.bea.link(ino, ROOT_INO, b"x")) is NOTHING


def test_link_into_a_removed_directory(desk: Desk) -> None:
    """S-136: the directory comes back, as for create."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    gone = removed_directory(desk, b"d")
    op = desk.bea.link(file.op_id, gone, b"g")
    assert checked_fold(desk.state, desk.bea, op).status is Status.REVIVED
    assert desk.tree() == {"f": b"ann", "d": b"/", "d/g": b"ann"}


# stage, drop


def test_stage_of_what_is_known_or_anothers(desk: Desk) -> None:
    """S-162: nothing."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    change = (Change(0, 1, DATA, b"s" * 32, 0, 0, 0, 5, 5, None),)
    for target in (file.op_id, ROOT_INO, desk.ann.head()[0]):
        op = Stage(desk.bea.head()[0], EPOCH_NS, target, change)
        assert checked_fold(desk.state, desk.bea, op) is NOTHING


def test_drop(desk: Desk) -> None:
    """S-163, S-164: a session drops what it staged, and only that."""
    target = desk.ann.head()[0]
    change = (Change(0, 1, DATA, b"s" * 32, 0, 0, 0, 5, 5, None),)
    staged = Stage(desk.ann.head()[0], EPOCH_NS, target, change)
    checked_fold(desk.state, desk.ann, staged)
    foreign = Drop(desk.bea.head()[0], EPOCH_NS, target)
    assert checked_fold(desk.state, desk.bea, foreign) is NOTHING
    own = Drop(desk.ann.head()[0], EPOCH_NS, target)
    assert checked_fold(desk.state, desk.ann, own).status is Status.APPLIED
    assert desk.state.staged(target) == ()
    assert checked_fold(desk.state, desk.ann, own) is NOTHING


# setattr, setxattr


def test_the_last_attribute_wins(desk: Desk) -> None:
    """S-211: each field for itself; never the type, and size is none of them."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    mine = desk.ann.setattr(file.op_id, mode=stat.S_IFDIR | 0o4711, uid=5, atime_ns=-7)
    yours = desk.bea.setattr(file.op_id, gid=6, mtime_ns=8, uid=9)
    checked_fold(desk.state, desk.ann, mine)
    checked_fold(desk.state, desk.bea, yours)
    row = desk.row(file.op_id)
    assert (row.mode, row.uid, row.gid) == (stat.S_IFREG | 0o4711, 9, 6)
    assert (row.atime_ns, row.mtime_ns, row.ctime_ns) == (-7, 8, yours.time_ns)
    assert (row.size, row.version) == (3, file.op_id)


def test_attributes_of_what_was_removed(desk: Desk) -> None:
    """S-212, S-213: the row changes and nothing comes back; of an unknown inode: nothing."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    checked_fold(desk.state, desk.ann, desk.ann.unlink(desk.state, ROOT_INO, b"f"))
    checked_fold(desk.state, desk.bea, desk.bea.setattr(file.op_id, mode=0o600))
    checked_fold(desk.state, desk.bea, desk.bea.setxattr(file.op_id, b"user.a", b"1"))
    assert desk.tree() == {}
    assert desk.row(file.op_id).mode == stat.S_IFREG | 0o600
    unknown = 9 << 32 | 9
    assert checked_fold(desk.state, desk.bea, desk.bea.setattr(unknown, uid=1)) is NOTHING
    assert checked_fold(desk.state, desk.bea, desk.bea.setxattr(unknown, b"a", b"")) is NOTHING


def test_the_last_xattr_wins(desk: Desk) -> None:
    """S-214: set and removed by name."""
    file = desk.ann.create(ROOT_INO, b"f", b"ann")
    checked_fold(desk.state, desk.ann, file)
    for author, value in ((desk.ann, b"1"), (desk.bea, b"2")):
        checked_fold(desk.state, author, author.setxattr(file.op_id, b"user.a", value))
    assert desk.state.xattrs(file.op_id) == [(b"user.a", b"2")]
    for _ in range(2):
        checked_fold(desk.state, desk.ann, desk.ann.setxattr(file.op_id, b"user.a", None))
    assert desk.state.xattrs(file.op_id) == []


def test_a_set_mtime_of_a_directory_stands_until_a_later_change(desk: Desk) -> None:
    """S-215: and changes in any order of the log give the newest time."""
    folder = desk.ann.mkdir(ROOT_INO, b"d")
    checked_fold(desk.state, desk.ann, folder)
    early, late = desk.bea.create(folder.op_id, b"e"), desk.bea.create(folder.op_id, b"l")
    checked_fold(desk.state, desk.bea, late)
    checked_fold(desk.state, desk.bea, early)
    assert desk.state.times(folder.op_id) == (late.time_ns, late.time_ns)
    desk.ann.time_ns = late.time_ns
    past = desk.ann.setattr(folder.op_id, mtime_ns=12345)
    checked_fold(desk.state, desk.ann, past)
    assert desk.state.times(folder.op_id) == (12345, past.time_ns)
    desk.ann.time_ns += 10**9
    newest = desk.ann.create(folder.op_id, b"n")
    checked_fold(desk.state, desk.ann, newest)
    assert desk.state.times(folder.op_id) == (newest.time_ns, newest.time_ns)


# genesis, session, what is no op


def test_genesis_on_an_empty_state() -> None:
    """S-221: the root, the founder, the first generation, the rules."""
    state = empty_state()
    root = state.inode(ROOT_INO)
    assert root is not None
    assert (root.mode, root.nlink, root.version) == (stat.S_IFDIR | 0o755, 1, 0)
    founder, generation = state.member(FOUNDER), state.generation()
    assert founder is not None and founder.role == 3 and founder.label == b"ann"
    assert generation is not None and (generation.number, generation.id) == (1, b"g" * 16)
    assert state.get_value("rules") == b"1" and state.get_value("name") == b"team"
    assert state.get_value("superblock") == b"h" * 32
    check_state(state)


def test_a_second_genesis(desk: Desk) -> None:
    """S-222: nothing."""
    assert checked_fold(desk.state, desk.ann, genesis()) is NOTHING


def test_sessions_are_numbered_in_the_order_of_the_log(desk: Desk) -> None:
    """S-231: from 1, also for one member and one token."""
    for number in (1, 2, 3):
        op = SessionOp(0, EPOCH_NS, b"t" * 16, b"desk")
        assert checked_fold(desk.state, desk.ann, op).status is Status.APPLIED
        session = desk.state.session(number)
        assert session is not None
        assert (session.member, session.nonce, session.device_label) == (
            FOUNDER, b"t" * 16, b"desk",
        )  # fmt: skip
        assert (session.last_sequence, session.last_hash) == (0, bytes(32))


def test_the_numbers_of_sessions_end(desk: Desk) -> None:
    """S-232: after the last one a session op does nothing."""
    fold(desk.state, SessionOp(0, EPOCH_NS, b"t" * 16, b"desk"), desk.ann.who)
    row = desk.state.session(1)
    assert row is not None
    desk.state.put_session(row._replace(number=(1 << 31) - 1))
    op = SessionOp(0, EPOCH_NS, b"t" * 16, b"desk")
    assert checked_fold(desk.state, desk.ann, op) is NOTHING


def test_before_genesis_nothing_happens() -> None:
    """S-241: every other op on the empty state does nothing."""
    ann = Author(1, b"ann", Blocks())
    state = MemoryState(GEOMETRY)
    ops: list[Op] = [
        ann.create(ROOT_INO, b"f", b"ann"),
        ann.mkdir(7, b"d"),
        ann.symlink(ROOT_INO, b"s"),
        ann.mknod(ROOT_INO, b"p"),
        ann.content_on(7, 0, ROOT_INO, b"f", b"ann"),
        Link(*ann.head(), 7, ROOT_INO, b"x"),
        ann.unlink(state, ROOT_INO, b"f"),
        ann.rmdir(state, ROOT_INO, b"d"),
        ann.rename(state, ROOT_INO, b"f", ROOT_INO, b"g"),
        ann.setattr(7, uid=1),
        ann.setxattr(7, b"user.a", b""),
        Drop(*ann.head(), 7),
        UnknownOp(32),
    ]
    before = state.dump()
    for op in ops:
        assert ann.fold(state, op) is NOTHING
    assert state.dump() == before


def test_names_made_before_are_listed_by_the_id_of_their_op(desk: Desk) -> None:
    """S-4: the id of a name is that of the op that put it there: a place in the directory."""
    made = [desk.ann.create(ROOT_INO, b"%d" % n) for n in range(3)]
    for op in reversed(made):
        checked_fold(desk.state, desk.ann, op)
    move = desk.bea.rename(desk.state, ROOT_INO, b"0", ROOT_INO, b"9")
    checked_fold(desk.state, desk.bea, move)
    assert [row.id for row in desk.state.children(ROOT_INO)] == [
        made[1].op_id, made[2].op_id, move.op_id,
    ]  # fmt: skip
    assert listing(desk.state) == [b"1", b"2", b"9"]


def test_mkdir_of_a_known_id_takes_no_xattrs(desk: Desk) -> None:
    """S-106: nothing means nothing."""
    folder = desk.ann.mkdir(ROOT_INO, b"d")
    checked_fold(desk.state, desk.ann, folder)
    again = Mkdir(*folder[:2], ROOT_INO, b"e", folder.mode, 0, 0, ((b"user.a", b"1"),))
    assert checked_fold(desk.state, desk.ann, again) is NOTHING
