"""Pending ops: who undoes whom, what settles, what readers and the kernel are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.engine.known import KnownTable
from lucid.format.ops import ROOT_INO, Op
from lucid.meta import replica_base, replica_events
from lucid.meta.fold import fold
from lucid.meta.fold_effect import Status
from lucid.meta.replica import Replica
from lucid.meta.replica_undo import pack_op, unpack_op
from tests.meta.authors import Author, Blocks
from tests.meta.replicas import Log, apply, author_of, catch_up, open_replica


class Pair:
    """A replica of session 1, and somebody else who is session 2."""

    def __init__(self, directory: Path) -> None:
        self.log = Log(2)
        self.replica = open_replica(directory)
        blocks = Blocks()
        self.me, self.other = Author(1, b"ann", blocks), Author(2, b"ann", blocks)
        self.me.who, self.other.who = author_of(1), author_of(2)
        self.position = 0
        self.hear()

    def do(self, op: Op) -> Op:
        self.position += 1
        apply(self.replica, self.position, op)
        return op

    def hear(self, *ops: Op) -> None:
        if ops:
            self.log.append(ops[0].op_id >> 32, ops)  # type: ignore[union-attr]
        catch_up(self.replica, self.log)

    def names(self, directory: int = ROOT_INO) -> list[bytes]:
        return sorted(row.name for row in self.replica.readdir(directory, 0, 100))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.replica.close()


def same_as_model(replica: Replica, log: Log) -> bool:
    return replica.dump() == log.model.dump()


def test_files_made_elsewhere_in_the_same_directory_undo_nothing(pair: Pair) -> None:
    for number in range(20):
        pair.do(pair.me.create(ROOT_INO, b"mine%d" % number, b"x"))
    pair.replica.take_events()
    pair.hear(*(pair.other.create(ROOT_INO, b"theirs%d" % number) for number in range(20)))
    changed = pair.replica.take_events()
    assert changed.rebased == ()
    assert len(changed.names) == 20
    assert len(pair.names()) == 40


def test_names_that_come_back_are_not_said_to_be_absent_before(pair: Pair) -> None:
    """The engine answers without the replica's lock, in the middle of taking back and applying
    again too. It knows the directory only from there on, as after a mount."""
    known = KnownTable()
    pair.replica.tell(known, lambda ino: False)
    directory = pair.do(pair.me.mkdir(ROOT_INO, b"d")).op_id  # type: ignore[union-attr]
    names = [b"f%d" % number for number in range(5)]
    for name in names:
        pair.do(pair.me.create(directory, name, b"x"))
    known.begin()
    lies: list[bytes] = []
    looks = 0

    def look(ino: int) -> None:
        nonlocal looks
        looks += 1
        lies.extend(name for name in names if known.is_absent(directory, name))

    pair.replica._tables.inode.on_put = look
    pair.hear(pair.other.mkdir(ROOT_INO, b"d"))
    assert looks > 2 * len(names), "all of them were taken back and applied again"
    assert not lies
    assert pair.names(directory) == names
    later = pair.do(pair.me.mkdir(ROOT_INO, b"later")).op_id  # type: ignore[union-attr]
    assert known.is_absent(later, names[0]), "and what is new is known to be empty"


def test_a_chmod_of_the_directory_undoes_nothing(pair: Pair) -> None:
    directory = pair.me.mkdir(ROOT_INO, b"d")
    pair.hear(directory)
    mine = [pair.me.create(directory.op_id, b"%d" % number) for number in range(5)]
    for op in mine:
        pair.do(op)
    pair.replica.take_events()
    pair.hear(pair.other.setattr(directory.op_id, mode=0o700))
    changed = pair.replica.take_events()
    assert changed.rebased == ()
    assert changed.inodes == {directory.op_id}
    row = pair.replica.inode(directory.op_id)
    assert row is not None and row.mode & 0o777 == 0o700
    pair.hear(*mine)
    assert same_as_model(pair.replica, pair.log)


def test_a_directory_removed_elsewhere_comes_back_for_what_is_pending_in_it(pair: Pair) -> None:
    directory = pair.me.mkdir(ROOT_INO, b"d")
    pair.hear(directory)
    mine = [pair.me.create(directory.op_id, b"%d" % number) for number in range(5)]
    for op in mine:
        pair.do(op)
    pair.replica.take_events()
    pair.hear(pair.other.rmdir(pair.log.model, ROOT_INO, b"d"))
    changed = pair.replica.take_events()
    assert [one.op_id for one in changed.rebased] == [op.op_id for op in mine]
    assert changed.rebased[0].effect.status is Status.REVIVED
    assert changed.rebased[1].effect.status is Status.APPLIED
    assert pair.names() == [b"d"]
    assert len(pair.names(directory.op_id)) == 5
    pair.hear(*mine)
    assert same_as_model(pair.replica, pair.log)


def test_removing_a_directory_that_is_not_empty_undoes_nothing(pair: Pair) -> None:
    directory = pair.me.mkdir(ROOT_INO, b"d")
    pair.hear(directory, pair.me.create(directory.op_id, b"there"))
    mine = pair.do(pair.me.create(directory.op_id, b"mine"))
    pair.replica.take_events()
    pair.hear(pair.other.rmdir(pair.log.model, ROOT_INO, b"d"))
    assert pair.replica.take_events().rebased == ()
    pair.hear(mine)
    assert same_as_model(pair.replica, pair.log)


def test_a_name_taken_elsewhere_pushes_the_pending_one_aside(pair: Pair) -> None:
    mine = pair.do(pair.me.create(ROOT_INO, b"f", b"mine"))
    bystander = pair.do(pair.me.create(ROOT_INO, b"g", b"mine"))
    pair.replica.take_events()
    theirs = pair.other.create(ROOT_INO, b"f", b"theirs")
    pair.hear(theirs)
    dentry = pair.replica.lookup(ROOT_INO, b"f")
    assert dentry is not None and dentry.ino == theirs.op_id
    changed = pair.replica.take_events()
    assert [one.op_id for one in changed.rebased] == [mine.op_id]  # type: ignore[union-attr]
    assert changed.rebased[0].effect.status is Status.CONFLICT
    (beside,) = (name for name in pair.names() if b"conflict" in name)
    assert {(ROOT_INO, b"f"), (ROOT_INO, beside)} <= changed.names
    assert (ROOT_INO, b"g") not in changed.names
    pair.hear(mine, bystander)
    assert same_as_model(pair.replica, pair.log)


def test_what_comes_back_as_it_was_is_not_told(pair: Pair) -> None:
    """A pending chmod is undone and applied again; nobody has seen anything of it."""
    made = pair.me.create(ROOT_INO, b"f")
    directory = pair.me.mkdir(ROOT_INO, b"d")
    pair.hear(made, directory)
    mine = pair.do(pair.me.setattr(directory.op_id, mode=0o711))
    pair.replica.take_events()
    theirs = pair.other.create(directory.op_id, b"new")
    pair.hear(theirs)
    changed = pair.replica.take_events()
    assert [one.op_id for one in changed.rebased] == [mine.op_id]  # type: ignore[union-attr]
    assert changed.names == {(directory.op_id, b"new")}
    assert changed.inodes == {directory.op_id, theirs.op_id}


def test_an_op_that_loses_its_object_is_told(pair: Pair) -> None:
    """The pending rename has nothing to move any more: its new name vanishes again."""
    pair.hear(pair.me.create(ROOT_INO, b"f"))
    mine = pair.me.rename(pair.replica.state, ROOT_INO, b"f", ROOT_INO, b"g")  # type: ignore[arg-type]
    pair.do(mine)
    pair.replica.take_events()
    pair.hear(pair.other.rename(pair.log.model, ROOT_INO, b"f", ROOT_INO, b"h"))
    changed = pair.replica.take_events()
    assert changed.rebased[0].effect.status is Status.NOTHING
    assert (ROOT_INO, b"g") in changed.names
    assert pair.names() == [b"h"]


def test_cycles_of_directories_made_by_two_do_not_stand(pair: Pair) -> None:
    a, b = pair.me.mkdir(ROOT_INO, b"a"), pair.me.mkdir(ROOT_INO, b"b")
    c = pair.me.mkdir(a.op_id, b"c")
    pair.hear(a, b, c)
    mine = pair.me.rename(pair.replica.state, ROOT_INO, b"b", c.op_id, b"b")  # type: ignore[arg-type]
    pair.do(mine)
    theirs = pair.other.rename(pair.log.model, ROOT_INO, b"a", b.op_id, b"a")
    pair.hear(theirs)
    assert pair.names() == [b"b"]
    pair.hear(mine)
    assert same_as_model(pair.replica, pair.log)


def test_own_ops_that_are_committed_out_of_order_are_taken_out(pair: Pair) -> None:
    """A large upload is overtaken by what does not touch it."""
    ops = [pair.do(pair.me.create(ROOT_INO, name, name)) for name in (b"large", b"b", b"c")]
    pair.hear(ops[1])
    assert [pair.replica.is_pending(op.op_id) for op in ops] == [True, False, True]  # type: ignore[union-attr]
    pair.hear(ops[0], ops[2])
    assert pair.replica.pending_count() == 0
    assert same_as_model(pair.replica, pair.log)


def test_a_dependent_op_that_comes_alone_is_folded_without_what_it_hangs_on(pair: Pair) -> None:
    """No honest author sends it so, but whatever is in the log is folded alike by everyone."""
    directory = pair.me.mkdir(ROOT_INO, b"d")
    pair.do(directory)
    inside = pair.do(pair.me.create(directory.op_id, b"f", b"x"))
    pair.hear(inside)
    assert pair.names() == [b"d", b"f"]
    pair.hear(directory)
    assert same_as_model(pair.replica, pair.log)


def test_the_rest_of_an_entry_settles_after_a_merged_op(pair: Pair) -> None:
    mine = pair.me.create(ROOT_INO, b"f", b"first")
    pair.do(mine)
    chmod = pair.do(pair.me.setattr(mine.op_id, mode=0o600))
    pair.hear(mine._replace(size=2), chmod)
    assert pair.replica.pending_count() == 0
    assert same_as_model(pair.replica, pair.log)


def test_the_time_of_a_directory_goes_back_with_a_dropped_op(pair: Pair) -> None:
    first, second = pair.me.create(ROOT_INO, b"a"), pair.me.create(ROOT_INO, b"b")
    third = pair.me.mkdir(ROOT_INO, b"c")
    for op in (first, second, third):
        pair.do(op)
    assert pair.replica.directory_times(ROOT_INO) == (third.time_ns, third.time_ns)
    pair.replica.drop_pending([3])
    assert pair.replica.directory_times(ROOT_INO) == (second.time_ns, second.time_ns)
    pair.replica.drop_pending([1])
    assert pair.replica.directory_times(ROOT_INO) == (second.time_ns, second.time_ns)
    root = pair.replica.inode(ROOT_INO)
    assert root is not None and root.nlink == 2


def test_an_op_that_was_merged_on_its_way_is_folded_as_the_entry_has_it(pair: Pair) -> None:
    mine = pair.me.create(ROOT_INO, b"f", b"first")
    ino = mine.op_id
    again = pair.me.content_on(ino, ino, ROOT_INO, b"f", b"second")
    last = pair.do(mine), pair.do(again), pair.do(pair.me.setattr(ino, mode=0o600))
    merged = mine._replace(size=6, changes=again.changes)
    sequence = pair.log.append(1, [merged])
    done = pair.replica.commit_entry(
        sequence, pair.log.hash(sequence), pair.log.entries[-1], settles=2
    )
    assert (done.settled, done.dropped) == (0, 1)
    assert pair.replica.pending_count() == 1
    row = pair.replica.inode(ino)
    assert row is not None and (row.size, row.version, row.mode & 0o777) == (6, ino, 0o600)
    pair.hear(last[2])
    assert same_as_model(pair.replica, pair.log)


def test_a_dropped_op_takes_nothing_else_along(pair: Pair) -> None:
    """What was built on it is applied again without it."""
    directory = pair.me.mkdir(ROOT_INO, b"d")
    first = pair.do(directory), pair.do(pair.me.create(directory.op_id, b"f", b"x"))
    pair.do(pair.me.create(ROOT_INO, b"g"))
    pair.replica.drop_pending([1, 1, 77])
    assert pair.replica.pending_count() == 2
    # Its directory is nobody's now: the file lies where the fold puts it.
    assert pair.names() == [b"f", b"g"]
    pair.hear(first[1])
    assert same_as_model(pair.replica, pair.log) is False
    pair.replica.drop_pending([3])
    assert same_as_model(pair.replica, pair.log)


def test_an_op_that_the_log_brought_unasked_is_not_applied_again(pair: Pair) -> None:
    pair.replica.set_own_session(1)
    made = pair.me.create(ROOT_INO, b"f")
    renamed = pair.me.rename(pair.log.model, ROOT_INO, b"f", ROOT_INO, b"g")
    renamed = renamed._replace(ino=made.op_id)
    pair.hear(made, renamed)
    before = pair.replica.dump()
    for op in (made, renamed):
        pair.do(op)
        assert not pair.replica.is_pending(op.op_id)
    assert pair.replica.dump() == before
    fresh = pair.do(pair.me.create(ROOT_INO, b"h"))
    assert pair.replica.is_pending(fresh.op_id)  # type: ignore[union-attr]


def test_what_was_settled_before_a_restart_is_not_applied_again(pair: Pair, tmp_path: Path) -> None:
    """The journal had not noted that it was settled when the power went."""
    pair.replica.set_own_session(1)
    made = pair.me.create(ROOT_INO, b"f", b"first")
    again = pair.me.content_on(made.op_id, made.op_id, ROOT_INO, b"f", b"second")
    chmod = pair.me.setattr(made.op_id, mode=0o600)
    for op in (made, again, chmod):
        pair.do(op)
    merged = made._replace(size=6, changes=again.changes)
    sequence = pair.log.append(1, [merged])
    pair.replica.commit_entry(sequence, pair.log.hash(sequence), pair.log.entries[-1], settles=2)
    pair.hear(chmod)
    pair.replica.close()
    pair.replica = open_replica(tmp_path)
    for op in (made, again, chmod):
        pair.do(op)
        assert not pair.replica.is_pending(op.op_id)
    assert same_as_model(pair.replica, pair.log)
    fresh = pair.do(pair.me.create(ROOT_INO, b"g"))
    pair.hear(fresh)
    assert pair.replica._met == set()


def test_notes_say_what_the_log_settles(pair: Pair) -> None:
    pair.hear(pair.me.create(ROOT_INO, b"f"))
    head = pair.replica.head()
    notes = [(head.sequence - 1, b"lost", 3), (head.sequence, head.hash, 5), (99, b"next", 9)]
    assert pair.replica.settled_through(notes) == 5
    assert pair.replica.settled_through([]) == -1


def test_a_fold_that_fails_leaves_no_trace(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.do(pair.me.create(ROOT_INO, b"before", b"x"))
    before = pair.replica.dump()

    def fail(*what: object) -> None:
        fold(*what)  # type: ignore[arg-type]
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(replica_base, "fold", fail)
        with pytest.raises(RuntimeError):
            pair.do(pair.me.create(ROOT_INO, b"f", b"content"))
    assert pair.replica.dump() == before
    assert pair.replica.pending_count() == 1
    pair.do(pair.me.create(ROOT_INO, b"f", b"content"))
    assert pair.names() == [b"before", b"f"]


def test_events_are_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_events, "INODES_MAX", 10)
    pair.replica.take_events()
    pair.hear(*(pair.other.create(ROOT_INO, b"%d" % number) for number in range(20)))
    changed = pair.replica.take_events()
    assert changed.everything
    assert not changed.names
    assert not pair.replica.take_events().everything


def test_many_names_hide_no_changed_file(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel believes the pages of a closed file until it is told not to."""
    monkeypatch.setattr(replica_events, "NAMES_MAX", 10)
    pair.replica.take_events()
    made = [pair.other.create(ROOT_INO, b"%d" % number) for number in range(20)]
    pair.hear(*made)
    changed = pair.replica.take_events()
    assert not changed.everything
    assert changed.inodes >= {ROOT_INO, *(op.op_id for op in made)}
    assert len(changed.names) == 10


def test_ops_come_back_from_their_bytes(pair: Pair) -> None:
    me, state = pair.me, pair.log.model
    made = me.create(ROOT_INO, b"f", bytes(range(1, 40)))
    ops: list[Op] = [
        made, me.mkdir(1, b"d"), me.symlink(1, b"s"), me.mknod(1, b"n"), me.link(2, 1, b"l"),
        me.content_on(5, 4, 1, b"f", b"abc"), me.unlink(state, 1, b"f"), me.rmdir(state, 1, b"d"),
        me.rename(state, 1, b"f", 1, b"g"), me.setattr(5, mode=7), me.setxattr(5, b"a", None),
    ]  # fmt: skip
    for op in ops:
        back = unpack_op(pack_op(op))
        assert back == op
        assert type(back) is type(op)
        if op is made:
            assert [type(change) for change in back.changes] == [type(made.changes[0])] * len(
                made.changes
            )
