"""Own pending ops while rules and floors come from the log: they are applied again, and what they
settle is what the log says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.format.ops import (
    LEASE_EXCLUSIVE,
    ROOT_INO,
    Floor,
    Op,
    Repack,
    Rules,
    segments_of,
)
from lucid.meta.fold_effect import Status
from lucid.meta.lease_rows import lease_name
from lucid.meta.replica import Replica
from lucid.meta.replica_undo import pack_op, unpack_op
from tests.meta.authors import Author, Blocks, look
from tests.meta.repacks import lying_in, moves_of, runs_in
from tests.meta.replicas import (
    Log,
    apply,
    author_of,
    catch_up,
    open_replica,
    segment_row,
)


class Pair:
    """A replica of session 1, and an admin who is session 2."""

    def __init__(self, directory: Path, rules: int) -> None:
        self.directory = directory
        self.log = Log(2, rules)
        self.replica = open_replica(directory)
        blocks = Blocks()
        self.me, self.admin = Author(1, b"ann", blocks), Author(2, b"ann", blocks)
        self.me.who, self.admin.who = author_of(1), author_of(2)
        self.pending: list[tuple[int, Op]] = []
        self.hear()

    def do(self, op: Op) -> Status:
        self.pending.append((len(self.pending) + 1, op))
        return apply(self.replica, *self.pending[-1]).status

    def hear(self, *ops: Op) -> None:
        if ops:
            self.log.append(ops[0].op_id >> 32, ops)  # type: ignore[union-attr]
        catch_up(self.replica, self.log)

    def commit(self) -> None:
        self.hear(*(op for _, op in self.pending))
        assert self.replica.pending_count() == 0


def new_pair(tmp_path: Path, rules: int) -> Iterator[Pair]:
    pair = Pair(tmp_path, rules)
    yield pair
    pair.replica.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    yield from new_pair(tmp_path, 2)


@pytest.fixture
def old_pair(tmp_path: Path) -> Iterator[Pair]:
    yield from new_pair(tmp_path, 1)


def same_as_model(replica: Replica, log: Log) -> bool:
    return replica.dump() == log.model.dump()


def test_a_removal_that_was_pending_when_the_rules_changed(old_pair: Pair) -> None:
    """S-273, S-291: under rules 1 it left no row; it is committed under rules 2."""
    pair = old_pair
    made = pair.me.create(ROOT_INO, b"plan", b"1")
    pair.hear(made)
    unlink = pair.me.unlink(pair.log.model, ROOT_INO, b"plan")
    pair.do(unlink)
    assert pair.replica.state.removed(made.op_id) is None
    pair.hear(Rules(*pair.admin.head(), 2))
    row = pair.replica.state.removed(made.op_id)
    assert row is not None and row.op_id == unlink.op_id
    pair.commit()
    assert same_as_model(pair.replica, pair.log)


def test_a_pending_removal_gets_its_place_in_the_log(pair: Pair) -> None:
    """S-291: the stamp of a pending op is its own machine's affair."""
    made = pair.me.create(ROOT_INO, b"plan", b"1")
    pair.hear(made)
    pair.do(pair.me.unlink(pair.log.model, ROOT_INO, b"plan"))
    pair.commit()
    assert same_as_model(pair.replica, pair.log)


def test_a_file_that_is_removed_and_brought_back_while_pending(pair: Pair) -> None:
    """S-291: there is no row whose stamp could be set."""
    made = pair.me.create(ROOT_INO, b"plan", b"1")
    pair.hear(made)
    pair.do(pair.me.unlink(pair.log.model, ROOT_INO, b"plan"))
    pair.do(pair.me.link(made.op_id, ROOT_INO, b"back"))
    assert pair.replica.state.removed(made.op_id) is None
    pair.commit()
    assert same_as_model(pair.replica, pair.log)


def test_a_pending_clone_settles_as_it_stands(pair: Pair) -> None:
    """S-261, S-262: and is taken back and applied again when its source is concerned."""
    made = pair.me.create(ROOT_INO, b"plan", b"1" * 40)
    pair.hear(made)
    save = pair.me.content(pair.log.model, ROOT_INO, b"plan", b"2" * 40)
    pair.do(save)
    ino = made.op_id
    clone = pair.me.clone(ino, ino, ino, save.op_id, ROOT_INO, b"plan")
    copy = pair.me.clone(ino, save.op_id, 0, 0, ROOT_INO, b"copy")
    assert [pair.do(op) for op in (clone, copy)] == [Status.APPLIED] * 2
    pair.hear(pair.admin.content(pair.log.model, ROOT_INO, b"plan", b"3" * 40))
    # The save is a conflict copy now, and the clone upon it goes there too.
    landed = pair.replica.version(clone.op_id)
    assert landed is not None and landed.ino == save.op_id
    pair.commit()
    assert same_as_model(pair.replica, pair.log)
    assert look(pair.log.model, ROOT_INO, b"copy")[0] == copy.op_id


def test_a_floor_ends_what_a_pending_clone_names(pair: Pair) -> None:
    """S-265, S-286: it does nothing then, here and in the log."""
    made = pair.me.create(ROOT_INO, b"plan", b"1" * 40)
    pair.hear(made)
    pair.hear(pair.me.content(pair.log.model, ROOT_INO, b"plan", b"2" * 40))
    clone = pair.me.clone(made.op_id, made.op_id, 0, 0, ROOT_INO, b"copy")
    assert pair.do(clone) is Status.APPLIED
    pair.hear(Floor(*pair.admin.head(), len(pair.log.entries) + 1))
    assert pair.replica.version(made.op_id) is None
    assert pair.replica.lookup(ROOT_INO, b"copy") is None
    pair.commit()
    assert same_as_model(pair.replica, pair.log)


def test_a_floor_looks_below_what_is_pending(pair: Pair) -> None:
    """S-284, S-286: a removed directory that a pending op brought back is removed in the log."""
    made = pair.me.mkdir(ROOT_INO, b"docs")
    pair.hear(made)
    pair.hear(pair.me.rmdir(pair.log.model, ROOT_INO, b"docs"))
    assert pair.do(pair.me.create(made.op_id, b"late", b"1")) is Status.REVIVED
    pair.hear(Floor(*pair.admin.head(), len(pair.log.entries) + 1))
    assert pair.replica.inode(made.op_id) is None
    assert pair.replica.lookup(ROOT_INO, b"late") is not None
    pair.commit()
    assert same_as_model(pair.replica, pair.log)


def test_what_a_floor_left_is_there_after_a_restart(pair: Pair) -> None:
    """S-283."""
    made = pair.me.create(ROOT_INO, b"plan", b"1" * 40)
    pair.hear(made)
    for number in (b"2", b"3"):
        op = pair.me.content(pair.log.model, ROOT_INO, b"plan", b"1" * 16 + number * 24, keep=16)
        pair.hear(op)
    pair.hear(Floor(*pair.admin.head(), len(pair.log.entries) + 1))
    pair.replica.close()
    pair.replica = open_replica(pair.directory)
    assert [row.id for row in pair.replica.versions(made.op_id)] == [op.op_id]
    columns = pair.replica.map_columns(made.op_id, op.op_id)
    assert columns is not None and sum(columns.count) == 3
    assert same_as_model(pair.replica, pair.log)


def test_a_floor_ends_a_line_under_pending_content(tmp_path: Path) -> None:
    """S-326, S-327: content that lay beside for a lease lies beside an inode that is no more."""
    pair = Pair(tmp_path, 4)
    made = pair.me.create(ROOT_INO, b"plan", b"1" * 40)
    pair.hear(made)
    pair.hear(pair.admin.take(made.op_id, LEASE_EXCLUSIVE))
    save = pair.me.content(pair.log.model, ROOT_INO, b"plan", b"")  # it names no segment
    assert pair.do(save) is Status.CONFLICT
    pair.hear(pair.admin.unlink(pair.log.model, ROOT_INO, b"plan"))
    assert len(pair.replica.state.lease(made.op_id)) == 1
    pair.hear(Floor(*pair.admin.head(), len(pair.log.entries) + 1))
    assert pair.replica.inode(made.op_id) is None
    assert pair.replica.state.lease(made.op_id) == ()
    assert pair.replica.value(lease_name(made.op_id)) is None
    landed = pair.replica.version(save.op_id)
    assert landed is not None and landed.ino == save.op_id
    pair.commit()
    assert same_as_model(pair.replica, pair.log)
    pair.replica.close()


def test_a_clone_survives_being_packed(pair: Pair) -> None:
    op = pair.me.clone(1 << 32 | 1, 1 << 32 | 2, 0, 0, ROOT_INO, b"copy")
    assert unpack_op(pack_op(op)) == op


@pytest.mark.parametrize("late", [False, True])
def test_own_ops_in_a_pack_that_is_repacked(tmp_path: Path, late: bool) -> None:
    """S-296, S-298: of a pack one file is committed, two are pending, one of them on that file's
    blocks. What is pending keeps naming the old segment, and reads on; committed before a floor
    above the repack it counts, and after it the log makes nothing of it, as of all such ops."""
    pair = Pair(tmp_path, 3)
    made = pair.me.create(ROOT_INO, b"one", b"1" * 64)
    (old,) = segments_of(made)
    second = pair.me.create(ROOT_INO, b"two")._replace(size=64, changes=made.changes)
    pair.hear(made)
    pair.do(second)
    pair.do(pair.me.content_on(made.op_id, made.op_id, ROOT_INO, b"one", b"1" * 32 + b"9", keep=32))
    blocks = pair.me.blocks
    moves = moves_of(blocks, lying_in(runs_in(pair.log.model.dump())), [old])
    pair.log.heads[moves[0].segment] = len(pair.log.entries)
    pair.hear(Repack(*pair.admin.head(), moves))
    first = pair.replica.map_columns(made.op_id, made.op_id)
    pending = pair.replica.map_columns(second.op_id)
    newest = pair.replica.map_columns(made.op_id)
    assert first is not None and pending is not None and newest is not None
    assert [row.id for row in first.segments] == [moves[0].segment]
    assert [row.id for row in pending.segments] == [old]
    assert newest.segments[0].id == moves[0].segment and newest.first.tolist() == [0, 2]
    row = pair.replica.segment(old)
    assert row is not None and row.head == len(pair.log.entries)
    rows = [segment_row(old)]
    assert pair.replica.below_floor(rows) == []
    if late:
        pair.hear(pair.admin.mkdir(ROOT_INO, b"later"))
        pair.hear(Floor(*pair.admin.head(), len(pair.log.entries)))
        assert pair.replica.below_floor(rows) == [old], "its author prepares it again"
    pair.hear(*(op for _, op in pair.pending))
    assert (pair.replica.lookup(ROOT_INO, b"two") is None) == late
    assert same_as_model(pair.replica, pair.log)
    pair.replica.close()
